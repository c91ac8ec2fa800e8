//! How a release goes on from step to step, read from the status: a step is left only when it is
//! complete or a person says so (T2), not while it waits (T5), not after an abort (C3).

use servicerelease::{
    api::{
        Action, CheckOutcome, CheckStatus, CommandPhase, CommandRecord, DatabaseTask, Duration, Moment, OnFailure,
        Phase, ServiceReleaseSpec, ServiceReleaseStatus, StepName, StepStatus, Timestamp, VerdictOutcome,
        VerdictStatus,
    },
    engine::{Plan, Reply},
};

use crate::{
    metrics::{self, Watched},
    model::cluster::Cluster,
    operator::Work,
};

use super::{
    Checker,
    database::{self, Part},
    desired, limits,
    observation::LATELY,
    pods, reliable, replicas,
};

/// The steps of a plan as PRODUCT.md has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepare,
    Weight(i32),
    Headers(bool),
    Mirror(bool),
    Scale(i32),
    Maintenance,
    Pause(Option<Duration>),
    Approval,
    /// The checks by their places, and whether they come before traffic.
    Checks([bool; 2], bool),
    Database(DatabaseTask),
    MigrationApproval,
    Promote,
}

impl Step {
    fn name(self) -> StepName {
        match self {
            Self::Prepare => StepName::Prepare,
            Self::Weight(_) => StepName::SetWeight,
            Self::Headers(_) => StepName::SetHeaderRoute,
            Self::Mirror(_) => StepName::SetMirrorRoute,
            Self::Scale(_) => StepName::Scale,
            Self::Maintenance => StepName::Maintenance,
            Self::Pause(_) => StepName::Pause,
            Self::Approval => StepName::Approval,
            Self::Checks(..) => StepName::Check,
            Self::Database(_) => StepName::Database,
            Self::MigrationApproval => StepName::MigrationApproval,
            Self::Promote => StepName::Promote,
        }
    }
}

fn steps(spec: &ServiceReleaseSpec, status: &ServiceReleaseStatus) -> Vec<Step> {
    let first = status.stable.is_none();
    let at = |moment: Moment| {
        let asked = |place: usize| spec.checks.get(place).is_some_and(|check| check.when.contains(&moment));
        let all = [asked(0), asked(1)];
        all.contains(&true).then_some(Step::Checks(all, moment.is_before_pods() || moment == Moment::BeforeTraffic))
    };
    let mut steps: Vec<Step> = at(Moment::Preflight).into_iter().collect();
    for part in super::database::steps(spec, status) {
        steps.push(of_database(part));
        steps.extend(at(Moment::AfterBackup).filter(|_| part == Part::Work(DatabaseTask::Backup)));
    }
    let maintained = steps.contains(&Step::Maintenance);
    steps.push(Step::Prepare);
    steps.extend(at(Moment::BeforeTraffic));
    if let (Some(strategy), false) = (&spec.strategy, first) {
        for step in strategy.canary.iter().flat_map(|canary| &canary.steps) {
            let routed = (&step.set_header_route, &step.set_mirror_route, &step.scale);
            steps.push(match (step.set_weight, &step.pause, routed) {
                (Some(weight), ..) => Step::Weight(weight),
                (_, Some(pause), _) => Step::Pause(pause.duration),
                (_, _, (Some(route), ..)) => Step::Headers(!route.headers.is_empty()),
                (_, _, (_, Some(mirror), _)) => Step::Mirror(mirror.percent > 0),
                (_, _, (_, _, Some(scale))) => Step::Scale(scale.percent.unwrap_or(0)),
                _ => Step::Approval,
            });
            steps.extend(at(Moment::EachStep).filter(|_| step.set_weight.is_some_and(|weight| weight > 0)));
        }
        if strategy.blue_green.as_ref().is_some_and(|it| !it.auto_promote) {
            steps.push(Step::Pause(None));
        }
        if !maintained && strategy.blue_green.as_ref().is_some_and(|it| it.maintenance) {
            steps.push(Step::Maintenance);
        }
    }
    steps.extend(at(Moment::BeforePromotion).filter(|_| !first));
    steps.push(Step::Promote);
    steps
}

