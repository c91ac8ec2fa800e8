//! Backups and what is done with them: the example of the README, a disk that is full, a dump that was cut short or is empty
//! before it is proven or after, and a restore in the database's place.

use std::fs;

use serde_json::{Value, json};
use servicerelease::api::{
    ApprovalKind, DatabaseStatus, DatabaseTask, Phase, SchemaState, ServiceReleaseStatus, WorkOutcome,
};
use sha2::{Digest as _, Sha256};

use crate::{
    harness::{
        Scenario, World,
        database::{Ground, LONG, file},
        postgres::image,
        volume::Volume,
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    the_example_of_the_readme, Together, Embedded;
    a_disk_that_is_full, Together, Embedded;
    a_dump_that_is_bad_when_it_is_proven, Together, Embedded;
    a_dump_that_is_not_what_was_written, Together, Embedded;
};

async fn the_example_of_the_readme(world: World) {
    let text = include_str!("../../../deploy/examples/database.yaml");
    let (ground, volumes) = super::database_runbooks::apply(&world, text, |_| ()).await;
    ground
        .postgres
        .sql("INSERT INTO users (email) VALUES ('a'); INSERT INTO orders (user_id, total) VALUES (1, 7)")
        .await;

    // Contract: it loses data, and a person has to know.
    let drop = json!({ "data": { "004_no_note.sql": "ALTER TABLE orders DROP COLUMN note;" } });
    ground.patch_config_map("shop-migrations", drop).await;
    let change = "{migration: {version: '4'}, verify: {columns: [{table: orders, name: total}]}}";
    let change = json!({ "spec": { "database": crate::harness::yaml(change) } });
    ground.shop.release_with("v2", change).await;
    let waits = |phase: Phase| phase == Phase::AwaitingApproval;
    let status = ground.shop.reaches_within(LONG, "AwaitingApproval", |status| waits(status.phase)).await;
    let known = status.database.clone().unwrap();
    assert!(known.loses_data && known.risks.iter().any(|risk| risk.contains("004_no_note.sql")), "{known:?}");
    assert!(
        known.rehearsal.as_ref().is_some_and(|it| it.locks.iter().any(|lock| lock.contains("orders"))),
        "{known:?}"
    );
    assert!(status.next_action.contains(&known.plan_hash), "{}", status.next_action);
    assert!(known.backup.is_some_and(|backup| backup.proven_at.is_some() && backup.rows == 2 + 3));

    // An approval of another plan is none.
    let other = json!({ "approval": { "kind": "Migration", "planHash": "0123456789abcdef" } });
    ground.shop.refused("Approve", &other.to_string()).await;
    is_planned(&world).await;
    world.srel(&format!("approve shop --migration {}", known.plan_hash)).await.expect_success();
    let status = ground.healthy().await;
    let known = status.database.unwrap();
    assert_eq!(known.approvals.first().map(|approval| approval.kind), Some(ApprovalKind::Migration));
    assert_eq!(volumes[0].files(".dump").len(), 2);
    ground.load.answered_only_by("v2").await;
    ground.is_quiet().await;
    is_reported(&world, &known).await;
}

/// What a person reads before the approval: the steps, what becomes of it if they fail, and what the files lose.
async fn is_planned(world: &World) {
    let plan = world.srel("plan shop").await.expect_success();
    let rows: Vec<String> = plan.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in [
        "1 database preflight rolled back; nothing was changed",
        "2 backup rolled back; nothing was changed",
        "3 rehearsal rolled back; nothing was changed",
        "4 approval of the migration waits for a person; nothing is changed",
        "5 migration nothing applied: rolled back; a part applied: the schema stays; unknown: halted",
        "6 verification rolled back; the schema stays",
        "8 setWeight 50 rolled back; the schema stays",
        "10 promote rolled back; the schema stays",
        "003_orders_by_user.sql -",
        "004_no_note.sql line 1: drops a column with its values",
    ] {
        assert!(rows.iter().any(|it| it == row), "no row {row:?} in\n{plan}");
    }
}

/// What is read of it afterwards: who approved what, the evidence, and when it was.
async fn is_reported(world: &World, known: &DatabaseStatus) {
    let report = world.srel("report shop").await.expect_success();
    let backup = known.backup.as_ref().unwrap();
    let approval = &known.approvals[0];
    let migration = known.last(DatabaseTask::Migration).unwrap();
    assert_eq!(approval.by, world.who().await);
    for told in [
        "| Phase | Healthy |".to_owned(),
        "- nothing: the spec is what serves".to_owned(),
        format!("- backup {}: {} bytes, ", backup.name, backup.bytes),
        format!("restored and counted at {}", backup.proven_at.unwrap()),
        "- rehearsal: restored in ".to_owned(),
        "- risk: 004_no_note.sql, line 1: drops a column with its values".to_owned(),
        "- applied: 004_no_note.sql".to_owned(),
        format!("- Migration of plan {} approved by {} at {}", known.plan_hash, approval.by, approval.at),
        format!("- migration Done ({}, ", migration.started_at),
        "Approve Rejected: ".to_owned(),
        "Approve Applied: ".to_owned(),
        " Promoted: ".to_owned(),
    ] {
        assert!(report.contains(&told), "no {told:?} in\n{report}");
    }
}

const BACKED_UP: &str = "{database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}}}";

async fn a_disk_that_is_full(world: World) {
    let mut volume = Volume::claimed(&world, "shop-backups").await;
    let ground = Ground::start(&world, BACKED_UP).await;
    let before = volume.files("");
    // More than there is room for, and nothing that can be compressed.
    let rows = "CREATE TABLE large AS SELECT i, sha512(i::text::bytea) AS noise FROM generate_series(1, 5000) i";
    ground.postgres.sql(rows).await;
    volume.shrink(64);
    ground.release("v2", &[file("002", "CREATE TABLE notes (id int)")], "{}").await;
    ground.taken_back("BackupFailed", "No space left on device", SchemaState::Unchanged).await;
    assert_eq!(volume.files(""), [""; 0], "nothing is left of it");
    assert_eq!(ground.effects().await, "001");
    ground.load.answered_only_by("v1").await;

    volume.grow();
    assert_eq!(volume.files(""), before, "earlier backups are as they were");
    ground.release("v3", &[file("002", "CREATE TABLE notes (id int)")], "{}").await;
    ground.healthy().await;
    assert_eq!(volume.files(".dump").len(), 2);
    ground.is_sound().await;
}

/// A dump as a pg_dump leaves it that was broken off and says nothing: its record, with its checksum, is of what is there. Only
/// who restores it finds out, and that is before anything is migrated.
async fn a_dump_that_is_bad_when_it_is_proven(world: World) {
    let volume = Volume::claimed(&world, "shop-backups").await;
    let ground = Ground::start(&world, BACKED_UP).await;
    ground.postgres.sql("CREATE TABLE large AS SELECT i, md5(i::text) AS text FROM generate_series(1, 20000) i").await;
    let whole = ground.postgres.dump().await;
    let more = [file("002", "CREATE TABLE notes (id int)")];
    let refused = async |version: &str, reason: &str, told: &str| {
        let status = ground.taken_back(reason, told, SchemaState::Unchanged).await;
        let known = status.database.unwrap();
        assert_eq!(known.last(DatabaseTask::Migration), None, "{version}");
        assert!(known.backup.is_none_or(|backup| backup.proven_at.is_none()), "{version}");
        assert_eq!(ground.effects().await, "001");
        ground.load.answered_only_by("v1").await;
    };
    // Where it is proven as soon as it is made: what is there under its name is the backup. It is put there while preflight
    // waits for a Secret.
    for (version, left) in [("truncated", whole.len() / 2), ("empty", 0)] {
        let scratch = json!({ "secretKeyRef": { "name": version, "key": "URL" } });
        let backup = json!({ "backup": { "scratchUrlFrom": scratch } });
        ground.release(version, &more, &backup.to_string()).await;
        let waits = |status: &ServiceReleaseStatus| status.reason == "SecretMissing";
        let status = ground.shop.reaches_within(LONG, "preflight waits for a Secret", waits).await;
        written_badly(&volume, &name_of_backup(&world, &status), &whole[..left]);
        let url = "postgres://shop:s3cret%2Fword@postgres:5432/shop?sslmode=disable";
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": version },
            "stringData": { "URL": url } });
        world.apply_value(secret).await;
        refused(version, "BackupFailed", "is no backup: pg_restore: ").await;
    }

    // Where the rehearsal is the proof: a Job of the manifest's is at the volume in between.
    let volumes = json!([{ "name": "backups", "persistentVolumeClaim": { "claimName": "shop-backups" } }]);
    let check = json!([{ "name": "second-writer", "when": ["AfterBackup"], "job": { "template": { "spec": {
        "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "waits", "image": image("POSTGRES_IMAGE"), "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-ec", "while ! [ -e /backups/go ]; do sleep 1; done"],
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            "volumeMounts": [{ "name": "backups", "mountPath": "/backups" }],
        }],
        "volumes": volumes,
    } } } }]);
    ground.shop.patch(&json!({ "spec": { "checks": check } }).to_string()).await;
    ground.release("cut", &more, "{rehearsal: {}, backup: {proof: Skip}}").await;
    let status = ground.work(DatabaseTask::Backup, WorkOutcome::Done).await;
    written_badly(&volume, &name_of_backup(&world, &status), &whole[..whole.len() / 2]);
    fs::write(volume.file("go"), "").unwrap();
    refused("cut", "RehearsalFailed", "cannot be rehearsed on: pg_restore: ").await;

    // Left alone it is a backup.
    ground.release("well", &more, "{}").await;
    let status = ground.healthy().await;
    assert!(status.database.unwrap().backup.unwrap().proven_at.is_some());
    assert_eq!(ground.effects().await, "001,002");
    ground.load.answered_only_by("well").await;
    ground.is_sound().await;
}

