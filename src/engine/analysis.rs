//! Metrics that are watched while the candidate has traffic: when each is measured, what its verdict is, and
//! whether the verdicts let the weight rise (INVARIANTS T2).

use crate::api::{
    Analysis, Duration, Metric, NoData, OnFailure, OnInconclusive, ProviderError, StepName, Timestamp, VerdictOutcome,
    VerdictStatus, Workload,
    conditions::Value,
    status::{MAX_TEXT, bounded},
};

use super::{
    checks::Failure,
    effect::Event,
    forward,
    inquiry::Question,
    measuring::{self, Shared},
    names::Sides,
    pass::Pass,
    plan::{Extras, Policy, Step},
    reach,
    trouble::TOO_MANY_RESTARTS,
    unmeasured, workload,
};

/// Measures what is to be measured and takes in what came. Says which metric fails, with the evidence.
pub fn watch(pass: &mut Pass<'_>, policy: &Policy) -> Option<String> {
    let analysis = policy.analysis.as_ref().filter(|_| is_exposed(pass, policy))?;
    let mut failure = None;
    // Once it is promoted there is nobody to compare it with.
    let alone = pass.status.candidate.is_none();
    for metric in analysis.metrics.iter().filter(|metric| !alone || metric.compare.is_none()) {
        let mut state = begun(pass, metric);
        if let Some(limits) = &metric.workload {
            workload::look(pass, policy, metric, limits, &mut state);
        } else {
            listen(pass, analysis, metric, &mut state);
            measure(pass, analysis, metric, &state);
        }
        if state.outcome == VerdictOutcome::Fail && !metric.dry_run {
            failure.get_or_insert_with(|| failed(metric, &state));
        }
        record(pass, state);
    }
    failure.filter(|_| !is_accepted(pass))
}

/// Whether a verdict does not keep the weight from rising.
fn lets_on(outcome: VerdictOutcome) -> bool {
    matches!(outcome, VerdictOutcome::Pass | VerdictOutcome::Ignored)
}

/// What failed, with value, limit and window.
fn failed(metric: &Metric, state: &VerdictStatus) -> String {
    let until = state.counted_until.or(state.measured_at);
    // The others name their windows themselves.
    let until = until.filter(|_| metric.threshold.is_some() || metric.compare.is_some());
    let window = until.map(|until| format!(", watched from {} to {until}", state.started_at)).unwrap_or_default();
    format!("metric {} failed: {}{window}", metric.name, state.message)
}

/// Whether clients reach the candidate, beside a stable that serves.
pub fn is_exposed(pass: &Pass<'_>, policy: &Policy) -> bool {
    if pass.status.observation.is_some() {
        return pass.status.stable.is_some();
    }
    let Extras { headers, mirror, .. } = policy.extras(forward::index(pass));
    let weight = pass.desired_weight();
    pass.status.stable.is_some() && pass.replicas() > 0 && (weight > 0 || !headers.is_empty() || mirror > 0)
}

/// Whether a person has passed over what verdicts say at this step.
pub fn is_accepted(pass: &Pass<'_>) -> bool {
    if pass.status.observation.is_some() {
        return false;
    }
    let full = pass.status.release.as_ref().is_some_and(|release| release.full_promotion_by.is_some());
    full || forward::is_accepted(pass)
}

/// Whether the manifest lets containers be started again more often than is taken for a failure without it, or may do so: its
/// templates are not read yet. What allows less is judged beside it, once the candidate has requests.
pub fn allows_restarts(policy: &Policy) -> bool {
    let most = |metric: &Metric| metric.workload.as_ref().and_then(Workload::restarts);
    let judges = |metric: &Metric| !metric.dry_run && most(metric).is_some_and(|most| most >= TOO_MANY_RESTARTS);
    let analysis = policy.analysis.as_ref();
    analysis.is_some_and(|analysis| !analysis.templates.is_empty() || analysis.metrics.iter().any(judges))
}

