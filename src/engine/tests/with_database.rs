//! The database in a release: the order of its steps, what stops it, and the way back (INVARIANTS D1 to D5).

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    api::{
        Action, ApprovalKind, BackupStatus, CommandApproval, DatabaseTask, LABEL_RELEASE, Phase, SchemaState,
        WorkOutcome,
    },
    engine::{ConfigMap, Effect, ObjectVersion, Report, Run, Task},
};

use super::world::{World, template};

fn merged(mut one: Value, other: &Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

/// spec.database with SQL files, and what else is given.
fn database(more: &Value) -> Value {
    let base = json!({
        "urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}},
        "migration": {"sql": {"configMap": "shop-1"}, "previousRevisionCompatible": true},
        "verify": {"tables": ["orders"]},
    });
    merged(base, more)
}

fn backup() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "backups"}})
}

fn maintained() -> Value {
    json!({"configMap": {"name": "shop-config", "key": "MAINTENANCE"}})
}

/// A release of v1 that has a database, before its first pass.
fn world(database: Value) -> World {
    with(database, &json!({}))
}

fn with(database: Value, more: &Value) -> World {
    let spec = json!({
        "replicas": 2,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": template("v1"),
        "traffic": {"service": "shop", "candidateService": "shop-candidate"},
        "strategy": {"blueGreen": {}},
        "database": database,
    });
    let mut world = World::of(merged(spec, more));
    world.seen.config_maps.push(ConfigMap {
        object: ObjectVersion { name: "shop-config".into(), ..ObjectVersion::default() },
        data: BTreeMap::from([("MAINTENANCE".to_owned(), "false".to_owned())]),
    });
    world.report = well;
    world
}

/// The same, with v1 Healthy and its migration applied.
fn healthy(database: Value, more: &Value) -> World {
    let mut world = with(database, more);
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    world.log.clear();
    world
}

fn change(world: &mut World, sql: &str) {
    world.edit(|spec| {
        let database = spec.database.as_mut().unwrap();
        database.migration.as_mut().unwrap().change.sql.as_mut().unwrap().config_map = sql.into();
    });
}

fn reported(outcome: WorkOutcome, message: &str) -> Report {
    Report { outcome, message: message.into(), ..Report::default() }
}

/// All is well.
fn well(task: &Task) -> Option<Report> {
    let done = reported(WorkOutcome::Done, "done");
    Some(match task {
        Task::Preflight { .. } => Report {
            files_hash: "f1".into(),
            pending: vec!["001_orders.sql".into()],
            server_version: "15.18".into(),
            ..done
        },
        Task::Backup { name, .. } => {
            Report { backup: Some(BackupStatus { name: name.clone(), ..BackupStatus::default() }), ..done }
        }
        Task::Migrate(_) => Report { applied: vec!["001_orders.sql".into()], ..done },
        _ => done,
    })
}

fn losing(task: &Task) -> Option<Report> {
    let mut report = well(task)?;
    if let Task::Preflight { .. } = task {
        report.risks = vec!["002_drop.sql, line 1: drops tables with their rows".into()];
        report.loses_data = true;
    }
    Some(report)
}

/// All but one kind of task is well.
macro_rules! bad {
    ($task:pat, $outcome:ident) => {
        |task: &Task| match task {
            $task => Some(reported(WorkOutcome::$outcome, "as it happens")),
            _ => well(task),
        }
    };
}

/// The database's Jobs that were made, by what they do, and the first pods of candidates among them.
fn made(world: &World) -> Vec<String> {
    let of = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => {
                let text = serde_json::to_value(&job.task).unwrap();
                Some(text.as_object().map_or("user".into(), |map| map.keys().next().unwrap().clone()))
            }
            _ => None,
        },
        Effect::ScaleReplicaSet { replicas: 1.., .. } => Some("pods".into()),
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

fn schema(world: &World) -> SchemaState {
    world.status().database.unwrap().schema
}

fn maintenance(world: &World) -> String {
    world.seen.config_maps[0].data["MAINTENANCE"].clone()
}

#[test]
fn no_pod_of_the_candidate_starts_before_the_migration_is_verified() {
    let mut world = world(database(
        &json!({"backup": backup(), "rehearsal": {}, "seed": {"sql": {"configMap": "seed", "set": "seed"}}}),
    ));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "backup", "rehearse", "migrate", "migrate", "verify", "pods"]);
    let known = world.status().database.unwrap();
    assert_eq!((known.schema, known.migrations.len()), (SchemaState::Changed, 1));
    assert!(known.seeded_at.is_some());
}

#[test]
fn a_migration_that_is_applied_is_not_run_again_with_the_next_template() {
    let mut world = healthy(database(&json!({"backup": backup(), "seed": {"sql": {"configMap": "s"}}})), &json!({}));
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
    assert_eq!(made(&world), ["preflight", "verify", "pods"]);
}

