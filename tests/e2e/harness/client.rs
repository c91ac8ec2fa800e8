//! The cluster that the tests run on, and what the setup left for them.

use kube::{Client, Config};

/// The cluster, and the programs and images that were made for it.
#[derive(Clone)]
pub struct Cluster {
    /// Its administrator's client.
    pub client: Client,
    /// The test application's image.
    pub testapp: String,
    /// The name of the embedded cluster; none for the user's own.
    pub embedded: Option<String>,
}

impl Cluster {
    /// The one of `tests/setup/up`, through its environment.
    pub async fn connect() -> Self {
        servicerelease::controller::use_ring();
        let mut config = Config::infer().await.expect("KUBECONFIG of a cluster");
        // Watches rest for minutes, and the load of a busy machine makes answers slow.
        config.read_timeout = None;
        Self {
            client: Client::try_from(config).expect("a client for KUBECONFIG"),
            testapp: variable("TESTAPP_IMAGE"),
            embedded: std::env::var("DEVCLUSTER_NAME").ok().filter(|name| !name.is_empty()),
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make e2e`, or source tests/setup/env.sh"))
}
