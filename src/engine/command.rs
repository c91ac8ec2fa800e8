//! What people say. Each command is decided exactly once (INVARIANTS C1-C3): the decision is
//! recorded in the release's status together with what it changes, and then written into the
//! command. A command never waits for a better moment.

use crate::api::{
    Action, ApprovalKind, CommandPhase, CommandRecord, DatabaseApproval, Duration, ObservationStatus, RollbackCause,
    RollbackStatus, SchemaState, StepName, Suspension, Timestamp,
    status::{MAX_COMMANDS, MAX_TEXT, bounded},
};

use super::{
    analysis, contest, database, effect::Effect, forward, observation, observed::Command, pass::Pass, plan::Step,
    reach, rest, resting, retreat,
};

/// How long a decided command stays to be looked at.
pub const RETENTION: Duration = Duration::from_secs(3600);

/// Followed with what it did, or refused with why.
type Answer = Result<String, String>;

/// Decides the commands that are new, answers those that were decided, removes old ones.
pub fn decide_all(pass: &mut Pass<'_>) {
    for command in new_commands(pass) {
        if !make_room(pass) {
            break;
        }
        let noted = noted(pass);
        let answer = decide(pass, command);
        let (phase, message) = match answer {
            Ok(done) => (CommandPhase::Applied, done),
            Err(why) => (CommandPhase::Rejected, why),
        };
        if phase == CommandPhase::Applied {
            let reason = command.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            pass.status.note(pass.now, "Command", &format!("{:?}{reason}", command.action), Some(by(command)));
            // The command stands before what came of it.
            let (noted, timeline) = (self::noted(pass) - noted, &mut pass.status.timeline);
            let first = timeline.len().saturating_sub(usize::try_from(noted).unwrap_or(0));
            timeline[first..].rotate_right(1);
        }
        pass.status.commands.push(CommandRecord {
            uid: command.object.uid.clone(),
            name: command.object.name.clone(),
            action: command.action,
            phase,
            message: bounded(&message, MAX_TEXT),
            at: pass.now,
        });
    }
    answer_all(pass);
}

/// How many entries the timeline ever got.
fn noted(pass: &Pass<'_>) -> i64 {
    pass.status.timeline_dropped + i64::try_from(pass.status.timeline.len()).unwrap_or(i64::MAX)
}

/// Who asks, for the timeline.
fn by(command: &Command) -> &str {
    command.requested_by.as_deref().unwrap_or("unknown")
}

/// Undecided commands: Abort first, then as they were created.
fn new_commands<'a>(pass: &Pass<'a>) -> Vec<&'a Command> {
    let recorded = |command: &&Command| pass.status.commands.iter().any(|record| record.uid == command.object.uid);
    let mut new: Vec<&Command> =
        pass.seen.commands.iter().filter(|command| command.decided_at.is_none() && !recorded(command)).collect();
    new.sort_by_key(|command| {
        let version: u64 = command.object.resource_version.parse().unwrap_or(u64::MAX);
        (command.action != Action::Abort, command.created, version, command.object.name.clone())
    });
    new
}

/// Drops the oldest record whose command has its answer or is gone. Without one, new commands have
/// to wait for the answers that are being written.
fn make_room(pass: &mut Pass<'_>) -> bool {
    if pass.status.commands.len() < MAX_COMMANDS {
        return true;
    }
    let unanswered = |record: &CommandRecord| {
        pass.seen.commands.iter().any(|command| command.object.uid == record.uid && command.decided_at.is_none())
    };
    let droppable = pass.status.commands.iter().position(|record| !unanswered(record));
    droppable.map(|index| pass.status.commands.remove(index)).is_some()
}

fn answer_all(pass: &mut Pass<'_>) {
    for command in &pass.seen.commands {
        if let Some(at) = command.decided_at {
            if pass.elapsed(at, RETENTION) {
                pass.after.push(Effect::DeleteCommand { object: command.object.clone() });
            }
            continue;
        }
        let record = pass.status.commands.iter().find(|record| record.uid == command.object.uid);
        if let Some(CommandRecord { phase, message, at, .. }) = record.cloned() {
            pass.after.push(Effect::AnswerCommand { object: command.object.clone(), phase, message, at });
        }
    }
}

