//! Schemas that are what they were to be, and those that are not quite.

use servicerelease::database::verify::{Schema, verify};

use super::server::Server;

async fn faults(server: &Server, schema: serde_json::Value) -> Vec<String> {
    let schema: Schema = serde_json::from_value(schema).unwrap();
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
    let schema = serde_json::json!({
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
    let schema = serde_json::json!({
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
