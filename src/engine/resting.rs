//! What is told of a release at rest: what serves, or what it lacks to serve as it should.

use crate::api::{ObservationStatus, Phase, RollbackCause, Timestamp};

use super::{
    analysis, checks, database,
    effect::Selection,
    observation,
    observed::Revision,
    pass::Pass,
    report::{Report, command, kubectl, look_at_route, pods_of},
    rest::latched,
    route, trouble, unmeasured, workload_drained_at,
};

/// What is told of it.
pub fn resting(pass: &Pass<'_>) -> Report {
    let Some(target) = pass.target.as_ref() else { return Report::new(Phase::Pending, "", String::new()) };
    let failed = latched(pass, &target.hash).cloned();
    match (pass.stable_hash(), failed) {
        (Some(stable), None) if stable == target.hash => match database::alone::is_due(pass) {
            Some(migration) if pass.release.spec.paused => {
                let message = format!("migration {migration} waits: spec.paused is set; {stable} serves");
                Report::new(Phase::Paused, "SpecPaused", message).next("set spec.paused to false".into())
            }
            Some(_) => Report::new(Phase::Pending, "Starting", "the migration is about to be released".to_owned()),
            None => healthy(pass, stable),
        },
        (Some(stable), Some(failed)) if failed.migration_alone => {
            let message = format!("the migration was not carried out ({}); {stable} serves as before", failed.message);
            let next = database::remedy::at_rest(pass, &failed.reason)
                .unwrap_or_else(|| format!("apply a migration that fixes it, or {}", command(pass, "retry")));
            Report::new(Phase::RolledBack, &failed.reason, message).next(next)
        }
        (Some(stable), Some(failed)) => {
            let undone = pass.status.rollback.as_ref().filter(|rollback| rollback.revision != failed.revision);
            let undone = undone.map(|undone| format!("; {} was undone ({})", undone.revision, undone.message));
            let (serves, next) = serves(pass, stable, &failed.reason);
            let wrong = checks::wrong_after_rollback(pass);
            let look = wrong.as_ref().map(|_| format!("look at what serves: {}; then ", pods_of(pass, stable)));
            let next = format!("{}{next}", look.unwrap_or_default());
            let wrong = wrong.map(|wrong| format!("; {wrong}")).unwrap_or_default();
            let message = format!(
                "{} was rolled back ({}){}; {serves}{wrong}",
                failed.revision,
                failed.message,
                undone.unwrap_or_default()
            );
            Report::new(Phase::RolledBack, &failed.reason, message).next(next)
        }
        (None, Some(failed)) => {
            let workload = pass.seen.workload.as_ref().filter(|workload| workload.replicas > 0);
            let left = workload.map_or_else(
                || "there is nothing to go back to".to_owned(),
                |workload| format!("Deployment {}'s own pods serve as before", workload.object.name),
            );
            let message = format!("the first revision {} failed, {left}: {}", failed.revision, failed.message);
            Report::new(Phase::Halted, "FirstRevisionFailed", message).next(serves(pass, "", &failed.reason).1)
        }
        (_, None) if pass.release.spec.paused => held_back(pass, &target.hash),
        (_, None) => Report::new(Phase::Pending, "Starting", format!("{} is about to be released", target.hash)),
    }
}

/// What the spec wants does not begin, and what serves is watched until it does. What that failed with stays the first
/// thing to be told: it has all the requests.
fn held_back(pass: &Pass<'_>, target: &str) -> Report {
    let waits = format!("{target} waits: spec.paused is set");
    let go_on = "set spec.paused to false";
    let mut report = Report::new(Phase::Paused, "SpecPaused", waits.clone()).next(go_on.to_owned());
    let undone = pass.status.rollback.as_ref().filter(|rollback| rollback.cause != RollbackCause::Superseded);
    match (pass.stable_hash(), &pass.status.observation) {
        (Some(stable), Some(state)) if state.failure.is_some() => {
            report = observing(pass, stable, state);
            report.append(&waits, &format!("to release {target} over it: {go_on}"));
        }
        (Some(stable), Some(_)) => report.append(&format!("{stable} serves and is observed until it begins"), ""),
        (Some(stable), None) => {
            let undone = undone.map(|undone| format!("{} was taken back ({}); ", undone.revision, undone.message));
            report.append(&format!("{}{stable} serves", undone.unwrap_or_default()), "");
        }
        (None, _) => {}
    }
    report
}