fn of_database(step: Part) -> Step {
    match step {
        Part::Work(task) => Step::Database(task),
        Part::Approval => Step::MigrationApproval,
        Part::Maintenance => Step::Maintenance,
    }
}

/// Commands that this status has and the one before had not.
pub fn news(work: &Work) -> Vec<CommandRecord> {
    let old = &work.old.commands;
    let new = work.decision.status.commands.iter();
    new.filter(|record| old.iter().all(|it| it.uid != record.uid)).cloned().collect()
}

/// Whether what was measured then is no older than a few intervals, and an operator was there when it was to be measured again.
fn is_recent(work: &Work, plan: &Plan, at: Timestamp) -> bool {
    let interval = plan.spec.analysis.as_ref().map(|analysis| analysis.interval).unwrap_or_default();
    let asking = work.view.observed.asking_since.filter(|since| *since <= work.now);
    let old = at.as_millis() < work.now.as_millis() - LATELY;
    !old && asking.is_none_or(|since| since <= at.plus(interval))
}

/// Whether a person passes over what pods and metrics say: by Skip, or by Promote over a failure.
fn passed_over(work: &Work) -> bool {
    let held = work.old.hold.is_some();
    let says = |action: Action| action == Action::Skip || (held && action == Action::Promote);
    news(work).iter().any(|record| record.phase == CommandPhase::Applied && says(record.action))
}

fn number(status: &ServiceReleaseStatus) -> i64 {
    status.release.as_ref().map_or(0, |it| it.number)
}

impl Checker {
    pub fn step_rules(&mut self, cluster: &Cluster, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        self.standing_still(work);
        let same = number(old) == number(new);
        let pinned = work.view.observed.plans.iter().rfind(|plan| plan.number == number(new));
        if let Some(plan) = pinned.filter(|_| same) {
            self.told(work, plan);
        }
        let candidate = |status: &ServiceReleaseStatus| status.candidate.as_ref().map(|it| it.revision.clone());
        if !same || candidate(old) != candidate(new) || candidate(new).is_none() {
            self.begun(cluster, work);
            return;
        }
        let rolling_back =
            new.rollback.as_ref().is_some_and(|it| it.completed_at.is_none() && it.release == number(new));
        if rolling_back || self.aborted.contains(&number(new)) {
            self.require(desired(new) <= desired(old), "C3", || {
                format!("weight rises from {} to {} in a rollback", desired(old), desired(new))
            });
            return;
        }
        let (Some(from), Some(to)) = (&old.step, &new.step) else {
            return;
        };
        let mut plan = work.view.observed.plans.iter();
        let plan = plan.rfind(|plan| plan.number == number(new));
        let live = cluster.live.plans.get(&number(new));
        let Some(plan) = plan.or(live) else {
            return;
        };
        let steps = steps(&plan.spec, new);
        self.shape(&steps, to.index, to.of, to.name);
        self.require(to.index >= from.index, "T2", || format!("step falls from {} to {}", from.index, to.index));
        self.passed(cluster, work, plan, &steps, to.index);
        self.verdicts(work, plan, from);
        self.restarts(work, plan, from.accepted || passed_over(work));
        self.provider(work, plan, from);
        self.reached(cluster, work, plan, steps.get(place(from.index)).copied());
        if desired(new) > desired(old) {
            let passed = (from.index..=to.index).filter_map(|index| steps.get(place(index)));
            let weights = passed.map(|step| match step {
                Step::Weight(weight) => *weight,
                Step::Promote => 100,
                _ => desired(old),
            });
            let weight = weights.max().unwrap_or(0);
            self.require(desired(new) <= weight, "T2", || {
                format!("weight rises to {} in step {:?}", desired(new), to.name)
            });
        }
    }

