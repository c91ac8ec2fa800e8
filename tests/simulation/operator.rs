//! The operator's processes: each looks through its own caches, asks the engine, and carries out
//! what it decided, with everything that can go wrong at every write.

use std::collections::VecDeque;

use servicerelease::{
    api::{Duration, ServiceRelease, ServiceReleaseStatus, Timestamp},
    engine::{Answer, Ask, Decision, Effect, Observed, Question, Reply},
};

use crate::{
    checks::Checker,
    event::Fault,
    metrics::{self, Course},
    model::{
        cluster::{Cluster, KINDS, Kind, Lag},
        observe::{Caches, View},
    },
    rng,
};

/// What is simulated: `decide`, or a mutant of it.
pub type Subject = dyn Fn(&ServiceRelease, &Observed, Timestamp) -> Decision;

/// One write of a pass.
#[derive(Clone, Debug)]
pub enum Write {
    Before(Effect),
    Status,
    After(Effect),
}

/// A pass under way.
pub struct Work {
    pub view: View,
    pub now: Timestamp,
    pub decision: Decision,
    pub old: ServiceReleaseStatus,
    /// Whether the process was stopped since it decided this.
    pub late: bool,
    release_version: u64,
    writes: VecDeque<Write>,
}

/// One process.
#[derive(Default)]
pub struct Operator {
    pub caches: Caches,
    /// What was answered and is still asked.
    answers: Vec<Answer>,
    /// Since when it asks.
    asking_since: Option<Timestamp>,
    /// Whether everything is answered as expected.
    pub answers_right: bool,
    stopped: Option<Work>,
}

/// How a pass ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// There is no release, or the process is stopped.
    Nothing,
    /// Nothing was to be done.
    Idle { wake: Option<Timestamp> },
    /// All writes were carried out.
    Done,
    /// A write failed, or the process died or was stopped.
    Cut(Fault, Part),
}

/// Where in a pass something happened, for the coverage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Before,
    Status,
    After,
}

impl Write {
    pub fn part(&self) -> Part {
        match self {
            Self::Before(_) => Part::Before,
            Self::Status => Part::Status,
            Self::After(_) => Part::After,
        }
    }
}

/// The kind of object that a write changes.
fn kind(write: &Write) -> Kind {
    match write {
        Write::Status => Kind::Release,
        Write::Before(effect) | Write::After(effect) => match effect {
            Effect::AddFinalizer | Effect::RemoveFinalizer => Kind::Release,
            Effect::PinPlan(_) | Effect::DeletePlan { .. } => Kind::Plans,
            Effect::TryTemplate(_)
            | Effect::CreateReplicaSet(_)
            | Effect::ScaleReplicaSet { .. }
            | Effect::SetMinReadySeconds { .. }
            | Effect::DeleteReplicaSet { .. } => Kind::Sets,
            Effect::ScaleWorkload { .. } => Kind::Deployment,
            Effect::CreateService(_) | Effect::Select { .. } | Effect::ConfirmService { .. } => Kind::Services,
            Effect::CreateRoute(_)
            | Effect::ReplaceRoute { .. }
            | Effect::DeleteRoute { .. }
            | Effect::SetRouteWeights { .. } => Kind::Route,
            Effect::AnswerCommand { .. } | Effect::DeleteCommand { .. } => Kind::Commands,
            Effect::CreateJob(_) | Effect::DeleteJob { .. } => Kind::Jobs,
            Effect::SetKeys { .. } => Kind::Others,
        },
    }
}

pub struct Context<'a> {
    pub cluster: &'a mut Cluster,
    pub checker: &'a mut Checker,
    pub log: &'a mut Vec<String>,
    /// Kinds that were written.
    pub written: Vec<Kind>,
}

impl Operator {
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The process was started again: it knows nothing.
    pub fn restart(&mut self) {
        self.caches.restart();
        self.answers.clear();
        self.asking_since = None;
        self.stopped = None;
    }

