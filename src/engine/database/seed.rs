//! How the ledger has the seed.

use crate::api::{Change, Database, DatabaseTask};

use super::{
    super::{
        pass::Pass,
        task::{SeedDue, Seeded, SqlRun},
    },
    Due,
    steps::{number, sql_run},
};

/// The seed, where the release under way is to put it in.
pub fn due<'a>(pass: &Pass<'_>, database: &'a Database) -> Option<&'a Change> {
    database.seed.as_ref().filter(|_| Due::under_way(&pass.status).seed)
}

/// What a rehearsal makes of the seed that is due, and the ConfigMap with its files.
pub fn rehearsed(pass: &Pass<'_>, database: &Database) -> (Option<Box<SeedDue>>, Option<String>) {
    let Some(seed) = due(pass, database) else { return (None, None) };
    let files = seed.sql.as_ref().map(|sql| sql.config_map.clone());
    let due = match sql_run(pass, seed, &number(pass)) {
        // Only the migration's files were looked at before.
        Some(run) => SeedDue::Files(SqlRun { plan: None, ..run }),
        None => SeedDue::Pod,
    };
    (Some(Box::new(due)), files)
}

/// Whether a rehearsal leaves questions of the verification to the real database: they may be about rows of a seed that a pod
/// puts in before them.
pub fn leaves_queries(seed: Option<&Change>, database: &Database) -> bool {
    let asks = database.verify.as_ref().is_some_and(|verify| !verify.queries.is_empty());
    database.rehearsed().is_some() && asks && seed.is_some_and(|seed| seed.template.is_some())
}

/// What the ledger is to forget of the seed when the migration is taken back: that of this release, if it was begun.
pub fn begun(pass: &Pass<'_>, database: &Database) -> Option<Seeded> {
    let begun = pass.status.database.as_ref().and_then(|known| known.last(DatabaseTask::Seed)).is_some();
    let seed = database.seed.as_ref().filter(|_| begun)?;
    Some(match &seed.sql {
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
