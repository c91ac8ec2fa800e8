//! The cache as a whole: what wakes whom, what is kept, what is waited for.

mod jobs;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::controller::observe;

fn slim<T: Cached>(body: Value) -> Slim<T> {
    serde_json::from_value(body).unwrap()
}

fn key(name: &str) -> Key {
    Key::new("ns", name)
}

fn keys(names: &[&str]) -> BTreeSet<Key> {
    names.iter().map(|name| key(name)).collect()
}

fn meta(name: &str, version: u64, more: Value) -> Value {
    let mut meta = json!({
        "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
        "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}],
    });
    meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    meta
}

fn release(name: &str, version: u64, spec: Value) -> Value {
    json!({"metadata": meta(name, version, json!({})), "spec": spec})
}

fn inline(name: &str, service: &str) -> Value {
    json!({"selector": {"matchLabels": {"app": name}}, "traffic": {"service": service},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {}}})
}

fn labelled(release: &str) -> Value {
    json!({"labels": {"servicerelease.io/release": release, "servicerelease.io/revision": "abc"}})
}

fn replica_set(name: &str, release: &str, version: u64, ready: i32) -> Value {
    json!({"metadata": meta(name, version, labelled(release)),
        "spec": {"replicas": 1, "template": {"spec": {}}}, "status": {"readyReplicas": ready}})
}

fn plan(number: i64) -> Value {
    let mut body = json!({"metadata": meta(&format!("shop-plan-{number}"), 100, labelled("shop")),
        "revision": number, "data": {"number": number}});
    body["metadata"]["ownerReferences"] = json!([{"apiVersion": "servicerelease.io/v1alpha1",
        "kind": "ServiceRelease", "uid": "uid-shop", "controller": true}]);
    body
}

fn world() -> World {
    World::new(&[None])
}

fn put<T: Shelved>(world: &mut World, body: Value) -> BTreeSet<Key> {
    world.apply::<T>(&None, Event::Apply(slim(body)))
}

fn list<T: Shelved>(world: &mut World, bodies: Vec<Value>) -> BTreeSet<Key> {
    let mut woken = world.apply::<T>(&None, Event::Init);
    for body in bodies {
        woken.extend(world.apply::<T>(&None, Event::InitApply(slim(body))));
    }
    woken.extend(world.apply::<T>(&None, Event::InitDone));
    woken
}

#[test]
fn what_belongs_to_a_release_wakes_it() {
    let mut world = world();
    assert_eq!(put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 1, 0)), keys(&["shop"]));
    let command = json!({"metadata": meta("stop", 2, json!({})), "spec": {"release": "shop", "action": "Abort"}});
    assert_eq!(put::<CachedCommand>(&mut world, command), keys(&["shop"]));
}

#[test]
fn a_new_version_with_nothing_new_wakes_nobody_and_is_kept() {
    let mut world = world();
    put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 1, 0));
    assert!(put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 2, 0)).is_empty());
    assert_eq!(&*world.replica_sets.get(&key("shop-abc")).unwrap().meta().version, "2");
    assert_eq!(put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 3, 1)), keys(&["shop"]));
}

#[test]
fn a_label_that_moves_wakes_both() {
    let mut world = world();
    put::<ReplicaSet>(&mut world, replica_set("x", "one", 1, 0));
    assert_eq!(put::<ReplicaSet>(&mut world, replica_set("x", "two", 2, 0)), keys(&["one", "two"]));
    assert_eq!(world.replica_sets.of(&key("one")).count(), 0);
    assert_eq!(world.replica_sets.of(&key("two")).count(), 1);
}

