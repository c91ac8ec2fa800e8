//! What one object has done to it hurts no other.

use std::sync::Arc;

use serde_json::{Value, json};
use servicerelease::engine;

use crate::{
    cluster::{Cluster, apply_crd, config, crds, install_crds, release},
    operator::{Operator, metric},
};

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_does_not_parse_is_told_so_and_hurts_no_other() {
    let cluster = Cluster::alone("garbage").await;
    let mut loose = crds().remove(0);
    let schema = &mut loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    apply_crd(&cluster.client, loose).await;
    let mut garbage = release("garbage");
    garbage["spec"]["strategy"]["canary"]["steps"] = json!([{"setWeight": "a lot"}]);
    let made = async || cluster.try_create(garbage.clone()).await.ok();
    crate::cluster::until(crate::cluster::SECOND * 20, made).await.expect("a CRD that lets it through");
    let operator = Operator::start(&cluster, config().await).await;
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    let told = cluster.phase("garbage", "Invalid").await;
    let message = told["status"]["message"].as_str().unwrap();
    assert!(message.contains("spec.strategy.canary.steps[0].setWeight"), "{message}");
    assert_eq!(condition(&told, "Stalled")["status"], "True");
    assert_ne!(told["status"]["nextAction"], "");

    // It is told once, and read again when it is corrected.
    operator.stop().await;
    let operator = Operator::start(&cluster, config().await).await;
    let steps = json!({"spec": {"strategy": {"canary": {"steps": [{"setWeight": 50}]}}}});
    let before = cluster.get("ServiceRelease", "garbage").await;
    assert_eq!(before["metadata"]["resourceVersion"], told["metadata"]["resourceVersion"]);
    cluster.patch("ServiceRelease", "garbage", steps).await;
    cluster.phase("garbage", "Healthy").await;
    assert_eq!(metric(operator.health, "servicerelease_reconcile_panics_total").await, 0.0);
    install_crds(&cluster.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_the_api_server_refuses_is_invalid_at_once_and_leaves_nothing_behind() {
    let cluster = Cluster::new("refused").await;
    let operator = Operator::start(&cluster, config().await).await;
    cluster.create(release("shop")).await;
    let before = cluster.phase("shop", "Healthy").await;
    for (field, value) in [("restartPolicy", "Never"), ("restartPolice", "Always")] {
        let template = json!({"spec": {"template": {"spec": {field: value}}}});
        cluster.patch("ServiceRelease", "shop", template).await;
        let told = cluster.phase("shop", "Invalid").await;
        let message = told["status"]["message"].as_str().unwrap();
        assert!(message.contains(field), "{message}");
        assert_eq!(told["status"]["stable"], before["status"]["stable"]);
        assert_eq!(told["status"]["release"], before["status"]["release"]);
        assert_eq!(cluster.list("ReplicaSet").await.len(), 1);
        assert_eq!(cluster.list("ControllerRevision").await.len(), 1);
        let back = json!({"spec": {"template": {"spec": {field: null}}}});
        cluster.patch("ServiceRelease", "shop", back).await;
        cluster.phase("shop", "Healthy").await;
    }
    assert_eq!(metric(operator.health, "servicerelease_reconcile_errors_total").await, 0.0, "it is no failed pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_another_version_is_left_as_it_is() {
    let cluster = Cluster::new("status").await;
    cluster.create(release("shop")).await;
    // A time that the schema lets through and no program can read.
    let status = json!({"phase": "Progressing", "step": {"index": 1, "of": 2, "name": "pause", "summary": "1/2 pause",
        "startedAt": "2026-01-01T00:00:00+99:99"}});
    let output = cluster.kubectl(&[
        "patch",
        "servicerelease",
        "shop",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &json!({ "status": status }).to_string(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let _operator = Operator::start(&cluster, config().await).await;
    let told = cluster
        .until("ServiceRelease", "shop", "word of the status", |object| {
            object["status"]["reason"] == "StatusNotUnderstood"
        })
        .await;
    assert_eq!(told["status"]["phase"], "Progressing");
    assert_eq!(told["status"]["step"], status["step"]);
    assert!(told["status"]["message"].as_str().unwrap().contains("status.step.startedAt"));
    assert!(cluster.list("ReplicaSet").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_panics_is_told_and_hurts_no_other() {
    let cluster = Cluster::new("panic").await;
    let decide: servicerelease::controller::reconcile::Decide = Arc::new(|release, observed, now| {
        assert!(release.metadata.name.as_deref() != Some("bad"), "no idea what to do");
        engine::decide(release, observed, now)
    });
    let operator = Operator::start_with(&cluster, config().await, decide).await;
    cluster.create(release("bad")).await;
    let told = cluster
        .until("ServiceRelease", "bad", "word of the panic", |object| object["status"]["reason"] == "InternalError")
        .await;
    assert!(told["status"]["message"].as_str().unwrap().contains("no idea what to do"));
    let states = ["Ready", "Reconciling", "Stalled"].map(|kind| condition(&told, kind)["status"].clone());
    assert_eq!(states, ["False", "False", "True"]);
    cluster.create(release("good")).await;
    cluster.phase("good", "Healthy").await;
    assert!(metric(operator.health, "servicerelease_reconcile_panics_total").await >= 1.0);
    let after = cluster.get("ServiceRelease", "bad").await;
    assert_eq!(after["metadata"]["resourceVersion"], told["metadata"]["resourceVersion"]);
    operator.stop().await;
}
