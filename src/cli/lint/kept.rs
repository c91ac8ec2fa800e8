//! How quickly what was promoted can be taken back while it is observed.

use super::{Finding, Severity, yaml::Node};
use crate::{
    api::{Duration, ServiceRelease, ServiceReleaseSpec},
    engine::plan::{Policy, Situation},
};

/// Looks at a release that is observed for longer than the pods of the revision before are kept.
pub fn advise(release: &ServiceRelease, document: &Node, found: &mut Vec<Finding>) {
    let spec = &release.spec;
    let policy = Policy::compile(spec, &[], Situation::default());
    let kept = policy.keep_previous.max(policy.connections());
    let Some(observed) = policy.observation.filter(|observed| *observed > kept && is_to_be_kept(spec)) else { return };
    let said = spec.rollback.keep_previous.is_some();
    let field = if said { "spec.rollback.keepPrevious" } else { "spec.observation.duration" };
    let message = format!(
        "the pods of the revision before are kept for {kept} of the {observed} of observation: what is taken back later has to start them first, and that all new pods lose their readiness takes nothing back; set rollback.keepPrevious to {observed}, or to 0s if that is meant"
    );
    found.push(Finding {
        place: document.find(field),
        field: field.to_owned(),
        severity: Severity::Warning,
        rule: "not-kept",
        message,
    });
}

/// Whether there are pods to keep, and somebody wants them: without a Service none are, those whose code does not fit the new
/// schema are no way back, and 0s says so.
fn is_to_be_kept(spec: &ServiceReleaseSpec) -> bool {
    let migration = spec.database.as_ref().and_then(|database| database.migration.as_ref());
    let fits = migration.is_none_or(|migration| migration.previous_revision_compatible);
    fits && spec.traffic.is_some() && spec.rollback.keep_previous != Some(Duration::default())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tests::with;

    /// The good manifest with these fields.
    fn observed(more: &str) -> String {
        with("  strategy:", &format!("{more}  strategy:"))
    }

    #[test]
    fn an_observation_that_outlives_the_pods_that_were_kept_is_told() {
        insta::assert_snapshot!(observed("  observation: {duration: 24h}\n"), @"
        shop.yaml:30:17: warning: spec.observation.duration: the pods of the revision before are kept for 0s of the 24h of observation: what is taken back later has to start them first, and that all new pods lose their readiness takes nothing back; set rollback.keepPrevious to 24h, or to 0s if that is meant [not-kept]
        0 errors, 1 warning in 1 document
        ");
        let shorter = observed("  observation: {duration: 24h}\n  rollback: {keepPrevious: 30m}\n");
        insta::assert_snapshot!(shorter, @"
        shop.yaml:31:14: warning: spec.rollback.keepPrevious: the pods of the revision before are kept for 30m of the 24h of observation: what is taken back later has to start them first, and that all new pods lose their readiness takes nothing back; set rollback.keepPrevious to 24h, or to 0s if that is meant [not-kept]
        0 errors, 1 warning in 1 document
        ");
    }

    const MIGRATION: &str =
        "  database:\n    urlFrom: {secretKeyRef: {name: db, key: URL}}\n    migration: {sql: {configMap: sql}";

    #[rstest]
    #[case::as_long("  observation: {duration: 24h}\n  rollback: {keepPrevious: 24h}\n")]
    #[case::it_is_meant("  observation: {duration: 24h}\n  rollback: {keepPrevious: 0s}\n")]
    #[case::nothing_is_observed("  rollback: {keepPrevious: 30m}\n")]
    fn one_that_does_not_is_not(#[case] more: &str) {
        assert_eq!(observed(more), "0 errors, 0 warnings in 1 document\n");
    }

    #[rstest]
    #[case::fits(", previousRevisionCompatible: true}\n", true)]
    #[case::does_not("}\n  maintenance: {configMap: {name: mode, key: M}}\n", false)]
    fn code_that_does_not_fit_the_new_schema_is_no_way_back(#[case] rest: &str, #[case] warns: bool) {
        let text = observed(&format!("  observation: {{duration: 24h}}\n{MIGRATION}{rest}"));
        assert_eq!(text.contains("[not-kept]"), warns, "{text}");
    }
}
