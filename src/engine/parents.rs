//! Whether everybody who is to send requests by a route has accepted it as it is: the entry of status.parents that
//! belongs to each of spec.parentRefs, by the controller of that Gateway's class. Entries of others, left over or
//! not, say nothing.

use serde_json::{Value, json};

use crate::api::{ParentRef, status::bounded};

use super::{
    observed::{ParentGateway, Route, RouteParent},
    pass::Pass,
};

/// What keeps requests from going by a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which route or Gateway, who says so, and why.
    pub text: String,
    /// Whether somebody has said no, rather than nothing yet.
    pub definite: bool,
}

/// Whether every parent accepts the route as it is, and a data plane has every Gateway.
pub fn accept(pass: &Pass<'_>, route: &Route) -> bool {
    refusal(pass, route).is_none()
}

/// What keeps requests from going by a route: what somebody says before what nobody has said yet.
pub fn refusal(pass: &Pass<'_>, route: &Route) -> Option<Refusal> {
    if !route.shape.is_judged {
        return None;
    }
    let found = named(route).map(|wanted| match wanted {
        Ok(wanted) => judged(pass, route, &wanted),
        Err(error) => Some(Refusal { text: format!("{}: parentRefs: {error}", name(route)), definite: true }),
    });
    let found: Vec<Option<Refusal>> = found.collect();
    if found.is_empty() {
        return Some(Refusal { text: format!("{} has no parentRefs", name(route)), definite: true });
    }
    let all = || found.iter().flatten();
    all().find(|refusal| refusal.definite).or(all().next()).cloned()
}

/// The same, but for what somebody who had accepted the route only has to look at again.
pub fn lasting_refusal(pass: &Pass<'_>, route: &Route) -> Option<Refusal> {
    let refusal = refusal(pass, route)?;
    let never = || named(route).any(|wanted| !wanted.is_ok_and(|wanted| has_accepted(pass, route, &wanted)));
    (refusal.definite || never()).then_some(refusal)
}

/// Whether anybody sends requests by a route, as it is or as it was before the last change.
pub fn reach(pass: &Pass<'_>, route: &Route) -> bool {
    !route.shape.is_judged || named(route).flatten().any(|wanted| has_accepted(pass, route, &wanted))
}

/// The parents of the release's own route. Those that have accepted it before stay beside those that are wanted until all of
/// these accept it: with a mistake in them nobody would send requests any more.
pub fn own(pass: &Pass<'_>, wanted: &[ParentRef]) -> Vec<Value> {
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or_default();
    let mut all: Vec<Value> = wanted.iter().map(|wanted| json!(wanted)).collect();
    let Some(route) = pass.seen.route.as_ref().filter(|route| route.ours) else { return all };
    if wanted.iter().any(|wanted| judged(pass, route, wanted).is_some()) {
        let of_before = |parent: &&Value| {
            let parent = serde_json::from_value::<ParentRef>((*parent).clone());
            parent.is_ok_and(|parent| {
                wanted.iter().all(|wanted| may_stand_beside(wanted, &parent, namespace))
                    && has_accepted(pass, route, &parent)
            })
        };
        all.extend(references(route).iter().filter(of_before).cloned());
        all.truncate(MOST);
    }
    all
}

/// How many parents a route may have.
const MOST: usize = 32;

/// Whether a route may have both: of one Gateway only different listeners, each by its name (validations of Gateway API).
fn may_stand_beside(one: &ParentRef, other: &ParentRef, namespace: &str) -> bool {
    let (group, kind, place, name, listener, _) = whole(one, namespace);
    let (group2, kind2, place2, name2, listener2, _) = whole(other, namespace);
    let named = listener.is_some() && listener2.is_some();
    (group, kind, place, name) != (group2, kind2, place2, name2) || (named && listener != listener2)
}

