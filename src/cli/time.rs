//! How long ago, how long yet: as a person says it.

use crate::api::{Duration, Timestamp};

/// A duration in at most two units: `45s`, `2m10s`, `3h5m`, `4d2h`.
#[must_use]
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_millis() / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut text = String::new();
    let mut parts = 0;
    for (size, name) in units {
        let count = left / size;
        if count > 0 || (parts > 0 && parts < 2) {
            parts += 1;
            if count > 0 {
                text += &format!("{count}{name}");
            }
            left %= size;
        }
        if parts == 2 {
            break;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `2m10s ago`.
#[must_use]
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.since(then)))
}

/// Now, by the clock of this machine.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::new(jiff::Timestamp::now())
}

/// How far this machine's clock may be from the operator's before "left" and "ago" mislead is not
/// known here, so a time that should be over is shown as over.
#[must_use]
pub fn left(until: Timestamp, now: Timestamp) -> String {
    match until.since(now).as_millis() {
        0 => "due now".to_owned(),
        _ => format!("{} left", rough(Duration::from_millis(until.since(now).as_millis().next_multiple_of(1000)))),
    }
}

/// A Kubernetes time.
#[must_use]
pub fn of(time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> Timestamp {
    Timestamp::from_millis(time.0.as_millisecond())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0s")]
    #[case(999, "0s")]
    #[case(45_000, "45s")]
    #[case(60_000, "1m")]
    #[case(130_000, "2m10s")]
    #[case(3_600_000, "1h")]
    #[case(3_605_000, "1h")]
    #[case(11_100_000, "3h5m")]
    #[case(360_000_000, "4d4h")]
    fn durations_are_given_in_two_units(#[case] millis: u64, #[case] text: &str) {
        assert_eq!(rough(Duration::from_millis(millis)), text);
    }

    #[test]
    fn what_is_left_is_rounded_up_so_that_zero_means_over() {
        let at = Timestamp::from_millis;
        assert_eq!(left(at(1_500), at(0)), "2s left");
        assert_eq!(left(at(1_500), at(1_500)), "due now");
        assert_eq!(left(at(1_500), at(9_999)), "due now");
    }
}
