//! What is looked at before a migration: whether it could run at all, and whether now is a good time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgRow};
use tokio::time::{Instant, sleep};

use crate::{
    api::{self, DatabasePreflight},
    engine::Planned,
};

use super::{
    connection::{self, told},
    meant,
};

/// The oldest PostgreSQL that migrations are run on.
const OLDEST: u32 = 13;
/// How often two connections are asked for their sessions, and the pause in which others may get theirs.
const ROUNDS: u32 = 20;
const BREATH: Duration = Duration::from_millis(10);
/// How long a transaction of somebody else is waited for, at most.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(500);
/// How many of several things are told by name.
const TOLD: usize = 5;

/// What a database must be like.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The server's version, such as 14 or 14.3, or a later one.
    pub min_version: Option<&'a str>,
    /// Whether a session must be one's own: a pooler between transactions will not do then.
    pub session: bool,
    /// What else. What is not given is not asked.
    pub limits: &'a DatabasePreflight,
    /// What is going to be done.
    pub planned: &'a [Planned],
}

/// What was found.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// The server's version.
    pub server_version: String,
    /// The database's name.
    pub database: String,
    /// The same with the server's identifier.
    pub identity: String,
    /// Its size in bytes.
    pub size_bytes: i64,
    /// Connections that this role can still make in this database, if it is an ordinary one.
    pub free_connections: i64,
    /// For how many seconds the oldest transaction of somebody else in this database has been open.
    pub oldest_transaction_seconds: f64,
    /// By how many seconds the last replica is behind, of those that this role may see.
    pub replication_lag_seconds: f64,
}

/// Looks at the database of a URL, and says what is found and what is wrong with it, with the remedy.
///
/// # Errors
/// Why it cannot be looked at.
pub async fn look(url: &str, wanted: &Wanted<'_>) -> Result<(Findings, Vec<String>), String> {
    let open = || async { connection::open(url, "servicerelease/preflight").await.map_err(|error| error.to_string()) };
    let mut connection = open().await?;
    // One beside it: only two sessions can tell a pooler that lends them one server process in turns.
    let mut beside = open().await?;
    let looked = all(&mut connection, &mut beside, wanted).await.map_err(|error| told(&error));
    let _ = connection.close().await;
    let _ = beside.close().await;
    looked
}

async fn all(
    connection: &mut PgConnection,
    beside: &mut PgConnection,
    wanted: &Wanted<'_>,
) -> Result<(Findings, Vec<String>), sqlx::Error> {
    let limits = wanted.limits;
    let mut faults = Vec::new();
    if wanted.session && shares_sessions(connection, beside).await? {
        faults.push(connection::LENT.to_owned());
    }
    let found = sqlx::raw_sql(FINDINGS).fetch_one(&mut *connection).await?;
    let findings = Findings { identity: meant::database(connection).await?, ..findings(&found)? };
    let number = text(connection, "SELECT current_setting('server_version_num')").await?.parse().unwrap_or_default();
    faults.extend(
        too_old(&findings.server_version, number).or_else(|| version(&findings.server_version, wanted.min_version)),
    );
    faults.extend(rights(connection).await?);
    faults.extend(connections(&findings, limits));
    faults.extend(blind(connection, limits).await?);
    let (oldest, fault) = transactions(connection, limits).await?;
    let findings = Findings { oldest_transaction_seconds: oldest, ..findings };
    faults.extend(fault);
    faults.extend(replicas(&findings, limits));
    faults.extend(silent(connection, limits).await?);
    faults.extend(extensions(connection, &limits.extensions).await?);
    Ok((findings, faults))
}

/// Whether a pooler lends two connections their sessions: both are in one, or one of them is now in this and now in that. Among
/// busy clients only many looks tell it.
async fn shares_sessions(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let (first, second) = (connection::process(one).await?, connection::process(other).await?);
    for _ in 0..ROUNDS {
        // An odd number of looks: sessions that are lent in turns would else come to the same connection each time.
        let seen =
            [connection::process(one).await?, connection::process(one).await?, connection::process(other).await?];
        if first == second || seen != [&*first, &first, &second] {
            return Ok(true);
        }
        sleep(BREATH).await;
    }
    Ok(false)
}

/// The first column of the only row.
pub(super) async fn text(connection: &mut PgConnection, query: &str) -> Result<String, sqlx::Error> {
    // By the simple protocol: a pooler between transactions keeps no prepared statement.
    let row = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_one(connection).await?;
    column(&row, 0)
}