/// What lets the weight not rise: in a word for machines, and for people.
pub type Lack = (&'static str, String);

/// Why nobody knows what is to be measured: the plan is about to be pinned, or was taken away.
pub fn unread(analysis: &Analysis) -> Option<Lack> {
    let template = analysis.templates.first()?;
    Some(("Analyzing", format!("its template {} is to be read first", template.template_name)))
}

/// That a metric says neither yes nor no.
pub fn inconclusive(metric: &str, why: &str) -> String {
    format!("metric {metric} is inconclusive: {why}")
}

/// What keeps the weight from rising, for people; none if nothing does.
pub fn unproven(pass: &Pass<'_>, policy: &Policy) -> Option<Lack> {
    let analysis = policy.analysis.as_ref().filter(|_| !is_accepted(pass))?;
    if !is_exposed(pass, policy) {
        return reach::lack(pass);
    }
    if let Some(lack) = unread(analysis) {
        return Some(lack);
    }
    let began = asked_since(pass)?;
    // Before the weight is reached nothing is proven.
    let shared = shared(pass);
    let since = shared.map(|_| began);
    let state = |metric: &Metric| pass.status.verdicts.iter().find(|state| state.name == metric.name);
    // Of what was counted, something has to be of this weight.
    let counted = |state: &VerdictStatus| {
        let mut called = state.segments.iter().filter(|it| it.candidate.requests > 0);
        called.any(|it| it.since.is_some() && it.since == shared.map(|shared| shared.since))
    };
    // What is seen of the pods is judged in every pass. An answer of the moment at which the step began was asked for
    // before it.
    let fresh = |metric: &Metric, state: &VerdictStatus| {
        let shows = |at| shown_from(pass, analysis, metric).is_none_or(|from| at >= from);
        let measured = state.measured_at.zip(since).is_some_and(|(at, since)| at > since && shows(at));
        let uncounted = metric.compare.is_none() || metric.no_data == NoData::Ignore;
        metric.workload.is_some() || (measured && is_recent(pass, analysis, state) && (uncounted || counted(state)))
    };
    let known = |metric: &Metric| state(metric).filter(|state| fresh(metric, state));
    let proven = |metric: &&Metric| known(metric).is_some_and(|it| lets_on(it.outcome));
    let open: Vec<&Metric> = analysis.metrics.iter().filter(|metric| !metric.dry_run && !proven(metric)).collect();
    // That nobody called is news once there was time to.
    let time_to_call = began.plus(analysis.interval);
    let uncalled =
        |state: &&VerdictStatus| !lets_on(state.outcome) && state.measured_at.is_some_and(|at| at >= time_to_call);
    let mut told = open.iter().filter_map(|metric| known(metric).or_else(|| state(metric).filter(uncalled)));
    // What does not get well by itself is told first.
    let measured = told.clone().find(|state| state.refused).or_else(|| told.next());
    match (measured, open.first()) {
        (Some(state), _) => Some(("AnalysisInconclusive", inconclusive(&state.name, &state.message))),
        (None, Some(metric)) => {
            let every = analysis.interval;
            Some(("Analyzing", format!("metric {} is measured every {every}", metric.name)))
        }
        (None, None) => None,
    }
}

/// Whether verdicts let the weight rise, or nobody waits for them any longer.
///
/// # Errors
/// They were not all Pass for too long, or a metric that is to fail then has no answer before there is traffic.
pub fn proves(pass: &mut Pass<'_>, policy: &Policy) -> Result<bool, Failure> {
    pass.unproven = if is_exposed(pass, policy) { unproven(pass, policy) } else { reach::ask(pass, policy)? };
    let Some((_, why)) = &pass.unproven else { return Ok(true) };
    let why = why.clone();
    let Some((longest, then)) = patience(policy) else { return Ok(false) };
    let Some(step) = &pass.status.step else { return Ok(false) };
    let summary = step.summary.clone();
    let since = step.unproven_since.unwrap_or(pass.now);
    // Nobody is impatient before there could be an answer: the first look at a weight may be one that does not count.
    let looks = |analysis: &Analysis| analysis.metrics.iter().any(is_of_looks);
    let first = asked_since(pass).zip(policy.analysis.as_ref()).map(|(at, analysis)| {
        let first = at.plus(analysis.interval);
        if looks(analysis) { first.plus(analysis.interval) } else { first }
    });
    // Nor for what nobody asked, for want of an operator.
    let first = first.max(pass.asking_since());
    if !pass.elapsed(first.map_or(since, |first| since.max(first)), longest) {
        return Ok(false);
    }
    pass.unproven = None;
    let message = format!("step {summary}: for {longest} not all verdicts are Pass: {why}");
    let failure = |then| Failure { then, reason: "AnalysisInconclusive", message: message.clone() };
    match then {
        OnInconclusive::Rollback => Err(failure(OnFailure::Rollback)),
        OnInconclusive::Hold => Err(failure(OnFailure::Hold)),
        OnInconclusive::Promote => {
            pass.status.note(pass.now, "Unproven", &message, None);
            let note = format!("{message}; it goes on (onInconclusive: Promote)");
            pass.events.push(Event { warning: true, reason: "Unproven".into(), action: "Analyzing".into(), note });
            Ok(true)
        }
    }
}

/// How long verdicts may be other than Pass, and what then.
fn patience(policy: &Policy) -> Option<(Duration, OnInconclusive)> {
    let analysis = policy.analysis.as_ref()?;
    Some((analysis.max_duration?, analysis.on_inconclusive.unwrap_or_default()))
}

/// What keeps an observation from being a success.
pub struct Doubt {
    /// Which metric, and what it says, for people.
    pub why: String,
    /// Whether all was well, and what it is now is being asked: an operator that was away did not ask meanwhile.
    pub asked: bool,
}

/// Intervals within which a metric is measured again, if anybody answers.
const FEW_INTERVALS: u64 = 3;

/// How old the last answer of a metric may be: a few intervals, and as long as answers take.
fn still_counts(analysis: &Analysis) -> Duration {
    let few = analysis.interval.as_millis().saturating_mul(FEW_INTERVALS);
    Duration::from_millis(few).max(Duration::from_secs(60))
}

/// Whether the last answer still says something: not where the next one was due while nobody asked, for want of an operator,
/// nor where none has come for too long.
fn is_recent(pass: &Pass<'_>, analysis: &Analysis, state: &VerdictStatus) -> bool {
    state.measured_at.is_some_and(|at| {
        let missed = pass.asking_since().is_some_and(|since| at.plus(every(analysis)) < since);
        !missed && at.plus(still_counts(analysis)) >= pass.now
    })
}

/// Which metric is not Pass at the end of an observation, or has not been measured for some time; none if each is. From
/// a dry run nothing follows, and after the promotion there is nobody to compare with.
pub fn not_passed(pass: &Pass<'_>, policy: &Policy, since: Timestamp) -> Option<Doubt> {
    // Without pods there is nothing to measure.
    let analysis = policy.analysis.as_ref().filter(|_| pass.replicas() > 0)?;
    if let Some(template) = analysis.templates.first() {
        let why = format!("what template {} is to measure is not known", template.template_name);
        return Some(Doubt { why, asked: false });
    }
    let of_it = |state: &VerdictStatus| state.measured_at.is_some_and(|at| at >= since);
    let state = |metric: &Metric| pass.status.verdicts.iter().find(|state| state.name == metric.name);
    // What is seen of the pods is judged in every pass.
    let fresh = |metric: &Metric, state: &VerdictStatus| {
        let latest = state.measured_at.map(|at| at.plus(still_counts(analysis)));
        metric.workload.is_some() || (of_it(state) && latest.is_some_and(|latest| latest >= pass.now))
    };
    // What has nothing to be measured by, and need not, hinders nobody.
    let well = |state: &VerdictStatus| matches!(state.outcome, VerdictOutcome::Pass | VerdictOutcome::Ignored);
    let passed = |metric: &Metric| state(metric).is_some_and(|state| well(state) && fresh(metric, state));
    let mut open = analysis.metrics.iter().filter(|metric| acts_alone(metric) && !passed(metric));
    let first = open.next()?;
    let last = state(first).filter(|state| of_it(state));
    let message = match last {
        Some(state) if well(state) => {
            let at = state.measured_at.unwrap_or(since);
            format!("metric {} was Pass at {at}, and was not measured since", first.name)
        }
        Some(state) => format!("metric {} is not Pass: {}", first.name, state.message),
        None => format!("metric {} was not measured since {since}", first.name),
    };
    let asked = |state: &VerdictStatus| {
        let id = id(pass, None, state);
        of_it(state) && well(state) && pass.questions.iter().any(|question| question.id == id)
    };
    let asked = last.is_some_and(asked) && open.clone().all(|metric| state(metric).is_some_and(asked));
    let more = match open.count() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Some(Doubt { why: format!("{message}{more}"), asked })
}

/// Whether something follows from a metric after the promotion, where there is nobody to compare with.
pub const fn acts_alone(metric: &Metric) -> bool {
    !metric.dry_run && metric.compare.is_none()
}

/// Whether a metric can fail after the promotion: not one that only tells a value, such as requests per second that are not
/// to be fewer than none.
#[must_use]
pub fn fails_alone(metric: &Metric) -> bool {
    let tells = metric.threshold.is_some_and(|it| it.max.is_none() && it.min.is_none_or(|min| min <= 0.0));
    let silence_fails = metric.no_data == NoData::Fail || metric.provider_error == ProviderError::Fail;
    acts_alone(metric) && (!tells || silence_fails)
}

/// That no metric of an observation can fail it, for people; empty where one can, or where there are none.
pub fn blind(policy: &Policy) -> &'static str {
    let blind = |analysis: &&Analysis| analysis.templates.is_empty() && !analysis.metrics.iter().any(fails_alone);
    match policy.analysis.as_ref().filter(blind) {
        Some(_) => {
            "; none of its metrics can fail it: there is nobody to compare with, from a dry run nothing follows, and no value is below a min of 0"
        }
        None => "",
    }
}

