//! Metrics: when they are measured, and what a verdict does to a release.

use rstest::rstest;
use serde_json::{Value, json};

use super::world::{World, unanswered};
use crate::{
    api::{Action, Duration, Phase, TallyStatus, VerdictOutcome, WindowStatus},
    engine::{Absent, Ask, Ended, Measure, Question, Reply},
};

/// v1 Healthy, and this metric in the manifest of what comes next: 50%, a pause of ten minutes, all.
pub fn with_metric(metric: Value) -> World {
    let strategy = json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "10m"}}]}});
    let mut world = World::healthy(strategy, 4);
    world.edit(|spec| {
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": [metric]})).unwrap();
    });
    world.settle();
    world
}

pub fn error_rate(more: &Value) -> Value {
    let mut metric = json!({
        "name": "error-rate", "prometheus": {"query": "errors{pod=~\"{{pods}}\"}"}, "threshold": {"max": 0.05},
    });
    metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    metric
}

pub fn against_stable() -> Value {
    json!({
        "name": "errors-vs-stable",
        "prometheus": {"total": "requests{revision=\"{{revision}}\"}", "events": "errors{service=\"{{service}}\"}"},
        "compare": {"maxRatio": 1.0, "minRequests": 200},
    })
}

/// Lets so much time pass, in steps of ten seconds.
pub fn minutes(world: &mut World, minutes: usize) {
    for _ in 0..minutes * 6 {
        world.settle();
        world.wait(10);
    }
    world.settle();
}

pub fn weight(world: &World) -> i32 {
    world.status().weights.unwrap().desired.candidate
}

pub fn verdict(world: &World) -> (VerdictOutcome, String) {
    let verdicts = world.status().verdicts;
    (verdicts[0].outcome, verdicts[0].message.clone())
}

#[test]
fn a_good_candidate_is_measured_through_the_pause_and_promoted() {
    let mut world = with_metric(error_rate(&json!({})));
    world.reply = |question| match &question.ask {
        Ask::Metric { provider, measure } => match &**measure {
            Measure::Value { query, requests: None } if provider == "default" && query.contains("shop-") => {
                Some(Reply::Value(0.01))
            }
            other => panic!("{other:?}"),
        },
        Ask::Http(_) | Ask::Logs(_) => None,
    };
    world.set_image("v2");
    minutes(&mut world, 5);
    assert_eq!((weight(&world), verdict(&world)), (50, (VerdictOutcome::Pass, "0.01 (max 0.05)".into())));
    let measured = world.status().verdicts[0].measurements;
    assert!((9..=10).contains(&measured), "{measured} in five minutes");
    minutes(&mut world, 6);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"));
}

#[test]
fn a_value_beyond_the_limit_takes_it_back_in_the_middle_of_the_pause() {
    let mut world = with_metric(error_rate(&json!({})));
    world.reply = |_| Some(Reply::Value(0.2));
    world.set_image("v2");
    minutes(&mut world, 1);
    let rollback = world.status().rollback.unwrap();
    assert_eq!((rollback.reason.as_str(), weight(&world)), ("AnalysisFailed", 0));
    let told =
        "metric error-rate failed: 0.2 (max 0.05), watched from 1970-01-12T13:46:40.000Z to 1970-01-12T13:47:10.000Z";
    assert_eq!(rollback.message, told);
    minutes(&mut world, 2);
    assert_eq!(world.phase(), Phase::RolledBack);
}

#[rstest]
#[case::nobody_called(Reply::NoData("no series".into()), json!({}), 50, Phase::Paused)]
#[case::nobody_called_but_never_mind(Reply::NoData("no series".into()), json!({"noData": "Ignore"}), 0, Phase::Healthy)]
#[case::nobody_called_and_somebody_should(Reply::NoData("no series".into()), json!({"noData": "Fail"}), 0, Phase::RolledBack)]
#[case::no_answer(Reply::ProviderError("no connection".into()), json!({}), 50, Phase::Paused)]
#[case::no_answer_and_that_is_bad(Reply::ProviderError("no connection".into()), json!({"providerError": "Fail"}), 0, Phase::RolledBack)]
fn without_a_value_it_holds_unless_told_otherwise(
    #[case] reply: Reply,
    #[case] policy: Value,
    #[case] expected: i32,
    #[case] phase: Phase,
) {
    let mut world = with_metric(error_rate(&policy));
    world.reply = match reply {
        Reply::NoData(_) => |_| Some(Reply::NoData("no series".into())),
        _ => unanswered,
    };
    world.set_image("v2");
    minutes(&mut world, 15);
    assert_eq!((world.phase(), weight(&world)), (phase, expected), "{}", world.status().message);
    if phase == Phase::Paused {
        assert_eq!(world.status().reason, "AnalysisInconclusive");
        // When the data come it goes on by itself.
        world.reply = |_| Some(Reply::Value(0.0));
        minutes(&mut world, 1);
        assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    }
}

