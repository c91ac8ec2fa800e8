//! `testapp load`: a client that calls the service at a steady rate, whatever the service does.
//! The load is open: each request starts when it is due, not when an answer has come, so that
//! slow answers are not hidden by fewer requests. Nothing is sent twice. Requests alternate
//! between a new connection each and a small pool of kept-alive ones.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode, Uri};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::connection::{Connection, Place, Pool};
use crate::outcome::{Kind, Mode, Outcome, Server, Step, Trouble};
use crate::stats::{Stats, report_server};
use crate::{Stop, duration, http, stamp};

/// How long a resolved name is used; when it cannot be renewed, the old address stays.
const NAME_TTL: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to call: `http://HOST[:PORT]/PATH`
    #[arg(long, env = "LOAD_URL")]
    url: Uri,
    /// What to say in the Host header, if not what the URL has: behind a gateway, the name of a route.
    #[arg(long, env = "LOAD_HOST")]
    host: Option<String>,
    /// A header of every request: `NAME: VALUE`.
    #[arg(long, env = "LOAD_HEADER", value_parser = header)]
    header: Option<(HeaderName, HeaderValue)>,
    /// A version whose answers are a maintenance page: good with status 503 and Retry-After, and only with these.
    #[arg(long, env = "LOAD_PAGE")]
    page: Option<String>,
    /// Requests per second.
    #[arg(long, env = "LOAD_RATE", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Instead of that, the time between two requests.
    #[arg(long, env = "LOAD_EVERY", value_parser = duration)]
    every: Option<Duration>,
    /// How long a request may take.
    #[arg(long, env = "LOAD_TIMEOUT", value_parser = duration, default_value = "5s")]
    timeout: Duration,
    /// Kept-alive connections.
    #[arg(long, env = "LOAD_CONNECTIONS", default_value_t = 4)]
    connections: usize,
    /// Requests that may be outstanding; those beyond it are not sent and count as failed.
    #[arg(long, env = "LOAD_MAX_OUTSTANDING", default_value_t = 1000)]
    max_outstanding: usize,
    /// Port of the report; 0 takes a free one.
    #[arg(long, env = "LOAD_REPORT_PORT", default_value_t = 9090)]
    report_port: u16,
    /// Stop after so long; without it, run until SIGTERM.
    #[arg(long, env = "LOAD_DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Print a line each second.
    #[arg(long, env = "LOAD_PROGRESS")]
    progress: bool,
    /// Exit with code 1 if a request failed.
    #[arg(long, env = "LOAD_FAIL_ON_ERROR")]
    fail_on_error: bool,
}

fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').with_context(|| format!("{text:?}: write NAME: VALUE"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// The service that is called.
struct Target {
    host: String,
    port: u16,
    host_header: HeaderValue,
    header: Option<(HeaderName, HeaderValue)>,
    path: Uri,
    address: Mutex<Option<(SocketAddr, Instant)>>,
}

struct Client {
    target: Target,
    pool: Arc<Pool>,
    timeout: Duration,
    page: Option<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    // Not more than a slow load can keep busy: those that rest are closed.
    let connections = args.connections.min(args.rate.div_ceil(2) as usize);
    let pool = Pool::new(connections);
    let every = args.every.filter(|every| !every.is_zero()).unwrap_or(Duration::from_secs(1) / args.rate);
    let outstanding = Arc::new(Semaphore::new(args.max_outstanding));
    let target = Target::new(&args.url, args.host.as_deref(), args.header.clone())?;
    let client = Arc::new(Client { target, pool: pool.clone(), timeout: args.timeout, page: args.page });
    let listener = http::listen(args.report_port).await?;
    println!("{} report on {}", stamp(Timestamp::now()), listener.local_addr()?);
    let stats = Arc::new(Stats::new(pool, outstanding.clone(), args.max_outstanding));
    tokio::spawn(report_server(listener, stats.clone()));
    if args.progress {
        tokio::spawn(progress(stats.clone()));
    }
    tokio::select! {
        () = stop.requested() => {}
        () = sleep(args.duration.unwrap_or(Duration::MAX)) => {}
        () = send(client, stats.clone(), outstanding.clone(), every) => {}
    }
    // What is outstanding ends by its own timeout.
    let all = u32::try_from(args.max_outstanding).unwrap_or(u32::MAX);
    drop(outstanding.acquire_many(all).await);
    let report = stats.report();
    println!("{}", serde_json::to_string(&report)?);
    Ok(ExitCode::from(u8::from(args.fail_on_error && report.failures > 0)))
}

