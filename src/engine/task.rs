//! What Jobs of the operator's image do with a database, and what they report: the contract between the engine, which
//! writes tasks, and the runner, which carries them out. A report is the pod's termination message, as JSON; a Job without
//! one has an unknown outcome.

use serde::{Deserialize, Serialize};

use crate::api::{
    BackupStatus, DatabasePreflight, Duration, JobCheck, ProvenBackup, RehearsalStatus, SecretSource, Verify,
    WorkOutcome,
};

/// The longest report, in bytes; the kubelet would cut it at 4096.
pub const MOST_REPORT: usize = 2_048;

/// The variable with the database's URL, in the pods of all of these Jobs. A template of the user's may set it itself.
pub const URL: &str = "DATABASE_URL";
/// The same where a command of the user's is wrapped, whatever its template sets: the runner reads it before [`URL`], and
/// takes it out of the command's environment.
pub const WRAPPER_URL: &str = "SERVICERELEASE_URL";
/// The variable with the URL of another server for scratch databases. Taken out of a wrapped command's environment too.
pub const SCRATCH_URL: &str = "SCRATCH_URL";
/// Where SQL files are mounted, read-only. Without that ConfigMap the directory is there, and empty.
pub const FILES: &str = "/var/run/servicerelease/files";
/// Where the SQL files are mounted, read-only, that would take the migration back, while preflight looks at those of both.
pub const DOWN_FILES: &str = "/var/run/servicerelease/down";
/// Where the SQL files of a seed that is due are mounted, read-only, while preflight looks at them, and while the migration
/// before it is rehearsed. Of a seed by a pod of the user's, while preflight looks: the root of what that mounts of ConfigMaps.
pub const SEED_FILES: &str = "/var/run/servicerelease/seed";
/// Where backups are mounted, writable.
pub const BACKUPS: &str = "/var/run/servicerelease/backups";
/// Where the certificates of authorities are mounted, and the variable by which libpq and the runner know the file.
pub const CA: &str = "/var/run/servicerelease/ca";
/// What the runner says where the files are not there: that object, or the key of it, does not exist.
pub const NO_AUTHORITY: &str = "the certificates of the server's authority are not there";
/// The same of SQL files.
pub const NO_FILES: &str = "there is no file whose name ends in .sql";
/// What comes before what is said of the seed's files.
pub const OF_SEED: &str = "of the seed: ";
/// See [`CA`].
pub const ROOT_CERT: &str = "PGSSLROOTCERT";
/// Where the operator's program is put beside a wrapped command: `install --to` this directory, by an init container.
/// What is wrapped is then run as `loader --library-path PROGRAMS PROGRAMS/runner database --task JSON -- COMMAND ARGS`.
/// `$(NAME)` in COMMAND and ARGS comes as it was written: the runner expands it by [`expand`](crate::database::expand), in
/// the environment that it gives the command, so that a rehearsal does not get the URL of the real database.
pub const PROGRAMS: &str = "/servicerelease";
/// The container of the operator's image that does so, and the volume.
pub const INSTALLER: &str = "servicerelease-runner";