    /// A Pass has an answer to show for it, as what is left aside has; and from a dry run nothing follows. Notes how verdicts
    /// become others.
    fn told(&mut self, work: &Work, plan: &Plan) {
        let (old, new) = (&work.old, &work.decision.status);
        let Some(kind) = metrics::of(plan) else { return };
        let (state, before) = (new.verdicts.first(), old.verdicts.first());
        let mut answers = work.view.observed.answers.iter().filter(|answer| answer.id.starts_with("metric/"));
        if let Some(state) = state {
            metrics::note(kind, before.map(|before| before.outcome).unwrap_or_default(), state.outcome);
            let new = before.is_none_or(|before| before.measurements < state.measurements);
            let answer = answers.clone().find(|answer| new && Some(answer.at) == state.measured_at);
            answer.into_iter().for_each(|answer| metrics::note_answer(&answer.reply, state.outcome));
        }
        let shows = |it: &&VerdictStatus| it.outcome != VerdictOutcome::Inconclusive;
        let grounded = state.filter(shows).is_none_or(|it| {
            // Times that lie ahead are mended after a clock that jumped back.
            let ahead = |known: &VerdictStatus| known.measured_at.is_some_and(|at| at > work.now);
            let same = |known: &VerdictStatus| {
                known.outcome == it.outcome && (known.measured_at == it.measured_at || ahead(known))
            };
            let known = before.is_some_and(same);
            known
                || match kind {
                    Watched::Restarts => pods::has_restarted(work) == (it.outcome == VerdictOutcome::Fail),
                    _ => answers.any(|answer| metrics::grounds(kind, it.outcome, &answer.reply)),
                }
        });
        self.require(grounded, "T2", || format!("nothing that was answered says so: {state:?}"));
        let began = new.rollback.as_ref().filter(|it| it.release == number(new) && old.rollback.is_none());
        let acted = began.is_some_and(|it| it.reason.starts_with("Analysis"));
        self.require(kind != Watched::DryRun || !acted, "T2", || {
            format!("something follows from a dry run: {state:?}")
        });
    }

    /// The weight rises only on verdicts that were measured since the step began; one that fails is acted on.
    fn verdicts(&mut self, work: &Work, plan: &Plan, from: &StepStatus) {
        let (old, new) = (&work.old, &work.decision.status);
        let full = new.release.as_ref().is_some_and(|it| it.full_promotion_by.is_some());
        // An approval, or a pause that a person ends, is no word about metrics.
        let person = from.accepted || full || passed_over(work);
        let none = replicas(&work.view.release.spec, old) == 0;
        if plan.spec.analysis.is_none() || old.stable.is_none() || desired(old) == 0 || person || none {
            return;
        }
        let Some(kind) = metrics::of(plan).filter(|kind| *kind != Watched::DryRun) else { return };
        let state = new.verdicts.first();
        let passes = |it: &&VerdictStatus| matches!(it.outcome, VerdictOutcome::Pass | VerdictOutcome::Ignored);
        let good = state.filter(passes).is_some_and(|it| {
            // One of a whole interval after the traffic had its weight.
            let interval = plan.spec.analysis.as_ref().map_or(Duration::default(), |analysis| analysis.interval);
            let reached = old.weights.and_then(|weights| weights.reached_at);
            let shown = reached.map(|reached| match kind {
                Watched::Compare => reached,
                _ => reached.plus(interval),
            });
            let fresh = it.measured_at.is_some_and(|at| {
                at >= from.started_at && shown.is_some_and(|from| at >= from) && is_recent(work, plan, at)
            });
            (fresh || kind == Watched::Restarts) && metrics::is_shown(kind, it, desired(old))
        });
        self.require(desired(new) <= desired(old) || good, "T2", || {
            format!("weight rises from {} to {} on {state:?}", desired(old), desired(new))
        });
        let failed = state.is_some_and(|it| it.outcome == VerdictOutcome::Fail);
        let acted = new.rollback.as_ref().is_some_and(|it| it.release == number(new)) || new.hold.is_some();
        self.require(!failed || acted, "T2", || format!("a failed metric is left at that: {state:?}"));
    }

    /// The candidate gets its first requests, and maintenance mode begins, only when the provider of the metric was there,
    /// whatever it said.
    fn provider(&mut self, work: &Work, plan: &Plan, from: &StepStatus) {
        let (old, new) = (&work.old, &work.decision.status);
        let full = new.release.as_ref().is_some_and(|it| it.full_promotion_by.is_some());
        let person = from.accepted || full || passed_over(work);
        let none = replicas(&work.view.release.spec, old) == 0;
        if has_opened(plan, old) || !has_opened(plan, new) || old.stable.is_none() || person || none {
            return;
        }
        let asks = |kind: &Watched| !matches!(kind, Watched::DryRun | Watched::Restarts);
        let Some(kind) = metrics::of(plan).filter(asks) else { return };
        let mut answers = work.view.observed.answers.iter().filter(|it| metrics::is_before_requests(&it.id));
        let reached = answers.any(|answer| metrics::is_reached(kind, &answer.reply));
        self.require(reached, "T2", || {
            "the candidate gets requests, and nobody knows whether they can be measured".into()
        });
    }

