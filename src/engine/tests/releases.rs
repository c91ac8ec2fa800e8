//! Releases that go forward.

use rstest::rstest;
use serde_json::json;

use super::world::World;
use crate::{
    api::{Action, Phase},
    engine::{Effect, Selection},
};

fn canary() -> serde_json::Value {
    json!({"canary": {"steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {"duration": "1m"}}]}})
}

#[test]
fn the_first_revision_becomes_stable_without_strategy_steps() {
    let mut world = World::new(canary(), 4);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v1".into()));
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
    assert_eq!(world.status().release.unwrap().number, 1);
    assert_eq!(world.condition("Ready"), "True");
}

#[test]
fn the_first_revision_is_not_selected_before_all_its_pods_are_available() {
    let mut world = World::new(canary(), 4);
    world.broken.push("v1".into());
    world.settle();
    assert_eq!((world.phase(), world.selected()), (Phase::Progressing, Selection::Nothing));
    assert_eq!(world.pods("v1"), 4);
}

#[test]
fn a_new_candidate_comes_before_its_record_but_its_pods_after_it() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    let decision = world.pass();
    let pods = |effects: &[Effect]| -> Vec<i32> {
        let pods = |effect: &Effect| match effect {
            Effect::CreateReplicaSet(new) => Some(new.replicas),
            Effect::ScaleReplicaSet { replicas, .. } => Some(*replicas),
            _ => None,
        };
        effects.iter().filter_map(pods).collect()
    };
    assert_eq!((pods(&decision.before), pods(&decision.after)), (vec![0], vec![]));
    let decision = world.pass();
    assert_eq!((pods(&decision.before), pods(&decision.after)), (vec![], vec![1]));
}

#[test]
fn a_changed_template_goes_through_the_steps_and_becomes_stable() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.pods("v2"), world.pods("v1")), (Phase::Paused, 1, 3));
    assert_eq!(world.selected(), Selection::Release);
    assert_eq!(world.status().weights.unwrap().observed.candidate, 25);
    assert_eq!((world.condition("Ready"), world.condition("Reconciling")), ("Unknown".into(), "True".into()));
    assert_eq!(world.condition("Available"), "True", "one of the four pods is the candidate's");
    let (revision, step) = (world.candidate(), world.status().step.unwrap().index);
    world.say(Action::Promote, |command| (command.revision, command.step) = (revision, Some(step)));
    world.settle();
    assert_eq!((world.phase(), world.pods("v2"), world.pods("v1")), (Phase::Progressing, 2, 2));
    world.wait(59);
    world.settle();
    assert_eq!(world.status().step.unwrap().index, 5);
    world.wait(1);
    world.settle();
    assert_eq!(
        (world.phase(), world.stable(), world.pods("v1"), world.pods("v2")),
        (Phase::Healthy, "v2".into(), 0, 4)
    );
    assert_eq!(world.selected(), Selection::Revision(world.hash("v2")));
    assert_eq!(world.status().previous.unwrap().images, ["v1"]);
}

#[test]
fn the_service_is_opened_only_when_the_first_candidate_pods_are_available() {
    let mut world = World::healthy(canary(), 4);
    world.broken.push("v2".into());
    world.set_image("v2");
    world.settle();
    assert_eq!((world.selected(), world.pods("v2")), (Selection::Revision(world.hash("v1")), 1));
    world.broken.clear();
    world.settle();
    assert_eq!(world.selected(), Selection::Release);
}

#[rstest]
#[case(1)]
#[case(2)]
#[case(3)]
#[case(10)]
fn pods_stay_within_surge_and_availability_at_any_size(#[case] replicas: i32) {
    let mut world = World::healthy(canary(), replicas);
    world.set_image("v2");
    let surge = (replicas + 3) / 4;
    for _ in 0..3 {
        world.settle_watching(|world| {
            let all: i32 = world.seen.revisions.iter().map(|revision| revision.pods_total).sum();
            let available: i32 = world.seen.revisions.iter().map(|revision| revision.available).sum();
            assert!(all <= replicas + surge && available >= replicas, "{all} pods, {available} available");
        });
        let revision = world.candidate();
        world.say(Action::Promote, |command| command.revision = revision);
        world.wait(60);
    }
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn replicas_that_change_in_mid_release_keep_the_share() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    world.edit(|spec| spec.replicas = Some(12));
    world.settle();
    assert_eq!((world.pods("v2"), world.pods("v1"), world.phase()), (3, 9, Phase::Paused));
    world.edit(|spec| spec.replicas = Some(2));
    world.settle();
    assert_eq!((world.pods("v2"), world.pods("v1")), (1, 1));
}

#[test]
fn with_no_replicas_a_release_goes_through_without_pods() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}]}}), 0);
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable(), world.pods("v2")), (Phase::Healthy, "v2".into(), 0));
}

#[test]
fn a_change_back_to_stables_template_ends_the_release_without_a_new_number() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    world.set_image("v1");
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!(
        (world.phase(), world.stable(), world.pods("v1"), world.pods("v2")),
        (Phase::Healthy, "v1".into(), 4, 0)
    );
    assert_eq!(world.status().release.unwrap().number, 2);
    assert!(world.status().timeline.iter().any(|entry| entry.kind == "Superseded"));
    assert!(world.status().failed_revisions.is_empty());
}

