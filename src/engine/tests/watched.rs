//! An observation in which a failure waits for a person, in which metrics are silent at the end, or in which there is
//! nothing to measure.

use rstest::rstest;
use serde_json::{Value, json};

use super::world::{World, right, wrong};
use crate::{
    api::{Action, Duration, Phase},
    engine::{Ended, Pod, Question, Reply},
};

/// v2 promoted over v1 and observed for ten minutes under this metric, with two probes of which the first only tells.
fn observed(metric: &Value) -> World {
    let mut world = World::healthy(json!({"blueGreen": {}}), 2);
    let probe = |name: &str, then: &str| json!({"name": name, "when": ["AfterPromotion"], "every": "20s", "onFailure": then, "http": {}});
    world.edit(|spec| {
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": [metric]})).unwrap();
        spec.observation = serde_json::from_value(json!({"duration": "10m"})).unwrap();
        spec.checks = serde_json::from_value(json!([probe("told", "Hold"), probe("acts", "Rollback")])).unwrap();
    });
    world.reply = well;
    world.set_image("v2");
    seconds(&mut world, 60);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v2"), "{}", world.status().message);
    world
}

fn errors() -> Value {
    json!({"name": "errors", "prometheus": {"query": "errors{pod=~\"{{pods}}\"}"}, "threshold": {"max": 0.05}})
}

fn seconds(world: &mut World, seconds: u64) {
    for _ in 0..seconds / 5 {
        world.settle();
        world.wait(5);
    }
    world.settle();
}

fn about(question: &Question, name: &str) -> bool {
    question.id.split('/').nth(1) == Some(name)
}

/// An answer to each question, which is bad if it is about one of these.
fn answer(question: &Question, bad: &[&str]) -> Option<Reply> {
    let bad = bad.iter().any(|name| about(question, name));
    Some(match (question.id.starts_with("metric/"), bad) {
        (true, bad) => Reply::Value(f64::from(u8::from(bad))),
        (false, true) => wrong(),
        (false, false) => right(),
    })
}

fn well(question: &Question) -> Option<Reply> {
    answer(question, &[])
}

fn one_is_told(question: &Question) -> Option<Reply> {
    answer(question, &["told"])
}

fn crash(image: &str, pod: &mut Pod) {
    if image == "v2" {
        pod.ready = false;
        pod.containers[0].waiting = Some("CrashLoopBackOff".into());
        pod.containers[0].restarts = 3;
        pod.containers[0].ended = Some(Ended { reason: "Error".into(), exit_code: 3, signal: None, at: None });
    }
}

/// One probe fails, and a person is told.
fn held(metric: &Value) -> World {
    let mut world = observed(metric);
    world.reply = one_is_told;
    seconds(&mut world, 60);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    assert!(status.message.contains("check told failed"), "{}", status.message);
    world
}

#[rstest]
#[case::pods("CrashLoopBackOff", |world: &mut World| world.touch = crash)]
#[case::a_metric("AnalysisFailed", |world: &mut World| world.reply = |it| answer(it, &["told", "errors"]))]
#[case::another_probe("CheckFailed", |world: &mut World| world.reply = |it| answer(it, &["told", "acts"]))]
fn beside_a_failure_that_waits_for_a_person_what_goes_back_by_itself_does(
    #[case] reason: &str,
    #[case] happen: fn(&mut World),
) {
    let mut world = held(&errors());
    seconds(&mut world, 120);
    happen(&mut world);
    seconds(&mut world, 120);
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::RolledBack, "v1"), "{}", status.message);
    assert_eq!(status.rollback.unwrap().reason, reason);
}

#[rstest]
#[case::a_probe("CheckFailed", "acts")]
#[case::a_metric("AnalysisFailed", "errors")]
fn while_the_spec_is_invalid_what_is_observed_is_watched_by_the_plan_that_was_pinned(
    #[case] reason: &str,
    #[case] bad: &str,
) {
    let mut world = observed(&errors());
    world.edit(|spec| spec.checks[1].logs = serde_json::from_value(json!({"pattern": "("})).unwrap());
    seconds(&mut world, 120);
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Invalid, "v2"), "{}", status.message);
    let last = status.checks.iter().find(|it| it.name == "acts").and_then(|it| it.answered_at).unwrap();
    assert!(last >= world.now.minus(Duration::from_secs(30)), "not asked since {last}, it is {}", world.now);
    world.reply = if bad == "acts" { |it| answer(it, &["acts"]) } else { |it| answer(it, &["errors"]) };
    seconds(&mut world, 60);
    let status = world.status();
    assert_eq!(world.stable(), "v1", "{}", status.message);
    assert_eq!((status.phase, status.rollback.unwrap().reason.as_str()), (Phase::Invalid, reason));
}

