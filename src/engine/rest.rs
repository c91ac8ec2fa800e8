//! Nothing is being released: stable is looked after, what is left of earlier releases goes, and a
//! new release is begun when the spec wants another revision than stable.

use crate::api::{Draining, FailedRevision};

use super::{
    Flow, command, contest, database,
    effect::{Effect, Selection},
    forward, observation,
    observed::{Revision, TemplateCheck},
    pass::{Pass, resize, set_min_ready},
    revision::{self, Target},
    route,
};

/// Starts what is to be started, or looks after what is there.
pub fn drive(pass: &mut Pass<'_>) -> Flow {
    if let Some(target) = startable(pass) {
        if pass.seen.template_check == TemplateCheck::NameTaken || revision::clashes(&target, pass.seen) {
            pass.status.collision_count += 1;
            return Flow::Settled;
        }
        match database::alone::is_due(pass) {
            Some(migration) => database::alone::start(pass, &migration),
            None => forward::start(pass, &target),
        }
        return Flow::Again;
    }
    if !look_after_stable(pass) {
        return Flow::Settled;
    }
    if observation::drive(pass) {
        return Flow::Again;
    }
    drain_others(pass);
    forget_old_revisions(pass);
    forget_old_plans(pass);
    Flow::Settled
}

/// Stable has its pods and its traffic. Says whether its objects are this release's to look after.
pub fn look_after_stable(pass: &mut Pass<'_>) -> bool {
    pass.want_weight(0);
    if pass.obstacle.as_ref().is_some_and(|obstacle| obstacle.hands_off) {
        return false;
    }
    keep_stable(pass);
    true
}

/// What the spec wants, if it is to be released now.
fn startable(pass: &Pass<'_>) -> Option<Target> {
    let target = pass.target.as_ref()?;
    let wanted = pass.stable_hash() != Some(&target.hash) || database::alone::is_due(pass).is_some();
    let free = !is_latched(pass, &target.hash) && !pass.release.spec.paused && pass.obstacle.is_none();
    // A release that ended in this very pass was none of its obstacles.
    (wanted && free && database::faults::alone(pass).is_none()).then(|| target.clone())
}

/// Whether a revision failed with the migration that the spec has, and stays down (INVARIANTS R3).
pub fn is_latched(pass: &Pass<'_>, hash: &str) -> bool {
    latched(pass, hash).is_some()
}

/// The failure that keeps it down.
pub fn latched<'a>(pass: &'a Pass<'_>, hash: &str) -> Option<&'a FailedRevision> {
    let migration = database::wanted(pass);
    let same = |failed: &&FailedRevision| failed.latched && failed.revision == hash && failed.migration == migration;
    pass.status.failed_revisions.iter().find(same)
}

/// Lets go of latches: another plan was seen, or the retry token is a new one.
pub fn release_latches(pass: &mut Pass<'_>) {
    let Some(target) = pass.target.as_ref().map(|target| target.hash.clone()) else { return };
    let token = &pass.release.spec.retry_token;
    let retried = *token != pass.status.retry_token && pass.status.release.is_some();
    let migration = database::wanted(pass);
    if !pass.is_under_way() {
        pass.status.retry_token.clone_from(token);
    } else if retried && pass.status.hold.take().is_some() {
        pass.status.retry_token.clone_from(token);
        command::retry_step(pass, None);
    }
    // A token that comes while a release goes forward or back waits for its end.
    for failed in &mut pass.status.failed_revisions {
        if failed.revision != target || failed.migration != migration || retried {
            failed.latched = false;
        }
    }
    let failed = pass.status.failed_revisions.iter().any(|failed| failed.latched && failed.revision == target);
    if !pass.is_under_way() && pass.stable_hash() == Some(&target) && !failed {
        pass.status.rollback = None;
    }
}

/// Stable has its pods, and the Services select them and nobody else.
fn keep_stable(pass: &mut Pass<'_>) {
    let Some(entry) = pass.status.stable.clone() else { return };
    // A revision that comes back may have been made under another spec.
    let seconds = pass.policy().min_ready_seconds;
    pass.after.extend(pass.stable().and_then(|stable| set_min_ready(stable, seconds)));
    let effect = pass.size(&entry, pass.replicas());
    pass.after.extend(effect);
    let template = pass.stable().map(|stable| stable.template.clone());
    let traffics = pass.traffics();
    pass.after.extend(traffics.select(&Selection::Revision(entry.revision), template.as_ref()));
    // The candidate's Service has no pods: the route comes first.
    pass.after.extend(route::set(pass, 0));
    let preview = match contest::misleads(pass) || contest::finds_nobody(pass) {
        true => contest::lead_to_stable(pass),
        // Requests may still come by a weight that somebody else had set.
        false if pass.seen.route.is_some() && pass.seen.candidate_service.is_some() && !route::settled(pass, 0) => None,
        false => traffics.select_candidate(&Selection::Nothing, template.as_ref()),
    };
    pass.after.extend(preview);
}

