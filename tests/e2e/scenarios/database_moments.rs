//! Whatever a person does in whatever step of the database's work: another version, an abort, the end of the object. What
//! is under way comes to a known end first, and nothing is applied twice.

use kube::api::DeleteParams;
use serde_json::json;
use servicerelease::api::{DatabaseTask, Phase, SchemaState, ServiceReleaseStatus, StepName, WorkOutcome};

use crate::{
    harness::{
        Scenario, Shop, World,
        database::{Ground, LONG, config_map, file},
        volume::Volume,
    },
    scenarios,
};

use super::database_tools::script;

pub const ALL: &[Scenario] = scenarios! {
    aborted_in_each_step, Together, Embedded;
    edited_in_each_step, Together, Embedded;
    deleted_in_mid_migration, Together, Embedded;
    deleted_in_maintenance_while_an_image_migrates, Together, Embedded;
    in_maintenance_in_a_seed_and_in_a_restore, Together, Embedded;
    edited_in_maintenance_in_a_seed_and_in_a_down_migration, Together, Embedded;
};

/// The steps that nobody notices: a migration that a person approves, and a verification. Those behind maintenance mode, the
/// seed and the ways back by a backup and by a down migration have scenarios of their own.
const SPEC: &str = "{database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}, rehearsal: {},
    verify: {tables: [effects]}, migration: {approval: Required}}}";

/// Where a person does something.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// While the Job of this runs.
    During(DatabaseTask),
    /// While the approval is waited for.
    Approval,
}

use Moment::{Approval, During};

const MOMENTS: [Moment; 6] = [
    During(DatabaseTask::Preflight),
    During(DatabaseTask::Backup),
    During(DatabaseTask::Rehearsal),
    Approval,
    During(DatabaseTask::Migration),
    During(DatabaseTask::Verification),
];

impl Moment {
    /// Comes back when it is there.
    async fn is_there(self, ground: &Ground) {
        let late = matches!(self, During(DatabaseTask::Migration | DatabaseTask::Verification));
        if late || matches!(self, Approval) {
            let waits = |status: &ServiceReleaseStatus| status.phase == Phase::AwaitingApproval;
            ground.shop.reaches_within(LONG, "AwaitingApproval", waits).await;
        }
        if late {
            ground.approve("Migration").await;
        }
        if let During(task) = self {
            ground.work(task, WorkOutcome::Running).await;
            if task == DatabaseTask::Migration {
                ground.postgres.runs("takes a while").await;
            }
        }
    }

    /// Whether the migration was on its way then.
    const fn is_of_the_migration(self) -> bool {
        matches!(self, During(DatabaseTask::Migration | DatabaseTask::Verification))
    }
}

/// A file; in the real database it takes a while, where something is to be done meanwhile.
fn slow(number: usize, moment: Moment) -> (String, String) {
    let seconds = if matches!(moment, During(DatabaseTask::Migration)) { 8 } else { 0 };
    let sleep = format!("CASE current_database() WHEN 'shop' THEN {seconds} ELSE 0 END");
    let sql = format!("CREATE TABLE slow_{number} (id int);\nSELECT 'takes a while', pg_sleep({sleep})");
    file(&format!("{number:03}"), &sql)
}

async fn start(world: &World) -> (Ground, Volume) {
    let volume = Volume::claimed(world, "shop-backups").await;
    let postgres = crate::harness::postgres::Postgres::start(world).await;
    // Nobody has to approve the first one.
    let ground = Ground::on(world, postgres, &SPEC.replace("Required", "Never")).await;
    ground.shop.patch("{spec: {database: {migration: {approval: Required}}}}").await;
    (ground, volume)
}

