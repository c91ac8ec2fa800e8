use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::Duration,
    cli::fake::{Fake, command_path, release_path},
};

fn under_way(step: &str) -> Value {
    json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease", "metadata": {"name": "shop", "namespace": "production"},
        "spec": {},
        "status": {
            "phase": "Paused", "message": "step 3 of 5",
            "stable": {"revision": "aaa"}, "candidate": {"revision": "bbb"},
            "step": {"index": 3, "of": 5, "name": step, "summary": "3/5", "startedAt": "2026-01-02T03:04:05Z", "fromWeight": 0},
        },
    })
}

fn at_rest(phase: &str) -> Value {
    json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease", "metadata": {"name": "shop", "namespace": "production"},
        "spec": {},
        "status": {
            "phase": phase, "message": "aaa serves", "stable": {"revision": "aaa"},
            "failedRevisions": [
                {"revision": "old", "release": 2, "reason": "x", "at": "2026-01-02T03:04:05Z"},
                {"revision": "bbb", "release": 3, "reason": "x", "at": "2026-01-02T03:04:05Z", "latched": phase == "RolledBack"},
            ],
        },
    })
}

fn composed(release: Value, action: Action, wish: &Wish) -> Result<ReleaseCommandSpec, CliError> {
    compose(&serde_json::from_value(release).unwrap(), action, wish)
}

#[rstest]
#[case(Action::Promote, "pause", Some("bbb"), Some(3))]
#[case(Action::Skip, "pause", Some("bbb"), Some(3))]
#[case(Action::Resume, "pause", Some("bbb"), Some(3))]
#[case(Action::Approve, "approval", Some("bbb"), Some(3))]
#[case(Action::Retry, "setWeight", Some("bbb"), None)]
#[case(Action::Abort, "pause", Some("bbb"), None)]
#[case(Action::Pause, "setWeight", Some("bbb"), None)]
#[case(Action::Undo, "pause", Some("bbb"), None)]
fn a_command_is_for_the_revision_and_step_that_were_seen(
    #[case] action: Action,
    #[case] step: &str,
    #[case] revision: Option<&str>,
    #[case] index: Option<i32>,
) {
    let spec = composed(under_way(step), action, &Wish::default()).unwrap();
    assert_eq!((spec.revision.as_deref(), spec.step), (revision, index));
    assert_eq!(spec.approval.is_some(), action == Action::Approve);
}

#[rstest]
#[case::offered(json!({"revision": "ccc"}), "ccc")]
#[case::ordered(json!({"revision": "ccc", "orderedAt": "2026-01-02T03:04:05Z"}), "bbb")]
fn retry_of_a_halted_release_is_for_the_revision_that_it_offers(#[case] fix: Value, #[case] revision: &str) {
    let mut release = under_way("prepare");
    release["status"]["database"] = json!({"fix": fix});
    let spec = composed(release, Action::Retry, &Wish::default()).unwrap();
    assert_eq!(spec.revision.as_deref(), Some(revision));
}

#[test]
fn a_full_promotion_is_meant_whatever_the_step() {
    let wish = Wish { full: true, ..Wish::default() };
    let spec = composed(under_way("setWeight"), Action::Promote, &wish).unwrap();
    assert_eq!((spec.revision.as_deref(), spec.step, spec.full), (Some("bbb"), None, Some(true)));
}

#[test]
fn at_rest_undo_names_what_is_undone_and_retry_what_failed() {
    let wish = Wish { to_revision: Some("zzz".into()), ..Wish::default() };
    let spec = composed(at_rest("Healthy"), Action::Undo, &wish).unwrap();
    assert_eq!((spec.revision.as_deref(), spec.to_revision.as_deref()), (Some("aaa"), Some("zzz")));
    let spec = composed(at_rest("RolledBack"), Action::Retry, &Wish::default()).unwrap();
    assert_eq!(spec.revision.as_deref(), Some("bbb"));
}

#[test]
fn abort_can_always_be_said() {
    let spec = composed(at_rest("Pending"), Action::Abort, &Wish::default()).unwrap();
    assert_eq!((spec.revision, spec.step), (None, None));
}

