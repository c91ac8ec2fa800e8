//! A release on its way: its steps are entered, driven until done, and left. The record of a step
//! (status.step, status.weights.desired) is written before what it does to traffic.

use crate::api::{
    Duration, Hold, Moment, OnFailure, PodProblem, RecordedRevision, ReleaseStatus, RollbackCause, SchemaState,
    StepProgress, StepStatus, Timestamp, status::MAX_HISTORY,
};

use super::{
    Flow, analysis, checks, contest, database,
    effect::{Effect, Selection},
    observation,
    observed::{Plan, Revision},
    pass::Pass,
    plan::{Policy, Shift, Step},
    retreat,
    revision::Target,
    route,
    steer::{old_side, sizes, steer, wanted},
    templates, trouble, unmeasured,
};

/// Begins the release of what the spec wants.
pub fn start(pass: &mut Pass<'_>, target: &Target) {
    open(pass, &target.hash);
    let number = pass.status.release.as_ref().map_or(0, |release| release.number);
    pass.status.candidate = Some(pass.describe(&target.hash, &target.template, number));
    contest::forgive(pass);
    // A new release ends what was kept warm for undo, but not what still drains.
    let policy = pass.policy();
    let latest = pass.now.plus(policy.scale_down_delay);
    for draining in &mut pass.status.draining {
        draining.until = draining.until.min(draining.kept_from.unwrap_or(latest)).min(latest);
    }
    let message = match (pass.stable_hash(), &pass.seen.workload) {
        (Some(stable), _) => format!("release {number}: {stable} to {}", target.hash),
        (None, Some(workload)) => {
            let (name, pods) = (&workload.object.name, workload.replicas);
            format!("release {number}: adopts Deployment {name}, {pods} pods, as {}", target.hash)
        }
        (None, None) => format!("release {number}: {} is the first revision", target.hash),
    };
    pass.status.note(pass.now, "Started", &message, None);
    enter(pass, &policy, 1);
    // Without pods it takes nothing back and harms nothing, so that it may come before its record: the
    // API server says at once what it has against the template.
    let trial = pass.candidate_is_missing().and_then(|entry| pass.size(&entry, 0));
    pass.before.extend(trial);
}

/// Opens the record of a release.
pub fn open(pass: &mut Pass<'_>, revision: &str) {
    let number = pass.status.release.as_ref().map_or(0, |release| release.number) + 1;
    let name = pass.release.metadata.name.as_deref().unwrap_or_default();
    let migration = database::pending(pass);
    pass.status.release = Some(ReleaseStatus {
        number,
        plan: plan_name(name, number),
        revision: revision.to_owned(),
        started_at: pass.now,
        full_promotion_by: None,
        migration,
        unproven: None,
    });
    pass.status.retry_token.clone_from(&pass.release.spec.retry_token);
    pass.status.hold = None;
    pass.status.suspended = None;
    pass.status.rollback = None;
    pass.status.step = None;
    pass.status.checks.clear();
    pass.status.verdicts.clear();
    observation::end(pass);
    database::begin(&mut pass.status, number, &pass.release.spec);
}

/// The name of the ControllerRevision that pins a release's plan.
#[must_use]
pub fn plan_name(release: &str, number: i64) -> String {
    format!("{release}-plan-{number}")
}

