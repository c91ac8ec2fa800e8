//! Which pods play the candidate in an A/A run. Pure: the same seed makes the same splits.

use std::collections::BTreeSet;

use fastrand::Rng;

/// Ways to choose some of the pods, each by the sorted places of those that play the candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// They, all different.
    pub all: Vec<Vec<usize>>,
    /// Whether there are no others.
    pub exhaustive: bool,
}

/// How many of the pods (2 or more) play the candidate: a percentage of them, at least one, and not all.
#[must_use]
pub fn candidates(pods: usize, percent: u8) -> usize {
    let share = (pods * usize::from(percent) + 50) / 100;
    share.clamp(1, pods.saturating_sub(1).max(1))
}

/// Splits `pods` pods so that `candidates` of them play the candidate: `runs` splits, or all if there are no more.
#[must_use]
pub fn make(pods: usize, candidates: usize, runs: usize, seed: u64) -> Splits {
    if ways(pods, candidates, runs) <= runs {
        return Splits { all: every(pods, candidates), exhaustive: true };
    }
    let mut dice = Rng::with_seed(seed);
    let mut places: Vec<usize> = (0..pods).collect();
    let mut known = BTreeSet::new();
    let mut all = Vec::new();
    while all.len() < runs {
        dice.shuffle(&mut places);
        let mut chosen = places[..candidates].to_vec();
        chosen.sort_unstable();
        if known.insert(chosen.clone()) {
            all.push(chosen);
        }
    }
    Splits { all, exhaustive: false }
}

/// How many ways there are; if they are more than `most`, some number above it.
fn ways(pods: usize, candidates: usize, most: usize) -> usize {
    let mut ways: usize = 1;
    for place in 0..candidates.min(pods - candidates) {
        // The product of so many numbers in a row is divisible.
        ways = ways.saturating_mul(pods - place) / (place + 1);
        if ways > most {
            break;
        }
    }
    ways
}

fn every(pods: usize, candidates: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    let mut chosen: Vec<usize> = (0..candidates).collect();
    loop {
        all.push(chosen.clone());
        // The last place that can move on, with all behind it close up.
        let Some(at) = (0..candidates).rev().find(|at| chosen[*at] < pods - candidates + at) else { return all };
        let first = chosen[at] + 1;
        for (offset, place) in chosen[at..].iter_mut().enumerate() {
            *place = first + offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(4, 2, 6)]
    #[case(5, 1, 5)]
    #[case(2, 1, 2)]
    #[case(10, 5, 252)]
    fn few_splits_are_all_made(#[case] pods: usize, #[case] candidates: usize, #[case] expected: usize) {
        let splits = make(pods, candidates, 300, 1);
        assert!(splits.exhaustive);
        let different: BTreeSet<_> = splits.all.iter().collect();
        assert_eq!((splits.all.len(), different.len()), (expected, expected));
        assert!(
            splits.all.iter().all(|one| one.len() == candidates && one.is_sorted() && one.iter().all(|it| *it < pods))
        );
    }

    #[test]
    fn of_many_some_are_drawn_by_the_seed() {
        let splits = make(40, 20, 50, 7);
        assert!(!splits.exhaustive && splits.all.len() == 50);
        assert_eq!(splits, make(40, 20, 50, 7));
        assert_ne!(splits, make(40, 20, 50, 8));
    }

    #[test]
    fn at_least_one_pod_plays_and_one_stays() {
        let shares = [(2, 1), (2, 99), (3, 50), (10, 25), (4, 50)];
        assert_eq!(shares.map(|(pods, percent)| candidates(pods, percent)), [1, 1, 2, 3, 2]);
    }
}
