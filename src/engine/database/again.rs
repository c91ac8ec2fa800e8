//! What Retry does about a database that halts the way back: it looks again, or verifies the schema again and goes on with the
//! release, or has nothing to do and says so.

use crate::api::{Database, DatabaseStatus, DatabaseTask, OnRollback, RollbackCause, SchemaState, WorkOutcome};

use super::{
    super::{forward, pass::Pass, plan::Step},
    onward, pinned,
    steps::{order, state},
    undo::{self, Standing},
    words,
    work::{self, Progress},
};

/// What a person can have tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The search for what became of something, or the Job of the way back that failed.
    Look,
    /// The verification, which is all that kept the release from going on.
    Verify,
    /// The release of what the spec wants, over the schema as it is.
    Onward,
    /// Nothing.
    Nothing,
}

/// What Retry would do about the halt.
pub fn what(pass: &Pass<'_>) -> Again {
    let way = pinned(pass).map(|database| undo::way(pass, &database));
    let same = pass.target.as_ref().map(|target| target.hash.as_str()) == pass.candidate_hash();
    let changed = super::schema(pass).is_changed();
    let backed_up = pass.status.database.as_ref().is_some_and(DatabaseStatus::is_backed_up);
    match way {
        _ if undo::is_rehearsal_unknown(pass) => Again::Nothing,
        _ if undo::is_seed_unknown(pass) => Again::Look,
        Some(OnRollback::Halt) if is_verifiable(pass) && (same || onward::offered(pass).is_none()) => Again::Verify,
        _ if onward::is_at_end(pass) && onward::offered(pass).is_some() => Again::Onward,
        _ if !changed && onward::is_unfit(pass) && onward::is_at_end(pass) => Again::Nothing,
        _ if !changed => Again::Look,
        Some(OnRollback::Halt) => Again::Nothing,
        Some(OnRollback::Restore) if !backed_up => Again::Nothing,
        _ => Again::Look,
    }
}

/// Whether Retry releases what the spec wants, over the schema as it is.
pub fn is_onward(pass: &Pass<'_>) -> bool {
    undo::is_halted(pass) && what(pass) == Again::Onward
}

/// Whether the release stands where it was before the verification failed: nothing of it was taken back, and nobody has
/// aborted it.
fn is_verifiable(pass: &Pass<'_>) -> bool {
    let Some(rollback) = &pass.status.rollback else { return false };
    let policy = pass.policy();
    let here =
        pass.status.step.is_some() && forward::current(pass, &policy) == Step::Database(DatabaseTask::Verification);
    let verified = pass.status.database.as_ref().and_then(|known| known.last(DatabaseTask::Verification));
    here && rollback.cause == RollbackCause::Failed
        && rollback.from_weight == 0
        && !rollback.probed
        && super::schema(pass) == SchemaState::Changed
        && verified.is_some_and(|work| work.outcome != WorkOutcome::Done)
}

/// Whether the schema is being verified again: then an Abort still has something to stop.
pub fn is_verifying(pass: &Pass<'_>) -> bool {
    let known = pass.status.database.as_ref().and_then(|known| known.last(DatabaseTask::Verification));
    let begun = pass.status.rollback.as_ref().map(|rollback| rollback.started_at);
    let running = known.is_some_and(|work| work.outcome == WorkOutcome::Running && Some(work.started_at) >= begun);
    running && is_verifiable(pass)
}

/// A person says Retry to a halt. None if the database does not halt anything.
pub fn retry(pass: &mut Pass<'_>) -> Option<Result<String, String>> {
    if !undo::is_halted(pass) {
        return None;
    }
    let done = match what(pass) {
        Again::Look => "the database is looked at again",
        Again::Verify => "the schema is verified again; if it is as the spec wants it, the release goes on",
        Again::Onward => return Some(onward::order(pass)),
        Again::Nothing => return Some(Err(words::nothing_to_retry(pass))),
    };
    let now = pass.now;
    state(pass).asked_again_at = Some(now);
    Some(Ok(done.into()))
}

/// The verification that a person has asked for again. Where it passes the release goes on from there, as if it had passed
/// before: the schema is changed as it was meant, and nothing was taken back yet.
pub fn verify(pass: &mut Pass<'_>, database: &Database) -> Option<Standing> {
    let since = pass.status.database.as_ref()?.asked_again_at.filter(|_| is_verifiable(pass))?;
    let order = order(pass, database, DatabaseTask::Verification, since)?;
    let waits = Some(Standing::Waits("the schema is verified again".into()));
    match work::drive(pass, order) {
        Progress::Running => waits,
        Progress::Ended(WorkOutcome::Done) => {
            pass.status.rollback = None;
            let message = "the schema is as the spec wants it: the release goes on";
            pass.status.note(pass.now, "Resumed", message, None);
            waits
        }
        Progress::Ended(_) => None,
    }
}
