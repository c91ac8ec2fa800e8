//! Migrations by the operator's own runner, and what may come in between: each file is applied once or not at all, the
//! revision that serves goes on serving, the status is true, nothing is left over, and the next release goes through.

use futures::future::BoxFuture;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, Secret},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, EvictParams},
};
use serde_json::json;
use servicerelease::api::{DatabaseTask, Phase, SchemaState, WorkOutcome};

use crate::{
    harness::{
        Scenario, Shop, World,
        database::{Ground, LONG, file, files},
        processes,
        volume::Volume,
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_file_that_fails_half_way, Together, Embedded;
    broken_off_in_mid_sql, Together, Embedded;
    a_lock_that_is_not_to_be_had, Together, Embedded;
    what_verification_finds, Together, Embedded;
    two_namespaces_and_one_database, Together, Embedded;
    passwords_wrong_and_rotated, Together, Embedded;
    a_migration_and_no_new_code, Together, Embedded;
};

/// SQL that takes so many seconds.
fn slow(version: &str, seconds: u32) -> (String, String) {
    file(version, &format!("CREATE TABLE slow_{version} (id int);\nSELECT pg_sleep({seconds})"))
}

async fn a_file_that_fails_half_way(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let wrong = file("003", "CREATE TABLE half (id int);\nALTER TABLE nothing ADD COLUMN id int");
    let (second, last) = (file("002", "CREATE TABLE notes (id int)"), file("004", "CREATE TABLE tags (id int)"));
    ground.release("v2", &[second.clone(), wrong, last.clone()], "{}").await;
    ground.taken_back("MigrationFailed", "relation \"nothing\" does not exist", SchemaState::Partial).await;
    assert_eq!(ground.effects().await, "001,002", "what was applied stays, what failed left nothing");
    assert_eq!(ground.postgres.sql("SELECT to_regclass('half') IS NULL").await, "t");
    ground.load.answered_only_by("v1").await;

    let right = file("003", "CREATE TABLE half (id int)");
    ground.release("v3", &[second, right, last], "{}").await;
    ground.healthy().await;
    assert_eq!(ground.effects().await, "001,002,003,004");
    let applied = ground.shop.status().await.database.unwrap().applied;
    assert_eq!(applied, ["003_file.sql", "004_file.sql"]);
    ground.load.answered_only_by("v3").await;
    ground.is_sound().await;
}

/// What happens to a migration in the middle of its SQL.
struct Disturbance {
    version: &'static str,
    file: &'static str,
    by: for<'a> fn(&'a Ground, Pod) -> BoxFuture<'a, ()>,
}

const DISTURBANCES: [Disturbance; 4] = [
    Disturbance { version: "killed", file: "002", by: |_, pod| Box::pin(killed(pod)) },
    Disturbance { version: "job-deleted", file: "003", by: |ground, pod| Box::pin(job_deleted(ground, pod)) },
    Disturbance { version: "evicted", file: "004", by: |ground, pod| Box::pin(evicted(ground, pod)) },
    Disturbance { version: "server-killed", file: "005", by: |ground, _| Box::pin(ground.postgres.kill()) },
];

async fn killed(pod: Pod) {
    processes::first(&pod).expect("its process").kill().await;
}

async fn job_deleted(ground: &Ground, pod: Pod) {
    let job = pod.labels().get("job-name").expect("a Job").clone();
    let gone = ground.world.api::<Job>().delete(&job, &DeleteParams::background()).await;
    gone.expect("a deletion");
}

async fn evicted(ground: &Ground, pod: Pod) {
    let gone = ground.world.api::<Pod>().evict(&pod.name_any(), &EvictParams::default()).await;
    gone.expect("an eviction");
}

async fn broken_off_in_mid_sql(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let mut all = Vec::new();
    for Disturbance { version, file, by } in DISTURBANCES {
        all.push(slow(file, 5));
        ground.release(version, &all, "{}").await;
        let pod = ground.pod(DatabaseTask::Migration).await;
        ground.postgres.runs("pg_sleep(5)").await;
        by(&ground, pod).await;
        let status = ground.healthy().await;
        let work = status.database.as_ref().unwrap().last(DatabaseTask::Migration).unwrap().clone();
        assert_eq!(work.outcome, WorkOutcome::Done, "{version}: {}", work.message);
        crate::harness::note(format!("{version}: {} Jobs", work.attempt));
        ground.load.answered_only_by(version).await;
        ground.is_sound().await;
    }
    assert_eq!(ground.effects().await, "001,002,003,004,005");
}

