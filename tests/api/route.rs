//! Routes at a real API server: asked for only where a release uses one, told to be missing where they
//! are, and refused in words where the manifest is wrong. What a gateway does with them is in tests/e2e.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, config, release},
    operator::Operator,
    proxy::{Call, Fate, Proxy},
};

fn routed(matches: Value) -> Value {
    let mut object = release("shop");
    let gateway = json!({"parentRefs": [{"name": "edge"}], "matches": matches});
    object["spec"]["traffic"]["router"] = json!({"gateway": gateway, "propagationDelay": "0s"});
    object
}

/// Says of the route what a gateway's controller says.
async fn accept(cluster: &Cluster) {
    let route = cluster.until("HTTPRoute", "shop", "the route", |route| !route.is_null()).await;
    let now = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": now,
               "observedGeneration": route["metadata"]["generation"]})
    };
    let parent = json!({
        "parentRef": {"name": "edge"}, "controllerName": "example.com/gateway",
        "conditions": [condition("Accepted"), condition("ResolvedRefs")],
    });
    cluster.patch_status("HTTPRoute", "shop", json!({"status": {"parents": [parent]}})).await;
}

fn is_about_routes(call: &Call) -> bool {
    call.path.contains("/httproutes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_made_as_the_manifest_says_and_counts_when_it_is_accepted() {
    let cluster = Cluster::new("route").await;
    let _operator = Operator::start(&cluster, config().await).await;
    let made = cluster.create(routed(json!([{"path": {"type": "PathPrefix", "value": "/shop"}}]))).await;
    accept(&cluster).await;
    let healthy = cluster.phase("shop", "Healthy").await;
    let route = cluster.get("HTTPRoute", "shop").await;
    assert_eq!(route["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"]);
    assert_eq!(route["spec"]["rules"][0]["matches"][0]["path"]["value"], "/shop");
    let backend =
        |name: &str, weight: i32| json!({"group": "", "kind": "Service", "name": name, "port": 8080, "weight": weight});
    let backends = json!([backend("shop", 100), backend("shop-candidate", 0)]);
    assert_eq!(route["spec"]["rules"][0]["backendRefs"], backends);
    assert_eq!(healthy["status"]["route"]["name"], "shop");

    // Deleted by somebody, it is made again.
    cluster.delete("HTTPRoute", "shop").await;
    let again = |found: &Value| !found.is_null() && found["metadata"]["uid"] != route["metadata"]["uid"];
    cluster.until("HTTPRoute", "shop", "another route", again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_the_api_server_refuses_is_told_with_its_field() {
    let cluster = Cluster::new("refused-route").await;
    let _operator = Operator::start(&cluster, config().await).await;
    cluster.create(routed(json!([{"path": {"type": "PathPrefix", "value": "shop"}}]))).await;
    let told = |object: &Value| {
        let message = object["status"]["message"].as_str().unwrap_or_default();
        message.contains("HTTPRoute") && message.contains("spec.rules[0].matches[0].path")
    };
    cluster.until("ServiceRelease", "shop", "the refusal", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_gateway_api_a_router_is_told_to_be_missing_and_used_when_it_comes() {
    let cluster = Cluster::new("no-routes").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let there = Arc::new(AtomicBool::new(false));
    let served = there.clone();
    proxy.fate(move |call| match is_about_routes(call) && !served.load(Ordering::SeqCst) {
        true => Fate::Refuse(404),
        false => Fate::Pass,
    });
    let _operator = Operator::start(&cluster, proxy.config()).await;
    let mut plain = release("plain");
    plain["metadata"]["name"] = json!("plain");
    cluster.create(plain).await;
    cluster.phase("plain", "Healthy").await;
    let asked = proxy.calls().iter().filter(|(call, ..)| is_about_routes(call)).count();
    assert_eq!(asked, 0, "nobody uses a route");

    cluster.create(routed(json!([]))).await;
    let told = cluster.phase("shop", "Invalid").await;
    assert_eq!(told["status"]["reason"], "RouterNotAvailable");
    assert!(told["status"]["message"].as_str().unwrap().contains("gateway.networking.k8s.io/v1"), "{told}");
    assert!(
        cluster
            .list("ReplicaSet")
            .await
            .iter()
            .all(|set| set["metadata"]["labels"]["servicerelease.io/release"] == "plain")
    );

    there.store(true, Ordering::SeqCst);
    accept(&cluster).await;
    cluster.phase("shop", "Healthy").await;
}

/// NGINX has the candidate's share in an annotation of a second Ingress, as text. What NGINX does with it is
/// not tried here.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_in_an_annotation_is_set() {
    let cluster = Cluster::new("annotated").await;
    let ready_made = include_str!("../../charts/service-release-operator/files/routers.yaml");
    let all: Value = serde_saphyr::from_str(ready_made).unwrap();
    let routers = all.to_string().parse().unwrap();
    let _operator = Operator::start_as(&cluster, config().await, |options| options.routers = routers).await;
    const SHARE: &str = "nginx.ingress.kubernetes.io/canary-weight";
    let backend = json!({"service": {"name": "shop-candidate", "port": {"number": 8080}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    cluster
        .create(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "shop-canary", "annotations": {"nginx.ingress.kubernetes.io/canary": "true", SHARE: "7"}},
            "spec": {"ingressClassName": "nginx", "rules": [{"http": {"paths": [path]}}]},
        }))
        .await;
    let mut object = release("shop");
    object["spec"]["traffic"]["router"] =
        json!({"custom": {"name": "nginx-canary-ingress", "object": "shop-canary"}, "propagationDelay": "0s"});
    cluster.create(object).await;
    cluster.phase("shop", "Healthy").await;
    let share = |object: &Value| object["metadata"]["annotations"][SHARE].clone();
    let ingress = cluster.get("Ingress", "shop-canary").await;
    assert_eq!(share(&ingress), "0");
    assert_eq!(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary"], "true");
}
