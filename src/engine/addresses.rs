//! Whom a check asks by HTTP.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::api::{Check, HttpCheck, Target};

use super::{names::Names, observed::Revision, pass::Pass};

/// Where to ask: by the addresses of pods, one in turn or all, or by the Service's name.
pub fn addresses(pass: &Pass<'_>, http: &HttpCheck, attempt: i32) -> Vec<String> {
    if let Some(host) = &http.host {
        return vec![host.clone()];
    }
    let in_turn = |revision: Option<&Revision>| {
        let all = pods(revision, http);
        let turn = usize::try_from(attempt).unwrap_or(0).checked_rem(all.len());
        turn.and_then(|turn| all.get(turn).cloned()).into_iter().collect()
    };
    match http.target {
        Target::Candidate => in_turn(pass.subject()),
        Target::Stable => in_turn(pass.stable()),
        Target::EachPod => pods(pass.subject(), http),
        Target::Service => service(pass, http).into_iter().collect(),
    }
}

/// The request with what stands for the words in braces.
pub fn request(pass: &Pass<'_>, check: &Check, http: &HttpCheck) -> HttpCheck {
    let names = Names::of_check(pass, check.interval);
    HttpCheck {
        path: names.fill_encoded(&http.path),
        body: http.body.as_ref().map(|body| names.fill(body)),
        ..http.clone()
    }
}

/// Ready pods by name, each with the port.
fn pods(revision: Option<&Revision>, http: &HttpCheck) -> Vec<String> {
    let Some(revision) = revision else { return Vec::new() };
    let Some(port) = pod_port(&revision.template.to_value(), http.port.as_ref()) else { return Vec::new() };
    let mut ready: Vec<_> = revision.pods.iter().filter(|pod| pod.ready && !pod.terminating).collect();
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

fn service(pass: &Pass<'_>, http: &HttpCheck) -> Option<String> {
    let name = &pass.traffic_spec()?.service;
    let namespace = pass.release.metadata.namespace.as_deref()?;
    let known = pass.seen.service.as_ref();
    let port = match &http.port {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => match text.parse() {
            Ok(number) => number,
            Err(_) => *known?.named_ports.get(text)?,
        },
        None => known?.port?,
    };
    Some(format!("{name}.{namespace}.svc:{port}"))
}