#[test]
fn services_slices_deployments_and_autoscalers_wake_who_claims_them() {
    let mut world = world();
    put::<CachedRelease>(&mut world, release("shop", 1, inline("shop", "web")));
    put::<CachedRelease>(&mut world, release("old", 2, json!({"workloadRef": {"name": "legacy"}})));
    let service = json!({"metadata": meta("web", 3, json!({})), "spec": {"selector": {"app": "shop"}}});
    assert_eq!(put::<CachedService>(&mut world, service), keys(&["shop"]));
    let labels = json!({"labels": {
        "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }});
    let slice = json!({"metadata": meta("web-1", 4, labels), "endpoints": []});
    assert_eq!(put::<Slice>(&mut world, slice), keys(&["shop"]));
    let deployment = json!({"metadata": meta("legacy", 5, json!({})), "spec": {"template": {}}});
    assert_eq!(put::<Deployment>(&mut world, deployment), keys(&["old"]));
    let target = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "legacy"}});
    let scaler = json!({"metadata": meta("scaler", 6, json!({})), "spec": target});
    assert_eq!(put::<Autoscaler>(&mut world, scaler), keys(&["old"]));
    let stranger = json!({"metadata": meta("nobodys", 7, json!({})), "spec": {}});
    assert!(put::<CachedService>(&mut world, stranger).is_empty());
}

#[test]
fn rivals_wake_each_other_when_claims_come_and_go_and_not_for_a_status() {
    let mut world = world();
    put::<CachedRelease>(&mut world, release("one", 1, inline("one", "web")));
    let two = release("two", 2, inline("two", "web"));
    assert_eq!(put::<CachedRelease>(&mut world, two.clone()), keys(&["one", "two"]));
    let mut busy = two.clone();
    busy["metadata"]["resourceVersion"] = json!("3");
    busy["status"] = json!({"phase": "Invalid"});
    assert_eq!(put::<CachedRelease>(&mut world, busy.clone()), keys(&["two"]));
    assert_eq!(world.apply::<CachedRelease>(&None, Event::Delete(slim(busy))), keys(&["one", "two"]));
    assert_eq!(world.claimants(&"ns".into(), &Claim::Service("web".into())).count(), 1);
}

#[test]
fn a_list_takes_away_what_is_not_in_it() {
    let mut world = world();
    put::<ReplicaSet>(&mut world, replica_set("gone", "one", 1, 0));
    put::<ReplicaSet>(&mut world, replica_set("stays", "two", 2, 0));
    let listed = vec![replica_set("stays", "two", 2, 0), replica_set("new", "three", 3, 0)];
    assert_eq!(list::<ReplicaSet>(&mut world, listed), keys(&["one", "three"]));
    assert!(world.replica_sets.get(&key("gone")).is_none());
    assert!(world.replica_sets.synced());
}

#[test]
fn a_list_of_one_namespace_leaves_the_others_alone() {
    let scopes: [Scope; 2] = [Some("ns".into()), Some("other".into())];
    let mut world = World::new(&scopes);
    let mut elsewhere = replica_set("x", "shop", 1, 0);
    elsewhere["metadata"]["namespace"] = json!("other");
    world.apply::<ReplicaSet>(&scopes[1], Event::Apply(slim(elsewhere)));
    for event in [Event::Init, Event::InitDone] {
        world.apply::<ReplicaSet>(&scopes[0], event);
    }
    assert_eq!(world.replica_sets.iter().count(), 1);
    assert!(!world.replica_sets.synced(), "the other namespace was not listed yet");
}

#[test]
fn only_the_newest_plans_keep_their_content() {
    let mut world = world();
    for number in [3, 1, 4, 2] {
        put::<CachedPlan>(&mut world, plan(number));
    }
    let mut held: Vec<i64> =
        world.plans.of(&key("shop")).filter(|plan| plan.data.is_some()).map(|plan| plan.number).collect();
    held.sort_unstable();
    assert_eq!(held, [3, 4]);
}

#[test]
fn a_replica_set_of_a_deployment_is_none_of_ours() {
    let mut world = world();
    let mut body = replica_set("x", "shop", 1, 0);
    body["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "uid": "d", "controller": true}]);
    put::<ReplicaSet>(&mut world, body);
    assert_eq!(world.replica_sets.iter().count(), 0);
}

#[test]
fn a_view_is_behind_until_the_written_version_comes() {
    let mut world = world();
    put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 5, 0));
    world.expect(&key("shop"), Wait::written(Kind::ReplicaSet, key("shop-abc"), "uid-shop-abc", "7"));
    assert!(world.behind(&key("shop")).is_some());
    assert!(put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 6, 0)).contains(&key("shop")));
    assert!(world.behind(&key("shop")).is_some());
    put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 7, 0));
    assert!(world.behind(&key("shop")).is_none());
}

