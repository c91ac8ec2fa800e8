//! A release as plain values, put together from the API's objects. Pure; what `-o json` prints and
//! what the tree is drawn from.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::ResourceExt as _;
use serde::Serialize;

use super::{
    pods::{PodView, view as pod_view},
    steps::{self, StepView},
};
use crate::{
    api::{
        CheckStatus, FailedRevision, Hold, LABEL_JOB, LABEL_REVISION, Phase, ReleaseStatus, RevisionStatus,
        RollbackStatus, RouteStatus, ServiceRelease, ServiceReleaseSpec, ServiceReleaseStatus, Suspension,
        TimelineEntry, Timestamp, VerdictStatus, Weights,
    },
    cli::{outcome::Workload, time},
    engine::plan::Situation,
};

/// Everything that belongs to one release.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The release.
    pub release: &'a ServiceRelease,
    /// Its ReplicaSets.
    pub replica_sets: Vec<&'a ReplicaSet>,
    /// Its pods.
    pub pods: Vec<&'a Pod>,
    /// The spec that is pinned for the release under way, if it could be read.
    pub plan: Option<&'a ServiceReleaseSpec>,
    /// The adopted Deployment.
    pub workload: Workload,
    /// What could not be read.
    pub gaps: Vec<String>,
}

/// A release, its revisions and their pods.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// The phase.
    pub phase: Phase,
    /// Why, in a word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What a person can do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_action: String,
    /// Why the status is not about the spec as it is now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outdated: Option<String>,
    /// What could not be read, so that parts are missing here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
    /// Pods wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The release under way, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseStatus>,
    /// Where it is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepView>,
    /// The shares of the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// What shares the requests exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteStatus>,
    /// The last outcome of each check.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckStatus>,
    /// The last verdict of each metric.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<VerdictStatus>,
    /// A failure that is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// A pause by command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// The rollback under way, or the one that ended the last release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackStatus>,
    /// Candidate, stable, previous, then others that still have pods.
    pub revisions: Vec<RevisionView>,
    /// The conditions.
    pub conditions: Vec<ConditionView>,
    /// Revisions that failed and are not tried again by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedRevision>,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Entries that the status no longer has.
    pub timeline_dropped: i64,
}

/// A revision.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionView {
    /// candidate, stable, previous or old.
    pub role: &'static str,
    /// The hash.
    pub revision: String,
    /// The release that brought it.
    #[serde(skip_serializing_if = "is_zero")]
    pub release: i64,
    /// Its ReplicaSet, if it still exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_set: Option<String>,
    /// The images.
    pub images: Vec<String>,
    /// Pods asked for.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that have been ready for long enough.
    pub available: i32,
    /// Until when its pods stay without traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining_until: Option<Timestamp>,
    /// Whether that is for an undo (rollback.keepPrevious), and no connection holds them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// Its pods.
    pub pods: Vec<PodView>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A condition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// Puts a release together.
#[must_use]
pub fn view(seen: &Seen<'_>) -> View {
    let release = seen.release;
    let status = release.status.clone().unwrap_or_default();
    let outdated = match crate::cli::outcome::judge(release, seen.workload) {
        crate::cli::outcome::Outcome::Unseen(why) => Some(why),
        _ => None,
    };
    let step = status.step.as_ref().map(|step| {
        let plan = seen.plan.unwrap_or(&release.spec);
        steps::view(step, plan, Situation::under_way(&status))
    });
    View {
        namespace: release.namespace().unwrap_or_default(),
        name: release.name_any(),
        phase: status.phase,
        reason: status.reason.clone(),
        message: status.message.clone(),
        next_action: status.next_action.clone(),
        outdated,
        gaps: seen.gaps.clone(),
        replicas: release.spec.replicas,
        step: step.filter(|_| status.candidate.is_some()),
        weights: status.weights,
        route: status.route.clone(),
        checks: status.checks.clone(),
        verdicts: status.verdicts.clone(),
        hold: status.hold.clone(),
        suspended: status.suspended.clone(),
        rollback: status.rollback.clone(),
        revisions: revisions(seen, &status),
        conditions: conditions(&status),
        failed: status.failed_revisions.iter().filter(|failed| failed.latched).cloned().collect(),
        timeline: status.timeline.clone(),
        timeline_dropped: status.timeline_dropped,
        release: status.release,
    }
}

