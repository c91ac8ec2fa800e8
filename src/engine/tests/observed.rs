//! After the promotion: what the pods of the new revision say.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed,
    world::{World, right, unanswered, wrong},
};
use crate::{
    api::{Action, CommandPhase, Phase, Timestamp, VerdictOutcome},
    engine::{Ended, Pod, Question, Reply, Selection},
};

/// When worlds begin, in milliseconds.
const BEGIN: i64 = 1_000_000_000;

pub(super) fn blue_green() -> Value {
    json!({"blueGreen": {}})
}

/// v2 promoted over v1 and observed for half an hour, with the pods of v1 kept as long.
fn observed(strategy: Value) -> World {
    observed_beside(strategy, Some("30m"))
}

/// The same with the pods of v1 kept for so long.
pub(super) fn observed_beside(strategy: Value, kept: Option<&str>) -> World {
    let mut world = World::healthy(strategy, 3);
    world.edit(|spec| {
        spec.observation = Some(serde_json::from_value(json!({"duration": "30m"})).unwrap());
        spec.rollback.keep_previous = kept.map(|kept| kept.parse().unwrap());
    });
    world.wait(60);
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v2"), "{}", world.status().message);
    world.wait(60);
    world.settle();
    world
}

/// Waits out what drains.
pub(super) fn drain(world: &mut World) {
    for _ in 0..3 {
        world.settle();
        world.wait(30);
    }
    world.settle();
}

fn crash(pod: &mut Pod) {
    pod.ready = false;
    pod.containers[0].waiting = Some("CrashLoopBackOff".into());
    pod.containers[0].restarts = 3;
    pod.containers[0].ended = Some(Ended { reason: "Error".into(), exit_code: 3, signal: None, at: None });
}

/// An end of the container, so many seconds after worlds begin; the pod was there from the beginning.
fn end(pod: &mut Pod, reason: &str, second: i64) {
    let at = Some(Timestamp::from_millis(BEGIN + second * 1000));
    pod.created = Some(Timestamp::from_millis(BEGIN + 10_000));
    pod.containers[0].ended = Some(Ended { reason: reason.into(), exit_code: 137, signal: None, at });
}

pub(super) fn lose_readiness(pod: &mut Pod) {
    (pod.ready, pod.lost_readiness) = (false, true);
}

/// What happens to a pod.
pub(super) type Touch = fn(&str, &mut Pod);

#[rstest]
#[case::a_crash_loop("CrashLoopBackOff", |image: &str, pod: &mut Pod| if image == "v2" { crash(pod); })]
#[case::of_one_pod("CrashLoopBackOff", |image: &str, pod: &mut Pod| if image == "v2" && pod.name.ends_with("-1") { crash(pod); })]
#[case::an_oom_kill("OOMKilled", |image: &str, pod: &mut Pod| if image == "v2" { end(pod, "OOMKilled", 61); })]
#[case::an_image("InvalidImageName", |image: &str, pod: &mut Pod| if image == "v2" {
    pod.containers[0].waiting = Some("InvalidImageName".into());
})]
#[case::a_missing_key("CreateContainerConfigError", |image: &str, pod: &mut Pod| if image == "v2" {
    pod.containers[0].waiting = Some("CreateContainerConfigError".into());
})]
#[case::lost_readiness("NotReady", |image: &str, pod: &mut Pod| if image == "v2" { lose_readiness(pod); })]
fn what_pods_say_after_the_promotion_takes_the_release_back(#[case] reason: &str, #[case] touch: Touch) {
    let mut world = observed(blue_green());
    world.touch = touch;
    drain(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, reason), "{}", status.message);
    assert_eq!((world.stable().as_str(), world.pods("v1"), world.pods("v2")), ("v1", 3, 0));
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
    assert_eq!(status.rollback.unwrap().from_weight, 100);
    assert_eq!(status.observation, None);
}

