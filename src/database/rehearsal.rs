//! A rehearsal: the migration on a restored backup, so that whoever approves it knows what it will do and how long that
//! takes.

use std::{path::Path, time::Instant};

use reqwest::Url;
use serde::Serialize;

use super::{
    backup::{self, Backup},
    migrate::{self, Report, Settings, files::File, risks},
};

/// What a rehearsal found.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// The backup, which is proven by this.
    pub backup: Backup,
    /// How long it took to restore it, in milliseconds.
    pub restored_millis: u64,
    /// What became of the migration, with what each file did.
    pub migration: Report,
    /// Statements that lose data or refuse rows, each with file and line.
    pub risks: Vec<String>,
}

/// Restores a backup beside the database of a URL, migrates that, and removes it.
///
/// # Errors
/// There was no rehearsal: why the backup is none, or that the scratch database is left over. A migration that fails is
/// no error but what was to be found out.
pub async fn rehearse(
    url: &str,
    directory: &Path,
    name: &str,
    files: &[File],
    settings: &Settings,
) -> Result<Rehearsal, String> {
    let begun = Instant::now();
    let (backup, scratch) = backup::restore(url, directory, name).await?;
    let restored_millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let settings = Settings { observe: true, ..settings.clone() };
    let beside = Url::parse(url.trim()).map(|mut url| {
        url.set_path(&scratch.name);
        url
    });
    let migration = match beside {
        Ok(beside) => migrate::run(beside.as_str(), files, &settings).await,
        Err(error) => Report::not_begun(error.to_string()),
    };
    scratch.remove().await?;
    let risk = |(file, line, risk): (String, u64, risks::Risk)| format!("{file}, line {line}: {}", risk.told());
    let risks = risks::of_files(files).into_iter().map(risk).collect();
    Ok(Rehearsal { backup, restored_millis, migration, risks })
}
