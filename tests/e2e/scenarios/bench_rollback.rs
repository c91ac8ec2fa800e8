//! How long it takes from data that show a bad candidate to all requests on stable: by a metric, at several intervals,
//! over a gateway and by the Service alone, from the first bad sample in Prometheus; by a standing check, from the moment the candidate goes bad; by its readiness
//! probe, a crash and an image that is none, from the pod's status that tells it. Each writes its row into
//! target/bench-rollback.md (`make bench-gateway`).

use std::{io::Write as _, path::Path, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use servicerelease::api::{CheckOutcome, Phase, ServiceReleaseStatus, VerdictOutcome};
use tokio::time::{interval, timeout};

use crate::{
    harness::{
        Scenario, World,
        k6::{Address, Count, K6},
        note,
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_metric_every_second, Bench, Prometheus;
    a_metric_every_two_seconds, Bench, Prometheus;
    a_metric_every_five_seconds, Bench, Prometheus;
    a_metric_by_the_number_of_pods, Bench, Prometheus;
    a_metric_after_a_switch, Bench, Prometheus;
    a_standing_check_every_five_seconds, Bench, Gateway;
    a_readiness_probe, Bench, Gateway;
    a_readiness_probe_over_envoy, Bench, Envoy;
    a_crash, Bench, Gateway;
    a_crash_over_envoy, Bench, Envoy;
    an_image_that_is_none, Bench, Gateway;
};

/// Rollbacks for each row.
const RUNS: usize = 10;
/// What a rollback may take beyond the interval of what is asked, in seconds.
const BEYOND: f64 = 2.0;
/// The metric, and its limit.
const POOL: &str = "db_pool_active";
const LIMIT: u32 = 10;

/// A way to go bad, and what sees it.
struct Row<'a> {
    name: String,
    through: Through,
    spec: String,
    /// What the spec has more once the first version is in place: a patch.
    then: &'a str,
    /// What the candidate's pods are told to do.
    change: &'a str,
    /// Why it is rolled back.
    reason: &'a str,
    shown: Shown,
    /// The most that may pass from then on, in seconds.
    allowed: f64,
    /// Whether requests fail by what the pods do.
    fails_requests: bool,
}

/// Who gives the requests to pods.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    Traefik,
    Envoy,
    /// The Service alone, by a connection of its own for each request.
    Service,
}

/// What shows that the candidate is bad.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The first bad sample in Prometheus.
    Sample,
    /// The status of a pod.
    Pod,
    /// Whoever asks it from the moment on when it was told to be bad.
    AtOnce,
}

/// Half of the requests are the candidate's until a person goes on.
fn canary(seconds: u32, metric: &str) -> String {
    watched(seconds, metric, "strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}")
}

/// All of them are, and stable's pods are kept.
fn switched(seconds: u32, metric: &str) -> String {
    watched(seconds, metric, "strategy: {blueGreen: {}}, rollback: {keepPrevious: 1h}")
}

fn watched(seconds: u32, metric: &str, strategy: &str) -> String {
    format!(
        "{{{strategy}, analysis: {{interval: {seconds}s, metrics: [{metric}]}}, \
         template: {{metadata: {{annotations: {{prometheus.io/scrape: 'true', prometheus.io/port: '8080'}}}}}}}}"
    )
}

async fn a_metric_every_second(world: World) {
    metric_over_traefik(&world, 1).await;
}

async fn a_metric_every_two_seconds(world: World) {
    metric_over_traefik(&world, 2).await;
}

async fn a_metric_every_five_seconds(world: World) {
    metric_over_traefik(&world, 5).await;
}

async fn a_metric_by_the_number_of_pods(world: World) {
    metric(&world, 2, canary, ("by the number of pods", Through::Service)).await;
}

async fn a_metric_after_a_switch(world: World) {
    metric(&world, 2, switched, ("after a switch of the Service", Through::Service)).await;
}

async fn metric_over_traefik(world: &World, seconds: u32) {
    metric(world, seconds, canary, ("Traefik", Through::Traefik)).await;
}

