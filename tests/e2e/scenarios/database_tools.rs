//! Migrations by tools in images of their own: golang-migrate and Flyway as the examples have them (Prisma is in the
//! runbooks), and what may come in between. What such a tool did is known only if it came to its end: if not, a person looks.

use serde_json::{Value, json};
use servicerelease::api::{DatabaseTask, Phase, SchemaState, WorkOutcome};

use crate::{
    harness::{
        Scenario, World,
        database::{Ground, LONG},
        postgres::image,
        processes,
    },
    scenarios,
};

use super::{
    database_faults::neighbour,
    database_runbooks::{apply, example},
};

pub const ALL: &[Scenario] = scenarios! {
    the_example_of_golang_migrate, Together, Embedded;
    the_example_of_flyway, Together, Embedded;
    a_tool_killed_while_the_server_goes_on, Together, Embedded;
    a_tool_that_waits_for_a_lock, Together, Embedded;
    two_namespaces_and_one_image, Together, Embedded;
    the_image_follows_the_candidate, Together, Embedded;
};

const MIGRATE: &str = include_str!("../../../deploy/examples/database-golang-migrate.yaml");

/// The release of an example goes from version 1 of its files to version 2.
fn first_version_only(release: &mut Value) {
    let database = &mut release["spec"]["database"];
    let command = "exec migrate -path /migrations -database \"$DATABASE_URL\" goto 1";
    database["migration"]["template"]["spec"]["containers"][0]["command"][2] = json!(command);
    database["verify"] = Value::Null;
}

/// The database's part of the example.
fn whole(text: &str) -> Value {
    let release = example(text).into_iter().find(|object| object["kind"] == "ServiceRelease").expect("a release");
    json!({ "spec": { "database": release["spec"]["database"] } })
}

const VERSION: &str = "SELECT version, dirty FROM schema_migrations";

async fn the_example_of_golang_migrate(world: World) {
    let (ground, _volumes) = apply(&world, MIGRATE, first_version_only).await;
    assert_eq!(ground.postgres.sql(VERSION).await, "1|f");
    let mut sick = whole(MIGRATE);
    sick["spec"]["checks"] = json!([{ "name": "never", "http": { "path": "/health", "expect": { "status": 204 } } }]);
    ground.shop.release_with("v2", sick).await;
    // What a tool loses nobody can read.
    ground.approves("MigrateDown").await;
    let status = ground.ends(Phase::RolledBack, "CheckFailed", "check never failed").await;
    let known = status.database.unwrap();
    assert_eq!(known.schema, SchemaState::Undone);
    assert!(known.set_aside.is_some_and(|backup| backup.proven_at.is_some()), "a backup of what was there");
    // Of a tool only those locks are seen that are held for a while.
    assert!(known.rehearsal.is_some_and(|rehearsal| rehearsal.migrated_millis > 0));
    assert_eq!(ground.postgres.sql(VERSION).await, "1|f", "taken back");
    ground.load.answered_only_by("v1").await;
    ground.is_quiet().await;

    let mut well = whole(MIGRATE);
    well["spec"]["checks"] = json!([]);
    ground.shop.release_with("v3", well).await;
    ground.healthy().await;
    assert_eq!(ground.postgres.sql(VERSION).await, "2|f");

    // Half of the third is wrong: the rehearsal finds it, and the real database never sees it.
    let files =
        json!({ "data": { "3_wrong.up.sql": "CREATE TABLE more (id int);\nALTER TABLE nothing ADD COLUMN id int;" } });
    ground.patch_config_map("shop-migrations", files).await;
    ground.shop.release_with("v4", to_three(&json!({}))).await;
    ground.taken_back_quietly("RehearsalFailed", SchemaState::Unchanged).await;
    assert_eq!(ground.postgres.sql(VERSION).await, "2|f");
    // Without one it is dirty, which the tool itself will not go on from; its down migration needs a person first.
    ground.shop.release_with("v5", to_three(&json!({ "rehearsal": null, "onRollback": "Keep" }))).await;
    ground.taken_back_quietly("MigrationFailed", SchemaState::Partial).await;
    assert_eq!(ground.postgres.sql(VERSION).await, "3|t");
    let status = ground.shop.status().await;
    assert!(status.message.contains("a part of the migration was applied"), "{}", status.message);
    let repair = "public.schema_migrations has 3 as not finished: golang-migrate";
    assert!(
        status.next_action.starts_with(repair) && status.next_action.contains("`migrate force VERSION`"),
        "{status:?}"
    );
    ground.load.answered_only_by("v3").await;
}

