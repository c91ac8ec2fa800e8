//! The client that calls the service all the while: `testapp load` in a pod, 100 requests per
//! second, half of them on new connections, none sent twice.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{conditions::is_pod_running, wait::await_condition};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{interval, timeout};

use super::{World, witness::PROGRAMMING};

/// How long the client may take to start.
const START: Duration = Duration::from_secs(60);
/// New connections that a share is taken of: its standard deviation is under 3 points.
const SAMPLE: u64 = 300;
/// How far a share may be from what is meant, in points: more than four standard deviations.
const TOLERANCE: f64 = 12.0;

/// Standard deviations on either side that hold 9,999 of 10,000 samples of a normal distribution.
const Z_9999: f64 = 3.891;

/// A running client.
pub struct Load {
    world: World,
    pod: &'static str,
}

/// What the client counted, as far as it is looked at here.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Requests, but those still outstanding.
    pub total: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Answers by version.
    pub by_version: BTreeMap<String, u64>,
    first_failures: Vec<Failure>,
    seconds: Vec<Second>,
}

#[derive(Clone, Debug, Deserialize)]
struct Failure {
    sent: Timestamp,
    failed: Timestamp,
    last_pod: Option<String>,
    pod: Option<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Second {
    second: Timestamp,
    failed: u64,
    answered: u64,
    by_version_new: BTreeMap<String, u64>,
}

impl Load {
    /// Starts a client, and comes back when it is served.
    pub async fn start(world: &World, url: &str, host: &str) -> Self {
        Self::start_with(world, "client", url, host, "").await
    }

    /// One that sends a request now and then.
    pub async fn start_every(world: &World, url: &str, host: &str, time: &str) -> Self {
        let load = Self::pod(world, "client", url, host, &format!(", --every, {time}")).await;
        load.counts_once(1).await;
        load
    }

    /// Counts from the second on in which so many requests were answered, and none failed: what failed until the
    /// Service had reached the rules of the node is not told.
    async fn counts_once(&self, answered: u64) {
        let served = self.until(START, "the client is served", |report| {
            report.seconds.last().is_some_and(|second| second.answered >= answered && second.failed == 0)
        });
        served.await;
        self.ask::<serde_json::Value>("POST", "reset").await.expect("the client's count starts");
    }

    async fn pod(world: &World, pod: &'static str, url: &str, host: &str, more: &str) -> Self {
        let manifest = include_str!("client.yaml").replace("LOAD_NAME", pod).replace("LOAD_MORE", more);
        world.apply(&manifest.replace("LOAD_URL", url).replace("LOAD_HOST", host)).await;
        let running = await_condition(world.api::<Pod>(), pod, is_pod_running());
        timeout(START, running).await.expect("the client runs").expect("a watch of the client");
        Self { world: world.clone(), pod }
    }

    /// The same in a pod of this name, with more arguments, each after a comma.
    pub async fn start_with(world: &World, pod: &'static str, url: &str, host: &str, more: &str) -> Self {
        let load = Self::pod(world, pod, url, host, more).await;
        load.counts_once(21).await;
        load
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str) -> Result<T, kube::Error> {
        let namespace = &self.world.namespace;
        let uri = format!("/api/v1/namespaces/{namespace}/pods/{}:9090/proxy/{path}", self.pod);
        let request = http::Request::builder().method(method).uri(uri).body(Vec::new()).expect("a request");
        self.world.cluster.client.request(request).await
    }

    /// What was counted until now.
    pub async fn report(&self) -> Report {
        self.ask("GET", "report").await.expect("the client's report")
    }

    /// Asks for the report until it is as wanted.
    async fn until(&self, most: Duration, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let asking = async {
            let mut ticks = interval(Duration::from_millis(250));
            loop {
                ticks.tick().await;
                if let Ok(report) = self.ask("GET", "report").await
                    && wanted(&report)
                {
                    return report;
                }
            }
        };
        timeout(most, asking).await.unwrap_or_else(|_| panic!("not within {most:?}: {what}"))
    }

    /// Asserts that a version answers such a share of the new connections from now on, in percent.
    pub async fn assert_share(&self, version: &str, percent: f64) {
        // The status tells of endpoints; the rules of the node follow them.
        let begun = Timestamp::now() + PROGRAMMING;
        let count = |report: &Report| {
            let since = report.seconds.iter().filter(|second| second.second > begun);
            since.fold((0, 0), |(own, all), second| {
                let of = |name: &str| second.by_version_new.get(name).copied().unwrap_or_default();
                (own + of(version), all + second.by_version_new.values().sum::<u64>())
            })
        };
        let report = self.until(Duration::from_secs(30), "enough requests", |report| count(report).1 >= SAMPLE).await;
        let (own, all) = count(&report);
        let share = own as f64 * 100.0 / all as f64;
        let off = (share - percent).abs();
        let exact = percent == 0.0 || percent == 100.0;
        assert!(
            if exact { off == 0.0 } else { off <= TOLERANCE },
            "{version} answered {own} of {all} new connections, {share:.0}% instead of {percent}%"
        );
    }

