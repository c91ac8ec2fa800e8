//! What a stored status may say: S1 to S5, T6, and how stable and latches change (R2, R3, R5).

use servicerelease::api::{Action, CommandPhase, Phase, RollbackCause, ServiceReleaseStatus, StepName};

use crate::{
    model::{
        catalogue,
        cluster::{CANDIDATE_SERVICE, Cluster, SERVICE, ServiceObject},
    },
    operator::Work,
};

use super::{Checker, desired, limits, reliable, replicas, steps::news};

/// Bytes that a status may have.
const MOST: usize = 16 * 1024;

fn condition(status: &ServiceReleaseStatus, kind: &str) -> Option<bool> {
    let found = status.conditions.iter().find(|it| it.type_ == kind)?;
    Some(found.status == "True")
}

/// The template that the observed generation asks for.
fn target(work: &Work) -> Option<char> {
    let spec = &work.view.release.spec;
    if let Some(template) = &spec.template {
        let image = template.spec["containers"][0]["image"].as_str()?;
        return image.chars().last();
    }
    let workload = work.view.observed.workload.as_ref()?;
    Some(catalogue::letter_of(&workload.template))
}

impl Checker {
    pub fn status_rules(&mut self, cluster: &Cluster, work: &Work) {
        self.generations(work);
        self.kstatus(work);
        if work.view.release.metadata.deletion_timestamp.is_none() {
            self.ready_is_true(cluster, work);
        }
        if work.view.release.metadata.deletion_timestamp.is_none() {
            self.observed_numbers(cluster, work);
        }
        self.bounds(work);
        self.at_rest(cluster, work);
    }

    /// S1
    fn generations(&mut self, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let seen = work.view.release.metadata.generation.unwrap_or(0);
        self.require(new.observed_generation <= seen, "S1", || {
            format!("observedGeneration {} was never seen, only {seen}", new.observed_generation)
        });
        self.require(new.observed_generation >= old.observed_generation, "S1", || {
            format!("observedGeneration falls from {} to {}", old.observed_generation, new.observed_generation)
        });
        for it in &new.conditions {
            let generation = it.observed_generation.unwrap_or(-1);
            let holds = generation >= 0 && generation <= new.observed_generation;
            self.require(holds, "S1", || format!("condition {} speaks of generation {generation}", it.type_));
        }
        let workload = |status: &ServiceReleaseStatus| status.workload.as_ref().map_or(0, |it| it.observed_generation);
        let actual = work.view.observed.workload.as_ref().map(|it| it.generation);
        let stale = actual.is_some_and(|it| it < workload(old));
        self.require(!stale, "S1", || {
            format!("acts on generation {actual:?} of the Deployment, {} was decided on before", workload(old))
        });
        // A Deployment that was deleted and made again counts from 1.
        let holds = workload(new) >= workload(old) || actual.is_some_and(|it| it < workload(old));
        self.require(holds, "S1", || {
            format!("workload.observedGeneration falls from {} to {}", workload(old), workload(new))
        });
        self.require(actual.is_none_or(|it| workload(new) <= it.max(workload(old))), "S1", || {
            format!("workload.observedGeneration {} was never seen", workload(new))
        });
    }

    /// S3
    fn kstatus(&mut self, work: &Work) {
        let status = &work.decision.status;
        let kinds = ["Ready", "Reconciling", "Stalled"];
        let on: Vec<&str> = kinds.into_iter().filter(|kind| condition(status, kind) == Some(true)).collect();
        self.require(on.len() == 1, "S3", || {
            format!("{on:?} of Ready, Reconciling, Stalled hold in {:?}", status.phase)
        });
        self.require(!status.message.is_empty(), "S4", || format!("no message in phase {:?}", status.phase));
        let waits = matches!(status.phase, Phase::Paused | Phase::AwaitingApproval | Phase::Halted | Phase::Invalid);
        let deleting = work.view.release.metadata.deletion_timestamp.is_some();
        self.require(!waits || deleting || !status.next_action.is_empty(), "S4", || {
            format!("no nextAction in phase {:?} ({})", status.phase, status.reason)
        });
    }

