//! The way back where something lies on it: a quota, a maintenance page, a Deployment that takes over.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff};
use serde_json::json;

use super::{
    routed::{go, is_maintained, maintained, never_both, requests_find_pods, run, weight},
    world::World,
};
use crate::{
    api::{Action, Duration, Phase},
    engine::{Route, Selection, selection},
};

/// At 75% over a stable that keeps one pod of four.
fn shrunk() -> World {
    let strategy =
        json!({"canary": {"dynamicStableScale": {"atLeast": 1}, "steps": [{"setWeight": 75}, {"pause": {}}]}});
    let mut world = run(&strategy, &json!({"gateway": {"parentRefs": [{"name": "edge"}]}}));
    world.set_image("v2");
    go(&mut world);
    assert_eq!((world.pods("v1"), world.pods("v2"), weight(&world)), (1, 3, 75));
    world
}

#[test]
fn what_a_quota_lets_stable_take_goes_back_and_makes_room_for_the_rest() {
    let mut world = shrunk();
    world.quota = Some(5);
    world.say(Action::Abort, |_| {});
    world.settle_watching(requests_find_pods);
    let status = world.status();
    assert_eq!((status.phase, weight(&world)), (Phase::RollingBack, 50), "as much as two pods of four take");
    for said in ["cannot take all of it yet", "75% is left", "exceeded quota"] {
        assert!(status.message.contains(said), "{said}: {}", status.message);
    }
    assert!(status.next_action.contains("describe replicaset"), "{}", status.next_action);
    go(&mut world);
    assert_eq!((world.phase(), weight(&world), world.pods("v1")), (Phase::RolledBack, 0, 4));
}

#[test]
fn a_quota_that_lets_stable_take_nothing_more_is_told_at_once_and_stops_at_the_deadline() {
    let mut world = shrunk();
    world.quota = Some(4);
    world.say(Action::Abort, |_| {});
    world.settle();
    assert!(world.status().message.contains("exceeded quota"), "{}", world.status().message);
    world.wait(600);
    world.settle_watching(requests_find_pods);
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "StableUnavailable"));
    world.quota = None;
    go(&mut world);
    assert_eq!((world.phase(), weight(&world)), (Phase::RolledBack, 0));
}

#[rstest::rstest]
#[case::over_a_route(Some(json!({"gateway": {"parentRefs": [{"name": "edge"}]}})))]
#[case::by_selector(None)]
fn an_undo_that_a_quota_holds_up_serves_by_both_until_stable_is_whole(#[case] router: Option<serde_json::Value>) {
    let strategy = json!({"blueGreen": {}});
    let mut world = match router {
        Some(router) => run(&strategy, &router),
        None => World::healthy(strategy, 4),
    };
    world.edit(|spec| spec.traffic.as_mut().unwrap().scale_down_delay = Duration::default());
    world.set_image("v2");
    go(&mut world);
    world.wait(3600);
    go(&mut world);
    assert_eq!((world.stable(), world.pods("v1")), ("v2".into(), 0));
    world.quota = Some(6);
    world.say(Action::Undo, |_| {});
    let both = std::cell::Cell::new(false);
    for _ in 0..30 {
        world.settle_watching(|world| {
            let ready = world.seen.service.as_ref().unwrap().endpoints.len();
            assert!(ready >= 4, "{ready} pods serve");
            both.set(both.get() || world.selected() == Selection::Release);
        });
        world.wait(5);
    }
    assert!(both.get(), "what stable can take, it takes");
    assert_eq!((world.phase(), world.selected()), (Phase::RolledBack, Selection::Revision(world.hash("v1"))));
}

/// The Service goes from one version to the other behind the page alone.
fn switched_behind_the_page(world: &mut World, passes: usize) {
    let mut was = (world.selected(), is_maintained(world));
    for _ in 0..passes {
        world.pass();
        never_both(world);
        let is = (world.selected(), is_maintained(world));
        assert!(is.0 == was.0 || (was.1 && is.1), "{:?} to {:?} without the page", was.0, is.0);
        was = is;
        world.wait(1);
    }
}

#[test]
fn an_undo_with_maintenance_goes_behind_the_page_as_the_way_forward_does() {
    let mut world = maintained(true);
    world.edit(|spec| spec.rollback.keep_previous = Some(Duration::from_secs(3600)));
    world.set_image("v2");
    switched_behind_the_page(&mut world, 60);
    assert_eq!((world.stable(), is_maintained(&world)), ("v2".into(), false));
    world.say(Action::Undo, |_| {});
    world.pass();
    world.pass();
    assert!(is_maintained(&world), "{}", world.status().message);
    switched_behind_the_page(&mut world, 60);
    assert_eq!((world.phase(), is_maintained(&world)), (Phase::RolledBack, false));
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
}

#[test]
fn an_abort_at_any_moment_of_a_switch_behind_the_page_stays_behind_it() {
    for passes in 1..30 {
        let mut world = maintained(true);
        world.edit(|spec| spec.rollback.keep_previous = Some(Duration::from_secs(3600)));
        world.set_image("v2");
        switched_behind_the_page(&mut world, passes);
        world.say(Action::Abort, |_| {});
        switched_behind_the_page(&mut world, 60);
        assert!(!is_maintained(&world), "after {passes} passes");
    }
}

#[test]
fn a_gateway_that_does_not_take_the_page_holds_up_an_undo_until_the_deadline_only() {
    let mut world = maintained(true);
    world.edit(|spec| spec.rollback.keep_previous = Some(Duration::from_secs(3600)));
    world.set_image("v2");
    switched_behind_the_page(&mut world, 60);
    world.gateway_refuses = true;
    world.say(Action::Undo, |_| {});
    go(&mut world);
    assert_eq!(world.selected(), Selection::Revision(world.hash("v2")));
    world.wait(600);
    world.settle();
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
}

/// A Deployment of three pods, adopted, whose two Services a route of the user's names.
pub fn adopted_behind_a_users_route() -> World {
    let mut world = super::world::adopted();
    world.edit(|spec| {
        let traffic = spec.traffic.as_mut().unwrap();
        traffic.candidate_service = Some("shop-candidate".into());
        traffic.router = Some(serde_json::from_value(json!({"httpRoute": {"name": "edge"}})).unwrap());
    });
    world.seen.route = Some(Route { spec: super::routed::users_route().spec, ..Route::default() });
    world.write_route(|_| {});
    settle_for_a_minute(&mut world);
    assert_eq!(world.phase(), Phase::Healthy);
    world
}

fn settle_for_a_minute(world: &mut World) {
    for _ in 0..12 {
        world.settle();
        world.wait(5);
    }
}

#[test]
fn a_route_of_the_users_leads_to_services_that_are_still_there_when_the_deployment_has_its_pods_back() {
    let mut world = adopted_behind_a_users_route();
    assert_eq!((world.phase(), world.outliving.as_slice()), (Phase::Healthy, &["shop-candidate".to_owned()][..]));
    let workload = world.seen.workload.as_mut().unwrap();
    workload.template = crate::engine::Template::new(super::world::template("v2"));
    workload.generation += 1;
    settle_for_a_minute(&mut world);
    world.release.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    settle_for_a_minute(&mut world);
    assert_eq!(world.release.metadata.finalizers, None, "{}", world.status().message);
    let route = world.seen.route.as_ref().unwrap();
    let shares = ["shop", "shop-candidate"].map(|service| super::routed::weight_of(route, service));
    assert_eq!(shares, [100, 0]);
    // If somebody shares requests with it again, they find the Deployment's pods.
    assert_eq!(selection(world.seen.candidate_service.as_ref().unwrap()), Selection::Original);
}
