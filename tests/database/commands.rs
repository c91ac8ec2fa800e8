//! Commands of the user's under the lock: whatever is killed, lost or made twice, each plan has one run on record, and
//! what nobody knows is said to be unknown.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use servicerelease::{api::WorkOutcome, engine::Report};
use sqlx::PgConnection;

use super::{
    job::{self, Ended, Job},
    server::Server,
};

/// A run of plan `p`.
fn wrapped(attempt: i32, again: bool) -> Value {
    json!({"plan": "p", "release": "production/shop#1", "attempt": attempt, "again": again, "lockTimeout": "500ms", "timeout": "1m"})
}

pub fn wrap(attempt: i32, again: bool) -> Value {
    json!({"wrap": wrapped(attempt, again)})
}

pub fn settle(attempt: i32) -> Value {
    json!({"settle": wrapped(attempt, false)})
}

/// The arguments of a shell that runs psql on the database; with `deaf`, like a tool that knows no variables of libpq.
pub fn psql(deaf: bool, sql: &str) -> Vec<String> {
    let ignore = if deaf { "env -u PGOPTIONS -u PGAPPNAME " } else { "" };
    let script = format!("{ignore}psql -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\" -c \"$1\"");
    ["sh", "-c", &script, "sh", sql].map(str::to_owned).to_vec()
}

pub fn start(server: &Server, task: &Value, command: &[String]) -> Job {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    Job::start(&server.url(), task, None, None, &command)
}

pub fn run(server: &Server, task: &Value, command: &[String]) -> (Report, String) {
    let Ended { report, status, output } = start(server, task, command).wait();
    let report = report.expect("a report");
    assert_eq!(status.success(), report.outcome == WorkOutcome::Done, "{report:?}");
    (report, output)
}

const COUNT: &str = "INSERT INTO ran VALUES (1)";
pub const RAN: &str = "SELECT count(*) FROM ran";

pub async fn server() -> Server {
    let server = Server::start().await;
    server.sql("CREATE TABLE ran (n int)").await;
    server
}

pub async fn row(server: &Server) -> String {
    let mut connection = server.connect().await;
    let query = "SELECT coalesce(string_agg(set_name || ' ' || version || ' ' || state, ','), '') FROM servicerelease.servicerelease_ledger";
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}

/// Holds something that a statement of a command waits for.
pub async fn gate(server: &Server) -> PgConnection {
    let mut gate = server.connect().await;
    sqlx::raw_sql("SELECT pg_advisory_lock(42)").execute(&mut gate).await.unwrap();
    gate
}

pub async fn open(mut gate: PgConnection) {
    sqlx::raw_sql("SELECT pg_advisory_unlock(42)").execute(&mut gate).await.unwrap();
}

/// A command that begins, waits at the gate, and then writes.
pub const GATED: &str = "SELECT pg_advisory_lock_shared(42); INSERT INTO ran VALUES (1)";
pub const AT_THE_GATE: &str =
    "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 42";

/// A command that writes, says so by a file, and waits for another file.
pub fn paced(directory: &Path) -> Vec<String> {
    let script = "psql -X -q \"$DATABASE_URL\" -c 'INSERT INTO ran VALUES (1)'; touch \"$1/here\"; \
                  while test ! -e \"$1/go\"; do sleep 0.1; done";
    ["sh", "-c", script, "sh"].map(str::to_owned).into_iter().chain([directory.display().to_string()]).collect()
}

pub async fn there(path: &Path) {
    let begun = std::time::Instant::now();
    while !path.exists() {
        assert!(begun.elapsed().as_secs() < 60, "{}", path.display());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_seed_is_run_once_for_all_releases_unless_it_is_known_to_have_failed() {
    let server = server().await;
    let seed = |release: &str| json!({"wrap": {"plan": "seed/a/b", "release": release, "attempt": 1, "again": false, "lockTimeout": "1s", "timeout": "30s"}});
    let (report, _) = run(&server, &seed("a/b#1-x"), &psql(false, "SELECT nothing"));
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let (report, _) = run(&server, &seed("a/b#3-x"), &psql(false, "SELECT nothing"));
    assert_eq!(report.outcome, WorkOutcome::Failed, "another release tries it anew: {report:?}");
    // A pod of a release before that starts late, after its Job is gone.
    let (report, _) = run(&server, &seed("a/b#2-x"), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::NotBegun, 0), "{report:?}");
    let (report, _) = run(&server, &seed("a/b#4-x"), &psql(false, COUNT));
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    for release in ["a/b#5-x", "a/b#1-y"] {
        let (report, _) = run(&server, &seed(release), &psql(false, COUNT));
        assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
    }
    server.sql("UPDATE servicerelease.servicerelease_ledger SET state = 'Started'").await;
    let (report, _) = run(&server, &seed("a/b#6-x"), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Unknown, 1), "{report:?}");
}

