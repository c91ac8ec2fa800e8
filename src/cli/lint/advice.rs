//! What is allowed and will surprise: weights that so few pods cannot make, releases without a
//! moment to stop at, two owners of one number.

use super::{Finding, Severity, kept, patience, pod, way_back, yaml::Node};
use crate::{
    api::{AnalysisTemplate, Canary, Metric, Moment, ServiceRelease, Strategy},
    checks::lacks_namespace,
    engine::{
        NamedTemplate, fails_alone,
        plan::{Policy, Situation, Step},
        ratio::{self, split},
        refusal, templates, unmeasured,
    },
};

/// A share that differs by so many points from the weight is worth a warning.
const POINTS: i32 = 5;

/// Looks at a release, beside all documents that were given.
pub fn of_release(release: &ServiceRelease, document: &Node, all: &[&Node], found: &mut Vec<Finding>) {
    let mut advice = Advice { release, document, found };
    advice.services();
    advice.steps(all);
    advice.metrics();
    advice.namespaces();
    advice.checks();
    advice.deadline();
    advice.refused();
    advice.autoscalers(all);
    patience::advise(release, document, found);
    kept::advise(release, document, found);
    way_back::advise(release, document, all, found);
    pod::advise(document, found);
}

/// Looks at a document that is no release: a Deployment that one of the releases adopts.
pub fn of_workload(document: &Node, releases: &[&ServiceRelease], found: &mut Vec<Finding>) {
    if document.get("kind").and_then(Node::text) != Some("Deployment") {
        return;
    }
    let adopts = |release: &&&ServiceRelease| {
        let reference = release.spec.workload_ref.as_ref();
        reference.is_some_and(|reference| is_named(document, &reference.name) && same_namespace(document, release))
    };
    let Some(release) = releases.iter().find(adopts) else { return };
    pod::advise(document, found);
    if document.at(&["spec", "replicas"]).is_some() {
        let name = release.metadata.name.as_deref().unwrap_or_default();
        found.push(Finding {
            place: document.find("spec.replicas"),
            field: "spec.replicas".to_owned(),
            severity: Severity::Warning,
            rule: "replicas",
            message: format!(
                "ServiceRelease {name} adopts this Deployment and holds it at 0: applying this again starts pods beside its own; remove replicas here and set them there"
            ),
        });
    }
}

/// Looks at a release beside the templates that were given and that it names; others may be in the cluster.
pub fn of_templates(
    release: &ServiceRelease,
    document: &Node,
    templates: &[(&Node, &AnalysisTemplate)],
    found: &mut Vec<Finding>,
) {
    let Some(analysis) = &release.spec.analysis else { return };
    let known = templates.iter().map(|(node, template)| NamedTemplate {
        name: template.metadata.name.clone().unwrap_or_default(),
        cluster_scope: node.get("kind").and_then(Node::text) == Some("ClusterAnalysisTemplate"),
        spec: template.spec.clone(),
    });
    let known: Vec<NamedTemplate> = known.collect();
    let resolved = templates::resolve(analysis, &known);
    if let Ok(resolved) = &resolved {
        Advice { release, document, found }.observed(&resolved.metrics);
    }
    let compared = resolved.and_then(|resolved| templates::comparable(&release.spec, &resolved));
    if let Err(templates::Fault::Mismatch { field, message }) = compared {
        let place = document.find(&field);
        found.push(Finding { place, field, severity: Severity::Error, rule: "analysis", message });
    }
}

fn is_named(document: &Node, name: &str) -> bool {
    document.at(&["metadata", "name"]).and_then(Node::text) == Some(name)
}

/// A namespace that is not written is given on the command line, for both.
fn same_namespace(document: &Node, release: &ServiceRelease) -> bool {
    let other = document.at(&["metadata", "namespace"]).and_then(Node::text);
    match (other, &release.metadata.namespace) {
        (Some(other), Some(own)) => other == own,
        _ => true,
    }
}

struct Advice<'a> {
    release: &'a ServiceRelease,
    document: &'a Node,
    found: &'a mut Vec<Finding>,
}

