//! After the promotion, read from the status: it is observed as long as the manifest says (L3), what fails is acted on
//! (T3) and takes the traffic back to the revision of before (R2), whose pods stay warm meanwhile (R4); without data
//! nothing is called a success (S4), while spec.paused is set it does not end (T5), and nothing of it is left (L1).

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use servicerelease::{
    api::{
        Check, CheckOutcome, Draining, Duration, Moment, ObservationStatus, OnFailure, Phase, ServiceReleaseStatus,
        Timestamp, VerdictOutcome,
    },
    engine::{Effect, Endpoint, Plan, Pod, Reply, Selection, selection},
};

use crate::{
    metrics::{self, Watched},
    model::cluster::Cluster,
    operator::Work,
};

use super::{Checker, Judged, effects::Scene, limits, pods, replicas, steps::news, stored};

/// How observations came to their end, by kind.
static ENDS: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

pub fn note(end: &'static str) {
    *ENDS.lock().unwrap_or_else(PoisonError::into_inner).entry(end).or_default() += 1;
}

/// How they did, as a line, and the kinds that were never seen.
pub fn ends() -> (String, Vec<&'static str>) {
    let all = [
        "passed",
        "unproven",
        "back by pods",
        "back by a metric",
        "back by a check",
        "back by readiness",
        "probed while the object is Invalid",
        "held for a person",
        "back while held for a person",
    ];
    let seen = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
    let told: Vec<String> = all.iter().map(|end| format!("{end} {}", seen.get(end).unwrap_or(&0))).collect();
    // The last is rare: a mutant sees to it that it comes about.
    let missing = all.into_iter().rev().skip(1).filter(|end| !seen.contains_key(end)).collect();
    (format!("observations that ended: {}", told.join(", ")), missing)
}

/// How old the last answer of a metric may be that speaks for a success, in milliseconds.
pub(super) const LATELY: i64 = 60_000;

/// What failed, and whether that goes back by itself.
struct Failing {
    what: String,
    back: &'static str,
    automatic: bool,
}

fn number(status: &ServiceReleaseStatus) -> i64 {
    status.release.as_ref().map_or(0, |it| it.number)
}

fn is_asked(check: &Check) -> bool {
    check.every.is_some() || check.when.contains(&Moment::AfterPromotion)
}

/// R4: the pods that are kept for the way back stay until their time is over.
pub fn kept(scene: &Scene<'_>, revision: &str, falls: bool) -> Judged {
    let status = stored(scene.cluster);
    let observed = status.observation.is_some() && status.candidate.is_none();
    let stable = status.stable.as_ref().is_some_and(|it| it.revision == revision);
    let kept = status.draining.iter().find(|it| it.revision == revision && it.until > scene.work.now);
    let deleting = scene.work.view.release.metadata.deletion_timestamp.is_some();
    match kept.filter(|_| observed && falls && !stable && !deleting && !scene.work.late) {
        Some(kept) => vec![("R4", format!("pods of {revision} go, which is kept warm until {}", kept.until))],
        None => Vec::new(),
    }
}

