//! The heart: [`decide`] is given a ServiceRelease, what was observed of the world, and the time,
//! and returns the new status, the effects to carry out and when to look again. Pure: no I/O, no
//! clock, no randomness, no logging.

pub mod absent;
mod addresses;
mod alike;
mod analysis;
mod checks;
mod clock;
mod command;
mod contest;
mod database;
pub mod effect;
mod forward;
mod hand_back;
pub mod inquiry;
mod invalid;
mod logs;
pub mod measuring;
pub mod names;
mod observation;
pub mod observed;
mod own_spec;
mod parents;
mod pass;
pub mod plan;
pub mod preview;
mod providers;
pub mod ratio;
mod reach;
mod report;
mod rest;
mod resting;
mod retreat;
pub mod revision;
mod route;
mod rules;
mod runs;
mod segments;
mod steer;
pub mod task;
pub mod templates;
#[cfg(test)]
mod tests;
mod traffic;
mod trouble;
pub mod unmeasured;
mod unroutable;
mod verdict;
mod way_back;
mod workload;

pub use alike::sides as alike;
pub use analysis::fails_alone;
pub use command::RETENTION as COMMAND_RETENTION;
pub use database::{Due, SEEDS_LATE, identity as migration, leaves_queries};
pub use effect::{Decision, Effect, Event, NewJob, NewReplicaSet, NewRoute, NewService, Run, Selection, ServicePort};
pub use forward::plan_name;
pub use inquiry::{
    Absent, Answer, Ask, Counters, HttpQuestion, LogOfPod, LogsQuestion, Measure, Question, Reply, SqlQuestion,
    with_time,
};
pub use observed::{
    Command, ConfigMap, Container, Denial, Ended, Endpoint, Job, JobEnd, JobPod, KnownProviders, NamedTemplate,
    ObjectVersion, Observed, ParentGateway, Plan, Pod, Revision, Rival, Route, RouteParent, Service, Shape, Template,
    TemplateCheck, Workload,
};
pub use providers::unknown as no_provider;
pub use task::{
    AsApplied, Contents, DatabaseJob, MIGRATION, MOST_REPORT, MapVolume, Meant, Mounted, Planned, Report, SeedDue,
    Seeded, SqlRun, Task, TaskPod, Try, Wrapped,
};
pub use templates::wanted as wants_templates;
pub use traffic::{NO_REVISION, selection};

use crate::api::{FINALIZER, ServiceRelease, ServiceReleaseSpec, Timestamp, WorkloadStatus};

use pass::Pass;

/// Why a manifest is refused that the CRD's rules let pass, as far as it alone tells: the reason in a word, the field, and
/// what is wrong with the remedy.
#[must_use]
pub fn refusal(spec: &ServiceReleaseSpec) -> Option<(&'static str, String, String)> {
    let invalid::Obstacle { reason, message, remedy, .. } = database::faults::maintenance(spec)?;
    let (field, why) = message.split_once(": ").unwrap_or(("spec", &message));
    Some((reason, field.to_owned(), format!("{why}; {remedy}")))
}

/// Whether a stage has nothing more to decide in this pass.
enum Flow {
    /// It waits for the world.
    Settled,
    /// Another stage goes on at once.
    Again,
}

/// Stages that one pass can go through: a rollback that ends, a release that starts, its steps.
const MOST_STAGES: usize = 8;

