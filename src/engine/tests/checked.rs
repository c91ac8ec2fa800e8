//! Checks: when they are asked, of whom, and what becomes of the release.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rstest::rstest;
use serde_json::{Value, json};

use super::world::{World, adopted, right, wrong};
use crate::{
    api::{Action, CheckOutcome, Duration, Phase, Timestamp},
    engine::{Ask, Ended, Endpoint, Question, Reply, Selection, Service, decide},
};

const STEPS: &str = r#"{"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}"#;

/// v1 Healthy behind Service shop, with these checks in the manifest of what comes next.
pub(super) fn with_checks(checks: Value) -> World {
    let mut world = World::healthy(serde_json::from_str(STEPS).unwrap(), 4);
    world.edit(|spec| spec.checks = serde_json::from_value(checks).unwrap());
    world.settle();
    world
}

/// Lets time pass until nothing more is asked.
fn go(world: &mut World) {
    for _ in 0..40 {
        world.settle();
        world.wait(2);
    }
    world.settle();
}

fn weight(world: &World) -> i32 {
    world.status().weights.unwrap().desired.candidate
}

fn outcome(world: &World, name: &str) -> (CheckOutcome, i32) {
    let checks = world.status().checks;
    let check = checks.iter().find(|check| check.name == name).unwrap();
    (check.outcome, check.attempts)
}

fn addresses(question: &Question) -> Vec<String> {
    let Ask::Http(http) = &question.ask else { panic!("{question:?}") };
    http.addresses.clone()
}

#[test]
fn before_traffic_a_check_asks_the_candidates_pods_in_turn_until_all_attempts_are_right() {
    let mut world = with_checks(json!([{"name": "health", "attempts": 3, "http": {"path": "/health"}}]));
    world.edit(|spec| spec.strategy = serde_json::from_value(json!({"blueGreen": {"autoPromote": false}})).unwrap());
    world.set_image("v2");
    let mut asked = Vec::new();
    for _ in 0..60 {
        let decision = world.pass();
        asked.extend(decision.questions.iter().flat_map(addresses));
        assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
        if world.phase() == Phase::Paused {
            break;
        }
        world.now =
            decision.wake.filter(|wake| decision.questions.is_empty() && *wake > world.now).unwrap_or(world.now);
    }
    assert_eq!(outcome(&world, "health"), (CheckOutcome::Passed, 3));
    asked.dedup();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|address| address.starts_with("198.18.0.") && address.ends_with(":8080")), "{asked:?}");
    assert_eq!(world.phase(), Phase::Paused, "the switch waits for a person, as it would without checks");
}

#[test]
fn a_wrong_answer_takes_the_candidate_back_before_it_had_traffic() {
    let mut world = with_checks(json!([{"name": "health", "http": {"path": "/health"}}]));
    world.reply = |_| Some(wrong());
    world.set_image("v2");
    for _ in 0..50 {
        world.pass();
        assert_eq!(weight(&world), 0);
    }
    go(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "CheckFailed"));
    let told = "check health failed: GET /health: expected status 200 (503)";
    assert!(status.message.contains(told), "{}", status.message);
    assert_eq!((world.pods("v2"), world.stable().as_str()), (0, "v1"));
}

#[test]
fn the_first_revision_of_all_gets_no_traffic_without_its_checks() {
    let spec = json!({
        "selector": {"matchLabels": {"app": "shop"}}, "template": super::world::template("v1"),
        "traffic": {"service": "shop"}, "checks": [{"name": "health", "http": {}}],
    });
    let mut world = World::of(spec);
    world.reply = |_| Some(wrong());
    go(&mut world);
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "FirstRevisionFailed"));
    world.reply = |_| Some(right());
    world.say(Action::Retry, |command| command.revision = None);
    go(&mut world);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.answer());
}