    /// What is counted for a weight is counted from when the traffic had it.
    fn reached(&mut self, cluster: &Cluster, work: &Work, plan: &Plan, step: Option<Step>) {
        let at = |status: &ServiceReleaseStatus| status.weights.and_then(|weights| weights.reached_at);
        let news = at(&work.old).is_none() && at(&work.decision.status).is_some();
        let Some(step) = step.filter(|step| news && matches!(step, Step::Weight(_))) else { return };
        let there = warm(cluster, work, plan, step) && open(work, plan, step);
        self.require(there, "T2", || format!("{step:?} is told to be reached, and is not"));
    }

    fn shape(&mut self, steps: &[Step], index: i32, of: i32, name: StepName) {
        let planned = steps.get(place(index)).map(|step| step.name());
        self.require(planned == Some(name), "T2", || {
            format!("step {index} is {name:?}, the pinned plan has {planned:?}")
        });
        self.require(place(of) + 1 == steps.len(), "T2", || {
            format!("the status has {of} steps, the pinned plan {}", steps.len())
        });
    }

    /// Every step that was left is complete, or a command says so.
    fn passed(&mut self, cluster: &Cluster, work: &Work, plan: &Plan, steps: &[Step], until: i32) {
        let (old, new) = (&work.old, &work.decision.status);
        let Some(from) = &old.step else {
            return;
        };
        let applied: Vec<Action> = news(work)
            .into_iter()
            .filter(|record| record.phase == CommandPhase::Applied)
            .map(|record| record.action)
            .collect();
        let full = new.release.as_ref().is_some_and(|it| it.full_promotion_by.is_some());
        let mut spent = 0;
        for index in from.index..until {
            let Some(step) = steps.get(place(index)) else {
                continue;
            };
            let entered = (index == from.index).then_some(from.started_at);
            let by_person = index == from.index && from.passed_by.is_some();
            let may = |actions: &[Action]| by_person || applied.iter().any(|it| actions.contains(it));
            let person = [Action::Promote, Action::Resume, Action::Skip];
            let (complete, uses) = match step {
                Step::Prepare | Step::Weight(_) => {
                    let held = old.hold.is_some() && may(&[Action::Skip, Action::Promote]);
                    let done = warm(cluster, work, plan, *step) && open(work, plan, *step);
                    if let (Step::Weight(weight), false) = (step, held) {
                        self.follows(cluster, *weight);
                    }
                    (held || done, held && !done)
                }
                Step::Headers(_) | Step::Mirror(_) | Step::Scale(_) | Step::Maintenance => {
                    let held = old.hold.is_some() && may(&[Action::Skip, Action::Promote]);
                    let done = match step {
                        Step::Maintenance => database::is_closed(cluster, &plan.spec) || self.maintained(cluster),
                        Step::Headers(there) => self.leads(cluster, |(headers, _)| headers == *there),
                        Step::Mirror(there) => self.leads(cluster, |(_, copies)| copies == *there),
                        _ => warm(cluster, work, plan, *step),
                    };
                    (held || done, held)
                }
                Step::Pause(Some(duration)) => {
                    let over = entered.is_some_and(|at| work.now.since(at) >= *duration);
                    (over || full || may(&person), !over && !full)
                }
                Step::Pause(None) => (full || may(&person), !full),
                Step::Approval => (may(&[Action::Approve]), true),
                Step::Checks(asked, before) => {
                    let held = old.hold.is_some() && may(&[Action::Skip, Action::Promote]);
                    let since = entered.unwrap_or(work.now);
                    let done =
                        (0..2).filter(|place| asked[*place]).all(|place| answered(work, plan, place, index, since));
                    (held || done || (full && !before), held && !done)
                }
                Step::Database(task) => (database::is_done(work, *task), false),
                Step::MigrationApproval => (database::is_approved(work, &plan.spec), false),
                Step::Promote => (true, false),
            };
            spent += usize::from(uses && !by_person);
            self.require(complete, "T2", || format!("step {index} ({step:?}) is left although it is not complete"));
            let waits = work.view.release.spec.paused || old.suspended.is_some();
            let freed = !applied.is_empty();
            self.require(!waits || freed, "T5", || {
                format!("step {index} ({step:?}) is left while the release is paused")
            });
        }
        self.require(spent <= applied.len(), "C1", || format!("{} commands pass {spent} steps", applied.len()));
        let name = new.step.as_ref().filter(|to| to.index == from.index);
        let name = name.and_then(|to| to.passed_by.clone());
        let noted = from.passed_by.is_none() && name.is_some();
        self.require(!noted || !applied.is_empty(), "T2", || {
            format!("step {until} is passed in the name of {name:?}, who said nothing")
        });
        let accepted = new.step.as_ref().filter(|to| to.index == from.index && to.accepted);
        let noted = !from.accepted && accepted.is_some();
        self.require(!noted || passed_over(work), "T2", || {
            format!("what verdicts say at step {until} is passed over in the name of somebody who did not say so")
        });
    }

