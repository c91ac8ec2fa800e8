//! Counts of events (errors, slow requests) of the candidate against those of stable, under an exposure
//! that may change from step to step: a one-sided test, and an upper bound of the ratio of the rates. Both
//! hold at whatever moment, and however often, one looks.
//!
//! Given that an event happened, it is the candidate's with probability theta = rho r / (rho r + 1 - rho),
//! where rho is the candidate's share of the requests and r the ratio of the rates. E is a mixture of
//! likelihood ratios over r (Robbins 1970; for changing exposure: Lindon & Malek, arXiv 2011.03567, whose
//! argument it follows): a supermartingale while the ratio is tolerated, so it reaches 1/alpha with
//! probability alpha at most.

use super::level;

/// The ratios of rates that the mixture is of.
pub const RATIOS: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0];

/// Events of the candidate below which there is no rejection: 3 against 0 at an exposure of 5% already
/// give E = 324.
pub const MIN_EVENTS: u64 = 4;

/// The ratios that an upper bound is looked for in.
const BOUNDS: (f64, f64) = (1e-3, 1e3);

/// Halvings of that range on the logarithmic scale: to 12 digits.
const HALVINGS: u32 = 44;

/// Events seen at one exposure of the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// The share (0 to 1) of the requests that the candidate was observed to serve: not the weight that was
    /// meant. At 0, at 1 and outside there is nothing to compare, and the segment says nothing.
    pub exposure: f64,
    /// Events of the candidate.
    pub candidate: u64,
    /// Events of stable.
    pub stable: u64,
}

impl Segment {
    /// Whether both sides had requests.
    pub(super) fn compares(&self) -> bool {
        self.exposure > 0.0 && self.exposure < 1.0
    }

    /// ln of the likelihood of ratio `of` over that of ratio `over`; events count 1/dispersion each. By
    /// ln(1 + rho (r - 1)) nothing is divided by the exposure, and all is finite.
    pub(super) fn ln_likelihood(&self, of: f64, over: f64, dispersion: f64) -> f64 {
        let rest = (self.exposure * (of - 1.0)).ln_1p() - (self.exposure * (over - 1.0)).ln_1p();
        let step = (of / over).ln();
        // What one event of the candidate adds has the sign of the step, whatever the rounding.
        let own = if step >= 0.0 { (step - rest).max(0.0) } else { (step - rest).min(0.0) };
        (self.candidate as f64 * own - self.stable as f64 * rest) / dispersion
    }
}

/// The test of whether the candidate's rate of events is more than tolerated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioTest {
    /// The ratio of the candidate's rate to stable's that is tolerated: 1 or more; what is less, or no
    /// number, counts as 1.
    pub tolerated: f64,
    /// The probability (between 0 and 1, otherwise 0.05) of a false alarm, over all looks together.
    pub alpha: f64,
    /// Events of one cause, that is by how much the variance of the counts is beyond Poisson's: 1 or more.
    /// Counts are divided by it. Five errors of one cause, taken for five, make 35% false alarms of 5%.
    pub dispersion: f64,
    /// Events of the candidate (after dispersion) below which there is no rejection.
    pub min_events: u64,
}

impl Default for RatioTest {
    fn default() -> Self {
        Self { tolerated: 1.0, alpha: super::ALPHA, dispersion: 1.0, min_events: MIN_EVENTS }
    }
}

impl RatioTest {
    /// ln E, the evidence that the ratio of the rates is above the tolerated one; 0 without any.
    #[must_use]
    pub fn ln_e(&self, segments: &[Segment]) -> f64 {
        let tolerated = at_least_1(self.tolerated);
        // Beyond the largest ratio of the mixture, twice what is tolerated.
        let more = RATIOS.into_iter().filter(|ratio| *ratio > tolerated);
        let ratios: Vec<f64> = if tolerated < RATIOS[6] { more.collect() } else { vec![2.0 * tolerated] };
        self.mixture(segments, &ratios, tolerated)
    }

    /// The evidence at which the test rejects: ln(1/alpha).
    #[must_use]
    pub fn ln_threshold(&self) -> f64 {
        -level(self.alpha).ln()
    }

    /// Whether the ratio is above the tolerated one: E >= 1/alpha, and enough events of the candidate.
    #[must_use]
    pub fn rejects(&self, segments: &[Segment]) -> bool {
        self.has_events(segments) && self.ln_e(segments) >= self.ln_threshold()
    }

    /// Whether the candidate has had as many events as a rejection takes.
    #[must_use]
    pub fn has_events(&self, segments: &[Segment]) -> bool {
        let seen = segments.iter().filter(|segment| segment.compares());
        let events: f64 = seen.map(|segment| segment.candidate as f64).sum();
        events / at_least_1(self.dispersion) >= self.min_events as f64
    }

