//! After the promotion: pods are looked at, and checks and metrics go on, for a while. What fails then takes the
//! release back to the previous revision. After a rollback: stable is asked whether it serves again.

use crate::api::{
    Check, CheckOutcome, Duration, Moment, ObservationStatus, OnFailure, RecordedRevision, RevisionStatus,
    RollbackCause, Timestamp, status::bounded,
};

use super::{
    analysis, checks, database, effect::Event, forward, observed::Revision, pass::Pass, plan::Policy, retreat, trouble,
};

/// Begins when the candidate has become stable.
pub fn begin(pass: &mut Pass<'_>, policy: &Policy) {
    let asks = policy.checks.iter().any(|check| check.when.contains(&Moment::AfterPromotion));
    if asks || policy.observation.is_some() {
        let until = pass.now.plus(policy.observation.unwrap_or_default());
        let begun = ObservationStatus { started_at: pass.now, until, retried_at: None, failure: None, unproven: None };
        pass.status.observation = Some(begun);
    }
}

/// Nothing is watched any more: what was seen of stable's pods is not kept up to date.
pub fn end(pass: &mut Pass<'_>) {
    pass.status.observation = None;
    forget_problem(pass);
}

fn forget_problem(pass: &mut Pass<'_>) {
    if let Some(stable) = &mut pass.status.stable {
        stable.problem = None;
    }
}

/// Asks and measures what is to be. Says whether the release goes back.
pub fn drive(pass: &mut Pass<'_>) -> bool {
    let Some(state) = pass.status.observation.clone() else {
        after_rollback(pass);
        return false;
    };
    let policy = pass.policy();
    // A person is waited for. What goes back by itself still does, as long as it is observed.
    if state.failure.is_some() && !may_go_back(pass, &policy, &state) {
        forget_problem(pass);
        return false;
    }
    // The rules are those of a release that goes forward, whatever else is asked.
    if let Some((reason, message)) = look_at_pods(pass, &policy, state.started_at).or_else(|| look_at_readiness(pass)) {
        return fail(pass, policy.automatic, &reason, &message);
    }
    if let Some(message) = analysis::watch(pass, &policy) {
        return fail(pass, policy.automatic, "AnalysisFailed", &message);
    }
    // What is about to fail is waited for.
    let problem = pass.status.stable.as_ref().and_then(|stable| stable.problem.as_ref());
    let mut open = problem.and_then(trouble::fails_at).is_some();
    for check in acting(&policy, &state) {
        let since = due(pass, check, &state, &policy);
        let at = checks::At { when: Moment::AfterPromotion, step: 0, since };
        match checks::ask(pass, &policy, at, std::slice::from_ref(&check.name)) {
            Ok(passed) => open |= !passed,
            Err(failure) => {
                let automatic = policy.automatic && failure.then == OnFailure::Rollback;
                if automatic || state.failure.is_none() {
                    return fail(pass, automatic, "CheckFailed", &failure.message);
                }
                // Beside a failure that waits for a person it says nothing new; what stands after it may.
            }
        }
    }
    pass.wake_at(ends_at(&policy, &state));
    // As in a canary, spec.paused keeps it from going on, and not from going back.
    if open || state.failure.is_some() || state.until > pass.now || pass.release.spec.paused {
        return false;
    }
    if policy.observation.is_none() {
        end(pass);
    } else if let Some(doubt) = unavailable(pass).or_else(|| analysis::not_passed(pass, &policy, state.started_at)) {
        go_on(pass, &policy, &state, &doubt);
    } else {
        end(pass);
        let until = if state.unproven.is_some() { pass.now } else { state.until };
        let blind = analysis::blind(&policy);
        let message = format!("{} was observed until {until}{blind}", pass.stable_hash().unwrap_or_default());
        pass.status.note(pass.now, "Observed", &message, None);
    }
    false
}

