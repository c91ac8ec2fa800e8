//! `ServiceRelease`: what a platform team writes. The texts here are what `kubectl explain` shows.

#![allow(clippy::duplicated_attributes)] // printcolumns share types and paths

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Analysis, Check, Database, Duration, Flags, Maintenance, MaintenanceMode, Router, Strategy,
    status::ServiceReleaseStatus,
};

/// What runs, how traffic reaches it and how a change of it is rolled out. A changed pod template
/// is a release; the operator carries it through the strategy and undoes it when it fails.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "servicerelease.io",
    version = "v1alpha1",
    kind = "ServiceRelease",
    plural = "servicereleases",
    shortname = "srel",
    category = "all",
    namespaced,
    status = "ServiceReleaseStatus",
    derive = "PartialEq",
    doc = "A service, the strategy by which its changes are released, and what is happening to it now.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name must have at most 52 characters"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step.summary"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.weights.observed.candidate", description = "Percent of the traffic that the candidate was seen to get"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Release", type_ = "integer", json_path = ".status.release.number", priority = 1),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.revision", priority = 1),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.revision", priority = 1),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.stable.readyReplicas", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[x_kube(
    validation = Rule::new("has(self.template) != has(self.workloadRef)").message("exactly one of template and workloadRef is needed"),
    validation = Rule::new("has(self.selector) == has(self.template)").message("selector and template go together; with workloadRef neither is set"),
    validation = Rule::new("has(self.selector) == has(oldSelf.selector) && (!has(self.selector) || self.selector == oldSelf.selector)").message("selector is immutable; create a new ServiceRelease to change it"),
    validation = Rule::new("has(self.workloadRef) == has(oldSelf.workloadRef) && (!has(self.workloadRef) || self.workloadRef == oldSelf.workloadRef)").message("workloadRef is immutable; delete the ServiceRelease to hand its pods back, then create another"),
    validation = Rule::new("!has(self.selector) || !has(self.template) || (has(self.template.metadata) && has(self.template.metadata.labels) && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))").message("template.metadata.labels must contain every label of selector.matchLabels"),
    validation = Rule::new("!has(oldSelf.traffic) || (has(self.traffic) && self.traffic.service == oldSelf.traffic.service)").message("traffic.service cannot be changed or removed; delete the ServiceRelease to hand the Service back, then create another"),
    validation = Rule::new("!has(oldSelf.traffic) || !has(oldSelf.traffic.candidateService) || (has(self.traffic) && has(self.traffic.candidateService) && self.traffic.candidateService == oldSelf.traffic.candidateService)").message("traffic.candidateService cannot be changed or removed"),
    validation = Rule::new("!has(self.traffic) || !has(self.traffic.router) || has(self.traffic.candidateService)").message("traffic.router needs traffic.candidateService"),
    validation = Rule::new("!has(oldSelf.traffic) || !has(oldSelf.traffic.router) || (has(self.traffic) && has(self.traffic.router) && has(self.traffic.router.gateway) == has(oldSelf.traffic.router.gateway) && has(self.traffic.router.httpRoute) == has(oldSelf.traffic.router.httpRoute) && (!has(self.traffic.router.gateway) || self.traffic.router.gateway.protocol == oldSelf.traffic.router.gateway.protocol) && (!has(self.traffic.router.httpRoute) || self.traffic.router.httpRoute == oldSelf.traffic.router.httpRoute) && (!has(self.traffic.router.custom) || self.traffic.router.custom == oldSelf.traffic.router.custom))").message("traffic.router cannot be removed, nor its kind or the name of its route changed"),
    validation = Rule::new("!has(self.traffic) || !has(self.traffic.maintenance) || (has(self.traffic.router) && has(self.traffic.router.gateway))").message("traffic.maintenance needs traffic.router.gateway"),
    validation = Rule::new("!has(self.strategy) || !has(self.strategy.blueGreen) || !self.strategy.blueGreen.maintenance || (has(self.traffic) && has(self.traffic.maintenance))").message("blueGreen.maintenance needs traffic.maintenance"),
    validation = Rule::new("!has(self.strategy) || !has(self.strategy.canary) || (has(self.traffic) && has(self.traffic.router)) || !(has(self.strategy.canary.dynamicStableScale) || (has(self.strategy.canary.steps) && self.strategy.canary.steps.exists(s, has(s.scale))))").message("scale and dynamicStableScale need traffic.router: by the ratio of pods their number is the weight"),
    validation = Rule::new("!has(self.strategy) || !has(self.strategy.canary) || !has(self.strategy.canary.steps) || (has(self.traffic) && has(self.traffic.router) && has(self.traffic.router.gateway)) || !self.strategy.canary.steps.exists(s, has(s.setHeaderRoute) || has(s.setMirrorRoute))").message("setHeaderRoute and setMirrorRoute need traffic.router.gateway: of a route of yours only the weights are set"),
    validation = Rule::new("!has(self.strategy) || !has(self.strategy.canary) || !has(self.strategy.canary.steps) || self.strategy.canary.steps.all(s, !has(s.check) || s.check.all(n, has(self.checks) && self.checks.exists(c, c.name == n)))").message("a step names a check that is not in spec.checks")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReleaseSpec {
    /// How many pods serve. Default 1; with workloadRef, the Deployment's replicas at adoption.
    /// A HorizontalPodAutoscaler that targets this object needs it to be set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: Option<i32>,

    /// The labels that tell this service's pods from others. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,

    /// The pods to run. A change of it is a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,

    /// A running Deployment to adopt without downtime instead of a template. Its pod template is the
    /// source from then on: `kubectl set image` and `kubectl rollout undo` on it start releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadRef>,

    /// Seconds that a pod must be ready without a break to count as available. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: i32,

    /// Seconds that a step may wait for pods or traffic before it counts as failed. Default 600.
    #[serde(default = "default_progress_deadline")]
    #[schemars(range(min = 1, max = 86_400))]
    pub progress_deadline_seconds: i32,

    /// How many earlier revisions are kept for undo, without pods. Default 5.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub revision_history_limit: i32,

    /// Holds a release where it is; a new template starts no pod while it is set. What watches it goes on (pods, metrics,
    /// in an observation checks too), and what fails there takes it back. An observation does not end before it is false.
    #[serde(default)]
    pub paused: bool,

    /// A new value retries a failed release, for those who work through Git only.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub retry_token: String,

    /// How traffic reaches the pods. Without it pods are replaced and no Service is touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,

    /// How a release is rolled out. Default: a canary without steps, a rolling replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,

    /// Questions asked at moments of a release, at most 16. They belong to the plan: a change of them counts
    /// from the next release on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,

    /// The database that the service stands on. It belongs to the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,

    /// What maintenance mode is for the application itself, beside traffic.maintenance. It is on while a migration runs
    /// that the code before cannot live with. It belongs to the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceMode>,

    /// Feature flags that go with the code: set on promotion, set back on rollback. It belongs to the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Flags>,

    /// What is watched while the candidate has traffic. It belongs to the plan, as checks do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,

    /// What goes on after the promotion, before the release is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<Observation>,

    /// What happens when a release fails, and what is kept to undo one that did not.
    #[serde(default)]
    pub rollback: Rollback,
}

impl ServiceReleaseSpec {
    /// spec.traffic.router
    #[must_use]
    pub fn router(&self) -> Option<&Router> {
        self.traffic.as_ref()?.router.as_ref()
    }
}

const fn default_progress_deadline() -> i32 {
    600
}

const fn default_history_limit() -> i32 {
    5
}

/// Labels that select pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Label keys and the values that a pod must have, at least one.
    #[schemars(length(min = 1, max = 16), extend("maxProperties" = 16, "minProperties" = 1))]
    #[schemars(schema_with = "label_map")]
    pub match_labels: BTreeMap<String, String>,
}

fn label_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

fn metadata_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 16384 },
    })
}

