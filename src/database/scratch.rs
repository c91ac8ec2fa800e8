//! Scratch databases: beside the real one or on a server of their own, for proofs and rehearsals. Each database has one
//! at most, by a name that is always the same, so that what a crash left is found.

use reqwest::Url;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::{Duration, sleep};

use super::{
    connection::{self, told},
    hexadecimal, place,
};

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
}

impl Server {
    /// Beside the database of a URL, or on the server of another one.
    ///
    /// # Errors
    /// It is no URL.
    pub fn of(url: &str, elsewhere: Option<&str>) -> Result<Self, String> {
        let options = connection::options(url, "servicerelease/scratch").map_err(|error| error.to_string())?;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        // Databases of several servers may share one for scratch.
        let of = elsewhere.map_or_else(|| database.to_owned(), |_| place(&options));
        let name = format!("{PREFIX}{}", &hexadecimal(&Sha256::digest(of))[..16]);
        Ok(Self { url: elsewhere.unwrap_or(url).trim().to_owned(), name })
    }

    /// Removes what was left by one that was told to end.
    ///
    /// # Errors
    /// It is left over.
    pub async fn clear(&self) -> Result<(), String> {
        let mut connection = self.connect().await?;
        drop_database(&mut connection, &self.name).await?;
        let _ = connection.close().await;
        Ok(())
    }

    /// A connection to a database of it that is there.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&self) -> Result<PgConnection, String> {
        connection::open(&self.url, "servicerelease/scratch").await.map_err(|error| error.to_string())
    }
}

/// One that is there.
pub struct Scratch {
    connection: PgConnection,
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
}

impl Scratch {
    /// Makes it, in the place of one that was left. Another one at work on the same is waited for.
    ///
    /// # Errors
    /// The server is not there, or the role must not make databases.
    pub async fn make(server: &Server) -> Result<Self, String> {
        let mut connection = server.connect().await?;
        let name = server.name.clone();
        let lock = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
        while !sqlx::query_scalar::<_, bool>(lock).bind(&name).fetch_one(&mut connection).await.map_err(|e| told(&e))? {
            sleep(PAUSE).await;
        }
        let like = format!("SELECT {LIKE} FROM pg_database d WHERE datname = current_database()");
        let like: String =
            sqlx::query_scalar(AssertSqlSafe(like)).fetch_one(&mut connection).await.map_err(|error| told(&error))?;
        drop_database(&mut connection, &name).await?;
        let make = format!("CREATE DATABASE {name} TEMPLATE template0 {like}");
        let made = connection.execute(sqlx::raw_sql(AssertSqlSafe(make))).await;
        made.map_err(|error| format!("no scratch database can be made: {}{}", told(&error), remedy(&error)))?;
        Ok(Self { connection, url: beside(&server.url, &name)?, name })
    }

    /// Removes it, whoever is connected to it.
    ///
    /// # Errors
    /// It is left over.
    pub async fn remove(mut self) -> Result<(), String> {
        drop_database(&mut self.connection, &self.name).await?;
        let _ = self.connection.close().await;
        Ok(())
    }
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