/// That nobody serves, whosever fault it is.
fn unavailable(pass: &Pass<'_>) -> Option<analysis::Doubt> {
    let none = pass.replicas() > 0 && pass.stable().is_none_or(|stable| stable.available == 0);
    let why = format!("no pod of {} is available", pass.stable_hash().unwrap_or_default());
    none.then_some(analysis::Doubt { why, asked: false })
}

/// Its time is over, and a metric does not say that all is well, or nobody serves: that is no success, and no failure either.
/// It is waited for as long again, and then a person is told that nothing was proven.
fn go_on(pass: &mut Pass<'_>, policy: &Policy, state: &ObservationStatus, doubt: &analysis::Doubt) {
    // Each question has its answer, be it that there was none in time.
    if doubt.asked {
        return;
    }
    let (latest, why) = (latest(policy, state), &doubt.why);
    if latest <= pass.now {
        end(pass);
        let message = format!("it was observed until {}, but {why}", pass.now);
        if let Some(release) = &mut pass.status.release {
            release.unproven = Some(bounded(&message, 512));
        }
        pass.status.note(pass.now, "Unproven", &message, None);
        return;
    }
    pass.wake_at(latest);
    if state.unproven.is_none() {
        pass.status.note(pass.now, "Unproven", &format!("observed until {latest} at the latest: {why}"), None);
    }
    if let Some(state) = &mut pass.status.observation {
        state.unproven = Some(bounded(why, 512));
    }
}

/// How many measurements there is time for at least, where an observation goes on for want of one that passes.
const MEASUREMENTS: u64 = 10;

/// Until when it goes on where nothing is proven.
pub fn latest(policy: &Policy, state: &ObservationStatus) -> Timestamp {
    let interval = policy.analysis.as_ref().map_or(0, |analysis| analysis.interval.as_millis());
    let least = Duration::from_millis(interval.max(1000).saturating_mul(MEASUREMENTS));
    state.until.max(state.started_at).plus(policy.observation.unwrap_or_default().max(least))
}

/// Looks at the pods of what was promoted, records what is wrong since then, and says whether it fails.
fn look_at_pods(pass: &mut Pass<'_>, policy: &Policy, since: Timestamp) -> Option<(String, String)> {
    let known = pass.status.stable.as_ref()?.problem.clone();
    let stable = pass.stable()?;
    let look = trouble::Look { since, now: pass.now, counts_restarts: !analysis::allows_restarts(policy) };
    let problem = trouble::find(stable, known.as_ref(), look);
    let problem = match shares_fate(pass) {
        true => problem,
        false => trouble::or_unready(problem, stable, known.as_ref(), pass.now),
    };
    if let Some(stable) = &mut pass.status.stable {
        stable.problem.clone_from(&problem);
    }
    forward::failing(pass, &problem?)
}

/// The pods that are kept of the previous revision, if there are some.
fn kept<'a>(pass: &Pass<'a>) -> Option<&'a Revision> {
    good_before(pass).and_then(|previous| pass.revision(&previous.revision)).filter(|previous| previous.replicas > 0)
}

/// Whether the pods that were kept are not ready either: it is the fault of something that both depend on, and nothing is
/// gained on the way back.
fn shares_fate(pass: &Pass<'_>) -> bool {
    kept(pass).is_some_and(|previous| previous.ready == 0)
}

/// None of its pods passes its readiness probe any more, while the pods that were kept of the previous revision all
/// do: it is its own fault, and not that of something that both depend on. Without all of them nobody knows, and it is
/// waited for a while (see [`trouble::UNREADY_GRACE`]).
fn look_at_readiness(pass: &Pass<'_>) -> Option<(String, String)> {
    let all = kept(pass).is_some_and(|previous| previous.observed && previous.warm() >= previous.replicas);
    let lost = trouble::lost_readiness(pass.stable().filter(|_| all)?)?;
    Some((trouble::NOT_READY.to_owned(), lost))
}

