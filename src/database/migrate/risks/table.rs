//! The actions of ALTER TABLE.

use crate::database::migrate::statements::{Piece, words};

use super::{
    Risk,
    made::{Column, Made},
    pieces::{Name, begins, between_commas, name, part, without, words_outside},
};

/// What they risk, of what comes after ALTER TABLE.
pub fn risks(made: &mut Made, pieces: &[Piece]) -> Vec<Risk> {
    let pieces = without(without(pieces, &["IF", "EXISTS"]), &["ONLY"]);
    let (table, rest) = name(pieces).unwrap_or((Name::new(), pieces));
    let rest = if let [Piece::Mark('*'), rest @ ..] = rest { rest } else { rest };
    let actions = between_commas(rest);
    let mut altered = Table { made: &mut *made, name: &table };
    // Whatever their order, the table has the default when the statement is done.
    actions.iter().for_each(|action| altered.note_default(action));
    let risks = actions.iter().flat_map(|action| altered.risks(action)).collect();
    // It is called by another name, or has rows of others.
    if words(rest).any(|word| matches!(word, "RENAME" | "SCHEMA" | "ATTACH" | "INHERIT")) {
        made.forget_tables();
    }
    risks
}

/// The table that is altered.
struct Table<'a> {
    made: &'a mut Made,
    name: &'a Name,
}

impl Table<'_> {
    fn risks(&mut self, action: &[Piece]) -> Vec<Risk> {
        let Some((word, rest)) = action.split_first() else { return Vec::new() };
        match word.word() {
            Some("ADD") => self.adds(rest).into_iter().collect(),
            Some("DROP") => self.drops(rest),
            Some("ALTER") => self.alters(rest).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn adds(&mut self, rest: &[Piece]) -> Option<Risk> {
        let constraint = without(rest, &["CONSTRAINT"]);
        let unnamed = if constraint.len() < rest.len() { constraint.get(1..)? } else { rest };
        if begins(unnamed, &["NOT", "NULL"]) {
            let column = part(unnamed.get(2)?)?;
            return self.require(&column);
        }
        let kinds = ["CHECK", "UNIQUE", "PRIMARY", "FOREIGN", "EXCLUDE"];
        if constraint.len() < rest.len() || kinds.iter().any(|kind| begins(rest, &[kind])) {
            return None;
        }
        let rest = without(rest, &["COLUMN"]);
        let rest_of_new = without(rest, &["IF", "NOT", "EXISTS"]);
        let (first, definition) = rest_of_new.split_first()?;
        let column = part(first)?;
        let required = says(definition, "NOT", "NULL") || says(definition, "PRIMARY", "KEY");
        let added = rest_of_new.len() == rest.len();
        let now = Column { added, required, default: has_default(definition) };
        self.made.note(self.name, &column, now);
        (now.required && !now.default && !self.made.has_table(self.name)).then_some(Risk::AddsRequired)
    }

    fn drops(&mut self, rest: &[Piece]) -> Vec<Risk> {
        let dependents = words(rest).any(|word| word == "CASCADE").then_some(Risk::DropsDependents);
        if begins(rest, &["CONSTRAINT"]) {
            return dependents.into_iter().collect();
        }
        let column = without(without(rest, &["COLUMN"]), &["IF", "EXISTS"]).first().and_then(part);
        column.iter().for_each(|column| self.made.drop_column(self.name, column));
        [Risk::DropsColumn].into_iter().chain(dependents).collect()
    }

    fn alters(&mut self, rest: &[Piece]) -> Option<Risk> {
        let (column, change) = altered(rest)?;
        let known = self.made.column(self.name, &column);
        let all: Vec<&str> = words(change).take(3).collect();
        match all.as_slice() {
            ["TYPE", ..] | ["SET", "DATA", "TYPE"] => Some(Risk::ChangesType),
            ["SET", "NOT", "NULL"] => self.require(&column),
            ["DROP", "NOT", "NULL"] => {
                self.made.note(self.name, &column, Column { required: false, ..known });
                None
            }
            // Rows have had the value, and those that older code writes from now on have none.
            ["DROP", "DEFAULT" | "IDENTITY", ..] | ["SET", "DEFAULT", "NULL"] => {
                self.made.note(self.name, &column, Column { default: false, ..known });
                let refused = known.required && known.default && !self.made.has_table(self.name);
                refused.then_some(Risk::RequiresValue)
            }
            _ => None,
        }
    }

    /// A column is to have a value.
    fn require(&mut self, column: &str) -> Option<Risk> {
        let known = self.made.column(self.name, column);
        self.made.note(self.name, column, Column { required: true, ..known });
        (!known.default && !self.made.has_table(self.name)).then_some(Risk::RequiresValue)
    }

    /// An action that gives a column a default.
    fn note_default(&mut self, action: &[Piece]) {
        let change = action.split_first().filter(|(word, _)| word.word() == Some("ALTER"));
        let Some((column, change)) = change.and_then(|(_, rest)| altered(rest)) else { return };
        let all: Vec<&str> = words(change).take(3).collect();
        let gives = match all.as_slice() {
            ["SET", "DEFAULT", "NULL"] => false,
            ["SET", "DEFAULT", ..] | ["ADD", "GENERATED", ..] => true,
            _ => false,
        };
        if gives {
            let known = self.made.column(self.name, &column);
            self.made.note(self.name, &column, Column { default: true, ..known });
        }
    }
}

/// The column that ALTER changes, and how; none of a constraint.
fn altered(rest: &[Piece]) -> Option<(String, &[Piece])> {
    let (column, change) = without(rest, &["COLUMN"]).split_first()?;
    (!begins(rest, &["CONSTRAINT"])).then_some((part(column)?, change))
}

/// Whether a column's definition has two words one after the other.
fn says(definition: &[Piece], one: &str, other: &str) -> bool {
    words_outside(definition).windows(2).any(|pair| pair == [one, other])
}

/// Whether a column's definition gives it values: a default other than NULL, or a type or clause that makes them. What a
/// foreign key does (SET DEFAULT) is none.
fn has_default(definition: &[Piece]) -> bool {
    let serial = ["SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"];
    if definition.first().and_then(Piece::word).is_some_and(|word| serial.contains(&word)) {
        return true;
    }
    let all = words_outside(definition);
    all.iter().enumerate().any(|(place, word)| match *word {
        "GENERATED" => true,
        "DEFAULT" => {
            let before = place.checked_sub(1).map(|place| all[place]);
            before != Some("SET") && all.get(place + 1) != Some(&"NULL")
        }
        _ => false,
    })
}
