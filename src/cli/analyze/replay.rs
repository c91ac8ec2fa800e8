//! A metric as the operator would have judged it, look by look, until it fails.

use serde::Serialize;

use super::{CliError, source::Source, subject::Subject, unseen};
use crate::{
    api::{Metric, Timestamp, VerdictOutcome, VerdictStatus},
    cli::paint::{Paint, Tone},
    engine::{Answer, Ask, Reply, absent, measuring},
};

/// What came of a metric.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Its name.
    pub name: String,
    /// How often it was looked at.
    looks: usize,
    /// Whether any look found something to judge.
    pub has_data: bool,
    /// When it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// Each look at which the verdict became another.
    changes: Vec<Change>,
    /// The verdict at the end, as it would stand in the status.
    pub verdict: VerdictStatus,
    /// What there is of events that have no series.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// A look at which the verdict became another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    at: Timestamp,
    outcome: VerdictOutcome,
    message: String,
}

/// Replays a metric.
///
/// # Errors
/// When Prometheus does not answer, or not sensibly: what an operator would have held for.
pub async fn replay(source: &Source, subject: &Subject, metric: &Metric) -> Result<Replayed, CliError> {
    let mut state = measuring::begin(metric, subject.from);
    let (mut looks, mut has_data, mut changes) = (0, false, Vec::<Change>::new());
    for at in subject.looks() {
        let shared = Some(subject.shared(at));
        let Some(Ask::Metric { measure, .. }) = measuring::asked(metric, &subject.sides, shared, &state) else { break };
        let reply = source.measure(&metric.name, &measure, at).await?;
        let told = match &reply {
            Reply::Noted { reply, .. } => reply,
            reply => reply,
        };
        has_data |= match told {
            Reply::Counts { candidate, stable, absent, .. } => {
                candidate.requests > 0 && absent::of_sides(metric, [*candidate, *stable], *absent, &state).is_ok()
            }
            Reply::Windows { windows, absent, .. } => {
                windows.iter().any(|window| window.requests > 0) && absent::of_windows(metric, windows, *absent).is_ok()
            }
            reply => matches!(reply, Reply::Value(_) | Reply::Share { .. }),
        };
        measuring::take_in(metric, shared, &Answer { id: String::new(), at, reply }, &mut state);
        looks += 1;
        if changes.last().is_none_or(|last| last.outcome != state.outcome) {
            changes.push(Change { at, outcome: state.outcome, message: state.message.clone() });
        }
        if state.outcome == VerdictOutcome::Fail {
            break;
        }
    }
    if looks == 0 {
        return Err(CliError::Usage {
            what: "the window is shorter than spec.analysis.interval".to_owned(),
            remedy: "give a longer one with --from and --to".to_owned(),
        });
    }
    let failed_at = state.measured_at.filter(|_| state.outcome == VerdictOutcome::Fail);
    let hint = match state.message.starts_with(absent::UNSEEN) {
        true => unseen::hint(source, subject, metric).await,
        false => None,
    };
    Ok(Replayed { name: metric.name.clone(), looks, has_data, failed_at, changes, verdict: state, hint })
}

impl Replayed {
    /// For people.
    pub fn render(&self, paint: Paint) -> String {
        let tone = |outcome: VerdictOutcome| match outcome {
            VerdictOutcome::Pass => Tone::Good,
            VerdictOutcome::Fail => Tone::Bad,
            VerdictOutcome::Inconclusive | VerdictOutcome::Ignored => Tone::Warn,
        };
        let outcome = |outcome: VerdictOutcome| paint.text(tone(outcome), &format!("{outcome:?}"));
        let Self { name, looks, verdict, changes, .. } = self;
        let times = if *looks == 1 { "1 look".to_owned() } else { format!("{looks} looks") };
        let mut text = format!("{name}: {} after {times}: {}\n", outcome(verdict.outcome), verdict.message);
        for Change { at, outcome: became, message } in changes {
            text += &format!("  {at}  {}  {message}\n", outcome(*became));
        }
        text.extend(self.hint.iter().map(|hint| format!("  {hint}\n")));
        text
    }
}
