//! promote, abort, undo, retry, approve, pause, resume, skip: makes a ReleaseCommand for what the
//! person saw, sends it and waits for the operator's answer.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, ResourceExt as _, api::PostParams};
use tokio::time::Instant;

use super::{
    args::{Format, Say},
    connect::Cluster,
    error::{CliError, FIND_OPERATOR},
    exit,
    live::Live,
    output,
    paint::{Paint, Tone},
};
use crate::api::{
    Action, ApprovalKind, CommandApproval, CommandPhase, Phase, ReleaseCommand, ReleaseCommandSpec,
    ReleaseCommandStatus, ServiceRelease, ServiceReleaseStatus, StepName,
};

/// What is asked for, over and above the action.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Promote: pass all pauses.
    pub full: bool,
    /// Undo: where to.
    pub to_revision: Option<String>,
    /// Approve: a plan for the database.
    pub approval: Option<CommandApproval>,
}

/// What is approved, by the options of `approve`.
#[must_use]
pub fn approval(
    migration: Option<String>,
    migrate_down: Option<String>,
    restore: Option<String>,
) -> Option<CommandApproval> {
    let of =
        |kind: ApprovalKind, plan: Option<String>| plan.map(|plan| CommandApproval { kind, plan_hash: Some(plan) });
    let down = of(ApprovalKind::MigrateDown, migrate_down);
    of(ApprovalKind::Migration, migration).or(down).or_else(|| of(ApprovalKind::Restore, restore))
}

/// Runs one of the commands.
///
/// # Errors
/// When it makes no sense now, cannot be sent, or is refused.
pub async fn run(cluster: &Cluster, action: Action, say: &Say, wish: &Wish) -> Result<u8, CliError> {
    let release = cluster.release(&say.name).await?;
    let mut spec = compose(&release, action, wish)?;
    spec.reason = say.reason.clone();
    spec.requested_by = whoami(cluster).await;
    let mut command = ReleaseCommand::new(&name(&say.name, action, &suffix()), spec);
    command.metadata.namespace = Some(cluster.namespace.clone());
    if say.dry_run {
        output::print(&output::format(&command, say.output.unwrap_or(Format::Yaml))?)?;
        return Ok(exit::OK);
    }
    let what = format!("{} {}/{}", verb(action), cluster.namespace, say.name);
    let api: Api<ReleaseCommand> = cluster.api();
    let mut sent = cluster.call(&what, api.create(&PostParams::default(), &command)).await?;
    if say.timeout.as_millis() == 0 {
        if let Some(format) = say.output {
            output::print(&output::format(&sent, format)?)?;
            return Ok(exit::OK);
        }
        output::print(&format!("{what}: sent as ReleaseCommand {}\n", sent.name_any()))?;
        return Ok(exit::OK);
    }
    let answer = answer(cluster, &sent, say).await?;
    let (text, code) = conclude(action, &sent, answer.as_ref(), say, Paint::for_stdout());
    if let Some(format) = say.output {
        sent.status = answer;
        output::print(&output::format(&sent, format)?)?;
        return Ok(code);
    }
    output::print(&text)?;
    Ok(code)
}

