//! Carrying out tasks: which part of this room does what, and what is reported of it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use sqlx::Connection as _;

use crate::{
    api::{self, WorkOutcome},
    engine::{Meant, Report, SqlRun, Task, Wrapped},
};

use super::{
    Secrets,
    backup::{self, Kept, Owner},
    command::{self, stop::Stop},
    connection::{self, told},
    forget,
    look::{self, Looked},
    meant,
    migrate::{self, Unsettled, files},
    preflight::Wanted,
    rehearsal::{self, Then, Tried},
    report, restore, scratch, verify,
};

/// What a run that is told to end says of it.
const TOLD_TO_END: &str = "it was told to end (SIGTERM): its pod was deleted or evicted";

/// Where what a task needs is.
#[derive(Clone, Debug)]
pub struct Places {
    /// The URL of the database.
    pub url: String,
    /// The URL that the user's command has in its pod, where that is the template's own.
    pub tool: Option<String>,
    /// The URL of another server for scratch databases.
    pub scratch: Option<String>,
    /// The directory of SQL files.
    pub files: PathBuf,
    /// The directory of those that would take the migration back.
    pub down_files: PathBuf,
    /// The directory of the seed's, while preflight looks at them, and while the migration before it is rehearsed.
    pub seed_files: PathBuf,
    /// The directory of backups.
    pub backups: PathBuf,
    /// The user's command, with its arguments.
    pub command: Vec<OsString>,
}

impl Places {
    /// What must never be told of them.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        let [tool, scratch] = [&self.tool, &self.scratch].map(|url| url.as_deref().unwrap_or_default());
        Secrets::known(&[self.url.as_str(), tool, scratch])
    }

    /// Whether a rehearsal is on the database's own server, as far as anybody can tell.
    ///
    /// # Errors
    /// One of the servers cannot be asked.
    pub async fn is_rehearsed_beside(&self, release: &str) -> Result<bool, String> {
        self.scratch(release)?.is_of(&self.url).await
    }

    fn scratch(&self, release: &str) -> Result<scratch::Server, String> {
        scratch::Server::of(&self.url, self.scratch.as_deref(), release)
    }
}

/// Carries out a task, until it is done or told to end. What is reported is within its bounds, and without passwords.
pub async fn perform(task: &Task, places: &Places, stop: Stop) -> Report {
    let mut report = carry_out(task, places, stop).await;
    let secrets = places.secrets();
    report.message = secrets.mask(&report.message);
    report::within_bounds(report)
}

