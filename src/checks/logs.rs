//! Counts lines of pods' logs. No line is kept or told: what stands in it may be secret.

use std::time::{Duration, Instant};

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::LogParams};
use regex::Regex;

use crate::{
    api::{self, LogsCheck, Timestamp},
    engine::{LogOfPod, LogsQuestion, Reply},
};

/// How much of a pod's log is read at once, in bytes.
const MOST: i64 = 4 << 20;
/// How much of a line is looked at, in bytes; the rest of a longer one has no say.
const LONGEST_LINE: usize = 64 << 10;
/// How large a compiled pattern may be, in bytes: with what some need most a line of [`LONGEST_LINE`] takes seconds.
const MOST_PATTERN: usize = 512 << 10;

/// After what time a log that could not be read is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

/// Into so many parts the time for logs of several pods is divided: one of them is as long as an answer may take.
const SHARE: u32 = 4;

/// How long a look at logs goes on, and up to when.
#[derive(Clone, Copy)]
struct Look {
    /// How long the pattern may take with what is read at once.
    limit: Duration,
    /// Lines that were written after this are for the next look, which begins here.
    end: jiff::Timestamp,
}

/// What came of a look so far.
#[derive(Default)]
struct Tally {
    /// Lines that match, in the logs that were read to their end.
    lines: usize,
    /// Why the last log that could not be read could not.
    lack: Option<String>,
}

/// Why a log was not looked through.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    /// The check, or what the log is like.
    Fault(String),
    /// The API server, or a kubelet, does not give it: that says nothing of who wrote it, and may be over a moment later.
    Unread(String),
}

/// Counts the lines that match and were written until that moment, in the logs of all pods together.
pub async fn ask(client: &Client, question: &LogsQuestion, end: Timestamp) -> Reply {
    let started = Instant::now();
    let limit = Duration::from_millis(question.timeout.as_millis());
    let look = Look { limit: limit / 2, end: end.inner() };
    let mut tally = Tally::default();
    let counted = tokio::time::timeout(limit, count(client, question, look, &mut tally)).await;
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let pods = question.pods.len();
    let logs = format!("logs of {pods} pods in {took}ms");
    let (fault, seen) = match counted {
        // Of a part of the lines there may be too many already.
        Err(_) if !question.logs.is_exceeded(lines(tally.lines)) => {
            let why = tally.lack.map(|why| format!(": {why}")).unwrap_or_default();
            return Reply::Unread(format!("no answer within {}{why}", question.timeout));
        }
        Ok(Err(fault)) => (Some(fault), logs),
        Err(_) | Ok(Ok(())) => told(&question.logs, tally.lines, logs),
    };
    Reply::Check { fault, seen, took: api::Duration::from_millis(took) }
}

fn lines(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a number of lines has against it, and what was seen: where nothing is wrong the number, beside its limits.
fn told(check: &LogsCheck, lines: usize, logs: String) -> (Option<String>, String) {
    let lines = self::lines(lines);
    match check.fault(lines) {
        None => (None, format!("{}, {logs}", check.found(lines))),
        fault => (fault, logs),
    }
}

/// Counts the lines of the beginning of a log where it holds up no other task: until when it goes, and whether there is
/// more of it.
async fn looked_through(
    log: String,
    since: jiff::Timestamp,
    pattern: &Regex,
    look: Look,
) -> Result<(usize, jiff::Timestamp, bool), String> {
    let pattern = pattern.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let (counted, rest) = page(&log, since, &pattern, MOST, look)?;
        let end = rest.or_else(|| last(&log)).map_or(since, |last| last.max(since));
        Ok((counted, end, rest.is_some_and(|rest| rest <= look.end)))
    });
    looking.await.unwrap_or_else(|_| Err("the log cannot be looked through".into()))
}

