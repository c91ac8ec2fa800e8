//! What a release does while it is held, how long it may take, what it is told that no longer counts, and
//! what is refused to it.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rstest::rstest;
use serde_json::json;

use super::world::{World, adopted};
use crate::{
    api::{Action, Duration, Phase, Timestamp},
    engine::{Effect, Ended, Selection, Template, decide},
};

/// A rolling release of v2, four pods, caught when traffic has begun to move.
fn in_motion() -> World {
    let mut world = World::healthy(json!({"canary": {}}), 4);
    world.set_image("v2");
    for _ in 0..30 {
        world.pass();
        if world.selected() == Selection::Release && world.pods("v2") >= 1 {
            return world;
        }
    }
    panic!("traffic does not move: {}", world.status().message);
}

fn by_command(world: &mut World) {
    world.say(Action::Pause, |_| {});
}

fn by_spec(world: &mut World) {
    world.edit(|spec| spec.paused = true);
}

fn by_a_spec_that_is_invalid(world: &mut World) {
    world.edit(|spec| spec.traffic.as_mut().unwrap().candidate_service = Some("shop".into()));
}

#[rstest]
#[case(by_command)]
#[case(by_spec)]
#[case(by_a_spec_that_is_invalid)]
fn nothing_moves_towards_the_candidate_while_the_release_is_held(#[case] hold: fn(&mut World)) {
    let mut world = in_motion();
    hold(&mut world);
    let (candidate, stable) = (world.pods("v2"), world.pods("v1"));
    world.settle();
    assert!(matches!(world.phase(), Phase::Paused | Phase::Invalid), "{:?}", world.phase());
    assert_eq!((world.pods("v2"), world.pods("v1"), world.selected()), (candidate, stable, Selection::Release));
}

#[test]
fn a_failure_that_is_held_takes_no_more_traffic() {
    let mut world = in_motion();
    world.edit(|spec| spec.rollback.automatic = false);
    let number = world.status().release.unwrap().number;
    world.seen.plans.iter_mut().filter(|plan| plan.number == number).for_each(|plan| {
        plan.spec.rollback.automatic = false;
    });
    oom(&mut world, 0);
    let (candidate, stable) = (world.pods("v2"), world.pods("v1"));
    for _ in 0..5 {
        oom(&mut world, 0);
        world.pass();
    }
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Paused, "OOMKilled"));
    assert_eq!((world.pods("v2"), world.pods("v1")), (candidate, stable));
}

#[test]
fn a_paused_switch_does_not_happen() {
    let mut world = World::healthy(json!({"blueGreen": {}}), 3);
    world.broken.push("v2".into());
    world.set_image("v2");
    world.settle();
    world.say(Action::Pause, |_| {});
    world.pass();
    world.broken.clear();
    world.settle();
    assert_eq!((world.phase(), world.selected()), (Phase::Paused, Selection::Revision(world.hash("v1"))));
    world.say(Action::Resume, |_| {});
    world.settle();
    assert_eq!((world.phase(), world.selected()), (Phase::Healthy, Selection::Revision(world.hash("v2"))));
}

/// A container of the candidate's first pod was killed for its memory, so many seconds ago.
fn oom(world: &mut World, seconds: u64) {
    let hash = world.candidate().unwrap();
    let at = world.now.as_millis() - i64::try_from(seconds * 1000).unwrap();
    let ended = Ended {
        reason: "OOMKilled".into(),
        exit_code: 137,
        signal: None,
        at: Some(crate::api::Timestamp::from_millis(at)),
    };
    let revision = world.seen.revisions.iter_mut().find(|revision| revision.hash == hash).unwrap();
    for pod in &mut revision.pods {
        pod.containers[0].ended = Some(ended.clone());
    }
}

#[rstest]
#[case::before_the_release(3600, Phase::Progressing)]
#[case::in_it(0, Phase::RollingBack)]
fn only_what_ended_since_the_release_began_counts(#[case] seconds: u64, #[case] phase: Phase) {
    let mut world = in_motion();
    oom(&mut world, seconds);
    let got = decide(&world.release, &world.seen, world.now).status.phase;
    assert!(got == phase || (phase == Phase::Progressing && got == Phase::Promoting), "{got:?}");
}