/// v2 on its way by these steps under a metric, and what is answered for a quarter of an hour.
fn stepping(strategy: Value, more: &Value, reply: fn(&Question) -> Option<Reply>) -> World {
    let mut world = with_metric(error_rate(&json!({})));
    let mut analysis = json!({"interval": "30s", "metrics": [error_rate(&json!({}))]});
    analysis.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.edit(|spec| {
        spec.strategy = serde_json::from_value(strategy).unwrap();
        spec.analysis = serde_json::from_value(analysis).unwrap();
    });
    world.reply = reply;
    world.set_image("v2");
    minutes(&mut world, 15);
    world
}

/// Well at first, then nothing is answered any more.
fn outage(question: &Question) -> Option<Reply> {
    let first = question.id.ends_with("/0");
    if first { Some(Reply::Value(0.0)) } else { unanswered(question) }
}

const ALL_AT_ONCE: &str = r#"[{"setWeight": 100}, {"pause": {"duration": "1m"}}]"#;
const BY_HALVES: &str = r#"[{"setWeight": 50}, {"setWeight": 100}, {"pause": {"duration": "1m"}}]"#;
const NO_PAUSE: &str = r#"[{"setWeight": 100}]"#;

#[rstest]
#[case::unanswered(ALL_AT_ONCE, "{}", unanswered, Phase::Paused)]
#[case::without_a_pause(NO_PAUSE, "{}", unanswered, Phase::Paused)]
#[case::nobody_called(ALL_AT_ONCE, "{}", |_: &Question| Some(Reply::NoData("no series".into())), Phase::Paused)]
#[case::in_the_middle(BY_HALVES, "{}", outage, Phase::Paused)]
#[case::well(ALL_AT_ONCE, "{}", |_: &Question| Some(Reply::Value(0.0)), Phase::Healthy)]
#[case::it_goes_back(ALL_AT_ONCE, r#"{"maxDuration": "5m"}"#, unanswered, Phase::RolledBack)]
#[case::it_goes_on(ALL_AT_ONCE, r#"{"maxDuration": "5m", "onInconclusive": "Promote"}"#, unanswered, Phase::Healthy)]
fn a_candidate_that_has_all_requests_becomes_stable_only_with_proof(
    #[case] steps: &str,
    #[case] more: &str,
    #[case] reply: fn(&Question) -> Option<Reply>,
    #[case] phase: Phase,
) {
    let value = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let mut world = stepping(json!({"canary": {"steps": value(steps)}}), &value(more), reply);
    let status = world.status();
    assert_eq!(status.phase, phase, "{}", status.message);
    if phase != Phase::Paused {
        return;
    }
    assert_eq!((status.reason.as_str(), weight(&world)), ("AnalysisInconclusive", 100), "{}", status.message);
    // A person passes over it.
    world.say(Action::Promote, |command| command.full = true);
    minutes(&mut world, 1);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.answer());
}

#[test]
fn a_switch_and_a_first_revision_need_no_proof_before_they_have_requests() {
    let world = stepping(json!({"blueGreen": {}}), &json!({}), unanswered);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
    let mut world = World::new(json!({"canary": {"steps": [{"setWeight": 100}]}}), 4);
    world.edit(|spec| {
        spec.analysis = serde_json::from_value(json!({"metrics": [error_rate(&json!({}))]})).unwrap();
    });
    world.reply = unanswered;
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v1"), "{}", world.status().message);
}

#[test]
fn a_person_may_pass_over_what_is_not_proven() {
    let mut world = with_metric(error_rate(&json!({})));
    world.reply = |_| Some(Reply::NoData("no series".into()));
    world.set_image("v2");
    minutes(&mut world, 12);
    assert_eq!(world.phase(), Phase::Paused);
    world.say(Action::Skip, |_| {});
    minutes(&mut world, 1);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.answer());
}

#[test]
fn values_beyond_the_limit_count_in_a_row() {
    let mut world = with_metric(error_rate(&json!({"failureThreshold": 3})));
    // Bad, bad, good, bad, bad, bad.
    world.reply = |question| {
        let bad = !question.id.ends_with("/2");
        Some(Reply::Value(if bad { 1.0 } else { 0.0 }))
    };
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!((weight(&world), verdict(&world).0), (50, VerdictOutcome::Inconclusive), "{}", verdict(&world).1);
    minutes(&mut world, 2);
    let message = world.status().rollback.unwrap().message;
    let told = "metric error-rate failed: 1 (max 0.05), 3 of 3 in a row, watched from ";
    assert!(message.starts_with(told), "{message}");
}

