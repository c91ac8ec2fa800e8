//! Logs that nobody gives: a word about nodes, and none about the candidate.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    checked::with_checks,
    world::{World, right},
};
use crate::{
    api::{CheckOutcome, OnFailure, Phase},
    engine::{Ask, Pod, Reply},
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
