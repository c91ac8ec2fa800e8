//! The manifests of `deploy/runbooks`: for each a good version that is promoted, and bad ones that go back for the
//! reason that the runbook watches for: a check, or a metric; or that a person is told of.

use std::time::Duration;

use serde_json::{Value, json};
use servicerelease::api::{CheckOutcome, Phase, ServiceReleaseStatus, StepName, VerdictOutcome, VerdictStatus};

use crate::{
    harness::{Load, Scenario, Shop, World},
    scenarios,
};

use super::runbook_texts::{FARMERS_MARKET, MULTISHIP, SERIALIZATION, SHIPPING, SPORTS_NUTRITION, shorter};

pub const ALL: &[Scenario] = scenarios! {
    shipping, Together, Prometheus;
    multiship, Together, Prometheus;
    sports_nutrition, Together, Prometheus;
    farmers_market_checks, Together, Prometheus;
    farmers_market_metrics, Together, Prometheus;
    farmers_market_day, Together, Prometheus;
    serialization, Together, Prometheus;
};

/// For a release with Jobs, pauses and an observation, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A runbook's manifest with v1 in place, and a client.
async fn runbook(world: &World, text: &str) -> (Shop, Load) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-env"}, "stringData": {
        "SMOKE_TOKEN": "token", "DATABASE_URL": "postgres://db", "REDIS_URL": "redis://cache",
        "STRIPE_SECRET_KEY": "sk", "STRIPE_WEBHOOK_SECRET": "wh", "NEXTAUTH_SECRET": "na",
        "APPLICATION_INSIGHTS_CONNECTION_STRING": "ai", "DB_PASSWORD": "sixteen-or-more-characters",
        "JWT_SECRET": "thirty-two-characters-or-more-of-it",
    }});
    world.apply_value(secret).await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-config"}, "data": {
        "NEXTAUTH_URL": "https://shop.example.com", "NODE_ENV": "production", "LOG_LEVEL": "info",
        "API_BASE_URL": "https://api.example.com", "SHIPPING_PROVIDER": "mock", "CORS_ORIGIN": "https://example.com",
        "RATE_LIMIT_MAX_REQUESTS": "100", "DATABASE_POOL_MIN": "5", "DATABASE_POOL_MAX": "20",
        "DATABASE_IDLE_TIMEOUT": "900", "NOTIFICATION_EMAIL_FROM": "noreply@example.com", "LOG_FORMAT": "json",
        "API_PORT": "8080", "JWT_EXPIRY": "24h",
    }});
    world.apply_value(config).await;
    let text = shorter(text);
    super::gateway::apply_example(world, &text).await;
    let shop = Shop::watch(world, "shop").await;
    let serves = |status: &ServiceReleaseStatus| matches!(status.phase, Phase::Healthy | Phase::Observing);
    shop.reaches_within(PATIENCE, "Healthy or Observing", serves).await;
    // Metrics want numbers of v1 beside which the next one stands.
    let load = if text.contains("router:") { world.load_through_gateway().await } else { world.load().await };
    (shop, load)
}

/// A good version is promoted: each metric says Pass, and each check was asked and has passed.
async fn promoted(shop: &Shop, version: &str) {
    shop.release(version, &[]).await;
    let healthy = |status: &ServiceReleaseStatus| status.phase == Phase::Healthy;
    let status = shop.reaches_within(PATIENCE, "Healthy", healthy).await;
    let judged = |it: &VerdictStatus| it.measurements > 0 && it.outcome == VerdictOutcome::Pass;
    assert!(status.verdicts.iter().all(judged), "{:?}", status.verdicts);
    let number = status.release.as_ref().map_or(0, |release| release.number);
    for check in &shop.get().await.spec.checks {
        let asked = status.checks.iter().find(|asked| asked.name == check.name && asked.release == number);
        let passed = asked.is_some_and(|asked| asked.outcome == CheckOutcome::Passed && asked.attempts > 0);
        assert!(passed, "check {}: {asked:?}", check.name);
    }
}

/// A version that is broken by a variable, and what it is taken back for: a check or a metric.
type Broken<'a> = (&'a str, &'a str, &'a str);

/// Metrics that are no pod's: of the last version's pods they would be the next one's, too.
const OF_THE_NAMESPACE: [&str; 3] = ["kubelet_", "pg_", "redis_"];

