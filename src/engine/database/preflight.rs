//! The Job that looks whether the release could be done, before anything is.

use crate::api::{Change, Database, MigrationApproval, OnRollback, Proof, SecretSource};

use super::{
    super::{
        pass::Pass,
        task::{AsApplied, Contents, DatabaseJob, FILES, MapVolume, Mounted, Planned, SEED_FILES, Task},
    },
    identity, seed,
    steps::{number, watched, with_change},
};

/// Its order. `scratch`: the URL of another server for scratch databases; `base`: a Job without them.
pub fn job(pass: &Pass<'_>, database: &Database, scratch: Option<SecretSource>, base: DatabaseJob) -> DatabaseJob {
    let due = pass.status.release.as_ref().is_some_and(|release| release.migration.is_some());
    let sql = |change: &Change| change.sql.as_ref().map(|sql| (sql.config_map.clone(), sql.set.clone()));
    let migration = database.migration.as_ref().filter(|_| due);
    let by_pod = migration.filter(|migration| migration.change.template.is_some());
    let files = migration.and_then(|migration| sql(&migration.change));
    let down = database.migration_down.as_ref().filter(|_| database.on_rollback() == OnRollback::MigrateDown);
    let down_files = down.and_then(|down| sql(&down.change)).map(|(map, _)| map).filter(|_| files.is_some());
    let seed = seed::due(pass, database);
    let seed_files = seed.and_then(|seed| sql(&seed.change));
    let applied = applied(pass, database).filter(|_| !due);
    let wary = |said: Option<MigrationApproval>| said == Some(MigrationApproval::WhenDataLoss);
    let task = Task::Preflight {
        min_version: database.min_version.clone(),
        session: database.migration.is_some() || database.backup.is_some() || database.seed.is_some(),
        limits: database.preflight.clone(),
        set: files.as_ref().map(|(_, set)| set.clone()),
        release: number(pass),
        mounted: by_pod.map_or_else(Mounted::default, |migration| Mounted {
            paths: watched(&migration.change),
            wary: wary(migration.approval) && database.rehearsed().is_none(),
        }),
        planned: planned(database, due, seed.is_some()),
        down: down_files.is_some(),
        seed: seed_files.as_ref().map(|(_, set)| set.clone()),
        seed_mounted: seed
            .map_or_else(Mounted::default, |seed| Mounted { paths: watched(&seed.change), wary: wary(seed.approval) }),
        applied: applied.as_ref().map(|(applied, _)| applied.clone()),
    };
    let mut maps = seed.map(|seed| beside(&seed.change, SEED_FILES, false)).unwrap_or_default();
    let seed_files = seed_files.map(|(map, _)| map);
    let mut files = files.map(|(map, _)| map);
    if let Some((_, change)) = applied {
        files = change.sql.as_ref().map(|sql| sql.config_map.clone());
        maps.extend(beside(change, FILES, true));
    }
    let looking = DatabaseJob { scratch, down_files, seed_files, maps, ..base };
    // In the pod that is going to migrate: that it starts, and which image it is, is known before anything is done.
    match by_pod {
        Some(migration) => with_change(pass, &migration.change, task, looking),
        None => DatabaseJob { task: Some(task), files, ..looking },
    }
}

/// The migration that counts as applied, where it can be looked at whether its contents are what they were.
fn applied<'a>(pass: &Pass<'_>, database: &'a Database) -> Option<(AsApplied, &'a Change)> {
    let change = &database.migration.as_ref()?.change;
    if let Some(sql) = &change.sql {
        let what = Contents::Set(sql.set.clone());
        return Some((AsApplied { maps: vec![sql.config_map.clone()], what }, change));
    }
    let plan = pass.plan(pass.status.release.as_ref()?.number)?;
    let wanted = identity(&plan.spec, Some(&plan.template))?;
    let migrations = &pass.status.database.as_ref()?.migrations;
    let files = migrations.iter().find(|known| known.migration == wanted)?.files_hash.clone();
    let mounted = change.mounted();
    let what = Contents::Mounted { paths: watched(change), files: files.clone() };
    let maps = mounted.iter().flat_map(|maps| maps.names()).map(str::to_owned).collect();
    let comparable = !files.is_empty() && !mounted.is_empty() && change.is_mounted_alike();
    comparable.then_some((AsApplied { maps, what }, change))
}

/// What the pod of a change mounts of ConfigMaps, for another pod, under a root.
fn beside(change: &Change, root: &str, optional: bool) -> Vec<MapVolume> {
    let volume = |maps: crate::api::MountedMaps<'_>| MapVolume {
        volume: maps.volume(optional),
        path: format!("{root}/{}", maps.path.trim_start_matches('/')),
        sub_path: maps.sub_path.map(str::to_owned),
    };
    change.mounted().into_iter().map(volume).collect()
}

/// What it looks whether it could be done, with a migration and a seed that are due or without.
fn planned(database: &Database, due: bool, seed: bool) -> Vec<Planned> {
    let backup = database.backup.as_ref().filter(|backup| backup.persistent_volume_claim.is_some());
    let backup = backup.filter(|_| super::is_backed_up(database, due, seed));
    let proof = backup.is_some_and(|backup| backup.proof == Proof::Restore);
    let all = [
        (backup.is_some(), Planned::Backup),
        (proof, Planned::Proof),
        (due && database.rehearsed().is_some(), Planned::Rehearsal),
        (due && database.on_rollback() == OnRollback::Restore, Planned::Restore),
    ];
    all.into_iter().filter_map(|(wanted, what)| wanted.then_some(what)).collect()
}
