//! What the operator does when nothing happens.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use crate::{
    peers::{self, Row},
    process::Operator,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Requests in a minute, but for watches and the lease.
pub async fn requests(bench: &mut Bench) -> Result<()> {
    let mark = bench.cluster.mark()?;
    tokio::time::sleep(MINUTE).await;
    let requests = mark.requests()?;
    let avoidable = requests.avoidable();
    bench.show(Row::new(peers::REST_REQUESTS, avoidable.to_string(), avoidable as f64));
    bench.note(format!("A minute at rest with 100 objects: {}.", requests.list()));
    Ok(())
}

/// CPU in a minute.
pub async fn cpu(bench: &mut Bench, operator: &Operator) -> Result<()> {
    let (before, start) = (operator.cpu()?, Instant::now());
    tokio::time::sleep(MINUTE).await;
    let used = (operator.cpu()? - before) * MINUTE.as_secs_f64() / start.elapsed().as_secs_f64();
    bench.show(Row::new(peers::REST_CPU, format!("{used:.3}"), used));
    Ok(())
}
