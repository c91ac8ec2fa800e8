//! Rules of the five runbooks that are broken, one at a time, on the databases of `database_runbooks`: what cannot be begun or
//! does not pass goes back, or halts until a person has mended it, as the runbook says.

use serde_json::{Value, json};
use servicerelease::api::{DatabaseTask, Phase, SchemaState, ServiceReleaseStatus, WorkOutcome};

use crate::{
    harness::{
        Scenario, Shop, World,
        database::{Ground, LONG},
        postgres::Postgres,
        volume::Volume,
    },
    scenarios,
};

use super::database_runbooks::{
    PREFERENCES, SERIALIZATION, SHIPPING, SPORTS_NUTRITION, ZONES, apply_on, asks_for_a_restore, begin, document,
    served, with_migrations,
};

pub const ALL: &[Scenario] = scenarios! {
    serialization_permissions, Together, Embedded;
};

/// The seed of the first deployment fails half-way: nothing serves yet, and the empty database is restored. Put right, it is
/// put in by the next try.
pub(super) async fn seeded_at_the_second_try(world: &World) -> (Ground, Vec<Volume>) {
    let postgres = Postgres::start(world).await;
    let wrong = SHIPPING.replace("INSERT INTO shipping_rates (zone_id", "INSERT INTO rates (zone_id");
    let (shop, volumes) = begin(world, &wrong, |_| ()).await;
    let status = asks_for_a_restore(&shop).await;
    let known = status.database.unwrap();
    assert_eq!((known.outcome(DatabaseTask::Seed), known.seeded_at), (Some(WorkOutcome::Failed), None));
    assert_eq!(postgres.sql(ZONES).await, "2", "its first statement was done");
    assert!(shop.sizes().await.is_empty(), "the candidate has no pods");
    world.srel(&format!("approve shop --restore {}", known.plan_hash)).await.expect_success();
    let status = first_failed(&shop, "seed of the database: exit code 1").await;
    assert_eq!(status.database.unwrap().schema, SchemaState::Undone);
    assert_eq!(postgres.sql("SELECT to_regclass('shipping_zones') IS NULL").await, "t");
    world.apply_value(document(SHIPPING, "ConfigMap", "shop-seed")).await;
    shop.say("Retry").await;
    (served(world, postgres, shop).await, volumes)
}

/// There is nothing to go back to.
async fn first_failed(shop: &Shop, told: &str) -> ServiceReleaseStatus {
    let failed = |status: &ServiceReleaseStatus| status.reason == "FirstRevisionFailed";
    let status = shop.reaches_within(LONG, "Halted: the first revision failed", failed).await;
    assert!(status.phase == Phase::Halted && status.message.contains(told), "{}", status.message);
    status
}

/// A migration loses indexes on the way. The person makes them again, and says that the database may stay as it is.
pub(super) async fn unverified_and_mended(ground: &Ground) {
    let lost = [
        ("shipping_zones_name_key", "CREATE UNIQUE INDEX shipping_zones_name_key ON shipping_zones (name)"),
        (
            "idx_shipping_zones_active_priority",
            "CREATE INDEX idx_shipping_zones_active_priority ON shipping_zones (is_active, priority)",
        ),
        (
            "shipping_rates_zone_id_max_ounces_key",
            "CREATE UNIQUE INDEX shipping_rates_zone_id_max_ounces_key ON shipping_rates (zone_id, max_ounces)",
        ),
    ];
    let drops: String = lost.iter().map(|(index, _)| format!("DROP INDEX \"{index}\";")).collect();
    let drops = json!({ "data": { "20250301000000_wrong.sql": drops } });
    ground.patch_config_map("shop-migrations", drops).await;
    ground.shop.release_with("v4", json!({ "spec": { "database": { "migration": { "version": "4" } } } })).await;
    let status = asks_for_a_restore(&ground.shop).await;
    let found = status.database.unwrap().last(DatabaseTask::Verification).unwrap().message.clone();
    ground.load.answered_only_by("v2").await;
    for (index, mend) in lost {
        assert!(found.contains(&format!("index {index} is missing")), "{found}");
        ground.postgres.sql(mend).await;
    }
    ground.shop.say("Skip").await;
    ground.taken_back_quietly("VerificationFailed", SchemaState::Accepted).await;
    ground.load.answered_only_by("v2").await;
}

/// A replica that nobody hears of may be behind by any time: nothing is begun.
pub(super) async fn behind_the_primary(ground: &Ground, change: Value) {
    ground.postgres.sql("SELECT pg_create_physical_replication_slot('standby', true)").await;
    ground.shop.release_with("v-behind", change).await;
    let told = "no replica is connected to replication slot 'standby'";
    let status = ground.ends(Phase::RolledBack, "DatabasePreflightFailed", told).await;
    let known = status.database.unwrap();
    assert_eq!((known.schema, known.last(DatabaseTask::Backup)), (SchemaState::Unchanged, None));
    ground.postgres.sql("SELECT pg_drop_replication_slot('standby')").await;
    ground.load.answered_only_by("v1").await;
}

