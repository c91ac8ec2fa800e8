//! A Kubernetes operator that executes deployment runbooks.

pub mod api;
pub mod cli;
pub mod controller;
pub mod engine;
pub mod telemetry;
