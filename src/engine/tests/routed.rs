//! Releases whose traffic an HTTPRoute shares.

use rstest::rstest;
use serde_json::{Value, json};

use super::world::{World, template};
use crate::{
    api::{Action, Phase},
    engine::{Effect, Route, Selection},
};

fn spec(strategy: &Value, router: &Value) -> Value {
    json!({
        "replicas": 4,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": template("v1"),
        "traffic": {"service": "shop", "candidateService": "shop-candidate", "router": router},
        "strategy": strategy,
    })
}

pub fn canary(steps: &Value) -> World {
    run(&json!({"canary": {"steps": steps}}), &json!({"gateway": {"parentRefs": [{"name": "edge"}]}}))
}

/// Healthy at v1.
pub fn run(strategy: &Value, router: &Value) -> World {
    let mut world = World::of(spec(strategy, router));
    go(&mut world);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    world
}

/// Passes until all waits for the gateway are over; requests always find pods.
pub fn go(world: &mut World) {
    for _ in 0..30 {
        world.settle_watching(requests_find_pods);
        world.wait(5);
    }
}

pub fn weight(world: &World) -> i64 {
    let route = world.seen.route.as_ref().unwrap();
    let shared = route.spec["rules"].as_array().unwrap().last().unwrap();
    shared.pointer("/backendRefs/1/weight").and_then(Value::as_i64).unwrap()
}

fn rules(world: &World) -> &Value {
    &world.seen.route.as_ref().unwrap().spec["rules"]
}

pub fn step(world: &World) -> String {
    world.status().step.map(|step| step.summary).unwrap_or_default()
}

/// The weight of a Service in the last rule.
pub fn weight_of(route: &Route, service: &str) -> i64 {
    if route.shape.share.is_some() {
        let share = route.share.as_ref().and_then(|share| share.as_str()?.parse().ok()).unwrap_or(0);
        return if service == "shop" { 100 - share } else { share };
    }
    let rules = route.spec["rules"].as_array().unwrap().iter();
    let mut backends = rules.last().unwrap()["backendRefs"].as_array().unwrap().iter();
    let backend = backends.find(|backend| backend["name"] == service);
    backend.and_then(|backend| backend["weight"].as_i64()).unwrap()
}

/// INVARIANTS T1: who has a share has pods for it.
pub fn requests_find_pods(world: &World) {
    let (Some(route), Some(_)) = (&world.seen.route, &world.status().stable) else { return };
    let services = [("shop", &world.seen.service), ("shop-candidate", &world.seen.candidate_service)];
    for (name, service) in services {
        let weight = weight_of(route, name);
        let ready = service.as_ref().unwrap().endpoints.iter().filter(|endpoint| endpoint.ready).count();
        let needed = usize::try_from((weight * 4 + 99) / 100).unwrap();
        assert!(ready >= needed, "{weight}% on {ready} pods: {:?}", world.status().message);
    }
}

#[test]
fn weights_are_exact_and_rise_only_onto_pods_that_take_them() {
    let mut world = canary(&json!([{"setWeight": 1}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]));
    assert_eq!(weight(&world), 0);
    world.set_image("v2");
    go(&mut world);
    assert_eq!((weight(&world), world.pods("v2"), world.pods("v1")), (1, 1, 4));
    assert_eq!(world.status().weights.unwrap().observed.candidate, 1);
    world.say(Action::Promote, |_| {});
    go(&mut world);
    assert_eq!((weight(&world), world.pods("v2"), world.pods("v1")), (60, 3, 4));
    world.say(Action::Promote, |_| {});
    go(&mut world);
    assert_eq!((world.phase(), world.stable(), weight(&world)), (Phase::Healthy, "v2".into(), 0));
    assert_eq!((world.selected(), world.pods("v2"), world.pods("v1")), (Selection::Revision(world.hash("v2")), 4, 0));
}

