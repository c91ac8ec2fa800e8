//! The looks before something is changed: at the server, at what is going to migrate it, and at what is going to take that back.

use std::path::Path;

use sqlx::Connection as _;

use crate::{
    api::WorkOutcome,
    engine::{AsApplied, Contents, Meant, Mounted, Planned, Report, task::OF_SEED},
};

use super::{
    connection::{self, told},
    meant,
    migrate::{Unsettled, beyond, files, pending, risks},
    mounted,
    preflight::{self, Wanted},
    report, rights, route,
    tasks::Places,
};

/// What is mounted that preflight looks at.
pub struct Looked<'a> {
    /// The set of the migration's SQL files.
    pub set: Option<&'a str>,
    /// The set of the seed's.
    pub seed: Option<&'a str>,
    /// Of which release they are.
    pub release: &'a str,
    /// What the pod of a migration by a command of the user's mounts of ConfigMaps: it is this one.
    pub mounted: &'a Mounted,
    /// What that of a seed does: it is under its own root here.
    pub seed_mounted: &'a Mounted,
    /// Whether files are there that would take the migration back.
    pub down: bool,
    /// A migration that counts as applied.
    pub applied: Option<&'a AsApplied>,
}

/// Looks whether the release could be done.
pub async fn look(places: &Places, wanted: &Wanted<'_>, looked: &Looked<'_>) -> Report {
    let (findings, mut faults) = match preflight::look(&places.url, wanted).await {
        Ok(looked) => looked,
        Err(why) => return report::not_begun(why),
    };
    for lacking in [rights::look(places, wanted.planned).await, route::look(places).await] {
        match lacking {
            Ok(lacking) => faults.extend(lacking),
            Err(why) => faults.push(why),
        }
    }
    let mut report = Report {
        server_version: report::cut(&findings.server_version, 64),
        size_bytes: findings.size_bytes,
        database: report::cut(&findings.identity, 128),
        ..report::not_begun("")
    };
    let rehearsed = wanted.planned.contains(&Planned::Rehearsal);
    // Why the other one cannot be asked stands among the rights.
    let confined = rehearsed && places.is_rehearsed_beside(looked.release).await.unwrap_or(true);
    faults.extend(look_at_files(places, looked, (rehearsed, confined), &mut report).await);
    if faults.is_empty() {
        report.outcome = WorkOutcome::Done;
        report.message = format!(
            "PostgreSQL {}, database {} of {} bytes, {} connections free",
            findings.server_version, findings.database, findings.size_bytes, findings.free_connections
        );
    } else {
        report.message = report::faults(&faults);
    }
    report
}

/// Looks at the SQL files of the migration, and at those of the seed, which come after them. `rehearsed`: whether they are, and
/// whether that is on the database's own server.
async fn look_at_files(
    places: &Places,
    looked: &Looked<'_>,
    (rehearsed, confined): (bool, bool),
    report: &mut Report,
) -> Vec<String> {
    let Looked { set, seed, release, down, mounted, seed_mounted, applied } = *looked;
    let (mut faults, mut before) = (Vec::new(), Vec::new());
    if let Some(applied) = applied {
        faults.extend(behind(places, release, applied).await);
    }
    if let Some(set) = set {
        match to_run(&places.files, &places.url, set, release).await {
            Err(why) => faults.push(why),
            Ok(ToRun { hash, pending }) => {
                report.files_hash = hash;
                report.count = i64::try_from(pending.len()).unwrap_or(i64::MAX);
                report.pending = pending.iter().map(|file| file.name.clone()).collect();
                if down {
                    let back = pending::way_back(&files::read_down(&places.down_files), &pending);
                    (report.down_risks, report.down_loses_data) = back;
                }
                (report.risks, report.loses_data) = risks::told(&pending, rehearsed);
                before = pending;
            }
        }
    }
    if !mounted.is_nothing() {
        match to_run_by_pod(places, Path::new("/"), &mounted.paths, &[]).await {
            Err(why) => faults.push(why),
            Ok((hash, due)) => {
                report.files_hash = hash;
                report.count = i64::try_from(due.names.len()).unwrap_or(i64::MAX);
                (report.risks, report.loses_data) = due.told(&[], rehearsed, mounted.wary);
                report.pending = due.names;
                before = due.files;
            }
        }
    }
    faults.extend(beyond::told(before.iter().filter(|_| confined)));
    if let Some(set) = seed {
        match to_run(&places.seed_files, &places.url, set, release).await {
            Err(why) => faults.push(format!("{OF_SEED}{why}")),
            Ok(ToRun { hash, pending }) => {
                report.seed_hash = hash;
                faults.extend(beyond::told(pending.iter().filter(|_| confined)).map(|why| format!("{OF_SEED}{why}")));
                (report.seed_risks, report.seed_loses_data) = risks::told_after(&before, &pending);
            }
        }
    }
    if !seed_mounted.is_nothing() {
        match to_run_by_pod(places, &places.seed_files, &seed_mounted.paths, &before).await {
            Err(why) => faults.push(format!("{OF_SEED}{why}")),
            Ok((hash, due)) => {
                report.seed_hash = hash;
                (report.seed_risks, report.seed_loses_data) = due.told(&before, false, seed_mounted.wary);
            }
        }
    }
    faults
}

