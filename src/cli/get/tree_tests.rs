use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ServiceRelease, ServiceReleaseSpec},
    cli::{
        get::view::{Seen, view},
        outcome::Workload,
    },
};

/// 03:14:05, ten minutes after everything began.
fn now() -> Timestamp {
    serde_json::from_value(json!("2026-01-02T03:14:05Z")).unwrap()
}

fn at(clock: &str) -> String {
    format!("2026-01-02T{clock}Z")
}

fn revision(hash: &str, release: i64, tag: u32, replicas: i32, ready: i32) -> Value {
    json!({"revision": hash, "release": release, "images": [format!("registry.example.com/shop:{tag}")],
        "replicas": replicas, "readyReplicas": ready, "availableReplicas": ready})
}

fn pod(hash: &str, suffix: &str, container: Value) -> Value {
    let mut container = container;
    for (key, value) in [("name", json!("app")), ("image", json!("")), ("imageID", json!(""))] {
        container[key] = value;
    }
    json!({
        "metadata": {"name": format!("shop-{hash}-{suffix}"), "creationTimestamp": at("03:11:05"),
            "labels": {"servicerelease.io/revision": hash}},
        "status": {"conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": if container["ready"] == true { "True" } else { "False" }},
        ], "containerStatuses": [container]},
    })
}

fn ready() -> Value {
    json!({"ready": true, "restartCount": 0, "started": true, "state": {"running": {}}})
}

fn crashing() -> Value {
    json!({"ready": false, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}})
}

fn conditions(ready: &str, reconciling: &str, stalled: &str, available: &str) -> Value {
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "X", "message": "", "lastTransitionTime": at("03:04:05"), "observedGeneration": 3});
    json!([
        condition("Ready", ready),
        condition("Reconciling", reconciling),
        condition("Stalled", stalled),
        condition("Available", available)
    ])
}

/// Draws a status over the usual spec.
fn draw(status: Value, pods: &[Value]) -> String {
    draw_with(status, pods, &[], Workload::None)
}

fn draw_with(status: Value, pods: &[Value], sets: &[Value], workload: Workload) -> String {
    let release: ServiceRelease = serde_json::from_value(json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
        "metadata": {"name": "shop", "namespace": "production", "generation": 3},
        "spec": {"replicas": 4},
        "status": status,
    }))
    .unwrap();
    let plan: ServiceReleaseSpec = serde_json::from_value(json!({"strategy": {"canary": {"steps": [
        {"setWeight": 25}, {"pause": {"duration": "5m"}}, {"approval": {}}, {"setWeight": 50}, {"pause": {}},
    ]}}}))
    .unwrap();
    let pods: Vec<Pod> = pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
    let sets: Vec<ReplicaSet> = sets.iter().map(|set| serde_json::from_value(set.clone()).unwrap()).collect();
    let seen = Seen {
        release: &release,
        replica_sets: sets.iter().collect(),
        pods: pods.iter().collect(),
        plan: Some(&plan),
        workload,
        gaps: Vec::new(),
    };
    render(&view(&seen), now(), Paint::plain())
}

fn under_way(phase: &str, index: i32, step: &str, extra: Value) -> Value {
    let mut status = json!({
        "observedGeneration": 3, "phase": phase, "reason": "PauseStep",
        "release": {"number": 2, "plan": "shop-plan-2", "revision": "bbb", "startedAt": at("03:04:05")},
        "stable": revision("aaa", 1, 1, 3, 3), "candidate": revision("bbb", 2, 2, 1, 1),
        "step": {"index": index, "of": 7, "name": step, "summary": "", "startedAt": at("03:11:05"), "fromWeight": 0},
        "weights": {"desired": {"stable": 75, "candidate": 25}, "observed": {"stable": 75, "candidate": 25}},
        "conditions": conditions("Unknown", "True", "False", "True"),
        "timeline": [{"at": at("03:04:05"), "type": "Started", "release": 2, "message": "bbb: registry.example.com/shop:2"}],
    });
    for (key, value) in extra.as_object().unwrap() {
        status[key] = value.clone();
    }
    status
}

