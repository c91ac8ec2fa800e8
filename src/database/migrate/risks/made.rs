//! What files have made until then: values that stand there are their own. A name that may mean something else by now is none.

use std::collections::{BTreeMap, BTreeSet};

use super::pieces::Name;

/// It.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Tables. One that may have been there before (IF NOT EXISTS) is none of them.
    tables: BTreeSet<Name>,
    columns: BTreeMap<(Name, String), Column>,
    /// Functions that may change something.
    functions: BTreeSet<String>,
}

/// A column, as far as the files say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// They have added it.
    pub added: bool,
    /// It has to have a value.
    pub required: bool,
    /// It has a default, or values are made for it.
    pub default: bool,
}

impl Made {
    /// They make a table.
    pub fn table(&mut self, name: Name) {
        self.tables.insert(name);
    }

    /// They make a function that may change something.
    pub fn function(&mut self, name: String) {
        self.functions.insert(name);
    }

    /// Whether the table is theirs.
    pub fn has_table(&self, name: &Name) -> bool {
        self.tables.contains(name)
    }

    /// Whether the function is theirs, by the last part of its name.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    /// Whether every value of a column is theirs.
    pub fn has_column(&self, table: &Name, column: &str) -> bool {
        self.has_table(table) || self.column(table, column).added
    }

    /// What they say of a column.
    pub fn column(&self, table: &Name, column: &str) -> Column {
        self.columns.get(&(table.clone(), column.to_owned())).copied().unwrap_or_default()
    }

    /// They say something of a column.
    pub fn note(&mut self, table: &Name, column: &str, now: Column) {
        self.columns.insert((table.clone(), column.to_owned()), now);
    }

    /// They drop a table.
    pub fn drop_table(&mut self, table: &Name) {
        self.tables.remove(table);
        self.columns.retain(|(of, _), _| of != table);
    }

    /// They drop a column.
    pub fn drop_column(&mut self, table: &Name, column: &str) {
        self.columns.remove(&(table.clone(), column.to_owned()));
    }

    /// Names may mean other tables from now on, or tables have rows of others.
    pub fn forget_tables(&mut self) {
        self.tables.clear();
        self.columns.clear();
    }
}
