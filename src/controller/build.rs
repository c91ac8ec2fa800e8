//! The bodies of what the operator writes: pure functions from effects to JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    api::{ANNOTATION_FINGERPRINT, ANNOTATION_ORIGINAL_SELECTOR, GROUP, LABEL_RELEASE, LABEL_REVISION, ServiceRelease},
    engine::{self, Event, NewReplicaSet, NewRoute, NewService, ObjectVersion, Plan, Selection, ServicePort},
};

use super::{FIELD_MANAGER, key::Key};

/// metadata that makes a write conditional on the version that it was decided on.
#[must_use]
pub fn precondition(object: &ObjectVersion) -> Value {
    json!({ "uid": object.uid, "resourceVersion": object.resource_version })
}

/// A patch of an object's fields at a version.
#[must_use]
pub fn patch(object: &ObjectVersion, field: &str, value: Value) -> Value {
    json!({ "metadata": precondition(object), field: value })
}

/// The body of a conditional DELETE. What the object owns goes after it.
#[must_use]
pub fn deletion(object: &ObjectVersion) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": precondition(object),
    })
}

/// The owner of what goes with a release.
#[must_use]
pub fn owner(release: &ServiceRelease) -> Value {
    json!([{
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": "ServiceRelease",
        "name": release.metadata.name,
        "uid": release.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

fn release_name(release: &ServiceRelease) -> &str {
    release.metadata.name.as_deref().unwrap_or_default()
}

/// A ReplicaSet. Only the operator's two labels are on it, so that no Deployment adopts it; its pods
/// have them too.
#[must_use]
pub fn replica_set(release: &ServiceRelease, new: &NewReplicaSet) -> Value {
    let name = release_name(release);
    let own = json!({ LABEL_RELEASE: name, LABEL_REVISION: new.hash });
    let mut match_labels = json!(new.match_labels);
    merge(&mut match_labels, &own);
    let mut template = new.template.to_value();
    merge(&mut template, &json!({ "metadata": { "labels": own } }));
    let mut body = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": new.name,
            "labels": own,
            "annotations": { ANNOTATION_FINGERPRINT: new.fingerprint },
        },
        "spec": {
            "replicas": new.replicas,
            "minReadySeconds": new.min_ready_seconds,
            "selector": { "matchLabels": match_labels },
            "template": template,
        },
    });
    if new.owned {
        body["metadata"]["ownerReferences"] = owner(release);
    }
    body
}

/// A ControllerRevision that pins a plan.
#[must_use]
pub fn plan(release: &ServiceRelease, plan: &Plan) -> Value {
    let name = release_name(release);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": engine::plan_name(name, plan.number),
            "labels": { LABEL_RELEASE: name, LABEL_REVISION: plan.revision },
            "ownerReferences": owner(release),
        },
        "revision": plan.number,
        "data": {
            "revision": plan.revision,
            "spec": plan.spec,
            "template": plan.template.to_value(),
            "analysisTemplates": plan.analysis_templates,
        },
    })
}

/// The operator's keys in a selector; null where there is to be none.
fn selector_keys(release: &str, selection: &Selection) -> Value {
    match selection {
        Selection::Nothing => json!({ LABEL_RELEASE: release, LABEL_REVISION: engine::NO_REVISION }),
        Selection::Revision(hash) => json!({ LABEL_RELEASE: release, LABEL_REVISION: hash }),
        Selection::Release => json!({ LABEL_RELEASE: release, LABEL_REVISION: null }),
        Selection::Original => json!({ LABEL_RELEASE: null, LABEL_REVISION: null }),
    }
}

/// A Service of the release's own.
#[must_use]
pub fn service(release: &ServiceRelease, new: &NewService) -> Value {
    let name = release_name(release);
    let mut selector = json!(new.match_labels);
    merge(&mut selector, &selector_keys(name, &new.selection));
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": new.name, "labels": { LABEL_RELEASE: name } },
        "spec": {
            "selector": selector,
            "ports": new.ports.iter().map(port).collect::<Vec<_>>(),
        },
    });
    if new.owned {
        body["metadata"]["ownerReferences"] = owner(release);
    }
    body
}

