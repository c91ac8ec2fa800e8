//! The Mann-Whitney test of two samples as Kayenta, the judge of Spinnaker, has it: the interval of the shift
//! between them by the normal approximation with continuity correction (R's `wilcox.test`), and High or Low
//! if that is beyond a fraction of the shift itself. It is made for one look, at the end.

use libm::erfc;

use super::Interval;

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// The confidence of the interval, between 0 and 1.
    pub confidence: f64,
    /// The fraction of the estimated shift that the interval has to be beyond: 0 or more.
    pub tolerance: f64,
}

impl Default for MannWhitney {
    /// Kayenta's.
    fn default() -> Self {
        Self { confidence: 0.98, tolerance: 0.25 }
    }
}

/// By how much the candidate's values are above stable's, in their unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// The Hodges-Lehmann estimate: the median of all differences.
    pub estimate: f64,
    /// Where the shift is.
    pub interval: Interval,
}

/// What the test says of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its values are higher.
    High,
    /// Its values are lower.
    Low,
    /// Neither.
    Same,
}

impl MannWhitney {
    /// The shift of the candidate's values against stable's. Values that are not finite are left out; `None` if
    /// none are left of one of them.
    #[must_use]
    pub fn shift(&self, candidate: &[f64], stable: &[f64]) -> Option<Shift> {
        let differences = Differences { candidate: sorted(candidate), stable: sorted(stable) };
        let all = differences.len();
        if all == 0 {
            return None;
        }
        let halves = [all.div_ceil(2), all / 2 + 1].map(|rank| differences.at(rank));
        // R looks for the shift at which the corrected statistic is at the quantile. It is a step function that
        // falls by one at each difference, so the place is the difference of this rank.
        let away = quantile(self.confidence) * differences.deviation() + 0.5;
        let rank = (all as f64 / 2.0 - away).ceil().max(1.0) as u64;
        let interval = Interval { lower: differences.at(rank), upper: differences.at(all + 1 - rank) };
        Some(Shift { estimate: halves[0] / 2.0 + halves[1] / 2.0, interval })
    }

    /// Whether the shift is beyond the tolerance.
    #[must_use]
    pub fn classify(&self, shift: &Shift) -> Class {
        let tolerated = self.tolerance.max(0.0) * shift.estimate.abs();
        if shift.interval.lower > tolerated {
            Class::High
        } else if shift.interval.upper < -tolerated {
            Class::Low
        } else {
            Class::Same
        }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    // Adding 0 makes 0 of -0: they are the same value.
    let mut values: Vec<f64> = values.iter().filter(|value| value.is_finite()).map(|value| value + 0.0).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// All differences of a candidate's value and one of stable's, which are not stored: both are in order.
struct Differences {
    candidate: Vec<f64>,
    stable: Vec<f64>,
}

impl Differences {
    const fn len(&self) -> u64 {
        self.candidate.len() as u64 * self.stable.len() as u64
    }

    /// How many are not above a value.
    fn up_to(&self, value: f64) -> u64 {
        let (mut count, mut above) = (0, self.stable.len());
        for own in self.candidate.iter().rev() {
            // The lower the candidate's value, the more of stable's leave a difference that small.
            while above > 0 && difference(*own, self.stable[above - 1]) <= value {
                above -= 1;
            }
            count += (self.stable.len() - above) as u64;
        }
        count
    }

    /// The difference of a rank, 1 to `len`: by halving the range of all floating-point numbers.
    fn at(&self, rank: u64) -> f64 {
        let (mut low, mut high) = (ordinal(-f64::MAX), ordinal(f64::MAX));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.up_to(from_ordinal(middle)) >= rank {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        // Adding 0 makes 0 of -0.
        from_ordinal(low) + 0.0
    }

    /// The standard deviation of the statistic, ties within the samples considered.
    fn deviation(&self) -> f64 {
        let (own, other) = (self.candidate.len() as f64, self.stable.len() as f64);
        let all = own + other;
        let ties = ties(&self.candidate) + ties(&self.stable);
        (own * other / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)))).max(0.0).sqrt()
    }
}

/// A difference, as large as a number can be at most.
fn difference(left: f64, right: f64) -> f64 {
    (left - right).clamp(-f64::MAX, f64::MAX)
}

/// The sum of t^3 - t over groups of t equal values.
fn ties(sorted: &[f64]) -> f64 {
    let groups = sorted.chunk_by(|left, right| left.total_cmp(right).is_eq());
    groups.map(|group| group.len() as f64).map(|size| size.powi(3) - size).sum()
}

/// A number that is larger where the value is.
const fn ordinal(value: f64) -> i128 {
    let bits = value.to_bits() as i64;
    if bits < 0 { -((bits & i64::MAX) as i128) } else { bits as i128 }
}

fn from_ordinal(ordinal: i128) -> f64 {
    let magnitude = f64::from_bits(u64::try_from(ordinal.unsigned_abs()).unwrap_or(0));
    if ordinal < 0 { -magnitude } else { magnitude }
}