#[test]
fn progressing_in_a_pause_shows_the_way_and_the_time_left() {
    let status = under_way(
        "Progressing",
        3,
        "pause",
        json!({"message": "step 3 of 7: bbb stays at 25% until 2026-01-02T03:16:05.000Z"}),
    );
    let picture = draw(status, &[pod("bbb", "x1", ready()), pod("aaa", "y1", ready()), pod("aaa", "y2", ready())]);
    insta::assert_snapshot!(picture, @"
    production/shop  Progressing (PauseStep)
      step 3 of 7: bbb stays at 25% until 2026-01-02T03:16:05.000Z
      release     2 of revision bbb, began 10m ago
      step        3 of 7, pause 5m: 2m left
                  ✓ prepare → ✓ setWeight 25 → ▶ pause 5m → approval → setWeight 50 → pause until resumed → promote
      weight      candidate 25%, stable 75%
      conditions  Ready=Unknown  Reconciling=True  Stalled=False  Available=True

      ├─ candidate bbb  1/1 ready  release 2  registry.example.com/shop:2
      │  └─ shop-bbb-x1  Ready  0 restarts  3m
      └─ stable    aaa  3/3 ready  release 1  registry.example.com/shop:1
         ├─ shop-aaa-y1  Ready  0 restarts  3m
         └─ shop-aaa-y2  Ready  0 restarts  3m

        10m ago  Started  bbb: registry.example.com/shop:2
    ");
}

#[test]
fn progressing_towards_a_weight_shows_how_long_it_may_take_and_what_is_wrong() {
    let extra = json!({
        "reason": "SettingWeight", "message": "step 5 of 7: 50% to bbb",
        "candidate": revision("bbb", 2, 2, 2, 1),
        "weights": {"desired": {"stable": 50, "candidate": 50}, "observed": {"stable": 75, "candidate": 25}},
    });
    let picture = draw(
        under_way("Progressing", 5, "setWeight", extra),
        &[pod("bbb", "x1", ready()), pod("bbb", "x2", crashing())],
    );
    insta::assert_snapshot!(picture, @"
    production/shop  Progressing (SettingWeight)
      step 5 of 7: 50% to bbb
      release     2 of revision bbb, began 10m ago
      step        5 of 7, setWeight 50, for 3m (fails after 10m)
                  ✓ prepare → ✓ setWeight 25 → ✓ pause 5m → ✓ approval → ▶ setWeight 50 → pause until resumed → promote
      weight      candidate 50%, stable 50% (observed: candidate 25%, stable 75%)
      conditions  Ready=Unknown  Reconciling=True  Stalled=False  Available=True

      ├─ candidate bbb  1/2 ready  release 2  registry.example.com/shop:2
      │  ├─ shop-bbb-x2  CrashLoopBackOff  4 restarts  3m
      │  │    container app ended: Error, exit code 1
      │  └─ shop-bbb-x1  Ready             0 restarts  3m
      └─ stable    aaa  3/3 ready  release 1  registry.example.com/shop:1

        10m ago  Started  bbb: registry.example.com/shop:2
    ");
}

#[test]
fn awaiting_approval_names_the_command() {
    let extra = json!({"reason": "AwaitingApproval", "message": "step 4 of 7: bbb at 25% waits for approval",
        "nextAction": "kubectl srel -n production approve shop"});
    insta::assert_snapshot!(draw(under_way("AwaitingApproval", 4, "approval", extra), &[]), @"
    production/shop  AwaitingApproval
      step 4 of 7: bbb at 25% waits for approval
      next        kubectl srel -n production approve shop
      release     2 of revision bbb, began 10m ago
      step        4 of 7, approval, since 3m
                  ✓ prepare → ✓ setWeight 25 → ✓ pause 5m → ▶ approval → setWeight 50 → pause until resumed → promote
      weight      candidate 25%, stable 75%
      conditions  Ready=Unknown  Reconciling=True  Stalled=False  Available=True

      ├─ candidate bbb  1/1 ready  release 2  registry.example.com/shop:2
      └─ stable    aaa  3/3 ready  release 1  registry.example.com/shop:1

        10m ago  Started  bbb: registry.example.com/shop:2
    ");
}

#[test]
fn paused_with_a_held_failure_lists_all_that_can_be_done() {
    let extra = json!({
        "reason": "CrashLoopBackOff", "message": "step 5 of 7: container app of shop-bbb-x2 ended with exit code 1",
        "hold": {"reason": "CrashLoopBackOff", "message": "container app of shop-bbb-x2 ended with exit code 1", "since": at("03:12:05")},
        "nextAction": "kubectl srel -n production retry shop | kubectl srel -n production skip shop | kubectl srel -n production abort shop",
    });
    insta::assert_snapshot!(draw(under_way("Paused", 5, "setWeight", extra), &[pod("bbb", "x2", crashing())]), @"
    production/shop  Paused (CrashLoopBackOff)
      step 5 of 7: container app of shop-bbb-x2 ended with exit code 1
      next        kubectl srel -n production retry shop
                  kubectl srel -n production skip shop
                  kubectl srel -n production abort shop
      release     2 of revision bbb, began 10m ago
      step        5 of 7, setWeight 50, since 3m
                  ✓ prepare → ✓ setWeight 25 → ✓ pause 5m → ✓ approval → ▶ setWeight 50 → pause until resumed → promote
      weight      candidate 25%, stable 75%
      conditions  Ready=Unknown  Reconciling=True  Stalled=False  Available=True

      ├─ candidate bbb  1/1 ready  release 2  registry.example.com/shop:2
      │  └─ shop-bbb-x2  CrashLoopBackOff  4 restarts  3m
      │       container app ended: Error, exit code 1
      └─ stable    aaa  3/3 ready  release 1  registry.example.com/shop:1

        10m ago  Started  bbb: registry.example.com/shop:2
    ");
}

#[test]
fn paused_by_a_person_says_who_and_why() {
    let extra = json!({"reason": "PausedByCommand", "message": "step 3 of 7: paused by jane: looking at logs",
        "suspended": {"by": "jane", "reason": "looking at logs", "since": at("03:12:05")},
        "nextAction": "kubectl srel -n production resume shop"});
    insta::assert_snapshot!(draw(under_way("Paused", 3, "pause", extra), &[]), @"
    production/shop  Paused (PausedByCommand)
      step 3 of 7: paused by jane: looking at logs
      next        kubectl srel -n production resume shop
      release     2 of revision bbb, began 10m ago
      step        3 of 7, pause 5m, since 3m
                  ✓ prepare → ✓ setWeight 25 → ▶ pause 5m → approval → setWeight 50 → pause until resumed → promote
      weight      candidate 25%, stable 75%
      conditions  Ready=Unknown  Reconciling=True  Stalled=False  Available=True

      ├─ candidate bbb  1/1 ready  release 2  registry.example.com/shop:2
      └─ stable    aaa  3/3 ready  release 1  registry.example.com/shop:1

        10m ago  Started  bbb: registry.example.com/shop:2
    ");
}

#[test]
fn promoting_shows_the_last_step() {
    let extra = json!({"reason": "Promoting", "message": "step 7 of 7: all traffic to bbb",
        "weights": {"desired": {"stable": 0, "candidate": 100}, "observed": {"stable": 0, "candidate": 0}}});
    insta::assert_snapshot!(draw(under_way("Promoting", 7, "promote", extra), &[]), @"
    production/shop  Promoting
      step 7 of 7: all traffic to bbb
      release     2 of revision bbb, began 10m ago
      step        7 of 7, promote, for 3m (fails after 10m)
                  ✓ prepare → ✓ setWeight 25 → ✓ pause 5m → ✓ approval → ✓ setWeight 50 → ✓ pause until resumed → ▶ promote
      weight      candidate 100%, stable 0% (observed: no ready endpoint)
      conditions  Ready=Unknown  Reconciling=True  Stalled=False  Available=True

      ├─ candidate bbb  1/1 ready  release 2  registry.example.com/shop:2
      └─ stable    aaa  3/3 ready  release 1  registry.example.com/shop:1

        10m ago  Started  bbb: registry.example.com/shop:2
    ");
}

#[test]
fn healthy_shows_what_serves_and_what_undo_would_bring_back() {
    let status = json!({
        "observedGeneration": 3, "phase": "Healthy", "message": "bbb serves all traffic",
        "release": {"number": 2, "plan": "shop-plan-2", "revision": "bbb", "startedAt": at("03:04:05")},
        "stable": revision("bbb", 2, 2, 4, 4), "previous": revision("aaa", 1, 1, 0, 0),
        "weights": {"desired": {"stable": 100, "candidate": 0}, "observed": {"stable": 100, "candidate": 0}},
        "conditions": conditions("True", "False", "False", "True"),
        "timeline": (0..12).map(|minute| json!({"at": at(&format!("03:{minute:02}:05")), "type": "Step", "release": 2,
            "message": format!("step {minute}"), "by": if minute == 9 { json!("jane") } else { Value::Null }})).collect::<Vec<_>>(),
        "timelineDropped": 3,
    });
    let mut going = pod("ccc", "z1", ready());
    going["metadata"]["deletionTimestamp"] = json!(at("03:14:00"));
    insta::assert_snapshot!(draw(status, &[pod("bbb", "x1", ready()), going]), @"
    production/shop  Healthy
      bbb serves all traffic
      release     2 of revision bbb, began 10m ago
      weight      stable 100%
      conditions  Ready=True  Reconciling=False  Stalled=False  Available=True

      ├─ stable    bbb  4/4 ready  release 2  registry.example.com/shop:2
      │  └─ shop-bbb-x1  Ready  0 restarts  3m
      ├─ previous  aaa  no pods  release 1  registry.example.com/shop:1
      └─ old       ccc  1 going
         └─ shop-ccc-z1  Terminating  0 restarts  3m

      (7 earlier: kubectl srel -n production history shop)
        10m ago  Step  step 4
         9m ago  Step  step 5
         8m ago  Step  step 6
         7m ago  Step  step 7
         6m ago  Step  step 8
         5m ago  Step  step 9 (by jane)
         4m ago  Step  step 10
         3m ago  Step  step 11
    ");
}

#[test]
fn rolling_back_says_why_and_where_the_traffic_is() {
    let extra = json!({
        "reason": "OOMKilled", "message": "container app of shop-bbb-x2 was OOMKilled; traffic of bbb goes back",
        "rollback": {"fromWeight": 50, "cause": "Failed", "revision": "bbb", "release": 2, "reason": "OOMKilled",
            "message": "container app of shop-bbb-x2 was OOMKilled", "startedAt": at("03:14:00"), "drainUntil": at("03:14:35")},
        "weights": {"desired": {"stable": 100, "candidate": 0}, "observed": {"stable": 100, "candidate": 0}},
        "draining": [{"revision": "bbb", "until": at("03:14:35")}],
    });
    insta::assert_snapshot!(draw(under_way("RollingBack", 5, "setWeight", extra), &[pod("bbb", "x2", crashing())]), @"
    production/shop  RollingBack (OOMKilled)
      container app of shop-bbb-x2 was OOMKilled; traffic of bbb goes back
      release     2 of revision bbb, began 10m ago
      step        was 5 of 7, setWeight 50
      weight      stable 100%
      rollback    bbb (release 2), failed: OOMKilled
                  traffic is back, pods drain: 30s left; container app of shop-bbb-x2 was OOMKilled
      conditions  Ready=Unknown  Reconciling=True  Stalled=False  Available=True

      ├─ candidate bbb  1/1 ready  release 2  registry.example.com/shop:2  no traffic, pods drain: 30s left
      │  └─ shop-bbb-x2  CrashLoopBackOff  4 restarts  3m
      │       container app ended: Error, exit code 1
      └─ stable    aaa  3/3 ready  release 1  registry.example.com/shop:1

        10m ago  Started  bbb: registry.example.com/shop:2
    ");
}

#[test]
fn pods_that_are_kept_for_an_undo_are_told_from_those_that_drain() {
    let draining = json!([{"revision": "bbb", "until": at("03:14:35"), "keptFrom": at("03:14:00")}]);
    let drawn = draw(under_way("Progressing", 5, "setWeight", json!({"draining": draining})), &[]);
    assert!(drawn.contains("no traffic, kept for an undo: 30s left"), "{drawn}");
}

#[test]
fn rolled_back_keeps_the_reason_and_says_what_to_do() {
    let status = json!({
        "observedGeneration": 3, "phase": "RolledBack", "reason": "Aborted", "message": "bbb was rolled back (errors in checkout); aaa serves",
        "nextAction": "apply a template that fixes it, or kubectl srel -n production retry shop",
        "release": {"number": 2, "plan": "shop-plan-2", "revision": "bbb", "startedAt": at("03:04:05")},
        "stable": revision("aaa", 1, 1, 4, 4),
        "rollback": {"fromWeight": 50, "cause": "Aborted", "revision": "bbb", "release": 2, "reason": "Aborted", "by": "jane",
            "message": "errors in checkout", "startedAt": at("03:10:00"), "drainUntil": at("03:10:30"), "completedAt": at("03:10:35")},
        "failedRevisions": [
            {"revision": "bbb", "release": 2, "reason": "Aborted", "message": "errors in checkout", "at": at("03:10:00"), "latched": true},
        ],
        "weights": {"desired": {"stable": 100, "candidate": 0}, "observed": {"stable": 100, "candidate": 0}},
        "conditions": conditions("False", "False", "True", "True"),
    });
    insta::assert_snapshot!(draw(status, &[]), @"
    production/shop  RolledBack (Aborted)
      bbb was rolled back (errors in checkout); aaa serves
      next        apply a template that fixes it, or kubectl srel -n production retry shop
      release     2 of revision bbb, began 10m ago
      weight      stable 100%
      rollback    bbb (release 2), aborted by jane
                  completed 3m30s ago; errors in checkout
      conditions  Ready=False  Reconciling=False  Stalled=True  Available=True

      └─ stable    aaa  4/4 ready  release 1  registry.example.com/shop:1
    ");
}

#[test]
fn halted_on_the_first_revision_shows_what_failed() {
    let status = json!({
        "observedGeneration": 3, "phase": "Halted", "reason": "FirstRevisionFailed",
        "message": "the first revision bbb failed, and there is nothing to go back to: ErrImagePull",
        "failedRevisions": [{"revision": "bbb", "release": 1, "reason": "ErrImagePull", "message": "no such image", "at": at("03:10:00"), "latched": true}],
        "conditions": conditions("False", "False", "True", "False"),
    });
    insta::assert_snapshot!(draw(status, &[]), @"
    production/shop  Halted (FirstRevisionFailed)
      the first revision bbb failed, and there is nothing to go back to: ErrImagePull
      failed      bbb 4m5s ago: ErrImagePull: no such image
      conditions  Ready=False  Reconciling=False  Stalled=True  Available=False

      no revision yet
    ");
}

#[test]
fn invalid_and_pending_need_no_revision() {
    let invalid = json!({"observedGeneration": 3, "phase": "Invalid", "reason": "WorkloadNotFound",
        "message": "spec.workloadRef: there is no Deployment shop in this namespace", "nextAction": "create the Deployment"});
    insta::assert_snapshot!(draw(invalid, &[]), @"
    production/shop  Invalid (WorkloadNotFound)
      spec.workloadRef: there is no Deployment shop in this namespace
      next        create the Deployment

      no revision yet
    ");
    insta::assert_snapshot!(draw(json!({}), &[]), @"
    production/shop  Pending
      Not about the spec as it is now: the operator has not looked at generation 3 yet (it has seen 0)

      no revision yet
    ");
}

#[test]
fn a_status_that_is_not_about_this_spec_is_marked() {
    let status = json!({"observedGeneration": 3, "phase": "Healthy", "message": "aaa serves all traffic", "stable": revision("aaa", 1, 1, 4, 4),
        "workload": {"observedGeneration": 12, "revision": "aaa", "adoptedReplicas": 4}});
    let set = json!({"metadata": {"name": "shop-aaa", "labels": {"servicerelease.io/revision": "aaa"}},
        "spec": {"replicas": 4, "selector": {}}, "status": {"replicas": 4, "readyReplicas": 2, "availableReplicas": 1}});
    insta::assert_snapshot!(draw_with(status, &[], &[set], Workload::Generation(13)), @"
    production/shop  Healthy
      aaa serves all traffic
      Not about the spec as it is now: the operator has not looked at generation 13 of the Deployment yet (it has seen 12)

      └─ stable    aaa  2/4 ready, 1 available  release 1  registry.example.com/shop:1
    ");
}

#[test]
fn of_many_pods_those_in_trouble_are_shown() {
    let status = json!({"observedGeneration": 3, "phase": "Healthy", "stable": revision("aaa", 1, 1, 40, 39)});
    let mut pods: Vec<Value> = (10..49).map(|number| pod("aaa", &format!("p{number}"), ready())).collect();
    pods.push(pod("aaa", "zz", crashing()));
    insta::assert_snapshot!(draw(status, &pods), @"
    production/shop  Healthy

      └─ stable    aaa  39/40 ready  release 1  registry.example.com/shop:1
         ├─ shop-aaa-zz   CrashLoopBackOff  4 restarts  3m
         │    container app ended: Error, exit code 1
         ├─ shop-aaa-p10  Ready             0 restarts  3m
         ├─ shop-aaa-p11  Ready             0 restarts  3m
         ├─ shop-aaa-p12  Ready             0 restarts  3m
         ├─ shop-aaa-p13  Ready             0 restarts  3m
         ├─ shop-aaa-p14  Ready             0 restarts  3m
         ├─ shop-aaa-p15  Ready             0 restarts  3m
         └─ and 33 more, 33 of them ready
    ");
}

#[rstest::rstest]
#[case(json!({"weight": 25, "acceptedAt": at("03:13:05")}), "25% to the candidate's Service, accepted 1m ago")]
#[case(json!({"weight": 25}), "25% to the candidate's Service, not accepted by every Gateway")]
#[case(json!({"weight": 0, "headerRoute": "x-tester: yes"}), "0% to the candidate's Service, and requests with x-tester: yes, not")]
#[case(json!({"weight": 0, "mirrorPercent": 20}), "0% to the candidate's Service, and copies of 20%, not accepted")]
#[case(json!({"contestedBy": "argocd"}), "weights that are not the operator's, contested by argocd")]
fn a_route_is_shown_with_its_weight_and_what_the_gateways_say(#[case] change: Value, #[case] told: &str) {
    let mut route = json!({"name": "front", "generation": 4, "servedWeight": 0});
    for (key, value) in change.as_object().unwrap() {
        route[key] = value.clone();
    }
    let picture = draw(under_way("Progressing", 2, "setWeight", json!({"route": route})), &[]);
    assert!(picture.contains(&format!("route       HTTPRoute front: {told}")), "{picture}");
}

#[test]
fn checks_and_metrics_have_a_line_each_but_for_checks_that_passed() {
    let check = |name: &str, outcome: &str, message: &str| {
        json!({"name": name, "when": "BeforeTraffic", "release": 2, "step": 2, "outcome": outcome,
            "startedAt": at("03:13:05"), "attempts": 1, "message": message})
    };
    let verdict = |name: &str, outcome: &str, message: &str| {
        json!({"name": name, "outcome": outcome, "message": message, "startedAt": at("03:13:05"),
            "measuredAt": at("03:14:00")})
    };
    let picture = draw(
        under_way(
            "Progressing",
            2,
            "setWeight",
            json!({
                "checks": [check("auth", "Passed", ""), check("health", "Passed", ""),
                    check("quote", "Failed", "POST /api/quote: expected status 200 (503 from 10.0.0.1:8080 in 3ms)")],
                "verdicts": [verdict("errors", "Pass", "0.01 (max 0.05)"), verdict("p95", "Inconclusive", "no data: the query has no series")],
            }),
        ),
        &[],
    );
    for line in [
        "  checks      passed auth, health\n",
        "              failed quote: POST /api/quote: expected status 200 (503 from 10.0.0.1:8080 in 3ms)\n",
        "  metrics     Pass         errors: 0.01 (max 0.05) (5s ago)\n",
        "              Inconclusive p95: no data: the query has no series (5s ago)\n",
    ] {
        assert!(picture.contains(line), "{line}\n{picture}");
    }
}
