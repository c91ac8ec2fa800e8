//! Mutants of `decide()`: each distorts what the engine sees or says as a plausible bug would, and
//! names the rule that has to catch it.

pub mod database;
pub mod observation;

use servicerelease::{
    api::{
        Action, CommandPhase, Duration, Metric, Phase, ServiceRelease, ServiceReleaseSpec, ServiceReleaseStatus,
        StepName, Timestamp,
    },
    engine::{Answer, Decision, Effect, Endpoint, Observed, Reply, RouteParent, Selection, Template, decide},
};

use crate::{
    metrics,
    model::{
        cluster::{CANDIDATE_SERVICE, SERVICE},
        gateway,
    },
};

/// A mutant: its name, the rule that it breaks, and what it does instead of `decide()`.
pub struct Mutant {
    pub name: &'static str,
    pub rule: &'static str,
    pub decide: fn(&ServiceRelease, &Observed, Timestamp) -> Decision,
}

const fn mutant(
    name: &'static str,
    rule: &'static str,
    decide: fn(&ServiceRelease, &Observed, Timestamp) -> Decision,
) -> Mutant {
    Mutant { name, rule, decide }
}

pub const MUTANTS: &[Mutant] = &[
    mutant("does nothing at all", "L1", |release, _, _| Decision {
        status: release.status.clone().unwrap_or_default(),
        ..Decision::default()
    }),
    mutant("counts pods that exist as available", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for set in &mut seen.revisions {
                set.available = set.replicas;
                set.ready = set.replicas;
                set.observed = true;
            }
        })
    }),
    mutant("opens the Service before the candidate is ready", "T1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let preparing = decision.status.step.as_ref().is_some_and(|step| step.name == StepName::Prepare);
        if let Some(service) = seen.service.as_ref().filter(|_| preparing) {
            let (object, selection) = (service.object.clone(), Selection::Release);
            decision.after.push(Effect::Select { object, selection, keep_original: None, base: Default::default() });
        }
        decision
    }),
    mutant("writes effects before their record", "T1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.before.append(&mut decision.after);
        decision
    }),
    mutant("goes back to stable without waiting for its pods", "T3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let stable = decision.status.stable.as_ref().map(|entry| entry.revision.clone());
        if let (true, Some(stable), Some(service)) = (going_back(&decision.status), stable, &seen.service) {
            let (object, selection) = (service.object.clone(), Selection::Revision(stable));
            decision
                .after
                .insert(0, Effect::Select { object, selection, keep_original: None, base: Default::default() });
        }
        decision
    }),
    mutant("cleans up before traffic moves back", "T3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.after.reverse();
        decision
    }),
    mutant("takes more pods than maxSurge", "T4", |release, seen, now| {
        with_effects(release, seen, now, |effect| {
            if let Effect::ScaleReplicaSet { replicas, .. } = effect {
                *replicas += 2;
            }
        })
    }),
    mutant("takes stable's pods away at once", "T4", |release, seen, now| {
        with_effects(release, seen, now, |effect| {
            if let Effect::ScaleReplicaSet { object, replicas } = effect {
                let before = seen.revisions.iter().find(|set| set.object == *object);
                if before.is_some_and(|set| set.replicas > *replicas) {
                    *replicas = 0;
                }
            }
        })
    }),
    mutant("ignores spec.paused", "T5", |release, seen, now| {
        let mut release = release.clone();
        release.spec.paused = false;
        decide(&release, seen, now)
    }),
    mutant("leaves the candidate Service on its pods", "T6", |release, seen, now| {
        let mut decision = decide(release, &no_preview(seen), now);
        decision.after.retain(|effect| !matches!(effect, Effect::CreateService(new) if new.name == CANDIDATE_SERVICE && seen.candidate_service.is_some()));
        decision
    }),
    mutant("passes approvals by itself", "T2", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(step) = status.step.as_mut().filter(|step| step.name == StepName::Approval) {
                step.passed_by = Some("nobody".into());
            }
        })
    }),
    mutant("ends pauses before their time", "T2", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(step) = &mut status.step {
                step.started_at = Timestamp::from_millis(step.started_at.as_millis() - 9_000);
            }
        })
    }),
    mutant("gives all traffic at the first weight", "T2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let setting = decision.status.step.as_ref().is_some_and(|step| step.name == StepName::SetWeight);
        if let Some(weights) = decision.status.weights.as_mut().filter(|_| setting) {
            weights.desired.candidate = 100;
            weights.desired.stable = 0;
        }
        decision
    }),
    mutant("knows a revision by the hash of what the API server returns", "R1", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for revision in &mut seen.revisions {
                revision.template = Template::new(serde_json::json!({}));
            }
        })
    }),
    mutant("promotes while pods are missing", "R2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let status = &mut decision.status;
        if status.phase == Phase::Progressing && status.candidate.is_some() && !going_back(status) {
            status.stable = status.candidate.take();
            status.step = None;
        }
        decision
    }),
    mutant("forgets the latch", "R3", |release, seen, now| {
        with_status(release, seen, now, |status| {
            for failed in &mut status.failed_revisions {
                failed.latched = false;
            }
        })
    }),
    mutant("scales an aborted candidate up again", "R3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let back = decision.status.rollback.as_ref().filter(|_| going_back(&decision.status));
        let back = back.map(|rollback| rollback.revision.clone());
        if let Some(set) = seen.revisions.iter().find(|set| Some(&set.hash) == back.as_ref()) {
            let (object, replicas) = (set.object.clone(), set.replicas + 1);
            decision.after.push(Effect::ScaleReplicaSet { object, replicas });
        }
        decision
    }),
    mutant("deletes the previous revision", "R4", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let previous = decision.status.previous.as_ref().map(|entry| entry.revision.clone());
        if let Some(set) = seen.revisions.iter().find(|set| Some(&set.hash) == previous.as_ref()) {
            decision.after.push(Effect::DeleteReplicaSet { object: set.object.clone() });
        }
        decision
    }),
    mutant("does not record commands", "C1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.status.commands.clear();
        decision
    }),
    mutant("answers commands before they are on record", "C1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let answers = decision.after.extract_if(.., |effect| matches!(effect, Effect::AnswerCommand { .. }));
        let answers: Vec<Effect> = answers.collect();
        decision.before.extend(answers);
        decision
    }),
    mutant("does not hear an Abort", "C1", |release, seen, now| {
        with_seen(release, seen, now, |seen| seen.commands.retain(|command| command.action != Action::Abort))
    }),
    mutant("follows commands for another revision", "C2", |release, seen, now| {
        let status = release.status.clone().unwrap_or_default();
        let candidate = status.candidate.map(|entry| entry.revision);
        with_seen(release, seen, now, |seen| {
            for command in seen.commands.iter_mut().filter(|command| command.revision.is_some()) {
                command.revision = candidate.clone().or(command.revision.take());
            }
        })
    }),
    mutant("follows commands for another step", "C2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for command in &mut seen.commands {
                command.step = None;
            }
        })
    }),
    mutant("rejects every Abort", "C3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let news = |uid: &str| {
            let old = release.status.iter().flat_map(|status| &status.commands);
            old.clone().all(|record| record.uid != uid)
        };
        for record in &mut decision.status.commands {
            if record.action == Action::Abort && news(&record.uid) {
                record.phase = CommandPhase::Rejected;
            }
        }
        decision
    }),
    mutant("gives weight back to an aborted candidate", "C3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let back = going_back(&decision.status);
        if let Some(weights) = decision.status.weights.as_mut().filter(|_| back) {
            weights.desired.candidate = 50;
            weights.desired.stable = 50;
        }
        decision
    }),
    mutant("claims a generation that it never saw", "S1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.status.observed_generation += 1;
        decision
    }),
    mutant("does not say which generation it saw", "S1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.status.observed_generation =
            release.status.as_ref().map_or(1, |status| status.observed_generation.max(1));
        decision
    }),
    mutant("acts on an old view of the Deployment", "S1", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(workload) = &mut status.workload {
                workload.uid = String::new();
            }
        })
    }),
    mutant("is Ready whenever it is Healthy", "S2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        if decision.status.phase == Phase::Healthy {
            for condition in &mut decision.status.conditions {
                let on = if condition.type_ == "Ready" { "True" } else { "False" };
                condition.status = on.into();
            }
        }
        decision
    }),
    mutant("is Ready and Reconciling at once", "S3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        for condition in &mut decision.status.conditions {
            if matches!(condition.type_.as_str(), "Ready" | "Reconciling") {
                condition.status = "True".into();
            }
        }
        decision
    }),
    mutant("does not say what a person can do", "S4", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.status.next_action.clear();
        decision
    }),
    mutant("never forgets the timeline", "S5", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        if let Some(last) = decision.status.timeline.last().cloned() {
            decision.status.timeline.resize(40, last);
        }
        decision
    }),
    mutant("never looks again by itself", "L1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.wake = None;
        decision
    }),
    mutant("writes the time into the message", "L2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.status.message = format!("{} ({now})", decision.status.message);
        decision
    }),
    mutant("waits without a deadline", "L3", |release, seen, now| {
        let mut release = release.clone();
        release.spec.progress_deadline_seconds = 86_400;
        with_seen(&release, seen, now, |seen| {
            for plan in &mut seen.plans {
                plan.spec.progress_deadline_seconds = 86_400;
            }
        })
    }),
    mutant("asks for everything many times", "L4", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.after = decision.after.iter().cycle().take(decision.after.len() * 30).cloned().collect();
        decision
    }),
];

