//! What a worker does, one deed after the other.

use servicerelease::{
    api::{BackupStatus, RehearsalStatus, Timestamp, Verify, WorkOutcome},
    engine::{Contents, MIGRATION, Report, Seeded, SqlRun, Task, Wrapped},
};

use crate::rng;

use super::{
    Fate, Next, Record, Server, State, What, Worker,
    faults::{self, MOST_LOSSES},
    files, report,
    seeds::is_seed,
};

fn bad(why: &str) -> Next {
    Next::Ended(report(WorkOutcome::Failed, why))
}

fn done() -> Report {
    report(WorkOutcome::Done, "done")
}

fn not_begun(why: &str) -> Next {
    Next::Ended(report(WorkOutcome::NotBegun, why))
}

/// It does nothing; what it had done before its connection was lost it does not look for then.
fn ended_before(worker: &Worker, why: &str) -> Next {
    let outcome = if worker.begun { WorkOutcome::Unknown } else { WorkOutcome::NotBegun };
    Next::Ended(report(outcome, why))
}

/// Whether the command of a rehearsal goes elsewhere than it is led.
fn goes_astray(job: &str) -> bool {
    rng::dice(&format!("{job}/astray")).is_multiple_of(4)
}

impl Server {
    /// The next thing that a worker does. `right`: nothing goes wrong any more.
    pub(super) fn work(&mut self, worker: &mut Worker, right: bool) -> Next {
        let first = worker.deeds == 0;
        worker.deeds += 1;
        let fails = worker.fate == Fate::Fails;
        let Some(task) = worker.task().cloned() else {
            return Next::Ended(report(
                if fails { WorkOutcome::Failed } else { WorkOutcome::Done },
                "as the dice fell",
            ));
        };
        if worker.makes_scratch() {
            // What it finds in the place of its own goes first, or once it has failed.
            self.scratch = first && !fails;
            if self.scratch {
                return Next::More;
            }
        }
        match &task {
            Task::CleanUp { .. } => self.clean_up(fails),
            Task::Migrate(run) => self.apply(worker, run, right),
            Task::Wrap(wrapped) => self.command(worker, wrapped),
            Task::Settle(wrapped) => Next::Ended(self.settle(wrapped)),
            Task::SettleSql(run) => Next::Ended(self.settle_files(worker, run)),
            _ if fails => not_begun("as the dice fell"),
            Task::PreflightDown { set, of, .. } => self.look_down(worker, set.as_deref(), of),
            Task::Preflight { applied: Some(applied), .. } if self.is_behind(worker, &applied.what) => {
                not_begun("files of a migration that counts as applied are not")
            }
            Task::Preflight { set, seed, mounted, seed_mounted, .. } => {
                let report = self.look(worker, set.as_deref(), seed.as_deref());
                Next::Ended(self.read(worker, report, !mounted.is_nothing(), !seed_mounted.is_nothing()))
            }
            Task::Backup { name, .. } => {
                if !self.backups.contains_key(name) {
                    self.backups.insert(name.clone(), self.data.clone());
                    self.saved = self.deeds.len();
                }
                let proven_at = worker.makes_scratch().then_some(Timestamp::from_millis(worker.at));
                let backup = BackupStatus { name: name.clone(), proven_at, ..BackupStatus::default() };
                Next::Ended(Report { backup: Some(backup), ..done() })
            }
            Task::Rehearse { sql: None, .. } if !right && goes_astray(&worker.job) => {
                self.astray.insert(worker.job.clone());
                let report = report(WorkOutcome::Unknown, "it was never in the scratch database");
                Next::Ended(Report { rehearsal: Some(RehearsalStatus::default()), ..report })
            }
            Task::Rehearse { .. } => Next::Ended(Report { rehearsal: Some(RehearsalStatus::default()), ..done() }),
            Task::Verify(wanted) => self.verify(wanted),
            Task::Down { run, of, seed } => self.take_back(worker, run, of, seed.as_ref()),
            Task::VerifyRestored { name, .. } => {
                let same = self.backups.get(name).is_some_and(|backup| self.data.has_all_of(backup));
                if same { Next::Ended(done()) } else { not_begun("rows are missing") }
            }
            Task::Restore { name, .. } => {
                let Some(data) = self.backups.get(name).cloned() else { return not_begun("there is no such backup") };
                self.data = data;
                self.note(What::Restored, "");
                Next::Ended(done())
            }
        }
    }

    fn clean_up(&mut self, fails: bool) -> Next {
        if fails {
            return Next::Ended(Report { left: true, ..report(WorkOutcome::Failed, "no way") });
        }
        // Their sessions end first.
        for other in self.workers.iter_mut().filter(|other| !other.alive && other.makes_scratch()) {
            other.deeds = u32::MAX;
        }
        self.scratch = false;
        Next::Ended(done())
    }