#[test]
fn the_deadline_runs_from_the_last_progress() {
    let mut world = World::healthy(json!({"canary": {}}), 4);
    world.set_image("v2");
    // Each pod takes nearly the whole deadline: all of them together several times as long.
    for _ in 0..40 {
        world.pass();
        world.broken.push("v2".into());
        world.pass();
        world.wait(590);
        world.broken.clear();
        world.pass();
        if world.phase() == Phase::Healthy {
            break;
        }
    }
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn a_deadline_that_passed_without_an_operator_is_not_held_against_the_release() {
    let mut world = World::healthy(json!({"canary": {}}), 4);
    world.set_image("v2");
    world.pass();
    assert_eq!(world.pods("v2"), 0, "the process ended before it made pods");
    world.wait(3600);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn a_retry_token_that_comes_on_the_way_back_is_acted_on_at_its_end() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}), 4);
    world.set_image("v2");
    world.settle();
    world.say(Action::Abort, |_| {});
    world.pass();
    assert_eq!(world.phase(), Phase::RollingBack);
    world.edit(|spec| spec.retry_token = "2".into());
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!((world.phase(), world.pods("v2")), (Phase::Paused, 2), "it is released again");
}

#[test]
fn an_undo_to_a_revision_that_does_not_start_can_be_aborted_at_its_deadline() {
    let mut world = World::healthy(json!({"canary": {}}), 4);
    world.set_image("v2");
    world.settle();
    world.broken.push("v1".into());
    world.say(Action::Undo, |_| {});
    world.settle();
    world.say(Action::Abort, |_| {});
    world.settle();
    assert!(world.answer().contains("rolled back already"), "{}", world.answer());
    world.wait(600);
    world.settle();
    assert_eq!(world.phase(), Phase::Halted);
    world.say(Action::Abort, |_| {});
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!((world.phase(), world.stable(), world.pods("v2")), (Phase::Healthy, "v2".into(), 4));
}

#[test]
fn a_moment_without_ready_pods_does_not_cut_off_a_deployment_that_is_adopted() {
    let mut world = adopted();
    world.broken.push("v1".into());
    world.pass();
    world.pass();
    world.seen.service.as_mut().unwrap().endpoints.clear();
    let decision = decide(&world.release, &world.seen, world.now);
    let moves = |effect: &Effect| matches!(effect, Effect::Select { .. });
    assert!(!decision.after.iter().any(moves), "{:?}", decision.after);
}

#[test]
fn deleting_the_release_does_not_bring_back_what_it_took_back() {
    let mut world = adopted();
    world.settle();
    world.wait(30);
    world.settle();
    let set_image = |world: &mut World, image: &str| {
        let workload = world.seen.workload.as_mut().unwrap();
        workload.template = Template::new(super::world::template(image));
        workload.generation += 1;
    };
    set_image(&mut world, "v2");
    world.settle();
    world.say(Action::Abort, |_| {});
    world.settle();
    world.wait(30);
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack);
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    world.settle();
    assert_eq!((world.pods("v1"), world.seen.workload.as_ref().unwrap().replicas), (3, 0));
    assert!(
        world.status().next_action.contains("kubectl -n default rollout undo deployment shop"),
        "{:?}",
        world.status()
    );
    let stalled = world.status().conditions.into_iter().find(|condition| condition.type_ == "Stalled");
    assert_eq!(stalled.map(|condition| condition.status).as_deref(), Some("True"), "only a person ends this");
    set_image(&mut world, "v1");
    world.settle();
    assert_eq!(world.seen.workload.as_ref().unwrap().replicas, 3);
    assert!(world.release.metadata.finalizers.is_none(), "all is given back");
}

#[test]
fn the_younger_of_two_rivals_takes_nothing_with_it() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    let service = world.seen.service.as_mut().unwrap();
    service.owned = false;
    service.original = Some(service.selector.clone());
    let older = crate::api::Timestamp::from_millis(-1);
    world.seen.rivals =
        vec![crate::engine::Rival { name: "other".into(), created: older, claim: "Service shop".into() }];
    world.release.metadata.finalizers = Some(vec![crate::api::FINALIZER.into()]);
    world.release.metadata.deletion_timestamp = world.release.metadata.creation_timestamp.clone();
    let decision = decide(&world.release, &world.seen, world.now);
    assert!(!decision.after.iter().any(|effect| matches!(effect, Effect::Select { .. })), "{:?}", decision.after);
    assert!(decision.after.contains(&Effect::RemoveFinalizer));
}

#[test]
fn a_template_without_a_port_of_the_service_is_invalid_before_anything_starts() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.seen.service.as_mut().unwrap().targets = vec![(80, IntOrString::String("http".into()))];
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Invalid, "ServicePortMissing"));
    assert!(world.status().message.contains("port http"), "{}", world.status().message);
    assert_eq!(world.pods("v1"), 2, "what runs was not changed");
}