#[rstest]
#[case::no_data(|_: &Question| Some(Reply::NoData("no series".into())))]
#[case::no_answer(unanswered)]
fn what_has_no_value_counts_among_the_bad_ones_in_a_row(#[case] reply: fn(&Question) -> Option<Reply>) {
    let more = json!({"failureThreshold": 3, "noData": "Fail", "providerError": "Fail"});
    let mut world = with_metric(error_rate(&more));
    world.reply = reply;
    world.set_image("v2");
    minutes(&mut world, 1);
    assert_eq!((weight(&world), verdict(&world).0), (50, VerdictOutcome::Inconclusive), "{}", verdict(&world).1);
    minutes(&mut world, 2);
    let message = world.status().rollback.unwrap().message;
    assert!(message.contains(", 3 of 3 in a row"), "{message}");
}

#[test]
fn data_that_are_missing_and_ignored_are_no_pass() {
    let mut world = with_metric(error_rate(&json!({"noData": "Ignore"})));
    world.reply = |_| Some(Reply::NoData("no series".into()));
    world.set_image("v2");
    minutes(&mut world, 15);
    let state = world.status().verdicts.remove(0);
    assert_eq!((world.stable().as_str(), state.outcome, state.passed_at), ("v2", VerdictOutcome::Ignored, None));
    assert_eq!(world.condition("AnalysisPassed"), "Unknown");
}

pub fn counts(question: &Question, candidate: (i64, i64), stable: (i64, i64)) -> Reply {
    let Ask::Metric { measure, .. } = &question.ask else { panic!("{question:?}") };
    let Measure::Counts { candidate: one, stable: other, since } = &**measure else { panic!("{measure:?}") };
    assert!(one.total != other.total && one.events.as_ref().unwrap().contains("shop-candidate"), "{one:?} {other:?}");
    assert_eq!(other.events.as_deref(), Some("errors{service=\"shop\"}"));
    let tally = |(requests, events)| TallyStatus { requests, events };
    let until = since.plus(Duration::from_secs(30));
    Reply::Counts { candidate: tally(candidate), stable: tally(stable), until, absent: Absent::default() }
}

#[test]
fn nothing_is_measured_at_rest_or_before_there_is_traffic() {
    let mut world = with_metric(error_rate(&json!({})));
    world.wait(3600);
    assert!(world.pass().questions.is_empty());
    world.broken.push("v2".into());
    world.set_image("v2");
    world.settle();
    world.wait(60);
    assert!(world.pass().questions.is_empty());
    assert_eq!(world.status().verdicts, []);
}

/// One pod of v2 has restarted twice, once for want of memory.
fn restarted(world: &mut World) {
    world.touch = |image, pod| {
        if image == "v2" && pod.name.ends_with("-0") {
            pod.containers[0].restarts = 2;
            let ended = Ended { reason: "Error".into(), exit_code: 3, signal: None, at: None };
            pod.containers[0].ended = Some(ended);
        }
    };
}

#[rstest]
#[case::none_is_allowed(json!({}), Phase::RolledBack)]
#[case::two_are_allowed(json!({"maxRestarts": 2}), Phase::Healthy)]
fn restarts_are_judged_by_what_is_seen(#[case] limits: Value, #[case] phase: Phase) {
    let mut world = with_metric(json!({"name": "pods", "workload": limits}));
    world.set_image("v2");
    restarted(&mut world);
    assert!(world.pass().questions.is_empty());
    minutes(&mut world, 12);
    assert_eq!(world.phase(), phase, "{}", world.status().message);
    let message = verdict(&world).1;
    assert!(message.starts_with("2 restarts in ") && message.contains("container app: 2, last by Error"), "{message}");
    if phase == Phase::RolledBack {
        let rollback = world.status().rollback.unwrap();
        assert_eq!((rollback.reason.as_str(), rollback.from_weight), ("AnalysisFailed", 50));
    }
}

#[test]
fn a_restart_in_the_middle_of_the_pause_fails_at_once() {
    let mut world = with_metric(json!({"name": "pods", "workload": {}}));
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!((weight(&world), verdict(&world).0), (50, VerdictOutcome::Pass), "{}", verdict(&world).1);
    assert!(verdict(&world).1.starts_with("0 restarts in 2 pods since "), "{}", verdict(&world).1);
    restarted(&mut world);
    world.settle();
    assert_eq!(weight(&world), 0, "{}", world.status().message);
}

