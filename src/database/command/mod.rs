//! A command of the user's that changes the database (Prisma, Flyway, a script), run under the lock and with a record in
//! the ledger: what PostgreSQL cannot promise for it, since its statements and the record are in no transaction together,
//! is found out or said to be unknown (INVARIANTS D1, D4).

mod backends;
pub mod child;
mod history;
pub(in crate::database) mod others;
mod record;
mod session;
mod settle;
pub mod stop;

use std::{ffi::OsString, process::ExitStatus, time::Duration};

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep, timeout};

pub use record::ledger;
pub use settle::settle;

use crate::{
    api::WorkOutcome,
    engine::{Report, Wrapped},
};

use self::{
    backends::{Tool, Waits},
    child::Child,
    record::{Row, Run},
    session::{ANSWER, Session},
    stop::Stop,
};
use super::{
    Places,
    connection::{self, told},
    hexadecimal, meant,
    migrate::ledger,
    report, route,
    tasks::duration,
};

/// Between two looks at the command's sessions.
const LOOK: Duration = Duration::from_millis(250);
/// How long a command may take to end once it was told to, before it is killed.
const ENDING: Duration = Duration::from_secs(10);
/// How long its server processes may take to end after it.
const GONE: Duration = Duration::from_secs(60);
/// The same, of one that was told to end: then there is not more time.
const GONE_IN_A_HURRY: Duration = Duration::from_secs(12);

/// Runs the command once for each plan, whatever is killed, made twice or lost in between.
pub async fn wrap(places: &Places, wrapped: &Wrapped, mut stop: Stop) -> Report {
    if places.command.is_empty() {
        return report::unread("there is no command: the first container of the template needs `command`");
    }
    let until = Instant::now() + duration(wrapped.timeout);
    let options = match connection::options(&places.url, &format!("servicerelease/wrap {}", wrapped.release)) {
        Ok(options) => options,
        Err(error) => return report::unread(error.to_string()),
    };
    let opened = tokio::select! {
        opened = Session::open(&options, &wrapped.release, until) => opened,
        () = stop.asked() => Err("it was told to end (SIGTERM) before it began".into()),
    };
    let mut session = match opened {
        Ok(session) => session,
        Err(why) => return report::unread(why),
    };
    let begun = tokio::select! {
        begun = begin(&mut session, places, wrapped, until) => begun,
        () = stop.asked() => Ok(Err(report::unread("it was told to end (SIGTERM) before it began"))),
    };
    let run = match begun {
        Ok(Ok(run)) => run,
        Ok(Err(report)) => return report,
        Err(error) => return report::unread(format!("the ledger cannot be written: {}", told(&error))),
    };
    let running = Running { places, wrapped, options, run, session: Some(session), waits: Waits::default() };
    running.drive(until, stop).await
}