#[test]
fn a_third_template_narrows_traffic_to_stable_before_it_replaces_the_candidate() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    world.set_image("v3");
    let mut narrowed = false;
    world.settle_watching(|world| {
        narrowed |= world.selected() == Selection::Revision(world.hash("v1"));
        assert!(narrowed || world.pods("v3") == 0);
    });
    world.wait(30);
    world.settle();
    assert_eq!((world.pods("v2"), world.pods("v3"), world.pods("v1")), (0, 1, 3));
    assert_eq!(world.status().release.unwrap().number, 3);
}

#[test]
fn a_strategy_edited_in_mid_release_applies_to_the_next_one() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    world.edit(|spec| spec.strategy = Some(serde_json::from_value(json!({"blueGreen": {}})).unwrap()));
    world.settle();
    assert_eq!((world.phase(), world.pods("v2"), world.status().step.unwrap().of), (Phase::Paused, 1, 6));
}

#[test]
fn scaling_alone_is_no_release() {
    let mut world = World::healthy(canary(), 4);
    world.edit(|spec| spec.replicas = Some(6));
    world.settle();
    assert_eq!((world.pods("v1"), world.status().release.unwrap().number, world.phase()), (6, 1, Phase::Healthy));
}

#[test]
fn spec_paused_holds_back_a_new_template_without_starting_a_pod() {
    let mut world = World::healthy(canary(), 4);
    world.edit(|spec| spec.paused = true);
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.seen.revisions.len()), (Phase::Paused, 1));
    world.edit(|spec| spec.paused = false);
    world.settle();
    assert_eq!(world.pods("v2"), 1);
}

#[test]
fn blue_green_switches_only_onto_a_fully_available_colour() {
    let mut world = World::healthy(json!({"blueGreen": {}}), 3);
    world.broken.push("v2".into());
    world.set_image("v2");
    world.settle();
    assert_eq!((world.pods("v2"), world.selected()), (3, Selection::Revision(world.hash("v1"))));
    let preview = crate::engine::selection(world.seen.candidate_service.as_ref().unwrap());
    assert_eq!(preview, Selection::Revision(world.hash("v2")), "the preview shows the candidate");
    world.broken.clear();
    world.settle();
    assert_eq!((world.phase(), world.selected()), (Phase::Healthy, Selection::Revision(world.hash("v2"))));
    let preview = crate::engine::selection(world.seen.candidate_service.as_ref().unwrap());
    assert_eq!(preview, Selection::Nothing);
}

#[test]
fn after_a_switch_the_old_pods_stay_for_scale_down_delay() {
    let mut world = World::healthy(json!({"blueGreen": {}}), 3);
    world.set_image("v2");
    world.settle();
    world.wait(29);
    world.settle();
    assert_eq!(world.pods("v1"), 3);
    world.wait(1);
    world.settle();
    assert_eq!((world.pods("v1"), world.phase()), (0, Phase::Healthy));
}

#[test]
fn blue_green_without_auto_promote_waits_for_promote() {
    let mut world = World::healthy(json!({"blueGreen": {"autoPromote": false}}), 3);
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.selected()), (Phase::Paused, Selection::Revision(world.hash("v1"))));
    assert!(world.status().next_action.contains("promote"), "{}", world.status().next_action);
    let revision = world.candidate();
    world.say(Action::Promote, |command| command.revision = revision);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn weight_is_on_record_before_the_service_is_opened() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    for _ in 0..20 {
        let decision = world.pass();
        let opens = |effect: &Effect| matches!(effect, Effect::Select { selection: Selection::Release, .. });
        assert!(!decision.before.iter().any(opens));
        if decision.after.iter().any(opens) {
            assert_eq!(decision.status.weights.unwrap().desired.candidate, 25);
            return;
        }
    }
    panic!("never opened");
}

#[test]
fn at_rest_the_same_observation_yields_nothing() {
    let mut world = World::healthy(canary(), 4);
    let decision = world.pass();
    assert_eq!((decision.before, decision.after, decision.events), (vec![], vec![], vec![]));
    assert_eq!(Some(decision.status), world.release.status);
    assert_eq!(decision.wake, None);
}

#[test]
fn a_clock_that_jumps_back_does_not_make_a_pause_endless() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 25}, {"pause": {"duration": "1m"}}]}}), 4);
    world.set_image("v2");
    world.settle();
    world.now = crate::api::Timestamp::from_millis(5_000);
    world.settle();
    world.wait(61);
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy);
}

#[test]
fn old_revisions_and_plans_go_beyond_the_history_limit() {
    let mut world = World::healthy(json!({"canary": {}}), 1);
    world.edit(|spec| spec.revision_history_limit = 2);
    for version in 2..8 {
        world.wait(1);
        world.set_image(&format!("v{version}"));
        world.settle();
    }
    let mut kept: Vec<String> =
        world.seen.revisions.iter().flat_map(|seen| crate::engine::pass::images(&seen.template)).collect();
    kept.sort();
    assert_eq!(kept, ["v5", "v6", "v7"]);
    assert_eq!(world.seen.plan_numbers, [5, 6, 7]);
}
