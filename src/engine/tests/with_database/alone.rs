//! A migration without other code: what serves has to fit the schema that it makes.

use super::*;

/// v2 serves on the schema that it came with, which v1 could not live with.
fn migrated() -> World {
    let mut world = breaking(&json!({}), well);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    world.log.clear();
    world
}

#[test]
fn a_migration_that_what_serves_does_not_fit_comes_with_other_code() {
    let mut world = migrated();
    change(&mut world, "shop-3");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "MigrationNeedsCode"), "{}", status.message);
    assert!(status.next_action.contains("change spec.template (or the workload) in the same apply"), "{status:?}");
    assert_eq!((made(&world).len(), maintenance(&world), world.stable()), (0, "false".into(), "v2".into()));
    world.set_image("v3");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v3".into()), "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "migrate", "verify", "pods"]);
}

#[test]
fn one_that_is_declared_to_fit_goes_on_by_itself() {
    let mut world = migrated();
    change(&mut world, "shop-3");
    world.settle();
    assert_eq!(world.phase(), Phase::Invalid);
    world.edit(|spec| {
        spec.database.as_mut().unwrap().migration.as_mut().unwrap().previous_revision_compatible = true;
    });
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "migrate", "verify"]);
}

#[test]
fn a_release_under_way_comes_to_its_end_and_the_next_migration_waits_for_code() {
    let mut world = breaking(&json!({}), |task| match task {
        Task::Verify(_) => None,
        _ => well(task),
    });
    world.settle();
    assert_eq!((schema(&world), maintenance(&world)), (SchemaState::Changed, "true".into()));
    change(&mut world, "shop-3");
    world.settle();
    assert_eq!(world.phase(), Phase::Database, "{}", world.status().message);
    end(&mut world, reported(WorkOutcome::Done, "done"));
    let status = world.status();
    assert_eq!((world.stable(), maintenance(&world)), ("v2".into(), "false".into()), "{}", status.message);
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "MigrationNeedsCode"), "{}", status.message);
    assert_eq!(made(&world).iter().filter(|job| *job == "migrate").count(), 1);
}

#[test]
fn the_template_alone_is_no_way_back_to_before_a_migration_that_was_taken_back() {
    let mut world = breaking(&json!({}), bad!(Task::Preflight { .. }, NotBegun));
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::RolledBack, "v1".into()), "{}", world.status().message);
    world.report = well;
    world.set_image("v1");
    world.settle();
    assert_eq!((world.status().reason.as_str(), schema(&world)), ("MigrationNeedsCode", SchemaState::Unchanged));
    assert_eq!(maintenance(&world), "false");
}
