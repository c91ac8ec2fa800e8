//! What the operator knows of the cluster: filled by watches, read by passes, never asked for again.
//! It maps every change to the ServiceReleases that it concerns, and knows which of them must not be
//! looked at yet, because a watch is still behind a write of our own.

pub mod claim;
pub mod config_map;
pub mod entry;
pub mod gateway;
pub mod jobs;
pub mod own;
pub mod route;
pub mod shelf;
#[cfg(test)]
mod tests;
pub mod traffic;
pub mod wait;
pub mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::watcher::Event;

use super::{key::Key, queue::Queue};

pub use claim::Claim;
pub use config_map::CachedConfigMap;
pub use entry::{Cached, Kind, Meta, Slim};
pub use gateway::{CachedGateway, CachedGatewayClass};
pub use jobs::CachedJob;
pub use own::{CachedCommand, CachedPlan, CachedRelease, Unparsable};
pub use route::{CachedRoute, RouteApi};
pub use shelf::{Change, Scope, Shelf};
pub use traffic::{CachedService, Slice};
pub use wait::{Behind, Wait};
pub use workloads::{Autoscaler, CachedPod, Deployment, ReplicaSet};

/// Plans of a release whose content is kept in memory: that of the release under way, and one that
/// was pinned and is not yet on record.
const PLANS_IN_MEMORY: usize = 2;

/// All cached objects.
#[derive(Debug)]
pub struct World {
    /// ServiceReleases.
    pub releases: Shelf<CachedRelease>,
    /// ReleaseCommands, by the release that they name.
    pub commands: Shelf<CachedCommand>,
    /// Pinned plans, by release.
    pub plans: Shelf<CachedPlan>,
    /// ReplicaSets, by release.
    pub replica_sets: Shelf<ReplicaSet>,
    /// Pods, by release.
    pub pods: Shelf<CachedPod>,
    /// Deployments.
    pub deployments: Shelf<Deployment>,
    /// Services.
    pub services: Shelf<CachedService>,
    /// EndpointSlices, by Service.
    pub slices: Shelf<Slice>,
    /// Autoscalers, by the Deployment that they scale.
    pub autoscalers: Shelf<Autoscaler>,
    /// Jobs, by release.
    pub jobs: Shelf<CachedJob>,
    /// ConfigMaps, by release.
    pub config_maps: Shelf<CachedConfigMap>,
    /// HTTPRoutes, by name. Nobody watches them before a release uses one.
    pub routes: Shelf<CachedRoute>,
    /// GRPCRoutes, by name.
    pub grpc_routes: Shelf<CachedRoute<true>>,
    /// Gateways of all namespaces.
    pub gateways: Shelf<CachedGateway>,
    /// GatewayClasses.
    pub gateway_classes: Shelf<CachedGatewayClass>,
    /// Whether there are such kinds.
    pub route_api: RouteApi,
    claims: HashMap<(Arc<str>, Claim), BTreeSet<Arc<str>>>,
    waits: HashMap<Key, Vec<Wait>>,
}

/// A kind of object that the [`World`] has a shelf for.
pub trait Shelved: Cached {
    /// Its shelf.
    fn shelf(world: &mut World) -> &mut Shelf<Self>;
    /// The releases that an object concerns.
    fn concerns(&self, world: &World) -> Vec<Key>;
    /// Keeps what follows from a change in order; says which other releases it concerns.
    fn settle(_: &mut World, _: &Change<Self>) -> Vec<Key> {
        Vec::new()
    }
}

impl World {
    /// An empty one, to be filled by watches of these scopes.
    #[must_use]
    pub fn new(scopes: &[Scope]) -> Self {
        Self {
            releases: Shelf::new(scopes),
            commands: Shelf::new(scopes),
            plans: Shelf::new(scopes),
            replica_sets: Shelf::new(scopes),
            pods: Shelf::new(scopes),
            deployments: Shelf::new(scopes),
            services: Shelf::new(scopes),
            slices: Shelf::new(scopes),
            autoscalers: Shelf::new(scopes),
            jobs: Shelf::new(scopes),
            config_maps: Shelf::new(scopes),
            routes: Shelf::new(scopes),
            grpc_routes: Shelf::new(scopes),
            gateways: Shelf::new(&[None]),
            gateway_classes: Shelf::new(&[None]),
            route_api: RouteApi::default(),
            claims: HashMap::new(),
            waits: HashMap::new(),
        }
    }

