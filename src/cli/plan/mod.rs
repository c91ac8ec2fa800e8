//! `kubectl srel plan`: what the next release would do, before it does: its steps, the SQL files with the statements that
//! lose data, and what would happen if a step failed.

mod failure;
mod mounted;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use failure::Outlook;
use mounted::MOUNTED;

use super::{
    args,
    connect::Cluster,
    error::CliError,
    exit, lint,
    output::{self, Cell, table},
    paint::{Paint, Tone},
};
use crate::{
    api::{Change, DatabaseTask, ServiceRelease},
    database::migrate::{files, risks},
    engine::{
        Due, leaves_queries,
        plan::{Policy, Situation, Step},
    },
};

/// The plan of a release.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// The steps, first to last.
    pub steps: Vec<Planned>,
    /// The SQL files, in their order, where the migration is due and its ConfigMap can be read; of a pod of yours those that
    /// it mounts from ConfigMaps, as they stand there (`mounted: `).
    pub files: Vec<Sql>,
    /// What is not known here, and why.
    pub gaps: Vec<String>,
}

/// One step.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// What it is.
    pub step: String,
    /// What happens if it fails.
    pub on_failure: String,
}

/// One SQL file.
#[derive(Debug, Serialize)]
pub struct Sql {
    /// Its name.
    pub file: String,
    /// Statements that lose data, rows of older code that they refuse among them, by line.
    pub risks: Vec<String>,
}

/// What a manifest has of a release.
#[derive(Debug)]
struct Manifest {
    release: ServiceRelease,
    config_maps: Vec<ConfigMap>,
}

/// Runs `plan`.
///
/// # Errors
/// When the release or the manifest cannot be read.
pub async fn run(cluster: &Cluster, args: &args::Plan) -> Result<u8, CliError> {
    let Manifest { release, config_maps: beside } = match &args.filename {
        None => Manifest { release: cluster.release(&args.name).await?, config_maps: Vec::new() },
        Some(path) => {
            let mut manifest = manifest(&lint::read(path)?, &path.display().to_string(), &args.name)?;
            manifest.release.metadata.namespace = Some(cluster.namespace.clone());
            // What was applied before is in the cluster, if anything was.
            manifest.release.status = match cluster.release(&args.name).await {
                Ok(known) => known.status,
                Err(CliError::NotFound { .. }) => None,
                Err(error) => return Err(error),
            };
            manifest
        }
    };
    let mut texts = Vec::new();
    let mut gaps = Vec::new();
    let due = Situation::next(&release).due;
    for (what, name) in config_maps(&release) {
        let api: Api<ConfigMap> = cluster.api();
        let map = match beside.iter().find(|map| map.metadata.name.as_ref() == Some(&name)) {
            Some(map) => Ok(map.clone()),
            None => cluster.call(&format!("get ConfigMap {name}"), api.get(&name)).await,
        };
        match map {
            Ok(map) if what == MOUNTED => {
                texts.push((what, mounted::files(&release, due, &name, map.data.unwrap_or_default())));
            }
            Ok(map) => texts.push((what, map.data.unwrap_or_default().into_iter().collect())),
            Err(error) => gaps.push(error.to_string()),
        }
    }
    let mut plan = collect(&release, texts);
    plan.gaps.extend(gaps);
    match args.output {
        Some(format) => output::print(&output::format(&plan, format)?)?,
        None => output::print(&render(&plan, Paint::for_stdout()))?,
    }
    Ok(exit::OK)
}

/// Reads the release of a name, and the ConfigMaps beside it.
fn manifest(text: &str, path: &str, name: &str) -> Result<Manifest, CliError> {
    let lint = format!("kubectl srel lint -f {path} says where");
    let usage = |what: String, remedy: &str| CliError::Usage { what, remedy: remedy.to_owned() };
    let documents = serde_saphyr::from_multiple(text);
    let documents: Vec<Value> = documents.map_err(|error| usage(format!("{path}: {error}"), &lint))?;
    let is = |kind: &'static str| move |document: &&Value| document["kind"] == kind;
    let named = |document: &&Value| document["metadata"]["name"] == name;
    let release = documents.iter().filter(is("ServiceRelease")).find(named);
    let release = release.ok_or_else(|| {
        usage(format!("{path} has no ServiceRelease {name}"), "give its manifest, and the name that stands there")
    })?;
    let release = serde_json::from_value(release.clone())
        .map_err(|error| usage(format!("{path}: ServiceRelease {name}: {error}"), &lint))?;
    let maps = documents.iter().filter(is("ConfigMap"));
    Ok(Manifest { release, config_maps: maps.filter_map(|map| serde_json::from_value(map.clone()).ok()).collect() })
}

/// What files are of that take the migration back.
const DOWN: &str = "taken back by: ";

