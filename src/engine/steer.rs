//! What the step under way needs done now, when a release goes forward: what the Service is to select,
//! and how many pods each revision gets.

use crate::api::RevisionStatus;

use super::{
    contest,
    effect::{Effect, Selection},
    forward::{current, index, may_advance},
    observed::Revision,
    pass::{Pass, set_min_ready},
    plan::{Policy, Shift, Step},
    ratio::{self, Group},
    retreat, route, traffic,
};

/// The revisions that make room for the candidate: all others but those that only drain.
pub fn old_side<'a>(pass: &Pass<'a>) -> Vec<&'a Revision> {
    let candidate = pass.candidate_hash().unwrap_or_default();
    let old = |seen: &&Revision| seen.hash != candidate && !retreat::drains(pass, &seen.hash);
    pass.seen.revisions.iter().filter(old).collect()
}

/// Pods wanted for the candidate and for stable at the weight that is desired.
pub fn wanted(pass: &Pass<'_>, policy: &Policy) -> (i32, i32) {
    let replicas = pass.replicas();
    let desired = pass.desired_weight();
    if !policy.has_pods(index(pass)) {
        return (0, if pass.status.stable.is_some() { replicas } else { 0 });
    }
    match policy.shift {
        _ if pass.status.stable.is_none() => (replicas, 0),
        Shift::Switch => (replicas, replicas),
        Shift::Route { .. } => {
            (policy.beside(index(pass), desired, replicas), policy.kept(route::certain(pass), replicas))
        }
        Shift::Ratio { .. } if desired == 0 => ratio::prepare(policy.bounds(replicas), policy.first_weight()),
        Shift::Ratio { .. } => ratio::split(policy.bounds(replicas), desired),
    }
}

/// The next size of every revision that has or gets pods.
pub fn sizes(pass: &Pass<'_>, policy: &Policy) -> Vec<(RevisionStatus, i32)> {
    let (candidate, old) = wanted(pass, policy);
    let mut entries: Vec<(RevisionStatus, i32)> = Vec::new();
    entries.extend(pass.status.candidate.clone().map(|entry| (entry, candidate)));
    entries.extend(pass.status.stable.clone().map(|entry| (entry, old)));
    let mut leftovers = retreat::leftovers(pass, &entries);
    if let Shift::Ratio { .. } = policy.shift {
        share_among_old(pass, old, &mut entries, &mut leftovers);
    }
    entries.extend(leftovers);
    retreat::next_sizes(pass, policy, entries)
}

/// When stable does not serve and an earlier candidate still does (a fix that goes forward), the
/// pods of the old side are those that serve.
fn share_among_old(
    pass: &Pass<'_>,
    old: i32,
    entries: &mut [(RevisionStatus, i32)],
    leftovers: &mut [(RevisionStatus, i32)],
) {
    let mut left = old;
    let stable = pass.stable().map_or(0, |stable| pass.traffics().serving(stable));
    for (entry, wanted) in leftovers.iter_mut().filter(|(_, wanted)| *wanted == 0) {
        let serving = pass.revision(&entry.revision).map_or(0, |seen| pass.traffics().serving(seen));
        *wanted = serving.min((left - stable).max(0));
        left -= *wanted;
    }
    if let Some((_, wanted)) = entries.get_mut(1) {
        *wanted = left;
    }
}

