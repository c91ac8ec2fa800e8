//! Clocks jump. One that went back must not make a wait endless (INVARIANTS L3): a start that lies
//! in the future is now, and nothing drains for longer than it was meant to from now on.

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
        if step.started_at > now || (was_paused && !paused && step.name.waits_for_cluster()) {
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
    for draining in &mut status.draining {
        draining.until = draining.until.min(longest);
    }
}
