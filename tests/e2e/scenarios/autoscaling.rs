//! A real HorizontalPodAutoscaler targets the ServiceRelease, also while a release is on its way.

use servicerelease::api::{Phase, RevisionStatus, ServiceRelease};

use crate::{
    harness::{Scenario, Shop, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    autoscaled_by_cpu, Together, MetricsServer;
    autoscaled_over_a_gateway, Together, Gateway;
};

const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: servicerelease.io/v1alpha1, kind: ServiceRelease, name: shop}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: AverageValue, averageValue: 2m}}
";

async fn autoscaled_by_cpu(world: World) {
    let shop = world.shop("{replicas: 1, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}").await;
    let load = world.load().await;
    world.apply(AUTOSCALER).await;
    shop.reaches("scaled up by the autoscaler", |status| {
        status.stable.as_ref().is_some_and(|stable| stable.available_replicas == 3)
    })
    .await;
    assert_eq!(world.api::<ServiceRelease>().get("shop").await.unwrap().spec.replicas, Some(3));
    shop.always("more pods are no release", |status| {
        status.release.as_ref().is_none_or(|release| release.number == 1) && status.rollback.is_none()
    });

    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    load.more_requests(500).await;
    shop.say("Promote").await;
    let status = shop.healthy().await;
    assert_eq!(status.stable.unwrap().replicas, 3);
    load.assert_no_failed_requests().await;
}

/// Lets an autoscaler bring the release to this number, and waits until both revisions have followed.
pub(super) async fn scale_both(world: &World, shop: &Shop, replicas: i32) {
    let limits = AUTOSCALER.replace("minReplicas: 1", &format!("minReplicas: {replicas}"));
    world.apply(&limits.replace("maxReplicas: 3", &format!("maxReplicas: {replicas}"))).await;
    shop.reaches("both revisions follow the autoscaler", |status| {
        let is = |entry: &Option<RevisionStatus>, pods| entry.as_ref().is_some_and(|it| it.available_replicas == pods);
        is(&status.stable, replicas) && is(&status.candidate, (replicas + 1) / 2)
    })
    .await;
}

async fn autoscaled_over_a_gateway(world: World) {
    let spec = "{replicas: 2, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let load = world.load_through_gateway().await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    scale_both(&world, &shop, 4).await;
    load.assert_exact_share("v2", 50.0).await;
    scale_both(&world, &shop, 2).await;
    load.assert_exact_share("v2", 50.0).await;
    load.assert_no_failed_requests().await;
}
