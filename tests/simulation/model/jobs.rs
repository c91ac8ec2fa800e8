//! The Job controller: how long a Job runs and how it ends follows from its name.

use servicerelease::{
    api::{Timestamp, WorkOutcome},
    engine::{self, JobEnd, JobPod, NewJob, ObjectVersion, Report, Run},
};

use crate::rng;

use super::{
    cluster::{Cluster, Kind, Refusal},
    database::Worker,
};

#[derive(Clone, Debug)]
pub struct JobObject {
    pub uid: String,
    pub version: u64,
    /// UID of the ServiceRelease that owns it.
    pub owner: Option<String>,
    pub created: i64,
    /// When it ends, and whether well; of one for the database the server decides.
    fate: Option<(i64, bool)>,
    pub end: Option<JobEnd>,
}

impl JobObject {
    /// As the observer translates it.
    pub fn seen(&self, name: &str) -> engine::Job {
        engine::Job {
            object: ObjectVersion {
                name: name.to_owned(),
                uid: self.uid.clone(),
                resource_version: self.version.to_string(),
            },
            end: self.end.clone(),
            pod: JobPod::There,
            stuck: None,
            deleting: false,
        }
    }
}

/// After how many milliseconds a Job of this name ends, and whether well: mostly soon and well, some never.
fn fate(name: &str, timeout: i64, right: bool) -> (i64, bool) {
    match rng::dice(name) % 16 {
        _ if right => (1_000, true),
        0 => (timeout, false),
        1 | 2 => (2_000, false),
        3 => (0, true),
        _ => (1_500, true),
    }
}

impl Cluster {
    /// As the executor does it: one that is there already under this name is the one that was meant.
    pub fn create_job(&mut self, new: &NewJob) {
        if self.live.jobs.contains_key(&new.name) {
            return;
        }
        let timeout = i64::try_from(new.timeout.as_millis()).unwrap_or(i64::MAX);
        let (after, well) = fate(&new.name, timeout, self.jobs_right);
        let version = self.fresh();
        let job = JobObject {
            uid: format!("job-{version}"),
            version,
            owner: self.live.release.as_ref().map(|release| release.uid.clone()).filter(|_| new.owned),
            created: self.now,
            fate: (!matches!(new.run, Run::Database(_))).then_some((self.now + after, well)),
            end: None,
        };
        self.start_worker(new, &job.uid);
        self.live.jobs.insert(new.name.clone(), job);
        self.touch(Kind::Jobs);
    }

    pub fn delete_job(&mut self, object: &ObjectVersion) -> Result<(), Refusal> {
        let there = self.live.jobs.get(&object.name).ok_or(Refusal::NotFound)?;
        if there.uid != object.uid {
            return Err(Refusal::Conflict);
        }
        self.live.jobs.remove(&object.name);
        self.touch(Kind::Jobs);
        Ok(())
    }

    /// Ends those whose time has come.
    pub fn run_jobs(&mut self) {
        let now = self.now;
        let due: Vec<String> =
            self.live.jobs.iter().filter(|(_, job)| job.due(now)).map(|(name, _)| name.clone()).collect();
        for name in due {
            let version = self.fresh();
            self.touch(Kind::Jobs);
            if let Some(job) = self.live.jobs.get_mut(&name) {
                job.end(version);
            }
        }
    }

    /// When the next Job ends.
    pub fn next_end_of_job(&self) -> Option<i64> {
        let own = self.live.jobs.values().filter(|job| job.end.is_none()).filter_map(|job| Some(job.fate?.0));
        own.chain(self.server.next()).min()
    }

    /// The pod of a Job has ended, with or without a report.
    pub fn end_job(&mut self, worker: &Worker, at: i64, report: Option<&Report>) {
        let version = self.fresh();
        let is_its = |job: &&mut JobObject| job.uid == worker.uid && job.end.is_none();
        let Some(job) = self.live.jobs.get_mut(&worker.job).filter(is_its) else { return };
        let done = report.is_some_and(|report| report.outcome == WorkOutcome::Done);
        job.end_at(version, at, done);
        if let Some(end) = &mut job.end {
            end.report = report.and_then(|report| serde_json::to_string(report).ok());
            end.image = worker.reported_image();
        }
        self.touch(Kind::Jobs);
    }
}

impl JobObject {
    fn due(&self, now: i64) -> bool {
        self.end.is_none() && self.fate.is_some_and(|(at, _)| at <= now)
    }

    fn end(&mut self, version: u64) {
        if let Some((at, succeeded)) = self.fate {
            self.end_at(version, at, succeeded);
        }
    }

    fn end_at(&mut self, version: u64, at: i64, succeeded: bool) {
        self.version = version;
        self.end = Some(JobEnd {
            succeeded,
            at: Timestamp::from_millis(at),
            took: u64::try_from(at - self.created).unwrap_or(0),
            message: if succeeded { String::new() } else { "exit code 1: as the dice fell".into() },
            report: None,
            image: None,
        });
    }
}
