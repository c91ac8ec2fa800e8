//! What makes a manifest one that cannot be acted on, beyond what the CRD's schema refuses. Each
//! obstacle names the field or object, and the remedy.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    api::{
        FIELD_MANAGER, LABEL_RELEASE, LABEL_REVISION,
        status::{MAX_TEXT, bounded},
    },
    checks,
};

use super::{
    database,
    observed::{Service, TemplateCheck},
    pass::Pass,
    providers, route, templates,
    traffic::{self, Traffics},
    unroutable,
};

/// Why the spec cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// In a word for machines.
    pub reason: &'static str,
    /// Which field or object, and why.
    pub message: String,
    /// What a person can do about it.
    pub remedy: String,
    /// Whether the very objects are somebody else's, so that not even stable may be looked after.
    pub hands_off: bool,
}

impl Obstacle {
    /// One that leaves stable to be looked after.
    pub fn new(reason: &'static str, message: String, remedy: &str) -> Self {
        Self { reason, message, remedy: remedy.to_owned(), hands_off: false }
    }

    fn hands_off(self) -> Self {
        Self { hands_off: true, ..self }
    }
}

/// The first obstacle, if there is one.
pub fn find(pass: &Pass<'_>) -> Option<Obstacle> {
    // What the API server says of the template explains what the Services lack of it.
    rival(pass)
        .or_else(|| workload(pass))
        .or_else(|| template(pass))
        .or_else(|| services(pass))
        .or_else(|| unsound(pass))
        .or_else(|| templates::fault(pass))
        .or_else(|| providers::fault(pass))
        .or_else(|| unroutable::find(pass))
        .or_else(|| database::faults::find(pass))
}

/// An older object that claims the same: nothing of that is this one's.
pub fn rival(pass: &Pass<'_>) -> Option<Obstacle> {
    let meta = &pass.release.metadata;
    let created = meta.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_millisecond());
    let mine = (created, meta.name.clone().unwrap_or_default());
    let older = pass.seen.rivals.iter().find(|rival| (rival.created.as_millis(), rival.name.clone()) < mine)?;
    let message = format!("ServiceRelease {} is older and claims {} too", older.name, older.claim);
    Some(Obstacle::new("Contested", message, "delete one of the two, or let this one name another").hands_off())
}

fn workload(pass: &Pass<'_>) -> Option<Obstacle> {
    let reference = pass.release.spec.workload_ref.as_ref()?;
    if pass.seen.workload.is_none() {
        let message = format!("spec.workloadRef: there is no Deployment {} in this namespace", reference.name);
        return Some(Obstacle::new(
            "WorkloadNotFound",
            message,
            "create the Deployment, or correct spec.workloadRef.name",
        ));
    }
    let scaler = pass.seen.autoscalers.first()?;
    let message = format!("HorizontalPodAutoscaler {scaler} targets the adopted Deployment {}", reference.name);
    let name = pass.release.metadata.name.as_deref().unwrap_or_default();
    let remedy = format!(
        "set its scaleTargetRef to {{apiVersion: servicerelease.io/v1alpha1, kind: ServiceRelease, name: {name}}}"
    );
    Some(Obstacle::new("AutoscalerTargetsDeployment", message, &remedy))
}

/// The first field that is wrong in a way which the API server does not know: expressions above all.
fn unsound(pass: &Pass<'_>) -> Option<Obstacle> {
    let found = checks::unsound(&pass.release.spec).into_iter().next()?;
    let message = format!("{}: {}", found.field, bounded(&found.message, MAX_TEXT));
    Some(Obstacle::new(
        "FieldInvalid",
        message,
        "correct the field that the message names; nothing that runs was changed",
    ))
}

fn services(pass: &Pass<'_>) -> Option<Obstacle> {
    let traffic = pass.traffic_spec()?;
    if traffic.candidate_service.as_ref() == Some(&traffic.service) {
        let message = "spec.traffic.candidateService is the same as spec.traffic.service".to_owned();
        return Some(Obstacle::new("SameService", message, "name another Service for the candidate"));
    }
    let both = [("service", &pass.seen.service), ("candidateService", &pass.seen.candidate_service)];
    for (field, service) in both {
        if let Some(obstacle) = service.as_ref().and_then(|service| usable(pass, field, service)) {
            return Some(obstacle);
        }
    }
    let missing =
        pass.seen.service.is_none() || (traffic.candidate_service.is_some() && pass.seen.candidate_service.is_none());
    let ports = pass.target.as_ref().map(|target| traffic::ports(&target.template))?;
    (missing && ports.is_empty()).then(|| {
        let message = format!("Service {} is to be created, but no container has ports", traffic.service);
        Obstacle::new("NoPorts", message, "add ports to a container in the pod template, or create the Service")
    })
}

