//! The controller against a real API server with simulated nodes, and with faults between the two.
//! `make api` starts the cluster and runs them; KUBECONFIG names it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cluster;
mod commands;
mod database;
mod faults;
mod isolation;
mod lease;
mod operator;
mod proxy;
mod rest;
mod route;
mod schema;