    /// S2
    fn ready_is_true(&mut self, cluster: &Cluster, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let wanted = replicas(&work.view.release.spec, new);
        let least = wanted - limits::in_force(cluster, wanted).unavailable;
        let letter = |status: &ServiceReleaseStatus| {
            let stable = status.stable.as_ref()?;
            self.letters.get(&stable.revision).copied()
        };
        let (target, stable) = (target(work), letter(new));
        if condition(new, "Ready") == Some(true) {
            let pods = new.stable.as_ref().map_or(0, |it| reliable(cluster, work, &it.revision));
            self.require(matches!(new.phase, Phase::Healthy | Phase::Observing), "S2", || {
                format!("Ready in phase {:?}", new.phase)
            });
            self.require(target.is_some() && target == stable, "S2", || {
                format!("Ready, but stable is {stable:?} and the spec asks for {target:?}")
            });
            self.require(pods >= least, "S2", || format!("Ready with {pods} available pods of stable, {least} needed"));
            let seen = work.view.release.metadata.generation.unwrap_or(0);
            self.require(new.observed_generation == seen, "S2", || {
                "Ready for a generation that was not decided on".into()
            });
        } else if old.phase == Phase::Healthy
            && condition(old, "Ready") == Some(true)
            && new.phase == Phase::Healthy
            && target == stable
        {
            let hash = new.stable.as_ref().map(|it| it.revision.clone());
            let mut sets = work.view.observed.revisions.iter();
            let set = sets.rfind(|set| Some(&set.hash) == hash.as_ref());
            // At rest the spec's bounds count, those of the last plan no more.
            let least = wanted - limits::allowed(&work.view.release.spec, wanted).unavailable;
            let enough = set.is_some_and(|set| set.observed && set.available.min(set.replicas) >= least);
            let needs = work.view.release.spec.traffic.is_some();
            let serves = work.view.fresh && needs == work.view.observed.service.is_some();
            let route = new.message.contains("oute") || new.reason.contains("Contested") || self.is_astray(cluster);
            self.require(!enough || !serves || route, "S2", || {
                format!("no longer Ready, although {least} pods needed are there: {}", new.message)
            });
        }
    }

    /// S4: the numbers in the status are those that were observed.
    fn observed_numbers(&mut self, cluster: &Cluster, work: &Work) {
        let status = &work.decision.status;
        let roles = [&status.stable, &status.candidate, &status.previous];
        for role in roles.into_iter().flatten() {
            let mut sets = work.view.observed.revisions.iter();
            let set = sets.rfind(|set| set.hash == role.revision);
            let (ready, available) = set.map_or((0, 0), |set| (set.ready, set.available));
            let holds = role.ready_replicas <= ready && role.available_replicas <= available;
            self.require(holds, "S4", || {
                format!(
                    "{}: ready {}, available {} in the status, {ready} and {available} were observed",
                    role.revision, role.ready_replicas, role.available_replicas
                )
            });
        }
        let Some(weights) = status.weights else {
            return;
        };
        // Before the first revision has its share there is nobody to share with.
        let sum = weights.desired.stable + weights.desired.candidate;
        let holds = sum == 100 || (sum == 0 && status.stable.is_none());
        self.require(holds, "S4", || format!("weights {:?}", weights.desired));
        let (Some(service), Some(candidate)) = (&work.view.observed.service, status.candidate.as_ref()) else {
            return;
        };
        if super::route::over_route(cluster) {
            self.observed_share(cluster, work);
            return;
        }
        let sets = &work.view.observed.revisions;
        // Pods whose ReplicaSet is gone are nobody's.
        let known = |it: &str| sets.iter().any(|set| !set.deleting && set.hash == it);
        if service.endpoints.iter().any(|it| it.revision.as_deref().is_some_and(|it| !known(it))) {
            return;
        }
        if !known(&candidate.revision) {
            return;
        }
        let ready = service.endpoints.iter().filter(|it| it.ready);
        let theirs = ready.clone().filter(|it| it.revision.as_deref() == Some(&candidate.revision));
        let share = i32::try_from(100 * theirs.count() / ready.count().max(1)).unwrap_or(0);
        let said = weights.observed.candidate;
        self.require((said - share).abs() <= 1, "S4", || {
            format!("weights.observed says {said} for the candidate, {share} were observed")
        });
    }

