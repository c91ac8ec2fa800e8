//! Prometheus's HTTP API (`/api/v1/query`), as far as measurements need it.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;

use crate::{
    api::{Duration, TallyStatus, Timestamp, WindowStatus, status::bounded},
    checks::Response,
    engine::{Absent, Counters, Measure, Reply},
};

use super::{
    Provider,
    connection::{self, Connection},
    counters::{self, Series},
};

/// How much of an answer is read.
const MOST: usize = 16 << 20;
/// How far back samples are fetched beyond the time that is counted: the last one before it is where counting
/// begins. Prometheus takes a series for gone after this time.
const LOOKBACK_SECONDS: i64 = 300;
/// The longest time that is counted at once; after a longer break what lies before is lost.
const LONGEST_SECONDS: i64 = 6 * 3600;
/// A time that is not cut any shorter where its samples are too many for one answer: after an outage, that is, of the
/// metrics or of the operator.
const SHORTEST_SECONDS: i64 = 60;
/// Windows up to this are counted by every sample, longer ones by one sample in [`COARSE_SECONDS`]: all samples of
/// days would be more than Prometheus gives. What a counter counts between the last of those and a restart is lost.
const FINE_SECONDS: i64 = 3600;
/// See [`FINE_SECONDS`].
const COARSE_SECONDS: i64 = 300;

/// In what Prometheus says of a query of more samples than it takes into memory (--query.max-samples).
const TOO_MANY: &str = "too many samples";

/// How a warning begins that is about what a query asks. Others, as of Thanos and of a remote read, tell whose data are
/// missing.
const OF_THE_QUERY: &str = "PromQL warning";

/// A Prometheus, or whatever has its API.
#[derive(Debug)]
pub struct Prometheus(pub Connection);

#[derive(Debug, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope {
    Success {
        data: Data,
        #[serde(default)]
        warnings: Vec<String>,
    },
    #[serde(rename_all = "camelCase")]
    Error {
        #[serde(default)]
        error_type: String,
        #[serde(default)]
        error: String,
    },
}

/// Why there is no answer.
enum Fault {
    /// It does not understand the query, and never will.
    Refused(String),
    /// It is more than it gives, or than is read, at once.
    TooLong(String),
    /// It does not answer, or not now.
    Away(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Away(why)
    }
}

impl From<connection::Fault> for Fault {
    fn from(fault: connection::Fault) -> Self {
        match fault {
            connection::Fault::TooLong(why) => Self::TooLong(why),
            connection::Fault::Away(why) => Self::Away(why),
        }
    }
}

impl Fault {
    fn reply(self) -> Reply {
        match self {
            Self::Refused(why) => Reply::Refused(why),
            Self::TooLong(why) | Self::Away(why) => Reply::ProviderError(why),
        }
    }

