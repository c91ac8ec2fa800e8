//! The database's work on the way forward: what each step has done, and what its outcome means for the release.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::api::{
    ApprovalKind, Change, Database, DatabaseStatus, DatabaseTask, Duration, MigratedStatus, Migration,
    MigrationApproval, MigrationDownStatus, OnFailure, OnRollback, Proof, ProvenBackup, SchemaState, Timestamp,
    WorkOutcome, database_status::MAX_MIGRATIONS,
};

use super::{
    super::{
        checks::Failure,
        pass::Pass,
        revision,
        task::{BEFORE_DOWN, BEFORE_RESTORE, DatabaseJob, Meant, SqlRun, Task, TaskPod, Try, Wrapped},
    },
    Due, clean_up, down, image, image_from, patience, pinned, preflight, renewal, seed, switches, template,
    work::{self, Order, Progress},
};

/// How long reading a schema may take.
const LOOK: Duration = Duration::from_secs(300);

/// Whether the work of a step is done. What it found stands in the status.
///
/// # Errors
/// It failed, or nobody knows.
pub fn complete(pass: &mut Pass<'_>, task: DatabaseTask) -> Result<bool, Failure> {
    let (Some(database), Some(step)) = (pinned(pass), pass.status.step.clone()) else { return Ok(false) };
    if task == DatabaseTask::Verification && database.verify.is_none() {
        return Ok(true);
    }
    let since = step.started_at;
    let behind = super::needs_maintenance(pass) || super::onward::is_unfit(pass);
    if behind && switches::is_closed(pass) && !stays_closed(pass, task, since)? {
        return Ok(false);
    }
    if task == DatabaseTask::Migration {
        // With maintenance mode it was looked at before that went on.
        if !super::needs_maintenance(pass) && !renewal::is_fresh(pass)? {
            return Ok(false);
        }
        state(pass).schema = SchemaState::Changing;
    }
    // One that comes after a migration has that one's backup.
    let alone = task == DatabaseTask::Seed && !Due::under_way(&pass.status).migration;
    if alone && !work::is_begun(pass, task, since) && !renewal::is_fresh(pass)? {
        return Ok(false);
    }
    let Some(order) = order(pass, &database, task, since) else { return Ok(true) };
    match work::drive(pass, order) {
        Progress::Running => Ok(false),
        Progress::Ended(outcome) => ended(pass, &database, task, outcome),
    }
}

/// Whether the key of maintenance mode is still on. Before a migration has begun it does not begin without.
fn stays_closed(pass: &mut Pass<'_>, task: DatabaseTask, since: Timestamp) -> Result<bool, Failure> {
    let work = pass.status.database.as_ref().and_then(|known| known.last(task));
    if work.is_some_and(|work| work.started_at >= since && work.outcome == WorkOutcome::Done) {
        // Without a candidate it goes off in the last of these steps.
        return Ok(true);
    }
    let held = switches::hold(pass);
    if held || task != DatabaseTask::Migration || super::schema(pass) != SchemaState::Unchanged {
        return Ok(true);
    }
    let limit = pass.policy().deadline.as_millis().saturating_add(switches::delay(pass).as_millis());
    if !pass.elapsed(since, Duration::from_millis(limit)) {
        return Ok(false);
    }
    let message = "somebody takes maintenance mode off, and the migration does not begin without it".to_owned();
    Err(Failure { then: OnFailure::Rollback, reason: "MaintenanceNotReached", message })
}

/// The status of the database.
pub fn state<'a>(pass: &'a mut Pass<'_>) -> &'a mut DatabaseStatus {
    pass.status.database.get_or_insert_default()
}

/// A Job that can reach all that there is.
pub fn plain(database: &Database) -> DatabaseJob {
    let backup = database.backup.as_ref();
    DatabaseJob {
        task: None,
        pod: TaskPod::Own,
        url: database.direct().clone(),
        ca: database.ca_from.clone(),
        scratch: backup.and_then(|backup| backup.scratch_url_from.clone()),
        files: None,
        down_files: None,
        seed_files: None,
        maps: Vec::new(),
        backups: backup.and_then(|backup| backup.persistent_volume_claim.clone()),
        runner: database.runner.clone().unwrap_or_default(),
    }
}

