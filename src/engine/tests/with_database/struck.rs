//! What strikes from outside while the database is worked on: a clock that is set back, a cache that lags, a Job that somebody
//! deletes, and a pod that is not let in where one before it was.

use crate::api::Timestamp;

use super::*;

fn unread() -> Report {
    Report { unread: true, ..reported(WorkOutcome::NotBegun, "password authentication failed") }
}

fn set_clock_back(world: &mut World) {
    world.now = Timestamp::from_millis(world.now.as_millis() - 7_200_000);
}

/// The pod of the Job that runs is gone without a report.
fn lose(world: &mut World) {
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    let message = "exit code 137".to_owned();
    job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1, message, report: None, image: None });
    world.settle();
}

fn unheard(task: &Task) -> Option<Report> {
    if matches!(task, Task::Migrate(_)) { None } else { well(task) }
}

/// v1 serves, and the Job of v2's migration, or of its seed, runs.
fn at_work(more: &Value, report: fn(&Task) -> Option<Report>) -> World {
    let mut world = healthy(database(&json!({})), &json!({}));
    world.report = report;
    world.edit(|spec| spec.database = serde_json::from_value(database(more)).unwrap());
    change(&mut world, "shop-2");
    world.set_image("v2");
    world.settle();
    world
}

#[test]
fn a_clock_that_is_set_back_holds_up_no_maintenance_mode() {
    let mode = json!({"maintenance": {"configMap":
        {"name": "shop-config", "key": "MAINTENANCE", "propagationDelay": "60s"}}});
    let mut world = healthy(database(&json!({})), &mode);
    world.edit(|spec| spec.database = serde_json::from_value(database(&incompatible(&json!({})))).unwrap());
    change(&mut world, "shop-2");
    world.set_image("v2");
    world.settle();
    assert_eq!(maintenance(&world), "true", "{}", world.status().message);
    set_clock_back(&mut world);
    world.pass();
    world.wait(61);
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}

#[test]
fn a_clock_that_is_set_back_makes_no_clean_up_begin_anew_in_each_pass() {
    let mut world = healthy(database(&json!({"backup": backup(), "rehearsal": {}})), &json!({}));
    world.report = |task| match task {
        Task::Rehearse { .. } | Task::CleanUp { .. } => None,
        _ => well(task),
    };
    change(&mut world, "shop-2");
    world.settle();
    set_clock_back(&mut world);
    world.say(Action::Abort, |_| {});
    world.settle();
    let works = world.status().database.unwrap().work;
    assert!(works.iter().all(|work| work.attempt == 1), "{works:?}");
}

#[test]
fn a_pod_that_is_not_let_in_says_nothing_of_a_seed_that_one_before_it_may_have_begun() {
    let seed = json!({"seed": {"sql": {"configMap": "shop-seed", "set": "seed"}, "approval": "Never"}});
    let of_seed = |task: &Task| match task {
        Task::Migrate(run) if run.set == "seed" => None,
        _ => well(task),
    };
    let mut world = at_work(&seed, of_seed);
    assert_eq!(world.status().reason, "Seeding", "{}", world.status().message);
    lose(&mut world);
    end(&mut world, unread());
    world.settle();
    assert_eq!((world.phase(), world.status().reason.as_str()), (Phase::Halted, "SeedUnknown"));
    let mut first = at_work(&seed, of_seed);
    end(&mut first, unread());
    first.settle();
    assert_eq!((first.phase(), first.status().reason.as_str()), (Phase::RolledBack, "SeedFailed"));
}

#[test]
fn a_pod_that_is_not_let_in_says_nothing_of_one_whose_job_was_deleted() {
    let mut world = at_work(&json!({}), unheard);
    world.pass();
    let name = world.status().database.unwrap().last(DatabaseTask::Migration).unwrap().job.clone();
    world.seen.jobs.retain(|job| job.object.name != name);
    world.settle();
    let work = world.status().database.unwrap().last(DatabaseTask::Migration).unwrap().clone();
    assert_eq!((work.job, work.attempt, work.lost), (name, 2, 1), "it is the same Job, made again");
    end(&mut world, unread());
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::Halted, SchemaState::Unknown), "{}", world.status().message);
}

#[test]
fn what_could_not_be_removed_is_tried_again_in_the_next_release_that_goes_back() {
    let mut world = healthy(database(&json!({"backup": backup(), "rehearsal": {}})), &json!({}));
    world.report = |task| match task {
        Task::Rehearse { .. } | Task::CleanUp { .. } => {
            Some(Report { left: true, ..reported(WorkOutcome::Failed, "no connection") })
        }
        _ => well(task),
    };
    change(&mut world, "shop-2");
    world.settle();
    world.wait(400);
    world.settle();
    assert!(world.status().message.contains("a scratch database may be left"), "{}", world.status().message);
    world.report = bad!(Task::Preflight { .. }, NotBegun);
    change(&mut world, "shop-3");
    world.settle();
    let known = world.status().database.unwrap();
    assert_eq!((world.phase(), known.scratch_since), (Phase::RolledBack, None), "{}", world.status().message);
    assert_eq!(known.outcome(DatabaseTask::CleanUp), Some(WorkOutcome::Done));
}
