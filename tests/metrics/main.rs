//! The Prometheus provider and the ready-made templates against a real Prometheus: what they ask is understood, and what
//! they count is what was served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod served;
mod server;

use serde_json::json;
use servicerelease::{
    api::{
        Analysis, AnalysisTemplateSpec, Duration, Metric, ServiceRelease, TallyStatus, TemplateRef, Timestamp,
        VerdictOutcome,
    },
    engine::{Answer, Ask, Measure, NamedTemplate, Reply, measuring, names::Sides, templates},
    metrics::Providers,
};

use served::{Served, page};
use server::{Exporter, Prometheus, file, until, value};

/// The revisions, as they stand in the names of pods.
const CANDIDATE: &str = "cccccccccc";
const STABLE: &str = "ssssssssss";

fn release() -> ServiceRelease {
    let release = json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
        "metadata": {"name": "shop", "namespace": "market"},
        "spec": {"traffic": {"service": "shop", "candidateService": "shop-candidate"}},
    });
    serde_json::from_value(release).unwrap()
}

/// The metrics of a template of the chart, with these arguments.
fn metrics(name: &str, args: serde_json::Value) -> Vec<Metric> {
    let file = format!("charts/service-release-operator/files/analysis-templates/{name}.yaml");
    let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let template: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let spec: AnalysisTemplateSpec = serde_json::from_value(template["spec"].clone()).unwrap();
    let reference: TemplateRef = serde_json::from_value(json!({"templateName": name, "args": args})).unwrap();
    let analysis: Analysis = serde_json::from_value(json!({"templates": [reference]})).unwrap();
    let known = NamedTemplate { name: name.into(), cluster_scope: false, spec };
    templates::resolve(&analysis, &[known]).unwrap().metrics
}

/// What is asked of the provider for a metric since then.
fn asked(metric: &Metric, since: Timestamp) -> (String, Measure) {
    let sides = Sides::new(&release(), Duration::from_secs(30), CANDIDATE, STABLE);
    let shared = Some(measuring::Shared { weight: 50, since });
    match measuring::asked(metric, &sides, shared, &measuring::begin(metric, since)) {
        Some(Ask::Metric { provider, measure }) => (provider, *measure),
        other => panic!("{}: {other:?}", metric.name),
    }
}

/// Waits until a page of this number was scraped.
async fn scraped(providers: &Providers, number: f64) {
    let query = "page";
    until(&format!("page {number}"), async || match value(providers, query).await {
        Reply::Value(found) if found >= number => Some(()),
        _ => None,
    })
    .await;
}

fn now() -> Timestamp {
    Timestamp::new(jiff::Timestamp::now())
}

#[tokio::test]
async fn the_ready_made_templates_count_what_was_served() {
    let before = [Served { requests: 5000, errors: 50, slow: 500 }, Served { requests: 70_000, errors: 700, slow: 7 }];
    let after = [Served { requests: 5100, errors: 57, slow: 511 }, Served { requests: 70_900, errors: 709, slow: 28 }];
    let exporter = Exporter::start(page(1, before)).await;
    let prometheus = Prometheus::start(&exporter, None);
    let providers = prometheus.providers("http", json!({}));
    scraped(&providers, 1.0).await;
    let since = now();
    exporter.show(page(2, after));
    scraped(&providers, 2.0).await;
    for name in ["traefik", "envoy", "istio", "nginx", "http-server"] {
        let all = metrics(name, json!([]));
        assert_eq!(all.len(), 3, "{name}");
        for metric in all {
            let (provider, measure) = asked(&metric, since);
            let of_both = 100 + 900;
            let what = format!("{of_both} requests of {}", metric.name);
            // Samples are counted when they are a second old.
            let found = until(&what, async || match providers.measure(&provider, &measure).await {
                Reply::Counts { candidate, stable, .. } if candidate.requests + stable.requests < of_both => None,
                // 100 within a minute are the candidate's, 200 would be another namespace's, too. Of a few samples Prometheus
                // makes up to twice as many.
                Reply::Value(rate) if !(1.0..2.0).contains(&rate) => None,
                found => Some(found),
            })
            .await;
            let counts = match found {
                Reply::Counts { candidate, stable, .. } => [candidate, stable],
                Reply::Value(_) if metric.name.ends_with("-traffic") => continue,
                other => panic!("{}: {other:?} to {measure:?}", metric.name),
            };
            let tally = |requests, events| TallyStatus { requests, events };
            let expected = match metric.name.ends_with("-errors") {
                true => [tally(100, 7), tally(900, 9)],
                false => [tally(100, 11), tally(900, 21)],
            };
            assert_eq!(counts, expected, "{} by {measure:?}", metric.name);
        }
    }
}

