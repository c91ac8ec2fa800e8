//! INVARIANTS.md, checked against the model cluster by number, after every write and every event.

mod commands;
mod database;
mod effects;
mod limits;
mod observation;
mod pods;
mod probes;
mod rest;
mod route;
mod status;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use servicerelease::{
    api::{CommandPhase, ServiceReleaseSpec, ServiceReleaseStatus, Timestamp},
    engine::Effect,
};

use crate::{
    model::cluster::Cluster,
    operator::{Work, Write},
};

pub use observation::ends;
pub use rest::{Rest, is_held_open, may_stay};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub text: String,
}

/// What the checks remember.
#[derive(Default)]
pub struct Checker {
    /// Look for breaches of this rule only.
    only: Option<&'static str>,
    pub violation: Option<Violation>,
    /// Revisions that were given a share of the traffic on record.
    admitted: BTreeSet<String>,
    /// Pods that may exist because there were so many when replicas fell.
    base: i32,
    /// Every command that was decided, by UID.
    decided: BTreeMap<String, CommandPhase>,
    /// Names of commands that existed, with the UID of the first.
    names: BTreeMap<String, String>,
    /// Releases that were aborted.
    aborted: BTreeSet<i64>,
    /// The last number a release was given, and revisions that were ever stable.
    was_stable: BTreeSet<String>,
    failed: BTreeSet<String>,
    letters: BTreeMap<String, char>,
    /// The release object that all this is about.
    uid: String,
    had_traffic: bool,
    /// Services that had pods for their share of the requests.
    had_share: BTreeSet<&'static str>,
    /// Writes to the route, by release.
    route_writes: BTreeMap<i64, usize>,
    /// Until when a lack of pods is not the operator's fault.
    excused_until: i64,
    /// Selectors that a person gave to Services.
    astray: BTreeMap<String, BTreeMap<String, String>>,
    /// Until when pods may follow such a selector that was put back.
    astray_until: i64,
    /// Whether pods may be there that a user asked for behind the operator's back.
    pub meddled: bool,
    /// Whether pods may be doubled, because a blueGreen strategy was there.
    doubled: bool,
    /// How many of the things that changed the database were looked at.
    deeds: usize,
    /// Of which revision nobody is ready after its promotion, and since when.
    unready: Option<(String, Timestamp)>,
    /// When something was answered last as it should be, by what was asked in which release.
    shown: BTreeMap<String, Timestamp>,
}

