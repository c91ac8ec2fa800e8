//! One Job of the database's work: it is on record before it is made, made again where it is not there, and what it
//! reports is taken in.

use crate::api::{
    DatabaseStatus, DatabaseTask, DatabaseWork, Duration, MigrationDownStatus, SeedStatus, Timestamp, WorkOutcome,
    database_status::{MAX_FINDINGS, MAX_WORK},
    status::bounded,
};

use super::{
    super::{
        effect::{Effect, Event, NewJob, Run},
        observed::Job,
        pass::Pass,
        retreat, revision, runs,
        task::{DatabaseJob, Report, Task, TaskPod},
    },
    again, clean_up, image, lacking, pinned, reported,
};

/// How long a pod may take to start.
const START: Duration = Duration::from_secs(120);
/// How long what changes the database may take before it is said where to look.
const LONG: Duration = Duration::from_secs(20);
/// How often a Job that ends without a report is followed by another.
const MOST_LOST: i64 = 4;
/// The longest message, in characters.
const MOST_TOLD: usize = 320;
/// The longest statement that settles what nobody knows, in characters; by the names in it none is as long.
const MOST_SETTLE: usize = 512;
/// How much of what a migration tool has on record as not finished is kept, and the longest of it, in characters.
const MAX_HALF_WAY: usize = 4;
const MOST_HALF_WAY: usize = 256;
/// The longest name of an image, in characters.
const MOST_IMAGE: usize = 512;
/// The longest note of an Event, in characters.
const MOST_NOTE: usize = 800;
/// What of the release's name stands in a Job's.
const MOST_NAME: usize = 30;

/// What is to be done.
pub struct Order {
    /// Which kind of work.
    pub task: DatabaseTask,
    /// What was done before does not count.
    pub since: Timestamp,
    /// How long it may take.
    pub timeout: Duration,
    /// The Job.
    pub job: DatabaseJob,
    /// The name of a Job that is not to be made any more: this one takes it.
    pub takes: Option<String>,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Running,
    /// It has ended, in this pass or before.
    Ended(WorkOutcome),
}

/// Whether a task changes something that garbage collection must not break off.
pub const fn changes(task: DatabaseTask) -> bool {
    matches!(
        task,
        DatabaseTask::Migration
            | DatabaseTask::Seed
            | DatabaseTask::Settlement
            | DatabaseTask::MigrationDown
            | DatabaseTask::Restore
    )
}

/// Whether a task goes on whatever becomes of the object: what it leaves would stay.
const fn outlives(task: DatabaseTask) -> bool {
    changes(task) || matches!(task, DatabaseTask::CleanUp)
}

/// Whether a Job makes what may be left: a scratch database, or the file of a backup.
const fn leaves(job: &DatabaseJob) -> bool {
    matches!(job.task, Some(Task::Backup { .. } | Task::Rehearse { .. }))
}

/// In a Job's name.
const fn word(task: DatabaseTask) -> &'static str {
    match task {
        DatabaseTask::Preflight => "preflight",
        DatabaseTask::Backup => "backup",
        DatabaseTask::Rehearsal => "rehearsal",
        DatabaseTask::Migration => "migration",
        DatabaseTask::Settlement => "settlement",
        DatabaseTask::Seed => "seed",
        DatabaseTask::Verification => "verify",
        DatabaseTask::PreflightDown => "look-down",
        DatabaseTask::BackupBeforeDown => "backup-down",
        DatabaseTask::MigrationDown => "down",
        DatabaseTask::VerificationDown => "verify-down",
        DatabaseTask::BackupBeforeRestore => "backup-now",
        DatabaseTask::Restore => "restore",
        DatabaseTask::VerificationRestore => "verify-back",
        DatabaseTask::CleanUp => "clean-up",
    }
}

