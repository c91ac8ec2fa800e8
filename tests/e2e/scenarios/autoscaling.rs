//! A real HorizontalPodAutoscaler targets the ServiceRelease, also while a release is on its way.

use servicerelease::api::{Phase, ServiceRelease};

use crate::{
    harness::{Scenario, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    autoscaled_by_cpu, Together, MetricsServer;
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
