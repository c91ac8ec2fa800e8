//! Somebody else's hand in routes and Services: put right, told by name, never fought in a loop.

use serde_json::json;

use super::{
    routed::{canary, go, requests_find_pods, weight_of, with_users_route},
    world::World,
};
use crate::{
    api::{Action, LABEL_RELEASE, LABEL_REVISION, Phase},
    engine::{Decision, Effect, Selection, selection},
};

/// A GitOps tool applies the route as it stands in Git whenever it differs: passes, each answered by it.
fn healed(world: &mut World, weights: [Option<i32>; 2], passes: usize) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for _ in 0..passes {
        apply(world, weights);
        decisions.push(world.pass());
        requests_find_pods(world);
    }
    decisions
}

/// Applies these weights of the candidate and stable; none for weights that are left out.
fn apply(world: &mut World, weights: [Option<i32>; 2]) {
    let mut spec = world.seen.route.as_ref().unwrap().spec.clone();
    for (place, weight) in weights.into_iter().enumerate() {
        let backend = spec["rules"][1]["backendRefs"][place].as_object_mut().unwrap();
        // The API server's default, of which nothing tells that nobody wrote it.
        backend.insert("weight".into(), json!(weight.unwrap_or(1)));
    }
    if world.seen.route.as_ref().unwrap().spec != spec {
        world.write_route(|there| *there = spec);
        world.seen.route.as_mut().unwrap().changed_by = Some(("argocd".into(), true));
    }
}

fn writes(world: &World) -> usize {
    let is_write = |effect: &&Effect| matches!(effect, Effect::SetRouteWeights { .. } | Effect::ReplaceRoute { .. });
    world.log.iter().filter(is_write).count()
}

/// Requests that find no pod, in percent.
fn lost(world: &World) -> i64 {
    let route = world.seen.route.as_ref().unwrap();
    let services = [("shop", &world.seen.service), ("shop-candidate", &world.seen.candidate_service)];
    let all: i64 = services.iter().map(|(name, _)| weight_of(route, name)).sum();
    let empty = services.iter().filter(|(_, it)| it.as_ref().unwrap().endpoints.is_empty());
    empty.map(|(name, _)| weight_of(route, name) * 100 / all).sum()
}

#[test]
fn whoever_sets_weights_of_the_operators_own_route_is_told_apart_from_git() {
    let mut world = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    world.set_image("v2");
    go(&mut world);
    for _ in 0..6 {
        world.write_route(|spec| {
            spec["rules"][0]["backendRefs"][0]["weight"] = json!(90);
            spec["rules"][0]["backendRefs"][1]["weight"] = json!(10);
        });
        world.seen.route.as_mut().unwrap().changed_by = Some(("kubectl-edit".into(), false));
        world.settle();
    }
    let status = world.status();
    assert_eq!(status.reason, "RouteContested", "{}", status.message);
    assert!(status.next_action.contains("let it leave this route alone"), "{}", status.next_action);
    assert!(!status.next_action.contains("use router gateway"), "{}", status.next_action);
}

#[rstest::rstest]
#[case::half([Some(50), Some(50)])]
#[case::without_weights([None, None])]
#[case::of_no_whole_percent([Some(1), Some(2)])]
fn weights_in_git_are_not_fought_at_rest_and_cost_no_request(#[case] weights: [Option<i32>; 2]) {
    let mut world = with_users_route();
    world.log.clear();
    healed(&mut world, weights, 20);
    assert!(writes(&world) <= 1, "{} writes", writes(&world));
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str(), lost(&world)), (Phase::Invalid, "RouteContested", 0));
    assert!(status.message.contains("argocd") && status.message.contains("stable's pods"), "{}", status.message);
    for remedy in ["RespectIgnoreDifferences", "ssa: IfNotPresent", "router gateway"] {
        assert!(status.next_action.contains(remedy), "{}", status.next_action);
    }
    assert_eq!(world.condition("Ready"), "False");
    // Nothing more is said or done while it stays so.
    let decision = world.pass();
    assert_eq!((decision.before, decision.after, decision.events), (vec![], vec![], vec![]));

    // The tool leaves it alone now, and a person says so.
    world.say(Action::Retry, |_| {});
    go(&mut world);
    let route = world.seen.route.as_ref().unwrap();
    assert_eq!((world.phase(), weight_of(route, "shop-candidate")), (Phase::Healthy, 0));
    assert_eq!(selection(world.seen.candidate_service.as_ref().unwrap()), Selection::Nothing);
}

