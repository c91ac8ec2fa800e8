//! One run: what is pending is applied, file by file.

use std::time::Duration;

use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep};

use crate::{
    api::{WorkOutcome, status::bounded},
    database::{
        command::others,
        connection::{self, CONNECT, told},
        meant, shared,
    },
    engine::{Meant, Try},
};

use super::{
    effects::{Before, Effects},
    files::{Body, File},
    ledger::{self, Ledger},
    pending::{self, Conflict, Sorted},
    statements::Statement,
    stop::{Broken, Stop, is_contended, is_lost},
};

/// Between two looks at a lock that another one has, and before a lost connection is made anew.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a transaction is tried that did not get its locks, or was in the way of another.
const TRIES: u32 = 10;
/// How often a file is run again whose connection was lost: it may be what ends its server.
const RERUNS: u32 = 2;
/// The longest that is told of an error, in bytes.
const MOST_TOLD: usize = 600;

/// What a run is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tells files apart that have nothing to do with each other and share a schema.
    pub set: String,
    /// Namespace and name of the release.
    pub release: String,
    /// How long a statement may wait for a lock; then its transaction makes room, and is tried again.
    pub lock_timeout: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
    /// The hash of the files that were meant, if it was settled before.
    pub plan: Option<String>,
    /// What else was.
    pub meant: Meant,
    /// Which try it is, where it may be settled.
    pub which: Option<Try>,
    /// Whether to look what each file does to tables: for rehearsals.
    pub observe: bool,
    /// Whether a file that changes the whole server fails before it commits: for rehearsals in a database of the same server.
    pub confined: bool,
}

/// What became of a run.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How it ended.
    pub outcome: WorkOutcome,
    /// The hash of the files.
    pub plan: String,
    /// The files that it applied.
    pub applied: Vec<String>,
    /// How many were applied before.
    pub already: usize,
    /// Those of them that earlier runs of the same release applied: their pods were killed before they could say so.
    pub earlier: Vec<String>,
    /// Whether it ended before it had read what earlier runs have applied.
    pub unread: bool,
    /// Whether a part of that file may be in effect, since it runs in no transaction.
    pub partly: bool,
    /// The file that it stopped at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Why it stopped, and what can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The statement by which a person notes what became of a file of which nobody knows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub settle: String,
    /// Indexes that a file in no transaction left invalid, or that nobody knows of whether it did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalid: Vec<String>,
    /// What each file did, if that was looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effects>,
}

impl Report {
    /// Of a run that ended before it began.
    #[must_use]
    pub fn not_begun(why: String) -> Self {
        let why = Some(bounded(&why, MOST_TOLD));
        Self {
            outcome: WorkOutcome::NotBegun,
            plan: String::new(),
            applied: Vec::new(),
            already: 0,
            earlier: Vec::new(),
            unread: true,
            partly: false,
            file: None,
            why,
            settle: String::new(),
            invalid: Vec::new(),
            effects: Vec::new(),
        }
    }
}

/// Since when the server has been there: a session that an administrator ended is not the server's end.
async fn server_started(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_postmaster_start_time()::text").fetch_one(connection).await
}

/// Applies what is pending of these files.
pub async fn run(url: &str, files: &[File], settings: &Settings) -> Report {
    let plan = super::files::plan(&settings.set, files);
    if settings.plan.as_ref().is_some_and(|meant| *meant != plan) {
        return Report { plan, ..Report::not_begun(OTHER_FILES.into()) };
    }
    Run::new(files, settings, Direction::Up).report(url, plan).await
}

/// Takes back what the ledger has as applied by a release, the last first, each by its down file.
pub async fn down(url: &str, files: &[File], settings: &Settings, of: &str) -> Report {
    let plan = super::files::plan(&settings.set, files);
    if settings.plan.as_ref().is_some_and(|meant| *meant != plan) {
        return Report { plan, ..Report::not_begun(OTHER_FILES.into()) };
    }
    Run::new(files, settings, Direction::Down(of)).report(url, plan).await
}

/// Why files are refused that are not those of the plan.
pub(super) const OTHER_FILES: &str = "the files are not those that were meant: they changed after the plan was made";

/// Whether files are applied, or taken back: those of a release.
#[derive(Clone, Copy, Debug)]
enum Direction<'a> {
    Up,
    Down(&'a str),
}

