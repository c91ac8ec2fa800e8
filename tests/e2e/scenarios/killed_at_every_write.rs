//! The operator is killed (-9) before every write of a release, after every write, or hears of none of
//! them; each time a fresh process goes on from what it finds. A release goes through, another is taken
//! back, and nobody who calls the service notices.

use servicerelease::api::{CheckOutcome, Phase};

use crate::{
    harness::{Load, Scenario, Shop, World, note, own::OwnOperator, proxy::Harm},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    killed_before_every_write, OwnOperator, Any;
    killed_after_every_write, OwnOperator, Any;
    answer_to_every_write_lost, OwnOperator, Any;
    killed_before_every_write_over_a_gateway, OwnOperator, Gateway;
    killed_after_every_write_over_a_gateway, OwnOperator, Gateway;
};

async fn killed_before_every_write(world: World) {
    released_in_spite_of(world, Harm::KillBefore).await;
}

async fn killed_after_every_write(world: World) {
    released_in_spite_of(world, Harm::KillAfter).await;
}

async fn answer_to_every_write_lost(world: World) {
    released_in_spite_of(world, Harm::LoseAnswer).await;
}

async fn killed_before_every_write_over_a_gateway(world: World) {
    shifted_in_spite_of(world, Harm::KillBefore).await;
}

async fn killed_after_every_write_over_a_gateway(world: World) {
    shifted_in_spite_of(world, Harm::KillAfter).await;
}

const SPEC: &str = "{replicas: 2, strategy: {canary: {steps: [{setWeight: 50}, {pause: {duration: 2s}}]}}}";

/// The same, once a Job has run beside it.
fn with_job() -> String {
    let pod = "{name: smoke, image: TESTAPP_IMAGE, imagePullPolicy: IfNotPresent, args: [--version]}";
    let check = format!("{{name: smoke, job: {{template: {{spec: {{containers: [{pod}]}}}}}}}}");
    SPEC.replacen('{', &format!("{{checks: [{check}], "), 1)
}

async fn released_in_spite_of(world: World, harm: Harm) {
    let operator = OwnOperator::start(&world, harm).await;
    let shop = world.shop(&with_job()).await;
    let load = world.load().await;
    released_and_taken_back(&world, &shop, &load, &operator).await;
}

async fn shifted_in_spite_of(world: World, harm: Harm) {
    let operator = OwnOperator::start(&world, harm).await;
    let shop = world.routed_shop("GATEWAY", SPEC).await;
    let load = world.load_through_gateway().await;
    released_and_taken_back(&world, &shop, &load, &operator).await;
}

async fn released_and_taken_back(world: &World, shop: &Shop, load: &Load, operator: &OwnOperator) {
    shop.release("v2", &[]).await;
    let status = shop.healthy().await;
    assert_eq!(status.release.as_ref().unwrap().number, 2, "one release, however often it was begun");
    let promoted = status.timeline.iter().filter(|entry| entry.kind == "Promoted").count();
    assert_eq!(promoted, 2, "each promoted once: {:?}", status.timeline);
    load.assert_share("v2", 100.0).await;
    if let Some(check) = status.checks.first() {
        assert_eq!((check.outcome, check.attempts), (CheckOutcome::Passed, 1), "{check:?}");
        let jobs = world.kubectl("get jobs -o name").await.expect_success();
        assert_eq!(jobs.lines().count(), 1, "one Job, however often it was made: {jobs}");
    }

    shop.patch("{spec: {progressDeadlineSeconds: 6}}").await;
    shop.release("v3", &[("NEVER_READY", "true")]).await;
    let status = shop.phase(Phase::RolledBack).await;
    assert_eq!(status.release.unwrap().number, 3);
    load.assert_share("v2", 100.0).await;

    operator.assert_running().await;
    let harmed = operator.proxy.harmed();
    assert!(harmed > 30, "only {harmed} writes were harmed");
    note(format!("{harmed} times harmed"));
    load.assert_no_failed_requests().await;
}
