//! Steps that ask checks: which answers are due, and what they mean for the release.

use crate::api::{
    Check, CheckOutcome, CheckStatus, Duration, HttpCheck, Moment, OnFailure, Timestamp,
    evidence::MAX_CHECKS,
    status::{MAX_TEXT, bounded},
};

use super::{
    addresses::{addresses, request},
    effect::Event,
    forward::may_advance,
    inquiry::{Ask, HttpQuestion, Question, Reply},
    logs, observation,
    pass::Pass,
    plan::Policy,
    report::{command, kubectl},
    retreat, runs,
    steer::wanted,
};

/// How much longer than it may take an answer is waited for: that there was none is one, too.
const SLACK: Duration = Duration::from_secs(10);

/// Where in a release checks are asked.
#[derive(Clone, Copy)]
pub struct At {
    /// At which moment.
    pub when: Moment,
    /// The step, from 1; 0 after the steps.
    pub step: i32,
    /// What was answered before does not count.
    pub since: Timestamp,
}

/// A check that failed.
pub struct Failure {
    /// What becomes of the release.
    pub then: OnFailure,
    /// In a word for machines.
    pub reason: &'static str,
    /// What failed, with the evidence.
    pub message: String,
}

/// Asks what is to be asked, and takes in what was answered. Says whether all have passed.
///
/// # Errors
/// The first check that failed and is not to be ignored.
pub fn ask(pass: &mut Pass<'_>, policy: &Policy, at: At, names: &[String]) -> Result<bool, Failure> {
    let mut done = true;
    for name in names {
        let Some(check) = policy.checks.iter().find(|check| check.name == *name) else { continue };
        let Some(mut state) = begun(pass, check, at) else { return Ok(false) };
        skip(pass, check, at, &mut state);
        if state.outcome == CheckOutcome::Running {
            listen(pass, check, &mut state);
            without_room(pass, policy, check, &mut state);
            overdue(pass, policy, check, &mut state);
            if state.outcome == CheckOutcome::Running && may_ask(pass) {
                inquire(pass, check, &mut state);
            }
            ignore(check, &mut state);
        }
        let (outcome, message, then) = (state.outcome, state.message.clone(), logs::consequence(check, &state));
        record(pass, state);
        match (outcome, then) {
            (CheckOutcome::Running, _) => done = false,
            (CheckOutcome::Failed, then) if then != OnFailure::Ignore => {
                let message = format!("check {name} failed: {message}");
                return Err(Failure { then, reason: "CheckFailed", message });
            }
            _ => {}
        }
    }
    Ok(done)
}

/// Whether it is asked now. What is observed is also watched while spec.paused is set, and while the spec is one that cannot
/// be acted on: it is asked by the plan that was pinned.
fn may_ask(pass: &Pass<'_>) -> bool {
    match pass.status.observation {
        Some(_) => !pass.awaits_trial(),
        None => may_advance(pass),
    }
}

/// The check as it stands since this step began, or a new beginning.
fn begun(pass: &Pass<'_>, check: &Check, at: At) -> Option<CheckStatus> {
    let release = pass.status.release.as_ref()?.number;
    let last = pass.status.checks.iter().find(|known| known.name == check.name && known.release == release);
    let known = last.filter(|known| known.step == at.step && known.started_at >= at.since);
    // Once there is somebody to ask it is asked.
    let known = known.filter(|known| known.outcome != CheckOutcome::Skipped || nobody(pass, check, at.when).is_some());
    // A standing probe, that is asked over and over.
    let probed = last.filter(|last| check.every.is_some() && (last.step, last.when) == (0, at.when) && at.step == 0);
    let ended = |last: &CheckStatus| (last.outcome != CheckOutcome::Running).then_some(last.outcome).or(last.before);
    Some(known.cloned().unwrap_or_else(|| CheckStatus {
        name: check.name.clone(),
        when: at.when,
        release,
        step: at.step,
        outcome: CheckOutcome::Running,
        started_at: pass.now,
        attempts: 0,
        wrong: 0,
        successes: 0,
        failures: 0,
        slow: 0,
        answered_at: None,
        before: probed.and_then(ended),
        // Where nobody answered, what is new begins where it did.
        since: last.and_then(|last| last.answered_at.or(last.since)),
        job: None,
        message: String::new(),
    }))
}

