//! From cached objects to what the engine sees. It only translates: nothing is asked of the API
//! server, nothing is decided.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use crate::{
    api::{
        ANNOTATION_OWNER_UID, LABEL_JOB, LABEL_RELEASE, LABEL_REVISION, ParentRef, RouteProtocol, ServiceRelease,
        ServiceReleaseSpec, Timestamp,
    },
    engine::{
        self, Command, Container, Ended, Endpoint, Job, JobEnd, JobPod, NamedTemplate, Observed, ParentGateway, Plan,
        Revision, Rival, Route, Service, Template, TemplateCheck, Workload,
        observed::{ConfigMap, TIME_OVER},
        revision, task,
    },
};

use super::{
    cache::{
        Cached as _, CachedCommand, CachedConfigMap, CachedJob, CachedPlan, CachedPod, CachedService, Claim,
        Deployment, Kind, Meta, ReplicaSet, World,
    },
    calls::Written,
    key::Key,
};

/// What one pass is told, and what would have to be read for the rest.
#[derive(Debug)]
pub struct View {
    /// What the engine is told.
    pub observed: Observed,
    /// Plans that are needed and not in memory.
    pub unread_plans: Vec<Key>,
}

/// Everything about a release that the cache knows.
#[must_use]
pub fn observe(world: &World, key: &Key, release: &ServiceRelease) -> View {
    let uid = release.metadata.uid.as_deref().unwrap_or_default();
    let spec = &release.spec;
    let deployment = spec.workload_ref.as_ref().map(|workload| key.beside(&workload.name));
    let traffic = spec.traffic.as_ref();
    let service = |name: &String| observe_service(world, key, uid, &key.beside(name));
    let mut observed = Observed {
        workload: deployment.as_ref().and_then(|deployment| world.deployments.get(deployment)).map(workload),
        revisions: world.replica_sets.of(key).map(|set| observe_revision(world, key, uid, set)).collect(),
        service: traffic.and_then(|traffic| service(&traffic.service)),
        candidate_service: traffic.and_then(|traffic| traffic.candidate_service.as_ref()).and_then(service),
        commands: world.commands.of(key).filter_map(command).collect(),
        route: Claim::route(&key.name, spec).and_then(|claim| route(world, key, spec, &claim)),
        preview: Claim::preview(&key.name, spec).and_then(|claim| route(world, key, spec, &claim)),
        providers: None,
        allowed_hosts: None,
        router_refused: None,
        answers: Vec::new(),
        asking_since: None,
        jobs: world.jobs.of(key).filter(|job| *job.owner == *uid).map(|job| observe_job(world, key, job)).collect(),
        gateways: gateways(world, key, spec),
        rivals: rivals(world, key, spec),
        autoscalers: deployment
            .iter()
            .flat_map(|deployment| world.autoscalers.of(deployment))
            .map(|autoscaler| autoscaler.meta().key.name.to_string())
            .collect(),
        config_maps: world.config_maps.of(key).filter(|map| !map.meta().deleting).map(config_map).collect(),
        template_check: TemplateCheck::Passed,
        templates: Vec::new(),
        template_unreadable: None,
        refusal: None,
        plans: Vec::new(),
        plan_numbers: Vec::new(),
    };
    let unread_plans = observe_plans(world, key, release, &mut observed);
    View { observed, unread_plans }
}

fn workload(deployment: &Deployment) -> Workload {
    Workload {
        object: deployment.meta().object(),
        generation: deployment.generation,
        observed: deployment.observed,
        replicas: deployment.replicas,
        available: deployment.available,
        match_labels: deployment.match_labels.clone(),
        template: deployment.template.clone(),
        deleting: deployment.meta().deleting,
    }
}