/// Version 3 of the files, and other changes of the database's part.
fn to_three(more: &Value) -> Value {
    let text = whole(MIGRATE).to_string().replace("goto 2", "goto 3").replace("version <> 2", "version <> 3");
    let mut change: Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in more.as_object().expect("an object") {
        change["spec"]["database"][key] = value.clone();
    }
    change
}

async fn the_example_of_flyway(world: World) {
    let text = include_str!("../../../deploy/examples/database-flyway.yaml");
    let (ground, _volumes) = apply(&world, text, |_| ()).await;
    let history = "SELECT string_agg(version, ',' ORDER BY installed_rank) FROM flyway_schema_history WHERE success";
    assert_eq!(ground.postgres.sql(history).await, "1,2");
    let more =
        json!({ "data": { "V3__wrong.sql": "CREATE TABLE more (id int);\nALTER TABLE nothing ADD COLUMN id int;" } });
    ground.patch_config_map("shop-migrations", more).await;
    let version = |version: &str| json!({ "spec": { "database": { "migration": { "version": version } } } });
    ground.shop.release_with("v2", version("3")).await;
    ground.taken_back_quietly("RehearsalFailed", SchemaState::Unchanged).await;
    assert_eq!(ground.postgres.sql(history).await, "1,2");
    let more = json!({ "data": { "V3__wrong.sql": null, "V3__more.sql": "CREATE TABLE more (id int);" } });
    ground.patch_config_map("shop-migrations", more).await;
    ground.shop.release_with("v3", version("3-again")).await;
    ground.healthy().await;
    assert_eq!(ground.postgres.sql(history).await, "1,2,3");
    ground.load.answered_only_by("v3").await;
    ground.is_quiet().await;
}

