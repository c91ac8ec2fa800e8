//! Mutants that deal badly with a database.

use servicerelease::{
    api::{
        ApprovalKind, DatabaseApproval, DatabaseTask, DatabaseWork, Duration, MigrationApproval, OnRollback,
        SchemaState, ServiceRelease, ServiceReleaseSpec, Timestamp, WorkOutcome,
    },
    engine::{Decision, Effect, Observed, Report, Run, Task, Wrapped, decide},
};

use super::{Mutant, mutant, with_effects, with_seen, with_status};

pub const ALL: &[Mutant] = &[
    mutant("runs a command once more under another name when its pod was killed", "D1", |release, seen, now| {
        with_migrations(release, seen, now, |wrapped, job| wrapped.plan = format!("{}/{job}", wrapped.plan))
    }),
    mutant("runs a command once more in each release", "D1", |release, seen, now| {
        with_migrations(release, seen, now, |wrapped, _| {
            wrapped.plan = Wrapped::migration(&wrapped.release.replace('/', "-"), &wrapped.release);
        })
    }),
    mutant("takes every command for one that may be run twice", "D1", |release, seen, now| {
        with_tasks(release, seen, now, |task| {
            if let Task::Wrap(wrapped) = task {
                wrapped.again = true;
            }
        })
    }),
    mutant("takes each Job for a try that somebody ordered", "D1", |release, seen, now| {
        with_migrations(release, seen, now, |wrapped, job| wrapped.attempt = job)
    }),
    mutant("calls a seed by another name in each release", "D1", |release, seen, now| {
        with_tasks(release, seen, now, |task| {
            if let Task::Wrap(wrapped) | Task::Settle(wrapped) = task
                && wrapped.plan.starts_with("seed/")
            {
                wrapped.plan = format!("{}/{}", wrapped.plan, wrapped.release);
            }
        })
    }),
    mutant("leaves the seed on record whose migration is taken back", "D2", |release, seen, now| {
        with_tasks(release, seen, now, |task| {
            if let Task::Down { seed, .. } = task {
                *seed = None;
            }
        })
    }),
    mutant("takes every migration for one that old code can live with", "D2", |release, seen, now| {
        with_specs(release, seen, now, |spec| {
            let migration = spec.database.as_mut().and_then(|database| database.migration.as_mut());
            if let Some(migration) = migration {
                migration.previous_revision_compatible = true;
            }
        })
    }),
    mutant("begins as soon as the key of maintenance mode is set", "D2", |release, seen, now| {
        with_specs(release, seen, now, |spec| {
            if let Some(mode) = &mut spec.maintenance {
                mode.config_map.propagation_delay = Duration::default();
            }
        })
    }),
    mutant("takes what failed for done", "D2", |release, seen, now| {
        with_reports(release, seen, now, |report| {
            if matches!(report.outcome, WorkOutcome::Failed | WorkOutcome::NotBegun) {
                report.outcome = WorkOutcome::Done;
            }
        })
    }),
    mutant("passes over the migration", "D2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let on_the_way = decision.status.step.is_some() && decision.status.rollback.is_none();
        let candidate = decision.status.candidate.as_ref().map(|it| it.revision.clone()).filter(|_| on_the_way);
        for set in seen.revisions.iter().filter(|set| Some(&set.hash) == candidate.as_ref() && set.replicas == 0) {
            decision.after.push(Effect::ScaleReplicaSet { object: set.object.clone(), replicas: 1 });
        }
        decision
    }),
    mutant("takes the schema back unasked", "D3", |release, seen, now| {
        with_specs(release, seen, now, |spec| {
            if let Some(database) = spec.database.as_mut().filter(|database| database.migration_down.is_some()) {
                database.on_rollback = Some(OnRollback::MigrateDown);
            }
        })
    }),
    mutant("takes back what loses data without asking", "D3", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(known) = &mut status.database {
                let (kind, plan_hash) = (ApprovalKind::MigrateDown, known.plan(ApprovalKind::MigrateDown).to_owned());
                known.approvals.push(DatabaseApproval { kind, plan_hash, by: "nobody".into(), at: now });
            }
        })
    }),
    mutant("takes every way back for one that loses nothing", "D3", |release, seen, now| {
        with_specs(release, seen, now, |spec| {
            let down = spec.database.as_mut().and_then(|database| database.migration_down.as_mut());
            if let Some(down) = down {
                down.approval = Some(MigrationApproval::Never);
            }
        })
    }),
    mutant("takes back what loses data without a backup", "D3", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(known) = &mut status.database
                && known.last(DatabaseTask::PreflightDown).is_some()
                && known.last(DatabaseTask::BackupBeforeDown).is_none()
            {
                known.work.push(DatabaseWork {
                    task: DatabaseTask::BackupBeforeDown,
                    outcome: WorkOutcome::Done,
                    attempt: 1,
                    lost: 0,
                    job: String::new(),
                    ran: false,
                    started_at: now,
                    ended_at: Some(now),
                    unchanged: false,
                    message: String::new(),
                });
            }
        })
    }),
    mutant("takes back by whatever files there are", "D3", |release, seen, now| {
        with_tasks(release, seen, now, |task| {
            if let Task::Down { run, .. } = task {
                run.plan = None;
            }
        })
    }),
    mutant("restores a backup without asking", "D3", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(known) = &mut status.database {
                let (kind, plan_hash) = (ApprovalKind::Restore, known.plan_hash.clone());
                known.approvals = vec![DatabaseApproval { kind, plan_hash, by: "nobody".into(), at: now }];
            }
        })
    }),
    mutant("takes what nobody knows for failed", "D4", |release, seen, now| {
        with_reports(release, seen, now, |report| {
            if report.outcome == WorkOutcome::Unknown {
                report.outcome = WorkOutcome::Failed;
            }
        })
    }),
    mutant("takes a rehearsal that may have been done in earnest for one that failed", "D4", |release, seen, now| {
        with_reports(release, seen, now, |report| {
            if report.outcome == WorkOutcome::Unknown && report.rehearsal.is_some() {
                report.outcome = WorkOutcome::Failed;
            }
        })
    }),
    mutant("forgets maintenance mode", "D5", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        decision.after.retain(|effect| match effect {
            Effect::SetKeys { values, .. } => values.values().all(|value| value.as_deref() != Some("false")),
            _ => true,
        });
        if decision.status.rollback.is_some()
            && let Some(known) = &mut decision.status.database
        {
            known.maintenance_since = None;
        }
        decision
    }),
    mutant("makes the Job before it is on record", "T2", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let of_database =
            |effect: &Effect| matches!(effect, Effect::CreateJob(new) if matches!(new.run, Run::Database(_)));
        let (first, rest): (Vec<_>, Vec<_>) = decision.after.drain(..).partition(of_database);
        decision.before.extend(first);
        decision.after = rest;
        decision
    }),
    mutant("does not wait for the outcome of a migration that is aborted", "L1", |release, seen, now| {
        with_seen(release, seen, now, |seen| seen.jobs.clear())
    }),
    mutant("leaves the scratch database of what is killed or broken off", "L1", |release, seen, now| {
        with_status(release, seen, now, |status| {
            if let Some(known) = &mut status.database {
                known.scratch_since = None;
            }
        })
    }),
    mutant("sets flags, and leaves them", "S4", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        if decision.status.rollback.is_some() {
            decision.after.retain(|effect| !matches!(effect, Effect::SetKeys { .. }));
            if let Some(flags) = &mut decision.status.flags {
                flags.set_at = flags.set_at.or(Some(now));
            }
        }
        decision
    }),
];