/// What a Job is to do, as JSON in its arguments. URLs are in its environment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// Look at the database, and at the SQL files if there are any.
    #[serde(rename_all = "camelCase")]
    Preflight {
        /// The oldest version of the server.
        min_version: Option<String>,
        /// Whether a lock has to be held, or a dump made: then a pooler between transactions will not do.
        session: bool,
        /// What else is looked at.
        limits: DatabasePreflight,
        /// The set of the SQL files that are mounted, if there are any: which are pending, and what they risk.
        set: Option<String>,
        /// Namespace, name and number of the release: where the ledger is that knows of its files.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        release: String,
        /// What the pod of a command of the user's mounts of ConfigMaps, which is this pod.
        #[serde(default, skip_serializing_if = "Mounted::is_nothing")]
        mounted: Mounted,
        /// What the release is going to do, and needs rights to.
        #[serde(default)]
        planned: Vec<Planned>,
        /// Whether SQL files are mounted at [`DOWN_FILES`]: what they would lose, should the release be taken back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        down: bool,
        /// The set of the SQL files that are mounted at [`SEED_FILES`], if the seed is due and has any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<String>,
        /// What the pod of a seed that is due mounts of ConfigMaps: here it is mounted under [`SEED_FILES`].
        #[serde(default, skip_serializing_if = "Mounted::is_nothing")]
        seed_mounted: Mounted,
        /// A migration that is not due, since the spec names none but what was applied: its contents may have changed all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        applied: Option<AsApplied>,
    },
    /// Make a backup in the directory that is mounted, prove it if asked, remove old ones.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// Its name: `NAME.dump`. One that is there already and whole is taken for this one: the Job was made twice.
        name: String,
        /// Namespace and name of the release, as `ns/name`: of others that share the directory nothing is removed.
        #[serde(default)]
        of: String,
        /// Namespace, name and number of the release: whose scratch database it is.
        #[serde(default)]
        release: String,
        /// Whether it is restored, and its rows counted.
        proof: bool,
        /// How many of its database are kept; without it nothing is removed.
        #[serde(default)]
        keep: Option<i32>,
        /// After how long others go.
        #[serde(default)]
        max_age: Option<Duration>,
        /// The backup that the release may still restore: it stays.
        #[serde(default)]
        spared: Option<String>,
        /// The last one that was restored, and counted: a rehearsal by a command of the user's, which has the directory read
        /// only, has left it to the next backup to note that beside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proven: Option<ProvenBackup>,
        /// Whether rehearsals prove the backups: where none is known to be proven, any that is newer than the last one on record
        /// may be.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rehearsed: bool,
    },
    /// Restore the backup of this name into a scratch database, migrate that, verify it, remove it.
    #[serde(rename_all = "camelCase")]
    Rehearse {
        /// The backup.
        name: String,
        /// Namespace, name and number of the release: whose scratch database it is.
        #[serde(default)]
        release: String,
        /// With SQL files; without, the command of the user's that is wrapped is run with the scratch database's URL.
        sql: Option<SqlRun>,
        /// The seed that follows the migration, if it is due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<Box<SeedDue>>,
        /// What must be there after it.
        verify: Option<Verify>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Remove what proofs and rehearsals of a release left that were killed: end their sessions, and drop the scratch
    /// database; remove the files of backups that were broken off.
    #[serde(rename_all = "camelCase")]
    CleanUp {
        /// Namespace, name and number of the release.
        release: String,
        /// The backups that were not finished.
        #[serde(default)]
        unfinished: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Apply SQL files, each once.
    Migrate(SqlRun),
    /// Take back SQL files.
    #[serde(rename_all = "camelCase")]
    Down {
        /// How, and of which set.
        run: SqlRun,
        /// The release whose files are taken back: those that the ledger has of it.
        of: String,
        /// The seed that the release had put in, if it had: the ledger forgets it, since its rows may be gone with the tables.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<Seeded>,
    },
    /// Look at what is going to take a migration back, and change nothing.
    #[serde(rename_all = "camelCase")]
    PreflightDown {
        /// The set of the SQL files that are mounted, if there are any.
        set: Option<String>,
        /// The release whose files are taken back.
        of: String,
        /// What must be so; of a command of the user's, where ConfigMaps are mounted in its pod, too.
        meant: Meant,
    },
    /// Run the command of the user's that is wrapped, under the lock, with a record in the ledger.
    Wrap(Wrapped),
    /// Find out what became of a wrapped command whose Job is gone: wait until no server process of it is left, and read
    /// the ledger.
    Settle(Wrapped),
    /// Find out what became of SQL files whose Job is gone: take the lock, and read in the ledger which of them this release
    /// applied. Done if none is pending, NotBegun if it applied none of those, else Failed.
    SettleSql(SqlRun),
    /// Look at the schema.
    Verify(Verify),
    /// Restore a backup in the database's place: into a database beside it, which is proven and then takes its name. What
    /// was there stays as NAME_before_N_OBJECT.
    #[serde(rename_all = "camelCase")]
    Restore {
        /// The backup.
        name: String,
        /// What the database that was there is called afterwards: its name, and this.
        suffix: String,
        /// Namespace, name and number of the release: what others have done to the database since is not set back with it.
        #[serde(default)]
        release: String,
        /// The database that is meant: another one of the same name on another server keeps its place.
        #[serde(default)]
        meant: Meant,
    },
    /// Look whether the database is the one that was restored, and has the tables and rows that the backup was made of.
    #[serde(rename_all = "camelCase")]
    VerifyRestored {
        /// The backup.
        name: String,
        /// As in the restore.
        suffix: String,
    },
}

/// What the pod of a command of the user's mounts of ConfigMaps: what is in it is part of the plan, and SQL files in it are read.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Mounted {
    /// Directories and files, as they are called in that pod.
    pub paths: Vec<String>,
    /// Whether a person is to be asked also where there is nothing to read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wary: bool,
}

