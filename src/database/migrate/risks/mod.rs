//! Statements that a person is to have seen before they run: what they say of themselves, without a database.
//!
//! What a function that is there, or a trigger, does nobody sees here. What constraints other than NOT NULL refuse does not
//! count as lost.

mod made;
mod pieces;
mod reader;
mod table;
#[cfg(test)]
mod tests;
mod writes;

use super::files::{Body, File};

pub use pieces::part;
pub use reader::Reader;

/// What a statement may do that cannot be undone by undoing the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Drops a table or all that is in a schema.
    DropsTables,
    /// Drops a column.
    DropsColumn,
    /// Drops an attribute of a composite type.
    DropsAttribute,
    /// Drops whatever depends on something.
    DropsDependents,
    /// Empties a table.
    Empties,
    /// Empties the tables that refer to one.
    EmptiesReferrers,
    /// Deletes rows.
    DeletesRows,
    /// Writes over values that were there: not over NULL, nor in what the same files have made.
    WritesOver,
    /// Makes a column another type: what does not fit is cut off or refused.
    ChangesType,
    /// Makes a rule by which the database does something else than code asks for.
    TurnsWrites,
    /// Adds a column that needs a value, and has no default.
    AddsRequired,
    /// Makes a column need a value that has no default, as far as the files say: nobody sees here what it had before.
    RequiresValue,
    /// Runs code that nobody reads here: a DO block, a procedure, a prepared statement, a function that the files make.
    RunsCode,
}

impl Risk {
    /// In words.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::DropsTables => "drops tables with their rows",
            Self::DropsColumn => "drops a column with its values",
            Self::DropsAttribute => "drops an attribute of a type, with its values in every column of it",
            Self::DropsDependents => "drops whatever depends on it (CASCADE)",
            Self::Empties => "empties a table",
            Self::EmptiesReferrers => "empties every table that refers to it as well (CASCADE)",
            Self::DeletesRows => "deletes rows",
            Self::WritesOver => "writes over values that are there, which no rehearsal sees",
            Self::ChangesType => "changes a column's type: values may be cut off",
            Self::TurnsWrites => {
                "makes a rule: what code writes is dropped, or rows are deleted or written over for it"
            }
            Self::AddsRequired => "adds a column NOT NULL without DEFAULT: rows that older code writes are refused",
            Self::RequiresValue => {
                "makes a column NOT NULL without DEFAULT: rows that lack a value, also those of older code, are refused"
            }
            Self::RunsCode => {
                "runs code (DO, CALL, EXECUTE, a function of these files): whether it loses data only a rehearsal tells"
            }
        }
    }

    /// Whether the statement tells it; else a rehearsal does.
    #[must_use]
    pub const fn is_told(self) -> bool {
        !matches!(self, Self::RunsCode)
    }

    /// Whether rows are refused, of older code above all: writes are lost, and not what is there. A rehearsal knows better than
    /// the statement whether a column has a default.
    #[must_use]
    pub const fn refuses_rows(self) -> bool {
        matches!(self, Self::AddsRequired | Self::RequiresValue)
    }
}

/// A risk with its file and line.
pub type Found = (String, u64, Risk);

/// The risks of files in the order in which they are run.
#[must_use]
pub fn of_files<'a>(files: impl IntoIterator<Item = &'a File>) -> Vec<Found> {
    of_files_after([], files)
}

/// The same of files that are run after others.
#[must_use]
pub fn of_files_after<'a>(
    before: impl IntoIterator<Item = &'a File>,
    files: impl IntoIterator<Item = &'a File>,
) -> Vec<Found> {
    let mut reader = Reader::default();
    before.into_iter().for_each(|file| drop(of_file(&mut reader, file)));
    files.into_iter().flat_map(|file| of_file(&mut reader, file)).collect()
}

fn of_file(reader: &mut Reader, file: &File) -> Vec<Found> {
    let (Body::Transaction(statements) | Body::Alone(statements)) = &file.body;
    let mut found = Vec::new();
    for statement in statements {
        let risks = reader.read(statement).into_iter();
        found.extend(risks.map(|risk| (file.name.clone(), statement.line, risk)));
    }
    found
}

/// The risks of files in words, and whether data are lost by one of them. What a rehearsal tells, or tells better, is left to
/// it if there is going to be one.
#[must_use]
pub fn told<'a>(files: impl IntoIterator<Item = &'a File>, rehearsed: bool) -> (Vec<String>, bool) {
    told_of(of_files(files), rehearsed)
}

/// The same of files that nobody rehearses, and that are run after others.
#[must_use]
pub fn told_after<'a>(
    before: impl IntoIterator<Item = &'a File>,
    files: impl IntoIterator<Item = &'a File>,
) -> (Vec<String>, bool) {
    told_of(of_files_after(before, files), false)
}

fn told_of(mut all: Vec<Found>, rehearsed: bool) -> (Vec<String>, bool) {
    all.retain(|(_, _, risk)| !rehearsed || risk.is_told());
    let loses_data = all.iter().any(|(_, _, risk)| !rehearsed || !risk.refuses_rows());
    // What is lost of what is there comes first: the list is bounded.
    let (last, first): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, _, risk)| risk.refuses_rows());
    (first.iter().chain(&last).map(line).collect(), loses_data)
}

/// A risk in words, with its place.
#[must_use]
pub fn line((file, line, risk): &Found) -> String {
    format!("{file}, line {line}: {}", risk.told())
}
