//! Metrics that compare the candidate with stable, and what was counted at which weight.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{against_stable, counts, error_rate, minutes, verdict, weight, with_metric},
    world::World,
};
use crate::{
    api::{Action, Metric, Phase, VerdictOutcome, VerdictStatus},
    engine::{Ask, Measure, Question, Reply, segments},
    judge::{self, Outcome},
};

#[test]
fn a_candidate_that_fails_as_often_as_stable_is_promoted() {
    let mut world = with_metric(against_stable());
    world.reply = |question| Some(counts(question, (50, 5), (50, 5)));
    world.set_image("v2");
    minutes(&mut world, 12);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
    let verdicts = world.status().verdicts;
    let segment = &verdicts[0].segments[0];
    assert_eq!(
        (segment.weight, segment.candidate.requests, segment.candidate.events % 5),
        (50, segment.stable.requests, 0)
    );
    assert!(segment.candidate.requests >= 900 && verdicts[0].ln_evidence.is_some(), "{segment:?}");
}

#[test]
fn a_candidate_that_fails_more_often_than_stable_goes_back() {
    let mut world = with_metric(against_stable());
    world.reply = |question| Some(counts(question, (50, 12), (50, 1)));
    world.set_image("v2");
    minutes(&mut world, 1);
    let rollback = world.status().rollback.unwrap();
    let told = "metric errors-vs-stable failed: 12 of 50 requests of the candidate, 1 of 50 of stable; ln E ";
    assert!(rollback.message.starts_with(told), "{}", rollback.message);
}

#[test]
fn too_few_requests_hold_the_weight() {
    let mut world = with_metric(against_stable());
    world.reply = |question| Some(counts(question, (1, 0), (1, 0)));
    world.set_image("v2");
    minutes(&mut world, 30);
    assert_eq!((world.phase(), weight(&world)), (Phase::Paused, 50));
    assert_eq!(world.status().reason, "AnalysisInconclusive");
    minutes(&mut world, 75);
    assert_eq!(world.phase(), Phase::Healthy, "after 200 requests of the candidate: {}", world.status().message);
}

#[test]
fn a_candidate_that_nobody_calls_holds_the_weight_and_says_so() {
    let mut world = with_metric(against_stable());
    world.reply = |question| Some(counts(question, (0, 0), (2, 0)));
    world.set_image("v2");
    minutes(&mut world, 15);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "AnalysisInconclusive"), "{}", status.message);
    assert!(status.message.contains("no request of the candidate was counted"), "{}", status.message);
}

#[test]
fn two_requests_a_minute_are_enough_to_find_a_broken_candidate() {
    let mut world = with_metric(against_stable());
    world.reply = |question| Some(counts(question, (1, 1), (1, 0)));
    world.set_image("v2");
    minutes(&mut world, 4);
    let rollback = world.status().rollback.unwrap();
    assert!(rollback.message.contains(" requests of the candidate, 0 of "), "{}", rollback.message);
}

#[test]
fn what_was_counted_at_another_weight_is_no_proof_for_this_one() {
    let steps =
        json!([{"setWeight": 25}, {"pause": {"duration": "2m"}}, {"setWeight": 50}, {"pause": {"duration": "2m"}}]);
    let mut world = with_metric(against_stable());
    world.edit(|spec| spec.strategy = serde_json::from_value(json!({"canary": {"steps": steps}})).unwrap());
    world.reply = |question| Some(counts(question, (300, 3), (900, 9)));
    world.set_image("v2");
    minutes(&mut world, 1);
    assert_eq!((weight(&world), verdict(&world).0), (25, VerdictOutcome::Pass));
    // The candidate gets no more requests, whatever its weight.
    world.reply = |question| Some(counts(question, (0, 0), (900, 9)));
    minutes(&mut world, 30);
    assert_eq!((world.phase(), weight(&world)), (Phase::Progressing, 50), "{}", world.status().message);
    world.reply = |question| Some(counts(question, (300, 3), (300, 3)));
    minutes(&mut world, 3);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

/// v2 at 25% until a person says more, and then at 50%; half a minute at 25% was measured well.
fn at_a_quarter(metric: Value) -> World {
    let steps = json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"setWeight": 75}, {"pause": {}}]);
    let mut world = with_metric(metric);
    world.edit(|spec| spec.strategy = serde_json::from_value(json!({"canary": {"steps": steps}})).unwrap());
    world.reply = |question| match &question.ask {
        Ask::Metric { measure, .. } if matches!(**measure, Measure::Value { .. }) => Some(Reply::Value(0.01)),
        _ => Some(counts(question, (300, 3), (900, 9))),
    };
    world.set_image("v2");
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!((weight(&world), verdict(&world).0), (25, VerdictOutcome::Pass));
    world
}

