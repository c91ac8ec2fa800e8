//! Each way in which real pods fail takes the release back by itself, with the kubelet's own reason in
//! the status; the failed revision stays down, and the client sees nothing of it but what it had sent
//! to a pod that crashed by itself.

use std::time::Duration;

use serde_json::json;
use servicerelease::api::{Phase, PodProblem, ServiceReleaseStatus};

use crate::{
    harness::{Load, Scenario, Shop, World, shop::is},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    image_pull_gives_up_three_times, Together, Any;
    secret_key_is_missing, Together, Any;
    crashes_under_traffic, Together, Any;
    out_of_memory_under_traffic, Together, Any;
    invalid_image_name, Together, Any;
    image_never_pulled, Together, Any;
    crash_loop_at_start, Together, Any;
    never_ready, Together, Any;
    readiness_is_lost_under_traffic, Together, Embedded;
    unschedulable, Together, Any;
};

const CANARY: &str = "{replicas: 2, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}";

/// The shop under load, before the change that breaks it.
async fn serving(world: &World) -> (Shop, Load) {
    let shop = world.shop(CANARY).await;
    (shop, world.load().await)
}

/// Waits for the end of the rollback and asserts that it was for this reason, and that all is as before.
async fn taken_back(shop: &Shop, reason: &str) -> ServiceReleaseStatus {
    let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
    assert_eq!(status.reason, reason, "{status:?}");
    assert!(is(&status, "Stalled") && !is(&status, "Ready"), "{:?}", status.conditions);
    let stable = status.stable.clone().unwrap();
    assert_eq!(stable.ready_replicas, 2, "{stable:?}");
    assert_eq!(shop.sizes().await, [(stable.revision, 2)], "only stable has pods");
    let failed = status.failed_revisions.last().unwrap();
    assert!(failed.latched, "{failed:?}");
    status
}

/// What was wrong with the candidate's pods when the rollback began.
async fn problem(shop: &Shop) -> PodProblem {
    let problem = |status: &ServiceReleaseStatus| status.candidate.clone().and_then(|candidate| candidate.problem);
    let begun = |status: &ServiceReleaseStatus| status.phase == Phase::RollingBack && problem(status).is_some();
    let status = shop.reaches("RollingBack, with the pods' problem", begun).await;
    problem(&status).unwrap()
}

/// No request was sent to the candidate.
async fn nobody_noticed(load: &Load) {
    let report = load.report().await;
    assert_eq!(report.by_version.keys().collect::<Vec<_>>(), ["v1"], "v2 had traffic");
    load.assert_no_failed_requests().await;
}

async fn invalid_image_name(world: World) {
    let (shop, load) = serving(&world).await;
    shop.change_container("image", json!("Not An Image")).await;
    assert_eq!(problem(&shop).await.reason, "InvalidImageName");
    taken_back(&shop, "InvalidImageName").await;
    nobody_noticed(&load).await;
}

async fn image_never_pulled(world: World) {
    let (shop, load) = serving(&world).await;
    let ports = "[{name: http, containerPort: 8080}]";
    let container = format!("{{name: app, image: 'localhost/not-here:1', imagePullPolicy: Never, ports: {ports}}}");
    shop.patch(&format!("{{spec: {{template: {{spec: {{containers: [{container}]}}}}}}}}")).await;
    taken_back(&shop, "ErrImageNeverPull").await;
    nobody_noticed(&load).await;
}

async fn image_pull_gives_up_three_times(world: World) {
    let (shop, load) = serving(&world).await;
    // The kubelet waits 10 s and 20 s in between, and as long until it says so.
    shop.patch("{spec: {progressDeadlineSeconds: 180}}").await;
    shop.change_container("image", json!("localhost/not-here:1")).await;
    let waits = |status: &ServiceReleaseStatus| status.message.contains("ImagePullBackOff");
    let first = shop.reaches("a first ImagePullBackOff that is told and waited for", waits).await;
    assert_eq!(first.phase, Phase::Progressing);
    assert_eq!(problem(&shop).await.count, 3);
    taken_back(&shop, "ImagePullBackOff").await;
    nobody_noticed(&load).await;
}

