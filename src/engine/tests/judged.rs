//! Metrics that ask for more before they pass, that nothing follows from, or that have nobody to compare.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{against_stable, counts, error_rate, minutes, verdict, weight, with_metric},
    world::World,
};
use crate::{
    api::{Metric, Phase, Timestamp, VerdictOutcome},
    engine::{Answer, Ask, Measure, NamedTemplate, Reply, measuring},
};

#[rstest]
#[case::it_holds("Hold", Phase::Paused)]
#[case::never_mind("Ignore", Phase::Healthy)]
#[case::somebody_should("Fail", Phase::RolledBack)]
fn a_comparison_without_a_request_of_the_candidate_follows_its_policy(#[case] policy: &str, #[case] phase: Phase) {
    let mut metric = against_stable();
    metric["noData"] = json!(policy);
    let mut world = with_metric(metric);
    world.reply = |question| Some(counts(question, (0, 0), (50, 1)));
    world.set_image("v2");
    minutes(&mut world, 15);
    assert_eq!(world.phase(), phase, "{}", world.status().message);
}

#[test]
fn values_within_the_limit_count_in_a_row() {
    let mut world = with_metric(error_rate(&json!({"successThreshold": 5, "failureThreshold": 2})));
    world.edit(|spec| {
        spec.strategy = serde_json::from_value(json!({"canary": {"steps": [{"setWeight": 50}]}})).unwrap();
    });
    // Good, good, bad, and good from then on.
    world.reply = |question| Some(Reply::Value(if question.id.ends_with("/2") { 1.0 } else { 0.01 }));
    world.set_image("v2");
    let told = |world: &World| verdict(world).1;
    minutes(&mut world, 1);
    assert_eq!(told(&world), "0.01 (max 0.05), 2 of 5 in a row");
    minutes(&mut world, 2);
    assert_eq!((weight(&world), verdict(&world).0), (50, VerdictOutcome::Inconclusive), "{}", told(&world));
    assert_eq!(told(&world), "0.01 (max 0.05), 3 of 5 in a row");
    minutes(&mut world, 2);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert_eq!(told(&world), "0.01 (max 0.05), 5 of 5 in a row");
}

/// Values now good, now bad: as the CRD says of failureThreshold.
#[rstest]
#[case::each_acts(1, 1, Phase::RolledBack)]
#[case::a_good_one_is_a_pass(2, 1, Phase::Healthy)]
#[case::neither(2, 2, Phase::Paused)]
fn values_that_flap(#[case] failures: i32, #[case] successes: i32, #[case] phase: Phase) {
    let mut world = with_metric(error_rate(&json!({"failureThreshold": failures, "successThreshold": successes})));
    world.edit(|spec| {
        spec.strategy = serde_json::from_value(json!({"canary": {"steps": [{"setWeight": 50}]}})).unwrap();
    });
    world.reply = |question| {
        let number = question.id.rsplit('/').next().and_then(|number| number.parse::<u32>().ok()).unwrap();
        Some(Reply::Value(if number.is_multiple_of(2) { 1.0 } else { 0.01 }))
    };
    world.set_image("v2");
    minutes(&mut world, 15);
    assert_eq!(world.phase(), phase, "{}", world.status().message);
}

fn of_requests() -> Value {
    let mut metric = error_rate(&json!({"threshold": {"max": 0.05, "minRequests": 100}}));
    metric["prometheus"]["requests"] = json!("requests{pod=~\"{{pods}}\"}");
    metric
}

/// One error of three requests is no rate; one of three in three hundred is.
#[test]
fn a_value_of_too_few_requests_is_no_data() {
    let mut world = with_metric(of_requests());
    world.reply = |question| {
        let Ask::Metric { measure, .. } = &question.ask else { panic!("{question:?}") };
        let Measure::Value { requests: Some(requests), .. } = &**measure else { panic!("{measure:?}") };
        assert!(requests.starts_with("requests{pod=~\"shop-"), "{requests}");
        Some(Reply::Share { value: 1.0 / 3.0, requests: 3.0 })
    };
    world.set_image("v2");
    minutes(&mut world, 15);
    let told = "no data: the value is of 3 requests, at least 100 are needed (max 0.05)";
    assert_eq!((world.phase(), verdict(&world)), (Phase::Paused, (VerdictOutcome::Inconclusive, told.into())));
    assert_eq!(world.status().verdicts[0].requests.as_deref(), Some("3"));
    world.reply = |_| Some(Reply::Share { value: 1.0 / 3.0, requests: 100.0 });
    minutes(&mut world, 1);
    let message = world.status().rollback.unwrap().message;
    assert!(message.starts_with("metric error-rate failed: 0.3333 (max 0.05), watched from "), "{message}");
}

