//! Checks by SQL: a statement that reads, and what its rows must be like.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretSource, analysis::number};

/// One SQL statement that reads, and what is expected of its rows. It runs in a transaction that is read only and is
/// rolled back. The status tells how many rows there were, and of a single value that is a number which; nothing else
/// of the data.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.value) == (self.expect == 'Value')").message("expect: Value and value go together"),
    validation = Rule::new("has(self.rows) == (self.expect == 'Rows')").message("expect: Rows and rows go together")
)]
#[serde(rename_all = "camelCase")]
pub struct SqlCheck {
    /// The statement, without parameters, such as `SELECT id FROM orders WHERE user_id NOT IN (SELECT id FROM users)`.
    #[schemars(length(min = 1, max = 8192))]
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
    /// Where the URL of another database stands, of a replica for example. Default: database.urlFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretSource>,
}

/// What the rows of a statement must be like.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SqlExpect {
    /// There are none.
    #[default]
    NoRows,
    /// There is one of one column, which is as value says.
    Value,
    /// There are as many as rows says.
    Rows,
}

/// What a single value must be. NULL is never right.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("has(self.equals) || has(self.min) || has(self.max)").message("value has equals, min or max"))]
pub struct ExpectedValue {
    /// Its text, as PostgreSQL writes it: `t` for true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub equals: Option<String>,
    /// It must be a number, and not below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    pub min: Option<f64>,
    /// It must be a number, and not above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    pub max: Option<f64>,
}

/// How many rows there must be.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max)").message("rows has min, max or both"))]
pub struct ExpectedRows {
    /// At least so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub min: Option<i64>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max: Option<i64>,
}
