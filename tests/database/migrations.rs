//! What is applied, and how often, is read in the database itself.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::future::join_all;
use servicerelease::{
    api::WorkOutcome,
    database::migrate::{
        self, Report, Settings,
        files::{File, ordered},
    },
    engine::{Meant, Try},
};

use super::{
    cut::{Cut, Way},
    server::Server,
};

/// Files that tell how often they were run.
const COUNTED: [(&str, &str); 3] = [
    ("001_table.sql", "CREATE TABLE ran (file int); INSERT INTO ran VALUES (1);"),
    ("002_more.sql", "INSERT INTO ran VALUES (2);\nALTER TABLE ran ADD COLUMN at timestamptz DEFAULT now();"),
    ("003_role.sql", "SET search_path TO ''; CREATE ROLE worker; SET ROLE worker; SELECT 3;"),
];

fn files(all: &[(&str, &str)]) -> Vec<File> {
    ordered(all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()).expect("files")
}

fn settings() -> Settings {
    Settings {
        set: "shop".into(),
        release: "production/shop".into(),
        lock_timeout: Duration::from_millis(300),
        timeout: Duration::from_secs(60),
        plan: None,
        meant: Meant::default(),
        which: None,
        observe: false,
        confined: false,
    }
}

async fn run(server: &Server, all: &[(&str, &str)]) -> Report {
    migrate::run(&server.url(), &files(all), &settings()).await
}

fn why(report: &Report) -> &str {
    report.why.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn files_are_applied_in_their_order_and_once() {
    let server = Server::start().await;
    let report = run(&server, &COUNTED[..2]).await;
    assert_eq!((report.outcome, report.applied.len(), report.already), (WorkOutcome::Done, 2, 0), "{report:?}");
    let report = run(&server, &COUNTED).await;
    assert_eq!((report.outcome, report.applied.len(), report.already), (WorkOutcome::Done, 1, 2), "{report:?}");
    let report = run(&server, &COUNTED).await;
    assert_eq!((report.outcome, report.applied.len(), report.already), (WorkOutcome::Done, 0, 3), "{report:?}");
    assert_eq!(server.number("SELECT count(*) FROM ran").await, 2);
    assert_eq!(server.number("SELECT count(*) FROM servicerelease_ledger WHERE state = 'Applied'").await, 3);
    let by =
        "SELECT count(*) FROM servicerelease_ledger WHERE release = 'production/shop' AND finished_at >= started_at";
    assert_eq!(server.number(by).await, 3);
}

#[tokio::test]
async fn many_at_once_apply_each_file_once() {
    let server = Server::start().await;
    let reports = join_all((0..8).map(|_| run(&server, &COUNTED))).await;
    assert!(reports.iter().all(|report| report.outcome == WorkOutcome::Done), "{reports:?}");
    let applied: usize = reports.iter().map(|report| report.applied.len()).sum();
    assert_eq!((applied, server.number("SELECT count(*) FROM ran").await), (3, 2));
}

#[tokio::test]
async fn wherever_the_way_breaks_each_file_is_applied_once() {
    let server = Server::start().await;
    let way = Way::start(server.port(), usize::MAX, Cut::Message).await;
    let report = migrate::run(&server.url_at(way.port), &files(&COUNTED), &settings()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let messages = way.messages();
    assert!(messages > 20, "{messages}");
    for cut in [Cut::Message, Cut::Answer] {
        for at in 0..messages {
            server.sql("DROP TABLE ran, servicerelease_ledger; DROP ROLE worker").await;
            let way = Way::start(server.port(), at, cut).await;
            let report = migrate::run(&server.url_at(way.port), &files(&COUNTED), &settings()).await;
            assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 3), "{cut:?} {at}: {report:?}");
            assert_eq!(server.number("SELECT count(*) FROM ran").await, 2, "{cut:?} {at}");
            assert_eq!(server.number("SELECT count(*) FROM servicerelease_ledger").await, 3, "{cut:?} {at}");
        }
    }
}

