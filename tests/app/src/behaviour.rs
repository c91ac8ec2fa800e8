//! How the served version behaves: what its manifest says, and what is changed at run time.
//! All fields are off by default, so that a manifest names exactly what is broken.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as as_text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{duration, fraction, stamp};

/// How often, and by how much, memory grows towards `allocate_mib`: 64 MiB per second, slow
/// enough for the pod to become ready and get traffic before the kernel kills it.
const GROW_EVERY: Duration = Duration::from_millis(125);
const GROW_MIB: usize = 8;
/// In each such time the burner works for its share, and rests.
const BURN_EVERY: Duration = Duration::from_millis(100);
/// The status codes that an answer may have.
const CODES: RangeInclusive<i64> = 200..=599;

#[derive(Clone, Debug, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Behaviour {
    /// /readyz answers 503 for ever.
    #[arg(long, env = "NEVER_READY")]
    pub(crate) never_ready: bool,
    /// /readyz answers 503 for this long after the start.
    #[arg(long, env = "READY_AFTER", value_parser = duration, default_value = "0s")]
    #[serde(with = "as_text")]
    pub(crate) ready_after: Duration,
    /// Exit with code 3 at the first request after so many.
    #[arg(long, env = "CRASH_AFTER_REQUESTS")]
    pub(crate) crash_after_requests: Option<u64>,
    /// Hold so much memory, to be killed for it.
    #[arg(long, env = "ALLOCATE_MIB", default_value_t = 0)]
    pub(crate) allocate_mib: usize,
    /// Spend so many thousandths of a CPU on nothing.
    #[arg(long, env = "BURN_MILLICPU", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) burn_millicpu: u16,
    /// Answer every request with 503, Retry-After and a page.
    #[arg(long, env = "MAINTENANCE_PAGE")]
    #[serde(default)]
    pub(crate) maintenance_page: bool,
    /// Share of the requests to answer with 500, evenly spread.
    #[arg(long, env = "ERROR_RATE", value_parser = fraction, default_value = "0")]
    pub(crate) error_rate: f64,
    /// Wait so long before each answer.
    #[arg(long, env = "LATENCY", value_parser = duration, default_value = "0s")]
    #[serde(with = "as_text")]
    pub(crate) latency: Duration,
    /// What /health says of the whole.
    #[arg(long, env = "HEALTH_STATUS", default_value = "healthy")]
    pub(crate) health_status: String,
    /// What /health says of the database.
    #[arg(long, env = "HEALTH_DATABASE", default_value = "connected")]
    pub(crate) health_database: String,
    /// What /health says of Redis.
    #[arg(long, env = "HEALTH_REDIS", default_value = "connected")]
    pub(crate) health_redis: String,
    /// What /health says of the payment provider.
    #[arg(long, env = "HEALTH_STRIPE", default_value = "connected")]
    pub(crate) health_stripe: String,
    /// The status code of /health.
    #[arg(long, env = "HEALTH_CODE", default_value_t = 200, value_parser = clap::value_parser!(u16).range(CODES))]
    pub(crate) health_code: u16,
    /// Connections in use of its (pretended) database pool of 20.
    #[arg(long, env = "POOL_ACTIVE", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=20))]
    pub(crate) pool_active: u8,
    /// /api/private asks for no Authorization header.
    #[arg(long, env = "PRIVATE_OPEN")]
    pub(crate) private_open: bool,
    /// POST to anything under /api/ answers that it has no success.
    #[arg(long, env = "QUOTE_FAILS")]
    pub(crate) quote_fails: bool,
    /// Paths, separated by commas, that are answered with 500: `PATH`, or `PATH@5` for every fifth request to it, `PATH@2+`
    /// from the second on, `PATH@k6` for clients that have this in their User-Agent.
    #[arg(long, env = "FAILING_PATHS", default_value = "")]
    pub(crate) failing_paths: String,
    /// The same for paths that are answered with 200 and a body that tells of no success.
    #[arg(long, env = "UNSUCCESSFUL_PATHS", default_value = "")]
    pub(crate) unsuccessful_paths: String,
    /// The same for paths that are answered after SLOW_FOR.
    #[arg(long, env = "SLOW_PATHS", default_value = "")]
    pub(crate) slow_paths: String,
    /// See SLOW_PATHS.
    #[arg(long, env = "SLOW_FOR", value_parser = duration, default_value = "6s")]
    #[serde(with = "as_text")]
    pub(crate) slow_for: Duration,
    /// A token whose bearer is nobody.
    #[arg(long, env = "REFUSED_TOKEN", default_value = "")]
    pub(crate) refused_token: String,
    /// Series of /metrics, separated by semicolons, in place of the usual ones of the same name and labels:
    /// `db_slow_queries_total +3` grows by 3 each second, `disk_free_bytes 5e9` stays.
    #[arg(long, env = "METRICS", default_value = "")]
    pub(crate) metrics: String,
    /// Lines with "ERROR something failed" to log each second.
    #[arg(long, env = "LOG_ERRORS", default_value_t = 0)]
    pub(crate) log_errors: u32,
    /// A line to log each second; none if it is empty.
    #[arg(long, env = "LOG_LINE", default_value = "")]
    #[serde(default)]
    pub(crate) log_line: String,
}

impl Behaviour {
    /// This behaviour with the named fields replaced; unknown fields and bad values are refused.
    pub(crate) fn changed(&self, change: &[u8]) -> Result<Self, String> {
        let change: Map<String, Value> = serde_json::from_slice(change).map_err(|error| error.to_string())?;
        let mut fields = serde_json::to_value(self).map_err(|error| error.to_string())?;
        if let Value::Object(fields) = &mut fields {
            fields.extend(change);
        }
        let changed: Self = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        fraction(&changed.error_rate.to_string()).map_err(|why| format!("error_rate: {why}"))?;
        if changed.burn_millicpu > 1000 {
            return Err("burn_millicpu: write a number from 0 to 1000".to_owned());
        }
        if !CODES.contains(&changed.health_code.into()) {
            return Err("health_code: write a number from 200 to 599".to_owned());
        }
        Ok(changed)
    }

