//! What people, nodes and other controllers do to the cluster.

use servicerelease::{
    api::{Action, ApprovalKind, CommandApproval, LABEL_REVISION, ServiceReleaseSpec, ServiceReleaseStatus, Timestamp},
    checks::incomparable,
    engine::{self, ObjectVersion},
};

use crate::{
    database,
    event::{Aim, Event, Meddling},
    metrics,
    model::{
        catalogue,
        cluster::{CANDIDATE_SERVICE, Cluster, CommandObject, Kind, Propagation, SERVICE},
        gateway,
    },
    setup::{self, RouterKind, Setup},
};

/// What is remembered of the people.
#[derive(Default)]
pub struct Users {
    /// Name of the last command and how many there were.
    last: Option<engine::Command>,
    count: u32,
}

impl Users {
    /// Does what the event says. Returns a note on what that came to, for the trace.
    pub fn act(&mut self, cluster: &mut Cluster, setup: &Setup, event: &Event) -> String {
        let note = self.act_on_objects(cluster, setup, event);
        cluster.commit();
        note
    }

    fn act_on_objects(&mut self, cluster: &mut Cluster, setup: &Setup, event: &Event) -> String {
        match event {
            Event::Template(letter) => template(cluster, *letter),
            Event::Strategy(index, bounds) => {
                edit(cluster, |spec| {
                    let router = spec.traffic.as_ref().and_then(|traffic| traffic.router.as_ref());
                    spec.strategy = setup::strategy(*index, *bounds, router);
                    // What can no longer be compared is not to be.
                    if incomparable(spec).is_some() {
                        spec.analysis = spec.analysis.take().filter(|analysis| !metrics::compares(analysis));
                    }
                });
            }
            Event::Replicas(replicas) => edit(cluster, |spec| spec.replicas = Some(*replicas)),
            Event::Paused(paused) => edit(cluster, |spec| spec.paused = *paused),
            Event::RetryToken(token) => edit(cluster, |spec| spec.retry_token = token.to_string()),
            Event::MinReady(seconds) => edit(cluster, |spec| spec.min_ready_seconds = *seconds),
            Event::Automatic(yes) => edit(cluster, |spec| spec.rollback.automatic = *yes),
            Event::HistoryLimit(limit) => {
                edit(cluster, |spec| spec.revision_history_limit = *limit);
            }
            Event::Command { action, aim, full } => return self.command(cluster, *action, *aim, *full),
            Event::Commands(one, other) => {
                let first = self.command(cluster, *one, Aim::Right, false);
                return first + ", " + &self.command(cluster, *other, Aim::Right, false);
            }
            Event::RecreateCommand => self.recreate(cluster),
            Event::DeleteCommand => {
                let last = self.last.as_ref().map(|last| last.object.name.clone());
                if let Some(name) = last {
                    cluster.live.commands.remove(&name);
                    cluster.touch(Kind::Commands);
                }
            }
            Event::DeleteRelease(how) => delete_release(cluster, *how),
            Event::CreateRelease => {
                if cluster.live.release.is_none() {
                    setup.apply(cluster);
                }
            }
            Event::ScaleDeployment(replicas) => {
                if let Ok(deployment) = cluster.deployment_mut(None) {
                    deployment.replicas = *replicas;
                    deployment.generation += 1;
                }
            }
            Event::Autoscaler(on) => {
                let autoscalers = &mut cluster.live.autoscalers;
                autoscalers.clear();
                autoscalers.extend(on.then(|| "shop-hpa".to_owned()));
                cluster.touch(Kind::Others);
            }
            Event::Rival(on) => {
                let rival = engine::Rival {
                    name: "older-shop".into(),
                    created: Timestamp::from_millis(setup::BEGIN - 1_000_000),
                    claim: "Service shop".into(),
                };
                cluster.live.rivals.clear();
                cluster.live.rivals.extend(on.then_some(rival));
                cluster.touch(Kind::Others);
            }
            Event::Contest(on) => {
                if let Ok(service) = cluster.service_mut(SERVICE, None) {
                    service.contested_by = on.then(|| "argocd".to_owned());
                }
            }
            Event::RouteWeight(weight) => cluster.meddle_with_route(*weight, "kubectl-edit", false),
            Event::RouteHealed(weight) => cluster.gateway.healed = *weight,
            Event::DeleteRoute => {
                cluster.live.route = None;
                cluster.gateway.forget();
                cluster.touch(Kind::Route);
            }
            Event::RestoreRoute => {
                if setup.router == Some(RouterKind::HttpRoute) && cluster.live.route.is_none() {
                    cluster.put_route(gateway::FRONT, false, None, gateway::users_route(0));
                }
            }
            Event::GatewayRefuses(yes) => cluster.gateway.refuses = *yes,
            Event::AddRouter => edit(cluster, |spec| {
                if let Some(traffic) = &mut spec.traffic {
                    traffic.router = setup.router();
                }
            }),
            Event::Migration(version) => edit(cluster, |spec| {
                if spec.database.is_some() {
                    spec.database = database::database(setup.database, u32::from(*version));
                    spec.flags = database::flags(setup.database, u32::from(*version));
                }
            }),
            Event::Files => cluster.server.edited += 1,
            Event::KillWorker(n) => {
                return cluster.kill_worker(usize::from(*n)).unwrap_or_else(|| "there is none".into());
            }
            Event::Foreign(deeds, seconds) => return cluster.start_foreign(*deeds, *seconds),
            Event::Restart => return cluster.restart_database(),
            Event::Password(how) => cluster.server.rotate(*how),
            Event::SettleByHand => cluster.server.settle_by_hand(),
            Event::ApiUpgrade => cluster.api_version = (cluster.api_version + 1).min(3),
            _ => return meddle(cluster, event),
        }
        String::new()
    }

