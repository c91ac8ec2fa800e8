//! What the simulation found: clusters that lag, caches that are behind, hands that meddle.

use serde_json::json;

use crate::{
    api::{Action, Phase},
    engine::{Effect, Endpoint, Observed, Selection, TemplateCheck, decide},
};

use super::world::{World, adopted};

fn canary() -> serde_json::Value {
    json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}})
}

/// A World at the pause of 50%, with the candidate's pods behind the Service.
fn halfway() -> World {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.selected()), (Phase::Paused, Selection::Release));
    world
}

#[test]
fn pods_that_a_replica_set_is_taking_away_are_not_warm() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.set_image("v2");
    world.pass();
    let v2 = world.hash("v2");
    for revision in world.seen.revisions.iter_mut().filter(|revision| revision.hash == v2) {
        (revision.replicas, revision.available, revision.ready, revision.pods_total) = (0, 2, 2, 2);
    }
    let decision = decide(&world.release, &world.seen, world.now);
    assert_eq!(decision.status.step.unwrap().index, 1, "counts of the size before do not complete the step");
}

#[test]
fn an_old_observation_does_not_turn_the_traffic_round() {
    let mut world = halfway();
    world.say(Action::Abort, |_| {});
    let decision = decide(&world.release, &world.seen, world.now);
    let moves = |effect: &Effect| matches!(effect, Effect::Select { .. });
    assert!(!decision.before.iter().any(moves), "the status is written first, and refused if it is not the newest");
    assert!(decision.after.iter().any(moves) || decision.before.iter().any(|effect| !moves(effect)));
}

#[test]
fn pods_go_only_after_the_selection_was_confirmed() {
    let mut world = halfway();
    world.say(Action::Promote, |command| command.revision = Some("x".into()));
    world.seen.commands.clear();
    world.edit(|spec| spec.replicas = Some(2));
    let decision = decide(&world.release, &world.seen, world.now);
    let shrinks = decision.after.iter().position(|effect| matches!(effect, Effect::ScaleReplicaSet { .. })).unwrap();
    let confirms = |effect: &Effect| matches!(effect, Effect::ConfirmService { object } if object.name == "shop");
    assert!(decision.after[..shrinks].iter().any(confirms), "{:?}", decision.after);
}

#[test]
fn a_template_in_the_middle_is_tried_before_the_candidate_makes_way() {
    let mut world = halfway();
    world.seen.template_check = TemplateCheck::Unknown;
    world.set_image("v3");
    let candidate = world.candidate();
    let decision = world.pass();
    assert!(matches!(&decision.after[..], [Effect::TryTemplate(new)] if new.replicas == 0), "{:?}", decision.after);
    assert_eq!(world.candidate(), candidate);
    world.settle();
    assert_eq!((world.phase(), world.pods("v3"), world.pods("v2")), (Phase::Paused, 2, 0));
}

#[test]
fn a_template_that_is_refused_in_the_middle_leaves_the_candidate() {
    let mut world = halfway();
    world.answer_about_templates = TemplateCheck::Refused("spec.template.spec.containers[0].image: Required".into());
    world.seen.template_check = TemplateCheck::Unknown;
    world.set_image("v3");
    let candidate = world.candidate();
    world.settle();
    assert_eq!((world.phase(), world.candidate(), world.pods("v2")), (Phase::Invalid, candidate, 2));
    assert!(world.status().message.contains("image: Required"), "{}", world.status().message);
}

#[test]
fn the_way_back_does_not_wait_for_an_answer_about_a_template() {
    let mut world = halfway();
    world.seen.template_check = TemplateCheck::Unknown;
    world.set_image("v3");
    world.say(Action::Abort, |_| {});
    let decision = decide(&world.release, &world.seen, world.now);
    assert!(decision.status.rollback.is_some());
    assert!(matches!(decision.after.last(), Some(Effect::TryTemplate(_))), "asked last: {:?}", decision.after);
}

#[test]
fn a_weight_is_reached_when_no_endpoint_of_stable_is_too_many() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    let stable = world.hash("v1");
    for _ in 0..30 {
        world.pass();
        let leaving = Endpoint { pod: None, revision: Some(stable.clone()), ready: true };
        let service = world.seen.service.as_mut().unwrap();
        let theirs = service.endpoints.iter().filter(|endpoint| **endpoint == leaving).count();
        service.endpoints.extend((theirs..3).map(|_| leaving.clone()));
    }
    assert_eq!(world.status().step.unwrap().index, 2, "a third pod of stable still takes traffic");
    world.settle();
    assert_eq!(world.status().step.unwrap().index, 3);
}

#[test]
fn a_candidate_without_traffic_gets_none_on_the_way_back() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.pass();
    world.seen.service = None;
    world.say(Action::Abort, |_| {});
    let decision = world.pass();
    let opens = |effect: &Effect| match effect {
        Effect::CreateService(new) => new.selection == Selection::Release,
        Effect::Select { selection, .. } => *selection == Selection::Release,
        _ => false,
    };
    assert!(!decision.before.iter().chain(&decision.after).any(opens), "{decision:?}");
    world.settle();
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
}

#[test]
fn a_missing_service_takes_no_pods_with_it() {
    let mut world = halfway();
    world.seen.service = None;
    let decision = decide(&world.release, &world.seen, world.now);
    let shrinks = |effect: &Effect| matches!(effect, Effect::ScaleReplicaSet { replicas: 0, .. });
    assert!(!decision.after.iter().any(shrinks), "{:?}", decision.after);
}

#[test]
fn a_deployment_that_is_seen_as_it_was_before_decides_nothing() {
    let mut world = adopted();
    world.settle();
    let old = world.seen.workload.clone().unwrap();
    let workload = world.seen.workload.as_mut().unwrap();
    workload.generation = 2;
    workload.template = crate::engine::Template::new(super::world::template("v2"));
    world.settle();
    let fresh: Observed = world.seen.clone();
    world.seen.workload = Some(old);
    let decision = decide(&world.release, &world.seen, world.now);
    assert_eq!(Some(decision.status), world.release.status, "the old template is not wanted again");
    assert!(decision.before.is_empty() && decision.after.is_empty());
    world.seen = fresh;
}

#[test]
fn the_status_counts_the_steps_of_the_plan_that_was_pinned() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    // The process dies after it wrote the status and before it pinned the plan; then the strategy changes.
    world.release.status = Some(decide(&world.release, &world.seen, world.now).status);
    world.edit(|spec| spec.strategy = serde_json::from_value(json!({"blueGreen": {}})).unwrap());
    world.pass();
    world.pass();
    assert_eq!(world.status().step.unwrap().of, 2);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn all_traffic_needs_a_pod_even_where_all_may_be_missing() {
    let strategy = json!({"canary": {"maxSurge": 0, "maxUnavailable": 1}});
    let mut world = World::healthy(strategy, 1);
    world.broken.push("v2".into());
    world.set_image("v2");
    for _ in 0..6 {
        world.pass();
    }
    assert_ne!(world.selected(), Selection::Revision(world.hash("v2")));
}

#[test]
fn the_observed_share_counts_the_pods_of_others() {
    let mut world = adopted();
    world.pass();
    world.pass();
    world.pass();
    let weights = decide(&world.release, &world.seen, world.now).status.weights.unwrap();
    assert!(weights.observed.candidate < 100, "the Deployment's own pods serve, too: {weights:?}");
}
