//! A backup in the database's place: from wherever the one before was broken off, there is one database in the end, and
//! it is the restored one.

use std::path::Path;

use futures::future::join_all;
use serde_json::{Value, json};
use servicerelease::{
    api::WorkOutcome,
    database::{Places, restore::Names, rights},
    engine::{Planned, Report},
};
use sqlx::{AssertSqlSafe, PgConnection};
use tempfile::TempDir;

use super::{
    cut::{Cut, Way},
    job::{self, take},
    server::Server,
};

/// A database of a tenant's, and a backup of it that is older than what it has now.
async fn tenant() -> (Server, TempDir) {
    let server = Server::start().await;
    for statement in [
        "CREATE ROLE owner LOGIN CREATEDB CREATEROLE",
        "CREATE ROLE app LOGIN",
        "CREATE ROLE reader LOGIN",
        "GRANT app TO owner WITH ADMIN OPTION",
        "CREATE DATABASE shop OWNER owner CONNECTION LIMIT 20",
        "REVOKE ALL ON DATABASE shop FROM PUBLIC",
        "GRANT CONNECT ON DATABASE shop TO app",
        "GRANT CONNECT, TEMPORARY ON DATABASE shop TO reader WITH GRANT OPTION",
        "ALTER DATABASE shop SET search_path = sales, \"$user\", public",
        "ALTER DATABASE shop SET default_transaction_read_only = off",
        "ALTER ROLE app IN DATABASE shop SET statement_timeout = '5s'",
        "COMMENT ON DATABASE shop IS 'all orders; it''s \\ ours'",
    ] {
        server.sql(statement).await;
    }
    let make = "CREATE SCHEMA sales; CREATE TABLE sales.orders (n int); INSERT INTO sales.orders SELECT generate_series(1, 100); \
                GRANT USAGE ON SCHEMA sales TO reader; GRANT SELECT ON sales.orders TO reader";
    sql(&server, "owner", make).await;
    let directory = tempfile::tempdir().unwrap();
    take(&server.url_of("owner", "shop"), directory.path(), "shop-1").await.unwrap();
    sql(&server, "owner", "DELETE FROM sales.orders WHERE n > 7; ALTER TABLE sales.orders ADD COLUMN new int").await;
    (server, directory)
}

async fn sql(server: &Server, role: &str, text: &str) {
    let mut connection = server.connect_as(role, "shop").await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut connection).await.unwrap();
}

async fn orders(server: &Server, database: &str) -> i64 {
    let mut connection = server.connect_as("owner", database).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM sales.orders").fetch_one(&mut connection).await.unwrap()
}

fn task() -> Value {
    json!({"restore": {"name": "shop-1", "suffix": "_before_3", "release": "production/shop#3-abcde"}})
}

async fn restore(server: &Server, backups: &Path) -> Report {
    job::perform_in(&server.url_of("owner", "shop"), task(), None, Some(backups), &[]).await
}

/// What a database is beside its contents, but for the comment.
const TRAITS: &str = "SELECT format('%s %s %s %s %s %s', pg_get_userbyid(datdba), datconnlimit, datcollate, datallowconn, \
    (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM aclexplode(datacl) AS acl), \
    (SELECT string_agg(format('%s %s', setrole, setconfig), ',' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)) \
    FROM pg_database d WHERE datname = $1";

async fn traits(connection: &mut PgConnection, database: &str) -> String {
    sqlx::query_scalar(TRAITS).bind(database).fetch_one(connection).await.unwrap()
}

/// That it was restored, whatever the way was.
async fn assert_restored(server: &Server) {
    assert_eq!((orders(server, "shop").await, orders(server, "shop_before_3").await), (100, 7));
    let all = "SELECT count(*) FROM pg_database WHERE NOT datistemplate AND datallowconn";
    assert_eq!(server.number(all).await, 3, "with postgres, and nothing is left over");
}

