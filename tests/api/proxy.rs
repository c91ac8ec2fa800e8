//! A wire between the operator and the API server that can be cut: it loses requests and answers,
//! refuses, hangs, breaks watches, and writes down every write that went through it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{Method, Request, Response, StatusCode},
};
use futures::{StreamExt as _, stream};
use kube::{Client, Config, client::Body as KubeBody};
use tokio::{net::TcpListener, sync::watch};

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and so does its answer.
    Pass,
    /// It is lost on its way.
    LoseRequest,
    /// It arrives; its answer is lost.
    LoseAnswer,
    /// It is answered with an error of the server's, without having arrived.
    Refuse(u16),
    /// Nothing ever comes back.
    Hang,
    /// It arrives; its answer comes in pieces, each so many milliseconds late.
    Late(u64),
    /// A watch is told that what it asks for is no longer kept.
    Expired,
}

/// The code by which an API server refuses a watch from a version that it has not reached.
pub const FROM_THE_FUTURE: u16 = 504;

/// A request as faults are chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
}

impl Call {
    /// Whether it is a watch.
    pub fn watches(&self) -> bool {
        self.query.contains("watch=true")
    }

    /// The version from which a watch asks to be told.
    pub fn resource_version(&self) -> Option<u64> {
        let parts = self.query.split('&').filter(|_| self.watches());
        parts.filter_map(|part| part.strip_prefix("resourceVersion=")).find_map(|version| version.parse().ok())
    }

    /// Whether it changes something, the lease and Events aside.
    pub fn writes(&self) -> bool {
        self.method != Method::GET
            && !self.query.contains("dryRun")
            && !self.path.contains("/leases")
            && !self.path.ends_with("/events")
    }
}

type Choose = Box<dyn FnMut(&Call) -> Fate + Send>;

struct Wire {
    client: Client,
    choose: Mutex<Choose>,
    calls: Mutex<Vec<(Call, Fate, u16)>>,
    cut: watch::Sender<u64>,
}

/// See the module.
pub struct Proxy {
    wire: Arc<Wire>,
    address: SocketAddr,
}

impl Proxy {
    /// A wire without faults.
    pub async fn new(client: Client) -> Self {
        let wire = Arc::new(Wire {
            client,
            choose: Mutex::new(Box::new(|_| Fate::Pass)),
            calls: Mutex::default(),
            cut: watch::channel(0).0,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(carry).with_state(wire.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { wire, address }
    }

    /// The cluster as it is reached by this wire.
    pub fn config(&self) -> Config {
        let mut config = Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        config
    }

    /// Chooses what becomes of every request from now on.
    pub fn fate(&self, choose: impl FnMut(&Call) -> Fate + Send + 'static) {
        *self.wire.choose.lock().unwrap() = Box::new(choose);
    }

    /// Ends every answer that is still coming: all watches break.
    pub fn cut(&self) {
        self.wire.cut.send_modify(|cuts| *cuts += 1);
    }

    /// What was asked so far, what became of it, and the status that it was answered with.
    pub fn calls(&self) -> Vec<(Call, Fate, u16)> {
        self.wire.calls.lock().unwrap().clone()
    }

    /// The writes that the API server carried out.
    pub fn writes(&self) -> Vec<Call> {
        let arrived = |fate| matches!(fate, Fate::Pass | Fate::LoseAnswer | Fate::Late(_));
        let done = |fate, code| (200..300).contains(&code) && arrived(fate);
        let calls = self.calls().into_iter().filter(|(call, fate, code)| call.writes() && done(*fate, *code));
        calls.map(|(call, ..)| call).collect()
    }
}

async fn carry(State(wire): State<Arc<Wire>>, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let call = Call {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    };
    let fate = (wire.choose.lock().unwrap())(&call);
    let note = {
        let wire = wire.clone();
        move |code: u16| wire.calls.lock().unwrap().push((call, fate, code))
    };
    match fate {
        Fate::Pass | Fate::LoseAnswer | Fate::Late(_) => {}
        Fate::Expired => {
            note(200);
            return expired();
        }
        Fate::LoseRequest => {
            note(0);
            return broken();
        }
        Fate::Refuse(code) => {
            note(code);
            return refusal(code);
        }
        Fate::Hang => {
            note(0);
            return std::future::pending().await;
        }
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    parts.headers.remove("host");
    parts.headers.remove("content-length");
    let request = Request::from_parts(parts, KubeBody::from(body.to_vec()));
    let client = wire.client.clone();
    // What was sent arrives, also if the operator is gone by then.
    let sent = tokio::spawn(async move {
        let answer = client.send(request).await;
        note(answer.as_ref().map_or(502, |answer| answer.status().as_u16()));
        answer
    });
    let Ok(answer) = sent.await.unwrap() else {
        return refusal(502);
    };
    if fate == Fate::LoseAnswer {
        return broken();
    }
    let mut cut = wire.cut.subscribe();
    let cut = async move {
        let _ = cut.changed().await;
    };
    let late = match fate {
        Fate::Late(millis) => Duration::from_millis(millis),
        _ => Duration::ZERO,
    };
    answer.map(|body| {
        let pieces = Body::new(body).into_data_stream().then(move |piece| async move {
            tokio::time::sleep(late).await;
            piece
        });
        Body::from_stream(pieces.take_until(Box::pin(cut)))
    })
}

/// What an API server sends to a watch that asks for a version that was compacted.
fn expired() -> Response<Body> {
    let status = serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old",
    });
    let event = serde_json::json!({"type": "ERROR", "object": status});
    let mut answer = Response::new(Body::from(format!("{event}\n")));
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}

/// An answer that ends in its middle.
fn broken() -> Response<Body> {
    let end = std::io::Error::other("the wire was cut");
    Response::new(Body::from_stream(stream::iter([Err::<Vec<u8>, _>(end)])))
}

fn refusal(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let mut status = serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "injected",
    });
    if code == FROM_THE_FUTURE {
        status["details"] = serde_json::json!({"causes": [{"reason": "ResourceVersionTooLarge"}]});
    }
    let mut answer = Response::new(Body::from(status.to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}