/// What the backup of the release under way is called.
fn name_of_backup(world: &World, status: &ServiceReleaseStatus) -> String {
    let release = status.release.as_ref().expect("a release");
    let began = release.started_at.to_string();
    let began: String = began.chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    format!("{}.shop-{}-{began}", world.namespace, release.number)
}

/// Puts this in the place of a backup, with a record that is right about it.
fn written_badly(volume: &Volume, name: &str, part: &[u8]) {
    let first = volume.files(".json").into_iter().find(|file| file.contains(".shop-1-")).expect("that of v1");
    let mut record: Value = serde_json::from_slice(&fs::read(volume.file(&first)).unwrap()).unwrap();
    let hash: String = Sha256::digest(part).iter().map(|byte| format!("{byte:02x}")).collect();
    let fields = record.as_object_mut().expect("an object");
    fields.remove("provenAt");
    fields.extend([
        ("file".to_owned(), json!(format!("{name}.dump"))),
        ("bytes".to_owned(), json!(part.len())),
        ("sha256".to_owned(), json!(hash)),
        ("rows".to_owned(), json!({ "public.effects": 1, "public.large": 20_000 })),
    ]);
    // The one that is there, too, is somebody else's.
    for (file, contents) in [("dump", part), ("json", record.to_string().as_bytes())] {
        let _ = fs::remove_file(volume.file(&format!("{name}.{file}")));
        fs::write(volume.file(&format!("{name}.{file}")), contents).unwrap();
    }
}