#[test]
fn a_weight_counts_when_the_gateway_had_its_time() {
    let mut world = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    world.set_image("v2");
    world.settle();
    let step = |world: &World| world.status().step.unwrap().summary;
    assert_eq!(step(&world), "2/4 setWeight 50");
    world.wait(4);
    world.settle();
    assert_eq!(step(&world), "2/4 setWeight 50");
    world.wait(1);
    world.settle();
    assert_eq!(step(&world), "3/4 pause");
}

#[test]
fn an_abort_takes_the_weight_back_before_anything_else() {
    let mut world = canary(&json!([{"setWeight": 50}, {"pause": {}}]));
    world.set_image("v2");
    go(&mut world);
    world.log.clear();
    world.say(Action::Abort, |_| {});
    go(&mut world);
    assert!(matches!(world.log[0], Effect::ReplaceRoute { .. }), "{:?}", world.log[0]);
    assert_eq!((world.phase(), weight(&world), world.pods("v2")), (Phase::RolledBack, 0, 0));
}

#[test]
fn stable_takes_back_only_what_it_has_pods_for() {
    let mut world = canary(&json!([{"setWeight": 75}, {"pause": {}}]));
    world.set_image("v2");
    go(&mut world);
    world.broken.push("v1".into());
    let few = |world: &mut World| {
        let stable = world.hash("v1");
        for revision in world.seen.revisions.iter_mut().filter(|seen| seen.hash == stable) {
            (revision.ready, revision.available) = (2, 2);
        }
        let endpoints = &mut world.seen.service.as_mut().unwrap().endpoints;
        endpoints.clear();
        endpoints.resize(2, crate::engine::Endpoint { pod: None, revision: Some(stable), ready: true });
    };
    few(&mut world);
    world.say(Action::Abort, |_| {});
    world.pass();
    assert_eq!(weight(&world), 50);
    world.broken.clear();
    go(&mut world);
    assert_eq!((world.phase(), weight(&world)), (Phase::RolledBack, 0));
}

#[test]
fn headers_lead_to_the_candidate_at_weight_0_until_a_step_or_the_end() {
    let headers = json!({"headers": [{"name": "x-tester", "value": "yes"}]});
    let mut world = canary(&json!([{"setHeaderRoute": headers}, {"pause": {}}, {"setHeaderRoute": {}}, {"pause": {}}]));
    let plain = rules(&world).clone();
    world.set_image("v2");
    go(&mut world);
    assert_eq!((step(&world), world.pods("v2"), weight(&world)), ("3/6 pause".into(), 4, 0));
    let rule = &rules(&world)[0];
    assert_eq!(rule["backendRefs"], json!([{"name": "shop-candidate", "port": 8080, "weight": 1}]));
    assert_eq!(rule["matches"][0]["headers"], json!([{"name": "x-tester", "value": "yes", "type": "Exact"}]));
    assert_eq!(rules(&world)[1], plain[0], "all other requests go as before");
    assert_eq!(world.status().route.unwrap().header_route.as_deref(), Some("x-tester: yes"));
    world.say(Action::Resume, |_| {});
    go(&mut world);
    assert_eq!((step(&world), rules(&world)), ("5/6 pause".into(), &plain));
}

#[test]
fn an_abort_takes_headers_and_copies_away_and_lets_their_connections_drain() {
    let headers = json!({"headers": [{"name": "x-tester", "value": "yes"}]});
    let mut world = canary(&json!([{"setHeaderRoute": headers}, {"setMirrorRoute": {"percent": 20}}, {"pause": {}}]));
    let plain = rules(&world).clone();
    world.set_image("v2");
    go(&mut world);
    let mirror = json!({"backendRef": {"name": "shop-candidate", "port": 8080}, "percent": 20});
    assert_eq!(rules(&world)[1]["filters"], json!([{"type": "RequestMirror", "requestMirror": mirror}]));
    assert_eq!(world.status().route.unwrap().mirror_percent, Some(20));
    world.say(Action::Abort, |_| {});
    world.settle();
    assert_eq!(rules(&world), &plain);
    assert_eq!((world.phase(), world.pods("v2")), (Phase::RollingBack, 4), "connections drain first");
    go(&mut world);
    assert_eq!((world.phase(), world.pods("v2")), (Phase::RolledBack, 0));
}

