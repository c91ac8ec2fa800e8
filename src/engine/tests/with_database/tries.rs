//! Tries of a command of the user's: what a person did not order is not run again, whatever becomes of Jobs and reports.

use crate::engine::Wrapped;

use super::*;

fn pod() -> Value {
    json!({"spec": {"containers": [{"name": "tool", "image": "team/tool:1", "command": ["migrate"]}]}})
}

/// v1 serves, and v2 comes with a migration that is a command of the user's.
fn commanded(more: &Value, report: fn(&Task) -> Option<Report>) -> World {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let mut world = healthy(plain, &json!({}));
    world.report = report;
    let migration = json!({"migration": {"template": pod(), "previousRevisionCompatible": true}});
    let spec = database(&merged(migration, more));
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    world.settle();
    world
}

/// What the runner was told of commands: those that are run, and those whose end is looked for.
fn told(world: &World) -> (Vec<Wrapped>, Vec<Wrapped>) {
    let (mut run, mut looked_for) = (Vec::new(), Vec::new());
    for effect in &world.log {
        let Effect::CreateJob(new) = effect else { continue };
        let Run::Database(job) = &new.run else { continue };
        match &job.task {
            Some(Task::Wrap(wrapped)) => run.push(wrapped.clone()),
            Some(Task::Settle(wrapped)) => looked_for.push(wrapped.clone()),
            _ => {}
        }
    }
    (run, looked_for)
}

/// The pod of the Job that runs is gone before anybody has read its report.
fn lose(world: &mut World) {
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    let message = "its pod is gone".to_owned();
    job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1_000, message, report: None, image: None });
    world.settle();
}

fn silent(task: &Task) -> Option<Report> {
    if matches!(task, Task::Wrap(_)) { None } else { well(task) }
}

#[test]
fn a_job_that_follows_a_lost_one_is_of_the_same_try() {
    let mut world = commanded(&json!({}), silent);
    for _ in 0..3 {
        lose(&mut world);
    }
    let known = world.status().database.unwrap().last(DatabaseTask::Migration).unwrap().clone();
    assert_eq!((known.attempt, known.lost), (4, 3));
    let tries: Vec<i32> = told(&world).0.iter().map(|wrapped| wrapped.attempt).collect();
    assert_eq!(tries, [1, 1, 1, 1], "nobody has said Retry");
}

#[test]
fn a_retry_is_another_try() {
    let down = json!({"onRollback": "MigrateDown", "migrationDown": {"template": pod(), "approval": "Never"}});
    let mut world = commanded(&down, |task| match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "orders is missing")),
        Task::Wrap(wrapped) if wrapped.takes_back() => None,
        _ => well(task),
    });
    lose(&mut world);
    end(&mut world, reported(WorkOutcome::Failed, "exit code 1"));
    assert_eq!(world.status().reason, "MigrationDownFailed", "{}", world.status().message);
    world.wait(1);
    world.say(Action::Retry, |_| {});
    world.settle();
    lose(&mut world);
    let tries: Vec<i32> = told(&world).0.iter().filter(|it| it.takes_back()).map(|it| it.attempt).collect();
    assert_eq!(tries, [1, 1, 3, 3], "the number of a try is that of its first Job");
}

#[test]
fn whoever_looks_for_the_end_of_a_command_asks_about_the_try_that_was_ordered() {
    let mut world = commanded(&json!({}), silent);
    lose(&mut world);
    // Its Job is deleted by hand, and the release is taken back.
    world.seen.jobs.clear();
    world.report = bad!(Task::Settle(_), Failed);
    world.say(Action::Abort, |_| {});
    world.settle();
    let (run, looked_for) = told(&world);
    assert_eq!((looked_for[0].plan.clone(), looked_for[0].attempt), (run[0].plan.clone(), 1));
    assert_eq!(schema(&world), SchemaState::Partial, "{}", world.status().message);
}

#[test]
fn a_retry_after_an_unknown_end_asks_about_the_try_that_was_ordered() {
    let mut world = commanded(&json!({}), bad!(Task::Wrap(_), Unknown));
    assert_eq!(world.status().reason, "MigrationUnknown", "{}", world.status().message);
    world.report = bad!(Task::Settle(_), Failed);
    world.say(Action::Retry, |_| {});
    world.settle();
    let (run, looked_for) = told(&world);
    assert_eq!((run.len(), looked_for.len(), looked_for[0].attempt), (1, 1, run[0].attempt));
    assert_eq!(schema(&world), SchemaState::Partial, "{}", world.status().message);
}

#[test]
fn the_end_of_a_seed_is_looked_for_in_the_same_way() {
    let seed = json!({"seed": {"template": pod(), "approval": "Never"}});
    let mut world = commanded(&seed, |task| match task {
        Task::Wrap(wrapped) if wrapped.plan.starts_with("seed/") => None,
        _ => well(task),
    });
    lose(&mut world);
    world.seen.jobs.clear();
    world.say(Action::Abort, |_| {});
    world.settle();
    let (run, looked_for) = told(&world);
    let seeds: Vec<_> = run.iter().filter(|it| it.plan.starts_with("seed/")).collect();
    assert_eq!((looked_for[0].plan.clone(), looked_for[0].attempt), (seeds[0].plan.clone(), 1));
}
