//! `spec.analysis`: quantities that are watched while the candidate has traffic, and what they must be like.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Duration, TemplateRef};

/// What is watched while the candidate has traffic, through pauses and between steps. The weight rises only
/// while every verdict is Pass, measured since the step began and an interval after the traffic had its weight; a Fail
/// takes the release back at once.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("duration(self.interval) >= duration('1s')").message("analysis.interval must be at least 1s"),
    validation = Rule::new("(has(self.metrics) && self.metrics.size() > 0) || (has(self.templates) && self.templates.size() > 0)").message("analysis needs metrics, templates or both"),
    validation = Rule::new("!has(self.onInconclusive) || has(self.maxDuration)").message("analysis.onInconclusive needs analysis.maxDuration"),
    validation = Rule::new("!has(self.maxDuration) || duration(self.maxDuration) >= duration(self.interval)").message("analysis.maxDuration must not be shorter than analysis.interval: nothing would have been measured yet")
)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// How long after a measurement the next one is made, at least 1s. Default 30s.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// How long a step that is otherwise done may wait for verdicts that are not all Pass, before onInconclusive
    /// decides, such as 30m; at least interval. Default: for ever, and it goes on by itself when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
    /// What becomes of the release after maxDuration. Default Rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_inconclusive: Option<OnInconclusive>,
    /// What is measured, at most 8 quantities together with those of templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub metrics: Vec<Metric>,
    /// Templates whose metrics are measured too, at most 4. They are read when a release begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["templateName", "clusterScope"]))]
    pub templates: Vec<TemplateRef>,
}

const fn interval() -> Duration {
    Duration::from_secs(30)
}

/// A quantity and what it must be like: exactly one source, which is prometheus, web or workload; with
/// prometheus exactly one of threshold, compare and burnRate, with web threshold.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("[has(self.prometheus), has(self.web), has(self.workload)].filter(it, it).size() == 1").message("exactly one of prometheus, web and workload is needed"),
    validation = Rule::new("[has(self.threshold), has(self.compare), has(self.burnRate), has(self.workload)].filter(it, it).size() == 1").message("exactly one of threshold, compare and burnRate is needed, and with workload none"),
    validation = Rule::new("!has(self.web) || has(self.threshold)").message("web needs threshold"),
    validation = Rule::new("has(self.threshold) || ((!has(self.failureThreshold) || self.failureThreshold == 1 || (has(self.workload) && has(self.workload.minReady))) && (!has(self.successThreshold) || self.successThreshold == 1))").message("failureThreshold and successThreshold count values: they go with threshold, failureThreshold with workload.minReady, too"),
    validation = Rule::new("!has(self.prometheus) || !has(self.prometheus.stable) || has(self.compare)").message("prometheus.stable goes with compare"),
    validation = Rule::new("(has(self.threshold) && has(self.threshold.minRequests)) == (has(self.prometheus) && has(self.prometheus.requests))").message("threshold.minRequests and prometheus.requests go together"),
    validation = Rule::new("!has(self.prometheus) || has(self.threshold) == has(self.prometheus.query)").message("threshold needs prometheus.query, and nothing else does"),
    validation = Rule::new("!has(self.prometheus) || !has(self.prometheus.query) || [has(self.prometheus.total), has(self.prometheus.events), has(self.prometheus.good)].filter(it, it).size() == 0").message("prometheus has a query, or total with events or good, not both"),
    validation = Rule::new("!has(self.prometheus) || (has(self.compare) || has(self.burnRate)) == (has(self.prometheus.total) && has(self.prometheus.events) != has(self.prometheus.good))").message("compare and burnRate need prometheus.total and exactly one of prometheus.events and prometheus.good")
)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// Its name, unique among the metrics.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What to ask of a Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// What to ask of a web API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<Web>,
    /// How often the candidate's containers may restart, and how many of its pods are to be ready. Nothing is asked: each
    /// change of a pod is judged at once. A crash loop, an OOM kill, an image that cannot be pulled, and readiness that all
    /// pods lost fail a release also without it. So does a container's third restart, where no metric says here how many
    /// there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The limits of the value that prometheus.query or web.value gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// The candidate beside the stable pods of the same minutes. All requests since the release began are weighed, and apart
    /// from them those since nothing spoke against the candidate any more: one that turns bad after some good hours is found
    /// nearly as soon as one that is bad from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// How fast the error budget of an objective may be spent, by both sides together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burn_rate: Option<BurnRate>,
    /// How many values in a row must be beyond the threshold for the metric to fail. Default 1. In a row, not in all: values
    /// now good, now bad never fail with 2 or more, and each good one is a Pass; with as much for successThreshold they
    /// are no Pass either.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
    /// How many values in a row must be within the threshold for the metric to pass. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: i32,
    /// Judge it and tell the verdict, and let nothing follow from it: it neither holds a release nor takes one back, as
    /// long as a team does not trust it yet. Default false.
    #[serde(default)]
    pub dry_run: bool,
    /// What a measurement without data means: nobody called, or there is no such series (see prometheus.query). Default Hold.
    #[serde(default)]
    pub no_data: NoData,
    /// What it means that the provider does not answer, or not sensibly: also when it is asked before the candidate has
    /// requests. Default Hold.
    #[serde(default)]
    pub provider_error: ProviderError,
}

