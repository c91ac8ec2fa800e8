//! The two Services of a release: what they select, what they ought to select, and who serves
//! behind them. By replica ratio a Service selects one revision (closed) or all of them (open); a
//! switch selects one or the other.

use std::collections::BTreeMap;

use crate::api::{LABEL_RELEASE, LABEL_REVISION, ServiceRelease, WeightShare};

use super::{
    effect::{Effect, NewService, Selection, ServicePort},
    observed::{Observed, Revision, Service, Template},
};

/// The value of the revision label in a selector that selects no pod.
pub const NO_REVISION: &str = "none";

/// The Services of one release.
#[derive(Clone, Copy)]
pub struct Traffics<'a> {
    release: &'a ServiceRelease,
    seen: &'a Observed,
}

impl<'a> Traffics<'a> {
    /// Of a release, as it was read.
    pub const fn new(release: &'a ServiceRelease, seen: &'a Observed) -> Self {
        Self { release, seen }
    }

    /// Whether clients reach the pods through a Service.
    pub const fn used(&self) -> bool {
        self.release.spec.traffic.is_some()
    }

    /// The Service that clients use, if it exists.
    pub const fn service(&self) -> Option<&'a Service> {
        match self.used() {
            true => self.seen.service.as_ref(),
            false => None,
        }
    }

    /// What the Service selects. Without a Service every pod counts as reached.
    pub fn selection(&self) -> Selection {
        match (self.used(), self.service()) {
            (false, _) => Selection::Release,
            (true, None) => Selection::Nothing,
            (true, Some(service)) => selection(service),
        }
    }

    /// Whether the Service sends traffic to a revision.
    pub fn selects(&self, hash: &str) -> bool {
        match self.selection() {
            Selection::Nothing => false,
            Selection::Revision(selected) => selected == hash,
            Selection::Release | Selection::Original => true,
        }
    }

    /// The same where the Service is missing for a moment: then it is as if it selected all.
    pub fn reaches(&self, hash: &str) -> bool {
        self.service().is_none() || self.selects(hash)
    }

    /// The labels that select this service's pods.
    pub fn match_labels(&self) -> BTreeMap<String, String> {
        let inline = self.release.spec.selector.as_ref().map(|selector| selector.match_labels.clone());
        let adopted = || self.seen.workload.as_ref().map(|workload| workload.match_labels.clone());
        inline.or_else(adopted).unwrap_or_default()
    }

    /// Pods of a revision that take traffic: available, and among the Service's ready endpoints.
    pub fn serving(&self, revision: &Revision) -> i32 {
        match self.service() {
            // Where the Service is missing its pods are as good as before once it is there again.
            None => revision.warm(),
            Some(_) if !self.selects(&revision.hash) => 0,
            Some(service) => revision.warm().min(ready(service, Some(&revision.hash))),
        }
    }

    /// Ready endpoints of the Service that are pods of a revision.
    pub fn endpoints(&self, revision: &Revision) -> i32 {
        self.service().map_or(0, |service| ready(service, Some(&revision.hash)))
    }

    /// Ready endpoints of the candidate's Service that are pods of a revision.
    pub fn candidate_endpoints(&self, revision: &Revision) -> i32 {
        self.seen.candidate_service.as_ref().map_or(0, |service| ready(service, Some(&revision.hash)))
    }

    /// Whether the candidate's Service selects a revision and shows fewer ready pods than it has: EndpointSlices follow pods,
    /// and what asks the candidate by that Service would find nobody.
    pub fn hides(&self, candidate: &Revision) -> bool {
        let own = Selection::Revision(candidate.hash.clone());
        let selects = self.seen.candidate_service.as_ref().is_some_and(|service| selection(service) == own);
        selects && self.candidate_endpoints(candidate) < candidate.warm()
    }

    /// Ready endpoints of the Service that are pods of somebody else.
    pub fn foreign_endpoints(&self) -> i32 {
        self.service().map_or(0, foreign_endpoints)
    }

    /// Whether every ready endpoint of the Service is a pod of this revision.
    pub fn only(&self, hash: &str) -> bool {
        let other = |service: &Service| {
            service.endpoints.iter().any(|endpoint| endpoint.ready && endpoint.revision.as_deref() != Some(hash))
        };
        !self.used() || self.service().is_some_and(|service| !other(service))
    }

    /// The share of ready endpoints, in percent; by available pods where there is no Service.
    pub fn observed(&self, stable: Option<&Revision>, candidate: Option<&Revision>) -> WeightShare {
        let count = |revision: Option<&Revision>| match (revision, self.service()) {
            (None, _) => 0,
            (Some(revision), Some(service)) => ready(service, Some(&revision.hash)),
            (Some(_), None) if self.used() => 0,
            (Some(revision), None) => revision.available,
        };
        let (stable, candidate) = (count(stable), count(candidate));
        // Others have their share, too: an adopted Deployment's own pods, an earlier candidate's.
        let ready = |service: &Service| service.endpoints.iter().filter(|endpoint| endpoint.ready).count();
        let all =
            self.service().map_or(stable + candidate, |service| i32::try_from(ready(service)).unwrap_or(i32::MAX));
        if all == 0 {
            return WeightShare::default();
        }
        let share = |pods: i32| (pods * 100 + all / 2) / all;
        let rest = 100 - share(all - stable - candidate);
        WeightShare { stable: rest - share(candidate).min(rest), candidate: share(candidate).min(rest) }
    }

    /// What has to be done so that the Service selects `wanted`; nothing if it does.
    pub fn select(&self, wanted: &Selection, template: Option<&Template>) -> Option<Effect> {
        let traffic = self.release.spec.traffic.as_ref()?;
        self.steer(&traffic.service, self.seen.service.as_ref(), wanted, template)
    }

    /// The same for the candidate's Service. At rest it selects nothing.
    pub fn select_candidate(&self, wanted: &Selection, template: Option<&Template>) -> Option<Effect> {
        let name = self.release.spec.traffic.as_ref()?.candidate_service.as_ref()?;
        self.steer(name, self.seen.candidate_service.as_ref(), wanted, template)
    }

    fn steer(
        &self,
        name: &str,
        service: Option<&Service>,
        wanted: &Selection,
        template: Option<&Template>,
    ) -> Option<Effect> {
        let Some(service) = service else {
            return (*wanted != Selection::Original).then(|| {
                Effect::CreateService(Box::new(NewService {
                    name: name.to_owned(),
                    match_labels: self.match_labels(),
                    selection: wanted.clone(),
                    ports: template.map(ports).unwrap_or_default(),
                    owned: !self.outlives(name),
                }))
            });
        };
        let base = self.base_to_put_right(service);
        if selection(service) == *wanted && base.is_empty() {
            return None;
        }
        let keep = !service.owned && service.original.is_none() && *wanted != Selection::Original;
        Some(Effect::Select {
            object: service.object.clone(),
            selection: wanted.clone(),
            keep_original: keep.then(|| service.selector.clone()),
            base,
        })
    }

    /// Whether a Service of this name is needed when the release is gone and a Deployment has its pods back:
    /// the one of clients, and the other one where a route names it.
    fn outlives(&self, name: &str) -> bool {
        let spec = &self.release.spec;
        let of_clients = spec.traffic.as_ref().is_some_and(|traffic| traffic.service == name);
        spec.workload_ref.is_some() && (of_clients || spec.router().is_some())
    }

    /// The labels in which the base of an own Service's selector is not that which it was made with.
    fn base_to_put_right(&self, service: &Service) -> BTreeMap<String, Option<String>> {
        let labels = self.match_labels();
        if !service.owned || labels.is_empty() {
            return BTreeMap::new();
        }
        let foreign = |key: &&String| !labels.contains_key(*key) && *key != LABEL_RELEASE && *key != LABEL_REVISION;
        let taken_out = service.selector.keys().filter(foreign).map(|key| (key.clone(), None));
        let wrong = labels.iter().filter(|(key, value)| service.selector.get(*key) != Some(value));
        taken_out.chain(wrong.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
    }

    /// Puts the base of own Services' selectors right, whatever else they select.
    pub fn put_right(&self) -> Vec<Effect> {
        let services = [self.service(), self.seen.candidate_service.as_ref().filter(|_| self.used())];
        let wrong = services.into_iter().flatten().filter_map(|service| {
            let base = self.base_to_put_right(service);
            let (object, selection) = (service.object.clone(), selection(service));
            (!base.is_empty()).then_some(Effect::Select { object, selection, keep_original: None, base })
        });
        wrong.collect()
    }
}

