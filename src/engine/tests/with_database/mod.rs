//! The database in a release: the order of its steps, what stops it, and the way back (INVARIANTS D1 to D5).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    api::{
        Action, ApprovalKind, BackupStatus, CommandApproval, DatabaseTask, LABEL_RELEASE, Phase, SchemaState, StepName,
        WorkOutcome,
    },
    engine::{ConfigMap, DatabaseJob, Effect, ObjectVersion, Planned, Reply, Report, Run, Task},
};

use super::world::{World, template};

fn merged(mut one: Value, other: &Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

/// spec.database with SQL files, and what else is given.
fn database(more: &Value) -> Value {
    let base = json!({
        "urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}},
        "migration": {"sql": {"configMap": "shop-1"}, "previousRevisionCompatible": true},
        "verify": {"tables": ["orders"]},
    });
    merged(base, more)
}

fn backup() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "backups"}})
}

fn maintained() -> Value {
    json!({"configMap": {"name": "shop-config", "key": "MAINTENANCE", "propagationDelay": "0s"}})
}

/// A release of v1 that has a database, before its first pass.
fn world(database: Value) -> World {
    with(database, &json!({}))
}

fn with(database: Value, more: &Value) -> World {
    let spec = json!({
        "replicas": 2,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": template("v1"),
        "traffic": {"service": "shop", "candidateService": "shop-candidate"},
        "strategy": {"blueGreen": {}},
        "database": database,
    });
    let mut world = World::of(merged(spec, more));
    world.seen.config_maps.push(ConfigMap {
        object: ObjectVersion { name: "shop-config".into(), ..ObjectVersion::default() },
        data: BTreeMap::from([("MAINTENANCE".to_owned(), "false".to_owned())]),
        ..ConfigMap::default()
    });
    world.report = well;
    world
}

/// The same, with v1 Healthy and its migration applied.
fn healthy(database: Value, more: &Value) -> World {
    let mut world = with(database, more);
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    world.log.clear();
    world
}

/// A person approves the plan that waits.
fn approved(world: &mut World, kind: ApprovalKind) {
    let (revision, plan) = (world.candidate(), world.status().database.unwrap().plan_hash);
    world.say(Action::Approve, |command| {
        command.revision = revision;
        command.approval = Some(CommandApproval { kind, plan_hash: Some(plan) });
    });
    world.settle();
}

fn change(world: &mut World, sql: &str) {
    world.edit(|spec| {
        let database = spec.database.as_mut().unwrap();
        database.migration.as_mut().unwrap().change.sql.as_mut().unwrap().config_map = sql.into();
    });
}

fn reported(outcome: WorkOutcome, message: &str) -> Report {
    Report { outcome, message: message.into(), ..Report::default() }
}

/// All is well.
fn well(task: &Task) -> Option<Report> {
    let done = reported(WorkOutcome::Done, "done");
    Some(match task {
        Task::Preflight { .. } => Report {
            files_hash: "f1".into(),
            pending: vec!["001_orders.sql".into()],
            server_version: "15.18".into(),
            size_bytes: 7_000,
            database: "shop@7".into(),
            ..done
        },
        Task::Backup { name, .. } => Report {
            server_version: "15.18".into(),
            backup: Some(BackupStatus { name: name.clone(), ..BackupStatus::default() }),
            ..done
        },
        Task::Migrate(_) => Report { applied: vec!["001_orders.sql".into()], ..done },
        _ => done,
    })
}

fn losing(task: &Task) -> Option<Report> {
    let mut report = well(task)?;
    if let Task::Preflight { .. } = task {
        report.risks = vec!["002_drop.sql, line 1: drops tables with their rows".into()];
        report.loses_data = true;
    }
    Some(report)
}

/// All but one kind of task is well.
macro_rules! bad {
    ($task:pat, $outcome:ident) => {
        |task: &Task| match task {
            $task => Some(reported(WorkOutcome::$outcome, "as it happens")),
            _ => well(task),
        }
    };
}

/// The database's Jobs that were made, by what they do, and the first pods of candidates among them.
fn made(world: &World) -> Vec<String> {
    let of = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => {
                let text = serde_json::to_value(&job.task).unwrap();
                Some(text.as_object().map_or("user".into(), |map| map.keys().next().unwrap().clone()))
            }
            _ => None,
        },
        Effect::ScaleReplicaSet { replicas: 1.., .. } => Some("pods".into()),
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

fn schema(world: &World) -> SchemaState {
    world.status().database.unwrap().schema
}

fn maintenance(world: &World) -> String {
    world.seen.config_maps[0].data["MAINTENANCE"].clone()
}

fn incompatible(more: &Value) -> Value {
    database(&merged(json!({"migration": {"sql": {"configMap": "shop-2"}}}), more))
}

/// v1 serves, and v2 comes with a migration that v1 cannot live with.
fn breaking(more: &Value, report: fn(&Task) -> Option<Report>) -> World {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let mut world = healthy(plain, &json!({"maintenance": maintained()}));
    world.report = report;
    let spec = incompatible(more);
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    world
}

/// Ends the Job that runs.
fn end(world: &mut World, report: Report) {
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    job.end = Some(crate::engine::JobEnd {
        succeeded: report.outcome == WorkOutcome::Done,
        at,
        took: 1_000,
        message: String::new(),
        report: Some(serde_json::to_string(&report).unwrap()),
        image: None,
    });
    world.settle();
}

// After the macro that they use.
mod again;
mod alone;
mod astray;
mod back;
mod deleted;
mod down;
mod forward;
mod keys;
mod lacking;
mod left;
mod mounted;
mod onward;
mod page;
mod plans;
mod remedies;
mod renewed;
mod seeds;
mod struck;
mod tries;

/// The database's Jobs that were made.
fn jobs(world: &World) -> Vec<DatabaseJob> {
    let of = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => Some((**job).clone()),
            _ => None,
        },
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}
