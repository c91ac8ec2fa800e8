//! Checks that a Job answers, before the candidate has pods and after; and what is watched after the promotion.

use rstest::rstest;
use serde_json::{Value, json};

use super::world::{World, right, wrong};
use crate::{
    api::{Action, CheckOutcome, Phase, Timestamp},
    engine::{Denial, Effect, Job, JobEnd, JobPod, Reply, Run, decide},
};

const STEPS: &str = r#"{"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}"#;

/// v1 Healthy behind Service shop, with these checks in the manifest of what comes next.
fn with_checks(checks: Value) -> World {
    let mut world = World::healthy(serde_json::from_str(STEPS).unwrap(), 4);
    world.edit(|spec| spec.checks = serde_json::from_value(checks).unwrap());
    world.settle();
    world
}

fn smoke(more: &Value) -> Value {
    let mut check = json!({"name": "smoke", "job": {"template": {"spec": {"containers": [{"name": "k6"}]}}}});
    check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([check])
}

/// Releases an image, and waits until nodes have followed the Service by which a Job goes to it.
fn release(world: &mut World, image: &str) {
    world.set_image(image);
    world.settle();
    world.wait(2);
    world.settle();
}

/// Ends the Job that runs.
fn end(world: &mut World, code: i32) {
    end_with(world, code, "p95 was 900ms");
}

/// The same with what its container left to say, five seconds after it was made.
fn end_with(world: &mut World, code: i32, said: &str) {
    let at = world.now;
    let running: Vec<&mut Job> = world.seen.jobs.iter_mut().filter(|job| job.end.is_none()).collect();
    let [job] = <[&mut Job; 1]>::try_from(running).unwrap();
    job.end = Some(ended(at, code == 0, &format!("exit code {code}: {said}")));
    world.settle();
}

fn ended(at: Timestamp, succeeded: bool, message: &str) -> JobEnd {
    JobEnd { succeeded, at, took: 5_000, message: message.into(), report: None, image: None }
}

fn outcome(world: &World) -> (CheckOutcome, i32) {
    let checks = world.status().checks;
    (checks[0].outcome, checks[0].attempts)
}

fn created(world: &World) -> Vec<String> {
    let created = |effect: &Effect| match effect {
        Effect::CreateJob(new) => Some(new.name.clone()),
        _ => None,
    };
    world.log.iter().filter_map(created).collect()
}

#[test]
fn a_job_runs_once_and_its_success_lets_the_candidate_have_traffic() {
    let mut world = with_checks(smoke(&json!({})));
    release(&mut world, "v2");
    let status = world.status();
    let name = status.checks[0].job.clone().unwrap();
    assert_eq!(created(&world), std::slice::from_ref(&name));
    assert!(name.starts_with("shop-smoke-") && name.len() <= 63, "{name}");
    assert!(status.message.contains(&format!("Job {name} runs")), "{}", status.message);
    world.wait(30);
    world.settle();
    assert_eq!((created(&world).len(), status.weights.unwrap().desired.candidate), (1, 0));
    end(&mut world, 0);
    let status = world.status();
    assert_eq!((outcome(&world), status.phase), ((CheckOutcome::Passed, 1), Phase::Paused), "{}", status.message);
    assert_eq!(world.seen.jobs.len(), 1, "its log stays");
}

#[test]
fn what_a_job_needs_to_know_is_in_its_environment_and_no_service_takes_it_for_a_pod() {
    let mut world = with_checks(smoke(&json!({"timeout": "90s"})));
    release(&mut world, "v2");
    let job = world.log.iter().find_map(|effect| match effect {
        Effect::CreateJob(new) => Some((**new).clone()),
        _ => None,
    });
    let job = job.unwrap();
    let env = |name: &str| job.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap();
    assert_eq!((env("RELEASE_NAME"), env("RELEASE_SERVICE")), ("shop".to_owned(), "shop".to_owned()));
    assert_eq!(env("RELEASE_REVISION"), world.hash("v2"));
    assert!(job.never.contains("app"), "{:?}", job.never);
    assert_eq!(job.timeout.as_millis(), 90_000);
    assert!(matches!(job.run, Run::Pod(_)));
}