fn decide(pass: &mut Pass<'_>, command: &Command) -> Answer {
    let again = pass.status.commands.iter().find(|record| record.name == command.object.name);
    if let Some(record) = again {
        return Err(format!(
            "a command named {} was {:?} at {} already; create one with a new name",
            record.name, record.phase, record.at
        ));
    }
    if pass.release.metadata.deletion_timestamp.is_some() {
        return Err("the ServiceRelease is being deleted".into());
    }
    meant_for_this(pass, command)?;
    match command.action {
        Action::Abort => abort(pass, command),
        Action::Undo => undo(pass, command),
        Action::Retry => retry(pass),
        Action::Promote | Action::Approve | Action::Pause | Action::Resume | Action::Skip => under_way(pass, command),
    }
}

/// Rejects a command for another revision or step than the one it would meet (INVARIANTS C2).
fn meant_for_this(pass: &Pass<'_>, command: &Command) -> Result<(), String> {
    let subject = match (command.action, pass.candidate_hash()) {
        (Action::Retry, None) if pass.is_alone() => pass.status.release.as_ref().map(|it| it.revision.as_str()),
        // Whatever the spec wants by now, what is observed anew is what serves.
        (Action::Retry, None) if resting::failed_since(pass) => pass.stable_hash(),
        (Action::Retry, None) => pass.target.as_ref().map(|target| target.hash.as_str()),
        // What the spec wants by now, over the schema that the candidate left.
        (Action::Retry, Some(_)) if database::again::is_onward(pass) => database::onward::offered(pass),
        (_, Some(candidate)) => Some(candidate),
        (_, None) => pass.stable_hash(),
    };
    if let Some(revision) = &command.revision
        && Some(revision.as_str()) != subject
    {
        let subject = subject.unwrap_or("none");
        return Err(format!("it is meant for revision {revision}, but the revision concerned is {subject}"));
    }
    let index = pass.status.step.as_ref().map(|step| step.index);
    match (command.step, index) {
        (Some(meant), Some(index)) if meant != index => {
            Err(format!("it is meant for step {meant}, but the release is at step {index}"))
        }
        (Some(meant), None) => Err(format!("it is meant for step {meant}, but no release is under way")),
        _ => Ok(()),
    }
}

fn abort(pass: &mut Pass<'_>, command: &Command) -> Answer {
    if !pass.is_under_way() {
        return Err("no release is under way; Undo takes back one that was promoted".into());
    }
    let message = command.reason.clone().unwrap_or_else(|| format!("aborted by {}", by(command)));
    match pass.status.rollback.as_ref().filter(|rollback| rollback.completed_at.is_none()) {
        Some(RollbackStatus { cause: RollbackCause::Superseded, .. }) => {}
        // It might go on by itself.
        Some(_) if database::again::is_verifying(pass) => {}
        Some(RollbackStatus { cause: RollbackCause::Undone, .. }) if retreat::stuck(pass) => {
            return take_back_undo(pass, command, &message);
        }
        Some(rollback) => return Err(format!("it is being rolled back already ({})", rollback.reason)),
        None => {
            retreat::begin(pass, RollbackCause::Aborted, "Aborted", &message, Some(by(command)));
            let changing = database::schema(pass) == SchemaState::Changing;
            let waits = "the migration under way comes to its known end first";
            return Ok(if changing { waits } else { "traffic goes back to stable" }.into());
        }
    }
    if let Some(rollback) = &mut pass.status.rollback {
        rollback.cause = RollbackCause::Aborted;
        rollback.reason = "Aborted".into();
        rollback.message = message;
        rollback.by = Some(by(command).to_owned());
    }
    Ok("the candidate that is being taken back counts as aborted".into())
}

/// An Undo to a revision that does not come up: the one that still serves is stable again.
fn take_back_undo(pass: &mut Pass<'_>, command: &Command, message: &str) -> Answer {
    let Some(serves) = pass.status.candidate.clone() else { return Err("no release is under way".into()) };
    let answer = format!("{} stays; it serves still", serves.revision);
    retreat::undo(pass, serves, message, &retreat::Cause::person(by(command)));
    Ok(answer)
}

