//! One case: the cluster, the users, two operator processes and the checks, driven by events.

use servicerelease::api::{Action, Phase, RollbackStatus, StepName, Timestamp};

use crate::{
    checks::{self, Checker, Rest, Violation},
    coverage::{Coverage, Point},
    event::{Aim, Event, Fault},
    model::{
        catalogue,
        cluster::{CANDIDATE_SERVICE, Cluster, KINDS, Kind, Lag, SERVICE},
        controllers::{self, Lagging},
        database::faults::Rotation,
    },
    operator::{Context, End, Operator, Subject},
    setup::{DEADLINE, Setup},
    users::{self, Users},
};

pub struct World<'a> {
    subject: &'a Subject,
    setup: Setup,
    cluster: Cluster,
    users: Users,
    operators: [Operator; 2],
    /// How far the operators' clock is off.
    clock: i64,
    checker: Checker,
    coverage: Coverage,
    log: Vec<String>,
    steps: u64,
    last: &'static str,
    /// Who looked last.
    led: usize,
}

/// What came of a case.
pub struct Outcome {
    pub violation: Option<Violation>,
    pub log: Vec<String>,
    pub steps: u64,
    pub coverage: Coverage,
}

/// Runs a case to its end, or to the first violation.
pub fn run(subject: &Subject, setup: &Setup, events: &[Event], forward: bool, only: Option<&'static str>) -> Outcome {
    let mut world = World {
        subject,
        setup: setup.clone(),
        cluster: setup.cluster(),
        users: Users::default(),
        operators: Default::default(),
        clock: 0,
        checker: Checker::new(only),
        coverage: Coverage::default(),
        log: Vec::new(),
        steps: 0,
        last: "created",
        led: 0,
    };
    for event in events {
        world.happen(event);
        if world.broken() {
            break;
        }
    }
    if !world.broken() {
        world.finish();
    }
    if forward && !world.broken() {
        world.forward();
    }
    world.coverage.hits = std::mem::take(&mut world.cluster.server.hits);
    Outcome { violation: world.checker.violation, log: world.log, steps: world.steps, coverage: world.coverage }
}

