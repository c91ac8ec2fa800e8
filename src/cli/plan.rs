//! `kubectl srel plan`: what the next release would do, before it does: its steps, the SQL files with the statements that
//! lose data, and what would happen if a step failed.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt as _};
use serde::Serialize;

use super::{
    args,
    connect::Cluster,
    error::CliError,
    exit,
    output::{self, Cell, table},
    paint::{Paint, Tone},
};
use crate::{
    api::{Database, DatabaseTask, Moment, OnRollback, ServiceRelease},
    database::migrate::{files, risks},
    engine::plan::{Policy, Situation, Step},
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
    /// The SQL files, in their order, where the migration is due and its ConfigMap can be read.
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
    /// Statements that lose data or refuse rows, by line.
    pub risks: Vec<String>,
}

/// Runs `plan`.
///
/// # Errors
/// When the release cannot be read.
pub async fn run(cluster: &Cluster, args: &args::Plan) -> Result<u8, CliError> {
    let release = cluster.release(&args.name).await?;
    let mut texts = None;
    let mut gap = None;
    if let Some(name) = config_map(&release) {
        let api: Api<ConfigMap> = cluster.api();
        match cluster.call(&format!("get ConfigMap {name}"), api.get(&name)).await {
            Ok(map) => texts = Some(map.data.unwrap_or_default().into_iter().collect()),
            Err(error) => gap = Some(error.to_string()),
        }
    }
    let mut plan = collect(&release, texts);
    plan.gaps.extend(gap);
    match args.output {
        Some(format) => output::print(&output::format(&plan, format)?)?,
        None => output::print(&render(&plan, Paint::for_stdout()))?,
    }
    Ok(exit::OK)
}

/// The ConfigMap with the SQL files of a migration that is due.
fn config_map(release: &ServiceRelease) -> Option<String> {
    let due = Situation::next(release).due.migration;
    let migration = release.spec.database.as_ref()?.migration.as_ref().filter(|_| due)?;
    migration.change.sql.as_ref().map(|sql| sql.config_map.clone())
}

/// Puts the plan together; `texts` are the names and contents of the SQL files.
#[must_use]
pub fn collect(release: &ServiceRelease, texts: Option<Vec<(String, String)>>) -> Plan {
    let situation = Situation::next(release);
    let policy = Policy::compile(&release.spec, &[], situation);
    let database = release.spec.database.as_ref();
    let mut gaps = Vec::new();
    let mut migrated = false;
    let mut steps = Vec::new();
    for step in &policy.steps {
        let on_failure = on_failure(step, database, migrated, policy.automatic);
        steps.push(Planned { step: step.to_string(), on_failure });
        migrated |= *step == Step::Database(DatabaseTask::Migration);
    }
    let up = |(name, _): &(String, String)| name.ends_with(".sql") && !name.ends_with(".down.sql");
    let files = match texts.map(|all| files::ordered(all.into_iter().filter(up).collect())) {
        None => Vec::new(),
        Some(Err(wrong)) => {
            gaps.push(wrong.to_string());
            Vec::new()
        }
        Some(Ok(files)) => files.iter().map(sql).collect(),
    };
    if release.spec.database.as_ref().and_then(|it| it.migration.as_ref()).is_some() && !situation.due.migration {
        gaps.push("the migration of the spec was applied before: it is not run again".to_owned());
    }
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    Plan { namespace, name, steps, files, gaps }
}

fn sql(file: &files::File) -> Sql {
    let found = risks::of_files(std::slice::from_ref(file));
    let risks = found.into_iter().map(|(_, line, risk)| format!("line {line}: {}", risk.told())).collect();
    Sql { file: file.name.clone(), risks }
}

/// What happens if a step fails.
fn on_failure(step: &Step, database: Option<&Database>, migrated: bool, automatic: bool) -> String {
    let schema = match database.map(Database::on_rollback) {
        Some(OnRollback::Keep) => "the schema stays",
        Some(OnRollback::Halt) => "halted for a person, as the schema has changed",
        Some(OnRollback::MigrateDown) => "migrationDown is run",
        Some(OnRollback::Restore) => "the backup is restored, once a person has approved",
        None => "",
    };
    let hold = "held for a person (rollback.automatic: false)";
    match step {
        Step::Pause(_) | Step::Approval => "-".to_owned(),
        Step::MigrationApproval => "waits for a person; nothing is changed".to_owned(),
        Step::Database(DatabaseTask::Migration) => {
            format!("nothing applied: rolled back; a part applied: {schema}; unknown: halted")
        }
        _ if !automatic => hold.to_owned(),
        Step::Database(_) | Step::Check { when: Moment::Preflight, .. } if !migrated => {
            "rolled back; nothing was changed".to_owned()
        }
        _ if migrated => format!("rolled back; {schema}"),
        _ => "rolled back".to_owned(),
    }
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
        insta::assert_snapshot!(render(&collect(&release(), Some(files)), Paint::plain()), @"
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
    fn what_was_applied_is_not_run_again() {
        let mut release = release();
        let template = crate::engine::Template::new(serde_json::to_value(&release.spec.template).unwrap());
        let migration = crate::engine::migration(&release.spec, Some(&template)).unwrap();
        let known = json!([{"migration": migration, "release": 1, "at": "2026-01-02T03:04:05Z"}]);
        let status = json!({"stable": {"revision": "aaa"}, "database": {"migrations": known}});
        release.status = Some(serde_json::from_value(status).unwrap());
        let plan = collect(&release, None);
        assert!(plan.steps.iter().all(|step| step.step != "migration"), "{plan:?}");
        assert_eq!(config_map(&release), None);
    }
}