/// Looks in the ledger whether this is to be run, and notes that it is.
async fn begin(
    session: &mut Session,
    places: &Places,
    wrapped: &Wrapped,
    until: Instant,
) -> Result<Result<Run, Report>, sqlx::Error> {
    if let Some(why) = meant::differs(&mut session.connection, &wrapped.meant).await? {
        return Ok(Err(report::unread(why)));
    }
    // The lock is the wrapper's, and free as soon as that is killed: its command may go on.
    if let Err(why) = others::gone(&mut session.connection, Some(&wrapped.plan), until).await? {
        return Ok(Err(report::unread(why)));
    }
    if let Some(row) = session.records.find(&mut session.connection, &wrapped.plan).await? {
        match row.state.as_str() {
            "Applied" => {
                let message = format!("it is applied already (by {})", row.by);
                let unchanged = row.run.unchanged && row.release == wrapped.release;
                return Ok(Err(Report { unchanged, ..report::of(WorkOutcome::Done, message) }));
            }
            "Started" => {
                if let Some(report) = begun_before(session, wrapped, &row, until).await? {
                    return Ok(Err(report));
                }
            }
            _ if row.is_of(wrapped) && row.run.begun => {
                return Ok(Err(report::failed(row.failed())));
            }
            _ if row.is_of(wrapped) => return Ok(Err(report::not_begun(row.run.why))),
            _ if row.is_later(wrapped) => {
                return Ok(Err(report::not_begun(format!("a later release has begun it ({})", row.by))));
            }
            _ => {}
        }
    }
    if let Some(shared) = wrapped.shared() {
        let found = others::of_same(&mut session.connection, wrapped, shared).await?;
        if let Some(report) = found {
            return Ok(Err(report));
        }
    }
    // Preflight has looked, but not from the pod of a seed, or of what takes a migration back.
    match route::look_from(&mut session.connection, places).await {
        Ok(faults) if faults.is_empty() => {}
        Ok(faults) => return Ok(Err(report::unread(report::faults(&faults)))),
        Err(why) => return Ok(Err(report::unread(why))),
    }
    let token = token(wrapped);
    let program = format!("{}{} {}", backends::NAMED, token, wrapped.release);
    let program = program[..program.floor_char_boundary(63)].to_owned();
    let tool = Tool::beside(&mut session.connection, program).await?;
    if let Err(error) = ledger::kept(&mut session.connection).await {
        return Ok(Err(report::unread(told(&error))));
    }
    let run = Run { attempt: wrapped.attempt, token, begun: true, tool, ..Run::default() };
    match session.records.write(&mut session.connection, wrapped, "Started", &run).await? {
        true => Ok(Ok(run)),
        false => Ok(Err(report::unread("the lock of the migration was lost"))),
    }
}

/// An earlier run of which nobody knows the end: none of its server processes is left when this returns nothing.
async fn begun_before(
    session: &mut Session,
    wrapped: &Wrapped,
    row: &Row,
    until: Instant,
) -> Result<Option<Report>, sqlx::Error> {
    let within = until.saturating_duration_since(Instant::now());
    let gone = row.run.tool.gone(&mut session.connection, within, true).await?;
    if gone.is_ok() && wrapped.again {
        return Ok(None);
    }
    Ok(Some(settle::not_known(session, wrapped, row, gone).await?))
}

/// Something that no other run has.
fn token(wrapped: &Wrapped) -> String {
    let mut hash = Sha256::new();
    hash.update(&wrapped.plan);
    hash.update(fastrand::u128(..).to_be_bytes());
    hexadecimal(&hash.finalize())[..8].to_owned()
}

/// A command that runs, or is about to.
struct Running<'a> {
    places: &'a Places,
    wrapped: &'a Wrapped,
    options: PgConnectOptions,
    run: Run,
    /// The session with the lock; none while it is lost.
    session: Option<Session>,
    waits: Waits,
}

/// Why a command was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Its time was over.
    Timeout,
    /// The pod is to end.
    Told,
    /// Somebody else began the same plan, after this one had lost the lock.
    Replaced,
}

/// How a command ended.
struct Ended<'a> {
    status: Result<ExitStatus, std::io::Error>,
    ending: Option<Ending>,
    said: &'a str,
    /// What the tool had on record before.
    history: Option<String>,
}

impl Ending {
    fn told(self, wrapped: &Wrapped) -> String {
        match self {
            Self::Timeout => format!("it took longer than {}, and was ended; ", wrapped.timeout),
            Self::Told => "it was told to end (SIGTERM): its pod was deleted or evicted; ".into(),
            Self::Replaced => "the lock was lost, and somebody else began the same; it was ended; ".into(),
        }
    }
}

