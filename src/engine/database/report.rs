//! How the database's part of a release stands, as phase, reason, message and next action.

use crate::api::{
    ApprovalKind, DatabaseTask, Phase, RollbackCause, RollbackStatus, SchemaState, WorkOutcome, conditions,
    status::bounded,
};

use super::{
    super::{
        pass::Pass,
        plan::Step,
        report::{Report, command},
    },
    Due, image,
    lacking::{self, Lacking},
    onward, pinned, remedy, renewal, seed, steps,
    undo::{self, Standing},
    words,
};

/// A step on the way forward.
pub fn forward(pass: &Pass<'_>, step: &Step, place: &str) -> Report {
    match step {
        _ if renewal::is_under_way(pass) => {
            let message = format!("{place}: {}", words::progress(pass, DatabaseTask::Backup));
            with_lacking(pass, Report::new(Phase::Database, words::doing(DatabaseTask::Backup), message))
        }
        Step::Database(task) => {
            let phase = if *task == DatabaseTask::Preflight { Phase::Preflight } else { Phase::Database };
            let report = Report::new(phase, words::doing(*task), format!("{place}: {}", words::progress(pass, *task)));
            with_lacking(pass, report)
        }
        _ if steps::awaits_approval(pass) => approval(pass, place),
        _ => Report::new(Phase::Database, "Approved", format!("{place}: nobody has to approve it")),
    }
}

/// What a person has to know of a migration, or of a seed, to approve it.
fn approval(pass: &Pass<'_>, place: &str) -> Report {
    let known = pass.status.database.clone().unwrap_or_default();
    let mut facts = Vec::new();
    if !known.risks.is_empty() {
        facts.push(known.risks.join(", "));
    }
    if let Some(seed) = known.seed.as_ref().filter(|seed| !seed.risks.is_empty()) {
        facts.push(format!("the seed: {}", bounded(&seed.risks.join(", "), 300)));
    }
    if pinned(pass).is_some_and(|database| seed::due(pass, &database).is_some()) && Due::under_way(&pass.status).late {
        facts.push(words::SEEDS_LATE.to_owned());
    }
    if let Some(rehearsal) = &known.rehearsal {
        let took = crate::api::Duration::from_millis(u64::try_from(rehearsal.migrated_millis).unwrap_or(0));
        facts.push(format!("it took {took} in the rehearsal"));
        let migration = pinned(pass).and_then(|database| database.migration);
        let sampled = migration.is_some_and(|migration| migration.change.template.is_some());
        facts.push(format!("locks: {}", rehearsal.locks_told(sampled)));
        if pinned(pass).is_some_and(|database| seed::leaves_queries(seed::due(pass, &database), &database)) {
            facts.push("verify.queries were not rehearsed: a pod seeds the database before them".to_owned());
        }
    }
    if let Some(down) = known.migration_down.as_ref().filter(|down| !down.risks.is_empty()) {
        facts.push(format!("on the way back: {}", bounded(&down.risks.join(", "), 300)));
    }
    // Whoever approves relies on it.
    if let Some(backup) = known.backup.as_ref().filter(|backup| !backup.not_proven.is_empty()) {
        facts.push(format!("backup {} is {}", backup.name, backup.not_proven));
    }
    if !known.image.is_empty() {
        let migration = pinned(pass).and_then(|database| database.migration);
        let loose = migration.is_some_and(|migration| image::is_loose(pass, &migration.change, &known.image));
        facts.push(format!("image {}{}", known.image, if loose { words::BY_TAG } else { "" }));
    }
    let facts = if facts.is_empty() { String::new() } else { format!(": {}", facts.join("; ")) };
    let plan = &known.plan_hash;
    let migrates = pass.status.release.as_ref().is_some_and(|release| release.migration.is_some());
    let what = if migrates { "migration" } else { "seed" };
    let message = format!("{place}: {what} {plan} waits for approval{facts}");
    let next = format!("{} --migration {plan}", command(pass, "approve"));
    Report::new(Phase::AwaitingApproval, "MigrationAwaitsApproval", message).next(next)
}

