//! What the files that lead forward say: whether a person is asked before they are run, and what no rehearsal runs.

use super::{SEED, mounted::MOUNTED};
use crate::{
    api::{Database, MigrationApproval, ServiceRelease},
    database::migrate::{beyond, files::File, risks},
    engine::Due,
};

/// The files of a migration and a seed, as far as they were read.
pub struct Forward<'a> {
    database: Option<&'a Database>,
    /// Whether the migration loses data, for all that its files say.
    migration: bool,
    /// Whether the seed does.
    seed: bool,
}

impl<'a> Forward<'a> {
    /// Of a release, of which no file was read yet.
    pub fn of(release: &'a ServiceRelease) -> Self {
        Self { database: release.spec.database.as_ref(), migration: false, seed: false }
    }

    fn rehearsed(&self) -> Option<&Database> {
        self.database.filter(|database| database.rehearsed().is_some())
    }

    /// Notes what was found in files; says what preflight refuses of them. `unread`: not all of them can be read here. Of a
    /// migration that is rehearsed the rehearsal tells what they do not say, or say less well.
    pub fn note(&mut self, what: &str, files: &[File], found: &[risks::Found], unread: bool) -> Option<String> {
        let counts =
            |rehearsed: bool| found.iter().any(|(_, _, risk)| !rehearsed || (risk.is_told() && !risk.refuses_rows()));
        let rehearsed = self.rehearsed().is_some();
        let (migrates, seeds) = (["", MOUNTED].contains(&what), [SEED, MOUNTED].contains(&what));
        self.migration |= migrates && (counts(rehearsed) || (unread && !rehearsed));
        self.seed |= seeds && (counts(false) || unread);
        let elsewhere = |database: &Database| database.backup.as_ref().is_some_and(|it| it.scratch_url_from.is_some());
        let beside = self.rehearsed().is_some_and(|database| !elsewhere(database));
        let told = beyond::told(files.iter().filter(|_| beside && (migrates || seeds)));
        told.map(|told| format!("preflight refuses, where it is not applied: {told}"))
    }

    /// Whether a person is asked before anything is changed, as far as the manifest and its files say.
    pub fn is_asked(&self, due: Due) -> bool {
        let Some(database) = self.database else { return false };
        let asks = |approval: MigrationApproval, lost: bool| match approval {
            MigrationApproval::Never => false,
            MigrationApproval::Required => true,
            MigrationApproval::WhenDataLoss => lost,
        };
        let migration = database.migration.as_ref().filter(|_| due.migration);
        migration.is_some_and(|it| asks(it.approval(database.rehearsed().is_some()), self.migration))
            || (due.seed && asks(database.approval_seed(due.late), self.seed))
    }
}
