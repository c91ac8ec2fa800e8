//! The way back: what becomes of the schema (PRODUCT.md, rules of behaviour). Nothing changes the database here unless the
//! manifest says how, and what nobody knows halts the release (INVARIANTS D3, D4).

use crate::api::{
    ApprovalKind, Database, DatabaseStatus, DatabaseTask, Duration, OnRollback, SchemaState, Timestamp, WorkOutcome,
};

use super::{
    super::{observed::Job, pass::Pass, task::DatabaseJob},
    again, clean_up, down, onward, pinned,
    steps::{self, order, settle, settle_job, state},
    switches, words,
    work::{self, Order, Progress},
};

/// How the database stands on the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is left to be done.
    Clear,
    /// It is worked on.
    Waits(String),
    /// A person has to approve: this, with these words.
    Asks(ApprovalKind, String),
    /// A person has to look.
    Halted {
        /// In a word for machines.
        reason: &'static str,
        /// What is known.
        message: String,
    },
}

/// Whether the release that is taken back is the one that the record of the database is about.
fn concerned(pass: &Pass<'_>) -> bool {
    let (Some(rollback), Some(database)) = (&pass.status.rollback, &pass.status.database) else { return false };
    rollback.completed_at.is_none() && rollback.release == database.release
}

/// Whether the code before can be trusted with the schema as it is.
pub fn is_safe_for_stable(pass: &Pass<'_>) -> bool {
    let compatible = pinned(pass)
        .and_then(|database| database.migration)
        .is_none_or(|migration| migration.previous_revision_compatible);
    let own = compatible || matches!(super::schema(pass), SchemaState::Unchanged | SchemaState::Undone);
    super::schema(pass) == SchemaState::Accepted || (own && !onward::is_unfit(pass))
}

/// What becomes of the schema: as the plan says; where that halts, a restore that the manifest asks for since then, if there
/// is a backup that can be restored, and no newer template waits. One that was approved comes to its end.
pub fn way(pass: &Pass<'_>, database: &Database) -> OnRollback {
    let known = pass.status.database.as_ref();
    let backed_up = known.is_some_and(DatabaseStatus::is_backed_up);
    let own = database.backup.as_ref().is_some_and(|backup| backup.persistent_volume_claim.is_some());
    let wanted = pass.release.spec.database.as_ref().and_then(|database| database.on_rollback);
    let asked = wanted == Some(OnRollback::Restore) && onward::newer(pass).is_none();
    match database.on_rollback() {
        OnRollback::Halt if backed_up && own && (asked || is_restore_approved(pass)) => OnRollback::Restore,
        way => way,
    }
}

/// Whether traffic may move back: onto code that cannot live with the schema only behind maintenance mode.
pub fn may_move(pass: &mut Pass<'_>) -> bool {
    !concerned(pass)
        || is_safe_for_stable(pass)
        || pass.status.stable.is_none()
        || switches::close(pass)
        || is_at_work(pass)
}

/// Whether a Job takes the schema back: it is watched to its end, also where somebody takes maintenance mode off meanwhile.
fn is_at_work(pass: &Pass<'_>) -> bool {
    let work = pass.status.database.iter().flat_map(|known| &known.work);
    let back = [DatabaseTask::MigrationDown, DatabaseTask::Restore];
    work.into_iter().any(|work| back.contains(&work.task) && work.outcome == WorkOutcome::Running)
}

/// Traffic waits for maintenance mode: does what can be done meanwhile.
pub fn hold(pass: &mut Pass<'_>) {
    let standing = drive(pass, false);
    let known = super::schema(pass).is_changed();
    if known && !matches!(standing, Standing::Halted { .. }) {
        pass.standing = Some(not_closed(pass));
    }
    pass.held = true;
}

/// Does what is next, and says how it stands. `moved`: all traffic is on stable.
pub fn drive(pass: &mut Pass<'_>, moved: bool) -> Standing {
    let concerned = concerned(pass);
    let left = if concerned { clean_up::drive(pass) } else { None };
    let standing = if concerned { schema(pass, moved, left.is_some()) } else { Standing::Clear };
    let standing = if concerned { onward::stand(pass, standing) } else { standing };
    let standing = match standing {
        Standing::Clear if !moved => Standing::Clear,
        // It stays on: what begins next takes it off.
        Standing::Clear if concerned && onward::begins(pass) && !is_safe_for_stable(pass) => Standing::Clear,
        Standing::Clear if !switches::open(pass) => not_opened(pass),
        other => other,
    };
    // Nothing but the end of the release waits for it.
    let standing = match (standing, left) {
        (Standing::Clear, Some(job)) => Standing::Waits(clean_up::words(&job)),
        (other, _) => other,
    };
    pass.standing = Some(standing.clone());
    standing
}

