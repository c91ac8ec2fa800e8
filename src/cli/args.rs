//! The command line: what can be said, and how `--help` explains it. Nothing is done here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::Duration;

/// What each exit code means; the same for all commands, and part of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; with status: Healthy
  1  an error: wrong usage, no access, no such release, findings of lint
  2  status: RolledBack, stable serves and not the spec
  3  status: Halted, it cannot go on without a person
  4  status: Invalid, the manifest cannot be acted on
  5  status: it waits for a person (at once with --no-wait-for-person, else when the time is up)
  6  no outcome or answer before the time was up (with --watch=false: not yet)
  7  the command was rejected by the operator";

/// See what a release is doing, and tell it what to do.
#[derive(Debug, Parser)]
#[command(name = "kubectl-srel", bin_name = "kubectl srel", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Where and as whom.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the cluster is and who asks, with kubectl's names.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster")]
pub struct Connection {
    /// The namespace; default: that of the context
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The context of the kubeconfig; default: the current one
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The kubeconfig file; default: $KUBECONFIG, then ~/.kube/config, then the pod's own account
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Act as this user (impersonation)
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Act as a member of this group; can be given several times
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_groups: Vec<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List releases, or show one with its pods, step, weight and reasons
    Get(Get),
    /// Wait until the spec as it is now is released or has failed; for pipelines
    Status(Status),
    /// The releases so far, how each ended, and the timeline
    History(History),
    /// Pass the pause under way, or switch a blue-green release
    Promote(Promote),
    /// Take the release under way back
    Abort(Say),
    /// Go back to an earlier revision after a promotion
    Undo(Undo),
    /// Try the failed revision again
    Retry(Say),
    /// Stay at the step under way
    Pause(Say),
    /// Go on after pause, or pass a pause without duration
    Resume(Say),
    /// Pass the approval under way
    Approve(Say),
    /// Pass the pause or the held failure under way
    Skip(Say),
    /// Check manifests without a cluster: mistakes, and what would lose requests
    Lint(Lint),
    /// Print the completion script for a shell
    Completion(Completion),
    /// Names that can complete a command line, as kubectl asks plugins for them
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
}

/// Machine-readable formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// `get`
#[derive(Args, Debug)]
pub struct Get {
    /// The release; without it all are listed
    pub name: Option<String>,
    /// Show changes as they happen
    #[arg(short, long)]
    pub watch: bool,
    /// List the releases of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,
    /// Print in this format
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `status`
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct Status {
    /// The release
    pub name: String,
    /// How long to wait for the outcome, such as 90s or 1h30m
    #[arg(long, default_value = "10m")]
    pub timeout: Duration,
    /// With false: say how it stands now and do not wait
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub watch: bool,
    /// Do not go on waiting while the release waits for a person; exit with 5
    #[arg(long)]
    pub no_wait_for_person: bool,
    /// Print the outcome in this format, and nothing else
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `history`
#[derive(Args, Debug)]
pub struct History {
    /// The release
    pub name: String,
    /// Print in this format
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// What all commands to a release have in common.
#[derive(Args, Clone, Debug)]
pub struct Say {
    /// The release
    pub name: String,
    /// Why, for the timeline
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long to wait for the operator's answer; 0s does not wait
    #[arg(long, default_value = "30s")]
    pub timeout: Duration,
    /// Print the command as a manifest and do not send it
    #[arg(long)]
    pub dry_run: bool,
    /// Print the command with the operator's answer in this format
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `promote`
#[derive(Args, Debug)]
pub struct Promote {
    /// To which release, why, and how long to wait.
    #[command(flatten)]
    pub say: Say,
    /// Pass all pauses that are left; approvals and checks stay
    #[arg(long)]
    pub full: bool,
}

/// `undo`
#[derive(Args, Debug)]
pub struct Undo {
    /// To which release, why, and how long to wait.
    #[command(flatten)]
    pub say: Say,
    /// The revision to go back to; default: the one before
    #[arg(long, value_name = "REVISION")]
    pub to: Option<String>,
}

/// `lint`
#[derive(Args, Debug)]
pub struct Lint {
    /// Files or directories; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    pub filenames: Vec<PathBuf>,
    /// Look into the directories inside directories, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Exit with 1 for warnings, too
    #[arg(long)]
    pub strict: bool,
    /// Print the findings in this format
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `completion`
#[derive(Args, Debug)]
pub struct Completion {
    /// The shell; kubectl stands for the script that kubectl itself asks, to be put into the PATH as kubectl_complete-srel
    #[arg(value_enum)]
    pub shell: Shell,
}

/// What can be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // names of shells
pub enum Shell {
    Bash,
    Zsh,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Kubectl,
}

/// `__complete`
#[derive(Args, Debug)]
pub struct Complete {
    /// The words so far; the last one is the one to complete
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kubectls_words_for_the_connection_can_stand_anywhere() {
        let cli = Cli::parse_from(["x", "get", "shop", "-n", "production", "--context", "eu"]);
        assert_eq!(cli.connection.namespace.as_deref(), Some("production"));
        let cli = Cli::parse_from(["x", "-n", "production", "abort", "shop"]);
        assert_eq!(cli.connection.namespace.as_deref(), Some("production"));
    }

    #[test]
    fn watch_of_status_is_on_unless_it_is_switched_off() {
        for (words, watch) in [(vec![], true), (vec!["--watch"], true), (vec!["--watch=false"], false)] {
            let line = ["x", "status", "shop"].into_iter().chain(words);
            let Command::Status(status) = Cli::parse_from(line).command else { panic!("not status") };
            assert_eq!(status.watch, watch);
        }
    }
}
