//! The database: what is applied once (D1), before which pods (D2), what a rollback does to it (D3), what nobody knows
//! (D4), and maintenance mode (D5).

use servicerelease::{
    api::{
        Action, ApprovalKind, CommandPhase, Database, DatabaseApproval, DatabaseTask, FailedRevision,
        MigrationApproval, OnRollback, Phase, SchemaState, ServiceReleaseSpec, ServiceReleaseStatus, StepName,
        WorkOutcome,
    },
    engine::{Command, NewJob, Run, Task, Template},
};

use crate::{
    database::{FLAG, MAINTENANCE, SYNC},
    model::{
        cluster::{Cluster, CommandObject, RELEASE},
        database::{Deed, What},
        gateway,
    },
    operator::Work,
};

use super::{Checker, Judged, effects::Scene, stored};

/// A step of the database's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Work(DatabaseTask),
    Approval,
    Maintenance,
}

/// The database's steps as PRODUCT.md has them, before the candidate has a pod.
pub fn steps(spec: &ServiceReleaseSpec, status: &ServiceReleaseStatus) -> Vec<Part> {
    let Some(database) = &spec.database else { return Vec::new() };
    let due = status.release.as_ref().is_some_and(|release| release.migration.is_some());
    let known = status.database.clone().unwrap_or_default();
    let seeds = known.seeded_at.is_none() || known.last(DatabaseTask::Seed).is_some();
    let migration = database.migration.as_ref().filter(|_| due);
    let mut steps = vec![Part::Work(DatabaseTask::Preflight)];
    let seeded = database.seed.is_some() && seeds;
    if database.backup.is_some() && (due || seeded || database.migration.is_none()) {
        steps.push(Part::Work(DatabaseTask::Backup));
    }
    let rehearsed = database.rehearsed().is_some();
    if migration.is_some() && rehearsed {
        steps.push(Part::Work(DatabaseTask::Rehearsal));
    }
    let asks = migration.is_some_and(|migration| migration.approval(rehearsed) != MigrationApproval::Never);
    if asks || (seeds && seed_approval(database, is_late(status)) != MigrationApproval::Never) {
        steps.push(Part::Approval);
    }
    if let Some(migration) = migration {
        if !migration.previous_revision_compatible {
            steps.push(Part::Maintenance);
        }
        steps.push(Part::Work(DatabaseTask::Migration));
    }
    if seeded {
        steps.push(Part::Work(DatabaseTask::Seed));
    }
    if database.verify.is_some() {
        steps.push(Part::Work(DatabaseTask::Verification));
    }
    steps
}

/// When a person is asked for a seed: for files as for the migration, or where they lose data; for a command whose pod mounts no
/// files where the manifest says so.
fn seed_approval(database: &Database, late: bool) -> MigrationApproval {
    let Some(seed) = &database.seed else { return MigrationApproval::Never };
    if late && seed.approval != Some(MigrationApproval::Never) {
        return MigrationApproval::Required;
    }
    let mounts = |pod: &serde_json::Value| pod.pointer("/spec/volumes").is_some();
    let by_files = seed.change.sql.is_some() || seed.change.template.as_ref().is_some_and(mounts);
    let migration = database.migration.as_ref().and_then(|migration| migration.approval).filter(|_| by_files);
    let default = if by_files { MigrationApproval::WhenDataLoss } else { MigrationApproval::Never };
    seed.approval.or(migration).unwrap_or(default)
}

/// Whether a seed comes to code that served before the release, be it that of a Deployment.
fn is_late(status: &ServiceReleaseStatus) -> bool {
    let number = status.release.as_ref().map_or(0, |release| release.number);
    let adopted = status.workload.as_ref().is_some_and(|workload| workload.adopted_replicas > 0);
    adopted || status.stable.as_ref().is_some_and(|stable| stable.release < number)
}

/// Whether the migration of the spec is another one than that of a release that failed.
pub fn is_new(work: &Work, failed: &FailedRevision) -> bool {
    let template = work.view.release.spec.template.as_ref().and_then(|it| serde_json::to_value(it).ok());
    let template = template.map(Template::new);
    servicerelease::engine::migration(&work.view.release.spec, template.as_ref()) != failed.migration
}

