//! Durations and points in time as they are written in manifests and status: to the millisecond.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What [`Duration`] accepts, as Gateway API durations are written (GEP-2257).
pub const DURATION_PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A length of time in whole milliseconds, written like `1h30m`, `30s` or `500ms` (GEP-2257).
///
/// At most four parts of at most five digits each, so between 0 and about 45 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    millis: u64,
}

/// A text that is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a duration: write hours, minutes, seconds, milliseconds such as 1h30m, 30s or 500ms")]
pub struct InvalidDuration(String);

impl Duration {
    /// A duration of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self { millis: seconds.saturating_mul(1000) }
    }

    /// The whole of it in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.millis
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDuration(text.chars().take(64).collect());
        let mut rest = text;
        let mut millis = 0u64;
        for part in 0.. {
            if rest.is_empty() && part > 0 {
                break;
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at(unit);
            let factor = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                _ => return Err(invalid()),
            };
            if part == 4 || digits > 5 {
                return Err(invalid());
            }
            millis += number.parse::<u64>().map_err(|_| invalid())? * factor;
            rest = tail;
        }
        Ok(Self { millis })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let mut left = self.millis;
        for (size, name) in units {
            // A number has at most five digits: hours beyond that are carried by the text as they are.
            let count = left / size;
            if count > 0 {
                write!(f, "{count}{name}")?;
                left %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DURATION_PATTERN, "maxLength": 32 })
    }
}

/// A point in time to the millisecond, written as RFC 3339 in UTC with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The time given, cut to the millisecond.
    #[must_use]
    pub fn new(time: jiff::Timestamp) -> Self {
        Self::from_millis(time.as_millisecond())
    }

    /// Milliseconds since the Unix epoch; times outside jiff's range become the epoch.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The time as jiff has it.
    #[must_use]
    pub fn inner(self) -> jiff::Timestamp {
        self.0
    }

    /// This time plus a duration; saturates at the end of jiff's range.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let later = self.0.saturating_add(SignedDuration::from_millis(millis));
        Self(later.unwrap_or(jiff::Timestamp::MAX))
    }

    /// So much earlier; the first moment there is where that is before it.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let earlier = self.0.saturating_sub(SignedDuration::from_millis(millis));
        Self(earlier.unwrap_or(jiff::Timestamp::MIN))
    }

    /// The time that passed from `earlier` to this, zero if it is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.as_millis().saturating_sub(earlier.as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        jiff::Timestamp::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time", "maxLength": 32 })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0s", 0)]
    #[case("500ms", 500)]
    #[case("1h30m", 5_400_000)]
    #[case("1s500ms", 1_500)]
    #[case("24h", 86_400_000)]
    fn durations_are_read_and_written_alike(#[case] text: &str, #[case] millis: u64) {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(duration.as_millis(), millis);
        assert_eq!(duration.to_string(), text);
    }

    #[rstest]
    #[case("")]
    #[case("5")]
    #[case("-5s")]
    #[case("1.5s")]
    #[case("1d")]
    #[case("100000s")]
    #[case("1h1h1h1h1h")]
    #[case("5 s")]
    fn other_texts_are_refused_with_the_remedy(#[case] text: &str) {
        let error = text.parse::<Duration>().unwrap_err();
        assert!(error.to_string().contains("write hours"), "{error}");
    }

    #[test]
    fn times_keep_milliseconds_and_no_more() {
        let time: Timestamp = serde_json::from_str("\"2026-01-02T03:04:05.678901Z\"").unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2026-01-02T03:04:05.678Z\"");
        let whole: Timestamp = serde_json::from_str("\"2026-01-02T03:04:05Z\"").unwrap();
        assert_eq!(whole.to_string(), "2026-01-02T03:04:05.000Z");
        assert_eq!(time.since(whole), Duration::from_millis(678));
        assert_eq!(whole.since(time), Duration::default());
    }
}
