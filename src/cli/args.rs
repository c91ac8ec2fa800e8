//! The command line: what can be said, and how `--help` explains it. Nothing is done here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::Duration;

/// What each exit code means; the same for all commands, and part of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; with status: Healthy
  1  an error: wrong usage, no access, no such release, findings of lint, analyze without data
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
    /// What the next release would do, step by step, and what would happen if a step failed
    Plan(Plan),
    /// The log of the release under way, or the last one, as Markdown: times, people, evidence, what to do
    Report(Report),
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
    /// Pass the approval under way, or approve a plan for the database
    Approve(Approve),
    /// Pass the pause, the held failure or the verdicts under way that are not Pass
    Skip(Say),
    /// Check manifests without a cluster: mistakes, and what would lose requests
    Lint(Lint),
    /// Judge a past window from Prometheus, as the operator would have, or stable against itself
    Analyze(Box<Analyze>),
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

/// How `analyze` is used, below its `--help`.
const ANALYZE_HELP: &str = "\
Examples:
  # the last release of shop, by the metrics of the cluster's manifest, then by those of an edited one
  kubectl srel analyze shop --prometheus http://localhost:9090
  kubectl srel analyze shop -f release.yaml --prometheus http://localhost:9090

  # any window, without a cluster
  kubectl srel analyze -f release.yaml --prometheus http://localhost:9090 --metric errors-vs-stable \\
    --from 2026-11-20T10:00:00Z --to 2026-11-20T11:00:00Z --revision 7c9f --stable-revision 5d8b

  # how often would two halves of the same pods have been told apart?
  kubectl srel analyze -f release.yaml --prometheus http://localhost:9090 --aa \\
    --from 2026-11-20T00:00:00Z --to 2026-11-20T06:00:00Z --stable-pods 'shop-5d8b-.*'

  kubectl -n monitoring port-forward svc/prometheus 9090    # makes http://localhost:9090

Exit codes: 0 judged, whatever the verdict; 1 an error, or a metric that found no data.";

/// `analyze`
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = ANALYZE_HELP)]
pub struct Analyze {
    /// A release in the cluster: its analysis, and the window and revisions of its last release. With -f: the
    /// window and revisions only, unless all are given
    pub name: Option<String>,
    /// The manifest whose spec.analysis is judged by; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required_unless_present = "name")]
    pub filename: Option<PathBuf>,
    /// Judge look by look as the operator would have; the default
    #[arg(long, conflicts_with = "aa")]
    pub replay: bool,
    /// Split the pods of stable at random into a pretended candidate and stable, many times, and tell how often
    /// that fails
    #[arg(long)]
    pub aa: bool,
    /// Only this metric; can be given several times
    #[arg(long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// Print in this format
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
    /// Where Prometheus is.
    #[command(flatten)]
    pub source: PrometheusArgs,
    /// What is looked at.
    #[command(flatten)]
    pub window: WindowArgs,
    /// How pods are split.
    #[command(flatten)]
    pub split: SplitArgs,
}

/// Where the Prometheus of `analyze` is, and who asks.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Prometheus")]
pub struct PrometheusArgs {
    /// Its address, http or https; what comes before /api/v1
    #[arg(long = "prometheus", value_name = "URL", env = "PROMETHEUS_URL", hide_env_values = true)]
    pub address: String,
    /// A header to send, such as 'Authorization: Bearer ...'; can be given several times, in the variable one a line
    #[arg(
        long = "header",
        value_name = "NAME: VALUE",
        env = "PROMETHEUS_HEADERS",
        hide_env_values = true,
        value_delimiter = '\n'
    )]
    pub headers: Vec<String>,
    /// A file with certificates to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Without the values of headers, and without the address, which may hold a password.
impl std::fmt::Debug for PrometheusArgs {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PrometheusArgs").field("headers", &self.headers.len()).finish_non_exhaustive()
    }
}

/// The window of `analyze`, and whose pods are compared in it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Window")]
pub struct WindowArgs {
    /// When the candidate began to have traffic, such as 2026-11-20T10:00:00Z; default: as NAME's status has it
    #[arg(long, value_name = "TIME", requires = "to")]
    pub from: Option<String>,
    /// The end of the window
    #[arg(long, value_name = "TIME", requires = "from")]
    pub to: Option<String>,
    /// The candidate's revision; default: as NAME's status has it
    #[arg(long, value_name = "HASH")]
    pub revision: Option<String>,
    /// Stable's revision; default: as NAME's status has it
    #[arg(long, value_name = "HASH")]
    pub stable_revision: Option<String>,
    /// A regular expression for the names of the candidate's pods, in place of that which its revision makes
    #[arg(long, value_name = "REGEX")]
    pub candidate_pods: Option<String>,
    /// The same for stable's
    #[arg(long, value_name = "REGEX")]
    pub stable_pods: Option<String>,
}

/// How `analyze --aa` splits pods.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "A/A runs (--aa)")]
pub struct SplitArgs {
    /// How many splits, all different; if there are no more than these, each is made
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// The percentage of the pods that play the candidate; at least one does, and one stays
    #[arg(long, default_value_t = 50, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub candidate_share: u8,
    /// What the dice begin with: the same makes the same splits
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The label of the series that names the pod
    #[arg(long, default_value = "pod", value_name = "LABEL")]
    pub pod_label: String,
}

impl Default for SplitArgs {
    fn default() -> Self {
        Self { runs: 200, candidate_share: 50, seed: 1, pod_label: "pod".to_owned() }
    }
}

/// `plan`
#[derive(Args, Debug)]
pub struct Plan {
    /// The ServiceRelease
    pub name: String,
    /// The plan of this manifest, before it is applied; - is standard input. A ConfigMap in it goes before the cluster's
    #[arg(short, long, value_name = "FILE")]
    pub filename: Option<PathBuf>,
    /// Print in this format
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `report`
#[derive(Args, Debug)]
pub struct Report {
    /// The ServiceRelease
    pub name: String,
}

/// `approve`
#[derive(Args, Debug)]
pub struct Approve {
    /// What every command has.
    #[command(flatten)]
    pub say: Say,
    /// Approve the migration with this plan (status.database.planHash)
    #[arg(long, value_name = "PLAN", conflicts_with_all = ["migrate_down", "restore"])]
    pub migration: Option<String>,
    /// Approve that the migration is taken back by this plan (status.database.migrationDown.planHash)
    #[arg(long, value_name = "PLAN", conflicts_with = "restore")]
    pub migrate_down: Option<String>,
    /// Approve that the backup of the release with this plan is restored
    #[arg(long, value_name = "PLAN")]
    pub restore: Option<String>,
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
