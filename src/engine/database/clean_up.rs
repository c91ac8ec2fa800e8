//! What a proof or a rehearsal may have left that was killed, or broken off: a scratch database on the server, and the file
//! of a backup. On every way out of a release a Job removes it. It has its time, and only the end of the release waits for
//! it: traffic does not.

use crate::api::{DatabaseTask, Duration, Timestamp, WorkOutcome, status::bounded};

use super::{
    super::{
        effect::{Effect, Event},
        observed::Job,
        pass::Pass,
        task::{DatabaseJob, Task},
    },
    pinned,
    steps::{new_backup, number, order},
    words::left_behind,
    work,
};

/// How long it is tried before it is given up on, with all its Jobs.
pub const LIMIT: Duration = Duration::from_secs(300);
/// How long one of them may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a pod that was told to end is waited for: it clears up behind itself.
const GRACE: Duration = Duration::from_secs(90);
/// The work that may leave something.
const LEAVES: [DatabaseTask; 4] =
    [DatabaseTask::Backup, DatabaseTask::Rehearsal, DatabaseTask::BackupBeforeRestore, DatabaseTask::BackupBeforeDown];
/// The backups that the way back makes of what is there.
const ON_THE_WAY: [DatabaseTask; 2] = [DatabaseTask::BackupBeforeRestore, DatabaseTask::BackupBeforeDown];

/// Has it removed, and names the Job that is waited for. None: nothing is left, or it was tried long enough.
pub fn drive(pass: &mut Pass<'_>) -> Option<String> {
    let known = pass.status.database.as_ref()?;
    let since = known.scratch_since?;
    // One that the way back needs is none that is left.
    let runs = |task: &DatabaseTask| known.last(*task).is_some_and(|it| it.outcome == WorkOutcome::Running);
    let backs_up = ON_THE_WAY.iter().any(runs);
    if backs_up && pass.release.metadata.deletion_timestamp.is_none() {
        return None;
    }
    let begun = known.last(DatabaseTask::CleanUp).filter(|work| work.started_at >= since);
    let ended = begun.is_some_and(|work| work.outcome != WorkOutcome::Running);
    if begun.is_none()
        && let Some(job) = break_off(pass)
    {
        return Some(job);
    }
    let mut order = order(pass, &pinned(pass)?, DatabaseTask::CleanUp, since)?;
    order.takes = unseen(pass);
    let progress = work::drive(pass, order);
    if progress != work::Progress::Running && !ended {
        tell(pass);
    }
    let work = pass.status.database.as_ref()?.last(DatabaseTask::CleanUp)?;
    (progress == work::Progress::Running).then(|| work.job.clone())
}

/// The Job of it, and how long it may take.
pub fn job(pass: &Pass<'_>, plain: DatabaseJob) -> (DatabaseJob, Duration) {
    let not_done = |task: &DatabaseTask| {
        let work = pass.status.database.as_ref().and_then(|known| known.last(*task));
        work.is_some_and(|work| work.outcome != WorkOutcome::Done)
    };
    let since = pass.status.step.as_ref().map_or(pass.now, |step| step.started_at);
    let makers = [DatabaseTask::Backup, DatabaseTask::BackupBeforeRestore, DatabaseTask::BackupBeforeDown];
    let claimed = plain.backups.is_some();
    let unfinished: Vec<String> =
        makers.into_iter().filter(|task| claimed && not_done(task)).map(|task| new_backup(pass, task, since)).collect();
    // A volume that is not needed is nothing to wait for.
    let backups = plain.backups.filter(|_| !unfinished.is_empty());
    let task = Task::CleanUp { release: number(pass), unfinished, timeout: TIMEOUT };
    (DatabaseJob { task: Some(task), backups, ..plain }, TIMEOUT)
}

/// That it is waited for.
pub fn words(job: &str) -> String {
    format!("Job {job} ends what a proof or a rehearsal left; after {LIMIT} nobody waits for it any more")
}

/// Jobs of proofs and rehearsals that are seen to be under way.
fn under_way<'a>(pass: &Pass<'a>) -> Vec<&'a Job> {
    let work = pass.status.database.iter().flat_map(|known| &known.work);
    let names: Vec<&String> = work.filter(|work| LEAVES.contains(&work.task)).map(|work| &work.job).collect();
    pass.seen.jobs.iter().filter(|job| job.end.is_none() && names.contains(&&job.object.name)).collect()
}

/// Ends those that run; which one is waited for, if any still is.
fn break_off(pass: &mut Pass<'_>) -> Option<String> {
    let open = under_way(pass);
    let job = open.first()?.object.name.clone();
    if pass.release.metadata.deletion_timestamp.is_some() {
        let running = open.iter().filter(|job| !job.deleting);
        let ends: Vec<Effect> = running.map(|job| Effect::DeleteJob { object: job.object.clone() }).collect();
        pass.after.extend(ends);
    }
    let since = leaving(pass)?;
    (!pass.elapsed(since, GRACE)).then_some(job)
}

/// Since when the release is on its way out, and nobody works on it.
fn leaving(pass: &Pass<'_>) -> Option<Timestamp> {
    let deleted = pass.release.metadata.deletion_timestamp.as_ref().map(|time| Timestamp::new(time.0));
    let back = pass.status.rollback.as_ref().map(|rollback| rollback.started_at);
    let work = pass.status.database.iter().flat_map(|known| &known.work);
    let ended = work.filter(|work| LEAVES.contains(&work.task)).filter_map(|work| work.ended_at).max();
    deleted.or(back).max(ended)
}

/// The name of the last of those Jobs, where it is not to be seen: it may be about to be made, by a write that comes late.
fn unseen(pass: &Pass<'_>) -> Option<String> {
    let work = pass.status.database.iter().flat_map(|known| &known.work);
    let last = work.filter(|work| LEAVES.contains(&work.task)).max_by_key(|work| work.started_at)?;
    let seen = pass.seen.jobs.iter().any(|job| job.object.name == last.job);
    (!seen && last.outcome != WorkOutcome::Done).then(|| last.job.clone())
}

/// What could not be removed stays in the timeline; the Event says what a person can do, also when the object is gone.
fn tell(pass: &mut Pass<'_>) {
    let Some((message, command)) = left_behind(pass) else { return };
    pass.status.note(pass.now, "LeftBehind", &message, None);
    let note = bounded(&format!("{message}; {command}"), 1_000);
    pass.events.push(Event { warning: true, reason: "LeftBehind".into(), action: "CleanUp".into(), note });
}
