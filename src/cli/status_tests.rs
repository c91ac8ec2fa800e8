use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::cli::fake::{Fake, deployment_path, release_path};

/// A release that adopted a Deployment, as the operator would have written it.
fn release(generation: i64, observed: i64, workload: i64, phase: &str) -> Value {
    let ready = if phase == "Healthy" { "True" } else { "Unknown" };
    json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
        "metadata": {"generation": generation},
        "spec": {"workloadRef": {"name": "shop"}},
        "status": {
            "observedGeneration": observed, "phase": phase, "message": format!("{phase} of {observed}/{workload}"),
            "workload": {"observedGeneration": workload, "revision": "a", "adoptedReplicas": 2},
            "conditions": [{
                "type": "Ready", "status": ready, "reason": phase, "message": "",
                "observedGeneration": observed, "lastTransitionTime": "2026-01-02T03:04:05Z",
            }],
        },
    })
}

fn deployment(generation: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generation": generation},
        "spec": {"selector": {}, "template": {}}})
}

fn args(words: &[&str]) -> args::Status {
    use clap::Parser as _;
    let line = ["x", "status", "shop"].iter().chain(words);
    match args::Cli::parse_from(line).command {
        args::Command::Status(args) => args,
        other => panic!("{other:?}"),
    }
}

type Waiting = JoinHandle<(Report, Vec<String>)>;

/// Runs `status` beside the test, and collects what it says.
fn start(cluster: Cluster, words: &'static [&str]) -> Waiting {
    tokio::spawn(async move {
        let mut lines = Vec::new();
        let say = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        let report = wait(&cluster, &args(words), say).await.unwrap();
        (report, lines)
    })
}

