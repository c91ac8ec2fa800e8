//! A backup by a Job of the user's, as the example has it: what it says of the backup stands in the status, and without a
//! backup nothing is migrated.

use std::fs;

use serde_json::{Value, json};
use servicerelease::api::{DatabaseTask, Phase, SchemaState};
use sha2::{Digest as _, Sha256};

use crate::{
    harness::{Scenario, World},
    scenarios,
};

use super::database_runbooks::{apply, example};

pub const ALL: &[Scenario] = scenarios! {
    the_example_of_a_backup_of_ones_own, Together, Embedded;
};

const EXAMPLE: &str = include_str!("../../../deploy/examples/database-own-backup.yaml");

/// The database's part of an example, with another version of its migration.
fn database(text: &str, version: &str) -> Value {
    let release = example(text).into_iter().find(|object| object["kind"] == "ServiceRelease").expect("a release");
    let mut database = release["spec"]["database"].clone();
    database["migration"]["version"] = json!(version);
    json!({ "spec": { "database": database } })
}

async fn the_example_of_a_backup_of_ones_own(world: World) {
    let (ground, volumes) = apply(&world, EXAMPLE, |_| ()).await;
    assert_eq!(volumes[0].files(".dump").len(), 1);
    ground.postgres.sql("INSERT INTO orders (total) VALUES (77.25)").await;

    let note = json!({ "data": { "002_note.sql": "ALTER TABLE orders ADD COLUMN note text;" } });
    ground.patch_config_map("shop-migrations", note).await;
    ground.shop.release_with("v2", database(EXAMPLE, "2")).await;
    let status = ground.healthy().await;
    let known = status.database.unwrap();
    let backup = known.backup.unwrap();
    assert!(!backup.server_version.is_empty() && backup.server_version == known.server_version, "{backup:?}");
    assert!(
        backup.proven_at.is_none() && backup.not_proven.contains("what the Job of the manifest says"),
        "{backup:?}"
    );
    let dump = volumes[0].file(&backup.name);
    let bytes = fs::read(&dump).unwrap_or_else(|error| panic!("{error}: {backup:?}"));
    assert_eq!(backup.bytes, i64::try_from(bytes.len()).unwrap());
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(backup.sha256, hash);
    let held = ground.postgres.dumped(&dump).await;
    assert!(held.contains("77.25") && !held.contains("note text"), "it was made before the migration: {held}");
    ground.load.answered_only_by("v2").await;

    // Where it cannot write there is no backup, and nothing is migrated without.
    let never = json!({ "data": { "003_never.sql": "CREATE TABLE never (id int);" } });
    ground.patch_config_map("shop-migrations", never).await;
    let broken = EXAMPLE.replace("file=/backups/", "file=/nowhere/");
    ground.shop.release_with("v3", database(&broken, "3")).await;
    let status = ground.ends(Phase::RolledBack, "BackupFailed", "/nowhere/").await;
    let known = status.database.unwrap();
    assert_eq!((known.schema, known.last(DatabaseTask::Migration)), (SchemaState::Unchanged, None));
    assert_eq!(ground.postgres.sql("SELECT to_regclass('never') IS NULL").await, "t");
    assert_eq!(volumes[0].files("").len(), 2, "nothing is left of it");
    ground.load.answered_only_by("v2").await;
    ground.is_quiet().await;

    ground.shop.release_with("v4", database(EXAMPLE, "4")).await;
    ground.healthy().await;
    assert_eq!(ground.postgres.sql("SELECT to_regclass('never') IS NULL").await, "f");
    assert_eq!(volumes[0].files(".dump").len(), 3);
    ground.load.answered_only_by("v4").await;
    ground.is_quiet().await;
}