    /// One pass.
    pub fn pass(&mut self, subject: &Subject, lag: Lag, fault: Fault, clock: i64, context: &mut Context<'_>) -> End {
        if self.is_stopped() {
            return End::Nothing;
        }
        let index = |kind: Kind| KINDS.iter().position(|it| *it == kind).unwrap_or(0);
        let view = self.caches.look(context.cluster, |kind| usize::from(lag[index(kind)]));
        let Some(view) = view else {
            return End::Nothing;
        };
        let now = Timestamp::from_millis(context.cluster.now + clock);
        let mut view = view;
        view.observed.answers = self.answers.clone();
        view.observed.asking_since = Some(*self.asking_since.get_or_insert(now));
        let decision = subject(&view.release, &view.observed, now);
        let old = view.release.status.clone().unwrap_or_default();
        let mut writes: VecDeque<Write> = decision.before.iter().cloned().map(Write::Before).collect();
        if decision.status != old {
            writes.push_back(Write::Status);
        }
        writes.extend(decision.after.iter().cloned().map(Write::After));
        let work = Work { release_version: view.release_version, view, now, old, late: false, writes, decision };
        context.checker.on_decision(context.cluster, &work);
        if work.writes.is_empty() {
            let wake = work.decision.wake;
            return if self.ask(&work.decision, &work.view.release, now) { End::Done } else { End::Idle { wake } };
        }
        let (decision, release) = (work.decision.clone(), work.view.release.clone());
        let end = self.carry_out(work, fault, context);
        if matches!(end, End::Done) {
            self.ask(&decision, &release, now);
        }
        end
    }

    /// Makes these the open questions. Says whether something was answered.
    fn ask(&mut self, decision: &Decision, release: &ServiceRelease, now: Timestamp) -> bool {
        let questions = &decision.questions;
        // What is to be observed comes so far.
        let observed = decision.status.observation.is_some();
        let right = self.answers_right || (release.spec.observation.is_some() && !observed);
        self.answers.retain(|answer| questions.iter().any(|question| question.id == answer.id));
        let known = self.answers.len();
        for Question { id, ask } in questions {
            let new = !self.answers.iter().any(|answer| answer.id == *id);
            let reply = match ask {
                Ask::Metric { measure, .. } if right => Some(metrics::well(measure)),
                Ask::Metric { measure, .. } if metrics::is_before_requests(id) => Some(metrics::reached(id, measure)),
                Ask::Metric { measure, .. } if observed => Some(metrics::measured_after(id, measure)),
                Ask::Metric { measure, .. } => Some(metrics::measured(id, measure)),
                _ if right => Some(answered(None)),
                _ if observed => reply_after(id),
                _ => reply(id),
            };
            if let Some(reply) = reply.filter(|_| new) {
                self.answers.push(Answer { id: id.clone(), at: now, reply });
            }
        }
        self.answers.len() > known
    }

    /// A stopped process goes on: the write that was on its way is done; before the next one it
    /// finds that its lease is over.
    pub fn resume(&mut self, context: &mut Context<'_>) -> End {
        match self.stopped.take() {
            Some(work) => self.carry_out(work, Fault::CrashAfter(0), context),
            None => End::Nothing,
        }
    }

    fn carry_out(&mut self, mut work: Work, fault: Fault, context: &mut Context<'_>) -> End {
        let mut index = 0u8;
        while let Some(write) = work.writes.pop_front() {
            let part = write.part();
            match fault {
                Fault::CrashBefore(k) if k == index => {
                    self.restart();
                    return End::Cut(fault, part);
                }
                Fault::Stopped(k) if k == index => {
                    work.writes.push_front(write);
                    work.late = true;
                    self.stopped = Some(work);
                    return End::Cut(fault, part);
                }
                Fault::Refused(k) if k == index => return End::Cut(fault, part),
                _ => {}
            }
            let applied = apply(&mut work, &write, context);
            if let Write::Before(effect) | Write::After(effect) = &write {
                self.caches.learn(effect, &work.view.release);
            }
            if !applied {
                return End::Cut(Fault::None, part);
            }
            match fault {
                Fault::CrashAfter(k) if k == index => {
                    self.restart();
                    return End::Cut(fault, part);
                }
                Fault::Lost(k) if k == index => return End::Cut(fault, part),
                _ => {}
            }
            index = index.saturating_add(1);
        }
        End::Done
    }
}

