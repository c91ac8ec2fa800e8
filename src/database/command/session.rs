//! The session that holds the lock of the database for a command, and what it writes and reads in the ledger.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep};

use crate::database::{
    connection::{self, told},
    migrate::ledger,
};

use super::record::Records;

/// Between two looks at a lock that another one has.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the server may take for a word, before the way to it counts as broken.
pub const ANSWER: Duration = Duration::from_secs(10);

/// A session with the lock.
pub struct Session {
    /// The connection.
    pub connection: PgConnection,
    /// The ledger.
    pub records: Records,
}

impl Session {
    /// Connects, and waits for the lock until a moment.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(options: &PgConnectOptions, release: &str, until: Instant) -> Result<Self, String> {
        let left = until.saturating_duration_since(Instant::now());
        let connected = connection::connect(options, left.min(connection::CONNECT)).await;
        let mut connection = connected.map_err(|error| error.to_string())?;
        while !ledger::lock(&mut connection).await.map_err(|error| told(&error))? {
            if Instant::now() + PAUSE >= until {
                return Err(ledger::told_holder(&mut connection).await.unwrap_or_else(|error| told(&error)));
            }
            sleep(PAUSE).await;
        }
        ledger::settings(&mut connection).await.map_err(|error| told(&error))?;
        let records = Records::open(&mut connection, release).await.map_err(|error| told(&error))?;
        Ok(Self { connection, records })
    }

    /// Gives the lock back.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }
}
