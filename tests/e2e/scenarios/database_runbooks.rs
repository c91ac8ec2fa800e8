//! The databases of the five runbooks (`deploy/examples/database-*.yaml`), by real Prisma and by plain SQL on a real
//! PostgreSQL: each first deployment, a good release after it, and what fails goes back or halts as its runbook says.

use serde_json::{Value, json};
use servicerelease::api::{DatabaseTask, Phase, SchemaState, ServiceReleaseStatus, WorkOutcome};

use crate::{
    harness::{
        Load, Scenario, Shop, World,
        database::{Ground, LONG},
        merge,
        postgres::{Postgres, image},
        volume::Volume,
        yaml,
    },
    scenarios,
};

use super::database_rules::{
    among_too_many, behind_the_primary, goes_back_by, paid_for_nothing, put_in_at_the_second_try,
    refused_before_anything_is_changed, seeded_at_the_second_try, taken_back_at_the_third_try, unverified_and_mended,
    without_a_baseline,
};

pub const ALL: &[Scenario] = scenarios! {
    shipping, Together, Embedded;
    multiship, Together, Embedded;
    sports_nutrition, Together, Embedded;
    farmers_market, Together, Embedded;
    serialization, Together, Embedded;
};

const FLAG: &str = "new-shipment-tracking";

/// The example's documents, made to run here: images that are there, and shorter times.
pub(super) fn example(text: &str) -> Vec<Value> {
    let mut text = text.to_owned();
    for (public, variable) in [
        ("registry.example.com/shop-migrations:1.0.0", "PRISMA_IMAGE"),
        ("migrate/migrate:v4.19.1", "GOLANG_MIGRATE_IMAGE"),
        ("flyway/flyway:10.22.0", "FLYWAY_IMAGE"),
        ("postgres:17-alpine", "POSTGRES_IMAGE"),
    ] {
        if text.contains(public) {
            text = text.replace(public, &image(variable));
        }
    }
    for (long, short) in [
        ("pause: {duration: 1h}", "pause: {duration: 2s}"),
        ("pause: {duration: 5m}", "pause: {duration: 2s}"),
        ("every: 5m", "every: 3s"),
        ("duration: 24h", "duration: 15s"),
    ] {
        text = text.replace(long, short);
    }
    let pods = yaml(include_str!("../harness/shop.yaml"));
    let documents = text.split("\n---\n").map(|document| {
        let mut object = yaml(document);
        if object["kind"] == "ServiceRelease" {
            object["spec"]["template"]["spec"] = pods["spec"]["template"]["spec"].clone();
            object["spec"]["traffic"]["scaleDownDelay"] = json!("2s");
            // No pod here reads the key from a file.
            if let Some(switch) = object["spec"].pointer_mut("/maintenance/configMap") {
                switch["propagationDelay"] = json!("2s");
            }
        }
        object
    });
    documents.collect()
}

/// Applies an example: a PostgreSQL, volumes for its claims, and its objects, of which `before` may change the release.
pub(super) async fn apply(world: &World, text: &str, before: impl Fn(&mut Value)) -> (Ground, Vec<Volume>) {
    apply_on(world, Postgres::start(world).await, text, before).await
}

/// The same on a server that is there.
pub(super) async fn apply_on(
    world: &World,
    postgres: Postgres,
    text: &str,
    before: impl Fn(&mut Value),
) -> (Ground, Vec<Volume>) {
    let (shop, volumes) = begin(world, text, before).await;
    (served(world, postgres, shop).await, volumes)
}

/// Applies an example's objects, and does not wait for the release.
pub(super) async fn begin(world: &World, text: &str, before: impl Fn(&mut Value)) -> (Shop, Vec<Volume>) {
    let mut volumes = Vec::new();
    for mut object in example(text) {
        match object["kind"].as_str() {
            Some("PersistentVolumeClaim") => {
                volumes.push(Volume::of(world, object["metadata"]["name"].as_str().expect("a name")).await);
            }
            Some("ServiceRelease") => {
                before(&mut object);
                strip(&mut object);
            }
            _ => {}
        }
        world.apply_value(object).await;
    }
    (Shop::watch(world, "shop").await, volumes)
}

