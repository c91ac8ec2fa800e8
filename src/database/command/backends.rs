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
/// Those of them that keep others from reading or writing while they are held.
const CLOSED: &str = "('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

/// By what the sessions of a command are known: its name, or else the address of the session that held the lock for it, and
/// that they are younger than that one. A tool may say its name in one session and not in the next, and may have a URL with
/// another role than the wrapper's. Where others were at that address before (a proxy, SNAT) those of the wrapper's role
/// alone are taken for its own; where the application has that role, too, only the name is certain: a session without it is
/// let alone, and is waited for where the command did not end well.
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
    /// Whether only the name is certain: others of this role were there from this address before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_name: bool,
    /// The role of the session that held the lock; whoever looks may have another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Whether nobody of whatever role was there from this address before: then all that come from it are its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

impl Tool {
    /// Of a command that is begun from where this session is.
    pub async fn beside(connection: &mut PgConnection, program: String) -> Result<Self, sqlx::Error> {
        let query = "SELECT host(inet_client_addr()), session_user::text, (SELECT backend_start::text FROM pg_stat_activity \
                     WHERE pid = pg_backend_pid())";
        let (address, role, since): (Option<String>, String, String) =
            sqlx::query_as(query).fetch_one(&mut *connection).await?;
        // Of sessions whose address is hidden from this role nobody knows where they are from.
        let others = "SELECT coalesce(bool_or(here AND usename = session_user), false), NOT coalesce(bool_or(here OR hidden), false) \
                      FROM (SELECT usename, client_addr IS NOT DISTINCT FROM $1::inet AND backend_type = 'client backend' \
                      AND application_name NOT LIKE 'servicerelease/%' AS here, backend_type IS NULL AS hidden FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid()) others";
        let (by_name, alone) = sqlx::query_as(others).persistent(false).bind(&address).fetch_one(connection).await?;
        Ok(Self { program, address, since, by_name, role, alone })
    }

    /// Its sessions in SQL, of `pg_stat_activity`.
    const IN_SQL: &str = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' \
        AND (application_name = $1 OR (NOT $4 AND ($5 OR usename = coalesce(nullif($6, ''), session_user)) \
        AND client_addr IS NOT DISTINCT FROM $2::inet \
        AND backend_start >= $3::timestamptz AND NOT (application_name LIKE 'servicerelease/%' \
        AND application_name NOT LIKE 'servicerelease/command %')))";

    /// Its sessions; with `doubtful` those too that may be another's.
    async fn sessions(&self, connection: &mut PgConnection, doubtful: bool) -> Result<Vec<Backend>, sqlx::Error> {
        let query = format!(
            "SELECT pid, coalesce(state = 'idle', false), application_name = $1 OR NOT $7, format('process %s (%s since %s)', \
             pid, state, to_char(xact_start AT TIME ZONE 'UTC', 'HH24:MI:SS\"Z\"')) FROM pg_stat_activity WHERE {} ORDER BY pid",
            Self::IN_SQL
        );
        let sessions: Vec<(i32, bool, bool, String)> = sqlx::query_as(AssertSqlSafe(query))
            .persistent(false)
            .bind(&self.program)
            .bind(&self.address)
            .bind(&self.since)
            .bind(self.by_name && !doubtful)
            .bind(self.alone)
            .bind(&self.role)
            .bind(self.by_name)
            .fetch_all(connection)
            .await?;
        Ok(sessions.into_iter().map(|(pid, idle, certain, what)| Backend { pid, idle, certain, what }).collect())
    }

