//! Rehearsals on a real server: what a migration would do is found out, and nothing of it is done.

use std::fs;

use serde_json::{Value, json};
use servicerelease::{
    api::{RehearsalStatus, WorkOutcome},
    database::backup::known,
    engine::Report,
};

use super::{
    job::{self, take},
    server::Server,
};

async fn rehearsed(server: &Server, all: &[(&str, &str)], verify: Value) -> Report {
    let (backups, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    take(&server.url(), backups.path(), "shop").await.unwrap();
    for (name, text) in all {
        fs::write(files.path().join(name), text).unwrap();
    }
    let run = json!({"set": "shop", "release": "production/shop#1", "lockTimeout": "1s", "timeout": "1m"});
    let task = json!({"rehearse": {"name": "shop", "sql": run, "verify": verify, "timeout": "1m"}});
    let report = job::perform_in(&server.url(), task, Some(files.path()), Some(backups.path()), &[]).await;
    assert!(known(backups.path(), "shop").unwrap().proven_at.is_some(), "it is a proof, too: {report:?}");
    report
}

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text); CREATE TABLE log (at int);
    INSERT INTO users SELECT n, 'x' FROM generate_series(1, 1000) n; ANALYZE";
const LEFT: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE 'servicerelease_scratch_%'";

#[tokio::test]
async fn what_a_migration_does_is_found_out_beside_the_database() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let all = [
        ("001_add.sql", "ALTER TABLE users ADD COLUMN mail text; CREATE INDEX log_at ON log (at)"),
        ("002_type.sql", "ALTER TABLE users ALTER COLUMN id TYPE bigint"),
        ("003_drop.sql", "CREATE TABLE new (id int);\nALTER TABLE users DROP COLUMN name"),
    ];
    let report =
        rehearsed(&server, &all, json!({"columns": [{"table": "users", "name": "id", "type": "bigint"}]})).await;
    assert_eq!((report.outcome, report.applied.len(), report.loses_data), (WorkOutcome::Done, 3, true), "{report:?}");
    let RehearsalStatus { restored_millis, locks, rewritten, .. } = report.rehearsal.unwrap();
    assert!(restored_millis > 0);
    assert_eq!(locks, ["AccessExclusiveLock on users", "ShareLock on log"]);
    assert_eq!(rewritten, ["public.users (1000 rows)"]);
    let told = [
        "drops column public.users.name with its values",
        "002_type.sql, line 1: changes a column's type: values may be cut off",
        "003_drop.sql, line 2: drops a column with its values",
    ];
    assert_eq!(report.risks, told);
    let columns =
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'users' AND data_type = 'integer'";
    assert_eq!((server.number(columns).await, server.number(LEFT).await), (1, 0));
    assert_eq!(server.number("SELECT count(*) FROM pg_class WHERE relname = 'servicerelease_ledger'").await, 0);
}

#[tokio::test]
async fn what_code_does_is_found_out_where_nobody_can_read_it() {
    let server = Server::start().await;
    server.sql(USERS).await;
    // Without an index nothing but ANALYZE tells the server how many rows a restored table has.
    server
        .sql(
            "CREATE TABLE victims (a int); INSERT INTO victims VALUES (1), (2), (3); \
             CREATE TABLE bare (a varchar(9)); INSERT INTO bare SELECT n FROM generate_series(1, 5000) n; \
             CREATE FUNCTION tidy() RETURNS void LANGUAGE sql AS 'DELETE FROM users WHERE id > 10'",
        )
        .await;
    let known =
        "IF (SELECT reltuples FROM pg_class WHERE relname = 'bare') <> 5000 THEN RAISE 'no statistics'; END IF;";
    let all = [
        ("001.sql", format!("DO $$ BEGIN {known} EXECUTE 'DROP TABLE victims'; END $$;")),
        ("002.sql", "SELECT tidy(); ALTER TABLE bare ALTER a TYPE varchar(4) USING left(a, 4)".to_owned()),
    ];
    let all: Vec<(&str, &str)> = all.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let report = rehearsed(&server, &all, Value::Null).await;
    assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, true), "{report:?}");
    let mut risks = report.risks;
    risks.sort();
    let told = [
        "002.sql, line 1: changes a column's type: values may be cut off",
        "deletes 990 of the 1000 rows of public.users",
        "drops table public.victims with its 3 rows",
        "makes column public.bare.a character varying(4) of character varying(9): values may be cut off",
    ];
    assert_eq!(risks, told);
    let rewritten = ["public.bare (5000 rows)", "public.users (990 rows deleted)"];
    assert_eq!(report.rehearsal.unwrap().rewritten, rewritten);
    assert_eq!(server.number("SELECT count(*) FROM victims").await, 3);

    let over = [(
        "001.sql",
        "DO $$ BEGIN UPDATE bare SET a = '0'; DELETE FROM victims; INSERT INTO victims VALUES (7), (8), (9); END $$",
    )];
    let report = rehearsed(&server, &over, Value::Null).await;
    assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, true), "{report:?}");
    let told = ["5000 rows of public.bare", "3 rows of public.victims"];
    assert_eq!(report.risks, told.map(|told| format!("writes over {told} by code that nobody reads")));

    let harmless = [("001.sql", "DO $$ BEGIN CREATE TYPE mood AS ENUM ('glad'); END $$")];
    let report = rehearsed(&server, &harmless, Value::Null).await;
    assert_eq!((report.outcome, report.loses_data, report.risks.len()), (WorkOutcome::Done, false, 0), "{report:?}");
}

