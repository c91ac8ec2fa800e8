//! What is seen of the candidate's pods, judged as a metric: how often their containers were started again, and how many
//! of them are ready. Pods that are told to go, or were taken from their node, are never the revision's fault.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{
    Duration, Metric, Timestamp, VerdictOutcome, VerdictStatus, Workload,
    status::{MAX_TEXT, bounded},
};

use super::{
    analysis, forward,
    observed::{Container, Ended, Pod, Revision},
    pass::Pass,
    plan::Policy,
    ratio::Bounds,
    verdict::no_data,
};

/// Judges what is seen of the pods now. It is written down when it has changed.
pub fn look(pass: &mut Pass<'_>, policy: &Policy, metric: &Metric, limits: &Workload, state: &mut VerdictStatus) {
    let look = Look { now: pass.now, since: forward::looked_since(pass), patience: policy.deadline };
    let (outcome, message) = match judge(pass.subject(), limits, look) {
        None => no_data(metric, "the candidate has no pod"),
        Some(found) => {
            if let Some(until) = found.waits {
                pass.wake_at(until);
            }
            judged(pass, policy, metric, &found, state)
        }
    };
    let message = bounded(&message, MAX_TEXT);
    if state.measured_at.is_none() || (state.outcome, &state.message) != (outcome, &message) {
        state.measurements += 1;
        state.measured_at = Some(pass.now);
    }
    state.outcome = outcome;
    state.message = message;
}

/// What follows from what is seen: restarts fail at once, pods that are not ready at as many looks in a row as may be, each an
/// interval after the one before.
fn judged(
    pass: &mut Pass<'_>,
    policy: &Policy,
    metric: &Metric,
    found: &Found,
    state: &mut VerdictStatus,
) -> (VerdictOutcome, String) {
    let interval = policy.analysis.as_ref().map(analysis::every).unwrap_or_default();
    let needed = metric.failure_threshold;
    if !found.unready {
        (state.failures, state.counted_until) = (0, None);
    } else if state.failures < needed && state.counted_until.is_none_or(|last| pass.elapsed(last, interval)) {
        (state.failures, state.counted_until) = (state.failures + 1, Some(pass.now));
    }
    let count = state.failures;
    let times = if found.unready && needed > 1 { format!(", {count} of {needed} in a row") } else { String::new() };
    let outcome = match found.restarted || count >= needed {
        true => VerdictOutcome::Fail,
        false if count > 0 => VerdictOutcome::Inconclusive,
        false => VerdictOutcome::Pass,
    };
    (outcome, format!("{}{times}", found.message))
}

/// How pods are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The time.
    pub now: Timestamp,
    /// Restarts before this do not count.
    pub since: Timestamp,
    /// How long a pod may take to become ready.
    pub patience: Duration,
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Containers were started again more often than they may.
    pub restarted: bool,
    /// Fewer pods are ready than are meant to.
    pub unready: bool,
    /// Until when a pod that was not ready yet does not count.
    pub waits: Option<Timestamp>,
    /// The numbers beside their limits, for people.
    pub message: String,
}

/// What is allowed, for people.
pub fn limits(limits: &Workload) -> String {
    let restarts = limits.restarts().map(|max| format!("max {max} restarts"));
    let ready = limits.min_ready.as_ref().map(|min| format!("{} ready", least(min)));
    restarts.into_iter().chain(ready).collect::<Vec<_>>().join(", ")
}

fn least(min: &IntOrString) -> String {
    match min {
        IntOrString::Int(count) => format!("min {count}"),
        IntOrString::String(share) => format!("min {share}"),
    }
}

/// What the pods say; none where there are none.
pub fn judge(candidate: Option<&Revision>, limits: &Workload, look: Look) -> Option<Found> {
    let candidate = candidate?;
    let pods: Vec<&Pod> = candidate.pods.iter().filter(|pod| !pod.terminating && !pod.disrupted).collect();
    if pods.is_empty() {
        return None;
    }
    let restarts = limits.restarts().map(|max| restarted(&pods, look.since, max));
    let ready = limits.min_ready.as_ref().map(|min| {
        let needed = Bounds::pods(min, candidate.replicas).min(candidate.replicas);
        readiness(&pods, candidate.replicas, needed, &least(min), look)
    });
    let restarted = restarts.as_ref().is_some_and(|(too_often, _)| *too_often);
    let (unready, waits) = ready.as_ref().map_or((false, None), |(unready, waits, _)| (*unready, *waits));
    let words = restarts.into_iter().map(|(_, words)| words).chain(ready.into_iter().map(|(.., words)| words));
    Some(Found { restarted, unready, waits, message: words.collect::<Vec<_>>().join("; ") })
}

