//! `kubectl srel plan`: what the next release would do, before it does: its steps, the SQL files with the statements that
//! lose data, and what would happen if a step failed.

mod failure;
mod forward;
mod mounted;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use failure::Outlook;
use forward::Forward;
use mounted::{BACK, MOUNTED};

use super::{
    args,
    connect::Cluster,
    error::CliError,
    exit, lint,
    output::{self, Cell, table},
    paint::{Paint, Tone},
};
use crate::{
    api::{Change, DatabaseTask, MigrationApproval, ServiceRelease},
    database::migrate::{files, risks},
    engine::{
        Due, SEEDS_LATE, leaves_queries,
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
    /// it mounts from ConfigMaps, as they stand there (`mounted: `, and `mounted, for the way back: `).
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
                texts.extend(mounted::files(&release, due, &name, map.data.unwrap_or_default()));
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
/// What those of the seed are.
const SEED: &str = "seed: ";

/// What is due, each with what it is.
fn changes(release: &ServiceRelease, due: Due) -> Vec<(&'static str, &Change)> {
    let Some(database) = &release.spec.database else { return Vec::new() };
    let down = database.migration_down.as_ref().filter(|_| due.migration).map(|down| (DOWN, &down.change));
    let migration = database.migration.as_ref().filter(|_| due.migration).map(|migration| ("", &migration.change));
    let seed = database.seed.as_ref().filter(|_| due.seed).map(|seed| (SEED, &seed.change));
    migration.into_iter().chain(seed).chain(down).collect()
}

/// The ConfigMaps with the SQL files of what is due, each with what it is.
fn config_maps(release: &ServiceRelease) -> Vec<(&'static str, String)> {
    let due = Situation::next(release).due;
    let of = |(what, change): (&'static str, &Change)| Some((what, change.sql.as_ref()?.config_map.clone()));
    let mounted = mounted::config_maps(release, due).into_iter().map(|name| (MOUNTED, name));
    changes(release, due).into_iter().filter_map(of).chain(mounted).collect()
}

/// Puts the plan together; `texts` are the names and contents of SQL files, with what they are.
#[must_use]
pub fn collect(release: &ServiceRelease, texts: Vec<(&str, Vec<(String, String)>)>) -> Plan {
    let situation = Situation::next(release);
    let policy = Policy::compile(&release.spec, &[], situation);
    let mut gaps = Vec::new();
    let mut files = Vec::new();
    let (mut loses, mut forward) = (None, Forward::of(release));
    // What of it the ledger has is not known here: a column that a file has added may have values by now.
    let ran = release.status.as_ref().is_some_and(|status| status.database.is_some());
    let mut before: Vec<files::File> = Vec::new();
    for (what, all) in texts {
        if [MOUNTED, BACK].contains(&what) {
            let read = |(name, text): &(String, String)| {
                files::of_a_tool(name, text).map_err(|wrong| gaps.push(wrong.to_string())).ok()
            };
            let read: Vec<files::File> = all.iter().filter_map(read).collect();
            let found = risks::of_files(&read);
            gaps.extend(forward.note(what, &read, &found, read.len() < all.len()));
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
                gaps.extend(forward.note(what, &all, &found, false));
                files.extend(all.iter().map(|file| sql(what, file, &found)));
                before.extend(all);
            }
        }
    }
    let outlook = Outlook::new(release, &policy, situation, loses, forward.is_asked(situation.due));
    let mut migrated = false;
    let mut steps = Vec::new();
    for step in &policy.steps {
        steps.push(Planned { step: step.to_string(), on_failure: outlook.of(step, migrated) });
        migrated |= *step == Step::Database(DatabaseTask::Migration);
    }
    steps.extend(outlook.after_promotion(migrated));
    gaps.extend(
        files
            .iter()
            .any(|file| [MOUNTED, BACK].iter().any(|what| file.file.starts_with(what)))
            .then(|| mounted::NOT_ALL.to_owned()),
    );
    gaps.extend(unseen(release, situation));
    gaps.extend(unseen_seed(release, situation));
    gaps.extend(late_seed(release, situation));
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
        (None, None) if migration.change.is_readable() => Some(
            "of the migration's image the files *.sql are read that it mounts from ConfigMaps, and nobody reads what else its image runs: a \
             rehearsal would tell whether that loses data, or approval: Required asks a person"
                .to_owned(),
        ),
        (None, None) => Some(
            "nobody reads what the migration's image runs, since it mounts no ConfigMap, and nothing tells whether that loses data: a rehearsal \
             would, or approval: Required asks a person"
                .to_owned(),
        ),
    }
}

/// That a seed comes to code that serves already.
fn late_seed(release: &ServiceRelease, situation: Situation) -> Option<String> {
    let database = release.spec.database.as_ref().filter(|_| situation.due.seed && situation.due.late)?;
    let asked = match database.approval_seed(true) {
        MigrationApproval::Never => "nobody is asked (seed.approval: Never)",
        _ => "a person is asked first",
    };
    database.seed.as_ref().map(|_| format!("{SEEDS_LATE}, and {asked}"))
}

/// The same of its seed.
fn unseen_seed(release: &ServiceRelease, situation: Situation) -> Option<String> {
    let database = release.spec.database.as_ref().filter(|_| situation.due.seed)?;
    let seed = database.seed.as_ref().filter(|seed| !seed.change.is_readable())?;
    let asked = if database.approval_seed(situation.due.late) == MigrationApproval::Never {
        ", and nobody is asked"
    } else {
        ""
    };
    let why = "since it mounts no ConfigMap";
    seed.change.template.as_ref().map(|_| format!("nobody reads what the seed's image runs, {why}{asked}"))
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
mod tests;
