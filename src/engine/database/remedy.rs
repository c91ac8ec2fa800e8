//! What a person can do about a release that the database's part of it has failed: which field it is about, and what Retry
//! tries once more. The pod template is not the cause.

use crate::api::{SchemaState, status::bounded};

use super::{
    super::{pass::Pass, report::command},
    words::{self, REHEARSAL_UNKNOWN},
};

/// The fields that a reason is about. None: it is none of the database's.
fn fields(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "DatabasePreflightFailed" => "spec.database",
        "BackupFailed" => "spec.database.backup",
        REHEARSAL_UNKNOWN => "spec.database.migration or rehearsal",
        "RehearsalFailed" => "spec.database.migration, or seed, verify or rehearsal beside it",
        "MigrationFailed" | "MigrationUnknown" => "spec.database.migration",
        "SeedFailed" | "SeedUnknown" => "spec.database.seed",
        "VerificationFailed" => "spec.database.verify, or spec.database.migration",
        "MaintenanceNotReached" => "spec.maintenance",
        _ => return None,
    })
}

/// What mends a release that was taken back, by the reason of that. Of the manifest's fields a changed migration alone starts
/// a release. None: the reason is none of the database's.
pub fn at_rest(pass: &Pass<'_>, reason: &str) -> Option<String> {
    let (retry, fields) = (command(pass, "retry"), fields(reason)?);
    Some(match reason {
        "DatabasePreflightFailed" => {
            format!("mend what it says of the database, or of what {fields} names, then {retry}")
        }
        "BackupFailed" => {
            format!("mend what it says of the backup ({fields}: its volume, its Job, its time), then {retry}")
        }
        REHEARSAL_UNKNOWN => format!(
            "let the migration's command take the URL from DATABASE_URL and leave the server's roles and databases alone, or set \
             spec.database.rehearsal.mode: Skip, then {retry}"
        ),
        "MaintenanceNotReached" => format!("see to it that maintenance mode stays on ({fields}), then {retry}"),
        "SeedFailed" | "SeedUnknown" => {
            format!("correct {fields}, which starts no release by itself, then {retry} (tries the same once more)")
        }
        "VerificationFailed" => format!(
            "correct {fields}, or the database itself, whichever is wrong: a changed migration starts a release; else {retry} (tries the \
             same once more)"
        ),
        _ => format!(
            "correct {fields}: a changed migration starts a release; after any other change, such as of a ConfigMap behind its name, \
             {retry} (tries the same once more)"
        ),
    })
}

/// That a part of the migration is in the database, as it stays with onRollback: Keep, and what comes first then.
pub fn half_done(pass: &Pass<'_>) -> Option<(String, String)> {
    let known = pass.status.database.as_ref().filter(|known| known.schema == SchemaState::Partial)?;
    let applied = bounded(&known.applied.join(", "), 200);
    let told = if applied.is_empty() { String::new() } else { format!(" ({applied})") };
    let message = format!("a part of the migration was applied{told}, and is in the database");
    let tools = bounded(&known.half_way.join("; "), 400);
    let whole = !applied.is_empty() && !known.partly;
    let repair = match (tools.is_empty(), whole) {
        (false, _) => tools,
        // The ledger has them: nothing is to be repaired.
        (true, true) => String::new(),
        (true, false) => format!("look what it made, and finish or undo it: {}", words::look_at_migration(pass)),
    };
    Some((message, repair))
}

/// What mends a step that is held for a person. Its plan is pinned: what the manifest says by now is not what Retry tries.
pub fn held(pass: &Pass<'_>, reason: &str) -> Option<String> {
    let (retry, abort, fields) = (command(pass, "retry"), command(pass, "abort"), fields(reason)?);
    Some(format!(
        "mend what it says, then {retry} (tries the same once more, with the manifest as it was when the release began); or {abort}, and \
         correct {fields}"
    ))
}
