//! A small fair cluster: every effect is carried out, pods do at once what their image says.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, Time},
        util::intstr::IntOrString,
    },
    jiff,
};
use serde_json::json;

use crate::{
    api::{
        Action, Duration, FINALIZER, LABEL_RELEASE, LABEL_REVISION, ParentRef, Phase, ServiceRelease,
        ServiceReleaseSpec, ServiceReleaseStatus, Timestamp, WorkOutcome,
    },
    engine::{
        Answer, Command, Container, Decision, Effect, Ended, Endpoint, Job, JobEnd, NO_REVISION, NamedTemplate,
        ObjectVersion, Observed, Pod, Question, Reply, Report, Revision, Route, RouteParent, Run, Selection, Service,
        Task, Template, TemplateCheck, Workload, decide, wants_templates,
    },
};

/// A ReplicaSet with these pods.
pub fn revision(hash: &str, pods: Vec<Pod>) -> Revision {
    let size = i32::try_from(pods.len()).unwrap();
    Revision {
        object: object(&format!("shop-{hash}")),
        hash: hash.into(),
        fingerprint: String::new(),
        template: Template::new(json!({})),
        created: Timestamp::from_millis(0),
        replicas: size,
        min_ready_seconds: 0,
        observed: true,
        pods_total: size,
        ready: 0,
        available: 0,
        failure: None,
        deleting: false,
        pods,
    }
}

fn object(name: &str) -> ObjectVersion {
    ObjectVersion { name: name.into(), uid: format!("uid-{name}"), resource_version: "1".into() }
}

/// The pod template of an image. What the image's name contains decides how its pods behave.
pub fn template(image: &str) -> serde_json::Value {
    json!({
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "app", "image": image, "ports": [{"containerPort": 8080}]}]},
    })
}

pub struct World {
    pub release: ServiceRelease,
    pub seen: Observed,
    pub now: Timestamp,
    /// All effects carried out, in order.
    pub log: Vec<Effect>,
    /// Images whose pods do not become available, besides those that say so in their name.
    pub broken: Vec<String>,
    /// What the API server says when it is asked about a template.
    pub answer_about_templates: TemplateCheck,
    /// The AnalysisTemplates that there are.
    pub templates: Vec<NamedTemplate>,
    /// Services that are not deleted with the release.
    pub outliving: Vec<String>,
    /// Pods that a quota allows in all.
    pub quota: Option<i32>,
    /// The gateway accepts no route.
    pub gateway_refuses: bool,
    /// What comes back to a question; nothing yet if none.
    pub reply: fn(&Question) -> Option<Reply>,
    /// What a Job for a database reports; it runs on if none.
    pub report: fn(&Task) -> Option<Report>,
    /// The image that their pods ran, as the kubelet tells it.
    pub image: Option<String>,
    /// What happens to a pod of an image.
    pub touch: fn(&str, &mut Pod),
    said: usize,
}

