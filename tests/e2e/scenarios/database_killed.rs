//! The operator is killed (-9) before every write of a release with a database, after every write, or hears of none of
//! them: the files are applied once and the seed, too, one backup is made for each release, what is taken back is taken
//! back once, by down files and by a restore, each after a backup of what is there, and one approval is enough. The same of
//! a migration that a pod of the user's makes.

use serde_json::{Value, json};
use servicerelease::api::{DatabaseStatus, DatabaseTask, Phase, SchemaState, WorkOutcome};

use crate::{
    harness::{
        Scenario, World,
        database::{Ground, config_map, file, files},
        merge, note,
        own::OwnOperator,
        proxy::Harm,
        volume::Volume,
    },
    scenarios,
};

use super::database_tools::script;

pub const ALL: &[Scenario] = scenarios! {
    database_killed_before_every_write, OwnOperator, Embedded;
    database_killed_after_every_write, OwnOperator, Embedded;
    database_answer_to_every_write_lost, OwnOperator, Embedded;
    image_killed_before_every_write, OwnOperator, Embedded;
    image_killed_after_every_write, OwnOperator, Embedded;
};

async fn database_killed_before_every_write(world: World) {
    migrated_in_spite_of(world, Harm::KillBefore).await;
}

async fn database_killed_after_every_write(world: World) {
    migrated_in_spite_of(world, Harm::KillAfter).await;
}

async fn database_answer_to_every_write_lost(world: World) {
    migrated_in_spite_of(world, Harm::LoseAnswer).await;
}

async fn image_killed_before_every_write(world: World) {
    migrated_by_an_image_in_spite_of(world, Harm::KillBefore).await;
}

async fn image_killed_after_every_write(world: World) {
    migrated_by_an_image_in_spite_of(world, Harm::KillAfter).await;
}

const SPEC: &str = "{maintenance: {configMap: {name: shop-mode, key: MAINTENANCE_MODE, propagationDelay: 2s}}, strategy: {blueGreen: {}},
    flags: {configMap: shop-flags, values: {beta: 'on'}},
    database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}, rehearsal: {},
    seed: {sql: {configMap: shop-seed, set: seed}}, verify: {tables: [effects]},
    migration: {previousRevisionCompatible: false}, onRollback: MigrateDown,
    migrationDown: {sql: {configMap: shop-migrations}, approval: WhenDataLoss, verify: {tables: [effects]}}}}";

/// What a release does to the database on its way forward.
const FORWARD: [DatabaseTask; 5] = [
    DatabaseTask::Preflight,
    DatabaseTask::Backup,
    DatabaseTask::Rehearsal,
    DatabaseTask::Migration,
    DatabaseTask::Verification,
];

async fn migrated_in_spite_of(world: World, harm: Harm) {
    let operator = OwnOperator::start(&world, harm).await;
    let volume = Volume::claimed(&world, "shop-backups").await;
    for (name, key, value) in [("shop-mode", "MAINTENANCE_MODE", "false"), ("shop-flags", "beta", "off")] {
        let labels = json!({ "servicerelease.io/release": "shop" });
        let metadata = json!({ "name": name, "labels": labels });
        world
            .create(
                &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { key: value } })
                    .to_string(),
            )
            .await;
    }
    let (_, seed) = file("seed", "SELECT 1");
    config_map(&world, "shop-seed", vec![("001_seed.sql".to_owned(), seed)]).await;
    let ground = Ground::start(&world, SPEC).await;
    assert_eq!(ground.effects().await, "001,seed");
    ground.release("v2", &[file("002", "CREATE TABLE notes (id int)")], "{}").await;
    let status = ground.healthy().await;
    let known = status.database.unwrap();
    are_done_once(&known, &FORWARD);
    assert_eq!(ground.effects().await, "001,002,seed");
    assert_eq!(volume.files(".dump").len(), 2, "one of each release");
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    ground.key_becomes("shop-flags", "beta", "on").await;
    ground.is_sound().await;

    taken_back_by_files(&ground).await;
    restored(&ground).await;
    was_harmed(&operator).await;
}

async fn was_harmed(operator: &OwnOperator) {
    operator.assert_running().await;
    let harmed = operator.proxy.harmed();
    assert!(harmed > 30, "only {harmed} writes were harmed");
    note(format!("{harmed} times harmed"));
}

/// A check that fails, whatever the new code is like.
fn never() -> Value {
    json!([{ "name": "never", "http": { "path": "/health", "expect": { "status": 204 } } }])
}