/// Whether the revision that is left has the requests, and what a person can do about one that failed.
fn serves(pass: &Pass<'_>, stable: &str, reason: &str) -> (String, String) {
    let retry = command(pass, "retry");
    let fix = match reason {
        // What failed it may be what it was judged by, which starts no release.
        "CheckFailed" | "AnalysisFailed" | "AnalysisInconclusive" => {
            format!(
                "apply a template that fixes it: that starts a release; after a change of checks, analysis or database alone, {retry}"
            )
        }
        // Nothing of it is the template's.
        _ => database::remedy::at_rest(pass, reason)
            .unwrap_or_else(|| format!("apply a template that fixes it, or {retry}")),
    };
    let Some(refusal) = route::refused_for_good(pass).filter(|_| route::router(pass).is_some()) else {
        return (format!("{stable} serves"), fix);
    };
    let serves = match route::is_cut_off(pass) {
        true => format!("{stable} has its pods, but no request comes to it by the route: {}", refusal.text),
        false => format!(
            "{stable} serves by what was accepted before, but the route is not what the spec wants: {}",
            refusal.text
        ),
    };
    (serves, format!("{}, but for the release: then {retry}", look_at_route(pass)))
}

/// Whether a person has to decide what becomes of a release that is promoted.
pub fn failed_since(pass: &Pass<'_>) -> bool {
    pass.status.observation.as_ref().is_some_and(|state| state.failure.is_some())
}

fn observing(pass: &Pass<'_>, stable: &str, state: &ObservationStatus) -> Report {
    if let Some(failure) = &state.failure {
        let back = observation::good_before(pass);
        if let Some(why) = back.and_then(|back| database::undo::hinders(pass, back.release)) {
            let message = format!("{stable} serves all traffic, but {failure}; it is not taken back: {why}");
            let next = format!("{} | {}", command(pass, "retry"), database::words::commands(pass));
            return Report::new(Phase::Halted, "SchemaChanged", message).next(next);
        }
        let lack = lack(pass).map(|lack| format!("; {}", lack.text)).unwrap_or_default();
        let message = format!("{stable} serves all traffic, but {failure}{lack}");
        let ways = if observation::good_before(pass).is_some() { &["undo", "retry"][..] } else { &["retry"] };
        let next = ways.iter().map(|words| command(pass, words)).collect::<Vec<_>>().join(" | ");
        return Report::new(Phase::Observing, "ObservationFailed", message).next(next);
    }
    if pass.release.spec.paused {
        let seen = seen(pass, state);
        let message = format!(
            "{stable} serves all traffic and is observed until {}, and while spec.paused is set{seen}",
            state.until
        );
        return Report::new(Phase::Observing, "SpecPaused", message).next("set spec.paused to false".into());
    }
    if let Some(why) = &state.unproven {
        let (until, latest) = (state.until, observation::latest(&pass.policy(), state));
        let message = format!(
            "{stable} serves all traffic and was to be observed until {until}, but {why}; it goes on until that is so, at {latest} at the latest"
        );
        return Report::new(Phase::Observing, "Unproven", message).next(unproven(pass));
    }
    let message = format!("{stable} serves all traffic and is observed until {}{}", state.until, seen(pass, state));
    Report::new(Phase::Observing, "Observing", message)
}

/// What its metrics say that is not as it should be, or that they say nothing.
fn seen(pass: &Pass<'_>, state: &ObservationStatus) -> String {
    if let Some(doubt) = analysis::doubt(pass, Some(state.started_at)) {
        return format!("; {doubt}");
    }
    analysis::blind(&pass.policy()).to_owned()
}

