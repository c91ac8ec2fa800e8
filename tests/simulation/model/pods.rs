//! Pods and the kubelet that runs them: when they become ready, how they fail, how they go.

use servicerelease::{api::Timestamp, engine::Ended};

use super::catalogue::{Quality, quality};

/// How long a pod that was told to go still serves.
pub const GRACE: i64 = 3_000;

/// Whose pod it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A ReplicaSet of the release, by name and revision.
    Set { name: String, revision: String },
    /// The adopted Deployment.
    Deployment,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub id: u64,
    pub owner: Owner,
    pub letter: char,
    pub min_ready: i64,
    pub created: i64,
    pub ready: bool,
    pub ready_since: i64,
    /// It was ready, and its readiness probe fails since.
    pub lost_readiness: bool,
    /// The last moment at which it was truly available.
    pub last_available: Option<i64>,
    /// When its state changes next by itself.
    pub next_change: Option<i64>,
    pub terminating_since: Option<i64>,
    /// It was evicted, drained, or lost with its node.
    pub disrupted: bool,
    /// Phase Failed: it is over, and a controller replaces it.
    pub failed: bool,
    pub waiting: Option<&'static str>,
    pub restarts: i32,
    pub ended: Option<Ended>,
    pub unschedulable: bool,
    /// It suffers from what a user did behind the operator's back. Nothing that Kubernetes knows:
    /// for the checks.
    pub excused: bool,
}

impl Pod {
    pub fn new(id: u64, owner: Owner, letter: char, min_ready: i64, now: i64) -> Self {
        let mut pod = Self {
            id,
            owner,
            letter,
            min_ready,
            created: now,
            ready: false,
            ready_since: now,
            lost_readiness: false,
            last_available: None,
            next_change: None,
            terminating_since: None,
            disrupted: false,
            failed: false,
            waiting: Some("ContainerCreating"),
            restarts: 0,
            ended: None,
            unschedulable: false,
            excused: false,
        };
        pod.next_change = pod.first_change(now);
        pod
    }

    fn first_change(&self, now: i64) -> Option<i64> {
        let jitter = i64::try_from(self.id % 3).unwrap_or(0) * 700;
        match quality(self.letter) {
            Quality::Slow => Some(now + 25_000),
            Quality::Good => Some(now + 1_000 + jitter),
            _ => Some(now + 500 + jitter),
        }
    }

    /// Neither told to go nor over.
    pub fn active(&self) -> bool {
        self.terminating_since.is_none() && !self.failed
    }

    pub fn available(&self, now: i64) -> bool {
        self.active() && self.ready && now - self.ready_since >= self.min_ready
    }

    /// Whether it answers requests that reach it: also while it terminates.
    pub fn serves(&self, now: i64) -> bool {
        self.ready && !self.failed && self.terminating_since.is_none_or(|since| now - since <= GRACE)
    }

    pub fn name(&self) -> String {
        format!("pod-{}", self.id)
    }

    pub fn revision(&self) -> Option<&str> {
        match &self.owner {
            Owner::Set { revision, .. } => Some(revision),
            Owner::Deployment => None,
        }
    }

    /// Lets the kubelet do what is due. True if something changed.
    pub fn advance(&mut self, now: i64) -> bool {
        let mut changed = false;
        while let Some(due) = self.next_change.filter(|due| *due <= now) {
            self.next_change = None;
            self.change(due, now);
            changed = true;
        }
        if self.available(now) {
            self.last_available = Some(now);
        }
        changed
    }

    fn change(&mut self, due: i64, now: i64) {
        if self.terminating_since.is_some() || self.failed {
            return;
        }
        match quality(self.letter) {
            Quality::Good | Quality::Slow => self.become_ready(due),
            Quality::NeverReady => self.waiting = None,
            Quality::Unschedulable => self.unschedulable = true,
            Quality::InvalidImage => self.waiting = Some("InvalidImageName"),
            Quality::NeverPull => self.waiting = Some("ErrImageNeverPull"),
            Quality::ConfigError => self.waiting = Some("CreateContainerConfigError"),
            Quality::LateConfig => {
                if now - self.created < 10_000 {
                    self.waiting = Some("CreateContainerConfigError");
                    self.next_change = Some(self.created + 10_000);
                } else {
                    self.become_ready(due);
                }
            }
            Quality::ImagePull => {
                let back_off = self.waiting == Some("ErrImagePull");
                self.waiting = Some(if back_off { "ImagePullBackOff" } else { "ErrImagePull" });
                self.next_change = Some(now + if back_off { 8_000 } else { 2_000 });
            }
            Quality::CrashLoop => self.crash(now, false),
            Quality::CrashAfterReady | Quality::OutOfMemory => {
                if self.ready {
                    self.crash(now, quality(self.letter) == Quality::OutOfMemory);
                } else {
                    self.become_ready(due);
                    self.next_change = Some(now + 6_000);
                }
            }
            Quality::Restarts => {
                if self.ready {
                    self.restart(now);
                } else {
                    self.become_ready(due);
                    self.next_change = Some(now + 6_000);
                }
            }
            Quality::LosesReadiness => {
                if self.ready {
                    (self.ready, self.lost_readiness) = (false, true);
                } else if self.waiting.is_some() {
                    self.become_ready(due);
                    self.next_change = Some(now + 20_000);
                }
            }
            Quality::Refused => {}
        }
    }

    fn become_ready(&mut self, due: i64) {
        self.waiting = None;
        if !self.ready {
            (self.ready, self.lost_readiness) = (true, false);
            self.ready_since = due;
        }
    }

    /// Its container ends by itself, and the kubelet backs off before it starts it again.
    pub fn crash(&mut self, now: i64, out_of_memory: bool) {
        (self.ready, self.lost_readiness) = (false, false);
        self.restarts += 1;
        self.waiting = Some("CrashLoopBackOff");
        self.ended = Some(Ended {
            reason: if out_of_memory { "OOMKilled" } else { "Error" }.into(),
            exit_code: if out_of_memory { 137 } else { 1 },
            signal: out_of_memory.then_some(9),
            at: Some(Timestamp::from_millis(now)),
        });
        self.next_change = Some(now + 10_000);
    }

    /// Its container ends after a long time, and is started again at once.
    fn restart(&mut self, now: i64) {
        self.crash(now, false);
        self.waiting = None;
        self.next_change = Some(now + 1_000);
    }

    /// It fails its readiness probe for a while.
    pub fn lose_readiness(&mut self, now: i64) {
        if self.ready {
            (self.ready, self.lost_readiness) = (false, true);
            self.next_change = Some(now + 7_000);
        }
    }

    pub fn terminate(&mut self, now: i64) {
        if self.terminating_since.is_none() {
            self.terminating_since = Some(now);
            self.next_change = None;
        }
    }
}
