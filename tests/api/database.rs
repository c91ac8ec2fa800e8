//! What the database's work asks of the API server: Jobs that outlive their ServiceRelease, reports, and keys of
//! ConfigMaps. Another mind than the engine's says what is wanted, so that each is tried by itself.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use servicerelease::{
    api::{Duration, RunnerPod, ServiceRelease},
    checks::AllowedHosts,
    controller::{jobs::Runner, reconcile::Decide},
    engine::{
        DatabaseJob, Decision, Effect, Job, NewJob, ObjectVersion, Observed, Run, Task, TaskPod, Wrapped,
        observed::ConfigMap,
    },
};

use crate::{
    cluster::{Cluster, SECOND, release, until},
    operator::Operator,
    proxy::{Call, Fate, Proxy},
};

/// What the last pass saw.
type Eyes = Arc<Mutex<Observed>>;

/// A mind that wants some effects of what it sees, and nothing else.
fn mind(wants: impl Fn(&ServiceRelease, &Observed) -> Vec<Effect> + Send + Sync + 'static) -> (Decide, Eyes) {
    let eyes = Eyes::default();
    let seen = eyes.clone();
    let decide: Decide = Arc::new(move |release, observed, _| {
        *seen.lock().unwrap() = observed.clone();
        let status = release.status.clone().unwrap_or_default();
        Decision { status, after: wants(release, observed), ..Decision::default() }
    });
    (decide, eyes)
}

async fn operator(cluster: &Cluster, proxy: &Proxy, decide: Decide) -> Operator {
    Operator::start_as(cluster, proxy.config(), |options| {
        options.decide = decide;
        options.runner = Some(Runner {
            image: "operator:1".into(),
            pull_policy: "IfNotPresent".into(),
            allowed_hosts: AllowedHosts::default(),
        });
    })
    .await
}

/// Waits until something is seen.
async fn sees<T>(eyes: &Eyes, what: &str, look: impl Fn(&Observed) -> Option<T>) -> T {
    let found = until(30 * SECOND, async || look(&eyes.lock().unwrap())).await;
    found.unwrap_or_else(|| panic!("{what} was not seen: {:#?}", eyes.lock().unwrap()))
}

fn switches(label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "switches", "labels": {"servicerelease.io/release": label}},
        "data": {"beta": "off", "old": "1"}})
}

/// Sets beta and takes old away, unless that is so.
fn set(map: &ConfigMap) -> Option<Effect> {
    let wanted = map.data.get("beta").is_none_or(|beta| beta != "on") || map.data.contains_key("old");
    let values = [("beta".to_owned(), Some("on".to_owned())), ("old".to_owned(), None)].into();
    wanted.then(|| Effect::SetKeys { object: map.object.clone(), values })
}

/// Only where spec.paused says that it may.
fn set_when_told(release: &ServiceRelease, observed: &Observed) -> Vec<Effect> {
    let told = release.spec.paused;
    observed.config_maps.iter().filter(|_| told).filter_map(set).collect()
}