/// On the way back, where the database is what it waits for.
pub fn way_back(pass: &Pass<'_>, rollback: &RollbackStatus) -> Option<Report> {
    Some(match pass.standing.as_ref()? {
        Standing::Clear => return None,
        Standing::Waits(what) => {
            let superseded = rollback.cause == RollbackCause::Superseded;
            let phase = if superseded { Phase::Progressing } else { Phase::RollingBack };
            with_lacking(pass, Report::new(phase, &rollback.reason, format!("{}; {what}", rollback.message)))
        }
        Standing::Asks(kind, what) => {
            let (reason, option) = match kind {
                ApprovalKind::MigrateDown => ("MigrateDownAwaitsApproval", "--migrate-down"),
                _ => ("RestoreAwaitsApproval", "--restore"),
            };
            let plan = pass.status.database.as_ref().map(|known| known.plan(*kind)).unwrap_or_default();
            let (approve, skip) = (command(pass, "approve"), command(pass, "skip"));
            let next = format!(
                "{approve} {option} {plan}; or, where the code that serves fits the database: {skip} (it stays as it is)"
            );
            let message = format!("{}; {what}", rollback.message);
            Report::new(Phase::AwaitingApproval, reason, message).next(next)
        }
        Standing::Halted { reason, message } => {
            let message = format!("{message}; the release is taken back: {}", rollback.message);
            Report::new(Phase::Halted, reason, message).next(words::commands(pass))
        }
    })
}

/// What is told where a Job is at work, with what its pod waits for.
pub fn with_lacking(pass: &Pass<'_>, report: Report) -> Report {
    let Some(Lacking { reason, message, remedy }) = lacking::waited_for(pass) else { return report };
    let mut report = if reason.is_empty() { report } else { report.because(reason) };
    report.append(&message, &remedy);
    report
}

/// What is told of a release at rest, with what could not be removed, and what a person has to.
pub fn with_left_behind(pass: &Pass<'_>, mut report: Report) -> Report {
    if let Some((message, repair)) = remedy::half_done(pass) {
        report.put_first(&message, &repair);
    }
    let left = [words::left_behind(pass), words::half_restored(pass), words::left_invalid(pass)];
    for (message, command) in left.into_iter().flatten() {
        report.append(&message, &command);
    }
    report
}

/// Whether the database is as the last release that touched it meant it to be. Absent where none did.
pub fn condition(pass: &Pass<'_>) -> Option<(conditions::Value, &'static str, String)> {
    let known = pass.status.database.as_ref().filter(|known| !known.work.is_empty())?;
    let failed = known.work.iter().find(|work| !matches!(work.outcome, WorkOutcome::Running | WorkOutcome::Done));
    let running = known.work.iter().find(|work| work.outcome == WorkOutcome::Running);
    Some(match (known.schema, failed, running) {
        (SchemaState::Unknown, _, _) => {
            let (reason, message) = words::unknown(pass);
            (conditions::Value::Unknown, reason, message)
        }
        _ if undo::is_seed_unknown(pass) => (conditions::Value::Unknown, "SeedUnknown", words::seed_unknown(pass)),
        (SchemaState::Accepted, _, _) => (conditions::Value::True, "Accepted", "a person has settled it".into()),
        _ if onward::is_misfit(pass) => (conditions::Value::False, "SchemaChanged", words::misfit(pass, failed)),
        (SchemaState::Undone, _, _) => {
            (conditions::Value::True, "Undone", "the schema is what it was before the release".into())
        }
        (_, Some(work), _) => {
            let partly = remedy::half_done(pass).map(|(message, _)| format!("{message}; ")).unwrap_or_default();
            let message = format!("{partly}{}: {}", words::subject(work.task), work.message);
            (conditions::Value::False, words::failure(work.task, work.outcome), message)
        }
        (_, None, Some(work)) => {
            (conditions::Value::Unknown, words::doing(work.task), words::progress(pass, work.task))
        }
        (_, None, None) => (conditions::Value::True, "AsMeant", "all of the database's work has ended well".into()),
    })
}
