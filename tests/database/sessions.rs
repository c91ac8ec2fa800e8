//! The processes and sessions of a command of the user's: what is killed, told to end, waits in everybody's way or loses its
//! server in the middle. Whatever is left on the server is ended or waited for, and nobody else's session is touched.

use std::{fs, process::Command};

use serde_json::json;
use servicerelease::api::WorkOutcome;

use super::{
    commands::{AT_THE_GATE, GATED, RAN, gate, open, paced, psql, row, run, server, settle, start, there, wrap},
    job::Job,
};

fn kill(id: &str) {
    assert!(Command::new("kill").args(["-9", id]).status().unwrap().success());
}

/// Processes whose arguments have a word, apart from the operator's program itself.
fn processes(word: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    all.filter(|id| {
        let Ok(line) = fs::read(format!("/proc/{id}/cmdline")) else { return false };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(word) && !line.contains("service-release-operator")
    })
    .collect()
}

#[tokio::test]
async fn a_command_that_was_killed_has_failed_once_its_server_process_is_gone() {
    let server = server().await;
    let gate = gate(&server).await;
    let job =
        start(&server, &wrap(1, false), &psql(true, &format!("/* to be killed {} */ {GATED}", std::process::id())));
    server.until(AT_THE_GATE).await;
    for id in processes(&format!("to be killed {}", std::process::id())) {
        kill(&id);
    }
    // Its server process goes on: the record stays open until it has ended.
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/wrap %' AND query LIKE '%xact_start%'").await;
    assert_eq!(row(&server).await, "command p Started");
    open(gate).await;
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert!(report.message.starts_with("killed by signal 9"), "{report:?}");
    assert_eq!(row(&server).await, "command p Failed");
    // What it had sent was done by then, so that what is read now stays so.
    assert_eq!(server.number(RAN).await, 1);
}