/// Whether a step's Job was seen to report that it is done.
pub fn is_done(work: &Work, task: DatabaseTask) -> bool {
    let of = |status: &ServiceReleaseStatus| status.database.as_ref().and_then(|known| known.last(task).cloned());
    let Some(now) = of(&work.decision.status).filter(|now| now.outcome == WorkOutcome::Done) else { return false };
    let before = of(&work.old).is_some_and(|before| before.outcome == WorkOutcome::Done && before.job == now.job);
    let mut jobs = work.view.observed.jobs.iter().filter(|job| job.object.name == now.job);
    before || jobs.any(|job| job.end.as_ref().is_some_and(|end| end.succeeded))
}

/// Whether a person approved this very plan, where one has to.
pub fn is_approved(work: &Work, spec: &ServiceReleaseSpec) -> bool {
    let status = &work.decision.status;
    let (Some(known), Some(database)) = (&status.database, &spec.database) else { return false };
    let needed = |when: MigrationApproval, loses: bool| match when {
        MigrationApproval::Required => true,
        MigrationApproval::WhenDataLoss => loses,
        MigrationApproval::Never => false,
    };
    let migrates = status.release.as_ref().is_some_and(|release| release.migration.is_some());
    let migration = database.migration.as_ref().filter(|_| migrates);
    let of_migration =
        migration.is_some_and(|migration| needed(migration.approval(database.rehearsed().is_some()), known.loses_data));
    // Of one that is there already nothing is looked at.
    let of_seed = known.seed.as_ref().is_some_and(|seed| needed(seed_approval(database, false), seed.loses_data));
    let unseeded = known.seeded_at.is_none() || known.last(DatabaseTask::Seed).is_some();
    let of_seed = of_seed || (unseeded && seed_approval(database, is_late(status)) == MigrationApproval::Required);
    (!of_migration && !of_seed) || has_approval(status, ApprovalKind::Migration)
}

fn has_approval(status: &ServiceReleaseStatus, kind: ApprovalKind) -> bool {
    let known = status.database.clone().unwrap_or_default();
    let plan = match kind {
        ApprovalKind::MigrateDown => known.migration_down.map(|down| down.plan_hash).filter(|plan| !plan.is_empty()),
        _ => Some(known.plan_hash),
    };
    known.approvals.iter().any(|approval| approval.kind == kind && Some(&approval.plan_hash) == plan.as_ref())
}

/// Whether nobody reaches the old code: the key is set, or the route leads to the page.
pub fn is_closed(cluster: &Cluster, spec: &ServiceReleaseSpec) -> bool {
    let key = cluster.live.config_map.as_ref().and_then(|map| map.data.get(MAINTENANCE));
    let switched = spec.maintenance.is_some() && key.is_some_and(|value| value == "true");
    switched || cluster.live.route.as_ref().is_some_and(|route| gateway::is_maintained(&route.spec))
}

/// Whether the key has been set for as long as pods may go by what it was.
fn is_heard(cluster: &Cluster, spec: &ServiceReleaseSpec) -> bool {
    let map = cluster.live.config_map.as_ref().filter(|_| spec.maintenance.is_some());
    map.is_none_or(|map| cluster.now - map.switched_at >= SYNC)
}

/// Why an approval of a plan cannot be followed.
pub fn must_reject(old: &ServiceReleaseStatus, new: &ServiceReleaseStatus, command: &Command) -> Option<String> {
    let meant = command.approval.as_ref()?;
    let known = |status: &ServiceReleaseStatus| {
        let known = status.database.as_ref()?;
        match meant.kind {
            ApprovalKind::MigrateDown => known.migration_down.as_ref().map(|down| down.plan_hash.clone()),
            _ => Some(known.plan_hash.clone()),
        }
    };
    let waits = |status: &ServiceReleaseStatus| match meant.kind {
        ApprovalKind::Restore | ApprovalKind::MigrateDown => goes_back(status),
        _ => status.step.as_ref().is_some_and(|step| step.name == StepName::MigrationApproval),
    };
    let here = [old, new].into_iter().find(|status| waits(status));
    match here {
        None => Some("no approval of that kind is waited for".into()),
        Some(status) if known(status) != meant.plan_hash => Some("it approves another plan".into()),
        Some(_) => None,
    }
}