/// A migration that counts as applied.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AsApplied {
    /// The ConfigMaps that it is in, for people.
    pub maps: Vec<String>,
    /// What is in them.
    pub what: Contents,
}

/// What ConfigMaps have of a migration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Contents {
    /// SQL files of this set, mounted at [`FILES`]: the ledger has all of them.
    Set(String),
    /// What the pod of a command mounts, here under the root [`FILES`].
    #[serde(rename_all = "camelCase")]
    Mounted {
        /// Directories and files, as they are called in that pod.
        paths: Vec<String>,
        /// Their hash when it was applied.
        files: String,
    },
}

impl Mounted {
    /// Whether there is nothing to look at.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.paths.is_empty()
    }
}

/// A seed that comes between a migration and its verification, as a rehearsal treats it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum SeedDue {
    /// SQL files, mounted at [`SEED_FILES`]: they are run there, too.
    Files(SqlRun),
    /// A pod of the user's, which is not run. The queries of the verification may be about its rows, and are not asked.
    Pod,
}

/// How the ledger has a seed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Seeded {
    /// As files of this set.
    Files(String),
    /// As a command, by this plan.
    Command(String),
}

/// What preflight found, and is compared under the lock: where it is something else by then, nothing is begun. What is empty
/// is not compared.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Meant {
    /// The database: its name, and the server's identifier.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub database: String,
    /// Files and directories whose contents are compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<String>,
    /// Their hash.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub files: String,
}

/// What a release is going to do with its database, as far as preflight looks whether it could.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Planned {
    /// A backup by pg_dump.
    Backup,
    /// Its proof, in a scratch database.
    Proof,
    /// A rehearsal, in a scratch database.
    Rehearsal,
    /// A backup in the database's place, should the release be taken back.
    Restore,
}

/// What the name of a backup ends with that is made before another one is restored.
pub const BEFORE_RESTORE: &str = "-before-restore";
/// The same before a migration is taken back.
pub const BEFORE_DOWN: &str = "-before-down";

/// A run of SQL files.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SqlRun {
    /// Tells the files from others in the ledger.
    pub set: String,
    /// Namespace, name and number of the release: `ns/name#3`.
    pub release: String,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
    /// The hash of the files that are meant; others are refused under the lock.
    pub plan: Option<String>,
    /// What else is.
    #[serde(default)]
    pub meant: Meant,
    /// Which try it is: one that was settled does not begin any more. None where nobody settles it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub which: Option<Try>,
}

/// A try of a release's work with SQL files, as the release or a person by Retry has ordered it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Try {
    /// Of what: `migration` or `seed`.
    pub of: String,
    /// From 1.
    pub number: i32,
}

/// A run of a command of the user's.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Wrapped {
    /// Tells this run from all others in the ledger: one that is there already is not run again. See [`Wrapped::shared`],
    /// [`Wrapped::takes_back`].
    pub plan: String,
    /// Namespace, name and number of the release.
    pub release: String,
    /// Which try of this release it is, of those that it or a person has ordered: a pod that was made twice for one try, or
    /// after another one was lost, finds in the ledger that it failed, and does not run it again; the next try does.
    #[serde(default)]
    pub attempt: i32,
    /// Whether it may be run although an earlier run of it is on record as begun and not ended.
    pub again: bool,
    /// What must be so when it begins.
    #[serde(default)]
    pub meant: Meant,
    /// How long a statement may wait for a lock, before it is cancelled from outside.
    pub lock_timeout: Duration,
    /// How long it may take.
    pub timeout: Duration,
    /// Of a command that takes a migration back: the seed that the release had put in, which the ledger forgets with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seeded>,
}

impl Wrapped {
    /// The plan of a migration, as it is called in the ledger: `migration/HASH/RELEASE`, of a release its own.
    pub fn migration(hash: &str, release: &str) -> String {
        format!("{MIGRATION}{hash}/{release}")
    }

    /// The same of what takes it back.
    pub fn down(hash: &str, release: &str) -> String {
        format!("{DOWN}{hash}/{release}")
    }

    /// What the plan of a migration begins with in whichever release it is: a command that any of them has run is not run
    /// again, and one of which nobody knows the end is not known for any of them (INVARIANTS D1).
    pub fn shared(&self) -> Option<&str> {
        self.plan.strip_suffix(&self.release).filter(|_| self.migrates())
    }

