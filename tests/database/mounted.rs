//! The SQL files that pods of migration tools mount: which of them are due by the tools' own tables, and what those lose.

use std::{fs, path::Path};

use serde_json::{Value, json};
use servicerelease::{api::WorkOutcome, database::meant, engine::Report};
use sqlx_core::migrate::Migrator;

use super::{job, server::Server};

/// A directory with files, by their paths in it.
fn directory(all: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), all);
    directory
}

fn write(root: &Path, all: &[(&str, &str)]) {
    for (name, text) in all {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Preflight in a pod that mounts ConfigMaps there.
async fn look(server: &Server, mounted: &Path, more: Value) -> Report {
    look_as(&server.url(), mounted, more).await
}

async fn look_as(url: &str, mounted: &Path, more: Value) -> Report {
    let mut task = json!({"session": true, "limits": {}, "mounted": {"paths": [mounted]}});
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    job::perform(url, json!({ "preflight": task }), None, &["true"]).await
}

const DROPS: &str = "DROP TABLE customers;";

#[tokio::test]
async fn files_of_prisma_are_due_until_its_table_has_them() {
    let server = Server::start().await;
    let mounted = directory(&[
        ("schema.prisma", "datasource db {}"),
        ("migrations/1_init/migration.sql", "CREATE TABLE customers (id int); DROP TABLE old;"),
        ("migrations/2_drop/migration.sql", DROPS),
        ("migrations/2_drop/down.sql", "DROP TABLE more;"),
    ]);
    let report = look(&server, mounted.path(), json!({})).await;
    assert_eq!((report.outcome, report.loses_data, report.count), (WorkOutcome::Done, true, 2), "{report:?}");
    assert_eq!(report.files_hash, meant::files(&[mounted.path().to_string_lossy().into_owned()]).unwrap());
    assert_eq!(report.risks.len(), 2, "what it takes back is not on its way: {report:?}");

    let table = "CREATE TABLE _prisma_migrations (migration_name varchar(255), finished_at timestamptz, rolled_back_at timestamptz, applied_steps_count int)";
    server.sql(table).await;
    server.sql("INSERT INTO _prisma_migrations VALUES ('1_init', now(), NULL, 1), ('2_drop', NULL, now(), 0)").await;
    let report = look(&server, mounted.path(), json!({})).await;
    let told = ["2_drop/migration.sql, line 1: drops tables with their rows"];
    assert_eq!((report.risks.as_slice(), report.loses_data), (&told.map(str::to_owned)[..], true));
    assert_eq!(report.pending, ["2_drop/migration.sql"]);

    server.sql("INSERT INTO _prisma_migrations VALUES ('2_drop', now(), NULL, 1)").await;
    let report = look(&server, mounted.path(), json!({})).await;
    assert_eq!((report.outcome, report.loses_data, report.count), (WorkOutcome::Done, false, 0), "{report:?}");
}

#[tokio::test]
async fn files_of_golang_migrate_are_due_from_its_version_on() {
    let server = Server::start().await;
    let mounted = directory(&[
        ("1_a.up.sql", "DROP TABLE a;"),
        ("1_a.down.sql", "DROP TABLE b;"),
        ("2_b.up.sql", DROPS),
        ("2_b.down.sql", "DROP TABLE c;"),
    ]);
    // One of another tool's, which is none of its.
    server.sql("CREATE SCHEMA rails; CREATE TABLE rails.schema_migrations (version varchar)").await;
    server.sql("INSERT INTO rails.schema_migrations VALUES ('99')").await;
    assert_eq!(look(&server, mounted.path(), json!({})).await.pending, ["1_a.up.sql", "2_b.up.sql"]);
    server.sql("CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)").await;
    assert_eq!(look(&server, mounted.path(), json!({})).await.pending.len(), 2, "it has no row");
    server.sql("INSERT INTO schema_migrations VALUES (1, false)").await;
    let report = look(&server, mounted.path(), json!({})).await;
    assert_eq!((report.pending.as_slice(), report.loses_data), (&["2_b.up.sql".to_owned()][..], true));
    server.sql("UPDATE schema_migrations SET version = 2, dirty = true").await;
    assert_eq!(look(&server, mounted.path(), json!({})).await.pending, ["2_b.up.sql"], "it was broken off");
    server.sql("UPDATE schema_migrations SET dirty = false").await;
    let report = look(&server, mounted.path(), json!({})).await;
    assert_eq!((report.pending.len(), report.loses_data), (0, false));
    // Another service with a schema of its own: nobody knows whose files these are.
    server.sql("CREATE TABLE rails.other (); CREATE SCHEMA other").await;
    server.sql("CREATE TABLE other.schema_migrations (version bigint, dirty boolean)").await;
    server.sql("INSERT INTO other.schema_migrations VALUES (1, false)").await;
    assert_eq!(look(&server, mounted.path(), json!({})).await.pending, ["2_b.up.sql"]);
}

#[tokio::test]
async fn files_of_flyway_are_due_until_its_table_has_them() {
    let server = Server::start().await;
    let files = [("V1__a.sql", "DROP TABLE a;"), ("V2__b.sql", DROPS), ("U2__b.sql", "DROP TABLE c;")];
    let mounted = directory(&files);
    let table = "CREATE TABLE flyway_schema_history (installed_rank int, version varchar(50), script varchar(1000), type varchar(20), \
                 checksum int, success boolean)";
    server.sql(table).await;
    server.sql("INSERT INTO flyway_schema_history VALUES (1, '1', 'V1__a.sql', 'SQL', 7, true)").await;
    let report = look(&server, mounted.path(), json!({})).await;
    assert_eq!((report.pending.as_slice(), report.loses_data), (&["V2__b.sql".to_owned()][..], true), "{report:?}");
    // What a role may not read is not known.
    server.sql("CREATE ROLE tenant LOGIN; GRANT CREATE ON SCHEMA public TO tenant").await;
    let report = look_as(&server.url_of("tenant", "postgres"), mounted.path(), json!({})).await;
    assert_eq!((report.outcome, report.count), (WorkOutcome::Done, 2), "{report:?}");
}

/// By sqlx's own migrator, which is what `sqlx migrate run` calls.
#[tokio::test]
async fn files_of_sqlx_are_due_until_it_has_run_them() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    let mounted = directory(&[("1_customers_b.sql", "CREATE TABLE customers ();")]);
    Migrator::new(mounted.path()).await.unwrap().run(&mut connection).await.unwrap();
    write(mounted.path(), &[("2_c.up.sql", DROPS), ("2_c.down.sql", "DROP TABLE d;")]);
    let report = look(&server, mounted.path(), json!({})).await;
    assert_eq!((report.pending.as_slice(), report.loses_data), (&["2_c.up.sql".to_owned()][..], true), "{report:?}");
    Migrator::new(mounted.path()).await.unwrap().run(&mut connection).await.unwrap();
    let report = look(&server, mounted.path(), json!({})).await;
    assert_eq!((report.pending.len(), report.loses_data), (0, false), "{report:?}");

    write(mounted.path(), &[("3_e.sql", "DROP TABLE not_there;")]);
    Migrator::new(mounted.path()).await.unwrap().run(&mut connection).await.unwrap_err();
    assert_eq!(look(&server, mounted.path(), json!({})).await.pending, ["3_e.sql"]);
}

#[tokio::test]
async fn what_cannot_be_read_may_lose_data() {
    let server = Server::start().await;
    let script = directory(&[("all.sql", "\\i more.sql")]);
    for (more, loses_data) in [(json!({}), true), (json!({"planned": ["rehearsal"]}), false)] {
        let report = look(&server, script.path(), more).await;
        assert_eq!((report.outcome, report.loses_data), (WorkOutcome::Done, loses_data), "{report:?}");
    }
    let bytes = directory(&[]);
    fs::write(bytes.path().join("a.sql"), [0xff, 0xfe]).unwrap();
    let report = look(&server, bytes.path(), json!({})).await;
    assert!(report.loses_data && report.risks[0].contains("a.sql: it is no text"), "{report:?}");
    let none = directory(&[("seed.mjs", "drop()")]);
    assert!(!look(&server, none.path(), json!({})).await.loses_data);
    let wary = json!({"mounted": {"paths": [none.path()], "wary": true}});
    let report = look(&server, none.path(), wary).await;
    assert!(report.loses_data && report.risks[0].contains("nobody can tell"), "{report:?}");
    let report = look(&server, Path::new("/nowhere/at/all"), json!({})).await;
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.contains("cannot be read"), "{report:?}");
}