    /// Whether the ratio that was observed is above the tolerated one: more of the events were the candidate's than
    /// there would be at that ratio. No test: of candidates that are just tolerable it is so for half.
    #[must_use]
    pub fn is_above(&self, segments: &[Segment]) -> bool {
        let ratio = at_least_1(self.tolerated);
        let compared = segments.iter().filter(|segment| segment.compares());
        let excess = compared.map(|segment| {
            let share = segment.exposure * ratio / (1.0 + segment.exposure * (ratio - 1.0));
            segment.candidate as f64 - (segment.candidate as f64 + segment.stable as f64) * share
        });
        excess.sum::<f64>() > 0.0
    }

    /// The upper bound of the ratio of the rates, at level alpha over all looks together: the smallest R for
    /// which "the ratio is R or more" is rejected by the mirrored mixture, over the ratios R/r. `None` if
    /// there is none below 1000: what was seen of stable does not say enough yet.
    #[must_use]
    pub fn upper_bound(&self, segments: &[Segment]) -> Option<f64> {
        let refuted = |ratio: f64| {
            let less = RATIOS.map(|step| ratio / step);
            self.mixture(segments, &less, ratio) >= self.ln_threshold()
        };
        let (least, most) = BOUNDS;
        if !refuted(most) {
            return None;
        }
        // The evidence against R grows with R.
        let (mut low, mut high) = (least.ln(), most.ln());
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if refuted(middle.exp()) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high.exp().min(most))
    }

    /// ln of the mean likelihood ratio of some ratios over another.
    fn mixture(&self, segments: &[Segment], ratios: &[f64], over: f64) -> f64 {
        let dispersion = at_least_1(self.dispersion);
        let evidence = |ratio: &f64| -> f64 {
            let seen = segments.iter().filter(|segment| segment.compares());
            seen.map(|segment| segment.ln_likelihood(*ratio, over, dispersion)).sum()
        };
        ln_mean_exp(&ratios.iter().map(evidence).collect::<Vec<_>>())
    }
}

/// A factor of 1 or more, as far as it makes sense.
fn at_least_1(factor: f64) -> f64 {
    if factor.is_finite() { factor.clamp(1.0, 1e6) } else { 1.0 }
}

