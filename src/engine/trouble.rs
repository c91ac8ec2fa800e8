//! What the candidate's own pods say: the kubelet's reasons, as facts for the status and as causes
//! for a rollback. Disruptions (evictions, drains) are never the revision's fault.

use crate::api::{
    Duration, PodProblem, Timestamp,
    status::{MAX_TEXT, bounded},
};

use super::observed::{Container, Pod, Revision};

/// How long a missing Secret key or ConfigMap may last before it counts as a failure.
pub const CONFIG_ERROR_GRACE: Duration = Duration::from_secs(30);
/// How often an image may be given up on by the kubelet before it counts as a failure.
pub const PULL_ATTEMPTS: i32 = 3;
/// How long none of the pods that serve may be ready before that counts as a failure, where nobody beside them tells whose
/// fault it is. What they depend on may be away for a moment (a database that fails over); nobody serves meanwhile, so
/// that it is far less than a release may wait for its pods.
pub const UNREADY_GRACE: Duration = Duration::from_secs(60);
/// How often a container was started again when that counts as a failure. The kubelet backs off (`CrashLoopBackOff`) only
/// before containers that ran for less than ten minutes: what ends more seldom, or by a liveness probe, is known by this.
pub const TOO_MANY_RESTARTS: i32 = 3;
/// The reason of pods that fail their readiness probe.
pub const NOT_READY: &str = "NotReady";

const ERR_IMAGE_PULL: &str = "ErrImagePull";
const PULL_BACK_OFF: &str = "ImagePullBackOff";
const CRASH_LOOP: &str = "CrashLoopBackOff";
const RESTARTS_EXCEEDED: &str = "RestartsExceeded";

/// What kind of trouble a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Fails the release at once.
    Fatal,
    /// Fails it after [`CONFIG_ERROR_GRACE`].
    Config,
    /// Fails it after [`PULL_ATTEMPTS`].
    Pull,
    /// Fails it after [`UNREADY_GRACE`].
    Unready,
    /// Worth telling; only the progress deadline fails it.
    Waiting,
}

fn class(reason: &str) -> Option<Class> {
    match reason {
        "InvalidImageName" | "ErrImageNeverPull" | CRASH_LOOP | "OOMKilled" | RESTARTS_EXCEEDED => Some(Class::Fatal),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some(Class::Config),
        ERR_IMAGE_PULL | PULL_BACK_OFF => Some(Class::Pull),
        NOT_READY => Some(Class::Unready),
        "Unschedulable" => Some(Class::Waiting),
        _ => None,
    }
}

/// How pods are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What ended a container before is no problem of now.
    pub since: Timestamp,
    /// The time.
    pub now: Timestamp,
    /// Whether a container that was started again [`TOO_MANY_RESTARTS`] times is a problem. Not where a metric says how often
    /// it may be.
    pub counts_restarts: bool,
}

/// The worst problem of a revision's pods, carrying on what was known of the same problem before.
#[must_use]
pub fn find(revision: &Revision, known: Option<&PodProblem>, look: Look) -> Option<PodProblem> {
    let mut problems: Vec<(Class, PodProblem)> = revision
        .pods
        .iter()
        .filter(|pod| !pod.terminating && !pod.disrupted)
        .flat_map(|pod| problems(pod, look))
        .collect();
    // The same pod as before is preferred, so that its attempts are counted to the end.
    let other = |problem: &PodProblem| known.is_none_or(|known| known.pod != problem.pod);
    problems.sort_by(|(class, one), (class2, two)| {
        (class, other(one), &one.pod, &one.container).cmp(&(class2, other(two), &two.pod, &two.container))
    });
    let (_, found) = problems.into_iter().next()?;
    Some(known.map_or(found.clone(), |known| carry_on(found, known, look.now)))
}

/// Why the release fails on this problem, if it does now.
#[must_use]
pub fn fails(problem: &PodProblem, now: Timestamp) -> bool {
    match class(&problem.reason) {
        Some(Class::Fatal) => true,
        Some(class @ (Class::Config | Class::Unready)) => {
            grace(class).is_some_and(|grace| now.since(problem.since) >= grace)
        }
        Some(Class::Pull) => problem.count >= PULL_ATTEMPTS,
        Some(Class::Waiting) | None => false,
    }
}

