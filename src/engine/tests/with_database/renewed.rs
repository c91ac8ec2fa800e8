//! A backup is as old as an approval takes: one that is too old is made anew before the migration begins.

use super::*;
use crate::api::{Duration, Timestamp};

/// v1 serves, and the migration that comes with v2 waits for approval.
fn awaiting(more: &Value) -> World {
    let sql = json!({"sql": {"configMap": "shop-2"}, "previousRevisionCompatible": true, "approval": "Required"});
    let spec = json!({"backup": merged(backup(), more), "rehearsal": {}, "migration": sql});
    let mut world = healthy(database(&json!({})), &json!({}));
    world.edit(|it| it.database = serde_json::from_value(database(&spec)).unwrap());
    world.set_image("v2");
    world.settle();
    assert_eq!(world.phase(), Phase::AwaitingApproval, "{}", world.status().message);
    world
}

fn approve(world: &mut World) {
    world.log.clear();
    approved(world, ApprovalKind::Migration);
}

/// The database's Jobs that were made.
fn tasks(world: &World) -> Vec<String> {
    made(world).into_iter().filter(|what| what != "pods").collect()
}

fn name(world: &World) -> String {
    world.status().database.unwrap().backup.unwrap().name
}

#[test]
fn one_that_is_young_enough_is_the_one() {
    let mut world = awaiting(&json!({}));
    world.wait(3_600);
    approve(&mut world);
    assert_eq!((world.phase(), tasks(&world)), (Phase::Healthy, vec!["migrate".into(), "verify".into()]));
    let mut world = awaiting(&json!({"maxAge": "72h"}));
    world.wait(48 * 3_600);
    approve(&mut world);
    assert_eq!(tasks(&world), ["migrate", "verify"]);
}

#[test]
fn one_that_an_approval_made_old_is_made_anew_and_nothing_else_is() {
    let mut world = awaiting(&json!({}));
    let (first, plan) = (name(&world), world.status().database.unwrap().plan_hash);
    world.wait(2 * 24 * 3_600);
    approve(&mut world);
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    assert_eq!(tasks(&world), ["backup", "migrate", "verify"], "no second rehearsal, no second approval");
    let known = world.status().database.unwrap();
    assert_eq!(known.plan_hash, plan);
    assert_ne!(name(&world), first, "another file than the old one's");
    assert!(world.status().timeline.iter().any(|entry| entry.kind == "BackupRenewed"));
}

#[test]
fn one_before_a_seed_is_made_anew_too_and_not_while_that_is_at_work() {
    let kept = database(&json!({"backup": backup()}));
    let mut world = healthy(kept.clone(), &json!({}));
    let seed =
        json!({"seed": {"sql": {"configMap": "shop-seed", "set": "seed"}, "approval": "Required", "timeout": "3h"}});
    world.log.clear();
    world.edit(|spec| spec.database = serde_json::from_value(merged(kept, &seed)).unwrap());
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), tasks(&world)), (Phase::AwaitingApproval, vec!["preflight".into(), "backup".into()]));
    world.wait(7_200);
    world.report = |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    };
    approve(&mut world);
    assert_eq!(tasks(&world), ["backup", "migrate"]);
    // The seed is at work for longer than the backup may be old.
    world.wait(4_000);
    world.settle();
    assert_eq!(tasks(&world), ["backup", "migrate"], "{}", world.status().message);
}

#[test]
fn it_is_told_while_it_is_made_and_fails_as_a_backup() {
    let mut world = awaiting(&json!({}));
    world.wait(7_200);
    world.report = |task| match task {
        Task::Backup { .. } => None,
        _ => well(task),
    };
    approve(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Database, "BackingUp"), "{}", status.message);
    assert_eq!(schema(&world), SchemaState::Unchanged);
    // Longer than its age may be: it is made once.
    world.wait(5_000);
    end(&mut world, reported(WorkOutcome::Failed, "no space"));
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Unchanged));
    assert!(!tasks(&world).contains(&"migrate".to_owned()) && world.status().reason == "BackupFailed");
}

#[test]
fn one_that_takes_longer_than_its_age_is_made_once() {
    let mut world = awaiting(&json!({"maxAge": "1s"}));
    world.wait(60);
    world.report = |task| match task {
        Task::Backup { .. } => None,
        _ => well(task),
    };
    approve(&mut world);
    world.report = well;
    world.wait(600);
    let name = "shop-renewed".to_owned();
    let backup = Some(BackupStatus { name, ..BackupStatus::default() });
    end(&mut world, Report { backup, ..reported(WorkOutcome::Done, "done") });
    assert_eq!((world.phase(), tasks(&world).len()), (Phase::Healthy, 3), "{:?}", tasks(&world));
}

