//! What happens to workers whose way to the database breaks: it is restarted, the role's password changes, or the lock is not
//! to be had in time. What they report then is what src/database reports.

use servicerelease::{
    api::WorkOutcome,
    engine::{Report, Task},
};

use crate::{model::cluster::Cluster, rng};

use super::{Fate, LOOK, Next, Server, Stage, Worker, report};

/// How often the connection may be lost during one file.
pub const MOST_LOSSES: u32 = 2;
/// How long a settlement of files waits for the lock, a restoration, and a command's client that has to note its end.
const SETTLED: i64 = 15_000;
const RESTORED: i64 = 30_000;
const NOTED: i64 = 60_000;

/// The role's password and that in the Secret, each by its number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passwords {
    role: u32,
    secret: u32,
}

/// What is done about the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The role gets another one, and the Secret is not told.
    Role,
    /// The Secret has the role's.
    Secret,
    /// Both at once.
    Both,
}

/// Why a worker goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Refused,
    Locked,
}

/// Whether a new connection of a worker's is refused.
pub(super) fn is_refused(server: &Server, worker: &Worker) -> bool {
    worker.started.is_some_and(|(_, password)| password != server.passwords.role)
}

impl Server {
    pub fn rotate(&mut self, how: Rotation) {
        let Passwords { role, secret } = &mut self.passwords;
        if how != Rotation::Secret {
            *role += 1;
        }
        if how != Rotation::Role {
            *secret = *role;
        }
    }

    /// A worker connects, or waits for the lock. Some if that is its end.
    pub(super) fn connect(&mut self, worker: &mut Worker, index: usize, at: i64) -> Option<Report> {
        let secret = self.passwords.secret;
        let (started, _) = *worker.started.get_or_insert((at, secret));
        if is_refused(self, worker) {
            return Some(self.ended(worker, Why::Refused));
        }
        if !worker.locks() || !self.is_locked(index) {
            worker.waits = None;
            (worker.stage, worker.at) = (Stage::Working, at + super::DEED);
            return None;
        }
        let since = *worker.waits.get_or_insert(at);
        if self.awaits_orphan(index) && since == at {
            self.hit("a worker waits for a command whose wrapper is gone");
        }
        if self.foreign.as_ref().is_some_and(|foreign| foreign.holds) && since == at {
            self.hit("a worker waits for another release");
        }
        worker.at = at + LOOK;
        let late = match worker.task() {
            Some(Task::SettleSql(_)) => at - since > SETTLED,
            Some(Task::Restore { .. }) => at - since > RESTORED,
            Some(Task::Wrap(_)) if worker.begun => at - since > NOTED,
            _ => worker.own_time().is_some_and(|most| at - started > most),
        };
        late.then(|| self.ended(worker, Why::Locked))
    }

    /// What is reported where there is no way on.
    fn ended(&mut self, worker: &Worker, why: Why) -> Report {
        let words = match why {
            Why::Refused => "password authentication failed",
            Why::Locked => "somebody is migrating this database and has not ended in time",
        };
        self.hit(match (why, worker.begun, worker.task()) {
            (Why::Refused, true, _) => "refused: what was begun",
            (Why::Refused, _, Some(Task::Settle(_) | Task::SettleSql(_))) => "refused: a settlement",
            (Why::Refused, ..) if worker.makes_scratch() && self.scratch => "refused: over a scratch database",
            (Why::Refused, _, Some(task)) if changes(task) => "refused: a change",
            (Why::Refused, ..) => "refused: what only reads",
            (Why::Locked, true, _) => "locked out: what was begun",
            (Why::Locked, _, Some(Task::Settle(_) | Task::SettleSql(_))) => "locked out: a settlement",
            (Why::Locked, ..) => "locked out: a change",
        });
        let outcome = match worker.task() {
            Some(Task::Settle(_) | Task::SettleSql(_)) => WorkOutcome::Unknown,
            Some(task) if changes(task) && worker.begun => WorkOutcome::Unknown,
            Some(Task::Backup { .. } | Task::Rehearse { .. } | Task::CleanUp { .. }) | None => WorkOutcome::Failed,
            Some(_) => WorkOutcome::NotBegun,
        };
        // Whether there is something of an earlier one it cannot say.
        let left = worker.makes_scratch() || matches!(worker.task(), Some(Task::CleanUp { .. }));
        let unread = outcome == WorkOutcome::NotBegun;
        Report { left, unread, ..report(outcome, words) }
    }

