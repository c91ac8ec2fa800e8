//! The operator as a process of this machine: started, asked, ended, and what the kernel counts of it.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::cluster::{Cluster, OPERATORS, run};

const BASE_PORT: u16 = 18_080;

/// See the module.
pub struct Operator {
    child: Child,
    port: u16,
    /// When it was started.
    pub started: Instant,
    /// Which of [`OPERATORS`] it is.
    pub index: usize,
}

impl Operator {
    /// Starts the operator of this index.
    pub fn start(cluster: &Cluster, program: &Path, index: usize) -> Result<Self> {
        let name = OPERATORS[index];
        let port = BASE_PORT + u16::try_from(index)?;
        let log = File::options().create(true).append(true).open(cluster.files.join(format!("{name}.log")))?;
        let mut command = Command::new(program);
        command.args(["run", "--lease-namespace", "default", "--health-addr"]).arg(format!("127.0.0.1:{port}"));
        command.env("KUBECONFIG", cluster.kubeconfig(name)).env("POD_NAME", name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        Ok(Self { child: command.spawn()?, port, started, index })
    }

    /// Starts it and waits until it leads.
    pub async fn leading(cluster: &Cluster, program: &Path) -> Result<Self> {
        let operator = Self::start(cluster, program, 0)?;
        operator.wait("leads", |operator| operator.leads()).await?;
        Ok(operator)
    }

    /// Waits until something is true of it; says how long after its start that was.
    pub async fn wait(&self, what: &str, is: impl Fn(&Self) -> bool) -> Result<Duration> {
        while !is(self) {
            if self.started.elapsed() > Duration::from_secs(120) {
                bail!("{} has not been seen to do this in two minutes: {what}; see its log", OPERATORS[self.index]);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(self.started.elapsed())
    }

    /// Whether it says that it leads.
    pub fn leads(&self) -> bool {
        self.metric("servicerelease_leader") >= 1.0
    }

    /// Whether its cache is complete.
    pub fn ready(&self) -> bool {
        self.ask("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Whether it has looked at so many releases, and has nothing more to look at.
    pub fn has_seen(&self, count: usize) -> bool {
        let Ok(text) = self.ask("/metrics") else { return false };
        let idle = sum(&text, "servicerelease_queue_depth") + sum(&text, "servicerelease_queue_running") == 0.0;
        idle && sum(&text, "servicerelease_reconcile_duration_seconds_count") >= count as f64
    }

    /// The sum of a metric over its labels; 0 if it does not answer.
    pub fn metric(&self, name: &str) -> f64 {
        self.ask("/metrics").map_or(0.0, |text| sum(&text, name))
    }

    fn ask(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Resident memory now, and the most that it was, in MB (1,000,000 bytes).
    pub fn memory(&self) -> Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let megabytes = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no memory in /proc")?;
            let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
            Ok(kibibytes * 1024.0 / 1e6)
        };
        Ok((megabytes("VmRSS:")?, megabytes("VmHWM:")?))
    }

    /// CPU seconds that it has used.
    pub fn cpu(&self) -> Result<f64> {
        cpu(self.child.id())
    }

    /// Kills it as the kernel would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the operator")
    }

    /// Asks it to end.
    pub fn terminate(&self) -> Result<()> {
        run(Command::new("kill").arg(self.child.id().to_string())).map(drop)
    }

    /// Asks it to end, and waits.
    pub fn end(mut self) -> Result<()> {
        self.terminate()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds of a process and all its threads that live.
pub fn cpu(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

fn sum(text: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    };
    text.lines().filter_map(value).sum()
}
