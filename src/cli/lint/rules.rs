//! What is wrong with a document: apiVersion, kind, metadata, the schema, the rules between fields.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Finding, Severity, schema,
    yaml::{Content, Node},
};
use crate::{
    api::{AnalysisTemplate, GROUP, ReleaseCommand, ServiceRelease, validate},
    checks,
    cli::connect::is_near,
    engine::templates,
};

/// The version of the API that is served.
const VERSION: &str = "v1alpha1";
/// The kinds of the group.
const KINDS: [&str; 4] = ["ServiceRelease", "ReleaseCommand", "AnalysisTemplate", "ClusterAnalysisTemplate"];

/// What a document is.
#[derive(Debug)]
pub enum Kind {
    /// A ServiceRelease; typed only if its fields have the right types.
    Release(Option<Box<ServiceRelease>>),
    /// An AnalysisTemplate or ClusterAnalysisTemplate; likewise.
    Template(Option<Box<AnalysisTemplate>>),
    /// Another kind of this group, or meant to be one.
    Ours,
    /// Something else, which is looked at only beside a release.
    Other,
}

/// Finds what is wrong with a document of this group.
pub fn examine(document: &Node, found: &mut Vec<Finding>) -> Kind {
    let api_version = document.get("apiVersion").and_then(Node::text).unwrap_or_default();
    let kind = document.get("kind").and_then(Node::text).unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if group != GROUP && !KINDS.contains(&kind) {
        return Kind::Other;
    }
    if group != GROUP || version != VERSION {
        found.push(error(document, "apiVersion", "api-version", format!("must be {GROUP}/{VERSION}")));
    }
    let Some(kind) = KINDS.iter().find(|known| **known == kind) else {
        let near = KINDS.iter().find(|known| is_near(kind, known));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        found.push(error(document, "kind", "kind", format!("{GROUP} has the kinds {}{hint}", KINDS.join(", "))));
        return Kind::Ours;
    };
    let before = found.len();
    envelope(document, found);
    if *kind == "ReleaseCommand" {
        body(&schema::RELEASE_COMMAND, document, found);
        if let Some(command) = typed::<ReleaseCommand>(document, before, found) {
            violations(document, validate::release_command(&command.spec), found);
        }
        return Kind::Ours;
    }
    if kind.ends_with("AnalysisTemplate") {
        body(&schema::ANALYSIS_TEMPLATE, document, found);
        let template = typed::<AnalysisTemplate>(document, before, found);
        if let Some((field, message)) = template.as_ref().and_then(|it| templates::unsound(&it.spec)) {
            found.push(error(document, &field, "analysis", message));
        }
        return Kind::Template(template.map(Box::new));
    }
    body(&schema::SERVICE_RELEASE, document, found);
    if let Some(pod) = document.at(&["spec", "template", "spec"]) {
        schema::check(&schema::POD_SPEC, pod, "spec.template.spec", found);
    }
    empty_steps(document, found);
    let release = typed::<ServiceRelease>(document, before, found);
    if let Some(release) = &release {
        violations(document, validate::service_release(release), found);
        let unsound = checks::unsound(&release.spec);
        found.extend(unsound.into_iter().map(|it| error(document, &it.field, "check", it.message)));
        found.extend(not_kept(document, release));
    }
    Kind::Release(release.map(Box::new))
}

/// Pods that are to be kept for an undo, and that no Service could keep requests from.
fn not_kept(document: &Node, release: &ServiceRelease) -> Option<Finding> {
    let spec = &release.spec;
    let keeps = spec.rollback.keep_previous.is_some() && spec.traffic.is_none();
    let message = "without traffic.service nothing is kept: the previous pods would work beside the new ones";
    let field = "spec.rollback.keepPrevious";
    keeps.then(|| Finding { severity: Severity::Warning, ..error(document, field, "not-kept", message.to_owned()) })
}

fn error(document: &Node, field: &str, rule: &'static str, message: String) -> Finding {
    Finding { place: document.find(field), field: field.to_owned(), severity: Severity::Error, rule, message }
}

/// Everything but spec.
fn envelope(document: &Node, found: &mut Vec<Finding>) {
    let Content::Map(entries) = &document.content else { return };
    for (key, value) in entries {
        match key.name.as_str() {
            "apiVersion" | "kind" | "spec" => {}
            "metadata" => schema::check(&schema::METADATA, value, "metadata", found),
            "status" => found.push(Finding {
                place: key.place,
                field: "status".to_owned(),
                severity: Severity::Warning,
                rule: "status",
                message: "is written by the operator; what a manifest says is dropped".to_owned(),
            }),
            name => {
                let near = ["metadata", "spec"].into_iter().find(|known| is_near(name, known));
                let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                found.push(Finding {
                    place: key.place,
                    field: name.to_owned(),
                    severity: Severity::Error,
                    rule: "unknown-field",
                    message: format!("there is no such field; there are apiVersion, kind, metadata, spec{hint}"),
                });
            }
        }
    }
    name(document, found);
}

