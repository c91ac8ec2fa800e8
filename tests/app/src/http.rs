//! What both servers of this binary (the application's and the report's) need of HTTP.

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::net::TcpListener;

/// The largest body that is read into memory.
const MAX_BODY: usize = 64 << 10;

pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, body.into(), "text/plain; charset=utf-8")
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(status, body.into(), "application/json"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn with_type(status: StatusCode, body: Bytes, content_type: &'static str) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Reads a request's whole body.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, String> {
    let body = Limited::new(body, MAX_BODY).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

/// Listens on all addresses; port 0 takes a free one.
pub(crate) async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await;
    listener.with_context(|| format!("cannot listen on port {port}"))
}