/// What a person can do where metrics have shown nothing.
fn unproven(pass: &Pass<'_>) -> String {
    let look = match unmeasured::is_all(pass) && pass.status.observation.is_none() {
        true => "look at the release by other means",
        false => "see why that is so, and look at the release by other means",
    };
    let undo = observation::good_before(pass).map(|_| format!("; to take it back: {}", command(pass, "undo")));
    format!("{look}{}", undo.unwrap_or_default())
}

fn healthy(pass: &Pass<'_>, stable: &str) -> Report {
    let contested = pass
        .seen
        .workload
        .as_ref()
        .filter(|workload| workload.replicas > 0 && pass.status.workload.as_ref().is_some_and(|known| known.held));
    if let Some(workload) = contested {
        let name = &workload.object.name;
        let message = format!(
            "{stable} serves; Deployment {name} was scaled to {}, its own pods get no traffic",
            workload.replicas
        );
        let next = format!(
            "remove spec.replicas from the Deployment's manifest, then {} scale deployment {name} --replicas=0",
            kubectl(pass)
        );
        return Report::new(Phase::Healthy, "WorkloadContested", message).next(next);
    }
    // A person is waited for, whatever else it lacks.
    if let Some(state) = pass.status.observation.as_ref().filter(|state| state.failure.is_some()) {
        return observing(pass, stable, state);
    }
    if let Some(Lack { reason, text, next }) = lack(pass) {
        let phase = if pass.status.observation.is_some() { Phase::Observing } else { Phase::Healthy };
        return Report::new(phase, reason, format!("{stable} is what the spec wants; {text}")).next(next);
    }
    if let Some(state) = &pass.status.observation {
        return observing(pass, stable, state);
    }
    let release = pass.status.release.as_ref().filter(|release| release.revision == stable);
    if let Some(why) = release.and_then(|release| release.unproven.as_ref()) {
        let message = format!("{stable} serves all traffic; {why}");
        return Report::new(Phase::Healthy, "Unproven", message).next(unproven(pass));
    }
    let leaving = workload_drained_at(pass).filter(|at| *at > pass.now);
    let leaving = leaving.map(|at| format!("; the Deployment's own pods stay until {at}, so that connections end"));
    Report::new(Phase::Healthy, "", format!("{stable} serves all traffic{}", leaving.unwrap_or_default()))
}

/// What stable lacks to serve as it should.
pub struct Lack {
    reason: &'static str,
    text: String,
    next: String,
}

impl Lack {
    fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), next: String::new() }
    }
}

/// What stable lacks to serve as it should (INVARIANTS S2).
pub fn lack(pass: &Pass<'_>) -> Option<Lack> {
    let bounds = pass.bounds();
    let stable = pass.stable_hash().unwrap_or_default();
    let available = pass.stable().map_or(0, Revision::warm);
    if available < bounds.enough() {
        let look = trouble::Look { since: Timestamp::from_millis(0), now: pass.now, counts_restarts: true };
        let why = pass.stable().and_then(|stable| trouble::find(stable, None, look));
        let failure = || pass.stable().and_then(|stable| stable.failure.clone());
        // What is known of all of them together stands in the status only.
        let known = || pass.status.stable.as_ref()?.problem.as_ref().map(trouble::describe);
        let why = why.map(|problem| trouble::describe(&problem)).or_else(failure).or_else(known);
        let why = why.map(|why| format!("; {why}")).unwrap_or_default();
        let text = format!("{available} of {} pods are available{why}", bounds.replicas);
        return Some(Lack::new("PodsUnavailable", text));
    }
    let traffics = pass.traffics();
    let selected = !traffics.used() || traffics.selection() == Selection::Revision(stable.to_owned());
    if !selected {
        return Some(Lack::new("ServiceNotSwitched", "the Service does not select it yet"));
    }
    route::router(pass)?;
    if pass.status.route.as_ref().is_none_or(|route| route.weight != Some(0)) {
        return Some(Lack::new("RouteNotSet", "the route does not send all requests to it yet"));
    }
    let refusal = route::refused(pass)?;
    let next = if refusal.definite { look_at_route(pass) } else { String::new() };
    Some(Lack { next, ..Lack::new("RouteNotAccepted", refusal.text) })
}
