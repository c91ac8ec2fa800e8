//! A pod in a line: how it is, and what is wrong with it, in the kubelet's words. Pure. Texts that a
//! container wrote (termination messages) are left out: they can hold secrets, or lies.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{api::Timestamp, cli::time};

/// A pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// metadata.name
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Restarts of all its containers.
    pub restarts: i32,
    /// In a word: Ready, NotReady, Starting, Pending, Terminating, or the reason of the trouble.
    pub state: String,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What a container waits for when nothing is wrong.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A pod as plain values.
#[must_use]
pub fn view(pod: &Pod) -> PodView {
    let ready = condition(pod, "Ready").is_some_and(|(status, ..)| status == "True");
    let restarts = containers(pod).map(|container| container.restart_count).sum();
    let trouble = trouble(pod);
    let state = match (&pod.metadata.deletion_timestamp, &trouble) {
        (Some(_), _) => "Terminating".to_owned(),
        (None, Some((reason, _))) => reason.clone(),
        (None, None) if ready => "Ready".to_owned(),
        (None, None) => waiting(pod).to_owned(),
    };
    PodView {
        name: pod.name_any(),
        ready,
        restarts,
        state,
        problem: trouble.map(|(_, detail)| detail).filter(|detail| !detail.is_empty()),
        created: pod.creation_timestamp().as_ref().map(time::of),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten())
}

/// Status, reason and message of a condition.
fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, found.reason.as_deref().unwrap_or_default(), found.message.as_deref().unwrap_or_default()))
}

/// Reason and detail of what is wrong.
fn trouble(pod: &Pod) -> Option<(String, String)> {
    let evicted = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"));
    if let Some(status) = evicted {
        let reason = status.reason.clone().unwrap_or_else(|| "Failed".to_owned());
        return Some((reason, status.message.clone().unwrap_or_default()));
    }
    if let Some(("False", "Unschedulable", message)) = condition(pod, "PodScheduled") {
        return Some(("Unschedulable".to_owned(), message.to_owned()));
    }
    containers(pod).find_map(of_container)
}

fn of_container(container: &ContainerStatus) -> Option<(String, String)> {
    let name = &container.name;
    let state = container.state.as_ref()?;
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let ended = |ended: &k8s_openapi::api::core::v1::ContainerStateTerminated| {
        let reason = ended.reason.as_deref().unwrap_or("Ended");
        let signal = ended.signal.filter(|signal| *signal != 0).map(|signal| format!(", signal {signal}"));
        format!("{reason}, exit code {}{}", ended.exit_code, signal.unwrap_or_default())
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        if reason.is_empty() || STARTING.contains(&reason.as_str()) {
            return None;
        }
        let detail = match (last, &waiting.message) {
            (Some(last), _) => format!("container {name} ended: {}", ended(last)),
            (None, Some(message)) => format!("container {name}: {message}"),
            (None, None) => format!("container {name}"),
        };
        return Some((reason, detail));
    }
    if let Some(terminated) = state.terminated.as_ref().filter(|terminated| terminated.exit_code != 0) {
        let reason = terminated.reason.clone().unwrap_or_else(|| "Ended".to_owned());
        return Some((reason, format!("container {name} ended: {}", ended(terminated))));
    }
    let last = last.filter(|_| container.restart_count > 0 && !container.ready)?;
    Some(("Restarted".to_owned(), format!("container {name} ended before: {}", ended(last))))
}

/// A pod without trouble that is not ready.
fn waiting(pod: &Pod) -> &'static str {
    let all_run = containers(pod).count() > 0 && containers(pod).all(|container| container.started == Some(true));
    match condition(pod, "PodScheduled") {
        Some(("True", ..)) if all_run => "NotReady",
        Some(("True", ..)) => "Starting",
        _ => "Pending",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn pod(container: Value) -> Pod {
        let mut container = container;
        for (key, value) in [("name", json!("app")), ("image", json!("")), ("imageID", json!(""))] {
            container[key] = value;
        }
        serde_json::from_value(json!({
            "metadata": {"name": "shop-x"},
            "status": {
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": if container["ready"] == true { "True" } else { "False" }},
                ],
                "containerStatuses": [container],
            },
        }))
        .unwrap()
    }

    #[rstest]
    #[case(json!({"ready": true, "restartCount": 0, "started": true, "state": {"running": {}}}), "Ready", None)]
    #[case(json!({"ready": false, "restartCount": 0, "started": true, "state": {"running": {}}}), "NotReady", None)]
    #[case(json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}), "Starting", None)]
    #[case(
        json!({"ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "secret", "signal": 9}}}),
        "CrashLoopBackOff", Some("container app ended: OOMKilled, exit code 137, signal 9")
    )]
    #[case(
        json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}),
        "ErrImagePull", Some("container app: no such image")
    )]
    #[case(
        json!({"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "secret"}}}),
        "Error", Some("container app ended: Error, exit code 1")
    )]
    #[case(
        json!({"ready": false, "restartCount": 1, "started": true, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}}}),
        "Restarted", Some("container app ended before: Error, exit code 2")
    )]
    fn a_container_is_told_by_the_kubelets_words_only(
        #[case] container: Value,
        #[case] state: &str,
        #[case] problem: Option<&str>,
    ) {
        let view = view(&pod(container));
        assert_eq!((view.state.as_str(), view.problem.as_deref()), (state, problem));
    }

    #[test]
    fn a_pod_that_goes_or_finds_no_node_says_so() {
        let mut going = pod(json!({"ready": true, "restartCount": 0, "started": true, "state": {"running": {}}}));
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-02T03:04:05Z")).unwrap();
        assert_eq!(view(&going).state, "Terminating");
        let stuck: Pod = serde_json::from_value(json!({
            "metadata": {"name": "shop-x"},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]},
        }))
        .unwrap();
        assert_eq!(
            (view(&stuck).state.as_str(), view(&stuck).problem.as_deref()),
            ("Unschedulable", Some("0/3 nodes"))
        );
    }
}