#[tokio::test]
async fn a_backup_takes_the_databases_place_with_all_that_it_is() {
    let (server, backups) = tenant().await;
    let mut admin = server.connect().await;
    let before = traits(&mut admin, "shop").await;
    let mut app = server.connect_as("app", "shop").await.unwrap();
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_eq!(report.message, "shop is shop-1 now, with 100 rows; what was there before is shop_before_3");
    assert_restored(&server).await;
    assert!(sqlx::query("SELECT 1").execute(&mut app).await.is_err(), "the session of the application has ended");
    assert_eq!(traits(&mut admin, "shop").await, before);
    let mut owner = server.connect_as("owner", "shop").await.unwrap();
    let planned = "SELECT reltuples::bigint FROM pg_class WHERE oid = 'sales.orders'::regclass";
    let planned: i64 = sqlx::query_scalar(planned).fetch_one(&mut owner).await.unwrap();
    assert_eq!(planned, 100, "the server has statistics");
    let comment = "SELECT count(*) FROM pg_database WHERE datname = 'shop' AND shobj_description(oid, 'pg_database') \
                   LIKE E'all orders; it''s \\\\\\\\ ours\\nservicerelease: restored _before_3 %'";
    assert_eq!(server.number(comment).await, 1);
    let mut reader = server.connect_as("reader", "shop").await.unwrap();
    assert!(sqlx::query("SELECT 1").execute(&mut reader).await.is_ok());
    let rights = "SELECT has_table_privilege('reader', 'sales.orders', 'SELECT')";
    assert!(sqlx::query_scalar::<_, bool>(rights).fetch_one(&mut reader).await.unwrap());
    let verify = json!({"verifyRestored": {"name": "shop-1", "suffix": "_before_3"}});
    let url = server.url_of("owner", "shop");
    let verified = async || job::perform_in(&url, verify.clone(), None, Some(backups.path()), &[]).await;
    let report = verified().await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert!(report.message.starts_with("1 tables with 100 rows, as the backup shop-1 of "), "{report:?}");
    // Somebody writes to it already.
    sql(&server, "owner", "INSERT INTO sales.orders VALUES (101); CREATE TABLE sales.new (n int)").await;
    let report = verified().await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let since = "; since then: table sales.orders has 101 rows, not 100; table sales.new is new";
    assert!(report.message.ends_with(since), "{report:?}");
    sql(&server, "owner", "DROP TABLE sales.new; DELETE FROM sales.orders WHERE n > 99").await;
    let report = verified().await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert_eq!(report.message, "what was restored lacks: table sales.orders has 99 rows, not 100");
    sql(&server, "owner", "INSERT INTO sales.orders VALUES (100)").await;
    let before = server.url_of("owner", "shop_before_3");
    let report = job::perform_in(&before, verify.clone(), None, Some(backups.path()), &[]).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.starts_with("the URL does not lead to what was restored"), "{report:?}");
    // Made twice: it is done.
    let again = restore(&server, backups.path()).await;
    assert_eq!(again.outcome, WorkOutcome::Done, "{again:?}");
    assert_restored(&server).await;
}

#[tokio::test]
async fn pods_that_are_made_at_the_same_time_restore_once() {
    let (server, backups) = tenant().await;
    let reports = join_all((0..3).map(|_| restore(&server, backups.path()))).await;
    assert!(reports.iter().all(|report| report.outcome == WorkOutcome::Done), "{reports:?}");
    assert_restored(&server).await;
}

