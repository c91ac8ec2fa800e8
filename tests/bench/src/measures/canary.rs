//! What one two-step canary (setWeight 25, setWeight 50) costs the API server.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use crate::{
    fleet::Shape,
    peers::{self, Row},
};

/// Longer than anything that the operator writes late, such as counts of pods.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Counts the requests of one canary after the other, with nothing beside them.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let mut reads = 0;
    for (replicas, candidate_service) in [(1, false), (1, true), (4, false), (4, true)] {
        let preview = if candidate_service { ", candidateService" } else { "" };
        let what = format!("{replicas} replica{}{preview}", if replicas == 1 { "" } else { "s" });
        let name = format!("canary-{replicas}-{}", if candidate_service { "preview" } else { "plain" });
        bench.fleet.make(&Shape { name: name.clone(), replicas, candidate_service }).await?;
        tokio::time::sleep(AFTERMATH).await;
        let mark = bench.cluster.mark()?;
        let image = bench.fleet.next_image();
        bench.fleet.release(&name, &image).await?;
        tokio::time::sleep(AFTERMATH).await;
        let requests = mark.requests()?;
        let ours = format!("{} ({})", requests.writes(), requests.status_writes());
        let row = if (replicas, candidate_service) == (4, false) {
            Row::new(peers::CANARY, ours, requests.writes() as f64)
        } else {
            Row::named(peers::CANARY_OTHER, format!("the same with {what}"), ours)
        };
        bench.show(row);
        bench.note(format!("Canary with {what}: {}.", requests.list()));
        reads += requests.reads();
    }
    bench.show(Row::new(peers::CANARY_READS, reads.to_string(), reads as f64));
    Ok(())
}
