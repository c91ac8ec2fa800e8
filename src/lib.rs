//! A Kubernetes operator that executes deployment runbooks.

pub mod api;
pub mod engine;