#[tokio::test]
async fn a_command_that_takes_a_migration_back_has_the_ledger_forget_the_seed() {
    let server = server().await;
    let seed = json!({"wrap": {"plan": "seed/a/b", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "30s"}});
    run(&server, &seed, &psql(false, COUNT));
    let (report, _) = run(&server, &seed, &psql(false, COUNT));
    assert!(report.message.starts_with("it is applied already"), "{report:?}");
    let down = json!({"wrap": {"plan": "down/p", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "30s",
        "seed": {"command": "seed/a/b"}}});
    let (report, _) = run(&server, &down, &psql(false, "DELETE FROM ran"));
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(row(&server).await, "command down/p Applied");
    run(&server, &seed, &psql(false, COUNT));
    assert_eq!(server.number(RAN).await, 1, "it is put in again");
}

#[tokio::test]
async fn a_command_is_run_once_for_each_plan() {
    let server = server().await;
    let (report, output) = run(&server, &wrap(1, false), &psql(false, COUNT));
    assert_eq!((report.outcome, report.message.as_str()), (WorkOutcome::Done, "exit code 0"), "{output}");
    assert_eq!(row(&server).await, "command p Applied");
    for attempt in [1, 2] {
        let (report, _) = run(&server, &wrap(attempt, true), &psql(false, COUNT));
        assert_eq!(report.outcome, WorkOutcome::Done);
        assert!(report.message.starts_with("it is applied already (by production/shop#1 at "), "{report:?}");
        let (report, _) = run(&server, &settle(attempt), &[]);
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    }
    assert_eq!(server.number(RAN).await, 1);
}

#[tokio::test]
async fn pods_that_are_made_at_the_same_time_run_it_once() {
    let server = server().await;
    let jobs: Vec<Job> = (0..4).map(|_| start(&server, &wrap(1, false), &psql(true, COUNT))).collect();
    for job in jobs {
        let report = job.wait().report.unwrap();
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    }
    assert_eq!((server.number(RAN).await, row(&server).await.as_str()), (1, "command p Applied"));
}

#[tokio::test]
async fn a_command_that_fails_is_told_in_its_own_words_without_the_password() {
    let server = server().await;
    let url = server.url().replace("shop@", "shop:s3cr3t@");
    let script = "echo fine; echo \"cannot read $DATABASE_URL\" >&2; echo the password is s3cr3t >&2; printf 'no \\377 text' >&2; exit 3";
    let task = wrap(1, false);
    let ended = Job::start(&url, &task, None, None, &["sh", "-c", script]).wait();
    let report = ended.report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let told =
        format!("exit code 3: cannot read {} | the password is *** | no ", server.url().replace("shop@", "shop:***@"));
    assert!(report.message.starts_with(&told), "{report:?}");
    assert!(!ended.output.contains("s3cr3t") && ended.output.contains("fine\n"), "{}", ended.output);
    let secret =
        "SELECT count(*) FROM servicerelease.servicerelease_ledger WHERE servicerelease_ledger::text LIKE '%s3cr3t%'";
    assert_eq!((server.number(secret).await, row(&server).await.as_str()), (0, "command p Failed"));

    // A pod that was made twice for the same try does not try again; the next try does.
    let (report, _) = run(&server, &task, &psql(false, COUNT));
    assert!(report.outcome == WorkOutcome::Failed && report.message.contains("exit code 3"), "{report:?}");
    let (report, _) = run(&server, &settle(1), &[]);
    assert!(report.outcome == WorkOutcome::Failed && report.message.contains("exit code 3"), "{report:?}");
    // Of a try that was ordered after it and has not begun, the release is asked about all the same; it is over then.
    let (report, _) = run(&server, &settle(2), &[]);
    assert!(report.outcome == WorkOutcome::Failed && report.message.contains("exit code 3"), "{report:?}");
    let (report, _) = run(&server, &wrap(2, false), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Failed, 0), "{report:?}");
    let (report, _) = run(&server, &wrap(3, false), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
}