/// A column of a row that came by the simple protocol: its text, empty for NULL.
fn column(row: &PgRow, index: usize) -> Result<String, sqlx::Error> {
    let value = row.try_get_raw(index)?;
    Ok(value.as_str().map(str::to_owned).unwrap_or_default())
}

const FINDINGS: &str = "SELECT current_setting('server_version'), current_database(), pg_database_size(current_database()), \
    (SELECT least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
    - coalesce(current_setting('reserved_connections', true)::int, 0) - (SELECT sum(numbackends) FROM pg_stat_database), \
    CASE WHEN rolconnlimit >= 0 AND NOT rolsuper THEN rolconnlimit \
    - (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid) END, \
    CASE WHEN datconnlimit >= 0 AND NOT rolsuper THEN datconnlimit \
    - (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid AND usesysid IS NOT NULL) END) \
    FROM pg_roles r, pg_database d WHERE rolname = session_user AND datname = current_database()), 0, \
    (SELECT coalesce(max(extract(epoch FROM replay_lag)), 0) FROM pg_stat_replication)";

/// Open transactions of others in this database, and how long each has been open, the oldest first. One in another database
/// has none of its locks.
const TRANSACTIONS: &str = "SELECT age::text, who FROM (\
    SELECT extract(epoch FROM clock_timestamp() - xact_start) AS age, format('%s of %s (process %s, role %s)', state, \
    coalesce(nullif(application_name, ''), 'somebody'), pid, usename) AS who FROM pg_stat_activity \
    WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend' AND xact_start IS NOT NULL \
    UNION ALL SELECT extract(epoch FROM clock_timestamp() - prepared), format('prepared transaction %L of %s (ROLLBACK or \
    COMMIT PREPARED)', gid, owner) FROM pg_prepared_xacts WHERE database = current_database()) open ORDER BY open.age DESC LIMIT 1";

fn findings(row: &PgRow) -> Result<Findings, sqlx::Error> {
    let whole = |index| column(row, index).map(|text| text.parse().unwrap_or_default());
    let decimal = |index| column(row, index).map(|text| text.parse().unwrap_or_default());
    Ok(Findings {
        server_version: column(row, 0)?,
        database: column(row, 1)?,
        size_bytes: whole(2)?,
        free_connections: whole(3)?,
        oldest_transaction_seconds: decimal(4)?,
        replication_lag_seconds: decimal(5)?,
        ..Findings::default()
    })
}

/// The numbers that a version begins with: `15.18 (Debian ...)` is 15 and 18.
fn numbers(version: &str) -> Vec<u32> {
    let first = version.split_whitespace().next().unwrap_or_default();
    first.split('.').map_while(|part| part.parse().ok()).collect()
}

/// Whether it is older than any that the runner knows, by its number such as 150018.
fn too_old(found: &str, number: u32) -> Option<String> {
    (number < OLDEST * 10_000).then(|| {
        format!("PostgreSQL {found} is older than {OLDEST}, and no migration is run there: upgrade the server")
    })
}

fn version(found: &str, least: Option<&str>) -> Option<String> {
    let least = least?;
    (numbers(found) < numbers(least))
        .then(|| format!("PostgreSQL {found} is older than {least}: upgrade the server, or lower minVersion"))
}

async fn rights(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    if text(connection, "SELECT pg_is_in_recovery()::int::text").await? == "1" {
        return Ok(Some("the server is a replica, which nobody can write to: name the primary".into()));
    }
    let schema = text(connection, "SELECT quote_ident(current_schema())").await?;
    if schema.is_empty() {
        return Ok(Some("no schema of the search path exists: create it, or name another one in the URL".into()));
    }
    let may = text(connection, "SELECT has_schema_privilege(current_schema(), 'CREATE')::int::text").await? == "1";
    let role = text(connection, "SELECT quote_ident(current_user)").await?;
    Ok((!may).then(|| {
        format!("role {role} may not make tables in schema {schema}: GRANT CREATE ON SCHEMA {schema} TO {role}")
    }))
}

