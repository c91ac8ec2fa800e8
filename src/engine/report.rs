//! Puts the decision into words: phase, reason, message, nextAction, conditions, Events.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, apimachinery::pkg::apis::meta::v1::Time, jiff};

use crate::api::{Moment, Phase, RollbackCause, StepStatus, Strategy, WeightShare, Weights, conditions};

use super::{
    analysis, database,
    effect::{Event, Selection},
    forward,
    hand_back::{self, Waiting},
    pass::Pass,
    plan::Step,
    reach,
    resting::{self, resting},
    retreat, route, trouble, unroutable, way_back,
};

/// What is told of a pass.
pub struct Report {
    phase: Phase,
    reason: String,
    message: String,
    next_action: String,
}

impl Report {
    pub fn new(phase: Phase, reason: &str, message: String) -> Self {
        Self { phase, reason: reason.to_owned(), message, next_action: String::new() }
    }

    pub fn next(self, action: String) -> Self {
        Self { next_action: action, ..self }
    }

    /// For another reason.
    pub fn because(self, reason: &str) -> Self {
        Self { reason: reason.to_owned(), ..self }
    }

    /// Tells of something else, too.
    pub fn append(&mut self, message: &str, action: &str) {
        for (text, more) in [(&mut self.message, message), (&mut self.next_action, action)] {
            if !text.is_empty() && !more.is_empty() {
                text.push_str("; ");
            }
            text.push_str(more);
        }
    }

    /// Tells of something else, which is to be done first.
    pub fn put_first(&mut self, message: &str, action: &str) {
        self.append(message, "");
        if !action.is_empty() {
            let then = if self.next_action.is_empty() { "" } else { "; then " };
            self.next_action = format!("{action}{then}{}", self.next_action);
        }
    }
}

/// Completes the status of a pass.
pub fn compose(pass: &mut Pass<'_>) {
    pass.refresh_counts();
    let routed = pass.policy().is_routed() && route::router(pass).is_some();
    let observed = match routed {
        true => {
            let candidate = route::observed(pass);
            let stable = if pass.status.stable.is_some() { 100 - candidate } else { 0 };
            WeightShare { stable, candidate }
        }
        false => pass.traffics().observed(pass.stable(), pass.candidate()),
    };
    let Weights { desired, reached_at, .. } = pass.status.weights.unwrap_or_default();
    let reached_at = reached_at.filter(|_| pass.status.candidate.is_some());
    pass.status.weights = Some(Weights { desired, observed, reached_at });
    scale_status(pass);
    let report = find(pass);
    apply(pass, report);
}

/// The same while the object is being deleted.
pub fn compose_hand_back(pass: &mut Pass<'_>, waiting: &Waiting) {
    pass.refresh_counts();
    let phase = pass.status.phase;
    let kubectl = kubectl(pass);
    let report = match waiting {
        Waiting::ForWorkload(name) => Report::new(phase, "HandingBack", format!("waiting for Deployment {name}: its own pods must be available before this release's pods go"))
            .next(format!("{kubectl} rollout status deployment {name}; if its template is broken: {kubectl} rollout undo deployment {name}")),
        Waiting::ForTemplate(name) => Report::new(phase, "HandingBack", format!("Deployment {name} has the template that was rolled back: its pods do not take over; what is stable serves on"))
            .next(format!("{kubectl} rollout undo deployment {name}, or give it another template")),
        Waiting::ForEndpoints => Report::new(phase, "HandingBack", "waiting for the Service to reach the pods that stay".into()),
        Waiting::ForMigration(job) => Report::new(phase, "HandingBack", format!("waiting for the migration's Job {job}: what becomes of the database must be known before this object goes"))
            .next(format!("{kubectl} logs job/{job} --all-containers")),
        Waiting::ForCleanUp(job) => Report::new(phase, "HandingBack", database::clean_up::words(job))
            .next(format!("{kubectl} logs job/{job} --all-containers; it goes on by itself")),
        Waiting::ForPods => Report::new(phase, "HandingBack", "the release's own pods are going".into()),
        Waiting::Done => match database::undo::left_closed(pass) {
            // Nobody looks after it any more (INVARIANTS D5).
            Some((what, command)) => {
                let message = format!("all else that was borrowed is given back, but maintenance mode, {what}");
                Report::new(phase, "MaintenanceStaysOn", message).next(format!("once the schema fits: {command}"))
            }
            None => Report::new(phase, "HandedBack", "everything that was borrowed is given back".into()),
        },
    };
    let report = match waiting {
        Waiting::ForMigration(_) | Waiting::ForCleanUp(_) => database::report::with_lacking(pass, report),
        _ => report,
    };
    apply(pass, report);
}

