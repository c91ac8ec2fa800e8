//! The way to a database, by a URL that is never told.

use std::{borrow::Cow, path::PathBuf, str::FromStr as _, time::Duration};

use reqwest::Url;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::task::{CA, NO_AUTHORITY, ROOT_CERT};

/// Parameters of a URL that PostgreSQL's own programs know too. Others are meant for somebody else.
const KNOWN: [&str; 12] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];
/// The longest name that PostgreSQL keeps of a program, in bytes.
const LONGEST_NAME: usize = 63;

/// How long a connection may take to be there, where nothing else is said.
pub const CONNECT: Duration = Duration::from_secs(30);
/// Why a lock cannot be held there.
pub const LENT: &str = "the URL leads to a pooler that lends a server's session to others between transactions, so that no lock can be \
    held: set directUrlFrom to a URL of the server itself";
/// How often a session is asked whether it is still the same.
pub const LOOKS: u32 = 5;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// Why there is no way to a database.
#[derive(Debug, Error)]
pub enum Connecting {
    /// The URL is none.
    #[error(
        "the URL of the database is none: {0}; write postgres://USER@HOST:5432/NAME, with a colon and the password, percent-encoded, behind USER"
    )]
    Url(&'static str),
    /// What the server's certificate is to be checked by is not there: nobody connects without that.
    #[error("{NO_AUTHORITY} ({0})")]
    Authority(String),
    /// The server does not let it in, or is not there.
    #[error("no connection to {place}: {why}")]
    Refused {
        /// User, host, port and database.
        place: String,
        /// The server's or the network's words.
        why: String,
    },
}

/// What is wrong with a URL for programs that try one host after the other.
const SEVERAL: &str = "it names several hosts, and migrations have one server to lock and to ask: name one host that leads to the \
                       primary whoever that is, such as its Service, and leave out target_session_attrs";

/// Whether a URL names several hosts: behind user and password, or as a parameter.
fn names_several(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hosts = place.split('/').next().and_then(|authority| authority.rsplit('@').next());
    let named = query.split('&').filter(|parameter| parameter.starts_with("host="));
    hosts.into_iter().chain(named).any(|hosts| hosts.contains(',') || hosts.contains("%2C"))
}

/// Reads a URL. What is told of it has no password.
///
/// # Errors
/// What is wrong with it.
pub fn options(text: &str, program: &str) -> Result<PgConnectOptions, Connecting> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Connecting::Url("it is empty"));
    }
    if names_several(text) {
        return Err(Connecting::Url(SEVERAL));
    }
    let mut url = Url::parse(text).map_err(|_| Connecting::Url("it cannot be read as a URL"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(Connecting::Url("it does not begin with postgres://"));
    }
    let parameters: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    url.set_query(None);
    let schema = parameters.iter().find(|(name, _)| name == "schema").map(|(_, value)| value.clone());
    let known = parameters.into_iter().filter(|(name, _)| KNOWN.contains(&name.as_str()));
    for (name, value) in known {
        url.query_pairs_mut().append_pair(&name, &value);
    }
    let options = PgConnectOptions::from_str(url.as_str())
        .map_err(|_| Connecting::Url("a parameter of it is wrong, such as sslmode or the port"))?;
    let options = match schema {
        Some(schema) => options.options([("search_path", schema)]),
        None => options,
    };
    Ok(options.application_name(&program[..program.floor_char_boundary(LONGEST_NAME)]))
}

/// Connects to the database of a URL, as a program of this name.
///
/// # Errors
/// See [`options`] and [`connect`].
pub async fn open(url: &str, program: &str) -> Result<PgConnection, Connecting> {
    connect(&options(url, program)?, CONNECT).await
}

/// The same for a session that holds something for others, or counts: limits of its role or of the server do not end it.
/// Not for one that a pooler lends, who would pass that on.
///
/// # Errors
/// See [`open`].
pub async fn open_unlimited(url: &str, program: &str) -> Result<PgConnection, Connecting> {
    let options = options(url, program)?;
    let mut connection = connect(&options, CONNECT).await?;
    let refused = |error| Connecting::Refused { place: place(&options), why: told(&error) };
    unlimited(&mut connection).await.map_err(refused)?;
    Ok(connection)
}

/// By what the server notices within a minute that its client's machine is gone, and gives back what the session has: its
/// names for settings and their values, in seconds, how often, and in milliseconds. Without them that takes hours.
pub const NOTICE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "60000"),
];

