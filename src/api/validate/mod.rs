//! The rules that a manifest has to keep beyond types, ranges and patterns: those that the CRDs
//! state in CEL, as functions, for whoever has no API server at hand. A test lists the rules of both.

mod analysis;
mod check;
mod database;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    Action, ApprovalKind, Canary, CanaryStep, CommandApproval, ReleaseCommandSpec, ServiceRelease, ServiceReleaseSpec,
};

pub use analysis::metric;

/// Longest name of a ServiceRelease: the names of its objects add a revision or a number.
pub const MAX_NAME: usize = 52;

/// A rule that is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `spec.strategy.canary.steps[2].setWeight`.
    pub field: String,
    /// The rule, in the words of the CRD.
    pub message: &'static str,
}

fn violation(field: impl Into<String>, message: &'static str) -> Violation {
    Violation { field: field.into(), message }
}

/// What a ServiceRelease violates. Rules about changes (what is immutable) need the old one, and
/// are the API server's alone.
#[must_use]
pub fn service_release(release: &ServiceRelease) -> Vec<Violation> {
    let mut found = Vec::new();
    if release.metadata.name.as_ref().is_some_and(|name| name.len() > MAX_NAME) {
        found.push(violation("metadata.name", "metadata.name must have at most 52 characters"));
    }
    found.extend(source(&release.spec));
    found.extend(release.spec.checks.iter().enumerate().flat_map(check::check));
    found.extend(release.spec.database.iter().flat_map(database::database));
    found.extend(release.spec.analysis.iter().flat_map(analysis::analysis));
    if let Some(traffic) = &release.spec.traffic
        && let Some(router) = &traffic.router
    {
        if traffic.candidate_service.is_none() {
            found.push(violation("spec.traffic", "traffic.router needs traffic.candidateService"));
        }
        if traffic.maintenance.is_some() && router.gateway.is_none() {
            found.push(violation("spec.traffic.maintenance", "traffic.maintenance needs traffic.router.gateway"));
        }
        let kinds = [router.gateway.is_some(), router.http_route.is_some(), router.custom.is_some()];
        if kinds.iter().filter(|set| **set).count() != 1 {
            let message = "exactly one of gateway, httpRoute and custom is needed";
            found.push(violation("spec.traffic.router", message));
        }
    }
    if let Some(strategy) = &release.spec.strategy {
        if strategy.canary.is_some() == strategy.blue_green.is_some() {
            found.push(violation("spec.strategy", "exactly one of canary and blueGreen is needed"));
        }
        let maintained = strategy.blue_green.as_ref().is_some_and(|it| it.maintenance);
        if maintained && release.spec.traffic.as_ref().is_none_or(|traffic| traffic.maintenance.is_none()) {
            let message = "blueGreen.maintenance needs traffic.maintenance";
            found.push(violation("spec.strategy.blueGreen.maintenance", message));
        }
        found.extend(strategy.canary.iter().flat_map(canary));
        found.extend(strategy.canary.iter().flat_map(|canary| unknown_checks(&release.spec, canary)));
        found.extend(strategy.canary.iter().flat_map(|canary| unrouted(&release.spec, canary)));
    }
    found
}

/// Steps that name a check that is not there.
fn unknown_checks(spec: &ServiceReleaseSpec, canary: &Canary) -> Vec<Violation> {
    let known = |name: &String| spec.checks.iter().any(|check| check.name == *name);
    let unknown = |(index, step): (usize, &CanaryStep)| {
        let lacks = step.check.iter().flatten().any(|name| !known(name));
        let field = format!("spec.strategy.canary.steps[{index}].check");
        lacks.then(|| violation(field, "a step names a check that is not in spec.checks"))
    };
    canary.steps.iter().enumerate().filter_map(unknown).collect()
}

