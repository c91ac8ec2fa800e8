//! Whether a route of the operator's own is as it is meant, to the letter, beside what the API server adds by
//! default; and what to write where it is not.

use serde_json::{Value, json};

use super::{effect::Effect, observed::Route};

/// What brings a route of the operator's own to this spec; nothing if it has it.
pub fn set(route: &Route, wanted: Value) -> Option<Effect> {
    if !route.ours || is(&route.spec, &wanted, route.changed_by.is_some()) {
        return None;
    }
    Some(Effect::ReplaceRoute { object: route.object.clone(), spec: without_rest(&route.spec, wanted) })
}

/// Whether a spec is what is wanted. What nobody else has changed (`meddled`) may hold more: defaults of a version
/// of the API that is not known here.
pub fn is(seen: &Value, wanted: &Value, meddled: bool) -> bool {
    covers(seen, wanted, meddled)
}

/// A spec with null for each field that is not wanted: a merge patch takes it out.
fn without_rest(seen: &Value, mut wanted: Value) -> Value {
    if let (Value::Object(seen), Value::Object(wanted)) = (seen, &mut wanted) {
        for key in seen.keys() {
            wanted.entry(key.clone()).or_insert(Value::Null);
        }
    }
    wanted
}

fn covers(seen: &Value, wanted: &Value, exactly: bool) -> bool {
    match (seen, wanted) {
        (Value::Object(seen), Value::Object(wanted)) => {
            let more = seen.iter().find(|(key, value)| !wanted.contains_key(*key) && !is_default(key, value));
            wanted.iter().all(|(key, wanted)| covers(seen.get(key).unwrap_or(&Value::Null), wanted, exactly))
                && !(exactly && more.is_some())
        }
        (Value::Array(seen), Value::Array(wanted)) => {
            seen.len() == wanted.len() && seen.iter().zip(wanted).all(|(seen, wanted)| covers(seen, wanted, exactly))
        }
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (seen, wanted) => seen == wanted,
    }
}

/// Whether the API server gives a field this value where nobody has written one (HTTPRoute and GRPCRoute v1).
fn is_default(key: &str, value: &Value) -> bool {
    let path = || json!({"type": "PathPrefix", "value": "/"});
    match key {
        "group" => *value == "" || *value == "gateway.networking.k8s.io",
        "kind" => *value == "Service" || *value == "Gateway",
        "weight" => *value == 1,
        "type" => *value == "PathPrefix" || *value == "Exact",
        "value" => *value == "/",
        "path" => *value == path(),
        "matches" => *value == json!([{"path": path()}]),
        _ => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn wanted() -> Value {
        let backend = |name: &str, weight: i32| json!({"name": name, "port": 80, "weight": weight});
        json!({
            "parentRefs": [{"name": "edge"}],
            "hostnames": null,
            "rules": [{
                "matches": [{"headers": [{"name": "x", "value": "y"}]}],
                "filters": [],
                "backendRefs": [backend("shop", 90), backend("shop-candidate", 10)],
            }],
        })
    }

    /// As the API server returns it.
    fn stored() -> Value {
        let backend = |name: &str, weight: i32| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
        json!({
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}],
            "rules": [{
                "matches": [{
                    "path": {"type": "PathPrefix", "value": "/"},
                    "headers": [{"type": "Exact", "name": "x", "value": "y"}],
                }],
                "backendRefs": [backend("shop", 90), backend("shop-candidate", 10)],
            }],
        })
    }

    fn route(spec: Value, changed_by: Option<&str>) -> Route {
        let changed_by = changed_by.map(|manager| (manager.to_owned(), false));
        Route { ours: true, spec, changed_by, ..Route::default() }
    }

    #[rstest]
    #[case::nobody(None)]
    #[case::somebody(Some("kubectl-edit"))]
    fn what_the_api_server_adds_is_no_difference(#[case] changed_by: Option<&str>) {
        assert_eq!(set(&route(stored(), changed_by), wanted()), None);
    }

    #[rstest]
    #[case::a_timeout("/rules/0/timeouts", json!({"request": "1ms"}))]
    #[case::a_filter("/rules/0/filters", json!([{"type": "URLRewrite"}]))]
    #[case::a_session("/rules/0/sessionPersistence", json!({"type": "Cookie"}))]
    #[case::a_filter_of_a_backend("/rules/0/backendRefs/0/filters", json!([{"type": "RequestHeaderModifier"}]))]
    #[case::one_more_condition("/rules/0/matches/0/method", json!("GET"))]
    #[case::one_listener("/parentRefs/0/sectionName", json!("web"))]
    #[case::host_names("/hostnames", json!(["other.example"]))]
    #[case::the_gateways("/useDefaultGateways", json!("All"))]
    fn what_somebody_else_adds_is_taken_out(#[case] place: &str, #[case] value: Value) {
        let (parent, key) = place.rsplit_once('/').unwrap();
        let mut spec = stored();
        spec.pointer_mut(parent).unwrap()[key] = value;
        let Some(Effect::ReplaceRoute { spec: written, .. }) =
            set(&route(spec.clone(), Some("kubectl-edit")), wanted())
        else {
            panic!("it stays")
        };
        let mut merged = spec;
        for (key, value) in written.as_object().unwrap() {
            merged[key] = value.clone();
        }
        merged.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        assert!(is(&merged, &wanted(), true), "{merged}");
    }

    #[test]
    fn what_nobody_has_added_may_be_a_default_of_tomorrow() {
        let mut spec = stored();
        spec["rules"][0]["fromTomorrow"] = json!(true);
        assert_eq!(set(&route(spec.clone(), None), wanted()), None);
        assert!(set(&route(spec, Some("kubectl-edit")), wanted()).is_some());
    }

    #[test]
    fn a_route_of_somebody_elses_is_left_alone() {
        let theirs = Route { ours: false, ..route(json!({}), Some("kubectl-edit")) };
        assert_eq!(set(&theirs, wanted()), None);
    }
}