#[rstest]
#[case(Action::Promote, "Healthy")]
#[case(Action::Skip, "RolledBack")]
#[case(Action::Approve, "Healthy")]
#[case(Action::Retry, "Healthy")]
fn what_needs_a_release_is_not_sent_without_one(#[case] action: Action, #[case] phase: &str) {
    let error = composed(at_rest(phase), action, &Wish::default()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("there is nothing to {} in shop", verb(action))), "{error}");
    assert!(error.remedy().unwrap().contains("aaa serves"));
}

#[test]
fn an_approval_is_only_sent_to_a_step_that_waits_for_one() {
    assert!(composed(under_way("pause"), Action::Approve, &Wish::default()).is_err());
}

#[test]
fn names_can_be_read_and_differ() {
    assert_eq!(name("shop", Action::Abort, "x7k2p"), "shop-abort-x7k2p");
    let names: std::collections::BTreeSet<String> = (0..100).map(|_| suffix()).collect();
    assert!(names.len() > 95, "{names:?}");
    assert!(names.iter().all(|name| name.len() == 5));
}

fn say(timeout: Duration) -> Say {
    Say { name: "shop".into(), reason: Some("errors in checkout".into()), timeout, dry_run: false, output: None }
}

#[tokio::test(start_paused = true)]
async fn the_answer_decides_the_exit_code() {
    for (phase, code) in [("Applied", exit::OK), ("Rejected", exit::REJECTED)] {
        let (fake, cluster) = Fake::start();
        fake.put(&release_path("shop"), under_way("pause"));
        let sender =
            tokio::spawn(
                async move { run(&cluster, Action::Abort, &say(Duration::from_secs(30)), &Wish::default()).await },
            );
        fake.watched("releasecommands").await;
        let mut command = fake.created()[0].clone();
        assert_eq!(
            command["spec"],
            json!({
                "release": "shop", "action": "Abort", "revision": "bbb", "reason": "errors in checkout", "requestedBy": "jane",
            })
        );
        let path = command_path(command["metadata"]["name"].as_str().unwrap());
        command["status"] = json!({"phase": phase, "message": "because", "at": "2026-01-02T03:04:05Z"});
        fake.put(&path, command);
        assert_eq!(sender.await.unwrap().unwrap(), code);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_it_says_what_becomes_of_the_command() {
    let (fake, cluster) = Fake::start();
    fake.put(&release_path("shop"), under_way("pause"));
    let code = run(&cluster, Action::Abort, &say(Duration::from_secs(30)), &Wish::default()).await.unwrap();
    assert_eq!(code, exit::TIMEOUT);
    let mut sent: ReleaseCommand = serde_json::from_value(fake.created()[0].clone()).unwrap();
    sent.metadata.name = Some("shop-abort-x7k2p".into());
    let (text, _) = conclude(Action::Abort, &sent, None, &say(Duration::from_secs(30)), Paint::plain());
    insta::assert_snapshot!(text, @"
    abort production/shop: no answer in 30s; ReleaseCommand shop-abort-x7k2p stays and is decided as soon as the operator runs
      is it running? kubectl get pods -A -l app.kubernetes.io/name=service-release-operator
      to take it back: kubectl -n production delete releasecommand shop-abort-x7k2p
    ");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_and_a_refused_command_change_nothing() {
    let (fake, cluster) = Fake::start();
    fake.put(&release_path("shop"), under_way("pause"));
    let dry = Say { dry_run: true, ..say(Duration::from_secs(30)) };
    assert_eq!(run(&cluster, Action::Abort, &dry, &Wish::default()).await.unwrap(), exit::OK);
    assert!(fake.created().is_empty());
    fake.refuse(
        "POST",
        "releasecommands",
        403,
        "ValidatingAdmissionPolicy 'commands' denied request: jane may not abort shop",
    );
    let error = run(&cluster, Action::Abort, &say(Duration::from_secs(30)), &Wish::default()).await.unwrap_err();
    assert!(error.to_string().contains("cannot abort production/shop: ValidatingAdmissionPolicy"), "{error}");
    assert!(error.remedy().unwrap().contains("permission of its own"));
}