fn apply(pass: &mut Pass<'_>, mut report: Report) {
    if let Some(refusal) = &pass.seen.refusal {
        report.message = format!("{}; refused by the API server: {}", report.message, refusal.text);
        if report.next_action.is_empty() {
            let remedy =
                if refusal.definite { "correct what it names" } else { "allow it (role, quota or admission policy)" };
            report.next_action = format!("{remedy}; it is tried again every minute");
        }
    }
    // It stays as it is, and the message says so (INVARIANTS D5).
    if report.phase == Phase::Halted && database::switches::is_closed(pass) {
        report.message.push_str("; maintenance mode stays on");
    }
    if pass.status.route.as_ref().is_some_and(|route| route.maintenance)
        && let Some(page) = pass.traffic_spec().and_then(|traffic| traffic.maintenance.as_ref())
    {
        report.message = format!("{}; maintenance: all requests go to Service {}", report.message, page.service);
    }
    let generation = pass.release.metadata.generation.unwrap_or_default();
    let was = pass.release.status.clone().unwrap_or_default();
    pass.status.observed_generation = generation;
    if was.phase != report.phase || was.reason != report.reason {
        pass.events.push(Event {
            warning: matches!(report.phase, Phase::RollingBack | Phase::RolledBack | Phase::Halted | Phase::Invalid)
                || pass.status.hold.is_some()
                || matches!(report.reason.as_str(), "WorkloadContested" | "Unproven" | "MaintenanceStaysOn"),
            reason: if report.reason.is_empty() { format!("{:?}", report.phase) } else { report.reason.clone() },
            action: format!("{:?}", report.phase),
            note: report.message.clone(),
        });
    }
    pass.status.phase = report.phase;
    pass.status.reason = crate::api::status::bounded(&report.reason, 64);
    pass.status.message = crate::api::status::bounded(&report.message, 1024);
    pass.status.next_action = crate::api::status::bounded(&report.next_action, 1024);
    set_conditions(pass, generation);
}

fn find(pass: &mut Pass<'_>) -> Report {
    if retreat::under_way(pass) {
        return rolling_back(pass);
    }
    if let Some(obstacle) = &pass.obstacle {
        // Taken away from under a release: nothing is known of who gets the requests.
        let lost = obstacle.reason == "RouteNotFound" && pass.status.candidate.is_some();
        let phase = if lost { Phase::Halted } else { Phase::Invalid };
        let mut report = Report::new(phase, obstacle.reason, obstacle.message.clone()).next(obstacle.remedy.clone());
        // It is observed all the same.
        if let Some(failure) = pass.status.observation.as_ref().and_then(|state| state.failure.as_ref()) {
            report.message.push_str(&format!("; of what serves, {failure}"));
        }
        return if pass.is_under_way() { report } else { database::report::with_left_behind(pass, report) };
    }
    if !pass.is_under_way() {
        return database::report::with_left_behind(pass, resting(pass));
    }
    let mut report = progressing(pass);
    if pass.policy() != pass.next_policy() {
        report.message.push_str("; the strategy was edited meanwhile, which counts from the next release on");
    }
    report
}