/// What is to take the migration back fails, and then does not do it: halted each time, on the code that was there before and a
/// schema that it knows, until a person has mended the one, and done the other by hand.
pub(super) async fn taken_back_at_the_third_try(ground: &Ground) {
    let status = ground.ends(Phase::Halted, "MigrationDownFailed", "taking the migration back: ").await;
    assert!(status.next_action.contains("kubectl srel"), "{}", status.next_action);
    assert_eq!(status.database.unwrap().schema, SchemaState::Changed);
    assert_eq!(ground.postgres.sql(PREFERENCES).await, "1", "nothing of it was done");
    ground.load.answered_only_by("v1").await;
    goes_back_by(ground, "SELECT 1;").await;
    ground.shop.say("Retry").await;
    let unverified = |status: &ServiceReleaseStatus| {
        status.phase == Phase::Halted && status.message.contains("query preferences-are-gone: expected no rows")
    };
    ground.shop.reaches_within(LONG, "Halted: the column is still there", unverified).await;
    ground.load.answered_only_by("v1").await;
    ground.postgres.sql("ALTER TABLE users DROP COLUMN preferences").await;
    ground.shop.say("Retry").await;
    let back = |phase: Phase| phase == Phase::RolledBack;
    ground.shop.reaches_within(LONG, "RolledBack", |status| back(status.phase)).await;
    goes_back_by(ground, "ALTER TABLE \"users\" DROP COLUMN \"preferences\";").await;
}

/// The file that takes the preferences back.
pub(super) async fn goes_back_by(ground: &Ground, sql: &str) {
    let file = json!({ "data": { "20240215_090000_add_user_preferences.down.sql": sql } });
    ground.patch_config_map("shop-migrations", file).await;
}

/// The essential data do not go in: the schema stays, nothing serves yet, and nothing of the file is left. Put right, it goes in
/// by the next try.
pub(super) async fn put_in_at_the_second_try(world: &World) -> (Ground, Vec<Volume>) {
    let postgres = Postgres::start(world).await;
    let wrong = SPORTS_NUTRITION.replace("INSERT INTO meals (name, calories)", "INSERT INTO dishes (name, calories)");
    let (shop, volumes) = begin(world, &wrong, |_| ()).await;
    let status = first_failed(&shop, "relation \"dishes\" does not exist").await;
    let known = status.database.unwrap();
    assert_eq!((known.schema, known.seeded_at), (SchemaState::Changed, None));
    assert_eq!(postgres.sql("SELECT count(*) FROM stores").await, "0");
    assert!(shop.sizes().await.is_empty(), "the candidate has no pods");
    world.apply_value(document(SPORTS_NUTRITION, "ConfigMap", "shop-seed")).await;
    shop.say("Retry").await;
    (served(world, postgres, shop).await, volumes)
}

/// No client writes before there is a baseline: where it cannot be made, the release goes back.
pub(super) async fn without_a_baseline(ground: &Ground, volume: &Volume) {
    let (place, aside, part) = (volume.file("baseline.dump"), volume.file("aside"), volume.file("baseline.part"));
    std::fs::rename(&place, &aside).unwrap();
    std::fs::create_dir(&part).unwrap();
    ground.shop.release("v4", &[]).await;
    ground.ends(Phase::RolledBack, "CheckFailed", "check baseline failed").await;
    assert!(!place.exists());
    ground.load.answered_only_by("v3").await;
    std::fs::remove_dir(&part).unwrap();
    std::fs::rename(&aside, &place).unwrap();
}

/// Before the promotion, more than 80% of the connections are in use.
pub(super) async fn among_too_many(ground: &Ground) {
    let crowd = ground.postgres.crowd(81).await;
    ground.shop.release("v5", &[]).await;
    let told = "check connections failed: exit code 1: expected at most 80, but there is value 8";
    ground.ends(Phase::RolledBack, "CheckFailed", told).await;
    ground.load.answered_only_by("v3").await;
    crowd.release().await;
}

/// New code marks an order as paid that nobody has paid: seen while the release is watched. It has no migration of its own, so
/// that the code before fits the schema.
pub(super) async fn paid_for_nothing(ground: &Ground) {
    ground.shop.release("v1-paid", &[]).await;
    ground.shop.reaches_within(LONG, "Observing", |status| status.phase == Phase::Observing).await;
    ground.postgres.sql("UPDATE orders SET payment_status = 'PAID' WHERE id = 'o1'").await;
    let told = "check orders-without-payment-intent failed: exit code 1: expected value 0, but there is value 1";
    ground.ends(Phase::RolledBack, "CheckFailed", told).await;
    ground.postgres.sql("UPDATE orders SET payment_status = 'PENDING' WHERE id = 'o1'").await;
    ground.load.answered_only_by("v1").await;
}

