//! k6 as the client of the benchmarks: a steady rate of requests to a Gateway or a Service, each answer told with its time
//! as it comes, so that what the data plane does can be laid beside the status.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::{interval, timeout},
};

use super::World;

/// Requests in a second.
pub const RATE: u32 = 200;
/// Between two looks at what has been counted.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// What has been counted when a request was over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// When it was over.
    pub at: Timestamp,
    /// Answers of version v1.
    pub v1: u64,
    /// Answers of version v2.
    pub v2: u64,
    /// Requests without a good answer.
    pub failed: u64,
    /// Requests that k6 did not come to send: the machine was too busy for it.
    pub unsent: u64,
}

/// What k6 calls.
#[derive(Clone, Copy)]
pub enum Address {
    /// A Gateway of this name, by the host name of the scenario, over connections that stay.
    Gateway(&'static str),
    /// Service `shop`, which chooses a pod for each connection: each request has its own.
    Service,
}

/// A running k6.
pub struct K6 {
    child: Child,
    counts: Arc<Mutex<Vec<Count>>>,
    looking: JoinHandle<()>,
    before: Count,
}

impl K6 {
    /// Starts it; comes back when it is served.
    pub async fn start(world: &World, address: Address) -> Self {
        let program = std::env::var("K6").expect("K6, the program: run `make bench-gateway`");
        let cluster = world.cluster.embedded.as_deref().expect("the embedded cluster");
        let root = env!("CARGO_MANIFEST_DIR");
        let (url, new_connections) = match address {
            Address::Gateway(name) => (world.url_of(name).await, false),
            Address::Service => {
                let words = "get service shop -o jsonpath={.spec.clusterIP}:{.spec.ports[0].port}";
                (format!("http://{}/", world.kubectl(words).await.expect_success()), true)
            }
        };
        // Inside the cluster's network: the node's address leads nowhere from outside.
        let mut child = Command::new(format!("{root}/tests/devcluster/devcluster"))
            .args(["--name", cluster, "exec", "--", "env", "K6_CSV_SAVE_INTERVAL=100ms"])
            .args(["K6_CSV_TIME_FORMAT=rfc3339_nano", &program, "run", "--quiet", "--summary-mode=disabled"])
            .args(["--no-usage-report", "--address", "", "--out", "csv=-"])
            .args(["-e", &format!("URL={url}"), "-e", &format!("NAME={}", world.hostname())])
            .args(["-e", &format!("NEW_CONNECTIONS={new_connections}")])
            .args(["-e", &format!("RATE={RATE}"), &format!("{root}/tests/e2e/harness/k6.js")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("k6 starts");
        let counts = Arc::new(Mutex::new(Vec::new()));
        let output = child.stdout.take().expect("a pipe");
        let looking = tokio::spawn(read(output, counts.clone()));
        let mut k6 = Self { child, counts, looking, before: Count::default() };
        // Not counted: what fails until the gateway knows the route.
        let served = async {
            let mut ticks = interval(LOOK);
            while k6.last().v1 < u64::from(RATE) {
                ticks.tick().await;
            }
        };
        timeout(START, served).await.expect("k6 is served");
        k6.before = k6.last();
        k6
    }

    /// What has been counted until now.
    pub fn last(&self) -> Count {
        let last = self.counts.lock().expect("no panic under this lock").last().copied().unwrap_or_default();
        Count { failed: last.failed - self.before.failed, unsent: last.unsent - self.before.unsent, ..last }
    }

    /// All that was read.
    pub fn counts(&self) -> Vec<Count> {
        self.counts.lock().expect("no panic under this lock").clone()
    }

    /// Waits until so many more requests were answered. Says how many of them by v2, and how many in all.
    pub async fn sample(&self, requests: u64) -> (u64, u64) {
        let begun = self.last();
        let mut ticks = interval(LOOK);
        loop {
            ticks.tick().await;
            let now = self.last();
            let (own, all) = (now.v2 - begun.v2, now.v1 + now.v2 - begun.v1 - begun.v2);
            if all >= requests {
                return (own, all);
            }
        }
    }

    /// Waits until v2 alone has answered for a second.
    pub async fn only_v2(&self) {
        let alone = async {
            loop {
                let begun = self.last();
                self.sample(u64::from(RATE)).await;
                if self.last().v1 == begun.v1 {
                    return;
                }
            }
        };
        timeout(START, alone).await.expect("v2 alone answers");
    }

    /// Ends it.
    pub async fn end(mut self) {
        self.looking.abort();
        let _ = self.child.kill().await;
    }
}

/// Reads k6's samples, one in a line: metric, time, value, ...
async fn read(output: ChildStdout, counts: Arc<Mutex<Vec<Count>>>) {
    let mut lines = BufReader::new(output).lines();
    let mut now = Count::default();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut fields = line.split(',');
        let (Some(metric), Some(at)) = (fields.next(), fields.next()) else { continue };
        match metric {
            "v1" => now.v1 += 1,
            "v2" => now.v2 += 1,
            "failed" => now.failed += 1,
            "dropped_iterations" => {
                let count = fields.next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(1.0);
                now.unsent += count as u64;
            }
            _ => continue,
        }
        let Ok(at) = at.parse() else { continue };
        now.at = at;
        counts.lock().expect("no panic under this lock").push(now);
    }
}