/// The checks that are asked now, as [`drive`] does: beside a failure that waits for a person those that can still take the release back.
pub fn asked(pass: &Pass<'_>) -> Vec<String> {
    let Some(state) = &pass.status.observation else { return Vec::new() };
    let policy = pass.policy();
    if state.failure.is_some() && !may_go_back(pass, &policy, state) {
        return Vec::new();
    }
    acting(&policy, state).map(|check| check.name.clone()).collect()
}

/// The checks of after the promotion, but for those of which a failure would say nothing new.
fn acting<'a>(policy: &'a Policy, state: &ObservationStatus) -> impl Iterator<Item = &'a Check> {
    policy.checks.iter().filter(|check| is_asked(check) && acts(check, state))
}

/// Whether a check is asked after the promotion.
fn is_asked(check: &Check) -> bool {
    check.every.is_some() || check.when.contains(&Moment::AfterPromotion)
}

/// Whether a check is asked: where a failure is on record one that a person would be told of says nothing new.
fn acts(check: &Check, state: &ObservationStatus) -> bool {
    state.failure.is_none() || check.on_failure == OnFailure::Rollback
}

/// Whether what fails beside a failure that waits for a person can still take it back.
fn may_go_back(pass: &Pass<'_>, policy: &Policy, state: &ObservationStatus) -> bool {
    let answered = |check: &Check| {
        let mut known = pass.status.checks.iter().filter(|known| known.name == check.name && known.step == 0);
        known.any(|known| known.outcome != CheckOutcome::Running && known.started_at >= state.started_at)
    };
    let mut asked = policy.checks.iter().filter(|check| check.when.contains(&Moment::AfterPromotion));
    let open = asked.any(|check| acts(check, state) && !answered(check));
    policy.automatic && (open || goes_on(pass, policy, state)) && way_back(pass).is_some()
}

/// Until when it is observed, as far as is known.
fn ends_at(policy: &Policy, state: &ObservationStatus) -> Timestamp {
    if state.unproven.is_some() { latest(policy, state) } else { state.until }
}

/// Whether its time is not over, or does not end.
fn goes_on(pass: &Pass<'_>, policy: &Policy, state: &ObservationStatus) -> bool {
    pass.now < ends_at(policy, state) || pass.release.spec.paused
}

/// Since when an answer counts: a standing probe is asked anew when its time has come.
fn due(pass: &mut Pass<'_>, check: &Check, state: &ObservationStatus, policy: &Policy) -> Timestamp {
    let Some(every) = check.every else { return state.started_at };
    let goes_on = goes_on(pass, policy, state);
    let known = pass.status.checks.iter().find(|known| known.name == check.name && known.step == 0);
    let last = known.and_then(|known| match known.outcome {
        CheckOutcome::Running => None,
        // There was no answer in time.
        CheckOutcome::Failed => Some(known.answered_at.unwrap_or(known.started_at)),
        CheckOutcome::Passed | CheckOutcome::Skipped => known.answered_at,
    });
    match last {
        // Nothing begins that observation would not see the end of.
        Some(last) if goes_on && last >= state.started_at && pass.elapsed(last, every) => pass.now,
        _ => state.started_at,
    }
}

/// Goes back to the previous revision, or tells a person that there is something to be done.
fn fail(pass: &mut Pass<'_>, automatic: bool, reason: &str, message: &str) -> bool {
    if let Some(entry) = way_back(pass).filter(|_| automatic) {
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
    forget_problem(pass);
    if let Some(state) = &mut pass.status.observation {
        state.failure = Some(message);
    }
    false
}

/// What it can go back to by itself.
fn way_back(pass: &Pass<'_>) -> Option<RevisionStatus> {
    let to = good_before(pass).filter(|to| database::undo::hinders(pass, to.release).is_none())?;
    let seen = pass.revision(&to.revision)?;
    Some(pass.describe(&to.revision, &seen.template, to.release))
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
