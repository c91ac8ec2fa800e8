//! What the ledger has of commands of the user's, and of tries that are over.

use servicerelease::{
    api::WorkOutcome,
    engine::{Report, SqlRun, Try, Wrapped},
};

use super::{Record, Server, State, bar, report};

impl Server {
    /// Looks in the ledger whether a command is to be run, and notes that it is.
    pub fn begin(&mut self, wrapped: &Wrapped, image: String) -> Option<Report> {
        let mut rerun = false;
        if let Some(run) = self.data.runs.get(&wrapped.plan) {
            let same = run.is_of(wrapped);
            rerun = run.state == State::Failed && run.begun && run.release == wrapped.release;
            match run.state {
                State::Applied => return Some(report(WorkOutcome::Done, "it is applied already")),
                State::Started if !wrapped.again => {
                    return Some(report(WorkOutcome::Unknown, "its end is not on record"));
                }
                State::Failed if same && run.begun => return Some(report(WorkOutcome::Failed, "it failed")),
                State::Failed if same => return Some(report(WorkOutcome::NotBegun, "it was settled")),
                _ => {}
            }
        }
        if let Some(report) = self.of_same(wrapped) {
            return Some(report);
        }
        let (release, attempt) = (wrapped.release.clone(), wrapped.attempt);
        let record = Record { state: State::Started, release, image, attempt, begun: true, rerun };
        self.data.runs.insert(wrapped.plan.clone(), record);
        None
    }

    /// What other releases did with the same command.
    fn of_same(&mut self, wrapped: &Wrapped) -> Option<Report> {
        let shared = wrapped.shared()?;
        let others = self.data.runs.iter().filter(|(plan, _)| plan.starts_with(shared) && **plan != wrapped.plan);
        let states: Vec<State> = others.map(|(_, run)| run.state).collect();
        if states.contains(&State::Applied) {
            self.hit("a migration that another release ran");
            return Some(Report { unchanged: true, ..report(WorkOutcome::Done, "it is applied already") });
        }
        let doubtful = states.contains(&State::Started) && !wrapped.again;
        doubtful.then(|| report(WorkOutcome::Unknown, "another release began it, and its end is not on record"))
    }

    pub fn is_barred(&self, run: &SqlRun, which: &Try) -> bool {
        self.data.barred.get(&bar(run, which)).is_some_and(|until| *until >= which.number)
    }

    /// A try is over, and those before it.
    pub fn bar(&mut self, run: &SqlRun) {
        if let Some(which) = &run.which {
            let until = self.data.barred.entry(bar(run, which)).or_default();
            *until = which.number.max(*until);
        }
    }

    pub fn settle(&mut self, wrapped: &Wrapped) -> Report {
        match self.data.runs.get_mut(&wrapped.plan) {
            Some(run) if run.state == State::Applied => report(WorkOutcome::Done, "the ledger has it as applied"),
            Some(run) if run.state == State::Started => report(WorkOutcome::Unknown, "its end is not on record"),
            Some(run) if run.release == wrapped.release => {
                run.attempt = run.attempt.max(wrapped.attempt);
                let begun = run.begun;
                report(if begun { WorkOutcome::Failed } else { WorkOutcome::NotBegun }, "it failed, or never began")
            }
            _ => {
                // A pod of the try that is asked about which comes late finds this, and does not begin either.
                let (release, attempt) = (wrapped.release.clone(), wrapped.attempt);
                let (state, image) = (State::Failed, String::new());
                let record = Record { state, release, image, attempt, begun: false, rerun: false };
                self.data.runs.insert(wrapped.plan.clone(), record);
                report(WorkOutcome::NotBegun, "it was never begun")
            }
        }
    }
}