/// What needs a router that is not there.
fn unrouted(spec: &ServiceReleaseSpec, canary: &Canary) -> Vec<Violation> {
    let router = spec.router();
    let sized = canary.dynamic_stable_scale.is_some() || canary.steps.iter().any(|step| step.scale.is_some());
    let probes = |step: &CanaryStep| step.set_header_route.is_some() || step.set_mirror_route.is_some();
    let mut found = Vec::new();
    if sized && router.is_none() {
        let message =
            "scale and dynamicStableScale need traffic.router: by the ratio of pods their number is the weight";
        found.push(violation("spec.strategy.canary", message));
    }
    if canary.steps.iter().any(probes) && router.is_none_or(|router| router.gateway.is_none()) {
        let message = "setHeaderRoute and setMirrorRoute need traffic.router.gateway: of a route of yours only the weights are set";
        found.push(violation("spec.strategy.canary.steps", message));
    }
    found
}

/// What is released: a template with its selector, or a workload.
fn source(spec: &ServiceReleaseSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    if spec.template.is_some() == spec.workload_ref.is_some() {
        found.push(violation("spec", "exactly one of template and workloadRef is needed"));
    }
    if spec.selector.is_some() != spec.template.is_some() {
        found.push(violation("spec", "selector and template go together; with workloadRef neither is set"));
    }
    if let (Some(selector), Some(template)) = (&spec.selector, &spec.template) {
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
        let has = |key: &String, value: &String| labels.and_then(|labels| labels.get(key)) == Some(value);
        if !selector.match_labels.iter().all(|(key, value)| has(key, value)) {
            found.push(violation(
                "spec.template.metadata.labels",
                "template.metadata.labels must contain every label of selector.matchLabels",
            ));
        }
    }
    found
}

fn canary(canary: &Canary) -> Vec<Violation> {
    let at = |index: usize| format!("spec.strategy.canary.steps[{index}]");
    let mut found = Vec::new();
    if is_none(&canary.max_surge) && is_none(&canary.max_unavailable) {
        found.push(violation("spec.strategy.canary", "maxSurge and maxUnavailable cannot both be 0"));
    }
    for (field, pods) in [("maxSurge", &canary.max_surge), ("maxUnavailable", &canary.max_unavailable)] {
        if !is_pods_or_percent(pods) {
            let message = "maxSurge and maxUnavailable are a number of pods or 0% to 100%";
            found.push(violation(format!("spec.strategy.canary.{field}"), message));
        }
    }
    if canary.dynamic_stable_scale.as_ref().is_some_and(|scale| !is_pods_or_percent(&scale.at_least)) {
        let message = "dynamicStableScale.atLeast is a number of pods or 0% to 100%";
        found.push(violation("spec.strategy.canary.dynamicStableScale", message));
    }
    let mut highest = 0;
    for (index, step) in canary.steps.iter().enumerate() {
        let CanaryStep { set_weight, set_header_route, set_mirror_route, scale, pause, approval, check } = step;
        let routes = [set_header_route.is_some(), set_mirror_route.is_some()];
        let others = [set_weight.is_some(), scale.is_some(), pause.is_some(), approval.is_some(), check.is_some()];
        if routes.iter().chain(&others).filter(|set| **set).count() != 1 {
            let message =
                "a step has exactly one of setWeight, setHeaderRoute, setMirrorRoute, scale, pause, approval, check";
            found.push(violation(at(index), message));
        }
        if scale.is_some_and(|scale| scale.replicas.is_some() && scale.percent.is_some()) {
            let field = format!("{}.scale", at(index));
            found.push(violation(field, "scale has replicas or percent, not both"));
        }
        if let Some(weight) = set_weight {
            if *weight < highest {
                let field = format!("{}.setWeight", at(index));
                found.push(violation(field, "setWeight must not fall from step to step"));
            }
            highest = highest.max(*weight);
        }
    }
    found
}

fn is_none(pods: &IntOrString) -> bool {
    match pods {
        IntOrString::Int(count) => *count == 0,
        IntOrString::String(text) => matches!(text.as_str(), "0" | "0%"),
    }
}

