//! sslmode verify-full with an authority of one's own: for the runner, and for pg_dump and pg_restore beside it.

use serde_json::json;
use servicerelease::api::WorkOutcome;

use super::{
    job::Job,
    server::{Server, TLS},
};

#[tokio::test]
async fn a_certificate_is_checked_by_the_authorities_that_are_mounted() {
    let mut server = Server::start().await;
    server.with_tls().await;
    server.sql("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)").await;
    let url = server.url().replace("sslmode=disable", "sslmode=verify-full");
    let backups = tempfile::tempdir().unwrap();
    let preflight = json!({"preflight": {"session": true, "limits": {}}});
    let backup = json!({"backup": {"name": "b", "proof": true, "keep": 1}});
    let program = env!("CARGO_BIN_EXE_service-release-operator");
    let run = |task, program: &[&str]| {
        let report = Job::start_as(program, &url, task, None, Some(backups.path()), &[]).wait().report;
        report.expect("a report")
    };
    let report = run(&preflight, &[program]);
    assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
    assert!(report.message.contains("UnknownIssuer"), "{report:?}");
    let root = format!("PGSSLROOTCERT={TLS}/ca.crt");
    for task in [&preflight, &backup] {
        let report = run(task, &["env", &root, program]);
        assert_eq!(report.outcome, WorkOutcome::Done, "{report:?}");
    }
}
