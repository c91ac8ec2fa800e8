//! `status.weights` and `status.route`: how the traffic is shared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Timestamp, status::is_zero};

/// How the traffic is shared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Weights {
    /// What is meant.
    pub desired: WeightShare,
    /// What was seen. Without a router the share of ready endpoints. With one the last weight that every Gateway
    /// has accepted and for which propagationDelay has passed since (status.route.servedWeight), as far as
    /// candidateService selects the candidate: it is not counted from requests, as no gateway tells their number
    /// in its status. A metric of spec.analysis can.
    pub observed: WeightShare,
    /// Since when the traffic is shared as the step means it; none while it is being moved. What is counted before that
    /// is of no weight, and proves nothing for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_at: Option<Timestamp>,
}

/// The HTTPRoute, or other object, that shares the traffic.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// Its kind, if not HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub kind: Option<String>,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its metadata.generation that this was decided on.
    pub generation: i64,
    /// Percent of the requests that it sends to candidateService; none if its rules differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Since when every parent accepts this generation with all references resolved; of a kind that does
    /// not say, since when it is as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Timestamp>,
    /// Percent of the requests that candidateService is taken to get: the last weight that every Gateway
    /// accepted, and for which propagationDelay has passed since.
    #[serde(default)]
    pub served_weight: i32,
    /// Percent of the requests that candidateService may get at most: until every Gateway is known to follow the route
    /// as it is, any of its weights since servedWeight may count. 100 where its rules differ, or headers lead there.
    #[serde(default, skip_serializing_if = "super::evidence::is_zero")]
    pub possible_weight: i32,
    /// The headers of the requests that it sends to candidateService whatever its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub header_route: Option<String>,
    /// Percent of the requests of which it sends a copy to candidateService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_percent: Option<i32>,
    /// Whether it sends all requests to the maintenance Service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
    /// How often in this release somebody else's weights were put right.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub put_right: i64,
    /// The field manager that does not leave the weights alone; nothing is written any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub contested_by: Option<String>,
}

/// Percent of the traffic, 0 to 100.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WeightShare {
    /// For stable.
    pub stable: i32,
    /// For the candidate.
    pub candidate: i32,
}
