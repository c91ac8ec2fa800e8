//! A canary that people lead: Pause, Resume, Promote and Approve pass its steps one by one, Abort takes
//! it back from each of them, and commands that come late or mean something else are refused.

use servicerelease::api::Phase;

use crate::{
    harness::{Scenario, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    led_through_every_step, Together, Any;
    aborted_at_every_step, Together, Any;
    held_by_the_spec, Together, Any;
};

// Steps 1 to 7: prepare, setWeight 25, pause, approval, setWeight 50, pause, promote.
const STEPS: &str = "
replicas: 4
strategy:
  canary:
    steps:
    - setWeight: 25
    - pause: {}
    - approval: {}
    - setWeight: 50
    - pause: {}
";

async fn led_through_every_step(world: World) {
    let shop = world.shop(STEPS).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;

    let status = shop.step("3/7 pause", Phase::Paused).await;
    assert!(status.next_action.contains("kubectl srel"), "{}", status.next_action);
    load.assert_share("v2", 25.0).await;
    assert!(shop.refused("Approve", "").await.contains("does not wait for an approval"));
    assert!(shop.refused("Promote", "{revision: other}").await.contains("meant for revision other"));
    assert!(shop.refused("Promote", "{step: 2}").await.contains("meant for step 2"));
    shop.say("Pause").await;
    shop.reaches("paused by the command", |status| status.reason == "PausedByCommand").await;
    assert!(shop.refused("Promote", "").await.contains("Resume first"));
    shop.say("Resume").await;
    shop.reaches("back in the pause step", |status| status.reason == "PauseStep").await;
    shop.say("Promote").await;

    let status = shop.step("4/7 approval", Phase::AwaitingApproval).await;
    assert!(status.next_action.contains("approve"), "{}", status.next_action);
    assert!(shop.refused("Promote", "").await.contains("waits for Approve"));
    assert!(shop.refused("Skip", "").await.contains("Approve only"));
    assert!(shop.refused("Promote", "{step: 3}").await.contains("at step 4"), "a late duplicate");
    shop.say("Approve").await;

    shop.step("6/7 pause", Phase::Paused).await;
    load.assert_share("v2", 50.0).await;
    shop.say("Resume").await;
    shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    assert!(shop.refused("Abort", "").await.contains("no release is under way"));
    load.assert_no_failed_requests().await;
}

async fn aborted_at_every_step(world: World) {
    let shop = world.shop(STEPS).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    for place in ["1/7 prepare", "3/7 pause", "4/7 approval", "6/7 pause"] {
        shop.reaches("on its way", |status| status.step.is_some()).await;
        lead_to(&shop, place).await;
        shop.say("Abort").await;
        let status = shop.phase(Phase::RolledBack).await;
        assert_eq!(status.reason, "Aborted");
        assert_eq!(shop.sizes().await, [(status.stable.unwrap().revision, 4)], "only stable has pods");
        load.assert_share("v1", 100.0).await;
        shop.say("Retry").await;
    }
    shop.step("3/7 pause", Phase::Paused).await;
    let promoted = shop.command("Promote", "{full: true}").await;
    assert!(promoted.message.contains("goes on"), "{promoted:?}");
    shop.step("4/7 approval", Phase::AwaitingApproval).await;
    shop.say("Approve").await;
    shop.healthy().await;
    load.assert_no_failed_requests().await;
}

/// Passes steps until the one of this summary is under way.
async fn lead_to(shop: &crate::harness::Shop, place: &str) {
    if place == "1/7 prepare" {
        return;
    }
    shop.step("3/7 pause", Phase::Paused).await;
    if place != "3/7 pause" {
        shop.say("Promote").await;
        shop.step("4/7 approval", Phase::AwaitingApproval).await;
    }
    if place == "6/7 pause" {
        shop.say("Approve").await;
        shop.step("6/7 pause", Phase::Paused).await;
    }
}

async fn held_by_the_spec(world: World) {
    let shop = world.shop(STEPS).await;
    let load = world.load().await;
    shop.patch("{spec: {paused: true}}").await;
    shop.release("v2", &[]).await;
    let status = shop.reaches("held by the spec", |status| status.reason == "SpecPaused").await;
    assert_eq!(status.phase, Phase::Paused);
    assert_eq!(shop.sizes().await.len(), 1, "no pod of the new template");
    shop.patch("{spec: {paused: false}}").await;
    shop.step("3/7 pause", Phase::Paused).await;
    shop.patch("{spec: {paused: true}}").await;
    shop.reaches("held by the spec again", |status| status.reason == "SpecPaused").await;
    assert!(shop.refused("Resume", "").await.contains("spec.paused is set"));
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_no_failed_requests().await;
}
