//! An API server in between: forwards everything to the real one, counts the writes of a release, and
//! does harm at each of them. Leases, Events and dry runs are not counted.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use futures::{future::BoxFuture, stream};
use kube::Client;
use tokio::{net::TcpListener, task::JoinHandle};

/// What happens at each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nothing.
    Nothing,
    /// The operator is killed before the write arrives; the next attempt gets through.
    KillBefore,
    /// The operator is killed when the write was carried out, before it hears of it.
    KillAfter,
    /// The write is carried out, its answer is lost.
    LoseAnswer,
}

/// Kills the operator and comes back when it is dead.
pub type Kill = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A running proxy.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Between>,
    serving: JoinHandle<()>,
}

struct Between {
    client: Client,
    harm: Harm,
    kill: Kill,
    attempts: AtomicUsize,
    harmed: AtomicUsize,
    /// A line for each write.
    log: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    /// Starts one in front of the cluster of a client.
    pub async fn start(client: Client, harm: Harm, kill: Kill, log: PathBuf) -> Self {
        let state =
            Arc::new(Between { client, harm, kill, attempts: AtomicUsize::new(0), harmed: AtomicUsize::new(0), log });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new().fallback(pass).with_state(state.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, state, serving }
    }

    /// How many writes met with harm.
    pub fn harmed(&self) -> usize {
        self.state.harmed.load(Ordering::SeqCst)
    }
}

impl Between {
    fn tell(&self, line: &str) {
        let file = std::fs::File::options().create(true).append(true).open(&self.log);
        let _ = file.and_then(|mut file| writeln!(file, "write {line}"));
    }

    /// In a task of its own: this request is dropped when the connection of the killed process ends.
    async fn kill(&self) {
        let _ = tokio::spawn((self.kill)()).await;
    }
}

fn is_write_of_a_release(request: &Request) -> bool {
    let path = request.uri().path();
    let dry_run = request.uri().query().is_some_and(|query| query.contains("dryRun"));
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    !reads && !dry_run && !path.contains("/leases") && !path.contains("/events")
}

async fn pass(State(between): State<Arc<Between>>, request: Request) -> Response {
    if between.harm == Harm::Nothing || !is_write_of_a_release(&request) {
        return forward(&between.client, request).await;
    }
    let what = format!("{} {}", request.method(), request.uri().path());
    let attempt = between.attempts.fetch_add(1, Ordering::SeqCst);
    let harmless = between.harm == Harm::KillBefore && attempt % 2 == 1;
    if !harmless {
        between.harmed.fetch_add(1, Ordering::SeqCst);
    }
    if between.harm == Harm::KillBefore && !harmless {
        between.tell(&format!("{what}: killed before it"));
        between.kill().await;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let answer = forward(&between.client, request).await;
    between.tell(&format!("{what}: {}", answer.status()));
    match between.harm {
        Harm::Nothing | Harm::KillBefore => answer,
        Harm::KillAfter => {
            between.kill().await;
            answer
        }
        Harm::LoseAnswer => cut(),
    }
}

/// An answer whose connection ends before it is complete.
fn cut() -> Response {
    let lost = stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("lost")) });
    Body::from_stream(lost).into_response()
}

async fn forward(client: &Client, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    // The administrator's own credentials and the real server's name take the place of these.
    head.headers.remove(http::header::HOST);
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let request = http::Request::from_parts(head, kube::client::Body::from(body));
    match client.send(request).await {
        Ok(answer) => answer.map(Body::new).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