#[test]
fn where_nothing_goes_back_by_itself_a_failure_waits_and_nothing_is_asked() {
    let mut world = observed(&errors());
    world.edit(|spec| spec.rollback.automatic = false);
    world.set_image("v3");
    seconds(&mut world, 60);
    world.reply = |it| answer(it, &["told", "errors"]);
    seconds(&mut world, 60);
    let before = world.status();
    assert_eq!(before.reason, "ObservationFailed", "{}", before.message);
    seconds(&mut world, 120);
    assert_eq!((world.status(), world.pass().questions), (before, vec![]));
}

#[test]
fn a_failure_waits_beyond_the_end_and_then_nothing_is_asked() {
    let mut world = held(&errors());
    seconds(&mut world, 600);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    let pass = world.pass();
    assert_eq!((pass.questions, pass.wake), (vec![], None));
    world.reply = well;
    world.say(Action::Retry, |_| {});
    seconds(&mut world, 120);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn metrics_that_are_silent_at_the_end_prove_nothing_whatever_they_said_before() {
    let mut world = observed(&errors());
    seconds(&mut world, 300);
    world.reply = |question| match about(question, "errors") {
        true => Some(Reply::ProviderError("no connection".into())),
        false => well(question),
    };
    seconds(&mut world, 60);
    let told = "; metric errors is inconclusive: Prometheus default: no connection (max 0.05)";
    assert!(world.status().message.ends_with(told), "{}", world.status().message);
    seconds(&mut world, 240);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "Unproven"), "{}", status.message);
    assert!(status.message.contains("but metric errors is not Pass: Prometheus default"), "{}", status.message);
    world.reply = well;
    seconds(&mut world, 60);
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Healthy, ""), "{}", world.status().message);
}

/// Nobody asked for an hour, since there was no operator.
#[rstest]
#[case::well(well, Phase::Healthy, "")]
#[case::badly(|it: &Question| answer(it, &["errors"]), Phase::RolledBack, "AnalysisFailed")]
fn what_was_well_long_ago_is_asked_once_more(
    #[case] reply: fn(&Question) -> Option<Reply>,
    #[case] phase: Phase,
    #[case] reason: &str,
) {
    let mut world = observed(&errors());
    world.wait(3600);
    world.reply = |_| None;
    let events: Vec<String> = (0..3).flat_map(|_| world.pass().events).map(|event| event.reason).collect();
    assert_eq!((world.phase(), events), (Phase::Observing, vec![]), "{}", world.status().message);
    world.reply = reply;
    seconds(&mut world, 60);
    assert_eq!((world.phase(), world.status().reason.as_str()), (phase, reason), "{}", world.status().message);
    assert!(!world.status().timeline.iter().any(|entry| entry.kind == "Unproven"));
}

#[rstest]
#[case::nobody_to_compare_with(json!([against_stable()]), true)]
#[case::a_value_that_is_only_told(json!([against_stable(), traffic(json!({"min": 0}))]), true)]
#[case::a_least_that_can_be_missed(json!([against_stable(), traffic(json!({"min": 1}))]), false)]
fn an_observation_without_a_metric_that_can_fail_says_so(#[case] metrics: Value, #[case] blind: bool) {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}]}}), 2);
    world.edit(|spec| {
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": metrics})).unwrap();
        spec.observation = serde_json::from_value(json!({"duration": "10m"})).unwrap();
    });
    world.reply = |question| {
        let of_value = question.id.contains("/traffic/");
        Some(if of_value { Reply::Value(3.0) } else { Reply::NoData("no series".into()) })
    };
    world.set_image("v2");
    seconds(&mut world, 90);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "Observing"), "{}", status.message);
    let told = "none of its metrics can fail it";
    assert_eq!(status.message.contains(told), blind, "{}", status.message);
    seconds(&mut world, 600);
    let status = world.status();
    assert_eq!(status.phase, Phase::Healthy, "{}", status.message);
    let last = status.timeline.iter().rev().find(|entry| entry.kind == "Observed").unwrap();
    assert_eq!(last.message.contains(told), blind, "{}", last.message);
}

fn against_stable() -> Value {
    json!({
        "name": "errors-vs-stable", "noData": "Ignore", "compare": {"minRequests": 1},
        "prometheus": {"total": "t{pod=~\"{{pods}}\"}", "events": "e{pod=~\"{{pods}}\"}"},
    })
}

fn traffic(threshold: Value) -> Value {
    json!({"name": "traffic", "prometheus": {"query": "rate{pod=~\"{{pods}}\"}"}, "threshold": threshold})
}
