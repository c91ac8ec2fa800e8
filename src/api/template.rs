//! `AnalysisTemplate`: metrics that several releases share, with arguments, and how a release refers to one.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BurnRate, Compare, Metric, Threshold};

/// Metrics that several releases share. A release reads them when it begins, and keeps to what it read: a change
/// counts from the next release on.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "servicerelease.io",
    version = "v1alpha1",
    kind = "AnalysisTemplate",
    plural = "analysistemplates",
    namespaced,
    derive = "PartialEq",
    doc = "Metrics that several ServiceReleases of a namespace share (ClusterAnalysisTemplate: of all namespaces).",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct AnalysisTemplateSpec {
    /// What a release may choose, at most 16: `{{args.NAME}}` in the texts of prometheus and web stands for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub args: Vec<TemplateArg>,
    /// What is measured, at most 8 quantities.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub metrics: Vec<Metric>,
}

/// What a release may choose in a template.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct TemplateArg {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What it is where a release does not say. May have words in braces, such as `{{service}}`. Without it every
    /// release has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

/// A template whose metrics a release is judged by.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRef {
    /// The name of an AnalysisTemplate of this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub template_name: String,
    /// Whether it is a ClusterAnalysisTemplate. Default false.
    #[serde(default)]
    pub cluster_scope: bool,
    /// Judge its metrics and tell their verdicts, and let nothing follow from them. Default false.
    #[serde(default)]
    pub dry_run: bool,
    /// The template's arguments, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub args: Vec<ArgValue>,
    /// Limits in place of the template's own, by the names of its metrics, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub overrides: Vec<Override>,
}

/// What a release chooses in a template.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct ArgValue {
    /// The name of an argument of the template.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What `{{args.NAME}}` stands for. May have words in braces, such as `{{service}}`.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// Limits of a metric in place of those that the template has. What is not given stays the template's; what is
/// given is taken as a whole.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("[has(self.threshold), has(self.compare), has(self.burnRate)].filter(it, it).size() == 1").message("exactly one of threshold, compare and burnRate is needed, that which the template's metric has"))]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// The name of a metric of the template.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Other limits of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// Another comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// Another objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burn_rate: Option<BurnRate>,
}
