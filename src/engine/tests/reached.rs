//! Before the candidate has requests: a provider that cannot be asked holds the release, whatever moves traffic.

use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{against_stable, error_rate, minutes, weight, with_metric},
    world::{World, is_before_requests, right, unanswered},
};
use crate::{
    api::{Action, Duration, Phase},
    engine::{Answer, Ask, Measure, NamedTemplate, Question, Reply, Selection},
};

const CANARY: &str = r#"{"canary": {"steps": [{"setWeight": 50}]}}"#;
const SWITCH: &str = r#"{"blueGreen": {}}"#;

/// v2 on its way by this strategy, under these metrics and what else the spec says, with these answers from the beginning.
fn begun(strategy: &str, metrics: &Value, more: fn(&mut World), reply: fn(&Question) -> Option<Reply>) -> World {
    let mut world = with_metric(error_rate(&json!({})));
    world.edit(|spec| {
        spec.strategy = serde_json::from_str(strategy).unwrap();
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": metrics})).unwrap();
    });
    more(&mut world);
    world.reply = reply;
    world.set_image("v2");
    minutes(&mut world, 10);
    world
}

fn away(question: &Question) -> Option<Reply> {
    let about_pods = matches!(question.ask, Ask::Metric { .. });
    Some(if about_pods { Reply::ProviderError("no connection".into()) } else { right() })
}

fn plain(_: &mut World) {}

fn observed(world: &mut World) {
    world.edit(|spec| spec.observation = serde_json::from_value(json!({"duration": "5m"})).unwrap());
}

fn asked_before(world: &mut World) {
    let check = json!([{"name": "health", "http": {}}]);
    world.edit(|spec| spec.checks = serde_json::from_value(check).unwrap());
}

fn condition(world: &World) -> (String, String, String) {
    let all = world.status().conditions;
    let it = all.into_iter().find(|it| it.type_ == "AnalysisPassed").unwrap();
    (it.status, it.reason, it.message)
}

#[rstest]
#[case::canary(CANARY, plain)]
#[case::canary_with_an_observation(CANARY, observed)]
#[case::no_weight(r#"{"canary": {}}"#, plain)]
#[case::switch(SWITCH, plain)]
#[case::switch_with_an_observation(SWITCH, observed)]
#[case::after_checks(SWITCH, asked_before)]
#[case::after_a_pause(r#"{"canary": {"steps": [{"pause": {"duration": "1m"}}, {"setWeight": 50}]}}"#, plain)]
fn an_outage_from_the_beginning_holds_the_release_before_it_has_requests(
    #[case] strategy: &str,
    #[case] more: fn(&mut World),
) {
    let mut world = begun(strategy, &json!([error_rate(&json!({}))]), more, away);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "AnalysisInconclusive"), "{}", status.message);
    let told = "metric error-rate is inconclusive: Prometheus default: no connection (max 0.05)";
    assert!(status.message.ends_with(&format!("stays at 0%: {told}")), "{}", status.message);
    let next = "it goes on by itself when the provider answers; or kubectl srel -n default skip shop | kubectl srel -n default abort shop";
    assert_eq!(status.next_action, next);
    assert_eq!(condition(&world), ("Unknown".into(), "Inconclusive".into(), told.into()));
    assert_eq!((weight(&world), world.stable().as_str(), status.rollback), (0, "v1", None));
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
    world.reply = |question| Some(if matches!(question.ask, Ask::Metric { .. }) { Reply::Value(0.0) } else { right() });
    minutes(&mut world, 10);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn testers_and_copies_are_requests_too() {
    for step in [
        json!({"setHeaderRoute": {"headers": [{"name": "x", "value": "y"}]}}),
        json!({"setMirrorRoute": {"percent": 10}}),
    ] {
        let router = |world: &mut World| {
            let router = json!({"gateway": {"parentRefs": [{"name": "edge"}]}});
            world.edit(|spec| spec.traffic.as_mut().unwrap().router = serde_json::from_value(router).unwrap());
            minutes(world, 2);
        };
        let strategy = json!({"canary": {"steps": [step, {"setWeight": 50}]}}).to_string();
        let world = begun(&strategy, &json!([error_rate(&json!({}))]), router, away);
        let status = world.status();
        assert_eq!(
            (status.reason.as_str(), status.step.unwrap().index),
            ("AnalysisInconclusive", 1),
            "{}",
            status.message
        );
    }
}

