//! Exact weights in objects of kinds that the platform has set up.

use servicerelease::api::Phase;

use crate::{
    harness::{Load, Scenario, Shop, World},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    traefik_service, Together, Gateway;
    http_proxy, Together, Envoy;
    a_router_that_nobody_has_set_up, Together, Any;
};

async fn traefik_service(world: World) {
    let text = include_str!("../../../deploy/examples/traefik-service.yaml");
    let shop = super::gateway::example(&world, text).await;
    let load = world.load_through_gateway().await;
    there_and_back(&shop, &load).await;

    // By the hand of a person, in the middle.
    let patch = r#"[{"op":"replace","path":"/spec/weighted/services/1/weight","value":90}]"#;
    world.kubectl(&format!("patch traefikservice shop-weights --type=json -p {patch}")).await.expect_success();
    world.event("RouteChanged", "TraefikService shop-weights").await;
    shop.reaches("the weights are back", |status| {
        status.route.as_ref().is_some_and(|route| route.put_right == 1 && route.weight == Some(50))
    })
    .await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_exact_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
    assert_eq!(world.kubectl("get traefikservice shop-weights -o jsonpath={..weight}").await.expect_success(), "100 0");
}

async fn http_proxy(world: World) {
    let text = include_str!("../../../deploy/examples/http-proxy.yaml");
    let shop = super::gateway::example(&world, text).await;
    let load = world.load_through("edge-envoy").await;
    there_and_back(&shop, &load).await;
    shop.say("Promote").await;
    shop.healthy().await;
    load.assert_exact_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

/// To 10%, back, and on to 50%.
async fn there_and_back(shop: &Shop, load: &Load) {
    shop.release("v2", &[]).await;
    shop.step("3/6 pause", Phase::Paused).await;
    load.assert_exact_share("v2", 10.0).await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    load.assert_exact_share("v2", 0.0).await;
    shop.say("Retry").await;
    shop.step("3/6 pause", Phase::Paused).await;
    shop.say("Promote").await;
    shop.step("5/6 pause", Phase::Progressing).await;
    load.assert_exact_share("v2", 50.0).await;
}

async fn a_router_that_nobody_has_set_up(world: World) {
    let spec = "{traffic: {router: {custom: {name: mesh, object: shop}}}}";
    let shop = world.starting_shop(spec).await;
    let status = shop.phase(Phase::Invalid).await;
    assert_eq!(status.reason, "RouterUnknown");
    assert!(status.message.contains("spec.traffic.router.custom") && status.message.contains("mesh"), "{status:?}");
    assert!(status.next_action.contains("routers"), "{}", status.next_action);
}
