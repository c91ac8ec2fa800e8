//! The cluster under test: a client, a namespace for each test, and objects as JSON.

use std::{
    future::Future,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    config::KubeConfigOptions,
};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub const SECOND: Duration = Duration::from_secs(1);

/// The configuration of the cluster that KUBECONFIG names.
pub async fn config() -> Config {
    servicerelease::controller::use_ring();
    assert!(std::env::var_os("KUBECONFIG").is_some(), "set KUBECONFIG to a cluster made for tests, or run `make api`");
    let mut config = Config::from_kubeconfig(&KubeConfigOptions::default()).await.expect("KUBECONFIG");
    config.default_retry = false;
    config
}

/// Tests share the cluster; one that changes it for all has it alone.
static SHARED: RwLock<()> = RwLock::const_new(());

/// How a test has the cluster, for as long as it runs.
enum Use {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A namespace of its own for one test. It goes when the test is over.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    _use: Use,
}

impl Cluster {
    pub async fn new(test: &str) -> Self {
        let guard = SHARED.read().await;
        Self::with(test, Use::Shared { _guard: guard }).await
    }

    /// While no other test runs.
    pub async fn alone(test: &str) -> Self {
        let guard = SHARED.write().await;
        Self::with(test, Use::Alone { _guard: guard }).await
    }

    async fn with(test: &str, used: Use) -> Self {
        let client = Client::try_from(config().await).expect("a client");
        static ONCE: OnceCell<()> = OnceCell::const_new();
        ONCE.get_or_init(|| install_crds(&client)).await;
        let namespace = format!("{test}-{:06x}", fastrand::u32(..1 << 24));
        let cluster = Self { client, namespace, _use: used };
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}});
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
        let namespaces: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kind);
        let object = serde_json::from_value(body).unwrap();
        namespaces.create(&PostParams::default(), &object).await.expect("a namespace");
        // Pods that are asked for before their account exists come seconds later.
        cluster.until("ServiceAccount", "default", "the account of pods", |account| !account.is_null()).await;
        cluster
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version, plural) = match kind {
            "ServiceRelease" => ("servicerelease.io", "v1alpha1", "servicereleases"),
            "ReleaseCommand" => ("servicerelease.io", "v1alpha1", "releasecommands"),
            "ReplicaSet" => ("apps", "v1", "replicasets"),
            "Deployment" => ("apps", "v1", "deployments"),
            "ControllerRevision" => ("apps", "v1", "controllerrevisions"),
            "Service" => ("", "v1", "services"),
            "Pod" => ("", "v1", "pods"),
            "Job" => ("batch", "v1", "jobs"),
            "ConfigMap" => ("", "v1", "configmaps"),
            "PersistentVolumeClaim" => ("", "v1", "persistentvolumeclaims"),
            "ServiceAccount" => ("", "v1", "serviceaccounts"),
            "Lease" => ("coordination.k8s.io", "v1", "leases"),
            "Ingress" => ("networking.k8s.io", "v1", "ingresses"),
            "Gateway" => ("gateway.networking.k8s.io", "v1", "gateways"),
            "HTTPRoute" => ("gateway.networking.k8s.io", "v1", "httproutes"),
            "Event" => ("events.k8s.io", "v1", "events"),
            other => panic!("{other} is not listed here"),
        };
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    pub async fn create(&self, body: Value) -> Value {
        self.try_create(body).await.expect("create")
    }

    pub async fn try_create(&self, body: Value) -> Result<Value, kube::Error> {
        let kind = body["kind"].as_str().unwrap().to_owned();
        let object: DynamicObject = serde_json::from_value(body).unwrap();
        let made = self.api(&kind).create(&PostParams::default(), &object).await?;
        Ok(serde_json::to_value(made).unwrap())
    }

    /// What there is under a name; null if nothing.
    pub async fn get(&self, kind: &str, name: &str) -> Value {
        let found = self.api(kind).get_opt(name).await.expect("get");
        found.map_or(Value::Null, |object| serde_json::to_value(object).unwrap())
    }

    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let found = self.api(kind).list(&Default::default()).await.expect("list");
        found.items.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    pub async fn patch(&self, kind: &str, name: &str, body: Value) -> Value {
        self.try_patch(kind, name, body).await.expect("patch")
    }

    pub async fn try_patch(&self, kind: &str, name: &str, body: Value) -> Result<Value, kube::Error> {
        let patched = self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(body)).await?;
        Ok(serde_json::to_value(patched).unwrap())
    }

    /// Applies an object by server-side apply, by force, as a GitOps tool does.
    pub async fn apply(&self, manager: &str, body: Value) -> Value {
        let (kind, name) = (body["kind"].as_str().unwrap().to_owned(), body["metadata"]["name"].as_str().unwrap());
        let params = PatchParams::apply(manager).force();
        let applied = self.api(&kind).patch(name, &params, &Patch::Apply(&body)).await.expect("apply");
        serde_json::to_value(applied).unwrap()
    }

    /// Waits for an Event with this reason whose note has this in it.
    pub async fn event(&self, reason: &str, part: &str) {
        let told =
            |event: &Value| event["reason"] == reason && event["note"].as_str().is_some_and(|note| note.contains(part));
        let found = async || self.list("Event").await.iter().any(told).then_some(());
        until(30 * SECOND, found).await.unwrap_or_else(|| panic!("no Event {reason} with {part:?}"));
    }

    pub async fn patch_status(&self, kind: &str, name: &str, body: Value) -> Value {
        let patched = self.api(kind).patch_status(name, &PatchParams::default(), &Patch::Merge(body)).await;
        serde_json::to_value(patched.expect("patch the status")).unwrap()
    }

    pub async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &Default::default()).await.expect("delete");
    }

    /// Waits until an object is as it ought to be, and returns it.
    pub async fn until(&self, kind: &str, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = async || Some(self.get(kind, name).await).filter(&is);
        match until(60 * SECOND, found).await {
            Some(object) => object,
            None => {
                let object = self.get(kind, name).await;
                panic!("{kind} {name} in {}: {what} did not come: {object:#}", self.namespace)
            }
        }
    }

    /// Waits until a release is in a phase for its present generation.
    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until("ServiceRelease", name, phase, |object| {
            object["status"]["phase"] == phase
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        })
        .await
    }

    /// Sets the image of an inline template: a release.
    pub async fn set_image(&self, name: &str, image: &str) -> Value {
        self.patch("ServiceRelease", name, json!({"spec": {"template": template(name, image)}})).await
    }

    /// A word to kubectl, in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["--namespace", &self.namespace]).args(arguments).output().expect("kubectl")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kubectl")
            .args(["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"])
            .output();
    }
}

