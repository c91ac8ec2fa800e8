//! The verdict on counts of events: is the candidate worse than tolerated, is it good enough, or can it not be
//! told yet. Having found no harm is not enough to pass: something must have been looked at. Two tests look for harm, in
//! all that was counted and in what was counted lately; each has half of the false alarms.

use super::{
    counts::{MIN_EVENTS, RatioTest, Segment},
    level,
    recent::{Lately, Recent, has_fallen},
};

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
    /// The test by which the bound holds.
    const fn test(&self) -> RatioTest {
        RatioTest {
            tolerated: self.max_ratio,
            alpha: level(1.0 - self.confidence),
            dispersion: self.dispersion,
            min_events: self.min_events,
        }
    }

    /// The one of all that was counted, with half of the false alarms.
    const fn of_all(&self) -> RatioTest {
        let test = self.test();
        RatioTest { alpha: test.alpha / 2.0, ..test }
    }
}

/// What was seen since the candidate has traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// The events, by exposure.
    pub segments: Vec<Segment>,
    /// Requests that the candidate has served.
    pub candidate_requests: u64,
    /// What of it was counted since the test of late began anew; none before it first did.
    pub recent: Option<Recent>,
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

/// What speaks against the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Harm {
    /// ln E of all that was counted: evidence for a ratio above the tolerated one. It fails at ln(2/alpha).
    pub ln_e: f64,
    /// ln(2/alpha).
    pub ln_threshold: f64,
    /// What was counted lately says, where that is not all.
    pub lately: Option<Lately>,
    /// It fails by one of the two, or both.
    pub fails: bool,
    /// Whether the test of what was counted lately begins anew, with what comes.
    pub begins_anew: bool,
}

/// An outcome, and the numbers that it is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// What follows.
    pub outcome: Outcome,
    /// What speaks against the candidate.
    pub harm: Harm,
    /// The upper bound of the ratio over all that was counted, at confidence, if there is one yet. It passes at the
    /// tolerated one.
    pub bound: Option<f64>,
}

/// What speaks against the candidate at a look.
#[must_use]
pub fn harm(evidence: &Evidence, settings: &Settings) -> Harm {
    let of_all = settings.of_all();
    let (segments, recent) = (&evidence.segments, evidence.recent.as_ref());
    let lately = recent.map(|recent| recent.look(&of_all));
    Harm {
        ln_e: of_all.ln_e(segments),
        ln_threshold: of_all.ln_threshold(),
        lately,
        fails: of_all.rejects(segments) || lately.is_some_and(|it| it.fails),
        begins_anew: has_fallen(&of_all, recent.map_or(segments, |recent| &recent.segments)),
    }
}

/// The verdict. Each look is judged by itself; that a candidate has failed once is for the caller to keep, and so is what
/// was counted since the test of late began anew.
#[must_use]
pub fn judge(evidence: &Evidence, settings: &Settings) -> Verdict {
    let (test, segments) = (settings.test(), &evidence.segments);
    let harm = harm(evidence, settings);
    let bound = test.upper_bound(segments);
    // Without requests of both sides there is nothing to compare.
    let compared = segments.iter().any(|segment| segment.exposure > 0.0 && segment.exposure < 1.0);
    let enough = evidence.candidate_requests >= settings.min_requests && settings.min_requests < u64::MAX;
    let good = bound.is_some_and(|bound| bound <= settings.max_ratio)
        || (compared && enough && !(test.has_events(segments) && test.is_above(segments)));
    let outcome = match () {
        () if harm.fails => Outcome::Fail,
        () if good && !harm.lately.is_some_and(|it| it.doubts) => Outcome::Pass,
        () => Outcome::Inconclusive,
    };
    Verdict { outcome, harm, bound }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn seen(exposure: f64, candidate: u64, stable: u64, candidate_requests: u64) -> Evidence {
        Evidence { segments: vec![Segment { exposure, candidate, stable }], candidate_requests, recent: None }
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

    /// The same, of which this was counted lately.
    fn lately(all: Evidence, restarts: u32, candidate: u64, stable: u64) -> Evidence {
        let segments = vec![Segment { exposure: 0.5, candidate, stable }];
        Evidence { recent: Some(Recent { restarts, segments }), ..all }
    }

    #[rstest]
    #[case::as_good_as_ever(4, 4, Outcome::Pass)]
    #[case::some_doubt(18, 2, Outcome::Inconclusive)]
    #[case::worse(30, 3, Outcome::Fail)]
    fn what_was_counted_lately_counts_for_itself(
        #[case] candidate: u64,
        #[case] stable: u64,
        #[case] expected: Outcome,
    ) {
        let all = seen(0.5, 1000, 1100, 100_000);
        assert_eq!(judge(&all, &Settings::default()).outcome, Outcome::Pass);
        let verdict = judge(&lately(all, 3, candidate, stable), &Settings::default());
        assert_eq!(verdict.outcome, expected, "{verdict:?}");
        assert!(verdict.harm.ln_e < 0.0, "{verdict:?}");
    }

    #[test]
    fn the_two_tests_share_what_may_be_false_alarms() {
        let harm = judge(&lately(seen(0.5, 9, 9, 900), 1, 9, 9), &Settings::default()).harm;
        let levels = [harm.ln_threshold, harm.lately.unwrap().ln_threshold].map(|it| (-it).exp());
        assert!((levels[0] - 0.025).abs() < 1e-12 && (levels[1] - 0.0125).abs() < 1e-12, "{levels:?}");
        let odd = Settings { confidence: f64::NAN, ..Settings::default() };
        assert!((judge(&Evidence::default(), &odd).harm.ln_threshold - 40_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn it_begins_anew_where_the_latest_says_nothing_against_the_candidate() {
        let begins = |evidence: &Evidence| judge(evidence, &Settings::default()).harm.begins_anew;
        let (good, bad) = (seen(0.5, 100, 100, 9000), seen(0.5, 100, 30, 9000));
        assert!(begins(&good) && !begins(&bad));
        assert!(!begins(&lately(good, 1, 3, 3)) && begins(&lately(bad, 1, 100, 100)));
    }

    proptest! {
        #[test]
        fn nothing_lately_takes_back_what_all_says(
            exposure in 0.01..0.99, x in 0..2000_u64, y in 0..2000_u64, restarts in any::<u32>(), late in 0..2000_u64,
            other in 0..2000_u64, requests in any::<u64>(),
        ) {
            let all = seen(exposure, x, y, requests);
            let (alone, both) = (judge(&all, &Settings::default()), judge(&lately(all.clone(), restarts, late, other), &Settings::default()));
            prop_assert!(alone.outcome != Outcome::Fail || both.outcome == Outcome::Fail);
            prop_assert!(both.outcome != Outcome::Pass || alone.outcome == Outcome::Pass);
            prop_assert_eq!((alone.harm.ln_e, alone.bound), (both.harm.ln_e, both.bound));
        }

        #[test]
        fn any_evidence_has_a_verdict_by_its_own_numbers(
            exposure in 0.0..=1.0, candidate in 0..2000_u64, stable in 0..2000_u64, requests in any::<u64>(),
            max_ratio in any::<f64>(), confidence in any::<f64>(), dispersion in any::<f64>(),
        ) {
            let settings = Settings { max_ratio, confidence, dispersion, ..Settings::default() };
            let verdict = judge(&seen(exposure, candidate, stable, requests), &settings);
            prop_assert!(verdict.harm.ln_e.is_finite() && verdict.harm.ln_threshold > 0.0);
            let rejected = verdict.harm.ln_e >= verdict.harm.ln_threshold;
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
