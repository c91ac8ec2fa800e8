//! Where metrics come from: a provider answers a measurement with numbers, or says why there are none. What
//! they mean is decided in the engine.
//!
//! A new kind is a file here that has `Provider` and a line in `provider::KINDS`. In the API it is a field of
//! [`Metric`](crate::api::Metric) under the same name, which `Metric::provider` and `validate::metric` know, and of which
//! `engine::measuring` says what is measured.

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

/// Whoever answers measurements.
trait Provider: Debug + Send + Sync {
    /// Measures, or says why not. What it cannot measure is a [`Reply::ProviderError`].
    fn measure<'a>(&'a self, measure: &'a Measure) -> BoxFuture<'a, Reply>;
}
