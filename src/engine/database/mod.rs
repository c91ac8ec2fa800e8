//! The database's part of a release: which work there is, what it finds, and what becomes of the schema on the way back.
//! Everything is done by Jobs (`work`); `steps` drives them forward, `undo` back, `alone` a release without a candidate,
//! `switches` maintenance mode and feature flags.

pub mod again;
pub mod alone;
pub mod clean_up;
pub mod down;
pub mod faults;
mod image;
pub mod lacking;
pub mod onward;
mod patience;
mod preflight;
pub mod remedy;
pub mod renewal;
pub mod report;
mod reported;
mod seed;
pub mod steps;
pub mod switches;
pub mod undo;
pub mod words;
mod work;

use serde_json::{Value, json};

use crate::api::{
    Change, Database, DatabaseStatus, DatabaseTask, Migration, MigrationApproval, SchemaState, ServiceReleaseSpec,
    ServiceReleaseStatus,
};

use super::{observed::Template, pass::Pass, plan::Step, revision};

pub use seed::{is_late as seeds_late, leaves_queries};
pub use words::SEEDS_LATE;
pub use work::{end_open_work, is_broken_off, is_of_database};

/// What of the database's work is due in a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The spec's migration was not applied yet.
    pub migration: bool,
    /// The database was not seeded yet.
    pub seed: bool,
    /// Code serves already, so that a seed would not be that of a first deployment.
    pub late: bool,
}

impl Due {
    /// What is due in the release under way; where none is, in the next one.
    pub fn of(pass: &Pass<'_>) -> Self {
        if pass.status.step.is_some() {
            return Self::under_way(&pass.status);
        }
        let seeded = pass.status.database.as_ref().is_some_and(|database| database.seeded_at.is_some());
        Self { migration: pending(pass).is_some(), seed: !seeded, late: seed::is_late(&pass.status, None) }
    }

    /// What is due in the release under way.
    #[must_use]
    pub fn under_way(status: &ServiceReleaseStatus) -> Self {
        let migration = status.release.as_ref().is_some_and(|release| release.migration.is_some());
        // What this release seeded stays among its steps.
        let seeded =
            |database: &DatabaseStatus| database.seeded_at.is_some() && database.last(DatabaseTask::Seed).is_none();
        let late = seed::is_late(status, status.release.as_ref().map(|release| release.number));
        Self { migration, seed: !status.database.as_ref().is_some_and(seeded), late }
    }
}

/// The steps of the database's work, before the candidate has a pod.
pub fn steps(spec: &ServiceReleaseSpec, due: Due) -> Vec<Step> {
    let Some(database) = &spec.database else { return Vec::new() };
    let migration = database.migration.as_ref().filter(|_| due.migration);
    let seed = database.seed.is_some() && due.seed;
    let backup = database.backup.is_some() && is_backed_up(database, migration.is_some(), seed);
    let mut steps = Vec::new();
    let mut work = |wanted: bool, task: DatabaseTask| steps.extend(wanted.then_some(Step::Database(task)));
    let asks_for_seed = seed && database.approval_seed(due.late) != MigrationApproval::Never;
    let verified = database.verify.is_some();
    let looks = *database != Database { url_from: database.url_from.clone(), ..Database::default() };
    work(looks, DatabaseTask::Preflight);
    work(backup, DatabaseTask::Backup);
    work(migration.is_some() && database.rehearsed().is_some(), DatabaseTask::Rehearsal);
    let asks = |migration: &Migration| migration.approval(database.rehearsed().is_some()) != MigrationApproval::Never;
    steps.extend((asks_for_seed || migration.is_some_and(asks)).then_some(Step::MigrationApproval));
    if let Some(migration) = migration {
        steps.extend((!migration.previous_revision_compatible).then_some(Step::Maintenance));
        steps.push(Step::Database(DatabaseTask::Migration));
    }
    steps.extend(seed.then_some(Step::Database(DatabaseTask::Seed)));
    steps.extend(verified.then_some(Step::Database(DatabaseTask::Verification)));
    steps
}