impl Checker {
    /// Remembers when what was answered as it should be; of a metric, if that was its last answer.
    pub fn show(&mut self, work: &Work) {
        for answer in &work.view.observed.answers {
            let mut parts = answer.id.split('/');
            let (Some(kind), Some(name), Some(release)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let right = match &answer.reply {
                Reply::Check { fault, .. } => fault.is_none() && parts.next() == Some("0"),
                reply => metrics::supports(reply),
            };
            if right {
                self.shown.insert(format!("{kind}/{name}/{release}"), answer.at);
            } else if kind == "metric" {
                self.shown.remove(&format!("{kind}/{name}/{release}"));
            }
        }
        for state in work.old.checks.iter().filter(|state| state.step == 0) {
            let mut jobs = work.view.observed.jobs.iter().filter(|job| Some(&job.object.name) == state.job.as_ref());
            if let Some(end) = jobs.find_map(|job| job.end.as_ref()).filter(|end| end.succeeded) {
                self.shown.insert(format!("check/{}/{}", state.name, state.release), end.at);
            }
        }
    }

    fn is_shown(&self, kind: &str, name: &str, release: i64, since: Timestamp) -> bool {
        self.shown.get(&format!("{kind}/{name}/{release}")).is_some_and(|at| *at >= since)
    }

    pub fn observation_rules(&mut self, cluster: &Cluster, work: &Work) {
        if work.view.release.metadata.deletion_timestamp.is_some() {
            return;
        }
        let (old, new) = (&work.old, &work.decision.status);
        let Some(plan) = cluster.live.plans.get(&number(old)) else { return };
        self.begins(work, plan);
        let open = old.observation.as_ref().filter(|_| old.candidate.is_none());
        if let Some(state) = open.filter(|_| number(old) == number(new)) {
            let unready = self.is_unready(work, state);
            let failing = failing(work, plan, state, unready);
            self.acted_on(work, state, failing.as_ref());
            self.keeps(work);
            if state.failure.is_none() && new.observation.is_none() && new.candidate.is_none() {
                self.ends(work, plan, state);
            }
        }
        self.count_unready(work);
    }

    /// What was promoted is observed as long as the manifest says, with the pods of before beside it.
    fn begins(&mut self, work: &Work, plan: &Plan) {
        let (old, new) = (&work.old, &work.decision.status);
        let revision = |it: &Option<servicerelease::api::RevisionStatus>| it.as_ref().map(|it| it.revision.clone());
        let promoted = old.candidate.is_some()
            && revision(&old.candidate) == revision(&new.stable)
            && number(old) == number(new)
            && new.rollback.is_none();
        if !promoted {
            return;
        }
        if let Some(observation) = plan.spec.observation {
            let until = work.now.plus(observation.duration);
            let state = new.observation.as_ref();
            self.require(state.is_some_and(|it| it.started_at == work.now && it.until == until), "L3", || {
                format!("promoted, and to be observed until {until}: {state:?}")
            });
        }
        let Some(before) = revision(&old.stable).filter(|it| Some(it) != revision(&new.stable).as_ref()) else {
            return;
        };
        let has_pods = old.stable.as_ref().is_some_and(|it| it.replicas > 0);
        if let Some(traffic) = plan.spec.traffic.as_ref().filter(|_| has_pods) {
            let whole = limits::allowed(&plan.spec, 1).doubled || plan.spec.router().is_some();
            let delay = if whole { traffic.scale_down_delay } else { Duration::default() };
            let until = work.now.plus(plan.spec.rollback.keep_previous.unwrap_or_default().max(delay));
            let kept = new.draining.iter().any(|it| it.revision == before && it.until >= until);
            self.require(kept || until == work.now, "R4", || {
                format!("{before} is not kept warm until {until}: {:?}", new.draining)
            });
        }
    }

    /// What is kept warm stays on record until its time is over.
    fn keeps(&mut self, work: &Work) {
        let (old, new) = (&work.old, &work.decision.status);
        let stays = |revision: &str| {
            let stable = new.stable.as_ref().is_some_and(|it| it.revision == revision);
            stable || new.draining.iter().any(|it| it.revision == revision)
        };
        let lost = old.draining.iter().find(|it| it.until > work.now && !stays(&it.revision));
        self.require(new.observation.is_none() || lost.is_none(), "R4", || format!("{lost:?} is kept no longer"));
        self.warms(work);
    }

    /// What is kept for an undo has all its pods, once the Service selects stable alone.
    fn warms(&mut self, work: &Work) {
        let (old, new, seen) = (&work.old, &work.decision.status, &work.view.observed);
        let Some(stable) = old.stable.as_ref().filter(|_| new.observation.is_some()) else { return };
        let alone = seen.service.as_ref().is_some_and(|service| {
            let mine = |it: &Endpoint| !it.ready || it.revision.as_ref() == Some(&stable.revision);
            selection(service) == Selection::Revision(stable.revision.clone()) && service.endpoints.iter().all(mine)
        });
        let wanted = replicas(&work.view.release.spec, old);
        let kept = |hash: &str| {
            let kept = |it: &&Draining| it.revision == hash && it.kept_from.is_some() && it.until > work.now;
            old.draining.iter().any(|it| kept(&it))
        };
        let grows = |name: &str| {
            let grows = |it: &Effect| matches!(it, Effect::ScaleReplicaSet { object, replicas } if object.name == name && *replicas >= wanted);
            work.decision.after.iter().any(grows)
        };
        let small = seen.revisions.iter().find(|set| {
            let lacking = !set.deleting && set.replicas < wanted && kept(&set.hash);
            lacking && !grows(&set.object.name)
        });
        let fine = small.is_none() || !alone || new.reason.contains("Contested");
        self.require(fine, "R4", || format!("kept with too few pods: {:?}", small.map(|it| &it.hash)));
    }

    /// T3, R2: what fails goes back to the last revision that was good, or a person is told. A failure that waits for a
    /// person keeps nothing else from going back.
    fn acted_on(&mut self, work: &Work, state: &ObservationStatus, failing: Option<&Failing>) {
        let (old, new) = (&work.old, &work.decision.status);
        let by_person = !news(work).is_empty() || new.reason.contains("Contested");
        let back = new.rollback.as_ref().filter(|it| it.release == number(new) && it.completed_at.is_none());
        let held = state.failure.is_some();
        let told = !held && new.observation.as_ref().is_some_and(|it| it.failure.is_some());
        let Some(failing) = failing else {
            // Readiness, which both sides' pods tell, is the engine's to judge.
            let unready = back.is_some_and(|it| it.reason == "NotReady") || told;
            self.require(back.is_none() || unready || by_person, "R2", || "it goes back, and nothing failed".into());
            return;
        };
        if back.is_some() || told {
            note(if told { "held for a person" } else { failing.back });
        }
        if back.is_some() && held && !by_person {
            note("back while held for a person");
        }
        let good = |hash: &str| {
            let stable = old.stable.as_ref().is_some_and(|it| it.revision == hash);
            let failed = old.failed_revisions.iter().any(|it| it.revision == hash);
            let there = work.view.observed.revisions.iter().any(|set| set.hash == hash && !set.deleting);
            !stable && !failed && there
        };
        let before = old.history.iter().rev().map(|it| it.revision.clone()).find(|hash| good(hash));
        let waits = held && (!failing.automatic || before.is_none() || work.now >= state.until);
        self.require(back.is_some() || told || waits || by_person, "T3", || {
            format!("{} is left at that", failing.what)
        });
        if waits {
            return;
        }
        let meant = before.filter(|_| failing.automatic).or_else(|| old.stable.as_ref().map(|it| it.revision.clone()));
        let stable = new.stable.as_ref().map(|it| it.revision.clone());
        self.require(stable == meant || by_person, "R2", || {
            format!("{}: {meant:?} is to serve, not {stable:?}", failing.what)
        });
    }

    /// It is over, and nothing failed.
    fn ends(&mut self, work: &Work, plan: &Plan, state: &ObservationStatus) {
        let (old, new) = (&work.old, &work.decision.status);
        self.require(work.now >= state.until, "L3", || format!("observed until {}, not {}", work.now, state.until));
        self.require(!work.view.release.spec.paused, "T5", || "it ends while spec.paused is set".into());
        if replicas(&work.view.release.spec, old) == 0 {
            return;
        }
        let asked = |kind: &Watched| !matches!(kind, Watched::DryRun | Watched::Compare | Watched::Restarts);
        let kind = metrics::of(plan).filter(asked).filter(|_| plan.spec.observation.is_some());
        let lately = Timestamp::from_millis(work.now.as_millis() - LATELY).max(state.started_at);
        // Data that are to be ignored are missed by nobody.
        let ignored = |kind: Watched| {
            kind == Watched::Lenient && new.verdicts.first().is_some_and(|it| it.outcome == VerdictOutcome::Ignored)
        };
        let shown = |kind| self.is_shown("metric", &metrics::name(kind), number(old), lately) || ignored(kind);
        let shown = kind.is_none_or(shown);
        let told = new.release.as_ref().is_some_and(|it| it.unproven.is_some());
        note(if told { "unproven" } else { "passed" });
        self.require(shown || told, "S4", || format!("a success, and no value says so: {:?}", new.verdicts));
        let noted = new.timeline.last().map_or("", |it| it.kind.as_str());
        self.require(noted != "Observed" || !told, "S4", || "nothing is proven, and it counts as observed".into());
        let sets = &work.view.observed.revisions;
        let mut mine = sets.iter().filter(|set| old.stable.as_ref().is_some_and(|it| it.revision == set.hash));
        let serves = mine.any(|set| set.available > 0);
        self.require(noted != "Observed" || serves, "S4", || "nobody is available, and it counts as observed".into());
        for check in plan.spec.checks.iter().filter(|check| is_asked(check) && check.on_failure != OnFailure::Ignore) {
            let shown = self.is_shown("check", &check.name, number(old), state.started_at);
            self.require(shown, "S4", || format!("a success, and {} was never answered so", check.name));
        }
    }

    /// L1: nothing is left of it.
    pub fn observed_at_rest(&mut self, status: &ServiceReleaseStatus) {
        if !matches!(status.phase, Phase::Healthy | Phase::RolledBack) {
            return;
        }
        let open = status.observation.is_some();
        self.require(!open || status.reason.contains("Contested"), "L1", || {
            format!("{:?} at rest, and observed still: {:?}", status.phase, status.observation)
        });
        let problem = status.stable.as_ref().and_then(|stable| stable.problem.as_ref());
        self.require(open || problem.is_none(), "L1", || format!("not observed, and {problem:?} stays in the status"));
        self.require(status.draining.is_empty(), "L1", || format!("at rest {:?} is kept", status.draining));
    }
}

/// What says that the revision which serves fails: its pods, a metric or a check.
fn failing(work: &Work, plan: &Plan, state: &ObservationStatus, unready: bool) -> Option<Failing> {
    let (new, stable) = (&work.decision.status, work.old.stable.as_ref()?);
    let automatic = plan.spec.rollback.automatic;
    let pods = work.view.observed.revisions.iter().filter(|set| set.hash == stable.revision && !set.deleting);
    let restarts = pods::counts_restarts(plan);
    if let Some(pod) = pods.flat_map(|set| &set.pods).find(|pod| crashes(pod, state.started_at, restarts)) {
        return Some(Failing { what: format!("pod {} that crashes", pod.name), back: "back by pods", automatic });
    }
    if unready {
        return Some(Failing { what: "that nobody is ready".into(), back: "back by readiness", automatic });
    }
    let watched = metrics::of(plan).is_some_and(|kind| !matches!(kind, Watched::DryRun | Watched::Compare));
    if let Some(verdict) = new.verdicts.first().filter(|it| watched && it.outcome == VerdictOutcome::Fail) {
        return Some(Failing { what: format!("metric {}", verdict.name), back: "back by a metric", automatic });
    }
    let failed = new.checks.iter().filter(|it| {
        (it.release, it.step, it.outcome) == (number(new), 0, CheckOutcome::Failed) && it.started_at >= state.started_at
    });
    let mut meant = failed.filter_map(|it| plan.spec.checks.iter().find(|check| check.name == it.name));
    let held = state.failure.is_some();
    let acts = |it: OnFailure| it == OnFailure::Rollback || (it == OnFailure::Hold && !held);
    let check = meant.find(|check| is_asked(check) && acts(check.on_failure))?;
    let automatic = automatic && check.on_failure == OnFailure::Rollback;
    Some(Failing { what: format!("check {}", check.name), back: "back by a check", automatic })
}

/// Whether a pod crashes, was killed for its memory, or is started again and again, since then by its own fault.
fn crashes(pod: &Pod, since: Timestamp, counts_restarts: bool) -> bool {
    let restarts = counts_restarts && pods::restarts(pod, since);
    let crashes = || {
        pod.containers.iter().any(|container| {
            let ended = container.ended.as_ref().filter(|ended| ended.at.is_some_and(|at| at > since));
            let loops = container.waiting.as_deref() == Some("CrashLoopBackOff");
            ended.is_some_and(|ended| loops || ended.reason == "OOMKilled")
        })
    };
    !pod.terminating && !pod.disrupted && (restarts || crashes())
}
