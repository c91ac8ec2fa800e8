//! Connections that are lost again and again, sessions that somebody ends, and what cannot be told after that.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use servicerelease::{
    api::WorkOutcome,
    database::migrate::{
        self, Report, Settings,
        files::{File, ordered},
    },
    engine::Meant,
};

use super::server::Server;

const TABLE: (&str, &str) = ("001_table.sql", "CREATE TABLE ran (file int); INSERT INTO ran VALUES (1)");
const SLOW: (&str, &str) = ("002_slow.sql", "INSERT INTO ran VALUES (2); SELECT pg_sleep(3)");
const RAN: &str = "SELECT count(*) FROM ran";
const SLEEPS: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(3%' \
                      AND pid <> pg_backend_pid()";
const END: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/migrate %'";

fn files(all: &[(&str, &str)]) -> Vec<File> {
    ordered(all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()).expect("files")
}

fn settings() -> Settings {
    Settings {
        set: "shop".into(),
        release: "production/shop#1".into(),
        lock_timeout: Duration::from_millis(300),
        timeout: Duration::from_secs(60),
        plan: None,
        meant: Meant::default(),
        which: None,
        observe: false,
        confined: false,
    }
}

fn why(report: &Report) -> &str {
    report.why.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_file_whose_session_an_administrator_ends_is_not_run_again() {
    let server = Server::start().await;
    let running = tokio::spawn({
        let (url, files) = (server.url(), files(&[TABLE, SLOW]));
        async move { migrate::run(&url, &files, &settings()).await }
    });
    server.until(SLEEPS).await;
    server.sql(END).await;
    let report = running.await.unwrap();
    assert_eq!((report.outcome, report.file.as_deref()), (WorkOutcome::Failed, Some(SLOW.0)), "{report:?}");
    assert!(why(&report).contains("an administrator ended its session"), "{report:?}");
    assert_eq!((report.applied, server.number(RAN).await), (vec![TABLE.0.to_owned()], 1));
}

#[tokio::test]
async fn a_file_that_crashes_the_server_is_run_three_times_at_most() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let tries = directory.path().join("tries");
    let crash =
        format!("INSERT INTO ran VALUES (2); COPY ran TO PROGRAM 'echo once >> {}; kill -9 $PPID'", tries.display());
    let report = migrate::run(&server.url(), &files(&[TABLE, ("002_crash.sql", &crash)]), &settings()).await;
    assert_eq!((report.outcome, report.file.as_deref()), (WorkOutcome::Failed, Some("002_crash.sql")), "{report:?}");
    assert!(why(&report).contains("the connection was lost 3 times while it was run"), "{report:?}");
    assert_eq!(fs::read_to_string(tries).unwrap().lines().count(), 3);
    server.until("SELECT true").await;
    assert_eq!(server.number(RAN).await, 1);
}

#[tokio::test]
async fn what_a_release_has_begun_is_unknown_where_nothing_can_be_looked_up_any_more() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let watched = directory.path().join("settings");
    fs::write(&watched, "one").unwrap();
    let paths = vec![watched.display().to_string()];
    let hash = servicerelease::database::meant::files(&paths).unwrap();
    let meant = Meant { watched: paths, files: hash, ..Meant::default() };
    let running = tokio::spawn({
        let (url, files) = (server.url(), files(&[("001_slow.sql", "SELECT pg_sleep(3)")]));
        async move { migrate::run(&url, &files, &Settings { meant, ..settings() }).await }
    });
    server.until(SLEEPS).await;
    fs::write(&watched, "another").unwrap();
    server.sql(END).await;
    let report = running.await.unwrap();
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    assert!(why(&report).contains("are not those that were meant"), "{report:?}");
}

#[tokio::test]
async fn a_file_in_no_transaction_whose_end_cannot_be_noted_is_unknown() {
    let server = Server::start().await;
    let table = [TABLE];
    migrate::run(&server.url(), &files(&table), &settings()).await;
    for state in ["Applied", "Failed"] {
        let refuse = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room'; END $$; \
             CREATE TRIGGER refuse BEFORE UPDATE ON servicerelease_ledger FOR EACH ROW WHEN (NEW.state = '{state}') \
             EXECUTE FUNCTION refuse()"
        );
        server.sql(&refuse).await;
        let column = if state == "Applied" { "file" } else { "nothing" };
        let index = format!("CREATE INDEX CONCURRENTLY by_{state} ON ran ({column})");
        let all = files(&[TABLE, ("002_index.sql", &index)]);
        let other = Settings { release: "production/other#1".into(), ..settings() };
        let report = migrate::run(&server.url(), &all, &other).await;
        assert_eq!(
            (report.outcome, report.file.as_deref()),
            (WorkOutcome::Unknown, Some("002_index.sql")),
            "{report:?}"
        );
        assert!(why(&report).contains("no room") && report.settle.contains("SET state = 'Applied'"), "{report:?}");
        server.sql("DROP FUNCTION refuse CASCADE; DELETE FROM servicerelease_ledger WHERE version = '2'").await;
    }
}
