//! Two requests a minute through the gateway: nothing is decided on too few of them, and in the end they are enough. What
//! takes minutes here takes them because of that. What asks by itself waits for none of them.

use std::time::Duration;

use serde_json::{Value, json};
use servicerelease::api::{CheckOutcome, Phase, ServiceReleaseStatus, VerdictOutcome, VerdictStatus};

use super::ten_percent::{ALL_REQUESTS, ERRORS};
use crate::{
    harness::{Load, Scenario, Shop, World, counted, note, postgres::Postgres},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_bad_candidate_is_found, Together, Prometheus;
    a_good_candidate_is_promoted, Together, Prometheus;
    found_by_checks_and_by_a_limit, Together, Prometheus;
};

/// For a dozen of requests to one side.
const PATIENCE: Duration = Duration::from_secs(13 * 60);
/// For the next few.
const A_FEW_REQUESTS: Duration = Duration::from_secs(4 * 60);

/// A candidate with so many percent of the requests, whose database is asked for after the weight, and what else needs no
/// clients.
async fn shop(world: &World, weight: i32, metrics: Value) -> (Shop, Load, Postgres) {
    world.apply("{apiVersion: v1, kind: Secret, metadata: {name: shop-env}, stringData: {TOKEN: abc}}").await;
    let postgres = Postgres::start(world).await;
    postgres.sql("CREATE TABLE orders (paid bool)").await;
    postgres.sql("INSERT INTO orders VALUES (true)").await;
    let scraped = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    let spec = json!({
        "checks": [health(), smoke(), log(), keys(), sql()],
        "analysis": {"interval": "5s", "metrics": metrics}, "template": {"metadata": {"annotations": scraped}},
        "strategy": {"canary": {"steps": [{"setWeight": weight}, {"pause": {"duration": "10s"}}]}},
    });
    let shop = world.routed_shop("GATEWAY", &spec.to_string()).await;
    let load = Load::start_every(world, &world.url_of("edge").await, &world.hostname(), "30s").await;
    (shop, load, postgres)
}

fn health() -> Value {
    let health = json!({"path": "/health", "expect": {"json": {"database": "connected"}}});
    json!({"name": "health", "when": ["EachStep"], "http": health})
}

/// Asks for nothing that the application counts among its requests.
fn smoke() -> Value {
    let url = "http://$(RELEASE_CANDIDATE_SERVICE):8080/health/database";
    let args = ["load", "--url", url, "--rate", "5", "--duration", "1s", "--fail-on-error"];
    let container = json!({"name": "smoke", "image": "TESTAPP_IMAGE", "imagePullPolicy": "IfNotPresent", "args": args});
    json!({"name": "smoke", "when": ["EachStep"], "job": {"template": {"spec": {"containers": [container]}}}})
}

fn log() -> Value {
    json!({"name": "log", "when": ["EachStep"], "logs": {"pattern": "ERROR"}})
}

fn keys() -> Value {
    json!({"name": "env", "when": ["EachStep"], "keys": [{"secret": "shop-env", "keys": ["TOKEN"]}]})
}

fn sql() -> Value {
    let url = json!({"secretKeyRef": {"name": "shop-db", "key": "DATABASE_URL"}});
    let sql = json!({"query": "SELECT 1 FROM orders WHERE NOT paid", "urlFrom": url});
    json!({"name": "unpaid", "when": ["EachStep"], "sql": sql})
}

/// The candidate beside stable: any error that stable has not is one too many.
fn errors(min_requests: u32) -> Value {
    json!({
        "name": "errors", "compare": {"maxRatio": 1, "minRequests": min_requests},
        "prometheus": {"total": ALL_REQUESTS, "events": ERRORS},
    })
}

/// The share of the candidate's answers that are errors, of all since its pods began: a window would hold too few.
fn share(min_requests: u32) -> Value {
    let query = format!("(sum({ERRORS}) or vector(0)) / sum({ALL_REQUESTS})");
    json!({
        "name": "share", "threshold": {"max": 0.5, "minRequests": min_requests},
        "prometheus": {"query": query, "requests": format!("sum({ALL_REQUESTS})")},
    })
}