/// Tells one attempt from all others.
pub fn id(state: &CheckStatus) -> String {
    // A step that is tried again begins anew.
    let CheckStatus { name, release, step, started_at, attempts, .. } = state;
    format!("check/{name}/{release}/{step}/{}/{attempts}", started_at.as_millis())
}

/// An answer to an attempt.
pub struct Heard {
    /// When it came.
    pub at: Timestamp,
    /// What was not as expected; none if all was.
    pub fault: Option<String>,
    /// What came back, in a few words.
    pub seen: String,
    /// How long it took.
    pub took: Duration,
}

fn heard(pass: &mut Pass<'_>, check: &Check, state: &CheckStatus) -> Option<Heard> {
    if check.is_run() {
        return runs::heard(pass, check, state);
    }
    let id = id(state);
    let answer = pass.seen.answers.iter().find(|answer| answer.id == id)?;
    let Reply::Check { fault, seen, took } = &answer.reply else { return None };
    // Lines that are written while logs are read are the next look's: it begins where this one did, and this one ends there.
    let at = if check.logs.is_some() { answer.at.minus(*took) } else { answer.at };
    Some(Heard { at, fault: fault.clone(), seen: seen.clone(), took: *took })
}

/// Takes in the answer to the last question.
fn listen(pass: &mut Pass<'_>, check: &Check, state: &mut CheckStatus) {
    if let Some(heard) = heard(pass, check, state) {
        take_in(check, state, heard);
    } else if let Some(why) = logs::unread(pass, state) {
        state.message = bounded(&why, MAX_TEXT);
    }
}

fn take_in(check: &Check, state: &mut CheckStatus, Heard { at, fault, seen, took }: Heard) {
    state.attempts = state.attempts.saturating_add(1);
    state.wrong = state.wrong.saturating_add(i32::from(fault.is_some()));
    state.answered_at = Some(at);
    state.slow += i32::from(latency(check).is_some_and(|limit| took > limit));
    (state.successes, state.failures) = match fault {
        None => (state.successes + 1, 0),
        Some(_) => (0, state.failures + 1),
    };
    let result = match fault {
        Some(fault) => format!("{fault} ({seen})"),
        None => seen,
    };
    state.message = bounded(&format!("{}{}{result}", totals(check, state), asked(check)), MAX_TEXT);
    if state.failures >= check.tolerated() {
        state.outcome = CheckOutcome::Failed;
    } else if state.successes >= check.needed() {
        judge_latency(check, state);
        tell_what_was_expected(check, state);
    }
}

/// How many answers were wrong, where some may be and some were right.
fn totals(check: &Check, state: &CheckStatus) -> String {
    let CheckStatus { attempts, wrong, .. } = state;
    let told = check.tolerated() > 1 && *wrong > 0 && wrong < attempts;
    if told { format!("{wrong} of {attempts} answers wrong; ") } else { String::new() }
}

/// What fails and is to be ignored says so.
fn ignore(check: &Check, state: &mut CheckStatus) {
    if state.outcome == CheckOutcome::Failed && check.on_failure == OnFailure::Ignore {
        state.message = bounded(&format!("ignored (onFailure: Ignore): {}", state.message), MAX_TEXT);
    }
}

/// What was asked, before what was answered.
fn asked(check: &Check) -> String {
    let Some(http) = &check.http else { return String::new() };
    format!("{} {}: ", http.method.as_str(), bounded(&http.path, 80))
}

fn latency(check: &Check) -> Option<Duration> {
    check.http.as_ref().and_then(|http| http.expect.max_latency)
}