    /// A release that begins, begins at the beginning; one that ends has passed all steps.
    fn begun(&mut self, cluster: &Cluster, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let begins = new.candidate.is_some() && number(new) > number(old);
        if !begins {
            self.ended(cluster, work);
            return;
        }
        self.require(number(new) == number(old) + 1, "R2", || {
            format!("release {} follows {}", number(new), number(old))
        });
        // Pods that are warm already (kept for undo) let it pass the first steps at once.
        let index = new.step.as_ref().map_or(1, |step| step.index);
        let candidate = new.candidate.as_ref().map(|it| it.revision.as_str());
        let warm = candidate.map_or(0, |it| warm_pods(cluster, work, it));
        let wanted = replicas(&work.view.release.spec, new);
        self.require(index == 1 || warm > 0 || wanted == 0, "T2", || {
            format!("a release begins at step {index} with weight {} and no warm pod", desired(new))
        });
    }

    fn ended(&mut self, cluster: &Cluster, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let revision = |it: &Option<servicerelease::api::RevisionStatus>| it.as_ref().map(|it| it.revision.clone());
        let promoted = old.candidate.is_some() && revision(&new.stable) == revision(&old.candidate);
        let mut plan = work.view.observed.plans.iter();
        let plan = plan.rfind(|plan| plan.number == number(old));
        if let (true, true, Some(plan)) = (promoted, number(old) == number(new), plan) {
            let steps = steps(&plan.spec, old);
            let until = i32::try_from(steps.len()).unwrap_or(0);
            self.restarts(work, plan, old.step.as_ref().is_some_and(|it| it.accepted) || passed_over(work));
            self.passed(cluster, work, plan, &steps, until);
        }
    }

    /// While it waits for a person, the weight stays or falls.
    fn standing_still(&mut self, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let waits = matches!(new.phase, Phase::Paused | Phase::AwaitingApproval | Phase::Halted | Phase::Invalid);
        let candidate = new.candidate.as_ref().map(|it| &it.revision);
        let same = candidate == old.candidate.as_ref().map(|it| &it.revision);
        // Entering a wait may be recorded together with the step before it.
        let step = |status: &ServiceReleaseStatus| status.step.as_ref().map(|it| it.index);
        if waits && same && step(old) == step(new) {
            self.require(desired(new) <= desired(old), "T5", || {
                format!("weight rises from {} to {} in {:?}", desired(old), desired(new), new.phase)
            });
        }
    }
}

/// Whether the candidate got requests up to this step, or maintenance mode was put on for it.
fn has_opened(plan: &Plan, status: &ServiceReleaseStatus) -> bool {
    let count = status.step.as_ref().map_or(0, |step| place(step.index) + 1);
    steps(&plan.spec, status).into_iter().take(count).any(|step| match step {
        Step::Weight(weight) => weight > 0,
        Step::Headers(there) | Step::Mirror(there) => there,
        Step::Maintenance | Step::Promote => true,
        _ => false,
    })
}

