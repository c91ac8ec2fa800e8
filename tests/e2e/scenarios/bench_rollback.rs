//! How long it takes from data that show a bad candidate to all requests on stable: by a metric, at several intervals,
//! from the first bad sample in Prometheus; by its readiness probe and by a crash, from the pod's status that tells it;
//! and of each from the moment it goes bad. Each writes its row into target/bench-rollback.md (`make bench-gateway`).

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
const RUNS: usize = 10;
/// What a rollback may take beyond the interval of its metric, in seconds.
const BEYOND: f64 = 2.0;
/// What it may take in place of an interval where pods tell: their endpoints go first, one by one, and Traefik takes in a
/// change after the first at most every 2 s.
const THROTTLED: f64 = 0.5;
/// The metric, and its limit.
const POOL: &str = "db_pool_active";
const LIMIT: u32 = 10;

/// A way to go bad, and what sees it.
struct Row<'a> {
    name: String,
    /// The metric of the release.
    metric: &'a str,
    /// Seconds between two measurements; 0 where nothing waits for one.
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
    let row = Row { name, metric: RESTARTS, interval: 0, change, reason: "NotReady", fails_requests: true };
    measured(&world, row).await;
}

async fn a_crash(world: World) {
    let name = "crash, no restart allowed".to_owned();
    let change = "{\"crash_after_requests\": 0}";
    let row = Row { name, metric: RESTARTS, interval: 0, change, reason: "AnalysisFailed", fails_requests: true };
    measured(&world, row).await;
}

async fn metric(world: &World, interval: u32) {
    // A gauge that breaks no request: none may fail, and each that v2 answers is seen.
    let metric = &format!(
        "{{name: pool, prometheus: {{query: 'max({POOL}{{pod=~\"{{{{pods}}}}\"}})'}}, threshold: {{max: {LIMIT}}}}}"
    );
    let (name, change) = (format!("metric every {interval} s"), "{\"pool_active\": 20}");
    let reason = "AnalysisFailed";
    measured(world, Row { name, metric, interval, change, reason, fails_requests: false }).await;
}

/// The time of the first sample over the limit that Prometheus has of a revision's pods since a moment.
async fn first_bad_sample(world: &World, revision: &str, since: Timestamp) -> Timestamp {
    let series =
        world.series(&format!("{POOL}{{namespace=\"{}\",pod=~\".*{revision}.*\"}}[5m]", world.namespace)).await;
    let samples = series.iter().flat_map(|it| it["values"].as_array().into_iter().flatten()).filter_map(|sample| {
        let value: f64 = sample[1].as_str()?.parse().ok()?;
        let at = Timestamp::from_microsecond((sample[0].as_f64()? * 1e6) as i64).ok()?;
        (value > f64::from(LIMIT) && at >= since).then_some(at)
    });
    samples.min().unwrap_or_else(|| panic!("no bad sample since {since}: {series:?}"))
}

async fn measured(world: &World, row: Row<'_>) {
    let Row { name, metric, interval, change, reason, fails_requests } = row;
    let spec = format!(
        "{{strategy: {{canary: {{steps: [{{setWeight: 50}}, {{pause: {{}}}}]}}}}, \
         analysis: {{interval: {}s, metrics: [{metric}]}}, \
         template: {{metadata: {{annotations: {{prometheus.io/scrape: 'true', prometheus.io/port: '8080'}}}}}}}}",
        if interval == 0 { 10 } else { interval },
    );
    let shop = world.routed_shop("GATEWAY", &spec).await;
    let k6 = K6::start(world).await;
    let (mut from_data, mut from_told) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        shop.release("v2", &[("RUN", &run.to_string())]).await;
        let good = |status: &ServiceReleaseStatus| {
            let passed = status.verdicts.first().is_some_and(|it| it.outcome == VerdictOutcome::Pass);
            status.phase == Phase::Paused && passed
        };
        let revision = shop.reaches("paused, and well", good).await.candidate.unwrap().revision;
        let told = Timestamp::now();
        world.behave(&revision, change).await;
        let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
        assert_eq!(status.reason, reason, "{}", status.message);
        // Those that failed were the candidate's, too.
        let given = |count: &Count| count.v2 + count.failed;
        let counts = k6.counts();
        let last =
            counts.windows(2).rev().find(|pair| given(&pair[1]) > given(&pair[0])).map_or(told, |pair| pair[1].at);
        from_told.push(last.duration_since(told).as_secs_f64());
        let shown = match interval {
            0 => world.witness.trouble(&revision).expect("a pod in trouble"),
            _ => first_bad_sample(world, &revision, told).await,
        };
        from_data.push(last.duration_since(shown).as_secs_f64());
    }
    let failed = k6.last().failed;
    let row = format!("| {name} | {failed} | {} | {} |", distribution(&mut from_data), distribution(&mut from_told));
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
    let allowed = BEYOND + if interval == 0 { THROTTLED } else { f64::from(interval) };
    assert!(from_data.iter().all(|it| *it <= allowed), "longer than {allowed} s from what shows it: {from_data:?}");
}

/// Least, median and greatest, and all of them in their order.
fn distribution(seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (seconds.first(), seconds.last()) else { return "-".to_owned() };
    let all: Vec<String> = seconds.iter().map(|it| format!("{it:.1}")).collect();
    format!("{least:.1} / {:.1} / {greatest:.1} ({})", seconds[seconds.len() / 2], all.join(", "))
}
