//! The way back: traffic moves onto stable as fast as stable is warm for it (INVARIANTS T3), then
//! the candidate goes. Serves failures, aborts, superseded templates and, with the revision to be
//! undone in the candidate's place, Undo.

use crate::api::{
    Draining, Duration, FailedRevision, RevisionStatus, RollbackCause, RollbackStatus, status::MAX_FAILED,
};

use super::{
    Flow, contest,
    database::{self, undo::Standing},
    effect::Selection,
    observed::Revision,
    pass::{Pass, resize},
    plan::{Policy, Shift},
    ratio, rest, route, rules,
    steer::group,
    traffic::Traffics,
    way_back,
};

/// Decides that the candidate's traffic goes back to stable.
pub fn begin(pass: &mut Pass<'_>, cause: RollbackCause, reason: &str, message: &str, by: Option<&str>) {
    let candidate = pass.status.candidate.as_ref().map(|candidate| (candidate.revision.clone(), candidate.release));
    let Some((revision, release)) = candidate.or_else(|| database::alone::cause(pass)) else { return };
    let from_weight = pass.desired_weight();
    let probed = pass.status.step.as_ref().is_some_and(|step| pass.policy().probes(step.index));
    pass.want_weight(0);
    // Whoever fights over a rise may let it fall.
    contest::forgive(pass);
    pass.status.hold = None;
    pass.status.suspended = None;
    pass.status.rollback = Some(RollbackStatus {
        cause,
        revision,
        release,
        reason: reason.to_owned(),
        message: crate::api::status::bounded(message, 512),
        by: by.map(str::to_owned),
        from_weight,
        probed,
        started_at: pass.now,
        drain_until: None,
        completed_at: None,
    });
    let kind = if cause == RollbackCause::Superseded { "Superseded" } else { "RollingBack" };
    pass.status.note(pass.now, kind, message, by);
    database::switches::lower_flags(pass, release);
}

/// Drives the way back.
pub fn drive(pass: &mut Pass<'_>) -> Flow {
    let policy = pass.policy();
    if pass.status.stable.is_none() {
        return drive_without_stable(pass);
    }
    if !database::undo::may_move(pass) {
        come_closer(pass, &policy);
        database::undo::hold(pass);
        return Flow::Settled;
    }
    let (safer, planned) = (pass.before.len(), pass.after.len());
    let moved = move_traffic(pass, &policy);
    let gone = moved && clear_candidate(pass, &policy);
    let settled = database::undo::drive(pass, moved) == Standing::Clear;
    if !moved {
        // Connections end from when the last request has left its pods.
        let reached = way_back::is_reached(pass);
        if let Some(rollback) = pass.status.rollback.as_mut().filter(|_| reached) {
            rollback.drain_until = None;
        }
        let started = pass.status.rollback.as_ref().map(|rollback| rollback.started_at);
        let late = started.is_some_and(|started| pass.elapsed(started, policy.deadline));
        if late && settled && gives_up(pass, &policy) {
            // What was about to be done for stable is not done any more.
            let moves = pass.after.len() - planned;
            pass.after.drain(..moves);
            if close_around_the_rest(pass) {
                return Flow::Again;
            }
        }
        resize_all(pass, &policy);
    }
    if gone && settled {
        // What comes next says how many pods there are to be.
        pass.before.truncate(safer);
        pass.after.truncate(planned);
        complete(pass);
        return Flow::Again;
    }
    Flow::Settled
}

/// Traffic stays until maintenance mode is on: the route leads to the page, and stable's pods come meanwhile, where no
/// request reaches them before the Service is switched.
fn come_closer(pass: &mut Pass<'_>, policy: &Policy) {
    if !matches!(policy.shift, Shift::Ratio { .. })
        && let Some(entry) = pass.status.stable.clone()
    {
        let wanted = pass.replicas().max(pass.stable().map_or(0, |stable| stable.replicas));
        apply_sizes(pass, policy, vec![(entry, wanted)]);
    }
    if !contest::misleads(pass) {
        let effect = route::set(pass, database::switches::weight(pass));
        pass.after.splice(0..0, effect);
    }
}

