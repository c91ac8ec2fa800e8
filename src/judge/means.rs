//! Means of values (durations, sizes) by a confidence sequence: an interval that contains the true mean at
//! all looks together. The normal mixture of Howard, Ramdas, McAuliffe & Sekhon (Annals of Statistics 2021),
//! two-sided; with an estimated variance it holds for some dozens of values and more.

use super::{Interval, level};

/// Values seen of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Their variance, in the square of the mean's unit: 0 or more.
    pub variance: f64,
}

/// The boundary that a sum of centred values stays within, with probability 1 - alpha at all times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalMixture {
    rho: f64,
    alpha: f64,
}

impl NormalMixture {
    /// The one that is narrowest at an intrinsic time (the sum's variance; with values in units of their
    /// standard deviation the number of values) of `v_opt`, more than 0.
    #[must_use]
    pub fn narrowest_at(v_opt: f64, alpha: f64) -> Self {
        let alpha = level(alpha);
        let v_opt = if v_opt.is_finite() { v_opt.clamp(1e-9, 1e18) } else { 1.0 };
        let doubt = -2.0 * alpha.ln();
        Self { rho: v_opt / (doubt + doubt.ln_1p()), alpha }
    }

    /// The variance parameter of the mixture, in units of intrinsic time.
    #[must_use]
    pub const fn rho(&self) -> f64 {
        self.rho
    }

    /// ln M of a sum `s` at intrinsic time `v` (0 or more): evidence that the mean of its values is not 0.
    #[must_use]
    pub fn ln_martingale(&self, s: f64, v: f64) -> f64 {
        let time = positive(v) + self.rho;
        let score = if s.is_nan() { 0.0 } else { s / time.sqrt() };
        0.5 * (self.rho.ln() - time.ln()) + (score * score / 2.0).min(f64::MAX)
    }

    /// How far from 0 a sum gets by chance, up to intrinsic time `v` (0 or more).
    #[must_use]
    pub fn bound(&self, v: f64) -> f64 {
        let time = positive(v) + self.rho;
        time.sqrt() * (time.ln() - self.rho.ln() - 2.0 * self.alpha.ln()).sqrt()
    }

    /// The interval of the mean that values are of. `v_opt` was the number of values. `None` of no values, or if
    /// the sample is not of finite numbers.
    #[must_use]
    pub fn interval(&self, sample: Sample) -> Option<Interval> {
        let valid = sample.count > 0 && sample.mean.is_finite() && sample.variance >= 0.0;
        let count = sample.count as f64;
        let margin = sample.variance.sqrt() * self.bound(count) / count;
        finite(sample.mean - margin, sample.mean + margin).filter(|_| valid)
    }
}

/// The interval of the candidate's mean less stable's, at level alpha, narrowest at `v_opt` values of each:
/// both means are in their own intervals of level alpha/2.
#[must_use]
pub fn difference(candidate: Sample, stable: Sample, v_opt: f64, alpha: f64) -> Option<Interval> {
    let mixture = NormalMixture::narrowest_at(v_opt, level(alpha) / 2.0);
    let (candidate, stable) = (mixture.interval(candidate)?, mixture.interval(stable)?);
    finite(candidate.lower - stable.upper, candidate.upper - stable.lower)
}

fn positive(v: f64) -> f64 {
    if v.is_finite() { v.max(0.0) } else { 0.0 }
}

fn finite(lower: f64, upper: f64) -> Option<Interval> {
    (lower.is_finite() && upper.is_finite()).then_some(Interval { lower, upper })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mixture_is_that_of_the_vectors() {
        let mixture = NormalMixture::narrowest_at(100.0, 0.05);
        assert!((mixture.rho() - 12.600_56).abs() < 5e-6, "{}", mixture.rho());
        let ln_m = mixture.ln_martingale(10.0, 100.0);
        assert!((ln_m - -0.651_005_2).abs() < 5e-8, "{ln_m}");
        let bound = mixture.bound(100.0);
        assert!((bound - 30.352_09).abs() < 5e-6, "{bound}");
    }

    #[test]
    fn at_the_bound_the_evidence_is_one_over_alpha() {
        let mixture = NormalMixture::narrowest_at(250.0, 0.01);
        let ln_m = mixture.ln_martingale(mixture.bound(77.0), 77.0);
        assert!((ln_m - 100_f64.ln()).abs() < 1e-12, "{ln_m}");
    }

    #[test]
    fn an_interval_is_in_the_unit_of_its_values() {
        let mixture = NormalMixture::narrowest_at(100.0, 0.05);
        let interval = mixture.interval(Sample { count: 100, mean: 50.0, variance: 4.0 }).unwrap();
        assert!((interval.upper - 50.0 - 2.0 * 0.303_520_9).abs() < 1e-6, "{interval:?}");
        assert!((interval.upper + interval.lower - 100.0).abs() < 1e-9, "{interval:?}");
        assert_eq!(mixture.interval(Sample { count: 0, mean: 50.0, variance: 4.0 }), None);
    }

    #[test]
    fn a_slower_candidate_is_told_from_stable() {
        let sample = |mean| Sample { count: 1000, mean, variance: 100.0 };
        assert!(difference(sample(55.0), sample(50.0), 1000.0, 0.05).unwrap().lower > 0.0);
        assert!(difference(sample(50.2), sample(50.0), 1000.0, 0.05).unwrap().lower < 0.0);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_nan_or_infinite(
            v_opt in any::<f64>(), alpha in any::<f64>(), v in any::<f64>(),
            count in any::<u64>(), mean in any::<f64>(), variance in any::<f64>(),
        ) {
            let mixture = NormalMixture::narrowest_at(v_opt, alpha);
            prop_assert!(mixture.rho() > 0.0 && mixture.bound(v).is_finite());
            prop_assert!(mixture.ln_martingale(mean, v).is_finite());
            let sample = Sample { count, mean, variance };
            for interval in [mixture.interval(sample), difference(sample, sample, v_opt, alpha)].into_iter().flatten() {
                prop_assert!(interval.lower.is_finite() && interval.lower <= interval.upper);
            }
        }
    }
}