#[test]
fn a_changed_migration_alone_is_a_release_without_a_candidate() {
    let mut world = healthy(database(&json!({})), &json!({}));
    change(&mut world, "shop-2");
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "migrate", "verify"]);
    assert_eq!(world.status().release.unwrap().number, 2);
    assert_eq!(world.status().database.unwrap().migrations.len(), 2);
    world.log.clear();
    change(&mut world, "shop-1");
    world.settle();
    assert_eq!(
        (made(&world).len(), world.status().release.unwrap().number),
        (0, 2),
        "what was applied is not run again"
    );
}

#[rstest]
#[case::preflight(bad!(Task::Preflight { .. }, NotBegun), "DatabasePreflightFailed", &["preflight"])]
#[case::backup(bad!(Task::Backup { .. }, Failed), "BackupFailed", &["preflight", "backup"])]
#[case::rehearsal(bad!(Task::Rehearse { .. }, Failed), "RehearsalFailed", &["preflight", "backup", "rehearse"])]
#[case::migration(bad!(Task::Migrate(_), Failed), "MigrationFailed", &["preflight", "backup", "rehearse", "migrate"])]
#[case::verification(bad!(Task::Verify(_), Failed), "VerificationFailed", &["preflight", "backup", "rehearse", "migrate", "verify"])]
fn what_fails_lets_no_pod_start_and_stays_down(
    #[case] report: fn(&Task) -> Option<Report>,
    #[case] reason: &str,
    #[case] jobs: &[&str],
) {
    let mut world = healthy(json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}}), &json!({}));
    world.report = report;
    let spec: Value = database(&json!({"backup": backup(), "rehearsal": {}}));
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, reason), "{}", status.message);
    assert_eq!(made(&world), jobs);
    assert_eq!((world.stable(), world.pods("v2")), ("v1".into(), 0));
    // Nothing but Retry, or another plan, starts it again.
    world.log.clear();
    world.edit(|spec| spec.replicas = Some(3));
    world.report = well;
    world.settle();
    assert_eq!(made(&world), ["pods"]);
    let revision = world.hash("v2");
    world.say(Action::Retry, |command| command.revision = Some(revision));
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}

#[rstest]
#[case::loses_data(losing as fn(&Task) -> Option<Report>, json!({}), true)]
#[case::harmless(well as fn(&Task) -> Option<Report>, json!({}), false)]
#[case::always(well as fn(&Task) -> Option<Report>, json!({"approval": "Required"}), true)]
#[case::never(losing as fn(&Task) -> Option<Report>, json!({"approval": "Never"}), false)]
fn a_migration_waits_for_a_person_where_the_manifest_or_its_statements_say_so(
    #[case] report: fn(&Task) -> Option<Report>,
    #[case] migration: Value,
    #[case] waits: bool,
) {
    let base = json!({"sql": {"configMap": "shop-1"}, "previousRevisionCompatible": true});
    let mut world = world(database(&json!({"migration": merged(base, &migration)})));
    world.report = report;
    world.settle();
    if !waits {
        assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
        return;
    }
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::AwaitingApproval, "MigrationAwaitsApproval"));
    let plan = status.database.unwrap().plan_hash;
    assert!(status.next_action.contains(&plan), "{}", status.next_action);
    assert_eq!(made(&world), ["preflight"]);
    let revision = world.candidate();
    for (kind, hash, answer) in [
        (ApprovalKind::Step, None, "Rejected: what waits is an approval of kind Migration"),
        (ApprovalKind::Migration, Some("0123456789abcdef".to_owned()), "Rejected: it approves plan 0123456789abcdef"),
        (ApprovalKind::Migration, Some(plan.clone()), "Applied"),
    ] {
        world.say(Action::Approve, |command| {
            command.revision.clone_from(&revision);
            command.approval = Some(CommandApproval { kind, plan_hash: hash });
        });
        world.settle();
        assert!(world.answer().starts_with(answer), "{}", world.answer());
    }
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert_eq!(world.status().database.unwrap().approvals[0].by, "ann");
}