/// Starts a request whenever one is due, for ever.
async fn send(client: Arc<Client>, stats: Arc<Stats>, outstanding: Arc<Semaphore>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let modes = [Mode::New, Mode::KeptAlive].into_iter().cycle();
    for mode in modes {
        let due = ticks.tick().await.into_std();
        match outstanding.clone().try_acquire_owned() {
            Ok(permit) => {
                let (client, stats) = (client.clone(), stats.clone());
                tokio::spawn(async move {
                    stats.record(client.request(mode, due).await);
                    drop(permit);
                });
            }
            Err(_) => {
                let mut outcome = Outcome::start(mode, due);
                let detail = "too many requests outstanding".to_owned();
                outcome.trouble = Some(Trouble { kind: Kind::Overflow, detail });
                stats.record(outcome);
            }
        }
    }
}

async fn progress(stats: Arc<Stats>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        println!("{}", stats.progress());
    }
}

impl Target {
    fn new(url: &Uri, host: Option<&str>, header: Option<(HeaderName, HeaderValue)>) -> anyhow::Result<Self> {
        if url.scheme_str() != Some("http") {
            bail!("--url {url}: write http://HOST[:PORT]/PATH");
        }
        let authority = url.authority().with_context(|| format!("--url {url}: no host"))?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            host_header: HeaderValue::from_str(host.unwrap_or(authority.as_str()))
                .with_context(|| format!("--host {host:?}: not a name"))?,
            header,
            path: path.parse()?,
            address: Mutex::new(None),
        })
    }

    async fn resolve(&self) -> Result<SocketAddr, Trouble> {
        let known = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, at)) = known
            && at.elapsed() < NAME_TTL
        {
            return Ok(address);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let error = match found.map(|mut addresses| addresses.next()) {
            Ok(Some(address)) => {
                let now = Instant::now();
                *self.address.lock().unwrap_or_else(PoisonError::into_inner) = Some((address, now));
                return Ok(address);
            }
            Ok(None) => "no address".to_owned(),
            Err(error) => error.to_string(),
        };
        match known {
            Some((address, _)) => Ok(address),
            None => Err(Trouble { kind: Kind::Resolve, detail: format!("{}: {error}", self.host) }),
        }
    }

    fn request(&self, mode: Mode) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host_header.clone());
        headers.extend(self.header.clone());
        if mode == Mode::New {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        request
    }
}

impl Client {
    async fn request(&self, mode: Mode, due: Instant) -> Outcome {
        let mut outcome = Outcome::start(mode, due);
        let (place, mut connection) = match mode {
            Mode::New => (None, None),
            Mode::KeptAlive => {
                let (place, connection) = self.pool.take();
                (Some(place), connection)
            }
        };
        let exchange = self.exchange(&mut outcome, &mut connection, place.as_ref());
        let result = timeout(self.timeout, exchange).await;
        let again = match result {
            Ok(Ok(again)) => again,
            Ok(Err(trouble)) => {
                outcome.trouble = Some(trouble);
                false
            }
            Err(_) => {
                let detail = format!("no answer in {:?}", self.timeout);
                outcome.trouble = Some(Trouble { kind: Kind::Timeout, detail });
                false
            }
        };
        if let (true, Some(place), Some(connection)) = (again, place, connection) {
            place.keep(connection);
        }
        outcome
    }

