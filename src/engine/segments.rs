//! What was counted, in segments of one exposure each: the share of the requests that the candidate had. Errors of both
//! sides that have one cause are no evidence against the candidate as long as they are compared under the share that
//! they happened at; so what was counted under different ones is kept apart.

use crate::{
    api::{
        RecentStatus, SegmentStatus, TallyStatus, Timestamp, VerdictStatus,
        evidence::{MAX_RECENT_SEGMENTS, MAX_SEGMENTS},
    },
    judge::{
        self,
        pool::{nearest, pooled},
    },
};

use super::measuring::Shared;

/// Standard deviations beyond which a look's share of the requests is not that of the segment by chance.
const DEVIATIONS: f64 = 3.0;

/// What the share may differ by all the same, of the smaller side's.
const ALIKE: f64 = 0.05;

/// Adds a look to what was counted, of all and of late.
pub fn count(state: &mut VerdictStatus, shared: Shared, candidate: TallyStatus, stable: TallyStatus) {
    if candidate.requests == 0 && stable.requests == 0 {
        return;
    }
    put(&mut state.segments, MAX_SEGMENTS, shared, [candidate, stable]);
    if let Some(recent) = &mut state.recent {
        put(&mut recent.segments, MAX_RECENT_SEGMENTS, shared, [candidate, stable]);
    }
}

/// Adds a look to segments, of which there are to be no more than so many.
fn put(segments: &mut Vec<SegmentStatus>, most: usize, shared: Shared, [candidate, stable]: [TallyStatus; 2]) {
    let Shared { weight, since } = shared;
    let goes_on = |last: &&mut SegmentStatus| {
        (last.weight, last.since) == (weight, Some(since)) && is_alike(last, candidate, stable)
    };
    if let Some(last) = segments.last_mut().filter(goes_on) {
        add(&mut last.candidate, candidate);
        add(&mut last.stable, stable);
        return;
    }
    segments.push(SegmentStatus { weight, since: Some(since), exposure: None, candidate, stable });
    while segments.len() > most {
        shorten(segments);
    }
}

/// Whether requests were shared at this look as they were before. By ratio pods that fail, and an autoscaler, change
/// that within a step.
fn is_alike(last: &SegmentStatus, candidate: TallyStatus, stable: TallyStatus) -> bool {
    let all = |candidate: TallyStatus, stable: TallyStatus| number(candidate.requests.saturating_add(stable.requests));
    let (before, now) = (all(last.candidate, last.stable), all(candidate, stable));
    let together = (number(last.candidate.requests) + number(candidate.requests)) / (before + now).max(1.0);
    let deviation = (together * (1.0 - together) * (before.max(1.0).recip() + now.max(1.0).recip())).sqrt();
    let difference = (share(last.candidate, last.stable) - share(candidate, stable)).abs();
    difference <= (DEVIATIONS * deviation).max(ALIKE * together.min(1.0 - together))
}

/// Puts two together that are counted to their end: those that lose least by it.
fn shorten(segments: &mut Vec<SegmentStatus>) {
    let open = segments.len().saturating_sub(1);
    let ended: Vec<judge::Segment> = segments[..open].iter().map(judged).collect();
    let Some((one, other)) = nearest(&ended) else {
        // There is none that another could be put to honestly. What is dropped is no evidence, for nobody.
        segments.remove(0);
        return;
    };
    let removed = segments.remove(one);
    let whole = &mut segments[other - 1];
    add(&mut whole.candidate, removed.candidate);
    add(&mut whole.stable, removed.stable);
    whole.exposure = Some(format!("{:.9}", pooled(&ended[one], &ended[other]).exposure));
}

const fn add(sum: &mut TallyStatus, more: TallyStatus) {
    sum.requests = sum.requests.saturating_add(more.requests);
    sum.events = sum.events.saturating_add(more.events);
}

#[expect(clippy::cast_precision_loss, reason = "no share needs more than 53 bits")]
const fn number(count: i64) -> f64 {
    count as f64
}

