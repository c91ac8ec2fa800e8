//! What a measurement means: the verdict, with the value, the limit and the window for people.

use crate::{
    api::{
        BurnRate, Compare, Duration, Metric, NoData, SegmentStatus, Threshold, VerdictOutcome, VerdictStatus,
        WindowStatus,
    },
    judge::{
        self,
        burn_rate::{self, Burn, Errors, WINDOWS},
    },
};

use super::{
    segments::{begin_anew, evidence, sums},
    workload,
};

/// What it means that there was nothing to measure.
pub fn no_data(metric: &Metric, why: &str) -> (VerdictOutcome, String) {
    let outcome = match metric.no_data {
        NoData::Hold => VerdictOutcome::Inconclusive,
        NoData::Fail => VerdictOutcome::Fail,
        NoData::Ignore => VerdictOutcome::Ignored,
    };
    (outcome, format!("no data: {why} ({})", limit(metric)))
}

/// Counts what fails for want of a value among the bad values in a row, of which failureThreshold says how many fail the
/// metric.
pub fn lacks_value(
    (outcome, message): (VerdictOutcome, String),
    metric: &Metric,
    state: &mut VerdictStatus,
) -> (VerdictOutcome, String) {
    if outcome != VerdictOutcome::Fail || metric.failure_threshold <= 1 {
        return (outcome, message);
    }
    (state.failures, state.successes) = (state.failures.saturating_add(1), 0);
    let (count, needed) = (state.failures, metric.failure_threshold);
    let outcome = if count < needed { VerdictOutcome::Inconclusive } else { VerdictOutcome::Fail };
    (outcome, format!("{message}, {count} of {needed} in a row"))
}

/// What the metric must be like, for people.
pub fn limit(metric: &Metric) -> String {
    let Metric { threshold, compare, burn_rate, workload, .. } = metric;
    let threshold = threshold.map(|limits| bounds(&limits));
    let compare = || compare.map(|it| format!("max ratio {}", it.max_ratio));
    let burn_rate = || burn_rate.map(|it| format!("objective {}", it.objective));
    let workload = || workload.as_ref().map(workload::limits);
    threshold.or_else(compare).or_else(burn_rate).or_else(workload).unwrap_or_default()
}

fn bounds(limits: &Threshold) -> String {
    let bound = |name: &str, limit: Option<f64>| limit.map(|limit| format!("{name} {limit}"));
    let bounds: Vec<String> = [bound("min", limits.min), bound("max", limits.max)].into_iter().flatten().collect();
    bounds.join(", ")
}

/// What follows if a value is of too few requests; none if it is of enough.
pub fn enough(
    requests: f64,
    limits: &Threshold,
    metric: &Metric,
    state: &mut VerdictStatus,
) -> Option<(VerdictOutcome, String)> {
    state.requests = Some(exact(requests));
    let least = limits.min_requests.unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "no limit needs more than 53 bits")]
    let few = requests < least as f64;
    let found = few.then(|| {
        no_data(metric, &format!("the value is of {} requests, at least {least} are needed", shown(requests)))
    });
    found.map(|found| lacks_value(found, metric, state))
}

/// A value against its limits.
pub fn within(value: f64, limits: &Threshold, metric: &Metric, state: &mut VerdictStatus) -> (VerdictOutcome, String) {
    let beyond = limits.max.is_some_and(|max| value > max) || limits.min.is_some_and(|min| value < min);
    state.failures = if beyond { state.failures + 1 } else { 0 };
    state.value = Some(exact(value));
    state.successes = if beyond || metric.success_threshold <= 1 { 0 } else { state.successes + 1 };
    let (count, needed) = match beyond {
        true => (state.failures, metric.failure_threshold),
        false => (state.successes, metric.success_threshold),
    };
    let times = if needed > 1 { format!(", {count} of {needed} in a row") } else { String::new() };
    let outcome = match beyond {
        _ if needed > 1 && count < needed => VerdictOutcome::Inconclusive,
        true => VerdictOutcome::Fail,
        false => VerdictOutcome::Pass,
    };
    (outcome, format!("{} ({}){times}", beside(value, limits), bounds(limits)))
}