async fn metric(world: &World, seconds: u32, spec: fn(u32, &str) -> String, (by, through): (&str, Through)) {
    // A gauge that breaks no request: none may fail, and each that v2 answers is seen.
    let metric = format!(
        "{{name: pool, prometheus: {{query: 'max({POOL}{{pod=~\"{{{{pods}}}}\"}})'}}, threshold: {{max: {LIMIT}}}}}"
    );
    let row = Row {
        name: format!("metric every {seconds} s, {by}"),
        through,
        spec: spec(seconds, &metric),
        // The first version would be observed, too.
        then: if through == Through::Service { "{spec: {observation: {duration: 1h}}}" } else { "{}" },
        change: "{\"pool_active\": 20}",
        reason: "AnalysisFailed",
        shown: Shown::Sample,
        allowed: BEYOND + f64::from(seconds),
        fails_requests: false,
    };
    measured(world, row).await;
}

async fn a_standing_check_every_five_seconds(world: World) {
    let then = "{spec: {observation: {duration: 1h}, \
        checks: [{name: orders, when: [AfterPromotion], every: 5s, http: {path: /api/orders}}]}}";
    let row = Row {
        name: "standing check every 5 s, after the promotion".to_owned(),
        through: Through::Traefik,
        spec: "{strategy: {canary: {steps: [{setWeight: 50}]}}, rollback: {keepPrevious: 1h}}".to_owned(),
        then,
        change: "{\"failing_paths\": \"/api/orders\"}",
        reason: "CheckFailed",
        shown: Shown::AtOnce,
        allowed: BEYOND + 5.0,
        fails_requests: false,
    };
    measured(&world, row).await;
}

async fn a_readiness_probe(world: World) {
    unready(&world, Through::Traefik).await;
}

async fn a_readiness_probe_over_envoy(world: World) {
    unready(&world, Through::Envoy).await;
}

async fn a_crash(world: World) {
    crashed(&world, Through::Traefik).await;
}

async fn a_crash_over_envoy(world: World) {
    crashed(&world, Through::Envoy).await;
}

async fn unready(world: &World, through: Through) {
    of_pods(world, through, "readiness probe, 3 failures 1 s apart", "NotReady", "{\"never_ready\": true}").await;
}

async fn crashed(world: &World, through: Through) {
    let change = "{\"crash_after_requests\": 0}";
    of_pods(world, through, "crash, no restart allowed", "AnalysisFailed", change).await;
}

/// Nothing waits for an interval.
async fn of_pods(world: &World, through: Through, what: &str, reason: &str, change: &str) {
    let by = match through {
        Through::Traefik => "Traefik",
        Through::Envoy => "Envoy",
        Through::Service => "by the number of pods",
    };
    let row = Row {
        name: format!("{what}, {by}"),
        through,
        spec: canary(10, "{name: pods, workload: {}}"),
        then: "{}",
        change,
        reason,
        shown: Shown::Pod,
        allowed: BEYOND,
        fails_requests: true,
    };
    measured(world, row).await;
}

/// No request is ever its: what is measured is until the rollback is on record.
async fn an_image_that_is_none(world: World) {
    let shop = world.routed_shop("GATEWAY", "strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}").await;
    let k6 = K6::start(&world, Address::Gateway("edge")).await;
    let (mut from_shown, mut from_told) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let told = Timestamp::now();
        shop.change_container("image", json!(format!("Not An Image {run}"))).await;
        let status = shop.reaches("taken back", |status| status.rollback.is_some() && status.candidate.is_none()).await;
        let (now, rollback) = (Timestamp::now(), status.rollback.expect("a rollback"));
        assert_eq!(rollback.reason, "InvalidImageName", "{}", rollback.message);
        from_told.push(now.duration_since(told).as_secs_f64());
        let shown = first_trouble(&world, &rollback.revision).await;
        from_shown.push(now.duration_since(shown).as_secs_f64());
        shop.phase(Phase::RolledBack).await;
    }
    let last = k6.last();
    tell("image that is none (to the rollback on record)", last.failed, &mut from_shown, &mut from_told);
    k6.end().await;
    assert_eq!((last.v2, last.failed), (0, 0), "requests of v2, and failed ones");
    assert!(from_shown.iter().all(|it| *it <= BEYOND), "longer than {BEYOND} s: {from_shown:?}");
}

