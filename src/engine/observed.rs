//! What the engine sees of the world: plain values, made by the observer from cached API objects.
//! Nothing here is decided; nothing here is an API type.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    api::{Action, AnalysisTemplateSpec, CommandApproval, ParentRef, ServiceReleaseSpec, Timestamp},
    checks::AllowedHosts,
};

use super::inquiry::Answer;

/// Everything that one pass looks at, beside the ServiceRelease itself and the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The Deployment that `spec.workloadRef` names, if it exists.
    pub workload: Option<Workload>,
    /// One for each ReplicaSet that carries this release's label, in any order.
    pub revisions: Vec<Revision>,
    /// The pinned plans that were loaded: that of `status.release.number`, if there is one, and
    /// that of `status.stable.release` when stable's ReplicaSet is missing.
    pub plans: Vec<Plan>,
    /// The numbers of all pinned plans that exist.
    pub plan_numbers: Vec<i64>,
    /// The Service that `spec.traffic.service` names, if it exists.
    pub service: Option<Service>,
    /// The Service that `spec.traffic.candidateService` names, if it exists.
    pub candidate_service: Option<Service>,
    /// The HTTPRoute, or other object, that the router uses, if it exists.
    pub route: Option<Route>,
    /// The providers of metrics that the platform has set up; none if nobody knows.
    pub providers: Option<Arc<KnownProviders>>,
    /// The hosts beyond the release that checks may ask; none if nobody knows.
    pub allowed_hosts: Option<Arc<AllowedHosts>>,
    /// Why a custom router cannot be used, whatever objects there are.
    pub router_refused: Option<String>,
    /// The HTTPRoute of the preview, if it exists.
    pub preview: Option<Route>,
    /// The Gateways that it is attached to, as far as they are known.
    pub gateways: Vec<ParentGateway>,
    /// The commands for this release that exist, in any order, decided or not.
    pub commands: Vec<Command>,
    /// Other ServiceReleases of the namespace that claim the same workload, Service or selector.
    pub rivals: Vec<Rival>,
    /// Names of HorizontalPodAutoscalers that target the adopted Deployment.
    pub autoscalers: Vec<String>,
    /// What the API server says of the template wanted now, when no ReplicaSet has it yet.
    pub template_check: TemplateCheck,
    /// The Jobs that were made for this release.
    pub jobs: Vec<Job>,
    /// The ConfigMaps that have this release's label.
    pub config_maps: Vec<ConfigMap>,
    /// The templates that spec.analysis names, as far as they exist, where [`super::wants_templates`] says so.
    pub templates: Vec<NamedTemplate>,
    /// Why one of them cannot be read, although it may exist.
    pub template_unreadable: Option<String>,
    /// What was answered to the questions of earlier passes.
    pub answers: Vec<Answer>,
    /// Since when this process asks: before that there may have been none that did.
    pub asking_since: Option<Timestamp>,
    /// What the API server refused in the last pass, with its reason.
    pub refusal: Option<Denial>,
}

/// A write that the API server will not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Which, such as `create Job shop/shop-smoke-1`, and the reason.
    pub text: String,
    /// Whether that lies in what was written. A role, a quota or a policy may be another one in a while.
    pub definite: bool,
}

/// By its name, the field of a metric that asks a provider.
pub type KnownProviders = BTreeMap<String, &'static str>;

/// A pod template as canonical JSON: keys sorted, no white space, without the labels
/// `servicerelease.io/release` and `servicerelease.io/revision`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template(Arc<str>);

impl Template {
    /// The canonical form of a template, with the operator's own labels taken out.
    #[must_use]
    pub fn new(mut template: Value) -> Self {
        if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(crate::api::LABEL_RELEASE);
            labels.remove(crate::api::LABEL_REVISION);
        }
        // What the API server adds to a template's metadata without meaning: `creationTimestamp: null`.
        if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|_, value| !value.is_null());
        }
        // serde_json's map is a BTreeMap here, so that keys come out sorted.
        Self(template.to_string().into())
    }

    /// The canonical JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The template as JSON.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({})", self.0)
    }
}

/// Names an object at a version; every write carries it as its precondition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectVersion {
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
    /// metadata.resourceVersion
    pub resource_version: String,
}

/// The adopted Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Which object, at which version.
    pub object: ObjectVersion,
    /// metadata.generation
    pub generation: i64,
    /// Whether its own controller has seen this generation.
    pub observed: bool,
    /// spec.replicas
    pub replicas: i32,
    /// Its own pods of its present template that are available (status.availableReplicas, 0 unless
    /// all of them are updated).
    pub available: i32,
    /// spec.selector.matchLabels
    pub match_labels: BTreeMap<String, String>,
    /// spec.template as the API server returns it, with its defaults.
    pub template: Template,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A ReplicaSet of this release.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Which object, at which version.
    pub object: ObjectVersion,
    /// The label servicerelease.io/revision.
    pub hash: String,
    /// The annotation that holds the fingerprint of the template it was made from.
    pub fingerprint: String,
    /// spec.template as the API server returns it, with its defaults.
    pub template: Template,
    /// metadata.creationTimestamp
    pub created: Timestamp,
    /// spec.replicas
    pub replicas: i32,
    /// spec.minReadySeconds
    pub min_ready_seconds: i32,
    /// Whether the ReplicaSet controller has seen this spec (status.observedGeneration is current).
    pub observed: bool,
    /// status.replicas: pods that exist and are not terminating.
    pub pods_total: i32,
    /// status.readyReplicas
    pub ready: i32,
    /// status.availableReplicas: ready for minReadySeconds.
    pub available: i32,
    /// Why pods of it cannot be made, in the API server's words (condition ReplicaFailure): a quota, Pod
    /// Security, a webhook.
    pub failure: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its pods.
    pub pods: Vec<Pod>,
}