/// Its first version serves, and a client calls it from now on.
pub(super) async fn served(world: &World, postgres: Postgres, shop: Shop) -> Ground {
    let up = |phase: Phase| matches!(phase, Phase::Healthy | Phase::Observing);
    shop.reaches_within(LONG, "Healthy or Observing", |status| up(status.phase)).await;
    let load: Load = world.load().await;
    Ground { world: world.clone(), postgres, shop, load }
}

/// The example's object of a kind and a name.
pub(super) fn document(text: &str, kind: &str, name: &str) -> Value {
    let of = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == name;
    example(text).into_iter().find(of).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// Takes out what is null: an apply does not know it as nothing.
fn strip(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(strip);
    }
}

/// Adds files of Prisma's to the ConfigMap of the migrations and to the volume that shows them, as a new image would.
pub(super) async fn with_migrations(ground: &Ground, version: &str, migrations: &[(&str, &str)]) {
    let spec = json!(ground.shop.get().await.spec);
    let mut volumes = spec["database"]["migration"]["template"]["spec"]["volumes"].clone();
    for (name, sql) in migrations {
        let key = format!("{name}.sql");
        let data = json!({ "data": { key.as_str(): sql } });
        ground.patch_config_map("shop-migrations", data).await;
        let item = json!({ "key": key, "path": format!("migrations/{name}/migration.sql") });
        volumes[0]["configMap"]["items"].as_array_mut().expect("items").push(item);
    }
    let change = json!({ "template": { "spec": { "volumes": volumes } } });
    ground.shop.release_with(version, json!({ "spec": { "database": { "migration": change } } })).await;
}

pub(super) const SHIPPING: &str = include_str!("../../../deploy/examples/database-shipping.yaml");
pub(super) const ZONES: &str = "SELECT count(*) FROM shipping_zones";

async fn shipping(world: World) {
    let (ground, volumes) = seeded_at_the_second_try(&world).await;
    assert_eq!(ground.postgres.sql(ZONES).await, "2", "the first deployment is seeded");
    ground.postgres.sql("INSERT INTO shipping_zones (name, states) VALUES ('Central', '{TX}')").await;
    let dumps = || {
        let all = std::fs::read_dir(volumes[0].file("shipping")).unwrap().flatten();
        all.filter(|it| it.path().extension() == Some("dump".as_ref())).count()
    };
    assert_eq!(dumps(), 3, "one of each try, and one before the restore");

    let carrier = "ALTER TABLE \"shipments\" ADD COLUMN \"carrier\" TEXT;";
    with_migrations(&ground, "v2", &[("20250201000000_carrier", carrier)]).await;
    let status = ground.healthy().await;
    let known = status.database.unwrap();
    assert_eq!(known.outcome(DatabaseTask::Seed), None, "a second deployment is not seeded");
    let backup = known.backup.unwrap();
    assert!(backup.proven_at.is_some() && backup.rows >= 5, "{backup:?}");
    assert_eq!(dumps(), 4);
    ground.load.answered_only_by("v2").await;

    // Half of it is done when the rest fails: Prisma commits each statement.
    let wrong = "DROP TABLE \"shipment_tracking\"; ALTER TABLE \"nothing\" ADD COLUMN \"id\" TEXT;";
    with_migrations(&ground, "v3", &[("20250301000000_wrong", wrong)]).await;
    loses_nothing_unasked(&ground, "20250301000000_wrong/migration.sql, line 1: drops tables with their rows").await;
    let status = asks_for_a_restore(&ground.shop).await;
    assert!(status.next_action.contains("--restore"), "{}", status.next_action);
    assert_eq!(ground.postgres.sql("SELECT to_regclass('shipment_tracking') IS NULL").await, "t");
    ground.approve("Restore").await;
    ground.taken_back_quietly("MigrationFailed", SchemaState::Undone).await;
    assert_eq!(ground.postgres.sql("SELECT to_regclass('shipment_tracking') IS NULL").await, "f");
    assert_eq!(ground.postgres.sql(ZONES).await, "3", "what was written after the first deployment is there");
    assert_eq!(ground.mode().await, "false");
    assert_eq!(ground.postgres.sql(BESIDE).await, "2", "what was there stays beside");
    ground.load.answered_only_by("v2").await;
    unverified_and_mended(&ground).await;
}