fn observe_revision(world: &World, key: &Key, uid: &str, set: &ReplicaSet) -> Revision {
    let meta = set.meta();
    // Owned by an earlier object of this name: garbage collection is about to take it.
    let orphaned = set.owner.as_deref().is_some_and(|owner| owner != uid);
    Revision {
        object: meta.object(),
        hash: set.hash.to_string(),
        fingerprint: set.fingerprint.to_string(),
        template: set.template.clone(),
        created: meta.created,
        replicas: set.replicas,
        min_ready_seconds: set.min_ready_seconds,
        observed: set.observed,
        pods_total: set.pods,
        ready: set.ready,
        available: set.available,
        failure: set.failure.as_deref().map(str::to_owned),
        deleting: meta.deleting || orphaned,
        pods: world
            .pods
            .of(key)
            .filter(|pod| pod.owner.as_deref() == Some(&*meta.uid))
            .map(|pod| pod.pod.clone())
            .collect(),
    }
}

fn observe_job(world: &World, key: &Key, job: &CachedJob) -> Job {
    let meta = job.meta();
    let pods = world.pods.of(key).filter(|pod| pod.owner.as_deref() == Some(&*meta.uid));
    // A pod that was taken from its node may have been made anew.
    let pod = pods.max_by_key(|pod| (pod.pod.created, pod.pod.name.clone()));
    // One that is not over yet is behind in the cache, or lives on: what comes of it is not known yet.
    let end = job.end.as_ref().filter(|_| !job.reports || pod.is_none_or(|pod| pod.over));
    let end = end.map(|end| JobEnd {
        succeeded: end.succeeded,
        at: end.at,
        took: since(meta.created, end.at),
        message: last_words(pod).unwrap_or_else(|| end.why.to_string()),
        report: pod.filter(|_| job.reports).and_then(|pod| pod.report.as_deref()).map(str::to_owned),
        image: pod.filter(|_| job.reports).and_then(|pod| pod.image.as_deref()).map(str::to_owned),
    });
    let stuck = pod.and_then(|pod| pod.pod.unschedulable.clone().or_else(|| waits(pod)).or_else(|| outlived(pod)));
    let there = match pod {
        Some(pod) if pod.over => JobPod::Over,
        Some(_) => JobPod::There,
        None if job.made => JobPod::Gone,
        None => JobPod::NotYet,
    };
    Job { object: meta.object(), end, stuck, pod: there, deleting: meta.deleting }
}

/// How the containers of a pod ended, and what they left to say.
fn last_words(pod: Option<&CachedPod>) -> Option<String> {
    let pod = pod?;
    // Of a container that never was the kubelet says at the end that it knows nothing of it.
    let ended = || {
        let known = |it: &&Ended| it.reason != "ContainerStatusUnknown";
        pod.pod.containers.iter().filter_map(move |it| Some((it, it.ended.as_ref().filter(known)?)))
    };
    let (container, end) = ended().find(|(_, end)| end.exit_code != 0).or_else(|| ended().next())?;
    let code = match end.reason.as_str() {
        "OOMKilled" => "OOMKilled".to_owned(),
        _ => format!("exit code {}", end.exit_code),
    };
    let code = installs(container).map_or(code.clone(), |what| format!("{what}: {code}"));
    let code = if pod.late { format!("{TIME_OVER}{code}") } else { code };
    let code = if pod.pod.disrupted { format!("its pod was taken from its node: {code}") } else { code };
    Some(match pod.said.as_deref().filter(|said| !said.is_empty()) {
        Some(said) => format!("{code}: {said}"),
        None => code,
    })
}

/// Why a container of a pod does not run.
fn waits(pod: &CachedPod) -> Option<String> {
    pod.pod.containers.iter().find_map(|container| {
        let why = match (&container.waiting, &container.waiting_message) {
            (Some(reason), Some(message)) => format!("{reason}: {message}"),
            // The ordinary way of a pod.
            (Some(reason), None) if !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") => {
                reason.clone()
            }
            _ => return None,
        };
        Some(installs(container).map_or(why.clone(), |what| format!("{what}: {why}")))
    })
}

