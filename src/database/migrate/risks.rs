//! Statements that a person is to have seen before they run: what they say of themselves, without a database.

use super::{
    files::{Body, File},
    statements::Statement,
};

/// What a statement may do that cannot be undone by undoing the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Drops a table or all that is in a schema.
    DropsTables,
    /// Drops a column.
    DropsColumn,
    /// Drops whatever depends on something.
    DropsDependents,
    /// Empties a table.
    Empties,
    /// Deletes rows.
    DeletesRows,
    /// Makes a column another type: what does not fit is cut off or refused.
    ChangesType,
    /// Runs code that nobody reads here: a DO block, a procedure, a prepared statement.
    RunsCode,
    /// Refuses rows that lack a value: those that are there, and those that older code writes.
    RequiresValue,
}

impl Risk {
    /// In words.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::DropsTables => "drops tables with their rows",
            Self::DropsColumn => "drops a column with its values",
            Self::DropsDependents => "drops whatever depends on it (CASCADE)",
            Self::Empties => "empties a table",
            Self::DeletesRows => "deletes rows",
            Self::ChangesType => "changes a column's type: values may be cut off",
            Self::RunsCode => "runs code (DO, CALL, EXECUTE): whether it loses data only a rehearsal tells",
            Self::RequiresValue => {
                "requires a value that rows, and older code, may not have (NOT NULL without DEFAULT)"
            }
        }
    }

    /// Whether data are lost, or may be for all that anybody knows.
    #[must_use]
    pub const fn loses_data(self) -> bool {
        !matches!(self, Self::RequiresValue)
    }

    /// Whether the statement tells it; else a rehearsal does.
    #[must_use]
    pub const fn is_told(self) -> bool {
        !matches!(self, Self::RunsCode)
    }
}

/// The risks of files, each with file and line.
#[must_use]
pub fn of_files<'a>(files: impl IntoIterator<Item = &'a File>) -> Vec<(String, u64, Risk)> {
    let of = |file: &File| {
        let (Body::Transaction(statements) | Body::Alone(statements)) = &file.body;
        let risks = |statement: &Statement| risks(statement).into_iter().map(|risk| (statement.line, risk)).collect();
        let found: Vec<(u64, Risk)> = statements.iter().flat_map::<Vec<_>, _>(risks).collect();
        let name = file.name.clone();
        found.into_iter().map(move |(line, risk)| (name.clone(), line, risk)).collect::<Vec<_>>()
    };
    files.into_iter().flat_map(of).collect()
}

/// The risks of files in words, and whether data are lost by one of them. What only a rehearsal tells is left to it, if there
/// is going to be one.
#[must_use]
pub fn told<'a>(files: impl IntoIterator<Item = &'a File>, rehearsed: bool) -> (Vec<String>, bool) {
    let mut all = of_files(files);
    all.retain(|(_, _, risk)| !rehearsed || risk.is_told());
    let loses_data = all.iter().any(|(_, _, risk)| risk.loses_data());
    // What loses data comes first: the list is bounded.
    let (first, last): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, _, risk)| risk.loses_data());
    (first.iter().chain(&last).map(line).collect(), loses_data)
}

/// A risk in words, with its place.
#[must_use]
pub fn line((file, line, risk): &(String, u64, Risk)) -> String {
    format!("{file}, line {line}: {}", risk.told())
}

/// The risks of a statement. What a function or a trigger does nobody sees here.
#[must_use]
pub fn risks(statement: &Statement) -> Vec<Risk> {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    let cascades = words.contains(&"CASCADE");
    match words.as_slice() {
        ["DROP", "TABLE" | "SCHEMA" | "DATABASE" | "OWNED", ..] | ["DROP", "FOREIGN", "TABLE", ..] => {
            vec![Risk::DropsTables]
        }
        ["DROP", "TYPE" | "DOMAIN" | "EXTENSION", ..] if cascades => vec![Risk::DropsDependents],
        ["DO" | "CALL" | "EXECUTE", ..] => vec![Risk::RunsCode],
        ["TRUNCATE", ..] => vec![Risk::Empties],
        ["DELETE", "FROM", ..] => vec![Risk::DeletesRows],
        ["WITH", rest @ ..] if rest.windows(2).any(|pair| pair == ["DELETE", "FROM"] || merges_away(pair)) => {
            vec![Risk::DeletesRows]
        }
        ["MERGE", rest @ ..] if rest.windows(2).any(merges_away) => vec![Risk::DeletesRows],
        ["ALTER", "TABLE", actions @ ..] => of_table(actions, cascades),
        _ => Vec::new(),
    }
}

/// Whether it is an action of MERGE that deletes.
fn merges_away(pair: &[&str]) -> bool {
    pair == ["THEN", "DELETE"]
}

