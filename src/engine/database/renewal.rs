//! A backup that is too old when the migration, or a seed without one, is about to begin: an approval may have taken days. It is made anew, and
//! nothing else is: what was rehearsed and approved is the migration, whose plan stays the same.

use crate::api::{DatabaseTask, SchemaState, Timestamp, WorkOutcome};

use super::{
    super::{checks::Failure, forward, pass::Pass, plan::Step},
    pinned, schema,
    steps::{ended, order},
    work::{self, Progress},
};

/// Whether the backup is young enough to begin, after it was made anew if it was not.
///
/// # Errors
/// There is no new one.
pub fn is_fresh(pass: &mut Pass<'_>) -> Result<bool, Failure> {
    let (Some(database), Some(step)) = (pinned(pass), pass.status.step.clone()) else { return Ok(true) };
    let known = pass.status.database.as_ref().and_then(|known| known.last(DatabaseTask::Backup)).cloned();
    let (Some(backup), Some(known)) = (&database.backup, known) else { return Ok(true) };
    if schema(pass) != SchemaState::Unchanged {
        return Ok(true);
    }
    // Of this step: once is enough, however long it takes. Its contents are as old as its begin.
    let renewed = known.started_at >= step.started_at;
    let young = pass.now.since(known.started_at) <= backup.max_age;
    if known.outcome == WorkOutcome::Done && (renewed || young) {
        return Ok(true);
    }
    // One that was begun before the step was begun anew (Resume) goes on; one that failed then (Retry) is none.
    let since = if known.outcome == WorkOutcome::Running { known.started_at } else { step.started_at };
    if known.started_at < since {
        let made = known.outcome == WorkOutcome::Done;
        let why = if made { format!("is older than {}", backup.max_age) } else { "was not made".to_owned() };
        pass.status.note(
            pass.now,
            "BackupRenewed",
            &format!("the backup of {} {why}: a new one is made", known.started_at),
            None,
        );
    }
    let Some(order) = order(pass, &database, DatabaseTask::Backup, since) else { return Ok(true) };
    match work::drive(pass, order) {
        Progress::Running => Ok(false),
        Progress::Ended(outcome) => ended(pass, &database, DatabaseTask::Backup, outcome),
    }
}

/// Whether the one under way is made anew.
pub fn is_under_way(pass: &Pass<'_>) -> bool {
    let known = pass.status.database.as_ref().and_then(|known| known.last(DatabaseTask::Backup));
    known.is_some_and(|work| work.outcome == WorkOutcome::Running) && is_later(pass)
}

/// When the last backup had ended.
pub fn ended_at(pass: &Pass<'_>) -> Option<Timestamp> {
    pass.status.database.as_ref()?.last(DatabaseTask::Backup)?.ended_at
}

/// Whether the step under way comes after the one that makes the backup.
pub fn is_later(pass: &Pass<'_>) -> bool {
    let policy = pass.policy();
    pass.status.step.is_some() && forward::current(pass, &policy) != Step::Database(DatabaseTask::Backup)
}
