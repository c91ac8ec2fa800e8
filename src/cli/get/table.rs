//! The list of releases: one line each. Pure.

use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    api::{Phase, ServiceRelease, Timestamp},
    cli::{
        output::{Cell, table},
        paint::{Paint, Tone},
        time,
    },
};

/// A line of the list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// The phase.
    pub phase: Phase,
    /// Place and name of the step under way.
    pub step: String,
    /// The candidate's desired share of the traffic in percent, while there is a candidate.
    pub weight: Option<i32>,
    /// Ready and wanted pods of stable.
    pub ready: String,
    /// The image of the first container of what serves.
    pub image: String,
    /// Why, in a word; or that the status is not about this spec yet.
    pub reason: String,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// A release as a line.
#[must_use]
pub fn row(release: &ServiceRelease) -> Row {
    let status = release.status.clone().unwrap_or_default();
    let unseen = status.observed_generation < release.metadata.generation.unwrap_or_default();
    let under_way = status.candidate.is_some();
    let stable = status.stable.as_ref();
    Row {
        namespace: release.namespace().unwrap_or_default(),
        name: release.name_any(),
        phase: status.phase,
        step: status.step.filter(|_| under_way).map(|step| step.summary).unwrap_or_default(),
        weight: status.weights.filter(|_| under_way).map(|weights| weights.desired.candidate),
        ready: stable.map(|stable| format!("{}/{}", stable.ready_replicas, stable.replicas)).unwrap_or_default(),
        image: stable.and_then(|stable| stable.images.first().cloned()).unwrap_or_default(),
        reason: if unseen { "NotSeenYet".to_owned() } else { status.reason },
        created: release.creation_timestamp().as_ref().map(time::of),
    }
}

/// The colour of a phase.
#[must_use]
pub const fn tone(phase: Phase) -> Tone {
    match phase {
        Phase::Healthy => Tone::Good,
        Phase::Pending | Phase::Progressing | Phase::Promoting => Tone::Busy,
        Phase::AwaitingApproval | Phase::Paused => Tone::Warn,
        Phase::RollingBack | Phase::RolledBack | Phase::Halted | Phase::Invalid => Tone::Bad,
    }
}

/// All lines, with the namespace if there can be several.
#[must_use]
pub fn render(rows: &[Row], namespaces: bool, now: Timestamp, paint: Paint) -> String {
    let mut header = vec!["NAME", "PHASE", "STEP", "WEIGHT", "READY", "IMAGE", "REASON", "AGE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let cells = |row: &Row| {
        let age = row.created.map(|created| time::rough(now.since(created))).unwrap_or_default();
        let mut cells = vec![
            Cell::from(row.name.as_str()),
            Cell::toned(format!("{:?}", row.phase), tone(row.phase)),
            Cell::from(row.step.as_str()),
            Cell::from(row.weight.map(|weight| format!("{weight}%")).unwrap_or_default()),
            Cell::from(row.ready.as_str()),
            Cell::from(row.image.as_str()),
            Cell::from(row.reason.as_str()),
            Cell::from(age),
        ];
        if namespaces {
            cells.insert(0, Cell::from(row.namespace.as_str()));
        }
        cells
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), paint)
}
