//! What is told of checks: how many answers were wrong, what was expected, what is ignored, what was not
//! asked to its end.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    checked::with_checks,
    world::{World, right, wrong},
};
use crate::{
    api::{CheckOutcome, CheckStatus, Phase},
    engine::{Job, JobEnd},
};

fn minutes(world: &mut World, count: u32) {
    for _ in 0..count * 30 {
        world.settle();
        world.wait(2);
    }
    world.settle();
}

fn check(world: &World, name: &str) -> CheckStatus {
    world.status().checks.into_iter().find(|check| check.name == name).unwrap()
}

#[test]
fn a_flaky_candidate_that_passes_by_luck_shows_how_many_answers_were_wrong() {
    let http = json!({"name": "health", "successThreshold": 3, "failureThreshold": 2, "http": {}});
    let mut world = with_checks(json!([http]));
    // Every third answer is wrong, for a while.
    world.reply = |question| {
        let attempt: usize = question.id.rsplit('/').next().unwrap().parse().unwrap();
        Some(if attempt % 3 == 2 && attempt < 12 { wrong() } else { right() })
    };
    world.set_image("v2");
    minutes(&mut world, 2);
    let state = check(&world, "health");
    assert_eq!((state.outcome, state.attempts, state.wrong, state.failures), (CheckOutcome::Passed, 15, 4, 0));
    assert!(state.message.starts_with("4 of 15 answers wrong; GET /: "), "{}", state.message);
}

#[rstest]
#[case::by_default(json!({}), "status 200 to 299")]
#[case::refused(json!({"status": 401}), "status 401")]
#[case::of_all_kinds(
    json!({"headers": {"x-a": "1"}, "json": {"db": "up", "n": 2}, "cel": "json.n < 3", "maxLatency": "500ms"}),
    "status 200 to 299, p95 within 500ms, header x-a: 1, JSON field db = \"up\", JSON field n = 2, json.n < 3"
)]
#[case::of_much(json!({"cel": format!("{}true", "json.n < 3 && ".repeat(70))}), "status 200 to 299, json.n < 3 && json.n < 3 && ")]
fn what_passed_says_what_was_expected(#[case] expect: Value, #[case] told: &str) {
    let mut world = with_checks(json!([{"name": "health", "http": {"path": "/health", "expect": expect}}]));
    world.set_image("v2");
    minutes(&mut world, 1);
    let state = check(&world, "health");
    let whole = format!("GET /health: 200; expected {told}");
    assert!(state.outcome == CheckOutcome::Passed && state.message.starts_with(&whole), "{}", state.message);
    assert!(state.message.len() <= 160, "{}", state.message);
}

#[test]
fn what_is_to_be_ignored_says_so() {
    let mut world = with_checks(json!([{"name": "health", "onFailure": "Ignore", "http": {}}]));
    world.reply = |_| Some(wrong());
    world.set_image("v2");
    minutes(&mut world, 1);
    let state = check(&world, "health");
    assert_eq!(state.outcome, CheckOutcome::Failed);
    assert!(state.message.starts_with("ignored (onFailure: Ignore): "), "{}", state.message);
}

#[test]
fn a_check_that_nobody_waits_for_any_more_has_an_end() {
    let mut world = with_checks(json!([{"name": "slow", "http": {}}, {"name": "health", "http": {}}]));
    world.reply = |question| (!question.id.starts_with("check/slow")).then(wrong);
    world.set_image("v2");
    minutes(&mut world, 2);
    assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
    let state = check(&world, "slow");
    assert_eq!(state.outcome, CheckOutcome::Skipped);
    assert!(state.message.starts_with("not asked to its end: "), "{}", state.message);
}

#[test]
fn what_stable_answers_wrong_after_a_rollback_is_told_of_the_release() {
    let checks = json!([
        {"name": "health", "http": {}},
        {"name": "back", "when": ["AfterRollback"], "http": {"target": "Service"}},
    ]);
    let mut world = with_checks(checks);
    world.reply = |_| Some(wrong());
    world.set_image("v2");
    minutes(&mut world, 2);
    let status = world.status();
    assert_eq!(status.phase, Phase::RolledBack);
    assert!(status.message.contains("; check back failed after the rollback: "), "{}", status.message);
    assert!(
        status.next_action.starts_with("look at what serves: kubectl -n default get pods -l "),
        "{}",
        status.next_action
    );
    let noted: Vec<_> = status.timeline.iter().filter(|it| it.kind == "CheckFailed").collect();
    assert_eq!(noted.len(), 1, "{noted:?}");
}

#[test]
fn after_a_failed_check_it_is_said_what_starts_a_release_and_what_does_not() {
    let mut world = with_checks(json!([{"name": "health", "http": {}}]));
    world.reply = |_| Some(wrong());
    world.set_image("v2");
    minutes(&mut world, 2);
    let next = world.status().next_action;
    assert!(
        next.contains("that starts a release; after a change of checks, analysis or database alone, kubectl"),
        "{next}"
    );
}

#[test]
fn a_standing_probe_is_told_when_its_outcome_changes() {
    let mut world = World::healthy(json!({"blueGreen": {}}), 2);
    world.edit(|spec| {
        let probe = json!([{"name": "live", "when": [], "every": "5s", "onFailure": "Ignore", "http": {}}]);
        spec.checks = serde_json::from_value(probe).unwrap();
        spec.observation = Some(serde_json::from_value(json!({"duration": "1h"})).unwrap());
    });
    world.set_image("v2");
    let mut told = Vec::new();
    for is_right in [true, false, true] {
        let reply: fn(&crate::engine::Question) -> Option<crate::engine::Reply> =
            if is_right { |_| Some(right()) } else { |_| Some(wrong()) };
        world.reply = reply;
        for _ in 0..60 {
            told.extend(world.pass().events.into_iter().map(|event| event.reason));
            world.wait(1);
        }
    }
    let told: Vec<String> = told.into_iter().filter(|reason| reason.starts_with("Check")).collect();
    assert_eq!(told, ["CheckPassed", "CheckFailed", "CheckPassed"]);
}

#[test]
fn what_the_pod_of_a_job_lacked_is_told_at_its_end() {
    let job = json!({"name": "smoke", "job": {"template": {"spec": {"containers": [{"name": "k6"}]}}}});
    let mut world = with_checks(json!([job]));
    world.set_image("v2");
    world.settle();
    world.wait(2);
    world.settle();
    world.seen.jobs[0].stuck = Some("CreateContainerConfigError: secret \"nosuch\" not found".into());
    world.settle();
    let message = "DeadlineExceeded: Job was active longer than specified deadline".into();
    let end = JobEnd { succeeded: false, at: world.now, took: 600_000, message, report: None, image: None };
    world.seen.jobs[0] = Job { end: Some(end), stuck: None, ..world.seen.jobs[0].clone() };
    minutes(&mut world, 2);
    let told =
        "Secret nosuch, which spec.checks[0].job.template names, does not exist: make it or name another, then retry";
    assert!(check(&world, "smoke").message.starts_with(told), "{}", check(&world, "smoke").message);
    assert!(world.status().message.contains(told), "{}", world.status().message);
}