/// Whether fewer pods are ready than are needed, whatever becomes of those that are on their way or still to be made; until
/// when the first of these does not count; and the numbers.
fn readiness(pods: &[&Pod], wanted: i32, needed: i32, limit: &str, look: Look) -> (bool, Option<Timestamp>, String) {
    let (ready, others): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| pod.ready);
    let lost: Vec<&Pod> = others.iter().copied().filter(|pod| on_its_way(pod, look).is_none()).collect();
    let count = |pods: &[&Pod]| i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let unready = wanted.saturating_sub(count(&lost)) < needed;
    let named = lost.iter().map(|pod| &pod.name).min();
    let named = named.map(|name| format!("; pod {name} is not ready")).unwrap_or_default();
    let ready = count(&ready).min(wanted);
    let message = format!("{ready} of {wanted} pods ready ({limit}){named}");
    (unready, others.iter().filter_map(|pod| on_its_way(pod, look)).min(), message)
}

/// Until when a pod that never was ready, and did not crash, may take to become so.
fn on_its_way(pod: &Pod, look: Look) -> Option<Timestamp> {
    let failed = pod.lost_readiness || pod.containers.iter().any(|it| it.restarts > 0);
    pod.created.filter(|_| !failed).map(|at| at.plus(look.patience)).filter(|until| *until > look.now)
}

/// Whether containers were started again more often than they may, as far as pods say, and the numbers.
fn restarted(pods: &[&Pod], since: Timestamp, max: i32) -> (bool, String) {
    let containers = pods.iter().flat_map(|pod| pod.containers.iter().map(move |it| (*pod, it)));
    let counted = containers.map(|(pod, it)| (restarts(pod, it, since), pod, it)).filter(|(count, ..)| *count > 0);
    let counted: Vec<(i32, &Pod, &Container)> = counted.collect();
    let sum = counted.iter().map(|(count, ..)| *count).fold(0, i32::saturating_add);
    let restarts = if sum == 1 { "restart" } else { "restarts" };
    // The worst is named: what ran out of memory before what restarted most.
    let worst = counted.iter().max_by_key(|(count, pod, it)| (is_killed(it), *count, std::cmp::Reverse(&pod.name)));
    let worst = worst.map(|(count, pod, it)| format!("; {}", told(*count, pod, it))).unwrap_or_default();
    let count = pods.len();
    let among = if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") };
    (sum > max, format!("{sum} {restarts} in {among} since {since} (max {max}){worst}"))
}

/// The restarts of a container since then. Of a pod that was there before, only the last one says when it was.
fn restarts(pod: &Pod, container: &Container, since: Timestamp) -> i32 {
    // Kubernetes's times have whole seconds.
    let after = |at: Timestamp| at.plus(Duration::from_secs(1)) > since;
    let ended = container.ended.as_ref().and_then(|ended| ended.at);
    match () {
        () if pod.created.is_none_or(after) => container.restarts,
        () if ended.is_some_and(after) => container.restarts.min(1),
        () => 0,
    }
}

fn is_killed(container: &Container) -> bool {
    container.ended.as_ref().is_some_and(|ended| ended.reason == "OOMKilled")
}

