//! A release of another namespace on the same database: it waits for the lock as all do, has it for a while, and applies
//! files of its own set, those that are next of a set that both have, or the command that both have.

use servicerelease::engine::Task;

use crate::model::cluster::Cluster;

use super::{DEED, LOOK, Record, Server, Stage, State};

/// How the ledger has it.
const RELEASE: &str = "staging/shop#7-abcde";

/// What it does while it has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deeds {
    /// Something that is in no ledger.
    Nothing,
    /// Files of its own.
    OwnFiles,
    /// So many of those that are next.
    SameFiles(u8),
    /// The command that a worker is about to run. It is applied, or else killed in the middle, and nobody knows.
    SameCommand(bool),
}

#[derive(Clone, Debug)]
pub struct Foreign {
    deeds: Deeds,
    /// Whether it has the lock.
    pub holds: bool,
    /// When it looks, or does something, the next time.
    pub at: i64,
    /// How long it has the lock, at least.
    holds_for: i64,
    /// Until when.
    until: i64,
}

impl Cluster {
    /// It begins. What of it is under way already goes on.
    pub fn start_foreign(&mut self, deeds: Deeds, seconds: u8) -> String {
        if self.server.foreign.is_some() {
            return "it is at work already".into();
        }
        let holds_for = i64::from(seconds) * 1_000;
        self.server.foreign = Some(Foreign { deeds, holds: false, at: self.now, holds_for, until: i64::MAX });
        String::new()
    }
}

impl Server {
    /// The next thing that it does.
    pub fn step_foreign(&mut self) {
        let Some(mut foreign) = self.foreign.take() else { return };
        if !foreign.holds {
            // None of the workers has this number.
            foreign.holds = !self.is_locked(usize::MAX);
            if foreign.holds {
                foreign.until = foreign.at + foreign.holds_for;
            }
            foreign.at += if foreign.holds { DEED } else { LOOK };
            self.foreign = Some(foreign);
            return;
        }
        if let Deeds::SameCommand(ends) = foreign.deeds {
            if self.run_same(ends) {
                foreign.deeds = Deeds::Nothing;
            } else if foreign.at < foreign.until {
                foreign.at += LOOK;
                self.foreign = Some(foreign);
                return;
            }
        }
        let file = match &mut foreign.deeds {
            Deeds::OwnFiles => {
                foreign.deeds = Deeds::Nothing;
                Some("other/001".to_owned())
            }
            Deeds::SameFiles(count) if *count > 0 => {
                *count -= 1;
                let known = self.data.files.keys().filter(|key| key.starts_with("default/")).count();
                Some(format!("default/{:03}", known + 1))
            }
            _ => None,
        };
        let Some(file) = file else {
            if foreign.at < foreign.until {
                foreign.at = foreign.until;
                self.foreign = Some(foreign);
            }
            return;
        };
        if self.workers.iter().any(|worker| worker.alive && worker.wants(&file)) {
            self.hit("another release applies a worker's file");
        }
        self.data.files.entry(file).or_insert_with(|| RELEASE.to_owned());
        foreign.at += DEED;
        self.foreign = Some(foreign);
    }

    /// Runs the command that a worker is about to run, if there is one, and nobody has begun it.
    fn run_same(&mut self, ends: bool) -> bool {
        let meant = self.workers.iter().find_map(|worker| {
            let Some(Task::Wrap(wrapped)) = worker.task() else { return None };
            let shared = wrapped.shared().filter(|_| worker.stage == Stage::Starting)?;
            Some((format!("{shared}{RELEASE}"), shared.to_owned(), worker.image()))
        });
        let Some((plan, shared, image)) = meant else { return false };
        if self.data.runs.keys().any(|known| known.starts_with(&shared)) {
            return false;
        }
        let state = if ends { State::Applied } else { State::Started };
        self.data.changed.insert(image.clone());
        let record = Record { state, release: RELEASE.to_owned(), image, attempt: 1, begun: true, rerun: false };
        self.data.runs.insert(plan, record);
        self.hit(if ends { "another release runs a worker's command" } else { "another release's command is killed" });
        true
    }

    /// Its session is ended. What it had committed stays.
    pub fn end_foreign(&mut self) {
        self.foreign = None;
    }
}

impl super::Worker {
    /// Whether it is about to apply a file: it has its plan, and waits for the lock, or is beginning.
    fn wants(&self, file: &str) -> bool {
        let of = match self.task() {
            Some(Task::Migrate(run)) => self.keys(&run.set),
            _ => Vec::new(),
        };
        self.stage == Stage::Starting && of.iter().any(|key| key == file)
    }
}
