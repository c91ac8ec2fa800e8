//! Measures what the operator costs and how quick it is: on a cluster of its own with simulated
//! nodes, from outside, with the program that is released. `make bench` runs it.

mod cluster;
mod eyes;
mod fleet;
mod measures;
mod peers;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use cluster::Cluster;
use fleet::Fleet;
use measures::{Bench, canary, crowd, failover, quickness, rest};
use process::Operator;

/// How long after its work the operator's memory is looked at.
const CALM: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Cli {
    /// The operator's program, of a release build.
    #[arg(long, default_value = "target/release/service-release-operator")]
    program: PathBuf,
    /// Release with 500 at the same moment, too (some minutes more).
    #[arg(long)]
    five_hundred: bool,
    /// Take only these measures; all if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    Canary,
    Quickness,
    Rest,
    Crowd,
    Thousand,
}

impl Cli {
    fn wants(&self, measure: Measure) -> bool {
        self.only.is_empty() || self.only.contains(&measure)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let start = Instant::now();
    let root = std::env::current_dir()?;
    let files = root.join("target/bench");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files)?;
    let program = files.join("service-release-operator");
    cluster::run(Command::new("strip").arg("-o").arg(&program).arg(&cli.program))
        .context("the operator's program cannot be stripped; build it with cargo build --release")?;
    let load = load();
    eprintln!("starting the cluster");
    let cluster = Cluster::start(&root, &files).await?;
    let fleet = Fleet::new(&cluster.client);
    let mut bench = Bench { cluster, fleet, program, rows: Vec::new(), notes: Vec::new() };
    let measured = measure(&mut bench, cli).await;
    if !cli.keep {
        Cluster::end(&root)?;
    }
    let text = report(&bench, &load, start);
    fs::write(root.join("target/bench.md"), &text)?;
    println!("{text}");
    measured
}

async fn measure(bench: &mut Bench, cli: &Cli) -> Result<()> {
    bench.binary()?;
    let operator = Operator::leading(&bench.cluster, &bench.program).await?;
    tokio::time::sleep(CALM).await;
    bench.memory(&operator, peers::MEMORY_0)?;
    if cli.wants(Measure::Canary) {
        eprintln!("one canary after the other");
        canary::measure(bench).await?;
    }
    if cli.wants(Measure::Quickness) {
        eprintln!("changed images, crashing pods");
        quickness::image_changes(bench).await?;
        quickness::aborts(bench).await?;
    }
    measure_hundreds(bench, cli, &operator).await?;
    if cli.wants(Measure::Thousand) {
        measure_thousand(bench, operator).await?;
    }
    Ok(())
}

async fn measure_hundreds(bench: &mut Bench, cli: &Cli, operator: &Operator) -> Result<()> {
    let (rest, crowd) = (cli.wants(Measure::Rest), cli.wants(Measure::Crowd));
    if rest || crowd {
        eprintln!("100 objects");
        bench.fleet.grow(100).await?;
        tokio::time::sleep(CALM).await;
        bench.memory(operator, peers::MEMORY_100)?;
    }
    if rest {
        rest::requests(bench).await?;
    }
    if crowd {
        crowd::measure(bench, operator, 100).await?;
    }
    if rest || (crowd && cli.five_hundred) {
        eprintln!("500 objects");
        bench.fleet.grow(500).await?;
        tokio::time::sleep(CALM).await;
    }
    if rest {
        rest::cpu(bench, operator).await?;
    }
    if crowd && cli.five_hundred {
        crowd::measure(bench, operator, 500).await?;
    }
    Ok(())
}

async fn measure_thousand(bench: &mut Bench, operator: Operator) -> Result<()> {
    eprintln!("1000 objects");
    bench.fleet.grow(1000).await?;
    tokio::time::sleep(CALM).await;
    bench.memory(&operator, peers::MEMORY_1000)?;
    let operator = failover::restart(bench, operator, 1000).await?;
    tokio::time::sleep(CALM).await;
    bench.memory(&operator, peers::MEMORY_FRESH)?;
    failover::take_over(bench, operator).await
}

fn report(bench: &Bench, load: &str, start: Instant) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let notes: String = bench.notes.iter().map(|note| format!("- {note}\n")).collect();
    format!(
        "# What the operator costs, and how quick it is\n\n{}\nOurs: this machine, {cores} cores, load {load} at the \
         start, {:.0} s in all; the peers: {}. Times and CPU are absolute and of different hours, also where a ratio \
         is given; sizes and counts of requests compare as they are. Requests are counted in the API server's audit \
         log, by user.\n\n{notes}",
        peers::table(&bench.rows),
        start.elapsed().as_secs_f64(),
        peers::SOURCE,
    )
}

/// The machine's load: other work on it makes all times longer.
fn load() -> String {
    let text = fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
