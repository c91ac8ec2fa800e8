//! Metrics that no waiting helps: the provider refuses the query, or the value is no number.

use serde_json::json;

use super::{
    analysed::{error_rate, minutes, weight, with_metric},
    world::{World, is_before_requests},
};
use crate::{
    api::{Action, Phase},
    engine::{Ask, Measure, Question, Reply},
};

/// Refuses the broken query, and is content with every other.
fn refusing(question: &Question) -> Option<Reply> {
    let Ask::Metric { measure, .. } = &question.ask else { return None };
    Some(match &**measure {
        Measure::Value { query, .. } if query == "sum(" => {
            Reply::Refused("the query is refused: 1:5: parse error".into())
        }
        _ => Reply::Value(0.0),
    })
}

fn with_query(world: &mut World, query: &str) {
    let metric = error_rate(&json!({"prometheus": {"query": query}}));
    world.edit(|spec| {
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": [metric]})).unwrap();
    });
}

#[test]
fn a_query_that_is_refused_holds_and_says_that_only_another_one_helps() {
    let mut world = with_metric(error_rate(&json!({})));
    world.edit(|spec| {
        let strategy = json!({"canary": {"steps": [{"setWeight": 25}, {"setWeight": 50}]}});
        spec.strategy = serde_json::from_value(strategy).unwrap();
    });
    with_query(&mut world, "sum(");
    // As if it was broken after the first weight was given.
    world.reply = |question| is_before_requests(question).then_some(Reply::Value(0.0));
    world.set_image("v2");
    world.settle();
    world.reply = refusing;
    minutes(&mut world, 5);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "AnalysisInconclusive"), "{}", status.message);
    let told = "metric error-rate is inconclusive: Prometheus default: the query is refused: 1:5: parse error: correct the metric's prometheus.query (max 0.05)";
    assert!(status.message.contains(told), "{}", status.message);
    let next = "correct the metric, then kubectl srel -n default abort shop and kubectl srel -n default retry shop, which takes the corrected one over; or kubectl srel -n default skip shop";
    assert_eq!(status.next_action, next);
    // The release has the metric with which it began.
    with_query(&mut world, "sum(errors)");
    minutes(&mut world, 2);
    assert_eq!(world.phase(), Phase::Paused, "{}", world.status().message);
    world.say(Action::Abort, |_| {});
    minutes(&mut world, 2);
    assert_eq!((world.phase(), weight(&world)), (Phase::RolledBack, 0), "{}", world.status().message);
    world.say(Action::Retry, |_| {});
    minutes(&mut world, 5);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn once_it_is_no_longer_refused_it_goes_on_by_itself() {
    let mut world = with_metric(error_rate(&json!({})));
    world.reply = |_| Some(Reply::Value(0.0));
    world.set_image("v2");
    world.settle();
    world.reply = |_| Some(Reply::Refused("the query has 2 series, not one".into()));
    minutes(&mut world, 11);
    assert!(world.status().verdicts[0].refused, "{}", world.status().message);
    world.reply = |_| Some(Reply::ProviderError("no connection".into()));
    minutes(&mut world, 1);
    assert!(world.status().next_action.starts_with("it goes on by itself"), "{}", world.status().next_action);
    world.reply = |_| Some(Reply::Value(0.0));
    minutes(&mut world, 1);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}
