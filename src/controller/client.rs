//! The API client: no retries of its own, every request counted, dead peers noticed.

use std::{sync::Arc, time::Duration};

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
};
use tower::util::option_layer;

use crate::telemetry::{CountRequests, Metrics};

/// After how long without a word the kernel asks whether the API server's host is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often it asks, and how often in vain, before the connection is dead.
const KEEPALIVE_PROBES: (Duration, u32) = (Duration::from_secs(5), 3);

/// A client for a configuration.
///
/// # Errors
/// If certificates or credentials in it cannot be used.
pub fn build(config: Config, metrics: Arc<Metrics>) -> Result<Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(super::calls::TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_PROBES.0));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES.1));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let namespace = config.default_namespace.clone();
    Ok(ClientBuilder::new(http, namespace)
        .with_layer(&CountRequests(metrics))
        .with_layer(&option_layer(config.auth_layer()?))
        .with_layer(&config.extra_headers_layer()?)
        .with_layer(&config.base_uri_layer())
        .build())
}
