//! Rules of the five runbooks that are broken, one at a time, on the databases of `database_runbooks`: what cannot be begun or
//! does not pass goes back, or halts until a person has mended it, as the runbook says.

use servicerelease::api::{DatabaseTask, Phase, SchemaState};

use crate::{
    harness::{
        Scenario, World,
        database::{Ground, LONG},
        postgres::Postgres,
    },
    scenarios,
};

use super::database_runbooks::{SERIALIZATION, apply_on, with_migrations};

pub const ALL: &[Scenario] = scenarios! {
    serialization_permissions, Together, Embedded;
};

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
    ground.is_quiet().await;
}