fn schema(pass: &mut Pass<'_>, moved: bool, cleaning: bool) -> Standing {
    let Some(database) = pinned(pass) else { return Standing::Clear };
    if let Some(waits) = finish_seed(pass, &database) {
        return waits;
    }
    if is_seed_unknown(pass) {
        return Standing::Halted { reason: "SeedUnknown", message: words::seed_unknown(pass) };
    }
    if super::schema(pass) == SchemaState::Changing
        && let Some(waits) = finish(pass, &database)
    {
        return waits;
    }
    if super::schema(pass) == SchemaState::Unknown
        && let Some(waits) = ask_again(pass, &database)
    {
        return waits;
    }
    match super::schema(pass) {
        SchemaState::Unchanged | SchemaState::Undone | SchemaState::Accepted => Standing::Clear,
        SchemaState::Changing => Standing::Waits("the migration is under way".into()),
        SchemaState::Unknown => {
            let (reason, message) = words::unknown(pass);
            Standing::Halted { reason, message }
        }
        SchemaState::Changed | SchemaState::Partial => match way(pass, &database) {
            OnRollback::Keep => Standing::Clear,
            OnRollback::Halt => again::verify(pass, &database)
                .unwrap_or_else(|| Standing::Halted { reason: "SchemaChanged", message: words::changed(pass) }),
            _ if !moved => Standing::Waits("traffic goes back first".into()),
            OnRollback::MigrateDown => migrate_down(pass, &database, cleaning),
            // It makes a backup, which has a scratch database of its own.
            OnRollback::Restore if cleaning => Standing::Waits("what a proof or a rehearsal left goes first".into()),
            OnRollback::Restore => restore(pass, &database),
        },
    }
}

/// A migration under way comes to its known end (INVARIANTS C3). Where its Job is not to be seen, one takes its very name
/// that only looks what became of it, so that no other can be made any more.
fn finish(pass: &mut Pass<'_>, database: &Database) -> Option<Standing> {
    let begun = pass.status.database.as_ref()?.last(DatabaseTask::Migration)?.started_at;
    let forward = order(pass, database, DatabaseTask::Migration, begun)?;
    let migration = database.migration.as_ref()?;
    let base = DatabaseJob { task: None, files: None, ..forward.job.clone() };
    let job = settle_job(pass, &migration.change, DatabaseTask::Migration, base);
    match work::drive(pass, Order { job, ..forward }) {
        Progress::Running => Some(Standing::Waits("the migration is under way: its outcome decides".into())),
        Progress::Ended(outcome) => {
            settle(pass, DatabaseTask::Migration, outcome);
            None
        }
    }
}

/// The object is being deleted: the Job of a migration, or of its way back, whose outcome is to be known first. Then maintenance mode
/// goes off, if the code that serves can live with the schema.
pub fn outstanding(pass: &mut Pass<'_>) -> Option<String> {
    let database = pinned(pass)?;
    let job = |pass: &Pass<'_>, task| {
        pass.status.database.as_ref().and_then(|known| known.last(task)).map(|work| work.job.clone())
    };
    if finish_seed(pass, &database).is_some() {
        return job(pass, DatabaseTask::Seed);
    }
    if super::schema(pass) == SchemaState::Changing && finish(pass, &database).is_some() {
        return job(pass, DatabaseTask::Migration);
    }
    if super::schema(pass) == SchemaState::Unknown && ask_again(pass, &database).is_some() {
        return job(pass, DatabaseTask::Settlement);
    }
    for (task, verification, what) in BACK {
        if end_of(pass, &database, task) == Some(Progress::Running) {
            return job(pass, task);
        }
        if verified_back(pass, &database, task, verification, what) == Some(Progress::Running) {
            return job(pass, verification);
        }
    }
    if is_safe_for_stable(pass) {
        switches::open(pass);
    }
    None
}

