//! The SQL files of a migration: their order, their checksums, and how each is to be run.

use std::{fs, io, path::Path};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::database::hexadecimal;

use super::statements::{self, Kind, Statement, Unreadable};

/// What the names of down migrations end in.
const DOWN: &str = ".down.sql";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The number that its name begins with, without zeros before it.
    pub version: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of its contents, in hexadecimal.
    pub checksum: String,
    /// How its statements are run.
    pub body: Body,
}

/// The statements of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// All of them, and the note that they were run, in one transaction.
    Transaction(Vec<Statement>),
    /// Each by itself, since PostgreSQL refuses them in a transaction.
    Alone(Vec<Statement>),
}

/// What is wrong with the files. Nothing has been run.
#[derive(Debug, Error)]
pub enum Wrong {
    /// There are none.
    #[error("{}", crate::engine::task::NO_FILES)]
    None,
    /// A name without a number.
    #[error("{0}: the name must begin with the number of its place, such as 001_orders.sql or V1__orders.sql")]
    Name(String),
    /// A number twice.
    #[error("{0} and {1} have the same number: each needs one of its own")]
    Twice(String, String),
    /// No SQL.
    #[error("{0}: {1}")]
    Text(String, Unreadable),
    /// Both kinds in one file.
    #[error(
        "{file}, line {line}: PostgreSQL runs this statement in no transaction: put it, and others like it, into a file of their own"
    )]
    Mixed {
        /// The file.
        file: String,
        /// The line of the statement.
        line: u64,
    },
    /// It ends the transaction that it is run in.
    #[error("{file}, line {line}: each file is run in a transaction of its own: take BEGIN, COMMIT and ROLLBACK out")]
    Control {
        /// The file.
        file: String,
        /// The line of the statement.
        line: u64,
    },
    /// It takes something back, and cannot do so in one transaction with its note.
    #[error(
        "{file}, line {line}: each down file is run in one transaction, and PostgreSQL runs this statement in none: write it without CONCURRENTLY"
    )]
    NoTransaction {
        /// The file.
        file: String,
        /// The line of the statement.
        line: u64,
    },
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, io::Error),
}

/// The SQL files of a directory, in the order of their numbers. Down migrations (`.down.sql`) are none of them.
///
/// # Errors
/// What is wrong with which file.
pub fn read(directory: &Path) -> Result<Vec<File>, Wrong> {
    ordered(texts(directory, |name| !name.ends_with(DOWN))?)
}

/// The down migrations of a directory. There may be none.
///
/// # Errors
/// What is wrong with which file: among others a statement that can be in no transaction, since each is run in one.
pub fn read_down(directory: &Path) -> Result<Vec<File>, Wrong> {
    let texts = texts(directory, |name| name.ends_with(DOWN))?;
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let files = ordered(texts)?;
    for file in &files {
        if let Body::Alone(statements) = &file.body {
            let line = statements.first().map_or(1, |statement| statement.line);
            return Err(Wrong::NoTransaction { file: file.name.clone(), line });
        }
    }
    Ok(files)
}

fn texts(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, String)>, Wrong> {
    let unread = |error| Wrong::Read(directory.display().to_string(), error);
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !name.ends_with(".sql") || !wanted(&name) {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(|error| Wrong::Read(name.clone(), error))?;
        texts.push((name, text));
    }
    Ok(texts)
}

/// The same of names and contents.
///
/// # Errors
/// See [`read`].
pub fn ordered(texts: Vec<(String, String)>) -> Result<Vec<File>, Wrong> {
    let mut files = texts.into_iter().map(|(name, text)| file(name, &text)).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| (a.version.len(), &a.version).cmp(&(b.version.len(), &b.version)));
    if let Some([one, other]) = files.array_windows().find(|[one, other]| one.version == other.version) {
        return Err(Wrong::Twice(one.name.clone(), other.name.clone()));
    }
    if files.is_empty() { Err(Wrong::None) } else { Ok(files) }
}

/// One hash of all files: what an approval is about.
#[must_use]
pub fn plan(set: &str, files: &[File]) -> String {
    let mut hash = Sha256::new();
    hash.update(set);
    for file in files {
        hash.update([0]);
        hash.update(&file.name);
        hash.update([0]);
        hash.update(&file.checksum);
    }
    hexadecimal(&hash.finalize())
}

/// A file that another tool runs, in its own way: it is read, and no more.
///
/// # Errors
/// It is no SQL that can be read.
pub fn of_a_tool(name: &str, text: &str) -> Result<File, Wrong> {
    let statements = statements::split(text).map_err(|error| Wrong::Text(name.to_owned(), error))?;
    let checksum = hexadecimal(&Sha256::digest(text));
    Ok(File { version: String::new(), name: name.to_owned(), checksum, body: Body::Transaction(statements) })
}

