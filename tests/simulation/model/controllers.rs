//! Kubernetes' own controllers as far as they matter: kubelet, ReplicaSet, Deployment, endpoints,
//! kube-proxy, garbage collection.

use std::collections::BTreeSet;

use super::{
    cluster::{Cluster, EndpointObject, Kind, Propagation},
    pods::{GRACE, Owner, Pod},
};

/// Which controllers lag behind in a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lagging {
    pub kubelet: bool,
    pub sets: bool,
    pub deployment: bool,
    pub endpoints: bool,
    pub proxy: bool,
    pub garbage: bool,
    pub gateway: bool,
    pub data_plane: bool,
}

impl Lagging {
    pub fn from_bits(bits: u8) -> Self {
        Self {
            kubelet: bits & 1 != 0,
            sets: bits & 2 != 0,
            deployment: bits & 4 != 0,
            endpoints: bits & 8 != 0,
            proxy: bits & 16 != 0,
            garbage: bits & 32 != 0,
            gateway: bits & 64 != 0,
            data_plane: bits & 128 != 0,
        }
    }

    /// Whether pods and endpoints may part. A gateway may always take its time.
    pub fn any(self) -> bool {
        Self { gateway: false, data_plane: false, ..self } != Self::default()
    }
}

/// Time passes, and every controller that does not lag runs once. True if something changed.
pub fn tick(cluster: &mut Cluster, millis: i64, lagging: Lagging) -> bool {
    cluster.now += millis;
    let routed = (cluster.proxy.clone(), cluster.gateway.served);
    if !lagging.kubelet {
        kubelet(cluster);
    }
    if !lagging.garbage {
        garbage(cluster);
    }
    if !lagging.deployment {
        deployment(cluster);
    }
    if !lagging.sets {
        sets(cluster);
    }
    if !lagging.endpoints {
        endpoints(cluster);
    }
    if !lagging.proxy {
        proxy(cluster);
    }
    cluster.run_jobs();
    cluster.run_database();
    cluster.route_requests(lagging.gateway, lagging.data_plane);
    note_availability(cluster);
    let changed = cluster.is_dirty() || routed != (cluster.proxy.clone(), cluster.gateway.served);
    // The time of the last count is part of the snapshot, although nothing in Kubernetes changed.
    cluster.touch(Kind::Sets);
    cluster.commit();
    changed
}

/// When something changes next by itself; none if all is quiet.
pub fn next_change(cluster: &Cluster) -> Option<i64> {
    cluster
        .live
        .pods
        .values()
        .filter_map(|pod| {
            let terminating = pod.terminating_since.map(|since| since + GRACE);
            let available =
                (pod.active() && pod.ready && !pod.available(cluster.now)).then_some(pod.ready_since + pod.min_ready);
            [terminating, available, pod.next_change].into_iter().flatten().min()
        })
        .chain(cluster.next_move_of_gateway())
        .chain(cluster.next_end_of_job())
        .min()
}

fn kubelet(cluster: &mut Cluster) {
    let now = cluster.now;
    let mut changed = false;
    for pod in cluster.live.pods.values_mut() {
        changed |= pod.advance(now);
    }
    let gone =
        cluster.live.pods.extract_if(.., |_, pod| pod.terminating_since.is_some_and(|since| now - since >= GRACE));
    let gone: Vec<Pod> = gone.map(|(_, pod)| pod).collect();
    if changed || !gone.is_empty() {
        cluster.touch(Kind::Pods);
    }
    let innocent = gone.into_iter().filter(|pod| pod.disrupted || pod.excused);
    cluster.graveyard.extend(innocent);
    let surplus = cluster.graveyard.len().saturating_sub(60);
    cluster.graveyard.drain(..surplus);
}

fn note_availability(cluster: &mut Cluster) {
    let now = cluster.now;
    for pod in cluster.live.pods.values_mut() {
        if pod.available(now) {
            pod.last_available = Some(now);
        }
    }
}

/// Deletes pods, first those that a controller can best do without.
fn shrink(cluster: &mut Cluster, mut pods: Vec<u64>, surplus: usize) {
    let now = cluster.now;
    pods.sort_by_key(|id| {
        let pod = &cluster.live.pods[id];
        (pod.ready, pod.available(now), u64::MAX - id)
    });
    for id in pods.into_iter().take(surplus) {
        if let Some(pod) = cluster.live.pods.get_mut(&id) {
            pod.terminate(now);
        }
        cluster.touch(Kind::Pods);
    }
}

