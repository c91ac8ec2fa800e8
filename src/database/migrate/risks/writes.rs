//! Statements that change rows, wherever they stand in a statement: DELETE, UPDATE, INSERT ... ON CONFLICT DO UPDATE, MERGE.

use crate::database::migrate::statements::Piece;

use super::{
    Risk,
    made::Made,
    pieces::{Name, begins, between_commas, closed, name, outside, part, split, until, without, words_outside},
};

/// More tokens than there are between UPDATE and SET.
const LONGEST: usize = 16;

/// What a statement does to rows that are there.
pub fn risks(made: &Made, pieces: &[Piece]) -> Vec<Risk> {
    let mut risks = Vec::new();
    let (mut inserted, mut merged) = (None, None);
    for (place, piece) in pieces.iter().enumerate() {
        let Some(word) = piece.word() else { continue };
        let before = place.checked_sub(1).and_then(|place| pieces[place].word());
        let after = &pieces[place + 1..];
        let writes = |target: &Option<Target>, ends: &[&str]| {
            let set = without(after, &["SET"]);
            !target.as_ref().is_some_and(|target| target.keeps(made, set, ends))
        };
        let over = match (before, word) {
            (_, "INSERT") => {
                inserted = Target::of(without(after, &["INTO"]));
                false
            }
            (_, "MERGE") => {
                merged = Target::of(without(after, &["INTO"]));
                false
            }
            (Some("THEN"), "DELETE") => {
                risks.push(Risk::DeletesRows);
                false
            }
            (_, "DELETE") if begins(after, &["FROM"]) => {
                risks.push(Risk::DeletesRows);
                false
            }
            (Some("DO"), "UPDATE") => writes(&inserted, &["WHERE", "RETURNING"]),
            (Some("THEN"), "UPDATE") => writes(&merged, &["WHEN", "RETURNING"]),
            // SELECT ... FOR UPDATE, FOR NO KEY UPDATE, and what a foreign key does ON UPDATE.
            (Some("FOR" | "KEY" | "ON"), "UPDATE") => false,
            (_, "UPDATE") => updates(made, after),
            _ => false,
        };
        if over {
            risks.push(Risk::WritesOver);
        }
    }
    risks
}

/// Whether what comes after UPDATE writes over values. Where no SET follows it was a name.
fn updates(made: &Made, after: &[Piece]) -> bool {
    let set = until(&after[..after.len().min(LONGEST)], &["SET"]).0.len();
    let (target, set) = after.split_at(set);
    if set.is_empty() || outside(target).any(|(_, piece)| *piece == Piece::Mark(',')) || !begins(set, &["SET"]) {
        return false;
    }
    let ends = ["FROM", "WHERE", "RETURNING"];
    !Target::of(target).is_some_and(|target| target.keeps(made, &set[1..], &ends))
}

/// The table whose rows are changed.
struct Target {
    name: Name,
    /// What its columns are known by in the statement.
    called: String,
}

impl Target {
    /// `[ONLY] name [*] [[AS] alias]`
    fn of(pieces: &[Piece]) -> Option<Self> {
        let pieces = without(pieces, &["ONLY"]);
        let pieces = if let [Piece::Mark('('), inner @ ..] = pieces { inner } else { pieces };
        let (name, rest) = name(pieces)?;
        let rest = if let [Piece::Mark(')' | '*'), rest @ ..] = rest { rest } else { rest };
        let is_named = begins(rest, &["AS"]);
        let clause = ["USING", "DEFAULT", "VALUES", "SELECT", "OVERRIDING", "WITH", "TABLE", "SET"];
        let alias = without(rest, &["AS"])
            .first()
            .filter(|piece| is_named || !piece.word().is_some_and(|word| clause.contains(&word)));
        let called = alias.and_then(part).or_else(|| name.last().cloned())?;
        Some(Self { name, called })
    }

    /// Whether no value is written over that somebody else has put there: each column is one that the files have made, or is
    /// asked to be NULL. `set`: what comes after SET, up to one of the words.
    fn keeps(&self, made: &Made, set: &[Piece], ends: &[&str]) -> bool {
        let (set, rest) = until(set, ends);
        let Some(columns) = assigned(set) else { return false };
        let (_, condition) = until(rest, &["WHERE"]);
        let condition = if begins(condition, &["WHERE"]) { &condition[1..] } else { &[] };
        let nulls = self.nulls(until(condition, &["RETURNING"]).0);
        made.has_table(&self.name)
            || columns.iter().all(|column| made.has_column(&self.name, column) || nulls.contains(column))
    }

    /// The columns that a condition asks to be NULL.
    fn nulls(&self, condition: &[Piece]) -> Vec<String> {
        if words_outside(condition).iter().any(|word| matches!(*word, "OR" | "BETWEEN")) {
            return Vec::new();
        }
        let conjuncts = split(condition, |piece| piece.word() == Some("AND")).into_iter();
        conjuncts.filter_map(|conjunct| self.null(conjunct)).collect()
    }

    /// The column of `column IS NULL`.
    fn null(&self, conjunct: &[Piece]) -> Option<String> {
        let conjunct = if let [Piece::Mark('('), inner @ .., Piece::Mark(')')] = conjunct { inner } else { conjunct };
        let (column, is_null) = conjunct.split_at_checked(conjunct.len().checked_sub(2)?)?;
        if !begins(is_null, &["IS", "NULL"]) {
            return None;
        }
        match column {
            [column] => part(column),
            [of, Piece::Mark('.'), column] if part(of).is_some_and(|of| of == self.called) => part(column),
            _ => None,
        }
    }
}

/// The columns that SET gives values; none where that cannot be read.
fn assigned(set: &[Piece]) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    for item in between_commas(set) {
        match item {
            [Piece::Mark('('), inner @ ..] => {
                let several = between_commas(&inner[..closed(inner)]);
                columns.extend(several.iter().map(|column| part(column.first()?)).collect::<Option<Vec<_>>>()?);
            }
            [first, ..] => columns.push(part(first)?),
            [] => return None,
        }
    }
    Some(columns)
}