/// A label and a bucket that there are not, on one side or on both.
#[tokio::test]
async fn counters_that_are_not_there_are_told_apart_from_those_that_count_nothing() {
    let served = |requests| Served { requests, errors: 0, slow: 0 };
    let exporter = Exporter::start(page(1, [served(5000), served(70_000)])).await;
    let prometheus = Prometheus::start(&exporter, None);
    let providers = prometheus.providers("http", json!({}));
    scraped(&providers, 1.0).await;
    let since = now();
    exporter.show(page(2, [served(5900), served(70_900)]));
    scraped(&providers, 2.0).await;
    let name = "http_server_request_duration_seconds";
    let status = |label: &str| json!({"events": format!("{name}_count{{pod=~\"{{{{pods}}}}\",{label}=~\"5..\"}}")});
    let bucket = |le: &str| format!("{name}_bucket{{pod=~\"{{{{pods}}}}\",le=\"{le}\"}}");
    for (part, absent, told) in [
        (status("http_response_status_code"), [false, false], "0 of 1800 requests of the candidate, 0 of 1800"),
        (status("code"), [true, true], "no series of events was ever seen, on either side: see that"),
        (json!({"good": bucket("0.5")}), [false, false], "0 of 1800 requests of the candidate, 0 of 1800"),
        (json!({"good": bucket("0.3")}), [true, true], "no data: no series of good: neither candidate nor stable"),
        (
            json!({"good": bucket("0.5"), "stable": {"good": bucket("0.3")}}),
            [false, true],
            "no data: no series of good: stable has none, of 1800 requests; is there such a bucket (le)",
        ),
        (
            json!({"good": bucket("0.3"), "stable": {"good": bucket("0.5")}}),
            [true, false],
            "no series of good: the candidate has none, all its requests count as bad",
        ),
    ] {
        let mut asks = part.clone();
        asks["total"] = json!(format!("{name}_count{{pod=~\"{{{{pods}}}}\"}}"));
        let metric = json!({"name": "a", "prometheus": asks, "compare": {"maxRatio": 1.5}});
        let metric: Metric = serde_json::from_value(metric).unwrap();
        let (provider, measure) = asked(&metric, since);
        // 900 of each side, of two namespaces.
        let reply = until("1800 requests of both sides", async || match providers.measure(&provider, &measure).await {
            Reply::Counts { candidate, stable, .. } if candidate.requests + stable.requests < 3600 => None,
            found => Some(found),
        })
        .await;
        let Reply::Counts { absent: found, .. } = &reply else { panic!("{reply:?} to {measure:?}") };
        assert_eq!([found.candidate, found.stable], absent, "{part}");
        let mut state = measuring::begin(&metric, since);
        let shared = Some(measuring::Shared { weight: 50, since });
        measuring::take_in(&metric, shared, &Answer { id: String::new(), at: now(), reply }, &mut state);
        assert!(state.message.starts_with(told), "{part}: {}", state.message);
        let is_judged = part.get("good").is_none() || absent == [false, false];
        assert!(is_judged || state.outcome != VerdictOutcome::Pass, "{part}: {}", state.message);
    }
}

/// What comes late is counted by who waits for it.
#[tokio::test]
async fn samples_are_counted_when_they_have_settled() {
    let served = |requests| Served { requests, errors: 0, slow: 0 };
    let exporter = Exporter::start(page(1, [served(100), served(100)])).await;
    let prometheus = Prometheus::start(&exporter, None);
    let providers = prometheus.providers("http", json!({"settleSeconds": 300}));
    scraped(&providers, 1.0).await;
    let since = now();
    exporter.show(page(2, [served(150), served(150)]));
    scraped(&providers, 2.0).await;
    let all = metrics("http-server", json!([]));
    let (provider, measure) = asked(&all[0], since);
    let Reply::Counts { candidate, until, .. } = providers.measure(&provider, &measure).await else { panic!() };
    assert_eq!((candidate.requests, until), (0, since), "nothing yet, and nothing lost");
}

