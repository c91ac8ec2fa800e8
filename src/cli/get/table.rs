//! The list of releases: one line each. Pure.

use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    api::{Phase, ServiceRelease, Timestamp},
    cli::{
        output::{Cell, Columns},
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
        weight: status.weights.filter(|_| under_way).map(|weights| weights.observed.candidate),
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
        Phase::Healthy | Phase::Observing => Tone::Good,
        Phase::Pending | Phase::Preflight | Phase::Database | Phase::Progressing | Phase::Promoting => Tone::Busy,
        Phase::AwaitingApproval | Phase::Paused => Tone::Warn,
        Phase::RollingBack | Phase::RolledBack | Phase::Halted | Phase::Invalid => Tone::Bad,
    }
}

/// The list, whole or bit by bit; with the namespace if there can be several.
#[derive(Debug, Default)]
pub struct List {
    namespaces: bool,
    begun: bool,
    columns: Columns,
}

impl List {
    /// An empty list.
    #[must_use]
    pub fn new(namespaces: bool) -> Self {
        Self { namespaces, ..Self::default() }
    }

    /// Some rows; the titles stand over the first ones.
    pub fn add(&mut self, rows: &[Row], now: Timestamp, paint: Paint) -> String {
        let mut header = vec!["NAME", "PHASE", "STEP", "WEIGHT", "READY", "IMAGE", "REASON", "AGE"];
        if self.namespaces {
            header.insert(0, "NAMESPACE");
        }
        let rows: Vec<Vec<Cell>> = rows.iter().map(|row| cells(row, self.namespaces, now)).collect();
        let titles = if self.begun { String::new() } else { self.columns.header(&header, &rows, paint) };
        self.begun = true;
        titles + &self.columns.body(&rows, paint)
    }
}

fn cells(row: &Row, namespaces: bool, now: Timestamp) -> Vec<Cell> {
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
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn listed(name: &str, generation: i64, status: Value) -> Row {
        let release = json!({
            "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease", "spec": {}, "status": status,
            "metadata": {"name": name, "namespace": "production", "generation": generation, "creationTimestamp": "2026-01-02T03:04:05Z"},
        });
        row(&serde_json::from_value(release).unwrap())
    }

    fn now() -> Timestamp {
        serde_json::from_value(json!("2026-01-02T05:04:05Z")).unwrap()
    }

    #[test]
    fn the_list_answers_the_first_questions() {
        let stable = json!({"revision": "aaa", "replicas": 4, "readyReplicas": 3, "images": ["shop:1"]});
        let rows = [
            listed("shop", 2, json!({"phase": "Healthy", "observedGeneration": 2, "stable": stable})),
            listed(
                "billing",
                2,
                json!({
                    "phase": "Progressing", "observedGeneration": 2, "reason": "PauseStep", "stable": stable, "candidate": {"revision": "bbb"},
                    "step": {"index": 3, "of": 5, "name": "pause", "summary": "3/5 pause", "startedAt": "2026-01-02T03:04:05Z", "fromWeight": 0},
                    "weights": {"desired": {"stable": 75, "candidate": 25}, "observed": {"stable": 75, "candidate": 25}},
                }),
            ),
            listed("changed-just-now", 3, json!({"phase": "Healthy", "observedGeneration": 2, "stable": stable})),
            listed("new", 1, json!({})),
        ];
        insta::assert_snapshot!(List::new(false).add(&rows, now(), Paint::plain()), @"
        NAME               PHASE         STEP        WEIGHT   READY   IMAGE    REASON       AGE
        shop               Healthy       -           -        3/4     shop:1   -            2h
        billing            Progressing   3/5 pause   25%      3/4     shop:1   PauseStep    2h
        changed-just-now   Healthy       -           -        3/4     shop:1   NotSeenYet   2h
        new                Pending       -           -        -       -        NotSeenYet   2h
        ");
        let mut list = List::new(true);
        list.add(&rows, now(), Paint::plain());
        insta::assert_snapshot!(list.add(&rows[..1], now(), Paint::plain()), @"production   shop               Healthy       -           -        3/4     shop:1   -            2h");
    }
}
