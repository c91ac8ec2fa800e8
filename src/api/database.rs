//! `spec.database`: the database that a service stands on, and what a release does with it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CaSource, Duration, JobCheck, SecretSource, Verify};

/// The database that the service stands on. The operator never connects to it, and never reads the Secret that says how:
/// all work is done by Jobs in the release's namespace, from the operator's own image or from yours.
///
/// A migration that changed is a release, with or without a new pod template. Its work comes before the candidate has a
/// pod: preflight, backup, rehearsal, approval, maintenance on, migration, seed, verification; each only if it is asked for.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("!has(self.rehearsal) || self.rehearsal.mode == 'Skip' || (has(self.backup) && has(self.backup.persistentVolumeClaim))").message("rehearsal needs backup.persistentVolumeClaim: it restores that backup"),
    validation = Rule::new("!has(self.rehearsal) || self.rehearsal.mode == 'Skip' || has(self.migration)").message("rehearsal needs migration"),
    validation = Rule::new("!has(self.onRollback) || self.onRollback != 'MigrateDown' || has(self.migrationDown)").message("onRollback: MigrateDown needs migrationDown"),
    validation = Rule::new("!has(self.onRollback) || self.onRollback != 'Restore' || (has(self.backup) && has(self.backup.persistentVolumeClaim))").message("onRollback: Restore needs backup.persistentVolumeClaim"),
    validation = Rule::new("!has(self.onRollback) || self.onRollback != 'Keep' || !has(self.migration) || self.migration.previousRevisionCompatible").message("onRollback: Keep needs migration.previousRevisionCompatible: the old code would run on the new schema"),
    validation = Rule::new("!has(self.migrationDown) || has(self.migration)").message("migrationDown needs migration"),
    validation = Rule::new("!has(self.migrationDown) || !has(self.migrationDown.sql) || !has(self.migration) || !has(self.migration.sql) || self.migrationDown.sql.set == self.migration.sql.set").message("migrationDown.sql.set has to be migration.sql.set: the ledger knows by it what is to be taken back"),
    validation = Rule::new("!has(self.seed) || !has(self.seed.sql) || !has(self.migration) || !has(self.migration.sql) || self.seed.sql.set != self.migration.sql.set").message("seed.sql.set is that of the migration, whose files the ledger would take the seed's for: set seed.sql.set, say to seed")
)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// What it is. Default PostgreSQL.
    #[serde(default)]
    pub engine: Engine,
    /// Where its URL stands, such as `postgres://USER:PASSWORD@HOST:5432/NAME?sslmode=require`: user and password
    /// percent-encoded, one host, which leads to the primary; sslmode one of disable, allow, prefer (the default), require, verify-ca and verify-full. Of
    /// the parameters that other programs know, `schema` (Prisma's) is the search path and the rest is left alone.
    pub url_from: SecretSource,
    /// The same past a pooler that lends its connections between transactions (PgBouncer): locks and settings of a session
    /// need it. Default: urlFrom. Preflight finds out whether it is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_url_from: Option<SecretSource>,
    /// The authorities that the server's certificate is checked by, with sslmode verify-ca and verify-full: libpq asks for them.
    /// Mounted at /var/run/servicerelease/ca/ca.crt in the pods of the database's Jobs, and named to them by PGSSLROOTCERT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<CaSource>,
    /// How the pods of the database's Jobs are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerPod>,
    /// The oldest version of the server that will do, such as `14` or `14.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), regex(pattern = "^[0-9]+([.][0-9]+)*$"))]
    pub min_version: Option<String>,
    /// What else is looked at before anything is done.
    #[serde(default)]
    pub preflight: DatabasePreflight,
    /// A backup before the migration, and before a seed that comes without one; where the spec has no migration, in each release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// The migration tried on a restored backup first. A seed that is due is put in there, too, before verify looks; that of
    /// a pod of yours is not, and verify.queries are asked of the real database alone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsal>,
    /// What changes the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// What is put into the database once for each object: in the first release that has this field, after the migration. The
    /// ledger keeps the record, a pod's by namespace and name of the object, so that another image, or the object made again, is
    /// not put in a second time; files are recorded each. After a restore, or migrationDown, of the release that put it in, it is
    /// due again: write it so that rows which are left do no harm (ON CONFLICT DO NOTHING). Preflight looks at its SQL files, too,
    /// and a person is asked where they lose data; and always where code serves already, so that it is not that of a first
    /// deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// What must be there after the migration, before the candidate has a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// What becomes of the schema when the release is taken back after the migration. Default: Keep if
    /// migration.previousRevisionCompatible, else Halt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_rollback: Option<OnRollback>,
    /// What takes the migration back, for onRollback: MigrateDown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_down: Option<MigrationDown>,
}