#[rstest]
#[case::of_a_switch(blue_green())]
#[case::of_a_canary_by_pods(json!({"canary": {"steps": [{"setWeight": 34}]}}))]
fn the_pods_that_were_kept_have_the_traffic_at_once(#[case] strategy: Value) {
    let mut world = observed(strategy);
    world.touch = |image, pod| {
        if image == "v2" {
            crash(pod);
        }
    };
    world.pass();
    world.pass();
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")), "{}", world.status().message);
}

#[test]
fn where_the_previous_pods_are_gone_they_come_back_before_the_traffic_does() {
    let mut world = observed_beside(json!({"canary": {}}), None);
    assert_eq!(world.pods("v1"), 0);
    world.touch = |image, pod| {
        if image == "v2" && pod.name.ends_with("-1") {
            crash(pod);
        }
    };
    world.settle_watching(|world| {
        let available: i32 = world.seen.revisions.iter().map(|revision| revision.available).sum();
        assert!(available >= 2, "{}", world.status().message);
    });
    drain(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::RolledBack, "v1"), "{}", world.status().message);
}

#[rstest]
#[case::evicted(|image: &str, pod: &mut Pod| if image == "v2" { crash(pod); pod.disrupted = true; })]
#[case::told_to_go(|image: &str, pod: &mut Pod| if image == "v2" { crash(pod); pod.terminating = true; })]
#[case::killed_before(|image: &str, pod: &mut Pod| if image == "v2" { end(pod, "OOMKilled", 58); })]
#[case::crashed_before(|image: &str, pod: &mut Pod| if image == "v2" { crash(pod); end(pod, "Error", 58); })]
#[case::the_previous_ones(|image: &str, pod: &mut Pod| if image == "v1" { crash(pod); })]
#[case::no_node(|image: &str, pod: &mut Pod| if image == "v2" {
    pod.ready = false;
    pod.unschedulable = Some("0/1 nodes".into());
})]
#[case::what_both_depend_on(|_: &str, pod: &mut Pod| lose_readiness(pod))]
#[case::some_are_left(|image: &str, pod: &mut Pod| if image == "v2" && pod.name.ends_with("-1") {
    lose_readiness(pod);
})]
fn what_is_not_its_fault_takes_nothing_back(#[case] touch: Touch) {
    let mut world = observed(blue_green());
    world.touch = touch;
    drain(&mut world);
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Observing, "v2"), "{}", status.message);
    assert_eq!(status.rollback, None);
    let serves = world.of_image("v2").available == 3;
    assert_eq!(world.condition("Ready") == "True", serves, "{}: {}", status.reason, status.message);
    assert!(serves || status.reason == "PodsUnavailable", "{}: {}", status.reason, status.message);
}

#[test]
fn once_it_is_no_longer_observed_trouble_is_told_and_the_status_keeps_none_of_before() {
    let mut world = observed(blue_green());
    world.touch = |image, pod| {
        if image == "v2" && pod.name.ends_with("-1") {
            pod.unschedulable = Some("0/1 nodes".into());
        }
    };
    world.settle();
    let problem = |world: &World| world.status().stable.unwrap().problem.map(|problem| problem.reason);
    assert_eq!(problem(&world).as_deref(), Some("Unschedulable"));
    world.wait(1800);
    world.settle();
    assert_eq!((world.phase(), problem(&world)), (Phase::Healthy, None), "{}", world.status().message);
    world.touch = |image, pod| {
        if image == "v2" {
            crash(pod);
        }
    };
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Healthy, "PodsUnavailable"));
    assert_ne!(world.condition("Ready"), "True");
}

