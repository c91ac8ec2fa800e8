//! Somebody else's hand in routes and Services: put right, told by name, never fought in a loop.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff};
use serde_json::json;

use super::{
    routed::{canary, go, requests_find_pods, weight_of, with_users_route},
    world::World,
};
use crate::{
    api::{Action, Duration, LABEL_RELEASE, LABEL_REVISION, Phase, Timestamp},
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

/// Ready pods behind the candidate's Service.
fn behind(world: &World) -> usize {
    world.seen.candidate_service.as_ref().unwrap().endpoints.iter().filter(|endpoint| endpoint.ready).count()
}

/// Who has the candidate's Service.
fn led_to(world: &World) -> Selection {
    selection(world.seen.candidate_service.as_ref().unwrap())
}

/// A rollback from 30% against a tool that applies 50%: the gateway follows that, and stable's pods answer.
fn contested_rollback() -> World {
    let mut world = with_users_route();
    world.set_image("v2");
    go(&mut world);
    world.say(Action::Abort, |_| {});
    healed(&mut world, [Some(50), Some(50)], 4);
    world.wait(6);
    healed(&mut world, [Some(50), Some(50)], 2);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "RouteContested"));
    assert_eq!((status.route.unwrap().served_weight, status.weights.unwrap().observed.candidate), (50, 0));
    assert_eq!(led_to(&world), Selection::Revision(world.hash("v1")));
    world
}

#[rstest::rstest]
#[case::another_number_of_replicas(|world: &mut World| world.edit(|spec| spec.replicas = Some(5)))]
#[case::a_person_who_says_retry(|world: &mut World| world.say(Action::Retry, |_| {}))]
#[case::the_tool_itself(|world: &mut World| apply(world, [Some(0), Some(100)]))]
fn what_ends_a_contest_empties_no_service_that_requests_may_still_come_to(#[case] end: fn(&mut World)) {
    let mut world = contested_rollback();
    end(&mut world);
    for _ in 0..4 {
        world.pass();
        assert!(behind(&world) >= 2, "a gateway may send it half of the requests: {}", world.status().message);
    }
    let route = world.status().route.unwrap();
    assert_eq!((route.weight, route.served_weight, route.possible_weight), (Some(0), 50, 50));
    // As the tool did before, and then not any more.
    for _ in 0..3 {
        healed(&mut world, [Some(50), Some(50)], 3);
        assert!(behind(&world) >= 2);
    }
    apply(&mut world, [Some(0), Some(100)]);
    go(&mut world);
    assert_eq!((world.phase(), led_to(&world), world.pods("v2")), (Phase::RolledBack, Selection::Nothing, 0));
    assert_eq!(world.status().route.unwrap().possible_weight, 0);
}

/// A rollback whose requests are all stable's, and whose candidate's connections end within 30 s.
fn draining() -> World {
    let mut world = with_users_route();
    world.set_image("v2");
    go(&mut world);
    world.say(Action::Abort, |_| {});
    world.settle();
    world.wait(5);
    world.settle();
    assert_eq!(drains(&world), Some(world.now.plus(Duration::from_secs(30))));
    world
}

fn drains(world: &World) -> Option<Timestamp> {
    world.status().rollback.unwrap().drain_until
}

#[test]
fn requests_by_somebody_elses_weight_find_stable_while_a_candidate_drains() {
    let mut world = draining();
    let (until, stable) = (drains(&world), Selection::Revision(world.hash("v1")));
    world.wait(29);
    world.write_route(|spec| spec["rules"][1]["backendRefs"][0]["weight"] = json!(70));
    world.seen.route.as_mut().unwrap().changed_by = Some(("kubectl-edit".into(), false));
    for _ in 0..4 {
        world.pass();
        assert_eq!((led_to(&world), drains(&world)), (stable.clone(), until));
        world.wait(1);
    }
    assert_eq!(world.status().route.unwrap().weight, Some(0));
    world.wait(2);
    world.settle();
    assert_eq!((world.phase(), led_to(&world), world.pods("v2")), (Phase::RolledBack, Selection::Nothing, 0));
}

#[test]
fn a_gateway_that_does_not_take_what_was_put_right_is_told_and_waited_for() {
    let mut world = draining();
    world.gateway_refuses = true;
    world.write_route(|spec| spec["rules"][1]["backendRefs"][0]["weight"] = json!(70));
    world.seen.route.as_mut().unwrap().changed_by = Some(("kubectl-edit".into(), false));
    world.settle();
    world.wait(600);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "RouteNotAccepted"), "{}", status.message);
    assert_eq!(led_to(&world), Selection::Revision(world.hash("v1")));
    world.gateway_refuses = false;
    world.write_route(|_| {});
    go(&mut world);
    assert_eq!((world.phase(), led_to(&world)), (Phase::RolledBack, Selection::Nothing));
}