/// Mutants that only one kind of event kills: its row in the table of coverage.
pub const STRUCK: &[(&str, Mutant)] = &[
    (
        "restart",
        mutant("takes a proof that the server broke off for one that left nothing", "L1", |release, seen, now| {
            with_reports(release, seen, now, |report| report.left &= report.message != "the connection is lost")
        }),
    ),
    (
        "password",
        mutant("takes whoever was not let in for one who did it", "D2", |release, seen, now| {
            with_reports(release, seen, now, |report| {
                if report.message.contains("password authentication") {
                    report.outcome = WorkOutcome::Done;
                }
            })
        }),
    ),
];

/// Mutants that take back badly what was promoted.
pub const UNDONE: &[Mutant] =
    &[mutant("waits on the way back for a page that it has put into no route", "L1", |release, seen, now| {
        let mut decision = decide(release, seen, now);
        let changed = decision.status.database.as_ref().is_some_and(|known| known.schema == SchemaState::Changed);
        let back = decision.status.rollback.as_ref().is_some_and(|rollback| rollback.completed_at.is_none());
        if changed && back {
            let of_route =
                |effect: &Effect| matches!(effect, Effect::ReplaceRoute { .. } | Effect::SetRouteWeights { .. });
            decision.after.retain(|effect| !of_route(effect));
        }
        decision
    })];

fn with_tasks(release: &ServiceRelease, seen: &Observed, now: Timestamp, change: impl Fn(&mut Task)) -> Decision {
    with_effects(release, seen, now, |effect| {
        if let Effect::CreateJob(new) = effect
            && let Run::Database(order) = &mut new.run
            && let Some(task) = &mut order.task
        {
            change(task);
        }
    })
}

/// Changes what is run as a migration, by the number of the Job that does it.
fn with_migrations(
    release: &ServiceRelease,
    seen: &Observed,
    now: Timestamp,
    change: impl Fn(&mut Wrapped, i32),
) -> Decision {
    let mut decision = decide(release, seen, now);
    let known = decision.status.database.as_ref().and_then(|known| known.last(DatabaseTask::Migration));
    let job = known.map_or(1, |work| work.attempt);
    for effect in &mut decision.after {
        if let Effect::CreateJob(new) = effect
            && let Run::Database(order) = &mut new.run
            && let Some(Task::Wrap(wrapped)) = &mut order.task
            && wrapped.migrates()
        {
            change(wrapped, job);
        }
    }
    decision
}

fn with_specs(
    release: &ServiceRelease,
    seen: &Observed,
    now: Timestamp,
    change: impl Fn(&mut ServiceReleaseSpec),
) -> Decision {
    let mut release = release.clone();
    change(&mut release.spec);
    with_seen(&release, seen, now, |seen| seen.plans.iter_mut().for_each(|plan| change(&mut plan.spec)))
}

fn with_reports(release: &ServiceRelease, seen: &Observed, now: Timestamp, change: impl Fn(&mut Report)) -> Decision {
    with_seen(release, seen, now, |seen| {
        for end in seen.jobs.iter_mut().filter_map(|job| job.end.as_mut()) {
            let report = end.report.as_ref().and_then(|text| serde_json::from_str::<Report>(text).ok());
            if let Some(mut report) = report {
                change(&mut report);
                end.succeeded = report.outcome == WorkOutcome::Done;
                end.report = serde_json::to_string(&report).ok();
            }
        }
    })
}
