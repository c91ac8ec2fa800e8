//! One pass over one release: what is looked at, and what has been decided so far. The stages
//! (`rest`, `forward`, `retreat`, `hand_back`) write into it.

use crate::api::{
    Duration, RevisionStatus, ServiceRelease, ServiceReleaseSpec, ServiceReleaseStatus, Timestamp, Traffic,
    WeightShare, Weights,
    status::{MAX_IMAGES, MAX_TEXT, bounded},
};

use super::{
    database::{Due, undo::Standing},
    effect::{Decision, Effect, Event, NewReplicaSet},
    inquiry::Question,
    invalid::Obstacle,
    observed::{NamedTemplate, Observed, Plan, Revision, Template, TemplateCheck},
    plan::{Policy, Situation},
    ratio::Bounds,
    revision::{self, Target},
    traffic::Traffics,
};

/// See the module.
pub struct Pass<'a> {
    /// The object as it was read.
    pub release: &'a ServiceRelease,
    /// The world as it was read.
    pub seen: &'a Observed,
    /// The time that it is.
    pub now: Timestamp,
    /// What the spec wants to run.
    pub target: Option<Target>,
    /// Why the spec cannot be acted on.
    pub obstacle: Option<Obstacle>,
    /// The status to be written.
    pub status: ServiceReleaseStatus,
    /// Effects that make things safer.
    pub before: Vec<Effect>,
    /// Effects that must be on record first.
    pub after: Vec<Effect>,
    /// For people who watch.
    pub events: Vec<Event>,
    /// What is to be asked.
    pub questions: Vec<Question>,
    /// The step is done, but what is measured does not let the weight rise.
    pub unproven: Option<(&'static str, String)>,
    /// How the database stands on the way back.
    pub standing: Option<Standing>,
    /// Whether traffic waits for maintenance mode on its way back.
    pub held: bool,
    wake: Option<Timestamp>,
}

impl<'a> Pass<'a> {
    /// A pass that has decided nothing yet.
    pub fn new(release: &'a ServiceRelease, seen: &'a Observed, now: Timestamp) -> Self {
        Self {
            release,
            seen,
            now,
            target: revision::target(release, seen),
            obstacle: None,
            status: release.status.clone().unwrap_or_default(),
            before: Vec::new(),
            after: Vec::new(),
            events: Vec::new(),
            questions: Vec::new(),
            unproven: None,
            standing: None,
            held: false,
            wake: None,
        }
    }

    /// What was decided.
    pub fn finish(self) -> Decision {
        let Self { before, status, after, events, questions, wake, .. } = self;
        Decision { before, status, after, events, questions, wake }
    }

    /// Looks again at `time` at the latest.
    pub fn wake_at(&mut self, time: Timestamp) {
        if time > self.now {
            self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
        }
    }

    /// Whether `duration` has passed since `start`; if not, looks again then.
    pub fn elapsed(&mut self, start: Timestamp, duration: Duration) -> bool {
        let end = start.plus(duration);
        self.wake_at(end);
        end <= self.now
    }

    /// Since when this operator asks what is to be asked; none if that lies ahead, of before the clock was set back.
    pub fn asking_since(&self) -> Option<Timestamp> {
        self.seen.asking_since.filter(|since| *since <= self.now)
    }

    /// Percent of the traffic that the candidate is meant to have; 0 before any was recorded.
    pub fn desired_weight(&self) -> i32 {
        self.status.weights.map_or(0, |weights| weights.desired.candidate)
    }

    /// Decides the candidate's share of the traffic, in percent; the rest is stable's, if there is one.
    pub fn want_weight(&mut self, candidate: i32) {
        let stable = if self.status.stable.is_some() { 100 - candidate } else { 0 };
        let Weights { desired, observed, reached_at } = self.status.weights.unwrap_or_default();
        let reached_at = reached_at.filter(|_| desired.candidate == candidate);
        self.status.weights = Some(Weights { desired: WeightShare { stable, candidate }, observed, reached_at });
    }

