//! The CustomResourceDefinitions as YAML, as they stand under `crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt as _, ResourceExt as _};

use super::{ReleaseCommand, ServiceRelease};

/// The resources' plurals with their definitions.
///
/// # Errors
/// If one cannot be written as YAML.
pub fn all() -> Result<Vec<(&'static str, String)>, serde_saphyr::SerializeError> {
    Ok(vec![("servicereleases", yaml(ServiceRelease::crd())?), ("releasecommands", yaml(ReleaseCommand::crd())?)])
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