#[test]
fn an_abort_against_weights_in_git_leads_all_requests_to_stable_all_the_same() {
    let mut world = with_users_route();
    world.set_image("v2");
    go(&mut world);
    apply(&mut world, [Some(50), Some(50)]);
    world.settle();
    assert_eq!(world.status().reason, "RouteContested");
    world.say(Action::Abort, |_| {});
    world.log.clear();
    let mut told = false;
    for _ in 0..20 {
        for Decision { status, .. } in healed(&mut world, [Some(50), Some(50)], 3) {
            let halted = status.phase == Phase::Halted && status.reason == "RouteContested";
            told |= halted && status.message.contains("to be taken back") && status.next_action.contains("Argo CD");
        }
        world.wait(5);
    }
    assert!(told, "while it goes back, who holds on to the route");
    assert!(writes(&world) <= 2, "{} writes", writes(&world));
    assert_eq!((world.pods("v2"), lost(&world)), (0, 0));
    let stable = Selection::Revision(world.hash("v1"));
    assert_eq!(selection(world.seen.candidate_service.as_ref().unwrap()), stable);
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Invalid, "RouteContested"));
    assert!(world.candidate().is_none(), "the rollback is over");
}

#[test]
fn who_points_a_service_elsewhere_is_named_when_it_is_put_back() {
    let mut world = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    let stable = world.hash("v1");
    let service = world.seen.service.as_mut().unwrap();
    service.selector.insert(LABEL_REVISION.into(), "other".into());
    service.changed_by = Some("kubectl-patch".into());
    let decision = world.pass();
    let told = decision.events.iter().find(|event| event.reason == "SelectorChanged").unwrap();
    assert!(told.note.contains("kubectl-patch") && told.note.contains("Service shop"), "{}", told.note);
    go(&mut world);
    assert_eq!(world.selected(), Selection::Revision(stable));
}

#[test]
fn who_made_a_service_before_the_release_did_not_change_it() {
    let mut world = World::new(json!({"canary": {}}), 2);
    let selector = [("app".to_owned(), "shop".to_owned())].into();
    let object = crate::engine::ObjectVersion { name: "shop".into(), ..Default::default() };
    let service =
        crate::engine::Service { object, selector, changed_by: Some("kubectl-create".into()), ..Default::default() };
    world.seen.service = Some(service);
    for _ in 0..8 {
        let decision = world.pass();
        assert!(decision.events.iter().all(|event| event.reason != "SelectorChanged"), "{:?}", decision.events);
    }
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
}

#[rstest::rstest]
#[case::of_all_revisions(&[LABEL_REVISION, LABEL_RELEASE], None, 25)]
#[case::of_a_revision_that_there_is_not(&[], Some("astray"), 0)]
fn a_candidate_service_that_lost_its_revision_is_put_back_while_it_has_a_share(
    #[case] taken_out: &[&str],
    #[case] revision: Option<&str>,
    #[case] observed: i32,
) {
    let mut world = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    world.set_image("v2");
    go(&mut world);
    let service = world.seen.candidate_service.as_mut().unwrap();
    service.selector.retain(|key, _| !taken_out.contains(&key.as_str()));
    service.selector.extend(revision.map(|revision| (LABEL_REVISION.to_owned(), revision.to_owned())));
    service.changed_by = Some("kubectl-edit".into());
    // Two of candidate and two of stable, as a Service selects them that has lost the revision.
    let endpoint = |image: &str| crate::engine::Endpoint { pod: None, revision: Some(world.hash(image)), ready: true };
    let both = [endpoint("v2"), endpoint("v2"), endpoint("v1"), endpoint("v1")];
    let service = world.seen.candidate_service.as_mut().unwrap();
    service.endpoints = if revision.is_none() { both.to_vec() } else { Vec::new() };
    let decision = world.pass();
    let told = decision.events.iter().find(|event| event.reason == "SelectorChanged").unwrap();
    assert!(told.note.contains("kubectl-edit") && told.note.contains("shop-candidate"), "{}", told.note);
    assert_eq!(decision.status.weights.unwrap().observed.candidate, observed);
    go(&mut world);
    let candidate = Selection::Revision(world.hash("v2"));
    assert_eq!(selection(world.seen.candidate_service.as_ref().unwrap()), candidate);
    assert_eq!(world.status().weights.unwrap().observed.candidate, 50);
}

#[rstest::rstest]
#[case::at_rest(false)]
#[case::in_mid_release(true)]
fn the_base_of_a_service_of_the_releases_own_is_put_back(#[case] releasing: bool) {
    let mut world = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    if releasing {
        world.set_image("v2");
        go(&mut world);
    }
    let right = [world.seen.service.clone(), world.seen.candidate_service.clone()];
    for service in [&mut world.seen.service, &mut world.seen.candidate_service].into_iter().flatten() {
        service.selector.insert("app".into(), "other".into());
        service.selector.insert("tier".into(), "web".into());
        service.changed_by = Some("kubectl-edit".into());
    }
    let decision = world.pass();
    let told = decision.events.iter().filter(|event| event.reason == "SelectorChanged");
    assert_eq!(told.count(), 2, "{:?}", decision.events);
    assert_ne!(decision.status.phase, Phase::Invalid, "{}", decision.status.message);
    world.settle();
    let selectors = |services: [Option<crate::engine::Service>; 2]| services.map(|it| it.unwrap().selector);
    assert_eq!(selectors([world.seen.service, world.seen.candidate_service]), selectors(right));
}
