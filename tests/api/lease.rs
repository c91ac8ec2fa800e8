//! Two operators, one lease: who leads, and what a leader that was stopped can still do.

use std::time::Instant;

use serde_json::{Value, json};

use servicerelease::controller::lease;

use crate::{
    cluster::{Cluster, SECOND, release, until},
    operator::{Operator, Process, metric},
    proxy::{Fate, Proxy},
};

const LEASE: &str = "service-release-operator";
/// How often a process lost it.
const LOST: &str = "servicerelease_lease_lost_total";

async fn loses(leader: std::net::SocketAddr) {
    let lost = async || (metric(leader, LOST).await > 0.0).then_some(());
    until(30 * SECOND, lost).await.expect("the loss is noticed");
    assert_eq!(metric(leader, "servicerelease_leader").await, 0.0);
}

async fn leads(cluster: &Cluster, name: &str) {
    let held = |lease: &Value| lease["spec"]["holderIdentity"].as_str().is_some_and(|who| who.starts_with(name));
    cluster.until("Lease", LEASE, &format!("the lead of {name}"), held).await;
}

/// Two processes, of which the first leads and the second is ready to.
async fn two(cluster: &Cluster) -> (Process, Process) {
    let first = Process::start(cluster, "first");
    leads(cluster, "first").await;
    let second = Process::start(cluster, "second");
    second.ready().await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_killed_leader_within_five_seconds() {
    let cluster = Cluster::new("killed").await;
    let (mut first, second) = two(&cluster).await;
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    assert_eq!(metric(second.health, "servicerelease_leader").await, 0.0);
    first.signal("-KILL");
    let killed = Instant::now();
    first.ended().await;
    cluster.set_image("shop", "shop:2").await;
    cluster
        .until("ServiceRelease", "shop", "the next action", |object| object["status"]["release"]["number"] == 2)
        .await;
    let took = killed.elapsed();
    println!("leader killed to the next action: {took:?}");
    assert!(took < 5 * SECOND, "{took:?}");
    leads(&cluster, "second").await;
    assert_eq!(metric(second.health, "servicerelease_leader").await, 1.0);
    cluster.phase("shop", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_in_order_hands_over_at_once() {
    let cluster = Cluster::new("ended").await;
    let (mut first, second) = two(&cluster).await;
    first.signal("-TERM");
    let told = Instant::now();
    assert!(first.ended().await.success());
    leads(&cluster, "second").await;
    let took = told.elapsed();
    println!("SIGTERM to the next leader: {took:?}");
    assert!(took < 2 * SECOND, "{took:?}");
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_past_its_lease_writes_nothing_more() {
    let cluster = Cluster::new("stopped").await;
    let (first, second) = two(&cluster).await;
    let mut body = release("shop");
    body["spec"]["strategy"]["canary"]["steps"] = json!([{"setWeight": 34}, {"pause": {"duration": "3s"}}]);
    cluster.create(body).await;
    cluster.phase("shop", "Healthy").await;
    cluster.set_image("shop", "shop:2").await;
    cluster.until("ServiceRelease", "shop", "the pause", |object| object["status"]["step"]["name"] == "pause").await;
    // It stops in the middle of a release, with a timer that rings while it sleeps.
    first.signal("-STOP");
    leads(&cluster, "second").await;
    cluster.phase("shop", "Healthy").await;
    let before = everything(&cluster).await;
    first.signal("-CONT");
    loses(first.health).await;
    assert_eq!(everything(&cluster).await, before);
    leads(&cluster, "second").await;
    // It stands by, in the same process.
    drop(second);
    leads(&cluster, "first").await;
    cluster.set_image("shop", "shop:3").await;
    cluster.until("ServiceRelease", "shop", "the pause", |object| object["status"]["release"]["number"] == 3).await;
    cluster.phase("shop", "Healthy").await;
}

/// Every object of the release with its version, once nothing moves any more.
async fn everything(cluster: &Cluster) -> Vec<String> {
    let look = async || {
        let mut seen = Vec::new();
        for kind in ["ServiceRelease", "ReplicaSet", "Service", "ControllerRevision"] {
            for object in cluster.list(kind).await {
                let meta = &object["metadata"];
                seen.push(format!("{kind} {} {} {}", meta["name"], meta["uid"], meta["resourceVersion"]));
            }
        }
        seen
    };
    let still = async || {
        let before = look().await;
        tokio::time::sleep(SECOND).await;
        (look().await == before).then_some(before)
    };
    until(30 * SECOND, still).await.expect("rest")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_was_taken_stands_by() {
    let cluster = Cluster::new("taken").await;
    let first = Process::start(&cluster, "first");
    leads(&cluster, "first").await;
    let taken = json!({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 60}});
    cluster.patch("Lease", LEASE, taken).await;
    let told = Instant::now();
    loses(first.health).await;
    assert!(told.elapsed() < 3 * SECOND, "{:?}", told.elapsed());
    cluster.create(release("shop")).await;
    tokio::time::sleep(2 * SECOND).await;
    let shop = cluster.get("ServiceRelease", "shop").await;
    assert!(shop["status"].is_null(), "{shop}");
    assert_eq!(cluster.get("Lease", LEASE).await["spec"]["holderIdentity"], "somebody");
    cluster.patch("Lease", LEASE, json!({"spec": {"holderIdentity": ""}})).await;
    leads(&cluster, "first").await;
    cluster.phase("shop", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_on_the_lease_does_not_end_the_leader() {
    let cluster = Cluster::new("note").await;
    let first = Process::start(&cluster, "first");
    leads(&cluster, "first").await;
    for word in ["one", "two", "three"] {
        cluster.patch("Lease", LEASE, json!({"metadata": {"annotations": {"note": word}}})).await;
    }
    let renewed = cluster.get("Lease", LEASE).await["spec"]["renewTime"].clone();
    cluster
        .until("Lease", LEASE, "another renewal", |lease| {
            lease["spec"]["renewTime"] != renewed && lease["metadata"]["annotations"]["note"] == "three"
        })
        .await;
    assert_eq!(metric(first.health, "servicerelease_leader").await, 1.0);
}

/// The kubelet would start a process that ended again, but each time later.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_the_api_server_does_not_answer_leads_again_when_it_does() {
    let cluster = Cluster::new("slow").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let settings = lease::Settings {
        namespace: cluster.namespace.clone(),
        name: LEASE.into(),
        identity: lease::identity("only"),
        seconds: 4,
        renew: SECOND,
    };
    let operator = Operator::start_as(&cluster, proxy.config(), |options| options.lease = Some(settings)).await;
    leads(&cluster, "only").await;
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    for round in 2..4 {
        let before = metric(operator.health, LOST).await;
        proxy.fate(|call| if call.path.contains("/leases") { Fate::Hang } else { Fate::Pass });
        let lost = async || (metric(operator.health, LOST).await > before).then_some(());
        until(30 * SECOND, lost).await.expect("the loss is noticed");
        cluster.set_image("shop", &format!("shop:{round}")).await;
        proxy.fate(|_| Fate::Pass);
        cluster
            .until("ServiceRelease", "shop", "the release", |object| object["status"]["release"]["number"] == round)
            .await;
        cluster.phase("shop", "Healthy").await;
    }
    operator.stop().await;
}