impl Database {
    /// What becomes of the schema when the release is taken back.
    #[must_use]
    pub fn on_rollback(&self) -> OnRollback {
        let compatible = self.migration.as_ref().is_none_or(|migration| migration.previous_revision_compatible);
        self.on_rollback.unwrap_or(if compatible { OnRollback::Keep } else { OnRollback::Halt })
    }

    /// When a person has to approve that the migration is taken back.
    #[must_use]
    pub fn approval_down(&self) -> MigrationApproval {
        let down = self.migration_down.as_ref();
        let up = self.migration.as_ref().and_then(|migration| migration.approval);
        down.and_then(|down| down.approval).or(up).unwrap_or(MigrationApproval::WhenDataLoss)
    }

    /// When a person has to approve the seed. `late`: code serves already.
    #[must_use]
    pub fn approval_seed(&self, late: bool) -> MigrationApproval {
        let Some(seed) = &self.seed else { return MigrationApproval::Never };
        if late && seed.approval != Some(MigrationApproval::Never) {
            return MigrationApproval::Required;
        }
        let up = self.migration.as_ref().and_then(|migration| migration.approval);
        let readable = seed.change.is_readable();
        asked(seed.approval.or(up.filter(|_| readable)), readable)
    }

    /// The way to the database that holds a session.
    #[must_use]
    pub fn direct(&self) -> &SecretSource {
        self.direct_url_from.as_ref().unwrap_or(&self.url_from)
    }

    /// The rehearsal, unless it is skipped.
    #[must_use]
    pub fn rehearsed(&self) -> Option<&Rehearsal> {
        self.rehearsal.as_ref().filter(|rehearsal| rehearsal.mode == RehearsalMode::Required)
    }
}

/// What a database is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL 13 or later.
    #[default]
    PostgreSQL,
}

/// How the pods of the database's Jobs are run. Those of a template of yours have what it says.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunnerPod {
    /// The service account. Default: the namespace's `default`; no token of it is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Requests and limits, as in a container. Default: 10m CPU and 64Mi, at most 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub resources: Option<Value>,
    /// Secrets to pull the operator's image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalReference>,
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations")]
    pub tolerations: Vec<Value>,
}

/// The name of an object in the release's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What is looked at before anything is done, beside the way to the database, its version, and the role's rights. What is
/// not given is not asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabasePreflight {
    /// Connections that ordinary roles can still make, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub min_free_connections: Option<i64>,
    /// How far a replica may be behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replication_lag: Option<Duration>,
    /// How long the oldest open transaction in this database may have been open: a migration would wait for its locks, and
    /// all others for the migration's. Preflight waits for its end, as long as this, but at most 2m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_transaction_age: Option<Duration>,
    /// Extensions that must be installed in the database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub extensions: Vec<String>,
}

/// A backup. It counts once it was proven.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.persistentVolumeClaim) != has(self.job)").message("exactly one of persistentVolumeClaim and job is needed")
)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// Where `pg_dump --format=custom` writes it, with its rows counted, its checksum, and the record of both beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<BackupClaim>,
    /// A Job of yours in its place: to an object store, by pgBackRest, a snapshot. It has DATABASE_URL in its environment.
    /// As its termination message (/dev/termination-log, at most 2 KiB) it leaves where the backup is: a text, or JSON such
    /// as `{"name": "s3://backups/shop.dump", "bytes": 1048576, "sha256": "64 hexadecimal digits"}`, of which bytes and
    /// sha256 may be absent. That is told in status.database.backup as the Job says it: nobody has restored it here, so
    /// that it never counts as proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobCheck>,
    /// How long it may take, with its proof. Default 30m.
    #[serde(default = "half_an_hour")]
    pub timeout: Duration,
    /// How old it may be when the migration (or a seed without one) begins, which may have waited for an approval: an older
    /// one is made anew first, without another rehearsal or approval, and before maintenance mode goes on. Default 1h.
    #[serde(default = "an_hour")]
    pub max_age: Duration,
    /// Whether it is restored into a scratch database beside the real one, and its rows are counted there. Default Restore.
    #[serde(default)]
    pub proof: Proof,
    /// Where the scratch database is made instead: a URL of another server, whose role may create databases. Default: the
    /// same server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_url_from: Option<SecretSource>,
    /// Which earlier backups stay.
    #[serde(default)]
    pub retention: Retention,
}

/// A place for backups.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupClaim {
    /// The PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// A directory in it. Default: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub sub_path: Option<String>,
}

/// How a backup is proven.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// It is restored, and its rows are counted.
    #[default]
    Restore,
    /// Not at all.
    Skip,
}

