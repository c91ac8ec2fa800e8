//! What the operator's image does with a database, as Jobs in the namespaces of releases. The operator itself never
//! connects to one, and never reads the Secret that says how.

pub mod backup;
mod check;
mod connection;
pub mod migrate;
pub mod preflight;
pub mod rehearsal;
mod tool;
pub mod verify;

pub use check::check;
pub use connection::Connecting;

/// The environment variable with the database's URL, in the pods of Jobs.
pub const URL: &str = "DATABASE_URL";

/// Bytes such as those of a hash, as text.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
