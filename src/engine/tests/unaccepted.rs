//! A weight counts only when the route is accepted and both Services show pods; what is missing is said.

use serde_json::json;

use super::{
    routed::{canary, go, step, weight},
    world::World,
};
use crate::api::{Action, Phase};

/// A canary whose gateway takes no change of the route any more.
fn refused() -> World {
    let mut world = canary(&json!([{"setWeight": 50}]));
    world.gateway_refuses = true;
    world.edit(|spec| {
        let gateway = spec.traffic.as_mut().unwrap().router.as_mut().unwrap().gateway.as_mut().unwrap();
        gateway.hostnames = vec!["shop.example".into()];
    });
    world
}

#[test]
fn a_gateway_that_never_accepts_is_told_at_once_and_fails_the_release_before_it_has_traffic() {
    let mut world = refused();
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Progressing, "RouteNotAccepted"));
    let said = "HTTPRoute shop is not accepted for Gateway edge by example.com/gateway: NotAllowedByListeners";
    assert!(status.message.contains(said), "{}", status.message);
    assert!(status.next_action.contains("describe httproute shop"), "{}", status.next_action);
    world.wait(600);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "RouteNotAccepted"));
    assert!(status.message.contains("NotAllowedByListeners"), "{}", status.message);
    assert_eq!((weight(&world), world.condition("Ready").as_str()), (0, "False"));
}

#[test]
fn nobody_who_has_looked_at_the_route_is_told_without_an_alarm() {
    let mut world = refused();
    world.settle();
    world.seen.route.as_mut().unwrap().parents.clear();
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!(status.reason, "Preparing");
    assert!(status.message.contains("nobody has accepted it for Gateway edge yet"), "{}", status.message);
}

#[test]
fn a_route_that_is_refused_at_rest_is_told_as_that() {
    let mut world = refused();
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Healthy, "RouteNotAccepted"));
    assert!(status.message.contains("by example.com/gateway: NotAllowedByListeners"), "{}", status.message);
    assert!(status.next_action.contains("describe httproute shop"), "{}", status.next_action);
    assert_eq!(world.condition("Ready"), "Unknown");
    world.gateway_refuses = false;
    world.write_route(|_| {});
    go(&mut world);
    assert_eq!((world.status().reason.as_str(), world.condition("Ready").as_str()), ("", "True"));
}

/// Another Gateway in the spec, beside a new template.
fn attach(world: &mut World, name: &str) {
    world.edit(|spec| {
        let gateway = spec.traffic.as_mut().unwrap().router.as_mut().unwrap().gateway.as_mut().unwrap();
        gateway.parent_refs = serde_json::from_value(json!([{"name": name}])).unwrap();
    });
}

fn parents(world: &World) -> Vec<String> {
    let parents = world.seen.route.as_ref().unwrap().spec["parentRefs"].as_array().unwrap();
    parents.iter().map(|parent| parent["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_wrong_parent_takes_no_request_away_and_is_told_after_the_rollback_until_it_is_put_right() {
    let mut world = canary(&json!([{"setWeight": 50}]));
    attach(&mut world, "nowhere");
    world.set_image("v2");
    for _ in 0..130 {
        world.settle();
        assert_eq!(parents(&world), ["nowhere", "edge"], "requests go on to come by what was accepted");
        world.wait(5);
    }
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "RouteNotAccepted"));
    let said = format!(
        "{} serves by what was accepted before, but the route is not what the spec wants: HTTPRoute shop: nobody has accepted it for Gateway nowhere yet",
        world.hash("v1")
    );
    assert!(status.message.contains(&said), "{}", status.message);
    assert!(status.next_action.contains("put spec.traffic.router.gateway.parentRefs right"), "{}", status.next_action);
    assert_eq!((world.condition("Ready").as_str(), world.condition("Available").as_str()), ("False", "True"));

    // Without any command.
    attach(&mut world, "other");
    go(&mut world);
    let status = world.status();
    assert_eq!((parents(&world), status.phase), (vec!["other".to_owned()], Phase::RolledBack));
    assert!(status.message.ends_with(&format!("{} serves", world.hash("v1"))), "{}", status.message);
    assert!(status.next_action.starts_with("apply a template that fixes it"), "{}", status.next_action);
    world.say(Action::Retry, |_| {});
    go(&mut world);
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}

#[test]
fn a_route_moves_to_another_gateway_that_has_accepted_it_first() {
    let mut world = canary(&json!([{"setWeight": 50}]));
    attach(&mut world, "other");
    let mut seen = vec![parents(&world)];
    world.settle_watching(|world| seen.push(parents(world)));
    seen.dedup();
    assert_eq!(seen, [vec!["edge"], vec!["other", "edge"], vec!["other"]]);
}

#[test]
fn a_stable_that_no_request_reaches_is_not_said_to_serve() {
    let mut world = refused();
    world.set_image("v2");
    world.settle();
    world.wait(600);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, world.condition("Available").as_str()), (Phase::RolledBack, "False"));
    let said =
        format!("{} has its pods, but no request comes to it by the route: HTTPRoute shop is not", world.hash("v1"));
    assert!(status.message.contains(&said), "{}", status.message);
    assert!(status.next_action.contains("parentRefs right"), "{}", status.next_action);
}

#[test]
fn a_fix_does_not_wait_for_pods_of_a_stable_that_has_none() {
    let mut world = canary(&json!([{"setWeight": 50}]));
    world.broken.push("v1".into());
    world.settle();
    world.set_image("v2");
    for _ in 0..20 {
        world.settle();
        world.wait(5);
    }
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}

#[rstest::rstest]
#[case::of_stable("shop")]
#[case::of_the_candidate("shop-candidate")]
fn a_weight_is_not_reached_before_both_services_show_pods(#[case] empty: &str) {
    let mut world = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    world.set_image("v2");
    for _ in 0..20 {
        world.pass();
        if step(&world) == "2/4 setWeight 50" && weight(&world) == 50 {
            break;
        }
    }
    let (endpoints, wait) = (
        |world: &mut World| {
            let service = match empty {
                "shop" => &mut world.seen.service,
                _ => &mut world.seen.candidate_service,
            };
            std::mem::take(&mut service.as_mut().unwrap().endpoints)
        },
        6,
    );
    world.wait(wait);
    let kept = endpoints(&mut world);
    let decision = crate::engine::decide(&world.release, &world.seen, world.now);
    assert_eq!(decision.status.step.unwrap().summary, "2/4 setWeight 50");
    let said = format!("Service {empty} shows no ready pod");
    assert!(decision.status.message.contains(&said), "{}", decision.status.message);
    let service = if empty == "shop" { &mut world.seen.service } else { &mut world.seen.candidate_service };
    service.as_mut().unwrap().endpoints = kept;
    go(&mut world);
    assert_eq!(step(&world), "3/4 pause");
}
