//! A web API: one GET below the address that the platform has set up, and a number in its answer.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use reqwest::Url;

use crate::{
    api::{analysis::stays_below, status::bounded},
    checks::{Lack, elsewhere, number},
    engine::{Measure, Reply},
};

use super::{
    Provider,
    connection::{Connection, Fault},
};

/// How much of an answer is read.
const MOST: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Web(pub Connection);

impl Provider for Web {
    fn measure<'a>(&'a self, measure: &'a Measure) -> BoxFuture<'a, Reply> {
        async move {
            match measure {
                Measure::Web { path, value } => self.ask(path, value).await.unwrap_or_else(Reply::ProviderError),
                _ => Reply::ProviderError(
                    "it is a web API: prometheus needs the name of a Prometheus, or use web with a path".into(),
                ),
            }
        }
        .boxed()
    }
}

impl Web {
    /// One that asks over a connection.
    ///
    /// # Errors
    /// What is wrong with its address.
    pub(super) fn open(connection: Connection) -> Result<Arc<dyn Provider>, String> {
        let address = &connection.address;
        if address.query().is_some() || address.fragment().is_some() {
            return Err("the address must have no query and no fragment; use headers".into());
        }
        Ok(Arc::new(Self(connection)))
    }

    async fn ask(&self, path: &str, value: &str) -> Result<Reply, String> {
        let url = join(&self.0.address, path)?;
        let (response, _turn) = self.0.exchange(self.0.client.get(url), MOST).await.map_err(Fault::told)?;
        let (value, status) = (value.to_owned(), response.status);
        Ok(match elsewhere(move || number(&value, &response)).await {
            Some(Ok(number)) => Reply::Value(number),
            Some(Err(Lack::Data(why))) => Reply::NoData(why),
            Some(Err(Lack::Sense(why))) if is_let_in(status) => Reply::Senseless(why),
            Some(Err(Lack::Sense(why))) => Reply::ProviderError(why),
            Some(Err(Lack::Value(why))) => Reply::Refused(why),
            None => Reply::ProviderError("the answer cannot be judged".into()),
        })
    }
}

/// Whether a status is the API's own word on what it was asked about, as 404 of a candidate that nobody has called yet.
fn is_let_in(status: u16) -> bool {
    matches!(status, 200..300 | 400..500) && !matches!(status, 401 | 403 | 407 | 408 | 429)
}

