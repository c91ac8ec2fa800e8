//! Cached ReplicaSets, pods, Deployments and autoscalers: what the engine is told of them.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{
        ANNOTATION_FINGERPRINT, ANNOTATION_REPORTS, LABEL_JOB, LABEL_RELEASE, LABEL_REVISION, Timestamp,
        status::{MAX_TEXT, bounded},
    },
    database::Secrets,
    engine::{Container, Ended, Pod, Template},
};

use super::entry::{Cached, Kind, Meta, RawMeta};

/// A ReplicaSet of a release.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSet {
    meta: Meta,
    release: Arc<str>,
    /// The label servicerelease.io/revision.
    pub hash: Arc<str>,
    /// The annotation with the template's fingerprint.
    pub fingerprint: Arc<str>,
    /// The uid of the ServiceRelease that owns it, if one does.
    pub owner: Option<Arc<str>>,
    /// spec.template
    pub template: Template,
    /// spec.replicas
    pub replicas: i32,
    /// spec.minReadySeconds
    pub min_ready_seconds: i32,
    /// Whether its controller has seen this generation.
    pub observed: bool,
    /// status.replicas
    pub pods: i32,
    /// status.readyReplicas
    pub ready: i32,
    /// status.availableReplicas
    pub available: i32,
    /// The message of its condition ReplicaFailure, if that is True.
    pub failure: Option<Box<str>>,
}