#[tokio::test]
async fn a_command_that_failed_is_not_run_again_because_its_report_was_lost() {
    let server = server().await;
    // Its pod is evicted: the wrapper notes that it failed, and nobody reads what it reports.
    let directory = tempfile::tempdir().unwrap();
    let job = start(&server, &wrap(1, false), &paced(directory.path()));
    there(&directory.path().join("here")).await;
    job.signal("TERM");
    job.wait();
    assert_eq!(row(&server).await, "command p Failed");
    // The Job that follows is of the same try, and so is one of a try before it that comes late.
    for attempt in [1, 0] {
        let (report, _) = run(&server, &wrap(attempt, false), &psql(false, COUNT));
        assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
        assert!(report.message.contains("it was told to end (SIGTERM)"), "{report:?}");
    }
    assert_eq!(server.number(RAN).await, 1);
}

#[tokio::test]
async fn a_command_knows_its_limits_where_it_listens() {
    let server = Server::start().await;
    let ask = "CREATE TABLE seen AS SELECT current_setting('application_name') AS name, current_setting('lock_timeout') AS locks, \
               current_setting('statement_timeout') AS most, current_setting('client_connection_check_interval') AS interval, \
               current_setting('tcp_keepalives_idle') AS alive, current_setting('tcp_user_timeout') AS unheard";
    let (report, output) = run(&server, &wrap(1, false), &psql(false, ask));
    assert_eq!(report.outcome, WorkOutcome::Done, "{output}");
    let seen = "SELECT count(*) FROM seen WHERE name LIKE 'servicerelease/command ________ production/shop#1' AND locks = '500ms' \
                AND interval = '500ms' AND most <> '0' AND alive = '30' AND unheard LIKE '60%'";
    assert_eq!(server.number(seen).await, 1);
}

#[tokio::test]
async fn a_command_that_cannot_be_run_has_not_begun() {
    let server = server().await;
    let (report, _) = run(&server, &wrap(1, false), &["/no/such/program".to_owned()]);
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.starts_with("the command /no/such/program cannot be run: No such file"), "{report:?}");
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    let (report, _) = run(&server, &wrap(2, false), &psql(false, COUNT));
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
}

#[tokio::test]
async fn a_run_whose_wrapper_was_killed_is_waited_for_and_then_unknown() {
    let server = server().await;
    let gate = gate(&server).await;
    let first = start(&server, &wrap(1, false), &psql(true, GATED));
    server.until(AT_THE_GATE).await;
    first.signal("9");
    assert!(first.wait().report.is_none());
    // The command is still at work: neither the next one nor who asks for its end may go on.
    let next = start(&server, &wrap(1, false), &psql(true, COUNT));
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/wrap %' AND query LIKE '%xact_start%'";
    server.until(waits).await;
    assert_eq!(server.number(RAN).await, 0);
    open(gate).await;
    let report = next.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    let update = "UPDATE servicerelease.servicerelease_ledger SET state = 'Applied' WHERE set_name = 'command' AND version = 'p'";
    assert_eq!(report.settle, update, "{report:?}");
    assert_eq!(server.number(RAN).await, 1, "the first one went on to its end, and nobody else");

    let (report, _) = run(&server, &settle(1), &[]);
    assert!(report.outcome == WorkOutcome::Unknown && report.settle == update, "{report:?}");
    // One that may be run again is.
    let (report, _) = run(&server, &wrap(1, true), &psql(true, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 2), "{report:?}");
}

