//! What holds for each write: traffic only onto warm pods (T1), weight rises only on record (T2),
//! rollback before clean-up (T3), pods are not taken away beyond the bounds (T4), an aborted
//! candidate stays down (R3), what may serve again is kept (R4), and passes are short (L4).

use std::collections::BTreeMap;

use servicerelease::{
    api::{Duration, LABEL_RELEASE, LABEL_REVISION, Phase},
    engine::{self, Effect, Run, Selection},
};

use crate::{
    model::{
        cluster::{Cluster, RELEASE, SERVICE, ServiceObject},
        writes,
    },
    operator::Work,
    setup::DEADLINE,
};

use super::{
    Checker, Judged, database, desired,
    limits::{self, Allowed},
    observation, reliable, replicas, route, stored,
};

/// What is true when an effect is about to be carried out.
pub(super) struct Scene<'a> {
    pub cluster: &'a Cluster,
    pub work: &'a Work,
    pub wanted: i32,
    pub bounds: Allowed,
}

impl Scene<'_> {
    fn reliable(&self, revision: &str) -> i32 {
        reliable(self.cluster, self.work, revision)
    }

    fn service(&self) -> Option<&ServiceObject> {
        self.cluster.live.services.get(SERVICE)
    }

    fn selects(service: &ServiceObject, revision: &str) -> bool {
        selects(&service.selector, revision)
    }

    /// Reliable pods over all revisions that pass the test, none beyond what is asked for, with
    /// one ReplicaSet's spec.replicas as it is going to be.
    pub fn pods(&self, test: impl Fn(&str) -> bool, changed: Option<(&str, i32)>) -> i32 {
        let sets = self.cluster.live.sets.iter();
        let sets = sets.filter(|(_, set)| !set.deleting && test(&set.hash));
        let pods = sets.map(|(name, set)| {
            let asked = changed.filter(|(it, _)| it == name);
            let asked = asked.map_or(set.replicas, |(_, replicas)| replicas);
            self.reliable(&set.hash).min(asked)
        });
        pods.sum()
    }

    /// What the engine saw of them.
    fn seen(&self, test: impl Fn(&str) -> bool) -> i32 {
        let sets = self.work.view.observed.revisions.iter();
        let sets = sets.filter(|set| test(&set.hash));
        sets.map(|set| set.available.min(set.replicas)).sum()
    }

    pub fn deployment_pods(&self) -> i32 {
        let pods = self.cluster.live.pods.values();
        let pods = pods.filter(|pod| pod.revision().is_none() && pod.available(self.cluster.now));
        let pods = i32::try_from(pods.count()).unwrap_or(0);
        let deployment = self.cluster.live.deployment.as_ref();
        deployment.map_or(0, |it| it.replicas.min(pods))
    }
}

/// T5: no pods move towards the candidate while the release is held in the middle of a step.
fn held(scene: &Scene<'_>, revision: &str, grows: bool) -> Judged {
    let status = &scene.work.decision.status;
    let moving = status.step.as_ref().is_some_and(|step| step.name.waits_for_cluster());
    let candidate = status.candidate.as_ref().is_some_and(|it| it.revision == revision);
    if status.phase == Phase::Paused && moving && candidate && grows {
        return vec![("T5", format!("candidate {revision} gets pods while the release is held"))];
    }
    Vec::new()
}

