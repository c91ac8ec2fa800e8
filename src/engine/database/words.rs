//! What is told of the database: reasons for machines, messages and commands for people.

use crate::api::{DatabaseTask, DatabaseWork, OnRollback, SchemaState, SecretSource, WorkOutcome, status::bounded};

use super::{
    super::{
        pass::Pass,
        report::{command, kubectl},
        retreat,
    },
    again::{self, Again},
    image, onward, pinned, undo,
};

/// Behind the image that was looked at, where it is not pinned.
pub const BY_TAG: &str = ", but it is run by its tag: that digest is of another repository than the manifest's; should the tag \
    lead to another image by then, it is told afterwards (ImageChanged): name the image by its digest, and no other is run";

/// The reason where a rehearsal may have been done to the real database, or to its server.
pub const REHEARSAL_UNKNOWN: &str = "RehearsalUnknown";
/// What is known then.
const ASTRAY: &str = "nobody knows what the rehearsal has done outside of its scratch database";

/// Why a person is asked for a seed, whatever stands in it.
pub const SEEDS_LATE: &str = "the seed, which is meant for the first deployment, comes to code that serves already";

/// What a kind of work is, for people.
pub const fn subject(task: DatabaseTask) -> &'static str {
    match task {
        DatabaseTask::Preflight => "preflight of the database",
        DatabaseTask::Backup => "backup of the database",
        DatabaseTask::Rehearsal => "rehearsal of the migration",
        DatabaseTask::Migration => "migration of the database",
        DatabaseTask::Seed => "seed of the database",
        DatabaseTask::Verification => "verification of the schema",
        DatabaseTask::Settlement => "search for what became of the migration",
        DatabaseTask::PreflightDown => "look at what takes the migration back",
        DatabaseTask::BackupBeforeDown => "backup of what is there, before the migration is taken back",
        DatabaseTask::MigrationDown => "taking the migration back",
        DatabaseTask::VerificationDown => "verification of the schema after the migration was taken back",
        DatabaseTask::BackupBeforeRestore => "backup of what is there, before the restore",
        DatabaseTask::Restore => "restore of the backup",
        DatabaseTask::VerificationRestore => "verification of what was restored",
        DatabaseTask::CleanUp => "removal of what a proof or a rehearsal left",
    }
}

/// The reason while it is done.
pub const fn doing(task: DatabaseTask) -> &'static str {
    match task {
        DatabaseTask::Preflight => "DatabasePreflight",
        DatabaseTask::Backup | DatabaseTask::BackupBeforeRestore | DatabaseTask::BackupBeforeDown => "BackingUp",
        DatabaseTask::Rehearsal => "Rehearsing",
        DatabaseTask::Migration | DatabaseTask::Settlement => "Migrating",
        DatabaseTask::Seed => "Seeding",
        DatabaseTask::Verification | DatabaseTask::VerificationDown | DatabaseTask::VerificationRestore => "Verifying",
        DatabaseTask::PreflightDown | DatabaseTask::MigrationDown => "MigratingDown",
        DatabaseTask::Restore => "Restoring",
        DatabaseTask::CleanUp => "CleaningUp",
    }
}

/// The reason when it has failed.
pub const fn failure(task: DatabaseTask, outcome: WorkOutcome) -> &'static str {
    match (task, outcome) {
        (DatabaseTask::Migration | DatabaseTask::Settlement, WorkOutcome::Unknown) => "MigrationUnknown",
        (DatabaseTask::Preflight, _) => "DatabasePreflightFailed",
        (DatabaseTask::Backup | DatabaseTask::BackupBeforeRestore | DatabaseTask::BackupBeforeDown, _) => {
            "BackupFailed"
        }
        (DatabaseTask::Rehearsal, WorkOutcome::Unknown) => REHEARSAL_UNKNOWN,
        (DatabaseTask::Rehearsal, _) => "RehearsalFailed",
        (DatabaseTask::Migration | DatabaseTask::Settlement, _) => "MigrationFailed",
        (DatabaseTask::Seed, WorkOutcome::Unknown) => "SeedUnknown",
        (DatabaseTask::Seed, _) => "SeedFailed",
        (DatabaseTask::Verification, _) => "VerificationFailed",
        (DatabaseTask::PreflightDown | DatabaseTask::MigrationDown | DatabaseTask::VerificationDown, _) => {
            "MigrationDownFailed"
        }
        (DatabaseTask::Restore, _) => "RestoreFailed",
        (DatabaseTask::VerificationRestore, _) => "RestoreNotVerified",
        (DatabaseTask::CleanUp, _) => "CleanUpFailed",
    }
}