fn sets_keys(call: &Call) -> bool {
    call.method == "PATCH" && call.path.contains("/configmaps/")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_set_on_what_somebody_else_has_changed_since_and_nothing_of_theirs_is_lost() {
    let cluster = Cluster::new("keys").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    proxy.fate(|call| match call.watches() && call.path.ends_with("/configmaps") {
        true => Fate::Late(600),
        false => Fate::Pass,
    });
    let (decide, eyes) = mind(set_when_told);
    let _operator = operator(&cluster, &proxy, decide).await;
    cluster.create(switches("shop")).await;
    cluster.create(release("shop")).await;
    sees(&eyes, "the ConfigMap", |observed| observed.config_maps.first().cloned()).await;
    cluster.patch("ConfigMap", "switches", json!({"data": {"theirs": "x"}})).await;
    cluster.patch("ServiceRelease", "shop", json!({"spec": {"paused": true}})).await;
    let is_set = |map: &Value| map["data"] == json!({"beta": "on", "theirs": "x"});
    cluster.until("ConfigMap", "switches", "both", is_set).await;
    let codes: Vec<u16> = proxy.calls().iter().filter(|(call, ..)| sets_keys(call)).map(|(_, _, code)| *code).collect();
    let (last, before) = codes.split_last().unwrap();
    assert!(*last == 200 && !before.is_empty() && before.iter().all(|code| *code == 409), "{codes:?}");
    let ours = ["beta".to_owned()].into();
    sees(&eyes, "whose keys they are", |seen| seen.config_maps.iter().find(|map| map.ours == ours).cloned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_whose_answer_was_lost_are_not_set_again() {
    let cluster = Cluster::new("keys-lost").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let mut lost = false;
    proxy.fate(move |call| match sets_keys(call) && !std::mem::replace(&mut lost, true) {
        true => Fate::LoseAnswer,
        false => Fate::Pass,
    });
    let (decide, eyes) = mind(set_when_told);
    let _operator = operator(&cluster, &proxy, decide).await;
    cluster.create(switches("shop")).await;
    let mut paused = release("shop");
    paused["spec"]["paused"] = json!(true);
    cluster.create(paused).await;
    sees(&eyes, "the change", |observed| observed.config_maps.iter().find(|map| map.data["beta"] == "on").cloned())
        .await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(proxy.calls().iter().filter(|(call, ..)| sets_keys(call)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_of_another_release_is_neither_seen_nor_written() {
    let cluster = Cluster::new("keys-foreign").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let made = cluster.create(switches("other")).await;
    let text = |field: &str| made["metadata"][field].as_str().unwrap().to_owned();
    let object = ObjectVersion { name: text("name"), uid: text("uid"), resource_version: text("resourceVersion") };
    let map = ConfigMap { object, data: Default::default(), ..ConfigMap::default() };
    let (decide, eyes) = mind(move |_, _| set(&map).into_iter().collect());
    let _operator = operator(&cluster, &proxy, decide).await;
    cluster.create(release("shop")).await;
    let conflicts = async || {
        let passes = crate::operator::metric(_operator.health, "servicerelease_reconcile_duration_seconds_count").await;
        (passes > 5.0).then_some(())
    };
    until(30 * SECOND, conflicts).await.expect("some passes");
    assert_eq!(eyes.lock().unwrap().config_maps, []);
    assert_eq!(proxy.calls().iter().filter(|(call, ..)| sets_keys(call)).count(), 0);
    assert_eq!(cluster.get("ConfigMap", "switches").await["data"], made["data"]);

    // The label is its owner's word, and it can be given later.
    cluster
        .patch("ConfigMap", "switches", json!({"metadata": {"labels": {"servicerelease.io/release": "shop"}}}))
        .await;
    sees(&eyes, "the ConfigMap", |observed| observed.config_maps.first().cloned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_config_map_is_told_in_the_api_servers_words() {
    let cluster = Cluster::new("keys-fixed").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let (decide, eyes) = mind(|_, observed| observed.config_maps.iter().filter_map(set).collect());
    let _operator = operator(&cluster, &proxy, decide).await;
    let mut fixed = switches("shop");
    fixed["immutable"] = json!(true);
    cluster.create(fixed).await;
    cluster.create(release("shop")).await;
    let told = sees(&eyes, "the refusal", |observed| observed.refusal.clone()).await.text;
    assert!(told.contains("ConfigMap") && told.contains("immutable"), "{told}");
}

fn database(task: Option<Task>, pod: TaskPod) -> DatabaseJob {
    let url = json!({"secretKeyRef": {"name": "db", "key": "URL"}});
    DatabaseJob {
        task,
        pod,
        url: serde_json::from_value(url).unwrap(),
        ca: None,
        scratch: None,
        down_files: None,
        seed_files: None,
        maps: Vec::new(),
        files: Some("migrations".into()),
        backups: serde_json::from_value(json!({"claimName": "backups", "subPath": "shop"})).unwrap(),
        runner: RunnerPod::default(),
    }
}

fn wrap() -> Task {
    Task::Wrap(Wrapped {
        attempt: 1,
        plan: "p".into(),
        release: "ns/shop#1".into(),
        again: false,
        meant: servicerelease::engine::Meant::default(),
        lock_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        seed: None,
    })
}

/// A pod of the user's under the restricted standard.
fn tool() -> Value {
    json!({"spec": {
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "tool", "image": "tool:1", "command": ["migrate"], "args": ["-database", "$(DATABASE_URL)"],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }})
}

/// One whose pod does not end by itself on a simulated node.
fn migrate() -> DatabaseJob {
    let mut template = tool();
    template["metadata"] = json!({"annotations": {"devcluster/simulate": "imagepull"}});
    DatabaseJob { backups: None, ..database(Some(wrap()), TaskPod::Wrapped { template, image: None }) }
}

fn create(name: &str, job: DatabaseJob, owned: bool) -> Effect {
    Effect::CreateJob(Box::new(NewJob {
        name: name.into(),
        run: Run::Database(Box::new(job)),
        timeout: Duration::from_secs(600),
        env: Vec::new(),
        never: Default::default(),
        owned,
    }))
}

/// Creates those that are not there.
fn missing(observed: &Observed, jobs: Vec<(&str, DatabaseJob, bool)>) -> Vec<Effect> {
    let is_new = |name: &str| observed.jobs.iter().all(|job| job.object.name != name);
    let wanted = jobs.into_iter().filter(|(name, ..)| is_new(name));
    wanted.map(|(name, job, owned)| create(name, job, owned)).collect()
}

/// The pod of a Job, once there is one.
async fn pod_of(cluster: &Cluster, job: &str) -> Value {
    let found = async || {
        let pods = cluster.list("Pod").await;
        pods.into_iter().find(|pod| pod["metadata"]["labels"]["servicerelease.io/job"] == job)
    };
    until(30 * SECOND, found).await.unwrap_or_else(|| panic!("no pod of {job}"))
}

/// Ends the pod of a Job as its kubelet would.
async fn end(cluster: &Cluster, job: &str, code: i32, message: &str) {
    let pod = pod_of(cluster, job).await;
    let name = pod["metadata"]["name"].as_str().unwrap();
    cluster.until("Pod", name, "its start", |pod| !pod["status"]["containerStatuses"].is_null()).await;
    let now = "2026-01-01T00:00:00Z";
    let end = json!({"exitCode": code, "reason": "R", "message": message, "startedAt": now, "finishedAt": now});
    let container = json!({"name": "tool", "image": "tool:1", "imageID": "x", "ready": false, "restartCount": 0,
        "state": {"terminated": end}});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    cluster.patch_status("Pod", name, json!({"status": {"phase": phase, "containerStatuses": [container]}})).await;
}

fn ended(observed: &Observed, name: &str) -> Option<Job> {
    observed.jobs.iter().find(|job| job.object.name == name && job.end.is_some()).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_outlives_its_release_and_is_not_taken_for_that_of_the_next() {
    let cluster = Cluster::new("outlives").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let (decide, eyes) =
        mind(|_, observed| missing(observed, vec![("stays", migrate(), false), ("goes", migrate(), true)]));
    let first = operator(&cluster, &proxy, decide).await;
    let made = cluster.create(release("shop")).await;
    let both = |observed: &Observed| (observed.jobs.len() == 2).then_some(());
    sees(&eyes, "both Jobs", both).await;
    first.stop().await;
    cluster.delete("ServiceRelease", "shop").await;
    cluster.until("Job", "goes", "its end with the release", Value::is_null).await;
    let stays = cluster.get("Job", "stays").await;
    assert_eq!(stays["metadata"]["annotations"]["servicerelease.io/owner-uid"], made["metadata"]["uid"]);
    assert_eq!(stays["metadata"].get("deletionTimestamp"), None);
    end(&cluster, "stays", 0, "{}").await;

    let (decide, eyes) = mind(|_, observed| missing(observed, vec![("stays", migrate(), false)]));
    let _second = operator(&cluster, &proxy, decide).await;
    cluster.create(release("shop")).await;
    let told = sees(&eyes, "the refusal", |observed| observed.refusal.clone()).await.text;
    assert!(told.contains("was not made for this ServiceRelease"), "{told}");
    assert_eq!(eyes.lock().unwrap().jobs, []);
    cluster.delete("Job", "stays").await;
    sees(&eyes, "its own", |observed| observed.jobs.first().cloned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_reports_is_seen_with_the_end_of_its_job() {
    let cluster = Cluster::new("reports").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let jobs = || vec![("good", migrate(), false), ("bad", migrate(), false), ("silent", migrate(), false)];
    let (decide, eyes) = mind(move |_, observed| missing(observed, jobs()));
    let _operator = operator(&cluster, &proxy, decide).await;
    cluster.create(release("shop")).await;
    let report = json!({"outcome": "Done", "message": "x".repeat(500), "applied": ["001_a.sql"]}).to_string();
    for (job, code, message) in
        [("good", 0, report.as_str()), ("bad", 1, "{\"outcome\":\"Failed\"}"), ("silent", 137, "")]
    {
        end(&cluster, job, code, message).await;
        let end = sees(&eyes, job, |observed| ended(observed, job)).await.end.unwrap();
        assert_eq!(end.succeeded, code == 0);
        assert_eq!(end.report.unwrap_or_default(), message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_kind_of_pod_under_the_restricted_standard() {
    let cluster = Cluster::new("pods").await;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    assert!(cluster.kubectl(&["label", "namespace", &cluster.namespace, label]).status.success());
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}});
    let claim =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "backups"}, "spec": claim});
    cluster.create(claim).await;
    let check = serde_json::from_value(json!({ "template": tool() })).unwrap();
    let backup = Task::Backup {
        release: String::new(),
        name: "shop-1".into(),
        of: "ns/shop".into(),
        proof: true,
        keep: Some(7),
        max_age: None,
        spared: None,
        proven: None,
        rehearsed: false,
    };
    let jobs = vec![
        ("own", database(Some(backup), TaskPod::Own), false),
        ("wrapped", database(Some(wrap()), TaskPod::Wrapped { template: tool(), image: None }), false),
        ("users", database(None, TaskPod::User(check)), true),
    ];
    let (decide, eyes) = mind(move |_, observed| missing(observed, jobs.clone()));
    let proxy = Proxy::new(cluster.client.clone()).await;
    let _operator = operator(&cluster, &proxy, decide).await;
    cluster.create(release("shop")).await;
    for job in ["own", "wrapped", "users"] {
        pod_of(&cluster, job).await;
    }
    // A claim that nobody binds is told by the scheduler, and not waited for in silence.
    let stuck = |observed: &Observed| observed.jobs.iter().find(|job| job.object.name == "own")?.stuck.clone();
    let told = sees(&eyes, "why the backup does not run", stuck).await;
    assert!(told.contains("PersistentVolumeClaim"), "{told}");
    assert_eq!(eyes.lock().unwrap().refusal, None);
}