#[tokio::test]
async fn a_migration_that_fails_on_the_data_is_known_before() {
    let server = Server::start().await;
    server.sql(USERS).await;
    server.sql("INSERT INTO users VALUES (2000, NULL)").await;
    let all = [("001_null.sql", "ALTER TABLE users ALTER COLUMN name SET NOT NULL")];
    let report = rehearsed(&server, &all, Value::Null).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    let told =
        "on the backup it fails: 001_null.sql: line 1: column \"name\" of relation \"users\" contains null values";
    assert!(report.message.starts_with(told), "{report:?}");
    let told = "001_null.sql, line 1: makes a column NOT NULL without DEFAULT: rows that lack a value, also those of older code, are refused";
    assert_eq!((report.risks.as_slice(), report.loses_data), (&[told.to_owned()][..], true));
    assert_eq!(server.number(LEFT).await, 0);
}

#[tokio::test]
async fn what_refuses_rows_of_older_code_loses_them_unless_there_is_a_default() {
    let server = Server::start().await;
    server.sql(USERS).await;
    server.sql("ALTER TABLE users ALTER name SET DEFAULT 'nobody'").await;
    let required = ("001_name.sql", "ALTER TABLE users ALTER COLUMN name SET NOT NULL");
    let report = rehearsed(&server, &[required], Value::Null).await;
    assert_eq!((report.outcome, report.loses_data, report.risks.len()), (WorkOutcome::Done, false, 0), "{report:?}");
    let taken = ("002_no_default.sql", "ALTER TABLE users ALTER COLUMN name DROP DEFAULT");
    let added = ("003_mail.sql", "ALTER TABLE log ADD COLUMN mail text NOT NULL");
    let report = rehearsed(&server, &[required, taken, added], Value::Null).await;
    let told = [
        "adds column public.log.mail that older code gives no value",
        "requires a value of public.users.name, which rows and older code may not have",
    ];
    let mut risks = report.risks.clone();
    risks.sort();
    assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, true), "{report:?}");
    assert_eq!(risks, told);
}

#[tokio::test]
async fn what_is_written_over_no_rehearsal_sees_and_its_statement_tells() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let added = ("001_add.sql", "ALTER TABLE users ADD mail text; UPDATE users SET mail = name");
    let report = rehearsed(&server, &[added], Value::Null).await;
    assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, false), "{report:?}");
    let over = ("002_over.sql", "UPDATE users SET name = 'y'");
    let report = rehearsed(&server, &[added, over], Value::Null).await;
    let told = "002_over.sql, line 1: writes over values that are there, which no rehearsal sees";
    assert_eq!((report.risks.as_slice(), report.loses_data), (&[told.to_owned()][..], true));
}

