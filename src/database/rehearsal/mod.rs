//! A rehearsal: the migration on a restored backup, so that whoever approves it knows what it will do and how long that
//! takes.

mod astray;
mod outside;
mod schema;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    api::{RehearsalStatus, Verify, WorkOutcome},
    engine::{Report, SeedDue, SqlRun, task::OF_SEED},
};

use schema::{Lost, Schema, Touched};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;

use super::{
    backup,
    connection::{self, told},
    migrate::{self, beyond, effects::Effects, files, risks},
    report, restore, scratch,
    tasks::{Places, settings},
    verify,
};

/// How long sessions may take to end after their program.
const GONE: Duration = Duration::from_secs(30);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub enum Tried<'a> {
    /// SQL files of the directory that is mounted.
    Sql(&'a SqlRun),
    /// The command that is wrapped.
    Command,
}

/// What follows the migration in earnest.
#[derive(Clone, Copy, Debug)]
pub struct Then<'a> {
    /// The seed that is due.
    pub seed: Option<&'a SeedDue>,
    /// What must be there at the end.
    pub verify: Option<&'a Verify>,
}

/// What was found of a migration.
#[derive(Debug, Default)]
struct Found {
    /// Why it failed, if it did.
    fault: Option<String>,
    /// Whether that is that it may have been done to the real database, or has changed its server.
    astray: bool,
    status: RehearsalStatus,
    risks: Vec<String>,
    applied: Vec<String>,
    files_hash: String,
}

/// Restores a backup into a scratch database, migrates that, seeds and verifies it, and removes it.
pub async fn rehearse(
    places: &Places,
    server: &scratch::Server,
    name: &str,
    tried: Tried<'_>,
    then: Then<'_>,
) -> Report {
    let files = match tried {
        Tried::Sql(_) => match files::read(&places.files) {
            Ok(files) => files,
            Err(wrong) => return report::not_begun(wrong.to_string()),
        },
        Tried::Command if places.command.is_empty() => return report::not_begun("there is no command to rehearse"),
        Tried::Command => Vec::new(),
    };
    let begun = Instant::now();
    let (backup, scratch) = match backup::restore(server, &places.backups, name).await {
        Ok(restored) => restored,
        Err(why) => return report::failed(format!("the backup {name} cannot be rehearsed on: {why}")),
    };
    // It is a proof, too. Beside a command of somebody else the directory is read only: the next backup notes it then.
    let _ = backup::record(&places.backups, name, &backup);
    let restored_millis = millis(begun);
    analyze(&scratch.url).await;
    let begun = Instant::now();
    let confined = found_alike(&places.url, &scratch, server).await;
    let mut found = match (&confined, tried) {
        (Err(why), _) => Found { fault: Some(why.clone()), ..Found::default() },
        (Ok(confined), Tried::Sql(run)) => of_files(&scratch.url, &files, run, &backup.rows, *confined).await,
        (Ok(true), Tried::Command) => outside::confined(places, &scratch, &backup.rows).await,
        (Ok(false), Tried::Command) => outside::run(places, &scratch, &backup.rows).await,
    };
    found.status.restored_millis = restored_millis;
    found.status.migrated_millis = millis(begun);
    if found.fault.is_none() {
        found.fault = follow(places, &scratch.url, then, confined == Ok(true)).await.err();
    }
    let removed = scratch.remove().await;
    let fault = found.fault.or(removed.err());
    let took = found.status.migrated_millis;
    Report {
        outcome: match fault {
            Some(_) if found.astray => WorkOutcome::Unknown,
            Some(_) => WorkOutcome::Failed,
            None => WorkOutcome::Done,
        },
        message: fault.unwrap_or_else(|| format!("the migration took {took} ms on the backup {name}{}", then.told())),
        files_hash: found.files_hash,
        count: i64::try_from(found.applied.len()).unwrap_or(i64::MAX),
        applied: found.applied,
        loses_data: !found.risks.is_empty(),
        risks: found.risks,
        rehearsal: Some(found.status),
        ..Report::default()
    }
}

