//! What the ledger has of a command: one row for each plan, with what is needed to find its server processes.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::{
    database::migrate::ledger::{self, Ledger},
    engine::Wrapped,
};

use super::backends::Tool;

/// The set that rows of commands are of. Sets of files are called otherwise: theirs have versions that are numbers.
pub const SET: &str = "command";

/// What a row has in its column `run`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Run {
    /// Which try of the release it is of.
    pub attempt: i32,
    /// Tells this run from all others.
    pub token: String,
    /// Whether the command was to be started at all; if not, the row keeps a late pod from doing so.
    pub begun: bool,
    /// By what its sessions are known.
    pub tool: Tool,
    /// Whether it ended well, and had nothing to do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Started, Applied or Failed.
    pub state: String,
    /// Of which release.
    pub release: String,
    /// The same, and when it was begun.
    pub by: String,
    /// What else is known of it.
    pub run: Run,
}

impl Row {
    /// Whether it is of the same try of the same release, or of a later one: then the try that is asked about is over.
    pub fn is_of(&self, wrapped: &Wrapped) -> bool {
        self.release == wrapped.release && self.run.attempt >= wrapped.attempt
    }

    /// Whether a later release of the same object has written it: then those before it are over.
    pub fn is_later(&self, wrapped: &Wrapped) -> bool {
        let split = |release: &str| {
            let (name, rest) = release.split_once('#')?;
            let (number, object) = rest.split_once('-').unwrap_or((rest, ""));
            Some((name.to_owned(), object.to_owned(), number.parse::<i64>().ok()?))
        };
        let (known, asked) = (split(&self.release), split(&wrapped.release));
        known.zip(asked).is_some_and(|(known, asked)| (&known.0, &known.1) == (&asked.0, &asked.1) && known.2 > asked.2)
    }

    /// That it failed, and why.
    pub fn failed(&self) -> String {
        let why = if self.run.why.is_empty() { "a person has noted that it failed" } else { &self.run.why };
        format!("it failed (begun by {}): {why}", self.by)
    }
}

/// Where the rows of commands are.
pub async fn ledger(connection: &mut PgConnection, release: &str) -> Result<Ledger, sqlx::Error> {
    Ledger::open_apart(connection, SET, release).await
}

/// The rows of commands.
#[derive(Debug)]
pub struct Records {
    ledger: Ledger,
}

impl Records {
    /// Opens them; makes the ledger where there is none.
    pub async fn open(connection: &mut PgConnection, release: &str) -> Result<Self, sqlx::Error> {
        let ledger = self::ledger(connection, release).await?;
        // One that was made before commands had rows in it.
        let known = "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'run' \
                     AND NOT attisdropped)";
        let known: bool = sqlx::query_scalar(known).bind(ledger.table()).fetch_one(&mut *connection).await?;
        if !known {
            let add = format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS run text", ledger.table());
            connection.execute(sqlx::raw_sql(AssertSqlSafe(add))).await?;
        }
        Ok(Self { ledger })
    }

    /// The row of a plan.
    pub async fn find(&self, connection: &mut PgConnection, plan: &str) -> Result<Option<Row>, sqlx::Error> {
        let query = format!(
            "SELECT state, release, {BY}, coalesce(run, '') FROM {} WHERE set_name = '{SET}' AND version = $1",
            self.ledger.table()
        );
        let row: Option<(String, String, String, String)> =
            sqlx::query_as(AssertSqlSafe(query)).persistent(false).bind(plan).fetch_optional(connection).await?;
        let row = row.map(|(state, release, by, run)| {
            let run = serde_json::from_str(&run).unwrap_or_default();
            Row { state, release, by, run }
        });
        Ok(row)
    }

    /// Writes the row of a plan, in the place of one of another run, if this session holds the lock. Says whether it does.
    pub async fn write(
        &self,
        connection: &mut PgConnection,
        wrapped: &Wrapped,
        state: &str,
        run: &Run,
    ) -> Result<bool, sqlx::Error> {
        let finished = if state == "Started" { "NULL" } else { "clock_timestamp()" };
        let write = format!(
            "INSERT INTO {table} AS known (set_name, version, name, checksum, state, release, finished_at, run) \
             SELECT '{SET}', $1, 'a command', $1, $2, $3, {finished}, $4 WHERE {holds} \
             ON CONFLICT (set_name, version) DO UPDATE SET state = $2, release = $3, run = $4, finished_at = {finished}, \
             started_at = CASE WHEN $2 = 'Started' THEN now() ELSE known.started_at END",
            table = self.ledger.table(),
            holds = ledger::holds(),
        );
        let text = serde_json::to_string(run).unwrap_or_default();
        let written = sqlx::query(AssertSqlSafe(write)).persistent(false).bind(&wrapped.plan).bind(state);
        Ok(written.bind(&wrapped.release).bind(text).execute(connection).await?.rows_affected() == 1)
    }

    /// How a person says what became of a command.
    pub fn settle(&self, plan: &str) -> String {
        settle_in(self.ledger.table(), plan)
    }
}

/// The same of one that is in this ledger.
pub fn settle_in(table: &str, plan: &str) -> String {
    format!("UPDATE {table} SET state = 'Applied' WHERE set_name = '{SET}' AND version = '{plan}'")
}

/// Of which release a row is and since when, for people; in SQL.
pub const BY: &str =
    "format('%s at %s', release, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))";
