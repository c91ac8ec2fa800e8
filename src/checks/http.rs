//! One attempt of a check by HTTP.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::redirect;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    api,
    engine::{self, HttpQuestion, Reply},
};

use super::expect::{self, Response};

/// How much of a body is read. A longer one is a fault only where the body matters.
const MOST_BODY: usize = 1 << 20;
/// Addresses of a question that are asked at the same time; the others wait for their turn.
const AT_ONCE: usize = 16;
/// A body longer than this is large.
const LARGE: usize = 16 << 10;
/// Large bodies that are kept at the same time, of all checks together: pods may be many, and a manifest can ask all.
const MOST_LARGE: usize = 16;
/// Whoever reads a large body: see [`MOST_LARGE`].
static TURNS: Semaphore = Semaphore::const_new(MOST_LARGE);
/// The longest that an answer may take, whatever a manifest says.
const LONGEST: Duration = Duration::from_secs(60);

/// The answer where the platform does not allow a host.
#[must_use]
pub fn not_allowed(host: &str) -> Reply {
    Reply::Check { fault: Some(unallowed(host)), seen: "not asked".into(), took: api::Duration::default() }
}

/// Why a host is not asked.
#[must_use]
pub fn unallowed(host: &str) -> String {
    format!("host {host} is not allowed: the platform team adds it to the chart value allowedHosts")
}

/// The beginning of the names of environment variables with values of headers; their place follows.
pub const HEADER: &str = "CHECK_HEADER_";

/// Puts values from the environment behind those of headers that come from Secrets. Part of the runner, never of the
/// operator.
pub fn with_secrets(http: &mut api::HttpCheck, environment: impl Fn(&str) -> Option<String>) {
    for (place, header) in http.headers.iter_mut().enumerate().filter(|(_, header)| header.value_from.is_some()) {
        let value = environment(&format!("{HEADER}{place}")).unwrap_or_default();
        header.value.push_str(value.trim_end());
        header.value_from = None;
    }
}

/// What the Job of a check leaves of a reply for the kubelet, with the time that the answer took.
///
/// # Errors
/// The same of a wrong answer.
pub fn finding(reply: &Reply) -> Result<String, String> {
    match reply {
        Reply::Check { fault: None, seen, took } => Ok(engine::with_time(*took, seen)),
        Reply::Check { fault: Some(fault), seen, took } => Err(engine::with_time(*took, &format!("{fault} ({seen})"))),
        other => Err(format!("no answer to a check: {other:?}")),
    }
}

/// Asks by HTTP. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    /// For the release's own: takes any certificate, as the kubelet's probes do.
    own: reqwest::Client,
    /// For hosts beyond it; or why there is none, as in an image without certificates.
    verifying: Result<reqwest::Client, String>,
}

impl Client {
    /// A client that follows no redirect and uses no proxy.
    ///
    /// # Errors
    /// Without cryptography (see [`crate::controller::use_ring`]).
    pub fn new() -> reqwest::Result<Self> {
        let builder = || {
            reqwest::Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                // Each attempt is one of its own: a kept connection would hide that nobody listens any more.
                .pool_max_idle_per_host(0)
                .user_agent(concat!("service-release-operator/", env!("CARGO_PKG_VERSION")))
        };
        let verifying = builder().build().map_err(|error| format!("no certificate can be verified: {}", cause(&error)));
        Ok(Self { own: builder().danger_accept_invalid_certs(true).build()?, verifying })
    }

    /// Asks all addresses, some at a time. The first fault is the answer; the longest time is its time.
    pub async fn ask(&self, question: &HttpQuestion) -> Reply {
        let HttpQuestion { addresses, .. } = question;
        if addresses.is_empty() {
            let fault = Some("nobody to ask: no ready pod with this port".to_owned());
            return Reply::Check { fault, seen: "not asked".into(), took: api::Duration::default() };
        }
        let all: Vec<_> = addresses.iter().map(|address| self.one(question, address)).collect();
        let replies: Vec<_> = futures::stream::iter(all).buffered(AT_ONCE).collect().await;
        let took = replies.iter().map(|(_, _, took)| *took).max().unwrap_or_default();
        let found = replies.iter().find(|(fault, ..)| fault.is_some()).or(replies.first()).cloned();
        let (fault, seen, _) = found.unwrap_or_default();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Reply::Check { fault, seen: format!("{seen} in {millis}ms"), took: api::Duration::from_millis(millis) }
    }