fn more(world: &mut World) {
    world.say(Action::Promote, |_| {});
    world.settle();
    assert_eq!(weight(world), 50, "{}", world.status().message);
}

#[test]
fn what_is_counted_begins_when_the_weight_is_reached() {
    let mut world = at_a_quarter(against_stable());
    world.wait(20);
    world.settle();
    more(&mut world);
    let reached = world.now;
    assert_eq!(world.status().weights.unwrap().reached_at, Some(reached));
    // Ten seconds later is half a minute since the last look, of which most had another weight.
    for _ in 0..2 {
        world.wait(10);
        world.settle();
        assert_eq!((world.status().verdicts[0].segments.len(), weight(&world)), (1, 50));
    }
    world.reply = |_| None;
    world.wait(10);
    let asked = world.pass().questions;
    let [Question { ask: Ask::Metric { measure, .. }, .. }] = &asked[..] else { panic!("{asked:?}") };
    let Measure::Counts { since, .. } = &**measure else { panic!("{measure:?}") };
    assert_eq!(*since, reached);
    world.reply = |question| Some(counts(question, (300, 3), (300, 3)));
    world.settle();
    let segments = world.status().verdicts[0].segments.clone();
    assert_eq!((segments[1].weight, segments[1].since, weight(&world)), (50, Some(reached), 75), "{segments:?}");
    assert_eq!((segments[0].candidate.requests, segments[1].candidate.requests), (300, 300));
}

#[rstest]
#[case::counts(against_stable())]
#[case::a_value(error_rate(&json!({})))]
fn what_was_asked_at_another_weight_proves_nothing(#[case] metric: Value) {
    let mut world = at_a_quarter(metric);
    world.reply = |_| None;
    world.wait(30);
    let before = world.pass().questions;
    assert_eq!(before.len(), 1);
    more(&mut world);
    let after = world.pass().questions;
    assert!(after.iter().all(|question| question.id != before[0].id), "{after:?}");
    assert_eq!(world.status().step.unwrap().index, 4);
}

/// Requests come one in half a minute to each side, and a step takes no longer than it must.
#[test]
fn steps_without_pauses_go_on_after_a_look_at_each_weight() {
    let mut world = at_a_quarter(json!({
        "name": "errors-vs-stable",
        "prometheus": {"total": "requests{revision=\"{{revision}}\"}", "events": "errors{service=\"{{service}}\"}"},
        "compare": {"maxRatio": 1.0, "minRequests": 1},
    }));
    world.reply = |question| Some(counts(question, (1, 0), (1, 0)));
    more(&mut world);
    for expected in [50, 75] {
        assert_eq!(weight(&world), expected, "{}", world.status().message);
        world.wait(30);
        world.settle();
    }
    assert_eq!(world.phase(), Phase::Paused, "{}", world.status().message);
}