/// A value for people, with all its digits where fewer would make it look like a limit that it is not.
fn beside(value: f64, limits: &Threshold) -> String {
    let looks_like = |limit: f64| limit.total_cmp(&value).is_ne() && shown(limit) == shown(value);
    if [limits.min, limits.max].into_iter().flatten().any(looks_like) { exact(value) } else { shown(value) }
}

/// A number with all its digits, so that whoever reads it has the very same.
fn exact(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-5..1e15).contains(&size) { format!("{value}") } else { format!("{value:e}") }
}

/// What was counted so far, candidate against stable: of all, and of late.
pub fn compared(compare: &Compare, metric: &Metric, state: &mut VerdictStatus) -> (VerdictOutcome, String) {
    let found = judge::judge(&evidence(state), &compare.settings());
    state.ln_evidence = Some(shown(found.harm.ln_e));
    state.ratio_bound = found.bound.map(shown);
    if let (Some(recent), Some(lately)) = (&mut state.recent, found.harm.lately) {
        recent.ln_evidence = Some(shown(lately.ln_e));
        recent.ln_threshold = Some(shown(lately.ln_threshold));
    }
    let told = told_of_both(&found, compare, state);
    // What a failure rests on stays.
    if found.harm.begins_anew && found.outcome != judge::Outcome::Fail {
        begin_anew(state, state.counted_until.unwrap_or(state.started_at));
    }
    let [candidate, _] = sums(&state.segments);
    if candidate.requests == 0 {
        return no_data(metric, "no request of the candidate was counted");
    }
    let outcome = match found.outcome {
        judge::Outcome::Pass => VerdictOutcome::Pass,
        judge::Outcome::Fail => VerdictOutcome::Fail,
        judge::Outcome::Inconclusive => VerdictOutcome::Inconclusive,
    };
    (outcome, told)
}

/// The counts and what they say, for people: those of all, unless it is those of late that speak against the candidate.
fn told_of_both(found: &judge::Verdict, compare: &Compare, state: &VerdictStatus) -> String {
    let counts = |segments: &[SegmentStatus]| {
        let [candidate, stable] = sums(segments);
        format!(
            "{} of {} requests of the candidate, {} of {} of stable",
            candidate.events, candidate.requests, stable.events, stable.requests
        )
    };
    let (harm, max_ratio) = (found.harm, compare.max_ratio);
    let (all, ln_e, limit) = (counts(&state.segments), shown(harm.ln_e), shown(harm.ln_threshold));
    let of_late = harm.lately.filter(|it| it.doubts && harm.ln_e < harm.ln_threshold);
    if let (Some(lately), Some(recent)) = (of_late, &state.recent) {
        let (perhaps, half) = match lately.fails {
            true => ("", String::new()),
            false => ("perhaps ", format!(", no Pass from {}", shown(judge::DOUBT * lately.ln_threshold))),
        };
        let (counts, since) = (counts(&recent.segments), recent.since);
        let (own, limit) = (shown(lately.ln_e), shown(lately.ln_threshold));
        return format!(
            "{perhaps}worse of late: since {since} {counts}; ln E {own} (fails at {limit}{half}), max ratio {max_ratio}; in all ln E {ln_e}"
        );
    }
    let bound = found.bound.map(|bound| format!(", it is below {}", shown(bound))).unwrap_or_default();
    format!("{all}; ln E {ln_e} (fails at {limit}), max ratio {max_ratio}{bound}")
}