    /// Sends one request and reads its answer; true if the connection can serve another.
    async fn exchange(
        &self,
        outcome: &mut Outcome,
        slot: &mut Option<Connection>,
        place: Option<&Place>,
    ) -> Result<bool, Trouble> {
        let response = loop {
            if let Some(connection) = slot
                && !connection.is_usable().await
            {
                *slot = None;
                place.inspect(|place| place.found_closed());
            }
            let connection = match slot.as_mut() {
                Some(connection) => connection,
                None => slot.insert(self.open(outcome).await?),
            };
            outcome.step = Step::Answer;
            connection.requests += 1;
            outcome.nth = connection.requests;
            outcome.local_port = Some(connection.local_port);
            outcome.before = connection.last.clone();
            let request = self.target.request(outcome.mode);
            match connection.sender.try_send_request(request).await {
                Ok(response) => break response,
                Err(mut error) => {
                    // Handed back untouched: the connection was found closed before the request
                    // was sent, and it is sent for the first time on another one.
                    let unsent = error.take_message().is_some();
                    if !unsent || outcome.nth == 1 {
                        return Err(Trouble::of(&error.into_error()));
                    }
                    *slot = None;
                    place.inspect(|place| place.found_closed());
                }
            }
        };
        outcome.announced_close = announces_close(&response);
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).cloned();
        outcome.step = Step::Body;
        let body = response.into_body().collect().await.map_err(|error| Trouble::of(&error))?;
        let server = Server::read(&body.to_bytes());
        if let Some(connection) = slot {
            connection.last = Some(server.clone());
        }
        outcome.trouble = match self.page.as_ref().is_some_and(|page| *page == server.version) {
            true => not_a_page(status, retry_after.as_ref()),
            false => {
                Kind::of_status(status).map(|kind| Trouble { kind, detail: format!("status {}", status.as_u16()) })
            }
        };
        outcome.server = Some(server);
        Ok(!outcome.announced_close)
    }

    async fn open(&self, outcome: &mut Outcome) -> Result<Connection, Trouble> {
        outcome.step = Step::Resolve;
        let address = self.target.resolve().await?;
        outcome.step = Step::Connect;
        Connection::open(address).await.map_err(|error| Trouble::of(&error))
    }
}

/// What an answer lacks of a maintenance page, but its body, which was read.
fn not_a_page(status: StatusCode, retry_after: Option<&HeaderValue>) -> Option<Trouble> {
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let is_page = status == StatusCode::SERVICE_UNAVAILABLE && seconds.is_some();
    let detail = format!("a page with status {} and Retry-After {retry_after:?}", status.as_u16());
    (!is_page).then_some(Trouble { kind: Kind::StatusOther, detail })
}

fn announces_close(response: &Response<Incoming>) -> bool {
    let values = response.headers().get_all(CONNECTION);
    values.iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_503_that_says_when_to_come_again() {
        let after = HeaderValue::from_static("120");
        assert!(not_a_page(StatusCode::SERVICE_UNAVAILABLE, Some(&after)).is_none());
        assert!(not_a_page(StatusCode::SERVICE_UNAVAILABLE, None).is_some());
        assert!(not_a_page(StatusCode::SERVICE_UNAVAILABLE, Some(&HeaderValue::from_static("soon"))).is_some());
        assert!(not_a_page(StatusCode::OK, Some(&after)).is_some());
    }

    #[test]
    fn the_host_header_is_that_of_the_url_unless_another_is_asked_for() {
        let url = "http://198.18.0.1:8000/".parse().unwrap();
        assert_eq!(Target::new(&url, None, None).unwrap().host_header, "198.18.0.1:8000");
        let target = Target::new(&url, Some("shop.example"), None).unwrap();
        assert_eq!(
            (target.host_header.to_str().unwrap(), &*target.host, target.port),
            ("shop.example", "198.18.0.1", 8000)
        );
        assert!(Target::new(&url, Some("two\nlines"), None).is_err());
    }
}