    /// S5
    fn bounds(&mut self, work: &Work) {
        let status = &work.decision.status;
        let text = serde_json::to_string(status).unwrap_or_default();
        self.require(text.len() < MOST, "S5", || format!("{} bytes of status", text.len()));
        let lists = [
            (status.timeline.len(), 30),
            (status.commands.len(), 20),
            (status.failed_revisions.len(), 5),
            (status.history.len(), 20),
            (status.draining.len(), 4),
            (status.conditions.len(), 8),
        ];
        self.require(lists.iter().all(|(have, most)| have <= most), "S5", || {
            format!("lists (length, most): {lists:?}")
        });
        let back: Option<ServiceReleaseStatus> = serde_json::from_str(&text).ok();
        self.require(back.as_ref() == Some(status), "L2", || "the status reads back from JSON as another one".into());
    }

    /// T6
    fn at_rest(&mut self, cluster: &Cluster, work: &Work) {
        let status = &work.decision.status;
        // Someone may change a Service at rest; what counts is how the rest began.
        let moved = matches!(work.old.phase, Phase::Progressing | Phase::Promoting | Phase::RollingBack);
        if !matches!(status.phase, Phase::Healthy | Phase::RolledBack)
            || !moved
            || work.view.release.metadata.deletion_timestamp.is_some()
        {
            return;
        }
        self.require(desired(status) == 0, "T6", || {
            format!("{:?} with weight {} for the candidate", status.phase, desired(status))
        });
        let stable = status.stable.as_ref().map(|it| it.revision.as_str());
        let pods = |selector: &std::collections::BTreeMap<String, String>, spare: Option<&str>| {
            let service = ServiceObject {
                uid: String::new(),
                version: 0,
                selector: selector.clone(),
                original: None,
                owner: None,
                made: false,
                contested_by: None,
            };
            let pods = cluster.release_pods().filter(|pod| pod.active());
            let mut strange = pods
                .filter(|pod| Cluster::selects(&service, pod) && pod.revision() != spare)
                .map(crate::model::pods::Pod::name);
            strange.next()
        };
        let observed = &work.view.observed;
        for (name, service, spare) in
            [(SERVICE, &observed.service, stable), (CANDIDATE_SERVICE, &observed.candidate_service, None)]
        {
            let stranger = service.as_ref().and_then(|it| pods(&it.selector, spare));
            self.require(stranger.is_none(), "T6", || {
                format!("{:?} while Service {name} selects {stranger:?}", status.phase)
            });
        }
    }

    pub fn revision_rules(&mut self, cluster: &Cluster, work: &Work) {
        self.stable_changes(cluster, work);
        self.latches(work);
        let (old, new) = (&work.old, &work.decision.status);
        self.identity(work);
        if old.stable.is_none() && new.stable.is_none() {
            let of_database = new.database.is_some();
            let own = |name: StepName| match name {
                StepName::Prepare | StepName::Check | StepName::Promote => true,
                StepName::Database | StepName::MigrationApproval | StepName::Maintenance => of_database,
                _ => false,
            };
            let strategy = new.step.as_ref().is_some_and(|step| !own(step.name));
            self.require(!strategy, "R5", || "the first revision has strategy steps".into());
        }
    }