/// The name of the Job of an attempt.
fn name(pass: &Pass<'_>, task: DatabaseTask, attempt: i32, started_at: Timestamp) -> String {
    let metadata = &pass.release.metadata;
    let release = metadata.name.as_deref().unwrap_or_default();
    let number = pass.status.release.as_ref().map_or(0, |release| release.number);
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let word = word(task);
    let id = format!("database/{word}/{uid}/{number}/{attempt}/{}", started_at.as_millis());
    let release = release[..release.floor_char_boundary(MOST_NAME)].trim_end_matches(['-', '.']).replace('.', "-");
    format!("{release}-{word}-{}", revision::short(&id))
}

/// Whether a Job belongs to the database's work that is on record.
pub fn is_of_database(pass: &Pass<'_>, job: &Job) -> bool {
    let work = pass.status.database.iter().flat_map(|database| &database.work);
    work.into_iter().any(|work| work.job == job.object.name)
}

/// The work as it stands since a moment, or a new beginning.
fn begun(pass: &Pass<'_>, order: &Order) -> DatabaseWork {
    let known = pass.status.database.as_ref().and_then(|database| database.last(order.task));
    known.filter(|known| known.started_at >= order.since).cloned().unwrap_or_else(|| {
        let attempt = attempt(pass, order.task, order.since);
        DatabaseWork {
            task: order.task,
            outcome: WorkOutcome::Running,
            attempt,
            lost: 0,
            job: order.takes.clone().unwrap_or_else(|| name(pass, order.task, attempt, pass.now)),
            ran: false,
            started_at: pass.now,
            ended_at: None,
            unchanged: false,
            message: String::new(),
        }
    })
}

/// Whether work of a kind was begun since a moment.
pub fn is_begun(pass: &Pass<'_>, task: DatabaseTask, since: Timestamp) -> bool {
    let known = pass.status.database.as_ref().and_then(|database| database.last(task));
    known.is_some_and(|known| known.started_at >= since)
}

/// Which Job of its kind in the release is the one under way, or the one that is to be made.
fn attempt(pass: &Pass<'_>, task: DatabaseTask, since: Timestamp) -> i32 {
    let known = pass.status.database.as_ref().and_then(|database| database.last(task));
    known.map_or(1, |known| known.attempt + i32::from(known.started_at < since))
}

/// Which try of its kind in the release is the one under way, or the one that is to be made. A try is what the release, or a
/// person by Retry, has ordered; it has the number of its first Job. Those that follow lost ones are of the same try: what
/// is on record as failed is not run again because nobody heard of it.
pub fn ordered(pass: &Pass<'_>, task: DatabaseTask, since: Timestamp) -> i32 {
    let known = pass.status.database.as_ref().and_then(|database| database.last(task));
    known.map_or(1, |known| if known.started_at < since { known.attempt + 1 } else { first_job(known) })
}

/// The last try of its kind in the release.
pub fn last_ordered(pass: &Pass<'_>, task: DatabaseTask) -> i32 {
    let known = pass.status.database.as_ref().and_then(|database| database.last(task));
    known.map_or(1, first_job)
}

fn first_job(work: &DatabaseWork) -> i32 {
    work.attempt - i32::try_from(work.lost).unwrap_or(0)
}

/// Has it done, and takes in what came of it.
pub fn drive(pass: &mut Pass<'_>, order: Order) -> Progress {
    let mut work = begun(pass, &order);
    if work.outcome != WorkOutcome::Running {
        return Progress::Ended(work.outcome);
    }
    let attempt = work.attempt;
    listen(pass, &order, &mut work);
    if work.outcome == WorkOutcome::Running {
        overdue(pass, &order, &mut work);
    }
    let outcome = work.outcome;
    // What follows a lost one is ordered anew, by its number.
    if outcome == WorkOutcome::Running && work.attempt == attempt {
        make(pass, &order, &mut work);
    }
    record(pass, work);
    if outcome == WorkOutcome::Running { Progress::Running } else { Progress::Ended(outcome) }
}

