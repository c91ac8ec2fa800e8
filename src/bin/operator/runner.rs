//! What Jobs of the operator's image run in the namespaces of releases: what needs a Secret, or is a database's.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use servicerelease::{api, checks, controller, database, engine};
use tokio::signal::unix::{SignalKind, signal};

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
    /// Carry out a task on the database whose URL is in the environment (DATABASE_URL; SCRATCH_URL for another server for
    /// scratch databases), and report as JSON. Exit code 0: it is done.
    Database(Database),
    /// Copy this program into a directory with all that it needs, so that `DIR/loader --library-path DIR DIR/runner` runs in
    /// any image.
    Install {
        /// The directory.
        #[arg(long)]
        to: PathBuf,
    },
}

/// Runs one.
pub fn run(command: Command) -> Ended {
    match command {
        Command::CheckKeys(check) => check_keys(&check),
        Command::CheckHttp(check) => check_http(check),
        Command::CheckSql(check) => check_sql(&check),
        Command::Database(database) => work(database),
        Command::Install { to } => Ok(database::install::install(&to)?),
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

/// The arguments of database.
#[derive(Args)]
pub struct Database {
    /// The task, as JSON, such as {"migrate": {"set": "default", "release": "by hand", "lockTimeout": "5s", "timeout": "15m"}}.
    #[arg(long)]
    task: String,
    /// The directory of SQL files.
    #[arg(long, default_value = database::FILES)]
    files: PathBuf,
    /// The directory of SQL files that take a migration back, where preflight looks at both.
    #[arg(long, default_value = database::DOWN_FILES)]
    down_files: PathBuf,
    /// The directory of the seed's SQL files, where preflight looks at them, and where the migration before it is rehearsed.
    #[arg(long, default_value = database::SEED_FILES)]
    seed_files: PathBuf,
    /// The directory of backups.
    #[arg(long, default_value = database::BACKUPS)]
    backups: PathBuf,
    /// Where the report is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
    /// The command that the tasks wrap and rehearse run, after `--`.
    #[arg(last = true)]
    command: Vec<OsString>,
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

fn check_keys(check: &CheckKeys) -> Ended {
    let sources: Vec<api::KeysOf> = serde_json::from_str(&check.sources)?;
    let fault = checks::keys::fault(&check.mounts, &sources)?;
    left(&check.message, fault.map_or_else(|| Ok(checks::keys::found(&sources)), Err))
}

/// Leaves a finding for the kubelet. The log has it too, where there is no such file.
fn found(message: &Path, fault: String) -> Box<dyn std::error::Error> {
    let _ = std::fs::write(message, &fault);
    fault.into()
}

/// Leaves for the kubelet what was seen, or a finding.
fn left(message: &Path, answered: Result<String, String>) -> Ended {
    let seen = answered.map_err(|fault| found(message, fault))?;
    println!("{seen}");
    let _ = std::fs::write(message, seen);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn check_http(check: CheckHttp) -> Ended {
    controller::use_ring();
    let mut question: engine::HttpQuestion = serde_json::from_str(&check.question)?;
    checks::with_secrets(&mut question.http, |name| std::env::var(name).ok());
    left(&check.message, checks::finding(&checks::Client::new()?.ask(&question).await))
}

#[tokio::main(flavor = "current_thread")]
async fn check_sql(check: &CheckSql) -> Ended {
    controller::use_ring();
    let question: engine::SqlQuestion = serde_json::from_str(&check.question)?;
    let url = url()?;
    left(&check.message, database::check(&url, &question).await)
}

#[tokio::main(flavor = "current_thread")]
async fn work(arguments: Database) -> Ended {
    controller::use_ring();
    let Database { task, files, down_files, seed_files, backups, message, command } = arguments;
    let report = match (url(), serde_json::from_str::<engine::Task>(&task)) {
        (Err(why), _) => database::report::not_begun(why),
        (_, Err(wrong)) => database::report::not_begun(format!("--task is none: {wrong}")),
        (Ok(url), Ok(task)) => {
            let scratch = std::env::var(database::SCRATCH_URL).ok();
            let wrapped = std::env::var_os(database::WRAPPER_URL).is_some();
            let tool = std::env::var(database::URL).ok().filter(|_| wrapped);
            let places = database::Places { url, tool, scratch, files, down_files, seed_files, backups, command };
            database::perform(&task, &places, told_to_end()?).await
        }
    };
    let text = database::report::text(&report);
    let _ = std::fs::write(&message, &text);
    println!("{text}");
    match report.outcome {
        api::WorkOutcome::Done => Ok(()),
        outcome => Err(format!("{outcome:?}: {}", report.message).into()),
    }
}

/// Hears SIGTERM and SIGINT: what runs as the first process of a container hears no others.
fn told_to_end() -> std::io::Result<database::Stop> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stopper, stop) = database::Stop::new();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopper.stop();
    });
    Ok(stop)
}

fn url() -> Result<String, String> {
    // A template of the user's may have its own DATABASE_URL.
    let url = std::env::var(database::WRAPPER_URL).or_else(|_| std::env::var(database::URL));
    url.map_err(|_| format!("{} is not set", database::URL))
}
