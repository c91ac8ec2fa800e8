//! Commands at the edges of a step: an Abort while pods are on their way, a Pause that holds a step in
//! motion, Promote that ends a timed pause, and commands that come a second time.

use std::time::Duration;

use servicerelease::api::{Phase, ServiceReleaseStatus};

use crate::{
    harness::{Scenario, Shop, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    aborted_in_motion, Together, Any;
    paused_in_motion, Together, Any;
    promoted_past_every_pause, Together, Any;
    said_twice, Together, Any;
};

// Steps 1 to 7: prepare, setWeight 25, pause, approval, setWeight 50, pause, promote. Pods become
// available late, so that a command finds the steps with new pods under way.
const STEPS: &str = "
replicas: 4
minReadySeconds: 4
strategy:
  canary:
    steps:
    - setWeight: 25
    - pause: {}
    - approval: {}
    - setWeight: 50
    - pause: {duration: 60s}
";

/// Shorter than the timed pause: who gets there within it did not wait for its end.
const SOON: Duration = Duration::from_secs(45);

fn at(status: &ServiceReleaseStatus, summary: &str) -> bool {
    status.step.as_ref().is_some_and(|step| step.summary == summary)
}

/// Passes pause and approval, up to the second half.
async fn to_the_second_half(shop: &Shop) {
    shop.step("3/7 pause", Phase::Paused).await;
    shop.say("Promote").await;
    shop.step("4/7 approval", Phase::AwaitingApproval).await;
    shop.say("Approve").await;
    shop.step("5/7 setWeight 50", Phase::Progressing).await;
}

async fn aborted_in_motion(world: World) {
    let shop = world.shop(STEPS).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    for place in ["1/7 prepare", "2/7 setWeight 25", "5/7 setWeight 50", "6/7 pause", "7/7 promote"] {
        match place {
            "7/7 promote" => {
                to_the_second_half(&shop).await;
                shop.step(place, Phase::Promoting).await;
            }
            "5/7 setWeight 50" => to_the_second_half(&shop).await,
            "6/7 pause" => {
                to_the_second_half(&shop).await;
                shop.step(place, Phase::Progressing).await;
            }
            _ => {
                shop.step(place, Phase::Progressing).await;
            }
        }
        shop.say("Abort").await;
        let status = shop.phase(Phase::RolledBack).await;
        assert_eq!(status.reason, "Aborted");
        let stable = status.stable.unwrap();
        assert_eq!(stable.available_replicas, 4, "at {place}: {stable:?}");
        assert_eq!(shop.sizes().await, [(stable.revision, 4)], "at {place}: only stable has pods");
        assert!(shop.refused("Abort", "").await.contains("no release is under way"));
        load.assert_share("v1", 100.0).await;
        shop.say("Retry").await;
    }
    load.assert_no_failed_requests().await;
}

async fn paused_in_motion(world: World) {
    let shop = world.shop(STEPS).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    shop.step("1/7 prepare", Phase::Progressing).await;
    shop.say("Pause").await;
    let paused = shop.step("1/7 prepare", Phase::Paused).await;
    assert_eq!(paused.reason, "PausedByCommand");
    let sizes = shop.sizes().await;
    assert!(shop.refused("Pause", "").await.contains("already"));
    load.assert_share("v1", 100.0).await;
    assert_eq!(shop.sizes().await, sizes, "nothing moves while it is paused");
    shop.say("Resume").await;

    to_the_second_half(&shop).await;
    shop.say("Pause").await;
    let paused = shop.step("5/7 setWeight 50", Phase::Paused).await;
    let (weight, sizes) = (paused.weights.unwrap().desired, shop.sizes().await);
    load.more_requests(600).await;
    let status = shop.status().await;
    assert_eq!(shop.sizes().await, sizes, "nothing moves while it is paused");
    assert!(at(&status, "5/7 setWeight 50"), "{:?}", status.step);
    assert_eq!(status.weights.unwrap().desired, weight, "nothing moves while it is paused");
    assert!(shop.refused("Promote", "").await.contains("Resume first"));
    shop.say("Resume").await;
    shop.step("6/7 pause", Phase::Progressing).await;
    load.assert_share("v2", 50.0).await;
    shop.say("Promote").await;
    shop.reaches_within(SOON, "Healthy, before the pause would have ended", |status| status.phase == Phase::Healthy)
        .await;
    load.assert_no_failed_requests().await;
}

async fn promoted_past_every_pause(world: World) {
    let shop = world.shop(STEPS).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    shop.step("1/7 prepare", Phase::Progressing).await;
    let promoted = shop.command("Promote", "{full: true}").await;
    assert!(promoted.message.contains("all pauses"), "{promoted:?}");
    // Not the approval: nobody but Approve passes that.
    shop.step("4/7 approval", Phase::AwaitingApproval).await;
    assert!(shop.refused("Promote", "").await.contains("waits for Approve"));
    shop.command("Promote", "{full: true}").await;
    load.more_requests(300).await;
    assert_eq!(shop.status().await.phase, Phase::AwaitingApproval);
    shop.say("Approve").await;
    shop.reaches_within(SOON, "Healthy, before the pause would have ended", |status| status.phase == Phase::Healthy)
        .await;
    shop.always("not paused", |status| status.phase != Phase::Paused);
    load.assert_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn said_twice(world: World) {
    let shop = world.shop(STEPS).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let status = shop.step("3/7 pause", Phase::Paused).await;
    let candidate = status.candidate.unwrap().revision;
    let promote = |step: i32| {
        format!(
            "
            apiVersion: servicerelease.io/v1alpha1
            kind: ReleaseCommand
            metadata: {{name: go-on}}
            spec: {{release: shop, action: Promote, revision: {candidate}, step: {step}}}
            "
        )
    };
    world.create(&promote(3)).await;
    decided(&world, "Applied").await;
    shop.step("4/7 approval", Phase::AwaitingApproval).await;
    shop.say("Approve").await;
    shop.step("6/7 pause", Phase::Progressing).await;

    // A late duplicate means a step that is over, and the same again under its name was said already.
    assert!(shop.refused("Promote", "{step: 3}").await.contains("meant for step 3"));
    world.kubectl("delete releasecommand go-on").await.expect_success();
    world.create(&promote(6)).await;
    let why = decided(&world, "Rejected").await;
    assert!(why.contains("go-on") && why.contains("new name"), "{why}");
    assert!(shop.refused("Promote", "{revision: other}").await.contains("meant for revision other"));
    assert!(at(&shop.status().await, "6/7 pause"), "nothing of this passed the pause");

    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

/// Waits for what becomes of the command `go-on`, and returns why.
async fn decided(world: &World, phase: &str) -> String {
    let words = format!("wait releasecommand/go-on --for=jsonpath={{.status.phase}}={phase} --timeout=30s");
    world.kubectl(&words).await.expect_success();
    world.kubectl("get releasecommand/go-on -o jsonpath={.status.message}").await.expect_success()
}
