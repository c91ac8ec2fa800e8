//! A scenario's own namespace.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{Namespace, PersistentVolume},
    events::v1::Event,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{DynamicObject, GroupVersionKind, NamespaceResourceScope, TypeMeta},
    discovery::ApiResource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Cluster, Load, Shop,
    kubectl::{self, Answer},
    witness::Witness,
};

/// A scenario's namespace, and who watches it.
#[derive(Clone)]
pub struct World {
    /// The cluster that it is in.
    pub cluster: Cluster,
    /// Its name.
    pub namespace: String,
    /// Records what happens to its pods and endpoints.
    pub witness: Witness,
}

impl World {
    /// Makes a namespace for a scenario.
    pub async fn new(cluster: &Cluster, scenario: &str) -> Self {
        let api: Api<Namespace> = Api::all(cluster.client.clone());
        let namespace = Namespace {
            metadata: kube::core::ObjectMeta {
                generate_name: Some(format!("e2e-{}-", scenario.replace(['_', '/'], "-"))),
                labels: Some([("servicerelease.io/e2e".to_owned(), "true".to_owned())].into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let namespace = api.create(&PostParams::default(), &namespace).await.expect("a namespace").name_any();
        let witness = Witness::of(cluster, &namespace);
        Self { cluster: cluster.clone(), namespace, witness }
    }

    /// Deletes the namespace, without waiting for its end.
    pub async fn remove(&self) {
        let releases: Api<servicerelease::api::ServiceRelease> = self.api();
        // Deleted first, as a person would: its hand-back is not in a race with the namespace's end.
        for release in releases.list(&Default::default()).await.into_iter().flatten() {
            let _ = releases.delete(&release.name_any(), &DeleteParams::default()).await;
        }
        let volumes: Api<PersistentVolume> = Api::all(self.cluster.client.clone());
        let own = ListParams::default().labels(&format!("servicerelease.io/e2e={}", self.namespace));
        let _ = volumes.delete_collection(&DeleteParams::default(), &own).await;
        let api: Api<Namespace> = Api::all(self.cluster.client.clone());
        let _ = api.delete(&self.namespace, &DeleteParams::default()).await;
    }

    /// The API of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// Applies an object of any kind, as `kubectl apply --server-side` does. `TESTAPP_IMAGE` in it
    /// stands for the test application's image.
    pub async fn apply(&self, manifest: &str) -> DynamicObject {
        self.apply_value(super::yaml(manifest)).await
    }

    /// The same for a manifest that was read already.
    pub async fn apply_value(&self, manifest: Value) -> DynamicObject {
        let (object, api) = self.object(&manifest);
        let patch = PatchParams::apply("e2e").force();
        let applied = api.patch(&object.name_any(), &patch, &Patch::Apply(&object)).await;
        applied.unwrap_or_else(|error| panic!("{error}; applying {manifest}"))
    }

    /// Creates an object of any kind: nobody's field manager holds on to its fields by server-side apply.
    pub async fn create(&self, manifest: &str) {
        let (object, api) = self.object(&super::yaml(manifest));
        let made = api.create(&PostParams::default(), &object).await;
        made.unwrap_or_else(|error| panic!("{error}; creating {manifest}"));
    }

    fn object(&self, manifest: &Value) -> (DynamicObject, Api<DynamicObject>) {
        let text = manifest.to_string().replace("TESTAPP_IMAGE", &self.cluster.testapp);
        let object: DynamicObject = serde_json::from_str(&text).expect("a Kubernetes object");
        let types = object.types.clone().expect("apiVersion and kind");
        let api = Api::namespaced_with(self.cluster.client.clone(), &self.namespace, &resource(&types));
        (object, api)
    }

    /// `kubectl -n NAMESPACE WORDS`.
    pub async fn kubectl(&self, words: &str) -> Answer {
        kubectl::kubectl(&self.namespace, words).await
    }

    /// `kubectl srel -n NAMESPACE WORDS`.
    pub async fn srel(&self, words: &str) -> Answer {
        kubectl::srel(&self.namespace, words).await
    }

    /// Who types these commands, as the API server knows them.
    pub async fn who(&self) -> String {
        let answer = self.kubectl("auth whoami -o jsonpath={.status.userInfo.username}").await;
        answer.expect_success().trim().to_owned()
    }

    /// The release `shop` of three or so pods of the test application, version v1; `spec` is put over
    /// its spec. Comes back when it is Healthy.
    pub async fn shop(&self, spec: &str) -> Shop {
        let shop = self.starting_shop(spec).await;
        shop.healthy().await;
        shop
    }

    /// The same, without waiting.
    pub async fn starting_shop(&self, spec: &str) -> Shop {
        let mut manifest = super::yaml(include_str!("shop.yaml"));
        super::merge(&mut manifest, json!({ "spec": super::yaml(spec) }));
        self.apply_value(manifest).await;
        Shop::watch(self, "shop").await
    }

    /// A client that calls Service `shop` from now on.
    pub async fn load(&self) -> Load {
        Load::start(self, "http://shop:8080/", "shop:8080").await
    }

    /// The same through the Gateway `edge`, by the name of this scenario's route.
    pub async fn load_through_gateway(&self) -> Load {
        self.load_through("edge").await
    }

    /// The same through a Gateway of this name.
    pub async fn load_through(&self, gateway: &str) -> Load {
        Load::start(self, &self.url_of(gateway).await, &self.hostname()).await
    }

    /// The same where a version is a maintenance page: its answers are good with 503, Retry-After and a body.
    pub async fn load_with_page(&self, gateway: &str, page: &str) -> Load {
        Load::start_with(self, "client", &self.url_of(gateway).await, &self.hostname(), &format!(", --page, {page}"))
            .await
    }

    /// A second client through the Gateway `edge`, whose requests have this header.
    pub async fn load_with_header(&self, header: &str) -> Load {
        let more = format!(", --header, \"{header}\"");
        Load::start_with(self, "tester", &self.url_of("edge").await, &self.hostname(), &more).await
    }

    /// A second client through the Gateway `edge`, by another host name.
    pub async fn load_at(&self, host: &str) -> Load {
        Load::start_with(self, "tester", &self.url_of("edge").await, host, "").await
    }

    /// Where a Gateway is called.
    pub async fn url_of(&self, name: &str) -> String {
        let address = gateway(&self.cluster, name).await.expect("an address of the Gateway");
        format!("http://{address}/")
    }

    /// The host name of this scenario.
    pub fn hostname(&self) -> String {
        format!("{}.example", self.namespace)
    }

    /// The release `shop` with a router in its spec (`GATEWAY` stands for a route of the release's own at the
    /// Gateway `edge`, `ENVOY` for one at `edge-envoy`), with the default propagationDelay: that is what is tried.
    pub async fn routed_shop(&self, router: &str, spec: &str) -> Shop {
        let own = |name: &str| {
            format!(
                "{{gateway: {{parentRefs: [{{name: {name}, namespace: gateway}}], hostnames: [{}]}}}}",
                self.hostname()
            )
        };
        let router = router.replace("GATEWAY", &own("edge")).replace("ENVOY", &own("edge-envoy"));
        let mut all = json!({ "traffic": { "router": super::yaml(&router) } });
        super::merge(&mut all, super::yaml(spec));
        self.shop(&all.to_string()).await
    }

    /// Waits for an Event with this reason, whose note has this in it.
    pub async fn event(&self, reason: &str, part: &str) -> Event {
        let mut events = watcher(self.api::<Event>(), Default::default()).default_backoff().applied_objects().boxed();
        let found = async {
            while let Some(event) = events.next().await {
                if let Ok(event) = event
                    && event.reason.as_deref() == Some(reason)
                    && event.note.as_ref().is_some_and(|note| note.contains(part))
                {
                    return event;
                }
            }
            panic!("the watch of Events ended")
        };
        let limit = Duration::from_secs(30);
        timeout(limit, found).await.unwrap_or_else(|_| panic!("not within {limit:?}: Event {reason} with {part:?}"))
    }

    /// What is there to be seen when a scenario failed.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        for words in [
            "get servicerelease -o yaml --show-managed-fields=false",
            "get httproutes -o yaml",
            "get pods,replicasets,services,endpointslices,deployments,releasecommands -o wide",
            "get events --sort-by=.metadata.creationTimestamp",
            "get jobs,configmaps,persistentvolumeclaims",
            "logs -l servicerelease.io/job --all-containers --tail=20 --prefix",
            "logs postgres --tail=40",
            "logs client --tail=20",
        ] {
            text.push_str(&format!("--- kubectl -n {} {words}\n{}\n", self.namespace, self.kubectl(words).await.text));
        }
        text.push_str("--- endpoints and crashes, as they were seen\n");
        text.push_str(&self.witness.tell());
        let logs = "logs -l app.kubernetes.io/name=service-release-operator --since=5m --tail=-1 --prefix";
        let logs = kubectl::kubectl(super::operator::NAMESPACE, logs).await.text;
        text.push_str("--- the operator on this namespace, and its warnings about none\n");
        let general = |line: &str| line.contains("\"WARN\"") && !line.contains("\"namespace\":");
        for line in logs.lines().filter(|line| line.contains(&self.namespace) || general(line)) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

impl World {
    /// Runs a command of the embedded cluster.
    pub async fn devcluster(&self, words: &[&str]) -> String {
        let name = self.cluster.embedded.as_deref().expect("the embedded cluster");
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/devcluster/devcluster");
        let answer = super::kubectl::run(program, &[&["--name", name], words].concat()).await;
        answer.expect_success()
    }

    /// Makes the pods of a revision behave like this from now on (tests/app/README.md).
    pub async fn behave(&self, revision: &str, change: &str) {
        let select =
            format!("get pods -l servicerelease.io/revision={revision} -o jsonpath={{.items[*].status.podIP}}");
        let pods = self.kubectl(&select).await.expect_success();
        for pod in pods.split_whitespace() {
            let url = format!("http://{pod}:8080/admin/behaviour");
            self.devcluster(&["exec", "--", "curl", "-sf", "-d", change, &url]).await;
        }
    }
}

/// Where a Gateway listens, if the cluster has it.
pub async fn gateway(cluster: &Cluster, name: &str) -> Option<String> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), "gateway", &ApiResource::from_gvk(&kind));
    let edge = api.get_opt(name).await.ok()??;
    let text = |pointer: &str| edge.data.pointer(pointer).cloned();
    // Contour lets Envoy listen on another port.
    let offset = if text("/spec/gatewayClassName")? == "contour" { 8_000 } else { 0 };
    let port = text("/spec/listeners/0/port")?.as_i64()? + offset;
    Some(format!("{}:{port}", text("/status/addresses/0/value")?.as_str()?))
}

/// The resource of a kind: the plurals of the kinds that are used here are regular.
fn resource(types: &TypeMeta) -> ApiResource {
    let kind = GroupVersionKind::try_from(types).expect("apiVersion and kind");
    ApiResource::from_gvk(&kind)
}
