//! What a person passes, and what not by that: an approval or a pause is no word about metrics that prove nothing, or
//! about pods that fail. A step that waits says what its metrics say.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{error_rate, minutes, weight, with_metric},
    world::{World, unanswered},
};
use crate::{
    api::{Action, Duration, Phase, VerdictOutcome},
    engine::{Ended, Reply},
};

/// v2 at 50% and at a step that waits for a person, with nobody who answers for its metric.
fn waiting(step: &Value) -> World {
    let mut world = with_metric(error_rate(&json!({})));
    world.edit(|spec| {
        let steps = json!({"canary": {"steps": [{"setWeight": 50}, step]}});
        spec.strategy = serde_json::from_value(steps).unwrap();
    });
    world.reply = unanswered;
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!((weight(&world), world.status().step.unwrap().index), (50, 3), "{}", world.status().message);
    world
}

#[rstest]
#[case::approve(json!({"approval": {}}), Action::Approve, "approved")]
#[case::promote(json!({"pause": {}}), Action::Promote, "the release goes on")]
#[case::promote_in_time(json!({"pause": {"duration": "1h"}}), Action::Promote, "the release goes on")]
#[case::resume(json!({"pause": {}}), Action::Resume, "the pause is over")]
fn an_approval_or_a_pause_is_passed_and_missing_proof_still_holds(
    #[case] step: Value,
    #[case] action: Action,
    #[case] done: &str,
) {
    let mut world = waiting(&step);
    world.say(action, |command| command.requested_by = Some("alice".into()));
    minutes(&mut world, 2);
    let told = format!(
        "Applied: {done}; it goes on once all verdicts are Pass, or by Skip: metric error-rate is inconclusive: Prometheus default: no connection (max 0.05)"
    );
    assert_eq!(world.answer(), told);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "AnalysisInconclusive"), "{}", status.message);
    assert!(status.message.starts_with("step 3 of 4, passed by alice: "), "{}", status.message);
    assert!(status.next_action.contains("kubectl srel -n default skip shop"), "{}", status.next_action);
    assert_eq!(weight(&world), 50);
    // It goes on by itself.
    world.reply = |_| Some(Reply::Value(0.0));
    minutes(&mut world, 1);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[rstest]
#[case::skip(Action::Skip, false)]
#[case::full(Action::Promote, true)]
fn past_what_is_not_proven_there_is_a_way(
    #[case] action: Action,
    #[case] full: bool,
    #[values(Action::Approve, Action::Resume)] before: Action,
) {
    let step = if before == Action::Approve { json!({"approval": {}}) } else { json!({"pause": {}}) };
    let mut world = waiting(&step);
    world.say(before, |_| {});
    world.settle();
    assert_eq!(weight(&world), 50, "{}", world.status().message);
    let revision = world.candidate();
    world.say(action, |command| (command.revision, command.full) = (revision, full));
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.answer());
}

#[test]
fn the_skip_of_a_pause_passes_over_all_that_it_lacks() {
    let mut world = waiting(&json!({"pause": {}}));
    world.say(Action::Skip, |_| {});
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.answer());
}

#[test]
fn a_person_who_approves_passes_over_no_crash_loop() {
    let mut world = waiting(&json!({"approval": {}}));
    world.say(Action::Approve, |_| {});
    world.settle();
    world.touch = |image, pod| {
        if image == "v2" {
            pod.containers[0].waiting = Some("CrashLoopBackOff".into());
            pod.containers[0].restarts = 3;
            pod.containers[0].ended = Some(Ended { reason: "Error".into(), exit_code: 3, signal: None, at: None });
        }
    };
    world.settle();
    let rollback = world.status().rollback.unwrap();
    assert_eq!(rollback.reason, "CrashLoopBackOff", "{}", world.status().message);
}

