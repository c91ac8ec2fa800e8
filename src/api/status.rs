//! `ServiceRelease.status`: what was observed, what is intended (`desired`), and the record of
//! decisions. Bounded: under 16 KiB as a rule, under 152 KiB if every field has all that it may (INVARIANTS S5).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{
    Action, CheckStatus, CommandPhase, DatabaseStatus, Draining, FlagsStatus, Hold, RollbackStatus, RouteStatus,
    StepStatus, Suspension, Timestamp, VerdictStatus, Weights,
};

/// Entries that [`ServiceReleaseStatus::timeline`] keeps.
pub const MAX_TIMELINE: usize = 30;
/// Entries that [`ServiceReleaseStatus::commands`] keeps.
pub const MAX_COMMANDS: usize = 20;
/// Entries that [`ServiceReleaseStatus::failed_revisions`] keeps.
pub const MAX_FAILED: usize = 5;
/// Entries that [`ServiceReleaseStatus::history`] keeps; the most that revisionHistoryLimit can ask for.
pub const MAX_HISTORY: usize = 20;
/// Images that a [`RevisionStatus`] lists.
pub const MAX_IMAGES: usize = 8;
/// Characters of any text that is composed of something observed.
pub const MAX_TEXT: usize = 256;

/// Where the release stands, on what evidence, and what a person can do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReleaseStatus {
    /// The metadata.generation that this status was decided on.
    #[serde(default)]
    pub observed_generation: i64,
    /// The adopted workload as it was last seen; its changes do not move metadata.generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadStatus>,
    /// The release under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseStatus>,
    /// What is going on, in a word.
    #[serde(default)]
    pub phase: Phase,
    /// Why the phase is what it is, in a word for machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The same for people, with absolute times.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// What a person can do, as a command, when the release waits for one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub next_action: String,
    /// Ready, Reconciling and Stalled (exactly one is True) as kstatus reads them, Available, and with analysis AnalysisPassed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The revision that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionStatus>,
    /// The revision that is being released, or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,
    /// The last stable revision, kept for undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RevisionStatus>,
    /// The step under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// How the traffic is meant to be shared, and how it is, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// A failure that waits for a person, because rollback.automatic is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The Pause command in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// The rollback under way, or the one that ended the last release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackStatus>,
    /// Revisions without traffic whose pods stay for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub draining: Vec<Draining>,
    /// The HTTPRoute that shares the traffic, if there is a router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteStatus>,
    /// The last outcome of each check of the release under way, or the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub checks: Vec<CheckStatus>,
    /// The last verdict of each metric of the release under way, or the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub verdicts: Vec<VerdictStatus>,
    /// What was done with the database in the release under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
    /// The feature flags that go with the code that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<FlagsStatus>,
    /// What is watched since the promotion, until it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<ObservationStatus>,
    /// Revisions that failed. A latched one is not started again by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub failed_revisions: Vec<FailedRevision>,
    /// Revisions that were stable, oldest first: where undo can go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub history: Vec<RecordedRevision>,
    /// The last commands that were decided, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub commands: Vec<CommandRecord>,
    /// What happened, oldest first; the newest entries are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 30))]
    pub timeline: Vec<TimelineEntry>,
    /// How many older entries the timeline no longer shows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeline_dropped: i64,
    /// Raised when the name of a revision was taken by another; part of the hash of new ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub collision_count: i64,
    /// The spec.retryToken that was acted on last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub retry_token: String,
    /// Pods that serve, for /scale: of all revisions in a canary, of the serving colour in blueGreen.
    #[serde(default)]
    pub replicas: i32,
    /// The label selector of those pods as a string, for /scale.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub selector: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
pub(super) const fn is_zero(count: &i64) -> bool {
    *count == 0
}

fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<Vec<Condition>>();
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema.insert("maxItems".into(), 8.into());
    schema
}

/// What is going on, in a word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Whether the release could be carried out is looked at.
    Preflight,
    /// The database is worked on.
    Database,
    /// A release is on its way.
    Progressing,
    /// It waits for Approve.
    AwaitingApproval,
    /// It waits for a person: a pause, a failure that is held, or spec.paused.
    Paused,
    /// All traffic is going, or gone, to the candidate.
    Promoting,
    /// The candidate has become stable, and is still watched.
    Observing,
    /// The spec is what serves.
    Healthy,
    /// Traffic is going back to stable.
    RollingBack,
    /// The release failed or was undone; stable serves, not the spec.
    RolledBack,
    /// It cannot go on without a person.
    Halted,
    /// The manifest cannot be acted on; nothing that runs was changed.
    Invalid,
}