async fn carry_out(task: &Task, places: &Places, mut stop: Stop) -> Report {
    match task {
        Task::Preflight {
            min_version,
            session,
            limits,
            set,
            release,
            mounted,
            planned,
            down,
            seed,
            seed_mounted,
            applied,
        } => {
            let wanted = Wanted { min_version: min_version.as_deref(), session: *session, limits, planned };
            let (set, seed) = (set.as_deref(), seed.as_deref());
            let (down, applied) = (*down, applied.as_ref());
            let files = Looked { set, seed, release, mounted, seed_mounted, down, applied };
            // It may be waiting for somebody's transaction. Nothing was done: the next Job looks again.
            tokio::select! {
                looked = look::look(places, &wanted, &files) => looked,
                () = stop.asked() => report::of(WorkOutcome::Running, TOLD_TO_END),
            }
        }
        Task::Backup { name, of, release, proof, keep, max_age, spared, proven, rehearsed } => {
            let not_before = max_age.and_then(|age| jiff::Timestamp::now().checked_sub(duration(age)).ok());
            let kept = keep.map(|count| Kept {
                count: usize::try_from(count).unwrap_or(1).max(1),
                not_before,
                made: name,
                spared: spared.as_deref(),
                proven: proven.as_ref(),
                rehearsed: *rehearsed,
            });
            let server = match places.scratch(release) {
                Ok(server) => server,
                Err(why) => return report::not_begun(why),
            };
            let made = back_up(places, &server, name, of, *proof, kept);
            let report = unless_stopped(&server, &mut stop, made).await;
            without_remains(&server, *proof, report).await
        }
        Task::Rehearse { name, release, sql, seed, verify, timeout } => {
            let tried = sql.as_ref().map_or(Tried::Command, Tried::Sql);
            let then = Then { seed: seed.as_deref(), verify: verify.as_ref() };
            let server = match places.scratch(release) {
                Ok(server) => server,
                Err(why) => return report::not_begun(why),
            };
            let tried = rehearsal::rehearse(places, &server, name, tried, then);
            let report = within(&server, duration(*timeout), &mut stop, tried).await;
            without_remains(&server, true, report).await
        }
        Task::CleanUp { release, unfinished, timeout } => {
            let cleaned = clean_up(places, release, unfinished);
            let late = |_| Err(format!("it is not done within {timeout}"));
            match tokio::time::timeout(duration(*timeout), cleaned).await.unwrap_or_else(late) {
                Ok(()) => report::of(WorkOutcome::Done, "nothing is left of proofs and rehearsals"),
                Err(why) => Report { left: true, ..report::failed(why) },
            }
        }
        Task::Migrate(run) => migrate(places, run, &mut stop).await,
        Task::Down { run, of, seed } => {
            let ended = tokio::select! {
                ended = down(places, run, of) => ended,
                // Each file commits with its row: the next Job finds in the ledger what is still applied.
                () = stop.asked() => {
                    return report::of(WorkOutcome::Running, format!("{TOLD_TO_END}; the next one goes on"));
                }
            };
            forget::seed(&places.url, seed.as_ref(), of, run.timeout, ended).await
        }
        Task::PreflightDown { set, of, meant } => tokio::select! {
            looked = look::look_down(places, set.as_deref(), of, meant) => looked,
            () = stop.asked() => report::of(WorkOutcome::Running, TOLD_TO_END),
        },
        Task::Wrap(wrapped) => {
            let ended = with_half_way(places, command::wrap(places, wrapped, stop).await).await;
            let ended = forget::migration(&places.url, wrapped, ended).await;
            forget::seed(&places.url, wrapped.seed.as_ref(), &wrapped.release, wrapped.timeout, ended).await
        }
        Task::Settle(wrapped) => settle(places, wrapped, &mut stop).await,
        Task::SettleSql(run) => settle_sql(places, run).await,
        Task::Verify(wanted) => match verify::verify(&places.url, wanted).await {
            Ok(faults) if faults.is_empty() => report::of(WorkOutcome::Done, "all that was asked for is there"),
            Ok(faults) => Report {
                count: i64::try_from(faults.len()).unwrap_or(i64::MAX),
                ..report::not_begun(report::faults(&faults))
            },
            Err(why) => report::not_begun(why),
        },
        Task::Restore { name, suffix, release, meant } => restore::restore(places, name, suffix, release, meant).await,
        Task::VerifyRestored { name, suffix } => match restore::verify(places, name, suffix).await {
            Ok(told) => report::of(WorkOutcome::Done, told),
            Err(why) => report::not_begun(why),
        },
    }
}

/// A duration of the API's.
pub(super) fn duration(duration: api::Duration) -> Duration {
    Duration::from_millis(duration.as_millis())
}

/// The settings of a run of SQL files.
pub(super) fn settings(run: &SqlRun) -> migrate::Settings {
    let SqlRun { set, release, lock_timeout, timeout, plan, meant, which } = run.clone();
    let (lock_timeout, timeout) = (duration(lock_timeout), duration(timeout));
    migrate::Settings { set, release, lock_timeout, timeout, plan, meant, which, observe: false, confined: false }
}

