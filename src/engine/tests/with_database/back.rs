//! What becomes of the schema when a release is taken back.

use rstest::rstest;

use super::*;

/// A rehearsal that applies a file, and a migration that fails.
fn rehearsed(task: &Task, report: Report) -> Option<Report> {
    match task {
        Task::Rehearse { .. } => Some(Report { applied: vec!["002.sql".into()], ..reported(WorkOutcome::Done, "") }),
        Task::Migrate(_) => Some(report),
        _ => well(task),
    }
}

#[test]
fn what_a_rehearsal_applied_is_in_no_database_any_more() {
    let back = json!({"onRollback": "Halt", "backup": backup(), "rehearsal": {}});
    let failed = |task: &Task| rehearsed(task, reported(WorkOutcome::Failed, "a lock is not to be had"));
    let mut world = breaking(&back, failed);
    world.settle();
    assert_eq!(
        (world.phase(), schema(&world)),
        (Phase::RolledBack, SchemaState::Unchanged),
        "{}",
        world.status().message
    );
    let partly = |task: &Task| {
        rehearsed(task, Report { partly: true, ..reported(WorkOutcome::Failed, "an index is left invalid") })
    };
    let mut world = breaking(&back, partly);
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::Halted, SchemaState::Partial), "{}", world.status().message);
}

#[test]
fn what_only_read_is_broken_off_by_an_abort_and_not_left_as_under_way() {
    let mut world = healthy(database(&json!({"backup": backup()})), &json!({}));
    world.report = |task| if matches!(task, Task::Backup { .. }) { None } else { well(task) };
    change(&mut world, "shop-2");
    world.settle();
    assert_eq!(world.status().reason, "BackingUp");
    world.say(Action::Abort, |_| {});
    world.settle();
    let status = world.status();
    let work = status.database.unwrap().last(DatabaseTask::Backup).unwrap().clone();
    assert_eq!((status.phase, work.outcome), (Phase::RolledBack, WorkOutcome::NotBegun), "{}", status.message);
    let ends = |effect: &Effect| matches!(effect, Effect::DeleteJob { object } if object.name == work.job);
    assert!(world.log.iter().any(ends), "its Job is ended");
}

#[test]
fn a_compatible_schema_stays_when_the_code_goes_back() {
    let mut world = healthy(database(&json!({})), &json!({}));
    change(&mut world, "shop-2");
    world.broken.push("v2".into());
    world.set_image("v2");
    world.settle();
    world.wait(700);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::RolledBack, "v1".into()), "{}", world.status().message);
    assert_eq!(schema(&world), SchemaState::Changed);
    assert!(!made(&world).contains(&"down".to_owned()), "nothing changes the database by itself (D3)");
}

#[rstest]
#[case::fails(bad!(Task::Verify(_), Failed), SchemaState::Changed)]
#[case::partly(|task: &Task| match task {
    Task::Migrate(_) => Some(Report { applied: vec!["001_orders.sql".into()], ..reported(WorkOutcome::Failed, "002: syntax") }),
    _ => well(task),
}, SchemaState::Partial)]
fn a_changed_schema_without_a_way_back_halts_with_maintenance_on(
    #[case] report: fn(&Task) -> Option<Report>,
    #[case] state: SchemaState,
) {
    let mut world = breaking(&json!({}), report);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    assert_eq!((schema(&world), maintenance(&world)), (state, "true".into()));
    assert!(status.message.contains("maintenance mode stays on"), "{}", status.message);
    assert!(status.next_action.contains(" skip shop"), "{}", status.next_action);
    // A person has settled it by hand.
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    assert_eq!((world.phase(), maintenance(&world)), (Phase::RolledBack, "false".into()), "{}", world.status().message);
    assert_eq!(world.stable(), "v1");
}

/// All files of the migration are applied already, by another release of a shared database.
fn already(task: &Task) -> Option<Report> {
    match task {
        Task::Migrate(_) => Some(reported(WorkOutcome::Done, "0 files applied, 2 were before")),
        _ => well(task),
    }
}

#[rstest]
#[case::halt(json!({}))]
#[case::restore(json!({"onRollback": "Restore", "backup": backup()}))]
#[case::down(json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-2"}}}))]
fn a_schema_that_the_release_found_as_it_was_to_be_is_not_taken_back(#[case] back: Value) {
    let mut world = breaking(&back, already);
    world.broken.push("v2".into());
    world.settle();
    world.wait(700);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, schema(&world)), (Phase::RolledBack, SchemaState::Unchanged), "{}", status.message);
    assert_eq!(maintenance(&world), "false");
    assert!(!made(&world).iter().any(|task| task == "down" || task == "restore"), "{:?}", made(&world));
}