/// A file whose connection was lost while it was run.
struct Lost<'a> {
    file: &'a File,
    times: u32,
    why: String,
    /// The server on which its session was ended on purpose, by since when that had been there.
    ended_on: Option<String>,
}

struct Run<'a> {
    files: &'a [File],
    settings: &'a Settings,
    direction: Direction<'a>,
    deadline: Instant,
    /// The files that there were to do when it began.
    meant: Vec<&'a File>,
    applied: Vec<String>,
    already: usize,
    earlier: Vec<String>,
    /// Whether it has read what is applied.
    read: bool,
    effects: Vec<Effects>,
    /// The indexes that were not valid when it began.
    invalid_before: Option<Vec<String>>,
    /// Those that are not by now, beside them.
    invalid: Vec<String>,
    /// Whether a file was begun: from then on a lost connection leaves something to be found out.
    begun: bool,
    /// The last file that was broken off.
    lost: Option<Lost<'a>>,
    /// By which way a session beside it sees what a file changes on the whole server, where it is confined.
    beside: Option<PgConnectOptions>,
}

impl<'a> Run<'a> {
    fn new(files: &'a [File], settings: &'a Settings, direction: Direction<'a>) -> Self {
        Self {
            files,
            settings,
            direction,
            deadline: Instant::now() + settings.timeout,
            meant: Vec::new(),
            applied: Vec::new(),
            already: 0,
            earlier: Vec::new(),
            read: false,
            effects: Vec::new(),
            invalid_before: None,
            invalid: Vec::new(),
            begun: false,
            lost: None,
            beside: None,
        }
    }

    async fn report(mut self, url: &str, plan: String) -> Report {
        let run = &mut self;
        let stop = run.drive(url).await;
        let partly = matches!(stop, Err(Stop::Partly(..)));
        let settle = match &stop {
            Err(Stop::Unknown { settle, .. }) => settle.clone(),
            _ => String::new(),
        };
        let (outcome, file, why) = match stop {
            Ok(()) => (WorkOutcome::Done, None, None),
            // The ledger was not read after that.
            Err(Stop::NotBegun(why)) if run.begun => (WorkOutcome::Unknown, None, Some(why)),
            Err(Stop::NotBegun(why)) if run.applied.is_empty() && run.earlier.is_empty() => {
                (WorkOutcome::NotBegun, None, Some(why))
            }
            Err(Stop::NotBegun(why)) => (WorkOutcome::Failed, None, Some(why)),
            Err(Stop::Failed(file, why) | Stop::Partly(file, why)) => (WorkOutcome::Failed, Some(file), Some(why)),
            Err(Stop::Lost(why, _)) if !run.begun => (WorkOutcome::NotBegun, None, Some(why)),
            Err(Stop::Lost(why, _)) => {
                (WorkOutcome::Unknown, None, Some(format!("the connection is lost, and there is no other: {why}")))
            }
            Err(Stop::Unknown { file, why, .. }) => (WorkOutcome::Unknown, file, Some(why)),
        };
        let Run { applied, already, earlier, read, effects, invalid, .. } = self;
        let left = match invalid.is_empty() {
            true => String::new(),
            false => format!("; indexes that are left invalid: {}", invalid.join(", ")),
        };
        Report {
            outcome,
            plan,
            applied,
            already,
            earlier,
            unread: !read,
            partly,
            file,
            why: why.map(|why| bounded(&format!("{why}{left}"), MOST_TOLD)),
            settle,
            invalid,
            effects,
        }
    }

    /// As often as the connection is lost, and there is time: the ledger tells what became of the file under way.
    async fn drive(&mut self, url: &str) -> Result<(), Stop> {
        let program = format!("servicerelease/migrate {}", self.settings.release);
        let options = connection::options(url, &program).map_err(|error| Stop::NotBegun(error.to_string()))?;
        self.beside = self.settings.confined.then(|| options.clone());
        loop {
            match self.session(&options).await {
                Err(Stop::Lost(..)) if Instant::now() + PAUSE < self.deadline => sleep(PAUSE).await,
                ended => return ended,
            }
        }
    }

