//! Against a Prometheus that answers over HTTP with what pods of a known kind would have counted.

use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{judge, past::Past, source::Source, subject};
use crate::cli::{
    args::{Analyze, PrometheusArgs, SplitArgs, WindowArgs},
    error::CliError,
    paint::Paint,
};

const FROM: &str = "2026-11-20T10:00:00Z";
const TO: &str = "2026-11-20T10:30:00Z";
/// FROM, in seconds.
const BEGIN: i64 = 1_795_168_800;

/// A pod with 10 requests a second, of which one in so many fails.
type Pod = (&'static str, i64);

/// Who is asked.
#[derive(Clone, Copy)]
struct Fake {
    pods: &'static [Pod],
    /// The value of an expression at a time in seconds; none for no series.
    value: fn(i64) -> Option<f64>,
    /// How many errors a pod of the candidate has had besides, by a time in seconds.
    besides: fn(i64) -> i64,
    status: u16,
}

const GOOD: Fake = Fake {
    pods: &[("shop-new-a", 100), ("shop-new-b", 100), ("shop-old-a", 100), ("shop-old-b", 100)],
    value: |_| Some(0.2),
    besides: |_| 0,
    status: 200,
};
const BAD: Fake = Fake { pods: &[("shop-new-a", 10), ("shop-old-a", 100)], ..GOOD };
const SILENT: Fake = Fake { pods: &[], value: |_| None, ..GOOD };

impl Fake {
    fn answer(self, query: &str, time: i64) -> String {
        let Some((selector, range)) = query.rsplit_once('[').filter(|_| query.ends_with("s]")) else {
            let value = match query.starts_with("count(") {
                true => (!query.contains("nothing")).then_some(4.0),
                false => (self.value)(time),
            };
            let value = value.map(|value| json!({"metric": {}, "value": [time, value.to_string()]}));
            let result: Vec<_> = value.into_iter().collect();
            return json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string();
        };
        let seconds: i64 = range.trim_end_matches("s]").parse().unwrap();
        let side = if selector.contains("shop-new") { "shop-new" } else { "shop-old" };
        let series = |(name, one_in): &Pod| {
            let is_worse = side == "shop-new";
            let of = |at: i64| match selector.starts_with("errors") {
                true => (at - BEGIN + 3600) * 10 / *one_in + if is_worse { (self.besides)(at) } else { 0 },
                false => (at - BEGIN + 3600) * 10,
            };
            let times = (time - seconds + 1..=time).filter(|at| at % 15 == 0);
            let values: Vec<_> = times.map(|at| json!([at, of(at).to_string()])).collect();
            json!({"metric": {"pod": name}, "values": values})
        };
        let has = |(name, _): &&Pod| name.starts_with(side) && !selector.starts_with("nothing");
        let result: Vec<_> = self.pods.iter().filter(has).map(series).collect();
        json!({"status": "success", "data": {"resultType": "matrix", "result": result}}).to_string()
    }

    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
        let mut body = vec![0; head.split_once("content-length: ")?.1.split_once('\r')?.0.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
        let url = reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8(body).ok()?)).ok()?;
        let field = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        #[expect(clippy::cast_possible_truncation, reason = "seconds")]
        let time = field("time")?.parse::<f64>().ok()? as i64;
        let denied = || "who are you?".to_owned();
        let body = if self.status == 200 { self.answer(&field("query")?, time) } else { denied() };
        let head = format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", self.status, body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.ok()
    }

    async fn start(self) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.serve(stream));
            }
        });
        (address, server)
    }
}

const MANIFEST: &str = r#"
apiVersion: servicerelease.io/v1alpha1
kind: ServiceRelease
metadata: {name: shop}
spec:
  traffic: {service: shop}
  analysis:
    templates:
    - {templateName: errors, args: [{name: ratio, value: errors}]}
    metrics:
    - {name: latency, prometheus: {query: 'latency{pod=~"{{pods}}"}'}, threshold: {max: 0.5}, failureThreshold: 2}
    - {name: restarts, workload: {}}
---
apiVersion: servicerelease.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: errors}
spec:
  args: [{name: ratio}]
  metrics:
  - name: errors
    prometheus: {total: 'requests{pod=~"{{pods}}"}', events: '{{args.ratio}}{pod=~"{{pods}}"}'}
    compare: {maxRatio: 1.5}
"#;

fn args(address: &str) -> Analyze {
    let some = |text: &str| Some(text.to_owned());
    Analyze {
        source: PrometheusArgs { address: address.to_owned(), ..PrometheusArgs::default() },
        window: WindowArgs {
            from: some(FROM),
            to: some(TO),
            revision: some("new"),
            stable_revision: some("old"),
            ..WindowArgs::default()
        },
        split: SplitArgs { runs: 50, ..SplitArgs::default() },
        ..Analyze::default()
    }
}

/// What a person would read, and whether the exit code is 1.
async fn analyze(fake: Fake, change: impl FnOnce(&mut Analyze)) -> Result<(String, bool), CliError> {
    analyze_of(MANIFEST, fake, change).await
}

