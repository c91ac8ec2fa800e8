//! A PostgreSQL of a test's own on this machine, which ends with it.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

/// Where Debian's package has the programs, unless POSTGRES names another directory.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Certificates for localhost.
pub const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics/tls");
/// Nobody: PostgreSQL does not run as root.
const USER: u32 = 65_534;

/// A server, and its database `postgres`.
pub struct Server {
    directory: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop("QUIT");
    }
}

/// A PgBouncer in front of a server, which ends with the test.
pub struct Pooler {
    /// Where it listens.
    pub port: u16,
    process: Child,
    _directory: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn as_nobody(program: &str) -> Command {
    let named = std::env::var("POSTGRES").ok().filter(|directory| !directory.is_empty());
    let program = PathBuf::from(named.as_deref().unwrap_or(PROGRAMS)).join(program);
    assert!(program.exists(), "{} is missing: run `make database`", program.display());
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]).arg(program);
    command
}

impl Server {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        chown(directory.path(), Some(USER), Some(USER)).expect("as root");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut initdb = as_nobody("initdb");
        initdb.arg("-D").arg(directory.path().join("data"));
        initdb.args(["--no-sync", "--encoding=UTF8", "--no-locale", "-U", "shop", "-A", "trust"]);
        let made = initdb.current_dir("/").stdout(Stdio::null()).status().expect("setpriv");
        assert!(made.success(), "initdb: {made}");
        let mut server = Self { directory, port, process: None };
        server.begin().await;
        server
    }

    /// A replica of it, which answers questions as soon as this returns.
    pub async fn replica(&self) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        chown(directory.path(), Some(USER), Some(USER)).expect("as root");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut copy = as_nobody("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-U", "shop", "--write-recovery-conf", "--no-sync", "--checkpoint=fast"]);
        copy.arg("-p").arg(self.port.to_string()).arg("-D").arg(directory.path().join("data"));
        let made = copy.current_dir("/").status().expect("setpriv");
        assert!(made.success(), "pg_basebackup: {made}");
        let mut replica = Self { directory, port, process: None };
        replica.begin().await;
        replica
    }

    /// Starts it again.
    pub async fn begin(&mut self) {
        let log = fs::File::create(self.directory.path().join("log")).expect("a log");
        let mut postgres = as_nobody("postgres");
        postgres.arg("-D").arg(self.directory.path().join("data")).arg("-k").arg(self.directory.path());
        postgres.args([
            "-p",
            &self.port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
            "-c",
            "jit=off",
        ]);
        postgres.args(["-c", "shared_buffers=16MB", "-c", "max_connections=30", "-c", "max_prepared_transactions=2"]);
        self.process = Some(postgres.current_dir("/").stdout(Stdio::null()).stderr(log).spawn().expect("setpriv"));
        self.connect().await;
    }

    /// Starts it again with a certificate for localhost, of an authority that nobody knows (tests/metrics/tls).
    pub async fn with_tls(&mut self) {
        self.stop("INT");
        let data = self.directory.path().join("data");
        for name in ["server.crt", "server.key"] {
            let file = data.join(name);
            fs::copy(Path::new(TLS).join(name), &file).expect("a copy");
            chown(&file, Some(USER), Some(USER)).expect("as root");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
        }
        let mut settings =
            fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("its settings");
        writeln!(settings, "ssl = on").expect("a line");
        self.begin().await;
    }

    /// Ends it by a signal: INT breaks off what runs, QUIT is a crash.
    pub fn stop(&mut self, signal: &str) {
        let Some(mut process) = self.process.take() else { return };
        let _ = Command::new("kill").args([&format!("-{signal}"), &process.id().to_string()]).status();
        let _ = process.wait();
    }

    /// A pooler in front of it, which lends sessions for a `transaction` or a `session`.
    pub async fn pooler(&self, mode: &str) -> Pooler {
        self.pooler_with(&format!("pool_mode = {mode}")).await
    }

    /// A pooler that lends three sessions in turns, each for a transaction, as one does whose clients are busy.
    pub async fn pooler_in_turns(&self) -> Pooler {
        let pooler = self.pooler_with("pool_mode = transaction\nserver_round_robin = 1").await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = self.connect_to(pooler.port).await;
            client.execute(sqlx::raw_sql("BEGIN; SELECT 1")).await.expect("a session");
            clients.push(client);
        }
        for mut client in clients {
            client.execute(sqlx::raw_sql("COMMIT")).await.expect("its end");
        }
        pooler
    }

    async fn pooler_with(&self, settings: &str) -> Pooler {
        let directory = tempfile::tempdir().expect("a directory");
        chown(directory.path(), Some(USER), Some(USER)).expect("as root");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=shop\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\n{settings}\n\
             ignore_startup_parameters = extra_float_digits\n",
            self.port
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, text).expect("a file");
        let program = std::env::var("PGBOUNCER").expect("PGBOUNCER: run `make database`");
        let mut pgbouncer = as_nobody(&program);
        let process =
            pgbouncer.arg("-q").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("setpriv");
        let pooler = Pooler { port, process, _directory: directory };
        self.connect_to(port).await;
        pooler
    }

    /// The port of a proxy in front of it, whose connections it sees at another address than those that are made to it.
    pub async fn proxy(&self) -> u16 {
        let mut rules = fs::OpenOptions::new()
            .append(true)
            .open(self.directory.path().join("data/pg_hba.conf"))
            .expect("its rules");
        writeln!(rules, "host all all 127.0.0.2/32 trust").expect("a rule");
        self.sql("SELECT pg_reload_conf()").await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (proxy, port) = (listener.local_addr().expect("its address").port(), self.port);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
                socket.bind(([127, 0, 0, 2], 0).into()).expect("an address");
                let mut server = socket.connect(([127, 0, 0, 1], port).into()).await.expect("the server");
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        });
        self.connect_to(proxy).await;
        proxy
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same by another port.
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://shop@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    /// Asks a role for a password from now on.
    pub async fn with_passwords(&self, role: &str, password: &str) {
        self.sql(&format!("ALTER ROLE {role} PASSWORD '{password}'")).await;
        let rules = format!("host all {role} 127.0.0.1/32 scram-sha-256\n");
        fs::write(self.directory.path().join("data/pg_hba.conf"), rules).expect("its rules");
        self.sql("SELECT pg_reload_conf()").await;
        while PgConnection::connect(&self.url()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of another role and database.
    pub fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A connection of another role to another database.
    pub async fn connect_as(&self, role: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url_of(role, database)).await
    }

    /// A connection, as soon as there can be one.
    pub async fn connect(&self) -> PgConnection {
        self.connect_to(self.port).await
    }

    async fn connect_to(&self, port: u16) -> PgConnection {
        let begun = std::time::Instant::now();
        loop {
            // Nobody's application.
            match PgConnection::connect(&format!("{}&application_name=servicerelease/test", self.url_at(port))).await {
                Ok(connection) => return connection,
                Err(error) if begun.elapsed().as_secs() > 60 => panic!("{error}: {}", self.log()),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }

    /// Runs SQL.
    pub async fn sql(&self, text: &str) {
        let mut connection = self.connect().await;
        let ran = connection.execute(sqlx::raw_sql(AssertSqlSafe(text.to_owned()))).await;
        ran.unwrap_or_else(|error| panic!("{error}: {text}"));
    }

    /// The one number that a query gives.
    pub async fn number(&self, query: &str) -> i64 {
        let mut connection = self.connect().await;
        let query = format!("SELECT ({query})::bigint");
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut connection).await.expect("a number")
    }

    /// The version as it tells it.
    pub async fn version(&self) -> String {
        sqlx::query_scalar("SHOW server_version").fetch_one(&mut self.connect().await).await.expect("its version")
    }

    /// Waits until a query gives true.
    pub async fn until(&self, query: &str) {
        let begun = std::time::Instant::now();
        while self.number(&format!("({query})::int")).await == 0 {
            assert!(begun.elapsed().as_secs() < 60, "not in a minute: {query}\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(Path::new(self.directory.path()).join("log")).unwrap_or_default()
    }
}
