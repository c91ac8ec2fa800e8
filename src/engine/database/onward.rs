//! Forward from a halt over a schema that is known to be changed: another release begins behind the maintenance mode that is
//! on, and until it serves no way out leads to code that the schema does not fit.

use crate::api::{DatabaseFix, OnRollback, SchemaState, StepName, status::bounded};

use super::{
    super::{effect::Selection, observed::TemplateCheck, pass::Pass, retreat, revision},
    pinned,
    steps::state,
    switches,
    undo::{self, Standing},
    words,
};

/// Whether the code that serves is older than a schema that was made for another release, which did not come to serve.
pub fn is_unfit(pass: &Pass<'_>) -> bool {
    let known = pass.status.database.as_ref().filter(|known| known.schema != SchemaState::Accepted);
    let since = known.and_then(|known| known.unfit_before);
    since.is_some_and(|release| pass.status.stable.as_ref().is_none_or(|stable| stable.release < release))
}

/// Whether the code that serves does not fit the schema, as far as is known.
pub fn is_misfit(pass: &Pass<'_>) -> bool {
    let moves = pass.status.candidate.is_some() || retreat::under_way(pass);
    let changed = super::schema(pass).is_changed();
    pass.status.stable.is_some() && (is_unfit(pass) || (moves && changed && !undo::is_safe_for_stable(pass)))
}

/// Whether the way back ends at a schema of which all is known, with nothing more that could be done for the code before.
pub fn is_at_end(pass: &Pass<'_>) -> bool {
    let Some(known) = &pass.status.database else { return false };
    let backed_up = known.is_backed_up();
    match known.schema {
        _ if undo::is_seed_unknown(pass) => false,
        SchemaState::Unchanged | SchemaState::Undone => is_unfit(pass),
        SchemaState::Changed | SchemaState::Partial => {
            pinned(pass).is_some_and(|database| match undo::way(pass, &database) {
                OnRollback::Halt => true,
                OnRollback::Restore => !backed_up,
                OnRollback::Keep => is_unfit(pass),
                OnRollback::MigrateDown => false,
            })
        }
        SchemaState::Changing | SchemaState::Unknown | SchemaState::Accepted => false,
    }
}

/// What the spec wants, where that is neither what serves nor what failed.
pub fn newer<'a>(pass: &'a Pass<'_>) -> Option<&'a str> {
    let target = pass.target.as_ref().map(|target| target.hash.as_str())?;
    (![pass.stable_hash(), pass.candidate_hash()].contains(&Some(target))).then_some(target)
}

/// What keeps the spec's revision from being released over the schema as it is. None: nothing does.
fn hindrance(pass: &Pass<'_>) -> Option<String> {
    let Some(target) = &pass.target else { return Some("there is no template to release".into()) };
    if pass.stable_hash() == Some(&target.hash) {
        return Some(format!("the spec has the template of {}, which serves", target.hash));
    }
    if pass.release.spec.paused {
        return Some("spec.paused is set".into());
    }
    if let Some(obstacle) = &pass.obstacle {
        return Some(obstacle.message.clone());
    }
    if is_name_taken(pass) {
        return Some("the name of its ReplicaSet is taken".into());
    }
    let other = !undo::is_safe_for_stable(pass) && pass.next_policy().maintenance != pass.policy().maintenance;
    other.then(|| "spec.maintenance is not the one that is on: leave it as it was".into())
}

fn is_name_taken(pass: &Pass<'_>) -> bool {
    let taken = pass.seen.template_check == TemplateCheck::NameTaken;
    taken || pass.target.as_ref().is_some_and(|target| revision::clashes(target, pass.seen))
}

/// The revision that Retry releases over the schema as it is, as the last pass has offered it.
pub fn offered<'a>(pass: &'a Pass<'_>) -> Option<&'a str> {
    pass.status.database.as_ref()?.offered()
}