/// The operator's own program, with files in a directory.
fn process(server: &Server, directory: &tempfile::TempDir, all: &[(&str, &str)]) -> Child {
    for (name, text) in all {
        fs::write(directory.path().join(name), text).expect("a file");
    }
    Command::new(env!("CARGO_BIN_EXE_service-release-operator"))
        .args(["database", "--message", "/dev/null", "--task"])
        .arg(r#"{"migrate": {"set": "shop", "release": "production/shop", "lockTimeout": "5s", "timeout": "1m"}}"#)
        .arg("--files")
        .arg(directory.path())
        .env("DATABASE_URL", server.url())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program")
}

const SLEEPS: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(1%' \
                      AND pid <> pg_backend_pid()";

#[tokio::test]
async fn a_migrator_that_is_killed_leaves_nothing_that_the_next_one_runs_into() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let slow = [("001_slow.sql", "CREATE TABLE ran (file int); INSERT INTO ran VALUES (1); SELECT pg_sleep(1.5);")];
    let mut first = process(&server, &directory, &slow);
    server.until(SLEEPS).await;
    first.kill().unwrap();
    first.wait().unwrap();
    // Its server process goes on until it looks for its client, and has the lock: the next one waits for its end.
    let report = run(&server, &slow).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(server.number("SELECT count(*) FROM ran").await, 1);
}

#[tokio::test]
async fn a_server_that_is_started_again_in_the_middle_is_gone_on_with() {
    let mut server = Server::start().await;
    let slow =
        [("001.sql", "CREATE TABLE ran (file int)"), ("002.sql", "INSERT INTO ran VALUES (2); SELECT pg_sleep(1.5);")];
    let running = tokio::spawn({
        let (url, files) = (server.url(), files(&slow));
        async move { migrate::run(&url, &files, &settings()).await }
    });
    server.until(SLEEPS).await;
    server.stop("INT");
    server.begin().await;
    let report = running.await.unwrap();
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 2), "{report:?}");
    assert_eq!(server.number("SELECT count(*) FROM ran").await, 1);
}

#[tokio::test]
async fn an_error_half_way_leaves_the_file_undone_and_those_before_it_done() {
    let server = Server::start().await;
    let mut all = COUNTED.to_vec();
    all[1].1 = "INSERT INTO ran VALUES (2);\n\nALTER TABLE nothing ADD COLUMN a int;";
    let report = run(&server, &all).await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Failed, 1), "{report:?}");
    assert_eq!(report.file.as_deref(), Some("002_more.sql"));
    assert_eq!(why(&report), "line 3: relation \"nothing\" does not exist (SQLSTATE 42P01)");
    assert_eq!(server.number("SELECT count(*) FROM ran").await, 1);
    let report = run(&server, &COUNTED).await;
    assert_eq!((report.outcome, report.applied.len(), report.already), (WorkOutcome::Done, 2, 1), "{report:?}");
}

#[tokio::test]
async fn what_earlier_pods_of_a_release_applied_is_told_by_the_one_that_ends() {
    let server = Server::start().await;
    let mut all = COUNTED.to_vec();
    all[1].1 = "ALTER TABLE nothing ADD COLUMN a int;";
    // The first could as well have been killed before it said so.
    for (applied, earlier) in [(1, Vec::new()), (0, vec!["001_table.sql"])] {
        let report = run(&server, &all).await;
        assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Failed, applied), "{report:?}");
        assert_eq!(report.earlier, earlier);
    }
    let other = Settings { release: "production/other".into(), ..settings() };
    let report = migrate::run(&server.url(), &files(&all), &other).await;
    assert_eq!((report.outcome, report.already, report.earlier.len()), (WorkOutcome::Failed, 1, 0), "{report:?}");
}

#[tokio::test]
async fn a_database_that_is_not_the_one_that_was_meant_is_left_alone() {
    let server = Server::start().await;
    let server_id = server.number("SELECT system_identifier FROM pg_control_system()").await;
    let identity = format!("{}@{server_id}", "postgres");
    let meant = |database: String| Settings { meant: Meant { database, ..Meant::default() }, ..settings() };
    for (database, outcome) in [("other@1".to_owned(), WorkOutcome::NotBegun), (identity, WorkOutcome::Done)] {
        let report = migrate::run(&server.url(), &files(&COUNTED), &meant(database)).await;
        assert_eq!(report.outcome, outcome, "{report:?}");
        let told = why(&report).contains("preflight looked at other@1: the Secret changed after the plan was made");
        assert_eq!(told, outcome == WorkOutcome::NotBegun, "{report:?}");
    }
}

