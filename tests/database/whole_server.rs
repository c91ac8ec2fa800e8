//! Rehearsals on the server of the real database: what is the whole server's stays as it is, or its change is told.

use std::{fs, path::Path};

use serde_json::{Value, json};
use servicerelease::{api::WorkOutcome, database::Places, engine::Report};
use tempfile::TempDir;

use super::{
    job::{self, take},
    server::Server,
};

const REPORTING: &str = "SELECT count(*) FROM pg_roles WHERE rolname = 'reporting'";
const ARCHIVE: &str = "SELECT count(*) FROM pg_database WHERE datname = 'archive'";

/// Files, a backup, and where they are.
struct Ground {
    files: TempDir,
    backups: TempDir,
    url: String,
    scratch: Option<String>,
}

impl Ground {
    async fn of(url: &str, files: &[(&str, &str)]) -> Self {
        let (directory, backups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(directory.path().join("seed")).unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        take(url, backups.path(), "shop").await.unwrap();
        Self { files: directory, backups, url: url.to_owned(), scratch: None }
    }

    fn elsewhere(self, other: &Server) -> Self {
        Self { scratch: Some(other.url()), ..self }
    }

    fn places(&self, command: &[&str]) -> Places {
        let places = job::places(&self.url, Some(self.files.path()), Some(self.backups.path()), command);
        Places { scratch: self.scratch.clone(), ..places }
    }

    async fn preflight(&self, more: Value) -> Report {
        let mut task = json!({"session": true, "limits": {}, "planned": ["backup", "proof", "rehearsal"]});
        more.as_object().unwrap().iter().for_each(|(key, value)| task[key] = value.clone());
        job::perform_at(&self.places(&[]), json!({"preflight": task})).await
    }

    async fn rehearsed(&self) -> Report {
        let run = json!({"set": "shop", "release": "production/shop#1", "lockTimeout": "1s", "timeout": "1m"});
        let seed = json!({"set": "seed", "release": "production/shop#1", "lockTimeout": "1s", "timeout": "1m"});
        let seeds = fs::read_dir(self.files.path().join("seed")).unwrap().count() > 0;
        let seed = if seeds { json!({"files": seed}) } else { Value::Null };
        let task = json!({"rehearse": {"name": "shop", "sql": run, "seed": seed, "timeout": "1m"}});
        job::perform_at(&self.places(&[]), task).await
    }

    async fn command(&self, sql: &[&str]) -> Report {
        let all: String = sql.iter().map(|sql| format!(" -c \"{sql}\"")).collect();
        let script = format!("psql -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\"{all}");
        let task = json!({"rehearse": {"name": "shop", "release": self.url, "timeout": "1m"}});
        job::perform_at(&self.places(&["sh", "-c", &script]), task).await
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[tokio::test]
async fn statements_that_reach_beyond_the_database_are_refused_before_any_is_run() {
    let server = Server::start().await;
    server.sql("CREATE DATABASE archive").await;
    server.sql("CREATE ROLE app").await;
    let tables = ("001_tables.sql", "CREATE TABLE orders (id int)");
    let roles = ("002_roles.sql", "CREATE ROLE reporting;\nGRANT reporting TO app");
    let ground = Ground::of(&server.url(), &[tables, roles, ("003.sql", "DROP DATABASE archive")]).await;
    let told = "002_roles.sql, line 1: CREATE ROLE; 002_roles.sql, line 2: GRANT of a role; 003.sql, line 1: DROP DATABASE: that \
                changes the whole server";
    let mounted = json!({"mounted": {"paths": [text(ground.files.path())]}});
    for more in [json!({"set": "shop"}), mounted] {
        let report = ground.preflight(more).await;
        assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
        assert!(report.message.starts_with(told) && report.message.contains("backup.scratchUrlFrom"), "{report:?}");
    }
    let report = ground.rehearsed().await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Failed, 0), "{report:?}");
    assert!(report.message.starts_with(&format!("on the backup it is not run: {told}")), "{report:?}");
    assert_eq!((server.number(ARCHIVE).await, server.number(REPORTING).await), (1, 0));
    let report = ground.preflight(json!({"set": "shop", "planned": ["backup", "proof"]})).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "nobody rehearses it: {report:?}");
}

