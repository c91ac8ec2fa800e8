//! What a schema must have: `spec.database.verify`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ExpectedRows, ExpectedValue, SqlExpect};

/// What a database must have. Names are looked for as SQL does: by the search path, in lower case unless quoted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Verify {
    /// Tables, such as `orders` or `sales.orders`; with capitals or spaces in quotes: `'"Order Items"'`. A view, an index or a
    /// sequence of that name is none; for a view ask for its columns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 127)))]
    pub tables: Vec<String>,
    /// Columns, with their types.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub columns: Vec<ExpectedColumn>,
    /// Indexes, each of them there and valid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 127)))]
    pub indexes: Vec<String>,
    /// Constraints, each of them there and validated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub constraints: Vec<ExpectedConstraint>,
    /// Extensions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub extensions: Vec<String>,
    /// Statements that read, and what their rows must be like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub queries: Vec<VerifyQuery>,
}

/// A column that there must be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedColumn {
    /// Its table.
    #[schemars(length(min = 1, max = 127))]
    pub table: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its type, by any of its names: `bigint` or `int8`, `varchar(20)`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    pub type_name: Option<String>,
    /// Whether it may be NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
}

/// A constraint that there must be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedConstraint {
    /// Its table.
    #[schemars(length(min = 1, max = 127))]
    pub table: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// A statement that reads, and what is expected of its rows, as in a check by SQL.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.value) == (self.expect == 'Value')").message("expect: Value and value go together"),
    validation = Rule::new("has(self.rows) == (self.expect == 'Rows')").message("expect: Rows and rows go together")
)]
#[serde(rename_all = "camelCase")]
pub struct VerifyQuery {
    /// Its name, for messages.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The statement.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// What its rows must be like. Default NoRows.
    #[serde(default)]
    pub expect: SqlExpect,
    /// With expect: Value, what the only column of the only row must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<ExpectedValue>,
    /// With expect: Rows, how many there must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<ExpectedRows>,
}
