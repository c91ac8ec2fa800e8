//! L3: what is observed is asked when its time has come.

use servicerelease::{
    api::{Check, CheckOutcome, CheckStatus, Duration, Phase},
    engine::{Effect, TemplateCheck},
};

use crate::{model::cluster::Cluster, operator::Work};

use super::{Checker, observation, replicas};

impl Checker {
    /// A standing probe is asked when its time has come, whatever the spec is by now: while nobody is ready, while spec.paused
    /// is set, and while a later edit is one that cannot be acted on.
    pub fn probed(&mut self, cluster: &Cluster, work: &Work) {
        let (old, new, seen) = (&work.old, &work.decision.status, &work.view.observed);
        let open = new.observation.as_ref().filter(|it| it.failure.is_none() && it.until > work.now);
        let Some(state) = open.filter(|_| old.observation.is_some() && is_driven(work)) else { return };
        let number = new.release.as_ref().map_or(0, |release| release.number);
        let Some(plan) = cluster.live.plans.get(&number) else { return };
        if !seen.plans.iter().any(|plan| plan.number == number) || replicas(&work.view.release.spec, old) == 0 {
            return;
        }
        for check in plan.spec.checks.iter().filter(|check| check.every.is_some()) {
            let about = |it: &&CheckStatus| {
                it.name == check.name && (it.release, it.step) == (number, 0) && it.started_at >= state.started_at
            };
            let known = new.checks.iter().find(about);
            let asked = known.is_some_and(|it| is_asked(work, check, it));
            self.require(asked, "L3", || format!("probe {} is not asked: {known:?}", check.name));
            let probed = new.phase == Phase::Invalid && known.is_some_and(|it| it.outcome == CheckOutcome::Running);
            if probed {
                observation::note("probed while the object is Invalid");
            }
        }
    }
}

/// How long a Job waits until nodes have followed the Service that it goes by.
const FOLLOWED: Duration = Duration::from_secs(2);

/// Whether the engine comes to what is observed, and sees the world as it is.
fn is_driven(work: &Work) -> bool {
    let (old, new) = (&work.old, &work.decision.status);
    let number = |it: &servicerelease::api::ServiceReleaseStatus| it.release.as_ref().map(|release| release.number);
    let adds_finalizer = work.decision.before.iter().any(|effect| matches!(effect, Effect::AddFinalizer));
    work.view.fresh
        && !adds_finalizer
        && work.view.release.metadata.deletion_timestamp.is_none()
        && work.view.observed.template_check != TemplateCheck::Unknown
        && number(old) == number(new)
        && new.candidate.is_none()
        && new.step.is_none()
        && new.collision_count == old.collision_count
        && !new.reason.contains("Contested")
}

/// Whether a probe is being asked, or its next time has not come yet.
fn is_asked(work: &Work, check: &Check, state: &CheckStatus) -> bool {
    let decision = &work.decision;
    let last = state.answered_at.unwrap_or(state.started_at);
    let before = work.old.checks.iter().find(|it| it.name == state.name && it.started_at == state.started_at);
    let ends_now = before.is_none_or(|before| before.outcome == CheckOutcome::Running);
    match state.outcome {
        CheckOutcome::Skipped => true,
        CheckOutcome::Passed | CheckOutcome::Failed => {
            ends_now || check.every.is_some_and(|every| work.now.since(last) < every)
        }
        CheckOutcome::Running => {
            let id = format!("check/{}/{}/0/", state.name, state.release);
            let mut jobs = work.view.observed.jobs.iter().map(|job| &job.object.name);
            let mut made = decision.after.iter().filter_map(|effect| match effect {
                Effect::CreateJob(new) => Some(&new.name),
                _ => None,
            });
            decision.questions.iter().any(|question| question.id.starts_with(&id))
                || state.job.as_ref().is_some_and(|name| jobs.any(|it| it == name) || made.any(|it| it == name))
                || work.now.since(last) < check.interval
                || (check.job.is_some() && work.now.since(state.started_at) < FOLLOWED)
        }
    }
}
