//! Rehearsals on a real server: what a migration would do is found out, and nothing of it is done.

use std::time::Duration;

use servicerelease::database::{
    backup::take,
    migrate::{Outcome, Settings, effects::Effects, files::ordered},
    rehearsal::{Rehearsal, rehearse},
};

use super::server::Server;

async fn rehearsed(server: &Server, all: &[(&str, &str)]) -> Rehearsal {
    let directory = tempfile::tempdir().unwrap();
    take(&server.url(), directory.path(), "shop").await.unwrap();
    let files = ordered(all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()).unwrap();
    let settings = Settings {
        set: "shop".into(),
        release: "production/shop".into(),
        lock_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(60),
        plan: None,
        observe: false,
    };
    rehearse(&server.url(), directory.path(), "shop", &files, &settings).await.unwrap()
}

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text); CREATE TABLE log (at int);
    INSERT INTO users SELECT n, 'x' FROM generate_series(1, 1000) n; ANALYZE";
const LEFT: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE 'servicerelease_scratch_%'";

#[tokio::test]
async fn what_a_migration_does_is_found_out_beside_the_database() {
    let server = Server::start().await;
    server.sql(USERS).await;
    let all = [
        ("001_add.sql", "ALTER TABLE users ADD COLUMN mail text"),
        ("002_type.sql", "ALTER TABLE users ALTER COLUMN id TYPE bigint;\nCREATE INDEX log_at ON log (at)"),
        ("003_drop.sql", "CREATE TABLE new (id int);\nALTER TABLE users DROP COLUMN name"),
    ];
    let rehearsal = rehearsed(&server, &all).await;
    let Rehearsal { backup, migration, risks, .. } = rehearsal;
    assert!(backup.proven_at.is_some());
    assert_eq!((migration.outcome, migration.applied.len()), (Outcome::Applied, 3), "{migration:?}");
    let done = |effects: &Effects| (effects.locks.clone(), effects.rewritten.clone());
    let exclusive = "AccessExclusiveLock on users".to_owned();
    let effects: Vec<_> = migration.effects.iter().map(done).collect();
    assert_eq!(effects[0], (vec![exclusive.clone()], vec![]), "a column without default is added at once");
    assert_eq!(effects[1].0, ["ShareLock on log".to_owned(), exclusive.clone()]);
    assert_eq!(effects[1].1.len(), 1, "{effects:?}");
    assert!(effects[1].1[0].starts_with("users (about 1000 rows"), "{effects:?}");
    assert_eq!(effects[2], (vec![exclusive], vec![]));
    let told = [
        "002_type.sql, line 1: changes a column's type: values may be cut off",
        "003_drop.sql, line 2: drops a column with its values",
    ];
    assert_eq!(risks, told);
    let columns =
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'users' AND data_type = 'integer'";
    assert_eq!((server.number(columns).await, server.number(LEFT).await), (1, 0));
    assert_eq!(server.number("SELECT count(*) FROM pg_class WHERE relname = 'servicerelease_ledger'").await, 0);
}

#[tokio::test]
async fn a_migration_that_fails_on_the_data_is_known_before() {
    let server = Server::start().await;
    server.sql(USERS).await;
    server.sql("INSERT INTO users VALUES (2000, NULL)").await;
    let rehearsal = rehearsed(&server, &[("001_null.sql", "ALTER TABLE users ALTER COLUMN name SET NOT NULL")]).await;
    let migration = rehearsal.migration;
    assert_eq!(migration.outcome, Outcome::Failed, "{migration:?}");
    assert!(migration.why.unwrap().contains("column \"name\" of relation \"users\" contains null values"));
    assert_eq!(rehearsal.risks.len(), 1, "{:?}", rehearsal.risks);
    assert_eq!(server.number(LEFT).await, 0);
}
