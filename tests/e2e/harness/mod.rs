//! What the scenarios are written with: a namespace of their own ([`World`]), a release in it whose
//! every status is on record ([`Shop`]), a client that calls it ([`Load`]), and a witness of what
//! happened to pods and endpoints meanwhile. Nothing here sleeps: all waits are for watched changes.

pub mod client;
pub mod database;
pub mod helm;
pub mod k6;
pub mod kubectl;
pub mod liar;
pub mod load;
pub mod operator;
pub mod own;
pub mod postgres;
pub mod processes;
pub mod prometheus;
pub mod proxy;
pub mod runner;
pub mod shop;
pub mod sound;
pub mod volume;
pub mod witness;
pub mod world;

pub use client::Cluster;
pub use load::Load;
pub use runner::{Needs, Scenario, Stage, note};
pub use shop::Shop;
pub use world::World;

use serde_json::Value;
use servicerelease::api::{SegmentStatus, VerdictStatus};

/// Reads YAML as a JSON value.
pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

/// The requests that were counted of the candidate and of stable, in all segments: what the first scrapes of the candidate
/// miss is one of its own.
pub fn counted(verdict: &VerdictStatus) -> (i64, i64) {
    let sum = |of: fn(&SegmentStatus) -> i64| verdict.segments.iter().map(of).sum();
    (sum(|it| it.candidate.requests), sum(|it| it.stable.requests))
}

/// Puts `change` over `base`, key by key (a JSON merge patch).
pub fn merge(base: &mut Value, change: Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, change) => *base = change,
    }
}
