//! `status.database`: what was done with the database, what was found, and what a person approved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApprovalKind, Timestamp};

/// Entries of [`DatabaseStatus::work`].
pub const MAX_WORK: usize = 15;
/// Entries of [`DatabaseStatus::migrations`].
pub const MAX_MIGRATIONS: usize = 8;
/// Entries of any list of files, tables or statements.
pub const MAX_FINDINGS: usize = 8;

/// The database in the release under way, or the last one.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// The release that this is about.
    #[serde(default)]
    pub release: i64,
    /// The hash of what is run, with the seed where that is due: image, command, files, target. An approval names it; a change
    /// of any of them makes another one. Known after preflight.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub plan_hash: String,
    /// What has become of the schema in this release.
    #[serde(default)]
    pub schema: SchemaState,
    /// Whether a SQL file that runs in no transaction failed, so that a part of it may be in effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly: bool,
    /// What Jobs did in this release, oldest first: of each kind the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15))]
    pub work: Vec<DatabaseWork>,
    /// The server's version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub server_version: String,
    /// The size of the database in bytes.
    #[serde(default, skip_serializing_if = "super::status::is_zero")]
    pub size_bytes: i64,
    /// The database that preflight looked at: its name, and the identifier of its server. Part of the plan: no other one is
    /// changed, whatever the Secret says by then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub database: String,
    /// The image of the migration, as the node that ran preflight has it (imageID): part of the plan. Where it is a digest
    /// of the repository that the manifest names, that digest is rehearsed and run, whatever the tag names by then. Else its
    /// tag is, as the approval says, and a Job that ran another image is told by a Warning Event (ImageChanged) and in timeline.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
    /// The hash of the SQL files, or of what is in the ConfigMaps that the migration's pod mounts, as preflight found them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub files_hash: String,
    /// SQL files that are not applied yet, at most 8. Of a template of yours those that its pod mounts from ConfigMaps, and that its
    /// tool's own table does not have: Prisma's, golang-migrate's, Flyway's, sqlx's. Without such a table all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub pending: Vec<String>,
    /// Statements of the migration's pending files that lose data: of what is there, or rows of older code that they refuse; each
    /// with its file and line, at most 8. So does a file of a template of yours that cannot be read, unless it is rehearsed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 160)))]
    pub risks: Vec<String>,
    /// Whether data are lost by one of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loses_data: bool,
    /// The files of the seed, where it is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedStatus>,
    /// What takes the migration back, where onRollback is MigrateDown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_down: Option<MigrationDownStatus>,
    /// Since when a scratch database of a proof or a rehearsal may be there: its Job has begun, and has not told yet that it
    /// is gone. On the way out of the release a Job removes it; where that failed, this stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_since: Option<Timestamp>,
    /// The backup of this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// The last backup that was restored, and had all its rows, of whatever release: no retention removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<ProvenBackup>,
    /// The backup of what was there before the schema was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<BackupStatus>,
    /// What the rehearsal found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalStatus>,
    /// SQL files that this release applied, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub applied: Vec<String>,
    /// The statement by which a person notes in the ledger what became of what nobody knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub settle: String,
    /// Indexes that are not valid since a statement that runs in no transaction failed or was broken off, at most 8: drop them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 160)))]
    pub invalid_indexes: Vec<String>,
    /// What a migration tool has on record as not finished since the migration failed, with what is done about it; at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 256)))]
    pub half_way: Vec<String>,
    /// When a person said Retry to a halt on the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_again_at: Option<Timestamp>,
    /// What a person approved in this release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub approvals: Vec<DatabaseApproval>,
    /// What Retry releases over the schema as it is, where the way back ends at one that is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<DatabaseFix>,
    /// The release that made the schema what it is and did not come to serve: code of releases before it does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit_before: Option<i64>,
    /// Since when maintenance mode is on for this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_since: Option<Timestamp>,
    /// Since when the key of spec.maintenance is seen as it is in maintenance mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_key_since: Option<Timestamp>,
    /// The last migrations that ended well and were not taken back, of whatever release, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub migrations: Vec<MigratedStatus>,
    /// When the database was seeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeded_at: Option<Timestamp>,
}

/// What preflight found of the files that are put into a database once: SQL files, or what a pod mounts of ConfigMaps.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SeedStatus {
    /// The hash of the files, a part of planHash. Others are not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub files_hash: String,
    /// Their statements that lose data, each with its file and line; at most 8. What the migration of the same release has
    /// made has no values yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 160)))]
    pub risks: Vec<String>,
    /// Whether data are lost by one of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loses_data: bool,
}

