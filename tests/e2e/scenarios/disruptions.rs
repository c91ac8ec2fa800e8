//! What is not the revision's fault: its pods are evicted, as a drain of their node does it, or
//! somebody lays hands on stable's pods, its ReplicaSet or the Service.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, Service},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use servicerelease::api::{LABEL_RELEASE, LABEL_REVISION, Phase, ServiceReleaseStatus};
use tokio::time::timeout;

use crate::{
    harness::{Load, Scenario, Shop, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    evicted_pods_do_not_fail_a_release, Together, Any;
    stable_pod_deleted, Together, Any;
    stable_replica_set_deleted, Together, Any;
    selector_changed_by_somebody, Together, Any;
};

async fn evicted_pods_do_not_fail_a_release(world: World) {
    let shop = world.shop("{replicas: 4, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}").await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let status = shop.step("3/4 pause", Phase::Paused).await;
    let candidate = status.candidate.unwrap().revision;

    let own = ListParams::default().labels(&format!("{LABEL_REVISION}={candidate}"));
    let pods = world.api::<Pod>().list(&own).await.unwrap();
    assert_eq!(pods.items.len(), 2);
    // One after the other, as a disruption budget would have it.
    for pod in pods {
        world.api::<Pod>().evict(&pod.name_any(), &EvictParams::default()).await.unwrap();
        let available = |status: &servicerelease::api::ServiceReleaseStatus| {
            status.candidate.as_ref().map(|candidate| candidate.available_replicas)
        };
        shop.reaches("one pod less", |status| available(status) == Some(1)).await;
        shop.reaches("as many pods as before", |status| available(status) == Some(2)).await;
    }
    shop.always("on its way forward", |status| status.rollback.is_none());
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_no_failed_requests().await;
}

/// A canary of two pods beside two of stable, waiting for a person, under load.
async fn half_way(world: &World) -> (Shop, Load, ServiceReleaseStatus) {
    let shop = world.shop("{replicas: 4, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}").await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    let status = shop.step("3/4 pause", Phase::Paused).await;
    (shop, load, status)
}

async fn goes_on_to_the_end(shop: &Shop, load: &Load) {
    shop.always("on its way forward", |status| status.rollback.is_none());
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

fn available(status: &ServiceReleaseStatus) -> i32 {
    status.stable.as_ref().map_or(0, |stable| stable.available_replicas)
}

async fn stable_pod_deleted(world: World) {
    let (shop, load, status) = half_way(&world).await;
    let own = ListParams::default().labels(&format!("{LABEL_REVISION}={}", status.stable.unwrap().revision));
    let pods = world.api::<Pod>().list(&own).await.unwrap();
    // Those that made way for the candidate may still be on their way out.
    let pod = pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none()).unwrap();
    world.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    shop.reaches("one pod less", |status| available(status) == 1).await;
    shop.reaches("as many pods as before", |status| available(status) == 2).await;
    load.assert_share("v2", 50.0).await;
    goes_on_to_the_end(&shop, &load).await;
}

/// Its pods go with it; those of the candidate serve until it has new ones.
async fn stable_replica_set_deleted(world: World) {
    let (shop, load, status) = half_way(&world).await;
    let stable = status.stable.unwrap().revision;
    let own = ListParams::default().labels(&format!("{LABEL_REVISION}={stable}"));
    let sets = world.api::<ReplicaSet>().list(&own).await.unwrap();
    let [set] = sets.items.as_slice() else { panic!("one ReplicaSet of {stable}, not {sets:?}") };
    world.api::<ReplicaSet>().delete(&set.name_any(), &DeleteParams::background()).await.unwrap();
    shop.reaches("no pod of stable", |status| available(status) == 0).await;
    shop.reaches("as many pods as before", |status| available(status) == 2).await;
    let made = world.api::<ReplicaSet>().get(&set.name_any()).await.unwrap();
    assert_ne!(made.uid(), set.uid(), "another object");
    let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone());
    assert_eq!(template(&made), template(set), "of the same template");
    load.assert_share("v2", 50.0).await;

    // Taken back onto the pods that were made again.
    shop.say("Abort").await;
    let status = shop.phase(Phase::RolledBack).await;
    assert_eq!(status.stable.unwrap().revision, stable);
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn selector_changed_by_somebody(world: World) {
    let (shop, load, status) = half_way(&world).await;
    let api = world.api::<Service>();
    let selector = |service: &Service| service.spec.as_ref().and_then(|spec| spec.selector.clone());
    let meant = selector(&api.get("shop").await.unwrap()).unwrap();
    assert!(meant.contains_key(LABEL_RELEASE) && !meant.contains_key(LABEL_REVISION), "{meant:?}");
    // Onto stable alone, and onto whatever has the application's label.
    for change in [json!({ LABEL_REVISION: status.stable.unwrap().revision }), json!({ LABEL_RELEASE: null })] {
        let patch = Patch::Merge(json!({ "spec": { "selector": change } }));
        let changed = api.patch("shop", &PatchParams::default(), &patch).await.unwrap();
        assert_ne!(selector(&changed).unwrap(), meant);
        let back = |service: Option<&Service>| service.and_then(selector).as_ref() == Some(&meant);
        let waiting = timeout(Duration::from_secs(30), await_condition(api.clone(), "shop", back)).await;
        waiting.expect("the selector is put back").expect("a watch of the Service");
        load.assert_share("v2", 50.0).await;
    }
    goes_on_to_the_end(&shop, &load).await;
}
