use serde_json::{Value, json};

use super::*;

fn plan(number: i64, revision: &str, image: &str) -> ControllerRevision {
    serde_json::from_value(json!({
        "metadata": {"name": format!("shop-plan-{number}"), "creationTimestamp": format!("2026-01-0{number}T03:04:05Z")},
        "revision": number,
        "data": {"revision": revision, "spec": {}, "template": {"spec": {"containers": [{"name": "app", "image": image}]}}},
    }))
    .unwrap()
}

fn release(status: Value) -> ServiceRelease {
    serde_json::from_value(json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
        "metadata": {"name": "shop", "namespace": "production"}, "spec": {}, "status": status,
    }))
    .unwrap()
}

fn at(day: u32) -> String {
    format!("2026-01-0{day}T03:10:05Z")
}

#[test]
fn each_release_is_told_with_its_outcome() {
    let status = json!({
        "phase": "Progressing",
        "release": {"number": 5, "plan": "shop-plan-5", "revision": "eee", "startedAt": "2026-01-05T03:04:05.123Z"},
        "stable": {"revision": "bbb", "release": 2}, "candidate": {"revision": "eee", "release": 5},
        "step": {"index": 2, "of": 3, "name": "setWeight", "summary": "2/3 setWeight", "startedAt": at(5), "fromWeight": 0},
        "failedRevisions": [{"revision": "ccc", "release": 3, "reason": "OOMKilled", "message": "container app", "at": at(3), "latched": true}],
        "history": [{"revision": "aaa", "release": 1, "at": at(1)}, {"revision": "bbb", "release": 2, "at": at(2)}],
        "timeline": [
            {"at": at(4), "type": "Superseded", "release": 4, "message": "the template changed back"},
            {"at": at(5), "type": "Command", "release": 5, "message": "Pause: looking", "by": "jane"},
        ],
        "timelineDropped": 7,
    });
    let plans =
        [plan(2, "bbb", "shop:2"), plan(3, "ccc", "shop:3"), plan(4, "ddd", "shop:4"), plan(5, "eee", "shop:5")];
    insta::assert_snapshot!(render(&collect(&release(status), &plans), Paint::plain()), @"
    RELEASE   REVISION   IMAGES   STARTED                OUTCOME       DETAIL
    1         aaa        -        -                      Promoted      stable from 2026-01-01T03:10:05.000Z
    2         bbb        shop:2   2026-01-02T03:04:05Z   Serves        -
    3         ccc        shop:3   2026-01-03T03:04:05Z   Failed        OOMKilled: container app
    4         ddd        shop:4   2026-01-04T03:04:05Z   Superseded    the template changed back
    5         eee        shop:5   2026-01-05T03:04:05Z   Progressing   2/3 setWeight

    (7 older entries are no longer kept)
    TIME                   RELEASE   EVENT        MESSAGE
    2026-01-04T03:10:05Z   4         Superseded   the template changed back
    2026-01-05T03:10:05Z   5         Command      Pause: looking (by jane)
    ");
}

#[test]
fn the_rollback_tells_more_than_the_failed_revision() {
    let status = json!({
        "phase": "RolledBack",
        "release": {"number": 2, "plan": "shop-plan-2", "revision": "bbb", "startedAt": at(2)},
        "stable": {"revision": "aaa", "release": 1},
        "rollback": {"fromWeight": 50, "cause": "Aborted", "revision": "bbb", "release": 2, "reason": "Aborted", "by": "jane", "message": "errors",
            "startedAt": at(2), "completedAt": at(2)},
        "failedRevisions": [{"revision": "bbb", "release": 2, "reason": "Aborted", "message": "errors", "at": at(2), "latched": true}],
    });
    let history = collect(&release(status), &[plan(2, "bbb", "shop:2")]);
    assert_eq!(history.releases.len(), 1);
    assert_eq!(
        (history.releases[0].outcome.as_str(), history.releases[0].detail.as_str()),
        ("Aborted", "errors (by jane)")
    );
}

#[test]
fn a_release_that_was_undone_stays_so_when_its_revision_is_released_again() {
    let status = json!({
        "phase": "RolledBack",
        "release": {"number": 3, "plan": "shop-plan-3", "revision": "bbb", "startedAt": at(3)},
        "stable": {"revision": "aaa", "release": 1},
        "rollback": {"fromWeight": 50, "cause": "Aborted", "revision": "bbb", "release": 3, "reason": "Aborted", "message": "aborted by jane", "by": "jane",
            "startedAt": at(3), "completedAt": at(3)},
        "failedRevisions": [{"revision": "bbb", "release": 3, "reason": "Aborted", "message": "aborted by jane", "at": at(3), "latched": true}],
        "history": [{"revision": "bbb", "release": 2, "at": at(2)}],
        "timeline": [
            {"at": at(2), "type": "Promoted", "release": 2, "message": "bbb serves all traffic"},
            {"at": at(2), "type": "RollingBack", "release": 2, "message": "back from bbb to aaa", "by": "kim"},
            {"at": at(2), "type": "RolledBack", "release": 2, "message": "aaa serves all traffic again"},
        ],
    });
    let history = collect(&release(status), &[plan(2, "bbb", "shop:2"), plan(3, "bbb", "shop:2")]);
    let told: Vec<_> =
        history.releases.iter().map(|attempt| (attempt.outcome.as_str(), attempt.detail.as_str())).collect();
    assert!(told.contains(&("RolledBack", "back from bbb to aaa (by kim)")), "{told:?}");
    assert!(told.contains(&("Aborted", "aborted by jane")), "{told:?}");
}

#[test]
fn a_release_that_is_forgotten_says_so() {
    let history = collect(&release(json!({"phase": "Healthy"})), &[plan(1, "aaa", "shop:1")]);
    assert_eq!(history.releases[0].outcome, "Unknown");
    insta::assert_snapshot!(render(&collect(&release(json!({})), &[]), Paint::plain()), @"production/shop has not been released yet.");
}