/// 95 of 100 answers are quick enough if at most every twentieth is not.
fn judge_latency(check: &Check, state: &mut CheckStatus) {
    state.outcome = CheckOutcome::Passed;
    if let Some(limit) = latency(check)
        && state.slow * 20 > state.attempts
    {
        state.outcome = CheckOutcome::Failed;
        let (slow, attempts) = (state.slow, state.attempts);
        let what = format!("expected p95 within {limit}: {slow} of {attempts} answers took longer; {}", state.message);
        state.message = bounded(&what, MAX_TEXT);
    }
}

/// What passed says what it was to be like; what failed names what was not so.
fn tell_what_was_expected(check: &Check, state: &mut CheckStatus) {
    if let Some(http) = check.http.as_ref().filter(|_| state.outcome == CheckOutcome::Passed) {
        let expected = bounded(&http.expect.told(), 120);
        state.message = bounded(&format!("{}; expected {expected}", state.message), MAX_TEXT);
    }
}

/// What is not asked, and nothing follows. It is its outcome, so that it is written once.
fn skip(pass: &Pass<'_>, check: &Check, at: At, state: &mut CheckStatus) {
    if state.outcome == CheckOutcome::Running
        && let Some(why) = nobody(pass, check, at.when)
    {
        state.outcome = CheckOutcome::Skipped;
        state.message = format!("not asked: {why}");
    }
}

/// Whether a check is about pods of the release. A database and keys are there without any; so is what a Job or another host
/// is asked before there are pods, where a migration may depend on it. Later both are there to try what was brought up.
fn needs_pods(check: &Check, when: Moment) -> bool {
    let of_pods = check.logs.is_some() || check.http.as_ref().is_some_and(|http| http.host.is_none());
    let of_others = check.job.is_some() || check.http.is_some();
    of_pods || (of_others && !when.is_before_pods())
}

