//! Metrics from a real Prometheus on real pods: a good candidate is promoted on the strength of its verdicts,
//! a bad one goes back in the middle of its pause, and a Prometheus that is away holds the release.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use servicerelease::api::{Phase, ServiceReleaseStatus, VerdictOutcome};
use tokio::time::{interval, timeout};

use crate::{
    harness::{Load, Scenario, Shop, World, counted, kubectl, kubectl::Answer},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    the_example_of_analysis, Together, Prometheus;
    a_web_api_and_the_pods_themselves, Together, Prometheus;
    the_example_of_templates, Together, Prometheus;
    the_ready_made_templates, Together, Prometheus;
    prometheus_is_away, Alone, Prometheus;
    prometheus_is_away_from_the_beginning, Alone, Prometheus;
};

/// The example on test pods, which Prometheus is to scrape.
async fn example(world: &World, change: impl FnOnce(&mut Value)) -> (Shop, Load) {
    let mut text: Value = serde_saphyr::from_str(include_str!("../../../deploy/examples/analysis.yaml")).unwrap();
    change(&mut text);
    let shop = super::gateway::example(world, &serde_json::to_string(&text).unwrap()).await;
    (shop, world.load().await)
}

fn outcomes(status: &ServiceReleaseStatus) -> Vec<VerdictOutcome> {
    status.verdicts.iter().map(|verdict| verdict.outcome).collect()
}

async fn the_example_of_analysis(world: World) {
    // Also stable's answers are errors, now and then: what counts is the difference. A person brings it there,
    // since v1 has none.
    let (shop, load) = example(&world, |_| {}).await;
    shop.release("v2", &[("ERROR_RATE", "0.02")]).await;
    shop.reaches("v2 is on its way", |status| status.candidate.is_some()).await;
    shop.command("Promote", "{full: true}").await;
    shop.healthy().await;
    shop.release("v3", &[("ERROR_RATE", "0.02")]).await;
    let status = shop.healthy().await;
    assert_eq!(outcomes(&status), [VerdictOutcome::Pass; 3], "{:?}", status.verdicts);
    let verdict = &status.verdicts[0];
    let (candidate, stable) = counted(verdict);
    assert!(candidate >= 200 && stable >= 200, "{verdict:?}");
    assert!(verdict.segments.iter().all(|segment| segment.weight == 50), "{verdict:?}");
    assert!(status.verdicts[0].ln_evidence.is_some(), "{:?}", status.verdicts[0]);
    split(&world, &status.stable.expect("what serves").revision).await;

    shop.release("v4", &[("ERROR_RATE", "0.5")]).await;
    let status = shop.reaches("RolledBack", |status| status.phase == Phase::RolledBack).await;
    assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
    assert!(status.message.contains("metric errors-vs-stable failed: "), "{}", status.message);
    world.event("VerdictFail", "metric errors-vs-stable: ").await;
    replayed(&world).await;

    shop.release("v5", &[("ERROR_RATE", "0.02"), ("LATENCY", "900ms")]).await;
    let number = status.release.unwrap().number + 1;
    let status = shop
        .reaches("RolledBack once more", |status| {
            status.phase == Phase::RolledBack && status.release.as_ref().is_some_and(|release| release.number == number)
        })
        .await;
    assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
    let slow = ["metric slow-vs-stable failed: ", "metric p95 failed: "];
    assert!(slow.iter().any(|told| status.message.contains(told)), "{}", status.message);
    drop(load);
}

/// The release that was taken back, judged once more from what Prometheus still has.
async fn replayed(world: &World) {
    let text = analyze(world, "").await.expect_success();
    assert!(text.contains("errors-vs-stable: Fail after "), "{text}");
    assert!(text.contains("the release would have gone back at "), "{text}");
}

