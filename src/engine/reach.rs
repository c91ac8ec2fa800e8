//! Before the candidate has its first requests: whether what is to be measured then can be measured at all. Each provider
//! is asked once, and what it says of the candidate does not matter yet. Without an answer the release stays where it is,
//! rather than give requests to what nobody watches.

use std::collections::BTreeMap;

use crate::api::{
    DatabaseTask, Duration, Metric, OnFailure, StepStatus, Unreached, VerdictOutcome,
    status::{MAX_TEXT, bounded},
};

use super::{
    analysis::{self, Lack},
    checks::Failure,
    forward,
    inquiry::{Answer, Question, Reply},
    measuring::{self, Shared},
    names::Sides,
    pass::Pass,
    plan::{Policy, Step},
};

/// How far back counters are asked for: further than the time after which a sample is there.
const BACK: Duration = Duration::from_secs(600);

/// Whether the step after the one under way is not entered before the providers have answered. Behind maintenance mode
/// nobody waits for them: that would make it longer for all.
pub fn is_due(pass: &Pass<'_>, policy: &Policy) -> bool {
    let index = forward::index(pass);
    let serves = pass.status.stable.is_some() && pass.replicas() > 0;
    let opens = pass.status.candidate.is_some() && index < policy.count() && opens(&policy.step(index + 1));
    serves && opens && !policy.is_maintained(index) && !analysis::is_exposed(pass, policy)
}

/// Whether a step gives the candidate requests, or does before them what takes time to undo.
fn opens(step: &Step) -> bool {
    match step {
        Step::SetWeight(weight) => *weight > 0,
        Step::SetHeaderRoute(headers) => !headers.is_empty(),
        Step::SetMirrorRoute(percent) => *percent > 0,
        Step::Maintenance | Step::Database(DatabaseTask::Migration) | Step::Promote => true,
        _ => false,
    }
}

/// Asks the providers, and says what keeps the candidate from its first requests; none if nothing does.
///
/// # Errors
/// There is no answer to a metric that fails then.
pub fn ask(pass: &mut Pass<'_>, policy: &Policy) -> Result<Option<Lack>, Failure> {
    let due = is_due(pass, policy) && !analysis::is_accepted(pass);
    let Some(analysis) = policy.analysis.as_ref().filter(|_| due) else { return Ok(None) };
    if let Some(lack) = analysis::unread(analysis) {
        return Ok(Some(lack));
    }
    let (Some(step), Some(sides)) = (pass.status.step.clone(), Sides::of(pass, analysis)) else { return Ok(None) };
    let last = step.unreached.as_ref().map(|known| known.at);
    if last.is_some_and(|at| !pass.elapsed(at, analysis.interval.max(Duration::from_secs(1)))) {
        return Ok(lack(pass));
    }
    let acting = analysis.metrics.iter().filter(|metric| !metric.dry_run);
    let asked: Vec<(&Metric, Question)> =
        acting.filter_map(|metric| Some((metric, question(pass, &step, metric, &sides)?))).collect();
    let mut answers = Vec::new();
    let mut open = None;
    for (metric, question) in asked {
        match pass.seen.answers.iter().find(|answer| answer.id == question.id) {
            Some(answer) => answers.push((metric, answer)),
            None => open = open.or(Some(metric)),
        }
        pass.questions.push(question);
    }
    let Some(metric) = open else { return take_in(pass, &step, &answers) };
    let first = || ("Analyzing", format!("it is asked whether metric {} can be measured", metric.name));
    Ok(Some(lack(pass).unwrap_or_else(first)))
}

/// What was answered to all of them.
fn take_in(pass: &mut Pass<'_>, step: &StepStatus, answers: &[(&Metric, &Answer)]) -> Result<Option<Lack>, Failure> {
    let known = step.unreached.as_ref();
    let times = known.map_or(0, |known| known.times).saturating_add(1);
    let mut fault: Option<Unreached> = None;
    // Each metric counts its own: another one may have been without an answer for long.
    let mut failures = BTreeMap::new();
    for (metric, answer) in answers {
        let Some((outcome, message)) = unanswered(metric, &answer.reply) else { continue };
        if outcome == VerdictOutcome::Fail {
            let before = known.and_then(|known| known.failures.get(&metric.name)).copied().unwrap_or_default();
            let count = before.saturating_add(1);
            if count >= metric.failure_threshold {
                let message = format!("metric {} failed: {message}", metric.name);
                return Err(Failure { then: OnFailure::Rollback, reason: "AnalysisFailed", message });
            }
            failures.insert(metric.name.clone(), count);
        }
        let (name, message) = (metric.name.clone(), bounded(&message, MAX_TEXT));
        let refused = matches!(answer.reply, Reply::Refused(_));
        // What does not get well by itself is told first.
        if fault.as_ref().is_none_or(|known| refused && !known.refused) {
            let failures = BTreeMap::new();
            fault = Some(Unreached { metric: name, message, refused, times, failures, at: answer.at });
        }
    }
    if let Some(step) = &mut pass.status.step {
        step.unreached = fault.map(|fault| Unreached { failures, ..fault });
    }
    Ok(lack(pass))
}

/// What it means that there was no answer; none where the provider was reached. What a web API says of a candidate that
/// nobody has called yet is not what it will say.
fn unanswered(metric: &Metric, reply: &Reply) -> Option<(VerdictOutcome, String)> {
    match reply {
        Reply::Senseless(_) => None,
        Reply::Refused(_) if metric.web.is_some() => None,
        reply => measuring::unanswered(reply, metric),
    }
}

fn question(pass: &Pass<'_>, step: &StepStatus, metric: &Metric, sides: &Sides) -> Option<Question> {
    let release = pass.status.release.as_ref().map_or(0, |release| release.number);
    let times = step.unreached.as_ref().map_or(0, |known| known.times);
    let id = format!("reach/{}/{release}/{}/{times}", metric.name, step.started_at.as_millis());
    let since = pass.now.minus(BACK);
    let shared = Some(Shared { weight: 0, since });
    let ask = measuring::asked(metric, sides, shared, &measuring::begin(metric, since))?;
    Some(Question { id, ask })
}

/// What kept the candidate from its first requests when the providers were asked last.
pub fn lack(pass: &Pass<'_>) -> Option<Lack> {
    let known = pass.status.step.as_ref()?.unreached.as_ref()?;
    Some(("AnalysisInconclusive", analysis::inconclusive(&known.metric, &known.message)))
}

/// Whether that is a metric that only a correction helps.
pub fn is_refused(pass: &Pass<'_>) -> bool {
    let known = pass.status.step.as_ref().and_then(|step| step.unreached.as_ref());
    known.is_some_and(|known| known.refused)
}