/// Whether a check was answered as it should at this step since it began: what is told to have passed in this
/// very pass has an answer to show for it.
fn answered(work: &Work, plan: &Plan, place: usize, index: i32, since: Timestamp) -> bool {
    let Some(check) = plan.spec.checks.get(place) else { return false };
    // Before there are pods a Job is there for something else.
    let needs_pods = check.job.is_none() || !check.when.iter().any(|when| when.is_before_pods());
    if replicas(&work.view.release.spec, &work.old) == 0 && needs_pods {
        return true;
    }
    let new = &work.decision.status;
    let about = |it: &&CheckStatus| {
        it.name == check.name && it.step == index && it.release == number(new) && it.started_at >= since
    };
    let id = format!("check/{}/{}/{index}/", check.name, number(new));
    let mut answers = work.view.observed.answers.iter().filter(|answer| answer.id.starts_with(&id));
    let ignored = check.on_failure == OnFailure::Ignore;
    let states = [new, &work.old].map(|status| status.checks.iter().find(about));
    let right = match &check.job {
        Some(_) => states.into_iter().flatten().any(|state| ran_well(work, state, ignored)),
        None => answers.any(|answer| ignored || matches!(&answer.reply, Reply::Check { fault: None, .. })),
    };
    // At the step after it, it may be asked again already.
    let before = work.old.checks.iter().find(about);
    let ended = before.filter(|it| it.outcome != CheckOutcome::Running);
    // What is never answered fails at the deadline, and the step after it may ask the same check.
    let deadline = plan.spec.progress_deadline_seconds;
    let overdue = ignored && work.now.since(since).as_millis() >= u64::try_from(deadline).unwrap_or(0) * 1_000;
    let Some(state) = new.checks.iter().find(about).or(ended) else { return right || overdue };
    let shown = right || before.is_some_and(|it| it.outcome == state.outcome);
    match state.outcome {
        CheckOutcome::Passed => shown && state.successes >= check.attempts.unwrap_or(1),
        CheckOutcome::Failed => ignored,
        CheckOutcome::Running | CheckOutcome::Skipped => false,
    }
}

/// Whether the Job of the attempt on record was seen to end well, or to end at all.
fn ran_well(work: &Work, state: &CheckStatus, any: bool) -> bool {
    let mut jobs = work.view.observed.jobs.iter().filter(|job| Some(&job.object.name) == state.job.as_ref());
    jobs.any(|job| job.end.as_ref().is_some_and(|end| end.succeeded || any))
}

fn place(index: i32) -> usize {
    usize::try_from(index - 1).unwrap_or(0)
}

/// Whether the pods of a step that brings pods are there.
fn warm(cluster: &Cluster, work: &Work, plan: &Plan, step: Step) -> bool {
    let spec = &work.view.release.spec;
    let wanted = replicas(spec, &work.old);
    if wanted == 0 {
        return true;
    }
    let bounds = limits::allowed(&plan.spec, wanted);
    if wanted == 1 && bounds.surge == 0 {
        // There is no room for one of each: stable's only pod is replaced when all traffic moves.
        return true;
    }
    let needed = match step {
        Step::Weight(0) => 0,
        Step::Weight(weight) => {
            // The pods that a weight stands for may miss as many as may be unavailable.
            super::effects::share(wanted, weight).min(wanted - bounds.unavailable).max(1)
        }
        Step::Scale(percent) => (wanted * percent + 99) / 100,
        Step::Prepare if bounds.doubled => wanted,
        _ => 1,
    };
    warm_pods(cluster, work, &plan.revision) >= needed
}

/// Reliable pods, none that its ReplicaSet is about to take away.
fn warm_pods(cluster: &Cluster, work: &Work, revision: &str) -> i32 {
    let asked = cluster.set_of(revision).map_or(0, |set| set.replicas);
    reliable(cluster, work, revision).min(asked)
}

/// Whether the Service was seen to select the pods that a weight is for.
fn open(work: &Work, plan: &Plan, step: Step) -> bool {
    let Some(service) = &work.view.observed.service else {
        return true;
    };
    let wanted = replicas(&work.view.release.spec, &work.old);
    let over_route = plan.spec.traffic.as_ref().is_some_and(|traffic| traffic.router.is_some());
    let weight = !over_route && matches!(step, Step::Weight(weight) if weight > 0);
    let room = wanted > 1 || limits::allowed(&plan.spec, wanted).surge > 0;
    !weight || wanted == 0 || !room || super::effects::selects(&service.selector, &plan.revision)
}