/// The last message of a kind of work.
fn last(pass: &Pass<'_>, task: DatabaseTask) -> String {
    let work = pass.status.database.as_ref().and_then(|database| database.last(task));
    work.map(|work| bounded(&work.message, 400)).unwrap_or_default()
}

/// How a step that is under way stands.
pub fn progress(pass: &Pass<'_>, task: DatabaseTask) -> String {
    let last = last(pass, task);
    let subject = subject(task);
    if last.is_empty() { format!("{subject} is about to begin") } else { format!("{subject}: {last}") }
}

/// What failed on the way back.
pub fn failed(pass: &Pass<'_>, task: DatabaseTask) -> String {
    format!("{}: {}", subject(task), last(pass, task))
}

/// That nobody knows what became of the schema: the reason, and what is known.
pub fn unknown(pass: &Pass<'_>) -> (&'static str, String) {
    if undo::is_rehearsal_unknown(pass) {
        let told = last(pass, DatabaseTask::Rehearsal);
        return (REHEARSAL_UNKNOWN, format!("{ASTRAY}: {told}"));
    }
    let task = |task: DatabaseTask| pass.status.database.as_ref().and_then(|known| known.last(task)).is_some();
    let told = if task(DatabaseTask::Settlement) { DatabaseTask::Settlement } else { DatabaseTask::Migration };
    ("MigrationUnknown", format!("nobody knows what became of the migration: {}", last(pass, told)))
}

/// That nobody knows what became of the seed.
pub fn seed_unknown(pass: &Pass<'_>) -> String {
    format!("nobody knows what became of the seed: {}", last(pass, DatabaseTask::Seed))
}

