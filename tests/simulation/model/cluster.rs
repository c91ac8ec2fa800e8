//! The objects of the model cluster, their versions, and the snapshots that caches may lag behind on.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use servicerelease::{
    api::{ReleaseCommandStatus, ServiceReleaseSpec, ServiceReleaseStatus},
    engine::{self, Plan, Rival, Template},
};

use super::{
    database::Server,
    gateway::{Gateway, RouteObject},
    jobs::JobObject,
    pods::Pod,
};

pub const RELEASE: &str = "shop";
pub const SERVICE: &str = "shop";
pub const CANDIDATE_SERVICE: &str = "shop-candidate";
pub const DEPLOYMENT: &str = "shop";
/// Snapshots of each kind that a lagging cache can return.
const KEPT: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug)]
pub struct ReleaseObject {
    pub uid: String,
    pub version: u64,
    pub generation: i64,
    pub created: i64,
    pub spec: ServiceReleaseSpec,
    pub status: Option<ServiceReleaseStatus>,
    pub finalizer: bool,
    pub deleting: Option<(i64, Propagation)>,
}

#[derive(Clone, Debug)]
pub struct SetObject {
    pub uid: String,
    pub version: u64,
    pub hash: String,
    pub fingerprint: String,
    pub letter: char,
    pub created: i64,
    pub replicas: i32,
    pub min_ready: i64,
    pub generation: i64,
    /// UID of the ServiceRelease, if it owns this.
    pub owner: Option<String>,
    pub deleting: bool,
    pub observed_generation: i64,
    pub pods: i32,
    pub ready: i32,
    pub available: i32,
    /// When its controller counted last. Nothing that Kubernetes knows: for the checks.
    pub counted_at: i64,
}

#[derive(Clone, Debug)]
pub struct DeploymentObject {
    pub uid: String,
    pub version: u64,
    pub generation: i64,
    pub letter: char,
    pub replicas: i32,
    pub deleting: bool,
    pub observed_generation: i64,
    pub pods: i32,
    pub available: i32,
}

#[derive(Clone, Debug)]
pub struct ServiceObject {
    pub uid: String,
    pub version: u64,
    pub selector: BTreeMap<String, String>,
    pub original: Option<BTreeMap<String, String>>,
    pub owner: Option<String>,
    /// Whether the operator made it, so that it carries its label.
    pub made: bool,
    pub contested_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EndpointObject {
    pub pod: u64,
    pub revision: Option<String>,
    pub ready: bool,
}

#[derive(Clone, Debug)]
pub struct CommandObject {
    pub version: u64,
    pub spec: engine::Command,
    pub status: Option<ReleaseCommandStatus>,
}

/// The ConfigMap with flags and maintenance mode, which has the release's label.
#[derive(Clone, Debug)]
pub struct ConfigMapObject {
    pub version: u64,
    /// When the key of maintenance mode was set last.
    pub switched_at: i64,
    pub data: BTreeMap<String, String>,
    /// The keys that the operator set.
    pub ours: BTreeSet<String>,
}

/// Everything that a cache can know, by kind.
#[derive(Clone, Default)]
pub struct Stores {
    pub release: Option<ReleaseObject>,
    pub sets: BTreeMap<String, SetObject>,
    pub pods: BTreeMap<u64, Pod>,
    pub deployment: Option<DeploymentObject>,
    pub services: BTreeMap<String, ServiceObject>,
    pub slices: BTreeMap<String, Vec<EndpointObject>>,
    pub route: Option<RouteObject>,
    pub plans: BTreeMap<i64, Plan>,
    pub commands: BTreeMap<String, CommandObject>,
    pub jobs: BTreeMap<String, JobObject>,
    pub config_map: Option<ConfigMapObject>,
    pub autoscalers: Vec<String>,
    pub rivals: Vec<Rival>,
    /// Names of ReplicaSets that belong to somebody else.
    pub foreign: BTreeSet<String>,
}

/// Kinds that are cached independently of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Release,
    Sets,
    Pods,
    Deployment,
    Services,
    Slices,
    Plans,
    Commands,
    Others,
    Route,
    Jobs,
}

