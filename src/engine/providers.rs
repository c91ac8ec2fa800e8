//! Metrics that ask a provider which the platform has not set up, and checks that ask a host which it does not allow: told
//! before a release begins.

use crate::api::{
    Analysis, Metric,
    status::{MAX_TEXT, bounded},
};

use super::{invalid::Obstacle, observed::KnownProviders, pass::Pass, rest, templates};

/// What keeps a release from beginning. One under way keeps its plan: where the platform takes a provider or a host away
/// from under it, it is held by its verdicts or fails by its checks, and a person can go on or back.
pub fn fault(pass: &Pass<'_>) -> Option<Obstacle> {
    let target = pass.target.as_ref()?;
    let observed = pass.stable_hash().filter(|_| pass.status.observation.is_some());
    let planned = pass.is_alone() || pass.candidate_hash().or(observed) == Some(&target.hash);
    if planned || rest::is_latched(pass, &target.hash) {
        return None;
    }
    provider(pass).or_else(|| host(pass))
}

/// A host that no check may ask: it would fail a release that is good, perhaps when all traffic is its already.
fn host(pass: &Pass<'_>) -> Option<Obstacle> {
    let allowed = pass.seen.allowed_hosts.as_deref()?;
    let refused = pass.release.spec.checks.iter().enumerate().find_map(|(place, check)| {
        let host = check.http.as_ref()?.host.as_deref().filter(|host| !allowed.allows(host))?;
        Some((place, host))
    });
    let (place, host) = refused?;
    let message = format!("spec.checks[{place}].http.host: the platform does not let checks ask {host}");
    let remedy = "name another host, or ask the platform team to allow it (chart value allowedHosts); nothing that runs was changed";
    Some(Obstacle::new("HostNotAllowed", bounded(&message, MAX_TEXT), remedy))
}

fn provider(pass: &Pass<'_>) -> Option<Obstacle> {
    let known = pass.seen.providers.as_deref()?;
    let own = pass.release.spec.analysis.as_ref()?;
    // Templates are read for a release that is to begin; without them there are those of the release itself.
    let all = templates::resolve(own, &pass.seen.templates).unwrap_or_else(|_| own.clone());
    let of_templates = all.metrics.len() - own.metrics.len().min(all.metrics.len());
    let (place, field, why) = all.metrics.iter().enumerate().find_map(|(place, metric)| {
        let (field, why) = wrong(metric, known)?;
        Some((place, field, why))
    })?;
    let at = match place.checked_sub(of_templates) {
        Some(place) => format!("spec.analysis.metrics[{place}].{field}.provider"),
        None => format!("spec.analysis.templates: {field}.provider of metric {}", name(&all, place)),
    };
    let remedy = "correct the name, or ask the platform team for that provider (chart value providers); nothing that runs was changed";
    Some(Obstacle::new("ProviderUnknown", bounded(&format!("{at}: {why}"), MAX_TEXT), remedy))
}

fn name(analysis: &Analysis, place: usize) -> &str {
    analysis.metrics.get(place).map_or("", |metric| &metric.name)
}

/// The field of a metric whose provider is none, and why.
fn wrong(metric: &Metric, known: &KnownProviders) -> Option<(&'static str, String)> {
    let (field, name) = metric.provider()?;
    match known.get(name) {
        Some(kind) if *kind == field => None,
        Some(kind) => Some((field, format!("provider {name} is of kind {kind}: ask it by {kind}, or name another"))),
        None => Some((field, unknown(name, known))),
    }
}

/// That there is no provider of a name, and which there are.
#[must_use]
pub fn unknown(name: &str, known: &KnownProviders) -> String {
    let known: Vec<&str> = known.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("the operator knows no provider {name}; those that the platform has set up: {known}")
}