fn rolling_back(pass: &Pass<'_>) -> Report {
    let Some(rollback) = &pass.status.rollback else { return resting(pass) };
    let revision = &rollback.revision;
    if let Some(contested) = unroutable::contested(pass) {
        let message = format!("{revision} is to be taken back ({}), but {}", rollback.message, contested.message);
        return Report::new(Phase::Halted, contested.reason, message).next(contested.remedy);
    }
    // Whatever stable has, traffic waits for something else.
    if let Some(report) = pass.held.then(|| database::report::way_back(pass, rollback)).flatten() {
        return report;
    }
    if retreat::stuck(pass) {
        let stable = pass.stable_hash().unwrap_or_default();
        let available = pass.stable().map_or(0, super::observed::Revision::warm);
        let message = format!(
            "{revision} is to be taken back ({}), but stable {stable} has only {available} of {} pods available; traffic stays where it is safe",
            rollback.message,
            pass.replicas(),
        );
        let next =
            format!("look at the pods of {stable} ({}), or apply a template that fixes it", pods_of(pass, stable));
        return Report::new(Phase::Halted, "StableUnavailable", message).next(next);
    }
    if let Some(refused) = retreat::unrouted(pass) {
        let message = format!(
            "{revision} is to be taken back ({}), and its weight is 0, but requests may still go by what was accepted before: {refused}",
            rollback.message
        );
        return Report::new(Phase::Halted, "RouteNotAccepted", message).next(look_at_route(pass));
    }
    if let Some(report) = database::report::way_back(pass, rollback) {
        return report;
    }
    match (rollback.cause, rollback.drain_until) {
        _ if pass.is_alone() => Report::new(
            Phase::RollingBack,
            &rollback.reason,
            format!("{}; the release is taken back", rollback.message),
        ),
        (RollbackCause::Superseded, _) => {
            Report::new(Phase::Progressing, "Superseded", format!("{}; {revision} goes first", rollback.message))
        }
        (_, Some(until)) if until > pass.now => {
            let message =
                format!("{}; all traffic is on stable, pods of {revision} drain until {until}", rollback.message);
            Report::new(Phase::RollingBack, &rollback.reason, message)
        }
        _ => going_back(pass, &rollback.reason, &rollback.message, revision),
    }
}

/// Traffic goes back, as far as stable takes it.
fn going_back(pass: &Pass<'_>, reason: &str, why: &str, revision: &str) -> Report {
    let message = format!("{why}; traffic of {revision} goes back");
    let Some((stable, held)) = way_back::held_up(pass) else { return Report::new(Phase::RollingBack, reason, message) };
    let rest = pass.status.weights.map_or(0, |weights| weights.observed.candidate);
    let message = format!("{message}; {stable} cannot take all of it yet, {rest}% is left: {held}");
    let next = format!(
        "see to it that {stable} gets its pods ({} describe replicaset -l servicerelease.io/revision={stable}); it goes on by itself",
        kubectl(pass)
    );
    Report::new(Phase::RollingBack, reason, message).next(next)
}

fn name<'a>(pass: &Pass<'a>) -> &'a str {
    pass.release.metadata.name.as_deref().unwrap_or_default()
}

pub fn kubectl(pass: &Pass<'_>) -> String {
    format!("kubectl -n {}", pass.release.metadata.namespace.as_deref().unwrap_or("default"))
}

/// The plugin's command line for a person.
pub fn command(pass: &Pass<'_>, words: &str) -> String {
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or("default");
    format!("kubectl srel -n {namespace} {words} {}", name(pass))
}

/// The command that shows a revision's pods.
pub fn pods_of(pass: &Pass<'_>, revision: &str) -> String {
    format!("{} get pods -l servicerelease.io/revision={revision}", kubectl(pass))
}

/// What a person can do about a route that is not accepted.
pub fn look_at_route(pass: &Pass<'_>) -> String {
    let kind = pass.seen.route.as_ref().map_or("httproute".to_owned(), |route| route.shape.kind.to_lowercase());
    let name = route::name(pass).unwrap_or_default();
    let own = route::router(pass).is_some_and(|router| router.gateway.is_some());
    let field = if own { "put spec.traffic.router.gateway.parentRefs right, or " } else { "" };
    format!("{field}look at the route and its gateway ({} describe {kind} {name}); it goes on by itself", kubectl(pass))
}

/// The candidate's share, with what was seen of it where that is something else.
fn at_weight(pass: &Pass<'_>) -> String {
    let weights = pass.status.weights.unwrap_or_default();
    let (desired, observed) = (weights.desired.candidate, weights.observed.candidate);
    match desired == observed {
        true => format!("{desired}%"),
        false => format!("{desired}% ({observed}% observed)"),
    }
}

