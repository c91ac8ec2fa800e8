//! The ledger: a table in the database with a row for each file that was run, and the lock under which it is written.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use tokio::time::sleep;

use crate::{
    database::connection::{self, LOOKS},
    engine::Try,
};

use super::files::File;

/// The table, in the schema that the migrations are for when the first of them is run.
pub const TABLE: &str = "servicerelease_ledger";
/// The schema of what is recorded of tools: they refuse a schema that is not empty and has no history of theirs (Prisma,
/// Flyway).
pub const SCHEMA: &str = "servicerelease";
/// The advisory lock that every migration of a database holds, whatever release, name and namespace it is of: in each
/// database it is another one.
const LOCK: i64 = i64::from_be_bytes(*b"srelease");

/// How often a pooler is asked for the session in which it has the lock, and the pause between.
const GIVING_BACK: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// The set of the rows that bar tries; no set of files may be called so.
const BARRED: &str = "(barred)";

/// The SQLSTATE of a right that is missing.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A file as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub version: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of its contents.
    pub checksum: String,
    /// Started, Applied or Failed.
    pub state: String,
    /// Of which release it was run.
    pub release: String,
    /// The same, and when it was begun.
    pub by: String,
    /// Whether the state is the word of a person about a file that was begun: what the runner ends has a time.
    pub by_hand: bool,
}

/// The ledger of one set of files.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Schema and table, quoted.
    table: String,
    set: String,
    release: String,
}

impl Ledger {
    /// Where it is, or would be: in the schema that new tables are made in. What a search path begins with changes, by the URL,
    /// by the role, by a schema of the role's name that a file makes; the ledger does not move with it, or all files would be
    /// run again.
    pub async fn of(connection: &mut PgConnection, set: &str, release: &str) -> Result<Self, sqlx::Error> {
        let schema = current_schema(connection).await?;
        let here = Self::at(&schema, set, release);
        match here.elsewhere(connection).await? {
            None => Ok(here),
            // Its own for certain: another cluster may have an object of the same name.
            Some(Other { schema, on_path: true })
                if Self::at(&schema, set, release).has_of_object(connection).await? =>
            {
                Ok(Self::at(&schema, set, release))
            }
            Some(other) => {
                let there = here.exists(connection).await?;
                Err(sqlx::Error::Configuration(here.refusal(&schema, &other.schema, there).into()))
            }
        }
    }

    fn at(schema: &str, set: &str, release: &str) -> Self {
        Self { table: format!("{schema}.{TABLE}"), set: set.to_owned(), release: release.to_owned() }
    }

    /// Where another ledger has files of this set which this release's object applied, if this one has none: schemas of the
    /// search path come first. Releases of others, of the same set in another schema, have their own.
    async fn elsewhere(&self, connection: &mut PgConnection) -> Result<Option<Other>, sqlx::Error> {
        let others = format!(
            "SELECT quote_ident(nspname), nspname = ANY (current_schemas(false)) FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace WHERE relname = '{TABLE}' AND relkind IN ('r', 'p') \
             AND nspname !~ '^pg_' AND c.oid IS DISTINCT FROM to_regclass($1) AND has_schema_privilege(n.oid, 'USAGE') \
             AND has_table_privilege(c.oid, 'SELECT') ORDER BY array_position(current_schemas(false), nspname), nspname"
        );
        let others = sqlx::query_as(AssertSqlSafe(others)).persistent(false).bind(&self.table);
        let others: Vec<(String, bool)> = others.fetch_all(&mut *connection).await?;
        if others.is_empty() || (self.exists(connection).await? && self.has_own(connection).await?) {
            return Ok(None);
        }
        for (schema, on_path) in others {
            if Self::at(&schema, &self.set, &self.release).has_own(connection).await? {
                return Ok(Some(Other { schema, on_path }));
            }
        }
        Ok(None)
    }

    /// Whether it has rows of the set that are of this release's object by its name, whatever number the release had.
    async fn has_own(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        self.has_rows(connection, "").await
    }

    /// The same of this very object, and not of one that had its name before or has it elsewhere.
    async fn has_of_object(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let number = self.release.split_once('#').map_or("", |(_, number)| number);
        let mark = number.rfind('-').map_or("", |place| &number[place..]);
        self.has_rows(connection, mark).await
    }