/// The two pods that serve, one of them as a candidate; one alone cannot be split.
async fn split(world: &World, revision: &str) {
    let from = Timestamp::now();
    let aa = async |more: &str| {
        let window = format!("--from {from} --to {} --revision {revision}", Timestamp::now());
        let words = format!("--metric errors-vs-stable --aa {window} --stable-revision {revision} {more}");
        analyze(world, &words).await.text
    };
    let mut text = String::new();
    let asking = async {
        let mut ticks = interval(Duration::from_secs(1));
        // Until both have answered, and a look was due.
        while !text.contains("; 1 of 2 pods played the candidate; compare.confidence allows 5%") {
            ticks.tick().await;
            text = aa("").await;
        }
    };
    let ended = timeout(Duration::from_secs(120), asking).await;
    assert!(ended.is_ok() && text.contains("errors-vs-stable: 0 of 2 splits failed, 0.0%"), "{text}");
    let of = format!("http_requests_total{{namespace=\"{}\",pod=~\"shop-{revision}-.*\"}}", world.namespace);
    let series = world.series(&of).await;
    let text = aa(&format!("--stable-pods {}", series[0]["metric"]["pod"].as_str().expect("a pod"))).await;
    let told = "errors-vs-stable: no data: 1 of stable's pods answered requests, too few to split";
    assert!(text.contains(told), "{text}");
}

