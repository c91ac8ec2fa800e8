//! `kubectl srel get`: the list of releases, or one of them as a tree; once, or as it changes.

pub mod pods;
pub mod steps;
pub mod table;
pub mod tree;
pub mod view;
mod watch;

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::{
    args::{self, Format},
    connect::Cluster,
    error::CliError,
    exit,
    outcome::Workload,
    output,
    paint::Paint,
    time,
};
use crate::api::{ServiceRelease, ServiceReleaseSpec};

/// Runs `get`.
///
/// # Errors
/// When what is asked for cannot be read.
pub async fn run(cluster: &Cluster, args: &args::Get) -> Result<u8, CliError> {
    match (&args.name, args.watch) {
        (Some(name), false) => one(cluster, name, args.output).await?,
        (None, false) => list(cluster, args).await?,
        (Some(name), true) => watch::one(cluster, name, args.output).await?,
        (None, true) => watch::list(cluster, args).await?,
    }
    Ok(exit::OK)
}

async fn list(cluster: &Cluster, args: &args::Get) -> Result<(), CliError> {
    let (api, place) = scope(cluster, args.all_namespaces);
    let releases =
        cluster.call(&format!("list the ServiceReleases of {place}"), api.list(&ListParams::default())).await?;
    if releases.items.is_empty() && args.output.is_none() {
        eprintln!("There are no ServiceReleases in {place}.");
        return Ok(());
    }
    output::print(&render_list(&releases.items, args.all_namespaces, args.output, Paint::for_stdout())?)
}

/// The releases that are meant, and what to call them.
fn scope(cluster: &Cluster, all: bool) -> (Api<ServiceRelease>, String) {
    if all {
        (Api::all(cluster.client.clone()), "all namespaces".to_owned())
    } else {
        (cluster.api(), format!("namespace {}", cluster.namespace))
    }
}

fn render_list(
    releases: &[ServiceRelease],
    namespaces: bool,
    format: Option<Format>,
    paint: Paint,
) -> Result<String, CliError> {
    let rows: Vec<table::Row> = releases.iter().map(table::row).collect();
    match format {
        Some(format) => output::format(&json!({ "items": rows }), format),
        None => Ok(table::List::new(namespaces).add(&rows, time::now(), paint)),
    }
}

async fn one(cluster: &Cluster, name: &str, format: Option<Format>) -> Result<(), CliError> {
    let release = cluster.release(name).await?;
    let mut gaps = Vec::new();
    let replica_sets = optional(cluster.of_release(name, "ReplicaSets").await, &mut gaps);
    let pods = optional(cluster.of_release(name, "pods").await, &mut gaps);
    let plan = plan(cluster, &release).await;
    let seen = view::Seen {
        release: &release,
        replica_sets: replica_sets.iter().collect(),
        pods: pods.iter().collect(),
        plan: plan.as_ref(),
        workload: workload(cluster, &release, &mut gaps).await,
        gaps,
    };
    output::print(&render_one(&view::view(&seen), format, Paint::for_stdout())?)
}

fn render_one(view: &view::View, format: Option<Format>, paint: Paint) -> Result<String, CliError> {
    match format {
        Some(format) => output::format(view, format),
        None => Ok(tree::render(view, time::now(), paint)),
    }
}

/// What a viewer may not read is left out, and said so; the release itself is what matters.
fn optional<T>(result: Result<Vec<T>, CliError>, gaps: &mut Vec<String>) -> Vec<T> {
    result.unwrap_or_else(|error| {
        gaps.push(error.to_string());
        Vec::new()
    })
}

/// The spec that is pinned for the release under way. Without it the present spec has to do.
async fn plan(cluster: &Cluster, release: &ServiceRelease) -> Option<ServiceReleaseSpec> {
    let name = release.status.as_ref()?.release.as_ref()?.plan.clone();
    let what = format!("read ControllerRevision {}/{name}", cluster.namespace);
    let revision = cluster.call(&what, cluster.api::<ControllerRevision>().get_opt(&name)).await.ok()??;
    spec_of_plan(&revision)
}

/// The spec in a pinned plan.
pub(super) fn spec_of_plan(revision: &ControllerRevision) -> Option<ServiceReleaseSpec> {
    let data: &Value = &revision.data.as_ref()?.0;
    serde_json::from_value(data.get("spec")?.clone()).ok()
}

async fn workload(cluster: &Cluster, release: &ServiceRelease, gaps: &mut Vec<String>) -> Workload {
    let Some(reference) = &release.spec.workload_ref else { return Workload::None };
    let what = format!("read Deployment {}/{}", cluster.namespace, reference.name);
    match cluster.call(&what, cluster.api::<Deployment>().get_opt(&reference.name)).await {
        Ok(Some(deployment)) => Workload::Generation(deployment.metadata.generation.unwrap_or_default()),
        Ok(None) => Workload::Missing,
        Err(error) => {
            gaps.push(format!("whether the status is up to date is not known: {error}"));
            Workload::Missing
        }
    }
}
