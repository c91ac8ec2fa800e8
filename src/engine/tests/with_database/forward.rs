//! The order of the database's steps, and what stops them.

use rstest::rstest;

use super::*;

#[test]
fn no_pod_of_the_candidate_starts_before_the_migration_is_verified() {
    let mut world = world(database(
        &json!({"backup": backup(), "rehearsal": {}, "seed": {"sql": {"configMap": "seed", "set": "seed"}}}),
    ));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "backup", "rehearse", "migrate", "migrate", "verify", "pods"]);
    let known = world.status().database.unwrap();
    assert_eq!((known.schema, known.migrations.len()), (SchemaState::Changed, 1));
    assert!(known.seeded_at.is_some());
}

/// What copies it to another place has the last word before anything is changed.
#[rstest]
#[case::copied(true, &["preflight", "backup", "rehearse", "migrate", "verify", "pods"], Phase::Healthy)]
#[case::not_copied(false, &["preflight", "backup"], Phase::RolledBack)]
fn a_backup_is_checked_before_anything_is_done_with_it(
    #[case] copied: bool,
    #[case] jobs: &[&str],
    #[case] phase: Phase,
) {
    let job = json!({"template": {"spec": {"containers": [{"name": "copy", "image": "copy:1"}]}}});
    let check = json!({"name": "copied", "when": ["AfterBackup"], "job": job});
    let mut world = healthy(json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}}), &json!({}));
    world.edit(|spec| {
        spec.checks = vec![serde_json::from_value(check).unwrap()];
        spec.database = serde_json::from_value(database(&json!({"backup": backup(), "rehearsal": {}}))).unwrap();
    });
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.step.unwrap().name), (Phase::Database, StepName::Check), "{}", status.message);
    assert_eq!(made(&world), ["preflight", "backup"]);
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    let (message, succeeded) = ("as it is".to_owned(), copied);
    job.end = Some(crate::engine::JobEnd { succeeded, at, took: 1_000, message, report: None, image: None });
    world.settle();
    assert_eq!(
        (made(&world), world.phase()),
        (jobs.iter().map(|it| (*it).to_owned()).collect(), phase),
        "{}",
        world.status().message
    );
}

