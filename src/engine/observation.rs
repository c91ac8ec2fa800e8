//! After the promotion: checks and metrics go on for a while, and what fails then takes the release back to the
//! previous revision. After a rollback: stable is asked whether it serves again.

use crate::api::{
    Check, CheckOutcome, Moment, ObservationStatus, OnFailure, RecordedRevision, RollbackCause, status::bounded,
};

use super::{analysis, checks, database, effect::Event, pass::Pass, plan::Policy, retreat};

/// Begins when the candidate has become stable.
pub fn begin(pass: &mut Pass<'_>, policy: &Policy) {
    let asks = policy.checks.iter().any(|check| check.when.contains(&Moment::AfterPromotion));
    if asks || policy.observation.is_some() {
        let until = pass.now.plus(policy.observation.unwrap_or_default());
        pass.status.observation = Some(ObservationStatus { started_at: pass.now, until, failure: None });
    }
}

/// Asks and measures what is to be. Says whether the release goes back.
pub fn drive(pass: &mut Pass<'_>) -> bool {
    let Some(state) = pass.status.observation.clone() else {
        after_rollback(pass);
        return false;
    };
    if state.failure.is_some() || pass.release.spec.paused {
        return false;
    }
    let policy = pass.policy();
    if let Some(message) = analysis::watch(pass, &policy) {
        return fail(pass, policy.automatic, "AnalysisFailed", &message);
    }
    let mut open = false;
    for check in policy.checks.iter().filter(|check| is_asked(check)) {
        let since = due(pass, check, &state);
        let at = checks::At { when: Moment::AfterPromotion, step: 0, since };
        match checks::ask(pass, &policy, at, std::slice::from_ref(&check.name)) {
            Ok(passed) => open |= !passed,
            Err(failure) => {
                let automatic = policy.automatic && failure.then == OnFailure::Rollback;
                return fail(pass, automatic, "CheckFailed", &failure.message);
            }
        }
    }
    let over = state.until <= pass.now;
    pass.wake_at(state.until);
    if over && !open {
        pass.status.observation = None;
        if policy.observation.is_some() {
            let message = format!("{} was observed until {}", pass.stable_hash().unwrap_or_default(), state.until);
            pass.status.note(pass.now, "Observed", &message, None);
        }
    }
    false
}

/// Whether a check is asked after the promotion.
fn is_asked(check: &Check) -> bool {
    check.every.is_some() || check.when.contains(&Moment::AfterPromotion)
}

/// Since when an answer counts: a standing probe is asked anew when its time has come.
fn due(pass: &mut Pass<'_>, check: &Check, state: &ObservationStatus) -> crate::api::Timestamp {
    let Some(every) = check.every else { return state.started_at };
    let known = pass.status.checks.iter().find(|known| known.name == check.name && known.step == 0);
    let last = known.filter(|known| known.outcome != CheckOutcome::Running).and_then(|known| known.answered_at);
    match last {
        // Nothing begins that observation would not see the end of.
        Some(last) if last >= state.started_at && pass.elapsed(last, every) && pass.now < state.until => pass.now,
        _ => state.started_at,
    }
}

/// Goes back to the previous revision, or tells a person that there is something to be done.
fn fail(pass: &mut Pass<'_>, automatic: bool, reason: &str, message: &str) -> bool {
    let back = good_before(pass).filter(|to| database::undo::hinders(pass, to.release).is_none()).and_then(|to| {
        let seen = pass.revision(&to.revision)?;
        Some(pass.describe(&to.revision, &seen.template, to.release))
    });
    if let Some(entry) = back.filter(|_| automatic) {
        pass.status.observation = None;
        let cause = retreat::Cause { cause: RollbackCause::Failed, reason, by: None };
        retreat::undo(pass, entry, message, &cause);
        return true;
    }
    let message = bounded(message, 512);
    pass.events.push(Event {
        warning: true,
        reason: reason.to_owned(),
        action: "Observing".into(),
        note: message.clone(),
    });
    pass.status.note(pass.now, "Held", &message, None);
    if let Some(state) = &mut pass.status.observation {
        state.failure = Some(message);
    }
    false
}

/// The last revision that was stable before, has not failed, and is still kept.
pub fn good_before(pass: &Pass<'_>) -> Option<RecordedRevision> {
    pass.status.history.iter().rev().find(|entry| is_good(pass, &entry.revision)).cloned()
}

/// Whether a revision can be gone back to.
pub fn is_good(pass: &Pass<'_>, hash: &str) -> bool {
    let failed = pass.status.failed_revisions.iter().any(|failed| failed.revision == hash && !failed.migration_alone);
    pass.stable_hash() != Some(hash) && !failed && pass.revision(hash).is_some()
}

/// Asks stable once a rollback is over. What fails then is told: there is nothing further to go back to.
fn after_rollback(pass: &mut Pass<'_>) {
    let rollback = pass.status.rollback.as_ref().filter(|it| it.cause != RollbackCause::Superseded);
    let Some(since) = rollback.and_then(|rollback| rollback.completed_at) else { return };
    if pass.stable().is_none() {
        return;
    }
    let policy = pass.policy();
    let asked = policy.checks.iter().filter(|check| check.when.contains(&Moment::AfterRollback));
    for check in asked {
        let at = checks::At { when: Moment::AfterRollback, step: 0, since };
        // Its outcome stands in status.checks, and was told by an Event.
        let _ = checks::ask(pass, &policy, at, std::slice::from_ref(&check.name));
    }
}
