//! The seed: put in once, and again where it went with the migration; a person is asked where its files lose data.

use rstest::rstest;

use crate::{
    api::RehearsalStatus,
    engine::{SEEDS_LATE, SeedDue, Seeded},
};

use super::*;

fn pod(image: &str) -> Value {
    json!({"spec": {"containers": [{"name": "tool", "image": image, "command": ["seed"]}]}})
}

fn files() -> Value {
    json!({"sql": {"configMap": "shop-seed", "set": "seed"}})
}

/// A seed that goes to code which serves already without a person's word.
fn unasked(seed: Value) -> Value {
    merged(seed, &json!({"approval": "Never"}))
}

/// All is well but that the schema is not as it was meant.
fn unverified(task: &Task) -> Option<Report> {
    match task {
        Task::Verify(_) => Some(reported(WorkOutcome::Failed, "orders is missing")),
        _ => well(task),
    }
}

/// The database's Jobs that put in a seed, or take back a migration, by what they were told.
fn told(world: &World) -> Vec<Task> {
    let of = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => job.task.clone(),
            _ => None,
        },
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

fn seeds(world: &World) -> usize {
    let is_seed = |task: &Task| match task {
        Task::Migrate(run) => run.set == "seed",
        Task::Wrap(wrapped) => wrapped.plan.starts_with("seed/"),
        _ => false,
    };
    told(world).iter().filter(|task| is_seed(task)).count()
}

