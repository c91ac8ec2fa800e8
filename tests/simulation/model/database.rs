//! A database with its ledger and its lock, and the pods that work on it, as the runner does (src/database): a SQL file
//! commits with its row; a command of the user's has a row as begun before it, and one as ended after it. A client that is
//! killed leaves a server process behind. One of files holds the lock until it has ended what it had begun; that of a command
//! holds nothing, since the lock was its wrapper's, and is looked for by whoever is about to change something.

pub mod faults;
pub mod foreign;
mod ledger;
mod pods;
mod seeds;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};

use servicerelease::{
    api::WorkOutcome,
    engine::{DatabaseJob, MIGRATION, Report, SqlRun, Task, TaskPod, Try, Wrapped},
};

use crate::rng;

use faults::Passwords;
use foreign::Foreign;
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

impl Data {
    /// Whether what a backup has is there; there may be more by now.
    fn has_all_of(&self, backup: &Self) -> bool {
        let mut files = backup.files.iter();
        files.all(|(key, release)| self.files.get(key) == Some(release))
            && backup.changed.is_subset(&self.changed)
            && backup.runs.iter().all(|(plan, run)| self.runs.get(plan) == Some(run))
            && backup.seeded <= self.seeded
    }
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
    /// Whether it is known how it ended.
    fn ended(&self) -> bool {
        self.state != State::Started
    }

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
    /// Whether it was done over a run of the same release, or of the same seed, whose end is not known; of files that take
    /// others back, whether they were not bound to those that somebody had looked at.
    pub blind: bool,
    /// Whether it was done once more after it had failed in the same release; of a seed, after it was put in.
    pub rerun: bool,
    /// Whether another release had run the same command.
    pub twice: bool,
    /// Whether there is a backup of all that the release had done before; of what takes that back.
    pub saved: bool,
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
    /// How many deeds were done when the last of them was made.
    saved: usize,
    /// How often the contents of ConfigMaps were changed behind their names.
    pub edited: u32,
    /// Whether there is a scratch database, of a proof or a rehearsal.
    pub scratch: bool,
    /// The Jobs of rehearsals whose command ended well, and was never in the scratch database.
    pub astray: BTreeSet<String>,
    /// What was done to it, in its order.
    pub deeds: Vec<Deed>,
    /// What workers were hit by while they were at work, and how often.
    pub hits: BTreeMap<&'static str, u64>,
    workers: Vec<Worker>,
    passwords: Passwords,
    /// A release of another namespace that works on the same database.
    foreign: Option<Foreign>,
}

/// A pod of a Job.
#[derive(Clone, Debug)]
pub struct Worker {
    pub job: String,
    pub uid: String,
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
    /// When its process started, and which password that has.
    started: Option<(i64, u32)>,
    /// Since when it has no connection, or waits for the lock.
    waits: Option<i64>,
    /// Whether it has begun something when its connection is lost.
    begun: bool,
    /// How often that was so during the same file.
    losses: u32,
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
                    | Task::PreflightDown { .. }
                    | Task::VerifyRestored { .. }
                    | Task::CleanUp { .. }
            )
        )
    }

    /// Whether it is what a command left on the server whose wrapper is gone.
    fn is_orphan(&self) -> bool {
        !self.alive && matches!(self.task(), Some(Task::Wrap(_)))
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

    /// The image as the kubelet tells it; none of a pod that never started.
    pub fn reported_image(&self) -> Option<String> {
        let image = Some(self.image()).filter(|image| !image.is_empty() && self.started.is_some())?;
        let (name, _) = image.split_once(':').unwrap_or((&image, ""));
        Some(format!("docker.io/library/{name}@sha256:{:064x}", rng::dice(&image)))
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
        let foreign = self.foreign.as_ref().map(|foreign| foreign.at);
        self.workers.iter().map(|worker| worker.at).chain(foreign).min()
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
        self.data.runs.iter().any(|(plan, run)| plan.starts_with(MIGRATION) && of_release(run))
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
        self.hash_of(worker.order.files.as_deref())
    }

    /// The hash of what a ConfigMap has by now.
    fn hash_of(&self, map: Option<&str>) -> String {
        format!("{}+{}", map.unwrap_or("none"), self.edited)
    }

    /// Whether a worker has to wait: for the lock, or for what a command does whose wrapper is gone.
    fn is_locked(&self, except: usize) -> bool {
        let by_others = self.others_at_work(except).any(|other| !other.is_orphan());
        by_others || self.foreign.as_ref().is_some_and(|foreign| foreign.holds) || self.awaits_orphan(except)
    }

    fn others_at_work(&self, except: usize) -> impl Iterator<Item = &Worker> {
        let others = self.workers.iter().enumerate().filter(move |(index, _)| *index != except);
        others.map(|(_, worker)| worker).filter(|worker| worker.stage == Stage::Working && worker.locks())
    }

    /// Whether a worker looks for a command whose wrapper is gone, and it is there. Who asks what became of a command waits for
    /// that one alone, and who asks what became of files for none.
    fn awaits_orphan(&self, except: usize) -> bool {
        let asks = self.workers.get(except).and_then(Worker::task);
        self.others_at_work(except).filter(|other| other.is_orphan()).any(|other| match (asks, other.task()) {
            (Some(Task::SettleSql(_)), _) => false,
            (Some(Task::Settle(asked)), Some(Task::Wrap(left))) => asked.plan == left.plan,
            _ => true,
        })
    }

    /// Something hit a worker.
    pub fn hit(&mut self, what: &'static str) {
        *self.hits.entry(what).or_default() += 1;
    }

    fn note(&mut self, what: What, release: &str) {
        self.note_run(what, release, (false, false));
    }

    fn note_run(&mut self, what: What, release: &str, (blind, rerun): (bool, bool)) {
        let own = |deed: &Deed| deed.release == release && !matches!(deed.what, What::TakenBack(_));
        let saved = !self.deeds.iter().skip(self.saved).any(own);
        self.deeds.push(Deed { what, release: release.to_owned(), blind, rerun, twice: false, saved });
    }
}
