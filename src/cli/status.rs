//! `kubectl srel status`: waits for the outcome of the spec as it is now.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    args,
    connect::Cluster,
    error::{CliError, FIND_OPERATOR},
    exit,
    live::Live,
    outcome::{End, Outcome, Workload, judge},
    output,
    paint::{Paint, Tone},
    words,
};
use crate::api::{ServiceRelease, ServiceReleaseStatus};

/// What `status` ends with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    namespace: String,
    name: String,
    generation: i64,
    /// Healthy, RolledBack, Halted, Invalid, WaitsForPerson or TimedOut.
    outcome: String,
    exit_code: u8,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    status: ServiceReleaseStatus,
}

/// Runs `status`; the exit code says how the release ended.
///
/// # Errors
/// When the release cannot be read or is deleted.
pub async fn run(cluster: &Cluster, args: &args::Status) -> Result<u8, CliError> {
    let quiet = args.output.is_some();
    let report = wait(cluster, args, |line| if quiet { Ok(()) } else { output::print(line) }).await?;
    match args.output {
        Some(format) => output::print(&output::format(&report, format)?)?,
        None => output::print(&summary(&report, Paint::for_stdout()))?,
    }
    Ok(report.exit_code)
}

/// What is being waited for.
struct Wait<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    release: Live<ServiceRelease>,
    deployment: Option<Live<Deployment>>,
}

impl<'a> Wait<'a> {
    /// Reads the release once, so that a wrong name is an error at once, and starts the watches.
    async fn start(cluster: &'a Cluster, name: &'a str) -> Result<Self, CliError> {
        let release = cluster.release(name).await?;
        let namespace = &cluster.namespace;
        let watch = |kind: &str, name: &str| format!("watch {kind} {namespace}/{name}");
        // workloadRef is immutable, so that one look is enough.
        let deployment = release.spec.workload_ref.as_ref().map(|workload| {
            Live::one(cluster.api(), &workload.name, watch("Deployment", &workload.name), &cluster.server)
        });
        let release = Live::one(cluster.api(), name, watch("ServiceRelease", name), &cluster.server);
        Ok(Self { cluster, name, release, deployment })
    }

    /// The next state that can be judged. The Deployment's generation is always read before the
    /// release is judged by it, never from before the command began.
    async fn next(&mut self) -> Result<(ServiceRelease, Outcome), CliError> {
        loop {
            match &mut self.deployment {
                Some(deployment) => tokio::select! {
                    changed = self.release.changed() => changed?,
                    changed = deployment.changed() => changed?,
                },
                None => self.release.changed().await?,
            }
            let known = self.deployment.as_ref().is_none_or(Live::is_complete);
            if !known || !self.release.is_complete() {
                continue;
            }
            let Some(release) = self.release.single() else {
                return Err(CliError::Deleted(format!("ServiceRelease {}/{}", self.cluster.namespace, self.name)));
            };
            let workload = match &self.deployment {
                None => Workload::None,
                Some(deployment) => deployment.single().map_or(Workload::Missing, |deployment| {
                    Workload::Generation(deployment.metadata.generation.unwrap_or_default())
                }),
            };
            return Ok((release.clone(), judge(release, workload)));
        }
    }

    /// Why nothing is heard, if a watch stands still.
    fn trouble(&self) -> Option<&str> {
        self.release.trouble().or_else(|| self.deployment.as_ref().and_then(Live::trouble))
    }
}

