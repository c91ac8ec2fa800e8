//! Restoring a backup in the database's place.

use crate::engine::Report;

use super::{Places, backup, report};

/// Restores.
#[allow(clippy::unused_async)]
pub async fn restore(places: &Places, name: &str, _: &str) -> Report {
    match backup::known_whole(&places.backups, name) {
        Err(why) => report::not_begun(why),
        Ok(_) => report::not_begun("the runner does not restore yet"),
    }
}