#[rstest]
#[case::before_the_promotion("BeforeTraffic", true, Some("shop-candidate"))]
#[case::without_a_service_of_its_own("BeforeTraffic", false, None)]
#[case::after_the_promotion("AfterPromotion", true, Some("shop"))]
fn a_job_knows_the_candidate_by_the_service_that_leads_to_it(
    #[case] when: &str,
    #[case] own: bool,
    #[case] service: Option<&str>,
) {
    let mut world = World::healthy(serde_json::from_str(r#"{"blueGreen": {}}"#).unwrap(), 2);
    world.edit(|spec| {
        spec.checks = serde_json::from_value(smoke(&json!({"when": [when]}))).unwrap();
        spec.traffic.as_mut().unwrap().candidate_service = own.then(|| "shop-candidate".to_owned());
        spec.observation = serde_json::from_value(json!({"duration": "1h"})).unwrap();
    });
    world.settle();
    world.set_image("v2");
    for _ in 0..10 {
        world.settle();
        world.wait(5);
    }
    let env = world.log.iter().find_map(|effect| match effect {
        Effect::CreateJob(new) => Some(new.env.clone()),
        _ => None,
    });
    let env: std::collections::BTreeMap<_, _> = env.unwrap_or_default().into_iter().collect();
    assert_eq!(env.get("RELEASE_CANDIDATE_SERVICE").map(String::as_str), service);
}

#[test]
fn a_job_that_fails_takes_the_candidate_back_with_what_it_said() {
    let mut world = with_checks(smoke(&json!({})));
    release(&mut world, "v2");
    end(&mut world, 99);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "CheckFailed"));
    assert!(
        status.message.contains("check smoke failed: exit code 99: p95 was 900ms (Job shop-smoke-"),
        "{}",
        status.message
    );
    assert_eq!(world.seen.jobs.len(), 1, "its log stays");
    release(&mut world, "v3");
    assert_eq!(created(&world).len(), 2);
    assert_eq!(world.seen.jobs.len(), 1, "the log of the last release is gone");
}

#[test]
fn each_attempt_is_a_job_of_its_own() {
    let mut world = with_checks(smoke(&json!({"failureThreshold": 2, "successThreshold": 2, "interval": "5s"})));
    release(&mut world, "v2");
    for (code, attempts) in [(1, 1), (0, 2)] {
        end(&mut world, code);
        assert_eq!((outcome(&world), world.seen.jobs.len()), ((CheckOutcome::Running, attempts), 1));
        world.wait(5);
        world.settle();
    }
    assert_eq!(created(&world).len(), 3);
    end(&mut world, 0);
    assert_eq!(outcome(&world), (CheckOutcome::Passed, 3));
}

#[test]
fn a_release_that_is_aborted_takes_its_running_job_along() {
    let mut world = with_checks(smoke(&json!({})));
    release(&mut world, "v2");
    assert_eq!(world.seen.jobs.len(), 1);
    world.say(Action::Abort, |_| {});
    world.settle();
    assert_eq!((world.phase(), world.seen.jobs.len()), (Phase::RolledBack, 0));
    assert_eq!(created(&world).len(), 1);
}

#[test]
fn a_job_that_the_api_server_refuses_fails_the_check_with_its_words() {
    let mut world = with_checks(smoke(&json!({})));
    release(&mut world, "v2");
    let name = world.status().checks[0].job.clone().unwrap();
    world.seen.jobs.clear();
    let refused = |text: &str, definite: bool| Some(Denial { text: format!("create Job {text}"), definite });
    for (refusal, told) in [
        (refused(&format!("shop/{name}-2: not this one"), true), ""),
        // It may be another one in a while.
        (refused(&format!("shop/{name}: jobs.batch is forbidden: exceeded quota"), false), "exceeded quota"),
    ] {
        world.seen.refusal = refusal;
        let state = decide(&world.release, &world.seen, world.now).status.checks[0].clone();
        assert_eq!(state.outcome, CheckOutcome::Running, "{}", state.message);
        assert!(state.message.contains(told), "{}", state.message);
    }
    world.seen.refusal = refused(&format!("shop/{name}: spec.template.spec.containers[0].image: Required value"), true);
    world.settle();
    world.seen.refusal = None;
    world.settle();
    let status = world.status();
    assert_eq!(status.phase, Phase::RolledBack);
    assert!(status.message.contains("image: Required value"), "{}", status.message);
}

