//! What became of a command whose Job is gone.

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    api::WorkOutcome,
    database::{
        Places,
        connection::{self, told},
        report,
        tasks::duration,
        verify,
    },
    engine::{Report, Wrapped},
};

use super::{
    record::{Row, Run},
    session::Session,
};

/// What is said of one that has not begun.
const NEVER: &str = "it was never begun";
/// The longest that is told of where to look, in bytes.
const LOOK: usize = 190;

/// Waits until nobody is at work, and reads in the ledger what became of it. One that has not begun will not do so
/// afterwards either.
pub async fn settle(places: &Places, wrapped: &Wrapped) -> Report {
    let until = Instant::now() + duration(wrapped.timeout);
    let options = match connection::options(&places.url, &format!("servicerelease/settle {}", wrapped.release)) {
        Ok(options) => options,
        Err(error) => return report::unknown(error.to_string()),
    };
    let mut session = match Session::open(&options, &wrapped.release, until).await {
        Ok(session) => session,
        Err(why) => return report::unknown(why),
    };
    let settled = read(&mut session, wrapped, until).await;
    session.close().await;
    settled.unwrap_or_else(|error| report::unknown(told(&error)))
}

async fn read(session: &mut Session, wrapped: &Wrapped, until: Instant) -> Result<Report, sqlx::Error> {
    let Session { connection, records } = session;
    let row = records.find(connection, &wrapped.plan).await?;
    match row {
        Some(row) if row.state == "Applied" => {
            let unchanged = row.run.unchanged && row.release == wrapped.release;
            let message = format!("the ledger has it as applied (begun by {})", row.by);
            Ok(Report { unchanged, ..report::of(WorkOutcome::Done, message) })
        }
        Some(row) if row.state == "Started" => left(session, wrapped, &row, until).await,
        // What is on record of this release is so, whichever try of it that was.
        Some(row) if row.release == wrapped.release => over(session, wrapped, row).await,
        _ => {
            let why = "it was settled that it had not begun".to_owned();
            bar(session, wrapped, Run { why, ..Run::default() }, report::not_begun(NEVER)).await
        }
    }
}

/// One that failed, or was settled as not begun before.
async fn over(session: &mut Session, wrapped: &Wrapped, row: Row) -> Result<Report, sqlx::Error> {
    let is_barred = row.is_of(wrapped);
    let settled = if row.run.begun { report::failed(row.failed()) } else { report::not_begun(NEVER) };
    if is_barred { Ok(settled) } else { bar(session, wrapped, row.run, settled).await }
}

/// Notes that the try that is asked about is over: a pod that comes late finds this, and does not begin.
async fn bar(session: &mut Session, wrapped: &Wrapped, run: Run, settled: Report) -> Result<Report, sqlx::Error> {
    let run = Run { attempt: wrapped.attempt, ..run };
    let barred = session.records.write(&mut session.connection, wrapped, "Failed", &run).await?;
    Ok(if barred { settled } else { report::unknown("the lock of the migration was lost") })
}

/// A run that was begun and has no end on record: first its server processes end, then it is not known.
async fn left(session: &mut Session, wrapped: &Wrapped, row: &Row, until: Instant) -> Result<Report, sqlx::Error> {
    let within = until.saturating_duration_since(Instant::now());
    let gone = row.run.tool.gone(&mut session.connection, within, true).await?;
    not_known(session, wrapped, row, gone).await
}

/// What a person is told about a run of which nobody knows the end.
pub async fn not_known(
    session: &mut Session,
    wrapped: &Wrapped,
    row: &Row,
    gone: Result<(), Vec<String>>,
) -> Result<Report, sqlx::Error> {
    if let Err(left) = gone {
        return Ok(report::unknown(format!(
            "it was begun by {} and is still at work: {}; wait for its end, or: SELECT pg_terminate_backend(PID)",
            row.by,
            left.join(", ")
        )));
    }
    let settle = session.records.settle(&wrapped.plan);
    no_end(&mut session.connection, &row.by, settle).await
}

/// The same where none of its server processes is left. `settle`: the statement by which the person says what became of it.
pub async fn no_end(connection: &mut PgConnection, by: &str, settle: String) -> Result<Report, sqlx::Error> {
    let dirt = verify::half_way(connection).await?;
    let look = match dirt.is_empty() {
        true => "the tool's own table (_prisma_migrations, flyway_schema_history, schema_migrations) has nothing half-done: look which \
                 migrations it has"
            .to_owned(),
        false => dirt.join("; "),
    };
    let told = format!("begun by {by}, its end is not on record. {}", report::cut(&look, LOOK));
    Ok(Report { settle, ..report::unknown(told) })
}