/// A column of another type is found on the copy; a backup that does not come to the second place as it was written ends the
/// release before that.
pub(super) async fn refused_before_anything_is_changed(ground: &Ground, backups: &Volume) {
    let wider = "ALTER TABLE \"orders\" ALTER COLUMN \"total\" TYPE DECIMAL(12,2);";
    let wider = json!({ "data": { "20241201000000_at_most_one.sql": wider } });
    ground.patch_config_map("shop-migrations", wider).await;
    let version = |version: &str| json!({ "spec": { "database": { "migration": { "version": version } } } });
    ground.shop.release_with("v2-wider", version("2-wider")).await;
    let told = "column orders.total is numeric(12,2), not numeric(10,2)";
    let status = ground.ends(Phase::RolledBack, "RehearsalFailed", told).await;
    assert_eq!(status.database.unwrap().schema, SchemaState::Unchanged);

    let first = backups.file(&backups.files(".dump")[0]);
    let whole = std::fs::read(&first).unwrap();
    std::fs::write(&first, &whole[..whole.len() / 2]).unwrap();
    ground.shop.release_with("v2-copied", version("2-copied")).await;
    let status = ground.ends(Phase::RolledBack, "CheckFailed", "check backup-copied failed").await;
    let known = status.database.unwrap();
    assert_eq!((known.schema, known.last(DatabaseTask::Rehearsal)), (SchemaState::Unchanged, None));
    std::fs::write(&first, &whole).unwrap();
    ground.load.answered_only_by("v1").await;
    ground.is_quiet().await;
}

/// Rights that are missing: those that the release itself needs are told by preflight with what grants them, and nothing is
/// begun; one that the application needs is found by the query of the manifest, after the migration.
async fn serialization_permissions(world: World) {
    let postgres = Postgres::start_for_a_tenant(&world).await;
    let (ground, _volumes) = apply_on(&world, postgres, SERIALIZATION, |_| ()).await;
    ground.postgres.sql("REVOKE CREATE ON SCHEMA public FROM pg_database_owner; ALTER ROLE tenant NOCREATEDB").await;
    let lot = "ALTER TABLE vendor_serials ADD COLUMN lot TEXT;";
    with_migrations(&ground, "v2", &[("20241201000000_lot", lot)]).await;
    let status = ground.ends(Phase::RolledBack, "DatabasePreflightFailed", "").await;
    let remedies = ["GRANT CREATE ON SCHEMA public TO tenant", "ALTER ROLE tenant CREATEDB"];
    for remedy in remedies {
        assert!(status.message.contains(remedy), "no {remedy:?} in {}", status.message);
        ground.postgres.sql(remedy).await;
    }
    let known = status.database.unwrap();
    assert_eq!((known.schema, known.last(DatabaseTask::Backup)), (SchemaState::Unchanged, None));
    ground.load.answered_only_by("v1").await;

    ground.postgres.sql("REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC, tenant").await;
    ground.shop.release("v3", &[]).await;
    let status = ground.ends(Phase::Halted, "SchemaChanged", "maintenance").await;
    let found = status.database.unwrap().last(DatabaseTask::Verification).unwrap().message.clone();
    assert!(found.contains("query permissions: expected no rows, but there is 1 row"), "{found}");
    assert_eq!(ground.mode().await, "true");
    ground.load.answered_only_by("v1").await;
    ground.postgres.sql("GRANT TEMPORARY ON DATABASE shop TO tenant").await;
    ground.shop.say("Retry").await;
    ground.shop.reaches_within(LONG, "Healthy", |status| status.phase == Phase::Healthy).await;
    ground.key_becomes("shop-mode", "MAINTENANCE_MODE", "false").await;
    ground.load.answered_only_by("v3").await;

    // What the first deployment put in is lost, of each kind: the new code gets no traffic over that.
    let lost = "DELETE FROM serial_assignment_triggers WHERE trigger_type = 'RECEIPT'; DELETE FROM users; \
                DELETE FROM serial_pattern_templates; DELETE FROM audit_events";
    ground.postgres.sql(lost).await;
    ground.shop.release("v4", &[]).await;
    let told = "check configuration failed: exit code 1: expected no rows, but there are 4 rows";
    ground.ends(Phase::RolledBack, "CheckFailed", told).await;
    ground.load.answered_only_by("v3").await;
    ground.is_quiet().await;
}