/// What Prisma is going to run is read before it is run: a person is told what is lost, and approves.
async fn loses_nothing_unasked(ground: &Ground, risk: &str) {
    let asks = |status: &ServiceReleaseStatus| status.reason == "MigrationAwaitsApproval";
    let status = ground.shop.reaches_within(LONG, "the migration waits for approval", asks).await;
    let known = status.database.unwrap();
    assert!(known.loses_data && known.outcome(DatabaseTask::Migration).is_none(), "{known:?}");
    // What is applied is not due, and is told no more.
    assert_eq!((known.pending.len(), known.risks.as_slice()), (1, &[risk.to_owned()][..]));
    assert!(status.message.contains(risk), "{}", status.message);
    ground.approve("Migration").await;
}

/// Databases that were there before a restore.
const BESIDE: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE 'shop_before_%'";

/// The release is on its way back, and the backup is to take the database's place.
pub(super) async fn asks_for_a_restore(shop: &Shop) -> ServiceReleaseStatus {
    let asks = |status: &ServiceReleaseStatus| status.reason == "RestoreAwaitsApproval";
    shop.reaches_within(LONG, "a restore waits for approval", asks).await
}

pub(super) const PREFERENCES: &str =
    "SELECT count(*) FROM information_schema.columns WHERE column_name = 'preferences'";

async fn multiship(world: World) {
    let text = include_str!("../../../deploy/examples/database-multiship.yaml");
    let first_only = |release: &mut Value| {
        let database = &mut release["spec"]["database"];
        let volumes = &mut database["migration"]["template"]["spec"]["volumes"];
        volumes[0]["configMap"]["items"]
            .as_array_mut()
            .unwrap()
            .retain(|item| !item["key"].as_str().unwrap().contains("prefer"));
        database["migration"]["template"]["spec"]["containers"][0]["command"] =
            json!(["node_modules/.bin/prisma", "migrate", "deploy"]);
        database["verify"] = json!({ "tables": ["users", "orders"] });
        release["spec"]["flags"] = Value::Null;
    };
    let (ground, _volumes) = apply(&world, text, first_only).await;
    ground.postgres.sql("INSERT INTO users (email) SELECT i || '@example.com' FROM generate_series(1, 2500) i").await;
    let whole = document(text, "ServiceRelease", "shop");
    let change = json!({ "spec": { "database": whole["spec"]["database"], "flags": whole["spec"]["flags"] } });
    behind_the_primary(&ground, change.clone()).await;

    // The new code is not well: back to version 20240101_120000, flag and all.
    goes_back_by(&ground, "ALTER TABLE \"users\" DROP COLUMN \"nothing\";").await;
    let mut sick = change.clone();
    merge(
        &mut sick,
        json!({ "spec": { "checks": [{ "name": "health", "http": { "path": "/health", "expect": { "status": 204 } } }] } }),
    );
    ground.shop.release_with("v2", sick).await;
    taken_back_at_the_third_try(&ground).await;
    let status = ground.ends(Phase::RolledBack, "CheckFailed", "check health failed").await;
    let known = status.database.unwrap();
    assert_eq!(known.schema, SchemaState::Undone);
    assert!(known.set_aside.is_some(), "nobody was asked, but a backup has what is lost");
    assert_eq!(ground.postgres.sql(PREFERENCES).await, "0");
    assert_eq!(ground.postgres.sql("SELECT migration_name FROM _prisma_migrations").await, "20240101_120000_init");
    ground.key_becomes("shop-flags", FLAG, "false").await;
    ground.load.answered_only_by("v1").await;

    let mut well = change;
    merge(&mut well, json!({ "spec": { "checks": whole["spec"]["checks"] } }));
    ground.shop.release_with("v3", well).await;
    ground.healthy().await;
    let filled = "SELECT count(*) FROM users WHERE preferences @> '{\"emailNotifications\": true}'";
    assert_eq!(ground.postgres.sql(filled).await, "2500");
    ground.key_becomes("shop-flags", FLAG, "true").await;
    ground.load.answered_only_by("v3").await;

    // And back again by a person's word, with its schema and its flag.
    ground.shop.say("Undo").await;
    ground.shop.reaches_within(LONG, "RolledBack", |status| status.phase == Phase::RolledBack).await;
    ground.key_becomes("shop-flags", FLAG, "false").await;
    ground.load.answered_only_by("v1").await;
    ground.is_quiet().await;
}