#[rstest]
#[case::skip(Action::Skip, Phase::Paused)]
#[case::promote(Action::Promote, Phase::Paused)]
#[case::abort(Action::Abort, Phase::RolledBack)]
fn a_check_that_is_to_hold_waits_for_a_person(#[case] action: Action, #[case] then: Phase) {
    let mut world = with_checks(json!([{"name": "health", "onFailure": "Hold", "http": {}}]));
    world.reply = |_| Some(wrong());
    world.set_image("v2");
    go(&mut world);
    assert_eq!((world.phase(), world.status().reason.as_str(), weight(&world)), (Phase::Paused, "CheckFailed", 0));
    assert!(world.status().next_action.contains("retry"), "{}", world.status().next_action);
    world.say(action, |_| {});
    go(&mut world);
    assert_eq!(world.phase(), then, "{}", world.answer());
    assert_eq!(weight(&world) > 0, then == Phase::Paused);
}

#[test]
fn retry_asks_from_the_beginning() {
    let mut world = with_checks(json!([{"name": "health", "onFailure": "Hold", "attempts": 2, "http": {}}]));
    world.reply = |question| Some(if question.id.ends_with("/1") { wrong() } else { right() });
    world.set_image("v2");
    go(&mut world);
    assert_eq!((world.phase(), outcome(&world, "health")), (Phase::Paused, (CheckOutcome::Failed, 2)));
    world.reply = |_| Some(right());
    world.say(Action::Retry, |_| {});
    go(&mut world);
    assert_eq!((weight(&world), outcome(&world, "health")), (50, (CheckOutcome::Passed, 2)));
}

#[test]
fn what_is_to_be_ignored_is_told_and_passed() {
    let mut world = with_checks(json!([{"name": "health", "onFailure": "Ignore", "http": {}}]));
    world.reply = |_| Some(wrong());
    world.set_image("v2");
    let mut told = Vec::new();
    for _ in 0..60 {
        told.extend(world.pass().events.into_iter().map(|event| event.reason));
    }
    assert_eq!((weight(&world), outcome(&world, "health")), (50, (CheckOutcome::Failed, 1)));
    assert_eq!(told.iter().filter(|reason| *reason == "CheckFailed").count(), 1, "{told:?}");
}

#[test]
fn thresholds_count_answers_in_a_row() {
    let http = json!({"name": "health", "successThreshold": 2, "failureThreshold": 3, "http": {}});
    let mut world = with_checks(json!([http]));
    // Wrong, wrong, right, wrong, right, right.
    world.reply = |question| {
        let attempt: usize = question.id.rsplit('/').next().unwrap().parse().unwrap();
        Some(if [0, 1, 3].contains(&attempt) { wrong() } else { right() })
    };
    world.set_image("v2");
    go(&mut world);
    assert_eq!(outcome(&world, "health"), (CheckOutcome::Passed, 6));
}

#[rstest]
#[case::each_within(20, 1, true)]
#[case::one_in_twenty(20, 20, true)]
#[case::two_in_twenty(20, 10, false)]
#[case::the_only_one(1, 1, false)]
fn p95_is_met_if_at_most_every_twentieth_is_slow(#[case] attempts: i32, #[case] every: usize, #[case] met: bool) {
    let http = json!({"expect": {"maxLatency": "500ms"}});
    let mut world = with_checks(json!([{"name": "quick", "attempts": attempts, "interval": "1s", "http": http}]));
    world.reply = match every {
        20 => |question: &Question| Some(slow_at(question, &[7])),
        10 => |question: &Question| Some(slow_at(question, &[3, 13])),
        _ => |question: &Question| Some(slow_at(question, &[])),
    };
    if attempts == 1 {
        world.reply = |question: &Question| Some(slow_at(question, &[0]));
    }
    world.set_image("v2");
    go(&mut world);
    let expected = if met { CheckOutcome::Passed } else { CheckOutcome::Failed };
    assert_eq!(outcome(&world, "quick").0, expected, "{:?}", world.status().checks);
}

fn slow_at(question: &Question, slow: &[usize]) -> Reply {
    let attempt: usize = question.id.rsplit('/').next().unwrap().parse().unwrap();
    let millis = if slow.contains(&attempt) { 900 } else { 10 };
    Reply::Check { fault: None, seen: "200".into(), took: crate::api::Duration::from_millis(millis) }
}

