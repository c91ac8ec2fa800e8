//! Mutants that only cases in which releases are observed can catch.

use servicerelease::{
    api::{Duration, Phase, ServiceRelease, ServiceReleaseSpec, ServiceReleaseStatus, Timestamp, VerdictOutcome},
    engine::{Decision, Effect, Observed, Reply, decide},
};

use super::{Mutant, mutant, with_metrics, with_seen, with_status};

/// With another spec in the plans that are pinned.
fn with_plans(
    release: &ServiceRelease,
    seen: &Observed,
    now: Timestamp,
    change: fn(&mut ServiceReleaseSpec),
) -> Decision {
    with_seen(release, seen, now, |seen| seen.plans.iter_mut().for_each(|plan| change(&mut plan.spec)))
}

fn is_observed(release: &ServiceRelease) -> bool {
    release.status.as_ref().is_some_and(|status| status.observation.is_some())
}

pub const ALL: &[Mutant] = &[
    mutant("does not observe what it has promoted", "L3", |release, seen, now| {
        with_plans(release, seen, now, |spec| spec.observation = None)
    }),
    mutant("ends an observation before its time", "L3", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(state) = &mut status.observation {
                state.until = state.started_at;
            }
        })
    }),
    mutant("waits for data without end", "L3", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(state) = status.observation.as_mut().filter(|state| state.unproven.is_some()) {
                state.until = now.plus(Duration::from_secs(60));
            }
        })
    }),
    mutant("ends an observation while spec.paused is set", "T5", |release, seen, now| {
        let mut release = release.clone();
        release.spec.paused &= !is_observed(&release);
        decide(&release, seen, now)
    }),
    mutant("takes an observation without data for a success", "S4", |release, seen, now| {
        with_status(release, seen, now, |status| {
            for verdict in status.verdicts.iter_mut().filter(|_| status.observation.is_some()) {
                (verdict.outcome, verdict.measured_at) = (VerdictOutcome::Pass, Some(now));
            }
        })
    }),
    mutant("takes what was well once for well", "S4", |release, seen, now| {
        with_status(release, seen, now, |status| {
            let since = status.observation.as_ref().map(|state| state.started_at);
            for verdict in status.verdicts.iter_mut().filter(|it| since.is_some() && it.passed_at >= since) {
                verdict.outcome = VerdictOutcome::Pass;
            }
        })
    }),
    mutant("leaves what fails beside a failure that waits at that", "T3", |release, seen, now| {
        let observation = release.status.as_ref().and_then(|status| status.observation.as_ref());
        if observation.is_none_or(|state| state.failure.is_none()) {
            return decide(release, seen, now);
        }
        with_plans(release, seen, now, |spec| spec.rollback.automatic = false)
    }),
    mutant("asks no standing probes", "S4", |release, seen, now| {
        with_plans(release, seen, now, |spec| spec.checks.iter_mut().for_each(|check| check.every = None))
    }),
    mutant("takes every answer to a probe for a right one", "S4", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in seen.answers.iter_mut().filter(|_| is_observed(release)) {
                if let Reply::Check { fault, .. } = &mut answer.reply {
                    *fault = None;
                }
            }
        })
    }),
    mutant("leaves a metric that fails after the promotion at that", "T3", |release, seen, now| {
        if !is_observed(release) {
            return decide(release, seen, now);
        }
        with_metrics(release, seen, now, |metric| metric.dry_run = true)
    }),
    mutant("leaves a probe that fails at that", "T3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let failed = decision.status.rollback.as_ref().is_some_and(|it| it.reason == "CheckFailed");
        if is_observed(release) && failed {
            let checks = std::mem::take(&mut decision.status.checks);
            decision.status = release.status.clone().unwrap_or_default();
            decision.status.checks = checks;
            decision.after.clear();
        }
        decision
    }),
    mutant("does not look at pods after the promotion", "T3", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            let all = seen.revisions.iter_mut().filter(|_| is_observed(release)).flat_map(|set| &mut set.pods);
            all.for_each(|pod| pod.containers.clear());
        })
    }),
    mutant("does not see containers that are started again without a back-off", "T3", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            let all = seen.revisions.iter_mut().filter(|_| is_observed(release)).flat_map(|set| &mut set.pods);
            all.flat_map(|pod| &mut pod.containers).for_each(|container| container.restarts = 0);
        })
    }),
    mutant("waits for readiness that does not come back", "T3", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            let all = seen.revisions.iter_mut().filter(|_| is_observed(release)).flat_map(|set| &mut set.pods);
            all.for_each(|pod| pod.lost_readiness = false);
        })
    }),
    mutant("calls it a success although nobody is available", "S4", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for set in seen.revisions.iter_mut().filter(|_| is_observed(release)) {
                set.available = set.available.max(1);
                set.pods.iter_mut().for_each(|pod| pod.lost_readiness = false);
            }
        })
    }),
    mutant("waits for somebody to ask as long as a step may", "L3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let old = release.status.clone().unwrap_or_default();
        let nobody = |status: &ServiceReleaseStatus| {
            status.checks.iter().any(|it| it.attempts > 0 && it.message.contains("nobody to ask"))
        };
        if is_observed(release) && nobody(&decision.status) {
            decision.status = old;
            decision.after.clear();
        }
        decision
    }),
    mutant("asks nobody while the spec cannot be acted on", "L3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        if is_observed(release) && decision.status.phase == Phase::Invalid {
            decision.questions.clear();
            decision.after.retain(|effect| !matches!(effect, Effect::CreateJob(_)));
            decision.status.checks = release.status.clone().unwrap_or_default().checks;
        }
        decision
    }),
    mutant("goes back by itself, whatever the manifest says", "R2", |release, seen, now| {
        if !is_observed(release) {
            return decide(release, seen, now);
        }
        with_plans(release, seen, now, |spec| spec.rollback.automatic = true)
    }),
    mutant("only tells of what fails after the promotion", "R2", |release, seen, now| {
        if !is_observed(release) {
            return decide(release, seen, now);
        }
        with_plans(release, seen, now, |spec| spec.rollback.automatic = false)
    }),
    mutant("goes back to the oldest revision", "R2", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if status.observation.is_some() {
                status.history.reverse();
            }
        })
    }),
    mutant("keeps the pods of before no longer than connections drain", "R4", |release, seen, now| {
        with_plans(release, seen, now, |spec| spec.rollback.keep_previous = None)
    }),
    mutant("keeps as many pods of before as the shift has left", "R4", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let kept = |hash: &str| decision.status.draining.iter().any(|it| it.revision == hash && it.kept_from.is_some());
        let kept: Vec<_> = seen.revisions.iter().filter(|set| kept(&set.hash)).map(|set| &set.object.name).collect();
        let grows = |effect: &Effect| matches!(effect, Effect::ScaleReplicaSet { object, replicas } if *replicas > 0 && kept.contains(&&object.name));
        decision.after.retain(|effect| !grows(effect));
        decision
    }),
    mutant("takes the pods of before away while it observes", "R4", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if status.observation.is_some() {
                status.draining.clear();
            }
        })
    }),
    mutant("forgets to end what it observes", "L1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let state = release.status.as_ref().and_then(|status| status.observation.clone());
        decision.status.observation = decision.status.observation.or(state);
        decision
    }),
    mutant("leaves the Jobs of probes", "L1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.after.retain(|effect| !matches!(effect, Effect::DeleteJob { .. }));
        decision
    }),
];