/// Takes in how its Job ended, if it has.
fn listen(pass: &mut Pass<'_>, order: &Order, work: &mut DatabaseWork) {
    let Some(job) = pass.seen.jobs.iter().find(|job| job.object.name == work.job) else {
        if let Some(denial) = runs::denied(pass, &work.job) {
            work.message = bounded(&denial.text, MOST_TOLD);
            if denial.definite {
                (work.outcome, work.ended_at) = (WorkOutcome::NotBegun, Some(pass.now));
            }
        }
        return;
    };
    let Some(end) = &job.end else {
        if job.pod.is_past() {
            return;
        }
        let waits = runs::waits_for(pass, job, work.started_at);
        let log = changes(order.task) && pass.elapsed(work.started_at, LONG);
        let log = if log {
            format!(": what it waits for is in its log, kubectl logs job/{}", work.job)
        } else {
            String::new()
        };
        work.ran |= waits.is_none();
        let told = waits.map(|why| format!("Job {} waits: {why}", work.job));
        work.message = bounded(&told.unwrap_or_else(|| format!("Job {} runs{log}", work.job)), MOST_TOLD);
        return;
    };
    let report = match order.job.task {
        Some(_) => end.report.as_ref().and_then(|text| serde_json::from_str::<Report>(text).ok()),
        // A pod of the user's: its exit code, and what it says.
        None => match runs::success(pass, job, end) {
            None => return,
            Some(false) if end.succeeded => {
                Some(Report { outcome: WorkOutcome::Failed, message: runs::TAKEN_AWAY.into(), ..Report::default() })
            }
            Some(_) => Some(reported::of(end)),
        },
    };
    work.ended_at = Some(end.at.max(work.started_at).min(pass.now));
    match report.filter(|report| report.outcome != WorkOutcome::Running) {
        // Not done: the next one tries it again, while there is time.
        Some(report) if report.left && order.task == DatabaseTask::CleanUp => {
            without_report(pass, order, work, &report.message);
        }
        Some(report) => {
            // The Job whose name a clean-up takes may have come first, and have ended well or badly: nothing is left of it.
            let clean = order.task == DatabaseTask::CleanUp;
            work.outcome = match report.outcome {
                _ if clean => WorkOutcome::Done,
                // It did not come to read what the one before it has done.
                WorkOutcome::NotBegun if report.unread && work.lost > 0 && changes(order.task) => WorkOutcome::Unknown,
                outcome => outcome,
            };
            work.unchanged = report.unchanged;
            if (clean || leaves(&order.job)) && !report.left {
                pass.status.database.get_or_insert_default().scratch_since = None;
            }
            let told = pinned(pass).map(|database| lacking::told(pass, &database, &order.job, &report.message));
            work.message = bounded(told.as_ref().unwrap_or(&report.message), MOST_TOLD);
            let report = with_what_was_read(pass, order, report);
            take_in(pass, order.task, report);
            let image = end.image.as_deref().filter(|_| matches!(order.job.pod, TaskPod::Wrapped { .. }));
            let image = bounded(image.unwrap_or_default(), MOST_IMAGE);
            let known = pass.status.database.get_or_insert_default();
            match (order.task, &mut known.migration_down) {
                (DatabaseTask::Preflight, _) => known.image = image,
                (DatabaseTask::PreflightDown, Some(down)) => down.image = image,
                _ => compare(pass, order, &work.job, &image),
            }
        }
        None => without_report(pass, order, work, &end.message),
    }
}