fn told(count: i32, pod: &Pod, container: &Container) -> String {
    let how = |ended: &Ended| format!(", last by {}, exit code {}", ended.reason, ended.exit_code);
    let how = container.ended.as_ref().map(how).unwrap_or_default();
    format!("pod {}, container {}: {count}{how}", pod.name, container.name)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::tests::world::revision;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn pod(name: &str, created: i64, restarts: i32, ended: Option<(&str, i64)>) -> Pod {
        let ended = ended.map(|(reason, time)| Ended {
            reason: reason.into(),
            exit_code: 137,
            signal: None,
            at: Some(at(time)),
        });
        let container = Container { name: "app".into(), restarts, ended, ..Container::default() };
        Pod { name: name.into(), created: Some(at(created)), containers: vec![container], ..Pod::default() }
    }

    /// At second 200, with restarts since 100.
    fn look() -> Look {
        Look { now: at(200), since: at(100), patience: Duration::from_secs(60) }
    }

    fn judged(pods: Vec<Pod>, limits: Value, look: Look) -> Option<Found> {
        judge(Some(&revision("c", pods)), &serde_json::from_value(limits).unwrap(), look)
    }

    #[rstest]
    #[case::none(vec![pod("a", 100, 0, None)], false, "0 restarts in 1 pod (max 1)")]
    #[case::one(vec![pod("a", 101, 1, Some(("Error", 110)))], false,
        "1 restart in 1 pod (max 1); pod a, container app: 1, last by Error, exit code 137")]
    #[case::all_together(vec![pod("a", 101, 1, Some(("OOMKilled", 110))), pod("b", 101, 5, Some(("Error", 110)))], true,
        "6 restarts in 2 pods (max 1); pod a, container app: 1, last by OOMKilled, exit code 137")]
    #[case::before_the_release(vec![pod("a", 50, 7, Some(("Error", 60)))], false, "0 restarts in 1 pod (max 1)")]
    #[case::again_in_the_release(vec![pod("a", 50, 7, Some(("Error", 160)))], false,
        "1 restart in 1 pod (max 1); pod a, container app: 1, last by Error, exit code 137")]
    fn restarts_count_from_the_beginning_of_the_release(
        #[case] pods: Vec<Pod>,
        #[case] too_often: bool,
        #[case] message: &str,
    ) {
        let found = judged(pods, json!({"maxRestarts": 1}), look()).unwrap();
        let told = found.message.replace(" since 1970-01-01T00:01:40.000Z", "");
        assert_eq!((found.restarted, found.unready, told.as_str()), (too_often, false, message));
    }

    fn unready(name: &str, created: i64) -> Pod {
        pod(name, created, 0, None)
    }

    fn ready(name: &str) -> Pod {
        Pod { ready: true, ..unready(name, 100) }
    }

    #[rstest]
    #[case::enough("75%", vec![ready("a"), ready("b"), ready("c"), unready("d", 100)], false, "3 of 4 pods ready (min 75%); pod d is not ready")]
    #[case::too_few("75%", vec![ready("a"), ready("b"), unready("d", 100), unready("c", 100)], true, "2 of 4 pods ready (min 75%); pod c is not ready")]
    #[case::rounded_up("50%", vec![ready("a"), unready("b", 100), unready("c", 100)], true, "1 of 3 pods ready (min 50%); pod b is not ready")]
    #[case::by_number("2", vec![ready("a"), ready("b"), unready("c", 100)], false, "2 of 3 pods ready (min 2); pod c is not ready")]
    #[case::of_fewer_pods_all("3", vec![ready("a"), ready("b")], false, "2 of 2 pods ready (min 3)")]
    #[case::none_but_one("3", vec![ready("a"), unready("b", 100)], true, "1 of 2 pods ready (min 3); pod b is not ready")]
    #[case::told_to_go("100%", vec![ready("a"), Pod { terminating: true, ..unready("b", 100) }], false, "1 of 2 pods ready (min 100%)")]
    #[case::taken_from_its_node("100%", vec![ready("a"), Pod { disrupted: true, ..unready("b", 100) }], false, "1 of 2 pods ready (min 100%)")]
    #[case::on_its_way("100%", vec![ready("a"), unready("b", 150)], false, "1 of 2 pods ready (min 100%)")]
    fn so_many_pods_are_to_be_ready(
        #[case] min: &str,
        #[case] pods: Vec<Pod>,
        #[case] too_few: bool,
        #[case] message: &str,
    ) {
        let min = min.parse::<i32>().map_or_else(|_| json!(min), |count| json!(count));
        let found = judged(pods, json!({"minReady": min}), look()).unwrap();
        assert_eq!((found.restarted, found.unready, found.message.as_str()), (false, too_few, message));
    }

    #[rstest]
    #[case::on_its_way(unready("b", 150), 209, false, Some(210))]
    #[case::for_too_long(unready("b", 150), 210, true, None)]
    #[case::it_was_ready(Pod { lost_readiness: true, ..unready("b", 150) }, 200, true, None)]
    #[case::it_crashed(pod("b", 150, 1, Some(("Error", 160))), 200, true, None)]
    fn a_pod_has_its_time_to_become_ready(
        #[case] pod: Pod,
        #[case] now: i64,
        #[case] too_few: bool,
        #[case] waits: Option<i64>,
    ) {
        let look = Look { now: at(now), ..look() };
        let found = judged(vec![ready("a"), pod], json!({"minReady": "100%"}), look).unwrap();
        assert_eq!((found.unready, found.waits), (too_few, waits.map(at)));
    }

    #[test]
    fn without_limits_no_restart_is_allowed_and_with_one_of_readiness_they_are_not_counted() {
        let restarted = |limits: Value| {
            let pod = Pod { ready: true, ..pod("a", 101, 1, None) };
            judged(vec![pod], limits, look()).unwrap()
        };
        assert!(restarted(json!({})).restarted);
        assert!(restarted(json!({"maxRestarts": 0, "minReady": 1})).restarted);
        let found = restarted(json!({"minReady": 1}));
        assert_eq!((found.restarted, found.message.as_str()), (false, "1 of 1 pods ready (min 1)"));
        assert_eq!(judged(vec![Pod { disrupted: true, ..ready("a") }], json!({}), look()), None);
    }
}