/// What keeps a pod from ending whose container has told what it did.
fn outlived(pod: &CachedPod) -> Option<String> {
    let over = pod.report.is_none() || pod.over;
    let runs = pod.pod.containers.iter().find(|it| !over && it.ended.is_none() && it.waiting.is_none())?;
    let remedy = "make it an init container with restartPolicy: Always";
    Some(format!("container {} goes on although the work is done: {remedy}", runs.name))
}

/// The name of the container that is not the user's, although the pod is.
fn installs(container: &Container) -> Option<String> {
    (container.name == task::INSTALLER).then(|| format!("init container {}, of the operator's image", task::INSTALLER))
}

fn config_map(cached: &CachedConfigMap) -> ConfigMap {
    let changed_by = cached.changed_by.as_deref().map(str::to_owned);
    ConfigMap { object: cached.meta().object(), data: cached.data.clone(), changed_by, ours: cached.ours.clone() }
}

fn since(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millis() - from.as_millis()).unwrap_or(0)
}

fn observe_service(world: &World, key: &Key, uid: &str, service: &Key) -> Option<Service> {
    let cached: &CachedService = world.services.get(service)?;
    Some(Service {
        object: cached.meta().object(),
        selector: cached.selector.clone(),
        original: cached.original.clone(),
        external: cached.external,
        owned: cached.owner.as_deref() == Some(uid) || cached.made_by.as_deref() == Some(&*key.name),
        contested_by: cached.contested_by.as_deref().map(str::to_owned),
        changed_by: cached.changed_by.as_deref().map(str::to_owned),
        named_ports: cached.named_ports.iter().map(|(name, port)| (name.to_string(), *port)).collect(),
        targets: cached.targets.clone(),
        endpoints: endpoints(world, key, service, cached.ports),
    })
}

fn route(world: &World, key: &Key, spec: &ServiceReleaseSpec, claim: &Claim) -> Option<Route> {
    let Claim::Route(name) = claim else { return None };
    match spec.router()?.protocol() {
        RouteProtocol::Http => Some(world.routes.get(&key.beside(name))?.seen(&key.name)),
        RouteProtocol::Grpc => Some(world.grpc_routes.get(&key.beside(name))?.seen(&key.name)),
    }
}

/// The Gateways that a release's route is attached to, as far as they are known.
fn gateways(world: &World, key: &Key, spec: &ServiceReleaseSpec) -> Vec<ParentGateway> {
    let own = spec.router().and_then(|router| router.gateway.as_ref());
    let users = || {
        let route = Claim::route(&key.name, spec).and_then(|claim| route(world, key, spec, &claim))?;
        serde_json::from_value(route.spec.get("parentRefs")?.clone()).ok()
    };
    let references = own.map(|own| own.parent_refs.clone()).or_else(users).unwrap_or_default();
    let seen = |reference: &ParentRef| {
        let namespace = reference.namespace.as_deref().map_or_else(|| key.namespace.clone(), Into::into);
        let Some(gateway) = world.gateways.get(&Key { namespace, name: reference.name.as_str().into() }) else {
            let none = ParentGateway { reference: reference.clone(), missing: true, ..ParentGateway::default() };
            return world.knows_gateways().then_some(none);
        };
        let class = Key { namespace: "".into(), name: gateway.class.clone() };
        Some(gateway.seen(reference, world.gateway_classes.get(&class)))
    };
    let is_gateway = |reference: &&ParentRef| {
        reference.kind.as_deref().is_none_or(|kind| kind == "Gateway")
            && reference.group.as_deref().is_none_or(|group| group == Kind::Gateway.resource().0)
    };
    references.iter().filter(is_gateway).filter_map(seen).collect()
}

