//! Backups of a real server, and what a proof finds of those that are none.

use std::{fs, path::Path, process::Command, sync::Arc};

use futures::future::join_all;
use serde_json::json;
use servicerelease::{
    api::WorkOutcome,
    database::{
        backup::{self, Backup, Kept, Owner, known, retain},
        scratch,
    },
};

use super::{
    job::{self, take},
    server::Server,
};

const DATA: &str = "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users SELECT n, md5(n::text) FROM generate_series(1, 500) n;
    CREATE SCHEMA sales; CREATE TABLE sales.\"Orders\" (id int, at date) PARTITION BY RANGE (at);
    CREATE TABLE sales.orders_2024 PARTITION OF sales.\"Orders\" FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    INSERT INTO sales.\"Orders\" VALUES (1, '2024-05-05'), (2, '2024-06-06'); CREATE EXTENSION pgcrypto";

const SCRATCH: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE 'servicerelease_scratch_%'";

#[tokio::test]
async fn a_backup_is_proven_by_its_restoration() {
    let server = Server::start().await;
    server.sql(DATA).await;
    // A copy of it would keep its database from being dropped.
    server.sql("CREATE SUBSCRIPTION s CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)").await;
    let directory = tempfile::tempdir().unwrap();
    let writing = tokio::spawn({
        let mut connection = server.connect().await;
        async move {
            // What comes while it is taken is none of it.
            for _ in 0..200 {
                let more = "INSERT INTO users SELECT max(id) + 1, 'new' FROM users";
                sqlx::raw_sql(more).execute(&mut connection).await.unwrap();
            }
        }
    });
    let backup = take(&server.url(), directory.path(), "shop-1").await.unwrap();
    writing.await.unwrap();
    let tables: Vec<&str> = backup.rows.keys().map(String::as_str).collect();
    assert_eq!(tables, ["public.users", "sales.orders_2024"]);
    assert_eq!((backup.file.as_str(), backup.rows["sales.orders_2024"]), ("shop-1.dump", 2));
    assert_eq!(fs::metadata(directory.path().join("shop-1.dump")).unwrap().len(), backup.bytes);
    assert!(backup.server_version == server.version().await && backup.proven_at.is_none(), "{backup:?}");
    // One that an earlier proof left is in nobody's way.
    let proven = prove(&server.url(), directory.path(), "shop-1").await.unwrap();
    assert!(proven.proven_at.is_some() && known(directory.path(), "shop-1").unwrap() == proven);
    assert_eq!(server.number(SCRATCH).await, 0);
    // Whoever asks twice gets one.
    server.sql("DELETE FROM users").await;
    assert_eq!(take(&server.url(), directory.path(), "shop-1").await.unwrap(), proven);
}

