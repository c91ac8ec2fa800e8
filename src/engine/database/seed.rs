//! The seed: what of it a plan is about, whether a person is asked, and how the ledger has it.

use serde_json::{Value, json};

use crate::api::{Change, Database, DatabaseTask, MigrationApproval, Seed, ServiceReleaseStatus};

use super::{
    super::{
        pass::Pass,
        task::{Meant, SeedDue, Seeded, SqlRun, Wrapped},
    },
    Due, image_from,
    steps::{number, sql_run, watched},
    template,
};

/// The seed, where it is due in the release under way.
pub fn due<'a>(pass: &Pass<'_>, database: &'a Database) -> Option<&'a Seed> {
    database.seed.as_ref().filter(|_| Due::under_way(&pass.status).seed)
}

/// The hash of its SQL files, or of what its pod mounts of ConfigMaps, as preflight found them.
pub fn files_hash(pass: &Pass<'_>) -> Option<String> {
    let found = pass.status.database.as_ref()?.seed.as_ref()?;
    Some(found.files_hash.clone()).filter(|hash| !hash.is_empty())
}

/// What of it a plan is about: of a pod of the user's, what the manifest says.
pub fn planned(pass: &Pass<'_>, database: &Database) -> Option<Value> {
    let change = &due(pass, database)?.change;
    let image = image_from(change, template(pass).as_ref());
    let Change { sql, template, version, image_from: _, timeout: _, lock_timeout: _ } = change;
    Some(json!({"sql": sql, "template": template, "version": version, "image": image, "files": files_hash(pass)}))
}

/// The run of a seed by a pod, bound to what preflight found in the ConfigMaps that it mounts.
pub fn meant(pass: &Pass<'_>, change: &Change, run: Wrapped) -> Wrapped {
    let Some(files) = files_hash(pass) else { return run };
    Wrapped { meant: Meant { watched: watched(change), files, ..run.meant }, ..run }
}

/// Whether a seed comes to code that served before this release, or serves before the next one; also to that of a Deployment
/// which was adopted. What a first deployment starts with may do harm in its database.
#[must_use]
pub fn is_late(status: &ServiceReleaseStatus, release: Option<i64>) -> bool {
    let adopted = status.workload.as_ref().is_some_and(|workload| workload.adopted_replicas > 0);
    let before = |release| status.stable.as_ref().is_some_and(|stable| stable.release < release);
    adopted || release.map_or(status.stable.is_some(), before)
}

/// Whether a person has to approve it.
pub fn asks(pass: &Pass<'_>, database: &Database) -> bool {
    let found = pass.status.database.as_ref().and_then(|known| known.seed.as_ref());
    let asks = match database.approval_seed(Due::under_way(&pass.status).late) {
        MigrationApproval::Never => false,
        MigrationApproval::Required => true,
        MigrationApproval::WhenDataLoss => found.is_some_and(|found| found.loses_data),
    };
    asks && due(pass, database).is_some()
}

/// What a rehearsal makes of the seed that is due, and the ConfigMap with its files.
pub fn rehearsed(pass: &Pass<'_>, database: &Database) -> (Option<Box<SeedDue>>, Option<String>) {
    let Some(seed) = due(pass, database) else { return (None, None) };
    let files = seed.change.sql.as_ref().map(|sql| sql.config_map.clone());
    let due = match sql_run(pass, &seed.change, &number(pass)) {
        // Files that were changed since preflight are refused where they are run in earnest.
        Some(run) => SeedDue::Files(SqlRun { plan: None, ..run }),
        None => SeedDue::Pod,
    };
    (Some(Box::new(due)), files)
}

/// Whether a rehearsal leaves questions of the verification to the real database: they may be about rows of a seed that a pod
/// puts in before them.
pub fn leaves_queries(seed: Option<&Seed>, database: &Database) -> bool {
    let asks = database.verify.as_ref().is_some_and(|verify| !verify.queries.is_empty());
    database.rehearsed().is_some() && asks && seed.is_some_and(|seed| seed.change.template.is_some())
}

/// What the ledger is to forget of the seed when the migration is taken back: that of this release, if it was begun.
pub fn begun(pass: &Pass<'_>, database: &Database) -> Option<Seeded> {
    let begun = pass.status.database.as_ref().and_then(|known| known.last(DatabaseTask::Seed)).is_some();
    let seed = database.seed.as_ref().filter(|_| begun)?;
    Some(match &seed.change.sql {
        Some(sql) => Seeded::Files(sql.set.clone()),
        None => Seeded::Command(plan(pass)),
    })
}

/// What the seed by a pod is called in the ledger: it is one for each object, whatever its image is by then, and whether
/// or not the object was made again.
pub fn plan(pass: &Pass<'_>) -> String {
    let number = number(pass);
    format!("seed/{}", number.split('#').next().unwrap_or_default())
}
