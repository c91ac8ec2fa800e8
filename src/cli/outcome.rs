//! What has become of the spec as it is now: the judgement behind `status`. Pure.
//!
//! A status speaks of the spec only when it has seen its generation, and of an adopted Deployment
//! only when it has seen that one's: `kubectl set image` moves the Deployment's generation, not
//! the ServiceRelease's, and until the operator has looked, the status still praises the old one.

use serde::Serialize;

use super::exit;
use crate::api::{Phase, ServiceRelease, ServiceReleaseStatus};

/// Where the release of the present spec stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The status is not about the present spec yet, and why.
    Unseen(String),
    /// It is on its way.
    UnderWay,
    /// It waits for a person.
    WaitsForPerson,
    /// It is over.
    Over(End),
}

/// How a release can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum End {
    /// The spec is what serves.
    Healthy,
    /// Stable serves, not the spec.
    RolledBack,
    /// It cannot go on without a person.
    Halted,
    /// It cannot be acted on.
    Invalid,
}

impl End {
    /// The exit code of `status`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => exit::OK,
            Self::RolledBack => exit::ROLLED_BACK,
            Self::Halted => exit::HALTED,
            Self::Invalid => exit::INVALID,
        }
    }
}

/// The Deployment that a release adopted, as far as it counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// The release has its own template.
    None,
    /// The Deployment that is named does not exist.
    Missing,
    /// Its metadata.generation.
    Generation(i64),
}

/// Judges a release as it was read after the Deployment.
#[must_use]
pub fn judge(release: &ServiceRelease, workload: Workload) -> Outcome {
    let generation = release.metadata.generation.unwrap_or_default();
    let Some(status) = &release.status else {
        return Outcome::Unseen("the operator has not looked at it yet".to_owned());
    };
    if status.observed_generation < generation {
        return Outcome::Unseen(format!(
            "the operator has not looked at generation {generation} yet (it has seen {})",
            status.observed_generation
        ));
    }
    if let Workload::Generation(generation) = workload {
        let seen = status.workload.as_ref().map_or(0, |workload| workload.observed_generation);
        // A manifest that is Invalid may be so before its Deployment was looked at at all.
        if seen < generation && !(seen == 0 && status.phase == Phase::Invalid) {
            return Outcome::Unseen(format!(
                "the operator has not looked at generation {generation} of the Deployment yet (it has seen {seen})"
            ));
        }
    }
    match status.phase {
        Phase::Observing if failed_since(status) => Outcome::WaitsForPerson,
        Phase::Healthy | Phase::Observing if is_ready(release) => Outcome::Over(End::Healthy),
        Phase::RolledBack => Outcome::Over(End::RolledBack),
        Phase::Halted => Outcome::Over(End::Halted),
        Phase::Invalid => Outcome::Over(End::Invalid),
        Phase::AwaitingApproval | Phase::Paused => Outcome::WaitsForPerson,
        Phase::Pending
        | Phase::Preflight
        | Phase::Database
        | Phase::Progressing
        | Phase::Promoting
        | Phase::RollingBack
        | Phase::Healthy
        | Phase::Observing => Outcome::UnderWay,
    }
}

/// Whether something failed after the promotion that did not take the release back by itself.
fn failed_since(status: &ServiceReleaseStatus) -> bool {
    status.observation.as_ref().is_some_and(|observation| observation.failure.is_some())
}

/// Healthy is the phase of a spec that is stable; it counts when enough of its pods are there, too.
fn is_ready(release: &ServiceRelease) -> bool {
    let generation = release.metadata.generation.unwrap_or_default();
    let conditions = release.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == "Ready" && condition.status == "True")
        .any(|condition| condition.observed_generation.is_some_and(|seen| seen >= generation))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn release(generation: i64, observed: i64, phase: &str) -> ServiceRelease {
        let ready = if phase == "Healthy" { "True" } else { "False" };
        serde_json::from_value(json!({
            "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
            "metadata": {"name": "shop", "generation": generation},
            "spec": {"workloadRef": {"name": "shop"}},
            "status": {
                "observedGeneration": observed, "phase": phase,
                "workload": {"observedGeneration": 12, "revision": "a", "adoptedReplicas": 2},
                "conditions": [{
                    "type": "Ready", "status": ready, "reason": phase, "message": "",
                    "observedGeneration": observed, "lastTransitionTime": "2026-01-02T03:04:05Z",
                }],
            },
        }))
        .unwrap()
    }

    #[rstest]
    #[case("Healthy", Outcome::Over(End::Healthy))]
    #[case("RolledBack", Outcome::Over(End::RolledBack))]
    #[case("Halted", Outcome::Over(End::Halted))]
    #[case("Invalid", Outcome::Over(End::Invalid))]
    #[case("Paused", Outcome::WaitsForPerson)]
    #[case("AwaitingApproval", Outcome::WaitsForPerson)]
    #[case("Pending", Outcome::UnderWay)]
    #[case("Progressing", Outcome::UnderWay)]
    #[case("Promoting", Outcome::UnderWay)]
    #[case("RollingBack", Outcome::UnderWay)]
    fn each_phase_of_the_present_generation_is_what_it_says(#[case] phase: &str, #[case] outcome: Outcome) {
        assert_eq!(judge(&release(3, 3, phase), Workload::Generation(12)), outcome);
    }

    #[rstest]
    #[case("Healthy")]
    #[case("RolledBack")]
    #[case("Halted")]
    #[case("Invalid")]
    #[case("Paused")]
    fn no_phase_counts_for_a_generation_that_was_not_seen(#[case] phase: &str) {
        let seen = judge(&release(4, 3, phase), Workload::Generation(12));
        assert!(matches!(&seen, Outcome::Unseen(why) if why.contains("generation 4")), "{seen:?}");
        let seen = judge(&release(3, 3, phase), Workload::Generation(13));
        assert!(matches!(&seen, Outcome::Unseen(why) if why.contains("generation 13 of the Deployment")), "{seen:?}");
    }

    #[test]
    fn a_release_without_status_was_not_seen() {
        let mut new = release(1, 0, "Healthy");
        new.status = None;
        assert!(matches!(judge(&new, Workload::None), Outcome::Unseen(_)));
    }

    #[test]
    fn a_missing_deployment_is_the_operators_to_report() {
        assert_eq!(judge(&release(3, 3, "Invalid"), Workload::Missing), Outcome::Over(End::Invalid));
    }

    #[test]
    fn healthy_without_enough_pods_is_not_the_end() {
        let mut short = release(3, 3, "Healthy");
        short.status.as_mut().unwrap().conditions[0].status = "Unknown".into();
        assert_eq!(judge(&short, Workload::Generation(12)), Outcome::UnderWay);
        let mut old = release(3, 3, "Healthy");
        old.status.as_mut().unwrap().conditions[0].observed_generation = Some(2);
        assert_eq!(judge(&old, Workload::Generation(12)), Outcome::UnderWay);
    }
}