#[test]
fn what_was_made_and_taken_away_unseen_is_not_waited_for() {
    let mut world = world();
    world.expect(&key("shop"), Wait::written(Kind::ReplicaSet, key("shop-abc"), "u", "7"));
    assert!(world.behind(&key("shop")).is_some());
    put::<ReplicaSet>(&mut world, replica_set("somebody-elses", "other", 8, 0));
    assert!(world.behind(&key("shop")).is_none(), "the watch has passed version 7");
    world.expect(&key("shop"), Wait::written(Kind::Service, key("web"), "u", "9"));
    assert!(world.behind(&key("shop")).is_some());
    list::<CachedService>(&mut world, Vec::new());
    assert!(world.behind(&key("shop")).is_none(), "a LIST that began later does not have it");
}

#[test]
fn a_deleted_object_is_gone_when_its_end_is_seen() {
    let mut world = world();
    put::<ReplicaSet>(&mut world, replica_set("shop-abc", "shop", 5, 0));
    world.expect(&key("shop"), Wait::gone(Kind::ReplicaSet, key("shop-abc"), "uid-shop-abc"));
    assert!(world.behind(&key("shop")).is_some());
    let mut going = replica_set("shop-abc", "shop", 6, 0);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
    put::<ReplicaSet>(&mut world, going);
    assert!(world.behind(&key("shop")).is_none());
}

#[test]
fn another_manager_that_applied_the_selector_is_named() {
    let service = |operation: &str, manager: &str, fields: Value| {
        let managed = json!({"managedFields": [{"manager": manager, "operation": operation, "fieldsV1": fields}]});
        slim::<CachedService>(json!({"metadata": meta("web", 1, managed), "spec": {}})).entry.unwrap().contested_by
    };
    let selector = json!({"f:spec": {"f:selector": {}, "f:ports": {}}});
    assert_eq!(service("Apply", "argocd", selector.clone()).as_deref(), Some("argocd"));
    assert_eq!(service("Update", "kubectl", selector.clone()), None);
    assert_eq!(service("Apply", crate::controller::FIELD_MANAGER, selector), None);
    assert_eq!(service("Apply", "argocd", json!({"f:spec": {"f:ports": {}}})), None);
}

#[test]
fn who_made_a_service_select_another_revision_is_named() {
    let revision = json!({"f:spec": {"f:selector": {"f:servicerelease.io/revision": {}}}});
    let by = |managers: &[(&str, &str)]| {
        let managed = managers.iter().map(
            |(manager, time)| json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": revision}),
        );
        let meta = meta("web", 1, json!({"managedFields": managed.collect::<Vec<_>>()}));
        slim::<CachedService>(json!({"metadata": meta, "spec": {}})).entry.unwrap().changed_by
    };
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    assert_eq!(by(&[("kubectl-edit", early), ("kubectl-patch", late)]).as_deref(), Some("kubectl-patch"));
    assert_eq!(by(&[("kubectl-edit", late), (crate::controller::FIELD_MANAGER, early)]), None);
    assert_eq!(by(&[]), None);
}

#[test]
fn the_keys_that_the_operator_set_last_are_known() {
    let sets =
        |manager: &str, keys: Value| json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:data": keys}});
    let managed = [
        sets("kubectl", json!({".": {}, "f:a": {}})),
        sets(crate::controller::FIELD_MANAGER, json!({"f:b": {}, "f:c.d": {}})),
    ];
    let meta = meta("web", 1, json!({"labels": {"servicerelease.io/release": "shop"}, "managedFields": managed}));
    let map = slim::<CachedConfigMap>(json!({"metadata": meta, "data": {"a": "", "b": "", "c.d": ""}})).entry.unwrap();
    assert_eq!(map.ours, ["b".to_owned(), "c.d".to_owned()].into());
}