/// Drives the release under way.
pub fn drive(pass: &mut Pass<'_>) -> Flow {
    if superseded(pass) {
        return Flow::Again;
    }
    if began_before(pass) && !is_pinned(pass) {
        // Only the plan says what to do; it is about to be seen, or to be made.
        pin(pass);
        return Flow::Settled;
    }
    let policy = pass.policy();
    database::onward::hold(pass);
    restate(pass, &policy);
    note_progress(pass);
    note_reached(pass, &policy);
    let failing = look_at_pods(pass, &policy).or_else(|| look_at_readiness(pass));
    if let Some((reason, message)) = failing
        && let Some(flow) = fail(pass, policy.automatic, &reason, message)
    {
        return flow;
    }
    if let Some(message) = analysis::watch(pass, &policy)
        && let Some(flow) = fail(pass, policy.automatic, "AnalysisFailed", message)
    {
        return flow;
    }
    while may_advance(pass) && is_pinned(pass) {
        match may_leave(pass, &policy) {
            Ok(true) => {}
            Ok(false) => break,
            Err(failure) => match failed(pass, &policy, failure) {
                Some(flow) => return flow,
                None => break,
            },
        }
        let index = index(pass);
        if index >= policy.count() {
            promoted(pass, &policy);
            return Flow::Again;
        }
        enter(pass, &policy, index + 1);
    }
    analysis::note_wait(pass);
    pin(pass);
    let planned = pass.after.len();
    steer(pass, &policy);
    // What is only about to be done, perhaps after a time without an operator, was not waited for yet.
    if pass.after.len() == planned
        && let Some((reason, message)) = overdue(pass, &policy)
        && let Some(flow) = fail(pass, policy.automatic, &reason, message)
    {
        return flow;
    }
    Flow::Settled
}

/// Records how far the step has come, so that its deadline runs from the last progress, as a Deployment's
/// does.
fn note_progress(pass: &mut Pass<'_>) {
    let available = pass.candidate().map_or(0, Revision::warm);
    let old: i32 = old_side(pass).iter().map(|old| old.replicas.max(old.pods_total)).sum();
    let (pods, now) = (available - old, pass.now);
    let routed = route::moved(pass);
    let Some(step) = pass.status.step.as_mut().filter(|step| step.name.waits_for_cluster()) else { return };
    match &mut step.progress {
        Some(known) if known.pods >= pods && !routed => {}
        Some(known) if routed => *known = StepProgress { pods: known.pods.max(pods), at: now },
        Some(known) => *known = StepProgress { pods, at: now },
        none => *none = Some(StepProgress { pods, at: step.started_at }),
    }
}

/// Writes down since when the traffic is shared as it is meant: pods and gateways take their time to follow a step.
fn note_reached(pass: &mut Pass<'_>, policy: &Policy) {
    let reached_at = pass.status.weights.and_then(|weights| weights.reached_at);
    if reached_at.is_some() || !analysis::is_exposed(pass, policy) {
        return;
    }
    let there = match current(pass, policy) {
        Step::SetWeight(weight) => reached(pass, policy, weight),
        Step::SetHeaderRoute(_) | Step::SetMirrorRoute(_) => {
            let weight = pass.desired_weight();
            route::settled(pass, weight)
        }
        // Until it is over stable's share goes on changing.
        Step::Promote => false,
        // The step before was complete.
        _ => true,
    };
    if let Some(weights) = pass.status.weights.as_mut().filter(|_| there) {
        weights.reached_at = Some(pass.now);
    }
}

/// A release that began when the spec was another one than that which was pinned then says so.
fn restate(pass: &mut Pass<'_>, policy: &Policy) {
    let Some(step) = pass.status.step.clone().filter(|step| step.of != policy.count()) else { return };
    let summary = summary(policy, step.index);
    pass.status.step = Some(StepStatus { of: policy.count(), name: policy.step(step.index).name(), summary, ..step });
}

/// Whether the release under way is one that an earlier pass began.
fn began_before(pass: &Pass<'_>) -> bool {
    let stored = pass.release.status.as_ref().and_then(|status| status.release.as_ref());
    stored.map(|release| release.number) == pass.status.release.as_ref().map(|release| release.number)
}

/// Whether the plan under way is pinned: a step counts only in the plan that it belongs to.
pub fn is_pinned(pass: &Pass<'_>) -> bool {
    pass.status.release.as_ref().is_some_and(|release| pass.plan(release.number).is_some())
}

/// Whether the release may go on to its next step in this pass (INVARIANTS T5).
pub fn may_advance(pass: &Pass<'_>) -> bool {
    let status = &pass.status;
    !pass.release.spec.paused
        && status.suspended.is_none()
        && status.hold.is_none()
        && pass.obstacle.is_none()
        && !pass.awaits_trial()
}