async fn analyze_of(manifest: &str, fake: Fake, change: impl FnOnce(&mut Analyze)) -> Result<(String, bool), CliError> {
    analyze_past(manifest, fake, None, change).await
}

async fn analyze_past(
    manifest: &str,
    fake: Fake,
    past: Option<Past>,
    change: impl FnOnce(&mut Analyze),
) -> Result<(String, bool), CliError> {
    let (address, server) = fake.start().await;
    let mut args = args(&address);
    change(&mut args);
    let (release, known) = subject::manifest(manifest, "shop.yaml")?;
    let analysis = subject::resolve(release.spec.analysis.as_ref().unwrap(), &known)?;
    let analysis = subject::only(analysis, &args.metrics)?;
    let subject = subject::assemble(&release, analysis, &args, past.map(Ok))?;
    let report = judge(&Source::open(&args.source)?, &subject, &args).await;
    server.abort();
    let report = report?;
    Ok((report.render(Paint::plain()), report.lacks_data()))
}

#[tokio::test]
async fn a_bad_candidate_fails_at_the_look_at_which_it_would_have() {
    let (text, lacks) = analyze(BAD, |_| {}).await.unwrap();
    assert!(!lacks);
    let first = text.lines().next().unwrap();
    assert_eq!(first, "shop: new against old, 2026-11-20T10:00:00.000Z to 2026-11-20T10:30:00.000Z, a look every 30s");
    // 10 requests a second, of which 1 fails, in samples of 15 s, of which the last is being written.
    assert!(text.contains("errors: Fail after 1 look: 15 of 150 requests of the candidate, 1 of 150"), "{text}");
    assert!(text.contains(" of stable; ln E "), "{text}");
    assert!(text.contains("latency: Pass after 60 looks: 0.2 (max 0.5)"), "{text}");
    assert!(text.contains("left out: restarts: only metrics of prometheus"), "{text}");
    let end = "the release would have gone back at 2026-11-20T10:00:30.000Z, because of errors\n";
    assert!(text.ends_with(end), "{text}");
}

#[tokio::test]
async fn a_good_candidate_passes_and_every_change_is_told() {
    let (text, _) = analyze(GOOD, |_| {}).await.unwrap();
    assert!(text.contains("errors: Pass after 60 looks: "), "{text}");
    assert!(!text.contains("Fail"), "{text}");
    let slow = Fake { value: |time| Some(if time < BEGIN + 600 { 0.2 } else { 0.9 }), ..GOOD };
    let (text, _) = analyze(slow, |args| args.metrics = vec!["latency".into()]).await.unwrap();
    // Two in a row: at 10:10:00 and 10:10:30.
    assert!(text.contains("latency: Fail after 21 looks: 0.9 (max 0.5), 2 of 2 in a row"), "{text}");
    assert!(text.contains("2026-11-20T10:10:00.000Z  Inconclusive  0.9 (max 0.5), 1 of 2 in a row"), "{text}");
    assert!(text.contains("gone back at 2026-11-20T10:10:30.000Z, because of latency"), "{text}");
}

#[tokio::test]
async fn a_candidate_that_turns_bad_is_found_as_the_operator_would_have() {
    // Four times the errors from 10:20 on.
    let late = Fake { besides: |at| (at - BEGIN - 1200).max(0) * 3 / 10, ..GOOD };
    let (text, _) = analyze(late, |args| args.metrics = vec!["errors".into()]).await.unwrap();
    assert!(
        text.contains("errors: Fail after 4") && text.contains(" looks: worse of late: since 2026-11-20T10:"),
        "{text}"
    );
    let (_, end) = text.trim_end().rsplit_once("gone back at 2026-11-20T10:").unwrap();
    assert!(("22".."25").contains(&&end[..2]) && end.ends_with("because of errors"), "{text}");
    assert!(text.contains("  Inconclusive  perhaps worse of late: since "), "{text}");
}

/// Half of the requests from 10:00 on, more from half a second before 10:10:30 on, and all of them from so long before
/// 10:20:30 on.
fn promoted() -> Past {
    let at = |millis: i64| crate::api::Timestamp::from_millis(BEGIN * 1000 + millis);
    Past {
        number: 7,
        candidate: "new".into(),
        stable: "old".into(),
        from: at(0),
        to: at(1_229_500),
        weights: vec![(at(0), 50), (at(629_500), 75), (at(1_229_500), 100)],
        end: "promoted",
    }
}

#[rstest]
#[case::its_own(|args: &mut Analyze| args.window = WindowArgs::default())]
#[case::one_that_reaches_beyond(|_: &mut Analyze| {})]
#[tokio::test]
async fn a_promoted_release_is_judged_as_long_as_it_was_a_candidate(#[case] window: fn(&mut Analyze)) {
    let only = |args: &mut Analyze| (args.metrics = vec!["errors".into()], window(args)).1;
    let (text, _) = analyze_past(MANIFEST, GOOD, Some(promoted()), only).await.unwrap();
    let first = "shop: new against old (release 7, promoted), 2026-11-20T10:00:00.000Z to 2026-11-20T10:20:29.500Z, a look every 30s\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("errors: Pass after 39 looks: "), "{text}");
    // A look counts an interval of its weight.
    assert_eq!(text.matches("not there yet").count(), 0, "{text}");
}

