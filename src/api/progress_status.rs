//! Where a release stands on its way forward and back: the step under way, what holds it up, and the rollback.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The step under way.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Its place, from 1. A command can name it.
    pub index: i32,
    /// How many steps there are.
    pub of: i32,
    /// What it is.
    pub name: StepName,
    /// Place, number and name in one, for the column.
    #[schemars(length(max = 64))]
    pub summary: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Who passed it, when a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub passed_by: Option<String>,
    /// Whether a person passed over what pods and metrics say at it, or do not say: by Skip, or by Promote over a failure.
    /// Approve, Resume and Promote pass an approval or a pause, and nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// When a person last said Retry, Skip or Promote to a failure: what pods and metrics said before is past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<Timestamp>,
    /// Since when it is done but for verdicts that are not all Pass: analysis.maxDuration counts from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven_since: Option<Timestamp>,
    /// The metric for which there was no answer when its provider was asked, before the candidate has requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreached: Option<Unreached>,
    /// How far it has come, and when it got there: the progress deadline runs from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<StepProgress>,
}

/// A metric that could not be measured if the candidate had requests.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Unreached {
    /// Its name; of several, the first.
    #[schemars(length(max = 63))]
    pub metric: String,
    /// Why there was no answer.
    #[schemars(length(max = 256))]
    pub message: String,
    /// Whether only another metric would help.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// How often in a row all metrics were asked, and one had no answer.
    pub times: i32,
    /// Metrics with providerError: Fail that had no answer, each with how often in a row, below its failureThreshold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub failures: BTreeMap<String, i32>,
    /// When the last answers came.
    pub at: Timestamp,
}

/// Progress of a step.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StepProgress {
    /// Available pods of the candidate less the pods of all other revisions: it rises with each pod that
    /// comes or makes way.
    pub pods: i32,
    /// When it rose last, or the route's weight last moved on.
    pub at: Timestamp,
}

/// The kinds of steps.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum StepName {
    /// Bring up the first candidate pods, without traffic.
    Prepare,
    /// Give the candidate a share of the traffic.
    SetWeight,
    /// Send the candidate the requests that carry certain headers.
    SetHeaderRoute,
    /// Send the candidate copies of requests.
    SetMirrorRoute,
    /// Give the candidate a number of pods apart from its weight.
    Scale,
    /// Stay for a while, or until Resume or Promote.
    Pause,
    /// Stay until Approve.
    Approval,
    /// Ask checks.
    Check,
    /// Work on the database.
    Database,
    /// Stay until a person approves the migration.
    MigrationApproval,
    /// Send all requests to the maintenance Service, until the candidate has all traffic.
    Maintenance,
    /// Give the candidate all traffic, and make it stable.
    Promote,
}

/// A failure that waits for a person.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// In a word for machines.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What failed, with the evidence.
    #[schemars(length(max = 512))]
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// A Pause command in force.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// Who paused; `unknown` if the command did not say.
    #[schemars(length(max = 253))]
    pub by: String,
    /// Why, as the command said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// Why traffic goes back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RollbackCause {
    /// The candidate failed.
    Failed,
    /// A person said Abort.
    Aborted,
    /// A person said Undo after the promotion.
    Undone,
    /// The template changed in the middle.
    Superseded,
}

/// A rollback.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RollbackStatus {
    /// Why it happens.
    pub cause: RollbackCause,
    /// The revision that loses its traffic.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// The release it belongs to.
    pub release: i64,
    /// In a word for machines.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What failed, with the evidence.
    #[schemars(length(max = 512))]
    pub message: String,
    /// Who asked for it, when a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub by: Option<String>,
    /// The candidate's share of the traffic when it began, in percent.
    pub from_weight: i32,
    /// Whether it got requests by their headers, or copies of some, apart from its share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probed: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// Until when the revision's pods stay, so that connections drain; set when traffic has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// A revision without traffic whose pods stay for a while.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Draining {
    /// The revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// When its pods go.
    pub until: Timestamp,
    /// From when on it is only kept for an undo (rollback.keepPrevious), with as many pods as replicas says: the next release
    /// ends that. Not set where its pods stay for their connections alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<Timestamp>,
}

impl StepName {
    /// Whether such a step waits for pods or traffic, and so has a deadline.
    #[must_use]
    pub const fn waits_for_cluster(self) -> bool {
        !matches!(self, Self::Pause | Self::Approval | Self::Check | Self::Database | Self::MigrationApproval)
    }
}