/// Lets the watches come to rest: both ask for what is newer.
async fn settled(fake: &Fake) {
    fake.watched("servicereleases").await;
    fake.watched("deployments").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn right_after_set_image_the_old_healthy_does_not_count() {
    let (fake, cluster) = Fake::start();
    // `kubectl set image` has just moved the Deployment from 12 to 13; the operator has not looked.
    fake.put(&release_path("shop"), release(3, 3, 12, "Healthy"));
    fake.put(&deployment_path("shop"), deployment(13));
    let status = start(cluster, &[]);
    settled(&fake).await;
    assert!(!status.is_finished(), "Healthy was reported for the old image");
    fake.put(&release_path("shop"), release(3, 3, 13, "Progressing"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!status.is_finished());
    fake.put(&release_path("shop"), release(3, 3, 13, "Healthy"));
    let (report, lines) = status.await.unwrap();
    assert_eq!((report.outcome.as_str(), report.exit_code), ("Healthy", 0));
    assert_eq!(
        lines,
        [
            "waiting: the operator has not looked at generation 13 of the Deployment yet (it has seen 12)\n",
            "Progressing: Progressing of 3/13\n",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn right_after_apply_the_old_healthy_does_not_count() {
    let (fake, cluster) = Fake::start();
    fake.put(&release_path("shop"), release(4, 3, 12, "Healthy"));
    fake.put(&deployment_path("shop"), deployment(12));
    let status = start(cluster, &[]);
    settled(&fake).await;
    assert!(!status.is_finished(), "Healthy was reported for the old generation");
    fake.put(&release_path("shop"), release(4, 4, 12, "RolledBack"));
    assert_eq!(status.await.unwrap().0.exit_code, exit::ROLLED_BACK);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_changes_while_one_waits_is_waited_for() {
    let (fake, cluster) = Fake::start();
    fake.put(&release_path("shop"), release(3, 3, 12, "Progressing"));
    fake.put(&deployment_path("shop"), deployment(12));
    let status = start(cluster, &[]);
    settled(&fake).await;
    fake.put(&deployment_path("shop"), deployment(13));
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.put(&release_path("shop"), release(3, 3, 12, "Healthy"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!status.is_finished());
    fake.put(&release_path("shop"), release(3, 3, 13, "Halted"));
    assert_eq!(status.await.unwrap().0.exit_code, exit::HALTED);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_waits_for_a_person_is_waited_for_unless_told_otherwise() {
    for (words, outcome, code) in [
        (&["--timeout=1h"][..], "Healthy", exit::OK),
        (&["--no-wait-for-person"][..], "WaitsForPerson", exit::WAITS_FOR_PERSON),
        (&["--timeout=500ms"][..], "WaitsForPerson", exit::WAITS_FOR_PERSON),
    ] {
        let (fake, cluster) = Fake::start();
        fake.put(&release_path("shop"), release(3, 3, 12, "AwaitingApproval"));
        fake.put(&deployment_path("shop"), deployment(12));
        let status = start(cluster, words);
        if outcome == "Healthy" {
            settled(&fake).await;
            fake.put(&release_path("shop"), release(3, 3, 12, "Healthy"));
        }
        let (report, _) = status.await.unwrap();
        assert_eq!((report.outcome.as_str(), report.exit_code), (outcome, code), "{words:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_time_is_up_it_says_what_it_waited_for() {
    let (fake, cluster) = Fake::start();
    fake.put(&release_path("shop"), release(4, 3, 12, "Healthy"));
    fake.put(&deployment_path("shop"), deployment(12));
    let (report, _) = start(cluster, &["--timeout=5s"]).await.unwrap();
    assert_eq!(report.exit_code, exit::TIMEOUT);
    insta::assert_snapshot!(summary(&report, Paint::plain()), @"
    production/shop TimedOut: there was no outcome in 5s: the operator has not looked at generation 4 yet (it has seen 3); is it running? kubectl get pods -A -l app.kubernetes.io/name=service-release-operator
      last seen: Healthy: Healthy of 3/12
    ");
}

#[tokio::test(start_paused = true)]
async fn without_watch_it_says_how_it_stands() {
    for (phase, observed, code) in [
        ("Healthy", 3, exit::OK),
        ("Healthy", 2, exit::TIMEOUT),
        ("Progressing", 3, exit::TIMEOUT),
        ("Invalid", 3, exit::INVALID),
    ] {
        let (fake, cluster) = Fake::start();
        fake.put(&release_path("shop"), release(3, observed, 12, phase));
        fake.put(&deployment_path("shop"), deployment(12));
        let (report, lines) = start(cluster, &["--watch=false"]).await.unwrap();
        assert_eq!((report.exit_code, lines.len()), (code, 0), "{phase}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_deleted_or_a_deployment_that_may_not_be_read_is_an_error() {
    let (fake, cluster) = Fake::start();
    fake.put(&release_path("shop"), release(3, 3, 12, "Progressing"));
    fake.put(&deployment_path("shop"), deployment(12));
    let other = cluster.clone();
    let status = tokio::spawn(async move { wait(&other, &args(&[]), |_| Ok(())).await });
    settled(&fake).await;
    fake.delete(&release_path("shop"));
    assert!(matches!(status.await.unwrap(), Err(CliError::Deleted(_))));

    fake.put(&release_path("shop"), release(3, 3, 12, "Healthy"));
    fake.refuse("GET", "/deployments", 403, "deployments.apps is forbidden");
    let error = wait(&cluster, &args(&[]), |_| Ok(())).await.unwrap_err();
    assert!(matches!(error, CliError::Forbidden { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_name_is_an_error_at_once() {
    let (fake, cluster) = Fake::start();
    fake.put(&release_path("shopping"), release(3, 3, 12, "Healthy"));
    let error = wait(&cluster, &args(&[]), |_| Ok(())).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no ServiceRelease shop in namespace production");
    assert_eq!(error.remedy().unwrap(), "did you mean shopping?");
}

#[test]
fn a_rollback_is_reported_with_its_reason_and_what_to_do() {
    let status = json!({
        "observedGeneration": 3, "phase": "RolledBack", "message": "b was rolled back; a serves",
        "nextAction": "apply a template that fixes it, or kubectl srel -n production retry shop",
        "rollback": {"fromWeight": 50, "cause": "Failed", "revision": "b", "release": 4, "reason": "CrashLoopBackOff",
            "message": "container app of shop-b-1 ended with exit code 1", "startedAt": "2026-01-02T03:04:05Z"},
    });
    let mut release: ServiceRelease = serde_json::from_value(release(3, 3, 12, "RolledBack")).unwrap();
    release.metadata.name = Some("shop".into());
    release.metadata.namespace = Some("production".into());
    release.status = serde_json::from_value(status).unwrap();
    let report = report(&release, "RolledBack", exit::ROLLED_BACK, String::new());
    insta::assert_snapshot!(summary(&report, Paint::plain()), @"
    production/shop RolledBack: b was rolled back; a serves
      why: failed: CrashLoopBackOff: container app of shop-b-1 ended with exit code 1
      next: apply a template that fixes it, or kubectl srel -n production retry shop
    ");
}
