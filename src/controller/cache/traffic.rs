//! Cached Services and EndpointSlices.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use crate::{
    api::{ANNOTATION_ORIGINAL_SELECTOR, LABEL_RELEASE},
    controller::{FIELD_MANAGER, key::Key},
};

use super::entry::{Cached, Kind, Meta, RawMeta};

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedService {
    meta: Meta,
    /// The uid of the ServiceRelease that owns it, if one does.
    pub owner: Option<Arc<str>>,
    /// The release that made it, if it has no owner: its label.
    pub made_by: Option<Arc<str>>,
    /// spec.selector
    pub selector: BTreeMap<String, String>,
    /// The selector as the user wrote it, from the annotation.
    pub original: Option<BTreeMap<String, String>>,
    /// Who else applied spec.selector.
    pub contested_by: Option<Arc<str>>,
    /// Who else set spec.selector last.
    pub changed_by: Option<Arc<str>>,
    /// How many ports it has.
    pub ports: usize,
    /// Their numbers, and what each leads to (targetPort).
    pub targets: Vec<(i32, IntOrString)>,
    /// The numbers of those that have a name.
    pub named_ports: Vec<(Box<str>, i32)>,
    /// Whether its type is ExternalName.
    pub external: bool,
}

/// The fields of a Service that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawService {
    spec: RawServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawServiceSpec {
    r#type: String,
    selector: Option<BTreeMap<String, String>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    name: Option<Box<str>>,
    port: i32,
    target_port: Option<IntOrString>,
}

/// A port's number, and what it leads to: the same number of the pods, where nothing else is said.
fn target(port: &RawPort) -> (i32, IntOrString) {
    (port.port, port.target_port.clone().unwrap_or(IntOrString::Int(port.port)))
}

impl Cached for CachedService {
    type Raw = RawService;
    const KIND: Kind = Kind::Service;

    fn read(meta: &RawMeta, raw: RawService) -> Option<Self> {
        let owner = meta.controller().filter(|owner| owner.is_release());
        let ports = raw.spec.ports.unwrap_or_default();
        Some(Self {
            ports: ports.len(),
            targets: ports.iter().map(target).collect(),
            named_ports: ports.iter().filter_map(|port| Some((port.name.clone()?, port.port))).collect(),
            external: raw.spec.r#type == "ExternalName",
            meta: meta.slim(),
            made_by: meta.label(LABEL_RELEASE).filter(|_| meta.controller().is_none()).map(Into::into),
            owner: owner.map(|owner| owner.uid.as_str().into()),
            selector: raw.spec.selector.unwrap_or_default(),
            original: meta.annotation(ANNOTATION_ORIGINAL_SELECTOR).and_then(|text| serde_json::from_str(text).ok()),
            contested_by: meta.selector_applied_by(FIELD_MANAGER).map(Into::into),
            changed_by: meta.selector_set_by(FIELD_MANAGER).map(Into::into),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.meta.key.name
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    meta: Meta,
    service: Arc<str>,
    /// How many ports its endpoints have: less than the Service, where pods lack a named one.
    pub ports: usize,
    /// Its endpoints: the pod's key, and whether it gets new connections.
    pub endpoints: Vec<(Key, bool)>,
}

/// The fields of an EndpointSlice that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawSlice {
    endpoints: Option<Vec<RawEndpoint>>,
    ports: Option<Vec<serde::de::IgnoredAny>>,
}

/// Who writes the slices of pods that a selector finds. Those of others are not steered by it.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    addresses: Vec<String>,
    conditions: RawConditions,
    target_ref: Option<RawTargetRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawConditions {
    ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawTargetRef {
    kind: String,
    name: String,
}

impl Cached for Slice {
    type Raw = RawSlice;
    const KIND: Kind = Kind::EndpointSlice;

    fn read(meta: &RawMeta, raw: RawSlice) -> Option<Self> {
        let key = meta.key();
        let endpoint = |raw: RawEndpoint| {
            let pod = raw.target_ref.filter(|target| target.kind == "Pod");
            // An endpoint without a pod is somebody's own; its address cannot be a pod's name.
            let name = pod.map_or_else(|| format!("address:{}", raw.addresses.join(",")), |pod| pod.name);
            (key.beside(&name), raw.conditions.ready.unwrap_or(true))
        };
        let steered = meta.label("endpointslice.kubernetes.io/managed-by") == Some(CONTROLLER);
        let endpoints = raw.endpoints.filter(|_| steered).into_iter().flatten().map(endpoint).collect();
        let ports = raw.ports.map_or(0, |ports| ports.len());
        let service = meta.label("kubernetes.io/service-name")?.into();
        Some(Self { service, ports, endpoints, meta: meta.slim() })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.service
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::controller::cache::Slim;

    #[rstest]
    #[case::of_the_selector(CONTROLLER, json!([{"port": 8080}]), (1, 1))]
    #[case::without_a_named_port(CONTROLLER, json!(null), (1, 0))]
    #[case::of_somebody_else("me", json!([{"port": 8080}]), (0, 1))]
    fn slices_count_as_far_as_the_selector_steers_them(
        #[case] manager: &str,
        #[case] ports: serde_json::Value,
        #[case] endpoints_and_ports: (usize, usize),
    ) {
        let labels = json!({
            "kubernetes.io/service-name": "shop", "endpointslice.kubernetes.io/managed-by": manager,
        });
        let endpoint = json!({"addresses": ["198.18.0.1"], "targetRef": {"kind": "Pod", "name": "shop-a"}});
        let metadata = json!({"name": "shop-1", "namespace": "default", "labels": labels});
        let slice = json!({"metadata": metadata, "endpoints": [endpoint], "ports": ports});
        let slice = serde_json::from_value::<Slim<Slice>>(slice).unwrap().entry.unwrap();
        assert_eq!((slice.endpoints.len(), slice.ports), endpoints_and_ports);
    }

    #[test]
    fn a_service_is_known_by_its_ports_and_what_they_lead_to() {
        let ports =
            json!([{"name": "web", "port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}, {"port": 82}]);
        let service = json!({"metadata": {"name": "shop", "namespace": "default"}, "spec": {"ports": ports}});
        let service = serde_json::from_value::<Slim<CachedService>>(service).unwrap().entry.unwrap();
        let by_number = IntOrString::Int;
        let targets = [(80, IntOrString::String("http".into())), (81, by_number(8081)), (82, by_number(82))];
        assert_eq!((service.ports, &*service.targets, service.external), (3, &targets[..], false));
        assert_eq!(*service.named_ports, [("web".into(), 80)]);
    }

    #[test]
    fn a_service_that_leads_to_another_name_is_known_as_such() {
        let spec =
            json!({"type": "ExternalName", "externalName": "kubernetes.default.svc", "selector": {"app": "shop"}});
        let service = json!({"metadata": {"name": "shop", "namespace": "default"}, "spec": spec});
        assert!(serde_json::from_value::<Slim<CachedService>>(service).unwrap().entry.unwrap().external);
    }
}
