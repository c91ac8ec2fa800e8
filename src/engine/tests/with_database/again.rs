//! What Retry does about a schema that the manifest gives no way back from.

use super::*;

/// A migration that v1 cannot live with, whose verification fails; with a backup.
fn unverified() -> World {
    let mut world = breaking(&json!({"backup": backup()}), bad!(Task::Verify(_), NotBegun));
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "SchemaChanged"));
    world.log.clear();
    world.wait(1);
    world
}

#[test]
fn a_verification_that_failed_is_asked_again_and_the_release_goes_on() {
    let mut world = unverified();
    let next = world.status().next_action;
    assert!(next.contains("retry shop (the schema is verified again, and the release goes on)"), "{next}");
    world.report = well;
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(made(&world)[..2], ["verify".to_owned(), "pods".to_owned()], "nothing is migrated once more");
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Healthy, "v2"), "{}", status.message);
    assert_eq!(maintenance(&world), "false");
    assert_eq!(status.database.unwrap().migrations.len(), 1);
    assert!(status.timeline.iter().any(|entry| entry.kind == "Resumed"));
}

#[test]
fn one_that_fails_again_halts_as_before() {
    let mut world = unverified();
    world.say(Action::Retry, |_| {});
    world.settle();
    assert_eq!(made(&world), ["verify"]);
    assert_eq!((world.status().reason.as_str(), maintenance(&world)), ("SchemaChanged", "true".into()));
}

#[test]
fn an_abort_stops_what_would_go_on() {
    let mut world = unverified();
    world.report = |task| if matches!(task, Task::Verify(_)) { None } else { well(task) };
    world.say(Action::Retry, |_| {});
    world.settle();
    assert!(world.status().message.contains("verified again"), "{}", world.status().message);
    world.say(Action::Abort, |_| {});
    world.settle();
    assert!(world.answer().starts_with("Applied"), "{}", world.answer());
    assert_eq!((world.phase(), world.stable()), (Phase::Halted, "v1".into()), "{}", world.status().message);
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
}
