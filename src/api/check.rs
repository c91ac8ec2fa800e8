//! `spec.checks`: questions with a yes or no answer, asked at moments of a release.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Duration, HttpCheck, SqlCheck};

/// A question asked at moments of a release. It passes or it fails; what then, onFailure says.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("!has(self.interval) || duration(self.interval) >= duration('100ms')").message("interval must be at least 100ms"),
    validation = Rule::new("!has(self.every) || duration(self.every) >= duration('1s')").message("every must be at least 1s"),
    validation = Rule::new("!has(self.timeout) || duration(self.timeout) <= duration(has(self.http) || has(self.logs) ? '60s' : '24h')").message("timeout of http and logs is at most 60s, of job, keys and sql 24h"),
    validation = Rule::new("!has(self.successThreshold) || !has(self.attempts)").message("a check has attempts or successThreshold, not both"),
    validation = Rule::new("[has(self.http), has(self.job), has(self.keys), has(self.logs), has(self.sql)].filter(it, it).size() == 1").message("exactly one of http, job, keys, logs and sql is needed")
)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its name, unique among the checks.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// When it is asked. Default BeforeTraffic; with an empty list only where a step `check` names it.
    #[serde(default = "before_traffic")]
    #[schemars(length(max = 6))]
    pub when: Vec<Moment>,
    /// An HTTP request, and what is expected of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A Job that succeeds or fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobCheck>,
    /// Keys that Secrets and ConfigMaps must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub keys: Vec<KeysOf>,
    /// Lines of the candidate's log, counted since the check was asked last in this release, or since the release began. Only
    /// what the kubelet still has: it keeps the newest file of a log (10 MiB by default) and none of a pod that is gone,
    /// so that a container which says much is to be asked often. A log that cannot be read
    /// says nothing of the candidate: it is asked for again, and after progressDeadlineSeconds a person is waited for in place
    /// of a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsCheck>,
    /// A question to a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlCheck>,
    /// How many answers in a row must be right; the first wrong one fails the check. Default 1. With
    /// successThreshold and failureThreshold instead, as for a probe of a container, some may be wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: Option<i32>,
    /// How many answers in a row must be right. Default 1. While neither threshold is reached it is asked again, for
    /// progressDeadlineSeconds and as many times (interval + timeout) as right answers are needed, and fails then: where every
    /// third answer is wrong, a few right ones in a row come by luck at last. The status has how many were wrong in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: Option<i32>,
    /// How many answers in a row must be wrong for the check to fail. Default 1: with more than that a candidate that answers
    /// now right, now wrong can pass. See successThreshold for what bounds the asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: Option<i32>,
    /// How long after an answer that decides nothing yet it is asked again, at least 100ms. Default 2s. Also of a standing
    /// probe: with failureThreshold 3 and interval 1m what is probed was bad for two minutes.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// While the release is observed (spec.observation), how long after it has passed it is asked again, at least 1s: a
    /// standing probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// How long an answer may take: of http and logs at most 60s, default 5s; of job, keys and sql at most 24h, default 10m.
    /// None in time is a wrong one, but for logs that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What becomes of the release when the check fails. Default Rollback.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Check {
    /// How many answers in a row must be right.
    #[must_use]
    pub fn needed(&self) -> i32 {
        self.attempts.or(self.success_threshold).unwrap_or(1).max(1)
    }

    /// How long an answer may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        let default = if self.is_quick() { 5 } else { 600 };
        self.timeout.unwrap_or(Duration::from_secs(default)).min(self.longest_timeout())
    }

    /// How long an answer may take at the most.
    #[must_use]
    pub fn longest_timeout(&self) -> Duration {
        Duration::from_secs(if self.is_quick() { 60 } else { 24 * 3_600 })
    }

    const fn is_quick(&self) -> bool {
        self.http.is_some() || self.logs.is_some()
    }

    /// Whether a Job answers it.
    #[must_use]
    pub fn is_run(&self) -> bool {
        self.job.is_some()
            || self.sql.is_some()
            || !self.keys.is_empty()
            || self.http.as_ref().is_some_and(HttpCheck::has_secrets)
    }

    /// How many in a row must be wrong.
    #[must_use]
    pub fn tolerated(&self) -> i32 {
        self.failure_threshold.unwrap_or(1).max(1)
    }

    /// How long it takes at the most until so many answers were wrong: each of them may take timeout.
    #[must_use]
    pub fn failing(&self) -> Duration {
        let answers = u64::from(self.tolerated().unsigned_abs());
        let each = self.timeout().as_millis().saturating_add(self.interval.as_millis());
        Duration::from_millis(each.saturating_mul(answers).saturating_sub(self.interval.as_millis()))
    }

    /// How long answers that are neither enough in a row nor too many wrong ones may go on, beside a step that may wait
    /// this long for the cluster (progressDeadlineSeconds). None where a Job answers: it ends by itself.
    #[must_use]
    pub fn longest(&self, deadline: Duration) -> Option<Duration> {
        let answers = u64::from(self.needed().unsigned_abs());
        let each = self.timeout().as_millis().saturating_add(self.interval.as_millis());
        let all = each.saturating_mul(answers).saturating_add(deadline.as_millis());
        (!self.is_run()).then(|| Duration::from_millis(all))
    }
}

fn before_traffic() -> Vec<Moment> {
    vec![Moment::BeforeTraffic]
}