impl World {
    /// A release of image v1 behind Service shop, with this strategy, before its first pass.
    pub fn new(strategy: serde_json::Value, replicas: i32) -> Self {
        Self::of(json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template("v1"),
            "traffic": {"service": "shop", "candidateService": "shop-candidate"},
            "strategy": strategy,
        }))
    }

    /// The same, run until v1 is Healthy.
    pub fn healthy(strategy: serde_json::Value, replicas: i32) -> Self {
        let mut world = Self::new(strategy, replicas);
        world.settle();
        assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
        world.log.clear();
        world
    }

    pub fn of(spec: serde_json::Value) -> Self {
        let spec: ServiceReleaseSpec = serde_json::from_value(spec).unwrap();
        let metadata = ObjectMeta {
            name: Some("shop".into()),
            namespace: Some("default".into()),
            generation: Some(1),
            creation_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        let release = ServiceRelease { metadata, spec, status: None };
        let now = Timestamp::from_millis(1_000_000_000);
        Self {
            release,
            seen: Observed::default(),
            now,
            log: Vec::new(),
            broken: Vec::new(),
            answer_about_templates: TemplateCheck::Passed,
            templates: Vec::new(),
            outliving: Vec::new(),
            quota: None,
            gateway_refuses: false,
            reply: |_| Some(right()),
            report: |_| None,
            image: None,
            touch: |_, _| {},
            said: 0,
        }
    }

    pub fn status(&self) -> ServiceReleaseStatus {
        self.release.status.clone().unwrap_or_default()
    }

    pub fn phase(&self) -> Phase {
        self.status().phase
    }

    pub fn stable(&self) -> String {
        self.status().stable.map(|entry| entry.images.join(",")).unwrap_or_default()
    }

    /// The revision that the spec wants.
    pub fn target(&self) -> String {
        crate::engine::revision::target(&self.release, &self.seen).unwrap().hash
    }

    pub fn candidate(&self) -> Option<String> {
        self.status().candidate.map(|entry| entry.revision)
    }

    pub fn hash(&self, image: &str) -> String {
        self.of_image(image).hash.clone()
    }

    pub fn of_image(&self, image: &str) -> &Revision {
        let has = |revision: &&Revision| crate::engine::pass::images(&revision.template) == [image];
        self.seen.revisions.iter().find(has).unwrap_or_else(|| panic!("no revision of {image}"))
    }

    pub fn pods(&self, image: &str) -> i32 {
        let of = |revision: &&Revision| crate::engine::pass::images(&revision.template) == [image];
        self.seen.revisions.iter().find(of).map_or(0, |revision| revision.replicas)
    }

    pub fn condition(&self, kind: &str) -> String {
        self.status().conditions.into_iter().find(|condition| condition.type_ == kind).unwrap().status
    }

    pub fn selected(&self) -> Selection {
        crate::engine::selection(self.seen.service.as_ref().unwrap())
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut ServiceReleaseSpec)) {
        change(&mut self.release.spec);
        *self.release.metadata.generation.get_or_insert(0) += 1;
    }

    pub fn set_image(&mut self, image: &str) {
        let template = serde_json::from_value(template(image)).unwrap();
        self.edit(|spec| spec.template = Some(template));
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    pub fn say(&mut self, action: Action, change: impl FnOnce(&mut Command)) {
        self.said += 1;
        let name = format!("command-{}", self.said);
        let mut command = Command {
            object: object(&name),
            created: self.now,
            action,
            revision: None,
            step: None,
            full: false,
            to_revision: None,
            approval: None,
            reason: None,
            requested_by: Some("ann".into()),
            decided_at: None,
        };
        change(&mut command);
        self.seen.commands.push(command);
    }

    /// The answer to the last command that was decided.
    pub fn answer(&self) -> String {
        let record = self.status().commands.last().cloned().unwrap();
        format!("{:?}: {}", record.phase, record.message)
    }

    /// One pass, everything it decides carried out, and one tick of the cluster.
    pub fn pass(&mut self) -> Decision {
        let read = wants_templates(&self.release, &self.seen);
        self.seen.templates = if read { self.templates.clone() } else { Vec::new() };
        let decision = decide(&self.release, &self.seen, self.now);
        for effect in decision.before.iter().chain(&decision.after) {
            self.carry_out(effect);
        }
        self.release.status = Some(decision.status.clone());
        self.answer_questions(&decision.questions);
        self.tick();
        decision
    }

    fn answer_questions(&mut self, open: &[Question]) {
        let answers = &mut self.seen.answers;
        answers.retain(|answer| open.iter().any(|question| question.id == answer.id));
        for question in open {
            if !answers.iter().any(|answer| answer.id == question.id)
                && let Some(reply) = (self.reply)(question)
            {
                answers.push(Answer { id: question.id.clone(), at: self.now, reply });
            }
        }
    }

    /// Passes until nothing changes; time stands still.
    pub fn settle(&mut self) {
        self.settle_watching(|_| {});
    }

    /// The same, with a look after every pass.
    pub fn settle_watching(&mut self, mut look: impl FnMut(&Self)) {
        for _ in 0..100 {
            let before = (self.release.clone(), self.seen.clone());
            self.pass();
            look(self);
            if before == (self.release.clone(), self.seen.clone()) {
                return;
            }
        }
        panic!("no rest: {:?}", self.log.iter().rev().take(5).collect::<Vec<_>>());
    }

    fn carry_out(&mut self, effect: &Effect) {
        self.log.push(effect.clone());
        let revisions = &mut self.seen.revisions;
        match effect {
            Effect::AddFinalizer => self.release.metadata.finalizers = Some(vec![FINALIZER.into()]),
            Effect::RemoveFinalizer => self.release.metadata.finalizers = None,
            Effect::PinPlan(plan) => {
                self.seen.plans.push((**plan).clone());
                self.seen.plan_numbers.push(plan.number);
            }
            Effect::DeletePlan { number } => {
                self.seen.plans.retain(|plan| plan.number != *number);
                self.seen.plan_numbers.retain(|known| known != number);
            }
            Effect::TryTemplate(_) => self.seen.template_check = self.answer_about_templates.clone(),
            Effect::ConfirmService { .. } => {}
            Effect::CreateJob(new) => {
                assert!(self.seen.jobs.iter().all(|job| job.object.name != new.name), "{} is there", new.name);
                let end = match &new.run {
                    Run::Database(job) => job.task.as_ref().and_then(self.report).map(|report| JobEnd {
                        succeeded: report.outcome == WorkOutcome::Done,
                        at: self.now,
                        took: 1_000,
                        message: String::new(),
                        report: Some(serde_json::to_string(&report).unwrap()),
                        image: self.image.clone(),
                    }),
                    _ => None,
                };
                self.seen.jobs.push(Job { object: object(&new.name), end, ..Job::default() });
            }
            Effect::SetKeys { object, values } => {
                let map = self.seen.config_maps.iter_mut().find(|map| map.object == *object).unwrap();
                map.changed_by = None;
                for (key, value) in values {
                    map.ours.insert(key.clone());
                    match value {
                        Some(value) => map.data.insert(key.clone(), value.clone()),
                        None => map.data.remove(key),
                    };
                }
            }
            Effect::DeleteJob { object } => self.seen.jobs.retain(|job| job.object != *object),
            Effect::CreateReplicaSet(new) => revisions.push(Revision {
                object: object(&new.name),
                hash: new.hash.clone(),
                fingerprint: new.fingerprint.clone(),
                template: new.template.clone(),
                created: self.now,
                replicas: new.replicas,
                min_ready_seconds: new.min_ready_seconds,
                pods_total: 0,
                ..revision(&new.hash, Vec::new())
            }),
            Effect::ScaleReplicaSet { object, replicas } => {
                revisions.iter_mut().find(|seen| seen.object == *object).unwrap().replicas = *replicas;
            }
            Effect::SetMinReadySeconds { object, seconds } => {
                revisions.iter_mut().find(|seen| seen.object == *object).unwrap().min_ready_seconds = *seconds;
            }
            Effect::DeleteReplicaSet { object } => revisions.retain(|seen| seen.object != *object),
            Effect::ScaleWorkload { replicas, .. } => self.seen.workload.as_mut().unwrap().replicas = *replicas,
            Effect::CreateService(new) => {
                let mut service = Service { object: object(&new.name), owned: true, ..Service::default() };
                self.outliving.extend((!new.owned).then(|| new.name.clone()));
                service.targets = new.ports.iter().map(|it| (it.port, IntOrString::Int(it.port))).collect();
                service.selector.clone_from(&new.match_labels);
                select(&mut service, &new.selection);
                if new.name == "shop" {
                    self.seen.service = Some(service);
                } else {
                    self.seen.candidate_service = Some(service);
                }
            }
            Effect::Select { object, selection, keep_original, base } => {
                let both = [&mut self.seen.service, &mut self.seen.candidate_service];
                let service = both.into_iter().flatten().find(|service| service.object == *object).unwrap();
                if let Some(original) = keep_original {
                    service.original = Some(original.clone());
                }
                for (key, value) in base {
                    match value {
                        Some(value) => service.selector.insert(key.clone(), value.clone()),
                        None => service.selector.remove(key),
                    };
                }
                select(service, selection);
                service.changed_by = None;
            }
            Effect::CreateRoute(new) if new.name.ends_with("-preview") => {
                let (object, spec) = (object(&new.name), new.spec.clone());
                self.seen.preview = Some(Route { object, spec, ours: true, ..Route::default() });
            }
            Effect::DeleteRoute { .. } => self.seen.preview = None,
            Effect::ReplaceRoute { object, spec } if object.name.ends_with("-preview") => {
                self.seen.preview.as_mut().unwrap().spec = spec.clone();
            }
            Effect::CreateRoute(new) => {
                self.seen.route = Some(Route { object: object(&new.name), ours: true, ..Route::default() });
                self.write_route(|spec| *spec = new.spec.clone());
            }
            Effect::ReplaceRoute { spec: wanted, .. } => self.write_route(|spec| *spec = wanted.clone()),
            Effect::SetRouteWeights { weights, .. }
                if weights.iter().any(|(path, _)| path.starts_with("/metadata")) =>
            {
                self.seen.route.as_mut().unwrap().share = Some(json!(weights[0].1.to_string()));
            }
            Effect::SetRouteWeights { weights, .. } => self.write_route(|spec| {
                for (path, weight) in weights {
                    *spec.pointer_mut(path.strip_prefix("/spec").unwrap()).unwrap() = json!(weight);
                }
            }),
            Effect::AnswerCommand { object, at, .. } => {
                let command = self.seen.commands.iter_mut().find(|command| command.object == *object).unwrap();
                command.decided_at = Some(*at);
            }
            Effect::DeleteCommand { object } => self.seen.commands.retain(|command| command.object != *object),
        }
    }

    /// Writes the route; its gateway accepts it at once, unless it refuses all.
    pub fn write_route(&mut self, change: impl FnOnce(&mut serde_json::Value)) {
        let route = self.seen.route.as_mut().unwrap();
        change(&mut route.spec);
        route.generation += 1;
        route.changed_by = None;
        let (generation, accepted) = (route.generation, !self.gateway_refuses);
        let why = if accepted { String::new() } else { "NotAllowedByListeners: no listener allows it".to_owned() };
        let parents = route.spec["parentRefs"].as_array().cloned().unwrap_or_default().into_iter();
        let parents = parents.map(|parent| serde_json::from_value(parent).unwrap());
        // Of a Gateway that is not there nobody says anything.
        let parents = parents.filter(|parent: &ParentRef| parent.name != "nowhere");
        let entry = |reference| RouteParent {
            reference,
            controller: "example.com/gateway".into(),
            generation,
            accepted,
            why: why.clone(),
        };
        route.parents = parents.map(entry).collect();
    }

    /// Controllers and kubelets do their work.
    fn tick(&mut self) {
        // Pods that are there stay; a quota keeps new ones from coming.
        let kept: i32 = self.seen.revisions.iter().map(|seen| seen.pods_total.min(seen.replicas)).sum();
        let mut free = self.quota.map_or(i32::MAX, |quota| (quota - kept).max(0));
        for revision in &mut self.seen.revisions {
            let kept = revision.pods_total.min(revision.replicas);
            let new = (revision.replicas - kept).min(free);
            free -= new;
            let lacks = kept + new < revision.replicas;
            revision.failure = lacks.then(|| "FailedCreate: exceeded quota: pods".to_owned());
            revision.pods_total = kept + new;
            let image = crate::engine::pass::images(&revision.template).join(",");
            let broken = image.contains("broken") || self.broken.contains(&image);
            let pod = |index| {
                let mut pod = pod(&format!("{}-{index}", revision.hash), &image, broken);
                (self.touch)(&image, &mut pod);
                pod
            };
            revision.pods = (0..revision.pods_total).map(pod).collect();
            let ready = revision.pods.iter().filter(|pod| pod.ready).count();
            revision.ready = i32::try_from(ready).unwrap();
            revision.available = revision.ready;
        }
        if let Some(workload) = &mut self.seen.workload {
            workload.available = workload.replicas;
        }
        for service in [&mut self.seen.service, &mut self.seen.candidate_service].into_iter().flatten() {
            service.endpoints = Vec::new();
            let selection = crate::engine::selection(service);
            for revision in &self.seen.revisions {
                let selected = match &selection {
                    Selection::Nothing => false,
                    Selection::Revision(hash) => *hash == revision.hash,
                    Selection::Release | Selection::Original => true,
                };
                let ready = revision.pods.iter().filter(|pod| selected && pod.ready);
                service.endpoints.extend(ready.map(|pod| Endpoint {
                    pod: Some(pod.name.clone()),
                    revision: Some(revision.hash.clone()),
                    ready: true,
                }));
            }
            let own = self.seen.workload.as_ref().filter(|_| selection == Selection::Original);
            let own = own.map_or(0, |workload| workload.available);
            service.endpoints.extend((0..own).map(|_| Endpoint { ready: true, ..Endpoint::default() }));
        }
    }
}