async fn aborted_in_each_step(world: World) {
    let (ground, _volume) = start(&world).await;
    let mut files = Vec::new();
    let mut applied = "001".to_owned();
    for (place, moment) in MOMENTS.into_iter().enumerate() {
        let number = place + 2;
        files.push(slow(number, moment));
        ground.release(&format!("v{number}"), &files, "{}").await;
        moment.is_there(&ground).await;
        ground.shop.say("Abort").await;
        let status = ground.ends(Phase::RolledBack, "Aborted", "").await;
        let schema = status.database.as_ref().unwrap().schema;
        // Its outcome was waited for; the code before runs on the new schema.
        if moment.is_of_the_migration() {
            assert_eq!(schema, SchemaState::Changed, "{moment:?}");
            let now = files.iter().map(|(name, _)| name[..3].to_owned());
            applied = ["001".to_owned()].into_iter().chain(now).collect::<Vec<_>>().join(",");
        } else {
            assert_eq!(schema, SchemaState::Unchanged, "{moment:?}");
        }
        assert_eq!(ground.effects().await, applied, "{moment:?}");
        ground.load.answered_only_by("v1").await;
        ground.is_sound().await;
        // What was told of one moment is not taken for the next one.
        ground
            .shop
            .always("no candidate had traffic", |status| status.weights.unwrap_or_default().observed.candidate == 0);
    }
}

async fn edited_in_each_step(world: World) {
    let (ground, _volume) = start(&world).await;
    let mut files = Vec::new();
    let mut serves = "v1".to_owned();
    for (place, moment) in MOMENTS.into_iter().enumerate() {
        let number = 2 * place + 2;
        files.push(slow(number, moment));
        ground.release(&format!("v{number}"), &files, "{migration: {approval: Required}}").await;
        moment.is_there(&ground).await;
        ground.load.answered_only_by(&serves).await;
        files.push(slow(number + 1, Approval));
        serves = format!("v{}", number + 1);
        ground.release(&serves, &files, "{migration: {approval: Never}}").await;
        ground.healthy().await;
        let applied = files.iter().map(|(name, _)| name[..3].to_owned());
        let all = ["001".to_owned()].into_iter().chain(applied).collect::<Vec<_>>().join(",");
        assert_eq!(ground.effects().await, all, "{moment:?}");
        ground.load.answered_only_by(&serves).await;
        ground.is_sound().await;
    }
}

async fn deleted_in_mid_migration(world: World) {
    let (ground, _volume) = start(&world).await;
    ground.release("v2", &[slow(2, During(DatabaseTask::Migration))], "{}").await;
    During(DatabaseTask::Migration).is_there(&ground).await;
    ground.shop.delete(DeleteParams::background()).await;
    // The end of the object was that of the migration, or after it.
    assert_eq!(ground.effects().await, "001,002");
    nothing_is_left(&ground).await;

    // Made again, it finds the file applied.
    let mut spec = crate::harness::yaml(SPEC);
    crate::harness::merge(
        &mut spec,
        json!({ "database": { "urlFrom": { "secretKeyRef": { "name": "shop-db", "key": "DATABASE_URL" } },
        "migration": { "sql": { "configMap": "shop-migrations" }, "version": "v2", "approval": "Never",
            "previousRevisionCompatible": true } } }),
    );
    let shop = world.starting_shop(&spec.to_string()).await;
    let status = shop.reaches_within(LONG, "Healthy", |status| status.phase == Phase::Healthy).await;
    assert_eq!(status.database.unwrap().applied, [""; 0]);
    assert_eq!(ground.effects().await, "001,002");
}

/// After the end of an object.
async fn nothing_is_left(ground: &Ground) {
    ground.no_job_is_left().await;
    ground.server_is_quiet().await;
    ground.password_is_nowhere().await;
}

