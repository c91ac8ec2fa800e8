//! A release under test: every status that it ever had is on record, so that a scenario can ask for
//! what was there for a moment only, and in which order.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        wait::await_condition,
        watcher::{self, Event},
    },
};
use serde_json::{Value, json};
use servicerelease::api::{
    CommandPhase, Phase, ReleaseCommand, ReleaseCommandStatus, ServiceRelease, ServiceReleaseStatus,
};
use tokio::{sync::watch, time::timeout};

use super::World;

/// How long a release may take to where a scenario wants it, unless the scenario says otherwise.
const LONG: Duration = Duration::from_secs(90);

/// A ServiceRelease, and what its status has been.
pub struct Shop {
    world: World,
    name: String,
    record: Arc<Record>,
    /// Where in the record the next question begins.
    mark: AtomicUsize,
    /// Statuses that were decided on an older generation are not looked at.
    generation: AtomicI64,
    workload_generation: AtomicI64,
}

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<ServiceRelease>>,
    length: watch::Sender<usize>,
}

impl Record {
    fn push(&self, release: ServiceRelease) {
        let mut seen = self.seen.lock().expect("no panic under this lock");
        seen.push(release);
        self.length.send_replace(seen.len());
    }

    fn from(&self, mark: usize) -> Vec<ServiceRelease> {
        self.seen.lock().expect("no panic under this lock")[mark..].to_vec()
    }
}

