//! The watches: one for each kind and scope, each with its own connection and its own backoff.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        utils::{Backoff, ResetTimerBackoff},
        watcher::{self, watcher},
    },
};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::{api::LABEL_RELEASE, telemetry::Metrics};

use super::cache::{
    Autoscaler, Cache, CachedCommand, CachedConfigMap, CachedGateway, CachedGatewayClass, CachedJob, CachedPlan,
    CachedPod, CachedRelease, CachedRoute, CachedService, Deployment, Kind, ReplicaSet, Scope, Shelved, Slice, Slim,
};

/// Objects in one page of a LIST.
const PAGE: u32 = 500;

/// Starts all watches of all scopes.
pub fn start(client: &Client, scopes: &[Scope], cache: &Arc<Cache>, metrics: &Arc<Metrics>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    macro_rules! start {
        ($scope:expr; $($kind:ty),*) => {$(
            tasks.spawn(follow::<$kind>(
                client.clone(),
                $scope.clone(),
                cache.clone(),
                metrics.clone(),
            ));
        )*};
    }
    // A route's Gateways are in any namespace.
    start!(None; CachedGateway, CachedGatewayClass);
    for scope in scopes {
        start!(
            scope;
            CachedRelease,
            CachedCommand,
            CachedPlan,
            ReplicaSet,
            CachedPod,
            Deployment,
            CachedService,
            Slice,
            Autoscaler,
            CachedJob,
            CachedConfigMap,
            CachedRoute,
            CachedRoute<true>
        );
    }
    tasks
}

fn config(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default().page_size(PAGE);
    match kind.labelled() {
        true => config.labels(LABEL_RELEASE),
        false => config,
    }
}

async fn follow<T: Shelved>(client: Client, scope: Scope, cache: Arc<Cache>, metrics: Arc<Metrics>) {
    let api: Api<Slim<T>> = match &scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let plural = T::KIND.resource().3;
    let restart = T::shelf(&mut cache.world()).restarted(&scope);
    if T::KIND.is_of_gateway_api() {
        let mut wanted = cache.world().route_api.wanted();
        // The sender lives as long as the cache.
        let _ = wanted.wait_for(|wanted| *wanted).await;
    }
    loop {
        let mut events = pin!(watcher(api.clone(), config(T::KIND)).backoff(retry()));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = restart.notified() => {
                    warn!(resource = plural, "watch is behind a write; starting it anew");
                    break;
                }
            };
            match event {
                Some(Ok(event)) => {
                    let complete = T::KIND.is_of_gateway_api() && matches!(event, watcher::Event::InitDone);
                    cache.apply(&scope, event);
                    if complete {
                        cache.can_watch(T::KIND, None);
                    }
                }
                Some(Err(error)) => {
                    if refused::<T>(&cache, &error) {
                        debug!(resource = plural, %error, "refused; it is tried again");
                    } else {
                        metrics.watch_failed(plural);
                        report(plural, &error);
                    }
                    if must_list_again(&error) {
                        break;
                    }
                }
                None => break,
            }
        }
    }
}

/// Takes in that a kind of the Gateway API is not to be had. Says whether that was known: a cluster without
/// it, or a role without the right, is told once.
fn refused<T: Shelved>(cache: &Cache, error: &watcher::Error) -> bool {
    if !T::KIND.is_of_gateway_api() {
        return false;
    }
    let known = cache.world().route_api.refusal(T::KIND).map(str::to_owned);
    let refusal = refusal(T::KIND, error);
    let is_known = refusal.is_some() && refusal == known;
    cache.can_watch(T::KIND, refusal.or(known));
    is_known
}

/// Why a kind of the Gateway API is not to be had, if the API server says so.
fn refusal(kind: Kind, error: &watcher::Error) -> Option<String> {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(cause) | WatchStartFailed(cause) | WatchFailed(cause)) = error else { return None };
    match cause {
        kube::Error::Api(status) if status.code == 404 => {
            Some(format!("the cluster does not serve {}s (gateway.networking.k8s.io/v1)", kind.resource().2))
        }
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            Some(format!("the operator may not look at {}s: {}", kind.resource().2, status.message))
        }
        _ => None,
    }
}

/// A watch that ended because it fell behind (410) lists again: that is its ordinary way.
fn report(resource: &str, error: &watcher::Error) {
    match error {
        watcher::Error::WatchError(status) if status.code == 410 => {
            debug!(resource, "watch fell behind; listing again");
        }
        error => warn!(resource, %error, "watch failed; it is tried again"),
    }
}

/// A version that is no longer kept is usually told as an event, after which the watcher lists by
/// itself. Told as the answer to the request it would ask for the same version for ever; the same
/// goes for a version that does not exist yet, because etcd was restored from an older snapshot.
fn must_list_again(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    // A kind that is gone comes back, if at all, with versions that know nothing of this one.
    matches!(status.code, 404 | 410) || causes.any(|cause| cause.reason == "ResourceVersionTooLarge")
}

/// Quick at first, since most breaks are short, then gentle to an API server in trouble.
fn retry() -> impl Backoff {
    let delays = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(15))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    ResetTimerBackoff::new(watcher::ExponentialBackoff::from(delays), Duration::from_secs(60))
}