/// The Jobs of rehearsals: what is put in before the verification, and the ConfigMap with that.
fn rehearsed(world: &World) -> Vec<(Option<SeedDue>, Option<String>)> {
    let of = |effect: &Effect| match effect {
        Effect::CreateJob(new) => match &new.run {
            Run::Database(job) => match &job.task {
                Some(Task::Rehearse { seed, .. }) => Some((seed.as_deref().cloned(), job.seed_files.clone())),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

/// All is well, and the rehearsal tells its times.
fn tried(task: &Task) -> Option<Report> {
    let report = well(task)?;
    let rehearsal = matches!(task, Task::Rehearse { .. }).then(RehearsalStatus::default);
    Some(Report { rehearsal, ..report })
}

#[test]
fn a_seed_that_is_due_is_part_of_the_rehearsal() {
    let rehearsed_with = |seed: Value| {
        let verify = json!({"queries": [{"name": "zones", "query": "SELECT 1 FROM zones", "expect": "Rows", "rows": {"min": 1}}]});
        let more = json!({"backup": backup(), "rehearsal": {}, "seed": seed, "verify": verify});
        let more = merged(
            more,
            &json!({"migration": {
                "sql": {"configMap": "shop-1"}, "previousRevisionCompatible": true, "approval": "Required",
            }}),
        );
        let mut world = world(database(&more));
        world.report = tried;
        world.settle();
        world
    };
    let mut world = rehearsed_with(files());
    let due = rehearsed(&world);
    let (Some(SeedDue::Files(run)), Some(map)) = &due[0] else { panic!("{due:?}") };
    assert_eq!((run.set.as_str(), run.plan.as_ref(), map.as_str()), ("seed", None, "shop-seed"));
    let waits = world.status();
    assert_eq!(waits.reason, "MigrationAwaitsApproval", "{}", waits.message);
    assert!(!waits.message.contains("verify.queries"), "{}", waits.message);
    // Once it is there the next release rehearses without.
    approved(&mut world, ApprovalKind::Migration);
    assert!(world.status().database.unwrap().seeded_at.is_some(), "{}", world.status().message);
    change(&mut world, "shop-2");
    world.settle();
    assert_eq!(rehearsed(&world).last(), Some(&(None, None)));

    let world = rehearsed_with(json!({"template": pod("seed:1")}));
    assert_eq!(rehearsed(&world), [(Some(SeedDue::Pod), None)]);
    let told = "verify.queries were not rehearsed: a pod seeds the database before them";
    assert!(world.status().message.contains(told), "{}", world.status().message);
}

#[test]
fn a_seed_that_is_not_in_the_backup_is_put_in_again_after_a_restore() {
    let back = json!({"onRollback": "Restore", "backup": backup(), "seed": unasked(files())});
    let mut world = breaking(&back, unverified);
    world.settle();
    assert_eq!(seeds(&world), 1);
    assert!(world.status().database.unwrap().seeded_at.is_some());
    approved(&mut world, ApprovalKind::Restore);
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
    assert_eq!(world.status().database.unwrap().seeded_at, None, "the status says what is so");
    world.report = well;
    world.set_image("v3");
    world.settle();
    assert_eq!((world.stable(), seeds(&world)), ("v3".into(), 2), "{}", world.status().message);
}

#[test]
fn a_seed_of_a_release_before_is_in_the_backup() {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}, "seed": files()});
    let mut world = healthy(plain, &json!({"maintenance": maintained()}));
    let seeded = world.status().database.unwrap().seeded_at;
    world.report = unverified;
    let spec = incompatible(&json!({"onRollback": "Restore", "backup": backup(), "seed": files()}));
    world.edit(|it| it.database = serde_json::from_value(spec).unwrap());
    world.set_image("v2");
    world.settle();
    approved(&mut world, ApprovalKind::Restore);
    let known = world.status().database.unwrap();
    assert_eq!((known.schema, known.seeded_at), (SchemaState::Undone, seeded));
    assert!(seeded.is_some());
}

#[test]
fn a_migration_that_is_taken_back_takes_its_seed_along() {
    let down = json!({"onRollback": "MigrateDown", "migrationDown": {"sql": {"configMap": "shop-2"}}, "seed": unasked(files())});
    let mut world = breaking(&down, unverified);
    world.settle();
    assert_eq!((world.phase(), schema(&world)), (Phase::RolledBack, SchemaState::Undone), "{}", world.status().message);
    let forgotten = told(&world).into_iter().find_map(|task| match task {
        Task::Down { seed, .. } => seed,
        _ => None,
    });
    assert_eq!(forgotten, Some(Seeded::Files("seed".into())), "the ledger forgets it, too");
    assert_eq!(world.status().database.unwrap().seeded_at, None);
    world.report = well;
    world.set_image("v3");
    world.settle();
    assert_eq!((world.stable(), seeds(&world)), ("v3".into(), 2), "{}", world.status().message);
}

#[test]
fn a_command_that_takes_a_migration_back_is_told_of_the_seed() {
    let down = json!({"onRollback": "MigrateDown", "migrationDown": {"template": pod("down:1"), "approval": "Never"}, "seed": unasked(json!({"template": pod("seed:1")}))});
    let mut world = breaking(&down, unverified);
    world.settle();
    let wrapped: Vec<_> = told(&world)
        .into_iter()
        .filter_map(|task| if let Task::Wrap(wrapped) = task { Some(wrapped) } else { None })
        .collect();
    let [seed, down] = wrapped.as_slice() else { panic!("{wrapped:?}") };
    assert_eq!((&seed.seed, &down.seed), (&None, &Some(Seeded::Command(seed.plan.clone()))));
    assert_eq!(world.status().database.unwrap().seeded_at, None);
}

/// What a seed by a pod is called in the ledger.
fn plans(world: &World) -> Vec<String> {
    let seeds = told(world).into_iter().filter_map(|task| match task {
        Task::Wrap(wrapped) | Task::Settle(wrapped) => Some(wrapped.plan),
        _ => None,
    });
    seeds.filter(|plan| plan.starts_with("seed/")).collect()
}

#[test]
fn a_seed_by_a_pod_has_one_record_for_the_object_whatever_its_image_is() {
    let seeded = |image: &str| database(&json!({"seed": {"template": pod(image)}}));
    let mut world = world(seeded("seed:1"));
    world.report = bad!(Task::Wrap(_), Failed);
    world.settle();
    world.edit(|spec| spec.database = serde_json::from_value(seeded("seed:2")).unwrap());
    world.set_image("v2");
    world.settle();
    // Made again, with the same name: it is another object, and the ledger knows the seed.
    let mut again = super::world(seeded("seed:3"));
    again.release.metadata.uid = Some("another".into());
    again.settle();
    let all: Vec<String> = plans(&world).into_iter().chain(plans(&again)).collect();
    assert_eq!(all, ["seed/default/shop"; 3]);
}

#[test]
fn a_seed_of_which_nobody_knows_halts_whatever_the_manifest_says() {
    for automatic in [true, false] {
        let seed = database(&json!({"seed": unasked(json!({"template": pod("seed:1")}))}));
        let mut world = healthy(database(&json!({})), &json!({"rollback": {"automatic": automatic}}));
        world.report = |task| match task {
            Task::Wrap(_) => {
                Some(Report { settle: "UPDATE it".into(), ..reported(WorkOutcome::Unknown, "no end on record") })
            }
            _ => well(task),
        };
        world.edit(|spec| spec.database = serde_json::from_value(seed).unwrap());
        world.set_image("v2");
        world.settle();
        let status = world.status();
        assert_eq!((status.phase, status.reason.as_str()), (Phase::Halted, "SeedUnknown"), "{}", status.message);
        assert!(status.message.contains("nobody knows what became of the seed"), "{}", status.message);
        assert!(status.next_action.contains("UPDATE it (or 'Failed')"), "{}", status.next_action);
        assert_eq!((world.condition("DatabaseReady"), world.stable()), ("Unknown".into(), "v1".into()));
        // A person has looked, and says so: it is looked for, and not put in once more.
        world.log.clear();
        world.report = well;
        world.wait(1);
        world.say(Action::Retry, |_| {});
        world.settle();
        assert_eq!(made(&world), ["settle"]);
        assert_eq!(world.phase(), Phase::RolledBack, "{}", world.status().message);
        assert!(world.status().database.unwrap().seeded_at.is_some(), "it was put in, as the ledger has it");
    }
}

#[test]
fn a_person_may_leave_a_seed_of_which_nobody_knows_as_it_is() {
    let mut world = healthy(database(&json!({})), &json!({}));
    world.report = bad!(Task::Wrap(_), Unknown);
    let seed = database(&json!({"seed": unasked(json!({"template": pod("seed:1")}))}));
    world.edit(|spec| spec.database = serde_json::from_value(seed).unwrap());
    world.set_image("v2");
    world.settle();
    assert_eq!(world.status().reason, "SeedUnknown");
    world.say(Action::Skip, |command| command.revision = None);
    world.settle();
    assert_eq!(
        (world.phase(), schema(&world)),
        (Phase::RolledBack, SchemaState::Accepted),
        "{}",
        world.status().message
    );
    assert_eq!(world.status().database.unwrap().seeded_at, None, "nobody has said that it was put in");
}

/// The files of the seed, and nothing else, lose data.
fn losing_seed(task: &Task) -> Option<Report> {
    let risks = vec!["001_rows.sql, line 1: empties a table".to_owned()];
    Some(match task {
        Task::Preflight { seed: Some(_), .. } => {
            Report { seed_hash: "s1".into(), seed_risks: risks, seed_loses_data: true, ..well(task)? }
        }
        _ => well(task)?,
    })
}

fn template(approval: &str) -> Value {
    json!({"template": pod("migrate:1"), "previousRevisionCompatible": true, "approval": approval})
}

#[rstest]
#[case::unsaid(json!({"seed": files()}), true)]
#[case::unsaid_of_an_image(json!({"seed": {"template": pod("seed:1")}}), false)]
#[case::as_the_migration(json!({"migration": template("Never"), "seed": files()}), false)]
#[case::its_own_word_counts(json!({"migration": template("Never"), "seed": merged(files(), &json!({"approval": "WhenDataLoss"}))}), true)]
#[case::never(json!({"seed": merged(files(), &json!({"approval": "Never"}))}), false)]
#[case::always_of_an_image(json!({"seed": {"template": pod("seed:1"), "approval": "Required"}}), true)]
#[case::without_a_migration(json!({"migration": null, "seed": files()}), true)]
fn the_manifest_says_when_a_person_is_asked_for_a_seed(#[case] more: Value, #[case] asks: bool) {
    let mut world = world(database(&more));
    world.report = losing_seed;
    world.settle();
    let status = world.status();
    if !asks {
        assert_eq!(status.phase, Phase::Healthy, "{}", status.message);
        return;
    }
    let told = (status.phase, status.reason.as_str());
    assert_eq!(told, (Phase::AwaitingApproval, "MigrationAwaitsApproval"), "{}", status.message);
    let what = if more["migration"].is_null() && more.get("migration").is_some() { "seed" } else { "migration" };
    let known = status.database.unwrap();
    let waits = format!("{what} {} waits for approval", known.plan_hash);
    assert!(!known.plan_hash.is_empty() && status.message.contains(&waits), "{}", status.message);
    if more["seed"].get("sql").is_some() {
        let risk = "the seed: 001_rows.sql, line 1: empties a table";
        assert!(status.message.contains(risk), "{}", status.message);
        assert!(known.seed.unwrap().loses_data && !known.loses_data);
    }
    assert_eq!(made(&world), ["preflight"], "nothing is changed before");
    approved(&mut world, ApprovalKind::Migration);
    assert_eq!(world.phase(), Phase::Healthy, "{}", world.status().message);
}

#[test]
fn other_files_of_the_seed_are_another_plan_and_only_those_that_were_looked_at_are_run() {
    let waits = |report: fn(&Task) -> Option<Report>| {
        let mut world = world(database(&json!({"seed": files()})));
        world.report = report;
        world.settle();
        world
    };
    let mut one = waits(losing_seed);
    let other = waits(|task| {
        let report = losing_seed(task)?;
        let seed_hash = report.seed_hash.replace("s1", "s2");
        Some(Report { seed_hash, ..report })
    });
    let plan = |world: &World| world.status().database.unwrap().plan_hash;
    assert_ne!(plan(&one), plan(&other));
    let revision = one.candidate();
    let not_this = Some(plan(&other));
    one.say(Action::Approve, |command| {
        command.revision = revision;
        command.approval = Some(CommandApproval { kind: ApprovalKind::Migration, plan_hash: not_this });
    });
    one.settle();
    assert!(one.answer().starts_with("Rejected: it approves plan"), "{}", one.answer());
    approved(&mut one, ApprovalKind::Migration);
    let meant = told(&one).into_iter().filter_map(|task| match task {
        Task::Migrate(run) => Some((run.set, run.plan)),
        _ => None,
    });
    let expected = [("default", "f1"), ("seed", "s1")].map(|(set, hash)| (set.to_owned(), Some(hash.to_owned())));
    assert_eq!(meant.collect::<Vec<_>>(), expected);
}

#[test]
fn a_seed_that_is_in_the_database_is_no_part_of_a_plan() {
    let plans = |more: &Value| {
        let mut world = healthy(database(more), &json!({}));
        change(&mut world, "shop-2");
        world.report = losing_seed;
        world.settle();
        assert_eq!(world.phase(), Phase::Healthy, "nobody is asked: {}", world.status().message);
        let known = world.status().database.unwrap();
        assert_eq!(known.seed, None);
        known.plan_hash
    };
    assert_eq!(plans(&json!({"seed": files()})), plans(&json!({})));
}

/// What a first deployment starts with may do harm in the database of code that serves.
#[rstest]
#[case::files(json!({"seed": files()}), true)]
#[case::an_image(json!({"seed": {"template": pod("seed:1")}}), true)]
#[case::whatever_the_migration_says(json!({"migration": template("Never"), "seed": files()}), true)]
#[case::never(json!({"seed": unasked(files())}), false)]
fn a_seed_that_comes_to_code_that_serves_waits_for_a_person(#[case] more: Value, #[case] asks: bool) {
    let before = merged(more.clone(), &json!({"seed": null}));
    let mut world = healthy(database(&before), &json!({}));
    world.edit(|spec| spec.database = serde_json::from_value(database(&more)).unwrap());
    world.set_image("v2");
    world.settle();
    let status = world.status();
    if !asks {
        assert_eq!((status.phase, seeds(&world)), (Phase::Healthy, 1), "{}", status.message);
        return;
    }
    assert_eq!(status.reason, "MigrationAwaitsApproval", "{}", status.message);
    assert!(status.message.contains(SEEDS_LATE), "{}", status.message);
    assert_eq!(made(&world), ["preflight"]);
    approved(&mut world, ApprovalKind::Migration);
    assert_eq!((world.phase(), seeds(&world)), (Phase::Healthy, 1), "{}", world.status().message);
    world.set_image("v3");
    world.settle();
    assert_eq!((world.phase(), seeds(&world)), (Phase::Healthy, 1), "it is there: {}", world.status().message);
}

/// What served without a database, or was adopted with one, has never migrated it.
#[test]
fn a_seed_that_comes_with_the_database_to_code_that_serves_waits_for_a_person() {
    let plain = json!({"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "URL"}}});
    let mut served = healthy(plain, &json!({}));
    served.set_image("v2");
    let mut adopted = super::super::world::adopted();
    adopted.report = well;
    for mut world in [served, adopted] {
        world.edit(|spec| spec.database = serde_json::from_value(database(&json!({"seed": files()}))).unwrap());
        world.settle();
        assert_eq!(world.status().reason, "MigrationAwaitsApproval", "{}", world.status().message);
        assert!(world.status().message.contains(SEEDS_LATE), "{}", world.status().message);
        assert_eq!(made(&world), ["preflight"]);
        approved(&mut world, ApprovalKind::Migration);
        assert_eq!((world.phase(), seeds(&world)), (Phase::Healthy, 1), "{}", world.status().message);
    }
}

/// A first deployment that fails after its migration has no code that serves.
#[test]
fn a_first_deployment_that_is_tried_again_asks_nobody() {
    let mut world = world(database(&json!({"seed": files()})));
    world.report = |task| match task {
        Task::Migrate(run) if run.set == "seed" => Some(reported(WorkOutcome::Failed, "a duplicate key")),
        _ => well(task),
    };
    world.settle();
    assert_eq!(world.status().reason, "FirstRevisionFailed", "{}", world.status().message);
    world.report = well;
    world.set_image("v2");
    world.settle();
    assert_eq!((world.phase(), world.stable()), (Phase::Healthy, "v2".into()), "{}", world.status().message);
}
