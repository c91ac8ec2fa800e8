//! A migration that old code cannot live with, where maintenance mode is a page behind a Gateway.

use serde_json::json;
use servicerelease::api::{DatabaseTask, SchemaState, WorkOutcome};

use crate::{
    harness::{
        Load, Scenario, World,
        database::{Ground, file, files},
        postgres::Postgres,
        yaml,
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_migration_behind_the_page, Together, Embedded;
};

const DATABASE: &str = "{database: {
    urlFrom: {secretKeyRef: {name: shop-db, key: DATABASE_URL}},
    migration: {sql: {configMap: shop-migrations}, previousRevisionCompatible: false, lockTimeout: 60s}}}";

/// The page of the example, without its release.
async fn page(world: &World) {
    let text = include_str!("../../../deploy/examples/maintenance.yaml");
    let (page, _) = text.split_once("\n---\napiVersion: servicerelease.io/").expect("a page, and a release");
    super::gateway::apply_example(world, page).await;
    world.kubectl("wait deployment/page --for=condition=Available --timeout=60s").await.expect_success();
}

/// How many requests a version has answered.
async fn answers(load: &Load, version: &str) -> u64 {
    load.report().await.by_version.get(version).copied().unwrap_or_default()
}

async fn a_migration_behind_the_page(world: World) {
    page(&world).await;
    let postgres = Postgres::start(&world).await;
    let spec = "{strategy: {blueGreen: {}}, traffic: {maintenance: {service: page}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let load = world.load_with_page("edge", "page").await;
    load.answered_only_by("v1").await;
    let ground = Ground { world: world.clone(), postgres, shop, load };

    // It goes on for as long as somebody else has what it waits for.
    let holder = ground.postgres.hold("SELECT pg_advisory_lock(42)").await;
    files(&world, &[file("002", "SELECT pg_advisory_xact_lock_shared(42)")]).await;
    ground.shop.release_with("v2", json!({ "spec": yaml(DATABASE) })).await;
    ground.work(DatabaseTask::Migration, WorkOutcome::Running).await;
    ground.postgres.runs("pg_advisory_xact_lock_shared(42)").await;
    ground.load.answered_only_by("page").await;
    let old = answers(&ground.load, "v1").await;
    let status = ground.shop.status().await;
    assert!(status.message.contains("maintenance: all requests go to Service page"), "{}", status.message);
    ground.load.more_requests(300).await;
    assert_eq!((answers(&ground.load, "v1").await, ground.effects().await.as_str()), (old, "001"));

    holder.release().await;
    let status = ground.healthy().await;
    assert_eq!(status.database.unwrap().schema, SchemaState::Changed);
    assert_eq!(ground.effects().await, "001,002");
    ground.load.answered_only_by("v2").await;
    assert_eq!(answers(&ground.load, "v1").await, old, "old code never met the new schema");
    ground.load.assert_never_together(&["v1", "v2"]).await;
    ground.is_sound().await;
}