/// How far each kind's cache lags behind, in changes.
pub type Lag = [u8; 11];

pub const KINDS: [Kind; 11] = [
    Kind::Release,
    Kind::Sets,
    Kind::Pods,
    Kind::Deployment,
    Kind::Services,
    Kind::Slices,
    Kind::Plans,
    Kind::Commands,
    Kind::Others,
    Kind::Route,
    Kind::Jobs,
];

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Conflict,
    NotFound,
    AlreadyExists,
    Invalid,
}

pub struct Cluster {
    /// The true time in milliseconds.
    pub now: i64,
    pub live: Stores,
    /// What kube-proxy routes to, by Service.
    pub proxy: BTreeMap<String, BTreeSet<u64>>,
    /// What shares the requests between the Services, where there is a route.
    pub gateway: Gateway,
    /// The database.
    pub server: Server,
    /// The version of the API server, whose defaults are read back.
    pub api_version: u8,
    /// Whether every Job ends well from now on.
    pub jobs_right: bool,
    /// Pods that went by themselves or by a user's hand; nothing that Kubernetes knows.
    pub graveyard: Vec<Pod>,
    counter: u64,
    dirty: BTreeSet<Kind>,
    snapshots: BTreeMap<Kind, VecDeque<(u64, Rc<Stores>)>>,
    sequence: u64,
}

impl Cluster {
    pub fn new(now: i64) -> Self {
        let mut cluster = Self {
            now,
            live: Stores::default(),
            proxy: BTreeMap::new(),
            gateway: Gateway::default(),
            server: Server::default(),
            api_version: 0,
            jobs_right: false,
            graveyard: Vec::new(),
            counter: 100,
            dirty: KINDS.into(),
            snapshots: BTreeMap::new(),
            sequence: 0,
        };
        cluster.commit();
        cluster
    }

    /// A number never given before: resource versions, UIDs, pods.
    pub fn fresh(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub fn touch(&mut self, kind: Kind) {
        self.dirty.insert(kind);
    }

    /// Whether anything changed since the last commit.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Sends the watch events: what changed can be seen from now on.
    pub fn commit(&mut self) {
        for kind in std::mem::take(&mut self.dirty) {
            self.sequence += 1;
            let snapshot = Rc::new(self.live.only(kind));
            let ring = self.snapshots.entry(kind).or_default();
            ring.push_back((self.sequence, snapshot));
            if ring.len() > KEPT {
                ring.pop_front();
            }
        }
    }

    /// The snapshot of a kind, `lag` changes old, but not older than `floor`.
    pub fn snapshot(&self, kind: Kind, lag: usize, floor: u64) -> (u64, Rc<Stores>) {
        let ring = &self.snapshots[&kind];
        let index = (ring.len() - 1).saturating_sub(lag);
        let at = ring.iter().skip(index).find(|(seq, _)| *seq >= floor);
        let (seq, stores) = at.unwrap_or(&ring[ring.len() - 1]);
        (*seq, Rc::clone(stores))
    }

    pub fn release_mut(&mut self, version: Option<u64>) -> Result<&mut ReleaseObject, Refusal> {
        let next = self.fresh();
        let object = self.live.release.as_mut().ok_or(Refusal::NotFound)?;
        if version.is_some_and(|version| version != object.version) {
            return Err(Refusal::Conflict);
        }
        object.version = next;
        self.dirty.insert(Kind::Release);
        Ok(object)
    }

    /// A ReplicaSet to be written, if the precondition holds.
    pub fn set_mut(&mut self, name: &str, precondition: Option<(&str, &str)>) -> Result<&mut SetObject, Refusal> {
        let next = self.fresh();
        let object = self.live.sets.get_mut(name).ok_or(Refusal::NotFound)?;
        check(precondition, &object.uid, object.version)?;
        object.version = next;
        self.dirty.insert(Kind::Sets);
        Ok(object)
    }

    pub fn service_mut(
        &mut self,
        name: &str,
        precondition: Option<(&str, &str)>,
    ) -> Result<&mut ServiceObject, Refusal> {
        let next = self.fresh();
        let object = self.live.services.get_mut(name).ok_or(Refusal::NotFound)?;
        check(precondition, &object.uid, object.version)?;
        object.version = next;
        self.dirty.insert(Kind::Services);
        Ok(object)
    }

    pub fn deployment_mut(&mut self, precondition: Option<(&str, &str)>) -> Result<&mut DeploymentObject, Refusal> {
        let next = self.fresh();
        let object = self.live.deployment.as_mut().ok_or(Refusal::NotFound)?;
        check(precondition, &object.uid, object.version)?;
        object.version = next;
        self.dirty.insert(Kind::Deployment);
        Ok(object)
    }

    /// What the API server says of a ReplicaSet that would be made.
    pub fn dry_run(&self, name: &str, template: &Template) -> engine::TemplateCheck {
        if self.live.foreign.contains(name) {
            return engine::TemplateCheck::NameTaken;
        }
        if super::catalogue::letter_of(template) == 'R' {
            return engine::TemplateCheck::Refused("spec.template.spec.containers[0].image: Required value".into());
        }
        engine::TemplateCheck::Passed
    }

    /// Pods of the release's ReplicaSets.
    pub fn release_pods(&self) -> impl Iterator<Item = &Pod> {
        self.live.pods.values().filter(|pod| pod.revision().is_some())
    }

    /// Pods of one revision.
    pub fn pods_of<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.live.pods.values().filter(move |pod| pod.revision() == Some(revision))
    }