#[tokio::test]
async fn one_that_was_broken_off_between_any_two_steps_is_gone_on_with() {
    let (server, backups) = tenant().await;
    restore(&server, backups.path()).await;
    let restored = Names::of("shop", "_before_3").restored;
    // From the end to the begin, each step taken back by one more statement.
    let back = [
        "ALTER DATABASE shop_before_3 ALLOW_CONNECTIONS false".to_owned(),
        format!("ALTER DATABASE shop RENAME TO {restored}"),
        "ALTER DATABASE shop_before_3 RENAME TO shop".to_owned(),
        "ALTER DATABASE shop ALLOW_CONNECTIONS true".to_owned(),
        format!("COMMENT ON DATABASE {restored} IS NULL"),
        format!("DROP DATABASE {restored}"),
    ];
    for steps in 1..=back.len() {
        for statement in &back[..steps] {
            server.sql(statement).await;
        }
        let report = restore(&server, backups.path()).await;
        assert_eq!(report.outcome, WorkOutcome::Done, "{steps}: {report:?}");
        assert_restored(&server).await;
    }
}

#[tokio::test]
async fn wherever_the_way_breaks_nobody_is_told_that_all_is_as_it_was_unless_it_is() {
    let (server, backups) = tenant().await;
    restore(&server, backups.path()).await;
    let restored = Names::of("shop", "_before_3").restored;
    let mut unknown = 0;
    for cut in [Cut::Message, Cut::Answer] {
        for at in 0.. {
            // What was restored is whole, and about to take the name.
            server.sql(&format!("ALTER DATABASE shop RENAME TO {restored}")).await;
            server.sql("ALTER DATABASE shop_before_3 RENAME TO shop").await;
            let way = Way::start(server.port(), at, cut).await;
            let url = server.url_of("owner", "shop").replace(&server.port().to_string(), &way.port.to_string());
            let report = job::perform_in(&url, task(), None, Some(backups.path()), &[]).await;
            match report.outcome {
                WorkOutcome::NotBegun => assert_eq!(orders(&server, "shop").await, 7, "{at}: {report:?}"),
                WorkOutcome::Unknown => {
                    unknown += 1;
                    assert!(report.message.contains("run it again: it goes on from where it is"), "{at}: {report:?}");
                }
                _ => assert_eq!(report.outcome, WorkOutcome::Done, "{at}: {report:?}"),
            }
            let report = restore(&server, backups.path()).await;
            assert_eq!(report.outcome, WorkOutcome::Done, "{at}: {report:?}");
            assert_restored(&server).await;
            if way.messages() <= at {
                break;
            }
        }
    }
    assert!(unknown > 0, "it is broken off between two names, too");
}

#[tokio::test]
async fn a_restoration_that_is_killed_is_gone_on_with() {
    let (server, backups) = tenant().await;
    let url = server.url_of("owner", "shop");
    let restored = Names::of("shop", "_before_3").restored;
    let job = job::Job::start(&url, &task(), None, Some(backups.path()), &[]);
    server.until(&format!("SELECT count(*) > 0 FROM pg_database WHERE datname = '{restored}'")).await;
    // The server process of pg_restore may go on for a while.
    job.kill_all();
    job.wait();
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_restored(&server).await;
}

#[tokio::test]
async fn what_other_releases_have_done_since_is_not_set_back_unasked() {
    let (server, backups) = tenant().await;
    let ledger = "CREATE TABLE sales.servicerelease_ledger (set_name text, version text, name text, checksum text, state text, \
                  release text, started_at timestamptz DEFAULT now(), finished_at timestamptz DEFAULT now()); \
                  INSERT INTO sales.servicerelease_ledger VALUES ('shop', '2', '002_b.sql', '', 'Applied', 'production/shop#3-abcde'), \
                  ('no', '1', '001_a.sql', '', 'Failed', 'staging/shop#7-abcde'); \
                  INSERT INTO sales.servicerelease_ledger VALUES \
                  ('old', '1', '001_a.sql', '', 'Applied', 'staging/shop#6-abcde', '2020-01-01', '2020-01-01')";
    sql(&server, "owner", ledger).await;
    let row = "INSERT INTO sales.servicerelease_ledger VALUES ('other', '1', '001_a.sql', '', 'Applied', 'staging/shop#7-abcde')";
    let refused = async || {
        let report = restore(&server, backups.path()).await;
        assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
        let told = "other releases have migrated this database since the backup was begun, and would not do it again: staging/shop#7-abcde \
                    (other 001_a.sql); take that back";
        assert!(report.message.starts_with(told), "{report:?}");
        assert_eq!(orders(&server, "shop").await, 7);
        report.settle
    };
    sql(&server, "owner", row).await;
    let mark = refused().await;
    let databases = "SELECT count(*) FROM pg_database WHERE NOT datistemplate";
    assert_eq!(server.number(databases).await, 2, "nothing was made");
    sql(&server, "owner", &mark).await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_restored(&server).await;
    // It was broken off before it took the name, and they came in between.
    server.sql(&format!("ALTER DATABASE shop RENAME TO {}", Names::of("shop", "_before_3").restored)).await;
    server.sql("ALTER DATABASE shop_before_3 RENAME TO shop").await;
    sql(&server, "owner", row).await;
    sql(&server, "owner", &refused().await).await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_restored(&server).await;
}

