//! The rules of `spec.analysis`, and of the templates that it refers to.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{
    Analysis, Duration, Metric, Override, Prometheus, Source, TemplateRef, Web, Workload, analysis::stays_below,
};

use super::{Violation, is_none, is_pods_or_percent, violation};

/// What is wrong with an analysis, and the metrics and templates in it.
pub fn analysis(analysis: &Analysis) -> Vec<Violation> {
    let Analysis { interval, max_duration, on_inconclusive, metrics, templates } = analysis;
    let mut found = Vec::new();
    if *interval < Duration::from_secs(1) {
        found.push(violation("spec.analysis.interval", "analysis.interval must be at least 1s"));
    }
    if metrics.is_empty() && templates.is_empty() {
        found.push(violation("spec.analysis", "analysis needs metrics, templates or both"));
    }
    if on_inconclusive.is_some() && max_duration.is_none() {
        found.push(violation("spec.analysis", "analysis.onInconclusive needs analysis.maxDuration"));
    }
    if max_duration.is_some_and(|longest| longest < *interval) {
        let message =
            "analysis.maxDuration must not be shorter than analysis.interval: nothing would have been measured yet";
        found.push(violation("spec.analysis.maxDuration", message));
    }
    for (index, it) in metrics.iter().enumerate() {
        found.extend(metric(&format!("spec.analysis.metrics[{index}]"), it));
    }
    for (index, template) in templates.iter().enumerate() {
        found.extend(overrides(&format!("spec.analysis.templates[{index}]"), template));
    }
    found
}

/// What is wrong with the limits that a release sets in a template.
fn overrides(place: &str, template: &TemplateRef) -> Vec<Violation> {
    let wrong = |(index, it): (usize, &Override)| {
        let limits = [it.threshold.is_some(), it.compare.is_some(), it.burn_rate.is_some()];
        let message = "exactly one of threshold, compare and burnRate is needed, that which the template's metric has";
        let one = limits.into_iter().filter(|set| *set).count() == 1;
        (!one).then(|| violation(format!("{place}.overrides[{index}]"), message))
    };
    template.overrides.iter().enumerate().filter_map(wrong).collect()
}

/// What is wrong with the metric at a place.
#[must_use]
pub fn metric(place: &str, metric: &Metric) -> Vec<Violation> {
    let Metric { prometheus, workload, threshold, compare, burn_rate, .. } = metric;
    let at = |field: &str| format!("{place}{field}");
    let mut found = Vec::new();
    if metric.sources().count() != 1 {
        found.push(violation(at(""), "exactly one of prometheus, web and workload is needed"));
    }
    let limits = [threshold.is_some(), compare.is_some(), burn_rate.is_some(), workload.is_some()];
    if limits.into_iter().filter(|set| *set).count() != 1 {
        let message = "exactly one of threshold, compare and burnRate is needed, and with workload none";
        found.push(violation(at(""), message));
    }
    let counts_ready = workload.as_ref().is_some_and(|it| it.min_ready.is_some());
    let counts_values = (metric.failure_threshold != 1 && !counts_ready) || metric.success_threshold != 1;
    if threshold.is_none() && counts_values {
        let message = "failureThreshold and successThreshold count values: they go with threshold, failureThreshold with workload.minReady, too";
        found.push(violation(at(""), message));
    }
    let least = threshold.and_then(|it| it.min_requests);
    if least.is_some() != prometheus.as_ref().is_some_and(|it| it.requests.is_some()) {
        let message = "threshold.minRequests and prometheus.requests go together";
        found.push(violation(at(""), message));
    }
    if threshold.is_some_and(|it| it.min.is_none() && it.max.is_none()) {
        found.push(violation(at(".threshold"), "threshold has min, max or both"));
    }
    found.extend(metric.sources().flat_map(|source| match source {
        Source::Prometheus(it) => of_prometheus(place, metric, it),
        Source::Web(it) => of_web(place, metric, it),
        Source::Workload(it) => of_workload(place, it),
    }));
    found
}

/// What is wrong with the question to a Prometheus.
fn of_prometheus(place: &str, metric: &Metric, it: &Prometheus) -> Vec<Violation> {
    let Metric { threshold, compare, burn_rate, .. } = metric;
    let mut found = Vec::new();
    if threshold.is_some() != it.query.is_some() {
        let message = "threshold needs prometheus.query, and nothing else does";
        found.push(violation(format!("{place}.prometheus"), message));
    }
    if it.query.is_some() && (it.total.is_some() || it.events.is_some() || it.good.is_some()) {
        let message = "prometheus has a query, or total with events or good, not both";
        found.push(violation(format!("{place}.prometheus"), message));
    }
    let counters = it.total.is_some() && it.events.is_some() != it.good.is_some();
    if (compare.is_some() || burn_rate.is_some()) != counters {
        let message =
            "compare and burnRate need prometheus.total and exactly one of prometheus.events and prometheus.good";
        found.push(violation(format!("{place}.prometheus"), message));
    }
    if compare.is_none() && it.stable.is_some() {
        found.push(violation(format!("{place}.prometheus.stable"), "prometheus.stable goes with compare"));
    }
    found
}

/// What is wrong with the limits of what is seen of pods.
fn of_workload(place: &str, it: &Workload) -> Vec<Violation> {
    let is_share = |min: &IntOrString| match min {
        IntOrString::Int(_) => true,
        IntOrString::String(text) => text.ends_with('%'),
    };
    let is_fit = |min: &IntOrString| is_pods_or_percent(min) && !is_none(min) && is_share(min);
    let wrong = it.min_ready.as_ref().is_some_and(|min| !is_fit(min));
    let message = "workload.minReady is a number of pods or 1% to 100%";
    wrong.then(|| violation(format!("{place}.workload.minReady"), message)).into_iter().collect()
}

/// What is wrong with the question to a web API.
fn of_web(place: &str, metric: &Metric, it: &Web) -> Vec<Violation> {
    let mut found = Vec::new();
    if metric.threshold.is_none() {
        found.push(violation(place, "web needs threshold"));
    }
    if !stays_below(&it.path) {
        let message = "web.path must stay below the provider's address: no //, no . or .. as a segment, no \\, no %2e, %2f, %5c or %25 before the ?";
        found.push(violation(format!("{place}.web.path"), message));
    }
    found
}
