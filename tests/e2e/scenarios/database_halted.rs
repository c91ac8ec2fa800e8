//! A halt over a schema that is changed, and the way forward out of it.

use serde_json::json;
use servicerelease::api::{Phase, ServiceReleaseStatus, StepName};

use crate::{
    harness::{
        Scenario, World,
        database::{Ground, LONG, file},
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_newer_version_goes_forward_behind_maintenance, Together, Embedded;
};

const BEHIND_A_KEY: &str = "{maintenance: {configMap: {name: shop-mode, key: MAINTENANCE_MODE, propagationDelay: 2s}},
    database: {onRollback: Halt, migration: {previousRevisionCompatible: false}}, strategy: {blueGreen: {}}}";

/// Whether the condition says that the database fits the code that serves.
fn fits(status: &ServiceReleaseStatus) -> bool {
    status.conditions.iter().any(|it| it.type_ == "DatabaseReady" && it.status == "True")
}

async fn a_newer_version_goes_forward_behind_maintenance(world: World) {
    let mode =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: shop-mode, labels: {servicerelease.io/release: shop}},
        data: {MAINTENANCE_MODE: 'false'}}";
    world.apply(mode).await;
    let ground = Ground::start(&world, BEHIND_A_KEY).await;
    let files = [file("002", "ALTER TABLE effects ADD COLUMN note text; SELECT pg_sleep(4)")];

    ground.release("v2", &files, "{}").await;
    ground.postgres.runs("pg_sleep(4)").await;
    ground.shop.say("Abort").await;
    let status = ground.ends(Phase::Halted, "SchemaChanged", "").await;
    assert!(status.next_action.contains("apply a version whose code fits the new schema"), "{}", status.next_action);
    assert!(!fits(&status), "{:?}", status.conditions);
    assert_eq!((ground.mode().await.as_str(), ground.effects().await.as_str()), ("true", "001,002"));

    // A newer version waits until a person says so.
    ground.release("v3", &files, "{}").await;
    let waits = |status: &ServiceReleaseStatus| {
        status.phase == Phase::Halted && status.message.contains("waits: Retry begins it")
    };
    let status = ground.shop.reaches("Halted, and v3 waits", waits).await;
    let revision = status.database.unwrap().fix.expect("what Retry would release").revision;
    assert!(status.message.contains(&revision) && status.next_action.contains(&revision), "{}", status.next_action);
    ground.load.answered_only_by("v1").await;

    let answer = ground.shop.command("Retry", &json!({ "revision": revision }).to_string()).await;
    assert_eq!(answer.phase, servicerelease::api::CommandPhase::Applied, "{}", answer.message);
    let prepares = |status: &ServiceReleaseStatus| status.step.as_ref().is_some_and(|it| it.name == StepName::Prepare);
    let status = ground.shop.reaches_within(LONG, "v3 gets its pods", prepares).await;
    assert!(!fits(&status), "{:?}", status.conditions);
    assert_eq!(ground.mode().await, "true", "it stays on until v3 serves");
    let status = ground.healthy().await;
    assert!(fits(&status), "{:?}", status.conditions);
    assert_eq!((ground.mode().await.as_str(), ground.effects().await.as_str()), ("false", "001,002"));
    ground.load.answered_only_by("v3").await;
    ground.is_sound().await;
}