impl Advice<'_> {
    fn add(&mut self, severity: Severity, field: &str, rule: &'static str, message: String) {
        self.found.push(Finding { place: self.document.find(field), field: field.to_owned(), severity, rule, message });
    }

    fn warn(&mut self, field: &str, rule: &'static str, message: String) {
        self.add(Severity::Warning, field, rule, message);
    }

    fn services(&mut self) {
        let Some(traffic) = &self.release.spec.traffic else { return };
        if traffic.candidate_service.as_ref() == Some(&traffic.service) {
            let message = "is the same as service: name another Service for the candidate".to_owned();
            self.add(Severity::Error, "spec.traffic.candidateService", "same-service", message);
        }
    }

    fn steps(&mut self, all: &[&Node]) {
        match &self.release.spec.strategy {
            Some(Strategy { blue_green: Some(_), .. }) if self.release.spec.traffic.is_none() => {
                let message =
                    "there is no traffic.service to switch: both versions get requests at the same time".to_owned();
                self.warn("spec.strategy.blueGreen", "no-service", message);
            }
            Some(Strategy { blue_green: Some(_), .. }) => {}
            Some(Strategy { canary: Some(canary), .. }) if !canary.steps.is_empty() => {
                self.nothing_to_see(canary);
                self.pauses_of_no_time(canary);
                self.bounds_of_no_use(canary);
                self.pods_too_few(canary, all);
                self.shares(all);
            }
            strategy => {
                let field = if strategy.is_some() { "spec.strategy.canary" } else { "spec" };
                let message = "there are no steps: a new version takes all traffic as soon as its pods are available; add setWeight and pause".to_owned();
                self.warn(field, "no-steps", message);
            }
        }
    }

    /// Metrics that nobody measures: a switch is watched only after it, and a canary while it has a share.
    fn metrics(&mut self) {
        let spec = &self.release.spec;
        let switches = spec.strategy.as_ref().is_some_and(|strategy| strategy.blue_green.is_some());
        let leaves_time = unmeasured::leaves_time(&Policy::compile(spec, &[], Situation::default()));
        let never = spec.observation.is_none() && !leaves_time;
        let Some(analysis) = spec.analysis.as_ref().filter(|_| never) else { return };
        // Pods are seen without being asked.
        let measured = analysis.metrics.iter().any(|metric| metric.workload.is_none());
        if measured || !analysis.templates.is_empty() {
            let message = match switches {
                true => {
                    "blueGreen measures metrics after the switch, for as long as observation says, and there is none: no metric is asked; add observation: {duration: 1h}"
                }
                false => {
                    "a canary measures metrics while it has a share of the requests, and no step gives it one: no metric is asked; add a setWeight, or observation: {duration: 1h}"
                }
            };
            self.warn("spec.analysis", "never-asked", message.to_owned());
        }
    }

    /// Queries that name pods, and no namespace: the same template in another one gives its pods the same names.
    fn namespaces(&mut self) {
        let metrics = self.release.spec.analysis.iter().flat_map(|analysis| analysis.metrics.iter().enumerate());
        for (index, metric) in metrics {
            if let Some(field) = lacks_namespace(metric) {
                let field = format!("spec.analysis.metrics[{index}]{field}");
                let message = "pods of another namespace may have the same names, and would be counted too: add namespace=\"{{namespace}}\" beside pod=~\"{{pods}}\"".to_owned();
                self.warn(&field, "namespace", message);
            }
        }
    }

    /// An observation in which no metric can fail: none with `compare`, since there is nobody to compare with, and none
    /// that only tells a value.
    fn observed(&mut self, metrics: &[Metric]) {
        if self.release.spec.observation.is_some() && !metrics.is_empty() && !metrics.iter().any(fails_alone) {
            let message = "no metric can fail after the promotion, when there is nobody to compare with: the observation watches pods and checks only; add a metric with threshold (the share of errors) or burnRate".to_owned();
            self.warn("spec.observation", "never-asked", message);
        }
    }

    /// Checks that nobody asks, or not when it says.
    fn checks(&mut self) {
        let spec = &self.release.spec;
        let policy = Policy::compile(spec, &[], Situation::default());
        let weights = policy.steps.iter().any(|step| matches!(step, Step::SetWeight(1..)));
        for (index, check) in spec.checks.iter().enumerate() {
            let named = |step: &Step| matches!(step, Step::Check { names, .. } if names.contains(&check.name));
            if check.when.contains(&Moment::EachStep) && !weights {
                let field = format!("spec.checks[{index}].when");
                let message = "EachStep is after each weight, and the strategy sets none: the check is not asked then; BeforeTraffic and BeforePromotion come before a switch, AfterPromotion after it".to_owned();
                self.warn(&field, "never-asked", message);
            }
            let backup = spec.database.as_ref().is_some_and(|database| database.backup.is_some());
            if check.when.contains(&Moment::AfterBackup) && !backup {
                let field = format!("spec.checks[{index}].when");
                let message = "AfterBackup is when spec.database.backup is made, and there is none: the check is not asked then; Preflight comes before everything".to_owned();
                self.warn(&field, "never-asked", message);
            }
            if check.every.is_some() && spec.observation.is_none() {
                let field = format!("spec.checks[{index}].every");
                let message = "is for as long as the release is observed, and there is no observation: it is not asked again; add observation: {duration: 1h}".to_owned();
                self.warn(&field, "never-asked", message);
            } else if check.when.is_empty() && check.every.is_none() && !policy.steps.iter().any(named) {
                let field = format!("spec.checks[{index}].when");
                let message = format!(
                    "no moment and no step names the check: it is never asked; give it a moment, or name it in a step: check: [{}]",
                    check.name
                );
                self.warn(&field, "never-asked", message);
            }
        }
    }

    /// Weights that follow each other without a pause show nothing of the new version; metrics are waited for.
    fn nothing_to_see(&mut self, canary: &Canary) {
        let stops = |step: &crate::api::CanaryStep| step.pause.is_some() || step.approval.is_some();
        if self.release.spec.analysis.is_none() && !canary.steps.iter().any(stops) {
            let message = "no step waits: the weights follow each other as fast as pods become available; add a pause or an approval".to_owned();
            self.warn("spec.strategy.canary.steps", "no-pause", message);
        }
    }

    fn bounds_of_no_use(&mut self, canary: &Canary) {
        if !self.is_routed() {
            return;
        }
        let usual = Canary::default();
        let set = [
            ("maxSurge", canary.max_surge != usual.max_surge),
            ("maxUnavailable", canary.max_unavailable != usual.max_unavailable),
        ];
        for (name, _) in set.into_iter().filter(|(_, set)| *set) {
            let message = "has no use with traffic.router: stable keeps all its pods beside the candidate's".to_owned();
            self.warn(&format!("spec.strategy.canary.{name}"), "router", message);
        }
    }

    /// Pods apart from the weight that are fewer than it needs.
    fn pods_too_few(&mut self, canary: &Canary, all: &[&Node]) {
        let Some(replicas) = self.replicas(all).filter(|_| self.is_routed()) else { return };
        let policy = Policy::compile(&self.release.spec, &[], Situation::default());
        for (index, step) in canary.steps.iter().enumerate() {
            let Some(weight) = step.set_weight.filter(|weight| *weight > 0) else { continue };
            // Counted from 1, and the first is prepare.
            let place = i32::try_from(index).unwrap_or(i32::MAX).saturating_add(2);
            let (scaled, needed) = (policy.beside(place, weight, replicas), ratio::beside(replicas, weight));
            if scaled < needed {
                let field = format!("spec.strategy.canary.steps[{index}].setWeight");
                let message = format!(
                    "{weight}% of the requests go to {scaled} pods, as an earlier scale says; of {replicas} replicas they would need {needed}: scale up before it, or end it with scale: {{}}"
                );
                self.warn(&field, "scale", message);
            }
        }
    }

    /// Whether requests are shared exactly, whatever the number of pods.
    fn is_routed(&self) -> bool {
        self.release.spec.router().is_some()
    }

    fn pauses_of_no_time(&mut self, canary: &Canary) {
        for (index, step) in canary.steps.iter().enumerate() {
            let duration = step.pause.as_ref().and_then(|pause| pause.duration);
            if duration.is_some_and(|duration| duration == crate::api::Duration::default()) {
                let field = format!("spec.strategy.canary.steps[{index}].pause.duration");
                let message = "is no pause; write pause: {} to wait for a person".to_owned();
                self.warn(&field, "no-pause", message);
            }
        }
    }

    /// The replicas that a release has, as far as the files say. An autoscaler's minimum counts.
    fn replicas(&self, all: &[&Node]) -> Option<i32> {
        let scaled = self.autoscaler(all, "ServiceRelease", self.release.metadata.name.as_deref());
        let minimum = scaled.map(|scaler| scaler.at(&["spec", "minReplicas"]).and_then(Node::integer).unwrap_or(1));
        if let Some(minimum) = minimum {
            return i32::try_from(minimum).ok();
        }
        let workload = self.release.spec.workload_ref.as_ref();
        match (self.release.spec.replicas, workload) {
            (Some(replicas), _) => Some(replicas),
            (None, None) => Some(1),
            (None, Some(reference)) => {
                let is_it = |node: &&&Node| {
                    node.get("kind").and_then(Node::text) == Some("Deployment")
                        && is_named(node, &reference.name)
                        && same_namespace(node, self.release)
                };
                let replicas = all.iter().find(is_it)?.at(&["spec", "replicas"]);
                i32::try_from(replicas.and_then(Node::integer)?).ok()
            }
        }
    }

    /// The share of pods that each weight comes to, by the operator's own arithmetic.
    fn shares(&mut self, all: &[&Node]) {
        if self.is_routed() {
            return;
        }
        let Some(replicas) = self.replicas(all).filter(|replicas| *replicas > 0) else { return };
        let policy = Policy::compile(&self.release.spec, &[], Situation::default());
        let bounds = policy.bounds(replicas);
        let mut shares = Vec::new();
        for step in &policy.steps {
            let Step::SetWeight(weight) = step else { continue };
            let (candidate, stable) = split(bounds, *weight);
            if *weight > 0 && candidate + stable > 0 {
                shares.push((*weight, candidate * 100 / (candidate + stable)));
            }
        }
        if !shares.iter().any(|(weight, share)| (weight - share).abs() >= POINTS) {
            return;
        }
        let told: Vec<String> = shares.iter().map(|(weight, share)| format!("{weight}% is {share}%")).collect();
        let pods = if replicas == 1 { "1 replica".to_owned() } else { format!("{replicas} replicas") };
        let message =
            format!("by the ratio of pods, with {pods}: {}; use more replicas or other weights", told.join(", "));
        self.warn("spec.strategy.canary.steps", "share", message);
    }

    fn deadline(&mut self) {
        let spec = &self.release.spec;
        if spec.progress_deadline_seconds <= spec.min_ready_seconds {
            let message = format!(
                "must be more than minReadySeconds ({}): a step would fail before its pods can count as available",
                spec.min_ready_seconds
            );
            self.warn("spec.progressDeadlineSeconds", "deadline", message);
        }
    }

    /// What the CRD lets pass and the operator does not.
    fn refused(&mut self) {
        let Some((reason, field, message)) = refusal(&self.release.spec) else { return };
        self.found.push(Finding {
            place: self.document.find(&field),
            field,
            severity: Severity::Error,
            rule: "invalid",
            message: format!("{message} ({reason})"),
        });
    }

    fn autoscaler<'a>(&self, all: &[&'a Node], kind: &str, name: Option<&str>) -> Option<&'a Node> {
        let targets = |node: &&&Node| {
            let target = |field| node.at(&["spec", "scaleTargetRef", field]).and_then(Node::text);
            node.get("kind").and_then(Node::text) == Some("HorizontalPodAutoscaler")
                && target("kind") == Some(kind)
                && target("name") == name
                && same_namespace(node, self.release)
        };
        all.iter().find(targets).copied()
    }

    fn autoscalers(&mut self, all: &[&Node]) {
        let scaler_name =
            |node: &Node| node.at(&["metadata", "name"]).and_then(Node::text).unwrap_or_default().to_owned();
        let own = self.release.metadata.name.as_deref();
        if let Some(scaler) = self.autoscaler(all, "ServiceRelease", own)
            && self.release.spec.replicas.is_some()
        {
            let message = format!(
                "HorizontalPodAutoscaler {} sets it, too: each apply of this manifest sets it back; remove it here with server-side apply, or after kubectl apply edit-last-applied (a plain kubectl apply would take it away from the object, which the autoscaler needs set)",
                scaler_name(scaler)
            );
            self.warn("spec.replicas", "replicas", message);
        }
        let Some(workload) = &self.release.spec.workload_ref else { return };
        if let Some(scaler) = self.autoscaler(all, "Deployment", Some(&workload.name)) {
            let message = format!(
                "HorizontalPodAutoscaler {} targets the adopted Deployment: set its scaleTargetRef to {{apiVersion: servicerelease.io/v1alpha1, kind: ServiceRelease, name: {}}}",
                scaler_name(scaler),
                own.unwrap_or_default()
            );
            self.add(Severity::Error, "spec.workloadRef", "autoscaler", message);
        }
    }
}
