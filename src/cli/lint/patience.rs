//! Checks that tolerate wrong answers for longer than they are asked at all, or for longer than clients should get them
//! too, and metrics that tolerate bad values for ever. That the right answers of a check take long is no fault: the first
//! wrong one ends it.

use super::{Finding, Severity, yaml::Node};
use crate::{
    api::{Check, Duration, Metric, Moment, OnFailure, ServiceRelease},
    engine::plan::{Policy, Situation, Step},
};

/// How long a version that does not answer may keep its clients without a word.
const LONG: Duration = Duration::from_secs(600);

/// Looks at the checks and the metrics of a release.
pub fn advise(release: &ServiceRelease, document: &Node, found: &mut Vec<Finding>) {
    let policy = Policy::compile(&release.spec, &[], Situation::default());
    let mut told = |of: String, (field, rule, message): Advice| {
        let field = format!("{of}.{field}");
        found.push(Finding { place: document.find(&field), field, severity: Severity::Warning, rule, message });
    };
    for (index, check) in release.spec.checks.iter().enumerate() {
        let tolerated = unreached(check, policy.deadline).or_else(|| slow(check, &policy));
        for advice in tolerated.into_iter().chain(asked_once(check, &policy)) {
            told(format!("spec.checks[{index}]"), advice);
        }
    }
    let Some(analysis) = &release.spec.analysis else { return };
    for (index, metric) in analysis.metrics.iter().enumerate() {
        if let Some(advice) = flapping(metric, analysis.interval) {
            told(format!("spec.analysis.metrics[{index}]"), advice);
        }
    }
}

/// A field of a check or of a metric, the rule and what is said.
type Advice = (&'static str, &'static str, String);

/// How long the wrong answers that fail a check can take, for people.
fn wrong_answers(check: &Check) -> String {
    let (answers, failing) = (check.tolerated(), check.failing());
    format!(
        "{answers} wrong answers can take {failing} (timeout {} each, interval {} between)",
        check.timeout(),
        check.interval
    )
}

/// Wrong answers of which not all are waited for: the check is overdue before.
fn unreached(check: &Check, deadline: Duration) -> Option<Advice> {
    let longest = check.longest(deadline).filter(|longest| check.failing() > *longest)?;
    let message = format!(
        "{}, but a check that has neither passed nor failed after {longest} fails: not all of them are waited for; lower it or interval, or raise progressDeadlineSeconds ({})",
        wrong_answers(check),
        deadline.as_millis() / 1000
    );
    Some(("failureThreshold", "deadline", message))
}

/// Wrong answers that clients get too, and for long. One answer that may take long is what its timeout says.
fn slow(check: &Check, policy: &Policy) -> Option<Advice> {
    let repeated = check.tolerated() > 1 && check.failing() > LONG && check.on_failure != OnFailure::Ignore;
    (repeated && meets_clients(check, policy)).then(|| {
        let message = format!(
            "{}, while clients are on the new version: one that hangs keeps them for as long; lower it, interval or timeout, for {LONG} at the most",
            wrong_answers(check)
        );
        ("failureThreshold", "slow-check", message)
    })
}

/// Whether it is asked when clients are on what it is about.
fn meets_clients(check: &Check, policy: &Policy) -> bool {
    let stands = check.every.is_some() && policy.observation.is_some();
    let mut weight = 0;
    let mut asked = |step: &Step| {
        if let Step::SetWeight(next) = step {
            weight = *next;
        }
        weight > 0 && matches!(step, Step::Check { names, .. } if names.contains(&check.name))
    };
    stands || check.when.contains(&Moment::AfterPromotion) || policy.steps.iter().any(&mut asked)
}

/// A standing probe whose time does not come again before the observation is over.
fn asked_once(check: &Check, policy: &Policy) -> Option<Advice> {
    let (every, observed) = (check.every?, policy.observation?);
    let message = format!(
        "{every} is not less than observation.duration ({observed}): it is asked once after the promotion, and not again; shorten it, or observe for longer"
    );
    (every >= observed).then_some(("every", "never-asked", message))
}

/// Bad values in a row, of which each has nothing to do with the one before: of a longer window than the interval they
/// would overlap, and what has no window is as it is.
fn flapping(metric: &Metric, interval: Duration) -> Option<Advice> {
    let query = metric.prometheus.as_ref()?.query.as_ref()?;
    let needed = metric.failure_threshold;
    if needed <= 1 || metric.success_threshold > 1 {
        return None;
    }
    let longest = windows(query, interval)?.into_iter().max().filter(|longest| *longest <= interval)?;
    let all = interval.as_millis().saturating_mul(u64::try_from(needed).unwrap_or(1));
    let message = format!(
        "{needed} values in a row are to be bad, and each is of another {longest}, measured every {interval}: where they are now good, now bad the metric never fails, and each good one is a Pass; set successThreshold to {needed} too, so that they hold the release, or look at a window of {} with failureThreshold 1",
        Duration::from_millis(all)
    );
    Some(("failureThreshold", "flapping", message))
}