#[tokio::test]
async fn rows_that_statements_rewrite_are_counted_by_table() {
    let server = Server::start().await;
    server.sql(USERS).await;
    server.sql("CREATE TABLE few (a int); INSERT INTO few VALUES (1), (2)").await;
    let twice = "UPDATE users SET name = 'y'";
    let moved = "INSERT INTO log SELECT id FROM users WHERE id > 990; DELETE FROM users WHERE id > 990";
    let made = "CREATE TABLE made (a int); INSERT INTO made VALUES (1); UPDATE made SET a = 2";
    let told = ["public.users (2000 rows updated, 10 rows deleted)", "public.few (2 rows, 1 rows updated)"];
    let all = [
        ("001.sql", format!("{twice}; {twice}")),
        ("002.sql", moved.to_owned()),
        ("003.sql", format!("{made}; UPDATE few SET a = 3 WHERE a = 1; ALTER TABLE few ALTER a TYPE bigint")),
    ];
    let files: Vec<(&str, &str)> = all.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let report = rehearsed(&server, &files, Value::Null).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(report.rehearsal.unwrap().rewritten, told);
    // What another release has noted in its ledger is none of it.
    let run = json!({"set": "shop", "release": "production/shop#1", "lockTimeout": "1s", "timeout": "1m"});
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("001.sql"), "SELECT 1").unwrap();
    let migrated = job::perform(&server.url(), json!({"migrate": run}), Some(directory.path()), &[]).await;
    assert_eq!(migrated.outcome, WorkOutcome::Done, "{migrated:?}");
    let concurrently = [("001.sql", "SELECT 1"), ("002.sql", "CREATE INDEX CONCURRENTLY i ON log (at)")];
    let report = rehearsed(&server, &concurrently, Value::Null).await;
    assert_eq!(report.rehearsal.unwrap().rewritten, Vec::<String>::new());

    let script: String = all.iter().map(|(_, text)| format!(" -c \"{text}\"")).collect();
    let report = command(&server, &script, Value::Null).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(report.rehearsal.unwrap().rewritten, told);
}

#[tokio::test]
async fn a_migration_that_does_not_do_what_it_should_is_known_before() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let report = rehearsed(&server, &[("001.sql", "SELECT 1")], json!({"tables": ["orders"]})).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert_eq!(report.message, "the migration ran, but then: table orders is missing");
    assert_eq!(server.number(LEFT).await, 0);
}

/// A rehearsal of one file and of a seed that is due after it, whose rows a query wants.
async fn seeded(server: &Server, all: &[(&str, &str)], seed: Value) -> Report {
    let (backups, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    take(&server.url(), backups.path(), "shop").await.unwrap();
    fs::create_dir(files.path().join("seed")).unwrap();
    fs::write(files.path().join("001_zones.sql"), "CREATE TABLE zones (name text UNIQUE)").unwrap();
    for (name, text) in all {
        fs::write(files.path().join("seed").join(name), text).unwrap();
    }
    let run = json!({"set": "shop", "release": "production/shop#1", "lockTimeout": "1s", "timeout": "1m"});
    let query =
        json!({"name": "zones", "query": "SELECT count(*) FROM zones", "expect": "Value", "value": {"equals": "2"}});
    let verify = json!({"tables": ["zones"], "queries": [query]});
    let task = json!({"rehearse": {"name": "shop", "sql": run, "seed": seed, "verify": verify, "timeout": "1m"}});
    let report = job::perform_in(&server.url(), task, Some(files.path()), Some(backups.path()), &[]).await;
    assert_eq!((server.number(LEFT).await, server.number("SELECT count(*) FROM users").await), (0, 1000));
    report
}

#[tokio::test]
async fn a_seed_that_is_due_comes_before_the_verification_as_in_earnest() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let run = json!({"set": "seed", "release": "production/shop#1", "lockTimeout": "1s", "timeout": "1m"});
    let files = json!({"files": run});
    let rows = [("001_rows.sql", "INSERT INTO zones VALUES ('north'), ('south')")];
    let report = seeded(&server, &rows, files.clone()).await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 1), "{report:?}");
    assert!(report.message.ends_with("; the seed ran after it"), "{report:?}");

    let fewer = [("001_rows.sql", "INSERT INTO zones VALUES ('north')")];
    let report = seeded(&server, &fewer, files.clone()).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert!(report.message.starts_with("the migration ran, but then: query zones:"), "{report:?}");
    let twice = [("001_rows.sql", "INSERT INTO zones VALUES ('north'), ('north')")];
    let report = seeded(&server, &twice, files.clone()).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert!(report.message.starts_with("the migration ran, but the seed then fails: 001_rows.sql: "), "{report:?}");
    let report = seeded(&server, &[], files).await;
    assert!(report.message.starts_with("of the seed: there is no file"), "{report:?}");

    // Nobody's pod is run here: what may be about its rows is left to the real database, and said.
    let report = seeded(&server, &[], json!("pod")).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert!(report.message.contains("verify.queries were not asked"), "{report:?}");
    let report = seeded(&server, &[], Value::Null).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "without a seed they are asked: {report:?}");
}

