//! Metrics that nobody measured, and nobody measures any more: a release that was promoted without them says so.

use crate::api::{
    Metric, VerdictStatus,
    status::{MAX_TEXT, bounded},
};

use super::{
    pass::Pass,
    plan::{Policy, Step},
};

/// What helps where a strategy leaves no time to measure.
const REMEDY: &str = "add observation: {duration: 1h}, or to a canary a setWeight before the promotion";

/// At the promotion: tells which metrics were never measured, where that is not what a person wanted. Without pods
/// there is nothing to measure.
pub fn note(pass: &mut Pass<'_>, policy: &Policy) {
    let full = pass.status.release.as_ref().is_some_and(|release| release.full_promotion_by.is_some());
    if pass.replicas() == 0 || full || policy.observation.is_some() {
        return;
    }
    let analysis = policy.analysis.iter();
    let acting = analysis.flat_map(|it| &it.metrics).filter(|it| !it.dry_run && it.workload.is_none());
    let is_measured = |metric: &&Metric| {
        let mut known = pass.status.verdicts.iter();
        known.any(|state| state.name == metric.name && state.measured_at.is_some())
    };
    let open: Vec<&str> = acting.filter(|it| !is_measured(it)).map(|it| it.name.as_str()).collect();
    if open.is_empty() {
        return;
    }
    let remedy = if leaves_time(policy) { String::new() } else { format!(": {REMEDY}") };
    let message = format!("it was promoted, and {} never measured{remedy}", named(&open));
    let message = bounded(&message, 512);
    pass.status.note(pass.now, "Unproven", &message, None);
    if let Some(release) = &mut pass.status.release {
        release.unproven = Some(message);
    }
}

/// Whether a strategy has a step at which metrics are measured before the promotion.
#[must_use]
pub fn leaves_time(policy: &Policy) -> bool {
    let of_weight = policy.steps.iter().any(|step| matches!(step, Step::SetWeight(1..)));
    of_weight || (policy.is_routed() && policy.probes(policy.count()))
}

/// Whether no metric that acts was measured in the last release.
pub fn is_all(pass: &Pass<'_>) -> bool {
    !pass.status.verdicts.iter().any(|state| !state.dry_run && state.measured_at.is_some())
}

/// What is told of verdicts that were begun and that nothing goes on with.
pub fn told(pass: &Pass<'_>, verdicts: &[&VerdictStatus]) -> Option<String> {
    if pass.is_under_way() || pass.status.observation.is_some() {
        return None;
    }
    let open = verdicts.iter().filter(|state| state.measured_at.is_none()).map(|state| state.name.as_str());
    let open: Vec<&str> = open.collect();
    let known = pass.status.release.as_ref().and_then(|release| release.unproven.clone());
    let plain = || format!("{} not measured, and nothing measures any more", named(&open));
    (!open.is_empty()).then(|| bounded(&known.unwrap_or_else(plain), 512))
}

fn named(names: &[&str]) -> String {
    let (noun, verb) = if names.len() == 1 { ("metric", "was") } else { ("metrics", "were") };
    format!("{noun} {} {verb}", bounded(&names.join(", "), MAX_TEXT))
}