/// How many errors the candidate has answered with, as any web API would tell it: no share that wants a number of requests.
/// It has no say.
fn errors_by_api() -> Value {
    let errors = "http_requests_total%7Bnamespace=%22{{namespace}}%22,pod=~%22{{pods}}%22,code=~%225..%22%7D";
    let path = format!("/query?query=sum({errors})%20or%20vector(0)");
    let web = json!({"provider": "api", "path": path, "value": "double(json.data.result[0].value[1])"});
    json!({"name": "api", "web": web, "threshold": {"max": 0}, "dryRun": true})
}

/// The error budget of both sides together. It takes four errors to burn.
fn budget() -> Value {
    json!({
        "name": "budget", "burnRate": {"objective": 0.99},
        "prometheus": {"total": ALL_REQUESTS, "events": ERRORS},
    })
}

/// The candidate's pods themselves.
fn restarts() -> Value {
    json!({"name": "restarts", "workload": {"maxRestarts": 0}})
}

fn held(status: &ServiceReleaseStatus) -> bool {
    status.reason == "AnalysisInconclusive"
}

fn is_back(status: &ServiceReleaseStatus) -> bool {
    status.phase == Phase::RolledBack
}

/// Whether a metric says neither yes nor no, and this is why.
fn says_nothing(status: &ServiceReleaseStatus, metric: &str, why: &str) -> bool {
    let so = |it: &VerdictStatus| {
        it.name == metric && it.outcome == VerdictOutcome::Inconclusive && it.message.contains(why)
    };
    status.verdicts.iter().any(so)
}

async fn a_bad_candidate_is_found(world: World) {
    let (shop, load, _postgres) = shop(&world, 50, json!([errors(100)])).await;
    shop.release("v2", &[("ERROR_RATE", "1")]).await;
    shop.reaches("held, its pause being over", held).await;
    let status = shop.reaches_within(PATIENCE, "taken back", is_back).await;
    assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
    shop.always("half of them at most", |status| status.weights.is_none_or(|it| it.desired.candidate <= 50));
    let failed = load.report().await.failures;
    // As many more as the gateway gives the candidate more than its half: it begins its round anew whenever any route changes.
    assert!((4..=20).contains(&failed), "{failed} requests failed");
    note(format!("{failed} requests failed until it was found"));
}

/// By every kind of verdict and of check, although its first answer is an error; the budget has nothing to say for the five
/// minutes of its shortest window.
async fn a_good_candidate_is_promoted(world: World) {
    let metrics = json!([errors(3), share(3), budget(), restarts()]);
    let (shop, load, _postgres) = shop(&world, 50, metrics).await;
    shop.release("v2", &[("ERROR_RATE", "1")]).await;
    load.has_failed(1, A_FEW_REQUESTS).await;
    world.behave(&shop.status().await.candidate.unwrap().revision, "{\"error_rate\": 0}").await;
    let one = "the value is of 1 requests, at least 3 are needed";
    shop.reaches("one error is no rate", |status| says_nothing(status, "share", one)).await;
    shop.reaches("held, its pause being over", held).await;
    let status = shop.reaches_within(PATIENCE, "Healthy", |status| status.phase == Phase::Healthy).await;
    let outcomes: Vec<_> = status.verdicts.iter().map(|it| (it.name.as_str(), it.outcome)).collect();
    assert_eq!(
        outcomes,
        ["errors", "share", "budget", "restarts"].map(|name| (name, VerdictOutcome::Pass)),
        "{:?}",
        status.verdicts
    );
    let passed = status.checks.iter().filter(|check| check.outcome == CheckOutcome::Passed).count();
    assert_eq!((passed, status.checks.len()), (5, 5), "{:?}", status.checks);
    assert!(counted(&status.verdicts[0]).0 >= 3, "{:?}", status.verdicts[0]);
    assert_eq!(load.report().await.failures, 1, "that one");

    // Until it burns the budget says Pass, also of a candidate that nobody has called: the pause is for a person to end.
    let steps = json!([{"setWeight": 90}, {"pause": {}}]);
    let change = json!({"spec": {"analysis": {"metrics": [budget()]}, "strategy": {"canary": {"steps": steps}}}});
    shop.patch(&change.to_string()).await;
    shop.release("v3", &[("ERROR_RATE", "1")]).await;
    let status = shop.reaches_within(A_FEW_REQUESTS, "taken back", is_back).await;
    assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
    assert!(status.message.contains("metric budget failed: burn rate "), "{}", status.message);
    let failed = load.report().await.failures;
    assert!((4..=8).contains(&failed), "{failed} requests failed");
    note(format!("{failed} requests failed in all"));
}