async fn command(server: &Server, script: &str, verify: Value) -> Report {
    let backups = tempfile::tempdir().unwrap();
    take(&server.url(), backups.path(), "shop").await.unwrap();
    let task = json!({"rehearse": {"name": "shop", "verify": verify, "timeout": "1m"}});
    let script = format!("psql -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\" {script}");
    let command = ["sh", "-c", &script];
    job::perform_in(&server.url(), task, None, Some(backups.path()), &command).await
}

#[tokio::test]
async fn what_a_command_does_is_seen_from_outside() {
    let server = Server::start().await;
    server.sql(USERS).await;
    server.sql("CREATE TABLE old (a int, b text, c varchar(20)); INSERT INTO old SELECT n, n, n FROM generate_series(1, 10) n").await;
    server.sql("CREATE TABLE gone (a int); INSERT INTO gone VALUES (1), (2)").await;
    // The locks are held until they must have been seen.
    let script = "-c 'BEGIN; ALTER TABLE users ALTER COLUMN id TYPE bigint; ALTER TABLE old DROP COLUMN b, ALTER COLUMN c TYPE varchar(10); \
                  DELETE FROM old WHERE a > 7; DROP TABLE gone; CREATE INDEX log_at ON log (at); ALTER TABLE users ALTER COLUMN name SET NOT NULL; \
                  ALTER TABLE users ADD COLUMN mail text; CREATE TABLE new (a int); SELECT pg_sleep(1); COMMIT'";
    let report = command(&server, script, json!({"tables": ["new"]})).await;
    assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, true), "{report:?}");
    let mut risks = report.risks.clone();
    risks.sort();
    let told = [
        "deletes 3 of the 10 rows of public.old",
        "drops column public.old.b with its values",
        "drops table public.gone with its 2 rows",
        "makes column public.old.c character varying(10) of character varying(20): values may be cut off",
        "requires a value of public.users.name, which rows and older code may not have",
    ];
    assert_eq!(risks, told);
    assert!(report.risks.last().unwrap().starts_with("requires"), "what loses data comes first: {:?}", report.risks);
    let RehearsalStatus { migrated_millis, locks, rewritten, .. } = report.rehearsal.unwrap();
    let exclusive = ["gone", "old", "users"].map(|table| format!("AccessExclusiveLock on public.{table}"));
    let all: Vec<String> = exclusive.into_iter().chain(["ShareLock on public.log".to_owned()]).collect();
    assert!(migrated_millis >= 1000 && locks == all, "{locks:?}");
    assert_eq!(rewritten, ["public.users (1000 rows)", "public.old (10 rows, 3 rows deleted)"]);
    assert_eq!((server.number("SELECT count(*) FROM gone").await, server.number(LEFT).await), (2, 0));

    let report = command(&server, "-c 'ALTER TABLE users ADD COLUMN age int'", Value::Null).await;
    assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, false), "{report:?}");
    let report = command(&server, "-c 'ALTER TABLE nobody ADD COLUMN age int'", Value::Null).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert_eq!(report.message, "on the backup it fails: exit code 1: ERROR:  relation \"nobody\" does not exist");
    assert_eq!(server.number(LEFT).await, 0);
}

/// A rehearsal of a command on a database of its own.
async fn of_command(server: &Server, words: &[&str]) -> Report {
    let backups = tempfile::tempdir().unwrap();
    let url = server.url_of("shop", "orders");
    take(&url, backups.path(), "shop").await.unwrap();
    let task = json!({"rehearse": {"name": "shop", "timeout": "1m"}});
    job::perform_in(&url, task, None, Some(backups.path()), words).await
}