/// What a step's Job is.
pub fn order(pass: &Pass<'_>, database: &Database, task: DatabaseTask, since: Timestamp) -> Option<Order> {
    let backup = database.backup.as_ref();
    let migration = database.migration.as_ref();
    let plain = plain(database);
    let without = DatabaseJob { scratch: None, backups: None, ..plain.clone() };
    let attempt = work::ordered(pass, task, since);
    let (job, timeout) = match task {
        DatabaseTask::Preflight => (preflight::job(pass, database, plain.scratch, without), LOOK),
        DatabaseTask::Backup | DatabaseTask::BackupBeforeRestore | DatabaseTask::BackupBeforeDown => {
            let backup = backup?;
            if let Some(job) = backup.job.clone().filter(|_| task != DatabaseTask::BackupBeforeRestore) {
                (DatabaseJob { pod: TaskPod::User(job), ..without }, backup.timeout)
            } else {
                let name = new_backup(pass, task, since);
                // One that is made on the way back takes nobody's place: least of all that of the one to be restored.
                let retention = Some(&backup.retention).filter(|_| task == DatabaseTask::Backup);
                let known = pass.status.database.as_ref();
                let number = number(pass);
                let task = Task::Backup {
                    name,
                    of: number.split('#').next().unwrap_or_default().to_owned(),
                    release: number.clone(),
                    proof: backup.proof == Proof::Restore,
                    keep: retention.map(|retention| retention.keep),
                    max_age: retention.and_then(|retention| retention.max_age),
                    spared: known.and_then(|known| known.backup.as_ref()).map(|known| known.name.clone()),
                    proven: known.and_then(|known| known.proven.clone()),
                    rehearsed: backup.proof == Proof::Skip && database.rehearsed().is_some(),
                };
                (DatabaseJob { task: Some(task), ..plain }, backup.timeout)
            }
        }
        DatabaseTask::Rehearsal => {
            let (rehearsal, migration) = (database.rehearsed()?, migration?);
            let run = sql_run(pass, &migration.change, &number(pass)).filter(|_| migration.change.sql.is_some());
            let name = made_backup(pass);
            let (verify, timeout) = (database.verify.clone(), rehearsal.timeout);
            let (seed, seed_files) = seed::rehearsed(pass, database);
            let task = Task::Rehearse { name, release: number(pass), sql: run, seed, verify, timeout };
            let job = with_change(pass, &migration.change, task, DatabaseJob { seed_files, ..plain });
            (job, rehearsal.timeout)
        }
        DatabaseTask::Migration => {
            let migration = migration?;
            (
                change_job(pass, &migration.change, "migration", (attempt, migration.idempotent), without),
                migration.change.timeout,
            )
        }
        DatabaseTask::Settlement => {
            let migration = migration?;
            (settle_job(pass, &migration.change, DatabaseTask::Migration, without), migration.change.timeout)
        }
        DatabaseTask::Seed => {
            let seed = database.seed.as_ref()?;
            (change_job(pass, &seed.change, "seed", (attempt, false), without), seed.change.timeout)
        }
        DatabaseTask::PreflightDown => (down::look(pass, database, without)?, LOOK),
        DatabaseTask::MigrationDown => {
            let change = &database.migration_down.as_ref()?.change;
            let job = match sql_run(pass, change, &number(pass)) {
                Some(run) => {
                    let (of, seed) = (run.release.clone(), seed::begun(pass, database));
                    let plan = found_down(pass).map(|found| found.files_hash.clone()).filter(|hash| !hash.is_empty());
                    let task = Task::Down { of, run: SqlRun { plan, ..run }, seed };
                    with_change(pass, change, task, without)
                }
                None => change_job(pass, change, "down", (attempt, false), without),
            };
            (job, change.timeout)
        }
        DatabaseTask::Verification => {
            (DatabaseJob { task: Some(Task::Verify(database.verify.clone()?)), ..without }, LOOK)
        }
        DatabaseTask::VerificationDown => {
            let verify = database.migration_down.as_ref()?.verify.clone()?;
            (DatabaseJob { task: Some(Task::Verify(verify)), ..without }, LOOK)
        }
        DatabaseTask::Restore => {
            let meant = Meant { database: known_database(pass), ..Meant::default() };
            let task = Task::Restore { name: made_backup(pass), suffix: suffix(pass), release: number(pass), meant };
            (DatabaseJob { task: Some(task), ..plain }, patience::of_restore(pass, backup?.timeout))
        }
        DatabaseTask::VerificationRestore => {
            let task = Task::VerifyRestored { name: made_backup(pass), suffix: suffix(pass) };
            (DatabaseJob { task: Some(task), ..plain }, patience::of_restore(pass, backup?.timeout))
        }
        DatabaseTask::CleanUp => clean_up::job(pass, plain),
    };
    Some(Order { task, since, timeout, job, takes: None })
}