/// The first revision of all goes back to nothing.
fn drive_without_stable(pass: &mut Pass<'_>) -> Flow {
    let traffics = pass.traffics();
    let candidate = pass.candidate_hash().unwrap_or_default().to_owned();
    // A Service that still reaches somebody else's pods is left as it is; in an adoption the
    // Deployment's own pods have the traffic again.
    let shared = traffics.selection() == Selection::Original;
    let closed = traffics.service().is_none() || shared || !traffics.selects(&candidate);
    if !closed {
        let back = if pass.seen.workload.is_some() { Selection::Original } else { Selection::Nothing };
        pass.after.splice(0..0, traffics.select(&back, None));
    }
    let clear = clear_preview(pass);
    let down = pass.candidate().is_none_or(|seen| seen.replicas == 0 && seen.pods_total == 0);
    if closed && let Some(seen) = pass.candidate() {
        pass.after.extend(resize(seen, 0));
    }
    let settled = database::undo::drive(pass, closed && down) == Standing::Clear;
    // The maintenance page comes and goes here, too.
    let routed = pass.policy().is_routed() && pass.seen.route.is_some() && !contest::is_on(pass);
    if routed && closed {
        pass.after.extend(route::set(pass, 0));
    }
    if closed && clear && down && settled && (!routed || rules::are_meant(pass, 0)) {
        complete(pass);
        return Flow::Again;
    }
    Flow::Settled
}

/// Points the Service back at stable as far as stable is warm. Says whether all traffic is there.
fn move_traffic(pass: &mut Pass<'_>, policy: &Policy) -> bool {
    let Some(hash) = pass.stable_hash().map(str::to_owned) else { return false };
    let traffics = pass.traffics();
    let bounds = policy.bounds(pass.replicas());
    let Some(stable) = pass.stable() else { return false };
    let alone = Selection::Revision(hash.clone());
    if !traffics.used() {
        return stable.observed && stable.warm() >= bounds.enough();
    }
    if traffics.selection() == alone {
        let alone = traffics.only(&hash) || candidate_untouched(pass);
        return match policy.shift {
            Shift::Route { .. } => move_weight(pass, stable, bounds.enough()) && alone,
            _ => alone,
        };
    }
    // Behind an open Service only pods that are endpoints already can take it all.
    let open = traffics.selects(&hash);
    let warm = if open { traffics.serving(stable) } else { stable.warm() };
    let wanted = if stable.observed && warm >= bounds.enough() {
        Some(alone)
    } else if !open && stable.warm() > 0 && traffics.selection() == Selection::Nothing {
        // Nobody serves: any pod of stable is better, and no other revision needs to come along.
        Some(alone)
    } else if way_back::shares_pods(pass, policy, stable) && !open && stable.warm() > 0 && !candidate_untouched(pass) {
        // Each pod gets the same.
        Some(Selection::Release)
    } else {
        None
    };
    let wanted = wanted.filter(|_| way_back::is_behind_page(pass, policy));
    let effect = wanted.and_then(|wanted| traffics.select(&wanted, Some(&stable.template)));
    // On record first: an observation that is older than the last decision is refused there, and does
    // not turn the traffic round.
    pass.after.splice(0..0, effect);
    false
}

/// Takes the route's weight off the candidate, as far as stable has pods for it. Says whether nothing of it
/// is left.
fn move_weight(pass: &mut Pass<'_>, stable: &Revision, enough: i32) -> bool {
    let untouched = candidate_untouched(pass);
    if pass.seen.route.is_none() && route::router(pass).is_none_or(|router| router.gateway.is_none()) {
        return true;
    }
    let traffics = pass.traffics();
    let serving = traffics.serving(stable);
    let others = pass.candidate().map_or(0, |candidate| traffics.candidate_endpoints(candidate));
    let now = route::weight(pass);
    let wanted = if untouched || serving >= enough || (serving > 0 && others == 0) {
        0
    } else {
        // What stable's pods cannot take stays with the candidate's.
        let rest = (100 * (enough - serving) + enough - 1) / enough.max(1);
        let before = pass.status.rollback.as_ref().map_or(0, |rollback| rollback.from_weight);
        now.unwrap_or(before).min(rest)
    };
    let lead = contest::finds_nobody(pass).then(|| contest::lead_to_stable(pass)).flatten();
    // A gateway refuses a route to a Service that is not there.
    let missing = pass.seen.candidate_service.is_none() && lead.is_none();
    let made = || traffics.select_candidate(&Selection::Nothing, Some(&stable.template));
    pass.after.extend(if missing { made() } else { lead });
    if contest::misleads(pass) {
        // Where the route cannot be put right, what it gives to the candidate's Service is stable's pods'.
        let effect = contest::lead_to_stable(pass).filter(|_| wanted == 0);
        pass.after.splice(0..0, effect);
        return wanted == 0 && others == 0;
    }
    let effect = route::set(pass, wanted);
    pass.after.splice(0..0, effect);
    let draining = pass.status.rollback.as_ref().is_some_and(|rollback| rollback.drain_until.is_some());
    // What had no request, or has none any more, does not wait for a gateway, unless the route has led to it since.
    let quiet = (untouched || draining) && !route::may_lead(pass);
    wanted == 0 && now == Some(0) && rules::are_meant(pass, 0) && (quiet || route::settled(pass, 0))
}