#[tokio::test]
async fn a_command_that_is_still_at_work_is_waited_for_and_not_ended() {
    let (server, backups) = tenant().await;
    let ledger = "CREATE SCHEMA servicerelease; CREATE TABLE servicerelease.servicerelease_ledger (set_name text, version text, \
                  name text, checksum text, state text, release text, started_at timestamptz, finished_at timestamptz, run text)";
    sql(&server, "owner", ledger).await;
    let row = "INSERT INTO servicerelease.servicerelease_ledger VALUES ('command', 'p', '', '', 'Started', 'production/shop#1', \
               now() - interval '1 day', NULL, '{\"begun\": true, \"tool\": {\"program\": \"servicerelease/command p\", \
               \"since\": \"2000-01-01 00:00:00+00\", \"byName\": true}}')";
    sql(&server, "owner", row).await;
    let mut tool = server.connect_as("owner", "shop").await.unwrap();
    sqlx::raw_sql("SET application_name = 'servicerelease/command p'").execute(&mut tool).await.unwrap();
    let at_work = tokio::spawn(async move { sqlx::raw_sql("SELECT pg_sleep(9)").execute(&mut tool).await.map(|_| ()) });
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(9)'").await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    at_work.await.unwrap().expect("it came to its end");
    assert_restored(&server).await;
}

#[tokio::test]
async fn sessions_that_cannot_be_ended_leave_the_database_as_it_was() {
    let (server, backups) = tenant().await;
    let mut other = server.connect_as("reader", "shop").await.unwrap();
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.starts_with("sessions of reader in shop cannot be ended"), "{report:?}");
    assert!(report.message.contains("GRANT pg_signal_backend"), "{report:?}");
    assert!(sqlx::query("SELECT 1").execute(&mut other).await.is_ok());
    assert_eq!(orders(&server, "shop").await, 7);
    server.sql("GRANT pg_signal_backend TO owner").await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_restored(&server).await;
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing() {
    let (server, backups) = tenant().await;
    let dump = backups.path().join("shop-1.dump");
    let whole = std::fs::read(&dump).unwrap();
    std::fs::write(&dump, &whole[..whole.len() / 2]).unwrap();
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert_eq!(report.message, "shop-1.dump is not what was written: its checksum is another one");
    std::fs::write(&dump, &whole).unwrap();
    server.sql("CREATE DATABASE shop_before_3").await;
    let report = restore(&server, backups.path()).await;
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.contains("shop_before_3 already"), "{report:?}");
    server.sql("DROP DATABASE shop_before_3").await;
    let mut record: Value =
        serde_json::from_slice(&std::fs::read(backups.path().join("shop-1.json")).unwrap()).unwrap();
    record["rows"]["sales.orders"] = json!(101);
    std::fs::write(backups.path().join("shop-1.json"), record.to_string()).unwrap();
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert_eq!(report.message, "what was restored differs: table sales.orders has 100 rows, not 101");
    assert_eq!(orders(&server, "shop").await, 7);
    assert_eq!(
        server.number("SELECT count(*) FROM pg_database WHERE datname LIKE 'servicerelease_restore_%'").await,
        0
    );
}