async fn a_lock_that_is_not_to_be_had(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let holder = ground.postgres.hold("LOCK TABLE effects IN ACCESS SHARE MODE").await;
    let wants = file("002", "ALTER TABLE effects ADD COLUMN note text");
    ground.release("v2", std::slice::from_ref(&wants), "{migration: {timeout: 8s, lockTimeout: 500ms}}").await;
    ground.work(DatabaseTask::Migration, WorkOutcome::Running).await;
    // Whoever else wants the table is not kept waiting behind it for longer than that.
    assert_eq!(ground.postgres.sql("SELECT count(*) FROM effects").await, "1");
    // The last try may have less than that left of the migration's time.
    ground.taken_back("MigrationFailed", "line 1: canceling statement due to ", SchemaState::Unchanged).await;
    ground.load.answered_only_by("v1").await;

    ground.release("v3", std::slice::from_ref(&wants), "{migration: {timeout: 60s, lockTimeout: 500ms}}").await;
    ground.work(DatabaseTask::Migration, WorkOutcome::Running).await;
    ground.postgres.runs("ADD COLUMN note").await;
    holder.release().await;
    ground.healthy().await;
    ground.load.answered_only_by("v3").await;
    ground.is_sound().await;
}

async fn what_verification_finds(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let orders = "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2), code varchar(20))";
    ground.postgres.sql(&format!("{orders}; INSERT INTO orders VALUES (1, 1, 'a'), (2, 2, 'a')")).await;
    // What is left of it is an index that is there and not used.
    ground.postgres.fails("CREATE UNIQUE INDEX CONCURRENTLY orders_code ON orders (code)").await;
    let cases = [
        ("{indexes: [orders_total]}", "index orders_total"),
        ("{indexes: [orders_code]}", "index orders_code"),
        ("{columns: [{table: orders, name: total, type: bigint}]}", "orders.total"),
        ("{columns: [{table: orders, name: note}]}", "orders.note"),
        ("{constraints: [{table: orders, name: orders_user_fkey}]}", "orders_user_fkey"),
        ("{tables: [users]}", "users"),
        ("{queries: [{name: none, query: SELECT id FROM orders}]}", "none"),
    ];
    for (place, (verify, told)) in cases.into_iter().enumerate() {
        ground
            .release(&format!("v{}", place + 2), &[], &format!("{{migration: {{version: v1}}, verify: {verify}}}"))
            .await;
        ground.taken_back("VerificationFailed", told, SchemaState::Unchanged).await;
        ground.load.answered_only_by("v1").await;
        assert_eq!(ground.effects().await, "001");
        ground.shop.patch("{spec: {database: {verify: null}}}").await;
    }
    // After a migration that the old code runs on, the schema stays; it is not this release's to take back.
    let total = file("002", "ALTER TABLE orders ALTER COLUMN total TYPE numeric(12,2)");
    let verify = "{columns: [{table: orders, name: total, type: 'numeric(10,2)'}]}";
    ground.release("w2", std::slice::from_ref(&total), &format!("{{verify: {verify}}}")).await;
    ground.taken_back("VerificationFailed", "orders.total", SchemaState::Changed).await;
    ground.load.answered_only_by("v1").await;
    let verify = "{columns: [{table: orders, name: total, type: 'numeric(12,2)'}], indexes: [orders_pkey]}";
    ground.release("w3", &[total], &format!("{{verify: {verify}}}")).await;
    ground.healthy().await;
    assert_eq!(ground.effects().await, "001,002");
    ground.load.answered_only_by("w3").await;
    ground.is_sound().await;
}