/// What takes the schema back, what looks at it then, and what is told once both are done.
const BACK: [(DatabaseTask, DatabaseTask, &str); 2] = [
    (DatabaseTask::MigrationDown, DatabaseTask::VerificationDown, "the migration was taken back"),
    (
        DatabaseTask::Restore,
        DatabaseTask::VerificationRestore,
        "the backup was restored, and the database has its tables and rows",
    ),
];

/// One that is done while the object is being deleted counts once it was verified, as on any way back. None: there is none.
fn verified_back(
    pass: &mut Pass<'_>,
    database: &Database,
    task: DatabaseTask,
    verification: DatabaseTask,
    what: &str,
) -> Option<Progress> {
    let changed = super::schema(pass).is_changed();
    let known = pass.status.database.as_ref()?.last(task)?;
    let since = Some(known.started_at).filter(|_| changed && known.outcome == WorkOutcome::Done)?;
    // Without an order there is nothing to be looked at.
    let progress = match order(pass, database, verification, since) {
        Some(order) => work::drive(pass, order),
        None => Progress::Ended(WorkOutcome::Done),
    };
    if progress == Progress::Ended(WorkOutcome::Done) {
        undone(pass, what);
    }
    Some(progress)
}

/// What of maintenance mode stays on when the object goes, and why; with the command that takes it off. None: nothing does.
pub fn left_closed(pass: &Pass<'_>) -> Option<(String, String)> {
    let (what, command) = switches::closed(pass)?;
    let why = if is_safe_for_stable(pass) { switches::lacking(pass)? } else { words::unsafe_schema(pass).to_owned() };
    Some((format!("{what} stays on: {why}"), command))
}

/// How one that is under way stands: between two names of a database, or two files, nobody breaks it off.
fn end_of(pass: &mut Pass<'_>, database: &Database, task: DatabaseTask) -> Option<Progress> {
    let known = pass.status.database.as_ref()?.last(task)?.clone();
    let order = order(pass, database, task, known.started_at).filter(|_| known.outcome == WorkOutcome::Running)?;
    Some(work::drive(pass, order))
}

/// Whether a Job may be ended with the object: one that changes the database comes to its own end, even where its time is over
/// and nobody waits for it any more.
pub fn may_go(pass: &Pass<'_>, job: &Job) -> bool {
    let known = pass.status.database.iter().flat_map(|database| &database.work);
    let changes = known.filter(|work| work.job == job.object.name).any(|work| work::changes(work.task));
    job.end.is_some() || !changes
}

/// Whether nobody knows what became of this release's seed, and no person has said that the database may stay as it is.
pub fn is_seed_unknown(pass: &Pass<'_>) -> bool {
    let unknown = |known: &DatabaseStatus| known.outcome(DatabaseTask::Seed) == Some(WorkOutcome::Unknown);
    pass.status.database.as_ref().is_some_and(|known| unknown(known) && known.schema != SchemaState::Accepted)
}

/// Whether a rehearsal may have been done to the real database, or to its server, and no person has said that it may stay as
/// it is. No record has it: a person finds out.
pub fn is_rehearsal_unknown(pass: &Pass<'_>) -> bool {
    let unknown = |known: &DatabaseStatus| known.outcome(DatabaseTask::Rehearsal) == Some(WorkOutcome::Unknown);
    pass.status.database.as_ref().is_some_and(|known| unknown(known) && known.schema == SchemaState::Unknown)
}

/// A seed under way comes to its known end, as a migration does; of one that nobody knows it is looked for once more when a
/// person has said Retry.
fn finish_seed(pass: &mut Pass<'_>, database: &Database) -> Option<Standing> {
    let known = pass.status.database.as_ref()?;
    let work = known.last(DatabaseTask::Seed)?;
    let since = match work.outcome {
        WorkOutcome::Running => work.started_at,
        WorkOutcome::Unknown => known.asked_again_at?,
        _ => return None,
    };
    let forward = order(pass, database, DatabaseTask::Seed, since)?;
    let base = DatabaseJob { task: None, files: None, ..forward.job.clone() };
    let job = settle_job(pass, &database.seed.as_ref()?.change, DatabaseTask::Seed, base);
    match work::drive(pass, Order { job, ..forward }) {
        Progress::Running => Some(Standing::Waits("the seed is under way".into())),
        Progress::Ended(outcome) => {
            if outcome == WorkOutcome::Done {
                state(pass).seeded_at = Some(pass.now);
            }
            None
        }
    }
}

