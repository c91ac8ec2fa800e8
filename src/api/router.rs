//! `spec.traffic.router`: what gives each revision an exact share of the requests.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Duration;

/// What shares the requests exactly, whatever the number of pods: exactly one of gateway, httpRoute and custom.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("[has(self.gateway), has(self.httpRoute), has(self.custom)].filter(b, b).size() == 1").message("exactly one of gateway, httpRoute and custom is needed"))]
#[serde(rename_all = "camelCase")]
pub struct Router {
    /// An HTTPRoute of the release's own, named as the release, attached to these Gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRoute>,
    /// An HTTPRoute that is there already. Only the weights of its backendRefs to service and
    /// candidateService are set; it needs both in at least one rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRouteRef>,
    /// The weights in an object of another kind, as the platform has set that up under a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomRef>,
    /// How long the gateway may take from accepting a weight to sending requests by it: a weight counts as reached
    /// after that, since no condition of a route tells that the data plane has moved. Default 5s.
    #[serde(default = "default_propagation_delay")]
    pub propagation_delay: Duration,
}

impl Router {
    /// What the release's own route is for; HTTP also where the route is the user's.
    #[must_use]
    pub fn protocol(&self) -> RouteProtocol {
        self.gateway.as_ref().map_or(RouteProtocol::Http, |gateway| gateway.protocol)
    }

    /// The name of the object that was there already, if its weights are set.
    #[must_use]
    pub fn users_object(&self) -> Option<&str> {
        let route = self.http_route.as_ref().map(|route| route.name.as_str());
        route.or_else(|| self.custom.as_ref().map(|custom| custom.object.as_str()))
    }
}

const fn default_propagation_delay() -> Duration {
    Duration::from_secs(5)
}

/// An HTTPRoute to be made (Gateway API v1).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRoute {
    /// What is routed: HTTP makes an HTTPRoute, GRPC a GRPCRoute. It cannot be changed. Default HTTP.
    #[serde(default)]
    pub protocol: RouteProtocol,
    /// The Gateways, or listeners of them, that send the requests. Where others have done so before, they stay in the route
    /// until all of these have accepted it.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,
    /// Host names that are meant. Without any, those of the listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub hostnames: Vec<String>,
    /// Host names that lead to the candidate whatever its weight, by a second HTTPRoute (NAME-preview), for
    /// tests before it has requests. Without a candidate no pod answers there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub preview_hostnames: Vec<String>,
    /// Which requests are meant (`kubectl explain httproute.spec.rules.matches`, or grpcroute). Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), schema_with = "matches")]
    pub matches: Vec<Value>,
    /// The port of the Services. Default: the first one of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// What a route of the release's own is for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum RouteProtocol {
    /// An HTTPRoute.
    #[default]
    Http,
    /// A GRPCRoute.
    Grpc,
}

impl RouteProtocol {
    /// The kind of route.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
        }
    }
}

fn matches(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// A Gateway, or a listener of it, as in an HTTPRoute.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Its API group. Default gateway.networking.k8s.io.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Its kind. Default Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Its namespace. Default: that of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The name of one listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// The port of its listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// An HTTPRoute in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRouteRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// An object in the same namespace, of a kind that the platform has set up.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomRef {
    /// The name of the router in the operator's configuration (chart value `routers`), such as traefik-service.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The name of the object. Its weights of service and candidateService are set, and nothing else.
    #[schemars(length(min = 1, max = 253))]
    pub object: String,
}

/// What answers while nobody is to serve: a Service of yours, whose pods answer every request with 503, a
/// Retry-After header and a page.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// The Service, in the same namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,
    /// Its port. Default: that of the release's Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Send all requests there now, whatever releases do behind it.
    #[serde(default)]
    pub active: bool,
}
