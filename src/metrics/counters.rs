//! Increases of counters as whole events, sample by sample: Prometheus's own increase() extrapolates, and
//! does not see the first event of a series that begins with it.

/// The samples of one counter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Labels job, instance and pod: who was asked for it.
    pub target: [String; 3],
    /// Times in milliseconds and values, oldest first.
    pub samples: Vec<(i64, f64)>,
}

impl Series {
    /// The samples until a time in milliseconds.
    pub fn until(&self, end: i64) -> Self {
        let count = self.samples.partition_point(|(at, _)| *at <= end);
        Self { target: self.target.clone(), samples: self.samples[..count].to_vec() }
    }
}

/// What counters have counted after a time, in milliseconds. `known` tells since when each target was asked: a
/// series that appears later than its target began at 0.
pub fn increase(all: &[Series], known: &[Series], since: i64) -> i64 {
    let sum: f64 = all.iter().map(|series| increase_of(series, known, since)).sum();
    #[allow(clippy::cast_possible_truncation)] // bounded in the line itself
    let whole = sum.round().clamp(0.0, 9e15) as i64;
    whole
}

fn increase_of(series: &Series, known: &[Series], since: i64) -> f64 {
    let samples: Vec<(i64, f64)> = series.samples.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let before = samples.iter().rev().find(|(at, _)| *at <= since);
    let mut last = match (before, samples.first()) {
        (Some((_, value)), _) => *value,
        (None, Some((first, value))) => {
            let earlier = |other: &&Series| other.target == series.target;
            let was_asked = known.iter().filter(earlier).flat_map(|other| &other.samples).any(|(at, _)| at < first);
            if was_asked { 0.0 } else { *value }
        }
        (None, None) => return 0.0,
    };
    let mut sum = 0.0;
    for (_, value) in samples.into_iter().filter(|(at, _)| *at > since) {
        // A counter that falls was set back to 0 in between.
        sum += if value < last { value } else { value - last };
        last = value;
    }
    sum
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn series(pod: &str, samples: &[(i64, f64)]) -> Series {
        Series { target: [String::new(), String::new(), pod.into()], samples: samples.to_vec() }
    }

    #[rstest]
    #[case::from_the_last_sample_before(&[(0, 10.0), (9, 12.0), (15, 17.0), (20, 18.0)], 6)]
    #[case::set_back_by_a_restart(&[(9, 12.0), (15, 3.0), (20, 4.0)], 4)]
    #[case::nothing_after(&[(0, 10.0), (9, 12.0)], 0)]
    #[case::nothing_at_all(&[], 0)]
    #[case::a_target_that_is_new_counts_from_its_first_sample(&[(15, 100.0), (20, 103.0)], 3)]
    #[case::what_is_no_number_is_passed_over(&[(9, 1.0), (15, f64::NAN), (20, 3.0)], 2)]
    fn increases_are_counted_after_a_time(#[case] samples: &[(i64, f64)], #[case] expected: i64) {
        let all = [series("a", samples)];
        assert_eq!(increase(&all, &all, 10), expected);
    }

    #[test]
    fn the_first_error_of_a_pod_that_was_known_counts() {
        let total = [series("a", &[(5, 100.0), (15, 110.0)]), series("b", &[(15, 7.0)])];
        let errors = [series("a", &[(15, 1.0)]), series("b", &[(15, 5.0)])];
        assert_eq!(increase(&errors, &total, 10), 1);
    }
}