#[test]
fn over_a_failure_that_is_held_a_person_may_still_go_on() {
    let mut world = waiting(&json!({"pause": {}}));
    world.edit(|spec| spec.rollback.automatic = false);
    let number = world.status().release.unwrap().number;
    for plan in world.seen.plans.iter_mut().filter(|plan| plan.number == number) {
        plan.spec.rollback.automatic = false;
    }
    world.reply = |_| Some(Reply::Value(1.0));
    minutes(&mut world, 1);
    assert!(world.status().hold.is_some(), "{}", world.status().message);
    world.say(Action::Promote, |_| {});
    minutes(&mut world, 1);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.answer());
}

#[rstest]
#[case::a_pause(json!({"pause": {"duration": "1h"}}))]
#[case::a_pause_without_end(json!({"pause": {}}))]
#[case::an_approval(json!({"approval": {}}))]
fn a_step_that_waits_says_which_verdict_is_not_pass(#[case] step: Value) {
    let mut world = waiting(&step);
    let told = "; metric error-rate is inconclusive: Prometheus default: no connection (max 0.05)";
    assert!(world.status().message.ends_with(told), "{}", world.status().message);
    world.reply = |_| Some(Reply::NoData("no series".into()));
    minutes(&mut world, 1);
    assert!(world.status().message.ends_with("no data: no series (max 0.05)"), "{}", world.status().message);
    world.reply = |_| Some(Reply::Value(0.0));
    minutes(&mut world, 1);
    assert!(!world.status().message.contains("metric"), "{}", world.status().message);
}

/// Whether somebody asks again, or has asked all the time, so many seconds later.
fn later(world: &mut World, seconds: u64, is_new: bool) {
    world.wait(seconds);
    world.seen.asking_since = is_new.then_some(world.now);
}

#[rstest]
#[case::an_operator_is_there_again(40, true)]
#[case::it_stood_still(3600, false)]
fn a_pass_of_before_a_time_in_which_nobody_measured_lets_no_weight_rise(
    #[case] seconds: u64,
    #[case] is_new: bool,
    #[values(json!({}), json!({"failureThreshold": 2}))] more: Value,
) {
    let mut world = with_metric(error_rate(&more));
    world.reply = |_| Some(Reply::Value(0.0));
    world.set_image("v2");
    // Until shortly before the pause of ten minutes is over.
    for _ in 0..58 {
        world.settle();
        world.wait(10);
    }
    world.settle();
    assert_eq!((weight(&world), world.status().verdicts[0].outcome), (50, VerdictOutcome::Pass));
    let bad = more.get("failureThreshold").is_some();
    world.reply = if bad { |_| Some(Reply::Value(0.9)) } else { unanswered };
    later(&mut world, seconds, is_new);
    world.settle_watching(|world| assert_eq!(weight(world), 50, "{}", world.status().message));
    let told = if bad { "0.9 (max 0.05), 1 of 2 in a row" } else { "no connection" };
    assert!(world.status().message.contains(told), "{}", world.status().message);
    world.reply = |_| Some(Reply::Value(0.0));
    minutes(&mut world, 1);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[rstest]
#[case::nobody_was_there_to_ask(true, Phase::Healthy)]
#[case::they_were_asked(false, Phase::RolledBack)]
fn the_time_for_verdicts_is_none_in_which_nobody_asked(#[case] is_new: bool, #[case] phase: Phase) {
    let mut world = with_metric(error_rate(&json!({})));
    world.edit(|spec| spec.analysis.as_mut().unwrap().max_duration = Some(Duration::from_secs(300)));
    world.reply = unanswered;
    world.set_image("v2");
    minutes(&mut world, 12);
    assert!(world.status().step.unwrap().unproven_since.is_some(), "{}", world.status().message);
    world.reply = |_| Some(Reply::Value(0.0));
    later(&mut world, 3600, is_new);
    world.pass();
    minutes(&mut world, 1);
    assert_eq!(world.phase(), phase, "{}", world.status().message);
}
