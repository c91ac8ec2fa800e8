//! Logs: from when on a look counts, and those that nobody gives, which is a word about nodes and none about the candidate.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    checked::with_checks,
    world::{World, right},
};
use crate::{
    api::{CheckOutcome, Duration, OnFailure, Phase, Timestamp},
    engine::{Ask, Pod, Question, Reply},
};

const REFUSED: &str = "no answer within 5s: log of pod shop-1: connection refused";

/// v2 at 50%, where its log is to be looked at, for so many seconds.
fn looking(check: &Value, reply: fn() -> Option<Reply>, seconds: u64) -> World {
    let mut body = json!({"name": "log", "when": ["EachStep"], "logs": {"pattern": "ERROR"}});
    body.as_object_mut().unwrap().extend(check.as_object().unwrap().clone());
    let mut world = with_checks(json!([body]));
    world.reply = match reply() {
        Some(Reply::Unread(_)) => |_| Some(Reply::Unread(REFUSED.into())),
        _ => |_| Some(right()),
    };
    world.set_image("v2");
    pass(&mut world, seconds);
    world
}

fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.settle();
        world.wait(1);
    }
}

fn unread() -> Option<Reply> {
    Some(Reply::Unread(REFUSED.into()))
}

#[test]
fn a_log_that_cannot_be_read_is_asked_for_until_it_can() {
    let mut world = looking(&json!({}), unread, 60);
    let state = world.status().checks.remove(0);
    assert_eq!((state.outcome, state.attempts, state.wrong), (CheckOutcome::Running, 0, 0), "{}", state.message);
    assert_eq!(state.message, format!("not asked yet, its log cannot be read: {REFUSED}"));
    assert!(world.status().message.contains("connection refused"), "{}", world.status().message);
    assert_eq!(world.status().rollback, None);
    let before = world.status();
    pass(&mut world, 20);
    assert_eq!(world.status(), before, "it is written down once");
    world.reply = |_| Some(right());
    pass(&mut world, 5);
    assert_eq!(world.status().checks[0].outcome, CheckOutcome::Passed, "{}", world.status().message);
}

#[rstest]
#[case::it_waits_for_a_person(OnFailure::Rollback, true)]
#[case::it_would_wait_anyway(OnFailure::Hold, true)]
#[case::never_mind(OnFailure::Ignore, false)]
fn at_the_deadline_a_release_whose_log_nobody_gave_does_not_go_back(#[case] then: OnFailure, #[case] held: bool) {
    let world = looking(&json!({"onFailure": then}), unread, 630);
    let (status, told) = (world.status(), format!("cannot be read: {REFUSED}; so it is for 10m"));
    assert_eq!((status.rollback, status.hold.is_some()), (None, held), "{}", status.message);
    assert_eq!(status.checks[0].outcome, CheckOutcome::Failed);
    assert!(status.checks[0].message.ends_with(&told), "{}", status.checks[0].message);
    assert_ne!(status.phase, Phase::RolledBack);
}

type Touch = fn(&mut Pod);

#[rstest]
#[case::told_to_go(|pod: &mut Pod| pod.terminating = true)]
#[case::taken_from_its_node(|pod: &mut Pod| pod.disrupted = true)]
fn pods_that_leave_are_not_asked_for_their_logs(#[case] leave: Touch) {
    let mut world = looking(&json!({}), || Some(right()), 0);
    let leaves = |pod: &Pod| pod.name.ends_with("-0");
    let mut asked = Vec::new();
    for _ in 0..20 {
        for revision in &mut world.seen.revisions {
            revision.pods.iter_mut().filter(|pod| leaves(pod)).for_each(leave);
        }
        for question in world.pass().questions {
            let Ask::Logs(logs) = question.ask else { panic!("{question:?}") };
            asked.extend(logs.pods.into_iter().map(|pod| pod.name));
        }
    }
    assert!(!asked.is_empty() && asked.iter().all(|name| name.ends_with("-1")), "{asked:?}");
}

/// What is right, and answered at once.
fn at_once(_: &Question) -> Option<Reply> {
    Some(Reply::Check { fault: None, seen: "200".into(), took: Duration::default() })
}