/// What is in a directory.
fn names(directory: &Path) -> Vec<String> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<String> = all.collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_job_that_is_made_twice_makes_one_backup() {
    let server = Arc::new(Server::start().await);
    server.sql(DATA).await;
    let directory = Arc::new(tempfile::tempdir().unwrap());
    // What a killed one left is in nobody's way.
    for left in [".shop-1.dump.part", ".shop-1.json.part", "shop-1.dump"] {
        fs::write(directory.path().join(left), "half").unwrap();
    }
    let task = json!({"backup": {"name": "shop-1", "proof": true, "keep": 1}});
    let twice = (0..3).map(|_| {
        let (server, directory, task) = (server.clone(), directory.clone(), task.clone());
        async move { job::perform_in(&server.url(), task, None, Some(directory.path()), &[]).await }
    });
    let reports = join_all(twice).await;
    for report in &reports {
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
        let backup = report.backup.as_ref().unwrap();
        assert_eq!((backup.name.as_str(), backup.tables, backup.rows), ("shop-1", 2, 502));
        assert!(backup.proven_at.is_some() && backup.started_at <= backup.ended_at, "{backup:?}");
        assert_eq!(backup.sha256, sha256(&directory.path().join("shop-1.dump")));
        let first = reports[0].backup.as_ref().unwrap();
        assert_eq!((backup.started_at, &backup.sha256), (first.started_at, &first.sha256), "they are one");
    }
    assert_eq!(names(directory.path()), ["shop-1.dump", "shop-1.json"]);
    assert_eq!(server.number(SCRATCH).await, 0);

    let task = json!({"backup": {"name": "shop-2", "proof": false, "keep": 1}});
    let report = job::perform_in(&server.url(), task, None, Some(directory.path()), &[]).await;
    assert!(report.outcome == WorkOutcome::Done && report.message.ends_with("not proven"), "{report:?}");
    assert_eq!(names(directory.path()).len(), 4, "the last good one stays: {report:?}");
    // It is not what was written.
    fs::write(directory.path().join("shop-2.dump"), "").unwrap();
    let task = json!({"backup": {"name": "shop-2", "proof": true, "keep": 1}});
    let report = job::perform_in(&server.url(), task, None, Some(directory.path()), &[]).await;
    assert_eq!(report.outcome, WorkOutcome::Failed, "{report:?}");
    assert_eq!(report.message, "shop-2.dump is not what was written: its checksum is another one");
}

#[tokio::test]
async fn a_proof_may_be_on_another_server() {
    let (server, other) = (Server::start().await, Server::start().await);
    server.sql(DATA).await;
    let directory = tempfile::tempdir().unwrap();
    take(&server.url(), directory.path(), "shop").await.unwrap();
    let elsewhere = scratch::Server::of(&server.url(), Some(&other.url()), "production/shop#1").unwrap();
    // Both at once, as two releases would that share a server for scratch databases.
    let same = scratch::Server::of(&server.url(), Some(&other.url()), "production/shop#1").unwrap();
    let both = (backup::prove(&elsewhere, directory.path(), "shop"), backup::prove(&same, directory.path(), "shop"));
    let (one, two) = futures::join!(both.0, both.1);
    assert!(one.unwrap().proven_at.is_some() && two.unwrap().proven_at.is_some());
    assert_eq!((server.number(SCRATCH).await, other.number(SCRATCH).await), (0, 0));
}

#[tokio::test]
async fn a_proof_that_is_told_to_end_leaves_nothing() {
    let server = Server::start().await;
    // A restore that takes as long as a test wants.
    server.sql("CREATE TABLE slow (id int); INSERT INTO slow VALUES (1)").await;
    server
        .sql(
            "CREATE FUNCTION wait_for() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN IF current_database() LIKE \
             'servicerelease_scratch_%' THEN PERFORM pg_sleep(100); END IF; RETURN 1; END $$; \
             CREATE INDEX ON slow ((id + public.wait_for()))",
        )
        .await;
    let directory = tempfile::tempdir().unwrap();
    let task = json!({"backup": {"name": "shop", "proof": true, "keep": 1}});
    let job = job::Job::start(&server.url(), &task, None, Some(directory.path()), &[]);
    server.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname LIKE 'servicerelease_scratch_%' AND wait_event = 'PgSleep'").await;
    job.signal("TERM");
    let ended = job.wait();
    let report = ended.report.unwrap();
    assert!(report.outcome == WorkOutcome::Failed && report.message.starts_with("it was told to end"), "{report:?}");
    assert_eq!(server.number(SCRATCH).await, 0);
}

async fn prove(url: &str, directory: &Path, name: &str) -> Result<Backup, String> {
    backup::prove(&scratch::Server::of(url, None, "production/shop#1").unwrap(), directory, name).await
}

