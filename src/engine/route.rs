//! The HTTPRoute of a release, or the object of another kind that shares its requests: its weights as they
//! are, what they ought to be, and since when the gateway follows them. The Service `service` selects stable,
//! `candidateService` the candidate; the route shares the requests between the two.

use serde_json::Value;

use crate::api::{RouteStatus, Router};

use super::{
    contest,
    effect::{Effect, NewRoute},
    observed::{Route, Shape},
    own_spec,
    parents::{self, Refusal},
    pass::Pass,
    plan::{Policy, Situation, Step},
    rules,
};

/// A rule of a route that names both Services.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared {
    stable: (String, i64),
    candidate: (String, i64),
}

/// Why a route cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// No rule names both Services.
    NoRule,
    /// The list of backends at this place has requests for another one.
    OtherBackend(String, String),
}

/// The router of the spec.
pub fn router<'a>(pass: &Pass<'a>) -> Option<&'a Router> {
    pass.release.spec.router()
}

/// The route's name: the user's, or the release's own.
pub fn name<'a>(pass: &Pass<'a>) -> Option<&'a str> {
    router(pass)?.users_object().or(pass.release.metadata.name.as_deref())
}

/// What keeps the route from being used.
pub fn unusable(pass: &Pass<'_>) -> Option<Unusable> {
    let route = pass.seen.route.as_ref()?;
    match &route.shape.share {
        Some(way) => share(pass, route, way).err(),
        None => shared(pass, route).err(),
    }
}

/// The JSON pointer (RFC 6901) of the candidate's percentage, and what it is.
fn share(pass: &Pass<'_>, route: &Route, way: &[String]) -> Result<(String, i64), Unusable> {
    let (_, candidate) = services(pass).ok_or(Unusable::NoRule)?;
    let lists = lists(route);
    let all = || lists.iter().flat_map(|(path, backends)| backends.iter().map(move |backend| (path, backend)));
    if let Some((path, other)) = all().find(|(_, backend)| !is_service(pass, backend, &route.shape, candidate)) {
        return Err(Unusable::OtherBackend(path.clone(), backend_name(other, &route.shape)));
    }
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let percent = route.share.as_ref().map_or(Some(0), number).unwrap_or(-1);
    all().next().map(|_| (pointer("", way), percent)).ok_or(Unusable::NoRule)
}

/// The rules that name both Services.
fn shared(pass: &Pass<'_>, route: &Route) -> Result<Vec<Shared>, Unusable> {
    let (stable, candidate) = services(pass).ok_or(Unusable::NoRule)?;
    let shape = &route.shape;
    let mut found = Vec::new();
    for (path, backends) in lists(route) {
        let place = |name: &str| backends.iter().position(|backend| is_service(pass, backend, shape, name));
        let (Some(one), Some(other)) = (place(stable), place(candidate)) else { continue };
        let weight = |backend: &Value| at(backend, &shape.weight).and_then(Value::as_i64).unwrap_or(shape.unset);
        let third = |(place, backend): &(usize, &Value)| *place != one && *place != other && weight(backend) > 0;
        if let Some((_, backend)) = backends.iter().enumerate().find(third) {
            return Err(Unusable::OtherBackend(path, backend_name(backend, shape)));
        }
        let share = |place: usize| (pointer(&format!("{path}/{place}"), &shape.weight), weight(&backends[place]));
        found.push(Shared { stable: share(one), candidate: share(other) });
    }
    if found.is_empty() { Err(Unusable::NoRule) } else { Ok(found) }
}

/// The lists of backends, each with its JSON pointer.
fn lists(route: &Route) -> Vec<(String, &Vec<Value>)> {
    let mut lists = Vec::new();
    if let Some(way) = route.shape.backends.get(1..) {
        collect(&route.spec, way, "/spec", &mut lists);
    }
    lists
}

fn backend_name(backend: &Value, shape: &Shape) -> String {
    let name = at(backend, &shape.service).and_then(Value::as_str).unwrap_or_default();
    match backend.get("namespace").and_then(Value::as_str) {
        Some(namespace) => format!("{name} of namespace {namespace}"),
        None => name.to_owned(),
    }
}

