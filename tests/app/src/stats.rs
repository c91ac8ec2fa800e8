//! What the load client counts, and the small server that tells it while it runs.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::connection::Pool;
use crate::http::{self, Answer};
use crate::outcome::{Failure, Kind, Mode, Outcome};
use crate::stamp;

/// How many failures are told in detail: the first ones, which say what began it.
const DETAILED: usize = 200;
/// How many seconds are remembered one by one.
const SECONDS: usize = 60;
/// Latencies are counted in buckets that grow by this factor, from one microsecond.
const GROWTH: f64 = 1.05;
const BUCKETS: usize = 400;

type ByName = BTreeMap<String, u64>;

pub(crate) struct Stats {
    inner: Mutex<Inner>,
    pool: Arc<Pool>,
    outstanding: Arc<Semaphore>,
    max_outstanding: usize,
}

struct Inner {
    since: Instant,
    counts: Counts,
    seconds: VecDeque<Second>,
    latencies: Vec<u64>,
    last_success: Instant,
    longest_gap: Duration,
    /// Closed connections that were found before the last reset.
    found_closed_before: u64,
}

#[derive(Clone, Default, Serialize)]
struct Counts {
    since: String,
    answered: u64,
    new_connections: u64,
    kept_alive: u64,
    /// Of `kept_alive`, those on a connection that had answered before.
    reused: u64,
    announced_closes: u64,
    by_version: ByName,
    by_pod: ByName,
    failures_by_kind: BTreeMap<Kind, u64>,
    first_failures: Vec<Failure>,
}

/// What was answered and what failed in one second of the clock.
#[derive(Clone, Default, Serialize)]
struct Second {
    #[serde(skip)]
    at: i64,
    second: String,
    answered: u64,
    failed: u64,
    by_version: ByName,
    /// Of `by_version`, those on a connection of their own: only these are spread anew.
    by_version_new: ByName,
}

#[derive(Serialize)]
pub(crate) struct Report {
    total: u64,
    successes: u64,
    pub(crate) failures: u64,
    in_flight: usize,
    #[serde(flatten)]
    counts: Counts,
    found_closed: u64,
    longest_gap_ms: u64,
    latency_ms: Latency,
    seconds: VecDeque<Second>,
}

#[derive(Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    p99: f64,
}

#[derive(Default, Serialize)]
struct Share {
    answered: u64,
    share: f64,
    new: u64,
    new_share: f64,
}

impl Stats {
    pub(crate) fn new(pool: Arc<Pool>, outstanding: Arc<Semaphore>, max_outstanding: usize) -> Self {
        Self { inner: Mutex::new(Inner::new(0)), pool, outstanding, max_outstanding }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, outcome: Outcome) {
        self.lock().record(&outcome);
    }

    pub(crate) fn report(&self) -> Report {
        self.report_of(&self.lock())
    }

    /// Starts to count anew; returns what was counted until now.
    fn reset(&self) -> Report {
        let mut inner = self.lock();
        let report = self.report_of(&inner);
        *inner = Inner::new(self.pool.found_closed());
        report
    }

    fn report_of(&self, inner: &Inner) -> Report {
        let counts = inner.counts.clone();
        let total = counts.new_connections + counts.kept_alive;
        let failures = counts.failures_by_kind.values().sum();
        Report {
            total,
            successes: total - failures,
            failures,
            in_flight: self.max_outstanding - self.outstanding.available_permits(),
            counts,
            found_closed: self.pool.found_closed() - inner.found_closed_before,
            longest_gap_ms: millis(inner.longest_gap.max(inner.last_success.elapsed())),
            latency_ms: inner.latency(),
            seconds: inner.seconds.clone(),
        }
    }

    /// The last whole second in one line.
    pub(crate) fn progress(&self) -> String {
        let inner = self.lock();
        let last = Timestamp::now() - Duration::from_secs(1);
        let at = last.as_second();
        let second = inner.seconds.iter().find(|second| second.at == at).cloned().unwrap_or_default();
        let failures: u64 = inner.counts.failures_by_kind.values().sum();
        let shares = second
            .by_version
            .iter()
            .map(|(version, count)| format!(" {version}={count} ({}%)", (count * 100) / second.answered.max(1)));
        format!(
            "{last:.0} answered={} failed={} failed_in_all={failures}{}",
            second.answered,
            second.failed,
            shares.collect::<String>()
        )
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => http::text(StatusCode::OK, "ok\n"),
            (&Method::GET, "/report") => http::json(StatusCode::OK, &self.report()),
            (&Method::GET, "/window") => match window_seconds(request.uri().query()) {
                Ok(seconds) => http::json(StatusCode::OK, &self.lock().window(seconds)),
                Err(error) => http::json(StatusCode::BAD_REQUEST, &json!({"error": error})),
            },
            (&Method::POST, "/reset") => http::json(StatusCode::OK, &self.reset()),
            _ => http::text(StatusCode::NOT_FOUND, "GET /report, GET /window?seconds=N, POST /reset\n"),
        }
    }
}

impl Inner {
    fn new(found_closed_before: u64) -> Self {
        let now = Instant::now();
        Self {
            since: now,
            counts: Counts { since: stamp(Timestamp::now()), ..Counts::default() },
            seconds: VecDeque::new(),
            latencies: vec![0; BUCKETS],
            last_success: now,
            longest_gap: Duration::ZERO,
            found_closed_before,
        }
    }

