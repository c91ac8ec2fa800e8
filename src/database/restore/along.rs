//! What a restore would set back that is not the release's: other releases may have migrated the same database since the
//! backup was begun, and would not do it again.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::database::{backup::Backup, migrate::ledger};

use super::literal;

/// The most of them that are named.
const NAMED: usize = 2;

/// Why a backup is not restored: what the ledgers of the database have from releases of other objects since it was begun, and the
/// statement by which a person lets that go. None: there is nothing. `release`: namespace, name and number of the one that goes
/// back.
pub async fn others(
    connection: &mut PgConnection,
    backup: &Backup,
    release: &str,
) -> Result<Option<(String, String)>, sqlx::Error> {
    let own = release.split('#').next().unwrap_or_default();
    if own.is_empty() {
        // Ordered by an operator that did not say so yet.
        return Ok(None);
    }
    for table in ledger::tables(connection, "release").await? {
        // What failed is none of it, and so are notes of tries that were settled.
        let since = format!(
            "state <> 'Failed' AND coalesce(finished_at, started_at) >= '{}' AND split_part(release, '#', 1) <> ",
            backup.started_at
        );
        let query = format!(
            "SELECT format('%s (%s %s)', release, set_name, left(name, 40)) FROM {table} WHERE {since}$1 ORDER BY started_at"
        );
        let others = sqlx::query_scalar(AssertSqlSafe(query)).persistent(false).bind(own);
        let others: Vec<String> = others.fetch_all(&mut *connection).await?;
        if others.is_empty() {
            continue;
        }
        let mark = format!("UPDATE {table} SET state = 'Failed' WHERE {since}{}", literal(own));
        let mut named: Vec<&str> = others.iter().take(NAMED).map(String::as_str).collect();
        let more = format!("and {} more", others.len().saturating_sub(NAMED));
        if others.len() > NAMED {
            named.push(&more);
        }
        let why = format!(
            "other releases have migrated this database since the backup was begun, and would not do it again: {}; take that back by them \
             first, or note in the ledger that it may go",
            named.join(", ")
        );
        return Ok(Some((why, mark)));
    }
    Ok(None)
}
