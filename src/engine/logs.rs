//! Whose logs a check reads, and what it means that one cannot be read: nothing against the candidate.

use crate::api::{
    Check, CheckStatus, Duration, LogsCheck, OnFailure, Timestamp,
    status::{MAX_TEXT, bounded},
};

use super::{
    checks,
    inquiry::{Ask, LogOfPod, LogsQuestion, Question, Reply},
    observed::{Container, Pod, Revision},
    pass::Pass,
};

/// What the message begins with of a check whose logs could not be read.
const UNREAD: &str = "not asked yet, its log cannot be read: ";
/// What of a revision has no pod whose log is its word.
const NO_POD: &str = "each pod is told to go, or was taken from its node";
/// After what time it is tried again, and as long as the check's timeout.
const AGAIN: Duration = Duration::from_secs(1);

/// Why the attempt under way came to nothing, if the API server or a kubelet did not give a log.
pub fn unread(pass: &Pass<'_>, state: &CheckStatus) -> Option<String> {
    answer(pass, state).map(|(_, why)| format!("{UNREAD}{why}"))
}

fn answer<'a>(pass: &Pass<'a>, state: &CheckStatus) -> Option<(Timestamp, &'a str)> {
    let id = checks::id(state);
    pass.seen.answers.iter().filter(|answer| answer.id == id).find_map(|answer| match &answer.reply {
        Reply::Unread(why) => Some((answer.at, why.as_str())),
        _ => None,
    })
}

/// Whether the last that is known of a check is that its logs cannot be read.
pub fn is_unread(state: &CheckStatus) -> bool {
    state.message.starts_with(UNREAD)
}

/// What is told where nobody gave a log for as long as it is waited for, be it that other logs were read meanwhile.
pub fn in_vain(told: &str, limit: Duration) -> String {
    let why = told.strip_prefix(UNREAD).unwrap_or(told);
    format!("{UNREAD}{why}; so it is for {limit}")
}

/// What becomes of a release whose check has failed: for want of logs, none goes back.
pub fn consequence(check: &Check, state: &CheckStatus) -> OnFailure {
    match check.on_failure {
        OnFailure::Rollback if is_unread(state) => OnFailure::Hold,
        then => then,
    }
}

/// Reads the logs of the pods whose word it is: of one that is told to go or was taken from its node a kubelet may know
/// nothing any more. What could not be read is asked for anew.
pub fn inquire(pass: &mut Pass<'_>, check: &Check, logs: &LogsCheck, state: &mut CheckStatus) {
    // Without the question its answer is forgotten, and the next pass asks again.
    if answer(pass, state).is_some_and(|(at, _)| pass.elapsed(at, AGAIN)) {
        pass.wake_at(pass.now.plus(AGAIN));
        return;
    }
    match question(pass, check, logs, state) {
        Some(ask) => pass.questions.push(Question { id: checks::id(state), ask }),
        None => state.message = bounded(&format!("{UNREAD}{NO_POD}"), MAX_TEXT),
    }
}

fn question(pass: &Pass<'_>, check: &Check, logs: &LogsCheck, state: &CheckStatus) -> Option<Ask> {
    let subject = pass.subject()?;
    let namespace = pass.release.metadata.namespace.clone()?;
    let began = pass.status.release.as_ref().map(|release| release.started_at);
    // Lines that are to be there may have been seen by the attempt before; one too many is counted once.
    let seen = state.answered_at.filter(|_| logs.min < 1);
    let since = seen.or(state.since).or(began).unwrap_or(state.started_at);
    let container = logs.container.clone().or_else(|| first_container(subject));
    let restarted =
        |pod: &Pod| pod.containers.iter().any(|it| Some(&it.name) == container.as_ref() && ended(it, since));
    let pods = subject.pods.iter().filter(|pod| !pod.terminating && !pod.disrupted);
    let pods: Vec<_> = pods.map(|pod| LogOfPod { name: pod.name.clone(), restarted: restarted(pod) }).collect();
    let (logs, timeout) = (LogsCheck { container: container.clone(), ..logs.clone() }, check.timeout());
    let is_any = !pods.is_empty();
    is_any.then(|| Ask::Logs(Box::new(LogsQuestion { namespace, pods, logs, since, timeout })))
}

/// The API server takes no pod of several containers without the name of one.
fn first_container(revision: &Revision) -> Option<String> {
    Some(revision.template.to_value().pointer("/spec/containers/0/name")?.as_str()?.to_owned())
}

/// Whether a container was started again after an end that nobody has looked at. The kubelet's times have whole seconds.
fn ended(container: &Container, since: Timestamp) -> bool {
    let at = container.ended.as_ref().and_then(|ended| ended.at);
    container.restarts > 0 && at.is_none_or(|at| at.plus(Duration::from_secs(1)) > since)
}