    /// Kinds of which not every watch has delivered its first LIST.
    #[must_use]
    pub fn missing(&self) -> Vec<Kind> {
        let synced = |kind: &Kind| match kind {
            Kind::Release => self.releases.synced(),
            Kind::Command => self.commands.synced(),
            Kind::Plan => self.plans.synced(),
            Kind::ReplicaSet => self.replica_sets.synced(),
            Kind::Pod => self.pods.synced(),
            Kind::Deployment => self.deployments.synced(),
            Kind::Service => self.services.synced(),
            Kind::EndpointSlice => self.slices.synced(),
            Kind::Autoscaler => self.autoscalers.synced(),
            Kind::Job => self.jobs.synced(),
            Kind::ConfigMap => self.config_maps.synced(),
            Kind::Route | Kind::GrpcRoute | Kind::Gateway | Kind::GatewayClass => true,
        };
        Kind::ALWAYS.into_iter().filter(|kind| !synced(kind)).collect()
    }

    /// Whether a Gateway that is not here does not exist.
    #[must_use]
    pub fn knows_gateways(&self) -> bool {
        self.gateways.synced() && self.route_api.refusal(Kind::Gateway).is_none()
    }

    /// The keys of everything that a pass may have something to do for.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<Key> {
        let releases = self.releases.iter().map(|release| &release.meta().key);
        releases.chain(self.commands.groups()).cloned().collect()
    }

    /// The releases that lay claim to something.
    pub fn claimants<'a>(&'a self, namespace: &Arc<str>, claim: &Claim) -> impl Iterator<Item = Key> + use<'a> {
        let namespace = namespace.clone();
        let names = self.claims.get(&(namespace.clone(), claim.clone()));
        names.into_iter().flatten().map(move |name| Key { namespace: namespace.clone(), name: name.clone() })
    }

    /// Takes in an event of a watch. Says which releases have a reason to look again.
    pub fn apply<T: Shelved>(&mut self, scope: &Scope, event: Event<Slim<T>>) -> BTreeSet<Key> {
        let mut woken = BTreeSet::new();
        for change in T::shelf(self).apply(scope, event) {
            let differs = change.old != change.new;
            let entries = change.old.iter().chain(&change.new);
            let concerned: Vec<Key> = entries.flat_map(|entry| entry.concerns(self)).collect();
            let due = |key: &Key| differs || self.waits.contains_key(key);
            woken.extend(concerned.into_iter().filter(due));
            woken.extend(T::settle(self, &change));
        }
        woken
    }

    /// The releases that use a route.
    fn routed(&self) -> Vec<Key> {
        let routed = self.claims.iter().filter(|((_, claim), _)| matches!(claim, Claim::Route(_)));
        let keys = routed.flat_map(|((namespace, _), names)| {
            names.iter().map(|name| Key { namespace: namespace.clone(), name: name.clone() })
        });
        keys.collect()
    }

    fn claimed_by(&self, meta: &Meta, claim: &Claim) -> Vec<Key> {
        self.claimants(&meta.key.namespace, claim).collect()
    }
}

impl Shelved for CachedRelease {
    fn shelf(world: &mut World) -> &mut Shelf<Self> {
        &mut world.releases
    }

    fn concerns(&self, _: &World) -> Vec<Key> {
        vec![self.meta().key.clone()]
    }

    fn settle(world: &mut World, change: &Change<Self>) -> Vec<Key> {
        let Some(either) = change.new.as_ref().or(change.old.as_ref()) else {
            return Vec::new();
        };
        let Key { namespace, name } = either.meta().key.clone();
        if change.new.is_none() {
            world.waits.remove(&either.meta().key);
        }
        let claims = |entry: &Option<Self>| {
            let entry = entry.as_ref();
            entry.map(|entry| (entry.meta().uid.clone(), entry.claims.clone()))
        };
        let (old, new) = (claims(&change.old), claims(&change.new));
        if old == new {
            return Vec::new();
        }
        let mut rivals = Vec::new();
        for claim in old.into_iter().flat_map(|(_, claims)| claims) {
            rivals.extend(world.claimants(&namespace, &claim));
            let entry = (namespace.clone(), claim);
            if let Some(names) = world.claims.get_mut(&entry) {
                names.remove(&name);
                if names.is_empty() {
                    world.claims.remove(&entry);
                }
            }
        }
        for claim in new.into_iter().flat_map(|(_, claims)| claims) {
            if matches!(claim, Claim::Route(_)) {
                world.route_api.want();
            }
            rivals.extend(world.claimants(&namespace, &claim));
            let names = world.claims.entry((namespace.clone(), claim)).or_default();
            names.insert(name.clone());
        }
        rivals
    }
}

