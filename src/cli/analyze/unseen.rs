//! Counters of events that no side has a series of: of a service that never failed, or under a wrong name. What else there
//! is of that name tells the two apart, for a person.

use super::{source::Source, subject::Subject};
use crate::{
    api::Metric,
    engine::{Measure, Reply, measuring},
};

/// The longest time, in seconds, that is looked back for series.
const LONGEST: i64 = 3600;

/// What Prometheus has of the metric that `events` names; none where it does not say, or nobody can tell the name.
pub async fn hint(source: &Source, subject: &Subject, metric: &Metric) -> Option<String> {
    let events = measuring::counters(metric, &subject.sides.candidate)?.events?;
    let name = name(&events)?;
    let seconds = (subject.to.as_millis() - subject.from.as_millis()) / 1000;
    let query = format!("count(count_over_time({name}[{}s]))", seconds.clamp(1, LONGEST));
    let measure = Measure::Value { query, requests: None };
    // It is a hint: what has no answer was judged without it.
    match source.measure(&metric.name, &measure, subject.to).await.ok()? {
        Reply::Value(count) => Some(format!(
            "of {name} there are {count} series, none with these labels: nothing has failed yet, or a label is wrong"
        )),
        Reply::NoData(_) => {
            Some(format!("of {name} there is no series at all: it appears with the first error, or the name is wrong"))
        }
        _ => None,
    }
}

/// The metric's name at the beginning of a selector.
fn name(selector: &str) -> Option<&str> {
    let selector = selector.trim_start();
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | ':');
    let end = selector.find(|character| !is_of_name(character)).unwrap_or(selector.len());
    selector.get(..end).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"http_requests_total{code=~"5.."}"#, Some("http_requests_total"))]
    #[case(" job:errors:sum", Some("job:errors:sum"))]
    #[case(r#"{__name__="errors"}"#, None)]
    #[case("", None)]
    fn the_name_is_what_stands_before_the_labels(#[case] selector: &str, #[case] expected: Option<&str>) {
        assert_eq!(name(selector), expected);
    }
}
