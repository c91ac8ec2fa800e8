//! A fake API server for tests: objects by path, lists, watches with resource versions, creates.
//! Refusals can be ordered, and every request is remembered.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::connect::Cluster;

type Answer = (u16, Value);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    events: Vec<(u64, String, Value)>,
    version: u64,
    refusals: Vec<(&'static str, String, Answer)>,
    requests: Vec<String>,
    created: Vec<Value>,
}

/// The server.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

/// Namespace of all tests.
pub const NAMESPACE: &str = "production";
const GROUP: &str = "/apis/servicerelease.io/v1alpha1/namespaces/production";

/// Path of a release.
pub fn release_path(name: &str) -> String {
    format!("{GROUP}/servicereleases/{name}")
}

/// Path of a command.
pub fn command_path(name: &str) -> String {
    format!("{GROUP}/releasecommands/{name}")
}

/// Path of a Deployment.
pub fn deployment_path(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")
}

impl Fake {
    /// An empty server, and the way to it.
    pub fn start() -> (Self, Cluster) {
        let fake = Self { state: Arc::default(), changed: Arc::new(watch::channel(0).0) };
        let (service, mut handle) = tower_test::mock::pair::<http::Request<Body>, http::Response<Body>>();
        let server = fake.clone();
        tokio::spawn(async move {
            while let Some((request, respond)) = handle.next_request().await {
                let server = server.clone();
                tokio::spawn(async move { respond.send_response(server.answer(request).await) });
            }
        });
        let client = Client::new(service, NAMESPACE);
        let cluster = Cluster { client, namespace: NAMESPACE.into(), server: "https://fake".into() };
        (fake, cluster)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Stores an object, new or changed.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        object["metadata"]["namespace"] = json!(NAMESPACE);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let kind = if state.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        state.events.push((version, path.to_owned(), json!({"type": kind, "object": object})));
        state.objects.insert(path.to_owned(), object);
        drop(state);
        self.changed.send_replace(version);
    }

    /// Deletes an object.
    pub fn delete(&self, path: &str) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        if let Some(object) = state.objects.remove(path) {
            state.events.push((version, path.to_owned(), json!({"type": "DELETED", "object": object})));
        }
        drop(state);
        self.changed.send_replace(version);
    }

    /// Answers requests of a method whose path contains a text with an error.
    pub fn refuse(&self, method: &'static str, path: &str, code: u16, message: &str) {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
        self.lock().refusals.push((method, path.to_owned(), (code, status)));
    }

    /// What was created.
    pub fn created(&self) -> Vec<Value> {
        self.lock().created.clone()
    }

    /// Method and path of all requests.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// Waits until somebody watches objects of a kind (plural, in lower case).
    pub async fn watched(&self, kind: &str) {
        let mut changed = self.changed.subscribe();
        let path = format!("/{kind}?");
        while !self.requests().iter().any(|request| request.contains(&path) && request.contains("watch=")) {
            changed.changed().await.unwrap();
        }
    }

    async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let method = parts.method.as_str().to_owned();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        let refusal = {
            let mut state = self.lock();
            state.requests.push(format!("{method} {path}?{query}"));
            let refusals = state.refusals.iter();
            refusals.filter(|(of, text, _)| *of == method && path.contains(text)).map(|(.., it)| it.clone()).next()
        };
        self.changed.send_modify(|_| {});
        let (code, value) = match refusal {
            Some(refusal) => refusal,
            None if query.contains("watch=") => return self.watch(&path, &query).await,
            None if method == "POST" => self.create(&path, &body.collect_bytes().await.unwrap()),
            None => self.get(&path, &query),
        };
        respond(code, value.to_string())
    }

    fn get(&self, path: &str, query: &str) -> Answer {
        let state = self.lock();
        if let Some(object) = state.objects.get(path) {
            return (200, object.clone());
        }
        let last = path.rsplit('/').next().unwrap();
        if !matches!(
            last,
            "servicereleases" | "releasecommands" | "deployments" | "pods" | "replicasets" | "controllerrevisions"
        ) {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
                "message": format!("{last} not found"), "details": {"name": last}});
            return (404, status);
        }
        let items: Vec<&Value> =
            state.objects.iter().filter(|(of, _)| selects(path, query, of)).map(|(_, it)| it).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": state.version.to_string()}, "items": items});
        (200, list)
    }

    fn create(&self, path: &str, body: &[u8]) -> Answer {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        if path.ends_with("selfsubjectreviews") {
            object["status"] = json!({"userInfo": {"username": "jane"}});
            return (201, object);
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.lock().created.push(object.clone());
        self.put(&format!("{path}/{name}"), object.clone());
        (201, object)
    }

    /// Answers as soon as there is something newer; the client asks again for more.
    async fn watch(&self, path: &str, query: &str) -> http::Response<Body> {
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).unwrap_or("0");
        let since: u64 = since.parse().unwrap();
        let mut changed = self.changed.subscribe();
        loop {
            let lines: String = {
                let state = self.lock();
                let newer = state.events.iter().filter(|(version, of, _)| *version > since && selects(path, query, of));
                newer.map(|(.., event)| format!("{event}\n")).collect()
            };
            if !lines.is_empty() {
                return respond(200, lines);
            }
            changed.changed().await.unwrap();
        }
    }
}

/// Whether a list or watch is about the object of a path.
fn selects(collection: &str, query: &str, path: &str) -> bool {
    let everywhere = |path: &str| path.replace(&format!("/namespaces/{NAMESPACE}"), "");
    let name = path.strip_prefix(collection).or_else(|| {
        (!collection.contains("/namespaces/"))
            .then(|| path.rsplit('/').next())
            .flatten()
            .filter(|_| everywhere(path).starts_with(collection))
    });
    let Some(name) = name.map(|name| name.trim_start_matches('/')) else { return false };
    let wanted = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
    wanted.is_none_or(|wanted| wanted == name)
}

fn respond(code: u16, body: String) -> http::Response<Body> {
    http::Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap()
}