/// One pass over one release.
#[must_use]
pub fn decide(release: &ServiceRelease, observed: &Observed, now: Timestamp) -> Decision {
    let mut pass = Pass::new(release, observed, now);
    let finalizer = release.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    if workload_is_stale(&pass) {
        return pass.finish();
    }
    if release.metadata.deletion_timestamp.is_some() {
        return give_back(pass, finalizer);
    }
    if !finalizer && invalid::has_something_to_give_back(&pass) {
        // Before anything is borrowed; the write comes back as an event, and the next pass goes on.
        pass.before.push(Effect::AddFinalizer);
        return pass.finish();
    }
    clock::repair(&mut pass);
    observe_workload(&mut pass);
    route::observe(&mut pass);
    pass.obstacle = invalid::find(&pass);
    rest::release_latches(&mut pass);
    command::decide_all(&mut pass);
    for _ in 0..MOST_STAGES {
        let flow = match pass.status.candidate {
            Some(_) if retreat::under_way(&pass) => retreat::drive(&mut pass),
            Some(_) => forward::drive(&mut pass),
            None if pass.is_alone() => database::alone::drive(&mut pass),
            None => rest::drive(&mut pass),
        };
        if matches!(flow, Flow::Settled) {
            break;
        }
    }
    hold_workload(&mut pass);
    database::switches::take_off_what_is_left(&mut pass);
    database::switches::keep_flags(&mut pass);
    if pass.obstacle.is_none() {
        pass.after.extend(preview::keep(&pass));
    }
    put_services_right(&mut pass);
    checks::end_unasked(&mut pass);
    runs::tidy(&mut pass);
    confirm_selection(&mut pass);
    try_template(&mut pass);
    // What fails holds up what comes after it: traffic and pods first, tidying up last.
    pass.after.sort_by_key(Effect::urgency);
    for until in pass.status.draining.iter().map(|entry| entry.until).collect::<Vec<_>>() {
        pass.wake_at(until);
    }
    tell_of_meddling(&mut pass);
    report::compose(&mut pass);
    pass.finish()
}

/// Puts the rest of own Services' selectors right, where nothing else is changed in them.
fn put_services_right(pass: &mut Pass<'_>) {
    if pass.obstacle.as_ref().is_some_and(|obstacle| obstacle.hands_off) {
        return;
    }
    for effect in pass.traffics().put_right() {
        if let Effect::Select { object, .. } = &effect
            && !selects(pass, &object.name)
        {
            pass.after.push(effect);
        }
    }
}

/// Whether this pass changes what a Service selects.
fn selects(pass: &Pass<'_>, service: &str) -> bool {
    let selects = |effect: &Effect| matches!(effect, Effect::Select { object, .. } if object.name == service);
    pass.before.iter().chain(&pass.after).any(selects)
}

/// Names who changed the selector of a Service that had been the operator's, where that is about to be put back.
fn tell_of_meddling(pass: &mut Pass<'_>) {
    let services = [&pass.seen.service, &pass.seen.candidate_service];
    let generation = pass.release.metadata.generation;
    let known = pass.release.status.as_ref().filter(|status| Some(status.observed_generation) == generation);
    let has_stable = known.is_some_and(|status| status.stable.is_some());
    for service in services.into_iter().flatten() {
        let was_ours = service.owned || service.original.is_some() || has_stable;
        let changed_by = service.changed_by.as_ref().filter(|_| was_ours && selects(pass, &service.object.name));
        let Some(manager) = changed_by else { continue };
        let name = &service.object.name;
        pass.events.push(Event {
            warning: true,
            reason: "SelectorChanged".into(),
            action: "Routing".into(),
            note: format!("field manager {manager} changed the selector of Service {name}; it is put back"),
        });
    }
}

fn give_back(mut pass: Pass<'_>, finalizer: bool) -> Decision {
    if finalizer {
        route::observe(&mut pass);
        command::decide_all(&mut pass);
        let waiting = hand_back::drive(&mut pass);
        report::compose_hand_back(&mut pass, &waiting);
    }
    pass.finish()
}

/// Whether the API server has to be asked about the template that is wanted: no ReplicaSet has it, and no
/// release of it is under way.
#[must_use]
pub fn is_untried(release: &ServiceRelease, observed: &Observed, hash: &str) -> bool {
    let candidate = release.status.as_ref().and_then(|status| status.candidate.as_ref());
    observed.revisions.iter().all(|seen| seen.hash != hash)
        && candidate.is_none_or(|candidate| candidate.revision != hash)
}