impl Checker {
    pub fn judge_effect(&mut self, cluster: &Cluster, work: &Work, effect: &Effect) -> Judged {
        let seen = replicas(&work.view.release.spec, &work.old);
        let now = cluster.live.release.as_ref();
        let now = now.map_or(seen, |it| replicas(&it.spec, &stored(cluster)));
        let wanted = seen.min(now);
        let scene = Scene { cluster, work, wanted, bounds: limits::in_force(cluster, wanted) };
        let deleting = work.view.release.metadata.deletion_timestamp.is_some();
        if let (Some(weight), false) = (route::written(effect), deleting) {
            let mut judged = route::shift(&scene, weight);
            judged.extend(route::spec_of(effect).into_iter().flat_map(|spec| route::probed(&scene, spec)));
            return judged;
        }
        let routed = route::over_route(cluster);
        match effect {
            // What a person widened is narrowed, whoever it took along.
            Effect::Select { .. } if self.is_astray(cluster) => Vec::new(),
            Effect::Select { object, selection, .. } if routed && !deleting => {
                route::select(&scene, &object.name, selection)
            }
            Effect::Select { object, selection, .. } if object.name == SERVICE && !deleting => {
                select(&scene, selection)
            }
            Effect::CreateService(new) if new.name == SERVICE && !deleting => select(&scene, &new.selection),
            // Written ahead, so that whoever comes after a crash waits for this one and makes no second.
            Effect::CreateJob(new) if matches!(new.run, Run::Database(_)) => database::job(&scene, new),
            Effect::CreateJob(new) => {
                let known = stored(cluster).checks.iter().any(|it| it.job.as_ref() == Some(&new.name));
                // One that was on its way when its process was stopped may come late: nobody asks about it, and it is deleted.
                if known || work.late {
                    Vec::new()
                } else {
                    vec![("T2", format!("Job {} is made, and is not on record", new.name))]
                }
            }
            Effect::ScaleReplicaSet { object, replicas } => {
                let Some(set) = cluster.live.sets.get(&object.name) else {
                    return Vec::new();
                };
                let mut judged = if routed && *replicas < set.replicas {
                    route::taken_away(&scene, &object.name, *replicas)
                } else if *replicas < set.replicas {
                    taken_away(&scene, &object.name, *replicas)
                } else {
                    added(&scene, &set.hash, *replicas, set.replicas)
                };
                judged.extend(held(&scene, &set.hash, *replicas > set.replicas));
                judged.extend(observation::kept(&scene, &set.hash, *replicas < set.replicas));
                judged
            }
            Effect::DeleteReplicaSet { object } => {
                let Some(set) = cluster.live.sets.get(&object.name) else {
                    return Vec::new();
                };
                let taken = if routed { route::taken_away } else { taken_away };
                let mut judged = taken(&scene, &object.name, 0);
                judged.extend(observation::kept(&scene, &set.hash, true));
                if !deleting {
                    judged.extend(kept(&scene, &set.hash));
                }
                judged
            }
            Effect::CreateReplicaSet(new) => added(&scene, &new.hash, new.replicas, 0),
            Effect::ScaleWorkload { replicas, .. } => {
                let deployment = cluster.live.deployment.as_ref();
                let falls = deployment.is_some_and(|it| *replicas < it.replicas);
                let pods = scene.pods(|_| true, None);
                let least = scene.wanted - scene.bounds.unavailable;
                let before = pods + scene.deployment_pods();
                let after = pods + scene.deployment_pods().min(*replicas);
                if falls && after < least.min(before) {
                    let text = format!(
                        "the Deployment falls to {replicas} with {pods} pods of ours available, {least} needed"
                    );
                    vec![("T4", text)]
                } else {
                    Vec::new()
                }
            }
            _ => Vec::new(),
        }
    }

    /// Traffic goes back before anything is cleaned up or answered (T3).
    pub fn decision_order(&mut self, work: &Work) {
        let status = &work.decision.status;
        if work.view.release.metadata.deletion_timestamp.is_some() {
            return;
        }
        let back = status.rollback.as_ref().is_some_and(|it| it.completed_at.is_none());
        if !back {
            return;
        }
        let all = work.decision.before.iter().chain(&work.decision.after);
        let mut cleaned = None;
        for effect in all {
            match effect {
                // What became of the database decides whether traffic may move.
                Effect::CreateJob(new) if matches!(new.run, Run::Database(_)) => {}
                Effect::DeleteReplicaSet { .. }
                | Effect::DeletePlan { .. }
                | Effect::DeleteCommand { .. }
                | Effect::CreateJob(_)
                | Effect::DeleteJob { .. }
                | Effect::AnswerCommand { .. } => cleaned = Some(effect.clone()),
                Effect::Select { object, selection, .. } if object.name == SERVICE && moves(work, selection) => {
                    if let Some(first) = &cleaned {
                        let text = format!("{first:?} comes before traffic moves back");
                        self.fail("T3", text);
                    }
                }
                _ => {}
            }
        }
    }

    pub fn decision_size(&mut self, work: &Work) {
        let view = &work.view.observed;
        let effects = work.decision.before.len() + work.decision.after.len();
        let most = 12 + 2 * (view.commands.len() + view.revisions.len() + view.plan_numbers.len());
        self.require(effects <= most, "L4", || format!("{effects} effects in one pass"));
    }
}