#[tokio::test]
async fn a_command_that_goes_to_the_real_database_fails_its_rehearsal() {
    let server = Server::start().await;
    server.sql("CREATE DATABASE orders").await;
    let columns = async || {
        let mut real = server.connect_as("shop", "orders").await.unwrap();
        let query = "SELECT count(*) FROM pg_class WHERE relname = 'made'";
        sqlx::query_scalar::<_, i64>(query).fetch_one(&mut real).await.unwrap()
    };
    let url = server.url_of("shop", "orders");
    // What can be seen is not run.
    let literal = format!("psql -X -q '{url}' -c 'CREATE TABLE made ()'");
    for script in [literal.as_str(), "PGDATABASE=orders psql -X -q -c 'CREATE TABLE made ()'"] {
        let report = of_command(&server, &["sh", "-c", script]).await;
        assert_eq!((report.outcome, columns().await), (WorkOutcome::Failed, 0), "{report:?}");
        let told = "it is not run: argument 2 of the command leads to the real database; let the command take the URL from DATABASE_URL";
        assert!(report.message.starts_with(told), "{report:?}");
    }
    // What cannot is found out afterwards: nobody knows then what became of the real database.
    let hidden = url.replace("orders", "ord$(printf ers)");
    for script in [format!("psql -X -q \"{hidden}\" -c 'CREATE TABLE made ()'"), "true".to_owned()] {
        let report = of_command(&server, &["sh", "-c", &script]).await;
        assert_eq!((report.outcome, report.rehearsal.is_some()), (WorkOutcome::Unknown, true), "{report:?}");
        let told = "it ended well, and was never connected to the database of the rehearsal";
        assert!(report.message.starts_with(told) && report.message.contains("rehearsal.mode: Skip"), "{report:?}");
    }
    assert_eq!(columns().await, 1);
    // However quick it is, whoever was there is counted.
    for _ in 0..3 {
        let report = of_command(&server, &["sh", "-c", "psql -X -q \"$DATABASE_URL\" -c 'SELECT 1'"]).await;
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    }
    assert_eq!(server.number(LEFT).await, 0);
}

#[tokio::test]
async fn a_rehearsal_that_is_told_to_end_ends_its_command_and_leaves_nothing() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let backups = tempfile::tempdir().unwrap();
    take(&server.url(), backups.path(), "shop").await.unwrap();
    for (timeout, signal, told) in
        [("1m", Some("TERM"), "it was told to end"), ("3s", None, "the rehearsal took longer than 3 s")]
    {
        let task = json!({"rehearse": {"name": "shop", "timeout": timeout}});
        let script = "psql -X -q \"$DATABASE_URL\" -c 'SELECT pg_sleep(100)'";
        let job = job::Job::start(&server.url(), &task, None, Some(backups.path()), &["sh", "-c", script]);
        if let Some(signal) = signal {
            server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await;
            job.signal(signal);
        }
        let report = job.wait().report.unwrap();
        assert!(report.outcome == WorkOutcome::Failed && report.message.starts_with(told), "{report:?}");
        assert_eq!(server.number(LEFT).await, 0);
    }
}

#[tokio::test]
async fn what_a_killed_rehearsal_left_is_in_nobodys_way() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let backups = tempfile::tempdir().unwrap();
    take(&server.url(), backups.path(), "shop").await.unwrap();
    let task = json!({"rehearse": {"name": "shop", "timeout": "1m"}});
    let script = "psql -X -q \"$DATABASE_URL\" -c 'SELECT pg_sleep(100)'";
    let job = job::Job::start(&server.url(), &task, None, Some(backups.path()), &["sh", "-c", script]);
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await;
    job.signal("9");
    assert!(job.wait().report.is_none());
    assert_eq!(server.number(LEFT).await, 1);
    let looks = ["sh", "-c", "psql -X -q \"$DATABASE_URL\" -c 'SELECT 1'"];
    let report = job::perform_in(&server.url(), task, None, Some(backups.path()), &looks).await;
    assert_eq!((report.outcome, server.number(LEFT).await), (WorkOutcome::Done, 0), "{report:?}");
}

/// A rehearsal that is killed while its command sleeps in the scratch database.
async fn killed(server: &Server, backups: &std::path::Path) {
    let task = json!({"rehearse": {"name": "shop", "release": RELEASE, "timeout": "1m"}});
    let script = "psql -X -q \"$DATABASE_URL\" -c 'SELECT pg_sleep(100)'";
    let job = job::Job::start(&server.url(), &task, None, Some(backups), &["sh", "-c", script]);
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await;
    job.signal("9");
    assert!(job.wait().report.is_none());
}

const RELEASE: &str = "production/shop#3-abcde";