/// Another template in the middle, or stable's again: the candidate goes back first.
fn superseded(pass: &mut Pass<'_>) -> bool {
    let Some(target) = pass.target.clone().filter(|_| pass.obstacle.is_none() && !pass.awaits_trial()) else {
        return false;
    };
    if pass.candidate_hash() == Some(&target.hash) {
        return false;
    }
    let message = if pass.stable_hash() == Some(&target.hash) {
        "the template is stable's again".to_owned()
    } else {
        format!("the template changed to {}", target.hash)
    };
    retreat::begin(pass, RollbackCause::Superseded, "Superseded", &message, None);
    true
}

/// Enters a step.
pub fn enter(pass: &mut Pass<'_>, policy: &Policy, index: i32) {
    let step = policy.step(index);
    let weight = match step {
        Step::Prepare => Some(0),
        _ if index == 1 => Some(0),
        Step::SetWeight(weight) => Some(weight),
        Step::Promote => Some(100),
        _ => None,
    };
    if let Some(candidate) = weight {
        pass.want_weight(candidate);
    }
    // Testers and copies are requests of the candidate, too.
    let moves = matches!(step, Step::SetHeaderRoute(_) | Step::SetMirrorRoute(_));
    if let Some(weights) = pass.status.weights.as_mut().filter(|_| moves) {
        weights.reached_at = None;
    }
    let of = policy.count();
    let summary = summary(policy, index);
    if index > 1 {
        pass.status.note(pass.now, "Step", &summary, None);
    }
    // What a person has passed over is past in all steps that follow.
    let retried_at = pass.status.step.as_ref().and_then(|step| step.retried_at);
    pass.status.step = Some(StepStatus {
        index,
        of,
        name: step.name(),
        summary,
        started_at: pass.now,
        passed_by: None,
        accepted: false,
        retried_at,
        unproven_since: None,
        unreached: None,
        progress: None,
    });
}

/// A step's place, number and name in one.
fn summary(policy: &Policy, index: i32) -> String {
    format!("{index}/{} {}", policy.count(), policy.step(index))
}

/// The place of the step under way, from 1.
pub fn index(pass: &Pass<'_>) -> i32 {
    pass.status.step.as_ref().map_or(1, |step| step.index)
}

/// The step under way.
pub fn current(pass: &Pass<'_>, policy: &Policy) -> Step {
    policy.step(index(pass))
}

/// Whether the step under way is done, and verdicts let the next one begin.
pub fn may_leave(pass: &mut Pass<'_>, policy: &Policy) -> Result<bool, checks::Failure> {
    let raises = analysis::is_due(pass, policy);
    Ok(complete(pass, policy)? && (!raises || analysis::proves(pass, policy)?))
}

/// Whether the step under way has done what it is there for, as far as the world was observed.
fn complete(pass: &mut Pass<'_>, policy: &Policy) -> Result<bool, checks::Failure> {
    let Some(state) = pass.status.step.clone() else { return Ok(false) };
    let passed = state.passed_by.is_some();
    let full = pass.status.release.as_ref().is_some_and(|release| release.full_promotion_by.is_some());
    Ok(match current(pass, policy) {
        Step::Prepare => prepared(pass, policy),
        Step::SetWeight(weight) => reached(pass, policy, weight),
        Step::SetHeaderRoute(_) | Step::SetMirrorRoute(_) => {
            let weight = pass.desired_weight();
            route::settled(pass, weight)
        }
        Step::Database(task) => database::steps::complete(pass, task)?,
        Step::MigrationApproval => !database::steps::awaits_approval(pass),
        // For a migration by all that maintenance mode is; for a switch alone by the route.
        Step::Maintenance if database::needs_maintenance(pass) => {
            database::renewal::is_fresh(pass)? && database::switches::close(pass)
        }
        Step::Maintenance => {
            let weight = pass.desired_weight();
            route::settled(pass, weight)
        }
        Step::Scale(_) => sized(pass, policy),
        Step::Approval => passed,
        Step::Check { when, names } => {
            passed
                || (full && !when.is_before_pods() && when != Moment::BeforeTraffic)
                || checks::ask(pass, policy, checks::At { when, step: state.index, since: state.started_at }, &names)?
        }
        Step::Pause(duration) => {
            passed || full || duration.is_some_and(|duration| pass.elapsed(state.started_at, duration))
        }
        Step::Promote => serves_alone(pass, policy) && database::switches::open(pass),
    })
}

