//! What in a pod spec is refused for pods that serve, loses requests during a release, or makes releases
//! that are none.

use super::{Finding, Severity, yaml::Node};

/// How long an application has to go on serving after SIGTERM, in seconds, for the promise that no
/// request is lost: until kube-proxies and clients know that the endpoint is gone.
const SERVE_ON: i64 = 5;
/// Kubernetes' default for terminationGracePeriodSeconds.
const GRACE: i64 = 30;
/// A grace period below this leaves no time to serve on and to finish requests under way.
const SHORT_GRACE: i64 = 10;

/// Looks at the pod spec at `spec.template.spec` of a document.
pub fn advise(document: &Node, found: &mut Vec<Finding>) {
    let Some(pod) = document.at(&["spec", "template", "spec"]) else { return };
    let mut advice = Advice { document, found };
    let containers = pod.get("containers").map(Node::items).unwrap_or_default();
    let serves = |container: &Node| container.get("ports").is_some_and(|ports| !ports.items().is_empty());
    let none_has_ports = !containers.iter().any(serves);
    if pod.get("containers").is_some_and(|list| list.items().is_empty()) {
        advice.error("spec.template.spec.containers", "containers", "needs at least one container".to_owned());
    }
    if let Some(policy) = pod.get("restartPolicy").and_then(Node::text).filter(|policy| *policy != "Always") {
        let message = format!("{policy} is refused: pods that serve have Always, which is the default");
        advice.error("spec.template.spec.restartPolicy", "restart-policy", message);
    }
    let grace = pod.get("terminationGracePeriodSeconds").and_then(Node::integer).unwrap_or(GRACE);
    for (index, container) in containers.iter().enumerate() {
        let field = format!("spec.template.spec.containers[{index}]");
        if serves(container) || (none_has_ports && containers.len() == 1) {
            advice.readiness(container, &field);
            advice.ending(container, &field, grace);
        }
        advice.image(container, &field);
    }
    for (index, container) in pod.get("initContainers").map(Node::items).unwrap_or_default().iter().enumerate() {
        advice.image(container, &format!("spec.template.spec.initContainers[{index}]"));
    }
    if grace < SHORT_GRACE {
        let message = format!(
            "{grace}s are too short: the application has to serve for {SERVE_ON}s after SIGTERM, and then to finish its requests; use {GRACE}"
        );
        advice.warn("spec.template.spec.terminationGracePeriodSeconds", "grace-period", message);
    }
}

struct Advice<'a> {
    document: &'a Node,
    found: &'a mut Vec<Finding>,
}

impl Advice<'_> {
    fn warn(&mut self, field: &str, rule: &'static str, message: String) {
        self.tell(Severity::Warning, field, rule, message);
    }

    fn error(&mut self, field: &str, rule: &'static str, message: String) {
        self.tell(Severity::Error, field, rule, message);
    }

    fn tell(&mut self, severity: Severity, field: &str, rule: &'static str, message: String) {
        self.found.push(Finding { place: self.document.find(field), field: field.to_owned(), severity, rule, message });
    }

    fn readiness(&mut self, container: &Node, field: &str) {
        if container.get("readinessProbe").is_none() {
            let name = name(container);
            let message = format!(
                "container {name} has no readinessProbe: it gets requests as soon as its process runs, and a release cannot see that it does not work"
            );
            self.warn(field, "readiness-probe", message);
        }
    }

    /// Whether it goes on serving for a while after SIGTERM. An application that does so by itself
    /// cannot be told from one that does not.
    fn ending(&mut self, container: &Node, field: &str, grace: i64) {
        let Some(hook) = container.at(&["lifecycle", "preStop"]) else {
            let name = name(container);
            let message = format!(
                "container {name} has no preStop hook: unless the application goes on serving for {SERVE_ON}s after SIGTERM, requests are lost; add lifecycle.preStop.sleep.seconds: {SERVE_ON}"
            );
            return self.warn(field, "pre-stop", message);
        };
        let Some(seconds) = hook.at(&["sleep", "seconds"]).and_then(Node::integer) else { return };
        let field = format!("{field}.lifecycle.preStop.sleep.seconds");
        if seconds >= grace {
            let message = format!(
                "{seconds}s of sleep use up the grace period of {grace}s: the process is killed at once after it"
            );
            self.warn(&field, "pre-stop", message);
        } else if seconds < SERVE_ON {
            let message = format!("{seconds}s are too short: endpoints take up to {SERVE_ON}s to be gone everywhere");
            self.warn(&field, "pre-stop", message);
        }
    }

    fn image(&mut self, container: &Node, field: &str) {
        let Some(image) = container.get("image").and_then(Node::text) else { return };
        let why = match tag(image) {
            Tag::Fixed => return,
            Tag::None => "has no tag, which means latest",
            Tag::Latest => "has the tag latest",
        };
        let message = format!(
            "{image} {why}: a new image of that name is no release, and pods of one revision can differ; use a tag of its own or a digest"
        );
        self.warn(&format!("{field}.image"), "image-tag", message);
    }
}

fn name(container: &Node) -> &str {
    container.get("name").and_then(Node::text).unwrap_or("without a name")
}

#[derive(Debug, PartialEq, Eq)]
enum Tag {
    Fixed,
    None,
    Latest,
}

/// `registry:5000/path/image:tag@digest`; a digest fixes it whatever the tag.
fn tag(image: &str) -> Tag {
    if image.contains('@') || image.contains("${") {
        return Tag::Fixed;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None => Tag::None,
        Some((_, "latest")) => Tag::Latest,
        Some(_) => Tag::Fixed,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("shop", Tag::None)]
    #[case("registry:5000/shop", Tag::None)]
    #[case("registry:5000/team/shop:latest", Tag::Latest)]
    #[case("registry:5000/team/shop:1.2", Tag::Fixed)]
    #[case("shop@sha256:0123", Tag::Fixed)]
    #[case("shop:latest@sha256:0123", Tag::Fixed)]
    fn tags_are_told_from_ports_and_digests(#[case] image: &str, #[case] expected: Tag) {
        assert_eq!(tag(image), expected);
    }
}
