//! How the ledger has the seed.

use crate::api::{Database, DatabaseTask};

use super::{
    super::{pass::Pass, task::Seeded},
    steps::number,
};

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
