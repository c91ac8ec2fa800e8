//! Candidates with requests whose pods stop being ready: a failing readiness probe takes the release back,
//! and in any case no request goes to a Service without endpoints.

use rstest::rstest;
use serde_json::{Value, json};

use super::world::{World, template};
use crate::{
    api::{Action, Phase},
    engine::{Effect, Pod},
};

/// v2 at 50% by a route, before a pause without an end.
fn at_half(automatic: bool) -> World {
    let mut world = World::of(json!({
        "replicas": 4,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": template("v1"),
        "traffic": {
            "service": "shop", "candidateService": "shop-candidate",
            "router": {"gateway": {"parentRefs": [{"name": "edge"}]}},
        },
        "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
        "rollback": {"automatic": automatic},
    }));
    go(&mut world);
    world.set_image("v2");
    go(&mut world);
    assert_eq!((weight(&world), world.pods("v2")), (50, 2), "{}", world.status().message);
    world.log.clear();
    world
}

fn go(world: &mut World) {
    for _ in 0..30 {
        world.settle();
        world.wait(5);
    }
}

fn weight(world: &World) -> i64 {
    let route = world.seen.route.as_ref().unwrap();
    route.spec.pointer("/rules/0/backendRefs/1/weight").and_then(Value::as_i64).unwrap()
}

fn desired(world: &World) -> i32 {
    world.status().weights.unwrap().desired.candidate
}

/// What [`World::touch`] is to do with the pods of an image.
type Touch = fn(&str, &mut Pod);

fn lose(pod: &mut Pod) {
    (pod.ready, pod.lost_readiness) = (false, true);
}

const PROBE_OF_ALL: Touch = |image, pod| {
    if image == "v2" {
        lose(pod);
    }
};
const PROBE_OF_ONE: Touch = |image, pod| {
    if image == "v2" && pod.name.ends_with("-0") {
        lose(pod);
    }
};
const ONE_PROBE_ONE_RESTART: Touch = |image, pod| {
    if image == "v2" {
        pod.ready = false;
        pod.lost_readiness = pod.name.ends_with("-1");
    }
};
const RESTART_OF_ALL: Touch = |image, pod| pod.ready = image != "v2";
const PROBE_ALSO_OF_A_STABLE_POD: Touch = |image, pod| {
    if image == "v2" || pod.name.ends_with("-0") {
        lose(pod);
    }
};
const PROBE_OF_EVERYBODY: Touch = |_, pod| lose(pod);

#[rstest]
#[case::all(PROBE_OF_ALL)]
#[case::the_last_one(ONE_PROBE_ONE_RESTART)]
fn a_candidate_that_fails_its_readiness_probe_goes_back_at_once(#[case] touch: Touch) {
    let mut world = at_half(true);
    world.touch = touch;
    world.settle();
    // Before any time has passed.
    assert_eq!((weight(&world), world.status().reason.as_str()), (0, "NotReady"), "{}", world.status().message);
    assert!(matches!(world.log[0], Effect::ReplaceRoute { .. }), "{:?}", world.log[0]);
    go(&mut world);
    let status = world.status();
    assert_eq!((status.phase, world.stable(), world.pods("v2")), (Phase::RolledBack, "v1".into(), 0));
    let message = status.rollback.unwrap().message;
    let hash = world.hash("v2");
    assert!(message.starts_with(&format!("no pod of {hash} is ready any more: the readiness probe of pod {hash}-")));
}

#[test]
fn the_same_without_a_route() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}), 4);
    world.set_image("v2");
    world.settle();
    world.touch = PROBE_OF_ALL;
    world.settle();
    world.wait(30);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str(), world.pods("v1")), (Phase::RolledBack, "NotReady", 4));
}

#[test]
fn as_long_as_one_pod_is_ready_it_is_no_failure() {
    let mut world = at_half(true);
    world.touch = PROBE_OF_ONE;
    go(&mut world);
    assert_eq!((world.phase(), weight(&world)), (Phase::Paused, 50), "{}", world.status().message);
}

#[rstest]
#[case::its_containers_start_again(RESTART_OF_ALL)]
#[case::stable_suffers_too(PROBE_ALSO_OF_A_STABLE_POD)]
fn without_a_pod_its_requests_are_stables_until_one_is_back(#[case] touch: Touch) {
    let mut world = at_half(true);
    world.touch = touch;
    world.settle();
    assert_eq!((weight(&world), desired(&world)), (0, 50));
    go(&mut world);
    assert_eq!((world.phase(), weight(&world), desired(&world)), (Phase::Paused, 0, 50));
    assert!(
        world.status().message.contains(" is not ready: look at its readiness probe"),
        "{}",
        world.status().message
    );
    world.touch = |_, _| {};
    go(&mut world);
    assert_eq!((world.phase(), weight(&world), desired(&world)), (Phase::Paused, 50, 50));
    world.say(Action::Promote, |_| {});
    go(&mut world);
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn where_nobody_is_ready_nothing_is_moved() {
    let mut world = at_half(true);
    world.touch = PROBE_OF_EVERYBODY;
    go(&mut world);
    assert_eq!((world.phase(), weight(&world), desired(&world)), (Phase::Paused, 50, 50));
}

#[test]
fn without_automatic_rollback_it_is_held_and_has_no_requests() {
    let mut world = at_half(false);
    world.touch = PROBE_OF_ALL;
    go(&mut world);
    assert_eq!((world.phase(), world.status().reason.as_str(), weight(&world)), (Phase::Paused, "NotReady", 0));
}