/// What the step under way needs done now: Services first, then pods.
pub fn steer(pass: &mut Pass<'_>, policy: &Policy) {
    let Some(candidate) = pass.status.candidate.clone() else { return };
    if pass.obstacle.as_ref().is_some_and(|obstacle| obstacle.hands_off) {
        return;
    }
    pass.after.extend(pass.candidate().and_then(|seen| set_min_ready(seen, policy.min_ready_seconds)));
    let closed = close(pass);
    let frozen = !may_advance(pass) && current(pass, policy).name().waits_for_cluster();
    let traffics = pass.traffics();
    let template = pass.target.as_ref().map(|target| target.template.clone());
    let serving = matches!(traffics.selection(), Selection::Revision(_) | Selection::Release);
    if let Some(wanted) = selection(pass, policy).filter(|_| !(frozen && serving)) {
        pass.after.extend(traffics.select(&wanted, template.as_ref()));
    }
    let switched = current(pass, policy) == Step::Promote
        && traffics.selection() == Selection::Revision(candidate.revision.clone());
    let finishing = switched && (!policy.is_routed() || route::settled(pass, 0) || released(pass));
    let preview = if finishing { Selection::Nothing } else { Selection::Revision(candidate.revision.clone()) };
    if contest::misleads(pass) || contest::finds_nobody(pass) {
        pass.after.extend(contest::lead_to_stable(pass));
    } else if finishing || free(pass, policy, &preview) {
        pass.after.extend(traffics.select_candidate(&preview, template.as_ref()));
    }
    if policy.is_routed() {
        let now = route::weight(pass);
        // While it is held, no requests move to the candidate: neither by weight, nor by headers.
        let moves =
            matches!(current(pass, policy), Step::SetHeaderRoute(_) | Step::SetMirrorRoute(_) | Step::Maintenance);
        let share = share(pass, policy)
            .filter(|share| !frozen || now.is_none_or(|now| *share < now || (*share == now && !moves)));
        pass.after.extend(share.and_then(|share| route::set(pass, share)));
    }
    let tried = pass.before.iter().any(|effect| matches!(effect, Effect::CreateReplicaSet(_)));
    for (entry, size) in sizes(pass, policy) {
        // Made in this pass, without pods: they follow once it is on record.
        if tried && entry.revision == candidate.revision {
            continue;
        }
        let seen = pass.revision(&entry.revision).map(|seen| seen.replicas);
        let size = match entry.revision == candidate.revision {
            // The first candidate pod waits until the Service no longer selects it (INVARIANTS T1), and
            // while the release is held no share of the traffic moves with pods (T5).
            true if !closed || frozen => size.min(seen.unwrap_or(0)),
            false if frozen => size.max(seen.unwrap_or(0)),
            _ => size,
        };
        let effect = pass.size(&entry, size);
        pass.after.extend(effect);
    }
}

/// Whether the candidate's Service was found without requests before.
fn released(pass: &Pass<'_>) -> bool {
    let selection = pass.seen.candidate_service.as_ref().map(traffic::selection);
    route::weight(pass) == Some(0) && selection == Some(Selection::Nothing)
}

/// Whether the candidate's Service may select this: not another revision than before, while requests may
/// come to it by the route; unless that share is the candidate's, and its pods take it, or nobody's do.
fn free(pass: &mut Pass<'_>, policy: &Policy, wanted: &Selection) -> bool {
    let now = pass.seen.candidate_service.as_ref().map(traffic::selection);
    let same = now.is_none_or(|now| now == *wanted || now == Selection::Nothing);
    let takes_share = || {
        let (pods, _) = self::wanted(pass, policy);
        let warm = pass.candidate().filter(|seen| seen.observed).map_or(0, Revision::warm);
        let empty = pass.seen.candidate_service.as_ref().is_some_and(|it| !it.endpoints.iter().any(|one| one.ready));
        pass.desired_weight() > 0 && (warm >= pods || (warm > 0 && empty))
    };
    same || !policy.is_routed() || pass.seen.route.is_none() || takes_share() || route::settled(pass, 0)
}

/// Without traffic for the candidate, the Service must not select it. Says whether it does not.
fn close(pass: &mut Pass<'_>) -> bool {
    let traffics = pass.traffics();
    let desired = pass.desired_weight();
    if desired > 0 || !traffics.used() {
        return true;
    }
    let candidate = pass.candidate_hash().unwrap_or_default().to_owned();
    let first = pass.status.stable.is_none();
    let serves = pass.candidate().is_some_and(|candidate| traffics.serving(candidate) > 0);
    let adopting = pass.seen.workload.as_ref().is_some_and(|workload| workload.replicas > 0 && !workload.deleting);
    let closed = match traffics.selection() {
        Selection::Nothing => traffics.service().is_some(),
        // One that serves already, left by a release that was deleted as an orphan, goes on serving.
        Selection::Revision(hash) => hash != candidate || (first && serves),
        // Pods of somebody else serve behind a Service that was there before: they stay reachable, also
        // through a moment in which none is ready.
        Selection::Original => first && (adopting || traffics.foreign_endpoints() > 0),
        Selection::Release => false,
    };
    if !closed {
        let wanted = pass.stable_hash().map_or(Selection::Nothing, |hash| Selection::Revision(hash.to_owned()));
        let template = pass.target.as_ref().map(|target| target.template.clone());
        pass.after.extend(traffics.select(&wanted, template.as_ref()));
    }
    // A Service that is made now selects nothing from the start.
    closed || traffics.service().is_none()
}

