//! What moving traffic costs: failed requests, exactness of shares, time from a decision to the traffic.
//! Each writes its rows into target/bench-gateway.md (`make bench-gateway`).

use std::{io::Write as _, path::Path};

use jiff::{SignedDuration, Timestamp};
use servicerelease::api::{Phase, ServiceReleaseStatus};

use crate::{
    harness::{
        Scenario, Shop, World,
        k6::{Address, Count, K6},
        note, operator,
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    canary_to_the_end, Bench, Gateway;
    abort_at_half, Bench, Gateway;
    blue_green_and_undo, Bench, Gateway;
    leader_killed_in_mid_shift, Bench, Gateway;
    abort_onto_too_few_pods, Bench, Gateway;
    abort_onto_no_pod, Bench, Gateway;
    abort_onto_no_pod_as_a_peer_does, Bench, Gateway;
    autoscaled_in_the_middle, Bench, Gateway;
};

/// Requests of which a share is taken. Traefik takes turns, so that it is within a point of what is meant: the
/// interval of 99 of 100 binomial samples, some two points, fails it only if it is wrong.
const SAMPLE: u64 = 2_000;

/// What is measured in one scenario.
struct Bench {
    k6: K6,
    name: &'static str,
    shares: Vec<String>,
    shifts: Vec<String>,
    outside: usize,
}

impl Bench {
    async fn start(world: &World, name: &'static str) -> Self {
        Self {
            k6: K6::start(world, Address::Gateway("edge")).await,
            name,
            shares: Vec::new(),
            shifts: Vec::new(),
            outside: 0,
        }
    }

    /// Takes a share: within the interval that holds 99 of 100 binomial samples, or not.
    async fn share(&mut self, percent: f64) {
        let (own, all) = self.k6.sample(SAMPLE).await;
        let (meant, seen) = (percent / 100.0, own as f64 / all as f64);
        let interval = 2.576 * (meant * (1.0 - meant) / all as f64).sqrt();
        let within = (seen - meant).abs() <= interval + 1e-9;
        self.outside += usize::from(!within);
        let mark = if within { "" } else { " (outside)" };
        self.shares.push(format!("{percent:.0}: {:.2} ± {:.2}{mark}", seen * 100.0, interval * 100.0));
    }

    /// Takes the time from a decision on record to the first, or last, answer that shows it.
    fn shift(&mut self, what: &str, decided: Timestamp, shows: impl Fn(&Count, &Count) -> bool, last: bool) {
        let counts = self.k6.counts();
        let mut moments = counts.windows(2).filter(|pair| pair[1].at > decided && shows(&pair[0], &pair[1]));
        let found = if last { moments.next_back() } else { moments.next() };
        let text = match found {
            Some(pair) => {
                let took: SignedDuration = pair[1].at.duration_since(decided);
                format!("{what} {:.1} s", took.as_secs_f64())
            }
            None => format!("{what} at once"),
        };
        self.shifts.push(text);
    }

    /// Ends it: no request failed, and no share was outside of its interval.
    async fn end(self) {
        let (failed, outside) = (self.k6.last().failed, self.outside);
        self.tell().await;
        assert_eq!((failed, outside), (0, 0), "requests failed, or shares were outside of the interval");
    }

    /// Ends it, and writes its row.
    async fn tell(self) {
        let last = self.k6.last();
        let all = last.v1 + last.v2 + last.failed;
        let unsent = if last.unsent > 0 { format!(" ({} more not sent)", last.unsent) } else { String::new() };
        let row = format!(
            "| {} | {} / {all}{unsent} | {} | {} |",
            self.name,
            last.failed,
            self.shares.join(", "),
            self.shifts.join(", ")
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench-gateway.md");
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(path).expect("target/bench-gateway.md");
        writeln!(file, "{row}").expect("a row is written");
        note(row);
        self.k6.end().await;
    }
}

fn stamp(time: servicerelease::api::Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millis()).expect("a time")
}

/// When an entry of the timeline was made, the newest whose kind or message has this in it.
fn noted(status: &ServiceReleaseStatus, part: &str) -> Timestamp {
    let found = status.timeline.iter().rev().find(|entry| entry.message.contains(part) || entry.kind == part);
    stamp(found.unwrap_or_else(|| panic!("no {part:?} in {:?}", status.timeline)).at)
}

fn to_v2(before: &Count, after: &Count) -> bool {
    after.v2 > before.v2
}

fn to_v1(before: &Count, after: &Count) -> bool {
    after.v1 > before.v1
}

/// A canary that stops at 10 and 50 percent.
const STEPS: &str = "strategy: {canary: {steps: [{setWeight: 10}, {pause: {}}, {setWeight: 50}, {pause: {}}]}}";

async fn up_to(shop: &Shop, bench: &mut Bench, step: &str, at: &str, percent: f64) {
    let status = shop.step(at, Phase::Paused).await;
    bench.shift(&format!("{percent:.0}%"), noted(&status, step), to_v2, false);
    bench.share(percent).await;
}

async fn canary_to_the_end(world: World) {
    let shop = world.routed_shop("GATEWAY", STEPS).await;
    let mut bench = Bench::start(&world, "canary 0-10-50-100").await;
    bench.share(0.0).await;
    shop.release("v2", &[]).await;
    up_to(&shop, &mut bench, "setWeight 10", "3/6 pause", 10.0).await;
    shop.say("Promote").await;
    let status = shop.step("5/6 pause", Phase::Paused).await;
    let reached = noted(&status, "5/6 pause").duration_since(noted(&status, "setWeight 50"));
    bench.shifts.push(format!("50% counts as reached {:.1} s", reached.as_secs_f64()));
    bench.share(50.0).await;
    shop.say("Promote").await;
    let status = shop.healthy().await;
    bench.share(100.0).await;
    bench.shift("100%: last of v1", noted(&status, "6/6 promote"), to_v1, true);
    bench.end().await;
}

async fn abort_at_half(world: World) {
    let spec = "{replicas: 3, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let mut bench = Bench::start(&world, "abort at 50").await;
    shop.release("v2", &[]).await;
    up_to(&shop, &mut bench, "setWeight 50", "3/4 pause", 50.0).await;
    shop.say("Abort").await;
    let status = shop.phase(Phase::RolledBack).await;
    bench.share(0.0).await;
    bench.shift("abort: last of v2", stamp(status.rollback.unwrap().started_at), to_v2, true);
    bench.end().await;
}

async fn blue_green_and_undo(world: World) {
    let spec = "{strategy: {blueGreen: {autoPromote: false}}, rollback: {keepPrevious: 1h}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let mut bench = Bench::start(&world, "blue-green, switch and undo").await;
    shop.release("v2", &[]).await;
    shop.phase(Phase::Paused).await;
    shop.say("Promote").await;
    let status = shop.healthy().await;
    bench.share(100.0).await;
    bench.shift("switch: first of v2", noted(&status, "3/3 promote"), to_v2, false);
    bench.shift("last of v1", noted(&status, "3/3 promote"), to_v1, true);
    shop.say("Undo").await;
    let status = shop.phase(Phase::RolledBack).await;
    bench.share(0.0).await;
    bench.shift("undo: last of v2", stamp(status.rollback.unwrap().started_at), to_v2, true);
    bench.end().await;
}

async fn leader_killed_in_mid_shift(world: World) {
    let shop = world.routed_shop("GATEWAY", STEPS).await;
    let mut bench = Bench::start(&world, "leader killed in mid-shift").await;
    shop.release("v2", &[]).await;
    up_to(&shop, &mut bench, "setWeight 10", "3/6 pause", 10.0).await;
    shop.say("Promote").await;
    shop.reaches("on its way to 50%", |status| {
        status.step.as_ref().is_some_and(|step| step.summary.contains("setWeight 50"))
    })
    .await;
    let leader = operator::leader(&world.cluster).await;
    operator::signal(&leader, "KILL").await;
    shop.step("5/6 pause", Phase::Paused).await;
    bench.share(50.0).await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;
    bench.share(0.0).await;
    bench.end().await;
}

async fn abort_onto_too_few_pods(world: World) {
    let spec = "{replicas: 4, strategy: {canary: {dynamicStableScale: {atLeast: 1},
        steps: [{setWeight: 75}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let mut bench = Bench::start(&world, "abort at 75 onto 1 pod of 4").await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    shop.reaches("stable has shrunk", |status| status.stable.as_ref().is_some_and(|it| it.replicas == 1)).await;
    bench.share(75.0).await;
    shop.say("Abort").await;
    let status = shop.phase(Phase::RolledBack).await;
    bench.share(0.0).await;
    bench.shift("abort: last of v2", stamp(status.rollback.unwrap().started_at), to_v2, true);
    bench.end().await;
}

/// The harshest abort: at 100 percent, when stable has given up all its pods.
async fn abort_onto_no_pod(world: World) {
    let spec = "{replicas: 4, strategy: {canary: {dynamicStableScale: {atLeast: 0},
        steps: [{setWeight: 100}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let mut bench = Bench::start(&world, "abort at 100 onto 0 pods of 4").await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    shop.reaches("stable has no pods", |status| status.stable.as_ref().is_some_and(|it| it.replicas == 0)).await;
    bench.share(100.0).await;
    shop.say("Abort").await;
    let status = shop.phase(Phase::RolledBack).await;
    bench.share(0.0).await;
    bench.shift("abort: last of v2", stamp(status.rollback.unwrap().started_at), to_v2, true);
    bench.end().await;
}

/// The same by kubectl in the order that Argo Rollouts is reported to take (argo-rollouts issue 3888): all weight to
/// stable at once, and its pods after it. An imitation: Argo Rollouts itself does not run here.
async fn abort_onto_no_pod_as_a_peer_does(world: World) {
    for (version, service, replicas) in [("v1", "shop", 4), ("v2", "shop-preview", 4)] {
        let mut pod = crate::harness::yaml(include_str!("../harness/shop.yaml"))["spec"]["template"].take();
        pod["metadata"]["labels"] = serde_json::json!({"app": version});
        pod["spec"]["containers"][0]["env"] = serde_json::json!([{"name": "APP_VERSION", "value": version}]);
        let selector = serde_json::json!({"matchLabels": {"app": version}});
        let spec = serde_json::json!({"replicas": replicas, "selector": selector, "template": pod});
        world
            .apply_value(serde_json::json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": version}, "spec": spec,
            }))
            .await;
        let spec = serde_json::json!({"selector": {"app": version}, "ports": [{"name": "http", "port": 8080}]});
        world
            .apply_value(serde_json::json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": service}, "spec": spec,
            }))
            .await;
        world.kubectl(&format!("rollout status deployment/{version} --timeout=90s")).await.expect_success();
    }
    let weights = |v1: i32| {
        let backend = |name: &str, weight: i32| serde_json::json!({"name": name, "port": 8080, "weight": weight});
        let rule = serde_json::json!({"backendRefs": [backend("shop", v1), backend("shop-preview", 100 - v1)]});
        let parent = serde_json::json!({"name": "edge", "namespace": "gateway"});
        serde_json::json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "shop"},
            "spec": {"parentRefs": [parent], "hostnames": [world.hostname()], "rules": [rule]},
        })
    };
    world.apply_value(weights(100)).await;
    let mut bench = Bench::start(&world, "the same as a peer does it: weights first, pods after (imitation)").await;
    world.apply_value(weights(0)).await;
    bench.k6.only_v2().await;
    world.kubectl("scale deployment v1 --replicas=0").await.expect_success();
    world.kubectl("wait pods -l app=v1 --for=delete --timeout=90s").await.expect_success();
    bench.share(100.0).await;

    let aborted = Timestamp::now();
    world.apply_value(weights(100)).await;
    world.kubectl("scale deployment v1 --replicas=4").await.expect_success();
    world.kubectl("rollout status deployment/v1 --timeout=90s").await.expect_success();
    bench.share(0.0).await;
    bench.shift("abort: last of v2", aborted, to_v2, true);
    bench.tell().await;
}

async fn autoscaled_in_the_middle(world: World) {
    let spec = "{replicas: 2, strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}]}}}";
    let shop = world.routed_shop("GATEWAY", spec).await;
    let mut bench = Bench::start(&world, "an autoscaler scales both, 2 to 5 and back").await;
    shop.release("v2", &[]).await;
    shop.step("3/4 pause", Phase::Paused).await;
    super::autoscaling::scale_both(&world, &shop, 5).await;
    bench.share(50.0).await;
    super::autoscaling::scale_both(&world, &shop, 2).await;
    bench.share(50.0).await;
    shop.say("Promote").await;
    shop.healthy().await;
    bench.share(100.0).await;
    bench.end().await;
}
