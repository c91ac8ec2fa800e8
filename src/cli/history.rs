//! `kubectl srel history`: the releases so far, from the pinned plans and what the status remembers.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::ResourceExt as _;
use serde::Serialize;

use super::{
    args,
    connect::Cluster,
    error::CliError,
    exit, output,
    output::{Cell, table},
    paint::{Paint, Tone},
    time,
};
use crate::api::{Phase, ServiceRelease, ServiceReleaseStatus, TimelineEntry, Timestamp};

/// Everything that is known of the past.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// Why the plans could not be read, so that only what the status remembers is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
    /// The releases, oldest first.
    pub releases: Vec<Attempt>,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Entries that the status no longer has.
    pub timeline_dropped: i64,
}

/// One release.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Its number.
    pub number: i64,
    /// The revision.
    pub revision: String,
    /// The images.
    pub images: Vec<String>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// How it ended.
    pub outcome: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Runs `history`.
///
/// # Errors
/// When the release cannot be read.
pub async fn run(cluster: &Cluster, args: &args::History) -> Result<u8, CliError> {
    let release = cluster.release(&args.name).await?;
    let (plans, gap) = match cluster.of_release::<ControllerRevision>(&args.name, "ControllerRevisions").await {
        Ok(plans) => (plans, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let history = History { gap, ..collect(&release, &plans) };
    match args.output {
        Some(format) => output::print(&output::format(&history, format)?)?,
        None => output::print(&render(&history, Paint::for_stdout()))?,
    }
    Ok(exit::OK)
}

/// Puts the history together. A release is known by its plan, or by what the status remembers of it.
#[must_use]
pub fn collect(release: &ServiceRelease, plans: &[ControllerRevision]) -> History {
    let status = release.status.clone().unwrap_or_default();
    let mut attempts: BTreeMap<i64, Attempt> = BTreeMap::new();
    for plan in plans {
        let attempt = of_plan(plan);
        attempts.insert(attempt.number, attempt);
    }
    for (number, revision) in remembered(&status) {
        let attempt = attempts.entry(number).or_insert_with(|| Attempt { number, ..Attempt::default() });
        if attempt.revision.is_empty() {
            attempt.revision = revision;
        }
    }
    for attempt in attempts.values_mut() {
        complete(attempt, &status);
    }
    History {
        namespace: release.namespace().unwrap_or_default(),
        name: release.name_any(),
        gap: None,
        releases: attempts.into_values().collect(),
        timeline: status.timeline,
        timeline_dropped: status.timeline_dropped,
    }
}

fn of_plan(plan: &ControllerRevision) -> Attempt {
    let data = plan.data.as_ref().map(|data| &data.0);
    let text = |pointer: &str| data.and_then(|data| data.pointer(pointer)?.as_str()).unwrap_or_default().to_owned();
    let containers = data.and_then(|data| data.pointer("/template/spec/containers")?.as_array());
    let images = containers.into_iter().flatten().filter_map(|container| container.get("image")?.as_str());
    Attempt {
        number: plan.revision,
        revision: text("/revision"),
        images: images.map(str::to_owned).collect(),
        started: plan.creation_timestamp().as_ref().map(time::of),
        ..Attempt::default()
    }
}

/// Number and revision of every release that the status speaks of.
fn remembered(status: &ServiceReleaseStatus) -> Vec<(i64, String)> {
    let current = status.release.iter().map(|release| (release.number, release.revision.clone()));
    let failed = status.failed_revisions.iter().map(|failed| (failed.release, failed.revision.clone()));
    let stable = status.history.iter().map(|stable| (stable.release, stable.revision.clone()));
    current.chain(failed).chain(stable).filter(|(number, _)| *number > 0).collect()
}

fn complete(attempt: &mut Attempt, status: &ServiceReleaseStatus) {
    let number = attempt.number;
    let entries = || status.timeline.iter().filter(|entry| entry.release == number);
    if let Some(current) = status.release.as_ref().filter(|release| release.number == number) {
        attempt.started = Some(current.started_at);
    } else if attempt.started.is_none() {
        attempt.started = entries().map(|entry| entry.at).min();
    }
    let known = [&status.stable, &status.candidate, &status.previous].into_iter().flatten();
    if attempt.images.is_empty()
        && let Some(revision) = known.into_iter().find(|revision| revision.revision == attempt.revision)
    {
        attempt.images.clone_from(&revision.images);
    }
    (attempt.outcome, attempt.detail) = outcome(attempt, status);
}

/// How a release ended, and why.
fn outcome(attempt: &Attempt, status: &ServiceReleaseStatus) -> (String, String) {
    let number = attempt.number;
    let current = status.release.as_ref().is_some_and(|release| release.number == number);
    if current && status.candidate.is_some() {
        return (
            format!("{:?}", status.phase),
            status.step.as_ref().map(|step| step.summary.clone()).unwrap_or_default(),
        );
    }
    let rollback =
        status.rollback.as_ref().filter(|rollback| rollback.release == number && rollback.revision == attempt.revision);
    if let Some(rollback) = rollback {
        return (format!("{:?}", rollback.cause), signed(&rollback.message, rollback.by.as_deref()));
    }
    let failed = status.failed_revisions.iter().rev().find(|failed| failed.release == number);
    if let Some(failed) = failed {
        return match failed.reason.as_str() {
            reason @ ("Aborted" | "Undone") => (reason.to_owned(), failed.message.clone()),
            reason => ("Failed".to_owned(), format!("{reason}: {}", failed.message)),
        };
    }
    // Its revision was released once more since.
    let of = |kind: &str| status.timeline.iter().rev().find(|entry| entry.release == number && entry.kind == kind);
    if let (Some(end), Some(begin)) = (of("RolledBack"), of("RollingBack")) {
        return (end.kind.clone(), signed(&begin.message, begin.by.as_deref()));
    }
    let serves =
        status.stable.as_ref().is_some_and(|stable| stable.revision == attempt.revision && stable.release == number);
    if serves {
        return ("Serves".to_owned(), String::new());
    }
    if let Some(stable) = status.history.iter().find(|stable| stable.release == number) {
        return ("Promoted".to_owned(), format!("stable from {}", stable.at));
    }
    let last = status.timeline.iter().rev().find(|entry| entry.release == number && is_end(&entry.kind));
    match last {
        Some(entry) => (entry.kind.clone(), entry.message.clone()),
        None if current && status.phase != Phase::Healthy => (format!("{:?}", status.phase), status.message.clone()),
        None => ("Unknown".to_owned(), "before what the status remembers".to_owned()),
    }
}

/// What happened, and who wanted it.
fn signed(message: &str, by: Option<&str>) -> String {
    let by = by.filter(|by| !message.contains(by)).map(|by| format!(" (by {by})"));
    format!("{message}{}", by.unwrap_or_default())
}

/// Timeline entries that end a release.
fn is_end(kind: &str) -> bool {
    matches!(kind, "Promoted" | "RolledBack" | "Superseded" | "Aborted" | "Failed" | "Undone")
}

/// The table and the timeline.
#[must_use]
pub fn render(history: &History, paint: Paint) -> String {
    let gap = history.gap.as_ref().map(|gap| paint.text(Tone::Warn, &format!("Incomplete: {gap}")) + "\n");
    gap.unwrap_or_default() + &tables(history, paint)
}

fn tables(history: &History, paint: Paint) -> String {
    if history.releases.is_empty() {
        return format!("{}/{} has not been released yet.\n", history.namespace, history.name);
    }
    let row = |attempt: &Attempt| {
        let tone = match attempt.outcome.split([' ', ':']).next().unwrap_or_default() {
            "Serves" | "Promoted" => Tone::Good,
            "Progressing" | "Promoting" | "Pending" => Tone::Busy,
            "Paused" | "AwaitingApproval" | "Superseded" => Tone::Warn,
            "Unknown" => Tone::Faint,
            _ => Tone::Bad,
        };
        vec![
            Cell::from(attempt.number.to_string()),
            Cell::from(attempt.revision.as_str()),
            Cell::from(attempt.images.join(", ")),
            Cell::from(attempt.started.map(short).unwrap_or_default()),
            Cell::toned(attempt.outcome.as_str(), tone),
            Cell::from(attempt.detail.as_str()),
        ]
    };
    let rows: Vec<Vec<Cell>> = history.releases.iter().map(row).collect();
    let mut text = table(&["RELEASE", "REVISION", "IMAGES", "STARTED", "OUTCOME", "DETAIL"], &rows, paint);
    if history.timeline.is_empty() {
        return text;
    }
    text.push('\n');
    if history.timeline_dropped > 0 {
        text += &format!("({} older entries are no longer kept)\n", history.timeline_dropped);
    }
    let entry = |entry: &TimelineEntry| {
        let by = entry.by.as_ref().map(|by| format!(" (by {by})")).unwrap_or_default();
        vec![
            Cell::from(short(entry.at)),
            Cell::from(entry.release.to_string()),
            Cell::from(entry.kind.as_str()),
            Cell::from(format!("{}{by}", entry.message)),
        ]
    };
    let rows: Vec<Vec<Cell>> = history.timeline.iter().map(entry).collect();
    text + &table(&["TIME", "RELEASE", "EVENT", "MESSAGE"], &rows, paint)
}

/// To the second, in UTC.
fn short(at: Timestamp) -> String {
    format!("{:.0}", at.inner())
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