/// An answer as it is expected.
pub fn right() -> Reply {
    Reply::Check { fault: None, seen: "200".into(), took: Duration::from_millis(10) }
}

/// A provider that was there as long as the candidate had no requests, and does not answer any more.
pub fn unanswered(question: &Question) -> Option<Reply> {
    Some(match is_before_requests(question) {
        true => Reply::Value(0.0),
        false => Reply::ProviderError("no connection".into()),
    })
}

/// Whether a metric is asked for only to know whether there is an answer.
pub fn is_before_requests(question: &Question) -> bool {
    question.id.starts_with("reach/")
}

/// One that is not.
pub fn wrong() -> Reply {
    Reply::Check { fault: Some("expected status 200".into()), seen: "503".into(), took: Duration::from_millis(10) }
}

fn pod(name: &str, image: &str, broken: bool) -> Pod {
    let crashing = image.contains("crash") && broken;
    let container = Container {
        name: "app".into(),
        waiting: crashing.then(|| "CrashLoopBackOff".into()),
        restarts: if crashing { 2 } else { 0 },
        ended: crashing.then(|| Ended { reason: "Error".into(), exit_code: 3, signal: None, at: None }),
        ..Container::default()
    };
    let address = Some(format!("198.18.0.{}", name.rsplit('-').next().unwrap_or_default()));
    Pod { name: name.into(), address, ready: !broken, containers: vec![container], ..Pod::default() }
}

fn select(service: &mut Service, selection: &Selection) {
    service.selector.remove(LABEL_REVISION);
    service.selector.remove(LABEL_RELEASE);
    let (key, value) = match selection {
        Selection::Nothing => (LABEL_REVISION, NO_REVISION),
        Selection::Revision(hash) => (LABEL_REVISION, hash.as_str()),
        Selection::Release => (LABEL_RELEASE, "shop"),
        Selection::Original => {
            service.original = None;
            return;
        }
    };
    service.selector.insert(key.into(), value.into());
}

/// A Deployment of image v1 with three replicas and its Service, adopted by a release.
pub fn adopted() -> World {
    let mut world = World::of(json!({
        "workloadRef": {"name": "shop"},
        "traffic": {"service": "shop"},
        "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
    }));
    let match_labels = BTreeMap::from([("app".to_owned(), "shop".to_owned())]);
    world.seen.workload = Some(Workload {
        object: object("shop"),
        generation: 1,
        observed: true,
        replicas: 3,
        available: 3,
        match_labels: match_labels.clone(),
        template: Template::new(template("v1")),
        deleting: false,
    });
    world.seen.service = Some(Service { object: object("shop"), selector: match_labels, ..Service::default() });
    world.tick();
    world
}