#[tokio::test]
async fn a_command_whose_wrapper_was_killed_is_waited_for_by_whoever_migrates_the_database() {
    let server = server().await;
    let gate = gate(&server).await;
    let first = start(&server, &wrap(1, false), &psql(true, GATED));
    server.until(AT_THE_GATE).await;
    first.signal("9");
    first.wait();
    // The lock is free, and the command is still at work: neither a command of another release may begin, nor files.
    let other = |timeout: &str| json!({"wrap": {"plan": "q", "release": "staging/shop#1", "again": false, "lockTimeout": "1s", "timeout": timeout}});
    let (report, _) = run(&server, &other("3s"), &psql(true, COUNT));
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    let told = "a command that was begun by production/shop#1 at ";
    let at_work = "Z is still at work: process ";
    assert!(report.message.starts_with(told) && report.message.contains(at_work), "{report:?}");
    assert!(report.message.ends_with("(plan p in servicerelease.servicerelease_ledger)"), "{report:?}");
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("001_a.sql"), COUNT).unwrap();
    let migrate =
        json!({"migrate": {"set": "shop", "release": "staging/shop#1", "lockTimeout": "1s", "timeout": "3s"}});
    let report = job::perform(&server.url(), migrate.clone(), Some(files.path()), &[]).await;
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.starts_with(told), "{report:?}");
    assert_eq!(server.number(RAN).await, 0);
    // With more time it begins after that.
    let next = start(&server, &other("1m"), &psql(true, COUNT));
    server
        .until("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/wrap staging/%'")
        .await;
    open(gate).await;
    let report = next.wait().report.unwrap();
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 2), "{report:?}");
    let report = job::perform(&server.url(), migrate, Some(files.path()), &[]).await;
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 3), "{report:?}");
    assert_eq!(row(&server).await.matches("command p Started").count(), 1, "it is not known what became of it");
}

