//! Commands: decided once and on record first (C1), rejected when they mean something else (C2),
//! and an Abort is an abort (C3).

use servicerelease::{
    api::{Action, CommandPhase, CommandRecord, Phase, RollbackCause, ServiceReleaseStatus},
    engine::{Command, Effect},
};

use crate::operator::Work;

use super::{Checker, steps::news};

impl Checker {
    pub fn command_rules(&mut self, work: &Work) {
        let records = news(work);
        for record in &records {
            let known = self.decided.get(&record.uid).copied();
            self.require(known.is_none(), "C1", || {
                format!("{} is decided again: {:?}, before {known:?}", record.name, record.phase)
            });
            self.decided.insert(record.uid.clone(), record.phase);
            let mut command = work.view.observed.commands.iter();
            let command = command.rfind(|it| it.object.uid == record.uid);
            if let Some(command) = command {
                self.judge(work, command, record);
                // Another one may have been followed in the same pass.
                let stopped = records.iter().any(|it| it.action == Action::Abort && it.phase == CommandPhase::Applied);
                let rejected = command.action == Action::Abort && record.phase != CommandPhase::Applied;
                if rejected && !stopped && must_abort(work, command) {
                    let text = format!("{} is rejected: {}", record.name, record.message);
                    self.fail("C3", text);
                }
            }
        }
        for (uid, phase) in &self.decided.clone() {
            let records = &work.decision.status.commands;
            let record = records.iter().find(|it| it.uid == *uid);
            let changed = record.is_some_and(|it| it.phase != *phase);
            self.require(!changed, "C1", || format!("the decision on {uid} was changed"));
        }
        self.order(work, &records);
        let aborted = records.iter().any(|it| it.action == Action::Abort && it.phase == CommandPhase::Applied);
        if aborted && let Some(release) = &work.old.release {
            self.aborted.insert(release.number);
            self.stops(work, &work.decision.status);
        }
    }

    /// An answer is written only after it is on record, and says the same.
    pub fn answered(&mut self, work: &Work, effect: &Effect) {
        let Effect::AnswerCommand { object, phase, .. } = effect else {
            return;
        };
        let _ = work;
        let known = self.decided.get(&object.uid).copied();
        self.require(known == Some(*phase), "C1", || {
            format!("{} is answered {phase:?}, on record is {known:?}", object.name)
        });
    }

    /// Abort first, then the oldest first.
    fn order(&mut self, work: &Work, records: &[CommandRecord]) {
        let key = |record: &CommandRecord| {
            let mut commands = work.view.observed.commands.iter();
            let command = commands.rfind(|it| it.object.uid == record.uid)?;
            let version: u64 = command.object.resource_version.parse().ok()?;
            Some((command.action != Action::Abort, command.created, version))
        };
        let keys: Vec<_> = records.iter().filter_map(key).collect();
        self.require(keys.is_sorted(), "C1", || {
            let names: Vec<&str> = records.iter().map(|it| it.name.as_str()).collect();
            format!("commands are decided in the order {names:?}")
        });
    }

    fn judge(&mut self, work: &Work, command: &Command, record: &CommandRecord) {
        let applied = record.phase == CommandPhase::Applied;
        if let Some(why) = self.must_reject(work, command)
            && applied
        {
            let text = format!("{} ({:?}) is applied, but {why}", record.name, command.action);
            self.fail("C2", text);
        }
        self.require(!record.message.is_empty(), "C1", || format!("{} is decided without a reason", record.name));
    }