#[tokio::test]
async fn the_files_of_a_seeds_pod_are_read_beside_those_of_the_migration() {
    let server = Server::start().await;
    let places = directory(&[
        ("migration/1_a.up.sql", "CREATE TABLE zones (id int PRIMARY KEY);"),
        ("seed/app/sql/1_a.up.sql", "CREATE TABLE zones (id int PRIMARY KEY);"),
        ("seed/app/sql/rows.sql", "UPDATE zones SET id = 2;"),
    ]);
    let migration = places.path().join("migration");
    let look = async || {
        let task = json!({"preflight": {
            "session": true, "limits": {}, "mounted": {"paths": [migration]}, "seedMounted": {"paths": ["/app/sql"]},
        }});
        job::perform(&server.url(), task, Some(places.path()), &["true"]).await
    };
    let report = look().await;
    assert_eq!(
        (report.outcome, report.seed_loses_data),
        (WorkOutcome::Done, false),
        "the migration makes it: {report:?}"
    );
    assert!(!report.seed_hash.is_empty() && report.seed_hash != report.files_hash);
    write(places.path(), &[("seed/app/sql/rows.sql", "DELETE FROM zones;")]);
    let changed = look().await;
    assert_eq!(changed.seed_risks, ["rows.sql, line 1: deletes rows"], "{changed:?}");
    assert!(changed.seed_loses_data && !changed.loses_data && changed.seed_hash != report.seed_hash);
    // As the seed's own pod has it, where it is compared under the lock.
    let own = tempfile::tempdir().unwrap();
    fs::create_dir(own.path().join("app")).unwrap();
    fs::rename(places.path().join("seed/app/sql"), own.path().join("app/sql")).unwrap();
    assert_eq!(meant::files_under(own.path(), &["/app/sql".to_owned()]).unwrap(), changed.seed_hash);
    let report = look().await;
    assert!(
        report.outcome == WorkOutcome::NotBegun && report.message.starts_with("of the seed: the files"),
        "{report:?}"
    );
}

