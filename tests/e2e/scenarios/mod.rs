//! The scenarios, one file each.

mod adoption;
mod analysis;
mod automatic_rollbacks;
mod autoscaling;
mod bench;
mod bench_rollback;
mod blue_green;
mod canary_by_hand;
mod canary_to_the_end;
mod changes_in_the_middle;
mod changes_of_mind;
mod checks;
mod commands;
mod custom_routers;
mod database;
mod database_backups;
mod database_faults;
mod database_halted;
mod database_killed;
mod database_left_over;
mod database_moments;
mod database_own_backup;
mod database_page;
mod database_rules;
mod database_runbooks;
mod database_tools;
mod disruptions;
mod gateway;
mod killed_at_every_write;
mod low_traffic;
mod lying_metrics;
mod operator_disturbed;
mod plugin;
mod route_steps;
mod runbook_texts;
mod runbooks;
mod ten_percent;

use crate::harness::Scenario;

/// All of them. Those that take longest come first, so that nothing waits for them at the end.
pub const ALL: &[&[Scenario]] = &[
    database_faults::ALL,
    database_runbooks::ALL,
    database_rules::ALL,
    database_moments::ALL,
    database_own_backup::ALL,
    database_page::ALL,
    low_traffic::ALL,
    ten_percent::ALL,
    analysis::ALL,
    automatic_rollbacks::ALL,
    autoscaling::ALL,
    canary_by_hand::ALL,
    canary_to_the_end::ALL,
    changes_of_mind::ALL,
    checks::ALL,
    changes_in_the_middle::ALL,
    commands::ALL,
    custom_routers::ALL,
    database::ALL,
    database_backups::ALL,
    database_tools::ALL,
    gateway::ALL,
    route_steps::ALL,
    runbooks::ALL,
    adoption::ALL,
    blue_green::ALL,
    plugin::ALL,
    disruptions::ALL,
    operator_disturbed::ALL,
    killed_at_every_write::ALL,
    database_killed::ALL,
    database_left_over::ALL,
    database_halted::ALL,
    lying_metrics::ALL,
    bench::ALL,
    bench_rollback::ALL,
];
