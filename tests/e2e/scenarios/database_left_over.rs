//! What the database's work waits for, and what it must not leave behind or touch: objects that are not there yet, a scratch
//! database of what was killed, a rehearsal that would go to the real one.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, Secret},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, EvictParams, PostParams},
};
use serde_json::json;
use servicerelease::api::{DatabaseTask, Phase, SchemaState, WorkOutcome};

use crate::{
    harness::{
        Scenario, World,
        database::{Ground, LONG, config_map, file, first_file},
        processes,
        volume::Volume,
    },
    scenarios,
};

use super::database_tools::script;

pub const ALL: &[Scenario] = scenarios! {
    what_is_missing_is_waited_for, Together, Embedded;
    a_rehearsal_that_is_killed_leaves_no_database, Together, Embedded;
    a_rehearsal_that_would_go_astray, Together, Embedded;
    a_tool_whose_job_is_gone, Together, Embedded;
};

const BACKED_UP: &str = "{database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}}}";
const SCRATCH: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE 'servicerelease_%'";

/// Each is told with the field that names it. What a pod waits for it goes on with by itself once it is there.
async fn what_is_missing_is_waited_for(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let change = "{migration: {sql: {configMap: not-yet}},
        backup: {persistentVolumeClaim: {claimName: no-backups-yet},
            scratchUrlFrom: {secretKeyRef: {name: no-secret-yet, key: URL}}}}";
    ground.release("v2", &[], change).await;
    let waits = async |reason: &str, field: &str| {
        let told = |status: &servicerelease::api::ServiceReleaseStatus| {
            status.reason == reason && status.message.contains(field)
        };
        let status = ground.shop.reaches_within(LONG, &format!("{reason}: {field}"), told).await;
        assert!(!status.next_action.is_empty(), "{status:?}");
        ground.load.answered_only_by("v1").await;
    };
    waits("SecretMissing", "spec.database.backup.scratchUrlFrom").await;
    let known = world.api::<Secret>().get("shop-db").await.expect("a Secret");
    let url = known.data.expect("data")["DATABASE_URL"].clone();
    let secret = json!({ "metadata": { "name": "no-secret-yet" }, "data": { "URL": url } });
    let secret = serde_json::from_value(secret).expect("a Secret");
    world.api::<Secret>().create(&PostParams::default(), &secret).await.expect("a Secret");

    // Files are looked for by a pod that is there without them.
    let told = "spec.database.migration.sql.configMap";
    ground.taken_back("DatabasePreflightFailed", told, SchemaState::Unchanged).await;
    config_map(&world, "not-yet", vec![first_file(), file("002", "CREATE TABLE notes (id int)")]).await;
    ground.shop.say("Retry").await;

    waits("VolumeClaimMissing", "spec.database.backup.persistentVolumeClaim.claimName").await;
    let volume = Volume::claimed(&world, "no-backups-yet").await;
    ground.healthy().await;
    assert_eq!((ground.effects().await.as_str(), volume.files(".dump").len()), ("001,002", 1));
    ground.load.answered_only_by("v2").await;
    ground.is_sound().await;
}

async fn a_rehearsal_that_is_killed_leaves_no_database(world: World) {
    let _volume = Volume::claimed(&world, "shop-backups").await;
    let ground = Ground::start(&world, BACKED_UP).await;
    ground.release("v2", &[file("002", "CREATE TABLE slow (id int);\nSELECT pg_sleep(97)")], "{rehearsal: {}}").await;
    ground.postgres.runs("pg_sleep(97)").await;
    assert_eq!(ground.postgres.sql(SCRATCH).await, "1");
    let pod = ground.pod(DatabaseTask::Rehearsal).await;
    processes::first(&pod).expect("its process").kill().await;
    // Nobody is there to remove it, and nobody is to begin again.
    ground.shop.say("Abort").await;
    ground.ends(Phase::RolledBack, "Aborted", "").await;
    let cleaned = ground.work(DatabaseTask::CleanUp, WorkOutcome::Done).await;
    assert_eq!(cleaned.database.unwrap().schema, SchemaState::Unchanged);
    assert_eq!(ground.postgres.sql(SCRATCH).await, "0");
    assert_eq!(ground.effects().await, "001");
    ground.load.answered_only_by("v1").await;
    ground.is_sound().await;
}