fn references(route: &Route) -> &[Value] {
    route.spec.get("parentRefs").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn named(route: &Route) -> impl Iterator<Item = serde_json::Result<ParentRef>> {
    references(route).iter().map(|parent| serde_json::from_value(parent.clone()))
}

/// Whether a parent has accepted a route, at whatever generation.
fn has_accepted(pass: &Pass<'_>, route: &Route, wanted: &ParentRef) -> bool {
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or_default();
    let of_wanted = |reference: &ParentRef| whole(reference, namespace) == whole(wanted, namespace);
    let is_gone = pass.seen.gateways.iter().any(|gateway| gateway.missing && of_wanted(&gateway.reference));
    !is_gone && route.parents.iter().any(|entry| entry.accepted && of_wanted(&entry.reference))
}

fn name(route: &Route) -> String {
    format!("{} {}", route.shape.kind, route.object.name)
}

fn judged(pass: &Pass<'_>, route: &Route, wanted: &ParentRef) -> Option<Refusal> {
    let namespace = pass.release.metadata.namespace.as_deref().unwrap_or_default();
    let of_wanted = |reference: &ParentRef| whole(reference, namespace) == whole(wanted, namespace);
    let (_, kind, place, parent, ..) = whole(wanted, namespace);
    let said = |text: String| Some(Refusal { text, definite: true });
    let gateway = pass.seen.gateways.iter().find(|gateway| of_wanted(&gateway.reference));
    match gateway {
        Some(ParentGateway { missing: true, .. }) => {
            return said(format!("{}: there is no Gateway {parent} in namespace {place}", name(route)));
        }
        Some(ParentGateway { unprogrammed: Some(why), .. }) => {
            return said(format!("Gateway {parent} is not programmed: {}", bounded(why, 200)));
        }
        _ => {}
    }
    let controller = gateway.and_then(|gateway| gateway.controller.as_ref());
    let meant =
        |entry: &&RouteParent| of_wanted(&entry.reference) && controller.is_none_or(|it| *it == entry.controller);
    let current: Vec<_> =
        route.parents.iter().filter(meant).filter(|entry| entry.generation >= route.generation).collect();
    if current.iter().any(|entry| entry.accepted) {
        return None;
    }
    match (current.first(), controller) {
        (Some(entry), _) => said(format!(
            "{} is not accepted for {kind} {parent} by {}: {}",
            name(route),
            entry.controller,
            bounded(&entry.why, 200)
        )),
        (None, Some(controller)) => {
            let text = format!("{}: {controller} has not accepted it for {kind} {parent} yet", name(route));
            Some(Refusal { text, definite: false })
        }
        (None, None) => {
            let text = format!("{}: nobody has accepted it for {kind} {parent} yet", name(route));
            Some(Refusal { text, definite: false })
        }
    }
}

/// Group, kind, namespace, name, listener and port, with the defaults of the API server (Gateway API,
/// ParentReference).
type Whole<'a> = (&'a str, &'a str, &'a str, &'a str, Option<&'a str>, Option<i32>);

