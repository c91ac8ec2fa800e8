//! What the engine wants done: values, each of which the executor turns into exactly one
//! idempotent API call.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::{CommandPhase, Duration, KeysOf, RouteProtocol, ServiceReleaseStatus, Timestamp};

use super::{
    inquiry::{HttpQuestion, Question, SqlQuestion},
    observed::{ObjectVersion, Plan, Template},
    task::DatabaseJob,
};

/// One API call. Doing it again after a crash is harmless: creates have deterministic names, all
/// others carry the version that they were decided on.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put the finalizer on the ServiceRelease.
    AddFinalizer,
    /// Take the finalizer off the ServiceRelease: everything was given back.
    RemoveFinalizer,
    /// Create the ControllerRevision that pins a plan; owned by the ServiceRelease.
    PinPlan(Box<Plan>),
    /// Delete the ControllerRevision of an old release.
    DeletePlan {
        /// The release's number.
        number: i64,
    },
    /// Ask the API server what it has against a ReplicaSet, in a dry run. The answer comes with the next
    /// observation.
    TryTemplate(Box<NewReplicaSet>),
    /// Create the ReplicaSet of a revision.
    CreateReplicaSet(Box<NewReplicaSet>),
    /// Set a ReplicaSet's spec.replicas.
    ScaleReplicaSet {
        /// The ReplicaSet.
        object: ObjectVersion,
        /// Pods wanted.
        replicas: i32,
    },
    /// Set a ReplicaSet's spec.minReadySeconds.
    SetMinReadySeconds {
        /// The ReplicaSet.
        object: ObjectVersion,
        /// For how long a pod must have been ready.
        seconds: i32,
    },
    /// Delete a ReplicaSet, and its pods if it has any.
    DeleteReplicaSet {
        /// The ReplicaSet.
        object: ObjectVersion,
    },
    /// Set the adopted Deployment's replicas through its /scale.
    ScaleWorkload {
        /// The Deployment.
        object: ObjectVersion,
        /// Pods wanted.
        replicas: i32,
    },
    /// Create a Service; owned by the ServiceRelease.
    CreateService(Box<NewService>),
    /// Change the operator's key in a Service's selector.
    Select {
        /// The Service.
        object: ObjectVersion,
        /// What it is to select.
        selection: Selection,
        /// The selector to keep in the annotation, when the Service was there before and has none yet.
        keep_original: Option<BTreeMap<String, String>>,
        /// Labels beside the operator's keys that are put right in a Service of its own; none to be taken out.
        base: BTreeMap<String, Option<String>>,
    },
    /// Go on only if a Service is still what it was seen to be. Writes nothing.
    ConfirmService {
        /// The Service.
        object: ObjectVersion,
    },
    /// Create the release's own HTTPRoute.
    CreateRoute(Box<NewRoute>),
    /// Delete the HTTPRoute of a preview.
    DeleteRoute {
        /// The route.
        object: ObjectVersion,
    },
    /// Replace the spec of the release's own HTTPRoute.
    ReplaceRoute {
        /// The route.
        object: ObjectVersion,
        /// Its whole spec.
        spec: Value,
    },
    /// Set weights in an HTTPRoute or an object of another kind, and nothing else.
    SetRouteWeights {
        /// The route.
        object: ObjectVersion,
        /// A JSON pointer (RFC 6901) for each number.
        weights: Vec<(String, i32)>,
    },
    /// Create the Job of an attempt of a check; owned by the ServiceRelease.
    CreateJob(Box<NewJob>),
    /// Delete a Job, and its pod with it.
    DeleteJob {
        /// The Job.
        object: ObjectVersion,
    },
    /// Set keys of a ConfigMap, and nothing else.
    SetKeys {
        /// The ConfigMap.
        object: ObjectVersion,
        /// Keys and their values; without one the key goes.
        values: BTreeMap<String, Option<String>>,
    },
    /// Write a decision into a ReleaseCommand's status.
    AnswerCommand {
        /// The command.
        object: ObjectVersion,
        /// Applied or Rejected.
        phase: CommandPhase,
        /// Why, or what it did.
        message: String,
        /// When it was decided.
        at: Timestamp,
    },
    /// Delete a command whose retention is over.
    DeleteCommand {
        /// The command.
        object: ObjectVersion,
    },
}

