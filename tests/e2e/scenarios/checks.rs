//! Checks by HTTP on real pods: the good candidate passes, each bad one goes back on the strength of the
//! check that it fails, and no client sees anything of it.

use serde_json::{Value, json};
use servicerelease::api::{CheckOutcome, Phase, ServiceReleaseStatus};

use crate::{
    harness::{Load, Scenario, Shop, World, merge},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    the_example_of_checks, Together, Any;
    asked_at_each_step, Together, Any;
    never_answered, Together, Any;
    the_example_of_jobs, Together, Any;
    jobs_that_go_wrong, Together, Any;
};

/// A release of a broken version is taken back by the check that is named, before it had traffic.
async fn taken_back(shop: &Shop, load: &Load, version: &str, variable: (&str, &str), told: &str) {
    shop.release(version, &[variable]).await;
    let back = |status: &ServiceReleaseStatus| {
        let failed = status.failed_revisions.last().is_some_and(|failed| failed.latched);
        failed && status.phase == Phase::RolledBack
    };
    let status = shop.reaches("RolledBack", back).await;
    assert_eq!(status.reason, "CheckFailed", "{}", status.message);
    assert!(status.message.contains(told), "{}", status.message);
    let report = load.report().await;
    assert!(!report.by_version.contains_key(version), "{version} had traffic: {:?}", report.by_version);
}

async fn the_example_of_checks(world: World) {
    // Slow is what is made slow, not what a busy machine makes so.
    let text = include_str!("../../../deploy/examples/checks.yaml").replace("maxLatency: 500ms", "maxLatency: 5s");
    let shop = super::gateway::example(&world, &text).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let status = shop.step("5/6 pause", Phase::Paused).await;
    let outcomes: Vec<_> = status.checks.iter().map(|it| (it.name.as_str(), it.outcome, it.attempts)).collect();
    let passed = CheckOutcome::Passed;
    assert_eq!(outcomes, [("health", passed, 5), ("auth-required", passed, 1), ("quote", passed, 2)]);
    assert!(status.checks[0].message.starts_with("GET /health: 200 from "), "{}", status.checks[0].message);
    world.event("CheckPassed", "check health, 5 answers: GET /health: 200").await;
    shop.say("Promote").await;
    shop.healthy().await;

    let database =
        "check health failed: GET /health: expected JSON field database = \"connected\", which has another value";
    taken_back(&shop, &load, "v3", ("HEALTH_DATABASE", "disconnected"), database).await;
    let open = "check auth-required failed: GET /api/private: expected status 401 (200 from ";
    taken_back(&shop, &load, "v4", ("PRIVATE_OPEN", "true"), open).await;
    let quote = "check quote failed: POST /api/quote: expected json.success && json.rates.size() > 0";
    taken_back(&shop, &load, "v5", ("QUOTE_FAILS", "true"), quote).await;
    world.event("CheckFailed", "check quote, 3 answers").await;
    load.assert_no_failed_requests().await;
}

async fn asked_at_each_step(world: World) {
    let check = "{name: health, when: [EachStep], onFailure: Hold, http: {path: /health}}";
    let steps = "[{setWeight: 50}, {pause: {}}]";
    let shop = world.shop(&format!("{{checks: [{check}], strategy: {{canary: {{steps: {steps}}}}}}}")).await;
    let load = world.load().await;
    shop.release("v2", &[("HEALTH_CODE", "503")]).await;
    let status = shop.reaches("held by its check", |status| status.hold.is_some()).await;
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "CheckFailed"));
    assert_eq!(status.weights.unwrap().desired.candidate, 50);
    assert!(status.message.contains("expected status 200 to 299 (503 from "), "{}", status.message);
    assert!(status.next_action.contains("kubectl srel"), "{}", status.next_action);
    shop.say("Retry").await;
    shop.reaches("asked again, and held again", |now| {
        now.hold.as_ref().zip(status.hold.as_ref()).is_some_and(|(now, before)| now.since > before.since)
    })
    .await;
    shop.say("Skip").await;
    shop.step("4/5 pause", Phase::Paused).await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_no_failed_requests().await;
}

async fn never_answered(world: World) {
    let check = "{name: home, http: {path: /}, timeout: 1s, failureThreshold: 2, interval: 500ms}";
    let shop = world.shop(&format!("{{checks: [{check}]}}")).await;
    let load = world.load().await;
    shop.release("v2", &[("LATENCY", "60s")]).await;
    let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
    assert_eq!(status.reason, "CheckFailed");
    assert!(status.message.contains("GET /: no answer within 1s"), "{}", status.message);
    assert_eq!(status.checks[0].attempts, 2);
    load.answered_only_by("v1").await;
    load.assert_no_failed_requests().await;
}

/// A manifest with the image of k6 that the cluster has.
pub(super) fn with_k6(text: &str) -> String {
    let k6 = std::env::var("K6_IMAGE").ok().filter(|image| !image.is_empty());
    text.replace("grafana/k6:1.8.1", &k6.expect("K6_IMAGE, as tests/setup/up makes it with TOOLS=k6"))
}

