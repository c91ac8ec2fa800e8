//! Commands that no release decides.

use crate::{
    cluster::{Cluster, SECOND, command, config, release, within},
    operator::Operator,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_no_release_is_rejected() {
    let cluster = Cluster::new("orphan").await;
    let _operator = Operator::start(&cluster, config().await).await;
    cluster.create(command("stop-it", "nobody", "Abort")).await;
    let answered = cluster.until("ReleaseCommand", "stop-it", "an answer", |c| !c["status"].is_null()).await;
    assert_eq!(answered["status"]["phase"], "Rejected");
    assert_eq!(answered["status"]["message"], "there is no ServiceRelease nobody in this namespace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_there_before_the_operator_is_answered_too() {
    let cluster = Cluster::new("early").await;
    cluster.create(command("stop-it", "nobody", "Abort")).await;
    cluster.create(release("shop")).await;
    cluster.create(command("pause-it", "shop", "Pause")).await;
    let _operator = Operator::start(&cluster, config().await).await;
    for name in ["stop-it", "pause-it"] {
        let answered = cluster.until("ReleaseCommand", name, "an answer", |c| !c["status"].is_null());
        within(20 * SECOND, name, answered).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_made_right_after_its_release_reaches_it() {
    let cluster = Cluster::new("together").await;
    let _operator = Operator::start(&cluster, config().await).await;
    for round in 0..5 {
        let name = format!("shop-{round}");
        // One right after the other: the watch of commands may well be ahead of that of releases.
        cluster.create(release(&name)).await;
        cluster.create(command(&format!("pause-{round}"), &name, "Pause")).await;
    }
    for round in 0..5 {
        let answered = cluster
            .until("ReleaseCommand", &format!("pause-{round}"), "an answer", |command| !command["status"].is_null())
            .await;
        let message = answered["status"]["message"].as_str().unwrap().to_owned();
        assert!(!message.contains("there is no ServiceRelease"), "{message}");
    }
}
