//! What the operator's image does with a database, as Jobs in the namespaces of releases. The operator itself never
//! connects to one, and never reads the Secret that says how.

pub mod backup;
mod check;
pub mod command;
mod connection;
pub mod install;
pub mod migrate;
pub mod preflight;
pub mod rehearsal;
pub mod report;
pub mod restore;
pub mod scratch;
mod secrets;
pub mod tasks;
mod tool;
pub mod verify;

pub use check::check;
pub use command::stop::{Stop, Stopper};
pub use connection::Connecting;
use connection::place;
pub use secrets::Secrets;
pub use tasks::{Places, perform};

/// The environment variable with the database's URL, in the pods of Jobs.
pub const URL: &str = "DATABASE_URL";
/// The environment variable with the URL of another server for scratch databases.
pub const SCRATCH_URL: &str = "SCRATCH_URL";

/// Bytes such as those of a hash, as text.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