#[test]
fn each_metric_is_asked_once_and_again_after_the_interval() {
    let metrics = json!([error_rate(&json!({})), against_stable(), error_rate(&json!({"name": "dry", "dryRun": true})), {"name": "pods", "workload": {}}]);
    let mut world = begun(CANARY, &metrics, plain, |_| None);
    let status = world.status();
    let told = "stays at 0%: it is asked whether metric error-rate can be measured";
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Progressing, "Analyzing"));
    assert!(status.message.ends_with(told), "{}", status.message);
    let ids = |world: &mut World| world.pass().questions.into_iter().map(|it| it.id).collect::<Vec<_>>();
    let began = status.step.unwrap().started_at.as_millis();
    let both = |times: i32| ["error-rate", "errors-vs-stable"].map(|name| format!("reach/{name}/2/{began}/{times}"));
    assert_eq!(ids(&mut world), both(0));
    // Counters are asked for some minutes: of no time at all nobody would be asked.
    let question = world.pass().questions.remove(1);
    let Ask::Metric { measure, .. } = question.ask else { panic!("{question:?}") };
    assert!(matches!(&*measure, Measure::Counts { since, .. } if *since == world.now.minus(Duration::from_secs(600))));
    world.reply = |question| match question.id.contains("-vs-") {
        true => away(question),
        false => Some(Reply::NoData("no series".into())),
    };
    world.settle();
    assert!(world.status().message.contains("metric errors-vs-stable is inconclusive"), "{}", world.status().message);
    assert_eq!((ids(&mut world), world.pass().wake), (vec![], Some(world.now.plus(Duration::from_secs(30)))));
    world.reply = |_| None;
    world.wait(30);
    assert_eq!(ids(&mut world), both(1));
    world.reply = |_| Some(Reply::NoData("no series".into()));
    world.settle();
    assert_eq!((weight(&world), world.status().step.unwrap().unreached), (50, None), "{}", world.status().message);
}

#[rstest]
#[case::at_once(json!({"providerError": "Fail"}))]
#[case::in_a_row(json!({"providerError": "Fail", "failureThreshold": 3}))]
fn an_outage_that_is_to_fail_takes_it_back(#[case] more: Value) {
    let world = begun(SWITCH, &json!([error_rate(&more)]), plain, away);
    let status = world.status();
    let rollback = status.rollback.unwrap();
    assert_eq!((status.phase, rollback.reason.as_str()), (Phase::RolledBack, "AnalysisFailed"), "{}", status.message);
    assert_eq!(rollback.message, "metric error-rate failed: Prometheus default: no connection (max 0.05)");
    assert_eq!((rollback.from_weight, world.stable().as_str()), (0, "v1"));
}

#[test]
fn answers_in_vain_count_in_a_row() {
    let metric = error_rate(&json!({"providerError": "Fail", "failureThreshold": 3}));
    let mut world = begun(CANARY, &json!([metric]), plain, |question| match question.id.ends_with("/2") {
        true => Some(Reply::Value(0.0)),
        false => away(question).filter(|_| is_before_requests(question)),
    });
    assert_eq!((weight(&world), world.status().rollback), (50, None), "{}", world.status().message);
    world.reply = |_| Some(Reply::Value(0.0));
    minutes(&mut world, 1);
    assert_eq!(world.stable(), "v2");
}

#[rstest]
#[case::once_beside_another_outage(|round| round == 4, None)]
#[case::three_times_beside_it(|round| (4..=6).contains(&round), Some("metric strict failed: "))]
#[case::three_times_in_all(|round| [1, 2, 4].contains(&round), None)]
fn each_metric_counts_its_own_answers_in_vain(#[case] away_in: fn(i32) -> bool, #[case] told: Option<&str>) {
    let strict = error_rate(&json!({"name": "strict", "providerError": "Fail", "failureThreshold": 3}));
    let mut world = begun(CANARY, &json!([error_rate(&json!({})), strict]), plain, |_| None);
    for round in 0..8 {
        let questions = world.pass().questions;
        assert_eq!(questions.len(), 2, "{round}: {}", world.status().message);
        for question in questions {
            let lacks = !question.id.contains("/strict/") || away_in(round);
            let reply = if lacks { Reply::ProviderError("no connection".into()) } else { Reply::Value(0.0) };
            world.seen.answers.push(Answer { id: question.id, at: world.now, reply });
        }
        world.pass();
        if world.status().rollback.is_some() {
            break;
        }
        world.wait(30);
    }
    let message = world.status().rollback.map(|rollback| rollback.message);
    assert_eq!(message.is_some(), told.is_some(), "{message:?}");
    assert!(message.unwrap_or_default().starts_with(told.unwrap_or_default()));
}