#[tokio::test]
async fn sql_files_that_count_as_applied_are_or_the_new_code_does_not_start() {
    let server = Server::start().await;
    let files = directory(&[("001.sql", "CREATE TABLE a (id int);")]);
    let look = async || {
        let applied = json!({"maps": ["shop-sql"], "what": {"set": "shop"}});
        let task = json!({"preflight": {"session": true, "limits": {}, "release": "a/b#2", "applied": applied}});
        job::perform(&server.url(), task, Some(files.path()), &[]).await
    };
    let told = "ConfigMap shop-sql has what is not applied: 001.sql; the release would not run it";
    let report = look().await;
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.starts_with(told), "{report:?}");
    let run = json!({"migrate": {"set": "shop", "release": "a/b#1", "lockTimeout": "1s", "timeout": "1m"}});
    job::perform(&server.url(), run, Some(files.path()), &[]).await;
    let report = look().await;
    assert_eq!((report.outcome, report.files_hash.as_str()), (WorkOutcome::Done, ""), "it is no plan: {report:?}");
    write(files.path(), &[("002.sql", "SELECT 1")]);
    assert!(look().await.message.contains("migration.version"), "a new one");
    fs::remove_file(files.path().join("002.sql")).unwrap();
    write(files.path(), &[("001.sql", "CREATE TABLE a (id bigint);")]);
    assert!(look().await.message.contains("001.sql was applied with other contents"), "another one");
    fs::remove_file(files.path().join("001.sql")).unwrap();
    assert_eq!(look().await.outcome, WorkOutcome::Done, "a ConfigMap that is gone brings nothing");
}

#[tokio::test]
async fn files_of_a_tool_that_counts_as_done_are_what_they_were_or_its_table_has_them() {
    let server = Server::start().await;
    let root = directory(&[("sql/1_a.up.sql", "CREATE TABLE a (id int);"), ("sql/notes.txt", "one")]);
    let hash = meant::files_under(root.path(), &["/sql".to_owned()]).unwrap();
    let look = async || {
        let what = json!({"mounted": {"paths": ["/sql"], "files": hash}});
        let applied = json!({"maps": ["shop-sql"], "what": what});
        let task = json!({"preflight": {"session": true, "limits": {}, "applied": applied}});
        job::perform(&server.url(), task, Some(root.path()), &[]).await
    };
    assert_eq!(look().await.outcome, WorkOutcome::Done, "they are the same, though no table has them");
    server.sql("CREATE TABLE schema_migrations (version bigint, dirty boolean)").await;
    server.sql("INSERT INTO schema_migrations VALUES (1, false)").await;
    write(root.path(), &[("sql/notes.txt", "two")]);
    assert_eq!(look().await.outcome, WorkOutcome::Done, "the tool has nothing left to run");
    write(root.path(), &[("sql/2_b.up.sql", "SELECT 1")]);
    let report = look().await;
    let told = "ConfigMap shop-sql has what is not applied: 2_b.up.sql; ";
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.starts_with(told), "{report:?}");
    for name in ["1_a.up.sql", "2_b.up.sql"] {
        fs::remove_file(root.path().join("sql").join(name)).unwrap();
    }
    assert!(look().await.message.contains("has other contents than when it was applied"), "a script may be");
    fs::remove_file(root.path().join("sql/notes.txt")).unwrap();
    assert_eq!(look().await.outcome, WorkOutcome::Done, "a ConfigMap that is gone brings nothing");
    // One of two that is gone says nothing of the other one.
    write(root.path(), &[("sql/3_c.up.sql", "SELECT 1")]);
    let what = json!({"mounted": {"paths": ["/sql", "/gone"], "files": hash}});
    let task = json!({"preflight": {"session": true, "limits": {}, "applied": {"maps": ["a", "b"], "what": what}}});
    let report = job::perform(&server.url(), task, Some(root.path()), &[]).await;
    let told = "ConfigMap a, b has what is not applied: 3_c.up.sql; ";
    assert!(report.outcome == WorkOutcome::NotBegun && report.message.starts_with(told), "{report:?}");
}
