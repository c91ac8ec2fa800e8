//! Leader election: one Lease, changed only by compare-and-swap on its resourceVersion.
//!
//! A holder counts its time from before it asked, on its own monotonic clock, and stops writing at
//! three quarters of the lease's duration; a standby counts the whole duration from when it saw the
//! last renewal. So two never believe that they lead, however their wall clocks differ, and a
//! process that was stopped finds the fence closed before its next write. A standby learns of
//! renewals by a watch: it asks nothing while the leader lives. Whoever loses the lease is a standby
//! again.
//!
//! Four seconds, renewed every second and a half: a standby acts within five seconds of a leader's
//! sudden end, one renewal may fail without consequence, and the price is 40 small requests a
//! minute. What was in flight when a lease ran out is harmless: it carries the version that it was
//! decided on, or makes what has one name only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client, Error,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::FIELD_MANAGER;

/// How long to wait before a renewal that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Whether this process may write: open for as long as its lease surely holds.
#[derive(Debug)]
pub struct Fence {
    start: Instant,
    /// Milliseconds after `start` at which it closes.
    until: AtomicU64,
}

impl Fence {
    /// Closed until a lease is held.
    #[must_use]
    pub fn closed() -> Self {
        Self { start: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Open for ever: where there is one process only.
    #[must_use]
    pub fn open() -> Self {
        Self { start: Instant::now(), until: AtomicU64::new(u64::MAX) }
    }

    /// Whether it is open now.
    #[must_use]
    pub fn holds(&self) -> bool {
        let now = self.start.elapsed().as_millis();
        now < u128::from(self.until.load(Ordering::Acquire))
    }

    fn set(&self, until: Option<Instant>) {
        let after = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(self.start));
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.until.store(millis, Ordering::Release);
    }
}

/// How a lease is held.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who holds it: unique for each process.
    pub identity: String,
    /// Seconds without a renewal after which another may take it.
    pub seconds: u32,
    /// How often it is renewed.
    pub renew: Duration,
}

impl Settings {
    /// What another has to wait.
    fn duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }

    /// What the holder may count on after it asked.
    fn deadline(&self) -> Duration {
        self.duration() * 3 / 4
    }
}

/// A holder's name: what people know it by, and what makes it unique, also for a process that was
/// started again in the same pod.
#[must_use]
pub fn identity(host: &str) -> String {
    format!("{host}_{:016x}", fastrand::u64(..))
}

/// Why a lease is no longer held.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has it.
    #[error("the Lease {name} is held by {holder}")]
    Taken {
        /// Its name.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// It was not renewed in time.
    #[error("the Lease {name} could not be renewed in time; the last attempt: {cause}")]
    Expired {
        /// Its name.
        name: String,
        /// What was in the way.
        cause: String,
    },
}