/// What an effect would break, if it is carried out.
pub type Judged = Vec<(&'static str, String)>;

impl Checker {
    /// Looks for breaches of one rule, or of all.
    pub fn new(only: Option<&'static str>) -> Self {
        Self { only, ..Self::default() }
    }

    pub fn fail(&mut self, rule: &'static str, text: impl Into<String>) {
        if self.violation.is_none() && self.only.is_none_or(|only| only == rule) {
            self.violation = Some(Violation { rule, text: text.into() });
        }
    }

    pub fn require(&mut self, holds: bool, rule: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(rule, text());
        }
    }

    pub fn report(&mut self, judged: Judged) {
        for (rule, text) in judged {
            self.fail(rule, text);
        }
    }

    /// Something happened that takes pods or traffic away without the operator's doing.
    pub fn excuse(&mut self, until: i64) {
        self.excused_until = self.excused_until.max(until);
    }

    /// A person changed a Service's selector: until it is put back, it selects what that person wants.
    pub fn goes_astray(&mut self, cluster: &Cluster, name: &str) {
        let service = cluster.live.services.get(name);
        self.astray.extend(service.map(|service| (name.to_owned(), service.selector.clone())));
        self.astray_until = cluster.now + 20_000;
    }

    /// Whether a Service may select what a person wants, or did so a moment ago.
    pub fn is_astray(&self, cluster: &Cluster) -> bool {
        cluster.now < self.astray_until || self.has_foreign_selector(cluster)
    }

    fn has_foreign_selector(&self, cluster: &Cluster) -> bool {
        self.astray
            .iter()
            .any(|(name, theirs)| cluster.live.services.get(name).is_some_and(|service| service.selector == *theirs))
    }

    /// Looks at a decision before anything of it is carried out.
    pub fn on_decision(&mut self, cluster: &Cluster, work: &Work) {
        self.remember(cluster);
        self.show(work);
        self.decision_order(work);
        self.decision_size(work);
        self.probed(cluster, work);
    }

    /// Looks at an effect before it is carried out; what is found counts only if it succeeds.
    pub fn before_effect(&mut self, cluster: &Cluster, work: &Work, effect: &Effect) -> Judged {
        self.judge_effect(cluster, work, effect)
    }

    pub fn on_effect(&mut self, cluster: &Cluster, write: &Write, work: &Work) {
        if let Write::Before(effect) | Write::After(effect) = write {
            self.answered(work, effect);
            if route::written(effect).is_some() {
                self.count_route_writes(cluster);
            }
        }
    }

    /// Looks at a status that was just stored.
    pub fn on_status(&mut self, cluster: &Cluster, work: &Work) {
        self.remember(cluster);
        self.admit(&work.decision.status);
        self.status_rules(cluster, work);
        self.step_rules(cluster, work);
        self.observation_rules(cluster, work);
        self.revision_rules(cluster, work);
        self.command_rules(work);
        self.approvals(work);
    }

    /// Looks at the cluster as it is, after every event and every write.
    pub fn always(&mut self, cluster: &Cluster) {
        self.remember(cluster);
        self.limits(cluster);
        self.database(cluster);
    }

    fn remember(&mut self, cluster: &Cluster) {
        let uid = cluster.live.release.as_ref().map(|it| it.uid.clone());
        let uid = uid.unwrap_or_default();
        if uid != self.uid {
            // Another object, even under the same name, begins without a past.
            let kept = (self.only, self.violation.take(), self.excused_until);
            let deeds = self.deeds;
            let letters = std::mem::take(&mut self.letters);
            *self = Self { uid, letters, deeds, ..Self::default() };
            (self.only, self.violation, self.excused_until) = kept;
            self.excuse(cluster.now + 60_000);
            let pods = cluster.release_pods().filter_map(|pod| pod.revision());
            self.admitted.extend(pods.map(str::to_owned));
            self.replicas_changed(cluster);
        }
        if self.has_foreign_selector(cluster) {
            self.astray_until = cluster.now + 20_000;
        }
        for set in cluster.live.sets.values() {
            self.letters.entry(set.hash.clone()).or_insert(set.letter);
        }
        for (name, command) in &cluster.live.commands {
            let uid = command.spec.object.uid.clone();
            self.names.entry(name.clone()).or_insert(uid);
        }
    }

    fn admit(&mut self, status: &ServiceReleaseStatus) {
        if let Some(stable) = &status.stable {
            self.admitted.insert(stable.revision.clone());
            self.was_stable.insert(stable.revision.clone());
        }
        if let Some(candidate) = &status.candidate
            && desired(status) > 0
        {
            self.admitted.insert(candidate.revision.clone());
        }
        let failed = status.failed_revisions.iter();
        self.failed.extend(failed.map(|entry| entry.revision.clone()));
    }
}

/// The weight meant for the candidate.
pub fn desired(status: &ServiceReleaseStatus) -> i32 {
    status.weights.map_or(0, |weights| weights.desired.candidate)
}

/// The stored status.
pub fn stored(cluster: &Cluster) -> ServiceReleaseStatus {
    let release = cluster.live.release.as_ref();
    release.and_then(|it| it.status.clone()).unwrap_or_default()
}

/// The template that is asked for.
pub fn wanted_letter(cluster: &Cluster) -> Option<char> {
    let release = cluster.live.release.as_ref()?;
    match &release.spec.template {
        Some(template) => template.spec["containers"][0]["image"].as_str()?.chars().last(),
        None => cluster.live.deployment.as_ref().map(|it| it.letter),
    }
}

/// How many pods are wanted.
pub fn replicas(spec: &ServiceReleaseSpec, status: &ServiceReleaseStatus) -> i32 {
    let adopted = status.workload.as_ref().map(|it| it.adopted_replicas);
    spec.replicas.or(adopted).unwrap_or(1)
}

/// Pods of a revision that were truly available when the observation was counted, except those
/// that were taken away on purpose since: what the engine may rely on.
pub fn reliable(cluster: &Cluster, work: &Work, revision: &str) -> i32 {
    let counted = work.view.counted_at.get(revision).copied();
    let counted = counted.unwrap_or(cluster.now);
    let buried = cluster.graveyard.iter();
    let buried = buried.filter(|pod| pod.revision() == Some(revision));
    let pods = cluster.pods_of(revision).chain(buried).filter(|pod| {
        let by_itself = pod.active() || pod.disrupted || pod.excused || pod.failed;
        by_itself && pod.last_available.is_some_and(|at| at >= counted)
    });
    i32::try_from(pods.count()).unwrap_or(i32::MAX)
}