/// Which earlier backups stay, of this release and this database: those of others in the same place are left alone. The last
/// proven one, the last of all, and the one that may still be restored, always do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How many, and as many of those that were made before a restore. Default 7.
    #[serde(default = "seven")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: i32,
    /// For how long, such as 720h. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: seven(), max_age: None }
    }
}

const fn seven() -> i32 {
    7
}

/// The migration on a restored backup: how long it takes, which locks it takes, which rows it writes anew, which statements
/// lose data, and whether the verification passes after it. Locks are told from ShareLock on, which keep writers out; those of
/// a template of yours are sampled every 20 ms, so that short ones may not be seen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// Whether there is one. Default Required.
    #[serde(default)]
    pub mode: RehearsalMode,
    /// How long it may take. Default 30m.
    #[serde(default = "half_an_hour")]
    pub timeout: Duration,
}

/// Whether a migration is rehearsed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RehearsalMode {
    /// One that fails fails the release.
    #[default]
    Required,
    /// It is not.
    Skip,
}

/// What changes the schema. It has the rules of [`Change`], which is flattened into it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// What is run.
    #[serde(flatten)]
    pub change: Change,
    /// Whether the code that serves now also runs on the new schema (expand before, contract later). If not, the migration
    /// runs in maintenance mode (spec.traffic.maintenance or spec.maintenance), which ends when the new code serves; without a
    /// new pod template such a migration is Invalid.
    #[serde(default)]
    pub previous_revision_compatible: bool,
    /// Whether a template of yours may be run again when nobody knows what became of it. Default false: the release is
    /// halted. SQL files need it not: the ledger knows.
    #[serde(default)]
    pub idempotent: bool,
    /// Whether a person has to approve it. Default WhenDataLoss for sql, with a rehearsal, and for a template whose first
    /// container mounts ConfigMaps, where SQL files (*.sql) are read; else Never, since nobody reads what it runs. What is said
    /// here holds for migrationDown and for the SQL files of the seed too, unless they say something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<MigrationApproval>,
}

impl Migration {
    /// When a person has to approve.
    #[must_use]
    pub fn approval(&self, rehearsed: bool) -> MigrationApproval {
        asked(self.approval, self.change.is_readable() || rehearsed)
    }
}

/// When a person is asked for a change. `known`: something tells whether it loses data; of what nobody knows that of,
/// WhenDataLoss asks always.
fn asked(said: Option<MigrationApproval>, known: bool) -> MigrationApproval {
    match said {
        Some(MigrationApproval::WhenDataLoss) if !known => MigrationApproval::Required,
        Some(said) => said,
        None if known => MigrationApproval::WhenDataLoss,
        None => MigrationApproval::Never,
    }
}

/// What a new database starts with. It has the rules of [`Change`], which is flattened into it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// What is run.
    #[serde(flatten)]
    pub change: Change,
    /// Whether a person has to approve it, in the same approval as the migration's. Default of SQL files, and of a template whose
    /// first container mounts ConfigMaps, where SQL files (*.sql) are read: as migration.approval says; where that is not set
    /// WhenDataLoss, by what their statements say. Default of another template of yours, which nobody reads: Never. Where code
    /// serves already it always asks, unless Never is said here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<MigrationApproval>,
}

/// What is run on a database: SQL files by the operator's own runner, or a pod of yours.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.sql) != has(self.template)").message("exactly one of sql and template is needed"),
    validation = Rule::new("!has(self.imageFrom) || has(self.template)").message("imageFrom goes with template")
)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// SQL files, each applied once, in the order of the numbers that their names begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlFiles>,
    /// A pod, as in a Job's spec.template: Prisma, Flyway, golang-migrate, a script. Its first container needs `command`,
    /// which is wrapped by a program that holds the lock of the database and keeps the record; it has DATABASE_URL in its
    /// environment unless it sets that itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub template: Option<Value>,
    /// Take the image of this container of the candidate for the first container of template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_from: Option<ImageFrom>,
    /// Another value is another plan: for contents that changed behind the same names, such as those of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub version: Option<String>,
    /// How long it may take. Default 15m.
    #[serde(default = "quarter_of_an_hour")]
    pub timeout: Duration,
    /// How long a statement may wait for a lock before it makes room, and is tried again (sql) or cancelled (template).
    /// Default 5s.
    #[serde(default = "five_seconds")]
    pub lock_timeout: Duration,
}

/// SQL files in a ConfigMap.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SqlFiles {
    /// The ConfigMap: keys such as `001_orders.sql` or `V1__orders.sql`. Those that end in `.down.sql` are for
    /// migrationDown.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
    /// Tells these files in the ledger from others for the same schema: that of migrationDown is the migration's, that of
    /// the seed another. Default: default.
    #[serde(default = "default_set")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub set: String,
}

