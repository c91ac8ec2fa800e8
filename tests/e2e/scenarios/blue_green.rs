//! Blue-green: all pods of the new colour stand beside the old ones, can be looked at through the
//! preview Service, and take all traffic at once, by themselves or when a person says so. Undo is as
//! quick while the old pods are kept warm, and goes back further when told to which revision.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Event, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{ResourceExt as _, api::ListParams, runtime::wait::await_condition};
use servicerelease::api::{LABEL_REVISION, Phase, ServiceReleaseStatus};
use tokio::time::timeout;

use crate::{
    harness::{Load, Scenario, World, note},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    switch_by_itself, Together, Any;
    switch_by_hand_and_undo, Together, Any;
    aborted_before_the_switch, Together, Any;
    undone_to_a_revision, Together, Any;
};

/// The version that answers behind a Service.
async fn version_behind(world: &World, service: &str) -> String {
    let path = format!("/api/v1/namespaces/{}/services/{service}:http/proxy/", world.namespace);
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let answer: serde_json::Value = world.cluster.client.request(request).await.unwrap();
    answer["version"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a Service has no endpoint.
async fn reaches_nobody(world: &World, service: &str) {
    let own = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    for slice in world.api::<EndpointSlice>().list(&own).await.unwrap() {
        let empty = |slice: Option<&EndpointSlice>| slice.is_none_or(|slice| slice.endpoints.is_empty());
        let name = slice.name_any();
        let emptied = timeout(Duration::from_secs(30), await_condition(world.api(), &name, empty));
        emptied.await.unwrap_or_else(|_| panic!("{service} still has endpoints")).unwrap();
    }
}

async fn pods(world: &World, revision: &str) -> Vec<Pod> {
    let own = ListParams::default().labels(&format!("{LABEL_REVISION}={revision}"));
    world.api::<Pod>().list(&own).await.unwrap().items
}

async fn names(world: &World, revision: &str) -> BTreeSet<String> {
    pods(world, revision).await.iter().map(|pod| pod.name_any()).collect()
}

/// The second in which a pod became ready.
fn ready_since(pod: &Pod) -> Timestamp {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).unwrap();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.and_then(|condition| condition.last_transition_time.as_ref()).unwrap().0
}

async fn only_v1_answered(load: &Load) {
    let report = load.report().await;
    assert_eq!(report.by_version.keys().collect::<Vec<_>>(), ["v1"], "v2 had traffic");
}

/// When the last release was promoted, in whole seconds since 1970.
fn promoted_at(status: &ServiceReleaseStatus) -> i64 {
    let promoted = status.timeline.iter().rev().find(|entry| entry.kind == "Promoted").unwrap();
    promoted.at.as_millis() / 1000
}

async fn switch_by_itself(world: World) {
    const AVAILABLE_AFTER: i64 = 3;
    const DRAINED_AFTER: i64 = 5;
    let shop =
        world.shop("{replicas: 3, minReadySeconds: 3, traffic: {scaleDownDelay: 5s}, strategy: {blueGreen: {}}}").await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let status = shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    let stable = status.stable.as_ref().unwrap().revision.clone();
    let last = pods(&world, &stable).await.iter().map(ready_since).max().unwrap();
    let first = load.first_answer_of("v2").await.unwrap();
    assert!(
        first.as_second() >= last.as_second() + AVAILABLE_AFTER,
        "v2 answered at {first}, before its last pod, ready at {last}, was available"
    );
    reaches_nobody(&world, "shop-preview").await;

    let drained = shop
        .reaches("v1's pods gone after scaleDownDelay", |status| {
            status.draining.is_empty() && status.previous.as_ref().is_some_and(|previous| previous.replicas == 0)
        })
        .await;
    assert_eq!(shop.sizes().await, [(stable, 3)]);
    let deletions = ListParams::default().fields("reason=SuccessfulDelete");
    let deletions = world.api::<Event>().list(&deletions).await.unwrap();
    assert!(!deletions.items.is_empty(), "the ReplicaSet controller tells of pods that it deletes");
    for deletion in deletions {
        let at = deletion.first_timestamp.unwrap().0.as_second();
        let stayed = at - promoted_at(&drained);
        assert!(stayed >= DRAINED_AFTER, "v1's pods went {stayed} s after the switch");
    }
    load.assert_no_failed_requests().await;
}

async fn switch_by_hand_and_undo(world: World) {
    let shop = world.shop("{strategy: {blueGreen: {autoPromote: false}}, rollback: {keepPrevious: 5m}}").await;
    let load = world.load().await;
    let first = shop.status().await.stable.unwrap().revision;
    let warm = names(&world, &first).await;

    shop.release("v2", &[]).await;
    let waiting = shop.step("2/3 pause", Phase::Paused).await;
    assert!(waiting.next_action.contains("kubectl srel") && waiting.next_action.contains("promote"), "{waiting:?}");
    assert_eq!(waiting.candidate.unwrap().available_replicas, 2, "all pods of the new colour");
    assert_eq!(version_behind(&world, "shop-preview").await, "v2");
    load.assert_share("v1", 100.0).await;
    only_v1_answered(&load).await;

    shop.say("Promote").await;
    let status = shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    reaches_nobody(&world, "shop-preview").await;
    assert_eq!(shop.sizes().await.len(), 2, "the previous pods are kept warm");
    assert_eq!(status.previous.unwrap().revision, first);

    let asked = Instant::now();
    shop.say("Undo").await;
    shop.reaches("the traffic back on v1", |status| {
        status.phase == Phase::RollingBack && status.weights.unwrap_or_default().observed.stable == 100
    })
    .await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "no pod had to start, and yet it took {took:?}");
    note(format!("undone in {:.1} s", took.as_secs_f64()));
    let status = shop.phase(Phase::RolledBack).await;
    assert_eq!(status.reason, "Undone");
    assert_eq!(status.stable.unwrap().revision, first);
    assert!(status.failed_revisions.last().unwrap().latched, "the undone revision does not come back by itself");
    assert_eq!(names(&world, &first).await, warm, "the very pods that served before");
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn aborted_before_the_switch(world: World) {
    let shop = world.shop("{strategy: {blueGreen: {autoPromote: false}}}").await;
    let load = world.load().await;
    let first = shop.status().await.stable.unwrap().revision;
    shop.release("v2", &[]).await;
    shop.step("2/3 pause", Phase::Paused).await;
    assert_eq!(version_behind(&world, "shop-preview").await, "v2");

    shop.say("Abort").await;
    let status = shop.phase(Phase::RolledBack).await;
    assert_eq!((status.reason.as_str(), status.stable.unwrap().revision), ("Aborted", first.clone()));
    assert_eq!(shop.sizes().await, [(first, 2)], "only stable has pods");
    reaches_nobody(&world, "shop-preview").await;
    only_v1_answered(&load).await;
    load.assert_no_failed_requests().await;
}

async fn undone_to_a_revision(world: World) {
    let shop = world.shop("{strategy: {blueGreen: {}}}").await;
    let load = world.load().await;
    let first = shop.status().await.stable.unwrap().revision;
    for version in ["v2", "v3"] {
        shop.release(version, &[]).await;
        shop.healthy().await;
    }
    let only_stable = |status: &ServiceReleaseStatus| status.draining.is_empty() && status.replicas == 2;
    shop.reaches("no pod of v1 and v2 kept", only_stable).await;

    assert!(shop.refused("Undo", "{toRevision: none-such}").await.contains(&first), "which ones there are");
    let answer = shop.command("Undo", &format!("{{toRevision: {first}}}")).await;
    assert!(answer.message.contains(&first), "{answer:?}");
    let status = shop.phase(Phase::RolledBack).await;
    assert_eq!((status.reason.as_str(), status.stable.unwrap().revision), ("Undone", first.clone()));
    assert_eq!(shop.sizes().await, [(first, 2)], "only v1 has pods");
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}
