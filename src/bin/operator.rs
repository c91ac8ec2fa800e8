//! The operator's program: `run` is the operator, `crd` prints what it adds to the cluster's API.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use kube::Config;
use servicerelease::{
    api, checks,
    controller::{self, jobs::Runner, lease},
    database, engine, metrics,
    telemetry::{LogFormat, init_logs},
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch ServiceReleases and carry out their releases.
    Run(Box<Run>),
    /// Look at keys of Secrets and ConfigMaps that are mounted as files: what the Job of a check by keys runs.
    CheckKeys(CheckKeys),
    /// Ask once by HTTP, with headers from the environment: what the Job of a check with headers from Secrets runs.
    CheckHttp(CheckHttp),
    /// Ask a database once, whose URL is in the environment: what the Job of a check by SQL runs.
    CheckSql(CheckSql),
    /// Apply SQL files to the database whose URL is in the environment, each once.
    Migrate(Migrate),
    /// Print the CustomResourceDefinitions as YAML.
    Crd {
        /// Print only this one: servicereleases or releasecommands.
        plural: Option<String>,
    },
}

#[derive(Args)]
struct CheckHttp {
    /// The addresses, the request and what is expected, as JSON.
    #[arg(long)]
    question: String,
    /// Where the finding is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

#[derive(Args)]
struct CheckSql {
    /// The statement and what is expected, as JSON.
    #[arg(long)]
    question: String,
    /// Where the finding is left for the kubelet.
    #[arg(long, default_value = "/dev/termination-log")]
    message: PathBuf,
}

#[derive(Args)]
struct Migrate {
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

#[derive(Args)]
struct CheckKeys {
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

#[derive(Args)]
struct Run {
    /// The namespaces to watch, separated by commas; all if not given.
    #[arg(long, env = "NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// How many releases are looked at at the same time.
    #[arg(long, env = "CONCURRENCY", default_value_t = 16)]
    concurrency: usize,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "HEALTH_ADDR", default_value = "0.0.0.0:8080")]
    health_addr: SocketAddr,
    /// The custom routers by their names, as JSON (chart value `routers`).
    #[arg(long, env = "ROUTERS", default_value = "")]
    routers: controller::routers::Routers,
    /// Where metrics are asked for, by name, as JSON (chart value `providers`).
    #[arg(long, env = "PROVIDERS", default_value = "")]
    providers: metrics::Providers,
    /// Hosts beyond releases that checks may ask, separated by commas (chart value `allowedHosts`).
    #[arg(long, env = "ALLOWED_HOSTS", default_value = "")]
    allowed_hosts: checks::AllowedHosts,
    /// The image of Jobs that run the operator's own program in a release's namespace: the operator's.
    #[arg(long, env = "RUNNER_IMAGE")]
    runner_image: Option<String>,
    /// When that is pulled: Always, IfNotPresent or Never.
    #[arg(long, env = "RUNNER_PULL_POLICY", default_value = "IfNotPresent")]
    runner_pull_policy: String,
    /// How log lines look. What is logged is chosen by RUST_LOG.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    lease: Lease,
}

#[derive(Args)]
struct Lease {
    /// Work without a Lease. Only for one process alone.
    #[arg(long)]
    no_leader_election: bool,
    /// The namespace of the Lease; the operator's own if not given.
    #[arg(long, env = "LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// The name of the Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "service-release-operator")]
    lease_name: String,
    /// Seconds without a renewal after which a standby takes over.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=60))]
    lease_seconds: u32,
    /// Milliseconds between renewals; less than half of the lease.
    #[arg(long, env = "LEASE_RENEW_MILLIS", default_value_t = 1500)]
    lease_renew_millis: u64,
    /// Who holds the Lease, for people: the pod's name if not given.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Crd { plural } => print_crds(plural.as_deref()),
        Command::CheckKeys(check) => check_keys(&check),
        Command::CheckHttp(check) => check_http(check),
        Command::CheckSql(check) => check_sql(&check),
        Command::Migrate(migrate) => apply(migrate),
        Command::Run(run) => start(*run),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("service-release-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_crds(plural: Option<&str>) -> Result<(), Box<dyn std::error::Error>> {
    let all = api::crds::all()?;
    let wanted: Vec<_> = all.into_iter().filter(|(name, _)| plural.is_none_or(|plural| plural == *name)).collect();
    if wanted.is_empty() {
        return Err("there is no such CRD: servicereleases or releasecommands".into());
    }
    let texts: Vec<String> = wanted.into_iter().map(|(_, text)| text).collect();
    print!("{}", texts.join("---\n"));
    Ok(())
}

fn check_keys(check: &CheckKeys) -> Result<(), Box<dyn std::error::Error>> {
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
async fn check_http(check: CheckHttp) -> Result<(), Box<dyn std::error::Error>> {
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
async fn check_sql(check: &CheckSql) -> Result<(), Box<dyn std::error::Error>> {
    controller::use_ring();
    let question: engine::SqlQuestion = serde_json::from_str(&check.question)?;
    let url = std::env::var(database::URL).map_err(|_| format!("{} is not set", database::URL))?;
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
async fn apply(migrate: Migrate) -> Result<(), Box<dyn std::error::Error>> {
    controller::use_ring();
    let Migrate { files, set, release, lock_timeout, timeout, plan, message } = migrate;
    let millis = |duration: api::Duration| Duration::from_millis(duration.as_millis());
    let (lock_timeout, timeout) = (millis(lock_timeout), millis(timeout));
    let settings = database::migrate::Settings { set, release, lock_timeout, timeout, plan };
    let report = match (std::env::var(database::URL), database::migrate::files::read(&files)) {
        (Err(_), _) => database::migrate::Report::not_begun(format!("{} is not set", database::URL)),
        (_, Err(wrong)) => database::migrate::Report::not_begun(wrong.to_string()),
        (Ok(url), Ok(files)) => database::migrate::run(&url, &files, &settings).await,
    };
    let text = serde_json::to_string(&report)?;
    let _ = std::fs::write(&message, &text);
    println!("{text}");
    match report.outcome {
        database::migrate::Outcome::Applied => Ok(()),
        outcome => Err(format!("{outcome:?}: {}", report.why.unwrap_or_default()).into()),
    }
}

#[tokio::main]
async fn start(run: Run) -> Result<(), Box<dyn std::error::Error>> {
    init_logs(run.log_format);
    controller::log_panics();
    controller::use_ring();
    let config = Config::infer().await?;
    let host = run.lease.identity.clone().or_else(hostname).unwrap_or_else(|| "operator".into());
    let options = controller::Options {
        lease: lease_settings(&run.lease, &config, &host)?,
        config,
        namespaces: run.namespaces,
        concurrency: run.concurrency,
        health: Some(run.health_addr),
        instance: host,
        routers: run.routers,
        providers: run.providers,
        allowed_hosts: run.allowed_hosts,
        runner: run.runner_image.map(|image| Runner { image, pull_policy: run.runner_pull_policy }),
        decide: Arc::new(engine::decide),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(controller::run(options, stop).await?)
}

fn lease_settings(lease: &Lease, config: &Config, host: &str) -> Result<Option<lease::Settings>, String> {
    if lease.no_leader_election {
        return Ok(None);
    }
    let renew = Duration::from_millis(lease.lease_renew_millis);
    if renew * 2 > Duration::from_secs(lease.lease_seconds.into()) {
        return Err("--lease-renew-millis must be at most half of --lease-seconds".into());
    }
    Ok(Some(lease::Settings {
        namespace: lease.lease_namespace.clone().unwrap_or_else(|| config.default_namespace.clone()),
        name: lease.lease_name.clone(),
        identity: lease::identity(host),
        seconds: lease.lease_seconds,
        renew,
    }))
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