/// A path and query behind an address, whose host and path stay what they are.
fn join(address: &Url, path: &str) -> Result<Url, String> {
    let outside = || format!("path {} does not stay below the provider's address", bounded(path, 80));
    if !stays_below(path) {
        return Err(outside());
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let base = address.path().trim_end_matches('/');
    let mut url = address.clone();
    url.set_path(&format!("{base}{path}"));
    url.set_query(query);
    let below = url.path().strip_prefix(base).is_some_and(|rest| rest.starts_with('/'));
    if below && url.origin() == address.origin() { Ok(url) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::metrics::Providers;

    #[rstest]
    #[case("/latency?app=shop", Some("https://apm.example.com:8443/v2/latency?app=shop"))]
    #[case("/", Some("https://apm.example.com:8443/v2/"))]
    #[case("/a?next=//evil.example.com/../..", Some("https://apm.example.com:8443/v2/a?next=//evil.example.com/../.."))]
    #[case("/@evil.example.com/", Some("https://apm.example.com:8443/v2/@evil.example.com/"))]
    #[case("/a#b", Some("https://apm.example.com:8443/v2/a%23b"))]
    #[case("//evil.example.com/", None)]
    #[case("/\\evil.example.com/", None)]
    #[case("/../admin", None)]
    #[case("/a/..", None)]
    #[case("/./a", None)]
    #[case("/%2e%2e/admin", None)]
    #[case("/a/%2E./admin", None)]
    #[case("/..%2fadmin", None)]
    #[case("/%252e%252e/admin", None)]
    #[case("/a%5c..%5cb", None)]
    #[case("https://evil.example.com/", None)]
    #[case("@evil.example.com/", None)]
    #[case("", None)]
    fn a_path_stays_below_the_address(#[case] path: &str, #[case] expected: Option<&str>) {
        for base in ["https://apm.example.com:8443/v2", "https://apm.example.com:8443/v2/"] {
            let found = join(&Url::parse(base).unwrap(), path).ok().map(String::from);
            assert_eq!(found.as_deref(), expected);
        }
    }

    /// Answers one request with these bytes, and says what was asked.
    async fn served(answer: String) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            String::from_utf8(request).unwrap()
        });
        (address, asked)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: http://127.0.0.1:1/\r\n\r\n{body}", body.len())
    }

    #[rstest]
    #[case::a_number(answer("200 OK", r#"{"p95": 0.25}"#), Ok(0.25))]
    #[case::missing(answer("200 OK", "{}"), Err("no data: there is no p95"))]
    #[case::no_number(answer("200 OK", r#"{"p95": "fast"}"#), Err("refused: the value is no number"))]
    #[case::unknown(answer("404 Not Found", "{}"), Err("reached: status 404"))]
    #[case::nothing_yet(answer("204 No Content", ""), Err("reached: status 204, no JSON from line 1, column 0"))]
    #[case::busy(answer("429 Too Many Requests", "{}"), Err("status 429"))]
    #[case::down(answer("502 Bad Gateway", "{}"), Err("status 502"))]
    #[case::forbidden(answer("403 Forbidden", "{}"), Err("status 403"))]
    #[case::redirects_are_not_followed(answer("302 Found", ""), Err("status 302"))]
    #[case::too_long(answer("200 OK", &"x".repeat(MOST + 1)), Err("the answer is longer than 1 MiB: ask for less"))]
    #[case::cut_off("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".into(), Err("no answer: "))]
    #[tokio::test]
    async fn an_answer_is_taken_with_care(#[case] answer: String, #[case] expected: Result<f64, &str>) {
        let (address, asked) = served(answer).await;
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&secret, "hunter2\n").unwrap();
        let text = serde_json::json!({"apm": {
            "web": format!("http://{address}/v2"), "headers": {"x-org": "a"}, "headerFiles": {"x-key": secret.path()},
            "bearerTokenFile": secret.path(),
        }});
        let providers: Providers = text.to_string().parse().unwrap();
        let measure = Measure::Web { path: "/latency?app=shop".into(), value: "json.p95".into() };
        let found = match providers.measure("apm", &measure).await {
            Reply::Value(value) => Ok(value),
            Reply::NoData(why) => Err(format!("no data: {why}")),
            other => Err(match other {
                Reply::ProviderError(why) => why,
                Reply::Senseless(why) => format!("reached: {why}"),
                Reply::Refused(why) => format!("refused: {why}"),
                other => panic!("{other:?}"),
            }),
        };
        match (found, expected) {
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
        }
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /v2/latency?app=shop HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("x-org: a\r\n") && asked.contains("x-key: hunter2\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer hunter2\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn an_empty_secret_is_not_sent() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        let text = serde_json::json!({"apm": {"web": "http://127.0.0.1:1", "headerFiles": {"x-key": secret.path()}}});
        let providers: Providers = text.to_string().parse().unwrap();
        let measure = Measure::Web { path: "/".into(), value: "status".into() };
        let Reply::ProviderError(why) = providers.measure("apm", &measure).await else { panic!() };
        assert_eq!(why, format!("headerFiles.x-key {}: the file is empty", secret.path().display()));
    }

    #[tokio::test]
    async fn kinds_are_not_mixed_up() {
        let text = r#"{"apm": {"web": "http://127.0.0.1:1"}, "default": {"prometheus": "http://127.0.0.1:1"}}"#;
        let providers: Providers = text.parse().unwrap();
        let query = Measure::Value { query: "up".into(), requests: None };
        let web = Measure::Web { path: "/".into(), value: "status".into() };
        for (name, measure, told) in [("apm", &query, "it is a web API"), ("default", &web, "it is a Prometheus")] {
            let Reply::ProviderError(why) = providers.measure(name, measure).await else { panic!() };
            assert!(why.starts_with(told), "{why}");
        }
    }
}
