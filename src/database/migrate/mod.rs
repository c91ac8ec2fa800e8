//! Migrations of ordered SQL files: each file is applied once, whatever is killed, made twice or lost in between
//! (INVARIANTS D1).
//!
//! A file and its row in the ledger commit in one transaction. All is done under an advisory lock that belongs to the
//! session: a server process that goes on after its client was killed still holds it, so whoever has the lock knows that
//! no other run of files is at work, and reads in the ledger what became of it. The server processes of a wrapped command
//! are not its wrapper's, and hold nothing: they are looked for (command/others.rs).

pub mod beyond;
pub mod effects;
pub mod files;
pub(super) mod ledger;
pub mod pending;
pub mod risks;
mod run;
pub mod statements;
mod stop;

pub use pending::{Settled, Unsettled, settled};
pub use run::{Report, Settings, down, run};
