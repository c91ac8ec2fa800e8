//! From effects to API calls: one call each, with the version that it was decided on. Every call's
//! outcome is remembered as something the cache has to show before the next decision.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{FINALIZER, LABEL_RELEASE, ReleaseCommandStatus, Router, ServiceRelease},
    engine::{self, Effect, NewJob, NewReplicaSet, ObjectVersion, Plan, Selection},
};

use super::{
    build,
    cache::{Cache, Cached as _, Kind, Wait},
    calls::{CallError, Calls, Place, Written},
    jobs::{self, Runner},
    key::Key,
    memory::Memory,
    observe::{self, Whose},
    routers::CustomKind,
};

/// Has the API server refuse fields that it does not know.
const STRICT: &str = "&fieldValidation=Strict";

/// Carries out the effects of one pass.
pub struct Executor<'a> {
    calls: &'a Calls,
    cache: &'a Cache,
    memory: &'a Memory,
    key: &'a Key,
    release: &'a ServiceRelease,
    custom: Option<Arc<CustomKind>>,
    runner: Option<Runner>,
    /// Versions that this pass has written; what follows in the same pass builds on them.
    written: HashMap<(Kind, String), String>,
}

impl<'a> Executor<'a> {
    /// For a pass over a release.
    #[must_use]
    pub fn new(
        calls: &'a Calls,
        cache: &'a Cache,
        memory: &'a Memory,
        key: &'a Key,
        release: &'a ServiceRelease,
        custom: Option<Arc<CustomKind>>,
        runner: Option<Runner>,
    ) -> Self {
        Self { calls, cache, memory, key, release, custom, runner, written: HashMap::new() }
    }

    /// Carries out effects in their order, up to the first that fails.
    ///
    /// # Errors
    /// That of the call that failed.
    pub async fn carry_out(&mut self, effects: &[Effect]) -> Result<(), CallError> {
        for effect in effects {
            self.one(effect).await?;
        }
        Ok(())
    }

    async fn one(&mut self, effect: &Effect) -> Result<(), CallError> {
        match effect {
            Effect::AddFinalizer => self.set_finalizer(true).await,
            Effect::RemoveFinalizer => self.set_finalizer(false).await,
            Effect::PinPlan(plan) => self.pin(plan).await,
            Effect::DeletePlan { number } => match self.plan_object(*number) {
                Some(object) => self.delete(Kind::Plan, &object).await,
                None => Ok(()),
            },
            Effect::TryTemplate(new) => self.try_template(new).await,
            Effect::CreateReplicaSet(new) => self.create_replica_set(new).await,
            Effect::ScaleReplicaSet { object, replicas } => {
                let spec = json!({ "replicas": replicas });
                self.change(Kind::ReplicaSet, object, Place::of, "spec", spec).await
            }
            Effect::SetMinReadySeconds { object, seconds } => {
                let spec = json!({ "minReadySeconds": seconds });
                self.change(Kind::ReplicaSet, object, Place::of, "spec", spec).await
            }
            Effect::DeleteReplicaSet { object } => self.delete(Kind::ReplicaSet, object).await,
            Effect::ScaleWorkload { object, replicas } => {
                let spec = json!({ "replicas": replicas });
                self.change(Kind::Deployment, object, Place::scale, "spec", spec).await
            }
            Effect::CreateService(new) => {
                self.create(Kind::Service, &new.name, &build::service(self.release, new), "").await
            }
            Effect::CreateRoute(new) => {
                self.create(self.route_kind(), &new.name, &build::route(self.release, new), STRICT).await
            }
            Effect::DeleteRoute { object } => self.delete(self.route_kind(), object).await,
            Effect::ReplaceRoute { object, spec } => {
                self.change(self.route_kind(), object, Place::of, "spec", spec.clone()).await
            }
            Effect::SetRouteWeights { object, weights } => self.set_weights(object, weights).await,
            Effect::Select { object, selection, keep_original, base } => {
                self.select(object, selection, keep_original.as_ref(), base).await
            }
            Effect::ConfirmService { object } => self.confirm(Kind::Service, object).await,
            Effect::CreateJob(new) => self.create_job(new).await,
            Effect::SetKeys { object, values } => self.set_keys(object, values).await,
            Effect::DeleteJob { object } => self.delete(Kind::Job, object).await,
            Effect::AnswerCommand { object, phase, message, at } => {
                let status = json!(ReleaseCommandStatus { phase: *phase, message: message.clone(), at: *at });
                self.change(Kind::Command, object, Place::status, "status", status).await
            }
            Effect::DeleteCommand { object } => self.delete(Kind::Command, object).await,
        }
    }

