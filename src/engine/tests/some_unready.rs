//! How many of the candidate's pods are ready, judged as a metric.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{minutes, verdict, weight, with_metric},
    observed::{blue_green, drain, lose_readiness},
    world::World,
};
use crate::{
    api::{Phase, Timestamp, VerdictOutcome},
    engine::Pod,
};

fn of_readiness(min: &Value, more: &Value) -> Value {
    let mut metric = json!({"name": "pods", "workload": {"minReady": min}});
    metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    metric
}

/// v2 at 50% with two pods, in a pause, under this metric.
fn paused(metric: Value) -> World {
    let mut world = with_metric(metric);
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!((weight(&world), verdict(&world).0), (50, VerdictOutcome::Pass), "{}", verdict(&world).1);
    assert!(verdict(&world).1.starts_with("2 of 2 pods ready (min "), "{}", verdict(&world).1);
    world
}

/// One of two pods of v2 is not ready any more; without a metric that only keeps the next step from beginning.
fn lose_one(world: &mut World) {
    world.touch = |image, pod| {
        if image == "v2" && pod.name.ends_with("-0") {
            lose_readiness(pod);
        }
    };
    world.settle();
}

#[rstest]
#[case::too_few(json!("75%"), Phase::RollingBack, "1 of 2 pods ready (min 75%); pod ")]
#[case::enough(json!("50%"), Phase::Progressing, "1 of 2 pods ready (min 50%); pod ")]
#[case::by_number(json!(2), Phase::RollingBack, "1 of 2 pods ready (min 2); pod ")]
fn a_candidate_with_fewer_ready_pods_than_meant_goes_back_in_the_middle_of_the_pause(
    #[case] min: Value,
    #[case] phase: Phase,
    #[case] told: &str,
) {
    let mut world = paused(of_readiness(&min, &json!({})));
    lose_one(&mut world);
    let status = world.status();
    assert_eq!(weight(&world), if phase == Phase::RollingBack { 0 } else { 50 }, "{}", status.message);
    assert!(verdict(&world).1.starts_with(told), "{}", verdict(&world).1);
    if let Some(rollback) = status.rollback {
        let told = format!("metric pods failed: {told}");
        assert!(rollback.reason == "AnalysisFailed" && rollback.message.starts_with(&told), "{}", rollback.message);
    }
}

#[test]
fn looks_at_pods_that_are_not_ready_count_in_a_row_an_interval_apart() {
    let mut world = paused(of_readiness(&json!("100%"), &json!({"failureThreshold": 3})));
    let is_ready = world.touch;
    lose_one(&mut world);
    let told = |count: i32| format!("1 of 2 pods ready (min 100%); pod {}-0 is not ready, {count} of 3 in a row", "H");
    let shown = |world: &World| verdict(world).1.replace(&world.hash("v2"), "H");
    for (seconds, count) in [(0, 1), (29, 1), (1, 2), (29, 2)] {
        world.wait(seconds);
        world.settle();
        assert_eq!((verdict(&world).0, shown(&world)), (VerdictOutcome::Inconclusive, told(count)));
    }
    // One that is ready in between is a new beginning.
    world.touch = is_ready;
    world.settle();
    assert_eq!(verdict(&world).0, VerdictOutcome::Pass, "{}", verdict(&world).1);
    lose_one(&mut world);
    for seconds in [30, 30] {
        assert_eq!(weight(&world), 50, "{}", world.status().message);
        world.wait(seconds);
        world.settle();
    }
    assert_eq!(world.status().rollback.unwrap().reason, "AnalysisFailed");
}

/// All of v2's pods but one were made a moment ago.
fn starting(image: &str, pod: &mut Pod) {
    if image == "v2" && !pod.name.ends_with("-0") {
        (pod.ready, pod.created) = (false, Some(Timestamp::from_millis(2_000_000_000)));
    }
}

/// Each weight brings pods that are not ready at first, and one is made anew in the pause.
#[test]
fn pods_on_their_way_fail_nobody() {
    let mut world = with_metric(of_readiness(&json!("100%"), &json!({})));
    world.set_image("v2");
    for round in 0..90 {
        let some_start = round % 10 < 5;
        world.touch = if some_start { starting } else { |_, _| {} };
        world.pass();
        world.pass();
        world.wait(10);
    }
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn what_is_observed_goes_back_when_too_few_of_its_pods_are_ready() {
    let mut world = World::healthy(blue_green(), 3);
    world.edit(|spec| {
        let metric = of_readiness(&json!("60%"), &json!({}));
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": [metric]})).unwrap();
        spec.observation = serde_json::from_value(json!({"duration": "30m"})).unwrap();
    });
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!(world.phase(), Phase::Observing, "{}", world.status().message);
    lose_one(&mut world);
    assert_eq!(world.phase(), Phase::Observing, "2 of 3 are enough: {}", world.status().message);
    world.touch = |image, pod| {
        if image == "v2" && !pod.name.ends_with("-2") {
            lose_readiness(pod);
        }
    };
    drain(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::RolledBack, "v1"), "{}", world.status().message);
    assert_eq!(world.status().rollback.unwrap().reason, "AnalysisFailed");
}
