//! A database with its ledger and its lock, and the pods that work on it, as the runner does (src/database): a SQL file
//! commits with its row; a command of the user's has a row as begun before it, and one as ended after it. A client that is
//! killed leaves a server process behind, which holds the lock until it has ended what it had begun.

mod pods;
mod seeds;

use std::collections::{BTreeMap, BTreeSet};

use servicerelease::{
    api::{BackupStatus, RehearsalStatus, Timestamp, WorkOutcome},
    engine::{DatabaseJob, Report, SqlRun, Task, TaskPod, Try, Wrapped},
};

use crate::rng;

use seeds::is_seed;

/// The ConfigMap with flags and maintenance mode.
pub const CONFIG: &str = "shop-config";

/// How long a pod takes to start, and each thing that it does; how long a server process goes on after its client.
const START: i64 = 500;
const DEED: i64 = 400;
const LINGER: i64 = 600;
/// How much later a pod starts whose node hears late that its Job is gone.
const LATE: i64 = 4_000;
/// Between two looks at the lock.
const LOOK: i64 = 250;

/// Everything that is in a backup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// The SQL files that are applied, each with the release that did so.
    pub files: BTreeMap<String, String>,
    /// The records of commands of the user's, by plan.
    pub runs: BTreeMap<String, Record>,
    /// The tries of work with SQL files that were settled, each up to which number.
    pub barred: BTreeMap<String, i32>,
    /// The images of commands whose change is in the schema.
    pub changed: BTreeSet<String>,
    /// Whether what a seed puts in is there. What is left of one that is known to have failed does not count.
    pub seeded: bool,
}

/// What the ledger has of a command of the user's.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub state: State,
    pub release: String,
    pub image: String,
    pub attempt: i32,
    /// Whether it was run at all.
    pub begun: bool,
    /// Whether it was run over one of the same release that is known to have failed.
    pub rerun: bool,
}

impl Record {
    /// As src/database/command/record.rs has it: of the same try of the same release, or of a later one.
    fn is_of(&self, wrapped: &Wrapped) -> bool {
        self.release == wrapped.release && self.attempt >= wrapped.attempt
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Started,
    Applied,
    Failed,
}

/// Something that changed the database.
#[derive(Clone, Debug)]
pub struct Deed {
    pub what: What,
    /// Namespace, name and number of the release.
    pub release: String,
    /// Whether it was done over a run of the same release, or of the same seed, whose end is not known.
    pub blind: bool,
    /// Whether it was done once more after it had failed in the same release; of a seed, after it was put in.
    pub rerun: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Migrated(String),
    Seeded,
    TakenBack(String),
    Restored,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub data: Data,
    pub backups: BTreeMap<String, Data>,
    /// How often the contents of ConfigMaps were changed behind their names.
    pub edited: u32,
    /// Whether there is a scratch database, of a proof or a rehearsal.
    pub scratch: bool,
    /// What was done to it, in its order.
    pub deeds: Vec<Deed>,
    workers: Vec<Worker>,
}

/// A pod of a Job.
#[derive(Clone, Debug)]
struct Worker {
    job: String,
    uid: String,
    order: DatabaseJob,
    fate: Fate,
    /// After how many deeds it is killed, if it is.
    killed_after: u32,
    /// When the next thing happens.
    at: i64,
    /// When its time is over.
    until: i64,
    stage: Stage,
    /// How much of its work is done.
    deeds: u32,
    /// Whether the client is there; without it a server process ends what it had begun.
    alive: bool,
    /// Whether its Job is gone, and its pod, which had not started yet, does so all the same.
    late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    Fails,
    Killed,
    NeverStarts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Working,
}

fn fate(name: &str, right: bool, cleans: bool) -> Fate {
    match rng::dice(name) % 24 {
        _ if right => Fate::Well,
        // Tried often enough for one of them to do it.
        0 if cleans => Fate::Fails,
        1..4 if cleans => Fate::Killed,
        _ if cleans => Fate::Well,
        0 | 1 => Fate::Fails,
        2..5 => Fate::Killed,
        5 if rng::dice(&format!("{name}/never")).is_multiple_of(3) => Fate::NeverStarts,
        _ => Fate::Well,
    }
}

/// The files of a ConfigMap: `shop-3` has three of them.
pub fn files(map: &str) -> Vec<String> {
    let count: u32 = map.strip_prefix("shop-").and_then(|count| count.parse().ok()).unwrap_or(1);
    (1..=count).map(|file| format!("{file:03}")).collect()
}

impl Worker {
    fn task(&self) -> Option<&Task> {
        self.order.task.as_ref()
    }

