//! What a look at a metric says of the weight that the traffic has.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{error_rate, weight},
    world::World,
};
use crate::{
    api::Duration,
    engine::{Question, Reply},
};

fn well(_: &Question) -> Option<Reply> {
    Some(Reply::Value(0.0))
}

/// v2 at 20%, before it goes on to 60% without a pause; measured every 30 seconds from now on.
fn at_twenty(metric: Value, more: &Value) -> World {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 20}, {"setWeight": 60}]}}), 5);
    let mut analysis = json!({"interval": "30s", "metrics": [metric]});
    analysis.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.edit(|spec| spec.analysis = Some(serde_json::from_value(analysis).unwrap()));
    world.reply = well;
    world.set_image("v2");
    world.settle();
    assert_eq!(weight(&world), 20, "{}", world.status().message);
    world
}

/// The same, where the traffic has its weight only so many seconds later.
fn reached_after(seconds: u64) -> World {
    let mut world = at_twenty(error_rate(&json!({})), &json!({}));
    let at = world.now.plus(Duration::from_secs(seconds));
    if let Some(weights) = world.release.status.as_mut().and_then(|status| status.weights.as_mut()) {
        weights.reached_at = Some(at);
    }
    world.now = at;
    world.settle();
    world
}

/// When the weight is left, in seconds from now.
fn left_after(world: &mut World) -> u64 {
    for second in 0..200 {
        world.settle();
        if weight(world) > 20 {
            return second;
        }
        world.wait(1);
    }
    panic!("{}", world.status().message)
}

#[rstest]
#[case::right_after_it(1, 59)]
#[case::in_the_middle(15, 45)]
#[case::right_before_the_next_look(29, 31)]
#[case::at_the_next_look(30, 30)]
fn a_weight_is_left_after_a_look_that_lies_a_whole_interval_after_it_was_reached(
    #[case] reached: u64,
    #[case] left: u64,
) {
    let mut world = reached_after(reached);
    assert_eq!(left_after(&mut world), left);
}

#[test]
fn a_look_that_does_not_count_for_a_weight_may_fail_the_candidate() {
    let mut world = reached_after(29);
    world.reply = |_| Some(Reply::Value(1.0));
    world.wait(1);
    world.settle();
    assert_eq!(world.status().rollback.unwrap().reason, "AnalysisFailed");
}

#[test]
fn what_was_asked_before_a_look_counts_is_asked_again() {
    let mut world = reached_after(15);
    world.reply = |_| None;
    world.wait(15);
    let early = world.pass().questions.remove(0).id;
    world.wait(14);
    assert_eq!(world.pass().questions[0].id, early);
    world.wait(1);
    assert_ne!(world.pass().questions[0].id, early);
}

#[test]
fn nobody_is_impatient_before_a_look_that_counts() {
    let mut world = at_twenty(error_rate(&json!({})), &json!({"maxDuration": "1s"}));
    world.wait(29);
    let mut touched = world.release.status.clone().unwrap();
    touched.weights.as_mut().unwrap().reached_at = Some(world.now);
    world.release.status = Some(touched);
    for _ in 0..90 {
        world.settle();
        world.wait(1);
    }
    let status = world.status();
    assert_eq!((status.rollback, world.stable().as_str()), (None, "v2"), "{}", status.message);
}
