//! What Jobs of the operator's image run in the namespaces of releases: what needs a Secret, or is a database's.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use servicerelease::{
    api, checks, controller, database,
    database::migrate::{self, Outcome, Report, Settings},
    engine,
};

type Ended = Result<(), Box<dyn std::error::Error>>;

/// The commands of Jobs.
#[derive(Subcommand)]
pub enum Command {
    /// Look at keys of Secrets and ConfigMaps that are mounted as files: what the Job of a check by keys runs.
    CheckKeys(CheckKeys),
    /// Ask once by HTTP, with headers from the environment: what the Job of a check with headers from Secrets runs.
    CheckHttp(CheckHttp),
    /// Ask a database once, whose URL is in the environment: what the Job of a check by SQL runs.
    CheckSql(CheckSql),
    /// Look at the database whose URL is in the environment, and print what is found as JSON. Exit code 1: not as asked.
    Preflight(Preflight),
    /// Back up the database whose URL is in the environment by pg_dump, prove the backup by restoring it into a scratch
    /// database, and remove old ones.
    Backup(Backup),
    /// Apply SQL files to the database whose URL is in the environment, each once.
    Migrate(Migrate),
}

/// Runs one.
pub fn run(command: Command) -> Ended {
    match command {
        Command::CheckKeys(check) => check_keys(&check),
        Command::CheckHttp(check) => check_http(check),
        Command::CheckSql(check) => check_sql(&check),
        Command::Preflight(preflight) => look(&preflight),
        Command::Backup(backup) => back_up(&backup),
        Command::Migrate(migrate) => apply(migrate),
    }
}

