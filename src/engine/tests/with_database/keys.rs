//! Maintenance mode that is a key of a ConfigMap: pods go by it later than it is set, and others write to it, too.

use rstest::rstest;

use super::*;
use crate::api::Duration;

/// v1 serves, v2 comes with a migration that v1 cannot live with, and pods hear of a key within 90 s.
fn slow(more: &Value, report: fn(&Task) -> Option<Report>) -> World {
    let mut world = breaking(more, report);
    world.edit(|spec| {
        spec.maintenance.as_mut().unwrap().config_map.propagation_delay = Duration::from_secs(90);
    });
    world
}

fn down() -> Value {
    json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-2"}}})
}

/// Somebody's sync brings back what stands in a repository.
fn set_back(world: &mut World) {
    let map = &mut world.seen.config_maps[0];
    map.data.insert("MAINTENANCE".into(), "false".into());
    map.changed_by = Some("argocd-controller".into());
}

fn begun(world: &World, what: &str) -> bool {
    made(world).iter().any(|made| made == what)
}

#[test]
fn a_migration_begins_once_pods_go_by_the_key() {
    let mut world = slow(&json!({}), well);
    world.settle();
    assert_eq!((maintenance(&world), begun(&world, "migrate")), ("true".into(), false), "{}", world.status().message);
    // A sync in between begins the time anew.
    world.wait(60);
    set_back(&mut world);
    world.settle();
    assert_eq!(maintenance(&world), "true");
    world.wait(89);
    world.settle();
    assert!(!begun(&world, "migrate"), "{}", world.status().message);
    world.wait(1);
    world.settle();
    assert!(begun(&world, "migrate") && world.phase() == Phase::Healthy, "{}", world.status().message);
    assert_eq!(maintenance(&world), "false");
}

#[rstest]
#[case::by_the_operator(true, "false")]
#[case::by_a_person(false, "true")]
fn maintenance_mode_that_was_left_on_is_taken_off_unless_somebody_else_put_it_on(
    #[case] ours: bool,
    #[case] then: &str,
) {
    let mut world = breaking(&json!({}), well);
    world.settle();
    assert_eq!((world.phase(), maintenance(&world).as_str()), (Phase::Healthy, "false"));
    let map = &mut world.seen.config_maps[0];
    map.data.insert("MAINTENANCE".into(), "true".into());
    map.ours = ours.then(|| "MAINTENANCE".to_owned()).into_iter().collect();
    let told = world.pass().events.iter().any(|event| event.reason == "MaintenanceOff");
    world.settle();
    assert_eq!((maintenance(&world).as_str(), told, world.phase()), (then, ours, Phase::Healthy));
}

#[test]
fn a_key_that_is_set_back_during_a_migration_is_put_on_again() {
    let mut world = breaking(&json!({}), |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    });
    world.settle();
    assert!(begun(&world, "migrate"));
    set_back(&mut world);
    let told = world.pass().events;
    let by =
        |event: &crate::engine::Event| event.reason == "MaintenancePutBack" && event.note.contains("argocd-controller");
    assert!(told.iter().any(by), "{told:?}");
    world.settle();
    assert_eq!((maintenance(&world), schema(&world)), ("true".into(), SchemaState::Changing));
    world.report = well;
    end(&mut world, Report { applied: vec!["002.sql".into()], ..reported(WorkOutcome::Done, "done") });
    assert_eq!((world.phase(), maintenance(&world)), (Phase::Healthy, "false".into()), "{}", world.status().message);
}

#[test]
fn what_somebody_takes_off_again_and_again_takes_the_release_back() {
    let mut world = slow(&json!({}), well);
    world.settle();
    for _ in 0..20 {
        world.wait(60);
        set_back(&mut world);
        world.settle();
    }
    let status = world.status();
    assert!(!begun(&world, "migrate") && world.stable() == "v1", "{}", status.message);
    assert_eq!((status.phase, schema(&world)), (Phase::RolledBack, SchemaState::Unchanged), "{}", status.message);
}

#[test]
fn the_way_back_waits_for_pods_too_and_watches_its_job_to_the_end() {
    let mut world = slow(&down(), |task| match task {
        Task::Down { .. } => None,
        _ => well(task),
    });
    world.settle();
    world.wait(90);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    world.say(Action::Undo, |_| {});
    world.settle();
    assert_eq!((maintenance(&world), begun(&world, "down")), ("true".into(), false), "{}", world.status().message);
    let v1 = crate::engine::Selection::Revision(world.hash("v1"));
    assert_ne!(world.selected(), v1, "old code has no request before");
    world.wait(90);
    world.settle();
    assert_eq!((begun(&world, "down"), world.selected()), (true, v1), "{}", world.status().message);
    set_back(&mut world);
    world.settle();
    assert_eq!((world.phase(), maintenance(&world)), (Phase::RollingBack, "true".into()), "{}", world.status().message);
    world.report = well;
    end(&mut world, reported(WorkOutcome::Done, "done"));
    world.wait(60);
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
    assert_eq!(maintenance(&world), "false");
}

#[test]
fn a_map_that_is_not_there_is_not_one_that_is_off() {
    let mut world = breaking(&down(), |task| match task {
        Task::Down { .. } => None,
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "as it happens")),
        _ => well(task),
    });
    world.settle();
    assert!(begun(&world, "down"), "{}", world.status().message);
    let map = world.seen.config_maps.remove(0);
    world.report = well;
    end(&mut world, reported(WorkOutcome::Done, "done"));
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "ConfigMapMissing"), "{}", status.message);
    assert!(status.message.contains("shop-config") && status.message.contains("maintenance mode stays on"));
    world.seen.config_maps.insert(0, map);
    world.settle();
    assert_eq!((world.phase(), maintenance(&world)), (Phase::RolledBack, "false".into()), "{}", world.status().message);
}