fn whole(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The candidate's share of the requests.
fn share(candidate: TallyStatus, stable: TallyStatus) -> f64 {
    number(candidate.requests) / number(candidate.requests.saturating_add(stable.requests).max(1))
}

/// A segment as the judge takes it.
fn judged(it: &SegmentStatus) -> judge::Segment {
    let written = it.exposure.as_ref().and_then(|text| text.parse().ok());
    judge::Segment {
        exposure: written.unwrap_or_else(|| share(it.candidate, it.stable)),
        candidate: whole(it.candidate.events),
        stable: whole(it.stable.events),
    }
}

/// What was counted, as the judge takes it.
pub fn evidence(state: &VerdictStatus) -> judge::Evidence {
    let requests = state.segments.iter().map(|it| whole(it.candidate.requests)).fold(0, u64::saturating_add);
    let recent = state.recent.as_ref().map(|recent| judge::Recent {
        restarts: u32::try_from(recent.restarts).unwrap_or(1),
        segments: recent.segments.iter().map(judged).collect(),
    });
    judge::Evidence { segments: state.segments.iter().map(judged).collect(), candidate_requests: requests, recent }
}

/// What is counted of late begins anew, with what is counted from a look on.
pub fn begin_anew(state: &mut VerdictStatus, since: Timestamp) {
    let before = state.recent.as_ref().map_or(0, |recent| recent.restarts);
    let restarts = before.saturating_add(1);
    let segments = Vec::new();
    state.recent = Some(RecentStatus { since, restarts, segments, ln_evidence: None, ln_threshold: None });
}

/// The requests and events of all segments, of the candidate and of stable.
pub fn sums(segments: &[SegmentStatus]) -> [TallyStatus; 2] {
    let mut all = [TallyStatus::default(); 2];
    for segment in segments {
        add(&mut all[0], segment.candidate);
        add(&mut all[1], segment.stable);
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        api::{Compare, Metric, Timestamp, VerdictOutcome},
        engine::{measuring::begin, verdict::compared},
    };

    fn metric(max_ratio: f64) -> Metric {
        serde_json::from_value(json!({
            "name": "errors", "prometheus": {"total": "t", "events": "e"}, "compare": {"maxRatio": max_ratio},
        }))
        .unwrap()
    }

    /// Looks at these weights, in percent, with so many requests each, of which this share fails on both sides.
    fn looked(looks: &[(i32, i64, f64)]) -> VerdictStatus {
        let mut state = begin(&metric(1.5), Timestamp::from_millis(0));
        for (at, (weight, requests, errors)) in (1..).zip(looks) {
            #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
            let tally = |requests: i64| TallyStatus { requests, events: (number(requests) * errors).round() as i64 };
            let candidate = requests * i64::from(*weight) / 100;
            let shared = Shared { weight: *weight, since: Timestamp::from_millis(at * 1000) };
            count(&mut state, shared, tally(candidate), tally(requests - candidate));
        }
        state
    }

    fn verdict(state: &mut VerdictStatus, max_ratio: f64) -> (VerdictOutcome, String) {
        let metric = metric(max_ratio);
        let compare: Compare = metric.compare.unwrap();
        compared(&compare, &metric, state)
    }

    const HOUR: i64 = 360_000;

    /// An hour at 10%, and then looks of 15 s while ten pods are replaced by ratio; in one of them a dependency of both
    /// sides is away.
    fn by_ratio(incident: usize) -> Vec<(i32, i64, f64)> {
        let weights = [20, 30, 30, 40, 50, 60, 60, 70, 80, 90, 90];
        let looks = weights.iter().enumerate();
        let looks = looks.map(|(place, weight)| (*weight, 1500, if place == incident { 0.3 } else { 0.001 }));
        [(10, HOUR, 0.001)].into_iter().chain(looks).collect()
    }

    /// Steps of 5%, ten minutes each, with an incident of both sides at 25%.
    fn by_fives() -> Vec<(i32, i64, f64)> {
        (1..20).map(|it| (5 * it, 6000, if it == 5 { 0.3 } else { 0.001 })).collect()
    }

    #[rstest]
    #[case::at_the_first_look(&by_ratio(0))]
    #[case::at_the_second_look(&by_ratio(1))]
    #[case::in_the_middle(&by_ratio(4))]
    #[case::at_the_end(&by_ratio(10))]
    #[case::by_fives(&by_fives())]
    fn an_incident_of_both_sides_fails_no_candidate(
        #[case] looks: &[(i32, i64, f64)],
        #[values(1.0, 1.5)] max_ratio: f64,
    ) {
        for seen in 1..=looks.len() {
            let mut state = looked(&looks[..seen]);
            let (outcome, message) = verdict(&mut state, max_ratio);
            assert_ne!(outcome, VerdictOutcome::Fail, "after {seen} looks: {message}; {:?}", state.segments);
        }
    }

    #[test]
    fn a_bad_candidate_fails_also_over_many_exposures() {
        let mut state = looked(&by_fives());
        for segment in &mut state.segments {
            segment.candidate.events *= 3;
        }
        let (outcome, message) = verdict(&mut state, 1.5);
        assert_eq!(outcome, VerdictOutcome::Fail, "{message}");
    }

    #[test]
    fn segments_that_are_put_together_say_by_which_share_they_are_judged() {
        let state = looked(&by_fives());
        assert_eq!(state.segments.len(), MAX_SEGMENTS);
        let requests: i64 = state.segments.iter().map(|it| it.candidate.requests + it.stable.requests).sum();
        assert_eq!(requests, 19 * 6000, "none is lost");
        let incident = state.segments.iter().find(|it| it.stable.events > 1000).unwrap();
        let exposure: f64 = incident.exposure.as_ref().map_or(0.25, |text| text.parse().unwrap());
        assert!((exposure - 0.25).abs() < 0.002, "{incident:?}");
        let last = state.segments.last().unwrap();
        assert_eq!((last.weight, &last.exposure), (95, &None), "{last:?}");
        let pooled = state.segments.iter().filter_map(|it| it.exposure.as_ref());
        assert!(pooled.clone().count() > 3 && pooled.clone().all(|text| text.len() == 11), "{:?}", state.segments);
    }

    #[test]
    fn what_is_counted_of_late_is_bounded_and_takes_nothing_from_all() {
        let mut state = looked(&[(10, HOUR, 0.001)]);
        begin_anew(&mut state, Timestamp::from_millis(1));
        begin_anew(&mut state, Timestamp::from_millis(2));
        for (at, weight) in (10..).zip([20, 35, 50, 65, 80, 95]) {
            let tally = |requests| TallyStatus { requests, events: 9 };
            let shared = Shared { weight, since: Timestamp::from_millis(at * 1000) };
            count(&mut state, shared, tally(i64::from(weight) * 10), tally(1000 - i64::from(weight) * 10));
        }
        let recent = state.recent.clone().unwrap();
        assert_eq!(
            (recent.restarts, recent.since, recent.segments.len()),
            (2, Timestamp::from_millis(2), MAX_RECENT_SEGMENTS)
        );
        let [[own, other], [all, all_other]] = [sums(&recent.segments), sums(&state.segments)];
        assert_eq!((own.requests + other.requests, own.events, other.events), (6000, 54, 54));
        assert_eq!(all.requests + all_other.requests, HOUR + 6000, "{all:?}");
        assert!(recent.segments.iter().any(|it| it.exposure.is_some()));
    }

    proptest! {
        #[test]
        fn pooled_of_late_they_never_make_more_of_a_case(
            looks in prop::collection::vec((1..100_i32, 0..40_i64, 0..40_i64), 1..15),
        ) {
            let mut state = looked(&[(50, HOUR, 0.001)]);
            begin_anew(&mut state, Timestamp::from_millis(1));
            let mut apart = Vec::new();
            for (at, (weight, own, other)) in (10..).zip(looks) {
                let tally = |requests, events| TallyStatus { requests, events };
                let shared = Shared { weight, since: Timestamp::from_millis(at * 1000) };
                let (candidate, stable) = (tally(i64::from(weight) * 10, own), tally(1000 - i64::from(weight) * 10, other));
                count(&mut state, shared, candidate, stable);
                apart.push(judge::Segment { exposure: share(candidate, stable), candidate: whole(own), stable: whole(other) });
            }
            let test = judge::counts::RatioTest { tolerated: 1.5, ..Default::default() };
            let pooled = evidence(&state).recent.unwrap().segments;
            prop_assert!(pooled.len() <= MAX_RECENT_SEGMENTS);
            prop_assert!(test.ln_e(&pooled) <= test.ln_e(&apart) + 1e-6, "{pooled:?}");
        }
    }

    #[test]
    fn while_requests_are_shared_alike_the_segment_goes_on() {
        let shared = Shared { weight: 50, since: Timestamp::from_millis(1000) };
        let mut state = looked(&[]);
        let mut look = |candidate: i64, stable: i64| {
            let tally = |requests| TallyStatus { requests, events: 0 };
            count(&mut state, shared, tally(candidate), tally(stable));
            state.segments.len()
        };
        assert_eq!([look(5, 1), look(40, 40), look(500, 510), look(5000, 5200)], [1; 4], "by chance");
        assert_eq!(look(3000, 6000), 2, "half of the candidate's pods fail");
        assert_eq!(look(3100, 6000), 2);
        assert_eq!(look(5000, 5000), 3, "they are back");
        assert!(state.segments.iter().all(|it| it.since == Some(shared.since) && it.weight == 50));
    }
}
