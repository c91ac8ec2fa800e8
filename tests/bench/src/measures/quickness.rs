//! How soon the operator acts: on a changed image, and on a pod that crashes.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Bench, spread};
use crate::{
    eyes::Kind,
    fleet::Shape,
    peers::{self, Row},
};

const CHANGES: usize = 12;
const FAILURES: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// From the changed object to the candidate's ReplicaSet, both as another client's watches see them.
pub async fn image_changes(bench: &mut Bench) -> Result<()> {
    let name = "quick".to_owned();
    bench.fleet.make(&Shape { name: name.clone(), replicas: 1, candidate_service: false }).await?;
    let mut took = Vec::new();
    for _ in 0..CHANGES {
        tokio::time::sleep(PAUSE).await;
        let image = bench.fleet.next_image();
        let eyes = &bench.fleet.eyes;
        let (changed, created) = (eyes.changed(&name, &image), eyes.replica_set(&name, &image));
        bench.fleet.release(&name, &image).await?;
        took.push((created.at().await? - changed.at().await?).as_secs_f64() * 1e3);
    }
    let (median, most) = spread(took);
    bench.row(peers::CREATED_P50, median);
    bench.row(peers::CREATED_MAX, most);
    Ok(())
}

/// From the report that a candidate's pod crashes to the rollback in the status.
pub async fn aborts(bench: &mut Bench) -> Result<()> {
    let name = "broken".to_owned();
    bench.fleet.make(&Shape { name: name.clone(), replicas: 1, candidate_service: false }).await?;
    let mut took = Vec::new();
    for attempt in 0..FAILURES {
        tokio::time::sleep(PAUSE).await;
        let eyes = &bench.fleet.eyes;
        let mark = format!("attempt-{attempt}");
        let crashed = {
            let mark = mark.clone();
            eyes.first(Kind::Pod, &name, move |pod| {
                let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
                pod["metadata"]["annotations"]["attempt"] == mark.as_str() && waiting["reason"] == "CrashLoopBackOff"
            })
        };
        let number = i64::try_from(attempt)? + 2;
        let in_release = move |release: &serde_json::Value, phase: &[&str]| {
            let status = &release["status"];
            status["release"]["number"] == number && phase.iter().any(|phase| status["phase"] == *phase)
        };
        let recorded = eyes.first(Kind::Release, &name, move |it| in_release(it, &["RollingBack", "RolledBack"]));
        let over = eyes.first(Kind::Release, &name, move |it| in_release(it, &["RolledBack"]));
        let template = json!({ "metadata": { "annotations": { "devcluster/simulate": "crash", "attempt": mark } } });
        bench.fleet.set_template(&name, template).await?;
        let (crashed, recorded) = (crashed.at().await?, recorded.at().await?);
        took.push(recorded.saturating_duration_since(crashed).as_secs_f64());
        over.at().await?;
    }
    let (median, most) = spread(took);
    bench.show(Row::new(peers::ABORTED, format!("{median:.3} (max of {FAILURES}: {most:.3})"), median));
    Ok(())
}