#[test]
fn a_migration_that_was_applied_before_is_on_record_and_hinders_no_undo() {
    let mut world = breaking(&json!({}), already);
    world.settle();
    let known = world.status().database.unwrap();
    assert_eq!((world.phase(), known.migrations.len()), (Phase::Healthy, 1), "{}", world.status().message);
    assert!(known.migrations[0].compatible, "v1 ran on that very schema");
    world.say(Action::Undo, |_| {});
    world.settle();
    world.wait(60);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::RolledBack, "v1".into()), "{}", world.answer());
}

#[test]
fn an_unknown_outcome_halts_whatever_the_manifest_says() {
    let more = json!({"rollback": {"automatic": false}});
    let mut world = with(database(&json!({})), &more);
    world.report = bad!(Task::Migrate(_), Unknown);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "MigrationUnknown"), "{}", status.message);
    // Retry looks again, and does not run it again.
    world.log.clear();
    world.report = bad!(Task::SettleSql(_), NotBegun);
    let revision = world.candidate();
    world.say(Action::Retry, |command| command.revision.clone_from(&revision));
    world.settle();
    assert_eq!(made(&world), ["settleSql"]);
    assert_eq!(schema(&world), SchemaState::Unchanged);
    assert_eq!(world.status().reason, "FirstRevisionFailed");
}

#[test]
fn the_statement_that_settles_an_unknown_outcome_is_told_whole_whatever_the_names() {
    let (namespace, name) = ("n".repeat(63), "s".repeat(52));
    let mut world = with(database(&json!({})), &json!({}));
    world.release.metadata.namespace = Some(namespace.clone());
    world.report = |task| match task {
        Task::Migrate(_) => {
            let version = format!("migration/0123456789abcdef/{}/{}#1234-abcde", "n".repeat(63), "s".repeat(52));
            let settle = format!(
                "UPDATE servicerelease.servicerelease_ledger SET state = 'Applied' WHERE set_name = 'command' AND version = '{version}'"
            );
            Some(Report { settle, ..reported(WorkOutcome::Unknown, &"its end is not on record. ".repeat(20)) })
        }
        _ => well(task),
    };
    world.settle();
    let status = world.status();
    let settle = status.database.unwrap().settle;
    assert!(settle.ends_with(&format!("/{namespace}/{name}#1234-abcde'")), "{settle}");
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "MigrationUnknown"));
    assert!(status.next_action.contains(&format!("{settle} (or 'Failed'); then ")), "{}", status.next_action);
    assert!(
        status.next_action.contains("psql \"$(kubectl -n n") && status.next_action.contains(" retry shop (look again)")
    );
    assert!(status.next_action.len() < 1_000, "with room for a longer name: {}", status.next_action.len());
    // What is known needs no statement.
    world.report = bad!(Task::SettleSql(_), NotBegun);
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(world.status().database.unwrap().settle, "");
}

#[test]
fn the_migration_is_taken_back_where_the_manifest_says_how() {
    let down = json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-2"}, "verify": {"tables": ["old"]}}});
    let mut world = breaking(&down, |task| match task {
        Task::Verify(schema) if schema.tables == ["orders"] => Some(reported(WorkOutcome::Failed, "orders is missing")),
        _ => well(task),
    });
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "migrate", "verify", "preflightDown", "down", "verify"]);
    assert_eq!(maintenance(&world), "false");
    assert!(world.status().database.unwrap().migrations.is_empty(), "it is due again");
}

#[test]
fn a_backup_is_restored_only_once_a_person_has_approved_it() {
    let back = json!({"onRollback": "Restore", "backup": backup()});
    let mut world = breaking(&back, bad!(Task::Verify(_), Failed));
    world.settle();
    let status = world.status();
    assert_eq!(
        (status.phase, status.reason.as_str()),
        (Phase::AwaitingApproval, "RestoreAwaitsApproval"),
        "{}",
        status.message
    );
    assert!(!made(&world).contains(&"restore".to_owned()));
    let planned = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => match &job.task {
                Some(Task::Preflight { planned, .. }) => Some(planned.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let planned: Vec<_> = world.log.iter().filter_map(planned).collect();
    assert_eq!(
        planned,
        [[Planned::Backup, Planned::Proof, Planned::Restore]],
        "whether it could be done is looked at first"
    );
    let known = status.database.unwrap();
    assert_eq!(known.size_bytes, 7_000, "as preflight found it");
    let plan = known.plan_hash;
    let revision = world.candidate();
    world.log.clear();
    world.say(Action::Approve, |command| {
        command.revision = revision;
        command.approval = Some(CommandApproval { kind: ApprovalKind::Restore, plan_hash: Some(plan) });
    });
    world.settle();
    assert_eq!(made(&world), ["backup", "restore", "verifyRestored"], "what is there is backed up first");
    let retention = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => match &job.task {
                Some(Task::Backup { of, keep, max_age, .. }) => Some((of.clone(), *keep, *max_age)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let retention: Vec<_> = world.log.iter().filter_map(retention).collect();
    assert_eq!(
        retention,
        [("default/shop".to_owned(), None, None)],
        "nothing goes in the place of what is to be restored"
    );
    assert_eq!(
        (world.phase(), schema(&world), maintenance(&world)),
        (Phase::RolledBack, SchemaState::Undone, "false".into())
    );
}

#[test]
fn a_restore_that_lacks_something_halts_with_maintenance_on() {
    let back = json!({"onRollback": "Restore", "backup": backup()});
    let mut world = breaking(&back, |task| match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "as it happens")),
        Task::VerifyRestored { .. } => Some(reported(WorkOutcome::NotBegun, "what was restored lacks: table a")),
        _ => well(task),
    });
    world.settle();
    approved(&mut world, ApprovalKind::Restore);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "RestoreNotVerified"), "{}", status.message);
    assert!(status.message.contains("lacks: table a") && maintenance(&world) == "true", "{}", status.message);
    // A person has looked, and asks again: nothing is restored once more.
    world.log.clear();
    world.report = well;
    world.wait(1);
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!((made(&world), schema(&world)), (vec!["verifyRestored".to_owned()], SchemaState::Undone));
}

