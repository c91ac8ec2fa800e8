//! What is found of a server before a migration, and what is wrong with it.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use servicerelease::{
    api::WorkOutcome,
    database::{
        Places,
        migrate::files,
        preflight::{Findings, Wanted},
        rights,
    },
    engine::{Planned, Report},
};

use super::{job, server::Server};

async fn look(url: &str, min_version: Option<&str>, limits: &str) -> Result<(Findings, Vec<String>), String> {
    let limits = &serde_json::from_str(limits).unwrap();
    servicerelease::database::preflight::look(url, &Wanted { min_version, session: true, limits, planned: &[] }).await
}

#[tokio::test]
async fn a_server_that_is_as_it_has_to_be_is_told_with_its_figures() {
    let server = Server::start().await;
    let wanted = r#"{"minFreeConnections": 10, "maxReplicationLag": "1s",
        "maxTransactionAge": "1m", "extensions": ["plpgsql"]}"#;
    let (findings, faults) = look(&server.url(), Some("12"), wanted).await.unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    assert!(findings.server_version == server.version().await && findings.database == "postgres", "{findings:?}");
    // Of 30 three are kept for superusers, and two are those of the look itself; autovacuum may have some.
    assert!((20..=25).contains(&findings.free_connections), "{findings:?}");
    assert!(findings.size_bytes > 1_000_000 && findings.oldest_transaction_seconds < 60.0, "{findings:?}");
}

