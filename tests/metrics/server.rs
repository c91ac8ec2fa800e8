//! A Prometheus of a test's own on this machine, what it scrapes, and how the operator asks it.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, extract::State};
use serde_json::{Value, json};
use servicerelease::{
    engine::{Measure, Reply},
    metrics::Providers,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has come.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until there is something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come within {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// What is scraped.
pub struct Exporter {
    address: SocketAddr,
    page: Arc<Mutex<String>>,
    serving: JoinHandle<()>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Exporter {
    /// Starts one with this page.
    pub async fn start(page: String) -> Self {
        let page = Arc::new(Mutex::new(page));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let answer = |State(page): State<Arc<Mutex<String>>>| async move { page.lock().expect("a page").clone() };
        let router = Router::new().fallback(answer).with_state(page.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, page, serving }
    }

    /// Shows another page from now on.
    pub fn show(&self, page: String) {
        *self.page.lock().expect("a page") = page;
    }
}

/// A running Prometheus, which ends with the test.
pub struct Prometheus {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes each second, with this web.config.file if there is one.
    pub fn start(exporter: &Exporter, web: Option<&Value>) -> Self {
        let program = std::env::var("PROMETHEUS").expect("PROMETHEUS: run `make metrics`");
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, content: &Value| {
            let path = directory.path().join(name);
            std::fs::write(&path, content.to_string()).expect("a file");
            path.display().to_string()
        };
        let scrape = json!({"job_name": "apps", "honor_labels": true,
            "static_configs": [{"targets": [exporter.address.to_string()]}]});
        let config = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]});
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", write("prometheus.json", &config)));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        if let Some(web) = web {
            command.arg(format!("--web.config.file={}", write("web.json", web)));
        }
        let log = std::fs::File::create(directory.path().join("log")).expect("a file");
        let process = command.stdout(Stdio::null()).stderr(log).spawn().expect("Prometheus starts");
        Self { process, port, _directory: directory }
    }

    /// Where it listens.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The providers of an operator to which this one is `default`, set up with more than its address.
    pub fn providers(&self, scheme: &str, more: Value) -> Providers {
        let mut provider = json!({"prometheus": format!("{scheme}://{}", self.host())});
        provider.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"default": provider}).to_string().parse().expect("providers")
    }
}

/// The value of a query.
pub async fn value(providers: &Providers, query: &str) -> Reply {
    providers.measure("default", &Measure::Value { query: query.into(), requests: None }).await
}

/// A file beside the tests.
pub fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics").join(name).display().to_string()
}