/// Where a metric comes from. What is to be known of a source is asked for by a match over all of them, so that the
/// compiler names the places where a new one is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source<'a> {
    /// The field `prometheus`.
    Prometheus(&'a Prometheus),
    /// The field `web`.
    Web(&'a Web),
    /// The field `workload`.
    Workload(&'a Workload),
}

impl Metric {
    /// The sources that are set; of a valid metric, one.
    pub fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        // Each field by its name: one that is new may be a source.
        let Self {
            prometheus,
            web,
            workload,
            name: _,
            threshold: _,
            compare: _,
            burn_rate: _,
            failure_threshold: _,
            success_threshold: _,
            dry_run: _,
            no_data: _,
            provider_error: _,
        } = self;
        let prometheus = prometheus.as_ref().map(Source::Prometheus);
        let web = web.as_ref().map(Source::Web);
        [prometheus, web, workload.as_ref().map(Source::Workload)].into_iter().flatten()
    }

    /// The field that says whom it asks, and the name that stands there; none where nobody is asked.
    #[must_use]
    pub fn provider(&self) -> Option<(&'static str, &str)> {
        self.sources().find_map(Source::provider)
    }

    /// The field with a CEL expression that gives the value, and the expression.
    #[must_use]
    pub fn expression(&self) -> Option<(&'static str, &str)> {
        self.sources().find_map(Source::expression)
    }
}

impl<'a> Source<'a> {
    fn provider(self) -> Option<(&'static str, &'a str)> {
        match self {
            Self::Prometheus(it) => Some(("prometheus", &it.provider)),
            Self::Web(it) => Some(("web", &it.provider)),
            Self::Workload(_) => None,
        }
    }

    fn expression(self) -> Option<(&'static str, &'a str)> {
        match self {
            Self::Web(it) => Some(("web.value", &it.value)),
            Self::Prometheus(_) | Self::Workload(_) => None,
        }
    }
}

const fn one() -> i32 {
    1
}

/// How often the candidate's containers may restart, and how many of its pods are to be ready; with neither, no restart.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.minReady) || string(self.minReady).matches('^([1-9][0-9]{0,4}|100000|([1-9][0-9]?|100)%)$')").message("workload.minReady is a number of pods or 1% to 100%"))]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// How often containers of the candidate's pods, all together, may restart from the beginning of the release
    /// on, 0 to 1000, also before they have traffic. Default 0, and with minReady as often as they do. Pods that were
    /// evicted, or are told to go, do not count; a node that starts anew restarts its containers, and counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_restarts: Option<i32>,
    /// How many of the candidate's pods are to be ready, as a number (of fewer, all) or percent (rounded up): fewer at one look
    /// fail it, or at failureThreshold looks in a row, an interval apart. Pods that are told to go or were evicted do not count,
    /// nor, until progressDeadlineSeconds are over, those that never were ready and did not crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::strategy::pods_or_percent")]
    pub min_ready: Option<IntOrString>,
}

impl Workload {
    /// How many restarts there may be; none where nobody counts them.
    #[must_use]
    pub fn restarts(&self) -> Option<i32> {
        self.max_restarts.or_else(|| self.min_ready.is_none().then_some(0))
    }
}