/// Why the code that serves cannot be trusted with the schema.
pub fn unsafe_schema(pass: &Pass<'_>) -> &'static str {
    match super::schema(pass) {
        SchemaState::Unknown if undo::is_rehearsal_unknown(pass) => ASTRAY,
        SchemaState::Unknown | SchemaState::Changing => "nobody knows what became of the migration",
        SchemaState::Partial => "a part of the migration was applied, and the code that serves may not fit it",
        _ => "the migration was applied, and the code that serves does not fit it",
    }
}

/// The same in a condition, with what has failed.
pub fn misfit(pass: &Pass<'_>, failed: Option<&DatabaseWork>) -> String {
    let why = match super::schema(pass) {
        SchemaState::Changed | SchemaState::Partial => unsafe_schema(pass).to_owned(),
        _ => unfit(pass),
    };
    let failed = failed.map(|work| format!("; {}: {}", subject(work.task), work.message)).unwrap_or_default();
    format!("{why}{failed}")
}

/// That the schema is not what the code before needs.
pub fn changed(pass: &Pass<'_>) -> String {
    let known = pass.status.database.as_ref();
    let applied = known.map(|known| known.applied.join(", ")).filter(|applied| !applied.is_empty());
    let applied = applied.map(|applied| format!(" ({})", bounded(&applied, 200))).unwrap_or_default();
    let what = match super::schema(pass) {
        SchemaState::Partial => "a part of the migration was applied",
        _ => "the migration was applied",
    };
    format!("{what}{applied}, and the manifest gives no way back (onRollback: Halt)")
}

/// What restoring would do.
pub fn restore(pass: &Pass<'_>) -> String {
    let backup = pass.status.database.as_ref().and_then(|known| known.backup.as_ref());
    let (name, at) = backup.map(|backup| (backup.name.clone(), backup.ended_at)).unwrap_or_default();
    let at = at.map(|at| format!(" of {at}")).unwrap_or_default();
    let not_proven = backup.map(|backup| backup.not_proven.clone()).filter(|why| !why.is_empty());
    let not_proven = not_proven.map(|why| format!(", {why},")).unwrap_or_default();
    format!(
        "backup {name}{at}{not_proven} is to be restored: what was written since then, by whomever, is kept only in the database beside it \
         (where other releases have migrated it since, nothing is restored)"
    )
}

/// What taking the migration back would do.
pub fn migrate_down(pass: &Pass<'_>) -> String {
    let known = pass.status.database.clone().unwrap_or_default();
    let down = known.migration_down.unwrap_or_default();
    let change = pinned(pass).and_then(|database| database.migration_down);
    let loose = change.is_some_and(|down_by| image::is_loose(pass, &down_by.change, &down.image));
    let by_tag = if loose { BY_TAG } else { "" };
    let by = if down.image.is_empty() { down.files.join(", ") } else { format!("image {}{by_tag}", down.image) };
    let by = if by.is_empty() { String::new() } else { format!(" by {}", bounded(&by, 400)) };
    let risks = down.risks.join(", ");
    let risks = if risks.is_empty() { risks } else { format!(": {}", bounded(&risks, 400)) };
    let lost = match (down.loses_data, pinned(pass).is_some_and(|database| database.backup.is_some())) {
        (false, _) => "no statement says that data are lost",
        (true, true) => "what was written there since is lost, but for a backup that is made before",
        (true, false) => "what was written there since is lost",
    };
    format!("migration {} is to be taken back{by}{risks}; {lost}", known.plan_hash)
}

/// Parameters of URLs that Prisma knows and psql refuses.
const NOT_OF_PSQL: &str =
    "schema|connection_limit|pool_timeout|pgbouncer|socket_timeout|statement_cache_size|sslaccept|sslidentity";

/// The command that opens a database.
fn psql(pass: &Pass<'_>, url: &SecretSource) -> String {
    psql_of(pass, url, "")
}

/// The command that lists the databases of its server, by way of one that every server has: it may have no name itself.
fn list_databases(pass: &Pass<'_>, url: &SecretSource) -> String {
    format!("{} -l", psql_of(pass, url, r";s,//([^/?]*)(/[^?]*)?,//\1/postgres,"))
}

/// `edit`: what else sed makes of the URL.
fn psql_of(pass: &Pass<'_>, url: &SecretSource, edit: &str) -> String {
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or("default");
    let SecretSource { secret_key_ref: key } = url;
    // Ways to go on are told with " | " between them.
    format!(
        "psql \"$(kubectl -n {namespace} get secret {} -o go-template='{{{{index .data \"{}\"|base64decode}}}}'|\
         sed -E 's/({NOT_OF_PSQL})=[^&]*&?//g{edit}')\"",
        plain(&key.name),
        plain(&key.key)
    )
}

/// What of a word may stand in a name of Kubernetes, or in a key: nothing else of it reaches a shell.
fn plain(word: &str) -> String {
    word.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-._".contains(*letter)).collect()
}

/// That a scratch database may be left, and the command that tells which statement removes it.
pub fn left_behind(pass: &Pass<'_>) -> Option<(String, String)> {
    let known = pass.status.database.as_ref().filter(|known| known.scratch_since.is_some())?;
    let why = known.last(DatabaseTask::CleanUp).map(|work| format!(": {}", bounded(&work.message, 300)));
    let message = format!("a scratch database may be left on the server{}", why.unwrap_or_default());
    let database = pinned(pass).unwrap_or_default();
    let elsewhere = database.backup.as_ref().and_then(|backup| backup.scratch_url_from.as_ref());
    let psql = psql(pass, elsewhere.unwrap_or(database.direct()));
    Some((message, removal(&psql, "scratch")))
}

/// The command that tells which statement removes databases of the operator's own.
fn removal(psql: &str, kind: &str) -> String {
    format!(
        "remove what is left, unless another release is at work on it: {psql} -Atc \"SELECT format('DROP DATABASE %I WITH (FORCE);', datname) FROM pg_database WHERE datname ~ '^servicerelease_{kind}_'\" (it prints the statement)"
    )
}

/// That what a restore has begun to fill may be left, and the command that tells which statement removes it: another try would
/// go on with it. By way of the database whose place it was to take: where that is not there it is no left-over.
pub fn half_restored(pass: &Pass<'_>) -> Option<(String, String)> {
    let work = pass.status.database.as_ref()?.last(DatabaseTask::Restore)?;
    if matches!(work.outcome, WorkOutcome::Running | WorkOutcome::Done) {
        return None;
    }
    let message = "the restore was given up on, and its database may be left on the server".to_owned();
    Some((message, removal(&psql(pass, pinned(pass).unwrap_or_default().direct()), "restore")))
}

/// A word as a shell reads it: names in the database are whoever's writes its migrations.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Most indexes that a command drops: the rest stands in the status.
const MOST_DROPPED: usize = 3;

/// That indexes were left invalid, and the command that drops them.
pub fn left_invalid(pass: &Pass<'_>) -> Option<(String, String)> {
    let known = pass.status.database.as_ref().filter(|known| !known.invalid_indexes.is_empty())?;
    let database = pinned(pass).unwrap_or_default();
    let told: Vec<&str> = known.invalid_indexes.iter().take(MOST_DROPPED).map(String::as_str).collect();
    let drop = told.iter().map(|index| format!(" -c {}", quoted(&format!("DROP INDEX CONCURRENTLY {index}"))));
    let command = format!("drop what is invalid: {}{}", psql(pass, database.direct()), drop.collect::<String>());
    Some((format!("indexes were left invalid: {}", told.join(", ")), command))
}

/// Why a person's Retry has nothing to do.
pub fn nothing_to_retry(pass: &Pass<'_>) -> String {
    if undo::is_rehearsal_unknown(pass) {
        return "nothing would be tried again: no record tells what the rehearsal has done outside of its scratch database. Look at the real \
                one and its server, take back by hand what it has done, and say Skip once the database fits the code that serves"
            .to_owned();
    }
    let why = match pinned(pass).map(|database| undo::way(pass, &database)) {
        Some(OnRollback::Restore) => "there is no backup of this release to restore",
        _ => {
            "the schema is changed, the manifest gives no way back (onRollback: Halt), and no verification waits for you"
        }
    };
    format!(
        "nothing would be tried again: {why}. Apply a version whose code fits the schema; or take the database back by hand, and say Skip once it fits the code that serves"
    )
}

/// That the code that serves is older than the schema.
pub fn unfit(pass: &Pass<'_>) -> String {
    let release = pass.status.database.as_ref().and_then(|known| known.unfit_before).unwrap_or_default();
    format!("the schema is that of release {release}, which was not promoted, and the code that serves does not fit it")
}

/// How the backup of this release is restored, if there is one: by the release where it made it, which restores into a
/// database beside the one that is there and gives it the name.
fn how_to_restore(pass: &Pass<'_>) -> Option<String> {
    let known = pass.status.database.as_ref()?;
    let changed = known.schema.is_changed();
    let done = changed && known.is_backed_up();
    let backup = known.backup.as_ref().filter(|backup| done && !backup.name.is_empty())?;
    let name = bounded(&backup.name, 200);
    let own = pinned(pass)?.backup.is_some_and(|backup| backup.persistent_volume_claim.is_some());
    Some(match own {
        true => {
            format!("to restore backup {name}: set spec.database.onRollback: Restore, which waits for your approval")
        }
        false => format!("restore backup {name} into a new database, and give that the name of the one that is there"),
    })
}

/// The commands that show what the migration has done: its log, and its database.
pub fn look_at_migration(pass: &Pass<'_>) -> String {
    let known = pass.status.database.as_ref();
    let job = known.and_then(|known| known.last(DatabaseTask::Migration)).map(|work| work.job.clone());
    let psql = psql(pass, pinned(pass).unwrap_or_default().direct());
    format!("{} logs job/{} --all-containers; {psql} -c '\\d'", kubectl(pass), job.unwrap_or_default())
}

/// What a person does where a rehearsal may have been done to the real database. The ledger does not have it.
fn look_for_rehearsed(pass: &Pass<'_>, psql: &str) -> String {
    let backup = pass.status.database.as_ref().and_then(|known| known.backup.as_ref());
    let backup = backup.map(|backup| format!(" (backup {} is from before it)", bounded(&backup.name, 200)));
    format!(
        "{psql} -c '\\d' -c '\\du' -c '\\l', and look there, and in the migration tool's own table, whether the migration, or what it \
         does to roles and databases, is in it; if so, take it back by hand{}, or leave it; when the database fits the code that serves: {}",
        backup.unwrap_or_default(),
        command(pass, "skip")
    )
}

/// The exact commands for the person who looks.
pub fn commands(pass: &Pass<'_>) -> String {
    let metadata = &pass.release.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    let known = pass.status.database.as_ref();
    let job = known.and_then(|known| known.work.iter().rev().find(|work| work.outcome != WorkOutcome::Done));
    let log =
        job.map(|work| format!("kubectl -n {namespace} logs job/{} --all-containers; ", work.job)).unwrap_or_default();
    let drop = left_invalid(pass).map(|(_, command)| format!("{command}; ")).unwrap_or_default();
    let half_way = known.map(|known| bounded(&known.half_way.join("; "), 300)).filter(|told| !told.is_empty());
    let log = format!("{log}{drop}{}", half_way.map(|told| format!("{told}; ")).unwrap_or_default());
    let url = pinned(pass).map(|database| database.direct().clone()).unwrap_or_default();
    let files = pinned(pass).and_then(|database| database.migration).is_some_and(|it| it.change.sql.is_some());
    // What is known of tools stands in a schema of its own.
    let schema = if files { "" } else { "servicerelease." };
    let select = format!("SELECT * FROM {schema}servicerelease_ledger");
    let psql = psql(pass, &url);
    if undo::is_rehearsal_unknown(pass) {
        return format!("{log}{}", look_for_rehearsed(pass, &psql));
    }
    let restore = known.and_then(|known| known.outcome(DatabaseTask::Restore));
    let look = match known.map(|known| known.settle.as_str()).filter(|settle| !settle.is_empty()) {
        // As the runner has it: it knows where the ledger is.
        Some(settle) => {
            // What keeps a restore from being done was done by others, and is known.
            let others = restore == Some(WorkOutcome::NotBegun);
            let or = if settle.starts_with("UPDATE") && !others { " (or 'Failed')" } else { "" };
            let once = if others { "if that may go" } else { "once you know what became of it" };
            format!("{log}{psql}, and there, {once}: {settle}{or}")
        }
        // The database may be without its name.
        None if restore == Some(WorkOutcome::Unknown) => {
            format!("{log}{} (which databases there are)", list_databases(pass, &url))
        }
        None => format!("{log}{psql} -c '{select}'"),
    };
    if !retreat::under_way(pass) {
        return look;
    }
    let srel = format!("kubectl srel -n {namespace}");
    let restore = how_to_restore(pass).map(|restore| format!("{restore}; or ")).unwrap_or_default();
    let skip = format!("when the database fits the code that serves: {srel} skip {name}");
    let newer = onward::offered(pass) != pass.candidate_hash();
    match again::what(pass) {
        Again::Look => format!(
            "{look}; then {srel} retry {name} (look again), or, when the database fits the code that serves, skip in the place of retry"
        ),
        Again::Verify => format!(
            "{log}mend what is missing, then {srel} retry {name} (the schema is verified again, and the release goes on); or {restore}{skip}"
        ),
        // Maintenance mode stays on until it serves.
        Again::Onward if newer => format!(
            "{log}{srel} retry {name} (releases {}); or {restore}{skip}",
            onward::offered(pass).unwrap_or_default()
        ),
        Again::Onward => format!(
            "{log}apply a version whose code fits the new schema, then {srel} retry {name} (without one it tries the same again); or {restore}{skip}"
        ),
        Again::Nothing => {
            format!("{log}apply a version whose code fits the new schema; or {restore}{skip}")
        }
    }
}
