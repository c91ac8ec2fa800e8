//! The release's own HTTPRoute as it is meant: the rule that shares the requests by weights, before it one for
//! testers by their headers, and before all of them one that sends everything to the maintenance Service.

use serde_json::{Value, json};

use crate::api::{GatewayRoute, HeaderMatch, Maintenance, RouteProtocol, status::bounded};

use super::{
    database,
    effect::Selection,
    observed::Route,
    own_spec, parents,
    pass::Pass,
    plan::{Extras, Step},
    retreat,
    route::{self, is_service, services, weight},
    traffic, way_back,
};

/// Whether the release's own route has the rules that are meant at this weight.
pub fn are_meant(pass: &Pass<'_>, weight: i32) -> bool {
    let gateway = route::router(pass).and_then(|router| router.gateway.as_ref());
    let (Some(gateway), Some(route)) = (gateway, &pass.seen.route) else { return true };
    let Some(wanted) = spec(pass, gateway, weight) else { return false };
    let rules = |spec: &Value| spec.get("rules").cloned().unwrap_or_default();
    own_spec::is(&rules(&route.spec), &rules(&wanted), route.changed_by.is_some())
}

/// The maintenance Service of the spec.
fn maintenance<'a>(pass: &Pass<'a>) -> Option<&'a Maintenance> {
    pass.traffic_spec()?.maintenance.as_ref()
}

/// What is to be done with requests beside sharing them by weight.
fn extras(pass: &Pass<'_>) -> Extras {
    if pass.release.metadata.deletion_timestamp.is_some() {
        return Extras::default();
    }
    let of_step = of_step(pass);
    let active =
        of_step.maintenance || database::switches::is_closed(pass) || maintenance(pass).is_some_and(|it| it.active);
    // Nobody gets past it by a header.
    if active { Extras { maintenance: maintenance(pass).is_some(), ..Extras::default() } } else { of_step }
}

/// The same as the step under way has it.
fn of_step(pass: &Pass<'_>) -> Extras {
    let policy = pass.policy();
    if retreat::under_way(pass) && policy.has_maintenance() {
        return Extras { maintenance: way_back::goes_behind_page(pass, &policy), ..Extras::default() };
    }
    let step = pass.status.step.as_ref().filter(|_| pass.status.candidate.is_some() && pass.status.stable.is_some());
    let Some(step) = step else { return Extras::default() };
    let served = || pass.stable().is_some_and(|stable| pass.traffics().serving(stable) > 0);
    if retreat::under_way(pass) && served() {
        return Extras::default();
    }
    // All is done behind it once the requests would come back to the Service that now has the candidate.
    let switched = pass.candidate_hash().is_some_and(|candidate| {
        pass.traffics().selection() == Selection::Revision(candidate.to_owned()) && weight(pass) == Some(0)
    });
    let extras = policy.extras(step.index);
    Extras { maintenance: extras.maintenance && !(policy.step(step.index) == Step::Promote && switched), ..extras }
}

/// What a route, as it is, does with requests beside sharing them by weight.
#[derive(Default)]
pub struct Seen {
    /// The headers that lead to the candidate, in words.
    pub headers: Option<String>,
    /// The percentage of requests of which the candidate gets copies.
    pub copies: Option<i32>,
    /// Whether it sends requests to the maintenance Service.
    pub maintenance: bool,
}

/// Reads it.
pub fn seen(pass: &Pass<'_>, route: &Route) -> Seen {
    let Some((stable, candidate)) = services(pass).filter(|_| route.shape.is_judged) else { return Seen::default() };
    let Seen { mut headers, mut copies, mut maintenance } = Seen::default();
    let page = self::maintenance(pass).map(|it| it.service.as_str());
    for rule in route.spec.get("rules").and_then(Value::as_array).into_iter().flatten() {
        let list = |key: &str| rule.get(key).and_then(Value::as_array).into_iter().flatten();
        let names = |name: &str| list("backendRefs").any(|backend| is_service(pass, backend, &route.shape, name));
        if names(candidate) && !names(stable) {
            let first = list("matches").next().and_then(|it| it.get("headers")).and_then(Value::as_array);
            headers = first.map(|headers| bounded(&words(headers), 256));
        }
        maintenance |= page.is_some_and(names) && !names(stable);
        let mirror = list("filters").filter_map(|filter| filter.get("requestMirror"));
        let mirror = mirror.filter(|it| {
            it.get("backendRef").is_some_and(|backend| is_service(pass, backend, &route.shape, candidate))
        });
        let percent = |it: &Value| it.get("percent").and_then(Value::as_i64).unwrap_or(100);
        copies = copies.or(mirror.map(percent).next().and_then(|percent| i32::try_from(percent).ok()));
    }
    Seen { headers, copies, maintenance }
}