/// A migration that nobody can break off, and that the code which serves does not fit: its end is waited for, maintenance mode
/// stays on, and an Event says so. Made again with the code that fits, the release finds the migration applied.
async fn deleted_in_maintenance_while_an_image_migrates(world: World) {
    let behind = "{maintenance: {configMap: {name: shop-mode, key: MAINTENANCE_MODE, propagationDelay: 2s}},
        database: {onRollback: Halt, migration: {previousRevisionCompatible: false}}, strategy: {blueGreen: {}}}";
    let ground = behind_a_key(&world, behind).await;
    let sql = "CREATE TABLE made (id int); SELECT pg_sleep(8); INSERT INTO effects (version) VALUES ('by-image')";
    let change = script(sql, &json!({ "version": "v2", "previousRevisionCompatible": false }));
    ground.shop.release_with("v2", change).await;
    ground.work(DatabaseTask::Migration, WorkOutcome::Running).await;
    ground.postgres.runs("pg_sleep(8)").await;
    assert_eq!(ground.mode().await, "true");
    ground.load.assert_no_failed_requests().await;
    let spec = json!(ground.shop.get().await.spec);
    ground.shop.delete(DeleteParams::background()).await;
    assert_eq!(ground.effects().await, "001,by-image");
    nothing_is_left(&ground).await;
    assert_eq!(ground.mode().await, "true", "the code that served does not fit the schema");
    world.event("MaintenanceStaysOn", "key MAINTENANCE_MODE of ConfigMap shop-mode stays on").await;

    let release = json!({ "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
        "metadata": { "name": "shop" }, "spec": spec });
    world.apply_value(release).await;
    let shop = Shop::watch(&world, "shop").await;
    let is_over = |phase: Phase| matches!(phase, Phase::Healthy | Phase::RolledBack | Phase::Halted);
    let status = shop.reaches_within(LONG, "its end", |status| is_over(status.phase)).await;
    assert_eq!(status.phase, Phase::Healthy, "{} {}", status.reason, status.message);
    assert_eq!(ground.effects().await, "001,by-image");
    let rows = "SELECT state FROM servicerelease.servicerelease_ledger WHERE version LIKE 'migration/%'";
    assert_eq!(ground.postgres.sql(rows).await, "Applied");
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    nothing_is_left(&ground).await;
}

const BEHIND_A_KEY: &str = "{maintenance: {configMap: {name: shop-mode, key: MAINTENANCE_MODE, propagationDelay: 4s}},
    database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}, onRollback: Restore,
    migration: {previousRevisionCompatible: false}}, strategy: {blueGreen: {}}}";
/// Code serves by then, and nobody is there to approve it.
const SEEDED: &str = "{seed: {approval: Never, sql: {configMap: shop-seed, set: seed}}}";

async fn in_maintenance_in_a_seed_and_in_a_restore(world: World) {
    let _volume = Volume::claimed(&world, "shop-backups").await;
    let ground = behind_a_key(&world, BEHIND_A_KEY).await;
    let files = [file("002", "CREATE TABLE notes (id int)")];

    ground.release("v2", &files, "{}").await;
    is_closing(&ground).await;
    ground.shop.say("Abort").await;
    let status = ground.ends(Phase::RolledBack, "Aborted", "").await;
    assert_eq!(status.database.unwrap().schema, SchemaState::Unchanged);
    as_it_was(&ground).await;

    aborted_in_the_seed(&ground, "v3", &files).await;
    ground.approve("Restore").await;
    let status = ground.ends(Phase::RolledBack, "Aborted", "").await;
    let known = status.database.unwrap();
    assert_eq!((known.schema, known.seeded_at), (SchemaState::Undone, None), "the rows went with the schema");
    as_it_was(&ground).await;

    // Another version, while the backup takes the database's place: that comes to its end first.
    aborted_in_the_seed(&ground, "v4", &files).await;
    ground.approve("Restore").await;
    ground.work(DatabaseTask::Restore, WorkOutcome::Running).await;
    ground.release("v5", &files, SEEDED).await;
    is_seeded_again(&ground, "v5").await;
}