/// The first candidate pods are available, as many as the bounds allow without traffic on them.
fn prepared(pass: &mut Pass<'_>, policy: &Policy) -> bool {
    // A gateway that does not take the route is found out before anything depends on it.
    if policy.is_routed() && !route::settled(pass, 0) {
        return false;
    }
    let Some(candidate) = pass.candidate().filter(|candidate| candidate.observed) else { return false };
    let sizes = sizes(pass, policy);
    let settled =
        sizes.iter().all(|(entry, size)| pass.revision(&entry.revision).is_some_and(|seen| seen.replicas == *size));
    let (wanted, _) = wanted(pass, policy);
    let least = if pass.status.stable.is_some() { wanted.min(1) } else { wanted };
    settled && candidate.warm() >= candidate.replicas.max(least) && !pass.traffics().hides(candidate)
}

/// The candidate's pods take the share of the traffic that is meant, and stable's have made room.
fn reached(pass: &mut Pass<'_>, policy: &Policy, weight: i32) -> bool {
    if policy.is_routed() {
        let (wanted, _) = wanted(pass, policy);
        let shown = pass.candidate().map_or(0, |candidate| pass.traffics().candidate_endpoints(candidate));
        // A stable that has no ready pod shows none: then the release is the way out, and does not wait for it.
        let without_stable = pass.stable().is_none_or(|stable| stable.ready == 0);
        let shows_pods = without_stable || route::without_pods(pass, weight).is_none();
        let shows_pods = shows_pods && (weight == 0 || shown >= wanted);
        return shows_pods && sized(pass, policy) && route::settled(pass, weight);
    }
    let Some(candidate) = pass.candidate().filter(|candidate| candidate.observed) else { return false };
    let (wanted, old_wanted) = wanted(pass, policy);
    let traffics = pass.traffics();
    let serving = if weight == 0 { candidate.warm() } else { traffics.serving(candidate) };
    let open = weight == 0 || wanted == 0 || traffics.selects(&candidate.hash);
    let old = old_side(pass);
    let asked: i32 = old.iter().map(|seen| seen.replicas).sum();
    let gone = |seen: &&Revision| seen.pods_total <= seen.replicas && traffics.endpoints(seen) <= seen.replicas;
    let room = asked == old_wanted && old.iter().all(|seen| seen.observed && gone(seen));
    open && candidate.replicas == wanted && serving >= wanted && room
}

/// The candidate has the pods that are meant for it.
fn sized(pass: &Pass<'_>, policy: &Policy) -> bool {
    let (wanted, _) = wanted(pass, policy);
    pass.candidate().is_some_and(|candidate| candidate.replicas == wanted && candidate.warm() >= wanted)
}

/// All traffic is on the candidate, nothing of the release is left to clear.
fn serves_alone(pass: &mut Pass<'_>, policy: &Policy) -> bool {
    if policy.is_routed() && !route::settled(pass, 0) {
        return false;
    }
    let Some(candidate) = pass.candidate().filter(|candidate| candidate.observed) else { return false };
    let traffics = pass.traffics();
    let alone = !traffics.used()
        || (traffics.selection() == Selection::Revision(candidate.hash.clone()) && traffics.only(&candidate.hash));
    let rest = match policy.shift {
        Shift::Ratio { .. } => old_side(pass).iter().all(|old| old.replicas == 0),
        Shift::Switch | Shift::Route { .. } => true,
    };
    let bounds = policy.bounds(pass.replicas());
    alone
        && rest
        && candidate.replicas == bounds.replicas
        && traffics.serving(candidate) >= bounds.enough()
        && traffics.select_candidate(&Selection::Nothing, None).is_none()
}