#[test]
fn a_person_decides_about_pods_where_nothing_goes_back_by_itself() {
    let mut world = World::healthy(blue_green(), 3);
    world.edit(|spec| {
        spec.observation = Some(serde_json::from_value(json!({"duration": "30m"})).unwrap());
        spec.rollback.automatic = false;
    });
    world.set_image("v2");
    world.settle();
    world.touch = |image, pod| {
        if image == "v2" {
            crash(pod);
        }
    };
    let told: Vec<String> = (0..3).flat_map(|_| world.pass().events).map(|event| event.reason).collect();
    assert_eq!(told.iter().filter(|reason| *reason == "CrashLoopBackOff").count(), 1, "{told:?}");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    assert!(
        status.message.contains("exit code 3, restarted 3 times); 0 of 3 pods are available"),
        "{}",
        status.message
    );
    assert!(status.next_action.contains("undo shop") && world.condition("Stalled") == "True", "{}", status.next_action);
    world.touch = |_, _| {};
    world.pass();
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Observing, "Observing"));
    world.wait(1800);
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn with_nothing_to_go_back_to_a_person_is_told_so() {
    let mut world = World::new(blue_green(), 2);
    world.edit(|spec| spec.observation = Some(serde_json::from_value(json!({"duration": "30m"})).unwrap()));
    world.settle();
    world.touch = |_, pod| crash(pod);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    assert!(!status.next_action.contains("undo") && status.next_action.contains("retry"), "{}", status.next_action);
}

/// v2 promoted by a switch and observed for five minutes under a metric that is measured every 30 seconds.
fn measured(more: &Value, reply: fn(&Question) -> Option<Reply>) -> World {
    let mut world = World::healthy(blue_green(), 2);
    let mut metric =
        json!({"name": "errors", "prometheus": {"query": "errors{pod=~\"{{pods}}\"}"}, "threshold": {"max": 0.05}});
    metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.edit(|spec| {
        spec.analysis = Some(serde_json::from_value(json!({"interval": "30s", "metrics": [metric]})).unwrap());
        spec.observation = Some(serde_json::from_value(json!({"duration": "5m"})).unwrap());
    });
    world.reply = reply;
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v2"), "{}", world.status().message);
    world
}

/// Lets so much time pass; what was warned of.
pub(super) fn seconds(world: &mut World, seconds: u64) -> Vec<String> {
    let mut warned = Vec::new();
    for _ in 0..seconds / 5 {
        world.wait(5);
        for _ in 0..2 {
            let events = world.pass().events.into_iter().filter(|event| event.warning);
            warned.extend(events.map(|event| event.reason));
        }
    }
    warned
}

pub(super) fn kinds(world: &World) -> Vec<String> {
    world.status().timeline.iter().rev().take(2).rev().map(|entry| entry.kind.clone()).collect()
}

#[test]
fn an_observation_without_an_answer_is_no_success_and_goes_on_until_there_is_one() {
    let mut world = measured(&json!({}), unanswered);
    assert_eq!(seconds(&mut world, 295), [""; 0]);
    assert_eq!(world.status().reason, "Observing");
    assert_eq!(seconds(&mut world, 200), ["Unproven"]);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "Unproven"), "{}", status.message);
    let told = "but metric errors is not Pass: Prometheus default: no connection (max 0.05); it goes on until that is so, at 1970-01-12T13:56:40.000Z at the latest";
    assert!(status.message.ends_with(told), "{}", status.message);
    assert!(status.next_action.contains("undo shop"), "{}", status.next_action);
    assert_eq!((world.condition("Ready"), world.stable().as_str()), ("True".into(), "v2"), "it serves");
    assert_eq!(kinds(&world), ["Promoted", "Unproven"]);
    world.reply = |_| Some(Reply::Value(0.0));
    seconds(&mut world, 40);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Healthy, ""), "{}", status.message);
    assert_eq!((kinds(&world), status.release.unwrap().unproven), (vec!["Unproven".into(), "Observed".into()], None));
}

#[test]
fn an_observation_without_an_answer_does_not_go_on_for_ever_and_the_status_keeps_it() {
    let mut world = measured(&json!({}), unanswered);
    assert_eq!(seconds(&mut world, 700), ["Unproven", "Unproven"]);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Healthy, "Unproven"), "{}", status.message);
    assert!(status.message.contains("it was observed until 1970-01-12T13:56:40.000Z, but metric errors is not Pass: "));
    assert_eq!((kinds(&world), status.rollback), (vec!["Unproven".into(), "Unproven".into()], None));
    assert!(!kinds(&world).contains(&"Observed".into()));
    assert_eq!((status.observation, world.stable().as_str()), (None, "v2"));
    assert_eq!((world.pass().questions, world.pass().wake), (vec![], None), "nothing is measured any more");
    // The next one is another matter.
    world.edit(|spec| (spec.observation, spec.analysis) = (None, None));
    world.set_image("v3");
    world.settle();
    world.wait(60);
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Healthy, ""), "{}", world.status().message);
}

