//! The shell around the engine: watches fill a cache, changes fill a queue, and each release that is
//! due gets a pass: look, decide, carry out. Nothing is decided here, nothing is polled but the
//! objects of custom routers.

mod asker;
pub mod build;
pub mod cache;
pub mod calls;
pub mod client;
mod commands;
mod execute;
pub mod jobs;
pub mod key;
pub mod lease;
mod memory;
mod observe;
pub mod queue;
pub mod reconcile;
pub mod routers;
mod run;
mod status;
mod templates;
mod watch;

pub use crate::api::FIELD_MANAGER;
pub use run::{Error, Options, run};

/// Makes `ring` the process's cryptography; a second call changes nothing.
pub fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Writes panics to the log rather than to standard error.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or_default());
    }));
}
