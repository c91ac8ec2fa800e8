//! The rules of `spec.checks`.

use crate::api::{Check, Duration, ExpectedRows, ExpectedValue, SqlExpect};

use super::{Violation, violation};

/// What is wrong with a check.
pub fn check((index, check): (usize, &Check)) -> Vec<Violation> {
    let at = |field: &str| format!("spec.checks[{index}]{field}");
    let mut found = Vec::new();
    if check.attempts.is_some() && check.success_threshold.is_some() {
        found.push(violation(at(""), "a check has attempts or successThreshold, not both"));
    }
    if check.interval < Duration::from_millis(100) {
        found.push(violation(at(".interval"), "interval must be at least 100ms"));
    }
    if check.every.is_some_and(|every| every < Duration::from_secs(1)) {
        found.push(violation(at(".every"), "every must be at least 1s"));
    }
    if check.timeout.is_some_and(|timeout| timeout > check.longest_timeout()) {
        let message = "timeout of http and logs is at most 60s, of job, keys and sql 24h";
        found.push(violation(at(".timeout"), message));
    }
    if check.logs.as_ref().is_some_and(|logs| logs.max.is_some_and(|max| logs.min > max)) {
        found.push(violation(at(".logs"), "logs.min must not be above logs.max"));
    }
    if let Some(http) = check.http.as_ref().filter(|http| http.host.is_some())
        && http.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        let message = "beside host a Host header is not sent: the platform allows hosts by their names";
        found.push(violation(at(".http"), message));
    }
    let sources =
        [check.http.is_some(), check.job.is_some(), !check.keys.is_empty(), check.logs.is_some(), check.sql.is_some()];
    if sources.into_iter().filter(|there| *there).count() != 1 {
        found.push(violation(at(""), "exactly one of http, job, keys, logs and sql is needed"));
    }
    if let Some(sql) = &check.sql {
        found.extend(expectation(sql.expect, sql.value.as_ref(), sql.rows, &at(".sql")));
    }
    for (place, source) in check.keys.iter().enumerate() {
        if source.secret.is_some() == source.config_map.is_some() {
            found.push(violation(at(&format!(".keys[{place}]")), "exactly one of secret and configMap is needed"));
        }
    }
    found
}

/// What is wrong with what is expected of rows.
pub fn expectation(
    expect: SqlExpect,
    value: Option<&ExpectedValue>,
    rows: Option<ExpectedRows>,
    at: &str,
) -> Vec<Violation> {
    let mut found = Vec::new();
    if value.is_some() != (expect == SqlExpect::Value) {
        found.push(violation(at, "expect: Value and value go together"));
    }
    if rows.is_some() != (expect == SqlExpect::Rows) {
        found.push(violation(at, "expect: Rows and rows go together"));
    }
    if value.is_some_and(|it| it.equals.is_none() && it.min.is_none() && it.max.is_none()) {
        found.push(violation(format!("{at}.value"), "value has equals, min or max"));
    }
    if rows.is_some_and(|it| it.min.is_none() && it.max.is_none()) {
        found.push(violation(format!("{at}.rows"), "rows has min, max or both"));
    }
    found
}
