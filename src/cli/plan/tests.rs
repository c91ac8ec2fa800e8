//! Plans of manifests, and those of the examples.

use serde_json::json;

use super::*;
use crate::api::OnRollback;
use crate::cli::fake::{Fake, release_path};

fn release() -> ServiceRelease {
    serde_json::from_value(json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
        "metadata": {"name": "shop", "namespace": "production"},
        "spec": {
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "app", "image": "shop:2"}]}},
            "strategy": {"canary": {"steps": [{"setWeight": 10}]}},
            "database": {
                "urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}},
                "backup": {"persistentVolumeClaim": {"claimName": "backups"}},
                "migration": {"sql": {"configMap": "sql"}, "previousRevisionCompatible": true},
                "verify": {"tables": ["orders"]},
            },
        },
        "status": {"stable": {"revision": "aaa"}},
    }))
    .unwrap()
}

#[test]
fn a_plan_tells_steps_files_and_what_failure_means() {
    let files = vec![
        ("002_drop.sql".to_owned(), "DROP TABLE old;".to_owned()),
        ("001_orders.sql".to_owned(), "CREATE TABLE orders (id int);".to_owned()),
        ("002_drop.down.sql".to_owned(), "CREATE TABLE old (id int);".to_owned()),
    ];
    insta::assert_snapshot!(render(&collect(&release(), vec![("", files)]), Paint::plain()), @"
    STEP   WHAT                        IF IT FAILS
    1      database preflight          rolled back; nothing was changed
    2      backup                      rolled back; nothing was changed
    3      approval of the migration   waits for a person; nothing is changed
    4      migration                   nothing applied: rolled back; a part applied: the schema stays; unknown: halted
    5      verification                rolled back; the schema stays
    6      prepare                     rolled back; the schema stays
    7      setWeight 10                rolled back; the schema stays
    8      promote                     rolled back; the schema stays

    FILE             LOSES DATA OR REFUSES ROWS
    001_orders.sql   -
    002_drop.sql     line 1: drops tables with their rows
    ");
}

#[test]
fn nobody_is_said_to_be_waited_for_where_nothing_is_lost() {
    let told = |database: Value, files: Vec<(&str, &str)>| {
        let mut release = release();
        // Of a seed that comes to code which serves already a person is asked in any case.
        release.status = None;
        let mut spec = serde_json::to_value(release.spec.database.unwrap()).unwrap();
        database.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
        release.spec.database = Some(serde_json::from_value(spec).unwrap());
        let files = files.into_iter().map(|(what, text)| (what, vec![("001.sql".to_owned(), text.to_owned())]));
        let plan = collect(&release, files.collect());
        let step = plan.steps.iter().find(|step| step.step == "approval of the migration");
        step.map_or("no such step", |step| step.on_failure.strip_suffix("; nothing is changed").unwrap()).to_owned()
    };
    let (waits, if_lost) = ("waits for a person", "waits for a person only if data would be lost");
    let migration = |approval: &str| json!({"migration": {"sql": {"configMap": "sql"}, "approval": approval}});
    let (harmless, drop) = ("CREATE TABLE a ();", "DROP TABLE a;");
    let required = "ALTER TABLE b ADD c int NOT NULL;";
    assert_eq!(told(json!({}), vec![("", harmless)]), if_lost);
    assert_eq!(told(json!({}), vec![("", drop)]), waits);
    assert_eq!(told(json!({}), vec![("", harmless), (DOWN, drop)]), if_lost, "the way back has its own");
    assert_eq!(told(json!({}), Vec::new()), if_lost, "the files are not known");
    assert_eq!(told(json!({}), vec![("", required)]), waits);
    assert_eq!(told(json!({"rehearsal": {}}), vec![("", required)]), if_lost, "a rehearsal knows better");
    assert_eq!(told(migration("Required"), vec![("", harmless)]), waits);
    assert_eq!(told(migration("Never"), vec![("", drop)]), "no such step");
    let seed = json!({"seed": {"sql": {"configMap": "seed"}}});
    assert_eq!(told(seed.clone(), vec![("", harmless), (SEED, "DELETE FROM b;")]), waits);
    assert_eq!(told(seed, vec![("", harmless), (SEED, "INSERT INTO a VALUES (1);")]), if_lost);
}

#[test]
fn what_no_rehearsal_beside_the_database_runs_is_told_before() {
    let mut release = release();
    let files = || vec![("", vec![("001.sql".to_owned(), "SELECT 1;\nCREATE ROLE app;".to_owned())])];
    let told = |release: &ServiceRelease| {
        let plan = collect(release, files());
        plan.gaps
            .into_iter()
            .find(|gap| gap.starts_with("preflight refuses, where it is not applied: 001.sql, line 2: CREATE ROLE"))
    };
    assert_eq!(told(&release), None, "nobody rehearses it");
    let database = release.spec.database.as_mut().unwrap();
    database.rehearsal = Some(serde_json::from_value(json!({})).unwrap());
    assert!(told(&release).is_some_and(|told| told.contains("backup.scratchUrlFrom")));
    let elsewhere = json!({"secretKeyRef": {"name": "other", "key": "URL"}});
    let backup = release.spec.database.as_mut().unwrap().backup.as_mut().unwrap();
    backup.scratch_url_from = Some(serde_json::from_value(elsewhere).unwrap());
    assert_eq!(told(&release), None);
}

#[test]
fn what_takes_the_migration_back_is_shown_with_what_it_loses() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let up = [file("001_a.sql", "ALTER TABLE a ADD b int;"), file("002_c.sql", "CREATE TABLE c ();")];
    let down = [file("001_a.down.sql", "ALTER TABLE a DROP b;"), file("002_c.down.sql", "DROP TABLE c;")];
    let all = [up, down].concat();
    let plan = collect(&release(), vec![("", all.clone()), (DOWN, all)]);
    let told: Vec<&str> = plan.files.iter().map(|file| file.file.as_str()).collect();
    assert_eq!(told, ["001_a.sql", "002_c.sql", "taken back by: 002_c.down.sql", "taken back by: 001_a.down.sql"]);
    assert_eq!(plan.files[2].risks, ["line 1: drops tables with their rows"]);
}

