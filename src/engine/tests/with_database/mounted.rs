//! Changes by images: what of their SQL files can be read, and what a person is asked.

use rstest::rstest;

use crate::engine::{AsApplied, Contents, DatabaseJob, MapVolume, Mounted, TaskPod};

use super::*;

/// A pod whose first container mounts a ConfigMap, and a Secret.
fn mounting() -> Value {
    let mounts = json!([{"name": "sql", "mountPath": "/sql"}, {"name": "secret", "mountPath": "/secret"}]);
    json!({"spec": {
        "containers": [{"name": "tool", "image": "tool:1", "command": ["run"], "volumeMounts": mounts}],
        "volumes": [{"name": "sql", "configMap": {"name": "files"}}, {"name": "secret", "secret": {"secretName": "s"}}],
    }})
}

/// One that mounts nothing.
fn bare() -> Value {
    json!({"spec": {"containers": [{"name": "tool", "image": "tool:1", "command": ["run"]}]}})
}

fn migration(template: Value, more: &Value) -> Value {
    merged(json!({"template": template, "previousRevisionCompatible": true}), more)
}

/// The files of the seed lose data, as those of the migration do.
fn both_losing(task: &Task) -> Option<Report> {
    let report = losing(task)?;
    Some(match task {
        Task::Preflight { seed_mounted, .. } if !seed_mounted.is_nothing() => {
            let seed_risks = vec!["1.sql, line 1: empties a table".into()];
            Report { seed_hash: "s1".into(), seed_risks, seed_loses_data: true, ..report }
        }
        _ => report,
    })
}

