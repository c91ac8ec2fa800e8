//! What is wrong with a check, a metric or the database's work that the CRD's schema cannot say.

use serde_json::Value;

use crate::{
    api::{CanaryStep, Check, HttpCheck, Metric, Moment, ServiceReleaseSpec},
    engine,
};

use super::{database, expect, logs, places, words};

/// A field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsound {
    /// Such as `spec.checks[0].logs.pattern`.
    pub field: String,
    /// In a line, with the remedy where there is one.
    pub message: String,
}

/// All that is wrong with checks, metrics and the database's work, in their order.
#[must_use]
pub fn unsound(spec: &ServiceReleaseSpec) -> Vec<Unsound> {
    let of_check = |(index, check)| {
        let faults = faults(check).into_iter().chain(places::faults(check, spec)).chain(twice(index, check, spec));
        let faults = faults.chain(leads_nowhere(check, spec));
        faults.map(move |(field, message)| Unsound { field: format!("spec.checks[{index}]{field}"), message })
    };
    let metrics = spec.analysis.iter().flat_map(|analysis| analysis.metrics.iter().enumerate());
    let urls = spec.database.is_some();
    let of_sql = |(index, check): (usize, &Check)| {
        let lacks = check.sql.as_ref().is_some_and(|sql| sql.url_from.is_none() && !urls);
        let message = "there is no database to ask: set spec.database.urlFrom, or urlFrom of the check".to_owned();
        lacks.then(|| Unsound { field: format!("spec.checks[{index}].sql.urlFrom"), message })
    };
    let of_metric = |(index, metric): (usize, &Metric)| {
        let of_value = || {
            let (field, expression) = metric.expression()?;
            Some((format!(".{field}"), expect::compiles(expression).err()?))
        };
        let word = words::of_metric(metric, |_| false).map(|(field, message)| (field.to_owned(), message));
        let of_sides = || {
            let (field, message) = engine::alike(metric, spec.traffic.as_ref())?;
            Some((field.to_owned(), message))
        };
        let (field, message) = word.or_else(of_value).or_else(of_sides)?;
        Some(Unsound { field: format!("spec.analysis.metrics[{index}]{field}"), message })
    };
    let of_compare = |(index, metric): (usize, &Metric)| {
        let message = metric.compare.and(incomparable(spec))?.to_owned();
        Some(Unsound { field: format!("spec.analysis.metrics[{index}].compare"), message })
    };
    let compares = metrics.clone().filter_map(of_compare);
    let checks = || spec.checks.iter().enumerate();
    checks()
        .flat_map(of_check)
        .chain(checks().filter_map(of_sql))
        .chain(metrics.filter_map(of_metric))
        .chain(compares)
        .chain(database::unsound(spec))
        .collect()
}

/// A step, and what is known of a check, go by its name.
fn twice(index: usize, check: &Check, spec: &ServiceReleaseSpec) -> Option<(&'static str, String)> {
    let first = spec.checks.iter().position(|other| other.name == check.name).filter(|first| *first < index)?;
    Some((".name", format!("spec.checks[{first}] is named {} too: give this one another name", check.name)))
}

/// A Job that goes to the candidate's Service needs one before the promotion: the other leads to stable, or to both.
fn leads_nowhere(check: &Check, spec: &ServiceReleaseSpec) -> Option<(&'static str, String)> {
    let named = check.job.as_ref().is_some_and(|job| job.template.to_string().contains("RELEASE_CANDIDATE_SERVICE"));
    let own = spec.traffic.as_ref().is_some_and(|traffic| traffic.candidate_service.is_some());
    let before = |when: &Moment| !matches!(when, Moment::AfterPromotion | Moment::AfterRollback);
    let lacks = named && !own && check.when.iter().any(before);
    lacks.then(|| {
        let why =
            "no Service leads to the candidate alone for RELEASE_CANDIDATE_SERVICE: set spec.traffic.candidateService";
        (".job.template", why.to_owned())
    })
}