/// The kubelet ends its pod, and the Job controller has no words for what it ran into.
#[rstest]
#[case::it_ran(
    "its time was over: exit code 105: TOTAL RESULTS",
    None,
    "not done within 10m: exit code 105: TOTAL RESULTS"
)]
#[case::it_never_ran(
    "BackoffLimitExceeded: Job has reached the specified backoff limit",
    Some("ErrImagePull: not found"),
    "its pod did not start: ErrImagePull: not found"
)]
#[case::no_node_took_it(
    "DeadlineExceeded: Job was active longer than specified deadline",
    Some("Insufficient cpu"),
    "its pod did not start: Insufficient cpu"
)]
#[case::it_was_deleted(
    "BackoffLimitExceeded: Job has reached the specified backoff limit",
    None,
    "its pod was deleted before "
)]
#[case::nobody_knows("DeadlineExceeded: Job was active longer than specified deadline", None, "not done within 10m (")]
fn a_job_that_is_not_done_in_its_time_says_what_held_it_up(
    #[case] said: &str,
    #[case] stuck: Option<&str>,
    #[case] told: &str,
) {
    let mut world = with_checks(smoke(&json!({})));
    release(&mut world, "v2");
    world.seen.jobs[0].stuck = stuck.map(str::to_owned);
    world.settle();
    if stuck.is_some() {
        let next = world.status().next_action;
        let job = &world.seen.jobs[0].object.name;
        assert_eq!(
            next,
            format!(
                "kubectl -n default describe job {job} | kubectl srel -n default skip shop | kubectl srel -n default abort shop"
            )
        );
    }
    // Its pod goes before its end is told.
    (world.seen.jobs[0].pod, world.seen.jobs[0].stuck) = (JobPod::Gone, None);
    world.wait(30);
    world.settle();
    world.seen.jobs[0].end = Some(ended(world.now, false, said));
    world.settle();
    let status = world.status();
    assert!(status.message.contains(&format!("check smoke failed: {told}")), "{}", status.message);
}

/// A program may exit with 0 when it is told to end.
#[test]
fn a_job_whose_pod_was_deleted_is_no_success() {
    let mut world = with_checks(smoke(&json!({})));
    release(&mut world, "v2");
    world.seen.jobs[0].pod = JobPod::Gone;
    world.seen.jobs[0].end = Some(ended(world.now, true, "Completed"));
    world.settle();
    assert_eq!(outcome(&world), (CheckOutcome::Running, 0), "its pod may be behind in the cache");
    world.wait(5);
    world.settle();
    let status = world.status();
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.message);
    assert!(status.message.contains("its pod was deleted before it had ended by itself"), "{}", status.message);
}

/// A service account that is not there, a quota: the Job controller says so in Events alone.
#[test]
fn a_job_that_gets_no_pod_says_so_while_it_waits_and_in_the_end() {
    let mut world = with_checks(smoke(&json!({})));
    release(&mut world, "v2");
    world.seen.jobs[0].pod = JobPod::NotYet;
    world.settle();
    let told = |world: &World| world.status().checks[0].message.clone();
    assert!(told(&world).ends_with(" runs"), "at first nobody wonders: {}", told(&world));
    world.wait(10);
    world.settle();
    let name = world.seen.jobs[0].object.name.clone();
    assert!(told(&world).starts_with(&format!("Job {name} waits: no pod of it can be made: ")), "{}", told(&world));
    assert!(world.status().message.contains("no pod of it can be made"), "{}", world.status().message);
    world.seen.jobs[0].end =
        Some(ended(world.now, false, "DeadlineExceeded: Job was active longer than specified deadline"));
    world.settle();
    let status = world.status();
    assert!(
        status.message.contains("check smoke failed: no pod of it can be made: its service account"),
        "{}",
        status.message
    );
    assert!(told(&world).contains(&format!("refuses: kubectl describe job {name}")), "{}", told(&world));
}

