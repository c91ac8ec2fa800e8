//! What a canary over a Gateway can do beside weights: testers by a header, copies of requests, pods apart
//! from the weight, a stable that shrinks; and the same weights on a second data plane.

use kube::{Api, ResourceExt as _, api::ListParams};
use servicerelease::api::{LABEL_REVISION, Phase};

use crate::{
    harness::{Load, Scenario, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    testers_by_a_header, Together, Gateway;
    pods_apart_from_the_weight, Together, Gateway;
    abort_onto_a_stable_that_shrank, Together, Gateway;
    canary_over_envoy, Together, Envoy;
    copies_of_requests, Together, Envoy;
    copies_where_there_are_none, Together, Gateway;
    the_examples, Together, Gateway;
    behind_maintenance, Together, Gateway;
};

async fn testers_by_a_header(world: World) {
    let spec = "strategy: {canary: {steps: [
        {setHeaderRoute: {headers: [{name: x-tester, value: \"yes\"}]}}, {pause: {}}, {setWeight: 50}, {pause: {}}]}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let load = world.load_through_gateway().await;
    let testers = world.load_with_header("x-tester: yes").await;

    shop.release("v2", &[]).await;
    let status = shop.step("3/6 pause", Phase::Paused).await;
    assert_eq!(status.route.unwrap().header_route.as_deref(), Some("x-tester: yes"));
    assert_eq!(status.weights.unwrap().observed.candidate, 0);
    load.assert_exact_share("v2", 0.0).await;
    testers.assert_exact_share("v2", 100.0).await;

    shop.say("Promote").await;
    shop.step("5/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 50.0).await;
    testers.assert_exact_share("v2", 100.0).await;

    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    testers.assert_exact_share("v1", 100.0).await;
    load.assert_exact_share("v1", 100.0).await;
    let rules = world.kubectl("get httproute shop -o jsonpath={.spec.rules[*].matches}").await.expect_success();
    assert!(!rules.contains("x-tester"), "{rules}");
    testers.assert_no_failed_requests().await;
    load.assert_no_failed_requests().await;
}

async fn pods_apart_from_the_weight(world: World) {
    let spec = "{replicas: 3, strategy: {canary: {steps: [
        {scale: {percent: 100}}, {setWeight: 10}, {pause: {}}, {scale: {}}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let load = world.load_through_gateway().await;

    shop.release("v2", &[]).await;
    let status = shop.step("4/7 pause", Phase::Paused).await;
    assert_eq!(status.candidate.unwrap().available_replicas, 3);
    load.assert_exact_share("v2", 10.0).await;
    shop.say("Promote").await;
    let status = shop.step("6/7 pause", Phase::Paused).await;
    assert_eq!(status.candidate.unwrap().replicas, 1);
    load.assert_exact_share("v2", 10.0).await;
    load.assert_no_failed_requests().await;
}

async fn abort_onto_a_stable_that_shrank(world: World) {
    let spec = "{replicas: 4, strategy: {canary: {dynamicStableScale: {atLeast: 1},
        steps: [{setWeight: 75}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let load = world.load_through_gateway().await;

    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    shop.reaches("stable has shrunk", |status| status.stable.as_ref().is_some_and(|it| it.replicas == 1)).await;
    load.assert_exact_share("v2", 75.0).await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_exact_share("v1", 100.0).await;
    shop.always("no more weight for stable than it has pods", |status| {
        let (Some(route), Some(stable)) = (&status.route, &status.stable) else { return true };
        let share = 100 - route.weight.unwrap_or(0);
        status.candidate.is_none() || share <= stable.available_replicas * 25
    });
    load.assert_no_failed_requests().await;
}

async fn canary_over_envoy(world: World) {
    let spec = "{replicas: 3, strategy: {canary: {steps: [
        {setWeight: 10}, {pause: {}}, {setWeight: 50}, {pause: {}}]}}}";
    let shop = world.routed_shop("ENVOY", spec).await;
    let load = world.load_through("edge-envoy").await;

    shop.release("v2", &[]).await;
    shop.step("3/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 10.0).await;
    shop.say("Promote").await;
    shop.step("5/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 50.0).await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_exact_share("v2", 0.0).await;
    shop.say("Retry").await;
    shop.step("3/6 pause", Phase::Paused).await;
    shop.command("Promote", "full: true").await;
    shop.healthy().await;
    load.assert_exact_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

/// Requests that the pods of the candidate answered until now.
async fn answered_by(world: &World, revision: &str) -> f64 {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = world.api();
    let list = pods.list(&ListParams::default().labels(&format!("{LABEL_REVISION}={revision}"))).await.unwrap();
    let mut all = 0.0;
    for pod in list {
        let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics", world.namespace, pod.name_any());
        let page = world.cluster.client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
        let counts = page.lines().filter(|line| line.starts_with("http_requests_total{code=\"200\"}"));
        all += counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    all
}

async fn copies_of_requests(world: World) {
    let example = include_str!("../../../deploy/examples/copies.yaml").replace("name: edge,", "name: edge-envoy,");
    let shop = super::gateway::example(&world, &example).await;
    let load = world.load_through("edge-envoy").await;

    shop.release("v2", &[]).await;
    let status = shop.step("4/8 pause", Phase::Progressing).await;
    assert_eq!(status.route.unwrap().mirror_percent, Some(100));
    let revision = status.candidate.unwrap().revision;
    let (before, asked) = (answered_by(&world, &revision).await, load.report().await.total);
    load.more_requests(500).await;
    let (copies, asked) = (answered_by(&world, &revision).await - before, load.report().await.total - asked);
    let share = copies / asked as f64;
    assert!((0.8..1.2).contains(&share), "{copies} copies of {asked} requests");
    load.assert_exact_share("v2", 0.0).await;

    shop.say("Promote").await;
    shop.step("7/8 pause", Phase::Progressing).await;
    load.assert_exact_share("v2", 10.0).await;
    let (before, asked) = (answered_by(&world, &revision).await, load.report().await.total);
    load.more_requests(500).await;
    let (answers, asked) = (answered_by(&world, &revision).await - before, load.report().await.total - asked);
    assert!(answers / (asked as f64) < 0.3, "copies go on: {answers} of {asked} requests");
    load.assert_no_failed_requests().await;
}

/// Traefik knows no copies. It would accept the route, and answer every request with 500.
async fn copies_where_there_are_none(world: World) {
    let shop = world.routed_shop("GATEWAY", "strategy: {canary: {}}").await;
    let load = world.load_through_gateway().await;

    shop.patch("spec: {strategy: {canary: {steps: [{setMirrorRoute: {}}, {pause: {}}]}}}").await;
    shop.release("v2", &[]).await;
    let status = shop.phase(Phase::Invalid).await;
    assert_eq!(status.reason, "MirrorNotSupported", "{}", status.message);
    assert!(status.message.contains("class traefik"), "{}", status.message);
    assert!(status.candidate.is_none(), "nothing of it runs");
    load.more_requests(300).await;
    shop.patch("spec: {strategy: {canary: {steps: [{setWeight: 30}, {pause: {}}]}}}").await;
    shop.step("3/4 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 30.0).await;
    load.assert_no_failed_requests().await;
}

async fn the_examples(world: World) {
    let shop = super::gateway::example(&world, include_str!("../../../deploy/examples/testers-first.yaml")).await;
    let load = world.load_through_gateway().await;
    let testers = world.load_with_header("x-tester: yes").await;
    shop.release("v2", &[]).await;
    let status = shop.step("4/11 pause", Phase::Paused).await;
    assert_eq!(status.candidate.unwrap().replicas, 1);
    load.assert_exact_share("v1", 100.0).await;
    testers.assert_exact_share("v2", 100.0).await;
    shop.say("Promote").await;
    shop.step("7/11 pause", Phase::Progressing).await;
    load.assert_exact_share("v2", 25.0).await;
    shop.say("Promote").await;
    shop.step("10/11 pause", Phase::Progressing).await;
    shop.reaches("half of stable", |status| status.stable.as_ref().is_some_and(|it| it.replicas == 2)).await;
    Load::assert_exact_share_of(&[&load, &testers], "v2", 75.0).await;
    load.assert_no_failed_requests().await;
    testers.assert_no_failed_requests().await;
}

/// The page answers 503 with Retry-After and a body, as real ones do: the client takes it for good with all three,
/// and any other 5xx for a request that failed.
async fn behind_maintenance(world: World) {
    let shop = super::gateway::example(&world, include_str!("../../../deploy/examples/maintenance.yaml")).await;
    world.kubectl("wait deployment/page --for=condition=Available --timeout=60s").await.expect_success();
    let load = world.load_with_page("edge", "page").await;

    shop.release("v2", &[]).await;
    shop.step("2/4 pause", Phase::Paused).await;
    load.answered_only_by("v1").await;
    shop.say("Promote").await;
    load.answered_only_by("page").await;
    shop.healthy().await;
    load.answered_only_by("v2").await;
    // The way back goes behind the page, too.
    shop.say("Undo").await;
    load.answered_only_by("page").await;
    shop.phase(Phase::RolledBack).await;
    load.answered_only_by("v1").await;

    shop.patch("spec: {traffic: {maintenance: {active: true}}}").await;
    load.answered_only_by("page").await;
    assert!(shop.status().await.message.contains("maintenance: all requests go to Service page"));
    shop.patch("spec: {traffic: {maintenance: {active: false}}}").await;
    load.answered_only_by("v1").await;

    shop.release("v3", &[]).await;
    shop.step("2/4 pause", Phase::Paused).await;
    shop.say("Promote").await;
    load.answered_only_by("page").await;
    shop.say("Abort").await;
    load.answered_only_by("v1").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_never_together(&["v1", "v2", "v3"]).await;
    load.assert_no_failed_requests().await;
}
