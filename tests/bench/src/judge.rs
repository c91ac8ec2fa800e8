//! Simulates releases, good and bad, and writes how often each way to judge them aborts. `make bench-judge`
//! runs it; nothing of it needs a cluster.

use std::{fs, process::ExitCode};

use clap::Parser;
use servicerelease::judge::simulation::{Releases, table};

#[derive(Parser)]
struct Cli {
    /// Releases for each figure.
    #[arg(long, default_value_t = 2000)]
    runs: u32,
    /// What the dice begin with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let text = table(&Releases::usual(cli.runs, cli.seed));
    println!("{text}");
    match fs::create_dir_all("target").and_then(|()| fs::write("target/bench-judge.md", text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: target/bench-judge.md: {error}");
            ExitCode::FAILURE
        }
    }
}