/// The candidate never had traffic, so that no connection can be open to it.
pub fn candidate_untouched(pass: &Pass<'_>) -> bool {
    pass.status.rollback.as_ref().is_some_and(|rollback| rollback.from_weight == 0 && !rollback.probed)
}

/// With all traffic on stable: lets connections drain, then takes the candidate's pods away. Says
/// whether nothing is left of it.
fn clear_candidate(pass: &mut Pass<'_>, policy: &Policy) -> bool {
    let clear = clear_preview(pass);
    let without_pods = pass.candidate().is_none_or(|seen| seen.replicas == 0);
    let drained = candidate_untouched(pass) || without_pods || !pass.traffics().used() || {
        let until = pass.now.plus(policy.scale_down_delay);
        let until = match &mut pass.status.rollback {
            Some(rollback) => *rollback.drain_until.get_or_insert(until),
            None => until,
        };
        pass.wake_at(until);
        until <= pass.now
    };
    if let Some(entry) = pass.status.stable.clone() {
        let keep = if drained { None } else { pass.candidate().map(|seen| seen.replicas) };
        let candidate = pass.status.candidate.clone();
        let mut entries = vec![(entry, pass.replicas())];
        entries.extend(candidate.map(|candidate| (candidate, keep.unwrap_or(0))));
        entries.extend(leftovers(pass, &entries));
        apply_sizes(pass, policy, entries);
    }
    clear && pass.candidate().is_none_or(|seen| seen.replicas == 0 && seen.pods_total == 0)
}

/// Takes the candidate's Service off its pods. Says whether it is.
fn clear_preview(pass: &mut Pass<'_>) -> bool {
    if pass.seen.candidate_service.is_none() || contest::misleads(pass) {
        return true;
    }
    let effect = pass.traffics().select_candidate(&Selection::Nothing, None);
    let clear = effect.is_none();
    pass.after.extend(effect);
    clear
}

/// Stable up, the candidate down, both as far as the traffic on them allows.
fn resize_all(pass: &mut Pass<'_>, policy: &Policy) {
    let mut entries: Vec<(RevisionStatus, i32)> = Vec::new();
    entries.extend(pass.status.stable.clone().map(|entry| (entry, pass.replicas())));
    let keep = match policy.shift {
        Shift::Ratio { .. } => 0,
        Shift::Switch | Shift::Route { .. } => way_back::kept(pass, policy),
    };
    entries.extend(pass.status.candidate.clone().map(|entry| (entry, keep)));
    entries.extend(leftovers(pass, &entries));
    apply_sizes(pass, policy, entries);
}

fn apply_sizes(pass: &mut Pass<'_>, policy: &Policy, entries: Vec<(RevisionStatus, i32)>) {
    let stable = pass.stable_hash().map(str::to_owned);
    for (entry, size) in next_sizes(pass, policy, entries) {
        let is_stable = stable.as_ref() == Some(&entry.revision);
        if !is_stable && pass.revision(&entry.revision).is_none() {
            continue;
        }
        let Some(effect) = pass.size(&entry, size) else { continue };
        let grows = pass.revision(&entry.revision).is_none_or(|seen| seen.replicas < size);
        // Stable up needs no record; anything else follows it.
        if is_stable && grows {
            pass.before.push(effect);
        } else {
            pass.after.push(effect);
        }
    }
}

/// The next size of each revision towards the size that it is given.
pub fn next_sizes(pass: &Pass<'_>, policy: &Policy, entries: Vec<(RevisionStatus, i32)>) -> Vec<(RevisionStatus, i32)> {
    let bounds = policy.bounds(pass.replicas());
    let sizes = match policy.shift {
        Shift::Switch | Shift::Route { .. } => entries.iter().map(|(_, wanted)| *wanted).collect(),
        Shift::Ratio { .. } => {
            let groups: Vec<_> = entries.iter().map(|(entry, wanted)| group(pass, entry, *wanted)).collect();
            let mut sizes = ratio::next_sizes(bounds, &groups);
            // The counts of a ReplicaSet that has not seen its size yet are those of another size:
            // nobody goes on their strength.
            let seen = entries.iter().filter_map(|(entry, _)| pass.revision(&entry.revision));
            if seen.into_iter().any(|seen| !seen.observed) {
                for (size, group) in sizes.iter_mut().zip(&groups) {
                    *size = group.replicas.max(*size);
                }
            }
            sizes
        }
    };
    entries.into_iter().zip(sizes).map(|((entry, _), size)| (entry, size)).collect()
}

