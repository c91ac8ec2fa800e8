//! What pods say of themselves, and what has to follow: containers that are started again and again (T2), and readiness that
//! all have lost after the promotion (T3).

use servicerelease::{
    api::{ObservationStatus, Timestamp},
    engine::{Plan, Pod, Revision},
};

use crate::{
    metrics::{self, Watched},
    operator::Work,
};

use super::Checker;

/// How often a container is started again when that fails a release.
const TOO_MANY: i32 = 3;
/// How long nobody may be ready after the promotion, in milliseconds.
const UNREADY: u64 = 60_000;

/// Its own pods, as far as they are its fault.
fn own(set: &Revision) -> impl Iterator<Item = &Pod> + Clone {
    set.pods.iter().filter(|pod| !pod.terminating && !pod.disrupted)
}

fn set<'a>(work: &'a Work, hash: &str) -> Option<&'a Revision> {
    work.view.observed.revisions.iter().find(|set| set.hash == hash && !set.deleting)
}

/// Whether a container of what is released was started again.
pub fn has_restarted(work: &Work) -> bool {
    let subject = work.old.candidate.as_ref().or(work.old.stable.as_ref());
    let pods = subject.and_then(|it| set(work, &it.revision)).into_iter().flat_map(own);
    pods.flat_map(|pod| &pod.containers).any(|container| container.restarts > 0)
}

/// Whether a container of a pod was started again so often that it fails what is released, the last time since then.
pub fn restarts(pod: &Pod, since: Timestamp) -> bool {
    let mut containers = pod.containers.iter().filter(|container| container.restarts >= TOO_MANY);
    containers.any(|container| container.ended.as_ref().is_some_and(|ended| ended.at.is_some_and(|at| at > since)))
}

/// Whether the manifest leaves it to the engine how often a container may be started again.
pub fn counts_restarts(plan: &Plan) -> bool {
    metrics::of(plan) != Some(Watched::Restarts)
}

impl Checker {
    /// T2: a release does not go on over a container that is started again and again, unless a person says so.
    pub fn restarts(&mut self, work: &Work, plan: &Plan, by_person: bool) {
        let new = &work.decision.status;
        let number = new.release.as_ref().map_or(0, |release| release.number);
        let pinned = work.view.observed.plans.iter().any(|plan| plan.number == number);
        let began = new.release.as_ref().map(|release| release.started_at);
        let retried = [&work.old, new].into_iter().filter_map(|it| it.step.as_ref()?.retried_at).max();
        let (Some(since), Some(candidate)) = (began.max(retried), &work.old.candidate) else { return };
        if by_person || !pinned || !counts_restarts(plan) || new.hold.is_some() {
            return;
        }
        let pod = set(work, &candidate.revision).and_then(|set| own(set).find(|pod| restarts(pod, since)));
        self.require(pod.is_none(), "T2", || format!("it goes on although a container restarts: {pod:?}"));
    }

    /// Remembers since when nobody of what is observed is ready by its own fault, as far as is known.
    pub fn count_unready(&mut self, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let observed = new.observation.as_ref().is_some_and(|it| it.failure.is_none()) && new.candidate.is_none();
        let stable = new.stable.as_ref().filter(|_| observed && !new.reason.contains("Contested"));
        let Some(set) = stable.and_then(|it| set(work, &it.revision)) else {
            self.unready = None;
            return;
        };
        let known = self.unready.take().filter(|(hash, _)| *hash == set.hash);
        let ready = set.ready > 0 || set.pods.iter().any(|pod| pod.ready && !pod.terminating);
        let lost = own(set).any(|pod| pod.lost_readiness || known.is_some());
        if !ready && lost && !shares_fate(work, &set.hash) && old.observation.is_some() {
            let since = known.map_or(work.now, |(_, since)| since.min(work.now));
            self.unready = Some((set.hash.clone(), since));
        }
    }

    /// Whether nobody of what is observed has been ready for too long.
    pub fn is_unready(&self, work: &Work, state: &ObservationStatus) -> bool {
        let stable = work.old.stable.as_ref().and_then(|it| set(work, &it.revision));
        let since = self.unready.as_ref().filter(|(hash, _)| stable.is_some_and(|set| set.hash == *hash));
        let still =
            stable.is_some_and(|set| set.ready == 0 && set.pods.iter().all(|pod| !pod.ready || pod.terminating));
        let mine = stable.is_some_and(|set| own(set).next().is_some() && !shares_fate(work, &set.hash));
        let late = since.is_some_and(|(_, since)| work.now.since(*since).as_millis() >= UNREADY);
        state.failure.is_none() && still && mine && late
    }
}

/// Whether pods are kept to go back to, and none of them is ready either.
fn shares_fate(work: &Work, stable: &str) -> bool {
    let failed = |hash: &str| work.old.failed_revisions.iter().any(|it| it.revision == hash);
    let mut before = work.old.history.iter().rev().map(|it| it.revision.as_str());
    let before = before.find(|hash| *hash != stable && !failed(hash) && set(work, hash).is_some());
    before.and_then(|hash| set(work, hash)).is_some_and(|set| set.replicas > 0 && set.ready == 0)
}