    fn command(&mut self, cluster: &mut Cluster, action: Action, aim: Aim, full: bool) -> String {
        let Some(release) = &cluster.live.release else {
            return "there is no release".into();
        };
        let status = release.status.clone().unwrap_or_default();
        let candidate = status.candidate.as_ref().map(|it| it.revision.clone());
        let stable = status.stable.as_ref().map(|it| it.revision.clone());
        let failed = status.failed_revisions.iter().rfind(|entry| entry.latched);
        let failed = failed.map(|entry| entry.revision.clone());
        let current = status.release.as_ref().map(|it| it.revision.clone());
        let fix = status.database.as_ref().and_then(|known| known.fix.as_ref());
        let offered = fix.filter(|fix| fix.ordered_at.is_none()).map(|fix| fix.revision.clone());
        let right = match action {
            Action::Retry if offered.is_some() => offered,
            Action::Retry if status.candidate.is_none() && status.step.is_some() => current.clone(),
            Action::Retry => failed.or(candidate),
            Action::Undo => stable,
            _ => candidate,
        };
        let right = right.or(current).unwrap_or_else(|| "0000000000".into());
        let index = status.step.as_ref().map_or(1, |step| step.index);
        let revision = match aim {
            Aim::WrongRevision => Some("ffffffffff".to_owned()),
            Aim::Bare => None,
            _ => Some(right),
        };
        let step = match aim {
            Aim::Right => status.step.as_ref().map(|step| step.index),
            Aim::LateStep => Some(index - 1).filter(|step| *step > 0),
            Aim::NextStep => Some(index + 1),
            _ => None,
        };
        // The CRD's rules require a revision for some actions.
        let needs = matches!(action, Action::Promote | Action::Approve | Action::Skip | Action::Retry);
        let revision = revision.or_else(|| needs.then(|| "0000000000".to_owned()));
        let revision = revision.filter(|_| action != Action::Undo);
        self.count += 1;
        let name = format!("command-{}", self.count);
        let command = engine::Command {
            approval: approval(&status, action, aim),
            object: ObjectVersion { uid: format!("uid-of-{name}"), name, resource_version: String::new() },
            created: Timestamp::from_millis(cluster.now / 1000 * 1000),
            action,
            revision,
            step: step.filter(|_| !matches!(action, Action::Undo | Action::Retry)),
            full: full && action == Action::Promote,
            to_revision: None,
            reason: Some("because".into()),
            requested_by: Some("alice".into()),
            decided_at: None,
        };
        let note = format!("{} for revision {:?}, step {:?}", command.object.name, command.revision, command.step);
        self.put(cluster, command);
        note
    }

    fn put(&mut self, cluster: &mut Cluster, command: engine::Command) {
        let version = cluster.fresh();
        self.last = Some(command.clone());
        let object = CommandObject { version, spec: command, status: None };
        let name = object.spec.object.name.clone();
        cluster.live.commands.insert(name, object);
        cluster.touch(Kind::Commands);
    }

    /// Deletes the last command and creates it again, with another UID.
    fn recreate(&mut self, cluster: &mut Cluster) {
        if let Some(mut command) = self.last.clone() {
            command.object.uid += "-again";
            command.created = Timestamp::from_millis(cluster.now / 1000 * 1000);
            self.put(cluster, command);
        }
    }
}

/// What of the database's plan is approved: that which is asked for, or another one.
fn approval(status: &ServiceReleaseStatus, action: Action, aim: Aim) -> Option<CommandApproval> {
    let kind = match (action, status.reason.as_str()) {
        (Action::Approve, "MigrationAwaitsApproval") => ApprovalKind::Migration,
        (Action::Approve, "MigrateDownAwaitsApproval") => ApprovalKind::MigrateDown,
        (Action::Approve, "RestoreAwaitsApproval") => ApprovalKind::Restore,
        _ => return None,
    };
    let plan = status.database.as_ref().map(|database| database.plan(kind).to_owned());
    let plan_hash = if aim == Aim::WrongRevision { Some("0000000000000000".into()) } else { plan };
    Some(CommandApproval { kind, plan_hash })
}