fn pointer(from: &str, way: &[String]) -> String {
    way.iter().fold(from.to_owned(), |path, key| format!("{path}/{}", escaped(key)))
}

/// The lists of backends at the end of a way, each with its JSON pointer (RFC 6901).
fn collect<'a>(value: &'a Value, way: &[String], path: &str, lists: &mut Vec<(String, &'a Vec<Value>)>) {
    let Some((key, rest)) = way.split_first() else {
        lists.extend(value.as_array().map(|list| (path.to_owned(), list)));
        return;
    };
    if key == "*" {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            collect(item, rest, &format!("{path}/{index}"), lists);
        }
    } else if let Some(inner) = value.get(key) {
        collect(inner, rest, &format!("{path}/{}", escaped(key)), lists);
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn at<'a>(value: &'a Value, way: &[String]) -> Option<&'a Value> {
    way.iter().try_fold(value, |value, key| value.get(key))
}

pub fn services<'a>(pass: &Pass<'a>) -> Option<(&'a str, &'a str)> {
    let traffic = pass.traffic_spec()?;
    Some((&traffic.service, traffic.candidate_service.as_deref()?))
}

/// Whether a backend is this Service of the release's namespace, by its name or its DNS name.
pub fn is_service(pass: &Pass<'_>, backend: &Value, shape: &Shape, name: &str) -> bool {
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or_default();
    let text = |key: &str| backend.get(key).and_then(Value::as_str);
    let own = at(backend, &shape.service).and_then(Value::as_str);
    let rest = own.and_then(|own| own.strip_prefix(name));
    let is_named = rest.is_some_and(|rest| rest.is_empty() || (!shape.is_judged && is_domain(rest, namespace)));
    // A route's backend without a namespace is one of the route's own.
    is_named
        && text("namespace").is_none_or(|other| other == namespace)
        && text("kind").is_none_or(|kind| kind == "Service")
        && text("group").is_none_or(str::is_empty)
}

/// Whether what follows a Service's name is `.NAMESPACE`, or that and `.svc` with a cluster's domain or without.
fn is_domain(rest: &str, namespace: &str) -> bool {
    let after = rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(namespace));
    after.is_some_and(|after| after.is_empty() || after == ".svc" || after.starts_with(".svc."))
}

/// Percent of the requests that the route sends to candidateService; none if rules differ, or there is no
/// route.
pub fn weight(pass: &Pass<'_>) -> Option<i32> {
    let route = pass.seen.route.as_ref()?;
    if let Some(way) = &route.shape.share {
        let (_, percent) = share(pass, route, way).ok()?;
        return i32::try_from(percent).ok().filter(|percent| (0..=100).contains(percent));
    }
    let rules = shared(pass, route).ok()?;
    let percent = |rule: &Shared| match rule.stable.1 + rule.candidate.1 {
        0 => None,
        // Weights that do not add up to whole percents are not the operator's.
        all if (rule.candidate.1 * 100) % all != 0 => None,
        all => i32::try_from(rule.candidate.1 * 100 / all).ok(),
    };
    let first = percent(rules.first()?)?;
    rules.iter().all(|rule| percent(rule) == Some(first)).then_some(first)
}

/// What keeps requests from going by the route.
pub fn refused(pass: &Pass<'_>) -> Option<Refusal> {
    parents::refusal(pass, pass.seen.route.as_ref()?)
}

/// The same, but for what takes only a moment after each change.
pub fn refused_for_good(pass: &Pass<'_>) -> Option<Refusal> {
    parents::lasting_refusal(pass, pass.seen.route.as_ref()?)
}

/// Whether no request can come by the route that there is.
pub fn is_cut_off(pass: &Pass<'_>) -> bool {
    router(pass).is_some() && pass.seen.route.as_ref().is_some_and(|route| !parents::reach(pass, route))
}