#[test]
fn a_seed_that_comes_later_has_a_backup_before_it() {
    let kept = database(&json!({"backup": backup()}));
    let mut world = healthy(kept.clone(), &json!({}));
    world.set_image("v2");
    world.settle();
    assert_eq!(made(&world), ["preflight", "verify", "pods"], "what changes nothing needs none");
    world.log.clear();
    let seed = json!({"seed": {"sql": {"configMap": "shop-seed", "set": "seed"}, "approval": "Never"}});
    world.edit(|spec| spec.database = serde_json::from_value(merged(kept, &seed)).unwrap());
    world.set_image("v3");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v3".into()), "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "backup", "migrate", "verify", "pods"]);
    let planned = world.log.iter().find_map(|effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => match &job.task {
                Some(Task::Preflight { planned, .. }) => Some(planned.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    assert_eq!(planned, Some(vec![Planned::Backup, Planned::Proof]), "whether it could be made is looked at first");
}

/// It could not be noted beside the backup, which the next one might take the place of.
#[test]
fn what_a_rehearsal_proved_is_handed_to_the_backups_after_it() {
    let pod = json!({"spec": {"containers": [{"name": "tool", "image": "tool:1", "command": ["migrate"]}]}});
    let spec = |version: &str| {
        let migration = json!({"sql": null, "template": pod, "version": version, "previousRevisionCompatible": true, "approval": "Never"});
        database(
            &json!({"backup": merged(backup(), &json!({"proof": "Skip"})), "rehearsal": {}, "migration": migration}),
        )
    };
    let handed = |world: &World| {
        let of = |effect: &Effect| match effect {
            Effect::CreateJob(new) => match &new.run {
                Run::Database(job) => match &job.task {
                    Some(Task::Backup { name, proven, rehearsed, .. }) => {
                        Some((name.clone(), proven.clone(), *rehearsed))
                    }
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        world.log.iter().filter_map(of).next_back().unwrap()
    };
    let mut world = world(spec("1"));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    let (first, proven, rehearsed) = handed(&world);
    assert_eq!((proven, rehearsed), (None, true));
    let mut release = |version: &str, report: fn(&Task) -> Option<Report>| {
        world.report = report;
        world.edit(|it| it.database = serde_json::from_value(spec(version)).unwrap());
        world.set_image(version);
        world.settle();
        let (name, proven, _) = handed(&world);
        (name, proven.unwrap().name, world.status().database.unwrap().proven.unwrap().name)
    };
    let (_, proven, still) = release("v2", bad!(Task::Rehearse { .. }, Failed));
    assert_eq!((&proven, &still), (&first, &first), "nobody has restored the second");
    let (third, proven, is) = release("v3", well);
    assert_eq!((&proven, &is), (&first, &third));
}

#[test]
fn a_backup_by_a_job_of_the_users_is_of_the_server_that_preflight_found() {
    let job = json!({"template": {"spec": {"containers": [{"name": "dump", "image": "dump:1"}]}}});
    let mut world = world(database(&json!({"backup": {"job": job}})));
    world.settle();
    assert_eq!(made(&world), ["preflight", "user"]);
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    let (message, report) = ("exit code 0".to_owned(), Some("s3://backups/shop.dump".to_owned()));
    job.end = Some(crate::engine::JobEnd { succeeded: true, at, took: 1_000, message, report, image: None });
    world.settle();
    let backup = world.status().database.unwrap().backup.unwrap();
    assert_eq!((backup.name.as_str(), backup.server_version.as_str()), ("s3://backups/shop.dump", "15.18"));
    assert!(backup.started_at.is_some() && backup.ended_at.is_some() && backup.proven_at.is_none(), "{backup:?}");
}

#[test]
fn a_migration_that_is_applied_is_not_run_again_with_the_next_template() {
    let mut world = healthy(database(&json!({"backup": backup(), "seed": {"sql": {"configMap": "s"}}})), &json!({}));
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()));
    assert_eq!(made(&world), ["preflight", "verify", "pods"]);
}

#[test]
fn a_changed_migration_alone_is_a_release_without_a_candidate() {
    let mut world = healthy(database(&json!({})), &json!({}));
    change(&mut world, "shop-2");
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert_eq!(made(&world), ["preflight", "migrate", "verify"]);
    assert_eq!(world.status().release.unwrap().number, 2);
    assert_eq!(world.status().database.unwrap().migrations.len(), 2);
    world.log.clear();
    change(&mut world, "shop-1");
    world.settle();
    assert_eq!(
        (made(&world).len(), world.status().release.unwrap().number),
        (0, 2),
        "what was applied is not run again"
    );
}

#[test]
fn a_release_without_a_candidate_asks_what_is_asked_after_a_promotion() {
    let url = json!({"secretKeyRef": {"name": "shop-db", "key": "URL"}});
    let sql = json!({"urlFrom": url, "query": "SELECT id FROM orders WHERE user_id IS NULL"});
    let check = json!({"name": "no-orphans", "when": ["AfterPromotion"], "sql": sql});
    let mut world = healthy(database(&json!({})), &json!({}));
    world.edit(|spec| spec.checks = vec![serde_json::from_value(check).unwrap()]);
    change(&mut world, "shop-2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.step.unwrap().name), (Phase::Progressing, StepName::Check), "{}", status.message);
    assert_eq!(made(&world), ["preflight", "migrate", "verify"], "on the new schema");
    let at = world.now;
    let job = world.seen.jobs.iter_mut().find(|job| job.end.is_none()).unwrap();
    let message = "exit code 1: 3 rows".to_owned();
    job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1_000, message, report: None, image: None });
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "CheckFailed"), "{}", status.message);
}

