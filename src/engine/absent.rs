//! Counters that are not there: `events` and `good` of a metric that select no series. A counter with a label may appear
//! with the first request that has it, so that no series of `events` is what a service without errors has, and what a wrong
//! label selects. A bucket of a histogram is there as soon as a request is.

use crate::api::{Metric, TallyStatus, VerdictOutcome, VerdictStatus, WindowStatus};

use super::inquiry::Absent;

/// What to do about `good` without a series.
pub const BUCKET: &str = "is there such a bucket (le), or label?";
/// What is said of `events` that no side has.
pub const UNSEEN: &str = "no series of events was ever seen";
/// What to do about it.
pub const QUERY: &str = "see that the query is right, a wrong label looks the same";

/// What is to be said of counts where series are absent, if anything is.
///
/// # Errors
/// When they cannot be judged, and why: without a series of `good` every request counts as bad, which would excuse any
/// candidate if stable has none. If only the candidate has none, all of its requests are bad or it has other buckets: it is
/// judged as bad, since one that answers nothing but errors looks like that.
pub fn of_sides(
    metric: &Metric,
    [candidate, stable]: [TallyStatus; 2],
    absent: Absent,
    state: &VerdictStatus,
) -> Result<Option<String>, String> {
    let requests = candidate.requests.saturating_add(stable.requests);
    match (is_of_good(metric), absent.candidate, absent.stable) {
        (true, true, true) if requests > 0 => {
            Err(format!("no series of good: neither candidate nor stable has one, of {requests} requests; {BUCKET}"))
        }
        (true, false, true) if stable.requests > 0 => {
            Err(format!("no series of good: stable has none, of {} requests; {BUCKET}", stable.requests))
        }
        (true, true, false) if candidate.requests > 0 => {
            Ok(Some(format!("no series of good: the candidate has none, all its requests count as bad; {BUCKET}")))
        }
        (false, true, true) if requests > 0 && !has_events(state) => {
            Ok(Some(format!("{UNSEEN}, on either side: {QUERY}")))
        }
        _ => Ok(None),
    }
}

/// The same of windows, where there is one side.
///
/// # Errors
/// When they cannot be judged, and why.
pub fn of_windows(metric: &Metric, windows: &[WindowStatus], absent: bool) -> Result<Option<String>, String> {
    let requests = windows.iter().map(|it| it.requests).max().unwrap_or(0);
    match is_of_good(metric) {
        _ if !absent || requests == 0 => Ok(None),
        true => Err(format!("no series of good, of {requests} requests; {BUCKET}")),
        false => Ok(Some(format!("{UNSEEN}: {QUERY}"))),
    }
}

/// A verdict, and before it what is to be said; nothing where there was nothing to judge.
pub fn noted(note: Option<String>, (outcome, message): (VerdictOutcome, String)) -> (VerdictOutcome, String) {
    let note = note.filter(|_| !message.starts_with("no data: "));
    (outcome, note.into_iter().chain([message]).collect::<Vec<_>>().join("; "))
}

/// Whether good requests are counted, not bad ones.
#[must_use]
pub fn is_of_good(metric: &Metric) -> bool {
    metric.prometheus.as_ref().is_some_and(|it| it.events.is_none())
}