    async fn session(&mut self, options: &PgConnectOptions) -> Result<(), Stop> {
        let left = self.left();
        let within = if self.begun { left } else { left.min(CONNECT) };
        let connected = connection::connect(options, within).await;
        let mut connection = connected.map_err(|error| match self.begun {
            true => Stop::unknown(error.to_string()),
            false => Stop::NotBegun(error.to_string()),
        })?;
        self.lock(&mut connection).await?;
        ledger::settings(&mut connection).await?;
        let server = server_started(&mut connection).await?;
        if let Some(why) = meant::differs(&mut connection, &self.settings.meant).await? {
            return Err(Stop::NotBegun(why));
        }
        if let Err(why) = others::gone(&mut connection, None, self.deadline).await? {
            return Err(if self.begun { Stop::unknown(why) } else { Stop::NotBegun(why) });
        }
        let ledger = Ledger::open(&mut connection, &self.settings.set, &self.settings.release).await?;
        if let Some(which) = &self.settings.which
            && ledger.is_barred(&mut connection, which).await?
        {
            return Err(Stop::NotBegun(format!(
                "it was settled that try {} of the {} is over",
                which.number, which.of
            )));
        }
        let pending = self.pending(&mut connection, &ledger).await?;
        if self.invalid_before.is_none() {
            self.invalid_before = Some(pending::invalid_indexes(&mut connection).await?);
        }
        for file in pending {
            self.may_run(file, &server)?;
            if !self.begun {
                ledger::kept(&mut connection).await?;
            }
            self.begun = true;
            let done = match &file.body {
                Body::Transaction(statements) => self.together(&mut connection, &ledger, file, statements).await,
                Body::Alone(statements) => self.alone(&mut connection, &ledger, file, statements).await,
            };
            if matches!(done, Err(Stop::Partly(..))) {
                self.note_invalid(&mut connection).await;
            }
            done.inspect_err(|stop| self.note_loss(file, stop, &server))?;
            self.applied.push(file.name.clone());
            ledger::settings(&mut connection).await?;
        }
        let _ = connection.close().await;
        Ok(())
    }

    /// Notes which indexes are left that were not there before it began, as far as that is known.
    async fn note_invalid(&mut self, connection: &mut PgConnection) {
        let known = self.invalid_before.as_deref().unwrap_or_default();
        let mut invalid = pending::invalid_indexes(connection).await.unwrap_or_default();
        invalid.retain(|index| !known.contains(index));
        self.invalid = invalid;
    }

    /// Whether a file may be run that was perhaps broken off before: as the ledger has it nothing of it is in effect.
    fn may_run(&self, file: &File, server: &str) -> Result<(), Stop> {
        let Some(Lost { times, why, ended_on, .. }) = self.lost.as_ref().filter(|lost| lost.file == file) else {
            return Ok(());
        };
        let why = match ended_on {
            Some(on) if on == server => format!("an administrator ended its session: {why}"),
            _ if *times > RERUNS => format!("the connection was lost {times} times while it was run: {why}"),
            _ => return Ok(()),
        };
        Err(Stop::Failed(file.name.clone(), why))
    }