async fn back_up(
    places: &Places,
    server: &scratch::Server,
    name: &str,
    of: &str,
    proof: bool,
    kept: Option<Kept<'_>>,
) -> Report {
    let directory = &places.backups;
    let made = async {
        let owner = Owner::of(&places.url, of).await?;
        let taken = backup::take(&places.url, directory, name, &owner).await?;
        if !proof || taken.proven_at.is_some() {
            return Ok((owner, taken));
        }
        let proven = backup::prove(server, directory, name).await;
        proven.map(|proven| (owner, proven)).map_err(|why| format!("{name} is no backup: {why}"))
    };
    let (owner, known) = match made.await {
        Ok(made) => made,
        Err::<_, String>(why) => return report::failed(why),
    };
    let removed = kept.map_or_else(|| Ok(Vec::new()), |kept| backup::retain(directory, &owner, &kept));
    let cleaned = match removed {
        Ok(removed) if removed.is_empty() => String::new(),
        Ok(removed) => format!("; removed {}", removed.join(", ")),
        // This one is as good as it was: what is in the way of others is told, and no more.
        Err(error) => format!("; old backups are left: {error}"),
    };
    let (tables, rows) = (known.rows.len(), known.rows.values().sum::<i64>());
    let counted = if known.proven_at.is_some() { "restored and counted" } else { "not proven" };
    let message = format!("{} of {} bytes, {tables} tables, {rows} rows, {counted}{cleaned}", known.file, known.bytes);
    Report {
        server_version: report::cut(&known.server_version, 64),
        backup: Some(known.status(name)),
        ..report::of(WorkOutcome::Done, message)
    }
}

/// Does something that leaves a scratch database behind if it is told to end.
async fn unless_stopped(server: &scratch::Server, stop: &mut Stop, done: impl Future<Output = Report>) -> Report {
    tokio::select! {
        done = done => return done,
        () = stop.asked() => {}
    }
    let cleared = server.clear().await;
    report::failed(cleared.map_or_else(|left| format!("{TOLD_TO_END}; {left}"), |()| TOLD_TO_END.to_owned()))
}

/// One that failed before it had made its scratch database removes what a pod before it may have left, or says that it may be
/// there. `makes`: it would have made one.
async fn without_remains(server: &scratch::Server, makes: bool, report: Report) -> Report {
    if makes && report.outcome != WorkOutcome::Done && !server.is_known() {
        // What is left stands in `left`.
        let _ = server.clear().await;
    }
    Report { left: server.is_left(), ..report }
}

/// The same of a rehearsal, which has its time.
async fn within(
    server: &scratch::Server,
    timeout: Duration,
    stop: &mut Stop,
    tried: impl Future<Output = Report>,
) -> Report {
    let why = tokio::select! {
        done = tokio::time::timeout(timeout, tried) => match done {
            Ok(report) => return report,
            Err(_) => format!("the rehearsal took longer than {} s", timeout.as_secs()),
        },
        () = stop.asked() => TOLD_TO_END.to_owned(),
    };
    let cleared = server.clear().await;
    report::failed(cleared.map_or_else(|left| format!("{why}; {left}"), |()| why.clone()))
}

/// Removes what proofs and rehearsals of a release left: its scratch database, and of backups that were broken off the files.
async fn clean_up(places: &Places, release: &str, unfinished: &[String]) -> Result<(), String> {
    let files = unfinished.iter().map(|name| backup::remove_unfinished(&places.backups, name));
    let files: Vec<String> = files.filter_map(Result::err).collect();
    // The database first: it may be large, and is on a server that others need.
    places.scratch(release)?.clear().await?;
    if files.is_empty() { Ok(()) } else { Err(files.join("; ")) }
}

async fn migrate(places: &Places, run: &SqlRun, stop: &mut Stop) -> Report {
    let files = match files::read(&places.files) {
        Ok(files) => files,
        Err(wrong) => return report::unread(wrong.to_string()),
    };
    let settings = settings(run);
    tokio::select! {
        ended = migrate::run(&places.url, &files, &settings) => of_run(ended, "applied"),
        () = stop.asked() => stopped(places, run, &files).await,
    }
}

async fn down(places: &Places, run: &SqlRun, of: &str) -> Report {
    let files = match files::read_down(&places.files) {
        Ok(files) => files,
        Err(wrong) => return report::not_begun(wrong.to_string()),
    };
    of_run(migrate::down(&places.url, &files, &settings(run), of).await, "taken back")
}

/// A command that is known to have failed may have stopped half-way: its tool may say so, and what it takes to go on from there.
async fn with_half_way(places: &Places, ended: Report) -> Report {
    match ended.outcome {
        WorkOutcome::Failed => Report { half_way: verify::left_half_way(&places.url).await, ..ended },
        _ => ended,
    }
}

