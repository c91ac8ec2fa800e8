//! AnalysisTemplates: what they put into an analysis, when they are read, and what does not go together.

use rstest::rstest;
use serde_json::{Value, json};

use super::world::World;
use crate::{
    api::{Analysis, AnalysisTemplateSpec, Phase},
    engine::{
        Ask, Effect, Measure, NamedTemplate, Reply,
        templates::{Fault, resolve, unsound},
    },
};

/// Errors and latency of a Service, with a limit and a path that a release may choose.
fn golden() -> NamedTemplate {
    let spec = json!({
        "args": [{"name": "service", "value": "{{service}}"}, {"name": "quantile", "value": "0.95"}, {"name": "team"}],
        "metrics": [
            {
                "name": "errors",
                "prometheus": {"query": "errors{service=\"{{args.service}}\",team=\"{{args.team}}\"}"},
                "threshold": {"max": 0.05},
            },
            {
                "name": "latency",
                "web": {"provider": "apm", "path": "/q/{{args.quantile}}?s={{args.service}}", "value": "json.ms"},
                "threshold": {"max": 500},
            },
        ],
    });
    NamedTemplate { name: "golden".into(), cluster_scope: true, spec: serde_json::from_value(spec).unwrap() }
}

fn analysis(templates: Value, metrics: Value) -> Analysis {
    serde_json::from_value(json!({"templates": templates, "metrics": metrics})).unwrap()
}

fn golden_with(more: Value) -> Value {
    let mut reference = json!({
        "templateName": "golden", "clusterScope": true, "args": [{"name": "team", "value": "shop"}],
    });
    reference.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([reference])
}

#[test]
fn arguments_defaults_and_limits_are_put_in() {
    let args = json!([{"name": "team", "value": "a b"}, {"name": "quantile", "value": "p 99"}]);
    let overrides = json!([{"name": "errors", "threshold": {"max": 0.01}}]);
    let own = json!([{"name": "restarts", "workload": {}}]);
    let found =
        resolve(&analysis(golden_with(json!({"args": args, "overrides": overrides})), own), &[golden()]).unwrap();
    let names: Vec<&str> = found.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["errors", "latency", "restarts"]);
    assert!(found.metrics.iter().all(|metric| !metric.dry_run));
    let query = found.metrics[0].prometheus.as_ref().unwrap().query.as_deref();
    assert_eq!(query, Some("errors{service=\"{{service}}\",team=\"a b\"}"));
    assert_eq!(found.metrics[0].threshold.unwrap().max, Some(0.01));
    assert_eq!(found.metrics[1].web.as_ref().unwrap().path, "/q/p%2099?s={{service}}");
    assert_eq!(found.templates, []);
}

#[rstest]
#[case::no_such_template(json!([{"templateName": "golden"}]), json!([]), "spec.analysis.templates[0]", "AnalysisTemplate golden")]
#[case::an_argument_is_missing(golden_with(json!({"args": []})), json!([]), "spec.analysis.templates[0].args", "ClusterAnalysisTemplate golden needs a value for team")]
#[case::an_argument_too_many(
    golden_with(json!({"args": [{"name": "team", "value": "a"}, {"name": "quantil", "value": "1"}]})), json!([]),
    "spec.analysis.templates[0].args[1]", "ClusterAnalysisTemplate golden has no argument quantil; it has service, quantile, team"
)]
#[case::a_limit_of_no_metric(
    golden_with(json!({"overrides": [{"name": "error", "threshold": {"max": 1}}]})), json!([]),
    "spec.analysis.templates[0].overrides[0]", "ClusterAnalysisTemplate golden has no metric error"
)]
#[case::a_limit_of_another_kind(
    golden_with(json!({"overrides": [{"name": "errors", "compare": {}}]})), json!([]),
    "spec.analysis.templates[0].overrides[0]", "metric errors of ClusterAnalysisTemplate golden has threshold"
)]
#[case::two_metrics_of_one_name(
    golden_with(json!({})), json!([{"name": "errors", "workload": {}}]),
    "spec.analysis", "there are two metrics errors, those of templates included"
)]
#[case::too_many(
    golden_with(json!({})), (0..7).map(|index| json!({"name": format!("m{index}"), "workload": {}})).collect(),
    "spec.analysis", "9 metrics, those of templates included; at most 8"
)]
#[case::a_path_that_leaves_its_place(
    golden_with(json!({"args": [{"name": "team", "value": "a"}, {"name": "quantile", "value": ".."}]})), json!([]),
    "spec.analysis.templates[0]", "ClusterAnalysisTemplate golden: spec.metrics[1].web.path: web.path must stay below"
)]
fn what_does_not_go_together_is_named(
    #[case] templates: Value,
    #[case] metrics: Value,
    #[case] at: &str,
    #[case] told: &str,
) {
    let (field, message) = match resolve(&analysis(templates, metrics), &[golden()]).unwrap_err() {
        Fault::Missing { field, template } => (field, template),
        Fault::Mismatch { field, message } => (field, message),
    };
    assert_eq!(field, at);
    assert!(message.starts_with(told), "{message}");
}

