//! More that changes while a release is on its way: pods of the superseded revision are gone before the
//! next has any, an edited strategy is for the next release, and a template that failed goes forward
//! again only when somebody says so, or mends it.

use serde_json::json;
use servicerelease::api::{Phase, ServiceReleaseStatus};

use crate::{
    harness::{Scenario, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    superseded_in_motion, Together, Any;
    strategy_edited_in_the_middle, Together, Any;
    failed_template_until_it_is_mended, Together, Any;
};

const CANARY: &str = "{replicas: 4, minReadySeconds: 3, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}";

/// The revision that is on its way.
fn candidate(status: &ServiceReleaseStatus) -> Option<&str> {
    status.candidate.as_ref().map(|candidate| candidate.revision.as_str())
}

async fn superseded_in_motion(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let second = shop.step("2/4 setWeight 50", Phase::Progressing).await;
    let second = candidate(&second).unwrap().to_owned();
    shop.release("v3", &[]).await;
    let other = |status: &ServiceReleaseStatus| candidate(status).is_some_and(|revision| revision != second);
    shop.reaches("v3 on its way", other).await;
    let sizes = shop.sizes().await;
    assert!(sizes.iter().all(|(revision, _)| *revision != second), "v2 goes first: {sizes:?}");

    // And back to what serves, while v3's pods are on their way: that is no release.
    let third = shop.step("2/4 setWeight 50", Phase::Progressing).await;
    shop.release("v1", &[]).await;
    let status = shop.healthy().await;
    let number = third.release.unwrap().number;
    assert_eq!(status.release.as_ref().unwrap().number, number, "no release of its own");
    assert_eq!(status.stable.as_ref().unwrap().release, 1);
    assert_eq!(shop.sizes().await, [(status.stable.unwrap().revision, 4)], "only stable has pods");
    load.assert_share("v1", 100.0).await;

    shop.release("v3", &[]).await;
    let status = shop.step("3/4 pause", Phase::Paused).await;
    assert_eq!(status.release.unwrap().number, number + 1);
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_share("v3", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn strategy_edited_in_the_middle(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;

    // With the steps edited, the release under way keeps its own.
    shop.patch("{spec: {strategy: {canary: {steps: [{setWeight: 25}, {approval: {}}]}}}}").await;
    let status = shop.step("3/4 pause", Phase::Paused).await;
    assert!(status.message.contains("edited meanwhile, which counts from the next release on"), "{}", status.message);
    load.assert_share("v2", 50.0).await;
    shop.say("Promote").await;
    shop.healthy().await;
    shop.always("never at the new strategy's approval", |status| status.phase != Phase::AwaitingApproval);

    shop.release("v3", &[]).await;
    shop.step("3/4 approval", Phase::AwaitingApproval).await;
    load.assert_share("v3", 25.0).await;
    shop.say("Approve").await;
    shop.healthy().await;
    load.assert_no_failed_requests().await;
}

async fn failed_template_until_it_is_mended(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.change_container("image", json!("Not An Image")).await;
    let failed = shop.phase(Phase::RolledBack).await;
    let first = failed.release.unwrap().number;

    shop.patch("{spec: {replicas: 2}}").await;
    let scaled = |status: &ServiceReleaseStatus| status.stable.as_ref().is_some_and(|stable| stable.replicas == 2);
    shop.reaches("scaled", scaled).await;
    load.more_requests(300).await;
    let status = shop.status().await;
    assert_eq!((status.phase, status.release.unwrap().number), (Phase::RolledBack, first), "no fresh attempt");

    let again = |number: i64| {
        move |status: &ServiceReleaseStatus| {
            let tried = status.release.as_ref().is_some_and(|release| release.number == number);
            tried && status.phase == Phase::RolledBack
        }
    };
    shop.say("Retry").await;
    shop.reaches("failed again after Retry", again(first + 1)).await;
    shop.patch("{spec: {retryToken: again}}").await;
    let status = shop.reaches("failed again after a new token", again(first + 2)).await;
    assert_eq!(status.reason, "InvalidImageName");
    assert_eq!(load.report().await.by_version.keys().collect::<Vec<_>>(), ["v1"]);

    let mended = [("APP_VERSION", "v2")].map(|(name, value)| json!({ "name": name, "value": value }));
    let container = json!([{ "name": "app", "image": world.cluster.testapp, "imagePullPolicy": "IfNotPresent",
        "args": ["serve"], "ports": [{ "name": "http", "containerPort": 8080 }], "env": mended,
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "http" }, "periodSeconds": 1 } }]);
    shop.patch(&json!({ "spec": { "template": { "spec": { "containers": container } } } }).to_string()).await;
    let status = shop.step("3/4 pause", Phase::Paused).await;
    assert_eq!(status.release.unwrap().number, first + 3);
    load.assert_share("v2", 50.0).await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}