    fn look(&self, worker: &Worker, set: Option<&str>, seed: Option<&str>) -> Report {
        let mut report = done();
        let seeds = worker.order.seed_files.as_deref();
        if let (Some(set), Some(map)) = (seed, seeds) {
            let pending = files(map).iter().any(|file| !self.data.files.contains_key(&format!("{set}/{file}")));
            report.seed_hash = self.hash_of(Some(map));
            // Whether it writes over something is not for the same reason each time.
            report.seed_loses_data = pending && rng::dice(&worker.job).is_multiple_of(2);
            report.seed_risks =
                report.seed_loses_data.then(|| "001, line 1: writes over".to_owned()).into_iter().collect();
        }
        let Some(set) = set else { return report };
        let keys = worker.keys(set);
        let pending: Vec<String> = keys.into_iter().filter(|key| !self.data.files.contains_key(key)).collect();
        let loses = pending.iter().any(|key| key.ends_with("002"));
        let risks = if loses { vec!["002, line 1: drops a table".to_owned()] } else { Vec::new() };
        Report { files_hash: self.hash(worker), pending, risks, loses_data: loses, ..report }
    }

    /// Whether SQL files are not applied whose migration counts as applied. Of what a tool mounts nothing changes but the hash, so
    /// that its own table has all of it.
    fn is_behind(&self, worker: &Worker, applied: &Contents) -> bool {
        let Contents::Set(set) = applied else { return false };
        worker.keys(set).iter().any(|key| !self.data.files.contains_key(key))
    }

    /// What is read of the files that pods of the user's mount, of a migration or of a seed: every second migration loses something,
    /// as long as its tool has not applied it.
    fn read(&self, worker: &Worker, mut report: Report, migration: bool, seed: bool) -> Report {
        let image = worker.image();
        let version = image.strip_prefix("migrate:").and_then(|version| version.parse::<u32>().ok());
        if migration && !self.data.changed.contains(&image) {
            report.loses_data = version.is_some_and(|version| version.is_multiple_of(2));
            report.risks = report.loses_data.then(|| "it, line 1: drops a table".to_owned()).into_iter().collect();
        }
        if seed {
            report.seed_hash = self.hash_of(None);
            report.seed_loses_data = !self.data.seeded && rng::dice(&worker.job).is_multiple_of(2);
            report.seed_risks =
                report.seed_loses_data.then(|| "seed.sql, line 1: writes over".to_owned()).into_iter().collect();
        }
        report
    }

    fn look_down(&self, worker: &Worker, set: Option<&str>, of: &str) -> Next {
        if set.is_none() {
            return Next::Ended(done());
        }
        let Some(pending) = self.to_take_back(of) else { return not_begun("a later one was applied by somebody else") };
        let loses_data = pending.iter().any(|key| key.ends_with("002"));
        let risks = if loses_data { vec!["002.down, line 1: drops a table".to_owned()] } else { Vec::new() };
        Next::Ended(Report { files_hash: self.hash(worker), pending, risks, loses_data, ..done() })
    }

    /// The files of a release, where no others came after them.
    fn to_take_back(&self, of: &str) -> Option<Vec<String>> {
        let schema = self.data.files.iter().filter(|(key, _)| key.starts_with("default/"));
        let since: Vec<_> = schema.skip_while(|(_, release)| *release != of).collect();
        let own = since.iter().all(|(_, release)| *release == of);
        own.then(|| since.into_iter().map(|(key, _)| key.clone()).collect())
    }

    fn verify(&self, wanted: &Verify) -> Next {
        let version = |table: &String| table.strip_prefix('v').and_then(|it| it.parse::<u32>().ok());
        let wanted = wanted.tables.iter().filter_map(version).max().unwrap_or(0);
        let by_files = (1..=wanted).all(|file| self.data.files.contains_key(&format!("default/{file:03}")));
        let by_command = self.data.changed.contains(&format!("migrate:{wanted}"));
        if by_files || by_command { Next::Ended(done()) } else { not_begun("a table is missing") }
    }

    /// Files that a release applied, of those that a worker knows.
    fn applied(&self, worker: &Worker, run: &SqlRun) -> Vec<String> {
        let keys = worker.keys(&run.set);
        let of_release = self.data.files.iter().filter(|(_, release)| **release == run.release);
        of_release.map(|(key, _)| key.clone()).filter(|key| keys.contains(key)).collect()
    }