async fn the_example_of_jobs(world: World) {
    let shop = super::gateway::example(&world, &with_k6(include_str!("../../../deploy/examples/jobs.yaml"))).await;
    let load = world.load().await;
    let status = shop.phase(Phase::Observing).await;
    assert!(status.conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True"), "{:?}", status.conditions);
    shop.release("v2", &[]).await;
    let asked = |status: &ServiceReleaseStatus| {
        let last = status.checks.last().is_some_and(|it| it.name == "live" && it.outcome == CheckOutcome::Passed);
        status.phase == Phase::Observing && last
    };
    let status = shop.reaches("Observing, and asked whether it lives", asked).await;
    let outcomes: Vec<_> = status.checks.iter().map(|it| (it.name.as_str(), it.outcome)).collect();
    let passed = CheckOutcome::Passed;
    let expected = [("required-env", passed), ("load-test", passed), ("log-errors", passed), ("live", passed)];
    assert_eq!(outcomes, expected);
    let job = status.checks[1].job.clone().unwrap();
    let log = world.kubectl(&format!("logs job/{job}")).await;
    assert!(log.text.contains("http_req_duration"), "{}", log.text);

    // Slow, as the load test finds before any client does.
    taken_back(&shop, &load, "v3", ("LATENCY", "700ms"), "check load-test failed: exit code 99: ").await;
    let job = shop.status().await.checks.into_iter().find(|it| it.name == "load-test").unwrap().job.unwrap();
    let log = world.kubectl(&format!("logs job/{job}")).await;
    assert!(log.text.contains("thresholds on metrics"), "its log stays: {}", log.text);

    shop.release("v4", &[("LOG_ERRORS", "10")]).await;
    let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
    assert!(status.message.contains("check log-errors failed: "), "{}", status.message);
    assert!(status.message.contains(" lines match "), "{}", status.message);

    let removed =
        world.kubectl("patch secret shop-env --type=json -p [{\"op\":\"remove\",\"path\":\"/data/JWT_SECRET\"}]");
    removed.await.expect_success();
    let told = "check required-env failed: exit code 1: Secret shop-env has no key JWT_SECRET";
    taken_back(&shop, &load, "v5", ("NOTHING", "new"), told).await;
    assert!(shop.status().await.failed_revisions.len() >= 3);
    let pods = world
        .kubectl("get pods -l servicerelease.io/revision -o jsonpath={.items[*].spec.containers[*].env[*].value}")
        .await;
    assert!(!pods.text.contains("v5"), "{}", pods.text);
    load.assert_no_failed_requests().await;
}

/// The check `job` with a container of the test application, which serves until it is told to end.
fn job(image: &str, timeout: &str, pod: Value, container: Value) -> Value {
    let security = json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1, "securityContext": security,
        "containers": [{
            "name": "job", "image": image, "imagePullPolicy": "Never", "args": ["serve"],
            "resources": {"requests": {"cpu": "10m"}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    });
    merge(&mut spec["containers"][0], container);
    merge(&mut spec, pod);
    json!({"spec": {"checks": [{"name": "job", "timeout": timeout, "job": {"template": {"spec": spec}}}]}})
}

async fn jobs_that_go_wrong(world: World) {
    let shop = world.shop("{}").await;
    let load = world.load().await;
    let none = || json!({});
    let job = |timeout: &str, pod, container| job(&world.cluster.testapp, timeout, pod, container);
    let late = "check job failed: not done within 4s: exit code ";
    let cases = [
        ("v2", job("4s", none(), none()), late),
        ("v3", job("4s", none(), json!({"image": "localhost/not-here:1"})), "its pod did not start: ErrImageNeverPull"),
        ("v4", job("2s", none(), json!({"resources": {"requests": {"cpu": "500"}}})), "Insufficient cpu"),
        (
            "v5",
            job("2s", json!({"serviceAccountName": "nobody"}), none()),
            "no pod of it can be made: its service account",
        ),
        (
            "v6",
            job("10m", none(), json!({"imagee": "busybox"})),
            "unknown field \"spec.template.spec.containers[0].imagee\"",
        ),
    ];
    for (version, check, told) in cases {
        shop.release_with(version, check).await;
        let status = shop.phase(Phase::RolledBack).await;
        assert_eq!(status.reason, "CheckFailed", "{version}: {}", status.message);
        assert!(status.message.contains(told), "{version}: {}", status.message);
        if told == late {
            let log =
                world.kubectl(&format!("logs job/{}", status.checks[0].job.clone().unwrap())).await.expect_success();
            assert!(!log.is_empty(), "the log of what came to no end stays");
        }
    }
    // Told to end, it exits with 0 after a while.
    shop.release_with("v7", job("10m", json!({"terminationGracePeriodSeconds": 30}), none())).await;
    let runs = |status: &ServiceReleaseStatus| status.checks.first().is_some_and(|it| it.message.ends_with(" runs"));
    let status = shop.reaches("its Job runs", runs).await;
    let pods = format!("-l servicerelease.io/job={}", status.checks[0].job.clone().unwrap());
    world.kubectl(&format!("wait pod {pods} --for=condition=Ready --timeout=30s")).await.expect_success();
    world.kubectl(&format!("delete pod {pods} --wait=false")).await.expect_success();
    let status = shop.phase(Phase::RolledBack).await;
    assert!(status.message.contains("its pod was deleted before it had ended by itself"), "{}", status.message);
    load.answered_only_by("v1").await;
    load.assert_no_failed_requests().await;
}