/// Each goes back, and the status says why.
async fn taken_back(world: &World, shop: &Shop, all: &[Broken<'_>]) {
    let stable = shop.status().await.stable.unwrap().revision;
    for (place, (variable, value, told)) in all.iter().enumerate() {
        let version = format!("v{}", place + 3);
        shop.release(&version, &[(variable, value)]).await;
        let over = |status: &ServiceReleaseStatus| matches!(status.phase, Phase::RolledBack | Phase::Healthy);
        let status =
            shop.reaches_within(PATIENCE, &format!("{version} ({variable}={value}) is taken back"), over).await;
        assert_eq!(status.phase, Phase::RolledBack, "{variable}={value} was promoted: {:?}", status.verdicts);
        let reason = if told.starts_with("check ") { "CheckFailed" } else { "AnalysisFailed" };
        assert_eq!(status.reason, reason, "{variable}={value}: {}", status.message);
        assert!(status.message.contains(told), "{variable}={value}: {}", status.message);
        assert_eq!(status.stable.unwrap().revision, stable);
        if OF_THE_NAMESPACE.iter().any(|kind| value.starts_with(kind)) {
            forgotten(world, &stable).await;
        }
    }
}

/// Prometheus has forgotten all pods but these.
async fn forgotten(world: &World, stable: &str) {
    let of = format!("namespace=\"{}\",pod=~\"shop-.*\",pod!~\".*{stable}.*\"", world.namespace);
    world.no_series(&format!("last_over_time(up{{{of}}}[15s])")).await;
}

/// A version that is promoted, and whose disk a person is told of then, who takes it back.
async fn full_disk(world: &World, shop: &Shop, version: &str) {
    let stable = shop.status().await.stable.unwrap().revision;
    shop.release(version, &[("METRICS", "kubelet_volume_stats_available_bytes 1e10")]).await;
    let status = told_of(shop, version, "check disk failed: ").await;
    assert_ne!(status.stable.unwrap().revision, stable);
    undone(shop, version, &stable).await;
    forgotten(world, &stable).await;
}

/// What fails is told to a person, who is waited for.
async fn told_of(shop: &Shop, version: &str, told: &str) -> ServiceReleaseStatus {
    let failed = |status: &ServiceReleaseStatus| status.reason == "ObservationFailed";
    let status = shop.reaches_within(PATIENCE, &format!("{version} does not do well"), failed).await;
    assert!(status.message.contains(told), "{}", status.message);
    status
}

/// The person takes it back.
async fn undone(shop: &Shop, version: &str, stable: &str) {
    shop.say("Undo").await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches(&format!("{version} is undone"), back).await;
    assert_eq!(status.stable.unwrap().revision, stable);
}

/// Whether it serves, and all checks have passed.
fn is_promoted(status: &ServiceReleaseStatus) -> bool {
    let passed = status.checks.iter().all(|check| check.outcome == CheckOutcome::Passed);
    status.phase == Phase::Observing && passed
}

/// A good version that turns bad with half of the requests goes back, and the status says why.
async fn turns_bad(world: &World, shop: &Shop, version: &str, change: &str, told: &str) {
    shop.release(version, &[]).await;
    let half = |status: &ServiceReleaseStatus| status.weights.is_some_and(|it| it.desired.candidate == 50);
    let status = shop.reaches(&format!("{version} has half of the requests"), half).await;
    world.behave(&status.candidate.unwrap().revision, change).await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches(&format!("{version} is taken back: {told}"), back).await;
    assert!(status.message.contains(told), "{}", status.message);
}

/// A good version that turns bad in the pause at 10%, when what is asked at each weight was asked: more it does not get.
async fn turns_bad_at_ten_percent(world: &World, shop: &Shop, version: &str, change: &str, told: &str) {
    shop.release(version, &[]).await;
    let pauses = |status: &ServiceReleaseStatus| {
        let weight = status.weights.map_or(0, |it| it.desired.candidate);
        weight == 10 && status.step.as_ref().is_some_and(|step| step.name == StepName::Pause)
    };
    let status = shop.reaches_within(PATIENCE, &format!("{version} has 10% of the requests"), pauses).await;
    world.behave(&status.candidate.unwrap().revision, change).await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches(&format!("{version} is taken back: {told}"), back).await;
    assert!(status.message.contains(told), "{}", status.message);
    shop.always("10% at most", |status| status.weights.is_none_or(|it| it.desired.candidate <= 10));
}

/// The same in the hours after the promotion, when all checks have passed.
async fn turns_bad_after(world: &World, shop: &Shop, version: &str, change: &str, told: &str) {
    shop.release(version, &[]).await;
    let status = shop.reaches_within(PATIENCE, &format!("{version} is promoted"), is_promoted).await;
    world.behave(&status.stable.unwrap().revision, change).await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches(&format!("{version} is taken back: {told}"), back).await;
    assert!(status.message.contains(told), "{}", status.message);
}

/// The metrics of the manifest, of which this one alone has a say in the next release.
async fn only_metric(shop: &Shop, name: &str) {
    only_metric_with(shop, name, json!({})).await;
}

/// The same with a change of it.
async fn only_metric_with(shop: &Shop, name: &str, change: Value) {
    let mut metrics = json!(shop.get().await.spec.analysis.expect("an analysis").metrics);
    for metric in metrics.as_array_mut().expect("a list") {
        metric["dryRun"] = (metric["name"] != name).into();
        if metric["name"] == name {
            crate::harness::merge(metric, change.clone());
        }
    }
    shop.patch(&json!({"spec": {"analysis": {"metrics": metrics}}}).to_string()).await;
}

/// The checks of the manifest, with a change of this one.
async fn change_check(shop: &Shop, name: &str, change: Value) {
    let mut checks = json!(shop.get().await.spec.checks);
    let check = checks.as_array_mut().expect("a list").iter_mut().find(|check| check["name"] == name);
    crate::harness::merge(check.expect("the check"), change);
    shop.patch(&json!({"spec": {"checks": checks}}).to_string()).await;
}

/// A key of the Secret is changed, and with it a release does not begin.
async fn stopped_by_variables(world: &World, shop: &Shop, change: &str, told: &str) {
    world.kubectl(&format!("patch secret shop-env --type=json -p {change}")).await.expect_success();
    taken_back(world, shop, &[("ANYTHING", "new", &format!("check required-variables failed: exit code 1: {told}"))])
        .await;
}

const REMOVED: &str = "[{\"op\":\"remove\",\"path\":\"/data/REDIS_URL\"}]";
const TOO_SHORT: &str = "[{\"op\":\"replace\",\"path\":\"/data/JWT_SECRET\",\"value\":\"c2hvcnQ=\"}]";

/// MiB of a limit of 256: more than a metric lets pass, and not so much that the kernel ends the container before.
const MUCH_MEMORY: &str = "220";
/// An error as Node names it: "error" is part of a word there.
const TYPE_ERROR: &str = "TypeError: Cannot read properties of undefined (reading 'id')";

async fn shipping(world: World) {
    let (shop, _load) = runbook(&world, SHIPPING).await;
    promoted(&shop, "v2").await;
    let slow = |operation: &str| {
        format!("shipping_operation_duration_seconds_bucket{{operation=\"{operation}\",le=\"0.025\"}} +5")
    };
    let errors = |kind: &str| format!("shipping_errors_total{{kind=\"{kind}\"}} +2");
    let broken = [
        ("FAILING_PATHS", "/health", "check health failed: GET /health: expected status 200 to 299 (500 from "),
        ("PRIVATE_OPEN", "true", "check auth-required failed: GET /api/v1/shipping/zones: expected status 401 (200 "),
        ("QUOTE_FAILS", "true", "check calculate-rates failed: POST "),
        ("LOG_LINE", TYPE_ERROR, "check log-errors failed: "),
        ("ERROR_RATE", "0.3", "metric error-rate failed: "),
        ("METRICS", &slow("zone_lookup"), "metric zone-lookup failed: "),
        ("METRICS", &slow("rate_fetch"), "metric rate-fetch failed: "),
        ("METRICS", &slow("rate_calculate"), "metric rate-calculate failed: "),
        ("METRICS", &errors("zone_not_found"), "metric zone-not-found failed: "),
        ("METRICS", &errors("rate_calculation_failed"), "metric calculation-failed failed: "),
        ("METRICS", &errors("database_connection"), "metric database-connection failed: "),
        ("CRASH_AFTER_REQUESTS", "40", "metric pods failed: "),
    ];
    taken_back(&world, &shop, &broken).await;
    let told = "check synthetic failed: GET /health: ";
    turns_bad_after(&world, &shop, "v30", "{\"failing_paths\": \"/health\"}", told).await;
    let no_expiry = "[{\"op\":\"remove\",\"path\":\"/data/JWT_EXPIRY\"}]";
    world.kubectl(&format!("patch configmap shop-config --type=json -p {no_expiry}")).await.expect_success();
    let told =
        "Secret shop-env: JWT_SECRET has 5 bytes, at least 32 are needed; ConfigMap shop-config has no key JWT_EXPIRY";
    stopped_by_variables(&world, &shop, TOO_SHORT, told).await;
}

async fn multiship(world: World) {
    let (shop, _load) = runbook(&world, MULTISHIP).await;
    promoted(&shop, "v2").await;
    let slow_provider = "provider_request_duration_seconds_bucket{provider=\"shippo\",le=\"0.5\"} +5";
    let failing_provider = "provider_requests_total{provider=\"veeqo\",outcome=\"failure\"} +1";
    let broken = [
        ("FAILING_PATHS", "/health", "check health failed: GET /health: expected status 200 to 299 (500 from "),
        ("SLOW_PATHS", "/health", "check health failed: expected p95 within 5s: 3 of 3 answers took longer; "),
        ("HEALTH_REDIS", "down", "check detailed failed: "),
        (
            "UNSUCCESSFUL_PATHS",
            "/health/database",
            "check database failed: GET /health/database: expected JSON field status",
        ),
        ("FAILING_PATHS", "/api/health/database", "check database-of-the-api failed: "),
        ("FAILING_PATHS", "/api/providers/health", "check providers failed: "),
        ("FAILING_PATHS", "/api/orders", "check orders failed: "),
        ("SLOW_PATHS", "/api/orders@7", "check orders failed: expected p95 within 5s: "),
        ("FAILING_PATHS", "/api/orders/test", "check test-order failed: "),
        ("LOG_LINE", TYPE_ERROR, "check log-errors failed: "),
        ("POOL_ACTIVE", "19", "metric pool-utilisation failed: 0.95"),
        ("METRICS", "process_cpu_seconds_total +0.9", "metric saturation failed: "),
        ("ALLOCATE_MIB", MUCH_MEMORY, "metric saturation failed: "),
        ("METRICS", failing_provider, "metric provider-errors failed: "),
        ("METRICS", slow_provider, "metric shippo-latency failed: "),
        ("METRICS", "db_query_duration_seconds_bucket{le=\"1\"} +90", "metric slow-queries failed: "),
        ("METRICS", "pg_replication_lag_seconds 3", "metric replication-lag failed: 3 (max 0.1)"),
        ("FAILING_PATHS", "/api/orders/performance", "check database-performance failed: exit code 1"),
        ("FAILING_PATHS", "/api/orders/test/tracking", "check journeys failed: exit code 99"),
        // What k6 is answered alone: the metrics would see the rest as well.
        ("FAILING_PATHS", "/@k6", "check load-test failed: exit code 99"),
    ];
    taken_back(&world, &shop, &broken).await;
    full_disk(&world, &shop, "v21").await;
    // The load test would have found these before. They have the time to be found, also errors that are few.
    shop.patch("spec: {observation: {duration: 2m}}").await;
    turns_bad_after(&world, &shop, "v30", "{\"error_rate\": 0.008}", "metric error-rate failed: ").await;
    turns_bad_after(&world, &shop, "v31", "{\"latency\": \"900ms\"}", "metric p95 failed: ").await;
    let told = "check synthetic failed: GET /health: ";
    turns_bad_after(&world, &shop, "v32", "{\"failing_paths\": \"/health\"}", told).await;
    turns_bad_after(&world, &shop, "v33", "{\"log_errors\": 5}", "check log-errors failed: ").await;
    // A page that is not there.
    change_check(&shop, "pages", json!({"http": {"path": "/-/missing"}})).await;
    let told = "check pages failed: GET /-/missing: expected status 200 to 299 (404 from ";
    taken_back(&world, &shop, &[("ANYTHING", "other", told)]).await;
    held_before_it_begins(&world, &shop).await;
    stopped_by_variables(&world, &shop, REMOVED, "Secret shop-env has no key REDIS_URL").await;
    // A host that the platform has not allowed is told before anything begins.
    let checks = json!({"spec": {"checks": [{"name": "elsewhere", "http": {"host": "payments.example.com"}}]}});
    shop.release_with("v40", checks).await;
    let status = shop.reaches("Invalid", |status| status.phase == Phase::Invalid).await;
    assert_eq!(status.reason, "HostNotAllowed", "{}", status.message);
    assert!(status.message.contains("payments.example.com"), "{}", status.message);
}

/// A disk that is full before anything begins, and then a replica that is behind: a person decides.
async fn held_before_it_begins(world: &World, shop: &Shop) {
    for check in ["disk", "replication-lag"] {
        change_check(shop, check, json!({"when": ["Preflight"]})).await;
    }
    let stable = shop.status().await.stable.unwrap().revision;
    let available = format!("kubelet_volume_stats_available_bytes{{namespace=\"{}\"}}", world.namespace);
    let (full, behind) = ("kubelet_volume_stats_available_bytes 1e10", "pg_replication_lag_seconds 3");
    world.behave(&stable, &json!({ "metrics": full }).to_string()).await;
    world.no_series(&format!("{available} > 2e10")).await;
    shop.release("v35", &[]).await;
    let held = async |check: &str| {
        let told = format!("check {check} failed: ");
        let held = |status: &ServiceReleaseStatus| status.phase == Phase::Paused && status.message.contains(&told);
        let status = shop.reaches_within(PATIENCE, &format!("held for {check}"), held).await;
        assert_eq!(status.stable.unwrap().revision, stable);
    };
    held("disk").await;
    world.behave(&stable, &json!({ "metrics": behind }).to_string()).await;
    world.no_series(&format!("{available} < 2e10")).await;
    world.no_series(&format!("max(pg_replication_lag_seconds{{namespace=\"{}\"}}) < 1", world.namespace)).await;
    shop.say("Retry").await;
    held("replication-lag").await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    // Nothing holds the next release.
    world.behave(&stable, "{\"metrics\": \"\"}").await;
    world.no_series(&format!("pg_replication_lag_seconds{{namespace=\"{}\"}} > 1", world.namespace)).await;
}

async fn sports_nutrition(world: World) {
    let (shop, _load) = runbook(&world, SPORTS_NUTRITION).await;
    promoted(&shop, "v2").await;
    let broken = [
        ("HEALTH_DATABASE", "disconnected", "check health failed: "),
        ("FAILING_PATHS", "/health", "check responds failed: HEAD /health: "),
        ("START_LINE", "Hello", "check started failed: 0 lines match Server started on port [0-9]+, min 1"),
        ("PRIVATE_OPEN", "true", "check profile-needs-a-token failed: "),
        // It answers the first time, before it has traffic.
        ("FAILING_PATHS", "/health@2+", "check every-pod failed: GET /health: expected status 200 to 299 (500 from "),
        (
            "REFUSED_TOKEN",
            "token",
            "check profile failed: GET /api/profile: exit code 1: expected status 200 to 299 (401 ",
        ),
        ("FAILING_PATHS", "/api/auth/login", "check login failed: exit code "),
        ("SLOW_PATHS", "/@k6", "check load-test failed: exit code 99"),
        ("METRICS", "process_cpu_seconds_total +0.9", "metric cpu failed: "),
        ("POOL_ACTIVE", "17", "metric pool-utilisation failed: 0.85"),
        ("ALLOCATE_MIB", MUCH_MEMORY, "metric memory failed: "),
        ("METRICS", "redis_evicted_keys_total +3", "metric evictions failed: "),
        ("METRICS", "kubelet_volume_stats_available_bytes 1e10", "metric disk failed: 0.1 (min 0.2)"),
    ];
    taken_back(&world, &shop, &broken).await;
    // The load test would have found these before.
    turns_bad(&world, &shop, "v30", "{\"latency\": \"1500ms\"}", "metric p95 failed: ").await;
    // Both find the same: each by itself.
    for (version, metric) in [("v31", "errors-vs-stable"), ("v32", "error-rate")] {
        only_metric(&shop, metric).await;
        let told = format!("metric {metric} failed: ");
        turns_bad(&world, &shop, version, "{\"error_rate\": 0.3}", &told).await;
    }
    stopped_by_variables(&world, &shop, TOO_SHORT, "Secret shop-env: JWT_SECRET has 5 bytes, at least 32").await;
}

async fn farmers_market_checks(world: World) {
    let (shop, _load) = runbook(&world, FARMERS_MARKET).await;
    promoted(&shop, "v2").await;
    // Answers to the checks themselves: the smoke test asks for the same.
    let alone = |path: &str| format!("{path}@service-release-operator");
    let (order, intent) = ("/api/checkout/create-order", "/api/checkout/create-payment-intent");
    let unsuccessful = |check: &str| {
        let (name, asked) = check.split_once(": ").expect("a check and a request");
        format!(
            "check {name} failed: {asked}: exit code 1: expected JSON field success = true, which has another value (200 "
        )
    };
    let broken = [
        ("HEALTH_STATUS", "degraded", "check health failed: GET /api/health: expected JSON field status"),
        ("HEALTH_STRIPE", "down", "check health failed: GET /api/health: expected JSON field services.stripe"),
        (
            "FAILING_PATHS",
            "/api/health@5",
            "check health failed: GET /api/health: expected status 200 to 299 (500 from ",
        ),
        ("FAILING_PATHS", "/api/checkout/status", "check checkout-status failed: "),
        ("FAILING_PATHS", "/api/cart/status", "check cart-status failed: "),
        ("FAILING_PATHS", "/api/telemetry/test", "check telemetry failed: "),
        ("FAILING_PATHS", "/api/checkout/initialize", "check smoke failed: exit code 99"),
        ("START_LINE", "Services initialized\nDatabase connected", "check started failed: 2 lines match Services "),
        ("UNSUCCESSFUL_PATHS", &alone("/api/cart"), &unsuccessful("cart: POST /api/cart")),
        ("UNSUCCESSFUL_PATHS", &alone(order), &unsuccessful(&format!("create-order: GET {order}"))),
        ("UNSUCCESSFUL_PATHS", &alone(intent), &unsuccessful(&format!("payment-intent: POST {intent}"))),
        ("LOG_LINE", TYPE_ERROR, "check log-errors failed: "),
        ("SLOW_PATHS", "/@k6", "check load-test failed: exit code 99"),
    ];
    taken_back(&world, &shop, &broken).await;
    world.event("CheckFailed", "check health, 5 answers: GET /api/health: expected status 200 to 299 (500 from ").await;
    turns_bad_at_ten_percent(&world, &shop, "v30", "{\"log_errors\": 5}", "check log-errors failed: ").await;
    let told = "check health failed: GET /api/health: expected JSON field services.database";
    turns_bad_at_ten_percent(&world, &shop, "v31", "{\"health_database\": \"down\"}", told).await;
    stopped_by_variables(&world, &shop, REMOVED, "Secret shop-env has no key REDIS_URL").await;
}

async fn farmers_market_metrics(world: World) {
    let (shop, _load) = runbook(&world, FARMERS_MARKET).await;
    promoted(&shop, "v2").await;
    let broken = [
        ("ERROR_RATE", "0.3", "metric error-rate failed: "),
        ("METRICS", "http_request_duration_seconds_sum +200", "metric mean failed: "),
        ("METRICS", "process_cpu_seconds_total +0.9", "metric cpu failed: "),
        ("METRICS", "payments_total{outcome=\"failure\"} +2", "metric payments failed: 0.83"),
        ("METRICS", "db_query_duration_seconds_bucket{le=\"0.02\"} +50", "metric database-latency failed: "),
        ("ALLOCATE_MIB", MUCH_MEMORY, "metric memory failed: "),
    ];
    taken_back(&world, &shop, &broken).await;
    // What is slow for one in twenty is so on the average, too, here.
    only_metric(&shop, "p95").await;
    taken_back(&world, &shop, &[("LATENCY", "3500ms", "metric p95 failed: ")]).await;
    // CPU that is spent, not told: a tenth of a core, which a machine has left for one pod however busy it is.
    only_metric_with(&shop, "cpu", json!({"threshold": {"max": 0.1}})).await;
    shop.patch("spec: {strategy: {canary: {steps: [{setWeight: 10}, {pause: {}}]}}}").await;
    taken_back(&world, &shop, &[("BURN_MILLICPU", "900", "metric cpu failed: ")]).await;
}

/// What the day after the promotion is measured by.
async fn farmers_market_day(world: World) {
    let (shop, _load) = runbook(&world, FARMERS_MARKET).await;
    promoted(&shop, "v2").await;
    // What leads there was tried. No metric finds these, and where one would it has no say.
    let quick = json!({"strategy": {"canary": {"steps": [{"setWeight": 50}]}}, "observation": {"duration": "2m"}});
    shop.patch(&json!({ "spec": quick }).to_string()).await;
    only_metric(&shop, "p95-of-the-day").await;
    taken_back(&world, &shop, &[("LATENCY", "1050ms", "metric p95-of-the-day failed: ")]).await;
    misses_targets(&world, &shop, "v30").await;
    loses_its_checkout(&world, &shop, "v31").await;
}

/// A version that is promoted, and misses all targets that are questions to Prometheus: a person is told, and takes it back.
async fn misses_targets(world: &World, shop: &Shop, version: &str) {
    let stable = shop.status().await.stable.unwrap().revision;
    shop.release(version, &[]).await;
    let status = shop.reaches_within(PATIENCE, &format!("{version} is promoted"), is_promoted).await;
    let metrics = "checkouts_total +20; carts_total +20; order_creation_seconds_bucket{le=\"60\"} +0";
    // The load test would have found the errors before.
    let change = json!({"error_rate": 0.2, "metrics": metrics}).to_string();
    world.behave(&status.stable.unwrap().revision, &change).await;
    let status = told_of(shop, version, " failed: POST /api/v1/query: ").await;
    for target in ["error-rate-of-the-day", "conversion", "abandonment", "order-time"] {
        let asked = status.checks.iter().find(|it| it.name == target);
        assert!(asked.is_some_and(|it| it.failures > 0), "{target}: {asked:?}");
    }
    undone(shop, version, &stable).await;
}

/// A version that loses its checkout with all requests: asked before it had any, it was well.
async fn loses_its_checkout(world: &World, shop: &Shop, version: &str) {
    shop.patch("spec: {strategy: {canary: {steps: [{setWeight: 100}, {pause: {}}]}}}").await;
    shop.release(version, &[]).await;
    let status = shop.reaches_within(PATIENCE, "a person is waited for", |status| status.phase == Phase::Paused).await;
    world.behave(&status.candidate.unwrap().revision, "{\"failing_paths\": \"/api/checkout/initialize\"}").await;
    shop.say("Promote").await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches_within(PATIENCE, &format!("{version} is taken back"), back).await;
    assert!(status.message.contains("check smoke failed: exit code 99"), "{}", status.message);
}

async fn serialization(world: World) {
    let (shop, _load) = runbook(&world, SERIALIZATION).await;
    promoted(&shop, "v2").await;
    let path = "/api/v1/serialization";
    let broken = [
        ("HEALTH_REDIS", "down", "check health failed: GET /health: expected JSON field redis"),
        ("SLOW_PATHS", "/health@7", "check baseline failed: expected p95 within 5s: "),
        ("POOL_ACTIVE", "20", "check database failed: "),
        ("FAILING_PATHS", &format!("{path}/vendor/receive"), "check receive failed: "),
        ("FAILING_PATHS", &format!("{path}/triggers/statistics/PART-001"), "check triggers failed: "),
        ("FAILING_PATHS", &format!("{path}/audit/events"), "check audit failed: "),
        ("FAILING_PATHS", "/api/orders/validation", "check database-validation failed: exit code 1"),
        ("FAILING_PATHS", &format!("{path}/templates/print"), "check smoke failed: exit code 99"),
        ("FAILING_PATHS", "/api/orders/queries", "check query-analysis failed: exit code 1"),
        ("FAILING_PATHS", "/metrics", "metric service-down failed: 0 (min 1)"),
        ("ERROR_RATE", "0.3", "metric error-rate failed: "),
        ("SLOW_PATHS", "/@k6", "check load-test failed: exit code 99"),
        ("METRICS", "db_query_duration_seconds_bucket{le=\"1\"} +80", "metric slow-queries failed: 0.2"),
        ("METRICS", "kubelet_volume_stats_available_bytes 5e8", "metric disk failed: "),
    ];
    taken_back(&world, &shop, &broken).await;
    turns_bad(&world, &shop, "v30", "{\"pool_active\": 20}", "metric pool-exhausted failed: 1 (max 0.99)").await;
    stopped_by_variables(&world, &shop, REMOVED, "Secret shop-env has no key REDIS_URL").await;
}