impl Revision {
    /// Available pods that stay: a ReplicaSet that was made smaller still counts, for a while, the
    /// pods that it is taking away.
    #[must_use]
    pub fn warm(&self) -> i32 {
        self.available.min(self.replicas)
    }
}

/// A pod, as far as its trouble goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// metadata.name
    pub name: String,
    /// metadata.creationTimestamp
    pub created: Option<Timestamp>,
    /// status.podIP
    pub address: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// It was ready, and its readiness probe fails now although all its containers run on.
    pub lost_readiness: bool,
    /// Whether it was told to go (metadata.deletionTimestamp).
    pub terminating: bool,
    /// Whether it was evicted, preempted, drained or lost with its node: never the revision's fault.
    pub disrupted: bool,
    /// The scheduler's message, while it finds no node.
    pub unschedulable: Option<String>,
    /// Its containers, init containers among them.
    pub containers: Vec<Container>,
}

/// A container of a pod, as the kubelet reports it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// state.waiting.reason, such as CrashLoopBackOff.
    pub waiting: Option<String>,
    /// state.waiting.message: the kubelet's own words.
    pub waiting_message: Option<String>,
    /// restartCount
    pub restarts: i32,
    /// The last end of it: state.terminated, or else lastState.terminated.
    pub ended: Option<Ended>,
}

/// How a container ended. Its termination message is left out on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The kubelet's reason, such as OOMKilled or Error.
    pub reason: String,
    /// The exit code.
    pub exit_code: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// When, if the kubelet says so.
    pub at: Option<Timestamp>,
}

/// A Job of the release.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// Which object, at which version.
    pub object: ObjectVersion,
    /// How it ended, if it has.
    pub end: Option<JobEnd>,
    /// Why its pod does not run, in the kubelet's or scheduler's words.
    pub stuck: Option<String>,
    /// What there is of its pod.
    pub pod: JobPod,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What there is of a Job's pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobPod {
    /// It is there.
    #[default]
    There,
    /// None was made yet: the Job is new, or nobody may make one.
    NotYet,
    /// It has ended.
    Over,
    /// It was made, and is gone: its time was over, or somebody deleted it.
    Gone,
}

impl JobPod {
    /// Whether it has ended, or is gone: what it waited for before is the last that is known of it.
    #[must_use]
    pub const fn is_past(self) -> bool {
        matches!(self, Self::Over | Self::Gone)
    }
}

/// What the words begin with of a pod that the kubelet ended since its time was over.
pub const TIME_OVER: &str = "its time was over: ";

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Whether its pod exited with 0.
    pub succeeded: bool,
    /// When.
    pub at: Timestamp,
    /// How long after it was made, in milliseconds.
    pub took: u64,
    /// Exit code and what the container left as its message, or the Job controller's reason.
    pub message: String,
    /// What its container left as its message, whole, where the Job works on a database.
    pub report: Option<String>,
    /// The image that this container ran, as the kubelet tells it (imageID).
    pub image: Option<String>,
}

/// A ConfigMap that has this release's label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Which object, at which version.
    pub object: ObjectVersion,
    /// Its data.
    pub data: BTreeMap<String, String>,
    /// Who wrote to it last, if that was not the operator.
    pub changed_by: Option<String>,
    /// The keys that the operator set last.
    pub ours: BTreeSet<String>,
}

/// A plan pinned in a ControllerRevision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The release's number.
    pub number: i64,
    /// The revision that it releases.
    pub revision: String,
    /// The spec as it stood; `template` holds the resolved one also with workloadRef.
    pub spec: ServiceReleaseSpec,
    /// The resolved template.
    pub template: Template,
    /// The templates that spec.analysis names, as they stood.
    pub analysis_templates: Vec<NamedTemplate>,
}

/// An AnalysisTemplate or ClusterAnalysisTemplate.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NamedTemplate {
    /// Its name.
    pub name: String,
    /// Whether it is a ClusterAnalysisTemplate.
    #[serde(default)]
    pub cluster_scope: bool,
    /// What it says.
    pub spec: AnalysisTemplateSpec,
}