/// With other metrics in the plans that are pinned.
fn with_metrics(release: &ServiceRelease, seen: &Observed, now: Timestamp, change: fn(&mut Metric)) -> Decision {
    with_seen(release, seen, now, |seen| {
        for plan in &mut seen.plans {
            let own = plan.spec.analysis.iter_mut().flat_map(|analysis| &mut analysis.metrics);
            own.chain(plan.analysis_templates.iter_mut().flat_map(|it| &mut it.spec.metrics)).for_each(change);
        }
    })
}

/// Those that only cases with checks can catch.
pub const CHECKED: &[Mutant] = &[
    mutant("takes every answer for a right one", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in &mut seen.answers {
                if let Reply::Check { fault, .. } = &mut answer.reply {
                    *fault = None;
                }
            }
        })
    }),
    mutant("takes every Job that ended for one that ended well", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for end in seen.jobs.iter_mut().filter_map(|job| job.end.as_mut()) {
                end.succeeded = true;
            }
        })
    }),
    mutant("makes Jobs before they are on record", "T2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let jobs = decision.after.extract_if(.., |effect| matches!(effect, Effect::CreateJob(_)));
        let jobs: Vec<Effect> = jobs.collect();
        decision.before.extend(jobs);
        decision
    }),
    mutant("leaves the Jobs of attempts that are over", "L1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.after.retain(|effect| !matches!(effect, Effect::DeleteJob { .. }));
        decision
    }),
    mutant("asks once, whatever number of answers is wanted", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for check in seen.plans.iter_mut().flat_map(|plan| &mut plan.spec.checks) {
                check.attempts = Some(1);
            }
        })
    }),
];