/// Each pod once, also when it has an address in more than one family. It is ready with all the ports that
/// the Service has, or not at all.
fn endpoints(world: &World, key: &Key, service: &Key, ports: usize) -> Vec<Endpoint> {
    let mut by_pod: BTreeMap<&Key, bool> = BTreeMap::new();
    for slice in world.slices.of(service) {
        for (pod, ready) in &slice.endpoints {
            *by_pod.entry(pod).or_default() |= *ready && slice.ports >= ports;
        }
    }
    let endpoint = |(pod, ready): (&Key, bool)| {
        let own = world.pods.get(pod).filter(|pod| pod.group() == &*key.name);
        let (pod, revision) = own.map(|own| (pod.name.to_string(), own.revision.to_string())).unzip();
        Endpoint { pod, revision, ready }
    };
    by_pod.into_iter().map(endpoint).collect()
}

fn command(cached: &CachedCommand) -> Option<Command> {
    let spec = cached.spec.as_ref().ok()?;
    let meta: &Meta = cached.meta();
    (!meta.deleting).then(|| Command {
        object: meta.object(),
        created: meta.created,
        action: spec.action,
        revision: spec.revision.clone(),
        step: spec.step,
        full: spec.full.unwrap_or(false),
        to_revision: spec.to_revision.clone(),
        approval: spec.approval.clone(),
        reason: spec.reason.clone(),
        requested_by: spec.requested_by.clone(),
        decided_at: cached.status.as_ref().map(|status| status.at),
    })
}

fn rivals(world: &World, key: &Key, spec: &ServiceReleaseSpec) -> Vec<Rival> {
    let mut rivals = Vec::new();
    for claim in Claim::of(spec) {
        for other in world.claimants(&key.namespace, &claim) {
            if other == *key {
                continue;
            }
            let Some(cached) = world.releases.get(&other) else {
                continue;
            };
            rivals.push(Rival {
                name: other.name.to_string(),
                created: cached.meta().created,
                claim: claim.to_string(),
            });
        }
    }
    rivals
}

/// Fills in the plans that are in memory; says which of those that are needed are not.
fn observe_plans(world: &World, key: &Key, release: &ServiceRelease, observed: &mut Observed) -> Vec<Key> {
    let uid = release.metadata.uid.as_deref();
    let own = |plan: &&CachedPlan| plan.owner.as_deref() == uid && !plan.meta().deleting;
    let plans: Vec<&CachedPlan> = world.plans.of(key).filter(own).collect();
    observed.plan_numbers = plans.iter().map(|plan| plan.number).collect();
    let needed = needed_plans(release, observed);
    let mut unread = Vec::new();
    for plan in plans.into_iter().filter(|plan| needed.contains(&plan.number)) {
        match &plan.data {
            Some(data) => observed.plans.extend(read_plan(plan.number, data)),
            None => unread.push(plan.meta().key.clone()),
        }
    }
    unread
}

fn needed_plans(release: &ServiceRelease, observed: &Observed) -> Vec<i64> {
    let Some(status) = &release.status else {
        return Vec::new();
    };
    let current = status.release.as_ref().map(|release| release.number);
    let exists = |hash: &str| {
        let mut revisions = observed.revisions.iter();
        revisions.any(|revision| revision.hash == hash && !revision.deleting)
    };
    let lost = status.stable.as_ref().filter(|stable| !exists(&stable.revision));
    current.into_iter().chain(lost.map(|stable| stable.release)).collect()
}

/// A plan from the data of its ControllerRevision; none, and a word in the log, if somebody spoilt it.
#[must_use]
pub fn read_plan(number: i64, data: &str) -> Option<Plan> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        revision: String,
        spec: ServiceReleaseSpec,
        template: Value,
        #[serde(default)]
        analysis_templates: Vec<NamedTemplate>,
    }
    match serde_json::from_str::<Data>(data) {
        Ok(Data { revision, spec, template, analysis_templates }) => {
            Some(Plan { number, revision, spec, template: Template::new(template), analysis_templates })
        }
        Err(error) => {
            warn!(number, %error, "the pinned plan cannot be read");
            None
        }
    }
}

