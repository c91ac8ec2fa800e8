//! Checks that tolerate wrong answers for longer than they are asked at all, or for longer than clients should get them
//! too. That the right answers of a check take long is no fault: the first wrong one ends it.

use super::{Finding, Severity, yaml::Node};
use crate::{
    api::{Check, Duration, Moment, OnFailure, ServiceRelease},
    engine::plan::{Policy, Situation, Step},
};

/// How long a version that does not answer may keep its clients without a word.
const LONG: Duration = Duration::from_secs(600);

/// Looks at the checks of a release.
pub fn advise(release: &ServiceRelease, document: &Node, found: &mut Vec<Finding>) {
    let policy = Policy::compile(&release.spec, &[], Situation::default());
    for (index, check) in release.spec.checks.iter().enumerate() {
        let tolerated = unreached(check, policy.deadline).or_else(|| slow(check, &policy));
        for (field, rule, message) in tolerated.into_iter().chain(asked_once(check, &policy)) {
            let field = format!("spec.checks[{index}].{field}");
            found.push(Finding { place: document.find(&field), field, severity: Severity::Warning, rule, message });
        }
    }
}

/// A field of a check, the rule and what is said.
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