/// ln of the mean of exp: no single term overflows.
fn ln_mean_exp(terms: &[f64]) -> f64 {
    let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|term| (term - most).exp()).sum();
    most + (sum / terms.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn segment(exposure: f64, candidate: u64, stable: u64) -> Segment {
        Segment { exposure, candidate, stable }
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() <= 1e-9 * (1.0 + left.abs().max(right.abs()))
    }

    /// The formula of the specification, word for word.
    fn plain_e(segments: &[Segment], tolerated: f64) -> f64 {
        let theta = |rho: f64, r: f64| rho * r / (rho * r + 1.0 - rho);
        let ratios = RATIOS.into_iter().filter(|r| *r > tolerated);
        let terms = ratios.map(|r| {
            let term = |at: &Segment| {
                let (null, other) = (theta(at.exposure, tolerated), theta(at.exposure, r));
                let stable = ((1.0 - other) / (1.0 - null)).powf(at.stable as f64);
                (other / null).powf(at.candidate as f64) * stable
            };
            segments.iter().map(term).product::<f64>()
        });
        let terms: Vec<f64> = terms.collect();
        terms.iter().sum::<f64>() / terms.len() as f64
    }

    #[test]
    fn three_against_none_are_strong_evidence_and_still_no_rejection() {
        let test = RatioTest::default();
        let seen = [segment(0.05, 3, 0)];
        assert_eq!(test.ln_e(&seen).exp().round(), 324.0);
        assert!(!test.rejects(&seen));
        assert!(test.rejects(&[segment(0.05, 4, 0)]));
    }

    #[rstest]
    #[case(1.0)]
    #[case(1.5)]
    #[case(7.0)]
    fn the_evidence_is_that_of_the_formula(#[case] tolerated: f64) {
        let seen = [segment(0.05, 3, 20), segment(0.25, 9, 14), segment(0.5, 8, 4)];
        let test = RatioTest { tolerated, ..RatioTest::default() };
        assert!(close(test.ln_e(&seen), plain_e(&seen, tolerated).ln()), "{}", test.ln_e(&seen));
    }

    #[test]
    fn a_tolerated_ratio_takes_more_to_reject() {
        let seen = [segment(0.1, 20, 80)];
        assert!(RatioTest::default().rejects(&seen));
        assert!(!RatioTest { tolerated: 2.0, ..RatioTest::default() }.rejects(&seen));
        assert!(RatioTest { tolerated: 40.0, ..RatioTest::default() }.rejects(&[segment(0.1, 400, 2)]));
    }

    #[test]
    fn clustered_events_count_as_one() {
        let clustered = RatioTest { dispersion: 5.0, ..RatioTest::default() };
        let alone = RatioTest::default();
        assert!(close(clustered.ln_e(&[segment(0.1, 15, 60)]), alone.ln_e(&[segment(0.1, 3, 12)])));
        assert!(!clustered.rejects(&[segment(0.05, 19, 0)]));
        assert!(clustered.rejects(&[segment(0.05, 20, 0)]));
    }

    #[test]
    fn where_all_or_nothing_is_exposed_there_is_nothing_to_compare() {
        let seen = [0.0, 1.0, -1.0, 2.0, f64::NAN, f64::INFINITY].map(|exposure| segment(exposure, 50, 3));
        let test = RatioTest::default();
        assert_eq!((test.ln_e(&seen), test.upper_bound(&seen)), (0.0, None));
        assert!(!test.rejects(&seen) && !test.has_events(&seen));
    }

    #[test]
    fn the_bound_comes_down_as_more_is_seen() {
        let test = RatioTest::default();
        let bound = |times: u64| test.upper_bound(&[segment(0.25, 10 * times, 30 * times)]);
        assert_eq!(test.upper_bound(&[segment(0.25, 5, 1)]), None);
        let bounds = [1, 4, 16, 64].map(|times| bound(times).unwrap());
        assert!(bounds.is_sorted_by(|before, after| before > after), "{bounds:?}");
        assert!(bounds[3] > 1.0 && bounds[3] < 1.3, "{bounds:?}");
    }

    #[test]
    fn the_bound_is_where_the_mirrored_test_begins_to_reject() {
        let seen = [segment(0.1, 6, 60), segment(0.5, 20, 25)];
        let bound = RatioTest::default().upper_bound(&seen).unwrap();
        let theta = |rho: f64, r: f64| rho * r / (rho * r + 1.0 - rho);
        let term = |step: f64, at: &Segment| {
            let (null, less) = (theta(at.exposure, bound), theta(at.exposure, bound / step));
            let stable = ((1.0 - less) / (1.0 - null)).powf(at.stable as f64);
            (less / null).powf(at.candidate as f64) * stable
        };
        let terms = RATIOS.map(|step| seen.iter().map(|at| term(step, at)).product::<f64>());
        let e = terms.iter().sum::<f64>() / 7.0;
        assert!((e - 20.0).abs() < 1e-6, "{e}");
    }

    fn any_count() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), 0..50_u64, any::<u64>(), Just(u64::MAX)]
    }

    fn any_segment() -> impl Strategy<Value = Segment> {
        let exposure = prop_oneof![Just(0.0), Just(1.0), Just(1e-300), 0.0..=1.0, any::<f64>()];
        (exposure, any_count(), any_count())
            .prop_map(|(exposure, candidate, stable)| segment(exposure, candidate, stable))
    }

    fn usual_segments() -> impl Strategy<Value = Vec<Segment>> {
        let one = (0.001..0.999, 0..500_u64, 0..500_u64);
        prop::collection::vec(one.prop_map(|(exposure, x, y)| segment(exposure, x, y)), 1..6)
    }

    proptest! {
        #[test]
        fn no_input_makes_it_nan_or_infinite(
            seen in prop::collection::vec(any_segment(), 0..6), tolerated in any::<f64>(),
            alpha in any::<f64>(), dispersion in any::<f64>(), min_events in any::<u64>(),
        ) {
            let test = RatioTest { tolerated, alpha, dispersion, min_events };
            prop_assert!(test.ln_e(&seen).is_finite());
            prop_assert!(test.ln_threshold().is_finite());
            prop_assert!(test.upper_bound(&seen).is_none_or(|bound| bound > 0.0 && bound.is_finite()));
            let _ = test.rejects(&seen);
        }

        #[test]
        fn the_evidence_grows_with_the_candidates_events(
            seen in usual_segments(), at in any::<prop::sample::Index>(), more in 1..50_u64, tolerated in 1.0..20.0,
        ) {
            let test = RatioTest { tolerated, ..RatioTest::default() };
            let mut worse = seen.clone();
            worse[at.index(seen.len())].candidate += more;
            prop_assert!(test.ln_e(&worse) > test.ln_e(&seen));
            let bounds = (test.upper_bound(&seen).unwrap_or(1e9), test.upper_bound(&worse).unwrap_or(1e9));
            prop_assert!(bounds.0 <= bounds.1 * (1.0 + 1e-9), "{bounds:?}");
        }

        #[test]
        fn the_order_of_segments_is_irrelevant(seen in usual_segments(), from in any::<prop::sample::Index>()) {
            let mut turned = seen.clone();
            turned.rotate_left(from.index(seen.len()));
            turned.reverse();
            let test = RatioTest::default();
            prop_assert!(close(test.ln_e(&seen), test.ln_e(&turned)));
            let bounds = [test.upper_bound(&seen), test.upper_bound(&turned)].map(|bound| bound.unwrap_or(1e9));
            prop_assert!(close(bounds[0], bounds[1]));
        }

        #[test]
        fn segments_of_one_exposure_may_be_joined(x in 0..99_u64, y in 0..99_u64, u in 0..99_u64, v in 0..99_u64) {
            let (apart, joined) = ([segment(0.3, x, y), segment(0.3, u, v)], [segment(0.3, x + u, y + v)]);
            let test = RatioTest::default();
            prop_assert!(close(test.ln_e(&apart), test.ln_e(&joined)));
        }
    }
}
