//! What a release waits to see before it is looked at again: its own writes. Deciding on an older
//! view could do a thing twice, or take a ReplicaSet for warm that was just told to shrink.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::controller::key::Key;

use super::{
    World,
    entry::{Cached, Kind, Meta},
    shelf::{Shelf, ordinal},
};

/// How long a watch may be behind a write before it is started anew.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a refused write waits for the version that it was refused for.
const PATIENCE_AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// Something that the cache has to show first.
#[derive(Clone, Debug)]
pub struct Wait {
    kind: Kind,
    key: Key,
    uid: Arc<str>,
    what: What,
    since: Instant,
    restarted: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A version that was written.
    Written(u64),
    /// A version newer than one that was refused.
    NewerThan(u64),
    /// The object's end, or that it is on its way.
    Gone,
}

/// What is still missing in the view of a release.
#[derive(Clone, Debug)]
pub struct Behind {
    /// The kind of object whose watch is behind.
    pub kind: Kind,
    /// How long it has been behind.
    pub since: Instant,
}

impl Wait {
    fn new(kind: Kind, key: Key, uid: &str, what: What) -> Self {
        Self { kind, key, uid: uid.into(), what, since: Instant::now(), restarted: false }
    }

    /// For a version that was written.
    #[must_use]
    pub fn written(kind: Kind, key: Key, uid: &str, version: &str) -> Self {
        Self::new(kind, key, uid, What::Written(ordinal(version)))
    }

    /// For a version newer than one for which a write was refused.
    #[must_use]
    pub fn newer_than(kind: Kind, key: Key, uid: &str, version: &str) -> Self {
        Self::new(kind, key, uid, What::NewerThan(ordinal(version)))
    }

    /// For the end of an object that was deleted.
    #[must_use]
    pub fn gone(kind: Kind, key: Key, uid: &str) -> Self {
        Self::new(kind, key, uid, What::Gone)
    }

    fn over<T: Cached>(&self, shelf: &Shelf<T>) -> bool {
        let seen = shelf.get(&self.key).map(Cached::meta);
        let same = |meta: &Meta| meta.uid == self.uid;
        let passed = |version| shelf.passed(&self.key.namespace, version, self.since);
        match self.what {
            What::Written(version) => passed(version) || seen.is_some_and(|meta| ordinal(&meta.version) >= version),
            What::NewerThan(version) => {
                self.since.elapsed() > PATIENCE_AFTER_CONFLICT
                    || seen.is_none_or(|meta| !same(meta) || ordinal(&meta.version) > version)
            }
            What::Gone => seen.is_none_or(|meta| !same(meta) || meta.deleting),
        }
    }
}

impl World {
    /// Lets a release wait for something.
    pub fn expect(&mut self, release: &Key, wait: Wait) {
        self.waits.entry(release.clone()).or_default().push(wait);
    }

    /// What the view of a release is behind in, if it is. A watch that does not deliver is told to
    /// begin anew: the view must not stay behind for ever, and must not be taken as it is.
    pub fn behind(&mut self, release: &Key) -> Option<Behind> {
        let mut waits = self.waits.remove(release)?;
        waits.retain(|wait| !self.is_over(wait));
        let first = waits.first()?;
        let behind = Behind { kind: first.kind, since: first.since };
        for wait in &mut waits {
            if !wait.restarted && wait.since.elapsed() > PATIENCE {
                wait.restarted = true;
                self.restart(wait.kind, &wait.key.namespace);
            }
        }
        self.waits.insert(release.clone(), waits);
        Some(behind)
    }

    fn is_over(&self, wait: &Wait) -> bool {
        match wait.kind {
            Kind::Release => wait.over(&self.releases),
            Kind::Command => wait.over(&self.commands),
            Kind::Plan => wait.over(&self.plans),
            Kind::ReplicaSet => wait.over(&self.replica_sets),
            Kind::Pod => wait.over(&self.pods),
            Kind::Deployment => wait.over(&self.deployments),
            Kind::Service => wait.over(&self.services),
            Kind::EndpointSlice => wait.over(&self.slices),
            Kind::Autoscaler => wait.over(&self.autoscalers),
            Kind::Job => wait.over(&self.jobs),
            Kind::ConfigMap => wait.over(&self.config_maps),
            Kind::Route => wait.over(&self.routes),
            Kind::GrpcRoute => wait.over(&self.grpc_routes),
            Kind::Gateway => wait.over(&self.gateways),
            Kind::GatewayClass => wait.over(&self.gateway_classes),
        }
    }

    fn restart(&self, kind: Kind, namespace: &Arc<str>) {
        match kind {
            Kind::Release => self.releases.restart(namespace),
            Kind::Command => self.commands.restart(namespace),
            Kind::Plan => self.plans.restart(namespace),
            Kind::ReplicaSet => self.replica_sets.restart(namespace),
            Kind::Pod => self.pods.restart(namespace),
            Kind::Deployment => self.deployments.restart(namespace),
            Kind::Service => self.services.restart(namespace),
            Kind::EndpointSlice => self.slices.restart(namespace),
            Kind::Autoscaler => self.autoscalers.restart(namespace),
            Kind::Job => self.jobs.restart(namespace),
            Kind::ConfigMap => self.config_maps.restart(namespace),
            Kind::Route => self.routes.restart(namespace),
            Kind::GrpcRoute => self.grpc_routes.restart(namespace),
            Kind::Gateway => self.gateways.restart(namespace),
            Kind::GatewayClass => self.gateway_classes.restart(namespace),
        }
    }
}
