//! The way that a command of the user's has to the database: where its sessions could not be told from there, nothing begins.

use serde_json::{Value, json};
use servicerelease::{api::WorkOutcome, engine::Report};
use tokio::task::spawn_blocking;

use super::{
    commands::{RAN, psql, row, server, wrap},
    job::Job,
};

/// What the pod of a command reports that has a URL of its own beside that of directUrlFrom. The tool says no name.
async fn report(direct: &str, own: &str, task: &Value) -> Report {
    let direct = format!("SERVICERELEASE_URL={direct}");
    let program = ["env", &direct, env!("CARGO_BIN_EXE_service-release-operator")];
    let command = psql(true, "INSERT INTO ran VALUES (1)");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let job = Job::start_as(&program, own, task, None, None, &command);
    spawn_blocking(|| job.wait()).await.unwrap().report.unwrap()
}

#[tokio::test]
async fn a_command_is_not_begun_whose_sessions_nobody_could_tell() {
    let server = server().await;
    let (proxy, lends, keeps) =
        (server.proxy().await, server.pooler("transaction").await, server.pooler("session").await);
    let [proxied, lent, kept] = [proxy, lends.port, keeps.port].map(|port| server.url_at(port));
    let (direct, preflight) = (server.url(), json!({"preflight": {"session": true, "limits": {}}}));
    let leave = "leave it out of the template";
    for (direct, own, why, remedy) in [
        (&direct, &proxied, "the server sees it at 127.0.0.2, and who watches it at 127.0.0.1", leave),
        (&direct, &lent, "leads through a pooler", leave),
        (&direct, &kept, "leads through a pooler", leave),
        // Its URL is no other one than the wrapper's.
        (&kept, &kept, "leads through a pooler", "set directUrlFrom"),
        (&direct, &server.url_of("shop", "template1"), "leads to another database", leave),
        (
            &direct,
            &"postgres://shop@127.0.0.1:1/postgres".to_owned(),
            "no connection to shop@127.0.0.1:1/postgres",
            leave,
        ),
    ] {
        for task in [&preflight, &wrap(1, false)] {
            let report = report(direct, own, task).await;
            assert_eq!(report.outcome, WorkOutcome::NotBegun, "{report:?}");
            let told = report.message.contains(why) && report.message.contains(remedy);
            assert!(told && report.message.contains("DATABASE_URL of the command's pod"), "{report:?}");
        }
    }
    assert_eq!((server.number(RAN).await, row(&server).await.as_str()), (0, ""));
}

#[tokio::test]
async fn a_command_is_begun_whose_sessions_come_from_where_the_wrapper_is() {
    let server = server().await;
    let (direct, proxied) = (server.url(), server.url_at(server.proxy().await));
    // By another name of the server; by one proxy; by what nobody but the tool can read.
    let named = direct.replace("127.0.0.1", "localhost");
    let jdbc = format!("jdbc:{}", named.replace("shop@", "").replace('?', "?user=shop&"));
    for (direct, own) in [(&direct, &named), (&proxied, &proxied), (&direct, &jdbc), (&direct, &"@db".to_owned())] {
        let task = json!({"preflight": {"session": true, "limits": {}}});
        let report = report(direct, own, &task).await;
        assert_eq!(report.outcome, WorkOutcome::Done, "{own}: {report:?}");
    }
    let report = report(&proxied, &proxied, &wrap(1, false)).await;
    assert_eq!((report.outcome, server.number(RAN).await), (WorkOutcome::Done, 1), "{report:?}");
    assert_eq!(row(&server).await, "command p Applied");
}
