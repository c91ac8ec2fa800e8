//! The verdict on counts of events: is the candidate worse than tolerated, is it good enough, or can it not be
//! told yet. Having found no harm is not enough to pass: something must have been looked at.

use super::counts::{MIN_EVENTS, RatioTest, Segment};

/// What is asked of the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The ratio of the candidate's rate of events to stable's that is tolerated: 1 or more.
    pub max_ratio: f64,
    /// The probability (between 0 and 1, otherwise 0.95) that a candidate within the tolerance never fails, however
    /// often one looks.
    pub confidence: f64,
    /// Events of the candidate below which it does not fail.
    pub min_events: u64,
    /// Requests to the candidate with which it passes if what was observed is within the tolerance. `u64::MAX`:
    /// only by the bound.
    pub min_requests: u64,
    /// Events of one cause: 1 or more ([`RatioTest::dispersion`]).
    pub dispersion: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_ratio: 1.5, confidence: 0.95, min_events: MIN_EVENTS, min_requests: 500, dispersion: 1.0 }
    }
}

impl Settings {
    const fn test(&self) -> RatioTest {
        RatioTest {
            tolerated: self.max_ratio,
            alpha: 1.0 - self.confidence,
            dispersion: self.dispersion,
            min_events: self.min_events,
        }
    }
}

/// What was seen since the candidate has traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// The events, by exposure.
    pub segments: Vec<Segment>,
    /// Requests that the candidate has served.
    pub candidate_requests: u64,
}

/// What follows for the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is good enough.
    Pass,
    /// It is worse than tolerated.
    Fail,
    /// It cannot be told yet.
    Inconclusive,
}

/// An outcome, and the numbers that it is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// What follows.
    pub outcome: Outcome,
    /// ln E: evidence for a ratio above the tolerated one. It fails at ln(1/alpha).
    pub ln_e: f64,
    /// ln(1/alpha).
    pub ln_threshold: f64,
    /// The upper bound of the ratio, if there is one yet. It passes at the tolerated one.
    pub bound: Option<f64>,
}

/// The verdict. Each look is judged by itself; that a candidate has failed once is for the caller to keep.
#[must_use]
pub fn judge(evidence: &Evidence, settings: &Settings) -> Verdict {
    let test = settings.test();
    let segments = &evidence.segments;
    let bound = test.upper_bound(segments);
    // Without requests of both sides there is nothing to compare.
    let compared = segments.iter().any(|segment| segment.exposure > 0.0 && segment.exposure < 1.0);
    let enough = evidence.candidate_requests >= settings.min_requests && settings.min_requests < u64::MAX;
    let outcome = if test.rejects(segments) {
        Outcome::Fail
    } else if bound.is_some_and(|bound| bound <= settings.max_ratio)
        || (compared && enough && !(test.has_events(segments) && test.is_above(segments)))
    {
        Outcome::Pass
    } else {
        Outcome::Inconclusive
    };
    Verdict { outcome, ln_e: test.ln_e(segments), ln_threshold: test.ln_threshold(), bound }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn seen(exposure: f64, candidate: u64, stable: u64, candidate_requests: u64) -> Evidence {
        Evidence { segments: vec![Segment { exposure, candidate, stable }], candidate_requests }
    }

    #[rstest]
    #[case::nothing_seen(Evidence::default(), Outcome::Inconclusive)]
    #[case::worse(seen(0.1, 40, 90, 300), Outcome::Fail)]
    #[case::worse_whatever_the_requests(seen(0.1, 40, 90, 1_000_000), Outcome::Fail)]
    #[case::too_few_events_to_fail(seen(0.05, 3, 0, 20), Outcome::Inconclusive)]
    #[case::enough_events_to_fail(seen(0.05, 4, 0, 20), Outcome::Fail)]
    #[case::as_good_by_the_bound(seen(0.5, 100, 110, 900), Outcome::Pass)]
    #[case::tolerably_worse(seen(0.5, 13, 10, 400), Outcome::Inconclusive)]
    #[case::no_events_in_enough_requests(seen(0.1, 0, 0, 500), Outcome::Pass)]
    #[case::observed_above_the_tolerance_in_enough_requests(seen(0.1, 20, 90, 2000), Outcome::Inconclusive)]
    #[case::observed_within_it_in_enough_requests(seen(0.1, 13, 90, 2000), Outcome::Pass)]
    #[case::few_events_do_not_keep_it(seen(0.1, 3, 9, 2000), Outcome::Pass)]
    #[case::nobody_to_compare_with(seen(1.0, 9, 0, 2000), Outcome::Inconclusive)]
    #[case::no_events_in_too_few_requests(seen(0.1, 0, 0, 499), Outcome::Inconclusive)]
    fn what_is_seen_decides(#[case] evidence: Evidence, #[case] expected: Outcome) {
        let verdict = judge(&evidence, &Settings::default());
        assert_eq!(verdict.outcome, expected, "{verdict:?}");
    }

    #[test]
    fn what_is_tolerated_is_not_failed() {
        let evidence = seen(0.5, 260, 200, 900);
        assert_ne!(judge(&evidence, &Settings::default()).outcome, Outcome::Fail);
        let strict = Settings { max_ratio: 1.0, ..Settings::default() };
        assert_eq!(judge(&seen(0.5, 300, 200, 900), &strict).outcome, Outcome::Fail);
    }

    #[test]
    fn requests_alone_pass_nothing_where_the_bound_is_asked_for() {
        let settings = Settings { min_requests: u64::MAX, ..Settings::default() };
        assert_eq!(judge(&seen(0.1, 0, 0, u64::MAX), &settings).outcome, Outcome::Inconclusive);
    }

    proptest! {
        #[test]
        fn any_evidence_has_a_verdict_by_its_own_numbers(
            exposure in 0.0..=1.0, candidate in 0..2000_u64, stable in 0..2000_u64, requests in any::<u64>(),
            max_ratio in any::<f64>(), confidence in any::<f64>(), dispersion in any::<f64>(),
        ) {
            let settings = Settings { max_ratio, confidence, dispersion, ..Settings::default() };
            let verdict = judge(&seen(exposure, candidate, stable, requests), &settings);
            prop_assert!(verdict.ln_e.is_finite() && verdict.ln_threshold > 0.0);
            let rejected = verdict.ln_e >= verdict.ln_threshold;
            prop_assert!(verdict.outcome != Outcome::Fail || rejected);
            let shown = verdict.bound.is_some_and(|bound| bound <= max_ratio);
            prop_assert!(verdict.outcome != Outcome::Inconclusive || !shown);
        }

        #[test]
        fn one_look_never_shows_both(exposure in 0.01..0.99, x in 0..3000_u64, y in 0..3000_u64, ratio in 1.0..10.0) {
            let settings = Settings { max_ratio: ratio, min_events: 0, ..Settings::default() };
            let verdict = judge(&seen(exposure, x, y, 0), &settings);
            let within = verdict.bound.is_some_and(|bound| bound <= ratio);
            prop_assert!(!(verdict.outcome == Outcome::Fail && within), "{verdict:?}");
        }
    }
}