#[rstest]
#[case::a_number(Reply::Value(9.0))]
#[case::nobody_called(Reply::NoData("there is no p95".into()))]
#[case::not_known(Reply::Senseless("status 404".into()))]
#[case::no_number(Reply::Refused("the value is no number".into()))]
fn a_web_api_that_does_not_know_the_candidate_yet_was_reached(#[case] reply: Reply) {
    let web = json!({"provider": "apm", "path": "/p95?app={{service}}", "value": "json.p95"});
    let metric = json!({"name": "latency", "web": web, "threshold": {"max": 1}});
    let mut world = begun(CANARY, &json!([metric]), plain, |_| None);
    let id = world.pass().questions.remove(0).id;
    world.seen.answers.push(Answer { id, at: world.now, reply });
    world.pass();
    assert_eq!((weight(&world), world.status().rollback), (50, None), "{}", world.status().message);
}

#[test]
fn a_status_that_is_no_answer_later_holds_the_release_then() {
    let metric = json!({"name": "latency", "web": {"provider": "apm", "path": "/", "value": "json.p95"}, "threshold": {"max": 1}});
    let world = begun(CANARY, &json!([metric]), plain, |_| Some(Reply::Senseless("status 404".into())));
    assert_eq!(weight(&world), 50);
    let told = "stays at 50%: metric latency is inconclusive: provider apm: status 404 (max 1)";
    assert!(world.status().message.ends_with(told), "{}", world.status().message);
}

#[test]
fn a_query_that_is_refused_holds_and_says_what_to_correct() {
    let metrics = json!([error_rate(&json!({"name": "first"})), error_rate(&json!({}))]);
    let world = begun(CANARY, &metrics, plain, |question| match question.id.contains("/first/") {
        true => away(question),
        false => Some(Reply::Refused("the query is refused: 1:5: parse error".into())),
    });
    let status = world.status();
    assert_eq!((status.reason.as_str(), weight(&world)), ("AnalysisInconclusive", 0));
    let told = "metric error-rate is inconclusive: Prometheus default: the query is refused: 1:5: parse error: correct the metric's prometheus.query (max 0.05)";
    assert!(status.message.ends_with(told), "{}", status.message);
    assert!(status.next_action.starts_with("correct the metric, then "), "{}", status.next_action);
}

/// A provider that the platform took away says nothing of the candidate, whatever providerError says.
#[test]
fn without_its_provider_a_release_is_held() {
    let metrics = json!([error_rate(&json!({"providerError": "Fail"}))]);
    let world = begun(CANARY, &metrics, plain, |_| Some(Reply::NoProvider("the operator knows no provider x".into())));
    assert_eq!((world.phase(), weight(&world)), (Phase::Paused, 0), "{}", world.status().message);
    assert!(world.status().message.ends_with("the operator knows no provider x"), "{}", world.status().message);
}

#[rstest]
#[case::skip(Action::Skip, false)]
#[case::full(Action::Promote, true)]
fn a_person_may_pass_over_it(#[case] action: Action, #[case] full: bool) {
    let mut world = begun(SWITCH, &json!([error_rate(&json!({}))]), plain, away);
    assert_eq!(world.phase(), Phase::Paused, "{}", world.status().message);
    world.say(action, |command| command.full = full);
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.answer());
}

#[test]
fn a_person_may_take_it_back_and_stable_is_never_asked_about() {
    let mut world = begun(SWITCH, &json!([error_rate(&json!({}))]), plain, away);
    world.say(Action::Abort, |_| {});
    minutes(&mut world, 1);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::RolledBack, "v1"), "{}", world.answer());
    assert_eq!(world.pass().questions, []);
}

#[test]
fn what_was_promoted_goes_back_without_an_answer() {
    let mut world = begun(SWITCH, &json!([error_rate(&json!({}))]), plain, |_| Some(Reply::Value(0.0)));
    assert_eq!(world.stable(), "v2");
    world.reply = away;
    world.say(Action::Undo, |_| {});
    minutes(&mut world, 1);
    assert_eq!(world.stable(), "v1", "{}", world.answer());
}

#[rstest]
#[case::it_goes_back("Rollback", Phase::RolledBack, 0)]
#[case::it_waits_for_a_person("Hold", Phase::Paused, 0)]
#[case::it_goes_on("Promote", Phase::Paused, 50)]
fn nobody_waits_for_an_answer_for_longer_than_is_said(#[case] then: &str, #[case] phase: Phase, #[case] expected: i32) {
    let mut world = with_metric(error_rate(&json!({})));
    let analysis =
        json!({"interval": "30s", "maxDuration": "5m", "onInconclusive": then, "metrics": [error_rate(&json!({}))]});
    world.edit(|spec| {
        spec.strategy = serde_json::from_str(CANARY).unwrap();
        spec.analysis = serde_json::from_value(analysis).unwrap();
    });
    world.reply = away;
    world.set_image("v2");
    minutes(&mut world, 4);
    assert_eq!((world.phase(), weight(&world)), (Phase::Paused, 0), "{}", world.status().message);
    assert!(world.status().message.contains("; at 1970-"), "{}", world.status().message);
    minutes(&mut world, 3);
    let status = world.status();
    assert_eq!((status.phase, weight(&world)), (phase, expected), "{}", status.message);
    assert_eq!(status.hold.is_some(), then == "Hold");
}

