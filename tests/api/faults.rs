//! Faults between the operator and the API server, at every write of a release and around it. What
//! comes of it is what comes without them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    cluster::{Cluster, SECOND, config, release, until, within},
    operator::{Operator, metric},
    proxy::{Call, FROM_THE_FUTURE, Fate, Proxy},
};

/// What was seen of a ServiceRelease, one entry for each change.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    generation: i64,
    number: i64,
    candidate: bool,
    weight: i64,
}

/// Watches a release, so that what it does on the way can be judged.
struct Witness {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    fn new(cluster: &Cluster) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let api: kube::Api<servicerelease::api::ServiceRelease> =
            kube::Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let notes = seen.clone();
        let task = tokio::spawn(async move {
            let mut events = Box::pin(kube::runtime::watcher(api, Default::default()));
            while let Some(event) = events.next().await {
                let Ok(kube::runtime::watcher::Event::Apply(object)) = event else { continue };
                let Some(status) = object.status else { continue };
                notes.lock().unwrap().push(Seen {
                    generation: status.observed_generation,
                    number: status.release.map_or(0, |release| release.number),
                    candidate: status.candidate.is_some(),
                    weight: status.weights.map_or(0, |weights| weights.desired.candidate.into()),
                });
            }
        });
        Self { seen, task }
    }

    /// observedGeneration and the release's number never fall; nor does a weight that rises once.
    fn judge(&self) {
        let seen = self.seen.lock().unwrap().clone();
        assert!(seen.len() > 2, "the witness saw nothing: {seen:?}");
        for pair in seen.windows(2) {
            let [before, after] = pair else { continue };
            assert!(before.generation <= after.generation, "{seen:#?}");
            assert!(before.number <= after.number, "{seen:#?}");
            let same = before.number == after.number && before.candidate && after.candidate;
            assert!(!same || before.weight <= after.weight, "{seen:#?}");
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// v1, then v2 by canary; the end is checked.
async fn two_releases(cluster: &Cluster) {
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    cluster.set_image("shop", "shop:2").await;
    cluster.phase("shop", "Healthy").await;
    end_is_right(cluster).await;
}

async fn end_is_right(cluster: &Cluster) {
    let object = cluster.get("ServiceRelease", "shop").await;
    let status = &object["status"];
    assert_eq!(status["release"]["number"], 2, "{object:#}");
    assert_eq!(status["stable"]["images"], json!(["shop:2"]), "{object:#}");
    let started = status["timeline"].as_array().unwrap().iter().filter(|entry| entry["type"] == "Started").count();
    assert_eq!(started, 2, "{object:#}");
    let stable = status["stable"]["revision"].as_str().unwrap().to_owned();
    let selects = |service: &Value, revision: &str| {
        service["spec"]["selector"]
            == json!({"app": "shop", "servicerelease.io/release": "shop", "servicerelease.io/revision": revision})
    };
    cluster.until("Service", "shop", "traffic on stable", |service| selects(service, &stable)).await;
    cluster.until("Service", "shop-candidate", "no candidate", |service| selects(service, "none")).await;
    let scaled = async || {
        let sets = cluster.list("ReplicaSet").await;
        let wanted = |set: &Value| if set["metadata"]["name"] == format!("shop-{stable}") { 3 } else { 0 };
        (sets.len() == 2 && sets.iter().all(|set| set["spec"]["replicas"] == wanted(set))).then_some(())
    };
    until(30 * SECOND, scaled).await.expect("two ReplicaSets, one of them empty");
    assert_eq!(cluster.list("ControllerRevision").await.len(), 2);
}

/// Each object was made once.
fn made_once(writes: &[Call]) {
    let made = |plural: &str| {
        let created = |call: &&Call| call.method == "POST" && call.path.ends_with(plural);
        writes.iter().filter(created).count()
    };
    assert_eq!((made("/replicasets"), made("/services"), made("/controllerrevisions")), (2, 2, 2), "{writes:#?}");
}

/// Fails the k-th write, counted from 0, and no other.
fn at_write(k: usize, fate: Fate) -> impl FnMut(&Call) -> Fate + Send + 'static {
    let mut writes = 0;
    move |call| {
        if !call.writes() {
            return Fate::Pass;
        }
        writes += 1;
        if writes == k + 1 { fate } else { Fate::Pass }
    }
}

/// The writes of both releases when nothing goes wrong.
async fn undisturbed() -> usize {
    let cluster = Cluster::new("undisturbed").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let _operator = Operator::start(&cluster, proxy.config()).await;
    let witness = Witness::new(&cluster);
    two_releases(&cluster).await;
    witness.judge();
    made_once(&proxy.writes());
    // With one namespace to look after it asks nothing about others, so that Roles are enough.
    let own = format!("/namespaces/{}/", cluster.namespace);
    for (call, ..) in proxy.calls() {
        assert!(call.path.contains(&own), "{call:?}");
    }
    proxy.writes().len()
}

async fn with_lost_write(k: usize, fate: Fate) {
    let cluster = Cluster::new("lost").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    proxy.fate(at_write(k, fate));
    let _operator = Operator::start(&cluster, proxy.config()).await;
    let witness = Witness::new(&cluster);
    within(90 * SECOND, &format!("{fate:?} at write {k}"), two_releases(&cluster)).await;
    witness.judge();
    made_once(&proxy.writes());
}

/// Crashes the operator at its k-th write, after or before that arrives, and starts another.
async fn with_crash(k: usize, fate: Fate) {
    let cluster = Cluster::new("crash").await;
    let first = Proxy::new(cluster.client.clone()).await;
    let dead = Arc::new(AtomicBool::new(false));
    let died = Arc::new(Notify::new());
    let mut at = at_write(k, fate);
    let (flag, tell) = (dead.clone(), died.clone());
    first.fate(move |call| {
        if flag.load(Ordering::SeqCst) {
            return Fate::Hang;
        }
        let fate = at(call);
        if fate != Fate::Pass {
            flag.store(true, Ordering::SeqCst);
            tell.notify_one();
        }
        fate
    });
    let operator = Operator::start(&cluster, first.config()).await;
    let witness = Witness::new(&cluster);
    let second = Proxy::new(cluster.client.clone()).await;
    let restart = async {
        died.notified().await;
        operator.crash();
        let _next = Operator::start(&cluster, second.config()).await;
        std::future::pending::<()>().await;
    };
    let what = format!("a crash, {fate:?}, at write {k}");
    tokio::select! {
        () = within(90 * SECOND, &what, two_releases(&cluster)) => {}
        () = restart => {}
    }
    witness.judge();
    let writes: Vec<Call> = first.writes().into_iter().chain(second.writes()).collect();
    made_once(&writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_a_release_may_get_lost_or_be_the_last() {
    let writes = undisturbed().await;
    println!("two releases, the second a canary of two steps: {writes} writes");
    let every = (0..writes).flat_map(|k| [(k, Fate::LoseRequest), (k, Fate::LoseAnswer)]);
    let done = AtomicUsize::new(0);
    stream::iter(every)
        .for_each_concurrent(8, async |(k, fate)| {
            with_lost_write(k, fate).await;
            with_crash(k, fate).await;
            done.fetch_add(2, Ordering::Relaxed);
        })
        .await;
    println!("{} runs with one fault each", done.into_inner());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_conflicts_and_errors_delays_and_changes_nothing() {
    let cluster = Cluster::new("storm").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let mut random = fastrand::Rng::with_seed(7);
    proxy.fate(move |call| match random.u8(..4) {
        0 if call.writes() => Fate::Refuse(409),
        1 if call.writes() => Fate::Refuse([429, 500, 503, 504][random.usize(..4)]),
        _ => Fate::Pass,
    });
    let _operator = Operator::start(&cluster, proxy.config()).await;
    let witness = Witness::new(&cluster);
    two_releases(&cluster).await;
    witness.judge();
    made_once(&proxy.writes());
    let refused = proxy.calls().iter().filter(|(_, fate, _)| matches!(fate, Fate::Refuse(_))).count();
    assert!(refused > 5, "only {refused} were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_never_answered_holds_up_its_own_release_only() {
    let cluster = Cluster::new("hang").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let mut hung = false;
    proxy.fate(move |call| {
        let this = call.writes() && call.path.contains("servicereleases/shop/status") && !hung;
        hung |= this;
        if this { Fate::Hang } else { Fate::Pass }
    });
    let _operator = Operator::start(&cluster, proxy.config()).await;
    cluster.create(release("shop")).await;
    cluster.create(release("other")).await;
    within(9 * SECOND, "the other release", cluster.phase("other", "Healthy")).await;
    cluster.phase("shop", "Healthy").await;
    assert_eq!(proxy.calls().iter().filter(|(_, fate, _)| *fate == Fate::Hang).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_may_break_fifty_times() {
    let cluster = Cluster::new("reset").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let operator = Operator::start(&cluster, proxy.config()).await;
    let witness = Witness::new(&cluster);
    let breaking = async {
        for _ in 0..50 {
            tokio::time::sleep(SECOND / 20).await;
            proxy.cut();
        }
    };
    tokio::join!(breaking, two_releases(&cluster));
    witness.judge();
    made_once(&proxy.writes());
    drop(operator);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_have_expired_list_again() {
    let cluster = Cluster::new("expired").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let operator = Operator::start(&cluster, proxy.config()).await;
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    // What was there until now is no longer kept; every watch that asks for it is told so, for ever,
    // in one of the ways in which API servers do.
    let oldest = cluster.patch("Service", "shop", json!({"metadata": {"annotations": {"note": "new"}}})).await;
    let oldest: u64 = oldest["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    proxy.fate(move |call| match call.resource_version() {
        Some(version) if version < oldest && call.path.ends_with("sets") => Fate::Refuse(410),
        Some(version) if version < oldest && call.path.ends_with("pods") => Fate::Refuse(FROM_THE_FUTURE),
        Some(version) if version < oldest => Fate::Expired,
        _ => Fate::Pass,
    });
    proxy.cut();
    let again = async || {
        let calls = proxy.calls();
        let anew =
            calls.iter().filter(|(call, fate, _)| *fate == Fate::Pass && call.resource_version() >= Some(oldest));
        let kinds: BTreeSet<_> = anew.map(|(call, ..)| call.path.clone()).collect();
        (kinds.len() == 11).then_some(())
    };
    until(30 * SECOND, again).await.expect("eleven watches from a newer version");
    cluster.set_image("shop", "shop:2").await;
    cluster.phase("shop", "Healthy").await;
    end_is_right(&cluster).await;
    let told = proxy.calls().iter().filter(|(_, fate, _)| *fate != Fate::Pass).count();
    assert!(told >= 8, "{told}");
    assert!(metric(operator.health, "servicerelease_watch_failures_total").await >= 8.0);
    made_once(&proxy.writes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_late_delays_and_changes_nothing() {
    for plural in ["replicasets", "servicereleases", "services", "controllerrevisions"] {
        let cluster = Cluster::new("late").await;
        let proxy = Proxy::new(cluster.client.clone()).await;
        proxy.fate(
            move |call| {
                if call.watches() && call.path.ends_with(plural) { Fate::Late(400) } else { Fate::Pass }
            },
        );
        let _operator = Operator::start(&cluster, proxy.config()).await;
        let witness = Witness::new(&cluster);
        two_releases(&cluster).await;
        witness.judge();
        made_once(&proxy.writes());
        let conflicts = proxy.calls().iter().filter(|(call, _, code)| *code == 409 && call.writes()).count();
        assert!(conflicts < 15, "{plural}: {conflicts} conflicts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_goes_silent_is_started_anew() {
    let cluster = Cluster::new("silent").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let mut first = true;
    proxy.fate(move |call| {
        let silent = first && call.watches() && call.path.ends_with("replicasets");
        first &= !silent;
        if silent { Fate::Late(3_600_000) } else { Fate::Pass }
    });
    let _operator = Operator::start(&cluster, proxy.config()).await;
    cluster.create(release("shop")).await;
    within(20 * SECOND, "a release with a silent watch", cluster.phase("shop", "Healthy")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_made_again_under_its_name_is_a_new_one() {
    let cluster = Cluster::new("again").await;
    let proxy = Proxy::new(cluster.client.clone()).await;
    let _operator = Operator::start(&cluster, proxy.config()).await;
    cluster.create(release("shop")).await;
    let old = cluster.phase("shop", "Healthy").await;
    cluster.delete("ServiceRelease", "shop").await;
    let again = async || cluster.try_create(release("shop")).await.ok();
    until(30 * SECOND, again).await.expect("the name is free");
    let new = cluster.phase("shop", "Healthy").await;
    assert_ne!(old["metadata"]["uid"], new["metadata"]["uid"]);
    assert_eq!(new["status"]["release"]["number"], 1);
    let owned = async || {
        let sets = cluster.list("ReplicaSet").await;
        let own = |set: &Value| set["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["uid"];
        (sets.len() == 1 && own(&sets[0]) && sets[0]["status"]["availableReplicas"] == 3).then_some(())
    };
    until(30 * SECOND, owned).await.expect("one ReplicaSet, owned by the new object");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_history_is_listed_again() {
    let Some(devcluster) = std::env::var_os("DEVCLUSTER_NAME") else {
        println!("skipped: only the embedded cluster (DEVCLUSTER_NAME) can be compacted");
        return;
    };
    let cluster = Cluster::alone("compact").await;
    let operator = Operator::start(&cluster, config().await).await;
    cluster.create(release("shop")).await;
    cluster.phase("shop", "Healthy").await;
    let tool = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/devcluster/devcluster");
    for arguments in [&["compact"][..], &["restart", "kube-apiserver"][..]] {
        let mut command = std::process::Command::new(&tool);
        let done = command.arg("--name").arg(&devcluster).args(arguments).status().unwrap();
        assert!(done.success(), "devcluster {arguments:?}");
    }
    let patched = async || {
        let spec = json!({"spec": {"template": crate::cluster::template("shop", "shop:2")}});
        cluster.try_patch("ServiceRelease", "shop", spec).await.ok()
    };
    until(60 * SECOND, patched).await.expect("the API server is back");
    cluster.phase("shop", "Healthy").await;
    end_is_right(&cluster).await;
    assert!(metric(operator.health, "servicerelease_watch_failures_total").await > 0.0);
}