#[tokio::test]
async fn what_runs_in_no_transaction_and_fails_may_be_in_effect_in_part() {
    let server = Server::start().await;
    let all = [
        ("001_table.sql", "CREATE TABLE ran (file int); INSERT INTO ran VALUES (1), (1);"),
        (
            "002_indexes.sql",
            "CREATE INDEX CONCURRENTLY plain ON ran (file);\nCREATE UNIQUE INDEX CONCURRENTLY one ON ran (file);",
        ),
    ];
    let report = run(&server, &all).await;
    assert_eq!((report.outcome, report.partly), (WorkOutcome::Failed, true), "{report:?}");
    let settled = migrate::settled(&server.url(), &settings(), &files(&all)).await.unwrap();
    assert!(settled.partly, "{settled:?}");
    let other = Settings { release: "production/other".into(), ..settings() };
    let settled = migrate::settled(&server.url(), &other, &files(&all)).await.unwrap();
    assert!(!settled.partly, "that was another release: {settled:?}");
}

#[tokio::test]
async fn a_try_that_was_settled_does_not_begin_late_and_the_next_one_does() {
    let server = Server::start().await;
    let of = |of: &str, number| Settings { which: Some(Try { of: of.into(), number }), ..settings() };
    let all = files(&COUNTED);
    let settled = migrate::settled(&server.url(), &of("migration", 2), &all).await.unwrap();
    assert_eq!((settled.pending.len(), settled.applied.len()), (3, 0), "{settled:?}");
    // A settlement of an earlier one takes nothing back, and those of others are others'.
    migrate::settled(&server.url(), &of("migration", 1), &all).await.unwrap();
    let other = Settings { release: "production/other".into(), ..of("migration", 7) };
    migrate::settled(&server.url(), &other, &all).await.unwrap();
    for late in [1, 2] {
        let report = migrate::run(&server.url(), &all, &of("migration", late)).await;
        assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::NotBegun, 0), "{report:?}");
        assert_eq!(why(&report), format!("it was settled that try {late} of the migration is over"));
    }
    // Of the same set, and another's work.
    let report = migrate::run(&server.url(), &all[..1], &of("seed", 1)).await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 1), "{report:?}");
    let report = migrate::run(&server.url(), &all, &of("migration", 3)).await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 2), "{report:?}");
    // It is nobody's file: what takes the release back does not meet it.
    let down = [
        ("003_role.down.sql", "DROP ROLE worker"),
        ("002_more.down.sql", "SELECT 1"),
        ("001_table.down.sql", "DROP TABLE ran"),
    ];
    let down: Vec<_> = down.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let report = migrate::down(&server.url(), &ordered(down).unwrap(), &settings(), "production/shop").await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 3), "{report:?}");
}