/// Tells where another image ran than the one that was looked at, and that a person approved: where nothing pins it, its tag
/// may have been moved in between.
fn compare(pass: &mut Pass<'_>, order: &Order, job: &str, ran: &str) {
    let known = pass.status.database.as_ref();
    let meant = match order.task {
        DatabaseTask::Rehearsal | DatabaseTask::Migration => known.map(|known| &known.image),
        DatabaseTask::MigrationDown => known.and_then(|known| known.migration_down.as_ref()).map(|down| &down.image),
        _ => None,
    };
    let pinned = matches!(&order.job.pod, TaskPod::Wrapped { image: Some(image), .. } if image.contains('@'));
    let Some(meant) = meant.filter(|meant| !pinned && image::differ(meant, ran)) else { return };
    let subject = super::words::subject(order.task);
    let told =
        |ran: &str, meant: &str| format!("{subject} ran image {ran}, but {meant} was looked at: its tag was moved");
    // The timeline has no room for names.
    let brief = told(image::digest(ran), image::digest(meant));
    let note = bounded(&format!("Job {job}: {}", told(ran, meant)), MOST_NOTE);
    pass.status.note(pass.now, "ImageChanged", &brief, None);
    let (reason, action) = ("ImageChanged".to_owned(), format!("{:?}", order.task));
    pass.events.push(Event { warning: true, reason, action, note });
}

/// A pod that was killed, evicted or never there: whoever comes next finds out, under the lock, what became of it.
fn without_report(pass: &mut Pass<'_>, order: &Order, work: &mut DatabaseWork, why: &str) {
    let waited = work.message.strip_prefix(&format!("Job {} waits: ", work.job)).map(str::to_owned);
    let lacks = waited.as_ref().and_then(|words| lacking::find(pass, &pinned(pass)?, words));
    if let Some(lacks) = lacks.filter(|_| !outlives(order.task)) {
        // Its pod never ran, and the next one would not either.
        work.outcome = WorkOutcome::NotBegun;
        work.message = bounded(&lacks.message, MOST_TOLD);
        return;
    }
    if waited.as_deref() == Some(runs::NO_POD) && !outlives(order.task) {
        // Nor would the next one have one.
        (work.outcome, work.message) = (WorkOutcome::NotBegun, format!("Job {}: {}", work.job, runs::NO_POD));
        return;
    }
    let waited = waited.map(|words| format!("; its pod waited: {}", bounded(&words, 120))).unwrap_or_default();
    let note = format!("Job {} ended without a report: {}{waited}", work.job, bounded(why, 160));
    if work.lost >= MOST_LOST {
        work.outcome = if changes(order.task) { WorkOutcome::Unknown } else { WorkOutcome::Failed };
        work.message = bounded(&format!("{note}, like the {} before it", work.lost), MOST_TOLD);
        return;
    }
    pass.status.note(pass.now, "JobLost", &note, None);
    work.attempt += 1;
    work.lost += 1;
    work.job = name(pass, order.task, work.attempt, work.started_at);
    (work.ran, work.ended_at) = (false, None);
    work.message = note;
}

/// What comes to no end: a changing task has an unknown outcome then.
fn overdue(pass: &mut Pass<'_>, order: &Order, work: &mut DatabaseWork) {
    let attempts = u64::try_from(work.lost).unwrap_or(0) + 1;
    // Its Job is ended before that: what is given up on here does not begin afterwards.
    let longest = order.timeout.as_millis().saturating_add(START.as_millis());
    let each = longest.saturating_add(pass.policy().deadline.as_millis());
    let limit = match order.task {
        DatabaseTask::CleanUp => clean_up::LIMIT,
        _ => Duration::from_millis(each.saturating_mul(attempts)),
    };
    if !pass.elapsed(work.started_at, limit) {
        return;
    }
    work.outcome = if changes(order.task) { WorkOutcome::Unknown } else { WorkOutcome::Failed };
    work.ended_at = Some(pass.now);
    work.message = bounded(&format!("came to no end within {limit}; {}", work.message), MOST_TOLD);
}