#[test]
fn endpoints_are_told_by_pod_and_each_pod_once() {
    let mut world = world();
    put::<CachedRelease>(&mut world, release("shop", 1, inline("shop", "web")));
    put::<CachedPod>(&mut world, json!({"metadata": meta("pod-1", 2, labelled("shop"))}));
    put::<CachedPod>(&mut world, json!({"metadata": meta("pod-2", 3, labelled("another"))}));
    put::<CachedService>(&mut world, json!({"metadata": meta("web", 4, json!({})), "spec": {}}));
    let endpoint = |pod: &str, ready: Value| json!({"addresses": ["198.18.0.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod}});
    let labels = json!({"labels": {
        "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }});
    for (name, ready) in [("web-v4", json!(true)), ("web-v6", json!(false))] {
        let endpoints = [endpoint("pod-1", ready), endpoint("pod-2", Value::Null)];
        put::<Slice>(&mut world, json!({"metadata": meta(name, 5, labels.clone()), "endpoints": endpoints}));
    }
    let object = world.releases.get(&key("shop")).unwrap().object.clone().unwrap();
    let service = observe::observe(&world, &key("shop"), &object).observed.service.unwrap();
    let told: Vec<_> = service.endpoints.iter().map(|e| (e.pod.as_deref(), e.revision.as_deref(), e.ready)).collect();
    assert_eq!(told, [(Some("pod-1"), Some("abc"), true), (None, None, true)]);
}

#[test]
fn an_object_that_does_not_parse_keeps_its_claims() {
    let mut world = world();
    let mut garbage = release("one", 1, inline("one", "web"));
    garbage["spec"]["replicas"] = json!("many");
    put::<CachedRelease>(&mut world, garbage);
    let two = release("two", 2, inline("two", "web"));
    put::<CachedRelease>(&mut world, two);
    let what = world.releases.get(&key("one")).unwrap().object.clone().unwrap_err();
    assert!(what.message.starts_with("spec.replicas: "), "{}", what.message);
    let object = world.releases.get(&key("two")).unwrap().object.clone().unwrap();
    let rivals = observe::observe(&world, &key("two"), &object).observed.rivals;
    assert_eq!(rivals.len(), 1);
    assert_eq!((rivals[0].name.as_str(), rivals[0].claim.as_str()), ("one", "Service web"));
}

#[rstest::rstest]
#[case::it_never_was_ready("00:00:00", &["00:00:01"], false)]
#[case::the_probe_fails("00:00:09", &["00:00:01"], true)]
#[case::one_of_two_crashed_and_runs_again("00:00:09", &["00:00:01", "00:00:10"], false)]
#[case::one_of_two_crashed("00:00:09", &["00:00:01", ""], false)]
#[case::nothing_is_known_of_its_containers("00:00:09", &[], false)]
fn readiness_is_lost_by_a_probe_alone(#[case] lost: &str, #[case] started: &[&str], #[case] expected: bool) {
    let time = |clock: &str| format!("2026-01-01T{clock}Z");
    let state = |started: &&str| match *started {
        "" => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
        started => json!({"running": {"startedAt": time(started)}}),
    };
    let containers: Vec<Value> = started.iter().map(|it| json!({"name": "app", "state": state(it)})).collect();
    let pod = |kind: &str, status: &str| {
        let condition = json!({"type": kind, "status": status, "lastTransitionTime": time(lost)});
        let body = json!({"metadata": meta("pod-1", 2, labelled("shop")),
            "status": {"conditions": [condition], "containerStatuses": containers}});
        slim::<CachedPod>(body)
    };
    let lost_readiness = |kind, status| pod(kind, status).entry.unwrap().pod.lost_readiness;
    assert_eq!(lost_readiness("ContainersReady", "False"), expected);
    assert!(!lost_readiness("ContainersReady", "True"));
    // A readiness gate, or a node that is not heard of.
    assert!(!lost_readiness("Ready", "False"));
}
