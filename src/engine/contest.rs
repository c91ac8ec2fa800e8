//! Somebody else who sets the weights of a route, too: put right, told, and never fought. Whoever sets them back
//! at once is left to it, and requests find stable's pods all the same.

use crate::api::{RouteStatus, status::bounded};

use super::{
    effect::{Effect, Event, Selection},
    observed::{Route, Service},
    pass::Pass,
    route, rules, traffic,
};

/// How often in one release the weights are put right against somebody who only updates them.
const MOST_PUT_RIGHT: i64 = 3;
/// The same against somebody who applies them: a GitOps tool that heals does so again and again.
const MOST_PUT_RIGHT_IF_APPLIED: i64 = 1;

/// What is left of that count when a person has seen it: that requests went astray, which a gateway has to be given time for.
const REMEMBERED: i64 = 1;

/// Takes in who else set the weights since `known` was recorded, into `now`.
pub fn judge(pass: &mut Pass<'_>, route: &Route, known: &RouteStatus, now: &mut RouteStatus) {
    // Whoever changes the spec has seen what was wrong.
    let generation = pass.release.metadata.generation;
    if generation.is_some_and(|generation| generation > pass.status.observed_generation) {
        now.contested_by = None;
        now.put_right = now.put_right.min(REMEMBERED);
    }
    let other = known.name != now.name || known.generation != now.generation;
    let Some((manager, applies)) = route.changed_by.as_ref().filter(|_| known.generation > 0 && other) else { return };
    let desired = pass.desired_weight();
    let (differs, wrong) = (now.weight != known.weight, !is_meant(pass));
    // Also what was put right and set back since the last pass, so that it looks as it was.
    if !differs && !wrong {
        return;
    }
    now.put_right += 1;
    let most = match applies {
        // Weights of its own, while a release has others: they stand in Git.
        true if differs && desired > 0 => 0,
        true => MOST_PUT_RIGHT_IF_APPLIED,
        false => MOST_PUT_RIGHT,
    };
    if now.put_right > most {
        now.contested_by = Some(bounded(manager, 253));
    }
    if differs {
        let shown = now.weight.map_or_else(|| "different ones".to_owned(), |weight| format!("{weight}%"));
        tell(pass, route, &format!("field manager {manager} set the candidate's weight in"), &format!("to {shown}"));
    } else if route.ours && now.weight == Some(meant(pass)) {
        tell(pass, route, &format!("field manager {manager} changed"), "beside its weights; it is put back");
    }
}

fn tell(pass: &mut Pass<'_>, route: &Route, who: &str, what: &str) {
    let (kind, name) = (&route.shape.kind, &route.object.name);
    pass.events.push(Event {
        warning: true,
        reason: "RouteChanged".into(),
        action: "Routing".into(),
        note: format!("{who} {kind} {name} {what}"),
    });
}

/// The field manager that does not leave the weights alone.
fn contested_by<'a>(pass: &'a Pass<'_>) -> Option<&'a str> {
    pass.status.route.as_ref()?.contested_by.as_deref()
}

/// Whether nothing is written to the route, since somebody else sets it back.
pub fn is_on(pass: &Pass<'_>) -> bool {
    contested_by(pass).is_some()
}

/// Percent of the requests that candidateService is meant to get.
fn meant(pass: &Pass<'_>) -> i32 {
    let candidate = pass.candidate_hash().map(|hash| Selection::Revision(hash.to_owned()));
    // Once the Service has the candidate's pods, the other one is to get nothing.
    if candidate == Some(pass.traffics().selection()) { 0 } else { pass.desired_weight() }
}

/// The field manager that does not leave the weights alone, while they are not those that are meant.
pub fn by<'a>(pass: &'a Pass<'_>) -> Option<&'a str> {
    contested_by(pass).filter(|_| !is_meant(pass))
}

/// Whether the route is as it is meant.
fn is_meant(pass: &Pass<'_>) -> bool {
    let weight = meant(pass);
    route::weight(pass) == Some(weight) && rules::are_meant(pass, weight)
}

/// A person, or a new release, tries again. Says whether there was anything to try.
pub fn forgive(pass: &mut Pass<'_>) -> bool {
    let Some(route) = &mut pass.status.route else { return false };
    route.put_right = route.put_right.min(REMEMBERED);
    route.contested_by.take().is_some()
}

/// Whether somebody else set the weights, and the gateway has not had its time since.
pub fn was_meddled_with(pass: &Pass<'_>) -> bool {
    let (Some(route), Some(router)) = (&pass.status.route, route::router(pass)) else { return false };
    let since = route.accepted_at.map(|at| at.plus(router.propagation_delay));
    route.put_right > 0 && since.is_none_or(|end| end > pass.now)
}

/// Whether a route that cannot be put right sends requests to the candidate's Service that are to be stable's.
pub fn misleads(pass: &Pass<'_>) -> bool {
    by(pass).is_some() && pass.desired_weight() == 0 && pass.status.stable.is_some()
}

/// Whether a route sends requests that are to be stable's to a candidate's Service that has no pods. It is put right, which
/// a gateway takes its time to follow.
pub fn finds_nobody(pass: &Pass<'_>) -> bool {
    let empty = |service: &Service| traffic::selection(service) == Selection::Nothing;
    let leads = pass.seen.route.is_some() && route::weight(pass) != Some(0) && route::unusable(pass).is_none();
    let meant = pass.desired_weight() == 0 && pass.status.stable.is_some();
    meant && leads && pass.seen.candidate_service.as_ref().is_none_or(empty)
}

/// Lets the candidate's Service have stable's pods, where these take all requests and the route is not, or cannot be, put
/// right: so nobody's manifest sends requests to no pod, or to a candidate that is to be taken back.
pub fn lead_to_stable(pass: &Pass<'_>) -> Option<Effect> {
    let stable = pass.stable().filter(|stable| pass.traffics().serving(stable) > 0)?;
    pass.traffics().select_candidate(&Selection::Revision(stable.hash.clone()), Some(&stable.template))
}
