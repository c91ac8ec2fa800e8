//! Containers that are started again now and then, without a back-off.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{minutes, weight, with_metric},
    observed::{blue_green, drain, observed_beside},
    world::World,
};
use crate::{
    api::Phase,
    engine::{Ended, Pod, Reply},
};

/// A container of v2 runs, and was started again so often.
fn restarted(image: &str, pod: &mut Pod, restarts: i32) {
    if image == "v2" && pod.name.ends_with("-0") {
        pod.containers[0].restarts = restarts;
        let ended = Ended { reason: "Error".into(), exit_code: 3, signal: None, at: None };
        pod.containers[0].ended = Some(ended);
    }
}

/// v2 at 50% in a pause, beside v1, with this metric.
fn paused(metric: Value) -> World {
    let mut world = with_metric(metric);
    world.reply = |_| Some(Reply::Value(0.0));
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!((weight(&world), world.phase()), (50, Phase::Progressing), "{}", world.status().message);
    world
}

fn of_workload(more: &Value) -> Value {
    let mut metric = json!({"name": "pods", "workload": {"maxRestarts": 5}});
    metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    metric
}

#[rstest]
#[case::of_another_kind(json!({"name": "a", "prometheus": {"query": "a"}, "threshold": {"max": 1}, "noData": "Ignore"}))]
#[case::from_which_nothing_follows(of_workload(&json!({"dryRun": true})))]
fn the_third_restart_takes_a_candidate_back_whatever_the_metrics(#[case] metric: Value) {
    let mut world = paused(metric);
    world.touch = |image, pod| restarted(image, pod, 2);
    minutes(&mut world, 2);
    assert_eq!((weight(&world), world.phase()), (50, Phase::Progressing), "{}", world.status().message);
    world.touch = |image, pod| restarted(image, pod, 3);
    minutes(&mut world, 2);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "RestartsExceeded"), "{}", status.message);
    let told = ", container app: RestartsExceeded (exit code 3, restarted 3 times)); ";
    assert!(status.message.contains(told), "{}", status.message);
}

#[test]
fn where_a_metric_says_how_many_restarts_there_may_be_that_rules() {
    let mut world = paused(of_workload(&json!({})));
    world.touch = |image, pod| restarted(image, pod, 5);
    minutes(&mut world, 2);
    assert_eq!((weight(&world), world.phase()), (50, Phase::Progressing), "{}", world.status().message);
    world.touch = |image, pod| restarted(image, pod, 6);
    minutes(&mut world, 2);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "AnalysisFailed"), "{}", status.message);
}

/// No metric is judged before the candidate has requests.
#[test]
fn a_metric_that_allows_fewer_restarts_does_not_let_more_pass_before_the_first_requests() {
    let mut world = with_metric(json!({"name": "pods", "workload": {"maxRestarts": 0}}));
    world.edit(|spec| spec.strategy = serde_json::from_value(json!({"blueGreen": {"autoPromote": false}})).unwrap());
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!((weight(&world), world.phase()), (0, Phase::Paused), "{}", world.status().message);
    world.touch = |image, pod| restarted(image, pod, 3);
    minutes(&mut world, 2);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "RestartsExceeded"), "{}", status.message);
}

#[test]
fn the_third_restart_takes_what_is_observed_back() {
    let mut world = observed_beside(blue_green(), None);
    world.touch = |image, pod| restarted(image, pod, 2);
    drain(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v2"), "{}", world.status().message);
    world.touch = |image, pod| restarted(image, pod, 3);
    drain(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "RestartsExceeded"), "{}", status.message);
    assert_eq!(world.stable(), "v1");
}
