//! Metrics for which a strategy leaves no time: the release is promoted without them, and says so.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    analysed::{error_rate, minutes, with_metric},
    world::{World, is_before_requests},
};
use crate::{
    api::{Action, Phase},
    engine::Reply,
};

/// v2 on its way by this strategy, under these metrics and with these fields of the spec beside them, until it is over.
/// The warnings.
fn promoted(strategy: Value, metrics: &Value, observation: Option<Value>) -> (World, Vec<String>) {
    let mut world = with_metric(error_rate(&json!({})));
    world.edit(|spec| {
        spec.strategy = serde_json::from_value(strategy).unwrap();
        spec.analysis = serde_json::from_value(json!({"interval": "30s", "metrics": metrics})).unwrap();
        spec.observation = observation.map(|it| serde_json::from_value(it).unwrap());
    });
    world.reply = |_| Some(Reply::Value(0.0));
    world.set_image("v2");
    let mut warned = Vec::new();
    for _ in 0..120 {
        for _ in 0..2 {
            let events = world.pass().events.into_iter().filter(|event| event.warning);
            warned.extend(events.map(|event| event.reason));
        }
        world.wait(2);
    }
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
    (world, warned)
}

#[rstest]
#[case::a_switch(json!({"blueGreen": {}}))]
#[case::no_steps(json!({"canary": {}}))]
#[case::no_weight(json!({"canary": {"steps": [{"pause": {"duration": "10s"}}]}}))]
fn a_release_that_left_no_time_to_measure_says_so(#[case] strategy: Value) {
    let metrics = json!([error_rate(&json!({"name": "err"})), error_rate(&json!({"name": "dry", "dryRun": true}))]);
    let (mut world, warned) = promoted(strategy, &metrics, None);
    assert_eq!(warned, ["Unproven"]);
    let told = "it was promoted, and metric err was never measured: add observation: {duration: 1h}, or to a canary a setWeight before the promotion";
    let status = world.status();
    assert_eq!(status.reason, "Unproven");
    assert!(status.message.ends_with(told), "{}", status.message);
    assert!(status.next_action.starts_with("look at the release by other means"), "{}", status.next_action);
    let noted: Vec<_> = status.timeline.iter().filter(|entry| entry.kind == "Unproven").collect();
    assert_eq!(noted.iter().map(|entry| entry.message.as_str()).collect::<Vec<_>>(), [told]);
    let condition = status.conditions.iter().find(|it| it.type_ == "AnalysisPassed").unwrap();
    let said = (condition.status.as_str(), condition.reason.as_str(), condition.message.as_str());
    assert_eq!(said, ("Unknown", "NotMeasured", told));
    assert_eq!(world.condition("Ready"), "True", "it serves");
    // The next release begins anew.
    world.edit(|spec| spec.analysis = None);
    world.set_image("v3");
    minutes(&mut world, 2);
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Healthy, ""), "{}", world.status().message);
}

#[rstest]
#[case::observed(json!({"blueGreen": {}}), json!([error_rate(&json!({}))]), Some(json!({"duration": "1m"})))]
#[case::a_weight(json!({"canary": {"steps": [{"setWeight": 50}]}}), json!([error_rate(&json!({}))]), None)]
#[case::seen(json!({"blueGreen": {}}), json!([{"name": "pods", "workload": {}}]), None)]
#[case::a_dry_run(json!({"blueGreen": {}}), json!([error_rate(&json!({"dryRun": true}))]), None)]
fn one_that_was_measured_or_need_not_be_says_nothing(
    #[case] strategy: Value,
    #[case] metrics: Value,
    #[case] observation: Option<Value>,
) {
    let (world, warned) = promoted(strategy, &metrics, observation);
    assert_eq!(warned, [""; 0]);
    assert_eq!(world.status().release.unwrap().unproven, None);
}

#[test]
fn nobody_is_said_to_measure_once_the_release_is_over() {
    let mut world = with_metric(error_rate(&json!({})));
    world.reply = |question| is_before_requests(question).then_some(Reply::Value(0.0));
    world.set_image("v2");
    minutes(&mut world, 2);
    world.say(Action::Abort, |_| {});
    minutes(&mut world, 2);
    let status = world.status();
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.message);
    let condition = status.conditions.iter().find(|it| it.type_ == "AnalysisPassed").unwrap();
    let told = "metric error-rate was not measured, and nothing measures any more";
    assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("NotMeasured", told));
}
