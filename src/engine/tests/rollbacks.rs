//! Releases that go back.

use serde_json::json;

use super::world::World;
use crate::{
    api::{Action, Phase, RollbackCause},
    engine::{Effect, Selection},
};

fn canary() -> serde_json::Value {
    json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}})
}

fn abort(world: &mut World) {
    world.say(Action::Abort, |command| command.reason = Some("looks wrong".into()));
}

/// Waits out what drains.
fn drain(world: &mut World) {
    world.settle();
    world.wait(30);
    world.settle();
}

#[test]
fn a_crash_loop_rolls_back_with_the_kubelets_reason_in_the_status() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("crash");
    world.settle();
    assert_eq!(world.phase(), Phase::Paused);
    world.broken.push("crash".into());
    drain(&mut world);
    let status = world.status();
    assert_eq!(
        (status.phase, status.reason.as_str(), world.stable()),
        (Phase::RolledBack, "CrashLoopBackOff", "v1".into())
    );
    assert!(status.message.contains("exit code 3, restarted 2 times"), "{}", status.message);
    assert_eq!((world.pods("crash"), world.pods("v1")), (0, 4));
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
    assert_eq!((world.condition("Ready"), world.condition("Stalled")), ("False".into(), "True".into()));
    let rollback = status.rollback.unwrap();
    assert_eq!((rollback.from_weight, rollback.drain_until), (50, None), "crashed pods have nothing to drain");
}

#[test]
fn pods_that_never_become_ready_roll_back_at_the_progress_deadline() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("broken");
    world.settle();
    world.wait(599);
    world.settle();
    assert_eq!(world.phase(), Phase::Progressing);
    world.wait(1);
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::RolledBack, "ProgressDeadlineExceeded"));
    assert!(world.status().message.contains("0 of 1 pods available; pod "), "{}", world.status().message);
}

#[test]
fn a_failed_first_revision_is_halted_without_traffic_and_a_new_template_supersedes_it() {
    let mut world = World::new(canary(), 2);
    world.set_image("broken-crash");
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "FirstRevisionFailed"));
    assert_eq!((world.selected(), world.pods("broken-crash")), (Selection::Nothing, 0));
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn an_aborted_candidate_is_never_scaled_up_again() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    abort(&mut world);
    world.settle();
    world.edit(|spec| spec.replicas = Some(10));
    let most = world.pods("v2");
    world.settle_watching(|world| assert!(world.pods("v2") <= most));
    world.wait(30);
    world.settle();
    assert_eq!((world.phase(), world.pods("v2"), world.pods("v1")), (Phase::RolledBack, 0, 10));
    world.edit(|spec| spec.replicas = Some(20));
    world.settle();
    assert_eq!((world.pods("v2"), world.pods("v1")), (0, 20));
}

#[test]
fn stable_is_available_before_the_candidate_loses_the_traffic_also_when_it_was_short_of_pods() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    world.broken.push("v1".into());
    world.pass();
    abort(&mut world);
    world.settle();
    assert_eq!((world.selected(), world.phase()), (Selection::Release, Phase::RollingBack));
    assert!(world.of_image("v2").available >= 2, "the candidate serves on while stable is not warm");
    world.broken.clear();
    drain(&mut world);
    assert_eq!((world.phase(), world.selected()), (Phase::RolledBack, Selection::Revision(world.hash("v1"))));
}

#[test]
fn traffic_goes_back_before_anything_is_cleaned_up() {
    let mut world = World::healthy(json!({"blueGreen": {"autoPromote": false}}), 3);
    world.set_image("v2");
    world.settle();
    world.say(Action::Undo, |_| {});
    world.settle();
    assert_eq!((world.phase(), world.pods("v2")), (Phase::RolledBack, 0), "undo in mid-release is an abort");
}