#[rstest]
#[case::too_high(VerdictOutcome::Fail)]
#[case::no_answer(VerdictOutcome::Inconclusive)]
fn from_a_dry_run_nothing_follows(#[case] outcome: VerdictOutcome) {
    let mut world = with_metric(error_rate(&json!({"dryRun": true})));
    world.reply = match outcome {
        VerdictOutcome::Fail => |_| Some(Reply::Value(1.0)),
        _ => |_| Some(Reply::ProviderError("no connection".into())),
    };
    world.set_image("v2");
    let mut told = Vec::new();
    for _ in 0..20 {
        told.extend(world.pass().events.into_iter().map(|event| (event.reason, event.note, event.warning)));
        world.wait(10);
    }
    assert_eq!((verdict(&world).0, weight(&world)), (outcome, 50), "{}", world.status().message);
    let condition = world.status().conditions.into_iter().find(|it| it.type_ == "AnalysisPassed").unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("Unknown", "DryRun"));
    let events: Vec<_> = told.iter().filter(|(reason, ..)| reason.starts_with("Verdict")).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].1.starts_with("metric error-rate (dry run): ") && !events[0].2, "{events:?}");
    minutes(&mut world, 10);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert!(world.status().verdicts[0].dry_run);
}

#[test]
fn a_dry_run_hides_no_metric_that_acts() {
    let mut world = with_metric(error_rate(&json!({"dryRun": true, "name": "tried"})));
    world.edit(|spec| {
        let more = error_rate(&json!({"name": "trusted"}));
        spec.analysis.as_mut().unwrap().metrics.push(serde_json::from_value(more).unwrap());
    });
    world.reply = |question| Some(Reply::Value(if question.id.contains("tried") { 0.0 } else { 1.0 }));
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!(world.status().reason, "AnalysisFailed", "{}", world.status().message);
    assert!(world.status().message.contains("metric trusted failed"), "{}", world.status().message);
}

const NEVER: &str = "never serve the same minutes";
const NO_STEP: &str = "no step of the canary lets candidate and stable serve at the same time";

#[rstest]
#[case::switched(json!({"blueGreen": {}}), Some(NEVER))]
#[case::at_once(json!({"canary": {}}), Some(NO_STEP))]
#[case::all_or_nothing(json!({"canary": {"steps": [{"setWeight": 0}, {"pause": {}}, {"setWeight": 100}]}}), Some(NO_STEP))]
#[case::side_by_side(json!({"canary": {"steps": [{"setWeight": 1}]}}), None)]
fn a_comparison_needs_minutes_in_which_both_serve(#[case] strategy: Value, #[case] told: Option<&str>) {
    let mut world = World::healthy(strategy.clone(), 4);
    world.edit(|spec| {
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": [against_stable()]})).unwrap();
    });
    world.set_image("v2");
    minutes(&mut world, 1);
    let refused = world.phase() == Phase::Invalid;
    assert_eq!(refused, told.is_some(), "{}", world.status().message);
    let at = if refused { "spec.analysis.metrics[0].compare: " } else { "" };
    assert!(world.status().message.starts_with(at), "{}", world.status().message);
    assert!(world.status().message.contains(told.unwrap_or_default()), "{}", world.status().message);

    // The same by a template.
    let spec = serde_json::from_value(json!({"metrics": [against_stable()]})).unwrap();
    let mut world = World::healthy(strategy, 4);
    world.templates = vec![NamedTemplate { name: "shared".into(), cluster_scope: false, spec }];
    world.edit(|spec| {
        let templates = json!([{"templateName": "shared"}]);
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "templates": templates})).unwrap();
    });
    world.set_image("v2");
    minutes(&mut world, 1);
    assert_eq!(world.phase() == Phase::Invalid, told.is_some(), "{}", world.status().message);
    assert!(world.status().message.contains(told.unwrap_or_default()), "{}", world.status().message);
}

