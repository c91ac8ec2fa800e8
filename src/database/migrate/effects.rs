//! What a file did to tables, seen from inside its transaction: locks, and what was written anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

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
    /// Tables that were written anew, with about how many rows.
    pub rewritten: Vec<String>,
}

/// Where each table's rows were stored when a transaction began.
#[derive(Debug, Default)]
pub struct Before(BTreeMap<u32, u32>);

impl Before {
    /// Looks.
    pub async fn look(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let query = format!("SELECT oid::bigint, relfilenode::bigint FROM pg_class WHERE {TABLES}");
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(connection).await?;
        let number = |row: &sqlx::postgres::PgRow, index| {
            row.try_get::<i64, _>(index).map(|oid| u32::try_from(oid).unwrap_or(0))
        };
        let all = rows.iter().map(|row| Ok((number(row, 0)?, number(row, 1)?)));
        Ok(Self(all.collect::<Result<_, sqlx::Error>>()?))
    }

    /// What has happened to those tables since, in the same transaction.
    pub async fn compare(&self, connection: &mut PgConnection) -> Result<(Vec<String>, Vec<String>), sqlx::Error> {
        let there: Vec<String> = self.0.keys().map(ToString::to_string).collect();
        let there = if there.is_empty() { "0".to_owned() } else { there.join(",") };
        let locks = format!(
            "SELECT DISTINCT ON (relation) format('%s on %s', mode, relation::regclass) FROM pg_locks \
             WHERE locktype = 'relation' AND pid = pg_backend_pid() AND mode IN {STRONG} AND relation IN ({there}) \
             ORDER BY relation, array_position(ARRAY['AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock'], mode)"
        );
        let mut locks: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(locks)).persistent(false).fetch_all(&mut *connection).await?;
        locks.sort_by(|one, other| one.split_once(" on ").map(|it| it.1).cmp(&other.split_once(" on ").map(|it| it.1)));
        let now = format!(
            "SELECT oid::bigint, relfilenode::bigint, format('%s (about %s rows)', oid::regclass, greatest(reltuples, 0)::bigint) \
             FROM pg_class WHERE relkind IN ('r', 'm') AND oid IN ({there})"
        );
        let now = sqlx::query(AssertSqlSafe(now)).persistent(false).fetch_all(connection).await?;
        let mut rewritten = Vec::new();
        for row in now {
            let number = |index| row.try_get::<i64, _>(index).map(|oid| u32::try_from(oid).unwrap_or(0));
            if self.0.get(&number(0)?) != Some(&number(1)?) {
                rewritten.push(row.try_get(2)?);
            }
        }
        Ok((locks, rewritten))
    }
}
