//! Before the migration is taken back: what that is, and what it would lose, is looked at once more; a person approves it
//! where the manifest asks for that; and where data are lost a backup of what is there is made.

use serde_json::json;

use crate::api::{
    ApprovalKind, Database, DatabaseStatus, DatabaseTask, MigrationApproval, MigrationDownStatus, OnRollback,
    WorkOutcome,
};

use super::{
    super::{
        pass::Pass,
        task::{DatabaseJob, Meant, Task},
    },
    image_from, pinned,
    steps::{hashed, known_database, number, order, state, watched, with_change},
    undo::{self, Standing},
    words,
    work::{self, Progress},
};

/// What is told of a pod of the user's, whose statements nobody knows.
const UNREAD: &str = "the statements of an image are not known: whether it loses data nobody can tell";

/// What is known of it once preflight has looked; nothing where the release would not run it.
pub fn expect(pass: &mut Pass<'_>, database: &Database) {
    let due = pass.status.release.as_ref().is_some_and(|release| release.migration.is_some());
    let wanted = due && database.on_rollback() == OnRollback::MigrateDown;
    let known = state(pass).migration_down.take().filter(|_| wanted);
    state(pass).migration_down = match database.migration_down.as_ref().filter(|_| wanted) {
        Some(down) if down.change.template.is_some() => Some(unread(known.unwrap_or_default())),
        _ => known,
    };
}

fn unread(known: MigrationDownStatus) -> MigrationDownStatus {
    MigrationDownStatus { risks: vec![UNREAD.into()], loses_data: true, ..known }
}

/// The Job that looks at it, in the pod that is going to run it.
pub fn look(pass: &Pass<'_>, database: &Database, base: DatabaseJob) -> Option<DatabaseJob> {
    let change = &database.migration_down.as_ref()?.change;
    let set = change.sql.as_ref().map(|sql| sql.set.clone());
    let meant = Meant { database: known_database(pass), watched: watched(change), ..Meant::default() };
    Some(with_change(pass, change, Task::PreflightDown { set, of: number(pass), meant }, base))
}

/// What has to be so before the migration is taken back. None: it may begin, or it has begun.
pub fn prepare(pass: &mut Pass<'_>, database: &Database, cleaning: bool) -> Option<Standing> {
    if has_begun(pass) {
        return None;
    }
    if let Some(standing) = look_again(pass, database) {
        return Some(standing);
    }
    if asks(pass, database) {
        return Some(Standing::Asks(ApprovalKind::MigrateDown, words::migrate_down(pass)));
    }
    if database.backup.is_none() || !loses_data(pass) {
        return None;
    }
    if cleaning {
        // It has a scratch database of its own.
        return Some(Standing::Waits("what a proof or a rehearsal left goes first".into()));
    }
    undo::step(pass, database, DatabaseTask::BackupBeforeDown)
}

/// Looks at it, once more when a person has said Retry: what failed may have been put right.
fn look_again(pass: &mut Pass<'_>, database: &Database) -> Option<Standing> {
    let task = DatabaseTask::PreflightDown;
    let order = order(pass, database, task, undo::ordered_at(pass)?)?;
    match work::drive(pass, order) {
        Progress::Running => Some(Standing::Waits(words::subject(task).into())),
        Progress::Ended(WorkOutcome::Done) => {
            let hash = plan_hash(pass, database);
            let by_image = database.migration_down.as_ref().is_some_and(|down| down.change.template.is_some());
            let known = state(pass).migration_down.take().unwrap_or_default();
            let known = if by_image { unread(known) } else { known };
            state(pass).migration_down = Some(MigrationDownStatus { plan_hash: hash, ..known });
            None
        }
        Progress::Ended(outcome) => {
            Some(Standing::Halted { reason: words::failure(task, outcome), message: words::failed(pass, task) })
        }
    }
}

/// What is run to take the migration back, as a hash: image, command, files, target, as they were found on the way back.
fn plan_hash(pass: &Pass<'_>, database: &Database) -> String {
    let Some(down) = &database.migration_down else { return String::new() };
    let known = pass.status.database.as_ref();
    let found = known.and_then(|known| known.migration_down.as_ref());
    let change = &down.change;
    hashed(&json!({
        "down": number(pass), "sql": change.sql, "template": change.template, "version": change.version,
        "image": image_from(change, super::template(pass).as_ref()), "url": database.url_from,
        "files": found.map(|found| &found.files_hash), "digest": found.map(|found| &found.image),
        "database": known.map(|known| &known.database),
    }))
}

/// Whether it was begun, in this try.
fn has_begun(pass: &Pass<'_>) -> bool {
    let known = pass.status.database.as_ref().and_then(|known| known.last(DatabaseTask::MigrationDown));
    let since = undo::since(pass, DatabaseTask::MigrationDown);
    known.zip(since).is_some_and(|(work, since)| work.started_at >= since)
}

/// Whether data are lost by it, or may be for all that anybody knows.
fn loses_data(pass: &Pass<'_>) -> bool {
    let known = pass.status.database.as_ref().and_then(|known| known.migration_down.as_ref());
    known.is_none_or(|down| down.loses_data)
}

/// Whether a person has to approve what was looked at.
fn asks(pass: &Pass<'_>, database: &Database) -> bool {
    let asks = match database.approval_down() {
        MigrationApproval::Never => false,
        MigrationApproval::Required => true,
        MigrationApproval::WhenDataLoss => loses_data(pass),
    };
    asks && !pass.status.database.as_ref().is_some_and(|known| known.is_approved(ApprovalKind::MigrateDown))
}

/// Whether the release waits for a person to approve that its migration is taken back.
pub fn awaits_approval(pass: &Pass<'_>) -> bool {
    let Some(database) = pinned(pass) else { return false };
    let work = |known: &DatabaseStatus| known.last(DatabaseTask::PreflightDown).cloned();
    let look = pass.status.database.as_ref().and_then(work).filter(|look| look.outcome == WorkOutcome::Done);
    let looked = look.is_some_and(|look| Some(look.started_at) >= undo::ordered_at(pass));
    looked && undo::way(pass, &database) == OnRollback::MigrateDown && !has_begun(pass) && asks(pass, &database)
}
