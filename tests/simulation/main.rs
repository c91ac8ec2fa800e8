//! The simulation: a model cluster, users and faults drive `decide()`, and INVARIANTS.md is
//! checked by number after every write and every event. A failure prints the seed and the
//! shortest trace; `SIM_SEED=<seed> SIM_STEPS=<steps>` runs another stretch.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checks;
mod coverage;
mod database;
mod event;
mod generate;
mod metrics;
mod model;
mod mutants;
mod operator;
mod rng;
mod setup;
mod users;
mod world;

use servicerelease::{api::Phase, engine::decide};

use coverage::{Coverage, Point};
use generate::Case;
use operator::Part;

/// Events in a case, before it is left to itself.
const LENGTH: usize = 60;

fn env(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// `SIM_ONLY=T1` looks for breaches of one rule.
fn only() -> Option<&'static str> {
    let rule = std::env::var("SIM_ONLY").ok()?;
    Some(String::leak(rule))
}

/// Prints a failing case, made as short as it gets.
fn explain(subject: &operator::Subject, seed: u64, case: &Case, rule: &'static str) -> String {
    let run = |case: &Case| world::run(subject, &case.setup, &case.events, case.forward, Some(rule));
    let short = generate::shrink(case, rule, |case| run(case).violation);
    let outcome = run(&short);
    let violation = outcome.violation.expect("the short case fails, too");
    let mut text = format!(
        "{}: {}\nseed {seed}; the shortest trace has {} events ({})\n",
        violation.rule,
        violation.text,
        short.events.len(),
        short.setup
    );
    for line in &outcome.log {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// How a case is made.
type Make = fn(u64, usize) -> Case;

fn sweep(make: Make, seed: u64, steps: u64) -> Result<Coverage, String> {
    let mut coverage = Coverage::default();
    let (mut done, mut cases) = (0, 0);
    while done < steps {
        let seed = seed + cases;
        let case = make(seed, LENGTH);
        let outcome = world::run(&decide, &case.setup, &case.events, case.forward, only());
        if std::env::var("SIM_TRACE").is_ok() {
            println!("{}\n{}", case.setup, outcome.log.join("\n"));
        }
        if let Some(violation) = outcome.violation {
            if std::env::var("SIM_SURVEY").is_ok() {
                println!("{seed} {}: {}", violation.rule, violation.text);
                done += outcome.steps;
                cases += 1;
                continue;
            }
            return Err(explain(&decide, seed, &case, violation.rule));
        }
        coverage.merge(&outcome.coverage);
        done += outcome.steps;
        cases += 1;
    }
    println!("{done} steps in {cases} cases from seed {seed}");
    for (what, times) in &coverage.hits {
        println!("{times:>8} {what}");
    }
    Ok(coverage)
}

/// Cells of (phase x event x point) that so many steps reach at least.
const LEAST_CELLS: usize = 700;

#[test]
fn the_engine_keeps_every_invariant() {
    let seed = env("SIM_SEED", 1_000_000);
    let steps = env("SIM_STEPS", 125_000);
    match sweep(Case::generate, seed, steps) {
        Ok(coverage) => {
            println!("{}", coverage.table());
            for phase in [Phase::Pending, Phase::Progressing, Phase::Promoting, Phase::RollingBack, Phase::Paused] {
                for point in [Point::CrashBefore, Point::CrashAfter] {
                    let point = point(Part::Status);
                    assert!(coverage.reached(phase, point), "no {point:?} in {phase:?}");
                }
            }
            assert!(coverage.len() >= LEAST_CELLS, "only {} cells were reached", coverage.len());
        }
        Err(trace) => panic!("{trace}"),
    }
}

/// The same of cases over a route.
const LEAST_CELLS_ROUTED: usize = 600;

#[test]
fn the_engine_keeps_every_invariant_over_a_route() {
    let seed = env("SIM_SEED", 3_000_000);
    let steps = env("SIM_STEPS", 60_000);
    match sweep(Case::routed, seed, steps) {
        Ok(coverage) => {
            println!("{}", coverage.table());
            assert!(coverage.len() >= LEAST_CELLS_ROUTED, "only {} cells were reached", coverage.len());
        }
        Err(trace) => panic!("{trace}"),
    }
}

/// The same of cases with checks.
const LEAST_CELLS_CHECKED: usize = 600;

#[test]
fn the_engine_keeps_every_invariant_with_checks() {
    let seed = env("SIM_SEED", 5_000_000);
    let steps = env("SIM_STEPS", 60_000);
    match sweep(Case::checked, seed, steps) {
        Ok(coverage) => {
            println!("{}", coverage.table());
            assert!(coverage.len() >= LEAST_CELLS_CHECKED, "only {} cells were reached", coverage.len());
        }
        Err(trace) => panic!("{trace}"),
    }
}

/// Verdicts of every kind of metric, one after the other.
#[test]
fn the_engine_keeps_every_invariant_under_analysis() {
    let seed = env("SIM_SEED", 7_000_000);
    let steps = env("SIM_STEPS", 50_000);
    if let Err(trace) = sweep(Case::analysed, seed, steps) {
        panic!("{trace}");
    }
    let (changes, missing) = metrics::changes();
    println!("{changes}");
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

/// The same of cases with a database.
const LEAST_CELLS_DATABASE: usize = 250;

#[test]
fn the_engine_keeps_every_invariant_with_a_database() {
    let seed = env("SIM_SEED", 9_000_000);
    let steps = env("SIM_STEPS", 60_000);
    match sweep(Case::with_database, seed, steps) {
        Ok(coverage) => {
            println!("{}", coverage.table());
            assert!(coverage.len() >= LEAST_CELLS_DATABASE, "only {} cells were reached", coverage.len());
            assert_hit(&coverage, &HITS);
        }
        Err(trace) => panic!("{trace}"),
    }
}

/// The same of cases in which releases are observed after their promotion.
const LEAST_CELLS_OBSERVED: usize = 120;

#[test]
fn the_engine_keeps_every_invariant_under_observation() {
    let seed = env("SIM_SEED", 11_300_000);
    let steps = env("SIM_STEPS", 60_000);
    match sweep(Case::observed, seed, steps) {
        Ok(coverage) => {
            println!("{}", coverage.table());
            assert!(coverage.len() >= LEAST_CELLS_OBSERVED, "only {} cells were reached", coverage.len());
        }
        Err(trace) => panic!("{trace}"),
    }
    let (ends, missing) = checks::ends();
    println!("{ends}");
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

/// What has to be hit while it is at work.
const HITS: [&str; 13] = [
    "a worker waits for another release",
    "a worker waits for a command whose wrapper is gone",
    "another release applies a worker's file",
    "another release runs a worker's command",
    "another release's command is killed",
    "a migration that another release ran",
    "locked out: a change",
    "restarted: files",
    "restarted: a command",
    "restarted: a scratch database",
    "restarted: a worker that waits for the lock",
    "refused: a change",
    "refused: what only reads",
];
fn assert_hit(coverage: &Coverage, all: &[&str]) {
    let missing: Vec<&&str> = all.iter().filter(|what| !coverage.hits.contains_key(**what)).collect();
    assert!(missing.is_empty(), "nobody at work was hit by that: {missing:?}");
}

/// What was promoted with a migration that old code cannot live with, and is undone behind a page.
#[test]
fn the_engine_keeps_every_invariant_when_a_migration_is_undone() {
    let seed = env("SIM_SEED", 13_000_000);
    let steps = env("SIM_STEPS", 20_000);
    match sweep(Case::undone, seed, steps) {
        Ok(coverage) => assert!(coverage.phases().contains(&Phase::RolledBack), "nothing was undone"),
        Err(trace) => panic!("{trace}"),
    }
}

/// Cases that a mutant may survive.
const PATIENCE: u64 = 800;

/// The number of the first case in which a mutant is caught by the rule that it breaks. `without`: a kind of event that
/// does not come about.
fn killed(make: Make, mutant: &mutants::Mutant, within: u64, without: Option<&str>) -> Option<u64> {
    (0..within).find(|case| {
        let mut case = make(2_000_000 + case, LENGTH);
        case.events.retain(|event| Some(event.kind()) != without);
        let fails = |subject: &operator::Subject| {
            world::run(subject, &case.setup, &case.events, case.forward, Some(mutant.rule)).violation.is_some()
        };
        // Without what strikes it is another case, in which the engine itself has to be right.
        fails(&mutant.decide) && (without.is_none() || !fails(&decide))
    })
}

/// Whether each is killed by its rule.
fn all_are_killed<'a>(all: impl IntoIterator<Item = (Make, &'a [mutants::Mutant])>) {
    let mut survivors = Vec::new();
    let all = all.into_iter().flat_map(|(make, some)| some.iter().map(move |mutant| (make, mutant)));
    for (make, mutant) in all.filter(|(_, mutant)| only().is_none_or(|rule| rule == mutant.rule)) {
        let case = killed(make, mutant, PATIENCE, None);
        println!(
            "{} {:<55} {}",
            mutant.rule,
            mutant.name,
            case.map_or("survives".to_owned(), |case| format!("case {case}"))
        );
        if case.is_none() {
            survivors.push(mutant.name);
        }
    }
    assert!(survivors.is_empty(), "these survive {PATIENCE} cases: {survivors:?}");
}

// Two tests, so that they are beside each other.

#[test]
fn every_mutant_is_killed_by_the_rule_that_it_breaks() {
    assert!(mutants::MUTANTS.len() >= 20 && mutants::ROUTED.len() >= 8);
    all_are_killed([
        (Case::generate as Make, mutants::MUTANTS),
        (Case::routed, mutants::ROUTED),
        (Case::checked, mutants::CHECKED),
        (Case::analysed, mutants::ANALYSED),
    ]);
}

#[test]
fn every_mutant_of_databases_and_observations_is_killed_by_the_rule_that_it_breaks() {
    all_are_killed([
        (Case::with_database as Make, mutants::database::ALL),
        (Case::observed, mutants::observation::ALL),
        (Case::undone, mutants::database::UNDONE),
    ]);
}

/// What happens on the database from elsewhere: mutants that nothing else kills.
#[test]
fn mutants_of_what_strikes_the_database_are_killed_by_that_alone() {
    for (event, mutant) in mutants::database::STRUCK {
        let case = killed(Case::with_database, mutant, PATIENCE, None);
        println!("{} {:<70} {case:?}", mutant.rule, mutant.name);
        assert!(case.is_some(), "{} survives {PATIENCE} cases", mutant.name);
        // It survives the same cases, and some more.
        let otherwise = killed(Case::with_database, mutant, case.unwrap_or(0) + 20, Some(event));
        assert!(otherwise.is_none(), "{} is killed without {event} in case {otherwise:?}", mutant.name);
    }
}
