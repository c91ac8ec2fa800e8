//! What the operator's image does with a database, as Jobs in the namespaces of releases. The operator itself never
//! connects to one, and never reads the Secret that says how.

pub mod backup;
mod check;
pub mod command;
mod connection;
mod expansion;
mod forget;
pub mod install;
mod look;
pub mod meant;
pub mod migrate;
pub mod mounted;
pub mod preflight;
pub mod rehearsal;
pub mod report;
pub mod restore;
pub mod rights;
mod route;
pub mod scratch;
mod secrets;
mod shared;
pub mod tasks;
mod tool;
pub mod verify;

pub use check::check;
pub use command::stop::{Stop, Stopper};
pub use connection::Connecting;
use connection::place;
pub use expansion::{expand, protect};
pub use secrets::Secrets;
pub use tasks::{Places, perform};

pub use crate::engine::task::{BACKUPS, DOWN_FILES, FILES, SCRATCH_URL, SEED_FILES, URL, WRAPPER_URL};

/// Bytes such as those of a hash, as text.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