fn undo(pass: &mut Pass<'_>, command: &Command) -> Answer {
    if pass.is_under_way() {
        let to_stable = command.to_revision.as_deref().is_none_or(|to| Some(to) == pass.stable_hash());
        if let Some(rollback) = pass.status.rollback.as_ref().filter(|_| to_stable && retreat::under_way(pass))
            && rollback.cause != RollbackCause::Superseded
        {
            return Err(format!("it is being rolled back already ({})", rollback.reason));
        }
        return if to_stable { abort(pass, command) } else { Err("a release is under way; abort it first".into()) };
    }
    let Some(stable) = pass.stable_hash().map(str::to_owned) else {
        return Err("nothing was promoted yet".into());
    };
    let good = |hash: &str| observation::is_good(pass, hash);
    let known = pass.status.history.iter().rev();
    let to = match &command.to_revision {
        Some(to) => known.clone().find(|entry| entry.revision == *to && good(to)),
        None => known.clone().find(|entry| good(&entry.revision)),
    };
    let Some(to) = to.cloned() else {
        let all: Vec<&str> = known.map(|entry| entry.revision.as_str()).filter(|hash| good(hash)).collect();
        let why = "was stable, has not failed and is still kept";
        return Err(match (all.as_slice(), &command.to_revision) {
            ([], _) => format!("there is nothing to go back to: no other revision {why}"),
            (all, to) => {
                format!("{} is none that {why}; those are {}", to.as_deref().unwrap_or_default(), all.join(", "))
            }
        });
    };
    let Some(seen) = pass.revision(&to.revision) else { return Err("its ReplicaSet is gone".into()) };
    if let Some(why) = database::undo::hinders(pass, to.release) {
        return Err(why);
    }
    let entry = pass.describe(&to.revision, &seen.template, to.release);
    let message = command.reason.clone().unwrap_or_else(|| format!("back from {stable} to {}", to.revision));
    retreat::undo(pass, entry, &message, &retreat::Cause::person(by(command)));
    Ok(format!("going back from {stable} to {}", to.revision))
}

fn retry(pass: &mut Pass<'_>) -> Answer {
    if contest::by(pass).is_some() {
        contest::forgive(pass);
        return Ok("the weights are set once more".into());
    }
    if let Some(answer) = database::again::retry(pass) {
        return answer;
    }
    if pass.status.hold.take().is_some() {
        retry_step(pass, None);
        return Ok("the step is tried again".into());
    }
    let now = pass.now;
    if let Some(state) = pass.status.observation.as_mut().filter(|state| state.failure.is_some()) {
        *state = ObservationStatus {
            started_at: now,
            until: state.until,
            retried_at: Some(now),
            failure: None,
            unproven: None,
        };
        return Ok("it is observed again".into());
    }
    if pass.is_under_way() {
        return Err(match retreat::under_way(pass) {
            true => "the release is being rolled back".into(),
            false => "the release is under way, nothing has failed".into(),
        });
    }
    let Some(target) = pass.target.as_ref().map(|target| target.hash.clone()) else {
        return Err("there is no template to release".into());
    };
    if !rest::is_latched(pass, &target) {
        return Err(format!("{target} has not failed"));
    }
    for failed in &mut pass.status.failed_revisions {
        failed.latched &= failed.revision != target;
    }
    Ok(format!("{target} is released again"))
}

/// Commands that only make sense while a release goes forward.
fn under_way(pass: &mut Pass<'_>, command: &Command) -> Answer {
    if !pass.is_under_way() {
        return Err(match command.action {
            Action::Pause => "no release is under way; spec.paused holds back the next one".into(),
            Action::Resume if pass.release.spec.paused => resume_of_spec(),
            _ => "no release is under way".into(),
        });
    }
    if retreat::under_way(pass) {
        return on_the_way_back(pass, command);
    }
    let policy = pass.policy();
    let step = forward::current(pass, &policy);
    match command.action {
        Action::Pause => pause(pass, command),
        Action::Resume => resume(pass, command, step),
        Action::Approve => approve(pass, command, step),
        Action::Skip => skip(pass, command, step),
        _ => promote(pass, command, step),
    }
}