#[test]
fn preflight_comes_before_any_pod_of_the_candidate() {
    let keys = json!([{"name": "env", "when": ["Preflight"], "keys": [{"secret": "shop", "keys": ["URL"]}]}]);
    let mut world = with_checks(keys);
    world.set_image("v2");
    for _ in 0..5 {
        world.wait(20);
        world.settle();
        assert_eq!((world.pods("v1"), world.pods("v2")), (4, 0));
    }
    assert_eq!(world.status().step.unwrap().summary, "1/5 check env");
    end(&mut world, 0);
    assert_eq!((world.phase(), outcome(&world)), (Phase::Paused, (CheckOutcome::Passed, 1)));
    assert!(world.pods("v2") > 0);
}

#[test]
fn a_check_by_sql_knows_where_the_url_stands_and_tells_what_it_saw() {
    let sql = json!([{"name": "orphans", "when": ["Preflight"], "sql": {"query": "SELECT 1"}}]);
    let mut world = World::healthy(serde_json::from_str(STEPS).unwrap(), 4);
    world.edit(|spec| {
        let database = json!({"urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}});
        spec.database = Some(serde_json::from_value(database).unwrap());
        spec.checks = serde_json::from_value(sql).unwrap();
    });
    world.settle();
    world.set_image("v2");
    world.settle();
    let asked = world.log.iter().find_map(|effect| match effect {
        Effect::CreateJob(new) => Some(new.run.clone()),
        _ => None,
    });
    let Some(Run::Sql(question)) = asked else { panic!("{asked:?}") };
    assert_eq!((question.url.name.as_str(), question.url.key.as_str()), ("db", "URL"));
    end(&mut world, 0);
    let checks = world.status().checks;
    assert!(checks[0].message.starts_with("p95 was 900ms (Job shop-orphans-"), "{}", checks[0].message);
}

#[rstest]
#[case::quick(
    0,
    "took 12ms: 200 from 10.0.0.1:8080 in 12ms",
    Phase::Paused,
    "GET /zones: 200 from 10.0.0.1:8080 in 12ms (Job shop-zones-"
)]
#[case::slow(
    0,
    "took 512ms: 200 from 10.0.0.1:8080 in 512ms",
    Phase::RolledBack,
    "expected p95 within 500ms: 1 of 1 answers took longer; GET /zones: 200 from 10.0.0.1:8080 in 512ms (Job shop-zones-"
)]
#[case::wrong(
    1,
    "took 3ms: expected status 200 to 299 (500 from 10.0.0.1:8080 in 3ms)",
    Phase::RolledBack,
    "GET /zones: exit code 1: expected status 200 to 299 (500 from 10.0.0.1:8080 in 3ms) (Job shop-zones-"
)]
// At most the life of the Job.
#[case::not_told(
    0,
    "200 from 10.0.0.1:8080",
    Phase::RolledBack,
    "expected p95 within 500ms: 1 of 1 answers took longer; GET /zones: 200 from 10.0.0.1:8080 (Job shop-zones-"
)]
fn an_answer_to_a_job_is_as_slow_as_the_job_says_and_not_as_its_pod_is_old(
    #[case] code: i32,
    #[case] said: &str,
    #[case] phase: Phase,
    #[case] told: &str,
) {
    let header = json!({"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "env", "key": "TOKEN"}}});
    let http = json!({"path": "/zones", "headers": [header], "expect": {"maxLatency": "500ms"}});
    let mut world = with_checks(json!([{"name": "zones", "http": http}]));
    world.set_image("v2");
    world.settle();
    end_with(&mut world, code, said);
    let (status, checks) = (world.status(), world.status().checks);
    assert_eq!(status.phase, phase, "{}", status.message);
    assert!(checks[0].message.starts_with(told), "{}", checks[0].message);
    assert!(checks[0].message.contains(" in 5s)"), "the log is found: {}", checks[0].message);
}

fn promoted(checks: Value, observation: Option<&str>) -> World {
    let mut world = World::healthy(json!({"blueGreen": {}}), 2);
    world.edit(|spec| {
        spec.checks = serde_json::from_value(checks).unwrap();
        spec.observation = observation.map(|duration| serde_json::from_value(json!({"duration": duration})).unwrap());
    });
    world.settle();
    world.set_image("v2");
    world.settle();
    world
}

fn minutes(world: &mut World, count: u32) {
    for _ in 0..count * 30 {
        world.wait(2);
        world.settle();
    }
}

#[test]
fn after_the_promotion_a_wrong_answer_takes_the_release_back_to_the_previous_revision() {
    let checks = json!([{"name": "live", "when": ["AfterPromotion"], "attempts": 3, "http": {"target": "Service"}}]);
    for (good, phase, stable) in [(true, Phase::Healthy, "v2"), (false, Phase::RolledBack, "v1")] {
        let mut world = promoted(json!([]), None);
        assert_eq!(world.stable(), "v2");
        world = promoted(checks.clone(), None);
        world.reply = if good { |_| Some(right()) } else { |_| Some(wrong()) };
        minutes(&mut world, 1);
        assert_eq!((world.phase(), world.stable().as_str()), (phase, stable), "{}", world.status().message);
        let told = world.status().message;
        assert!(good || told.contains("check live failed: GET /: expected status 200 (503)"), "{told}");
    }
}

#[test]
fn a_standing_probe_goes_on_while_the_release_is_observed() {
    let checks = json!([{"name": "live", "when": [], "every": "5m", "http": {}}]);
    let mut world = promoted(checks.clone(), Some("1h"));
    world.reply = |_| Some(right());
    minutes(&mut world, 12);
    let status = world.status();
    assert_eq!((status.phase, status.observation.is_some()), (Phase::Observing, true), "{}", status.message);
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True", "nobody waits a day for a release that serves");
    let asked = world.status().checks[0].started_at;
    minutes(&mut world, 6);
    assert!(world.status().checks[0].started_at > asked);
    minutes(&mut world, 45);
    assert_eq!((world.phase(), world.status().observation), (Phase::Healthy, None));
    // And the same with an application that goes bad after a while.
    let mut world = promoted(checks, Some("1h"));
    world.reply = |_| Some(right());
    minutes(&mut world, 12);
    world.reply = |_| Some(wrong());
    minutes(&mut world, 6);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::RolledBack, "v1"), "{}", world.status().message);
}