fn file(name: String, text: &str) -> Result<File, Wrong> {
    let number = name.strip_prefix(['V', 'v']).unwrap_or(&name);
    let digits = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
    let version = number[..digits].trim_start_matches('0');
    if digits == 0 {
        return Err(Wrong::Name(name));
    }
    let version = if version.is_empty() { "0" } else { version }.to_owned();
    let statements = statements::split(text).map_err(|error| Wrong::Text(name.clone(), error))?;
    let body = body(&name, statements)?;
    Ok(File { version, checksum: hexadecimal(&Sha256::digest(text)), name, body })
}

fn body(name: &str, mut statements: Vec<Statement>) -> Result<Body, Wrong> {
    // Whoever wrote one transaction gets one.
    if let [first, .., last] = &statements[..]
        && (first.kind, last.kind) == (Kind::Begin, Kind::Commit)
    {
        statements.pop();
        statements.remove(0);
    }
    let file = || name.to_owned();
    let control = |statement: &&Statement| matches!(statement.kind, Kind::Begin | Kind::Commit | Kind::Control);
    if let Some(statement) = statements.iter().find(control) {
        return Err(Wrong::Control { file: file(), line: statement.line });
    }
    match statements.iter().find(|statement| statement.kind == Kind::Alone) {
        None => Ok(Body::Transaction(statements)),
        Some(_) if statements.iter().all(|statement| statement.kind == Kind::Alone) => Ok(Body::Alone(statements)),
        Some(statement) => Err(Wrong::Mixed { file: file(), line: statement.line }),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn files(all: &[(&str, &str)]) -> Result<Vec<File>, Wrong> {
        ordered(all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn files_come_in_the_order_of_their_numbers() {
        let all = [("V10__c.sql", "SELECT 3"), ("002_b.sql", "SELECT 2"), ("1.sql", "SELECT 1")];
        let files = files(&all).unwrap();
        let versions: Vec<&str> = files.iter().map(|file| file.version.as_str()).collect();
        assert_eq!(versions, ["1", "2", "10"]);
    }

    #[test]
    fn a_directory_is_read_as_kubernetes_mounts_it() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in
            [("001_a.up.sql", "SELECT 1"), ("001_a.down.sql", "SELECT"), ("..data", ""), ("notes.txt", "")]
        {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let files = read(directory.path()).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].name.as_str(), files[0].version.as_str()), ("001_a.up.sql", "1"));
    }

    #[test]
    fn the_plan_changes_with_any_name_content_and_set() {
        let plan_of = |set: &str, all: &[(&str, &str)]| plan(set, &files(all).unwrap());
        let one = plan_of("shop", &[("1.sql", "SELECT 1")]);
        assert_eq!(one, plan_of("shop", &[("1.sql", "SELECT 1")]));
        for other in [
            plan_of("other", &[("1.sql", "SELECT 1")]),
            plan_of("shop", &[("1.sql", "SELECT 2")]),
            plan_of("shop", &[("1_a.sql", "SELECT 1")]),
            plan_of("shop", &[("1.sql", "SELECT 1"), ("2.sql", "")]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_transaction_that_the_author_wrote_is_the_files_own() {
        let files = files(&[("1.sql", "BEGIN;\nCREATE TABLE t ();\nCOMMIT;")]).unwrap();
        let Body::Transaction(statements) = &files[0].body else { panic!("{files:?}") };
        assert_eq!(statements.len(), 1);
    }

    #[rstest]
    #[case(&[], "no file whose name ends in .sql")]
    #[case(&[("a.sql", "")], "a.sql: the name must begin with the number")]
    #[case(&[("1.sql", ""), ("V01__x.sql", "")], "have the same number")]
    #[case(&[("1.sql", "SELECT '")], "1.sql: ")]
    #[case(&[("1.sql", "SELECT 1;\nCREATE INDEX CONCURRENTLY i ON t (a)")], "1.sql, line 2: PostgreSQL runs this")]
    #[case(&[("1.sql", "BEGIN; SELECT 1; COMMIT; SELECT 2")], "1.sql, line 1: each file is run in a transaction")]
    #[case(&[("1.sql", "SELECT 1; ROLLBACK")], "1.sql, line 1: each file is run in a transaction")]
    fn what_is_wrong_is_told_by_file_and_line(#[case] all: &[(&str, &str)], #[case] told: &str) {
        let error = files(all).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
