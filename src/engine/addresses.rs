//! Whom a check asks by HTTP.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::api::{Check, Header, HttpCheck, Scheme, Target};

use super::{
    names::Names,
    observed::{Pod, Revision, Service},
    pass::Pass,
};

/// Where to ask: by the addresses of pods, one in turn or all.
pub fn addresses(pass: &Pass<'_>, http: &HttpCheck, attempt: i32) -> Vec<String> {
    if let Some(host) = &http.host {
        return vec![host.clone()];
    }
    let in_turn = |all: Vec<String>| {
        let turn = usize::try_from(attempt).unwrap_or(0).checked_rem(all.len());
        turn.and_then(|turn| all.get(turn).cloned()).into_iter().collect()
    };
    let all = |revision: Option<&Revision>| pods(revision, http.port.as_ref(), |_| true);
    match http.target {
        Target::Candidate => in_turn(all(pass.subject())),
        Target::Stable => in_turn(all(pass.stable())),
        Target::EachPod => all(pass.subject()),
        Target::Service => in_turn(behind_service(pass, http)),
    }
}

/// The request as it is sent, with what stands for the words in braces. To what is behind the Service it says the Service's
/// name, as a client's does.
pub fn request(pass: &Pass<'_>, check: &Check, http: &HttpCheck) -> HttpCheck {
    let names = Names::of_check(pass, check.interval);
    let mut request = HttpCheck {
        path: names.fill_encoded(&http.path),
        body: http.body.as_ref().map(|body| names.fill(body)),
        ..http.clone()
    };
    let said = http.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"));
    let by_service = http.host.is_none() && http.target == Target::Service && !said;
    if by_service && let Some(name) = name_of_service(pass, http) {
        // Behind the others, which are known by their places.
        request.headers.push(Header { name: "Host".into(), value: name, value_from: None });
    }
    request
}

/// Ready pods by name, each with the port.
fn pods(revision: Option<&Revision>, port: Option<&IntOrString>, meant: impl Fn(&Pod) -> bool) -> Vec<String> {
    let Some(revision) = revision else { return Vec::new() };
    let Some(port) = pod_port(&revision.template.to_value(), port) else { return Vec::new() };
    let mut ready: Vec<_> =
        revision.pods.iter().filter(|pod| pod.ready && !pod.terminating).filter(|pod| meant(pod)).collect();
    ready.sort_by(|one, other| one.name.cmp(&other.name));
    let address = |ip: &String| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    ready.into_iter().filter_map(|pod| pod.address.as_ref().map(address)).collect()
}

/// The number of a port of the containers: as it is, by its name, or the first.
fn pod_port(template: &Value, port: Option<&IntOrString>) -> Option<i64> {
    let name = match port {
        Some(IntOrString::Int(number)) => return Some(i64::from(*number)),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(number) => return Some(number),
            Err(_) => Some(name.as_str()),
        },
        None => None,
    };
    let containers = template.pointer("/spec/containers")?.as_array()?;
    let mut ports = containers.iter().filter_map(|container| container["ports"].as_array()).flatten();
    let found = ports.find(|port| name.is_none_or(|name| port["name"] == name))?;
    found["containerPort"].as_i64()
}

/// The release's ready pods that the Service leads to, at the port of theirs that its port leads to.
///
/// The operator reaches more than whoever may write a Service does, and the platform says which hosts it asks. So
/// neither the Service's name nor its cluster IP is asked: a Service of type ExternalName, or an EndpointSlice made by
/// hand, would take the request to any host, and can come between a look and the request. Only addresses of the
/// release's own pods are asked, as their nodes tell them (status.podIP). What a right answer promises: the Service
/// selects pods of the release, they are ready, and what its port leads to answers. It promises nothing of the cluster's
/// DNS, nor of how nodes forward.
fn behind_service(pass: &Pass<'_>, http: &HttpCheck) -> Vec<String> {
    let Some(service) = pass.traffics().service().filter(|service| !service.external) else { return Vec::new() };
    let target = service_port(service, http)
        .and_then(|port| service.targets.iter().find(|(number, _)| *number == port))
        .map(|(_, target)| target);
    let Some(target) = target else { return Vec::new() };
    let leads_to =
        |pod: &Pod| service.endpoints.iter().any(|endpoint| endpoint.ready && endpoint.pod.as_ref() == Some(&pod.name));
    pass.seen.revisions.iter().flat_map(|revision| pods(Some(revision), Some(target), leads_to)).collect()
}

/// The number of a port of the Service: as it is, by its name, or the first.
fn service_port(service: &Service, http: &HttpCheck) -> Option<i32> {
    match &http.port {
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(text)) => text.parse().ok().or_else(|| service.named_ports.get(text).copied()),
        None => service.targets.first().map(|(number, _)| *number),
    }
}

/// The Service's name, with the port if it is not that of the scheme.
fn name_of_service(pass: &Pass<'_>, http: &HttpCheck) -> Option<String> {
    let name = &pass.traffic_spec()?.service;
    let namespace = pass.release.metadata.namespace.as_deref()?;
    let port = service_port(pass.traffics().service()?, http)?;
    let usual = match http.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    let port = if port == usual { String::new() } else { format!(":{port}") };
    Some(format!("{name}.{namespace}.svc{port}"))
}