    pub fn set_of(&self, revision: &str) -> Option<&SetObject> {
        self.live.sets.values().find(|set| set.hash == revision)
    }

    /// Whether a Service's selector picks a pod, by the labels that the pod carries.
    pub fn selects(service: &ServiceObject, pod: &Pod) -> bool {
        let labels = labels(pod);
        service.selector.iter().all(|(key, value)| labels.get(key.as_str()).is_some_and(|have| have == value))
    }
}

/// The labels of a pod.
pub fn labels(pod: &Pod) -> BTreeMap<&str, String> {
    let mut labels = BTreeMap::from([("app", "shop".to_owned())]);
    if let Some(revision) = pod.revision() {
        labels.insert(servicerelease::api::LABEL_RELEASE, RELEASE.to_owned());
        labels.insert(servicerelease::api::LABEL_REVISION, revision.to_owned());
    }
    labels
}

pub fn check(precondition: Option<(&str, &str)>, uid: &str, version: u64) -> Result<(), Refusal> {
    match precondition {
        Some((want, _)) if want != uid => Err(Refusal::Conflict),
        Some((_, want)) if want != version.to_string() => Err(Refusal::Conflict),
        _ => Ok(()),
    }
}

impl Stores {
    /// A copy with one kind only.
    fn only(&self, kind: Kind) -> Self {
        let mut copy = Self::default();
        match kind {
            Kind::Release => copy.release.clone_from(&self.release),
            Kind::Sets => copy.sets.clone_from(&self.sets),
            Kind::Pods => copy.pods.clone_from(&self.pods),
            Kind::Deployment => copy.deployment.clone_from(&self.deployment),
            Kind::Services => copy.services.clone_from(&self.services),
            Kind::Slices => copy.slices.clone_from(&self.slices),
            Kind::Plans => copy.plans.clone_from(&self.plans),
            Kind::Commands => copy.commands.clone_from(&self.commands),
            Kind::Jobs => copy.jobs.clone_from(&self.jobs),
            Kind::Route => copy.route.clone_from(&self.route),
            Kind::Others => {
                copy.config_map.clone_from(&self.config_map);
                copy.autoscalers.clone_from(&self.autoscalers);
                copy.rivals.clone_from(&self.rivals);
                copy.foreign.clone_from(&self.foreign);
            }
        }
        copy
    }
}