/// The revisions that still have pods and are not among `known`: those that drain keep their size,
/// the others go; where revisions stand whole beside each other, not before the Service has left them.
pub fn leftovers(pass: &Pass<'_>, known: &[(RevisionStatus, i32)]) -> Vec<(RevisionStatus, i32)> {
    let whole = !matches!(pass.policy().shift, Shift::Ratio { .. });
    let left = |seen: &&Revision| {
        !seen.deleting
            && (seen.replicas > 0 || seen.pods_total > 0)
            && !known.iter().any(|(entry, _)| entry.revision == seen.hash)
    };
    let entry = |seen: &Revision| {
        let serves = whole && pass.traffics().serving(seen) > 0;
        let wanted = if drains(pass, &seen.hash) || serves { seen.replicas } else { 0 };
        (RevisionStatus { revision: seen.hash.clone(), ..RevisionStatus::default() }, wanted)
    };
    pass.seen.revisions.iter().filter(left).map(entry).collect()
}

/// Whether a revision's pods stay for now, without traffic.
pub fn drains(pass: &Pass<'_>, hash: &str) -> bool {
    pass.status.draining.iter().any(|entry| entry.revision == hash && entry.until > pass.now)
}

/// Keeps a revision that lost its traffic for a while.
pub fn drain(pass: &mut Pass<'_>, hash: &str, policy: &Policy) {
    pass.status.draining.retain(|entry| entry.revision != hash);
    let (kept, drained) = (policy.keep_previous, policy.connections());
    if kept.max(drained) > Duration::default() {
        let until = pass.now.plus(kept.max(drained));
        let kept_from = (kept > drained).then(|| pass.now.plus(drained));
        pass.status.draining.push(Draining { revision: hash.to_owned(), until, kept_from });
    }
    let excess = pass.status.draining.len().saturating_sub(4);
    pass.status.draining.drain(..excess);
}

/// Whether stable is not to be had, and there is something new to release: the fix goes forward from
/// where the traffic is.
fn gives_up(pass: &Pass<'_>, policy: &Policy) -> bool {
    let fresh = pass.target.as_ref().is_some_and(|target| {
        let known = [pass.stable_hash(), pass.candidate_hash()];
        !known.contains(&Some(target.hash.as_str())) && !rest::is_latched(pass, &target.hash)
    });
    fresh
        && !way_back::waits_for_route(pass, policy)
        && pass.obstacle.is_none()
        && !pass.awaits_trial()
        && !pass.release.spec.paused
}

/// Closes the Service around whoever serves most. Says whether that is done.
fn close_around_the_rest(pass: &mut Pass<'_>) -> bool {
    let traffics = pass.traffics();
    if let Some(candidate) = pass.candidate().filter(|_| route::weight(pass).is_some_and(|weight| weight > 0)) {
        if candidate_untouched(pass) {
            // Somebody else gave it requests.
            pass.after.extend(route::set(pass, 0));
            return false;
        }
        // The candidate's pods serve by the other Service: first they serve by this one.
        let around = Selection::Revision(candidate.hash.clone());
        if candidate.warm() > 0 && traffics.selection() != around {
            pass.after.extend(traffics.select(&around, None));
        } else if candidate.warm() == 0 || traffics.serving(candidate) > 0 {
            pass.after.extend(route::set(pass, 0));
        }
        return false;
    }
    // Requests may still come by the other Service, which is about to belong to another revision. Without the first one no
    // gateway accepts the route.
    let leads = pass.policy().is_routed() && pass.seen.route.is_some() && pass.seen.service.is_some();
    if leads && !route::settled(pass, 0) {
        pass.after.extend(route::set(pass, 0));
        return false;
    }
    if !traffics.used() || matches!(traffics.selection(), Selection::Revision(_)) {
        complete(pass);
        return true;
    }
    let stable = pass.stable_hash();
    let serving = |revision: &&Revision| (traffics.serving(revision), stable != Some(&revision.hash));
    let most = pass.seen.revisions.iter().filter(|revision| !revision.deleting).max_by_key(serving);
    let wanted = most.map(|revision| Selection::Revision(revision.hash.clone()));
    pass.after.extend(wanted.and_then(|wanted| traffics.select(&wanted, None)));
    false
}