    /// The same for people.
    fn told(self) -> String {
        match self {
            Self::Refused(why) | Self::TooLong(why) | Self::Away(why) => why,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar((f64, String)),
    Vector(Vec<Instant>),
    Matrix(Vec<Range>),
}

/// The labels of a series.
type Labels = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
struct Instant {
    value: (f64, String),
}

#[derive(Debug, Deserialize)]
struct Range {
    metric: Labels,
    values: Vec<(f64, String)>,
}

impl Provider for Prometheus {
    fn measure<'a>(&'a self, measure: &'a Measure) -> BoxFuture<'a, Reply> {
        self.measure_at(measure, Timestamp::new(jiff::Timestamp::now())).boxed()
    }
}

impl Prometheus {
    /// One that asks over a connection.
    ///
    /// # Errors
    /// None: any address will do.
    pub(super) fn open(connection: Connection) -> Result<Arc<dyn Provider>, String> {
        Ok(Arc::new(Self(connection)))
    }

    /// Measures as at a moment that may be past, or says why not.
    pub async fn measure_at(&self, measure: &Measure, at: Timestamp) -> Reply {
        let now = at.as_millis();
        let answer = match measure {
            Measure::Value { query, requests: None } => {
                self.answered(query, now).await.map(|(data, warning)| noted(value(data), warning))
            }
            Measure::Value { query, requests: Some(requests) } => self.share(query, requests, now).await,
            Measure::Counts { candidate, stable, since } => {
                let until = now - self.0.settling_millis;
                self.counts(candidate, stable, since.as_millis(), until).await
            }
            Measure::Windows { counters, windows } => {
                self.windows(counters, windows, now - self.0.settling_millis).await
            }
            _ => Err(Fault::Away(
                "it is a Prometheus: use prometheus with a query, or give the name of another provider".into(),
            )),
        };
        answer.unwrap_or_else(Fault::reply)
    }

    /// A value, and of how many requests it is.
    async fn share(&self, query: &str, requests: &str, at: i64) -> Result<Reply, Fault> {
        let both = futures::future::try_join(self.answered(query, at), self.answered(requests, at)).await?;
        let ((found, warning), (requests, other)) = both;
        let reply = match (value(found), value(requests)) {
            (Reply::Value(value), Reply::Value(requests)) => Reply::Share { value, requests },
            (Reply::Value(_), Reply::NoData(why)) => Reply::NoData(format!("requests: {why}")),
            (Reply::Value(_), Reply::ProviderError(why)) => Reply::ProviderError(format!("requests: {why}")),
            (Reply::Value(_), Reply::Refused(why)) => Reply::Refused(format!("requests: {why}")),
            (other, _) => other,
        };
        Ok(noted(reply, warning.or(other)))
    }

    async fn counts(&self, candidate: &Counters, stable: &Counters, since: i64, until: i64) -> Result<Reply, Fault> {
        let from = since.max(until - LONGEST_SECONDS * 1000);
        if from >= until {
            let (none, until) = (TallyStatus::default(), Timestamp::from_millis(until.max(since)));
            return Ok(Reply::Counts { candidate: none, stable: none, until, absent: Absent::default() });
        }
        let mut end = until;
        let (candidate, stable) = loop {
            let samples = move |counters| self.samples(counters, from, end, None);
            match futures::future::try_join(samples(candidate), samples(stable)).await {
                // What comes after it is asked for the next time.
                Err(Fault::TooLong(_)) if end - from > SHORTEST_SECONDS * 1000 => {
                    end = from + ((end - from) / 4).max(SHORTEST_SECONDS * 1000);
                }
                other => break other?,
            }
        };
        let absent = Absent { candidate: candidate.is_absent(), stable: stable.is_absent() };
        let (candidate, stable) = (candidate.tally(from), stable.tally(from));
        let counted = Timestamp::from_millis(end.max(since));
        let reply = Reply::Counts { candidate, stable, until: counted, absent };
        if end == until {
            return Ok(reply);
        }
        let note = format!("counted until {counted} so far: all until now is too much for one answer");
        Ok(Reply::Noted { reply: Box::new(reply), note, whole: false })
    }

    /// Counts in windows that end at the same time.
    async fn windows(&self, counters: &Counters, windows: &[Duration], until: i64) -> Result<Reply, Fault> {
        let millis = |window: &Duration| i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let longest = windows.iter().map(millis).max().unwrap_or(0);
        let fine = FINE_SECONDS * 1000;
        let (close, far) = futures::future::try_join(
            self.samples(counters, until - fine.min(longest), until, None),
            self.samples(counters, until - longest, until, Some(COARSE_SECONDS)),
        )
        .await?;
        let window = |window: &Duration| {
            let length = millis(window);
            let samples = if length <= fine { &close } else { &far };
            let TallyStatus { requests, events } = samples.tally(until - length);
            WindowStatus { window: *window, requests, events }
        };
        let first = [close.first(), far.first()].into_iter().flatten().min().unwrap_or(until);
        let history = u64::try_from((until - first).min(longest)).unwrap_or(0);
        // To the second: the status is for people too.
        let history = Duration::from_secs(history / 1000);
        let absent = close.is_absent() && far.is_absent();
        Ok(Reply::Windows { windows: windows.iter().map(window).collect(), history, absent })
    }

    /// What counters have counted from a time on: every sample, or one in so many seconds.
    async fn samples(&self, counters: &Counters, from: i64, until: i64, every: Option<i64>) -> Result<Samples, Fault> {
        let total = self.series(&counters.total, from, until, every).await?;
        let part = match (&counters.events, &counters.good) {
            (Some(selector), _) | (None, Some(selector)) => self.series(selector, from, until, every).await?,
            (None, None) => return Err(Fault::Away("neither events nor good is asked for".into())),
        };
        Ok(Samples { total, part, is_good: counters.events.is_none() })
    }

    async fn series(&self, selector: &str, from: i64, until: i64, every: Option<i64>) -> Result<Vec<Series>, Fault> {
        let ranges = self.ranges(selector, from, until, every).await?.into_iter();
        ranges.map(|range| Ok(series(range)?)).collect()
    }

    async fn ranges(&self, selector: &str, from: i64, until: i64, every: Option<i64>) -> Result<Vec<Range>, Fault> {
        let seconds = (until - from).max(0) / 1000 + 1 + LOOKBACK_SECONDS;
        let every = every.map(|step| format!(":{step}s")).unwrap_or_default();
        match self.query(&format!("{selector}[{seconds}s{every}]"), until).await? {
            Data::Matrix(all) => Ok(all),
            _ => Err(Fault::Refused(format!("{} is no selector of series", bounded(selector, 80)))),
        }
    }

    /// All samples of counters between two moments, and before them as far as counting needs: for each value of a
    /// label what counts, an hour at a time.
    ///
    /// # Errors
    /// When there is no answer, or none that makes sense; the text says why.
    pub async fn past(
        &self,
        counters: &Counters,
        label: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<BTreeMap<String, Samples>, String> {
        let is_good = counters.events.is_none();
        let part = counters.events.as_ref().or(counters.good.as_ref());
        let part = part.ok_or("neither events nor good is asked for")?;
        let mut found: BTreeMap<String, Samples> = BTreeMap::new();
        let none = || Samples { total: Vec::new(), part: Vec::new(), is_good };
        for (labels, series) in self.history(&counters.total, from, until).await? {
            let value = labels.get(label).ok_or_else(|| format!("a series of total has no label {label}"))?;
            found.entry(value.clone()).or_insert_with(none).total.push(series);
        }
        for (labels, series) in self.history(part, from, until).await? {
            let value = labels.get(label).ok_or_else(|| format!("a series of events has no label {label}"))?;
            found.entry(value.clone()).or_insert_with(none).part.push(series);
        }
        Ok(found)
    }

    async fn history(
        &self,
        selector: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(Labels, Series)>, String> {
        let (mut after, until) = (from.as_millis(), until.as_millis());
        let mut all: BTreeMap<Labels, Series> = BTreeMap::new();
        while after < until {
            let end = (after + FINE_SECONDS * 1000).min(until);
            for range in self.ranges(selector, after, end, None).await.map_err(Fault::told)? {
                let labels = range.metric.clone();
                let found = series(range)?;
                let known = all.entry(labels).or_insert_with(|| Series { samples: Vec::new(), ..found.clone() });
                let last = known.samples.last().map_or(i64::MIN, |(at, _)| *at);
                known.samples.extend(found.samples.into_iter().filter(|(at, _)| *at > last));
            }
            after = end;
        }
        Ok(all.into_iter().collect())
    }

    async fn query(&self, query: &str, at: i64) -> Result<Data, Fault> {
        self.answered(query, at).await.map(|(data, _)| data)
    }

    /// What is answered to a query, and of what Prometheus warns beside it.
    async fn answered(&self, query: &str, at: i64) -> Result<(Data, Option<String>), Fault> {
        let mut url = self.0.address.clone();
        url.path_segments_mut()
            .map_err(|()| "the address has no path".to_owned())?
            .pop_if_empty()
            .extend(["api", "v1", "query"]);
        #[allow(clippy::cast_precision_loss)] // milliseconds of this age of the world
        let time = format!("{:.3}", at as f64 / 1000.0);
        let request = self.0.client.post(url).form(&[("query", query), ("time", &time)]);
        let (Response { status, body, .. }, _turn) = self.0.exchange(request, MOST).await?;
        match serde_json::from_slice(&body) {
            Ok(Envelope::Success { data, warnings }) => {
                match warnings.iter().find(|it| !it.starts_with(OF_THE_QUERY)) {
                    // Some of those who were to answer did not: what they have would be missing, of one side or of both.
                    Some(why) => Err(Fault::Away(format!("the answer is only a part: {}", bounded(why, 140)))),
                    None => Ok((data, warnings.into_iter().next())),
                }
            }
            Ok(Envelope::Error { error_type, error }) if error_type == "bad_data" => {
                Err(Fault::Refused(format!("the query is refused: {}", bounded(plain(&error), 120))))
            }
            Ok(Envelope::Error { error, .. }) if error.contains(TOO_MANY) => Err(Fault::TooLong(bounded(&error, 180))),
            Ok(Envelope::Error { error, .. }) => Err(Fault::Away(bounded(&error, 180))),
            Err(_) => Err(Fault::Away(format!("status {status}, and not Prometheus's JSON"))),
        }
    }
}

/// Samples of all requests, and of those that are bad, or good.
#[derive(Debug)]
pub struct Samples {
    total: Vec<Series>,
    part: Vec<Series>,
    is_good: bool,
}

impl Samples {
    /// What was counted after a moment and until another.
    #[must_use]
    pub fn between(&self, after: Timestamp, until: Timestamp) -> TallyStatus {
        let cut = |all: &[Series]| all.iter().map(|series| series.until(until.as_millis())).collect();
        let Self { total, part, is_good } = self;
        Self { total: cut(total), part: cut(part), is_good: *is_good }.tally(after.as_millis())
    }

    /// Whether no series of events or good is there.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        self.part.is_empty()
    }

    fn tally(&self, from: i64) -> TallyStatus {
        let requests = counters::increase(&self.total, &self.total, from);
        let part = counters::increase(&self.part, &self.total, from).min(requests);
        TallyStatus { requests, events: if self.is_good { requests - part } else { part } }
    }

    /// The time of the first one.
    fn first(&self) -> Option<i64> {
        self.total.iter().filter_map(|series| series.samples.first()).map(|(at, _)| *at).min()
    }
}

/// A value, or that there is none, with a warning.
fn noted(reply: Reply, warning: Option<String>) -> Reply {
    match (reply, warning) {
        (reply @ (Reply::Value(_) | Reply::Share { .. } | Reply::NoData(_)), Some(warning)) => {
            let note = bounded(&warning, 120);
            Reply::Noted { reply: Box::new(reply), note, whole: true }
        }
        (reply, _) => reply,
    }
}

/// An error without the name of the form's field, which says nothing of the manifest's.
fn plain(error: &str) -> &str {
    error.strip_prefix("invalid parameter \"query\": ").unwrap_or(error)
}

/// The one value of an answer.
fn value(data: Data) -> Reply {
    let text = match data {
        Data::Scalar((_, text)) => text,
        Data::Vector(mut all) => match (all.pop(), all.len()) {
            (Some(only), 0) => only.value.1,
            (None, _) => return Reply::NoData("the query has no series".into()),
            (Some(_), others) => {
                let count = others + 1;
                return Reply::Refused(format!(
                    "the query has {count} series, not one: put sum() or the like around it"
                ));
            }
        },
        Data::Matrix(_) => return Reply::Refused("the query is no number".into()),
    };
    match text.parse::<f64>() {
        Ok(value) if value.is_nan() => Reply::NoData("the value is NaN, as of a division by no requests".into()),
        Ok(value) => Reply::Value(value),
        Err(_) => Reply::ProviderError("the value is no number".into()),
    }
}

fn series(range: Range) -> Result<Series, String> {
    let sample = |(at, text): (f64, String)| {
        #[allow(clippy::cast_possible_truncation)] // milliseconds
        let at = (at * 1000.0).round() as i64;
        text.parse::<f64>().map(|value| (at, value)).map_err(|_| "a sample is no number".to_owned())
    };
    let samples = range.values.into_iter().map(sample).collect::<Result<_, _>>()?;
    let label = |name: &str| range.metric.get(name).cloned().unwrap_or_default();
    Ok(Series { target: [label("job"), label("instance"), label("pod")], samples })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::metrics::Providers;

    /// A Prometheus with one pod, scraped since two hours ago, that has one request a second, of which each hundredth
    /// fails in the last half hour.
    fn samples(query: &str, time: f64) -> String {
        let (_, range) = query.rsplit_once('[').unwrap();
        let (seconds, every) =
            range.trim_end_matches(']').split_once(':').unwrap_or((range.trim_end_matches(']'), "15s"));
        let number = |text: &str| text.trim_end_matches('s').parse::<i64>().unwrap();
        let (seconds, every) = (number(seconds), number(every));
        #[expect(clippy::cast_possible_truncation, reason = "seconds")]
        let now = time as i64;
        let born = now - 7200;
        let counted = |at: i64| if query.starts_with("bad") { (at - (now - 1800)).max(0) / 100 } else { at - born };
        let times = (0..=seconds / every).map(|back| now - back * every).filter(|at| *at >= born);
        let mut values: Vec<String> = times.map(|at| format!("[{at},\"{}\"]", counted(at))).collect();
        values.reverse();
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"pod":"a"}},"values":[{}]}}]}}}}"#,
            values.join(",")
        )
    }

    async fn answer(mut stream: TcpStream, samples: impl Fn(&str, f64) -> String) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
        let length = head.split_once("content-length: ")?.1.split_once('\r')?.0.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let url = reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8(body).ok()?)).ok()?;
        let field = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let body = samples(&field("query")?, field("time")?.parse().ok()?);
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.ok()
    }

    /// What becomes of the query `sum(` where this is answered to it.
    async fn asked(status: u16, body: &'static str) -> Reply {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        });
        let text = format!(r#"{{"default": {{"prometheus": "http://{address}"}}}}"#);
        let providers: Providers = text.parse().unwrap();
        let reply = providers.measure("default", &Measure::Value { query: "sum(".into(), requests: None }).await;
        server.await.unwrap();
        reply
    }

    #[tokio::test]
    async fn a_query_that_is_refused_is_no_outage() {
        let refused = r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"}"#;
        let told = "the query is refused: 1:5: parse error: unclosed left parenthesis";
        assert_eq!(asked(400, refused).await, Reply::Refused(told.into()));
        let late = r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#;
        assert_eq!(asked(503, late).await, Reply::ProviderError("query timed out".into()));
        let none = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert_eq!(asked(200, none).await, Reply::Refused("the query is no number".into()));
    }

    #[tokio::test]
    async fn a_part_of_the_data_is_no_answer_and_a_warning_of_the_query_is_told() {
        let part = r#"{"status":"success","warnings":["No StoreAPIs matched for this query"],"data":{"resultType":"vector","result":[]}}"#;
        let told = "the answer is only a part: No StoreAPIs matched for this query";
        assert_eq!(asked(200, part).await, Reply::ProviderError(told.into()));
        let warned = r#"{"status":"success","warnings":["PromQL warning: quantile value should be between 0 and 1, got 95"],"infos":["PromQL info: x"],"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.5"]}]}}"#;
        let note = "PromQL warning: quantile value should be between 0 and 1, got 95".to_owned();
        let reply = Box::new(Reply::Value(0.5));
        assert_eq!(asked(200, warned).await, Reply::Noted { reply, note, whole: true });
    }

    /// A Prometheus that gives no more than so many seconds of samples at once.
    async fn sparing(most: i64) -> (Providers, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, move |query, time| {
                    let range = query.rsplit_once('[').unwrap().1.trim_end_matches("s]");
                    if range.parse::<i64>().unwrap() > most {
                        let why = "query processing would load too many samples into memory in query execution";
                        return format!(r#"{{"status":"error","errorType":"execution","error":"{why}"}}"#);
                    }
                    samples(query, time)
                }));
            }
        });
        let text = format!(r#"{{"default": {{"prometheus": "http://{address}"}}}}"#);
        (text.parse().unwrap(), server)
    }

    #[tokio::test]
    async fn what_is_too_much_after_an_outage_is_counted_bit_by_bit() {
        let (providers, server) = sparing(1200).await;
        let counters = || Counters { total: "all".into(), events: Some("bad".into()), good: None };
        let began = Timestamp::new(jiff::Timestamp::now()).minus(Duration::from_secs(3600));
        let (mut since, mut requests, mut looks) = (began, 0, 0);
        loop {
            looks += 1;
            let measure = Measure::Counts { candidate: counters(), stable: counters(), since };
            let reply = providers.measure("default", &measure).await;
            let (reply, part) = match reply {
                Reply::Noted { reply, note, whole: false } => (*reply, Some(note)),
                reply => (reply, None),
            };
            let Reply::Counts { candidate, until, .. } = reply else { panic!("{reply:?}") };
            assert!(until > since, "it goes on");
            (since, requests) = (until, requests + candidate.requests);
            match part {
                Some(note) => assert!(note.starts_with(&format!("counted until {until} so far")), "{note}"),
                None => break,
            }
        }
        server.abort();
        assert!((2..10).contains(&looks), "{looks}");
        // One request a second, scraped each fifteenth.
        assert!((requests - (since.as_millis() - began.as_millis()) / 1000).abs() <= 15 * looks, "{requests}");
    }

    #[tokio::test]
    async fn windows_are_counted_by_every_sample_or_one_in_five_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, samples));
            }
        });
        let text = format!(r#"{{"default": {{"prometheus": "http://{address}"}}}}"#);
        let providers: Providers = text.parse().unwrap();
        let counters = Counters { total: "all".into(), events: Some("bad".into()), good: None };
        let windows = [300, 1800, 3600, 21_600, 259_200].map(Duration::from_secs).to_vec();
        let reply = providers.measure("default", &Measure::Windows { counters, windows }).await;
        server.abort();
        let Reply::Windows { windows, history, absent: false } = reply else { panic!("{reply:?}") };
        let found: Vec<(i64, i64)> = windows.iter().map(|it| (it.requests, it.events)).collect();
        // The last 15 seconds are not there yet, nor is what was counted before the first sample.
        let near =
            |found: (i64, i64), wanted: (i64, i64)| (found.0 - wanted.0).abs() <= 15 && (found.1 - wanted.1).abs() <= 1;
        assert!(near(found[0], (300, 3)) && near(found[1], (1800, 18)) && near(found[2], (3600, 18)), "{found:?}");
        // One sample in five minutes.
        assert!(found[3] == found[4] && found[3].0 <= 7200 && found[3].0 >= 6900 - 15, "{found:?}");
        assert!((15..=18).contains(&found[3].1), "{found:?}");
        assert!((6900..=7200).contains(&(history.as_millis() / 1000)), "{history}");
    }
}