fn usable(pass: &Pass<'_>, field: &str, service: &Service) -> Option<Obstacle> {
    let name = &service.object.name;
    if let Some(manager) = &service.contested_by {
        let message = format!(
            "spec.traffic.{field}: field manager {manager} applies spec.selector of Service {name}, which server-side apply cannot share"
        );
        let remedy = share_selector(pass, service, manager);
        return Some(Obstacle::new("ServiceContested", message, &remedy).hands_off());
    }
    if service.external {
        // Also of one that the operator made: whoever changed it meant something.
        let message = format!(
            "spec.traffic.{field}: Service {name} is of type ExternalName: it leads to another name, whatever it selects, and never to this release's pods"
        );
        let remedy = format!(
            "set spec.type of Service {name} to ClusterIP and remove its externalName, or name another Service in spec.traffic.{field}"
        );
        return Some(Obstacle::new("ServiceExternal", message, &remedy));
    }
    let base = || service.selector.iter().filter(|(key, _)| *key != LABEL_RELEASE && *key != LABEL_REVISION);
    if !service.owned && base().next().is_none() && service.original.is_none() {
        let message = format!("spec.traffic.{field}: Service {name} has no selector, its endpoints are kept by hand");
        return Some(Obstacle::new("ServiceWithoutSelector", message, "give it a selector, or name another Service"));
    }
    let target = pass.target.as_ref()?.template.to_value();
    let named = |port: &str| {
        let containers = target.pointer("/spec/containers").and_then(|value| value.as_array());
        let ports = containers.into_iter().flatten().filter_map(|container| container.get("ports")?.as_array());
        ports.flatten().any(|known| known.get("name").and_then(|name| name.as_str()) == Some(port))
    };
    let names = service.targets.iter().filter_map(|(_, target)| match target {
        IntOrString::String(name) if name.parse::<u16>().is_err() => Some(name),
        _ => None,
    });
    if let Some(port) = names.into_iter().find(|port| !named(port)) {
        let message = format!(
            "spec.traffic.{field}: Service {name} sends to port {port}, which no container of the pod template has: its pods would get no traffic"
        );
        let remedy =
            "name that port in a container of the pod template, or change the Service's targetPort to a number";
        return Some(Obstacle::new("ServicePortMissing", message, remedy));
    }
    if service.owned {
        // What somebody made of it is put back.
        return None;
    }
    let label = |key: &str| target.pointer("/metadata/labels")?.get(key)?.as_str().map(str::to_owned);
    let (key, value) = base().find(|(key, value)| label(key).as_ref() != Some(value))?;
    let message = format!(
        "spec.traffic.{field}: Service {name} selects {key}={value}, which the pod template's labels do not have"
    );
    Some(Obstacle::new(
        "ServiceSelectsOtherPods",
        message,
        "add the label to the pod template, or correct the Service's selector",
    ))
}

/// Whoever alone applies a field takes it away with the first manifest that no longer has it; a second
/// applier of the same value keeps it, and with it the traffic.
fn share_selector(pass: &Pass<'_>, service: &Service, manager: &str) -> String {
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or("default");
    let share = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": service.object.name, "namespace": namespace },
        "spec": { "selector": service.selector }
    });
    format!(
        "keep the selector: echo '{share}'|kubectl apply --server-side --field-manager={FIELD_MANAGER} -f -; after that, not before (the Service would lose its selector), remove spec.selector from what {manager} applies; or let the operator create the Service"
    )
}

fn template(pass: &Pass<'_>) -> Option<Obstacle> {
    match &pass.seen.template_check {
        TemplateCheck::Refused(why) => {
            let message = format!("the API server refuses the pod template: {why}");
            Some(Obstacle::new(
                "TemplateRefused",
                message,
                "correct the field, or satisfy the quota or policy, that it names; what runs was not changed",
            ))
        }
        TemplateCheck::Passed | TemplateCheck::Unknown | TemplateCheck::NameTaken => None,
    }
}

/// Whether the Service is somebody else's to give back on deletion.
pub fn has_something_to_give_back(pass: &Pass<'_>) -> bool {
    let borrowed = |service: &Option<Service>| service.as_ref().is_some_and(|service| !service.owned);
    if rival(pass).is_some() {
        return false;
    }
    // A migration under way is to have its known end before the object goes.
    let migrates = pass.release.spec.database.as_ref().is_some_and(|database| database.migration.is_some());
    migrates
        || pass.release.spec.workload_ref.is_some()
        || route::router(pass).is_some_and(|router| router.users_object().is_some() && pass.seen.route.is_some())
        || (Traffics::new(pass.release, pass.seen).used()
            && (borrowed(&pass.seen.service) || borrowed(&pass.seen.candidate_service)))
}