/// What to ask of a Prometheus. In the texts `{{namespace}}`, `{{release}}`, `{{revision}}`, `{{service}}`
/// (the Service of that side: candidateService or service), `{{pods}}` (a regular expression for the names of
/// its pods) and `{{interval}}` are replaced; with compare they are those of the candidate, then of stable; with
/// burnRate `{{service}}` is service, `{{pods}}` stands for the pods of all revisions, `{{revision}}` for the candidate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Prometheus {
    /// The name of the Prometheus in the operator's configuration (chart value `providers`). Default default. Where there is
    /// none of this name, no release begins; where it is taken away under one, that is held.
    #[serde(default = "default_provider")]
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,
    /// A PromQL expression with one value, for threshold. Most applications have no series of errors before the first
    /// error, and a share of them is no data then: `(sum(rate(errors[5m])) or vector(0)) / sum(rate(requests[5m]))`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub query: Option<String>,
    /// A PromQL expression that says of how many requests the value of query is, for threshold.minRequests, such as
    /// `sum(increase(http_requests_total{namespace="{{namespace}}",pod=~"{{pods}}"}[5m]))`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub requests: Option<String>,
    /// A series selector of counters, such as `http_requests_total{namespace="{{namespace}}",pod=~"{{pods}}"}`, for compare
    /// and burnRate: all requests. No function around it: the operator counts the increases itself, sample by sample. With
    /// compare it must not be the same for both sides, nor must events and good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub total: Option<String>,
    /// The same for those of them that are bad, such as
    /// `http_requests_total{namespace="{{namespace}}",pod=~"{{pods}}",code=~"5.."}`. Such a series may appear with the first error: if neither side has any the verdict's message says so, and a Pass stays one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub events: Option<String>,
    /// The same for those that are good, instead of events, such as the bucket of a histogram that is quick
    /// enough: `http_request_duration_seconds_bucket{namespace="{{namespace}}",pod=~"{{pods}}",le="0.5"}`. Where there are requests and stable has no such
    /// series, or nobody, it is no data: there is no such bucket. If only the candidate has none, all its requests are bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub good: Option<String>,
    /// Other texts for stable's side of compare, where the words in braces do not tell the sides apart: ingress-nginx, for
    /// one, counts what it gives to a canary under the main Service's name, and names the canary in another label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<StableCounters>,
}

/// Selectors of stable's counters; what is not given is as for the candidate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct StableCounters {
    /// In place of total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub total: Option<String>,
    /// In place of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub events: Option<String>,
    /// In place of good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub good: Option<String>,
}

/// What to ask of a web API: one GET, whose answer, of at most 1 MiB, has a number in it. Redirects are not followed.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(r"!self.path.matches(r'^[^?]*(//|\\|/\.\.?(/|\?|$)|%(2[eEfF]|5[cC]|25))')").message("web.path must stay below the provider's address: no //, no . or .. as a segment, no \\, no %2e, %2f, %5c or %25 before the ?"))]
pub struct Web {
    /// The name of the API in the operator's configuration (chart value `providers`), which has its address and
    /// credentials. Default default.
    #[serde(default = "default_provider")]
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,
    /// Path and query below the provider's address, such as `/api/latency?app={{service}}`. The words in braces are
    /// those of prometheus, for the candidate; what stands for them is percent-encoded.
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// A CEL expression over `json` (the body), `status` and `headers` (names in lower case) that gives a number, such
    /// as `json.data[0].p95 / 1000`. All numbers of `json` are doubles, which compute with whole ones, too; `/` of two
    /// that are whole (`size()`, `1 / 2`) is refused, as in a check. A field that is missing, null and NaN are no data. A status other than 200 to 299 is an error, unless the expression looks at `status`.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// Whether a path stays below the address that it is put behind, whatever a server makes of it.
#[must_use]
pub fn stays_below(path: &str) -> bool {
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let encoded = path.to_ascii_lowercase();
    path.starts_with('/')
        && !path.contains("//")
        && !path.contains('\\')
        && !path.split('/').any(|segment| matches!(segment, "." | ".."))
        && !["%2e", "%2f", "%5c", "%25"].iter().any(|hidden| encoded.contains(hidden))
}

fn default_provider() -> String {
    "default".into()
}

/// The schema of a number that may be a decimal.
pub(super) fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number" })
}

/// The limits of a value.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max)").message("threshold has min, max or both"))]
#[serde(rename_all = "camelCase")]
pub struct Threshold {
    /// It must not be below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    pub min: Option<f64>,
    /// It must not be above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    pub max: Option<f64>,
    /// A value of fewer requests than this says nothing and is no data (noData): one error in three requests is no rate
    /// of 33%. Needs prometheus.requests. Default: every value counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: Option<i64>,
}

