//! Statements in the order in which they are run, each by what its first words say.

use crate::database::migrate::statements::{Piece, Statement, words};

use super::{
    Risk,
    made::Made,
    pieces::{begins, between_commas, closed, name, without, words_outside},
    table, writes,
};

/// Reads statements: what they risk depends on what those before have made.
#[derive(Debug, Default)]
pub struct Reader {
    made: Made,
}

impl Reader {
    /// The risks of the next statement.
    #[must_use]
    pub fn read(&mut self, statement: &Statement) -> Vec<Risk> {
        let pieces = statement.pieces.as_slice();
        let mut risks = Vec::new();
        for risk in run(pieces).map_or_else(Vec::new, |pieces| self.of(pieces)) {
            if !risks.contains(&risk) {
                risks.push(risk);
            }
        }
        risks
    }

    fn of(&mut self, pieces: &[Piece]) -> Vec<Risk> {
        let all: Vec<&str> = words(pieces).collect();
        match all.as_slice() {
            ["DROP", what @ ..] => self.drops(pieces, what),
            ["DO" | "CALL" | "EXECUTE", ..] => self.runs_code(),
            ["TRUNCATE", ..] if all.contains(&"CASCADE") => vec![Risk::Empties, Risk::EmptiesReferrers],
            ["TRUNCATE", ..] => vec![Risk::Empties],
            ["ALTER", "TABLE", ..] => table::risks(&mut self.made, &pieces[2..]),
            ["ALTER", what, rest @ ..] => self.alters(what, rest, pieces),
            ["CREATE", "RULE", rest @ ..] | ["CREATE", "OR", "REPLACE", "RULE", rest @ ..] => of_rule(rest),
            ["CREATE", ..] => self.creates(pieces, &all),
            ["SET" | "RESET" | "DISCARD", what @ ..] => {
                if what.iter().any(|word| matches!(*word, "SEARCH_PATH" | "SCHEMA" | "ROLE" | "AUTHORIZATION" | "ALL"))
                {
                    self.made.forget_tables();
                }
                Vec::new()
            }
            ["SELECT" | "VALUES", ..] => self.selects(pieces, &all),
            ["INSERT" | "UPDATE" | "DELETE" | "MERGE" | "WITH" | "COPY", ..] => {
                let risks = writes::risks(&self.made, pieces);
                risks.into_iter().chain(self.selects(pieces, &all)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn runs_code(&mut self) -> Vec<Risk> {
        self.made.forget_tables();
        vec![Risk::RunsCode]
    }

    fn drops(&mut self, pieces: &[Piece], what: &[&str]) -> Vec<Risk> {
        let tables = match what {
            ["TABLE", ..] => {
                let names = without(&pieces[2..], &["IF", "EXISTS"]);
                let names = between_commas(names).into_iter().filter_map(|piece| Some(name(piece)?.0));
                names.for_each(|name| self.made.drop_table(&name));
                true
            }
            ["SCHEMA" | "DATABASE" | "OWNED", ..] => {
                self.made.forget_tables();
                true
            }
            ["FOREIGN", "TABLE", ..] => true,
            _ => false,
        };
        let dependents = what.contains(&"CASCADE").then_some(Risk::DropsDependents);
        tables.then_some(Risk::DropsTables).into_iter().chain(dependents).collect()
    }

    fn alters(&mut self, what: &str, rest: &[&str], pieces: &[Piece]) -> Vec<Risk> {
        if rest.iter().any(|word| matches!(*word, "RENAME" | "SCHEMA" | "SEARCH_PATH")) {
            self.made.forget_tables();
        }
        let says = |one: &str, other: &str| rest.windows(2).any(|pair| pair == [one, other]);
        match what {
            "TYPE" => {
                let drops = says("DROP", "ATTRIBUTE").then_some(Risk::DropsAttribute);
                drops.into_iter().chain(says("ALTER", "ATTRIBUTE").then_some(Risk::ChangesType)).collect()
            }
            "DOMAIN" => {
                let outside = words_outside(pieces);
                let requires = outside.windows(3).any(|said| said[1..] == ["NOT", "NULL"] && said[0] != "DROP");
                requires.then_some(Risk::RequiresValue).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn creates(&mut self, pieces: &[Piece], all: &[&str]) -> Vec<Risk> {
        let begin = &all[..all.len().min(4)];
        let after = |what: &str| {
            let place = pieces.iter().position(|piece| piece.word() == Some(what))?;
            begin.contains(&what).then(|| &pieces[place + 1..])
        };
        if let Some(function) = after("FUNCTION") {
            // What is declared to change nothing does not.
            let changes = !all.iter().any(|word| matches!(*word, "IMMUTABLE" | "STABLE"));
            let named = name(function).and_then(|(mut name, _)| name.pop()).filter(|_| changes);
            named.into_iter().for_each(|name| self.made.function(name));
            return Vec::new();
        }
        // What stands there by a query is made by running it; a view is not.
        let queries = |pair: &[&str]| pair[0] == "AS" && matches!(pair[1], "SELECT" | "WITH" | "VALUES");
        let is_run = (begin.contains(&"TABLE") || begin.contains(&"MATERIALIZED")) && all.windows(2).any(queries);
        let called = if is_run { self.selects(pieces, all) } else { Vec::new() };
        let Some(table) = after("TABLE") else { return called };
        let risks: Vec<Risk> = writes::risks(&self.made, pieces).into_iter().chain(called).collect();
        // Of one that may have been there, that goes with the session, or whose rows come by another one, nobody knows.
        let others = begin.iter().any(|word| matches!(*word, "TEMP" | "TEMPORARY" | "FOREIGN"));
        if let Some((name, rest)) = name(table).filter(|_| !others && !begins(table, &["IF", "NOT", "EXISTS"]))
            && !begins(rest, &["PARTITION", "OF"])
        {
            self.made.table(name);
        }
        risks
    }

    fn selects(&mut self, pieces: &[Piece], all: &[&str]) -> Vec<Risk> {
        if all.contains(&"SET_CONFIG") {
            self.made.forget_tables();
        }
        let calls = |pair: &[Piece]| {
            pair[1] == Piece::Mark('(')
                && super::pieces::part(&pair[0]).is_some_and(|name| self.made.has_function(&name))
        };
        if pieces.windows(2).any(calls) { self.runs_code() } else { Vec::new() }
    }
}

/// What is run of a statement: of EXPLAIN that which it explains, if it does so by running it.
fn run(pieces: &[Piece]) -> Option<&[Piece]> {
    if !begins(pieces, &["EXPLAIN"]) {
        return Some(pieces);
    }
    let analyzes = |piece: &Piece| matches!(piece.word(), Some("ANALYZE" | "ANALYSE"));
    if let [Piece::Mark('('), inner @ ..] = &pieces[1..] {
        let end = closed(inner);
        let off = |option: &[Piece]| matches!(option.get(1).and_then(Piece::word), Some("FALSE" | "OFF"));
        let runs = |option: &&[Piece]| option.first().is_some_and(analyzes) && !off(option);
        let is_run = between_commas(&inner[..end]).iter().any(runs);
        return inner.get(end + 1..).filter(|_| is_run);
    }
    let options = pieces[1..].iter().take_while(|piece| analyzes(piece) || piece.word() == Some("VERBOSE")).count();
    let (options, rest) = pieces[1..].split_at(options);
    options.iter().any(analyzes).then_some(rest)
}

/// A rule: what comes after its name.
fn of_rule(rest: &[&str]) -> Vec<Risk> {
    let action = rest.iter().position(|word| *word == "DO").map_or(rest, |place| &rest[place + 1..]);
    let changes = action.iter().any(|word| matches!(*word, "DELETE" | "UPDATE" | "TRUNCATE"));
    let drops = action.starts_with(&["INSTEAD", "NOTHING"]);
    (changes || drops).then_some(Risk::TurnsWrites).into_iter().collect()
}
