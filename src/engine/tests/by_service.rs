//! What asks the candidate by the Service that leads to it alone waits until that Service leads to it.

use serde_json::json;

use super::world::World;
use crate::{api::Phase, engine::Effect};

const STEPS: &str = r#"{"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}"#;

/// v1 Healthy, with a smoke test by a Job for what comes next.
fn world() -> World {
    let mut world = World::healthy(serde_json::from_str(STEPS).unwrap(), 4);
    let smoke = json!({"name": "smoke", "job": {"template": {"spec": {"containers": [{"name": "k6"}]}}}});
    world.edit(|spec| spec.checks = serde_json::from_value(json!([smoke])).unwrap());
    world.settle();
    world
}

fn jobs(world: &World) -> usize {
    world.log.iter().filter(|effect| matches!(effect, Effect::CreateJob(_))).count()
}

/// Passes in which EndpointSlices are behind the candidate's pods.
fn behind(world: &mut World) {
    for _ in 0..10 {
        world.seen.candidate_service.as_mut().unwrap().endpoints.clear();
        world.pass();
    }
}

#[test]
fn a_job_is_made_two_seconds_after_the_service_leads_to_the_candidate() {
    let mut world = world();
    world.set_image("v2");
    behind(&mut world);
    assert_eq!((world.status().step.unwrap().summary.as_str(), world.pods("v2")), ("1/5 prepare", 1));
    world.wait(60);
    behind(&mut world);
    assert_eq!(jobs(&world), 0);
    for (seconds, made) in [(0, 0), (1, 0), (1, 1), (30, 1)] {
        world.wait(seconds);
        world.settle();
        assert_eq!(jobs(&world), made, "{}", world.status().message);
    }
}

#[test]
fn a_service_that_never_shows_the_candidate_is_named() {
    let mut world = world();
    world.set_image("v2");
    behind(&mut world);
    world.wait(600);
    behind(&mut world);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "ProgressDeadlineExceeded"));
    let told = "1 of 1 pods available; the EndpointSlices of Service shop-candidate do not show them";
    assert!(status.message.contains(told), "{}", status.message);
}
