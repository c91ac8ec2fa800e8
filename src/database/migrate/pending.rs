//! Which files the ledger does not have yet, and where files and ledger cannot go together.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;

use crate::database::connection::{self, told};

use super::{
    Settings,
    files::{Body, File, Wrong},
    ledger::{self, Entry, Ledger},
    risks,
    statements::{Statement, words},
};

/// How long a server process may take to notice that its client is gone.
const SETTLED: Duration = Duration::from_secs(15);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Files, as far as they are applied.
#[derive(Clone, Debug, Default)]
pub struct Sorted<'a> {
    /// Those that are not, in their order.
    pub pending: Vec<&'a File>,
    /// The names of those that are.
    pub applied: Vec<String>,
}

/// Why files cannot be applied to what the ledger has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// They are not the files that were applied, or not in their order.
    Files(String),
    /// One of them was begun, and nobody knows how far it came.
    Unknown {
        /// Which.
        file: String,
        /// What is known of it.
        why: String,
        /// The statement by which a person notes what became of it.
        settle: String,
    },
}

impl Conflict {
    /// In words.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Files(why) => why.clone(),
            Self::Unknown { file, why, settle } => format!("{file}: {why}: {settle}"),
        }
    }
}

/// Sorts files by the ledger's entries.
///
/// # Errors
/// Where they cannot go together.
pub fn sort<'a>(files: &'a [File], entries: &[Entry], ledger: &Ledger) -> Result<Sorted<'a>, Conflict> {
    let mut sorted = Sorted::default();
    for file in files {
        let entry = entries.iter().find(|entry| entry.version == file.version);
        match entry.map(|entry| (entry.state.as_str(), entry)) {
            None | Some(("Failed", _)) => sorted.pending.push(file),
            Some(("Applied", entry)) if entry.checksum == file.checksum => match sorted.pending.first() {
                None => sorted.applied.push(file.name.clone()),
                Some(before) => {
                    return Err(Conflict::Files(format!(
                        "{} comes before {}, which is applied: give it a number after it",
                        before.name, file.name
                    )));
                }
            },
            Some(("Applied", entry)) => {
                return Err(Conflict::Files(format!(
                    "{} was applied with other contents (by {}): undo the change, and write a new file",
                    file.name, entry.by
                )));
            }
            Some((_, entry)) => {
                let why = format!(
                    "it was begun by {} and nobody knows how far it came, since its statements run in no transaction: look for what \
                     they make, finish or undo it, then note in the ledger that it is 'Applied', or 'Failed' to have it run again",
                    entry.by
                );
                let (file, settle) = (file.name.clone(), ledger.settle(&file.version));
                return Err(Conflict::Unknown { file, why, settle });
            }
        }
    }
    Ok(sorted)
}

/// The down files of what a release applied, the last first.
///
/// # Errors
/// A file that is missing, one that another release applied after them, or one of which nobody knows what of it is in effect.
/// That is so of those that failed in no transaction, until a person has noted it: as 'Failed' once it is undone.
pub fn sort_down<'a>(files: &'a [File], entries: &[Entry], of: &str, ledger: &Ledger) -> Result<Sorted<'a>, Conflict> {
    let undone = |entry: &&Entry| entry.state == "Failed" && (entry.release != of || entry.by_hand);
    let mut entries: Vec<&Entry> = entries.iter().filter(|entry| !undone(entry)).collect();
    entries.sort_by(|one, other| (other.version.len(), &other.version).cmp(&(one.version.len(), &one.version)));
    let mut sorted = Sorted::default();
    let mut after: Option<&Entry> = None;
    for entry in entries {
        if entry.release != of {
            after = after.or(Some(entry));
            continue;
        }
        let file = files.iter().find(|file| file.version == entry.version);
        match (entry.state.as_str(), file, after) {
            ("Applied", Some(file), None) => sorted.pending.push(file),
            ("Applied", None, _) => {
                return Err(Conflict::Files(without(&entry.name)));
            }
            ("Applied", _, Some(after)) => {
                let why =
                    format!("{} was applied after {} (by {}): take that back first", after.name, entry.name, after.by);
                return Err(Conflict::Files(why));
            }
            ("Failed", ..) => {
                let why = format!(
                    "it failed in no transaction (begun by {}), and what it did before that is in effect: drop it, then have the ledger \
                     forget it",
                    entry.by
                );
                return Err(Conflict::Unknown { file: entry.name.clone(), why, settle: ledger.erase(&entry.version) });
            }
            _ => {
                let why =
                    format!("nobody knows how far it came (begun by {}): look, then note it in the ledger", entry.by);
                return Err(Conflict::Unknown { file: entry.name.clone(), why, settle: ledger.settle(&entry.version) });
            }
        }
    }
    Ok(sorted)
}