/// What the database that was there is called after a restore, behind its name: an object that is made again, or another one
/// with the same database, counts from 1, too.
fn suffix(pass: &Pass<'_>) -> String {
    format!("_before_{}_{}", pass.status.release.as_ref().map_or(0, |release| release.number), object(pass))
}

/// A few letters for the object.
fn object(pass: &Pass<'_>) -> String {
    revision::short(pass.release.metadata.uid.as_deref().unwrap_or_default()).chars().take(5).collect()
}

/// Namespace, name and number of the release, as the ledger has it, and which object it is of: one that is made again under
/// its name counts from 1 again, and is to take back none of the other's files.
pub fn number(pass: &Pass<'_>) -> String {
    let metadata = &pass.release.metadata;
    let number = pass.status.release.as_ref().map_or(0, |release| release.number);
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    format!("{namespace}/{name}#{number}-{}", object(pass))
}

/// The name of the backup that this release has.
fn made_backup(pass: &Pass<'_>) -> String {
    let known = pass.status.database.as_ref().and_then(|known| known.backup.as_ref());
    known.map(|backup| backup.name.clone()).unwrap_or_default()
}

/// The name of one that is made in a step of this release: no other object's, whatever claim they share, and one that is
/// made anew has another one than the one before it.
pub fn new_backup(pass: &Pass<'_>, task: DatabaseTask, since: Timestamp) -> String {
    let metadata = &pass.release.metadata;
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let release = pass.status.release.as_ref();
    let number = release.map_or(0, |release| release.number);
    let again = task == DatabaseTask::Backup && renewal::is_later(pass);
    let down = pass.status.rollback.as_ref().filter(|_| task == DatabaseTask::BackupBeforeDown);
    let began = if again { Some(since) } else { release.map(|release| release.started_at) };
    let began = down.map(|rollback| rollback.started_at).or(began);
    let began = began.map(|began| began.to_string()).unwrap_or_default();
    let began: String = began.chars().filter(|letter| letter.is_ascii_alphanumeric()).take(15).collect();
    let suffix = match task {
        DatabaseTask::BackupBeforeRestore => BEFORE_RESTORE,
        DatabaseTask::BackupBeforeDown => BEFORE_DOWN,
        _ => "",
    };
    format!("{namespace}.{name}-{number}-{began}{suffix}")
}

/// How the SQL files of a change are run, if it is made by files.
pub fn sql_run(pass: &Pass<'_>, change: &Change, release: &str) -> Option<SqlRun> {
    let sql = change.sql.as_ref()?;
    let meant = pass.status.database.as_ref().map(|database| database.files_hash.clone());
    Some(SqlRun {
        set: sql.set.clone(),
        release: release.to_owned(),
        lock_timeout: change.lock_timeout,
        timeout: change.timeout,
        plan: meant.filter(|hash| !hash.is_empty()),
        meant: Meant { database: known_database(pass), ..Meant::default() },
        which: None,
    })
}

