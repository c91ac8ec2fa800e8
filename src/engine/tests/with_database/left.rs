//! What a proof or a rehearsal leaves that was killed: it is removed on every way out, and holds up nothing for long.

use super::*;

fn rehearsed() -> Value {
    database(&json!({"backup": backup(), "rehearsal": {}}))
}

/// v1 serves, and the rehearsal of another migration is under way.
fn rehearsing() -> World {
    let mut world = healthy(rehearsed(), &json!({}));
    world.report = |task| match task {
        Task::Rehearse { .. } => None,
        _ => well(task),
    };
    change(&mut world, "shop-2");
    world.settle();
    assert_eq!(world.status().reason, "Rehearsing");
    assert!(world.status().database.unwrap().scratch_since.is_some());
    world.log.clear();
    world
}

fn job_of(world: &World, task: DatabaseTask) -> String {
    world.status().database.unwrap().last(task).unwrap().job.clone()
}

/// Clean-ups that were made: their names, and whether they go with the object.
fn clean_ups(world: &World) -> Vec<(String, bool)> {
    let of = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) if matches!(job.task, Some(Task::CleanUp { .. })) => {
                assert!(job.backups.is_none(), "what was rehearsed is a whole backup: its volume is not needed");
                Some((new.name.clone(), new.owned))
            }
            _ => None,
        },
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

#[test]
fn what_an_abort_breaks_off_is_cleared_up_behind() {
    let mut world = rehearsing();
    let job = job_of(&world, DatabaseTask::Rehearsal);
    world.say(Action::Abort, |_| {});
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::RolledBack, "v1".into()), "{}", world.status().message);
    assert_eq!(clean_ups(&world), [(job, false)], "under its very name, so that it cannot be made any more");
    let known = world.status().database.unwrap();
    assert_eq!((known.scratch_since, known.outcome(DatabaseTask::CleanUp)), (None, Some(WorkOutcome::Done)));
}

#[test]
fn a_rehearsal_that_is_killed_time_and_again_is_cleared_up_behind() {
    let mut world = rehearsing();
    for attempt in 1..=5 {
        assert_eq!(world.status().database.unwrap().last(DatabaseTask::Rehearsal).unwrap().attempt, attempt);
        let at = world.now;
        let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
        let message = "exit code 137".to_owned();
        job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1, message, report: None, image: None });
        world.settle();
    }
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::RolledBack, "RehearsalFailed"));
    assert_eq!((clean_ups(&world).len(), world.status().database.unwrap().scratch_since), (1, None));
}

#[test]
fn one_that_tells_that_nothing_is_left_needs_no_clean_up() {
    let mut world = healthy(rehearsed(), &json!({}));
    world.report = bad!(Task::Rehearse { .. }, Failed);
    world.log.clear();
    change(&mut world, "shop-2");
    world.settle();
    assert_eq!((world.phase(), clean_ups(&world).len()), (Phase::RolledBack, 0), "{}", world.status().message);
    // The server went away before it could.
    world.report = |task| match task {
        Task::Rehearse { .. } => Some(Report { left: true, ..reported(WorkOutcome::Failed, "it is left over") }),
        _ => well(task),
    };
    change(&mut world, "shop-3");
    world.settle();
    assert_eq!((world.phase(), clean_ups(&world).len()), (Phase::RolledBack, 1), "{}", world.status().message);
}

#[test]
fn what_cannot_be_removed_holds_up_nothing_and_is_told_with_the_command() {
    let mut world = rehearsing();
    world.report = |task| match task {
        Task::CleanUp { .. } => Some(Report { left: true, ..reported(WorkOutcome::Failed, "no connection") }),
        _ => well(task),
    };
    world.say(Action::Abort, |_| {});
    let mut events = Vec::new();
    for _ in 0..30 {
        events.extend(world.pass().events);
    }
    let status = world.status();
    assert_eq!((status.phase, clean_ups(&world).len()), (Phase::RolledBack, 5), "{}", status.message);
    assert!(status.message.contains("a scratch database may be left") && status.message.contains("no connection"));
    assert!(status.next_action.contains("DROP DATABASE %I WITH (FORCE)"), "{}", status.next_action);
    let told = events.iter().find(|event| event.reason == "LeftBehind").unwrap();
    assert!(told.warning && told.note.contains("DROP DATABASE"), "{}", told.note);
    // The next release that comes through has another one in its place, or none.
    world.report = well;
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert!(!world.status().message.contains("scratch"), "{}", world.status().message);
}

/// A clean-up whose pod never starts: a Secret that is gone, a node that is lost.
fn without_clean_up() -> World {
    let mut world = rehearsing();
    world.report = |task| match task {
        Task::CleanUp { .. } => None,
        _ => well(task),
    };
    world
}

#[test]
fn a_clean_up_that_does_not_start_has_its_time() {
    let mut world = without_clean_up();
    world.say(Action::Abort, |_| {});
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RollingBack, "Aborted"), "{}", status.message);
    assert!(status.message.contains(&job_of(&world, DatabaseTask::CleanUp)), "{}", status.message);
    world.wait(301);
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
    assert!(world.status().message.contains("a scratch database may be left"), "{}", world.status().message);
    assert!(world.seen.jobs.iter().all(|job| job.end.is_some()), "its Job is ended");
}

