//! Scratch databases: beside the real one or on a server of their own, for proofs and rehearsals. Each database has one
//! at most, by a name that is always the same, so that what a crash left is found.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use reqwest::Url;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::{Duration, Instant, sleep};

use super::{
    connection::{self, told},
    hexadecimal, meant, place,
};

/// What the names of sessions that make one begin with: the rest says for which release.
const SESSIONS: &str = "servicerelease/scratch ";
/// How long somebody who is neither of this release nor at work on a scratch database may keep the lock of one.
const LOCK: Duration = Duration::from_secs(20);
/// What their names begin with.
const PREFIX: &str = "servicerelease_scratch_";
/// What a database is made with so that it is like one of pg_database d. Whatever the server's version: providers of locales
/// came with 15, rules with 16, and with 17 the name of the locale has another column. The version of a collation is the
/// server's: nothing in a new database was sorted by an earlier one.
pub(super) const LIKE: &str = "format('ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_encoding_to_char(d.encoding), d.datcollate, \
    d.datctype) || CASE to_jsonb(d)->>'datlocprovider' WHEN 'c' THEN ' LOCALE_PROVIDER libc' \
    WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %L', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale')) \
    || coalesce(' ICU_RULES ' || quote_literal(to_jsonb(d)->>'daticurules'), '') \
    WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', to_jsonb(d)->>'datlocale') ELSE '' END";
/// Between two looks whether another one has ended.
const PAUSE: Duration = Duration::from_millis(250);

/// Where scratch databases of a database are made.
#[derive(Clone, Debug)]
pub struct Server {
    /// A URL of the server.
    url: String,
    /// The name of the scratch database.
    name: String,
    /// What sessions of this release that make one are called.
    program: String,
    /// Whether one that was made through this may still be there.
    left: Arc<AtomicBool>,
    /// Whether it was looked for what others left.
    known: Arc<AtomicBool>,
}

impl Server {
    /// Beside the database of a URL, or on the server of another one; for a release, by namespace, name and number.
    ///
    /// # Errors
    /// It is no URL.
    pub fn of(url: &str, elsewhere: Option<&str>, release: &str) -> Result<Self, String> {
        let options = connection::options(url, "servicerelease/scratch").map_err(|error| error.to_string())?;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        // Databases of several servers may share one for scratch.
        let of = elsewhere.map_or_else(|| database.to_owned(), |_| place(&options));
        let name = format!("{PREFIX}{}", &hexadecimal(&Sha256::digest(of))[..16]);
        // Names of releases are longer than a session's may be.
        let program = format!("{SESSIONS}{}", &hexadecimal(&Sha256::digest(release))[..16]);
        let url = elsewhere.unwrap_or(url).trim().to_owned();
        Ok(Self { url, name, program, left: Arc::default(), known: Arc::default() })
    }

    /// Whether a scratch database that was made through this may still be there.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Whether it was looked for what pods before this one have left.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Removes what was left by one of this release that was told to end, or killed. Its sessions end first: what they have
    /// begun, such as CREATE DATABASE, a server would carry out after the removal. One that another release is at work on is
    /// that one's: it has taken the place of what was left.
    ///
    /// # Errors
    /// It is left over.
    pub async fn clear(&self) -> Result<(), String> {
        let left = |why: String| format!("the scratch database {} may be left over: {why}", self.name);
        self.known.store(true, Ordering::Relaxed);
        self.left.store(true, Ordering::Relaxed);
        let mut connection =
            connection::open_unlimited(&self.url, &self.program).await.map_err(|error| left(error.to_string()))?;
        if self.take_over(&mut connection).await.map_err(left)? {
            drop_database(&mut connection, &self.name).await?;
        }
        self.left.store(false, Ordering::Relaxed);
        let _ = connection.close().await;
        Ok(())
    }

