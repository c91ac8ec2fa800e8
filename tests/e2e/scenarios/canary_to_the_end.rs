//! A canary goes to its end by itself: 25%, 50%, all. The client sees the shares, and no failure;
//! `kubectl wait`, asked right after the change, does not take the old revision's Ready for the new.

use servicerelease::api::Phase;

use crate::{
    harness::{Scenario, World, shop::is},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    canary_to_the_end, Together, Any;
    canary_of_one_pod, Together, Any;
};

async fn canary_to_the_end(world: World) {
    let shop = world
        .shop(
            "
            replicas: 4
            strategy:
              canary:
                steps:
                - setWeight: 25
                - pause: {duration: 12s}
                - setWeight: 50
                - pause: {duration: 12s}
            ",
        )
        .await;
    let load = world.load().await;

    shop.release("v2", &[]).await;
    let waiting = tokio::spawn({
        let world = world.clone();
        async move { world.kubectl("wait servicerelease/shop --for=condition=Ready --timeout=120s").await }
    });
    shop.step("3/6 pause", Phase::Progressing).await;
    load.assert_share("v2", 25.0).await;
    assert!(!waiting.is_finished(), "kubectl wait took the old revision's Ready for the new one's");
    let status = shop.status().await;
    assert_eq!(status.weights.unwrap().observed.candidate, 25, "{status:?}");
    shop.step("5/6 pause", Phase::Progressing).await;
    load.assert_share("v2", 50.0).await;
    shop.step("6/6 promote", Phase::Promoting).await;
    let status = shop.healthy().await;
    waiting.await.unwrap().expect_success();

    assert_eq!(status.stable.as_ref().unwrap().release, 2);
    assert_eq!(status.weights.unwrap().observed.stable, 100);
    load.assert_share("v2", 100.0).await;
    shop.always("Ready only when the release is over", |status| !is(status, "Ready") || status.candidate.is_none());
    load.assert_no_failed_requests().await;
}

async fn canary_of_one_pod(world: World) {
    let shop = world.shop("{replicas: 1, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}").await;
    let load = world.load().await;

    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    load.assert_share("v2", 50.0).await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}