/// A port of a Service. It leads to the container's port by name, if that has one: another revision
/// may have it under another number.
fn port(port: &ServicePort) -> Value {
    let named = port.name != format!("{}-{}", port.protocol.to_lowercase(), port.port);
    json!({
        "name": port.name,
        "port": port.port,
        "protocol": port.protocol,
        "targetPort": if named { json!(port.name) } else { json!(port.port) },
    })
}

/// The release's own HTTPRoute.
#[must_use]
pub fn route(release: &ServiceRelease, new: &NewRoute) -> Value {
    let mut body = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": new.protocol.kind(),
        "metadata": { "name": new.name, "labels": { LABEL_RELEASE: release_name(release) } },
        "spec": new.spec,
    });
    if new.owned {
        body["metadata"]["ownerReferences"] = owner(release);
    }
    body
}

/// The JSON patch (RFC 6902) that sets numbers in a route at a version. Unlike a merge patch it does not
/// replace the lists that they stand in, with whatever another version of the API has there.
#[must_use]
pub fn weights(object: &ObjectVersion, weights: &[(String, i32)]) -> Value {
    let set = |path: &str, value: Value| json!({ "op": "add", "path": path, "value": value });
    let at_version = [
        set("/metadata/uid", json!(object.uid)),
        // A version that has passed is answered with a conflict.
        set("/metadata/resourceVersion", json!(object.resource_version)),
    ];
    let value = |path: &str, weight: i32| match path.starts_with("/metadata/annotations/") {
        // Annotations are text.
        true => json!(weight.to_string()),
        false => json!(weight),
    };
    at_version.into_iter().chain(weights.iter().map(|(path, weight)| set(path, value(path, *weight)))).collect()
}

/// The patch that makes a Service select something else.
#[must_use]
pub fn select(
    release: &str,
    object: &ObjectVersion,
    selection: &Selection,
    keep_original: Option<&BTreeMap<String, String>>,
    base: &BTreeMap<String, Option<String>>,
) -> Value {
    let mut keys = json!(base);
    // null takes a label out, as a merge patch does, so it has to stay.
    if let (Value::Object(keys), Value::Object(own)) = (&mut keys, selector_keys(release, selection)) {
        keys.extend(own);
    }
    let mut body = patch(object, "spec", json!({ "selector": keys }));
    let annotation = match (selection, keep_original) {
        (Selection::Original, _) => Some(Value::Null),
        (_, Some(original)) => Some(json!(json!(original).to_string())),
        (_, None) => None,
    };
    if let Some(annotation) = annotation {
        body["metadata"]["annotations"] = json!({ ANNOTATION_ORIGINAL_SELECTOR: annotation });
    }
    body
}

/// An Event about a ServiceRelease. Each is an object of its own: the usual folding of Events into
/// series goes by reason and drops what they say.
#[must_use]
pub fn event(key: &Key, uid: &str, event: &Event, instance: &str, now: jiff::Timestamp) -> Value {
    let Key { namespace, name } = key;
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{name}.{:x}", now.as_nanosecond()),
            "namespace": **namespace,
        },
        "eventTime": format!("{now:.6}"),
        "reportingController": format!("{GROUP}/{FIELD_MANAGER}"),
        "reportingInstance": instance.chars().take(128).collect::<String>(),
        "action": event.action,
        "reason": event.reason,
        "note": short(&event.note),
        "type": if event.warning { "Warning" } else { "Normal" },
        "regarding": {
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "ServiceRelease",
            "name": **name,
            "namespace": **namespace,
            "uid": uid,
        },
    })
}