fn apply(work: &mut Work, write: &Write, context: &mut Context<'_>) -> bool {
    let result = match write {
        Write::Before(effect) | Write::After(effect) => {
            let judged = context.checker.before_effect(context.cluster, work, effect);
            let mut version = work.release_version;
            let result = context.cluster.carry_out(effect, &mut version);
            work.release_version = version;
            if result.is_ok() {
                context.checker.report(judged);
            }
            result
        }
        Write::Status => context
            .cluster
            .write_status(work.release_version, &work.decision.status)
            .map(|version| work.release_version = version),
    };
    context.cluster.commit();
    context.written.push(kind(write));
    context.log.push(match write {
        Write::Status => format!("    status {result:?}: {}", summary(&work.decision.status)),
        Write::Before(effect) => format!("    before {result:?}: {}", short(effect)),
        Write::After(effect) => format!("    after  {result:?}: {}", short(effect)),
    });
    if result.is_ok() {
        if matches!(write, Write::Status) {
            context.checker.on_status(context.cluster, work);
        }
        context.checker.on_effect(context.cluster, write, work);
        context.checker.always(context.cluster);
    }
    result.is_ok()
}

/// What the world answers: mostly as expected, sometimes not, sometimes never.
fn reply(id: &str) -> Option<Reply> {
    let fault = match rng::dice(id) % 16 {
        0 => return None,
        1 | 2 => Some("expected otherwise".to_owned()),
        _ => None,
    };
    Some(answered(fault))
}

/// What it answers after the promotion.
fn reply_after(id: &str) -> Option<Reply> {
    let began: u64 = id.split('/').nth(4).and_then(|millis| millis.parse().ok()).unwrap_or(0);
    let fault = match metrics::course(id) {
        Course::Well | Course::Late => false,
        Course::Silent => return None,
        Course::AtRandom => return reply(id),
        Course::Badly | Course::Broken => true,
        Course::Worse => began / 16_000 % 2 == 1,
    };
    Some(answered(fault.then(|| "expected otherwise".to_owned())))
}

fn answered(fault: Option<String>) -> Reply {
    Reply::Check { fault, seen: "200".into(), took: Duration::from_millis(5) }
}

/// A status in a line.
pub fn summary(status: &ServiceReleaseStatus) -> String {
    let revision = |it: &Option<servicerelease::api::RevisionStatus>| {
        it.as_ref().map_or("-".to_owned(), |it| format!("{}({}/{})", it.revision, it.available_replicas, it.replicas))
    };
    let step =
        status.step.as_ref().map_or(String::new(), |step| format!(", step {}/{} {:?}", step.index, step.of, step.name));
    let weights = status.weights.map_or(String::new(), |it| format!(", weight {}", it.desired.candidate));
    format!(
        "gen {} release {} {:?} {}, stable {}, candidate {}{step}{weights}: {}",
        status.observed_generation,
        status.release.as_ref().map_or(0, |it| it.number),
        status.phase,
        status.reason,
        revision(&status.stable),
        revision(&status.candidate),
        status.message
    )
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::PinPlan(plan) => format!("PinPlan {} of {}", plan.number, plan.revision),
        Effect::CreateReplicaSet(new) => {
            format!("CreateReplicaSet {} with {} pods", new.name, new.replicas)
        }
        Effect::ScaleReplicaSet { object, replicas } => {
            format!("ScaleReplicaSet {} to {replicas}", object.name)
        }
        Effect::ScaleWorkload { replicas, .. } => format!("ScaleWorkload to {replicas}"),
        Effect::CreateService(new) => {
            format!("CreateService {} selecting {:?}", new.name, new.selection)
        }
        Effect::Select { object, selection, .. } => format!("Select {} to {selection:?}", object.name),
        Effect::AnswerCommand { object, phase, message, .. } => {
            format!("AnswerCommand {} {phase:?}: {message}", object.name)
        }
        Effect::DeleteCommand { object } => format!("DeleteCommand {}", object.name),
        Effect::CreateJob(new) => format!("CreateJob {}", new.name),
        Effect::DeleteJob { object } => format!("DeleteJob {}", object.name),
        Effect::DeleteReplicaSet { object } => format!("DeleteReplicaSet {}", object.name),
        other => format!("{other:?}"),
    }
}