#[test]
fn a_rollback_without_a_warm_stable_halts_at_the_deadline_and_a_fix_goes_forward() {
    let mut world = World::healthy(canary(), 4);
    world.set_image("v2");
    world.settle();
    world.broken.push("v1".into());
    world.pass();
    abort(&mut world);
    world.settle();
    world.wait(600);
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "StableUnavailable"));
    assert!(!world.status().next_action.is_empty());
    let fixed = json!({"canary": {"steps": [{"setWeight": 50}]}});
    world.edit(|spec| spec.strategy = Some(serde_json::from_value(fixed).unwrap()));
    world.set_image("v3");
    world.settle();
    assert_eq!(
        (world.phase(), world.stable(), world.pods("v1"), world.pods("v2")),
        (Phase::Healthy, "v3".into(), 0, 0)
    );
}

#[test]
fn a_fix_goes_forward_when_stable_itself_is_broken() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}]}}), 4);
    world.broken.push("v1".into());
    world.pass();
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
}

#[test]
fn a_new_template_after_a_failure_releases_forward() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}]}}), 4);
    world.set_image("broken-crash");
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack);
    world.set_image("v3");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v3".into()));
}

#[test]
fn a_failed_plan_stays_down_through_resyncs_scaling_and_other_edits_until_retry() {
    let mut world = World::healthy(json!({"canary": {}}), 4);
    world.set_image("broken-crash");
    world.settle();
    world.edit(|spec| spec.replicas = Some(5));
    world.edit(|spec| spec.progress_deadline_seconds = 99);
    world.wait(10_000);
    world.settle_watching(|world| assert_eq!((world.phase(), world.pods("broken-crash")), (Phase::RolledBack, 0)));
    let revision = world.hash("broken-crash");
    world.say(Action::Retry, |command| command.revision = Some(revision));
    world.settle();
    assert_eq!((world.status().release.unwrap().number, world.phase()), (3, Phase::RolledBack));
    world.edit(|spec| spec.retry_token = "again".into());
    world.settle();
    assert_eq!(world.status().release.unwrap().number, 4);
}

#[test]
fn a_failed_template_may_be_released_again_after_another_was_seen() {
    let mut world = World::healthy(json!({"canary": {}}), 4);
    world.broken.push("v2-crash".into());
    world.set_image("v2-crash");
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack);
    world.broken.clear();
    world.set_image("v1");
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy);
    world.set_image("v2-crash");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2-crash".into()));
    assert!(world.status().failed_revisions.is_empty());
}

#[test]
fn without_automatic_rollback_a_failure_holds_at_its_step_and_names_the_ways_out() {
    let mut world = World::healthy(canary(), 4);
    world.edit(|spec| spec.rollback.automatic = false);
    world.set_image("broken-crash");
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Paused, "CrashLoopBackOff"));
    for word in ["retry", "skip", "promote", "abort"] {
        assert!(world.status().next_action.contains(word));
    }
    abort(&mut world);
    world.settle();
    assert_eq!(world.phase(), Phase::RolledBack);
}

#[test]
fn a_person_can_pass_over_what_the_pods_say_but_not_over_warmth() {
    let mut world = World::healthy(canary(), 4);
    world.edit(|spec| spec.rollback.automatic = false);
    world.set_image("v2-crash");
    world.settle();
    world.broken.push("v2-crash".into());
    world.settle();
    assert_eq!(world.status().reason, "CrashLoopBackOff");
    let revision = world.candidate();
    world.say(Action::Skip, |command| command.revision = revision);
    world.settle();
    assert!(world.answer().starts_with("Applied"), "{}", world.answer());
    assert_eq!((world.phase(), world.status().step.unwrap().index), (Phase::Paused, 4), "held at the next step");
    assert!(world.pods("v1") >= 2 && world.stable() == "v1");
}

/// The first thing that an undo of v2 does is to give v1 the requests.
fn undone_at_once(world: &mut World) {
    world.say(Action::Undo, |_| {});
    let decision = world.pass();
    let back = Selection::Revision(world.hash("v1"));
    assert!(
        matches!(&decision.after[..], [Effect::Select { selection, .. }, ..] if *selection == back),
        "{decision:?}"
    );
    drain(world);
    assert_eq!((world.phase(), world.stable(), world.pods("v2")), (Phase::RolledBack, "v1".into(), 0));
}

