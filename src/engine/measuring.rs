//! A metric from its beginning to a verdict: what is asked, and what an answer means. Knows nothing of the release
//! around it, so that `kubectl srel analyze` judges the past by the same lines.

use crate::api::{
    Metric, Prometheus, ProviderError, Source, Timestamp, VerdictOutcome, VerdictStatus, Web,
    status::{MAX_TEXT, bounded},
};

use super::{
    absent,
    inquiry::{Answer, Ask, Counters, Measure, Reply},
    names::{Names, Sides},
    segments::count,
    verdict::{burnt, compared, enough, lacks_value, limit, no_data, windows, within},
};

/// How the traffic is shared. What was counted while it was shared otherwise says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The candidate's weight, in percent.
    pub weight: i32,
    /// Since when it has been reached.
    pub since: Timestamp,
}

/// A metric that is watched from a moment on, and of which nothing is known yet.
#[must_use]
pub fn begin(metric: &Metric, at: Timestamp) -> VerdictStatus {
    VerdictStatus {
        name: metric.name.clone(),
        outcome: VerdictOutcome::Inconclusive,
        message: String::new(),
        started_at: at,
        measured_at: None,
        passed_at: None,
        counted_until: None,
        measurements: 0,
        failures: 0,
        successes: 0,
        dry_run: metric.dry_run,
        refused: false,
        value: None,
        requests: None,
        segments: Vec::new(),
        windows: Vec::new(),
        history: None,
        ln_evidence: None,
        ratio_bound: None,
        recent: None,
    }
}

/// What is to be asked for the next measurement; none for `workload`, which nobody is asked about, and for `compare`
/// while nobody knows how the traffic is shared.
#[must_use]
pub fn asked(metric: &Metric, sides: &Sides, shared: Option<Shared>, state: &VerdictStatus) -> Option<Ask> {
    let (_, provider) = metric.provider()?;
    Some(Ask::Metric { provider: provider.to_owned(), measure: Box::new(measure(metric, sides, shared, state)?) })
}

fn measure(metric: &Metric, sides: &Sides, shared: Option<Shared>, state: &VerdictStatus) -> Option<Measure> {
    match metric.sources().next()? {
        Source::Prometheus(it) => by_prometheus(metric, it, sides, shared, state),
        Source::Web(Web { path, value, provider: _ }) => {
            Some(Measure::Web { path: sides.candidate.fill_encoded(path), value: value.clone() })
        }
        Source::Workload(_) => None,
    }
}

fn by_prometheus(
    metric: &Metric,
    it: &Prometheus,
    sides: &Sides,
    shared: Option<Shared>,
    state: &VerdictStatus,
) -> Option<Measure> {
    let Sides { candidate, stable, both } = sides;
    let Prometheus { query, requests, total, .. } = it;
    Some(match (query, total) {
        (Some(query), _) => Measure::Value {
            query: candidate.fill(query),
            requests: requests.as_ref().map(|text| candidate.fill(text)),
        },
        (None, Some(_)) if metric.burn_rate.is_some() => {
            Measure::Windows { counters: counters(metric, both)?, windows: windows() }
        }
        (None, Some(_)) => {
            let since = state.counted_until.unwrap_or(state.started_at).max(shared?.since);
            Measure::Counts { candidate: counters(metric, candidate)?, stable: of_stable(metric, stable)?, since }
        }
        (None, None) => return None,
    })
}

/// The counters of a side, if the metric has some.
#[must_use]
pub fn counters(metric: &Metric, names: &Names) -> Option<Counters> {
    let Prometheus { total, events, good, .. } = metric.prometheus.as_ref()?;
    Some(Counters {
        total: names.fill(total.as_ref()?),
        events: events.as_ref().map(|text| names.fill(text)),
        good: good.as_ref().map(|text| names.fill(text)),
    })
}

/// The same of stable, for which they may be others.
#[must_use]
pub fn of_stable(metric: &Metric, names: &Names) -> Option<Counters> {
    let usual = counters(metric, names)?;
    let Some(own) = metric.prometheus.as_ref().and_then(|it| it.stable.as_ref()) else { return Some(usual) };
    let fill = |text: &Option<String>| text.as_ref().map(|text| names.fill(text));
    Some(Counters {
        total: fill(&own.total).unwrap_or(usual.total),
        events: usual.events.and_then(|usual| fill(&own.events).or(Some(usual))),
        good: usual.good.and_then(|usual| fill(&own.good).or(Some(usual))),
    })
}