fn is_pods_or_percent(pods: &IntOrString) -> bool {
    let text = match pods {
        IntOrString::Int(count) => count.to_string(),
        IntOrString::String(text) => text.clone(),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.strip_suffix('%') {
        Some(percent) => {
            digits(percent)
                && (percent.len() == 1 || percent == "100" || (percent.len() == 2 && !percent.starts_with('0')))
        }
        None => digits(&text) && (text.len() <= 5 || text == "100000"),
    }
}

/// What a ReleaseCommand violates.
#[must_use]
pub fn release_command(spec: &ReleaseCommandSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    let needed = matches!(spec.action, Action::Promote | Action::Approve | Action::Skip | Action::Retry);
    if needed && spec.revision.is_none() {
        found.push(violation(
            "spec",
            "revision is required for Promote, Approve, Skip and Retry (status.candidate.revision, or the failed one for Retry)",
        ));
    }
    let only = [
        (spec.full.is_some(), Action::Promote, "spec.full", "full goes with Promote only"),
        (spec.to_revision.is_some(), Action::Undo, "spec.toRevision", "toRevision goes with Undo only"),
        (spec.approval.is_some(), Action::Approve, "spec.approval", "approval goes with Approve only"),
    ];
    for (set, action, field, message) in only {
        if set && spec.action != action {
            found.push(violation(field, message));
        }
    }
    let planned = |approval: &CommandApproval| (approval.kind != ApprovalKind::Step) == approval.plan_hash.is_some();
    if spec.approval.as_ref().is_some_and(|approval| !planned(approval)) {
        found.push(violation(
            "spec.approval",
            "approval.planHash goes with the kinds Migration, MigrateDown and Restore: it is status.database.planHash, or migrationDown.planHash there",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::CustomResourceExt as _;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::ReleaseCommand;

    fn release(change: impl FnOnce(&mut Value)) -> Vec<Violation> {
        let mut object = json!({
            "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease", "metadata": {"name": "shop"},
            "spec": {
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {"metadata": {"labels": {"app": "shop", "tier": "web"}}, "spec": {}},
                "strategy": {"canary": {"steps": [
                    {"setWeight": 10}, {"pause": {}}, {"setWeight": 10}, {"approval": {}}, {"setWeight": 50},
                ]}},
            },
        });
        change(&mut object);
        service_release(&serde_json::from_value(object).unwrap())
    }

    fn command(spec: Value) -> Vec<Violation> {
        release_command(&serde_json::from_value(spec).unwrap())
    }

    fn routed() -> Value {
        json!({"service": "shop", "candidateService": "preview", "router": {"httpRoute": {"name": "shop"}}})
    }

    /// One manifest for each rule; what each violates.
    fn broken() -> Vec<Vec<Violation>> {
        let steps = "/spec/strategy/canary/steps";
        vec![
            release(|it| it["metadata"]["name"] = json!("x".repeat(53))),
            release(|it| it["spec"]["workloadRef"] = json!({"name": "shop"})),
            release(|it| {
                it["spec"]["workloadRef"] = json!({"name": "shop"});
                it["spec"]["template"] = Value::Null;
            }),
            release(|it| it["spec"]["selector"]["matchLabels"]["app"] = json!("other")),
            release(|it| it["spec"]["strategy"]["blueGreen"] = json!({})),
            release(|it| it["spec"]["strategy"]["canary"]["maxSurge"] = json!("0%")),
            release(|it| it["spec"]["strategy"]["canary"]["maxSurge"] = json!("101%")),
            release(|it| {
                *it.pointer_mut(steps).unwrap() = json!([{"setWeight": 50}, {"pause": {}}, {"setWeight": 49}])
            }),
            release(|it| *it.pointer_mut(steps).unwrap() = json!([{"setWeight": 50, "pause": {}}])),
            release(|it| it["spec"]["traffic"] = json!({"service": "shop", "router": {"httpRoute": {"name": "shop"}}})),
            release(|it| {
                it["spec"]["traffic"] = json!({"service": "shop", "candidateService": "preview", "router": {}})
            }),
            release(|it| it["spec"]["strategy"]["canary"]["dynamicStableScale"] = json!({"atLeast": "50%"})),
            release(|it| *it.pointer_mut(steps).unwrap() = json!([{"setHeaderRoute": {}}])),
            release(|it| {
                it["spec"]["traffic"] = routed();
                it["spec"]["strategy"]["canary"]["dynamicStableScale"] = json!({"atLeast": "few"});
            }),
            release(|it| {
                it["spec"]["traffic"] = routed();
                *it.pointer_mut(steps).unwrap() = json!([{"scale": {"replicas": 1, "percent": 1}}]);
            }),
            release(|it| {
                it["spec"]["traffic"] = routed();
                it["spec"]["traffic"]["maintenance"] = json!({"service": "page"});
            }),
            release(|it| it["spec"]["strategy"] = json!({"blueGreen": {"maintenance": true}})),
            release(|it| *it.pointer_mut(steps).unwrap() = json!([{"check": ["smoke"]}])),
            release(|it| {
                it["spec"]["checks"] = json!([{"name": "a", "http": {}, "attempts": 2, "successThreshold": 2}]);
            }),
            release(|it| {
                it["spec"]["checks"] = json!([
                    {"name": "a", "interval": "99ms", "every": "999ms", "logs": {"pattern": "x", "min": 2, "max": 1}},
                    {"name": "b", "interval": "100ms", "every": "1s", "logs": {"pattern": "x", "min": 2}},
                ]);
            }),
            release(|it| {
                it["spec"]["checks"] = json!([
                    {"name": "a", "timeout": "61s", "http": {}},
                    {"name": "b", "timeout": "1m", "logs": {"pattern": "x"}},
                    {"name": "c", "timeout": "24h", "job": {"template": {"spec": {}}}},
                    {"name": "d", "timeout": "25h", "job": {"template": {"spec": {}}}},
                ]);
            }),
            release(|it| {
                it["spec"]["checks"] = json!([
                    {"name": "a", "http": {}, "logs": {"pattern": "x"}},
                    {"name": "b", "keys": [{"keys": ["A"]}]},
                    {"name": "c", "http": {"host": "a.example", "headers": [{"name": "hOST", "value": "b.example"}]}},
                    {"name": "d", "http": {"headers": [{"name": "Host", "value": "b.example"}]}},
                ]);
            }),
            release(|it| {
                it["spec"]["database"] = json!({"urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}});
                it["spec"]["checks"] = json!([
                    {"name": "a", "sql": {"query": "SELECT 1", "expect": "Value"}},
                    {"name": "b", "sql": {"query": "SELECT 1", "expect": "Value", "value": {}, "rows": {}}},
                ]);
            }),
            release(|it| {
                let sql = json!({"configMap": "a"});
                let pod = json!({"spec": {}});
                it["spec"]["database"] = json!({
                    "urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}},
                    "caFrom": {}, "backup": {}, "rehearsal": {}, "onRollback": "Restore",
                    "seed": {"imageFrom": {"container": "app"}, "sql": sql},
                    "migrationDown": {"sql": sql, "template": pod},
                    "verify": {"queries": [{"name": "a", "query": "SELECT 1", "expect": "Rows"}]},
                });
            }),
            release(|it| {
                it["spec"]["database"] = json!({
                    "urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}, "onRollback": "Keep",
                    "migration": {"template": {}},
                });
            }),
            release(|it| {
                it["spec"]["database"] = json!({
                    "urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}, "onRollback": "MigrateDown",
                    "migration": {"sql": {"configMap": "a"}},
                });
            }),
            release(|it| {
                let files = |set: &str| json!({"sql": {"configMap": "a", "set": set}});
                it["spec"]["database"] = json!({
                    "urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}},
                    "migration": files("default"), "migrationDown": files("other"), "seed": {"sql": {"configMap": "b"}},
                });
            }),
            release(|it| {
                let metric = |prometheus: Value, limits: Value| {
                    let mut metric = json!({"name": "a", "prometheus": prometheus});
                    metric.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
                    metric
                };
                let limit = json!({"threshold": {"max": 1}});
                it["spec"]["analysis"] = json!({"metrics": [
                    metric(json!({"query": "up"}), json!({"threshold": {}})),
                    metric(json!({}), limit.clone()),
                    metric(json!({"total": "a", "events": "b", "good": "c"}), json!({"compare": {}})),
                    metric(json!({"query": "up"}), json!({"threshold": {"max": 1}, "compare": {}})),
                    metric(json!({"query": "up"}), limit.clone()),
                    {"name": "a", "workload": {}, "prometheus": {"query": "up"}},
                    {"name": "a", "workload": {}},
                    {"name": "a", "workload": {}, "failureThreshold": 2},
                    metric(json!({"total": "a", "good": "b", "stable": {}}), json!({"burnRate": {"objective": 0.99}})),
                    metric(json!({"query": "up", "requests": "up"}), limit.clone()),
                    metric(json!({"query": "up"}), json!({"threshold": {"max": 1, "minRequests": 5}})),
                    {"name": "a", "web": {"path": "/a/../b", "value": "json.a"}, "burnRate": {"objective": 1}},
                    {"name": "a", "web": {"path": "/a?b=../c//", "value": "json.a"}, "threshold": {"max": 1}},
                    metric(json!({"total": "a", "good": "b"}), json!({"burnRate": {"objective": 0.99}})),
                    metric(json!({"query": "up", "total": "a"}), limit.clone()),
                    {"name": "a", "workload": {"minReady": "75%"}, "failureThreshold": 2},
                    {"name": "a", "workload": {"minReady": 3}, "successThreshold": 2},
                    {"name": "a", "workload": {"minReady": "0%"}},
                    {"name": "a", "workload": {"minReady": "3"}},
                ]});
            }),
            release(|it| {
                let metrics = json!([{"name": "a", "workload": {}}]);
                it["spec"]["analysis"] = json!({"onInconclusive": "Hold", "metrics": metrics});
            }),
            release(|it| {
                let metrics = json!([{"name": "a", "workload": {}}]);
                it["spec"]["analysis"] = json!({"interval": "1m", "maxDuration": "30s", "metrics": metrics});
            }),
            release(|it| {
                let metrics = json!([{"name": "a", "workload": {}}]);
                it["spec"]["analysis"] = json!({"interval": "500ms", "metrics": metrics});
            }),
            release(|it| it["spec"]["analysis"] = json!({"templates": []})),
            release(|it| {
                let overrides = json!([{"name": "a"}, {"name": "b", "compare": {}}]);
                it["spec"]["analysis"] = json!({"templates": [{"templateName": "a", "overrides": overrides}]});
            }),
            command(json!({"release": "shop", "action": "Promote"})),
            command(json!({"release": "shop", "action": "Abort", "full": true})),
            command(json!({"release": "shop", "action": "Abort", "toRevision": "a"})),
            command(json!({"release": "shop", "action": "Abort", "approval": {"kind": "Step"}})),
            command(json!({"release": "shop", "action": "Approve", "revision": "a", "approval": {"kind": "Restore"}})),
        ]
    }

    #[test]
    fn a_manifest_that_keeps_the_rules_violates_none() {
        assert_eq!(release(|_| {}), []);
        assert_eq!(command(json!({"release": "shop", "action": "Promote", "revision": "a", "full": true})), []);
        assert_eq!(command(json!({"release": "shop", "action": "Abort"})), []);
    }

    #[test]
    fn each_broken_rule_is_found_once() {
        let found: Vec<Vec<String>> =
            broken().into_iter().map(|all| all.into_iter().map(|it| it.field).collect()).collect();
        assert_eq!(
            found,
            [
                vec!["metadata.name"],
                vec!["spec"],
                vec!["spec"],
                vec!["spec.template.metadata.labels"],
                vec!["spec.strategy"],
                vec!["spec.strategy.canary"],
                vec!["spec.strategy.canary.maxSurge"],
                vec!["spec.strategy.canary.steps[2].setWeight"],
                vec!["spec.strategy.canary.steps[0]"],
                vec!["spec.traffic"],
                vec!["spec.traffic.router"],
                vec!["spec.strategy.canary"],
                vec!["spec.strategy.canary.steps"],
                vec!["spec.strategy.canary.dynamicStableScale"],
                vec!["spec.strategy.canary.steps[0].scale"],
                vec!["spec.traffic.maintenance"],
                vec!["spec.strategy.blueGreen.maintenance"],
                vec!["spec.strategy.canary.steps[0].check"],
                vec!["spec.checks[0]"],
                vec!["spec.checks[0].interval", "spec.checks[0].every", "spec.checks[0].logs"],
                vec!["spec.checks[0].timeout", "spec.checks[3].timeout"],
                vec!["spec.checks[0]", "spec.checks[1].keys[0]", "spec.checks[2].http"],
                vec!["spec.checks[0].sql", "spec.checks[1].sql", "spec.checks[1].sql.value", "spec.checks[1].sql.rows"],
                vec![
                    "spec.database",
                    "spec.database",
                    "spec.database",
                    "spec.database",
                    "spec.database.backup",
                    "spec.database.seed",
                    "spec.database.migrationDown",
                    "spec.database.caFrom",
                    "spec.database.verify.queries[0]",
                ],
                vec!["spec.database"],
                vec!["spec.database"],
                vec!["spec.database", "spec.database"],
                vec![
                    "spec.analysis.metrics[0].threshold",
                    "spec.analysis.metrics[1].prometheus",
                    "spec.analysis.metrics[2].prometheus",
                    "spec.analysis.metrics[3]",
                    "spec.analysis.metrics[3].prometheus",
                    "spec.analysis.metrics[5]",
                    "spec.analysis.metrics[5].prometheus",
                    "spec.analysis.metrics[7]",
                    "spec.analysis.metrics[8].prometheus.stable",
                    "spec.analysis.metrics[9]",
                    "spec.analysis.metrics[10]",
                    "spec.analysis.metrics[11]",
                    "spec.analysis.metrics[11].web.path",
                    "spec.analysis.metrics[14].prometheus",
                    "spec.analysis.metrics[16]",
                    "spec.analysis.metrics[17].workload.minReady",
                    "spec.analysis.metrics[18].workload.minReady",
                ],
                vec!["spec.analysis"],
                vec!["spec.analysis.maxDuration"],
                vec!["spec.analysis.interval"],
                vec!["spec.analysis"],
                vec!["spec.analysis.templates[0].overrides[0]"],
                vec!["spec"],
                vec!["spec.full"],
                vec!["spec.toRevision"],
                vec!["spec.approval"],
                vec!["spec.approval"],
            ]
        );
    }

    #[rstest]
    #[case(json!(0), json!("0%"), false)]
    #[case(json!("25%"), json!(0), true)]
    #[case(json!(0), json!(1), true)]
    fn one_of_surge_and_unavailable_has_to_be_there(
        #[case] surge: Value,
        #[case] unavailable: Value,
        #[case] kept: bool,
    ) {
        let found = release(|it| {
            it["spec"]["strategy"]["canary"]["maxSurge"] = surge;
            it["spec"]["strategy"]["canary"]["maxUnavailable"] = unavailable;
        });
        assert_eq!(found.is_empty(), kept);
    }

    #[rstest]
    #[case(json!(100_000), true)]
    #[case(json!(100_001), false)]
    #[case(json!(-1), false)]
    #[case(json!("3"), true)]
    #[case(json!("100%"), true)]
    #[case(json!("0%"), true)]
    #[case(json!("05%"), false)]
    #[case(json!("%"), false)]
    #[case(json!("a few"), false)]
    fn pods_are_a_number_or_a_percentage(#[case] pods: Value, #[case] kept: bool) {
        let found = release(|it| {
            it["spec"]["strategy"]["canary"]["maxSurge"] = pods;
            it["spec"]["strategy"]["canary"]["maxUnavailable"] = json!(1);
        });
        assert_eq!(found.is_empty(), kept, "{found:?}");
    }

    /// The messages of the CRDs' rules, without those about changes.
    fn rules_of_the_crds() -> BTreeSet<String> {
        fn collect(schema: &Value, into: &mut BTreeSet<String>) {
            let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
            for rule in rules.into_iter().flatten() {
                if !rule["rule"].as_str().unwrap().contains("oldSelf") {
                    into.insert(rule["message"].as_str().unwrap().to_owned());
                }
            }
            match schema {
                Value::Object(map) => map.values().for_each(|value| collect(value, into)),
                Value::Array(list) => list.iter().for_each(|value| collect(value, into)),
                _ => {}
            }
        }
        let mut rules = BTreeSet::new();
        for crd in [ServiceRelease::crd(), ReleaseCommand::crd()] {
            collect(&serde_json::to_value(crd).unwrap(), &mut rules);
        }
        rules
    }

    #[test]
    fn every_rule_of_the_crds_is_a_rule_here_in_the_same_words() {
        let here: BTreeSet<String> = broken().into_iter().flatten().map(|it| it.message.to_owned()).collect();
        assert_eq!(here, rules_of_the_crds());
    }
}