const fn interval() -> Duration {
    Duration::from_secs(2)
}

/// A moment of a release.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    /// Before the candidate has pods. There is nobody of it to ask yet: job, keys, sql, or http with target Stable or
    /// Service.
    Preflight,
    /// The release has made its backup (spec.database.backup), and neither rehearsed nor changed anything: that it is copied
    /// to another place, say. There is nobody of the candidate to ask yet, as at Preflight. Not asked where no backup is
    /// made, nor again of one that is made anew for its age.
    AfterBackup,
    /// The candidate's first pods are available, and have no traffic yet.
    #[default]
    BeforeTraffic,
    /// After each setWeight of a canary, when the weight is reached.
    EachStep,
    /// After the last step, before the candidate gets all traffic.
    BeforePromotion,
    /// The candidate has become stable. A failure takes the release back to the previous revision.
    AfterPromotion,
    /// A rollback is over: stable has all traffic again. What fails then is told; nothing follows.
    AfterRollback,
    /// A step of the strategy names it.
    Step,
}

impl Moment {
    /// Whether the candidate has no pods yet.
    #[must_use]
    pub const fn is_before_pods(self) -> bool {
        matches!(self, Self::Preflight | Self::AfterBackup)
    }
}

/// What becomes of a release when a check fails.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Traffic goes back to stable; with rollback.automatic: false it is held.
    #[default]
    Rollback,
    /// The release stays at its step and waits for a person.
    Hold,
    /// It is told, as ignored, and the release goes on.
    Ignore,
}

/// A Job of one pod in the release's namespace: any container that exits with 0 if all is well, such as k6, newman
/// or a script of smoke tests. It stays, with its log, until the check is asked again or the next release begins; it
/// is deleted when the release is aborted while it runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JobCheck {
    /// The pod, as in a Job's spec.template. Never restarted: each attempt is a Job of its own. In its containers the
    /// environment variables RELEASE_NAMESPACE, RELEASE_NAME, RELEASE_REVISION, RELEASE_SERVICE and
    /// RELEASE_CANDIDATE_SERVICE are set, unless the template sets them. The last is traffic.candidateService before the
    /// promotion (without that field it is not set: no Service leads to the candidate alone) and traffic.service after
    /// it, and after a rollback. Where pods are asked the Job is made two seconds after its moment: nodes follow the
    /// EndpointSlices of a Service a little later (kube-proxy's minSyncPeriod is 1s by default). What the container writes to
    /// /dev/termination-log, or the end of its log, stands in the check's message when it fails.
    #[schemars(schema_with = "pod_template")]
    pub template: Value,
}

fn pod_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Keys that must be in a Secret or ConfigMap of the namespace, and not be empty. The operator never reads either: a
/// Job mounts the keys as files and looks at them. Exactly one of secret and configMap.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.secret) != has(self.configMap)").message("exactly one of secret and configMap is needed"))]
#[serde(rename_all = "camelCase")]
pub struct KeysOf {
    /// The name of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
    /// The name of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map: Option<String>,
    /// The keys.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$")))]
    pub keys: Vec<String>,
    /// How many bytes each of them must have at least. Default 1.
    #[serde(default = "one_byte")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub min_length: i64,
}

const fn one_byte() -> i64 {
    1
}

/// Lines of the log of the candidate's pods that match a pattern, counted since the check was asked last in this
/// release, or since the release began.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.max) || !has(self.min) || self.min <= self.max").message("logs.min must not be above logs.max"))]
#[serde(rename_all = "camelCase")]
pub struct LogsCheck {
    /// A regular expression (RE2 syntax), such as `(?i)error|panic`. Looked for in the first 64 KiB of a line.
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: String,
    /// How many lines may match. Default 0, and with min as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max: Option<i64>,
    /// How many lines must match, such as 1 for "Server started". Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min: i64,
    /// The container. Default: the first of the pod. Where it was started again since the last look, what it said before
    /// counts too, as far as the kubelet keeps it: of several restarts between two looks, the log before the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
}

impl LogsCheck {
    /// What a number of matching lines has against it.
    #[must_use]
    pub fn fault(&self, lines: i64) -> Option<String> {
        let most = self.most().unwrap_or(i64::MAX);
        match () {
            () if lines > most => Some(format!("{}, max {most}", self.matched(lines))),
            () if lines < self.min => Some(format!("{}, min {}", self.matched(lines), self.min)),
            () => None,
        }
    }

    /// Whether there are too many already, whatever comes.
    #[must_use]
    pub fn is_exceeded(&self, lines: i64) -> bool {
        self.most().is_some_and(|most| lines > most)
    }

    /// How many lines match, and how many may.
    #[must_use]
    pub fn found(&self, lines: i64) -> String {
        let min = if self.min > 0 { format!(", min {}", self.min) } else { String::new() };
        let max = self.most().map(|most| format!(", max {most}")).unwrap_or_default();
        format!("{}{min}{max}", self.matched(lines))
    }

    /// How many lines may match; none if that does not matter.
    const fn most(&self) -> Option<i64> {
        match self.max {
            None if self.min <= 0 => Some(0),
            max => max,
        }
    }

    fn matched(&self, lines: i64) -> String {
        let pattern = super::status::bounded(&self.pattern, 80);
        format!("{lines} lines match {pattern}")
    }
}