/// What a person can say about the database while a release is taken back.
fn on_the_way_back(pass: &mut Pass<'_>, command: &Command) -> Answer {
    match command.action {
        Action::Approve => match database::undo::awaited(pass) {
            Some(kind) => approve_plan(pass, command, kind),
            None => Err("the release is being rolled back".into()),
        },
        Action::Skip => {
            let settled = database::undo::accept(pass, by(command));
            settled.ok_or_else(|| "the release is being rolled back".into())
        }
        _ => Err("the release is being rolled back".into()),
    }
}

/// Approves the plan that stands in the status, and no other (RELIABILITY, migration rule 4).
fn approve_plan(pass: &mut Pass<'_>, command: &Command, kind: ApprovalKind) -> Answer {
    let plan = pass.status.database.as_ref().map(|database| database.plan(kind).to_owned()).unwrap_or_default();
    let meant = command.approval.as_ref().filter(|approval| approval.kind == kind);
    let Some(meant) = meant.and_then(|approval| approval.plan_hash.clone()) else {
        return Err(format!("what waits is an approval of kind {kind:?} for plan {plan}: name both in spec.approval"));
    };
    if meant != plan {
        return Err(format!("it approves plan {meant}, but the plan is {plan}: look at it again"));
    }
    let (by, at) = (by(command).to_owned(), pass.now);
    if let Some(database) = &mut pass.status.database {
        database.approvals.retain(|known| known.kind != kind);
        database.approvals.push(DatabaseApproval { kind, plan_hash: plan.clone(), by, at });
    }
    Ok(format!("plan {plan} is approved"))
}

fn pause(pass: &mut Pass<'_>, command: &Command) -> Answer {
    if let Some(suspended) = &pass.status.suspended {
        return Err(format!("it was paused by {} already", suspended.by));
    }
    let reason = command.reason.as_deref().map(|reason| bounded(reason, MAX_TEXT)).unwrap_or_default();
    pass.status.suspended = Some(Suspension { by: by(command).to_owned(), reason, since: pass.now });
    Ok("the release stays at this step".into())
}

fn resume_of_spec() -> String {
    "spec.paused is set; set it to false where the manifest is kept".into()
}

fn resume(pass: &mut Pass<'_>, command: &Command, step: Step) -> Answer {
    if pass.release.spec.paused {
        return Err(resume_of_spec());
    }
    if pass.status.suspended.take().is_some() {
        if step.name().waits_for_cluster() || matches!(step, Step::Check { .. }) {
            restart_step(pass, None);
        }
        return Ok("the release goes on".into());
    }
    match step {
        Step::Pause(None) if pass.status.hold.is_none() && !passed(pass) => {
            pass_step(pass, by(command));
            Ok(unless_unproven(pass, "the pause is over"))
        }
        _ => Err("the release is not paused".into()),
    }
}

fn approve(pass: &mut Pass<'_>, command: &Command, step: Step) -> Answer {
    if step == Step::MigrationApproval {
        if !database::steps::awaits_approval(pass) {
            return Err("the migration was approved already".into());
        }
        return approve_plan(pass, command, ApprovalKind::Migration);
    }
    if command.approval.as_ref().is_some_and(|approval| approval.kind != ApprovalKind::Step) {
        return Err("the step under way is no approval of a plan for the database".into());
    }
    if step != Step::Approval {
        return Err("the step under way does not wait for an approval".into());
    }
    if passed(pass) {
        return Err("it was approved already".into());
    }
    pass_step(pass, by(command));
    Ok(unless_unproven(pass, "approved"))
}

fn skip(pass: &mut Pass<'_>, command: &Command, step: Step) -> Answer {
    held_by_person(pass)?;
    // The step itself is done, whatever it is.
    if pass.status.hold.is_none() && reach::lack(pass).is_some() {
        accept(pass);
        return Ok("what cannot be measured is passed over".into());
    }
    never_passed(pass, &step)?;
    if pass.status.hold.take().is_some() {
        retry_step(pass, Some(by(command)));
        return Ok("what failed is passed over; traffic still waits for available pods".into());
    }
    match step {
        Step::Pause(_) if !passed(pass) => {
            pass_step(pass, by(command));
            accept(pass);
            Ok("the pause is passed over".into())
        }
        Step::Approval if !passed(pass) => Err("an approval is passed by Approve only".into()),
        _ if analysis::unproven(pass, &pass.policy()).is_some() => {
            accept(pass);
            Ok("what is not proven yet is passed over".into())
        }
        Step::Pause(_) => Err("the step under way was passed already".into()),
        _ => Err("the step under way cannot be passed over".into()),
    }
}

