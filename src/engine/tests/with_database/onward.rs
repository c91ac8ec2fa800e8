//! Forward from a schema that is changed and has no way back: the next release begins behind maintenance mode.

use rstest::rstest;

use super::*;

/// v2 has migrated, and its code does not come up; v1 has the requests, behind maintenance mode.
fn halted() -> World {
    let mut world = breaking(&json!({}), well);
    world.broken.push("v2".into());
    world.settle();
    world.wait(700);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    assert_eq!((world.stable().as_str(), maintenance(&world).as_str()), ("v1", "true"));
    world.log.clear();
    world
}

/// Maintenance mode is off only where code serves that was made for the schema.
fn old_code_is_closed(world: &World) {
    let status = world.status();
    let old = status.stable.as_ref().is_some_and(|stable| stable.release == 1);
    assert!(maintenance(world) == "true" || world.selected() != crate::engine::Selection::Revision(world.hash("v1")));
    assert!(!old || maintenance(world) == "true" || status.step.is_some(), "{}", status.message);
    assert!(!matches!(status.phase, Phase::Healthy | Phase::RolledBack) || maintenance(world) == "false");
}

fn retry(world: &mut World) {
    let revision = world.status().database.unwrap().fix.map(|fix| fix.revision);
    world.say(Action::Retry, |command| command.revision = revision);
    world.settle_watching(old_code_is_closed);
}

#[test]
fn the_condition_says_that_the_code_that_serves_does_not_fit() {
    let world = halted();
    assert_eq!(world.condition("DatabaseReady"), "False");
    let status = world.status();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "DatabaseReady").unwrap();
    assert_eq!(ready.reason, "SchemaChanged", "{}", ready.message);
    assert!(ready.message.contains("the code that serves does not fit it"), "{}", ready.message);
}

#[test]
fn it_says_what_helps_and_that_a_newer_spec_waits() {
    let mut world = halted();
    let next = world.status().next_action;
    let way = "apply a version whose code fits the new schema, then kubectl srel -n default retry shop";
    assert!(next.contains(way) && next.contains("; or when the database fits"), "{next}");
    assert!(!world.status().message.contains("newer spec"), "{}", world.status().message);
    world.set_image("v3");
    world.settle();
    let (status, v3) = (world.status(), world.target());
    let waits = format!("the newer spec ({v3}) waits: Retry begins it");
    assert!(status.message.contains(&waits), "{}", status.message);
    assert!(status.next_action.contains(&format!("retry shop (releases {v3})")), "{}", status.next_action);
    assert_eq!((status.phase, made(&world)), (Phase::Halted, vec![]), "nothing begins by itself");
    world.edit(|spec| spec.paused = true);
    world.settle();
    let message = world.status().message;
    assert!(message.contains(&format!("({v3}) waits: spec.paused is set")), "{message}");
    world.say(Action::Retry, |_| {});
    world.settle();
    assert!(world.answer().starts_with("Rejected"), "{}", world.answer());
}

#[test]
fn code_that_fits_is_released_behind_maintenance_mode() {
    let mut world = halted();
    world.set_image("v3");
    world.settle();
    retry(&mut world);
    assert!(world.answer().contains("maintenance mode stays on until it serves"), "{}", world.answer());
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Healthy, "v3"), "{}", status.message);
    assert_eq!(maintenance(&world), "false");
    assert_eq!(world.condition("DatabaseReady"), "True");
    assert!(!made(&world).contains(&"migrate".to_owned()), "it was applied already: {:?}", made(&world));
    let off = |effect: &Effect| matches!(effect, Effect::SetKeys { values, .. } if values.values().any(|value| value.as_deref() == Some("false")));
    let switched = |effect: &Effect| matches!(effect, Effect::Select { .. });
    let (off, switched) = (world.log.iter().position(off), world.log.iter().rposition(switched));
    assert!(off > switched, "{:?}", world.log);
    world.say(Action::Undo, |_| {});
    world.settle();
    assert!(world.answer().starts_with("Rejected") && world.stable() == "v3", "{}", world.answer());
}