fn active(cluster: &Cluster, belongs: impl Fn(&Pod) -> bool) -> Vec<u64> {
    let pods = cluster.live.pods.values();
    pods.filter(|pod| pod.active() && belongs(pod)).map(|pod| pod.id).collect()
}

fn sets(cluster: &mut Cluster) {
    let names: Vec<String> = cluster.live.sets.keys().cloned().collect();
    for name in names {
        sync_set(cluster, &name);
    }
    // Pods whose ReplicaSet is gone go too (garbage collection of its dependents).
    let orphans: Vec<u64> = active(cluster, |pod| match &pod.owner {
        Owner::Set { name, .. } => !cluster.live.sets.contains_key(name),
        Owner::Deployment => cluster.live.deployment.is_none(),
    });
    let count = orphans.len();
    shrink(cluster, orphans, count);
}

/// As the ReplicaSet controller: the status counts the pods that it found, not those that are left
/// after it created or deleted some, but already says that this generation was seen.
fn sync_set(cluster: &mut Cluster, name: &str) {
    let now = cluster.now;
    let set = cluster.live.sets[name].clone();
    let owner = Owner::Set { name: name.to_owned(), revision: set.hash.clone() };
    let pods = active(cluster, |pod| pod.owner == owner);
    let total = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let hits = pods.iter().filter(|id| test(&cluster.live.pods[id]));
        i32::try_from(hits.count()).unwrap_or(i32::MAX)
    };
    let ready = count(&|pod| pod.ready);
    let available = count(&|pod| pod.available(now));
    if set.deleting {
        if pods.is_empty() {
            cluster.live.sets.remove(name);
            cluster.touch(Kind::Sets);
        }
        let all = pods.len();
        shrink(cluster, pods, all);
        return;
    }
    let missing = set.replicas - total;
    for _ in 0..missing {
        let id = cluster.fresh();
        let pod = Pod::new(id, owner.clone(), set.letter, set.min_ready, now);
        cluster.live.pods.insert(id, pod);
        cluster.touch(Kind::Pods);
    }
    if missing < 0 {
        shrink(cluster, pods, usize::try_from(missing.unsigned_abs()).unwrap_or(0));
    }
    let seen = (set.observed_generation, set.pods, set.ready, set.available);
    let stamp = if seen == (set.generation, total, ready, available) { None } else { Some(cluster.fresh()) };
    if let Some(set) = cluster.live.sets.get_mut(name) {
        set.counted_at = now;
        if let Some(version) = stamp {
            set.version = version;
            set.observed_generation = set.generation;
            set.pods = total;
            set.ready = ready;
            set.available = available;
        }
    }
    if stamp.is_some() {
        cluster.touch(Kind::Sets);
    }
}

/// A rolling update with one surge pod and none missing.
fn deployment(cluster: &mut Cluster) {
    let now = cluster.now;
    let Some(object) = cluster.live.deployment.clone() else {
        return;
    };
    let letter = object.letter;
    let mine = active(cluster, |pod| pod.owner == Owner::Deployment);
    let (new, old): (Vec<u64>, Vec<u64>) = mine.into_iter().partition(|id| cluster.live.pods[id].letter == letter);
    if object.deleting {
        let all: Vec<u64> = new.into_iter().chain(old).collect();
        if all.is_empty() {
            cluster.live.deployment = None;
            cluster.touch(Kind::Deployment);
        }
        let count = all.len();
        shrink(cluster, all, count);
        return;
    }
    let wanted = usize::try_from(object.replicas).unwrap_or(0);
    let available = |ids: &[u64]| ids.iter().filter(|id| cluster.live.pods[*id].available(now)).count();
    let (new_available, old_available) = (available(&new), available(&old));
    let room = if old.is_empty() {
        wanted.saturating_sub(new.len())
    } else {
        (wanted + 1).saturating_sub(new.len() + old.len())
    };
    let counts = (
        i32::try_from(new.len() + old.len()).unwrap_or(0),
        if old.is_empty() { i32::try_from(new_available).unwrap_or(0) } else { 0 },
    );
    // Old pods that are not well go first, and at once.
    let sick = old.len() - old_available;
    let surplus_old = (new_available + old_available).saturating_sub(wanted) + sick;
    let surplus_new = new.len().saturating_sub(wanted);
    for _ in 0..room.min(wanted.saturating_sub(new.len())) {
        let id = cluster.fresh();
        let pod = Pod::new(id, Owner::Deployment, letter, 0, now);
        cluster.live.pods.insert(id, pod);
        cluster.touch(Kind::Pods);
    }
    let old_count = old.len();
    shrink(cluster, old, surplus_old.min(old_count));
    shrink(cluster, new, surplus_new);
    let seen = (object.observed_generation, object.pods, object.available);
    if seen != (object.generation, counts.0, counts.1) {
        let version = cluster.fresh();
        if let Some(object) = cluster.live.deployment.as_mut() {
            object.version = version;
            object.observed_generation = object.generation;
            (object.pods, object.available) = counts;
        }
        cluster.touch(Kind::Deployment);
    }
}

