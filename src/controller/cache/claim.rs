//! What ServiceReleases lay claim to: each can belong to one of them only.

use std::{collections::BTreeMap, fmt};

use crate::api::ServiceReleaseSpec;

/// Something in a namespace that one ServiceRelease at a time can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// The Deployment of this name.
    Deployment(String),
    /// The Service of this name.
    Service(String),
    /// The pods with these labels.
    Selector(BTreeMap<String, String>),
}

impl Claim {
    /// All claims of a spec.
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
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment(name) => write!(f, "Deployment {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
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
