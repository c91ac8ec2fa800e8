//! How long work on the way back may take that nobody can try before.

use crate::api::Duration;

use super::super::pass::Pass;

/// How many times what its proof took a restore may take: it gives owners and rights, and the server may have more to do by then.
const LONGER: u64 = 3;
/// But no longer than this.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// How long a restore may take: one that is ended too early begins anew, and comes to no end. So a longer time in the manifest
/// counts at once, and what was measured when the backup was proven.
pub fn of_restore(pass: &Pass<'_>, pinned: Duration) -> Duration {
    let now = pass.release.spec.database.as_ref().and_then(|database| database.backup.as_ref());
    let backup = pass.status.database.as_ref().and_then(|known| known.backup.as_ref());
    let measured = backup.and_then(|backup| {
        let (proven, ended) = (backup.proven_at?.as_millis(), backup.ended_at?.as_millis());
        u64::try_from(proven.saturating_sub(ended)).ok()
    });
    let measured = Duration::from_millis(measured.unwrap_or(0).saturating_mul(LONGER)).min(LONGEST);
    pinned.max(now.map_or(pinned, |backup| backup.timeout)).max(measured)
}