fn name(document: &Node, found: &mut Vec<Finding>) {
    let metadata = document.get("metadata");
    let text = |field: &str| metadata.and_then(|metadata| metadata.get(field)?.text());
    match text("name") {
        Some(name) if !is_dns_name(name) => {
            let message = format!(
                "{name:?} is not a name: lower-case letters, digits, - and ., first and last a letter or digit"
            );
            found.push(error(document, "metadata.name", "name", message));
        }
        None if text("generateName").is_none() => {
            found.push(error(document, "metadata", "required", "name is missing".to_owned()));
        }
        _ => {}
    }
}

fn is_dns_name(name: &str) -> bool {
    let part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(allowed) && !part.starts_with('-') && !part.ends_with('-')
    };
    name.split('.').all(part)
}

fn body(schema: &schema::Schema, document: &Node, found: &mut Vec<Finding>) {
    match document.get("spec") {
        Some(spec) => schema::check_property(schema, "spec", spec, document.find("spec"), found),
        None => found.push(error(document, "", "required", "spec is missing".to_owned())),
    }
}

/// The document as its type; if it does not fit and nothing was found that says why, the reason is.
fn typed<T: DeserializeOwned>(document: &Node, before: usize, found: &mut Vec<Finding>) -> Option<T> {
    match serde_path_to_error::deserialize::<Value, T>(document.to_json_without_nulls()) {
        Ok(typed) => Some(typed),
        Err(why) => {
            if !found[before..].iter().any(|finding| finding.severity == Severity::Error) {
                let field = why.path().to_string();
                found.push(error(document, &field, "type", why.into_inner().to_string()));
            }
            None
        }
    }
}

fn violations(document: &Node, violations: Vec<validate::Violation>, found: &mut Vec<Finding>) {
    for violation in violations {
        // A misspelt field is also one that is missing, and a step without a value was told about.
        let is_told = |finding: &Finding| {
            let parent = finding.field.rsplit_once('.').map_or("", |(parent, _)| parent);
            matches!(finding.rule, "empty-step" | "unknown-field") && parent == violation.field
        };
        let told = found.iter().any(is_told);
        if !told {
            found.push(error(document, &violation.field, "rule", violation.message.to_owned()));
        }
    }
}

/// `- pause:` is a step without content; `- pause: {}` is meant.
fn empty_steps(document: &Node, found: &mut Vec<Finding>) {
    let steps = document.at(&["spec", "strategy", "canary", "steps"]);
    for (index, step) in steps.map(Node::items).unwrap_or_default().iter().enumerate() {
        let Content::Map(entries) = &step.content else { continue };
        // Beside another field it counts as not written.
        if let [(key, value)] = entries.as_slice()
            && matches!(value.content, Content::Scalar(Value::Null))
            && ["pause", "approval"].contains(&key.name.as_str())
        {
            let field = format!("spec.strategy.canary.steps[{index}].{}", key.name);
            found.push(error(document, &field, "empty-step", format!("has no value; write {}: {{}}", key.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tests::with;

    #[rstest]
    #[case("{name: a, http: {}}, {name: a, http: {}}", "[1].name: spec.checks[0] is named a too")]
    #[case("{name: a, keys: []}", "[0].keys: has 0 items, at least 1 are needed")]
    #[case("{name: a, http: {port: nope}}", "[0].http.port: no container of spec.template has a port nope")]
    #[case("{name: a, http: {expect: {cel: body.ok}}}", "[0].http.expect.cel: there is no body")]
    #[case(
        "{name: a, http: {expect: {cel: size(json.a) / size(json.b) < 0.8}}}",
        "[0].http.expect.cel: / of two whole"
    )]
    fn a_check_that_could_never_be_asked_is_an_error(#[case] checks: &str, #[case] told: &str) {
        let text = with("  strategy:", &format!("  checks: [{checks}]\n  strategy:"));
        assert!(text.contains(&format!("error: spec.checks{told}")), "{text}");
    }

    #[test]
    fn what_cannot_be_kept_is_told() {
        let text = with("  traffic:\n    service: shop\n", "  rollback: {keepPrevious: 1h}\n");
        assert!(
            text.contains("warning: spec.rollback.keepPrevious: without traffic.service nothing is kept"),
            "{text}"
        );
    }
}