/// The fields of a ReplicaSet or Deployment that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawWorkload {
    spec: RawWorkloadSpec,
    status: RawWorkloadStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawWorkloadSpec {
    replicas: Option<i32>,
    min_ready_seconds: i32,
    selector: RawSelector,
    template: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSelector {
    match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawWorkloadStatus {
    observed_generation: i64,
    replicas: i32,
    updated_replicas: i32,
    ready_replicas: i32,
    available_replicas: i32,
    conditions: Option<Vec<RawCondition>>,
}

impl RawWorkloadStatus {
    fn failure(&self) -> Option<Box<str>> {
        let mut conditions = self.conditions.iter().flatten();
        let failed = conditions.find(|condition| condition.kind == "ReplicaFailure" && condition.status == "True")?;
        Some(bounded(&failed.message, MAX_TEXT).into())
    }
}

impl Cached for ReplicaSet {
    type Raw = RawWorkload;
    const KIND: Kind = Kind::ReplicaSet;

    fn read(meta: &RawMeta, raw: RawWorkload) -> Option<Self> {
        let controller = meta.controller();
        if controller.is_some_and(|owner| !owner.is_release()) {
            return None;
        }
        Some(Self {
            release: meta.label(LABEL_RELEASE)?.into(),
            hash: meta.label(LABEL_REVISION)?.into(),
            fingerprint: meta.annotation(ANNOTATION_FINGERPRINT).unwrap_or_default().into(),
            owner: controller.map(|owner| owner.uid.as_str().into()),
            template: Template::new(raw.spec.template),
            replicas: raw.spec.replicas.unwrap_or(1),
            min_ready_seconds: raw.spec.min_ready_seconds,
            observed: raw.status.observed_generation >= meta.generation,
            pods: raw.status.replicas,
            failure: raw.status.failure(),
            ready: raw.status.ready_replicas,
            available: raw.status.available_replicas,
            meta: meta.slim(),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.release
    }
}

/// A Deployment, adopted or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    meta: Meta,
    /// metadata.generation
    pub generation: i64,
    /// Whether its controller has seen this generation.
    pub observed: bool,
    /// spec.replicas
    pub replicas: i32,
    /// Available pods of its present template.
    pub available: i32,
    /// spec.selector.matchLabels
    pub match_labels: BTreeMap<String, String>,
    /// spec.template
    pub template: Template,
}

impl Cached for Deployment {
    type Raw = RawWorkload;
    const KIND: Kind = Kind::Deployment;

    fn read(meta: &RawMeta, raw: RawWorkload) -> Option<Self> {
        let RawWorkload { spec, status } = raw;
        let observed = status.observed_generation >= meta.generation;
        let all_updated = observed && status.updated_replicas == status.replicas;
        Some(Self {
            meta: meta.slim(),
            generation: meta.generation,
            observed,
            replicas: spec.replicas.unwrap_or(1),
            available: if all_updated { status.available_replicas } else { 0 },
            match_labels: spec.selector.match_labels.unwrap_or_default(),
            template: Template::new(spec.template),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.meta.key.name
    }
}

/// A HorizontalPodAutoscaler of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaler {
    meta: Meta,
    target: Arc<str>,
}

/// The fields of an autoscaler that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawAutoscaler {
    spec: RawAutoscalerSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAutoscalerSpec {
    scale_target_ref: RawTarget,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTarget {
    kind: String,
    name: String,
    api_version: String,
}

impl Cached for Autoscaler {
    type Raw = RawAutoscaler;
    const KIND: Kind = Kind::Autoscaler;

    fn read(meta: &RawMeta, raw: RawAutoscaler) -> Option<Self> {
        let target = raw.spec.scale_target_ref;
        let deployment = target.kind == "Deployment" && target.api_version.starts_with("apps/");
        deployment.then(|| Self { meta: meta.slim(), target: target.name.into() })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.target
    }
}

/// A pod of a release.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedPod {
    meta: Meta,
    release: Arc<str>,
    /// The label servicerelease.io/revision; empty for a pod of a Job.
    pub revision: Arc<str>,
    /// The name of the Job that it is of, if it is of one.
    pub job: Option<Arc<str>>,
    /// What its container left to say when it ended, if it is of a Job. Of others it is not read: it may be secret.
    pub said: Option<Box<str>>,
    /// The whole message of the container that reports, if it is of a Job that works on a database.
    pub report: Option<Box<str>>,
    /// The image that this container runs, as the kubelet tells it (imageID).
    pub image: Option<Box<str>>,
    /// Whether none of its containers runs or will run.
    pub over: bool,
    /// Whether the kubelet ended it since its time was over (activeDeadlineSeconds).
    pub late: bool,
    /// The uid of the ReplicaSet or Job that controls it.
    pub owner: Option<Arc<str>>,
    /// What the engine is told.
    pub pod: Pod,
}

/// The fields of a pod that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawPod {
    status: RawPodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    phase: String,
    reason: String,
    conditions: Option<Vec<RawCondition>>,
    init_container_statuses: Option<Vec<RawContainer>>,
    container_statuses: Option<Vec<RawContainer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    name: String,
    #[serde(rename = "imageID")]
    image_id: String,
    restart_count: i32,
    state: Option<RawState>,
    last_state: Option<RawState>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawState {
    running: Option<RawRunning>,
    waiting: Option<RawWaiting>,
    terminated: Option<RawTerminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRunning {
    started_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawWaiting {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTerminated {
    reason: String,
    exit_code: i32,
    signal: Option<i32>,
    finished_at: Option<String>,
    message: String,
}

/// The longest termination message that a kubelet passes on.
const MOST_MESSAGE: usize = 4_096;
/// status.reason of pods that were taken away from their node.
const TAKEN_AWAY: [&str; 6] = ["Evicted", "Preempting", "Shutdown", "Terminated", "NodeShutdown", "NodeLost"];

impl RawPodStatus {
    fn condition(&self, kind: &str, status: &str) -> Option<&RawCondition> {
        self.conditions.iter().flatten().find(|condition| condition.kind == kind && condition.status == status)
    }

    /// Why the scheduler finds no node. Gates that wait for somebody else count the same way.
    fn unschedulable(&self) -> Option<String> {
        let scheduled = self.condition("PodScheduled", "False")?;
        Some(match scheduled.message.as_str() {
            "" => scheduled.reason.clone(),
            message => message.to_owned(),
        })
    }

    /// The message of the first container that failed, or else of the first that ended.
    fn said(&self) -> Option<Box<str>> {
        let containers = self.init_container_statuses.iter().chain(&self.container_statuses).flatten();
        let ended = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref());
        let ended: Vec<&RawTerminated> = ended.collect();
        let first = ended.iter().find(|end| end.exit_code != 0).or(ended.first())?;
        // A password of a URL is seen by its form: it goes before the text is cut.
        let told = Secrets::default().mask(&first.message);
        let words: Vec<&str> = told.split_whitespace().collect();
        Some(bounded(&words.join(" "), MAX_TEXT).into())
    }

    /// What a container left when it ended, as it is. The kubelet has cut it at 4 KiB.
    fn report(&self, container: &str) -> Option<Box<str>> {
        let mut containers = self.container_statuses.iter().flatten();
        let ended = containers.find(|it| it.name == container)?.state.as_ref()?.terminated.as_ref()?;
        (!ended.message.is_empty()).then(|| bounded(&ended.message, MOST_MESSAGE).into())
    }

    fn image(&self, container: &str) -> Option<Box<str>> {
        let found = self.container_statuses.iter().flatten().find(|it| it.name == container)?;
        (!found.image_id.is_empty()).then(|| bounded(&found.image_id, MAX_TEXT).into())
    }

    /// ContainersReady turned False later than every container began to run, and all of them still do. Of a pod
    /// that never was ready the condition is older than its containers, and of one that crashed older than the
    /// container that runs instead. (Whole seconds: within the second of its start a loss is not seen.)
    fn lost_readiness(&self) -> bool {
        let time = |text: &String| text.parse().ok().map(Timestamp::new);
        let lost = self.condition("ContainersReady", "False").and_then(|it| time(it.last_transition_time.as_ref()?));
        let started = |container: &RawContainer| time(container.state.as_ref()?.running.as_ref()?.started_at.as_ref()?);
        let mut containers = self.container_statuses.iter().flatten().peekable();
        containers.peek().is_some() && containers.all(|it| started(it).is_some_and(|started| lost > Some(started)))
    }

    fn disrupted(&self) -> bool {
        self.condition("DisruptionTarget", "True").is_some() || TAKEN_AWAY.contains(&self.reason.as_str())
    }
}

impl From<RawContainer> for Container {
    fn from(raw: RawContainer) -> Self {
        let state = raw.state.unwrap_or_default();
        let last = raw.last_state.and_then(|state| state.terminated);
        let waiting = state.waiting.unwrap_or_default();
        let ended = state.terminated.or(last).map(|ended| Ended {
            reason: ended.reason,
            exit_code: ended.exit_code,
            signal: ended.signal,
            at: ended.finished_at.and_then(|at| at.parse().ok()).map(Timestamp::new),
        });
        Self {
            name: raw.name,
            waiting: waiting.reason,
            waiting_message: waiting.message,
            restarts: raw.restart_count,
            ended,
        }
    }
}

impl Cached for CachedPod {
    type Raw = RawPod;
    const KIND: Kind = Kind::Pod;

    fn read(meta: &RawMeta, raw: RawPod) -> Option<Self> {
        let status = raw.status;
        let job = meta.label(LABEL_JOB);
        let revision = meta.label(LABEL_REVISION).or(job.map(|_| ""))?;
        let said = job.and_then(|_| status.said());
        let reporter = job.and_then(|_| meta.annotation(ANNOTATION_REPORTS));
        let report = reporter.and_then(|container| status.report(container));
        let image = reporter.and_then(|container| status.image(container));
        let over = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let late = status.reason == "DeadlineExceeded";
        let pod = Pod {
            name: meta.name.clone(),
            created: meta.creation_timestamp,
            address: status.pod_ip.clone().filter(|address| !address.is_empty()),
            ready: status.condition("Ready", "True").is_some(),
            lost_readiness: status.lost_readiness(),
            terminating: meta.deletion_timestamp.is_some(),
            disrupted: status.disrupted(),
            unschedulable: status.unschedulable(),
            containers: status
                .init_container_statuses
                .into_iter()
                .chain(status.container_statuses)
                .flatten()
                .map(Container::from)
                .collect(),
        };
        Some(Self {
            release: meta.label(LABEL_RELEASE)?.into(),
            revision: revision.into(),
            job: job.map(Into::into),
            said,
            report,
            image,
            over,
            late,
            owner: meta.controller().map(|owner| owner.uid.as_str().into()),
            pod,
            meta: meta.slim(),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.release
    }
}
