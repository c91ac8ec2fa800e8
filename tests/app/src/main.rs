//! The application under release: `testapp serve` is the service, healthy or broken on
//! request, and `testapp load` is the client that calls it throughout and counts what it lost.
//! Every flag can also be set by environment, so that a manifest says what its version does.

mod behaviour;
mod connection;
mod http;
mod load;
mod outcome;
mod series;
mod serve;
mod stats;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The application that the demo and the end-to-end tests release, and its client.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer requests, well or badly.
    Serve(serve::Args),
    /// Send requests at a steady rate and count what fails.
    Load(load::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Load(args) => load::run(args).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("testapp: {error:#}");
        ExitCode::from(2)
    })
}

/// The request to stop, by whoever runs the process: SIGTERM from a kubelet, SIGINT from a
/// terminal. As process 1 of a container it must be asked for: the default there is to ignore.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reads "500ms", "5s", "1m 30s".
fn duration(text: &str) -> Result<Duration, String> {
    jiff::fmt::friendly::SpanParser::new()
        .parse_unsigned_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 5s or 1m30s"))
}

/// Reads a share of one.
fn fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("write a number from 0 to 1".to_owned()),
    }
}

/// A point in time as all output has it: UTC, with milliseconds.
fn stamp(at: jiff::Timestamp) -> String {
    format!("{at:.3}")
}