/// Headers as people read them.
fn words(headers: &[Value]) -> String {
    let text = |header: &Value, key: &str| header.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let word = |header: &Value| format!("{}: {}", text(header, "name"), text(header, "value"));
    headers.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The spec of the release's own route.
pub fn spec(pass: &Pass<'_>, gateway: &GatewayRoute, weight: i32) -> Option<Value> {
    let (stable, candidate) = services(pass)?;
    let port = port(pass, gateway)?;
    let backend = |name: &str, weight: i32| json!({"name": name, "port": port, "weight": weight});
    let matches = matches(gateway);
    let mut backends = vec![backend(stable, 100 - weight), backend(candidate, weight)];
    let extras = extras(pass);
    let mut rules = Vec::new();
    let page = |weight: i32| {
        let page = maintenance(pass)?;
        Some(json!({"name": page.service, "port": page.port.unwrap_or(port), "weight": weight}))
    };
    // Known to the gateway before it is needed: Envoy answers 503 until it has heard of the pods of a Service.
    backends.extend(page(0));
    if let Some(backend) = page(1).filter(|_| extras.maintenance) {
        // Of rules that match the same the first counts (Gateway API, HTTPRouteRule).
        rules.push(json!({"matches": matches, "filters": [], "backendRefs": [backend]}));
    }
    if !extras.headers.is_empty() {
        let each = if matches.is_empty() { vec![json!({})] } else { matches.clone() };
        let matches: Vec<Value> = each.iter().map(|it| with_headers(it, &extras.headers)).collect();
        rules.push(json!({"matches": matches, "filters": [], "backendRefs": [backend(candidate, 1)]}));
    }
    let mirror = |percent: i32| {
        let copied = json!({"backendRef": {"name": candidate, "port": port}});
        let share = if percent < 100 { json!({"percent": percent}) } else { json!({}) };
        json!({"type": "RequestMirror", "requestMirror": merged(copied, share)})
    };
    let filters: Vec<Value> = Some(extras.mirror).filter(|percent| *percent > 0).map(mirror).into_iter().collect();
    rules.push(json!({"matches": matches, "filters": filters, "backendRefs": backends}));
    // null takes names away that are not wanted any more.
    let hostnames = Some(&gateway.hostnames).filter(|names| !names.is_empty());
    Some(json!({"parentRefs": parents::own(pass, &gateway.parent_refs), "hostnames": hostnames, "rules": rules}))
}

/// The port of the Services.
pub fn port(pass: &Pass<'_>, gateway: &GatewayRoute) -> Option<i32> {
    let template = pass.target.as_ref().map(|target| target.template.clone());
    let first = || Some(traffic::ports(&template?).first()?.port);
    let known = pass.seen.service.as_ref().and_then(|service| Some(service.targets.first()?.0));
    gateway.port.or(known).or_else(first)
}

/// Which requests are meant.
pub fn matches(gateway: &GatewayRoute) -> Vec<Value> {
    match gateway.protocol {
        _ if !gateway.matches.is_empty() => gateway.matches.clone(),
        RouteProtocol::Http => vec![json!({"path": {"type": "PathPrefix", "value": "/"}})],
        RouteProtocol::Grpc => Vec::new(),
    }
}

/// A match that asks for these headers, too.
fn with_headers(wanted: &Value, more: &[HeaderMatch]) -> Value {
    let known = wanted.get("headers").and_then(Value::as_array).cloned().unwrap_or_default();
    let headers: Vec<Value> = known.into_iter().chain(more.iter().map(|header| json!(header))).collect();
    merged(wanted.clone(), json!({"headers": headers}))
}

/// An object with the keys of another one, too.
fn merged(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}
