//! What a person approves is what is run: the plan is of the files and the image that preflight found.

use crate::engine::{DatabaseJob, TaskPod};

use super::*;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A release whose migration is a command of the user's, and waits for approval; its image has this digest.
fn awaiting(digest: &str) -> World {
    awaiting_image(Some(format!("docker.io/team/tool@{digest}")))
}

/// The same of an image as the kubelet tells it.
fn awaiting_image(image: Option<String>) -> World {
    let pod = json!({"spec": {"containers": [{"name": "tool", "image": "team/tool:1", "command": ["migrate"]}]}});
    let migration = json!({"template": pod, "previousRevisionCompatible": true, "approval": "Required"});
    let seed = json!({"template": pod});
    let mut world = world(database(&json!({"migration": migration, "seed": seed})));
    world.image = image;
    world.settle();
    assert_eq!(world.phase(), Phase::AwaitingApproval, "{}", world.status().message);
    world
}

fn plan(world: &World) -> String {
    world.status().database.unwrap().plan_hash
}

fn approve(world: &mut World) {
    let (revision, plan) = (world.candidate(), plan(world));
    world.say(Action::Approve, |command| {
        command.revision = revision;
        command.approval = Some(CommandApproval { kind: ApprovalKind::Migration, plan_hash: Some(plan) });
    });
    world.settle();
}

fn image(job: &DatabaseJob) -> Option<&str> {
    match &job.pod {
        TaskPod::Wrapped { image, .. } => image.as_deref(),
        pod => panic!("{pod:?}"),
    }
}

#[test]
fn the_image_that_preflight_found_is_approved_and_run_whatever_its_tag_names_by_then() {
    let mut world = awaiting(DIGEST);
    assert_eq!(image(&jobs(&world)[0]), None, "preflight finds out what the tag names");
    assert!(world.status().message.contains(DIGEST), "{}", world.status().message);
    world.image = Some("docker.io/team/tool@sha256:of-another".into());
    approve(&mut world);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    let made = jobs(&world);
    let migration = made.iter().find(|job| matches!(&job.task, Some(Task::Wrap(it)) if it.migrates()));
    assert_eq!(image(migration.unwrap()), Some(format!("team/tool@{DIGEST}").as_str()));
}

/// What the node had imported, or has from a mirror: no registry is known to have it by that digest.
#[test]
fn an_image_that_cannot_be_pinned_is_told_and_compared_with_what_ran() {
    let imported = |digest: &str| Some(format!("docker.io/library/import-2026-11-29@{digest}"));
    let noted = |world: &World| {
        let timeline = world.status().timeline;
        timeline.into_iter().filter(|it| it.kind == "ImageChanged").map(|it| it.message).collect::<Vec<_>>()
    };
    for moved in [false, true] {
        let mut world = awaiting_image(imported(DIGEST));
        let message = world.status().message;
        assert!(message.contains(DIGEST) && message.contains("but it is run by its tag"), "{message}");
        let other = DIGEST.replace('0', "1");
        world.image = if moved { imported(&other) } else { Some(format!("mirror.example.com/tool@{DIGEST}")) };
        approve(&mut world);
        assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
        let migration = jobs(&world).into_iter().find(|job| matches!(&job.task, Some(Task::Wrap(_)))).unwrap();
        assert_eq!(image(&migration), None, "by its tag");
        let told = noted(&world);
        assert_eq!(told.len(), usize::from(moved), "{told:?}");
        assert!(told.iter().all(|it| it.contains(&other) && it.contains(DIGEST)), "{told:?}");
    }
    // One that is pinned is what ran, whatever the node calls it.
    let mut world = awaiting(DIGEST);
    assert!(!world.status().message.contains("by its tag"), "{}", world.status().message);
    world.image = imported(&DIGEST.replace('0', "1"));
    approve(&mut world);
    assert_eq!(noted(&world), [""; 0]);
}

#[test]
fn another_image_behind_the_same_tag_is_another_plan_and_the_same_seed() {
    let (mut one, mut other) = (awaiting(DIGEST), awaiting(&DIGEST.replace('0', "1")));
    assert_ne!(plan(&one), plan(&other));
    let mut seeds = Vec::new();
    for world in [&mut one, &mut other] {
        approve(world);
        seeds.extend(jobs(world).into_iter().filter_map(|job| match job.task {
            Some(Task::Wrap(it)) if it.plan.starts_with("seed/") => Some(it.plan),
            _ => None,
        }));
    }
    assert_eq!((seeds.len(), &seeds[0]), (2, &seeds[1]), "it is recorded once for all releases");
}

#[test]
fn what_is_mounted_from_config_maps_is_compared_before_a_command_is_run() {
    let volumes = json!([
        {"name": "files", "configMap": {"name": "sql"}},
        {"name": "both", "projected": {"sources": [{"configMap": {"name": "more"}}, {"secret": {"name": "s"}}]}},
        {"name": "secret", "secret": {"secretName": "s"}},
    ]);
    let mounts = json!([
        {"name": "files", "mountPath": "/sql"}, {"name": "both", "mountPath": "/both"},
        {"name": "secret", "mountPath": "/secret"},
    ]);
    let container = json!({"name": "tool", "image": "team/tool:1", "command": ["migrate"], "volumeMounts": mounts});
    let pod = json!({"spec": {"containers": [container], "volumes": volumes}});
    let migration = json!({"template": pod, "previousRevisionCompatible": true});
    let mut world = world(database(&json!({"migration": migration})));
    world.report = |task| {
        let report = well(task)?;
        Some(match task {
            Task::Preflight { mounted, .. } => {
                assert_eq!(mounted.paths, ["/sql"], "never what a Secret is in");
                Report { files_hash: "of-the-files".into(), database: "shop@7".into(), ..report }
            }
            _ => report,
        })
    };
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    let meant = jobs(&world).into_iter().find_map(|job| match job.task {
        Some(Task::Wrap(wrapped)) => Some(wrapped.meant),
        _ => None,
    });
    let meant = meant.unwrap();
    assert_eq!((meant.database.as_str(), meant.files.as_str()), ("shop@7", "of-the-files"));
}

#[test]
fn an_image_that_no_registry_has_by_that_name_is_run_as_the_manifest_says() {
    let mut world = awaiting("");
    assert_eq!(image(&jobs(&world)[0]), None);
    approve(&mut world);
    assert!(jobs(&world).iter().all(|job| !matches!(job.pod, TaskPod::Wrapped { .. }) || image(job).is_none()));
}

#[test]
fn an_object_that_is_made_again_takes_back_none_of_the_other_ones_files() {
    let migrated = |uid: &str| {
        let mut world = world(database(&json!({})));
        world.release.metadata.uid = Some(uid.into());
        world.settle();
        let of = |job: DatabaseJob| match job.task {
            Some(Task::Migrate(run)) => Some(run.release),
            _ => None,
        };
        jobs(&world).into_iter().find_map(of).unwrap()
    };
    let (one, other) = (migrated("one"), migrated("other"));
    assert!(one.starts_with("default/shop#1-") && other.starts_with("default/shop#1-"), "{one} {other}");
    assert_ne!(one, other);
}