#[test]
fn a_candidate_drains_from_when_the_last_request_has_left_it() {
    let mut world = draining();
    let candidate = world.hash("v2");
    world.wait(20);
    let service = world.seen.service.as_mut().unwrap();
    service.selector.insert(LABEL_REVISION.into(), candidate.clone());
    service.endpoints = vec![crate::engine::Endpoint { pod: None, revision: Some(candidate), ready: true }];
    world.pass();
    assert_eq!(drains(&world), None, "{}", world.status().message);
    world.settle();
    assert_eq!(drains(&world), Some(world.now.plus(Duration::from_secs(30))));
    world.wait(29);
    world.settle();
    assert_eq!(world.pods("v2"), 2);
    world.wait(1);
    world.settle();
    assert_eq!((world.phase(), world.pods("v2")), (Phase::RolledBack, 0));
}

#[test]
fn a_candidate_without_a_share_is_not_let_go_while_a_route_that_came_back_may_lead_to_it() {
    let mut world = with_users_route();
    world.edit(|spec| {
        let strategy = json!({"canary": {"steps": [{"pause": {}}, {"setWeight": 30}]}});
        spec.strategy = Some(serde_json::from_value(strategy).unwrap());
    });
    world.set_image("v2");
    go(&mut world);
    let route = world.seen.route.take();
    world.pass();
    world.seen.route = route;
    // Nobody can be named.
    world.write_route(|spec| {
        for backend in spec["rules"][1]["backendRefs"].as_array_mut().unwrap() {
            backend["weight"] = json!(50);
        }
    });
    world.pass();
    world.say(Action::Abort, |_| {});
    world.settle();
    assert_eq!((world.status().route.unwrap().weight, behind(&world)), (Some(0), 2));
    world.wait(5);
    world.settle();
    assert_eq!((world.phase(), world.pods("v2")), (Phase::RolledBack, 0));
}

#[test]
fn requests_by_somebody_elses_weight_find_stable_where_the_candidates_service_has_no_pod() {
    let mut world = with_users_route();
    assert_eq!(led_to(&world), Selection::Nothing);
    let stable = Selection::Revision(world.hash("v1"));
    for image in ["v1", "v2"] {
        world.set_image(image);
        healed(&mut world, [Some(50), Some(50)], 1);
        for _ in 0..4 {
            assert_eq!(led_to(&world), stable, "until the gateway follows: {}", world.status().message);
            world.pass();
        }
        world.say(Action::Retry, |_| {});
        go(&mut world);
    }
    assert_eq!((world.phase(), led_to(&world)), (Phase::Paused, Selection::Revision(world.hash("v2"))));
}

#[test]
fn a_way_back_that_is_contested_late_does_not_turn_round_to_the_candidate() {
    let mut world = with_users_route();
    world.set_image("v2");
    go(&mut world);
    world.gateway_refuses = true;
    world.say(Action::Abort, |_| {});
    world.settle();
    world.wait(600);
    world.settle();
    assert_eq!((world.phase(), world.pods("v2")), (Phase::Halted, 2), "{}", world.status().message);
    world.set_image("v3");
    for _ in 0..6 {
        healed(&mut world, [Some(50), Some(50)], 1);
        assert_eq!(world.selected(), Selection::Revision(world.hash("v1")), "{}", world.status().message);
    }
    assert_eq!(led_to(&world), Selection::Revision(world.hash("v1")));
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

#[test]
fn a_deletion_does_not_wait_for_a_route_that_cannot_be_put_right() {
    let mut world = with_users_route();
    healed(&mut world, [Some(50), Some(50)], 6);
    assert_eq!(world.status().reason, "RouteContested");
    world.release.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    world.edit(|_| {});
    world.log.clear();
    healed(&mut world, [Some(50), Some(50)], 6);
    assert_eq!((&world.release.metadata.finalizers, lost(&world)), (&None, 0), "{}", world.status().message);
    assert!(writes(&world) <= 2, "{} writes", writes(&world));
}

#[test]
fn a_deployment_has_its_pods_behind_both_services_again_where_a_route_cannot_be_put_right() {
    let mut world = super::way_back::adopted_behind_a_users_route();
    let again = |world: &mut World| {
        apply(world, [Some(50), Some(50)]);
        world.pass();
        assert_eq!(lost(world), 0, "{}", world.status().message);
    };
    (0..6).for_each(|_| again(&mut world));
    assert_eq!(world.status().reason, "RouteContested");
    world.release.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    for _ in 0..12 {
        // As long as the EndpointSlices of the other Service lag behind.
        let mut lagging = world.seen.clone();
        let endpoints = &mut lagging.candidate_service.as_mut().unwrap().endpoints;
        endpoints.retain(|endpoint| endpoint.revision.is_some());
        let decision = crate::engine::decide(&world.release, &lagging, world.now);
        let lets_go = |effect: &Effect| matches!(effect, Effect::DeleteReplicaSet { .. });
        assert!(!decision.after.iter().any(lets_go), "{:?}", decision.after);
        again(&mut world);
    }
    let left = (&world.release.metadata.finalizers, world.seen.revisions.len());
    assert_eq!(left, (&None, 0), "{}", world.status().message);
}
