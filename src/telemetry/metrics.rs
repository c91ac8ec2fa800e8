//! The operator's own Prometheus metrics.

use std::{collections::BTreeMap, time::Duration};

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

/// How a pass over a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassOutcome {
    /// It went through.
    Done,
    /// Something had changed meanwhile; it is repeated soon.
    Conflict,
    /// A call failed; it is repeated later.
    Failed,
    /// It panicked.
    Panicked,
}

impl PassOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
        }
    }
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    passes: HistogramVec,
    errors: IntCounterVec,
    panics: IntCounter,
    requests: IntCounterVec,
    watch_failures: IntCounterVec,
    releases: IntGaugeVec,
    queued: IntGauge,
    running: IntGauge,
    leader: IntGauge,
    leads_lost: IntCounter,
    memory: IntGauge,
}

/// Gauges that are read when somebody asks.
#[derive(Debug, Default)]
pub struct Reading {
    /// Releases by phase.
    pub releases: BTreeMap<String, i64>,
    /// Releases that wait for a pass.
    pub queued: usize,
    /// Releases in a pass.
    pub running: usize,
    /// Whether this process leads.
    pub leader: bool,
}

const BUCKETS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Metrics {
    /// A registry of its own with all metrics at zero.
    ///
    /// # Errors
    /// If two metrics have one name, which is a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("servicerelease_{name}"), help);
        let passes = HistogramOpts::new(
            "servicerelease_reconcile_duration_seconds",
            "Time that one pass over a release took, by how it ended.",
        );
        let metrics = Self {
            registry: Registry::new(),
            passes: HistogramVec::new(passes.buckets(BUCKETS.to_vec()), &["outcome"])?,
            errors: IntCounterVec::new(
                opts("reconcile_errors_total", "Passes that did not go through, by why."),
                &["outcome"],
            )?,
            panics: IntCounter::with_opts(opts("reconcile_panics_total", "Passes that panicked."))?,
            requests: IntCounterVec::new(
                opts("api_requests_total", "Requests to the API server; code is the HTTP status, or error."),
                &["verb", "resource", "code"],
            )?,
            watch_failures: IntCounterVec::new(
                opts("watch_failures_total", "Watches that broke and were started again."),
                &["resource"],
            )?,
            releases: IntGaugeVec::new(opts("releases", "ServiceReleases by phase."), &["phase"])?,
            queued: IntGauge::with_opts(opts("queue_depth", "Releases that wait for a pass."))?,
            running: IntGauge::with_opts(opts("queue_running", "Releases in a pass now."))?,
            leader: IntGauge::with_opts(opts("leader", "1 if this process leads."))?,
            leads_lost: IntCounter::with_opts(opts(
                "lease_lost_total",
                "Times that this process lost the Lease and stood by again.",
            ))?,
            memory: IntGauge::new("process_resident_memory_bytes", "Resident memory of the process.")?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 11] = [
            Box::new(self.passes.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.panics.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.watch_failures.clone()),
            Box::new(self.releases.clone()),
            Box::new(self.queued.clone()),
            Box::new(self.running.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.leads_lost.clone()),
            Box::new(self.memory.clone()),
        ];
        all.into_iter().try_for_each(|metric| self.registry.register(metric))
    }

    /// Counts a pass.
    pub fn pass(&self, outcome: PassOutcome, took: Duration) {
        let label = outcome.label();
        self.passes.with_label_values(&[label]).observe(took.as_secs_f64());
        match outcome {
            PassOutcome::Done => {}
            PassOutcome::Panicked => {
                self.panics.inc();
                self.errors.with_label_values(&[label]).inc();
            }
            PassOutcome::Conflict | PassOutcome::Failed => {
                self.errors.with_label_values(&[label]).inc();
            }
        }
    }

    /// Counts a request to the API server.
    pub fn request(&self, verb: &str, resource: &str, code: &str) {
        self.requests.with_label_values(&[verb, resource, code]).inc();
    }

    /// Counts a lead that was lost.
    pub fn lead_lost(&self) {
        self.leads_lost.inc();
    }

    /// Counts a watch that broke.
    pub fn watch_failed(&self, resource: &str) {
        self.watch_failures.with_label_values(&[resource]).inc();
    }

    /// All metrics in Prometheus' text format, with gauges as they were just read.
    ///
    /// # Errors
    /// If they cannot be written as text.
    pub fn text(&self, reading: &Reading) -> Result<String, prometheus::Error> {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.releases.reset();
        for (phase, count) in &reading.releases {
            self.releases.with_label_values(&[phase]).set(*count);
        }
        self.queued.set(number(reading.queued));
        self.running.set(number(reading.running));
        self.leader.set(i64::from(reading.leader));
        self.memory.set(resident_memory().unwrap_or(0));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// Resident memory in bytes, where the kernel tells it.
fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_counted_and_read() {
        let metrics = Metrics::new().unwrap();
        metrics.pass(PassOutcome::Panicked, Duration::from_millis(3));
        metrics.request("patch", "services", "409");
        let reading =
            Reading { releases: BTreeMap::from([("Healthy".to_owned(), 7)]), queued: 2, running: 1, leader: true };
        let text = metrics.text(&reading).unwrap();
        for line in [
            "servicerelease_reconcile_panics_total 1",
            "servicerelease_api_requests_total{code=\"409\",resource=\"services\",verb=\"patch\"} 1",
            "servicerelease_releases{phase=\"Healthy\"} 7",
            "servicerelease_queue_depth 2",
            "servicerelease_leader 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