/// Whether a selection is another one than was observed.
fn moves(work: &Work, selection: &Selection) -> bool {
    let service = work.view.observed.service.as_ref();
    service.is_none_or(|service| engine::selection(service) != *selection)
}

fn select(scene: &Scene<'_>, selection: &Selection) -> Judged {
    let status = stored(scene.cluster);
    let stable = status.stable.as_ref().map(|it| it.revision.as_str());
    let service = scene.service();
    let current = service.map_or(0, |service| {
        let unnarrowed = !service.selector.keys().any(|key| key.contains('/'));
        let foreign = if unnarrowed { scene.deployment_pods() } else { 0 };
        foreign + scene.pods(|revision| Scene::selects(service, revision), None)
    });
    let least = scene.wanted - scene.bounds.unavailable;
    let mut judged = Vec::new();
    if service.is_some_and(|service| writes::selector(&service.selector, selection) == service.selector) {
        return judged;
    }
    match selection {
        Selection::Nothing if current > 0 && stable.is_some() => {
            judged.push(("T1", format!("the Service with {current} pods behind it is closed")));
        }
        Selection::Revision(revision) => {
            let warm = scene.reliable(revision);
            let back = stable == Some(revision.as_str());
            let late = status.rollback.as_ref().is_some_and(|it| {
                let deadline = Duration::from_secs(DEADLINE.unsigned_abs().into());
                it.completed_at.is_none() && it.started_at.plus(deadline) <= scene.work.now
            });
            let needed = if back && late {
                // Given up: whoever serves most.
                let sets = scene.cluster.live.sets.values().map(|set| &set.hash);
                let sets = sets.filter(|it| *it != revision);
                sets.map(|it| scene.pods(|other| other == it, None)).max().unwrap_or(0).min(current)
            } else if back {
                current.min(least)
            } else if desired(&status) < 100 {
                // Stable cannot be had, and the fix goes forward: of the others nobody is lost.
                let others = service.map_or(0, |service| {
                    let other = |it: &str| Scene::selects(service, it) && stable != Some(it);
                    scene.pods(other, None)
                });
                others.min(least)
            } else {
                least.max(scene.wanted.min(1))
            };
            if warm < needed {
                let text = format!(
                    "all traffic to {revision} with {warm} available pods, {needed} needed (now {current} serve)"
                );
                judged.push((if back { "T3" } else { "T1" }, text));
            }
        }
        Selection::Release => {
            let candidate = status.candidate.as_ref().map(|it| it.revision.clone());
            if let Some(candidate) = candidate.filter(|it| stable != Some(it.as_str())) {
                let warm = scene.reliable(&candidate);
                let weight = desired(&status);
                if warm < 1 && scene.wanted > 0 && weight > 0 {
                    let text = format!("the Service opens to {candidate}, which has no available pod");
                    judged.push(("T1", text));
                }
            }
        }
        _ => {}
    }
    judged
}

/// Pods are taken from a ReplicaSet: over all revisions, and among those that serve, enough stay.
fn taken_away(scene: &Scene<'_>, name: &str, to: i32) -> Judged {
    let least = scene.wanted - scene.bounds.unavailable;
    let all = |_: &str| true;
    let changed = Some((name, to));
    let deployed = scene.deployment_pods();
    let mut judged = Vec::new();
    let status = stored(scene.cluster);
    let Some(stable) = status.stable.as_ref().map(|it| it.revision.clone()) else {
        // A first revision that fails serves nobody.
        return judged;
    };
    let set = scene.cluster.live.sets.get(name);
    let is_stable = set.is_some_and(|set| set.hash == stable);
    let weight = desired(&status);
    let left = scene.wanted - share(scene.wanted, weight).min(scene.wanted) - scene.bounds.unavailable;
    let left = if weight == 0 { scene.wanted - scene.bounds.unavailable } else { left };
    let deleting = scene.work.view.release.metadata.deletion_timestamp.is_some();
    // Pods of an earlier candidate that still serve count for a stable that does not.
    let candidate = status.candidate.as_ref().map(|it| it.revision.clone());
    let sets = scene.cluster.live.sets.values();
    let sets = sets.filter(|set| set.hash != stable && Some(&set.hash) != candidate.as_ref());
    let others: i32 = sets.map(|set| set.replicas).sum();
    let left = left - others;
    if is_stable && !deleting && status.candidate.is_some() && to < left && to < scene.wanted {
        let text = format!("stable falls to {to} pods of {}, weight {weight} on record leaves it {left}", scene.wanted);
        judged.push(("T2", text));
    }
    let Some(service) = scene.service() else {
        let before = scene.pods(all, None).min(scene.seen(all));
        let after = scene.pods(all, changed);
        if after + deployed < least.min(before + deployed) {
            let text = format!("{name} falls to {to}: {after} available pods of {before} stay, {least} are needed");
            judged.push(("T4", text));
        }
        return judged;
    };
    // Behind a narrowed Service only the pods that it selects count.
    let serving = |revision: &str| Scene::selects(service, revision);
    let unnarrowed = !service.selector.keys().any(|key| key.contains('/'));
    let others = if unnarrowed { deployed } else { 0 };
    let observed = scene.work.view.observed.service.as_ref();
    let seen = scene.seen(|it| observed.is_none_or(|service| selects(&service.selector, it)));
    let before = scene.pods(serving, None).min(seen);
    let after = scene.pods(serving, changed);
    if after + others < least.min(before + others) {
        let text = format!(
            "{name} falls to {to}: {after} available pods of {before} stay behind the Service, {least} are needed"
        );
        judged.push(("T4", text));
    }
    judged
}