fn rewrite(directory: &Path, change: impl FnOnce(&mut Backup)) {
    let mut backup = known(directory, "shop").unwrap();
    change(&mut backup);
    fs::write(directory.join("shop.json"), serde_json::to_vec(&backup).unwrap()).unwrap();
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[tokio::test]
async fn a_backup_that_is_none_is_found_out() {
    let server = Server::start().await;
    server.sql(DATA).await;
    let directory = tempfile::tempdir().unwrap();
    let dump = directory.path().join("shop.dump");
    take(&server.url(), directory.path(), "shop").await.unwrap();
    let whole = fs::read(&dump).unwrap();
    let proof = async || prove(&server.url(), directory.path(), "shop").await.unwrap_err();

    fs::write(&dump, &whole[..whole.len() / 2]).unwrap();
    assert!(proof().await.contains("shop.dump is not what was written"));
    // So it was written: cut short, and empty.
    rewrite(directory.path(), |backup| backup.sha256 = sha256(&dump));
    let error = proof().await;
    assert!(error.starts_with("pg_restore: ") && error.contains("(exit code 1)"), "{error}");
    fs::write(&dump, "").unwrap();
    rewrite(directory.path(), |backup| backup.sha256 = sha256(&dump));
    let error = proof().await;
    assert!(error.contains("input file is too short"), "{error}");

    // Whole, but of something else.
    fs::write(&dump, &whole).unwrap();
    rewrite(directory.path(), |backup| {
        backup.sha256 = sha256(&dump);
        backup.rows.insert("public.users".into(), 501);
        backup.rows.insert("public.lost".into(), 0);
    });
    let told = "what was restored differs: table public.lost is missing; table public.users has 500 rows, not 501";
    assert_eq!(proof().await, told);
    assert_eq!(server.number(SCRATCH).await, 0, "no scratch database is left over");
}

#[tokio::test]
async fn a_scratch_database_that_was_left_is_replaced() {
    let server = Server::start().await;
    server.sql(DATA).await;
    let directory = tempfile::tempdir().unwrap();
    take(&server.url(), directory.path(), "shop").await.unwrap();
    let name = format!("servicerelease_scratch_{}", &sha256_of("postgres")[..16]);
    server.sql(&format!("CREATE DATABASE {name}")).await;
    prove(&server.url(), directory.path(), "shop").await.unwrap();
    assert_eq!(server.number(SCRATCH).await, 0);
}

fn sha256_of(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    sha256(file.path())
}

/// A file system of so many bytes.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .status();
        assert!(mounted.unwrap().success());
        Self(directory)
    }

    fn remount(&self, mode: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(self.0.path()).status();
        assert!(mounted.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_leaves_nothing() {
    let server = Server::start().await;
    server.sql("CREATE TABLE noise AS SELECT md5(random()::text) FROM generate_series(1, 50000)").await;
    let small = Small::mount("128k");
    let error = take(&server.url(), small.0.path(), "shop").await.unwrap_err();
    assert!(error.starts_with("pg_dump: ") && error.contains("No space left on device"), "{error}");
    assert_eq!(fs::read_dir(small.0.path()).unwrap().count(), 0);
}

/// Puts a backup of one day into a directory that is nothing but its record.
fn put(directory: &Path, name: &str, day: u32, proven: bool, owner: Option<&Owner>) {
    let at = format!("2024-05-{day:02}T00:00:00Z");
    let mut backup = json!({"file": format!("{name}.dump"), "bytes": 1, "sha256": "", "serverVersion": "15",
        "startedAt": at, "endedAt": at, "rows": {}});
    if proven {
        backup["provenAt"] = json!(at);
    }
    if let Some(owner) = owner {
        backup["owner"] = json!(owner);
    }
    fs::write(directory.join(format!("{name}.dump")), "x").unwrap();
    fs::write(directory.join(format!("{name}.json")), backup.to_string()).unwrap();
}

fn owner(release: &str, database: &str) -> Owner {
    Owner { release: release.into(), database: database.into() }
}

fn keep(count: usize) -> Kept<'static> {
    Kept { count, not_before: None, made: "", spared: None, proven: None, rehearsed: false }
}

#[test]
fn the_last_good_one_is_never_removed() {
    let directory = tempfile::tempdir().unwrap();
    let own = owner("ns/shop", "1/shop");
    for (name, day, proven) in [("a", 1, true), ("b", 2, true), ("c", 3, false), ("d", 4, false), ("e", 5, false)] {
        put(directory.path(), name, day, proven, Some(&own));
    }
    fs::write(directory.path().join("notes.txt"), "").unwrap();
    let spared = Kept { spared: Some("a"), ..keep(3) };
    assert!(retain(directory.path(), &own, &spared).unwrap().is_empty(), "a may still be restored");
    // Broken off between a backup and its record.
    fs::remove_file(directory.path().join("a.dump")).unwrap();
    assert_eq!(retain(directory.path(), &own, &keep(3)).unwrap(), ["a"], "b is the last good one");
    let long_ago = Kept { not_before: Some("2025-01-01T00:00:00Z".parse().unwrap()), ..keep(3) };
    assert_eq!(retain(directory.path(), &own, &long_ago).unwrap(), ["d", "c"]);
    assert_eq!(names(directory.path()), ["b.dump", "b.json", "e.dump", "e.json", "notes.txt"]);
}

/// A rehearsal by a command has the directory read only, so that its proof is in the status alone until the next backup.
#[tokio::test]
async fn one_that_a_rehearsal_proved_is_not_removed_for_one_that_nobody_has_restored() {
    let server = Server::start().await;
    server.sql("CREATE TABLE users (id int)").await;
    let small = Small::mount("16m");
    let directory = small.0.path();
    let back_up = async |name: &str, proven: Option<&str>| {
        let proven = proven.map(|name| json!({"name": name, "at": "2026-01-02T03:04:05Z"}));
        let task = json!({"backup": {"name": name, "of": "production/shop", "proof": false, "keep": 1, "maxAge": "1ms",
            "rehearsed": true, "proven": proven}});
        let report = job::perform_in(&server.url(), task, None, Some(directory), &[]).await;
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
        report.message
    };
    let dumps = || {
        names(directory)
            .into_iter()
            .filter_map(|name| name.strip_suffix(".dump").map(str::to_owned))
            .collect::<Vec<_>>()
    };
    back_up("a", None).await;
    small.remount("ro");
    let task = json!({"rehearse": {"name": "a", "timeout": "1m"}});
    let command = ["sh", "-c", "psql -X -q \"$DATABASE_URL\" -c 'ALTER TABLE users ADD COLUMN age int'"];
    let rehearsed = job::perform_in(&server.url(), task, None, Some(directory), &command).await;
    assert_eq!(rehearsed.outcome, WorkOutcome::Done, "{rehearsed:?}");
    small.remount("rw");
    assert!(known(directory, "a").unwrap().proven_at.is_none(), "nobody could note it");
    // The object was made again, and has lost its status: nobody knows which were proven.
    back_up("b", None).await;
    assert_eq!(dumps(), ["a", "b"]);
    // As the status has it.
    assert!(back_up("c", Some("a")).await.ends_with("; removed b"));
    assert_eq!(dumps(), ["a", "c"]);
    assert!(known(directory, "a").unwrap().proven_at.is_some(), "by now it is on the disk");
    // Without the status the last one on record stays, and what may have been proven since.
    back_up("d", None).await;
    assert_eq!(dumps(), ["a", "c", "d"]);
    assert!(back_up("e", Some("d")).await.ends_with("; removed c, a"));
    assert_eq!(dumps(), ["d", "e"]);
}

#[test]
fn the_one_that_was_just_made_stays_by_whatever_clock() {
    let directory = tempfile::tempdir().unwrap();
    let own = owner("ns/shop", "1/shop");
    for (name, day, proven) in [("made", 1, false), ("b", 2, false), ("c", 3, true)] {
        put(directory.path(), name, day, proven, Some(&own));
    }
    let kept = Kept { made: "made", ..keep(1) };
    assert_eq!(retain(directory.path(), &own, &kept).unwrap(), ["b"], "its node's clock is behind");
    assert_eq!(retain(directory.path(), &own, &keep(1)).unwrap(), ["made"]);
}

#[test]
fn what_others_have_in_the_same_directory_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let own = owner("ns/shop", "1/shop");
    // Another release, and another database of this one.
    put(directory.path(), "ns.other-1-20240501T000000", 1, true, Some(&owner("ns/other", "1/shop")));
    put(directory.path(), "ns.shop-1-20240502T000000", 2, true, Some(&owner("ns/shop", "1/orders")));
    // Of records without an owner the name tells whose they are.
    put(directory.path(), "ns.other-1-20240503T000000", 3, true, None);
    put(directory.path(), "ns.shop-3-4-20240504T000000", 4, true, None);
    put(directory.path(), "by-hand", 5, true, None);
    put(directory.path(), "ns.shop-2-20240506T000000", 6, true, None);
    put(directory.path(), "ns.shop-2-20240506T000000-before-restore", 7, true, None);
    put(directory.path(), "ns.shop-4-20240508T000000", 8, true, Some(&own));
    let removed = retain(directory.path(), &own, &keep(1)).unwrap();
    assert_eq!(removed, ["ns.shop-2-20240506T000000"], "what was set aside takes no other's place");
    assert_eq!(names(directory.path()).len(), 14);
    put(directory.path(), "ns.shop-5-20240509T000000-before-restore", 9, true, Some(&own));
    let removed = retain(directory.path(), &own, &keep(1)).unwrap();
    assert_eq!(removed, ["ns.shop-2-20240506T000000-before-restore"], "the last good one stays");
}