/// The arguments of check-http.
#[derive(Args)]
pub struct CheckHttp {
    /// The addresses, the request and what is expected, as JSON.
    #[arg(long)]
    question: String,
    /// Where the finding is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

/// The arguments of check-sql.
#[derive(Args)]
pub struct CheckSql {
    /// The statement and what is expected, as JSON.
    #[arg(long)]
    question: String,
    /// Where the finding is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

/// The arguments of backup.
#[derive(Args)]
pub struct Backup {
    /// The directory of backups, such as where a PersistentVolumeClaim is mounted.
    #[arg(long)]
    directory: PathBuf,
    /// The name of the new one: NAME.dump, and what is known of it in NAME.json.
    #[arg(long)]
    name: String,
    /// Do not restore it. Nobody knows then whether it could be.
    #[arg(long)]
    unproven: bool,
    /// How many are kept.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// After how long others are removed, such as 720h. Never the last good one.
    #[arg(long)]
    max_age: Option<api::Duration>,
    /// Where what came of it is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

/// The arguments of migrate.
#[derive(Args)]
pub struct Migrate {
    /// A directory of files such as 001_orders.sql, applied in the order of their numbers.
    #[arg(long)]
    files: PathBuf,
    /// A name that tells these files from others for the same schema.
    #[arg(long, default_value = "default")]
    set: String,
    /// Namespace and name of the release, for the ledger.
    #[arg(long, default_value = "by hand")]
    release: String,
    /// How long a statement may wait for a lock before its transaction makes room, and is tried again.
    #[arg(long, default_value = "5s")]
    lock_timeout: api::Duration,
    /// How long all of it may take.
    #[arg(long, default_value = "15m")]
    timeout: api::Duration,
    /// The hash of the files that are meant; others are refused.
    #[arg(long)]
    plan: Option<String>,
    /// Where the report is left for the kubelet, as JSON.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

/// The arguments of check-keys.
#[derive(Args)]
pub struct CheckKeys {
    /// Where they are mounted: a directory for each source, named by its place from 0.
    #[arg(long)]
    mounts: PathBuf,
    /// The sources, as JSON: spec.checks[].keys.
    #[arg(long)]
    sources: String,
    /// Where the finding is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

/// The arguments of preflight.
#[derive(Args)]
pub struct Preflight {
    /// What the database must be like, as JSON: minVersion, minFreeConnections, maxReplicationLag, maxTransactionAge,
    /// extensions.
    #[arg(long, default_value = "{}")]
    limits: String,
    /// Where what is wrong is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

fn check_keys(check: &CheckKeys) -> Ended {
    let sources: Vec<api::KeysOf> = serde_json::from_str(&check.sources)?;
    let Some(fault) = checks::keys::fault(&check.mounts, &sources)? else {
        println!("all keys are there");
        return Ok(());
    };
    Err(found(&check.message, fault))
}

/// Leaves a finding for the kubelet. The log has it too, where there is no such file.
fn found(message: &Path, fault: String) -> Box<dyn std::error::Error> {
    let _ = std::fs::write(message, &fault);
    fault.into()
}

#[tokio::main(flavor = "current_thread")]
async fn check_http(check: CheckHttp) -> Ended {
    controller::use_ring();
    let mut question: engine::HttpQuestion = serde_json::from_str(&check.question)?;
    checks::with_secrets(&mut question.http, |name| std::env::var(name).ok());
    match checks::Client::new()?.ask(&question).await {
        engine::Reply::Check { fault: Some(fault), seen, .. } => {
            Err(found(&check.message, format!("{fault} ({seen})")))
        }
        engine::Reply::Check { seen, .. } => {
            println!("{seen}");
            Ok(())
        }
        other => Err(format!("no answer to a check: {other:?}").into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check_sql(check: &CheckSql) -> Ended {
    controller::use_ring();
    let question: engine::SqlQuestion = serde_json::from_str(&check.question)?;
    let url = url()?;
    match database::check(&url, &question).await {
        Ok(seen) => {
            println!("{seen}");
            let _ = std::fs::write(&check.message, seen);
            Ok(())
        }
        Err(fault) => Err(found(&check.message, fault)),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn apply(arguments: Migrate) -> Ended {
    controller::use_ring();
    let Migrate { files, set, release, lock_timeout, timeout, plan, message } = arguments;
    let millis = |duration: api::Duration| Duration::from_millis(duration.as_millis());
    let (lock_timeout, timeout) = (millis(lock_timeout), millis(timeout));
    let settings = Settings { set, release, lock_timeout, timeout, plan, observe: false };
    let report = match (url(), migrate::files::read(&files)) {
        (Err(why), _) => Report::not_begun(why),
        (_, Err(wrong)) => Report::not_begun(wrong.to_string()),
        (Ok(url), Ok(files)) => migrate::run(&url, &files, &settings).await,
    };
    let text = serde_json::to_string(&report)?;
    let _ = std::fs::write(&message, &text);
    println!("{text}");
    match report.outcome {
        Outcome::Applied => Ok(()),
        outcome => Err(format!("{outcome:?}: {}", report.why.unwrap_or_default()).into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn look(preflight: &Preflight) -> Ended {
    controller::use_ring();
    let limits = serde_json::from_str(&preflight.limits)?;
    let url = url()?;
    let (findings, faults) = match database::preflight::look(&url, &limits).await {
        Ok(looked) => looked,
        Err(why) => return Err(found(&preflight.message, why)),
    };
    println!("{}", serde_json::to_string(&findings)?);
    if faults.is_empty() { Ok(()) } else { Err(found(&preflight.message, faults.join("; "))) }
}

fn url() -> Result<String, String> {
    std::env::var(database::URL).map_err(|_| format!("{} is not set", database::URL))
}

#[tokio::main(flavor = "current_thread")]
async fn back_up(backup: &Backup) -> Ended {
    controller::use_ring();
    let Backup { directory, name, unproven, keep, max_age, message } = backup;
    let url = url()?;
    let done = async {
        let taken = database::backup::take(&url, directory, name).await?;
        let known = if *unproven { taken } else { database::backup::prove(&url, directory, name).await? };
        let now = jiff::Timestamp::now();
        let not_before = max_age.and_then(|age| now.checked_sub(Duration::from_millis(age.as_millis())).ok());
        let removed = database::backup::retain(directory, (*keep).into(), not_before);
        removed.map_err(|error| format!("old backups are not removed: {error}"))?;
        Ok::<_, String>(known)
    };
    let known = done.await.map_err(|why| found(message, why))?;
    println!("{}", serde_json::to_string(&known)?);
    let told =
        format!("{}, {} bytes, SHA-256 {}, PostgreSQL {}", known.file, known.bytes, known.sha256, known.server_version);
    let _ = std::fs::write(message, told);
    Ok(())
}