async fn a_dump_that_is_not_what_was_written(world: World) {
    let volume = Volume::claimed(&world, "shop-backups").await;
    world
        .apply(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: shop-mode, labels: {servicerelease.io/release: shop}},
        data: {MAINTENANCE_MODE: 'false'}}",
        )
        .await;
    let spec = "{maintenance: {configMap: {name: shop-mode, key: MAINTENANCE_MODE, propagationDelay: 2s}},
        database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}, onRollback: Restore,
        migration: {previousRevisionCompatible: false}}, strategy: {blueGreen: {}}}";
    let ground = Ground::start(&world, spec).await;
    // Each is applied, then taken back because of the new code; what is in the backup's place meanwhile is no backup.
    for (version, damage) in [("truncated", 0.5), ("empty", 0.0)] {
        let shop = &ground.shop;
        let lost = format!("CREATE TABLE notes_{version} (id int)");
        let wrong = json!({ "spec": {
            "checks": [{ "name": "never", "http": { "path": "/health", "expect": { "status": 204 } } }],
            "database": { "migration": { "version": version } },
        } });
        let number = if version == "empty" { "003" } else { "002" };
        crate::harness::database::files(&world, &[file(number, &lost)]).await;
        shop.release_with(version, wrong).await;
        let asks = |phase: Phase| phase == Phase::AwaitingApproval;
        let status = shop.reaches_within(LONG, "a restore waits for approval", |status| asks(status.phase)).await;
        let name = status.database.unwrap().backup.unwrap().name;
        let dump = volume
            .file(volume.files(".dump").iter().find(|file| file.starts_with(name.trim_end_matches(".dump"))).unwrap());
        let whole = fs::read(&dump).unwrap();
        fs::write(&dump, &whole[..(whole.len() as f64 * damage) as usize]).unwrap();
        ground.approve("Restore").await;
        let status = ground.ends(Phase::Halted, "RestoreFailed", "checksum").await;
        assert_eq!(status.database.unwrap().last(DatabaseTask::Restore).unwrap().outcome, WorkOutcome::NotBegun);
        let there = format!("SELECT to_regclass('notes_{version}') IS NOT NULL");
        assert_eq!(ground.postgres.sql(&there).await, "t", "the database is as it was");
        assert_eq!(ground.mode().await, "true");

        // The person brings the backup back from where it was copied to.
        fs::write(&dump, &whole).unwrap();
        ground.shop.say("Retry").await;
        let back = |phase: Phase| phase == Phase::RolledBack;
        let status = shop.reaches_within(LONG, "RolledBack", |status| back(status.phase)).await;
        assert_eq!(status.database.unwrap().schema, SchemaState::Undone);
        assert_eq!(ground.postgres.sql(&there).await, "f", "the backup was restored");
        ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
        ground.load.answered_only_by("v1").await;
        ground.is_sound().await;
    }
}