#[tokio::test]
async fn a_directory_is_shared_with_other_databases() {
    let server = Server::start().await;
    server.sql(DATA).await;
    server.sql("CREATE DATABASE other").await;
    let directory = tempfile::tempdir().unwrap();
    let back_up = async |database: &str, of: &str, name: &str, keep: Option<i32>| {
        let task = json!({"backup": {"name": name, "of": of, "proof": false, "keep": keep}});
        let url = server.url_of("shop", database);
        let report = job::perform_in(&url, task, None, Some(directory.path()), &[]).await;
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
        report.message
    };
    for (database, of, name) in [
        ("postgres", "ns/a", "ns.a-1-20240101T000000"),
        ("other", "ns/a", "ns.a-2-20240102T000000"),
        ("postgres", "ns/b", "ns.b-1-20240101T000000"),
    ] {
        assert!(!back_up(database, of, name, Some(1)).await.contains("removed"), "{name}");
    }
    let before = back_up("postgres", "ns/a", "ns.a-1-20240101T000000-before-restore", None).await;
    assert!(!before.contains("removed"), "what is to be restored next stays: {before}");
    let next = back_up("postgres", "ns/a", "ns.a-3-20240103T000000", Some(1)).await;
    assert!(next.ends_with("removed ns.a-1-20240101T000000"), "{next}");
    assert_eq!(names(directory.path()).len(), 8);
}

#[tokio::test]
async fn limits_of_the_role_do_not_end_the_sessions_of_a_backup_and_its_proof() {
    let server = Server::start().await;
    server.sql("CREATE TABLE many AS SELECT n FROM generate_series(1, 1000000) n").await;
    server.sql("ALTER ROLE shop SET idle_in_transaction_session_timeout = '100ms'").await;
    server.sql("ALTER ROLE shop SET idle_session_timeout = '2s'; ALTER ROLE shop SET statement_timeout = '5s'").await;
    let directory = tempfile::tempdir().unwrap();
    let backup = take(&server.url(), directory.path(), "shop-1").await.unwrap();
    assert_eq!(backup.rows["public.many"], 1_000_000);
    prove(&server.url(), directory.path(), "shop-1").await.unwrap();
}