impl World<'_> {
    fn broken(&self) -> bool {
        self.checker.violation.is_some()
    }

    fn status(&self) -> servicerelease::api::ServiceReleaseStatus {
        checks::stored(&self.cluster)
    }

    fn happen(&mut self, event: &Event) {
        self.steps += 1;
        self.log.push(format!("- {event}"));
        match event {
            Event::Tick { millis, lagging } => {
                self.last = event.kind();
                let lagging = Lagging::from_bits(*lagging);
                if lagging.any() {
                    // A lagging controller is one more way for pods and endpoints to part.
                    self.checker.excuse(self.cluster.now + millis + 15_000);
                }
                controllers::tick(&mut self.cluster, *millis, lagging);
            }
            Event::Pass { leader, lag, fault } => {
                self.pass(usize::from(*leader % 2), *lag, *fault);
            }
            Event::Continue(leader) => self.resume(usize::from(*leader % 2)),
            Event::Settle(rounds) => self.settle(*rounds),
            Event::Away(seconds) => self.be_away(*seconds),
            Event::Clock(by) => {
                self.last = event.kind();
                self.clock += by;
                self.cluster.gateway_is_current();
            }
            _ => self.act(event),
        }
        self.checker.always(&self.cluster);
    }

    fn act(&mut self, event: &Event) {
        self.last = event.kind();
        let now = self.cluster.now;
        match event {
            Event::Replicas(_) => self.checker.replicas_changed(&self.cluster),
            Event::ScaleSet(..) | Event::DeleteSet(_) => {
                self.checker.meddled = true;
                self.checker.excuse(now + 120_000);
            }
            Event::LoseReadiness(_)
            | Event::Crash(_)
            | Event::Evict(_)
            | Event::Drain(_)
            | Event::NodeLoss
            | Event::DeleteService(_)
            | Event::DeleteRoute
            | Event::RouteWeight(_)
            | Event::RouteHealed(_)
            | Event::Selector { .. }
            | Event::ScaleDeployment(_) => self.checker.excuse(now + 60_000),
            _ => {}
        }
        let note = self.users.act(&mut self.cluster, &self.setup, event);
        if let Event::Selector { candidate, .. } = event {
            let name = if *candidate { CANDIDATE_SERVICE } else { SERVICE };
            self.checker.goes_astray(&self.cluster, name);
        }
        if !note.is_empty() {
            self.log.push(format!("    ({note})"));
        }
    }

    fn pass(&mut self, leader: usize, mut lag: Lag, fault: Fault) -> End {
        self.steps += 1;
        // Whoever begins to lead reads the object before the first decision.
        if leader != self.led {
            self.led = leader;
            self.operators[leader].caches.catch_up(&self.cluster, Kind::Release);
            lag[0] = 0;
        }
        let phase = self.status().phase;
        let mut context =
            Context { cluster: &mut self.cluster, checker: &mut self.checker, log: &mut self.log, written: Vec::new() };
        let end = self.operators[leader].pass(self.subject, lag, fault, self.clock, &mut context);
        let written = context.written;
        self.wrote(leader, &written, &end);
        let stale = lag.iter().any(|lag| *lag > 0);
        match &end {
            End::Cut(fault, part) => {
                self.coverage.reach(phase, self.last, Point::of(*fault, *part));
            }
            End::Done if stale => self.coverage.reach(phase, self.last, Point::Stale),
            End::Done => self.coverage.reach(phase, self.last, Point::Whole),
            End::Idle { .. } | End::Nothing => {}
        }
        end
    }

    fn resume(&mut self, leader: usize) {
        if self.operators[leader].is_stopped() {
            // Its write was meant for what was then: the next pass puts it right.
            self.checker.excuse(self.cluster.now + 15_000);
        }
        let mut context =
            Context { cluster: &mut self.cluster, checker: &mut self.checker, log: &mut self.log, written: Vec::new() };
        let end = self.operators[leader].resume(&mut context);
        let written = context.written;
        self.wrote(leader, &written, &end);
    }

    /// Operator 0 leads mostly: it has seen whatever was written by either. Operator 1 takes over at times, and
    /// may see anything old but its own writes and the object itself.
    fn wrote(&mut self, leader: usize, written: &[Kind], end: &End) {
        for kind in written {
            self.operators[leader].caches.catch_up(&self.cluster, *kind);
            self.operators[0].caches.catch_up(&self.cluster, *kind);
        }
        let died = matches!(end, End::Cut(Fault::CrashAfter(_) | Fault::CrashBefore(_), _));
        if died && leader == 0 {
            for kind in KINDS {
                self.operators[0].caches.catch_up(&self.cluster, kind);
            }
        } else if died {
            self.operators[1].caches.restart();
        }
    }

    /// The process that is alive; one that was stopped is started again if there is no other.
    fn leader(&mut self) -> usize {
        if !self.operators[0].is_stopped() {
            return 0;
        }
        if self.operators[1].is_stopped() {
            self.operators[0].restart();
            return 0;
        }
        1
    }

    fn settle(&mut self, rounds: u8) {
        for _ in 0..rounds {
            if self.broken() {
                return;
            }
            self.quiet_passes(4);
            self.tick(1_000);
            self.checker.always(&self.cluster);
        }
    }

    /// Nobody runs for a while, and then one that knows nothing.
    fn be_away(&mut self, seconds: u8) {
        self.last = "away";
        self.operators.iter_mut().for_each(Operator::restart);
        for _ in 0..seconds {
            self.tick(1_000);
        }
        for kind in KINDS {
            self.operators[0].caches.catch_up(&self.cluster, kind);
        }
    }

    fn tick(&mut self, millis: i64) -> bool {
        self.steps += 1;
        self.log.push(format!("  .. {millis} ms"));
        let changed = controllers::tick(&mut self.cluster, millis, Lagging::default());
        self.checker.always(&self.cluster);
        changed
    }

    /// Passes without faults until nothing is to be done. None if that does not end.
    fn quiet_passes(&mut self, most: usize) -> Option<Option<Timestamp>> {
        let leader = self.leader();
        for _ in 0..most {
            match self.pass(leader, [0; 11], Fault::None) {
                End::Idle { wake } => return Some(wake),
                End::Nothing => return Some(None),
                _ if self.broken() => return None,
                _ => {}
            }
        }
        None
    }

    /// Lets a fair cluster run until nothing moves (L1), and looks at where it came to rest.
    fn finish(&mut self) -> bool {
        let rest = self.come_to_rest();
        if self.broken() {
            return false;
        }
        let Some(rest) = rest else {
            let status = self.status();
            let text = format!("no rest is found: {:?} ({}) {}", status.phase, status.reason, status.message);
            self.checker.fail("L1", text);
            return false;
        };
        if !self.waits_for_a_bad_deployment() {
            self.checker.rest(&self.cluster, rest);
        }
        self.checker.handed_back(&self.cluster);
        if rest == Rest::Quiet {
            self.still();
        }
        !self.broken()
    }

    fn come_to_rest(&mut self) -> Option<Rest> {
        let mut mark = (Phase::Pending, 0, 0, 0);
        let mut since = self.cluster.now;
        let mut waited = 0;
        for round in 0..1_500 {
            let wake = self.quiet_passes(15);
            if self.broken() {
                return None;
            }
            let Some(wake) = wake else {
                self.checker.fail("L1", "15 passes in a row, and none has nothing to do");
                return None;
            };
            let status = self.status();
            let now_at = (
                status.phase,
                status.step.as_ref().map_or(0, |step| step.index),
                status.release.as_ref().map_or(0, |it| it.number),
                // Each Job has its time.
                status.database.iter().flat_map(|it| &it.work).map(|it| it.attempt).sum::<i32>(),
            );
            if now_at != mark {
                (mark, since, waited) = (now_at, self.cluster.now, round);
            }
            if self.tick(5) && (!self.may_flap() || round - waited < 40) {
                continue;
            }
            let next = controllers::next_change(&self.cluster);
            let alarm = wake.map(|at| at.as_millis() - self.clock);
            let staying = self.cluster.live.release.is_none() || self.may_stay() || self.waits_for_a_bad_deployment();
            if next.is_none() && alarm.is_none() {
                return Some(Rest::Quiet);
            }
            if staying && self.may_flap() && round - waited >= 40 {
                return Some(Rest::Flapping);
            }
            let due = next.into_iter().chain(alarm).min().unwrap_or(0);
            let step = (due - self.cluster.now).max(5);
            let long = self.cluster.now + step - since > i64::from(DEADLINE) * 1000 * 8;
            if long && !staying && !self.waits_for_a_bad_deployment() {
                let text = format!(
                    "{:?} ({}) goes on for more than {} s: {}",
                    status.phase,
                    status.reason,
                    DEADLINE * 8,
                    status.message
                );
                self.checker.fail("L3", text);
                return None;
            }
            self.tick(step);
        }
        None
    }

    fn may_stay(&self) -> bool {
        let deleting = self.cluster.live.release.as_ref().is_some_and(|it| it.deleting.is_some());
        !deleting && checks::may_stay(&self.cluster)
    }

    /// A hand-back keeps our pods as long as the Deployment's own do not come up, and says so.
    fn waits_for_a_bad_deployment(&self) -> bool {
        let live = &self.cluster.live;
        let deleting = live.release.as_ref().is_some_and(|it| it.deleting.is_some());
        let bad = live.deployment.as_ref().is_some_and(|it| !catalogue::is_good(it.letter));
        let rival = !live.rivals.is_empty() && self.status().reason == "HandingBack";
        deleting && (rival || (bad && self.status().message.contains("Deployment")))
    }

    fn may_flap(&self) -> bool {
        // While it waits for a person, or for a valid manifest, it goes on measuring.
        let spec = self.cluster.live.release.as_ref().map(|it| &it.spec);
        let measures = spec.is_some_and(|it| it.analysis.is_some() || it.observation.is_some());
        let waits = matches!(self.status().phase, Phase::Paused | Phase::AwaitingApproval | Phase::Invalid)
            || checks::is_held_open(&self.cluster);
        if measures && waits {
            return true;
        }
        self.cluster.live.pods.values().any(|pod| pod.active() && !catalogue::is_good(pod.letter))
    }

    /// The same observation, now and later: no effect, no write, and twice the same answer (L2).
    fn still(&mut self) {
        let leader = self.leader();
        let Some(view) = self.operators[leader].caches.look(&self.cluster, |_| 0) else {
            return;
        };
        let now = self.cluster.now + self.clock;
        for later in [0, 0, 1_000, 3_600_000] {
            let at = Timestamp::from_millis(now + later);
            let decision = (self.subject)(&view.release, &view.observed, at);
            let same = Some(&decision.status) == view.release.status.as_ref();
            let effects = decision.before.len() + decision.after.len();
            self.checker.require(same && effects == 0, "L2", || {
                format!("{later} ms into the rest it writes: status {same}, {effects} effects")
            });
            self.checker.require(decision.questions.is_empty(), "L2", || {
                format!("{later} ms into the rest it asks {:?}", decision.questions)
            });
            self.checker.require(decision.events.is_empty(), "L2", || {
                format!("{later} ms into the rest it says {:?}", decision.events)
            });
        }
        // A clock that was put back may be noted once.
        let at = Timestamp::from_millis(now - 3_600_000);
        let mut release = view.release;
        for _ in 0..2 {
            let decision = (self.subject)(&release, &view.observed, at);
            let effects = decision.before.len() + decision.after.len();
            self.checker.require(effects == 0, "L2", || format!("the clock is put back at rest: {effects} effects"));
            release.status = Some(decision.status);
        }
        let again = (self.subject)(&release, &view.observed, at);
        self.checker.require(Some(again.status) == release.status, "L2", || {
            "the clock is put back at rest, and the status is written again and again".into()
        });
    }

    /// Everything that stands in the way is removed, a good template is applied, and a person
    /// answers what is asked: it must end Healthy.
    fn forward(&mut self) {
        let deleted = self.cluster.live.release.as_ref().is_none_or(|it| it.deleting.is_some());
        if deleted {
            return;
        }
        let letter = checks::wanted_letter(&self.cluster);
        let stable = self.status().stable.map(|stable| stable.revision);
        let serves =
            self.cluster.live.sets.values().find(|set| Some(&set.hash) == stable.as_ref()).map(|set| set.letter);
        let is_new = |fresh: &char| letter != Some(*fresh) && serves != Some(*fresh);
        let fresh = ['Z', 'Y', 'C'].into_iter().find(is_new).unwrap_or('Z');
        self.log.push(format!("- all obstacles are removed, the template becomes {fresh}"));
        self.operators.iter_mut().for_each(|operator| operator.answers_right = true);
        self.cluster.jobs_right = true;
        for event in [
            Event::Autoscaler(false),
            Event::Rival(false),
            Event::Contest(false),
            Event::GatewayRefuses(false),
            Event::RouteHealed(None),
            Event::RestoreRoute,
            Event::Password(Rotation::Secret),
            Event::Paused(false),
        ] {
            self.act(&event);
        }
        if self.status().reason == "RouteContested" {
            self.log.push("- a person says: Retry".into());
            self.act(&Event::Command { action: Action::Retry, aim: Aim::Right, full: false });
            self.settle(3);
        }
        self.act(&Event::Template(fresh));
        users::edit(&mut self.cluster, |spec| {
            spec.replicas = spec.replicas.map(|it| it.clamp(1, 5));
            if !spec.checks.is_empty() {
                // With one pod and no surge there is none to ask.
                spec.replicas = Some(spec.replicas.unwrap_or(2).max(2));
            }
        });
        self.cluster.touch(Kind::Pods);
        self.cluster.commit();
        self.checker.replicas_changed(&self.cluster);
        for _ in 0..16 {
            if !self.finish() {
                return;
            }
            let status = self.status();
            if status.phase == Phase::Healthy {
                return;
            }
            // What nobody knew of the seed is known by now: the next try finds it in the ledger.
            let known = |it: &RollbackStatus| it.completed_at.is_some() && it.reason == "SeedUnknown";
            let seeded = status.rollback.as_ref().is_some_and(known);
            let action = match status.phase {
                Phase::Halted | Phase::RolledBack if seeded => Action::Retry,
                Phase::AwaitingApproval => Action::Approve,
                Phase::Paused if status.hold.is_some() && self.works_on_the_database() => Action::Retry,
                Phase::Paused if status.hold.is_some() => Action::Skip,
                Phase::Paused => Action::Resume,
                Phase::Observing => Action::Retry,
                Phase::Halted if status.database.is_some() => self.looks_after_the_database(),
                _ => break,
            };
            self.log.push(format!("- a person answers: {action:?}"));
            self.act(&Event::Command { action, aim: Aim::Right, full: false });
        }
        let status = self.status();
        let text = format!("a good template ends in {:?} ({}): {}", status.phase, status.reason, status.message);
        self.checker.fail("L1", text);
    }

    fn works_on_the_database(&self) -> bool {
        self.status().step.is_some_and(|step| step.name == StepName::Database)
    }

    /// What a person does who is told to look at the database: what nobody knew is noted in the ledger, and the release
    /// is asked to look again; if that is not enough, the schema is taken for settled.
    fn looks_after_the_database(&mut self) -> Action {
        let status = self.status();
        let known = status.database.unwrap_or_default();
        // What cannot be tried again is not offered.
        if known.asked_again_at.is_some() || !status.next_action.contains("retry") {
            return Action::Skip;
        }
        self.act(&Event::SettleByHand);
        Action::Retry
    }
}
