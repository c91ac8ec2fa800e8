//! Candidates that have a tenth of the requests through the gateway, each broken in another way: whatever watches for it
//! takes them back from there. A good one is promoted under the same noise.

use std::time::Duration;

use serde_json::{Value, json};
use servicerelease::api::{Phase, ServiceReleaseStatus, VerdictOutcome, VerdictStatus};

use crate::{
    harness::{Load, Scenario, Shop, World, counted, postgres::Postgres},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    found_by_its_burn_rate, Together, Prometheus;
    found_by_comparison, Together, Prometheus;
    found_by_limits, Together, Prometheus;
    found_by_checks, Together, Gateway;
    found_by_questions_to_the_database, Together, Gateway;
};

/// The shop behind the gateway, which Prometheus scrapes. Bad candidates never get beyond their tenth: every pause is
/// longer than it may take to find them.
async fn shop(world: &World, spec: Value) -> (Shop, Load) {
    let scraped = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    let mut all = json!({
        "template": {"metadata": {"annotations": scraped}},
        "strategy": {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}]}},
    });
    crate::harness::merge(&mut all, spec);
    let shop = world.routed_shop("GATEWAY", &all.to_string()).await;
    (shop, world.load_through_gateway().await)
}

/// A version is taken back for this, from a tenth of the requests.
async fn taken_back(shop: &Shop, version: &str, variables: &[(&str, &str)], reason: &str, told: &str) {
    let stable = shop.status().await.stable.unwrap().revision;
    shop.release(version, variables).await;
    let at_ten = |status: &ServiceReleaseStatus| status.weights.is_some_and(|weights| weights.desired.candidate == 10);
    shop.reaches(&format!("{version} has a tenth"), at_ten).await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches(&format!("{version} is taken back"), back).await;
    assert_eq!((status.reason.as_str(), status.stable.unwrap().revision), (reason, stable), "{}", status.message);
    assert!(status.message.contains(told), "{}", status.message);
    shop.always("a tenth at most", |status| status.weights.is_none_or(|weights| weights.desired.candidate <= 10));
}

/// What the analysis of the next release is.
async fn watch(shop: &Shop, metrics: Value) {
    let metrics = json!({"spec": {"analysis": {"interval": "1s", "metrics": metrics}}});
    shop.patch(&metrics.to_string()).await;
}

pub(super) const ALL_REQUESTS: &str = r#"http_requests_total{namespace="{{namespace}}",pod=~"{{pods}}"}"#;
pub(super) const ERRORS: &str = r#"http_requests_total{namespace="{{namespace}}",pod=~"{{pods}}",code=~"5.."}"#;
const DURATIONS: &str = r#"http_request_duration_seconds_count{namespace="{{namespace}}",pod=~"{{pods}}"}"#;
const QUICK: &str = r#"http_request_duration_seconds_bucket{namespace="{{namespace}}",pod=~"{{pods}}",le="0.5"}"#;
/// Errors that stable has, too.
const NOISE: (&str, &str) = ("ERROR_RATE", "0.02");