/// Version v1 with a key that is maintenance mode, and a seed that takes a while.
async fn behind_a_key(world: &World, spec: &str) -> Ground {
    let mode =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: shop-mode, labels: {servicerelease.io/release: shop}},
        data: {MAINTENANCE_MODE: 'false'}}";
    world.apply(mode).await;
    let rows = "INSERT INTO notes VALUES (1); SELECT pg_sleep(6)";
    config_map(world, "shop-seed", vec![("001_rows.sql".to_owned(), rows.to_owned())]).await;
    Ground::start(world, spec).await
}

async fn is_closing(ground: &Ground) {
    let closing =
        |status: &ServiceReleaseStatus| status.step.as_ref().is_some_and(|step| step.name == StepName::Maintenance);
    ground.shop.reaches_within(LONG, "Maintenance", closing).await;
}

const TAKEN_BACK_BY_FILES: &str =
    "{maintenance: {configMap: {name: shop-mode, key: MAINTENANCE_MODE, propagationDelay: 4s}},
    database: {onRollback: MigrateDown, migrationDown: {sql: {configMap: shop-migrations}, approval: Never},
    migration: {previousRevisionCompatible: false}}, strategy: {blueGreen: {}}}";

/// Another version at each of these moments: what is under way comes to its end, and nothing is applied twice.
async fn edited_in_maintenance_in_a_seed_and_in_a_down_migration(world: World) {
    let ground = behind_a_key(&world, TAKEN_BACK_BY_FILES).await;
    let back = "DROP TABLE notes;\nDELETE FROM effects WHERE version = '002';\nSELECT 'is taken back', pg_sleep(6);\n";
    let down = ("002_file.down.sql".to_owned(), back.to_owned());
    let files = [file("002", "CREATE TABLE notes (id int)"), down];

    // Nothing was changed yet.
    ground.release("v2", &files, "{}").await;
    is_closing(&ground).await;
    ground.release("v3", &files, SEEDED).await;

    // The seed comes to its end; then the migration is taken back, and it with it.
    ground.work(DatabaseTask::Seed, WorkOutcome::Running).await;
    ground.postgres.runs("pg_sleep(6)").await;
    ground.release("v4", &files, SEEDED).await;
    ground.work(DatabaseTask::MigrationDown, WorkOutcome::Running).await;
    ground.postgres.runs("is taken back").await;
    assert_eq!(ground.mode().await, "true");
    ground.release("v5", &files, SEEDED).await;
    is_seeded_again(&ground, "v5").await;
}

/// The seed comes to its end first; then the backup is the way back, which a person approves.
async fn aborted_in_the_seed(ground: &Ground, version: &str, files: &[(String, String)]) {
    ground.release(version, files, SEEDED).await;
    ground.work(DatabaseTask::Seed, WorkOutcome::Running).await;
    ground.postgres.runs("pg_sleep(6)").await;
    ground.shop.say("Abort").await;
    let waits = |status: &ServiceReleaseStatus| status.phase == Phase::AwaitingApproval;
    ground.shop.reaches_within(LONG, "a restore waits for approval", waits).await;
    assert_eq!(ground.postgres.sql("SELECT count(*) FROM notes").await, "1");
    assert_eq!(ground.mode().await, "true");
    ground.load.answered_only_by("v1").await;
}

/// The version that came in between goes through, and has the rows of its seed.
async fn is_seeded_again(ground: &Ground, version: &str) {
    let status = ground.healthy().await;
    assert!(status.database.unwrap().seeded_at.is_some(), "what was taken along is put in again");
    assert_eq!(ground.effects().await, "001,002");
    assert_eq!(ground.postgres.sql("SELECT count(*) FROM notes").await, "1");
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    ground.load.answered_only_by(version).await;
    ground.is_sound().await;
}

/// Nothing is left of a release that was aborted.
async fn as_it_was(ground: &Ground) {
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    assert_eq!(ground.effects().await, "001");
    assert_eq!(ground.postgres.sql("SELECT to_regclass('notes') IS NULL").await, "t");
    ground.load.answered_only_by("v1").await;
    ground.is_sound().await;
}
