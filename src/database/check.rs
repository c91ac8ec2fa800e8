//! A check by SQL: one statement that reads, and whether its rows are as expected.

use std::time::Duration;

use futures::StreamExt as _;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _, ValueRef as _,
    postgres::{PgRow, PgTransaction},
};

use crate::{
    api::{self, ExpectedRows, ExpectedValue, SqlCheck, SqlExpect, status::bounded},
    engine::SqlQuestion,
};

use super::connection::{self, CONNECT, told};

/// Rows beyond which nobody counts.
const MOST_ROWS: u64 = 100_001;
/// How much of what a server says is told, in bytes.
const MOST_TOLD: usize = 300;

/// Asks, and says in a few words what came back.
///
/// # Errors
/// What is not as expected, or why there is no answer: never a value of the data, but for a single number that was
/// compared.
pub async fn check(url: &str, question: &SqlQuestion) -> Result<String, String> {
    let limit = Duration::from_millis(question.timeout.as_millis());
    let asked = tokio::time::timeout(limit, ask(url, question)).await;
    let answered = asked.unwrap_or_else(|_| Err(format!("no answer within {}", question.timeout)));
    answered.map_err(|fault| bounded(&fault, MOST_TOLD))
}

async fn ask(url: &str, question: &SqlQuestion) -> Result<String, String> {
    let options = connection::options(url, &format!("servicerelease/check {}", question.name));
    let options = options.map_err(|error| error.to_string())?;
    let within = Duration::from_millis(question.timeout.as_millis() / 2).min(CONNECT);
    let mut connection = connection::connect(&options, within).await.map_err(|error| error.to_string())?;
    let answered = answer(&mut connection, &question.sql, question.timeout).await;
    let _ = connection.close().await;
    answered
}

/// The same over a connection that is there.
///
/// # Errors
/// See [`check`].
pub async fn answer(connection: &mut PgConnection, sql: &SqlCheck, timeout: api::Duration) -> Result<String, String> {
    judge(sql, read(connection, sql, timeout).await.map_err(|error| told(&error))?)
}

/// What there was.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    rows: u64,
    columns: usize,
    /// The first column of the first row, as text; none if it is NULL.
    first: Option<String>,
}

async fn read(connection: &mut PgConnection, sql: &SqlCheck, timeout: api::Duration) -> Result<Found, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN TRANSACTION READ ONLY").await?;
    // Before this program gives up: the server's word says what took so long.
    let limit = timeout.as_millis() * 9 / 10;
    let bound = format!("SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}");
    transaction.execute(sqlx::raw_sql(AssertSqlSafe(bound))).await?;
    // Of several statements in one text the second could end the transaction: to prepare it, it must be a single one.
    let statement = || AssertSqlSafe(sql.query.clone()).into_sql_str();
    transaction.prepare(statement()).await?;
    let found = count(&mut transaction, sql).await;
    transaction.rollback().await?;
    found
}

async fn count(transaction: &mut PgTransaction<'_>, sql: &SqlCheck) -> Result<Found, sqlx::Error> {
    let mut found = Found::default();
    // By the simple protocol: all values come as text, as the server writes them.
    let mut rows = sqlx::raw_sql(AssertSqlSafe(sql.query.clone())).fetch(&mut **transaction);
    while let Some(row) = rows.next().await {
        let row: PgRow = row?;
        if found.rows == 0 {
            found.columns = row.columns().len();
            let value = row.try_get_raw(0).ok().filter(|value| !value.is_null());
            found.first = value.and_then(|value| value.as_str().ok().map(str::to_owned));
        }
        found.rows += 1;
        if found.rows >= MOST_ROWS {
            break;
        }
    }
    Ok(found)
}

fn judge(sql: &SqlCheck, found: Found) -> Result<String, String> {
    match sql.expect {
        SqlExpect::NoRows if found.rows == 0 => Ok("no rows".into()),
        SqlExpect::NoRows => Err(format!("expected no rows, but there {}", there_are(found.rows))),
        SqlExpect::Rows => count_is(sql.rows.unwrap_or_default(), found.rows),
        SqlExpect::Value => {
            if (found.rows, found.columns) != (1, 1) {
                let columns = if found.columns > 1 { format!(" of {} columns", found.columns) } else { String::new() };
                return Err(format!("expected one row of one column, but there {}{columns}", there_are(found.rows)));
            }
            let value = found.first.ok_or("expected a value, but it is NULL")?;
            value_is(&sql.value.clone().unwrap_or_default(), &value)
        }
    }
}

