//! What is analyzed: whose metrics, in which window, whose pods.

use kube::Api;
use serde::Serialize;

use super::past::{self, Past};
use crate::{
    api::{
        Analysis, AnalysisTemplate, AnalysisTemplateSpec, Duration, GROUP, Metric, ServiceRelease, TemplateRef,
        Timestamp, crds,
    },
    cli::{
        args::{Analyze, Connection, WindowArgs},
        connect::Cluster,
        error::CliError,
        lint,
    },
    engine::{
        NamedTemplate,
        measuring::Shared,
        names::Sides,
        templates::{self, Fault},
    },
};

/// The weight that is written beside what was counted where nobody knows it; the share is counted, not taken from it.
const UNKNOWN_WEIGHT: i32 = 50;

/// See the module.
#[derive(Debug)]
pub struct Subject {
    /// The metrics, those of templates included.
    pub analysis: Analysis,
    /// The names for their texts.
    pub sides: Sides,
    /// When the candidate began to have traffic.
    pub from: Timestamp,
    /// The end of the window.
    pub to: Timestamp,
    weights: Vec<(Timestamp, i32)>,
    title: String,
}

/// What was looked at, for the report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    title: String,
    from: Timestamp,
    to: Timestamp,
    interval: Duration,
}

impl Summary {
    /// In a line.
    pub fn line(&self) -> String {
        format!("{}, {} to {}, a look every {}", self.title, self.from, self.to, self.interval)
    }
}

impl Subject {
    /// For the report.
    pub fn summary(&self) -> Summary {
        Summary { title: self.title.clone(), from: self.from, to: self.to, interval: self.analysis.interval }
    }

    /// When the operator would have looked: after each interval, of which the first at a weight begins when it is reached.
    pub fn looks(&self) -> impl Iterator<Item = Timestamp> {
        let interval = self.analysis.interval.max(Duration::from_secs(1));
        let next = move |last: &Timestamp| {
            let at = last.plus(interval);
            // A look before it is due is put off, perhaps beyond the next weight.
            let put_off = |at: &Timestamp| {
                let due = self.shared(*at).since.plus(interval);
                (due > *at).then_some(due)
            };
            std::iter::successors(Some(at), put_off).last()
        };
        std::iter::successors(next(&self.from), next).take_while(|at| *at <= self.to)
    }

    /// How the traffic was shared at a moment, and since when.
    pub fn shared(&self, at: Timestamp) -> Shared {
        let last = self.weights.iter().rev().find(|(since, _)| *since <= at);
        let (since, weight) = last.copied().unwrap_or((self.from, UNKNOWN_WEIGHT));
        Shared { weight, since }
    }
}

/// Finds it: from the manifest, the flags, and a release in the cluster, where one is named.
///
/// # Errors
/// When something is neither given nor known.
pub async fn find(connection: &Connection, args: &Analyze, now: Timestamp) -> Result<Subject, CliError> {
    let cluster = match &args.name {
        Some(_) => Some(Cluster::connect(connection).await?),
        None => None,
    };
    let seen = match (&cluster, &args.name) {
        (Some(cluster), Some(name)) => Some(cluster.release(name).await?),
        _ => None,
    };
    let (mut release, mut known) = match (&args.filename, &seen) {
        (Some(path), _) => manifest(&lint::read(path)?, &path.display().to_string())?,
        (None, Some(seen)) => (seen.clone(), Vec::new()),
        (None, None) => return Err(usage("no release is named", "give NAME, a manifest with -f, or both")),
    };
    let namespace = cluster.as_ref().map(|cluster| cluster.namespace.clone()).or_else(|| connection.namespace.clone());
    if let Some(namespace) = namespace {
        release.metadata.namespace = Some(namespace);
    }
    release.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    if let Some(seen) = &seen {
        release.metadata.name.clone_from(&seen.metadata.name);
    }
    let wanted = release.spec.analysis.clone();
    let wanted = wanted.ok_or_else(|| usage("the manifest has no spec.analysis", "add the metrics to be tried"))?;
    if let Some(cluster) = &cluster {
        read_templates(cluster, &wanted, &mut known).await?;
    }
    let analysis = only(resolve(&wanted, &known)?, &args.metrics)?;
    let past = seen.as_ref().map(|seen| past::last_release(&seen.status.clone().unwrap_or_default(), now));
    assemble(&release, analysis, args, past)
}