#[rstest]
#[case::nobody_called("{}", |_: &Question| Some(Reply::NoData("no series".into())), "Unproven")]
#[case::nobody_called_but_never_mind(r#"{"noData": "Ignore"}"#, |_: &Question| Some(Reply::NoData("no series".into())), "")]
#[case::from_a_dry_run_nothing_follows(r#"{"dryRun": true}"#, unanswered, "")]
#[case::well_once("{}", |question: &Question| match question.id.ends_with("/2") {
    true => Some(Reply::Value(0.0)),
    false => unanswered(question),
}, "Unproven")]
#[case::well_in_the_end("{}", |question: &Question| match question.id.ends_with("/2") {
    true => unanswered(question),
    false => Some(Reply::Value(0.0)),
}, "")]
#[case::never_well_enough(r#"{"successThreshold": 100}"#, |_: &Question| Some(Reply::Value(0.0)), "Unproven")]
fn what_is_well_in_the_end_is_proven(
    #[case] more: &str,
    #[case] reply: fn(&Question) -> Option<Reply>,
    #[case] reason: &str,
) {
    let mut world = measured(&serde_json::from_str(more).unwrap(), reply);
    seconds(&mut world, 310);
    let status = world.status();
    let phase = if reason.is_empty() { Phase::Healthy } else { Phase::Observing };
    assert_eq!((status.phase, status.reason.as_str()), (phase, reason), "{}", status.message);
}

#[test]
fn what_was_measured_before_the_promotion_does_not_count_after_it() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}]}}), 2);
    let metric = json!({"name": "errors", "prometheus": {"query": "e{{pods}}"}, "threshold": {"max": 0.05}});
    world.edit(|spec| {
        spec.analysis = Some(serde_json::from_value(json!({"interval": "30s", "metrics": [metric]})).unwrap());
        spec.observation = Some(serde_json::from_value(json!({"duration": "5m"})).unwrap());
    });
    world.reply = |_| Some(Reply::Value(0.0));
    world.set_image("v2");
    while world.phase() != Phase::Observing {
        seconds(&mut world, 5);
    }
    world.reply = unanswered;
    seconds(&mut world, 310);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "Unproven"), "{}", status.message);
}

#[test]
fn a_metric_that_failed_is_measured_anew_when_a_person_says_retry() {
    let mut world = measured(&json!({}), |_| Some(Reply::Value(1.0)));
    world.edit(|spec| spec.rollback.automatic = false);
    world.set_image("v3");
    seconds(&mut world, 60);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    world.reply = |_| Some(Reply::Value(0.0));
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Observing, "Observing"), "{}", world.answer());
    seconds(&mut world, 360);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v3"), "{}", world.status().message);
}

fn metric_fails(question: &Question) -> Option<Reply> {
    Some(if question.id.starts_with("metric/") { Reply::Value(1.0) } else { right() })
}

fn probe_fails(question: &Question) -> Option<Reply> {
    Some(if question.id.starts_with("metric/") { Reply::Value(0.0) } else { wrong() })
}

fn all_is_well(question: &Question) -> Option<Reply> {
    Some(if question.id.starts_with("metric/") { Reply::Value(0.0) } else { right() })
}

/// v2 observed under a metric and a standing probe, with spec.paused set.
fn paused() -> World {
    let mut world = measured(&json!({}), all_is_well);
    world.edit(|spec| {
        spec.checks =
            serde_json::from_value(json!([{"name": "live", "when": [], "every": "20s", "http": {}}])).unwrap();
    });
    world.set_image("v3");
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v3"), "{}", world.status().message);
    world.edit(|spec| spec.paused = true);
    seconds(&mut world, 100);
    world
}