/// What files would lose that take others back, or what would keep them from it, and whether data would be lost.
#[must_use]
pub fn way_back(down: &Result<Vec<File>, Wrong>, pending: &[File]) -> (Vec<String>, bool) {
    let down = match down {
        Ok(down) => down,
        Err(wrong) => return (vec![wrong.to_string()], false),
    };
    let of = |file: &File| down.iter().find(|down| down.version == file.version);
    let (mut told, loses_data) = risks::told(pending.iter().rev().filter_map(of), false);
    told.extend(pending.iter().filter(|file| of(file).is_none()).map(|file| without(&file.name)));
    (told, loses_data)
}

/// That there is no way back for a file.
fn without(file: &str) -> String {
    format!("there is no file that takes {file} back: it would be called {}", down_name(file))
}

/// Indexes that are not valid, as a statement names them: what is built concurrently and is broken off leaves one. That of a
/// partitioned table has no rows of its own, and is invalid until all its parts have theirs.
///
/// # Errors
/// Those of the connection.
pub async fn invalid_indexes(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let invalid = "SELECT format('%I.%I', nspname, relname) FROM pg_catalog.pg_index \
                   JOIN pg_catalog.pg_class c ON c.oid = indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace \
                   WHERE NOT indisvalid AND relkind = 'i' AND nspname !~ '^pg_' ORDER BY 1";
    sqlx::query_scalar(invalid).persistent(false).fetch_all(connection).await
}

/// An index that statements make unless it is there (IF NOT EXISTS), and that was invalid before: a build that failed has left
/// it, and nothing uses it. None: there is no such one.
///
/// # Errors
/// Those of the connection.
pub async fn passed_over(
    connection: &mut PgConnection,
    before: &[String],
    statements: &[Statement],
) -> Result<Option<String>, sqlx::Error> {
    let unless = |statement: &&Statement| {
        let said: Vec<&str> = words(&statement.pieces).collect();
        statement.is_concurrent() && said.windows(3).any(|said| said == ["IF", "NOT", "EXISTS"])
    };
    let made: Vec<&Statement> = statements.iter().filter(unless).collect();
    if made.is_empty() || before.is_empty() {
        return Ok(None);
    }
    let is_named = |index: &&String| {
        let name = index.rsplit('.').next().unwrap_or_default().trim_matches('"');
        made.iter().flat_map(|statement| &statement.pieces).filter_map(risks::part).any(|part| part == name)
    };
    let invalid = invalid_indexes(connection).await?;
    let left = invalid.iter().filter(|index| before.contains(index)).find(is_named);
    Ok(left.map(|index| {
        format!(
            "index {index} was there and is invalid, so that IF NOT EXISTS has passed over it: \
             DROP INDEX CONCURRENTLY {index}, then retry"
        )
    }))
}

/// The name of the file that takes another one back.
fn down_name(name: &str) -> String {
    let stem = name.strip_suffix(".sql").unwrap_or(name);
    format!("{}.down.sql", stem.strip_suffix(".up").unwrap_or(stem))
}

/// The same of a database, of which nothing is changed: where there is no ledger yet, none is made.
///
/// # Errors
/// Where they cannot go together, or why the ledger cannot be read.
pub async fn look<'a>(url: &str, set: &str, release: &str, files: &'a [File]) -> Result<Sorted<'a>, String> {
    let (ledger, entries) = looked_at(url, set, release).await?;
    sort(files, &entries, &ledger).map_err(|conflict| conflict.told())
}

