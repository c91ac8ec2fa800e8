//! An HTTPRoute, the controller that accepts it some time later, and the data plane, which follows some
//! time before or after that, at the latest when the propagation delay that was promised is over.

use serde_json::{Value, json};
use servicerelease::api::ParentRef;
use servicerelease::engine::{NewRoute, ObjectVersion, Route, RouteParent};

use super::cluster::{CANDIDATE_SERVICE, Cluster, Kind, RELEASE, Refusal, SERVICE, check};

/// The route of the user's.
pub const FRONT: &str = "front";
/// The maintenance Service.
pub const PAGE: &str = "page";
/// spec.traffic.router.propagationDelay of every manifest here, in milliseconds.
pub const PROPAGATION: i64 = 5_000;

#[derive(Clone, Debug)]
pub struct RouteObject {
    pub name: String,
    pub uid: String,
    pub version: u64,
    pub generation: i64,
    pub ours: bool,
    pub owner: Option<String>,
    pub spec: Value,
    /// The generation that the controller has looked at, and whether it accepts it.
    pub judged: Option<(i64, bool)>,
    pub changed_by: Option<(String, bool)>,
}

/// What the data plane does.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    /// Percent of the requests that the candidate's Service gets; none if there is no route.
    pub served: Option<i32>,
    /// Whether the controller accepts nothing.
    pub refuses: bool,
    /// The candidate's weight that a GitOps tool applies in the user's route whenever it differs.
    pub healed: Option<i32>,
    /// When the route was accepted as it is.
    accepted: Option<i64>,
}

/// The spec of the user's route: one rule for the two Services, one that is none of the operator's business.
pub fn users_route(candidate: i32) -> Value {
    json!({
        "parentRefs": [{"name": "edge"}],
        "rules": [
            {"backendRefs": [{"name": "legacy", "port": 80, "weight": 3}]},
            {"filters": [{"type": "RequestMirror"}], "backendRefs": [
                {"name": SERVICE, "port": 80, "weight": 100 - candidate},
                {"name": CANDIDATE_SERVICE, "port": 80, "weight": candidate},
            ]},
        ],
    })
}

/// The backends of a rule with this name.
fn backend<'a>(rule: &'a Value, name: &str) -> Option<&'a Value> {
    rule["backendRefs"].as_array().into_iter().flatten().find(|backend| backend["name"] == name)
}

/// Percent of the requests that a route's spec sends to the candidate's Service.
pub fn share(spec: &Value) -> i32 {
    let rules = spec["rules"].as_array().into_iter().flatten();
    let shared = rules.filter(|rule| backend(rule, SERVICE).is_some());
    let weight = shared.filter_map(|rule| backend(rule, CANDIDATE_SERVICE)?["weight"].as_i64()).next();
    weight.and_then(|weight| i32::try_from(weight).ok()).unwrap_or(0)
}

/// Whether a route's spec sends all requests to the maintenance Service.
pub fn is_maintained(spec: &Value) -> bool {
    let first = spec["rules"].as_array().and_then(|rules| rules.first());
    first.is_some_and(|rule| backend(rule, PAGE).is_some() && backend(rule, SERVICE).is_none())
}

/// What a route's spec sends to the candidate's Service beside its share: by a header, as copies.
pub fn probes(spec: &Value) -> (bool, bool) {
    let rules = || spec["rules"].as_array().into_iter().flatten();
    let alone = |rule: &Value| backend(rule, CANDIDATE_SERVICE).is_some() && backend(rule, SERVICE).is_none();
    let copied = |rule: &Value| {
        let filters = rule["filters"].as_array().into_iter().flatten();
        filters.into_iter().any(|filter| filter["requestMirror"]["backendRef"]["name"] == CANDIDATE_SERVICE)
    };
    (rules().any(alone), rules().any(copied))
}

/// The Gateway that all routes are attached to.
pub fn edge() -> ParentRef {
    ParentRef { name: "edge".into(), ..ParentRef::default() }
}

impl RouteObject {
    pub fn seen(&self) -> Route {
        let parent = |(generation, accepted): (i64, bool)| RouteParent {
            reference: edge(),
            controller: "example.com/gateway".into(),
            generation,
            accepted,
            why: if accepted { String::new() } else { "NotAllowedByListeners: no".into() },
        };
        Route {
            object: ObjectVersion {
                name: self.name.clone(),
                uid: self.uid.clone(),
                resource_version: self.version.to_string(),
            },
            generation: self.generation,
            ours: self.ours,
            spec: self.spec.clone(),
            shape: std::sync::Arc::default(),
            share: None,
            parents: self.judged.map(parent).into_iter().collect(),
            changed_by: self.changed_by.clone(),
        }
    }
}

impl Cluster {
    /// A new version of the route, at the version that the writer knows.
    fn route_mut(&mut self, object: Option<&ObjectVersion>) -> Result<&mut RouteObject, Refusal> {
        let next = self.fresh();
        self.touch(Kind::Route);
        let route = self.live.route.as_mut().ok_or(Refusal::NotFound)?;
        let known = object.map(|object| (object.uid.as_str(), object.resource_version.as_str()));
        check(known, &route.uid, route.version)?;
        if object.is_some_and(|object| object.name != route.name) {
            return Err(Refusal::NotFound);
        }
        route.version = next;
        Ok(route)
    }

    pub fn create_route(&mut self, new: &NewRoute) -> Result<(), Refusal> {
        if self.live.route.is_some() {
            return Err(Refusal::AlreadyExists);
        }
        let owner = self.live.release.as_ref().map(|release| release.uid.clone());
        self.put_route(&new.name, new.name == RELEASE, owner.filter(|_| new.owned), new.spec.clone());
        Ok(())
    }

