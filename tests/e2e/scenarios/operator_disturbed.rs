//! The installed operator is killed, stopped past its lease and continued, upgraded and uninstalled in
//! the middle of a release. Traffic never depends on it, and whoever leads next goes on.

use servicerelease::api::Phase;

use crate::{
    harness::{Load, Scenario, Shop, World, helm, operator},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    leader_killed, Alone, Embedded;
    leader_stopped_past_its_lease_and_continued, Alone, Embedded;
    upgraded_in_the_middle, Alone, Any;
    uninstalled_and_installed_again, Alone, Any;
};

const CANARY: &str = "{replicas: 4, strategy: {canary: {steps: [{setWeight: 25}, {pause: {}}, {setWeight: 50}]}}}";

/// A canary at 25%, waiting for a person, under load.
async fn in_the_middle(world: &World) -> (Shop, Load) {
    let shop = world.shop(CANARY).await;
    let load = world.load().await;
    shop.release("v2", &[]).await;
    shop.step("3/5 pause", Phase::Paused).await;
    (shop, load)
}

async fn goes_on_to_the_end(shop: &Shop, load: &Load) {
    let status = shop.healthy().await;
    assert_eq!(status.release.unwrap().number, 2);
    load.assert_share("v2", 100.0).await;
    load.assert_no_failed_requests().await;
}

async fn leader_killed(world: World) {
    let (shop, load) = in_the_middle(&world).await;
    let leader = operator::leader(&world.cluster).await;
    operator::signal(&leader, "KILL").await;
    // Nobody leads now; the command is decided by whoever does next.
    shop.say("Promote").await;
    goes_on_to_the_end(&shop, &load).await;
    operator::another_leads(&world.cluster, &leader).await;
}

async fn leader_stopped_past_its_lease_and_continued(world: World) {
    let (shop, load) = in_the_middle(&world).await;
    let stopped = operator::leader(&world.cluster).await;
    operator::signal(&stopped, "STOP").await;
    operator::another_leads(&world.cluster, &stopped).await;
    shop.say("Promote").await;
    shop.step("4/5 setWeight 50", Phase::Progressing).await;
    // It wakes in the middle of a pass, with a cache from before, believing that it leads.
    operator::signal(&stopped, "CONT").await;
    goes_on_to_the_end(&shop, &load).await;
    operator::another_leads(&world.cluster, &stopped).await;
    shop.always("forward only", |status| status.rollback.is_none());
    operator::scale(&world.cluster, 2).await;
}

async fn upgraded_in_the_middle(world: World) {
    let (shop, load) = in_the_middle(&world).await;
    shop.say("Promote").await;
    // Another annotation on the pods is as good as another version: both are replaced.
    let stamp = format!("podAnnotations.upgraded={}", world.namespace);
    helm::run(&["upgrade", "--reuse-values", "--wait", "--set", &stamp]).await;
    goes_on_to_the_end(&shop, &load).await;
}

async fn uninstalled_and_installed_again(world: World) {
    let (shop, load) = in_the_middle(&world).await;
    let before = shop.sizes().await;
    let values = helm::values().await;
    helm::uninstall().await;
    assert_eq!(shop.sizes().await, before, "nobody's pods are touched");
    load.assert_share("v2", 25.0).await;
    assert_eq!(shop.status().await.phase, Phase::Paused, "the objects are still there");

    helm::install(&values).await;
    shop.say("Promote").await;
    goes_on_to_the_end(&shop, &load).await;
}
