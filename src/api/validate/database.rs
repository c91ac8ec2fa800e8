//! The rules of `spec.database`.

use crate::api::{Backup, CaSource, Change, Database, OnRollback, Verify};

use super::{Violation, check::expectation, violation};

/// What is wrong with the database's part of a spec.
pub fn database(database: &Database) -> Vec<Violation> {
    let at = "spec.database";
    let mut found = Vec::new();
    let Database { backup, migration, migration_down, on_rollback, .. } = database;
    let claim = backup.as_ref().is_some_and(|backup| backup.persistent_volume_claim.is_some());
    let compatible = migration.as_ref().is_none_or(|migration| migration.previous_revision_compatible);
    let rehearsed = database.rehearsed().is_some();
    let set = |change: Option<&Change>| change.and_then(|change| change.sql.as_ref()).map(|sql| sql.set.clone());
    let up = set(migration.as_ref().map(|migration| &migration.change));
    let down = set(migration_down.as_ref().map(|down| &down.change));
    let seed = set(database.seed.as_ref().map(|seed| &seed.change));
    let broken = [
        (rehearsed && !claim, "rehearsal needs backup.persistentVolumeClaim: it restores that backup"),
        (rehearsed && migration.is_none(), "rehearsal needs migration"),
        (
            *on_rollback == Some(OnRollback::MigrateDown) && migration_down.is_none(),
            "onRollback: MigrateDown needs migrationDown",
        ),
        (*on_rollback == Some(OnRollback::Restore) && !claim, "onRollback: Restore needs backup.persistentVolumeClaim"),
        (
            *on_rollback == Some(OnRollback::Keep) && !compatible,
            "onRollback: Keep needs migration.previousRevisionCompatible: the old code would run on the new schema",
        ),
        (migration_down.is_some() && migration.is_none(), "migrationDown needs migration"),
        (
            up.is_some() && down.is_some() && up != down,
            "migrationDown.sql.set has to be migration.sql.set: the ledger knows by it what is to be taken back",
        ),
        (
            up.is_some() && up == seed,
            "seed.sql.set is that of the migration, whose files the ledger would take the seed's for: set seed.sql.set, say to seed",
        ),
    ];
    found.extend(broken.into_iter().filter(|(broken, _)| *broken).map(|(_, message)| violation(at, message)));
    found.extend(backup.iter().flat_map(|backup| self::backup(backup, &format!("{at}.backup"))));
    let changes = [
        ("migration", migration.as_ref().map(|migration| &migration.change)),
        ("seed", database.seed.as_ref().map(|seed| &seed.change)),
        ("migrationDown", migration_down.as_ref().map(|down| &down.change)),
    ];
    for (name, change) in changes {
        found.extend(change.iter().flat_map(|change| self::change(change, &format!("{at}.{name}"))));
    }
    let down = migration_down.as_ref().and_then(|down| down.verify.as_ref());
    found.extend(database.ca_from.as_ref().and_then(|ca| authorities(ca, &format!("{at}.caFrom"))));
    for (name, verify) in [("verify", database.verify.as_ref()), ("migrationDown.verify", down)] {
        found.extend(verify.iter().flat_map(|verify| self::verify(verify, &format!("{at}.{name}"))));
    }
    found
}

fn authorities(ca: &CaSource, at: &str) -> Option<Violation> {
    let both = ca.config_map_key_ref.is_some() == ca.secret_key_ref.is_some();
    both.then(|| violation(at, "exactly one of configMapKeyRef and secretKeyRef is needed"))
}

fn backup(backup: &Backup, at: &str) -> Option<Violation> {
    let both = backup.persistent_volume_claim.is_some() == backup.job.is_some();
    both.then(|| violation(at, "exactly one of persistentVolumeClaim and job is needed"))
}

fn change(change: &Change, at: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    if change.sql.is_some() == change.template.is_some() {
        found.push(violation(at, "exactly one of sql and template is needed"));
    }
    if change.image_from.is_some() && change.template.is_none() {
        found.push(violation(at, "imageFrom goes with template"));
    }
    found
}

fn verify(verify: &Verify, at: &str) -> Vec<Violation> {
    let of = |(place, query): (usize, &crate::api::VerifyQuery)| {
        expectation(query.expect, query.value.as_ref(), query.rows, &format!("{at}.queries[{place}]"))
    };
    verify.queries.iter().enumerate().flat_map(of).collect()
}