#[test]
fn a_person_decides_where_nothing_goes_back_by_itself() {
    let checks = json!([{"name": "live", "when": ["AfterPromotion"], "onFailure": "Hold", "attempts": 3, "http": {}}]);
    let mut world = promoted(checks, Some("10m"));
    world.reply = |_| Some(wrong());
    minutes(&mut world, 1);
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Observing, "ObservationFailed"));
    assert!(status.next_action.contains("undo shop"), "{}", status.next_action);
    world.reply = |_| Some(right());
    world.say(Action::Retry, |_| {});
    minutes(&mut world, 11);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Healthy, "v2"), "{}", world.status().message);
}

#[test]
fn metrics_go_on_after_the_promotion() {
    let mut world = World::healthy(json!({"blueGreen": {}}), 2);
    world.edit(|spec| {
        let metric = json!({"name": "errors", "prometheus": {"query": "e{{pods}}"}, "threshold": {"max": 0.05}});
        spec.analysis = Some(serde_json::from_value(json!({"metrics": [metric]})).unwrap());
        spec.observation = Some(serde_json::from_value(json!({"duration": "1h"})).unwrap());
    });
    world.reply = |_| Some(Reply::Value(0.01));
    world.set_image("v2");
    minutes(&mut world, 3);
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::Observing, "v2"), "{}", world.status().message);
    world.reply = |_| Some(Reply::Value(0.5));
    minutes(&mut world, 1);
    let status = world.status();
    assert_eq!(
        (status.phase, status.reason.as_str(), world.stable().as_str()),
        (Phase::RolledBack, "AnalysisFailed", "v1")
    );
}