#[test]
fn it_has_its_own_time_and_one_that_failed_is_none_after_retry() {
    let mut world = breaking(&json!({"onRollback": "Restore", "backup": backup()}), well);
    world.edit(|spec| {
        spec.rollback.automatic = false;
        let migration = spec.database.as_mut().unwrap().migration.as_mut().unwrap();
        migration.approval = Some(crate::api::MigrationApproval::Required);
    });
    world.settle();
    world.wait(7_200);
    world.report = |task| match task {
        Task::Backup { .. } => None,
        _ => well(task),
    };
    approve(&mut world);
    // Beyond progressDeadlineSeconds.
    world.wait(1_500);
    world.settle();
    assert_eq!(world.status().reason, "BackingUp", "{}", world.status().message);
    end(&mut world, reported(WorkOutcome::Failed, "no space"));
    assert!(world.status().hold.is_some(), "{}", world.status().message);
    world.log.clear();
    let revision = world.candidate();
    world.say(Action::Retry, |command| command.revision = revision);
    world.settle();
    assert_eq!((world.status().reason.as_str(), tasks(&world)), ("BackingUp", vec!["backup".to_owned()]));
    assert_eq!((schema(&world), maintenance(&world)), (SchemaState::Unchanged, "false".into()));
    world.report = well;
    let backup = Some(BackupStatus { name: "the-second".into(), ..BackupStatus::default() });
    end(&mut world, Report { backup, ..reported(WorkOutcome::Done, "done") });
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}

#[test]
fn with_maintenance_mode_it_is_made_before_that_goes_on() {
    let more = json!({"onRollback": "Restore", "backup": backup()});
    let mut world = breaking(&more, well);
    world.edit(|spec| {
        let migration = spec.database.as_mut().unwrap().migration.as_mut().unwrap();
        migration.approval = Some(crate::api::MigrationApproval::Required);
    });
    world.settle();
    world.wait(7_200);
    world.report = |task| match task {
        Task::Backup { .. } => None,
        _ => well(task),
    };
    approve(&mut world);
    assert_eq!((world.status().reason.as_str(), maintenance(&world)), ("BackingUp", "false".into()));
    world.report = bad!(Task::Verify(_), Failed);
    let name = "the-second".to_owned();
    let backup = Some(BackupStatus { name, ..BackupStatus::default() });
    end(&mut world, Report { backup, ..reported(WorkOutcome::Done, "done") });
    assert_eq!(world.status().reason, "RestoreAwaitsApproval", "{}", world.status().message);
    assert!(world.status().message.contains("the-second"), "{}", world.status().message);
    approved(&mut world, ApprovalKind::Restore);
    let restored = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => match &job.task {
                Some(Task::Restore { name, meant, .. }) => Some((name.clone(), meant.database.clone())),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let wanted = ("the-second".to_owned(), "shop@7".to_owned());
    assert_eq!(world.log.iter().find_map(restored), Some(wanted), "the last one is restored, where preflight looked");
}

#[test]
fn a_restore_has_thrice_the_time_of_its_proof_and_a_longer_one_of_the_manifest_at_once() {
    let more = json!({"onRollback": "Restore", "backup": backup()});
    let mut world = breaking(&more, |task| match task {
        Task::Backup { name, .. } => {
            let at = |minutes: i64| Some(Timestamp::from_millis(minutes * 60_000));
            let backup =
                BackupStatus { name: name.clone(), ended_at: at(10), proven_at: at(70), ..BackupStatus::default() };
            Some(Report { backup: Some(backup), ..reported(WorkOutcome::Done, "done") })
        }
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "a table is missing")),
        Task::Restore { .. } => Some(reported(WorkOutcome::NotBegun, "a right is missing")),
        _ => well(task),
    });
    world.settle();
    assert_eq!(world.status().reason, "RestoreAwaitsApproval", "{}", world.status().message);
    let hours = |world: &World| {
        let restore = |effect: &Effect| match effect {
            Effect::CreateJob(new) => match &new.run {
                Run::Database(job) if matches!(job.task, Some(Task::Restore { .. })) => Some(new.timeout.as_millis()),
                _ => None,
            },
            _ => None,
        };
        world.log.iter().filter_map(restore).map(|millis| millis / 3_600_000).collect::<Vec<u64>>()
    };
    approved(&mut world, ApprovalKind::Restore);
    assert_eq!(hours(&world), [3]);
    // The plan of the release is pinned, and this of it has to be mended.
    world.edit(|spec| spec.database.as_mut().unwrap().backup.as_mut().unwrap().timeout = Duration::from_secs(18_000));
    world.wait(1);
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(hours(&world), [3, 5], "{}", world.status().message);
}
