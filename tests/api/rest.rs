//! At rest nothing is asked and nothing is written.

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, SECOND, config, release},
    operator::{Operator, requests},
};

const RELEASES: usize = 20;

async fn make(cluster: &Cluster) {
    for number in 0..RELEASES {
        cluster.create(release(&format!("shop-{number}"))).await;
    }
    for number in 0..RELEASES {
        cluster.phase(&format!("shop-{number}"), "Healthy").await;
    }
}

/// Events about releases.
async fn told(cluster: &Cluster) -> usize {
    let about = |event: &Value| event["regarding"]["kind"] == "ServiceRelease";
    cluster.list("Event").await.iter().filter(|event| about(event)).count()
}

/// What has been asked so far, when nothing more has been for three seconds.
async fn settled(operator: &Operator) -> Vec<String> {
    let mut before = requests(operator.health).await;
    loop {
        tokio::time::sleep(3 * SECOND).await;
        let now = requests(operator.health).await;
        if now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_is_asked_but_watches() {
    let cluster = Cluster::new("rest").await;
    let operator = Operator::start(&cluster, config().await).await;
    make(&cluster).await;
    let before = settled(&operator).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(requests(operator.health).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_lists_reads_each_release_once_and_writes_nothing() {
    let cluster = Cluster::new("start").await;
    let operator = Operator::start(&cluster, config().await).await;
    make(&cluster).await;
    settled(&operator).await;
    operator.stop().await;
    let events = told(&cluster).await;
    assert!(events > RELEASES, "{events} Events of {RELEASES} releases");
    let operator = Operator::start(&cluster, config().await).await;
    let asked = settled(&operator).await;
    let others: Vec<_> = asked.iter().filter(|line| !line.contains("verb=\"list\"")).collect();
    // Who led before may have written a status that the watch has not shown yet.
    let [reads] = others.as_slice() else { panic!("{others:#?}") };
    let expected = format!("resource=\"servicereleases\",verb=\"get\"}} {RELEASES}");
    assert!(reads.ends_with(&expected), "{reads}");
    assert_eq!(told(&cluster).await, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_phase_of_a_release_is_told_in_an_event() {
    let cluster = Cluster::new("told").await;
    let _operator = Operator::start(&cluster, config().await).await;
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    let mut reasons = Vec::new();
    for _ in 0..100 {
        let events = cluster.list("Event").await;
        let about = events.iter().filter(|event| event["regarding"]["name"] == "shop");
        reasons = about.filter_map(|event| event["reason"].as_str().map(str::to_owned)).collect();
        if ["Preparing", "Promoting", "Healthy"].iter().all(|wanted| reasons.iter().any(|reason| reason == wanted)) {
            return;
        }
        tokio::time::sleep(SECOND / 10).await;
    }
    panic!("Events of {reasons:?} only");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_concern_a_release_costs_it_nothing() {
    let cluster = Cluster::new("strangers").await;
    let operator = Operator::start(&cluster, config().await).await;
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    let before = settled(&operator).await;
    let passes = crate::operator::metric(operator.health, "servicerelease_reconcile_duration_seconds_count").await;
    let pods = cluster.list("Pod").await;
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    for word in ["one", "two", "three"] {
        cluster.patch("Pod", name, json!({"metadata": {"annotations": {"note": word}}})).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": word},
            "spec": {"ports": [{"port": 80}]}});
        cluster.create(service).await;
    }
    let quiet = settled(&operator).await;
    assert_eq!(quiet, before);
    let after = crate::operator::metric(operator.health, "servicerelease_reconcile_duration_seconds_count").await;
    assert_eq!(after, passes, "passes were made for what concerns nobody");
    assert_eq!(cluster.get("Pod", name).await["metadata"]["annotations"]["note"], Value::from("three"));
}
