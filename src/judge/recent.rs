//! The test of `counts` once more, of what was counted lately: it begins anew after each look at which nothing speaks
//! against the candidate any more. What a candidate did well for hours outweighs, in all that was counted, what it does
//! badly now; this finds it nearly as soon as one that is bad from the beginning.
//!
//! False alarms stay bounded, over all looks and all times together. A look is a stopping time, and from there on E is a
//! supermartingale from 1 again, so that it reaches 1/a with probability a at most, whatever was before (Ville). The n-th
//! test has a = alpha/2 / (n (n + 1)), whose sum over all n is alpha/2; the other half is that of the test of everything. It
//! is CUSUM (Page, Biometrika 1954) with a bound for all time instead of a mean time between alarms, and the price is a
//! threshold that grows by 2 ln n. Nothing of it is a time: it follows the rate of events.

use super::counts::{RatioTest, Segment};

/// ln E below which the test begins anew.
pub const FALLEN: f64 = -2.0;

/// From what part of its threshold on ln E keeps a candidate from passing.
pub const DOUBT: f64 = 0.5;

/// What was counted since the test began anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recent {
    /// How often it did, from 1 (0 counts as 1).
    pub restarts: u32,
    /// The events since then, by exposure.
    pub segments: Vec<Segment>,
}

/// What that says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lately {
    /// ln E: evidence that the ratio has been above the tolerated one since then.
    pub ln_e: f64,
    /// It fails at this: ln(2 n (n + 1) / alpha).
    pub ln_threshold: f64,
    /// The candidate has been worse than tolerated since then.
    pub fails: bool,
    /// So much speaks for that that it does not pass.
    pub doubts: bool,
}

impl Recent {
    /// Judges it beside the test of everything, which has half of the false alarms for its alpha.
    #[must_use]
    pub fn look(&self, of_all: &RatioTest) -> Lately {
        let restarts = f64::from(self.restarts.max(1));
        // Not by a level, which would be 0 after enough of them.
        let ln_threshold = of_all.ln_threshold() + restarts.ln() + restarts.ln_1p();
        let ln_e = of_all.ln_e(&self.segments);
        let enough = of_all.has_events(&self.segments);
        let reaches = |threshold: f64| enough && ln_e >= threshold;
        Lately { ln_e, ln_threshold, fails: reaches(ln_threshold), doubts: reaches(DOUBT * ln_threshold) }
    }
}