#[tokio::test]
async fn a_person_says_what_became_of_an_unknown_run() {
    let server = server().await;
    let gate = gate(&server).await;
    let first = start(&server, &wrap(1, false), &psql(true, GATED));
    server.until(AT_THE_GATE).await;
    first.signal("9");
    first.wait();
    // As golang-migrate leaves it.
    server.sql("CREATE TABLE schema_migrations (version bigint, dirty boolean); INSERT INTO schema_migrations VALUES (4, true)").await;
    open(gate).await;
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    assert!(report.message.contains("public.schema_migrations has 4 as not finished"), "{report:?}");
    server.sql(&report.settle).await;
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let (report, _) = run(&server, &wrap(1, false), &psql(true, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
}

#[tokio::test]
async fn what_a_person_noted_as_failed_is_never_told_as_not_begun() {
    let server = server().await;
    let gate = gate(&server).await;
    let first = start(&server, &wrap(1, false), &psql(true, GATED));
    server.until(AT_THE_GATE).await;
    first.signal("9");
    first.wait();
    open(gate).await;
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    server.sql("UPDATE servicerelease.servicerelease_ledger SET state = 'Failed'").await;
    // Whatever number whoever asks has: the row is of the release.
    for attempt in [1, 0, 4] {
        let (report, _) = run(&server, &settle(attempt), &[]);
        assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
        assert!(report.message.ends_with("): a person has noted that it failed"), "{report:?}");
    }
    let (report, _) = run(&server, &wrap(4, false), &psql(true, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Failed, 1), "{report:?}");
}

#[tokio::test]
async fn without_the_lock_nothing_is_begun() {
    let server = server().await;
    let mut other = server.connect().await;
    let lock = "SET application_name = 'the other one'; SELECT pg_advisory_lock(x'7372656c65617365'::bigint)";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let short = |kind: &str| json!({kind: {"plan": "p", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "1s"}});
    let (report, _) = run(&server, &short("wrap"), &psql(false, COUNT));
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.starts_with("the other one (process "), "{report:?}");
    let (report, _) = run(&server, &short("settle"), &[]);
    assert_eq!(report.outcome, WorkOutcome::Unknown, "nobody knows what the other one is: {report:?}");
    assert_eq!(server.number(RAN).await, 0);
}

#[tokio::test]
async fn one_that_was_settled_as_not_begun_does_not_begin_late() {
    let server = server().await;
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!((report.outcome, report.message.as_str()), (WorkOutcome::NotBegun, "it was never begun"));
    let (report, _) = run(&server, &wrap(1, true), &psql(false, COUNT));
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert_eq!(server.number(RAN).await, 0);
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    let (report, _) = run(&server, &wrap(2, false), &psql(false, COUNT));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
}

#[tokio::test]
async fn a_schema_that_is_made_later_is_no_new_ledger() {
    let server = server().await;
    server
        .sql("CREATE ROLE worker LOGIN; GRANT CREATE ON SCHEMA public TO worker; GRANT INSERT ON ran TO worker")
        .await;
    let url = server.url_of("worker", "postgres");
    let command = psql(false, COUNT);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let run = |task: Value| Job::start(&url, &task, None, None, &command).wait().report.unwrap();
    let report = run(wrap(1, false));
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    server.sql("CREATE SCHEMA servicerelease AUTHORIZATION worker").await;
    let report = run(wrap(1, false));
    assert!(report.message.starts_with("it is applied already"), "{report:?}");
    server.sql("CREATE SCHEMA worker AUTHORIZATION worker; DROP SCHEMA servicerelease CASCADE").await;
    let report = run(settle(1));
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
}

#[tokio::test]
async fn a_ledger_that_was_made_for_files_alone_is_extended() {
    let server = server().await;
    server
        .sql(
            "CREATE SCHEMA servicerelease; CREATE TABLE servicerelease.servicerelease_ledger (set_name text, version text, name text NOT NULL, checksum text NOT NULL, \
             state text NOT NULL, release text NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), \
             finished_at timestamptz, PRIMARY KEY (set_name, version))",
        )
        .await;
    let (report, _) = run(&server, &wrap(1, false), &psql(false, COUNT));
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let _ = job::perform(&server.url(), settle(1), None, &[]).await;
    assert_eq!(row(&server).await, "command p Applied");
}

/// A tool as golang-migrate is: it has a table of its own, and writes there whatever it does.
fn tool(directory: &Path, sql: &str) -> Vec<String> {
    let program = directory.join("migrate");
    let script = "#!/bin/sh\nexec psql -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\" -c \"$2\"\n";
    fs::write(&program, script).unwrap();
    Command::new("chmod").arg("+x").arg(&program).status().unwrap();
    [program.to_str().unwrap(), "up", sql].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_tool_that_stopped_half_way_is_told_with_what_mends_it() {
    let server = server().await;
    let dirty =
        "CREATE TABLE schema_migrations (version int, dirty bool); INSERT INTO schema_migrations VALUES (3, true)";
    let script = "psql -X -q \"$DATABASE_URL\" -c \"$1\"; echo 'no such table' >&2; exit 1";
    let command = ["sh", "-c", script, "sh", dirty].map(str::to_owned);
    let told = "public.schema_migrations has 3 as not finished: golang-migrate stopped half-way: look what it made, finish or undo it, \
                then `migrate force VERSION`";
    let (report, _) = run(&server, &wrap(1, false), &command);
    assert_eq!((report.outcome, report.half_way), (WorkOutcome::Failed, vec![told.to_owned()]));
    assert!(report.message.contains("no such table"), "its own words are not pushed out: {}", report.message);
    let (report, _) = run(&server, &settle(1), &[]);
    assert_eq!((report.outcome, report.half_way), (WorkOutcome::Failed, vec![told.to_owned()]));
}

#[tokio::test]
async fn a_tool_that_had_nothing_to_do_says_so() {
    let server = server().await;
    let directory = tempfile::tempdir().unwrap();
    let run = |attempt: i32, plan: &str, sql: &str| {
        let mut task = wrap(attempt, false);
        task["wrap"]["plan"] = json!(plan);
        run(&server, &task, &tool(directory.path(), sql)).0
    };
    let first =
        "CREATE TABLE schema_migrations (version int, dirty bool); INSERT INTO schema_migrations VALUES (1, false)";
    assert!(!run(1, "first", first).unchanged, "its table was not there");
    let idle = run(1, "idle", "SELECT 1");
    assert!(idle.unchanged && idle.message.contains("it had nothing to do"), "{idle:?}");
    let again = run(1, "idle", "SELECT 1");
    assert!(again.unchanged && again.message.starts_with("it is applied already"), "{again:?}");
    assert!(!run(1, "second", "UPDATE schema_migrations SET version = 2").unchanged);
    assert!(!run(1, "failed", "SELECT nothing").unchanged);
    let mut settle = settle(1);
    settle["settle"]["plan"] = json!("idle");
    let (settled, _) = self::run(&server, &settle, &[]);
    assert!(settled.unchanged, "{settled:?}");
}
