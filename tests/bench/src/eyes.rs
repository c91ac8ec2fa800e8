//! What happens in the cluster and when, as a client with open watches sees it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::{Config, Event, watcher},
};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::cluster::NAMESPACE;

/// How long anything may take before the measurement is given up.
const LIMIT: Duration = Duration::from_secs(300);
const LABEL: &str = "servicerelease.io/release";

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// ServiceReleases.
    Release,
    /// Their ReplicaSets.
    ReplicaSet,
    /// Their pods.
    Pod,
}

impl Kind {
    /// The resource in the API.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind) = match self {
            Self::Release => ("servicerelease.io", "v1alpha1", "ServiceRelease"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet"),
            Self::Pod => ("", "v1", "Pod"),
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
    }
}

type Predicate = Box<dyn FnMut(&Value) -> bool + Send>;
type Waiting = HashMap<(Kind, String), Vec<(Predicate, oneshot::Sender<Instant>)>>;

/// See the module.
#[derive(Clone, Default)]
pub struct Eyes {
    waiting: Arc<Mutex<Waiting>>,
}

/// Something that is looked out for.
pub struct Sighting {
    what: String,
    seen: oneshot::Receiver<Instant>,
}

impl Sighting {
    /// When it was seen.
    pub async fn at(self) -> Result<Instant> {
        let seen = tokio::time::timeout(LIMIT, self.seen).await;
        let seen = seen.with_context(|| format!("not seen within {LIMIT:?}: {}", self.what))?;
        Ok(seen?)
    }
}

impl Eyes {
    /// Opens the watches.
    pub fn open(client: &Client) -> Self {
        let eyes = Self::default();
        for kind in [Kind::Release, Kind::ReplicaSet, Kind::Pod] {
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), NAMESPACE, &kind.resource());
            tokio::spawn(eyes.clone().follow(kind, api));
        }
        eyes
    }

    async fn follow(self, kind: Kind, api: Api<DynamicObject>) {
        let mut events = std::pin::pin!(watcher(api, Config::default()));
        while let Some(event) = events.next().await {
            let now = Instant::now();
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => self.saw(kind, &object, now),
                Ok(Event::Delete(_) | Event::Init | Event::InitDone) => {}
                Err(error) => {
                    eprintln!("the harness' own watch failed: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, kind: Kind, object: &DynamicObject, now: Instant) {
        let release = match kind {
            Kind::Release => object.metadata.name.clone(),
            _ => object.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL).cloned()),
        };
        let mut waiting = self.lock();
        let Some(here) = release.and_then(|release| waiting.get_mut(&(kind, release))) else { return };
        let Ok(value) = serde_json::to_value(object) else { return };
        let mut index = 0;
        while index < here.len() {
            if (here[index].0)(&value) {
                let _ = here.swap_remove(index).1.send(now);
            } else {
                index += 1;
            }
        }
    }

    /// Looks out for the first object of a release, from now on, of which something is true.
    pub fn first(&self, kind: Kind, release: &str, is: impl FnMut(&Value) -> bool + Send + 'static) -> Sighting {
        let (sender, seen) = oneshot::channel();
        let entry = (kind, release.to_owned());
        self.lock().entry(entry).or_default().push((Box::new(is), sender));
        Sighting { what: format!("{kind:?} of release {release}"), seen }
    }

    /// Looks out for a release that is healthy with an image.
    pub fn healthy(&self, release: &str, image: &str) -> Sighting {
        let image = image.to_owned();
        self.first(Kind::Release, release, move |value| {
            let status = &value["status"];
            status["phase"] == "Healthy"
                && status["stable"]["images"][0] == image.as_str()
                && status["observedGeneration"] == value["metadata"]["generation"]
        })
    }

    /// Looks out for a release whose spec has an image.
    pub fn changed(&self, release: &str, image: &str) -> Sighting {
        let image = image.to_owned();
        self.first(Kind::Release, release, move |value| has_image(value, &image))
    }

    /// Looks out for a ReplicaSet with an image.
    pub fn replica_set(&self, release: &str, image: &str) -> Sighting {
        let image = image.to_owned();
        self.first(Kind::ReplicaSet, release, move |value| has_image(value, &image))
    }
}

fn has_image(value: &Value, image: &str) -> bool {
    value["spec"]["template"]["spec"]["containers"][0]["image"] == image
}