#[test]
fn nobody_passes_over_a_step_of_the_database() {
    let mut world = with(database(&json!({})), &json!({"rollback": {"automatic": false}}));
    world.report = bad!(Task::Preflight { .. }, NotBegun);
    world.settle();
    assert_eq!(world.phase(), Phase::Paused);
    let revision = world.candidate();
    for action in [Action::Skip, Action::Promote] {
        world.say(action, |command| command.revision.clone_from(&revision));
        world.settle();
        assert!(world.answer().starts_with("Rejected: a step of the database"), "{}", world.answer());
    }
    world.report = well;
    world.wait(1);
    world.say(Action::Retry, |command| command.revision.clone_from(&revision));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

fn incompatible(more: &Value) -> Value {
    database(&merged(json!({"migration": {"sql": {"configMap": "shop-2"}}}), more))
}

/// v1 serves, and v2 comes with a migration that v1 cannot live with.
fn breaking(more: &Value, report: fn(&Task) -> Option<Report>) -> World {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let mut world = healthy(plain, &json!({"maintenance": maintained()}));
    world.report = report;
    let spec = incompatible(more);
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    world
}

#[test]
fn a_migration_that_old_code_cannot_live_with_runs_in_maintenance_mode() {
    let mut world = breaking(&json!({}), |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    });
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::Database, SchemaState::Changing));
    assert_eq!(maintenance(&world), "true");
    world.report = well;
    end(&mut world, reported(WorkOutcome::Done, "done"));
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    assert_eq!(maintenance(&world), "false", "it is over once the new code serves (D5)");
}

/// Ends the Job that runs.
fn end(world: &mut World, report: Report) {
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    job.end = Some(crate::engine::JobEnd {
        succeeded: report.outcome == WorkOutcome::Done,
        at,
        took: 1_000,
        message: String::new(),
        report: Some(serde_json::to_string(&report).unwrap()),
    });
    world.settle();
}

#[test]
fn the_maintenance_service_has_all_requests_until_the_new_code_serves() {
    let routed = json!({"traffic": {
        "service": "shop", "candidateService": "shop-candidate", "maintenance": {"service": "page"},
        "router": {"gateway": {"parentRefs": [{"name": "edge"}]}},
    }});
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let page = |world: &World| world.seen.route.as_ref().unwrap().spec["rules"][0]["backendRefs"][0]["name"] == "page";
    let mut world = with(plain, &routed);
    let wait = |world: &mut World| {
        for _ in 0..20 {
            world.settle();
            world.wait(10);
        }
        world.settle();
    };
    wait(&mut world);
    assert_eq!((world.phase(), page(&world)), (Phase::Healthy, false), "{}", world.status().message);
    world.report = |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    };
    let spec = incompatible(&json!({}));
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    wait(&mut world);
    assert_eq!((schema(&world), page(&world)), (SchemaState::Changing, true), "{}", world.status().message);
    world.report = well;
    end(&mut world, reported(WorkOutcome::Done, "done"));
    wait(&mut world);
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    assert!(!page(&world) && world.status().database.unwrap().maintenance_since.is_none());
}

#[test]
fn without_maintenance_mode_only_a_compatible_migration_is_begun() {
    let mut world = world(incompatible(&json!({})));
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "MaintenanceMissing"), "{}", status.message);
    assert!(status.next_action.contains("previousRevisionCompatible"));
    let canary = json!({"maintenance": maintained(), "strategy": {"canary": {"steps": [{"setWeight": 10}]}}});
    let mut world = with(incompatible(&json!({})), &canary);
    world.settle();
    assert_eq!(world.status().reason, "CanaryNeedsCompatibility");
}

#[test]
fn a_config_map_is_written_only_where_its_owner_agrees() {
    let mut world = with(database(&json!({})), &json!({"flags": {"configMap": "other", "values": {"NEW": "on"}}}));
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "ConfigMapMissing"));
    assert!(status.next_action.contains(LABEL_RELEASE), "{}", status.next_action);
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
    assert!(status.next_action.contains("servicerelease_ledger"), "{}", status.next_action);
    // A person has settled it by hand.
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    assert_eq!((world.phase(), maintenance(&world)), (Phase::RolledBack, "false".into()), "{}", world.status().message);
    assert_eq!(world.stable(), "v1");
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
fn the_migration_is_taken_back_where_the_manifest_says_how() {
    let down = json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-2"}, "verify": {"tables": ["old"]}}});
    let mut world = breaking(&down, |task| match task {
        Task::Verify(schema) if schema.tables == ["orders"] => Some(reported(WorkOutcome::Failed, "orders is missing")),
        _ => well(task),
    });
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "migrate", "verify", "down", "verify"]);
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
    let plan = status.database.unwrap().plan_hash;
    let revision = world.candidate();
    world.log.clear();
    world.say(Action::Approve, |command| {
        command.revision = revision;
        command.approval = Some(CommandApproval { kind: ApprovalKind::Restore, plan_hash: Some(plan) });
    });
    world.settle();
    assert_eq!(made(&world), ["backup", "restore"], "what is there is backed up first");
    assert_eq!(
        (world.phase(), schema(&world), maintenance(&world)),
        (Phase::RolledBack, SchemaState::Undone, "false".into())
    );
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
    job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1_000, message, report: None });
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
    world.reply = |_| Some(super::world::wrong());
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    assert!(status.message.contains("check sums failed") && status.message.contains("previousRevisionCompatible"));
    assert!(!status.next_action.contains("undo") && status.next_action.contains("retry"), "{}", status.next_action);
    assert_eq!(world.stable(), "v2");
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
