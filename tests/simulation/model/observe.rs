//! What one operator process sees: caches of each kind, which may lag behind independently.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use servicerelease::{
    api::{FINALIZER, ServiceRelease, Timestamp},
    engine::{
        self, Command, ConfigMap, Container, Effect, Endpoint, ObjectVersion, Observed, Plan, Pod, Revision, Service,
        TemplateCheck, Workload, revision, wants_templates,
    },
};

use crate::{metrics, setup};

use super::{
    catalogue,
    cluster::{
        CANDIDATE_SERVICE, Cluster, ConfigMapObject, DEPLOYMENT, KINDS, Kind, RELEASE, ReleaseObject, SERVICE,
        ServiceObject, SetObject, Stores,
    },
    database, pods,
};

/// The caches of one process.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// The oldest snapshot that may still be shown, by kind: a cache does not go back in time.
    floors: BTreeMap<Kind, u64>,
    /// The ReplicaSets of which the API server has said what it has against them, with the generation.
    tried: BTreeSet<(String, Option<i64>)>,
}

/// One consistent-looking look at the world.
pub struct View {
    pub release: ServiceRelease,
    pub release_version: u64,
    pub observed: Observed,
    /// When the controllers had counted what is seen here, by revision.
    pub counted_at: BTreeMap<String, i64>,
    /// Whether it is the world as it is.
    pub fresh: bool,
}

impl Caches {
    /// Forgets everything: the process was started again.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Remembers that the API server answered about the ReplicaSet that an effect is about.
    pub fn learn(&mut self, effect: &Effect, release: &ServiceRelease) {
        if let Effect::TryTemplate(new) | Effect::CreateReplicaSet(new) = effect {
            self.tried.insert((new.name.clone(), release.metadata.generation));
        }
    }

    /// Shows from now on what was written by now: a process waits for its own writes, and a new
    /// leader for those of the one before.
    pub fn catch_up(&mut self, cluster: &Cluster, kind: Kind) {
        let (seq, _) = cluster.snapshot(kind, 0, 0);
        self.floors.insert(kind, seq);
    }