/// The command for a release as it stands: for its revision, and for its step where a step is meant.
///
/// # Errors
/// When there is nothing that it could be meant for.
pub fn compose(release: &ServiceRelease, action: Action, wish: &Wish) -> Result<ReleaseCommandSpec, CliError> {
    let status = release.status.clone().unwrap_or_default();
    let candidate = status.candidate.as_ref().map(|candidate| candidate.revision.clone());
    // A release without a candidate: its migration is all.
    let alone = status.release.as_ref().filter(|_| candidate.is_none() && status.step.is_some());
    let candidate = candidate.or_else(|| alone.map(|release| release.revision.clone()));
    let stable = status.stable.as_ref().map(|stable| stable.revision.clone());
    let step = status.step.as_ref().filter(|_| candidate.is_some()).map(|step| step.index);
    // What a Halted release offers to release over the schema as it is.
    let offered = status.database.as_ref().and_then(|known| known.offered()).map(str::to_owned);
    // A step is named where a late duplicate would pass another one. Abort, Pause and a full
    // promotion are meant whatever step it is by the time they arrive.
    let (revision, step) = match action {
        Action::Promote if wish.full => (candidate, None),
        Action::Promote | Action::Approve | Action::Skip | Action::Resume => (candidate, step),
        Action::Abort | Action::Pause => (candidate, None),
        Action::Undo => (candidate.or(stable), None),
        Action::Retry => (offered.or(candidate).or_else(|| failed(&status)), None),
    };
    // What has to name a revision cannot be sent without one. Abort, Pause and Resume can: it is the
    // operator who knows whether there is something that this status does not show yet.
    let needed = matches!(action, Action::Promote | Action::Approve | Action::Skip | Action::Retry);
    if needed && revision.is_none() {
        return Err(nothing_to(action, release, &status));
    }
    if action == Action::Approve {
        approvable(release, &status, wish)?;
    }
    let step_of_strategy = || CommandApproval { kind: ApprovalKind::Step, plan_hash: None };
    Ok(ReleaseCommandSpec {
        release: release.name_any(),
        action,
        revision,
        step,
        full: wish.full.then_some(true),
        approval: (action == Action::Approve).then(|| wish.approval.clone().unwrap_or_else(step_of_strategy)),
        to_revision: wish.to_revision.clone(),
        reason: None,
        requested_by: None,
    })
}

/// Whether something waits for this approval. A plan for the database is approved by its hash: whoever says so has seen it.
fn approvable(release: &ServiceRelease, status: &ServiceReleaseStatus, wish: &Wish) -> Result<(), CliError> {
    let waits = |kind: ApprovalKind| match kind {
        ApprovalKind::Step => status.step.as_ref().is_some_and(|step| step.name == StepName::Approval),
        ApprovalKind::Migration => status.reason == "MigrationAwaitsApproval",
        ApprovalKind::MigrateDown => status.reason == "MigrateDownAwaitsApproval",
        ApprovalKind::Restore => status.reason == "RestoreAwaitsApproval",
    };
    let kind = wish.approval.as_ref().map_or(ApprovalKind::Step, |approval| approval.kind);
    if waits(kind) {
        return Ok(());
    }
    let of_database = [ApprovalKind::Migration, ApprovalKind::MigrateDown, ApprovalKind::Restore];
    let meant = of_database.into_iter().find(|kind| waits(*kind));
    if let Some(kind) = meant {
        return Err(CliError::Usage {
            what: format!("what waits is the approval of a plan ({kind:?}): {}", status.message),
            remedy: status.next_action.clone(),
        });
    }
    Err(nothing_to(Action::Approve, release, status))
}

/// The revision that Retry is meant for when there is no candidate.
fn failed(status: &ServiceReleaseStatus) -> Option<String> {
    if status.observation.as_ref().is_some_and(|observation| observation.failure.is_some()) {
        return status.stable.as_ref().map(|stable| stable.revision.clone());
    }
    let latched = status.failed_revisions.iter().rev().find(|failed| failed.latched);
    latched.map(|failed| failed.revision.clone())
}

fn nothing_to(action: Action, release: &ServiceRelease, status: &ServiceReleaseStatus) -> CliError {
    let name = release.name_any();
    let srel = format!("kubectl srel -n {}", release.namespace().unwrap_or_default());
    let why = match action {
        Action::Retry => "no revision of it has failed",
        Action::Approve if status.candidate.is_some() => "the step under way does not wait for an approval",
        _ => "no release is under way",
    };
    let stands = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
    let remedy = match status.phase {
        Phase::RolledBack | Phase::Halted if action != Action::Retry => {
            format!("it is {:?}{stands}\n  to try the failed revision again: {srel} retry {name}", status.phase)
        }
        Phase::Healthy if action == Action::Retry => {
            format!("it is Healthy{stands}\n  to go back to the revision before: {srel} undo {name}")
        }
        phase => format!("it is {phase:?}{stands}"),
    };
    CliError::NotNow { what: format!("there is nothing to {} in {name}: {why}", verb(action)), remedy }
}

