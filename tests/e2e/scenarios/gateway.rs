//! Over a Gateway a weight is a share of the requests, whatever the number of pods, and moving it forward
//! or back costs none of them.

use kube::api::DeleteParams;
use serde_json::json;
use servicerelease::api::{Phase, ServiceReleaseStatus};

use crate::{
    harness::{Scenario, Shop, World, shop::is, yaml},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    canary_by_exact_weight, Together, Gateway;
    abort_at_half, Together, Gateway;
    blue_green_and_undo, Together, Gateway;
    a_route_of_the_users, Together, Gateway;
    somebody_sets_the_weights, Together, Gateway;
    a_gateway_that_is_not_there, Together, Gateway;
    a_mistake_in_the_gateways_name, Together, Gateway;
    given_back_in_the_middle, Together, Gateway;
    a_grpc_route, Together, Gateway;
    the_examples, Together, Gateway;
};

/// A canary of one pod beside two, that stops at each weight.
const STEPS: &str = "strategy: {canary: {steps: [{setWeight: 10}, {pause: {}}, {setWeight: 50}, {pause: {}}]}}";

async fn canary_by_exact_weight(world: World) {
    let shop = world.routed_shop("GATEWAY", STEPS).await;
    let load = world.load_through_gateway().await;

    shop.release("v2", &[]).await;
    let status = shop.step("3/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 10.0).await;
    let weights = status.weights.unwrap();
    assert_eq!((weights.desired.candidate, weights.observed.candidate), (10, 10));
    assert_eq!(status.stable.unwrap().available_replicas, 2, "stable keeps all its pods");
    assert_eq!(status.candidate.unwrap().replicas, 1);

    shop.say("Promote").await;
    shop.step("5/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 50.0).await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_exact_share("v2", 100.0).await;
    shop.always("never more in the route than the step says", |status| {
        let Some(weights) = &status.weights else { return true };
        status.route.as_ref().is_none_or(|route| {
            route.served_weight <= weights.desired.candidate.max(50) || status.phase == Phase::Promoting
        })
    });
    load.assert_no_failed_requests().await;
}

async fn abort_at_half(world: World) {
    let spec = "{replicas: 3, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let load = world.load_through_gateway().await;

    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 50.0).await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_exact_share("v2", 0.0).await;
    load.assert_no_failed_requests().await;
}

async fn blue_green_and_undo(world: World) {
    let preview = format!("preview.{}", world.hostname());
    let spec = format!(
        "{{strategy: {{blueGreen: {{autoPromote: false}}}}, rollback: {{keepPrevious: 1h}},
          traffic: {{router: {{gateway: {{previewHostnames: [{preview}]}}}}}}}}"
    );
    let shop = world.routed_shop("GATEWAY", &spec).await;
    let load = world.load_through_gateway().await;

    shop.release("v2", &[]).await;
    shop.phase(Phase::Paused).await;
    load.assert_exact_share("v2", 0.0).await;
    let testers = world.load_at(&preview).await;
    testers.assert_exact_share("v2", 100.0).await;
    testers.assert_no_failed_requests().await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_exact_share("v2", 100.0).await;
    shop.say("Undo").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_exact_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}

/// The route of a team: one rule shares between the Services, with a filter of its own, one is none of ours.
fn route(world: &World) -> String {
    format!(
        "
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {{name: front}}
        spec:
          parentRefs: [{{name: edge, namespace: gateway}}]
          hostnames: [{}]
          rules:
          - matches: [{{path: {{type: PathPrefix, value: /}}}}]
            filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-front, value: \"1\"}}]}}}}]
            backendRefs:
            - {{name: shop, port: 8080}}
            - {{name: shop-preview, port: 8080, weight: 0}}
          - matches: [{{path: {{type: PathPrefix, value: /legacy}}}}]
            backendRefs: [{{name: shop, port: 8080, weight: 7}}]
        ",
        world.hostname()
    )
}

