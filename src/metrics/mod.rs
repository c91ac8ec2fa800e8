//! Where metrics come from: a provider answers a measurement with numbers, or says why there are none. What
//! they mean is decided in the engine.
//!
//! A provider is one file here that has `Provider`, and a line in `provider::KINDS`; nothing of the release is in it. What a
//! manifest may ask it is no part of that: in the API it is a type, a field of [`Metric`](crate::api::Metric) with the same
//! name as the kind, and a variant of [`Source`](crate::api::Source). The compiler then names what is left, an arm or a line
//! each: in `api::analysis` whom it asks, in `validate::analysis` what is allowed, in `engine::measuring` what is measured
//! ([`Measure::Value`], if a text says it), in `engine::templates` which texts take arguments. Other providers refuse a
//! question that they do not know. The rule of the CRD that counts sources is text; a test compares it.

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