#[tokio::test]
async fn another_server_is_the_rehearsals_own() {
    let (server, other) = (Server::start().await, Server::start().await);
    let all = [("001_tables.sql", "CREATE TABLE orders (id int)"), ("002_role.sql", "CREATE ROLE reporting")];
    let ground = Ground::of(&server.url(), &all).await.elsewhere(&other);
    let report = ground.preflight(json!({"set": "shop"})).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let report = ground.rehearsed().await;
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::Done, 2), "{report:?}");
    assert_eq!((server.number(REPORTING).await, other.number(REPORTING).await), (0, 1));
    let report = ground.command(&["CREATE ROLE another"]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let another = "SELECT count(*) FROM pg_roles WHERE rolname = 'another'";
    assert_eq!((server.number(another).await, other.number(another).await), (0, 1));

    // Another way to the same server is no other server. What the ledger has is not run again, and refused no more.
    let run = json!({"set": "shop", "release": "production/shop#1", "lockTimeout": "1s", "timeout": "1m"});
    assert_eq!(job::perform_at(&ground.places(&[]), json!({"migrate": run})).await.outcome, WorkOutcome::Done);
    let ground = Ground { scratch: Some(server.url().replace("127.0.0.1", "localhost")), ..ground };
    assert_eq!(ground.preflight(json!({"set": "shop"})).await.outcome, WorkOutcome::Done);
    fs::write(ground.files.path().join("003_role.sql"), "DROP ROLE reporting").unwrap();
    let report = ground.preflight(json!({"set": "shop"})).await;
    assert!(report.message.starts_with("003_role.sql, line 1: DROP ROLE: "), "{report:?}");
}

#[tokio::test]
async fn the_seed_that_is_rehearsed_after_it_is_looked_at_as_well() {
    let server = Server::start().await;
    let all = [("001.sql", "SELECT 1"), ("seed/001.sql", "ALTER ROLE shop CREATEDB")];
    let ground = Ground::of(&server.url(), &all).await;
    let report = ground.preflight(json!({"set": "shop", "seed": "seed"})).await;
    assert!(report.message.starts_with("of the seed: 001.sql, line 1: ALTER ROLE: "), "{report:?}");
    let report = ground.rehearsed().await;
    let told = "the migration ran, but the seed is not run: 001.sql, line 1: ALTER ROLE: ";
    assert!(report.outcome == WorkOutcome::Failed && report.message.starts_with(told), "{report:?}");
    let hidden = "DO $$ BEGIN EXECUTE 'CREATE ROLE reporting'; END $$";
    fs::write(ground.files.path().join("seed/001.sql"), hidden).unwrap();
    let report = ground.rehearsed().await;
    let told = "the migration ran, but the seed then fails: 001.sql: it changes the whole server (role reporting)";
    assert!(report.outcome == WorkOutcome::Failed && report.message.starts_with(told), "{report:?}");
    assert_eq!(server.number(REPORTING).await, 0);
}

#[tokio::test]
async fn what_code_would_do_to_the_whole_server_does_not_commit() {
    let server = Server::start().await;
    server.sql("CREATE ROLE tenant LOGIN CREATEDB; CREATE ROLE app; GRANT CREATE ON SCHEMA public TO tenant").await;
    let set = "ALTER ROLE app SET work_mem = ''3MB''";
    server.sql(&format!("CREATE FUNCTION tidy() RETURNS void LANGUAGE plpgsql AS 'BEGIN {set}; END'")).await;
    let run = async |url: String, sql: &str| Ground::of(&url, &[("001.sql", sql)]).await.rehearsed().await;
    let fails = async |url: String, sql: &str, what: &str| {
        let report = run(url, sql).await;
        let told = format!("on the backup it fails: 001.sql: it changes the whole server ({what}), which is not done");
        assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
        assert!(report.message.starts_with(&told) && report.message.contains("rehearsal.mode: Skip"), "{report:?}");
    };
    let does = |sql: &str| format!("DO $$ BEGIN {sql}; END $$");
    fails(server.url(), &does("CREATE ROLE reporting"), "role reporting").await;
    fails(server.url(), "SELECT tidy()", "settings of role app").await;
    fails(server.url(), &does("GRANT app TO tenant"), "membership of tenant in app").await;
    fails(server.url(), &does("GRANT CONNECT ON DATABASE postgres TO app"), "database postgres").await;
    fails(server.url(), &does("ALTER ROLE app PASSWORD 'x'"), "role app").await;
    // What an ordinary role cannot see it cannot do there either.
    let tenant = server.url_of("tenant", "postgres");
    let hidden = "attributes or the password of a role";
    fails(tenant.clone(), &does("ALTER ROLE tenant PASSWORD 'x'"), hidden).await;
    let roles = "SELECT count(*) FROM pg_authid WHERE rolname = 'reporting' OR rolpassword IS NOT NULL";
    let others = "SELECT (SELECT count(*) FROM pg_db_role_setting) + (SELECT count(*) FROM pg_auth_members WHERE roleid > 16383)";
    assert_eq!((server.number(roles).await, server.number(others).await), (0, 0));
    // What does nothing there is none of it.
    for url in [server.url(), tenant] {
        let there = does("CREATE ROLE app; EXCEPTION WHEN OTHERS THEN NULL");
        let report = run(url, &there).await;
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    }
}

