//! Over a router: requests find pods that take their share (T1, T3, T4), the candidate has no share that is
//! not on record (T2), a step counts when the data plane follows it (T6), and nobody is fought (L4).

use serde_json::Value;
use servicerelease::{
    api::{Duration, LABEL_REVISION, Phase},
    engine::{Effect, Selection},
};

use crate::{
    model::{
        cluster::{CANDIDATE_SERVICE, Cluster, SERVICE, ServiceObject},
        gateway, writes,
    },
    operator::Work,
    setup::DEADLINE,
};

use super::{
    Checker, Judged, desired,
    effects::{Scene, selects},
    stored,
};

/// Writes to a route that a release may make in vain against others, and for itself.
const MOST_WRITES: usize = 60;

/// Whether the release under way, or at rest the spec, has a router.
pub fn over_route(cluster: &Cluster) -> bool {
    let Some(release) = &cluster.live.release else { return false };
    let has = |spec: &servicerelease::api::ServiceReleaseSpec| {
        spec.traffic.as_ref().is_some_and(|traffic| traffic.router.is_some())
    };
    let status = stored(cluster);
    let pinned = status.release.as_ref().filter(|_| status.candidate.is_some());
    let pinned = pinned.and_then(|it| cluster.live.plans.get(&it.number));
    pinned.map_or_else(|| has(&release.spec), |plan| has(&plan.spec))
}

/// The most that each Service may get of the requests while the data plane may be behind the route. What somebody else wrote
/// after the operator had looked, it cannot know.
fn most(scene: &Scene<'_>) -> [(&'static str, i32); 2] {
    let (live, seen) = (scene.cluster.live.route.as_ref(), scene.work.view.observed.route.as_ref());
    let theirs = live.filter(|live| live.changed_by.is_some());
    let unseen = theirs.zip(seen).filter(|(live, seen)| live.generation != seen.generation);
    let live = live.map_or(0, |route| gateway::share(&route.spec));
    let served = scene.cluster.gateway.served.unwrap_or(live);
    let (live, served) = unseen.map_or((live, served), |(_, seen)| {
        let share = gateway::share(&seen.spec);
        (share, share)
    });
    [(SERVICE, 100 - live.min(served)), (CANDIDATE_SERVICE, live.max(served))]
}

/// Pods that a share needs.
fn needed(scene: &Scene<'_>, share: i32) -> i32 {
    (share * scene.wanted + 99) / 100 - scene.bounds.unavailable
}

/// Reliable pods that a Service selects.
fn behind(scene: &Scene<'_>, service: Option<&ServiceObject>, changed: Option<(&str, i32)>) -> i32 {
    service.map_or(0, |service| scene.pods(|revision| selects(&service.selector, revision), changed))
}

/// Whether a way back takes so long that it has been given up: then it goes to whoever serves.
fn late(scene: &Scene<'_>) -> bool {
    let deadline = Duration::from_secs(DEADLINE.unsigned_abs().into());
    let status = stored(scene.cluster);
    status.rollback.is_some_and(|it| it.completed_at.is_none() && it.started_at.plus(deadline) <= scene.work.now)
}

/// The whole spec that an effect writes into the route.
pub fn spec_of(effect: &Effect) -> Option<&Value> {
    match effect {
        Effect::CreateRoute(new) => Some(&new.spec),
        Effect::ReplaceRoute { spec, .. } => Some(spec),
        _ => None,
    }
}

/// Requests by headers, or copies, are the candidate's only from the step on that says so.
pub fn probed(scene: &Scene<'_>, spec: &Value) -> Judged {
    let status = stored(scene.cluster);
    let (by_header, copied) = gateway::probes(spec);
    let before = scene.cluster.live.route.as_ref().map_or((false, false), |route| gateway::probes(&route.spec));
    let plan = status.release.as_ref().and_then(|it| scene.cluster.live.plans.get(&it.number));
    let steps = plan.and_then(|plan| plan.spec.strategy.as_ref()?.canary.as_ref()).map(|canary| &canary.steps);
    // The first step of all is prepare.
    let index = status.step.as_ref().map_or(0, |step| usize::try_from(step.index - 1).unwrap_or(0));
    let done = || steps.into_iter().flatten().take(index);
    let headers = done().filter_map(|step| step.set_header_route.as_ref()).last();
    let mirror = done().filter_map(|step| step.set_mirror_route.as_ref()).last();
    let wanted = (
        status.candidate.is_some() && headers.is_some_and(|it| !it.headers.is_empty()),
        status.candidate.is_some() && mirror.is_some_and(|it| it.percent > 0),
    );
    let mut judged = Vec::new();
    if (by_header && !before.0 && !wanted.0) || (copied && !before.1 && !wanted.1) {
        judged.push(("T2", format!("requests by headers {by_header}, copies {copied}: on record are {wanted:?}")));
    }
    judged
}

/// The candidate's share that an effect writes into the route.
pub fn written(effect: &Effect) -> Option<i32> {
    match effect {
        Effect::CreateRoute(new) => Some(gateway::share(&new.spec)),
        Effect::ReplaceRoute { spec, .. } => Some(gateway::share(spec)),
        Effect::SetRouteWeights { weights, .. } => weights.get(1).map(|(_, weight)| *weight),
        _ => None,
    }
}