/// What a run of SQL files reports.
fn of_run(ended: migrate::Report, done: &str) -> Report {
    let migrate::Report {
        outcome, plan, applied, already, earlier, unread, partly, file, why, settle, invalid, ..
    } = ended;
    let count = applied.len();
    let stopped = file.map(|file| format!("{file}: ")).unwrap_or_default();
    let message = match why {
        Some(why) if count > 0 => format!("{stopped}{why} ({count} files were {done} before it)"),
        Some(why) => format!("{stopped}{why}"),
        None if already > 0 => format!("{count} files {done}, {already} were before"),
        None => format!("{count} files {done}"),
    };
    // What the release as a whole did: pods that were killed could not report theirs.
    let applied: Vec<String> = earlier.into_iter().chain(applied).collect();
    let count = i64::try_from(applied.len()).unwrap_or(i64::MAX);
    Report {
        files_hash: plan,
        applied,
        unread,
        partly,
        count,
        settle,
        invalid_indexes: invalid,
        ..report::of(outcome, message)
    }
}

/// What became of a run of SQL files that was told to end: the ledger knows, once the server has noticed. Where something
/// is left to be done there is no report, so that the next Job takes it up.
async fn stopped(places: &Places, run: &SqlRun, files: &[files::File]) -> Report {
    // The next Job of this try goes on.
    let settings = migrate::Settings { which: None, ..settings(run) };
    match migrate::settled(&places.url, &settings, files).await {
        Ok(settled) if settled.pending.is_empty() => {
            Report { applied: settled.applied, ..report::of(WorkOutcome::Done, "all files are applied") }
        }
        Ok(settled) => {
            report::of(WorkOutcome::Running, format!("{TOLD_TO_END}; not applied: {}", settled.pending.join(", ")))
        }
        Err(Unsettled { why, .. }) => {
            report::of(WorkOutcome::Running, format!("{TOLD_TO_END}; what became of it is not known: {why}"))
        }
    }
}

/// What became of SQL files whose Job is gone.
async fn settle_sql(places: &Places, run: &SqlRun) -> Report {
    if let Some(why) = elsewhere(places, &run.meant).await {
        return report::unknown(why);
    }
    let files = match files::read(&places.files) {
        Ok(files) => files,
        Err(wrong) => return report::unknown(wrong.to_string()),
    };
    let settled = match migrate::settled(&places.url, &settings(run), &files).await {
        Ok(settled) => settled,
        Err(Unsettled { why, settle, invalid }) => {
            return Report { settle, invalid_indexes: invalid, ..report::unknown(why) };
        }
    };
    let (outcome, message) = match (settled.pending.as_slice(), settled.applied.as_slice()) {
        (_, []) if settled.partly => (WorkOutcome::Failed, "a part of a file may be in effect".to_owned()),
        ([], _) => (WorkOutcome::Done, "all files are applied".to_owned()),
        (_, []) => (WorkOutcome::NotBegun, "none of its files is applied".to_owned()),
        (pending, _) => (WorkOutcome::Failed, format!("not applied: {}", pending.join(", "))),
    };
    let count = i64::try_from(settled.applied.len()).unwrap_or(i64::MAX);
    Report { applied: settled.applied, partly: settled.partly, count, ..report::of(outcome, message) }
}

/// Why a settlement would learn nothing: the URL leads to another database by now, whose ledger says nothing of this run.
async fn elsewhere(places: &Places, meant: &Meant) -> Option<String> {
    if meant.database.is_empty() {
        return None;
    }
    let mut connection = match connection::open(&places.url, "servicerelease/settle").await {
        Ok(connection) => connection,
        Err(error) => return Some(error.to_string()),
    };
    let is = meant::database(&mut connection).await;
    let _ = connection.close().await;
    match is {
        Ok(is) if meant::may_be(&is, &meant.database) => None,
        Ok(is) => Some(meant::moved(&is, &meant.database)),
        Err(error) => Some(told(&error)),
    }
}

async fn settle(places: &Places, wrapped: &Wrapped, stop: &mut Stop) -> Report {
    let settled = async {
        match elsewhere(places, &wrapped.meant).await {
            Some(why) => report::unknown(why),
            None => with_half_way(places, command::settle(places, wrapped).await).await,
        }
    };
    tokio::select! {
        settled = settled => settled,
        () = stop.asked() => report::unknown(format!("{TOLD_TO_END}; run it again")),
    }
}
