//! The CustomResourceDefinitions as YAML, as they stand under `crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt as _, ResourceExt as _};

use super::{ReleaseCommand, ServiceRelease};

/// The resources' plurals with their definitions.
///
/// # Errors
/// If one cannot be written as YAML.
pub fn all() -> Result<Vec<(&'static str, String)>, serde_saphyr::SerializeError> {
    Ok(vec![("servicereleases", yaml(&ServiceRelease::crd())?), ("releasecommands", yaml(&ReleaseCommand::crd())?)])
}

fn yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::SerializeError> {
    let text = serde_saphyr::to_string(crd)?;
    Ok(format!("# Generated from src/api by `make generate`.\n# {}\n{text}", crd.name_any()))
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