#[test]
fn a_template_may_be_tried_as_a_whole() {
    let args = json!([{"name": "team", "value": "a"}]);
    let own = json!([{"name": "restarts", "workload": {}}]);
    let tried = analysis(golden_with(json!({"args": args, "dryRun": true})), own);
    let found = resolve(&tried, &[golden()]).unwrap();
    let dry: Vec<bool> = found.metrics.iter().map(|metric| metric.dry_run).collect();
    assert_eq!(dry, [true, true, false]);
}

#[rstest]
#[case::a_word_that_it_does_not_know("{{args.x}}", "spec.metrics[0]", "{{args.x}} is not among spec.args")]
#[case::no_expression("json.", "spec.metrics[0].web.value", "")]
#[case::one_that_depends_on_a_release("json.{{args.a}}.b", "", "")]
fn a_template_is_sound_by_itself(#[case] value: &str, #[case] at: &str, #[case] told: &str) {
    let spec = json!({"args": [{"name": "a"}], "metrics": [
        {"name": "m", "web": {"path": "/", "value": value}, "threshold": {"max": 1}},
    ]});
    let spec: AnalysisTemplateSpec = serde_json::from_value(spec).unwrap();
    let (field, message) = unsound(&spec).unwrap_or_default();
    assert_eq!(field, at);
    assert!(message.starts_with(told), "{message}");
}

/// v1 Healthy, and the metrics of a template in the manifest of what comes next.
fn with_template() -> World {
    let strategy = json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "10m"}}]}});
    let mut world = World::healthy(strategy, 4);
    world.edit(|spec| {
        let overrides = json!([{"name": "errors", "threshold": {"max": 0.1}}]);
        spec.analysis = Some(analysis(golden_with(json!({"overrides": overrides})), json!([])));
    });
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "a template is not missed before it is needed");
    world.reply = |question| match &question.ask {
        Ask::Metric { measure, .. } => Some(Reply::Value(match &**measure {
            Measure::Value { .. } => 0.07,
            _ => 100.0,
        })),
        Ask::Http(_) | Ask::Logs(_) => None,
    };
    world
}

fn minutes(world: &mut World, minutes: usize) {
    for _ in 0..minutes * 6 {
        world.settle();
        world.wait(10);
    }
    world.settle();
}

#[test]
fn a_release_keeps_to_the_templates_as_they_stood_when_it_began() {
    let mut world = with_template();
    world.templates = vec![golden()];
    world.set_image("v2");
    minutes(&mut world, 2);
    let told: Vec<(String, String)> =
        world.status().verdicts.into_iter().map(|verdict| (verdict.name, verdict.message)).collect();
    let expected = [("errors", "0.07 (max 0.1)"), ("latency", "100 (max 500)")];
    assert_eq!(told, expected.map(|(name, message)| (name.to_owned(), message.to_owned())));
    // A stricter template counts from the next release on, and one that is gone is not missed now.
    world.templates.clear();
    minutes(&mut world, 2);
    assert!(!world.status().message.contains("edited meanwhile"), "{}", world.status().message);
    minutes(&mut world, 8);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn a_release_waits_for_a_template_that_is_not_there() {
    let mut world = with_template();
    world.set_image("v2");
    minutes(&mut world, 1);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "AnalysisTemplateNotFound"));
    assert_eq!(status.message, "spec.analysis.templates[0]: there is no ClusterAnalysisTemplate golden");
    assert!(status.candidate.is_none());
    world.templates = vec![golden()];
    minutes(&mut world, 12);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn a_plan_that_was_taken_away_is_not_pinned_without_its_templates() {
    let mut world = with_template();
    world.templates = vec![golden()];
    world.set_image("v2");
    minutes(&mut world, 1);
    world.seen.plans.clear();
    world.seen.plan_numbers.clear();
    world.templates.clear();
    world.log.clear();
    minutes(&mut world, 12);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Invalid, "v1"), "{}", world.status().message);
    assert!(!world.log.iter().any(|effect| matches!(effect, Effect::PinPlan(_))));
    world.templates = vec![golden()];
    minutes(&mut world, 12);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn a_failed_revision_stays_down_whatever_becomes_of_its_template() {
    let mut world = with_template();
    world.templates = vec![golden()];
    world.reply = |_| Some(Reply::Value(1000.0));
    world.set_image("v2");
    minutes(&mut world, 3);
    world.templates.clear();
    minutes(&mut world, 1);
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
}

#[test]
fn a_release_that_takes_the_place_of_another_reads_its_templates_first() {
    let mut world = with_template();
    world.templates = vec![golden()];
    world.set_image("v2");
    minutes(&mut world, 1);
    assert!(world.status().candidate.is_some());
    world.set_image("v3");
    minutes(&mut world, 14);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v3"), "{}", world.status().message);
    assert!(world.seen.plans.iter().filter(|plan| plan.number > 1).all(|plan| !plan.analysis_templates.is_empty()));
}