/// Those that only cases with metrics can catch.
pub const ANALYSED: &[Mutant] = &[
    mutant("takes no data for a good value", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in &mut seen.answers {
                if matches!(answer.reply, Reply::NoData(_) | Reply::ProviderError(_)) {
                    answer.reply = Reply::Value(0.0);
                }
            }
        })
    }),
    mutant("takes silence for the word of a provider before there are requests", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in seen.answers.iter_mut().filter(|answer| metrics::is_before_requests(&answer.id)) {
                answer.reply = Reply::Value(0.0);
            }
        })
    }),
    mutant("gives the candidate requests without asking whether they can be measured", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            let asked = decide(release, seen, now).questions.into_iter().map(|question| question.id);
            let said = |id| Answer { id, at: now, reply: Reply::Value(0.0) };
            seen.answers.extend(asked.filter(|id| metrics::is_before_requests(id)).map(said));
        })
    }),
    mutant("counts no error of the candidate", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in &mut seen.answers {
                match &mut answer.reply {
                    Reply::Counts { candidate, .. } => candidate.events = 0,
                    Reply::Windows { windows, .. } => windows.iter_mut().for_each(|window| window.events = 0),
                    _ => {}
                }
            }
        })
    }),
    mutant("lets what a candidate did well outweigh what it does now", "T2", |release, seen, now| {
        with_status(release, seen, now, |status| status.verdicts.iter_mut().for_each(|it| it.recent = None))
    }),
    mutant("counts for a weight before it is reached", "T2", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(weights) = status.weights.as_mut().filter(|weights| weights.desired.candidate > 0) {
                weights.reached_at = weights.reached_at.or(Some(now));
            }
        })
    }),
    mutant(
        "takes an approval, or a pause that a person ended, for a word about verdicts",
        "T2",
        |release, seen, now| {
            with_status(release, seen, now, |status| {
                if let Some(step) = &mut status.step {
                    step.accepted |= step.passed_by.is_some();
                }
            })
        },
    ),
    mutant("takes a rate of three requests for one", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in &mut seen.answers {
                if let Reply::Share { requests, .. } = &mut answer.reply {
                    *requests = f64::MAX;
                }
            }
        })
    }),
    mutant("passes at the first value, however many are wanted", "T2", |release, seen, now| {
        with_metrics(release, seen, now, |metric| metric.success_threshold = 1)
    }),
    mutant("takes a look right after a weight is reached for one at it", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for analysis in seen.plans.iter_mut().filter_map(|plan| plan.spec.analysis.as_mut()) {
                analysis.interval = Duration::from_secs(1);
            }
        })
    }),
    mutant("takes a part of the data for all of them", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in &mut seen.answers {
                if let Reply::Noted { whole, .. } = &mut answer.reply {
                    *whole = true;
                }
            }
        })
    }),
    mutant("takes a query that is refused for a word against the candidate", "T2", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            for answer in seen.answers.iter_mut().filter(|answer| answer.id.starts_with("metric/")) {
                if matches!(answer.reply, Reply::Refused(_) | Reply::Senseless(_)) {
                    answer.reply = Reply::Value(1.0);
                }
            }
        })
    }),
    mutant("acts on dry runs", "T2", |release, seen, now| {
        with_metrics(release, seen, now, |metric| metric.dry_run = false)
    }),
];

