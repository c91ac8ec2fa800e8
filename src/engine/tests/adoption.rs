//! A Deployment is adopted, releases through it, and is given back.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff};
use serde_json::json;

use super::world::{World, adopted, template};
use crate::{
    api::{Action, Phase},
    engine::{Effect, Selection, Template},
};

fn settled() -> World {
    let mut world = adopted();
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    world
}

fn set_image(world: &mut World, image: &str) {
    let workload = world.seen.workload.as_mut().unwrap();
    workload.template = Template::new(template(image));
    workload.generation += 1;
}

#[test]
fn adoption_scales_the_deployment_to_zero_only_once_our_pods_have_the_traffic() {
    let mut world = adopted();
    let look = |world: &World| {
        let available = world.status().conditions.into_iter().find(|condition| condition.type_ == "Available");
        assert!(available.is_none_or(|condition| condition.status == "True"), "{:?}", world.status());
        let own = world.seen.workload.as_ref().unwrap().replicas;
        let ready = world.seen.service.as_ref().unwrap().endpoints.len();
        assert!(ready >= 3, "{ready} endpoints");
        assert!(own == 3 || world.selected() == Selection::Revision(world.hash("v1")));
    };
    world.settle_watching(look);
    world.wait(29);
    world.settle_watching(look);
    let own = world.seen.workload.as_ref().unwrap().replicas;
    assert_eq!((own, world.phase()), (3, Phase::Healthy), "connections to its pods have their time to end");
    world.wait(1);
    world.settle_watching(look);
    assert_eq!((world.seen.workload.as_ref().unwrap().replicas, world.pods("v1")), (0, 3));
    assert_eq!((world.phase(), world.status().workload.unwrap().adopted_replicas), (Phase::Healthy, 3));
    assert_eq!(world.seen.service.as_ref().unwrap().original.as_ref().unwrap().len(), 1);
    assert!(matches!(world.log[0], Effect::AddFinalizer), "before anything is borrowed");
}

#[test]
fn an_adoption_that_fails_leaves_the_traffic_with_the_deployments_own_pods() {
    let mut world = adopted();
    world.broken.push("v1".into());
    world.settle();
    world.wait(600);
    world.settle();
    assert_eq!((world.phase(), world.selected()), (Phase::Halted, Selection::Original));
    assert_eq!((world.seen.workload.as_ref().unwrap().replicas, world.pods("v1")), (3, 0));
}

#[test]
fn a_template_that_changes_while_the_deployment_is_taken_over_loses_no_pods() {
    let mut world = adopted();
    for _ in 0..20 {
        if world.seen.service.as_ref().unwrap().original.is_some() {
            set_image(&mut world, "v2");
            break;
        }
        world.pass();
    }
    world.settle_watching(|world| {
        let ready = world.seen.service.as_ref().unwrap().endpoints.len();
        assert!(ready >= 3, "{ready} endpoints");
    });
    assert_eq!((world.phase(), world.pods("v2")), (Phase::Healthy, 3));
}

#[test]
fn kubectl_set_image_on_the_deployment_starts_a_release_and_rollout_undo_ends_it() {
    let mut world = settled();
    set_image(&mut world, "v2");
    world.settle();
    assert_eq!((world.phase(), world.pods("v2")), (Phase::Paused, 2));
    assert_eq!(world.status().workload.unwrap().observed_generation, 2);
    set_image(&mut world, "v1");
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!((world.phase(), world.stable(), world.pods("v1")), (Phase::Healthy, "v1".into(), 3));
}

#[test]
fn a_default_that_the_api_server_adds_on_read_is_the_same_revision() {
    let mut world = settled();
    let defaulted = |template: &Template| {
        let mut value = template.to_value();
        value["spec"]["newDefault"] = json!("x");
        Template::new(value)
    };
    let workload = world.seen.workload.as_mut().unwrap();
    workload.template = defaulted(&workload.template);
    for revision in &mut world.seen.revisions {
        revision.template = defaulted(&revision.template);
    }
    world.settle();
    assert_eq!((world.phase(), world.status().release.unwrap().number), (Phase::Healthy, 1));
}

#[test]
fn a_deployment_that_is_scaled_up_gets_no_traffic_and_the_status_says_so() {
    let mut world = settled();
    world.seen.workload.as_mut().unwrap().replicas = 2;
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Healthy, "WorkloadContested"));
    assert!(world.status().next_action.contains("--replicas=0"));
    assert!(world.seen.service.as_ref().unwrap().endpoints.iter().all(|endpoint| endpoint.revision.is_some()));
}

#[test]
fn an_autoscaler_of_the_deployment_is_refused_with_the_remedy() {
    let mut world = adopted();
    world.seen.autoscalers.push("shop-hpa".into());
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Invalid, "AutoscalerTargetsDeployment"));
    assert!(world.status().next_action.contains("kind: ServiceRelease"));
    assert!(world.seen.revisions.is_empty());
}

#[test]
fn a_service_selector_that_is_applied_by_somebody_else_is_not_touched() {
    let mut world = adopted();
    world.seen.service.as_mut().unwrap().contested_by = Some("argocd-controller".into());
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Invalid, "ServiceContested"));
    assert!(world.status().message.contains("argocd-controller"));
    // Taken out by its only applier the selector would be gone, and the traffic with it.
    let remedy = world.status().next_action;
    let share = remedy.find(r#""selector":{"app":"shop"}"#).unwrap();
    assert!(share < remedy.find("remove spec.selector").unwrap(), "{remedy}");
    assert!(remedy.contains("--field-manager=service-release-operator"), "{remedy}");
    assert!(!world.log.iter().any(|effect| matches!(effect, Effect::Select { .. })));
}

#[test]
fn the_younger_of_two_that_claim_the_same_is_invalid_and_names_the_other() {
    let mut world = adopted();
    let rival = |millis| crate::engine::Rival {
        name: "older".into(),
        created: crate::api::Timestamp::from_millis(millis),
        claim: "Service shop".into(),
    };
    world.seen.rivals.push(rival(1));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "it is the older one itself");
    world.seen.rivals[0] = rival(-1);
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Invalid, "Contested"));
    assert!(world.status().message.contains("older"));
}

#[test]
fn a_missing_deployment_is_invalid_and_changes_nothing_that_runs() {
    let mut world = settled();
    world.seen.workload = None;
    world.settle();
    assert_eq!((world.phase(), world.pods("v1")), (Phase::Invalid, 3));
}

#[test]
fn deletion_hands_the_pods_back_before_ours_go() {
    let mut world = settled();
    world.release.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    world.settle_watching(|world| {
        let ready = world.seen.service.as_ref().unwrap().endpoints.len();
        assert!(ready >= 3, "{ready} endpoints");
    });
    assert_eq!((world.selected(), world.seen.revisions.len()), (Selection::Original, 0));
    assert_eq!(world.seen.workload.as_ref().unwrap().replicas, 3);
    assert_eq!(world.release.metadata.finalizers, None);
    assert!(world.seen.service.as_ref().unwrap().original.is_none());
}

#[test]
fn deletion_with_the_deployment_gone_still_ends() {
    let mut world = settled();
    world.seen.workload = None;
    world.release.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    world.settle();
    assert_eq!((world.release.metadata.finalizers.clone(), world.selected()), (None, Selection::Original));
}

#[test]
fn deletion_in_mid_release_hands_back_too() {
    let mut world = settled();
    set_image(&mut world, "v2");
    world.settle();
    world.say(Action::Pause, |_| {});
    world.release.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    world.settle();
    assert_eq!((world.release.metadata.finalizers.clone(), world.seen.revisions.len()), (None, 0));
}