#[rstest]
#[case::the_only_service("{{service}}", None, "{{service}} is the Service of both")]
#[case::a_service_of_its_own("{{service}}", Some("shop-candidate"), "")]
#[case::no_side_at_all("shop", Some("shop-candidate"), "name the side in it")]
fn a_comparison_of_the_same_series_is_refused(#[case] service: &str, #[case] own: Option<&str>, #[case] told: &str) {
    let comparing = |service: &str| {
        let prometheus = json!({"total": format!("all{{service=\"{service}\"}}"), "events": "bad{pod=~\"{{pods}}\"}"});
        json!({"name": "errors", "prometheus": prometheus, "compare": {"minRequests": 1}})
    };
    let template =
        json!({"args": [{"name": "service", "value": "{{pods}}"}], "metrics": [comparing("{{args.service}}")]});
    let template =
        NamedTemplate { name: "shared".into(), cluster_scope: false, spec: serde_json::from_value(template).unwrap() };
    let args = json!([{"templateName": "shared", "args": [{"name": "service", "value": service}]}]);
    let analyses = [json!({"metrics": [comparing(service)]}), json!({"templates": args})];
    for (analysis, at) in analyses.into_iter().zip([
        "spec.analysis.metrics[0].prometheus.total: ",
        "spec.analysis.templates: metric errors.prometheus.total: ",
    ]) {
        let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}]}}), 4);
        world.templates = vec![template.clone()];
        world.edit(|spec| {
            spec.traffic.as_mut().unwrap().candidate_service = own.map(str::to_owned);
            spec.analysis = serde_json::from_value(analysis).unwrap();
        });
        world.set_image("v2");
        minutes(&mut world, 1);
        let message = world.status().message;
        assert_eq!(world.phase() == Phase::Invalid, !told.is_empty(), "{message}");
        assert!(message.starts_with(if told.is_empty() { "" } else { at }) && message.contains(told), "{message}");
    }
}

#[rstest]
#[case::whole(true, VerdictOutcome::Pass)]
#[case::a_part(false, VerdictOutcome::Inconclusive)]
fn what_is_told_beside_an_answer_stands_in_the_message_and_a_part_is_no_proof(
    #[case] whole: bool,
    #[case] outcome: VerdictOutcome,
) {
    let metric: Metric = serde_json::from_value(error_rate(&json!({}))).unwrap();
    let at = Timestamp::from_millis(60_000);
    let noted = |value| Answer {
        id: String::new(),
        at,
        reply: Reply::Noted { reply: Box::new(Reply::Value(value)), note: "beware".into(), whole },
    };
    let mut state = measuring::begin(&metric, Timestamp::from_millis(0));
    measuring::take_in(&metric, None, &noted(0.01), &mut state);
    assert_eq!((state.outcome, state.passed_at), (outcome, Some(at).filter(|_| whole)));
    assert_eq!(state.message, "0.01 (max 0.05); beware");
    measuring::take_in(&metric, None, &noted(0.5), &mut state);
    assert_eq!(state.outcome, VerdictOutcome::Fail, "{}", state.message);
}

/// No data, good, bad, good, bad, bad.
#[test]
fn each_change_of_a_verdict_is_told_once() {
    let mut world = with_metric(error_rate(&json!({"failureThreshold": 2})));
    world.reply = |question| {
        Some(match question.id.rsplit('/').next() {
            Some("0" | "1") => Reply::NoData("no series".into()),
            Some("3" | "5" | "6") => Reply::Value(1.0),
            _ => Reply::Value(0.01),
        })
    };
    world.set_image("v2");
    let mut told = Vec::new();
    for _ in 0..40 {
        let events = world.pass().events.into_iter().filter(|event| event.reason.starts_with("Verdict"));
        told.extend(events.map(|event| (event.reason, event.warning)));
        world.wait(10);
    }
    let told: Vec<(&str, bool)> = told.iter().map(|(reason, warning)| (reason.as_str(), *warning)).collect();
    let (good, open) = (("VerdictPass", false), ("VerdictInconclusive", false));
    assert_eq!(told, [open, good, open, good, open, ("VerdictFail", true)]);
}
