//! Records what a release looks like in every phase, and which commands are followed there. Scripts
//! that read a ServiceRelease without the engine (`deploy/argocd`) are tested over this record, so
//! that they cannot drift from it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::world::World;
use crate::{
    api::{Action, ApprovalKind, CommandApproval, CommandPhase, Phase, ServiceReleaseSpec, WorkOutcome},
    engine::{ConfigMap, ObjectVersion, Report, Task},
};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packaging/argocd/recorded.json");

/// A command as an Argo CD action gives it: its name there, what it says, whether in full, and the plan it approves.
type Command = (&'static str, Action, bool, Option<ApprovalKind>);

const COMMANDS: [Command; 12] = [
    ("promote", Action::Promote, false, None),
    ("promote-full", Action::Promote, true, None),
    ("abort", Action::Abort, false, None),
    ("undo", Action::Undo, false, None),
    ("retry", Action::Retry, false, None),
    ("approve", Action::Approve, false, None),
    ("approve-migration", Action::Approve, false, Some(ApprovalKind::Migration)),
    ("approve-migrate-down", Action::Approve, false, Some(ApprovalKind::MigrateDown)),
    ("approve-restore", Action::Approve, false, Some(ApprovalKind::Restore)),
    ("pause", Action::Pause, false, None),
    ("resume", Action::Resume, false, None),
    ("skip", Action::Skip, false, None),
];

/// v2 on its way, over v1, by these steps.
fn releasing(steps: Value) -> World {
    let mut world = World::healthy(json!({"canary": {"steps": steps}}), 4);
    world.set_image("v2");
    world
}

fn settled(mut world: World) -> World {
    world.settle();
    world
}

/// Stops at the first pass that ends in this phase.
fn at(mut world: World, phase: Phase) -> World {
    for _ in 0..100 {
        world.pass();
        if world.phase() == phase {
            return world;
        }
    }
    panic!("{phase:?} was not reached, but {:?}", world.phase());
}

fn open_pause() -> World {
    settled(releasing(json!([{"setWeight": 25}, {"pause": {}}])))
}

fn crashing(automatic: bool) -> World {
    let mut world = releasing(json!([{"setWeight": 25}]));
    world.set_image("v2-broken-crash");
    world.edit(|spec| spec.rollback.automatic = automatic);
    world
}

fn paused_by_command() -> World {
    let mut world = open_pause();
    world.say(Action::Pause, |command| command.reason = Some("lunch".into()));
    settled(world)
}

fn superseded() -> World {
    let mut world = open_pause();
    world.set_image("v3");
    world.pass();
    world
}

fn undone() -> World {
    let mut world = settled(releasing(json!([])));
    world.say(Action::Undo, |_| {});
    settled(world)
}

fn edited(mut world: World, change: impl FnOnce(&mut ServiceReleaseSpec)) -> World {
    world.edit(change);
    world
}

fn observing(good: bool) -> World {
    let mut world = World::healthy(json!({"blueGreen": {}}), 3);
    world.edit(|spec| {
        let check = json!({"name": "live", "when": ["AfterPromotion"], "onFailure": "Hold", "http": {}});
        spec.checks = serde_json::from_value(json!([check])).expect("checks");
        spec.observation = serde_json::from_value(json!({"duration": "1h"})).expect("an observation");
    });
    if !good {
        world.reply = |_| Some(super::world::wrong());
    }
    world.set_image("v2");
    settled(world)
}

/// v2 on its way with a migration, whose Jobs report this.
fn migrating(report: fn(&Task) -> Option<Report>) -> World {
    migrating_with(&json!({}), report)
}

/// The same with more of spec.database.
fn migrating_with(more: &Value, report: fn(&Task) -> Option<Report>) -> World {
    let mut world = World::healthy(json!({"blueGreen": {}}), 3);
    world.report = report;
    let mut database = json!({
        "urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "DATABASE_URL"}},
        "migration": {"sql": {"configMap": "shop-2"}, "previousRevisionCompatible": true},
    });
    database.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.seen.config_maps.push(ConfigMap {
        object: ObjectVersion { name: "shop-mode".into(), ..ObjectVersion::default() },
        data: BTreeMap::from([("MAINTENANCE".to_owned(), "false".to_owned())]),
        ..ConfigMap::default()
    });
    let maintenance = json!({"configMap": {"name": "shop-mode", "key": "MAINTENANCE"}});
    world.edit(|spec| {
        spec.maintenance = serde_json::from_value(maintenance).expect("a maintenance mode");
        spec.database = serde_json::from_value(database).expect("a database");
    });
    world.set_image("v2");
    settled(world)
}

fn blue_green() -> World {
    let mut world = World::healthy(json!({"blueGreen": {"autoPromote": false}}), 3);
    world.set_image("v2");
    settled(world)
}

fn first_fails() -> World {
    let mut world = World::new(json!({"canary": {}}), 3);
    world.set_image("v1-broken-crash");
    settled(world)
}

/// A name, and how to come there: anew for each command that is tried.
type Case = (&'static str, fn() -> World);

/// Every phase, some for more than one reason.
fn cases() -> Vec<Case> {
    vec![
        ("no-status", || World::new(json!({"canary": {}}), 4)),
        ("stale", || edited(open_pause(), |spec| spec.replicas = Some(6))),
        ("pending", || {
            let mut world = World::new(json!({"canary": {}}), 4);
            world.seen.template_check = crate::engine::TemplateCheck::NameTaken;
            world.pass();
            world
        }),
        ("preparing", || at(releasing(json!([{"setWeight": 25}])), Phase::Progressing)),
        ("database-preflight", || migrating(|_| None)),
        ("database-migrates", || {
            migrating(|task| match task {
                Task::Preflight { .. } => Some(Report { outcome: WorkOutcome::Done, ..Report::default() }),
                _ => None,
            })
        }),
        ("migration-awaits-approval", || {
            let migration =
                json!({"sql": {"configMap": "shop-2"}, "previousRevisionCompatible": true, "approval": "Required"});
            migrating_with(&json!({"migration": migration}), |_| {
                Some(Report { outcome: WorkOutcome::Done, ..Report::default() })
            })
        }),
        ("restore-awaits-approval", || {
            let back = json!({"onRollback": "Restore", "verify": {"tables": ["orders"]},
                "backup": {"persistentVolumeClaim": {"claimName": "backups"}}});
            migrating_with(&back, |task| {
                let outcome = if matches!(task, Task::Verify(_)) { WorkOutcome::Failed } else { WorkOutcome::Done };
                let applied = if matches!(task, Task::Migrate(_)) { vec!["2.sql".into()] } else { Vec::new() };
                Some(Report { outcome, applied, ..Report::default() })
            })
        }),
        ("migrate-down-awaits-approval", || {
            let back = json!({"onRollback": "MigrateDown", "verify": {"tables": ["orders"]},
                "migrationDown": {"sql": {"configMap": "shop-2"}, "approval": "Required"}});
            migrating_with(&back, |task| {
                let outcome = if matches!(task, Task::Verify(_)) { WorkOutcome::Failed } else { WorkOutcome::Done };
                let applied = if matches!(task, Task::Migrate(_)) { vec!["2.sql".into()] } else { Vec::new() };
                Some(Report { outcome, applied, ..Report::default() })
            })
        }),
        ("timed-pause", || settled(releasing(json!([{"setWeight": 25}, {"pause": {"duration": "5m"}}])))),
        ("awaiting-approval", || settled(releasing(json!([{"setWeight": 25}, {"approval": {}}])))),
        ("open-pause", open_pause),
        ("paused-by-command", paused_by_command),
        ("paused-in-spec", || settled(edited(open_pause(), |spec| spec.paused = true))),
        ("failure-held", || settled(crashing(false))),
        ("blue-green-waits", blue_green),
        ("observing", || observing(true)),
        ("observation-failed", || observing(false)),
        ("promoting", || at(releasing(json!([{"setWeight": 25}])), Phase::Promoting)),
        ("first-healthy", || World::healthy(json!({"canary": {}}), 4)),
        ("healthy", || settled(releasing(json!([])))),
        ("superseded", superseded),
        ("rolling-back", || at(crashing(true), Phase::RollingBack)),
        ("rolled-back", || {
            let mut world = settled(crashing(true));
            world.wait(60);
            settled(world)
        }),
        ("undone", undone),
        ("halted", first_fails),
        ("invalid", || {
            settled(edited(World::healthy(json!({"canary": {}}), 4), |spec| {
                let traffic = spec.traffic.as_mut().unwrap();
                traffic.candidate_service = Some(traffic.service.clone());
            }))
        }),
    ]
}

/// What the command says of revision and step, if it is followed. Commands that move a release
/// forward name what a person sees; the others mean whatever is there.
fn tried(mut world: World, (_, action, full, approves): Command) -> Option<Value> {
    let status = world.status();
    let known = status.database.unwrap_or_default();
    let plan = approves.map(|kind| known.plan(kind).to_owned()).filter(|plan| !plan.is_empty());
    let latched = status.failed_revisions.into_iter().rfind(|failed| failed.latched).map(|failed| failed.revision);
    // What failed after the promotion is stable.
    let failed = status.observation.is_some_and(|observation| observation.failure.is_some());
    let latched = status.stable.filter(|_| failed).map(|entry| entry.revision).or(latched);
    let candidate = status.candidate.map(|entry| entry.revision);
    let revision = match action {
        Action::Retry => candidate.or(latched),
        Action::Promote | Action::Approve | Action::Skip => candidate,
        _ => None,
    };
    let guarded = revision.is_some() && action != Action::Retry && !full;
    let step = status.step.filter(|_| guarded).map(|step| step.index);
    world.say(action, |command| {
        command.revision.clone_from(&revision);
        (command.step, command.full) = (step, full);
        command.approval = approves.map(|kind| CommandApproval { kind, plan_hash: plan.clone() });
    });
    world.pass();
    let followed = world.status().commands.last()?.phase == CommandPhase::Applied;
    followed.then(|| json!({"revision": revision, "step": step, "plan": plan}))
}

fn record() -> Value {
    let mut cases = Vec::new();
    for (name, make) in self::cases() {
        let mut object = serde_json::to_value(make().release).unwrap();
        object["metadata"]["uid"] = "6c1f7e4c-0000-4000-8000-000000000001".into();
        let followed: Map<_, _> =
            COMMANDS.iter().filter_map(|command| Some((command.0.to_owned(), tried(make(), *command)?))).collect();
        cases.push(json!({"case": name, "object": object, "followed": followed}));
    }
    cases.into()
}

#[test]
fn the_record_for_scripts_is_up_to_date() {
    let text = format!("{:#}\n", record());
    if std::env::var_os("UPDATE_RECORD").is_some() {
        std::fs::write(RECORD, &text).unwrap();
    }
    let kept = std::fs::read_to_string(RECORD).unwrap_or_default();
    assert!(
        kept == text,
        "{RECORD} differs from what the engine does: run this test with UPDATE_RECORD=1 and look at the diff"
    );
}
