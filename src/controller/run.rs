//! The process: it starts the watches, waits for the lease, works off the queue, and ends in order.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use kube::Config;
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use crate::checks::AllowedHosts;
use crate::metrics::Providers;
use crate::telemetry::{self, Health, Metrics, Reading};

use super::{
    asker::Asker,
    cache::{Cache, Scope, World},
    calls::Calls,
    client,
    jobs::Runner,
    key::Key,
    lease::{self, Elector, Fence},
    memory::Memory,
    queue::Queue,
    reconcile::{self, Context, Decide},
    routers::Routers,
    watch as watches,
};

/// How long passes under way may take to end when the process is told to.
const GRACE: Duration = Duration::from_secs(10);

/// What the process is told at its start.
pub struct Options {
    /// The cluster.
    pub config: Config,
    /// The namespaces to watch; all if empty.
    pub namespaces: Vec<String>,
    /// Passes at the same time.
    pub concurrency: usize,
    /// How the lease is held; none if there is one process only.
    pub lease: Option<lease::Settings>,
    /// Where health and metrics are served.
    pub health: Option<SocketAddr>,
    /// This process, for Events.
    pub instance: String,
    /// The custom routers.
    pub routers: Routers,
    /// Where metrics are asked for.
    pub providers: Providers,
    /// Hosts beyond releases that checks may ask.
    pub allowed_hosts: AllowedHosts,
    /// What runs where the operator itself may not look.
    pub runner: Option<Runner>,
    /// What decides.
    pub decide: Decide,
}

/// Why the process ended other than as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be built.
    #[error("the configuration of the cluster cannot be used: {0}")]
    Client(#[source] kube::Error),
    /// There is no client for checks.
    #[error("checks cannot be asked: {0}")]
    Http(#[source] reqwest::Error),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The health server cannot listen.
    #[error("the health server cannot listen on {address}: {cause}; choose another --health-addr")]
    Health {
        /// Where.
        address: SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// A watch ended, which none does.
    #[error("a watch ended by itself")]
    Watch,
}

struct Vitals {
    cache: Arc<Cache>,
    queue: Arc<Queue>,
    fence: Arc<Fence>,
}

impl Health for Vitals {
    fn missing(&self) -> Vec<String> {
        let missing = self.cache.world().missing();
        missing.iter().map(|kind| kind.resource().3.to_owned()).collect()
    }

    fn reading(&self) -> Reading {
        // Of several replicas one counts, so that a sum over them is true.
        let leader = self.fence.holds();
        let mut releases = BTreeMap::new();
        if !leader {
            return Reading { releases, queued: 0, running: self.queue.running(), leader };
        }
        for cached in self.cache.world().releases.iter() {
            let status = cached.object.as_ref().map(|release| &release.status);
            let phase = match status {
                Ok(Some(status)) => format!("{:?}", status.phase),
                Ok(None) => "Pending".into(),
                Err(_) => "Invalid".into(),
            };
            *releases.entry(phase).or_insert(0) += 1;
        }
        Reading { releases, queued: self.queue.depth(), running: self.queue.running(), leader }
    }
}

/// Runs until `stop`. Whoever loses the lease stands by again, and remembers nothing of what it led: a process that
/// ended instead would wait, by the kubelet's back-off, for minutes to come back when the API server was slow a few times.
///
/// # Errors
/// See [`Error`].
pub async fn run(options: Options, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new()?);
    let client = client::build(options.config.clone(), metrics.clone()).map_err(Error::Client)?;
    let scopes = scopes(&options.namespaces);
    let queue = Arc::new(Queue::default());
    let cache = Arc::new(Cache::new(World::new(&scopes), queue.clone()));
    let fence = Arc::new(match options.lease {
        Some(_) => Fence::closed(),
        None => Fence::open(),
    });
    let (stopping, stopped) = watch::channel(false);
    tokio::spawn(async move {
        stop.await;
        let _ = stopping.send(true);
    });

    let vitals = Arc::new(Vitals { cache: cache.clone(), queue: queue.clone(), fence: fence.clone() });
    let mut background = JoinSet::new();
    if let Some(address) = options.health {
        let ended = wait_for(stopped.clone());
        let serving = telemetry::serve(address, vitals, metrics.clone(), ended);
        background.spawn(async move { serving.await.map_err(|cause| Error::Health { address, cause }) });
    }
    let mut watching = watches::start(&client, &scopes, &cache, &metrics);
    let calls = Calls::new(client.clone(), fence.clone());
    let asker =
        Asker::new(queue.clone(), client.clone(), options.providers, options.allowed_hosts).map_err(Error::Http)?;
    let term = || Context {
        asker: Arc::new(asker.afresh()),
        cache: cache.clone(),
        calls: calls.clone(),
        memory: Memory::default(),
        routers: options.routers.clone(),
        runner: options.runner.clone(),
        metrics: metrics.clone(),
        decide: options.decide.clone(),
        instance: options.instance.clone(),
    };
    let elector = options.lease.map(|settings| Elector::new(client, settings, fence));
    let work = lead(term, &cache, queue, elector, options.concurrency, stopped);
    tokio::select! {
        () = work => Ok(()),
        Some(_) = watching.join_next() => Err(Error::Watch),
        error = first_error(&mut background) => Err(error),
    }
}

fn scopes(namespaces: &[String]) -> Vec<Scope> {
    match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str().into())).collect(),
    }
}