    /// Waits until none of the sessions that there are now is at work any more; with `doubtful` also for those that may be
    /// another's.
    ///
    /// # Errors
    /// The connection is lost. Else those that are left when the time is over.
    pub async fn gone(
        &self,
        connection: &mut PgConnection,
        within: Duration,
        doubtful: bool,
    ) -> Result<Result<(), Vec<String>>, sqlx::Error> {
        let begun = Instant::now();
        let mut known: Option<HashSet<i32>> = None;
        loop {
            let sessions = self.sessions(connection, doubtful).await?;
            // Younger ones are not of a command that has ended.
            let known = known.get_or_insert_with(|| sessions.iter().map(|session| session.pid).collect());
            known.retain(|pid| sessions.iter().any(|one| one.pid == *pid && one.may_be_at_work(begun.elapsed())));
            if known.is_empty() {
                return Ok(Ok(()));
            }
            if begun.elapsed() >= within {
                let left = sessions.iter().filter(|session| known.contains(&session.pid));
                return Ok(Err(left.map(Backend::told).collect()));
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
        cancel.bind(self.alone).bind(&self.role).execute(connection).await.map(|_| ())
    }
}

/// A session of a command, or perhaps of another.
struct Backend {
    pid: i32,
    idle: bool,
    /// Whether it is the command's.
    certain: bool,
    /// In words.
    what: String,
}

impl Backend {
    /// Whether it may do something for a command that ended this long ago. Of one whose client lives nothing is known by that.
    fn may_be_at_work(&self, since: Duration) -> bool {
        !self.idle || (self.certain && since < IDLE)
    }

    fn told(&self) -> String {
        let doubt = if self.certain { "" } else { ", of its role and address, which may be another's" };
        format!("{}{doubt}", self.what)
    }
}

/// Waits of a command for locks, as they are seen from outside: tools of Java and Prisma know no lock_timeout.
#[derive(Debug, Default)]
pub struct Waits {
    /// Since when a process has been seen to wait for a lock that is in everybody's way.
    seen: HashMap<(i32, String), Instant>,
    /// What was cancelled.
    pub cancelled: Vec<String>,
}

impl Waits {
    /// Looks once, and cancels what has waited too long: for a strong lock of a table, or for anything while it has one. What
    /// is done concurrently waits for other transactions (virtualxid) in nobody's way.
    pub async fn look(
        &mut self,
        connection: &mut PgConnection,
        tool: &Tool,
        most: Duration,
    ) -> Result<(), sqlx::Error> {
        let query = format!(
            "SELECT pid, concat_ws(' ', locktype, relation, page, tuple, transactionid, classid, objid), \
             format('%s, which %s', coalesce(relation::regclass::text, 'a row'), coalesce((SELECT \
             string_agg(format('process %s (%s) has', b.pid, coalesce(nullif(b.application_name, ''), b.usename)), ', ') \
             FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(l.pid))), 'others wait for')) \
             FROM pg_locks l WHERE NOT granted AND locktype <> 'virtualxid' AND ((locktype = 'relation' AND mode IN {STRONG}) \
             OR EXISTS (SELECT 1 FROM pg_locks h WHERE h.pid = l.pid AND h.granted AND h.locktype = 'relation' AND h.mode IN {CLOSED})) \
             AND pid IN (SELECT pid FROM pg_stat_activity WHERE {})",
            Tool::IN_SQL
        );
        let waiting: Vec<(i32, String, String)> = sqlx::query_as(AssertSqlSafe(query))
            .persistent(false)
            .bind(&tool.program)
            .bind(&tool.address)
            .bind(&tool.since)
            .bind(tool.by_name)
            .bind(tool.alone)
            .bind(&tool.role)
            .fetch_all(&mut *connection)
            .await?;
        self.seen.retain(|key, _| waiting.iter().any(|(pid, lock, _)| (*pid, lock) == (key.0, &key.1)));
        for (pid, lock, what) in waiting {
            let key = (pid, lock);
            if self.seen.entry(key.clone()).or_insert_with(Instant::now).elapsed() < most {
                continue;
            }
            self.seen.remove(&key);
            // On record first: the command may have ended of it before the answer is here, and nobody waits for that then.
            self.cancelled.push(what);
            sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut *connection).await?;
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