/// The down files of what a release applied, the last first. Nothing is changed.
///
/// # Errors
/// Where they cannot be run, or why the ledger cannot be read.
pub async fn look_down<'a>(url: &str, set: &str, of: &str, files: &'a [File]) -> Result<Sorted<'a>, Unsettled> {
    let (ledger, entries) = looked_at(url, set, of).await?;
    Ok(sort_down(files, &entries, of, &ledger)?)
}

/// What the ledger of a database says. Nothing is changed.
async fn looked_at(url: &str, set: &str, release: &str) -> Result<(Ledger, Vec<Entry>), String> {
    let opened = connection::open(url, "servicerelease/preflight").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let read = read(&mut connection, set, release).await;
    let _ = connection.close().await;
    read.map_err(|error| format!("the ledger cannot be read: {}", told(&error)))
}

async fn read(connection: &mut PgConnection, set: &str, release: &str) -> Result<(Ledger, Vec<Entry>), sqlx::Error> {
    let ledger = Ledger::of(connection, set, release).await?;
    let entries = if ledger.exists(connection).await? { ledger.entries(connection).await? } else { Vec::new() };
    Ok((ledger, entries))
}

/// What became of files, once nobody is at work any more. With a try, neither that one begins afterwards nor one before it.
///
/// # Errors
/// Why that cannot be said.
pub async fn settled(url: &str, settings: &Settings, files: &[File]) -> Result<Settled, Unsettled> {
    let opened = connection::open_unlimited(url, "servicerelease/settle").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let begun = Instant::now();
    while !ledger::lock(&mut connection).await.map_err(|error| told(&error))? {
        if begun.elapsed() > SETTLED {
            let holder = ledger::told_holder(&mut connection).await.map_err(|error| told(&error))?;
            return Err(format!("a server process of it has not ended, or another has the lock: {holder}").into());
        }
        sleep(PAUSE).await;
    }
    let read = async {
        bar(&mut connection, settings).await?;
        read(&mut connection, &settings.set, &settings.release).await
    };
    let read = read.await;
    let invalid = invalid_indexes(&mut connection).await.unwrap_or_default();
    let _ = connection.close().await;
    let (ledger, entries) = read.map_err(|error| told(&error))?;
    let sorted = sort(files, &entries, &ledger).map_err(|conflict| match conflict {
        Conflict::Unknown { .. } => Unsettled { invalid, ..conflict.into() },
        Conflict::Files(_) => conflict.into(),
    })?;
    let pending = sorted.pending.into_iter().map(|file| file.name.clone()).collect();
    let is_mine = |file: &File, state: &str| {
        let own = |entry: &&Entry| entry.version == file.version && entry.release == settings.release;
        entries.iter().filter(own).any(|entry| entry.state == state)
    };
    let applied = files.iter().filter(|file| is_mine(file, "Applied")).map(|file| file.name.clone()).collect();
    let partly = files.iter().any(|file| matches!(file.body, Body::Alone(_)) && is_mine(file, "Failed"));
    Ok(Settled { pending, applied, partly })
}

/// Why nobody can say what became of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// In words.
    pub why: String,
    /// The statement by which a person notes it, if one would do.
    pub settle: String,
    /// Indexes that are not valid.
    pub invalid: Vec<String>,
}

impl From<String> for Unsettled {
    fn from(why: String) -> Self {
        Self { why, settle: String::new(), invalid: Vec::new() }
    }
}

impl From<Conflict> for Unsettled {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Unknown { file, why, settle } => Self { settle, ..format!("{file}: {why}").into() },
            Conflict::Files(why) => why.into(),
        }
    }
}

async fn bar(connection: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
    let Some(which) = &settings.which else { return Ok(()) };
    let ledger = match Ledger::open(connection, &settings.set, &settings.release).await {
        // Who may not make a ledger runs no files either.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(ledger::INSUFFICIENT_PRIVILEGE) => {
            return Ok(());
        }
        opened => opened?,
    };
    match ledger.bar(connection, which).await? {
        true => Ok(()),
        false => Err(sqlx::Error::Configuration("the lock of the migration was lost".into())),
    }
}

/// What became of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Those that are not applied.
    pub pending: Vec<String>,
    /// Those that the release applied.
    pub applied: Vec<String>,
    /// Whether one of the release's that runs in no transaction failed: a part of it may be in effect.
    pub partly: bool,
}
