//! What is not the revision's fault: its pods are evicted, as a drain of their node does it.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{EvictParams, ListParams},
};
use servicerelease::api::{LABEL_REVISION, Phase};

use crate::{
    harness::{Scenario, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    evicted_pods_do_not_fail_a_release, Together, Any;
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