impl Shop {
    /// Watches a ServiceRelease that exists.
    pub async fn watch(world: &World, name: &str) -> Self {
        let record = Arc::new(Record::default());
        let api: Api<ServiceRelease> = world.api();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let into = record.clone();
        tokio::spawn(async move {
            let mut events = watcher::watcher(api, config).default_backoff().boxed();
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(release) | Event::InitApply(release)) = event {
                    into.push(release);
                }
            }
        });
        let shop = Self {
            world: world.clone(),
            name: name.to_owned(),
            record,
            mark: AtomicUsize::new(0),
            generation: AtomicI64::new(0),
            workload_generation: AtomicI64::new(0),
        };
        let generation = shop.get().await.metadata.generation.unwrap_or_default();
        shop.generation.store(generation, Ordering::SeqCst);
        shop
    }

    fn api(&self) -> Api<ServiceRelease> {
        self.world.api()
    }

    /// The object as it is now.
    pub async fn get(&self) -> ServiceRelease {
        self.api().get(&self.name).await.expect("the ServiceRelease")
    }

    /// Its status as it is now.
    pub async fn status(&self) -> ServiceReleaseStatus {
        self.get().await.status.unwrap_or_default()
    }

    /// Changes the object by a JSON merge patch in YAML.
    pub async fn patch(&self, change: &str) {
        self.send(Patch::Merge(super::yaml(change))).await;
    }

    /// Releases a version: the variables are all that the container's environment has.
    pub async fn release(&self, version: &str, variables: &[(&str, &str)]) {
        let all = [("APP_VERSION", version)].into_iter().chain(variables.iter().copied());
        let env: Vec<Value> = all.map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.change_container("env", json!(env)).await;
    }

    /// The same with a change of the rest (a JSON merge patch), which is one change of the object.
    pub async fn release_with(&self, version: &str, more: Value) {
        let mut containers = json!(self.get().await.spec)["template"]["spec"]["containers"].take();
        containers[0]["env"] = json!([{ "name": "APP_VERSION", "value": version }]);
        let mut change = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
        super::merge(&mut change, more);
        self.send(Patch::Merge(change)).await;
    }

    /// Sets a field of the container, and with that starts a release.
    pub async fn change_container(&self, field: &str, value: Value) {
        let operation =
            json!([{ "op": "add", "path": format!("/spec/template/spec/containers/0/{field}"), "value": value }]);
        self.send::<Value>(Patch::Json(serde_json::from_value(operation).expect("a JSON patch"))).await;
    }

    async fn send<T: serde::Serialize + std::fmt::Debug>(&self, patch: Patch<T>) {
        self.mark.store(*self.record.length.borrow(), Ordering::SeqCst);
        let changed = self.api().patch(&self.name, &PatchParams::default(), &patch).await;
        let changed = changed.unwrap_or_else(|error| panic!("{error}; changing with {patch:?}"));
        self.generation.store(changed.metadata.generation.unwrap_or_default(), Ordering::SeqCst);
    }

    /// From now on only statuses that were decided on this generation of the Deployment count.
    pub fn expect_workload_generation(&self, generation: i64) {
        self.workload_generation.store(generation, Ordering::SeqCst);
    }

    fn is_current(&self, status: &ServiceReleaseStatus) -> bool {
        let workload = status.workload.as_ref().map_or(0, |workload| workload.observed_generation);
        status.observed_generation >= self.generation.load(Ordering::SeqCst)
            && workload >= self.workload_generation.load(Ordering::SeqCst)
    }

    /// Waits for a status, from the one that was waited for last on; not longer than usual.
    pub async fn reaches(&self, what: &str, wanted: impl Fn(&ServiceReleaseStatus) -> bool) -> ServiceReleaseStatus {
        self.reaches_within(LONG, what, wanted).await
    }

    /// The same with a limit.
    pub async fn reaches_within(
        &self,
        most: Duration,
        what: &str,
        wanted: impl Fn(&ServiceReleaseStatus) -> bool,
    ) -> ServiceReleaseStatus {
        let mut length = self.record.length.subscribe();
        let looking = async {
            loop {
                length.borrow_and_update();
                let mark = self.mark.load(Ordering::SeqCst);
                for (index, release) in self.record.from(mark).into_iter().enumerate() {
                    let Some(status) = release.status.filter(|status| self.is_current(status) && wanted(status)) else {
                        continue;
                    };
                    self.mark.store(mark + index, Ordering::SeqCst);
                    return status;
                }
                length.changed().await.expect("the record is kept");
            }
        };
        match timeout(most, looking).await {
            Ok(status) => status,
            Err(_) => panic!("not within {most:?}: {what}. It went like this:\n{}", self.tell()),
        }
    }

    /// Waits until the spec serves.
    pub async fn healthy(&self) -> ServiceReleaseStatus {
        self.reaches("Healthy, Ready", |status| status.phase == Phase::Healthy && is(status, "Ready")).await
    }

    /// Waits for a phase.
    pub async fn phase(&self, phase: Phase) -> ServiceReleaseStatus {
        self.reaches(&format!("{phase:?}"), |status| status.phase == phase).await
    }

    /// Waits until the step under way is this one (`2/5 pause`, as the column shows it) in this phase.
    pub async fn step(&self, summary: &str, phase: Phase) -> ServiceReleaseStatus {
        let at = |status: &ServiceReleaseStatus| status.step.as_ref().is_some_and(|step| step.summary == summary);
        self.reaches(&format!("{summary} in phase {phase:?}"), |status| at(status) && status.phase == phase).await
    }

    /// Asserts something of every status since the last change of the object.
    pub fn always(&self, what: &str, holds: impl Fn(&ServiceReleaseStatus) -> bool) {
        let generation = self.generation.load(Ordering::SeqCst);
        let all = self.record.from(0);
        let since = all.iter().filter_map(|release| release.status.as_ref());
        let broken = since.filter(|status| status.observed_generation >= generation).find(|status| !holds(status));
        if let Some(status) = broken {
            panic!("not always: {what}, but {}\n{}", line(status), self.tell());
        }
    }

    /// Gives a command and returns what became of it. The revision that some actions need is that of
    /// the candidate, or else the failed one, unless `more` (YAML) says otherwise.
    pub async fn command(&self, action: &str, more: &str) -> ReleaseCommandStatus {
        let status = self.status().await;
        let mut spec = json!({ "release": self.name, "action": action });
        if matches!(action, "Promote" | "Approve" | "Skip" | "Retry") {
            let failed = status.failed_revisions.last().map(|failed| failed.revision.clone());
            spec["revision"] =
                json!(status.candidate.map(|candidate| candidate.revision).or(failed).unwrap_or_default());
        }
        if !more.is_empty() {
            super::merge(&mut spec, super::yaml(more));
        }
        let command = json!({ "apiVersion": "servicerelease.io/v1alpha1", "kind": "ReleaseCommand",
            "metadata": { "generateName": format!("{}-", action.to_lowercase()) }, "spec": spec });
        let api: Api<ReleaseCommand> = self.world.api();
        let command = serde_json::from_value(command).expect("a ReleaseCommand");
        let made =
            api.create(&PostParams::default(), &command).await.unwrap_or_else(|error| panic!("{action}: {error}"));
        let decided = |command: Option<&ReleaseCommand>| command.is_some_and(|command| command.status.is_some());
        let name = made.name_any();
        let waiting = await_condition(api, &name, decided);
        let decided = timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("{action} was not decided in {LONG:?}"));
        decided.expect("a watch of the command").and_then(|command| command.status).expect("decided")
    }

    /// Gives a command that must be followed.
    pub async fn say(&self, action: &str) {
        let status = self.command(action, "").await;
        assert_eq!(status.phase, CommandPhase::Applied, "{action}: {}", status.message);
    }

    /// Gives a command that must be refused, and returns why.
    pub async fn refused(&self, action: &str, more: &str) -> String {
        let status = self.command(action, more).await;
        assert_eq!(status.phase, CommandPhase::Rejected, "{action}: {}", status.message);
        status.message
    }

    /// Pods asked for, of each revision that has any.
    pub async fn sizes(&self) -> Vec<(String, i32)> {
        let api: Api<ReplicaSet> = self.world.api();
        let own = ListParams::default().labels(&format!("{}={}", servicerelease::api::LABEL_RELEASE, self.name));
        let sets = api.list(&own).await.expect("ReplicaSets");
        let size = |set: ReplicaSet| {
            let revision = set.labels().get(servicerelease::api::LABEL_REVISION).cloned().unwrap_or_default();
            (revision, set.spec.and_then(|spec| spec.replicas).unwrap_or_default())
        };
        sets.into_iter().map(size).filter(|(_, replicas)| *replicas > 0).collect()
    }

    /// Deletes the object, with a propagation policy, and waits until it is gone.
    pub async fn delete(&self, how: DeleteParams) {
        let uid = self.get().await.uid().unwrap_or_default();
        self.api().delete(&self.name, &how).await.expect("a deletion");
        let gone = await_condition(self.api(), &self.name, kube::runtime::conditions::is_deleted(&uid));
        timeout(LONG, gone).await.unwrap_or_else(|_| panic!("not deleted in {LONG:?}")).expect("a watch");
    }

    /// Every status since the last change in a line each.
    fn tell(&self) -> String {
        let all = self.record.from(0);
        let lines = all.iter().filter_map(|release| release.status.as_ref()).map(line);
        let mut lines: Vec<String> = lines.collect();
        lines.dedup();
        let skipped = lines.len().saturating_sub(40);
        lines.drain(..skipped);
        lines.join("\n")
    }
}

/// Whether a condition is True.
pub fn is(status: &ServiceReleaseStatus, condition: &str) -> bool {
    status.conditions.iter().any(|one| one.type_ == condition && one.status == "True")
}

/// A status in a line.
fn line(status: &ServiceReleaseStatus) -> String {
    let weight = status.weights.unwrap_or_default();
    let step = status.step.as_ref().map(|step| step.summary.as_str()).unwrap_or_default();
    format!(
        "generation {} {:?} {} [{step}] desired {}% observed {}%: {}",
        status.observed_generation,
        status.phase,
        status.reason,
        weight.desired.candidate,
        weight.observed.candidate,
        status.message
    )
}