/// A Job that makes a change: with SQL files the runner itself, else the user's pod, wrapped.
fn change_job(
    pass: &Pass<'_>,
    change: &Change,
    what: &str,
    (attempt, again): (i32, bool),
    base: DatabaseJob,
) -> DatabaseJob {
    let task = match sql_run(pass, change, &number(pass)) {
        Some(run) => {
            let plan = match what {
                "migration" => run.plan,
                "seed" => seed::files_hash(pass),
                _ => None,
            };
            let which = Some(Try { of: what.to_owned(), number: attempt });
            Task::Migrate(SqlRun { plan, which, ..run })
        }
        None => {
            let wrapped = wrapped(pass, change, what, attempt, again);
            Task::Wrap(if what == "seed" { seed::meant(pass, change, wrapped) } else { wrapped })
        }
    };
    with_change(pass, change, task, base)
}

/// A Job that finds out what became of a change, of a seed or of a migration, and bars the tries that were ordered until now.
pub fn settle_job(pass: &Pass<'_>, change: &Change, of: DatabaseTask, base: DatabaseJob) -> DatabaseJob {
    let what = if of == DatabaseTask::Seed { "seed" } else { "migration" };
    let last = work::last_ordered(pass, of);
    let task = match sql_run(pass, change, &number(pass)) {
        Some(run) => Task::SettleSql(SqlRun { which: Some(Try { of: what.to_owned(), number: last }), ..run }),
        None => Task::Settle(wrapped(pass, change, what, last, false)),
    };
    let files = change.sql.as_ref().map(|sql| sql.config_map.clone());
    DatabaseJob { task: Some(task), pod: TaskPod::Own, files, ..base }
}

fn wrapped(pass: &Pass<'_>, change: &Change, what: &str, attempt: i32, again: bool) -> Wrapped {
    // A seed is one for all releases; the others are of one attempt at a release each.
    let plan = match what {
        "seed" => seed::plan(pass),
        "down" => Wrapped::down(&command_hash(pass, change), &number(pass)),
        _ => Wrapped::migration(&command_hash(pass, change), &number(pass)),
    };
    let (lock_timeout, timeout) = (change.lock_timeout, change.timeout);
    let found = match what {
        "migration" => pass.status.database.as_ref().map(|known| known.files_hash.clone()),
        "down" => found_down(pass).map(|found| found.files_hash.clone()),
        _ => None,
    };
    let watched = found.as_ref().map(|_| watched(change)).unwrap_or_default();
    let files = found.filter(|_| !watched.is_empty()).unwrap_or_default();
    let meant = Meant { database: known_database(pass), watched, files };
    let seed = pinned(pass).filter(|_| what == "down").and_then(|database| seed::begun(pass, &database));
    Wrapped { plan, release: number(pass), attempt, again, meant, lock_timeout, timeout, seed }
}

/// What was found of what takes the migration back.
fn found_down<'a>(pass: &'a Pass<'_>) -> Option<&'a MigrationDownStatus> {
    pass.status.database.as_ref()?.migration_down.as_ref()
}

/// The database that preflight looked at.
pub fn known_database(pass: &Pass<'_>) -> String {
    pass.status.database.as_ref().map(|known| known.database.clone()).unwrap_or_default()
}

/// Where ConfigMaps are mounted in the first container of a change's pod.
pub fn watched(change: &Change) -> Vec<String> {
    change.mounted().into_iter().map(|maps| maps.path.to_owned()).collect()
}

/// The pod and the files of a change.
pub fn with_change(pass: &Pass<'_>, change: &Change, task: Task, base: DatabaseJob) -> DatabaseJob {
    let files = change.sql.as_ref().map(|sql| sql.config_map.clone());
    let pod = match &change.template {
        Some(pod) => {
            let image = image_from(change, template(pass).as_ref());
            let known = pass.status.database.as_ref().map(|known| known.image.as_str());
            let reported = match &task {
                Task::Wrap(wrapped) if wrapped.migrates() => known,
                Task::Wrap(wrapped) if wrapped.takes_back() => found_down(pass).map(|found| found.image.as_str()),
                Task::Rehearse { .. } => known,
                _ => None,
            };
            let digest = reported.and_then(|reported| image::by_digest(change, image.as_deref(), reported));
            TaskPod::Wrapped { template: pod.clone(), image: digest.or(image) }
        }
        None => TaskPod::Own,
    };
    DatabaseJob { task: Some(task), pod, files, ..base }
}

