//! A `compare` whose two sides ask for the same series: whatever the candidate does, it is as good as itself, and always
//! passes.

use crate::api::{Duration, Metric, ServiceRelease, ServiceReleaseSpec, Traffic};

use super::{
    measuring::{counters, of_stable},
    names::Sides,
};

/// Two revisions that have no letter in common.
const HASHES: [&str; 2] = ["bbbbbbbbbb", "cccccccccc"];

/// The first field of a metric with `compare` that asks for the same on both sides of a release with this traffic, and
/// what is wrong with the remedy.
#[must_use]
pub fn sides(metric: &Metric, traffic: Option<&Traffic>) -> Option<(&'static str, String)> {
    let it = metric.compare.and(metric.prometheus.as_ref())?;
    let release =
        ServiceRelease::new("release", ServiceReleaseSpec { traffic: traffic.cloned(), ..Default::default() });
    let [candidate, stable] = HASHES;
    let sides = Sides::new(&release, Duration::default(), candidate, stable);
    let (candidate, stable) = (counters(metric, &sides.candidate)?, of_stable(metric, &sides.stable)?);
    let own = it.stable.as_ref();
    let parts = [
        (".prometheus.total", Some(candidate.total), Some(stable.total), &it.total),
        (".prometheus.events", candidate.events, stable.events, &it.events),
        (".prometheus.good", candidate.good, stable.good, &it.good),
    ];
    let (field, .., text) =
        parts.into_iter().find(|(_, candidate, stable, _)| candidate.is_some() && candidate == stable)?;
    // Where stable has texts of its own they were meant to differ.
    let by_service = own.is_none() && text.as_ref().is_some_and(|text| text.contains("{{service}}"));
    let remedy = if by_service {
        "{{service}} is the Service of both without spec.traffic.candidateService: set it, or name the pods, pod=~\"{{pods}}\""
    } else {
        "name the side in it, pod=~\"{{pods}}\", or {{service}} with spec.traffic.candidateService"
    };
    let why = "both sides of compare ask for the same series, and the candidate is as good as itself";
    Some((field, format!("{why}: {remedy}")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const PODS: &str = r#"a{pod=~"{{pods}}"}"#;
    const BAD: &str = r#"a{pod=~"{{pods}}",code=~"5.."}"#;
    const SERVICE: &str = r#"a{service="{{service}}"}"#;
    const ALL: &str = r#"a{namespace="{{namespace}}",release="{{release}}"}"#;

    #[rstest]
    #[case::by_pods(json!({"total": PODS, "events": BAD}), None)]
    #[case::by_revision(json!({"total": "a{v=\"{{revision}}\"}", "good": "b{v=\"{{revision}}\"}"}), None)]
    #[case::by_nothing(json!({"total": ALL, "events": ALL}), Some((".prometheus.total", "name the side in it")))]
    #[case::events_of_all(json!({"total": PODS, "events": ALL}), Some((".prometheus.events", "name the side in it")))]
    #[case::good_of_all(json!({"total": PODS, "good": ALL}), Some((".prometheus.good", "name the side in it")))]
    #[case::by_the_only_service(json!({"total": SERVICE, "events": BAD}), Some((".prometheus.total", "{{service}} is the Service of both")))]
    #[case::by_texts_of_stable(json!({"total": ALL, "events": ALL, "stable": {"total": PODS, "events": BAD}}), None)]
    #[case::by_one_text_of_stable(
        json!({"total": ALL, "events": ALL, "stable": {"events": BAD}}), Some((".prometheus.total", "name the side in it"))
    )]
    fn sides_that_are_one_are_told(#[case] asks: Value, #[case] expected: Option<(&str, &str)>) {
        let found = sides(&comparing(&asks), Some(&traffic(json!({"service": "shop"}))));
        assert_eq!(found.as_ref().map(|(field, _)| *field), expected.map(|(field, _)| field), "{found:?}");
        let (_, message) = found.unwrap_or_default();
        assert!(message.contains(expected.map_or("", |(_, told)| told)), "{message}");
    }

    #[test]
    fn a_service_tells_sides_apart_where_the_candidate_has_its_own() {
        let metric = comparing(&json!({"total": SERVICE, "events": SERVICE}));
        assert!(sides(&metric, None).is_some());
        assert!(sides(&metric, Some(&traffic(json!({"service": "shop", "candidateService": "next"})))).is_none());
    }

    #[test]
    fn what_compares_nothing_has_no_sides() {
        let metric = json!({"name": "a", "prometheus": {"total": ALL, "events": ALL}, "burnRate": {"objective": 0.9}});
        assert!(sides(&serde_json::from_value(metric).unwrap(), None).is_none());
    }

    fn comparing(asks: &Value) -> Metric {
        serde_json::from_value(json!({"name": "a", "prometheus": asks, "compare": {}})).unwrap()
    }

    fn traffic(value: Value) -> Traffic {
        serde_json::from_value(value).unwrap()
    }
}