/// Records the route as it is now, and who else writes to it.
pub fn observe(pass: &mut Pass<'_>) {
    let (Some(route), Some(router)) = (&pass.seen.route, router(pass)) else {
        pass.status.route = None;
        return;
    };
    let known = pass.status.route.clone().unwrap_or_default();
    let weight = weight(pass);
    let same = known.name == route.object.name && known.generation == route.generation && known.weight == weight;
    let accepted_at = parents::accept(pass, route).then(|| known.accepted_at.filter(|_| same).unwrap_or(pass.now));
    let seen = rules::seen(pass, route);
    // Rules of the user's that lead to the candidate's Service alone are there to stay.
    let probes = router.gateway.is_some() && (seen.headers.is_some() || seen.copies.is_some());
    let leads = weight.filter(|_| !probes).unwrap_or(100);
    // Until the gateway had its time it may go by any weight that there was meanwhile.
    let possible = leads.max(known.possible_weight).max(known.served_weight);
    let open = weight != Some(known.served_weight) || possible != leads;
    let settled = open && accepted_at.is_some_and(|at| pass.elapsed(at, router.propagation_delay));
    let kind = Some(&route.shape.kind).filter(|kind| *kind != "HTTPRoute").cloned();
    let mut now = RouteStatus {
        kind,
        header_route: seen.headers,
        mirror_percent: seen.copies,
        maintenance: seen.maintenance,
        name: route.object.name.clone(),
        generation: route.generation,
        weight,
        accepted_at,
        served_weight: weight.filter(|_| settled).unwrap_or(known.served_weight),
        possible_weight: if settled { leads } else { possible },
        ..known.clone()
    };
    contest::judge(pass, route, &known, &mut now);
    pass.status.route = Some(now);
}

/// Whether another weight stands in the route than in the last pass, or it has been accepted since.
pub fn moved(pass: &Pass<'_>) -> bool {
    let state = |route: &RouteStatus| {
        (route.weight, route.header_route.clone(), route.mirror_percent, route.maintenance, route.accepted_at.is_some())
    };
    let before = pass.release.status.as_ref().and_then(|status| status.route.as_ref()).map(state);
    before.is_some() && pass.status.route.as_ref().map(state) != before
}

/// A Gateway whose class says that it cannot copy requests as steps of the release want it, and the name of
/// the feature (Gateway API, SupportedFeatures). One that cannot may answer every request with an error.
pub fn without_copies<'a>(pass: &Pass<'a>) -> Option<(&'a super::ParentGateway, &'static str)> {
    let percent = |step: &Step| match step {
        Step::SetMirrorRoute(percent) if *percent > 0 => Some(*percent),
        _ => None,
    };
    let pinned = pass.status.candidate.is_some();
    let policy = if pinned { pass.policy() } else { Policy::compile(&pass.release.spec, &[], Situation::default()) };
    let least = policy.steps.iter().filter_map(percent).min()?;
    let needed = ["HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror"];
    let needed = &needed[..if least < 100 { 2 } else { 1 }];
    pass.seen.gateways.iter().find_map(|gateway| {
        let features = gateway.features.as_ref()?;
        let missing = needed.iter().find(|feature| !features.iter().any(|known| known == *feature))?;
        Some((gateway, *missing))
    })
}

/// The share of the requests that the candidate is known to get, in percent.
pub fn observed(pass: &Pass<'_>) -> i32 {
    let served = |hash: &str| pass.traffics().selection() == super::Selection::Revision(hash.to_owned());
    let weight = || pass.status.route.as_ref().map_or(0, |route| route.served_weight);
    match pass.candidate_hash() {
        Some(candidate) if served(candidate) => 100,
        Some(candidate) if pass.status.stable.is_some() => part_of(pass, candidate, weight()),
        _ => 0,
    }
}

/// The part of a weight that comes to the candidate's pods: all of it, unless somebody changed what the
/// candidate's Service selects.
fn part_of(pass: &Pass<'_>, candidate: &str, weight: i32) -> i32 {
    let Some(service) = &pass.seen.candidate_service else { return weight };
    match super::selection(service) {
        super::Selection::Revision(other) if other != candidate => 0,
        super::Selection::Revision(_) | super::Selection::Nothing => weight,
        super::Selection::Release | super::Selection::Original => {
            let ready = || service.endpoints.iter().filter(|endpoint| endpoint.ready);
            let own = ready().filter(|endpoint| endpoint.revision.as_deref() == Some(candidate)).count();
            let share = |own: usize, all: usize| i32::try_from(own * 100 / all.max(1)).unwrap_or(0);
            weight * share(own, ready().count()) / 100
        }
    }
}

