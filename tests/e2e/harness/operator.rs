//! The operator that was installed from the chart: which pod leads, its processes, its replicas.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use tokio::time::timeout;

use super::{Cluster, Stage, kubectl, processes};

/// Where `tests/setup/up` installs it.
pub const NAMESPACE: &str = "service-release-system";
const NAME: &str = "service-release-operator";
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the installed operator as a stage needs it.
pub async fn prepare(cluster: &Cluster, stage: Stage) {
    scale(cluster, if stage == Stage::OwnOperator { 0 } else { 2 }).await;
}

/// Leaves it as it was found.
pub async fn restore(cluster: &Cluster, stage: Stage) {
    if stage == Stage::OwnOperator {
        scale(cluster, 2).await;
    }
}

/// Scales the operator's Deployment and waits until it is so.
pub async fn scale(cluster: &Cluster, replicas: i32) {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let change = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    api.patch_scale(NAME, &PatchParams::default(), &change).await.expect("the operator's Deployment");
    let done = move |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| {
            status.replicas.unwrap_or_default() == replicas && status.available_replicas.unwrap_or_default() == replicas
        })
    };
    let scaled = timeout(PATIENCE, await_condition(api, NAME, done)).await;
    scaled.unwrap_or_else(|_| panic!("the operator was not scaled to {replicas} in {PATIENCE:?}")).expect("a watch");
    if replicas == 0 {
        // Those that are ending still hold the lease for a moment.
        let words = format!("wait --for=delete pod -l app.kubernetes.io/name={NAME} --timeout=60s");
        kubectl::kubectl(NAMESPACE, &words).await.expect_success();
    }
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The pod that leads: the Lease's holder begins with its name.
pub async fn leader(cluster: &Cluster) -> Pod {
    let lease = leases(cluster).get(NAME).await.expect("the operator's Lease");
    let holder = holder(&lease).expect("somebody leads").to_owned();
    let label = format!("app.kubernetes.io/name={NAME}");
    let all = pods(cluster).list(&ListParams::default().labels(&label)).await.expect("the operator's pods");
    all.into_iter().find(|pod| holder.starts_with(&pod.name_any())).expect("the leader's pod")
}

/// Waits until somebody else than this pod leads.
pub async fn another_leads(cluster: &Cluster, than: &Pod) {
    let name = than.name_any();
    let another = move |lease: Option<&Lease>| lease.and_then(holder).is_some_and(|holder| !holder.starts_with(&name));
    let waiting = timeout(PATIENCE, await_condition(leases(cluster), NAME, another)).await;
    waiting.expect("another operator takes over").expect("a watch of the Lease");
}

/// Sends a signal to the process of a pod's container, which is a process of this machine.
pub async fn signal(pod: &Pod, signal: &str) {
    processes::first(pod).expect("a process of its container").signal(signal).await;
}
