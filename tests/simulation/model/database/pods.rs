//! Pods that work on the database: when they start and what ends them.

use servicerelease::engine::{NewJob, Run, Task};

use crate::{model::cluster::Cluster, rng};

use super::{DEED, Fate, LATE, LINGER, Next, START, Stage, Worker, fate};

impl Worker {
    /// For how long a server process of it goes on after its client. A command may not hear that its wrapper is gone.
    fn lingers(&self) -> i64 {
        let times = match self.task() {
            Some(Task::Wrap(_)) => 1 + rng::dice(&format!("{}/lingers", self.uid)) % 5,
            _ => 1,
        };
        LINGER * i64::try_from(times).unwrap_or(1)
    }

    /// Whether its pod, which has not started, does so although its Job is gone: such pods stop at the ledger once they were settled.
    fn starts_late(&self) -> bool {
        let waits = self.alive && !self.late && self.started.is_none() && self.fate != Fate::NeverStarts;
        waits
            && matches!(self.task(), Some(Task::Wrap(_) | Task::Migrate(_)))
            && rng::dice(&format!("{}/late", self.uid)).is_multiple_of(2)
    }
}

impl Cluster {
    /// A Job that works on the database gets its pod.
    pub fn start_worker(&mut self, new: &NewJob, uid: &str) {
        let Run::Database(order) = &new.run else { return };
        let timeout = i64::try_from(new.timeout.as_millis()).unwrap_or(i64::MAX);
        let cleans = matches!(order.task, Some(Task::CleanUp { .. }));
        let fate = fate(&new.name, self.jobs_right, cleans);
        let until = self.now + timeout;
        self.server.workers.push(Worker {
            job: new.name.clone(),
            uid: uid.to_owned(),
            order: (**order).clone(),
            fate,
            killed_after: u32::try_from(rng::dice(&format!("{}/deeds", new.name)) % 3).unwrap_or(0),
            at: if fate == Fate::NeverStarts { until } else { self.now + START },
            until,
            stage: Stage::Starting,
            deeds: 0,
            alive: true,
            late: false,
            started: None,
            waits: None,
            begun: false,
            losses: 0,
        });
    }

    /// Kills the pod of a Job (-9), or of any.
    pub fn kill_worker(&mut self, n: usize) -> Option<String> {
        let count = self.server.workers.iter().filter(|worker| worker.alive).count();
        let index = (count > 0).then(|| n % count)?;
        let worker = self.server.workers.iter_mut().filter(|worker| worker.alive).nth(index)?;
        (worker.fate, worker.killed_after) = (Fate::Killed, 0);
        worker.at = self.now;
        Some(worker.job.clone())
    }

    /// What happens in the database until now.
    pub fn run_database(&mut self) {
        loop {
            self.end_orphans();
            let first = self.server.workers.iter().enumerate().min_by_key(|(_, worker)| worker.at);
            let first = first.map(|(index, worker)| (index, worker.at)).filter(|(_, at)| *at <= self.now);
            let foreign = self.server.foreign.as_ref().map(|foreign| foreign.at).filter(|at| *at <= self.now);
            match first {
                Some((index, at)) if foreign.is_none_or(|foreign| at <= foreign) => self.step_worker(index, at),
                _ if foreign.is_some() => self.server.step_foreign(),
                _ => return,
            }
        }
    }

    /// Pods whose Jobs are gone are ended.
    fn end_orphans(&mut self) {
        let now = self.now;
        let jobs = &self.live.jobs;
        let gone = |worker: &Worker| jobs.get(&worker.job).is_none_or(|job| job.uid != worker.uid);
        for worker in self.server.workers.iter_mut().filter(|worker| gone(worker) && worker.starts_late()) {
            (worker.late, worker.at) = (true, worker.at + LATE);
        }
        let starts = |worker: &Worker| worker.alive && worker.stage == Stage::Starting && !worker.late;
        self.server.workers.retain(|worker| !(gone(worker) && starts(worker)));
        let goes_on = |worker: &Worker| worker.alive && !(worker.late && worker.stage == Stage::Starting);
        for worker in self.server.workers.iter_mut().filter(|worker| goes_on(worker) && gone(worker)) {
            worker.alive = false;
            worker.at = now + worker.lingers();
        }
    }

    fn step_worker(&mut self, index: usize, at: i64) {
        let mut worker = self.server.workers[index].clone();
        if worker.alive && (worker.fate == Fate::NeverStarts || at >= worker.until) {
            self.end_job(&worker, at, None);
            self.server.workers.remove(index);
            return;
        }
        let killed = worker.fate == Fate::Killed && worker.deeds >= worker.killed_after;
        if worker.alive && killed && worker.stage == Stage::Starting && worker.started.is_some() {
            // It has no connection, or waits for the lock: the server has nothing of it.
            self.end_job(&worker, at, None);
            self.server.workers.remove(index);
            return;
        }
        if worker.alive && killed && worker.stage == Stage::Working {
            self.end_job(&worker, at, None);
            if let Some(Task::Wrap(wrapped)) = worker.task()
                && worker.deeds > 0
                && rng::dice(&format!("{}/told", worker.uid)).is_multiple_of(2)
            {
                // It is evicted: there is time for a note, and nobody reads the report before the pod is gone.
                self.server.told_to_end(wrapped);
                self.server.workers.remove(index);
                return;
            }
            worker.alive = false;
            worker.at = at + worker.lingers();
            self.server.workers[index] = worker;
            return;
        }
        if worker.stage == Stage::Starting {
            match self.server.connect(&mut worker, index, at) {
                None => self.server.workers[index] = worker,
                Some(report) => {
                    self.end_job(&worker, at, Some(&report));
                    self.server.workers.remove(index);
                }
            }
            return;
        }
        if !worker.alive {
            // What was on its way to the server when the client went may have been carried out. How a command ended is
            // noted by the client.
            let going_on = match worker.task() {
                Some(Task::Migrate(_) | Task::Down { .. }) => true,
                // CREATE DATABASE.
                _ if worker.makes_scratch() => worker.deeds == 0,
                Some(Task::Wrap(_)) => worker.deeds < 2,
                _ => false,
            };
            if going_on && rng::dice(&format!("{}/{}", worker.uid, worker.deeds)).is_multiple_of(2) {
                worker.fate = Fate::Well;
                self.server.work(&mut worker, self.jobs_right);
            }
            self.server.workers.remove(index);
            return;
        }
        let next = self.server.work(&mut worker, self.jobs_right);
        match next {
            Next::More => {
                (worker.at, worker.losses) = (at + DEED, 0);
                self.server.workers[index] = worker;
            }
            Next::Ended(report) => {
                self.end_job(&worker, at, Some(&report));
                self.server.workers.remove(index);
            }
        }
    }
}
