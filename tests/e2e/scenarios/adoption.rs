//! A Deployment that serves is adopted and given back, both without a lost request; in between the
//! commands that people know, `kubectl set env`, `set image` and `rollout undo`, start releases.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Service,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, PropagationPolicy},
};
use servicerelease::api::Phase;

use crate::{
    harness::{Load, Scenario, Shop, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    releases_by_kubectl, Together, Any;
    given_back_in_background, Together, Any;
    given_back_in_foreground, Together, Any;
    given_back_as_orphan, Together, Any;
};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{name: http, port: 8080}]
";

const RELEASE: &str = "
apiVersion: servicerelease.io/v1alpha1
kind: ServiceRelease
metadata: {name: shop}
spec:
  workloadRef: {name: shop}
  progressDeadlineSeconds: 60
  traffic: {service: shop, scaleDownDelay: 2s}
  strategy: {canary: {steps: [{setWeight: 50}, {pause: {duration: 3s}}]}}
";

/// A Deployment of two pods behind a Service, under load.
async fn deployment_that_serves(world: &World) -> Load {
    world.create(SERVICE).await;
    world.create(include_str!("deployment.yaml")).await;
    world.kubectl("rollout status deployment/shop --timeout=60s").await.expect_success();
    world.load().await
}

async fn adopted(world: &World) -> (Shop, Load) {
    let load = deployment_that_serves(world).await;
    world.apply(RELEASE).await;
    let shop = Shop::watch(world, "shop").await;
    shop.reaches("adopted", |status| {
        status.phase == Phase::Healthy && status.workload.as_ref().is_some_and(|workload| workload.held)
    })
    .await;
    let deployment = world.api::<Deployment>().get("shop").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(0), "the Deployment is held at 0");
    (shop, load)
}

/// Changes the Deployment as a person does; from then on only what follows from it counts.
async fn change(world: &World, shop: &Shop, words: &str) {
    world.kubectl(words).await.expect_success();
    let deployment = world.api::<Deployment>().get("shop").await.unwrap();
    shop.expect_workload_generation(deployment.metadata.generation.unwrap_or_default());
}

async fn releases_by_kubectl(world: World) {
    let (shop, load) = adopted(&world).await;
    load.assert_share("v1", 100.0).await;

    change(&world, &shop, "set env deployment/shop APP_VERSION=v2").await;
    shop.step("3/4 pause", Phase::Progressing).await;
    let status = shop.healthy().await;
    assert_eq!(status.release.unwrap().number, 2);
    load.assert_share("v2", 100.0).await;

    change(&world, &shop, "rollout undo deployment/shop").await;
    shop.step("3/4 pause", Phase::Progressing).await;
    let status = shop.healthy().await;
    assert_eq!(status.release.unwrap().number, 3);
    load.assert_share("v1", 100.0).await;

    change(&world, &shop, "set image deployment/shop app=INVALID/Image").await;
    let status = shop.phase(Phase::RolledBack).await;
    assert_eq!(status.reason, "InvalidImageName");
    change(&world, &shop, "rollout undo deployment/shop").await;
    shop.healthy().await;
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn given_back_in_background(world: World) {
    given_back(world, PropagationPolicy::Background).await;
}

async fn given_back_in_foreground(world: World) {
    given_back(world, PropagationPolicy::Foreground).await;
}

async fn given_back_as_orphan(world: World) {
    given_back(world, PropagationPolicy::Orphan).await;
}

async fn given_back(world: World, policy: PropagationPolicy) {
    let (shop, load) = adopted(&world).await;
    shop.delete(DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }).await;

    let deployment = world.api::<Deployment>().get("shop").await.unwrap();
    assert_eq!(deployment.status.unwrap().available_replicas, Some(2), "its own pods serve again");
    let service = world.api::<Service>().get("shop").await.unwrap();
    let selector = service.spec.as_ref().unwrap().selector.clone().unwrap();
    assert_eq!(selector, [("app".to_owned(), "shop".to_owned())].into(), "as the user wrote it");
    assert!(service.annotations().is_empty(), "{:?}", service.annotations());
    let own = ListParams::default().labels(servicerelease::api::LABEL_RELEASE);
    let left = world.api::<ReplicaSet>().list(&own).await.unwrap();
    let left: Vec<String> =
        left.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).map(|set| set.name_any()).collect();
    assert!(left.is_empty(), "{left:?}");
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}