    /// Whether requests to a path are counted, because one of the lists has it.
    pub(crate) fn names(&self, path: &str) -> bool {
        let lists = [&self.failing_paths, &self.unsuccessful_paths, &self.slow_paths];
        lists.iter().flat_map(|list| list.split(',')).any(|item| item.split('@').next() == Some(path))
    }

    /// Whether the n-th request (from 1) is one that fails: exactly the asked share of any run.
    pub(crate) fn fails(&self, n: u64) -> bool {
        let failed_by = |n: u64| (n as f64 * self.error_rate).floor();
        failed_by(n) > failed_by(n - 1)
    }
}

/// Whether a list of paths has this request, the n-th to its path.
pub(crate) fn lists(list: &str, path: &str, n: u64, agent: &str) -> bool {
    let is_meant = |which: &str| match (which.strip_suffix('+').map(str::parse::<u64>), which.parse::<u64>()) {
        (Some(Ok(first)), _) => n >= first,
        (_, Ok(every)) => every > 0 && n.is_multiple_of(every),
        _ => agent.contains(which),
    };
    list.split(',').any(|item| {
        let (listed, which) = item.split_once('@').unwrap_or((item, ""));
        listed == path && is_meant(which)
    })
}

/// Logs as many errors as `wanted` says, and its line, following its changes.
pub(crate) async fn log(wanted: impl Fn() -> Behaviour) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let Behaviour { log_errors, log_line, .. } = wanted();
        for _ in 0..log_errors {
            println!("{} ERROR something failed, as asked", stamp(Timestamp::now()));
        }
        if !log_line.is_empty() {
            println!("{} {log_line}", stamp(Timestamp::now()));
        }
    }
}

/// Holds as much memory as `wanted` says, following its changes.
pub(crate) async fn hold_memory(wanted: impl Fn() -> usize) {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut ticks = tokio::time::interval(GROW_EVERY);
    loop {
        ticks.tick().await;
        let chunks = wanted().div_ceil(GROW_MIB);
        held.truncate(chunks);
        if held.len() < chunks {
            // Written, not only reserved: untouched pages cost nothing and provoke nobody.
            held.push(vec![1; GROW_MIB << 20]);
        }
    }
}

/// Burns as much CPU as `wanted` says, following its changes, in a thread of its own: answers are none the slower.
pub(crate) fn burn_cpu(wanted: impl Fn() -> u16 + Send + 'static) {
    std::thread::spawn(move || {
        loop {
            let busy = BURN_EVERY * u32::from(wanted()) / 1000;
            let begun = Instant::now();
            while begun.elapsed() < busy {
                std::hint::spin_loop();
            }
            std::thread::sleep(BURN_EVERY.saturating_sub(busy));
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn healthy() -> Behaviour {
        Behaviour {
            maintenance_page: false,
            pool_active: 2,
            never_ready: false,
            ready_after: Duration::ZERO,
            crash_after_requests: None,
            allocate_mib: 0,
            burn_millicpu: 0,
            error_rate: 0.0,
            latency: Duration::ZERO,
            health_status: "healthy".to_owned(),
            health_database: "connected".to_owned(),
            health_redis: "connected".to_owned(),
            health_stripe: "connected".to_owned(),
            failing_paths: String::new(),
            unsuccessful_paths: String::new(),
            slow_paths: String::new(),
            slow_for: Duration::ZERO,
            refused_token: String::new(),
            metrics: String::new(),
            health_code: 200,
            private_open: false,
            quote_fails: false,
            log_errors: 0,
            log_line: String::new(),
        }
    }

    #[test]
    fn a_change_replaces_the_named_fields_only() {
        let slow = healthy().changed(br#"{"latency": "250ms"}"#).unwrap();
        let both = slow.changed(br#"{"crash_after_requests": 7}"#).unwrap();
        assert_eq!(both.latency, Duration::from_millis(250));
        assert_eq!(both.crash_after_requests, Some(7));
        let calm = both.changed(br#"{"crash_after_requests": null}"#).unwrap();
        assert_eq!(calm.crash_after_requests, None);
    }

    #[test]
    fn a_bad_change_is_refused() {
        for bad in [
            r#"{"latancy": "1s"}"#,
            r#"{"latency": 1}"#,
            r#"{"error_rate": 2}"#,
            r#"{"health_code": 99}"#,
            r#"{"burn_millicpu": 1001}"#,
            "[]",
        ] {
            assert!(healthy().changed(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_has_all_requests_to_a_path_or_some() {
        let of = |list: &str| (1..=6).filter(|n| lists(list, "/a", *n, "Grafana k6/1.8.1")).collect::<Vec<_>>();
        assert_eq!(of("/b,/a"), [1, 2, 3, 4, 5, 6]);
        assert_eq!(of("/a@3,/b"), [3, 6]);
        assert_eq!(of("/a@5+"), [5, 6]);
        assert_eq!((of("/a@k6").len(), of("/a@curl").len()), (6, 0));
        assert!(of("").is_empty() && of("/ab").is_empty() && of("/a@0").is_empty());
    }

    #[test]
    fn the_error_rate_is_kept_exactly() {
        let failing = |rate| {
            let behaviour = Behaviour { error_rate: rate, ..healthy() };
            (1..=100).filter(|n| behaviour.fails(*n)).count()
        };
        assert_eq!([failing(0.0), failing(0.25), failing(1.0)], [0, 25, 100]);
    }
}