#[tokio::test]
async fn without_data_or_an_answer_it_says_so() {
    let (text, lacks) = analyze(SILENT, |_| {}).await.unwrap();
    assert!(lacks, "{text}");
    assert!(
        text.contains("errors: Inconclusive after 60 looks: no data: no request of the candidate was counted"),
        "{text}"
    );
    let error = analyze(Fake { status: 401, ..GOOD }, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("metric errors: status 401"), "{error}");
    assert!(error.remedy().unwrap().contains("--header 'Authorization: Bearer ...'"));
}

#[rstest]
#[case::events(
    "events",
    false,
    "errors: Pass after 60 looks: no series of events was ever seen, on either side: see that",
    " splits failed, 0.0%"
)]
#[case::good(
    "good",
    true,
    "errors: Inconclusive after 60 looks: no data: no series of good: neither candidate nor stable",
    "errors: no data: no series of good; is there such a bucket (le)"
)]
#[tokio::test]
async fn counters_that_are_not_there_are_told(
    #[case] part: &str,
    #[case] lacking: bool,
    #[case] told: &str,
    #[case] told_by_aa: &str,
) {
    let manifest = MANIFEST.replace("value: errors", "value: nothing").replace("events: '", &format!("{part}: '"));
    let only = |args: &mut Analyze| args.metrics = vec!["errors".into()];
    let (text, lacks) = analyze_of(&manifest, GOOD, only).await.unwrap();
    assert!(text.contains(told) && lacks == lacking, "{text}");
    let (text, lacks) = analyze_of(&manifest, GOOD, |args| (only(args), args.aa = true).1).await.unwrap();
    assert!(text.contains(told_by_aa) && lacks == lacking, "{text}");
    assert_eq!(text.contains("  no series of events was ever seen: see that"), part == "events", "{text}");
    assert_eq!(text.contains("\n  of nothing there is no series at all: "), part == "events", "{text}");
}

#[tokio::test]
async fn stable_against_itself_tells_how_often_good_releases_would_fail() {
    const STABLE: Fake =
        Fake { pods: &[("shop-old-a", 100), ("shop-old-b", 100), ("shop-old-c", 100), ("shop-old-d", 100)], ..GOOD };
    const ONE_BAD: Fake =
        Fake { pods: &[("shop-old-a", 5), ("shop-old-b", 100), ("shop-old-c", 100), ("shop-old-d", 100)], ..GOOD };
    let aa = |args: &mut Analyze| args.aa = true;
    let (text, lacks) = analyze(STABLE, aa).await.unwrap();
    assert!(!lacks);
    assert!(text.contains("errors: 0 of 6 splits failed, 0.0% (there are no others); 2 of 4 pods played"), "{text}");
    assert!(text.contains("left out: latency: --aa is for metrics with compare"), "{text}");
    let (text, _) = analyze(ONE_BAD, aa).await.unwrap();
    // Whenever the bad one is among those that play the candidate.
    assert!(text.contains("errors: 3 of 6 splits failed, 50.0%"), "{text}");
    assert!(text.contains("set compare.dispersion: "), "{text}");
    let (text, lacks) = analyze(SILENT, aa).await.unwrap();
    assert!(lacks && text.contains("0 of stable's pods answered requests"), "{text}");
}

#[rstest]
#[case::no_window(|args: &mut Analyze| args.window.from = None, "--from and --to is missing")]
#[case::no_time(|args: &mut Analyze| args.window.from = Some("noon".into()), "--from \"noon\" is no time")]
#[case::backwards(|args: &mut Analyze| args.window.to = Some(FROM.into()), "--from is not before --to")]
#[case::short(|args: &mut Analyze| args.window.to = Some("2026-11-20T10:00:20Z".into()), "the window is shorter")]
#[case::nobody(|args: &mut Analyze| args.window.revision = None, "--revision or --candidate-pods is missing")]
#[case::no_metric(|args: &mut Analyze| args.metrics = vec!["error".into()], "--metric error: there is no such metric")]
#[case::no_past(|args: &mut Analyze| args.metrics = vec!["restarts".into()], "none of the metrics can be looked at")]
#[case::no_address(|args: &mut Analyze| args.source.address = "prometheus:9090".into(), "--prometheus \"prometheus:9090\" is no http")]
#[case::nobody_there(|args: &mut Analyze| args.source.address = "http://user:word@127.0.0.1:1".into(), "--prometheus http://127.0.0.1:1: metric errors: no connection")]
#[case::no_header(|args: &mut Analyze| args.source.headers = vec!["secret".into()], "--header: one has no colon")]
#[tokio::test]
async fn what_is_wrong_is_told_by_its_flag(#[case] change: fn(&mut Analyze), #[case] told: &str) {
    let error = analyze(GOOD, change).await.unwrap_err();
    assert!(error.to_string().starts_with(told), "{error}");
    assert!(error.remedy().is_some() && !format!("{error}{:?}", error.remedy()).contains("word"), "{error}");
}
