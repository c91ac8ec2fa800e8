//! Seeds: what is put in once, and what goes with a migration that is taken back.

use servicerelease::engine::Seeded;

use super::{Data, Record, Server, State, What};

/// Whether a command of the ledger is a seed.
pub fn is_seed(plan: &str) -> bool {
    plan.starts_with("seed/")
}

impl Server {
    /// A seed is put in.
    pub fn seed(&mut self, release: &str, blind: bool) {
        let rerun = std::mem::replace(&mut self.data.seeded, true);
        self.note_run(What::Seeded, release, (blind, rerun));
    }

    /// A release's migration is taken back, and with its tables what it had put in as a seed. What of that the ledger is
    /// to forget is for the task to say.
    pub fn take_seed_along(&mut self, of: &str, forgets: Option<&Seeded>) {
        let Data { files, runs, seeded, .. } = &mut self.data;
        let own_file = |key: &str, release: &str| key.starts_with("seed/") && release == of;
        let own_run = |plan: &str, run: &Record| is_seed(plan) && run.release == of && run.state == State::Applied;
        let own = files.iter().any(|(key, release)| own_file(key, release))
            || runs.iter().any(|(plan, run)| own_run(plan, run));
        *seeded &= !own;
        match forgets {
            Some(Seeded::Files(set)) => {
                files.retain(|key, release| !(key.starts_with(&format!("{set}/")) && release == of));
            }
            Some(Seeded::Command(plan)) => runs.retain(|known, run| !(known == plan && run.release == of)),
            None => {}
        }
    }
}