pub(super) const SPORTS_NUTRITION: &str = include_str!("../../../deploy/examples/database-sports-nutrition.yaml");

async fn sports_nutrition(world: World) {
    let (ground, volumes) = put_in_at_the_second_try(&world).await;
    assert_eq!(ground.postgres.sql("SELECT name FROM meals").await, "porridge");
    let order =
        "SELECT string_agg(name, ' ' ORDER BY started_at) FROM servicerelease_ledger WHERE set_name = 'default'";
    let files =
        "001_initial_schema.sql 002_stores_and_prices.sql 003_ingredients_and_meals.sql 004_serbian_localization.sql";
    assert_eq!(ground.postgres.sql(order).await, files);
    let baseline = ground.postgres.dumped(&volumes[0].file("baseline.dump")).await;
    for part in ["CREATE TABLE public.users", "CREATE TABLE public.translations", "porridge", "kaša"] {
        assert!(baseline.contains(part), "the baseline has schema and seed, {part:?} too: {baseline}");
    }
    let made = std::fs::metadata(volumes[0].file("baseline.dump")).unwrap().modified().unwrap();
    let before_migrations = || volumes[0].files(".dump").len() - 1;
    assert_eq!(before_migrations(), 2, "one of each try");

    ground
        .patch_config_map(
            "shop-migrations",
            json!({ "data": {
        "005_allergens.sql": "CREATE TABLE allergens (id int PRIMARY KEY, name text NOT NULL);",
        "006_wrong.sql": "ALTER TABLE meals ADD COLUMN allergen int REFERENCES allergenes;",
    } }),
        )
        .await;
    let version = |version: &str| json!({ "spec": { "database": { "migration": { "version": version } } } });
    ground.shop.release_with("v2", version("006")).await;
    let told = "006_wrong.sql";
    let status = ground.ends(Phase::RolledBack, "MigrationFailed", told).await;
    let known = status.database.unwrap();
    assert_eq!((known.schema, known.applied.as_slice()), (SchemaState::Partial, &["005_allergens.sql".to_owned()][..]));
    ground.load.answered_only_by("v1").await;

    let right = "ALTER TABLE meals ADD COLUMN allergen int REFERENCES allergens;";
    ground
        .patch_config_map("shop-migrations", json!({ "data": { "006_wrong.sql": null, "006_meals.sql": right } }))
        .await;
    ground.shop.release_with("v3", version("006-again")).await;
    ground.healthy().await;
    assert_eq!(before_migrations(), 4);
    let still = std::fs::metadata(volumes[0].file("baseline.dump")).unwrap().modified().unwrap();
    assert_eq!(still, made, "the baseline is made once");
    ground.load.answered_only_by("v3").await;

    without_a_baseline(&ground, &volumes[0]).await;
    among_too_many(&ground).await;
    ground.is_quiet().await;
}