/// A command that goes elsewhere than a rehearsal leads it: where its words say so it is not run at all, and where nobody can
/// see it before, nobody was in the scratch database, and a person has to look at the real one.
async fn a_rehearsal_that_would_go_astray(world: World) {
    let _volume = Volume::claimed(&world, "shop-backups").await;
    let ground = Ground::start(&world, BACKED_UP).await;
    let told = "exec psql -h postgres -d shop -U shop -c \"$SQL\"";
    let hidden = "url=$DATABASE_URL; name=sho; exec psql \"${url%/*}/${name}p?sslmode=disable\" -c 'SELECT 1'";
    for (version, command) in [("told", told), ("hidden", hidden)] {
        let mut change = script("CREATE TABLE astray (id int)", &json!({ "version": version }));
        let database = &mut change["spec"]["database"];
        database["rehearsal"] = json!({});
        database["backup"] = json!({ "persistentVolumeClaim": { "claimName": "shop-backups" } });
        database["migration"]["template"]["spec"]["containers"][0]["command"][2] = json!(command);
        ground.shop.release_with(version, change).await;
        if version == "told" {
            let told = "leads to the real database";
            ground.taken_back("RehearsalFailed", told, SchemaState::Unchanged).await;
        } else {
            let told = "was never connected to the database of the rehearsal";
            let status = ground.ends(Phase::Halted, "RehearsalUnknown", told).await;
            assert_eq!(status.database.as_ref().unwrap().schema, SchemaState::Unknown);
            assert!(status.next_action.contains("psql") && status.next_action.contains(" skip shop"), "{status:?}");
            let refused = ground.shop.refused("Retry", "").await;
            assert!(refused.starts_with("nothing would be tried again"), "{refused}");
            ground.load.answered_only_by("v1").await;
            // Somebody has looked: it did nothing.
            ground.shop.say("Skip").await;
            let status = ground.shop.phase(Phase::RolledBack).await;
            assert_eq!(status.reason, "RehearsalUnknown", "{}", status.message);
        }
        assert_eq!(ground.postgres.sql("SELECT to_regclass('astray') IS NULL").await, "t");
        ground.load.answered_only_by("v1").await;
        ground.is_sound().await;
    }
}

/// What ends a pod in order leaves it the time to end its command and to note that: nothing is in doubt then.
async fn a_tool_whose_job_is_gone(world: World) {
    let ground = Ground::start(&world, "{}").await;
    for (version, seconds) in [("deleted", 61), ("evicted", 62)] {
        let sql = format!("CREATE TABLE {version} (id int); SELECT pg_sleep({seconds})");
        ground.shop.release_with(version, script(&sql, &json!({ "version": version, "timeout": "5m" }))).await;
        let pod = ground.pod(DatabaseTask::Migration).await;
        ground.postgres.runs(&format!("pg_sleep({seconds})")).await;
        if version == "deleted" {
            let job = pod.labels().get("job-name").expect("a Job").clone();
            world.api::<Job>().delete(&job, &DeleteParams::background()).await.expect("a deletion");
        } else {
            world.api::<Pod>().evict(&pod.name_any(), &EvictParams::default()).await.expect("an eviction");
        }
        let status = ground.ends(Phase::RolledBack, "MigrationFailed", "").await;
        let work = status.database.unwrap().last(DatabaseTask::Migration).unwrap().clone();
        assert_eq!(work.outcome, WorkOutcome::Failed, "{version}: {}", work.message);
        crate::harness::note(format!("{version}: {}", work.message));
        assert_eq!(ground.postgres.sql(&format!("SELECT to_regclass('{version}') IS NULL")).await, "t");
        ground.load.answered_only_by("v1").await;
        ground.is_quiet().await;
    }
    ground.shop.release_with("well", script("CREATE TABLE well (id int)", &json!({ "version": "well" }))).await;
    ground.healthy().await;
    ground.load.answered_only_by("well").await;
    ground.is_sound().await;
}
