//! A PostgreSQL server in the namespace of a scenario.

use std::{path::Path, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{api::Patch, runtime::wait::await_condition};
use serde_json::json;
use tokio::{
    process::{Child, Command},
    time::{interval, timeout},
};

use super::{
    World,
    kubectl::{self, Answer},
    processes,
};

/// How long it may take to start.
const START: Duration = Duration::from_secs(120);
/// How long a question may be asked until its answer is as wanted.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Clone)]
pub struct Postgres {
    world: World,
}

/// Sessions that hold something.
pub struct Holder {
    postgres: Postgres,
    _sessions: Child,
}

impl Postgres {
    /// Starts one, with an empty database `shop` of the user `shop`, whose URL Secret shop-db has as DATABASE_URL.
    pub async fn start(world: &World) -> Self {
        let text = include_str!("postgres.yaml").replace("POSTGRES_IMAGE", &image("POSTGRES_IMAGE"));
        for document in text.split("\n---\n") {
            world.apply(document).await;
        }
        let postgres = Self { world: world.clone() };
        postgres.is_ready(0).await;
        postgres
    }

    /// The same for an ordinary role, as somebody who runs servers for others gives it: `tenant` owns the database, may make
    /// others, and is no superuser.
    pub async fn start_for_a_tenant(world: &World) -> Self {
        let postgres = Self::start(world).await;
        let role = "CREATE ROLE tenant LOGIN CREATEDB PASSWORD 's3cret/word'; ALTER DATABASE shop OWNER TO tenant";
        postgres.sql(role).await;
        let url = "postgres://tenant:s3cret%2Fword@postgres:5432/shop?sslmode=disable";
        let change = json!({ "stringData": { "DATABASE_URL": url, "PGUSER": "tenant" } });
        let changed = world.api::<Secret>().patch("shop-db", &Default::default(), &Patch::Merge(change)).await;
        changed.expect("the Secret");
        postgres
    }

    /// Waits until it answers, once it has been started again so often.
    async fn is_ready(&self, restarts: i32) {
        let ready = move |pod: Option<&Pod>| {
            let status = pod.and_then(|pod| pod.status.as_ref());
            let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
            container.is_some_and(|container| container.ready && container.restart_count >= restarts)
        };
        let waiting = await_condition(self.world.api::<Pod>(), "postgres", ready);
        timeout(START, waiting).await.expect("PostgreSQL starts").expect("a watch of its pod");
    }

    /// Runs SQL, and returns what it answers: a line for each row, columns separated by `|`.
    pub async fn sql(&self, text: &str) -> String {
        let answer = self.psql(text).await;
        assert_eq!(answer.code, 0, "{text}: {}", answer.text);
        // What kubectl itself has to say is no answer.
        answer.output.trim().to_owned()
    }

    /// Runs SQL that has to fail.
    pub async fn fails(&self, text: &str) {
        let answer = self.psql(text).await;
        assert_ne!(answer.code, 0, "{text}: {}", answer.text);
    }

    async fn psql(&self, text: &str) -> Answer {
        let words = ["exec", "postgres", "--", "psql", "-h", "/tmp", "-U", "shop", "-d", "shop"];
        let flags = ["-v", "ON_ERROR_STOP=1", "-qAt", "-c", text];
        kubectl::run("kubectl", &[&["-n", &self.world.namespace], &words[..], &flags[..]].concat()).await
    }

    /// A dump in pg_dump's custom format.
    pub async fn dump(&self) -> Vec<u8> {
        let words = ["exec", "postgres", "--", "pg_dump", "-h", "/tmp", "-U", "shop", "-d", "shop", "--format=custom"];
        let answer = Command::new("kubectl").args(["-n", &self.world.namespace]).args(words).output().await;
        let answer = answer.expect("kubectl");
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        answer.stdout
    }

    /// What a dump in pg_dump's custom format holds, as SQL.
    pub async fn dumped(&self, dump: &Path) -> String {
        let file = std::fs::File::open(dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display()));
        let words = ["-n", &self.world.namespace, "exec", "-i", "postgres", "--", "pg_restore", "-f", "-"];
        let answer = Command::new("kubectl").args(words).stdin(file).output().await.expect("kubectl");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(answer.status.success(), "{}: {}", dump.display(), text(&answer.stderr));
        text(&answer.stdout)
    }

    /// Asks until this is the answer; a server that does not answer is asked again.
    pub async fn until(&self, question: &str, wanted: &str) {
        let mut last = String::new();
        let asking = async {
            let mut ticks = interval(Duration::from_millis(250));
            loop {
                ticks.tick().await;
                let answer = self.psql(question).await;
                if answer.code == 0 && answer.output.trim() == wanted {
                    return;
                }
                last = answer.text.trim().to_owned();
            }
        };
        let ended = timeout(PATIENCE, asking).await;
        assert!(ended.is_ok(), "not within {PATIENCE:?}: {wanted:?} to {question}, but {last:?}");
    }

    /// Waits until a statement with this in it is being run.
    pub async fn runs(&self, part: &str) {
        let question = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%{part}%'"
        );
        self.until(&question, "t").await;
    }

    /// A session that takes what a statement takes, and keeps it until it is let go.
    pub async fn hold(&self, statement: &str) -> Holder {
        self.holding(1, statement).await
    }

    /// So many sessions that do nothing, until they are let go.
    pub async fn crowd(&self, count: usize) -> Holder {
        self.holding(count, "SELECT 1").await
    }

    async fn holding(&self, count: usize, statement: &str) -> Holder {
        let text = format!("SET application_name = 'holder'; BEGIN; {statement}; SELECT pg_sleep(600)");
        let all = "i=0; while [ $i -lt $1 ]; do i=$((i + 1)); psql -h /tmp -U shop -d shop -qAt -c \"$0\" & done; wait";
        let sessions = Command::new("kubectl")
            .args(["-n", &self.world.namespace, "exec", "postgres", "--", "/bin/sh", "-c", all, &text])
            .arg(count.to_string())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl");
        let held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'";
        self.until(held, &count.to_string()).await;
        Holder { postgres: self.clone(), _sessions: sessions }
    }

    /// Kills the server (-9), and waits until it has recovered.
    pub async fn kill(&self) {
        let pod = self.world.api::<Pod>().get("postgres").await.expect("its pod");
        let restarts = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
        let restarts = restarts.map_or(0, |container| container.restart_count);
        processes::first(&pod).expect("its process").kill().await;
        self.is_ready(restarts + 1).await;
    }
}

impl Holder {
    /// Ends them, and with that lets it go.
    pub async fn release(self) {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'holder'";
        self.postgres.sql(end).await;
    }
}

/// An image that `tests/setup/up` loads, by the variable that names it.
pub fn image(variable: &str) -> String {
    let image = std::env::var(variable).ok().filter(|image| !image.is_empty());
    image.unwrap_or_else(|| panic!("{variable}, as tests/setup/up makes it with TOOLS"))
}