fn there_are(rows: u64) -> String {
    match rows {
        1 => "is 1 row".into(),
        MOST_ROWS => format!("are {} rows or more", MOST_ROWS - 1),
        rows => format!("are {rows} rows"),
    }
}

fn count_is(expected: ExpectedRows, rows: u64) -> Result<String, String> {
    let bound = |limit: i64| u64::try_from(limit).unwrap_or(0);
    let few = expected.min.filter(|min| rows < bound(*min)).map(|min| format!("at least {min}"));
    let many = expected.max.filter(|max| rows > bound(*max)).map(|max| format!("at most {max}"));
    match few.or(many) {
        Some(limit) => Err(format!("expected {limit} rows, but there {}", there_are(rows))),
        None => Ok(format!("{rows} rows")),
    }
}

fn value_is(expected: &ExpectedValue, value: &str) -> Result<String, String> {
    let number = value.trim().parse::<f64>().ok().filter(|number| !number.is_nan());
    // Whatever is no number may be somebody's name.
    let shown = number.map_or("another value".to_owned(), |number| format!("value {number}"));
    if let Some(wanted) = &expected.equals
        && wanted != value
    {
        return Err(format!("expected value {wanted}, but there is {shown}"));
    }
    let limits = expected.min.or(expected.max).map(|_| number.ok_or("expected a number, but the value is none"));
    if let Some(number) = limits.transpose()? {
        let few = expected.min.filter(|min| number < *min).map(|min| format!("at least {min}"));
        let many = expected.max.filter(|max| number > *max).map(|max| format!("at most {max}"));
        if let Some(limit) = few.or(many) {
            return Err(format!("expected {limit}, but there is {shown}"));
        }
    }
    Ok(if number.is_some() { shown } else { "the value is as expected".into() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn check_of(sql: Value) -> SqlCheck {
        let mut all = sql;
        all["query"] = json!("SELECT 1");
        serde_json::from_value(all).unwrap()
    }

    fn found(rows: u64, first: Option<&str>) -> Found {
        Found { rows, columns: 1, first: first.map(str::to_owned) }
    }

    #[rstest]
    #[case::none(json!({}), found(0, None), Ok("no rows"))]
    #[case::some(json!({}), found(3, Some("alice")), Err("expected no rows, but there are 3 rows"))]
    #[case::too_few(json!({"expect": "Rows", "rows": {"min": 2}}), found(1, None), Err("expected at least 2 rows, but there is 1 row"))]
    #[case::too_many(json!({"expect": "Rows", "rows": {"max": 5}}), found(MOST_ROWS, None), Err("expected at most 5 rows, but there are 100000 rows or more"))]
    #[case::enough(json!({"expect": "Rows", "rows": {"min": 1, "max": 5}}), found(5, None), Ok("5 rows"))]
    #[case::equal(json!({"expect": "Value", "value": {"equals": "t"}}), found(1, Some("t")), Ok("the value is as expected"))]
    #[case::other(json!({"expect": "Value", "value": {"equals": "t"}}), found(1, Some("alice")), Err("expected value t, but there is another value"))]
    #[case::limit(json!({"expect": "Value", "value": {"max": 10}}), found(1, Some("12.5")), Err("expected at most 10, but there is value 12.5"))]
    #[case::below(json!({"expect": "Value", "value": {"min": 0.5}}), found(1, Some("0.4")), Err("expected at least 0.5, but there is value 0.4"))]
    #[case::within(json!({"expect": "Value", "value": {"min": 0, "max": 10}}), found(1, Some("7")), Ok("value 7"))]
    #[case::no_number(json!({"expect": "Value", "value": {"max": 10}}), found(1, Some("alice")), Err("expected a number, but the value is none"))]
    #[case::not_a_number(json!({"expect": "Value", "value": {"max": 10}}), found(1, Some("NaN")), Err("expected a number, but the value is none"))]
    #[case::null(json!({"expect": "Value", "value": {"max": 10}}), found(1, None), Err("expected a value, but it is NULL"))]
    #[case::no_row(json!({"expect": "Value", "value": {"max": 10}}), found(0, None), Err("expected one row of one column, but there are 0 rows"))]
    fn rows_are_as_expected_or_told_without_their_data(
        #[case] sql: Value,
        #[case] found: Found,
        #[case] expected: Result<&str, &str>,
    ) {
        let told = judge(&check_of(sql), found);
        assert_eq!(told.as_deref().map_err(String::as_str), expected);
    }
}
