//! An A/A run: stable's pods are split at random into a pretended candidate and stable, many times. Each split that
//! fails is a good release that would have been taken back.

use serde::Serialize;

use super::{CliError, dispersion::Dispersion, source::Source, splits, subject::Subject, unseen};
use crate::{
    api::{Compare, Metric, TallyStatus, Timestamp, VerdictOutcome},
    cli::{
        args::SplitArgs,
        paint::{Paint, Tone},
    },
    engine::{
        Absent, Answer, Reply, absent,
        measuring::{self, Shared},
    },
    metrics::Samples,
};

const GOOD: &str = "good";

/// What came of a metric.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its name.
    name: String,
    /// Pods of stable that answered requests.
    pub pods: usize,
    /// How many of them played the candidate.
    candidates: usize,
    /// How often they were split.
    splits: usize,
    /// Whether there are no other splits.
    exhaustive: bool,
    /// How many of the splits failed.
    failed: usize,
    /// How many may, in percent, by `compare.confidence`.
    allowed_percent: f64,
    /// The variance of events between pods over that of independent ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    dispersion: Option<f64>,
    /// What `compare.dispersion` ought to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested: Option<f64>,
    /// What it is.
    configured: f64,
    /// Which of events and good has no series.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<&'static str>,
    /// What there is of events that have no series.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Tries a metric with `compare` on stable alone.
///
/// # Errors
/// When Prometheus does not answer, or not sensibly.
pub async fn run(
    source: &Source,
    subject: &Subject,
    metric: &Metric,
    compare: Compare,
    args: &SplitArgs,
) -> Result<Run, CliError> {
    let looks: Vec<Timestamp> = subject.looks().collect();
    let counters = measuring::of_stable(metric, &subject.sides.stable).unwrap_or_default();
    let found = source.past(&metric.name, &counters, &args.pod_label, subject.from, subject.to).await?;
    let begins = std::iter::once(subject.from).chain(looks.iter().copied());
    let windows: Vec<(Timestamp, Timestamp)> = begins.zip(looks.iter().copied()).collect();
    let counted = found.values().map(|samples| {
        windows.iter().map(|(after, until)| samples.between(*after, *until)).collect::<Vec<TallyStatus>>()
    });
    let pods: Vec<Vec<TallyStatus>> = counted.filter(|pod| pod.iter().any(|it| it.requests > 0)).collect();
    let dispersion = Dispersion::of(&pods);
    let mut run = Run {
        name: metric.name.clone(),
        pods: pods.len(),
        candidates: 0,
        splits: 0,
        exhaustive: false,
        failed: 0,
        allowed_percent: ((1.0 - compare.confidence) * 1e4).round() / 1e2,
        dispersion: dispersion.map(|it| (it.between_pods * 100.0).round() / 100.0),
        suggested: dispersion.map(|it| it.suggested()),
        configured: compare.dispersion,
        absent: (!pods.is_empty() && found.values().all(Samples::is_absent))
            .then(|| if absent::is_of_good(metric) { GOOD } else { "events" }),
        hint: None,
    };
    if run.lacks_data() {
        return Ok(run);
    }
    if run.absent.is_some() {
        run.hint = unseen::hint(source, subject, metric).await;
    }
    run.candidates = splits::candidates(pods.len(), args.candidate_share);
    let made = splits::make(pods.len(), run.candidates, usize::try_from(args.runs).unwrap_or(usize::MAX), args.seed);
    run.splits = made.all.len();
    run.exhaustive = made.exhaustive;
    run.failed = made.all.iter().filter(|chosen| fails(metric, subject, &looks, &pods, chosen)).count();
    Ok(run)
}

/// Whether a split fails at one of the looks, as a release would have.
fn fails(metric: &Metric, subject: &Subject, looks: &[Timestamp], pods: &[Vec<TallyStatus>], chosen: &[usize]) -> bool {
    let mut state = measuring::begin(metric, subject.from);
    let shared = Shared { weight: 50, since: subject.from };
    looks.iter().enumerate().any(|(look, at)| {
        let mut sides = [TallyStatus::default(); 2];
        for (pod, counts) in pods.iter().enumerate() {
            let side = &mut sides[usize::from(chosen.binary_search(&pod).is_err())];
            side.requests += counts[look].requests;
            side.events += counts[look].events;
        }
        let [candidate, stable] = sides;
        let reply = Reply::Counts { candidate, stable, until: *at, absent: Absent::default() };
        measuring::take_in(metric, Some(shared), &Answer { id: String::new(), at: *at, reply }, &mut state);
        state.outcome == VerdictOutcome::Fail
    })
}

impl Run {
    /// Whether there was nothing to split: too few pods, or all that is known of them is that no request was good.
    pub fn lacks_data(&self) -> bool {
        self.pods < 2 || self.absent == Some(GOOD)
    }

    /// For people.
    pub fn render(&self, paint: Paint) -> String {
        let Self { name, pods, candidates, splits, failed, allowed_percent, configured, .. } = self;
        if *pods < 2 {
            return format!(
                "{name}: {} {pods} of stable's pods answered requests, too few to split\n",
                paint.text(Tone::Warn, "no data:")
            );
        }
        if self.lacks_data() {
            return format!("{name}: {} no series of good; {}\n", paint.text(Tone::Warn, "no data:"), absent::BUCKET);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 10,000 splits")]
        let share = 100.0 * *failed as f64 / (*splits).max(1) as f64;
        let tone = if share > *allowed_percent { Tone::Bad } else { Tone::Good };
        let verdict = paint.text(tone, &format!("{failed} of {splits} splits failed, {share:.1}%"));
        let all = if self.exhaustive { " (there are no others)" } else { "" };
        let mut text = format!(
            "{name}: {verdict}{all}; {candidates} of {pods} pods played the candidate; compare.confidence allows {allowed_percent}%\n"
        );
        if self.absent.is_some() {
            text += &format!("  {}: {}\n", absent::UNSEEN, absent::QUERY);
        }
        text.extend(self.hint.iter().map(|hint| format!("  {hint}\n")));
        if let (Some(seen), Some(suggested)) = (self.dispersion, self.suggested) {
            text += &if suggested > *configured {
                format!(
                    "  events come in bunches: their variance between pods is {seen} times that of independent ones; set compare.dispersion: {suggested} (it is {configured})\n"
                )
            } else {
                format!(
                    "  variance of events between pods over that of independent ones: {seen}; compare.dispersion is {configured}\n"
                )
            };
        }
        text
    }
}
