//! Objectives: how fast an error budget is spent, over a long window, so that it matters, and a short one, so
//! that it still goes on. Windows and factors are those of the Google SRE workbook, chapter 5.

use std::time::Duration;

/// A pair of windows, and the rate at which it burns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The burn rate above which it burns; 1 spends the budget exactly in the objective's whole period.
    pub factor: f64,
    /// The long window.
    pub long: Duration,
    /// The short one.
    pub short: Duration,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// The pairs, quickest first: of a budget for 30 days they have spent 2%, 5% and 10% when they burn.
pub const WINDOWS: [Window; 3] = [
    Window { factor: 14.4, long: minutes(60), short: minutes(5) },
    Window { factor: 6.0, long: minutes(6 * 60), short: minutes(30) },
    Window { factor: 1.0, long: minutes(3 * 24 * 60), short: minutes(6 * 60) },
];

/// The shares (0 to 1) of requests that failed within a pair of windows; `None` if there were no requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Within the long window.
    pub long: Option<f64>,
    /// Within the short one.
    pub short: Option<f64>,
}

/// A pair of windows that burns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burn {
    /// Which.
    pub window: Window,
    /// The burn rate over the long window.
    pub long: f64,
    /// The burn rate over the short one.
    pub short: f64,
}

/// The quickest pair of [`WINDOWS`] that burns, given the errors in each and the objective (0 to 1: the share of
/// requests that are to succeed).
#[must_use]
pub fn burning(objective: f64, errors: &[Errors; 3]) -> Option<Burn> {
    WINDOWS.iter().zip(errors).find_map(|(window, errors)| {
        let (long, short) = (rate(errors.long?, objective), rate(errors.short?, objective));
        (long > window.factor && short > window.factor).then_some(Burn { window: *window, long, short })
    })
}

/// How many times as fast as the budget allows errors come. 0 if there are none or no number is given; if no
/// error is allowed, the largest number.
#[must_use]
pub fn rate(errors: f64, objective: f64) -> f64 {
    let budget = 1.0 - objective.clamp(0.0, 1.0);
    let rate = errors.clamp(0.0, 1.0) / budget;
    if rate.is_nan() { 0.0 } else { rate.min(f64::MAX) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn pair(long: f64, short: f64) -> Errors {
        Errors { long: Some(long), short: Some(short) }
    }

    #[test]
    fn the_windows_are_those_of_the_workbook() {
        let hours = |window: &Window| (window.factor, window.long.as_secs() / 60, window.short.as_secs() / 60);
        assert_eq!(WINDOWS.each_ref().map(hours), [(14.4, 60, 5), (6.0, 360, 30), (1.0, 4320, 360)]);
    }

    #[rstest]
    #[case([pair(0.0145, 0.0145), pair(0.0, 0.0), pair(0.0, 0.0)], Some(14.4))]
    #[case([pair(0.0145, 0.0143), pair(0.0061, 0.0061), pair(0.0, 0.0)], Some(6.0))]
    #[case([pair(0.0143, 0.5), pair(0.0061, 0.0059), pair(0.0011, 0.0011)], Some(1.0))]
    #[case([pair(0.0143, 0.5), pair(0.0061, 0.0059), pair(0.0009, 0.0011)], None)]
    #[case([Errors { long: Some(1.0), short: None }, pair(0.0, 1.0), pair(1.0, 0.0)], None)]
    fn a_pair_burns_if_both_its_windows_do(#[case] errors: [Errors; 3], #[case] expected: Option<f64>) {
        assert_eq!(burning(0.999, &errors).map(|burn| burn.window.factor), expected);
    }

    #[test]
    fn rates_are_in_multiples_of_the_budget() {
        let burn = burning(0.99, &[pair(0.2, 0.3), Errors::default(), Errors::default()]).unwrap();
        assert!((burn.long - 20.0).abs() < 1e-9 && (burn.short - 30.0).abs() < 1e-9, "{burn:?}");
    }

    #[test]
    fn where_no_error_is_allowed_one_burns() {
        assert_eq!(burning(1.0, &[pair(1e-9, 1e-9); 3]).map(|burn| burn.window.factor), Some(14.4));
        assert_eq!(burning(1.0, &[pair(0.0, 0.0); 3]), None);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_nan_or_infinite(objective in any::<f64>(), long in any::<f64>(), short in any::<f64>()) {
            if let Some(burn) = burning(objective, &[pair(long, short); 3]) {
                prop_assert!(burn.long.is_finite() && burn.short.is_finite());
            }
        }
    }
}