fn promoted(pass: &mut Pass<'_>, policy: &Policy) {
    let Some(mut candidate) = pass.status.candidate.take() else { return };
    // What its pods say from now on is another matter.
    candidate.problem = None;
    let was_stable = pass.status.stable.replace(candidate.clone());
    let had_stable = was_stable.is_some();
    if let Some(old) = was_stable.filter(|old| old.revision != candidate.revision) {
        retreat::drain(pass, &old.revision, policy);
        pass.status.previous = Some(old);
    }
    pass.status.failed_revisions.retain(|failed| failed.revision != candidate.revision);
    pass.status.history.retain(|known| known.revision != candidate.revision);
    pass.status.history.push(RecordedRevision {
        revision: candidate.revision.clone(),
        release: candidate.release,
        at: pass.now,
    });
    let excess = pass.status.history.len().saturating_sub(MAX_HISTORY);
    pass.status.history.drain(..excess);
    pass.status.step = None;
    pass.status.hold = None;
    pass.status.suspended = None;
    database::switches::raise_flags(pass);
    let message = format!("{} serves all traffic", candidate.revision);
    pass.status.note(pass.now, "Promoted", &message, None);
    if had_stable {
        unmeasured::note(pass, policy);
    }
    observation::begin(pass, policy);
}

/// From when on what pods say counts: since the release began, or what they said before is past.
pub fn looked_since(pass: &Pass<'_>) -> Timestamp {
    let began = pass.status.release.as_ref().map(|release| release.started_at);
    began.max(past_until(pass)).unwrap_or(pass.now)
}

/// Until when what pods and metrics said is past: a person has passed over what failed, or the candidate was promoted
/// over it.
pub fn past_until(pass: &Pass<'_>) -> Option<Timestamp> {
    let step = pass.status.step.as_ref().and_then(|step| step.retried_at);
    let observation = pass.status.observation.as_ref();
    step.max(observation.map(|it| it.retried_at.map_or(it.started_at, |at| at.max(it.started_at))))
}

/// Whether a person has passed over what pods and metrics say at the step under way.
pub fn is_accepted(pass: &Pass<'_>) -> bool {
    pass.status.step.as_ref().is_some_and(|step| step.accepted)
}

/// Looks at the candidate's pods, records what is wrong, and says whether it fails the release.
fn look_at_pods(pass: &mut Pass<'_>, policy: &Policy) -> Option<(String, String)> {
    let revision = pass.candidate()?;
    let known = pass.status.candidate.as_ref().and_then(|candidate| candidate.problem.clone());
    let counts_restarts = !analysis::allows_restarts(policy);
    let look = trouble::Look { since: looked_since(pass), now: pass.now, counts_restarts };
    let problem = trouble::find(revision, known.as_ref(), look);
    if let Some(candidate) = &mut pass.status.candidate {
        candidate.problem.clone_from(&problem);
    }
    // A person who passed over what the pods say has seen it.
    failing(pass, &problem?).filter(|_| !is_accepted(pass))
}

/// Reason and words of a problem of pods, if it fails a release; if it will, looks again then.
pub fn failing(pass: &mut Pass<'_>, problem: &PodProblem) -> Option<(String, String)> {
    if let Some(time) = trouble::fails_at(problem) {
        pass.wake_at(time);
    }
    trouble::fails(problem, pass.now).then(|| (problem.reason.clone(), trouble::describe(problem)))
}

/// A candidate with requests, none of whose pods passes its readiness probe any more, while all of stable's do:
/// it is the candidate's fault, and not that of something that both depend on.
fn look_at_readiness(pass: &Pass<'_>) -> Option<(String, String)> {
    let stable = pass.stable().filter(|stable| stable.observed && stable.replicas > 0)?;
    if pass.desired_weight() == 0 || is_accepted(pass) || stable.warm() < stable.replicas {
        return None;
    }
    Some((trouble::NOT_READY.to_owned(), trouble::lost_readiness(pass.candidate()?)?))
}