#[test]
fn whether_a_person_is_asked_on_the_way_back_is_told() {
    let told = |down: &str, image: bool, approval: Value| {
        let mut release = release();
        let mut way_back = if image { json!({"template": {}}) } else { json!({"sql": {"configMap": "sql"}}) };
        way_back["approval"] = approval;
        let database = release.spec.database.as_mut().unwrap();
        database.on_rollback = Some(OnRollback::MigrateDown);
        database.migration_down = Some(serde_json::from_value(way_back).unwrap());
        let files = vec![(DOWN, vec![("001_a.down.sql".to_owned(), down.to_owned())])];
        let plan = collect(&release, if down.is_empty() { Vec::new() } else { files });
        plan.steps.last().unwrap().on_failure.clone()
    };
    let after = "rolled back; after another backup migrationDown is run";
    let (drop, index) = ("ALTER TABLE a DROP b;", "DROP INDEX i;");
    assert_eq!(told(drop, false, Value::Null), format!("{after}, once a person has approved, as it loses data"));
    assert_eq!(told(drop, false, json!("Never")), format!("{after}, and nobody is asked"));
    assert_eq!(told("", false, Value::Null), format!("{after}, once a person has approved if it loses data"));
    assert_eq!(told(index, false, Value::Null), "rolled back; migrationDown is run, and nobody is asked");
    assert_eq!(told("", true, json!("Never")), format!("{after}, and nobody is asked"));
    let unknown = told("", true, Value::Null);
    assert_eq!(unknown, format!("{after}, once a person has approved, as nobody knows what it loses"));
}

/// What the steps of a spec with this in it say of their failure.
fn failing(more: &Value) -> Vec<(String, String)> {
    let mut spec = serde_json::to_value(release().spec).unwrap();
    merge(&mut spec, more);
    let release = ServiceRelease { spec: serde_json::from_value(spec).unwrap(), ..release() };
    collect(&release, Vec::new()).steps.into_iter().map(|it| (it.step, it.on_failure)).collect()
}

fn merge(one: &mut Value, other: &Value) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in other {
                merge(one.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (one, other) => *one = other.clone(),
    }
}