#[tokio::test]
async fn each_thing_that_is_wrong_is_told_with_its_remedy() {
    let server = Server::start().await;
    server.sql("CREATE ROLE tenant LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let mut user = server.connect().await;
    sqlx::raw_sql("SET application_name = 'a report'; BEGIN; SELECT 1").execute(&mut user).await.unwrap();
    let wanted = r#"{"minFreeConnections": 28, "maxTransactionAge": "0s",
        "extensions": ["plpgsql", "pgcrypto", "postgis"]}"#;
    let url = server.url().replace("shop@", "tenant@");
    let (_, faults) = look(&url, Some("99"), wanted).await.unwrap();
    let told = [
        "is older than 99: upgrade the server, or lower minVersion",
        "role tenant may not make tables in schema public: GRANT CREATE ON SCHEMA public TO tenant",
        " connections are free, at least 28 are needed",
        "nor maxReplicationLag can be told: GRANT pg_read_all_stats TO tenant",
        "the database has no extension pgcrypto, postgis: CREATE EXTENSION \"pgcrypto\"; CREATE EXTENSION \"postgis\"",
    ];
    assert_eq!(faults.len(), told.len(), "{faults:#?}");
    for (fault, told) in faults.iter().zip(told) {
        assert!(fault.contains(told), "{fault}");
    }
    server.sql("GRANT pg_read_all_stats TO tenant; GRANT CREATE ON SCHEMA public TO tenant").await;
    let (_, faults) = look(&url, None, r#"{"maxTransactionAge": "0s"}"#).await.unwrap();
    let told = "at most 0s is allowed: idle in transaction of a report (process ";
    assert!(faults.len() == 1 && faults[0].contains(told), "{faults:?}");
}

#[tokio::test]
async fn limits_of_the_role_and_the_database_leave_fewer_connections() {
    let server = Server::start().await;
    server.sql("CREATE ROLE tenant LOGIN CONNECTION LIMIT 5; GRANT CREATE ON SCHEMA public TO tenant").await;
    let wanted = r#"{"minFreeConnections": 10}"#;
    let url = server.url_of("tenant", "postgres");
    let (findings, faults) = look(&url, None, wanted).await.unwrap();
    assert!(findings.free_connections == 3 && faults.len() == 1, "two are those of the look: {findings:?} {faults:?}");
    server.sql("ALTER ROLE tenant CONNECTION LIMIT -1; ALTER DATABASE postgres CONNECTION LIMIT 6").await;
    let (findings, faults) = look(&url, None, wanted).await.unwrap();
    assert!(findings.free_connections <= 4 && faults.len() == 1, "{findings:?} {faults:?}");
    assert!(faults[0].contains(" connections are free, at least 10 are needed"), "{faults:?}");
}

#[tokio::test]
async fn a_replica_that_is_down_is_told_by_its_slot() {
    let server = Server::start().await;
    server.sql("SELECT pg_create_physical_replication_slot('standby', true)").await;
    let (_, faults) = look(&server.url(), None, r#"{"maxReplicationLag": "1s"}"#).await.unwrap();
    let told = "no replica is connected to replication slot 'standby'";
    assert!(faults.len() == 1 && faults[0].starts_with(told), "{faults:?}");
    let (_, faults) = look(&server.url(), None, "{}").await.unwrap();
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test]
async fn a_replica_is_told_that_is_behind_by_more_than_the_limit() {
    let server = Server::start().await;
    let replica = server.replica().await;
    server.sql("CREATE TABLE notes (n int)").await;
    replica.until("to_regclass('notes') IS NOT NULL").await;
    let wanted = r#"{"maxReplicationLag": "1m"}"#;
    let (findings, faults) = look(&server.url(), None, wanted).await.unwrap();
    assert!(faults.is_empty() && findings.replication_lag_seconds < 60.0, "{findings:?} {faults:?}");

    replica.sql("SELECT pg_wal_replay_pause()").await;
    replica.until("pg_is_wal_replay_paused()").await;
    // It tells how far it is with each piece of the log that it gets.
    let begun = std::time::Instant::now();
    let behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lag > interval '1500 milliseconds'";
    while server.number(behind).await == 0 {
        assert!(begun.elapsed().as_secs() < 60, "it is never behind");
        server.sql("INSERT INTO notes VALUES (1)").await;
    }
    let (findings, faults) = look(&server.url(), None, r#"{"maxReplicationLag": "1s"}"#).await.unwrap();
    assert!(findings.replication_lag_seconds >= 1.5, "{findings:?}");
    assert!(faults.len() == 1 && faults[0].starts_with("a replica is "), "{faults:?}");
    assert!(faults[0].ends_with(" s behind, at most 1s is allowed"), "{faults:?}");
    for within in [r#"{"maxReplicationLag": "1h"}"#, "{}"] {
        let (_, faults) = look(&server.url(), None, within).await.unwrap();
        assert!(faults.is_empty(), "{faults:?}");
    }
    let (_, faults) = look(&replica.url(), None, "{}").await.unwrap();
    assert!(faults.iter().any(|fault| fault.contains("the server is a replica")), "{faults:?}");
}

#[tokio::test]
async fn a_moments_long_transaction_is_waited_for() {
    let server = Server::start().await;
    server.sql("CREATE DATABASE other").await;
    let mut elsewhere = server.connect_as("shop", "other").await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT 1").execute(&mut elsewhere).await.unwrap();
    let mut user = server.connect().await;
    sqlx::raw_sql("SET application_name = 'a report'; BEGIN; SELECT 1").execute(&mut user).await.unwrap();
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    let looking = tokio::spawn({
        let url = server.url();
        async move { look(&url, None, r#"{"maxTransactionAge": "4s"}"#).await }
    });
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'servicerelease/preflight'").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    sqlx::raw_sql("COMMIT").execute(&mut user).await.unwrap();
    let (findings, faults) = looking.await.unwrap().unwrap();
    assert!(faults.is_empty(), "one in another database is in nobody's way: {faults:?}");
    assert!(findings.oldest_transaction_seconds < 1.0, "{findings:?}");

    sqlx::raw_sql("BEGIN; CREATE TABLE a (); PREPARE TRANSACTION 'half'").execute(&mut user).await.unwrap();
    let (_, faults) = look(&server.url(), None, r#"{"maxTransactionAge": "0s"}"#).await.unwrap();
    assert!(faults.len() == 1 && faults[0].contains("prepared transaction 'half' of shop"), "{faults:?}");
}

#[tokio::test]
async fn rights_to_what_is_planned_are_looked_at_before_it_is_begun() {
    let (server, scratch) = (Server::start().await, Server::start().await);
    server.sql("CREATE ROLE tenant LOGIN; CREATE ROLE other LOGIN").await;
    server.sql("CREATE DATABASE shop OWNER other").await;
    let mut admin = server.connect_as("shop", "shop").await.unwrap();
    let make = "CREATE EXTENSION dblink; CREATE EXTENSION pgcrypto; SET ROLE other; CREATE TABLE a (id serial); CREATE TABLE b (n int); \
                GRANT SELECT ON b TO tenant; ALTER TABLE b ENABLE ROW LEVEL SECURITY";
    sqlx::raw_sql(make).execute(&mut admin).await.unwrap();
    let _session = server.connect_as("other", "shop").await.unwrap();
    let mut places = Places {
        url: server.url_of("tenant", "shop"),
        tool: None,
        scratch: None,
        files: "/nowhere".into(),
        down_files: "/nowhere".into(),
        seed_files: "/nowhere".into(),
        backups: "/nowhere".into(),
        command: Vec::new(),
    };
    let all = [Planned::Backup, Planned::Proof, Planned::Rehearsal, Planned::Restore];
    let faults = rights::look(&places, &all).await.unwrap();
    let told = [
        "role tenant may not read public.a, public.a_id_seq, and a backup is of all tables: GRANT pg_read_all_data TO tenant",
        "row-level security hides rows of public.b from role tenant, and pg_dump fails on that: ALTER ROLE tenant BYPASSRLS",
        "role tenant may make no database to restore a backup into: ALTER ROLE tenant CREATEDB",
        "only a superuser makes extension dblink, so that role tenant can restore no backup of this database: name a superuser's URL in backup.scratchUrlFrom",
        "role tenant does not own the database, which onRollback: Restore gives another name: GRANT other TO tenant",
        "role tenant may not end sessions of other, which onRollback: Restore does: GRANT pg_signal_backend TO tenant",
        "a restore keeps owners, and role tenant is no member of other: GRANT other TO tenant",
    ];
    assert_eq!(faults.len(), told.len(), "{faults:#?}");
    for (fault, told) in faults.iter().zip(told) {
        assert!(fault.starts_with(told), "{fault}");
    }
    assert!(rights::look(&places, &[]).await.unwrap().is_empty(), "nothing is asked for what is not planned");
    let task = json!({"preflight": {"session": true, "limits": {}, "planned": ["proof"]}});
    let report = job::perform(&places.url, task, None, &[]).await;
    assert!(
        report.outcome == WorkOutcome::NotBegun && report.message.contains("ALTER ROLE tenant CREATEDB"),
        "{report:?}"
    );

    places.scratch = Some(scratch.url());
    let faults = rights::look(&places, &[Planned::Proof, Planned::Rehearsal]).await.unwrap();
    assert!(faults.is_empty(), "a superuser's server for scratch databases: {faults:?}");
    places.scratch = None;
    server
        .sql("GRANT pg_read_all_data, pg_signal_backend, other TO tenant; ALTER ROLE tenant BYPASSRLS CREATEDB")
        .await;
    sqlx::raw_sql("RESET ROLE; DROP EXTENSION dblink").execute(&mut admin).await.unwrap();
    let faults = rights::look(&places, &all).await.unwrap();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn a_command_of_another_role_needs_somebody_who_may_see_its_sessions() {
    let server = Server::start().await;
    server.sql("CREATE ROLE direct LOGIN; CREATE ROLE \"a tool\" LOGIN; CREATE ROLE admin LOGIN SUPERUSER").await;
    let look = async |tool: &str| {
        let places = Places {
            url: server.url_of("direct", "postgres"),
            tool: Some(server.url_of(tool, "postgres")),
            scratch: None,
            files: "/nowhere".into(),
            down_files: "/nowhere".into(),
            seed_files: "/nowhere".into(),
            backups: "/nowhere".into(),
            command: Vec::new(),
        };
        rights::over_tool(&places).await.unwrap()
    };
    assert_eq!(look("direct").await, [""; 0]);
    let why = |tool: &str| {
        format!(
            "role direct may not tell whether sessions of role {tool} are at work, or cancel what waits for a lock, which DATABASE_URL \
             of the migration's pod names"
        )
    };
    let one = "or let both URLs have one role";
    let remedy = format!("{}: GRANT pg_read_all_stats, pg_signal_backend TO direct, {one}", why("a tool"));
    assert_eq!(look("a%20tool").await, [remedy]);
    // It reads all statistics, and more.
    server.sql("GRANT pg_monitor TO direct").await;
    assert_eq!(look("a%20tool").await, [format!("{}: GRANT pg_signal_backend TO direct, {one}", why("a tool"))]);
    server.sql("GRANT pg_signal_backend TO direct").await;
    assert_eq!(look("a%20tool").await, [""; 0]);
    let told = look("admin").await;
    assert!(told.len() == 1 && told[0].ends_with("since that is a superuser: let both URLs have one role"), "{told:?}");
    server.sql("REVOKE pg_monitor, pg_signal_backend FROM direct; GRANT \"a tool\" TO direct").await;
    assert_eq!(look("a%20tool").await, [""; 0], "who is a member sees them as well");

    // As a pod has it: the template's own URL, and that of the wrapper.
    server.sql("REVOKE \"a tool\" FROM direct; GRANT CREATE ON SCHEMA public TO direct").await;
    let task = json!({"preflight": {"session": true, "limits": {}}});
    let program = [
        "env",
        &format!("SERVICERELEASE_URL={}", server.url_of("direct", "postgres")),
        env!("CARGO_BIN_EXE_service-release-operator"),
    ];
    let started = job::Job::start_as(&program, &server.url_of("a%20tool", "postgres"), &task, None, None, &["true"]);
    let report = started.wait().report.unwrap();
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.contains("GRANT pg_read_all_stats, pg_signal_backend TO direct"), "{report:?}");
}

#[tokio::test]
async fn a_pooler_between_transactions_is_recognised() {
    let server = Server::start().await;
    let pooler = server.pooler("transaction").await;
    let (_, faults) = look(&server.url_at(pooler.port), None, "{}").await.unwrap();
    assert!(faults.len() == 1 && faults[0].contains("set directUrlFrom"), "{faults:?}");
    // Who needs no session of its own may have a pooler.
    let task = json!({"preflight": {"session": false, "limits": {}}});
    let report = job::perform(&server.url_at(pooler.port), task, None, &[]).await;
    assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    let pooler = server.pooler("session").await;
    let (_, faults) = look(&server.url_at(pooler.port), None, "{}").await.unwrap();
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test]
async fn a_pooler_whose_clients_are_busy_is_recognised_too_and_keeps_no_lock() {
    let server = Server::start().await;
    let pooler = server.pooler_in_turns().await;
    let url = server.url_at(pooler.port);
    let (_, faults) = look(&url, None, "{}").await.unwrap();
    assert!(faults.len() == 1 && faults[0].contains("set directUrlFrom"), "{faults:?}");
    // Nor does anything begin there that was not looked at before.
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("001.sql"), "CREATE TABLE made ()").unwrap();
    for task in [
        json!({"migrate": {"set": "shop", "release": "a/b#1", "lockTimeout": "1s", "timeout": "10s"}}),
        json!({"wrap": {"plan": "p", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "10s"}}),
    ] {
        let report = job::perform(&url, task, Some(directory.path()), &["true"]).await;
        assert!(report.outcome == WorkOutcome::NotBegun && report.message.contains("set directUrlFrom"), "{report:?}");
    }
    assert_eq!(server.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await, 0);
    let made = "SELECT count(*) FROM pg_class WHERE relname IN ('made', 'servicerelease_ledger')";
    assert_eq!(server.number(made).await, 0);
}

const FILES: [(&str, &str); 3] = [
    ("001_users.sql", "CREATE TABLE users (id int); INSERT INTO users VALUES (1)"),
    ("002_drop.sql", "DROP TABLE users"),
    ("002_drop.down.sql", "CREATE TABLE users (id int)"),
];

async fn of_files(server: &Server, all: &[(&str, &str)]) -> Report {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in all {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let task: Value =
        json!({"preflight": {"minVersion": "12", "session": true, "limits": {}, "set": "shop", "down": true}});
    job::perform(&server.url(), task, Some(directory.path()), &[]).await
}

#[tokio::test]
async fn what_the_way_back_would_lose_is_told_before_anything_is_made() {
    let server = Server::start().await;
    let all = [
        ("001_users.sql", "CREATE TABLE users (id int)"),
        ("001_users.down.sql", "DROP TABLE users"),
        ("002_email.sql", "ALTER TABLE users ADD email text"),
        ("002_email.down.sql", "ALTER TABLE users DROP email"),
        ("003_index.sql", "CREATE INDEX i ON users (id)"),
    ];
    let report = of_files(&server, &all).await;
    assert_eq!((report.outcome, report.loses_data, report.down_loses_data), (WorkOutcome::Done, false, true));
    let told = [
        "002_email.down.sql, line 1: drops a column with its values",
        "001_users.down.sql, line 1: drops tables with their rows",
        "there is no file that takes 003_index.sql back: it would be called 003_index.down.sql",
    ];
    assert_eq!(report.down_risks, told, "{report:?}");
    let report = of_files(&server, &[all[4], ("003_index.down.sql", "DROP INDEX CONCURRENTLY i")]).await;
    assert_eq!((report.outcome, report.down_loses_data), (WorkOutcome::Done, false));
    assert!(report.down_risks[0].starts_with("003_index.down.sql, line 1: each down file"), "{report:?}");
    let report = of_files(&server, &[all[4], ("003_index.down.sql", "DROP INDEX i")]).await;
    assert!(report.down_risks.is_empty() && !report.down_loses_data, "{report:?}");
}

#[tokio::test]
async fn files_are_looked_at_before_anything_is_made() {
    let server = Server::start().await;
    let report = of_files(&server, &FILES).await;
    assert_eq!((report.outcome, report.count, report.loses_data), (WorkOutcome::Done, 2, true), "{report:?}");
    assert_eq!(report.pending, ["001_users.sql", "002_drop.sql"]);
    assert_eq!(report.risks, ["002_drop.sql, line 1: drops tables with their rows"]);
    assert!(report.server_version == server.version().await && report.size_bytes > 0, "{report:?}");
    let all = FILES[..2].iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    assert_eq!(report.files_hash, files::plan("shop", &files::ordered(all).unwrap()));
    assert_eq!(server.number("SELECT count(*) FROM pg_class WHERE relname = 'servicerelease_ledger'").await, 0);

    // Only what is pending is told of.
    let run = json!({"migrate": {"set": "shop", "release": "a/b#1", "lockTimeout": "1s", "timeout": "1m"}});
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let ran = job::perform(&server.url(), run, Some(directory.path()), &[]).await;
    assert_eq!((ran.outcome, ran.applied.len()), (WorkOutcome::Done, 2), "{ran:?}");
    let report = of_files(&server, &[FILES[0], FILES[1], ("003_more.sql", "SELECT 1")]).await;
    assert_eq!(
        (report.outcome, report.pending, report.risks.len()),
        (WorkOutcome::Done, vec!["003_more.sql".into()], 0)
    );
    assert!(!report.loses_data);

    for (all, told) in [
        (vec![("001_users.sql", "SELECT 1"), FILES[1]], "001_users.sql was applied with other contents (by a/b#1 at "),
        (vec![FILES[0], ("0015_late.sql", "SELECT 1")], ""),
        (vec![("000_late.sql", "SELECT 1"), FILES[0], FILES[1]], "000_late.sql comes before 001_users.sql"),
        (vec![("001.sql", "SELECT 1; COMMIT")], "001.sql, line 1: each file is run in a transaction"),
    ] {
        let report = of_files(&server, &all).await;
        let meant = if told.is_empty() { WorkOutcome::Done } else { WorkOutcome::NotBegun };
        assert!(report.outcome == meant && report.message.contains(told), "{report:?}");
    }
}

#[tokio::test]
async fn the_files_of_a_seed_are_looked_at_as_those_that_come_after_the_migration() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let seed = directory.path().join("seed");
    let look = async || {
        let task =
            json!({"preflight": {"session": true, "limits": {}, "set": "shop", "seed": "seed", "release": "a/b#1"}});
        job::perform(&server.url(), task, Some(directory.path()), &[]).await
    };
    let apply = async |set: &str, files: &Path| {
        let run = json!({"migrate": {"set": set, "release": "a/b#1", "lockTimeout": "1s", "timeout": "1m"}});
        let report = job::perform(&server.url(), run, Some(files), &[]).await;
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    };
    fs::write(directory.path().join("001.sql"), "CREATE TABLE zones (id int PRIMARY KEY, name text)").unwrap();
    // As a kubelet mounts a ConfigMap that is not there.
    fs::create_dir(&seed).unwrap();
    let report = look().await;
    let told = "of the seed: there is no file whose name ends in .sql";
    assert_eq!((report.outcome, report.message.as_str()), (WorkOutcome::NotBegun, told));

    let rows = "INSERT INTO zones VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = 'a'";
    fs::write(seed.join("001_rows.sql"), rows).unwrap();
    let hash = files::plan("seed", &files::ordered(vec![("001_rows.sql".into(), rows.into())]).unwrap());
    let report = look().await;
    let found = (report.outcome, report.seed_loses_data, report.seed_hash.as_str());
    assert_eq!(found, (WorkOutcome::Done, false, hash.as_str()), "the table is not there yet: {report:?}");
    // Once it is others may have written to it.
    apply("shop", directory.path()).await;
    let report = look().await;
    assert!(report.seed_loses_data && !report.loses_data && report.risks.is_empty(), "{report:?}");
    assert_eq!(report.seed_risks, ["001_rows.sql, line 1: writes over values that are there, which no rehearsal sees"]);
    // What is put in is not looked at any more.
    apply("seed", &seed).await;
    let report = look().await;
    assert_eq!((report.seed_risks.len(), report.seed_loses_data, report.seed_hash), (0, false, hash));

    for (name, text, told) in [
        ("001_rows.sql", "SELECT 1", "of the seed: 001_rows.sql was applied with other contents (by a/b#1 at "),
        ("001_rows.sql", "SELECT 1; COMMIT", "of the seed: 001_rows.sql, line 1: each file is run in a transaction"),
        ("rows.sql", "SELECT 1", "of the seed: rows.sql: the name must begin with the number"),
    ] {
        fs::write(seed.join(name), text).unwrap();
        let report = look().await;
        assert!(report.outcome == WorkOutcome::NotBegun && report.message.starts_with(told), "{report:?}");
    }
}

#[tokio::test]
async fn code_that_nobody_can_read_may_lose_data_unless_a_rehearsal_is_going_to_tell() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("001.sql"), "DO $$ BEGIN EXECUTE 'DROP TABLE victims'; END $$").unwrap();
    for (planned, loses_data) in [(json!([]), true), (json!(["backup", "proof", "rehearsal"]), false)] {
        let task = json!({"preflight": {"session": true, "limits": {}, "set": "shop", "planned": planned}});
        let report = job::perform(&server.url(), task, Some(directory.path()), &[]).await;
        assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, loses_data), "{report:?}");
        assert_eq!(report.risks.len(), usize::from(loses_data), "{report:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_clearly_and_nowhere() {
    let server = Server::start().await;
    server.with_passwords("shop", "s3cr3t p@ss").await;
    let url = server.url().replace("shop@", "shop:wr0ng%20p%40ss@");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("001.sql"), "SELECT 1").unwrap();
    let run = json!({"set": "shop", "release": "a/b#1", "lockTimeout": "1s", "timeout": "1m"});
    let wrapped = json!({"plan": "p", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "1m"});
    for task in [
        json!({"preflight": {"session": true, "limits": {}}}),
        json!({"backup": {"name": "a", "proof": true, "keep": 1}}),
        json!({"rehearse": {"name": "a", "sql": run, "timeout": "1m"}}),
        json!({"migrate": run}),
        json!({"down": {"run": run, "of": "a/b#1"}}),
        json!({"wrap": wrapped}),
        json!({"settle": wrapped}),
        json!({"verify": {"tables": ["a"]}}),
        json!({"restore": {"name": "a", "suffix": "_b"}}),
    ] {
        let backups = directory.path();
        let ended =
            job::Job::start(&url, &task, Some(directory.path()), Some(backups), &["psql", "-c", "SELECT 1"]).wait();
        let report = ended.report.unwrap();
        assert_ne!(report.outcome, WorkOutcome::Done, "{task}: {report:?}");
        let all = format!("{report:?}{}", ended.output);
        assert!(!all.contains("wr0ng") && !all.contains("p@ss") && !all.contains("p%40ss"), "{task}: {all}");
        if !task.to_string().contains("\"name\"") {
            let told = "password authentication failed for user \"shop\" (SQLSTATE 28P01)";
            assert!(report.message.contains(told), "{task}: {report:?}");
        }
    }
}