/// Because of the new code: with the schema, once.
async fn taken_back_by_files(ground: &Ground) {
    let third = file("003", "CREATE TABLE tags (id int)");
    let down =
        "DROP TABLE tags;\nDELETE FROM effects WHERE version = '003';\nINSERT INTO effects VALUES ('003-down');\n";
    let down = ("003_file.down.sql".to_owned(), down.to_owned());
    files(&ground.world, &[file("002", "CREATE TABLE notes (id int)"), third, down]).await;
    let change = json!({ "spec": { "checks": never(), "database": { "migration": { "version": "v3" } } } });
    ground.shop.release_with("v3", change).await;
    ground.approves("MigrateDown").await;
    let status = ground.ends(Phase::RolledBack, "CheckFailed", "check never failed").await;
    let known = status.database.unwrap();
    assert_eq!(known.schema, SchemaState::Undone);
    let found = known.migration_down.as_ref().expect("what was run");
    assert!(found.loses_data && found.files == ["003_file.down.sql"], "{found:?}");
    assert!(known.set_aside.as_ref().is_some_and(|backup| backup.proven_at.is_some()), "{:?}", known.set_aside);
    are_done_once(&known, &[DatabaseTask::BackupBeforeDown, DatabaseTask::MigrationDown]);
    is_as_v2_left_it(ground).await;
}

fn are_done_once(known: &DatabaseStatus, tasks: &[DatabaseTask]) {
    for task in tasks {
        let work = known.last(*task).unwrap_or_else(|| panic!("{task:?}"));
        assert_eq!((work.outcome, work.attempt), (WorkOutcome::Done, 1), "{work:?}");
    }
}

/// The same by the backup that the release made, approved by a person, as the migration was.
async fn restored(ground: &Ground) {
    files(&ground.world, &[file("002", "CREATE TABLE notes (id int)"), file("004", "CREATE TABLE tags (id int)")])
        .await;
    let database = json!({ "onRollback": "Restore", "migrationDown": null, "migration": {
        "version": "v4", "approval": "Required",
    } });
    ground.shop.release_with("v4", json!({ "spec": { "checks": never(), "database": database } })).await;
    for kind in ["Migration", "Restore"] {
        ground.approves(kind).await;
    }
    let status = ground.ends(Phase::RolledBack, "CheckFailed", "check never failed").await;
    let known = status.database.unwrap();
    assert_eq!(known.schema, SchemaState::Undone);
    are_done_once(&known, &[DatabaseTask::Migration, DatabaseTask::Restore]);
    let beside = "SELECT count(*) FROM pg_database WHERE datname LIKE 'shop_before_%'";
    assert_eq!(ground.postgres.sql(beside).await, "1", "what was there stays beside, once");
    is_as_v2_left_it(ground).await;
}

async fn is_as_v2_left_it(ground: &Ground) {
    assert_eq!(ground.effects().await, "001,002,003-down,seed");
    assert_eq!(ground.postgres.sql("SELECT to_regclass('tags') IS NULL").await, "t");
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    ground.key_becomes("shop-flags", "beta", "on").await;
    ground.load.answered_only_by("v2").await;
    ground.is_sound().await;
}

const BY_AN_IMAGE: &str = "{database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}, rehearsal: {}}}";

/// The migration is a pod of the user's, under the entry point that is put into it: it is begun once, and so is the pod that
/// takes one back.
async fn migrated_by_an_image_in_spite_of(world: World, harm: Harm) {
    let operator = OwnOperator::start(&world, harm).await;
    let volume = Volume::claimed(&world, "shop-backups").await;
    let ground = Ground::start(&world, BY_AN_IMAGE).await;
    ground.shop.release_with("v2", by_an_image("002", &json!({}))).await;
    let status = ground.healthy().await;
    are_done_once(&status.database.unwrap(), &FORWARD);
    assert_eq!(ground.effects().await, "001,002");
    assert_eq!(volume.files(".dump").len(), 2, "one of each release");
    ground.is_sound().await;

    let down =
        "DROP TABLE made_003; DELETE FROM effects WHERE version = '003'; INSERT INTO effects VALUES ('003-down')";
    let template = script(down, &json!({}))["spec"]["database"]["migration"]["template"].take();
    let mut sick =
        by_an_image("003", &json!({ "onRollback": "MigrateDown", "migrationDown": { "template": template } }));
    sick["spec"]["checks"] = never();
    ground.shop.release_with("v3", sick).await;
    // What a pod loses nobody can read.
    ground.approves("MigrateDown").await;
    let status = ground.ends(Phase::RolledBack, "CheckFailed", "check never failed").await;
    let known = status.database.unwrap();
    assert_eq!(known.schema, SchemaState::Undone);
    are_done_once(&known, &FORWARD);
    are_done_once(&known, &[DatabaseTask::BackupBeforeDown, DatabaseTask::MigrationDown]);
    assert_eq!(ground.effects().await, "001,002,003-down");
    ground.load.answered_only_by("v2").await;
    ground.is_sound().await;
    was_harmed(&operator).await;
}

/// A migration by psql that notes that it was run, with the rest of the database's part as it is but for these changes.
fn by_an_image(version: &str, more: &Value) -> Value {
    let sql = format!("CREATE TABLE made_{version} (id int); INSERT INTO effects (version) VALUES ('{version}')");
    let mut change = script(&sql, &json!({ "version": version }));
    let database = change["spec"]["database"].as_object_mut().expect("an object");
    for kept in ["backup", "rehearsal"] {
        database.remove(kept);
    }
    database.insert("verify".into(), json!({ "tables": [format!("made_{version}")] }));
    merge(&mut change, json!({ "spec": { "database": more } }));
    change
}