#[test]
fn nothing_is_probed_while_the_release_is_held() {
    let headers = json!({"headers": [{"name": "x-tester", "value": "yes"}]});
    let mut world = canary(&json!([{"pause": {}}, {"setHeaderRoute": headers}, {"pause": {}}]));
    let plain = rules(&world).clone();
    world.set_image("v2");
    go(&mut world);
    world.say(Action::Resume, |_| {});
    world.pass();
    assert_eq!(step(&world), "3/5 setHeaderRoute");
    world.write_route(|spec| spec["rules"] = plain.clone());
    world.edit(|spec| spec.paused = true);
    go(&mut world);
    assert_eq!(rules(&world), &plain);
    world.edit(|spec| spec.paused = false);
    go(&mut world);
    assert_eq!(rules(&world).as_array().map(Vec::len), Some(2));
}

#[test]
fn scale_gives_the_candidate_pods_apart_from_its_weight_until_all_traffic_moves() {
    let steps = json!([{"scale": {"replicas": 1}}, {"pause": {}}, {"scale": {"percent": 75}}, {"setWeight": 25},
        {"pause": {}}, {"scale": {}}, {"pause": {}}]);
    let mut world = canary(&steps);
    world.set_image("v2");
    for pods in [1, 3, 1] {
        go(&mut world);
        assert_eq!(world.pods("v2"), pods, "{}", step(&world));
        world.say(Action::Resume, |_| {});
    }
    go(&mut world);
    assert_eq!((world.stable(), world.pods("v2")), ("v2".into(), 4));
}