async fn analyze(world: &World, words: &str) -> Answer {
    let prometheus = world.prometheus().await;
    let cluster = world.cluster.embedded.as_deref().expect("the embedded cluster");
    let kubeconfig = format!("KUBECONFIG={}", std::env::var("KUBECONFIG").expect("KUBECONFIG"));
    let mut all = vec!["--name", cluster, "exec", "--", "env", &kubeconfig, env!("CARGO_BIN_EXE_kubectl-srel")];
    all.extend(["-n", &world.namespace, "analyze", "shop", "--prometheus", &prometheus]);
    all.extend(words.split_whitespace());
    kubectl::run(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/devcluster/devcluster"), &all).await
}

async fn a_web_api_and_the_pods_themselves(world: World) {
    // Prometheus again, as any API that answers with JSON.
    let share = "(sum(rate(http_requests_total{pod=~\"{{pods}}\",code=~\"5..\"}[15s]))or vector(0))/sum(rate(http_requests_total{pod=~\"{{pods}}\"}[15s]))";
    let query = share.bytes().fold(String::new(), |query, byte| match byte {
        b'{' | b'}' | b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' => format!("{query}{}", char::from(byte)),
        byte => format!("{query}%{byte:02X}"),
    });
    let metrics = json!([
        {"name": "errors", "web": {"provider": "api", "path": format!("/query?query={query}"),
            "value": "double(json.data.result[0].value[1])"}, "threshold": {"max": 0.05}},
        {"name": "restarts", "workload": {"maxRestarts": 0}},
    ]);
    let (shop, _load) = example(&world, |release| {
        release["spec"]["analysis"] = json!({"interval": "2s", "metrics": metrics, "maxDuration": "1m"});
    })
    .await;
    shop.release("v2", &[]).await;
    let status = shop.healthy().await;
    assert_eq!(outcomes(&status), [VerdictOutcome::Pass; 2], "{:?}", status.verdicts);
    assert!(status.conditions.iter().any(|it| it.type_ == "AnalysisPassed" && it.status == "True"));
    for (version, variable, told) in [
        ("v3", ("ERROR_RATE", "0.5"), "metric errors failed: "),
        ("v4", ("CRASH_AFTER_REQUESTS", "200"), "metric restarts failed: "),
    ] {
        let stable = shop.status().await.stable.unwrap().revision;
        shop.release(version, &[variable]).await;
        let status = shop.reaches(told, |status| status.phase == Phase::RolledBack).await;
        assert_eq!(
            (status.reason.as_str(), status.stable.unwrap().revision),
            ("AnalysisFailed", stable),
            "{}",
            status.message
        );
        assert!(status.message.contains(told), "{}", status.message);
    }
}

/// Those of the chart, for all namespaces.
async fn install_templates(world: &World) {
    let answer = world.kubectl("apply --server-side --force-conflicts -k deploy/kustomize/analysis-templates").await;
    assert_eq!(answer.expect_success().matches("golden-signals-").count(), 6);
}

/// What failed, of a release that went back.
async fn rolled_back(shop: &Shop, told: &str) -> String {
    let status = shop.reaches(told, |status| status.phase == Phase::RolledBack).await;
    assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
    assert!(status.message.contains(told), "{}", status.message);
    status.message
}

async fn the_example_of_templates(world: World) {
    let text = include_str!("../../../deploy/examples/analysis-template.yaml");
    let (template, release) = text.split_once("\n---\n").unwrap();
    install_templates(&world).await;
    // A release that comes before its template waits for it.
    super::gateway::apply_example(&world, release).await;
    let shop = Shop::watch(&world, "shop").await;
    let status = shop.reaches("the template is missed", |status| status.phase == Phase::Invalid).await;
    assert_eq!(status.reason, "AnalysisTemplateNotFound");
    assert_eq!(status.message, "spec.analysis.templates[1]: there is no AnalysisTemplate quick-enough");
    world.apply(template).await;
    shop.healthy().await;

    let _load = world.load_through_gateway().await;
    shop.release("v2", &[]).await;
    let status = shop.healthy().await;
    let names: Vec<&str> = status.verdicts.iter().map(|verdict| verdict.name.as_str()).collect();
    assert_eq!(names, ["traefik-errors", "traefik-slow", "traefik-traffic", "latency"]);
    assert_eq!(outcomes(&status), [VerdictOutcome::Pass; 4], "{:?}", status.verdicts);
    let (candidate, stable) = counted(&status.verdicts[0]);
    assert!(candidate >= 200 && stable >= 200, "{:?}", status.verdicts[0]);
    shop.release("v3", &[("ERROR_RATE", "0.5")]).await;
    rolled_back(&shop, "metric traefik-errors failed: ").await;
}

/// The other ones that have a data plane here: Envoy's own counters, and those of the pods.
async fn the_ready_made_templates(world: World) {
    install_templates(&world).await;
    let limits = |name: &str| {
        let compare = json!({"maxRatio": 1.5, "minRequests": 200});
        json!([{"name": format!("{name}-errors"), "compare": compare}, {"name": format!("{name}-slow"), "compare": compare}])
    };
    let names = json!([
        {"name": "requests", "value": "http_requests_total"}, {"name": "status", "value": "code"},
        {"name": "duration", "value": "http_request_duration_seconds"},
    ]);
    let analysis = json!({"interval": "5s", "maxDuration": "3m", "templates": [
        {"templateName": "golden-signals-envoy", "clusterScope": true, "overrides": limits("envoy")},
        {"templateName": "golden-signals-http-server", "clusterScope": true, "args": names, "overrides": limits("http")},
        {"templateName": "golden-signals-saturation", "clusterScope": true, "args": [
            {"name": "cpu", "value": "1"}, {"name": "memory", "value": "128*1024*1024"}, {"name": "window", "value": "20s"},
        ]},
    ]});
    let scraped = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    let spec = json!({
        "analysis": analysis, "template": {"metadata": {"annotations": scraped}},
        "strategy": {"canary": {"steps": [{"setWeight": 50}]}},
    });
    let shop = world.routed_shop("ENVOY", &spec.to_string()).await;
    let _load = world.load_through("edge-envoy").await;
    shop.release("v2", &[]).await;
    let status = shop.healthy().await;
    assert_eq!(outcomes(&status), [VerdictOutcome::Pass; 8], "{:?}", status.verdicts);
    for verdict in status.verdicts.iter().filter(|verdict| !verdict.segments.is_empty()) {
        let (candidate, stable) = counted(verdict);
        assert!(candidate >= 200 && stable >= 200, "{verdict:?}");
    }
    shop.release("v3", &[("ERROR_RATE", "0.5")]).await;
    rolled_back(&shop, "-errors failed: ").await;
    shop.release("v4", &[("LATENCY", "900ms")]).await;
    shop.reaches("v4 is on its way", |status| status.candidate.is_some()).await;
    rolled_back(&shop, "-slow failed: ").await;
    shop.release("v5", &[("ALLOCATE_MIB", "150")]).await;
    shop.reaches("v5 is on its way", |status| status.candidate.is_some()).await;
    rolled_back(&shop, "metric memory-saturation failed: ").await;
}

async fn prometheus_is_away(world: World) {
    let (shop, load) = example(&world, |release| {
        release["spec"]["analysis"]["interval"] = json!("2s");
    })
    .await;
    shop.release("v2", &[]).await;
    shop.step("2/4 setWeight 50", Phase::Progressing).await;
    world.devcluster(&["kill", "prometheus"]).await;
    let status = shop.reaches("held without data", |status| status.reason == "AnalysisInconclusive").await;
    assert_eq!((status.phase, status.weights.unwrap().desired.candidate), (Phase::Paused, 50));
    assert!(status.message.contains("Prometheus default: no connection"), "{}", status.message);
    assert!(status.next_action.contains("goes on by itself"), "{}", status.next_action);
    world.devcluster(&["restart", "prometheus"]).await;
    let status = shop.healthy().await;
    assert_eq!(outcomes(&status), [VerdictOutcome::Pass; 3], "{:?}", status.verdicts);
    load.assert_no_failed_requests().await;
}

/// Neither a weight nor a switch gives the candidate requests that nobody could measure.
async fn prometheus_is_away_from_the_beginning(world: World) {
    let (shop, load) = example(&world, |release| {
        release["spec"]["analysis"]["interval"] = json!("2s");
    })
    .await;
    world.devcluster(&["kill", "prometheus"]).await;
    shop.release("v2", &[]).await;
    held_before_requests(&shop).await;
    world.devcluster(&["restart", "prometheus"]).await;
    let status = shop.healthy().await;
    assert_eq!(outcomes(&status), [VerdictOutcome::Pass; 3], "{:?}", status.verdicts);

    // The same of a switch; what has no threshold is for canaries.
    let metrics = json!(shop.get().await.spec.analysis.expect("an analysis").metrics);
    let limits: Vec<&Value> =
        metrics.as_array().expect("a list").iter().filter(|metric| metric.get("threshold").is_some()).collect();
    let switch = json!({"spec": {
        "strategy": {"canary": null, "blueGreen": {}}, "observation": {"duration": "30s"}, "analysis": {"metrics": limits},
    }});
    shop.patch(&switch.to_string()).await;
    world.devcluster(&["kill", "prometheus"]).await;
    shop.release("v3", &[]).await;
    held_before_requests(&shop).await;
    world.devcluster(&["restart", "prometheus"]).await;
    shop.reaches("v3 is observed", |status| status.phase == Phase::Observing).await;
    let status = shop.healthy().await;
    assert_eq!(outcomes(&status), [VerdictOutcome::Pass], "{:?}", status.verdicts);
    load.assert_no_failed_requests().await;
}

async fn held_before_requests(shop: &Shop) {
    let status = shop.reaches("held without an answer", |status| status.reason == "AnalysisInconclusive").await;
    let (weights, stable) = (status.weights.unwrap(), status.stable.unwrap().revision);
    assert_eq!((status.phase, weights.desired.candidate, weights.observed.candidate), (Phase::Paused, 0, 0));
    assert!(status.message.contains("Prometheus default: no connection"), "{}", status.message);
    assert!(status.next_action.contains("goes on by itself when the provider answers"), "{}", status.next_action);
    let condition = status.conditions.iter().find(|it| it.type_ == "AnalysisPassed").expect("the condition");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("Unknown", "Inconclusive"));
    // It stays so, however often it is asked.
    let often = |status: &ServiceReleaseStatus| {
        status.step.as_ref().and_then(|step| step.unreached.as_ref()).is_some_and(|it| it.times >= 4)
    };
    let status = shop.reaches("asked again and again", often).await;
    assert_eq!((status.reason.as_str(), status.stable.unwrap().revision), ("AnalysisInconclusive", stable));
}
