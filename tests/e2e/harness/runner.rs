//! Runs scenarios: those that disturb nobody side by side, the others one after another, each with a
//! time limit, and tells of every one how it went.

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::task_local;

use super::{Cluster, World, operator};

/// How long one scenario may take. What it waits for in it has limits of its own.
const LIMIT: Duration = Duration::from_secs(1500);

/// Characters of a failure in the summary.
const MOST_OF_WHY: usize = 600;

/// What a scenario does to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing: it runs beside others.
    Together,
    /// It disturbs the installed operator: it runs alone.
    Alone,
    /// It brings an operator of its own: the installed one is scaled to 0, the rest is as Together.
    OwnOperator,
    /// It measures: it runs alone, and only with `--bench`.
    Bench,
}

/// What a scenario needs of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Any cluster.
    Any,
    /// The embedded cluster, whose processes are this machine's.
    Embedded,
    /// CPU figures of pods.
    MetricsServer,
    /// The Gateway `edge` in the namespace `gateway`.
    Gateway,
    /// The Gateway `edge-envoy` in the namespace `gateway`.
    Envoy,
    /// Prometheus, which the operator knows as `default`.
    Prometheus,
}

type Run = fn(World) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it does to others.
    pub stage: Stage,
    /// What it needs.
    pub needs: Needs,
    /// The scenario itself.
    pub run: Run,
}

/// Names the scenarios of a module in one line each: `name, Stage, Needs`.
#[macro_export]
macro_rules! scenarios {
    ($($name:path, $stage:ident, $needs:ident;)*) => {
        &[$($crate::harness::Scenario {
            name: concat!(module_path!(), "::", stringify!($name)).split_at("e2e::scenarios::".len()).1,
            stage: $crate::harness::Stage::$stage,
            needs: $crate::harness::Needs::$needs,
            run: |world| Box::pin($name(world)),
        }),*]
    };
}

task_local! {
    static NOTES: Arc<Mutex<Vec<String>>>;
}

/// Adds to the line that tells of the scenario.
pub fn note(text: String) {
    let _ = NOTES.try_with(|notes| notes.lock().expect("no panic under this lock").push(text));
}

/// Arguments: `--list`, `--bench` for those that measure instead of all others, parts of names.
struct Arguments {
    list: bool,
    bench: bool,
    parts: Vec<String>,
}

impl Arguments {
    fn read() -> Self {
        let mut arguments = Self { list: false, bench: false, parts: Vec::new() };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--list" => arguments.list = true,
                "--bench" => arguments.bench = true,
                option if option.starts_with("--") => {}
                part => arguments.parts.push(part.to_owned()),
            }
        }
        arguments
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        let named = self.parts.is_empty() || self.parts.iter().any(|part| scenario.name.contains(part));
        named && (scenario.stage == Stage::Bench) == self.bench
    }
}

/// Runs what the arguments ask for.
pub async fn main(all: &[&[Scenario]]) -> ExitCode {
    let arguments = Arguments::read();
    let wanted: Vec<Scenario> = spread(all).into_iter().filter(|one| arguments.wants(one)).collect();
    if arguments.list {
        wanted.iter().for_each(|scenario| println!("{} ({:?})", scenario.name, scenario.stage));
        return ExitCode::SUCCESS;
    }
    record_panics();
    let cluster = Cluster::connect().await;
    let begun = Instant::now();
    let mut results = BTreeMap::new();
    for stage in [Stage::Together, Stage::Alone, Stage::OwnOperator, Stage::Bench] {
        let of_stage: Vec<Scenario> = wanted.iter().filter(|scenario| scenario.stage == stage).copied().collect();
        if of_stage.is_empty() {
            continue;
        }
        operator::prepare(&cluster, stage).await;
        let at_once = if matches!(stage, Stage::Alone | Stage::Bench) { 1 } else { threads() };
        let running = stream::iter(of_stage).map(|scenario| one(cluster.clone(), scenario));
        let ended: Vec<_> = running.buffer_unordered(at_once).collect().await;
        results.extend(ended);
        operator::restore(&cluster, stage).await;
    }
    summary(&results, begun.elapsed())
}