fn progressing(pass: &mut Pass<'_>) -> Report {
    let policy = pass.policy();
    let step = forward::current(pass, &policy);
    let Some(state) = pass.status.step.clone() else { return Report::new(Phase::Progressing, "", String::new()) };
    let place = format!("step {} of {}", state.index, state.of);
    if let Some(hold) = &pass.status.hold {
        // The database's steps are passed over by nobody.
        let mend = database::remedy::held(pass, &hold.reason).filter(|_| matches!(step, Step::Database(_)));
        let ways = || ["retry", "skip", "promote", "abort"].map(|words| command(pass, words)).join(" | ");
        let next = mend.unwrap_or_else(ways);
        return Report::new(Phase::Paused, &hold.reason, format!("{place}: {}", hold.message)).next(next);
    }
    if pass.release.spec.paused {
        return Report::new(Phase::Paused, "SpecPaused", format!("{place}: held by spec.paused"))
            .next("set spec.paused to false".into());
    }
    if let Some(suspended) = &pass.status.suspended {
        let why = if suspended.reason.is_empty() { String::new() } else { format!(": {}", suspended.reason) };
        return Report::new(Phase::Paused, "PausedByCommand", format!("{place}: paused by {}{why}", suspended.by))
            .next(command(pass, "resume"));
    }
    let trouble = pass.status.candidate.as_ref().and_then(|entry| entry.problem.as_ref());
    let failure = || pass.candidate().and_then(|candidate| candidate.failure.clone());
    let exposed = pass.desired_weight() > 0;
    let bare = || pass.candidate().filter(|candidate| exposed && candidate.ready == 0).and_then(trouble::unready);
    let trouble = trouble.map(trouble::describe).or_else(failure).or_else(bare);
    let trouble = trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default();
    if let Some((reason, why)) = pass.unproven.clone() {
        return unproven(pass, reason, &why, &place_of(&place, &state), &trouble);
    }
    let refusal = route::refused(pass).filter(|_| policy.is_routed());
    let trouble = refusal.iter().fold(trouble, |all, refusal| format!("{all}; {}", refusal.text));
    let empty = route::without_pods(pass, pass.desired_weight()).filter(|_| policy.is_routed());
    let trouble = empty.iter().fold(trouble, |all, service| format!("{all}; Service {service} shows no ready pod"));
    let renews = step == Step::Maintenance && database::renewal::is_under_way(pass);
    if renews || matches!(step, Step::Database(_) | Step::MigrationApproval) {
        return database::report::forward(pass, &step, &place);
    }
    if let Step::Approval | Step::Pause(_) = step {
        let trouble = analysis::doubt(pass, None).iter().fold(trouble, |all, doubt| format!("{all}; {doubt}"));
        return waiting(pass, &step, &state, &place, &trouble);
    }
    let report = moving(pass, &step, &place, &trouble);
    match refusal {
        // It fails the release only at the deadline: until then a person can do something about it.
        Some(refusal) if refusal.definite => {
            Report { reason: "RouteNotAccepted".to_owned(), ..report }.next(look_at_route(pass))
        }
        _ => report,
    }
}

/// The place of a step that a person has passed, and that stays all the same.
fn place_of(place: &str, state: &StepStatus) -> String {
    let by = state.passed_by.as_ref().map(|by| format!(", passed by {by}"));
    format!("{place}{}", by.unwrap_or_default())
}

/// A step that is done and waits for evidence.
fn unproven(pass: &Pass<'_>, reason: &'static str, why: &str, place: &str, trouble: &str) -> Report {
    let candidate = pass.candidate_hash().unwrap_or_default();
    let outlook = analysis::outlook(pass);
    let message = format!("{place}: {candidate} stays at {}: {why}{outlook}{trouble}", at_weight(pass));
    if reason == "Analyzing" {
        return Report::new(Phase::Progressing, reason, message);
    }
    let [skip, abort, retry] = ["skip", "abort", "retry"].map(|words| command(pass, words));
    let next = match analysis::is_refused(pass) {
        // The release has the metric with which it began.
        true => format!("correct the metric, then {abort} and {retry}, which takes the corrected one over; or {skip}"),
        false if reach::lack(pass).is_some() => {
            format!("it goes on by itself when the provider answers; or {skip} | {abort}")
        }
        false => format!("it goes on by itself when the verdict is Pass; or {skip} | {abort}"),
    };
    Report::new(Phase::Paused, reason, message).next(next)
}