    pub fn put_route(&mut self, name: &str, ours: bool, owner: Option<String>, spec: Value) {
        let version = self.fresh();
        self.live.route = Some(RouteObject {
            name: name.to_owned(),
            uid: format!("route-{version}"),
            version,
            generation: 1,
            ours,
            owner,
            spec,
            judged: None,
            changed_by: None,
        });
        self.gateway.accepted = None;
        self.touch(Kind::Route);
    }

    pub fn replace_route(&mut self, object: &ObjectVersion, spec: &Value) -> Result<(), Refusal> {
        let route = self.route_mut(Some(object))?;
        route.set(|there| {
            for (key, value) in spec.as_object().into_iter().flatten() {
                there[key] = value.clone();
            }
        });
        route.changed_by = None;
        Ok(())
    }

    pub fn set_weights(&mut self, object: &ObjectVersion, weights: &[(String, i32)]) -> Result<(), Refusal> {
        let route = self.route_mut(Some(object))?;
        let mut missing = false;
        route.set(|there| {
            for (pointer, weight) in weights {
                let place = pointer.strip_prefix("/spec").and_then(|pointer| there.pointer_mut(pointer));
                missing |= place.map(|place| *place = json!(weight)).is_none();
            }
        });
        route.changed_by = None;
        if missing { Err(Refusal::Invalid) } else { Ok(()) }
    }

    /// Somebody else sets the weights, once or whenever they apply.
    pub fn meddle_with_route(&mut self, candidate: i32, manager: &str, applies: bool) {
        if let Ok(route) = self.route_mut(None) {
            let others = route.spec["rules"].as_array_mut().into_iter().flatten();
            let backends = others.flat_map(|rule| rule["backendRefs"].as_array_mut().into_iter().flatten());
            let mut changed = false;
            for backend in backends {
                let weight = if backend["name"] == SERVICE { 100 - candidate } else { candidate };
                if (backend["name"] == SERVICE || backend["name"] == CANDIDATE_SERVICE) && backend["weight"] != weight {
                    backend["weight"] = json!(weight);
                    changed = true;
                }
            }
            if changed {
                route.generation += 1;
                route.changed_by = Some((manager.to_owned(), applies));
            }
        }
    }

    /// The controller looks, and the data plane moves, unless they lag behind.
    pub fn route_requests(&mut self, controller_lags: bool, plane_lags: bool) {
        let differs =
            |weight: &i32| self.live.route.as_ref().is_some_and(|route| !route.ours && share(&route.spec) != *weight);
        if let Some(weight) = self.gateway.healed.filter(differs) {
            self.meddle_with_route(weight, "argocd-controller", true);
        }
        let (now, refuses) = (self.now, self.gateway.refuses);
        let whole = [SERVICE, CANDIDATE_SERVICE].iter().all(|name| self.live.services.contains_key(*name));
        let Some(route) = &self.live.route else {
            self.gateway.forget();
            return;
        };
        let verdict = (route.generation, whole && !refuses);
        let (judged, meant) = (route.judged, share(&route.spec));
        if judged != Some(verdict) && !controller_lags {
            let was = judged;
            if let Ok(route) = self.route_mut(None) {
                route.judged = Some(verdict);
            }
            let begins = verdict.1 && was != Some(verdict);
            self.gateway.accepted = verdict.1.then(|| if begins { now } else { self.gateway.accepted.unwrap_or(now) });
        }
        let current = self.live.route.as_ref().is_some_and(|route| route.judged == Some((route.generation, true)));
        // Some changes take longer than others.
        let time = time_of(self.live.route.as_ref());
        let since = self.gateway.accepted.filter(|_| current).map(|at| now - at);
        if since.is_some_and(|since| since >= PROPAGATION || (since >= time && !plane_lags)) {
            self.gateway.served = Some(meant);
        }
    }

    /// When the data plane moves by itself at the latest.
    pub fn next_move_of_gateway(&self) -> Option<i64> {
        let route = self.live.route.as_ref()?;
        let at = self.gateway.accepted?;
        (self.gateway.served != Some(share(&route.spec))).then_some(at + PROPAGATION)
    }

    /// A clock that jumps makes no promise of time come true: so the data plane has moved before.
    pub fn gateway_is_current(&mut self) {
        if let Some(route) = &self.live.route
            && route.judged == Some((route.generation, true))
        {
            self.gateway.served = Some(share(&route.spec));
        }
    }
}

/// How long the data plane takes for a generation of the route.
fn time_of(route: Option<&RouteObject>) -> i64 {
    route.map_or(0, |route| route.generation * 1_700 % PROPAGATION)
}

impl Gateway {
    /// The route is gone.
    pub fn forget(&mut self) {
        (self.served, self.accepted) = (None, None);
    }

    /// What is served, if nothing but a write to the route can change it.
    pub fn settled(&self, cluster: &Cluster) -> Option<i32> {
        let route = cluster.live.route.as_ref().filter(|route| route.judged == Some((route.generation, true)))?;
        let over = self.accepted.is_some_and(|at| cluster.now - at >= PROPAGATION);
        self.served.filter(|served| over && *served == share(&route.spec))
    }
}

impl RouteObject {
    fn set(&mut self, change: impl FnOnce(&mut Value)) {
        let before = self.spec.clone();
        change(&mut self.spec);
        if self.spec != before {
            self.generation += 1;
        }
    }
}