    /// Ends this release's sessions, and takes the lock. Says whether it has it: else another release has.
    async fn take_over(&self, connection: &mut PgConnection) -> Result<bool, String> {
        let begun = Instant::now();
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 \
                   AND usename = session_user AND pid <> pg_backend_pid()";
        loop {
            let ended = sqlx::query_scalar::<_, i64>(end).bind(&self.program).fetch_one(&mut *connection).await;
            ended.map_err(|error| told(&error))?;
            if lock(connection, &self.name).await.map_err(|error| told(&error))? {
                return Ok(true);
            }
            let holder = holder(connection, &self.name).await.map_err(|error| told(&error))?;
            if holder.as_ref().is_some_and(|holder| holder.starts_with(SESSIONS) && *holder != self.program) {
                return Ok(false);
            }
            if begun.elapsed() > LOCK {
                return Err(format!("{} holds its lock", holder.unwrap_or_else(|| "somebody".into())));
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether it is the server of a URL. Of one that hides its identifier nobody knows, and it counts as the same.
    ///
    /// # Errors
    /// One of them cannot be asked.
    pub async fn is_of(&self, url: &str) -> Result<bool, String> {
        if self.url == url.trim() {
            return Ok(true);
        }
        let opened = connection::open_unlimited(url, &self.program).await;
        let mut identifiers = Vec::new();
        for mut connection in [opened.map_err(|error| error.to_string())?, self.connect().await?] {
            identifiers.push(meant::server(&mut connection).await.map_err(|error| told(&error))?);
            let _ = connection.close().await;
        }
        Ok(identifiers[0] == identifiers[1] || !identifiers.iter().all(|server| meant::is_identifier(server)))
    }

    /// A connection to a database of it that is there.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&self) -> Result<PgConnection, String> {
        connection::open_unlimited(&self.url, &self.program).await.map_err(|error| error.to_string())
    }
}

/// One that is there.
pub struct Scratch {
    connection: PgConnection,
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    left: Arc<AtomicBool>,
}

impl Scratch {
    /// Makes it, in the place of one that was left. Another one at work on the same is waited for.
    ///
    /// # Errors
    /// The server is not there, or the role must not make databases.
    pub async fn make(server: &Server) -> Result<Self, String> {
        let mut connection = server.connect().await?;
        let name = server.name.clone();
        while !lock(&mut connection, &name).await.map_err(|error| told(&error))? {
            sleep(PAUSE).await;
        }
        let like = format!("SELECT {LIKE} FROM pg_database d WHERE datname = current_database()");
        let like: String =
            sqlx::query_scalar(AssertSqlSafe(like)).fetch_one(&mut connection).await.map_err(|error| told(&error))?;
        drop_database(&mut connection, &name).await?;
        // From here on, whatever comes of it.
        server.known.store(true, Ordering::Relaxed);
        server.left.store(true, Ordering::Relaxed);
        let make = format!("CREATE DATABASE {name} TEMPLATE template0 {like}");
        let made = connection.execute(sqlx::raw_sql(AssertSqlSafe(make))).await;
        made.map_err(|error| {
            // What the server refused is not there; of a connection that was lost nobody knows.
            server.left.store(error.as_database_error().is_none(), Ordering::Relaxed);
            format!("no scratch database can be made: {}{}", told(&error), remedy(&error))
        })?;
        Ok(Self { connection, url: beside(&server.url, &name)?, name, left: server.left.clone() })
    }

    /// Removes it, whoever is connected to it.
    ///
    /// # Errors
    /// It is left over.
    pub async fn remove(mut self) -> Result<(), String> {
        drop_database(&mut self.connection, &self.name).await?;
        self.left.store(false, Ordering::Relaxed);
        let _ = self.connection.close().await;
        Ok(())
    }
}

/// Takes the lock of a scratch database, if nobody has it.
async fn lock(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    let lock = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
    sqlx::query_scalar(lock).bind(name).fetch_one(connection).await
}

/// What the session is called that has it.
async fn holder(connection: &mut PgConnection, name: &str) -> Result<Option<String>, sqlx::Error> {
    let query = "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) \
                 WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
                 AND (classid::bigint << 32) | objid::bigint = hashtextextended($1, 0) \
                 AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let found = sqlx::query_scalar::<_, Option<String>>(query).bind(name).fetch_optional(connection).await?;
    Ok(found.flatten())
}

fn remedy(error: &sqlx::Error) -> &'static str {
    let denied =
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "42501");
    if denied { ": ALTER ROLE ... CREATEDB, or name another server in backup.scratchUrlFrom" } else { "" }
}

async fn drop_database(connection: &mut PgConnection, name: &str) -> Result<(), String> {
    let gone = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    let removed = connection.execute(sqlx::raw_sql(AssertSqlSafe(gone))).await;
    removed.map_err(|error| format!("the scratch database {name} is left over: {}", told(&error)))?;
    Ok(())
}

/// The URL of another database of the same server.
///
/// # Errors
/// It is no URL.
pub fn beside(url: &str, database: &str) -> Result<String, String> {
    let mut url = Url::parse(url.trim()).map_err(|_| "it cannot be read as a URL".to_owned())?;
    let others: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(name, _)| name != "dbname").collect();
    url.set_query(None);
    for (name, value) in &others {
        url.query_pairs_mut().append_pair(name, value);
    }
    let encoded = percent_encoding::utf8_percent_encode(database, percent_encoding::NON_ALPHANUMERIC).to_string();
    url.set_path(&encoded);
    Ok(url.into())
}
