//! The kubectl plugin: `kubectl srel`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    ExitCode::from(servicerelease::cli::main().await)
}