/// Where an image comes from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFrom {
    /// A container of the release's pod template.
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
}

/// When a person has to approve a migration, a seed, or that a migration is taken back. WhenDataLoss: where statements drop,
/// empty, delete, cut off or write over what is there, or make a column NOT NULL without DEFAULT, so that rows of older code are
/// refused; and where a rehearsal finds tables, columns or rows gone. Of a template of yours the statements are those of the files
/// *.sql that its first container mounts from ConfigMaps, but for those that its tool's own table has as applied, and those that
/// take back (.down.sql, Flyway's U, beside Prisma's migration.sql); one that cannot be read counts as one that may lose data. Where
/// nothing can be read, said by itself it asks always. It is the default, but for a template of yours that mounts no ConfigMap and
/// is not rehearsed: Never. What is said of the migration holds for migrationDown and for the files of the seed, unless they say
/// something else.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationApproval {
    /// Where it loses data: by statements that say so, also by CASCADE or by a rule, and by what a rehearsal finds. UPDATE of a
    /// column or table that the same files have made, or of NULL (WHERE column IS NULL), writes over nothing; SET NOT NULL of a
    /// column to which the same files give a default refuses nothing. Without a rehearsal a statement that runs code (DO, CALL,
    /// EXECUTE, a function that the files make) counts as one that may lose data. What functions and triggers that are there
    /// do is not seen in statements.
    WhenDataLoss,
    /// Always.
    Required,
    /// Never.
    Never,
}

/// What takes a migration back. It has the rules of [`Change`], which is flattened into it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationDown {
    /// What is run. Of SQL files, `NNN_name.down.sql` of those numbers that the release applied, the last first.
    #[serde(flatten)]
    pub change: Change,
    /// Whether a person has to approve it, when the release is taken back. Default: as migration.approval says; where that
    /// is not set WhenDataLoss. Of a template of yours nobody knows what it loses: with WhenDataLoss it waits for a person
    /// always. Never: it is run by itself, whatever it loses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<MigrationApproval>,
    /// What must be there after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// What becomes of the schema when a release is taken back after its migration.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRollback {
    /// It stays: the code before runs on it.
    Keep,
    /// A person decides; until then the release is halted.
    Halt,
    /// migrationDown is run, once a person has approved where its approval asks for one. Where it loses data, or nobody knows
    /// whether it does, a backup of what is there is made before, if there is a backup in the spec; without one nothing of
    /// what is lost is kept.
    MigrateDown,
    /// The backup of this release is restored, in maintenance mode, after a new backup, once a person has approved. With its
    /// owners and rights, or not at all: preflight says what the role needs for that. Then it is verified: the database has
    /// the tables and rows that were counted when the backup was made.
    Restore,
}

/// What else maintenance mode is, beside traffic.maintenance.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceMode {
    /// A key of a ConfigMap that the application looks at.
    pub config_map: ConfigMapSwitch,
}

/// A key of a ConfigMap that is switched. The ConfigMap has the label `servicerelease.io/release` with this release's name:
/// its owner agrees by that.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSwitch {
    /// The ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// The value when it is on. Default `true`.
    #[serde(default = "on")]
    #[schemars(length(max = 253))]
    pub on: String,
    /// The value when it is off. Default `false`.
    #[serde(default = "off")]
    #[schemars(length(max = 253))]
    pub off: String,
    /// How long after the key was set pods may still go by what it was: a mounted ConfigMap follows with the kubelet's next sync
    /// (1m), by a cache of its own. Nothing that old code cannot live with begins before. Default 90s.
    #[serde(default = "kubelets_sync")]
    pub propagation_delay: Duration,
}

/// Keys of a ConfigMap that are set when a release is promoted, and set back when it is taken back or undone. The ConfigMap
/// has the label `servicerelease.io/release` with this release's name: its owner agrees by that.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Flags {
    /// The ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
    /// Keys, of at most 63 characters, and the values that they have while this release's code serves.
    #[schemars(schema_with = "flags")]
    pub values: BTreeMap<String, String>,
}

fn flags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": 8,
        "additionalProperties": { "type": "string", "maxLength": 253 },
    })
}

fn on() -> String {
    "true".into()
}

fn off() -> String {
    "false".into()
}

fn default_set() -> String {
    "default".into()
}

const fn kubelets_sync() -> Duration {
    Duration::from_secs(90)
}

const fn half_an_hour() -> Duration {
    Duration::from_secs(1_800)
}

const fn an_hour() -> Duration {
    Duration::from_secs(3_600)
}

const fn quarter_of_an_hour() -> Duration {
    Duration::from_secs(900)
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "maxProperties": 16, "additionalProperties": { "type": "string", "maxLength": 63 } })
}

fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 16,
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    })
}