/// Whether there were series of events before: those of pods that are gone are gone, too.
fn has_events(state: &VerdictStatus) -> bool {
    state.segments.iter().any(|it| it.candidate.events > 0 || it.stable.events > 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        api::{Duration, Timestamp},
        engine::{
            Answer, Reply,
            measuring::{Shared, begin, take_in},
        },
    };

    const BOTH: Absent = Absent { candidate: true, stable: true };
    const STABLE: Absent = Absent { candidate: false, stable: true };
    const CANDIDATE: Absent = Absent { candidate: true, stable: false };
    const NONE: Absent = Absent { candidate: false, stable: false };
    fn old() -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn metric(part: &str, limits: &str) -> Metric {
        let limits = match limits {
            "compare" => json!({"maxRatio": 1.5}),
            _ => json!({"objective": 0.999}),
        };
        let kind = if limits.get("maxRatio").is_some() { "compare" } else { "burnRate" };
        serde_json::from_value(json!({"name": "a", "prometheus": {"total": "t", part: "p"}, kind: limits})).unwrap()
    }

    fn taken(metric: &Metric, reply: Reply, state: &mut VerdictStatus) -> (VerdictOutcome, String) {
        let at = old().plus(Duration::from_secs(60));
        take_in(metric, Some(Shared { weight: 50, since: old() }), &Answer { id: "a".into(), at, reply }, state);
        (state.outcome, state.message.clone())
    }

    fn counts(candidate: (i64, i64), stable: (i64, i64), absent: Absent) -> Reply {
        let tally = |(requests, events)| TallyStatus { requests, events };
        let until = old().plus(Duration::from_secs(50));
        Reply::Counts { candidate: tally(candidate), stable: tally(stable), until, absent }
    }

    #[rstest]
    #[case::no_bucket("good", counts((132, 132), (132, 132), BOTH), VerdictOutcome::Inconclusive,
        "no data: no series of good: neither candidate nor stable has one, of 264 requests; is there such a bucket (le), or label? (max ratio 1.5)")]
    #[case::no_bucket_of_stable("good", counts((9000, 4500), (9000, 9000), STABLE), VerdictOutcome::Inconclusive,
        "no data: no series of good: stable has none, of 9000 requests; is there such a bucket (le), or label? (max ratio 1.5)")]
    #[case::nothing_but_errors("good", counts((900, 900), (900, 9), CANDIDATE), VerdictOutcome::Fail,
        "no series of good: the candidate has none, all its requests count as bad; is there such a bucket (le), or label?; 900 of 900 requests of the candidate, 9 of 900 of stable; ")]
    #[case::good("good", counts((9000, 9), (9000, 9), NONE), VerdictOutcome::Pass, "9 of 9000 requests of the candidate")]
    #[case::good_of_nobody("good", counts((0, 0), (0, 0), BOTH), VerdictOutcome::Inconclusive,
        "no data: no request of the candidate was counted")]
    #[case::no_such_label("events", counts((9000, 0), (9000, 0), BOTH), VerdictOutcome::Pass,
        "no series of events was ever seen, on either side: see that the query is right, a wrong label looks the same; 0 of 9000 requests of the candidate, 0 of 9000 of stable; ")]
    #[case::not_failed_yet("events", counts((900, 0), (900, 9), CANDIDATE), VerdictOutcome::Pass, "0 of 900 requests")]
    #[case::events_of_nobody("events", counts((0, 0), (0, 0), BOTH), VerdictOutcome::Inconclusive,
        "no data: no request of the candidate was counted")]
    fn counters_that_are_not_there_are_told(
        #[case] part: &str,
        #[case] reply: Reply,
        #[case] outcome: VerdictOutcome,
        #[case] message: &str,
    ) {
        let metric = metric(part, "compare");
        let mut state = begin(&metric, old());
        let found = taken(&metric, reply, &mut state);
        assert_eq!(found.0, outcome, "{}", found.1);
        assert!(found.1.starts_with(message), "{}", found.1);
    }

    #[test]
    fn events_that_were_there_before_are_known() {
        let metric = metric("events", "compare");
        let mut state = begin(&metric, old());
        taken(&metric, counts((900, 1), (900, 1), NONE), &mut state);
        let (_, message) = taken(&metric, counts((900, 0), (900, 0), BOTH), &mut state);
        assert!(message.starts_with("1 of 1800 requests of the candidate"), "{message}");
    }

    #[test]
    fn what_is_no_data_is_asked_for_again() {
        let metric = metric("good", "compare");
        let mut state = begin(&metric, old());
        taken(&metric, counts((132, 132), (132, 132), BOTH), &mut state);
        assert_eq!((state.segments.len(), state.counted_until), (0, None));
    }

    #[rstest]
    #[case::no_bucket(
        "good",
        1000,
        VerdictOutcome::Inconclusive,
        "no data: no series of good, of 1000 requests; is there such a bucket (le), or label? (objective 0.999)"
    )]
    #[case::no_such_label(
        "events",
        0,
        VerdictOutcome::Pass,
        "no series of events was ever seen: see that the query is right, a wrong label looks the same; burn rate of objective 0.999: 0 over 1h"
    )]
    fn so_they_are_of_windows(
        #[case] part: &str,
        #[case] events: i64,
        #[case] outcome: VerdictOutcome,
        #[case] message: &str,
    ) {
        let metric = metric(part, "burnRate");
        let window = |window| WindowStatus { window, requests: 1000, events };
        let windows = crate::engine::verdict::windows().into_iter().map(window).collect();
        let reply = Reply::Windows { windows, history: Duration::from_secs(4 * 86_400), absent: true };
        let found = taken(&metric, reply, &mut begin(&metric, old()));
        assert_eq!(found.0, outcome, "{}", found.1);
        assert!(found.1.starts_with(message), "{}", found.1);
    }
}
