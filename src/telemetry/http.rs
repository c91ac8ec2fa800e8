//! The health server: /healthz, /readyz, /metrics.

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tracing::info;

use super::metrics::{Metrics, Reading};

/// What the health server asks the rest of the process.
pub trait Health: Send + Sync + 'static {
    /// The watches that have not delivered yet; ready when there is none. A standby is ready too.
    fn missing(&self) -> Vec<String>;
    /// Gauges as they are now.
    fn reading(&self) -> Reading;
}

#[derive(Clone)]
struct Parts {
    health: Arc<dyn Health>,
    metrics: Arc<Metrics>,
}

/// Serves until `stop`.
///
/// # Errors
/// If the address cannot be had.
pub async fn serve(
    address: SocketAddr,
    health: Arc<dyn Health>,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(Parts { health, metrics });
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn ready(State(parts): State<Parts>) -> Response {
    let missing = parts.health.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("waiting for the first LIST of {}\n", missing.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn show_metrics(State(parts): State<Parts>) -> Response {
    match parts.metrics.text(&parts.health.reading()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
