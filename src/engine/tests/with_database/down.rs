//! Taking a migration back that loses data: it is told beforehand, a person approves it, and a backup is made before.

use rstest::rstest;

use super::*;

fn down(more: &Value) -> Value {
    let base = json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-down"}}});
    merged(base, more)
}

/// The way down loses data, and the new version turns out to be bad.
fn losing_down(task: &Task) -> Option<Report> {
    let risks = vec!["002_drop.down.sql, line 1: drops tables with their rows".to_owned()];
    Some(match task {
        Task::Verify(_) => reported(WorkOutcome::Failed, "as it happens"),
        Task::Preflight { .. } => Report { down_risks: risks, down_loses_data: true, ..well(task)? },
        Task::PreflightDown { .. } => Report {
            files_hash: "d1".into(),
            pending: vec!["002_drop.down.sql".into()],
            risks,
            loses_data: true,
            ..well(task)?
        },
        _ => well(task)?,
    })
}

fn asked(more: &Value) -> World {
    let mut world = breaking(&down(more), losing_down);
    world.settle();
    world
}

fn approve(world: &mut World, plan: &str) -> String {
    let (revision, plan) = (world.candidate(), plan.to_owned());
    world.say(Action::Approve, |command| {
        command.revision = revision;
        command.approval = Some(CommandApproval { kind: ApprovalKind::MigrateDown, plan_hash: Some(plan) });
    });
    world.settle();
    world.answer()
}

fn plan(world: &World) -> String {
    world.status().database.unwrap().migration_down.unwrap().plan_hash
}

/// The Jobs that take the migration back, each with the hash of the files that are meant.
fn downs(world: &World) -> Vec<Option<String>> {
    let of = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => match &job.task {
                Some(Task::Down { run, .. }) => Some(run.plan.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

#[test]
fn what_loses_data_waits_for_an_approval_of_its_own_plan() {
    let mut world = asked(&json!({}));
    let status = world.status();
    let told = (status.phase, status.reason.as_str());
    assert_eq!(told, (Phase::AwaitingApproval, "MigrateDownAwaitsApproval"), "{}", status.message);
    assert!(status.message.contains("002_drop.down.sql, line 1: drops tables"), "{}", status.message);
    let known = status.database.unwrap();
    let found = known.migration_down.unwrap();
    assert!(found.loses_data && found.plan_hash != known.plan_hash, "{found:?}");
    let next = format!("approve shop --migrate-down {}", found.plan_hash);
    assert!(status.next_action.contains(&next) && status.next_action.contains("skip shop"), "{}", status.next_action);
    assert_eq!((maintenance(&world), downs(&world).len()), ("true".into(), 0));
    // Neither the plan of the way forward, nor an approval of another kind.
    assert!(approve(&mut world, &known.plan_hash).starts_with("Rejected: it approves plan"), "{}", world.answer());
    approved(&mut world, ApprovalKind::Migration);
    assert!(
        world.answer().starts_with("Rejected: what waits is an approval of kind MigrateDown"),
        "{}",
        world.answer()
    );
    assert_eq!(downs(&world).len(), 0);
    assert!(approve(&mut world, &found.plan_hash).starts_with("Applied"), "{}", world.answer());
    assert_eq!(downs(&world), [Some("d1".to_owned())], "with the files that were looked at, and no others");
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
    assert!(world.status().database.unwrap().set_aside.is_none(), "the manifest has no backup");
}

#[test]
fn what_it_would_lose_is_known_before_the_migration_is() {
    let mut world = breaking(&down(&json!({})), |task| match task {
        Task::Migrate(_) => None,
        _ => losing_down(task),
    });
    world.settle();
    let found = world.status().database.unwrap().migration_down.unwrap();
    assert!(found.loses_data && found.plan_hash.is_empty(), "{found:?}");
    assert_eq!(found.risks, ["002_drop.down.sql, line 1: drops tables with their rows"]);
    let looked = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) if matches!(job.task, Some(Task::Preflight { down: true, .. })) => {
                job.down_files.clone()
            }
            _ => None,
        },
        _ => None,
    };
    assert_eq!(world.log.iter().filter_map(looked).collect::<Vec<_>>(), ["shop-down"]);
}