/// What the Service should select for the traffic that is desired, when that is more than nothing.
fn selection(pass: &mut Pass<'_>, policy: &Policy) -> Option<Selection> {
    let routed = policy.is_routed() && pass.status.stable.is_some();
    let moved = routed && route::settled(pass, 100);
    let desired = pass.desired_weight();
    let candidate = pass.candidate().filter(|_| desired > 0)?;
    let traffics = pass.traffics();
    let bounds = policy.bounds(pass.replicas());
    let alone = Selection::Revision(candidate.hash.clone());
    let promote = current(pass, policy) == Step::Promote;
    // Once all traffic is the candidate's it stays so, whatever happens to a pod.
    if promote && (traffics.selection() == alone) {
        return Some(alone);
    }
    // Even where all pods may be missing, traffic moves onto a pod that is there.
    let least = bounds.enough().max(bounds.replicas.min(1));
    let enough = candidate.observed && candidate.replicas >= bounds.replicas && candidate.warm() >= least;
    let stable_gone = old_side(pass).iter().all(|old| old.replicas == 0);
    match policy.shift {
        _ if pass.status.stable.is_none() => (promote && enough).then_some(alone),
        Shift::Switch => (promote && enough).then_some(alone),
        // Once the route sends everything to the candidate, the Service follows.
        Shift::Route { .. } if promote && enough && moved => Some(alone),
        // Who serves in place of a stable that cannot (a fix that goes forward) serves on.
        Shift::Route { .. } if stands_in(pass) => None,
        Shift::Route { .. } => pass.stable_hash().map(|hash| Selection::Revision(hash.to_owned())),
        Shift::Ratio { .. } if promote && enough && stable_gone => Some(alone),
        Shift::Ratio { .. } if traffics.selection() == Selection::Release => Some(Selection::Release),
        Shift::Ratio { .. } => (candidate.warm() > 0 && !has_strangers(pass)).then_some(Selection::Release),
    }
}

/// Whether pods are left of a revision that is to have no requests: those of the release would be shared with it.
fn has_strangers(pass: &Pass<'_>) -> bool {
    let known = [pass.stable_hash(), pass.candidate_hash()];
    let gone = |seen: &Revision| seen.replicas == 0 && seen.pods_total == 0 && pass.traffics().endpoints(seen) == 0;
    let strange = |seen: &&Revision| !known.contains(&Some(seen.hash.as_str())) && !pass.traffics().selects(&seen.hash);
    pass.seen.revisions.iter().filter(strange).any(|seen| !gone(seen))
}

/// Whether another revision serves in stable's place, with more pods than stable has.
fn stands_in(pass: &Pass<'_>) -> bool {
    let traffics = pass.traffics();
    let stable = pass.stable().map_or(0, Revision::warm);
    let others = pass.seen.revisions.iter().filter(|seen| Some(seen.hash.as_str()) != pass.stable_hash());
    others
        .map(|seen| traffics.serving(seen))
        .max()
        .is_some_and(|serving| traffics.service().is_some() && serving > stable)
}

/// What the route is to send to the candidate's Service, in percent.
fn share(pass: &Pass<'_>, policy: &Policy) -> Option<i32> {
    let desired = pass.desired_weight();
    let now = route::weight(pass);
    // The first revision serves by service alone.
    if pass.status.stable.is_none() {
        return Some(0);
    }
    let (Some(stable), Some(candidate)) = (pass.stable(), pass.candidate()) else { return Some(now.unwrap_or(0)) };
    let traffics = pass.traffics();
    let enough = policy.bounds(pass.replicas()).enough();
    if traffics.selection() == Selection::Revision(candidate.hash.clone()) {
        // Promoted: the Service has the candidate's pods, and the requests come back to it.
        let ready = traffics.only(&candidate.hash) && traffics.serving(candidate) >= enough;
        return if ready { Some(0) } else { now };
    }
    // Without an endpoint every request of its share fails: they are stable's until one is back.
    if traffics.candidate_endpoints(candidate) == 0 && traffics.serving(stable) > 0 {
        return Some(0);
    }
    let (wanted, _) = wanted(pass, policy);
    let able = candidate.observed
        && candidate.replicas >= wanted
        && candidate.warm().min(traffics.candidate_endpoints(candidate)) >= wanted;
    let lower = now.is_some_and(|now| now > desired) && traffics.serving(stable) >= enough;
    if desired == 0 || able || lower { Some(desired) } else { Some(now.unwrap_or(0)) }
}

/// The group of a revision for the arithmetic of sizes.
pub fn group(pass: &Pass<'_>, entry: &RevisionStatus, wanted: i32) -> Group {
    let seen = pass.revision(&entry.revision);
    Group {
        replicas: seen.map_or(0, |seen| seen.replicas),
        pods: seen.map_or(0, |seen| seen.pods_total),
        serving: seen.map_or(0, |seen| pass.traffics().serving(seen)),
        warm: seen.filter(|seen| pass.traffics().reaches(&seen.hash)).map_or(0, Revision::warm),
        wanted,
    }
}
