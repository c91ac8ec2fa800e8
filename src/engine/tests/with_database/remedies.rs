//! What a person is told to do about a release that the database's part of it has failed.

use rstest::rstest;

use super::*;

const RETRY: &str = "kubectl srel -n default retry shop";

/// A release with all that a database's part has, of which one kind of task does not end well.
fn failed(report: fn(&Task) -> Option<Report>, template: bool) -> World {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let mut world = healthy(plain, &json!({}));
    world.report = report;
    let seed = json!({"sql": {"configMap": "shop-seed", "set": "seed"}, "approval": "Never"});
    let spec = database(&json!({"backup": backup(), "rehearsal": {}, "seed": seed}));
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    if template {
        world.set_image("v2");
    }
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
    world
}

fn is_seed(task: &Task) -> bool {
    matches!(task, Task::Migrate(run) if run.set == "seed")
}

#[rstest]
#[case::preflight(bad!(Task::Preflight { .. }, NotBegun), "mend what it says of the database, or of what spec.database names")]
#[case::backup(bad!(Task::Backup { .. }, Failed), "mend what it says of the backup (spec.database.backup: ")]
#[case::rehearsal(bad!(Task::Rehearse { .. }, Failed), "correct spec.database.migration, or seed, verify or rehearsal beside it: ")]
#[case::migration(bad!(Task::Migrate(_), Failed), "correct spec.database.migration: a changed migration starts a release; ")]
#[case::seed(
    |task: &Task| if is_seed(task) { Some(reported(WorkOutcome::Failed, "as it happens")) } else { well(task) },
    "correct spec.database.seed, which starts no release by itself, then "
)]
#[case::verification(bad!(Task::Verify(_), Failed), "correct spec.database.verify, or spec.database.migration, or the database itself")]
fn what_the_database_failed_is_mended_there_and_not_in_the_template(
    #[case] report: fn(&Task) -> Option<Report>,
    #[case] told: &str,
    #[values(true, false)] template: bool,
) {
    let status = failed(report, template).status();
    assert!(status.next_action.starts_with(told), "{}: {}", status.reason, status.next_action);
    assert!(status.next_action.contains(RETRY), "{}", status.next_action);
    assert!(!status.next_action.contains("template"), "{}", status.next_action);
}

#[test]
fn a_changed_migration_starts_a_release_and_a_changed_verification_waits_for_retry() {
    let mut world = failed(bad!(Task::Verify(_), Failed), true);
    world.report = well;
    world.log.clear();
    world.edit(|spec| spec.database.as_mut().unwrap().verify.as_mut().unwrap().tables = vec!["others".into()]);
    world.settle();
    assert_eq!((world.phase(), made(&world).len()), (Phase::RolledBack, 0), "as it is told");
    change(&mut world, "shop-2");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}

#[test]
fn a_step_of_the_database_that_is_held_offers_nothing_that_is_refused() {
    let mut world = with(database(&json!({})), &json!({"rollback": {"automatic": false}}));
    world.report = bad!(Task::Preflight { .. }, NotBegun);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "DatabasePreflightFailed"));
    let told = format!("mend what it says, then {RETRY} (tries the same once more");
    assert!(status.next_action.starts_with(&told), "{}", status.next_action);
    let refused = ["skip", "promote"].iter().any(|word| status.next_action.contains(word));
    assert!(
        !refused && status.next_action.contains(" abort shop, and correct spec.database"),
        "{}",
        status.next_action
    );
}

const DIRTY: &str = "public.schema_migrations has 3 as not finished: golang-migrate stopped half-way: look what it made, finish or \
                     undo it, then `migrate force VERSION`";

fn dirty(task: &Task) -> Option<Report> {
    match task {
        Task::Wrap(_) => Some(Report { half_way: vec![DIRTY.into()], ..reported(WorkOutcome::Failed, "exit code 1") }),
        _ => well(task),
    }
}

/// v1 serves, and the migration that comes with v2 fails after a part of it; the schema stays (onRollback: Keep).
fn partly(migration: &Value, report: fn(&Task) -> Option<Report>) -> World {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let mut world = healthy(plain, &json!({}));
    world.report = report;
    let migration = merged(json!({"previousRevisionCompatible": true}), migration);
    world.edit(|it| it.database = serde_json::from_value(database(&json!({"migration": migration}))).unwrap());
    world.set_image("v2");
    world.settle();
    assert_eq!(
        (world.phase(), schema(&world)),
        (Phase::RolledBack, SchemaState::Partial),
        "{}",
        world.status().message
    );
    world
}

fn by_tool() -> Value {
    json!({"template": {"spec": {"containers": [{"name": "tool", "image": "tool:1", "command": ["migrate"]}]}}})
}

#[rstest]
#[case::tells_what_mends_it(by_tool(), dirty, "", &format!("{DIRTY}; then correct spec.database.migration"))]
#[case::tells_nothing(
    by_tool(), bad!(Task::Wrap(_), Failed), "",
    "look what it made, and finish or undo it: kubectl -n default logs job/shop-migration-"
)]
#[case::whole_files(
    json!({"sql": {"configMap": "shop-1"}}),
    |task: &Task| match task {
        Task::Migrate(_) => Some(Report { applied: vec!["001.sql".into()], ..reported(WorkOutcome::Failed, "002.sql: no") }),
        _ => well(task),
    },
    " (001.sql)", "correct spec.database.migration"
)]
#[case::half_a_file(
    json!({"sql": {"configMap": "shop-1"}}),
    |task: &Task| match task {
        Task::Migrate(_) => Some(Report { partly: true, ..reported(WorkOutcome::Failed, "001.sql: no") }),
        _ => well(task),
    },
    "", "look what it made, and finish or undo it: kubectl -n default logs job/shop-migration-"
)]
fn a_part_of_a_migration_that_stays_is_told_with_its_repair(
    #[case] migration: Value,
    #[case] report: fn(&Task) -> Option<Report>,
    #[case] applied: &str,
    #[case] first: &str,
) {
    let mut world = partly(&migration, report);
    let status = world.status();
    let told = format!("a part of the migration was applied{applied}, and is in the database");
    assert!(status.message.contains(&told), "{}", status.message);
    assert!(status.next_action.starts_with(first) && status.next_action.contains(RETRY), "{}", status.next_action);
    let ready = status.conditions.iter().find(|condition| condition.type_ == "DatabaseReady").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "MigrationFailed"));
    assert!(ready.message.starts_with(&told), "{}", ready.message);
    // It stays so until a release has come to its end, also where the spec goes back to what serves.
    world.edit(|spec| spec.database.as_mut().unwrap().migration = None);
    world.set_image("v1");
    world.settle();
    assert_eq!((world.phase(), world.condition("DatabaseReady")), (Phase::Healthy, "False".into()));
    assert!(world.status().message.contains(&told), "{}", world.status().message);
    world.report = well;
    world.set_image("v3");
    world.settle();
    assert_eq!((world.phase(), world.condition("DatabaseReady")), (Phase::Healthy, "True".into()));
    assert!(!world.status().message.contains(&told), "{}", world.status().message);
}