fn clean_up(release: &str, unfinished: &[&str]) -> Value {
    json!({"cleanUp": {"release": release, "unfinished": unfinished, "timeout": "30s"}})
}

#[tokio::test]
async fn what_a_killed_rehearsal_left_is_removed_with_its_sessions() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let backups = tempfile::tempdir().unwrap();
    take(&server.url(), backups.path(), "shop").await.unwrap();
    killed(&server, backups.path()).await;
    assert_eq!(server.number(LEFT).await, 1);
    assert_eq!(server.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await, 1);
    for _ in 0..2 {
        let report = job::perform(&server.url(), clean_up(RELEASE, &[]), None, &[]).await;
        assert_eq!((report.outcome, report.left), (WorkOutcome::Done, false), "{report:?}");
        assert_eq!(server.number(LEFT).await, 0);
        assert_eq!(server.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await, 0);
    }
    assert_eq!(server.number("SELECT count(*) FROM users").await, 1000);
}

/// The session that makes a scratch database, as it stays when its client is gone and the server was not told.
async fn holder(server: &Server, backups: &std::path::Path) -> sqlx::PgConnection {
    let Ok(Some(name)) = scratch_names(server, backups).await else { panic!("there is one") };
    let mut session = server.connect().await;
    sqlx::query("SELECT set_config('application_name', $1, false)").bind(&name.0).execute(&mut session).await.unwrap();
    let lock = "SELECT pg_advisory_lock(hashtextextended($1, 0))";
    sqlx::query(lock).bind(&name.1).execute(&mut session).await.unwrap();
    session
}

/// What the session is called that rehearses, and the scratch database.
async fn scratch_names(server: &Server, backups: &std::path::Path) -> Result<Option<(String, String)>, sqlx::Error> {
    let task = json!({"rehearse": {"name": "shop", "release": RELEASE, "timeout": "1m"}});
    let script = "psql -X -q \"$DATABASE_URL\" -c 'SELECT pg_sleep(100)'";
    let job = job::Job::start(&server.url(), &task, None, Some(backups), &["sh", "-c", script]);
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await;
    let query = "SELECT application_name, (SELECT datname::text FROM pg_database WHERE datname LIKE 'servicerelease_scratch_%') \
                 FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/scratch %'";
    let found = sqlx::query_as(query).fetch_optional(&mut server.connect().await).await;
    job.signal("9");
    assert!(job.wait().report.is_none());
    found
}

#[tokio::test]
async fn a_session_that_outlives_its_client_makes_nothing_after_the_clean_up() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let backups = tempfile::tempdir().unwrap();
    take(&server.url(), backups.path(), "shop").await.unwrap();
    let mut session = holder(&server, backups.path()).await;
    // Another release waits for its own turn, and ends nobody's session.
    let report = job::perform(&server.url(), clean_up("production/other#1-abcde", &[]), None, &[]).await;
    assert_eq!((report.outcome, server.number(LEFT).await), (WorkOutcome::Done, 1), "{report:?}");
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_ok());
    let report = job::perform(&server.url(), clean_up(RELEASE, &[]), None, &[]).await;
    assert_eq!((report.outcome, server.number(LEFT).await), (WorkOutcome::Done, 0), "{report:?}");
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "it has ended first");
}

#[tokio::test]
async fn what_cannot_be_cleared_up_is_told() {
    let server = Server::start().await;
    let nobody = format!("postgres://shop@127.0.0.1:1/{}", "postgres");
    let report = job::perform(&nobody, json!({"cleanUp": {"release": RELEASE, "timeout": "2s"}}), None, &[]).await;
    assert_eq!((report.outcome, report.left), (WorkOutcome::Failed, true), "{report:?}");
    // Files of a backup that was broken off go, those of a whole one stay.
    let backups = tempfile::tempdir().unwrap();
    take(&server.url(), backups.path(), "whole").await.unwrap();
    for name in [".half.dump.part", "half.dump"] {
        fs::write(backups.path().join(name), "x").unwrap();
    }
    let task = clean_up(RELEASE, &["half", "whole"]);
    let report = job::perform_in(&server.url(), task, None, Some(backups.path()), &[]).await;
    assert_eq!((report.outcome, report.left), (WorkOutcome::Done, false), "{report:?}");
    let mut left: Vec<_> = fs::read_dir(backups.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["whole.dump", "whole.json"]);
}