/// A step that waits for time or a person.
fn waiting(pass: &Pass<'_>, step: &Step, state: &StepStatus, place: &str, trouble: &str) -> Report {
    let candidate = pass.candidate_hash().unwrap_or_default();
    let weight = at_weight(pass);
    match step {
        Step::Pause(Some(duration)) => {
            let until = state.started_at.plus(*duration);
            let message = format!("{place}: {candidate} stays at {weight} until {until}{trouble}");
            Report::new(Phase::Progressing, "PauseStep", message)
        }
        Step::Pause(None) => {
            let message = format!("{place}: {candidate} at {weight} waits for promote or resume{trouble}");
            Report::new(Phase::Paused, "PauseStep", message)
                .next(["promote", "abort"].map(|words| command(pass, words)).join(" | "))
        }
        _ => {
            let message = format!("{place}: {candidate} at {weight} waits for approval{trouble}");
            Report::new(Phase::AwaitingApproval, "AwaitingApproval", message).next(command(pass, "approve"))
        }
    }
}

/// A step that waits for pods or traffic.
fn moving(pass: &Pass<'_>, step: &Step, place: &str, trouble: &str) -> Report {
    let candidate = pass.candidate_hash().unwrap_or_default();
    let (reason, what) = match step {
        Step::SetWeight(weight) => ("SettingWeight", format!("{weight}% to {candidate}")),
        Step::SetHeaderRoute(headers) if headers.is_empty() => {
            ("SettingRoute", format!("no header leads to {candidate} any more"))
        }
        Step::SetHeaderRoute(headers) => {
            let headers = headers.iter().map(|it| format!("{}: {}", it.name, it.value)).collect::<Vec<_>>().join(", ");
            ("SettingRoute", format!("requests with {} to {candidate}", crate::api::status::bounded(&headers, 200)))
        }
        Step::SetMirrorRoute(percent) => {
            ("SettingRoute", format!("copies of {percent}% of the requests to {candidate}"))
        }
        Step::Check { when, names } => {
            let what = super::checks::describe(pass, names);
            let phase = match when {
                Moment::Preflight => Phase::Preflight,
                Moment::AfterBackup => Phase::Database,
                _ => Phase::Progressing,
            };
            return Report::new(phase, "Checking", format!("{place}: {what}{trouble}")).next(super::checks::next(pass));
        }
        Step::Scale(_) => ("Scaling", format!("the pods of {candidate}")),
        Step::Maintenance if candidate.is_empty() => ("EnteringMaintenance", "maintenance mode is put on".to_owned()),
        // A key is for the application to go by; where requests go it does not say.
        Step::Maintenance if !pass.policy().is_routed() => {
            ("EnteringMaintenance", format!("maintenance mode is put on, until {candidate} serves"))
        }
        Step::Maintenance => ("EnteringMaintenance", format!("no request to either, until all are {candidate}'s")),
        Step::Promote => {
            let message = format!("{place}: all traffic to {candidate}{trouble}");
            return Report::new(Phase::Promoting, "Promoting", message);
        }
        _ => {
            let own = adopted_pods(pass).map(|(name, _)| format!("; Deployment {name}'s own pods serve meanwhile"));
            ("Preparing", format!("bringing up {candidate}{}", own.unwrap_or_default()))
        }
    };
    Report::new(Phase::Progressing, reason, format!("{place}: {what}{trouble}"))
}

/// Before anything of the release serves: the adopted Deployment and how many of its own pods do.
fn adopted_pods<'a>(pass: &Pass<'a>) -> Option<(&'a str, i32)> {
    let untouched = pass.status.stable.is_none() && pass.traffics().selection() == Selection::Original;
    let workload = pass.seen.workload.as_ref().filter(|workload| untouched && workload.available > 0)?;
    Some((&workload.object.name, workload.available))
}

