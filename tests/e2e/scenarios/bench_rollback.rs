//! How long it takes from a candidate that goes bad to all requests on stable: by a metric, at several intervals. Each
//! writes its row into target/bench-rollback.md (`make bench-gateway`).

use std::{io::Write as _, path::Path};

use jiff::Timestamp;
use servicerelease::api::{Phase, VerdictOutcome};

use crate::{
    harness::{Scenario, World, k6::K6, note},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_metric_every_second, Bench, Prometheus;
    a_metric_every_two_seconds, Bench, Prometheus;
    a_metric_every_five_seconds, Bench, Prometheus;
};

/// Rollbacks for each row.
const RUNS: usize = 6;

async fn a_metric_every_second(world: World) {
    measured(&world, 1).await;
}

async fn a_metric_every_two_seconds(world: World) {
    measured(&world, 2).await;
}

async fn a_metric_every_five_seconds(world: World) {
    measured(&world, 5).await;
}

async fn measured(world: &World, interval: u32) {
    // A gauge that breaks no request: none may fail, and each that v2 answers is seen.
    let metric = "{name: pool, prometheus: {query: 'max(db_pool_active{pod=~\"{{pods}}\"})'}, threshold: {max: 10}}";
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
        let good = |status: &servicerelease::api::ServiceReleaseStatus| {
            let passed = status.verdicts.first().is_some_and(|it| it.outcome == VerdictOutcome::Pass);
            status.phase == Phase::Paused && passed
        };
        let revision = shop.reaches("paused, and well", good).await.candidate.unwrap().revision;
        let select =
            format!("get pods -l servicerelease.io/revision={revision} -o jsonpath={{.items[*].status.podIP}}");
        let pods = world.kubectl(&select).await.expect_success();
        for pod in pods.split_whitespace() {
            let url = format!("http://{pod}:8080/admin/behaviour");
            world.devcluster(&["exec", "--", "curl", "-sf", "-d", "{\"pool_active\": 20}", &url]).await;
        }
        let bad = Timestamp::now();
        let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
        assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
        let counts = k6.counts();
        let last = counts.windows(2).rev().find(|pair| pair[1].v2 > pair[0].v2).map_or(bad, |pair| pair[1].at);
        took.push(last.duration_since(bad).as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    let failed = k6.last().failed;
    let all: Vec<String> = took.iter().map(|seconds| format!("{seconds:.1}")).collect();
    let row = format!("| metric every {interval} s | {failed} | {} |", all.join(", "));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench-rollback.md");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("target/bench-rollback.md");
    writeln!(file, "{row}").expect("a row is written");
    note(row);
    let counts = k6.counts();
    let when = counts.windows(2).filter(|pair| pair[1].failed > pair[0].failed).map(|pair| pair[1].at.to_string());
    let when: Vec<String> = when.collect();
    let begun = counts.first().map(|first| first.at);
    k6.end().await;
    assert_eq!(failed, 0, "requests failed, of those that began at {begun:?}: {when:?}");
}