#[rstest]
#[case::pods("CrashLoopBackOff", |world: &mut World| world.touch = |image: &str, pod: &mut Pod| if image == "v3" { crash(pod); })]
#[case::a_metric("AnalysisFailed", |world: &mut World| world.reply = metric_fails)]
#[case::a_probe("CheckFailed", |world: &mut World| world.reply = probe_fails)]
fn what_fails_is_taken_back_while_spec_paused_is_set(#[case] reason: &str, #[case] happen: fn(&mut World)) {
    let mut world = paused();
    happen(&mut world);
    seconds(&mut world, 120);
    let status = world.status();
    assert_eq!(world.stable(), "v2", "{}", status.message);
    assert_eq!(status.rollback.unwrap().reason, reason);
}

#[test]
fn an_observation_does_not_end_while_spec_paused_is_set() {
    let mut world = paused();
    seconds(&mut world, 600);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "SpecPaused"), "{}", status.message);
    assert!(status.message.ends_with(", and while spec.paused is set"), "{}", status.message);
    assert_eq!((status.next_action.as_str(), world.condition("Ready")), ("set spec.paused to false", "True".into()));
    let asked = |world: &World| world.status().checks[0].answered_at.unwrap();
    let last = asked(&world);
    seconds(&mut world, 40);
    assert!(asked(&world) > last, "it is asked on");
    world.edit(|spec| spec.paused = false);
    seconds(&mut world, 10);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v3"), "{}", world.status().message);
}

#[test]
fn a_new_template_ends_the_observation_and_is_released() {
    let mut world = observed(blue_green());
    world.set_image("v3");
    let mut phases = Vec::new();
    world.settle_watching(|world| phases.push(world.phase()));
    phases.dedup();
    assert_eq!(phases, [Phase::Progressing, Phase::Promoting, Phase::Observing]);
    assert_eq!(world.stable(), "v3");
}

#[test]
fn what_waits_for_spec_paused_does_not_hide_what_is_observed() {
    let mut world = paused();
    world.set_image("v4");
    seconds(&mut world, 600);
    let (status, stable) = (world.status(), world.status().stable.unwrap().revision);
    // The spec is not what serves: that is no success, and only a person can begin it.
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "SpecPaused"), "{}", status.message);
    assert_eq!((world.condition("Ready"), world.condition("Reconciling")), ("Unknown".into(), "True".into()));
    let waits = " waits: spec.paused is set; ";
    let told = format!("{waits}{stable} serves and is observed until it begins");
    assert!(status.message.ends_with(&told), "{}", status.message);
    world.reply = probe_fails;
    seconds(&mut world, 60);
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Paused, "v2"), "{}", status.message);
    assert!(
        status.message.contains(&format!("{waits}{stable} was taken back (check live failed: ")),
        "{}",
        status.message
    );
    assert!(status.message.ends_with(" serves"), "{}", status.message);
    world.edit(|spec| spec.paused = false);
    world.reply = all_is_well;
    seconds(&mut world, 60);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v4"), "{}", world.status().message);
}