/// The first verdict that is not Pass, for people: of what was measured since then, if that matters.
pub fn doubt(pass: &Pass<'_>, since: Option<Timestamp>) -> Option<String> {
    let measured = |state: &&VerdictStatus| state.measured_at.is_some_and(|at| since.is_none_or(|since| at >= since));
    let mut acting = pass.status.verdicts.iter().filter(|state| !state.dry_run).filter(measured);
    let state = acting.find(|state| !matches!(state.outcome, VerdictOutcome::Pass | VerdictOutcome::Ignored))?;
    let is = if state.outcome == VerdictOutcome::Fail { "failed" } else { "is inconclusive" };
    Some(format!("metric {} {is}: {}", state.name, state.message))
}

/// Writes down since when the step waits for nothing but verdicts. Once it waits for the cluster again, its deadline runs
/// from then.
pub fn note_wait(pass: &mut Pass<'_>) {
    let (waits, now) = (pass.unproven.is_some(), pass.now);
    let Some(step) = &mut pass.status.step else { return };
    let waited = step.unproven_since.take();
    step.unproven_since = waits.then(|| waited.unwrap_or(now));
    if let Some(progress) = step.progress.as_mut().filter(|_| waited.is_some() && !waits) {
        progress.at = now;
    }
}

/// What comes of it if the verdicts stay as they are, for people.
pub fn outlook(pass: &Pass<'_>) -> String {
    let since = pass.status.step.as_ref().and_then(|step| step.unproven_since);
    let Some(((longest, then), since)) = patience(&pass.policy()).zip(since) else { return String::new() };
    let what = match then {
        OnInconclusive::Hold => "waits for a person",
        OnInconclusive::Rollback => "goes back",
        OnInconclusive::Promote => "goes on without",
    };
    format!("; at {} it {what}", since.plus(longest))
}