/// The migration, as a hash: image, command, files, target (RELIABILITY, migration rule 4), with what preflight found of them.
pub fn plan_hash(pass: &Pass<'_>, change: &Change) -> String {
    let found = pass.status.database.as_ref();
    let image = image_from(change, template(pass).as_ref());
    let url = pinned(pass).map(|database| database.url_from);
    let Change { sql, template, version, image_from: _, timeout: _, lock_timeout: _ } = change;
    hashed(&serde_json::json!({
        "sql": sql, "template": template, "version": version, "image": image, "url": url,
        "files": found.map(|known| &known.files_hash), "digest": found.map(|known| &known.image),
        "database": found.map(|known| &known.database),
    }))
}

/// A command that changes the database, as a hash: the same of whichever release, and by whichever Secret and host name the
/// database is reached. Where nobody knows yet which image it is, it is another one in each release.
fn command_hash(pass: &Pass<'_>, change: &Change) -> String {
    let found = pass.status.database.as_ref();
    let image = image_from(change, template(pass).as_ref());
    let digest = found.map(|known| image::digest(&known.image).to_owned()).filter(|image| !image.is_empty());
    hashed(&serde_json::json!({
        "template": change.template, "version": change.version, "image": image, "database": known_database(pass),
        "files": found.map(|known| &known.files_hash), "digest": digest.unwrap_or_else(|| number(pass)),
    }))
}

/// All that is run on the way forward, as a hash: the migration, and the seed where that is due. The ledger has neither by it.
fn whole_plan(pass: &Pass<'_>, database: &Database) -> String {
    let migration = database.migration.as_ref().map(|migration| plan_hash(pass, &migration.change));
    let Some(seed) = seed::planned(pass, database) else { return migration.unwrap_or_default() };
    let target = known_database(pass);
    hashed(&serde_json::json!({"migration": migration, "seed": seed, "url": database.url_from, "database": target}))
}