#[test]
fn what_is_seen_is_written_down_once() {
    let mut world = with_metric(json!({"name": "pods", "workload": {}}));
    world.set_image("v2");
    minutes(&mut world, 2);
    let before = world.status();
    minutes(&mut world, 2);
    assert_eq!(world.status(), before);
}

/// All windows see the same; three days of them.
fn windows(question: &Question, requests: i64, events: i64) -> Reply {
    let Ask::Metric { measure, .. } = &question.ask else { panic!("{question:?}") };
    let Measure::Windows { counters, windows } = &**measure else { panic!("{measure:?}") };
    assert_eq!(counters.total, "requests{service=\"shop\",pod=~\"shop-[bcdfghjklmnpqrst]{10}-[a-z0-9]+\"}");
    assert_eq!(windows.iter().map(ToString::to_string).collect::<Vec<_>>(), ["5m", "30m", "1h", "6h", "72h"]);
    let window = |window: &Duration| WindowStatus { window: *window, requests, events };
    let history = Duration::from_secs(3 * 86_400);
    Reply::Windows { windows: windows.iter().map(window).collect(), history, absent: false }
}

fn budget() -> Value {
    json!({
        "name": "budget",
        "prometheus": {"total": "requests{service=\"{{service}}\",pod=~\"{{pods}}\"}", "good": "good"},
        "burnRate": {"objective": 0.99},
    })
}

#[test]
fn a_release_that_spends_the_budget_too_fast_goes_back() {
    let mut world = with_metric(budget());
    world.reply = |question| Some(windows(question, 1000, 150));
    world.set_image("v2");
    minutes(&mut world, 1);
    let rollback = world.status().rollback.unwrap();
    let told = "metric budget failed: burn rate 15 over 1h and 15 over 5m (max 14.4, objective 0.99): \
                150 of 1000 requests failed in 1h, 150 of 1000 requests failed in 5m";
    assert_eq!((rollback.reason.as_str(), rollback.message.as_str()), ("AnalysisFailed", told));
    assert_eq!(world.status().verdicts[0].windows.len(), 5);
}