/// What others do is hidden from an ordinary role: what was asked cannot be answered then.
async fn blind(connection: &mut PgConnection, limits: &DatabasePreflight) -> Result<Option<String>, sqlx::Error> {
    if limits.max_transaction_age.is_none() && limits.max_replication_lag.is_none() {
        return Ok(None);
    }
    let sees = text(connection, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')::int::text").await? == "1";
    let role = text(connection, "SELECT quote_ident(current_user)").await?;
    let remedy = format!(
        "role {role} may not see what others do, and so neither maxTransactionAge nor maxReplicationLag can be told: \
         GRANT pg_read_all_stats TO {role}"
    );
    Ok((!sees).then_some(remedy))
}

fn connections(findings: &Findings, limits: &DatabasePreflight) -> Option<String> {
    let (free, least) = (findings.free_connections, limits.min_free_connections?);
    (free < least).then(|| {
        format!("{free} connections are free, at least {least} are needed; the CONNECTION LIMIT of role and database counts too")
    })
}

/// A duration in seconds.
#[expect(clippy::cast_precision_loss, reason = "no limit needs more than 53 bits")]
fn seconds(duration: api::Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

/// How long the oldest transaction has been open, and what is wrong with that. A moment's long one is waited for, as long as
/// the limit allows anyhow.
async fn transactions(
    connection: &mut PgConnection,
    limits: &DatabasePreflight,
) -> Result<(f64, Option<String>), sqlx::Error> {
    let most = limits.max_transaction_age;
    let deadline = Instant::now() + most.map_or(PATIENCE, |most| Duration::from_millis(most.as_millis()).min(PATIENCE));
    loop {
        let Some(row) = sqlx::raw_sql(TRANSACTIONS).fetch_optional(&mut *connection).await? else {
            return Ok((0.0, None));
        };
        let (age, who) = (column(&row, 0)?.parse().unwrap_or_default(), column(&row, 1)?);
        let Some(most) = most.filter(|most| age > seconds(*most)) else { return Ok((age, None)) };
        if Instant::now() >= deadline {
            let open = age.round();
            let fault =
                format!("a transaction has been open for {open} s, at most {most} is allowed: {who}; end it, or wait");
            return Ok((age, Some(fault)));
        }
        sleep(PAUSE).await;
    }
}

fn replicas(findings: &Findings, limits: &DatabasePreflight) -> Option<String> {
    let (lag, most) = (findings.replication_lag_seconds, limits.max_replication_lag?);
    (lag > seconds(most)).then(|| format!("a replica is {} s behind, at most {most} is allowed", lag.round()))
}

/// A replica that is down is none that is behind: only its slot tells of it.
async fn silent(connection: &mut PgConnection, limits: &DatabasePreflight) -> Result<Option<String>, sqlx::Error> {
    if limits.max_replication_lag.is_none() {
        return Ok(None);
    }
    let slots = "SELECT coalesce(string_agg(quote_literal(slot_name), ', ' ORDER BY slot_name), '') FROM pg_replication_slots \
                 WHERE slot_type = 'physical' AND NOT active";
    let slots = text(connection, slots).await?;
    Ok((!slots.is_empty()).then(|| {
        format!(
            "no replica is connected to replication slot {slots}, so that nobody knows how far it is behind: start it, or SELECT \
             pg_drop_replication_slot(NAME)"
        )
    }))
}

async fn extensions(connection: &mut PgConnection, wanted: &[String]) -> Result<Option<String>, sqlx::Error> {
    let rows = sqlx::raw_sql("SELECT extname FROM pg_extension").fetch_all(connection).await?;
    let there = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<_>, _>>()?;
    let missing: Vec<&str> =
        wanted.iter().filter(|name| !there.contains(name)).map(String::as_str).take(TOLD).collect();
    Ok((!missing.is_empty()).then(|| {
        let remedy: Vec<String> = missing.iter().map(|name| format!("CREATE EXTENSION \"{name}\"")).collect();
        format!("the database has no extension {}: {}", missing.join(", "), remedy.join("; "))
    }))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("9.6.24", 90_624, true)]
    #[case("12.22", 120_022, true)]
    #[case("13.0", 130_000, false)]
    #[case("17beta1", 170_000, false)]
    fn a_server_that_is_too_old_is_refused_whatever_is_asked(
        #[case] found: &str,
        #[case] number: u32,
        #[case] old: bool,
    ) {
        assert_eq!(too_old(found, number).is_some(), old);
    }

    #[rstest]
    #[case("15.18 (Debian 15.18-0+deb12u1)", "14", true)]
    #[case("15.18", "15.18", true)]
    #[case("15.18", "15.20", false)]
    #[case("15.2", "15.10", false)]
    #[case("9.6.24", "14", false)]
    #[case("17beta1", "16", false)]
    fn versions_are_compared_by_their_numbers(#[case] found: &str, #[case] least: &str, #[case] enough: bool) {
        assert_eq!(version(found, Some(least)).is_none(), enough);
    }
}