/// A person has said Retry: what became of the migration is looked for once more.
fn ask_again(pass: &mut Pass<'_>, database: &Database) -> Option<Standing> {
    let since = pass.status.database.as_ref()?.asked_again_at.filter(|_| !is_rehearsal_unknown(pass))?;
    let order = order(pass, database, DatabaseTask::Settlement, since)?;
    match work::drive(pass, order) {
        Progress::Running => Some(Standing::Waits("what became of the migration is looked for".into())),
        Progress::Ended(outcome) => {
            settle(pass, DatabaseTask::Settlement, outcome);
            None
        }
    }
}

/// When the way back began, or a person last said Retry to it.
pub fn ordered_at(pass: &Pass<'_>) -> Option<Timestamp> {
    let begun = pass.status.rollback.as_ref()?.started_at;
    let again = pass.status.database.as_ref().and_then(|known| known.asked_again_at);
    Some(again.map_or(begun, |again| again.max(begun)))
}

/// Since when work on the way back counts: what was done before a person said Retry does; what failed does not.
pub fn since(pass: &Pass<'_>, task: DatabaseTask) -> Option<Timestamp> {
    let known = pass.status.database.as_ref().and_then(|known| known.outcome(task));
    if known == Some(WorkOutcome::Done) {
        return Some(pass.status.rollback.as_ref()?.started_at);
    }
    ordered_at(pass)
}

/// One Job of the way back; none once it is done.
pub fn step(pass: &mut Pass<'_>, database: &Database, task: DatabaseTask) -> Option<Standing> {
    let order = order(pass, database, task, since(pass, task)?)?;
    match work::drive(pass, order) {
        Progress::Running => Some(Standing::Waits(words::subject(task).into())),
        Progress::Ended(WorkOutcome::Done) => None,
        Progress::Ended(outcome) => {
            Some(Standing::Halted { reason: words::failure(task, outcome), message: words::failed(pass, task) })
        }
    }
}

fn migrate_down(pass: &mut Pass<'_>, database: &Database, cleaning: bool) -> Standing {
    if let Some(standing) = down::prepare(pass, database, cleaning) {
        return standing;
    }
    if let Some(standing) = step(pass, database, DatabaseTask::MigrationDown) {
        return standing;
    }
    let verified = database.migration_down.as_ref().is_some_and(|down| down.verify.is_some());
    if verified && let Some(standing) = step(pass, database, DatabaseTask::VerificationDown) {
        return standing;
    }
    undone(pass, BACK[0].2);
    Standing::Clear
}

fn restore(pass: &mut Pass<'_>, database: &Database) -> Standing {
    let Some(known) = &pass.status.database else { return Standing::Clear };
    let backed_up = known.is_backed_up();
    if !backed_up {
        let message = "there is no backup of this release to restore".to_owned();
        return Standing::Halted { reason: "NoBackup", message };
    }
    if !is_restore_approved(pass) {
        return Standing::Asks(ApprovalKind::Restore, words::restore(pass));
    }
    if !switches::close(pass) && !is_at_work(pass) {
        return not_closed(pass);
    }
    for task in [DatabaseTask::BackupBeforeRestore, DatabaseTask::Restore, DatabaseTask::VerificationRestore] {
        if let Some(standing) = step(pass, database, task) {
            return standing;
        }
    }
    undone(pass, BACK[1].2);
    Standing::Clear
}

/// Maintenance mode is not off yet.
fn not_opened(pass: &Pass<'_>) -> Standing {
    let Some(lacks) = switches::lacking(pass) else { return Standing::Waits("maintenance mode is taken off".into()) };
    let message = format!("maintenance mode cannot be taken off: {lacks}; make it, and it goes on by itself");
    Standing::Halted { reason: "ConfigMapMissing", message }
}