/// The same of releases over a route.
pub const ROUTED: &[Mutant] = &[
    mutant("takes every route for accepted", "T6", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            if let Some(route) = &mut seen.route {
                let generation = route.generation;
                let parent =
                    RouteParent { reference: gateway::edge(), generation, accepted: true, ..RouteParent::default() };
                route.parents = vec![parent];
            }
        })
    }),
    mutant("does not wait for the gateway's time", "T6", |release, seen, now| {
        let mut release = release.clone();
        let no_time = |spec: &mut ServiceReleaseSpec| {
            if let Some(router) = spec.traffic.as_mut().and_then(|traffic| traffic.router.as_mut()) {
                router.propagation_delay = Duration::default();
            }
        };
        no_time(&mut release.spec);
        with_seen(&release, seen, now, |seen| seen.plans.iter_mut().for_each(|plan| no_time(&mut plan.spec)))
    }),
    mutant("moves weight before the candidate's pods are available", "T1", |release, seen, now| {
        let candidate = release.status.as_ref().and_then(|status| status.candidate.clone());
        with_seen(release, seen, now, |seen| {
            for set in
                seen.revisions.iter_mut().filter(|set| candidate.as_ref().is_some_and(|it| it.revision == set.hash))
            {
                (set.available, set.ready, set.observed) = (set.replicas, set.replicas, true);
            }
            let endpoint = |hash: &str| Endpoint { pod: None, revision: Some(hash.to_owned()), ready: true };
            let (Some(service), Some(candidate)) = (&mut seen.candidate_service, &candidate) else { return };
            service.endpoints = vec![endpoint(&candidate.revision); 10];
        })
    }),
    mutant("moves all weight back at once, whoever takes it", "T3", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let back = going_back(&decision.status);
        if let Some(route) = seen.route.as_ref().filter(|route| back && route.ours) {
            let spec = without_weight(&route.spec);
            if spec != route.spec {
                decision.after.insert(0, Effect::ReplaceRoute { object: route.object.clone(), spec });
            }
        }
        decision
    }),
    mutant("gives the route its weight before the record", "T2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let route = |effect: &Effect| matches!(effect, Effect::ReplaceRoute { .. } | Effect::SetRouteWeights { .. });
        let (first, rest) = decision.after.drain(..).partition(route);
        decision.before.extend::<Vec<Effect>>(first);
        decision.after = rest;
        decision
    }),
    mutant("takes the old pods away as soon as the route is written", "T4", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let served = seen.route.as_ref().map_or(0, |route| gateway::share(&route.spec));
        let stable = decision.status.stable.as_ref().map(|entry| entry.revision.clone());
        if let (100, Some(set)) = (served, seen.revisions.iter().find(|set| Some(&set.hash) == stable.as_ref())) {
            decision.after.push(Effect::ScaleReplicaSet { object: set.object.clone(), replicas: 0 });
        }
        decision
    }),
    mutant("points the candidate's Service elsewhere while it has a share", "T1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        if let Some(service) = seen.candidate_service.as_ref().filter(|_| going_back(&decision.status)) {
            let (object, selection) = (service.object.clone(), Selection::Nothing);
            decision
                .after
                .insert(0, Effect::Select { object, selection, keep_original: None, base: Default::default() });
        }
        decision
    }),
    mutant("says that the weight is what was asked for", "S4", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        if let Some(weights) = &mut decision.status.weights {
            weights.observed = weights.desired;
        }
        decision
    }),
    mutant("does not see who fights over the weights", "L4", |release, seen, now| {
        with_seen(release, seen, now, |seen| {
            if let Some(route) = &mut seen.route {
                route.changed_by = None;
            }
        })
    }),
];