/// A person says Retry to what was offered.
pub fn order(pass: &mut Pass<'_>) -> Result<String, String> {
    let offered = offered(pass).map(str::to_owned);
    let target = pass.target.as_ref().map(|target| target.hash.clone());
    if is_name_taken(pass) {
        // It gets another one.
        pass.status.collision_count += 1;
    }
    if let Some(why) = hindrance(pass) {
        return Err(format!("nothing begins: {why}"));
    }
    let Some(revision) = offered.filter(|offered| Some(offered) == target.as_ref()) else {
        return Err("the template has changed meanwhile: look at it, and say it again".into());
    };
    let answer = match undo::is_safe_for_stable(pass) {
        true => format!("{revision} is released over the schema as it is"),
        false => format!("{revision} is released over the schema as it is; maintenance mode stays on until it serves"),
    };
    state(pass).fix = Some(DatabaseFix { revision, ordered_at: Some(pass.now) });
    Ok(answer)
}

/// Whether what was ordered begins next, so that maintenance mode stays on.
pub fn begins(pass: &Pass<'_>) -> bool {
    let fix = pass.status.database.as_ref().and_then(|known| known.fix.as_ref());
    let ordered = fix.filter(|fix| fix.ordered_at.is_some()).map(|fix| fix.revision.as_str());
    let target = pass.target.as_ref().map(|target| target.hash.as_str());
    ordered.is_some() && ordered == target && is_at_end(pass) && hindrance(pass).is_none()
}

/// How it stands at the end of a way back that leaves a changed schema: what was ordered begins, or it is offered.
pub fn stand(pass: &mut Pass<'_>, standing: Standing) -> Standing {
    let ends = match &standing {
        Standing::Clear => is_unfit(pass),
        Standing::Halted { reason, .. } => matches!(*reason, "SchemaChanged" | "NoBackup"),
        Standing::Waits(_) | Standing::Asks(..) => false,
    };
    if !ends || !is_at_end(pass) {
        if matches!(standing, Standing::Halted { .. } | Standing::Clear) {
            forget(pass);
        }
        return standing;
    }
    if begins(pass) {
        return match undo::is_safe_for_stable(pass) || switches::close(pass) {
            true => Standing::Clear,
            false => Standing::Waits("maintenance mode is put on".into()),
        };
    }
    let (reason, message) = match standing {
        Standing::Halted { reason, message } => (reason, message),
        _ => ("SchemaChanged", words::unfit(pass)),
    };
    Standing::Halted { reason, message: format!("{message}{}", offer(pass)) }
}

/// Puts what could be released on record, and says what waits and what starts it.
fn offer(pass: &mut Pass<'_>) -> String {
    let target = pass.target.as_ref().map(|target| target.hash.clone());
    let hindrance = hindrance(pass);
    let revision = target.filter(|_| hindrance.is_none());
    let fix = revision.map(|revision| DatabaseFix { revision, ordered_at: None });
    if pass.status.database.as_ref().is_some_and(|known| known.fix != fix) {
        state(pass).fix = fix;
    }
    match (newer(pass), hindrance) {
        (Some(newer), None) => format!("; the newer spec ({newer}) waits: Retry begins it"),
        (Some(newer), Some(why)) => {
            format!("; the newer spec ({newer}) waits: {}", bounded(&why, 200))
        }
        (None, _) => String::new(),
    }
}

fn forget(pass: &mut Pass<'_>) {
    if let Some(known) = pass.status.database.as_mut() {
        known.fix = None;
    }
}

/// The way back is over: what is released next begins over a schema that the code before does not fit.
pub fn hand_over(pass: &mut Pass<'_>) {
    if begins(pass) && !undo::is_safe_for_stable(pass) {
        let state = state(pass);
        state.unfit_before = Some(state.release);
    }
}

/// Maintenance mode stays on while the fix goes forward, until the Service is its own.
pub fn hold(pass: &mut Pass<'_>) {
    let candidate = pass.candidate_hash().map(|hash| Selection::Revision(hash.to_owned()));
    let promotes = pass.status.step.as_ref().is_some_and(|step| step.name == StepName::Promote);
    let served = promotes && (!pass.traffics().used() || Some(pass.traffics().selection()) == candidate);
    if is_unfit(pass) && !served {
        switches::close(pass);
    }
}
