//! A layer around the API client: it counts every request by what it was, and does not wait for ever
//! for an answer to begin.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response, Uri};
use tower::{BoxError, Layer, Service};

use super::Metrics;

/// How long an answer may take to begin. Calls have shorter limits of their own; this one is for the
/// LISTs and watches behind the cache.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Clone, Debug)]
pub struct CountRequests(pub Arc<Metrics>);

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

/// A client that counts.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, resource) = describe(request.method(), request.uri());
        let metrics = self.metrics.clone();
        let answer = tokio::time::timeout(FIRST_BYTE, self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await.map_err(BoxError::from).and_then(|answer| answer.map_err(Into::into));
            let code = answer.as_ref().ok().map(|answer| answer.status());
            let code = code.as_ref().map_or("error", |code| code.as_str());
            metrics.request(verb, &resource, code);
            answer
        })
    }
}

/// The verb and the resource of a request, as RBAC has them.
fn describe(method: &Method, uri: &Uri) -> (&'static str, String) {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty()).peekable();
    // A cluster behind a gateway has a path before the API's own.
    while parts.peek().is_some_and(|part| !matches!(*part, "api" | "apis")) {
        parts.next();
    }
    let before_resource = if parts.next() == Some("apis") { 2 } else { 1 };
    let mut parts: Vec<&str> = parts.skip(before_resource).collect();
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let named = parts.len() > 1;
    let resource = match parts.as_slice() {
        [] => "none".to_owned(),
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
    };
    let query = uri.query().unwrap_or_default();
    let watch = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
    let verb = match *method {
        Method::GET if watch => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("GET", "/api/v1/pods?watch=true&resourceVersion=5", "watch", "pods")]
    #[case("GET", "/apis/apps/v1/replicasets?limit=500", "list", "replicasets")]
    #[case("GET", "/apis/apps/v1/namespaces/a/controllerrevisions/x", "get", "controllerrevisions")]
    #[case("PATCH", "/apis/apps/v1/namespaces/a/deployments/x/scale", "patch", "deployments/scale")]
    #[case("POST", "/api/v1/namespaces/a/services?fieldManager=x", "create", "services")]
    #[case("PUT", "/prefix/k8s/apis/coordination.k8s.io/v1/namespaces/a/leases/x", "update", "leases")]
    #[case("GET", "/api/v1/namespaces/a", "get", "namespaces")]
    fn requests_are_named_as_in_rbac(
        #[case] method: Method,
        #[case] uri: Uri,
        #[case] verb: &str,
        #[case] resource: &str,
    ) {
        assert_eq!(describe(&method, &uri), (verb, resource.to_owned()));
    }
}
