//! After the promotion: nobody serves any more.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    checked::with_checks,
    observed::{Touch, blue_green, drain, kinds, lose_readiness, observed_beside, seconds},
    world::{World, right},
};
use crate::{
    api::{CheckOutcome, Duration, OnFailure, Phase},
    engine::{JobEnd, Pod},
};

/// No pod of v2 is ready any more, by its probe.
fn none_is_ready(image: &str, pod: &mut Pod) {
    if image == "v2" {
        lose_readiness(pod);
    }
}

#[rstest]
#[case::without_pods_of_the_previous(None, none_is_ready)]
#[case::with_some_that_are_ready(Some("30m"), |image: &str, pod: &mut Pod| if image == "v2" || pod.name.ends_with("-1") {
    lose_readiness(pod);
})]
fn where_nobody_tells_whose_fault_it_is_lost_readiness_goes_back_after_a_minute(
    #[case] kept: Option<&str>,
    #[case] touch: Touch,
) {
    let mut world = observed_beside(blue_green(), kept);
    drain(&mut world);
    assert_eq!(world.pods("v1"), if kept.is_some() { 3 } else { 0 });
    world.touch = touch;
    world.settle();
    world.wait(59);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "PodsUnavailable"), "{}", status.message);
    let told = "0 of 3 pods are available; pod ";
    assert!(status.message.contains(told) && status.message.contains(": NotReady: no pod "), "{}", status.message);
    assert_eq!(world.pass().wake, Some(world.now.plus(Duration::from_secs(1))));
    world.wait(1);
    // Their pods come first.
    for _ in 0..3 {
        world.pass();
    }
    assert_eq!((world.phase(), world.pods("v1"), world.pods("v2")), (Phase::RollingBack, 3, 3));
    world.touch = |_, _| {};
    drain(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "NotReady"), "{}", status.message);
    assert_eq!((world.stable().as_str(), world.pods("v1"), world.pods("v2")), ("v1", 3, 0));
}

#[test]
fn readiness_that_comes_back_within_a_minute_takes_nothing_back() {
    let mut world = observed_beside(blue_green(), None);
    drain(&mut world);
    for _ in 0..3 {
        world.touch = none_is_ready;
        world.settle();
        world.wait(45);
        world.settle();
        world.touch = |_, _| {};
        world.settle();
        world.wait(5);
    }
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Observing, "v2"), "{}", status.message);
    assert_eq!(status.stable.unwrap().problem, None);
}

#[test]
fn an_observation_does_not_end_while_nobody_is_ready() {
    let mut world = observed_beside(blue_green(), None);
    drain(&mut world);
    let until = world.status().observation.unwrap().until;
    world.now = until.minus(Duration::from_secs(20));
    world.touch = none_is_ready;
    seconds(&mut world, 55);
    assert_eq!((world.phase(), kinds(&world).last().unwrap().as_str()), (Phase::Observing, "Promoted"));
    seconds(&mut world, 10);
    assert_eq!((world.stable().as_str(), world.status().rollback.unwrap().reason.as_str()), ("v1", "NotReady"));
}

#[test]
fn an_observation_at_whose_end_nobody_is_available_is_no_success() {
    let mut world = observed_beside(blue_green(), None);
    world.touch = |image, pod| {
        if image == "v2" {
            (pod.ready, pod.unschedulable) = (false, Some("0/1 nodes".into()));
        }
    };
    seconds(&mut world, 1800);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "PodsUnavailable"), "{}", status.message);
    assert_eq!(kinds(&world), ["Promoted", "Unproven"]);
    seconds(&mut world, 1800);
    let status = world.status();
    assert_eq!((status.phase, status.observation, status.rollback), (Phase::Healthy, None, None), "{}", status.message);
    assert_eq!(kinds(&world), ["Unproven", "Unproven"]);
    world.touch = |_, _| {};
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Healthy, "Unproven"), "{}", status.message);
    assert!(status.message.ends_with(" is available"), "{}", status.message);
}

fn unready(image: &str, pod: &mut Pod) {
    pod.ready = image != "v2";
}