/// Pods that take traffic, of whatever revision.
fn serving(pass: &Pass<'_>) -> i32 {
    let traffics = pass.traffics();
    pass.seen.revisions.iter().filter(|seen| !seen.deleting).map(|seen| traffics.serving(seen)).sum()
}

/// What /scale shows: all pods in a canary, those of the serving colour in blueGreen.
fn scale_status(pass: &mut Pass<'_>) {
    let name = name(pass);
    let mut labels = pass.traffics().match_labels();
    labels.insert(crate::api::LABEL_RELEASE.to_owned(), name.to_owned());
    let switches = matches!(&pass.release.spec.strategy, Some(Strategy { blue_green: Some(_), .. }));
    let colour = match pass.traffics().selection() {
        Selection::Revision(hash) => Some(hash),
        _ => pass.stable_hash().map(str::to_owned),
    };
    let all: i32 = pass.seen.revisions.iter().map(|seen| seen.pods_total).sum();
    pass.status.replicas = match colour.filter(|_| switches) {
        Some(hash) => {
            let pods = pass.revision(&hash).map_or(0, |seen| seen.pods_total);
            labels.insert(crate::api::LABEL_REVISION.to_owned(), hash);
            pods
        }
        None => all,
    };
    pass.status.selector = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
}

fn set_conditions(pass: &mut Pass<'_>, generation: i64) {
    let status = &pass.status;
    let bounds = pass.bounds();
    let word = |word: &str| if status.reason.is_empty() { word.to_owned() } else { status.reason.clone() };
    let kind = match status.phase {
        Phase::Observing if resting::failed_since(pass) => conditions::State::Stalled,
        // It serves as the spec wants it: a day of observation holds up nobody who waits for that.
        Phase::Healthy | Phase::Observing
            if pass.release.metadata.deletion_timestamp.is_none() && resting::lack(pass).is_none() =>
        {
            conditions::State::Ready
        }
        Phase::RolledBack | Phase::Halted | Phase::Invalid if pass.release.metadata.deletion_timestamp.is_none() => {
            conditions::State::Stalled
        }
        // Only a person can bring this deletion to its end.
        _ if hand_back::waits_for_person(pass) => conditions::State::Stalled,
        _ => conditions::State::Reconciling,
    };
    let reason = word(&format!("{:?}", status.phase));
    let mut wanted = conditions::of(kind, &reason, &status.message);
    // Whoever serves counts: in a canary the candidate's pods are part of the capacity.
    let serving = serving(pass);
    let own = adopted_pods(pass);
    let enough = match own {
        Some((_, available)) => available >= bounds.enough(),
        None => status.stable.is_some() && serving >= bounds.enough(),
    };
    let cut_off = route::is_cut_off(pass) && own.is_none();
    let (enough, lack) = if cut_off { (false, "RouteNotAccepted") } else { (enough, "TooFewPods") };
    let note = match own {
        None if cut_off => "no Gateway has accepted the route: no request comes by it".to_owned(),
        Some((name, available)) => format!("{available} pods of Deployment {name} take traffic"),
        None => format!("{serving} of {} pods take traffic", bounds.replicas),
    };
    wanted.push(("Available", enough.into(), if enough { "EnoughPods" } else { lack }.to_owned(), note));
    let database = database::report::condition(pass);
    wanted.extend(database.map(|(value, reason, note)| ("DatabaseReady", value, reason.to_owned(), note)));
    let analysis = analysis::condition(pass);
    wanted.extend(analysis.map(|(value, reason, note)| ("AnalysisPassed", value, reason.to_owned(), note)));
    let now = Time(
        jiff::Timestamp::from_second(pass.now.as_millis().div_euclid(1000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
    );
    let known = std::mem::take(&mut pass.status.conditions);
    pass.status.conditions = wanted
        .into_iter()
        .map(|(name, value, reason, message)| {
            let before = known.iter().find(|condition| condition.type_ == name && condition.status == value.as_str());
            Condition {
                type_: name.to_owned(),
                status: value.as_str().to_owned(),
                reason,
                message,
                observed_generation: Some(generation),
                last_transition_time: before
                    .map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone()),
            }
        })
        .collect();
}