fn endpoints(cluster: &mut Cluster) {
    let mut changed = false;
    let names: Vec<String> = cluster.live.services.keys().cloned().collect();
    cluster.live.slices.retain(|name, _| names.contains(name));
    for name in names {
        let service = &cluster.live.services[&name];
        let now: Vec<EndpointObject> = cluster
            .live
            .pods
            .values()
            .filter(|pod| !pod.failed && Cluster::selects(service, pod))
            .map(|pod| EndpointObject {
                pod: pod.id,
                revision: pod.revision().map(str::to_owned),
                ready: pod.ready && pod.active(),
            })
            .collect();
        if cluster.live.slices.get(&name) != Some(&now) {
            cluster.live.slices.insert(name, now);
            changed = true;
        }
    }
    if changed {
        cluster.touch(Kind::Slices);
    }
}

fn proxy(cluster: &mut Cluster) {
    cluster.proxy = cluster
        .live
        .slices
        .iter()
        .map(|(name, slice)| {
            let ready: BTreeSet<u64> =
                slice.iter().filter(|endpoint| endpoint.ready).map(|endpoint| endpoint.pod).collect();
            (name.clone(), ready)
        })
        .collect();
}

/// Takes an owner out of what it owns.
fn orphan(cluster: &mut Cluster, uid: &str) {
    let stamp = cluster.fresh();
    let owned = |owner: &Option<String>| owner.as_deref() == Some(uid);
    let mut changed = Vec::new();
    for set in cluster.live.sets.values_mut().filter(|set| owned(&set.owner)) {
        (set.owner, set.version) = (None, stamp);
        changed.push(Kind::Sets);
    }
    for service in cluster.live.services.values_mut().filter(|service| owned(&service.owner)) {
        (service.owner, service.version) = (None, stamp);
        changed.push(Kind::Services);
    }
    if let Some(route) = cluster.live.route.as_mut().filter(|route| owned(&route.owner)) {
        (route.owner, route.version) = (None, stamp);
        changed.push(Kind::Route);
    }
    changed.into_iter().for_each(|kind| cluster.touch(kind));
}

/// Deletes what the deleted ServiceRelease owned: in the foreground while its finalizers are still
/// pending, in the background once it is gone; orphaning takes the references off first.
fn garbage(cluster: &mut Cluster) {
    let owner = cluster.live.release.as_ref().map(|release| (release.uid.clone(), release.deleting));
    let doomed = |reference: &Option<String>| {
        reference.as_ref().is_some_and(|uid| match &owner {
            Some((alive, deleting)) if alive == uid => deleting.is_some_and(|(_, how)| how == Propagation::Foreground),
            _ => true,
        })
    };
    if let Some((uid, Some((_, Propagation::Orphan)))) = &owner {
        orphan(cluster, &uid.clone());
    }
    let sets: Vec<String> = cluster
        .live
        .sets
        .iter()
        .filter(|(_, set)| !set.deleting && doomed(&set.owner))
        .map(|(name, _)| name.clone())
        .collect();
    for name in sets {
        if let Ok(set) = cluster.set_mut(&name, None) {
            set.deleting = true;
        }
    }
    let before = cluster.live.services.len();
    cluster.live.services.retain(|_, service| !doomed(&service.owner));
    if cluster.live.services.len() != before {
        cluster.touch(Kind::Services);
    }
    let before = cluster.live.jobs.len();
    cluster.live.jobs.retain(|_, job| !doomed(&job.owner));
    if cluster.live.jobs.len() != before {
        cluster.touch(Kind::Jobs);
    }
    if cluster.live.route.take_if(|route| doomed(&route.owner)).is_some() {
        cluster.touch(Kind::Route);
    }
    let gone = cluster.live.release.is_none();
    if gone && !cluster.live.plans.is_empty() {
        cluster.live.plans.clear();
        cluster.touch(Kind::Plans);
    }
}