/// What becomes of a migration that is not due, though its contents changed.
const NOT_DUE: &str = "the release would not run it, as migration is what was applied before: change migration.version to have it run, or \
                       undo the change";

/// What of a migration that counts as applied is not: the new code may need it. ConfigMaps that are gone changed nothing.
async fn behind(places: &Places, release: &str, applied: &AsApplied) -> Option<String> {
    let maps = applied.maps.join(", ");
    match &applied.what {
        Contents::Set(set) => {
            let files = match files::read(&places.files) {
                Err(files::Wrong::None) => return None,
                Err(wrong) => return Some(format!("ConfigMap {maps} was changed: {wrong}; {NOT_DUE}")),
                Ok(files) => files,
            };
            match pending::look(&places.url, set, release, &files).await {
                Err(why) => Some(format!("ConfigMap {maps}: {why}")),
                Ok(sorted) if sorted.pending.is_empty() => None,
                Ok(sorted) => {
                    let names: Vec<String> = sorted.pending.iter().map(|file| file.name.clone()).collect();
                    Some(changed(&maps, &names))
                }
            }
        }
        Contents::Mounted { paths, files } => {
            let root = &places.files;
            // What is left of several says by the tools' own tables alone whether it is applied.
            let left: Vec<String> = paths.iter().filter(|path| !mounted::is_empty(root, path)).cloned().collect();
            let is_whole = left.len() == paths.len();
            if left.is_empty() || (is_whole && meant::files_under(root, paths).ok()? == *files) {
                return None;
            }
            match mounted::due(&places.url, root, &left, &[]).await {
                Err(why) => Some(why),
                Ok(due) if due.is_over() || (!is_whole && due.names.is_empty()) => None,
                Ok(due) => Some(changed(&maps, &due.names)),
            }
        }
    }
}

fn changed(maps: &str, names: &[String]) -> String {
    let names = match names {
        [] => "has other contents than when it was applied".to_owned(),
        names => format!("has what is not applied: {}", report::cut(&names.join(", "), 120)),
    };
    format!("ConfigMap {maps} {names}; {NOT_DUE}")
}

/// SQL files, and those of them that the ledger does not have.
struct ToRun {
    hash: String,
    pending: Vec<files::File>,
}

async fn to_run(directory: &Path, url: &str, set: &str, release: &str) -> Result<ToRun, String> {
    let files = files::read(directory).map_err(|wrong| wrong.to_string())?;
    let sorted = pending::look(url, set, release, &files).await?;
    Ok(ToRun { hash: files::plan(set, &files), pending: sorted.pending.into_iter().cloned().collect() })
}

/// What a pod of the user's mounts of ConfigMaps, as a hash, and the SQL files in it that are due. `but`: those of another.
async fn to_run_by_pod(
    places: &Places,
    root: &Path,
    paths: &[String],
    but: &[files::File],
) -> Result<(String, mounted::Due), String> {
    let hash = meant::files_under(root, paths);
    let hash = hash.map_err(|error| format!("the files under {} cannot be read: {error}", paths.join(", ")))?;
    Ok((hash, mounted::due(&places.url, root, paths, but).await?))
}

/// What is going to take a migration back: which files, or the image and what its pod mounts.
pub async fn look_down(places: &Places, set: Option<&str>, of: &str, meant: &Meant) -> Report {
    if let Some(why) = moved(places, meant).await {
        return report::not_begun(why);
    }
    let Some(set) = set else {
        return match meant::files(&meant.watched) {
            Ok(files_hash) => {
                Report { files_hash, ..report::of(WorkOutcome::Done, "its image and its files are known") }
            }
            Err(error) => {
                report::not_begun(format!("the files under {} cannot be read: {error}", meant.watched.join(", ")))
            }
        };
    };
    let files = match files::read_down(&places.files) {
        Ok(files) => files,
        Err(wrong) => return report::not_begun(wrong.to_string()),
    };
    match pending::look_down(&places.url, set, of, &files).await {
        Err(Unsettled { why, settle, .. }) => Report { settle, ..report::not_begun(why) },
        Ok(sorted) => {
            let (risks, loses_data) = risks::told(sorted.pending.iter().copied(), false);
            let pending: Vec<String> = sorted.pending.iter().map(|file| file.name.clone()).collect();
            let count = i64::try_from(pending.len()).unwrap_or(i64::MAX);
            let message = format!("{count} files are to be run");
            let files_hash = files::plan(set, &files);
            Report { files_hash, pending, risks, loses_data, count, ..report::of(WorkOutcome::Done, message) }
        }
    }
}

/// Why a look would be at something else than what is meant.
async fn moved(places: &Places, meant: &Meant) -> Option<String> {
    let mut connection = match connection::open(&places.url, "servicerelease/preflight").await {
        Ok(connection) => connection,
        Err(error) => return Some(error.to_string()),
    };
    let differs = meant::differs(&mut connection, meant).await;
    let _ = connection.close().await;
    differs.unwrap_or_else(|error| Some(told(&error)))
}