/// The actions of ALTER TABLE. Names in quotes are not among the words, so what follows DROP may be anything.
fn of_table(words: &[&str], cascades: bool) -> Vec<Risk> {
    let mut risks = Vec::new();
    let others = ["CONSTRAINT", "DEFAULT", "NOT", "EXPRESSION", "IDENTITY"];
    let after = |place: usize| words.get(place + 1).copied().unwrap_or_default();
    for (place, word) in words.iter().enumerate() {
        match *word {
            "DROP" if !others.contains(&after(place)) => risks.push(Risk::DropsColumn),
            "DROP" if after(place) == "CONSTRAINT" && cascades => risks.push(Risk::DropsDependents),
            "TYPE" => risks.push(Risk::ChangesType),
            "NULL" if place >= 1 && words[place - 1] == "NOT" && requires(&words[..place - 1], &words[place..]) => {
                risks.push(Risk::RequiresValue);
            }
            _ => {}
        }
    }
    risks
}

/// Whether NOT NULL between these words is asked of values that nobody gives: not what is dropped or tested.
fn requires(before: &[&str], after: &[&str]) -> bool {
    let last = before.last().copied().unwrap_or_default();
    let action = |words: &[&str]| words.iter().rposition(|word| matches!(*word, "ADD" | "ALTER" | "DROP"));
    let begun = action(before).map_or(before, |place| &before[place..]);
    let ended = after.iter().position(|word| matches!(*word, "ADD" | "ALTER" | "DROP")).unwrap_or(after.len());
    let given =
        |word: &&str| matches!(*word, "DEFAULT" | "GENERATED" | "SERIAL" | "BIGSERIAL" | "SMALLSERIAL" | "CHECK");
    !matches!(last, "DROP" | "IS") && !begun.iter().chain(&after[..ended]).any(given)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::database::migrate::statements::split;

    #[rstest]
    #[case("DROP TABLE IF EXISTS a, b", &[Risk::DropsTables])]
    #[case("drop schema old cascade", &[Risk::DropsTables])]
    #[case("DROP TYPE mood CASCADE", &[Risk::DropsDependents])]
    #[case("DROP TYPE mood", &[])]
    #[case("DROP INDEX i", &[])]
    #[case("DROP VIEW v", &[])]
    #[case("DO $$ BEGIN EXECUTE 'DROP TABLE a'; END $$", &[Risk::RunsCode])]
    #[case("call tidy(1)", &[Risk::RunsCode])]
    #[case("EXECUTE prepared", &[Risk::RunsCode])]
    #[case("INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING", &[])]
    #[case("TRUNCATE a", &[Risk::Empties])]
    #[case("DELETE FROM a WHERE id = 1", &[Risk::DeletesRows])]
    #[case("WITH gone AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM gone", &[Risk::DeletesRows])]
    #[case("DROP OWNED BY old_role", &[Risk::DropsTables])]
    #[case("MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE", &[Risk::DeletesRows])]
    #[case("MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN UPDATE SET n = 1", &[])]
    #[case("WITH b AS (SELECT 1) MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE", &[Risk::DeletesRows])]
    #[case("ALTER TABLE a DROP COLUMN b, ADD COLUMN c int", &[Risk::DropsColumn])]
    #[case("ALTER TABLE a DROP \"default\"", &[Risk::DropsColumn])]
    #[case("ALTER TABLE a DROP CONSTRAINT c, ALTER COLUMN b DROP NOT NULL, ALTER b DROP DEFAULT", &[])]
    #[case("ALTER TABLE a ALTER COLUMN b TYPE varchar(10)", &[Risk::ChangesType])]
    #[case("ALTER TABLE a ALTER b SET DATA TYPE int USING b::int", &[Risk::ChangesType])]
    #[case("ALTER TABLE a ADD COLUMN b int NOT NULL", &[Risk::RequiresValue])]
    #[case("ALTER TABLE a ADD COLUMN b int NOT NULL DEFAULT 0", &[])]
    #[case("ALTER TABLE a ADD COLUMN b int DEFAULT 0 NOT NULL, ADD c int NOT NULL", &[Risk::RequiresValue])]
    #[case("ALTER TABLE a ALTER COLUMN b SET NOT NULL", &[Risk::RequiresValue])]
    #[case("ALTER TABLE a ADD CONSTRAINT c CHECK (b IS NOT NULL) NOT VALID", &[])]
    #[case("CREATE TABLE a (b int NOT NULL)", &[])]
    #[case("UPDATE a SET b = 'DROP TABLE a'", &[])]
    fn what_a_statement_risks_stands_in_it(#[case] sql: &str, #[case] expected: &[Risk]) {
        assert_eq!(risks(&split(sql).unwrap()[0]), expected);
    }
}