/// The condition AnalysisPassed: value, reason, message. None where nothing is watched.
pub fn condition(pass: &Pass<'_>) -> Option<(Value, &'static str, String)> {
    let analysis = pass.policy().analysis;
    if let Some((_, why)) = reach::lack(pass) {
        return Some((Value::Unknown, "Inconclusive", why));
    }
    let verdicts: Vec<_> = pass.status.verdicts.iter().filter(|state| !state.dry_run).collect();
    if verdicts.is_empty() && !pass.status.verdicts.is_empty() {
        return Some((Value::Unknown, "DryRun", "from none of the metrics anything follows: all have dryRun".into()));
    }
    if verdicts.is_empty() {
        analysis?;
        return Some((Value::Unknown, "NotStarted", "metrics are watched once a candidate has traffic".into()));
    }
    let is = |outcome: VerdictOutcome| move |state: &&&VerdictStatus| state.outcome == outcome;
    if let Some(state) = verdicts.iter().find(is(VerdictOutcome::Fail)) {
        return Some((Value::False, "MetricFailed", format!("metric {} failed: {}", state.name, state.message)));
    }
    if let Some(message) = unmeasured::told(pass, &verdicts) {
        return Some((Value::Unknown, "NotMeasured", message));
    }
    if let Some(state) = verdicts.iter().find(is(VerdictOutcome::Inconclusive)) {
        return Some(match state.measured_at {
            Some(_) => (Value::Unknown, "Inconclusive", inconclusive(&state.name, &state.message)),
            None => (Value::Unknown, "Analyzing", format!("metric {} is being measured", state.name)),
        });
    }
    if let Some(state) = verdicts.iter().find(is(VerdictOutcome::Ignored)) {
        let message = format!("metric {} showed nothing, and noData is Ignore: {}", state.name, state.message);
        return Some((Value::Unknown, "NoDataIgnored", message));
    }
    let names: Vec<&str> = verdicts.iter().map(|state| state.name.as_str()).collect();
    Some((Value::True, "AllPassed", bounded(&names.join(", "), MAX_TEXT)))
}

