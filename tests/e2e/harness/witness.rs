//! Watches the pods and endpoints of a namespace and records with times which pods crashed by
//! themselves, which ceased to be ready, and when the endpoints of each pod came and went.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Resource, ResourceExt as _,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;

use super::Cluster;

/// How long after an EndpointSlice has changed a node's kube-proxy may still send new connections to
/// the pod: it gathers changes for a second, and writes its rules.
pub const PROGRAMMING: Duration = Duration::from_secs(2);

/// What was seen so far.
#[derive(Clone, Default)]
pub struct Witness(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    endpoints: Vec<Endpoint>,
    crashes: Vec<Crash>,
    /// When the API server first said of a pod that it had crashed, was no longer ready, or has no image.
    troubles: Vec<(Timestamp, String)>,
    ready_pods: BTreeSet<String>,
    ready: BTreeMap<(String, String), Vec<String>>,
}

/// A pod became an endpoint of a Service, or ceased to be one.
#[derive(Clone, Debug)]
struct Endpoint {
    at: Timestamp,
    service: String,
    pod: String,
    ready: bool,
}

/// A container ended by itself.
#[derive(Clone, Debug)]
pub struct Crash {
    /// When, in whole seconds, as the kubelet says.
    pub at: Timestamp,
    /// Whose container it was.
    pub pod: String,
    /// The kubelet's reason, and the exit code.
    pub reason: String,
}

/// The time in which requests to a crashed pod are lost and nobody is to blame: from the crash until
/// the pod's endpoint was withdrawn, and [`PROGRAMMING`].
#[derive(Clone, Debug)]
pub struct Excuse {
    /// The crashed pod.
    pub pod: String,
    /// The crash.
    pub from: Timestamp,
    /// The last moment.
    pub until: Timestamp,
}

impl Witness {
    /// Watches a namespace from now on.
    pub fn of(cluster: &Cluster, namespace: &str) -> Self {
        let witness = Self::default();
        let slices = witness.clone();
        watch(Api::<EndpointSlice>::namespaced(cluster.client.clone(), namespace), move |event| slices.slice(event));
        let pods = witness.clone();
        watch(Api::<Pod>::namespaced(cluster.client.clone(), namespace), move |event| pods.pod(event));
        witness
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().expect("no panic under this lock")
    }

    fn slice(&self, event: Event<EndpointSlice>) {
        let (slice, there) = match event {
            Event::Apply(slice) | Event::InitApply(slice) => (slice, true),
            Event::Delete(slice) => (slice, false),
            Event::Init | Event::InitDone => return,
        };
        let service = slice.labels().get("kubernetes.io/service-name").cloned().unwrap_or_default();
        let ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
            there && endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let now_ready: Vec<String> = slice
            .endpoints
            .iter()
            .filter(ready)
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone())
            .collect();
        let mut seen = self.seen();
        let was_ready = seen.ready.insert((service.clone(), slice.name_any()), now_ready.clone()).unwrap_or_default();
        let at = Timestamp::now();
        let change = |pod: &String, ready| Endpoint { at, service: service.clone(), pod: pod.clone(), ready };
        let gone = was_ready.iter().filter(|pod| !now_ready.contains(pod)).map(|pod| change(pod, false));
        let come = now_ready.iter().filter(|pod| !was_ready.contains(pod)).map(|pod| change(pod, true));
        let changes: Vec<Endpoint> = gone.chain(come).collect();
        seen.endpoints.extend(changes);
    }

    fn pod(&self, event: Event<Pod>) {
        let (Event::Apply(pod) | Event::InitApply(pod)) = event else { return };
        let name = pod.name_any();
        self.readiness(&pod);
        let statuses = pod.status.into_iter().flat_map(|status| status.container_statuses.unwrap_or_default());
        for status in statuses {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.as_deref());
            if waiting.is_some_and(|reason| reason.contains("Image")) {
                self.seen().troubles.push((Timestamp::now(), name.clone()));
            }
            let states = [status.state, status.last_state].into_iter().flatten();
            for ended in states.filter_map(|state| state.terminated).filter(|ended| ended.exit_code != 0) {
                let Some(at) = ended.finished_at else { continue };
                let reason = format!("{} ({})", ended.reason.unwrap_or_default(), ended.exit_code);
                let mut seen = self.seen();
                if !seen.crashes.iter().any(|crash| crash.pod == name && crash.at == at.0) {
                    seen.troubles.push((Timestamp::now(), name.clone()));
                    seen.crashes.push(Crash { at: at.0, pod: name.clone(), reason });
                }
            }
        }
    }

    /// A pod that is deleted ceases to be ready, too, but is in no trouble.
    fn readiness(&self, pod: &Pod) {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
        let (name, mut seen) = (pod.name_any(), self.seen());
        if ready {
            seen.ready_pods.insert(name);
        } else if seen.ready_pods.remove(&name) && pod.metadata.deletion_timestamp.is_none() {
            seen.troubles.push((Timestamp::now(), name));
        }
    }

    /// When the API server first said of a pod of this revision that it had crashed, was no longer ready, or has no image.
    pub fn trouble(&self, revision: &str) -> Option<Timestamp> {
        self.seen().troubles.iter().find(|(_, pod)| pod.contains(revision)).map(|(at, _)| *at)
    }

    /// The containers that ended by themselves.
    pub fn crashes(&self) -> Vec<Crash> {
        self.seen().crashes.clone()
    }

    /// When requests to a Service may have been lost to pods that crashed.
    pub fn excuses(&self, service: &str) -> Vec<Excuse> {
        let seen = self.seen();
        let excuse = |crash: &Crash| {
            let mut own = seen.endpoints.iter().filter(|change| change.service == service && change.pod == crash.pod);
            let second = Duration::from_secs(1);
            let before = own.clone().rfind(|change| change.at < crash.at + second);
            let withdrawn = own.find(|change| !change.ready && change.at >= crash.at).map(|change| change.at);
            let served = withdrawn.is_some() || before.is_some_and(|change| change.ready);
            // Restarted before anybody noticed: its endpoint was not withdrawn at all.
            let until = withdrawn.unwrap_or(crash.at + second) + PROGRAMMING;
            // Its sockets are closed before its end is noticed.
            served.then(|| Excuse { pod: crash.pod.clone(), from: crash.at - second, until })
        };
        seen.crashes.iter().filter_map(excuse).collect()
    }

    /// All of it, for people.
    pub fn tell(&self) -> String {
        let seen = self.seen();
        let mut text = String::new();
        for Endpoint { at, service, pod, ready } in &seen.endpoints {
            let _ = writeln!(text, "{at:.3} {service}: {pod} {}", if *ready { "ready" } else { "withdrawn" });
        }
        for Crash { at, pod, reason } in &seen.crashes {
            let _ = writeln!(text, "{at:.3} crash of {pod}: {reason}");
        }
        text
    }
}

/// Calls back with every change of a kind in a namespace, until the runtime ends.
fn watch<K>(api: Api<K>, mut each: impl FnMut(Event<K>) + Send + 'static)
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    tokio::spawn(async move {
        let mut events = watcher::watcher(api, watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            if let Ok(event) = event {
                each(event);
            }
        }
    });
}
