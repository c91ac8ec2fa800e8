//! The operator's program: `run` is the operator, `crd` prints what it adds to the cluster's API, and the rest is what
//! Jobs of its image run in the namespaces of releases.

mod runner;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand};
use kube::Config;
use servicerelease::{
    api, checks,
    controller::{self, jobs::Runner, lease},
    engine, metrics,
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
    #[command(flatten)]
    Runner(runner::Command),
    /// Print the CustomResourceDefinitions as YAML.
    Crd {
        /// Print only this one: servicereleases or releasecommands.
        plural: Option<String>,
    },
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
        Command::Runner(command) => runner::run(command),
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
        runner: run.runner_image.map(|image| Runner {
            image,
            pull_policy: run.runner_pull_policy,
            allowed_hosts: run.allowed_hosts.clone(),
        }),
        allowed_hosts: run.allowed_hosts,
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