/// Whether the step after the one under way is not entered without proof.
pub fn is_due(pass: &Pass<'_>, policy: &Policy) -> bool {
    // Behind the last one there is no step: what a switch brings is watched after the promotion.
    let index = forward::index(pass);
    index < policy.count() && (raises(pass, &policy.step(index + 1)) || reach::is_due(pass, policy))
}

/// What keeps the release from going on once the step under way is passed, for people.
pub fn lacking(pass: &Pass<'_>, policy: &Policy) -> Option<String> {
    unproven(pass, policy).filter(|_| is_due(pass, policy)).map(|(_, why)| why)
}

/// Whether a step is not entered without proof: it moves requests to the candidate, or makes it stable, also where
/// all requests are the candidate's already.
fn raises(pass: &Pass<'_>, step: &Step) -> bool {
    match step {
        Step::SetWeight(weight) => *weight > pass.desired_weight(),
        Step::Promote => true,
        _ => false,
    }
}

/// The metric as it stands, or a new beginning: what a person has passed over is past, and so is what was measured before
/// the promotion.
fn begun(pass: &Pass<'_>, metric: &Metric) -> VerdictStatus {
    let past = forward::past_until(pass);
    let known = pass.status.verdicts.iter().find(|known| known.name == metric.name);
    let known = known.filter(|known| past.is_none_or(|at| known.started_at >= at));
    known.cloned().unwrap_or_else(|| measuring::begin(metric, pass.now))
}

/// Whether what keeps the weight from rising is a metric that only a correction helps.
pub fn is_refused(pass: &Pass<'_>) -> bool {
    reach::is_refused(pass) || pass.status.verdicts.iter().any(|state| state.refused && !state.dry_run)
}

/// Since when answers count for what is under way: the step began, and its weight is reached. What was asked before that is
/// asked again.
fn asked_since(pass: &Pass<'_>) -> Option<Timestamp> {
    if let Some(observation) = &pass.status.observation {
        return Some(observation.started_at);
    }
    let began = pass.status.step.as_ref()?.started_at;
    Some(shared(pass).map_or(began, |shared| shared.since.max(began)))
}

/// How the traffic is shared, once it is as it is meant.
fn shared(pass: &Pass<'_>) -> Option<Shared> {
    let weights = pass.status.weights.filter(|_| pass.status.candidate.is_some())?;
    Some(Shared { weight: weights.desired.candidate, since: weights.reached_at? })
}

