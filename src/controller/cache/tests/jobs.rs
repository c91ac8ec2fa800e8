//! Jobs that work on a database, what their pods report, and the ConfigMaps that a release may set.

use super::*;
use crate::engine::{Job, JobPod, Observed};

const MIGRATE: &str = "shop-migrate-abc";

fn observed(world: &World) -> Observed {
    let object = world.releases.get(&key("shop")).unwrap().object.clone().unwrap();
    observe::observe(world, &key("shop"), &object).observed
}

fn only(world: &World) -> Job {
    let jobs = observed(world).jobs;
    <[Job; 1]>::try_from(jobs).unwrap_or_else(|jobs| panic!("{jobs:?}"))[0].clone()
}

/// A Job of the release that no object owns, which has ended unless it is still running.
fn migrate(uid: &str, ended: Option<&str>) -> Value {
    let more = json!({
        "labels": {"servicerelease.io/release": "shop", "servicerelease.io/job": MIGRATE},
        "annotations": {"servicerelease.io/owner-uid": uid, "servicerelease.io/reports": "tool"},
    });
    let conditions = ended.map(|kind| {
        json!([{"type": kind, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:01:00Z"}])
    });
    json!({"metadata": meta(MIGRATE, 10, more), "status": {"conditions": conditions}})
}

/// Its pod, as the kubelet reports it.
fn pod(name: &str, created: &str, status: Value) -> Value {
    let mut body = json!({"metadata": meta(name, 11, json!({
        "labels": {"servicerelease.io/release": "shop", "servicerelease.io/job": MIGRATE},
        "annotations": {"servicerelease.io/reports": "tool"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "uid": format!("uid-{MIGRATE}"), "controller": true}],
    })), "status": status});
    body["metadata"]["creationTimestamp"] = json!(created);
    body
}

/// The status of a pod whose containers have ended; that of the proxy comes first, since the kubelet sorts them.
fn ended(code: i32, message: &str) -> Value {
    let end = |name: &str, code: i32, message: &str| json!({"name": name, "state": {"terminated": {"exitCode": code, "reason": "R", "message": message}}});
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [end("a-proxy", 0, "bye"), end("tool", code, message)],
    })
}

fn with_release() -> World {
    let mut world = world();
    put::<CachedRelease>(&mut world, release("shop", 1, inline("shop", "web")));
    world
}

#[test]
fn a_report_is_told_whole_and_as_it_is() {
    let mut world = with_release();
    let report = format!("{{\"outcome\":\"Done\",\"message\":\"{}  two\nlines\"}}", "x".repeat(1_500));
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Complete")));
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", ended(0, &report)));
    let end = only(&world).end.unwrap();
    assert!(end.succeeded);
    assert_eq!(end.report.as_deref(), Some(report.as_str()));
}

#[test]
fn a_job_that_says_nothing_has_no_report() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Failed")));
    let end = only(&world).end.unwrap();
    assert_eq!((end.report, end.message.as_str()), (None, "R: m"), "its pod is gone");
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", ended(137, "")));
    let end = only(&world).end.unwrap();
    assert_eq!((end.report, end.message.as_str()), (None, "exit code 137"));
}

#[test]
fn a_pod_that_was_taken_from_its_node_is_told_as_such() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Failed")));
    let mut evicted = ended(143, "");
    evicted["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", evicted));
    let end = only(&world).end.unwrap();
    assert_eq!((end.report, end.message.as_str()), (None, "its pod was taken from its node: exit code 143"));
}

#[test]
fn the_message_of_a_check_is_no_report() {
    let mut world = with_release();
    let mut check = migrate("uid-shop", Some("Complete"));
    let mut of_check = pod("p-1", "2026-01-01T00:00:01Z", ended(0, "p95 was 9ms"));
    for body in [&mut check, &mut of_check] {
        body["metadata"]["annotations"].as_object_mut().unwrap().remove("servicerelease.io/reports");
    }
    put::<CachedJob>(&mut world, check);
    put::<CachedPod>(&mut world, of_check);
    assert_eq!(only(&world).end.unwrap().report, None);
    assert_eq!(world.pods.get(&key("p-1")).unwrap().report, None, "and it is not kept");
}

#[test]
fn a_password_that_a_pod_left_in_a_url_is_not_told() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Failed")));
    assert_eq!(only(&world).pod, JobPod::NotYet);
    let said = format!("+ curl postgres://shop:s3cret{}@db/shop", "x".repeat(300));
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", ended(1, &said)));
    let job = only(&world);
    assert_eq!(
        (job.end.unwrap().message.as_str(), job.pod),
        ("exit code 1: + curl postgres://shop:***@db/shop", JobPod::Over)
    );
}

#[rstest::rstest]
#[case::it_was_just_made(json!({}), JobPod::NotYet)]
#[case::it_never_had_one(json!({"conditions": [{"type": "FailureTarget", "status": "True"}], "failed": 0}), JobPod::NotYet)]
#[case::it_ran(json!({"active": 1}), JobPod::Gone)]
#[case::it_is_being_ended(json!({"active": 0, "terminating": 1}), JobPod::Gone)]
#[case::it_is_not_counted_yet(json!({"uncountedTerminatedPods": {"failed": ["uid-1"]}}), JobPod::Gone)]
#[case::it_was_counted(json!({"failed": 1}), JobPod::Gone)]
fn a_job_without_a_pod_that_had_one_is_told_from_one_that_never_had(#[case] status: Value, #[case] pod: JobPod) {
    let mut world = with_release();
    let mut job = migrate("uid-shop", None);
    job["status"] = status;
    put::<CachedJob>(&mut world, job);
    assert_eq!(only(&world).pod, pod);
}