#[test]
fn a_restore_that_was_broken_off_between_two_names_is_looked_for_on_the_server() {
    let back = json!({"onRollback": "Restore", "backup": backup()});
    let mut world = breaking(&back, |task| match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "as it happens")),
        Task::Restore { .. } => Some(reported(WorkOutcome::Unknown, "what was there is shop_before_2 by now")),
        _ => well(task),
    });
    world.settle();
    approved(&mut world, ApprovalKind::Restore);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "RestoreFailed"), "{}", status.message);
    assert!(status.message.contains("what was there is shop_before_2 by now"), "{}", status.message);
    // No database may have the name of the URL.
    let list = r#"s,//([^/?]*)(/[^?]*)?,//\1/postgres,')" -l (which databases there are); then "#;
    assert!(status.next_action.contains(list), "{}", status.next_action);
    assert!(status.next_action.contains(" retry shop") && maintenance(&world) == "true", "{}", status.next_action);
    world.report = well;
    world.wait(1);
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
}

#[test]
fn an_abort_waits_for_the_known_outcome_of_a_migration() {
    let mut world = healthy(database(&json!({})), &json!({}));
    change(&mut world, "shop-2");
    world.set_image("v2");
    world.report = |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    };
    world.settle();
    assert_eq!(schema(&world), SchemaState::Changing);
    world.say(Action::Abort, |_| {});
    world.settle();
    assert_eq!(world.phase(), Phase::RollingBack);
    assert!(world.status().message.contains("migration is under way"), "{}", world.status().message);
    let job = world.status().database.unwrap().last(DatabaseTask::Migration).unwrap().job.clone();
    let broken_off = |effect: &Effect| matches!(effect, Effect::DeleteJob { object } if object.name == job);
    assert!(!world.log.iter().any(broken_off));
    end(&mut world, Report { applied: vec!["002.sql".into()], ..reported(WorkOutcome::Done, "done") });
    assert_eq!(
        (world.phase(), schema(&world)),
        (Phase::RolledBack, SchemaState::Changed),
        "{}",
        world.status().message
    );
}

#[test]
fn an_abort_finds_out_what_became_of_a_migration_whose_job_is_gone() {
    let mut world = healthy(database(&json!({})), &json!({}));
    change(&mut world, "shop-2");
    world.set_image("v2");
    world.report = |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    };
    world.settle();
    let name = world.status().database.unwrap().last(DatabaseTask::Migration).unwrap().job.clone();
    world.seen.jobs.clear();
    world.log.clear();
    world.report = bad!(Task::SettleSql(_), NotBegun);
    world.say(Action::Abort, |_| {});
    world.settle();
    assert_eq!((made(&world), schema(&world)), (vec!["settleSql".to_owned()], SchemaState::Unchanged));
    let settles = |effect: &Effect| matches!(effect, Effect::CreateJob(new) if new.name == name);
    assert!(
        world.log.iter().any(settles),
        "it takes the name of the migration's Job, so that none can be made any more"
    );
    assert_eq!(world.phase(), Phase::RolledBack);
}

#[test]
fn a_job_that_ends_without_a_report_is_followed_by_another() {
    let mut world = world(database(&json!({})));
    world.report = |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    };
    world.settle();
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    let message = "DeadlineExceeded".to_owned();
    job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1_000, message, report: None, image: None });
    world.report = well;
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    let known = world.status().database.unwrap();
    assert_eq!(known.last(DatabaseTask::Migration).unwrap().attempt, 2);
    assert!(world.status().timeline.iter().any(|entry| entry.kind == "JobLost"));
}

