//! How long it takes from a candidate that goes bad to all requests on stable: by a metric, at several intervals, by
//! its readiness probe, and by a crash. Each writes its row into target/bench-rollback.md (`make bench-gateway`).

use std::{io::Write as _, path::Path};

use jiff::Timestamp;
use servicerelease::api::{Phase, ServiceReleaseStatus, VerdictOutcome};

use crate::{
    harness::{
        Scenario, World,
        k6::{Count, K6},
        note,
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_metric_every_second, Bench, Prometheus;
    a_metric_every_two_seconds, Bench, Prometheus;
    a_metric_every_five_seconds, Bench, Prometheus;
    a_readiness_probe, Bench, Prometheus;
    a_crash, Bench, Prometheus;
};

/// Rollbacks for each row.
const RUNS: usize = 6;

/// A way to go bad, and what sees it.
struct Row<'a> {
    name: String,
    /// The metric of the release.
    metric: &'a str,
    /// Seconds between two measurements.
    interval: u32,
    /// What the candidate's pods are told to do.
    change: &'a str,
    /// Why it is rolled back.
    reason: &'a str,
    /// Whether requests fail by what the pods do.
    fails_requests: bool,
}

async fn a_metric_every_second(world: World) {
    metric(&world, 1).await;
}

async fn a_metric_every_two_seconds(world: World) {
    metric(&world, 2).await;
}

async fn a_metric_every_five_seconds(world: World) {
    metric(&world, 5).await;
}

const RESTARTS: &str = "{name: pods, workload: {}}";

async fn a_readiness_probe(world: World) {
    let name = "readiness probe, 3 failures 1 s apart".to_owned();
    let change = "{\"never_ready\": true}";
    let row = Row { name, metric: RESTARTS, interval: 10, change, reason: "NotReady", fails_requests: true };
    measured(&world, row).await;
}

async fn a_crash(world: World) {
    let name = "crash, no restart allowed".to_owned();
    let change = "{\"crash_after_requests\": 0}";
    let row = Row { name, metric: RESTARTS, interval: 10, change, reason: "AnalysisFailed", fails_requests: true };
    measured(&world, row).await;
}

async fn metric(world: &World, interval: u32) {
    // A gauge that breaks no request: none may fail, and each that v2 answers is seen.
    let metric = "{name: pool, prometheus: {query: 'max(db_pool_active{pod=~\"{{pods}}\"})'}, threshold: {max: 10}}";
    let (name, change) = (format!("metric every {interval} s"), "{\"pool_active\": 20}");
    let row = Row { name, metric, interval, change, reason: "AnalysisFailed", fails_requests: false };
    measured(world, row).await;
}

async fn measured(world: &World, row: Row<'_>) {
    let Row { name, metric, interval, change, reason, fails_requests } = row;
    let spec = format!(
        "{{strategy: {{canary: {{steps: [{{setWeight: 50}}, {{pause: {{}}}}]}}}}, \
         analysis: {{interval: {interval}s, metrics: [{metric}]}}, \
         template: {{metadata: {{annotations: {{prometheus.io/scrape: 'true', prometheus.io/port: '8080'}}}}}}}}"
    );
    let shop = world.routed_shop("GATEWAY", &spec).await;
    let k6 = K6::start(world).await;
    let mut took = Vec::new();
    for run in 0..RUNS {
        shop.release("v2", &[("RUN", &run.to_string())]).await;
        let good = |status: &ServiceReleaseStatus| {
            let passed = status.verdicts.first().is_some_and(|it| it.outcome == VerdictOutcome::Pass);
            status.phase == Phase::Paused && passed
        };
        let revision = shop.reaches("paused, and well", good).await.candidate.unwrap().revision;
        world.behave(&revision, change).await;
        let bad = Timestamp::now();
        let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
        assert_eq!(status.reason, reason, "{}", status.message);
        // Those that failed were the candidate's, too.
        let given = |count: &Count| count.v2 + count.failed;
        let counts = k6.counts();
        let last =
            counts.windows(2).rev().find(|pair| given(&pair[1]) > given(&pair[0])).map_or(bad, |pair| pair[1].at);
        took.push(last.duration_since(bad).as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    let failed = k6.last().failed;
    let all: Vec<String> = took.iter().map(|seconds| format!("{seconds:.1}")).collect();
    let row = format!("| {name} | {failed} | {} |", all.join(", "));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench-rollback.md");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("target/bench-rollback.md");
    writeln!(file, "{row}").expect("a row is written");
    note(row);
    let counts = k6.counts();
    let when = counts.windows(2).filter(|pair| pair[1].failed > pair[0].failed).map(|pair| pair[1].at.to_string());
    let when: Vec<String> = when.collect();
    let begun = counts.first().map(|first| first.at);
    k6.end().await;
    assert!(failed == 0 || fails_requests, "{failed} requests failed, of those that began at {begun:?}: {when:?}");
}
