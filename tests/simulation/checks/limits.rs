//! What must hold at every moment: pods within bounds (T4), no uninvited pod under traffic (T1),
//! no gap in the traffic (T1), a status within bounds (S5).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use servicerelease::api::{Canary, ServiceReleaseSpec};

use crate::model::{
    catalogue::{self, Quality},
    cluster::{Cluster, SERVICE},
    gateway,
    pods::Pod,
};

use super::{Checker, desired, replicas, stored};

/// maxSurge and maxUnavailable in pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub surge: i32,
    pub unavailable: i32,
    pub doubled: bool,
}

fn resolve(bound: &IntOrString, of: i32, up: bool) -> i32 {
    match bound {
        IntOrString::Int(pods) => *pods,
        IntOrString::String(text) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            let exact = of * percent;
            if up { (exact + 99) / 100 } else { exact / 100 }
        }
    }
}

/// The bounds of a spec. Bounds that come to 0 and 0 would stop everything, so that one pod may
/// be missing then, as with a Deployment.
pub fn allowed(spec: &ServiceReleaseSpec, of: i32) -> Allowed {
    let strategy = spec.strategy.clone().unwrap_or_default_canary();
    if spec.traffic.as_ref().is_some_and(|traffic| traffic.router.is_some()) {
        // Stable stays whole beside the candidate.
        return Allowed { surge: of, unavailable: 0, doubled: strategy.is_none() };
    }
    let Some(canary) = strategy else {
        return Allowed { surge: of, unavailable: 0, doubled: true };
    };
    let surge = resolve(&canary.max_surge, of, true);
    let unavailable = resolve(&canary.max_unavailable, of, false).min(of);
    let stuck = surge == 0 && unavailable == 0;
    Allowed { surge, unavailable: if stuck { 1 } else { unavailable }, doubled: false }
}

trait OrDefault {
    fn unwrap_or_default_canary(self) -> Option<Canary>;
}

impl OrDefault for Option<servicerelease::api::Strategy> {
    fn unwrap_or_default_canary(self) -> Option<Canary> {
        self.map_or_else(|| Some(Canary::default()), |strategy| strategy.canary)
    }
}

/// The bounds in force: those of the plan under way and those of the spec, whichever allow more.
pub fn in_force(cluster: &Cluster, of: i32) -> Allowed {
    let Some(release) = &cluster.live.release else {
        return Allowed::default();
    };
    let number = stored(cluster).release.map_or(0, |it| it.number);
    let spec = allowed(&release.spec, of);
    let pinned = cluster.live.plans.get(&number);
    let pinned = pinned.map_or(spec, |plan| allowed(&plan.spec, of));
    Allowed {
        surge: spec.surge.max(pinned.surge),
        unavailable: spec.unavailable.max(pinned.unavailable),
        doubled: spec.doubled || pinned.doubled || super::route::over_route(cluster),
    }
}

impl Checker {
    pub fn limits(&mut self, cluster: &Cluster) {
        let Some(release) = &cluster.live.release else {
            return;
        };
        let status = stored(cluster);
        let wanted = replicas(&release.spec, &status);
        let bounds = in_force(cluster, wanted);
        // What is kept for an undo is beyond what bounds the way to the promotion.
        self.doubled |= bounds.doubled || status.draining.iter().any(|it| it.kept_from.is_some());
        self.surplus(cluster, wanted, bounds);
        if release.deleting.is_some() {
            self.gap(cluster, wanted, bounds);
            return;
        }
        self.uninvited(cluster, &status);
        self.data_plane(cluster, wanted);
        self.unprobed(cluster);
        self.gap(cluster, wanted, bounds);
    }

    fn surplus(&mut self, cluster: &Cluster, wanted: i32, bounds: Allowed) {
        let pods = cluster.release_pods();
        let pods = pods.filter(|pod| pod.active() && !pod.excused);
        let pods = i32::try_from(pods.count()).unwrap_or(i32::MAX);
        let asked: i32 = cluster.live.sets.values().map(|set| set.replicas).sum();
        self.base = self.base.min(pods.max(asked)).max(wanted);
        let most = if self.doubled { 2 * self.base + bounds.surge } else { self.base + bounds.surge };
        self.meddled &= pods > most || cluster.now < self.excused_until;
        if !self.meddled {
            self.require(pods <= most, "T4", || {
                format!("{pods} pods that are not terminating, at most {most} are allowed (replicas {wanted})")
            });
        }
    }