/// A note as an Event can hold it: at most 1 KiB.
fn short(note: &str) -> String {
    const MOST: usize = 1024;
    if note.len() <= MOST {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(MOST - '…'.len_utf8());
    format!("{}…", &note[..end])
}

/// Applies a JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// The JSON merge patch that makes `new` of `old`; none if they are the same.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            Some(known) => {
                patch.extend(difference(known, value).map(|change| (key.clone(), change)));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> ServiceRelease {
        let body = json!({
            "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
            "metadata": {"name": "shop", "namespace": "ns", "uid": "u-1"}, "spec": {},
        });
        serde_json::from_value(body).unwrap()
    }

    fn object() -> ObjectVersion {
        ObjectVersion { name: "shop".into(), uid: "u-2".into(), resource_version: "7".into() }
    }

    fn new_set(owned: bool) -> NewReplicaSet {
        NewReplicaSet {
            name: "shop-abc".into(),
            hash: "abc".into(),
            fingerprint: "f".into(),
            match_labels: [("app".to_owned(), "shop".to_owned())].into(),
            template: engine::Template::new(
                json!({"metadata": {"labels": {"app": "shop", "x": "y"}}, "spec": {"a": 1}}),
            ),
            replicas: 2,
            min_ready_seconds: 5,
            owned,
        }
    }

    #[test]
    fn a_replica_set_has_only_our_labels_and_its_pods_have_them_too() {
        let body = replica_set(&release(), &new_set(true));
        let own = json!({LABEL_RELEASE: "shop", LABEL_REVISION: "abc"});
        assert_eq!(body["metadata"]["labels"], own);
        let selector = json!({"app": "shop", LABEL_RELEASE: "shop", LABEL_REVISION: "abc"});
        assert_eq!(body["spec"]["selector"]["matchLabels"], selector);
        let pods = json!({"app": "shop", "x": "y", LABEL_RELEASE: "shop", LABEL_REVISION: "abc"});
        assert_eq!(body["spec"]["template"]["metadata"]["labels"], pods);
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(body["metadata"]["ownerReferences"][0]["controller"], true);
    }

    #[test]
    fn what_must_outlive_the_release_is_not_owned_by_it() {
        let body = replica_set(&release(), &new_set(false));
        assert_eq!(body["metadata"].get("ownerReferences"), None);
    }

    #[test]
    fn the_template_read_back_is_the_one_that_was_written() {
        let new = new_set(true);
        let body = replica_set(&release(), &new);
        assert_eq!(engine::Template::new(body["spec"]["template"].clone()), new.template);
    }

    #[test]
    fn selecting_the_original_takes_away_all_that_is_ours() {
        let body = select("shop", &object(), &Selection::Original, None, &BTreeMap::new());
        let mut service = json!({
            "metadata": {"annotations": {ANNOTATION_ORIGINAL_SELECTOR: "{}", "other": "x"}},
            "spec": {"selector": {"app": "shop", LABEL_RELEASE: "shop", LABEL_REVISION: "abc"}},
        });
        merge(&mut service, &body);
        assert_eq!(service["spec"]["selector"], json!({"app": "shop"}));
        assert_eq!(service["metadata"]["annotations"], json!({"other": "x"}));
        assert_eq!(service["metadata"]["resourceVersion"], "7");
        assert_eq!(service["metadata"]["uid"], "u-2");
    }

    #[test]
    fn selections_are_read_as_they_are_written() {
        let all = [Selection::Nothing, Selection::Revision("abc".into()), Selection::Release, Selection::Original];
        for selection in all {
            let mut selector = json!({"app": "shop", LABEL_REVISION: "old", LABEL_RELEASE: "shop"});
            merge(&mut selector, &selector_keys("shop", &selection));
            let service =
                engine::Service { selector: serde_json::from_value(selector).unwrap(), ..engine::Service::default() };
            assert_eq!(engine::selection(&service), selection);
        }
    }

    #[test]
    fn a_port_with_a_name_leads_to_that_name() {
        let named = port(&ServicePort { name: "http".into(), port: 8080, protocol: "TCP".into() });
        assert_eq!(named["targetPort"], "http");
        let nameless = port(&ServicePort { name: "tcp-8080".into(), port: 8080, protocol: "TCP".into() });
        assert_eq!(nameless["targetPort"], 8080);
    }

    #[test]
    fn a_difference_makes_the_new_of_the_old() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": {"f": 1}});
        let new = json!({"a": 1, "b": {"c": [1, 2]}, "g": null, "h": {"i": 1}});
        let patch = difference(&old, &new).unwrap();
        assert_eq!(patch.get("a"), None);
        let mut merged = old.clone();
        merge(&mut merged, &patch);
        assert_eq!(merged, json!({"a": 1, "b": {"c": [1, 2]}, "h": {"i": 1}}));
        assert_eq!(difference(&old, &old), None);
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let cut = short(&"ä".repeat(600));
        assert!(cut.len() <= 1024 && cut.ends_with("ä…"), "{} {cut}", cut.len());
        assert_eq!(short("short"), "short");
    }
}