    /// Whether it has rows of the set by the name of this release's object, and with this end of their number.
    async fn has_rows(&self, connection: &mut PgConnection, mark: &str) -> Result<bool, sqlx::Error> {
        let query = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE set_name = $1 AND split_part(release, '#', 1) = $2 \
             AND right(release, length($3)) = $3)",
            self.table
        );
        sqlx::query_scalar(AssertSqlSafe(query))
            .persistent(false)
            .bind(&self.set)
            .bind(self.release.split('#').next().unwrap_or_default())
            .bind(mark)
            .fetch_one(connection)
            .await
    }

    /// Why files are not run where nobody knows of them.
    fn refusal(&self, here: &str, other: &str, there: bool) -> String {
        let (table, set) = (&self.table, &self.set);
        let movement = match there {
            true => format!("rows: INSERT INTO {table} SELECT * FROM {other}.{TABLE} WHERE set_name = '{set}'"),
            false => format!("table: ALTER TABLE {other}.{TABLE} SET SCHEMA {here}"),
        };
        format!(
            "the search path begins with {here}, and {other}.{TABLE} has the files of this set: they would all be run again. Either name \
             schema {other} in the URL (?schema={other}), or have its search_path name it, or move the {movement}; files that \
             are meant for both schemas need another set"
        )
    }

    /// Whether it is there.
    pub async fn exists(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&self.table).fetch_one(connection).await
    }

    /// Makes it, if it is not there.
    pub async fn open(connection: &mut PgConnection, set: &str, release: &str) -> Result<Self, sqlx::Error> {
        Self::of(connection, set, release).await?.make(connection).await
    }

    /// The same in [`SCHEMA`], or, where the role may not make a schema, in the one that the migrations are for.
    pub async fn open_apart(connection: &mut PgConnection, set: &str, release: &str) -> Result<Self, sqlx::Error> {
        let there = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL").bind(SCHEMA);
        let there: bool = there.fetch_one(&mut *connection).await?;
        if !there {
            let made = connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {SCHEMA}")))).await;
            match made {
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE) => {
                    let schema = current_schema(connection).await?;
                    return Self::at(&schema, set, release).or_elsewhere(connection).await;
                }
                made => made.map(|_| ())?,
            }
        }
        Self::at(SCHEMA, set, release).or_elsewhere(connection).await
    }

    /// Commands do not mind the search path: the one that knows of them is theirs, wherever it is.
    async fn or_elsewhere(self, connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let other = self.elsewhere(connection).await?;
        let found = other.map_or_else(|| self.clone(), |other| Self::at(&other.schema, &self.set, &self.release));
        found.make(connection).await
    }

    async fn make(self, connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        if !self.exists(connection).await? {
            let make = format!(
                "CREATE TABLE {} (set_name text, version text, name text NOT NULL, checksum text NOT NULL, \
                 state text NOT NULL CHECK (state IN ('Started', 'Applied', 'Failed')), release text NOT NULL, \
                 started_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz, run text, \
                 PRIMARY KEY (set_name, version))",
                self.table
            );
            connection.execute(sqlx::raw_sql(AssertSqlSafe(make))).await?;
        }
        Ok(self)
    }

    /// Schema and table, quoted.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// All entries of the set.
    pub async fn entries(&self, connection: &mut PgConnection) -> Result<Vec<Entry>, sqlx::Error> {
        let query = format!(
            "SELECT version, name, checksum, state, release, format('%s at %s', release, to_char(started_at AT TIME ZONE 'UTC', \
             'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')), state <> 'Started' AND finished_at IS NULL FROM {} WHERE set_name = $1",
            self.table
        );
        let rows = sqlx::query(AssertSqlSafe(query)).bind(&self.set).fetch_all(connection).await?;
        let entry = |row: sqlx::postgres::PgRow| {
            Ok(Entry {
                version: row.try_get(0)?,
                name: row.try_get(1)?,
                checksum: row.try_get(2)?,
                state: row.try_get(3)?,
                release: row.try_get(4)?,
                by: row.try_get(5)?,
                by_hand: row.try_get(6)?,
            })
        };
        rows.into_iter().map(entry).collect()
    }

    /// Notes a file in this state, if this session still holds the lock. Says whether it does.
    pub async fn note(&self, connection: &mut PgConnection, file: &File, state: &str) -> Result<bool, sqlx::Error> {
        let finished = if state == "Started" { "NULL" } else { "clock_timestamp()" };
        let note = format!(
            "INSERT INTO {table} AS known (set_name, version, name, checksum, state, release, finished_at) \
             SELECT $1, $2, $3, $4, $5, $6, {finished} WHERE {holds} \
             ON CONFLICT (set_name, version) DO UPDATE SET name = $3, checksum = $4, state = $5, release = $6, \
             finished_at = {finished}, started_at = CASE known.state WHEN 'Started' THEN known.started_at ELSE now() END",
            table = self.table,
            holds = holds(),
        );
        let noted = sqlx::query(AssertSqlSafe(note))
            .persistent(false)
            .bind(&self.set)
            .bind(&file.version)
            .bind(&file.name)
            .bind(&file.checksum)
            .bind(state)
            .bind(&self.release)
            .execute(connection)
            .await?;
        Ok(noted.rows_affected() == 1)
    }

    /// Forgets an applied file, if this session still holds the lock. Says whether it does.
    pub async fn forget(&self, connection: &mut PgConnection, version: &str) -> Result<bool, sqlx::Error> {
        let gone = format!("DELETE FROM {} WHERE set_name = $1 AND version = $2 AND {}", self.table, holds());
        let gone = sqlx::query(AssertSqlSafe(gone)).persistent(false).bind(&self.set).bind(version);
        Ok(gone.execute(connection).await?.rows_affected() == 1)
    }

    /// Forgets what the release has applied of the set, as far as its version begins like this, if this session still holds
    /// the lock. Says whether it does.
    pub async fn forget_all(&self, connection: &mut PgConnection, like: &str) -> Result<bool, sqlx::Error> {
        let gone = format!(
            "WITH gone AS (DELETE FROM {} WHERE set_name = $1 AND release = $2 AND starts_with(version, $3) \
             AND state <> 'Started' AND {holds}) SELECT {holds}",
            self.table,
            holds = holds(),
        );
        let gone = sqlx::query_scalar(AssertSqlSafe(gone)).persistent(false).bind(&self.set).bind(&self.release);
        gone.bind(like).fetch_one(connection).await
    }

    /// Notes that a try and those before it are over, if this session holds the lock: a pod that comes late finds this, and
    /// does not begin. Says whether it does.
    pub async fn bar(&self, connection: &mut PgConnection, which: &Try) -> Result<bool, sqlx::Error> {
        let bar = format!(
            "INSERT INTO {table} AS known (set_name, version, name, checksum, state, release, finished_at) \
             SELECT '{BARRED}', $1, 'tries that were settled, up to the one in checksum', $2::int::text, 'Failed', $3, \
             clock_timestamp() WHERE {holds} ON CONFLICT (set_name, version) DO UPDATE SET \
             checksum = greatest(known.checksum::int, $2)::text, finished_at = clock_timestamp()",
            table = self.table,
            holds = holds(),
        );
        let bar = sqlx::query(AssertSqlSafe(bar)).persistent(false).bind(self.barred(which)).bind(which.number);
        Ok(bar.bind(&self.release).execute(connection).await?.rows_affected() == 1)
    }

    /// Whether a try was settled.
    pub async fn is_barred(&self, connection: &mut PgConnection, which: &Try) -> Result<bool, sqlx::Error> {
        let query = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE set_name = '{BARRED}' AND version = $1 AND checksum::int >= $2)",
            self.table
        );
        let query = sqlx::query_scalar(AssertSqlSafe(query)).persistent(false).bind(self.barred(which));
        query.bind(which.number).fetch_one(connection).await
    }

    /// What the row of a try is called.
    fn barred(&self, which: &Try) -> String {
        format!("{}/{}/{}", self.set, which.of, self.release)
    }

    /// How a person says that nothing of a file is left.
    pub fn erase(&self, version: &str) -> String {
        format!("DELETE FROM {} WHERE set_name = '{}' AND version = '{version}'", self.table, self.set)
    }

    /// How a person says what became of a file.
    pub fn settle(&self, version: &str) -> String {
        format!("UPDATE {} SET state = 'Applied' WHERE set_name = '{}' AND version = '{version}'", self.table, self.set)
    }
}