/// Asks until there is an answer, for a while.
pub async fn until<T>(patience: Duration, ask: impl AsyncFn() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if start.elapsed() > patience {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Fails a test that takes too long, naming what it waited for.
pub async fn within<T>(patience: Duration, what: &str, act: impl Future<Output = T>) -> T {
    tokio::time::timeout(patience, act).await.unwrap_or_else(|_| panic!("{what} took longer than {patience:?}"))
}

/// The CRDs as they stand under crds/.
pub fn crds() -> Vec<Value> {
    let read = |plural: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds").join(format!("{plural}.yaml"));
        serde_saphyr::from_str(&std::fs::read_to_string(path).expect("crds/")).expect("YAML")
    };
    ["servicereleases", "releasecommands", "analysistemplates", "clusteranalysistemplates"].map(read).into()
}

/// Puts the CRDs in as they ought to be.
pub async fn install_crds(client: &Client) {
    for crd in crds() {
        apply_crd(client, crd).await;
    }
}

/// Puts a CRD in and waits until it is in force.
pub async fn apply_crd(client: &Client, body: Value) {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let crds: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    let name = body["metadata"]["name"].as_str().unwrap().to_owned();
    let params = PatchParams::apply("api-tests").force();
    crds.patch(&name, &params, &Patch::Apply(body)).await.expect("apply CRD");
    let established = async || {
        let crd = serde_json::to_value(crds.get(&name).await.ok()?).ok()?;
        let conditions = crd["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == "Established" && c["status"] == "True")
    };
    until(30 * SECOND, established).await.expect("CRD established");
}

/// A pod template that simulated nodes run.
pub fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "app",
                "image": image,
                "ports": [{"name": "http", "containerPort": 8080}],
            }],
        },
    })
}

/// A release with a canary of two steps and no pauses.
pub fn release(name: &str) -> Value {
    json!({
        "apiVersion": "servicerelease.io/v1alpha1",
        "kind": "ServiceRelease",
        "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, "shop:1"),
            "traffic": {"service": name, "candidateService": format!("{name}-candidate"), "scaleDownDelay": "0s"},
            "strategy": {"canary": {"steps": [{"setWeight": 34}, {"setWeight": 67}]}},
        },
    })
}

/// A command.
pub fn command(name: &str, release: &str, action: &str) -> Value {
    json!({
        "apiVersion": "servicerelease.io/v1alpha1",
        "kind": "ReleaseCommand",
        "metadata": {"name": name},
        "spec": {"release": release, "action": action},
    })
}