#[test]
fn each_step_is_asked_when_its_weight_is_reached_and_the_last_before_promotion() {
    let mut world = with_checks(json!([
        {"name": "step", "when": ["EachStep"], "http": {}},
        {"name": "end", "when": ["BeforePromotion"], "http": {}},
        {"name": "never", "when": [], "http": {}},
    ]));
    world.set_image("v2");
    go(&mut world);
    assert_eq!(outcome(&world, "step"), (CheckOutcome::Passed, 1));
    assert_eq!((world.phase(), world.status().checks.len()), (Phase::Paused, 1));
    world.reply = |_| Some(wrong());
    world.say(Action::Promote, |_| {});
    go(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "CheckFailed"), "{}", status.message);
    assert!(status.message.contains("check end"), "{}", status.message);
}

#[test]
fn a_step_asks_the_checks_that_it_names() {
    let mut world =
        with_checks(json!([{"name": "smoke", "when": [], "http": {}}, {"name": "no", "when": [], "http": {}}]));
    world.edit(|spec| {
        spec.strategy =
            serde_json::from_value(json!({"canary": {"steps": [{"check": ["smoke"]}, {"pause": {}}]}})).unwrap();
    });
    world.set_image("v2");
    go(&mut world);
    assert_eq!((world.phase(), world.status().checks.len()), (Phase::Paused, 1));
    assert_eq!(outcome(&world, "smoke"), (CheckOutcome::Passed, 1));
}

#[rstest]
#[case::well(Phase::Paused)]
#[case::badly(Phase::RolledBack)]
fn what_serves_is_asked_by_its_own_pods_while_the_candidate_waits(#[case] then: Phase) {
    let mut world = with_checks(json!([{"name": "old", "attempts": 4, "http": {"target": "Stable"}}]));
    world.reply = if then == Phase::Paused { |_| Some(right()) } else { |_| Some(wrong()) };
    world.set_image("v2");
    let mut asked = BTreeSet::new();
    for _ in 0..100 {
        asked.extend(world.pass().questions.iter().flat_map(addresses));
        world.wait(2);
    }
    assert_eq!(world.phase(), then, "{}", world.status().message);
    if then == Phase::Paused {
        // Those of the candidate were two.
        assert_eq!((asked.len(), outcome(&world, "old")), (4, (CheckOutcome::Passed, 4)), "each of them in turn");
    } else {
        let cause = world.status().rollback.unwrap().message;
        assert!(cause.contains("check old failed"), "{cause}");
    }
}

#[test]
fn a_candidate_without_room_for_a_pod_is_not_let_through_unasked() {
    let mut world = World::healthy(json!({"canary": {"maxSurge": 0, "maxUnavailable": 1}}), 1);
    world.edit(|spec| spec.checks = serde_json::from_value(json!([{"name": "health", "http": {}}])).unwrap());
    world.set_image("v2");
    go(&mut world);
    let status = world.status();
    assert_eq!((status.phase, world.stable().as_str()), (Phase::RolledBack, "v1"), "{}", status.message);
    assert!(status.message.contains("set maxSurge to 1"), "{}", status.message);
}

#[test]
fn a_check_that_comes_to_no_end_fails_after_the_progress_deadline() {
    let mut world = with_checks(json!([{"name": "health", "http": {}}]));
    world.reply = |_| None;
    world.set_image("v2");
    world.settle();
    assert_eq!(world.status().reason, "Checking");
    world.wait(599);
    world.settle();
    assert_eq!(world.phase(), Phase::Progressing);
    world.wait(2);
    world.settle();
    assert_eq!(world.status().rollback.unwrap().reason, "CheckFailed");
}

#[test]
fn nothing_is_asked_while_a_person_has_paused_it() {
    let mut world = with_checks(json!([{"name": "health", "http": {}}]));
    world.reply = |_| None;
    world.set_image("v2");
    world.settle();
    world.say(Action::Pause, |_| {});
    world.settle();
    assert!(world.pass().questions.is_empty());
    world.wait(10_000);
    world.settle();
    assert_eq!(world.phase(), Phase::Paused);
    world.reply = |_| Some(right());
    world.say(Action::Resume, |_| {});
    go(&mut world);
    assert_eq!(weight(&world), 50, "{}", world.status().message);
}