    fn note_loss(&mut self, file: &'a File, stop: &Stop, server: &str) {
        let Stop::Lost(why, ended) = stop else { return };
        let before = self.lost.take().filter(|lost| lost.file == file).map_or(0, |lost| lost.times);
        let ended_on = ended.then(|| server.to_owned());
        self.lost = Some(Lost { file, times: before + 1, why: why.clone(), ended_on });
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn lock(&self, connection: &mut PgConnection) -> Result<(), Stop> {
        let mut told = None;
        while !ledger::lock(connection).await? {
            let holder = ledger::holder(connection).await?;
            if let Some(holder) = holder.filter(|it| told.as_ref() != Some(it)) {
                eprintln!("waits for {holder}, which migrates this database");
                told = Some(holder);
            }
            if Instant::now() + PAUSE >= self.deadline {
                let why = ledger::told_holder(connection).await?;
                return Err(if self.begun { Stop::unknown(why) } else { Stop::NotBegun(why) });
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The files that are still to do.
    async fn pending(&mut self, connection: &mut PgConnection, ledger: &Ledger) -> Result<Vec<&'a File>, Stop> {
        let entries = ledger.entries(connection).await?;
        self.read = true;
        let sorted = match self.direction {
            Direction::Up => pending::sort(self.files, &entries, ledger),
            Direction::Down(of) => pending::sort_down(self.files, &entries, of, ledger),
        };
        if matches!(sorted, Err(Conflict::Unknown { .. })) {
            self.note_invalid(connection).await;
        }
        let Sorted { pending, applied } = sorted?;
        if self.begun {
            // What this run committed, and did not hear of. Others may have had the lock meanwhile.
            let mine = |file: &File| {
                let own = |entry: &&ledger::Entry| entry.release == self.settings.release;
                let up = matches!(self.direction, Direction::Up);
                !up || entries.iter().filter(own).any(|entry| entry.version == file.version)
            };
            let done = self.meant.iter().filter(|file| !pending.contains(file) && mine(file));
            self.applied = done.map(|file| file.name.clone()).collect();
        } else {
            self.already = applied.len();
            self.earlier = self.earlier(&entries, applied);
            self.meant.clone_from(&pending);
        }
        Ok(pending)
    }

    /// The files among those applied that this very release applied.
    fn earlier(&self, entries: &[ledger::Entry], applied: Vec<String>) -> Vec<String> {
        let mine = |name: &String| {
            let own = |entry: &&ledger::Entry| entry.release == self.settings.release;
            entries.iter().filter(own).any(|entry| entry.name == *name)
        };
        match self.direction {
            Direction::Up => applied.into_iter().filter(mine).collect(),
            Direction::Down(_) => Vec::new(),
        }
    }

    /// Runs statements and their note in one transaction.
    async fn together(
        &mut self,
        connection: &mut PgConnection,
        ledger: &Ledger,
        file: &File,
        statements: &[Statement],
    ) -> Result<(), Stop> {
        let mut tries = 1;
        loop {
            let Broken { line, error } = match self.transaction(connection, ledger, file, statements).await {
                Ok(effects) => {
                    self.effects.extend(effects);
                    return Ok(());
                }
                Err(broken) => broken,
            };
            if is_lost(&error) {
                return Err(error.into());
            }
            let pause = PAUSE * tries;
            if !is_contended(&error) || tries == TRIES || pause >= self.left() {
                let times = if tries > 1 { format!(", tried {tries} times") } else { String::new() };
                return Err(Stop::Failed(file.name.clone(), format!("{}{}{times}", place(line), told(&error))));
            }
            eprintln!("{}: {}{}; try {tries} of {TRIES}", file.name, place(line), told(&error));
            tries += 1;
            sleep(pause).await;
        }
    }

    /// Once.
    async fn transaction(
        &self,
        connection: &mut PgConnection,
        ledger: &Ledger,
        file: &File,
        statements: &[Statement],
    ) -> Result<Option<Effects>, Broken> {
        let mut transaction = connection.begin().await?;
        match self.body(&mut transaction, ledger, file, statements).await {
            Ok(effects) => {
                transaction.commit().await?;
                Ok(effects)
            }
            Err(broken) => {
                let _ = transaction.rollback().await;
                Err(broken)
            }
        }
    }

    /// What stands between BEGIN and COMMIT.
    async fn body(
        &self,
        connection: &mut PgConnection,
        ledger: &Ledger,
        file: &File,
        statements: &[Statement],
    ) -> Result<Option<Effects>, Broken> {
        let begun = Instant::now();
        let before = if self.settings.observe { Some(Before::look(connection).await?) } else { None };
        let (locks, left) = (self.settings.lock_timeout.as_millis(), self.left().as_millis().max(1));
        let limits = format!("SET LOCAL lock_timeout = {locks}; SET LOCAL statement_timeout = {left}");
        connection.execute(sqlx::raw_sql(AssertSqlSafe(limits))).await?;
        for statement in statements {
            let ran = connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.text.clone()))).await;
            ran.map_err(|error| Broken { line: Some(statement.line), error })?;
        }
        connection.execute(sqlx::raw_sql("RESET ROLE")).await?;
        if let Some(beside) = &self.beside
            && let Some(changed) = shared::changed_within(connection, beside).await?
        {
            return Err(sqlx::Error::Configuration(changed.into()).into());
        }
        let effects = match before {
            Some(before) => {
                let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let locks = before.compare(connection).await?;
                Some(Effects { file: file.name.clone(), millis, locks })
            }
            None => None,
        };
        let noted = match self.direction {
            Direction::Up => ledger.note(connection, file, "Applied").await?,
            Direction::Down(_) => ledger.forget(connection, &file.version).await?,
        };
        match noted {
            true => Ok(effects),
            false => {
                Err(sqlx::Error::Configuration("a statement of it gave up the lock of the migration".into()).into())
            }
        }
    }