/// Takes in a measurement that was asked for while the traffic was shared like this, and judges.
pub fn take_in(metric: &Metric, shared: Option<Shared>, answer: &Answer, state: &mut VerdictStatus) {
    if let Reply::Noted { reply, note, whole } = &answer.reply {
        let passed_at = state.passed_at;
        let answer = Answer { reply: (**reply).clone(), ..answer.clone() };
        take_in(metric, shared, &answer, state);
        if !whole && state.outcome == VerdictOutcome::Pass {
            (state.outcome, state.passed_at) = (VerdictOutcome::Inconclusive, passed_at);
        }
        state.message = bounded(&format!("{}; {note}", state.message), MAX_TEXT);
        return;
    }
    state.measurements += 1;
    state.measured_at = Some(answer.at);
    state.refused = matches!(answer.reply, Reply::Refused(_));
    let (outcome, message) = match (&answer.reply, &metric.threshold, &metric.compare) {
        (Reply::Windows { windows, history, absent }, ..) => match absent::of_windows(metric, windows, *absent) {
            Ok(note) => absent::noted(note, burnt(windows, *history, metric, state)),
            Err(why) => lacks_value(no_data(metric, &why), metric, state),
        },
        (Reply::Value(value), Some(threshold), _) => within(*value, threshold, metric, state),
        (Reply::Share { value, requests }, Some(threshold), _) => {
            enough(*requests, threshold, metric, state).unwrap_or_else(|| within(*value, threshold, metric, state))
        }
        // Whatever noData says: there may be data, and nobody has looked.
        (Reply::Counts { until, .. }, _, Some(_)) if shared.is_some_and(|shared| *until <= shared.since) => {
            (VerdictOutcome::Inconclusive, "the samples of this weight are not there yet".into())
        }
        (Reply::Counts { candidate, stable, until, absent }, _, Some(compare)) => {
            match absent::of_sides(metric, [*candidate, *stable], *absent, state) {
                Ok(note) => {
                    if let Some(shared) = shared {
                        count(state, shared, *candidate, *stable);
                    }
                    state.counted_until = Some(*until);
                    absent::noted(note, compared(compare, metric, state))
                }
                // Nothing of it is counted: it is asked for again.
                Err(why) => lacks_value(no_data(metric, &why), metric, state),
            }
        }
        (Reply::NoData(why), ..) => lacks_value(no_data(metric, why), metric, state),
        (reply, ..) => match unanswered(reply, metric) {
            Some(lack) => lacks_value(lack, metric, state),
            None => (VerdictOutcome::Inconclusive, "the answer is none to this metric".into()),
        },
    };
    if outcome == VerdictOutcome::Pass {
        state.passed_at = Some(answer.at);
    }
    state.outcome = outcome;
    state.message = bounded(&message, MAX_TEXT);
}

/// What it means that there was no answer to the metric; none where there was one.
#[must_use]
pub fn unanswered(reply: &Reply, metric: &Metric) -> Option<(VerdictOutcome, String)> {
    let why = match reply {
        Reply::ProviderError(why) | Reply::Senseless(why) => why.clone(),
        Reply::Refused(why) => format!("{why}: {}", correction(metric)),
        // Whoever names one that there is not is told before the release begins: the platform has taken it away since. That
        // says nothing of the candidate, whatever providerError says.
        Reply::NoProvider(why) => return Some((VerdictOutcome::Inconclusive, why.clone())),
        _ => return None,
    };
    let outcome = match metric.provider_error {
        ProviderError::Hold => VerdictOutcome::Inconclusive,
        ProviderError::Fail => VerdictOutcome::Fail,
    };
    Some((outcome, format!("{}: {why} ({})", source(metric), limit(metric))))
}

/// What of a metric is to be corrected, for people: it may be a template's.
fn correction(metric: &Metric) -> &'static str {
    match &metric.prometheus {
        Some(it) if it.query.is_some() => "correct the metric's prometheus.query",
        Some(_) => "correct the metric's prometheus.total and events",
        None => "correct the metric's web.value",
    }
}

/// Who is asked, for people.
fn source(metric: &Metric) -> String {
    match metric.provider() {
        Some(("prometheus", name)) => format!("Prometheus {name}"),
        Some((_, name)) => format!("provider {name}"),
        None => String::new(),
    }
}