#[rstest]
#[case::preflight(bad!(Task::Preflight { .. }, NotBegun), "DatabasePreflightFailed", &["preflight"])]
#[case::backup(bad!(Task::Backup { .. }, Failed), "BackupFailed", &["preflight", "backup"])]
#[case::rehearsal(bad!(Task::Rehearse { .. }, Failed), "RehearsalFailed", &["preflight", "backup", "rehearse"])]
#[case::migration(bad!(Task::Migrate(_), Failed), "MigrationFailed", &["preflight", "backup", "rehearse", "migrate"])]
#[case::verification(bad!(Task::Verify(_), Failed), "VerificationFailed", &["preflight", "backup", "rehearse", "migrate", "verify"])]
fn what_fails_lets_no_pod_start_and_stays_down(
    #[case] report: fn(&Task) -> Option<Report>,
    #[case] reason: &str,
    #[case] jobs: &[&str],
) {
    let mut world = healthy(json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}}), &json!({}));
    world.report = report;
    let spec: Value = database(&json!({"backup": backup(), "rehearsal": {}}));
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, reason), "{}", status.message);
    assert_eq!(made(&world), jobs);
    assert_eq!((world.stable(), world.pods("v2")), ("v1".into(), 0));
    // Nothing but Retry, or another plan, starts it again.
    world.log.clear();
    world.edit(|spec| spec.replicas = Some(3));
    world.report = well;
    world.settle();
    assert_eq!(made(&world), ["pods"]);
    let revision = world.hash("v2");
    world.say(Action::Retry, |command| command.revision = Some(revision));
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}

#[rstest]
#[case::loses_data(losing as fn(&Task) -> Option<Report>, json!({}), true)]
#[case::harmless(well as fn(&Task) -> Option<Report>, json!({}), false)]
#[case::always(well as fn(&Task) -> Option<Report>, json!({"approval": "Required"}), true)]
#[case::never(losing as fn(&Task) -> Option<Report>, json!({"approval": "Never"}), false)]
fn a_migration_waits_for_a_person_where_the_manifest_or_its_statements_say_so(
    #[case] report: fn(&Task) -> Option<Report>,
    #[case] migration: Value,
    #[case] waits: bool,
) {
    let base = json!({"sql": {"configMap": "shop-1"}, "previousRevisionCompatible": true});
    let mut world = world(database(&json!({"migration": merged(base, &migration)})));
    world.report = report;
    world.settle();
    if !waits {
        assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
        return;
    }
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::AwaitingApproval, "MigrationAwaitsApproval"));
    let plan = status.database.unwrap().plan_hash;
    assert!(status.next_action.contains(&plan), "{}", status.next_action);
    assert_eq!(made(&world), ["preflight"]);
    let revision = world.candidate();
    for (kind, hash, answer) in [
        (ApprovalKind::Step, None, "Rejected: what waits is an approval of kind Migration"),
        (ApprovalKind::Migration, Some("0123456789abcdef".to_owned()), "Rejected: it approves plan 0123456789abcdef"),
        (ApprovalKind::Migration, Some(plan.clone()), "Applied"),
    ] {
        world.say(Action::Approve, |command| {
            command.revision.clone_from(&revision);
            command.approval = Some(CommandApproval { kind, plan_hash: hash });
        });
        world.settle();
        assert!(world.answer().starts_with(answer), "{}", world.answer());
    }
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
    assert_eq!(world.status().database.unwrap().approvals[0].by, "ann");
}

#[test]
fn nobody_passes_over_a_step_of_the_database() {
    let mut world = with(database(&json!({})), &json!({"rollback": {"automatic": false}}));
    world.report = bad!(Task::Preflight { .. }, NotBegun);
    world.settle();
    assert_eq!(world.phase(), Phase::Paused);
    let revision = world.candidate();
    for action in [Action::Skip, Action::Promote] {
        world.say(action, |command| command.revision.clone_from(&revision));
        world.settle();
        assert!(world.answer().starts_with("Rejected: a step of the database"), "{}", world.answer());
    }
    world.report = well;
    world.wait(1);
    world.say(Action::Retry, |command| command.revision.clone_from(&revision));
    world.settle();
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

#[test]
fn a_migration_that_old_code_cannot_live_with_runs_in_maintenance_mode() {
    let mut world = breaking(&json!({}), |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    });
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::Database, SchemaState::Changing));
    assert_eq!(maintenance(&world), "true");
    world.report = well;
    end(&mut world, reported(WorkOutcome::Done, "done"));
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    assert_eq!(maintenance(&world), "false", "it is over once the new code serves (D5)");
}