#[test]
fn stable_shrinks_behind_its_weight_down_to_what_it_is_to_keep() {
    let strategy = json!({"canary": {"dynamicStableScale": {"atLeast": 2},
        "steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 75}, {"pause": {}}]}});
    let mut world = run(&strategy, &json!({"gateway": {"parentRefs": [{"name": "edge"}]}}));
    world.set_image("v2");
    go(&mut world);
    assert_eq!((world.pods("v1"), world.pods("v2"), weight(&world)), (3, 1, 25));
    world.say(Action::Resume, |_| {});
    go(&mut world);
    assert_eq!((world.pods("v1"), world.pods("v2"), weight(&world)), (2, 3, 75));
    world.say(Action::Abort, |_| {});
    world.settle_watching(requests_find_pods);
    go(&mut world);
    assert_eq!((world.phase(), world.pods("v1"), weight(&world)), (Phase::RolledBack, 4, 0));
}

/// Blue-green behind a maintenance page, at v1.
pub fn maintained(auto_promote: bool) -> World {
    let strategy = json!({"blueGreen": {"autoPromote": auto_promote, "maintenance": true}});
    let mut spec = spec(&strategy, &json!({"gateway": {"parentRefs": [{"name": "edge"}]}}));
    spec["traffic"]["maintenance"] = json!({"service": "page"});
    let mut world = World::of(spec);
    go(&mut world);
    assert_eq!((world.phase(), is_maintained(&world)), (Phase::Healthy, false), "{}", world.status().message);
    world
}

pub fn is_maintained(world: &World) -> bool {
    let first = &rules(world)[0];
    first["backendRefs"][0]["name"] == "page" && first["matches"] == rules(world)[1]["matches"]
}

/// INVARIANTS: with maintenance the two versions never serve at the same time. `seen` is what the route gives
/// to whom, outside of maintenance.
pub fn never_both(world: &World) {
    requests_find_pods(world);
    let share = if is_maintained(world) { 0 } else { weight(world) };
    assert!(share == 0, "requests reach the candidate's Service: {share}%, {}", world.status().message);
}

#[test]
fn maintenance_lasts_from_before_the_switch_until_it_is_over() {
    let mut world = maintained(true);
    world.set_image("v2");
    let mut behind = false;
    for _ in 0..30 {
        world.settle_watching(never_both);
        behind |= is_maintained(&world);
        if is_maintained(&world) {
            assert!(world.status().message.contains("maintenance: all requests go to Service page"));
        }
        world.wait(5);
    }
    assert!(behind, "there was a time of maintenance");
    assert_eq!((world.stable(), is_maintained(&world), world.phase()), ("v2".into(), false, Phase::Healthy));
}

#[test]
fn an_abort_behind_maintenance_ends_it_with_all_requests_on_stable() {
    for passes in 1..25 {
        let mut world = maintained(true);
        world.set_image("v2");
        for _ in 0..passes {
            world.settle_watching(never_both);
            world.wait(1);
        }
        world.say(Action::Abort, |_| {});
        for _ in 0..20 {
            world.settle_watching(never_both);
            world.wait(5);
        }
        assert!(!is_maintained(&world), "after {passes} s");
        assert!(matches!(world.phase(), Phase::RolledBack | Phase::Healthy), "{:?} after {passes} s", world.phase());
    }
}

#[test]
fn maintenance_by_hand_goes_on_and_off_whatever_releases_do() {
    let mut world = maintained(false);
    let by_hand = |world: &mut World, active: bool| {
        world.edit(|spec| spec.traffic.as_mut().unwrap().maintenance.as_mut().unwrap().active = active);
        go(world);
    };
    by_hand(&mut world, true);
    assert!(is_maintained(&world));
    world.set_image("v2");
    go(&mut world);
    world.say(Action::Promote, |_| {});
    go(&mut world);
    assert_eq!((world.stable(), is_maintained(&world)), ("v2".into(), true));
    by_hand(&mut world, false);
    assert!(!is_maintained(&world));
}

#[test]
fn a_preview_has_hosts_of_its_own_until_they_are_taken_out() {
    let gateway = json!({"parentRefs": [{"name": "edge"}], "previewHostnames": ["preview.example"]});
    let mut world = run(&json!({"blueGreen": {}}), &json!({"gateway": gateway}));
    let spec = |world: &World| world.seen.preview.as_ref().map(|route| route.spec.clone());
    let rule = spec(&world).unwrap()["rules"][0].clone();
    assert_eq!(rule["backendRefs"], json!([{"name": "shop-candidate", "port": 8080, "weight": 1}]));
    let hosts = |world: &mut World, hosts: &[&str]| {
        world.edit(|spec| {
            let router = spec.traffic.as_mut().unwrap().router.as_mut().unwrap();
            router.gateway.as_mut().unwrap().preview_hostnames = hosts.iter().map(|host| (*host).to_owned()).collect();
        });
        go(world);
    };
    hosts(&mut world, &["next.example"]);
    assert_eq!(spec(&world).unwrap()["hostnames"], json!(["next.example"]));
    hosts(&mut world, &[]);
    assert_eq!(spec(&world), None);
    assert_eq!(world.phase(), Phase::Healthy);
}

#[test]
fn blue_green_over_a_route_switches_at_once_and_undoes_at_once() {
    let strategy = json!({"blueGreen": {"autoPromote": false}});
    let mut world = run(&strategy, &json!({"gateway": {"parentRefs": [{"name": "edge"}]}}));
    world.edit(|spec| spec.rollback.keep_previous = Some(crate::api::Duration::from_secs(3600)));
    world.set_image("v2");
    go(&mut world);
    assert_eq!((weight(&world), world.pods("v2"), world.phase()), (0, 4, Phase::Paused));
    world.say(Action::Promote, |_| {});
    go(&mut world);
    assert_eq!((world.stable(), weight(&world), world.pods("v1")), ("v2".into(), 0, 4));
    world.say(Action::Undo, |_| {});
    world.settle_watching(requests_find_pods);
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
}

pub fn users_route() -> Route {
    let backend =
        |name: &str, weight: i32| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
    let spec = json!({
        "parentRefs": [{"name": "edge"}],
        "rules": [
            {"matches": [{"path": {"value": "/docs"}}], "backendRefs": [backend("docs", 1)]},
            {"filters": [{"type": "X"}], "backendRefs": [backend("shop-candidate", 0), backend("shop", 100)]},
        ],
    });
    Route {
        object: crate::engine::ObjectVersion { name: "edge".into(), ..Default::default() },
        spec,
        ..Route::default()
    }
}

pub fn with_users_route() -> World {
    let strategy = json!({"canary": {"steps": [{"setWeight": 30}, {"pause": {}}]}});
    let mut world = World::of(spec(&strategy, &json!({"httpRoute": {"name": "edge"}})));
    world.seen.route = Some(users_route());
    world.write_route(|_| {});
    go(&mut world);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    world
}

#[test]
fn in_a_route_of_the_users_only_the_two_weights_are_set() {
    let mut world = with_users_route();
    world.set_image("v2");
    world.settle();
    world.wait(5);
    world.settle();
    let mut wanted = users_route().spec;
    wanted["rules"][1]["backendRefs"][0]["weight"] = json!(30);
    wanted["rules"][1]["backendRefs"][1]["weight"] = json!(70);
    assert_eq!(world.seen.route.as_ref().unwrap().spec, wanted);
}

/// An Ingress as NGINX wants it: a second one, for the candidate alone, with its share in an annotation.
fn canary_ingress(backend: &str) -> Route {
    let way = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let shape = crate::engine::Shape {
        kind: "Ingress".into(),
        backends: way("spec rules * http paths"),
        service: way("backend service name"),
        weight: Vec::new(),
        share: Some(way("metadata annotations nginx.ingress.kubernetes.io/canary-weight")),
        unset: 0,
        is_judged: false,
    };
    Route {
        object: crate::engine::ObjectVersion { name: "shop-canary".into(), ..Default::default() },
        spec: json!({"rules": [{"http": {"paths": [{"backend": {"service": {"name": backend}}}]}}]}),
        shape: std::sync::Arc::new(shape),
        ..Route::default()
    }
}

fn with_canary_ingress(backend: &str) -> World {
    let strategy = json!({"canary": {"steps": [{"setWeight": 30}, {"pause": {}}]}});
    let mut world = World::of(spec(&strategy, &json!({"custom": {"name": "nginx", "object": "shop-canary"}})));
    world.seen.route = Some(canary_ingress(backend));
    go(&mut world);
    world
}

#[test]
fn one_share_for_the_whole_object_is_set_and_read_as_the_candidates_weight() {
    let mut world = with_canary_ingress("shop-candidate");
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    world.set_image("v2");
    world.settle();
    let share = |world: &World| world.seen.route.as_ref().unwrap().share.clone();
    assert_eq!(share(&world), Some(json!("30")));
    world.wait(5);
    world.settle();
    assert_eq!(world.status().route.unwrap().served_weight, 30);
    // What is no percentage is put right.
    world.seen.route.as_mut().unwrap().share = Some(json!("many"));
    world.settle();
    assert_eq!(share(&world), Some(json!("30")));
}

#[test]
fn a_share_of_another_service_is_not_touched() {
    let world = with_canary_ingress("shop");
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "RouteBackends"));
    assert!(status.message.contains("/spec/rules/0/http/paths"), "{}", status.message);
    assert_eq!(world.seen.route.as_ref().unwrap().share, None);
}

#[rstest]
#[case::the_candidates(0, "someone-else", true)]
#[case::stables(1, "someone-else", true)]
#[case::in_so_many_words(0, "default", false)]
fn a_service_of_the_same_name_in_another_namespace_is_another_one(
    #[case] place: usize,
    #[case] namespace: &str,
    #[case] refused: bool,
) {
    let strategy = json!({"canary": {"steps": [{"setWeight": 30}, {"pause": {}}]}});
    let mut world = World::of(spec(&strategy, &json!({"httpRoute": {"name": "edge"}})));
    let mut route = users_route();
    route.spec["rules"][1]["backendRefs"][place]["namespace"] = json!(namespace);
    let weights = route.spec.clone();
    world.seen.route = Some(route);
    world.write_route(|_| {});
    for image in ["v1", "v2"] {
        world.set_image(image);
        for _ in 0..30 {
            world.settle();
            world.wait(5);
        }
        assert_eq!(world.status().reason == "RouteBackends", refused, "{}", world.status().message);
    }
    let now = &world.seen.route.as_ref().unwrap().spec;
    assert_eq!(*now == weights, refused, "{now}");
}

#[rstest]
#[case::its_name("shop-candidate", true)]
#[case::with_its_namespace("shop-candidate.default", true)]
#[case::as_a_domain("shop-candidate.default.svc", true)]
#[case::to_the_end("shop-candidate.default.svc.cluster.local", true)]
#[case::of_another_namespace("shop-candidate.other", false)]
#[case::of_another_one_as_a_domain("shop-candidate.other.svc.cluster.local", false)]
#[case::of_a_longer_name("shop-candidate.default-2.svc", false)]
#[case::of_the_internet("shop-candidate.default.example.com", false)]
fn a_custom_router_names_a_service_by_its_dns_name_in_the_own_namespace(#[case] name: &str, #[case] own: bool) {
    let world = with_canary_ingress(name);
    assert_eq!(world.phase() == Phase::Healthy, own, "{}", world.status().message);
    assert!(own || world.status().reason == "RouteBackends");
}

#[test]
fn a_manager_that_applies_the_weights_again_is_named_and_not_fought() {
    let mut world = with_users_route();
    world.set_image("v2");
    world.settle();
    world.wait(5);
    world.settle();
    world.write_route(|spec| *spec = users_route().spec);
    world.seen.route.as_mut().unwrap().changed_by = Some(("argocd".into(), true));
    world.log.clear();
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "RouteContested"));
    assert!(status.message.contains("argocd") && status.next_action.contains("RespectIgnoreDifferences"));
    assert!(!world.log.iter().any(|effect| matches!(effect, Effect::SetRouteWeights { .. })), "{:?}", world.log);
    world.say(Action::Retry, |_| {});
    world.settle();
    world.wait(5);
    world.settle();
    assert_eq!(world.phase(), Phase::Paused, "{}", world.status().message);
}

