//! A Deployment that serves is adopted and given back, both without a lost request; in between the
//! commands that people know, `kubectl set env`, `set image` and `rollout undo`, start releases. What
//! somebody else has a hand on (an autoscaler, a Service's selector, the Deployment's replicas) is told
//! and left alone.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, Service},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy},
};
use servicerelease::api::{LABEL_RELEASE, Phase};

use crate::{
    harness::{Load, Scenario, Shop, World, kubectl},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    releases_by_kubectl, Together, Any;
    given_back_in_background, Together, Any;
    given_back_in_foreground, Together, Any;
    given_back_as_orphan, Together, Any;
    given_back_in_the_middle, Together, Any;
    scaled_up_by_somebody, Together, Any;
    autoscaler_of_the_deployment, Together, Any;
    service_of_another_manager, Together, Any;
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

/// A Deployment of three pods behind a Service, under load.
async fn deployment_that_serves(world: &World) -> Load {
    if world.api::<Service>().get_opt("shop").await.unwrap().is_none() {
        world.create(SERVICE).await;
    }
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

    has_everything_back(&world, &load, "v1").await;
}

/// The Deployment's own pods serve, and nothing of ours is left.
async fn has_everything_back(world: &World, load: &Load, version: &str) {
    let deployment = world.api::<Deployment>().get("shop").await.unwrap();
    assert!(deployment.finalizers().is_empty(), "{:?}", deployment.finalizers());
    assert_eq!(deployment.spec.unwrap().replicas, Some(3), "as many as before");
    assert_eq!(deployment.status.unwrap().available_replicas, Some(3), "its own pods serve again");
    let service = world.api::<Service>().get("shop").await.unwrap();
    let selector = service.spec.as_ref().unwrap().selector.clone().unwrap();
    assert_eq!(selector, [("app".to_owned(), "shop".to_owned())].into(), "as the user wrote it");
    assert!(service.annotations().is_empty(), "{:?}", service.annotations());
    assert!(service.finalizers().is_empty(), "{:?}", service.finalizers());
    assert_eq!(own_sets(world).await, [""; 0], "no ReplicaSet of the release");
    load.assert_share(version, 100.0).await;
    load.assert_no_failed_requests().await;
}

/// ReplicaSets that the operator made and nobody is deleting.
async fn own_sets(world: &World) -> Vec<String> {
    let own = ListParams::default().labels(LABEL_RELEASE);
    let left = world.api::<ReplicaSet>().list(&own).await.unwrap();
    left.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).map(|set| set.name_any()).collect()
}

async fn given_back_in_the_middle(world: World) {
    let (shop, load) = adopted(&world).await;
    shop.patch("{spec: {strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}}").await;
    change(&world, &shop, "set env deployment/shop APP_VERSION=v2").await;
    shop.step("3/4 pause", Phase::Paused).await;
    load.assert_share("v2", 66.0).await;
    shop.delete(DeleteParams::background()).await;
    has_everything_back(&world, &load, "v2").await;
}

async fn scaled_up_by_somebody(world: World) {
    let (shop, load) = adopted(&world).await;
    change(&world, &shop, "scale deployment/shop --replicas=2").await;
    let status = shop.reaches("told of", |status| status.reason == "WorkloadContested").await;
    assert_eq!(status.phase, Phase::Healthy);
    assert!(status.next_action.contains("scale deployment shop --replicas=0"), "{}", status.next_action);
    world.kubectl("rollout status deployment/shop --timeout=60s").await.expect_success();
    load.more_requests(300).await;
    let theirs = ListParams::default().labels(&format!("app=shop,!{LABEL_RELEASE}"));
    let theirs = world.api::<Pod>().list(&theirs).await.unwrap();
    let theirs: Vec<_> = theirs.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    assert_eq!(theirs.len(), 2);
    let endpoints = world.witness.tell();
    for pod in theirs {
        assert!(!endpoints.contains(&format!("shop: {} ready", pod.name_any())), "they get no traffic:\n{endpoints}");
    }

    change(&world, &shop, "scale deployment/shop --replicas=0").await;
    shop.reaches("nothing to tell", |status| status.phase == Phase::Healthy && status.reason.is_empty()).await;
    load.assert_no_failed_requests().await;
}

const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 3
  maxReplicas: 6
  metrics: [{type: Resource, resource: {name: cpu, target: {type: AverageValue, averageValue: 1}}}]
";

async fn autoscaler_of_the_deployment(world: World) {
    let load = deployment_that_serves(&world).await;
    world.apply(AUTOSCALER).await;
    world.apply(RELEASE).await;
    let shop = Shop::watch(&world, "shop").await;
    let status = shop.phase(Phase::Invalid).await;
    assert_eq!(status.reason, "AutoscalerTargetsDeployment");
    assert!(status.message.contains("HorizontalPodAutoscaler shop"), "{}", status.message);
    assert!(status.next_action.contains("kind: ServiceRelease, name: shop"), "{}", status.next_action);
    load.more_requests(100).await;
    assert_eq!(own_sets(&world).await, [""; 0], "nothing was begun");

    // The remedy, word by word.
    let target = "apiVersion: apps/v1, kind: Deployment";
    world.apply(&AUTOSCALER.replace(target, "apiVersion: servicerelease.io/v1alpha1, kind: ServiceRelease")).await;
    shop.healthy().await;
    load.assert_no_failed_requests().await;
}

async fn service_of_another_manager(world: World) {
    let service = crate::harness::yaml(SERVICE);
    let apply = Patch::Apply(&service);
    world.api::<Service>().patch("shop", &PatchParams::apply("argocd-controller"), &apply).await.unwrap();
    let load = deployment_that_serves(&world).await;
    let before = world.api::<Service>().get("shop").await.unwrap();
    let deployment = world.api::<Deployment>().get("shop").await.unwrap();

    world.apply(RELEASE).await;
    let shop = Shop::watch(&world, "shop").await;
    let status = shop.phase(Phase::Invalid).await;
    assert_eq!(status.reason, "ServiceContested");
    assert!(status.message.contains("argocd-controller"), "{}", status.message);
    load.more_requests(200).await;
    let after = world.api::<Service>().get("shop").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version(), "nothing was written");
    let held = world.api::<Deployment>().get("shop").await.unwrap();
    assert_eq!(held.metadata.generation, deployment.metadata.generation, "nor held at 0");
    assert_eq!(own_sets(&world).await, [""; 0], "nothing was begun");

    // The remedy, word by word: share the selector, then take it out of what the other applies.
    let words = status.next_action.strip_prefix("keep the selector: ").and_then(|rest| rest.split("; ").next());
    kubectl::run("sh", &["-c", words.unwrap()]).await.expect_success();
    let mut without = service;
    without["spec"].as_object_mut().unwrap().remove("selector");
    let apply = Patch::Apply(&without);
    world.api::<Service>().patch("shop", &PatchParams::apply("argocd-controller"), &apply).await.unwrap();
    shop.healthy().await;
    load.assert_share("v1", 100.0).await;
    load.assert_no_failed_requests().await;
}
