//! Schemas that are what they were to be, and those that are not quite.

use serde_json::json;
use servicerelease::{api::Verify, database::verify::verify};

use super::server::Server;

async fn faults(server: &Server, schema: serde_json::Value) -> Vec<String> {
    let schema: Verify = serde_json::from_value(schema).unwrap();
    verify(&server.url(), &schema).await.unwrap()
}

const TABLES: &str = "CREATE TABLE users (id bigint PRIMARY KEY, name varchar(20) NOT NULL, total numeric(10,2), tags text[]);
    CREATE SCHEMA sales; CREATE TABLE sales.orders (id int, user_id bigint);
    ALTER TABLE sales.orders ADD CONSTRAINT of_user FOREIGN KEY (user_id) REFERENCES users NOT VALID;
    ALTER TABLE sales.orders ADD CONSTRAINT positive CHECK (id > 0); CREATE INDEX orders_user ON sales.orders (user_id)";

#[tokio::test]
async fn a_schema_that_is_right_has_no_faults() {
    let server = Server::start().await;
    server.sql(TABLES).await;
    let schema = json!({
        "tables": ["users", "sales.orders"],
        "columns": [
            {"table": "users", "name": "id", "type": "int8", "nullable": false},
            {"table": "users", "name": "name", "type": "varchar(20)"},
            {"table": "users", "name": "name", "type": "character varying"},
            {"table": "users", "name": "total", "type": "numeric(10, 2)", "nullable": true},
            {"table": "users", "name": "tags", "type": "text[]"},
            {"table": "sales.orders", "name": "id"},
        ],
        "indexes": ["users_pkey", "sales.orders_user"],
        "constraints": [{"table": "sales.orders", "name": "positive"}],
        "extensions": ["plpgsql"],
    });
    assert_eq!(faults(&server, schema).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_quite_right_is_told() {
    let server = Server::start().await;
    server.sql(TABLES).await;
    server.sql("INSERT INTO sales.orders (id) VALUES (1), (1)").await;
    let mut connection = server.connect().await;
    let broken = "CREATE UNIQUE INDEX CONCURRENTLY orders_once ON sales.orders (id)";
    assert!(sqlx::raw_sql(broken).execute(&mut connection).await.is_err());
    let schema = json!({
        "tables": ["orders"],
        "columns": [
            {"table": "users", "name": "id", "type": "int"},
            {"table": "users", "name": "name", "type": "varchar(40)"},
            {"table": "users", "name": "name", "type": "citext"},
            {"table": "users", "name": "name", "nullable": true},
            {"table": "users", "name": "total", "nullable": false},
            {"table": "users", "name": "mail"},
            {"table": "nowhere", "name": "id"},
        ],
        "indexes": ["sales.orders_once", "users_name"],
        "constraints": [{"table": "sales.orders", "name": "of_user"}, {"table": "users", "name": "positive"}],
        "extensions": ["postgis"],
    });
    let told = [
        "table orders is missing",
        "column users.id is bigint, not int",
        "column users.name is character varying(20), not varchar(40)",
        "column users.name is character varying(20); citext is no type of this database",
        "column users.name is NOT NULL, and should not be",
        "column users.total may be NULL, and should not",
        "column users.mail is missing",
        "column nowhere.id is missing",
        "index sales.orders_once is invalid, since it was broken off while it was built: \
         DROP INDEX CONCURRENTLY sales.orders_once, and build it again",
        "index users_name is missing",
        "constraint of_user of sales.orders does not hold for all rows yet: ALTER TABLE sales.orders VALIDATE CONSTRAINT of_user",
        "constraint positive of users is missing",
        "extension postgis is missing: CREATE EXTENSION \"postgis\"",
    ];
    assert_eq!(faults(&server, schema).await, told);
}

#[tokio::test]
async fn only_a_table_passes_as_a_table() {
    let server = Server::start().await;
    server.sql(TABLES).await;
    let others = "CREATE VIEW shop_view AS SELECT 1 AS id; CREATE MATERIALIZED VIEW shop_sums AS SELECT 1 AS id; \
                  CREATE SEQUENCE shop_seq; CREATE TYPE shop_pair AS (a int, b int); \
                  CREATE TABLE events (at date) PARTITION BY RANGE (at); CREATE INDEX events_at ON events (at); \
                  CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; \
                  CREATE FOREIGN TABLE elsewhere (id int) SERVER nowhere";
    server.sql(others).await;
    assert_eq!(faults(&server, json!({"tables": ["users", "events", "elsewhere"]})).await, [""; 0]);
    let wanted = ["shop_view", "shop_sums", "shop_seq", "shop_pair", "events_at", "sales.orders_user"];
    let told = [
        "table shop_view is missing: shop_view is a view",
        "table shop_sums is missing: shop_sums is a materialized view",
        "table shop_seq is missing: shop_seq is a sequence",
        "table shop_pair is missing: shop_pair is a composite type",
        "table events_at is missing: events_at is an index",
        "table sales.orders_user is missing: sales.orders_user is an index",
    ];
    assert_eq!(faults(&server, json!({"tables": wanted})).await, told);
    // Columns may be a view's.
    let columns = json!({"columns": [{"table": "shop_view", "name": "id", "type": "int"}]});
    assert_eq!(faults(&server, columns).await, [""; 0]);
}

#[tokio::test]
async fn queries_are_judged_as_checks_are() {
    let server = Server::start().await;
    server.sql(TABLES).await;
    server.sql("INSERT INTO users (id, name) VALUES (1, 'alice'), (2, 'bob')").await;
    let schema = json!({"queries": [
        {"name": "orphans", "query": "SELECT * FROM sales.orders WHERE user_id NOT IN (SELECT id FROM users)"},
        {"name": "users", "query": "SELECT count(*) FROM users", "expect": "Value", "value": {"min": 3}},
        {"name": "names", "query": "SELECT name FROM users", "expect": "NoRows"},
        {"name": "enough", "query": "SELECT 1 FROM users", "expect": "Rows", "rows": {"min": 2, "max": 2}},
        {"name": "writes", "query": "DELETE FROM users RETURNING 1", "expect": "Rows", "rows": {"min": 2}},
    ]});
    let told = [
        "query users: expected at least 3, but there is value 2",
        "query names: expected no rows, but there are 2 rows",
        "query writes: cannot execute DELETE in a read-only transaction (SQLSTATE 25006)",
    ];
    assert_eq!(faults(&server, schema).await, told);
    assert_eq!(server.number("SELECT count(*) FROM users").await, 2);
}

/// The check of the example, as a query of the verification.
fn lag_of_the_example() -> serde_json::Value {
    let text = include_str!("../../deploy/examples/sql-checks.yaml");
    let check = text.split("name: replication-lag").nth(1).expect("the check");
    let query = check.split(">-").nth(1).and_then(|rest| rest.split("expect:").next()).expect("its query");
    let query: Vec<&str> = query.split_whitespace().collect();
    json!({"name": "lag", "query": query.join(" "), "expect": "Value", "value": {"max": 10}})
}

#[tokio::test]
async fn the_lag_of_the_example_is_none_without_replicas_and_not_known_to_whoever_may_not_see_it() {
    let server = Server::start().await;
    let schema: Verify = serde_json::from_value(json!({"queries": [lag_of_the_example()]})).unwrap();
    assert_eq!(verify(&server.url(), &schema).await.unwrap(), [""; 0]);
    server.sql("CREATE ROLE tenant LOGIN").await;
    let tenant = server.url_of("tenant", "postgres");
    let told = "query lag: expected a value, but it is NULL";
    assert_eq!(verify(&tenant, &schema).await.unwrap(), [told]);
    server.sql("GRANT pg_read_all_stats TO tenant").await;
    assert_eq!(verify(&tenant, &schema).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_tool_that_says_it_stopped_half_way_is_believed() {
    let server = Server::start().await;
    // Rails has a table of this name, too, which says nothing.
    server.sql("CREATE SCHEMA rails; CREATE TABLE rails.schema_migrations (version text)").await;
    server
        .sql(
            "CREATE TABLE schema_migrations (version bigint, dirty boolean); INSERT INTO schema_migrations VALUES (3, false);
             CREATE TABLE _prisma_migrations (migration_name text, finished_at timestamptz, rolled_back_at timestamptz);
             INSERT INTO _prisma_migrations VALUES ('1_init', now(), NULL), ('2_old', NULL, now());
             CREATE SCHEMA flyway; CREATE TABLE flyway.flyway_schema_history (script text, success boolean);
             INSERT INTO flyway.flyway_schema_history VALUES ('V1__init.sql', true);
             CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, success boolean NOT NULL);
             INSERT INTO _sqlx_migrations VALUES (20260101, true);
             ALTER DATABASE postgres SET search_path = public, flyway; CREATE SCHEMA neighbour;
             CREATE TABLE neighbour.schema_migrations (version bigint, dirty boolean);
             INSERT INTO neighbour.schema_migrations VALUES (7, true)",
        )
        .await;
    assert_eq!(faults(&server, json!({})).await, Vec::<String>::new());
    server
        .sql(
            "UPDATE schema_migrations SET version = 4, dirty = true; INSERT INTO _prisma_migrations VALUES ('3_mail', NULL, NULL);
             INSERT INTO flyway.flyway_schema_history VALUES ('V2__mail.sql', false);
             INSERT INTO _sqlx_migrations VALUES (20260201, false)",
        )
        .await;
    let found = faults(&server, json!({})).await;
    let told = [
        ("public.schema_migrations has 4 as not finished: golang-migrate", "`migrate force VERSION`"),
        ("public._prisma_migrations has 3_mail as not finished: Prisma", "`prisma migrate resolve --applied NAME`"),
        ("flyway.flyway_schema_history has V2__mail.sql as not finished: Flyway", "`flyway repair`"),
        ("public._sqlx_migrations has 20260201 as not finished: sqlx", "delete the row"),
    ];
    assert_eq!(found.len(), told.len(), "{found:?}");
    for (found, (begin, remedy)) in found.iter().zip(told) {
        assert!(found.starts_with(begin) && found.contains(remedy), "{found}");
    }
}

#[tokio::test]
async fn names_are_those_of_sql_and_told_where_they_are_not() {
    let server = Server::start().await;
    server.sql("CREATE TABLE \"Order Items\" (id int); CREATE TABLE \"Users\" (id int)").await;
    assert_eq!(faults(&server, json!({"tables": ["\"Order Items\"", "\"Users\""]})).await, [""; 0]);
    let found =
        faults(&server, json!({"tables": ["Order Items"], "columns": [{"table": "Order Items", "name": "id"}]})).await;
    let told = "Order Items is no name: with capitals or spaces it is written in quotes, '\"Order Items\"'";
    assert_eq!(
        found,
        [format!("spec.database.verify.tables: {told}"), format!("spec.database.verify.columns: {told}")]
    );
    let found = faults(&server, json!({"indexes": ["a.b.c.d", ""]})).await;
    assert!(found.len() == 2 && found.iter().all(|fault| fault.contains(" is no name: ")), "{found:?}");
    let found = faults(&server, json!({"tables": ["Users"]})).await;
    assert_eq!(found, ["table Users is missing (with capitals or spaces it is written in quotes, '\"Users\"')"]);
}
