//! What is missing around a Job of the database is told: the object, the key, the field, and what mends it.

use rstest::rstest;

use super::*;

fn waiting(more: &Value, words: &str) -> World {
    let mut world = world(database(more));
    world.report = |_| None;
    world.settle();
    world.seen.jobs[0].stuck = Some(words.into());
    world.settle();
    world
}

#[rstest]
#[case::secret(
    "CreateContainerConfigError: secret \"shop-db\" not found",
    "SecretMissing",
    "Secret shop-db, which spec.database.urlFrom names, does not exist",
    "create secret generic shop-db --from-literal=URL='postgres://"
)]
#[case::key(
    "CreateContainerConfigError: couldn't find key URL in Secret default/shop-db",
    "SecretMissing",
    "key URL of Secret shop-db, which spec.database.urlFrom names, is not there",
    "patch secret shop-db -p '{\"stringData\": {\"URL\": \"postgres://"
)]
#[case::direct(
    "CreateContainerConfigError: secret \"direct\" not found",
    "SecretMissing",
    "Secret direct, which spec.database.directUrlFrom and spec.database.backup.scratchUrlFrom names, does not exist",
    "create secret generic direct --from-literal=A="
)]
#[case::claim(
    "0/1 nodes are available: persistentvolumeclaim \"backups\" not found. preemption: 0/1 nodes are available",
    "VolumeClaimMissing",
    "PersistentVolumeClaim backups, which spec.database.backup.persistentVolumeClaim.claimName names, does not exist",
    "make PersistentVolumeClaim backups"
)]
#[case::unbound(
    "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
    "VolumeClaimUnbound",
    "PersistentVolumeClaim backups of spec.database.backup.persistentVolumeClaim.claimName is bound to no volume",
    "describe pvc backups"
)]
#[case::of_the_users(
    "CreateContainerConfigError: configmap \"mine\" not found",
    "ConfigMapMissing",
    "ConfigMap mine, which a pod template of spec.database names, does not exist",
    "create configmap mine"
)]
#[case::another_matter(
    "ImagePullBackOff: no such image",
    "DatabasePreflight",
    "no such image",
    "describe pod -l servicerelease.io/job="
)]
fn what_a_pod_waits_for_is_told_with_the_remedy(
    #[case] words: &str,
    #[case] reason: &str,
    #[case] message: &str,
    #[case] remedy: &str,
) {
    let direct = json!({"secretKeyRef": {"name": "direct", "key": "A"}});
    let kept = json!({"persistentVolumeClaim": {"claimName": "backups"}, "scratchUrlFrom": direct});
    let mut world = waiting(&json!({"directUrlFrom": direct, "backup": kept}), words);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Preflight, reason), "{}", status.message);
    assert!(status.message.contains(message), "{}", status.message);
    assert!(status.next_action.contains(remedy), "{}", status.next_action);
    let goes_on = if words.contains("Image") { "abort, then retry" } else { "it goes on by itself" };
    assert!(status.next_action.ends_with(goes_on), "{}", status.next_action);
    // It is there now, and the kubelet looks again.
    world.seen.jobs[0].stuck = None;
    world.settle();
    assert_eq!((world.status().reason.as_str(), world.status().next_action.as_str()), ("DatabasePreflight", ""));
}

#[test]
fn what_is_missing_to_the_end_of_a_job_fails_it_at_once() {
    let mut world = waiting(&json!({}), "CreateContainerConfigError: secret \"shop-db\" not found");
    let at = world.now;
    let job = &mut world.seen.jobs[0];
    let message = "DeadlineExceeded: Job was active longer than specified deadline".to_owned();
    job.end = Some(crate::engine::JobEnd { succeeded: false, at, took: 1, message, report: None, image: None });
    world.settle();
    let known = world.status().database.unwrap();
    let work = known.last(DatabaseTask::Preflight).unwrap();
    assert_eq!((work.outcome, work.attempt), (WorkOutcome::NotBegun, 1), "the next one would fare no better");
    assert!(world.status().message.contains("which spec.database.urlFrom names, does not exist"));
}

/// A service account that is not there, a quota: the Job controller says so in Events alone.
#[test]
fn a_job_that_gets_no_pod_says_so_and_comes_to_an_end() {
    let mut world = world(database(&json!({})));
    world.report = |_| None;
    world.settle();
    world.seen.jobs[0].pod = crate::engine::JobPod::NotYet;
    world.settle();
    assert!(world.status().message.ends_with(" runs"), "at first nobody wonders: {}", world.status().message);
    world.wait(10);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Preflight, "PodMissing"), "{}", status.message);
    assert!(status.message.contains("no pod of it can be made: its service account"), "{}", status.message);
    assert!(status.next_action.contains("describe job shop-preflight-"), "{}", status.next_action);
    let at = world.now;
    let message = "DeadlineExceeded: Job was active longer than specified deadline".to_owned();
    world.seen.jobs[0].end =
        Some(crate::engine::JobEnd { succeeded: false, at, took: 1, message, report: None, image: None });
    world.settle();
    let work = world.status().database.unwrap().last(DatabaseTask::Preflight).unwrap().clone();
    assert_eq!((work.outcome, work.attempt), (WorkOutcome::NotBegun, 1), "{}", work.message);
    assert!(work.message.contains("no pod of it can be made"), "{}", work.message);
}

#[test]
fn what_the_runner_lacks_is_told_by_name_and_field() {
    let authority = json!({"configMapKeyRef": {"name": "authorities", "key": "db.pem"}});
    for (said, told, remedy) in [
        (
            crate::engine::task::NO_FILES,
            "ConfigMap shop-1, which spec.database.migration.sql.configMap names, does not exist or has no key",
            "create configmap shop-1 --from-file=",
        ),
        (
            "of the seed: there is no file whose name ends in .sql",
            "ConfigMap shop-seed, which spec.database.seed.sql.configMap names, does not exist or has no key",
            "create configmap shop-seed --from-file=",
        ),
        (
            crate::engine::task::NO_AUTHORITY,
            "key db.pem of ConfigMap authorities, which spec.database.caFrom names, does not exist",
            "create configmap authorities --from-file=db.pem=FILE",
        ),
    ] {
        let seed = json!({"sql": {"configMap": "shop-seed", "set": "seed"}});
        let mut world = waiting(&json!({"caFrom": authority, "seed": seed}), "");
        world.seen.jobs[0].stuck = None;
        end(&mut world, reported(WorkOutcome::NotBegun, said));
        let message = world.status().message;
        assert!(message.contains(told) && message.contains(remedy), "{message}");
    }
}

/// A lock that somebody else has is in the log of the Job, who it is too.
#[test]
fn what_takes_long_says_where_to_look() {
    let mut world = world(database(&json!({})));
    world.report = |task| if matches!(task, Task::Migrate(_)) { None } else { well(task) };
    world.settle();
    assert!(world.status().message.ends_with(" is made") || world.status().message.ends_with(" runs"));
    world.wait(20);
    world.settle();
    let message = world.status().message;
    assert!(message.contains(" runs: what it waits for is in its log, kubectl logs job/shop-migration-"), "{message}");
}