async fn secret_key_is_missing(world: World) {
    let (shop, load) = serving(&world).await;
    let key = json!({ "secretKeyRef": { "name": "shop-env", "key": "TOKEN" } });
    shop.change_container("env", json!([{ "name": "TOKEN", "valueFrom": key }])).await;
    let told = |status: &ServiceReleaseStatus| status.message.contains("CreateContainerConfigError");
    let told = shop.reaches("the error, told at once", told).await;
    let since = told.candidate.unwrap().problem.unwrap().since;
    let begun = shop.phase(Phase::RollingBack).await.rollback.unwrap().started_at;
    let waited = Duration::from_millis(begun.since(since).as_millis());
    assert!(waited >= Duration::from_secs(30) && waited < Duration::from_secs(35), "{waited:?}");
    let status = taken_back(&shop, "CreateContainerConfigError").await;
    assert!(status.message.contains("shop-env"), "which Secret: {}", status.message);
    nobody_noticed(&load).await;
}

async fn crash_loop_at_start(world: World) {
    let (shop, load) = serving(&world).await;
    shop.release("v2", &[("CRASH_AT_START", "7")]).await;
    let problem = problem(&shop).await;
    assert_eq!((problem.reason.as_str(), problem.exit_code), ("CrashLoopBackOff", Some(7)), "{problem:?}");
    taken_back(&shop, "CrashLoopBackOff").await;
    nobody_noticed(&load).await;
}

async fn crashes_under_traffic(world: World) {
    let (shop, load) = serving(&world).await;
    shop.release("v2", &[("CRASH_AFTER_REQUESTS", "60")]).await;
    let problem = problem(&shop).await;
    assert_eq!((problem.reason.as_str(), problem.exit_code), ("CrashLoopBackOff", Some(3)), "{problem:?}");
    taken_back(&shop, "CrashLoopBackOff").await;
    assert!(!world.witness.crashes().is_empty());
    load.assert_share("v1", 100.0).await;
    load.assert_only_crashes_failed_requests().await;
}

async fn out_of_memory_under_traffic(world: World) {
    let (shop, load) = serving(&world).await;
    let container = json!([{ "name": "app", "image": world.cluster.testapp, "args": ["serve"],
        "ports": [{ "name": "http", "containerPort": 8080 }],
        "env": [{ "name": "APP_VERSION", "value": "v2" }, { "name": "ALLOCATE_MIB", "value": "400" }],
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "http" }, "periodSeconds": 1 },
        "resources": { "limits": { "memory": "256Mi" } } }]);
    shop.patch(&json!({ "spec": { "template": { "spec": { "containers": container } } } }).to_string()).await;
    let problem = problem(&shop).await;
    assert_eq!((problem.reason.as_str(), problem.exit_code), ("OOMKilled", Some(137)), "{problem:?}");
    taken_back(&shop, "OOMKilled").await;
    load.assert_only_crashes_failed_requests().await;
}

async fn never_ready(world: World) {
    let (shop, load) = serving(&world).await;
    shop.patch("{spec: {progressDeadlineSeconds: 8}}").await;
    shop.release("v2", &[("NEVER_READY", "true")]).await;
    let status = taken_back(&shop, "ProgressDeadlineExceeded").await;
    assert!(status.message.contains("0 of 1 pods available"), "{}", status.message);
    nobody_noticed(&load).await;
}

async fn readiness_is_lost_under_traffic(world: World) {
    let (shop, load) = serving(&world).await;
    shop.release("v2", &[]).await;
    let paused = shop.step("3/4 pause", Phase::Paused).await;
    // They go on answering what reaches them.
    world.behave(&paused.candidate.unwrap().revision, "{\"never_ready\": true}").await;
    let status = taken_back(&shop, "NotReady").await;
    assert!(status.message.contains(" is ready any more: the readiness probe of pod "), "{}", status.message);
    assert!(load.report().await.by_version.contains_key("v2"), "v2 had its traffic");
    load.assert_no_failed_requests().await;
}

async fn unschedulable(world: World) {
    let (shop, load) = serving(&world).await;
    shop.patch("{spec: {progressDeadlineSeconds: 8, template: {spec: {nodeSelector: {disk: none-such}}}}}").await;
    let told = |status: &ServiceReleaseStatus| status.message.contains("Unschedulable");
    shop.reaches("the scheduler's word, told at once", |status| status.phase == Phase::Progressing && told(status))
        .await;
    let status = taken_back(&shop, "ProgressDeadlineExceeded").await;
    assert!(told(&status), "{}", status.message);
    nobody_noticed(&load).await;
}
