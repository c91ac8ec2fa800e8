//! Ports and containers that a check names, and that the pod template in the same manifest does not have: nobody could ever
//! be asked.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::api::{Check, HttpCheck, ServiceReleaseSpec};

/// Containers that meshes and agents put into pods: no template names them.
const INJECTED: [&str; 8] = [
    "consul-dataplane",
    "daprd",
    "envoy-sidecar",
    "istio-proxy",
    "kuma-sidecar",
    "linkerd-proxy",
    "opentelemetry-auto-instrumentation",
    "vault-agent",
];

/// What is wrong with a check, beside the template of its manifest.
pub fn faults(check: &Check, spec: &ServiceReleaseSpec) -> Vec<(&'static str, String)> {
    let Some(pod) = spec.template.as_ref().map(|template| &template.spec) else { return Vec::new() };
    // Without containers the API server refuses the template, and says so.
    let containers = list(pod, "containers");
    if containers.is_empty() {
        return Vec::new();
    }
    let port = check.http.as_ref().filter(|http| http.is_of_candidate()).and_then(|http| port(http, &containers));
    let container = check.logs.as_ref().and_then(|logs| container(logs.container.as_deref()?, pod, &containers));
    let port = port.map(|message| (".http.port", message));
    port.into_iter().chain(container.map(|message| (".logs.container", message))).collect()
}

fn list<'a>(of: &'a Value, field: &str) -> Vec<&'a Value> {
    of.get(field).and_then(Value::as_array).into_iter().flatten().collect()
}

fn name(of: &Value) -> Option<&str> {
    of.get("name")?.as_str()
}

/// Why there is no such port.
fn port(http: &HttpCheck, containers: &[&Value]) -> Option<String> {
    let ports: Vec<&Value> = containers.iter().flat_map(|container| list(container, "ports")).collect();
    let wanted = match &http.port {
        Some(IntOrString::String(wanted)) if wanted.parse::<i64>().is_err() => wanted,
        None if ports.is_empty() => {
            return Some("no container of spec.template has ports: name a number, or add ports to a container".into());
        }
        _ => return None,
    };
    let known: Vec<&str> = ports.into_iter().filter_map(name).collect();
    let all = if known.is_empty() { "none with a name".to_owned() } else { known.join(", ") };
    let lacks = !known.contains(&wanted.as_str());
    lacks.then(|| format!("no container of spec.template has a port {wanted}; they have {all}: name one, or a number"))
}

/// Why there is no such container.
fn container(wanted: &str, pod: &Value, containers: &[&Value]) -> Option<String> {
    let of_init = list(pod, "initContainers");
    let is_there = containers.iter().chain(&of_init).any(|container| name(container) == Some(wanted));
    let known: Vec<&str> = containers.iter().filter_map(|container| name(container)).collect();
    let lacks = !is_there && !INJECTED.contains(&wanted);
    lacks.then(|| format!("spec.template has no container {wanted}; it has {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case(json!({"http": {"port": "http"}}), None)]
    #[case(json!({"http": {"port": 9000}}), None)]
    #[case(json!({"http": {"port": "9000"}}), None)]
    #[case(json!({"http": {}}), None)]
    #[case(json!({"http": {"port": "htp", "target": "Service"}}), None)]
    #[case(json!({"http": {"port": "htp"}}), Some(".http.port: no container of spec.template has a port htp; they have http: name one, or a number"))]
    #[case(json!({"logs": {"pattern": "a", "container": "app"}}), None)]
    #[case(json!({"logs": {"pattern": "a", "container": "wait"}}), None)]
    #[case(json!({"logs": {"pattern": "a", "container": "istio-proxy"}}), None)]
    #[case(json!({"logs": {"pattern": "a", "container": "ap"}}), Some(".logs.container: spec.template has no container ap; it has app"))]
    fn what_the_template_lacks_is_told(#[case] check: Value, #[case] expected: Option<&str>) {
        let pod = json!({
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
            "initContainers": [{"name": "wait"}],
        });
        let mut check = check;
        check["name"] = json!("a");
        let check = serde_json::from_value(check).unwrap();
        let spec = serde_json::from_value(json!({"template": {"spec": pod}})).unwrap();
        let found: Vec<String> =
            super::faults(&check, &spec).into_iter().map(|(field, message)| format!("{field}: {message}")).collect();
        assert_eq!(found.first().map(String::as_str), expected);
        let adopted = serde_json::from_value(json!({"workloadRef": {"name": "shop"}})).unwrap();
        assert_eq!(super::faults(&check, &adopted), []);
    }

    #[test]
    fn without_ports_the_first_one_is_none() {
        let check = serde_json::from_value(json!({"name": "a", "http": {}})).unwrap();
        let spec = serde_json::from_value(json!({"template": {"spec": {"containers": [{"name": "app"}]}}})).unwrap();
        assert_eq!(super::faults(&check, &spec)[0].0, ".http.port");
    }
}