fn goes_back(status: &ServiceReleaseStatus) -> bool {
    let number = status.release.as_ref().map(|release| release.number);
    status.rollback.as_ref().is_some_and(|it| it.completed_at.is_none() && Some(it.release) == number)
}

fn breaks(database: &Database) -> bool {
    database.migration.as_ref().is_some_and(|migration| !migration.previous_revision_compatible)
}

/// Looks at a Job that is about to be made.
pub fn job(scene: &Scene<'_>, new: &NewJob) -> Judged {
    let status = stored(scene.cluster);
    let known = status.database.iter().flat_map(|known| &known.work).any(|work| work.job == new.name);
    let mut judged = Vec::new();
    // A write that was on its way when its process was stopped may come late: its pod stops at the ledger.
    if !known && !scene.work.late {
        judged.push(("T2", format!("Job {} is made, and is not on record", new.name)));
    }
    let Run::Database(order) = &new.run else { return judged };
    let forward = matches!(order.task, Some(Task::Migrate(_) | Task::Rehearse { .. }))
        || matches!(&order.task, Some(Task::Wrap(wrapped)) if wrapped.migrates());
    if forward && goes_back(&scene.work.decision.status) {
        judged.push(("C3", format!("Job {} goes forward with a release that goes back", new.name)));
    }
    judged
}

/// No pod of a candidate before the migration that it needs.
pub fn needed(scene: &Scene<'_>, revision: &str) -> Judged {
    let status = stored(scene.cluster);
    let Some(release) = status.release.as_ref().filter(|release| release.revision == revision) else {
        return Vec::new();
    };
    let plan = scene.cluster.live.plans.get(&release.number);
    let Some(database) = plan.and_then(|plan| plan.spec.database.as_ref()) else { return Vec::new() };
    if release.migration.is_none() || scene.cluster.server.is_migrated(database) {
        return Vec::new();
    }
    vec![("D2", format!("{revision} gets pods before its migration is in the database"))]
}

impl Checker {
    /// A plan is approved by a person, and by nobody else.
    pub fn approvals(&mut self, work: &Work) {
        let of = |status: &ServiceReleaseStatus| status.database.clone().unwrap_or_default().approvals;
        let known = of(&work.old);
        // Its time may be put right where the clock was.
        let is_known = |new: &DatabaseApproval| {
            known.iter().any(|it| (it.kind, &it.plan_hash, &it.by) == (new.kind, &new.plan_hash, &new.by))
        };
        let new: Vec<_> = of(&work.decision.status).into_iter().filter(|approval| !is_known(approval)).collect();
        let said = super::steps::news(work)
            .iter()
            .any(|record| record.action == Action::Approve && record.phase == CommandPhase::Applied);
        for approval in new {
            let rule = if approval.kind == ApprovalKind::Migration { "T2" } else { "D3" };
            self.require(said, rule, || format!("{approval:?}, and nobody has said so"));
        }
    }

    /// What was done to the database since the last look.
    pub fn database(&mut self, cluster: &Cluster) {
        let deeds: Vec<Deed> = cluster.server.deeds.iter().skip(self.deeds).cloned().collect();
        self.deeds = cluster.server.deeds.len();
        for deed in deeds {
            self.deed(cluster, &deed);
        }
    }