/// Writes down that the way back is over.
pub fn complete(pass: &mut Pass<'_>) {
    let migration_alone = pass.is_alone();
    database::end_open_work(pass);
    let begins = database::onward::begins(pass);
    database::onward::hand_over(pass);
    pass.status.candidate = None;
    pass.status.step = None;
    let Some(mut rollback) = pass.status.rollback.take() else { return };
    let revision = rollback.revision.clone();
    let migration = database::wanted(pass);
    if rollback.cause == RollbackCause::Superseded {
        return;
    }
    let wanted = pass.target.as_ref().is_some_and(|target| target.hash == revision);
    latch(
        pass,
        FailedRevision {
            revision: revision.clone(),
            release: rollback.release,
            reason: rollback.reason.clone(),
            message: rollback.message.clone(),
            at: pass.now,
            migration,
            migration_alone,
            // A person has said that it is released again.
            latched: wanted && !begins,
        },
    );
    let message = match pass.stable_hash() {
        Some(stable) if migration_alone => format!("{stable} serves as before"),
        Some(stable) => format!("{stable} serves all traffic again"),
        None => format!("{revision} is without pods; there is nothing to go back to"),
    };
    pass.status.note(pass.now, "RolledBack", &message, None);
    rollback.completed_at = Some(pass.now);
    pass.status.rollback = Some(rollback);
}

/// Records a revision as failed; the newest last.
fn latch(pass: &mut Pass<'_>, failed: FailedRevision) {
    let list = &mut pass.status.failed_revisions;
    list.retain(|known| known.revision != failed.revision);
    list.push(failed);
    let excess = list.len().saturating_sub(MAX_FAILED);
    list.drain(..excess);
}

/// Whether a way back is under way.
pub fn under_way(pass: &Pass<'_>) -> bool {
    pass.is_under_way() && pass.status.rollback.as_ref().is_some_and(|rollback| rollback.completed_at.is_none())
}

/// Whether stable could not be made warm in time: a person has to look.
pub fn stuck(pass: &Pass<'_>) -> bool {
    let deadline = pass.policy().deadline;
    let late = pass.status.rollback.as_ref().is_some_and(|rollback| rollback.started_at.plus(deadline) <= pass.now);
    let all_back = pass.stable_hash().is_some_and(|hash| {
        let traffics = Traffics::new(pass.release, pass.seen);
        let routed = pass.policy().is_routed();
        traffics.selection() == Selection::Revision(hash.to_owned()) && (!routed || route::weight(pass) == Some(0))
    });
    under_way(pass) && late && pass.status.stable.is_some() && !pass.is_alone() && !all_back
}

/// What the gateway has against the route, where it kept the requests from going back in time: a person has
/// to look. The candidate's pods stay, as requests may go by what was accepted last.
pub fn unrouted(pass: &Pass<'_>) -> Option<String> {
    let rollback = pass.status.rollback.as_ref().filter(|_| under_way(pass))?;
    let gone = rollback.drain_until.is_some() && !route::may_lead(pass);
    let late = rollback.started_at.plus(pass.policy().deadline) <= pass.now && !gone;
    let refused = route::refused(pass).map(|refusal| refusal.text);
    refused.filter(|_| late && pass.policy().is_routed() && pass.status.stable.is_some())
}

/// Why stable is turned round.
pub struct Cause<'a> {
    /// What kind of rollback it is.
    pub cause: RollbackCause,
    /// In one word.
    pub reason: &'a str,
    /// Who wants it; none if nobody asked.
    pub by: Option<&'a str>,
}

impl<'a> Cause<'a> {
    /// A person wants it.
    pub const fn person(by: &'a str) -> Self {
        Self { cause: RollbackCause::Undone, reason: "Undone", by: Some(by) }
    }
}

/// Turns stable round: the revision that serves becomes the one to take back, and another one that
/// was good before becomes stable.
pub fn undo(pass: &mut Pass<'_>, to: RevisionStatus, message: &str, why: &Cause<'_>) {
    let Some(undone) = pass.status.stable.replace(to) else { return };
    pass.status
        .draining
        .retain(|entry| pass.status.stable.as_ref().is_none_or(|stable| stable.revision != entry.revision));
    pass.status.previous = None;
    pass.status.candidate = Some(undone);
    pass.want_weight(100);
    pass.status.observation = None;
    begin(pass, why.cause, why.reason, message, why.by);
}