#[tokio::test]
async fn the_fullest_pod_counts() {
    let served = |requests| Served { requests, errors: 0, slow: 0 };
    let exporter = Exporter::start(page(1, [served(100), served(7000)])).await;
    let prometheus = Prometheus::start(&exporter, None);
    let providers = prometheus.providers("http", json!({}));
    scraped(&providers, 1.0).await;
    exporter.show(page(2, [served(115), served(70_000)]));
    scraped(&providers, 2.0).await;
    let args = json!([{"name": "cpu", "value": "0.5"}, {"name": "memory", "value": "4*200"}]);
    let all = metrics("saturation", args);
    let names: Vec<&str> = all.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["cpu-saturation", "memory-saturation"]);
    for (metric, expected) in [
        // The second pod's two containers: 120 seconds within two minutes are a core, which is twice what it may have. Of a
        // few samples Prometheus makes up to twice as many.
        (&all[0], 1.5..2.5),
        (&all[1], 1.15..1.16),
    ] {
        let (provider, measure) = asked(metric, now());
        until(&format!("{} within {expected:?}", metric.name), async || {
            match providers.measure(&provider, &measure).await {
                Reply::Value(found) if expected.contains(&found) => Some(()),
                Reply::Value(_) | Reply::NoData(_) => None,
                other => panic!("{other:?} to {measure:?}"),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_value_comes_with_its_number_of_requests() {
    let served = [Served { requests: 40, errors: 10, slow: 4 }, Served { requests: 8, errors: 1, slow: 0 }];
    let exporter = Exporter::start(page(1, served)).await;
    let prometheus = Prometheus::start(&exporter, None);
    let providers = prometheus.providers("http", json!({}));
    scraped(&providers, 1.0).await;
    let ask = async |query: &str, requests: &str| {
        let measure = Measure::Value { query: query.into(), requests: Some(requests.into()) };
        providers.measure("default", &measure).await
    };
    let of = |more: &str| format!("sum(istio_requests_total{{pod=~\"shop-{CANDIDATE}-.*\"{more}}})");
    let share = format!("{} / {}", of(",response_code=\"500\""), of(""));
    assert_eq!(ask(&share, &of("")).await, Reply::Share { value: 0.25, requests: 80.0 });
    assert!(matches!(ask(&share, "none").await, Reply::NoData(why) if why == "requests: the query has no series"));
    assert!(
        matches!(ask(&share, "sum(").await, Reply::Refused(why) if why.starts_with("the query is refused: ") && why.contains("parse error"))
    );
    // The quantile of a histogram: 72 of 80 within half a second, the others within a second.
    let quantile = |share: f64| {
        let buckets = format!("istio_request_duration_milliseconds_bucket{{pod=~\"shop-{CANDIDATE}-.*\"}}");
        format!("histogram_quantile({share}, sum by (le) ({buckets}))")
    };
    assert_eq!(value(&providers, &quantile(0.45)).await, Reply::Value(250.0));
    assert_eq!(value(&providers, &quantile(0.95)).await, Reply::Value(750.0));
}

/// A server that wants a certificate, and a password in a header.
#[tokio::test]
async fn a_prometheus_may_ask_who_wants_to_know() {
    let exporter = Exporter::start(page(1, [Served::default(); 2])).await;
    let web = json!({
        "tls_server_config": {"cert_file": file("tls/server.crt"), "key_file": file("tls/server.key"),
            "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": file("tls/ca.crt")},
        // The example of Prometheus's documentation: the password is test.
        "basic_auth_users": {"admin": "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"},
    });
    let prometheus = Prometheus::start(&exporter, Some(&web));
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "Basic YWRtaW46dGVzdA==\n").unwrap();
    let trust = json!({"caFile": file("tls/ca.crt")});
    let with = |more: serde_json::Value| {
        let mut all = trust.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let shown = json!({"certFile": file("tls/client.crt"), "keyFile": file("tls/client.key")});
    let mut known = shown.clone();
    known["headerFiles"] = json!({"Authorization": password.path()});
    scraped(&prometheus.providers("https", with(known)), 1.0).await;
    for (more, told) in [(json!({}), "no connection: "), (trust.clone(), "no "), (with(shown), "status 401")] {
        let reply = value(&prometheus.providers("https", more.clone()), "page").await;
        let Reply::ProviderError(why) = reply else { panic!("{more}: {reply:?}") };
        assert!(why.starts_with(told), "{more}: {why}");
    }
    let plain = value(&prometheus.providers("http", json!({})), "page").await;
    assert!(matches!(plain, Reply::ProviderError(_)), "{plain:?}");
}

/// A check of a host beyond the release, asked by the runner, which trusts this authority.
#[tokio::test]
async fn a_host_is_verified() {
    let exporter = Exporter::start(page(1, [Served::default(); 2])).await;
    let web = json!({"tls_server_config": {"cert_file": file("tls/server.crt"), "key_file": file("tls/server.key")}});
    let prometheus = Prometheus::start(&exporter, Some(&web));
    scraped(&prometheus.providers("https", json!({"caFile": file("tls/ca.crt")})), 1.0).await;
    let left = tempfile::NamedTempFile::new().unwrap();
    let ask = async |more: serde_json::Value, authority: &str| {
        let mut http = json!({"host": prometheus.host(), "scheme": "HTTPS", "path": "/-/healthy"});
        http.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let question = json!({"http": http, "addresses": [prometheus.host()], "timeout": "20s"});
        let mut runner = tokio::process::Command::new(env!("CARGO_BIN_EXE_service-release-operator"));
        runner.args(["check-http", "--question", &question.to_string()]);
        runner.arg("--message").arg(left.path()).env("SSL_CERT_FILE", file(authority)).env_remove("SSL_CERT_DIR");
        let ended = runner.output().await.unwrap();
        (ended.status.success(), std::fs::read_to_string(left.path()).unwrap())
    };
    let (passed, told) = ask(json!({}), "tls/ca.crt").await;
    assert!(passed && told.contains("200 from localhost:"), "{told}");
    // An authority that has not signed it.
    let (passed, told) = ask(json!({}), "tls/client.crt").await;
    assert!(!passed && told.contains("no connection: invalid peer certificate: UnknownIssuer"), "{told}");
    let (passed, told) = ask(json!({"insecureSkipVerify": true}), "tls/client.crt").await;
    assert!(passed && told.contains("200 from localhost:"), "{told}");
    // None at all.
    let (passed, told) = ask(json!({}), "tls/nothing").await;
    assert!(!passed && told.contains("no certificate can be verified: "), "{told}");
}