    /// What was wrong, what came back, and how long that took: the waiting of others for their turn to be read or judged
    /// is no part of it.
    async fn one(&self, question: &HttpQuestion, address: &str) -> (Option<String>, String, Duration) {
        let limit = Duration::from_millis(question.timeout.as_millis()).min(LONGEST);
        let mut watch = Watch { started: Instant::now(), waited: Duration::ZERO, limit };
        let answered = self.exchange(question, address, &mut watch).await;
        let took = watch.took();
        let (fault, seen) = match answered {
            Some(Ok((response, turn))) => {
                let (expect, status) = (question.http.expect.clone(), response.status);
                let judged = expect::elsewhere(move || expect::fault(&expect, &response)).await;
                drop(turn);
                let fault = judged.unwrap_or_else(|| Some("the answer cannot be judged".into()));
                (fault, format!("{status} from {address}"))
            }
            Some(Err(error)) => (Some(error), format!("from {address}")),
            None => (Some(format!("no answer within {}", question.timeout)), format!("from {address}")),
        };
        (fault, seen, took)
    }

    /// Asks, and reads the answer; none if that takes too long.
    async fn exchange(
        &self,
        question: &HttpQuestion,
        address: &str,
        watch: &mut Watch,
    ) -> Option<Result<Read, String>> {
        let mut answer = match watch.within(self.send(question, address)).await? {
            Ok(answer) => answer,
            Err(why) => return Some(Err(why)),
        };
        let headers = answer
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
        let mut response = Response { status: answer.status().as_u16(), headers: headers.collect(), body: Vec::new() };
        let expect = &question.http.expect;
        let wants_body = !expect.json.is_empty() || expect.cel.is_some();
        let mut turn = None;
        loop {
            let chunk = match watch.within(answer.chunk()).await? {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Some(Ok((response, turn))),
                Err(error) => return Some(Err(told(&error))),
            };
            let length = response.body.len() + chunk.len();
            if wants_body && length > MOST_BODY {
                return Some(Err("the body is longer than 1 MiB".into()));
            }
            if wants_body && length > LARGE && turn.is_none() {
                let waits = Instant::now();
                // Never closed.
                turn = TURNS.acquire().await.ok();
                watch.waited += waits.elapsed();
            }
            if wants_body {
                response.body.extend_from_slice(&chunk);
            }
        }
    }

    async fn send(&self, question: &HttpQuestion, address: &str) -> Result<reqwest::Response, String> {
        let http = &question.http;
        let scheme = match http.scheme {
            api::Scheme::Http => "http",
            api::Scheme::Https => "https",
        };
        let method = reqwest::Method::from_bytes(http.method.as_str().as_bytes()).unwrap_or_default();
        let client = match &self.verifying {
            Err(why) if http.verifies() => return Err(why.clone()),
            Ok(verifying) if http.verifies() => verifying,
            _ => &self.own,
        };
        let mut request = client.request(method, format!("{scheme}://{address}{}", http.path));
        for header in &http.headers {
            request = request.header(&header.name, &header.value);
        }
        if let Some(body) = &http.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(|error| told(&error))
    }
}

/// An answer, and the turn of whoever reads a large one, kept until it is judged.
type Read = (Response, Option<SemaphorePermit<'static>>);

/// How long an answer takes, without the waiting for others.
struct Watch {
    started: Instant,
    waited: Duration,
    limit: Duration,
}

impl Watch {
    fn took(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.waited)
    }

    /// What comes in time, if it does.
    async fn within<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.limit.saturating_sub(self.took()), what).await.ok()
    }
}

/// What went wrong, in the words of its innermost cause.
pub fn told(error: &reqwest::Error) -> String {
    let kind = if error.is_connect() { "no connection" } else { "no answer" };
    let cause = cause(error).to_string();
    let cause = if cause.contains(NO_TLS) { "what answers speaks no TLS: is its scheme HTTP?" } else { &cause };
    api::status::bounded(&format!("{kind}: {cause}"), 120)
}

/// In what rustls says of an answer in plain text.
const NO_TLS: &str = "InvalidContentType";

