//! One command as the migration of several releases: of other versions, objects or namespaces. One of them runs it.

use serde_json::{Value, json};
use servicerelease::api::WorkOutcome;

use super::{
    commands::{RAN, psql, run, server, start},
    job::Job,
};

const COUNT: &str = "INSERT INTO ran VALUES (1)";
/// Another release that was begun, and killed.
const IN_DOUBT: &str = "UPDATE servicerelease.servicerelease_ledger SET state = 'Started' WHERE release = 'a/b#1-x'";

/// The migration of a release, or what takes it back.
fn task(what: &str, release: &str, again: bool) -> Value {
    json!({"wrap": {"plan": format!("{what}/hash/{release}"), "release": release, "attempt": 1, "again": again,
        "lockTimeout": "1s", "timeout": "30s"}})
}

#[tokio::test]
async fn a_command_that_one_release_ran_is_not_run_by_another() {
    let server = server().await;
    let (report, _) = run(&server, &task("migration", "a/b#1-x", false), &psql(false, "SELECT nothing"));
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let (report, _) = run(&server, &task("migration", "a/b#2-x", false), &psql(false, COUNT));
    assert_eq!((report.outcome, report.unchanged), (WorkOutcome::Done, false), "what failed is tried anew: {report:?}");
    // The next version, the same object made again, another namespace.
    for (release, again) in [("a/b#3-x", false), ("a/b#1-y", true), ("staging/b#7-z", false)] {
        let (report, _) = run(&server, &task("migration", release, again), &psql(false, COUNT));
        assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
        assert!(report.unchanged && report.message.starts_with("it is applied already (by a/b#2-x at "), "{report:?}");
    }
    let other = json!({"wrap": {"plan": "migration/other/a/b#4-x", "release": "a/b#4-x", "attempt": 1, "again": false,
        "lockTimeout": "1s", "timeout": "30s"}});
    run(&server, &other, &psql(false, COUNT));
    assert_eq!(server.number(RAN).await, 2, "another command is another one");
}

#[tokio::test]
async fn two_releases_at_the_same_time_run_it_once() {
    let server = server().await;
    let jobs: Vec<Job> = ["a/b#1-x", "staging/b#7-z", "test/b#2-y"]
        .map(|release| start(&server, &task("migration", release, false), &psql(true, COUNT)))
        .into();
    let reports: Vec<_> = jobs.into_iter().map(|job| job.wait().report.unwrap()).collect();
    assert!(reports.iter().all(|report| report.outcome == WorkOutcome::Done), "{reports:?}");
    assert_eq!(reports.iter().filter(|report| !report.unchanged).count(), 1, "{reports:?}");
    assert_eq!(server.number(RAN).await, 1);
}

#[tokio::test]
async fn what_nobody_knows_of_one_release_is_not_known_of_another() {
    let server = server().await;
    run(&server, &task("migration", "a/b#1-x", false), &psql(false, COUNT));
    server.sql(IN_DOUBT).await;
    let (report, _) = run(&server, &task("migration", "a/b#1-y", false), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Unknown, 1), "{report:?}");
    assert!(report.message.contains("begun by a/b#1-x at ") && !report.settle.is_empty(), "{report:?}");
    // As the report says it, once a person knows.
    server.sql(&report.settle).await;
    let (report, _) = run(&server, &task("migration", "a/b#1-y", false), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
    server.sql(IN_DOUBT).await;
    let (report, _) = run(&server, &task("migration", "a/b#2-y", true), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 2), "it is idempotent: {report:?}");
}

#[tokio::test]
async fn what_is_taken_back_is_run_again_by_the_next_release() {
    let server = server().await;
    run(&server, &task("migration", "a/b#1-x", false), &psql(false, COUNT));
    // A release that did not run it forgets nothing.
    run(&server, &task("down", "a/b#2-x", false), &psql(false, "SELECT 1"));
    let (report, _) = run(&server, &task("migration", "a/b#2-x", false), &psql(false, COUNT));
    assert!(report.unchanged, "{report:?}");
    let (report, _) = run(&server, &task("down", "a/b#1-x", false), &psql(false, "DELETE FROM ran"));
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let (report, _) = run(&server, &task("migration", "a/b#3-x", false), &psql(false, COUNT));
    assert_eq!(
        (report.outcome, report.unchanged, server.number(RAN).await),
        (WorkOutcome::Done, false, 1),
        "{report:?}"
    );
}