/// Whether nothing of what was counted speaks against the candidate any more, so that the test is to begin anew.
#[must_use]
pub fn has_fallen(test: &RatioTest, segments: &[Segment]) -> bool {
    test.ln_e(segments) < FALLEN
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// The test of everything, with alpha/2 of a usual alpha.
    fn of_all(tolerated: f64) -> RatioTest {
        RatioTest { tolerated, alpha: 0.025, ..RatioTest::default() }
    }

    fn segment(exposure: f64, candidate: u64, stable: u64) -> Segment {
        Segment { exposure, candidate, stable }
    }

    fn recent(restarts: u32, segments: &[Segment]) -> Recent {
        Recent { restarts, segments: segments.to_vec() }
    }

    #[test]
    fn all_levels_together_are_that_of_the_other_half() {
        let level = |restarts: u32| (-recent(restarts, &[]).look(&of_all(1.5)).ln_threshold).exp();
        assert!((level(1) - 0.0125).abs() < 1e-12 && (level(2) - 0.025 / 6.0).abs() < 1e-12);
        let sum: f64 = (1..=100_000).map(level).sum();
        assert!(sum <= 0.025 && sum > 0.0249, "{sum}");
        assert!(recent(u32::MAX, &[]).look(&of_all(1.5)).ln_threshold < 50.0);
    }

    /// The probability, exactly, that of a candidate at the tolerated ratio a test fails within so many events, each of
    /// which is looked at: by all (x, y) since each restart, with what leads there.
    fn false_alarms(tolerated: f64, exposure: f64, events: u64) -> f64 {
        let test = RatioTest { min_events: 0, ..of_all(tolerated) };
        let theta = exposure * tolerated / (exposure * tolerated + 1.0 - exposure);
        let looked = |restarts: u32, x: u64, y: u64| {
            let seen = [segment(exposure, x, y)];
            (recent(restarts, &seen).look(&test).fails, has_fallen(&test, &seen))
        };
        let mut said = HashMap::new();
        // None restarts: all that was counted, which fails nobody here.
        let mut at = HashMap::from([((0, 0, 0), 1.0)]);
        let mut failed = 0.0;
        for _ in 0..events {
            let mut next = HashMap::new();
            for ((restarts, x, y), chance) in at {
                for (x, y, share) in [(x + 1, y, theta), (x, y + 1, 1.0 - theta)] {
                    let (fails, falls) = *said.entry((restarts, x, y)).or_insert_with(|| looked(restarts, x, y));
                    match () {
                        () if fails && restarts > 0 => failed += chance * share,
                        () if falls => *next.entry((restarts + 1, 0, 0)).or_insert(0.0) += chance * share,
                        () => *next.entry((restarts, x, y)).or_insert(0.0) += chance * share,
                    }
                }
            }
            // What is left out is less than a millionth in all.
            next.retain(|_, chance| *chance > 1e-10);
            at = next;
        }
        failed
    }

    #[rstest]
    #[case::even(1.0, 0.5)]
    #[case::of_some_more(1.5, 0.3)]
    #[case::at_a_small_share(3.0, 0.05)]
    fn a_candidate_at_the_edge_fails_no_more_often_than_half_of_alpha(#[case] tolerated: f64, #[case] exposure: f64) {
        let failed = false_alarms(tolerated, exposure, 150);
        assert!(failed <= 0.025 && failed > 0.0005, "{failed}");
    }

    #[test]
    fn it_falls_where_nothing_speaks_against_the_candidate() {
        let test = of_all(1.0);
        assert!(!has_fallen(&test, &[]) && !has_fallen(&test, &[segment(0.5, 10, 10)]));
        assert!(has_fallen(&test, &[segment(0.5, 100, 100)]));
        assert!(test.ln_e(&[segment(0.5, 100, 100)]) < FALLEN && test.ln_e(&[segment(0.5, 10, 10)]) >= FALLEN);
        // What fails does not.
        assert!(!has_fallen(&test, &[segment(0.5, 100, 20)]));
    }

    #[test]
    fn a_candidate_that_turns_bad_is_found_within_a_hundred_events() {
        // A thousand errors of a good candidate, beside as many of stable; then four times as many.
        let test = of_all(1.5);
        let found = |restarts: u32| {
            let seen = |events: u64| segment(0.5, events * 4 / 5, events - events * 4 / 5);
            let all = |events: u64| segment(0.5, 1000 + seen(events).candidate, 1000 + seen(events).stable);
            let first = |fails: &dyn Fn(u64) -> bool| (0..5000).step_by(5).find(|events| fails(*events)).unwrap();
            let lately = first(&|events| recent(restarts, &[seen(events)]).look(&test).fails);
            (lately, first(&|events| test.rejects(&[all(events)])))
        };
        assert!(found(1).0 < 100 && found(10).0 < 150 && found(100).0 < 200, "{:?}", [1, 10, 100].map(found));
        assert!(found(1).1 > 800, "{:?}", found(1));
    }

    #[test]
    fn too_few_events_lately_fail_and_hold_nobody() {
        let test = of_all(1.5);
        let few = recent(1, &[segment(0.05, 3, 0)]).look(&test);
        assert!(few.ln_e > few.ln_threshold && !few.fails && !few.doubts, "{few:?}");
        let enough = recent(1, &[segment(0.05, 4, 0)]).look(&test);
        assert!(enough.fails && enough.doubts, "{enough:?}");
        let clustered = RatioTest { dispersion: 5.0, ..test };
        assert!(!recent(1, &[segment(0.05, 19, 0)]).look(&clustered).fails);
    }

    #[test]
    fn it_doubts_before_it_fails() {
        let looks = (0..40).map(|events| recent(3, &[segment(0.5, events, events / 4)]).look(&of_all(1.0)));
        let words: Vec<(bool, bool)> = looks.map(|it| (it.doubts, it.fails)).collect();
        let first = |of: fn(&(bool, bool)) -> bool| words.iter().position(of).unwrap();
        assert!(first(|it| it.0) + 5 < first(|it| it.1), "{words:?}");
    }

    proptest! {
        #[test]
        fn no_input_makes_it_nan_and_what_fails_doubts(
            restarts in any::<u32>(), tolerated in any::<f64>(), alpha in any::<f64>(), dispersion in any::<f64>(),
            seen in prop::collection::vec((any::<f64>(), any::<u64>(), any::<u64>()), 0..5),
        ) {
            let seen: Vec<Segment> = seen.into_iter().map(|(exposure, x, y)| segment(exposure, x, y)).collect();
            let test = RatioTest { tolerated, alpha, dispersion, ..RatioTest::default() };
            let found = recent(restarts, &seen).look(&test);
            prop_assert!(found.ln_e.is_finite() && found.ln_threshold.is_finite());
            prop_assert!(found.ln_threshold > test.ln_threshold());
            prop_assert!(found.doubts || !found.fails);
            prop_assert!(!(found.fails && has_fallen(&test, &seen)));
        }
    }
}