/// What a plan is, as a hash.
pub fn hashed(plan: &Value) -> String {
    let digest = Sha256::digest(plan.to_string());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What the end of a step's work means.
pub fn ended(
    pass: &mut Pass<'_>,
    database: &Database,
    task: DatabaseTask,
    outcome: WorkOutcome,
) -> Result<bool, Failure> {
    settle(pass, task, outcome);
    if outcome == WorkOutcome::Done {
        done(pass, database, task);
        return Ok(true);
    }
    let message = pass.status.database.as_ref().and_then(|known| known.last(task)).map(|work| work.message.clone());
    let message = format!("{}: {}", super::words::subject(task), message.unwrap_or_default());
    // What nobody knows is never held for somebody to pass over.
    Err(Failure { then: OnFailure::Rollback, reason: super::words::failure(task, outcome), message })
}

/// What has become of the schema.
pub fn settle(pass: &mut Pass<'_>, task: DatabaseTask, outcome: WorkOutcome) {
    let sql =
        pinned(pass).and_then(|database| database.migration).is_some_and(|migration| migration.change.sql.is_some());
    let state = state(pass);
    if (task, outcome) == (DatabaseTask::Rehearsal, WorkOutcome::Unknown) {
        // It may have been done to the real database (INVARIANTS D4).
        state.schema = SchemaState::Unknown;
        return;
    }
    if state.schema != SchemaState::Changing && state.schema != SchemaState::Unknown {
        return;
    }
    if !matches!(task, DatabaseTask::Migration | DatabaseTask::Settlement) {
        return;
    }
    // An earlier attempt may have done something where a later one did not begin.
    let first = state.last(task).is_none_or(|work| work.attempt <= 1);
    let idle = first && state.last(task).is_some_and(|work| work.unchanged);
    state.schema = match outcome {
        WorkOutcome::Running => SchemaState::Changing,
        // All of it was there: whoever else has changed a shared schema, this release takes nothing back.
        WorkOutcome::Done if idle || (sql && state.applied.is_empty()) => SchemaState::Unchanged,
        WorkOutcome::Done => SchemaState::Changed,
        WorkOutcome::Unknown => SchemaState::Unknown,
        WorkOutcome::NotBegun if first || task == DatabaseTask::Settlement => SchemaState::Unchanged,
        WorkOutcome::NotBegun => SchemaState::Unknown,
        WorkOutcome::Failed if sql && state.applied.is_empty() && !state.partly => SchemaState::Unchanged,
        WorkOutcome::Failed => SchemaState::Partial,
    };
}

/// Notes what was done.
fn done(pass: &mut Pass<'_>, database: &Database, task: DatabaseTask) {
    let now = pass.now;
    match task {
        DatabaseTask::Preflight => {
            state(pass).plan_hash = whole_plan(pass, database);
            down::expect(pass, database);
        }
        // Of a Job of the user's nobody says when.
        DatabaseTask::Backup => {
            let work = state(pass).last(task).cloned();
            if let (Some(backup), Some(work)) = (&mut state(pass).backup, work) {
                backup.started_at = backup.started_at.or(Some(work.started_at));
                backup.ended_at = backup.ended_at.or(work.ended_at);
            }
            proven(state(pass));
        }
        // It restored the backup, and counted its rows.
        DatabaseTask::Rehearsal => {
            if let Some(backup) = &mut state(pass).backup {
                backup.proven_at.get_or_insert(now);
                backup.not_proven.clear();
            }
            proven(state(pass));
        }
        DatabaseTask::Seed => state(pass).seeded_at = Some(now),
        _ => {}
    }
    let last = if database.verify.is_some() { DatabaseTask::Verification } else { DatabaseTask::Migration };
    if task == last && state(pass).outcome(DatabaseTask::Migration) == Some(WorkOutcome::Done) {
        migrated(pass, database.migration.as_ref());
    }
}

/// The release's backup is the last that was restored, if it was: also in releases after it, and once it is made anew.
fn proven(state: &mut DatabaseStatus) {
    let backup = state.backup.as_ref().and_then(|backup| Some((backup.name.clone(), backup.proven_at?)));
    state.proven = backup.map(|(name, at)| ProvenBackup { name, at }).or_else(|| state.proven.take());
}

/// The migration of this release is one that ended well.
fn migrated(pass: &mut Pass<'_>, migration: Option<&Migration>) {
    let Some(release) = pass.status.release.clone() else { return };
    let (Some(identity), Some(migration)) = (release.migration, migration) else { return };
    let (now, unfit) = (pass.now, super::onward::is_unfit(pass));
    let state = state(pass);
    let (plan_hash, files_hash) = (state.plan_hash.clone(), state.files_hash.clone());
    // The code before has run on a schema that was there already.
    let compatible = migration.previous_revision_compatible || (state.schema == SchemaState::Unchanged && !unfit);
    state.migrations.retain(|known| known.migration != identity);
    state.migrations.push(MigratedStatus {
        migration: identity,
        plan_hash,
        files_hash,
        release: release.number,
        compatible,
        at: now,
    });
    let excess = state.migrations.len().saturating_sub(MAX_MIGRATIONS);
    state.migrations.drain(..excess);
}

/// Whether a person has to approve the plan that is about to be run.
pub fn awaits_approval(pass: &Pass<'_>) -> bool {
    let (Some(database), Some(known)) = (pinned(pass), &pass.status.database) else { return false };
    let asks = |migration: &Migration| match migration.approval(database.rehearsed().is_some()) {
        MigrationApproval::Never => false,
        MigrationApproval::Required => true,
        MigrationApproval::WhenDataLoss => known.loses_data,
    };
    let migration = database.migration.as_ref().filter(|_| Due::under_way(&pass.status).migration);
    (migration.is_some_and(asks) || seed::asks(pass, &database)) && !known.is_approved(ApprovalKind::Migration)
}

/// What becomes of the schema of a release that is promoted, when it is taken back: as its own plan says, if that is still
/// known.
pub fn spec_on_rollback(pass: &Pass<'_>, release: i64) -> Option<OnRollback> {
    let plan = pass.plan(release).map(|plan| &plan.spec);
    let spec = plan.unwrap_or(&pass.release.spec);
    spec.database.as_ref().map(Database::on_rollback)
}
