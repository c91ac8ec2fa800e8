//! Blue-green: all pods of the new colour stand beside the old ones, can be looked at through the
//! preview Service, and take all traffic at once when a person says so; Undo is as quick.

use std::time::Instant;

use servicerelease::api::Phase;

use crate::{
    harness::{Scenario, World, note},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    switch_by_hand_and_undo, Together, Any;
    switch_by_itself, Together, Any;
};

/// The version that answers behind a Service.
async fn version_behind(world: &World, service: &str) -> String {
    let path = format!("/api/v1/namespaces/{}/services/{service}:http/proxy/", world.namespace);
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let answer: serde_json::Value = world.cluster.client.request(request).await.unwrap();
    answer["version"].as_str().unwrap_or_default().to_owned()
}

async fn switch_by_hand_and_undo(world: World) {
    let shop = world.shop("{strategy: {blueGreen: {autoPromote: false}}, rollback: {keepPrevious: 5m}}").await;
    let load = world.load().await;

    shop.release("v2", &[]).await;
    let waiting = shop.step("2/3 pause", Phase::Paused).await;
    assert_eq!(waiting.candidate.unwrap().available_replicas, 2, "all pods of the new colour");
    assert_eq!(version_behind(&world, "shop-preview").await, "v2");
    load.assert_share("v1", 100.0).await;

    shop.say("Promote").await;
    let status = shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    assert_eq!(shop.sizes().await.len(), 2, "the previous pods are kept warm");
    assert!(status.previous.is_some());

    let asked = Instant::now();
    shop.say("Undo").await;
    shop.reaches("the traffic back on v1", |status| {
        status.phase == Phase::RollingBack && status.weights.unwrap_or_default().observed.stable == 100
    })
    .await;
    note(format!("undone in {:.1} s", asked.elapsed().as_secs_f64()));
    let status = shop.phase(Phase::RolledBack).await;
    assert_eq!(status.reason, "Undone");
    assert!(status.failed_revisions.last().unwrap().latched, "the undone revision does not come back by itself");
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn switch_by_itself(world: World) {
    let shop = world.shop("{strategy: {blueGreen: {}}}").await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let status = shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    shop.reaches("v1's pods gone after scaleDownDelay", |status| {
        status.draining.is_empty() && status.previous.as_ref().is_some_and(|previous| previous.replicas == 0)
    })
    .await;
    assert_eq!(shop.sizes().await, [(status.stable.unwrap().revision, 2)]);
    load.assert_no_failed_requests().await;
}
