//! The processes of pods, which are processes of this machine: the embedded cluster's.

use std::{fs, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::time::{interval, timeout};

use super::kubectl;

const PATIENCE: Duration = Duration::from_secs(60);

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    pid: u32,
    /// Its program and arguments, separated by blanks.
    pub command: String,
}

impl Process {
    /// SIGKILL.
    pub async fn kill(&self) {
        self.signal("KILL").await;
    }

    /// Any signal.
    pub async fn signal(&self, signal: &str) {
        kubectl::run("kill", &["-s", signal, &self.pid.to_string()]).await.expect_success();
    }
}

/// The processes of a pod's containers.
pub fn of(pod: &Pod) -> Vec<Process> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let ids = statuses.into_iter().flatten().filter_map(|status| status.container_id.as_deref());
    let ids: Vec<&str> = ids.filter_map(|id| id.rsplit('/').next()).collect();
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned();
        ids.iter().any(|id| groups.contains(id)).then_some(Process { pid, command })
    })
    .collect()
}

/// The first process of a pod's container: with it all others end. Their numbers here say nothing of their order.
pub fn first(pod: &Pod) -> Option<Process> {
    of(pod).into_iter().find(|process| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        inside.split_whitespace().last() == Some("1")
    })
}

/// Waits until a pod has a process whose command line has this in it.
pub async fn with(pod: &Pod, part: &str) -> Process {
    let looking = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            if let Some(found) = of(pod).into_iter().find(|process| process.command.contains(part)) {
                return found;
            }
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: a process {part}, but {:?}", of(pod)))
}
