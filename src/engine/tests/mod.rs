//! Tables for decide(): one test for each rule of the product, named as a sentence, on a small fair
//! cluster ([`world`]). The simulation under `tests/simulation` is where clusters are unfair.

mod adoption;
mod analysed;
mod by_service;
mod checked;
mod checked_by_jobs;
mod commands;
mod compared;
mod contested;
mod held;
mod judged;
mod logs;
mod looks;
mod observed;
mod providers;
mod reached;
mod recorded;
mod refused;
mod releases;
mod restarts;
mod rollbacks;
mod routed;
mod some_unready;
mod templated;
mod told;
mod unaccepted;
mod unfair;
mod unmeasured;
mod unproven;
mod unready;
mod unserved;
mod watched;
mod way_back;
mod with_database;
pub mod world;