/// Has its Job made, unless it is there.
fn make(pass: &mut Pass<'_>, order: &Order, work: &mut DatabaseWork) {
    if leaves(&order.job) {
        pass.status.database.get_or_insert_default().scratch_since = Some(work.started_at);
    }
    if pass.seen.jobs.iter().any(|job| job.object.name == work.job && !job.deleting) {
        return;
    }
    let timeout = Duration::from_millis(order.timeout.as_millis().saturating_add(START.as_millis()));
    let run = Run::Database(Box::new(order.job.clone()));
    let new = runs::new_job(pass, work.job.clone(), run, timeout);
    // Of an object that goes, garbage collection takes what it owns.
    let owned = !outlives(order.task) && pass.release.metadata.deletion_timestamp.is_none();
    pass.after.push(Effect::CreateJob(Box::new(NewJob { owned, ..new })));
    if work.message.is_empty() {
        work.message = format!("Job {} is made", work.job);
    }
    let seen = pass.seen.jobs.iter().any(|job| job.object.name == work.job);
    let begins = matches!(order.job.task, Some(Task::Migrate(_) | Task::Wrap(_)));
    if begins && work.ran && !seen {
        // Somebody deleted it: what it has done the next one has to find out, as with any that is lost.
        (work.attempt, work.lost, work.ran) = (work.attempt + 1, work.lost + 1, false);
        work.message = format!("Job {} was deleted by somebody, and is made again", work.job);
    }
}

fn record(pass: &mut Pass<'_>, work: DatabaseWork) {
    if matches!(work.outcome, WorkOutcome::Failed | WorkOutcome::Unknown | WorkOutcome::NotBegun) {
        let note = format!("{:?} of the database, Job {}: {}", work.task, work.job, work.message);
        let reason = format!("Database{:?}", work.outcome);
        pass.events.push(Event { warning: true, reason, action: format!("{:?}", work.task), note });
    }
    let database = pass.status.database.get_or_insert_default();
    match database.work.iter_mut().find(|known| known.task == work.task) {
        Some(known) => *known = work,
        None => database.work.push(work),
    }
    let excess = database.work.len().saturating_sub(MAX_WORK);
    database.work.drain(..excess);
}

/// What the rehearsal of a pod found, with what preflight read in the files that it mounts: of their statements it knows nothing.
fn with_what_was_read(pass: &Pass<'_>, order: &Order, mut report: Report) -> Report {
    if matches!(&order.job.task, Some(Task::Rehearse { sql: None, .. })) {
        let read = pass.status.database.iter().flat_map(|known| &known.risks);
        let read: Vec<String> = read.filter(|risk| !report.risks.contains(risk)).cloned().collect();
        report.risks.extend(read);
    }
    report
}