/// v2 observed under a standing probe, and asked so far, with no pods of v1 beside it.
fn probed(http: Value) -> World {
    let mut world = observed_beside(blue_green(), None);
    drain(&mut world);
    let probe =
        json!([{"name": "live", "when": [], "every": "20s", "interval": "5s", "failureThreshold": 2, "http": http}]);
    world.edit(|spec| spec.checks = serde_json::from_value(probe).unwrap());
    world.seen.plans.last_mut().unwrap().spec.checks = world.release.spec.checks.clone();
    world.settle();
    let (at, took) = (world.now, 1_000);
    let end = JobEnd { succeeded: true, at, took, message: String::new(), report: None, image: None };
    world.seen.jobs.iter_mut().for_each(|job| job.end = Some(end.clone()));
    world.settle();
    world
}

#[rstest]
#[case::of_the_operator(json!({}))]
#[case::of_a_job(json!({"headers": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}))]
#[case::of_the_service(json!({"target": "Service"}))]
fn after_the_promotion_nobody_to_ask_is_a_wrong_answer_in_each_interval(#[case] http: Value) {
    let mut world = probed(http);
    world.touch = unready;
    let mut told = Vec::new();
    for _ in 0..12 {
        seconds(&mut world, 5);
        let status = world.status();
        let probe = status.checks.iter().find(|check| check.name == "live").unwrap();
        told.push((probe.wrong, status.rollback.map(|rollback| (rollback.reason, rollback.message))));
        if world.stable() == "v1" {
            break;
        }
    }
    let (wrong, back) = told.pop().unwrap();
    let (reason, message) = back.unwrap();
    assert_eq!((wrong, told.last().unwrap().0, reason.as_str()), (2, 1, "CheckFailed"), "{message}");
    let words = "there is nobody to ask: no ready pod, or none with this port (not asked)";
    assert!(message.starts_with("check live failed: ") && message.ends_with(words), "{message}");
}

#[test]
fn a_moment_without_a_ready_pod_is_no_wrong_answer() {
    let mut world = probed(json!({}));
    world.reply = |_| None;
    seconds(&mut world, 20);
    world.touch = unready;
    world.settle();
    world.touch = |_, _| {};
    world.reply = |_| Some(right());
    seconds(&mut world, 60);
    let status = world.status();
    assert_eq!((status.phase, status.checks[0].wrong), (Phase::Observing, 0), "{:?}", status.checks);
}

#[test]
fn before_traffic_a_check_waits_for_somebody_to_ask() {
    let mut world = with_checks(json!([{"name": "health", "interval": "5s", "http": {}}]));
    world.reply = |_| None;
    world.set_image("v2");
    world.settle();
    world.touch = unready;
    seconds(&mut world, 60);
    let state = world.status().checks[0].clone();
    assert_eq!((state.outcome, state.wrong), (CheckOutcome::Running, 0), "{}", state.message);
    assert!(state.message.starts_with("there is nobody to ask"), "{}", state.message);
    world.touch = |_, _| {};
    world.reply = |_| Some(right());
    seconds(&mut world, 20);
    assert_eq!(world.status().checks[0].outcome, CheckOutcome::Passed);
}

#[test]
fn a_probe_that_never_answers_and_is_to_be_ignored_is_asked_on() {
    let mut world = probed(json!({}));
    world.seen.plans.last_mut().unwrap().spec.checks[0].on_failure = OnFailure::Ignore;
    world.reply = |_| None;
    seconds(&mut world, 700);
    let begun = |world: &World| world.status().checks[0].started_at;
    let (state, first) = (world.status().checks[0].clone(), begun(&world));
    assert_eq!((state.outcome, state.before), (CheckOutcome::Running, Some(CheckOutcome::Failed)), "{}", state.message);
    assert!(world.now.since(first) < Duration::from_secs(200), "it failed, and was begun anew");
    world.reply = |_| Some(right());
    seconds(&mut world, 30);
    assert!(begun(&world) > first && world.status().checks[0].outcome == CheckOutcome::Passed);
}
