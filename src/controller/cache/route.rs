//! Cached HTTPRoutes, and whether the cluster has the Gateway API.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    api::{LABEL_RELEASE, ParentRef},
    controller::FIELD_MANAGER,
    engine::{Route, RouteParent, Shape},
};

use super::entry::{Cached, Kind, Meta, RawMeta};

/// An HTTPRoute, or a GRPCRoute: what is read of them is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedRoute<const GRPC: bool = false> {
    meta: Meta,
    generation: i64,
    release: Option<Arc<str>>,
    /// spec as JSON, which is smaller than parsed.
    spec: Arc<str>,
    parents: Vec<RouteParent>,
    changed_by: Option<(Arc<str>, bool)>,
}

impl<const GRPC: bool> CachedRoute<GRPC> {
    /// As the engine sees it, on behalf of a release.
    #[must_use]
    pub fn seen(&self, release: &str) -> Route {
        Route {
            object: self.meta.object(),
            generation: self.generation,
            ours: self.release.as_deref() == Some(release),
            spec: serde_json::from_str(&self.spec).unwrap_or_default(),
            shape: Arc::new(Shape { kind: Self::KIND.resource().2.to_owned(), ..Shape::default() }),
            share: None,
            parents: self.parents.clone(),
            changed_by: self.changed_by.as_ref().map(|(manager, applies)| (manager.to_string(), *applies)),
        }
    }
}

/// The fields of an HTTPRoute that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawRoute {
    spec: Value,
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    parents: Vec<RawParent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawParent {
    parent_ref: ParentRef,
    controller_name: String,
    conditions: Vec<RawCondition>,
}

/// A condition, as any kind has them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawCondition {
    /// type
    #[serde(rename = "type")]
    pub type_: String,
    /// status
    pub status: String,
    /// reason
    pub reason: String,
    /// message
    pub message: String,
    /// observedGeneration
    pub observed_generation: i64,
}

/// The conditions that a gateway has to report before it can be taken to follow a route (Gateway API,
/// RouteConditionType).
const NEEDED: [&str; 2] = ["Accepted", "ResolvedRefs"];

fn parent(raw: RawParent) -> RouteParent {
    let found = NEEDED.map(|type_| raw.conditions.iter().find(|condition| condition.type_ == type_));
    let missing = NEEDED.iter().zip(&found).find(|(_, condition)| condition.is_none());
    let bad = found.iter().flatten().find(|condition| condition.status != "True");
    let why = match (bad, missing) {
        (Some(bad), _) => format!("{}: {}", bad.reason, bad.message),
        (None, Some((type_, _))) => format!("condition {type_} is missing"),
        (None, None) => String::new(),
    };
    let generations = found.iter().flatten().map(|condition| condition.observed_generation);
    RouteParent {
        reference: raw.parent_ref,
        controller: raw.controller_name,
        generation: generations.min().unwrap_or(0),
        accepted: bad.is_none() && missing.is_none(),
        why,
    }
}

impl<const GRPC: bool> Cached for CachedRoute<GRPC> {
    type Raw = RawRoute;
    const KIND: Kind = if GRPC { Kind::GrpcRoute } else { Kind::Route };