#[test]
fn the_same_revision_is_tried_again_behind_maintenance_mode() {
    let mut world = halted();
    world.broken.clear();
    retry(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
    assert_eq!(maintenance(&world), "false");
    assert!(!made(&world).contains(&"migrate".to_owned()), "{:?}", made(&world));
}

/// How the fix comes to its end before it serves.
#[derive(Clone, Copy)]
enum End {
    Fails,
    Aborted,
    Superseded,
    StableAgain,
}

#[rstest]
#[case::fails(End::Fails)]
#[case::aborted(End::Aborted)]
#[case::superseded(End::Superseded)]
#[case::stable_again(End::StableAgain)]
fn a_fix_that_does_not_come_to_serve_halts_with_maintenance_on(#[case] way: End) {
    let mut world = halted();
    world.broken.push("v3".into());
    world.set_image("v3");
    world.settle();
    retry(&mut world);
    assert_eq!(world.phase(), Phase::Progressing, "{}", world.status().message);
    assert_eq!(world.condition("DatabaseReady"), "False");
    match way {
        End::Fails => world.wait(700),
        End::Aborted => world.say(Action::Abort, |_| {}),
        End::Superseded => world.set_image("v4"),
        End::StableAgain => world.set_image("v1"),
    }
    world.settle_watching(old_code_is_closed);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    assert_eq!((world.stable().as_str(), maintenance(&world).as_str()), ("v1", "true"));
    assert!(status.message.contains("maintenance mode stays on"), "{}", status.message);
    if matches!(way, End::StableAgain) {
        world.say(Action::Retry, |_| {});
        world.settle();
        assert!(world.answer().starts_with("Rejected"), "{}", world.answer());
        assert!(!status.next_action.contains(" retry "), "{}", status.next_action);
    }
    // The next one.
    world.set_image("v5");
    world.settle();
    retry(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v5"), "{}", world.status().message);
    assert_eq!(maintenance(&world), "false");
}

#[test]
fn a_key_that_is_set_back_while_the_fix_goes_on_is_put_on_again() {
    let mut world = halted();
    world.broken.push("v3".into());
    world.set_image("v3");
    world.settle();
    retry(&mut world);
    world.seen.config_maps[0].data.insert("MAINTENANCE".into(), "false".into());
    world.settle();
    assert_eq!((maintenance(&world).as_str(), world.phase()), ("true", Phase::Progressing));
}

#[test]
fn a_person_who_says_that_it_fits_ends_it() {
    let mut world = halted();
    world.broken.push("v3".into());
    world.set_image("v3");
    world.settle();
    retry(&mut world);
    world.wait(700);
    world.settle();
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, maintenance(&world).as_str()), (Phase::RolledBack, "false"), "{}", status.message);
    assert_eq!((world.condition("DatabaseReady").as_str(), status.database.unwrap().unfit_before), ("True", None));
}

/// A part of a migration was applied: the fix brings the rest, and the code for it.
#[test]
fn a_migration_that_failed_half_way_is_carried_on_behind_maintenance_mode() {
    let mut world = breaking(&json!({}), |task| match task {
        Task::Migrate(_) => {
            Some(Report { applied: vec!["001_orders.sql".into()], ..reported(WorkOutcome::Failed, "002: syntax") })
        }
        _ => well(task),
    });
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::Halted, SchemaState::Partial));
    world.log.clear();
    // Whoever has mended it finds all of it in the ledger.
    world.report = already;
    change(&mut world, "shop-3");
    world.set_image("v3");
    world.settle();
    retry(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v3"), "{}", world.status().message);
    assert!(made(&world).contains(&"migrate".to_owned()) && maintenance(&world) == "false");
    assert!(!world.status().database.unwrap().migrations[0].compatible, "v1 does not fit it");
}

fn already(task: &Task) -> Option<Report> {
    match task {
        Task::Migrate(_) => Some(reported(WorkOutcome::Done, "0 files applied, 2 were before")),
        _ => well(task),
    }
}

#[test]
fn a_verification_that_failed_does_not_bind_to_the_failed_code() {
    let mut world = breaking(&json!({}), bad!(Task::Verify(_), Failed));
    world.settle();
    assert_eq!(world.status().reason, "SchemaChanged");
    world.report = already;
    world.set_image("v3");
    world.settle();
    retry(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v3"), "{}", world.status().message);
}

#[test]
fn retry_names_the_revision_that_was_offered() {
    let mut world = halted();
    let v2 = world.candidate();
    world.set_image("v3");
    world.settle();
    world.say(Action::Retry, |command| command.revision.clone_from(&v2));
    world.settle();
    assert!(world.answer().starts_with("Rejected: it is meant for revision"), "{}", world.answer());
    let offered = world.status().database.unwrap().fix.unwrap().revision;
    world.set_image("v4");
    world.say(Action::Retry, |command| command.revision = Some(offered));
    world.settle();
    assert!(world.answer().contains("the template has changed meanwhile"), "{}", world.answer());
    assert_eq!((world.phase(), maintenance(&world).as_str()), (Phase::Halted, "true"));
}

#[test]
fn another_maintenance_mode_than_the_one_that_is_on_begins_nothing() {
    let mut world = halted();
    world.edit(|spec| spec.maintenance.as_mut().unwrap().config_map.key = "OTHER".into());
    world.set_image("v3");
    world.settle();
    assert!(world.status().message.contains("waits: spec.maintenance is not the one that is on"));
    assert!(world.status().database.unwrap().fix.is_none());
}

#[test]
fn the_longest_names_leave_room_for_what_helps() {
    let mut world = breaking(&json!({"backup": backup()}), bad!(Task::Migrate(_), Failed));
    world.release.metadata.namespace = Some("n".repeat(63));
    world.report = |task| match task {
        Task::Migrate(_) => {
            let applied = (0..8).map(|n| format!("{n}{}", "f".repeat(127))).collect();
            Some(Report { applied, ..reported(WorkOutcome::Failed, &"it is as it is. ".repeat(40)) })
        }
        _ => well(task),
    };
    world.settle();
    world.set_image("v3");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SchemaChanged"), "{}", status.message);
    assert!(status.next_action.ends_with(" skip shop") && status.next_action.len() < 900, "{}", status.next_action);
    assert!(status.message.ends_with("; maintenance mode stays on"), "{}", status.message);
}