fn usage(what: impl Into<String>, remedy: &str) -> CliError {
    CliError::Usage { what: what.into(), remedy: remedy.to_owned() }
}

/// Puts it together, of a past release as far as flags do not say otherwise.
///
/// # Errors
/// When something is neither given nor known.
pub fn assemble(
    release: &ServiceRelease,
    analysis: Analysis,
    args: &Analyze,
    past: Option<Result<Past, &'static str>>,
) -> Result<Subject, CliError> {
    let WindowArgs { from, to, revision, stable_revision, candidate_pods, stable_pods } = &args.window;
    let name = release.metadata.name.clone().unwrap_or_default();
    let known = past.as_ref().and_then(|past| past.as_ref().ok());
    let why = past.as_ref().and_then(|past| past.as_ref().err());
    let missing = |flags: &str| match why {
        Some(why) => usage(format!("the status of {name} does not tell it: {why}"), &format!("give {flags}")),
        None => usage(format!("{flags} is missing"), "give it, or NAME, whose last release is taken"),
    };
    let (from, to) = match (from, to, known) {
        (Some(from), Some(to), _) => (time("--from", from)?, time("--to", to)?),
        (_, _, Some(past)) => (past.from, past.to),
        _ => return Err(missing("--from and --to")),
    };
    // Once it is promoted, the candidate's pods are stable's.
    let until = known.filter(|past| revision.as_ref().is_none_or(|it| *it == past.candidate)).map(|past| past.to);
    let to = until.filter(|until| from < *until).map_or(to, |until| until.min(to));
    if from >= to {
        return Err(usage("--from is not before --to", "give the beginning of the window first"));
    }
    let given = |flag: &Option<String>, pods: &Option<String>, known: Option<&String>| {
        flag.clone().or_else(|| known.cloned()).or_else(|| pods.as_ref().map(|_| String::new()))
    };
    let stable = given(stable_revision, stable_pods, known.map(|past| &past.stable));
    let stable = stable.ok_or_else(|| missing("--stable-revision or --stable-pods"))?;
    let candidate = given(revision, candidate_pods, known.map(|past| &past.candidate));
    let candidate = match candidate {
        None if args.aa => stable.clone(),
        other => other.ok_or_else(|| missing("--revision or --candidate-pods"))?,
    };
    let mut sides = Sides::new(release, analysis.interval, &candidate, &stable);
    if let Some(pods) = candidate_pods {
        sides.candidate = sides.candidate.with_pods(pods);
    }
    if let Some(pods) = stable_pods {
        sides.stable = sides.stable.with_pods(pods);
    }
    let side = |hash: &str, pods: &Option<String>| pods.clone().unwrap_or_else(|| hash.to_owned());
    let title = match args.aa {
        true => format!("{name}: {} against itself", side(&stable, stable_pods)),
        false => format!("{name}: {} against {}", side(&candidate, candidate_pods), side(&stable, stable_pods)),
    };
    let title = known.map_or(title.clone(), |past| format!("{title} (release {}, {})", past.number, past.end));
    let weights = known.map(|past| past.weights.clone()).unwrap_or_default();
    Ok(Subject { analysis, sides, from, to, weights, title })
}

fn time(flag: &str, text: &str) -> Result<Timestamp, CliError> {
    let read = text.parse::<jiff::Timestamp>().map(Timestamp::new);
    read.map_err(|_| usage(format!("{flag} {text:?} is no time"), "write it such as 2026-11-20T10:00:00Z"))
}

