//! What the ledger has of a seed whose migration was taken back: with the tables its rows may be gone, so that the next release
//! has to put them in again.

use std::time::Duration;

use sqlx::Connection as _;
use tokio::time::{Instant, sleep};

use crate::engine::Seeded;

use super::{
    command,
    connection::{self, told},
    migrate::ledger::{self, Ledger},
};

/// Between two looks at a lock that another one has.
const PAUSE: Duration = Duration::from_millis(250);

/// Forgets what a release has put in of it. What another release put in stays on record, and so does a run of which nobody
/// knows the end.
///
/// # Errors
/// Why it is still on record.
pub async fn forget(url: &str, seed: &Seeded, release: &str, within: Duration) -> Result<(), String> {
    let until = Instant::now() + within;
    let opened = connection::open_unlimited(url, &format!("servicerelease/seed {release}")).await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    ledger::settings(&mut connection).await.map_err(|error| told(&error))?;
    while !ledger::lock(&mut connection).await.map_err(|error| told(&error))? {
        if Instant::now() + PAUSE >= until {
            return Err("somebody else is migrating this database".into());
        }
        sleep(PAUSE).await;
    }
    let forgotten = async {
        let (ledger, plan) = match seed {
            Seeded::Files(set) => (Ledger::of(&mut connection, set, release).await?, None),
            Seeded::Command(plan) => (command::ledger(&mut connection, release).await?, Some(plan.as_str())),
        };
        if ledger.exists(&mut connection).await? { ledger.forget_all(&mut connection, plan).await } else { Ok(true) }
    };
    let forgotten = forgotten.await;
    let _ = connection.close().await;
    match forgotten {
        Ok(true) => Ok(()),
        Ok(false) => Err("the lock of the migration was lost".into()),
        Err(error) => Err(told(&error)),
    }
}