    /// Why a command cannot be followed, judged by the status that it was decided on.
    fn must_reject(&self, work: &Work, command: &Command) -> Option<String> {
        let old = &work.old;
        let first = self.names.get(&command.object.name);
        if first.is_some_and(|uid| *uid != command.object.uid)
            && old.commands.iter().any(|it| it.name == command.object.name)
        {
            return Some("a command of this name was decided before".into());
        }
        let new = &work.decision.status;
        let candidate = |status: &ServiceReleaseStatus| status.candidate.as_ref().map(|it| it.revision.clone());
        // A release that begins in this very pass may be meant, too.
        let alone = [old, new].into_iter().find(|status| status.candidate.is_none() && status.step.is_some());
        let served = alone.and_then(|status| status.stable.as_ref()).map(|it| it.revision.clone());
        let candidates = [candidate(old), candidate(new), served];
        let named = command.revision.clone();
        let step = command.step;
        let step_is = |status: &ServiceReleaseStatus| status.step.as_ref().map(|it| it.index);
        let forward = matches!(command.action, Action::Promote | Action::Approve | Action::Skip | Action::Resume);
        if forward && candidates.iter().all(Option::is_none) {
            return Some("nothing is being released".into());
        }
        if forward && named.is_some() && !candidates.contains(&named) {
            return Some(format!("{named:?} is not the candidate"));
        }
        if forward && step.is_some() && step != step_is(old) && step != step_is(new) {
            return Some(format!("it names step {step:?}, not {:?}", step_is(old)));
        }
        match command.action {
            Action::Resume if work.view.release.spec.paused => Some("spec.paused is set".into()),
            Action::Approve if command.approval.is_some() => super::database::must_reject(old, new, command),
            Action::Approve if old.step.is_some() => {
                let here = [old, new].iter().any(|status| {
                    let name = status.step.as_ref().map(|it| it.name);
                    name == Some(servicerelease::api::StepName::Approval)
                });
                (!here).then(|| "no approval is waited for".to_owned())
            }
            Action::Retry if old.failed_revisions.is_empty() && old.hold.is_none() => {
                let contested = old.route.as_ref().is_some_and(|route| route.contested_by.is_some());
                let halted = old.phase == Phase::Halted && old.database.is_some();
                let observed = old.observation.as_ref().is_some_and(|state| state.failure.is_some());
                (new.failed_revisions.is_empty() && new.hold.is_none() && !contested && !halted && !observed)
                    .then(|| "nothing failed".to_owned())
            }
            _ => None,
        }
    }

    /// After an Abort the attempt goes back.
    fn stops(&mut self, work: &Work, status: &ServiceReleaseStatus) {
        let back = matches!(status.phase, Phase::RollingBack | Phase::RolledBack | Phase::Halted | Phase::Invalid);
        let superseded = status.release.as_ref().map(|it| it.number) != work.old.release.as_ref().map(|it| it.number);
        let returned = status.candidate.is_none();
        let rollback = status.rollback.is_some();
        self.require(back || superseded || returned || rollback, "C3", || {
            format!("an Abort was applied, and the phase is {:?}", status.phase)
        });
    }
}

/// Whether an Abort has something to abort.
fn must_abort(work: &Work, command: &Command) -> bool {
    if work.view.release.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let old = &work.old;
    let candidate = old.candidate.as_ref().map(|it| it.revision.clone());
    let phase = matches!(
        old.phase,
        Phase::Preflight
            | Phase::Database
            | Phase::Progressing
            | Phase::AwaitingApproval
            | Phase::Paused
            | Phase::Promoting
    );
    let same = old.release.as_ref().map(|it| it.number) == work.decision.status.release.as_ref().map(|it| it.number);
    let named = command.revision.is_none() || command.revision == candidate;
    let step = command.step.is_none() || command.step == old.step.as_ref().map(|it| it.index);
    let fresh = old.commands.iter().all(|it| it.name != command.object.name);
    let other = work.decision.status.rollback.as_ref().is_some_and(|it| it.completed_at.is_none());
    // One that waits for a person on its way back may end in the same pass, by a Skip.
    let back =
        old.rollback.as_ref().is_some_and(|it| it.completed_at.is_none() && it.cause != RollbackCause::Superseded);
    candidate.is_some() && phase && same && named && step && fresh && !other && !back
}