/// What takes a migration back. After preflight it is known what that would lose, as far as files tell; on the way back it is
/// looked at once more, right before it is run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationDownStatus {
    /// The hash of what is run: image, command, files, target. An approval of kind MigrateDown names it. Known on the way back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub plan_hash: String,
    /// Its image, as the node that looked at it has it (imageID): where that is a digest, it is what is run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
    /// The hash of its SQL files, or of what is in the ConfigMaps that its pod mounts. Others are not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub files_hash: String,
    /// SQL files that are run, in their order, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub files: Vec<String>,
    /// What is lost, or what keeps it from being run, each with its file; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 160)))]
    pub risks: Vec<String>,
    /// Whether data are lost, or may be for all that anybody knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loses_data: bool,
}

/// A release over a schema that no way leads back from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseFix {
    /// The revision: what the spec wants by now.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// When a person said Retry to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_at: Option<Timestamp>,
}

/// What has become of the schema.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaState {
    /// It is as it was before the release, also where all SQL files of the migration were applied already.
    #[default]
    Unchanged,
    /// The migration is under way.
    Changing,
    /// The migration was applied.
    Changed,
    /// A part of the migration was applied.
    Partial,
    /// Nobody knows.
    Unknown,
    /// It was brought back: by migrationDown, or by restoring the backup.
    Undone,
    /// A person has said that it may stay as it is.
    Accepted,
}

/// The Jobs that work on a database.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DatabaseTask {
    /// Looks whether the migration could run.
    Preflight,
    /// Makes a backup and proves it.
    Backup,
    /// Tries the migration on a restored backup.
    Rehearsal,
    /// Migrates.
    Migration,
    /// Puts in what a new database starts with.
    Seed,
    /// Looks at the schema after the migration.
    Verification,
    /// Finds out what became of a migration whose Job is gone.
    Settlement,
    /// Looks at what is about to take the migration back.
    PreflightDown,
    /// Makes a backup of what is there before the migration is taken back.
    BackupBeforeDown,
    /// Takes the migration back.
    MigrationDown,
    /// Looks at the schema after that.
    VerificationDown,
    /// Makes a backup of what is there before another one is restored.
    BackupBeforeRestore,
    /// Restores the backup.
    Restore,
    /// Looks whether what was restored has the tables and rows that the backup was made of.
    VerificationRestore,
    /// Removes what a proof or a rehearsal left that was broken off.
    CleanUp,
}

impl DatabaseTask {
    /// It in a word, as steps are shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Preflight => "database preflight",
            Self::Backup => "backup",
            Self::Rehearsal => "rehearsal",
            Self::Migration => "migration",
            Self::Seed => "seed",
            Self::Verification => "verification",
            Self::Settlement => "settlement",
            Self::PreflightDown => "preflight of the way down",
            Self::BackupBeforeDown => "backup before the way down",
            Self::MigrationDown => "migration down",
            Self::VerificationDown => "verification of the way down",
            Self::BackupBeforeRestore => "backup before the restore",
            Self::Restore => "restore",
            Self::VerificationRestore => "verification of the restore",
            Self::CleanUp => "clean-up",
        }
    }
}

/// One Job and its outcome.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseWork {
    /// What it does.
    pub task: DatabaseTask,
    /// How it ended.
    pub outcome: WorkOutcome,
    /// Counts the Jobs of this kind in the release, from 1.
    pub attempt: i32,
    /// How many of them, since it was begun, ended without a report: their pods were killed, evicted, or never there.
    #[serde(default, skip_serializing_if = "super::status::is_zero")]
    pub lost: i64,
    /// The Job: `kubectl logs job/NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub job: String,
    /// Whether that Job was seen at work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ran: bool,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Whether a migration tool ended well and had nothing to do, by what it has on record itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// What came of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 320))]
    pub message: String,
}

/// How a Job ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkOutcome {
    /// It has not.
    #[default]
    Running,
    /// All is done.
    Done,
    /// Nothing was changed, and what was asked for is not so.
    NotBegun,
    /// It failed, and what it had done before that stays.
    Failed,
    /// Nobody knows what became of it.
    Unknown,
}

/// A backup that was restored.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct ProvenBackup {
    /// Its name.
    #[schemars(length(max = 256))]
    pub name: String,
    /// When.
    pub at: Timestamp,
}

/// A backup.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Its name, or where a Job of yours says that it is.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "super::status::is_zero")]
    pub bytes: i64,
    /// SHA-256 of the file, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// The version of the server that it is of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub server_version: String,
    /// How many tables, and rows in all of them.
    #[serde(default, skip_serializing_if = "super::status::is_zero")]
    pub tables: i64,
    /// Rows in all of them.
    #[serde(default, skip_serializing_if = "super::status::is_zero")]
    pub rows: i64,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When it was restored, and had all its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
    /// Why nobody knows whether it can be restored; empty where it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub not_proven: String,
}