    /// How many pods serve when nothing is going on.
    pub fn replicas(&self) -> i32 {
        let adopted = self.status.workload.as_ref().map(|workload| workload.adopted_replicas);
        self.release.spec.replicas.or(adopted).unwrap_or(1).max(0)
    }

    /// The traffic section, if there is one.
    pub fn traffic_spec(&self) -> Option<&'a Traffic> {
        self.release.spec.traffic.as_ref()
    }

    /// The Services as they are, and what they ought to be.
    pub fn traffics(&self) -> Traffics<'a> {
        Traffics::new(self.release, self.seen)
    }

    /// The pinned plan of a release, if it was loaded.
    pub fn plan(&self, number: i64) -> Option<&'a Plan> {
        self.seen.plans.iter().find(|plan| plan.number == number)
    }

    /// What holds for the release under way: its pinned plan, or the spec before that exists.
    pub fn policy(&self) -> Policy {
        let number = self.status.release.as_ref().map_or(0, |release| release.number);
        let pinned = self.is_under_way() || self.status.observation.is_some();
        match self.plan(number).filter(|_| pinned) {
            Some(plan) => self.compile(&plan.spec, &plan.analysis_templates),
            None => self.compile(&self.release.spec, &self.seen.templates),
        }
    }

    /// What would hold if the release were pinned now, with the templates that were pinned.
    pub fn next_policy(&self) -> Policy {
        let number = self.status.release.as_ref().map_or(0, |release| release.number);
        let templates = self.plan(number).map_or(&self.seen.templates, |plan| &plan.analysis_templates);
        self.compile(&self.release.spec, templates)
    }

    fn compile(&self, spec: &ServiceReleaseSpec, templates: &[NamedTemplate]) -> Policy {
        let situation = Situation { first: self.status.stable.is_none(), alone: self.is_alone(), due: Due::of(self) };
        Policy::compile(spec, templates, situation)
    }

    /// Whether a release is under way, forward or back.
    pub fn is_under_way(&self) -> bool {
        self.status.candidate.is_some() || self.is_alone()
    }

    /// Whether the release under way has no candidate: its migration is all.
    pub fn is_alone(&self) -> bool {
        self.status.candidate.is_none() && self.status.step.is_some()
    }

    /// The limits on pods now.
    pub fn bounds(&self) -> Bounds {
        self.policy().bounds(self.replicas())
    }

    /// Whether nobody knows yet what the API server has against the template that is wanted.
    pub fn awaits_trial(&self) -> bool {
        let untried = |target: &Target| super::is_untried(self.release, self.seen, &target.hash);
        self.seen.template_check == TemplateCheck::Unknown && self.target.as_ref().is_some_and(untried)
    }

    /// The ReplicaSet of a revision; one that is being deleted is as good as gone.
    pub fn revision(&self, hash: &str) -> Option<&'a Revision> {
        self.seen.revisions.iter().find(|revision| revision.hash == hash && !revision.deleting)
    }

    /// The ReplicaSet of the candidate.
    pub fn candidate(&self) -> Option<&'a Revision> {
        self.status.candidate.as_ref().and_then(|candidate| self.revision(&candidate.revision))
    }

    /// The revision that checks are about: the candidate, or stable where there is none.
    pub fn subject(&self) -> Option<&'a Revision> {
        if self.status.candidate.is_some() { self.candidate() } else { self.stable() }
    }

    /// The candidate, if it has no ReplicaSet.
    pub fn candidate_is_missing(&self) -> Option<RevisionStatus> {
        self.status.candidate.clone().filter(|candidate| self.revision(&candidate.revision).is_none())
    }

    /// The ReplicaSet of stable.
    pub fn stable(&self) -> Option<&'a Revision> {
        self.status.stable.as_ref().and_then(|stable| self.revision(&stable.revision))
    }

    /// The hash of stable, if there is one.
    pub fn stable_hash(&self) -> Option<&str> {
        self.status.stable.as_ref().map(|stable| stable.revision.as_str())
    }

    /// The hash of the candidate, if there is one.
    pub fn candidate_hash(&self) -> Option<&str> {
        self.status.candidate.as_ref().map(|candidate| candidate.revision.as_str())
    }

    /// Brings a revision to a size: makes its ReplicaSet, from the spec's template or its pinned
    /// plan, or scales the one that is there; nothing if it is so already.
    pub fn size(&self, entry: &RevisionStatus, replicas: i32) -> Option<Effect> {
        match self.revision(&entry.revision) {
            Some(seen) => resize(seen, replicas),
            None => self.create(entry, replicas),
        }
    }

    fn create(&self, status: &RevisionStatus, replicas: i32) -> Option<Effect> {
        let wanted = self.target.as_ref().filter(|target| target.hash == status.revision);
        let pinned = self.seen.plans.iter().find(|plan| plan.revision == status.revision);
        let template = match (wanted, pinned) {
            (Some(target), _) => target.template.clone(),
            (None, Some(plan)) => plan.template.clone(),
            (None, None) => return None,
        };
        Some(Effect::CreateReplicaSet(Box::new(self.new_replica_set(&status.revision, template, replicas))))
    }

    /// The ReplicaSet of a revision that has none.
    pub fn new_replica_set(&self, hash: &str, template: Template, replicas: i32) -> NewReplicaSet {
        let name = self.release.metadata.name.as_deref().unwrap_or_default();
        NewReplicaSet {
            name: format!("{name}-{hash}"),
            hash: hash.to_owned(),
            fingerprint: revision::fingerprint(&template),
            match_labels: self.traffics().match_labels(),
            template,
            replicas,
            min_ready_seconds: self.policy().min_ready_seconds,
            owned: self.release.spec.workload_ref.is_none(),
        }
    }

    /// A revision's entry in the status.
    pub fn describe(&self, hash: &str, template: &Template, release: i64) -> RevisionStatus {
        let seen = self.revision(hash);
        RevisionStatus {
            revision: hash.to_owned(),
            release,
            images: images(template),
            replicas: seen.map_or(0, |revision| revision.replicas),
            ready_replicas: seen.map_or(0, |revision| revision.ready),
            available_replicas: seen.map_or(0, |revision| revision.available),
            problem: None,
        }
    }

    /// Writes the observed pod counts into the revisions of the status.
    pub fn refresh_counts(&mut self) {
        let seen = self.seen;
        let ServiceReleaseStatus { stable, candidate, previous, .. } = &mut self.status;
        for entry in [stable, candidate, previous].into_iter().flatten() {
            let found = seen.revisions.iter().find(|revision| revision.hash == entry.revision && !revision.deleting);
            entry.replicas = found.map_or(0, |revision| revision.replicas);
            entry.ready_replicas = found.map_or(0, |revision| revision.ready);
            entry.available_replicas = found.map_or(0, |revision| revision.available);
        }
    }
}

/// Sets for how long pods of a revision must have been ready; nothing if it is so.
pub fn set_min_ready(revision: &Revision, seconds: i32) -> Option<Effect> {
    let object = revision.object.clone();
    (revision.min_ready_seconds != seconds).then_some(Effect::SetMinReadySeconds { object, seconds })
}

/// Sets a ReplicaSet's size; nothing if it has it.
pub fn resize(revision: &Revision, replicas: i32) -> Option<Effect> {
    (revision.replicas != replicas).then(|| Effect::ScaleReplicaSet { object: revision.object.clone(), replicas })
}

/// The images of a template's containers, at most [`MAX_IMAGES`].
pub fn images(template: &Template) -> Vec<String> {
    let template = template.to_value();
    let containers = template.pointer("/spec/containers").and_then(|value| value.as_array().cloned());
    let image = |container: &serde_json::Value| container.get("image")?.as_str().map(|image| bounded(image, MAX_TEXT));
    containers.unwrap_or_default().iter().filter_map(image).take(MAX_IMAGES).collect()
}
