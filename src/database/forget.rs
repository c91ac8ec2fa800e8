//! What the ledger has of what a release did to the database and took back. Of a migration by a command it is on record that
//! it ran, and no release would run it again. Of a seed the rows may be gone with the tables, so that the next release has to
//! put them in again.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{
    api::{self, WorkOutcome},
    engine::{MIGRATION, Report, Seeded, Wrapped},
};

use super::{
    command,
    connection::{self, told},
    migrate::ledger::{self, Ledger},
    tasks::duration,
};

/// Between two looks at a lock that another one has.
const PAUSE: Duration = Duration::from_millis(250);

/// What is forgotten.
#[derive(Clone, Copy, Debug)]
enum Forgotten<'a> {
    /// A migration by a command.
    Migration,
    /// A seed.
    Seed(&'a Seeded),
}

/// Once a migration was taken back the seed that was put in after it is none any more.
pub async fn seed(url: &str, seed: Option<&Seeded>, release: &str, within: api::Duration, ended: Report) -> Report {
    let Some(seed) = seed.filter(|_| ended.outcome == WorkOutcome::Done) else { return ended };
    match forget(url, Forgotten::Seed(seed), release, duration(within)).await {
        Ok(()) => Report { message: format!("{}; the seed is to be put in again", ended.message), ..ended },
        Err(why) => still_on_record(ended, "the seed as put in", &why),
    }
}

/// And one by a command is not applied any more.
pub async fn migration(url: &str, wrapped: &Wrapped, ended: Report) -> Report {
    if !wrapped.takes_back() || ended.outcome != WorkOutcome::Done {
        return ended;
    }
    match forget(url, Forgotten::Migration, &wrapped.release, duration(wrapped.timeout)).await {
        Ok(()) => ended,
        Err(why) => still_on_record(ended, "the migration as applied", &why),
    }
}

fn still_on_record(ended: Report, what: &str, why: &str) -> Report {
    let message = format!("{}, but the ledger still has {what}: {why}", ended.message);
    Report { outcome: WorkOutcome::Failed, message, ..ended }
}

/// Forgets what a release has done of it. What another release did stays on record, and so does a run of which nobody knows
/// the end. The error is why it is still on record.
async fn forget(url: &str, what: Forgotten<'_>, release: &str, within: Duration) -> Result<(), String> {
    let until = Instant::now() + within;
    let opened = connection::open_unlimited(url, &format!("servicerelease/forget {release}")).await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    ledger::settings(&mut connection).await.map_err(|error| told(&error))?;
    while !ledger::lock(&mut connection).await.map_err(|error| told(&error))? {
        if Instant::now() + PAUSE >= until {
            return Err("somebody else is migrating this database".into());
        }
        sleep(PAUSE).await;
    }
    let forgotten = under_lock(&mut connection, what, release).await;
    let _ = connection.close().await;
    match forgotten {
        Ok(true) => Ok(()),
        Ok(false) => Err("the lock of the migration was lost".into()),
        Err(error) => Err(told(&error)),
    }
}

/// Says whether the lock is still this session's.
async fn under_lock(connection: &mut PgConnection, what: Forgotten<'_>, release: &str) -> Result<bool, sqlx::Error> {
    let (ledger, like) = match what {
        Forgotten::Migration => (command::ledger(connection, release).await?, MIGRATION),
        Forgotten::Seed(Seeded::Files(set)) => (Ledger::of(connection, set, release).await?, ""),
        // One for each object: no other one of this release begins like it.
        Forgotten::Seed(Seeded::Command(plan)) => (command::ledger(connection, release).await?, plan.as_str()),
    };
    if ledger.exists(connection).await? { ledger.forget_all(connection, like).await } else { Ok(true) }
}
