//! What lies on the way back to stable: a maintenance page to be behind, a quota that keeps stable's pods from
//! coming.

use super::{
    contest,
    effect::Selection,
    observed::Revision,
    pass::Pass,
    plan::{Policy, Shift},
    ratio, retreat, route, trouble,
};

/// Whether both revisions may serve behind one Service on the way back: by ratio they always do. Otherwise only
/// where stable is not allowed all its pods, and would never take all at once.
pub fn shares_pods(pass: &Pass<'_>, policy: &Policy, stable: &Revision) -> bool {
    match policy.shift {
        Shift::Ratio { .. } => true,
        Shift::Switch | Shift::Route { .. } => {
            stable.failure.is_some() && !policy.has_maintenance() && pass.desired_weight() == 0
        }
    }
}

/// Whether all requests go to the maintenance Service while the Service is switched back: with maintenance, two
/// versions never serve at once.
pub fn goes_behind_page(pass: &Pass<'_>, policy: &Policy) -> bool {
    let Some(stable) = pass.stable().filter(|_| policy.has_maintenance() && pass.candidate_hash().is_some()) else {
        return false;
    };
    let traffics = pass.traffics();
    let back = traffics.selection() == Selection::Revision(stable.hash.clone())
        && (traffics.serving(stable) > 0 || retreat::candidate_untouched(pass))
        && traffics.only(&stable.hash);
    let is_on = pass.status.route.as_ref().is_some_and(|route| route.maintenance);
    !back && (is_on || stable.warm() >= policy.bounds(pass.replicas()).enough())
}

/// Sends all requests to the maintenance Service, if that is meant, and says whether the Service may be switched:
/// the gateway follows, or did not in the time that the release gives it.
pub fn is_behind_page(pass: &mut Pass<'_>, policy: &Policy) -> bool {
    if !goes_behind_page(pass, policy) {
        return true;
    }
    let weight = route::weight(pass).unwrap_or(0);
    let effect = route::set(pass, weight);
    pass.after.splice(0..0, effect);
    let started = pass.status.rollback.as_ref().map(|rollback| rollback.started_at);
    route::settled(pass, weight) || started.is_none_or(|started| pass.elapsed(started, policy.deadline))
}

/// Pods that the candidate keeps where revisions stand whole beside each other: all, until its traffic is gone.
/// Where stable is not allowed any more pods, those that the rest of its traffic does not need make room.
pub fn kept(pass: &mut Pass<'_>, policy: &Policy) -> i32 {
    let Some(candidate) = pass.candidate() else { return 0 };
    let (all, replicas) = (candidate.replicas, pass.replicas());
    let Some(stable) = pass.stable().filter(|stable| stable.failure.is_some() && candidate.observed) else {
        return all;
    };
    let traffics = pass.traffics();
    if traffics.selection() == Selection::Release {
        return all.min((replicas - traffics.serving(stable)).max(1));
    }
    match route::weight(pass).filter(|weight| policy.is_routed() && *weight > 0 && !contest::is_on(pass)) {
        Some(weight) if route::settled(pass, weight) => all.min(ratio::beside(replicas, weight)),
        _ => all,
    }
}

/// Whether a Service has pods of the candidate.
pub fn is_reached(pass: &Pass<'_>) -> bool {
    let traffics = pass.traffics();
    pass.candidate().is_some_and(|seen| traffics.endpoints(seen) + traffics.candidate_endpoints(seen) > 0)
}

/// Whether stable has its pods and the Service: who keeps requests from it is a gateway, or whoever sets the weights.
pub fn waits_for_route(pass: &Pass<'_>, policy: &Policy) -> bool {
    let traffics = pass.traffics();
    let has_all = |stable: &Revision| {
        traffics.selection() == Selection::Revision(stable.hash.clone())
            && traffics.serving(stable) >= policy.bounds(pass.replicas()).enough()
    };
    policy.is_routed() && pass.stable().is_some_and(has_all)
}

/// Stable, and what its pods or their quota have against it, while it cannot take back all traffic.
pub fn held_up<'a>(pass: &'a Pass<'_>) -> Option<(&'a str, String)> {
    let stable = pass.stable().filter(|stable| stable.warm() < pass.bounds().enough())?;
    let since = pass.status.rollback.as_ref()?.started_at;
    let look = trouble::Look { since, now: pass.now, counts_restarts: true };
    let trouble = trouble::find(stable, None, look).map(|problem| trouble::describe(&problem));
    Some((pass.stable_hash()?, stable.failure.clone().or(trouble)?))
}