async fn farmers_market(world: World) {
    let text = include_str!("../../../deploy/examples/database-farmers-market.yaml");
    let (ground, volumes) = apply(&world, text, |_| ()).await;
    ground.healthy().await;
    assert_eq!(ground.mode().await, "false");
    let (second, backups) = (&volumes[0], &volumes[1]);
    for kind in [".dump", ".json"] {
        assert_eq!((second.files(kind), second.files(kind).len()), (backups.files(kind), 1));
    }
    let rows = "INSERT INTO users VALUES ('u1', 'a@example.com'); INSERT INTO cart_items VALUES ('c1', 'u1', 2);
        INSERT INTO orders (id, order_number, total) VALUES ('o1', 'N1', 10); INSERT INTO order_items VALUES ('i1', 'o1', 10)";
    ground.postgres.sql(rows).await;
    paid_for_nothing(&ground).await;

    // The dry run fails on what is in the database: nothing is changed, and nobody sees the maintenance.
    let check = "ALTER TABLE \"cart_items\" ADD CONSTRAINT \"at_most_one\" CHECK (\"quantity\" <= 1);";
    with_migrations(&ground, "v2", &[("20241201000000_at_most_one", check)]).await;
    let status = ground.ends(Phase::RolledBack, "RehearsalFailed", "").await;
    assert_eq!(status.database.unwrap().schema, SchemaState::Unchanged);
    ground.shop.always("no maintenance", |status| {
        status.database.as_ref().is_none_or(|database| database.maintenance_since.is_none())
    });
    let applied = "SELECT count(*) FROM _prisma_migrations";
    assert_eq!(ground.postgres.sql(applied).await, "2");
    ground.load.answered_only_by("v1").await;
    refused_before_anything_is_changed(&ground, backups).await;
    assert_eq!(ground.postgres.sql(applied).await, "2");

    orphaned_and_given_back(&ground).await;
    for kind in [".dump", ".json"] {
        assert_eq!(second.files(kind), backups.files(kind));
    }

    // What is wrong after the migration, in the database, takes the release back while it is watched. The code before
    // does not fit the schema: a person decides.
    let watched = |phase: Phase| phase == Phase::Observing;
    let status = ground.shop.reaches_within(LONG, "Observing", |status| watched(status.phase)).await;
    let rehearsal = status.database.unwrap().rehearsal.unwrap();
    assert!(rehearsal.migrated_millis > 0, "{rehearsal:?}");
    ground.postgres.sql("UPDATE orders SET total = 11 WHERE id = 'o1'").await;
    let status = ground.ends(Phase::Halted, "SchemaChanged", "check order-totals failed").await;
    assert!(status.next_action.contains("kubectl srel"), "{}", status.next_action);
    ground.load.answered_only_by("v3").await;
    let report = world.srel("report shop").await.expect_success();
    for told in ["| Phase | Halted (SchemaChanged) |", "- order-totals at AfterPromotion: Failed after "] {
        assert!(report.contains(told), "no {told:?} in\n{report}");
    }
}

/// The migration of v3 leaves cart items behind whose users are gone, in the real database only, so that no rehearsal finds
/// them: halted behind maintenance mode. A person gives them back, and has the schema verified again.
async fn orphaned_and_given_back(ground: &Ground) {
    let orphans = "ALTER TABLE \"cart_items\" ADD COLUMN \"note\" TEXT; SET session_replication_role = replica;
        DELETE FROM \"users\" WHERE current_database() = 'shop'; RESET session_replication_role;";
    let files = json!({ "data": { "20241201000000_at_most_one.sql": orphans } });
    ground.patch_config_map("shop-migrations", files).await;
    ground.shop.release_with("v3", json!({ "spec": { "database": { "migration": { "version": "3" } } } })).await;
    // It is rehearsed, and no rehearsal sees it; but it is written there.
    loses_nothing_unasked(ground, "20241201000000_at_most_one/migration.sql, line 2: deletes rows").await;
    let status = ground.ends(Phase::Halted, "SchemaChanged", "maintenance").await;
    let known = status.database.unwrap();
    let found = known.last(DatabaseTask::Verification).unwrap();
    assert!(found.message.contains("query orphaned-cart-items: expected no rows"), "{}", found.message);
    assert_eq!((known.schema, ground.mode().await.as_str()), (SchemaState::Changed, "true"));
    assert!(status.next_action.contains("the schema is verified again"), "{}", status.next_action);
    ground.load.answered_only_by("v1").await;
    ground.postgres.sql("INSERT INTO users VALUES ('u1', 'a@example.com')").await;
    ground.shop.say("Retry").await;
}

pub(super) const SERIALIZATION: &str = include_str!("../../../deploy/examples/database-serialization.yaml");