/// The first ServiceRelease of a file, and its templates.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn manifest(text: &str, path: &str) -> Result<(ServiceRelease, Vec<NamedTemplate>), CliError> {
    let wrong = |why: String| usage(format!("{path}: {why}"), "kubectl srel lint -f FILE says where");
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).map_err(|error| wrong(error.to_string()))?;
    let ours = |document: &&serde_json::Value| {
        document["apiVersion"].as_str().is_some_and(|version| version.starts_with(&format!("{GROUP}/")))
    };
    let mut templates = Vec::new();
    let mut release = None;
    for document in documents.iter().filter(ours) {
        let kind = document["kind"].as_str().unwrap_or_default();
        let read = |error: serde_json::Error| wrong(format!("{kind}: {error}"));
        match kind {
            "ServiceRelease" if release.is_none() => {
                release = Some(serde_json::from_value(document.clone()).map_err(read)?);
            }
            "AnalysisTemplate" | "ClusterAnalysisTemplate" => {
                let template: AnalysisTemplate = serde_json::from_value(document.clone()).map_err(read)?;
                templates.push(NamedTemplate {
                    name: template.metadata.name.unwrap_or_default(),
                    cluster_scope: kind == "ClusterAnalysisTemplate",
                    spec: template.spec,
                });
            }
            _ => {}
        }
    }
    let release = release.ok_or_else(|| usage(format!("{path} has no ServiceRelease"), "give the manifest of one"))?;
    Ok((release, templates))
}

/// Reads the templates that are named and were not in the file.
async fn read_templates(
    cluster: &Cluster,
    analysis: &Analysis,
    known: &mut Vec<NamedTemplate>,
) -> Result<(), CliError> {
    for TemplateRef { template_name: name, cluster_scope, .. } in &analysis.templates {
        if known.iter().any(|it| it.name == *name && it.cluster_scope == *cluster_scope) {
            continue;
        }
        let found: Option<AnalysisTemplateSpec> = if *cluster_scope {
            let api: Api<kube::api::DynamicObject> =
                Api::all_with(cluster.client.clone(), &crds::cluster_analysis_template_resource());
            let what = format!("read ClusterAnalysisTemplate {name}");
            cluster
                .call(&what, api.get_opt(name))
                .await?
                .and_then(|object| serde_json::from_value(object.data["spec"].clone()).ok())
        } else {
            let api = cluster.api::<AnalysisTemplate>();
            let what = format!("read AnalysisTemplate {name}");
            cluster.call(&what, api.get_opt(name)).await?.map(|template| template.spec)
        };
        known.extend(found.map(|spec| NamedTemplate { name: name.clone(), cluster_scope: *cluster_scope, spec }));
    }
    Ok(())
}

/// Puts the metrics of templates in.
///
/// # Errors
/// When a template is missing, or does not go with the release.
pub fn resolve(analysis: &Analysis, known: &[NamedTemplate]) -> Result<Analysis, CliError> {
    templates::resolve(analysis, known).map_err(|fault| match fault {
        Fault::Missing { field, template } => usage(
            format!("{field}: there is no {template}"),
            "give it in the same file, or NAME, so that the cluster is asked for it",
        ),
        Fault::Mismatch { field, message } => {
            usage(format!("{field}: {message}"), "correct the field that the message names")
        }
    })
}

/// The metrics that were asked for.
///
/// # Errors
/// When there is no metric of a name.
pub fn only(analysis: Analysis, names: &[String]) -> Result<Analysis, CliError> {
    if let Some(name) = names.iter().find(|name| !analysis.metrics.iter().any(|metric| metric.name == **name)) {
        let known: Vec<&str> = analysis.metrics.iter().map(|metric| metric.name.as_str()).collect();
        return Err(usage(
            format!("--metric {name}: there is no such metric"),
            &format!("there are {}", known.join(", ")),
        ));
    }
    let wanted = |metric: &Metric| names.is_empty() || names.contains(&metric.name);
    Ok(Analysis { metrics: analysis.metrics.iter().filter(|it| wanted(it)).cloned().collect(), ..analysis })
}
