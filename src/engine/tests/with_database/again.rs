//! What Retry does about a schema that the manifest gives no way back from.

use super::*;

/// A migration that v1 cannot live with, whose verification fails; with a backup.
fn unverified() -> World {
    let mut world = breaking(&json!({"backup": backup()}), bad!(Task::Verify(_), NotBegun));
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "SchemaChanged"));
    world.log.clear();
    world.wait(1);
    world
}

#[test]
fn a_verification_that_failed_is_asked_again_and_the_release_goes_on() {
    let mut world = unverified();
    let next = world.status().next_action;
    assert!(next.contains("retry shop (the schema is verified again, and the release goes on)"), "{next}");
    world.report = well;
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(made(&world)[..2], ["verify".to_owned(), "pods".to_owned()], "nothing is migrated once more");
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Healthy, "v2"), "{}", status.message);
    assert_eq!(maintenance(&world), "false");
    assert_eq!(status.database.unwrap().migrations.len(), 1);
    assert!(status.timeline.iter().any(|entry| entry.kind == "Resumed"));
}

#[test]
fn one_that_fails_again_halts_as_before() {
    let mut world = unverified();
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(made(&world), ["verify"]);
    assert_eq!((world.status().reason.as_str(), maintenance(&world)), ("SchemaChanged", "true".into()));
}

#[test]
fn an_abort_stops_what_would_go_on() {
    let mut world = unverified();
    world.report = |task| if matches!(task, Task::Verify(_)) { None } else { well(task) };
    world.say(Action::Retry, |_| {});
    world.settle();
    assert!(world.status().message.contains("verified again"), "{}", world.status().message);
    world.say(Action::Abort, |_| {});
    world.settle();
    assert!(world.answer().starts_with("Applied"), "{}", world.answer());
    assert_eq!((world.phase(), world.stable()), (Phase::Halted, "v1".into()), "{}", world.status().message);
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
}

#[test]
fn a_backup_of_a_halted_release_is_restored_once_the_manifest_says_so() {
    let mut world = breaking(&json!({"backup": backup()}), |task| match task {
        Task::Migrate(_) => {
            Some(Report { applied: vec!["001_orders.sql".into()], ..reported(WorkOutcome::Failed, "002: syntax") })
        }
        _ => well(task),
    });
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    let name = status.database.unwrap().backup.unwrap().name;
    let restore =
        format!("to restore backup {name}: set spec.database.onRollback: Restore, which waits for your approval");
    assert!(status.next_action.contains(&restore), "{}", status.next_action);
    world.log.clear();
    world.edit(|spec| spec.database.as_mut().unwrap().on_rollback = Some(crate::api::OnRollback::Restore));
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::AwaitingApproval, "RestoreAwaitsApproval"));
    // A newer version goes forward instead, until a person has approved the restore.
    world.set_image("v3");
    world.settle();
    assert!(world.status().next_action.contains("retry shop (releases "), "{}", world.status().next_action);
    world.set_image("v2");
    world.settle();
    assert_eq!(world.status().reason, "RestoreAwaitsApproval");
    assert!(made(&world).is_empty() && maintenance(&world) == "true", "{}", status.message);
    world.report = |task| if matches!(task, Task::Restore { .. }) { None } else { well(task) };
    approved(&mut world, ApprovalKind::Restore);
    world.set_image("v3");
    world.edit(|spec| {
        spec.database.as_mut().unwrap().on_rollback = None;
        spec.paused = true;
    });
    world.settle();
    assert_eq!(world.phase(), Phase::RollingBack, "{}", world.status().message);
    world.report = well;
    end(&mut world, reported(WorkOutcome::Done, "done"));
    assert_eq!(made(&world), ["backup", "restore", "verifyRestored"]);
    assert_eq!(schema(&world), SchemaState::Undone, "{}", world.status().message);
    assert_eq!((world.stable(), maintenance(&world)), ("v1".into(), "false".into()));
}
