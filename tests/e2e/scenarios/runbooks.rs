//! The manifests of `deploy/runbooks`: for each a good version that is promoted, and bad ones that go back for the
//! reason that the runbook watches for. Times are shorter here,
//! and less of a CPU is much.

use serde_json::json;
use servicerelease::api::{Phase, ServiceReleaseStatus};

use crate::{
    harness::{Load, Scenario, Shop, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    shipping, Together, Prometheus;
    multiship, Together, Prometheus;
    sports_nutrition, Together, Prometheus;
    farmers_market, Together, Prometheus;
    serialization, Together, Prometheus;
};

/// A runbook's manifest with v1 in place, and a client.
async fn runbook(world: &World, text: &str) -> (Shop, Load) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-env"}, "stringData": {
        "SMOKE_TOKEN": "token", "DATABASE_URL": "postgres://db", "REDIS_URL": "redis://cache",
        "STRIPE_SECRET_KEY": "sk", "STRIPE_WEBHOOK_SECRET": "wh", "NEXTAUTH_SECRET": "na",
    }});
    world.apply_value(secret).await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-config"}, "data": {
        "NEXTAUTH_URL": "https://shop.example.com", "NODE_ENV": "production",
    }});
    world.apply_value(config).await;
    let mut text = super::checks::with_k6(text);
    let shorter = [
        ("pause: {duration: 1h}", "pause: {duration: 12s}"),
        ("pause: {duration: 30m}", "pause: {duration: 12s}"),
        ("pause: {duration: 5m}", "pause: {duration: 8s}"),
        ("interval: 30s", "interval: 2s"),
        ("[5m]", "[15s]"),
        ("every: 5m", "every: 3s"),
        ("duration: 24h", "duration: 12s"),
        ("observation:\n    duration: 1h", "observation:\n    duration: 25s"),
        // Nobody else on this machine is to starve.
        ("threshold: {max: 0.7}", "threshold: {max: 0.2}"),
    ];
    for (long, short) in shorter {
        text = text.replace(long, short);
    }
    let shop = super::gateway::example(world, &text).await;
    // Metrics want numbers of v1 beside which the next one stands.
    (shop, world.load().await)
}

async fn promoted(shop: &Shop, version: &str) {
    shop.release(version, &[]).await;
    let status = shop.healthy().await;
    assert!(status.verdicts.iter().all(|it| it.measurements > 0), "{:?}", status.verdicts);
}

/// A version that is broken by a variable goes back, and the status says why.
async fn taken_back(shop: &Shop, version: &str, variable: (&str, &str), reason: &str, told: &str) {
    let stable = shop.status().await.stable.unwrap().revision;
    shop.release(version, &[variable]).await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches(&format!("{version} is taken back"), back).await;
    assert_eq!(status.reason, reason, "{}", status.message);
    assert!(status.message.contains(told), "{}", status.message);
    assert_eq!(status.stable.unwrap().revision, stable);
}

async fn shipping(world: World) {
    let (shop, _load) = runbook(&world, include_str!("../../../deploy/runbooks/shipping.yaml")).await;
    promoted(&shop, "v2").await;
    taken_back(&shop, "v3", ("PRIVATE_OPEN", "true"), "CheckFailed", "check auth-required failed: ").await;
    taken_back(&shop, "v4", ("QUOTE_FAILS", "true"), "CheckFailed", "expected JSON field success = true").await;
    taken_back(&shop, "v5", ("ERROR_RATE", "0.3"), "AnalysisFailed", "metric error-rate failed: ").await;
    taken_back(&shop, "v6", ("LATENCY", "300ms"), "AnalysisFailed", "metric p95 failed: ").await;
}

async fn multiship(world: World) {
    let (shop, _load) = runbook(&world, include_str!("../../../deploy/runbooks/multiship.yaml")).await;
    promoted(&shop, "v2").await;
    taken_back(&shop, "v3", ("HEALTH_REDIS", "down"), "CheckFailed", "check detailed failed: ").await;
    taken_back(&shop, "v4", ("POOL_ACTIVE", "19"), "AnalysisFailed", "metric pool-utilisation failed: 0.95").await;
    taken_back(&shop, "v5", ("BURN_MILLICPU", "500"), "AnalysisFailed", "metric cpu failed: ").await;
    taken_back(&shop, "v6", ("ALLOCATE_MIB", "230"), "AnalysisFailed", "metric memory failed: ").await;
}

async fn sports_nutrition(world: World) {
    let (shop, load) = runbook(&world, include_str!("../../../deploy/runbooks/sports-nutrition.yaml")).await;
    promoted(&shop, "v2").await;
    taken_back(&shop, "v3", ("HEALTH_DATABASE", "disconnected"), "CheckFailed", "check health failed: ").await;
    taken_back(&shop, "v4", ("LATENCY", "800ms"), "CheckFailed", "check load-test failed: exit code 99").await;
    load.assert_no_failed_requests().await;
}

async fn farmers_market(world: World) {
    let (shop, load) = runbook(&world, include_str!("../../../deploy/runbooks/farmers-market.yaml")).await;
    promoted(&shop, "v2").await;
    taken_back(&shop, "v3", ("HEALTH_STATUS", "degraded"), "CheckFailed", "check health failed: ").await;
    taken_back(&shop, "v4", ("LOG_ERRORS", "5"), "CheckFailed", "check log-errors failed: ").await;
    let gone = "patch secret shop-env --type=json -p [{\"op\":\"remove\",\"path\":\"/data/REDIS_URL\"}]";
    world.kubectl(gone).await.expect_success();
    let told = "check required-variables failed: exit code 1: Secret shop-env has no key REDIS_URL";
    taken_back(&shop, "v5", ("ANYTHING", "new"), "CheckFailed", told).await;
    load.assert_no_failed_requests().await;
}

async fn serialization(world: World) {
    let (shop, _load) = runbook(&world, include_str!("../../../deploy/runbooks/serialization.yaml")).await;
    promoted(&shop, "v2").await;
    taken_back(&shop, "v3", ("POOL_ACTIVE", "20"), "CheckFailed", "check database failed: ").await;
    taken_back(&shop, "v4", ("ERROR_RATE", "0.3"), "AnalysisFailed", "metric error-rate failed: ").await;
}