#[rstest]
#[case::it_loses_nothing(json!({}), false, false)]
#[case::it_loses_data(json!({}), true, true)]
#[case::never(json!({"migrationDown": {"sql": {"configMap": "shop-down"}, "approval": "Never"}}), true, false)]
#[case::always(json!({"migrationDown": {"sql": {"configMap": "shop-down"}, "approval": "Required"}}), false, true)]
#[case::as_the_migration(json!({"migration": {"sql": {"configMap": "shop-2"}, "approval": "Never"}}), true, false)]
#[case::its_own_word_counts(json!({"migration": {"sql": {"configMap": "shop-2"}, "approval": "Never"},
    "migrationDown": {"sql": {"configMap": "shop-down"}, "approval": "WhenDataLoss"}}), true, true)]
#[case::an_image(json!({"migrationDown": {"template": pod()}}), true, true)]
#[case::an_image_by_itself(json!({"migrationDown": {"template": pod(), "approval": "Never"}}), true, false)]
#[case::an_image_as_the_migration(json!({"migration": {"sql": {"configMap": "shop-2"}, "approval": "Never"}, "migrationDown": {"template": pod()}}), true, false)]
#[case::an_image_and_a_rehearsal(json!({"migrationDown": {"template": pod()}, "backup": backup(), "rehearsal": {}}), true, true)]
#[case::an_image_that_is_asked_about(json!({"migrationDown": {"template": pod(), "approval": "WhenDataLoss"}}), true, true)]
fn the_manifest_says_when_a_person_is_asked(#[case] more: Value, #[case] loses: bool, #[case] asks: bool) {
    let report: fn(&Task) -> Option<Report> = match loses {
        true => losing_down,
        false => bad!(Task::Verify(_), Failed),
    };
    let mut world = breaking(&down(&more), report);
    world.settle();
    let status = world.status();
    let expected = if asks { Phase::AwaitingApproval } else { Phase::RolledBack };
    assert_eq!(status.phase, expected, "{}", status.message);
}

fn pod() -> Value {
    json!({"spec": {"containers": [{"name": "tool", "image": "team/tool:1", "command": ["migrate", "down"]}]}})
}

#[test]
fn a_backup_of_what_is_there_comes_before_what_loses_data() {
    let mut world = asked(&json!({"backup": backup()}));
    world.log.clear();
    let plan = plan(&world);
    approve(&mut world, &plan);
    assert_eq!(made(&world), ["backup", "down"], "{}", world.status().message);
    let status = world.status();
    let set_aside = status.database.unwrap().set_aside.unwrap().name;
    assert!(set_aside.ends_with("-before-down"), "{set_aside}");
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.message);
}

#[test]
fn what_loses_nothing_needs_no_backup() {
    let mut world = breaking(&down(&json!({"backup": backup()})), bad!(Task::Verify(_), Failed));
    world.settle();
    assert_eq!(made(&world), ["preflight", "backup", "migrate", "verify", "preflightDown", "down"]);
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
}

#[test]
fn without_that_backup_nothing_is_taken_back() {
    let never = json!({"sql": {"configMap": "shop-down"}, "approval": "Never"});
    let mut world = breaking(&down(&json!({"backup": backup(), "migrationDown": never})), |task| match task {
        Task::Backup { name, .. } if name.ends_with("-before-down") => {
            Some(reported(WorkOutcome::Failed, "no space left on device"))
        }
        _ => losing_down(task),
    });
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "BackupFailed"), "{}", status.message);
    assert!(status.message.contains("before the migration is taken back: no space left"), "{}", status.message);
    assert!(status.next_action.contains(" retry shop (look again)"), "{}", status.next_action);
    assert_eq!((downs(&world).len(), maintenance(&world)), (0, "true".into()));
    world.log.clear();
    world.report = losing_down;
    world.wait(1);
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(made(&world), ["preflightDown", "backup", "down"]);
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
}