    /// SQL files.
    fn apply(&mut self, worker: &Worker, run: &SqlRun, right: bool) -> Next {
        let hash = self.hash(worker);
        if worker.deeds == 1 && run.plan.as_ref().is_some_and(|meant| *meant != hash) {
            return not_begun("the files are not those that were meant");
        }
        if run.which.as_ref().is_some_and(|which| self.is_barred(run, which)) {
            return ended_before(worker, "that try was settled");
        }
        let keys = worker.keys(&run.set);
        let applied = self.applied(worker, run);
        let next = keys.iter().find(|key| !self.data.files.contains_key(*key));
        let Some(key) = next else { return Next::Ended(Report { applied, ..done() }) };
        let lost = worker.losses > MOST_LOSSES;
        if worker.fate == Fate::Fails || lost || (key.ends_with("003") && !right) {
            let why = if lost { "the connection was lost each time" } else { "a statement of it fails" };
            return Next::Ended(Report { applied, ..report(WorkOutcome::Failed, why) });
        }
        self.data.files.insert(key.clone(), run.release.clone());
        match run.set.as_str() {
            "seed" => self.seed(&run.release, false),
            _ => self.note(What::Migrated(key.clone()), &run.release),
        }
        Next::More
    }

    /// Down files, the last first.
    fn take_back(&mut self, worker: &Worker, run: &SqlRun, of: &str, seed: Option<&Seeded>) -> Next {
        let hash = self.hash(worker);
        if worker.deeds == 1 && run.plan.as_ref().is_some_and(|meant| *meant != hash) {
            return not_begun("the files are not those that were meant");
        }
        let Some(mut own) = self.to_take_back(of) else {
            return ended_before(worker, "a later one was applied by somebody else");
        };
        if let Some(key) = own.pop() {
            self.data.files.remove(&key);
            self.note_run(What::TakenBack(key), &run.release, (run.plan.is_none(), false));
            return Next::More;
        }
        if seed.is_some() && faults::is_refused(self, worker) {
            self.hit("refused: the way to forget a seed");
            // Its rows go with the tables.
            self.take_seed_along(of, None);
            return bad("taken back, but the ledger still has the seed as put in");
        }
        self.take_seed_along(of, seed);
        Next::Ended(done())
    }

    /// A command of the user's: it is noted as begun, does its work, and is noted as ended.
    fn command(&mut self, worker: &mut Worker, wrapped: &Wrapped) -> Next {
        match worker.deeds {
            1 => return self.begin(wrapped, worker.image()).map_or(Next::More, Next::Ended),
            2 if faults::is_refused(self, worker) => {
                // The session with the lock is there, and the command gets none.
                self.hit("refused: a command that was begun");
                worker.fate = Fate::Fails;
                return Next::More;
            }
            2 => {
                self.change(worker, wrapped);
                return Next::More;
            }
            _ => {}
        }
        let fails = worker.fate == Fate::Fails;
        if let Some(run) = self.data.runs.get_mut(&wrapped.plan) {
            run.state = if fails { State::Failed } else { State::Applied };
            self.data.seeded &= !(fails && is_seed(&wrapped.plan));
        }
        if fails {
            return bad("exit code 1");
        }
        if wrapped.takes_back() {
            let of = &wrapped.release;
            self.data.runs.retain(|plan, run| !(plan.starts_with(MIGRATION) && run.release == *of && run.ended()));
        }
        Next::Ended(done())
    }

    fn change(&mut self, worker: &Worker, wrapped: &Wrapped) {
        if is_seed(&wrapped.plan) {
            let blind = wrapped.again
                || self
                    .data
                    .runs
                    .iter()
                    .any(|(plan, run)| is_seed(plan) && *plan != wrapped.plan && run.state == State::Started);
            return self.seed(&wrapped.release, blind);
        }
        let same = |plan: &str, run: &Record| {
            plan != wrapped.plan
                && (run.release == wrapped.release || wrapped.shared().is_some_and(|shared| plan.starts_with(shared)))
        };
        let blind =
            self.data.runs.iter().any(|(plan, run)| same(plan, run) && run.state == State::Started) || wrapped.again;
        let image = worker.image();
        // Whatever either calls it in the ledger.
        let ran = |run: &Record| run.image == image && run.release != wrapped.release && run.state == State::Applied;
        let twice = wrapped.migrates() && self.data.runs.values().any(ran);
        let taken_back = image.strip_prefix("down:").map(|version| format!("migrate:{version}"));
        let what = match &taken_back {
            Some(of) => {
                self.data.changed.remove(of);
                What::TakenBack(of.clone())
            }
            None => {
                self.data.changed.insert(image.clone());
                What::Migrated(image)
            }
        };
        let rerun = self.data.runs.get(&wrapped.plan).is_some_and(|run| run.rerun);
        self.note_run(what, &wrapped.release, (blind, rerun));
        if let Some(deed) = self.deeds.last_mut() {
            deed.twice = twice;
        }
    }

    fn settle_files(&mut self, worker: &Worker, run: &SqlRun) -> Report {
        self.bar(run);
        let applied = self.applied(worker, run);
        let pending = worker.keys(&run.set).iter().any(|key| !self.data.files.contains_key(key));
        let outcome = match (pending, applied.is_empty()) {
            (false, _) => WorkOutcome::Done,
            (true, true) => WorkOutcome::NotBegun,
            (true, false) => WorkOutcome::Failed,
        };
        Report { applied, ..report(outcome, "settled") }
    }
}
