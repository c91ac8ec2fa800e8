//! What the CRDs let through, and what they tell.

use rstest::rstest;
use serde_json::{Value, json};

use crate::cluster::{Cluster, command, release};

/// A release with one field changed; null takes it away.
fn with(pointer: &str, value: Value) -> Value {
    let mut body = release("shop");
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}"));
    parent.as_object_mut().unwrap().insert(field.to_owned(), value);
    body
}

async fn refusal(cluster: &Cluster, body: Value) -> String {
    match cluster.try_create(body.clone()).await {
        Err(kube::Error::Api(status)) => status.message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let through: {body:#}"),
    }
}

#[rstest]
#[case("/spec/template", Value::Null, "exactly one of template and workloadRef")]
#[case("/spec/workloadRef", json!({"name": "shop"}), "exactly one of template and workloadRef")]
#[case("/spec/selector", Value::Null, "selector and template go together")]
#[case("/spec/selector/matchLabels", json!({}), "at least 1")]
#[case("/spec/selector/matchLabels", json!({"app": "other"}), "must contain every label")]
#[case("/spec/replicas", json!(-1), "greater than or equal to 0")]
#[case("/spec/strategy/canary/steps", json!([{"setWeight": 50}, {"pause": {}}, {"setWeight": 40}]), "must not fall")]
#[case("/spec/strategy/canary/steps", json!([{"setWeight": 101}]), "less than or equal to 100")]
#[case("/spec/strategy/canary/steps", json!([{"setWeight": 10, "pause": {}}]), "exactly one of setWeight, setHeaderRoute")]
#[case("/spec/strategy/canary/steps", json!([{}]), "exactly one of setWeight, setHeaderRoute")]
#[case("/spec/strategy/canary/steps", json!([{"scale": {"replicas": 1}}]), "need traffic.router")]
#[case("/spec/strategy/canary/steps", json!([{"scale": {"replicas": 1, "percent": 5}}]), "not both")]
#[case("/spec/strategy/canary/steps", json!([{"setMirrorRoute": {}}]), "need traffic.router.gateway")]
#[case("/spec/strategy/canary/steps", json!([{"setHeaderRoute": {"headers": [{"name": "a b", "value": "x"}]}}]), "should match")]
#[case("/spec/strategy/canary/dynamicStableScale", json!({"atLeast": "half"}), "0% to 100%")]
#[case("/spec/strategy/canary/steps", json!([{"pause": {"duration": "5 minutes"}}]), "should match")]
#[case("/spec/strategy/canary/steps", json!([{"pause": {"duration": 5}}]), "must be of type string")]
#[case("/spec/strategy/blueGreen", json!({}), "exactly one of canary and blueGreen")]
#[case("/spec/strategy/canary/maxSurge", json!("150%"), "0% to 100%")]
#[case("/spec/strategy/canary/maxSurge", json!(-1), "0% to 100%")]
#[case("/spec/strategy/canary/maxUnavailable", json!("some"), "0% to 100%")]
#[case("/spec/traffic/service", json!("Shop"), "should match")]
#[case("/spec/traffic/scaleDownDelay", json!("-1s"), "should match")]
#[case("/metadata/name", json!("a".repeat(53)), "at most 52 characters")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_manifest_is_refused_with_the_reason(#[case] field: &str, #[case] value: Value, #[case] reason: &str) {
    let cluster = Cluster::new("schema").await;
    let message = refusal(&cluster, with(field, value)).await;
    assert!(message.contains(reason), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_surge_and_no_unavailable_pods_are_refused_in_every_spelling() {
    let cluster = Cluster::new("zeros").await;
    for (surge, unavailable) in [(json!(0), json!(0)), (json!("0%"), json!(0)), (json!(0), json!("0%"))] {
        let mut body = release("shop");
        body["spec"]["strategy"]["canary"]["maxSurge"] = surge;
        body["spec"]["strategy"]["canary"]["maxUnavailable"] = unavailable;
        let message = refusal(&cluster, body).await;
        assert!(message.contains("cannot both be 0"), "{message}");
    }
}

#[rstest]
#[case(json!({"spec": {"selector": {"matchLabels": {"app": null, "tier": "web"}}}}), "immutable")]
#[case(json!({"spec": {"selector": {"matchLabels": {"tier": "web"}}}}), "immutable")]
#[case(json!({"spec": {"selector": null, "template": null, "workloadRef": {"name": "shop"}}}), "immutable")]
#[case(json!({"spec": {"traffic": {"service": "another"}}}), "cannot be changed")]
#[case(json!({"spec": {"traffic": null}}), "cannot be changed or removed")]
#[case(json!({"spec": {"traffic": {"candidateService": null}}}), "cannot be changed or removed")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_immutable_stays(#[case] patch: Value, #[case] reason: &str) {
    let cluster = Cluster::new("immutable").await;
    cluster.create(release("shop")).await;
    match cluster.try_patch("ServiceRelease", "shop", patch.clone()).await {
        Err(kube::Error::Api(status)) => assert!(status.message.contains(reason), "{}", status.message),
        other => panic!("{patch}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_cannot_be_added_to_an_adopting_release() {
    let cluster = Cluster::new("added").await;
    let body = json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease", "metadata": {"name": "shop"},
        "spec": {"workloadRef": {"name": "shop"}},
    });
    cluster.create(body).await;
    let inline = release("shop");
    let patch = json!({"spec": {"workloadRef": null, "selector": inline["spec"]["selector"],
        "template": inline["spec"]["template"]}});
    match cluster.try_patch("ServiceRelease", "shop", patch).await {
        Err(kube::Error::Api(status)) => assert!(status.message.contains("immutable"), "{}", status.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_filled_in() {
    let cluster = Cluster::new("defaults").await;
    let mut body = release("shop");
    body["spec"]["traffic"] = json!({"service": "shop"});
    body["spec"]["strategy"] = json!({"canary": {"maxSurge": null}});
    let spec = &cluster.create(body).await["spec"];
    assert_eq!(spec["minReadySeconds"], 0);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["revisionHistoryLimit"], 5);
    assert_eq!(spec["paused"], false);
    assert_eq!(spec["rollback"]["automatic"], true);
    assert_eq!(spec["traffic"]["scaleDownDelay"], "30s");
    assert_eq!(spec["strategy"]["canary"]["maxSurge"], "25%");
    assert_eq!(spec["strategy"]["canary"]["maxUnavailable"], 0);
    let mut adopting = release("adopting");
    adopting["spec"] = json!({"workloadRef": {"name": "shop"}});
    let spec = &cluster.create(adopting).await["spec"];
    assert_eq!(spec["workloadRef"], json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_refused_by_strict_clients_and_warned_of_to_others() {
    let cluster = Cluster::new("unknown").await;
    let file = std::env::temp_dir().join(format!("{}.json", cluster.namespace));
    std::fs::write(&file, with("/spec/databse", json!({})).to_string()).unwrap();
    let path = file.to_str().unwrap();
    let strict = cluster.kubectl(&["apply", "--validate=strict", "-f", path]);
    assert!(!strict.status.success());
    let told = String::from_utf8_lossy(&strict.stderr).into_owned();
    assert!(told.contains("databse"), "{told}");
    let warned = cluster.kubectl(&["apply", "--validate=warn", "-f", path]);
    assert!(warned.status.success(), "{warned:?}");
    let told = String::from_utf8_lossy(&warned.stderr).into_owned();
    assert!(told.contains("unknown field \"spec.databse\""), "{told}");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_specs_are_kept_as_they_are() {
    let cluster = Cluster::new("kept").await;
    let mut body = release("shop");
    body["spec"]["template"]["spec"]["someDay"] = json!({"new": [1, 2.5, "x"]});
    let made = cluster.create(body.clone()).await;
    assert_eq!(made["spec"]["template"], body["spec"]["template"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_something_about_every_field() {
    let cluster = Cluster::new("explain").await;
    for (field, word) in [
        ("servicerelease.spec.strategy.canary.steps.setWeight", "Percent of the traffic"),
        ("servicerelease.spec.traffic.candidateService", "selects the candidate only"),
        ("servicerelease.status.phase", "in a word"),
        ("releasecommand.spec.action", "What to do"),
    ] {
        let output = cluster.kubectl(&["explain", field]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(word), "{field}: {text}");
    }
    for crd in crate::cluster::crds() {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut mute = Vec::new();
        undescribed(schema, "", &mut mute);
        assert!(mute.is_empty(), "without a description: {mute:#?}");
    }
}

fn undescribed(schema: &Value, path: &str, mute: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if field["description"].is_null() && !path.starts_with(".metadata") {
            mute.push(path.clone());
        }
        undescribed(field, &path, mute);
        undescribed(&field["items"], &path, mute);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_answer_the_first_questions() {
    let cluster = Cluster::new("columns").await;
    cluster.create(release("shop")).await;
    let head = |arguments: &[&str]| {
        let output = cluster.kubectl(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(head(&["get", "srel"]), "NAME PHASE STEP WEIGHT REASON AGE");
    let wide = head(&["get", "srel", "-o", "wide"]);
    assert_eq!(wide, "NAME PHASE STEP WEIGHT REASON AGE RELEASE STABLE CANDIDATE READY MESSAGE");
}

#[rstest]
#[case("Promote", json!({}), "revision is required")]
#[case("Abort", json!({"full": true}), "full goes with Promote only")]
#[case("Abort", json!({"toRevision": "abc"}), "toRevision goes with Undo only")]
#[case("Pause", json!({"approval": {"kind": "Step"}}), "approval goes with Approve only")]
#[case("Explode", json!({}), "Unsupported value")]
#[case("Abort", json!({"step": 0}), "greater than or equal to 1")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_is_refused(#[case] action: &str, #[case] more: Value, #[case] reason: &str) {
    let cluster = Cluster::new("command").await;
    let mut body = command("word", "shop", action);
    body["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let message = refusal(&cluster, body).await;
    assert!(message.contains(reason), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_immutable() {
    let cluster = Cluster::new("frozen").await;
    cluster.create(command("word", "shop", "Abort")).await;
    match cluster.try_patch("ReleaseCommand", "word", json!({"spec": {"action": "Undo"}})).await {
        Err(kube::Error::Api(status)) => assert!(status.message.contains("immutable"), "{}", status.message),
        other => panic!("{other:?}"),
    }
}