    fn deed(&mut self, cluster: &Cluster, deed: &Deed) {
        let status = stored(cluster);
        let number = status.release.as_ref().map_or(0, |release| release.number);
        let current = format!("production/{RELEASE}#{number}-");
        if cluster.live.release.is_none() {
            self.fail("D4", format!("{deed:?} after the object is gone"));
            return;
        }
        self.require(deed.release.is_empty() || deed.release.starts_with(&current), "D4", || {
            format!("{deed:?} during {current}")
        });
        let over = matches!(status.phase, Phase::Healthy | Phase::RolledBack);
        self.require(!over, "D4", || format!("{deed:?} in {:?}", status.phase));
        // What the user wrote: of a case all versions are of the same kind.
        let Some(spec) = cluster.live.release.as_ref().map(|release| &release.spec) else { return };
        let Some(database) = &spec.database else { return };
        let back = goes_back(&status);
        match &deed.what {
            What::Migrated(what) => {
                let idempotent = database.migration.as_ref().is_some_and(|migration| migration.idempotent);
                self.require(!deed.blind || idempotent, "D1", || {
                    format!("{what} is run although nobody knows what became of an earlier run")
                });
                self.require(!deed.twice, "D1", || format!("{what} is run, and another release has run it"));
                let applied = |command: &CommandObject| {
                    let phase = command.status.as_ref().map(|status| status.phase);
                    command.spec.action == Action::Retry && phase == Some(CommandPhase::Applied)
                };
                let ordered = cluster.live.commands.values().any(applied);
                self.require(!deed.rerun || ordered, "D1", || {
                    format!("{what} is run once more after it has failed, and nobody has ordered that")
                });
                let alone = status.stable.is_none() || !breaks(database);
                self.require(alone || is_closed(cluster, spec), "D2", || {
                    format!("{what} is run while old code serves that cannot live with it")
                });
                self.require(alone || is_heard(cluster, spec), "D2", || {
                    format!("{what} is run before pods go by the key of maintenance mode")
                });
            }
            What::Seeded => {
                self.require(!deed.rerun, "D1", || "a seed is put in, and it is in the database already".into());
                self.require(!deed.blind, "D1", || {
                    "a seed is put in although nobody knows what became of an earlier run".into()
                });
            }
            What::TakenBack(what) => {
                let meant = back && database.on_rollback() == OnRollback::MigrateDown;
                self.require(meant, "D3", || format!("{what} is taken back, and nobody wants that"));
                self.taken_back(database, &status, deed, what);
            }
            What::Restored => {
                let meant = back && database.on_rollback() == OnRollback::Restore;
                self.require(meant, "D3", || "a backup is restored, and nobody wants that".into());
                let own = |deed: &Deed| matches!(deed.what, What::Migrated(_)) && deed.release.starts_with(&current);
                self.require(cluster.server.deeds.iter().any(own), "D3", || {
                    "a backup is restored, and all that has changed is another release's".into()
                });
                self.require(has_approval(&status, ApprovalKind::Restore), "D3", || {
                    "a backup is restored, and nobody has approved that".into()
                });
            }
        }
    }

    /// What loses data is taken back as a person has approved it, and from a backup of all that the release has done.
    fn taken_back(&mut self, database: &Database, status: &ServiceReleaseStatus, deed: &Deed, what: &str) {
        let by_files = what.starts_with("default/");
        self.require(!by_files || !deed.blind, "D3", || {
            format!("{what} is taken back by files that nobody has looked at")
        });
        // Of a command nobody knows what it loses.
        let loses = !by_files || what.ends_with("002");
        let asks = match database.approval_down() {
            MigrationApproval::Required => true,
            MigrationApproval::WhenDataLoss => loses,
            MigrationApproval::Never => false,
        };
        self.require(!asks || has_approval(status, ApprovalKind::MigrateDown), "D3", || {
            format!("{what} is taken back, which loses data, and nobody has approved that plan")
        });
        self.require(!loses || database.backup.is_none() || deed.saved, "D3", || {
            format!("{what} is taken back, which loses data, and no backup has what the release wrote")
        });
    }