#[test]
fn files_that_changed_since_void_the_approval() {
    let mut world = asked(&json!({}));
    let first = plan(&world);
    world.report = |task| match task {
        Task::Down { .. } => Some(reported(WorkOutcome::NotBegun, "the files are not those that were meant")),
        _ => losing_down(task),
    };
    approve(&mut world, &first);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "MigrationDownFailed"), "{}", status.message);
    world.report = |task| match task {
        Task::PreflightDown { .. } => Some(Report { files_hash: "d2".into(), ..losing_down(task)? }),
        _ => losing_down(task),
    };
    world.wait(1);
    world.say(Action::Retry, |_| {});
    world.settle();
    let second = plan(&world);
    assert_eq!((world.status().reason.as_str(), first == second), ("MigrateDownAwaitsApproval", false));
    assert!(approve(&mut world, &first).starts_with("Rejected"), "{}", world.answer());
    approve(&mut world, &second);
    assert_eq!(downs(&world), [Some("d1".to_owned()), Some("d2".to_owned())]);
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
}

#[test]
fn what_was_approved_stands_where_nothing_has_changed() {
    let mut world = asked(&json!({"backup": backup()}));
    let plan = plan(&world);
    world.report = |task| match task {
        Task::Down { .. } => Some(reported(WorkOutcome::Failed, "a lock is not to be had")),
        _ => losing_down(task),
    };
    approve(&mut world, &plan);
    assert_eq!(world.status().reason, "MigrationDownFailed", "{}", world.status().message);
    world.log.clear();
    world.report = losing_down;
    world.wait(1);
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(made(&world), ["preflightDown", "down"], "the backup of this way back counts");
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
}

#[test]
fn a_person_may_leave_the_schema_as_it_is_instead() {
    let mut world = asked(&json!({}));
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Accepted), "{}", world.answer());
    assert_eq!((downs(&world).len(), maintenance(&world)), (0, "false".into()));
}

#[test]
fn an_edit_of_the_manifest_approves_nothing_that_waits() {
    let mut world = asked(&json!({}));
    world.edit(|spec| {
        let down = spec.database.as_mut().unwrap().migration_down.as_mut().unwrap();
        down.approval = Some(crate::api::MigrationApproval::Never);
    });
    world.settle();
    assert_eq!((world.status().reason.as_str(), downs(&world).len()), ("MigrateDownAwaitsApproval", 0));
}

#[test]
fn an_image_that_takes_it_back_is_the_one_that_was_looked_at() {
    let digest = format!("docker.io/team/tool@sha256:{}", "a".repeat(64));
    let image = json!({"migrationDown": {"template": pod(), "approval": "WhenDataLoss"}});
    let mut world = breaking(&down(&image), |task| match task {
        Task::PreflightDown { .. } => None,
        _ => losing_down(task),
    });
    world.settle();
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    let report = serde_json::to_string(&reported(WorkOutcome::Done, "done")).ok();
    let message = String::new();
    let image = Some(digest.clone());
    job.end = Some(crate::engine::JobEnd { succeeded: true, at, took: 1_000, message, report, image });
    world.settle();
    let status = world.status();
    assert_eq!(status.reason, "MigrateDownAwaitsApproval", "{}", status.message);
    let found = status.database.unwrap().migration_down.unwrap();
    assert!(found.loses_data && found.image == digest && status.message.contains("nobody can tell"), "{found:?}");
    world.report = losing_down;
    approve(&mut world, &found.plan_hash);
    let image = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => match (&job.task, &job.pod) {
                (Some(Task::Wrap(_)), crate::engine::TaskPod::Wrapped { image, .. }) => image.clone(),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let run: Vec<String> = world.log.iter().filter_map(image).collect();
    assert_eq!(run, [format!("team/tool@sha256:{}", "a".repeat(64))]);
}