#[test]
fn a_full_promotion_passes_checks_but_for_those_before_traffic() {
    let mut world = with_checks(json!([
        {"name": "health", "http": {}}, {"name": "step", "when": ["EachStep"], "http": {}},
    ]));
    world.reply = |_| None;
    world.set_image("v2");
    world.settle();
    world.say(Action::Promote, |command| command.full = true);
    world.settle();
    assert_eq!(weight(&world), 0);
    world.reply = |_| Some(right());
    world.settle();
    world.reply = |_| None;
    go(&mut world);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"));
}

#[test]
fn words_in_braces_of_a_request_are_filled_in() {
    let path = "/api/v1/query?query=up%7Bnamespace=%22{{namespace}}%22,pod=~%22{{pods}}%22%7D";
    let http = json!({"path": path, "method": "POST", "body": "{{release}} at {{service}}: {{revision}}"});
    let mut world = with_checks(json!([{"name": "up", "http": http}]));
    world.reply = |_| None;
    world.set_image("v2");
    let asked = (0..9).flat_map(|_| world.pass().questions).next().unwrap();
    let (Ask::Http(question), v2) = (asked.ask, world.hash("v2")) else { panic!("no request") };
    let pods = format!("%22shop-{v2}-%5Ba-z0-9%5D%2B%22");
    assert!(
        question.http.path.contains("namespace=%22default%22,") && question.http.path.contains(&pods),
        "{question:?}"
    );
    assert_eq!(question.http.body.unwrap(), format!("shop at shop-candidate: {v2}"));
}

#[test]
fn a_port_of_the_service_may_be_named() {
    let mut world = with_checks(json!([
        {"name": "live", "when": ["Preflight"], "http": {"target": "Service", "port": "admin"}},
    ]));
    let service = world.seen.service.as_mut().unwrap();
    service.named_ports = [("admin".to_owned(), 9000)].into();
    service.targets.push((9000, IntOrString::Int(9001)));
    world.set_image("v2");
    let asked = (0..9).flat_map(|_| world.pass().questions).next().unwrap();
    assert_eq!(addresses(&asked), ["198.18.0.0:9001"]);
    let Ask::Http(http) = asked.ask else { panic!("{asked:?}") };
    let header = http.http.headers.last().unwrap();
    assert_eq!((header.name.as_str(), header.value.as_str()), ("Host", "shop.default.svc:9000"));
}

/// What a tenant does to the Service that a check asks.
type Touch = fn(&mut Service);

#[rstest]
#[case::it_leads_to_another_name(|service: &mut Service| service.external = true)]
#[case::endpoints_kept_by_hand(|service: &mut Service| {
    service.endpoints = vec![Endpoint { ready: true, ..Endpoint::default() }];
})]
#[case::a_port_that_it_does_not_have(|service: &mut Service| service.targets.clear())]
fn by_the_service_nobody_is_asked_but_the_releases_own_pods(#[case] touch: Touch) {
    let mut world = with_checks(json!([{"name": "live", "when": ["Preflight"], "http": {"target": "Service"}}]));
    world.set_image("v2");
    let ask = |world: &mut World| decide(&world.release, &world.seen, world.now).questions;
    for _ in 0..9 {
        world.reply = |_| None;
        world.pass();
        if !ask(&mut world).is_empty() {
            break;
        }
    }
    assert_eq!(ask(&mut world).iter().map(addresses).collect::<Vec<_>>(), [["198.18.0.0:8080"]]);
    touch(world.seen.service.as_mut().unwrap());
    assert_eq!(ask(&mut world), []);
}