    /// Whether it is a migration.
    pub fn migrates(&self) -> bool {
        self.plan.starts_with(MIGRATION)
    }

    /// Whether it takes the migration of its release back, which the ledger forgets then.
    pub fn takes_back(&self) -> bool {
        self.plan.starts_with(DOWN)
    }
}

/// What the plans of migrations begin with in the ledger.
pub const MIGRATION: &str = "migration/";
/// What those begin with that take them back.
const DOWN: &str = "down/";

/// What came of a task.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// How it ended. Never Running.
    pub outcome: WorkOutcome,
    /// For people: what was done, or what is wrong and what can be done. At most 512 bytes, never data, never a password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The statement by which a person notes in the ledger what became of what nobody knows: whole, or none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub settle: String,
    /// The hash of the SQL files.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub files_hash: String,
    /// SQL files that are not applied yet; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// Statements that lose data, rows of older code that they refuse among them; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub risks: Vec<String>,
    /// Whether data are lost by one of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub loses_data: bool,
    /// What the SQL files would lose that take the migration back, or what keeps them from being run; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub down_risks: Vec<String>,
    /// Whether data are lost by one of them, or may be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub down_loses_data: bool,
    /// The hash of the SQL files of the seed, or of what its pod mounts of ConfigMaps.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub seed_hash: String,
    /// Statements of the seed that lose data; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seed_risks: Vec<String>,
    /// Whether data are lost by one of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub seed_loses_data: bool,
    /// Indexes that were left invalid, or that nobody knows of whether they were; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalid_indexes: Vec<String>,
    /// What migration tools have on record as not finished after it failed, each with what is done about it; at most 4.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub half_way: Vec<String>,
    /// SQL files that it applied, or took back; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<String>,
    /// Whether a file that runs in no transaction failed, so that a part of it may be in effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partly: bool,
    /// Whether it ended well, and had nothing to do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// The database that preflight looked at: its name, and the server's identifier.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub database: String,
    /// How many files there were of that kind in all.
    #[serde(skip_serializing_if = "is_zero")]
    pub count: i64,
    /// The server's version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_version: String,
    /// The size of the database.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// Whether it did not come to read the ledger: what pods before it have done it does not know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
    /// Whether a scratch database may be left, of its own or of a pod before it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// The backup that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// What the rehearsal found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalStatus>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// What the Job's pod is.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskPod {
    /// The operator's own image.
    Own,
    /// A pod of the user's, whose first container's command is wrapped: a program of the operator's image is put beside it
    /// by an init container.
    Wrapped {
        /// The pod template.
        template: serde_json::Value,
        /// The image of its first container, if another one is to be taken.
        image: Option<String>,
    },
    /// A pod of the user's as it is; what it leaves as its termination message is no report.
    User(JobCheck),
}

/// A volume of ConfigMaps of another pod, which the runner reads.
#[derive(Clone, Debug, PartialEq)]
pub struct MapVolume {
    /// The volume, without its name.
    pub volume: serde_json::Value,
    /// Where it is mounted, read-only.
    pub path: String,
    /// What of it, if not all.
    pub sub_path: Option<String>,
}

/// All that a Job for a database is.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseJob {
    /// What it does; nothing with [`TaskPod::User`].
    pub task: Option<Task>,
    /// Where it runs.
    pub pod: TaskPod,
    /// The URL of the database, past poolers, as [`URL`], and for a wrapped command as [`WRAPPER_URL`] too.
    pub url: SecretSource,
    /// The authorities of the server's certificate, mounted at [`CA`].
    pub ca: Option<crate::api::CaSource>,
    /// Another server for scratch databases, as [`SCRATCH_URL`].
    pub scratch: Option<SecretSource>,
    /// The ConfigMap with SQL files, mounted at [`FILES`].
    pub files: Option<String>,
    /// The one with those that take the migration back, mounted at [`DOWN_FILES`].
    pub down_files: Option<String>,
    /// The one with those of the seed, mounted at [`SEED_FILES`].
    pub seed_files: Option<String>,
    /// What a pod of the user's mounts of ConfigMaps, where this is another pod.
    pub maps: Vec<MapVolume>,
    /// The PersistentVolumeClaim with backups, mounted at [`BACKUPS`].
    pub backups: Option<crate::api::BackupClaim>,
    /// How pods of the operator's image are run.
    pub runner: crate::api::RunnerPod,
}
