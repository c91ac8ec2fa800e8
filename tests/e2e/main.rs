//! Scenarios on a real cluster: real pods, a real client that never retries, nothing mocked.
//! `make e2e`, or `cargo test --test e2e -- PART-OF-A-NAME`; see README.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod harness;
mod scenarios;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    harness::runner::main(scenarios::ALL).await
}