/// Whether a backup, where the manifest has one, is part of a release in which these are due: each changes data. Without a
/// migration in the spec it is part of every release.
pub fn is_backed_up(database: &Database, migration: bool, seed: bool) -> bool {
    migration || seed || database.migration.is_none()
}

/// The migration of a spec as a hash: what is run, by which image, on which database. None without one.
pub fn identity(spec: &ServiceReleaseSpec, template: Option<&Template>) -> Option<String> {
    let database = spec.database.as_ref()?;
    let migration = database.migration.as_ref()?;
    let Change { sql, template: pod, version, image_from: _, timeout: _, lock_timeout: _ } = &migration.change;
    let image = image_from(&migration.change, template);
    let text = json!({ "sql": sql, "template": pod, "version": version, "image": image, "url": database.url_from });
    Some(revision::short(&text.to_string()))
}

/// The image that `imageFrom` says, from the candidate's pod template.
pub fn image_from(change: &Change, template: Option<&Template>) -> Option<String> {
    let wanted = change.image_from.as_ref()?;
    let template = template?.to_value();
    let containers = ["/spec/containers", "/spec/initContainers"].map(|place| template.pointer(place).cloned());
    let mut all = containers.into_iter().flatten().filter_map(|list| list.as_array().cloned()).flatten();
    let named = all.find(|container| container.get("name").and_then(Value::as_str) == Some(&wanted.container))?;
    named.get("image").and_then(Value::as_str).map(str::to_owned)
}

/// The spec's migration as a hash, as it stands now.
pub fn wanted(pass: &Pass<'_>) -> Option<String> {
    identity(&pass.release.spec, pass.target.as_ref().map(|target| &target.template))
}

/// The spec's migration, if it was not applied yet.
pub fn pending(pass: &Pass<'_>) -> Option<String> {
    let wanted = wanted(pass)?;
    let applied = pass.status.database.iter().flat_map(|database| &database.migrations);
    (!applied.into_iter().any(|known| known.migration == wanted)).then_some(wanted)
}

/// What is known of the database in a release that begins.
pub fn begin(status: &mut ServiceReleaseStatus, number: i64, spec: &ServiceReleaseSpec) {
    let known = status.database.take().unwrap_or_default();
    // What a release before left, and could not be removed, is left still.
    let DatabaseStatus { migrations, seeded_at, maintenance_since, scratch_since, unfit_before, proven, .. } = known;
    let any =
        spec.database.is_some() || !migrations.is_empty() || maintenance_since.is_some() || scratch_since.is_some();
    let any = any || unfit_before.is_some();
    status.database = any.then(|| DatabaseStatus {
        release: number,
        migrations,
        seeded_at,
        maintenance_since,
        scratch_since,
        unfit_before,
        proven,
        ..Default::default()
    });
}

/// The database as the release under way has it pinned.
pub fn pinned(pass: &Pass<'_>) -> Option<Database> {
    pass.policy().database
}

/// Whether the release under way brings a migration that the code before cannot live with.
pub fn needs_maintenance(pass: &Pass<'_>) -> bool {
    let due = pass.status.release.as_ref().is_some_and(|release| release.migration.is_some());
    let migration = pinned(pass).and_then(|database| database.migration).filter(|_| due);
    migration.is_some_and(|migration| !migration.previous_revision_compatible)
}

/// What has become of the schema in the release under way.
pub fn schema(pass: &Pass<'_>) -> SchemaState {
    pass.status.database.as_ref().map_or(SchemaState::Unchanged, |database| database.schema)
}

/// The pod template that the release under way is about.
pub fn template(pass: &Pass<'_>) -> Option<Template> {
    let number = pass.status.release.as_ref().map_or(0, |release| release.number);
    let pinned = pass.plan(number).map(|plan| plan.template.clone());
    pinned.or_else(|| pass.target.as_ref().map(|target| target.template.clone()))
}