fn whole<'a>(reference: &'a ParentRef, namespace: &'a str) -> Whole<'a> {
    let ParentRef { group, kind, namespace: own, name, section_name, port } = reference;
    (
        group.as_deref().unwrap_or("gateway.networking.k8s.io"),
        kind.as_deref().unwrap_or("Gateway"),
        own.as_deref().unwrap_or(namespace),
        name,
        section_name.as_deref(),
        *port,
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::{ObjectVersion, Observed};

    const OURS: &str = "example.com/gateway";

    fn entry(reference: &Value, controller: &str, generation: i64, accepted: bool) -> RouteParent {
        let reference = serde_json::from_value(reference.clone()).unwrap();
        RouteParent { reference, controller: controller.into(), generation, accepted, why: "NoMatch: a text".into() }
    }

    /// What is said of a route at generation 3 with this parent.
    fn refused(wanted: &Value, gateway: Option<ParentGateway>, parents: Vec<RouteParent>) -> Option<(String, bool)> {
        let seen = Observed { gateways: gateway.into_iter().collect(), ..Observed::default() };
        let world = crate::engine::tests::world::World::new(json!({"canary": {}}), 1);
        let pass = Pass::new(&world.release, &seen, world.now);
        let route = Route {
            object: ObjectVersion { name: "shop".into(), ..ObjectVersion::default() },
            generation: 3,
            spec: json!({"parentRefs": [wanted]}),
            parents,
            ..Route::default()
        };
        refusal(&pass, &route).map(|refusal| (refusal.text, refusal.definite))
    }

    fn gateway(reference: &Value) -> ParentGateway {
        let reference = serde_json::from_value(reference.clone()).unwrap();
        ParentGateway { reference, class: "fast".into(), controller: Some(OURS.into()), ..ParentGateway::default() }
    }

    #[rstest]
    #[case::the_same(json!({"name": "edge"}), json!({"name": "edge"}), true)]
    #[case::with_defaults(
        json!({"name": "edge"}),
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default", "name": "edge"}),
        true
    )]
    #[case::of_another_namespace(json!({"name": "edge"}), json!({"name": "edge", "namespace": "other"}), false)]
    #[case::of_another_listener(
        json!({"name": "edge", "sectionName": "web"}),
        json!({"name": "edge", "sectionName": "tls"}),
        false
    )]
    #[case::of_another_port(json!({"name": "edge", "port": 80}), json!({"name": "edge"}), false)]
    #[case::of_another_kind(json!({"name": "edge"}), json!({"name": "edge", "kind": "Service", "group": ""}), false)]
    fn an_entry_counts_for_the_reference_that_it_names(
        #[case] wanted: Value,
        #[case] named: Value,
        #[case] counts: bool,
    ) {
        let said = refused(&wanted, Some(gateway(&wanted)), vec![entry(&named, OURS, 3, true)]);
        assert_eq!(said.is_none(), counts, "{said:?}");
        assert!(said.is_none_or(|(text, definite)| text.contains("has not accepted it") && !definite));
    }

    #[rstest]
    #[case::another_gateway(json!({"name": "edge"}), json!({"name": "other"}), true)]
    #[case::in_another_namespace(json!({"name": "edge"}), json!({"name": "edge", "namespace": "infra"}), true)]
    #[case::another_listener(json!({"name": "edge", "sectionName": "a"}), json!({"name": "edge", "sectionName": "b"}), true)]
    #[case::all_listeners(json!({"name": "edge"}), json!({"name": "edge", "sectionName": "b"}), false)]
    #[case::another_port(json!({"name": "edge", "port": 80}), json!({"name": "edge", "port": 81}), false)]
    #[case::the_same(json!({"name": "edge"}), json!({"name": "edge", "namespace": "default"}), false)]
    fn a_parent_of_before_stays_beside_a_new_one_where_the_api_server_takes_both(
        #[case] wanted: Value,
        #[case] before: Value,
        #[case] stays: bool,
    ) {
        let route = Route {
            ours: true,
            generation: 4,
            spec: json!({"parentRefs": [before]}),
            parents: vec![entry(&before, OURS, 3, true)],
            ..Route::default()
        };
        let seen = Observed { route: Some(route), ..Observed::default() };
        let world = crate::engine::tests::world::World::new(json!({"canary": {}}), 1);
        let pass = Pass::new(&world.release, &seen, world.now);
        let written = own(&pass, &[serde_json::from_value(wanted).unwrap()]);
        assert_eq!(written.len(), if stays { 2 } else { 1 }, "{written:?}");
    }

    #[test]
    fn what_is_left_of_another_controller_or_parent_says_nothing() {
        let wanted = json!({"name": "edge"});
        let good = entry(&wanted, OURS, 3, true);
        let others = [
            entry(&wanted, "example.com/former", 3, false),
            entry(&json!({"name": "gone"}), OURS, 3, false),
            entry(&json!({"name": "gone"}), OURS, 1, true),
        ];
        let all: Vec<_> = others.iter().cloned().chain([good]).collect();
        assert_eq!(refused(&wanted, Some(gateway(&wanted)), all), None);
        let (text, definite) = refused(&wanted, Some(gateway(&wanted)), others.to_vec()).unwrap();
        assert_eq!(
            (text.as_str(), definite),
            ("HTTPRoute shop: example.com/gateway has not accepted it for Gateway edge yet", false)
        );
        // Without the class, whoever accepts it.
        assert_eq!(refused(&wanted, None, vec![others[0].clone(), entry(&wanted, "mesh", 3, true)]), None);
    }

    #[test]
    fn an_entry_for_a_gateway_that_is_gone_does_not_count() {
        let wanted = json!({"name": "edge", "namespace": "infra"});
        let gone = ParentGateway { missing: true, controller: None, ..gateway(&wanted) };
        let (text, definite) = refused(&wanted, Some(gone), vec![entry(&wanted, OURS, 3, true)]).unwrap();
        assert!(definite && text.contains("there is no Gateway edge in namespace infra"), "{text}");
    }

    #[rstest]
    #[case::of_this_generation(3, true)]
    #[case::of_an_earlier_one(2, false)]
    fn who_refuses_is_named_with_the_reason(#[case] generation: i64, #[case] definite: bool) {
        let wanted = json!({"name": "edge"});
        let said = refused(&wanted, Some(gateway(&wanted)), vec![entry(&wanted, OURS, generation, false)]).unwrap();
        assert_eq!(said.1, definite);
        let named = "not accepted for Gateway edge by example.com/gateway: NoMatch: a text";
        assert_eq!(said.0.contains(named), definite, "{}", said.0);
    }
}
