//! How soon the work goes on after a restart, after the leader's death, and after its orderly end.

use std::time::Instant;

use anyhow::{Result, bail};

use super::{Bench, spread};
use crate::{
    fleet::Fleet,
    peers::{self, Row},
    process::Operator,
};

const TIMES: usize = 3;

/// Restarts the operator over so many objects, several times.
pub async fn restart(bench: &mut Bench, mut operator: Operator, objects: usize) -> Result<Operator> {
    let (mut ready, mut all) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        operator.end()?;
        operator = Operator::start(&bench.cluster, &bench.program, 0)?;
        ready.push(operator.wait("is ready", Operator::ready).await?.as_secs_f64());
        let seen = operator.wait("has seen everything", |operator| operator.has_seen(objects)).await?;
        all.push(seen.as_secs_f64());
    }
    let (median, most) = spread(all);
    bench.show(Row::new(peers::RESTARTED, format!("{median:.2} (max of {TIMES}: {most:.2})"), median));
    let (median, _) = spread(ready);
    bench.note(format!("After a restart with {objects} objects the cache was complete in {median:.2} s."));
    Ok(operator)
}

/// Ends the leader in two ways, with a standby beside it, and changes an image at the same moment.
pub async fn take_over(bench: &mut Bench, operator: Operator) -> Result<()> {
    let standby = Operator::start(&bench.cluster, &bench.program, 1)?;
    standby.wait("is ready", Operator::ready).await?;
    let mut pair = [operator, standby];
    for (kill, peers) in [(true, peers::KILLED), (false, peers::HANDED_OVER)] {
        let mut took = Vec::new();
        for _ in 0..TIMES {
            took.push(once(bench, &mut pair, kill).await?);
        }
        let (median, most) = spread(took);
        bench.show(Row::new(peers, format!("{median:.2} (max of {TIMES}: {most:.2})"), median));
    }
    Ok(())
}

async fn once(bench: &mut Bench, pair: &mut [Operator; 2], kill: bool) -> Result<f64> {
    let Some(leader) = pair.iter().position(Operator::leads) else { bail!("nobody leads") };
    let release = Fleet::name(0);
    let image = bench.fleet.next_image();
    let created = bench.fleet.eyes.replica_set(&release, &image);
    let healthy = bench.fleet.eyes.healthy(&release, &image);
    let start = Instant::now();
    if kill {
        pair[leader].kill()?;
    } else {
        pair[leader].terminate()?;
    }
    bench.fleet.set_image(&release, &image).await?;
    let took = (created.at().await? - start).as_secs_f64();
    healthy.at().await?;
    let index = pair[leader].index;
    // The one that is replaced is waited for when it is dropped.
    pair[leader] = Operator::start(&bench.cluster, &bench.program, index)?;
    pair[leader].wait("is ready", Operator::ready).await?;
    Ok(took)
}
