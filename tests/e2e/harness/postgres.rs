//! A PostgreSQL server in the namespace of a scenario.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::wait::await_condition;
use tokio::time::timeout;

use super::{
    World,
    kubectl::{self, Answer},
};

/// How long it may take to start.
const START: Duration = Duration::from_secs(60);

/// A running server.
pub struct Postgres {
    world: World,
}

impl Postgres {
    /// Starts one, with an empty database `shop` of the user `shop`, whose URL Secret shop-db has as DATABASE_URL.
    pub async fn start(world: &World) -> Self {
        let image = std::env::var("POSTGRES_IMAGE").ok().filter(|image| !image.is_empty());
        let image = image.expect("POSTGRES_IMAGE, as tests/setup/up makes it with TOOLS=postgres");
        for document in include_str!("postgres.yaml").replace("POSTGRES_IMAGE", &image).split("\n---\n") {
            world.apply(document).await;
        }
        let ready = |pod: Option<&Pod>| {
            let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
        };
        let waiting = await_condition(world.api::<Pod>(), "postgres", ready);
        timeout(START, waiting).await.expect("PostgreSQL starts").expect("a watch of its pod");
        Self { world: world.clone() }
    }

    /// Runs SQL, and returns what it answers: a line for each row, columns separated by `|`.
    pub async fn sql(&self, text: &str) -> String {
        self.psql(text).await.expect_success().trim().to_owned()
    }

    async fn psql(&self, text: &str) -> Answer {
        let words = ["exec", "postgres", "--", "psql", "-h", "127.0.0.1", "-U", "shop", "-d", "shop"];
        let flags = ["-v", "ON_ERROR_STOP=1", "-qAt", "-c", text];
        kubectl::run("kubectl", &[&["-n", &self.world.namespace], &words[..], &flags[..]].concat()).await
    }
}
