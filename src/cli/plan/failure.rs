//! What happens if a step of a release fails, by the rules that the engine has: INVARIANTS R5 for the first release, the
//! checks' own onFailure, rollback.automatic, and what becomes of a schema that has changed.

use super::Planned;
use crate::{
    api::{
        Check, Database, DatabaseTask, MigrationApproval, Moment, OnFailure, OnRollback, ServiceRelease,
        status::bounded,
    },
    engine::plan::{Policy, Situation, Step},
};

/// What decides it.
pub struct Outlook<'a> {
    policy: &'a Policy,
    /// Whether there is nothing to go back to.
    first: bool,
    /// What becomes of the schema, once it has changed.
    schema: String,
    /// Whether a Deployment's own pods serve before the first release.
    adopted: bool,
    /// Whether what was promoted can be taken back.
    returns: bool,
    /// Whether a pod of the user's migrates.
    by_image: bool,
    /// Whether a person is asked in any case, as far as anybody knows.
    asked: bool,
}

impl<'a> Outlook<'a> {
    /// `loses`: whether the files lose data that take the migration back, where they are known; `asked`: whether a person is
    /// asked to approve what leads forward.
    pub fn new(
        release: &ServiceRelease,
        policy: &'a Policy,
        situation: Situation,
        loses: Option<bool>,
        asked: bool,
    ) -> Self {
        let database = release.spec.database.as_ref();
        let migration = database.and_then(|database| database.migration.as_ref()).filter(|_| situation.due.migration);
        let given = |way| matches!(way, OnRollback::MigrateDown | OnRollback::Restore);
        Self {
            policy,
            first: situation.first,
            schema: database.map(|database| way_back(database, loses)).unwrap_or_default(),
            adopted: release.spec.workload_ref.is_some(),
            asked,
            by_image: migration.is_some_and(|migration| migration.change.template.is_some()),
            returns: migration.is_none_or(|migration| migration.previous_revision_compatible)
                || database.is_some_and(|database| given(database.on_rollback())),
        }
    }

    /// If a step fails. `migrated`: the migration is done.
    pub fn of(&self, step: &Step, migrated: bool) -> String {
        match step {
            Step::Pause(_) | Step::Approval => "-".to_owned(),
            Step::MigrationApproval if self.asked => "waits for a person; nothing is changed".to_owned(),
            Step::MigrationApproval => "waits for a person only if data would be lost; nothing is changed".to_owned(),
            Step::Database(DatabaseTask::Migration) => self.migration(),
            Step::Database(DatabaseTask::Rehearsal) if self.by_image => {
                format!("{}; never in the scratch database: halted", self.back(step, migrated))
            }
            Step::Database(DatabaseTask::Seed) => format!("{}; unknown: halted", self.back(step, migrated)),
            Step::Check { names, .. } => self.checks(names, &self.back(step, migrated)),
            _ => self.back(step, migrated),
        }
    }

    fn migration(&self) -> String {
        let Self { schema, .. } = self;
        match (self.policy.automatic, self.first) {
            (false, _) => format!("{HELD}; unknown: halted"),
            (true, true) => format!("{}; a part applied: {schema}; unknown: halted", self.halted()),
            (true, false) => format!("nothing applied: rolled back; a part applied: {schema}; unknown: halted"),
        }
    }

    /// The first revision has nothing to go back to.
    fn halted(&self) -> String {
        match self.adopted {
            true => "halted for a person; the Deployment's own pods serve as before".to_owned(),
            false => "halted for a person, as there is nothing to go back to".to_owned(),
        }
    }

    fn back(&self, step: &Step, migrated: bool) -> String {
        if !self.policy.automatic {
            return HELD.to_owned();
        }
        let back = if self.first { self.halted() } else { "rolled back".to_owned() };
        let untouched =
            matches!(step, Step::Database(_) | Step::Check { when: Moment::Preflight | Moment::AfterBackup, .. });
        match migrated {
            true => format!("{back}; {}", self.schema),
            false if untouched => format!("{back}; nothing was changed"),
            false => back,
        }
    }