/// The subcommand of an action.
const fn verb(action: Action) -> &'static str {
    match action {
        Action::Promote => "promote",
        Action::Abort => "abort",
        Action::Undo => "undo",
        Action::Retry => "retry",
        Action::Approve => "approve",
        Action::Pause => "pause",
        Action::Resume => "resume",
        Action::Skip => "skip",
    }
}

/// `shop-abort-x7k2p`: readable in a list, and never the name of an earlier command.
fn name(release: &str, action: Action, suffix: &str) -> String {
    format!("{release}-{}-{suffix}", verb(action))
}

/// Five characters that nobody else picks at the same moment, without vowels and look-alikes.
fn suffix() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // RandomState is seeded by the operating system.
    let mut random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let mut text = String::new();
    for _ in 0..5 {
        let length = ALPHABET.len() as u64;
        text.push(char::from(ALPHABET[usize::try_from(random % length).unwrap_or(0)]));
        random /= length;
    }
    text
}

/// Who asks, as the API server knows him. Clusters that do not tell get a command without a name,
/// which the timeline shows as unknown.
async fn whoami(cluster: &Cluster) -> Option<String> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review =
        cluster.call("ask who you are", api.create(&PostParams::default(), &SelfSubjectReview::default())).await;
    review.ok()?.status?.user_info?.username
}

/// Waits for the operator's decision; none if the time is up.
async fn answer(cluster: &Cluster, sent: &ReleaseCommand, say: &Say) -> Result<Option<ReleaseCommandStatus>, CliError> {
    let name = sent.name_any();
    let what = format!("watch ReleaseCommand {}/{name}", cluster.namespace);
    let deadline = Instant::now() + std::time::Duration::from_millis(say.timeout.as_millis());
    let mut command: Live<ReleaseCommand> = Live::one(cluster.api(), &name, what, &cluster.server);
    loop {
        let Ok(changed) = tokio::time::timeout_at(deadline, command.changed()).await else { return Ok(None) };
        changed?;
        match command.single() {
            Some(ReleaseCommand { status: Some(status), .. }) => return Ok(Some(status.clone())),
            Some(_) => {}
            None if command.is_complete() => {
                return Err(CliError::Deleted(format!("ReleaseCommand {}/{name}", cluster.namespace)));
            }
            None => {}
        }
    }
}

/// The last words, and the exit code.
fn conclude(
    action: Action,
    sent: &ReleaseCommand,
    answer: Option<&ReleaseCommandStatus>,
    say: &Say,
    paint: Paint,
) -> (String, u8) {
    let (name, namespace, release) = (sent.name_any(), sent.namespace().unwrap_or_default(), &say.name);
    let what = format!("{} {namespace}/{release}", verb(action));
    match answer {
        Some(ReleaseCommandStatus { phase: CommandPhase::Applied, message, .. }) => {
            (format!("{what}: {}: {message}\n", paint.text(Tone::Good, "Applied")), exit::OK)
        }
        Some(ReleaseCommandStatus { phase: CommandPhase::Rejected, message, .. }) => {
            let rejected = paint.text(Tone::Bad, "Rejected");
            let look = format!("kubectl srel -n {namespace} get {release}");
            (format!("{what}: {rejected}: {message}\n  see how it stands: {look}\n"), exit::REJECTED)
        }
        None => {
            let late = paint.text(Tone::Warn, "no answer");
            let text = format!(
                "{what}: {late} in {}; ReleaseCommand {name} stays and is decided as soon as the operator runs\n  \
                 is it running? {FIND_OPERATOR}\n  \
                 to take it back: kubectl -n {namespace} delete releasecommand {name}\n",
                say.timeout
            );
            (text, exit::TIMEOUT)
        }
    }
}

#[cfg(test)]
#[path = "say_tests.rs"]
mod tests;