impl Then<'_> {
    /// What of it was done, where that does not go without saying.
    fn told(self) -> &'static str {
        match self.seed {
            Some(SeedDue::Files(_)) => "; the seed ran after it",
            Some(SeedDue::Pod) if self.verify.is_some_and(|verify| !verify.queries.is_empty()) => {
                "; verify.queries were not asked: a pod seeds the database before them"
            }
            _ => "",
        }
    }
}

/// Seeds what was migrated, and verifies it. `confined`: on the real database's own server.
async fn follow(places: &Places, url: &str, then: Then<'_>, confined: bool) -> Result<(), String> {
    if let Some(SeedDue::Files(run)) = then.seed {
        let files = files::read(&places.seed_files).map_err(|wrong| format!("{OF_SEED}{wrong}"))?;
        let pending = pending(url, run, &files, confined).await;
        pending.map_err(|why| format!("the migration ran, but the seed is not run: {why}"))?;
        let settings =
            migrate::Settings { confined, which: None, meant: crate::engine::Meant::default(), ..settings(run) };
        let migrate::Report { outcome, file, why, .. } = migrate::run(url, &files, &settings).await;
        if outcome != WorkOutcome::Done {
            let file = file.map(|file| format!("{file}: ")).unwrap_or_default();
            return Err(format!("the migration ran, but the seed then fails: {file}{}", why.unwrap_or_default()));
        }
    }
    let Some(wanted) = then.verify else { return Ok(()) };
    let mut wanted = wanted.clone();
    if then.seed == Some(&SeedDue::Pod) {
        wanted.queries.clear();
    }
    match verify::verify(url, &wanted).await {
        Ok(faults) if faults.is_empty() => Ok(()),
        Ok(faults) => Err(format!("the migration ran, but then: {}", report::faults(&faults))),
        Err(why) => Err(format!("the schema after it cannot be looked at: {why}")),
    }
}