async fn a_route_of_the_users(world: World) {
    world.create(&route(&world)).await;
    let router = "{httpRoute: {name: front}, propagationDelay: 3s}";
    let shop = world.routed_shop(router, STEPS).await;
    let load = world.load_through_gateway().await;

    shop.release("v2", &[]).await;
    shop.step("3/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 10.0).await;
    let seen = world.kubectl("get httproute front -o json").await.expect_success();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen.pointer("/spec/rules/1/backendRefs/0/weight"), Some(&7.into()), "{seen}");
    assert_eq!(seen.pointer("/spec/rules/0/filters/0/requestHeaderModifier/set/0/name"), Some(&"x-front".into()));

    // A GitOps tool applies its own again, by force, as Argo CD does.
    world.apply(&route(&world)).await;
    let status = shop.reaches("contested", |status| status.reason == "RouteContested").await;
    assert!(status.message.contains("e2e") && status.next_action.contains("ignoreDifferences"), "{status:?}");
    load.answered_only_by("v1").await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_no_failed_requests().await;
}

async fn somebody_sets_the_weights(world: World) {
    let shop = world.routed_shop("GATEWAY", STEPS).await;
    let load = world.load_through_gateway().await;

    shop.release("v2", &[]).await;
    shop.step("3/6 pause", Phase::Paused).await;
    let patch = r#"[{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":90}]"#;
    world.kubectl(&format!("patch httproute shop --type=json -p {patch}")).await.expect_success();
    world.event("RouteChanged", "kubectl-patch").await;
    shop.reaches("the weights are back", |status| {
        status.route.as_ref().is_some_and(|route| route.put_right == 1 && route.weight == Some(10))
    })
    .await;
    world.kubectl("delete httproute shop").await.expect_success();
    shop.reaches("the route is made again", |status| {
        status.route.as_ref().is_some_and(|route| route.weight == Some(10) && route.accepted_at.is_some())
    })
    .await;
    shop.say("Promote").await;
    shop.step("5/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 50.0).await;
}

async fn a_gateway_that_is_not_there(world: World) {
    let router = "{gateway: {parentRefs: [{name: nowhere}]}}";
    let shop = world.starting_shop(&format!("{{traffic: {{router: {router}}}, progressDeadlineSeconds: 15}}")).await;
    let said = |status: &ServiceReleaseStatus| status.message.contains("there is no Gateway nowhere in namespace");
    let status = shop.reaches("a clear reason, long before the deadline", said).await;
    assert_eq!(status.reason, "RouteNotAccepted");
    assert!(!is(&status, "Ready"), "{status:?}");
    shop.reaches("the deadline", |status| status.reason == "RouteNotAccepted").await;
}

/// Beside a new version, under a client: the route stays where it was accepted until it is accepted where it is to be.
async fn a_mistake_in_the_gateways_name(world: World) {
    let spec = "{progressDeadlineSeconds: 15, strategy: {canary: {steps: [{setWeight: 50}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let load = world.load_through_gateway().await;
    let gateway = |name: &str| {
        let parents = json!([{"name": name, "namespace": "gateway"}]);
        json!({"spec": {"traffic": {"router": {"gateway": {"parentRefs": parents}}}}})
    };
    shop.release_with("v2", gateway("edgy")).await;
    let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
    assert_eq!(status.reason, "RouteNotAccepted", "{}", status.message);
    assert!(status.message.contains("serves by what was accepted before"), "{}", status.message);
    assert!(status.next_action.contains("parentRefs right"), "{}", status.next_action);
    assert!(!is(&status, "Ready") && is(&status, "Available"), "{:?}", status.conditions);
    load.assert_share("v2", 0.0).await;

    // Put right, nothing else is needed for what serves; the version has to be asked for once more.
    shop.patch(&gateway("edge").to_string()).await;
    let right = |status: &ServiceReleaseStatus| !status.next_action.contains("parentRefs");
    shop.reaches("the mistake is no longer told", right).await;
    shop.say("Retry").await;
    shop.healthy().await;
    load.assert_exact_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

const ADOPTING: &str = "
apiVersion: servicerelease.io/v1alpha1
kind: ServiceRelease
metadata: {name: shop}
spec:
  workloadRef: {name: shop}
  progressDeadlineSeconds: 60
  traffic:
    service: shop
    candidateService: shop-preview
    scaleDownDelay: 2s
    router: {httpRoute: {name: front}, propagationDelay: 3s}
  strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}
";

async fn given_back_in_the_middle(world: World) {
    for service in ["shop", "shop-preview"] {
        let ports = "ports: [{name: http, port: 8080}]";
        let spec = format!("spec: {{selector: {{app: shop}}, {ports}}}");
        world.create(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {service}}}\n{spec}")).await;
    }
    world.create(&route(&world)).await;
    world.create(include_str!("deployment.yaml")).await;
    world.kubectl("rollout status deployment/shop --timeout=60s").await.expect_success();
    let load = world.load_through_gateway().await;
    world.apply(ADOPTING).await;
    let shop = Shop::watch(&world, "shop").await;
    shop.healthy().await;
    world.kubectl("set env deployment/shop APP_VERSION=v2").await.expect_success();
    shop.step("3/4 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 50.0).await;

    shop.delete(DeleteParams::default()).await;
    let seen = world.kubectl("get httproute front -o json").await.expect_success();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    let weights = ["0", "1"].map(|place| seen.pointer(&format!("/spec/rules/0/backendRefs/{place}/weight")).cloned());
    assert_eq!(weights, [Some(100.into()), Some(0.into())], "{seen}");
    world.kubectl("rollout status deployment/shop --timeout=60s").await.expect_success();
    load.answered_only_by("v2").await;
    load.assert_no_failed_requests().await;
}

/// An example of the documentation, made to run here: the test application in place of its image, with the resources that
/// its container says, and this scenario's host name.
pub(super) async fn example(world: &World, text: &str) -> Shop {
    apply_example(world, text).await;
    let shop = Shop::watch(world, "shop").await;
    shop.reaches("Healthy or Observing", |status| matches!(status.phase, Phase::Healthy | Phase::Observing)).await;
    shop
}

/// The same, without waiting.
pub(super) async fn apply_example(world: &World, text: &str) {
    let pods = yaml(include_str!("../harness/shop.yaml"));
    for document in text.replace("shop.example.com", &world.hostname()).split("\n---\n") {
        let mut object = yaml(document);
        if object["kind"] == "ServiceRelease" {
            let resources = object.pointer("/spec/template/spec/containers/0/resources").cloned();
            let mut pod = pods["spec"]["template"]["spec"].clone();
            if let Some(resources) = resources {
                pod["containers"][0]["resources"] = resources;
            }
            object["spec"]["template"]["spec"] = pod;
        }
        if object["kind"] == "Deployment" {
            // Its version is its name.
            let mut pod = pods["spec"]["template"]["spec"].clone();
            pod["containers"][0]["env"] =
                serde_json::json!([{"name": "APP_VERSION", "value": object["metadata"]["name"]}]);
            if object["metadata"]["name"] == "page" {
                let page = serde_json::json!({"name": "MAINTENANCE_PAGE", "value": "true"});
                pod["containers"][0]["env"].as_array_mut().expect("a list").push(page);
            }
            object["spec"]["template"]["spec"] = pod;
        }
        world.apply_value(object).await;
    }
}

async fn the_examples(world: World) {
    let shop = example(&world, include_str!("../../../deploy/examples/gateway.yaml")).await;
    let load = world.load_through_gateway().await;
    shop.release("v2", &[]).await;
    shop.step("3/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 5.0).await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_no_failed_requests().await;
    shop.delete(DeleteParams::foreground()).await;
    await_deletion(&world).await;

    let shop = example(&world, include_str!("../../../deploy/examples/http-route.yaml")).await;
    load.answered_only_by("v1").await;
    shop.release("v2", &[]).await;
    shop.step("2/3 pause", Phase::Paused).await;
    load.answered_only_by("v1").await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.answered_only_by("v2").await;
}

/// Over a GRPCRoute the gateway speaks HTTP/2 to the pods.
async fn a_grpc_route(world: World) {
    let shop = example(&world, include_str!("../../../deploy/examples/grpc-route.yaml")).await;
    let load = world.load_through_gateway().await;
    assert!(world.kubectl("get httproutes -o name").await.expect_success().is_empty());

    shop.release("v2", &[]).await;
    let status = shop.step("3/6 pause", Phase::Paused).await;
    assert_eq!(status.route.unwrap().kind.as_deref(), Some("GRPCRoute"));
    load.assert_exact_share("v2", 10.0).await;
    world.kubectl("delete grpcroute shop").await.expect_success();
    shop.reaches("the route is made again", |status| {
        status.route.as_ref().is_some_and(|route| route.weight == Some(10) && route.accepted_at.is_some())
    })
    .await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_exact_share("v2", 0.0).await;
}

/// Waits until nothing of the release is left.
async fn await_deletion(world: &World) {
    for kind in ["servicerelease/shop", "httproute/shop", "service/shop", "service/shop-candidate"] {
        world.kubectl(&format!("wait {kind} --for=delete --timeout=60s")).await.expect_success();
    }
}