#[test]
fn flags_go_with_the_code() {
    let flags = json!({"flags": {"configMap": "shop-config", "values": {"NEW_CHECKOUT": "on"}}});
    let mut world = healthy(database(&json!({})), &flags);
    assert_eq!(world.seen.config_maps[0].data["NEW_CHECKOUT"], "on");
    // Somebody turns it off by hand: that is not fought.
    world.seen.config_maps[0].data.insert("NEW_CHECKOUT".into(), "off".into());
    world.settle();
    assert_eq!(world.seen.config_maps[0].data["NEW_CHECKOUT"], "off");
    world.set_image("v2");
    world.settle();
    assert_eq!((world.stable(), world.seen.config_maps[0].data["NEW_CHECKOUT"].as_str()), ("v2".into(), "on"));
    world.say(Action::Undo, |_| {});
    world.settle();
    world.wait(60);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::RolledBack, "v1".into()), "{}", world.status().message);
    assert_eq!(world.seen.config_maps[0].data["NEW_CHECKOUT"], "off", "what it was before the release");
}

#[test]
fn what_fails_after_a_breaking_migration_was_promoted_halts() {
    let mut world = breaking(&json!({}), well);
    let checks = json!([{"name": "sums", "when": ["AfterPromotion"], "http": {}}]);
    world.edit(|spec| spec.checks = serde_json::from_value(checks).unwrap());
    world.reply = |_| Some(crate::engine::tests::world::wrong());
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    assert!(status.message.contains("check sums failed") && status.message.contains("previousRevisionCompatible"));
    assert!(!status.next_action.contains("undo") && status.next_action.contains("retry"), "{}", status.next_action);
    assert_eq!(world.stable(), "v2");
}

#[test]
fn pods_that_crash_after_a_breaking_migration_was_promoted_halt() {
    let mut world = breaking(&json!({}), well);
    world.edit(|spec| spec.observation = Some(serde_json::from_value(json!({"duration": "1h"})).unwrap()));
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Observing, "v2".into()), "{}", world.status().message);
    world.touch = |image, pod| {
        if image == "v2" {
            pod.containers[0].waiting = Some("CrashLoopBackOff".into());
        }
    };
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    assert!(status.message.contains("CrashLoopBackOff") && world.stable() == "v2", "{}", status.message);
}

#[test]
fn an_undo_over_a_breaking_migration_is_refused_with_the_reason() {
    let mut world = breaking(&json!({}), well);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    world.say(Action::Undo, |_| {});
    world.settle();
    assert!(world.answer().contains("previousRevisionCompatible"), "{}", world.answer());
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

/// A tool that has nothing to do, since another release, or an earlier one, has done it.
#[rstest]
#[case::at_once(1, Phase::RolledBack, SchemaState::Unchanged, false)]
#[case::after_one_that_was_lost(2, Phase::RolledBack, SchemaState::Undone, true)]
fn what_a_tool_found_done_is_not_taken_back(
    #[case] jobs: i32,
    #[case] phase: Phase,
    #[case] expected: SchemaState,
    #[case] down: bool,
) {
    let container = |name: &str| json!({"template": {"spec": {"containers": [{"name": name, "image": "migrate:1", "command": ["migrate", "up"]}]}}});
    let migration = json!({"template": container("up")["template"], "previousRevisionCompatible": true});
    let spec = json!({
        "urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}, "migration": migration,
        "migrationDown": merged(container("down"), &json!({"approval": "Never"})), "onRollback": "MigrateDown",
    });
    let mut world = world(spec);
    world.settle();
    world.log.clear();
    world.edit(|spec| spec.database.as_mut().unwrap().migration.as_mut().unwrap().change.version = Some("2".into()));
    world.report = match jobs {
        1 => |task| match task {
            Task::Wrap(_) => Some(Report { unchanged: true, ..reported(WorkOutcome::Done, "nothing to do") }),
            _ => well(task),
        },
        _ => |task| match task {
            Task::Wrap(_) => None,
            _ => well(task),
        },
    };
    world.broken.push("v2".into());
    world.set_image("v2");
    world.settle();
    if jobs == 2 {
        let at = world.now;
        let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
        let message = "killed".to_owned();
        job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1, message, report: None, image: None });
        world.report = |task| match task {
            Task::Wrap(run) if run.migrates() => {
                Some(Report { unchanged: true, ..reported(WorkOutcome::Done, "nothing to do") })
            }
            _ => well(task),
        };
        world.settle();
    }
    world.wait(700);
    world.settle();
    let status = world.status();
    let known = status.database.unwrap();
    assert_eq!((status.phase, known.schema), (phase, expected), "{}", status.message);
    assert_eq!(known.last(DatabaseTask::MigrationDown).is_some(), down);
}
