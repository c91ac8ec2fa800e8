//! `ReleaseCommand`: what a person says to a release, once. Immutable; decided exactly once.

#![allow(clippy::duplicated_attributes)] // printcolumns share types and paths

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a person says to a release. It is Applied or Rejected with a reason, never kept waiting
/// for a better moment, and removed some time after.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "servicerelease.io",
    version = "v1alpha1",
    kind = "ReleaseCommand",
    plural = "releasecommands",
    shortname = "rcmd",
    namespaced,
    status = "ReleaseCommandStatus",
    derive = "PartialEq",
    doc = "Something a person says to a release: Promote, Abort, Undo, Retry, Approve, Pause, Resume or Skip.",
    printcolumn(name = "Release", type_ = "string", json_path = ".spec.release"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.requestedBy", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a command is immutable; create another"),
    validation = Rule::new("!(self.action in ['Promote', 'Approve', 'Skip', 'Retry']) || has(self.revision)").message("revision is required for Promote, Approve, Skip and Retry (status.candidate.revision, or the failed one for Retry)"),
    validation = Rule::new("!has(self.full) || self.action == 'Promote'").message("full goes with Promote only"),
    validation = Rule::new("!has(self.toRevision) || self.action == 'Undo'").message("toRevision goes with Undo only"),
    validation = Rule::new("!has(self.approval) || self.action == 'Approve'").message("approval goes with Approve only"),
    validation = Rule::new("!has(self.approval) || (self.approval.kind != 'Step') == has(self.approval.planHash)").message("approval.planHash goes with the kinds Migration, MigrateDown and Restore: it is status.database.planHash, or migrationDown.planHash there")
)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseCommandSpec {
    /// The name of the ServiceRelease in this namespace.
    #[schemars(length(min = 1, max = 52))]
    pub release: String,
    /// What to do.
    pub action: Action,
    /// The revision it is meant for; a command for another one is rejected. Required for Promote,
    /// Approve, Skip and Retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub revision: Option<String>,
    /// The step it is meant for (status.step.index); a late duplicate is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub step: Option<i32>,
    /// With Promote: pass all pauses that are left, too. Approvals and checks stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// With Approve: what is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<CommandApproval>,
    /// With Undo: the revision to go back to. Default: the previous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub to_revision: Option<String>,
    /// Why, for the timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// Who asks. The admission policy rejects another name than the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub requested_by: Option<String>,
}

/// What a person can say.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Pass the pause under way or switch blueGreen; with `full` all pauses.
    Promote,
    /// Take the release back.
    Abort,
    /// Go back to the previous revision after a promotion.
    Undo,
    /// Try the failed revision again.
    Retry,
    /// Pass the approval under way.
    Approve,
    /// Stay at this step.
    Pause,
    /// Go on after Pause, or pass a pause without duration.
    Resume,
    /// Pass the pause, the held failure or the verdicts under way that are not Pass.
    Skip,
}

/// What an Approve approves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CommandApproval {
    /// The kind of approval.
    pub kind: ApprovalKind,
    /// With Migration and Restore, the plan that is approved (status.database.planHash), with MigrateDown that of the way back
    /// (status.database.migrationDown.planHash): approval of another one is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 64))]
    pub plan_hash: Option<String>,
}

/// The kinds of approvals.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalKind {
    /// An approval step of the strategy.
    Step,
    /// The migration of the database.
    Migration,
    /// Taking the migration of the database back.
    MigrateDown,
    /// Restoring the database from the backup of the release.
    Restore,
}

/// What became of a command.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseCommandStatus {
    /// Applied or Rejected.
    pub phase: CommandPhase,
    /// Why, or what it did.
    #[schemars(length(max = 256))]
    pub message: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// Whether a command was followed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandPhase {
    /// It was followed.
    Applied,
    /// It was not, and never will be.
    Rejected,
}