    fn read(meta: &RawMeta, raw: RawRoute) -> Option<Self> {
        // Of a route of its own the operator means every field, of another one only weights.
        let changed_by = match meta.label(LABEL_RELEASE) {
            Some(_) => meta.route_set_by(FIELD_MANAGER),
            None => meta.rules_set_by(FIELD_MANAGER),
        };
        Some(Self {
            meta: meta.slim(),
            generation: meta.generation,
            release: meta.label(LABEL_RELEASE).map(Into::into),
            spec: raw.spec.to_string().into(),
            parents: raw.status.parents.into_iter().map(parent).collect(),
            changed_by: changed_by.map(|manager| (manager.manager.as_str().into(), manager.applies())),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.meta.key.name
    }
}

/// Whether kinds of the Gateway API are wanted, and whether they can be had. It is not part of Kubernetes:
/// it may be installed later, or never.
#[derive(Debug)]
pub struct RouteApi {
    wanted: watch::Sender<bool>,
    refusals: BTreeMap<Kind, String>,
}

impl Default for RouteApi {
    fn default() -> Self {
        Self { wanted: watch::Sender::new(false), refusals: BTreeMap::new() }
    }
}

impl RouteApi {
    /// A release uses a route.
    pub fn want(&self) {
        self.wanted.send_replace(true);
    }

    /// For waiting until a release uses one.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<bool> {
        self.wanted.subscribe()
    }

    /// Takes in whether a kind can be watched. Says whether that is news.
    pub fn is(&mut self, kind: Kind, refusal: Option<String>) -> bool {
        let news = self.refusals.get(&kind) != refusal.as_ref();
        match refusal {
            Some(why) => self.refusals.insert(kind, why),
            None => self.refusals.remove(&kind),
        };
        news
    }

    /// Why a kind cannot be had.
    #[must_use]
    pub fn refusal(&self, kind: Kind) -> Option<&str> {
        self.refusals.get(&kind).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::controller::cache::Slim;

    fn route(object: Value) -> CachedRoute {
        serde_json::from_value::<Slim<CachedRoute>>(object).unwrap().entry.unwrap()
    }

    fn manager(name: &str, operation: &str, field: &str, second: i64) -> Value {
        json!({"manager": name, "operation": operation, "time": format!("2026-01-01T00:00:{second:02}Z"),
               "fieldsV1": {"f:spec": {field: {}}}})
    }

    #[rstest]
    #[case::both(&[("Accepted", "True", 3), ("ResolvedRefs", "True", 3)], (3, true, ""))]
    #[case::the_older_counts(&[("Accepted", "True", 3), ("ResolvedRefs", "True", 2)], (2, true, ""))]
    #[case::one_is_false(&[("Accepted", "True", 3), ("ResolvedRefs", "False", 3)], (3, false, "Why: a text"))]
    #[case::one_is_unknown(&[("Accepted", "Unknown", 3), ("ResolvedRefs", "True", 3)], (3, false, "Why: a text"))]
    #[case::one_is_missing(&[("Accepted", "True", 3)], (3, false, "condition ResolvedRefs is missing"))]
    #[case::none(&[], (0, false, "condition Accepted is missing"))]
    fn a_parent_accepts_a_route_by_both_conditions(
        #[case] conditions: &[(&str, &str, i64)],
        #[case] expected: (i64, bool, &str),
    ) {
        let condition = |(type_, status, generation): &(&str, &str, i64)| {
            json!({"type": type_, "status": status, "observedGeneration": generation,
                   "reason": "Why", "message": "a text"})
        };
        let conditions: Vec<Value> = conditions.iter().map(condition).collect();
        let parents = json!([{"parentRef": {"name": "edge"}, "conditions": conditions}]);
        let seen = route(json!({"metadata": {"name": "shop", "namespace": "default"}, "status": {"parents": parents}}))
            .seen("shop");
        let [parent] = &*seen.parents else { panic!("one parent") };
        assert_eq!((parent.generation, parent.accepted, &*parent.why), expected);
    }

    #[rstest]
    #[case::nobody(&[], None)]
    #[case::ours(&[(FIELD_MANAGER, "Update", "f:rules", 1)], None)]
    #[case::somebody(&[("kubectl-edit", "Update", "f:rules", 1)], Some(("kubectl-edit", false)))]
    #[case::an_applier(&[("argocd-controller", "Apply", "f:rules", 1)], Some(("argocd-controller", true)))]
    #[case::the_same_as_ours(&[("argocd-controller", "Apply", "f:rules", 2), (FIELD_MANAGER, "Update", "f:rules", 1)], None)]
    #[case::the_last(&[("a", "Apply", "f:rules", 2), ("b", "Update", "f:rules", 3), ("c", "Apply", "f:rules", 1)], Some(("b", false)))]
    #[case::another_field(&[("kubectl-edit", "Update", "f:hostnames", 1)], None)]
    fn who_set_the_rules_is_told_by_the_managed_fields(
        #[case] managers: &[(&str, &str, &str, i64)],
        #[case] expected: Option<(&str, bool)>,
    ) {
        let managers = managers.iter().map(|(name, operation, field, at)| manager(name, operation, field, *at));
        let meta = json!({"name": "shop", "namespace": "default", "managedFields": managers.collect::<Vec<_>>()});
        let seen = route(json!({"metadata": meta})).seen("shop");
        assert_eq!(seen.changed_by.as_ref().map(|(name, applies)| (name.as_str(), *applies)), expected);
    }

    #[test]
    fn a_route_is_ours_by_its_label() {
        let meta = json!({"name": "shop", "namespace": "default", "labels": {LABEL_RELEASE: "shop"}});
        let route = route(json!({"metadata": meta, "spec": {"hostnames": ["shop.example"]}}));
        assert!(route.seen("shop").ours);
        assert!(!route.seen("other").ours);
        assert_eq!(route.seen("shop").spec, json!({"hostnames": ["shop.example"]}));
    }
}