#[rstest]
#[case::that_the_operator_made("service", true)]
#[case::of_somebody_else("service", false)]
#[case::of_the_candidate("candidateService", true)]
fn a_service_that_leads_to_another_name_is_an_obstacle_whenever_it_becomes_one(
    #[case] field: &str,
    #[case] owned: bool,
) {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}), 2);
    let service = |world: &mut World, external: bool| {
        let seen = if field == "service" { &mut world.seen.service } else { &mut world.seen.candidate_service };
        let service = seen.as_mut().unwrap();
        (service.external, service.owned) = (external, owned);
    };
    // At rest.
    service(&mut world, true);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "ServiceExternal"), "{}", status.message);
    assert!(status.message.starts_with(&format!("spec.traffic.{field}: Service shop")), "{}", status.message);
    assert!(status.next_action.contains("to ClusterIP"), "{}", status.next_action);
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.pods("v1"), world.seen.revisions.len()), (Phase::Invalid, 2, 1));
    service(&mut world, false);
    world.settle();
    // In the middle.
    let weight = |world: &World| world.status().weights.unwrap().desired.candidate;
    assert_eq!((world.phase(), weight(&world)), (Phase::Paused, 50), "{}", world.status().message);
    service(&mut world, true);
    let revision = world.candidate();
    world.say(Action::Promote, |command| command.revision = revision);
    world.settle();
    assert_eq!((world.phase(), weight(&world), world.stable().as_str()), (Phase::Invalid, 50, "v1"));
    service(&mut world, false);
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn what_keeps_pods_from_being_made_is_told_at_once_and_at_the_deadline() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.broken.push("v2".into());
    world.set_image("v2");
    world.settle();
    let v2 = world.hash("v2");
    let refused = "pods \"shop-x\" is forbidden: exceeded quota: pods=4".to_owned();
    let revision = world.seen.revisions.iter_mut().find(|revision| revision.hash == v2).unwrap();
    (revision.failure, revision.pods) = (Some(refused.clone()), Vec::new());
    let decision = decide(&world.release, &world.seen, world.now);
    assert!(decision.status.message.contains(&refused), "{}", decision.status.message);
    let late = decide(&world.release, &world.seen, world.now.plus(Duration::from_secs(600)));
    assert!(late.status.rollback.unwrap().message.contains(&refused));
}

#[test]
fn a_refusal_of_the_api_server_stands_in_the_status() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.seen.refusal =
        Some(crate::engine::Denial { text: "patch Service default/shop: denied by policy".into(), definite: false });
    let status = decide(&world.release, &world.seen, world.now).status;
    assert!(status.message.ends_with("refused by the API server: patch Service default/shop: denied by policy"));
    assert!(status.next_action.contains("allow it"), "{}", status.next_action);
}

#[test]
fn min_ready_seconds_follow_the_spec_on_what_exists() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.edit(|spec| spec.min_ready_seconds = 5);
    world.settle();
    assert_eq!(world.of_image("v1").min_ready_seconds, 5);
}

#[test]
fn answers_and_deletions_come_after_traffic_and_pods() {
    let mut world = in_motion();
    world.say(Action::Pause, |command| command.step = Some(99));
    let decision = decide(&world.release, &world.seen, world.now);
    let answer = decision.after.iter().position(|effect| matches!(effect, Effect::AnswerCommand { .. })).unwrap();
    let others = decision.after.iter().rposition(|effect| {
        matches!(effect, Effect::ScaleReplicaSet { .. } | Effect::Select { .. } | Effect::ConfirmService { .. })
    });
    assert!(others.is_some_and(|others| others < answer), "{:?}", decision.after);
}

#[rstest]
#[case::tried_again(Action::Retry)]
#[case::passed_over(Action::Skip)]
#[case::promoted(Action::Promote)]
fn what_a_person_passed_over_holds_no_later_step(#[case] action: Action) {
    let steps = json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
    let mut world = World::healthy(json!({"canary": {"steps": steps}}), 4);
    world.edit(|spec| spec.rollback.automatic = false);
    // Killed once, when the release began.
    world.touch = |image, pod| {
        if image == "v2" && pod.name.ends_with("-0") {
            let at = Some(Timestamp::from_millis(1_000_000_000));
            pod.created = at;
            pod.containers[0].restarts = 1;
            pod.containers[0].ended = Some(Ended { reason: "OOMKilled".into(), exit_code: 137, signal: None, at });
        }
    };
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Paused, "OOMKilled"));
    world.wait(10);
    world.say(action, |_| {});
    for _ in 0..2 {
        world.settle();
        assert_eq!(world.status().hold, None, "{}", world.status().message);
        world.say(Action::Promote, |_| {});
    }
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}