/// What was found stands in the status, bounded.
fn take_in(pass: &mut Pass<'_>, task: DatabaseTask, report: Report) {
    let database: &mut DatabaseStatus = pass.status.database.get_or_insert_default();
    let list = |all: Vec<String>, most: usize| -> Vec<String> {
        all.into_iter().take(MAX_FINDINGS).map(|it| bounded(&it, most)).collect()
    };
    let migrates = matches!(task, DatabaseTask::Migration | DatabaseTask::Settlement);
    if changes(task) || task == DatabaseTask::PreflightDown {
        database.settle = bounded(&report.settle, MOST_SETTLE);
        database.invalid_indexes = list(report.invalid_indexes, 160);
    }
    match task {
        DatabaseTask::Preflight => {
            database.database = bounded(&report.database, 128);
            database.files_hash = bounded(&report.files_hash, 64);
            database.pending = list(report.pending, 128);
            (database.risks, database.loses_data) = (list(report.risks, 160), report.loses_data);
            let (files_hash, risks) = (bounded(&report.seed_hash, 64), list(report.seed_risks, 160));
            let found = SeedStatus { files_hash, risks, loses_data: report.seed_loses_data };
            database.seed = Some(found).filter(|found| !found.files_hash.is_empty());
            let (risks, loses_data) = (list(report.down_risks, 160), report.down_loses_data);
            let found = MigrationDownStatus { risks, loses_data, ..Default::default() };
            database.migration_down = Some(found).filter(|found| !found.risks.is_empty());
        }
        DatabaseTask::PreflightDown if report.outcome == WorkOutcome::Done => {
            let found = MigrationDownStatus {
                files_hash: bounded(&report.files_hash, 64),
                files: list(report.pending, 128),
                risks: list(report.risks, 160),
                loses_data: report.loses_data,
                ..Default::default()
            };
            database.migration_down = Some(found);
            return;
        }
        // Of files it knows all that preflight did, and better what only refuses rows.
        DatabaseTask::Rehearsal if report.outcome == WorkOutcome::Done || !report.risks.is_empty() => {
            database.risks = list(report.risks, 160);
            database.loses_data |= report.loses_data;
        }
        _ => {}
    }
    if !report.server_version.is_empty() {
        database.server_version = bounded(&report.server_version, 64);
        // Of a backup's size the database's is not known.
        database.size_bytes = if report.size_bytes > 0 { report.size_bytes } else { database.size_bytes };
    }
    if migrates {
        database.half_way = report.half_way.iter().take(MAX_HALF_WAY).map(|it| bounded(it, MOST_HALF_WAY)).collect();
    }
    // What a rehearsal applied is in no database any more, and a seed is no part of the schema.
    database.partly |= migrates && report.partly;
    if migrates && !report.applied.is_empty() {
        database.applied = list(report.applied, 128);
    }
    if let Some(mut rehearsal) = report.rehearsal {
        rehearsal.locks = list(rehearsal.locks, 128);
        rehearsal.rewritten = list(rehearsal.rewritten, 128);
        database.rehearsal = Some(rehearsal);
    }
    if let Some(mut backup) = report.backup {
        backup.name = bounded(&backup.name, 256);
        backup.sha256 = bounded(&backup.sha256, 64);
        // A Job of the user's does not say it: preflight has asked the server.
        if backup.server_version.is_empty() {
            backup.server_version.clone_from(&database.server_version);
        }
        backup.server_version = bounded(&backup.server_version, 64);
        backup.not_proven = match backup.proven_at {
            Some(_) => String::new(),
            None if backup.not_proven.is_empty() => reported::SKIPPED.into(),
            None => bounded(&backup.not_proven, 256),
        };
        match task {
            DatabaseTask::Backup => database.backup = Some(backup),
            _ => database.set_aside = Some(backup),
        }
    }
}

/// A release is over: what only read, and was broken off, does not stay on record as under way.
pub fn end_open_work(pass: &mut Pass<'_>) {
    let now = pass.now;
    let work = pass.status.database.iter_mut().flat_map(|database| &mut database.work);
    for work in work.filter(|work| work.outcome == WorkOutcome::Running && !changes(work.task)) {
        (work.outcome, work.ended_at) = (WorkOutcome::NotBegun, Some(now));
        work.message = "broken off: the release was taken back".into();
    }
}

/// Whether a Job that is on record is one that only reads, while nobody waits for it any more: it was given up on, or the
/// release is on its way back, or over.
pub fn is_broken_off(pass: &Pass<'_>, job: &Job) -> bool {
    let work = pass.status.database.iter().flat_map(|database| &database.work);
    let of_job = work.filter(|work| work.job == job.object.name && !changes(work.task));
    // A clean-up may have the name of the one that it clears up behind.
    let known = of_job.max_by_key(|work| (work.task == DatabaseTask::CleanUp, work.started_at));
    let back = retreat::under_way(pass) || !pass.is_under_way();
    known.is_some_and(|work| {
        let of_way_back = matches!(
            work.task,
            DatabaseTask::PreflightDown
                | DatabaseTask::BackupBeforeDown
                | DatabaseTask::VerificationDown
                | DatabaseTask::BackupBeforeRestore
                | DatabaseTask::VerificationRestore
                | DatabaseTask::CleanUp
        ) || again::is_verifying(pass) && work.task == DatabaseTask::Verification;
        match work.outcome {
            WorkOutcome::Running => back && !(of_way_back && pass.is_under_way()),
            _ => job.end.is_none(),
        }
    })
}
