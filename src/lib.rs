//! A Kubernetes operator that executes deployment runbooks.

pub mod api;
pub mod checks;
pub mod cli;
pub mod controller;
pub mod database;
pub mod engine;
pub mod judge;
pub mod metrics;
pub mod telemetry;