/// Percent of the requests that the candidate gets at least, whichever of its weights a gateway follows.
pub fn certain(pass: &Pass<'_>) -> i32 {
    let desired = pass.desired_weight();
    let served = pass.status.route.as_ref().map_or(0, |route| route.served_weight);
    match pass.candidate_hash() {
        Some(candidate) if pass.traffics().selection() == super::Selection::Revision(candidate.to_owned()) => 100,
        // A gateway may still follow what somebody else wrote for a moment.
        _ if contest::was_meddled_with(pass) => 0,
        Some(candidate) => part_of(pass, candidate, desired.min(served).min(weight(pass).unwrap_or(0))),
        None => 0,
    }
}

/// The Service of those with a share at this weight whose EndpointSlices show no ready pod.
pub fn without_pods<'a>(pass: &Pass<'a>, weight: i32) -> Option<&'a str> {
    let (stable, candidate) = services(pass)?;
    let empty = |service: &Option<super::Service>| {
        !service.as_ref().is_some_and(|service| service.endpoints.iter().any(|endpoint| endpoint.ready))
    };
    let shares = [(stable, &pass.seen.service, weight < 100), (candidate, &pass.seen.candidate_service, weight > 0)];
    // The first revision serves by service alone, and only in the end.
    let has_two = pass.status.stable.is_some();
    shares.into_iter().find(|(_, service, has_share)| has_two && *has_share && empty(service)).map(|(name, ..)| name)
}

/// Whether requests follow this weight, and what is meant beside it: it is in the route, accepted, and the
/// gateway had its time.
pub fn settled(pass: &mut Pass<'_>, weight: i32) -> bool {
    let Some(router) = router(pass) else { return true };
    let delay = router.propagation_delay;
    if !rules::are_meant(pass, weight) {
        return false;
    }
    let Some(status) = &pass.status.route else { return false };
    let Some(since) = status.accepted_at.filter(|_| status.weight == Some(weight)) else { return false };
    pass.elapsed(since, delay)
}

/// Whether requests may come to the candidate's Service: by the route as it is, or as it was not long ago.
pub fn may_lead(pass: &Pass<'_>) -> bool {
    pass.status.route.as_ref().is_some_and(|route| route.possible_weight > 0)
}

/// Gives the candidate's Service this percentage; makes the release's own route if it is missing, and puts
/// the rest of it right.
pub fn set(pass: &Pass<'_>, weight: i32) -> Option<Effect> {
    let router = router(pass)?;
    if contest::is_on(pass) {
        return None;
    }
    let Some(route) = &pass.seen.route else {
        let spec = rules::spec(pass, router.gateway.as_ref()?, weight)?;
        let name = name(pass)?.to_owned();
        let owned = pass.release.spec.workload_ref.is_none();
        return Some(Effect::CreateRoute(Box::new(NewRoute { protocol: router.protocol(), name, spec, owned })));
    };
    let object = route.object.clone();
    if let Some(gateway) = &router.gateway {
        return own_spec::set(route, rules::spec(pass, gateway, weight)?);
    }
    if let Some(way) = &route.shape.share {
        let (path, now) = share(pass, route, way).ok()?;
        let weights = vec![(path, weight)];
        return (now != i64::from(weight)).then_some(Effect::SetRouteWeights { object, weights });
    }
    let rules = shared(pass, route).ok()?;
    let wanted = |rule: Shared| [(rule.stable, 100 - weight), (rule.candidate, weight)];
    let right = |((_, now), wanted): &((String, i64), i32)| *now == i64::from(*wanted);
    let all: Vec<_> = rules.into_iter().flat_map(wanted).collect();
    if all.iter().all(right) {
        return None;
    }
    let weights = all.into_iter().map(|((path, _), weight)| (path, weight)).collect();
    Some(Effect::SetRouteWeights { object, weights })
}