/// golang-migrate sends a file as it is: the server carries all of it out, whether anybody waits for it or not.
async fn a_tool_killed_while_the_server_goes_on(world: World) {
    let (ground, _volumes) = apply(&world, MIGRATE, |release| {
        release["spec"]["database"]["rehearsal"] = Value::Null;
        release["spec"]["database"]["backup"] = Value::Null;
    })
    .await;
    let slow = "CREATE TABLE slow (id int);\nSELECT pg_sleep(6);\nINSERT INTO slow VALUES (1);";
    ground
        .patch_config_map(
            "shop-migrations",
            json!({ "data": { "3_slow.up.sql": slow, "3_slow.down.sql": "DROP TABLE slow;" } }),
        )
        .await;
    ground.shop.release_with("v2", to_three(&json!({ "rehearsal": null, "backup": null, "onRollback": "Halt" }))).await;
    let pod = ground.pod(DatabaseTask::Migration).await;
    ground.postgres.runs("pg_sleep(6)").await;
    // All of the pod at once, as when its node is lost.
    processes::first(&pod).expect("its process").kill().await;
    let status = ground.ends(Phase::Halted, "MigrationUnknown", "").await;
    assert!(status.next_action.contains("retry") && status.next_action.contains("psql"), "{}", status.next_action);
    assert_eq!(status.database.unwrap().schema, SchemaState::Unknown);
    // Nothing else ran before the server had come to its end with it.
    let ended = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(6)%' AND pid <> pg_backend_pid()";
    assert_eq!(ground.postgres.sql(ended).await, "0");
    ground.is_quiet().await;
    ground.load.answered_only_by("v1").await;

    // The person finds out whether the server committed it, mends what the tool did not come to note, and says so.
    let committed = ground.postgres.sql("SELECT to_regclass('slow') IS NOT NULL").await;
    crate::harness::note(format!("committed: {committed}"));
    assert_eq!(ground.postgres.sql(VERSION).await, "3|t", "the tool's own record");
    let version = if committed == "t" { 3 } else { 2 };
    ground.postgres.sql(&format!("UPDATE schema_migrations SET version = {version}, dirty = false")).await;
    ground.shop.say("Skip").await;
    ground.shop.reaches_within(LONG, "RolledBack", |status| status.phase == Phase::RolledBack).await;

    // The tool alone is killed: who wraps it waits for the server, and says that nobody knows.
    let alone = "CREATE TABLE alone (id int); SELECT pg_sleep(5); INSERT INTO alone VALUES (1)";
    ground.shop.release_with("alone", script(alone, &json!({ "version": "alone" }))).await;
    let pod = ground.pod(DatabaseTask::Migration).await;
    ground.postgres.runs("pg_sleep(5)").await;
    processes::with(&pod, "psql").await.kill().await;
    let status = ground.ends(Phase::Halted, "MigrationUnknown", "").await;
    crate::harness::note(status.message);
    ground.is_quiet().await;
    ground.load.answered_only_by("v1").await;
    ground.shop.say("Skip").await;
    ground.shop.reaches_within(LONG, "RolledBack", |status| status.phase == Phase::RolledBack).await;

    // Of one that may be run again nobody has to look: it finds out itself what is left to do.
    let again = "CREATE TABLE IF NOT EXISTS slower (id int PRIMARY KEY);
        SELECT pg_sleep(7); INSERT INTO slower VALUES (1) ON CONFLICT DO NOTHING";
    let change = script(again, &json!({ "idempotent": true, "version": "again" }));
    ground.shop.release_with("v3", change).await;
    let pod = ground.pod(DatabaseTask::Migration).await;
    ground.postgres.runs("pg_sleep(7)").await;
    processes::first(&pod).expect("its process").kill().await;
    let status = ground.healthy().await;
    let work = status.database.unwrap().last(DatabaseTask::Migration).unwrap().clone();
    assert_eq!((work.outcome, work.attempt), (WorkOutcome::Done, 2), "{}", work.message);
    assert_eq!(ground.postgres.sql("SELECT count(*) FROM slower").await, "1");
    ground.load.answered_only_by("v3").await;
    ground.is_quiet().await;
}

