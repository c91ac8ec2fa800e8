//! How a list of segments stays short without the paradox of Simpson: two of them become one whose exposure is the
//! mean of theirs, each counted by its *events*.
//!
//! By the requests it would be wrong: an hour at 10% with few errors and a minute at 90% in which both sides fail
//! alike would make a candidate with 15% of the requests and nearly all of the errors. By the events it never makes
//! more of a case against the candidate than the two did: what a segment of n events says of a ratio r above a
//! tolerated R is a constant less n (ln(1 + rho (r - 1)) - ln(1 + rho (R - 1))), which is concave in the exposure rho,
//! so that by Jensen's inequality the mean exposure takes off at least as much. E of the pooled segments is therefore
//! at most E of the segments, whichever are pooled and whenever: the bound on false alarms stays. What is lost is
//! power, so those are pooled that lose least of it: nothing, where the exposures are equal or one has no events.
//!
//! The upper bound of the ratio, by which a candidate passes, is moved a little, up or down: of sixty exposures made
//! eight by less than 1%, since the difference is of second order in that of the exposures.

use super::counts::{RATIOS, Segment};

/// Digits of an exposure as it is written down, as a factor.
const DIGITS: f64 = 1e9;

/// Two segments as one. Its exposure has nine digits, rounded up: never to the harm of the candidate.
#[must_use]
pub fn pooled(one: &Segment, other: &Segment) -> Segment {
    let events = |it: &Segment| it.candidate as f64 + it.stable as f64;
    let (own, more) = (events(one), events(other));
    let exposure = match own + more {
        all if all > 0.0 => (own / all).mul_add(one.exposure - other.exposure, other.exposure),
        _ => one.exposure.max(other.exposure),
    };
    let rounded = (exposure * DIGITS).ceil() / DIGITS;
    Segment {
        exposure: if one.exposure.max(other.exposure) < 1.0 { rounded.min(1.0 - 1.0 / DIGITS) } else { rounded },
        candidate: one.candidate.saturating_add(other.candidate),
        stable: one.stable.saturating_add(other.stable),
    }
}

/// The places of the two that lose least if they are pooled; the oldest of those that lose the same. None where no
/// two can be: segments without anything to compare are pooled only with their like.
#[must_use]
pub fn nearest(segments: &[Segment]) -> Option<(usize, usize)> {
    let pairs = (0..segments.len()).flat_map(|one| (one + 1..segments.len()).map(move |other| (one, other)));
    let losses = pairs.filter_map(|(one, other)| Some((loss(&segments[one], &segments[other])?, (one, other))));
    losses.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, places)| places)
}

/// Pools segments until no more than so many are left, as far as they can be.
pub fn shorten(segments: &mut Vec<Segment>, length: usize) {
    while segments.len() > length
        && let Some((one, other)) = nearest(segments)
    {
        let removed = segments.remove(one);
        segments[other - 1] = pooled(&removed, &segments[other - 1]);
    }
}