/// What a rehearsal found.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalStatus {
    /// How long the backup took to restore, in milliseconds.
    #[serde(default)]
    pub restored_millis: i64,
    /// How long the migration took, in milliseconds.
    #[serde(default)]
    pub migrated_millis: i64,
    /// The strongest locks on tables that were there before, such as `AccessExclusiveLock on public.users`; at most 8.
    /// ShareLock and stronger ones, which keep writers out. Those of SQL files are read in each file's transaction; those of a
    /// pod of yours are sampled every 20 ms, so that one which was held for less may not be seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub locks: Vec<String>,
    /// Tables that were written anew, with their rows, and those of which statements updated or deleted rows, with how many;
    /// at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub rewritten: Vec<String>,
}

impl RehearsalStatus {
    /// Its locks in words. `sampled`: a pod of the user's took them, of which short ones are not seen.
    #[must_use]
    pub fn locks_told(&self, sampled: bool) -> String {
        match (self.locks.is_empty(), sampled) {
            (true, true) => "not seen (sampled every 20 ms)".to_owned(),
            (true, false) => "none".to_owned(),
            (false, true) => format!("{} (sampled every 20 ms)", self.locks.join(", ")),
            (false, false) => self.locks.join(", "),
        }
    }
}

/// What a person approved.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseApproval {
    /// Migration, MigrateDown or Restore.
    pub kind: ApprovalKind,
    /// Of which plan.
    #[schemars(length(max = 64))]
    pub plan_hash: String,
    /// Who.
    #[schemars(length(max = 253))]
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A migration that ended well.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MigratedStatus {
    /// The migration as the spec had it, as a hash: another one is another release.
    #[schemars(length(max = 63))]
    pub migration: String,
    /// The plan that was run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub plan_hash: String,
    /// The hash of its files, as they were run: where those of a template of yours changed since behind the same names, preflight of
    /// a later release tells it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub files_hash: String,
    /// The release that brought it.
    pub release: i64,
    /// Whether the code before runs on the new schema: the spec said so, or all SQL files were applied before the release.
    #[serde(default)]
    pub compatible: bool,
    /// When it was verified.
    pub at: Timestamp,
}

/// Feature flags that are set, or set back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FlagsStatus {
    /// The ConfigMap.
    #[schemars(length(max = 253))]
    pub config_map: String,
    /// The release that set them.
    pub release: i64,
    /// What the keys are to be.
    #[schemars(length(max = 8))]
    pub wanted: Vec<FlagValue>,
    /// What they were before the release.
    #[schemars(length(max = 8))]
    pub before: Vec<FlagValue>,
    /// When they were seen to be so. What somebody else sets later is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at: Option<Timestamp>,
}

/// A key of a ConfigMap, and what it is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagValue {
    /// The key.
    #[schemars(length(max = 63))]
    pub key: String,
    /// Its value; without one the key is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub value: Option<String>,
}

impl DatabaseStatus {
    /// The last Job of a kind in this release.
    #[must_use]
    pub fn last(&self, task: DatabaseTask) -> Option<&DatabaseWork> {
        self.work.iter().find(|work| work.task == task)
    }

    /// How a kind of Job ended last; none if there was none, or it has not.
    #[must_use]
    pub fn outcome(&self, task: DatabaseTask) -> Option<WorkOutcome> {
        self.last(task).map(|work| work.outcome).filter(|outcome| *outcome != WorkOutcome::Running)
    }

    /// The hash of what an approval of a kind is about; empty where it is not known, or the kind is none of the database's.
    #[must_use]
    pub fn plan(&self, kind: ApprovalKind) -> &str {
        match kind {
            ApprovalKind::Step => "",
            ApprovalKind::Migration | ApprovalKind::Restore => &self.plan_hash,
            ApprovalKind::MigrateDown => self.migration_down.as_ref().map_or("", |down| &down.plan_hash),
        }
    }

    /// Whether a person has approved that very plan.
    #[must_use]
    pub fn is_approved(&self, kind: ApprovalKind) -> bool {
        let plan = self.plan(kind);
        self.approvals.iter().any(|approval| approval.kind == kind && approval.plan_hash == plan)
    }

    /// Whether this release has made its backup.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.outcome(DatabaseTask::Backup) == Some(WorkOutcome::Done)
    }

    /// The revision that Retry would release over the schema as it is.
    #[must_use]
    pub fn offered(&self) -> Option<&str> {
        self.fix.as_ref().filter(|fix| fix.ordered_at.is_none()).map(|fix| fix.revision.as_str())
    }
}

impl SchemaState {
    /// Whether it is known to be another one than before the release, as a whole or in part.
    #[must_use]
    pub const fn is_changed(self) -> bool {
        matches!(self, Self::Changed | Self::Partial)
    }
}