#[test]
fn a_service_leads_to_its_pods_in_turn_and_to_no_others() {
    let mut world = with_checks(json!([
        {"name": "live", "when": ["EachStep"], "attempts": 4, "http": {"target": "Service", "headers": [{"name": "host", "value": "shop"}]}},
    ]));
    world.set_image("v2");
    let mut asked = BTreeSet::new();
    world.reply = |question| {
        let Ask::Http(http) = &question.ask else { panic!("{question:?}") };
        assert_eq!(http.http.headers.len(), 1, "what the manifest says of Host stays");
        Some(right())
    };
    for _ in 0..30 {
        asked.extend(world.pass().questions.iter().flat_map(addresses));
        world.wait(2);
    }
    assert!(
        asked.len() > 1 && asked.iter().all(|it| it.starts_with("198.18.0.") && it.ends_with(":8080")),
        "{asked:?}"
    );
}

/// Nobody of the release serves yet, and an adopted Deployment's pods are not the release's to ask.
#[rstest]
#[case::of_the_service("Preflight", "Service", false)]
#[case::of_the_service_of_an_adopted_deployment("Preflight", "Service", true)]
#[case::of_stable("BeforeTraffic", "Stable", false)]
fn what_serves_is_not_asked_before_anything_of_the_release_does(
    #[case] when: &str,
    #[case] target: &str,
    #[case] is_adopted: bool,
) {
    let mut world = if is_adopted { adopted() } else { World::new(json!({"canary": {}}), 2) };
    let check = json!({"name": "front", "when": [when], "http": {"target": target}});
    world.edit(|spec| spec.checks = serde_json::from_value(json!([check])).unwrap());
    world.reply = |question| panic!("{question:?}");
    world.settle();
    assert_eq!(outcome(&world, "front"), (CheckOutcome::Skipped, 0), "{}", world.status().message);
    assert!(world.status().checks[0].message.starts_with("not asked: no revision of this release serves yet"));
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v1"), "{}", world.status().message);
}

#[test]
fn the_log_before_a_restart_is_read_where_nobody_has_looked_since() {
    let mut world = with_checks(json!([{"name": "log", "when": ["EachStep"], "logs": {"pattern": "ERROR"}}]));
    // One was started again a moment ago, one before the release began.
    world.touch = |_, pod| {
        let second = if pod.name.ends_with("-0") { 1_000_000 } else { 900_000 };
        let at = Some(Timestamp::from_millis(second * 1000));
        pod.containers[0].restarts = 1;
        pod.containers[0].ended = Some(Ended { reason: "Error".into(), exit_code: 1, signal: None, at });
    };
    world.reply = |question| {
        let Ask::Logs(logs) = &question.ask else { panic!("{question:?}") };
        let restarted: Vec<bool> = logs.pods.iter().map(|pod| pod.restarted).collect();
        assert_eq!((logs.logs.container.as_deref(), restarted), (Some("app"), vec![true, false]));
        Some(right())
    };
    world.set_image("v2");
    go(&mut world);
    assert_eq!(outcome(&world, "log"), (CheckOutcome::Passed, 1), "{}", world.status().message);
}

/// What a pod writes while its log is read, or those of others.
#[test]
fn no_line_falls_between_two_looks_at_a_log() {
    let mut world = with_checks(json!([{"name": "log", "when": ["EachStep"], "logs": {"pattern": "ERROR"}}]));
    let steps = json!({"canary": {"steps": [{"setWeight": 20}, {"setWeight": 50}, {"pause": {}}]}});
    world.edit(|spec| spec.strategy = serde_json::from_value(steps).unwrap());
    world.reply = |_| Some(Reply::Check { fault: None, seen: "logs".into(), took: Duration::from_millis(700) });
    world.set_image("v2");
    let mut looks: Vec<(String, Timestamp)> = Vec::new();
    let mut answered = Vec::new();
    for _ in 0..60 {
        for question in world.pass().questions {
            let Ask::Logs(logs) = question.ask else { panic!("{question:?}") };
            if looks.iter().all(|(id, _)| *id != question.id) {
                looks.push((question.id, logs.since));
                answered.push(world.now);
            }
        }
        world.wait(1);
    }
    let [_, (_, since)] = looks[..] else { panic!("{looks:?}") };
    assert_eq!(since, answered[0].minus(Duration::from_millis(700)));
}