#[rstest]
#[case::of_the_first_revision(|_: &mut World| {})]
#[case::without_pods(|world: &mut World| {
    world.settle();
    world.edit(|spec| spec.replicas = Some(0));
    world.set_image("v2");
})]
fn nobody_is_asked_where_there_is_nothing_to_compare_with_or_to_watch(#[case] happen: fn(&mut World)) {
    let mut world = World::new(serde_json::from_str(SWITCH).unwrap(), 4);
    let analysis = json!({"metrics": [error_rate(&json!({}))]});
    world.edit(|spec| spec.analysis = serde_json::from_value(analysis).unwrap());
    world.reply = |_| panic!("it is asked");
    happen(&mut world);
    minutes(&mut world, 1);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

#[test]
fn the_metrics_of_a_template_are_asked_for_once_it_was_read() {
    let template = json!({"metrics": [error_rate(&json!({}))]});
    let mut world = with_metric(error_rate(&json!({})));
    world.templates = vec![NamedTemplate {
        name: "golden".into(),
        cluster_scope: false,
        spec: serde_json::from_value(template).unwrap(),
    }];
    world.edit(|spec| {
        spec.analysis = serde_json::from_value(json!({"templates": [{"templateName": "golden"}]})).unwrap();
    });
    world.reply = away;
    world.set_image("v2");
    minutes(&mut world, 2);
    let status = world.status();
    assert_eq!((status.reason.as_str(), weight(&world)), ("AnalysisInconclusive", 0), "{}", status.message);
}

#[test]
fn an_outage_while_the_candidate_has_no_requests_any_more_holds_it_too() {
    let strategy = r#"{"canary": {"steps": [{"setWeight": 50}, {"setWeight": 0}, {"pause": {"duration": "1h"}}, {"setWeight": 50}]}}"#;
    let mut world = begun(strategy, &json!([error_rate(&json!({}))]), plain, |_| Some(Reply::Value(0.0)));
    assert_eq!((world.status().step.unwrap().index, weight(&world)), (4, 0), "{}", world.status().message);
    world.reply = away;
    minutes(&mut world, 60);
    let status = world.status();
    assert_eq!((status.reason.as_str(), weight(&world)), ("AnalysisInconclusive", 0), "{}", status.message);
    world.reply = |_| Some(Reply::Value(0.0));
    minutes(&mut world, 2);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn maintenance_mode_is_not_put_on_before_the_metrics_can_be_measured() {
    let page = |world: &mut World| {
        world.edit(|spec| {
            let traffic = spec.traffic.as_mut().unwrap();
            traffic.router = serde_json::from_value(json!({"gateway": {"parentRefs": [{"name": "edge"}]}})).unwrap();
            traffic.maintenance = serde_json::from_value(json!({"service": "page"})).unwrap();
        });
        minutes(world, 2);
    };
    let mut world = begun(r#"{"blueGreen": {"maintenance": true}}"#, &json!([error_rate(&json!({}))]), page, away);
    let status = world.status();
    assert_eq!((status.reason.as_str(), status.step.unwrap().index), ("AnalysisInconclusive", 1), "{}", status.message);
    assert!(!status.message.contains("maintenance: all requests"), "{}", status.message);
    world.reply = |question| is_before_requests(question).then_some(Reply::Value(0.0));
    let mut asked = BTreeSet::new();
    for _ in 0..20 {
        asked.extend(world.pass().questions.into_iter().map(|it| it.id).filter(|id| id.starts_with("reach/")));
        world.wait(5);
    }
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
    assert_eq!(asked.len(), 1, "once it is on, nobody is waited for: {asked:?}");
}

/// The time in which it waited for an answer is none in which it made no progress.
#[rstest]
#[case::before_requests(away, 0)]
#[case::at_a_weight(unanswered, 50)]
fn a_pod_that_is_lost_after_a_long_outage_has_the_whole_of_its_time(
    #[case] reply: fn(&Question) -> Option<Reply>,
    #[case] expected: i32,
) {
    let mut world = begun(CANARY, &json!([error_rate(&json!({}))]), plain, reply);
    minutes(&mut world, 30);
    assert_eq!((world.status().reason.as_str(), weight(&world)), ("AnalysisInconclusive", expected));
    world.touch = |image, pod| pod.ready = image != "v2" || !pod.name.ends_with("-0");
    minutes(&mut world, 5);
    let status = world.status();
    assert_eq!((status.phase, weight(&world)), (Phase::Progressing, expected), "{}", status.message);
}
