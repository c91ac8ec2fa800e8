//! Providers of metrics that the platform has not set up, or has taken away.

use std::sync::Arc;

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{error_rate, minutes, verdict, weight, with_metric},
    world::World,
};
use crate::{
    api::{Action, Phase, VerdictOutcome},
    engine::{NamedTemplate, Reply},
};

fn set_up(world: &mut World, providers: &[(&str, &'static str)]) {
    let known = providers.iter().map(|(name, field)| ((*name).to_owned(), *field)).collect();
    world.seen.providers = Some(Arc::new(known));
}

fn by_web(provider: &str) -> Value {
    let web = json!({"provider": provider, "path": "/p95", "value": "json.p95"});
    json!({"name": "latency", "web": web, "threshold": {"max": 1}})
}

fn by_query(provider: &str) -> Value {
    error_rate(&json!({"prometheus": {"provider": provider, "query": "up"}}))
}

#[rstest]
#[case::no_such_prometheus(
    by_query("nope"),
    "spec.analysis.metrics[0].prometheus.provider: the operator knows no provider nope; those that the platform has set up: apm, default"
)]
#[case::no_such_api(
    by_web("nope"),
    "spec.analysis.metrics[0].web.provider: the operator knows no provider nope; those that the platform has set up: apm, default"
)]
#[case::of_another_kind(
    by_query("apm"),
    "spec.analysis.metrics[0].prometheus.provider: provider apm is of kind web: ask it by web, or name another"
)]
fn a_release_whose_metrics_nobody_can_measure_does_not_begin(#[case] metric: Value, #[case] told: &str) {
    let mut world = with_metric(metric);
    set_up(&mut world, &[("default", "prometheus"), ("apm", "web")]);
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "ProviderUnknown"));
    assert_eq!((status.message.as_str(), world.condition("Stalled")), (told, "True".into()));
    assert!(status.next_action.contains("chart value providers"), "{}", status.next_action);
    assert_eq!((world.stable(), world.candidate(), world.seen.revisions.len()), ("v1".into(), None, 1));
    set_up(&mut world, &[("nope", metric_field(told)), ("apm", "prometheus")]);
    world.settle();
    assert_eq!(world.candidate(), Some(world.hash("v2")), "it goes on by itself: {}", world.status().message);
}

#[test]
fn a_release_with_a_check_of_a_host_that_may_not_be_asked_does_not_begin() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.seen.allowed_hosts = Some(Arc::new("payments.internal".parse().unwrap()));
    let checks = json!([{"name": "other", "when": ["AfterPromotion"], "http": {"host": "other.internal:8443"}}]);
    world.edit(|spec| spec.checks = serde_json::from_value(checks).unwrap());
    world.set_image("v2");
    world.settle();
    let status = world.status();
    let told = "spec.checks[0].http.host: the platform does not let checks ask other.internal:8443";
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "HostNotAllowed"));
    assert_eq!((status.message.as_str(), world.stable().as_str(), world.candidate()), (told, "v1", None));
    assert!(status.next_action.contains("chart value allowedHosts"), "{}", status.next_action);
    world.reply = |_| None;
    world.seen.allowed_hosts = Some(Arc::new("*.internal".parse().unwrap()));
    world.settle();
    assert_eq!(world.stable(), "v2", "it goes on by itself: {}", world.status().message);
    world.seen.allowed_hosts = Some(Arc::default());
    world.settle();
    assert_eq!(world.phase(), Phase::Observing, "one under way keeps its plan");
}

fn metric_field(told: &str) -> &'static str {
    if told.contains("web.provider") { "web" } else { "prometheus" }
}

#[test]
fn of_a_template_the_metric_is_named() {
    let mut world = with_metric(error_rate(&json!({})));
    set_up(&mut world, &[("default", "prometheus")]);
    let spec = serde_json::from_value(json!({"metrics": [by_web("apm")]})).unwrap();
    world.templates = vec![NamedTemplate { name: "golden".into(), cluster_scope: false, spec }];
    let templates = json!([{"templateName": "golden"}]);
    world.edit(|spec| spec.analysis.as_mut().unwrap().templates = serde_json::from_value(templates).unwrap());
    world.set_image("v2");
    world.settle();
    let told = "spec.analysis.templates: web.provider of metric latency: the operator knows no provider apm; those that the platform has set up: default";
    assert_eq!((world.phase(), world.status().message.as_str()), (Phase::Invalid, told));
}

/// The plan is pinned, and what the platform changes says nothing of the candidate, whatever providerError says.
#[test]
fn a_provider_that_is_taken_away_under_a_release_holds_it() {
    let mut world = with_metric(error_rate(&json!({"providerError": "Fail"})));
    set_up(&mut world, &[("default", "prometheus")]);
    world.reply = |_| Some(Reply::Value(0.0));
    world.set_image("v2");
    minutes(&mut world, 5);
    assert_eq!((weight(&world), verdict(&world).0), (50, VerdictOutcome::Pass));
    set_up(&mut world, &[]);
    world.reply = |_| Some(Reply::NoProvider("the operator knows no provider default".into()));
    minutes(&mut world, 10);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "AnalysisInconclusive"), "{}", status.message);
    assert!(status.message.contains("the operator knows no provider default"), "{}", status.message);
    assert_eq!((weight(&world), status.rollback), (50, None));
    world.say(Action::Skip, |command| command.revision = status.candidate.map(|it| it.revision));
    world.settle();
    assert_eq!(world.stable(), "v2", "a person may go on: {}", world.status().message);
}
