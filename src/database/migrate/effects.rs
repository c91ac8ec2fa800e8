//! What a file did to tables, seen from inside its transaction: the locks that it has until it ends.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

/// Locks that keep others from writing, or from reading as well.
const STRONG: &str = "('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";
/// Tables of users that were there before a transaction began.
const TABLES: &str = "relkind IN ('r', 'p', 'm') AND relpersistence <> 't' \
                      AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema')";

/// What a file did.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Effects {
    /// The file.
    pub file: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// The strongest lock on each table that was there before, such as `AccessExclusiveLock on public.users`.
    pub locks: Vec<String>,
}

/// The tables that there were when a transaction began.
#[derive(Debug, Default)]
pub struct Before(Vec<i64>);

impl Before {
    /// Looks.
    pub async fn look(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let query = format!("SELECT oid::bigint FROM pg_class WHERE {TABLES}");
        Ok(Self(sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(connection).await?))
    }

    /// The locks on those tables since, in the same transaction.
    pub async fn compare(&self, connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
        let there: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        let there = if there.is_empty() { "0".to_owned() } else { there.join(",") };
        let locks = format!(
            "SELECT DISTINCT ON (relation) format('%s on %s', mode, relation::regclass) FROM pg_locks \
             WHERE locktype = 'relation' AND pid = pg_backend_pid() AND mode IN {STRONG} AND relation IN ({there}) \
             ORDER BY relation, array_position(ARRAY['AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock'], mode)"
        );
        let mut locks: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(locks)).persistent(false).fetch_all(connection).await?;
        locks.sort_by(|one, other| one.split_once(" on ").map(|it| it.1).cmp(&other.split_once(" on ").map(|it| it.1)));
        Ok(locks)
    }
}