/// Pods are added: not to a failed or aborted revision (R3), and under traffic not beyond the
/// weight on record (T2).
fn added(scene: &Scene<'_>, revision: &str, to: i32, from: i32) -> Judged {
    let status = stored(scene.cluster);
    let mut judged = Vec::new();
    // A write that was on its way when its process was stopped may come late; what it adds is
    // taken away again by the next pass.
    if to <= from || scene.work.late {
        return judged;
    }
    let stable = status.stable.as_ref().map(|it| it.revision.as_str());
    let candidate = status.candidate.as_ref().map(|it| it.revision.as_str());
    if stable == Some(revision) {
        return judged;
    }
    judged.extend(database::needed(scene, revision));
    let going_back = status.rollback.as_ref().is_some_and(|it| {
        it.revision == revision
            && it.completed_at.is_none()
            && status.release.as_ref().map(|it| it.number) == Some(it.release)
    });
    if going_back {
        judged.push(("R3", format!("{revision}, which is being taken back, gets {to} pods")));
    }
    let latched = status.failed_revisions.iter().any(|it| it.latched && it.revision == revision);
    if latched && candidate != Some(revision) {
        judged.push(("R3", format!("{revision}, which is latched, gets {to} pods")));
    }
    // The first revision serves nobody yet, except beside the Deployment that it takes over from.
    if candidate == Some(revision) && !scene.bounds.doubled && stable.is_some() {
        let open = scene.service().is_some_and(|service| Scene::selects(service, revision));
        let weight = desired(&status);
        let seen = replicas(&scene.work.view.release.spec, &scene.work.old);
        let most = share(seen, weight);
        if open && to > most {
            let text = format!("{revision} gets {to} pods under traffic, weight {weight} on record stands for {most}");
            judged.push(("T2", text));
        }
    }
    judged
}

/// Whether a selector picks the pods of a revision.
pub fn selects(selector: &BTreeMap<String, String>, revision: &str) -> bool {
    selector.iter().all(|(key, value)| match key.as_str() {
        LABEL_RELEASE => value == RELEASE,
        LABEL_REVISION => value == revision,
        _ => true,
    })
}

/// How many pods a weight stands for.
pub fn share(replicas: i32, weight: i32) -> i32 {
    if weight >= 100 {
        return replicas;
    }
    let pods = (replicas * weight + 99) / 100;
    pods.min(replicas - 1).max(1).min(replicas.max(1))
}

fn kept(scene: &Scene<'_>, revision: &str) -> Judged {
    let status = stored(scene.cluster);
    let seen = &scene.work.decision.status;
    let mut judged = Vec::new();
    for (name, status) in [("stored", &status), ("new", seen)] {
        let roles = [
            ("stable", status.stable.as_ref()),
            ("candidate", status.candidate.as_ref()),
            ("previous", status.previous.as_ref()),
        ];
        for (role, holder) in roles {
            if holder.is_some_and(|it| it.revision == revision) {
                let text = format!("{revision}, {role} in the {name} status, is deleted");
                judged.push(("R4", text));
            }
        }
    }
    judged
}
