//! The spec changes while a release is on its way, and after one has failed.

use kube::api::{Patch, PatchParams};
use servicerelease::api::{Phase, ServiceRelease};

use crate::{
    harness::{Scenario, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    superseded_in_the_middle, Together, Any;
    back_to_stable_in_the_middle, Together, Any;
    a_failed_revision_stays_down, Together, Any;
    scaled_in_the_middle, Together, Any;
};

const CANARY: &str = "{replicas: 4, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}";

async fn superseded_in_the_middle(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let second = shop.step("3/4 pause", Phase::Paused).await;
    shop.release("v3", &[]).await;
    shop.reaches("the candidate going back", |status| status.reason == "Superseded").await;
    let third = shop.step("3/4 pause", Phase::Paused).await;
    assert_eq!(third.release.unwrap().number, second.release.unwrap().number + 1);
    load.assert_share("v3", 50.0).await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_share("v3", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn back_to_stable_in_the_middle(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    let first = shop.status().await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    shop.release("v1", &[]).await;
    let status = shop.healthy().await;
    assert_eq!(status.stable.unwrap().revision, first.stable.unwrap().revision);
    assert!(status.failed_revisions.is_empty(), "nothing failed: {:?}", status.failed_revisions);
    assert!(status.timeline.iter().any(|entry| entry.kind == "Superseded"), "{:?}", status.timeline);
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn a_failed_revision_stays_down(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    shop.say("Abort").await;
    let failed = shop.phase(Phase::RolledBack).await.release.unwrap().number;

    // Scaling and other fields are no reason to try again.
    shop.patch("{spec: {replicas: 3, minReadySeconds: 1}}").await;
    shop.reaches("scaled", |status| status.stable.as_ref().is_some_and(|stable| stable.available_replicas == 3)).await;
    shop.always("still rolled back", |status| status.phase == Phase::RolledBack && status.candidate.is_none());

    // A new token is, and so is a change away and back.
    shop.patch("{spec: {retryToken: again}}").await;
    let status = shop.step("3/4 pause", Phase::Paused).await;
    assert_eq!(status.release.unwrap().number, failed + 1);
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    shop.release("v1", &[]).await;
    shop.healthy().await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

/// As an autoscaler does: through /scale, up and down, at 50%.
async fn scaled_in_the_middle(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    for (replicas, each) in [(6, 3), (2, 1)] {
        let change = Patch::Merge(serde_json::json!({ "spec": { "replicas": replicas } }));
        let scale = world.api::<ServiceRelease>().patch_scale("shop", &PatchParams::default(), &change).await.unwrap();
        assert_eq!(scale.spec.unwrap().replicas, Some(replicas));
        shop.reaches(&format!("{each} of each"), |status| {
            let pods = [&status.stable, &status.candidate].map(|one| one.as_ref().map(|one| one.available_replicas));
            pods == [Some(each), Some(each)]
        })
        .await;
        load.assert_share("v2", 50.0).await;
        let scale = world.api::<ServiceRelease>().get_scale("shop").await.unwrap();
        assert!(scale.status.unwrap().selector.is_some_and(|selector| selector.contains("app=shop")));
    }
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_no_failed_requests().await;
}
