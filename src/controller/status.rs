//! How a status is written: as the merge patch that makes the new one of the old, at once or, where
//! only counts of pods moved, a little later. And what is written by the shell itself, when there is
//! no decision: for objects that cannot be understood, and passes that broke.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{ServiceReleaseStatus, Timestamp, Weights, status::bounded};

use super::build;

/// How long a change of mere counts may wait for others, so that a rollout does not write once for
/// each pod.
const COUNTS_WAIT: Duration = Duration::from_secs(5);
/// The same where pods were lost that are still asked for.
const LOSSES_WAIT: Duration = Duration::from_millis(500);

/// The condition whose message is a count of pods.
const AVAILABLE: &str = "Available";

/// The merge patch from one status to another; none if they are the same.
///
/// # Errors
/// If a status cannot be written as JSON.
pub fn patch(
    old: Option<&ServiceReleaseStatus>,
    new: &ServiceReleaseStatus,
) -> Result<Option<Value>, serde_json::Error> {
    if old == Some(new) {
        return Ok(None);
    }
    let before = old.map(serde_json::to_value).transpose()?;
    let before = before.unwrap_or_else(|| json!({}));
    Ok(build::difference(&before, &serde_json::to_value(new)?))
}

/// How long after the last write the next may wait, if the statuses differ in nothing but how many pods
/// were counted.
#[must_use]
pub fn may_wait(old: &ServiceReleaseStatus, new: &ServiceReleaseStatus) -> Option<Duration> {
    let revisions = |status: &ServiceReleaseStatus| [status.stable.clone(), status.candidate.clone()];
    let lost = revisions(old).into_iter().zip(revisions(new)).any(|pair| match pair {
        (Some(old), Some(new)) => new.replicas >= old.replicas && new.available_replicas < old.available_replicas,
        _ => false,
    });
    (uncounted(old) == uncounted(new)).then_some(if lost { LOSSES_WAIT } else { COUNTS_WAIT })
}

fn uncounted(status: &ServiceReleaseStatus) -> ServiceReleaseStatus {
    let mut status = status.clone();
    let ServiceReleaseStatus { stable, candidate, previous, .. } = &mut status;
    for revision in [stable, candidate, previous].into_iter().flatten() {
        revision.replicas = 0;
        revision.ready_replicas = 0;
        revision.available_replicas = 0;
    }
    status.replicas = 0;
    if let Some(step) = &mut status.step {
        step.progress = None;
    }
    if status.reason == "PodsUnavailable" {
        // Its message says how many.
        status.message.clear();
        status.conditions.iter_mut().for_each(|condition| condition.message.clear());
    }
    status.weights = status.weights.map(|weights| Weights { observed: Default::default(), ..weights });
    // Its message says how many pods take traffic; whether they are enough is its status.
    for condition in status.conditions.iter_mut().filter(|condition| condition.type_ == AVAILABLE) {
        condition.message.clear();
    }
    status
}

/// Something that keeps the operator from deciding anything about an object.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Whether the object is to blame, so that its phase is Invalid.
    pub invalid: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
    /// What a person can do.
    pub next_action: String,
}

impl Trouble {
    /// The merge patch that puts it into a status, whatever else that holds; none if it says so.
    #[must_use]
    pub fn patch(&self, status: &Value, generation: i64, now: Timestamp) -> Option<Value> {
        let mut wanted = status.clone();
        let mut fields = json!({
            "reason": self.reason,
            "message": bounded(&self.message, 1024),
            "nextAction": bounded(&self.next_action, 1024),
            "conditions": self.conditions(status, generation, now),
        });
        if self.invalid {
            fields["phase"] = json!("Invalid");
            fields["observedGeneration"] = json!(generation);
        }
        build::merge(&mut wanted, &fields);
        build::difference(status, &wanted)
    }

    fn conditions(&self, status: &Value, generation: i64, now: Timestamp) -> Vec<Value> {
        let known = status.get("conditions").and_then(Value::as_array);
        let named = |condition: &&Value, kind: &str| condition.get("type").is_some_and(|t| t == kind);
        let find = |kind: &str| known.iter().copied().flatten().find(|c| named(c, kind));
        let own = [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")];
        let others = known.iter().copied().flatten();
        let others = others.filter(|c| !own.iter().any(|(kind, _)| named(c, kind)));
        let condition = |(kind, value): (&str, &str)| {
            let known = find(kind).filter(|c| c.get("status").is_some_and(|s| s == value));
            let since = known.and_then(|c| c.get("lastTransitionTime").cloned());
            // Conditions have whole seconds.
            let whole = json!(format!("{:.0}", now.inner()));
            json!({
                "type": kind,
                "status": value,
                "reason": self.reason,
                "message": bounded(&self.message, 1024),
                "observedGeneration": generation,
                "lastTransitionTime": since.unwrap_or(whole),
            })
        };
        others.cloned().chain(own.into_iter().map(condition)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RevisionStatus;

    fn trouble() -> Trouble {
        Trouble {
            invalid: true,
            reason: "Unparsable",
            message: "spec.replicas: invalid type".into(),
            next_action: "correct it".into(),
        }
    }

    #[test]
    fn a_count_in_the_message_of_available_is_a_count_and_its_status_is_not() {
        let status = |value: &str, message: &str| -> ServiceReleaseStatus {
            let condition = json!({"type": "Available", "status": value, "reason": "EnoughPods", "message": message,
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let status = ServiceReleaseStatus::default();
            let conditions = vec![serde_json::from_value(condition).unwrap()];
            ServiceReleaseStatus { conditions, ..status }
        };
        let old = status("True", "4 of 4 pods take traffic");
        assert_eq!(may_wait(&old, &status("True", "5 of 4 pods take traffic")), Some(COUNTS_WAIT));
        assert_eq!(may_wait(&old, &status("False", "3 of 4 pods take traffic")), None);
        let pods = |available: i32| ServiceReleaseStatus {
            stable: Some(RevisionStatus { replicas: 4, available_replicas: available, ..RevisionStatus::default() }),
            ..old.clone()
        };
        assert_eq!(may_wait(&pods(3), &pods(4)), Some(COUNTS_WAIT));
        assert_eq!(may_wait(&pods(4), &pods(3)), Some(LOSSES_WAIT));
    }

    #[test]
    fn what_is_said_already_is_not_said_again() {
        let first = trouble().patch(&json!({}), 3, Timestamp::from_millis(1_000));
        let mut status = json!({});
        build::merge(&mut status, &first.unwrap());
        assert_eq!(status["phase"], "Invalid");
        assert_eq!(status["observedGeneration"], 3);
        let later = Timestamp::from_millis(99_000);
        assert_eq!(trouble().patch(&status, 3, later), None);
        assert!(trouble().patch(&status, 4, later).is_some());
    }

    #[test]
    fn trouble_is_stalled_and_keeps_what_it_does_not_know() {
        let old = json!({"stable": {"revision": "a"}, "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Available", "status": "True"}]});
        let mut status = old.clone();
        build::merge(&mut status, &trouble().patch(&old, 1, Timestamp::from_millis(0)).unwrap());
        assert_eq!(status["stable"]["revision"], "a");
        let told: Vec<_> = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
            .collect();
        let wanted = [("Available", "True"), ("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")];
        assert_eq!(told, wanted);
    }
}