/// The same, or while all traffic moves to the candidate, how it is to be: then each look counts by itself, since the share
/// changes. It may fail the candidate, and proves nothing.
fn counted(pass: &Pass<'_>, state: &VerdictStatus) -> Option<Shared> {
    let weights = pass.status.weights.filter(|_| pass.status.candidate.is_some())?;
    let step = pass.status.step.as_ref().filter(|step| step.name == StepName::Promote);
    let looked = |began: Timestamp| state.counted_until.map_or(began, |until| until.max(began));
    let moving = |began| Shared { weight: weights.desired.candidate, since: looked(began) };
    shared(pass).or_else(|| step.map(|step| moving(step.started_at)))
}

/// Whether each measurement of a metric stands for itself: what is compared is counted from when a weight is reached, and
/// pods are as they are.
const fn is_of_looks(metric: &Metric) -> bool {
    metric.compare.is_none() && metric.workload.is_none()
}

/// From when on a look says something of the weight that the traffic has: a whole interval after it was reached. None if
/// that does not matter.
fn shown_from(pass: &Pass<'_>, analysis: &Analysis, metric: &Metric) -> Option<Timestamp> {
    let shared = shared(pass).filter(|_| is_of_looks(metric))?;
    Some(shared.since.plus(every(analysis)))
}

/// How often a metric is measured.
pub fn every(analysis: &Analysis) -> Duration {
    analysis.interval.max(Duration::from_secs(1))
}

fn id(pass: &Pass<'_>, shown_from: Option<Timestamp>, state: &VerdictStatus) -> String {
    let release = pass.status.release.as_ref().map_or(0, |release| release.number);
    let since = asked_since(pass).unwrap_or(state.started_at);
    // Once a look counts, what was asked before that is asked again.
    let since = shown_from.filter(|from| *from <= pass.now).map_or(since, |from| from.max(since));
    let began = state.started_at.as_millis();
    format!("metric/{}/{release}/{began}/{}/{}", state.name, since.as_millis(), state.measurements)
}

/// Takes in the last measurement.
fn listen(pass: &Pass<'_>, analysis: &Analysis, metric: &Metric, state: &mut VerdictStatus) {
    let id = id(pass, shown_from(pass, analysis, metric), state);
    let Some(answer) = pass.seen.answers.iter().find(|answer| answer.id == id) else { return };
    let counted = counted(pass, state);
    measuring::take_in(metric, counted, answer, state);
}

/// Measures again, when it is time.
fn measure(pass: &mut Pass<'_>, analysis: &Analysis, metric: &Metric, state: &VerdictStatus) {
    let counted = counted(pass, state);
    let last = state.measured_at.unwrap_or(state.started_at);
    // What is counted is of a whole interval.
    let counted_from = counted.filter(|_| metric.compare.is_some()).map(|counted| counted.since);
    if !pass.elapsed(counted_from.map_or(last, |from| from.max(last)), every(analysis)) {
        return;
    }
    let asked = |sides| measuring::asked(metric, &sides, counted, state);
    let Some(ask) = Sides::of(pass, analysis).and_then(asked) else { return };
    let id = id(pass, shown_from(pass, analysis, metric), state);
    pass.questions.push(Question { id, ask });
}

/// Puts it into the status, and tells of a change.
fn record(pass: &mut Pass<'_>, state: VerdictStatus) {
    let known = pass.status.verdicts.iter_mut().find(|known| known.name == state.name);
    let was = known.as_ref().filter(|known| known.measured_at.is_some()).map(|known| known.outcome);
    if state.measured_at.is_some() && was != Some(state.outcome) {
        let dry = if state.dry_run { " (dry run)" } else { "" };
        pass.events.push(Event {
            warning: state.outcome == VerdictOutcome::Fail && !state.dry_run,
            reason: format!("Verdict{:?}", state.outcome),
            action: "Analyzing".into(),
            note: format!("metric {}{dry}: {}", state.name, state.message),
        });
    }
    match known {
        Some(known) => *known = state,
        None => pass.status.verdicts.push(state),
    }
}
