//! The same by hand through `kubectl srel`: its commands are answered, its exit codes tell a pipeline
//! how a release ended.

use servicerelease::api::Phase;

use crate::{
    harness::{Scenario, World, kubectl},
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

/// `kubectl srel -n NAMESPACE WORDS`; the exit code and what it printed.
async fn srel(world: &World, words: &str) -> kubectl::Answer {
    let words: Vec<&str> = ["-n", world.namespace.as_str()].into_iter().chain(words.split_whitespace()).collect();
    kubectl::run(env!("CARGO_BIN_EXE_kubectl-srel"), &words).await
}

async fn led_by_the_plugin(world: World) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    // Asked right after the change: the old revision's Healthy is no answer.
    let waiting = srel(&world, "status shop --no-wait-for-person --timeout 60s").await;
    assert_eq!(waiting.code, 5, "it waits for a person: {}", waiting.text);
    shop.step("3/5 pause", Phase::Paused).await;

    srel(&world, "pause shop --reason lunch").await.expect_success();
    assert_eq!(srel(&world, "promote shop").await.code, 7, "refused while it is paused");
    srel(&world, "resume shop").await.expect_success();
    srel(&world, "promote shop").await.expect_success();
    shop.step("4/5 approval", Phase::AwaitingApproval).await;
    let tree = srel(&world, "get shop").await.expect_success();
    assert!(tree.contains("4/5") && tree.contains("shop-"), "step and pods: {tree}");
    srel(&world, "approve shop").await.expect_success();
    srel(&world, "status shop --timeout 60s").await.expect_success();
    load.assert_share("v2", 100.0).await;

    srel(&world, "undo shop").await.expect_success();
    assert_eq!(srel(&world, "status shop --timeout 60s").await.code, 2, "RolledBack");
    load.assert_share("v1", 100.0).await;
    srel(&world, "retry shop").await.expect_success();
    shop.step("3/5 pause", Phase::Paused).await;
    srel(&world, "abort shop").await.expect_success();
    shop.phase(Phase::RolledBack).await;
    let history = srel(&world, "history shop").await.expect_success();
    assert!(history.contains("Abort"), "{history}");
    load.assert_no_failed_requests().await;
}
