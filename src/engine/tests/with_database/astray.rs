//! A rehearsal whose command ended well, and was never in the scratch database: it may have been done to the real one.

use super::*;

const WHY: &str = "it ended well, and was never connected to the database of the rehearsal";

fn astray(task: &Task) -> Option<Report> {
    match task {
        Task::Rehearse { .. } => Some(reported(WorkOutcome::Unknown, WHY)),
        _ => well(task),
    }
}

/// spec.database of a migration by a command of the user's, which is rehearsed.
fn rehearsed(more: &Value) -> Value {
    let pod = json!({"spec": {"containers": [{"name": "tool", "image": "team/tool:1", "command": ["migrate"]}]}});
    let migration = merged(json!({"template": pod}), more);
    database(&json!({"migration": migration, "backup": backup(), "rehearsal": {}}))
}

/// v1 serves, and the rehearsal of what comes with v2 goes astray.
fn gone_astray(migration: &Value, more: &Value) -> World {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let mut world = healthy(plain, more);
    world.report = astray;
    world.edit(|it| it.database = serde_json::from_value(rehearsed(migration)).unwrap());
    world.set_image("v2");
    world.settle();
    world
}

fn compatible() -> Value {
    json!({"previousRevisionCompatible": true})
}

#[test]
fn a_rehearsal_that_may_have_been_done_in_earnest_halts_until_a_person_has_looked() {
    for automatic in [true, false] {
        let mut world = gone_astray(&compatible(), &json!({"rollback": {"automatic": automatic}}));
        let status = world.status();
        let halted = (status.phase, status.reason.as_str(), schema(&world));
        assert_eq!(halted, (Phase::Halted, "RehearsalUnknown", SchemaState::Unknown), "{}", status.message);
        let told = format!("nobody knows what the rehearsal has done outside of its scratch database: {WHY}");
        assert!(status.message.contains(&told), "{}", status.message);
        let known = status.database.unwrap();
        let job = &known.last(DatabaseTask::Rehearsal).unwrap().job;
        let look =
            format!("kubectl -n default logs job/{job} --all-containers; psql \"$(kubectl -n default get secret ");
        assert!(status.next_action.starts_with(&look), "{}", status.next_action);
        let backup = format!("(backup {} is from before it)", known.backup.unwrap().name);
        for word in [" -c '\\d' -c '\\du' -c '\\l', and look there", &backup, ": kubectl srel -n default skip shop"] {
            assert!(status.next_action.contains(word), "{word}: {}", status.next_action);
        }
        assert_eq!((world.stable(), world.pods("v2"), made(&world).contains(&"wrap".into())), ("v1".into(), 0, false));
        assert_eq!(world.condition("DatabaseReady"), "Unknown");

        // No record has it: nothing that is looked for by itself could tell.
        world.log.clear();
        world.say(Action::Retry, |_| {});
        world.settle();
        assert!(
            world.answer().starts_with("Rejected: nothing would be tried again: no record tells"),
            "{}",
            world.answer()
        );
        assert_eq!((made(&world).len(), world.phase()), (0, Phase::Halted));

        world.say(Action::Skip, |command| command.revision = None);
        world.settle();
        let status = world.status();
        assert_eq!((status.phase, schema(&world)), (Phase::RolledBack, SchemaState::Accepted), "{}", status.message);
        let told = "let the migration's command take the URL from DATABASE_URL and leave the server's roles and databases \
                    alone, or set spec.database.rehearsal.mode: Skip";
        assert!(status.next_action.starts_with(told), "{}", status.next_action);
        world.report = well;
        let revision = world.hash("v2");
        world.say(Action::Retry, |command| command.revision = Some(revision));
        world.settle();
        assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    }
}

#[test]
fn code_that_the_migration_does_not_fit_is_behind_maintenance_mode_until_then() {
    let mut world = gone_astray(&json!({}), &json!({"maintenance": maintained()}));
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "RehearsalUnknown"), "{}", status.message);
    assert!(status.message.ends_with("maintenance mode stays on"), "{}", status.message);
    assert_eq!((maintenance(&world), world.stable()), ("true".into(), "v1".into()));
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    assert_eq!((world.phase(), maintenance(&world)), (Phase::RolledBack, "false".into()), "{}", world.status().message);
}

#[test]
fn an_object_goes_without_a_search_that_would_find_nothing() {
    let mut world = gone_astray(&json!({}), &json!({"maintenance": maintained()}));
    world.log.clear();
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    world.settle();
    assert!(world.release.metadata.finalizers.is_none(), "{}", world.status().message);
    assert_eq!((made(&world).len(), maintenance(&world)), (0, "true".into()));
}
