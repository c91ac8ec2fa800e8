//! Clocks jump. One that went back must not make a wait endless (INVARIANTS L3): a start that lies
//! in the future is now, and nothing drains for longer than it was meant to from now on.

use crate::api::{DatabaseStatus, StepName, Timestamp};

use super::pass::Pass;

/// Brings the times of the status into the past of the pass, deadlines into its near future.
pub fn repair(pass: &mut Pass<'_>) {
    let now = pass.now;
    let policy = pass.policy();
    let longest = now.plus(policy.keep_previous.max(policy.scale_down_delay));
    let status = &mut pass.status;
    let paused = pass.release.spec.paused;
    let was_paused = status.reason == "SpecPaused";
    if let Some(step) = &mut status.step {
        // The deadline of a step does not run while the release is held.
        let has_deadline = step.name.waits_for_cluster() || step.name == StepName::Check;
        step.unproven_since = step.unproven_since.map(|at| at.min(now));
        step.retried_at = step.retried_at.map(|at| at.min(now));
        if let Some(unreached) = &mut step.unreached {
            unreached.at = unreached.at.min(now);
        }
        if step.started_at > now || (was_paused && !paused && has_deadline) {
            step.started_at = now;
        }
    }
    if let Some(rollback) = &mut status.rollback {
        rollback.started_at = rollback.started_at.min(now);
        rollback.drain_until = rollback.drain_until.map(|until| until.min(now.plus(policy.scale_down_delay)));
    }
    if let Some(route) = &mut status.route {
        route.accepted_at = route.accepted_at.map(|at| at.min(now));
    }
    if let Some(observation) = &mut status.observation {
        observation.started_at = observation.started_at.min(now);
        observation.retried_at = observation.retried_at.map(|at| at.min(now));
        observation.until = observation.until.min(now.plus(policy.observation.unwrap_or_default()));
    }
    if let Some(weights) = &mut status.weights {
        weights.reached_at = weights.reached_at.map(|at| at.min(now));
    }
    for check in &mut status.checks {
        check.started_at = check.started_at.min(now);
        check.answered_at = check.answered_at.map(|at| at.min(now));
        check.since = check.since.map(|at| at.min(now));
    }
    for verdict in &mut status.verdicts {
        verdict.started_at = verdict.started_at.min(now);
        verdict.measured_at = verdict.measured_at.map(|at| at.min(now));
        verdict.passed_at = verdict.passed_at.map(|at| at.min(now));
        verdict.counted_until = verdict.counted_until.map(|at| at.min(now));
    }
    for draining in &mut status.draining {
        draining.until = draining.until.min(longest);
    }
    if let Some(known) = &mut status.database {
        database(known, now);
    }
}

/// The same of the database's part.
fn database(known: &mut DatabaseStatus, now: Timestamp) {
    let since = [
        &mut known.scratch_since,
        &mut known.asked_again_at,
        &mut known.maintenance_since,
        &mut known.maintenance_key_since,
    ];
    for since in since {
        *since = since.map(|at| at.min(now));
    }
    for work in &mut known.work {
        work.started_at = work.started_at.min(now);
        work.ended_at = work.ended_at.map(|at| at.min(now));
    }
    for approval in &mut known.approvals {
        approval.at = approval.at.min(now);
    }
}