fn conditions(status: &ServiceReleaseStatus) -> Vec<ConditionView> {
    let conditions = status.conditions.iter();
    conditions
        .map(|condition| ConditionView {
            kind: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: time::of(&condition.last_transition_time),
        })
        .collect()
}

fn revisions(seen: &Seen<'_>, status: &ServiceReleaseStatus) -> Vec<RevisionView> {
    let mut pods: BTreeMap<String, Vec<PodView>> = BTreeMap::new();
    // Those of Jobs are of no revision.
    for pod in seen.pods.iter().filter(|pod| !pod.labels().contains_key(LABEL_JOB)) {
        let revision = pod.labels().get(LABEL_REVISION).cloned().unwrap_or_default();
        pods.entry(revision).or_default().push(pod_view(pod));
    }
    let sets: BTreeMap<&str, &ReplicaSet> =
        seen.replica_sets.iter().filter_map(|set| Some((set.labels().get(LABEL_REVISION)?.as_str(), *set))).collect();
    let named = [("candidate", &status.candidate), ("stable", &status.stable), ("previous", &status.previous)];
    let mut views: Vec<RevisionView> = Vec::new();
    for (role, known) in named {
        let Some(known) = known else { continue };
        if views.iter().any(|view| view.revision == known.revision) {
            continue;
        }
        let pods = pods.remove(&known.revision).unwrap_or_default();
        views.push(of_status(role, known, sets.get(known.revision.as_str()).copied(), pods));
    }
    let known: Vec<String> = views.iter().map(|view| view.revision.clone()).collect();
    for (revision, set) in sets.iter().filter(|(revision, _)| !known.iter().any(|known| known == *revision)) {
        let pods = pods.remove(*revision).unwrap_or_default();
        let view = of_set(revision, set, pods);
        if view.replicas > 0 || !view.pods.is_empty() {
            views.push(view);
        }
    }
    for (revision, pods) in pods {
        let ready = i32::try_from(pods.iter().filter(|pod| pod.ready).count()).unwrap_or(i32::MAX);
        views.push(RevisionView { revision, ready, pods, ..empty("old") });
    }
    for view in &mut views {
        let draining = status.draining.iter().find(|draining| draining.revision == view.revision);
        view.draining_until = draining.map(|draining| draining.until);
        view.kept = draining.is_some_and(|draining| draining.kept_from.is_some());
    }
    views
}

fn empty(role: &'static str) -> RevisionView {
    RevisionView {
        role,
        revision: String::new(),
        release: 0,
        replica_set: None,
        images: Vec::new(),
        replicas: 0,
        ready: 0,
        available: 0,
        draining_until: None,
        kept: false,
        pods: Vec::new(),
    }
}

/// The numbers of the ReplicaSet are fresher than those of the status, and used if it was read.
fn of_status(role: &'static str, known: &RevisionStatus, set: Option<&ReplicaSet>, pods: Vec<PodView>) -> RevisionView {
    let fresh = set.map(|set| of_set(&known.revision, set, Vec::new()));
    RevisionView {
        role,
        revision: known.revision.clone(),
        release: known.release,
        replica_set: fresh.as_ref().and_then(|fresh| fresh.replica_set.clone()),
        images: known.images.clone(),
        replicas: fresh.as_ref().map_or(known.replicas, |fresh| fresh.replicas),
        ready: fresh.as_ref().map_or(known.ready_replicas, |fresh| fresh.ready),
        available: fresh.as_ref().map_or(known.available_replicas, |fresh| fresh.available),
        pods,
        ..empty(role)
    }
}

fn of_set(revision: &str, set: &ReplicaSet, pods: Vec<PodView>) -> RevisionView {
    let spec = set.spec.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref()?.spec.as_ref());
    let images = template.map(|pod| pod.containers.iter().filter_map(|container| container.image.clone()).collect());
    let status = set.status.as_ref();
    RevisionView {
        revision: revision.to_owned(),
        replica_set: Some(set.name_any()),
        images: images.unwrap_or_default(),
        replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        available: status.and_then(|status| status.available_replicas).unwrap_or(0),
        pods,
        ..empty("old")
    }
}
