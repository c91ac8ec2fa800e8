//! Plain values for the unit tests of the engine.

use super::observed::{ObjectVersion, Pod, Revision, Template};
use crate::api::Timestamp;

/// A ReplicaSet with these pods, none of them counted.
pub fn revision(hash: &str, pods: Vec<Pod>) -> Revision {
    Revision {
        object: ObjectVersion { name: format!("shop-{hash}"), uid: hash.into(), resource_version: "1".into() },
        hash: hash.into(),
        fingerprint: String::new(),
        template: Template::new(serde_json::json!({})),
        created: Timestamp::from_millis(0),
        replicas: 1,
        observed: true,
        pods_total: 1,
        ready: 0,
        available: 0,
        deleting: false,
        pods,
    }
}
