//! A lock that is left in a session which a pooler has lent to an application.

use std::time::Duration;

use servicerelease::{
    api::WorkOutcome,
    database::migrate::{self, Settings, files::ordered},
    engine::Meant,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::sleep,
};

use super::server::Server;

/// Sessions that hold the lock of migrations.
const HOLDERS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
/// The message with which the runner looks whether its session still has the lock.
const LOOKS: &str = "pg_catalog.pg_locks";

/// A way for one client that holds the first message with a word back.
struct Gate {
    port: u16,
    reached: oneshot::Receiver<()>,
    open: oneshot::Sender<()>,
}

impl Gate {
    async fn start(server: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (told, reached) = oneshot::channel();
        let (open, opened) = oneshot::channel();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
            let held = until(&mut client, &mut server, word).await;
            told.send(()).expect("the test");
            opened.await.expect("the test");
            server.write_all(&held).await.expect("the server");
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
        Self { port, reached, open }
    }
}

/// Carries bytes both ways until the client says this word, and returns its message.
async fn until(client: &mut TcpStream, server: &mut TcpStream, word: &str) -> Vec<u8> {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let message = &from_client[..read.expect("a message")];
                assert!(!message.is_empty(), "it has gone without saying {word}");
                if String::from_utf8_lossy(message).contains(word) {
                    return message.to_vec();
                }
                server.write_all(message).await.expect("the server");
            }
            read = server.read(&mut from_server) => {
                let answer = &from_server[..read.expect("an answer")];
                client.write_all(answer).await.expect("the client");
            }
        }
    }
}

#[tokio::test]
async fn a_lock_that_a_pooler_lent_to_an_application_with_its_session_is_given_back() {
    let server = Server::start().await;
    let pooler = server.pooler("transaction").await;
    let gate = Gate::start(pooler.port, LOOKS).await;
    let files = ordered(vec![("001_table.sql".to_owned(), "CREATE TABLE ran (file int)".to_owned())]).unwrap();
    let settings = Settings {
        set: "shop".into(),
        release: "production/shop".into(),
        lock_timeout: Duration::from_millis(300),
        timeout: Duration::from_secs(60),
        plan: None,
        meant: Meant::default(),
        which: None,
        observe: false,
        confined: false,
    };
    let url = server.url_at(gate.port);
    let running = tokio::spawn(async move { migrate::run(&url, &files, &settings).await });
    gate.reached.await.unwrap();
    // The pooler has one session until now, the one with the lock.
    let mut application = PgConnection::connect(&server.url_at(pooler.port)).await.unwrap();
    application.execute(sqlx::raw_sql("BEGIN; SELECT 1")).await.unwrap();
    let own = format!("{HOLDERS} AND pid = pg_backend_pid()");
    let own = sqlx::query_scalar(AssertSqlSafe(own)).persistent(false).fetch_one(&mut application);
    let holds: i64 = own.await.unwrap();
    assert_eq!(holds, 1, "the application's session has the runner's lock");
    gate.open.send(()).unwrap();
    // Like an application that has something to do: the pooler lends now this session and now that.
    while !running.is_finished() {
        sleep(Duration::from_millis(50)).await;
        application.execute(sqlx::raw_sql("COMMIT")).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        application.execute(sqlx::raw_sql("BEGIN; SELECT 1")).await.unwrap();
    }
    let report = running.await.unwrap();
    assert_eq!((report.outcome, report.applied.len()), (WorkOutcome::NotBegun, 0), "{report:?}");
    let why = report.why.unwrap();
    assert!(why.contains("pooler that lends") && why.contains("directUrlFrom"), "{why}");
    assert_eq!(server.number(HOLDERS).await, 0, "nobody migrates this database any more if it stays");
}