/// When the API server first said that a pod of a revision is in trouble. The operator may have heard of it before us.
async fn first_trouble(world: &World, revision: &str) -> Timestamp {
    let mut ticks = interval(Duration::from_millis(50));
    let told = async {
        loop {
            ticks.tick().await;
            if let Some(at) = world.witness.trouble(revision) {
                return at;
            }
        }
    };
    timeout(Duration::from_secs(30), told).await.expect("a pod in trouble")
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

/// Whether what was released goes on well, and waits for a person or to be bad.
fn goes_well(status: &ServiceReleaseStatus) -> bool {
    match status.phase {
        Phase::Paused => status.verdicts.first().is_some_and(|it| it.outcome == VerdictOutcome::Pass),
        Phase::Observing => {
            let checked = status.checks.iter().all(|it| it.outcome == CheckOutcome::Passed);
            let judged = status.verdicts.iter().all(|it| it.outcome == VerdictOutcome::Pass);
            checked && judged && !(status.checks.is_empty() && status.verdicts.is_empty())
        }
        _ => false,
    }
}

async fn measured(world: &World, row: Row<'_>) {
    let (shop, address) = match row.through {
        Through::Traefik => (world.routed_shop("GATEWAY", &row.spec).await, Address::Gateway("edge")),
        Through::Envoy => (world.routed_shop("ENVOY", &row.spec).await, Address::Gateway("edge-envoy")),
        Through::Service => (world.shop(&row.spec).await, Address::Service),
    };
    shop.patch(row.then).await;
    let k6 = K6::start(world, address).await;
    let (mut from_shown, mut from_told) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        shop.release("v2", &[("RUN", &run.to_string())]).await;
        let status = shop.reaches("released, and well", goes_well).await;
        let revision = status.candidate.or(status.stable).expect("a revision").revision;
        let told = Timestamp::now();
        world.behave(&revision, row.change).await;
        let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
        assert_eq!(status.reason, row.reason, "{}", status.message);
        let last = last_given(&k6.counts(), told);
        from_told.push(last.duration_since(told).as_secs_f64());
        let shown = match row.shown {
            Shown::AtOnce => told,
            Shown::Pod => first_trouble(world, &revision).await,
            Shown::Sample => first_bad_sample(world, &revision, told).await,
        };
        from_shown.push(last.duration_since(shown).as_secs_f64());
    }
    let failed = k6.last().failed;
    tell(&row.name, failed, &mut from_shown, &mut from_told);
    let counts = k6.counts();
    let when = counts.windows(2).filter(|pair| pair[1].failed > pair[0].failed).map(|pair| pair[1].at.to_string());
    let when: Vec<String> = when.collect();
    let begun = counts.first().map(|first| first.at);
    k6.end().await;
    assert!(failed == 0 || row.fails_requests, "{failed} requests failed, of those that began at {begun:?}: {when:?}");
    let allowed = row.allowed;
    assert!(from_shown.iter().all(|it| *it <= allowed), "longer than {allowed} s from what shows it: {from_shown:?}");
}

/// When the last request was given to v2. Those that failed were its, too.
fn last_given(counts: &[Count], told: Timestamp) -> Timestamp {
    let given = |count: &Count| count.v2 + count.failed;
    counts.windows(2).rev().find(|pair| given(&pair[1]) > given(&pair[0])).map_or(told, |pair| pair[1].at)
}

/// The row of the table.
fn tell(name: &str, failed: u64, from_shown: &mut [f64], from_told: &mut [f64]) {
    let row = format!("| {name} | {failed} | {} | {} |", distribution(from_shown), distribution(from_told));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench-rollback.md");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("target/bench-rollback.md");
    writeln!(file, "{row}").expect("a row is written");
    note(row);
}

/// Least, median and greatest, and all of them in their order.
fn distribution(seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (seconds.first(), seconds.last()) else { return "-".to_owned() };
    let all: Vec<String> = seconds.iter().map(|it| format!("{it:.1}")).collect();
    format!("{least:.1} / {:.1} / {greatest:.1} ({})", seconds[seconds.len() / 2], all.join(", "))
}