/// The distance from 0, in standard deviations, within which a normal value is with some probability.
fn quantile(confidence: f64) -> f64 {
    let outside = 1.0 - if confidence > 0.0 && confidence < 1.0 { confidence } else { 0.98 };
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if erfc(middle / std::f64::consts::SQRT_2) > outside {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// R's W(d, zq) of wilcox.test with `correct = TRUE`: by ranks of the shifted values.
    fn statistic(x: &[f64], y: &[f64], shift: f64, quantile: f64) -> f64 {
        let moved: Vec<f64> = x.iter().map(|value| value - shift).chain(y.iter().copied()).collect();
        let count = |test: &dyn Fn(f64) -> bool| moved.iter().filter(|value| test(**value)).count() as f64;
        let rank = |value: f64| count(&|other| other < value) + (count(&|other| other == value) + 1.0) / 2.0;
        let (m, n) = (x.len() as f64, y.len() as f64);
        let dz = moved[..x.len()].iter().map(|value| rank(*value)).sum::<f64>() - m * (m + 1.0) / 2.0 - m * n / 2.0;
        let sign = if dz == 0.0 { 0.0 } else { dz.signum() };
        let ties: f64 = moved.iter().map(|value| count(&|other| other == *value).powi(2) - 1.0).sum();
        let sigma = (m * n / 12.0 * (m + n + 1.0 - ties / ((m + n) * (m + n - 1.0)))).sqrt();
        (dz - sign * 0.5) / sigma - quantile
    }

    #[rstest]
    #[case(0.98)]
    #[case(0.95)]
    fn kayentas_own_example(#[case] confidence: f64) {
        let test = MannWhitney { confidence, ..MannWhitney::default() };
        let shift = test.shift(&[10.0, 20.0, 30.0, 40.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(shift, Shift { estimate: 22.5, interval: Interval { lower: 6.0, upper: 39.0 } });
        assert_eq!(test.classify(&shift), Class::High);
    }

    #[test]
    fn the_same_the_other_way_round_is_lower() {
        let test = MannWhitney::default();
        let shift = test.shift(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 30.0, 40.0]).unwrap();
        assert_eq!(shift, Shift { estimate: -22.5, interval: Interval { lower: -39.0, upper: -6.0 } });
        assert_eq!(test.classify(&shift), Class::Low);
    }

    #[test]
    fn within_the_tolerance_it_is_the_same() {
        let shift = Shift { estimate: 10.0, interval: Interval { lower: 2.5, upper: 30.0 } };
        assert_eq!(MannWhitney::default().classify(&shift), Class::Same);
        assert_eq!(MannWhitney { tolerance: 0.2, ..MannWhitney::default() }.classify(&shift), Class::High);
        let equal = MannWhitney::default().shift(&[5.0; 9], &[5.0; 9]).unwrap();
        assert_eq!((equal.estimate, MannWhitney::default().classify(&equal)), (0.0, Class::Same));
    }

    #[test]
    fn of_nothing_there_is_no_shift() {
        assert_eq!(MannWhitney::default().shift(&[], &[1.0]), None);
        assert_eq!(MannWhitney::default().shift(&[f64::NAN], &[1.0]), None);
    }

    #[rstest]
    #[case(0.98, 2.326_347_874)]
    #[case(0.95, 1.959_963_985)]
    fn quantiles_are_those_of_the_tables(#[case] confidence: f64, #[case] expected: f64) {
        assert!((quantile(confidence) - expected).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn the_ends_are_where_rs_statistic_changes_its_sign(
            x in prop::collection::vec(0..40_i32, 1..25), y in prop::collection::vec(0..40_i32, 1..25),
        ) {
            let [x, y] = [x, y].map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
            let test = MannWhitney { confidence: 0.9, ..MannWhitney::default() };
            let Interval { lower, upper } = test.shift(&x, &y).unwrap().interval;
            let z = quantile(0.9);
            let least = x.iter().copied().fold(f64::MAX, f64::min) - y.iter().copied().fold(f64::MIN, f64::max);
            prop_assert!(statistic(&x, &y, lower + 0.5, z) <= 0.0);
            prop_assert!(lower <= least || statistic(&x, &y, lower - 0.5, z) > 0.0);
            let most = x.iter().copied().fold(f64::MIN, f64::max) - y.iter().copied().fold(f64::MAX, f64::min);
            prop_assert!(statistic(&x, &y, upper - 0.5, -z) >= 0.0);
            prop_assert!(upper >= most || statistic(&x, &y, upper + 0.5, -z) < 0.0);
        }

        #[test]
        fn the_estimate_is_the_median_difference(
            x in prop::collection::vec(-1e3..1e3, 1..15), y in prop::collection::vec(-1e3..1e3, 1..15),
        ) {
            let shift = MannWhitney::default().shift(&x, &y).unwrap();
            let mut all: Vec<f64> = x.iter().flat_map(|own| y.iter().map(move |other| own - other)).collect();
            all.sort_by(f64::total_cmp);
            let median = f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2]);
            prop_assert!((shift.estimate - median).abs() < 1e-9);
        }

        #[test]
        fn no_input_makes_it_nan_or_infinite(
            x in prop::collection::vec(any::<f64>(), 0..8), y in prop::collection::vec(any::<f64>(), 0..8),
            confidence in any::<f64>(), tolerance in any::<f64>(),
        ) {
            let test = MannWhitney { confidence, tolerance };
            if let Some(shift) = test.shift(&x, &y) {
                prop_assert!(shift.estimate.is_finite());
                prop_assert!(shift.interval.lower.is_finite() && shift.interval.lower <= shift.interval.upper);
                let _ = test.classify(&shift);
            }
        }
    }
}
