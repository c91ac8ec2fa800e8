//! Routers of kinds that the platform has set up (`--routers`, chart value `routers`): which kind a name
//! stands for, and where such objects have their weights. A tenant chooses a name, never a path.
//!
//! Nobody watches these objects: each pass reads the one that it is about.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{CustomRef, LABEL_RELEASE, ServiceRelease},
    engine::{Route, Shape},
};

use super::{
    FIELD_MANAGER,
    cache::entry::RawMeta,
    calls::{CallError, Calls, Place},
    key::Key,
};

/// A kind of object that shares requests by weights.
#[derive(Debug, PartialEq, Eq)]
pub struct CustomKind {
    /// Its API group.
    pub group: String,
    /// The version of it that is read and written.
    pub version: String,
    /// Its plural, as in RBAC.
    pub plural: String,
    /// Where the weights are.
    pub shape: Arc<Shape>,
}

/// The kinds by the names under which releases ask for them.
#[derive(Clone, Debug, Default)]
pub struct Routers(BTreeMap<String, Arc<CustomKind>>);

/// A kind as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    api_version: String,
    kind: String,
    plural: String,
    /// The way to lists of backends, such as `spec.http.*.route`.
    backends: String,
    /// The way to the name of a Service in a backend, such as `destination.host`.
    service: String,
    /// The way to its weight.
    weight: Option<String>,
    /// Instead of `weight`, the keys on the way to the candidate's percentage, where it is one for the whole
    /// object: a list, since the keys of annotations have dots in them.
    share: Option<Vec<String>>,
}

impl FromStr for Routers {
    type Err = String;

    /// Reads a JSON object of kinds by name. Empty text is none.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let all: BTreeMap<String, Written> =
            serde_json::from_str(text).map_err(|error| format!("routers: {error}; see the chart's values.yaml"))?;
        let kinds = all.into_iter().map(|(name, written)| Ok((name.clone(), Arc::new(kind(&name, &written)?))));
        Ok(Self(kinds.collect::<Result<_, String>>()?))
    }
}

fn kind(name: &str, written: &Written) -> Result<CustomKind, String> {
    let Written { api_version, kind, plural, backends, service, weight, share } = written;
    let Some((group, version)) = api_version.split_once('/').filter(|(group, _)| !group.is_empty()) else {
        return Err(format!("routers.{name}.apiVersion: {api_version:?} is not GROUP/VERSION"));
    };
    let way = |field: &str, text: &str| {
        let keys: Vec<String> = text.split('.').map(str::to_owned).collect();
        match keys.iter().any(String::is_empty) {
            true => Err(format!("routers.{name}.{field}: {text:?} is not a way of keys with dots between them")),
            false => Ok(keys),
        }
    };
    let backends = way("backends", backends)?;
    if backends.first().map(String::as_str) != Some("spec") || backends.len() < 2 {
        return Err(format!("routers.{name}.backends: begins with spec., such as spec.http.*.route"));
    }
    let (weight, share) = match (weight, share) {
        (Some(weight), None) => (way("weight", weight)?, None),
        (None, Some(share)) if matches!(share.first().map(String::as_str), Some("spec" | "metadata")) => {
            (Vec::new(), Some(share.clone()))
        }
        (None, Some(_)) => {
            return Err(format!(
                "routers.{name}.share: begins with spec or metadata, such as [metadata, annotations, KEY]"
            ));
        }
        _ => return Err(format!("routers.{name}: exactly one of weight and share is needed")),
    };
    let shape = Shape {
        kind: kind.clone(),
        backends,
        service: way("service", service)?,
        weight,
        share,
        unset: 0,
        is_judged: false,
    };
    Ok(CustomKind { group: group.into(), version: version.into(), plural: plural.clone(), shape: Arc::new(shape) })
}

/// The custom router of a release.
pub fn reference(release: &ServiceRelease) -> Option<&CustomRef> {
    release.spec.router()?.custom.as_ref()
}

/// What is known of the object that a custom router is about.
pub enum Looked {
    /// As it is, if it is there.
    At(Option<Route>),
    /// Why it cannot be looked at.
    Refused(String),
}

impl Routers {
    /// The kind of a release's custom router.
    #[must_use]
    pub fn of(&self, release: &ServiceRelease) -> Option<Arc<CustomKind>> {
        self.0.get(&reference(release)?.name).cloned()
    }

    /// Reads the object of a release's custom router.
    ///
    /// # Errors
    /// That of the call, if another attempt may go better.
    pub async fn look(&self, calls: &Calls, key: &Key, wanted: &CustomRef) -> Result<Looked, CallError> {
        let Some(kind) = self.0.get(&wanted.name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Ok(Looked::Refused(format!(
                "the operator knows no router {}; those that the platform has set up: {known}",
                wanted.name
            )));
        };
        match calls.get::<Value>(&Place::custom(kind.clone(), key.beside(&wanted.object))).await {
            Ok(object) => Ok(Looked::At(Some(seen(&object, kind, key)))),
            Err(CallError::Missing { .. }) => Ok(Looked::At(None)),
            Err(CallError::Refused { message, .. }) => Ok(Looked::Refused(message)),
            Err(error) => Err(error),
        }
    }
}

