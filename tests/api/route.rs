//! Routes at a real API server: asked for only where a release uses one, told to be missing where they
//! are, and refused in words where the manifest is wrong. What a gateway does with them is in tests/e2e.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, SECOND, config, release, until},
    operator::Operator,
    proxy::{Call, Fate, Proxy},
};

fn routed(matches: Value) -> Value {
    let mut object = release("shop");
    let gateway = json!({"parentRefs": [{"name": "edge"}], "matches": matches});
    object["spec"]["traffic"]["router"] = json!({"gateway": gateway, "propagationDelay": "0s"});
    object
}

/// The Gateway that routes are attached to, of a class that nobody has.
async fn gateway(cluster: &Cluster) {
    let listener = json!({"name": "web", "protocol": "HTTP", "port": 80});
    cluster
        .create(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"},
            "spec": {"gatewayClassName": "nobodys", "listeners": [listener]},
        }))
        .await;
}

/// Says of the route what a gateway's controller says.
async fn accept(cluster: &Cluster) {
    accept_as(cluster, "edge").await;
}

/// The same for a Gateway of this name.
async fn accept_as(cluster: &Cluster, gateway: &str) {
    let route = cluster.until("HTTPRoute", "shop", "the route", |route| !route.is_null()).await;
    let now = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": now,
               "observedGeneration": route["metadata"]["generation"]})
    };
    let parent = json!({
        "parentRef": {"name": gateway}, "controllerName": "example.com/gateway",
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
    gateway(&cluster).await;
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
    gateway(&cluster).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn only_the_entry_of_the_gateway_that_is_meant_counts() {
    let cluster = Cluster::new("parents").await;
    let _operator = Operator::start(&cluster, config().await).await;
    cluster.create(routed(json!([]))).await;
    // What a controller says of a Gateway that is not there any more.
    accept(&cluster).await;
    let told = |object: &Value| {
        object["status"]["message"].as_str().is_some_and(|text| text.contains("there is no Gateway edge in namespace"))
    };
    cluster.until("ServiceRelease", "shop", "the lack of the Gateway", told).await;
    gateway(&cluster).await;
    accept_as(&cluster, "other").await;
    let told = |object: &Value| {
        object["status"]["message"].as_str().is_some_and(|text| text.contains("has accepted it for Gateway edge yet"))
    };
    cluster.until("ServiceRelease", "shop", "the lack of an entry", told).await;
    accept(&cluster).await;
    cluster.phase("shop", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_adds_to_an_own_route_is_taken_out_with_an_event() {
    let cluster = Cluster::new("extras").await;
    let _operator = Operator::start(&cluster, config().await).await;
    gateway(&cluster).await;
    cluster.create(routed(json!([]))).await;
    accept(&cluster).await;
    cluster.phase("shop", "Healthy").await;
    let right = cluster.get("HTTPRoute", "shop").await["spec"].clone();
    let mut rules = right["rules"].clone();
    rules[0]["timeouts"] = json!({"request": "1s"});
    let header = json!({"set": [{"name": "x-added", "value": "1"}]});
    rules[0]["filters"] = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": header}]);
    let spec = json!({"rules": rules, "hostnames": ["other.example"]});
    cluster.patch("HTTPRoute", "shop", json!({"spec": spec})).await;
    cluster.until("HTTPRoute", "shop", "what it was", |route| route["spec"] == right).await;
    cluster.event("RouteChanged", "beside its weights").await;
}

/// A tool that applies the route as it stands in Git whenever it differs, for as long as it is not dropped.
struct Healer {
    task: tokio::task::JoinHandle<()>,
    /// How often it has applied.
    applied: Arc<AtomicUsize>,
}

impl Healer {
    fn start(cluster: &Arc<Cluster>, manifest: Value) -> Self {
        let (cluster, applied) = (cluster.clone(), Arc::new(AtomicUsize::new(0)));
        let count = applied.clone();
        let task = tokio::spawn(async move {
            loop {
                cluster.apply("argocd-controller", manifest.clone()).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { task, applied }
    }

    /// Waits until it has applied so many times more.
    async fn again(&self, times: usize) {
        let enough = self.applied.load(Ordering::SeqCst) + times;
        let found = async || (self.applied.load(Ordering::SeqCst) >= enough).then_some(());
        until(60 * SECOND, found).await.expect("the tool goes on");
    }
}

impl Drop for Healer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_in_git_are_not_fought_and_said_at_rest() {
    let cluster = Arc::new(Cluster::new("healed").await);
    let proxy = Proxy::new(cluster.client.clone()).await;
    let _operator = Operator::start(&cluster, proxy.config()).await;
    let backend = |name: &str| json!({"name": name, "port": 8080});
    let manifest = |backends: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "shop"},
            "spec": {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": backends}]},
        })
    };
    gateway(&cluster).await;
    let weight = |name: &str, weight: i32| json!({"name": name, "port": 8080, "weight": weight});
    cluster.apply("argocd-controller", manifest(json!([weight("shop", 100), weight("shop-candidate", 0)]))).await;
    accept(&cluster).await;
    let mut object = release("shop");
    object["spec"]["traffic"]["router"] = json!({"httpRoute": {"name": "shop"}, "propagationDelay": "0s"});
    cluster.create(object).await;
    cluster.phase("shop", "Healthy").await;
    // Somebody drops the weights in Git: without any each has the same.
    let healer = Healer::start(&cluster, manifest(json!([backend("shop"), backend("shop-candidate")])));
    let contested = |object: &Value| {
        object["status"]["reason"] == "RouteContested"
            && object["status"]["nextAction"].as_str().is_some_and(|text| text.contains("RespectIgnoreDifferences"))
    };
    cluster.until("ServiceRelease", "shop", "who fights", contested).await;
    // Every request finds a pod, whichever Service it is sent to.
    let stable = cluster.get("ServiceRelease", "shop").await["status"]["stable"]["revision"].clone();
    let leads =
        |service: &Value| stable.is_string() && service["spec"]["selector"]["servicerelease.io/revision"] == stable;
    cluster.until("Service", "shop-candidate", "stable's pods", leads).await;

    let writes = || {
        let is_write = |call: &Call| is_about_routes(call) && call.method != "GET";
        proxy.calls().iter().filter(|(call, ..)| is_write(call)).count()
    };
    let before = writes();
    healer.again(200).await;
    assert!(writes() == before && before <= 3, "{before} writes, then {}", writes());
    drop(healer);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_a_selector_is_named_and_it_is_put_back() {
    let cluster = Cluster::new("selector").await;
    let _operator = Operator::start(&cluster, config().await).await;
    let mut object = release("shop");
    object["spec"]["strategy"] = json!({"canary": {"steps": [{"setWeight": 34}, {"pause": {}}]}});
    cluster.create(object).await;
    cluster.phase("shop", "Healthy").await;
    let selector = async |name: &str| cluster.get("Service", name).await["spec"]["selector"].clone();
    for (name, patch) in [
        ("shop", r#"{"spec":{"selector":{"app":"other","tier":"web"}}}"#),
        ("shop-candidate", r#"{"spec":{"selector":{"servicerelease.io/revision":null}}}"#),
    ] {
        let right = selector(name).await;
        let words = ["patch", "service", name, "--type=merge", "--field-manager=a-person", "-p", patch];
        assert!(cluster.kubectl(&words).status.success());
        cluster.event("SelectorChanged", &format!("a-person changed the selector of Service {name}")).await;
        cluster.until("Service", name, "what it was", |service| service["spec"]["selector"] == right).await;
    }
    let told = cluster.get("ServiceRelease", "shop").await;
    assert_eq!(told["status"]["phase"], "Healthy", "{told}");
}