#[test]
fn weights_that_somebody_updates_are_put_right_with_an_event() {
    let mut world = with_users_route();
    world.set_image("v2");
    world.settle();
    world.wait(5);
    world.settle();
    world.write_route(|spec| spec["rules"][1]["backendRefs"][0]["weight"] = json!(70));
    world.seen.route.as_mut().unwrap().changed_by = Some(("kubectl-edit".into(), false));
    let decision = world.pass();
    assert!(decision.events.iter().any(|event| event.note.contains("kubectl-edit")), "{:?}", decision.events);
    let path = "/rules/1/backendRefs/0/weight";
    assert_eq!(world.seen.route.as_ref().unwrap().spec.pointer(path), Some(&json!(30)));
}

#[test]
fn a_route_of_the_users_that_is_gone_halts_the_release_until_it_is_there_again() {
    let mut world = with_users_route();
    world.set_image("v2");
    world.settle();
    world.seen.route = None;
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "RouteNotFound"));
    world.seen.route = Some(users_route());
    world.write_route(|_| {});
    go(&mut world);
    let path = "/rules/1/backendRefs/0/weight";
    assert_eq!(world.seen.route.as_ref().unwrap().spec.pointer(path), Some(&json!(30)));
    assert_eq!(world.phase(), Phase::Paused, "{}", world.status().message);
}
