//! An object that is deleted while its database is worked on, or taken back.

use super::*;

/// The object is deleted while its database is taken back, and that ends well.
fn deleted_on_the_way_back(verified: WorkOutcome) -> World {
    let back = json!({"onRollback": "Restore", "backup": backup()});
    let mut world = breaking(&back, |task| match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "as it happens")),
        Task::Restore { .. } | Task::VerifyRestored { .. } => None,
        _ => well(task),
    });
    world.settle();
    approved(&mut world, ApprovalKind::Restore);
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    world.settle();
    end(&mut world, reported(WorkOutcome::Done, "done"));
    assert_eq!((made(&world).pop().unwrap(), maintenance(&world)), ("verifyRestored".into(), "true".into()));
    assert!(world.release.metadata.finalizers.is_some(), "{}", world.status().message);
    end(&mut world, reported(verified, "as it happens"));
    assert!(world.release.metadata.finalizers.is_none(), "{}", world.status().message);
    world
}

#[test]
fn an_object_that_goes_takes_maintenance_mode_off_once_the_schema_is_back() {
    let world = deleted_on_the_way_back(WorkOutcome::Done);
    assert_eq!((schema(&world), maintenance(&world)), (SchemaState::Undone, "false".into()));
    assert_eq!(world.status().reason, "HandedBack", "{}", world.status().message);
}

#[test]
fn an_object_that_goes_says_which_key_stays_on_and_why() {
    let mut halted = breaking(&json!({}), bad!(Task::Verify(_), Failed));
    halted.settle();
    halted.release.metadata.deletion_timestamp = halted.release.metadata.creation_timestamp.clone();
    halted.settle();
    for world in [halted, deleted_on_the_way_back(WorkOutcome::NotBegun)] {
        let status = world.status();
        assert_eq!((status.reason.as_str(), maintenance(&world)), ("MaintenanceStaysOn", "true".into()));
        let told = "key MAINTENANCE of ConfigMap shop-config stays on: the migration was applied";
        assert!(status.message.contains(told), "{}", status.message);
        let command =
            r#"kubectl -n default patch configmap shop-config --type merge -p '{"data":{"MAINTENANCE":"false"}}'"#;
        assert!(status.next_action.contains(command), "{}", status.next_action);
    }
}

#[test]
fn an_object_goes_only_once_its_restore_has_ended() {
    let back = json!({"onRollback": "Restore", "backup": backup()});
    let mut world = breaking(&back, |task| match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "as it happens")),
        Task::Restore { .. } => None,
        _ => well(task),
    });
    world.settle();
    approved(&mut world, ApprovalKind::Restore);
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    world.settle();
    let job = world.status().database.unwrap().last(DatabaseTask::Restore).unwrap().job.clone();
    assert!(world.release.metadata.finalizers.is_some() && world.status().message.contains(&job));
    let ends = |effect: &Effect| matches!(effect, Effect::DeleteJob { object } if object.name == job);
    assert!(!world.log.iter().any(ends), "there may be no database of this name at the moment");
    end(&mut world, reported(WorkOutcome::Done, "done"));
    assert!(world.release.metadata.finalizers.is_none(), "{}", world.status().message);
}

#[test]
fn an_object_that_goes_ends_no_job_that_is_at_work_on_the_database() {
    let down = json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-2"}}});
    let mut world = breaking(&down, |task| match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "as it happens")),
        Task::Down { .. } => None,
        _ => well(task),
    });
    world.settle();
    let job = world.status().database.unwrap().last(DatabaseTask::MigrationDown).unwrap().job.clone();
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    world.settle();
    assert!(world.release.metadata.finalizers.is_some() && world.status().message.contains(&job));
    // Whoever ends Jobs whose time is over does not.
    world.wait(100_000);
    world.settle();
    assert!(world.release.metadata.finalizers.is_none(), "{}", world.status().message);
    let ended = |effect: &Effect| matches!(effect, Effect::DeleteJob { object } if object.name == job);
    assert!(!world.log.iter().any(ended), "it is killed in the middle");
    let others = |effect: &Effect| matches!(effect, Effect::DeleteJob { object } if object.name != job);
    assert!(world.log.iter().any(others), "what has ended goes");
}

#[test]
fn an_object_waits_for_the_search_for_what_became_of_its_migration() {
    let mut world = breaking(&json!({}), bad!(Task::Migrate(_), Unknown));
    world.settle();
    assert_eq!(world.status().reason, "MigrationUnknown", "{}", world.status().message);
    world.report = |task| if matches!(task, Task::SettleSql(_)) { None } else { well(task) };
    world.say(Action::Retry, |_| {});
    world.settle();
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    world.settle();
    let job = world.status().database.unwrap().last(DatabaseTask::Settlement).unwrap().job.clone();
    assert!(world.release.metadata.finalizers.is_some() && world.status().message.contains(&job));
    end(&mut world, reported(WorkOutcome::NotBegun, "none of its files is applied"));
    assert!(world.release.metadata.finalizers.is_none(), "{}", world.status().message);
    assert_eq!(maintenance(&world), "false", "the old code can live with the schema");
}

#[test]
fn an_object_goes_only_once_the_outcome_of_its_migration_is_known() {
    let mut world = world(database(&json!({})));
    world.report = |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    };
    world.settle();
    let migrates = |effect: &Effect| match effect {
        Effect::CreateJob(new) => {
            matches!(&new.run, Run::Database(job) if matches!(job.task, Some(Task::Migrate(_)))).then_some(new.owned)
        }
        _ => None,
    };
    assert_eq!(world.log.iter().find_map(migrates), Some(false), "garbage collection does not take it");
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    world.settle();
    assert!(world.status().message.contains("must be known"), "{}", world.status().message);
    assert!(world.release.metadata.finalizers.is_some());
    end(&mut world, reported(WorkOutcome::Done, "done"));
    assert!(world.release.metadata.finalizers.is_none());
}
