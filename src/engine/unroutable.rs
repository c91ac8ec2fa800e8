//! What keeps a router from being used. Each obstacle names the field or object, and the remedy.

use super::{
    contest,
    invalid::Obstacle,
    pass::Pass,
    route::{self, Unusable},
};

/// The first obstacle, if there is one.
pub fn find(pass: &Pass<'_>) -> Option<Obstacle> {
    route::router(pass)?;
    copies(pass)
        .or_else(|| unknown(pass))
        .or_else(|| missing(pass))
        .or_else(|| taken(pass))
        .or_else(|| contested(pass))
        .or_else(|| backends(pass))
}

fn copies(pass: &Pass<'_>) -> Option<Obstacle> {
    let (gateway, feature) = route::without_copies(pass)?;
    let message = format!(
        "spec.strategy.canary.steps: setMirrorRoute needs {feature}, which Gateway {} (class {}) does not support: it might answer every request with an error",
        gateway.reference.name, gateway.class
    );
    let remedy = "take the step out, or attach the route to a Gateway whose class lists it in status.supportedFeatures; a release under way keeps its plan: abort it first";
    Some(Obstacle::new("MirrorNotSupported", message, remedy))
}

fn unknown(pass: &Pass<'_>) -> Option<Obstacle> {
    let why = pass.seen.router_refused.as_ref()?;
    let remedy =
        "correct spec.traffic.router.custom.name, or ask the platform team for that router (chart value routers)";
    Some(Obstacle::new("RouterUnknown", format!("spec.traffic.router.custom: {why}"), remedy))
}

/// The field of the router that names an object of the user's.
fn field(pass: &Pass<'_>) -> &'static str {
    if route::router(pass).is_some_and(|router| router.custom.is_some()) { "custom" } else { "httpRoute" }
}

fn missing(pass: &Pass<'_>) -> Option<Obstacle> {
    let router = route::router(pass).filter(|_| pass.seen.route.is_none())?;
    let name = router.users_object()?;
    let what = router.custom.as_ref().map_or("HTTPRoute", |custom| custom.name.as_str());
    let message = format!("spec.traffic.router.{}: there is no {what} {name} in this namespace", field(pass));
    let remedy = "create it, with service and candidateService among the backendRefs of a rule, or use router gateway";
    Some(Obstacle::new("RouteNotFound", message, remedy))
}

fn taken(pass: &Pass<'_>) -> Option<Obstacle> {
    let gateway = route::router(pass)?.gateway.as_ref()?;
    let others = |route: &Option<super::Route>| {
        route.as_ref().filter(|route| !route.ours).map(|route| route.object.name.clone())
    };
    if let Some(name) = others(&pass.seen.route) {
        let message = format!("spec.traffic.router.gateway: a route {name} is there already, and not this release's");
        let remedy = "delete it, or name it in spec.traffic.router.httpRoute of another ServiceRelease";
        return Some(Obstacle::new("RouteNameTaken", message, remedy));
    }
    let name = others(&pass.seen.preview).filter(|_| !gateway.preview_hostnames.is_empty())?;
    let message = format!(
        "spec.traffic.router.gateway.previewHostnames: a route {name} is there already, and not this release's"
    );
    Some(Obstacle::new("RouteNameTaken", message, "delete it, or take previewHostnames out"))
}

/// Somebody else who does not leave the weights alone.
pub fn contested(pass: &Pass<'_>) -> Option<Obstacle> {
    let manager = contest::by(pass)?;
    let seen = pass.seen.route.as_ref()?;
    let led = pass.traffic_spec().and_then(|traffic| traffic.candidate_service.as_deref());
    let led = led.filter(|_| contest::misleads(pass));
    let led = led.map(|service| format!("; those to {service} are answered by stable's pods, too")).unwrap_or_default();
    let message = format!(
        "field manager {manager} sets the weights of {} {} back; they are not written again, and requests go by what stands there{}",
        seen.shape.kind, seen.object.name, led
    );
    // Of a route that the operator has made nobody else has a manifest.
    let remedy = match route::router(pass)?.gateway.is_some() {
        true => {
            "find out what writes to it, and let it leave this route alone: the operator has made it, and keeps all of it; then kubectl srel retry, or abort"
        }
        false => {
            "let it leave the weights alone (Argo CD: ignoreDifferences of .spec.rules with RespectIgnoreDifferences; Flux: kustomize.toolkit.fluxcd.io/ssa: IfNotPresent), or use router gateway; then kubectl srel retry, or abort"
        }
    };
    Some(Obstacle::new("RouteContested", message, remedy))
}

fn backends(pass: &Pass<'_>) -> Option<Obstacle> {
    route::router(pass)?.users_object()?;
    let seen = pass.seen.route.as_ref()?;
    let traffic = pass.traffic_spec()?;
    let candidate = traffic.candidate_service.as_deref().unwrap_or_default();
    let (field, object) = (field(pass), format!("{} {}", seen.shape.kind, seen.object.name));
    let message = match route::unusable(pass)? {
        Unusable::NoRule => format!(
            "spec.traffic.router.{field}: no rule of {object} has both Services {} and {candidate} among its backendRefs",
            traffic.service
        ),
        Unusable::OtherBackend(place, other) => {
            format!("spec.traffic.router.{field}: {place} of {object} shares its requests with {other}, too")
        }
    };
    let remedy =
        "a rule needs a backendRef to each of the two, candidateService with weight 0, and no third with a weight";
    Some(Obstacle::new("RouteBackends", message, remedy))
}