#[test]
fn keep_previous_makes_undo_instant() {
    let mut world = World::healthy(json!({"blueGreen": {}}), 3);
    world.edit(|spec| spec.rollback.keep_previous = Some("30m".parse().unwrap()));
    world.set_image("v2");
    world.settle();
    world.wait(1000);
    world.settle();
    assert_eq!(world.pods("v1"), 3);
    undone_at_once(&mut world);
    assert_eq!(world.status().rollback.unwrap().cause, RollbackCause::Undone);
}

#[test]
fn keep_previous_makes_undo_instant_after_a_canary_by_pods_too() {
    let mut world = World::healthy(json!({"canary": {"steps": [{"setWeight": 50}]}}), 4);
    world.edit(|spec| spec.rollback.keep_previous = Some("30m".parse().unwrap()));
    world.set_image("v2");
    world.settle_watching(|world| {
        let pods: i32 = world.seen.revisions.iter().map(|revision| revision.pods_total).sum();
        assert!(pods <= 5 || world.stable() == "v2", "maxSurge bounds the way to the promotion: {pods}");
    });
    world.wait(1000);
    world.settle();
    assert_eq!((world.stable(), world.pods("v1"), world.pods("v2")), ("v2".into(), 4, 4));
    assert_eq!(world.selected(), Selection::Revision(world.hash("v2")), "what is kept gets no request");
    undone_at_once(&mut world);
}

#[test]
fn a_new_release_ends_what_is_kept_before_requests_could_come_to_it() {
    let mut world = World::healthy(json!({"canary": {"maxSurge": "300%", "steps": [{"setWeight": 50}]}}), 4);
    world.edit(|spec| spec.rollback.keep_previous = Some("30m".parse().unwrap()));
    world.set_image("v2");
    world.settle();
    assert_eq!(world.pods("v1"), 4);
    world.set_image("v3");
    world.settle_watching(|world| {
        let strange = world.selected() == Selection::Release && world.pods("v1") > 0 && world.pods("v3") > 0;
        assert!(!strange, "requests are shared with what is kept");
    });
    assert_eq!((world.stable(), world.pods("v1"), world.pods("v2")), ("v3".into(), 0, 4));
    world.wait(1800);
    world.settle();
    assert_eq!((world.pods("v2"), world.status().draining.len()), (0, 0));
}

#[test]
fn without_traffic_nothing_is_kept_that_would_work_beside_the_others() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.edit(|spec| {
        spec.traffic = None;
        spec.rollback.keep_previous = Some("30m".parse().unwrap());
    });
    world.set_image("v2");
    world.settle();
    assert_eq!((world.stable(), world.pods("v1")), ("v2".into(), 0));
}

#[test]
fn undo_goes_to_the_previous_good_revision_and_latches_the_undone_one() {
    let mut world = World::healthy(json!({"canary": {}}), 4);
    world.set_image("v2");
    world.settle();
    world.say(Action::Undo, |_| {});
    world.settle_watching(|world| {
        let available: i32 = world.seen.revisions.iter().map(|revision| revision.available).sum();
        assert!(available >= 4);
    });
    drain(&mut world);
    assert_eq!((world.phase(), world.stable(), world.pods("v1")), (Phase::RolledBack, "v1".into(), 4));
    assert_eq!((world.status().reason, world.condition("Stalled")), ("Undone".into(), "True".into()));
    world.wait(10_000);
    world.settle();
    assert_eq!(world.stable(), "v1");
    world.say(Action::Undo, |_| {});
    world.settle();
    assert!(world.answer().starts_with("Rejected"), "the undone revision is not gone back to: {}", world.answer());
}

#[test]
fn undo_can_name_an_earlier_revision() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    for image in ["v2", "v3"] {
        world.set_image(image);
        world.settle();
    }
    let first = world.hash("v1");
    world.say(Action::Undo, |command| command.to_revision = Some(first));
    drain(&mut world);
    assert_eq!((world.phase(), world.stable()), (Phase::RolledBack, "v1".into()));
}

#[test]
fn stables_replica_set_deleted_by_hand_is_made_again() {
    let mut world = World::healthy(json!({"canary": {}}), 2);
    world.set_image("broken-crash");
    world.settle();
    world.seen.revisions.retain(|seen| seen.replicas == 0);
    world.settle();
    assert_eq!((world.pods("v1"), world.phase()), (2, Phase::RolledBack));
}
