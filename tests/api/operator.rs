//! The operator under test: in this process, where it can be given another wire or another mind, or
//! as a process of its own, where it can be killed and stopped.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use kube::Config;
use servicerelease::{
    controller::{self, Options, reconcile::Decide},
    engine,
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::cluster::{Cluster, SECOND, until, within};

/// An operator in this process, for one namespace and without a lease.
pub struct Operator {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), controller::Error>>,
    pub health: SocketAddr,
}

impl Operator {
    pub async fn start(cluster: &Cluster, config: Config) -> Self {
        Self::start_as(cluster, config, |_| {}).await
    }

    pub async fn start_with(cluster: &Cluster, config: Config, decide: Decide) -> Self {
        Self::start_as(cluster, config, |options| options.decide = decide).await
    }

    /// With some options changed.
    pub async fn start_as(cluster: &Cluster, config: Config, change: impl FnOnce(&mut Options)) -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            servicerelease::telemetry::init_logs(servicerelease::telemetry::LogFormat::Text);
        }
        let health = free_address();
        let mut options = Options {
            config,
            namespaces: vec![cluster.namespace.clone()],
            concurrency: 16,
            lease: None,
            health: Some(health),
            instance: "test".into(),
            routers: Default::default(),
            providers: Default::default(),
            runner: None,
            allowed_hosts: Default::default(),
            decide: Arc::new(engine::decide),
        };
        change(&mut options);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(controller::run(options, stopped));
        ready(health).await;
        Self { stop: Some(stop), task, health }
    }

    /// Ends it as a crash does: nothing is finished.
    pub fn crash(&self) {
        self.task.abort();
    }

    /// Ends it as SIGTERM does.
    pub async fn stop(mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        within(30 * SECOND, "the operator's end", &mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An operator as a process of its own, with a lease in the test's namespace.
pub struct Process {
    child: Child,
    pub health: SocketAddr,
}

impl Process {
    pub fn start(cluster: &Cluster, name: &str) -> Self {
        let health = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_service-release-operator"));
        command
            .args(["run", "--log-format", "text", "--namespaces", &cluster.namespace])
            .args(["--lease-namespace", &cluster.namespace, "--identity", name])
            .args(["--health-addr", &health.to_string()]);
        if std::env::var_os("RUST_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        let child = command.spawn().expect("the operator's binary");
        Self { child, health }
    }

    /// Sends a signal to this process, and to no other.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("kill");
        assert!(sent.success(), "kill {signal} {id}");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = std::sync::Mutex::new(&mut self.child);
        let ended = async || child.lock().unwrap().try_wait().expect("wait");
        until(30 * SECOND, ended).await.expect("the process ends")
    }

    pub async fn ready(&self) {
        ready(self.health).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ready(health: SocketAddr) {
    let ready = async || get(health, "/readyz").await.filter(|(code, _)| *code == 200);
    until(30 * SECOND, ready).await.expect("the operator is ready");
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks a health server.
pub async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The API requests that an operator has counted, without those of watches and the lease.
pub async fn requests(address: SocketAddr) -> Vec<String> {
    let (_, text) = get(address, "/metrics").await.expect("metrics");
    let counted = text.lines().filter(|line| line.starts_with("servicerelease_api_requests_total"));
    let own = |line: &&str| line.contains("verb=\"watch\"") || line.contains("resource=\"leases\"");
    counted.filter(|line| !own(line)).map(str::to_owned).collect()
}

/// One number of an operator's metrics, summed over its labels.
pub async fn metric(address: SocketAddr, name: &str) -> f64 {
    let (_, text) = get(address, "/metrics").await.expect("metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#') && line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