#[test]
fn a_pod_whose_time_was_over_says_so_before_its_own_words() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Failed")));
    let mut late = ended(105, "p95 was 9ms");
    late["reason"] = json!("DeadlineExceeded");
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", late));
    assert_eq!(only(&world).end.unwrap().message, "its time was over: exit code 105: p95 was 9ms");
}

#[test]
fn a_container_that_never_was_has_no_last_words() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Failed")));
    let mut late = ended(137, "The container could not be located when the pod was terminated");
    late["reason"] = json!("DeadlineExceeded");
    for container in late["containerStatuses"].as_array_mut().unwrap() {
        container["state"]["terminated"]["reason"] = json!("ContainerStatusUnknown");
    }
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", late));
    assert_eq!(only(&world).end.unwrap().message, "R: m", "the Job's own");
}

#[test]
fn a_container_that_keeps_the_pod_of_a_job_from_ending_is_named() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", None));
    let mut beside = ended(0, "{}");
    beside["phase"] = json!("Running");
    beside["containerStatuses"][0]["state"] = json!({"running": {}});
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", beside));
    let told =
        "container a-proxy goes on although the work is done: make it an init container with restartPolicy: Always";
    assert_eq!(only(&world).stuck.as_deref(), Some(told));
}

#[test]
fn a_job_has_not_ended_before_its_pod_has() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Failed")));
    let running = json!({"phase": "Running", "containerStatuses": [{"name": "tool", "state": {"running": {}}}]});
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", running));
    assert_eq!(only(&world).end, None, "the Job's deadline is over, and its pod is about to say what it did");
    let woken = put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", ended(1, "{}")));
    assert_eq!(woken, keys(&["shop"]));
    assert_eq!(only(&world).end.unwrap().report.as_deref(), Some("{}"));
}

#[test]
fn of_several_pods_the_newest_counts() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Complete")));
    put::<CachedPod>(&mut world, pod("a-new", "2026-01-01T00:00:09Z", ended(0, "new")));
    put::<CachedPod>(&mut world, pod("b-old", "2026-01-01T00:00:01Z", ended(143, "old")));
    assert_eq!(only(&world).end.unwrap().report.as_deref(), Some("new"));
}

#[test]
fn a_job_that_outlived_another_object_of_the_name_is_not_this_ones() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-of-another", None));
    assert_eq!(observed(&world).jobs, []);
    put::<CachedJob>(&mut world, migrate("uid-shop", None));
    assert_eq!(only(&world).object.name, MIGRATE);
    let mut of_a_cron_job = migrate("uid-shop", None);
    of_a_cron_job["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "batch/v1", "kind": "CronJob", "uid": "c", "controller": true}]);
    put::<CachedJob>(&mut world, of_a_cron_job);
    assert_eq!(observed(&world).jobs, [], "whatever its annotation says");
}

#[test]
fn an_init_container_that_cannot_bring_the_program_is_named() {
    let mut world = with_release();
    put::<CachedJob>(&mut world, migrate("uid-shop", None));
    let waiting = |init: Value| {
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "servicerelease-runner", "state": init}],
            "containerStatuses": [{"name": "tool", "state": {"waiting": {"reason": "PodInitializing"}}}]})
    };
    let stuck = |world: &mut World, init: Value| {
        put::<CachedPod>(world, pod("p-1", "2026-01-01T00:00:01Z", waiting(init)));
        only(world).stuck
    };
    assert_eq!(stuck(&mut world, json!({"running": {}})), None, "it is on its way");
    let pull = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let told = "init container servicerelease-runner, of the operator's image: ImagePullBackOff: no such image";
    assert_eq!(stuck(&mut world, pull).as_deref(), Some(told));
    let mut failed = waiting(json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "install: no space"}}));
    failed["phase"] = json!("Failed");
    put::<CachedPod>(&mut world, pod("p-1", "2026-01-01T00:00:01Z", failed));
    put::<CachedJob>(&mut world, migrate("uid-shop", Some("Failed")));
    let end = only(&world).end.unwrap();
    let told = "init container servicerelease-runner, of the operator's image: exit code 1: install: no space";
    assert_eq!((end.message.as_str(), end.report), (told, None));
}

fn switches(version: u64, release: &str, data: Value) -> Value {
    json!({"metadata": meta("switches", version, json!({"labels": {"servicerelease.io/release": release}})), "data": data})
}

#[test]
fn config_maps_are_seen_by_the_release_that_their_label_names() {
    let mut world = with_release();
    assert_eq!(put::<CachedConfigMap>(&mut world, switches(1, "shop", json!({"beta": "off"}))), keys(&["shop"]));
    let maps = observed(&world).config_maps;
    assert_eq!((maps[0].object.resource_version.as_str(), maps[0].data["beta"].as_str()), ("1", "off"));
    assert!(put::<CachedConfigMap>(&mut world, switches(2, "shop", json!({"beta": "off"}))).is_empty());
    assert_eq!(put::<CachedConfigMap>(&mut world, switches(3, "other", json!({}))), keys(&["shop", "other"]));
    assert_eq!(observed(&world).config_maps, []);
    let mut nobodys = switches(4, "shop", json!({}));
    nobodys["metadata"]["labels"] = json!({});
    assert_eq!(put::<CachedConfigMap>(&mut world, nobodys), keys(&["other"]));
    assert_eq!(world.config_maps.iter().count(), 0);
}

#[test]
fn a_long_value_of_a_config_map_is_not_kept() {
    let mut world = with_release();
    put::<CachedConfigMap>(&mut world, switches(1, "shop", json!({"file": "x".repeat(100_000), "beta": "on"})));
    let data = &observed(&world).config_maps[0].data;
    assert_eq!((data["beta"].as_str(), data["file"].chars().count()), ("on", 1_024));
}