/// Why candidate and stable of a release never serve the same minutes, so that nothing can be compared; none if they do.
#[must_use]
pub fn incomparable(spec: &ServiceReleaseSpec) -> Option<&'static str> {
    let strategy = spec.strategy.as_ref();
    if strategy.is_some_and(|strategy| strategy.blue_green.is_some()) {
        return Some(
            "in blueGreen candidate and stable never serve the same minutes, so that nothing can be compared: use \
             threshold, which is watched after the switch (spec.observation), or a canary",
        );
    }
    let steps = strategy.and_then(|strategy| strategy.canary.as_ref()).map_or(&[][..], |canary| &canary.steps);
    let shares = |step: &CanaryStep| {
        let headers = step.set_header_route.as_ref().is_some_and(|route| !route.headers.is_empty());
        step.set_weight.is_some_and(|weight| (1..100).contains(&weight)) || headers || step.set_mirror_route.is_some()
    };
    (!steps.iter().any(shares)).then_some(
        "no step of the canary lets candidate and stable serve at the same time, so that nothing can be compared: add \
         setWeight (1 to 99)",
    )
}

fn faults(check: &Check) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let of_candidate = check.http.as_ref().map_or(check.logs.is_some(), HttpCheck::is_of_candidate);
    if let Some(when) = check.when.iter().find(|when| of_candidate && when.is_before_pods()) {
        found.push((
            ".when",
            format!("at {when:?} the candidate has no pods yet: ask target Stable or Service, or at another moment"),
        ));
    }
    if let Some(Err(error)) = check.http.as_ref().and_then(|http| http.expect.cel.as_deref()).map(expect::compiles) {
        found.push((".http.expect.cel", error));
    }
    if let Some(error) = check.http.as_ref().and_then(words::of_path) {
        found.push((".http.path", error));
    }
    if let Some(Err(error)) = check.logs.as_ref().map(|logs| logs::compile(&logs.pattern)) {
        found.push((".logs.pattern", error));
    }
    let containers = |template: &Value| template.pointer("/spec/containers").is_some_and(Value::is_array);
    if check.job.as_ref().is_some_and(|job| !containers(&job.template)) {
        found.push((".job.template.spec.containers", "it is missing: it names what is to be run".to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_schema_cannot_say_is_found_and_named() {
        let checks = json!([
            {"name": "a", "when": ["Preflight"], "http": {}},
            {"name": "b", "when": ["Preflight"], "http": {"target": "Service"}},
            {"name": "c", "http": {"expect": {"cel": "json.a <"}}},
            {"name": "d", "logs": {"pattern": "("}},
            {"name": "e", "job": {"template": {"spec": {}}}},
            {"name": "f", "when": ["Preflight"], "keys": [{"secret": "env", "keys": ["A"]}]},
            {"name": "g", "sql": {"query": "SELECT 1", "urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}}},
            {"name": "h", "sql": {"query": "SELECT 1"}},
            {"name": "a", "keys": [{"secret": "env", "keys": ["A"]}]},
            {"name": "i", "http": {"path": "/{{pod}}", "expect": {"cel": "body.status == 'ok'"}}},
            {"name": "j", "job": {"template": {"spec": {"containers": [{"args": ["http://$(RELEASE_CANDIDATE_SERVICE)"]}]}}}},
        ]);
        let metrics = json!([
            {"name": "a", "web": {"provider": "apm", "path": "/", "value": "json."}, "threshold": {"max": 1}},
            {"name": "b", "prometheus": {"query": "up{pod=~'{{pod}}'}"}, "threshold": {"max": 1}},
            {"name": "c", "prometheus": {"total": "all", "events": "bad"}, "compare": {}},
        ]);
        let spec = json!({"checks": checks, "analysis": {"metrics": metrics}});
        let spec: ServiceReleaseSpec = serde_json::from_value(spec).unwrap();
        let fields: Vec<String> = unsound(&spec).into_iter().map(|found| found.field).collect();
        assert_eq!(
            fields,
            [
                "spec.checks[0].when",
                "spec.checks[2].http.expect.cel",
                "spec.checks[3].logs.pattern",
                "spec.checks[4].job.template.spec.containers",
                "spec.checks[8].name",
                "spec.checks[9].http.expect.cel",
                "spec.checks[9].http.path",
                "spec.checks[10].job.template",
                "spec.checks[7].sql.urlFrom",
                "spec.analysis.metrics[0].web.value",
                "spec.analysis.metrics[1].prometheus.query",
                "spec.analysis.metrics[2].prometheus.total",
                "spec.analysis.metrics[2].compare",
            ]
        );
    }
}