impl Shelved for CachedPlan {
    fn shelf(world: &mut World) -> &mut Shelf<Self> {
        &mut world.plans
    }

    fn concerns(&self, _: &World) -> Vec<Key> {
        vec![self.meta().key.beside(self.group())]
    }

    fn settle(world: &mut World, change: &Change<Self>) -> Vec<Key> {
        let Some(new) = &change.new else {
            return Vec::new();
        };
        let group = new.meta().key.beside(new.group());
        let held = world.plans.of(&group).filter(|plan| plan.data.is_some());
        let newest_first: BTreeMap<i64, Key> = held.map(|plan| (-plan.number, plan.meta().key.clone())).collect();
        for key in newest_first.values().skip(PLANS_IN_MEMORY) {
            if let Some(plan) = world.plans.get_mut(key) {
                plan.data = None;
            }
        }
        Vec::new()
    }
}

/// Implements [`Shelved`] for a kind that belongs to a release by its label or spec.
macro_rules! belongs_to_release {
    ($($kind:ident on $shelf:ident),*) => {$(
        impl Shelved for $kind {
            fn shelf(world: &mut World) -> &mut Shelf<Self> {
                &mut world.$shelf
            }

            fn concerns(&self, _: &World) -> Vec<Key> {
                vec![self.meta().key.beside(self.group())]
            }
        }
    )*};
}

belongs_to_release!(
    CachedCommand on commands,
    ReplicaSet on replica_sets,
    CachedPod on pods,
    CachedJob on jobs,
    CachedConfigMap on config_maps
);

/// Implements [`Shelved`] for a kind that concerns whoever lays claim to something.
macro_rules! belongs_to_claimants {
    ($($kind:ident on $shelf:ident by $claim:ident),*) => {$(
        impl Shelved for $kind {
            fn shelf(world: &mut World) -> &mut Shelf<Self> {
                &mut world.$shelf
            }

            fn concerns(&self, world: &World) -> Vec<Key> {
                world.claimed_by(self.meta(), &Claim::$claim(self.group().to_owned()))
            }
        }
    )*};
}

belongs_to_claimants!(
    Deployment on deployments by Deployment,
    Autoscaler on autoscalers by Deployment,
    CachedService on services by Service,
    Slice on slices by Service,
    CachedRoute on routes by Route
);

impl Shelved for CachedRoute<true> {
    fn shelf(world: &mut World) -> &mut Shelf<Self> {
        &mut world.grpc_routes
    }

    fn concerns(&self, world: &World) -> Vec<Key> {
        world.claimed_by(self.meta(), &Claim::Route(self.group().to_owned()))
    }
}

/// Implements [`Shelved`] for a kind that concerns every release with a route.
macro_rules! belongs_to_routed {
    ($($kind:ident on $shelf:ident),*) => {$(
        impl Shelved for $kind {
            fn shelf(world: &mut World) -> &mut Shelf<Self> {
                &mut world.$shelf
            }

            fn concerns(&self, world: &World) -> Vec<Key> {
                world.routed()
            }
        }
    )*};
}

belongs_to_routed!(CachedGateway on gateways, CachedGatewayClass on gateway_classes);

/// The cache: a [`World`] that many tasks share, and the queue that its changes fill.
#[derive(Debug)]
pub struct Cache {
    world: Mutex<World>,
    queue: Arc<Queue>,
}

impl Cache {
    /// A new one.
    #[must_use]
    pub fn new(world: World, queue: Arc<Queue>) -> Self {
        Self { world: Mutex::new(world), queue }
    }

    /// The world as it is known now. Hold it for no longer than it takes to copy what is needed.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an event of a watch and wakes the releases that it concerns.
    pub fn apply<T: Shelved>(&self, scope: &Scope, event: Event<Slim<T>>) {
        let woken = self.world().apply(scope, event);
        for key in woken {
            self.queue.wake(key);
        }
    }

    /// Takes in whether a kind of the Gateway API can be watched; why not, if so.
    pub fn can_watch(&self, kind: Kind, refusal: Option<String>) {
        let mut world = self.world();
        let refused = refusal.is_some();
        // A complete LIST is news also to those who wait for it.
        if !world.route_api.is(kind, refusal) && (refused || kind == Kind::Route) {
            return;
        }
        for key in world.routed() {
            self.queue.wake(key);
        }
    }
}