    /// Looks, with the kinds lagging by so many changes.
    pub fn look(&mut self, cluster: &Cluster, lag: impl Fn(Kind) -> usize) -> Option<View> {
        let mut fresh = true;
        let mut take = |kind: Kind| {
            let floor = self.floors.get(&kind).copied().unwrap_or(0);
            let (seq, stores) = cluster.snapshot(kind, lag(kind), floor);
            self.floors.insert(kind, seq);
            fresh &= seq == cluster.snapshot(kind, 0, 0).0;
            stores
        };
        let seen: BTreeMap<Kind, Rc<Stores>> = KINDS.iter().map(|kind| (*kind, take(*kind))).collect();
        let object = seen[&Kind::Release].release.as_ref()?;
        let release = as_release(object);
        let observed = observe(cluster, &seen, &self.tried, &release);
        let sets = &seen[&Kind::Sets].sets;
        Some(View {
            release_version: object.version,
            counted_at: sets.values().map(|set| (set.hash.clone(), set.counted_at)).collect(),
            release,
            observed,
            fresh,
        })
    }
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn as_release(object: &ReleaseObject) -> ServiceRelease {
    let mut release = ServiceRelease::new(RELEASE, object.spec.clone());
    release.metadata = ObjectMeta {
        name: Some(RELEASE.into()),
        namespace: Some("production".into()),
        uid: Some(object.uid.clone()),
        resource_version: Some(object.version.to_string()),
        generation: Some(object.generation),
        creation_timestamp: Some(Time(time(object.created).inner())),
        deletion_timestamp: object.deleting.map(|(at, _)| Time(time(at).inner())),
        finalizers: object.finalizer.then(|| vec![FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    release.status.clone_from(&object.status);
    release
}

fn observe(
    cluster: &Cluster,
    seen: &BTreeMap<Kind, Rc<Stores>>,
    tried: &BTreeSet<(String, Option<i64>)>,
    release: &ServiceRelease,
) -> Observed {
    let sets = &seen[&Kind::Sets].sets;
    let plans = &seen[&Kind::Plans].plans;
    let services = &seen[&Kind::Services].services;
    let slices = &seen[&Kind::Slices].slices;
    let others = &seen[&Kind::Others];
    let service = |name: &str| {
        let object = services.get(name)?;
        let slice = slices.get(name).map_or(&[][..], Vec::as_slice);
        Some(as_service(name, object, slice, release))
    };
    let traffic = release.spec.traffic.as_ref();
    let revisions: Vec<Revision> =
        sets.iter().map(|(name, set)| as_revision(name, set, &seen[&Kind::Pods], cluster.api_version)).collect();
    let mut observed = Observed {
        config_maps: others.config_map.iter().map(as_config_map).collect(),
        workload: release.spec.workload_ref.as_ref().and_then(|_| as_workload(cluster, &seen[&Kind::Deployment])),
        plans: needed_plans(release, plans, &revisions),
        plan_numbers: plans.keys().copied().collect(),
        service: traffic.and_then(|_| service(SERVICE)),
        candidate_service: traffic
            .and_then(|traffic| traffic.candidate_service.as_deref())
            .and_then(|_| service(CANDIDATE_SERVICE)),
        jobs: seen[&Kind::Jobs].jobs.iter().map(|(name, job)| job.seen(name)).collect(),
        answers: Vec::new(),
        asking_since: None,
        commands: seen[&Kind::Commands]
            .commands
            .values()
            .map(|command| Command {
                object: ObjectVersion { resource_version: command.version.to_string(), ..command.spec.object.clone() },
                decided_at: command.status.as_ref().map(|status| status.at),
                ..command.spec.clone()
            })
            .collect(),
        route: traffic
            .and_then(|traffic| traffic.router.as_ref())
            .and_then(|_| Some(seen[&Kind::Route].route.as_ref()?.seen())),
        gateways: Vec::new(),
        providers: None,
        allowed_hosts: None,
        router_refused: None,
        preview: None,
        rivals: others.rivals.clone(),
        autoscalers: others.autoscalers.clone(),
        revisions,
        template_check: TemplateCheck::Passed,
        templates: Vec::new(),
        template_unreadable: None,
        refusal: None,
    };
    if wants_templates(release, &observed) {
        observed.templates.extend(metrics::KINDS.map(setup::template));
    }
    let target = revision::target(release, &observed);
    if let Some(target) = target {
        let name = format!("{RELEASE}-{}", target.hash);
        let known = tried.contains(&(name.clone(), release.metadata.generation));
        if engine::is_untried(release, &observed, &target.hash) {
            observed.template_check =
                if known { cluster.dry_run(&name, &target.template) } else { TemplateCheck::Unknown };
        }
    }
    observed
}

/// The pinned plans that the observer loads (see [`Observed::plans`]).
fn needed_plans(release: &ServiceRelease, plans: &BTreeMap<i64, Plan>, revisions: &[Revision]) -> Vec<Plan> {
    let Some(status) = &release.status else {
        return Vec::new();
    };
    let mut numbers = Vec::new();
    numbers.extend(status.release.as_ref().map(|current| current.number));
    if let Some(stable) = &status.stable {
        let missing = revisions.iter().all(|set| set.hash != stable.revision);
        if missing && !numbers.contains(&stable.release) {
            numbers.push(stable.release);
        }
    }
    let found = numbers.iter().filter_map(|number| plans.get(number));
    found.cloned().collect()
}

fn as_service(
    name: &str,
    object: &ServiceObject,
    slice: &[super::cluster::EndpointObject],
    release: &ServiceRelease,
) -> Service {
    Service {
        object: ObjectVersion {
            name: name.to_owned(),
            uid: object.uid.clone(),
            resource_version: object.version.to_string(),
        },
        selector: object.selector.clone(),
        original: object.original.clone(),
        owned: match &object.owner {
            Some(owner) => Some(owner) == release.metadata.uid.as_ref(),
            None => object.made,
        },
        contested_by: object.contested_by.clone(),
        changed_by: None,
        endpoints: slice
            .iter()
            .map(|endpoint| Endpoint { pod: None, revision: endpoint.revision.clone(), ready: endpoint.ready })
            .collect(),
        ..Service::default()
    }
}

fn as_revision(name: &str, set: &SetObject, pods: &Stores, api_version: u8) -> Revision {
    Revision {
        object: ObjectVersion {
            name: name.to_owned(),
            uid: set.uid.clone(),
            resource_version: set.version.to_string(),
        },
        hash: set.hash.clone(),
        fingerprint: set.fingerprint.clone(),
        template: catalogue::read_back(set.letter, api_version),
        created: time(set.created),
        replicas: set.replicas,
        min_ready_seconds: i32::try_from(set.min_ready / 1000).unwrap_or(i32::MAX),
        observed: set.observed_generation == set.generation,
        pods_total: set.pods,
        ready: set.ready,
        available: set.available,
        failure: None,
        deleting: set.deleting,
        pods: pods
            .pods
            .values()
            .filter(|pod| matches!(&pod.owner, pods::Owner::Set { name: owner, .. } if owner == name))
            .map(as_pod)
            .collect(),
    }
}

fn as_pod(pod: &pods::Pod) -> Pod {
    Pod {
        created: None,
        address: Some("198.18.0.1".into()),
        name: pod.name(),
        ready: pod.ready && !pod.failed,
        lost_readiness: pod.lost_readiness,
        terminating: pod.terminating_since.is_some(),
        disrupted: pod.disrupted,
        unschedulable: pod.unschedulable.then(|| "0/3 nodes are available: 3 Insufficient cpu.".to_owned()),
        containers: vec![Container {
            name: "app".into(),
            waiting: pod.waiting.map(str::to_owned),
            waiting_message: pod.waiting.map(|reason| format!("the kubelet says {reason}")),
            restarts: pod.restarts,
            ended: pod.ended.clone(),
        }],
    }
}

fn as_config_map(map: &ConfigMapObject) -> ConfigMap {
    ConfigMap {
        object: ObjectVersion {
            name: database::CONFIG.into(),
            uid: "config".into(),
            resource_version: map.version.to_string(),
        },
        data: map.data.clone(),
        changed_by: None,
        ours: map.ours.clone(),
    }
}

fn as_workload(cluster: &Cluster, stores: &Stores) -> Option<Workload> {
    let object = stores.deployment.as_ref()?;
    Some(Workload {
        object: ObjectVersion {
            name: DEPLOYMENT.into(),
            uid: object.uid.clone(),
            resource_version: object.version.to_string(),
        },
        generation: object.generation,
        observed: object.observed_generation == object.generation,
        replicas: object.replicas,
        available: object.available,
        match_labels: [("app".to_owned(), "shop".to_owned())].into(),
        template: catalogue::read_back(object.letter, cluster.api_version),
        deleting: object.deleting,
    })
}