/// The hash of the template that is wanted, if the API server has to be asked about it.
#[must_use]
pub fn untried(release: &ServiceRelease, observed: &Observed) -> Option<String> {
    let target = revision::target(release, observed)?;
    engine::is_untried(release, observed, &target.hash).then_some(target.hash)
}

/// Whose an object is that has the name of a ReplicaSet to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// It is that ReplicaSet already.
    Ours,
    /// It belongs to an earlier ServiceRelease of the same name.
    Predecessors,
    /// It is somebody else's.
    Others,
}

/// See [`Whose`].
#[must_use]
pub fn whose(object: &Written, release: &ServiceRelease, hash: &str) -> Whose {
    let meta = &object.metadata;
    let named =
        meta.label(LABEL_RELEASE) == release.metadata.name.as_deref() && meta.label(LABEL_REVISION) == Some(hash);
    match meta.controller() {
        None if named => Whose::Ours,
        Some(_) if named && owned(object, release) => Whose::Ours,
        Some(owner) if owner.is_release() && !owned(object, release) => Whose::Predecessors,
        _ => Whose::Others,
    }
}

/// Whether a release is an object's controller.
#[must_use]
pub fn owned(object: &Written, release: &ServiceRelease) -> bool {
    let owner = object.metadata.controller();
    owner.is_some_and(|owner| owner.is_release() && Some(&owner.uid) == release.metadata.uid.as_ref())
}

/// Whether a Job was made for a release, whether or not it goes with it.
#[must_use]
pub fn made_for(object: &Written, release: &ServiceRelease) -> bool {
    let meta = &object.metadata;
    let outlives =
        || meta.controller().is_none() && meta.annotation(ANNOTATION_OWNER_UID) == release.metadata.uid.as_deref();
    meta.label(LABEL_JOB).is_some() && (owned(object, release) || outlives())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const OURS: &str = "servicerelease.io/v1alpha1";

    #[rstest]
    #[case::ours("shop", "abc", Some((OURS, "ServiceRelease", "u-1")), Whose::Ours)]
    #[case::ours_without_an_owner("shop", "abc", None, Whose::Ours)]
    #[case::of_an_object_that_had_the_name("shop", "abc", Some((OURS, "ServiceRelease", "u-0")), Whose::Predecessors)]
    #[case::of_a_deployment("shop", "abc", Some(("apps/v1", "Deployment", "u-1")), Whose::Others)]
    #[case::of_another_release("other", "abc", None, Whose::Others)]
    #[case::of_another_revision("shop", "xyz", Some((OURS, "ServiceRelease", "u-1")), Whose::Others)]
    fn a_replica_set_that_has_the_name_is_told_apart(
        #[case] release: &str,
        #[case] revision: &str,
        #[case] owner: Option<(&str, &str, &str)>,
        #[case] whose_it_is: Whose,
    ) {
        let owners = owner.map(|(version, kind, uid)| {
            json!([{"apiVersion": version, "kind": kind, "uid": uid, "name": "shop", "controller": true}])
        });
        let object = json!({"metadata": {
            "labels": {LABEL_RELEASE: release, LABEL_REVISION: revision}, "ownerReferences": owners,
        }});
        let shop = json!({"metadata": {"name": "shop", "uid": "u-1"}, "spec": {}});
        let (object, shop) = (serde_json::from_value(object).unwrap(), serde_json::from_value(shop).unwrap());
        assert_eq!(whose(&object, &shop, "abc"), whose_it_is);
    }

    #[test]
    fn a_plan_that_somebody_spoilt_is_no_plan() {
        assert_eq!(read_plan(1, "null"), None);
        assert_eq!(read_plan(1, r#"{"revision": "a", "spec": {"replicas": "many"}, "template": {}}"#), None);
        assert!(read_plan(1, r#"{"revision": "a", "spec": {"paused": false}, "template": {}}"#).is_some());
    }
}
