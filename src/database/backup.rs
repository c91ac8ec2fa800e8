//! Backups by pg_dump, and their proof: a backup counts once it was restored, and its rows counted (a dump that is
//! empty or cut short is a file like any other).

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;

use crate::{
    api::{self, BackupStatus, ProvenBackup},
    engine::task::{BEFORE_DOWN, BEFORE_RESTORE},
};

use super::{
    connection::{self, told},
    hexadecimal,
    report::cut,
    rights,
    scratch::{Scratch, Server},
    tool,
};

/// How many tables that differ are told by name.
const TOLD: usize = 5;
/// Between two looks whether another pod has made it.
const PAUSE: Duration = Duration::from_millis(250);

/// What is known of a backup, kept beside it as NAME.json.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// Whose it is. Records that were written before this was noted have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The version of the server.
    pub server_version: String,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it was complete.
    pub ended_at: Timestamp,
    /// The rows of each table at that moment which the backup is of.
    pub rows: BTreeMap<String, i64>,
    /// When it was restored, and had all these rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
}

/// Whose a backup is: several releases, and several databases, may have theirs in one directory.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Namespace and name of the release, as `ns/name`.
    pub release: String,
    /// The database: the number that a cluster of PostgreSQL has for life, and its name in there. By whatever host it is
    /// reached, and after a backup has taken its place, it is the same one.
    pub database: String,
}

impl Owner {
    /// A release, and the database of a URL.
    ///
    /// # Errors
    /// There is no way to it.
    pub async fn of(url: &str, release: &str) -> Result<Self, String> {
        let options = connection::options(url, "servicerelease/backup").map_err(|error| error.to_string())?;
        let mut connection = connect(url).await?;
        let query = "SELECT format('%s/%s', system_identifier, current_database()) FROM pg_control_system()";
        // Where that is hidden, by the way to it.
        let elsewhere = || {
            let database = options.get_database().unwrap_or_else(|| options.get_username());
            format!("{}:{}/{database}", options.get_host(), options.get_port())
        };
        let database = text(&mut connection, query).await.unwrap_or_else(|_| elsewhere());
        let _ = connection.close().await;
        Ok(Self { release: release.to_owned(), database })
    }

    /// Whether a backup is this one's. Of those without an owner their names tell whose they are: NAMESPACE.NAME, the number
    /// of the release, and when it began.
    fn has(&self, name: &str, backup: &Backup) -> bool {
        if let Some(owner) = &backup.owner {
            return owner == self;
        }
        let rest = name.strip_prefix(&format!("{}-", self.release.replacen('/', ".", 1)));
        let rest = rest.map(|rest| stem(rest).unwrap_or(rest));
        let parts = rest.and_then(|rest| rest.split_once('-'));
        parts.is_some_and(|(number, began)| {
            let digits = !number.is_empty() && number.chars().all(|letter| letter.is_ascii_digit());
            digits && !began.is_empty() && began.chars().all(|letter| letter.is_ascii_alphanumeric())
        })
    }
}

/// Makes a backup `NAME.dump` in a directory, in pg_dump's own format. One of this name that is there already, and whole,
/// is the one: whoever asks twice gets one. What was not finished leaves nothing.
///
/// # Errors
/// Why there is none.
pub async fn take(url: &str, directory: &Path, name: &str, owner: &Owner) -> Result<Backup, String> {
    let mut lock = connect(url).await?;
    let mine = "SELECT pg_try_advisory_lock(hashtextextended('servicerelease/backup ' || $1, 0))";
    while !sqlx::query_scalar::<_, bool>(mine).bind(name).fetch_one(&mut lock).await.map_err(|error| told(&error))? {
        sleep(PAUSE).await;
    }
    let taken = match there_already(directory, name)? {
        Some(backup) => Ok(backup),
        None => dump(url, directory, name, owner).await,
    };
    let _ = lock.close().await;
    taken
}

/// One that is there whole. What is not is removed, but for what its record says is something else.
fn there_already(directory: &Path, name: &str) -> Result<Option<Backup>, String> {
    if directory.join(format!("{name}.json")).exists() {
        let backup = known(directory, name)?;
        whole(directory, &backup)?;
        return Ok(Some(backup));
    }
    remove_unfinished(directory, name)?;
    Ok(None)
}