/// A Service and the endpoints behind it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Which object, at which version.
    pub object: ObjectVersion,
    /// spec.selector
    pub selector: BTreeMap<String, String>,
    /// The selector as the user wrote it, from the annotation.
    pub original: Option<BTreeMap<String, String>>,
    /// Whether the release made it: it is its controller owner, or nobody is and it carries the release's label.
    pub owned: bool,
    /// Another field manager that applied spec.selector, so that it cannot be shared.
    pub contested_by: Option<String>,
    /// Another field manager that set spec.selector last.
    pub changed_by: Option<String>,
    /// Whether its type is ExternalName: it leads to another name, never to pods.
    pub external: bool,
    /// The numbers of its ports, and what each leads to (targetPort); a pod that lacks one by name gets no traffic
    /// on it.
    pub targets: Vec<(i32, IntOrString)>,
    /// The numbers of those of its ports that have a name.
    pub named_ports: BTreeMap<String, i32>,
    /// The endpoints in its EndpointSlices.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint in an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The name of its pod; none for a pod that is not this release's.
    pub pod: Option<String>,
    /// The revision of its pod; none for a pod that is not this release's.
    pub revision: Option<String>,
    /// conditions.ready, in a slice with all ports of the Service: it gets new connections.
    pub ready: bool,
}

/// An HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// Which object, at which version.
    pub object: ObjectVersion,
    /// metadata.generation
    pub generation: i64,
    /// Whether it carries this release's label: the operator made it.
    pub ours: bool,
    /// spec, as the API server returns it.
    pub spec: Value,
    /// What kind it is of, and where its weights are.
    pub shape: Arc<Shape>,
    /// The value at [`Shape::share`].
    pub share: Option<Value>,
    /// status.parents
    pub parents: Vec<RouteParent>,
    /// The field manager that changed spec.rules last, or of an own route any field of spec, if it was not this
    /// operator; and whether by server-side apply.
    pub changed_by: Option<(String, bool)>,
}

/// Where an object has its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The object's kind.
    pub kind: String,
    /// The way to lists of backends, from `spec` on; `*` is every element of a list.
    pub backends: Vec<String>,
    /// The way to the name of a Service, in a backend.
    pub service: Vec<String>,
    /// The way to its weight.
    pub weight: Vec<String>,
    /// The way to the candidate's percentage, from the object on, where it is one number for the whole object
    /// and all its backends are candidateService.
    pub share: Option<Vec<String>>,
    /// The weight of a backend that has none.
    pub unset: i64,
    /// Whether `status.parents` say who accepts it.
    pub is_judged: bool,
}

impl Default for Shape {
    /// That of an HTTPRoute.
    fn default() -> Self {
        let way = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Self {
            kind: "HTTPRoute".into(),
            backends: way(&["spec", "rules", "*", "backendRefs"]),
            service: way(&["name"]),
            weight: way(&["weight"]),
            share: None,
            unset: 1,
            is_judged: true,
        }
    }
}

/// What a gateway's controller says of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteParent {
    /// The parent that is meant.
    pub reference: ParentRef,
    /// controllerName
    pub controller: String,
    /// The lowest observedGeneration of its conditions Accepted and ResolvedRefs.
    pub generation: i64,
    /// Whether both are True.
    pub accepted: bool,
    /// Reason and message of the one that is not.
    pub why: String,
}

/// A Gateway that the release's route is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentGateway {
    /// How the route names it.
    pub reference: ParentRef,
    /// Whether there is none.
    pub missing: bool,
    /// The name of its GatewayClass.
    pub class: String,
    /// spec.controllerName of that class, if it is known.
    pub controller: Option<String>,
    /// Why no data plane has it, or the listener that is meant, if so.
    pub unprogrammed: Option<String>,
    /// status.supportedFeatures of its class, if that says.
    pub features: Option<Vec<String>>,
}

/// A ReleaseCommand.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Which object, at which version.
    pub object: ObjectVersion,
    /// metadata.creationTimestamp
    pub created: Timestamp,
    /// What it asks for.
    pub action: Action,
    /// The revision it is meant for.
    pub revision: Option<String>,
    /// The step it is meant for.
    pub step: Option<i32>,
    /// Whether Promote is meant for all pauses.
    pub full: bool,
    /// Where Undo is to go.
    pub to_revision: Option<String>,
    /// What Approve approves.
    pub approval: Option<CommandApproval>,
    /// Why.
    pub reason: Option<String>,
    /// Who asks.
    pub requested_by: Option<String>,
    /// When it was decided, if its own status says so.
    pub decided_at: Option<Timestamp>,
}

/// Another ServiceRelease that claims the same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// Its metadata.creationTimestamp.
    pub created: Timestamp,
    /// What both claim, such as `Service shop`.
    pub claim: String,
}

/// What the API server says of a template, in making its ReplicaSet or in a dry run of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TemplateCheck {
    /// A ReplicaSet has the template already, or nothing is against it.
    #[default]
    Passed,
    /// It was not asked yet.
    Unknown,
    /// It is refused, with the API server's message, which names the field.
    Refused(String),
    /// The ReplicaSet's name belongs to an object of somebody else.
    NameTaken,
}
