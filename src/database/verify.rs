//! Whether the schema is what a migration was to make of it: what is there, of which type, and in force.

use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection};

use super::connection::{self, told};

/// What there must be. Names are looked for as SQL does: by the search path, in lower case unless quoted.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Schema {
    /// Tables, views and the like, such as `orders` or `sales.orders`.
    pub tables: Vec<String>,
    /// Columns.
    pub columns: Vec<ExpectedColumn>,
    /// Indexes, each of them valid.
    pub indexes: Vec<String>,
    /// Constraints, each of them validated.
    pub constraints: Vec<ExpectedConstraint>,
    /// Extensions.
    pub extensions: Vec<String>,
}

/// A column that there must be.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedColumn {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its type, by any of its names: `bigint` or `int8`, `varchar(20)`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// Whether it may be NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
}

/// A constraint that there must be.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedConstraint {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// What is wrong with the schema of a database, with the remedy where there is one; empty if nothing is.
///
/// # Errors
/// Why it cannot be looked at.
pub async fn verify(url: &str, schema: &Schema) -> Result<Vec<String>, String> {
    let opened = connection::open(url, "servicerelease/verify").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let faults = faults(&mut connection, schema).await.map_err(|error| told(&error));
    let _ = connection.close().await;
    faults
}

async fn faults(connection: &mut PgConnection, schema: &Schema) -> Result<Vec<String>, sqlx::Error> {
    let mut faults = Vec::new();
    for table in &schema.tables {
        let there: bool =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(table).fetch_one(&mut *connection).await?;
        faults.extend((!there).then(|| format!("table {table} is missing")));
    }
    for column in &schema.columns {
        faults.extend(of_column(connection, column).await?);
    }
    for index in &schema.indexes {
        let valid = "SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass($1)";
        let valid: Option<bool> = sqlx::query_scalar(valid).bind(index).fetch_optional(&mut *connection).await?;
        faults.extend(match valid {
            Some(true) => None,
            Some(false) => Some(format!(
                "index {index} is invalid, since it was broken off while it was built: DROP INDEX CONCURRENTLY {index}, and build it again"
            )),
            None => Some(format!("index {index} is missing")),
        });
    }
    for ExpectedConstraint { table, name } in &schema.constraints {
        let valid = "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = $2";
        let valid: Option<bool> =
            sqlx::query_scalar(valid).bind(table).bind(name).fetch_optional(&mut *connection).await?;
        faults.extend(match valid {
            Some(true) => None,
            Some(false) => Some(format!(
                "constraint {name} of {table} does not hold for all rows yet: ALTER TABLE {table} VALIDATE CONSTRAINT {name}"
            )),
            None => Some(format!("constraint {name} of {table} is missing")),
        });
    }
    for extension in &schema.extensions {
        let there = "SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = $1)";
        let there: bool = sqlx::query_scalar(there).bind(extension).fetch_one(&mut *connection).await?;
        faults.extend((!there).then(|| format!("extension {extension} is missing: CREATE EXTENSION \"{extension}\"")));
    }
    Ok(faults)
}

async fn of_column(connection: &mut PgConnection, expected: &ExpectedColumn) -> Result<Option<String>, sqlx::Error> {
    let ExpectedColumn { table, name, type_name, nullable } = expected;
    // A type without its length is any length of it.
    let query = "SELECT format_type(atttypid, atttypmod), NOT attnotnull, \
                 coalesce(to_regtype($3::text) = atttypid, false), to_regtype($3::text) IS NOT NULL \
                 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND attnum > 0 AND NOT attisdropped";
    let wanted = type_name.as_deref().unwrap_or_default();
    let (base, length) = wanted.split_once('(').map_or((wanted, ""), |(base, length)| (base, length));
    let base = Some(base.trim()).filter(|base| !base.is_empty());
    let found: Option<(String, bool, bool, bool)> =
        sqlx::query_as(query).bind(table).bind(name).bind(base).fetch_optional(connection).await?;
    let Some((found, may_be_null, same, known)) = found else {
        return Ok(Some(format!("column {table}.{name} is missing")));
    };
    let found_length = found.split_once('(').map_or("", |(_, length)| length);
    if !wanted.is_empty() && !known {
        return Ok(Some(format!("column {table}.{name} is {found}; {wanted} is no type of this database")));
    }
    let plain = |text: &str| text.replace(' ', "");
    if !wanted.is_empty() && (!same || (!length.is_empty() && plain(length) != plain(found_length))) {
        return Ok(Some(format!("column {table}.{name} is {found}, not {wanted}")));
    }
    Ok(nullable.filter(|nullable| *nullable != may_be_null).map(|nullable| match nullable {
        true => format!("column {table}.{name} is NOT NULL, and should not be"),
        false => format!("column {table}.{name} may be NULL, and should not"),
    }))
}