/// Revisions that are not stable lose their pods when their time is over.
fn drain_others(pass: &mut Pass<'_>) {
    let stable = pass.stable_hash().unwrap_or_default().to_owned();
    for seen in pass.seen.revisions.iter().filter(|seen| seen.hash != stable && !seen.deleting) {
        let draining = pass.status.draining.iter().find(|entry| entry.revision == seen.hash && entry.until > pass.now);
        match draining.cloned() {
            Some(draining) => {
                pass.wake_at(draining.until);
                keep_warm(pass, seen, &draining);
            }
            None if seen.replicas > 0 => pass.after.extend(resize(seen, 0)),
            None => {}
        }
    }
    let now = pass.now;
    pass.status.draining.retain(|entry| entry.until > now);
}

/// What is kept for an undo has as many pods as are to serve then: those that the way to the promotion took from it are
/// brought up again, once no request comes to them.
fn keep_warm(pass: &mut Pass<'_>, seen: &Revision, draining: &Draining) {
    let alone = pass.stable_hash().is_some_and(|stable| {
        let traffics = pass.traffics();
        traffics.selection() == Selection::Revision(stable.to_owned()) && traffics.only(stable)
    });
    if draining.kept_from.is_some() && alone && !is_latched(pass, &seen.hash) && seen.replicas < pass.replicas() {
        pass.after.extend(resize(seen, pass.replicas()));
    }
}

/// Deletes ReplicaSets beyond revisionHistoryLimit, oldest first (INVARIANTS R4).
fn forget_old_revisions(pass: &mut Pass<'_>) {
    let limit = usize::try_from(pass.release.spec.revision_history_limit).unwrap_or(0);
    let kept: Vec<&str> = [&pass.status.stable, &pass.status.previous]
        .into_iter()
        .flatten()
        .map(|entry| entry.revision.as_str())
        .chain(pass.target.as_ref().map(|target| target.hash.as_str()))
        .chain(pass.status.draining.iter().map(|entry| entry.revision.as_str()))
        .collect();
    let previous =
        usize::from(pass.status.previous.as_ref().is_some_and(|entry| pass.revision(&entry.revision).is_some()));
    let idle = |seen: &&Revision| !seen.deleting && seen.replicas == 0 && seen.pods_total == 0;
    let mut old: Vec<&Revision> =
        pass.seen.revisions.iter().filter(idle).filter(|seen| !kept.contains(&seen.hash.as_str())).collect();
    old.sort_by_key(|seen| (std::cmp::Reverse(seen.created), seen.hash.clone()));
    for seen in old.into_iter().skip(limit.saturating_sub(previous)) {
        pass.after.push(Effect::DeleteReplicaSet { object: seen.object.clone() });
    }
    let seen = pass.seen;
    let stable = pass.stable_hash().map(str::to_owned);
    pass.status.history.retain(|known| {
        Some(&known.revision) == stable.as_ref()
            || seen.revisions.iter().any(|revision| revision.hash == known.revision)
    });
    if pass.status.previous.as_ref().is_some_and(|entry| pass.revision(&entry.revision).is_none()) {
        pass.status.previous = None;
    }
}

/// Deletes pinned plans beyond the history, but for those of revisions that are still there.
fn forget_old_plans(pass: &mut Pass<'_>) {
    let limit = i64::from(pass.release.spec.revision_history_limit.max(0));
    let last = pass.status.release.as_ref().map_or(0, |release| release.number);
    let needed = |number: i64| {
        number >= last - limit
            || [&pass.status.stable, &pass.status.previous].into_iter().flatten().any(|entry| entry.release == number)
            || pass.status.history.iter().any(|known| known.release == number)
    };
    let old: Vec<i64> = pass.seen.plan_numbers.iter().copied().filter(|number| !needed(*number)).collect();
    pass.after.extend(old.into_iter().map(|number| Effect::DeletePlan { number }));
}