/// How the candidate is compared with stable: by a test that may be looked at any number of times (Lindon and
/// Malek, arXiv 2011.03567), at the share of the requests that the candidate was seen to serve. It is made twice, with half
/// of the false alarms each: of all that was counted, and of what was counted since nothing spoke against the candidate any
/// more (status.verdicts.recent).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// How many times stable's rate of events the candidate's may be, 1 to 100. Default 1.5.
    #[serde(default = "ratio")]
    #[schemars(range(min = 1, max = 100))]
    pub max_ratio: f64,
    /// How sure a Fail must be, 0.5 to 0.9999. Default 0.95: of good candidates at most 5% are failed, by both tests
    /// together and however long they are watched.
    #[serde(default = "confidence")]
    #[schemars(range(min = 0.5, max = 0.9999))]
    pub confidence: f64,
    /// Events of the candidate below which it never fails. Default 4.
    #[serde(default = "events")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_events: i64,
    /// Requests of the candidate after which it passes if the ratio that was observed is within maxRatio (or it has
    /// fewer events than minEvents), although nothing proves it yet. It does not while what was counted of late says half of
    /// what a Fail takes. Default 500.
    #[serde(default = "requests")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: i64,
    /// How many events have one cause, 1 to 1000: where one failure makes five errors, 5. Taken for five independent
    /// errors they would fail good candidates much more often than confidence says. Default 1.
    #[serde(default = "single")]
    #[schemars(range(min = 1, max = 1000))]
    pub dispersion: f64,
}

impl Compare {
    /// The same as the judge takes it.
    #[must_use]
    pub fn settings(&self) -> crate::judge::Settings {
        let whole = |count: i64| u64::try_from(count).unwrap_or(0);
        crate::judge::Settings {
            max_ratio: self.max_ratio,
            confidence: self.confidence,
            min_events: whole(self.min_events),
            min_requests: whole(self.min_requests),
            dispersion: self.dispersion,
        }
    }
}

/// How fast the error budget of an objective may be spent: 14.4 times as fast as it allows over 1h and 5m, 6 times
/// over 6h and 30m, once over 3d and 6h (Google SRE workbook, chapter 5). The metric fails when both windows of a
/// pair spend it faster. Errors from before the release count: who spends the budget releases nothing more.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BurnRate {
    /// The share of requests that are to succeed, 0.5 to 1, such as 0.999.
    #[schemars(range(min = 0.5, max = 1))]
    pub objective: f64,
    /// Events in the longer window of a pair below which it never fails. Default 4.
    #[serde(default = "events")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_events: i64,
}

const fn single() -> f64 {
    1.0
}

const fn ratio() -> f64 {
    1.5
}

const fn confidence() -> f64 {
    0.95
}

const fn events() -> i64 {
    4
}

const fn requests() -> i64 {
    500
}

/// What becomes of a release whose verdicts are not all Pass for too long.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInconclusive {
    /// It stays at its step and waits for a person.
    Hold,
    /// Traffic goes back to stable; with rollback.automatic: false it is held.
    #[default]
    Rollback,
    /// It goes on to the next step, where maxDuration counts anew. Without proof.
    Promote,
}

/// What a measurement without data means.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoData {
    /// The release stays where it is until there are some.
    #[default]
    Hold,
    /// It counts as a bad value: failureThreshold says how many in a row fail the metric.
    Fail,
    /// Nothing follows from it: the release goes on, and the verdict is Ignored, which is no Pass.
    Ignore,
}

/// What it means that there is no answer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderError {
    /// The release stays where it is until there is one.
    #[default]
    Hold,
    /// It counts as a bad value: failureThreshold says how many in a row fail the metric.
    Fail,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!({"prometheus": {"query": "up"}}), Some(("prometheus", "default")), None)]
    #[case(
        json!({"web": {"provider": "apm", "path": "/", "value": "json.a"}}),
        Some(("web", "apm")),
        Some(("web.value", "json.a"))
    )]
    #[case(json!({"workload": {}}), None, None)]
    fn a_source_says_whom_it_asks_and_by_what(
        #[case] source: Value,
        #[case] provider: Option<(&str, &str)>,
        #[case] expression: Option<(&str, &str)>,
    ) {
        let mut metric = json!({"name": "a"});
        metric.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let metric: Metric = serde_json::from_value(metric).unwrap();
        assert_eq!(metric.sources().count(), 1);
        assert_eq!((metric.provider(), metric.expression()), (provider, expression));
    }
}