/// v2 at 50% for three hours, of the first of which it fails as often as stable.
fn after_a_good_hour() -> World {
    let mut world = with_metric(against_stable());
    let steps = json!([{"setWeight": 50}, {"pause": {"duration": "3h"}}]);
    world.edit(|spec| spec.strategy = serde_json::from_value(json!({"canary": {"steps": steps}})).unwrap());
    world.reply = |question| Some(counts(question, (100, 2), (100, 2)));
    world.set_image("v2");
    minutes(&mut world, 60);
    assert_eq!((weight(&world), verdict(&world).0), (50, VerdictOutcome::Pass), "{}", verdict(&world).1);
    world
}

/// Its verdicts, as long as it is not taken back and for ten minutes at most, look by look.
fn looks(world: &mut World) -> Vec<VerdictStatus> {
    let mut all = Vec::new();
    while all.len() < 20 && world.status().rollback.is_none() {
        world.wait(30);
        world.settle();
        all.push(world.status().verdicts[0].clone());
    }
    all
}

/// What a person computes from the numbers in the status.
fn judged(state: &VerdictStatus) -> judge::Verdict {
    let metric: Metric = serde_json::from_value(against_stable()).unwrap();
    judge::judge(&segments::evidence(state), &metric.compare.unwrap().settings())
}

#[test]
fn a_candidate_that_turns_bad_after_a_good_hour_goes_back_and_does_not_pass_meanwhile() {
    let mut world = after_a_good_hour();
    world.reply = |question| Some(counts(question, (100, 8), (100, 2)));
    let all = looks(&mut world);
    let rollback = world.status().rollback.unwrap();
    let told = "metric errors-vs-stable failed: worse of late: since 1970-01-12T";
    assert!(rollback.message.starts_with(told), "{}", rollback.message);
    assert!(rollback.message.contains(", max ratio 1; in all ln E -"), "{}", rollback.message);
    let doubt = all.iter().find(|it| it.message.starts_with("perhaps worse of late: since ")).unwrap();
    assert!(doubt.message.contains(", no Pass from "), "{}", doubt.message);
    // The evidence is enough to compute it again.
    let last = all.last().unwrap();
    let recent = last.recent.as_ref().unwrap();
    let (found, doubted) = (judged(last), judged(doubt));
    assert_eq!((found.outcome, doubted.outcome), (Outcome::Fail, Outcome::Inconclusive), "{last:?}");
    let lately = found.harm.lately.unwrap();
    let ln_e: f64 = recent.ln_evidence.as_ref().unwrap().parse().unwrap();
    let ln_threshold: f64 = recent.ln_threshold.as_ref().unwrap().parse().unwrap();
    assert!((ln_e - lately.ln_e).abs() < 1e-3 && (ln_threshold - lately.ln_threshold).abs() < 1e-3, "{recent:?}");
    assert!(recent.restarts >= 2 && recent.since > last.started_at, "{recent:?}");
    // All that was counted would not have said so.
    assert!(found.harm.ln_e < 0.0, "{found:?}");
}

#[test]
fn what_an_operator_of_before_has_counted_goes_on() {
    let mut world = after_a_good_hour();
    let status = world.release.status.as_mut().unwrap();
    status.verdicts[0].recent = None;
    let before = status.verdicts[0].clone();
    assert!(!serde_json::to_string(&before).unwrap().contains("recent"));
    world.wait(30);
    world.settle();
    let state = world.status().verdicts[0].clone();
    let recent = state.recent.clone().unwrap();
    assert_eq!((recent.restarts, Some(recent.since), recent.segments.len()), (1, state.counted_until, 0));
    assert_eq!(state.segments[0].candidate.requests, before.segments[0].candidate.requests + 100);
    assert_eq!(state.outcome, VerdictOutcome::Pass);
    world.reply = |question| Some(counts(question, (100, 8), (100, 2)));
    let found = looks(&mut world);
    assert!(world.status().rollback.is_some() && found.len() < 10, "{found:?}");
    // What it writes is what it reads.
    let last = found.last().unwrap();
    let text = serde_json::to_string(last).unwrap();
    assert_eq!(serde_json::from_str::<VerdictStatus>(&text).unwrap(), *last);
}