#[test]
fn the_maintenance_service_has_all_requests_until_the_new_code_serves() {
    let routed = json!({"traffic": {
        "service": "shop", "candidateService": "shop-candidate", "maintenance": {"service": "page"},
        "router": {"gateway": {"parentRefs": [{"name": "edge"}]}},
    }});
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let page = |world: &World| world.seen.route.as_ref().unwrap().spec["rules"][0]["backendRefs"][0]["name"] == "page";
    let mut world = with(plain, &routed);
    let wait = |world: &mut World| {
        for _ in 0..20 {
            world.settle();
            world.wait(10);
        }
        world.settle();
    };
    wait(&mut world);
    assert_eq!((world.phase(), page(&world)), (Phase::Healthy, false), "{}", world.status().message);
    world.report = |task| match task {
        Task::Migrate(_) => None,
        _ => well(task),
    };
    let spec = incompatible(&json!({}));
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    wait(&mut world);
    assert_eq!((schema(&world), page(&world)), (SchemaState::Changing, true), "{}", world.status().message);
    world.report = well;
    end(&mut world, reported(WorkOutcome::Done, "done"));
    wait(&mut world);
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
    assert!(!page(&world) && world.status().database.unwrap().maintenance_since.is_none());
}

#[test]
fn without_maintenance_mode_only_a_compatible_migration_is_begun() {
    let mut world = world(incompatible(&json!({})));
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "MaintenanceMissing"), "{}", status.message);
    assert!(status.next_action.contains("previousRevisionCompatible"));
    let canary = json!({"maintenance": maintained(), "strategy": {"canary": {"steps": [{"setWeight": 10}]}}});
    let mut world = with(incompatible(&json!({})), &canary);
    world.settle();
    assert_eq!(world.status().reason, "CanaryNeedsCompatibility");
}

#[test]
fn a_config_map_is_written_only_where_its_owner_agrees() {
    let mut world = with(database(&json!({})), &json!({"flags": {"configMap": "other", "values": {"NEW": "on"}}}));
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Invalid, "ConfigMapMissing"));
    assert!(status.next_action.contains(LABEL_RELEASE), "{}", status.next_action);
}

#[rstest]
#[case::one_that_old_code_lives_with(database(&json!({"migration": {"sql": {"configMap": "shop-2"}, "previousRevisionCompatible": true}})), "v1")]
#[case::one_behind_maintenance_mode(incompatible(&json!({})), "v2")]
fn no_migration_is_begun_before_the_metrics_can_be_measured(#[case] spec: Value, #[case] then: &str) {
    let mut world = breaking(&json!({}), well);
    let metric = json!({"name": "errors", "prometheus": {"query": "errors"}, "threshold": {"max": 1}});
    world.edit(|it| {
        it.database = serde_json::from_value(spec).unwrap();
        it.analysis = serde_json::from_value(json!({"metrics": [metric]})).unwrap();
    });
    world.reply = |_| Some(Reply::ProviderError("no connection".into()));
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Paused, "AnalysisInconclusive"), "{}", status.message);
    assert_eq!((made(&world), maintenance(&world)), (vec!["preflight".into()], "false".into()));
    world.say(Action::Skip, |_| {});
    world.settle();
    assert!(made(&world).contains(&"migrate".into()), "{}", world.answer());
    // Behind maintenance mode nobody waits for metrics; without it requests do.
    assert_eq!(world.stable(), then, "{}", world.status().message);
}