#[rstest]
#[case::it_is_looked_at_again(Action::Retry, Phase::Paused, "v3")]
#[case::it_is_taken_back(Action::Undo, Phase::Paused, "v2")]
fn what_serves_and_has_failed_is_told_before_what_waits(
    #[case] action: Action,
    #[case] phase: Phase,
    #[case] stable: &str,
) {
    let mut world = measured(&json!({}), all_is_well);
    world.edit(|spec| {
        spec.rollback.automatic = false;
        spec.checks =
            serde_json::from_value(json!([{"name": "live", "when": [], "every": "20s", "http": {}}])).unwrap();
    });
    world.set_image("v3");
    world.settle();
    world.edit(|spec| spec.paused = true);
    world.reply = probe_fails;
    seconds(&mut world, 60);
    assert_eq!(world.status().reason, "ObservationFailed", "{}", world.status().message);
    world.set_image("v4");
    world.settle();
    let (status, serves) = (world.status(), world.status().stable.unwrap().revision);
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    assert_eq!((world.condition("Stalled"), world.condition("Ready")), ("True".into(), "False".into()));
    assert!(status.message.contains(" serves all traffic, but check live failed: "), "{}", status.message);
    assert!(status.message.ends_with(" waits: spec.paused is set"), "{}", status.message);
    let next = &status.next_action;
    assert!(next.contains("undo shop | ") && next.contains("retry shop; to release "), "{next}");
    world.reply = all_is_well;
    // As the plugin says it.
    world.say(action, |command| command.revision = Some(serves.clone()));
    world.settle();
    assert_eq!(world.status().commands.last().unwrap().phase, CommandPhase::Applied, "{:?}", world.status().commands);
    seconds(&mut world, 60);
    assert_eq!((world.phase(), world.stable().as_str()), (phase, stable), "{}", world.status().message);
}

/// A probe that has begun was ended by the failure of before and began again, in each pass.
#[rstest]
#[case::all_is_well(false, "v3")]
#[case::it_fails(true, "v2")]
fn a_probe_of_several_attempts_goes_on_beside_a_failure_that_waits_for_a_person(
    #[case] fails: bool,
    #[case] stable: &str,
) {
    let mut world = observed(blue_green());
    world.edit(|spec| {
        let told = json!({"name": "told", "when": ["AfterPromotion"], "onFailure": "Hold", "http": {}});
        let probe =
            json!({"name": "probe", "when": [], "every": "20s", "failureThreshold": 2, "interval": "5s", "http": {}});
        spec.checks = serde_json::from_value(json!([told, probe])).unwrap();
    });
    world.set_image("v3");
    world.reply = |question| Some(if question.id.contains("told") { wrong() } else { right() });
    seconds(&mut world, 60);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    if fails {
        world.reply = |_| Some(wrong());
    }
    seconds(&mut world, 120);
    assert_eq!(world.stable(), stable, "{}", world.status().message);
}

/// A container of v2 ended when the release began, and was started again.
fn end_at_the_beginning(image: &str, pod: &mut Pod, reason: &str) {
    if image == "v2" && pod.name.ends_with("-0") {
        let at = Some(Timestamp::from_millis(BEGIN));
        pod.created = at;
        pod.containers[0].restarts = 1;
        pod.containers[0].ended = Some(Ended { reason: reason.into(), exit_code: 1, signal: None, at });
    }
}

/// v2 fails by this metric while a full promotion waits for an approval, and is well from then on.
fn promoted_over_a_failure(metric: Value) -> World {
    let mut world = analysed::with_metric(metric);
    world.touch = |image, pod| end_at_the_beginning(image, pod, "Error");
    world.edit(|spec| {
        let steps = json!({"canary": {"steps": [{"setWeight": 50}, {"approval": {}}]}});
        spec.strategy = serde_json::from_value(steps).unwrap();
        spec.observation = serde_json::from_value(json!({"duration": "10m"})).unwrap();
    });
    world.reply = |_| Some(Reply::Value(1.0));
    world.set_image("v2");
    world.pass();
    world.say(Action::Promote, |command| command.full = true);
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!((world.phase(), analysed::verdict(&world).0), (Phase::AwaitingApproval, VerdictOutcome::Fail));
    world.wait(30);
    world.reply = |_| Some(Reply::Value(0.0));
    world.say(Action::Approve, |_| {});
    world.settle();
    world
}

#[rstest]
#[case::a_value(analysed::error_rate(&json!({})))]
#[case::restarts(json!({"name": "pods", "workload": {}}))]
fn what_a_person_passed_over_does_not_undo_the_promotion(#[case] metric: Value) {
    let mut world = promoted_over_a_failure(metric);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v2"), "{}", world.status().message);
    analysed::minutes(&mut world, 11);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}