impl Running<'_> {
    async fn drive(mut self, until: Instant, mut stop: Stop) -> Report {
        let history = self.history().await;
        let variables = self.variables(until).await;
        let child = Child::spawn(&self.places.command, &variables, &self.places.secrets());
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                let program = self.places.command.first().map(|it| it.to_string_lossy().into_owned());
                let why = format!("the command {} cannot be run: {error}", program.unwrap_or_default());
                self.run.begun = false;
                self.run.why.clone_from(&why);
                let noted = self.note("Failed", Instant::now() + ANSWER).await;
                return report::not_begun(noted.map_or_else(|left| format!("{why}; {left}"), |()| why.clone()));
            }
        };
        let (status, ending) = self.watch(&mut child, until, &mut stop).await;
        let said = child.last_words().await;
        self.end(Ended { status, ending, said: &said, history }, until).await
    }

    /// What the tool that is run has on record.
    async fn history(&mut self) -> Option<String> {
        let session = self.session.as_mut()?;
        timeout(ANSWER, history::of(&mut session.connection, &self.places.command)).await.ok().flatten()
    }

    /// What the command has in its environment beside what the pod has.
    async fn variables(&mut self, until: Instant) -> Vec<(String, OsString)> {
        let (locks, all) =
            (self.wrapped.lock_timeout.as_millis(), until.saturating_duration_since(Instant::now()).as_millis().max(1));
        let mut options = format!("-c statement_timeout={all} -c lock_timeout={locks}");
        options.extend(connection::NOTICE.map(|(name, value)| format!(" -c {name}={value}")));
        if let Some(Session { connection, .. }) = &mut self.session {
            let known =
                "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval')";
            if sqlx::query_scalar::<_, bool>(known).fetch_one(connection).await.unwrap_or(false) {
                options.push_str(" -c client_connection_check_interval=500");
            }
        }
        if let Ok(own) = std::env::var("PGOPTIONS") {
            // What the pod's author says comes last, and so is what counts.
            options = format!("{options} {own}");
        }
        vec![("PGAPPNAME".into(), self.run.tool.program.clone().into()), ("PGOPTIONS".into(), options.into())]
    }

    /// Until the command has ended.
    async fn watch(
        &mut self,
        child: &mut Child,
        until: Instant,
        stop: &mut Stop,
    ) -> (Result<ExitStatus, std::io::Error>, Option<Ending>) {
        let mut ending = None;
        let mut next = until;
        loop {
            let why = tokio::select! {
                status = child.wait() => return (status, ending),
                () = stop.asked(), if ending.is_none() => Some(Ending::Told),
                () = tokio::time::sleep_until(next) => {
                    if ending.is_some() {
                        child.signal(Signal::KILL);
                        next = Instant::now() + ENDING;
                        continue;
                    }
                    Some(Ending::Timeout)
                }
                () = sleep(LOOK) => None,
            };
            let why = match why {
                Some(why) => Some(why),
                None => tokio::select! {
                    status = child.wait() => return (status, ending),
                    replaced = self.look() => replaced.then_some(Ending::Replaced).filter(|_| ending.is_none()),
                },
            };
            if let Some(why) = why {
                ending = Some(why);
                child.signal(Signal::TERM);
                next = Instant::now() + ENDING;
            }
        }
    }

    /// Looks at its sessions once; makes the session with the lock anew if it is lost. Says whether somebody else has
    /// begun the same.
    async fn look(&mut self) -> bool {
        let Some(session) = &mut self.session else { return self.again(LOOK).await };
        let limit = duration(self.wrapped.lock_timeout);
        let look = self.waits.look(&mut session.connection, &self.run.tool, limit);
        let looked = timeout(ANSWER, look).await;
        if !matches!(looked, Ok(Ok(()))) {
            self.session = None;
        }
        false
    }

    /// Takes the lock again. Says whether somebody else has begun the same in between.
    async fn again(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within.max(Duration::from_secs(2));
        let opened = timeout(within + ANSWER, Session::open(&self.options, &self.wrapped.release, until)).await;
        let Ok(Ok(mut session)) = opened else { return false };
        let row = session.records.find(&mut session.connection, &self.wrapped.plan).await;
        match row {
            Ok(Some(row)) if row.run.token == self.run.token => {
                self.session = Some(session);
                false
            }
            // It is not this one's record any more.
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// The command has ended: its server processes are waited for, and what became of it is noted.
    async fn end(mut self, ended: Ended<'_>, until: Instant) -> Report {
        let Ended { status, ending, said, history } = ended;
        let ended = status.as_ref().map_or_else(ToString::to_string, |status| child::told(*status));
        let success = status.is_ok_and(|status| status.success());
        let waits = self.waits.told(duration(self.wrapped.lock_timeout));
        let why = ending.map(|ending| ending.told(self.wrapped)).unwrap_or_default();
        let told = format!("{why}{waits}{ended}{}{said}", if said.is_empty() { "" } else { ": " });
        if ending == Some(Ending::Replaced) {
            return report::unknown(told);
        }
        let hurry = ending == Some(Ending::Told);
        let by = if hurry { Instant::now() + GONE_IN_A_HURRY } else { until.max(Instant::now() + GONE) };
        match self.gone(by, ending.is_some(), ending.is_some() || !success).await {
            Ok(()) => {}
            Err(left) => return report::unknown(format!("{left}; {told}")),
        }
        self.run.why = if success { String::new() } else { report::cut(&told, 300) };
        self.run.unchanged = success && history.is_some() && self.history().await == history;
        let unchanged = self.run.unchanged;
        let state = if success { "Applied" } else { "Failed" };
        match self.note(state, by).await {
            Err(left) => report::unknown(format!("{left}; {told}")),
            Ok(()) if unchanged => Report {
                unchanged,
                ..report::of(
                    WorkOutcome::Done,
                    format!("{waits}{ended}; it had nothing to do: what it has on record is as it was"),
                )
            },
            Ok(()) if success => report::of(WorkOutcome::Done, format!("{waits}{ended}")),
            Ok(()) => report::failed(told),
        }
    }

    /// Waits until no server process of the command is at work; with `doubtful`, none that may be its own.
    async fn gone(&mut self, by: Instant, cancel: bool, doubtful: bool) -> Result<(), String> {
        loop {
            let left = by.saturating_duration_since(Instant::now());
            if let Some(session) = &mut self.session {
                if cancel {
                    let _ = self.run.tool.cancel(&mut session.connection).await;
                }
                match timeout(left + ANSWER, self.run.tool.gone(&mut session.connection, left, doubtful)).await {
                    Ok(Ok(Ok(()))) => return Ok(()),
                    Ok(Ok(Err(left))) => {
                        return Err(format!("it ended, but its server processes did not: {}", left.join(", ")));
                    }
                    Ok(Err(_)) | Err(_) => self.session = None,
                }
            } else if self.again(left.min(ANSWER)).await {
                return Err("the lock was lost, and somebody else began the same".into());
            }
            if Instant::now() >= by && self.session.is_none() {
                return Err("there is no way to the database any more, or somebody else has the lock".into());
            }
            sleep(LOOK).await;
        }
    }

    /// Notes how it ended, over a new session if need be.
    async fn note(&mut self, state: &str, by: Instant) -> Result<(), String> {
        loop {
            if let Some(session) = &mut self.session {
                let written = session.records.write(&mut session.connection, self.wrapped, state, &self.run);
                if let Ok(Ok(true)) = timeout(ANSWER, written).await {
                    if let Some(session) = self.session.take() {
                        session.close().await;
                    }
                    return Ok(());
                }
                self.session = None;
            }
            if Instant::now() >= by {
                return Err(
                    "its end cannot be noted in the ledger: there is no way to the database any more, or somebody \
                            else has the lock"
                        .into(),
                );
            }
            sleep(LOOK).await;
            if self.again(ANSWER).await {
                return Err("the lock was lost, and somebody else began the same".into());
            }
        }
    }
}