#[tokio::test]
async fn a_wrapper_that_is_told_to_end_ends_its_command_and_says_so() {
    let server = server().await;
    let _gate = gate(&server).await;
    for (attempt, deaf) in [(1, false), (2, true)] {
        let job = start(&server, &wrap(attempt, false), &psql(deaf, GATED));
        server.until(AT_THE_GATE).await;
        job.signal("TERM");
        let report = job.wait().report.unwrap();
        assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
        assert!(report.message.starts_with("it was told to end (SIGTERM)"), "{report:?}");
        assert_eq!(row(&server).await, "command p Failed");
        assert_eq!(
            server.number(&AT_THE_GATE.replace("count(*) > 0", "count(*)")).await,
            0,
            "no server process is left"
        );
    }
    assert_eq!(server.number(RAN).await, 0);
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_even_if_it_does_not_listen() {
    let server = server().await;
    let task = json!({"wrap": {"plan": "p", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "2s"}});
    let word = format!("deaf-{}", std::process::id());
    let script = format!("trap '' TERM; echo begun; while true; do sleep 0.1; done # {word}");
    let (report, _) = run(&server, &task, &["sh".to_owned(), "-c".into(), script]);
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert_eq!(report.message, "it took longer than 2s, and was ended; killed by signal 9: begun");
    assert_eq!(processes(&word), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_command_leaves_running_is_ended_with_it() {
    let server = server().await;
    let word = format!("left-{}", std::process::id());
    let script = format!("sh -c 'while true; do sleep 0.1; done # {word}' & exit 0");
    let (report, _) = run(&server, &wrap(1, false), &["sh".to_owned(), "-c".into(), script]);
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(processes(&word), Vec::<String>::new());
}

#[tokio::test]
async fn a_wait_for_a_lock_that_is_in_everybodys_way_is_cancelled_from_outside() {
    let server = server().await;
    // Of another role than the command's.
    server.sql("CREATE ROLE reporter LOGIN; GRANT SELECT ON ran TO reporter").await;
    let mut user = server.connect_as("reporter", "postgres").await.unwrap();
    sqlx::raw_sql("SET application_name = 'a report'; BEGIN; SELECT * FROM ran").execute(&mut user).await.unwrap();
    let (report, _) = run(&server, &wrap(1, false), &psql(true, "ALTER TABLE ran ADD COLUMN at timestamptz"));
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let told = "a statement that waited for a lock longer than 500ms was cancelled: on ran, which process ";
    assert!(
        report.message.starts_with(told) && report.message.contains("(a report) has; exit code 1: ERROR:"),
        "{report:?}"
    );
    sqlx::raw_sql("COMMIT").execute(&mut user).await.unwrap();
    let (report, _) = run(&server, &wrap(2, false), &psql(true, "ALTER TABLE ran ADD COLUMN at timestamptz"));
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
}

#[tokio::test]
async fn a_command_with_a_role_of_its_own_is_known_by_its_address() {
    let server = server().await;
    server.sql("CREATE ROLE tool LOGIN; ALTER TABLE ran OWNER TO tool").await;
    let url = server.url_of("tool", "postgres");
    let command = |sql: &str| {
        let words =
            ["env", "-u", "PGOPTIONS", "-u", "PGAPPNAME", "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", &url, "-c", sql];
        words.map(str::to_owned).to_vec()
    };
    let mut user = server.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM ran").execute(&mut user).await.unwrap();
    let (report, _) = run(&server, &wrap(1, false), &command("ALTER TABLE ran ADD COLUMN at timestamptz"));
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let told = "a statement that waited for a lock longer than 500ms was cancelled: on ran, which process ";
    assert!(report.message.starts_with(told), "{report:?}");
    sqlx::raw_sql("COMMIT").execute(&mut user).await.unwrap();
    // Its server process is waited for, and ended.
    let _gate = gate(&server).await;
    let job = start(&server, &wrap(2, false), &command(GATED));
    server.until(AT_THE_GATE).await;
    job.signal("TERM");
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert_eq!(server.number(&AT_THE_GATE.replace("count(*) > 0", "count(*)")).await, 0, "no server process is left");
}

/// The server shows an ordinary role neither the address of another role's session nor what it does: preflight asks for the
/// right to see it (rights::over_tool), since without it this is what happens.
#[tokio::test]
async fn sessions_of_another_role_are_waited_for_only_by_whoever_may_see_them() {
    let server = server().await;
    let roles = "CREATE ROLE direct LOGIN; CREATE ROLE tool LOGIN; ALTER TABLE ran OWNER TO tool; \
                 GRANT CREATE ON DATABASE postgres TO direct; GRANT CREATE ON SCHEMA public TO direct";
    server.sql(roles).await;
    let (direct, tool) = (server.url_of("direct", "postgres"), server.url_of("tool", "postgres"));
    let at_the_gate = AT_THE_GATE.replace("count(*) > 0", "count(*)");
    for (attempt, may_see) in [(1, false), (2, true)] {
        if may_see {
            server.sql("GRANT pg_read_all_stats, pg_signal_backend TO direct").await;
        }
        let gate = gate(&server).await;
        let word = format!("another role {attempt} {}", std::process::id());
        let sql = format!("/* {word} */ {GATED}");
        let command = ["env", "-u", "PGOPTIONS", "-u", "PGAPPNAME", "psql", "-X", "-q", &tool, "-c", &sql];
        let job = Job::start(&direct, &wrap(attempt, false), None, None, &command);
        server.until(AT_THE_GATE).await;
        for id in processes(&word) {
            kill(&id);
        }
        if may_see {
            let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/wrap %' \
                         AND query LIKE '%xact_start%'";
            server.until(waits).await;
            assert_eq!(row(&server).await, "command p Started");
            open(gate).await;
            let report = job.wait().report.unwrap();
            assert_eq!((report.outcome, server.number(&at_the_gate).await), (WorkOutcome::Failed, 0), "{report:?}");
        } else {
            let report = job.wait().report.unwrap();
            let told = (report.outcome, server.number(&at_the_gate).await);
            assert_eq!(told, (WorkOutcome::Failed, 1), "it is told as ended, and is still at work: {report:?}");
            open(gate).await;
            server.until(&format!("({at_the_gate}) = 0")).await;
        }
    }
}

#[tokio::test]
async fn a_wait_for_a_row_is_cancelled_from_outside_while_a_table_is_closed_to_others() {
    let server = server().await;
    server.sql("CREATE TABLE users (); INSERT INTO ran VALUES (1)").await;
    let mut user = server.connect().await;
    sqlx::raw_sql("SET application_name = 'servicerelease/orders'; BEGIN; UPDATE ran SET n = 2")
        .execute(&mut user)
        .await
        .unwrap();
    let task =
        json!({"wrap": {"plan": "p", "release": "a/b#1", "again": false, "lockTimeout": "500ms", "timeout": "20s"}});
    let change = "BEGIN; ALTER TABLE users ADD COLUMN at int; UPDATE ran SET n = 3; COMMIT";
    let (report, _) = run(&server, &task, &psql(true, change));
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let told = "a statement that waited for a lock longer than 500ms was cancelled: on a row, which process ";
    assert!(report.message.starts_with(told), "{report:?}");
    // One that is in nobody's way waits as long as it has time.
    let task =
        json!({"wrap": {"plan": "q", "release": "a/b#1", "again": false, "lockTimeout": "500ms", "timeout": "3s"}});
    let (report, _) = run(&server, &task, &psql(true, "UPDATE ran SET n = 3"));
    assert!(report.message.starts_with("it took longer than 3s, and was ended"), "{report:?}");
}

#[tokio::test]
async fn an_application_of_the_same_role_and_address_is_not_taken_for_the_command() {
    let server = server().await;
    let web = "SET application_name = 'web'; SELECT 1";
    let mut first = server.connect().await;
    sqlx::raw_sql(web).execute(&mut first).await.unwrap();
    // It began after the command, and is at work when that ends.
    let directory = tempfile::tempdir().unwrap();
    let started = start(&server, &wrap(1, false), &paced(directory.path()));
    there(&directory.path().join("here")).await;
    let mut second = server.connect().await;
    sqlx::raw_sql(web).execute(&mut second).await.unwrap();
    let busy = tokio::spawn(async move { sqlx::raw_sql("SELECT pg_sleep(600)").execute(&mut second).await });
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'web' AND state = 'active'").await;
    fs::write(directory.path().join("go"), "").unwrap();
    let report = tokio::task::spawn_blocking(|| started.wait()).await.unwrap().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'web' AND state = 'active'";
    assert_eq!(server.number(at_work).await, 1, "it was not cancelled");
    busy.abort();
}

/// A command whose first session says its name, and whose second has one of its own.
fn renamed(sql: &str) -> Vec<String> {
    let script = "psql -X -q \"$DATABASE_URL\" -c 'SELECT pg_sleep(1)'; exec env -u PGOPTIONS PGAPPNAME='a tool of Java' \
                  psql -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\" -c \"$1\"";
    ["sh", "-c", script, "sh", sql].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_session_without_the_name_is_the_commands_even_if_another_of_it_had_the_name() {
    let server = server().await;
    let task = json!({"wrap": {"plan": "p", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "3s"}});
    let late = "BEGIN; CREATE TABLE late (); SELECT pg_sleep(20); COMMIT";
    let (report, _) = run(&server, &task, &renamed(late));
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert!(report.message.starts_with("it took longer than 3s, and was ended"), "{report:?}");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'a tool of Java' AND state <> 'idle'";
    assert_eq!(server.number(left).await, 0, "it was cancelled");
    assert_eq!(server.number("SELECT count(*) FROM pg_class WHERE relname = 'late'").await, 0);

    let mut user = server.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM ran").execute(&mut user).await.unwrap();
    let (report, _) = run(&server, &wrap(1, false), &renamed("ALTER TABLE ran ADD COLUMN at timestamptz"));
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let told = "a statement that waited for a lock longer than 500ms was cancelled: on ran, which process ";
    assert!(report.message.starts_with(told), "{report:?}");
}

#[tokio::test]
async fn a_session_that_may_be_the_applications_is_not_cancelled_and_leaves_the_outcome_unknown() {
    let server = server().await;
    let mut web = server.connect().await;
    sqlx::raw_sql("SET application_name = 'web'; SELECT 1").execute(&mut web).await.unwrap();
    let gate = gate(&server).await;
    let job = start(&server, &wrap(1, false), &psql(true, GATED));
    server.until(AT_THE_GATE).await;
    job.signal("TERM");
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    let told = "it ended, but its server processes did not: process ";
    let doubt = ", of its role and address, which may be another's; it was told to end (SIGTERM)";
    assert!(report.message.starts_with(told) && report.message.contains(doubt), "{report:?}");
    assert_eq!(row(&server).await, "command p Started");
    open(gate).await;
    server.until("SELECT count(*) = 1 FROM ran").await;
    let (report, _) = run(&server, &settle(1), &[]);
    assert!(report.outcome == WorkOutcome::Unknown && !report.settle.is_empty(), "{report:?}");
}

#[tokio::test]
async fn a_server_that_is_started_again_in_the_middle_is_gone_on_with() {
    let mut server = server().await;
    let directory = tempfile::tempdir().unwrap();
    let job = start(&server, &wrap(1, false), &paced(directory.path()));
    there(&directory.path().join("here")).await;
    server.stop("INT");
    server.begin().await;
    fs::write(directory.path().join("go"), "").unwrap();
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!((server.number(RAN).await, row(&server).await.as_str()), (1, "command p Applied"));
}

#[tokio::test]
async fn a_server_that_does_not_come_back_leaves_the_outcome_unknown() {
    let mut server = server().await;
    let directory = tempfile::tempdir().unwrap();
    let job = start(&server, &wrap(1, false), &paced(directory.path()));
    there(&directory.path().join("here")).await;
    server.stop("INT");
    // With little time left, so that nobody waits for a minute.
    job.signal("TERM");
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    assert!(report.message.starts_with("there is no way to the database any more"), "{report:?}");
    server.begin().await;
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
}

#[tokio::test]
async fn whoever_lost_the_lock_to_another_run_of_the_plan_ends_and_does_not_know() {
    let server = server().await;
    let directory = tempfile::tempdir().unwrap();
    let job = start(&server, &wrap(1, false), &paced(directory.path()));
    there(&directory.path().join("here")).await;
    // As another run would have written it, in whose place this one must not write.
    server.sql("UPDATE servicerelease.servicerelease_ledger SET run = '{\"token\": \"another\"}', release = 'another/one#2'").await;
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/wrap %'").await;
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    assert!(report.message.starts_with("the lock was lost, and somebody else began the same"), "{report:?}");
    let stays = "SELECT count(*) FROM servicerelease.servicerelease_ledger WHERE state = 'Started' AND release = 'another/one#2'";
    assert_eq!(server.number(stays).await, 1);
}

#[tokio::test]
async fn a_lock_that_is_lost_for_a_moment_is_taken_again() {
    let server = server().await;
    let directory = tempfile::tempdir().unwrap();
    let job = start(&server, &wrap(1, false), &paced(directory.path()));
    there(&directory.path().join("here")).await;
    let holders = "FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = x'7372656c'::int";
    server.sql(&format!("SELECT pg_terminate_backend(pid) {holders}")).await;
    server.until(&format!("SELECT count(*) > 0 {holders}")).await;
    fs::write(directory.path().join("go"), "").unwrap();
    let report = job.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(row(&server).await, "command p Applied");
}