async fn found_by_comparison(world: World) {
    let (shop, _load) = shop(&world, json!({})).await;
    let metrics = json!([
        {"name": "errors", "prometheus": {"total": ALL_REQUESTS, "events": ERRORS}, "compare": {"minRequests": 150}},
        {"name": "slow", "prometheus": {"total": DURATIONS, "good": QUICK}, "compare": {"minRequests": 150}},
    ]);
    watch(&shop, metrics).await;
    shop.release("v2", &[NOISE]).await;
    shop.reaches("v2 is on its way", |status| status.candidate.is_some()).await;
    shop.command("Promote", "{full: true}").await;
    shop.healthy().await;
    shop.release("v3", &[NOISE]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    let judged = |status: &ServiceReleaseStatus| status.verdicts.iter().all(|it| it.outcome == VerdictOutcome::Pass);
    let status = shop.reaches("both verdicts are Pass", judged).await;
    let verdict = &status.verdicts[0];
    assert!(counted(verdict).0 >= 150 && verdict.segments.iter().all(|segment| segment.weight == 10), "{verdict:?}");
    shop.say("Promote").await;
    shop.healthy().await;

    taken_back(&shop, "v4", &[("ERROR_RATE", "0.3")], "AnalysisFailed", "metric errors failed: ").await;
    taken_back(&shop, "v5", &[NOISE, ("LATENCY", "700ms")], "AnalysisFailed", "metric slow failed: ").await;
}

/// The shortest window of a burn rate is five minutes: so long it has nothing to say, and the release is held.
async fn found_by_its_burn_rate(world: World) {
    let steps = json!([{"setWeight": 10}, {"pause": {"duration": "1s"}}]);
    let (shop, _load) = shop(&world, json!({"strategy": {"canary": {"steps": steps}}})).await;
    let objective = json!({"objective": 0.9995});
    let counters = json!({"total": ALL_REQUESTS, "events": ERRORS});
    watch(&shop, json!([{"name": "budget", "prometheus": counters, "burnRate": objective}])).await;
    // Errors that the budget is for: of a tenth of the requests, and then of all, fewer than burn.
    shop.release("v2", &[("ERROR_RATE", "0.004")]).await;
    let held = |status: &ServiceReleaseStatus| status.reason == "AnalysisInconclusive";
    shop.reaches("held without a window", held).await;
    let healthy = |status: &ServiceReleaseStatus| status.phase == Phase::Healthy;
    let status = shop.reaches_within(Duration::from_secs(420), "Healthy", healthy).await;
    let verdict = &status.verdicts[0];
    let errors = verdict.windows.iter().any(|window| window.events > 0);
    assert!(verdict.outcome == VerdictOutcome::Pass && errors, "{verdict:?}");
    shop.patch(r#"{"spec": {"strategy": {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}]}}}}"#).await;
    taken_back(&shop, "v3", &[("ERROR_RATE", "1")], "AnalysisFailed", "metric budget failed: ").await;
}

async fn found_by_limits(world: World) {
    let share = format!("(sum(rate({}[10s])) or vector(0)) / sum(rate({}[10s]))", ERRORS, ALL_REQUESTS);
    let (shop, _load) = shop(&world, json!({})).await;
    let limit = json!({"max": 0.1});
    let by_query = json!({"name": "errors", "prometheus": {"query": share}, "threshold": limit, "failureThreshold": 2});
    // Prometheus as any API that answers with JSON.
    let query = "(sum(rate(http_requests_total%7Bpod=~%22{{pods}}%22,code=~%225..%22%7D%5B10s%5D))%20or%20vector(0))/sum(rate(http_requests_total%7Bpod=~%22{{pods}}%22%7D%5B10s%5D))";
    let web = json!({"provider": "api", "path": format!("/query?query={query}"), "value": "double(json.data.result[0].value[1])"});
    let by_web = json!({"name": "web-errors", "web": web, "threshold": limit});
    let by_pods = json!({"name": "restarts", "workload": {"maxRestarts": 0}});
    watch(&shop, json!([by_query, by_web, by_pods])).await;
    shop.release("v2", &[NOISE]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    // What is seen of pods is written down only when it changes.
    let passes = |status: &ServiceReleaseStatus| {
        let often = |it: &VerdictStatus| it.measurements >= 15 || it.name == "restarts";
        let all = status.verdicts.iter().all(|it| often(it) && it.outcome == VerdictOutcome::Pass);
        status.verdicts.len() == 3 && all
    };
    shop.reaches("measured often, and passed", passes).await;
    shop.say("Promote").await;
    shop.healthy().await;

    watch(&shop, json!([by_query])).await;
    taken_back(&shop, "v3", &[("ERROR_RATE", "0.3")], "AnalysisFailed", "metric errors failed: ").await;
    watch(&shop, json!([by_web])).await;
    taken_back(&shop, "v4", &[("ERROR_RATE", "0.3")], "AnalysisFailed", "metric web-errors failed: ").await;
    watch(&shop, json!([by_pods])).await;
    taken_back(&shop, "v5", &[("CRASH_AFTER_REQUESTS", "100")], "AnalysisFailed", "metric restarts failed: ").await;
}

/// The good one answers a question wrong now and then, and so it does its clients; its log has lines that are no errors.
async fn found_by_checks(world: World) {
    let job = |name: &str, timeout: &str, args: &[&str]| {
        let container =
            json!({"name": name, "image": "TESTAPP_IMAGE", "imagePullPolicy": "IfNotPresent", "args": args});
        let template = json!({"spec": {"containers": [container]}});
        json!({"name": name, "when": ["EachStep"], "job": {"template": template}, "timeout": timeout})
    };
    let health = json!({"path": "/health", "target": "EachPod", "expect": {"json": {"database": "connected"}}});
    let url = "http://$(RELEASE_CANDIDATE_SERVICE):8080/";
    let mut smoke = job("smoke", "30s", &["load", "--url", url, "--rate", "20", "--duration", "1s", "--fail-on-error"]);
    smoke["failureThreshold"] = json!(2);
    let checks = json!([
        {"name": "health", "when": ["EachStep"], "http": health, "successThreshold": 2, "failureThreshold": 2},
        {"name": "log", "when": ["EachStep"], "logs": {"pattern": "ERROR"}},
        {"name": "env", "when": ["EachStep"], "keys": [{"secret": "shop-env", "keys": ["TOKEN"]}]},
        smoke,
    ]);
    world.apply("{apiVersion: v1, kind: Secret, metadata: {name: shop-env}, stringData: {TOKEN: abc}}").await;
    let steps = json!([{"setWeight": 10}, {"check": ["health"]}, {"pause": {}}]);
    let (shop, load) = shop(&world, json!({"checks": checks, "strategy": {"canary": {"steps": steps}}})).await;
    taken_back(&shop, "v2", &[("HEALTH_DATABASE", "gone")], "CheckFailed", "check health failed: ").await;
    taken_back(&shop, "v3", &[("LOG_ERRORS", "10")], "CheckFailed", "check log failed: ").await;
    load.assert_no_failed_requests().await;
    let noise = [("ERROR_RATE", "0.005"), ("FAILING_PATHS", "/health@3"), ("LOG_LINE", "WARN tried again")];
    shop.release("v4", &noise).await;
    let status = shop.step("5/6 pause", Phase::Paused).await;
    let health = status.checks.iter().find(|check| check.name == "health").unwrap();
    assert_eq!((health.attempts, health.wrong), (3, 1), "{health:?}");
    load.assert_exact_share("v4", 10.0).await;
    shop.say("Promote").await;
    shop.healthy().await;
    taken_back(&shop, "v5", &[("ERROR_RATE", "0.5")], "CheckFailed", "check smoke failed: exit code 1").await;

    let removed = world.kubectl("patch secret shop-env --type=json -p [{\"op\":\"remove\",\"path\":\"/data/TOKEN\"}]");
    removed.await.expect_success();
    let told = "check env failed: exit code 1: Secret shop-env has no key TOKEN";
    taken_back(&shop, "v6", &[], "CheckFailed", told).await;

    // One that never ends.
    let checks = json!([job("endless", "5s", &["load", "--url", url])]);
    let strategy = json!({"canary": {"steps": [{"setWeight": 10}, {"pause": {}}]}});
    shop.patch(&json!({"spec": {"checks": checks, "strategy": strategy}}).to_string()).await;
    taken_back(&shop, "v7", &[], "CheckFailed", "check endless failed: ").await;
    let still = world.kubectl("get pods -l job-name --field-selector status.phase=Running -o name").await;
    assert_eq!(still.text.trim(), "", "no Job runs on");
}

/// What the candidate's requests make of the data, asked by a step of its own.
async fn found_by_questions_to_the_database(world: World) {
    let postgres = Postgres::start(&world).await;
    postgres.sql("CREATE TABLE orders (paid bool)").await;
    postgres.sql("INSERT INTO orders VALUES (true), (true)").await;
    let url = json!({"secretKeyRef": {"name": "shop-db", "key": "DATABASE_URL"}});
    let sql = json!({"query": "SELECT 1 FROM orders WHERE NOT paid", "urlFrom": url});
    let steps = json!([{"setWeight": 10}, {"check": ["unpaid"]}, {"pause": {}}]);
    let check = json!({"name": "unpaid", "when": [], "sql": sql});
    let (shop, load) = shop(&world, json!({"checks": [check], "strategy": {"canary": {"steps": steps}}})).await;
    shop.release("v2", &[]).await;
    shop.step("4/5 pause", Phase::Paused).await;
    shop.say("Promote").await;
    shop.healthy().await;
    postgres.sql("INSERT INTO orders VALUES (false)").await;
    let told = "check unpaid failed: exit code 1: expected no rows, but there is 1 row";
    taken_back(&shop, "v3", &[], "CheckFailed", told).await;
    load.assert_no_failed_requests().await;
}
