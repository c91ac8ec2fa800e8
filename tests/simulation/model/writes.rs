//! The API calls that effects stand for, with their preconditions.

use std::collections::BTreeMap;

use servicerelease::{
    api::{LABEL_RELEASE, LABEL_REVISION, ReleaseCommandStatus, ServiceReleaseStatus},
    engine::{Effect, NewReplicaSet, NewService, ObjectVersion, Selection, TemplateCheck},
};

use super::{
    catalogue,
    cluster::{Cluster, Kind, RELEASE, Refusal, ServiceObject, SetObject},
};

type Labels = BTreeMap<String, String>;

fn precondition(object: &ObjectVersion) -> Option<(&str, &str)> {
    Some((&object.uid, &object.resource_version))
}

/// The selector that a selection comes to.
pub fn selector(base: &Labels, selection: &Selection) -> Labels {
    let mut selector = base.clone();
    selector.remove(LABEL_RELEASE);
    selector.remove(LABEL_REVISION);
    match selection {
        Selection::Nothing => {
            selector.insert(LABEL_REVISION.into(), "none".into());
        }
        Selection::Revision(revision) => {
            selector.insert(LABEL_REVISION.into(), revision.clone());
        }
        Selection::Release => {
            selector.insert(LABEL_RELEASE.into(), RELEASE.into());
        }
        Selection::Original => {}
    }
    selector
}

impl Cluster {
    /// Writes the status, as the executor does after `before` and ahead of `after`.
    pub fn write_status(&mut self, version: u64, status: &ServiceReleaseStatus) -> Result<u64, Refusal> {
        let object = self.release_mut(Some(version))?;
        object.status = Some(status.clone());
        Ok(object.version)
    }

    /// Carries out one effect. `version` is that of the ServiceRelease that was decided on, or what
    /// this pass made of it.
    pub fn carry_out(&mut self, effect: &Effect, version: &mut u64) -> Result<(), Refusal> {
        match effect {
            Effect::AddFinalizer | Effect::RemoveFinalizer => {
                let object = self.release_mut(Some(*version))?;
                object.finalizer = matches!(effect, Effect::AddFinalizer);
                *version = object.version;
                if object.deleting.is_some() && !object.finalizer {
                    self.live.release = None;
                }
            }
            Effect::PinPlan(plan) => {
                if self.live.plans.contains_key(&plan.number) {
                    return Err(Refusal::AlreadyExists);
                }
                self.live.plans.insert(plan.number, (**plan).clone());
                self.touch(Kind::Plans);
            }
            Effect::DeletePlan { number } => {
                self.live.plans.remove(number).ok_or(Refusal::NotFound)?;
                self.touch(Kind::Plans);
            }
            Effect::TryTemplate(_) => {}
            Effect::SetKeys { object, values } => self.set_keys(object, values)?,
            Effect::CreateReplicaSet(new) => self.create_set(new)?,
            Effect::ScaleReplicaSet { object, replicas } => {
                let set = self.set_mut(&object.name, precondition(object))?;
                if set.replicas != *replicas {
                    set.replicas = *replicas;
                    set.generation += 1;
                }
            }
            Effect::SetMinReadySeconds { object, seconds } => {
                let set = self.set_mut(&object.name, precondition(object))?;
                set.min_ready = i64::from(*seconds) * 1000;
                set.generation += 1;
            }
            Effect::DeleteReplicaSet { object } => {
                self.set_mut(&object.name, precondition(object))?;
                self.live.sets.remove(&object.name);
            }
            Effect::ScaleWorkload { object, replicas } => {
                let deployment = self.deployment_mut(precondition(object))?;
                if deployment.replicas != *replicas {
                    deployment.replicas = *replicas;
                    deployment.generation += 1;
                }
            }
            Effect::CreateService(new) => self.create_service(new)?,
            Effect::Select { object, selection, keep_original, base: labels } => {
                let service = self.service_mut(&object.name, precondition(object))?;
                if let Some(original) = keep_original {
                    service.original = Some(original.clone());
                }
                let base = service.original.clone();
                let base = base.unwrap_or_else(|| service.selector.clone());
                service.selector = selector(&base, selection);
                for (key, value) in labels {
                    match value {
                        Some(value) => service.selector.insert(key.clone(), value.clone()),
                        None => service.selector.remove(key),
                    };
                }
                if *selection == Selection::Original {
                    service.original = None;
                }
            }
            Effect::ConfirmService { object } => {
                let there = self.live.services.get(&object.name).ok_or(Refusal::NotFound)?;
                super::cluster::check(precondition(object), &there.uid, there.version)?;
            }
            Effect::CreateRoute(new) => self.create_route(new)?,
            Effect::ReplaceRoute { object, spec } => self.replace_route(object, spec)?,
            // Only of a preview, which no case here has.
            Effect::DeleteRoute { .. } => return Err(Refusal::NotFound),
            Effect::SetRouteWeights { object, weights } => self.set_weights(object, weights)?,
            Effect::AnswerCommand { object, phase, message, at } => {
                let command = self.command_mut(object)?;
                command.status = Some(ReleaseCommandStatus { phase: *phase, message: message.clone(), at: *at });
            }
            Effect::CreateJob(new) => self.create_job(new),
            Effect::DeleteJob { object } => self.delete_job(object)?,
            Effect::DeleteCommand { object } => {
                self.command_mut(object)?;
                self.live.commands.remove(&object.name);
            }
        }
        Ok(())
    }

