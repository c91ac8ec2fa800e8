//! Counts lines of pods' logs. No line is kept or told: what stands in it may be secret.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::LogParams};
use regex::Regex;

use crate::{
    api::{self, Timestamp},
    engine::{LogsQuestion, Reply},
};

/// How much of a pod's log is read at once, in bytes.
const MOST: i64 = 4 << 20;

/// Counts the lines that match, in the logs of all pods together.
pub async fn ask(client: &Client, question: &LogsQuestion) -> Reply {
    let started = Instant::now();
    let limit = Duration::from_millis(question.timeout.as_millis());
    let counted = tokio::time::timeout(limit, count(client, question)).await;
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let pods = question.pods.len();
    let seen = format!("logs of {pods} pods in {took}ms");
    let fault = match counted {
        Err(_) => Some(format!("no answer within {}", question.timeout)),
        Ok(Err(fault)) => Some(fault),
        Ok(Ok(lines)) => question.logs.fault(i64::try_from(lines).unwrap_or(i64::MAX)),
    };
    Reply::Check { fault, seen, took: api::Duration::from_millis(took) }
}

async fn count(client: &Client, question: &LogsQuestion) -> Result<usize, String> {
    let pattern = compile(&question.logs.pattern)?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &question.namespace);
    let mut lines = 0;
    for pod in &question.pods {
        let mut since = question.since.inner();
        while let Some(log) = read(&api, pod, question, since).await? {
            let (counted, rest) = page(&log, since, &pattern, MOST)?;
            lines += counted;
            let Some(rest) = rest else { break };
            since = rest;
        }
    }
    Ok(lines)
}

/// The beginning of a pod's log from a time on, at most [`MOST`] bytes; none if the pod has said nothing.
async fn read(
    api: &Api<Pod>,
    pod: &str,
    question: &LogsQuestion,
    since: jiff::Timestamp,
) -> Result<Option<String>, String> {
    let params = LogParams {
        container: question.logs.container.clone(),
        limit_bytes: Some(MOST),
        since_time: Some(since),
        // sinceTime knows seconds only.
        timestamps: true,
        ..LogParams::default()
    };
    match api.logs(pod, &params).await {
        Ok(log) => Ok(Some(log)),
        // A pod that is gone, or has not begun, has said nothing.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 400 && status.message.contains("waiting to start") => Ok(None),
        Err(kube::Error::Api(status)) => Err(format!("log of pod {pod}: {}", status.message)),
        Err(error) => Err(format!("log of pod {pod}: {error}")),
    }
}

/// Counts the lines of the beginning of a log, and says from when on the rest is to be read if the API server has cut it
/// off after so many bytes.
fn page(
    log: &str,
    since: jiff::Timestamp,
    pattern: &Regex,
    most: i64,
) -> Result<(usize, Option<jiff::Timestamp>), String> {
    let count = |log: &str| matching(log, Timestamp::new(since), pattern);
    if i64::try_from(log.len()).is_ok_and(|length| length < most) {
        return Ok((count(log), None));
    }
    // The last line may be half of one.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let last = whole.lines().rev().find_map(|line| line.split_once(' ')?.0.parse().ok());
    let rest = last.filter(|last| *last > since);
    let rest =
        rest.ok_or_else(|| format!("more than {} MiB of log in a second: too much to be looked at", most >> 20))?;
    Ok((count(whole), Some(rest)))
}

/// Whether a pattern is one, or what is wrong with it.
///
/// # Errors
/// What is wrong, in a line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim();
        format!("no regular expression: {}", last.trim_start_matches("error: "))
    })
}

fn matching(log: &str, since: Timestamp, pattern: &Regex) -> usize {
    let newer = |line: &&str| {
        let (time, text) = line.split_once(' ').unwrap_or((line, ""));
        let later = time.parse::<jiff::Timestamp>().is_ok_and(|time| time > since.inner());
        later && pattern.is_match(text)
    };
    log.lines().filter(newer).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_a_time_on() {
        let log = "2026-01-01T00:00:00.5Z ERROR before\n2026-01-01T00:00:01.25Z ERROR then\n\
                   2026-01-01T00:00:01.250000001Z an Error after\n2026-01-01T00:00:02Z fine\nnonsense error\n";
        let since = Timestamp::new("2026-01-01T00:00:01.25Z".parse().unwrap());
        assert_eq!(matching(log, since, &compile("(?i)error").unwrap()), 1);
        assert_eq!(matching(log, Timestamp::from_millis(0), &compile("(?i)error").unwrap()), 3);
    }

    #[rstest::rstest]
    #[case::none(serde_json::json!({}), 0, None)]
    #[case::one(serde_json::json!({}), 1, Some("1 lines match (?i)x, max 0"))]
    #[case::within(serde_json::json!({"max": 3}), 3, None)]
    #[case::it_has_to_be_there(serde_json::json!({"min": 1}), 0, Some("0 lines match (?i)x, min 1"))]
    #[case::often(serde_json::json!({"min": 1}), 1_000_000, None)]
    #[case::both(serde_json::json!({"min": 1, "max": 2}), 3, Some("3 lines match (?i)x, max 2"))]
    fn lines_have_limits(#[case] limits: serde_json::Value, #[case] lines: i64, #[case] fault: Option<&str>) {
        let mut logs = serde_json::json!({"pattern": "(?i)x"});
        logs.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let logs: api::LogsCheck = serde_json::from_value(logs).unwrap();
        assert_eq!(logs.fault(lines).as_deref(), fault);
    }

    /// As the API server cuts it, by whole seconds and after so many bytes.
    #[test]
    fn a_long_log_is_read_in_pages() {
        let line = |second: usize| format!("2026-01-01T00:00:{second:02}.5Z an error in the middle of a line\n");
        let all: Vec<String> = (0..40).map(line).collect();
        let log = |since: jiff::Timestamp, most: usize| {
            let from = since.as_second() - "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second();
            let mut log = all[usize::try_from(from).unwrap()..].concat();
            log.truncate(most);
            log
        };
        let pattern = compile("error").unwrap();
        for most in [130, 200, 500, 5000] {
            let (mut since, mut lines, mut pages) = ("2026-01-01T00:00:00Z".parse().unwrap(), 0, 0);
            loop {
                let (counted, rest) = page(&log(since, most), since, &pattern, i64::try_from(most).unwrap()).unwrap();
                (lines, pages) = (lines + counted, pages + 1);
                let Some(rest) = rest else { break };
                since = rest;
            }
            assert_eq!((lines, pages > 1), (40, most < 5000), "{most}");
        }
        let short = log("2026-01-01T00:00:00Z".parse().unwrap(), 20);
        let found = page(&short, "2026-01-01T00:00:00Z".parse().unwrap(), &pattern, 20);
        assert_eq!(found, Err("more than 0 MiB of log in a second: too much to be looked at".into()));
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        assert_eq!(compile("(").unwrap_err(), "no regular expression: unclosed group");
    }
}