/// v2 after its promotion, while it is observed for two hours, with this check of its log and a probe of its health.
fn observed(log: &Value, reply: fn(&Question) -> Option<Reply>) -> World {
    let mut world = World::healthy(json!({"blueGreen": {}}), 2);
    let mut check = json!({"name": "log", "when": [], "logs": {"pattern": "ERROR"}});
    check.as_object_mut().unwrap().extend(log.as_object().unwrap().clone());
    let live = json!({"name": "live", "when": [], "every": "1m", "http": {}});
    world.edit(|spec| {
        spec.checks = serde_json::from_value(json!([check, live])).unwrap();
        spec.observation = Some(serde_json::from_value(json!({"duration": "2h"})).unwrap());
    });
    world.reply = reply;
    world.set_image("v2");
    world.settle();
    world
}

fn without_logs(question: &Question) -> Option<Reply> {
    Some(if matches!(question.ask, Ask::Logs(_)) { Reply::Unread(REFUSED.into()) } else { right() })
}

#[rstest]
#[case::once(json!({"when": ["AfterPromotion"]}))]
#[case::seldom(json!({"every": "1h"}))]
#[case::often(json!({"every": "1m"}))]
fn beside_a_log_that_nobody_gives_other_probes_go_on(#[case] log: Value) {
    let mut world = observed(&log, without_logs);
    pass(&mut world, 90 * 60);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"), "{}", status.message);
    let held = status.timeline.iter().filter(|entry| entry.kind == "Held").count();
    assert_eq!((held, status.timeline_dropped), (1, 0), "it is told once: {:?}", status.timeline);
    world.reply = |question| Some(if matches!(question.ask, Ask::Logs(_)) { right() } else { super::world::wrong() });
    pass(&mut world, 120);
    let status = world.status();
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.message);
    assert!(status.message.contains("check live failed"), "{}", status.message);
}

/// Where the looks begin that are asked for from now on.
fn looks(world: &mut World, seconds: u64) -> Vec<Timestamp> {
    let mut looks = Vec::new();
    for _ in 0..seconds {
        for question in world.pass().questions {
            if let Ask::Logs(logs) = question.ask {
                looks.push(logs.since);
            }
        }
        world.wait(1);
    }
    looks.dedup();
    looks
}

#[test]
fn lines_of_before_a_log_was_not_given_are_not_counted_again() {
    let mut world = observed(&json!({"every": "1m"}), at_once);
    pass(&mut world, 100);
    let seen = world.status().checks.iter().find(|check| check.name == "log").and_then(|check| check.answered_at);
    world.reply = without_logs;
    pass(&mut world, 20 * 60);
    assert_eq!(world.status().reason, "ObservationFailed", "{}", world.status().message);
    world.reply = at_once;
    assert_eq!(looks(&mut world, 90).first(), seen.as_ref());
}

#[rstest]
#[case::too_many(json!({"pattern": "ERROR"}), 2)]
#[case::too_few(json!({"pattern": "started", "min": 1}), 1)]
fn a_line_counts_in_one_attempt_and_one_that_is_to_be_there_in_all(#[case] logs: Value, #[case] begin: usize) {
    let mut world = with_checks(json!([{"name": "log", "when": ["EachStep"], "logs": logs, "failureThreshold": 2}]));
    world.reply = |_| Some(super::world::wrong());
    world.set_image("v2");
    let looks = looks(&mut world, 30);
    assert_eq!((looks.len(), world.phase()), (begin, Phase::RolledBack), "{looks:?}");
}

#[test]
fn a_log_whose_turn_never_comes_takes_nothing_back() {
    let mut world = looking(&json!({}), || Some(right()), 0);
    world.reply = |_| None;
    pass(&mut world, 630);
    let status = world.status();
    assert_eq!((status.rollback.is_some(), status.hold.is_some()), (false, true), "{}", status.message);
    let told = "not asked yet, its log cannot be read: no answer at all; so it is for 10m";
    assert_eq!(status.checks[0].message, told);
}
