//! The ServiceRelease is being deleted: what was borrowed is given back. With workloadRef the
//! Deployment's own pods take over without a gap, whatever kind of deletion it is; with an inline
//! template the pods go with the object, as a Deployment's do.

use super::{
    contest, database,
    effect::{Effect, Selection},
    invalid,
    observed::Workload,
    pass::Pass,
    rest, route, traffic,
};

/// What is being waited for, for the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The Deployment's pods are not available yet.
    ForWorkload(String),
    /// The Deployment's template is the one that was rolled back.
    ForTemplate(String),
    /// The Service does not reach them yet.
    ForEndpoints,
    /// A migration under way: the name of its Job.
    ForMigration(String),
    /// The Job that removes what a proof or a rehearsal left.
    ForCleanUp(String),
    /// The release's own pods are going.
    ForPods,
    /// Nothing: all is given back.
    Done,
}

/// Takes the next step of giving back.
pub fn drive(pass: &mut Pass<'_>) -> Waiting {
    if let Some(job) = database::undo::outstanding(pass) {
        return Waiting::ForMigration(job);
    }
    // Beside all else: nothing but the finalizer waits for it.
    let left = database::clean_up::drive(pass);
    if !route_is_back(pass) {
        return Waiting::ForEndpoints;
    }
    let waiting = match pass.seen.workload.as_ref().filter(|workload| !workload.deleting) {
        Some(workload) if pass.release.spec.workload_ref.is_some() => to_workload(pass, workload),
        _ => let_go(pass),
    };
    if let Some(job) = left.filter(|_| waiting == Waiting::Done) {
        return Waiting::ForCleanUp(job);
    }
    if waiting == Waiting::Done {
        // Nothing is looked at again after this: a Service that a stale view shows as given back would keep
        // the operator's keys, and reach no pod.
        let services = [&pass.seen.service, &pass.seen.candidate_service];
        let others = services.into_iter().flatten().filter(|service| !service.owned);
        pass.after.extend(others.map(|service| Effect::ConfirmService { object: service.object.clone() }));
        // What outlived the object until now. One whose end did not come in time goes some time after it.
        let jobs = pass.seen.jobs.iter().filter(|job| database::is_of_database(pass, job) && !job.deleting);
        let jobs = jobs.filter(|job| database::undo::may_go(pass, job));
        let jobs: Vec<_> = jobs.map(|job| Effect::DeleteJob { object: job.object.clone() }).collect();
        pass.after.extend(jobs);
        pass.after.push(Effect::RemoveFinalizer);
    }
    waiting
}

/// The route sends everything to the Service again, before that goes back to whom it was borrowed from.
fn route_is_back(pass: &mut Pass<'_>) -> bool {
    let serves = pass.stable().is_some_and(|stable| pass.traffics().serving(stable) > 0);
    if pass.seen.route.is_none() || invalid::rival(pass).is_some() || !serves {
        return true;
    }
    // Whoever sets it back does so to the end: both Services lead to who stays.
    if contest::is_on(pass) && route::weight(pass) != Some(0) {
        return true;
    }
    let effect = route::set(pass, 0);
    let back = effect.is_none();
    pass.after.extend(effect);
    let accepted = pass.status.route.as_ref().is_some_and(|route| route.accepted_at.is_some());
    back && (!accepted || route::settled(pass, 0))
}

/// Whether the Deployment has the template that was rolled back, while a good one serves: deleting the
/// release does not bring back what it took back.
pub fn waits_for_person(pass: &Pass<'_>) -> bool {
    pass.release.metadata.deletion_timestamp.is_some()
        && pass.release.spec.workload_ref.is_some()
        && pass.target.as_ref().is_some_and(|target| rest::is_latched(pass, &target.hash))
        && pass.stable().is_some_and(|stable| stable.warm() > 0)
}

fn to_workload(pass: &mut Pass<'_>, workload: &Workload) -> Waiting {
    let serving: i32 = pass.seen.revisions.iter().map(|seen| seen.replicas).sum();
    let replicas = pass.replicas();
    if serving > 0 {
        if waits_for_person(pass) {
            return Waiting::ForTemplate(workload.object.name.clone());
        }
        if workload.replicas < replicas {
            pass.after.push(Effect::ScaleWorkload { object: workload.object.clone(), replicas });
            return Waiting::ForWorkload(workload.object.name.clone());
        }
        if !workload.observed || workload.available < replicas {
            return Waiting::ForWorkload(workload.object.name.clone());
        }
        if !services_are_original(pass) || !reach_workload(pass, replicas) {
            return Waiting::ForEndpoints;
        }
    }
    let_go(pass)
}

/// Whether the Services that requests may come to have the Deployment's pods.
fn reach_workload(pass: &Pass<'_>, replicas: i32) -> bool {
    let traffics = pass.traffics();
    let other = pass.seen.candidate_service.as_ref().filter(|_| route::may_lead(pass));
    let all = [traffics.service(), other];
    all.into_iter().flatten().all(|service| traffic::foreign_endpoints(service) >= replicas)
}

/// Gives the Services back and deletes what garbage collection does not.
fn let_go(pass: &mut Pass<'_>) -> Waiting {
    if !services_are_original(pass) {
        return Waiting::ForEndpoints;
    }
    if pass.release.spec.workload_ref.is_none() {
        return Waiting::Done;
    }
    let left: Vec<_> = pass.seen.revisions.iter().collect();
    for seen in left.iter().filter(|seen| !seen.deleting) {
        pass.after.push(Effect::DeleteReplicaSet { object: seen.object.clone() });
    }
    if left.is_empty() { Waiting::Done } else { Waiting::ForPods }
}

/// Takes the operator's keys out of selectors that are not its own. Says whether they are out.
fn services_are_original(pass: &mut Pass<'_>) -> bool {
    if invalid::rival(pass).is_some() {
        return true;
    }
    let traffics = pass.traffics();
    let borrowed = |service: &Option<super::observed::Service>| service.as_ref().is_some_and(|service| !service.owned);
    let adopting = pass.release.spec.workload_ref.is_some();
    let mut effects = Vec::new();
    if pass.seen.service.is_some() && (adopting || borrowed(&pass.seen.service)) {
        effects.extend(traffics.select(&Selection::Original, None));
    }
    // A route may go on naming it: then it leads to whoever has the pods.
    if pass.seen.candidate_service.is_some() && (adopting || borrowed(&pass.seen.candidate_service)) {
        effects.extend(traffics.select_candidate(&Selection::Original, None));
    }
    let original = effects.is_empty();
    pass.after.extend(effects);
    original
}