#[test]
fn a_release_within_the_budget_is_promoted() {
    let mut world = with_metric(budget());
    world.reply = |question| Some(windows(question, 1000, 9));
    world.set_image("v2");
    minutes(&mut world, 12);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn a_number_of_a_web_api_has_limits_too() {
    let mut world = with_metric(json!({
        "name": "latency",
        "web": {"provider": "apm", "path": "/latency?app={{service}}&pods={{pods}}", "value": "json.p95"},
        "threshold": {"max": 0.5},
    }));
    world.reply = |question| {
        let Ask::Metric { provider, measure } = &question.ask else { panic!("{question:?}") };
        let Measure::Web { path, value } = &**measure else { panic!("{measure:?}") };
        assert_eq!((provider.as_str(), value.as_str()), ("apm", "json.p95"));
        assert!(path.starts_with("/latency?app=shop-candidate&pods=shop-"), "{path}");
        assert!(path.ends_with("-%5Ba-z0-9%5D%2B"), "{path}");
        Some(Reply::Value(0.75))
    };
    world.set_image("v2");
    minutes(&mut world, 1);
    let message = world.status().rollback.unwrap().message;
    assert!(message.starts_with("metric latency failed: 0.75 (max 0.5), watched from "), "{message}");
}

/// The metric of the world, with no data for ever and this to say what then.
fn without_data(more: &Value) -> World {
    let mut world = with_metric(error_rate(&json!({})));
    let mut analysis = json!({"maxDuration": "5m", "metrics": [error_rate(&json!({}))]});
    analysis.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.edit(|spec| spec.analysis = serde_json::from_value(analysis).unwrap());
    world.reply = |_| Some(Reply::NoData("no series".into()));
    world.set_image("v2");
    world
}

#[rstest]
#[case::by_default_it_goes_back(json!({}), Phase::RolledBack)]
#[case::it_waits_for_a_person(json!({"onInconclusive": "Hold"}), Phase::Paused)]
#[case::it_goes_on(json!({"onInconclusive": "Promote"}), Phase::Healthy)]
fn what_stays_inconclusive_is_decided(#[case] more: Value, #[case] phase: Phase) {
    let mut world = without_data(&more);
    minutes(&mut world, 14);
    let waits = world.status();
    assert_eq!((waits.phase, waits.reason.as_str()), (Phase::Paused, "AnalysisInconclusive"), "{}", waits.message);
    assert!(waits.message.contains("no series (max 0.05); at 1970-"), "{}", waits.message);
    minutes(&mut world, 4);
    let status = world.status();
    assert_eq!(status.phase, phase, "{}", status.message);
    let told =
        "pause: for 5m not all verdicts are Pass: metric error-rate is inconclusive: no data: no series (max 0.05)";
    match phase {
        Phase::RolledBack => {
            let rollback = status.rollback.unwrap();
            assert!(rollback.message.contains(told), "{}", rollback.message);
            assert_eq!((rollback.reason.as_str(), rollback.from_weight), ("AnalysisInconclusive", 50));
        }
        Phase::Paused => assert!(status.hold.unwrap().message.contains(told)),
        _ => assert!(status.timeline.iter().any(|entry| entry.kind == "Unproven" && entry.message.contains(told))),
    }
}

#[test]
fn a_hold_goes_on_by_retry_and_waits_as_long_again() {
    let mut world = without_data(&json!({"onInconclusive": "Hold"}));
    minutes(&mut world, 18);
    assert!(world.status().hold.is_some(), "{}", world.status().message);
    world.say(Action::Retry, |_| {});
    world.settle();
    assert!(world.status().hold.is_none(), "{}", world.answer());
    minutes(&mut world, 4);
    assert!(world.status().hold.is_none(), "{}", world.status().message);
    world.reply = |_| Some(Reply::Value(0.0));
    // Retry begins the pause anew.
    minutes(&mut world, 12);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

#[test]
fn without_automatic_rollback_what_stays_inconclusive_is_held() {
    let mut world = with_metric(error_rate(&json!({})));
    world.edit(|spec| {
        spec.rollback.automatic = false;
        spec.analysis.as_mut().unwrap().max_duration = Some(Duration::from_secs(300));
    });
    world.reply = unanswered;
    world.set_image("v2");
    minutes(&mut world, 18);
    let hold = world.status().hold.unwrap();
    assert!(hold.message.ends_with("Prometheus default: no connection (max 0.05)"), "{}", hold.message);
}

#[test]
fn while_a_person_holds_it_the_time_for_verdicts_stands_still() {
    let mut world = without_data(&json!({}));
    minutes(&mut world, 14);
    assert!(world.status().step.unwrap().unproven_since.is_some(), "{}", world.status().message);
    world.say(Action::Pause, |_| {});
    minutes(&mut world, 30);
    world.say(Action::Resume, |_| {});
    minutes(&mut world, 4);
    assert_eq!(world.status().rollback, None, "{}", world.status().message);
    minutes(&mut world, 2);
    assert!(world.status().rollback.is_some(), "{}", world.status().message);
}

#[test]
fn the_condition_says_what_the_verdicts_are() {
    let mut world = with_metric(error_rate(&json!({})));
    assert_eq!(world.condition("AnalysisPassed"), "Unknown");
    let reason = |world: &World| {
        let all = world.status().conditions;
        let it = all.into_iter().find(|condition| condition.type_ == "AnalysisPassed").unwrap();
        (it.status, it.reason)
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(reason(&world), is("Unknown", "NotStarted"));
    world.reply = |_| Some(Reply::NoData("no series".into()));
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!(reason(&world), is("Unknown", "Inconclusive"));
    world.reply = |_| Some(Reply::Value(0.0));
    minutes(&mut world, 2);
    assert_eq!(reason(&world), is("True", "AllPassed"));
    minutes(&mut world, 10);
    assert_eq!((world.phase(), reason(&world)), (Phase::Healthy, is("True", "AllPassed")));
    world.reply = |_| Some(Reply::Value(1.0));
    world.set_image("v3");
    minutes(&mut world, 3);
    assert_eq!((world.phase(), reason(&world)), (Phase::RolledBack, is("False", "MetricFailed")));
}

#[test]
fn without_analysis_there_is_no_such_condition() {
    let world = World::healthy(json!({"canary": {}}), 2);
    assert!(world.status().conditions.iter().all(|condition| condition.type_ != "AnalysisPassed"));
}

#[test]
fn what_is_no_expression_is_told_before_anything_begins() {
    let mut world = with_metric(json!({
        "name": "latency", "web": {"path": "/latency", "value": "json.p95 *"}, "threshold": {"max": 0.5},
    }));
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "FieldInvalid"), "{}", status.message);
    assert!(status.message.starts_with("spec.analysis.metrics[0].web.value: "), "{}", status.message);
    assert_eq!((status.candidate, world.stable().as_str()), (None, "v1"));
}
