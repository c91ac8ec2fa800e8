//! Why a run of files does not go on, and what an error of the server says of that.

use crate::database::connection::told;

use super::{files::File, ledger::Ledger, pending::Conflict};

/// Why a run does not go on.
#[derive(Debug)]
pub enum Stop {
    /// Nothing was done.
    NotBegun(String),
    /// The connection is lost, with what was under way; whether it was ended on purpose, by whoever may.
    Lost(String, bool),
    /// A file was not applied.
    Failed(String, String),
    /// The same, and a part of it may be in effect.
    Partly(String, String),
    /// Nobody knows what became of a file.
    Unknown {
        file: Option<String>,
        why: String,
        /// The statement by which a person notes it, if one would do.
        settle: String,
    },
}

impl Stop {
    /// A file in no transaction that has ended, and stands in the ledger as begun.
    pub fn unnoted(ledger: &Ledger, file: &File, why: &str) -> Self {
        let why = format!("{why}; note in the ledger whether it is 'Applied' or 'Failed'");
        Self::Unknown { file: Some(file.name.clone()), why, settle: ledger.settle(&file.version) }
    }

    /// Of all of it.
    pub fn unknown(why: String) -> Self {
        Self::Unknown { file: None, why, settle: String::new() }
    }

    pub fn without_lock() -> Self {
        Self::Lost("the lock of the migration is lost".into(), false)
    }
}

impl From<sqlx::Error> for Stop {
    /// An error beside those of statements.
    fn from(error: sqlx::Error) -> Self {
        if is_lost(&error) { Self::Lost(told(&error), is_ended(&error)) } else { Self::NotBegun(told(&error)) }
    }
}

impl From<Conflict> for Stop {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Files(why) => Self::NotBegun(why),
            Conflict::Unknown { file, why, settle } => Self::Unknown { file: Some(file), why, settle },
        }
    }
}

/// What broke a transaction, and at which line of the file, if it was a statement of it.
pub struct Broken {
    pub line: Option<u64>,
    pub error: sqlx::Error,
}

impl From<sqlx::Error> for Broken {
    fn from(error: sqlx::Error) -> Self {
        Self { line: None, error }
    }
}

/// Whether the server, or the way to it, has ended a session. What the server said and sqlx does not know is none.
pub fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        // admin_shutdown, crash_shutdown, cannot_connect_now, and connection exceptions.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| matches!(&*code, "57P01" | "57P02" | "57P03") || code.starts_with("08"))
        }
        _ => false,
    }
}

/// Whether that was pg_terminate_backend, or a server that is shut down (admin_shutdown).
fn is_ended(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57P01")
}

/// Whether a transaction may be tried again: it waited for a lock too long, or was one of those that could not be
/// served together.
pub fn is_contended(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(&*code, "55P03" | "40P01" | "40001"))
}
