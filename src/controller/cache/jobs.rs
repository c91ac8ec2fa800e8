//! Cached Jobs: how far each has come. What its container left to say is its pod's.

use std::sync::Arc;

use serde::Deserialize;

use crate::api::{
    ANNOTATION_OWNER_UID, ANNOTATION_REPORTS, LABEL_JOB, LABEL_RELEASE, Timestamp,
    status::{MAX_TEXT, bounded},
};

use super::entry::{Cached, Kind, Meta, RawMeta};

/// A Job of a release.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedJob {
    meta: Meta,
    release: Arc<str>,
    /// The uid of the ServiceRelease that owns it, or that it was made for if it outlives that.
    pub owner: Arc<str>,
    /// Whether what its container leaves as its termination message is a report.
    pub reports: bool,
    /// How it ended, if it has.
    pub end: Option<Finished>,
    /// Whether a pod of it was made.
    pub made: bool,
}

/// The end of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether its condition Complete is True, not Failed.
    pub succeeded: bool,
    /// When that began.
    pub at: Timestamp,
    /// Reason and message of the condition.
    pub why: Box<str>,
}

/// The fields of a Job that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawJob {
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    conditions: Option<Vec<RawCondition>>,
    active: i32,
    succeeded: i32,
    failed: i32,
    terminating: i32,
    uncounted_terminated_pods: RawUncounted,
}

/// Pods that have ended and are not in the counts yet, by their uids.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawUncounted {
    succeeded: Option<Vec<String>>,
    failed: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Option<Timestamp>,
}

impl RawStatus {
    fn made(&self) -> bool {
        let RawUncounted { succeeded, failed } = &self.uncounted_terminated_pods;
        let uncounted = [succeeded, failed].into_iter().flatten().any(|pods| !pods.is_empty());
        uncounted || [self.active, self.succeeded, self.failed, self.terminating].iter().any(|count| *count > 0)
    }

    fn end(&self, created: Timestamp) -> Option<Finished> {
        let ends = |it: &&RawCondition| matches!(it.kind.as_str(), "Complete" | "Failed") && it.status == "True";
        let condition = self.conditions.iter().flatten().find(ends)?;
        let why = match condition.message.as_str() {
            "" => condition.reason.clone(),
            message => format!("{}: {message}", condition.reason),
        };
        Some(Finished {
            succeeded: condition.kind == "Complete",
            at: condition.last_transition_time.unwrap_or(created),
            why: bounded(&why, MAX_TEXT).into(),
        })
    }
}

impl Cached for CachedJob {
    type Raw = RawJob;
    const KIND: Kind = Kind::Job;

    fn read(meta: &RawMeta, raw: RawJob) -> Option<Self> {
        let owner = match meta.controller() {
            Some(owner) if owner.is_release() => owner.uid.as_str(),
            Some(_) => return None,
            None => meta.annotation(ANNOTATION_OWNER_UID)?,
        };
        meta.label(LABEL_JOB)?;
        let slim = meta.slim();
        Some(Self {
            release: meta.label(LABEL_RELEASE)?.into(),
            owner: owner.into(),
            reports: meta.annotation(ANNOTATION_REPORTS).is_some(),
            end: raw.status.end(slim.created),
            made: raw.status.made(),
            meta: slim,
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.release
    }
}
