//! `spec.strategy`: how a release is rolled out.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Duration;

/// How a release is rolled out: exactly one of canary and blueGreen.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("has(self.canary) != has(self.blueGreen)").message("exactly one of canary and blueGreen is needed"))]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// Replace pods step by step; the share of pods is the share of traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Bring up all pods of the candidate beside stable, then switch the Service at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,
}

/// A canary, step by step.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("!has(self.steps) || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).isSorted()").message("setWeight must not fall from step to step"),
    validation = Rule::new("!(string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])").message("maxSurge and maxUnavailable cannot both be 0"),
    validation = Rule::new("!has(self.dynamicStableScale) || string(self.dynamicStableScale.atLeast).matches('^([0-9]{1,5}|100000|([0-9]|[1-9][0-9]|100)%)$')").message("dynamicStableScale.atLeast is a number of pods or 0% to 100%"),
    validation = Rule::new("[string(self.maxSurge), string(self.maxUnavailable)].all(p, p.matches('^([0-9]{1,5}|100000|([0-9]|[1-9][0-9]|100)%)$'))").message("maxSurge and maxUnavailable are a number of pods or 0% to 100%")
)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Pods, as a number or percent of replicas (rounded up), that may exist beyond replicas. Default 25%.
    /// With traffic.router it has no use: stable keeps all its pods beside the candidate's.
    #[serde(default = "quarter")]
    #[schemars(schema_with = "pods_or_percent")]
    pub max_surge: IntOrString,
    /// Pods, as a number or percent of replicas (rounded down), that may be missing during a step. Default 0.
    /// With traffic.router it has no use.
    #[serde(default = "none")]
    #[schemars(schema_with = "pods_or_percent")]
    pub max_unavailable: IntOrString,
    /// Take pods away from stable as the candidate's weight rises. Without it stable keeps all of them, so
    /// that a rollback takes effect at once. Needs traffic.router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic_stable_scale: Option<DynamicStableScale>,
    /// What is done in turn, at most 50. After the last, the candidate takes all traffic.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub steps: Vec<CanaryStep>,
}

impl Default for Canary {
    fn default() -> Self {
        Self { max_surge: quarter(), max_unavailable: none(), dynamic_stable_scale: None, steps: Vec::new() }
    }
}

fn quarter() -> IntOrString {
    IntOrString::String("25%".into())
}

const fn none() -> IntOrString {
    IntOrString::Int(0)
}

/// Its values are limited by a CEL rule: what a structural schema says of integers and strings at the
/// same time is not enforced by type.
pub(super) fn pods_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 6 })
}

/// One step of a canary: exactly one of its fields.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("[has(self.setWeight), has(self.setHeaderRoute), has(self.setMirrorRoute), has(self.scale), has(self.pause), has(self.approval), has(self.check)].filter(b, b).size() == 1").message("a step has exactly one of setWeight, setHeaderRoute, setMirrorRoute, scale, pause, approval, check"))]
#[serde(rename_all = "camelCase")]
pub struct CanaryStep {
    /// Percent of the traffic for the candidate, 0 to 100, not less than in the step before.
    /// By the ratio of pods: ceil(replicas x weight) of them, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub set_weight: Option<i32>,
    /// Send the requests that carry these headers to the candidate, whatever its weight, until a step sets
    /// others (`{}` sets none) or the release ends. Needs traffic.router.gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_header_route: Option<HeaderRoute>,
    /// Send copies of requests to the candidate and drop its answers, until a step sets another percentage or
    /// the release ends. Needs traffic.router.gateway, and a Gateway that supports RequestMirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_mirror_route: Option<MirrorRoute>,
    /// Give the candidate this many pods, whatever its weight, until a step says otherwise (`{}`: as its
    /// weight needs again) or all traffic is to move. Needs traffic.router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Stay for a while, or without a duration until a person says Resume or Promote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Stay until a person says Approve; nothing else passes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Ask these checks of spec.checks, by their names, and go on when they have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    pub check: Option<Vec<String>>,
}

/// Which requests are the candidate's: those that match all of these headers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRoute {
    /// Headers that a request must carry, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub headers: Vec<HeaderMatch>,
}

/// A header that a request carries, as in an HTTPRoute.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$"))]
    pub name: String,
    /// Its value, or the regular expression for it.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
    /// How the value is compared. Default Exact.
    #[serde(default, rename = "type")]
    pub kind: HeaderMatchType,
}

/// How a header's value is compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderMatchType {
    /// It is the same.
    #[default]
    Exact,
    /// It matches a regular expression in the Gateway's dialect.
    RegularExpression,
}

/// How many requests are copied.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct MirrorRoute {
    /// Percent of the requests, 0 (none any more) to 100. Default 100. Below 100 not every Gateway can.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
}

const fn all() -> i32 {
    100
}

/// The candidate's size apart from its weight: one of its fields, or none.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!(has(self.replicas) && has(self.percent))").message("scale has replicas or percent, not both"))]
pub struct Scale {
    /// So many pods, at most as many as the release has replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub replicas: Option<i32>,
    /// So many percent of the release's replicas, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
}

/// How far stable may shrink.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DynamicStableScale {
    /// Pods, as a number or percent of replicas (rounded up), that stable keeps whatever its weight. With
    /// less than it had, a rollback first starts pods, and moves the weight back as they become ready.
    #[schemars(schema_with = "pods_or_percent")]
    pub at_least: IntOrString,
}

/// A pause between steps.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// How long, such as 5m or 1h30m. Without it the release waits for Resume or Promote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// A wait for a person's Approve.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {}

/// All pods of the candidate beside stable, then one switch.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreen {
    /// Switch as soon as the candidate is ready for it; if false, wait for Promote. Default true.
    #[serde(default = "yes")]
    pub auto_promote: bool,
    /// Send all requests to traffic.maintenance from before the switch until it is over, so that the two
    /// versions never serve at the same time. Needs traffic.maintenance.
    #[serde(default)]
    pub maintenance: bool,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self { auto_promote: true, maintenance: false }
    }
}

const fn yes() -> bool {
    true
}
