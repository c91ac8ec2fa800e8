//! One kind of object in the cache: by key, by what it belongs to, and how far its watch has come.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use kube::runtime::watcher::Event;
use tokio::sync::Notify;

use crate::controller::key::Key;

use super::entry::{Cached, Slim};

/// What one watch covers: a namespace, or all of them.
pub type Scope = Option<Arc<str>>;

/// Objects of one kind.
#[derive(Debug)]
pub struct Shelf<T> {
    objects: HashMap<Key, T>,
    groups: HashMap<Key, BTreeSet<Arc<str>>>,
    watches: HashMap<Scope, Watched<T>>,
}

/// How far one watch has come.
#[derive(Debug)]
struct Watched<T> {
    /// The objects of a LIST under way, and when it began.
    incoming: Option<(HashMap<Key, T>, u64, Instant)>,
    /// When the last complete LIST began.
    listed: Option<Instant>,
    /// The newest resourceVersion that was seen.
    seen: u64,
    restart: Arc<Notify>,
}

/// An object that appeared, changed or went.
#[derive(Debug)]
pub struct Change<T> {
    /// As it was.
    pub old: Option<T>,
    /// As it is.
    pub new: Option<T>,
}

/// A resourceVersion as a number. They grow with every write to one kind of object.
#[must_use]
pub fn ordinal(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

impl<T: Cached> Shelf<T> {
    /// An empty one, to be filled by a watch for each scope.
    #[must_use]
    pub fn new(scopes: &[Scope]) -> Self {
        let watched = || Watched { incoming: None, listed: None, seen: 0, restart: Arc::default() };
        Self {
            objects: HashMap::new(),
            groups: HashMap::new(),
            watches: scopes.iter().map(|scope| (scope.clone(), watched())).collect(),
        }
    }

    /// An object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&T> {
        self.objects.get(key)
    }

    /// An object, to be changed in what does not come from its watch.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut T> {
        self.objects.get_mut(key)
    }

    /// All objects that belong to one thing.
    pub fn of(&self, group: &Key) -> impl Iterator<Item = &T> {
        let namespace = group.namespace.clone();
        self.groups
            .get(group)
            .into_iter()
            .flatten()
            .filter_map(move |name| self.objects.get(&Key { namespace: namespace.clone(), name: name.clone() }))
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.objects.values()
    }

    /// Everything that an object of this kind belongs to.
    pub fn groups(&self) -> impl Iterator<Item = &Key> {
        self.groups.keys()
    }

    /// Whether every watch has delivered its first complete LIST.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.watches.values().all(|watch| watch.listed.is_some())
    }

    fn watch_of(&self, namespace: &Arc<str>) -> Option<&Watched<T>> {
        self.watches.get(&Some(namespace.clone())).or_else(|| self.watches.get(&None))
    }

    /// Whether the watch of a namespace has passed a version, or began anew after `since`.
    #[must_use]
    pub fn passed(&self, namespace: &Arc<str>, version: u64, since: Instant) -> bool {
        self.watch_of(namespace)
            .is_some_and(|watch| watch.seen >= version || watch.listed.is_some_and(|began| began > since))
    }

    /// Tells the watch of a namespace to begin anew: it did not deliver what must be there.
    pub fn restart(&self, namespace: &Arc<str>) {
        if let Some(watch) = self.watch_of(namespace) {
            watch.restart.notify_one();
        }
    }

    /// What a watch waits on for [`Shelf::restart`].
    #[must_use]
    pub fn restarted(&self, scope: &Scope) -> Arc<Notify> {
        self.watches.get(scope).map(|watch| watch.restart.clone()).unwrap_or_default()
    }

    /// Takes in an event of a watch.
    pub fn apply(&mut self, scope: &Scope, event: Event<Slim<T>>) -> Vec<Change<T>> {
        let Some(watch) = self.watches.get_mut(scope) else {
            return Vec::new();
        };
        match event {
            Event::Init => {
                watch.incoming = Some((HashMap::new(), 0, Instant::now()));
                Vec::new()
            }
            Event::InitApply(slim) => {
                if let Some((objects, seen, _)) = &mut watch.incoming {
                    *seen = (*seen).max(ordinal(&slim.version));
                    objects.extend(slim.entry.map(|entry| (slim.key, entry)));
                }
                Vec::new()
            }
            Event::InitDone => {
                let Some((objects, seen, began)) = watch.incoming.take() else {
                    return Vec::new();
                };
                watch.seen = watch.seen.max(seen);
                watch.listed = Some(began);
                self.replace(scope, objects)
            }
            Event::Apply(slim) => {
                watch.seen = watch.seen.max(ordinal(&slim.version));
                vec![self.set(slim.key, slim.entry)]
            }
            Event::Delete(slim) => {
                watch.seen = watch.seen.max(ordinal(&slim.version));
                vec![self.set(slim.key, None)]
            }
        }
    }

    fn replace(&mut self, scope: &Scope, objects: HashMap<Key, T>) -> Vec<Change<T>> {
        let covered = |key: &&Key| scope.as_ref().is_none_or(|only| *only == key.namespace);
        let gone: Vec<Key> =
            self.objects.keys().filter(covered).filter(|key| !objects.contains_key(*key)).cloned().collect();
        let gone = gone.into_iter().map(|key| (key, None));
        let listed = objects.into_iter().map(|(key, entry)| (key, Some(entry)));
        gone.chain(listed).map(|(key, entry)| self.set(key, entry)).collect()
    }

    fn set(&mut self, key: Key, new: Option<T>) -> Change<T> {
        let old = match new.clone() {
            Some(entry) => self.objects.insert(key.clone(), entry),
            None => self.objects.remove(&key),
        };
        let group = |entry: &T| key.beside(entry.group());
        let (before, after) = (old.as_ref().map(group), new.as_ref().map(group));
        if before != after {
            if let Some(group) = before
                && let Some(names) = self.groups.get_mut(&group)
            {
                names.remove(&key.name);
                if names.is_empty() {
                    self.groups.remove(&group);
                }
            }
            if let Some(group) = after {
                let names = self.groups.entry(group).or_default();
                names.insert(key.name.clone());
            }
        }
        Change { old, new }
    }
}