/// The adopted workload as it was last seen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its metadata.uid: another Deployment of the same name counts its generations anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its metadata.generation that this status was decided on.
    pub observed_generation: i64,
    /// The revision that its pod template is.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Its replicas when it was adopted; the default of spec.replicas.
    pub adopted_replicas: i32,
    /// Whether it was scaled to 0 after our pods had taken over.
    #[serde(default)]
    pub held: bool,
}

/// What is watched after a promotion.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObservationStatus {
    /// Since when.
    pub started_at: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// When a person said Retry to a failure: what pods and metrics said before is past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<Timestamp>,
    /// What failed, where a person has to decide what becomes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub failure: Option<String>,
    /// Which metric is not Pass, or that no pod is available,
    /// where it goes on beyond its end for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub unproven: Option<String>,
}

/// One attempt at one plan.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// Counts the releases of this object, from 1.
    pub number: i64,
    /// The ControllerRevision that pins the spec as it stood when the release began.
    #[schemars(length(max = 253))]
    pub plan: String,
    /// The revision released.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Who said Promote with `full`: pauses are passed from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub full_promotion_by: Option<String>,
    /// The migration that it brings, as a hash; none if the spec's was applied before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub migration: Option<String>,
    /// That nothing was proven: which metric was not Pass when its observation ended, or was never measured; or that no pod was available then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub unproven: Option<String>,
}

/// A revision: one pod template, realised as one ReplicaSet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Its hash, the value of the label servicerelease.io/revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// The release that brought it.
    #[serde(default)]
    pub release: i64,
    /// The images of its containers, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 256)))]
    pub images: Vec<String>,
    /// Pods asked for.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods that have been ready for minReadySeconds.
    #[serde(default)]
    pub available_replicas: i32,
    /// What is wrong with one of its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<PodProblem>,
}

/// What the kubelet says of a container that does not run as it should. Never a text that a
/// container wrote.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodProblem {
    /// The kubelet's (or the scheduler's) reason, such as CrashLoopBackOff or OOMKilled,
    /// or the operator's own: RestartsExceeded, NotReady.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The kubelet's explanation, where it is its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
    /// The pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// The container, if one is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
    /// Exit code of its last end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: i32,
    /// Since when this was seen.
    pub since: Timestamp,
    /// How often it was seen to come back (ImagePullBackOff).
    #[serde(default)]
    pub count: i32,
}

/// A revision that failed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FailedRevision {
    /// The revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// The release in which it failed.
    pub release: i64,
    /// In a word for machines.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What failed, with the evidence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// The migration that it brought, as a hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub migration: Option<String>,
    /// Whether it was the migration alone that failed: the revision served on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub migration_alone: bool,
    /// Whether it stays down until Retry, a new retryToken, or another plan in between.
    #[serde(default)]
    pub latched: bool,
}

/// A revision that was stable.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRevision {
    /// The revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// The release that brought it.
    pub release: i64,
    /// When it became stable.
    pub at: Timestamp,
}

/// A command that was decided.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CommandRecord {
    /// metadata.uid of the ReleaseCommand.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its name; a command of the same name created again is rejected.
    #[schemars(length(max = 253))]
    pub name: String,
    /// What it asked for.
    pub action: Action,
    /// Applied or Rejected.
    pub phase: CommandPhase,
    /// Why, or what it did.
    #[schemars(length(max = 256))]
    pub message: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// Something that happened.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// What kind of thing, in a word: Started, Step, Promoted, RollingBack, RolledBack, Superseded, Command, ...
    #[serde(rename = "type")]
    #[schemars(length(max = 32))]
    pub kind: String,
    /// The release it belongs to.
    pub release: i64,
    /// What happened, on what evidence.
    #[schemars(length(max = 256))]
    pub message: String,
    /// By whom, when a person did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub by: Option<String>,
}

/// Cuts a text to at most `max` characters, marking the cut.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

impl ServiceReleaseStatus {
    /// Adds to the timeline and drops the oldest entry when it is full.
    pub fn note(&mut self, at: Timestamp, kind: &str, message: &str, by: Option<&str>) {
        let release = self.release.as_ref().map_or(0, |release| release.number);
        self.timeline.push(TimelineEntry {
            at,
            kind: kind.to_owned(),
            release,
            message: bounded(message, MAX_TEXT),
            by: by.map(str::to_owned),
        });
        while self.timeline.len() > MAX_TIMELINE {
            self.timeline.remove(0);
            self.timeline_dropped += 1;
        }
    }
}