fn without_weight(spec: &serde_json::Value) -> serde_json::Value {
    let mut spec = spec.clone();
    for rule in spec["rules"].as_array_mut().into_iter().flatten() {
        for backend in rule["backendRefs"].as_array_mut().into_iter().flatten() {
            backend["weight"] = serde_json::json!(if backend["name"] == SERVICE { 100 } else { 0 });
        }
    }
    spec
}

fn going_back(status: &ServiceReleaseStatus) -> bool {
    let rollback = status.rollback.as_ref();
    status.candidate.is_some() && rollback.is_some_and(|rollback| rollback.completed_at.is_none())
}

fn no_preview(seen: &Observed) -> Observed {
    let mut seen = seen.clone();
    if let Some(service) = &mut seen.candidate_service
        && service.object.name != SERVICE
    {
        service.selector.insert(servicerelease::api::LABEL_REVISION.into(), "none".into());
    }
    seen
}

fn with_seen(
    release: &ServiceRelease,
    seen: &Observed,
    now: Timestamp,
    change: impl FnOnce(&mut Observed),
) -> Decision {
    let mut seen = seen.clone();
    change(&mut seen);
    decide(release, &seen, now)
}

fn with_status(
    release: &ServiceRelease,
    seen: &Observed,
    now: Timestamp,
    change: impl FnOnce(&mut ServiceReleaseStatus),
) -> Decision {
    let mut release = release.clone();
    if let Some(status) = &mut release.status {
        change(status);
    }
    decide(&release, seen, now)
}

fn with_effects(release: &ServiceRelease, seen: &Observed, now: Timestamp, change: impl Fn(&mut Effect)) -> Decision {
    let mut decision = decide(release, seen, now);
    let Decision { before, after, .. } = &mut decision;
    before.iter_mut().chain(after).for_each(change);
    decision
}