/// A backup of what there is now.
async fn backup_of(server: &Server, database: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    take(&server.url_of("owner", database), directory.path(), "shop-1").await.unwrap();
    directory
}

const OWNER_OF: &str = "SELECT count(*) FROM pg_class WHERE relname = 'samples' AND relowner = 'reader'::regrole";

async fn samples_of_reader(server: &Server) -> i64 {
    let mut connection = server.connect_as("shop", "shop").await.unwrap();
    sqlx::query_scalar(OWNER_OF).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn owners_and_rights_are_kept_or_nothing_is_restored() {
    let (server, _) = tenant().await;
    let lab = "CREATE SCHEMA lab AUTHORIZATION reader; CREATE TABLE lab.samples (n int); ALTER TABLE lab.samples OWNER TO reader; \
               GRANT USAGE ON SCHEMA lab TO owner, app; GRANT SELECT ON lab.samples TO owner, app";
    sql(&server, "shop", lab).await;
    let backups = backup_of(&server, "shop").await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    let told = "a restore keeps owners, and role owner is no member of reader: GRANT reader TO owner, or name a superuser's URL";
    assert!(report.message.starts_with(told), "{report:?}");
    let databases = "SELECT count(*) FROM pg_database WHERE NOT datistemplate AND datallowconn";
    assert_eq!((server.number(databases).await, orders(&server, "shop").await), (2, 7), "all is as it was");

    server.sql("GRANT reader TO owner").await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert!(!report.message.contains("not kept"), "{report:?}");
    assert_eq!(samples_of_reader(&server).await, 1);
    let mut app = server.connect_as("app", "shop").await.unwrap();
    sqlx::query("SELECT * FROM lab.samples").execute(&mut app).await.expect("its right is kept");
}

#[tokio::test]
async fn what_only_a_superuser_can_give_away_is_told() {
    let (server, _) = tenant().await;
    server.sql("GRANT reader TO owner").await;
    let guest = "CREATE TABLE sales.samples (n int); ALTER TABLE sales.samples OWNER TO reader";
    sql(&server, "shop", guest).await;
    let backups = backup_of(&server, "shop").await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.contains("(reader in sales): name such a URL in directUrlFrom"), "{report:?}");
    let superuser = server.url_of("shop", "shop");
    let report = job::perform_in(&superuser, task(), None, Some(backups.path()), &[]).await;
    assert_eq!((report.outcome, samples_of_reader(&server).await), (WorkOutcome::Done, 1), "{report:?}");
}