/// Maintenance mode is not on yet; it has its time.
fn not_closed(pass: &mut Pass<'_>) -> Standing {
    let known = pass.status.database.as_ref();
    let approved = known.and_then(|known| known.approvals.iter().map(|approval| approval.at).max());
    let begun = pass.status.rollback.as_ref().map(|rollback| rollback.started_at);
    let since = approved.max(known.and_then(|known| known.asked_again_at)).max(begun);
    let deadline = pass.policy().deadline.as_millis().saturating_add(switches::delay(pass).as_millis());
    if since.is_some_and(|since| pass.elapsed(since, Duration::from_millis(deadline))) {
        let lacks = switches::lacking(pass).unwrap_or_else(|| "look at the ConfigMap and the route".into());
        let message =
            format!("maintenance mode does not come on, and without it neither requests nor data go back: {lacks}");
        return Standing::Halted { reason: "MaintenanceNotReached", message };
    }
    Standing::Waits("maintenance mode is put on".into())
}

/// Whether a person has approved that this release's backup takes the database's place.
fn is_restore_approved(pass: &Pass<'_>) -> bool {
    pass.status.database.as_ref().is_some_and(|known| known.is_approved(ApprovalKind::Restore))
}

/// The schema is what it was before: the migration is due again, and so is a seed that this release had put in. It is not in
/// the backup, and with a down migration its tables may be gone.
fn undone(pass: &mut Pass<'_>, what: &str) {
    let state = state(pass);
    let release = state.release;
    state.schema = SchemaState::Undone;
    state.migrations.retain(|known| known.release != release);
    if state.last(DatabaseTask::Seed).is_some() {
        state.seeded_at = None;
    }
    pass.status.note(pass.now, "SchemaUndone", what, None);
}

/// A person says that the database may stay as it is: what has to be done about it was done by hand.
pub fn accept(pass: &mut Pass<'_>, by: &str) -> Option<String> {
    if !is_halted(pass) && awaited(pass).is_none() {
        return None;
    }
    let state = state(pass);
    state.schema = SchemaState::Accepted;
    (state.fix, state.unfit_before) = (None, None);
    pass.status.note(pass.now, "SchemaAccepted", "the database stays as it is", Some(by));
    Some("the database counts as settled; the rollback goes on".into())
}

/// Whether the last pass found that a person has to look at the database.
pub fn is_halted(pass: &Pass<'_>) -> bool {
    concerned(pass)
        && match super::schema(pass) {
            SchemaState::Unknown => true,
            _ if is_seed_unknown(pass) => true,
            _ if onward::is_unfit(pass) => is_told(pass),
            SchemaState::Changed | SchemaState::Partial => {
                pinned(pass).is_some_and(|database| database.on_rollback() != OnRollback::Keep) && is_told(pass)
            }
            _ => false,
        }
}

fn is_told(pass: &Pass<'_>) -> bool {
    pass.release.status.as_ref().is_some_and(|status| status.phase == crate::api::Phase::Halted)
}

/// What the release waits for a person to approve, on its way back.
pub fn awaited(pass: &Pass<'_>) -> Option<ApprovalKind> {
    let database = pinned(pass).filter(|_| concerned(pass) && super::schema(pass).is_changed())?;
    match way(pass, &database) {
        OnRollback::Restore if !is_restore_approved(pass) => Some(ApprovalKind::Restore),
        OnRollback::MigrateDown if down::awaits_approval(pass) => Some(ApprovalKind::MigrateDown),
        _ => None,
    }
}

/// Why the revision that serves cannot be taken back to an earlier one, as far as the database goes.
pub fn hinders(pass: &Pass<'_>, to_release: i64) -> Option<String> {
    let known = pass.status.database.as_ref()?;
    if let Some(release) = known.unfit_before.filter(|release| to_release < *release) {
        return Some(format!(
            "the schema is that of release {release}, which the code before does not fit: release code that fits the schema, or take the schema back by hand first"
        ));
    }
    let later = known.migrations.iter().rev().find(|known| known.release > to_release && !known.compatible)?;
    let ways = steps::spec_on_rollback(pass, later.release);
    match ways {
        Some(OnRollback::MigrateDown | OnRollback::Restore) if later.release == known.release => None,
        _ => Some(format!(
            "the migration of release {} is not declared compatible with the code before (previousRevisionCompatible), and no way back is given for it (onRollback): release code that fits the schema, or take the schema back by hand first",
            later.release
        )),
    }
}