fn of(steps: &[(String, String)], step: &str) -> String {
    steps.iter().find(|(known, _)| known == step).unwrap_or_else(|| panic!("{step} in {steps:?}")).1.clone()
}

#[test]
fn a_first_release_is_halted_and_not_rolled_back() {
    let mut release = release();
    release.status = None;
    let steps = collect(&release, Vec::new()).steps;
    assert!(steps.iter().all(|step| !step.on_failure.contains("rolled back")), "{steps:?}");
    let halted = "halted for a person, as there is nothing to go back to";
    assert_eq!(steps[0].on_failure, format!("{halted}; nothing was changed"));
    assert_eq!(steps[3].on_failure, format!("{halted}; a part applied: the schema stays; unknown: halted"));
    assert_eq!(steps.last().unwrap().on_failure, format!("{halted}; the schema stays"));
}

#[test]
fn without_an_automatic_rollback_a_migration_that_fails_is_held() {
    let steps = failing(&json!({"rollback": {"automatic": false}, "observation": {"duration": "10m"}}));
    let held = "held for a person (rollback.automatic: false)";
    assert_eq!(of(&steps, "migration"), format!("{held}; unknown: halted"));
    assert_eq!(of(&steps, "observation 10m"), format!("{held}; it serves on"));
}

#[test]
fn checks_say_themselves_what_their_failure_means() {
    let check = |name: &str, then: &str, when: &str| json!({"name": name, "when": [when], "onFailure": then, "http": {"path": "/"}});
    let each = |then: &str| check(then, then, "EachStep");
    let told = |checks: Value| failing(&json!({ "checks": checks }));
    assert_eq!(of(&told(json!([each("Hold")])), "check Hold"), "held for a person (onFailure: Hold)");
    assert_eq!(of(&told(json!([each("Ignore")])), "check Ignore"), "passed over (onFailure: Ignore)");
    let both = told(json!([each("Ignore"), each("Rollback")]));
    let both = of(&both, "check Ignore, Rollback");
    assert_eq!(both, "Rollback: rolled back; the schema stays; Ignore: passed over (onFailure: Ignore)");
    let after = told(json!([check("smoke", "Hold", "AfterPromotion")]));
    let after = of(&after, "observation");
    assert_eq!(after, "back to the revision before; the schema stays; smoke: held for a person (onFailure: Hold)");
}

#[rstest::rstest]
#[case::fits(json!({}), "back to the revision before; the schema stays")]
#[case::does_not_fit(
    json!({"migration": {"previousRevisionCompatible": false}}),
    "halted for a person, as the code before does not fit the schema; it serves on"
)]
#[case::restored(
    json!({"migration": {"previousRevisionCompatible": false}, "onRollback": "Restore"}),
    "back to the revision before; the backup is restored, once a person has approved"
)]
fn what_fails_after_the_promotion_has_a_row(#[case] database: Value, #[case] told: &str) {
    let steps = failing(&json!({"database": database, "observation": {"duration": "10m"}}));
    assert_eq!(of(&steps, "observation 10m"), told);
    assert_eq!(steps.last().unwrap().0, "observation 10m");
}

const MANIFEST: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: sql}
data: {001_drop.sql: DROP TABLE old;}
---
apiVersion: servicerelease.io/v1alpha1
kind: ServiceRelease
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template: {metadata: {labels: {app: shop}}, spec: {containers: [{name: app, image: 'shop:3'}]}}
  strategy: {blueGreen: {}}
  database:
    urlFrom: {secretKeyRef: {name: db, key: URL}}
    migration: {sql: {configMap: sql}, previousRevisionCompatible: true}
";

fn planned(filename: &str) -> args::Plan {
    args::Plan { name: "shop".into(), filename: Some(filename.into()), output: None }
}

#[tokio::test]
async fn a_manifest_has_a_plan_before_it_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.yaml");
    std::fs::write(&path, MANIFEST).unwrap();
    let (fake, cluster) = Fake::start();
    let args = planned(path.to_str().unwrap());
    assert_eq!(run(&cluster, &args).await.unwrap(), exit::OK);
    let read = manifest(MANIFEST, "shop.yaml", "shop").unwrap();
    let map = read.config_maps[0].data.clone().unwrap().into_iter().collect();
    let plan = collect(&read.release, vec![("", map)]);
    assert_eq!(plan.files[0].risks, ["line 1: drops tables with their rows"]);
    assert!(plan.steps.iter().any(|step| step.step == "migration"), "{plan:?}");
    // What is known of it in the cluster counts.
    fake.put(&release_path("shop"), serde_json::to_value(release()).unwrap());
    assert_eq!(run(&cluster, &args).await.unwrap(), exit::OK);
}