/// The Lease as this process deals with it.
pub struct Elector {
    api: Api<Lease>,
    settings: Settings,
    fence: Arc<Fence>,
    /// The Lease as it was last seen, and when it was seen to change.
    seen: Option<(Option<Lease>, Instant)>,
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn same_version(one: Option<&Lease>, other: Option<&Lease>) -> bool {
    let version = |lease: Option<&Lease>| {
        lease.map(|lease| {
            let meta = &lease.metadata;
            (meta.uid.clone(), meta.resource_version.clone())
        })
    };
    version(one) == version(other)
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

impl Elector {
    /// For a Lease that opens and closes a fence.
    #[must_use]
    pub fn new(client: Client, settings: Settings, fence: Arc<Fence>) -> Self {
        Self { api: Api::namespaced(client, &settings.namespace), settings, fence, seen: None }
    }

    /// Waits until this process holds the lease.
    pub async fn acquire(&mut self) {
        let watch = watcher::watch_object(self.api.clone(), &self.settings.name);
        let mut watch = std::pin::pin!(watch.default_backoff());
        loop {
            if let Some(due) = self.due() {
                tokio::select! {
                    () = self.see_next(&mut watch) => continue,
                    () = sleep_until(due) => {}
                }
                if self.take().await {
                    info!(lease = self.settings.name, identity = self.settings.identity, "leading");
                    return;
                }
            } else {
                self.see_next(&mut watch).await;
            }
        }
    }

    async fn see_next<S>(&mut self, watch: &mut S)
    where
        S: Stream<Item = watcher::Result<Option<Lease>>> + Unpin,
    {
        match watch.next().await {
            Some(Ok(lease)) => self.see(lease),
            Some(Err(error)) => debug!(%error, "watch of the Lease failed; it is tried again"),
            None => tokio::time::sleep(RETRY).await,
        }
    }

    fn see(&mut self, lease: Option<Lease>) {
        let known = self.seen.as_ref();
        if !known.is_some_and(|(known, _)| same_version(known.as_ref(), lease.as_ref())) {
            self.seen = Some((lease, Instant::now()));
        }
    }

    /// When the lease may be taken, as far as is known; never before it was seen at all.
    fn due(&self) -> Option<Instant> {
        let (lease, since) = self.seen.as_ref()?;
        let Some(lease) = lease else {
            return Some(*since);
        };
        let holder = holder(lease);
        if holder.is_empty() || holder == self.settings.identity {
            return Some(*since);
        }
        let promised = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let promised = u64::try_from(promised.unwrap_or(0)).unwrap_or(0);
        Some(*since + self.settings.duration().max(Duration::from_secs(promised)))
    }

    async fn take(&mut self) -> bool {
        let asked = Instant::now();
        let known = self.seen.as_ref().and_then(|(lease, _)| lease.clone());
        let wanted = self.claim(known.as_ref());
        let answer = match known {
            Some(_) => self.replace(&wanted).await,
            None => attempt(self.api.create(&params(), &wanted)).await,
        };
        match answer {
            Ok(lease) => {
                self.hold(lease, asked);
                true
            }
            Err(cause) => {
                debug!(%cause, "the Lease was not to be had");
                // Somebody changed it, or nobody knows: what counts is what it is now.
                tokio::time::sleep(RETRY).await;
                if let Ok(lease) = attempt(self.api.get_opt(&self.settings.name)).await {
                    self.see(lease);
                }
                false
            }
        }
    }

    fn hold(&mut self, lease: Lease, asked: Instant) {
        self.seen = Some((Some(lease), asked));
        self.fence.set(Some(asked + self.settings.deadline()));
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, Failure> {
        attempt(self.api.replace(&self.settings.name, &params(), lease)).await
    }

    /// The Lease with this process as its new holder.
    fn claim(&self, known: Option<&Lease>) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let metadata = known.map_or_else(
            || ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        let spec = known.and_then(|lease| lease.spec.clone());
        let transitions = spec.and_then(|spec| spec.lease_transitions);
        let first = known.is_none();
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.settings.identity.clone()),
                lease_duration_seconds: i32::try_from(self.settings.seconds).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(transitions.unwrap_or(0) + i32::from(!first)),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Renews the lease until it is lost.
    pub async fn keep(&mut self) -> Lost {
        let mut cause = String::from("none was made");
        let mut next = Instant::now() + self.settings.renew;
        loop {
            sleep_until(next).await;
            if !self.fence.holds() {
                return Lost::Expired { name: self.settings.name.clone(), cause };
            }
            let asked = Instant::now();
            match self.renew(asked).await {
                Ok(()) => next = asked + self.settings.renew,
                Err(Failure::Gone(holder)) => {
                    self.fence.set(None);
                    let name = self.settings.name.clone();
                    return Lost::Taken { name, holder };
                }
                Err(failure) => {
                    cause = failure.to_string();
                    warn!(cause, "the Lease was not renewed; it is tried again");
                    next = Instant::now() + RETRY;
                }
            }
        }
    }

    async fn renew(&mut self, asked: Instant) -> Result<(), Failure> {
        let Some((Some(mut lease), _)) = self.seen.clone() else {
            return Err(Failure::Gone("nobody".into()));
        };
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
        }
        match self.replace(&lease).await {
            Ok(lease) => {
                self.hold(lease, asked);
                Ok(())
            }
            Err(Failure::Conflict) => {
                // Another took it, or an earlier renewal of ours was answered too late.
                let now = attempt(self.api.get_opt(&self.settings.name)).await?;
                match now {
                    Some(lease) if holder(&lease) == self.settings.identity => {
                        self.see(Some(lease));
                        Err(Failure::Other("somebody else wrote to it".into()))
                    }
                    other => Err(Failure::Gone(other.as_ref().map_or("nobody", holder).to_owned())),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Gives the lease up, so that a standby need not wait for it to run out.
    pub async fn release(&mut self) {
        self.fence.set(None);
        let Some((Some(mut lease), _)) = self.seen.take() else {
            return;
        };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        match self.replace(&lease).await {
            Ok(_) => info!(lease = self.settings.name, "gave up the Lease"),
            Err(cause) => warn!(%cause, "the Lease was not given up; it runs out by itself"),
        }
    }
}

/// Why an attempt on the Lease failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it has changed")]
    Conflict,
    #[error("it is held by {0}")]
    Gone(String),
    #[error("{0}")]
    Other(String),
}

async fn attempt<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match timeout(ATTEMPT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::Api(status))) if status.code == 409 => Err(Failure::Conflict),
        Ok(Err(Error::Api(status))) if status.code == 404 => Err(Failure::Gone("nobody".into())),
        Ok(Err(error)) => Err(Failure::Other(error.to_string())),
        Err(_) => Err(Failure::Other(format!("no answer within {ATTEMPT:?}"))),
    }
}
