//! The releases that are measured: made, changed, and waited for.

use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::NAMESPACE,
    eyes::{Eyes, Kind},
};

/// Requests of the harness under way at the same time.
const AT_ONCE: usize = 32;

/// See the module.
pub struct Fleet {
    api: Api<DynamicObject>,
    /// The harness' watches.
    pub eyes: Eyes,
    size: usize,
    version: usize,
}

/// A release to be made.
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its pods.
    pub replicas: usize,
    /// Whether it has a Service for the candidate alone.
    pub candidate_service: bool,
}

impl Shape {
    /// The plainest: one pod behind a Service.
    fn plain(name: String) -> Self {
        Self { name, replicas: 1, candidate_service: false }
    }

    fn manifest(&self, image: &str) -> Value {
        let name = &self.name;
        let mut traffic = json!({ "service": name });
        if self.candidate_service {
            traffic["candidateService"] = json!(format!("{name}-candidate"));
        }
        json!({
            "apiVersion": "servicerelease.io/v1alpha1",
            "kind": "ServiceRelease",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": { "app": name } },
                "traffic": traffic,
                "strategy": { "canary": { "steps": [{ "setWeight": 25 }, { "setWeight": 50 }] } },
                "template": {
                    "metadata": { "labels": { "app": name } },
                    "spec": { "containers": containers(image) },
                },
            },
        })
    }
}

fn containers(image: &str) -> Value {
    json!([{ "name": "app", "image": image, "ports": [{ "name": "http", "containerPort": 8080 }] }])
}

impl Fleet {
    /// None yet.
    pub fn new(client: &Client) -> Self {
        let api = Api::namespaced_with(client.clone(), NAMESPACE, &Kind::Release.resource());
        Self { api, eyes: Eyes::open(client), size: 0, version: 1 }
    }

    /// An image that no release has had.
    pub fn next_image(&mut self) -> String {
        self.version += 1;
        format!("registry.example.com/app:v{}", self.version)
    }

    /// The name of a release of the fleet.
    pub fn name(index: usize) -> String {
        format!("fleet-{index:04}")
    }

    /// Makes a release and waits until it is healthy.
    pub async fn make(&self, shape: &Shape) -> Result<()> {
        let image = "registry.example.com/app:v1";
        let healthy = self.eyes.healthy(&shape.name, image);
        let object = serde_json::from_value(shape.manifest(image))?;
        self.api.create(&PostParams::default(), &object).await.with_context(|| format!("creating {}", shape.name))?;
        healthy.at().await.map(drop)
    }

    /// Makes as many as are missing to a size, all healthy.
    pub async fn grow(&mut self, size: usize) -> Result<()> {
        let from = std::mem::replace(&mut self.size, size);
        let fleet = &*self;
        stream::iter(from..size)
            .map(|index| async move { fleet.make(&Shape::plain(Self::name(index))).await })
            .buffer_unordered(64)
            .try_collect()
            .await
    }

    /// Changes the image of a release.
    pub async fn set_image(&self, release: &str, image: &str) -> Result<()> {
        self.set_template(release, json!({ "spec": { "containers": containers(image) } })).await
    }

    /// Changes the template of a release by a merge patch.
    pub async fn set_template(&self, release: &str, template: Value) -> Result<()> {
        let patch = json!({ "spec": { "template": template } });
        self.api.patch(release, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Releases an image with one release, and waits until it is promoted.
    pub async fn release(&self, name: &str, image: &str) -> Result<()> {
        let healthy = self.eyes.healthy(name, image);
        self.set_image(name, image).await?;
        healthy.at().await.map(drop)
    }

    /// Changes the image of the first so many at once, and waits until all are promoted. Returns the
    /// seconds from the first change.
    pub async fn release_together(&mut self, count: usize) -> Result<f64> {
        let image = self.next_image();
        let names: Vec<String> = (0..count).map(Self::name).collect();
        let promoted: Vec<_> = names.iter().map(|name| self.eyes.healthy(name, &image)).collect();
        let start = Instant::now();
        let fleet = &*self;
        let changes = names.iter().map(|name| fleet.set_image(name, &image));
        stream::iter(changes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let mut last = start;
        for promoted in promoted {
            last = last.max(promoted.at().await?);
        }
        Ok((last - start).as_secs_f64())
    }
}
