//! What a release applied is taken back, and nothing else.

use std::{fs, path::Path};

use serde_json::json;
use servicerelease::{api::WorkOutcome, engine::Report};
use tempfile::TempDir;

use super::{job, server::Server};

const FILES: [(&str, &str); 7] = [
    ("001_a.sql", "CREATE TABLE a ()"),
    ("001_a.down.sql", "DROP TABLE a"),
    ("V2__b.sql", "CREATE TABLE b (n int)"),
    ("V2__b.down.sql", "INSERT INTO b VALUES (1); DROP TABLE b"),
    ("010_c.up.sql", "CREATE TABLE c ()"),
    ("010_c.down.sql", "DROP TABLE c"),
    ("readme.txt", ""),
];

fn directory(all: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in all {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

async fn up(server: &Server, files: &Path, release: &str) -> Report {
    let run = json!({"set": "shop", "release": release, "lockTimeout": "1s", "timeout": "1m"});
    job::perform(&server.url(), json!({"migrate": run}), Some(files), &[]).await
}

async fn down(server: &Server, files: &Path, of: &str) -> Report {
    let run = json!({"set": "shop", "release": "a/b#9", "lockTimeout": "300ms", "timeout": "1m"});
    job::perform(&server.url(), json!({"down": {"run": run, "of": of}}), Some(files), &[]).await
}

const TABLES: &str = "SELECT count(*) FROM pg_class WHERE relname IN ('a', 'b', 'c')";
const ROWS: &str = "SELECT count(*) FROM servicerelease_ledger";

#[tokio::test]
async fn what_a_release_applied_is_taken_back_once_the_last_first() {
    let server = Server::start().await;
    assert_eq!(up(&server, directory(&FILES[..2]).path(), "a/b#1").await.outcome, WorkOutcome::Done);
    let all = directory(&FILES);
    assert_eq!(up(&server, all.path(), "a/b#2").await.applied, ["V2__b.sql", "010_c.up.sql"]);

    let report = down(&server, all.path(), "a/b#1").await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.starts_with("010_c.up.sql was applied after 001_a.sql (by a/b#2 at "), "{report:?}");
    let report = down(&server, all.path(), "a/b#2").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 2), "{report:?}");
    assert_eq!(report.applied, ["010_c.down.sql", "V2__b.down.sql"]);
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (1, 1));
    let report = down(&server, all.path(), "a/b#2").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 0), "{report:?}");
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (1, 1));
    // Up again, as if nothing had been.
    assert_eq!(up(&server, all.path(), "a/b#3").await.count, 2);
    assert_eq!(server.number(TABLES).await, 3);
}

#[tokio::test]
async fn what_was_looked_at_is_what_is_run_and_nothing_else() {
    let server = Server::start().await;
    assert_eq!(up(&server, directory(&FILES[..2]).path(), "a/b#1").await.outcome, WorkOutcome::Done);
    let all = directory(&FILES);
    up(&server, all.path(), "a/b#2").await;
    let preflight = json!({"preflight": {"session": true, "limits": {}}});
    let database = job::perform(&server.url(), preflight, None, &[]).await.database;
    let look = async |of: &str, database: &str| {
        let task = json!({"preflightDown": {"set": "shop", "of": of, "meant": {"database": database}}});
        job::perform(&server.url(), task, Some(all.path()), &[]).await
    };
    let found = look("a/b#2", &database).await;
    assert_eq!((found.outcome, found.loses_data, found.count), (WorkOutcome::Done, true, 2), "{found:?}");
    assert_eq!(found.pending, ["010_c.down.sql", "V2__b.down.sql"], "not that of another release");
    assert_eq!(found.risks[1], "V2__b.down.sql, line 1: drops tables with their rows");
    assert_eq!(server.number(ROWS).await, 3, "nothing is changed");
    // It cannot be run, or it is another database.
    let report = look("a/b#1", &database).await;
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.contains("take that back first"), "{report:?}");
    let report = look("a/b#2", "other@7").await;
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.contains("other@7"), "{report:?}");

    let run = json!({
        "set": "shop", "release": "a/b#2", "lockTimeout": "300ms", "timeout": "1m", "plan": found.files_hash,
    });
    let task = json!({"down": {"run": run, "of": "a/b#2"}});
    fs::write(all.path().join("010_c.down.sql"), "DROP TABLE c, a").unwrap();
    let report = job::perform(&server.url(), task.clone(), Some(all.path()), &[]).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.contains("changed after the plan was made"), "{report:?}");
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (3, 3));
    assert_ne!(look("a/b#2", &database).await.files_hash, found.files_hash);
    fs::write(all.path().join("010_c.down.sql"), "DROP TABLE c").unwrap();
    let report = job::perform(&server.url(), task, Some(all.path()), &[]).await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 2), "{report:?}");
}

