//! What the operator's image does with a database, as Jobs in the namespaces of releases. The operator itself never
//! connects to one, and never reads the Secret that says how.

pub mod backup;
mod check;
mod connection;
mod expansion;
pub mod migrate;
pub mod preflight;
pub mod rehearsal;
mod tool;
pub mod verify;

pub use check::check;
pub use connection::Connecting;
pub use expansion::{expand, protect};

pub use crate::engine::task::URL;

/// Bytes such as those of a hash, as text.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