    fn record(&mut self, outcome: &Outcome) {
        if outcome.due < self.since {
            return; // Sent before the reset: it belongs to nobody's count.
        }
        let counts = &mut self.counts;
        match outcome.mode {
            Mode::New => counts.new_connections += 1,
            Mode::KeptAlive => {
                counts.kept_alive += 1;
                counts.reused += u64::from(outcome.nth > 1);
                counts.announced_closes += u64::from(outcome.announced_close);
            }
        }
        if let Some(server) = &outcome.server {
            counts.answered += 1;
            count(&mut counts.by_version, &server.version);
            count(&mut counts.by_pod, &server.pod);
        }
        if let Some(failure) = outcome.failure() {
            *counts.failures_by_kind.entry(failure.kind).or_default() += 1;
            if counts.first_failures.is_empty() {
                println!("first failure: {}", serde_json::to_string(&failure).unwrap_or_default());
            }
            if counts.first_failures.len() < DETAILED {
                counts.first_failures.push(failure);
            }
        } else {
            self.longest_gap = self.longest_gap.max(self.last_success.elapsed());
            self.last_success = Instant::now();
            self.latencies[bucket(outcome.due.elapsed())] += 1;
        }
        self.second().record(outcome);
    }

    fn second(&mut self) -> &mut Second {
        let now = Timestamp::now();
        let at = now.as_second();
        if self.seconds.back().is_none_or(|last| last.at != at) {
            let second = format!("{now:.0}");
            self.seconds.push_back(Second { at, second, ..Second::default() });
        }
        while self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }

    fn window(&self, seconds: i64) -> serde_json::Value {
        let after = Timestamp::now().as_second() - seconds;
        let (mut failed, mut all, mut all_new) = (0, 0, 0);
        let mut by_version: BTreeMap<&str, Share> = BTreeMap::new();
        for second in self.seconds.iter().filter(|second| second.at > after) {
            failed += second.failed;
            for (version, count) in &second.by_version {
                all += count;
                by_version.entry(version).or_default().answered += count;
            }
            for (version, count) in &second.by_version_new {
                all_new += count;
                by_version.entry(version).or_default().new += count;
            }
        }
        for share in by_version.values_mut() {
            share.share = share.answered as f64 / all.max(1) as f64;
            share.new_share = share.new as f64 / all_new.max(1) as f64;
        }
        json!({"seconds": seconds, "answered": all, "failed": failed, "by_version": by_version})
    }

    fn latency(&self) -> Latency {
        let all: u64 = self.latencies.iter().sum();
        let below = |quantile: f64| {
            let rank = (all as f64 * quantile).ceil().max(1.0) as u64;
            let mut seen = 0;
            let found = self.latencies.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            let micros = found.map_or(0.0, |bucket| GROWTH.powi(bucket as i32));
            (micros / 10.0).round() / 100.0
        };
        Latency { p50: below(0.5), p95: below(0.95), p99: below(0.99) }
    }
}

impl Second {
    fn record(&mut self, outcome: &Outcome) {
        self.failed += u64::from(outcome.trouble.is_some());
        if let Some(server) = &outcome.server {
            self.answered += 1;
            count(&mut self.by_version, &server.version);
            if outcome.mode == Mode::New {
                count(&mut self.by_version_new, &server.version);
            }
        }
    }
}

/// Answers GET /report, GET /window and POST /reset, for ever.
pub(crate) async fn report_server(listener: TcpListener, stats: Arc<Stats>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let stats = stats.clone();
        let service = service_fn(move |request| {
            let stats = stats.clone();
            async move { Ok::<_, Infallible>(stats.answer(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn window_seconds(query: Option<&str>) -> Result<i64, String> {
    let value = query.map_or(Some("10"), |query| query.strip_prefix("seconds="));
    match value.and_then(|value| value.parse().ok()) {
        Some(seconds) if (1..=SECONDS as i64).contains(&seconds) => Ok(seconds),
        _ => Err(format!("write ?seconds=N with N from 1 to {SECONDS}")),
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = (latency.as_micros() as f64).max(1.0);
    ((micros.ln() / GROWTH.ln()).ceil() as usize).min(BUCKETS - 1)
}

fn count(counts: &mut ByName, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_five_percent() {
        let mut inner = Inner::new(0);
        inner.latencies[bucket(Duration::from_millis(1))] = 98;
        inner.latencies[bucket(Duration::from_millis(200))] = 2;
        let latency = inner.latency();
        assert!((1.0..1.06).contains(&latency.p50), "{}", latency.p50);
        assert!((1.0..1.06).contains(&latency.p95), "{}", latency.p95);
        assert!((200.0..211.0).contains(&latency.p99), "{}", latency.p99);
    }

    #[test]
    fn a_window_has_the_shares_of_its_seconds_only() {
        let mut inner = Inner::new(0);
        let now = Timestamp::now().as_second();
        for (at, version, answered) in [(now - 30, "v1", 70), (now, "v1", 30), (now, "v2", 10)] {
            let by_version = ByName::from([(version.to_owned(), answered)]);
            inner.seconds.push_back(Second { at, by_version, failed: 1, ..Second::default() });
        }
        let window = inner.window(10);
        assert_eq!(window["answered"], 40);
        assert_eq!(window["failed"], 2);
        assert_eq!(window["by_version"]["v1"]["share"], 0.75);
        assert_eq!(window["by_version"]["v2"]["share"], 0.25);
    }

    #[test]
    fn what_was_due_before_a_reset_is_not_counted_after_it() {
        let early = Outcome::start(Mode::New, Instant::now());
        let mut inner = Inner::new(0);
        inner.record(&early);
        assert_eq!(inner.counts.new_connections, 0);
        inner.record(&Outcome::start(Mode::New, Instant::now()));
        assert_eq!(inner.counts.new_connections, 1);
    }

    #[test]
    fn a_minute_is_remembered_and_no_more() {
        let mut inner = Inner::new(0);
        for at in 0..1000 {
            inner.seconds.push_back(Second { at, ..Second::default() });
        }
        inner.second();
        assert_eq!(inner.seconds.len(), SECONDS);
    }
}