/// When a problem that does not fail the release yet will.
#[must_use]
pub fn fails_at(problem: &PodProblem) -> Option<Timestamp> {
    class(&problem.reason).and_then(grace).map(|grace| problem.since.plus(grace))
}

/// How long a problem of this kind may last before it counts as a failure.
const fn grace(class: Class) -> Option<Duration> {
    match class {
        Class::Config => Some(CONFIG_ERROR_GRACE),
        Class::Unready => Some(UNREADY_GRACE),
        Class::Fatal | Class::Pull | Class::Waiting => None,
    }
}

/// The first pod that is not ready although nothing is said against it.
#[must_use]
pub fn unready(revision: &Revision) -> Option<String> {
    let pod = revision
        .pods
        .iter()
        .filter(|pod| !pod.ready && !pod.terminating && !pod.disrupted)
        .min_by_key(|pod| &pod.name)?;
    Some(format!("pod {} is not ready: look at its readiness probe and its log", pod.name))
}

/// Whether none of a revision's pods is ready any more, and a readiness probe is why. Who of them left, or
/// crashed, is judged by other rules.
#[must_use]
pub fn lost_readiness(revision: &Revision) -> Option<String> {
    let mut pods = revision.pods.iter().filter(|pod| !pod.terminating && !pod.disrupted);
    let lost = pods.clone().find(|pod| pod.lost_readiness)?;
    let none_left = revision.ready == 0 && pods.all(|pod| !pod.ready);
    none_left.then(|| {
        format!("no pod of {} is ready any more: the readiness probe of pod {} fails", revision.hash, lost.name)
    })
}

/// That none of the pods that serve is ready: it begins when a readiness probe is why, and goes on until one is ready again,
/// also where the kubelet starts their containers anew meanwhile. `found`, if that is worse.
#[must_use]
pub fn or_unready(
    found: Option<PodProblem>,
    revision: &Revision,
    known: Option<&PodProblem>,
    now: Timestamp,
) -> Option<PodProblem> {
    let known = known.filter(|known| known.reason == NOT_READY);
    let pods = revision.pods.iter().filter(|pod| !pod.terminating && !pod.disrupted);
    let lost = pods.filter(|pod| pod.lost_readiness || known.is_some()).min_by_key(|pod| &pod.name);
    let none_left = revision.ready == 0 && revision.pods.iter().all(|pod| !pod.ready || pod.terminating);
    let worse = found.as_ref().and_then(|found| class(&found.reason)).is_some_and(|class| class < Class::Unready);
    let Some(pod) = lost.filter(|_| none_left && !worse) else { return found };
    let message = "no pod of its revision is ready any more, by their readiness probe".to_owned();
    Some(PodProblem { message, since: known.map_or(now, |known| known.since.min(now)), ..blank(pod, NOT_READY, now) })
}

/// One line for people: the pod, the container and the kubelet's reason.
#[must_use]
pub fn describe(problem: &PodProblem) -> String {
    use std::fmt::Write as _;
    let mut text = format!("pod {}", problem.pod);
    // Writing into a String cannot fail.
    let _ = match &problem.container {
        Some(container) => write!(text, ", container {container}: {}", problem.reason),
        None => write!(text, ": {}", problem.reason),
    };
    let mut facts = Vec::new();
    facts.extend(problem.exit_code.map(|code| format!("exit code {code}")));
    facts.extend(problem.signal.map(|signal| format!("signal {signal}")));
    facts.extend(match problem.restarts {
        ..=0 => None,
        1 => Some("restarted once".to_owned()),
        restarts => Some(format!("restarted {restarts} times")),
    });
    facts.extend((problem.count > 1).then(|| format!("{} attempts", problem.count)));
    if !facts.is_empty() {
        let _ = write!(text, " ({})", facts.join(", "));
    }
    if !problem.message.is_empty() {
        let _ = write!(text, ": {}", problem.message);
    }
    text
}

