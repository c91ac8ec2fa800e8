//! Many releases at the same moment.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use crate::{
    peers::{self, Peers, Row},
    process::Operator,
};

const AFTERMATH: Duration = Duration::from_secs(3);

/// Releases with so many at once.
pub async fn measure(bench: &mut Bench, operator: &Operator, count: usize) -> Result<()> {
    let (seconds_row, server_row): (Peers, Peers) = match count {
        500 => (peers::CROWD_500, peers::CROWD_SERVER_500),
        _ => (peers::CROWD_100, peers::CROWD_SERVER_100),
    };
    let mark = bench.cluster.mark()?;
    let (server, own) = (bench.cluster.api_server_cpu()?, operator.cpu()?);
    let seconds = bench.fleet.release_together(count).await?;
    let server = bench.cluster.api_server_cpu()? - server;
    let own = operator.cpu()? - own;
    tokio::time::sleep(AFTERMATH).await;
    let requests = mark.requests()?;
    let each = |total: usize| total as f64 / count as f64;
    bench.row(seconds_row, seconds);
    bench.row(server_row, server);
    let (writes, status) = (each(requests.writes()), each(requests.status_writes()));
    bench.show(Row::new(peers::CROWD_WRITES, format!("{writes:.1} ({status:.1})"), writes));
    bench.note(format!("{count} releases at once: {own:.1} CPU seconds of the operator; {}.", requests.list()));
    Ok(())
}
