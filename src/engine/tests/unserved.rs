//! After the promotion: nobody serves any more.

use rstest::rstest;

use super::observed::{Touch, blue_green, drain, kinds, lose_readiness, observed_beside, seconds};
use crate::{
    api::{Duration, Phase},
    engine::Pod,
};

/// No pod of v2 is ready any more, by its probe.
fn none_is_ready(image: &str, pod: &mut Pod) {
    if image == "v2" {
        lose_readiness(pod);
    }
}

#[rstest]
#[case::without_pods_of_the_previous(None, none_is_ready)]
#[case::with_some_that_are_ready(Some("30m"), |image: &str, pod: &mut Pod| if image == "v2" || pod.name.ends_with("-1") {
    lose_readiness(pod);
})]
fn where_nobody_tells_whose_fault_it_is_lost_readiness_goes_back_after_a_minute(
    #[case] kept: Option<&str>,
    #[case] touch: Touch,
) {
    let mut world = observed_beside(blue_green(), kept);
    drain(&mut world);
    assert_eq!(world.pods("v1"), if kept.is_some() { 3 } else { 0 });
    world.touch = touch;
    world.settle();
    world.wait(59);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "PodsUnavailable"), "{}", status.message);
    let told = "0 of 3 pods are available; pod ";
    assert!(status.message.contains(told) && status.message.contains(": NotReady: no pod "), "{}", status.message);
    assert_eq!(world.pass().wake, Some(world.now.plus(Duration::from_secs(1))));
    world.wait(1);
    // Their pods come first.
    for _ in 0..3 {
        world.pass();
    }
    assert_eq!((world.phase(), world.pods("v1"), world.pods("v2")), (Phase::RollingBack, 3, 3));
    world.touch = |_, _| {};
    drain(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "NotReady"), "{}", status.message);
    assert_eq!((world.stable().as_str(), world.pods("v1"), world.pods("v2")), ("v1", 3, 0));
}

#[test]
fn readiness_that_comes_back_within_a_minute_takes_nothing_back() {
    let mut world = observed_beside(blue_green(), None);
    drain(&mut world);
    for _ in 0..3 {
        world.touch = none_is_ready;
        world.settle();
        world.wait(45);
        world.settle();
        world.touch = |_, _| {};
        world.settle();
        world.wait(5);
    }
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::Observing, "v2"), "{}", status.message);
    assert_eq!(status.stable.unwrap().problem, None);
}

#[test]
fn an_observation_does_not_end_while_nobody_is_ready() {
    let mut world = observed_beside(blue_green(), None);
    drain(&mut world);
    let until = world.status().observation.unwrap().until;
    world.now = until.minus(Duration::from_secs(20));
    world.touch = none_is_ready;
    seconds(&mut world, 55);
    assert_eq!((world.phase(), kinds(&world).last().unwrap().as_str()), (Phase::Observing, "Promoted"));
    seconds(&mut world, 10);
    assert_eq!((world.stable().as_str(), world.status().rollback.unwrap().reason.as_str()), ("v1", "NotReady"));
}

#[test]
fn an_observation_at_whose_end_nobody_is_available_is_no_success() {
    let mut world = observed_beside(blue_green(), None);
    world.touch = |image, pod| {
        if image == "v2" {
            (pod.ready, pod.unschedulable) = (false, Some("0/1 nodes".into()));
        }
    };
    seconds(&mut world, 1800);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "PodsUnavailable"), "{}", status.message);
    assert_eq!(kinds(&world), ["Promoted", "Unproven"]);
    seconds(&mut world, 1800);
    let status = world.status();
    assert_eq!((status.phase, status.observation, status.rollback), (Phase::Healthy, None, None), "{}", status.message);
    assert_eq!(kinds(&world), ["Unproven", "Unproven"]);
    world.touch = |_, _| {};
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Healthy, "Unproven"), "{}", status.message);
    assert!(status.message.ends_with(" is available"), "{}", status.message);
}