    /// Asserts that a version answers this share of all requests from now on: within what chance makes of it
    /// in 9,999 of 10,000 cases, if the gateway throws dice (the normal approximation of the binomial), as Envoy
    /// does. Traefik takes turns, and is far nearer.
    pub async fn assert_exact_share(&self, version: &str, percent: f64) {
        Self::assert_exact_share_of(&[self], version, percent).await;
    }

    /// The same of all that these clients ask together. A gateway that takes turns deals them out to clients
    /// of the same rate in step: of the turns 1 1 2 1, one client may have every other, which are all of 1.
    pub async fn assert_exact_share_of(clients: &[&Self], version: &str, percent: f64) {
        let meant = percent / 100.0;
        let counts = join_all(clients.iter().map(|client| client.answered_from_now(version))).await;
        let (own, all) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let share = own as f64 / all as f64;
        let interval = Z_9999 * (meant * (1.0 - meant) / all as f64).sqrt();
        let seen = format!("{:.1}% of {all} requests", share * 100.0);
        assert!((share - meant).abs() <= interval + 1e-9, "{version} answered {seen} instead of {percent}%");
        super::runner::note(format!("{percent}% meant, {seen}"));
    }

    /// How many of at least 1,000 requests from now on a version answers, and of how many.
    async fn answered_from_now(&self, version: &str) -> (u64, u64) {
        const REQUESTS: u64 = 1_000;
        let begun = self.report().await;
        let of = |report: &Report| report.by_version.get(version).copied().unwrap_or_default();
        let enough = |report: &Report| report.total >= begun.total + REQUESTS;
        let ended = self.until(Duration::from_secs(30), "enough requests", enough).await;
        (of(&ended) - of(&begun), ended.total - begun.total)
    }

    /// Waits until a whole second has passed in which no other version answered.
    pub async fn answered_only_by(&self, version: &str) {
        let what = format!("{version} alone answers");
        let alone = |report: &Report| {
            let last = report.seconds.iter().rev().nth(1);
            last.is_some_and(|second| {
                second.answered > 20 && second.by_version_new.iter().all(|(name, count)| name == version || *count == 0)
            })
        };
        self.until(Duration::from_secs(30), &what, alone).await;
    }

    /// Asserts that no two of these versions answered in the same second of those that are still known.
    pub async fn assert_never_together(&self, versions: &[&str]) {
        for second in self.report().await.seconds {
            let answered = |version: &&&str| second.by_version_new.get(**version).is_some_and(|count| *count > 0);
            let together: Vec<_> = versions.iter().filter(answered).collect();
            assert!(together.len() <= 1, "{together:?} answered in the second of {}", second.second);
        }
    }

    /// The first second of the last minute in which a version answered.
    pub async fn first_answer_of(&self, version: &str) -> Option<Timestamp> {
        let seconds = self.report().await.seconds;
        seconds
            .iter()
            .find(|second| second.by_version_new.get(version).is_some_and(|count| *count > 0))
            .map(|one| one.second)
    }

    /// Waits until so many more requests were made: time in which something could go wrong.
    pub async fn more_requests(&self, count: u64) {
        let until = self.report().await.total + count;
        self.until(START, "more requests", |report| report.total >= until).await;
    }

    /// Waits until so many requests have failed.
    pub async fn has_failed(&self, count: u64, most: Duration) {
        self.until(most, "requests fail", |report| report.failures >= count).await;
    }

    /// Asserts that every request was answered well.
    pub async fn assert_no_failed_requests(&self) {
        let report = self.report().await;
        assert!(report.total > 0, "nothing was asked");
        let first = report.first_failures.first();
        assert!(
            report.failures == 0,
            "{} of {} requests failed; the first: {}",
            report.failures,
            report.total,
            first.map(|failure| self.describe(failure)).unwrap_or_default()
        );
        super::runner::note(format!("{} requests, none failed", report.total));
    }

    /// Asserts that no request failed but those to pods that had crashed by themselves, before their
    /// endpoints were withdrawn.
    pub async fn assert_only_crashes_failed_requests(&self) {
        let report = self.report().await;
        assert!(report.total > 0, "nothing was asked");
        let excuses = self.world.witness.excuses("shop");
        let excused = |failure: &&Failure| {
            excuses.iter().any(|excuse| {
                let whose = failure.last_pod.as_ref().is_none_or(|pod| *pod == excuse.pod);
                failure.pod.is_none() && whose && failure.failed >= excuse.from && failure.sent <= excuse.until
            })
        };
        let told = u64::try_from(report.first_failures.len()).unwrap_or(u64::MAX);
        assert!(report.failures == told, "{} requests failed, more than crashes explain", report.failures);
        let other = report.first_failures.iter().find(|failure| !excused(failure));
        if let Some(failure) = other {
            panic!("a request failed that was not sent to a crashing pod: {}\n{excuses:#?}", self.describe(failure));
        }
        super::runner::note(format!("{} requests, {} lost to crashing pods", report.total, report.failures));
    }

    fn describe(&self, failure: &Failure) -> String {
        let Failure { sent, failed, last_pod, pod, rest } = failure;
        let rest = serde_json::Value::Object(rest.clone());
        format!("sent {sent} failed {failed} pod {pod:?} last_pod {last_pod:?} {rest}\n{}", self.world.witness.tell())
    }
}
