//! Where a case may end (L1), that nothing moves there (L2), and that what the status says of the
//! end is true of the cluster.

use servicerelease::api::{Phase, ServiceReleaseStatus};

use crate::model::{
    catalogue,
    cluster::{Cluster, SERVICE},
};

use super::{Checker, replicas, stored};

/// How the case came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing moves.
    Quiet,
    /// Bad pods come and go, so that numbers change.
    Flapping,
}

/// Whether a release may stay as it is.
pub fn may_stay(cluster: &Cluster) -> bool {
    let status = stored(cluster);
    matches!(
        status.phase,
        Phase::Healthy | Phase::RolledBack | Phase::Halted | Phase::Invalid | Phase::Paused | Phase::AwaitingApproval
    ) || (status.phase == Phase::Observing && status.observation.is_some_and(|it| it.failure.is_some()))
        || is_held_open(cluster)
}

/// Whether an observation goes on because spec.paused is set.
pub fn is_held_open(cluster: &Cluster) -> bool {
    let paused = cluster.live.release.as_ref().is_some_and(|release| release.spec.paused);
    paused && stored(cluster).observation.is_some()
}

impl Checker {
    pub fn rest(&mut self, cluster: &Cluster, rest: Rest) {
        let Some(release) = &cluster.live.release else {
            return;
        };
        let status = stored(cluster);
        if release.deleting.is_some() {
            self.fail("L1", format!("the deletion does not end: {}", status.message));
            return;
        }
        self.require(may_stay(cluster), "L1", || {
            format!("it stays in {:?} ({}): {}", status.phase, status.reason, status.message)
        });
        let open = cluster.live.commands.values().find(|it| it.status.is_none());
        if let Some(open) = open {
            self.fail("C1", format!("{} is never answered", open.spec.object.name));
        }
        self.require(status.observed_generation == release.generation, "S1", || {
            format!("at rest with observedGeneration {} of {}", status.observed_generation, release.generation)
        });
        // Of each check the last Job stays, for its log.
        let of_database = status.database.iter().flat_map(|it| &it.work);
        let work: Vec<&String> = of_database.map(|it| &it.job).collect();
        let named = |job: &String| work.contains(&job) || status.checks.iter().any(|it| it.job.as_ref() == Some(job));
        let orphan = cluster.live.jobs.keys().find(|job| !named(job));
        self.require(orphan.is_none(), "L1", || format!("Job {orphan:?} is left over in {:?}", status.phase));
        let wanted = replicas(&release.spec, &status);
        let letter = super::wanted_letter(cluster);
        match status.phase {
            Phase::Healthy => {
                let stable = status.stable.as_ref().map(|it| it.revision.clone());
                let serves = stable.and_then(|it| self.letters.get(&it).copied());
                self.require(serves == letter, "S2", || {
                    format!("Healthy at rest with {serves:?} as stable, the spec asks for {letter:?}")
                });
                self.pods_at_rest(cluster, &status, wanted, rest);
            }
            Phase::RolledBack => {
                let over = status.rollback.as_ref().is_some_and(|it| it.completed_at.is_some());
                self.require(over, "S4", || "RolledBack, but the rollback is not over".into());
                let back = status.rollback.as_ref().map(|it| it.revision.clone());
                let asked = back.as_ref().is_some_and(|it| self.letters.get(it).copied() == letter);
                let latched =
                    status.failed_revisions.iter().any(|it| it.latched && Some(&it.revision) == back.as_ref());
                self.require(latched || !asked, "R3", || {
                    format!("{back:?} was taken back and is still asked for, but not latched")
                });
                self.pods_at_rest(cluster, &status, wanted, rest);
            }
            _ => {}
        }
        if rest == Rest::Quiet {
            self.observed_at_rest(&status);
        }
        self.kept_revisions(cluster, &status, release.spec.revision_history_limit);
        self.database_at_rest(cluster, &status, &release.spec);
    }

    fn pods_at_rest(&mut self, cluster: &Cluster, status: &ServiceReleaseStatus, wanted: i32, rest: Rest) {
        let Some(stable) = status.stable.as_ref().map(|it| it.revision.clone()) else {
            self.fail("L1", format!("{:?} without a stable revision", status.phase));
            return;
        };
        for (name, set) in &cluster.live.sets {
            let right = if set.hash == stable { wanted } else { 0 };
            self.require(set.replicas == right, "L1", || {
                format!("{:?} at rest, but {name} has {} replicas, not {right}", status.phase, set.replicas)
            });
        }
        let good = self.letters.get(&stable).copied().is_some_and(catalogue::is_good);
        if good && rest == Rest::Quiet {
            let pods = cluster.pods_of(&stable).filter(|pod| pod.available(cluster.now));
            let pods = i32::try_from(pods.count()).unwrap_or(0);
            self.require(pods == wanted, "L1", || {
                format!("{:?} at rest with {pods} available pods of {wanted}", status.phase)
            });
            let traffic = cluster.live.release.as_ref().is_some_and(|it| it.spec.traffic.is_some());
            let routed = cluster.proxy.get(SERVICE).map_or(0, std::collections::BTreeSet::len);
            let routed = i32::try_from(routed).unwrap_or(0);
            self.require(!traffic || routed == wanted, "T6", || {
                format!("{:?} at rest with {routed} pods of {wanted} behind the Service", status.phase)
            });
        }
        let held = status.workload.is_none() || cluster.live.deployment.as_ref().is_none_or(|it| it.replicas == 0);
        let said = status.reason.contains("Contested")
            || status.reason == "PodsUnavailable"
            || status.message.contains("Deployment");
        self.require(held || said || status.phase != Phase::Healthy, "S4", || {
            "the adopted Deployment has pods at rest, and the status does not say so".into()
        });
    }

    /// R4: beyond the limit nothing is kept but what serves, may serve next, or is kept for undo.
    fn kept_revisions(&mut self, cluster: &Cluster, status: &ServiceReleaseStatus, limit: i32) {
        if !matches!(status.phase, Phase::Healthy | Phase::RolledBack) {
            return;
        }
        let roles = [&status.stable, &status.candidate, &status.previous];
        let roles: Vec<&str> = roles.into_iter().flatten().map(|it| it.revision.as_str()).collect();
        let others = cluster.live.sets.values();
        let others = others.filter(|set| !roles.contains(&set.hash.as_str()));
        let others = i32::try_from(others.count()).unwrap_or(i32::MAX);
        // One that failed may be kept to be looked at.
        self.require(others <= limit + 1, "R4", || {
            format!("{others} old revisions are kept, revisionHistoryLimit is {limit}")
        });
    }

    /// A deletion is over: what was adopted has its pods back.
    pub fn handed_back(&mut self, cluster: &Cluster) {
        // An older release that claims the Service does with it as it likes.
        if cluster.live.release.is_some() || !cluster.live.rivals.is_empty() {
            return;
        }
        let job = cluster.live.jobs.keys().next();
        self.require(job.is_none() && !cluster.server.is_busy(), "L1", || {
            format!("the object is gone, and Job {job:?} is left over")
        });
        self.require(!cluster.server.scratch, "L1", || {
            "the object is gone, and a scratch database is left over".into()
        });
        if let Some(service) = cluster.live.services.get(SERVICE) {
            let key = service.selector.keys().find(|key| key.contains('/'));
            let ours = service.owner.is_some();
            self.require(key.is_none() || ours || service.uid != "service-1", "T1", || {
                format!("after the deletion the user's Service still selects by {key:?}")
            });
        }
    }
}