#[tokio::test]
async fn who_may_make_no_ledger_is_settled_all_the_same() {
    let server = Server::start().await;
    server.sql("CREATE ROLE reader LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let which = Some(Try { of: "migration".into(), number: 1 });
    let settled =
        migrate::settled(&server.url_of("reader", "postgres"), &Settings { which, ..settings() }, &files(&COUNTED))
            .await;
    assert_eq!(settled.unwrap().pending.len(), 3);
}

#[tokio::test]
async fn a_table_that_is_in_use_is_waited_for_a_little_at_a_time() {
    let server = Server::start().await;
    run(&server, &COUNTED[..1]).await;
    let mut user = server.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM ran").execute(&mut user).await.unwrap();
    let mut short = settings();
    short.timeout = Duration::from_secs(5);
    let report = migrate::run(&server.url(), &files(&COUNTED[..2]), &short).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert!(
        why(&report).contains("line 2: canceling statement due to lock timeout (SQLSTATE 55P03), tried "),
        "{report:?}"
    );

    let running = tokio::spawn({
        let (url, files) = (server.url(), files(&COUNTED[..2]));
        async move { migrate::run(&url, &files, &settings()).await }
    });
    server.until("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").await;
    sqlx::raw_sql("COMMIT").execute(&mut user).await.unwrap();
    let report = running.await.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(server.number("SELECT count(*) FROM ran").await, 2);
}

#[tokio::test]
async fn what_runs_in_no_transaction_makes_room_for_others_too() {
    let server = Server::start().await;
    run(&server, &COUNTED[..1]).await;
    let all = [COUNTED[0], ("002_full.sql", "VACUUM FULL ran")];
    let mut user = server.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM ran").execute(&mut user).await.unwrap();
    let mut short = settings();
    short.timeout = Duration::from_secs(3);
    let report = migrate::run(&server.url(), &files(&all), &short).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    // The last try may have less time left than it may wait for a lock.
    let tried = why(&report).starts_with("line 1: canceling statement due to ") && why(&report).contains(", tried ");
    assert!(tried && !report.partly && !why(&report).contains("index"), "{report:?}");

    let running = tokio::spawn({
        let (url, files) = (server.url(), files(&all));
        async move { migrate::run(&url, &files, &settings()).await }
    });
    server.until("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").await;
    // Whoever queued up behind it goes on before its time is over.
    let reads = tokio::time::timeout(Duration::from_secs(60), server.number("SELECT count(*) FROM ran"));
    assert_eq!(reads.await.expect("nobody waits for it for long"), 1);
    sqlx::raw_sql("COMMIT").execute(&mut user).await.unwrap();
    let report = running.await.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
}

#[tokio::test]
async fn what_runs_in_no_transaction_is_unknown_once_it_is_broken_off() {
    let server = Server::start().await;
    run(&server, &COUNTED[..1]).await;
    let index = "CREATE INDEX CONCURRENTLY ran_file ON ran (file)";
    let all = [COUNTED[0], ("002_index.sql", index)];
    let mut user = server.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM ran; INSERT INTO ran VALUES (7)").execute(&mut user).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut first = process(&server, &directory, &all);
    server.until("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").await;
    first.kill().unwrap();
    first.wait().unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut user).await.unwrap();
    let report = run(&server, &all).await;
    assert_eq!((report.outcome, report.file.as_deref()), (WorkOutcome::Unknown, Some("002_index.sql")), "{report:?}");
    let settle = "UPDATE public.servicerelease_ledger SET state = 'Applied' WHERE set_name = 'shop' AND version = '2'";
    assert_eq!(report.settle, settle, "{report:?}");

    // A person looks, and has it run again.
    server.sql("DROP INDEX IF EXISTS ran_file").await;
    server.sql(&settle.replace("'Applied'", "'Failed'")).await;
    let report = run(&server, &all).await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 1), "{report:?}");
    assert_eq!(
        server.number("SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid = 'ran_file'::regclass").await,
        1
    );
}

#[tokio::test]
async fn a_statement_in_no_transaction_that_fails_is_known_to_have_failed() {
    let server = Server::start().await;
    server.sql("CREATE TABLE ran (file int); INSERT INTO ran VALUES (1), (1)").await;
    let all = [("001_index.sql", "CREATE UNIQUE INDEX CONCURRENTLY once ON ran (file)")];
    let report = run(&server, &all).await;
    assert_eq!((report.outcome, report.file.as_deref()), (WorkOutcome::Failed, Some("001_index.sql")), "{report:?}");
    assert!(why(&report).contains("(SQLSTATE 23505)") && why(&report).contains("left invalid"), "{report:?}");
    assert_eq!(report.invalid, ["public.once"], "by the name that a statement drops it by");
    assert_eq!(server.number("SELECT count(*) FROM servicerelease_ledger WHERE state = 'Failed'").await, 1);
}

