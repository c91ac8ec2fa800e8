//! A Prometheus that is not to be trusted: it answers every query in the way that a scenario wants, from this machine.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// How a query is answered.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    /// Not at all; the connection stays open.
    Never,
    /// With one byte after the other, for ever.
    Drip,
    /// With more than anybody wants to read.
    Huge,
    /// With a page for people.
    Page,
    /// With half of an answer.
    Half,
    /// With an error of the server's own words.
    Error,
    /// With the status code 503.
    Unavailable,
    /// With the address of somebody else.
    Elsewhere,
    /// With no series.
    Nothing,
    /// With three series.
    Several,
    /// With this value.
    Value(&'static str),
    /// With this value, and with status code 503, in turns.
    InTurns(&'static str),
}

/// A running server.
pub struct Liar {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mind>,
    serving: JoinHandle<()>,
}

struct Mind {
    lie: Mutex<Lie>,
    asked: AtomicUsize,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Liar {
    /// Starts one.
    pub async fn start(lie: Lie) -> Self {
        let state = Arc::new(Mind { lie: Mutex::new(lie), asked: AtomicUsize::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new().fallback(answer).with_state(state.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, state, serving }
    }

    /// Answers like this from now on.
    pub fn tell(&self, lie: Lie) {
        *self.state.lie.lock().expect("no panic under this lock") = lie;
    }
}

async fn answer(State(mind): State<Arc<Mind>>) -> Response {
    let turn = mind.asked.fetch_add(1, Ordering::SeqCst);
    let lie = *mind.lie.lock().expect("no panic under this lock");
    let chunks = |chunk: &'static str| stream::repeat_with(move || Ok::<_, Infallible>(chunk));
    match lie {
        Lie::Never => std::future::pending().await,
        Lie::Drip => {
            let slowly = chunks(" ").then(|chunk| async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                chunk
            });
            Body::from_stream(slowly).into_response()
        }
        Lie::Huge => {
            static CHUNK: [u8; 1 << 16] = [b' '; 1 << 16];
            let text = std::str::from_utf8(&CHUNK).expect("blanks");
            Body::from_stream(chunks(text).take(1 << 14)).into_response()
        }
        Lie::Page => "<html><body>Please log in</body></html>".into_response(),
        Lie::Half => r#"{"status":"success","data":{"resultType":"vec"#.into_response(),
        Lie::Error => {
            let told = json!({"status": "error", "errorType": "execution", "error": "too many samples"});
            (StatusCode::UNPROCESSABLE_ENTITY, told.to_string()).into_response()
        }
        Lie::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Lie::InTurns(_) if turn % 2 == 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Lie::Elsewhere => (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:1/")]).into_response(),
        Lie::Nothing => vector(&[]),
        Lie::Several => vector(&["0", "0", "0"]),
        Lie::Value(value) | Lie::InTurns(value) => vector(&[value]),
    }
}

fn vector(values: &[&str]) -> Response {
    let series: Vec<Value> = values.iter().map(|value| json!({"metric": {}, "value": [0, value]})).collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": series}}).to_string().into_response()
}