#[tokio::test]
async fn what_a_pod_of_the_users_would_take_back_is_known_by_what_it_mounts() {
    let server = Server::start().await;
    let mounted = directory(&FILES[..1]);
    let look = async || {
        let task = json!({"preflightDown": {"of": "a/b#1", "meant": {"watched": [mounted.path()]}}});
        job::perform(&server.url(), task, None, &["true"]).await
    };
    let before = look().await;
    assert!(before.outcome == WorkOutcome::Done && !before.files_hash.is_empty(), "{before:?}");
    fs::write(mounted.path().join("001_a.sql"), "DROP TABLE b").unwrap();
    assert_ne!(look().await.files_hash, before.files_hash);
    fs::remove_file(mounted.path().join("001_a.sql")).unwrap();
    drop(fs::remove_dir(mounted.path()));
    assert_eq!(look().await.outcome, WorkOutcome::NotBegun);
}

#[tokio::test]
async fn the_seed_that_a_release_put_in_is_forgotten_with_its_migration() {
    let server = Server::start().await;
    let all = directory(&FILES[..2]);
    up(&server, all.path(), "a/b#1").await;
    let rows = "INSERT INTO servicerelease_ledger VALUES ('seed', '1', '1.sql', '', 'Applied', 'a/b#1', now()), \
                ('seed', '2', '2.sql', '', 'Applied', 'a/other#1', now()), ('seed', '3', '3.sql', '', 'Started', 'a/b#1', now())";
    server.sql(rows).await;
    let run = json!({"set": "shop", "release": "a/b#1", "lockTimeout": "300ms", "timeout": "1m"});
    let task = json!({"down": {"run": run, "of": "a/b#1", "seed": {"files": "seed"}}});
    let report = job::perform(&server.url(), task.clone(), Some(all.path()), &[]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(report.message, "1 files taken back; the seed is to be put in again");
    assert_eq!(server.number("SELECT sum(version::int) FROM servicerelease_ledger").await, 2 + 3);
    // A pod that was killed between the two: the next one forgets it.
    server.sql("UPDATE servicerelease_ledger SET state = 'Applied'").await;
    let report = job::perform(&server.url(), task, Some(all.path()), &[]).await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 0), "{report:?}");
    assert_eq!(server.number("SELECT sum(version::int) FROM servicerelease_ledger").await, 2);
}

#[tokio::test]
async fn a_down_file_that_is_missing_is_named_before_anything_is_changed() {
    let server = Server::start().await;
    up(&server, directory(&FILES).path(), "a/b#1").await;
    let some = [FILES[0], FILES[2], FILES[3], FILES[4], FILES[5]];
    let report = down(&server, directory(&some).path(), "a/b#1").await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert_eq!(report.message, "there is no file that takes 001_a.sql back: it would be called 001_a.down.sql");
    let alone = [FILES[1], FILES[3], ("010_c.down.sql", "DROP INDEX CONCURRENTLY i")];
    let report = down(&server, directory(&alone).path(), "a/b#1").await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(
        report.message.starts_with("010_c.down.sql, line 1: each down file is run in one transaction"),
        "{report:?}"
    );
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (3, 3));
}

