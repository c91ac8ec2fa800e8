//! Reads the AnalysisTemplates that a release names, when it begins. Nobody watches them: they are needed once in
//! a release, and one that is missing is looked for again.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    api::{AnalysisTemplateSpec, ServiceRelease},
    engine::{self, NamedTemplate, Observed},
};

use super::{
    calls::{CallError, Calls, Place},
    key::Key,
};

/// How soon a template that is missing, or cannot be read, is looked for again.
pub const AGAIN: Duration = Duration::from_secs(10);

/// A template as the API server has it.
#[derive(Debug, Deserialize)]
struct Template {
    spec: AnalysisTemplateSpec,
}

/// Reads the templates, if they are wanted now. Says whether one is not there, or not readable.
///
/// # Errors
/// The API server does not answer.
pub async fn read(
    calls: &Calls,
    key: &Key,
    release: &ServiceRelease,
    observed: &mut Observed,
) -> Result<bool, CallError> {
    if !engine::wants_templates(release, observed) {
        return Ok(false);
    }
    let mut lacks = false;
    for (index, reference) in release.spec.analysis.iter().flat_map(|analysis| analysis.templates.iter().enumerate()) {
        let place = Place::analysis_template(key, &reference.template_name, reference.cluster_scope);
        let unreadable = match calls.get::<serde_json::Value>(&place).await {
            Ok(object) => match serde_json::from_value::<Template>(object) {
                Ok(template) => {
                    let name = reference.template_name.clone();
                    let cluster_scope = reference.cluster_scope;
                    observed.templates.push(NamedTemplate { name, cluster_scope, spec: template.spec });
                    continue;
                }
                Err(error) => Some(format!("it is not understood: {error}")),
            },
            Err(CallError::Missing { .. }) => None,
            Err(CallError::Refused { message, .. }) => Some(message),
            Err(error) => return Err(error),
        };
        lacks = true;
        let told = unreadable.map(|why| format!("spec.analysis.templates[{index}]: {}: {why}", place.describe("get")));
        observed.template_unreadable = observed.template_unreadable.take().or(told);
    }
    Ok(lacks)
}