/// Asks it, last of all: whatever else is to be done does not wait for the answer.
fn try_template(pass: &mut Pass<'_>) {
    let made = |effect: &Effect| matches!(effect, Effect::CreateReplicaSet(_));
    if !pass.awaits_trial() || pass.before.iter().any(made) {
        return;
    }
    let Some(target) = &pass.target else { return };
    let new = pass.new_replica_set(&target.hash, target.template.clone(), 0);
    pass.after.push(Effect::TryTemplate(Box::new(new)));
    pass.wake_at(pass.now.plus(crate::api::Duration::from_millis(1)));
}

/// Pods go on the strength of what the Service was seen to select. If that is not so any more, they stay.
fn confirm_selection(pass: &mut Pass<'_>) {
    let Some(service) = pass.traffics().service() else { return };
    let shrinks = |effect: &Effect| match effect {
        Effect::ScaleReplicaSet { object, replicas } => {
            pass.seen.revisions.iter().any(|seen| seen.object.name == object.name && seen.replicas > *replicas)
        }
        _ => false,
    };
    let selects =
        |effect: &Effect| matches!(effect, Effect::Select { object, .. } if object.name == service.object.name);
    let Some(first) = pass.after.iter().position(shrinks) else { return };
    if !pass.after[..first].iter().any(selects) {
        pass.after.insert(first, Effect::ConfirmService { object: service.object.clone() });
    }
}

/// Whether the Deployment is seen as it was before the last decision: its template of then is not what
/// is wanted now. What the cache lacks is on its way, and comes as an event (INVARIANTS S1).
fn workload_is_stale(pass: &Pass<'_>) -> bool {
    let (Some(workload), Some(known)) = (&pass.seen.workload, &pass.status.workload) else { return false };
    workload.object.uid == known.uid && workload.generation < known.observed_generation
}

/// Records the adopted Deployment as it is now.
fn observe_workload(pass: &mut Pass<'_>) {
    let (Some(workload), Some(target)) = (&pass.seen.workload, &pass.target) else { return };
    if pass.release.spec.workload_ref.is_none() {
        return;
    }
    let known = pass.status.workload.as_ref();
    pass.status.workload = Some(WorkloadStatus {
        uid: workload.object.uid.clone(),
        observed_generation: workload.generation,
        revision: target.hash.clone(),
        adopted_replicas: known.map_or(workload.replicas, |known| known.adopted_replicas),
        held: known.is_some_and(|known| known.held),
    });
}

/// Adoption ends with the Deployment at 0, once stable has its traffic and connections to the Deployment's
/// own pods had their time to end. It is put there once: later somebody else's hand is reported, not fought.
fn hold_workload(pass: &mut Pass<'_>) {
    let hands_off = pass.obstacle.as_ref().is_some_and(|obstacle| obstacle.hands_off);
    let held = pass.status.workload.as_ref().is_none_or(|known| known.held);
    let enough = pass.bounds().enough();
    let serves = pass.stable().is_some_and(|stable| stable.observed && stable.warm() >= enough);
    let drained_at = workload_drained_at(pass);
    if held || !serves || hands_off || drained_at.is_some_and(|at| at > pass.now) {
        drained_at.into_iter().for_each(|at| pass.wake_at(at));
        return;
    }
    let (Some(workload), Some(known)) = (&pass.seen.workload, &mut pass.status.workload) else { return };
    if workload.replicas == 0 {
        known.held = true;
    } else {
        pass.after.push(Effect::ScaleWorkload { object: workload.object.clone(), replicas: 0 });
    }
}

/// When scaleDownDelay has passed since the first promotion on record, while the Deployment has pods.
fn workload_drained_at(pass: &Pass<'_>) -> Option<Timestamp> {
    let held = pass.status.workload.as_ref().is_none_or(|known| known.held);
    let switched = pass.status.history.first().filter(|_| !held)?.at;
    Some(switched.plus(pass.policy().scale_down_delay))
}