fn problems(pod: &Pod, look: Look) -> Vec<(Class, PodProblem)> {
    let mut found: Vec<_> = pod.containers.iter().filter_map(|container| problem(pod, container, look)).collect();
    if let Some(why) = &pod.unschedulable {
        let unschedulable = PodProblem { message: bounded(why, MAX_TEXT), ..blank(pod, "Unschedulable", look.now) };
        found.push((Class::Waiting, unschedulable));
    }
    found
}

fn problem(pod: &Pod, container: &Container, look: Look) -> Option<(Class, PodProblem)> {
    let Look { since, now, counts_restarts } = look;
    // The kubelet's times have whole seconds.
    let second = Duration::from_secs(1);
    let ended = container.ended.as_ref().filter(|ended| ended.at.is_none_or(|at| at.plus(second) > since));
    let killed = ended.map(|ended| ended.reason.as_str()).filter(|reason| *reason == "OOMKilled");
    // A pod of before that only waits to be started again has not crashed since.
    let is_past = ended.is_none() && container.ended.is_some() && pod.created.is_some_and(|at| at < since);
    let waiting = container.waiting.as_deref().filter(|reason| !(is_past && *reason == CRASH_LOOP));
    // The last time was since then; or all of them were, where the kubelet does not know any more how it ended.
    let is_new = container.ended.is_none() && pod.created.is_some_and(|at| at.plus(second) > since);
    let often = counts_restarts && container.restarts >= TOO_MANY_RESTARTS && (ended.is_some() || is_new);
    let reasons = [killed, waiting, often.then_some(RESTARTS_EXCEEDED)].into_iter().flatten();
    let (class, reason) =
        reasons.filter_map(|reason| Some((class(reason)?, reason))).min_by_key(|(class, _)| *class)?;
    // Only these messages are surely the kubelet's own; others may quote what a container or a
    // registry wrote.
    let own_words = matches!(class, Class::Config);
    Some((
        class,
        PodProblem {
            message: container
                .waiting_message
                .as_deref()
                .filter(|_| own_words)
                .map(|text| bounded(text, MAX_TEXT))
                .unwrap_or_default(),
            container: Some(container.name.clone()),
            exit_code: ended.map(|ended| ended.exit_code),
            signal: ended.and_then(|ended| ended.signal).filter(|signal| *signal != 0),
            restarts: container.restarts,
            count: i32::from(reason == PULL_BACK_OFF),
            ..blank(pod, reason, now)
        },
    ))
}

fn blank(pod: &Pod, reason: &str, now: Timestamp) -> PodProblem {
    PodProblem {
        reason: bounded(reason, 64),
        message: String::new(),
        pod: pod.name.clone(),
        container: None,
        exit_code: None,
        signal: None,
        restarts: 0,
        since: now,
        count: 0,
    }
}

