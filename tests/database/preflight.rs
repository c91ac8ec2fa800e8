//! What is found of a server before a migration, and what is wrong with it.

use servicerelease::database::preflight::{Limits, look};

use super::server::Server;

fn limits(text: &str) -> Limits {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_server_that_is_as_it_has_to_be_is_told_with_its_figures() {
    let server = Server::start().await;
    let wanted = r#"{"minVersion": "12", "minFreeConnections": 10, "maxReplicationLag": "1s",
        "maxTransactionAge": "1m", "extensions": ["plpgsql"]}"#;
    let (findings, faults) = look(&server.url(), &limits(wanted)).await.unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    assert!(findings.server_version.starts_with("15.") && findings.database == "postgres", "{findings:?}");
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
    let wanted = r#"{"minVersion": "99", "minFreeConnections": 28, "maxTransactionAge": "0s",
        "extensions": ["plpgsql", "pgcrypto", "postgis"]}"#;
    let url = server.url().replace("shop@", "tenant@");
    let (_, faults) = look(&url, &limits(wanted)).await.unwrap();
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
    let (_, faults) = look(&url, &limits(r#"{"maxTransactionAge": "0s"}"#)).await.unwrap();
    let told = "at most 0s is allowed: idle in transaction of a report (process ";
    assert!(faults.len() == 1 && faults[0].contains(told), "{faults:?}");
}

#[tokio::test]
async fn a_pooler_between_transactions_is_recognised() {
    let server = Server::start().await;
    let pooler = server.pooler("transaction").await;
    let (_, faults) = look(&server.url_at(pooler.port), &Limits::default()).await.unwrap();
    assert!(faults.len() == 1 && faults[0].contains("set directUrlFrom"), "{faults:?}");
    let pooler = server.pooler("session").await;
    let (_, faults) = look(&server.url_at(pooler.port), &Limits::default()).await.unwrap();
    assert!(faults.is_empty(), "{faults:?}");
}
