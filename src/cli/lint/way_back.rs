//! A migration that is taken back by itself, with what the new version has written since.

use super::{Finding, Severity, yaml::Node};
use crate::{
    api::{Change, MigrationApproval, OnRollback, ServiceRelease},
    database::migrate::{files, risks},
};

/// Looks at a release, beside all documents that were given.
pub fn advise(release: &ServiceRelease, document: &Node, all: &[&Node], found: &mut Vec<Finding>) {
    let Some(database) = &release.spec.database else { return };
    let asks = database.approval_down() != MigrationApproval::Never;
    if asks || database.backup.is_some() || database.on_rollback() != OnRollback::MigrateDown {
        return;
    }
    let Some(down) = database.migration_down.as_ref().filter(|down| may_lose(&down.change, all)) else { return };
    let field =
        if down.approval.is_some() { "spec.database.migrationDown.approval" } else { "spec.database.migrationDown" };
    let message = "it may lose data, nobody is asked, and without backup nothing of them is kept: add backup, or set migrationDown.approval to WhenDataLoss";
    found.push(Finding {
        place: document.find(field),
        field: field.to_owned(),
        severity: Severity::Warning,
        rule: "loses-data",
        message: message.to_owned(),
    });
}

/// Whether what takes it back may lose data: that of a pod nobody knows, nor files that were not given.
fn may_lose(down: &Change, all: &[&Node]) -> bool {
    let files = down.sql.as_ref().and_then(|sql| given(&sql.config_map, all));
    files.is_none_or(|files| risks::told(&files, false).1)
}

/// The files of a ConfigMap that was given that take a migration back.
fn given(name: &str, all: &[&Node]) -> Option<Vec<files::File>> {
    let is = |map: &Node, path: &[&str], text: &str| map.at(path).and_then(Node::text) == Some(text);
    let map = all.iter().find(|map| is(map, &["kind"], "ConfigMap") && is(map, &["metadata", "name"], name))?;
    let data = map.to_json_without_nulls()["data"].as_object()?.clone();
    let down = data.into_iter().filter(|(key, _)| key.ends_with(".down.sql"));
    files::ordered(down.filter_map(|(key, text)| Some((key, text.as_str()?.to_owned()))).collect()).ok()
}