#[test]
fn another_plan_goes_on_once_what_was_broken_off_is_gone() {
    let mut world = rehearsing();
    change(&mut world, "shop-3");
    world.report = well;
    world.settle();
    assert_eq!((world.phase(), clean_ups(&world).len()), (Phase::Healthy, 1), "{}", world.status().message);
    let order: Vec<String> = made(&world).into_iter().filter(|it| it != "pods").collect();
    assert_eq!(order, ["cleanUp", "preflight", "backup", "rehearse", "migrate", "verify"]);
}

fn delete(world: &mut World) {
    let now = k8s_openapi::jiff::Timestamp::from_millisecond(world.now.as_millis()).unwrap();
    world.release.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
}

#[test]
fn an_object_goes_once_what_it_left_is_gone() {
    let mut world = without_clean_up();
    delete(&mut world);
    world.settle();
    let (name, job) = (job_of(&world, DatabaseTask::Rehearsal), job_of(&world, DatabaseTask::CleanUp));
    assert_eq!(clean_ups(&world), [(name, false)]);
    assert!(world.release.metadata.finalizers.is_some() && world.status().message.contains(&job));
    end(&mut world, reported(WorkOutcome::Done, "nothing is left"));
    assert!(world.release.metadata.finalizers.is_none());
}

#[test]
fn an_object_goes_although_nobody_can_clear_up_behind_it() {
    let mut world = without_clean_up();
    delete(&mut world);
    world.settle();
    world.wait(301);
    let mut events = Vec::new();
    for _ in 0..5 {
        events.extend(world.pass().events);
    }
    assert!(world.release.metadata.finalizers.is_none(), "{}", world.status().message);
    assert!(events.iter().any(|event| event.reason == "LeftBehind"), "{events:?}");
}

/// An index that was built concurrently and broken off.
fn invalid(task: &Task) -> Option<Report> {
    match task {
        Task::Migrate(_) => Some(Report {
            partly: true,
            invalid_indexes: vec!["public.orders_user_id".into()],
            ..reported(WorkOutcome::Failed, "002_index.sql: canceling statement")
        }),
        _ => well(task),
    }
}

#[test]
fn what_a_restore_may_have_left_is_told_once_it_is_given_up_on() {
    let mut world = breaking(&json!({"onRollback": "Restore", "backup": backup()}), |task| match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "a table is missing")),
        Task::Restore { .. } => {
            let settle = "UPDATE servicerelease_ledger".to_owned();
            Some(Report { settle, ..reported(WorkOutcome::NotBegun, "other releases have migrated this database") })
        }
        _ => well(task),
    });
    world.settle();
    approved(&mut world, ApprovalKind::Restore);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "RestoreFailed"), "{}", status.message);
    let (told, drop) = ("its database may be left on the server", "datname ~ '^servicerelease_restore_'");
    let settle = ", and there, if that may go: UPDATE servicerelease_ledger; then ";
    assert!(status.next_action.contains(settle), "{}", status.next_action);
    assert!(!status.next_action.contains(drop), "another try goes on with it: {}", status.next_action);
    world.say(Action::Skip, |_| {});
    world.settle();
    let status = world.status();
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.message);
    assert!(status.message.contains(told) && status.next_action.contains(drop), "{status:?}");
}

#[test]
fn no_name_of_whoever_writes_migrations_ends_a_word_of_a_command() {
    let secret = json!({"secretKeyRef": {"name": "shop-db$(reboot)`", "key": "URL"}});
    let mut world = breaking(&json!({"urlFrom": secret}), |task| {
        let report = invalid(task)?;
        let index = "public.\"a'; reboot; '\"".to_owned();
        let invalid_indexes = report.invalid_indexes.iter().map(|_| index.clone()).collect();
        Some(Report { invalid_indexes, ..report })
    });
    world.settle();
    let next = world.status().next_action;
    assert!(next.contains("-c 'DROP INDEX CONCURRENTLY public.\"a'\\''; reboot; '\\''\"'"), "{next}");
    assert!(next.contains(" get secret shop-dbreboot -o "), "{next}");
}

#[rstest::rstest]
#[case::the_schema_stays(true, Phase::RolledBack)]
#[case::halted(false, Phase::Halted)]
fn an_index_that_was_left_invalid_is_named_with_the_command_that_drops_it(
    #[case] compatible: bool,
    #[case] phase: Phase,
) {
    let migration = json!({"migration": {"sql": {"configMap": "shop-2"}, "previousRevisionCompatible": compatible}});
    let mut world = breaking(&migration, invalid);
    world.settle();
    let status = world.status();
    assert_eq!(status.phase, phase, "{}", status.message);
    assert!(
        status.next_action.contains("-c 'DROP INDEX CONCURRENTLY public.orders_user_id'"),
        "{}",
        status.next_action
    );
    // The next release knows nothing of it.
    world.report = well;
    world.edit(|spec| spec.database.as_mut().unwrap().migration.as_mut().unwrap().change.version = Some("2".into()));
    world.set_image("v3");
    world.settle();
    if phase == Phase::RolledBack {
        assert!(!world.status().next_action.contains("DROP INDEX"), "{}", world.status().next_action);
    }
}
