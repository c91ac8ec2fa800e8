//! The preview of a release over a Gateway: an HTTPRoute of its own, whose host names lead to candidateService
//! whatever the weights are. Without a candidate it leads to no pod.

use serde_json::json;

use super::{
    effect::{Effect, NewRoute},
    own_spec,
    pass::Pass,
    route, rules,
};

/// The name of the preview's route of a release.
#[must_use]
pub fn name(release: &str) -> String {
    format!("{release}-preview")
}

/// Makes the preview's route, keeps it as the spec says, and takes it away when it is not wanted any more.
pub fn keep(pass: &Pass<'_>) -> Option<Effect> {
    let seen = pass.seen.preview.as_ref();
    let gateway = route::router(pass).and_then(|router| router.gateway.as_ref());
    let Some(gateway) = gateway.filter(|gateway| !gateway.preview_hostnames.is_empty()) else {
        let ours = seen.filter(|seen| seen.ours)?;
        return Some(Effect::DeleteRoute { object: ours.object.clone() });
    };
    let candidate = pass.traffic_spec()?.candidate_service.as_deref()?;
    let port = rules::port(pass, gateway)?;
    let rules = json!([{
        "matches": rules::matches(gateway),
        "backendRefs": [{"name": candidate, "port": port, "weight": 1}],
    }]);
    let spec = json!({"parentRefs": gateway.parent_refs, "hostnames": gateway.preview_hostnames, "rules": rules});
    match seen {
        None => {
            let name = name(pass.release.metadata.name.as_deref()?);
            // It goes with the object, also where pods and weights are handed to a Deployment.
            Some(Effect::CreateRoute(Box::new(NewRoute { protocol: gateway.protocol, name, spec, owned: true })))
        }
        Some(seen) => own_spec::set(seen, spec),
    }
}
