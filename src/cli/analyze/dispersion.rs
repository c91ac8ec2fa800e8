//! How far events come in bunches: what `compare.dispersion` has to be told. Pure.

use crate::api::TallyStatus;

/// The variance of counts of events over what it would be if each came by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispersion {
    /// Of the counts of each pod in each interval, given the events of all pods in it: 1 for independent ones,
    /// 5 where each cause makes five.
    pub between_pods: f64,
    /// How sure that is: its standard deviation for independent events.
    pub noise: f64,
    /// Of the counts of each interval, all pods together: also above 1 where all pods have bad minutes together,
    /// which a comparison of pods does not mind.
    pub over_time: f64,
}

impl Dispersion {
    /// Of counts by pod, each a list by interval; none if no interval has events and two pods with requests.
    #[must_use]
    pub fn of(pods: &[Vec<TallyStatus>]) -> Option<Self> {
        let intervals = pods.iter().map(Vec::len).max().unwrap_or(0);
        let (mut sum, mut freedom) = (0.0, 0.0);
        let mut totals = Vec::with_capacity(intervals);
        for interval in 0..intervals {
            let counts = pods.iter().filter_map(|pod| pod.get(interval)).filter(|tally| tally.requests > 0);
            let counts: Vec<[f64; 2]> = counts.map(|tally| [tally.events as f64, tally.requests as f64]).collect();
            let [events, requests] = counts.iter().fold([0.0, 0.0], |sum, it| [sum[0] + it[0], sum[1] + it[1]]);
            totals.push(events);
            if events > 0.0 && counts.len() > 1 {
                let expected = |it: &[f64; 2]| events * it[1] / requests;
                sum += counts.iter().map(|it| (it[0] - expected(it)).powi(2) / expected(it)).sum::<f64>();
                freedom += counts.len() as f64 - 1.0;
            }
        }
        if freedom < 1.0 {
            return None;
        }
        let noise = (2.0_f64 / freedom).sqrt();
        Some(Self { between_pods: sum / freedom, noise, over_time: variance_over_mean(&totals) })
    }

    /// What to set: to one decimal, 1 to 1000; 1 unless what was seen is clearly more than chance.
    #[must_use]
    pub fn suggested(&self) -> f64 {
        if self.between_pods < 1.0 + 2.0 * self.noise {
            return 1.0;
        }
        ((self.between_pods * 10.0).ceil() / 10.0).clamp(1.0, 1000.0)
    }
}

fn variance_over_mean(counts: &[f64]) -> f64 {
    let number = counts.len() as f64;
    let mean = counts.iter().sum::<f64>() / number;
    if number < 2.0 || mean <= 0.0 {
        return 1.0;
    }
    let squares: f64 = counts.iter().map(|count| (count - mean).powi(2)).sum();
    squares / (number - 1.0) / mean
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// Ten pods with 100 requests in each of 200 intervals; events come `size` at a time.
    fn pods(size: i64) -> Vec<Vec<TallyStatus>> {
        let mut dice = Rng::with_seed(3);
        let mut interval = || {
            let causes = (0..100).filter(|_| dice.f64() < 0.05 / size as f64).count();
            TallyStatus { requests: 100, events: size * i64::try_from(causes).unwrap() }
        };
        (0..10).map(|_| (0..200).map(|_| interval()).collect()).collect()
    }

    #[test]
    fn independent_events_need_no_dispersion() {
        let dispersion = Dispersion::of(&pods(1)).unwrap();
        assert!((dispersion.between_pods - 1.0).abs() < 0.1, "{dispersion:?}");
        assert!((dispersion.suggested() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn bunches_of_five_are_seen_as_such() {
        let dispersion = Dispersion::of(&pods(5)).unwrap();
        assert!((4.5..5.5).contains(&dispersion.between_pods), "{dispersion:?}");
        assert!((4.5..=5.5).contains(&dispersion.suggested()));
    }

    #[test]
    fn minutes_that_are_bad_for_all_do_not_count() {
        let mut bad = pods(1);
        for pod in &mut bad {
            for tally in pod.iter_mut().skip(50).take(20) {
                tally.events = 20;
            }
        }
        let dispersion = Dispersion::of(&bad).unwrap();
        assert!(dispersion.over_time > 20.0 && dispersion.between_pods < 1.1, "{dispersion:?}");
    }

    #[test]
    fn without_events_nothing_is_said() {
        assert_eq!(Dispersion::of(&vec![vec![TallyStatus { requests: 9, events: 0 }; 3]; 4]), None);
        assert_eq!(Dispersion::of(&[vec![TallyStatus { requests: 9, events: 3 }; 3]]), None);
    }
}