/// A migration by psql, and nothing else of the database's work. `more` is put over it.
pub fn script(sql: &str, more: &Value) -> Value {
    let security = json!({ "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } });
    let container = json!({
        "name": "script", "image": image("POSTGRES_IMAGE"), "env": [{ "name": "SQL", "value": sql }],
        "command": ["/bin/sh", "-ec", "exec psql -v ON_ERROR_STOP=1 \"$DATABASE_URL\" -c \"$SQL\""],
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    });
    let mut migration = json!({
        "template": { "spec": { "securityContext": security, "containers": [container], "volumes": null } },
        "previousRevisionCompatible": true, "sql": null, "approval": null,
    });
    for (key, value) in more.as_object().expect("an object") {
        migration[key] = value.clone();
    }
    let none = Value::Null;
    json!({ "spec": { "database": { "migration": migration, "verify": none, "rehearsal": none, "backup": none } } })
}

/// Its statement waits for a lock longer than lockTimeout: it is cancelled from outside, since the tool knows nothing of
/// lock_timeout, and whoever else wants the table goes on. psql would know of it by PGOPTIONS, as no tool of Java does.
async fn a_tool_that_waits_for_a_lock(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let deaf = |version: &str| {
        let sql = "ALTER TABLE effects ADD COLUMN note text";
        let mut change = script(sql, &json!({ "lockTimeout": "1s", "timeout": "30s", "version": version }));
        let command = "unset PGOPTIONS; exec psql -v ON_ERROR_STOP=1 \"$DATABASE_URL\" -c \"$SQL\"";
        change["spec"]["database"]["migration"]["template"]["spec"]["containers"][0]["command"][2] = json!(command);
        change
    };
    let holder = ground.postgres.hold("LOCK TABLE effects IN ACCESS SHARE MODE").await;
    ground.shop.release_with("v2", deaf("2")).await;
    let status = ground.ends(Phase::RolledBack, "MigrationFailed", "").await;
    let told = &status.database.as_ref().unwrap().last(DatabaseTask::Migration).unwrap().message;
    // Which process has it differs.
    for part in [
        "a statement that waited for a lock longer than 1s was cancelled: on effects, which process ",
        " (holder) has; ",
        "canceling statement due to user request",
    ] {
        assert!(told.contains(part), "no {part:?} in {told:?}");
    }
    let column = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'note'";
    assert_eq!(ground.postgres.sql(column).await, "0");
    ground.is_sound().await;
    ground.load.answered_only_by("v1").await;
    holder.release().await;
    ground.shop.release_with("v3", deaf("3")).await;
    ground.healthy().await;
    assert_eq!(ground.postgres.sql(column).await, "1");
    ground.load.answered_only_by("v3").await;
    ground.is_sound().await;
}

/// Two releases with one image and one command, at once: one of them runs it. The other one finds it in the ledger as applied,
/// under whatever host name it comes to the database.
async fn two_namespaces_and_one_image(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let (other, second) = neighbour(&ground).await;
    let sql = "CREATE TABLE made (id int); SELECT pg_sleep(5); INSERT INTO effects (version) VALUES ('by-image')";
    let change = script(sql, &json!({ "version": "v2" }));
    ground.shop.release_with("v2", change.clone()).await;
    ground.postgres.runs("pg_sleep(5)").await;
    second.release_with("v2", change).await;
    let first = ground.healthy().await;
    let is_over = |phase: Phase| matches!(phase, Phase::Healthy | Phase::RolledBack | Phase::Halted);
    let end = second.reaches_within(LONG, "its end in the other namespace", |it| is_over(it.phase)).await;
    assert_eq!(end.phase, Phase::Healthy, "{}", end.message);
    assert_eq!(ground.effects().await, "001,by-image");
    for (status, told) in [(&first, "exit code 0"), (&end, "applied already")] {
        let work = status.database.as_ref().unwrap().last(DatabaseTask::Migration).unwrap();
        assert_eq!(work.outcome, WorkOutcome::Done, "{}", work.message);
        assert!(work.message.contains(told), "no {told:?} in {}", work.message);
    }
    let rows = "SELECT state FROM servicerelease.servicerelease_ledger WHERE version LIKE 'migration/%'";
    assert_eq!(ground.postgres.sql(rows).await, "Applied", "one row for both");
    ground.load.answered_only_by("v2").await;
    ground.is_sound().await;
    other.remove().await;
}

async fn the_image_follows_the_candidate(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let mut change = script("SELECT 1", &json!({ "imageFrom": { "container": "app" } }));
    let container = &mut change["spec"]["database"]["migration"]["template"]["spec"]["containers"][0];
    container["image"] = json!("registry.example.com/whatever:latest");
    container["command"] = json!(["/usr/bin/testapp", "--version"]);
    ground.shop.release_with("v2", change).await;
    ground.healthy().await;
    let images = "get pods -l servicerelease.io/job -o jsonpath={.items[*].spec.containers[*].image}";
    let images = world.kubectl(images).await.expect_success();
    assert!(images.contains(&world.cluster.testapp) && !images.contains("whatever"), "{images}");
    ground.load.answered_only_by("v2").await;
    ground.is_quiet().await;
}