fn promote(pass: &mut Pass<'_>, command: &Command, step: Step) -> Answer {
    held_by_person(pass)?;
    if step == Step::Promote && pass.status.hold.is_none() {
        return Err("all traffic is going to the candidate already; nothing is left to pass".into());
    }
    if command.full
        && let Some(release) = &mut pass.status.release
    {
        release.full_promotion_by = Some(by(command).to_owned());
    }
    if pass.status.hold.is_some() {
        never_passed(pass, &step)?;
    }
    if pass.status.hold.take().is_some() {
        retry_step(pass, Some(by(command)));
        return Ok("what failed is passed over; traffic still waits for available pods".into());
    }
    match step {
        Step::Pause(_) if !command.full && passed(pass) => Err("the step under way was passed already".into()),
        Step::Pause(_) => {
            pass_step(pass, by(command));
            Ok(unless_unproven(pass, "the release goes on"))
        }
        _ if command.full => Ok("all pauses that are left will be passed".into()),
        Step::Approval | Step::MigrationApproval => Err("the step under way waits for Approve".into()),
        _ => Err("the step under way does not wait for Promote".into()),
    }
}

/// The database's steps are passed over only by their fields in the manifest.
fn never_passed(pass: &Pass<'_>, step: &Step) -> Result<(), String> {
    match step {
        Step::Database(_) if pass.status.hold.is_some() => {
            Err("a step of the database is not passed over: Retry, or Abort and change spec.database".into())
        }
        Step::Database(_) => Err("a step of the database is not passed over".into()),
        Step::MigrationApproval => Err("an approval is passed by Approve only".into()),
        _ => Ok(()),
    }
}

/// A release that a person holds goes on by Resume, not by passing steps behind the pause.
fn held_by_person(pass: &Pass<'_>) -> Result<(), String> {
    match (&pass.status.suspended, pass.release.spec.paused) {
        (_, true) => Err(resume_of_spec()),
        (Some(suspended), _) => Err(format!("it was paused by {}; Resume first", suspended.by)),
        (None, false) => Ok(()),
    }
}

/// Whether a person passed the step under way already.
fn passed(pass: &Pass<'_>) -> bool {
    pass.status.step.as_ref().is_some_and(|step| step.passed_by.is_some())
}

/// Passes the pause or the approval. What metrics do not prove is not passed over by that.
fn pass_step(pass: &mut Pass<'_>, by: &str) {
    if let Some(step) = &mut pass.status.step {
        step.passed_by = Some(by.to_owned());
    }
}

/// Passes over what pods and metrics say, or do not say, at this step.
const fn accept(pass: &mut Pass<'_>) {
    if let Some(step) = &mut pass.status.step {
        step.accepted = true;
    }
}

/// What was done, and what it waits for all the same.
fn unless_unproven(pass: &Pass<'_>, done: &str) -> String {
    let lack = analysis::lacking(pass, &pass.policy());
    lack.map_or_else(
        || done.to_owned(),
        |why| format!("{done}; it goes on once all verdicts are Pass, or by Skip: {why}"),
    )
}

/// After a failure: what pods said until now is past.
pub fn retry_step(pass: &mut Pass<'_>, passed_by: Option<&str>) {
    restart_step(pass, passed_by);
    let now = pass.now;
    if let Some(step) = &mut pass.status.step {
        step.retried_at = Some(now);
    }
}

/// Starts the clock of the step anew; a person who passed over its failure is remembered.
fn restart_step(pass: &mut Pass<'_>, passed_by: Option<&str>) {
    let now: Timestamp = pass.now;
    if let Some(step) = &mut pass.status.step {
        step.started_at = now;
        step.unproven_since = None;
        step.unreached = None;
        step.passed_by = passed_by
            .filter(|_| !matches!(step.name, StepName::Approval | StepName::MigrationApproval))
            .map(str::to_owned);
        step.accepted = step.passed_by.is_some();
    }
}