/// Why there is nobody whom a check could ask.
fn nobody(pass: &Pass<'_>, check: &Check, when: Moment) -> Option<&'static str> {
    if pass.replicas() == 0 && needs_pods(check, when) {
        return Some("there are no pods to ask, replicas is 0");
    }
    // Pods of an adopted Deployment are not the release's, and what it promotes is asked by other checks.
    let of_stable = check.http.as_ref().is_some_and(|http| http.host.is_none() && !http.is_of_candidate());
    (of_stable && pass.status.stable.is_none())
        .then_some("no revision of this release serves yet, and other pods are not asked (target Stable and Service)")
}

/// A check of a candidate that gets no pod beside stable's fails, rather than let it have traffic unasked.
fn without_room(pass: &Pass<'_>, policy: &Policy, check: &Check, state: &mut CheckStatus) {
    if pass.status.candidate.is_none() {
        return;
    }
    let (pods, _) = wanted(pass, policy);
    let of_candidate = check.http.as_ref().map_or(check.logs.is_some(), HttpCheck::is_of_candidate);
    if pods == 0 && of_candidate {
        state.outcome = CheckOutcome::Failed;
        let replicas = pass.replicas();
        state.message = format!(
            "with replicas {replicas} maxSurge leaves no room for a candidate's pod beside stable's: set maxSurge to 1"
        );
    }
}

/// A check that comes to no end fails: one that is not answered any more, or whose answers never are enough in a row.
fn overdue(pass: &mut Pass<'_>, policy: &Policy, check: &Check, state: &mut CheckStatus) {
    if state.outcome != CheckOutcome::Running || !may_ask(pass) {
        return;
    }
    // What nobody asked, for want of an operator, was not waited for.
    let asked_since = pass.asking_since().unwrap_or(state.started_at);
    let (last, limit) = patience(policy, check, state);
    let silent = pass.elapsed(last.max(asked_since), limit);
    let begun = state.started_at.max(asked_since);
    let endless = check.longest(policy.deadline).filter(|longest| pass.elapsed(begun, *longest));
    if silent || endless.is_some() {
        state.outcome = CheckOutcome::Failed;
        let answer = if state.message.is_empty() { "no answer at all" } else { state.message.as_str() };
        let limit = endless.filter(|_| !silent).unwrap_or(limit);
        let what = match check.logs.is_some() && (silent || logs::is_unread(state)) {
            true => logs::in_vain(answer, limit),
            false => format!("neither passed nor failed within {limit}; {answer}"),
        };
        state.message = bounded(&what, MAX_TEXT);
    }
}

/// From when on the next answer is waited for, and for how long.
fn patience(policy: &Policy, check: &Check, state: &CheckStatus) -> (Timestamp, Duration) {
    if check.is_run() {
        // A Job ends by itself when its time is over.
        let together = check.timeout().as_millis().saturating_add(policy.deadline.as_millis());
        return (state.answered_at.unwrap_or(state.started_at), Duration::from_millis(together));
    }
    // Until then nobody asks.
    let due = state.answered_at.map_or(state.started_at, |at| at.plus(check.interval));
    let answer = Duration::from_millis(check.timeout().as_millis().saturating_add(SLACK.as_millis()));
    (due, policy.deadline.max(answer))
}

/// Asks once more, when it is time.
fn inquire(pass: &mut Pass<'_>, check: &Check, state: &mut CheckStatus) {
    if let Some(last) = state.answered_at
        && !pass.elapsed(last, check.interval)
    {
        return;
    }
    if check.is_run() {
        if let Err(why) = runs::inquire(pass, check, state) {
            wait_for_somebody(pass, check, state, why);
        }
        return;
    }
    if let Some(logs) = &check.logs {
        return logs::inquire(pass, check, logs, state);
    }
    let Some(http) = &check.http else { return };
    match inquire_http(pass, check, http, state) {
        Some(ask) => pass.questions.push(Question { id: id(state), ask }),
        None => wait_for_somebody(pass, check, state, NOBODY),
    }
}

/// What is said where no pod can be asked.
pub const NOBODY: &str = "there is nobody to ask: no ready pod, or none with this port";

/// A step waits for somebody to ask: pods may be known to be available before each of them is seen to be ready. Of what was
/// promoted, and is to serve, nobody is a wrong answer, one in each interval.
fn wait_for_somebody(pass: &mut Pass<'_>, check: &Check, state: &mut CheckStatus, why: &str) {
    let is_to_serve = pass.status.observation.is_some() && (state.when, state.step) == (Moment::AfterPromotion, 0);
    let last = state.answered_at.unwrap_or(state.started_at);
    if !is_to_serve || !pass.elapsed(last, check.interval) {
        state.message = why.into();
        return;
    }
    let (seen, took) = ("not asked".to_owned(), Duration::default());
    take_in(check, state, Heard { at: pass.now, fault: Some(why.to_owned()), seen, took });
}

fn inquire_http(pass: &Pass<'_>, check: &Check, http: &HttpCheck, state: &CheckStatus) -> Option<Ask> {
    let addresses = addresses(pass, http, state.attempts);
    let is_any = !addresses.is_empty();
    let question = HttpQuestion { addresses, http: request(pass, check, http), timeout: check.timeout() };
    is_any.then(|| Ask::Http(Box::new(question)))
}

/// Puts it into the status, and tells of an outcome.
fn record(pass: &mut Pass<'_>, state: CheckStatus) {
    let place = pass.status.checks.iter().position(|known| known.name == state.name);
    let known = place.map(|place| &pass.status.checks[place]);
    let was = known.filter(|known| known.started_at == state.started_at).map(|known| known.outcome);
    let is_news = was != Some(state.outcome) && state.before != Some(state.outcome);
    if state.outcome != CheckOutcome::Running && is_news {
        let failed = state.outcome == CheckOutcome::Failed;
        let reason = format!("Check{:?}", state.outcome);
        let note = format!("check {}, {} answers: {}", state.name, state.attempts, state.message);
        if state.outcome == CheckOutcome::Skipped || (failed && state.when == Moment::AfterRollback) {
            pass.status.note(pass.now, &reason, &format!("{}: {}", state.name, state.message), None);
        }
        pass.events.push(Event { warning: failed, reason, action: "Checking".into(), note });
    }
    match place {
        Some(place) => pass.status.checks[place] = state,
        None => pass.status.checks.push(state),
    }
    let excess = pass.status.checks.len().saturating_sub(MAX_CHECKS);
    pass.status.checks.drain(..excess);
}

/// Ends checks that nobody waits for any more: the release went back, or on without them, or is over. What their Jobs did is
/// nobody's concern then.
pub fn end_unasked(pass: &mut Pass<'_>) {
    let release = pass.status.release.as_ref().map(|release| release.number);
    let step = pass.status.step.as_ref().filter(|_| !retreat::under_way(pass)).map(|step| step.index);
    let observed = observation::asked(pass);
    let back = pass.status.rollback.as_ref().is_some_and(|rollback| rollback.completed_at.is_some());
    for state in &mut pass.status.checks {
        let is_asked = match state.step {
            0 if state.when == Moment::AfterRollback => back && step.is_none(),
            0 => observed.contains(&state.name),
            index => step == Some(index),
        };
        if state.outcome == CheckOutcome::Running && !(is_asked && Some(state.release) == release) {
            state.outcome = CheckOutcome::Skipped;
            let last = if state.message.is_empty() { String::new() } else { format!(", last {}", state.message) };
            let what = format!("not asked to its end: the release went on or back without it{last}");
            state.message = bounded(&what, MAX_TEXT);
            state.job = None;
        }
    }
}

/// What was found wrong with stable after a rollback, for people.
pub fn wrong_after_rollback(pass: &Pass<'_>) -> Option<String> {
    let release = pass.status.release.as_ref()?.number;
    let failed = |state: &&CheckStatus| {
        (state.release, state.when, state.outcome) == (release, Moment::AfterRollback, CheckOutcome::Failed)
    };
    let state = pass.status.checks.iter().find(failed)?;
    Some(format!("check {} failed after the rollback: {}", state.name, state.message))
}

/// What a person can do while checks of the step under way are not answered as they are to be; empty if that is nothing.
pub fn next(pass: &Pass<'_>) -> String {
    let release = pass.status.release.as_ref().map_or(0, |release| release.number);
    let step = pass.status.step.as_ref().map_or(0, |step| step.index);
    let waits = |known: &&CheckStatus| {
        (known.release, known.step, known.outcome) == (release, step, CheckOutcome::Running)
            && !known.message.is_empty()
    };
    let Some(state) = pass.status.checks.iter().find(waits) else { return String::new() };
    let look = state.job.as_ref().map(|job| format!("{} describe job {job}", kubectl(pass)));
    look.into_iter().chain(["skip", "abort"].map(|words| command(pass, words))).collect::<Vec<_>>().join(" | ")
}

/// Since when all checks of a step are asked, for people.
pub fn describe(pass: &Pass<'_>, names: &[String]) -> String {
    let release = pass.status.release.as_ref().map_or(0, |release| release.number);
    let step = pass.status.step.as_ref().map_or(0, |step| step.index);
    let state = |name: &String| {
        let now = |known: &&CheckStatus| known.name == *name && (known.release, known.step) == (release, step);
        let Some(known) = pass.status.checks.iter().find(now) else {
            return Some(format!("{name} is about to be asked"));
        };
        let policy = pass.policy();
        let needed = policy.checks.iter().find(|check| check.name == *name)?.needed();
        let last = if known.message.is_empty() { String::new() } else { format!(", last {}", known.message) };
        (known.outcome == CheckOutcome::Running)
            .then(|| format!("{name}: {} of {needed} right answers{last}", known.successes))
    };
    let open: Vec<String> = names.iter().filter_map(state).collect();
    if open.is_empty() { "all were answered".into() } else { bounded(&open.join("; "), 512) }
}