    /// spec.replicas fell: as many pods as there are may stay for a while.
    pub fn replicas_changed(&mut self, cluster: &Cluster) {
        let pods = cluster.release_pods().filter(|pod| pod.active());
        let pods = i32::try_from(pods.count()).unwrap_or(i32::MAX);
        // Pods that were asked for and are not there yet count as well.
        let asked: i32 = cluster.live.sets.values().map(|set| set.replicas).sum();
        self.base = self.base.max(pods).max(asked);
    }

    /// No pod of a revision is selected that was not given a share on record; nor those of an
    /// adopted Deployment once it is held.
    fn uninvited(&mut self, cluster: &Cluster, status: &servicerelease::api::ServiceReleaseStatus) {
        let Some(service) = cluster.live.services.get(SERVICE) else {
            return;
        };
        let selected = |pod: &&Pod| pod.active() && Cluster::selects(service, pod);
        let pods: Vec<&Pod> = cluster.live.pods.values().filter(selected).collect();
        let stable = status.stable.as_ref().map(|it| it.revision.as_str());
        let candidate = status.candidate.as_ref().map(|it| it.revision.as_str());
        self.admitted.retain(|revision| {
            let revision = revision.as_str();
            stable == Some(revision)
                || (candidate == Some(revision) && desired(status) > 0)
                || super::effects::selects(&service.selector, revision)
                || cluster.gateway.served.is_some_and(|served| served > 0)
                || cluster.live.route.as_ref().is_some_and(|route| gateway::share(&route.spec) > 0)
        });
        // While a Deployment is adopted its Service selects our pods of the same template as well.
        let adopting = cluster.live.deployment.is_some()
            && status.stable.is_none()
            && !service.selector.keys().any(|key| key.contains('/'));
        for pod in pods {
            match pod.revision() {
                Some(_) if adopting || self.meddled || self.is_astray(cluster) => {}
                Some(revision) if !self.admitted.contains(revision) => {
                    let text = format!(
                        "the Service selects {} of revision {revision}, which has no share on record",
                        pod.name()
                    );
                    self.fail("T1", text);
                }
                None if status.workload.as_ref().is_some_and(|it| it.held) => {
                    let text = format!("the Service selects {} of the held Deployment", pod.name());
                    self.fail("T1", text);
                }
                _ => {}
            }
        }
    }

    /// kube-proxy has nowhere to send requests, although no pod failed by itself.
    fn gap(&mut self, cluster: &Cluster, wanted: i32, bounds: Allowed) {
        let routed = cluster.proxy.get(SERVICE).map_or(0, |pods| {
            let serving = pods.iter().filter(|id| {
                let pod = cluster.live.pods.get(*id);
                pod.is_some_and(|pod| pod.serves(cluster.now))
            });
            serving.count()
        });
        let bad =
            cluster.live.pods.values().any(|pod| {
                !matches!(catalogue::quality(pod.letter), Quality::Good | Quality::Slow | Quality::LateConfig)
            });
        let given_up =
            cluster.live.release.as_ref().is_none_or(|it| it.deleting.is_some() && it.spec.workload_ref.is_none());
        // A first revision that fails goes back to nothing.
        let excused = wanted == 0
            || stored(cluster).stable.is_none()
            || bounds.unavailable >= wanted
            || (bad && self.bad_may_serve(cluster))
            || given_up
            || cluster.now < self.excused_until;
        if routed == 0 && self.had_traffic && !excused {
            self.fail("T1", "no pod is behind the Service any more, and none failed by itself");
        }
        self.had_traffic = routed > 0;
    }

    /// Whether one of the revisions that may serve is a bad one.
    pub fn bad_may_serve(&self, cluster: &Cluster) -> bool {
        let mut letters = self.admitted.iter().filter_map(|it| self.letters.get(it));
        let deployment = cluster.live.deployment.as_ref().map(|it| it.letter);
        letters.any(|letter| !catalogue::is_good(*letter))
            || deployment.is_some_and(|letter| !catalogue::is_good(letter))
    }
}