#[tokio::test]
async fn the_provider_of_the_locale_is_kept() {
    let (server, _) = tenant().await;
    server.sql("CREATE DATABASE icu OWNER owner TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-AT'").await;
    let backups = backup_of(&server, "icu").await;
    let url = server.url_of("owner", "icu");
    // Its column has another name since 17.
    let locale = "coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale')";
    let query =
        format!("SELECT 1 FROM pg_database d WHERE datname = current_database() AND {locale} IS DISTINCT FROM 'de-AT'");
    let verify = json!({"queries": [{"name": "scratch", "query": query}]});
    let rehearsal = json!({"rehearse": {"name": "shop-1", "verify": verify, "timeout": "1m"}});
    let command = ["sh", "-c", "psql -X -q \"$DATABASE_URL\" -c 'SELECT 1'"];
    let report = job::perform_in(&url, rehearsal, None, Some(backups.path()), &command).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let report = job::perform_in(&url, task(), None, Some(backups.path()), &[]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let icu = format!(
        "SELECT count(*) FROM pg_database d WHERE datname IN ('icu', 'icu_before_3') AND datlocprovider = 'i' AND {locale} = 'de-AT'"
    );
    assert_eq!(server.number(&icu).await, 2);
}

#[tokio::test]
async fn a_setting_that_cannot_be_given_is_told_with_the_right_that_it_takes() {
    let (server, backups) = tenant().await;
    server.sql("ALTER ROLE app IN DATABASE shop SET log_statement = 'all'").await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let told = "; not kept: setting log_statement of app (permission denied to set parameter \"log_statement\" (SQLSTATE 42501))";
    assert!(report.message.ends_with(told), "{report:?}");
    assert_restored(&server).await;
}

#[tokio::test]
async fn a_member_that_may_not_act_as_the_owner_is_told_before_anything_is_done() {
    let (server, _) = tenant().await;
    if server.number("current_setting('server_version_num')").await < 160_000 {
        return; // Whoever is a member may.
    }
    // So is whoever made the role.
    server.sql("GRANT reader TO owner WITH ADMIN TRUE, INHERIT FALSE, SET FALSE").await;
    let lab = "CREATE SCHEMA lab AUTHORIZATION reader; CREATE TABLE lab.samples (n int); ALTER TABLE lab.samples OWNER TO reader; \
               GRANT USAGE ON SCHEMA lab TO owner; GRANT SELECT ON lab.samples TO owner";
    sql(&server, "shop", lab).await;
    let backups = backup_of(&server, "shop").await;
    let report = restore(&server, backups.path()).await;
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    let remedy = "GRANT reader TO owner WITH INHERIT TRUE, SET TRUE";
    assert!(report.message.contains(&format!(": {remedy}, or name a superuser's URL")), "{report:?}");
    let places = Places {
        url: server.url_of("owner", "shop"),
        tool: None,
        scratch: None,
        files: "/nowhere".into(),
        down_files: "/nowhere".into(),
        seed_files: "/nowhere".into(),
        backups: "/nowhere".into(),
        command: Vec::new(),
    };
    let faults = rights::look(&places, &[Planned::Restore]).await.unwrap();
    assert!(faults.len() == 1 && faults[0].contains(remedy), "{faults:?}");
    server.sql(remedy).await;
    assert_eq!(rights::look(&places, &[Planned::Restore]).await.unwrap(), [""; 0]);
    let report = restore(&server, backups.path()).await;
    assert_eq!((report.outcome, samples_of_reader(&server).await), (WorkOutcome::Done, 1), "{report:?}");

    // The same for the database's own owner.
    server.sql("ALTER DATABASE shop OWNER TO reader; GRANT reader TO owner WITH SET FALSE").await;
    let faults = rights::look(&places, &[Planned::Restore]).await.unwrap();
    assert!(faults[0].ends_with(&format!("gives another name: {remedy}")), "{faults:?}");
}

#[tokio::test]
async fn a_database_of_the_same_name_on_another_server_keeps_its_place() {
    let ((server, backups), (other, _)) = (tenant().await, tenant().await);
    let url = other.url_of("owner", "shop");
    let refused = async |task: Value, why: &str| {
        let report = job::perform_in(&url, task, None, Some(backups.path()), &[]).await;
        assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
        assert!(report.message.contains(why), "{report:?}");
        assert_eq!(other.number("SELECT count(*) FROM pg_database WHERE NOT datistemplate").await, 2, "{report:?}");
    };
    let preflight = json!({"preflight": {"minVersion": null, "session": true, "limits": {}, "set": null}});
    let meant = job::perform_in(&server.url_of("owner", "shop"), preflight, None, None, &[]).await.database;
    assert!(meant.starts_with("shop@"), "{meant}");
    let with_meant = json!({"restore": {"name": "shop-1", "suffix": "_before_3", "meant": {"database": meant}}});
    refused(with_meant.clone(), "the Secret changed since").await;
    refused(task(), "the backup shop-1.dump is of database").await;
    assert_eq!(orders(&other, "shop").await, 7);
    let url = server.url_of("owner", "shop");
    let report = job::perform_in(&url, with_meant, None, Some(backups.path()), &[]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    assert_restored(&server).await;
}
