//! Cached Gateways and their classes: whether a data plane has a Gateway, and what it is able to do.

use std::sync::Arc;

use serde::Deserialize;

use crate::{api::ParentRef, engine::ParentGateway};

use super::{
    entry::{Cached, Kind, Meta, RawMeta},
    route::RawCondition,
};

/// A Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedGateway {
    meta: Meta,
    /// spec.gatewayClassName
    pub class: Arc<str>,
    /// Why no data plane has it, if so.
    unprogrammed: Option<String>,
    /// The same of its listeners, by name.
    listeners: Vec<(String, Option<String>)>,
}

/// The fields of a Gateway that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawGateway {
    spec: RawSpec,
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    gateway_class_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    conditions: Vec<RawCondition>,
    listeners: Vec<RawListener>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawListener {
    name: String,
    conditions: Vec<RawCondition>,
}

/// Why conditions say that something is not programmed. Without an address for clients outside it may be
/// so all the same (Gateway API, GatewayReasonAddressNotAssigned).
fn unprogrammed(conditions: &[RawCondition]) -> Option<String> {
    let found = conditions.iter().find(|condition| condition.type_ == "Programmed")?;
    let why = format!("{}: {}", found.reason, found.message);
    (found.status == "False" && found.reason != "AddressNotAssigned").then_some(why)
}

impl CachedGateway {
    /// As the engine sees it, through a reference and with its class.
    #[must_use]
    pub fn seen(&self, reference: &ParentRef, class: Option<&CachedGatewayClass>) -> ParentGateway {
        let listener = |(name, _): &&(String, Option<String>)| Some(name) == reference.section_name.as_ref();
        let listener = self.listeners.iter().find(listener).and_then(|(_, why)| why.clone());
        ParentGateway {
            reference: reference.clone(),
            missing: false,
            class: self.class.to_string(),
            unprogrammed: self.unprogrammed.clone().or(listener),
            controller: class.map(|class| class.controller.to_string()).filter(|name| !name.is_empty()),
            features: class.and_then(|class| class.features.clone()),
        }
    }
}

impl Cached for CachedGateway {
    type Raw = RawGateway;
    const KIND: Kind = Kind::Gateway;

    fn read(meta: &RawMeta, raw: RawGateway) -> Option<Self> {
        let listeners = raw.status.listeners.into_iter();
        Some(Self {
            meta: meta.slim(),
            class: raw.spec.gateway_class_name.into(),
            unprogrammed: unprogrammed(&raw.status.conditions),
            listeners: listeners.map(|it| (it.name, unprogrammed(&it.conditions))).collect(),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.meta.key.name
    }
}

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedGatewayClass {
    meta: Meta,
    /// spec.controllerName
    controller: Arc<str>,
    /// status.supportedFeatures; none if its controller does not say.
    features: Option<Vec<String>>,
}

/// The fields of a GatewayClass that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawGatewayClass {
    spec: RawClassSpec,
    status: RawClassStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawClassSpec {
    controller_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawClassStatus {
    supported_features: Vec<RawFeature>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawFeature {
    name: String,
}

impl Cached for CachedGatewayClass {
    type Raw = RawGatewayClass;
    const KIND: Kind = Kind::GatewayClass;

    fn read(meta: &RawMeta, raw: RawGatewayClass) -> Option<Self> {
        let features: Vec<String> = raw.status.supported_features.into_iter().map(|it| it.name).collect();
        Some(Self {
            meta: meta.slim(),
            controller: raw.spec.controller_name.into(),
            features: Some(features).filter(|all| !all.is_empty()),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.meta.key.name
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::cache::Slim;

    fn condition(status: &str, reason: &str) -> Value {
        json!([{"type": "Programmed", "status": status, "reason": reason, "message": "a text"}])
    }

    #[rstest]
    #[case::programmed(condition("True", "Programmed"), json!([]), None)]
    #[case::nothing_said(json!([]), json!([]), None)]
    #[case::not_programmed(condition("False", "Invalid"), json!([]), Some("Invalid: a text"))]
    #[case::without_an_address(condition("False", "AddressNotAssigned"), json!([]), None)]
    #[case::the_listener(
        condition("True", "x"),
        condition("False", "PortUnavailable"),
        Some("PortUnavailable: a text")
    )]
    fn a_gateway_says_whether_a_data_plane_has_it(
        #[case] conditions: Value,
        #[case] listener: Value,
        #[case] expected: Option<&str>,
    ) {
        let object = json!({
            "metadata": {"name": "edge", "namespace": "gateway"}, "spec": {"gatewayClassName": "fast"},
            "status": {"conditions": conditions, "listeners": [{"name": "web", "conditions": listener}]},
        });
        let gateway = serde_json::from_value::<Slim<CachedGateway>>(object).unwrap().entry.unwrap();
        let reference = ParentRef { section_name: Some("web".into()), ..ParentRef::default() };
        let seen = gateway.seen(&reference, None);
        assert_eq!((seen.class.as_str(), seen.unprogrammed.as_deref()), ("fast", expected));
    }

    #[rstest]
    #[case(json!({}), None)]
    #[case(json!({"supportedFeatures": [{"name": "HTTPRoute"}]}), Some(vec!["HTTPRoute".to_owned()]))]
    fn a_class_says_what_it_is_able_to_do(#[case] status: Value, #[case] expected: Option<Vec<String>>) {
        let object = json!({"metadata": {"name": "fast"}, "status": status,
            "spec": {"controllerName": "example.com/fast"}});
        let class = serde_json::from_value::<Slim<CachedGatewayClass>>(object).unwrap().entry.unwrap();
        assert_eq!((class.features, &*class.controller), (expected, "example.com/fast"));
    }
}