fn seen(object: &Value, kind: &CustomKind, key: &Key) -> Route {
    let meta = RawMeta::deserialize(&object["metadata"]).unwrap_or_default();
    Route {
        object: meta.slim().object(),
        generation: meta.generation,
        ours: meta.label(LABEL_RELEASE) == Some(&*key.name),
        changed_by: changed_by(object, kind),
        spec: object["spec"].clone(),
        share: kind
            .shape
            .share
            .as_ref()
            .and_then(|way| way.iter().try_fold(object, |value, key| value.get(key)))
            .cloned(),
        shape: kind.shape.clone(),
        parents: Vec::new(),
    }
}

/// The field manager that set the part of the object that has the weights, if the operator did not; and whether by
/// server-side apply.
fn changed_by(object: &Value, kind: &CustomKind) -> Option<(String, bool)> {
    let way = match &kind.shape.share {
        Some(way) => way,
        None => kind.shape.backends.get(..2)?,
    };
    let sets = |manager: &&Value| {
        way.iter().try_fold(&manager["fieldsV1"], |value, key| value.get(format!("f:{key}"))).is_some()
    };
    let managers: Vec<&Value> = object["metadata"]["managedFields"].as_array()?.iter().filter(sets).collect();
    let text = |manager: &Value, key: &str| manager[key].as_str().unwrap_or_default().to_owned();
    if managers.iter().any(|manager| text(manager, "manager") == FIELD_MANAGER) {
        return None;
    }
    // Times are in UTC and of one length (RFC 3339).
    let last = managers.into_iter().max_by_key(|manager| text(manager, "time"))?;
    Some((text(last, "manager"), text(last, "operation") == "Apply"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn istio() -> Value {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "plural": "virtualservices",
               "backends": "spec.http.*.route", "service": "destination.host", "weight": "weight"})
    }

    fn nginx() -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "plural": "ingresses",
               "backends": "spec.rules.*.http.paths", "service": "backend.service.name",
               "share": ["metadata", "annotations", "nginx.ingress.kubernetes.io/canary-weight"]})
    }

    #[test]
    fn a_share_is_looked_up_from_the_object_on() {
        let kind = kind("nginx", &serde_json::from_value(nginx()).unwrap()).unwrap();
        let annotations = json!({"nginx.ingress.kubernetes.io/canary-weight": "20"});
        let fields = json!({"f:metadata": {"f:annotations": {"f:nginx.ingress.kubernetes.io/canary-weight": {}}}});
        let managers = json!([{"manager": "argocd", "operation": "Apply", "fieldsV1": fields}]);
        let object = json!({"metadata": {"annotations": annotations, "managedFields": managers}, "spec": {}});
        let seen = seen(&object, &kind, &Key::new("shop", "shop"));
        assert_eq!(seen.share, Some(json!("20")));
        assert_eq!(seen.changed_by, Some(("argocd".into(), true)));
    }

    #[test]
    fn a_name_stands_for_a_kind_and_its_ways() {
        let routers: Routers = json!({"istio": istio()}).to_string().parse().unwrap();
        let kind = &routers.0["istio"];
        assert_eq!((kind.group.as_str(), kind.version.as_str()), ("networking.istio.io", "v1"));
        assert_eq!(kind.shape.backends, ["spec", "http", "*", "route"]);
        assert_eq!(kind.shape.service, ["destination", "host"]);
        assert!("".parse::<Routers>().unwrap().0.is_empty());
    }

    #[rstest]
    #[case::nobody(&[], None)]
    #[case::ours_too(&[("argocd", "Apply", "f:http", 2), (FIELD_MANAGER, "Update", "f:http", 1)], None)]
    #[case::the_last(&[("a", "Apply", "f:http", 1), ("b", "Update", "f:http", 2)], Some(("b", false)))]
    #[case::another_part(&[("a", "Apply", "f:hosts", 1)], None)]
    fn who_set_the_weights_is_told_by_the_managed_fields(
        #[case] managers: &[(&str, &str, &str, i64)],
        #[case] expected: Option<(&str, bool)>,
    ) {
        let managers = managers.iter().map(|(name, operation, field, second)| {
            json!({"manager": name, "operation": operation, "time": format!("2026-01-01T00:00:{second:02}Z"),
                   "fieldsV1": {"f:spec": {*field: {}}}})
        });
        let object = json!({"metadata": {"managedFields": managers.collect::<Vec<_>>()}});
        let found = changed_by(&object, &kind("istio", &serde_json::from_value(istio()).unwrap()).unwrap());
        assert_eq!(found.as_ref().map(|(name, applies)| (name.as_str(), *applies)), expected);
    }

    #[rstest]
    #[case("apiVersion", "v1", "routers.istio.apiVersion")]
    #[case("backends", "http.*.route", "routers.istio.backends")]
    #[case("backends", "spec", "routers.istio.backends")]
    #[case("service", "destination..host", "routers.istio.service")]
    #[case("weights", "x", "unknown field `weights`")]
    #[case("share", ["metadata"], "exactly one of weight and share")]
    fn what_is_wrong_with_a_kind_is_told_by_its_field(
        #[case] key: &str,
        #[case] value: impl serde::Serialize,
        #[case] told: &str,
    ) {
        let mut kind = istio();
        kind[key] = json!(value);
        let error = json!({"istio": kind}).to_string().parse::<Routers>().unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}