/// Of what is observed and of what was taken back the checks are asked in every pass.
#[rstest]
#[case::after_the_promotion(json!({"when": ["AfterPromotion"], "http": {}}))]
#[case::again_and_again(json!({"when": [], "every": "5s", "logs": {"pattern": "ERROR"}}))]
#[case::after_a_rollback(json!({"when": ["AfterRollback"], "http": {"target": "Stable"}}))]
fn without_pods_a_check_is_skipped_once(#[case] check: Value) {
    let mut check = check;
    check["name"] = json!("front");
    let back = check["when"] == json!(["AfterRollback"]);
    let mut world = with_checks(json!([check]));
    world.edit(|spec| spec.replicas = Some(0));
    world.settle();
    world.reply = |question| panic!("{question:?}");
    world.edit(|spec| {
        spec.strategy = serde_json::from_value(json!({"canary": {"steps": [{"pause": {}}]}})).unwrap();
        spec.observation = serde_json::from_value(json!({"duration": "10m"})).unwrap();
    });
    world.set_image("v2");
    world.settle();
    world.say(if back { Action::Abort } else { Action::Promote }, |_| {});
    let mut told = Vec::new();
    for _ in 0..20 {
        told.extend(world.pass().events.into_iter().map(|event| event.reason));
    }
    world.settle();
    assert_eq!(world.phase(), if back { Phase::RolledBack } else { Phase::Observing }, "{}", world.answer());
    assert_eq!(outcome(&world, "front"), (CheckOutcome::Skipped, 0));
    assert_eq!(told.iter().filter(|reason| *reason == "CheckSkipped").count(), 1, "{told:?}");
    let told = world.status().timeline.iter().filter(|entry| entry.kind == "CheckSkipped").count();
    assert_eq!(told, 1, "{:?}", world.status().timeline);
    // Once there are pods they are asked.
    world.reply = |_| Some(right());
    world.edit(|spec| spec.replicas = Some(2));
    go(&mut world);
    assert_eq!(outcome(&world, "front").0, CheckOutcome::Passed, "{}", world.status().message);
}

/// Thirty answers, half a minute apart, take longer than the progress deadline of ten minutes.
#[test]
fn a_check_that_is_answered_is_not_overdue() {
    let mut world = with_checks(json!([{"name": "health", "attempts": 30, "interval": "30s", "http": {}}]));
    world.set_image("v2");
    for _ in 0..31 {
        world.settle();
        world.wait(30);
    }
    world.settle();
    assert_eq!(outcome(&world, "health"), (CheckOutcome::Passed, 30), "{}", world.status().message);
}

#[test]
fn answers_that_are_never_enough_come_to_an_end() {
    let http = json!({"name": "health", "successThreshold": 2, "failureThreshold": 2, "interval": "30s", "http": {}});
    let mut world = with_checks(json!([http]));
    world.reply = |question| {
        let attempt: usize = question.id.rsplit('/').next().unwrap().parse().unwrap();
        Some(if attempt.is_multiple_of(2) { right() } else { wrong() })
    };
    world.set_image("v2");
    for _ in 0..23 {
        assert_eq!(weight(&world), 0);
        world.settle();
        world.wait(30);
    }
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "CheckFailed"), "{}", status.message);
    assert!(status.message.contains("neither passed nor failed within 11m10s"), "{}", status.message);
}

#[rstest]
#[case::nobody_was_there_to_ask(true, Phase::Progressing)]
#[case::there_was_no_answer(false, Phase::RolledBack)]
fn what_nobody_asked_is_not_overdue(#[case] away: bool, #[case] phase: Phase) {
    let mut world = with_checks(json!([{"name": "health", "attempts": 2, "http": {}}]));
    world.reply = |question| question.id.ends_with("/0").then(right);
    world.set_image("v2");
    world.settle();
    world.wait(3600);
    world.seen.asking_since = away.then_some(world.now);
    world.settle();
    assert_eq!(world.phase(), phase, "{}", world.status().message);
    world.reply = |_| Some(right());
    go(&mut world);
    assert_eq!(weight(&world), if away { 50 } else { 0 }, "{}", world.status().message);
}
