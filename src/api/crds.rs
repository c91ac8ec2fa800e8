//! The CustomResourceDefinitions as YAML, as they stand under `crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt as _, ResourceExt as _, api::ApiResource, core::GroupVersionKind};

use super::{AnalysisTemplate, ReleaseCommand, ServiceRelease};

/// The resources' plurals with their definitions.
///
/// # Errors
/// If one cannot be written as YAML.
pub fn all() -> Result<Vec<(&'static str, String)>, serde_saphyr::SerializeError> {
    Ok(vec![
        ("servicereleases", yaml(ServiceRelease::crd())?),
        ("releasecommands", yaml(ReleaseCommand::crd())?),
        ("analysistemplates", yaml(AnalysisTemplate::crd())?),
        ("clusteranalysistemplates", yaml(cluster_analysis_template())?),
    ])
}

/// The same as AnalysisTemplate, for all namespaces.
#[must_use]
pub fn cluster_analysis_template() -> CustomResourceDefinition {
    let mut crd = AnalysisTemplate::crd();
    let names = &mut crd.spec.names;
    names.kind = "ClusterAnalysisTemplate".into();
    names.plural = "clusteranalysistemplates".into();
    names.singular = Some("clusteranalysistemplate".into());
    crd.metadata.name = Some(format!("{}.{}", names.plural, crd.spec.group));
    crd.spec.scope = "Cluster".into();
    crd
}

/// How the API has ClusterAnalysisTemplates.
#[must_use]
pub fn cluster_analysis_template_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(super::GROUP, "v1alpha1", "ClusterAnalysisTemplate");
    ApiResource::from_gvk_with_plural(&kind, "clusteranalysistemplates")
}

fn yaml(mut crd: CustomResourceDefinition) -> Result<String, serde_saphyr::SerializeError> {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            without_nullable(schema);
        }
    }
    let text = serde_saphyr::to_string(&crd)?;
    Ok(format!("# Generated from src/api by `make generate`.\n# {}\n{text}", crd.name_any()))
}

/// Nothing may be null: the API server drops a null, or puts the default in its place, where `nullable` is not
/// set. Where it is set, a null stays, hides the default, and fails /scale.
fn without_nullable(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(without_nullable);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => without_nullable(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(without_nullable),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        without_nullable(values);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The most bytes that JSON of a schema can have; what is not bounded is put into `open`.
    fn most(path: &str, schema: &JSONSchemaProps, open: &mut Vec<String>) -> i64 {
        match schema.type_.as_deref() {
            Some("string") => {
                let longest = schema.enum_.iter().flatten().map(|it| it.0.to_string().len() as i64).max();
                let stamp = matches!(schema.format.as_deref(), Some("date-time")).then_some(32);
                let Some(most) = longest.or(stamp).or(schema.max_length.map(|most| most + 2)) else {
                    open.push(path.to_owned());
                    return 0;
                };
                most
            }
            Some("array") => {
                let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else { return 2 };
                let Some(count) = schema.max_items else {
                    open.push(path.to_owned());
                    return 2;
                };
                2 + count * (most(&format!("{path}[]"), items, open) + 1)
            }
            Some("object") => {
                let fields = schema.properties.iter().flatten();
                let sizes: Vec<i64> = fields
                    .map(|(name, field)| name.len() as i64 + 4 + most(&format!("{path}.{name}"), field, open))
                    .collect();
                2 + sizes.into_iter().sum::<i64>()
            }
            _ => 20,
        }
    }

    /// INVARIANTS S5, by the schema: whatever happens, etcd and watches carry no more than this for a release.
    #[test]
    fn a_status_is_bounded_in_every_field() {
        let crd = ServiceRelease::crd();
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let status = &schema.properties.as_ref().unwrap()["status"];
        let mut open = Vec::new();
        let bytes = most("status", status, &mut open);
        // Kubernetes' own type; the engine bounds what it puts there.
        open.retain(|path| !path.starts_with("status.conditions[]."));
        assert_eq!(open, Vec::<String>::new());
        assert!(bytes < 146 * 1024, "{bytes}");
    }

    #[test]
    fn the_manifests_under_crds_are_those_of_the_types() {
        for (plural, text) in super::all().unwrap() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds").join(format!("{plural}.yaml"));
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(written == text, "{} is not up to date: run `make generate`", path.display());
        }
    }

    #[test]
    fn client_side_apply_can_hold_them_in_its_annotation() {
        for (plural, text) in super::all().unwrap() {
            assert!(text.len() < 262_144, "{plural} has {} bytes", text.len());
        }
    }
}