/// Weights are written: both Services have the pods for what they get more.
pub fn shift(scene: &Scene<'_>, to: i32) -> Judged {
    let status = stored(scene.cluster);
    let mut judged = Vec::new();
    let services = &scene.cluster.live.services;
    let back = status.rollback.as_ref().filter(|it| it.completed_at.is_none());
    // A route that is gone is made again as it was, where only the candidate has pods.
    let gone = back.map_or(0, |rollback| rollback.from_weight);
    let live = scene.cluster.live.route.as_ref().map_or(gone, |route| gateway::share(&route.spec));
    if to > live && to > desired(&status) {
        judged.push(("T2", format!("the route gives the candidate {to}%, on record are {}%", desired(&status))));
    }
    // What somebody else's hand gave the candidate is taken off it, whoever else is there.
    let theirs = scene.cluster.live.route.as_ref().is_some_and(|route| route.changed_by.is_some());
    if status.stable.is_none() || late(scene) || (theirs && to == desired(&status)) {
        return judged;
    }
    let ([(_, service_most), (_, candidate_most)], pods) =
        (most(scene), |name: &str| behind(scene, services.get(name), None));
    let gains = [(SERVICE, 100 - to, 100 - live, candidate_most), (CANDIDATE_SERVICE, to, live, service_most)];
    for (name, share, before, others_share) in gains {
        let other = if name == SERVICE { CANDIDATE_SERVICE } else { SERVICE };
        let (here, there) = (pods(name), pods(other));
        if share <= before || here >= needed(scene, share) {
            continue;
        }
        // Those who lose it have no pods for it, either.
        if there < needed(scene, others_share) && here >= there {
            continue;
        }
        let rule = if name == SERVICE { "T3" } else { "T1" };
        judged.push((rule, format!("{share}% of the requests go to {name} with {here} pods ({other} has {there})")));
    }
    judged
}

/// A Service selects something else: it has the pods for the share that it may get.
pub fn select(scene: &Scene<'_>, name: &str, selection: &Selection) -> Judged {
    let service = scene.cluster.live.services.get(name);
    let share = most(scene).into_iter().find(|(it, _)| *it == name).map_or(0, |(_, share)| share);
    let status = stored(scene.cluster);
    if share == 0 || status.stable.is_none() || late(scene) {
        return Vec::new();
    }
    let Some(service) = service else { return Vec::new() };
    let after = ServiceObject { selector: writes::selector(&service.selector, selection), ..service.clone() };
    let unnarrowed = |service: &ServiceObject| !service.selector.keys().any(|key| key.contains('/'));
    let foreign = |service: &ServiceObject| if unnarrowed(service) { scene.deployment_pods() } else { 0 };
    let (before, now) = (behind(scene, Some(service), None), behind(scene, Some(&after), None));
    let (before, now) = (before + foreign(service), now + foreign(&after));
    if now < needed(scene, share).min(before) {
        let text =
            format!("{name} has up to {share}% of the requests, {before} pods before and {now} with {selection:?}");
        return vec![("T1", text)];
    }
    Vec::new()
}

/// Pods are taken from a ReplicaSet: those behind each Service take its share.
pub fn taken_away(scene: &Scene<'_>, set: &str, to: i32) -> Judged {
    let Some(hash) = scene.cluster.live.sets.get(set).map(|set| set.hash.clone()) else { return Vec::new() };
    if stored(scene.cluster).stable.is_none() {
        return Vec::new();
    }
    let mut judged = Vec::new();
    for (name, share) in most(scene) {
        let Some(service) = scene.cluster.live.services.get(name) else { continue };
        if share == 0 || !selects(&service.selector, &hash) {
            continue;
        }
        let unnarrowed = !service.selector.keys().any(|key| key.contains('/'));
        let foreign = if unnarrowed { scene.deployment_pods() } else { 0 };
        let before = behind(scene, Some(service), None) + foreign;
        let after = behind(scene, Some(service), Some((set, to))) + foreign;
        if after < needed(scene, share).min(before) {
            judged
                .push(("T4", format!("{set} falls to {to}: {name} has up to {share}%, {after} of {before} pods stay")));
        }
    }
    judged
}