fn cause(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::right(None, Ok("took 12ms: 200 from 10.0.0.1:80 in 12ms"))]
    #[case::wrong(Some("expected status 401"), Err("took 12ms: expected status 401 (200 from 10.0.0.1:80 in 12ms)"))]
    fn a_job_leaves_how_long_the_answer_took(#[case] fault: Option<&str>, #[case] expected: Result<&str, &str>) {
        let took = api::Duration::from_millis(12);
        let reply = Reply::Check { fault: fault.map(str::to_owned), seen: "200 from 10.0.0.1:80 in 12ms".into(), took };
        let left = finding(&reply);
        assert_eq!(left.as_deref().map_err(String::as_str), expected);
        // As the kubelet has it in the end, it is read again.
        let (Ok(words) | Err(words)) = &left;
        let (heard, rest) = engine::inquiry::timed(&format!("exit code 1: {words}")).unwrap();
        assert_eq!(heard, took);
        assert!(rest.starts_with("exit code 1: ") && !rest.contains("took"), "{rest}");
    }

    /// What others make the judges do is no time of an answer's.
    #[tokio::test]
    async fn an_answer_takes_no_longer_because_others_are_judged() {
        crate::controller::use_ring();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(held));
        let busy: Vec<_> = (0..expect::AT_ONCE)
            .map(|_| {
                let held = held.clone();
                tokio::spawn(expect::elsewhere(move || held.lock().is_ok_and(|held| held.recv().is_ok())))
            })
            .collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answered = tokio::spawn(serve_once(listener));
        let http = serde_json::from_str("{}").unwrap();
        let question = HttpQuestion { addresses: vec![address], http, timeout: api::Duration::from_secs(30) };
        let asked = tokio::spawn(async move { Client::new().unwrap().ask(&question).await });
        answered.await.unwrap();
        let answered = Instant::now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(release);
        let Reply::Check { took, fault: None, .. } = asked.await.unwrap() else { panic!("it was answered") };
        let judged = u64::try_from(answered.elapsed().as_millis()).unwrap();
        assert!(took.as_millis() + 1000 < judged, "{took} of {judged}ms");
        for judged in busy {
            assert!(judged.await.unwrap().is_some());
        }
    }

    /// Answers each request on a port of its own with this body, once so many are open; tells the most that were.
    async fn serve_together(together: usize, body: String) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        use std::sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        };
        use tokio::{
            io::{AsyncReadExt as _, AsyncWriteExt as _},
            sync::Barrier,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, most, all) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(together)));
        let told = most.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (open, most, all, body) = (open.clone(), most.clone(), all.clone(), body.clone());
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 1024]).await;
                    most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    all.wait().await;
                    // Whoever else would come has come by then.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                    let head =
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                });
            }
        });
        (address, told)
    }

    #[tokio::test]
    async fn of_many_pods_some_are_asked_at_a_time() {
        crate::controller::use_ring();
        let (address, most) = serve_together(AT_ONCE, String::new()).await;
        let http = serde_json::from_str("{}").unwrap();
        let question =
            HttpQuestion { addresses: vec![address; 3 * AT_ONCE], http, timeout: api::Duration::from_secs(30) };
        let Reply::Check { fault, .. } = Client::new().unwrap().ask(&question).await else { panic!("a check") };
        assert_eq!((fault, most.load(std::sync::atomic::Ordering::SeqCst)), (None, AT_ONCE));
    }

    #[tokio::test]
    async fn a_large_body_waits_for_its_turn_and_that_is_no_time_of_its_answer() {
        crate::controller::use_ring();
        let body = format!("{{\"ok\": true, \"text\": \"{}\"}}", "x".repeat(10 * LARGE));
        let (address, _) = serve_together(1, body).await;
        let http = serde_json::from_str(r#"{"expect": {"json": {"ok": true}}}"#).unwrap();
        let question = HttpQuestion { addresses: vec![address], http, timeout: api::Duration::from_secs(3) };
        let turns = TURNS.acquire_many(u32::try_from(MOST_LARGE).unwrap()).await.unwrap();
        let asked = tokio::spawn(async move { Client::new().unwrap().ask(&question).await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!asked.is_finished(), "it waits");
        drop(turns);
        let Reply::Check { took, fault: None, .. } = asked.await.unwrap() else { panic!("it was answered") };
        assert!(took < api::Duration::from_secs(3), "{took}");
    }

    async fn serve_once(listener: tokio::net::TcpListener) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_speaks_no_tls_is_told_as_that() {
        crate::controller::use_ring();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(serve_once(listener));
        let http = serde_json::from_str(r#"{"scheme": "HTTPS"}"#).unwrap();
        let question = HttpQuestion { addresses: vec![address], http, timeout: api::Duration::from_secs(30) };
        let Reply::Check { fault: Some(fault), .. } = Client::new().unwrap().ask(&question).await else {
            panic!("a fault")
        };
        assert_eq!(fault, "no connection: what answers speaks no TLS: is its scheme HTTP?");
    }

    #[test]
    fn what_says_no_time_is_left_as_it_is() {
        for message in ["BackoffLimitExceeded", "exit code 1: it took long", "exit code 1: took tenms: x"] {
            assert_eq!(engine::inquiry::timed(message), None, "{message}");
        }
    }
}