/// What a Service selects over and above its original selector.
pub fn selection(service: &Service) -> Selection {
    match (service.selector.get(LABEL_REVISION), service.selector.get(LABEL_RELEASE)) {
        (Some(none), _) if none == NO_REVISION => Selection::Nothing,
        (Some(hash), _) => Selection::Revision(hash.clone()),
        (None, Some(_)) => Selection::Release,
        (None, None) => Selection::Original,
    }
}

/// Ready endpoints of a Service that are pods of somebody else.
pub fn foreign_endpoints(service: &Service) -> i32 {
    ready(service, None)
}

fn ready(service: &Service, hash: Option<&str>) -> i32 {
    let count =
        service.endpoints.iter().filter(|endpoint| endpoint.ready && endpoint.revision.as_deref() == hash).count();
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The ports of a template's containers, for a Service that has to be made: each once, named as the
/// container names it or by its number.
pub fn ports(template: &Template) -> Vec<ServicePort> {
    let template = template.to_value();
    let containers = template.pointer("/spec/containers").and_then(|value| value.as_array().cloned());
    let mut ports: Vec<ServicePort> = Vec::new();
    for port in containers.iter().flatten().filter_map(|container| container.get("ports")?.as_array()).flatten() {
        let Some(number) = port.get("containerPort").and_then(serde_json::Value::as_i64) else { continue };
        let Ok(number) = i32::try_from(number) else { continue };
        let text = |key: &str| port.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        let protocol = text("protocol").unwrap_or_else(|| "TCP".into());
        let name = text("name").unwrap_or_else(|| format!("{}-{number}", protocol.to_lowercase()));
        if !ports.iter().any(|known| known.name == name || (known.port == number && known.protocol == protocol)) {
            ports.push(ServicePort { name, port: number, protocol });
        }
    }
    ports
}
