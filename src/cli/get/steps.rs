//! The way of a release: which steps there are, which one is under way, until when. Pure.

use serde::Serialize;

use crate::{
    api::{ServiceReleaseSpec, StepName, StepStatus, Timestamp},
    engine::plan::{Policy, Situation, Step},
};

/// The step under way, among all.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Its place, from 1.
    pub index: i32,
    /// How many there are.
    pub of: i32,
    /// What it is, such as `pause 5m`.
    pub label: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ends by itself, if it is a pause with a duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it counts as failed, if it waits for the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Who passed it, when a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed_by: Option<String>,
    /// All steps in order; empty if the plan does not fit the status.
    pub all: Vec<String>,
}

/// Finds the step of the status in a plan.
#[must_use]
pub fn view(status: &StepStatus, plan: &ServiceReleaseSpec, situation: Situation) -> StepView {
    let policy = Policy::compile(plan, &[], situation);
    let step = policy.step(status.index);
    let fits = policy.count() == status.of && step.name() == status.name;
    let until = match step {
        Step::Pause(Some(duration)) if fits => Some(status.started_at.plus(duration)),
        _ => None,
    };
    StepView {
        index: status.index,
        of: status.of,
        label: if fits { label(&step) } else { name(status.name).to_owned() },
        started_at: status.started_at,
        until,
        deadline: (fits && status.name.waits_for_cluster()).then(|| status.started_at.plus(policy.deadline)),
        passed_by: status.passed_by.clone(),
        all: if fits { policy.steps.iter().map(label).collect() } else { Vec::new() },
    }
}

fn label(step: &Step) -> String {
    match step {
        Step::Pause(Some(duration)) => format!("pause {duration}"),
        Step::Pause(None) => "pause until resumed".to_owned(),
        other => other.to_string(),
    }
}

const fn name(name: StepName) -> &'static str {
    match name {
        StepName::Prepare => "prepare",
        StepName::SetWeight => "setWeight",
        StepName::SetHeaderRoute => "setHeaderRoute",
        StepName::SetMirrorRoute => "setMirrorRoute",
        StepName::Scale => "scale",
        StepName::Check => "check",
        StepName::Database => "database",
        StepName::MigrationApproval => "approval of the migration",
        StepName::Maintenance => "maintenance",
        StepName::Pause => "pause",
        StepName::Approval => "approval",
        StepName::Promote => "promote",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> ServiceReleaseSpec {
        serde_json::from_value(json!({"strategy": {"canary": {"steps": [
            {"setWeight": 25}, {"pause": {"duration": "5m"}}, {"approval": {}},
        ]}}}))
        .unwrap()
    }

    fn at(index: i32, of: i32, name: &str) -> StepStatus {
        serde_json::from_value(json!({
            "index": index, "of": of, "name": name, "summary": "", "startedAt": "2026-01-02T03:04:05Z", "fromWeight": 0,
        }))
        .unwrap()
    }

    #[test]
    fn a_pause_ends_its_duration_after_it_began() {
        let view = view(&at(3, 5, "pause"), &plan(), Situation::default());
        assert_eq!(view.label, "pause 5m");
        assert_eq!(view.until.unwrap().to_string(), "2026-01-02T03:09:05.000Z");
        assert_eq!(view.all, ["prepare", "setWeight 25", "pause 5m", "approval", "promote"]);
    }

    #[test]
    fn a_step_that_waits_for_pods_has_a_deadline() {
        let view = view(&at(2, 5, "setWeight"), &plan(), Situation::default());
        assert_eq!((view.label.as_str(), view.until), ("setWeight 25", None));
        assert_eq!(view.deadline.unwrap().to_string(), "2026-01-02T03:14:05.000Z");
    }

    #[test]
    fn the_first_revision_has_no_steps_between() {
        assert_eq!(
            view(&at(1, 2, "prepare"), &plan(), Situation { first: true, ..Situation::default() }).all,
            ["prepare", "promote"]
        );
    }

    #[test]
    fn a_plan_that_does_not_fit_gives_no_times() {
        let view = view(&at(3, 9, "pause"), &plan(), Situation::default());
        assert_eq!((view.label.as_str(), view.until), ("pause", None));
        assert!(view.all.is_empty());
    }
}