#[tokio::test]
async fn what_a_command_does_to_the_whole_server_is_told() {
    let server = Server::start().await;
    server.sql("CREATE DATABASE archive").await;
    server.sql("CREATE ROLE app").await;
    let ground = Ground::of(&server.url(), &[]).await;
    let settings = ["ALTER DATABASE archive SET work_mem = '2MB'", "ALTER ROLE app PASSWORD 'x'"];
    let all = [
        (&["CREATE ROLE reporting"][..], "role reporting"),
        (&settings, "role app, settings of database archive"),
        (&["GRANT reporting TO app", "CREATE DATABASE made"], "database made, membership of app in reporting"),
        (&["REVOKE CONNECT ON DATABASE made FROM PUBLIC"], "database made"),
        (&["ALTER SYSTEM SET work_mem = '6MB'"], "setting work_mem of the server"),
        (&["DROP DATABASE archive"], "database archive, settings of database archive"),
    ];
    for (sql, what) in all {
        let report = ground.command(sql).await;
        assert_eq!((report.outcome, report.rehearsal.is_some()), (WorkOutcome::Unknown, true), "{report:?}");
        let told = format!("while the command ran the whole server has changed, by it or by somebody else ({what}): ");
        assert!(report.message.starts_with(&told) && report.message.contains("rehearsal.mode: Skip"), "{report:?}");
    }
    // So it is where it fails afterwards.
    let report = ground.command(&["DROP ROLE app", "SELECT 1 / 0"]).await;
    assert_eq!(report.outcome, WorkOutcome::Unknown, "{report:?}");
    assert!(report.message.contains("(membership of app in reporting, role app)"), "{report:?}");
    assert!(report.message.contains("; on the backup it fails: exit code 1: ERROR:  division by zero"), "{report:?}");
    // What is only said of it is nobody's loss.
    let report = ground.command(&["COMMENT ON ROLE shop IS 'x'", "CREATE TABLE made (id int)"]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
}

#[tokio::test]
async fn what_others_do_meanwhile_is_not_taken_for_the_rehearsals() {
    let server = Server::start().await;
    server.sql("CREATE DATABASE orders").await;
    server.sql("CREATE ROLE other").await;
    let (one, two) = (Ground::of(&server.url(), &[]).await, Ground::of(&server.url_of("shop", "orders"), &[]).await);
    let others = async {
        server.until("SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await;
        // A credential that is lent, and a database of somebody else.
        server.sql("CREATE ROLE lent VALID UNTIL '2090-01-01'; GRANT other TO lent").await;
        server.sql("CREATE DATABASE preview OWNER other").await;
    };
    // Two releases at once: one of them makes or removes its scratch database while the other one is rehearsed.
    let (one, two, ()) =
        futures::join!(one.command(&["SELECT pg_sleep(4)"]), two.command(&["SELECT pg_sleep(3)"]), others);
    assert_eq!((one.outcome, two.outcome), (WorkOutcome::Done, WorkOutcome::Done), "{one:?}\n{two:?}");

    // Of files it is known what is theirs.
    let file = "CREATE TABLE a (id int); SELECT pg_sleep(1)";
    let ground = Ground::of(&server.url(), &[("001.sql", file)]).await;
    let others = async {
        server.until("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await;
        server.sql("CREATE ROLE reporting").await;
    };
    let (report, ()) = futures::join!(ground.rehearsed(), others);
    assert_eq!((report.outcome, server.number(REPORTING).await), (WorkOutcome::Done, 1), "{report:?}");
}
