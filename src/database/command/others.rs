//! Commands of other releases. The wrapper of one may be gone, or have lost the lock: its server processes go on without it,
//! and whoever has the lock by then is not alone yet. And one may be the same that is about to be run.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{
    api::WorkOutcome,
    database::{migrate::ledger, report},
    engine::{Report, Wrapped},
};

use super::{
    record::{self, BY, Run, SET},
    settle,
};

/// How long the processes of one are looked at before the lock is given back: longer than a session may be idle that is its own.
const LOOK: Duration = Duration::from_secs(6);
/// How long the lock is free in between: a wrapper that is still there and has lost it takes it again in that time.
const FREE: Duration = Duration::from_secs(1);
/// Between two looks at a lock that another one has.
const PAUSE: Duration = Duration::from_millis(250);

/// Waits until no command that any ledger of the database has as begun is at work any more, but that of a plan. The lock,
/// which this session has, it has afterwards, too.
///
/// # Errors
/// The connection is lost. Else who is still at work when the time is over.
pub async fn gone(
    connection: &mut PgConnection,
    but: Option<&str>,
    until: Instant,
) -> Result<Result<(), String>, sqlx::Error> {
    loop {
        let Some(why) = at_work(connection, but, until).await? else { return Ok(Ok(())) };
        if Instant::now() + FREE >= until {
            return Ok(Err(why));
        }
        ledger::release(connection).await?;
        sleep(FREE).await;
        while !ledger::lock(connection).await? {
            if Instant::now() + PAUSE >= until {
                return Ok(Err(why));
            }
            sleep(PAUSE).await;
        }
    }
}

/// One that is still at work after it was looked at for a while.
async fn at_work(
    connection: &mut PgConnection,
    but: Option<&str>,
    until: Instant,
) -> Result<Option<String>, sqlx::Error> {
    for table in ledger::tables(connection, "run").await? {
        let begun = format!(
            "SELECT version, {BY}, coalesce(run, '') FROM {table} WHERE set_name = '{SET}' AND state = 'Started' AND version IS DISTINCT FROM $1"
        );
        let begun = sqlx::query_as(AssertSqlSafe(begun)).persistent(false).bind(but);
        let begun: Vec<(String, String, String)> = begun.fetch_all(&mut *connection).await?;
        for (plan, by, run) in begun {
            let Run { tool, .. } = serde_json::from_str(&run).unwrap_or_default();
            // Without it nobody knows its sessions.
            if tool.since.is_empty() {
                continue;
            }
            let within = LOOK.min(until.saturating_duration_since(Instant::now()));
            if let Err(left) = tool.gone(connection, within, true).await? {
                return Ok(Some(format!(
                    "a command that was begun by {by} is still at work: {}; wait for its end, or: SELECT pg_terminate_backend(PID) \
                     (plan {plan} in {table})",
                    left.join(", ")
                )));
            }
        }
    }
    Ok(None)
}

/// What other releases, whichever ledger of the database has it, did with the same command: it is applied already, or nobody
/// knows whether it is. None of its server processes is at work any more. Nothing: it is still to be run.
pub async fn of_same(
    connection: &mut PgConnection,
    wrapped: &Wrapped,
    shared: &str,
) -> Result<Option<Report>, sqlx::Error> {
    let mut doubtful = None;
    for table in ledger::tables(connection, "run").await? {
        let query = format!(
            "SELECT state, version, {BY} FROM {table} WHERE set_name = '{SET}' AND starts_with(version, $1) AND version <> $2 \
             AND state IN ('Applied', 'Started') ORDER BY state LIMIT 1"
        );
        let query = sqlx::query_as(AssertSqlSafe(query)).persistent(false).bind(shared).bind(&wrapped.plan);
        let found: Option<(String, String, String)> = query.fetch_optional(&mut *connection).await?;
        match found {
            Some((state, _, by)) if state == "Applied" => {
                let message = format!("it is applied already (by {by})");
                return Ok(Some(Report { unchanged: true, ..report::of(WorkOutcome::Done, message) }));
            }
            Some((_, plan, by)) => doubtful = doubtful.or(Some((record::settle_in(&table, &plan), by))),
            None => {}
        }
    }
    match doubtful.filter(|_| !wrapped.again) {
        Some((settle, by)) => Ok(Some(settle::no_end(connection, &by, settle).await?)),
        None => Ok(None),
    }
}
