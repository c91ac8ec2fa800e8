//! Questions to a real PostgreSQL, whose URL only a Job in the release's namespace reads.

use servicerelease::api::{CheckOutcome, Phase, ServiceReleaseStatus};

use crate::{
    harness::{Scenario, Shop, World, postgres::Postgres},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    the_example_of_sql_checks, Together, Embedded;
    what_a_question_may_meet, Together, Embedded;
};

const TABLES: &str = "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1), (2);
    CREATE TABLE orders (id int PRIMARY KEY, user_id int); INSERT INTO orders VALUES (1, 1), (2, 2)";

/// A release goes back, and the status says why.
async fn taken_back(shop: &Shop, told: &str) -> ServiceReleaseStatus {
    let status = shop.reaches(told, |status| status.phase == Phase::RolledBack).await;
    assert_eq!(status.reason, "CheckFailed", "{}", status.message);
    assert!(status.message.contains(told), "{}", status.message);
    status
}

async fn the_example_of_sql_checks(world: World) {
    let postgres = Postgres::start(&world).await;
    postgres.sql(TABLES).await;
    let text = include_str!("../../../deploy/examples/sql-checks.yaml").replace("every: 5m", "every: 3s");
    let shop = super::gateway::example(&world, &text).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let asked = |status: &ServiceReleaseStatus| {
        let last = status.checks.last().is_some_and(|it| it.name == "no-orphans" && it.outcome == CheckOutcome::Passed);
        status.phase == Phase::Observing && last
    };
    let status = shop.reaches("Observing, and asked", asked).await;
    let told: Vec<_> = status.checks.iter().map(|it| (it.name.as_str(), it.message.as_str())).collect();
    assert!(told[0].1.starts_with("1 rows (Job shop-migrated-"), "{told:?}");
    assert!(told[1].0 == "connections" && told[1].1.starts_with("value "), "{told:?}");
    // Nobody follows this server.
    assert!(told[2].0 == "replication-lag" && told[2].1.starts_with("value 0 "), "{told:?}");
    assert!(told[3].1.starts_with("no rows (Job "), "{told:?}");

    postgres.sql("INSERT INTO orders VALUES (3, 7)").await;
    let told = "check no-orphans failed: exit code 1: expected no rows, but there is 1 row";
    taken_back(&shop, told).await;

    postgres.sql("ALTER TABLE orders RENAME COLUMN user_id TO buyer").await;
    shop.release("v3", &[]).await;
    taken_back(&shop, "check migrated failed: exit code 1: expected at least 1 rows, but there are 0 rows").await;
    load.assert_no_failed_requests().await;
}

async fn what_a_question_may_meet(world: World) {
    let postgres = Postgres::start(&world).await;
    postgres.sql(TABLES).await;
    let check =
        |sql: &str| format!("{{spec: {{checks: [{{name: ask, when: [Preflight], timeout: 6s, sql: {sql}}}]}}}}");
    let spec = "{database: {urlFrom: {secretKeyRef: {name: shop-db, key: DATABASE_URL}}}}";
    let shop = world.shop(spec).await;
    let cases = [
        ("{query: 'SELECT nothing FROM users'}", "column \"nothing\" does not exist (SQLSTATE 42703)"),
        ("{query: 'DELETE FROM users'}", "cannot execute DELETE in a read-only transaction (SQLSTATE 25006)"),
        ("{query: 'COMMIT; DELETE FROM users'}", "cannot insert multiple commands into a prepared statement"),
        ("{query: 'SELECT pg_sleep(60)'}", "canceling statement due to statement timeout (SQLSTATE 57014)"),
        ("{query: 'SELECT 7', expect: Value, value: {max: 5}}", "expected at most 5, but there is value 7"),
        (
            "{query: 'SELECT 1', urlFrom: {secretKeyRef: {name: wrong-db, key: PASSWORD}}}",
            "password authentication failed",
        ),
        (
            "{query: 'SELECT 1', urlFrom: {secretKeyRef: {name: wrong-db, key: TLS}}}",
            "no connection to shop@postgres:5432/shop: ",
        ),
        (
            "{query: 'SELECT 1', urlFrom: {secretKeyRef: {name: wrong-db, key: HOST}}}",
            "no connection to shop@nowhere:5432/shop: ",
        ),
        (
            "{query: 'SELECT 1', urlFrom: {secretKeyRef: {name: wrong-db, key: KIND}}}",
            "it does not begin with postgres://",
        ),
    ];
    let wrong = "{apiVersion: v1, kind: Secret, metadata: {name: wrong-db}, stringData: {
        PASSWORD: 'postgres://shop:hunter2@postgres/shop?sslmode=disable',
        TLS: 'postgres://shop:s3cret%2Fword@postgres/shop?sslmode=require',
        HOST: 'postgres://shop:hunter2@nowhere/shop', KIND: 'mysql://shop:hunter2@postgres/shop'}}";
    world.apply(wrong).await;
    for (place, (sql, told)) in cases.into_iter().enumerate() {
        shop.patch(&check(sql)).await;
        shop.release(&format!("v{}", place + 2), &[]).await;
        let status = taken_back(&shop, told).await;
        let text = serde_json::to_string(&status).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("s3cret"), "{text}");
    }
    assert_eq!(postgres.sql("SELECT count(*) FROM users").await, "2");
    shop.patch(&check("{query: 'SELECT true', expect: Value, value: {equals: t}}")).await;
    shop.release("v99", &[]).await;
    let status = shop.healthy().await;
    assert_eq!((status.checks[0].outcome, status.checks[0].attempts), (CheckOutcome::Passed, 1));
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/%'";
    assert_eq!(postgres.sql(asked).await, "0", "no connection is left over");
}