/// A number with as many digits as people read.
fn shown(value: f64) -> String {
    let size = value.abs();
    match () {
        () if value == value.trunc() && size < 1e15 => format!("{value}"),
        () if (1e-3..1e6).contains(&size) => {
            format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        () => format!("{value:.3e}"),
    }
}

/// The windows of all pairs, shortest first.
pub fn windows() -> Vec<Duration> {
    let mut all: Vec<Duration> = WINDOWS.iter().flat_map(|pair| [length(pair.long), length(pair.short)]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn length(window: std::time::Duration) -> Duration {
    Duration::from_secs(window.as_secs())
}

/// How fast the budget of the objective was spent. A pair of windows is judged once the counters reach back
/// beyond its shorter one: before that both would be the same.
pub fn burnt(
    windows: &[WindowStatus],
    history: Duration,
    metric: &Metric,
    state: &mut VerdictStatus,
) -> (VerdictOutcome, String) {
    state.windows = windows.to_vec();
    state.history = Some(history);
    let Some(limits) = metric.burn_rate else { return no_data(metric, "the metric has no objective") };
    let errors = WINDOWS.map(|pair| pair_errors(&pair, windows, history, limits));
    if let Some(burn) = burn_rate::burning(limits.objective, &errors) {
        return (VerdictOutcome::Fail, burning(&burn, windows, limits));
    }
    let judged = |(pair, errors): (&burn_rate::Window, &Errors)| {
        let rate = burn_rate::rate(errors.long?, limits.objective);
        Some(format!("{} over {} (max {})", shown(rate), length(pair.long), pair.factor))
    };
    let judged: Vec<String> = WINDOWS.iter().zip(&errors).filter_map(judged).collect();
    if judged.is_empty() {
        let requests = windows.iter().map(|it| it.requests).max().unwrap_or(0);
        return no_data(metric, &format!("{requests} requests, counted for {history}"));
    }
    let reach = if judged.len() < WINDOWS.len() { format!("; counted for {history}") } else { String::new() };
    let message = format!("burn rate of objective {}: {}{reach}", limits.objective, judged.join(", "));
    (VerdictOutcome::Pass, message)
}

fn counted(windows: &[WindowStatus], window: std::time::Duration) -> Option<WindowStatus> {
    windows.iter().copied().find(|it| it.window == length(window) && it.requests > 0)
}

/// The shares of errors in a pair of windows; none where too little was counted.
fn pair_errors(pair: &burn_rate::Window, windows: &[WindowStatus], history: Duration, limits: BurnRate) -> Errors {
    let Some(long) = counted(windows, pair.long).filter(|_| history > length(pair.short)) else {
        return Errors::default();
    };
    #[expect(clippy::cast_precision_loss, reason = "no share needs more than 53 bits")]
    let share = |it: WindowStatus| it.events as f64 / it.requests as f64;
    // Of so few events none is a rate: they are there, and do not burn.
    let short = counted(windows, pair.short).filter(|_| long.events >= limits.min_events);
    Errors { long: Some(share(long)), short: short.map(share) }
}

fn burning(burn: &Burn, windows: &[WindowStatus], limits: BurnRate) -> String {
    let Burn { window, long, short } = burn;
    let told = |length: std::time::Duration| {
        let it = counted(windows, length)?;
        Some(format!("{} of {} requests failed in {}", it.events, it.requests, it.window))
    };
    let counts: Vec<String> = [told(window.long), told(window.short)].into_iter().flatten().collect();
    format!(
        "burn rate {} over {} and {} over {} (max {}, objective {}): {}",
        shown(*long),
        length(window.long),
        shown(*short),
        length(window.short),
        window.factor,
        limits.objective,
        counts.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::api::Timestamp;

    #[rstest]
    #[case(0.123_456_789, "0.123456789", "0.1235 (max 0.05)")]
    #[case(0.050_000_4, "0.0500004", "0.0500004 (max 0.05)")]
    #[case(0.05, "0.05", "0.05 (max 0.05)")]
    #[case(1.0 / 3.0, "0.3333333333333333", "0.3333 (max 0.05)")]
    #[case(1e-9, "1e-9", "1.000e-9 (max 0.05)")]
    #[case(f64::INFINITY, "inf", "inf (max 0.05)")]
    fn a_value_is_kept_with_all_its_digits_and_told_with_as_many_as_tell_it_from_the_limit(
        #[case] value: f64,
        #[case] kept: &str,
        #[case] told: &str,
    ) {
        let metric = serde_json::json!({"name": "a", "prometheus": {"query": "a"}, "threshold": {"max": 0.05}});
        let metric: Metric = serde_json::from_value(metric).unwrap();
        let mut state = super::super::measuring::begin(&metric, Timestamp::from_millis(0));
        let (_, message) = within(value, &metric.threshold.unwrap(), &metric, &mut state);
        assert_eq!((state.value.as_deref(), message.as_str()), (Some(kept), told));
    }

    fn spent(counts: [(i64, i64); 5], history: u64, min_events: i64) -> (VerdictOutcome, String) {
        let metric = serde_json::json!({
            "name": "budget", "prometheus": {"total": "a", "events": "b"},
            "burnRate": {"objective": 0.999, "minEvents": min_events},
        });
        let metric: Metric = serde_json::from_value(metric).unwrap();
        let window = |(window, (requests, events))| WindowStatus { window, requests, events };
        let windows: Vec<WindowStatus> = windows().into_iter().zip(counts).map(window).collect();
        let mut state: VerdictStatus = serde_json::from_value(
            serde_json::json!({"name": "budget", "outcome": "Pass", "startedAt": "2026-01-01T00:00:00Z"}),
        )
        .unwrap();
        let found = burnt(&windows, Duration::from_secs(history), &metric, &mut state);
        assert_eq!((state.windows.len(), state.history), (5, Some(Duration::from_secs(history))));
        found
    }

    const DAYS: u64 = 3 * 86_400;

    #[rstest]
    #[case::quick([(100, 3), (600, 10), (1000, 20), (6000, 20), (90_000, 20)], DAYS, VerdictOutcome::Fail,
        "burn rate 20 over 1h and 30 over 5m (max 14.4, objective 0.999): 20 of 1000 requests failed in 1h, 3 of 100 requests failed in 5m")]
    #[case::over([(100, 0), (600, 10), (1000, 20), (6000, 20), (90_000, 20)], DAYS, VerdictOutcome::Pass,
        "burn rate of objective 0.999: 20 over 1h (max 14.4), 3.3333 over 6h (max 6), 0.2222 over 72h (max 1)")]
    #[case::slow([(100, 0), (600, 0), (1000, 0), (6000, 12), (90_000, 180)], DAYS, VerdictOutcome::Fail,
        "burn rate 2 over 72h and 2 over 6h (max 1, objective 0.999): 180 of 90000 requests failed in 72h, 12 of 6000 requests failed in 6h")]
    #[case::a_young_service([(100, 0), (1000, 2), (1500, 3), (1500, 3), (1500, 3)], 3600, VerdictOutcome::Pass,
        "burn rate of objective 0.999: 2 over 1h (max 14.4), 2 over 6h (max 6); counted for 1h")]
    #[case::too_young([(100, 50), (100, 50), (100, 50), (100, 50), (100, 50)], 300, VerdictOutcome::Inconclusive,
        "no data: 100 requests, counted for 5m (objective 0.999)")]
    #[case::nobody_called([(0, 0); 5], DAYS, VerdictOutcome::Inconclusive,
        "no data: 0 requests, counted for 72h (objective 0.999)")]
    fn a_budget_is_spent_too_fast_if_both_windows_of_a_pair_say_so(
        #[case] counts: [(i64, i64); 5],
        #[case] history: u64,
        #[case] outcome: VerdictOutcome,
        #[case] message: &str,
    ) {
        assert_eq!(spent(counts, history, 4), (outcome, message.to_owned()));
    }

    #[test]
    fn a_few_events_are_no_rate() {
        let one = [(10, 3), (10, 3), (20, 3), (20, 3), (20, 3)];
        assert_eq!(spent(one, DAYS, 4).0, VerdictOutcome::Pass);
        assert_eq!(spent(one, DAYS, 3).0, VerdictOutcome::Fail);
    }
}
