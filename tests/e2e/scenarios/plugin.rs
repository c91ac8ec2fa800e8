//! The same by hand through `kubectl srel`: its commands are answered, its exit codes tell a pipeline
//! how a release ended.

use servicerelease::api::Phase;

use crate::{
    harness::{Scenario, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    led_by_the_plugin, Together, Any;
};

const CANARY: &str = "
replicas: 2
strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}, {approval: {}}]}}
rollback: {keepPrevious: 5m}
";

async fn led_by_the_plugin(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    // Asked right after the change: the old revision's Healthy is no answer.
    let waiting = world.srel("status shop --no-wait-for-person --timeout 60s").await;
    assert_eq!(waiting.code, 5, "it waits for a person: {}", waiting.text);
    shop.step("3/5 pause", Phase::Paused).await;

    world.srel("pause shop --reason lunch").await.expect_success();
    assert_eq!(world.srel("promote shop").await.code, 7, "refused while it is paused");
    world.srel("resume shop").await.expect_success();
    world.srel("promote shop").await.expect_success();
    shop.step("4/5 approval", Phase::AwaitingApproval).await;
    let tree = world.srel("get shop").await.expect_success();
    assert!(tree.contains("4/5") && tree.contains("shop-"), "step and pods: {tree}");
    world.srel("approve shop").await.expect_success();
    world.srel("status shop --timeout 60s").await.expect_success();
    load.assert_share("v2", 100.0).await;

    world.srel("undo shop").await.expect_success();
    assert_eq!(world.srel("status shop --timeout 60s").await.code, 2, "RolledBack");
    load.assert_share("v1", 100.0).await;
    world.srel("retry shop").await.expect_success();
    shop.step("3/5 pause", Phase::Paused).await;
    world.srel("abort shop").await.expect_success();
    shop.phase(Phase::RolledBack).await;
    let history = world.srel("history shop").await.expect_success();
    assert!(history.contains("Abort"), "{history}");
    load.assert_no_failed_requests().await;
}