    /// Checks by what each says of its failure.
    fn checks(&self, names: &[String], back: &str) -> String {
        let of = |then: OnFailure| {
            let named = self.policy.checks.iter().filter(|check| names.contains(&check.name));
            let named: Vec<&str> = named.filter(|it| it.on_failure == then).map(|check| check.name.as_str()).collect();
            let what = match then {
                OnFailure::Rollback => back,
                OnFailure::Hold => "held for a person (onFailure: Hold)",
                OnFailure::Ignore => "passed over (onFailure: Ignore)",
            };
            (!named.is_empty()).then(|| (named.join(", "), what))
        };
        let all = [OnFailure::Rollback, OnFailure::Hold, OnFailure::Ignore];
        match all.into_iter().filter_map(of).collect::<Vec<_>>().as_slice() {
            [(_, what)] => (*what).to_owned(),
            all => {
                let told = |(names, what): &(String, &str)| format!("{}: {what}", bounded(names, 40));
                all.iter().map(told).collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// What is looked at after the promotion, if anything is.
    pub fn after_promotion(&self, migrated: bool) -> Option<Planned> {
        let asked = |check: &&Check| check.every.is_some() || check.when.contains(&Moment::AfterPromotion);
        let checks: Vec<&Check> = self.policy.checks.iter().filter(asked).collect();
        let step = match self.policy.observation {
            Some(duration) => format!("observation {duration}"),
            None if checks.iter().any(|check| check.when.contains(&Moment::AfterPromotion)) => "observation".to_owned(),
            None => return None,
        };
        let back = self.taken_back(migrated);
        let others = checks.into_iter().filter(|check| check.on_failure != OnFailure::Rollback);
        let others: Vec<String> = others.map(|check| check.name.clone()).collect();
        let on_failure = match others.is_empty() {
            true => back,
            false => format!("{back}; {}: {}", bounded(&others.join(", "), 40), self.checks(&others, "")),
        };
        Some(Planned { step, on_failure })
    }

    /// What was promoted, when it fails.
    fn taken_back(&self, migrated: bool) -> String {
        match (self.policy.automatic, self.first, self.returns) {
            (false, ..) => format!("{HELD}; it serves on"),
            (true, true, _) => "held for a person, as there is nothing to go back to; it serves on".to_owned(),
            (true, false, false) => {
                "halted for a person, as the code before does not fit the schema; it serves on".to_owned()
            }
            (true, false, true) if migrated => format!("back to the revision before; {}", self.schema),
            (true, false, true) => "back to the revision before".to_owned(),
        }
    }
}

const HELD: &str = "held for a person (rollback.automatic: false)";

/// What becomes of a changed schema. `loses`: whether the files lose data that take it back, where they are known.
fn way_back(database: &Database, loses: Option<bool>) -> String {
    match database.on_rollback() {
        OnRollback::Keep => "the schema stays".to_owned(),
        OnRollback::Halt => "halted for a person, as the schema has changed".to_owned(),
        OnRollback::MigrateDown => migrate_down(database, loses),
        OnRollback::Restore => "the backup is restored, once a person has approved".to_owned(),
    }
}

fn migrate_down(database: &Database, loses: Option<bool>) -> String {
    let by_image = database.migration_down.as_ref().is_some_and(|down| down.change.template.is_some());
    let loses = if by_image { Some(true) } else { loses };
    let asks = match (database.approval_down(), loses) {
        (MigrationApproval::Never, _) | (MigrationApproval::WhenDataLoss, Some(false)) => ", and nobody is asked",
        (MigrationApproval::Required, _) => ", once a person has approved",
        (MigrationApproval::WhenDataLoss, Some(true)) if by_image => {
            ", once a person has approved, as nobody knows what it loses"
        }
        (MigrationApproval::WhenDataLoss, Some(true)) => ", once a person has approved, as it loses data",
        (MigrationApproval::WhenDataLoss, None) => ", once a person has approved if it loses data",
    };
    let backup = if database.backup.is_some() && loses != Some(false) { "after another backup " } else { "" };
    format!("{backup}migrationDown is run{asks}")
}
