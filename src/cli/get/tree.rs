//! Draws one release as a tree: what it does, why, what a person can do, its revisions and pods,
//! what happened. Pure.

use super::{
    pods::PodView,
    steps::StepView,
    table,
    view::{RevisionView, View},
};
use crate::{
    api::{CheckOutcome, CheckStatus, Phase, Timestamp, VerdictOutcome, VerdictStatus},
    cli::{
        paint::{Paint, Tone},
        time::{ago, left, rough},
        words,
    },
};

/// Timeline entries that are shown.
const TIMELINE: usize = 8;
/// Pods of a revision that are shown, those in trouble first.
const PODS: usize = 8;

/// The whole picture. Times are shown as they are at `now`.
#[must_use]
pub fn render(view: &View, now: Timestamp, paint: Paint) -> String {
    let canvas = Canvas { view, now, paint };
    let mut lines = canvas.head();
    lines.extend(canvas.facts());
    lines.push(String::new());
    lines.extend(canvas.revisions());
    let timeline = canvas.timeline();
    if !timeline.is_empty() {
        lines.push(String::new());
        lines.extend(timeline);
    }
    let mut text = String::new();
    for line in lines {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

struct Canvas<'a> {
    view: &'a View,
    now: Timestamp,
    paint: Paint,
}

impl Canvas<'_> {
    fn head(&self) -> Vec<String> {
        let view = self.view;
        let place = self.paint.text(Tone::Strong, &format!("{}/{}", view.namespace, view.name));
        let phase = self.paint.text(table::tone(view.phase), &format!("{:?}", view.phase));
        let told = view.reason.is_empty() || view.reason == format!("{:?}", view.phase);
        let reason = if told { String::new() } else { format!(" ({})", view.reason) };
        let mut lines = vec![format!("{place}  {phase}{reason}")];
        if !view.message.is_empty() {
            lines.push(format!("  {}", view.message));
        }
        if let Some(outdated) = &view.outdated {
            lines.push(self.paint.text(Tone::Warn, &format!("  Not about the spec as it is now: {outdated}")));
        }
        for gap in &view.gaps {
            lines.push(self.paint.text(Tone::Warn, &format!("  Incomplete: {gap}")));
        }
        lines
    }

    /// The facts, one to a line, each with its title.
    fn facts(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (title, texts) in [
            ("next", self.next()),
            ("release", self.release()),
            ("step", self.step()),
            ("weight", self.weight()),
            ("route", self.route()),
            ("checks", self.checks()),
            ("metrics", self.verdicts()),
            ("rollback", self.rollback()),
            ("failed", self.failed()),
            ("conditions", self.conditions()),
        ] {
            for (index, text) in texts.into_iter().enumerate() {
                let title = if index == 0 { title } else { "" };
                lines.push(format!("  {}{text}", self.paint.text(Tone::Faint, &format!("{title:<12}"))));
            }
        }
        lines
    }

    fn release(&self) -> Vec<String> {
        let Some(release) = &self.view.release else { return Vec::new() };
        let full = release.full_promotion_by.as_ref().map(|by| format!(", promoted in full by {by}"));
        vec![format!(
            "{} of revision {}, began {}{}",
            release.number,
            release.revision,
            ago(release.started_at, self.now),
            full.unwrap_or_default()
        )]
    }

    fn step(&self) -> Vec<String> {
        let Some(step) = &self.view.step else { return Vec::new() };
        let mut text = format!("{} of {}, {}", step.index, step.of, step.label);
        if self.view.phase == Phase::RollingBack {
            return vec![format!("was {text}")];
        }
        if let Some(by) = &step.passed_by {
            text += &format!(", passed by {by}");
        }
        match (self.moves(), step.until, step.deadline) {
            (true, Some(until), _) => text += &format!(": {}", left(until, self.now)),
            (true, None, Some(deadline)) => {
                text += &format!(
                    ", for {} (fails after {})",
                    rough(self.now.since(step.started_at)),
                    rough(deadline.since(step.started_at))
                );
            }
            _ => text += &format!(", since {}", rough(self.now.since(step.started_at))),
        }
        let mut lines = vec![text];
        if !step.all.is_empty() {
            lines.push(self.way(step));
        }
        lines
    }

    /// Whether the step's clock counts: not while a person holds the release, nor on the way back.
    const fn moves(&self) -> bool {
        let held = self.view.hold.is_some() || self.view.suspended.is_some();
        !held && matches!(self.view.phase, Phase::Progressing | Phase::Promoting)
    }

    fn way(&self, step: &StepView) -> String {
        let at = usize::try_from(step.index).unwrap_or(0);
        let steps = step.all.iter().enumerate().map(|(place, label)| match (place + 1).cmp(&at) {
            std::cmp::Ordering::Less => self.paint.text(Tone::Faint, &format!("✓ {label}")),
            std::cmp::Ordering::Equal => self.paint.text(Tone::Strong, &format!("▶ {label}")),
            std::cmp::Ordering::Greater => label.clone(),
        });
        steps.collect::<Vec<_>>().join(" → ")
    }

    fn weight(&self) -> Vec<String> {
        let Some(weights) = self.view.weights else { return Vec::new() };
        let share = |share: crate::api::WeightShare| match share.candidate {
            0 => format!("stable {}%", share.stable),
            _ => format!("candidate {}%, stable {}%", share.candidate, share.stable),
        };
        let mut text = share(weights.desired);
        if weights.desired != weights.observed {
            let observed = match (weights.observed.candidate, weights.observed.stable) {
                (0, 0) => "no ready endpoint".to_owned(),
                _ => share(weights.observed),
            };
            text += &self.paint.text(Tone::Warn, &format!(" (observed: {observed})"));
        }
        vec![text]
    }

    fn route(&self) -> Vec<String> {
        let Some(route) = &self.view.route else { return Vec::new() };
        let weight = match route.weight {
            Some(weight) => format!("{weight}% to the candidate's Service"),
            None => self.paint.text(Tone::Warn, "weights that are not the operator's"),
        };
        let accepted = match (&route.contested_by, route.accepted_at) {
            (Some(manager), _) => self.paint.text(Tone::Bad, &format!("contested by {manager}")),
            (None, Some(at)) => format!("accepted {}", ago(at, self.now)),
            (None, None) => self.paint.text(Tone::Warn, "not accepted by every Gateway"),
        };
        let headers = route.header_route.iter().map(|headers| format!(", and requests with {headers}"));
        let copies = route.mirror_percent.iter().map(|percent| format!(", and copies of {percent}%"));
        let kind = route.kind.as_deref().unwrap_or("HTTPRoute");
        let page = route.maintenance.then(|| ", behind maintenance".to_owned());
        let extras: String = headers.chain(copies).chain(page).collect();
        vec![format!("{kind} {}: {weight}{extras}, {accepted}", route.name)]
    }

    /// A line for each check that failed or is being asked; those that passed in one.
    fn checks(&self) -> Vec<String> {
        let passed = |check: &&CheckStatus| check.outcome == CheckOutcome::Passed;
        let (good, others): (Vec<_>, Vec<_>) = self.view.checks.iter().partition(passed);
        let names: Vec<&str> = good.iter().map(|check| check.name.as_str()).collect();
        let good =
            (!names.is_empty()).then(|| format!("{} {}", self.paint.text(Tone::Good, "passed"), names.join(", ")));
        let line = |check: &CheckStatus| {
            let (tone, word) = match check.outcome {
                CheckOutcome::Failed => (Tone::Bad, "failed"),
                CheckOutcome::Skipped => (Tone::Warn, "skipped"),
                _ => (Tone::Warn, "asked"),
            };
            format!("{} {}: {}", self.paint.text(tone, word), check.name, check.message)
        };
        good.into_iter().chain(others.into_iter().map(line)).collect()
    }

    fn verdicts(&self) -> Vec<String> {
        let line = |verdict: &VerdictStatus| {
            let tone = match verdict.outcome {
                VerdictOutcome::Pass => Tone::Good,
                VerdictOutcome::Fail => Tone::Bad,
                VerdictOutcome::Inconclusive | VerdictOutcome::Ignored => Tone::Warn,
            };
            let word = format!("{:<12}", format!("{:?}", verdict.outcome));
            let when = verdict.measured_at.map(|at| format!(" ({})", ago(at, self.now))).unwrap_or_default();
            let dry = if verdict.dry_run { " (dry run)" } else { "" };
            format!("{} {}{dry}: {}{when}", self.paint.text(tone, &word), verdict.name, verdict.message)
        };
        self.view.verdicts.iter().map(line).collect()
    }

    fn rollback(&self) -> Vec<String> {
        let Some(rollback) = &self.view.rollback else { return Vec::new() };
        let when = match (rollback.completed_at, rollback.drain_until) {
            (Some(at), _) => format!("completed {}", ago(at, self.now)),
            (None, Some(until)) => format!("traffic is back, pods drain: {}", left(until, self.now)),
            (None, None) => format!("under way for {}", rough(self.now.since(rollback.started_at))),
        };
        let title = format!("{} (release {}), {}", rollback.revision, rollback.release, words::fate(rollback));
        vec![self.paint.text(Tone::Bad, &title), format!("{when}; {}", rollback.message)]
    }

    /// Latched failures that the rollback does not tell already.
    fn failed(&self) -> Vec<String> {
        let told = self.view.rollback.as_ref().map(|rollback| (&rollback.revision, rollback.release));
        let failed = self.view.failed.iter().filter(|failed| told != Some((&failed.revision, failed.release)));
        failed
            .map(|failed| {
                format!("{} {}: {}: {}", failed.revision, ago(failed.at, self.now), failed.reason, failed.message)
            })
            .collect()
    }

    fn conditions(&self) -> Vec<String> {
        let conditions = self.view.conditions.iter().map(|condition| {
            let tone = match (condition.kind.as_str(), condition.status.as_str()) {
                ("Ready" | "Available", "True") => Tone::Good,
                ("Ready" | "Available", "False") | ("Stalled", "True") => Tone::Bad,
                _ => Tone::Faint,
            };
            self.paint.text(tone, &format!("{}={}", condition.kind, condition.status))
        });
        let text = conditions.collect::<Vec<_>>().join("  ");
        if text.is_empty() { Vec::new() } else { vec![text] }
    }

    fn next(&self) -> Vec<String> {
        let actions = self.view.next_action.split(" | ").filter(|action| !action.is_empty());
        actions.map(|action| self.paint.text(Tone::Warn, action)).collect()
    }

    fn revisions(&self) -> Vec<String> {
        let count = self.view.revisions.len();
        let mut lines = Vec::new();
        for (index, revision) in self.view.revisions.iter().enumerate() {
            let last = index + 1 == count;
            lines.push(format!("  {} {}", if last { "└─" } else { "├─" }, self.revision(revision)));
            let stem = if last { "   " } else { "│  " };
            lines.extend(self.pods(revision).into_iter().map(|line| format!("  {stem}{line}")));
        }
        if lines.is_empty() {
            lines.push("  no revision yet".to_owned());
        }
        lines
    }

    fn revision(&self, revision: &RevisionView) -> String {
        let role = self.paint.text(Tone::Strong, &format!("{:<9}", revision.role));
        let (tone, counts) = counts(revision);
        let mut text = format!("{role} {}  {}", revision.revision, self.paint.text(tone, &counts));
        if revision.release > 0 {
            text += &format!("  release {}", revision.release);
        }
        if !revision.images.is_empty() {
            text += &format!("  {}", revision.images.join(", "));
        }
        if let Some(until) = revision.draining_until {
            let why = if revision.kept { "kept for an undo" } else { "pods drain" };
            text += &format!("  no traffic, {why}: {}", left(until, self.now));
        }
        text
    }

    fn pods(&self, revision: &RevisionView) -> Vec<String> {
        let mut pods: Vec<&PodView> = revision.pods.iter().collect();
        pods.sort_by_key(|pod| (pod.ready, pod.problem.is_none(), &pod.name));
        let hidden = if pods.len() > PODS { pods.split_off(PODS - 1) } else { Vec::new() };
        let width = |of: fn(&PodView) -> &str| pods.iter().map(|pod| of(pod).chars().count()).max().unwrap_or(0);
        let widths = (width(|pod| &pod.name), width(|pod| &pod.state));
        let mut lines = Vec::new();
        for (index, pod) in pods.iter().enumerate() {
            let last = index + 1 == pods.len() && hidden.is_empty();
            lines.push(format!("{} {}", if last { "└─" } else { "├─" }, self.pod(pod, widths)));
            if let Some(problem) = &pod.problem {
                let stem = if last { "   " } else { "│  " };
                lines.push(format!("{stem}{}", self.paint.text(Tone::Bad, &format!("  {problem}"))));
            }
        }
        if !hidden.is_empty() {
            let ready = hidden.iter().filter(|pod| pod.ready).count();
            lines.push(format!("└─ and {} more, {ready} of them ready", hidden.len()));
        }
        lines
    }

    fn pod(&self, pod: &PodView, (names, states): (usize, usize)) -> String {
        let tone = match (pod.ready, &pod.problem) {
            (true, _) => Tone::Good,
            (false, Some(_)) => Tone::Bad,
            (false, None) => Tone::Busy,
        };
        let state = self.paint.text(tone, &format!("{:<states$}", pod.state));
        let restarts = if pod.restarts == 1 { "1 restart".to_owned() } else { format!("{} restarts", pod.restarts) };
        let age = pod.created.map(|created| rough(self.now.since(created))).unwrap_or_default();
        format!("{:<names$}  {state}  {restarts:<10}  {age}", pod.name)
    }

    fn timeline(&self) -> Vec<String> {
        let timeline = &self.view.timeline;
        let hidden = timeline.len().saturating_sub(TIMELINE);
        let shown = &timeline[hidden..];
        let width = shown.iter().map(|entry| entry.kind.chars().count()).max().unwrap_or(0);
        let earlier = i64::try_from(hidden).unwrap_or(0) + self.view.timeline_dropped;
        let mut lines = Vec::new();
        if earlier > 0 {
            let hint =
                format!("  ({earlier} earlier: kubectl srel -n {} history {})", self.view.namespace, self.view.name);
            lines.push(self.paint.text(Tone::Faint, &hint));
        }
        for entry in shown {
            let by = entry.by.as_ref().map(|by| format!(" (by {by})")).unwrap_or_default();
            let when = self.paint.text(Tone::Faint, &format!("{:>9}", ago(entry.at, self.now)));
            lines.push(format!("  {when}  {:<width$}  {}{by}", entry.kind, entry.message));
        }
        lines
    }
}

fn counts(revision: &RevisionView) -> (Tone, String) {
    if revision.replicas == 0 && revision.pods.is_empty() {
        return (Tone::Faint, "no pods".to_owned());
    }
    if revision.replicas == 0 {
        return (Tone::Faint, format!("{} going", revision.pods.len()));
    }
    let mut text = format!("{}/{} ready", revision.ready, revision.replicas);
    if revision.available < revision.ready {
        text += &format!(", {} available", revision.available);
    }
    (if revision.available >= revision.replicas { Tone::Good } else { Tone::Warn }, text)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
