//! What checks and metrics found out, in the status: what was asked, what was expected, what came back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, Moment, Timestamp};

/// Entries of `status.checks`; the most checks that a spec can have.
pub const MAX_CHECKS: usize = 16;

/// How a check was answered last.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CheckStatus {
    /// The check.
    #[schemars(length(max = 63))]
    pub name: String,
    /// At which moment it was asked.
    pub when: Moment,
    /// The release that it was asked for.
    pub release: i64,
    /// The step, from 1.
    pub step: i32,
    /// Whether it passed.
    pub outcome: CheckOutcome,
    /// When it was asked for the first time at this moment.
    pub started_at: Timestamp,
    /// How many answers there were.
    pub attempts: i32,
    /// How many of them were wrong.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wrong: i32,
    /// How many right ones in a row, at the end.
    #[serde(default)]
    pub successes: i32,
    /// How many wrong ones in a row, at the end.
    #[serde(default)]
    pub failures: i32,
    /// How many answers took longer than expect.maxLatency.
    #[serde(default)]
    pub slow: i32,
    /// When the last answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// The outcome of a standing probe before it was asked anew: what stays the same is told once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<CheckOutcome>,
    /// From when on lines of the log are counted, if it was asked before in this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The Job of the last attempt: `kubectl logs job/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub job: Option<String>,
    /// What was asked, what was expected and what came back. Never a body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
}

/// Whether a check passed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckOutcome {
    /// It is being asked.
    #[default]
    Running,
    /// As many right answers in a row as it needs.
    Passed,
    /// Too many wrong ones, or no end in sight.
    Failed,
    /// It was not asked, or not to its end, and nothing follows: the message says why.
    Skipped,
}

/// Entries of [`VerdictStatus::segments`].
pub const MAX_SEGMENTS: usize = 9;

/// Entries of [`RecentStatus::segments`].
pub const MAX_RECENT_SEGMENTS: usize = 3;

/// The last verdict of a metric, with the numbers that it rests on.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VerdictStatus {
    /// The metric.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The verdict.
    pub outcome: VerdictOutcome,
    /// The same for people: the value or the counts, and the limit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
    /// Since when the candidate has had traffic without a break: when watching began.
    pub started_at: Timestamp,
    /// When the last answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<Timestamp>,
    /// When an answer last was a Pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_at: Option<Timestamp>,
    /// Until when events are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_until: Option<Timestamp>,
    /// How many answers there were.
    #[serde(default)]
    pub measurements: i32,
    /// How many values in a row were beyond the threshold.
    #[serde(default)]
    pub failures: i32,
    /// How many values in a row were within the threshold, where successThreshold asks for several.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub successes: i32,
    /// Whether nothing follows from the verdict (the metric's dryRun).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Whether the provider refuses what the metric asks, or its answer is none to the metric: only another metric helps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// The last value, for threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub value: Option<String>,
    /// Of how many requests that is, where minRequests asks for some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub requests: Option<String>,
    /// What was counted at each weight, for compare. Of more than fit, the two that lose least by it are put together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub segments: Vec<SegmentStatus>,
    /// What was counted in each window, for burnRate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub windows: Vec<WindowStatus>,
    /// How far back the counters reach, for burnRate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Duration>,
    /// ln E of the test against maxRatio of all that was counted, for compare: it fails at ln(2 / (1 - confidence)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ln_evidence: Option<String>,
    /// The ratio of the rates is below this, at the confidence asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ratio_bound: Option<String>,
    /// What was counted lately, for compare: since nothing spoke against the candidate any more, which is a look at which ln
    /// E of what had been counted lately (at first, of all) was below -2. None before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent: Option<RecentStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
const fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// A verdict.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VerdictOutcome {
    /// Too little is known: the weight does not rise.
    #[default]
    Inconclusive,
    /// As it should be.
    Pass,
    /// There was nothing to measure, and noData is Ignore: it holds up nothing, and shows nothing.
    Ignored,
    /// The release goes back.
    Fail,
}

/// What was counted while the candidate had one weight, and requests were shared alike.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentStatus {
    /// The weight, in percent.
    pub weight: i32,
    /// Since when the traffic was to be shared like that (status.weights.reachedAt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where several segments were put together: the candidate's share of the requests that the events are judged by,
    /// from 0 to 1. It is the mean of theirs, each counted by its events; weight and since are those of the last one.
    /// Otherwise the share is that of the requests below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 11))]
    pub exposure: Option<String>,
    /// Of the candidate.
    pub candidate: TallyStatus,
    /// Of stable.
    pub stable: TallyStatus,
}

/// What was counted since the test of late began anew.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecentStatus {
    /// Since when.
    pub since: Timestamp,
    /// How often it began anew, n: each time takes more to fail, so that all false alarms together stay bounded.
    pub restarts: i32,
    /// What was counted since then, like that of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub segments: Vec<SegmentStatus>,
    /// ln E of that alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ln_evidence: Option<String>,
    /// It fails at this: ln(2 n (n + 1) / (1 - confidence)); from half of it on the verdict is no Pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ln_threshold: Option<String>,
}

/// What was counted in a window that ends now.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowStatus {
    /// How long it is.
    pub window: Duration,
    /// All requests.
    pub requests: i64,
    /// Errors, slow ones: whatever events or good say.
    pub events: i64,
}

/// Requests, and those among them that count.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TallyStatus {
    /// All of them.
    pub requests: i64,
    /// Errors, slow ones: whatever events or good say.
    pub events: i64,
}