    /// A worker's connection is lost. Some if that is its end; else it connects anew.
    fn lose(&mut self, worker: &mut Worker, right: bool, at: i64) -> Option<Report> {
        let even = rng::dice(&format!("{}/{}/lost", worker.uid, worker.deeds)).is_multiple_of(2);
        let working = worker.stage == Stage::Working;
        let task = worker.task().cloned();
        self.hit(match &task {
            _ if !working => "restarted: a worker that waits for the lock",
            Some(Task::Migrate(_)) => "restarted: files",
            Some(Task::Wrap(_)) => "restarted: a command",
            Some(Task::Down { .. }) => "restarted: down files",
            Some(Task::Restore { .. }) => "restarted: a restoration",
            Some(Task::Settle(_) | Task::SettleSql(_)) => "restarted: a settlement",
            Some(Task::Backup { .. } | Task::Rehearse { .. }) if self.scratch => "restarted: a scratch database",
            _ => "restarted: what only reads",
        });
        let lost = |outcome| Some(report(outcome, "the connection is lost"));
        match &task {
            Some(Task::Migrate(_) | Task::Down { .. }) => {
                if working {
                    if even {
                        // It was committed, and nobody heard of it.
                        let fate = std::mem::replace(&mut worker.fate, Fate::Well);
                        let ended = matches!(self.work(worker, right), Next::Ended(_));
                        (worker.fate, worker.deeds) = (fate, worker.deeds - u32::from(ended));
                    }
                    (worker.begun, worker.losses) = (true, if even { 1 } else { worker.losses + 1 });
                }
                worker.connects_anew(at)
            }
            Some(Task::Wrap(_)) if working && worker.deeds > 0 => {
                if worker.deeds == 1 {
                    // What the command had done may be in effect, or not.
                    if even {
                        drop(self.work(worker, right))
                    } else {
                        worker.deeds += 1
                    }
                    worker.fate = Fate::Fails;
                }
                worker.begun = true;
                worker.connects_anew(at)
            }
            Some(Task::Settle(_) | Task::SettleSql(_)) => lost(WorkOutcome::Unknown),
            // Between two names of it, or before that.
            Some(Task::Restore { .. }) if working && even => lost(WorkOutcome::Unknown),
            Some(Task::Backup { .. } | Task::Rehearse { .. }) => {
                // One that it has not looked for yet it still clears away, once the server is there.
                let left = worker.deeds > 0 || is_refused(self, worker);
                self.scratch &= left;
                Some(Report { left, ..report(WorkOutcome::Failed, "the connection is lost") })
            }
            Some(Task::CleanUp { .. }) => Some(Report { left: true, ..report(WorkOutcome::Failed, "it is lost") }),
            None => lost(WorkOutcome::Failed),
            Some(_) => Some(Report { unread: true, ..report(WorkOutcome::NotBegun, "the connection is lost") }),
        }
    }
}

impl Worker {
    fn connects_anew(&mut self, at: i64) -> Option<Report> {
        (self.stage, self.at, self.waits) = (Stage::Starting, at + LOOK, None);
        None
    }

    /// How long its runner gives itself, where it says so.
    fn own_time(&self) -> Option<i64> {
        let timeout = match self.task()? {
            Task::Migrate(run) | Task::Down { run, .. } => run.timeout,
            Task::Wrap(wrapped) | Task::Settle(wrapped) => wrapped.timeout,
            _ => return None,
        };
        i64::try_from(timeout.as_millis()).ok()
    }
}

fn changes(task: &Task) -> bool {
    matches!(task, Task::Migrate(_) | Task::Wrap(_) | Task::Down { .. } | Task::Restore { .. })
}

impl Cluster {
    /// The database is restarted: server processes are gone with what they had not committed, and so are all sessions and
    /// locks.
    pub fn restart_database(&mut self) -> String {
        self.run_database();
        let now = self.now;
        self.server.end_foreign();
        self.server.workers.retain(|worker| worker.alive);
        let is_hit = |worker: &Worker| worker.stage == Stage::Working || worker.waits.is_some();
        let hit: Vec<String> =
            self.server.workers.iter().filter(|worker| is_hit(worker)).map(|worker| worker.uid.clone()).collect();
        for uid in &hit {
            let Some(index) = self.server.workers.iter().position(|worker| worker.uid == *uid) else { continue };
            let mut worker = self.server.workers[index].clone();
            match self.server.lose(&mut worker, self.jobs_right, now) {
                None => self.server.workers[index] = worker,
                Some(report) => {
                    self.server.workers.remove(index);
                    self.end_job(&worker, now, Some(&report));
                }
            }
        }
        if hit.is_empty() { "nobody is connected".into() } else { format!("{} lose their connection", hit.len()) }
    }
}