#[test]
fn a_job_after_the_promotion_runs_once_too() {
    let mut world = promoted(smoke(&json!({"when": ["AfterPromotion"]})), None);
    world.wait(30);
    world.settle();
    assert_eq!((world.phase(), created(&world).len(), world.seen.jobs.len()), (Phase::Observing, 1, 1));
    end(&mut world, 1);
    world.wait(60);
    world.settle();
    assert_eq!((world.phase(), world.stable().as_str()), (Phase::RolledBack, "v1"), "{}", world.status().message);
    assert_eq!((created(&world).len(), world.seen.jobs.len()), (1, 1), "its log stays");
}

#[test]
fn after_a_rollback_stable_is_asked_and_the_outcome_told() {
    let checks = json!([
        {"name": "health", "http": {}},
        {"name": "back", "when": ["AfterRollback"], "attempts": 2, "http": {"target": "Service"}},
    ]);
    let mut world = with_checks(checks);
    world.reply = |question| Some(if question.id.starts_with("check/back") { right() } else { wrong() });
    world.set_image("v2");
    minutes(&mut world, 1);
    assert_eq!(world.phase(), Phase::RolledBack);
    let back = world.status().checks.into_iter().find(|check| check.name == "back").unwrap();
    assert_eq!((back.outcome, back.attempts), (CheckOutcome::Passed, 2));
}

const JOB: &str = r#"{"job": {"template": {"spec": {"containers": [{"name": "k6"}]}}}}"#;
const SQL: &str =
    r#"{"sql": {"urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}, "query": "SELECT 1", "expect": "NoRows"}}"#;
const KEYS: &str = r#"{"keys": [{"secret": "shop", "keys": ["TOKEN"]}]}"#;
const HOST: &str = r#"{"http": {"host": "example.com"}}"#;
const STABLE: &str = r#"{"http": {"target": "Stable"}}"#;
const CANDIDATE: &str = r#"{"http": {}}"#;
const LOGS: &str = r#"{"logs": {"pattern": "ERROR"}}"#;

/// What guards a migration guards it also where nothing runs; what tries the pods that come has none to try.
#[rstest]
#[case::a_job(JOB, "Preflight", true)]
#[case::sql(SQL, "Preflight", true)]
#[case::keys(KEYS, "Preflight", true)]
#[case::a_host(HOST, "Preflight", true)]
#[case::stable(STABLE, "Preflight", false)]
#[case::sql_later(SQL, "BeforeTraffic", true)]
#[case::keys_later(KEYS, "BeforeTraffic", true)]
#[case::the_candidate_later(CANDIDATE, "BeforeTraffic", false)]
#[case::logs_later(LOGS, "BeforeTraffic", false)]
#[case::a_host_later(HOST, "BeforeTraffic", false)]
#[case::a_job_later(JOB, "BeforeTraffic", false)]
fn without_pods_what_needs_none_is_asked(#[case] check: &str, #[case] when: &str, #[case] asked: bool) {
    let mut check: Value = serde_json::from_str(check).unwrap();
    (check["name"], check["when"]) = (json!("guard"), json!([when]));
    let mut world = with_checks(json!([check]));
    world.edit(|spec| spec.replicas = Some(0));
    world.settle();
    world.reply = |_| Some(wrong());
    world.set_image("v2");
    world.settle();
    let run = !created(&world).is_empty();
    if run {
        end(&mut world, 1);
    }
    world.settle();
    let expected = if asked { (CheckOutcome::Failed, 1) } else { (CheckOutcome::Skipped, 0) };
    assert_eq!((outcome(&world), run), (expected, asked && !check["http"].is_object()), "{}", world.status().message);
    assert_eq!(world.stable() == "v1", asked || world.phase() == Phase::Paused, "{}", world.status().message);
}