/// Takes the limits away that a role or a server may have for sessions, as far as the server knows them (PostgreSQL 14
/// and 17 have new ones), and sets [`NOTICE`].
pub async fn unlimited(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let set = "SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', \
               'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')";
    let notice = NOTICE.map(|(name, value)| format!("set_config('{name}', '{value}', false)")).join(", ");
    connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("{set}; SELECT {notice}")))).await.map(|_| ())
}

/// Connects. Where nobody answers, or the server has not started yet, it tries again until the time is over: what was
/// right a moment ago may be so once more.
///
/// # Errors
/// Who was refused where, and why.
pub async fn connect(options: &PgConnectOptions, within: Duration) -> Result<PgConnection, Connecting> {
    if let Some(path) = std::env::var_os(ROOT_CERT).map(PathBuf::from).filter(|path| path.starts_with(CA)) {
        // Its volume is optional, so that its absence is told and not waited for.
        if !path.exists() {
            return Err(Connecting::Authority(path.display().to_string()));
        }
    }
    let refused = |why: String| Connecting::Refused { place: place(options), why };
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        match timeout_at(deadline, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) if is_passing(&error) && Instant::now() + PAUSE < deadline => last = Some(told(&error)),
            Ok(Err(error)) => return Err(refused(told(&error))),
            Err(_) => {
                let silence = "it does not answer: is the host right, and does a NetworkPolicy let it through?";
                return Err(refused(last.unwrap_or_else(|| silence.to_owned())));
            }
        }
        sleep(PAUSE).await;
    }
}

fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // cannot_connect_now: it starts or ends.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57P03"),
        _ => false,
    }
}

/// The server process that answers on a connection, and since when it has been there. By the simple protocol: a pooler between
/// transactions keeps no prepared statement.
pub async fn process(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let query =
        "SELECT pid || ' since ' || backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()";
    let row = sqlx::raw_sql(query).fetch_one(connection).await?;
    Ok(row.try_get_raw(0)?.as_str().map(str::to_owned).unwrap_or_default())
}

/// Looks that it is always the same one.
///
/// # Errors
/// It is not ([`LENT`]), or cannot be told.
pub async fn is_ones_own(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let first = process(connection).await?;
    for _ in 1..LOOKS {
        if process(connection).await? != first {
            return Err(lent());
        }
    }
    Ok(())
}

/// See [`LENT`].
pub fn lent() -> sqlx::Error {
    sqlx::Error::Configuration(LENT.into())
}

/// User, host, port and database, for people.
pub fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{}@{}:{}/{database}", options.get_username(), options.get_host(), options.get_port())
}

/// An error in the server's words, with its code (SQLSTATE); of another the innermost cause.
pub fn told(error: &sqlx::Error) -> String {
    if let Some(error) = error.as_database_error() {
        let code = error.code().unwrap_or(Cow::Borrowed("unknown"));
        let hint = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
        let hint = hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        return format!("{} (SQLSTATE {code}){hint}", error.message());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_url_is_read_as_other_programs_read_it() {
        let url =
            "postgresql://shop:p%40ss@db:6432/orders?schema=sales&connection_limit=5&pgbouncer=true&sslmode=require";
        let options = options(url, "servicerelease/check orders").unwrap();
        assert_eq!(place(&options), "shop@db:6432/orders");
        assert_eq!(options.get_options(), Some("-c search_path=sales"));
        assert_eq!(options.get_application_name(), Some("servicerelease/check orders"));
        assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::Require));
    }

    #[rstest]
    #[case::empty(" ", "it is empty")]
    #[case::not_a_url("db:5432", "it does not begin with postgres://")]
    #[case::no_scheme("secret", "it cannot be read")]
    #[case::another_database("mysql://root:secret@db/shop", "it does not begin with postgres://")]
    #[case::port("postgres://root:secret@db:port/shop", "it cannot be read")]
    #[case::hosts(
        "postgres://root:secret@a:5432,b:5432/shop?target_session_attrs=read-write",
        "it names several hosts"
    )]
    #[case::hosts_of_a_parameter("postgres://root:secret@/shop?host=a,b", "it names several hosts")]
    #[case::mode("postgres://root:secret@db/shop?sslmode=secret", "a parameter of it is wrong")]
    fn a_wrong_url_is_told_without_its_password(#[case] url: &str, #[case] what: &str) {
        let error = options(url, "test").unwrap_err().to_string();
        assert!(error.contains(what) && !error.contains("secret"), "{error}");
    }
}