/// Removes what a backup that was broken off left. One that is on record stays.
///
/// # Errors
/// Which file is left.
pub fn remove_unfinished(directory: &Path, name: &str) -> Result<(), String> {
    if directory.join(format!("{name}.json")).exists() {
        return Ok(());
    }
    for left in [format!("{name}.dump"), format!(".{name}.dump.part"), format!(".{name}.json.part")] {
        let left = directory.join(left);
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("{} was left by an earlier try: {error}", left.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file is what its record says.
fn whole(directory: &Path, backup: &Backup) -> Result<(), String> {
    let place = directory.join(&backup.file);
    let mut hash = Sha256::new();
    let read = File::open(&place).and_then(|mut file| io::copy(&mut file, &mut hash));
    read.map_err(|error| format!("{}: {error}", place.display()))?;
    if hexadecimal(&hash.finalize()) == backup.sha256 {
        return Ok(());
    }
    Err(format!("{} is not what was written: its checksum is another one", backup.file))
}

async fn dump(url: &str, directory: &Path, name: &str, owner: &Owner) -> Result<Backup, String> {
    let file = format!("{name}.dump");
    let (place, part) = (directory.join(&file), directory.join(format!(".{file}.part")));
    let started_at = Timestamp::now();
    let environment = tool::environment(url).map_err(|error| error.to_string())?;
    let mut connection = connect(url).await?;
    // pg_dump sees what this transaction sees, and so does the count.
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(|error| told(&error))?;
    let snapshot = text(&mut connection, "SELECT pg_export_snapshot()").await?;
    let server_version = text(&mut connection, "SELECT current_setting('server_version')").await?;
    let snapshot = format!("--snapshot={snapshot}");
    let to = format!("--file={}", part.display());
    let arguments: [&OsStr; 4] = ["--format=custom".as_ref(), snapshot.as_ref(), to.as_ref(), "--no-password".as_ref()];
    let dumped = tool::run("pg_dump", &environment, &arguments).await;
    let counted = match dumped {
        Ok(_) => rows(&mut connection).await,
        // Preflight told it, unless the server became another one since.
        Err(error) if error.contains("server version mismatch") => {
            let major = server_version.split(['.', ' ']).next().unwrap_or_default();
            Err(format!("{error}; {}", rights::other_image(major)))
        }
        Err(error) => Err(error),
    };
    let _ = connection.close().await;
    let finished = counted.and_then(|rows| {
        let (bytes, sha256) = keep(&part, &place)?;
        let ended_at = Timestamp::now();
        let owner = Some(owner.clone());
        let backup = Backup { owner, file, bytes, sha256, server_version, started_at, ended_at, rows, proven_at: None };
        record(directory, name, &backup)?;
        Ok(backup)
    });
    finished.inspect_err(|_| {
        // Without a record it is none.
        let _ = fs::remove_file(&part);
        let _ = fs::remove_file(&place);
    })
}

/// Gives a file its name once it is on the disk; its size and checksum.
fn keep(part: &Path, place: &Path) -> Result<(u64, String), String> {
    let kept = || {
        let mut file = File::open(part)?;
        file.sync_all()?;
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut file, &mut hash)?;
        fs::rename(part, place)?;
        Ok::<_, io::Error>((bytes, hexadecimal(&hash.finalize())))
    };
    kept().map_err(|error| format!("{}: {error}", place.display()))
}

/// Writes down what is known of a backup, beside it.
pub(super) fn record(directory: &Path, name: &str, backup: &Backup) -> Result<(), String> {
    let (place, part) = (directory.join(format!("{name}.json")), directory.join(format!(".{name}.json.part")));
    let text = serde_json::to_vec_pretty(backup).map_err(|error| error.to_string())?;
    let written = || {
        let mut file = File::create(&part)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&part, &place)?;
        // The names, too, are to be there after a power cut.
        File::open(directory)?.sync_all()
    };
    written().map_err(|error: io::Error| {
        let _ = fs::remove_file(&part);
        format!("{}: {error}", place.display())
    })
}

/// What is known of a backup.
///
/// # Errors
/// There is none, or its record cannot be read.
pub fn known(directory: &Path, name: &str) -> Result<Backup, String> {
    let place = directory.join(format!("{name}.json"));
    let text = fs::read(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", place.display()))
}

/// Restores a backup into a scratch database, and counts its rows. The scratch database is removed, also one that an
/// earlier proof left.
///
/// # Errors
/// Why it is no backup.
pub async fn prove(server: &Server, directory: &Path, name: &str) -> Result<Backup, String> {
    let (backup, scratch) = restore(server, directory, name).await?;
    scratch.remove().await?;
    record(directory, name, &backup)?;
    Ok(backup)
}

/// The same, and the scratch database is left for whoever asked. It is noted nowhere: beside the command of somebody else
/// the directory is read only.
///
/// # Errors
/// Why it is no backup. Nothing is left then.
pub(super) async fn restore(server: &Server, directory: &Path, name: &str) -> Result<(Backup, Scratch), String> {
    let mut backup = known(directory, name)?;
    whole(directory, &backup)?;
    let scratch = Scratch::make(server).await?;
    // A database that has a subscription cannot be dropped.
    let flags = ["--no-owner", "--no-privileges", "--no-subscriptions"];
    let proven = fill(&scratch.url, directory, &backup, &flags).await;
    if let Err(why) = proven {
        scratch.remove().await?;
        return Err(why);
    }
    backup.proven_at = Some(Timestamp::now());
    Ok((backup, scratch))
}

/// Restores a backup into an empty database, and compares its rows.
///
/// # Errors
/// pg_restore's word, or where they differ.
pub(super) async fn fill(url: &str, directory: &Path, backup: &Backup, flags: &[&str]) -> Result<(), String> {
    let found = restored(url, &directory.join(&backup.file), flags).await?;
    compare(&backup.rows, &found)
}

/// What is known of a backup, if its file is what its record says.
///
/// # Errors
/// There is none, or it is another file.
pub(super) fn known_whole(directory: &Path, name: &str) -> Result<Backup, String> {
    let backup = known(directory, name)?;
    whole(directory, &backup)?;
    Ok(backup)
}

/// The rows of a backup, once it is restored.
async fn restored(url: &str, place: &Path, flags: &[&str]) -> Result<BTreeMap<String, i64>, String> {
    let environment = tool::environment(url).map_err(|error| error.to_string())?;
    let database = environment.iter().rfind(|(name, _)| *name == "PGDATABASE").map_or("", |(_, value)| value.as_str());
    let to = format!("--dbname={database}");
    let flags = ["--no-password"].iter().chain(flags);
    let arguments: Vec<&OsStr> = flags.map(OsStr::new).chain([to.as_ref(), place.as_os_str()]).collect();
    tool::restore(&environment, &arguments).await?;
    let opened = connection::open_unlimited(url, "servicerelease/proof").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let rows = rows(&mut connection).await;
    let _ = connection.close().await;
    rows
}

fn compare(meant: &BTreeMap<String, i64>, found: &BTreeMap<String, i64>) -> Result<(), String> {
    let (lacking, more) = differences(meant, found);
    let differing = few(lacking.into_iter().chain(more).collect());
    if differing.is_empty() { Ok(()) } else { Err(format!("what was restored differs: {}", differing.join("; "))) }
}

/// Tables and rows that are not there, and those that are there beyond what is meant; of both the first few.
pub(super) fn differences(meant: &BTreeMap<String, i64>, found: &BTreeMap<String, i64>) -> (Vec<String>, Vec<String>) {
    let (mut lacking, mut more) = (Vec::new(), Vec::new());
    for (table, rows) in meant {
        match found.get(table) {
            None => lacking.push(format!("table {table} is missing")),
            Some(there) if there == rows => {}
            Some(there) => {
                let list = if there < rows { &mut lacking } else { &mut more };
                list.push(format!("table {table} has {there} rows, not {rows}"));
            }
        }
    }
    let new = found.keys().filter(|table| !meant.contains_key(*table));
    more.extend(new.map(|table| format!("table {table} is new")));
    (few(lacking), few(more))
}

/// The first of several things, and how many there are beyond them.
fn few(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(TOLD);
    all.truncate(TOLD);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all
}

impl Backup {
    /// As the status has it.
    #[must_use]
    pub fn status(&self, name: &str) -> BackupStatus {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        BackupStatus {
            name: name.to_owned(),
            bytes: whole(self.bytes),
            sha256: self.sha256.clone(),
            server_version: cut(&self.server_version, 64),
            tables: i64::try_from(self.rows.len()).unwrap_or(i64::MAX),
            rows: self.rows.values().sum(),
            started_at: Some(api::Timestamp::new(self.started_at)),
            ended_at: Some(api::Timestamp::new(self.ended_at)),
            proven_at: self.proven_at.map(api::Timestamp::new),
            not_proven: String::new(),
        }
    }
}

/// What of an owner's backups stays.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// How many.
    pub count: usize,
    /// What ended before goes.
    pub not_before: Option<Timestamp>,
    /// The one that was just made: by the clock of its node it may not be the newest.
    pub made: &'a str,
    /// Another that stays whatever it is: it may still be restored.
    pub spared: Option<&'a str>,
    /// The last one that was proven, which may not be noted beside it yet.
    pub proven: Option<&'a ProvenBackup>,
    /// Whether rehearsals prove them, which cannot always note it: without [`Self::proven`] it may be any of those that are
    /// newer than the last one on record.
    pub rehearsed: bool,
}

/// Removes backups of an owner, and of nobody else, beyond so many, and those that ended before a moment, but never the last proven one, nor the
/// last of all, nor the one that was just made, nor the one that is spared. Says which.
///
/// # Errors
/// A record that cannot be written, or a file that cannot be removed.
pub fn retain(directory: &Path, owner: &Owner, kept: &Kept<'_>) -> io::Result<Vec<String>> {
    let noted = note_proof(directory, owner, kept.proven).map_err(io::Error::other)?;
    let names = fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
    let all = names.filter_map(|name| known(directory, &name).ok().map(|backup| (name, backup)));
    let mut all: Vec<(String, Backup)> = all.filter(|(name, backup)| owner.has(name, backup)).collect();
    all.sort_by_key(|(_, backup)| std::cmp::Reverse(backup.ended_at));
    let proven = all.iter().position(|(_, backup)| backup.proven_at.is_some());
    let may_be_proven = |place| kept.rehearsed && !noted && proven.is_none_or(|proven| place < proven);
    let too_old = |backup: &Backup| kept.not_before.is_some_and(|moment| backup.ended_at < moment);
    // Those that were made before the schema was taken back have what people wrote last: they take no other's place.
    let set_aside = |name: &str| stem(name).is_some();
    let surplus = all.iter().enumerate().filter(|(place, (name, backup))| {
        let stays = *place == 0 || Some(*place) == proven || name == kept.made || kept.spared == Some(name.as_str());
        let stays = stays || may_be_proven(*place);
        let newer = all[..*place].iter().filter(|(other, _)| set_aside(other) == set_aside(name)).count();
        !stays && (newer >= kept.count || too_old(backup))
    });
    let mut removed = Vec::new();
    for (_, (name, backup)) in surplus {
        // Its record goes last: whatever is left is still known, and found again by the next one.
        for file in [&backup.file, &format!("{name}.json")] {
            match fs::remove_file(directory.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        removed.push(name.clone());
    }
    Ok(removed)
}

/// Notes beside an owner's backup that it was proven. Says whether that is on record.
fn note_proof(directory: &Path, owner: &Owner, proven: Option<&ProvenBackup>) -> Result<bool, String> {
    let Some(ProvenBackup { name, at }) = proven else { return Ok(false) };
    let Some(backup) = known(directory, name).ok().filter(|backup| owner.has(name, backup)) else { return Ok(false) };
    if backup.proven_at.is_none() {
        record(directory, name, &Backup { proven_at: Some(at.inner()), ..backup })?;
    }
    Ok(true)
}

/// The name without what it ends with, of a backup that was made before the schema was taken back.
fn stem(name: &str) -> Option<&str> {
    [BEFORE_RESTORE, BEFORE_DOWN].into_iter().find_map(|suffix| name.strip_suffix(suffix))
}

async fn connect(url: &str) -> Result<PgConnection, String> {
    connection::open_unlimited(url, "servicerelease/backup").await.map_err(|error| error.to_string())
}

async fn text(connection: &mut PgConnection, query: &'static str) -> Result<String, String> {
    sqlx::query_scalar(query).fetch_one(connection).await.map_err(|error| told(&error))
}

/// The rows of every table that pg_dump takes.
pub(super) async fn rows(connection: &mut PgConnection) -> Result<BTreeMap<String, i64>, String> {
    let tables = "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE relkind = 'r' AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema' \
                  AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')";
    let tables: Vec<String> =
        sqlx::query_scalar(tables).fetch_all(&mut *connection).await.map_err(|error| told(&error))?;
    let mut rows = BTreeMap::new();
    for table in tables {
        let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM ONLY {table}")));
        let count = count.persistent(false).fetch_one(&mut *connection).await;
        rows.insert(table.clone(), count.map_err(|error| format!("count the rows of {table}: {}", told(&error)))?);
    }
    Ok(rows)
}
