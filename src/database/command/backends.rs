//! The server's processes of a command, as others see them: a client that is dead may have left one at work, and one that
//! waits for a lock has everybody else wait behind it.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::sleep;

/// What the names of a command's own sessions begin with, where it says its name at all.
pub const NAMED: &str = "servicerelease/command ";
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// For how long a session that does nothing may stay before it is somebody else's: one whose client is gone ends at once.
const IDLE: Duration = Duration::from_secs(5);
/// Locks for changes of a schema. All who come after them wait as well.
const STRONG: &str =
    "('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

/// By what the sessions of a command are known: its name, or else the address and role of the session that held the lock
/// for it, and that they are younger than that one. Where pods share an address (a proxy, SNAT) and the application has the
/// same role, that tells nothing: then only the name counts.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// PGAPPNAME.
    pub program: String,
    /// Where its client is, as the server sees it; none by a socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When the session that held the lock began.
    pub since: String,
    /// Whether only the name counts: a session had it, or others of this role were there from this address before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_name: bool,
}

impl Tool {
    /// Of a command that is begun from where this session is.
    pub async fn beside(connection: &mut PgConnection, program: String) -> Result<Self, sqlx::Error> {
        let query = "SELECT host(inet_client_addr()), (SELECT backend_start::text FROM pg_stat_activity \
                     WHERE pid = pg_backend_pid())";
        let (address, since): (Option<String>, String) = sqlx::query_as(query).fetch_one(&mut *connection).await?;
        let others = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND usename = session_user \
                      AND client_addr IS NOT DISTINCT FROM $1::inet AND backend_type = 'client backend' \
                      AND pid <> pg_backend_pid() AND application_name NOT LIKE 'servicerelease/%')";
        let by_name = sqlx::query_scalar(others).persistent(false).bind(&address).fetch_one(connection).await?;
        Ok(Self { program, address, since, by_name })
    }

    /// Notes that it says its name, once a session does.
    pub async fn notice(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if !self.by_name {
            let named = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = $1)";
            self.by_name =
                sqlx::query_scalar(named).persistent(false).bind(&self.program).fetch_one(connection).await?;
        }
        Ok(())
    }

    /// Its sessions in SQL, of `pg_stat_activity`.
    const IN_SQL: &str = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' \
        AND (application_name = $1 OR (NOT $4 AND usename = session_user AND client_addr IS NOT DISTINCT FROM $2::inet \
        AND backend_start >= $3::timestamptz AND NOT (application_name LIKE 'servicerelease/%' \
        AND application_name NOT LIKE 'servicerelease/command %')))";

    /// Process, whether it does nothing, and what it is, of each of its sessions.
    async fn sessions(&self, connection: &mut PgConnection) -> Result<Vec<(i32, bool, String)>, sqlx::Error> {
        let query = format!(
            "SELECT pid, coalesce(state = 'idle', false), format('process %s (%s since %s)', pid, state, \
             to_char(xact_start AT TIME ZONE 'UTC', 'HH24:MI:SS\"Z\"')) FROM pg_stat_activity WHERE {} ORDER BY pid",
            Self::IN_SQL
        );
        sqlx::query_as(AssertSqlSafe(query))
            .persistent(false)
            .bind(&self.program)
            .bind(&self.address)
            .bind(&self.since)
            .bind(self.by_name)
            .fetch_all(connection)
            .await
    }

    /// Waits until none of the sessions that there are now is at work any more.
    ///
    /// # Errors
    /// The connection is lost. Else those that are left when the time is over.
    pub async fn gone(
        &self,
        connection: &mut PgConnection,
        within: Duration,
    ) -> Result<Result<(), Vec<String>>, sqlx::Error> {
        let begun = Instant::now();
        let mut known: Option<HashSet<i32>> = None;
        loop {
            let sessions = self.sessions(connection).await?;
            // Younger ones are not of a command that has ended.
            let known = known.get_or_insert_with(|| sessions.iter().map(|(pid, ..)| *pid).collect());
            let at_work =
                |(pid, idle, _): &&(i32, bool, String)| known.contains(pid) && !(*idle && begun.elapsed() >= IDLE);
            let left: Vec<String> = sessions.iter().filter(at_work).map(|(_, _, what)| what.clone()).collect();
            if left.is_empty() {
                return Ok(Ok(()));
            }
            if begun.elapsed() >= within {
                return Ok(Err(left));
            }
            sleep(PAUSE).await;
        }
    }

    /// Cancels what its sessions are doing.
    pub async fn cancel(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let query =
            format!("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state <> 'idle' AND {}", Self::IN_SQL);
        let cancel = sqlx::query(AssertSqlSafe(query)).persistent(false);
        let cancel = cancel.bind(&self.program).bind(&self.address).bind(&self.since).bind(self.by_name);
        cancel.execute(connection).await.map(|_| ())
    }
}

/// Waits of a command for locks, as they are seen from outside: tools of Java and Prisma know no lock_timeout.
#[derive(Debug, Default)]
pub struct Waits {
    /// Since when a process has been seen to wait for a lock on a table.
    seen: HashMap<(i32, i64), Instant>,
    /// What was cancelled.
    pub cancelled: Vec<String>,
}

impl Waits {
    /// Looks once, and cancels what has waited too long.
    pub async fn look(
        &mut self,
        connection: &mut PgConnection,
        tool: &Tool,
        most: Duration,
    ) -> Result<(), sqlx::Error> {
        let query = format!(
            "SELECT pid, relation::bigint, format('%s, which %s', relation::regclass, coalesce((SELECT \
             string_agg(format('process %s (%s) has', b.pid, coalesce(nullif(b.application_name, ''), b.usename)), ', ') \
             FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(l.pid))), 'others wait for')) \
             FROM pg_locks l WHERE NOT granted AND locktype = 'relation' AND mode IN {STRONG} \
             AND pid IN (SELECT pid FROM pg_stat_activity WHERE {})",
            Tool::IN_SQL
        );
        let waiting: Vec<(i32, i64, String)> = sqlx::query_as(AssertSqlSafe(query))
            .persistent(false)
            .bind(&tool.program)
            .bind(&tool.address)
            .bind(&tool.since)
            .bind(tool.by_name)
            .fetch_all(&mut *connection)
            .await?;
        self.seen.retain(|key, _| waiting.iter().any(|(pid, relation, _)| (*pid, *relation) == *key));
        for (pid, relation, what) in waiting {
            if self.seen.entry((pid, relation)).or_insert_with(Instant::now).elapsed() < most {
                continue;
            }
            sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut *connection).await?;
            self.seen.remove(&(pid, relation));
            self.cancelled.push(what);
        }
        Ok(())
    }

    /// In words; empty if there were none.
    #[must_use]
    pub fn told(&self, most: Duration) -> String {
        let Some(last) = self.cancelled.last() else { return String::new() };
        let times = if self.cancelled.len() > 1 { format!(" ({} times)", self.cancelled.len()) } else { String::new() };
        format!("a statement that waited for a lock longer than {most:?} was cancelled{times}: on {last}; ")
    }
}
