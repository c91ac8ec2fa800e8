//! Whether the sessions of a command could be told from here: they are known by a name that not every tool says, or by the
//! address that they have in common with the session beside them. Through a proxy or a pooler they have neither, and would be
//! taken for gone while they are at work.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};
use tokio::time::sleep;

use super::{
    Places,
    connection::{self, told},
    preflight::text,
    restore::literal,
    rights,
};

/// How often a session is made: a pooler has lent the first one before it gives it to the next.
const ROUNDS: u32 = 4;
/// How long a pooler may take to have it back.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one may take to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// What the sessions are called that are made to look at them.
const PROGRAM: &str = "servicerelease/preflight";
/// What helps where it is the pod's own.
const LEAVE: &str = "leave it out of the template, or make it that of directUrlFrom (urlFrom)";
/// What helps where it is the wrapper's, too.
const OTHER: &str = "set directUrlFrom to a URL of the server itself";

/// Looks at the way of the URL that the command has, and says what is wrong with it.
///
/// # Errors
/// Why it cannot be looked at.
pub async fn look(places: &Places) -> Result<Vec<String>, String> {
    if places.tool.is_none() {
        return Ok(Vec::new());
    }
    let mut connection = connection::open(&places.url, PROGRAM).await.map_err(|error| error.to_string())?;
    let looked = look_from(&mut connection, places).await;
    let _ = connection.close().await;
    looked
}

/// The same from a session that is there.
///
/// # Errors
/// See [`look`].
pub async fn look_from(connection: &mut PgConnection, places: &Places) -> Result<Vec<String>, String> {
    let lacking = rights::over_tool(places).await?;
    let Some(tool) = places.tool.as_deref().map(str::trim).filter(|_| lacking.is_empty()) else { return Ok(lacking) };
    // One that cannot be read is for its program to tell.
    let Ok(there) = connection::options(tool.strip_prefix("jdbc:").unwrap_or(tool), PROGRAM) else {
        return Ok(lacking);
    };
    let own = connection::options(&places.url, PROGRAM).map_err(|error| error.to_string())?;
    let remedy = if tool == places.url.trim() { OTHER } else { LEAVE };
    let fault = fault(connection, &own, &there, remedy).await.map_err(|error| told(&error))?;
    Ok(fault.into_iter().collect())
}

async fn fault(
    connection: &mut PgConnection,
    own: &PgConnectOptions,
    there: &PgConnectOptions,
    remedy: &str,
) -> Result<Option<String>, sqlx::Error> {
    let place = |options: &PgConnectOptions| (options.get_host().to_owned(), options.get_port());
    // By one way all are seen from the same address, or from any of several that are the same proxy's.
    let apart = place(own) != place(there);
    let url = format!("DATABASE_URL of the command's pod ({})", connection::place(there));
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(PAUSE).await;
        }
        let before = text(connection, "SELECT extract(epoch FROM clock_timestamp())::text").await?;
        let mut session = match connection::connect(there, CONNECT).await {
            Ok(session) => session,
            Err(error) if apart => {
                return Ok(Some(format!("nobody can tell where {url} leads: {remedy}; {error}")));
            }
            // Who is let in otherwise, such as by a plugin of the tool's, comes the same way.
            Err(_) => return Ok(None),
        };
        let seen = Seen::of(connection, &mut session, &before).await;
        let _ = session.close().await;
        let Some(seen) = seen? else {
            return Ok(Some(format!(
                "{url} leads to another database than directUrlFrom (urlFrom), where nobody sees its sessions: {remedy}"
            )));
        };
        if seen.lent {
            return Ok(Some(format!(
                "{url} leads through a pooler, which hides what its sessions still do once it has ended: {remedy}"
            )));
        }
        if apart && seen.from != seen.beside {
            let Seen { from, beside, .. } = seen;
            return Ok(Some(format!(
                "{url} leads through a proxy or pooler, which hides what its sessions still do once it has ended: {remedy}; the server \
                 sees it at {from}, and who watches it at {beside}"
            )));
        }
    }
    Ok(None)
}

/// A session that was just made, as the server shows it to another one.
struct Seen {
    /// Whether its server process is older than it is.
    lent: bool,
    /// Where its client is.
    from: String,
    /// Where that of the other one is.
    beside: String,
}

impl Seen {
    /// Nothing if the server does not know it, or has it in another database. `before`: a moment at which it was not there.
    async fn of(
        connection: &mut PgConnection,
        session: &mut PgConnection,
        before: &str,
    ) -> Result<Option<Self>, sqlx::Error> {
        let process = "pid || ' ' || extract(epoch FROM backend_start)";
        let own = format!("SELECT {process} FROM pg_stat_activity WHERE pid = pg_backend_pid()");
        let own = text(session, &own).await?;
        let seen = format!(
            "SELECT (extract(epoch FROM backend_start) < {before})::int::text, coalesce(host(client_addr), 'a socket'), \
             coalesce(host(inet_client_addr()), 'a socket') FROM pg_stat_activity WHERE datname = current_database() \
             AND {process} = {}",
            literal(&own)
        );
        let Some(row) = sqlx::raw_sql(AssertSqlSafe(seen)).fetch_optional(connection).await? else { return Ok(None) };
        let column =
            |index| Ok::<_, sqlx::Error>(row.try_get_raw(index)?.as_str().map(str::to_owned).unwrap_or_default());
        Ok(Some(Self { lent: column(0)? == "1", from: column(1)?, beside: column(2)? }))
    }
}