/// Scenarios so that those of a file are as far from each other as can be: they want the same of the machine, and those of the
/// runbooks want more than others.
fn spread(all: &[&[Scenario]]) -> Vec<Scenario> {
    let places =
        all.iter().flat_map(|of_file| (0..of_file.len()).map(|place| (place * 1000 / of_file.len(), of_file[place])));
    let mut places: Vec<(usize, Scenario)> = places.collect();
    places.sort_by_key(|(place, _)| *place);
    places.into_iter().map(|(_, scenario)| scenario).collect()
}

fn threads() -> usize {
    std::env::var("E2E_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    /// And why.
    Failed(String),
    Skipped,
}

/// Why something failed is said once more at the end, where one looks first.
fn summary(results: &BTreeMap<&'static str, Outcome>, took: Duration) -> ExitCode {
    let count = |outcome| results.values().filter(|one| **one == outcome).count();
    let failed: Vec<_> = results
        .iter()
        .filter_map(|(name, outcome)| match outcome {
            Outcome::Failed(why) => Some((name, why)),
            Outcome::Passed | Outcome::Skipped => None,
        })
        .collect();
    println!(
        "{} passed, {} failed, {} skipped in {:.0} s",
        count(Outcome::Passed),
        failed.len(),
        count(Outcome::Skipped),
        took.as_secs_f64()
    );
    for (name, why) in &failed {
        let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = line.chars().take(MOST_OF_WHY).collect();
        println!("  failed: {name}: {short}\n  see {}", log(name).display());
    }
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn log(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e").join(format!("{name}.log").replace("::", "-"))
}

async fn one(cluster: Cluster, scenario: Scenario) -> (&'static str, Outcome) {
    let name = scenario.name;
    if let Some(why) = missing(&cluster, scenario.needs).await {
        println!("skipped {name}: {why}");
        return (name, Outcome::Skipped);
    }
    let begun = Instant::now();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let world = World::new(&cluster, name.rsplit("::").next().unwrap_or(name)).await;
    let running = NOTES.scope(notes.clone(), (scenario.run)(world.clone()));
    // A task of its own, so that a panic ends this scenario only.
    let ended = tokio::time::timeout(LIMIT, tokio::spawn(running)).await;
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(String::new()),
        Err(_) => Some(format!("not done in {LIMIT:?}")),
    };
    let notes = notes.lock().map(|notes| notes.join("; ")).unwrap_or_default();
    let took = begun.elapsed().as_secs_f64();
    let keep = std::env::var("E2E_KEEP").is_ok();
    let Some(why) = failure else {
        println!("passed  {name} in {took:.1} s: {notes}");
        if !keep {
            world.remove().await;
        }
        return (name, Outcome::Passed);
    };
    println!("FAILED  {name} in {took:.1} s (namespace {}): {why}{notes}", world.namespace);
    let path = log(name);
    let _ = path.parent().map(std::fs::create_dir_all);
    let why = why + &notes;
    let _ = std::fs::write(path, format!("{why}\n{}", world.dump().await));
    if !keep {
        world.remove().await;
    }
    (name, Outcome::Failed(why))
}

async fn missing(cluster: &Cluster, needs: Needs) -> Option<String> {
    match needs {
        Needs::Any => None,
        Needs::Embedded => {
            cluster.embedded.is_none().then(|| "it reaches into the node, which is not this machine".to_owned())
        }
        Needs::MetricsServer => {
            let request = http::Request::get("/apis/metrics.k8s.io/v1beta1").body(Vec::new()).ok()?;
            let answer = cluster.client.request_text(request).await;
            answer.is_err().then(|| "the cluster has no metrics-server".to_owned())
        }
        Needs::Prometheus => {
            let services: Api<Service> = Api::namespaced(cluster.client.clone(), "monitoring");
            let found = services.get_opt("prometheus").await.ok().flatten();
            found.is_none().then(|| "the cluster has no Service prometheus in namespace monitoring".to_owned())
        }
        Needs::Gateway | Needs::Envoy => {
            let name = if needs == Needs::Envoy { "edge-envoy" } else { "edge" };
            let address = super::world::gateway(cluster, name).await;
            address.is_none().then(|| format!("the cluster has no Gateway {name} in namespace gateway"))
        }
    }
}

/// Panics of a scenario go into its notes.
fn record_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = format!("\n{place}: {}", panic.payload_as_str().unwrap_or_default());
        if NOTES.try_with(|_| ()).is_ok() {
            note(text);
        } else {
            eprintln!("{text}");
        }
    }));
}