    /// Writes the status by a merge patch.
    ///
    /// # Errors
    /// That of the call.
    pub async fn write_status(&mut self, patch: Value) -> Result<(), CallError> {
        let object = self.this();
        self.change(Kind::Release, &object, Place::status, "status", patch).await
    }

    /// The kind of the release's own route.
    fn route_kind(&self) -> Kind {
        let router = self.release.spec.router();
        Kind::of_route(router.map(Router::protocol).unwrap_or_default())
    }

    /// The ServiceRelease itself, as it was observed.
    fn this(&self) -> ObjectVersion {
        let meta = &self.release.metadata;
        ObjectVersion {
            name: self.key.name.to_string(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
        }
    }

    async fn set_finalizer(&mut self, there: bool) -> Result<(), CallError> {
        let known = self.release.metadata.finalizers.iter().flatten();
        let others = known.filter(|name| *name != FINALIZER).map(String::as_str);
        let finalizers: Vec<&str> = others.chain(there.then_some(FINALIZER)).collect();
        let object = self.current(Kind::Release, &self.this());
        let mut body = json!({ "metadata": build::precondition(&object) });
        body["metadata"]["finalizers"] = json!(finalizers);
        let place = Place::of(Kind::Release, self.key.clone());
        self.send_patch(Kind::Release, &object, &place, &body).await
    }

    async fn create(&mut self, kind: Kind, name: &str, body: &Value, query: &str) -> Result<(), CallError> {
        let place = Place::of(kind, self.key.beside(name));
        let written = self.calls.create(&place, body, query).await;
        let written = written.inspect_err(|error| self.doubt(kind, name, error))?;
        self.saw(kind, name, &written);
        Ok(())
    }

    /// Creates a Job under its one name. If it is there already, it was made by an earlier pass whose answer got lost; one
    /// that was not made for this object is left alone.
    async fn create_job(&mut self, new: &NewJob) -> Result<(), CallError> {
        let what = || format!("create Job {}", new.name);
        let body = jobs::body(self.release, new, self.runner.as_ref());
        let body = body.map_err(|message| CallError::Refused { what: what(), code: 422, message })?;
        match self.create(Kind::Job, &new.name, &body, STRICT).await {
            Err(CallError::Exists { .. }) => {
                let place = Place::of(Kind::Job, self.key.beside(&new.name));
                let there: Written = self.calls.get(&place).await?;
                if !observe::made_for(&there, self.release) {
                    let message = "a Job of this name is there that was not made for this ServiceRelease: delete it";
                    return Err(CallError::Refused { what: what(), code: 409, message: message.into() });
                }
                self.saw(Kind::Job, &new.name, &there);
                Ok(())
            }
            done => done,
        }
    }

    /// Sets keys of a ConfigMap that has this release's label: no other is its business.
    async fn set_keys(
        &mut self,
        object: &ObjectVersion,
        values: &BTreeMap<String, Option<String>>,
    ) -> Result<(), CallError> {
        let key = self.key.beside(&object.name);
        let agreed = self
            .cache
            .world()
            .config_maps
            .get(&key)
            .is_some_and(|map| map.group() == &*self.key.name && *map.meta().uid == *object.uid);
        if !agreed {
            let what = format!(
                "{}, which has no label {LABEL_RELEASE}={}",
                Place::of(Kind::ConfigMap, key).describe("patch"),
                self.key.name
            );
            return Err(CallError::Conflict { what });
        }
        self.change(Kind::ConfigMap, object, Place::of, "data", json!(values)).await
    }

    async fn set_weights(&mut self, object: &ObjectVersion, weights: &[(String, i32)]) -> Result<(), CallError> {
        if let Some(kind) = &self.custom {
            // It is read anew before anything else is decided.
            let place = Place::custom(kind.clone(), self.key.beside(&object.name));
            return self.calls.patch_fields(&place, &build::weights(object, weights)).await.map(|_| ());
        }
        let object = self.current(Kind::Route, object);
        let place = Place::of(Kind::Route, self.key.beside(&object.name));
        let answer = self.calls.patch_fields(&place, &build::weights(&object, weights)).await;
        let answer = answer.inspect_err(|error| self.failed(Kind::Route, &object, error))?;
        self.saw(Kind::Route, &object.name, &answer);
        Ok(())
    }

    async fn select(
        &mut self,
        object: &ObjectVersion,
        selection: &Selection,
        keep_original: Option<&BTreeMap<String, String>>,
        base: &BTreeMap<String, Option<String>>,
    ) -> Result<(), CallError> {
        let object = self.current(Kind::Service, object);
        let body = build::select(&self.key.name, &object, selection, keep_original, base);
        let place = Place::of(Kind::Service, self.key.beside(&object.name));
        self.send_patch(Kind::Service, &object, &place, &body).await
    }

    async fn change(
        &mut self,
        kind: Kind,
        object: &ObjectVersion,
        place: fn(Kind, Key) -> Place,
        field: &str,
        value: Value,
    ) -> Result<(), CallError> {
        let object = self.current(kind, object);
        let body = build::patch(&object, field, value);
        let place = place(kind, self.key.beside(&object.name));
        self.send_patch(kind, &object, &place, &body).await
    }

    async fn send_patch(
        &mut self,
        kind: Kind,
        object: &ObjectVersion,
        place: &Place,
        body: &Value,
    ) -> Result<(), CallError> {
        let answer = self.calls.patch(place, body).await;
        let answer = answer.inspect_err(|error| self.failed(kind, object, error))?;
        self.saw(kind, &object.name, &answer);
        Ok(())
    }

    /// Reads an object, and goes on only if it is at the version that was decided on.
    async fn confirm(&mut self, kind: Kind, object: &ObjectVersion) -> Result<(), CallError> {
        let object = self.current(kind, object);
        let place = Place::of(kind, self.key.beside(&object.name));
        let there: Written = self.calls.get(&place).await?;
        if there.version(&object.name) == object {
            return Ok(());
        }
        let moved = CallError::Conflict { what: place.describe("confirm") };
        self.failed(kind, &object, &moved);
        Err(moved)
    }

    async fn delete(&mut self, kind: Kind, object: &ObjectVersion) -> Result<(), CallError> {
        let object = self.current(kind, object);
        let key = self.key.beside(&object.name);
        let place = Place::of(kind, key.clone());
        match self.calls.delete(&place, &build::deletion(&object)).await {
            Ok(()) | Err(CallError::Missing { .. }) => {
                self.expect(Wait::gone(kind, key, &object.uid));
                Ok(())
            }
            Err(error) => {
                self.failed(kind, &object, &error);
                Err(error)
            }
        }
    }

    /// Asks in a dry run. Any answer is good, and remembered for the next pass.
    async fn try_template(&self, new: &NewReplicaSet) -> Result<(), CallError> {
        let body = build::replica_set(self.release, new);
        let place = Place::of(Kind::ReplicaSet, self.key.beside(&new.name));
        let answer = self.calls.create(&place, &body, &format!("&dryRun=All{STRICT}")).await.map(|_| ());
        match self.memory.learn(self.key, self.release, &new.hash, &answer) {
            Some(_) => Ok(()),
            None => answer,
        }
    }

    /// Creates a revision's ReplicaSet, under its one name. If it is there already it was made by an
    /// earlier pass whose answer got lost; if it is somebody else's, the next pass is told so.
    async fn create_replica_set(&mut self, new: &NewReplicaSet) -> Result<(), CallError> {
        let body = build::replica_set(self.release, new);
        let place = Place::of(Kind::ReplicaSet, self.key.beside(&new.name));
        // A template that is new has to be right to the letter. One that is on record is what runs,
        // also where the API server has forgotten a field of it.
        let query = if self.is_new(&new.hash) { STRICT } else { "" };
        let made = match self.calls.create(&place, &body, query).await {
            Err(CallError::Exists { what }) => {
                let there: Written = self.calls.get(&place).await?;
                match observe::whose(&there, self.release, &new.hash) {
                    Whose::Ours => Ok(there),
                    // Garbage collection is about to take it.
                    Whose::Predecessors => return Err(CallError::Conflict { what }),
                    Whose::Others => Err(CallError::Exists { what }),
                }
            }
            answer => answer,
        };
        let written = made.inspect_err(|error| {
            self.doubt(Kind::ReplicaSet, &new.name, error);
            self.memory.creation_failed(self.key, self.release, &new.hash, error);
        })?;
        self.saw(Kind::ReplicaSet, &new.name, &written);
        Ok(())
    }

    /// Whether a revision is not on record yet.
    fn is_new(&self, hash: &str) -> bool {
        let Some(status) = &self.release.status else { return true };
        let entries = [&status.stable, &status.candidate, &status.previous];
        !entries.into_iter().flatten().any(|entry| entry.revision == hash)
            && !status.history.iter().any(|known| known.revision == hash)
    }

    /// Pins a plan under its number. A plan that a pass pinned and did not live to put on record
    /// may be of an older spec: it gives way.
    async fn pin(&mut self, plan: &Plan) -> Result<(), CallError> {
        let name = engine::plan_name(&self.key.name, plan.number);
        let body = build::plan(self.release, plan);
        let place = Place::of(Kind::Plan, self.key.beside(&name));
        let written = match self.calls.create(&place, &body, "").await {
            Err(CallError::Exists { what }) => {
                let there: PinnedPlan = self.calls.get(&place).await?;
                let owned = observe::owned(&there.object, self.release);
                if there.data != body["data"] || !owned {
                    let meta = &there.object.metadata;
                    // Left by a release of this name that was deleted as an orphan.
                    let orphan = meta.controller().is_none() && meta.label(LABEL_RELEASE) == Some(&*self.key.name);
                    if orphan || (owned && !self.on_record(plan.number)) {
                        let object = there.object.version(&name);
                        self.delete(Kind::Plan, &object).await?;
                    }
                    return Err(CallError::Conflict { what });
                }
                there.object
            }
            answer => answer.inspect_err(|error| self.doubt(Kind::Plan, &name, error))?,
        };
        self.saw(Kind::Plan, &name, &written);
        Ok(())
    }

    fn on_record(&self, number: i64) -> bool {
        let status = self.release.status.as_ref();
        let release = status.and_then(|status| status.release.as_ref());
        release.is_some_and(|release| release.number >= number)
    }

    fn plan_object(&self, number: i64) -> Option<ObjectVersion> {
        let uid = self.release.metadata.uid.as_deref();
        let world = self.cache.world();
        let mut plans = world.plans.of(self.key);
        let own = plans.find(|plan| plan.number == number && plan.owner.as_deref() == uid);
        own.map(|plan| plan.meta().object())
    }

    /// The object at the version that this pass left it at, or at which it was observed.
    fn current(&self, kind: Kind, object: &ObjectVersion) -> ObjectVersion {
        let written = self.written.get(&(kind, object.name.clone()));
        ObjectVersion { resource_version: written.unwrap_or(&object.resource_version).clone(), ..object.clone() }
    }

    fn saw(&mut self, kind: Kind, name: &str, written: &Written) {
        let meta = &written.metadata;
        let version = &meta.resource_version;
        self.written.insert((kind, name.to_owned()), version.clone());
        self.expect(Wait::written(kind, self.key.beside(name), &meta.uid, version));
    }

    fn failed(&self, kind: Kind, object: &ObjectVersion, error: &CallError) {
        if matches!(error, CallError::Conflict { .. } | CallError::Missing { .. }) {
            let key = self.key.beside(&object.name);
            self.expect(Wait::newer_than(kind, key, &object.uid, &object.resource_version));
        }
        self.doubt(kind, &object.name, error);
    }

    /// A write that may have happened: what became of it is read before the next decision.
    fn doubt(&self, kind: Kind, name: &str, error: &CallError) {
        if matches!(error, CallError::Unknown { .. }) {
            self.memory.doubt(self.key, kind, self.key.beside(name));
        }
    }

    fn expect(&self, wait: Wait) {
        self.cache.world().expect(self.key, wait);
    }
}

/// A ControllerRevision as it is.
#[derive(Deserialize)]
struct PinnedPlan {
    #[serde(flatten)]
    object: Written,
    #[serde(default)]
    data: Value,
}

/// Reads back the objects of which a write has an unknown outcome, so that the cache is waited for.
///
/// # Errors
/// If it cannot be read either.
pub async fn settle_doubts(calls: &Calls, cache: &Arc<Cache>, memory: &Memory, key: &Key) -> Result<(), CallError> {
    for (kind, object) in memory.doubts(key) {
        match calls.get::<Written>(&Place::of(kind, object.clone())).await {
            Ok(there) => {
                let meta = there.metadata;
                let wait = Wait::written(kind, object.clone(), &meta.uid, &meta.resource_version);
                cache.world().expect(key, wait);
            }
            Err(CallError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        memory.settled(key, kind, &object);
    }
    Ok(())
}
