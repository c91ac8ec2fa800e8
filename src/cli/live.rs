//! Objects that are kept up to date by a watch; nothing is polled.

use std::{collections::BTreeMap, fmt::Debug};

use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::error::CliError;

/// The objects of one watch, by namespace and name.
pub struct Live<K> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    what: String,
    server: String,
    listing: BTreeMap<(String, String), K>,
    items: BTreeMap<(String, String), K>,
    complete: bool,
    trouble: Option<String>,
}

impl<K> Live<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Starts a watch. `what` completes "cannot ...".
    pub fn new(api: Api<K>, config: watcher::Config, what: String, server: &str) -> Self {
        Self {
            events: watcher(api, config).default_backoff().boxed(),
            what,
            server: server.to_owned(),
            listing: BTreeMap::new(),
            items: BTreeMap::new(),
            complete: false,
            trouble: None,
        }
    }

    /// Watches a single object.
    pub fn one(api: Api<K>, name: &str, what: String, server: &str) -> Self {
        Self::new(api, watcher::Config::default().fields(&format!("metadata.name={name}")), what, server)
    }

    /// Waits until something has changed that can be seen. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When asking again cannot help: no access, or no such kind. Other errors are retried; the last
    /// one is kept in [`Live::trouble`].
    pub async fn changed(&mut self) -> Result<(), CliError> {
        loop {
            match self.events.next().await {
                Some(Ok(event)) => {
                    self.trouble = None;
                    if self.take(event) {
                        return Ok(());
                    }
                }
                Some(Err(error)) => {
                    let error = self.translate(&error);
                    if error.is_final() {
                        return Err(error);
                    }
                    self.trouble = Some(error.to_string());
                }
                None => return Err(CliError::Deleted(self.what.clone())),
            }
        }
    }

    fn take(&mut self, event: Event<K>) -> bool {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => {
                self.listing.clear();
                false
            }
            Event::InitApply(object) => {
                self.listing.insert(key(&object), object);
                false
            }
            Event::InitDone => {
                self.items = std::mem::take(&mut self.listing);
                self.complete = true;
                true
            }
            Event::Apply(object) => {
                self.items.insert(key(&object), object);
                true
            }
            Event::Delete(object) => {
                self.items.remove(&key(&object));
                true
            }
        }
    }

    fn translate(&self, error: &watcher::Error) -> CliError {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => CliError::of_client(&self.what, &self.server, error),
            watcher::Error::WatchError(status) => {
                CliError::of_client(&self.what, &self.server, &kube::Error::Api(status.clone()))
            }
            watcher::Error::NoResourceVersion => {
                CliError::Api { what: self.what.clone(), why: "the answer has no resourceVersion".to_owned() }
            }
        }
    }

    /// Whether the first list is complete; before that an absent object may well exist.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The objects, by namespace and name.
    pub fn items(&self) -> impl Iterator<Item = &K> {
        self.items.values()
    }

    /// The only object there is.
    #[must_use]
    pub fn single(&self) -> Option<&K> {
        self.items.values().next()
    }

    /// Why the watch stands still, if it does.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}