async fn serialization(world: World) {
    let postgres = Postgres::start_for_a_tenant(&world).await;
    let (ground, volumes) = apply_on(&world, postgres, SERIALIZATION, |_| ()).await;
    let indexes = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'idx_%'";
    assert_eq!(ground.postgres.sql(indexes).await, "23");
    assert_eq!(ground.mode().await, "false");
    let insert = "INSERT INTO vendor_serials (part_id, serial_number, status) SELECT 'P', i, 'new' FROM generate_series(1, 500) i";
    ground.postgres.sql(insert).await;

    let lot =
        "ALTER TABLE vendor_serials ADD COLUMN lot TEXT; CREATE INDEX idx_vendor_serials_lot ON vendor_serials(lot);";
    with_migrations(&ground, "v2", &[("20241201000000_lot", lot)]).await;
    let status = ground.healthy().await;
    let backup = status.database.unwrap().backup.unwrap();
    assert!(backup.rows >= 500 && backup.proven_at.is_some() && backup.sha256.len() == 64, "{backup:?}");
    let dump = std::fs::read(volumes[0].file(volumes[0].files(".dump").last().unwrap())).unwrap();
    assert_eq!(&dump[..5], b"PGDMP", "pg_dump's custom format");

    // A migration that loses an index on the way: halted, with the commands for a person.
    let wrong = "DROP INDEX idx_vendor_serials_lot; DROP INDEX idx_audit_events_type_time;";
    with_migrations(&ground, "v3", &[("20250101000000_fewer", wrong)]).await;
    let status = ground.ends(Phase::Halted, "SchemaChanged", "").await;
    let known = status.database.unwrap();
    let found = known.last(DatabaseTask::Verification).unwrap();
    assert_ne!(found.outcome, WorkOutcome::Done);
    assert!(found.message.contains("idx_audit_events_type_time"), "{}", found.message);
    assert_eq!(ground.mode().await, "true", "it stays as it is, and the message says so");
    assert!(status.message.contains("maintenance"), "{}", status.message);

    // The person mends the database, and says so.
    ground
        .postgres
        .sql("CREATE INDEX idx_audit_events_type_time ON audit_events (event_type, performed_at DESC)")
        .await;
    ground.shop.say("Skip").await;
    ground.shop.reaches_within(LONG, "RolledBack", |status| status.phase == Phase::RolledBack).await;
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    ground.load.answered_only_by("v2").await;
    restored_out_of_the_halt(&ground).await;
    ground.is_quiet().await;
}

/// Another one loses an index, and rows with it. The person has the backup restored, into a fresh database that takes the place
/// of the one that is there; the report says so.
async fn restored_out_of_the_halt(ground: &Ground) {
    let serials = "SELECT count(*) FROM vendor_serials";
    let wrong = "DROP INDEX idx_audit_events_performed_by; DELETE FROM vendor_serials;";
    with_migrations(ground, "v4", &[("20250201000000_fewer_still", wrong)]).await;
    loses_nothing_unasked(ground, "20250201000000_fewer_still/migration.sql, line 1: deletes rows").await;
    let status = ground.ends(Phase::Halted, "SchemaChanged", "").await;
    assert!(status.next_action.contains("set spec.database.onRollback: Restore"), "{}", status.next_action);
    assert_eq!(ground.postgres.sql(serials).await, "0");
    ground.shop.patch("{spec: {database: {onRollback: Restore}}}").await;
    let asks = |status: &ServiceReleaseStatus| status.reason == "RestoreAwaitsApproval";
    let status = ground.shop.reaches_within(LONG, "a restore waits for approval", asks).await;
    let plan = status.database.unwrap().plan_hash;
    ground.world.srel(&format!("approve shop --restore {plan}")).await.expect_success();

    let status = ground.ends(Phase::RolledBack, "VerificationFailed", "").await;
    let known = status.database.unwrap();
    assert_eq!(known.schema, SchemaState::Undone);
    for task in [DatabaseTask::BackupBeforeRestore, DatabaseTask::Restore, DatabaseTask::VerificationRestore] {
        assert_eq!(known.outcome(task), Some(WorkOutcome::Done), "{task:?}");
    }
    assert_eq!(ground.postgres.sql(serials).await, "500");
    let index = "SELECT to_regclass('idx_audit_events_performed_by') IS NOT NULL";
    assert_eq!(ground.postgres.sql(index).await, "t");
    let beside = "SELECT count(*) FROM pg_database WHERE datname LIKE 'shop_before_%'";
    assert_eq!(ground.postgres.sql(beside).await, "1", "what was there stays beside");
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    ground.load.answered_only_by("v2").await;

    let (report, who) = (ground.world.srel("report shop").await.expect_success(), ground.world.who().await);
    for told in [
        "| Phase | RolledBack (VerificationFailed) |".to_owned(),
        format!("- backup {}: ", known.backup.as_ref().unwrap().name),
        format!("- Restore of plan {plan} approved by {who} at "),
        "index idx_audit_events_performed_by is missing".to_owned(),
        "- restore Done (".to_owned(),
        "- verification of the restore Done (".to_owned(),
        " SchemaUndone: the backup was restored".to_owned(),
    ] {
        assert!(report.contains(&told), "no {told:?} in\n{report}");
    }
}
