//! The heart: [`decide`] is given a ServiceRelease, what was observed of the world, and the time,
//! and returns the new status, the effects to carry out and when to look again. Pure: no I/O, no
//! clock, no randomness, no logging.

pub mod effect;
pub mod observed;
pub mod revision;

pub use effect::{Decision, Effect, Event, NewReplicaSet, NewService, Selection, ServicePort};
pub use observed::{
    Command, Container, Ended, Endpoint, ObjectVersion, Observed, Plan, Pod, Revision, Rival,
    Service, Template, TemplateCheck, Workload,
};

use crate::api::{ServiceRelease, Timestamp};

/// One pass over one release.
#[must_use]
pub fn decide(release: &ServiceRelease, observed: &Observed, now: Timestamp) -> Decision {
    let _ = (observed, now);
    Decision {
        status: release.status.clone().unwrap_or_default(),
        ..Decision::default()
    }
}