/// Another schema with a ledger.
struct Other {
    /// Its name, quoted.
    schema: String,
    /// Whether names are looked for in it.
    on_path: bool,
}

/// The schema that new tables are made in, quoted.
async fn current_schema(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let schema: Option<String> =
        sqlx::query_scalar("SELECT quote_ident(current_schema())").fetch_one(connection).await?;
    schema.ok_or_else(|| {
        let why = "no schema of the search_path exists: create it, or name another one in the URL";
        sqlx::Error::Configuration(why.into())
    })
}

/// The ledgers of the database that have a column, quoted, as far as this role may read them.
pub async fn tables(connection: &mut PgConnection, column: &str) -> Result<Vec<String>, sqlx::Error> {
    let tables = format!(
        "SELECT format('%I.%I', nspname, relname) FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace WHERE relname = '{TABLE}' AND relkind IN ('r', 'p') \
         AND nspname !~ '^pg_' AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') \
         AND EXISTS (SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname = $1 AND NOT attisdropped) \
         ORDER BY 1"
    );
    sqlx::query_scalar(AssertSqlSafe(tables)).persistent(false).bind(column).fetch_all(connection).await
}

/// Whether this session holds the lock, in SQL.
pub fn holds() -> String {
    let (high, low) = (LOCK >> 32, LOCK & 0xffff_ffff);
    format!(
        "EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
         AND pid = pg_catalog.pg_backend_pid() AND classid = {high} AND objid = {low})"
    )
}

