//! `kubectl srel analyze`: judges a past window from Prometheus, without a release, by what the operator itself
//! asks, counts and judges with. Writes nothing.

mod aa;
mod dispersion;
mod past;
mod replay;
mod source;
mod splits;
mod subject;
#[cfg(test)]
mod tests;
mod unseen;

use serde::Serialize;

use super::{
    args::{Analyze, Connection},
    error::CliError,
    exit, output,
    paint::Paint,
    time,
};
use source::Source;
use subject::Subject;

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was looked at.
    #[serde(flatten)]
    subject: subject::Summary,
    /// Each metric that was replayed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replayed: Vec<replay::Replayed>,
    /// Each metric that was tried on stable alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aa: Vec<aa::Run>,
    /// Metrics that cannot be looked at in this way, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

/// Runs `analyze`. The exit code is 0 whatever the verdict, and 1 if a metric found no data.
///
/// # Errors
/// When the window, the revisions or the metrics are not known, or Prometheus does not answer.
pub async fn run(connection: &Connection, args: &Analyze) -> Result<u8, CliError> {
    let source = Source::open(&args.source)?;
    let subject = subject::find(connection, args, time::now()).await?;
    let report = judge(&source, &subject, args).await?;
    match args.output {
        Some(format) => output::print(&output::format(&report, format)?)?,
        None => output::print(&report.render(Paint::for_stdout()))?,
    }
    Ok(if report.lacks_data() { exit::ERROR } else { exit::OK })
}

/// Judges each metric.
async fn judge(source: &Source, subject: &Subject, args: &Analyze) -> Result<Report, CliError> {
    let mut report = Report { subject: subject.summary(), replayed: Vec::new(), aa: Vec::new(), left_out: Vec::new() };
    for metric in &subject.analysis.metrics {
        let name = &metric.name;
        if metric.prometheus.is_none() {
            report.left_out.push(format!("{name}: only metrics of prometheus have a past to ask for"));
        } else if !args.aa {
            report.replayed.push(replay::replay(source, subject, metric).await?);
        } else if let Some(compare) = metric.compare {
            report.aa.push(aa::run(source, subject, metric, compare, &args.split).await?);
        } else {
            let why = "--aa is for metrics with compare, which tell candidate and stable apart";
            report.left_out.push(format!("{name}: {why}"));
        }
    }
    if report.replayed.is_empty() && report.aa.is_empty() {
        return Err(CliError::Usage {
            what: format!("none of the metrics can be looked at: {}", report.left_out.join("; ")),
            remedy: "give a manifest (-f) with metrics of prometheus, for --aa with compare".to_owned(),
        });
    }
    Ok(report)
}

impl Report {
    fn lacks_data(&self) -> bool {
        self.replayed.iter().any(|it| !it.has_data) || self.aa.iter().any(aa::Run::lacks_data)
    }

    fn render(&self, paint: Paint) -> String {
        let mut text = format!("{}\n", self.subject.line());
        for metric in &self.replayed {
            text += &metric.render(paint);
        }
        for metric in &self.aa {
            text += &metric.render(paint);
        }
        for left in &self.left_out {
            text += &format!("left out: {left}\n");
        }
        let acting = self.replayed.iter().filter(|metric| !metric.verdict.dry_run);
        let failed = acting.filter_map(|metric| Some((metric.failed_at?, &metric.name))).min();
        if let Some((at, name)) = failed {
            text += &format!("the release would have gone back at {at}, because of {name}\n");
        }
        text
    }
}