#[tokio::test]
async fn a_down_file_that_fails_is_undone_and_those_before_it_stay() {
    let server = Server::start().await;
    let all = directory(&FILES);
    up(&server, all.path(), "a/b#1").await;
    server.sql("ALTER TABLE b ADD CONSTRAINT none CHECK (n <> 1)").await;
    let report = down(&server, all.path(), "a/b#1").await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Failed, 1), "{report:?}");
    assert!(report.message.starts_with("V2__b.down.sql: line 1: new row for relation"), "{report:?}");
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (2, 2));
    server.sql("ALTER TABLE b DROP CONSTRAINT none").await;
    let report = down(&server, all.path(), "a/b#1").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 2), "{report:?}");
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (0, 0));
}

#[tokio::test]
async fn one_that_is_told_to_end_is_gone_on_with_by_the_next() {
    let server = Server::start().await;
    let slow = ("V2__b.down.sql", "DROP TABLE b; SELECT pg_advisory_lock_shared(42)");
    let all = directory(&[FILES[0], FILES[1], FILES[2], slow, FILES[4], FILES[5]]);
    up(&server, all.path(), "a/b#1").await;
    let mut gate = server.connect().await;
    sqlx::raw_sql("SELECT pg_advisory_lock(42)").execute(&mut gate).await.unwrap();
    let run = json!({"set": "shop", "release": "a/b#1", "lockTimeout": "1m", "timeout": "1m"});
    let task = json!({"down": {"run": run, "of": "a/b#1"}});
    let job = job::Job::start(&server.url(), &task, Some(all.path()), None, &[]);
    server.until("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 42").await;
    job.signal("TERM");
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Running, "the ledger knows: {report:?}");
    assert!(report.message.contains("SIGTERM"), "{report:?}");
    sqlx::raw_sql("SELECT pg_advisory_unlock(42)").execute(&mut gate).await.unwrap();
    let report = job::perform(&server.url(), task, Some(all.path()), &[]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (0, 0));
}

#[tokio::test]
async fn what_failed_half_way_in_no_transaction_is_not_passed_over() {
    let server = Server::start().await;
    let all = directory(&[
        ("001_a.sql", "CREATE TABLE a (n int); INSERT INTO a VALUES (1), (1)"),
        ("001_a.down.sql", "DROP TABLE a"),
        ("002_i.sql", "CREATE INDEX CONCURRENTLY plain ON a (n);\nCREATE UNIQUE INDEX CONCURRENTLY one ON a (n)"),
        ("002_i.down.sql", "DROP INDEX plain, one"),
    ]);
    let report = up(&server, all.path(), "a/b#1").await;
    assert_eq!((report.outcome, report.partly), (WorkOutcome::Failed, true), "{report:?}");
    let report = down(&server, all.path(), "a/b#1").await;
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    let remedy = "DELETE FROM public.servicerelease_ledger WHERE set_name = 'shop' AND version = '2'";
    let told =
        ["002_i.sql: it failed in no transaction (begun by a/b#1 at ", "indexes that are left invalid: public.one"];
    assert_eq!(report.settle, remedy, "{report:?}");
    assert!(told.iter().all(|told| report.message.contains(told)), "{report:?}");
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (1, 2));
    // A person drops what it left, and says so.
    server.sql("DROP INDEX plain, one").await;
    server.sql(remedy).await;
    let report = down(&server, all.path(), "a/b#1").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 1), "{report:?}");
    assert_eq!((server.number(TABLES).await, server.number(ROWS).await), (0, 0));
}

#[tokio::test]
async fn what_a_person_noted_as_failed_is_undone() {
    let server = Server::start().await;
    let all = directory(&FILES[..2]);
    up(&server, all.path(), "a/b#1").await;
    // As one that was broken off, and that a person has undone and noted so, as the runner has said.
    server
        .sql("INSERT INTO servicerelease_ledger VALUES ('shop', '2', '002_i.sql', '', 'Started', 'a/b#1', now())")
        .await;
    let report = down(&server, all.path(), "a/b#1").await;
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    server.sql("UPDATE servicerelease_ledger SET state = 'Failed' WHERE version = '2'").await;
    let report = down(&server, all.path(), "a/b#1").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 1), "{report:?}");
}
