//! Where metrics come from: a provider answers a measurement with numbers, or says why there are none. What
//! they mean is decided in the engine.

mod connection;
mod counters;
mod prometheus;
mod provider;
mod web;

pub use prometheus::{Prometheus, Samples};
pub use provider::{Providers, open};

use std::fmt::Debug;

use futures::future::BoxFuture;

use crate::engine::{Measure, Reply};

/// Whoever answers measurements. A new kind is one file that has this, and its field in `providers`.
trait Provider: Debug + Send + Sync {
    /// Measures, or says why not. What it cannot measure is a [`Reply::ProviderError`].
    fn measure<'a>(&'a self, measure: &'a Measure) -> BoxFuture<'a, Reply>;
}
