//! Commands that never reach the engine: for releases that do not exist, and such as this version
//! does not understand. Each is rejected with a reason, none is kept waiting.

use std::time::Duration;

use serde_json::json;
use tracing::info;

use crate::{
    api::{CommandPhase, ReleaseCommandStatus, Timestamp},
    engine::{COMMAND_RETENTION, ObjectVersion},
};

use super::{
    build,
    cache::{Cached as _, CachedCommand, Kind, Wait},
    calls::{CallError, Place, Written},
    key::Key,
    reconcile::Context,
};

fn cached(context: &Context, key: &Key) -> Vec<CachedCommand> {
    let world = context.cache.world();
    let commands = world.commands.of(key).filter(|command| !command.meta().deleting);
    commands.cloned().collect()
}

/// Rejects the commands for a release that does not exist, and removes them when they were there
/// long enough. Says when the next is due.
///
/// # Errors
/// That of a call.
pub async fn reject_orphans(context: &Context, key: &Key) -> Result<Option<Duration>, CallError> {
    let commands = cached(context, key);
    if commands.is_empty() {
        return Ok(None);
    }
    let now = Timestamp::new(jiff::Timestamp::now());
    let mut next = None;
    for command in &commands {
        let object = command.meta().object();
        match &command.status {
            None => {
                if exists(context, key).await? {
                    // The watch of releases is behind that of commands; its event wakes the key.
                    return Ok(Some(Duration::from_secs(1)));
                }
                let message = format!("there is no ServiceRelease {} in this namespace", key.name);
                reject(context, key, &object, message).await?;
            }
            Some(status) => {
                let kept = now.since(status.at);
                match COMMAND_RETENTION.as_millis().checked_sub(kept.as_millis()) {
                    None | Some(0) => delete(context, key, &object).await?,
                    Some(left) => {
                        let left = Duration::from_millis(left);
                        next = Some(next.map_or(left, |next: Duration| next.min(left)));
                    }
                }
            }
        }
    }
    Ok(next)
}

/// Rejects the commands to a release that this version does not understand.
///
/// # Errors
/// That of a call.
pub async fn reject_unparsable(context: &Context, key: &Key) -> Result<(), CallError> {
    for command in cached(context, key) {
        if let (Err(what), None) = (&command.spec, &command.status) {
            let message = format!("this version of the operator does not understand it: {what}");
            reject(context, key, &command.meta().object(), message).await?;
        }
    }
    Ok(())
}

async fn exists(context: &Context, key: &Key) -> Result<bool, CallError> {
    if key.name.is_empty() {
        return Ok(false);
    }
    let place = Place::of(Kind::Release, key.clone());
    match context.calls.get::<Written>(&place).await {
        Ok(_) => Ok(true),
        Err(CallError::Missing { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn reject(context: &Context, key: &Key, object: &ObjectVersion, message: String) -> Result<(), CallError> {
    info!(command = object.name, message, "rejecting a command");
    let status = ReleaseCommandStatus {
        phase: CommandPhase::Rejected,
        message: crate::api::status::bounded(&message, crate::api::status::MAX_TEXT),
        at: Timestamp::new(jiff::Timestamp::now()),
    };
    let command = key.beside(&object.name);
    let place = Place::status(Kind::Command, command.clone());
    let body = build::patch(object, "status", json!(status));
    let written = context.calls.patch(&place, &body).await?.metadata;
    let wait = Wait::written(Kind::Command, command, &written.uid, &written.resource_version);
    context.cache.world().expect(key, wait);
    Ok(())
}

async fn delete(context: &Context, key: &Key, object: &ObjectVersion) -> Result<(), CallError> {
    let command = key.beside(&object.name);
    let place = Place::of(Kind::Command, command.clone());
    match context.calls.delete(&place, &build::deletion(object)).await {
        Ok(()) | Err(CallError::Missing { .. }) => {
            let wait = Wait::gone(Kind::Command, command, &object.uid);
            context.cache.world().expect(key, wait);
            Ok(())
        }
        Err(error) => Err(error),
    }
}