/// Reads one log after the other, those that cannot be read again and again, until whoever asks has waited long enough.
async fn count(client: &Client, question: &LogsQuestion, look: Look, tally: &mut Tally) -> Result<(), String> {
    let pattern = compile(&question.logs.pattern)?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &question.namespace);
    let mut open: Vec<&LogOfPod> = question.pods.iter().collect();
    loop {
        let mut unread = Vec::new();
        for pod in open {
            match count_of_pod(&api, pod, question, &pattern, look).await {
                Ok(lines) => tally.lines += lines,
                Err(Trouble::Fault(fault)) => return Err(fault),
                Err(Trouble::Unread(why)) => {
                    tally.lack = Some(why);
                    unread.push(pod);
                }
            }
        }
        if unread.is_empty() {
            return Ok(());
        }
        open = unread;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn count_of_pod(
    api: &Api<Pod>,
    pod: &LogOfPod,
    question: &LogsQuestion,
    pattern: &Regex,
    look: Look,
) -> Result<usize, Trouble> {
    let (mut lines, mut since) = (0, question.since.inner());
    // What stands in both logs (until the container runs again, they are the same one) counts once: the later one is
    // read from the end of the earlier one on. Of several restarts since the last look the kubelet keeps one log.
    for previous in [true, false].into_iter().filter(|previous| pod.restarted || !previous) {
        while let Some(log) = read(api, pod, previous, question, since).await? {
            let (counted, end, more) = looked_through(log, since, pattern, look).await.map_err(Trouble::Fault)?;
            (lines, since) = (lines + counted, end);
            if !more {
                break;
            }
        }
    }
    Ok(lines)
}

/// The beginning of a pod's log, or of that before its container's last restart, from a time on, at most [`MOST`] bytes;
/// none if there is none.
async fn read(
    api: &Api<Pod>,
    pod: &LogOfPod,
    previous: bool,
    question: &LogsQuestion,
    since: jiff::Timestamp,
) -> Result<Option<String>, Trouble> {
    let pod = &pod.name;
    let params = LogParams {
        container: question.logs.container.clone(),
        previous,
        limit_bytes: Some(MOST),
        since_time: Some(since),
        // sinceTime knows seconds only.
        timestamps: true,
        ..LogParams::default()
    };
    // A kubelet that does not answer at all leaves time for the others.
    let parts = if question.pods.len() > 1 { SHARE } else { 1 };
    let limit = Duration::from_millis(question.timeout.as_millis()) / parts;
    let status = match tokio::time::timeout(limit, text(api, pod, &params)).await {
        Ok(Ok(log)) => return Ok(Some(log)),
        Ok(Err(kube::Error::Api(status))) => status,
        Ok(Err(error)) => return Err(Trouble::Unread(format!("log of pod {pod}: {error}"))),
        Err(_) => return Err(Trouble::Unread(format!("log of pod {pod}: its node does not answer"))),
    };
    let told = format!("log of pod {pod}: {}", status.message);
    let says = |text: &str| status.message.contains(text);
    match status.code {
        // A pod that is gone has said nothing. A kubelet that has just begun knows none of its pods yet: that is its own 404.
        404 if status.details.as_ref().is_some_and(|details| details.kind == "pods") => Ok(None),
        // Nor has one that has not begun.
        400 if says("waiting to start") || says("does not have a host assigned") => Ok(None),
        // The kubelet has removed it.
        400 if previous => Ok(None),
        // The API server's word of a container that the pod does not have.
        400 if says("is not valid for pod") => Err(Trouble::Fault(told)),
        _ => Err(Trouble::Unread(told)),
    }
}

/// A log as text. Containers write what they like, and the API server cuts a log off after a number of bytes, also in the
/// middle of a letter.
async fn text(api: &Api<Pod>, pod: &str, params: &LogParams) -> kube::Result<String> {
    let mut bytes = Vec::new();
    let mut log = std::pin::pin!(api.log_stream(pod, params).await?);
    log.read_to_end(&mut bytes).await.map_err(|error| kube::Error::Service(error.into()))?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Counts the lines of the beginning of a log, and says from when on the rest is to be read if the API server has cut it
/// off after so many bytes.
fn page(
    log: &str,
    since: jiff::Timestamp,
    pattern: &Regex,
    most: i64,
    look: Look,
) -> Result<(usize, Option<jiff::Timestamp>), String> {
    let count = |log: &str| matching(log, Timestamp::new(since), pattern, look);
    if i64::try_from(log.len()).is_ok_and(|length| length < most) {
        return Ok((count(log)?, None));
    }
    // The last line may be half of one.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let rest = last(whole).filter(|last| *last > since);
    let rest =
        rest.ok_or_else(|| format!("more than {} MiB of log in a second: too much to be looked at", most >> 20))?;
    Ok((count(whole)?, Some(rest)))
}

/// When the last line of a log was written.
fn last(log: &str) -> Option<jiff::Timestamp> {
    log.lines().rev().find_map(|line| line.split_once(' ')?.0.parse().ok())
}

/// Whether a pattern is one, or what is wrong with it.
///
/// # Errors
/// What is wrong, in a line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(pattern).size_limit(MOST_PATTERN).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim();
        format!("no regular expression: {}", last.trim_start_matches("error: "))
    })
}