/// Takes the lock, if nobody has it. It is held as long as the session, also by a server process whose client is dead.
///
/// # Errors
/// The session is one that a pooler lends, or is lost.
pub async fn lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    connection::is_ones_own(connection).await?;
    let take = format!("SELECT 1 WHERE pg_catalog.pg_try_advisory_lock({LOCK})");
    if !has_row(connection, take).await? {
        return Ok(false);
    }
    for _ in 0..LOOKS {
        kept(connection).await?;
    }
    Ok(true)
}

/// Gives the lock back that this session has.
pub async fn release(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    has_row(connection, format!("SELECT 1 WHERE pg_catalog.pg_advisory_unlock({LOCK})")).await.map(|_| ())
}

/// Looks that this session still has the lock that it took.
///
/// # Errors
/// It is another session: a pooler lends it.
pub async fn kept(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if has_row(connection, format!("SELECT 1 WHERE {}", holds())).await? {
        return Ok(());
    }
    give_back(connection).await?;
    Err(connection::lent())
}

/// Gives the lock back that is in a session which a pooler has lent on, as soon as it lends that one again.
async fn give_back(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let give = format!("SELECT 1 WHERE {} AND pg_catalog.pg_advisory_unlock({LOCK})", holds());
    for _ in 0..GIVING_BACK {
        if has_row(connection, give.clone()).await? {
            break;
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Whether a query gives a row; by the simple protocol, as a pooler between transactions knows it.
async fn has_row(connection: &mut PgConnection, query: String) -> Result<bool, sqlx::Error> {
    Ok(sqlx::raw_sql(AssertSqlSafe(query)).fetch_optional(connection).await?.is_some())
}

/// The session that holds the lock, for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its `application_name`; empty too where another role's is not to be seen.
    name: String,
    /// Of the server's process.
    pid: i32,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, pid } = self;
        let name = if name.is_empty() { "a session without a name" } else { name };
        write!(out, "{name} (process {pid})")
    }
}

/// Who holds the lock.
pub async fn holder(connection: &mut PgConnection) -> Result<Option<Holder>, sqlx::Error> {
    let (high, low) = (LOCK >> 32, LOCK & 0xffff_ffff);
    let query = format!(
        "SELECT coalesce(application_name, ''), pid FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = {high} AND objid = {low} \
         AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let found: Option<(String, i32)> = sqlx::query_as(AssertSqlSafe(query)).fetch_optional(connection).await?;
    Ok(found.map(|(name, pid)| Holder { name, pid }))
}

/// The same for who has waited long enough: who it is, and how a session is ended whose client is gone for good.
pub async fn told_holder(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let (who, pid) = match holder(connection).await? {
        Some(holder) => (holder.to_string(), holder.pid.to_string()),
        None => ("somebody".to_owned(), "PID".to_owned()),
    };
    Ok(format!(
        "{who} is migrating this database and has not ended in time; if its pod is gone: SELECT pg_terminate_backend({pid})"
    ))
}

/// Sets what every session of a migration has: the server looks whether its client is still there (PostgreSQL 14), and no
/// limit ends it while it holds the lock. Statements of files have their own.
pub async fn settings(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let set = "RESET ALL; RESET ROLE; SELECT set_config(name, '500', false) FROM pg_catalog.pg_settings \
               WHERE name = 'client_connection_check_interval'";
    connection.execute(sqlx::raw_sql(set)).await?;
    connection::unlimited(connection).await
}
