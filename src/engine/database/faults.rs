//! What is wrong with the database's part of a manifest beyond what the CRD's schema says.

use crate::api::{OnRollback, ServiceReleaseSpec, Strategy};

use super::super::{invalid::Obstacle, pass::Pass, retreat};

/// The first thing that is wrong.
pub fn find(pass: &Pass<'_>) -> Option<Obstacle> {
    maintenance(&pass.release.spec).or_else(|| alone(pass)).or_else(|| maps(pass))
}

/// A migration that the code that serves cannot live with, and no other code with it: maintenance mode would end over the code
/// that does not fit. A release under way is none of this one's business.
pub fn alone(pass: &Pass<'_>) -> Option<Obstacle> {
    let migration = pass.release.spec.database.as_ref()?.migration.as_ref()?;
    if migration.previous_revision_compatible || pass.is_under_way() || retreat::under_way(pass) {
        return None;
    }
    let identity = super::alone::is_due(pass)?;
    let stable = pass.stable_hash().unwrap_or_default();
    Some(Obstacle::new(
        "MigrationNeedsCode",
        format!(
            "spec.database.migration: previousRevisionCompatible is false, and migration {identity} comes without other code: {stable} serves, and would on a schema that it does not fit"
        ),
        "the migration comes with the template of the code that fits it: change spec.template (or the workload) in the same apply, or set previousRevisionCompatible: true",
    ))
}

/// A migration that the code before cannot live with needs maintenance mode, which no canary goes with.
pub fn maintenance(spec: &ServiceReleaseSpec) -> Option<Obstacle> {
    let database = spec.database.as_ref()?;
    let routed = spec.traffic.as_ref().is_some_and(|traffic| traffic.maintenance.is_some());
    let there = routed || spec.maintenance.is_some();
    if database.on_rollback == Some(OnRollback::Restore) && !there {
        return Some(Obstacle::new(
            "MaintenanceMissing",
            "spec.database.onRollback: a backup is restored in maintenance mode, and there is none".into(),
            "say what maintenance mode is: spec.traffic.maintenance or spec.maintenance",
        ));
    }
    database.migration.as_ref().filter(|migration| !migration.previous_revision_compatible)?;
    if !there {
        return Some(Obstacle::new(
            "MaintenanceMissing",
            "spec.database.migration: it runs while the code before serves, and is not declared compatible with it"
                .into(),
            "set previousRevisionCompatible: true if the code before runs on the new schema (expand first, contract in a later release); else say what maintenance mode is: spec.traffic.maintenance or spec.maintenance",
        ));
    }
    let canary = match &spec.strategy {
        Some(Strategy { canary: Some(canary), .. }) => !canary.steps.is_empty(),
        _ => false,
    };
    canary.then(|| {
        Obstacle::new(
            "CanaryNeedsCompatibility",
            "spec.strategy.canary: old and new code would serve side by side on a schema that only one of them knows".into(),
            "set database.migration.previousRevisionCompatible if it is so, or use blueGreen, or a canary without steps",
        )
    })
}

/// ConfigMaps that are written have the release's label.
fn maps(pass: &Pass<'_>) -> Option<Obstacle> {
    let spec = &pass.release.spec;
    let mode = spec.maintenance.as_ref().map(|mode| ("spec.maintenance.configMap.name", &mode.config_map.name));
    let flags = spec.flags.as_ref().map(|flags| ("spec.flags.configMap", &flags.config_map));
    let known = |name: &str| pass.seen.config_maps.iter().any(|map| map.object.name == name);
    let (field, name) = mode.into_iter().chain(flags).find(|(_, name)| !known(name))?;
    let release = pass.release.metadata.name.as_deref().unwrap_or_default();
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or("default");
    let message = format!(
        "{field}: there is no ConfigMap {name} with the label {}={release}, by which its owner agrees that keys of it are set",
        crate::api::LABEL_RELEASE
    );
    let remedy = format!("kubectl -n {namespace} label configmap {name} {}={release}", crate::api::LABEL_RELEASE);
    Some(Obstacle::new("ConfigMapMissing", message, &remedy))
}
