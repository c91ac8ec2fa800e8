//! What ServiceReleases lay claim to: each can belong to one of them only.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{api::ServiceReleaseSpec, engine::preview};

/// Something in a namespace that one ServiceRelease at a time can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// The Deployment of this name.
    Deployment(String),
    /// The Service of this name.
    Service(String),
    /// The pods with these labels.
    Selector(BTreeMap<String, String>),
    /// The HTTPRoute of this name. Releases may share one: each has rules of its own in it.
    Route(String),
}

impl Claim {
    /// What a spec wants for itself alone.
    #[must_use]
    pub fn of(spec: &ServiceReleaseSpec) -> Vec<Self> {
        let workload = spec.workload_ref.iter();
        let traffic = spec.traffic.iter();
        let services = traffic.flat_map(|traffic| [Some(&traffic.service), traffic.candidate_service.as_ref()]);
        workload
            .map(|workload| Self::Deployment(workload.name.clone()))
            .chain(services.flatten().cloned().map(Self::Service))
            .chain(spec.selector.iter().map(|selector| Self::Selector(selector.match_labels.clone())))
            .collect()
    }

    /// The route that a release of this name uses.
    #[must_use]
    pub fn route(name: &str, spec: &ServiceReleaseSpec) -> Option<Self> {
        let router = spec.router()?;
        if router.custom.is_some() {
            return None;
        }
        let users = router.http_route.as_ref().map(|route| route.name.as_str());
        Some(Self::Route(users.unwrap_or(name).to_owned()))
    }

    /// The route of the preview of a release with a route of its own.
    #[must_use]
    pub fn preview(name: &str, spec: &ServiceReleaseSpec) -> Option<Self> {
        spec.router()?.gateway.as_ref()?;
        Some(Self::Route(preview::name(name)))
    }

    /// The claims of a spec that cannot be read as a whole: what it holds stays its own meanwhile.
    #[must_use]
    pub fn of_unparsable(spec: &Value) -> Vec<Self> {
        let text = |pointer| spec.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let labels = spec.pointer("/selector/matchLabels").cloned();
        let labels = labels.and_then(|labels| serde_json::from_value(labels).ok());
        [
            text("/workloadRef/name").map(Self::Deployment),
            text("/traffic/service").map(Self::Service),
            text("/traffic/candidateService").map(Self::Service),
            labels.map(Self::Selector),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment(name) => write!(f, "Deployment {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Route(name) => write!(f, "HTTPRoute {name}"),
            Self::Selector(labels) => {
                f.write_str("selector ")?;
                for (place, (key, value)) in labels.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma}{key}={value}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spec_claims_the_same_whether_it_parses_or_not() {
        let mut spec = json!({
            "selector": {"matchLabels": {"app": "shop", "tier": "web"}},
            "template": {"metadata": {"labels": {"app": "shop", "tier": "web"}}, "spec": {}},
            "traffic": {"service": "shop", "candidateService": "preview"},
        });
        let claims = Claim::of(&serde_json::from_value(spec.clone()).unwrap());
        spec["replicas"] = json!("many");
        assert_eq!(Claim::of_unparsable(&spec), claims);
        let texts: Vec<String> = claims.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["Service shop", "Service preview", "selector app=shop,tier=web"]);
        let adopting = json!({"workloadRef": {"name": "shop"}, "paused": 1});
        assert_eq!(Claim::of_unparsable(&adopting), [Claim::Deployment("shop".into())]);
    }
}