impl Checker {
    /// What the data plane does at this moment.
    pub fn data_plane(&mut self, cluster: &Cluster, wanted: i32) {
        if wanted == 0 {
            self.had_share.clear();
            return;
        }
        let (Some(served), true) = (cluster.gateway.served, over_route(cluster)) else { return };
        let status = stored(cluster);
        let serving = |name: &str| {
            let pods = cluster.proxy.get(name).into_iter().flatten();
            pods.filter(|id| cluster.live.pods.get(*id).is_some_and(|pod| pod.serves(cluster.now))).count()
        };
        let theirs = cluster.gateway.refuses || cluster.live.route.as_ref().is_some_and(|it| it.changed_by.is_some());
        let excused = status.stable.is_none()
            || cluster.now < self.excused_until
            || self.bad_may_serve(cluster)
            || cluster.live.release.as_ref().is_none_or(|it| it.deleting.is_some());
        for (name, share) in [(SERVICE, 100 - served), (CANDIDATE_SERVICE, served)] {
            if share > 0 && serving(name) == 0 && self.had_share.contains(name) && !excused {
                self.fail("T1", format!("{name} gets {share}% of the requests, and no pod is behind it"));
            }
            if share > 0 && serving(name) > 0 {
                self.had_share.insert(name);
            } else {
                self.had_share.remove(name);
            }
        }
        let service = cluster.live.services.get(CANDIDATE_SERVICE);
        let invited = |revision: &str| self.admitted.contains(revision);
        let uninvited = cluster.release_pods().find(|pod| {
            let revision = pod.revision().unwrap_or_default();
            pod.active() && service.is_some_and(|it| Cluster::selects(it, pod)) && !invited(revision)
        });
        // What somebody else gave it stays there while stable has no pod to take it.
        if let Some(pod) = uninvited.filter(|_| {
            served > 0 && !theirs && serving(SERVICE) > 0 && !self.meddled && cluster.now >= self.excused_until
        }) {
            self.fail("T2", format!("{} gets {served}% of the requests, which is not on record", pod.name()));
        }
    }

    /// A step that set a weight is over: the data plane follows it.
    pub fn follows(&mut self, cluster: &Cluster, weight: i32) {
        let meddled = cluster.live.route.as_ref().is_none_or(|route| route.changed_by.is_some());
        if over_route(cluster) && !meddled && cluster.now >= self.excused_until {
            let served = cluster.gateway.served;
            self.require(served == Some(weight), "T6", || {
                format!("setWeight {weight} is left while the data plane serves {served:?}")
            });
        }
    }

    /// Whether headers or copies lead to the candidate's Service as a step says.
    pub fn leads(&self, cluster: &Cluster, is: impl Fn((bool, bool)) -> bool) -> bool {
        let Some(route) = &cluster.live.route else { return true };
        route.changed_by.is_some() || cluster.now < self.excused_until || is(gateway::probes(&route.spec))
    }

    /// Whether all requests go to the maintenance Service.
    pub fn maintained(&self, cluster: &Cluster) -> bool {
        let Some(route) = &cluster.live.route else { return true };
        route.changed_by.is_some() || cluster.now < self.excused_until || gateway::is_maintained(&route.spec)
    }

    /// A release that is over leaves nothing of its headers, copies and maintenance in the route (T6).
    pub fn unprobed(&mut self, cluster: &Cluster) {
        let status = stored(cluster);
        let Some(route) = cluster.live.route.as_ref().filter(|route| route.ours && over_route(cluster)) else { return };
        let meddled = route.changed_by.is_some() || cluster.now < self.excused_until;
        let deleting = cluster.live.release.as_ref().is_none_or(|it| it.deleting.is_some());
        let probes = gateway::probes(&route.spec);
        let over = status.candidate.is_none() && status.step.is_none() && status.phase != Phase::Halted;
        let maintained = gateway::is_maintained(&route.spec) && over;
        self.require(!maintained || meddled || deleting, "T6", || "maintenance goes on after the release".to_owned());
        self.require(status.candidate.is_some() || meddled || deleting || probes == (false, false), "T6", || {
            format!("headers and copies lead to the candidate's Service although there is no candidate: {probes:?}")
        });
    }

    /// Writes to the route do not go on for ever.
    pub fn count_route_writes(&mut self, cluster: &Cluster) {
        let number = stored(cluster).release.map_or(0, |it| it.number);
        let writes = self.route_writes.entry(number).or_default();
        *writes += 1;
        let writes = *writes;
        self.require(writes <= MOST_WRITES, "L4", || format!("{writes} writes to the route in release {number}"));
    }
}

impl Checker {
    /// S4 over a route: what is said to be observed is what the data plane does, once it must have settled.
    pub fn observed_share(&mut self, cluster: &Cluster, work: &Work) {
        let status = &work.decision.status;
        let (Some(weights), Some(candidate), Some(stable)) = (status.weights, &status.candidate, &status.stable) else {
            return;
        };
        let Some(served) = cluster.gateway.settled(cluster).filter(|_| work.view.fresh) else { return };
        let selects = |name: &str, revision: &str| {
            let service = cluster.live.services.get(name);
            service.is_some_and(|it| it.selector.get(LABEL_REVISION).is_some_and(|selected| selected == revision))
        };
        let meant = match selects(SERVICE, &candidate.revision) {
            true => 100,
            // Where the route cannot be put right.
            false if selects(CANDIDATE_SERVICE, &stable.revision) => 0,
            false => served,
        };
        let said = weights.observed.candidate;
        let known = status.route.as_ref().and_then(|route| route.accepted_at);
        let over = known.is_some_and(|at| work.now.as_millis() - at.as_millis() >= gateway::PROPAGATION);
        self.require(work.now.as_millis() != cluster.now || !over || said == meant, "S4", || {
            format!("weights.observed says {said} for the candidate, {meant} are served")
        });
    }
}