/// How much of ln E two segments may lose as one: the most over the ratios of the mixture.
fn loss(one: &Segment, other: &Segment) -> Option<f64> {
    if !(one.compares() && other.compares()) {
        return (one.exposure == other.exposure).then_some(0.0);
    }
    let whole = pooled(one, other);
    let said = |it: &Segment, ratio: f64| it.ln_likelihood(ratio, 1.0, 1.0);
    let lost = RATIOS.map(|ratio| said(one, ratio) + said(other, ratio) - said(&whole, ratio));
    // What is lost by rounding counts as nothing.
    Some(lost.into_iter().fold(0.0, f64::max)).map(|most| if most < 1e-6 { 0.0 } else { most })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judge::counts::RatioTest;

    fn segment(exposure: f64, candidate: u64, stable: u64) -> Segment {
        Segment { exposure, candidate, stable }
    }

    #[test]
    fn an_incident_of_both_sides_at_another_exposure_is_no_evidence() {
        // 1 h at 10% with 0.1% of errors, then an incident at 90%.
        let whole = pooled(&segment(0.1, 4, 32), &segment(0.9, 270, 30));
        assert!((whole.exposure - (36.0 * 0.1 + 300.0 * 0.9) / 336.0).abs() < 1e-8, "{whole:?}");
        let test = RatioTest { tolerated: 1.0, ..RatioTest::default() };
        assert!(!test.rejects(&[whole]), "{}", test.ln_e(&[whole]));
        // By the requests, which were 3600 and 100 in a second, it would have been taken for one.
        assert!(test.rejects(&[segment(0.13, 274, 62)]));
    }

    #[test]
    fn those_are_pooled_that_lose_least() {
        let seen = |exposures: &[f64]| exposures.iter().map(|it| segment(*it, 10, 10)).collect::<Vec<_>>();
        assert_eq!(nearest(&seen(&[0.1, 0.2, 0.3, 0.3, 0.9])), Some((2, 3)));
        assert_eq!(nearest(&seen(&[0.1, 0.4, 0.43, 0.9])), Some((1, 2)));
        let silent = [segment(0.1, 9, 9), segment(0.2, 9, 9), segment(0.9, 0, 0)];
        assert_eq!(nearest(&silent), Some((0, 2)), "without events nothing is lost");
        assert_eq!(nearest(&[]), None);
    }

    #[test]
    fn what_compares_nothing_stays_apart() {
        assert_eq!(nearest(&[segment(0.0, 0, 9), segment(0.5, 9, 9), segment(1.0, 9, 0)]), None);
        let twice = [segment(1.0, 9, 0), segment(0.5, 9, 9), segment(1.0, 3, 0)];
        assert_eq!(nearest(&twice), Some((0, 2)));
        assert_eq!(pooled(&twice[0], &twice[2]), segment(1.0, 12, 0));
    }

    #[test]
    fn a_short_list_says_nearly_what_the_long_one_says() {
        // A candidate that is twice as bad, at twenty exposures.
        let seen = |place: u64| {
            let (exposure, events) = (place as f64 / 21.0, [4.0, 40.0, 400.0][(place % 3) as usize]);
            let candidate = (events * 2.0 * exposure / (1.0 + exposure)) as u64;
            segment(exposure, candidate, events as u64 - candidate)
        };
        let long: Vec<Segment> = (1..=20).map(seen).collect();
        let mut short = long.clone();
        shorten(&mut short, 8);
        let test = RatioTest { tolerated: 1.5, ..RatioTest::default() };
        let [before, after] = [&long, &short].map(|it| (test.ln_e(it), test.upper_bound(it).unwrap()));
        assert_eq!(short.len(), 8);
        assert!(before.0 - after.0 < 1.0 && before.0 > 10.0, "{before:?} {after:?}");
        assert!((after.1 / before.1 - 1.0).abs() < 0.01, "{before:?} {after:?}");
    }

    fn any_segments() -> impl Strategy<Value = Vec<Segment>> {
        let one = (0.001..0.999, 0..300_u64, 0..300_u64);
        prop::collection::vec(one.prop_map(|(exposure, x, y)| segment(exposure, x, y)), 2..20)
    }

    proptest! {
        #[test]
        fn pooling_never_makes_more_of_a_case(
            seen in any_segments(), one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
            tolerated in 1.0..20.0,
        ) {
            let (one, other) = (one.index(seen.len()), other.index(seen.len()));
            prop_assume!(one < other);
            let test = RatioTest { tolerated, ..RatioTest::default() };
            let mut fewer = seen.clone();
            let removed = fewer.remove(one);
            fewer[other - 1] = pooled(&removed, &fewer[other - 1]);
            let (before, after) = (test.ln_e(&seen), test.ln_e(&fewer));
            prop_assert!(after <= before + 1e-9 * (1.0 + before.abs()), "{before} {after}");
        }

        #[test]
        fn no_input_makes_an_exposure_that_is_none(
            one in 0.0..=1.0, other in 0.0..=1.0, x in any::<u64>(), y in any::<u64>(), more in any::<u64>(),
        ) {
            let whole = pooled(&segment(one, x, y), &segment(other, more, x));
            prop_assert!(whole.exposure >= one.min(other) - 1e-9 && whole.exposure <= one.max(other) + 1e-9);
        }
    }
}