    fn set_keys(&mut self, object: &ObjectVersion, values: &BTreeMap<String, Option<String>>) -> Result<(), Refusal> {
        let (next, now) = (self.fresh(), self.now);
        let map = self.live.config_map.as_mut().ok_or(Refusal::NotFound)?;
        super::cluster::check(precondition(object), &object.uid, map.version)?;
        if values.iter().all(|(key, value)| map.data.get(key) == value.as_ref()) {
            return Ok(());
        }
        map.version = next;
        if values.contains_key(crate::database::MAINTENANCE) {
            map.switched_at = now;
        }
        for (key, value) in values {
            map.ours.insert(key.clone());
            match value {
                Some(value) => drop(map.data.insert(key.clone(), value.clone())),
                None => drop(map.data.remove(key)),
            }
        }
        self.touch(Kind::Others);
        Ok(())
    }

    fn command_mut(&mut self, object: &ObjectVersion) -> Result<&mut super::cluster::CommandObject, Refusal> {
        let next = self.fresh();
        self.touch(Kind::Commands);
        let command = self.live.commands.get_mut(&object.name);
        let command = command.ok_or(Refusal::NotFound)?;
        if command.spec.object.uid != object.uid || command.version.to_string() != object.resource_version {
            return Err(Refusal::Conflict);
        }
        command.version = next;
        Ok(command)
    }

    fn create_set(&mut self, new: &NewReplicaSet) -> Result<(), Refusal> {
        if self.live.sets.contains_key(&new.name) {
            return Err(Refusal::AlreadyExists);
        }
        match self.dry_run(&new.name, &new.template) {
            TemplateCheck::Passed | TemplateCheck::Unknown => {}
            TemplateCheck::Refused(_) => return Err(Refusal::Invalid),
            TemplateCheck::NameTaken => return Err(Refusal::AlreadyExists),
        }
        let owner = self.live.release.as_ref().map(|release| release.uid.clone());
        let version = self.fresh();
        let set = SetObject {
            uid: format!("rs-{version}"),
            version,
            hash: new.hash.clone(),
            fingerprint: new.fingerprint.clone(),
            letter: catalogue::letter_of(&new.template),
            created: self.now,
            replicas: new.replicas,
            min_ready: i64::from(new.min_ready_seconds) * 1000,
            generation: 1,
            owner: owner.filter(|_| new.owned),
            deleting: false,
            observed_generation: 0,
            pods: 0,
            ready: 0,
            available: 0,
            counted_at: self.now,
        };
        self.live.sets.insert(new.name.clone(), set);
        self.touch(Kind::Sets);
        Ok(())
    }

    fn create_service(&mut self, new: &NewService) -> Result<(), Refusal> {
        if self.live.services.contains_key(&new.name) {
            return Err(Refusal::AlreadyExists);
        }
        let owner = self.live.release.as_ref().map(|release| release.uid.clone());
        let version = self.fresh();
        let service = ServiceObject {
            uid: format!("svc-{version}"),
            version,
            selector: selector(&new.match_labels, &new.selection),
            original: None,
            owner: owner.filter(|_| new.owned),
            made: true,
            contested_by: None,
        };
        self.live.services.insert(new.name.clone(), service);
        self.touch(Kind::Services);
        Ok(())
    }
}