#[rstest]
#[case::its_files_are_read(mounting(), json!({}), true)]
#[case::said_so(mounting(), json!({"approval": "WhenDataLoss"}), true)]
#[case::never(mounting(), json!({"approval": "Never"}), false)]
#[case::nobody_reads_it(bare(), json!({}), false)]
#[case::nobody_reads_it_and_somebody_wants_to_be_asked(bare(), json!({"approval": "WhenDataLoss"}), true)]
fn an_image_waits_for_a_person_where_its_files_lose_data(
    #[case] template: Value,
    #[case] more: Value,
    #[case] waits: bool,
) {
    let mut world = world(database(&json!({"migration": migration(template, &more)})));
    world.report = losing;
    world.settle();
    let status = world.status();
    if !waits {
        assert_eq!(status.phase, Phase::Healthy, "{}", status.message);
        return;
    }
    assert_eq!(status.reason, "MigrationAwaitsApproval", "{}", status.message);
    assert!(status.message.contains("002_drop.sql, line 1: drops tables with their rows"), "{}", status.message);
    assert_eq!(made(&world), ["preflight"], "nothing is changed before");
    approved(&mut world, ApprovalKind::Migration);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

#[test]
fn an_image_whose_files_lose_nothing_waits_for_nobody() {
    let mut world = world(database(&json!({"migration": migration(mounting(), &json!({}))})));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

/// What is read in its files stands beside what the rehearsal of an image finds, which knows nothing of statements.
#[test]
fn a_rehearsal_of_an_image_does_not_forget_what_was_read() {
    let more = json!({"backup": backup(), "rehearsal": {}, "migration": migration(mounting(), &json!({}))});
    let mut world = world(database(&more));
    world.report = |task| match task {
        Task::Rehearse { .. } => {
            let risks = vec!["public.a: 3 rows are gone".to_owned()];
            Some(Report { risks, loses_data: true, ..well(task)? })
        }
        _ => losing(task),
    };
    world.settle();
    let known = world.status().database.unwrap();
    assert!(known.loses_data);
    assert_eq!(known.risks, ["public.a: 3 rows are gone", "002_drop.sql, line 1: drops tables with their rows"]);
}

#[test]
fn preflight_has_what_the_pod_of_a_seed_mounts_beside_and_the_seed_is_bound_to_it() {
    let seed = json!({"template": mounting()});
    let mut world = world(database(&json!({"migration": migration(mounting(), &json!({})), "seed": seed})));
    world.report = both_losing;
    world.settle();
    assert_eq!(world.status().reason, "MigrationAwaitsApproval", "{}", world.status().message);
    assert!(world.status().message.contains("the seed: 1.sql, line 1: empties a table"), "{}", world.status().message);
    approved(&mut world, ApprovalKind::Migration);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    let jobs = jobs(&world);
    let looked = &jobs[0];
    assert!(matches!(looked.pod, TaskPod::Wrapped { .. }), "in the pod that is going to migrate");
    let Some(Task::Preflight { mounted, seed_mounted, .. }) = &looked.task else { panic!("{looked:?}") };
    let expected = Mounted { paths: vec!["/sql".into()], wary: false };
    assert_eq!((mounted, seed_mounted), (&expected, &expected));
    let volume = json!({"projected": {"sources": [{"configMap": {"name": "files"}}]}});
    let path = "/var/run/servicerelease/seed/sql".to_owned();
    assert_eq!(looked.maps, [MapVolume { volume, path, sub_path: None }]);
    let bound = jobs.iter().filter(|job| !job.maps.is_empty()).count();
    assert_eq!(bound, 1, "the others need it not");
    let of_seed = jobs.iter().find_map(|job| match &job.task {
        Some(Task::Wrap(run)) if run.plan.starts_with("seed/") => Some(run.meant.clone()),
        _ => None,
    });
    let meant = of_seed.unwrap();
    assert_eq!((meant.watched, meant.files.as_str()), (vec!["/sql".to_owned()], "s1"));
}

#[rstest]
#[case::its_files_are_read(json!({"template": mounting()}), true)]
#[case::never(json!({"template": mounting(), "approval": "Never"}), false)]
#[case::nobody_reads_it(json!({"template": bare()}), false)]
#[case::nobody_reads_it_and_somebody_wants_to_be_asked(json!({"template": bare(), "approval": "WhenDataLoss"}), true)]
fn a_seed_by_an_image_waits_for_a_person_where_its_files_lose_data(#[case] seed: Value, #[case] waits: bool) {
    let mut world = world(database(&json!({"seed": seed})));
    world.report = |task| {
        let report = both_losing(task)?;
        Some(Report { risks: Vec::new(), loses_data: false, ..report })
    };
    world.settle();
    let expected = if waits { Phase::AwaitingApproval } else { Phase::Healthy };
    assert_eq!(world.phase(), expected, "{}", world.status().message);
}

/// What the last preflight is told of a migration that counts as applied.
fn as_applied(world: &World) -> (Option<AsApplied>, DatabaseJob) {
    let looks = |job: &DatabaseJob| match &job.task {
        Some(Task::Preflight { applied, .. }) => Some((applied.clone(), job.clone())),
        _ => None,
    };
    jobs(world).iter().filter_map(looks).next_back().unwrap()
}

#[test]
fn preflight_looks_whether_sql_files_that_count_as_applied_are() {
    let mut world = healthy(database(&json!({})), &json!({}));
    world.report = |task| match task {
        Task::Preflight { applied: Some(_), .. } => {
            Some(reported(WorkOutcome::NotBegun, "ConfigMap shop-1 has what is not applied"))
        }
        _ => well(task),
    };
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "DatabasePreflightFailed"));
    assert!(status.message.contains("ConfigMap shop-1 has what is not applied"), "{}", status.message);
    let (applied, job) = as_applied(&world);
    let what = Contents::Set("default".into());
    assert_eq!(applied, Some(AsApplied { maps: vec!["shop-1".into()], what }));
    assert_eq!(job.files.as_deref(), Some("shop-1"));
    assert_eq!((made(&world), world.pods("v2")), (vec!["preflight".to_owned()], 0));
}

#[test]
fn preflight_compares_what_an_images_migration_was_applied_with() {
    let mut world = healthy(database(&json!({"migration": migration(mounting(), &json!({}))})), &json!({}));
    assert_eq!(world.status().database.unwrap().migrations[0].files_hash, "f1");
    world.set_image("v2");
    world.settle();
    let (applied, job) = as_applied(&world);
    let what = Contents::Mounted { paths: vec!["/sql".into()], files: "f1".into() };
    assert_eq!(applied, Some(AsApplied { maps: vec!["files".into()], what }));
    assert_eq!((&job.pod, job.files), (&TaskPod::Own, None), "not in the pod of an image that is not run");
    let volume = json!({"projected": {"sources": [{"configMap": {"name": "files", "optional": true}}]}});
    let path = "/var/run/servicerelease/files/sql".to_owned();
    assert_eq!(job.maps, [MapVolume { volume, path, sub_path: None }]);
    // One that is due is looked at as it is.
    world.edit(|spec| {
        let migration = spec.database.as_mut().unwrap().migration.as_mut().unwrap();
        migration.change.version = Some("2".into());
    });
    world.settle();
    assert_eq!(as_applied(&world).0, None);
}
