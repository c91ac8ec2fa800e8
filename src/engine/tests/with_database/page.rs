//! The way back over a migration that old code cannot live with, where maintenance mode is a page behind a Gateway.

use rstest::rstest;

use super::*;
use crate::engine::{
    Selection,
    tests::routed::{go, is_maintained},
};

/// v2 serves, with its breaking migration; the pods of v1 are gone.
fn promoted(back: &Value) -> World {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let traffic = json!({
        "service": "shop", "candidateService": "shop-candidate", "maintenance": {"service": "page"},
        "router": {"gateway": {"parentRefs": [{"name": "edge"}]}},
    });
    let mut world = with(plain, &json!({"traffic": traffic, "replicas": 4}));
    go(&mut world);
    let spec = incompatible(back);
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    go(&mut world);
    let (stable, page) = (world.stable(), is_maintained(&world));
    assert_eq!((world.phase(), stable.as_str(), page), (Phase::Healthy, "v2", false), "{}", world.status().message);
    assert_eq!(world.pods("v1"), 0);
    world.log.clear();
    world
}

fn down() -> Value {
    json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-2"}}})
}

/// Old code has the requests only behind the page, until the schema is its own again.
fn old_code_is_closed(world: &World) {
    let back = world.selected() == Selection::Revision(world.hash("v1"));
    let own = schema(world) == SchemaState::Undone;
    assert!(!back || own || is_maintained(world), "{}", world.status().message);
}

#[rstest]
#[case::down(down())]
#[case::restore(json!({"onRollback": "Restore", "backup": backup()}))]
fn an_undo_goes_behind_the_page_and_takes_the_schema_back(#[case] back: Value) {
    let mut world = promoted(&back);
    world.say(Action::Undo, |_| {});
    for _ in 0..40 {
        world.settle_watching(old_code_is_closed);
        world.wait(5);
        if world.status().reason == "RestoreAwaitsApproval" {
            let plan = world.status().database.unwrap().plan_hash;
            let revision = world.candidate();
            world.say(Action::Approve, |command| {
                command.revision = revision;
                command.approval = Some(CommandApproval { kind: ApprovalKind::Restore, plan_hash: Some(plan) });
            });
        }
    }
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
    assert_eq!((world.stable().as_str(), world.pods("v1"), is_maintained(&world)), ("v1", 4, false));
    assert_eq!(world.selected(), Selection::Revision(world.hash("v1")));
}

#[test]
fn a_page_that_no_gateway_takes_halts_an_undo_with_its_own_reason() {
    let mut world = promoted(&down());
    world.gateway_refuses = true;
    world.say(Action::Undo, |_| {});
    go(&mut world);
    assert_eq!((world.phase(), world.pods("v1")), (Phase::RollingBack, 4), "{}", world.status().message);
    world.wait(600);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "MaintenanceNotReached"), "{}", status.message);
    assert_eq!(world.selected(), Selection::Revision(world.hash("v2")), "where it is safe");
    // The gateway is mended, and a person says Retry.
    world.gateway_refuses = false;
    world.write_route(|_| {});
    world.say(Action::Retry, |_| {});
    for _ in 0..40 {
        world.settle_watching(old_code_is_closed);
        world.wait(5);
    }
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
}