#[test]
fn the_files_of_a_seed_are_shown_until_it_is_there() {
    let mut release = release();
    let seed = json!({"sql": {"configMap": "rows", "set": "seed"}});
    release.spec.database.as_mut().unwrap().seed = serde_json::from_value(seed).unwrap();
    assert_eq!(config_maps(&release), [("", "sql".to_owned()), ("seed: ", "rows".to_owned())]);
    let rows = vec![("001_rows.sql".to_owned(), "DELETE FROM zones;".to_owned())];
    let plan = collect(&release, vec![("seed: ", rows)]);
    assert_eq!((plan.files[0].file.as_str(), plan.files[0].risks.len()), ("seed: 001_rows.sql", 1));
    let known = json!({"stable": {"revision": "aaa"}, "database": {"seededAt": "2026-01-02T03:04:05Z"}});
    release.status = Some(serde_json::from_value(known).unwrap());
    assert_eq!(config_maps(&release), [("", "sql".to_owned())]);
}

#[test]
fn what_the_files_make_has_no_values_unless_some_of_them_were_run_before() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let texts = || {
        let rows = "INSERT INTO zones VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 1;";
        let up = [
            file("001_a.sql", "CREATE TABLE zones (id int PRIMARY KEY);"),
            file("002_b.sql", "UPDATE zones SET id = 2;"),
        ];
        vec![("", up.to_vec()), ("seed: ", vec![file("001_rows.sql", rows)])]
    };
    let told = |release: &ServiceRelease| {
        let plan = collect(release, texts());
        plan.files.into_iter().map(|file| file.risks.len()).collect::<Vec<_>>()
    };
    let mut release = release();
    assert_eq!(told(&release), [0, 0, 0]);
    let known = json!({"stable": {"revision": "aaa"}, "database": {"release": 1}});
    release.status = Some(serde_json::from_value(known).unwrap());
    assert_eq!(told(&release), [0, 1, 1]);
}

#[test]
fn a_manifest_that_is_none_is_told() {
    let told = |text: &str, name: &str| manifest(text, "shop.yaml", name).unwrap_err().to_string();
    assert_eq!(told(MANIFEST, "other"), "shop.yaml has no ServiceRelease other");
    assert!(told(": :\n- x", "shop").starts_with("shop.yaml: "));
    let wrong = MANIFEST.replace("blueGreen: {}", "blueGreen: 7");
    assert!(told(&wrong, "shop").starts_with("shop.yaml: ServiceRelease shop: invalid type"));
}