/// The step under way has waited for the cluster as long as it may.
fn overdue(pass: &mut Pass<'_>, policy: &Policy) -> Option<(String, String)> {
    if !may_advance(pass) || pass.unproven.is_some() || !current(pass, policy).name().waits_for_cluster() {
        return None;
    }
    // A backup that is made anew has its own time, and the step the whole of its own after it.
    if database::renewal::is_under_way(pass) {
        return None;
    }
    let step = pass.status.step.clone()?;
    let since = step.progress.map_or(step.started_at, |progress| progress.at.max(step.started_at));
    let since = database::renewal::ended_at(pass).map_or(since, |ended| since.max(ended));
    // Of a key nobody expects that pods go by it earlier.
    let waits = current(pass, policy) == Step::Maintenance && database::needs_maintenance(pass);
    let delay = if waits { database::switches::delay(pass).as_millis() } else { 0 };
    if !pass.elapsed(since, Duration::from_millis(policy.deadline.as_millis().saturating_add(delay))) {
        return None;
    }
    let (wanted, _) = wanted(pass, policy);
    let available = pass.candidate().map_or(0, |candidate| candidate.available);
    let known = pass.status.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref()).map(trouble::describe);
    let failure = || pass.candidate().and_then(|candidate| candidate.failure.clone());
    let refused = route::refused(pass).map(|refusal| refusal.text);
    let reason = if refused.is_some() { "RouteNotAccepted" } else { "ProgressDeadlineExceeded" };
    let hidden = || {
        let named = pass.traffic_spec()?.candidate_service.as_deref()?;
        let hidden = pass.traffics().hides(pass.candidate()?);
        hidden.then(|| format!("the EndpointSlices of Service {named} do not show them"))
    };
    let why =
        known.or_else(failure).or(refused).or_else(|| pass.candidate().and_then(trouble::unready)).or_else(hidden);
    let why = why.map(|why| format!("; {why}")).unwrap_or_default();
    let message = format!(
        "step {} made no progress for {}: {available} of {wanted} pods available{why}",
        step.summary, policy.deadline
    );
    Some((reason.into(), message))
}

/// What the failure of a step means.
pub fn failed(pass: &mut Pass<'_>, policy: &Policy, failure: checks::Failure) -> Option<Flow> {
    // What nobody knows is not to be tried again, or passed over, from where it stands.
    let unknown = database::schema(pass) == SchemaState::Unknown || database::undo::is_seed_unknown(pass);
    let automatic = unknown || (policy.automatic && failure.then == OnFailure::Rollback);
    fail(pass, automatic, failure.reason, failure.message)
}

/// Rolls back, or holds for a person; nothing when it is held already.
fn fail(pass: &mut Pass<'_>, automatic: bool, reason: &str, message: String) -> Option<Flow> {
    if automatic {
        retreat::begin(pass, RollbackCause::Failed, reason, &message, None);
        return Some(Flow::Again);
    }
    if pass.status.hold.is_none() {
        pass.status.note(pass.now, "Held", &message, None);
        let message = crate::api::status::bounded(&message, 512);
        pass.status.hold = Some(Hold { reason: reason.to_owned(), message, since: pass.now });
    }
    None
}

/// Pins the spec as it stands; once the plan exists it is what counts.
pub fn pin(pass: &mut Pass<'_>) {
    let (Some(release), Some(target)) = (&pass.status.release, &pass.target) else { return };
    if pass.plan(release.number).is_some() || release.revision != target.hash || templates::lacking(pass) {
        return;
    }
    let plan = Plan {
        number: release.number,
        revision: target.hash.clone(),
        spec: crate::api::ServiceReleaseSpec { template: None, ..pass.release.spec.clone() },
        template: target.template.clone(),
        analysis_templates: pass.seen.templates.clone(),
    };
    pass.after.push(Effect::PinPlan(Box::new(plan)));
}
