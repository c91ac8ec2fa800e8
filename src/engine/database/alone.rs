//! A release without a candidate: the migration changed, and the pod template did not. Stable is looked after meanwhile.

use crate::api::{RollbackCause, SchemaState};

use super::{
    super::{Flow, contest, forward, pass::Pass, rest, retreat, route, rules},
    Due, switches,
    undo::{self, Standing},
};
/// Begins it.
pub fn start(pass: &mut Pass<'_>, migration: &str) {
    let Some(stable) = pass.stable_hash().map(str::to_owned) else { return };
    forward::open(pass, &stable);
    let number = pass.status.release.as_ref().map_or(0, |release| release.number);
    pass.status.note(
        pass.now,
        "Started",
        &format!("release {number}: migration {migration}, {stable} serves on"),
        None,
    );
    let policy = pass.policy();
    forward::enter(pass, &policy, 1);
}

/// Drives the one under way.
pub fn drive(pass: &mut Pass<'_>) -> Flow {
    rest::look_after_stable(pass);
    if retreat::under_way(pass) {
        return back(pass);
    }
    if superseded(pass) {
        return Flow::Again;
    }
    if !forward::is_pinned(pass) {
        forward::pin(pass);
        return Flow::Settled;
    }
    let policy = pass.policy();
    while forward::may_advance(pass) {
        match forward::may_leave(pass, &policy) {
            Ok(true) => {}
            Ok(false) => break,
            Err(failure) => match forward::failed(pass, &policy, failure) {
                Some(flow) => return flow,
                None => break,
            },
        }
        let index = forward::index(pass);
        if index >= policy.count() {
            return end(pass);
        }
        forward::enter(pass, &policy, index + 1);
    }
    Flow::Settled
}

/// All is done.
fn end(pass: &mut Pass<'_>) -> Flow {
    if !switches::open(pass) || (super::needs_maintenance(pass) && !route::settled(pass, 0)) {
        return Flow::Settled;
    }
    pass.status.step = None;
    pass.status.hold = None;
    pass.status.suspended = None;
    let number = pass.status.release.as_ref().map_or(0, |release| release.number);
    pass.status.note(pass.now, "Migrated", &format!("release {number}: the database is as the spec wants it"), None);
    Flow::Again
}

/// Another plan while nothing was changed yet: this one is over.
fn superseded(pass: &mut Pass<'_>) -> bool {
    let wanted = super::wanted(pass);
    let release = pass.status.release.as_ref();
    let same = pass.target.as_ref().map(|target| target.hash.as_str()) == pass.stable_hash()
        && release.is_some_and(|release| release.migration == wanted);
    if same || pass.obstacle.is_some() || super::schema(pass) != SchemaState::Unchanged || !switches::open(pass) {
        return false;
    }
    // By the way back, which clears up behind a backup or a rehearsal that is broken off.
    let message = "the plan changed before the database was touched";
    retreat::begin(pass, RollbackCause::Superseded, "Superseded", message, None);
    true
}

/// The schema goes back.
fn back(pass: &mut Pass<'_>) -> Flow {
    // Stable is looked after, and with it the route: it follows maintenance mode.
    let follows = contest::is_on(pass) || rules::are_meant(pass, 0);
    if undo::drive(pass, true) != Standing::Clear || !follows {
        return Flow::Settled;
    }
    retreat::complete(pass);
    Flow::Again
}

/// Decides that it is taken back.
pub fn cause(pass: &Pass<'_>) -> Option<(String, i64)> {
    let release = pass.status.release.as_ref().filter(|_| pass.is_alone())?;
    Some((release.revision.clone(), release.number))
}

/// Whether what is due is the migration alone.
pub fn is_due(pass: &Pass<'_>) -> Option<String> {
    let same = pass.target.as_ref().map(|target| target.hash.as_str()) == pass.stable_hash();
    super::pending(pass).filter(|_| same && Due::of(pass).migration)
}