/// A change of the spec, with the generation that it gets.
pub fn edit(cluster: &mut Cluster, change: impl FnOnce(&mut ServiceReleaseSpec)) {
    let Some(before) = cluster.live.release.as_ref().map(|it| it.spec.clone()) else {
        return;
    };
    let mut spec = before.clone();
    change(&mut spec);
    if spec != before
        && let Ok(release) = cluster.release_mut(None)
    {
        release.spec = spec;
        release.generation += 1;
    }
}

fn template(cluster: &mut Cluster, letter: char) {
    if cluster.live.deployment.is_some() {
        if cluster.live.deployment.as_ref().map(|it| it.letter) != Some(letter)
            && let Ok(deployment) = cluster.deployment_mut(None)
        {
            deployment.letter = letter;
            deployment.generation += 1;
        }
    } else {
        edit(cluster, |spec| {
            if spec.template.is_some() {
                spec.template = Some(catalogue::written(letter));
            }
        });
    }
}

fn delete_release(cluster: &mut Cluster, how: Propagation) {
    let now = cluster.now;
    let Ok(release) = cluster.release_mut(None) else {
        return;
    };
    if release.deleting.is_none() {
        release.deleting = Some((now, how));
    }
    if !release.finalizer {
        if how == Propagation::Foreground {
            // Its dependents go first; that the object waits for them makes no difference here.
        }
        cluster.live.release = None;
    }
}

fn meddle(cluster: &mut Cluster, event: &Event) -> String {
    let now = cluster.now;
    let nth_pod = |cluster: &Cluster, n: u8| {
        let pods: Vec<u64> = cluster.release_pods().filter(|pod| pod.active()).map(|pod| pod.id).collect();
        (!pods.is_empty()).then(|| pods[usize::from(n) % pods.len()])
    };
    let nth_set = |cluster: &Cluster, n: u8| {
        let names: Vec<String> = cluster.live.sets.keys().cloned().collect();
        (!names.is_empty()).then(|| names[usize::from(n) % names.len()].clone())
    };
    cluster.touch(Kind::Pods);
    match event {
        Event::LoseReadiness(n) | Event::Crash(n) | Event::Evict(n) | Event::Drain(n) => {
            let Some(id) = nth_pod(cluster, *n) else {
                return "there is none".into();
            };
            if let Some(pod) = cluster.live.pods.get_mut(&id) {
                match event {
                    Event::LoseReadiness(_) => pod.lose_readiness(now),
                    Event::Crash(_) => pod.crash(now, false),
                    Event::Evict(_) => (pod.disrupted, pod.failed, pod.ready) = (true, true, false),
                    _ => {
                        pod.disrupted = true;
                        pod.terminate(now);
                    }
                }
                return format!("{} of {:?}", pod.name(), pod.revision());
            }
        }
        Event::NodeLoss => {
            for pod in cluster.live.pods.values_mut().filter(|pod| pod.id % 2 == 0) {
                if pod.active() {
                    (pod.disrupted, pod.ready) = (true, false);
                    pod.terminate(now);
                }
            }
        }
        Event::DeleteSet(n) => {
            let Some(name) = nth_set(cluster, *n) else {
                return "there is none".into();
            };
            excuse(cluster, &name);
            cluster.live.sets.remove(&name);
            cluster.touch(Kind::Sets);
            return name;
        }
        Event::ScaleSet(n, replicas) => {
            let Some(name) = nth_set(cluster, *n) else {
                return "there is none".into();
            };
            excuse(cluster, &name);
            if let Ok(set) = cluster.set_mut(&name, None) {
                set.replicas = *replicas;
                set.generation += 1;
            }
            return name;
        }
        Event::DeleteService(candidate) => {
            let name = if *candidate { CANDIDATE_SERVICE } else { SERVICE };
            cluster.live.services.remove(name);
            cluster.touch(Kind::Services);
        }
        Event::Selector { candidate, how } => {
            let name = if *candidate { CANDIDATE_SERVICE } else { SERVICE };
            if let Ok(service) = cluster.service_mut(name, None) {
                match how {
                    Meddling::Widened => service.selector.retain(|key, _| !key.contains('/')),
                    Meddling::Astray => drop(service.selector.insert(LABEL_REVISION.into(), "astray".into())),
                    Meddling::Replaced if service.owner.is_some() => {
                        drop(service.selector.insert("app".into(), "other".into()));
                    }
                    Meddling::Replaced => {}
                }
            }
        }
        Event::DeleteJob(n) => {
            let names: Vec<String> = cluster.live.jobs.keys().cloned().collect();
            let Some(name) = names.get(usize::from(*n) % names.len().max(1)) else {
                return "there is none".into();
            };
            cluster.live.jobs.remove(name);
            cluster.touch(Kind::Jobs);
            return name.clone();
        }
        _ => {}
    }
    String::new()
}

/// Pods that are lost because a user meddled with their ReplicaSet are not the operator's fault.
fn excuse(cluster: &mut Cluster, set: &str) {
    for pod in cluster.live.pods.values_mut() {
        if matches!(&pod.owner, crate::model::pods::Owner::Set { name, .. } if name == set) {
            pod.excused = true;
        }
    }
}
