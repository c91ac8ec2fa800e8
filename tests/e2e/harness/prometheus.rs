//! The Prometheus of the embedded cluster, asked from inside the cluster's network: its address leads nowhere from outside.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{interval, timeout};

use super::World;

/// For what is in a window of Prometheus to leave it.
const PATIENCE: Duration = Duration::from_secs(120);

impl World {
    /// Where it listens.
    pub async fn prometheus(&self) -> String {
        let words = "-n monitoring get service prometheus -o jsonpath={.spec.clusterIP}";
        format!("http://{}:9090", self.kubectl(words).await.expect_success())
    }

    /// The series that answer a query.
    pub async fn series(&self, query: &str) -> Vec<Value> {
        let url = format!("{}/api/v1/query", self.prometheus().await);
        let query = format!("query={query}");
        let answer = self.devcluster(&["exec", "--", "curl", "-sfG", "--data-urlencode", &query, &url]).await;
        let answer: Value = serde_json::from_str(&answer).expect("an answer of Prometheus");
        answer["data"]["result"].as_array().cloned().unwrap_or_else(|| panic!("{query}: {answer}"))
    }

    /// Waits until a query has no series.
    pub async fn no_series(&self, query: &str) {
        let mut found = Vec::new();
        let asking = async {
            let mut ticks = interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                found = self.series(query).await;
                if found.is_empty() {
                    return;
                }
            }
        };
        let ended = timeout(PATIENCE, asking).await;
        assert!(ended.is_ok(), "still after {PATIENCE:?}: {found:?} to {query}");
    }
}