    pub fn database_at_rest(&mut self, cluster: &Cluster, status: &ServiceReleaseStatus, spec: &ServiceReleaseSpec) {
        self.require(!cluster.server.is_busy(), "L1", || {
            format!("in {:?} somebody works on the database", status.phase)
        });
        // What is held is tried again in the same place, or removed when it is given up.
        let unrouted = status.reason == "RouteNotFound" && !goes_back(status);
        let held = status.step.is_some() && (matches!(status.phase, Phase::Paused | Phase::Invalid) || unrouted);
        let told = status.message.contains("a scratch database may be left") || held;
        self.require(!cluster.server.scratch || told, "L1", || {
            format!("a scratch database is left over in {:?}: {}", status.phase, status.message)
        });
        self.way_back_at_rest(cluster, status, spec);
        let settled = matches!(status.phase, Phase::Healthy | Phase::RolledBack);
        let key = |key: &str| cluster.live.config_map.as_ref().and_then(|map| map.data.get(key)).map(String::as_str);
        let on = key(MAINTENANCE) == Some("true");
        self.require(!settled || !on, "D5", || format!("maintenance mode is on in {:?}", status.phase));
        self.require(!on || status.phase != Phase::Halted || status.message.contains("aintenance"), "D5", || {
            format!("maintenance mode is on in Halted, and the message does not say so: {}", status.message)
        });
        let number = status.release.as_ref().map_or(0, |release| release.number);
        let known = status.database.clone().unwrap_or_default();
        let in_doubt = cluster.server.is_in_doubt(&format!("production/{RELEASE}#{number}-"));
        let accepted = known.schema == SchemaState::Accepted;
        self.require(!in_doubt || accepted || !settled, "D4", || {
            format!("{:?}, and nobody knows what became of the migration", status.phase)
        });
        let partly = settled && known.schema == SchemaState::Partial;
        self.require(!partly || status.message.contains("a part of the migration was applied"), "S4", || {
            format!(
                "{:?} over a part of the migration, and the message does not say so: {}",
                status.phase, status.message
            )
        });
        // One that was broken off has told nobody.
        let rehearsal = known.last(DatabaseTask::Rehearsal).filter(|work| work.outcome != WorkOutcome::NotBegun);
        let astray = rehearsal.is_some_and(|work| cluster.server.astray.contains(&work.job));
        self.require(!astray || accepted || !settled, "D4", || {
            format!("{:?}, and nobody knows whether the rehearsal has migrated the real database", status.phase)
        });
        // Made for a schema before the one that is there: nobody reaches it.
        let serves = status.stable.as_ref().map(|stable| stable.release);
        let older =
            !accepted && known.unfit_before.is_some_and(|release| serves.is_some_and(|serves| serves < release));
        let there = cluster.live.config_map.is_some() || spec.maintenance.is_none();
        self.require(!older || !there || is_closed(cluster, spec), "D5", || {
            format!("{:?}, and code that does not fit the schema serves without maintenance mode", status.phase)
        });
        self.require(!older || !settled, "D5", || {
            format!("{:?}, and the code that serves does not fit the schema", status.phase)
        });
        let begun = cluster.server.has_begun(&format!("production/{RELEASE}#{number}-"));
        self.require(!begun || known.schema != SchemaState::Unchanged || !settled, "D4", || {
            format!("{:?} with an unchanged schema, and the migration was begun", status.phase)
        });
        let wants = spec.database.as_ref().filter(|_| status.phase == Phase::Healthy);
        self.require(wants.is_none_or(|database| cluster.server.is_migrated(database)), "D2", || {
            "Healthy, and the migration of the spec is not in the database".into()
        });
        let seeded = wants.is_none_or(|database| database.seed.is_none()) || cluster.server.data.seeded;
        self.require(seeded || accepted, "D2", || "Healthy, and the seed of the spec is not in the database".into());
        if let Some(flags) = status.flags.as_ref().filter(|_| settled) {
            let wanted = flags.wanted.iter().find(|flag| flag.key == FLAG).and_then(|flag| flag.value.as_deref());
            self.require(key(FLAG) == wanted, "S4", || format!("flag {:?} at rest, {wanted:?} was meant", key(FLAG)));
        }
    }

    /// A way back over a migration that old code cannot live with: who says at rest that it cannot go on has done for it what
    /// there is to do.
    fn way_back_at_rest(&mut self, cluster: &Cluster, status: &ServiceReleaseStatus, spec: &ServiceReleaseSpec) {
        let held = matches!(status.reason.as_str(), "StableUnavailable" | "MaintenanceNotReached");
        let changed = status.database.as_ref().is_some_and(|known| known.schema == SchemaState::Changed);
        let breaking = spec.database.as_ref().is_some_and(breaks);
        if status.phase != Phase::Halted || !held || !changed || !breaking || !goes_back(status) {
            return;
        }
        let paged = spec.traffic.as_ref().is_some_and(|traffic| traffic.maintenance.is_some());
        let leads = cluster.live.route.as_ref().is_none_or(|route| gateway::is_maintained(&route.spec));
        self.require(!paged || leads, "L1", || {
            format!("{}, and the route was not asked to lead to the page: {}", status.reason, status.message)
        });
        let stable = status.stable.as_ref().map(|stable| stable.revision.as_str());
        let set = cluster.live.sets.values().find(|set| Some(set.hash.as_str()) == stable);
        let asked = set.map_or(0, |set| set.replicas);
        self.require(asked >= super::replicas(spec, status), "L1", || {
            format!("{} with {asked} pods of stable asked for: {}", status.reason, status.message)
        });
    }
}
