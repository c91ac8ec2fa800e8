//! Whether a restoration is what it was meant to be: looked at in the database itself, once it has its name.

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::database::{
    Places,
    backup::{self, Backup},
    connection::{self, told},
};

use super::mark;

/// Looks whether the database is the one that was restored from a backup, and has the tables, with all rows, that the
/// backup was made of. Somebody may write to it by now: more than that is told, and no fault.
///
/// # Errors
/// What is missing, or why it cannot be looked at.
pub async fn verify(places: &Places, name: &str, suffix: &str) -> Result<String, String> {
    let backup = backup::known(&places.backups, name)?;
    let opened = connection::open_unlimited(&places.url, "servicerelease/verify").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let looked = look(&mut connection, &backup, suffix).await;
    let _ = connection.close().await;
    let more = looked?;
    let (tables, rows) = (backup.rows.len(), backup.rows.values().sum::<i64>());
    let more = if more.is_empty() { String::new() } else { format!("; since then: {more}") };
    Ok(format!("{tables} tables with {rows} rows, as the backup {name} of {} has them{more}", backup.ended_at))
}

/// What there is beyond the backup.
async fn look(connection: &mut PgConnection, backup: &Backup, suffix: &str) -> Result<String, String> {
    let failed = |error: sqlx::Error| told(&error);
    // All of it as it was at one moment.
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    let comment = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = current_database()";
    let comment: String = sqlx::query_scalar(comment).fetch_one(&mut *connection).await.map_err(failed)?;
    if !comment.ends_with(&mark(suffix, backup)) {
        return Err(format!(
            "the URL does not lead to what was restored from {}: its database does not have that comment",
            backup.file
        ));
    }
    let invalid =
        "SELECT coalesce(string_agg(indexrelid::regclass::text, ', '), '') FROM pg_index WHERE NOT indisvalid";
    let invalid: String = sqlx::query_scalar(invalid).fetch_one(&mut *connection).await.map_err(failed)?;
    if !invalid.is_empty() {
        return Err(format!("indexes are not valid: {invalid}"));
    }
    let found = backup::rows(connection).await?;
    let (lacking, more) = backup::differences(&backup.rows, &found);
    if lacking.is_empty() {
        Ok(more.join("; "))
    } else {
        Err(format!("what was restored lacks: {}", lacking.join("; ")))
    }
}