    fn locks(&self) -> bool {
        !matches!(
            self.task(),
            None | Some(
                Task::Preflight { .. }
                    | Task::Backup { .. }
                    | Task::Rehearse { .. }
                    | Task::Verify(_)
                    | Task::VerifyRestored { .. }
                    | Task::CleanUp { .. }
            )
        )
    }

    /// Whether it makes a scratch database.
    fn makes_scratch(&self) -> bool {
        matches!(self.task(), Some(Task::Backup { proof: true, .. } | Task::Rehearse { .. }))
    }

    /// The files that are mounted, as the ledger names them.
    fn keys(&self, set: &str) -> Vec<String> {
        let map = self.order.files.as_deref().unwrap_or("none");
        files(map).into_iter().map(|file| format!("{set}/{file}")).collect()
    }

    fn image(&self) -> String {
        let TaskPod::Wrapped { template, .. } = &self.order.pod else { return String::new() };
        template["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    }
}

/// What the row of a settled try is called.
fn bar(run: &SqlRun, which: &Try) -> String {
    format!("{}/{}/{}", run.set, which.of, run.release)
}

fn report(outcome: WorkOutcome, message: &str) -> Report {
    Report { outcome, message: message.into(), ..Report::default() }
}

/// How a deed leaves a worker.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it comes back")]
enum Next {
    More,
    Ended(Report),
}

impl Server {
    /// When the next thing happens.
    pub fn next(&self) -> Option<i64> {
        self.workers.iter().map(|worker| worker.at).min()
    }

    /// Whether somebody is at work on it.
    pub fn is_busy(&self) -> bool {
        self.workers.iter().any(|worker| !worker.late)
    }

    /// Whether a run of a release has no known end, and never will by itself.
    pub fn is_in_doubt(&self, release: &str) -> bool {
        self.data.runs.values().any(|run| run.state == State::Started && run.release.starts_with(release))
    }

    /// Whether a command of a release was begun, as far as the ledger knows, to migrate.
    pub fn has_begun(&self, release: &str) -> bool {
        let of_release = |run: &Record| run.begun && run.release.starts_with(release);
        self.data.runs.iter().any(|(plan, run)| plan.starts_with("migration/") && of_release(run))
    }

    /// A wrapper that is told to end ends its command, and notes that it failed.
    fn told_to_end(&mut self, wrapped: &Wrapped) {
        if let Some(run) = self.data.runs.get_mut(&wrapped.plan).filter(|run| run.state == State::Started) {
            run.state = State::Failed;
            self.data.seeded &= !is_seed(&wrapped.plan);
        }
    }

    /// A person looks, and notes what became of what nobody knew.
    pub fn settle_by_hand(&mut self) {
        for (plan, run) in &mut self.data.runs {
            if run.state == State::Started {
                let done = if is_seed(plan) { self.data.seeded } else { self.data.changed.contains(&run.image) };
                run.state = if done { State::Applied } else { State::Failed };
            }
        }
    }

    /// What the manifest's migration wants is in the schema.
    pub fn is_migrated(&self, database: &servicerelease::api::Database) -> bool {
        let Some(migration) = &database.migration else { return true };
        match (&migration.change.sql, &migration.change.template) {
            (Some(sql), _) => {
                files(&sql.config_map).iter().all(|file| self.data.files.contains_key(&format!("{}/{file}", sql.set)))
            }
            (None, Some(pod)) => {
                let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
                self.data.changed.contains(image)
            }
            (None, None) => true,
        }
    }

    fn hash(&self, worker: &Worker) -> String {
        format!("{}+{}", worker.order.files.as_deref().unwrap_or("none"), self.edited)
    }

    fn is_locked(&self, except: usize) -> bool {
        let others = self.workers.iter().enumerate().filter(|(index, _)| *index != except);
        others.into_iter().any(|(_, worker)| worker.stage == Stage::Working && worker.locks())
    }

    fn note(&mut self, what: What, release: &str) {
        self.deeds.push(Deed { what, release: release.to_owned(), blind: false, rerun: false });
    }

    /// The next thing that a worker does. `right`: nothing goes wrong any more.
    fn work(&mut self, worker: &mut Worker, right: bool) -> Next {
        let first = worker.deeds == 0;
        worker.deeds += 1;
        let fails = worker.fate == Fate::Fails;
        let bad = |why: &str| Next::Ended(report(WorkOutcome::Failed, why));
        let Some(task) = worker.task().cloned() else {
            return Next::Ended(report(
                if fails { WorkOutcome::Failed } else { WorkOutcome::Done },
                "as the dice fell",
            ));
        };
        let done = report(WorkOutcome::Done, "done");
        if worker.makes_scratch() {
            // What it finds in the place of its own goes first.
            self.scratch = first && !fails;
            if self.scratch {
                return Next::More;
            }
        }
        match &task {
            Task::CleanUp { .. } if fails => {
                Next::Ended(Report { left: true, ..report(WorkOutcome::Failed, "no way") })
            }
            Task::CleanUp { .. } => {
                // Their sessions end first.
                for other in self.workers.iter_mut().filter(|other| !other.alive && other.makes_scratch()) {
                    other.deeds = u32::MAX;
                }
                self.scratch = false;
                Next::Ended(done)
            }
            _ if fails && !matches!(task, Task::Migrate(_) | Task::Wrap(_) | Task::Settle(_) | Task::SettleSql(_)) => {
                Next::Ended(report(WorkOutcome::NotBegun, "as the dice fell"))
            }
            Task::Preflight { set, .. } => {
                let Some(set) = set else { return Next::Ended(done) };
                let keys = worker.keys(set);
                let pending: Vec<String> = keys.into_iter().filter(|key| !self.data.files.contains_key(key)).collect();
                let loses = pending.iter().any(|key| key.ends_with("002"));
                let risks = if loses { vec!["002, line 1: drops a table".to_owned()] } else { Vec::new() };
                Next::Ended(Report { files_hash: self.hash(worker), pending, risks, loses_data: loses, ..done })
            }
            Task::Backup { name, .. } => {
                self.backups.entry(name.clone()).or_insert_with(|| self.data.clone());
                let proven_at = worker.makes_scratch().then_some(Timestamp::from_millis(worker.at));
                let backup = BackupStatus { name: name.clone(), proven_at, ..BackupStatus::default() };
                Next::Ended(Report { backup: Some(backup), ..done })
            }
            Task::Rehearse { .. } => Next::Ended(Report { rehearsal: Some(RehearsalStatus::default()), ..done }),
            Task::Verify(wanted) => {
                let version = |table: &String| table.strip_prefix('v').and_then(|it| it.parse::<u32>().ok());
                let wanted = wanted.tables.iter().filter_map(version).max().unwrap_or(0);
                let by_files = (1..=wanted).all(|file| self.data.files.contains_key(&format!("default/{file:03}")));
                let by_command = self.data.changed.contains(&format!("migrate:{wanted}"));
                Next::Ended(if by_files || by_command {
                    done
                } else {
                    report(WorkOutcome::NotBegun, "a table is missing")
                })
            }
            Task::Migrate(run) => {
                let hash = self.hash(worker);
                if first && run.plan.as_ref().is_some_and(|meant| *meant != hash) {
                    return Next::Ended(report(WorkOutcome::NotBegun, "the files are not those that were meant"));
                }
                if run.which.as_ref().is_some_and(|which| self.is_barred(run, which)) {
                    return Next::Ended(report(WorkOutcome::NotBegun, "that try was settled"));
                }
                let keys = worker.keys(&run.set);
                let mine = |data: &Data| -> Vec<String> {
                    let of_release = data.files.iter().filter(|(_, release)| **release == run.release);
                    of_release.map(|(key, _)| key.clone()).filter(|key| keys.contains(key)).collect()
                };
                let next = keys.iter().find(|key| !self.data.files.contains_key(*key));
                let Some(key) = next else { return Next::Ended(Report { applied: mine(&self.data), ..done }) };
                if fails || (key.ends_with("003") && !right) {
                    let applied = mine(&self.data);
                    return Next::Ended(Report { applied, ..report(WorkOutcome::Failed, "a statement of it fails") });
                }
                self.data.files.insert(key.clone(), run.release.clone());
                match run.set.as_str() {
                    "seed" => self.seed(&run.release, false),
                    _ => self.note(What::Migrated(key.clone()), &run.release),
                }
                Next::More
            }
            Task::Down { run, of, seed } => {
                let own = |release: &String| release == of;
                let last = self.data.files.iter().rfind(|(key, _)| key.starts_with("default/"));
                let last = last.map(|(key, release)| (key.clone(), own(release)));
                match last {
                    Some((key, true)) => {
                        self.data.files.remove(&key);
                        self.note(What::TakenBack(key), &run.release);
                        Next::More
                    }
                    Some(_) if self.data.files.iter().any(|(key, of)| !key.starts_with("seed/") && own(of)) => {
                        bad("a later one was applied by somebody else")
                    }
                    _ => {
                        self.take_seed_along(of, seed.as_ref());
                        Next::Ended(done)
                    }
                }
            }
            Task::Wrap(wrapped) if first => match self.begin(wrapped, worker.image()) {
                Some(report) => Next::Ended(report),
                None => Next::More,
            },
            Task::Wrap(wrapped) if worker.deeds == 2 && is_seed(&wrapped.plan) => {
                let unknown = |(plan, run): (&String, &Record)| {
                    is_seed(plan) && *plan != wrapped.plan && run.state == State::Started
                };
                let blind = wrapped.again || self.data.runs.iter().any(unknown);
                self.seed(&wrapped.release, blind);
                Next::More
            }
            Task::Wrap(wrapped) if worker.deeds == 2 => {
                let blind = self.data.runs.iter().any(|(plan, run)| {
                    *plan != wrapped.plan && run.state == State::Started && run.release == wrapped.release
                }) || wrapped.again;
                let image = worker.image();
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
                self.deeds.push(Deed { what, release: wrapped.release.clone(), blind, rerun });
                Next::More
            }
            Task::Wrap(wrapped) => {
                if let Some(run) = self.data.runs.get_mut(&wrapped.plan) {
                    run.state = if fails { State::Failed } else { State::Applied };
                    self.data.seeded &= !(fails && is_seed(&wrapped.plan));
                }
                if fails { bad("exit code 1") } else { Next::Ended(done) }
            }
            Task::Settle(wrapped) => Next::Ended(self.settle(wrapped)),
            Task::SettleSql(run) => {
                if let Some(which) = &run.which {
                    let until = self.data.barred.entry(bar(run, which)).or_default();
                    *until = which.number.max(*until);
                }
                let keys = worker.keys(&run.set);
                let mine = |key: &&String| self.data.files.get(*key) == Some(&run.release);
                let applied: Vec<String> = keys.iter().filter(mine).cloned().collect();
                let pending = keys.iter().any(|key| !self.data.files.contains_key(key));
                let outcome = match (pending, applied.is_empty()) {
                    (false, _) => WorkOutcome::Done,
                    (true, true) => WorkOutcome::NotBegun,
                    (true, false) => WorkOutcome::Failed,
                };
                Next::Ended(Report { applied, ..report(outcome, "settled") })
            }
            Task::VerifyRestored { name, .. } => {
                let same = self.backups.get(name).is_some_and(|data| *data == self.data);
                Next::Ended(if same { done } else { report(WorkOutcome::NotBegun, "rows are missing") })
            }
            Task::Restore { name, .. } => {
                let Some(data) = self.backups.get(name).cloned() else {
                    return Next::Ended(report(WorkOutcome::NotBegun, "there is no such backup"));
                };
                self.data = data;
                self.note(What::Restored, "");
                Next::Ended(done)
            }
        }
    }

    /// Looks in the ledger whether a command is to be run, and notes that it is.
    fn begin(&mut self, wrapped: &Wrapped, image: String) -> Option<Report> {
        let mut rerun = false;
        if let Some(run) = self.data.runs.get(&wrapped.plan) {
            let same = run.is_of(wrapped);
            rerun = run.state == State::Failed && run.begun && run.release == wrapped.release;
            match run.state {
                State::Applied => return Some(report(WorkOutcome::Done, "it is applied already")),
                State::Started if !wrapped.again => {
                    return Some(report(WorkOutcome::Unknown, "its end is not on record"));
                }
                State::Failed if same && run.begun => return Some(report(WorkOutcome::Failed, "it failed")),
                State::Failed if same => return Some(report(WorkOutcome::NotBegun, "it was settled")),
                _ => {}
            }
        }
        let (release, attempt) = (wrapped.release.clone(), wrapped.attempt);
        let record = Record { state: State::Started, release, image, attempt, begun: true, rerun };
        self.data.runs.insert(wrapped.plan.clone(), record);
        None
    }

    fn is_barred(&self, run: &SqlRun, which: &Try) -> bool {
        self.data.barred.get(&bar(run, which)).is_some_and(|until| *until >= which.number)
    }

    fn settle(&mut self, wrapped: &Wrapped) -> Report {
        match self.data.runs.get_mut(&wrapped.plan) {
            Some(run) if run.state == State::Applied => report(WorkOutcome::Done, "the ledger has it as applied"),
            Some(run) if run.state == State::Started => report(WorkOutcome::Unknown, "its end is not on record"),
            Some(run) if run.release == wrapped.release => {
                run.attempt = run.attempt.max(wrapped.attempt);
                let begun = run.begun;
                report(if begun { WorkOutcome::Failed } else { WorkOutcome::NotBegun }, "it failed, or never began")
            }
            _ => {
                // A pod of the try that is asked about which comes late finds this, and does not begin either.
                let (release, attempt) = (wrapped.release.clone(), wrapped.attempt);
                let (state, image) = (State::Failed, String::new());
                let record = Record { state, release, image, attempt, begun: false, rerun: false };
                self.data.runs.insert(wrapped.plan.clone(), record);
                report(WorkOutcome::NotBegun, "it was never begun")
            }
        }
    }
}