    /// Runs a statement in no transaction; how often, if it fails. What is done concurrently waits for all older transactions
    /// and is in nobody's way: it has as long as there is. Behind all else that waits for a lock others queue up, so that it
    /// makes room after a while, and is tried again: what did not get its lock has done nothing.
    async fn by_itself(&self, connection: &mut PgConnection, statement: &Statement) -> Result<(), (sqlx::Error, u32)> {
        let locks = if statement.is_concurrent() { 0 } else { self.settings.lock_timeout.as_millis() };
        let mut tries = 1;
        loop {
            let left = self.left().as_millis().max(1);
            let limits = format!("SET lock_timeout = {locks}; SET statement_timeout = {left}");
            connection.execute(sqlx::raw_sql(AssertSqlSafe(limits))).await.map_err(|error| (error, tries))?;
            let ran = connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.text.clone()))).await;
            // The note that follows is not to be given up for a lock.
            let _ = connection.execute(sqlx::raw_sql("RESET lock_timeout")).await;
            let Err(error) = ran else { return Ok(()) };
            let pause = PAUSE * tries;
            if locks == 0 || !is_contended(&error) || tries == TRIES || pause >= self.left() {
                return Err((error, tries));
            }
            eprintln!("{}{}; try {tries} of {TRIES}", place(Some(statement.line)), told(&error));
            tries += 1;
            sleep(pause).await;
        }
    }

    /// Runs statements one by one, with a note before the first and after the last.
    async fn alone(
        &self,
        connection: &mut PgConnection,
        ledger: &Ledger,
        file: &File,
        statements: &[Statement],
    ) -> Result<(), Stop> {
        if let Err(why) = noted(ledger.note(connection, file, "Started").await)? {
            return Err(Stop::Failed(file.name.clone(), format!("that it begins cannot be noted: {why}")));
        }
        for (done, statement) in statements.iter().enumerate() {
            let Err((error, tries)) = self.by_itself(connection, statement).await else { continue };
            if is_lost(&error) {
                return Err(error.into());
            }
            let times = if tries > 1 { format!(", tried {tries} times") } else { String::new() };
            let unnoted = noted(ledger.note(connection, file, "Failed").await)?.err();
            let before =
                if done > 0 { format!("; the {done} statements before it are in effect") } else { String::new() };
            let why = format!(
                "{}{}{times}{before}{}",
                place(Some(statement.line)),
                told(&error),
                if statement.is_concurrent() {
                    "; an index that was being built is left invalid: drop it before this is run again"
                } else {
                    ""
                }
            );
            if let Some(unnoted) = unnoted {
                return Err(Stop::unnoted(ledger, file, &format!("{why}, which cannot be noted: {unnoted}")));
            }
            // What makes no index leaves nothing where it fails.
            let partly = done > 0 || statement.is_concurrent();
            return Err(if partly { Stop::Partly } else { Stop::Failed }(file.name.clone(), why));
        }
        let before = self.invalid_before.as_deref().unwrap_or_default();
        if let Some(why) = pending::passed_over(connection, before, statements).await? {
            let unnoted = noted(ledger.note(connection, file, "Failed").await)?.err();
            let unnoted = unnoted.map(|unnoted| format!(", which cannot be noted: {unnoted}")).unwrap_or_default();
            return Err(Stop::Failed(file.name.clone(), format!("{why}{unnoted}")));
        }
        noted(ledger.note(connection, file, "Applied").await)?
            .map_err(|why| Stop::unnoted(ledger, file, &format!("it is done, which cannot be noted: {why}")))
    }
}

/// Whether a note is in the ledger; else why the server refused it.
fn noted(note: Result<bool, sqlx::Error>) -> Result<Result<(), String>, Stop> {
    match note {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Err(Stop::without_lock()),
        Err(error) if is_lost(&error) => Err(error.into()),
        Err(error) => Ok(Err(told(&error))),
    }
}

fn place(line: Option<u64>) -> String {
    line.map_or(String::new(), |line| format!("line {line}: "))
}