fn carry_on(found: PodProblem, known: &PodProblem, now: Timestamp) -> PodProblem {
    let same = class(&known.reason) == class(&found.reason) && known.container == found.container;
    if !same {
        return found;
    }
    let came_back = known.reason != PULL_BACK_OFF && found.reason == PULL_BACK_OFF;
    let count = known.count + i32::from(came_back);
    PodProblem { since: known.since.min(now), count, ..found }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::engine::observed::Ended;

    fn revision(pods: Vec<Pod>) -> Revision {
        crate::engine::tests::world::revision("c", pods)
    }

    fn pod(name: &str, waiting: Option<&str>, ended: Option<(&str, i32)>) -> Pod {
        let ended = ended.map(|(reason, exit_code)| Ended { reason: reason.into(), exit_code, signal: None, at: None });
        let container = Container {
            name: "app".into(),
            waiting: waiting.map(str::to_owned),
            waiting_message: Some("words".into()),
            restarts: 2,
            ended,
        };
        Pod { name: name.into(), containers: vec![container], ..Pod::default() }
    }

    const NOW: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(NOW + seconds * 1000)
    }

    fn look(since: i64, now: i64) -> Look {
        Look { since: at(since), now: at(now), counts_restarts: true }
    }

    /// A container that runs, and was started again so often, the last time at that second.
    fn restarted(restarts: i32, created: i64, ended: Option<i64>) -> Pod {
        let mut pod = pod("a", None, Some(("Error", 3)));
        pod.created = Some(at(created));
        pod.containers[0].restarts = restarts;
        pod.containers[0].ended = ended.and_then(|second| {
            let ended = pod.containers[0].ended.clone()?;
            Some(Ended { at: Some(at(second)), ..ended })
        });
        pod
    }

    #[rstest]
    #[case::twice(restarted(2, 10, Some(20)), false)]
    #[case::three_times(restarted(3, 10, Some(20)), true)]
    #[case::more_often(restarted(9, 10, Some(20)), true)]
    #[case::the_last_time_since_then(restarted(3, -90, Some(5)), true)]
    #[case::all_of_it_before(restarted(9, -90, Some(-5)), false)]
    #[case::nobody_knows_how_it_ended(restarted(3, 10, None), true)]
    #[case::nor_whether_it_was_since_then(restarted(3, -90, None), false)]
    #[case::evicted(Pod { disrupted: true, ..restarted(3, 10, Some(20)) }, false)]
    fn a_container_that_was_started_again_three_times_fails_at_once(#[case] pod: Pod, #[case] is_trouble: bool) {
        let seen = revision(vec![pod]);
        let found = find(&seen, None, look(0, 30));
        assert_eq!(found.as_ref().is_some_and(|problem| fails(problem, at(30))), is_trouble, "{found:?}");
        assert!(found.is_none_or(|problem| describe(&problem).starts_with("pod a, container app: RestartsExceeded (")));
        assert_eq!(find(&seen, None, Look { counts_restarts: false, ..look(0, 30) }), None);
    }

    #[test]
    fn the_worst_that_is_said_of_a_container_is_told() {
        let told = |mut pod: Pod, waiting: &str| {
            pod.containers[0].waiting = Some(waiting.into());
            describe(&find(&revision(vec![pod]), None, look(0, 30)).unwrap())
        };
        let often = restarted(3, 10, Some(20));
        assert_eq!(
            told(often.clone(), PULL_BACK_OFF),
            "pod a, container app: RestartsExceeded (exit code 3, restarted 3 times)"
        );
        assert!(told(often.clone(), "ContainerCreating").contains("RestartsExceeded"));
        assert!(told(often, CRASH_LOOP).contains(CRASH_LOOP));
    }

    #[rstest]
    #[case("InvalidImageName")]
    #[case("ErrImageNeverPull")]
    #[case("CrashLoopBackOff")]
    fn some_reasons_fail_at_once(#[case] reason: &str) {
        let problem = find(&revision(vec![pod("a", Some(reason), Some(("Error", 3)))]), None, look(0, 0)).unwrap();
        assert!(fails(&problem, at(0)));
        assert_eq!((problem.exit_code, problem.restarts), (Some(3), 2));
    }

    #[rstest]
    #[case("CrashLoopBackOff")]
    #[case(PULL_BACK_OFF)]
    fn no_text_that_a_container_or_a_registry_wrote_is_in_the_status(#[case] reason: &str) {
        let mut pod = pod("a", Some(reason), Some(("Error", 137)));
        pod.containers[0].ended.as_mut().unwrap().signal = Some(9);
        let problem = find(&revision(vec![pod]), None, look(0, 0)).unwrap();
        assert_eq!((problem.message.as_str(), problem.container.as_deref()), ("", Some("app")));
        assert!(describe(&problem).contains("exit code 137, signal 9, restarted 2 times"), "{}", describe(&problem));
    }

    #[test]
    fn an_oom_kill_fails_at_once_also_when_the_container_runs_again() {
        let problem = find(&revision(vec![pod("a", None, Some(("OOMKilled", 137)))]), None, look(0, 0)).unwrap();
        assert!(fails(&problem, at(0)));
        assert_eq!(describe(&problem), "pod a, container app: OOMKilled (exit code 137, restarted 2 times)");
    }

    #[test]
    fn a_config_error_fails_after_thirty_seconds() {
        let seen = revision(vec![pod("a", Some("CreateContainerConfigError"), None)]);
        let first = find(&seen, None, look(0, 0)).unwrap();
        let later = find(&seen, Some(&first), look(0, 29)).unwrap();
        assert!(!fails(&later, at(29)));
        assert!(fails(&later, at(30)));
        assert_eq!(fails_at(&later), Some(at(30)));
        assert_eq!(later.message, "words");
    }

    #[test]
    fn a_pull_fails_when_the_kubelet_gave_up_three_times() {
        let mut known = None;
        for (second, reason) in
            [ERR_IMAGE_PULL, PULL_BACK_OFF, PULL_BACK_OFF, ERR_IMAGE_PULL, PULL_BACK_OFF, ERR_IMAGE_PULL]
                .iter()
                .enumerate()
        {
            let second = i64::try_from(second).unwrap();
            let problem = find(&revision(vec![pod("a", Some(reason), None)]), known.as_ref(), look(0, second)).unwrap();
            assert!(!fails(&problem, at(second)), "{problem:?}");
            known = Some(problem);
        }
        let third = find(&revision(vec![pod("a", Some(PULL_BACK_OFF), None)]), known.as_ref(), look(0, 9)).unwrap();
        assert!(fails(&third, at(9)));
    }

    #[test]
    fn readiness_that_all_have_lost_fails_after_a_minute_and_starts_of_containers_do_not_end_that() {
        let lost = |name: &str| Pod { lost_readiness: true, ..pod(name, None, None) };
        let first = or_unready(None, &revision(vec![lost("b"), pod("a", None, None)]), None, at(0)).unwrap();
        let told = "pod b: NotReady: no pod of its revision is ready any more, by their readiness probe";
        assert_eq!((describe(&first).as_str(), fails_at(&first)), (told, Some(at(60))));
        let started = revision(vec![pod("a", None, None), pod("b", None, None)]);
        assert_eq!(or_unready(None, &started, None, at(0)), None, "they only start");
        let later = or_unready(None, &started, Some(&first), at(59)).unwrap();
        assert!(!fails(&later, at(59)) && fails(&later, at(60)));
        // One that is ready again ends it, and a clock that was set back begins it anew.
        let again = revision(vec![lost("a"), Pod { ready: true, ..pod("b", None, None) }]);
        assert_eq!(or_unready(None, &again, Some(&later), at(70)), None);
        assert_eq!(or_unready(None, &started, Some(&later), at(-70)).unwrap().since, at(-70));
    }

    #[test]
    fn readiness_that_all_have_lost_is_told_before_a_pod_without_a_node_and_after_a_crash() {
        let lost = Pod { lost_readiness: true, ..pod("a", None, None) };
        let evicted = Pod { disrupted: true, lost_readiness: true, ..pod("b", None, None) };
        let reason = |other: Pod| {
            let seen = revision(vec![lost.clone(), other]);
            or_unready(find(&seen, None, look(0, 0)), &seen, None, at(0)).unwrap().reason
        };
        assert_eq!(reason(Pod { unschedulable: Some("0/1 nodes".into()), ..pod("c", None, None) }), NOT_READY);
        assert_eq!(reason(pod("c", Some(CRASH_LOOP), Some(("Error", 1)))), CRASH_LOOP);
        assert_eq!(or_unready(None, &revision(vec![evicted]), None, at(0)), None);
    }

    #[test]
    fn disrupted_and_terminating_pods_are_not_the_revisions_fault() {
        let broken = pod("a", Some("CrashLoopBackOff"), None);
        let evicted = Pod { disrupted: true, ..broken.clone() };
        let leaving = Pod { terminating: true, ..broken };
        assert_eq!(find(&revision(vec![evicted, leaving]), None, look(0, 0)), None);
    }

    #[test]
    fn unschedulable_is_told_but_does_not_fail() {
        let pod = Pod { name: "a".into(), unschedulable: Some("0/1 nodes".into()), ..Pod::default() };
        let problem = find(&revision(vec![pod]), None, look(0, 0)).unwrap();
        assert_eq!(problem.reason, "Unschedulable");
        assert!(!fails(&problem, at(100_000)));
    }
}