#[tokio::test]
async fn an_index_that_a_failed_build_left_is_not_taken_for_the_one_that_is_to_be_made() {
    let server = Server::start().await;
    server.sql("CREATE TABLE ran (file int); INSERT INTO ran VALUES (1), (1)").await;
    let all = [("001_index.sql", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS once ON ran (file)")];
    assert_eq!(run(&server, &all).await.outcome, WorkOutcome::Failed);
    server.sql("DELETE FROM ran").await;
    let report = run(&server, &all).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert!(why(&report).contains("DROP INDEX CONCURRENTLY public.once, then retry"), "{report:?}");
    assert_eq!(server.number("SELECT count(*) FROM servicerelease_ledger WHERE state = 'Failed'").await, 1);
    server.sql("DROP INDEX once").await;
    let report = run(&server, &all).await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 1), "{report:?}");
}

#[tokio::test]
async fn files_that_are_not_what_they_were_change_nothing() {
    let server = Server::start().await;
    run(&server, &COUNTED[..2]).await;
    let changed = [("001_table.sql", "CREATE TABLE other ()"), COUNTED[1]];
    let before = [COUNTED[0], ("0015.sql", "SELECT 1")];
    let between = [("000_before.sql", "CREATE TABLE other ()"), COUNTED[0]];
    for (all, told) in [
        (&changed[..], "001_table.sql was applied with other contents"),
        (&between, "000_before.sql comes before 001_table.sql"),
    ] {
        let report = run(&server, all).await;
        assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
        assert!(why(&report).starts_with(told), "{report:?}");
    }
    let mut meant = settings();
    meant.plan = Some(migrate::files::plan("shop", &files(&COUNTED)));
    let report = migrate::run(&server.url(), &files(&before), &meant).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    let report = migrate::run(&server.url(), &files(&COUNTED), &meant).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(server.number("SELECT count(*) FROM pg_class WHERE relname = 'other'").await, 0);
}

#[tokio::test]
async fn a_file_that_gives_up_the_lock_is_undone() {
    let server = Server::start().await;
    let report = run(&server, &[("1.sql", "CREATE TABLE other (); SELECT pg_advisory_unlock_all()")]).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert!(why(&report).contains("gave up the lock"), "{report:?}");
    assert_eq!(server.number("SELECT count(*) FROM pg_class WHERE relname = 'other'").await, 0);
}

#[tokio::test]
async fn without_a_server_or_the_lock_nothing_is_begun() {
    let mut server = Server::start().await;
    let mut other = server.connect().await;
    let lock = "SET application_name = 'the other one'; SELECT pg_advisory_lock(x'7372656c65617365'::bigint)";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let mut short = settings();
    short.timeout = Duration::from_secs(5);
    let report = migrate::run(&server.url(), &files(&COUNTED), &short).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(why(&report).starts_with("the other one (process "), "{report:?}");
    let pid = why(&report).split_once("(process ").unwrap().1.split_once(')').unwrap().0.to_owned();
    assert!(why(&report).ends_with(&format!("SELECT pg_terminate_backend({pid})")), "{report:?}");
    server.stop("QUIT");
    let report = migrate::run(&server.url(), &files(&COUNTED), &short).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(why(&report).contains("no connection to shop@127.0.0.1:"), "{report:?}");
}

#[tokio::test]
async fn a_session_of_a_migration_is_not_ended_by_limits_of_its_role() {
    let server = Server::start().await;
    server.sql("ALTER ROLE shop SET idle_in_transaction_session_timeout = '1h'; ALTER ROLE shop SET idle_session_timeout = '1h'; \
                ALTER ROLE shop SET statement_timeout = '77ms'").await;
    let seen = "CREATE TABLE seen AS SELECT current_setting('idle_in_transaction_session_timeout') AS idle, \
                current_setting('idle_session_timeout') AS session, current_setting('statement_timeout') AS statement, \
                current_setting('tcp_keepalives_idle') AS alive, current_setting('tcp_user_timeout') AS unheard";
    let report = run(&server, &[("1.sql", seen), ("2.sql", "VACUUM seen")]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let own = "SELECT count(*) FROM seen WHERE idle = '0' AND session = '0' AND statement NOT IN ('0', '77ms')";
    assert_eq!(server.number(own).await, 1);
    // Nor does it outlive its client's machine for long.
    assert_eq!(server.number("SELECT count(*) FROM seen WHERE alive = '30' AND unheard LIKE '60%'").await, 1);
}
