//! Words that several commands use. Pure.

use crate::api::{RollbackCause, RollbackStatus};

/// What became of a revision that was rolled back: `failed: OOMKilled`, `aborted by jane`.
#[must_use]
pub fn fate(rollback: &RollbackStatus) -> String {
    let by = rollback.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    match rollback.cause {
        RollbackCause::Failed => format!("failed: {}", rollback.reason),
        RollbackCause::Aborted => format!("aborted{by}"),
        RollbackCause::Undone => format!("undone{by}"),
        RollbackCause::Superseded => "superseded".to_owned(),
    }
}
