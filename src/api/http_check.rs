//! A check by HTTP: the request, and what is expected of the answer.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Duration;

/// An HTTP request to pods or a Service of the release. Redirects are not followed.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.host) || !has(self.headers) || !self.headers.exists(it, it.name.lowerAscii() == 'host')").message("beside host a Host header is not sent: the platform allows hosts by their names"))]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Whom to ask. Default Candidate.
    #[serde(default)]
    pub target: Target,
    /// A host beyond the release instead of target, with a port if it is not that of the scheme, such as
    /// payments.internal:8443. Only those are asked that the platform allows (chart value allowedHosts).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$"))]
    pub host: Option<String>,
    /// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS. Default GET.
    #[serde(default)]
    pub method: Method,
    /// Path and query, such as /health?full=1. Default /. `{{namespace}}`, `{{release}}`, `{{revision}}`, `{{service}}`
    /// (candidateService, after the promotion service) and `{{pods}}` (a regular expression for the names of the
    /// candidate's pods) are replaced by what they stand for, percent-encoded.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// The number or name of a port: of the pods, or with target Service of that. Default: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "port")]
    pub port: Option<IntOrString>,
    /// HTTP or HTTPS. Default HTTP. The certificate of a host is verified by the authorities that the operator's image
    /// knows; that of the release's own pods and Services is not, as in a container's probe.
    #[serde(default)]
    pub scheme: Scheme,
    /// Take any certificate of host. Default false.
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// Headers of the request. Whoever may read the release reads their values; what is secret comes from a Secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
    /// The body of the request, with the same words in braces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub body: Option<String>,
    /// What is expected of the answer. Default: a status of 200 to 299.
    #[serde(default)]
    pub expect: Expect,
}

impl HttpCheck {
    /// Whether a header comes from a Secret.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        self.headers.iter().any(|header| header.value_from.is_some())
    }

    /// Whether a certificate that nobody vouches for is a fault.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.host.is_some() && self.scheme == Scheme::Https && !self.insecure_skip_verify
    }

    /// Whether it asks pods of the candidate.
    #[must_use]
    pub fn is_of_candidate(&self) -> bool {
        self.host.is_none() && matches!(self.target, Target::Candidate | Target::EachPod)
    }
}

fn root() -> String {
    "/".into()
}

fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 15 })
}

/// Whom a check asks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The candidate's ready pods in turn, one for each attempt, by their addresses.
    #[default]
    Candidate,
    /// Each ready pod of the candidate, in every attempt.
    EachPod,
    /// Stable's ready pods in turn. Before there is a stable revision the check is Skipped.
    Stable,
    /// The release's ready pods that traffic.service leads to, in turn, at what its port leads to, with its name as
    /// Host. Its name and its cluster IP are not asked: behind them may be what is none of the release's. Before there is a
    /// stable revision (also in an adoption, whose Deployment's pods are none of the release's) the check is Skipped.
    Service,
}

/// How an answer is asked for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Read.
    #[default]
    Get,
    /// Read without a body.
    Head,
    /// Send a body.
    Post,
    /// Replace.
    Put,
    /// Change.
    Patch,
    /// Take away.
    Delete,
    /// Ask what there is.
    Options,
}

impl Method {
    /// As in a request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// In clear or by TLS.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// In clear.
    #[default]
    Http,
    /// By TLS.
    Https,
}

/// A header of a request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096), regex(pattern = "^[ -~]*$"))]
    pub value: String,
    /// What follows value, such as the token after `Bearer `, from a Secret of the namespace. The operator never reads
    /// it: the check is asked by a Job in the namespace, which has it in its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<SecretSource>,
}

/// Where a value comes from that only a Job in the release's namespace reads, never the operator.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    /// A key of a Secret.
    pub secret_key_ref: SecretKey,
}

/// Where certificates of authorities stand, as PEM.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)").message("exactly one of configMapKeyRef and secretKeyRef is needed")
)]
#[serde(rename_all = "camelCase")]
pub struct CaSource {
    /// A key of a ConfigMap in the release's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<SecretKey>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKey>,
}

/// A key of a Secret in the release's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretKey {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What an answer must be like, in everything that is named here.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Expect {
    /// The status code. Default: 200 to 299, unless cel looks at `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<i32>,
    /// Headers by name, and their whole values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "headers")]
    pub headers: BTreeMap<String, String>,
    /// Fields of a JSON body and their values. Dots lead into objects and lists: `checks.0.state: ok`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields")]
    pub json: BTreeMap<String, Value>,
    /// A CEL expression that must be true of `status` (int), `headers` (map, names in lower case) and `json`
    /// (the body), such as `json.queue < 100 && json.version.startsWith("2.")`. One that looks at `status` says itself what
    /// the status may be, such as `status == 401 || status == 403`. All numbers of `json` are doubles, which
    /// compute with whole ones, too: `json.active * 100 / json.total < 80`. `/` of two that are whole (`size()`, `int()`,
    /// `1 / 2`) would cut off and is refused: write `double(size(json.a)) / size(json.b)`. To divide by 0 is a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub cel: Option<String>,
    /// What 95 of 100 answers may take at most, counted over the attempts; with fewer than 20, each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency: Option<Duration>,
}

impl Expect {
    /// In a few words, as the manifest has it.
    #[must_use]
    pub fn told(&self) -> String {
        let status = match self.status {
            Some(status) => Some(format!("status {status}")),
            None => (!self.cel.as_deref().is_some_and(names_status)).then(|| "status 200 to 299".to_owned()),
        };
        let headers = self.headers.iter().map(|(name, value)| format!("header {name}: {value}"));
        let fields = self.json.iter().map(|(path, value)| format!("JSON field {path} = {value}"));
        let latency = self.max_latency.map(|limit| format!("p95 within {limit}"));
        let all = status.into_iter().chain(latency).chain(headers).chain(fields).chain(self.cel.clone());
        all.collect::<Vec<_>>().join(", ")
    }
}

/// Whether an expression has the variable `status`, as far as its text tells: no field of that name, and no quoted word.
fn names_status(cel: &str) -> bool {
    cel.match_indices("status").any(|(place, word)| {
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '"' | '\'');
        !cel[..place].ends_with(is_part) && !cel[place + word.len()..].starts_with(is_part)
    })
}

fn headers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

fn fields(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "x-kubernetes-preserve-unknown-fields": true },
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing(r"{}", "status 200 to 299")]
    #[case::a_status(r#"{"status": 401, "cel": "status > 1"}"#, "status 401, status > 1")]
    #[case::by_an_expression(r#"{"cel": "status == 401 || status == 403"}"#, "status == 401 || status == 403")]
    #[case::of_a_field(r#"{"cel": "json.status == 'ok'"}"#, "status 200 to 299, json.status == 'ok'")]
    #[case::by_a_key(r#"{"cel": "json['status'] == statuses"}"#, "status 200 to 299, json['status'] == statuses")]
    fn what_is_expected_is_told_as_it_is_judged(#[case] expect: &str, #[case] told: &str) {
        let expect: Expect = serde_json::from_str(expect).unwrap();
        assert_eq!(expect.told(), told);
    }
}