/// The windows of a PromQL expression, such as `[5m]`; none where one of them is not understood.
fn windows(query: &str, interval: Duration) -> Option<Vec<Duration>> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some((at, mark)) = rest.char_indices().find(|(_, mark)| matches!(mark, '[' | '"' | '\'' | '`')) {
        let inner = &rest[at + 1..];
        if mark != '[' {
            rest = after_text(inner, mark)?;
            continue;
        }
        let (window, after) = inner.split_once(']')?;
        // What follows a colon is how often a query in it is evaluated.
        let window = window.split_once(':').map_or(window, |(window, _)| window).trim();
        found.push(if window == "{{interval}}" { interval } else { window.parse().ok()? });
        rest = after;
    }
    Some(found)
}

/// What follows a text in quotes of this kind.
fn after_text(text: &str, quote: char) -> Option<&str> {
    let mut escaped = false;
    let (end, _) = text.char_indices().find(|(_, it)| {
        let ends = *it == quote && !escaped;
        escaped = *it == '\\' && !escaped && quote != '`';
        ends
    })?;
    text.get(end + 1..)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::tests::with, *};

    /// The good manifest with a metric that is measured every 30 seconds.
    fn measured(query: &str, thresholds: &str) -> String {
        let metric = format!(
            "  analysis:\n    interval: 30s\n    metrics:\n    - name: errors\n      prometheus:\n        query: {query}\n      \
             threshold: {{max: 0.05}}\n      {thresholds}\n  strategy:"
        );
        with("  strategy:", &metric)
    }

    #[test]
    fn values_that_flap_around_the_limit_and_never_fail_are_told() {
        insta::assert_snapshot!(measured("sum(rate(errors[30s]))", "failureThreshold: 3"), @"
        shop.yaml:37:7: warning: spec.analysis.metrics[0].failureThreshold: 3 values in a row are to be bad, and each is of another 30s, measured every 30s: where they are now good, now bad the metric never fails, and each good one is a Pass; set successThreshold to 3 too, so that they hold the release, or look at a window of 1m30s with failureThreshold 1 [flapping]
        0 errors, 1 warning in 1 document
        ");
        assert!(measured("'sum(rate(errors[{{interval}}]))'", "failureThreshold: 2").contains("[flapping]"));
    }

    #[rstest]
    #[case::they_overlap("sum(rate(errors[5m]))", "failureThreshold: 3")]
    #[case::one_of_them_overlaps("sum(rate(errors[30s])) / sum(rate(requests[5m]))", "failureThreshold: 3")]
    #[case::a_state_and_no_window("max(pool_active)", "failureThreshold: 3")]
    #[case::the_first_bad_one_fails("sum(rate(errors[30s]))", "failureThreshold: 1")]
    #[case::a_good_one_is_no_pass("sum(rate(errors[30s]))", "failureThreshold: 3\n      successThreshold: 3")]
    #[case::days_are_long("sum(rate(errors[1d]))", "failureThreshold: 3")]
    #[case::a_class_in_a_regular_expression("sum(errors{code=~\"[45]..\"})", "failureThreshold: 3")]
    fn values_that_say_something_in_a_row_are_not(#[case] query: &str, #[case] thresholds: &str) {
        assert_eq!(measured(query, thresholds), "0 errors, 0 warnings in 1 document\n");
    }

    #[rstest]
    #[case("a", Some(vec![]))]
    #[case("rate(a[1m30s]) + rate(b[5s] offset 1h)", Some(vec![90, 5]))]
    #[case("max_over_time(rate(a{b=\"[1s]\\\"[2s]\", c='[3s]', d=`[4s]\\`}[10s])[5m:30s])", Some(vec![10, 300]))]
    #[case("rate(a[{{interval}}])", Some(vec![30]))]
    #[case("rate(a[{{args.window}}])", None)]
    #[case("rate(a[5m", None)]
    #[case("a{b=\"[5m]}", None)]
    fn windows_are_those_outside_of_texts(#[case] query: &str, #[case] expected: Option<Vec<u64>>) {
        let found = windows(query, Duration::from_secs(30));
        assert_eq!(found, expected.map(|all| all.into_iter().map(Duration::from_secs).collect()), "{query}");
    }
}
