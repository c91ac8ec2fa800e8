//! What a person can do about a release that the database's part of it has failed: which field it is about, and what Retry
//! tries once more. The pod template is not the cause.

use super::{
    super::{pass::Pass, report::command},
    words::REHEARSAL_UNKNOWN,
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
            "let the migration's command take the URL from DATABASE_URL, or set spec.database.rehearsal.mode: Skip, then {retry}"
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

/// What mends a step that is held for a person. Its plan is pinned: what the manifest says by now is not what Retry tries.
pub fn held(pass: &Pass<'_>, reason: &str) -> Option<String> {
    let (retry, abort, fields) = (command(pass, "retry"), command(pass, "abort"), fields(reason)?);
    Some(format!(
        "mend what it says, then {retry} (tries the same once more, with the manifest as it was when the release began); or {abort}, and \
         correct {fields}"
    ))
}