/// A release of one pod in a namespace of its own, with the database of these releases under another host name.
pub(super) async fn neighbour(ground: &Ground) -> (World, Shop) {
    let (world, other) = (&ground.world, World::new(&ground.world.cluster, "other-namespace").await);
    let url = format!("postgres://shop:s3cret%2Fword@postgres.{}.svc:5432/shop?sslmode=disable", world.namespace);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-db"},
        "stringData": {"DATABASE_URL": url}});
    other.apply_value(secret).await;
    files(&other, &[]).await;
    let spec = "{replicas: 1, database: {urlFrom: {secretKeyRef: {name: shop-db, key: DATABASE_URL}},
        migration: {sql: {configMap: shop-migrations}, version: v1, previousRevisionCompatible: true, approval: Never}}}";
    let shop = other.shop(spec).await;
    (other, shop)
}

async fn two_namespaces_and_one_database(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let (other, second) = neighbour(&ground).await;
    let both = [slow("002", 4), slow("003", 1)];
    files(&other, &both).await;
    ground.release("v2", &both, "{}").await;
    second.release_with("v2", json!({"spec": {"database": {"migration": {"version": "v2"}}}})).await;
    ground.healthy().await;
    second.reaches_within(LONG, "Healthy in the other namespace", |status| status.phase == Phase::Healthy).await;
    assert_eq!(ground.effects().await, "001,002,003");
    let by = "SELECT count(DISTINCT release) FROM servicerelease_ledger WHERE version IN ('002', '003', '2', '3')";
    crate::harness::note(format!("applied by {} of two releases", ground.postgres.sql(by).await));
    ground.load.answered_only_by("v2").await;
    ground.is_sound().await;
    other.remove().await;
}

async fn passwords_wrong_and_rotated(world: World) {
    let volume = Volume::claimed(&world, "shop-backups").await;
    let ground =
        Ground::start(&world, "{database: {backup: {persistentVolumeClaim: {claimName: shop-backups}}}}").await;
    let url = |password: &str| format!("postgres://shop:{password}@postgres:5432/shop?sslmode=disable");
    let secret = async |password: &str| {
        let change = json!({ "stringData": { "DATABASE_URL": url(password) } });
        let patch = kube::api::Patch::Merge(change);
        ground.world.api::<Secret>().patch("shop-db", &Default::default(), &patch).await.expect("the Secret");
    };
    secret("s3cret-and-wrong").await;
    let more = [file("002", "CREATE TABLE notes (id int)")];
    ground.release("v2", &more, "{}").await;
    let told = "password authentication failed";
    ground.taken_back("DatabasePreflightFailed", told, SchemaState::Unchanged).await;
    ground.load.answered_only_by("v1").await;

    secret("s3cret%2Fword").await;
    ground.release("v3", &more, "{migration: {approval: Required}}").await;
    let waits = |status: &servicerelease::api::ServiceReleaseStatus| status.phase == Phase::AwaitingApproval;
    let status = ground.shop.reaches_within(LONG, "AwaitingApproval", waits).await;
    // Between the backup and the migration.
    let backup = status.database.unwrap().last(DatabaseTask::Backup).unwrap().outcome;
    assert_eq!((backup, volume.files(".dump").len()), (WorkOutcome::Done, 2));
    ground.postgres.sql("ALTER ROLE shop PASSWORD 's3cret-and-new'").await;
    secret("s3cret-and-new").await;
    ground.approve("Migration").await;
    ground.healthy().await;
    assert_eq!(ground.effects().await, "001,002");
    ground.load.answered_only_by("v3").await;
    ground.is_sound().await;
}

async fn a_migration_and_no_new_code(world: World) {
    let ground = Ground::start(&world, "{}").await;
    let revision = ground.shop.status().await.stable.unwrap().revision;
    files(&world, &[file("002", "CREATE TABLE notes (id int)")]).await;
    ground.shop.patch("{spec: {database: {migration: {version: v2}}}}").await;
    ground.healthy().await;
    assert_eq!(ground.effects().await, "001,002");
    ground.is_sound().await;
    files(&world, &[file("002", "CREATE TABLE notes (id int)"), file("003", "SELECT nothing")]).await;
    ground.shop.patch("{spec: {database: {migration: {version: v3}}}}").await;
    ground.taken_back("MigrationFailed", "\"nothing\" does not exist", SchemaState::Unchanged).await;
    assert_eq!(ground.shop.status().await.stable.unwrap().revision, revision);
    ground.load.answered_only_by("v1").await;
}