/// How many lines match, before it is too late.
fn matching(log: &str, since: Timestamp, pattern: &Regex, look: Look) -> Result<usize, String> {
    let newer = |line| {
        let (time, text) = str::split_once(line, ' ').unwrap_or((line, ""));
        time.parse::<jiff::Timestamp>().is_ok_and(|time| time > since.inner() && time <= look.end).then_some(text)
    };
    let (mut lines, began) = (0, Instant::now());
    for text in log.lines().filter_map(newer) {
        if began.elapsed() >= look.limit {
            return Err("pattern takes too long with so much log: make it simpler, or timeout longer".into());
        }
        lines += usize::from(pattern.is_match(&text[..text.floor_char_boundary(LONGEST_LINE)]));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Look {
        Look { limit: Duration::from_secs(600), end: jiff::Timestamp::MAX }
    }

    #[test]
    fn a_log_is_not_looked_at_longer_than_the_check_may() {
        let line = "2026-01-01T00:00:01Z error\n";
        let found = matching(
            line,
            Timestamp::from_millis(0),
            &compile("error").unwrap(),
            Look { limit: Duration::ZERO, ..later() },
        );
        assert!(found.unwrap_err().starts_with("pattern takes too long"));
        assert!(compile("[01]{50000}").is_err(), "a pattern of any size");
        // Of a long line the beginning counts, up to a whole letter.
        let pattern = compile("error").unwrap();
        let found = |before: usize| {
            let line = format!("2026-01-01T00:00:01Z {}error\n", "ä".repeat(before));
            matching(&line, Timestamp::from_millis(0), &pattern, later())
        };
        assert_eq!((found(1000), found(LONGEST_LINE)), (Ok(1), Ok(0)));
    }

    #[test]
    fn a_number_of_lines_is_told_beside_its_limits_whatever_it_is() {
        let told = |check: &str, lines| {
            let (fault, seen) =
                super::told(&serde_json::from_str(check).unwrap(), lines, "logs of 2 pods in 5ms".into());
            fault.map_or(seen.clone(), |fault| format!("{fault} ({seen})"))
        };
        let pattern = format!("error{}", "|panic".repeat(100));
        let long = told(&format!("{{\"pattern\": \"{pattern}\"}}"), 0);
        assert!(long.starts_with("0 lines match error|panic") && long.len() < 160, "{long}");
        assert_eq!(told(r#"{"pattern": "error"}"#, 0), "0 lines match error, max 0, logs of 2 pods in 5ms");
        assert_eq!(told(r#"{"pattern": "error"}"#, 1), "1 lines match error, max 0 (logs of 2 pods in 5ms)");
        assert_eq!(told(r#"{"pattern": "up", "min": 1}"#, 3), "3 lines match up, min 1, logs of 2 pods in 5ms");
        let both = r#"{"pattern": "up", "min": 1, "max": 4}"#;
        assert_eq!(told(both, 3), "3 lines match up, min 1, max 4, logs of 2 pods in 5ms");
        assert_eq!(told(both, 5), "5 lines match up, max 4 (logs of 2 pods in 5ms)");
    }

    #[test]
    fn lines_count_from_a_time_on() {
        let log = "2026-01-01T00:00:00.5Z ERROR before\n2026-01-01T00:00:01.25Z ERROR then\n\
                   2026-01-01T00:00:01.250000001Z an Error after\n2026-01-01T00:00:02Z fine\nnonsense error\n";
        let since = Timestamp::new("2026-01-01T00:00:01.25Z".parse().unwrap());
        let pattern = compile("(?i)error").unwrap();
        assert_eq!(matching(log, since, &pattern, later()), Ok(1));
        assert_eq!(matching(log, Timestamp::from_millis(0), &pattern, later()), Ok(3));
    }

    /// What is written while one look goes on is seen by it and by the next one: each line counts in one of them.
    #[test]
    fn a_line_counts_in_one_look() {
        let line = |millis: u32| format!("2026-01-01T00:00:01.{millis:03}Z an error\n");
        let log: String = (0..10).map(line).collect();
        let pattern = compile("error").unwrap();
        let at = |millis: i64| {
            let began: jiff::Timestamp = "2026-01-01T00:00:01Z".parse().unwrap();
            Timestamp::from_millis(began.as_millisecond() + millis)
        };
        let look = |since: i64, end: i64| {
            matching(&log, at(since), &pattern, Look { end: at(end).inner(), ..later() }).unwrap()
        };
        assert_eq!((look(-1, 3), look(3, 4), look(4, 100)), (4, 1, 5));
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

    /// A container that crashed with a word and was started again; until then both logs are the same one.
    #[rstest::rstest]
    #[case::it_runs_again(true, "", "2026-01-01T00:00:07Z error again\n", 2)]
    #[case::it_waits_to_be_started(
        true,
        "",
        "2026-01-01T00:00:04Z error before\n2026-01-01T00:00:05Z error at the end\n",
        1
    )]
    #[case::nobody_has_looked_since(false, "", "2026-01-01T00:00:07Z error again\n", 1)]
    #[case::it_is_gone(true, "previous terminated container \"app\" in pod \"shop-1\" not found", "", 0)]
    #[tokio::test]
    async fn what_was_said_before_a_crash_counts_once(
        #[case] restarted: bool,
        #[case] refused: &'static str,
        #[case] now: &'static str,
        #[case] expected: usize,
    ) {
        use kube::client::Body;
        let before = "2026-01-01T00:00:04Z error before\n2026-01-01T00:00:05Z error at the end\n";
        let (service, mut handle) = tower_test::mock::pair::<http::Request<Body>, http::Response<Body>>();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some((request, respond)) = handle.next_request().await {
                let query = request.uri().query().unwrap_or_default().to_owned();
                let previous = query.contains("previous=true");
                let (code, text) = match previous && !refused.is_empty() {
                    true => {
                        (400, serde_json::json!({"code": 400, "message": refused, "status": "Failure"}).to_string())
                    }
                    false => (200, if previous { before } else { now }.to_owned()),
                };
                asked.push(previous);
                respond
                    .send_response(http::Response::builder().status(code).body(Body::from(text.into_bytes())).unwrap());
            }
            asked
        });
        let question = LogsQuestion {
            namespace: "shop".into(),
            pods: vec![LogOfPod { name: "shop-1".into(), restarted }],
            logs: serde_json::from_value(serde_json::json!({"pattern": "error", "container": "app"})).unwrap(),
            since: Timestamp::new("2026-01-01T00:00:04.5Z".parse().unwrap()),
            timeout: api::Duration::from_secs(5),
        };
        let client = Client::new(service, "shop");
        let mut tally = Tally::default();
        assert_eq!(count(&client, &question, later(), &mut tally).await, Ok(()));
        assert_eq!((tally.lines, tally.lack), (expected, None));
        drop(client);
        assert_eq!(server.await.unwrap(), if restarted { vec![true, false] } else { vec![false] });
    }

    fn question(pods: &[&str], check: serde_json::Value) -> LogsQuestion {
        LogsQuestion {
            namespace: "shop".into(),
            pods: pods.iter().map(|name| LogOfPod { name: (*name).into(), restarted: false }).collect(),
            logs: serde_json::from_value(check).unwrap(),
            since: Timestamp::new("2026-01-01T00:00:00Z".parse().unwrap()),
            timeout: api::Duration::from_secs(1),
        }
    }

    /// An API server that gives logs of pods called bad and good, of nobody else's; `silent` is never answered.
    async fn asked(question: &LogsQuestion, code: u16) -> Reply {
        use kube::client::Body;
        let (service, mut handle) = tower_test::mock::pair::<http::Request<Body>, http::Response<Body>>();
        let server = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Some((request, respond)) = handle.next_request().await {
                let (code, text) = match request.uri().path().split('/').nth(6) {
                    Some("silent") => {
                        held.push(respond);
                        continue;
                    }
                    Some("bad") => (200, b"2026-01-01T00:00:07Z error\n".to_vec()),
                    Some("good") => (200, Vec::new()),
                    // Latin-1, which is no UTF-8.
                    Some("bytes") => (200, b"2026-01-01T00:00:07Z error \xe4\n".to_vec()),
                    other => {
                        let (message, kind) = match other.unwrap_or_default() {
                            "gone" => ("pods \"gone\" not found", "pods"),
                            "unknown" => ("pod \"unknown\" does not exist", "pods/log"),
                            "unbound" => ("pod unbound does not have a host assigned", "pods"),
                            "begins" => {
                                ("container \"app\" in pod \"begins\" is waiting to start: ContainerCreating", "pods")
                            }
                            "bound" => ("container \"app\" in pod \"bound\" is not available", "pods"),
                            "other" => ("container sidecar is not valid for pod other", "pods"),
                            _ => ("dial tcp 10.0.0.5:10250: connect: connection refused", "pods"),
                        };
                        let details = serde_json::json!({"kind": kind});
                        let status = serde_json::json!({"code": code, "message": message, "status": "Failure", "details": details});
                        (code, status.to_string().into_bytes())
                    }
                };
                respond.send_response(http::Response::builder().status(code).body(Body::from(text)).unwrap());
            }
        });
        let end = Timestamp::new("2026-01-01T00:01:00Z".parse().unwrap());
        let reply = ask(&Client::new(service, "shop"), question, end).await;
        server.abort();
        reply
    }

    const REFUSED: &str = "no answer within 1s: log of pod lost: dial tcp 10.0.0.5:10250: connect: connection refused";
    const SILENT: &str = "no answer within 1s: log of pod silent: its node does not answer";

    #[rstest::rstest]
    #[case::its_node_refuses(&["lost"], 502, Err(REFUSED))]
    #[case::the_api_server_has_no_time(&["lost", "good"], 429, Err(REFUSED))]
    #[case::its_node_is_silent(&["silent", "good"], 0, Err(SILENT))]
    #[case::too_many_lines_are_too_many(&["silent", "lost", "bad"], 500, Ok("1 lines match error, max 0"))]
    #[case::there_is_no_such_container(&["other"], 400, Ok("log of pod other: container sidecar is not valid for pod other"))]
    #[case::its_node_does_not_know_it_yet(&["unknown", "good"], 404, Err("no answer within 1s: log of pod unknown: pod \"unknown\" does not exist"))]
    #[case::its_containers_are_not_known_yet(&["bound"], 400, Err("no answer within 1s: log of pod bound: container \"app\" in pod \"bound\" is not available"))]
    #[case::it_is_gone(&["gone", "bad"], 404, Ok("1 lines match error, max 0"))]
    #[case::it_has_no_node(&["unbound", "bad"], 400, Ok("1 lines match error, max 0"))]
    #[case::it_has_not_begun(&["begins", "bad"], 400, Ok("1 lines match error, max 0"))]
    #[case::it_writes_what_is_no_text(&["bytes"], 200, Ok("1 lines match error, max 0"))]
    #[tokio::test]
    async fn a_log_that_nobody_gives_says_nothing_of_the_candidate(
        #[case] pods: &[&str],
        #[case] code: u16,
        #[case] expected: Result<&str, &str>,
    ) {
        let reply = asked(&question(pods, serde_json::json!({"pattern": "error"})), code).await;
        let told = match &reply {
            Reply::Check { fault: Some(fault), .. } => Ok(fault.as_str()),
            Reply::Unread(why) => Err(why.as_str()),
            other => panic!("{other:?}"),
        };
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn too_few_lines_of_some_pods_are_no_word_of_all() {
        let reply = asked(&question(&["bad", "lost"], serde_json::json!({"pattern": "error", "min": 2})), 502).await;
        assert_eq!(reply, Reply::Unread(REFUSED.into()));
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
                let (counted, rest) =
                    page(&log(since, most), since, &pattern, i64::try_from(most).unwrap(), later()).unwrap();
                (lines, pages) = (lines + counted, pages + 1);
                let Some(rest) = rest else { break };
                since = rest;
            }
            assert_eq!((lines, pages > 1), (40, most < 5000), "{most}");
        }
        let short = log("2026-01-01T00:00:00Z".parse().unwrap(), 20);
        let found = page(&short, "2026-01-01T00:00:00Z".parse().unwrap(), &pattern, 20, later());
        assert_eq!(found, Err("more than 0 MiB of log in a second: too much to be looked at".into()));
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        assert_eq!(compile("(").unwrap_err(), "no regular expression: unclosed group");
    }
}
