//! Which ledger is the one of a set of files: it stays so when the search path becomes another one.

use std::{fs, path::Path};

use serde_json::json;
use servicerelease::{api::WorkOutcome, engine::Report};
use tempfile::TempDir;

use super::{job, server::Server};

fn directory(all: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in all {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

async fn migrate(url: &str, files: &Path, release: &str) -> Report {
    let run = json!({"set": "shop", "release": release, "lockTimeout": "1s", "timeout": "1m"});
    job::perform(url, json!({"migrate": run}), Some(files), &[]).await
}

const ONE: (&str, &str) =
    ("001_one.sql", "CREATE TABLE IF NOT EXISTS public.ran (n int); INSERT INTO public.ran VALUES (1)");
const TWO: (&str, &str) = ("002_two.sql", "INSERT INTO public.ran VALUES (2)");
const RAN: &str = "SELECT count(*) FROM public.ran";
const LEDGERS: &str = "SELECT count(*) FROM pg_class WHERE relname = 'servicerelease_ledger'";

#[tokio::test]
async fn a_schema_of_the_roles_name_is_no_new_ledger() {
    let server = Server::start().await;
    // The search path is "$user", public: from here on new tables are made in the schema shop.
    let schema =
        ("001_one.sql", "CREATE SCHEMA shop; CREATE TABLE public.ran (n int); INSERT INTO public.ran VALUES (1)");
    let report = migrate(&server.url(), directory(&[schema]).path(), "production/shop#1-abcde").await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let report = migrate(&server.url(), directory(&[schema, TWO]).path(), "production/shop#2-abcde").await;
    assert_eq!((report.outcome, report.applied), (WorkOutcome::Done, vec![TWO.0.to_owned()]), "{}", report.message);
    assert_eq!((server.number(RAN).await, server.number(LEDGERS).await), (2, 1));
    // The one that an earlier version made in the new schema is in nobody's way.
    server.sql("CREATE TABLE shop.servicerelease_ledger (LIKE servicerelease_ledger INCLUDING ALL)").await;
    let report = migrate(&server.url(), directory(&[schema, TWO]).path(), "production/shop#3-abcde").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 0), "{report:?}");
}

#[tokio::test]
async fn files_that_were_applied_elsewhere_are_not_run_again_in_another_schema() {
    let server = Server::start().await;
    let files = directory(&[ONE, TWO]);
    migrate(&server.url(), files.path(), "production/shop#1-abcde").await;
    server.sql("CREATE SCHEMA sales").await;
    let elsewhere = format!("{}&schema=sales", server.url());
    let remedy = "name schema public in the URL (?schema=public), or have its search_path name it, or move the table: ALTER TABLE \
                  public.servicerelease_ledger SET SCHEMA sales";
    let report = migrate(&elsewhere, files.path(), "production/shop#2-abcde").await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.contains(remedy), "{report:?}");
    let task =
        json!({"preflight": {"session": true, "limits": {}, "set": "shop", "release": "production/shop#2-abcde"}});
    let report = job::perform(&elsewhere, task, Some(files.path()), &[]).await;
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.contains(remedy), "{report:?}");
    let run = json!({"set": "shop", "release": "production/shop#1-abcde", "lockTimeout": "1s", "timeout": "1m"});
    let report = job::perform(&elsewhere, json!({"settleSql": run}), Some(files.path()), &[]).await;
    assert!(report.outcome == WorkOutcome::Unknown && report.message.contains(remedy), "{report:?}");
    assert_eq!((server.number(RAN).await, server.number(LEDGERS).await), (2, 1));

    // Another release has its own in another schema, as it always had.
    let report = migrate(&elsewhere, files.path(), "production/other#1-abcde").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 2), "{report:?}");
    server.sql("DROP TABLE sales.servicerelease_ledger; ALTER TABLE servicerelease_ledger SET SCHEMA sales").await;
    let report = migrate(&elsewhere, files.path(), "production/shop#2-abcde").await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 0), "{report:?}");
}