/// The ConfigMaps with the SQL files of what is due, each with what it is.
fn config_maps(release: &ServiceRelease) -> Vec<(&'static str, String)> {
    let due @ Due { migration, seed } = Situation::next(release).due;
    let Some(database) = &release.spec.database else { return Vec::new() };
    let down = database.migration_down.as_ref().filter(|_| migration).map(|down| (DOWN, &down.change));
    let migration = database.migration.as_ref().filter(|_| migration).map(|migration| ("", &migration.change));
    let seed = database.seed.as_ref().filter(|_| seed).map(|seed| ("seed: ", &seed.change));
    let of = |(what, change): (&'static str, &Change)| Some((what, change.sql.as_ref()?.config_map.clone()));
    let mounted = mounted::config_maps(release, due).into_iter().map(|name| (MOUNTED, name));
    migration.into_iter().chain(seed).chain(down).filter_map(of).chain(mounted).collect()
}

/// Puts the plan together; `texts` are the names and contents of SQL files, with what they are.
#[must_use]
pub fn collect(release: &ServiceRelease, texts: Vec<(&str, Vec<(String, String)>)>) -> Plan {
    let situation = Situation::next(release);
    let policy = Policy::compile(&release.spec, &[], situation);
    let mut gaps = Vec::new();
    let mut files = Vec::new();
    let mut loses = None;
    // What of it the ledger has is not known here: a column that a file has added may have values by now.
    let ran = release.status.as_ref().is_some_and(|status| status.database.is_some());
    let mut before: Vec<files::File> = Vec::new();
    for (what, all) in texts {
        if what == MOUNTED {
            let read = |(name, text): &(String, String)| {
                files::of_a_tool(name, text).map_err(|wrong| gaps.push(wrong.to_string())).ok()
            };
            let read: Vec<files::File> = all.iter().filter_map(read).collect();
            let found = risks::of_files(&read);
            files.extend(read.iter().map(|file| sql(what, file, &found)));
            continue;
        }
        let wanted =
            |(name, _): &(String, String)| name.ends_with(".sql") && name.ends_with(".down.sql") == (what == DOWN);
        match files::ordered(all.into_iter().filter(wanted).collect()) {
            Err(wrong) => gaps.push(wrong.to_string()),
            Ok(all) if what == DOWN => {
                let found = risks::of_files(all.iter().rev());
                loses = Some(!found.is_empty());
                files.extend(all.iter().rev().map(|file| sql(what, file, &found)));
            }
            Ok(all) => {
                let found = match ran {
                    true => all.iter().flat_map(|file| risks::of_files([file])).collect(),
                    false => risks::of_files_after(&before, &all),
                };
                files.extend(all.iter().map(|file| sql(what, file, &found)));
                before.extend(all);
            }
        }
    }
    let outlook = Outlook::new(release, &policy, situation, loses);
    let mut migrated = false;
    let mut steps = Vec::new();
    for step in &policy.steps {
        steps.push(Planned { step: step.to_string(), on_failure: outlook.of(step, migrated) });
        migrated |= *step == Step::Database(DatabaseTask::Migration);
    }
    steps.extend(outlook.after_promotion(migrated));
    gaps.extend(files.iter().any(|file| file.file.starts_with(MOUNTED)).then(|| mounted::NOT_ALL.to_owned()));
    gaps.extend(unseen(release, situation));
    gaps.extend(unrehearsed(release, situation));
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    Plan { namespace, name, steps, files, gaps }
}

/// What a rehearsal does not find out.
fn unrehearsed(release: &ServiceRelease, situation: Situation) -> Option<String> {
    let database = release.spec.database.as_ref().filter(|_| situation.due.migration)?;
    let seed = database.seed.as_ref().filter(|_| situation.due.seed);
    leaves_queries(seed, database).then(|| {
        "the rehearsal asks no verify.queries: in earnest a pod seeds the database before them, and it is not run on the backup"
            .to_owned()
    })
}

/// What the manifest alone does not tell of its migration.
fn unseen(release: &ServiceRelease, situation: Situation) -> Option<String> {
    let database = release.spec.database.as_ref()?;
    let migration = database.migration.as_ref()?;
    if !situation.due.migration {
        return Some("the migration of the spec was applied before: it is not run again".to_owned());
    }
    let ran = release.status.as_ref().and_then(|status| status.database.as_ref()).is_some();
    match (&migration.change.sql, database.rehearsed()) {
        (Some(_), _) if ran => Some(
            "files that the ledger has are not run again: preflight tells those that are left (status.database.pending)".to_owned(),
        ),
        (Some(_), _) => None,
        (None, Some(_)) => {
            Some("the statements of an image are not known here: the rehearsal tells what they do to the data".to_owned())
        }
        (None, None) => Some(
            "the statements of an image are not known here, and nothing tells whether they lose data: a rehearsal would, or \
             approval: Required asks a person"
                .to_owned(),
        ),
    }
}

fn sql(what: &str, file: &files::File, found: &[risks::Found]) -> Sql {
    let of_file = found.iter().filter(|(name, _, _)| *name == file.name);
    let risks = of_file.map(|(_, line, risk)| format!("line {line}: {}", risk.told())).collect();
    Sql { file: format!("{what}{}", file.name), risks }
}

/// The plan as people read it.
#[must_use]
pub fn render(plan: &Plan, paint: Paint) -> String {
    let row = |(place, planned): (usize, &Planned)| {
        vec![
            Cell::from((place + 1).to_string()),
            Cell::from(planned.step.clone()),
            Cell::from(planned.on_failure.clone()),
        ]
    };
    let rows: Vec<Vec<Cell>> = plan.steps.iter().enumerate().map(row).collect();
    let mut text = table(&["STEP", "WHAT", "IF IT FAILS"], &rows, paint);
    if !plan.files.is_empty() {
        let rows = plan.files.iter().map(|file| {
            let risks =
                if file.risks.is_empty() { Cell::from("-") } else { Cell::toned(file.risks.join("; "), Tone::Warn) };
            vec![Cell::from(file.file.clone()), risks]
        });
        text.push('\n');
        text.push_str(&table(&["FILE", "LOSES DATA OR REFUSES ROWS"], &rows.collect::<Vec<_>>(), paint));
    }
    for gap in &plan.gaps {
        text.push_str(&format!("\n{gap}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
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
    #[case::an_image(json!({"template": {}}), json!(null), Some("nothing tells whether they lose data"))]
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
}
