//! Backups of a real server, and what a proof finds of those that are none.

use std::{fs, path::Path, process::Command};

use servicerelease::database::backup::{Backup, known, prove, retain, take};

use super::server::Server;

const DATA: &str = "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users SELECT n, md5(n::text) FROM generate_series(1, 500) n;
    CREATE SCHEMA sales; CREATE TABLE sales.\"Orders\" (id int, at date) PARTITION BY RANGE (at);
    CREATE TABLE sales.orders_2024 PARTITION OF sales.\"Orders\" FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    INSERT INTO sales.\"Orders\" VALUES (1, '2024-05-05'), (2, '2024-06-06'); CREATE EXTENSION pgcrypto";

const SCRATCH: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE 'servicerelease_scratch_%'";

#[tokio::test]
async fn a_backup_is_proven_by_its_restoration() {
    let server = Server::start().await;
    server.sql(DATA).await;
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
    assert!(backup.server_version.starts_with("15.") && backup.proven_at.is_none(), "{backup:?}");
    // One that an earlier proof left is in nobody's way.
    let proven = prove(&server.url(), directory.path(), "shop-1").await.unwrap();
    assert!(proven.proven_at.is_some() && known(directory.path(), "shop-1").unwrap() == proven);
    assert_eq!(server.number(SCRATCH).await, 0);
    let again = take(&server.url(), directory.path(), "shop-1").await.unwrap_err();
    assert!(again.contains("a backup is never overwritten"), "{again}");
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

#[test]
fn the_last_good_one_is_never_removed() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, day: u32, proven: bool| {
        let at = format!("2024-05-{day:02}T00:00:00Z");
        let mut backup = serde_json::json!({"file": format!("{name}.dump"), "bytes": 1, "sha256": "", "serverVersion": "15",
            "startedAt": at, "endedAt": at, "rows": {}});
        if proven {
            backup["provenAt"] = serde_json::json!(at);
        }
        fs::write(directory.path().join(format!("{name}.dump")), "x").unwrap();
        fs::write(directory.path().join(format!("{name}.json")), backup.to_string()).unwrap();
    };
    put("a", 1, true);
    put("b", 2, true);
    put("c", 3, false);
    put("d", 4, false);
    put("e", 5, false);
    fs::write(directory.path().join("notes.txt"), "").unwrap();
    assert_eq!(retain(directory.path(), 3, None).unwrap(), ["a"], "b is the last good one");
    let long_ago = Some("2025-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(retain(directory.path(), 3, long_ago).unwrap(), ["d", "c"]);
    let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["b.dump", "b.json", "e.dump", "e.json", "notes.txt"]);
}