fn millis(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// Sessions find tables, and the ledger, where those of the real database do: a dump has no settings of its database. Says
/// whether both are on one server, which the rehearsal is to leave as it is.
async fn found_alike(url: &str, scratch: &scratch::Scratch, server: &scratch::Server) -> Result<bool, String> {
    let program = "servicerelease/rehearsal";
    let mut real = connection::open_unlimited(url, program).await.map_err(|error| error.to_string())?;
    let path: String =
        sqlx::query_scalar("SHOW search_path").fetch_one(&mut real).await.map_err(|error| told(&error))?;
    let _ = real.close().await;
    let mut there = connection::open_unlimited(&scratch.url, program).await.map_err(|error| error.to_string())?;
    let given = restore::give(&mut there, &scratch.name, None, "search_path", &path).await;
    let _ = there.close().await;
    given.map_err(|error| format!("the search path cannot be given to {}: {}", scratch.name, told(&error)))?;
    server.is_of(url).await
}

/// What was restored has no statistics: without them statements take other ways, and another time, than in earnest.
async fn analyze(url: &str) {
    let Ok(mut connection) = connection::open_unlimited(url, "servicerelease/rehearsal").await else { return };
    let _ = connection.execute(sqlx::raw_sql("ANALYZE")).await;
    let _ = connection.close().await;
}

/// What stands in files, and what becomes of the tables when they are run: a DO block or a function shows only then.
async fn of_files(
    url: &str,
    files: &[files::File],
    run: &SqlRun,
    rows: &BTreeMap<String, i64>,
    confined: bool,
) -> Found {
    match observed(url, files, run, rows, confined).await {
        Ok(found) => found,
        Err(why) => Found { fault: Some(why), ..Found::default() },
    }
}

async fn observed(
    url: &str,
    files: &[files::File],
    run: &SqlRun,
    rows: &BTreeMap<String, i64>,
    confined: bool,
) -> Result<Found, String> {
    let pending =
        pending(url, run, files, confined).await.map_err(|why| format!("on the backup it is not run: {why}"))?;
    let written = risks::of_files(pending);
    let look = async || {
        let opened = connection::open_unlimited(url, "servicerelease/rehearsal").await;
        let mut connection = opened.map_err(|error| error.to_string())?;
        let schema = Schema::look(&mut connection).await.map_err(|error| told(&error))?;
        Ok::<_, String>((connection, schema))
    };
    let (looking, before) = look().await?;
    let _ = looking.close().await;
    let settings = migrate::Settings {
        observe: true,
        confined,
        which: None,
        meant: crate::engine::Meant::default(),
        ..settings(run)
    };
    let migrate::Report { outcome, plan, applied, file, why, effects, .. } = migrate::run(url, files, &settings).await;
    let fault = (outcome != WorkOutcome::Done).then(|| {
        let file = file.map(|file| format!("{file}: ")).unwrap_or_default();
        format!("on the backup it fails: {file}{}", why.unwrap_or_default())
    });
    let (mut looking, after) = look().await?;
    gone(&mut looking).await?;
    let counted = backup::rows(&mut looking).await?;
    let touched = Touched::look(&mut looking).await?;
    let _ = looking.close().await;
    let rewritten = before.rewritten(&after, rows, &touched);
    let status = RehearsalStatus { locks: strongest(&effects), rewritten, ..RehearsalStatus::default() };
    let Lost { data, refused } = before.lost(&after, rows, &counted);
    // What a statement says of itself has its place; and one that finds no row here may find some in earnest.
    let known =
        |wanted: fn(risks::Risk) -> bool| written.iter().filter(move |(_, _, risk)| wanted(*risk)).map(risks::line);
    // Nobody read what overwrites them.
    let runs_code = written.iter().any(|(_, _, risk)| *risk == risks::Risk::RunsCode);
    let by_code = if runs_code { before.overwritten(rows, &counted, &touched) } else { Vec::new() };
    let losing = data.into_iter().chain(by_code).chain(known(|risk| risk.is_told() && !risk.refuses_rows()));
    // Where all of it ran it is known which columns have a default.
    let refusing: Vec<String> = if fault.is_none() { refused } else { known(risks::Risk::refuses_rows).collect() };
    let risks = losing.chain(refusing).collect();
    Ok(Found { fault, astray: false, status, risks, applied, files_hash: plan })
}

/// The files that are about to be run: what is pending there was pending in the database. `confined`: none of them may reach
/// beyond it.
async fn pending<'a>(
    url: &str,
    run: &SqlRun,
    files: &'a [files::File],
    confined: bool,
) -> Result<Vec<&'a files::File>, String> {
    let pending = migrate::pending::look(url, &run.set, &run.release, files).await?.pending;
    let beyond = beyond::told(pending.iter().copied().filter(|_| confined));
    beyond.map_or(Ok(pending), Err)
}

/// Waits until nobody else is here: what they have done is committed then, and counted.
async fn gone(connection: &mut PgConnection) -> Result<(), String> {
    let begun = Instant::now();
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                 AND backend_type = 'client backend'";
    loop {
        let left: i64 = sqlx::query_scalar(query).fetch_one(&mut *connection).await.map_err(|error| told(&error))?;
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > GONE {
            return Err("what was run has ended, and its server processes have not".into());
        }
        sleep(LOOK).await;
    }
}

/// The strongest lock on each table over all files.
fn strongest(effects: &[Effects]) -> Vec<String> {
    let all = effects.iter().flat_map(|effects| &effects.locks).filter_map(|lock| lock.split_once(" on "));
    let mut tables: BTreeMap<&str, &str> = BTreeMap::new();
    for (mode, table) in all {
        let known = tables.entry(table).or_insert(mode);
        if strength(mode) > strength(known) {
            *known = mode;
        }
    }
    in_order(tables.into_iter().map(|(table, mode)| (mode.to_owned(), table.to_owned())).collect())
}

/// Locks in words, the strongest first: the list is bounded.
fn in_order(mut locks: Vec<(String, String)>) -> Vec<String> {
    locks.sort_by(|(one, table), (other, another)| (strength(other), table).cmp(&(strength(one), another)));
    locks.into_iter().map(|(mode, table)| format!("{mode} on {table}")).collect()
}

/// Modes of locks from the weakest to the strongest.
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

fn strength(mode: &str) -> usize {
    MODES.iter().position(|known| *known == mode).unwrap_or(0)
}
