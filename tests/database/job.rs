//! Tasks as Jobs carry them out: in this process, or by the operator's own program.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value;
use servicerelease::{
    database::{
        self, Places, Stop,
        backup::{self, Backup, Owner},
    },
    engine::{MOST_REPORT, Report},
};
use tempfile::TempDir;

/// Carries out a task in this process.
pub async fn perform(url: &str, task: Value, files: Option<&Path>, command: &[&str]) -> Report {
    perform_in(url, task, files, None, command).await
}

/// The same, with a directory of backups.
pub async fn perform_in(
    url: &str,
    task: Value,
    files: Option<&Path>,
    backups: Option<&Path>,
    command: &[&str],
) -> Report {
    perform_at(&places(url, files, backups, command), task).await
}

/// The same, with all that it needs.
pub async fn perform_at(places: &Places, task: Value) -> Report {
    let (_stopper, stop) = Stop::new();
    let task = serde_json::from_value(task).expect("a task");
    let report = database::perform(&task, places, stop).await;
    assert!(database::report::text(&report).len() <= MOST_REPORT, "{report:?}");
    report
}

/// Where what a task needs is: what is not given is nowhere.
pub fn places(url: &str, files: Option<&Path>, backups: Option<&Path>, command: &[&str]) -> Places {
    let nowhere = Path::new("/nowhere");
    Places {
        url: url.to_owned(),
        tool: None,
        scratch: None,
        files: files.unwrap_or(nowhere).to_owned(),
        down_files: files.unwrap_or(nowhere).to_owned(),
        seed_files: files.unwrap_or(nowhere).join("seed"),
        backups: backups.unwrap_or(nowhere).to_owned(),
        command: command.iter().map(OsString::from).collect(),
    }
}

/// Makes a backup of the release that all of these are of.
pub async fn take(url: &str, directory: &Path, name: &str) -> Result<Backup, String> {
    backup::take(url, directory, name, &Owner::of(url, "production/shop").await?).await
}

/// A pod of a Job.
pub struct Job {
    process: Child,
    directory: TempDir,
}

/// What is left of it.
pub struct Ended {
    /// Its termination message; none if it was killed.
    pub report: Option<Report>,
    /// Its exit code.
    pub status: ExitStatus,
    /// Its log.
    pub output: String,
}

impl Job {
    /// Starts one.
    pub fn start(url: &str, task: &Value, files: Option<&Path>, backups: Option<&Path>, command: &[&str]) -> Self {
        let program = [env!("CARGO_BIN_EXE_service-release-operator")];
        Self::start_as(&program, url, task, files, backups, command)
    }

    /// The same, with another way to the program.
    pub fn start_as(
        program: &[&str],
        url: &str,
        task: &Value,
        files: Option<&Path>,
        backups: Option<&Path>,
        command: &[&str],
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let log = File::create(directory.path().join("log")).expect("a log");
        let mut process = Command::new(program[0]);
        process.args(&program[1..]).arg("database").arg("--task").arg(task.to_string());
        process.arg("--message").arg(directory.path().join("message"));
        if let Some(files) = files {
            process.arg("--files").arg(files);
        }
        if let Some(backups) = backups {
            process.arg("--backups").arg(backups);
        }
        if !command.is_empty() {
            process.arg("--").args(command);
        }
        process.env("DATABASE_URL", url).stdin(Stdio::null());
        process.stdout(log.try_clone().expect("a log")).stderr(log).process_group(0);
        Self { process: process.spawn().expect("the program"), directory }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.process.id().to_string()).status();
        assert!(sent.expect("kill").success());
    }

    /// Kills it with all that it has started, as a pod's first process takes the others along.
    pub fn kill_all(&self) {
        let group = format!("-{}", self.process.id());
        let sent = Command::new("kill").args(["-9", "--", &group]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let status = self.process.wait().expect("its end");
        let message = fs::read_to_string(self.directory.path().join("message")).ok();
        let report = message.map(|message| serde_json::from_str(&message).expect("a report"));
        let output = fs::read_to_string(self.directory.path().join("log")).expect("its log");
        Ended { report, status, output }
    }
}