#[rstest::rstest]
#[case::files_for_the_first_time(json!({"sql": {"configMap": "sql"}}), json!(null), None)]
#[case::files_once_more(json!({"sql": {"configMap": "sql"}}), json!({}), Some("files that the ledger has"))]
#[case::an_image(json!({"template": {}}), json!(null), Some("nobody reads what the migration's image runs, since it mounts no ConfigMap"))]
fn what_is_not_seen_is_told(#[case] change: Value, #[case] known: Value, #[case] told: Option<&str>) {
    let mut release = release();
    let database = json!({"urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}, "migration": change});
    release.spec.database = serde_json::from_value(database).unwrap();
    release.status = serde_json::from_value(json!({"stable": {"revision": "aaa"}, "database": known})).unwrap();
    let gaps = collect(&release, Vec::new()).gaps.join("");
    assert_eq!(told.is_some_and(|told| gaps.contains(told)), told.is_some(), "{gaps}");
    assert_eq!(gaps.is_empty(), told.is_none(), "{gaps}");
}

#[test]
fn that_nobody_reads_what_seeds_the_database_is_told() {
    let told = |seed: Value| {
        let mut release = release();
        release.status = None;
        release.spec.database.as_mut().unwrap().seed = serde_json::from_value(seed).unwrap();
        collect(&release, Vec::new()).gaps.into_iter().find(|gap| gap.contains("the seed's image")).unwrap_or_default()
    };
    let unread = "nobody reads what the seed's image runs, since it mounts no ConfigMap";
    assert_eq!(told(json!({"template": {}})), format!("{unread}, and nobody is asked"));
    assert_eq!(told(json!({"template": {}, "approval": "WhenDataLoss"})), unread, "it asks always then");
    assert_eq!(told(json!({"sql": {"configMap": "rows", "set": "seed"}})), "");
}

#[test]
fn a_seed_that_comes_after_the_first_deployment_is_told() {
    let told = |seed: Value| {
        let mut release = release();
        release.spec.database.as_mut().unwrap().seed = serde_json::from_value(seed).unwrap();
        release.status = Some(serde_json::from_value(json!({"stable": {"revision": "aaa"}})).unwrap());
        collect(&release, Vec::new())
            .gaps
            .into_iter()
            .find(|gap| gap.contains("comes to code that serves already"))
            .unwrap()
    };
    let seed = |approval: Value| json!({"sql": {"configMap": "rows", "set": "seed"}, "approval": approval});
    assert!(told(seed(Value::Null)).contains("a person is asked first"));
    assert!(told(seed(json!("Never"))).contains("nobody is asked"));
}

#[test]
fn what_was_applied_is_not_run_again() {
    let mut release = release();
    let template = crate::engine::Template::new(serde_json::to_value(&release.spec.template).unwrap());
    let migration = crate::engine::migration(&release.spec, Some(&template)).unwrap();
    let known = json!([{"migration": migration, "release": 1, "at": "2026-01-02T03:04:05Z"}]);
    let status = json!({"stable": {"revision": "aaa"}, "database": {"migrations": known}});
    release.status = Some(serde_json::from_value(status).unwrap());
    let plan = collect(&release, Vec::new());
    assert!(plan.steps.iter().all(|step| step.step != "migration"), "{plan:?}");
    assert_eq!(config_maps(&release), []);
}

/// Nobody is there to approve them: they are applied as they are, by scenarios and by whoever tries one.
#[test]
fn the_files_of_the_examples_lose_nothing() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for document in documents.iter().filter(|document| document["kind"] == "ServiceRelease") {
            let name = document["metadata"]["name"].as_str().unwrap();
            let Manifest { release, config_maps: known } = manifest(&text, "an example", name).unwrap();
            let due = Situation::next(&release).due;
            let texts = config_maps(&release).into_iter().flat_map(|(what, name)| {
                let map = known.iter().find(|map| map.metadata.name.as_ref() == Some(&name));
                let data = map.unwrap().data.clone().unwrap();
                match what {
                    MOUNTED => mounted::files(&release, due, &name, data),
                    _ => vec![(what, data.into_iter().collect())],
                }
            });
            let plan = collect(&release, texts.collect());
            let forward =
                plan.files.into_iter().filter(|it| ![DOWN, BACK].iter().any(|what| it.file.starts_with(what)));
            files.extend(forward.map(|file| (path.file_name().unwrap().to_owned(), file.file, file.risks)));
        }
    }
    assert!(files.len() >= 20, "{files:?}");
    for what in ["seed: ", MOUNTED] {
        assert!(files.iter().any(|(_, file, _)| file.starts_with(what)), "{what}: {files:?}");
    }
    files.retain(|(_, _, risks)| !risks.is_empty());
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn what_a_rehearsal_leaves_to_the_real_database_is_told() {
    let told = |seed: Value| {
        let mut release = release();
        let database = release.spec.database.as_mut().unwrap();
        database.rehearsal = Some(serde_json::from_value(json!({})).unwrap());
        database.verify = serde_json::from_value(json!({"queries": [{"name": "q", "query": "SELECT 1"}]})).unwrap();
        database.seed = serde_json::from_value(seed).unwrap();
        collect(&release, Vec::new()).gaps.iter().any(|gap| gap.contains("the rehearsal asks no verify.queries"))
    };
    assert!(told(json!({"template": {}})));
    assert!(!told(json!({"sql": {"configMap": "rows", "set": "seed"}})) && !told(Value::Null));
}
