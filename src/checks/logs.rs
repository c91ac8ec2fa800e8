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
const MOST: i64 = 8 << 20;

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
        Ok(Ok(lines)) => {
            let most = question.logs.max;
            let many = usize::try_from(most).is_ok_and(|most| lines > most);
            let what =
                || format!("{lines} lines match {}, max {most}", api::status::bounded(&question.logs.pattern, 80));
            many.then(what)
        }
    };
    Reply::Check { fault, seen, took: api::Duration::from_millis(took) }
}

async fn count(client: &Client, question: &LogsQuestion) -> Result<usize, String> {
    let pattern = compile(&question.logs.pattern)?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &question.namespace);
    let params = LogParams {
        container: question.logs.container.clone(),
        limit_bytes: Some(MOST),
        since_time: Some(question.since.inner()),
        // sinceTime knows seconds only.
        timestamps: true,
        ..LogParams::default()
    };
    let mut lines = 0;
    for pod in &question.pods {
        match api.logs(pod, &params).await {
            Ok(log) => lines += matching(&log, question.since, &pattern),
            // A pod that is gone, or has not begun, has said nothing.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(kube::Error::Api(status)) if status.code == 400 && status.message.contains("waiting to start") => {}
            Err(kube::Error::Api(status)) => return Err(format!("log of pod {pod}: {}", status.message)),
            Err(error) => return Err(format!("log of pod {pod}: {error}")),
        }
    }
    Ok(lines)
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

    #[test]
    fn what_is_no_pattern_is_told() {
        assert_eq!(compile("(").unwrap_err(), "no regular expression: unclosed group");
    }
}