/// A version is taken back from so many percent of the requests.
async fn taken_back(shop: &Shop, weight: i32, version: &str, variable: (&str, &str), reason: &str, told: &str) {
    let stable = shop.status().await.stable.unwrap().revision;
    shop.release(version, &[variable]).await;
    let has = |status: &ServiceReleaseStatus| status.weights.is_some_and(|it| it.desired.candidate == weight);
    shop.reaches_within(A_FEW_REQUESTS, &format!("{version} has {weight}%"), has).await;
    let status = shop.reaches_within(A_FEW_REQUESTS, &format!("{version} is taken back"), is_back).await;
    assert_eq!((status.reason.as_str(), status.stable.unwrap().revision), (reason, stable), "{}", status.message);
    assert!(status.message.contains(told), "{}", status.message);
    shop.always("no more", |status| status.weights.is_none_or(|it| it.desired.candidate <= weight));
}

async fn found_by_checks_and_by_a_limit(world: World) {
    let (shop, load, postgres) = shop(&world, 10, json!([share(2)])).await;
    // A check asks by itself: it waits for nobody's requests, of which the candidate would have one in five minutes.
    let failed = "CheckFailed";
    taken_back(&shop, 10, "v2", ("HEALTH_DATABASE", "gone"), failed, "check health failed: ").await;
    taken_back(&shop, 10, "v3", ("FAILING_PATHS", "/health/database"), failed, "check smoke failed: exit code 1").await;
    taken_back(&shop, 10, "v4", ("LOG_ERRORS", "10"), failed, "check log failed: ").await;
    postgres.sql("INSERT INTO orders VALUES (false)").await;
    let told = "check unpaid failed: exit code 1: expected no rows, but there is 1 row";
    taken_back(&shop, 10, "v5", ("ANYTHING", "new"), failed, told).await;
    postgres.sql("DELETE FROM orders").await;
    let removed = world.kubectl("patch secret shop-env --type=json -p [{\"op\":\"remove\",\"path\":\"/data/TOKEN\"}]");
    removed.await.expect_success();
    let told = "check env failed: exit code 1: Secret shop-env has no key TOKEN";
    taken_back(&shop, 10, "v6", ("ANYTHING", "new"), failed, told).await;
    load.assert_no_failed_requests().await;

    let steps = json!([{"setWeight": 90}, {"pause": {"duration": "10s"}}]);
    let metrics = json!([share(2), errors_by_api()]);
    let canary =
        json!({"checks": [health()], "analysis": {"metrics": metrics}, "strategy": {"canary": {"steps": steps}}});
    shop.patch(&json!({ "spec": canary }).to_string()).await;
    shop.release("v7", &[("ERROR_RATE", "1")]).await;
    let one = "the value is of 1 requests, at least 2 are needed";
    let doubted = |status: &ServiceReleaseStatus| held(status) && says_nothing(status, "share", one);
    shop.reaches_within(A_FEW_REQUESTS, "one error is no rate", doubted).await;
    let counts = |status: &ServiceReleaseStatus| {
        status.verdicts.iter().any(|it| it.name == "api" && it.outcome == VerdictOutcome::Fail)
    };
    shop.reaches_within(A_FEW_REQUESTS, "but for who counts errors it is one", counts).await;
    let status = shop.reaches_within(A_FEW_REQUESTS, "v7 is taken back", is_back).await;
    assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
    assert!(status.message.contains("metric share failed: 1 (max 0.5)"), "{}", status.message);
    let failed = load.report().await.failures;
    assert!((2..=4).contains(&failed), "{failed} requests failed");
    note(format!("{failed} requests failed until it was found"));

    // Until its first request nothing is wrong with it: the pause is for a person to end.
    let steps = json!([{"setWeight": 90}, {"pause": {}}]);
    let change = json!({"spec": {"analysis": {"metrics": [restarts()]}, "strategy": {"canary": {"steps": steps}}}});
    shop.patch(&change.to_string()).await;
    taken_back(&shop, 90, "v8", ("CRASH_AFTER_REQUESTS", "0"), "AnalysisFailed", "metric restarts failed: ").await;
    let crashed = load.report().await.failures - failed;
    assert!((1..=2).contains(&crashed), "{crashed} requests failed with its crash");
}
