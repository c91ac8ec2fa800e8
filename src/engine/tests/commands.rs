//! Commands: followed once, or refused with a reason.

use rstest::rstest;
use serde_json::json;

use super::world::World;
use crate::{
    api::{Action, CommandPhase, Phase},
    engine::Effect,
};

/// A release of v2 that stands at `steps`' first step that waits for a person.
fn at(steps: serde_json::Value) -> World {
    let mut world = World::healthy(json!({"canary": {"steps": steps}}), 4);
    world.set_image("v2");
    world.settle();
    world
}

fn say(world: &mut World, action: Action) -> String {
    let revision = world.candidate();
    world.say(action, |command| command.revision = revision);
    world.settle();
    world.answer()
}

#[test]
fn nothing_but_approve_passes_an_approval() {
    let mut world = at(json!([{"setWeight": 25}, {"approval": {}}]));
    assert_eq!(world.phase(), Phase::AwaitingApproval);
    for action in [Action::Promote, Action::Resume, Action::Skip] {
        assert!(say(&mut world, action).starts_with("Rejected"));
    }
    let revision = world.candidate();
    world.say(Action::Promote, |command| (command.revision, command.full) = (revision, true));
    world.settle();
    assert_eq!(world.phase(), Phase::AwaitingApproval);
    assert!(say(&mut world, Action::Approve).starts_with("Applied"));
    assert_eq!(world.phase(), Phase::Healthy);
}

#[rstest]
#[case(Action::Promote)]
#[case(Action::Resume)]
#[case(Action::Skip)]
fn a_pause_without_duration_is_passed_by(#[case] action: Action) {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}]));
    assert!(say(&mut world, action).starts_with("Applied"));
    assert_eq!(world.phase(), Phase::Healthy);
}

#[test]
fn full_promotion_passes_all_pauses_that_are_left() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {"duration": "24h"}}]));
    let revision = world.candidate();
    world.say(Action::Promote, |command| (command.revision, command.full) = (revision, true));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy);
}

#[test]
fn pause_holds_a_step_and_resume_goes_on() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {"duration": "1m"}}]));
    assert!(say(&mut world, Action::Pause).starts_with("Applied"));
    world.wait(3600);
    world.settle();
    assert_eq!((world.phase(), world.pods("v2")), (Phase::Paused, 1));
    assert!(say(&mut world, Action::Promote).contains("Resume first"));
    assert!(say(&mut world, Action::Resume).starts_with("Applied"));
    assert_eq!(world.phase(), Phase::Healthy);
}

#[test]
fn resume_is_refused_while_spec_paused_is_set() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}]));
    world.edit(|spec| spec.paused = true);
    world.settle();
    assert!(say(&mut world, Action::Resume).contains("spec.paused"));
    assert_eq!(world.phase(), Phase::Paused);
}

#[test]
fn commands_for_another_revision_or_step_are_refused() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]));
    world.say(Action::Promote, |command| command.revision = Some("other".into()));
    world.settle();
    assert!(world.answer().contains("it is meant for revision other"), "{}", world.answer());
    let (revision, step) = (world.candidate(), world.status().step.unwrap().index);
    for _ in 0..2 {
        let revision = revision.clone();
        world.say(Action::Promote, |command| (command.revision, command.step) = (revision, Some(step)));
    }
    world.settle();
    assert_eq!(world.status().step.unwrap().index, step + 2, "the duplicate did not pass the next pause");
    assert!(world.answer().starts_with("Rejected"), "{}", world.answer());
}

#[test]
fn abort_is_decided_first_whatever_was_said_before_it() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}]));
    let revision = world.candidate();
    world.say(Action::Promote, |command| command.revision = revision);
    world.say(Action::Abort, |_| {});
    world.settle();
    let records = world.status().commands;
    let decided: Vec<_> = records.iter().map(|record| (record.action, record.phase)).collect();
    assert_eq!(decided, [(Action::Abort, CommandPhase::Applied), (Action::Promote, CommandPhase::Rejected)]);
    assert_eq!(world.stable(), "v1");
}

#[test]
fn a_command_is_decided_once_though_the_answer_is_lost() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]));
    let revision = world.candidate();
    world.say(Action::Promote, |command| command.revision = revision);
    world.pass();
    world.seen.commands[0].decided_at = None;
    world.settle();
    assert_eq!((world.status().commands.len(), world.status().step.unwrap().index), (1, 5));
    assert!(world.seen.commands[0].decided_at.is_some());
}

#[test]
fn a_command_created_again_under_its_name_is_refused() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]));
    say(&mut world, Action::Promote);
    let revision = world.candidate();
    world.seen.commands.clear();
    world.say(Action::Promote, |command| {
        command.object.name = "command-1".into();
        command.revision = revision;
    });
    world.settle();
    assert!(world.answer().contains("create one with a new name"), "{}", world.answer());
    assert_eq!(world.status().step.unwrap().index, 5);
}

#[test]
fn the_timeline_tells_a_command_before_what_came_of_it() {
    let mut world = at(json!([{"setWeight": 25}, {"pause": {}}]));
    say(&mut world, Action::Abort);
    let kinds: Vec<String> = world.status().timeline.iter().map(|entry| entry.kind.clone()).collect();
    let place = |kind: &str| kinds.iter().rposition(|known| known == kind);
    assert!(place("Command").is_some() && place("Command") < place("RollingBack"), "{kinds:?}");
}

#[rstest]
#[case(Action::Abort, "no release is under way")]
#[case(Action::Pause, "spec.paused holds back the next one")]
#[case(Action::Approve, "no release is under way")]
#[case(Action::Retry, "has not failed")]
#[case(Action::Undo, "there is nothing to go back to")]
fn at_rest_these_are_refused(#[case] action: Action, #[case] why: &str) {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.say(action, |_| {});
    world.settle();
    assert!(world.answer().contains(why), "{}", world.answer());
    assert_eq!(world.phase(), Phase::Healthy);
}

#[test]
fn decided_commands_are_removed_after_their_retention() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.say(Action::Abort, |_| {});
    world.settle();
    world.wait(3599);
    world.settle();
    assert_eq!(world.seen.commands.len(), 1);
    world.wait(1);
    world.settle();
    assert!(world.seen.commands.is_empty());
    assert!(matches!(world.log.last(), Some(Effect::DeleteCommand { .. })));
}

#[test]
fn a_flood_of_commands_keeps_the_status_bounded_and_loses_none() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    for _ in 0..100 {
        world.say(Action::Abort, |_| {});
    }
    world.settle();
    assert!(world.seen.commands.iter().all(|command| command.decided_at.is_some()));
    assert!(serde_json::to_string(&world.status()).unwrap().len() < 16 * 1024);
}