async fn first_error(tasks: &mut JoinSet<Result<(), Error>>) -> Error {
    while let Some(ended) = tasks.join_next().await {
        if let Ok(Err(error)) = ended {
            return error;
        }
    }
    std::future::pending().await
}

async fn wait_for(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

/// Waits for the lease, if there is one, and works while it is held; each term has a context of its own.
async fn lead(
    term: impl Fn() -> Context,
    cache: &Cache,
    queue: Arc<Queue>,
    elector: Option<Elector>,
    concurrency: usize,
    stopped: watch::Receiver<bool>,
) {
    tokio::select! {
        () = synced(cache) => {}
        () = wait_for(stopped.clone()) => return,
    }
    let mut passes = JoinSet::new();
    let Some(mut elector) = elector else {
        return work(&Arc::new(term()), &mut passes, &queue, concurrency, stopped).await;
    };
    loop {
        tokio::select! {
            () = elector.acquire() => {}
            () = wait_for(stopped.clone()) => return,
        }
        let context = Arc::new(term());
        let lost = tokio::select! {
            lost = elector.keep() => lost,
            () = work(&context, &mut passes, &queue, concurrency, stopped.clone()) => return elector.release().await,
        };
        context.metrics.lead_lost();
        warn!(%lost, "no longer leading; standing by");
        // None of them may write any more: what they had begun is as after a crash.
        passes.shutdown().await;
    }
}

/// Waits for the first complete LIST of every watch. The cache tells nobody when that is, so it is
/// looked at now and then; it happens once.
async fn synced(cache: &Cache) {
    while !cache.world().missing().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    info!("the cache is complete");
}

/// Works off the queue until told to stop, then lets the passes under way end.
async fn work(
    context: &Arc<Context>,
    passes: &mut JoinSet<()>,
    queue: &Arc<Queue>,
    concurrency: usize,
    stopped: watch::Receiver<bool>,
) {
    for key in context.cache.world().keys() {
        queue.wake(key);
    }
    let mut end = Box::pin(wait_for(stopped));
    loop {
        tokio::select! {
            () = &mut end => break,
            Some(_) = passes.join_next() => {}
            key = queue.next(), if passes.len() < concurrency.max(1) => {
                passes.spawn(one(context.clone(), Turn { queue: queue.clone(), key, next: None }));
            }
        }
    }
    info!(passes = passes.len(), "stopping; passes under way are let end");
    let all = async { while passes.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, all).await;
}

async fn one(context: Arc<Context>, mut turn: Turn) {
    turn.next = reconcile::pass(&context, &turn.key).await;
}

/// A release's turn, which is over also when its pass is broken off.
struct Turn {
    queue: Arc<Queue>,
    key: Key,
    /// When to look again if nothing happens before.
    next: Option<Duration>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.next);
    }
}