fn pod_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The pods to run, as in a Deployment. The pod spec is checked by a dry run of the ReplicaSet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodTemplateMetadata>,
    /// The pod spec (`kubectl explain pod.spec`).
    #[schemars(schema_with = "pod_spec")]
    pub spec: Value,
}

/// Labels and annotations of the pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplateMetadata {
    /// Labels of the pods; must contain those of the selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metadata_map")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metadata_map")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A workload in the same namespace that is adopted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// The API version of the workload. Default apps/v1.
    #[serde(default = "apps_v1")]
    #[schemars(extend("enum" = ["apps/v1"]))]
    pub api_version: String,
    /// The kind of the workload. Default Deployment.
    #[serde(default)]
    pub kind: WorkloadKind,
    /// The name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn apps_v1() -> String {
    "apps/v1".into()
}

/// Kinds of workloads that can be adopted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment.
    #[default]
    Deployment,
}

/// How traffic reaches the pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The Service that clients use. Created with the containers' ports if there is none. One that
    /// is there gets one more key in its selector, which is taken away again on deletion.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,
    /// A Service that selects the candidate only, and no pod at rest: for tests by hand, and the
    /// preview of blueGreen. Created if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub candidate_service: Option<String>,
    /// What shares the requests exactly. Without it a canary's share is that of its pods, and blueGreen
    /// switches the Service. It needs candidateService. Its kind and name cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// Where requests go while nobody is to serve. Needs router.gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// How long pods that lost their traffic stay, so that connections drain. Default 30s.
    #[serde(default = "default_scale_down_delay")]
    pub scale_down_delay: Duration,
}

const fn default_scale_down_delay() -> Duration {
    Duration::from_secs(30)
}

/// What goes on after the promotion: metrics with a threshold are measured, and checks with `every` are asked again.
/// What fails takes the release back to the previous revision; so do the new pods by themselves, as before the
/// promotion: a crash loop, an OOM kill, an image that cannot be had, readiness that all of them lost while the kept pods
/// of the previous revision are ready. At its end each metric must be Pass (but those with
/// dryRun), measured a few intervals ago at most; a measurement without data or answer is none, unless noData is Ignore.
/// Where one is not, it goes on until it is, for as long again and at least for ten times analysis.interval: the phase stays Observing with the reason
/// Unproven. After that nothing is measured any more, nothing goes back, and the reason Unproven stays until the next
/// release. While spec.paused is set it does not end; what fails takes it back all the same.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// For how long, such as 24h. For an immediate way back set rollback.keepPrevious to as much.
    pub duration: Duration,
}

/// What happens when a release fails, and what is kept to undo one that did not.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Roll back by itself when a release fails; if false, stay at the step and wait for a person. Default true.
    #[serde(default = "yes")]
    pub automatic: bool,
    /// How long pods of the previous revision stay after the promotion, as many as replicas says and without requests, so
    /// that undo, and what an observation takes back, takes effect at once. It needs traffic. In a canary by the ratio of
    /// pods the shift takes them away, within maxSurge; once the Service selects the new revision alone they are brought up
    /// again, beyond maxSurge, as after one with dynamicStableScale. A new release ends it. After a blueGreen switch and over
    /// a router the longer of it and traffic.scaleDownDelay counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_previous: Option<Duration>,
}

impl Default for Rollback {
    fn default() -> Self {
        Self { automatic: true, keep_previous: None }
    }
}

const fn yes() -> bool {
    true
}
