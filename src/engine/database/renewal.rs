//! A backup that is too old when the migration is about to begin: an approval may have taken days. It is made anew, and
//! nothing else is: what was rehearsed and approved is the migration, whose plan stays the same.

use crate::api::{DatabaseTask, SchemaState, WorkOutcome};

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
    // Of this step: once is enough, however long it takes.
    let renewed = known.started_at >= step.started_at;
    if !renewed {
        // Its contents are as old as its begin.
        if pass.now.since(known.started_at) <= backup.max_age {
            return Ok(true);
        }
        let note = format!("the backup is of {}, older than {}: a new one is made", known.started_at, backup.max_age);
        pass.status.note(pass.now, "BackupRenewed", &note, None);
    } else if known.outcome == WorkOutcome::Done {
        return Ok(true);
    }
    let Some(order) = order(pass, &database, DatabaseTask::Backup, step.started_at) else { return Ok(true) };
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

/// Whether the step under way comes after the one that makes the backup.
pub fn is_later(pass: &Pass<'_>) -> bool {
    let policy = pass.policy();
    pass.status.step.is_some() && forward::current(pass, &policy) != Step::Database(DatabaseTask::Backup)
}