    /// R1: what stable has already is not released again, whatever the API server adds to it.
    fn identity(&mut self, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let number = |status: &ServiceReleaseStatus| status.release.as_ref().map(|it| it.number);
        let Some(stable) = old.stable.as_ref().filter(|_| number(new) > number(old)) else { return };
        // Without its ReplicaSet a Deployment's template is known by its hash only.
        let there = work.view.observed.revisions.iter().any(|set| set.hash == stable.revision && !set.deleting);
        let letter = self.letters.get(&stable.revision).copied();
        // A migration of its own is released without a candidate.
        let alone = new.candidate.is_none() && new.release.as_ref().is_some_and(|it| it.migration.is_some());
        self.require(alone || !there || letter.is_none() || target(work) != letter, "R1", || {
            format!("release {:?} is of the template that {} has", number(new), stable.revision)
        });
    }

    /// R2
    fn stable_changes(&mut self, cluster: &Cluster, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let name = |status: &ServiceReleaseStatus| status.stable.as_ref().map(|it| it.revision.clone());
        let (before, after) = (name(old), name(new));
        if before == after {
            return;
        }
        let Some(after) = after else {
            self.fail("R2", "stable is lost");
            return;
        };
        let candidate = old.candidate.as_ref().is_some_and(|it| it.revision == after);
        let back = new.rollback.as_ref().or(old.rollback.as_ref());
        let observed = old.observation.is_some() && old.candidate.is_none();
        let undone = back.is_some_and(|it| it.cause == RollbackCause::Undone || observed);
        if !undone {
            let wanted = replicas(&work.view.release.spec, old);
            let least = wanted - limits::in_force(cluster, wanted).unavailable;
            let warm = reliable(cluster, work, &after);
            self.require(warm >= least, "R2", || {
                format!("{after} becomes stable with {warm} available pods, {least} needed")
            });
        }
        if undone && self.was_stable.contains(&after) {
            // That it is latched in the end is looked at then.
        } else if before.is_none() {
            // First revision or adoption.
            self.require(candidate || old.candidate.is_none(), "R2", || {
                format!("{after} becomes the first stable, and was not the candidate")
            });
        } else {
            // That the steps that are left are complete is seen by the rules on steps.
            self.require(candidate, "R2", || format!("{after} becomes stable at step {:?}", old.step));
            let waiting = old.hold.is_some() || old.suspended.is_some() || work.view.release.spec.paused;
            self.require(!waiting || !news(work).is_empty(), "T5", || {
                format!("{after} becomes stable while the release waits for a person")
            });
        }
    }

    /// R3
    fn latches(&mut self, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let applied =
            |action: Action| news(work).iter().any(|it| it.action == action && it.phase == CommandPhase::Applied);
        let token = work.view.release.spec.retry_token != old.retry_token;
        let retried = applied(Action::Retry) || token;
        let target = target(work);
        for entry in old.failed_revisions.iter().filter(|it| it.latched) {
            let letter = self.letters.get(&entry.revision).copied();
            let same = target.is_some() && target == letter && !super::database::is_new(work, entry);
            let still = new.failed_revisions.iter().any(|it| it.latched && it.revision == entry.revision);
            // Without its ReplicaSet a Deployment's template is known by its hash only.
            let mut sets = work.view.observed.revisions.iter();
            let gone = work.view.release.spec.workload_ref.is_some() && !sets.any(|set| set.hash == entry.revision);
            let undo = applied(Action::Undo) || gone;
            self.require(still || retried || !same || undo, "R3", || {
                format!("the latch of {} is lost while its template is still asked for", entry.revision)
            });
            let was = old.candidate.as_ref().is_some_and(|it| it.revision == entry.revision);
            let is = new.candidate.as_ref().is_some_and(|it| it.revision == entry.revision);
            let begins = new.release.as_ref().map(|it| it.number) != old.release.as_ref().map(|it| it.number);
            // A migration alone has failed, and what serves is undone: its revision goes, and does not start.
            let back = new.rollback.as_ref().filter(|it| it.completed_at.is_none());
            let goes = back.is_some_and(|it| it.revision == entry.revision && it.cause == RollbackCause::Undone);
            self.require(!is || (was && !begins) || retried || !same || goes, "R3", || {
                format!("{}, which failed and is latched, is started again", entry.revision)
            });
        }
    }
}