/// Waits until there is an outcome, or the time is up.
///
/// # Errors
/// When the release cannot be read or is deleted.
pub async fn wait(
    cluster: &Cluster,
    args: &args::Status,
    mut say: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<Report, CliError> {
    let deadline = Instant::now() + std::time::Duration::from_millis(args.timeout.as_millis());
    let mut wait = Wait::start(cluster, &args.name).await?;
    let mut last: Option<(ServiceRelease, Outcome)> = None;
    let mut said = String::new();
    loop {
        let Ok(next) = tokio::time::timeout_at(deadline, wait.next()).await else {
            return timed_out(cluster, args, last, wait.trouble());
        };
        let (release, outcome) = next?;
        if let Outcome::Over(end) = outcome {
            return Ok(report(&release, &format!("{end:?}"), end.exit_code(), String::new()));
        }
        if outcome == Outcome::WaitsForPerson && (args.no_wait_for_person || !args.watch) {
            return Ok(report(&release, "WaitsForPerson", exit::WAITS_FOR_PERSON, String::new()));
        }
        if !args.watch {
            return Ok(report(&release, "UnderWay", exit::TIMEOUT, unseen(&outcome)));
        }
        let line = progress(&release, &outcome);
        if line != said {
            say(&line)?;
            said = line;
        }
        last = Some((release, outcome));
    }
}

fn timed_out(
    cluster: &Cluster,
    args: &args::Status,
    last: Option<(ServiceRelease, Outcome)>,
    trouble: Option<&str>,
) -> Result<Report, CliError> {
    let Some((release, outcome)) = last else {
        return Err(CliError::Unreachable {
            what: format!("read ServiceRelease {}/{}", cluster.namespace, args.name),
            server: cluster.server.clone(),
            why: trouble.unwrap_or("the time was up before there was an answer").to_owned(),
        });
    };
    if outcome == Outcome::WaitsForPerson {
        let detail = format!("nobody answered in {}", args.timeout);
        return Ok(report(&release, "WaitsForPerson", exit::WAITS_FOR_PERSON, detail));
    }
    let mut detail = format!("there was no outcome in {}", args.timeout);
    if let Some(trouble) = trouble {
        detail = format!("{detail}; {trouble}");
    }
    let unseen = unseen(&outcome);
    if !unseen.is_empty() {
        detail = format!("{detail}: {unseen}; is it running? {FIND_OPERATOR}");
    }
    Ok(report(&release, "TimedOut", exit::TIMEOUT, detail))
}

fn unseen(outcome: &Outcome) -> String {
    if let Outcome::Unseen(why) = outcome { why.clone() } else { String::new() }
}

fn report(release: &ServiceRelease, outcome: &str, exit_code: u8, detail: String) -> Report {
    Report {
        namespace: release.namespace().unwrap_or_default(),
        name: release.name_any(),
        generation: release.metadata.generation.unwrap_or_default(),
        outcome: outcome.to_owned(),
        exit_code,
        detail,
        status: release.status.clone().unwrap_or_default(),
    }
}

/// One line for each thing that happens.
fn progress(release: &ServiceRelease, outcome: &Outcome) -> String {
    if let Outcome::Unseen(why) = outcome {
        return format!("waiting: {why}\n");
    }
    let status = release.status.clone().unwrap_or_default();
    let message = if status.message.is_empty() { &status.reason } else { &status.message };
    let next = if status.next_action.is_empty() { String::new() } else { format!("\n  next: {}", status.next_action) };
    format!("{:?}: {message}{next}\n", status.phase)
}

/// The last words.
fn summary(report: &Report, paint: Paint) -> String {
    let (tone, status) = (tone(report.exit_code), &report.status);
    let place = format!("{}/{}", report.namespace, report.name);
    let mut text = format!("{} {}", paint.text(Tone::Strong, &place), paint.text(tone, &report.outcome));
    let about_this_spec = report.detail.is_empty() || report.exit_code == exit::WAITS_FOR_PERSON;
    for part in [report.detail.as_str(), if about_this_spec { &status.message } else { "" }] {
        if !part.is_empty() {
            text += &format!(": {part}");
        }
    }
    text.push('\n');
    if !about_this_spec && report.outcome == "TimedOut" {
        text += &format!("  last seen: {:?}: {}\n", status.phase, status.message);
    }
    if let Some(rollback) = status.rollback.as_ref().filter(|_| report.outcome == format!("{:?}", End::RolledBack)) {
        text += &format!("  why: {}: {}\n", words::fate(rollback), rollback.message);
    }
    if !status.next_action.is_empty() && report.exit_code != exit::OK && about_this_spec {
        text += &format!("  next: {}\n", status.next_action);
    }
    text
}

const fn tone(exit_code: u8) -> Tone {
    match exit_code {
        exit::OK => Tone::Good,
        exit::WAITS_FOR_PERSON | exit::TIMEOUT => Tone::Warn,
        _ => Tone::Bad,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