impl Effect {
    /// Its place among the effects of a pass, the first first.
    pub(super) const fn urgency(&self) -> u8 {
        match self {
            Self::AnswerCommand { .. } => 1,
            Self::TryTemplate(_) | Self::CreateJob(_) => 2,
            Self::DeletePlan { .. }
            | Self::DeleteJob { .. }
            | Self::DeleteReplicaSet { .. }
            | Self::DeleteCommand { .. } => 3,
            _ => 0,
        }
    }
}

/// What a Service of this release selects, over and above its original selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// No pod: the revision label must be `none`.
    Nothing,
    /// The pods of one revision.
    Revision(String),
    /// The pods of all revisions of the release.
    Release,
    /// What the user wrote; the operator's keys and annotation are gone.
    Original,
}

/// A ReplicaSet to be made. Its labels are only the operator's two, so that a Deployment never
/// adopts it; its selector is `match_labels` and those two.
#[derive(Clone, Debug, PartialEq)]
pub struct NewReplicaSet {
    /// metadata.name: the release's name and the hash.
    pub name: String,
    /// The revision's hash.
    pub hash: String,
    /// The fingerprint of the template, kept in an annotation.
    pub fingerprint: String,
    /// The user's selector, or the adopted Deployment's.
    pub match_labels: BTreeMap<String, String>,
    /// The pod template, without the operator's labels.
    pub template: Template,
    /// spec.replicas
    pub replicas: i32,
    /// spec.minReadySeconds
    pub min_ready_seconds: i32,
    /// Whether the ServiceRelease owns it. Not with workloadRef: garbage collection would take the
    /// pods before they are handed back.
    pub owned: bool,
}

/// A Service to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewService {
    /// metadata.name
    pub name: String,
    /// The base of its selector.
    pub match_labels: BTreeMap<String, String>,
    /// What it selects at first.
    pub selection: Selection,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Whether the ServiceRelease owns it. Not with workloadRef, where clients of the Deployment's pods, or a
    /// route, need it when the release is gone.
    pub owned: bool,
}

/// An HTTPRoute to be made, with the release's label.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRoute {
    /// What it is for.
    pub protocol: RouteProtocol,
    /// metadata.name
    pub name: String,
    /// Its spec.
    pub spec: Value,
    /// Whether the ServiceRelease owns it. Not with workloadRef: clients of the Deployment's pods need it
    /// when the release is gone.
    pub owned: bool,
}

/// A Job to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// metadata.name
    pub name: String,
    /// What it is to do.
    pub run: Run,
    /// After how long it is ended.
    pub timeout: Duration,
    /// Environment variables of its containers.
    pub env: Vec<(String, String)>,
    /// Labels that its pod must not have: a Service could take it for one of the release's.
    pub never: BTreeSet<String>,
    /// Whether garbage collection takes it with the ServiceRelease. Not what changes a database: it outlives the object
    /// until its outcome is known.
    pub owned: bool,
}

/// What a Job does.
#[derive(Clone, Debug, PartialEq)]
pub enum Run {
    /// Runs a pod of the user's: its template.
    Pod(Value),
    /// Looks at keys of Secrets and ConfigMaps.
    Keys(Vec<KeysOf>),
    /// Asks by HTTP, with headers from Secrets.
    Http(Box<HttpQuestion>),
    /// Asks a database.
    Sql(Box<SqlQuestion>),
    /// Works on a database.
    Database(Box<DatabaseJob>),
}

/// A port of a Service to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name.
    pub name: String,
    /// Its number, 1 to 65535.
    pub port: i32,
    /// TCP, UDP or SCTP.
    pub protocol: String,
}

/// A Kubernetes Event about the ServiceRelease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is a Warning.
    pub warning: bool,
    /// CamelCase.
    pub reason: String,
    /// What the operator was doing, CamelCase.
    pub action: String,
    /// For people.
    pub note: String,
}

/// What a pass decides. The executor carries out, in this order: `before`, then the status if it
/// differs from the one that was read, then `after`, then the events. It stops at the first effect that
/// fails, but for the events of what is on record; the next pass sees what came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What needs no record: what makes things safer (stable up), and a new candidate without pods.
    pub before: Vec<Effect>,
    /// The whole new status.
    pub status: ServiceReleaseStatus,
    /// What must be on record before it is done.
    pub after: Vec<Effect>,
    /// For people who watch.
    pub events: Vec<Event>,
    /// What is to be asked now, beyond the API server; all questions that are open.
    pub questions: Vec<Question>,
    /// When to look again although nothing happened.
    pub wake: Option<Timestamp>,
}
