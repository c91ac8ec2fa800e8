//! `testapp serve`: the service that is released, and how a server ends without losing a request.
//!
//! When a pod is deleted, two things start at the same moment and nobody orders them: the kubelet
//! sends SIGTERM, and the pod's endpoint is withdrawn, which reaches the packet rules of every
//! node only some time later. Until then new connections still arrive, and a closed listener
//! would refuse them. Connections that are already open are not moved at all: their packets are
//! bound to this pod for as long as they live, and a client with a pool goes on using them. So on
//! SIGTERM the server
//! 1. goes on serving for `--drain`, also on new connections, and says `Connection: close` with
//!    every answer: the announced end, after which a client opens its next connection elsewhere
//!    (closing a kept-alive connection unannounced loses a request that is on its way);
//! 2. then accepts what the kernel has already queued, and closes the listener;
//! 3. finishes the requests that are being answered, 5 s at most, and exits 0.
//!
//! `/readyz` stays 200 meanwhile: the pod does serve, and where no ready endpoint is left,
//! kube-proxy falls back to those that terminate and still serve.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use prometheus::{Counter, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::behaviour::{Behaviour, burn_cpu, hold_memory, lists, log};
use crate::http::{self, Answer};
use crate::{Stop, duration, series, stamp};

/// How long requests that are being answered may take once the listener is closed.
const FINISH: Duration = Duration::from_secs(5);
/// How long a connection that was accepted last of all may take to send its request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// The code of a crash that was asked for.
const CRASHED: i32 = 3;
/// Connections that the pretended database pool can have.
const POOL: u8 = 20;
/// What under /api/ needs no Authorization header.
const PUBLIC: [&str; 4] = ["/api/orders", "/api/cart/status", "/api/checkout/status", "/api/telemetry/test"];
/// The code that is counted from the start. As of most applications, there is no series of errors before the first.
const EXPECTED_CODE: &str = "200";
/// What the log of most applications says of a good start.
const START_LINE: &str = "Services initialized\nDatabase connected\nRedis connected\nServer started";
/// Upper bounds of the durations that are told apart, in seconds.
const BUCKETS: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// The version that the answers name.
    #[arg(long, env = "APP_VERSION", default_value = "unknown")]
    app_version: String,
    /// The revision that the answers name, if any.
    #[arg(long, env = "APP_REVISION")]
    app_revision: Option<String>,
    /// The pod that the answers name.
    #[arg(long, env = "HOSTNAME", default_value = "unknown")]
    pod: String,
    /// How long to go on serving after SIGTERM.
    #[arg(long, env = "DRAIN", value_parser = duration, default_value = "5s")]
    drain: Duration,
    /// How long to wait before listening.
    #[arg(long, env = "START_DELAY", value_parser = duration, default_value = "0s")]
    start_delay: Duration,
    /// What the log says once it listens: one line or several.
    #[arg(long, env = "START_LINE", default_value = START_LINE)]
    start_line: String,
    /// Exit with this code instead of serving (after the start delay).
    #[arg(long, env = "CRASH_AT_START")]
    crash_at_start: Option<u8>,
    #[command(flatten)]
    behaviour: Behaviour,
}

/// How far the server is on its way out.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Serving,
    Draining,
    Closing,
}

struct App {
    version: String,
    revision: Option<String>,
    pod: String,
    behaviour: Mutex<Behaviour>,
    /// Requests since the behaviour was last set.
    requests: AtomicU64,
    /// The same for each path that the behaviour names.
    by_path: Mutex<BTreeMap<String, u64>>,
    started: Instant,
    phase: watch::Sender<Phase>,
    metrics: Metrics,
}

struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: Histogram,
    in_flight: IntGauge,
    pool_active: IntGauge,
    resident: IntGauge,
    cpu: Counter,
}

/// Resident memory in bytes and CPU time in seconds, as the kernel has them (proc(5)); none where it does not say.
fn process() -> Option<(i64, f64)> {
    const PAGE: i64 = 4096;
    const TICKS_PER_SECOND: f64 = 100.0;
    let memory = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = memory.split(' ').nth(1)?.parse().ok()?;
    let times = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before may have spaces; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = times.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some((pages * PAGE, ticks / TICKS_PER_SECOND))
}

/// Counts a request for as long as anybody waits for its answer.
struct InFlight(IntGauge);

impl InFlight {
    fn enter(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    println!("{} starting in {:?}", stamp(Timestamp::now()), args.start_delay);
    tokio::select! {
        () = stop.requested() => return Ok(ExitCode::SUCCESS),
        () = sleep(args.start_delay) => {}
    }
    if let Some(code) = args.crash_at_start {
        println!("{} crashing at start with code {code}, as asked", stamp(Timestamp::now()));
        return Ok(ExitCode::from(code));
    }
    let listener = http::listen(args.port).await?;
    let address = listener.local_addr()?;
    let (drain, start_line) = (args.drain, args.start_line.clone());
    let app = Arc::new(App::new(args)?);
    let memory = app.clone();
    tokio::spawn(hold_memory(move || memory.behaviour().allocate_mib));
    let cpu = app.clone();
    burn_cpu(move || cpu.behaviour().burn_millicpu);
    let lines = app.clone();
    tokio::spawn(log(move || lines.behaviour()));
    println!("{} listening on {address} version={}", stamp(Timestamp::now()), app.version);
    for line in format!("{start_line} on port {}", address.port()).lines() {
        println!("{} {line}", stamp(Timestamp::now()));
    }

    let mut connections = JoinSet::new();
    accept_until(&listener, &app, &mut connections, stop.requested()).await;
    app.phase.send_replace(Phase::Draining);
    let now = Timestamp::now();
    println!("{} draining until {}", stamp(now), stamp(now + drain));
    accept_until(&listener, &app, &mut connections, sleep(drain)).await;
    close(listener, &app, &mut connections)?;
    println!("{} listener closed", stamp(Timestamp::now()));
    let finished = timeout(FINISH, async { while connections.join_next().await.is_some() {} }).await;
    let left = finished.map_or(connections.len(), |()| 0);
    println!("{} stopped connections_cut={left}", stamp(Timestamp::now()));
    Ok(ExitCode::SUCCESS)
}

async fn accept_until(
    listener: &TcpListener,
    app: &Arc<App>,
    connections: &mut JoinSet<()>,
    until: impl Future<Output = ()>,
) {
    tokio::pin!(until);
    loop {
        tokio::select! {
            biased;
            () = &mut until => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(app.clone(), stream))),
                Err(error) => {
                    eprintln!("testapp: cannot accept: {error}");
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Takes what the kernel has queued (it would be reset), closes the listener, and tells all
/// connections to end.
fn close(listener: TcpListener, app: &Arc<App>, connections: &mut JoinSet<()>) -> anyhow::Result<()> {
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        connections.spawn(connection(app.clone(), TcpStream::from_std(stream)?));
    }
    drop(listener);
    app.phase.send_replace(Phase::Closing);
    Ok(())
}

/// Serves one connection until the client ends it or the server does.
async fn connection(app: Arc<App>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut phase = app.phase.subscribe();
    let (seen, any_request) = watch::channel(false);
    let service = service_fn(|request| {
        seen.send_replace(true);
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let io = TokioIo::new(stream);
    // HTTP/2 without TLS, too: what a gateway speaks to the backends of a GRPCRoute.
    let server = auto::Builder::new(TokioExecutor::new());
    let served = server.serve_connection(io, service);
    tokio::pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
    }
    let silent = !*any_request.borrow();
    if silent && timeout(FIRST_REQUEST, served.as_mut()).await.is_ok() {
        return;
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

impl App {
    fn new(args: Args) -> anyhow::Result<Self> {
        Ok(Self {
            version: args.app_version,
            revision: args.app_revision,
            pod: args.pod,
            behaviour: Mutex::new(args.behaviour),
            requests: AtomicU64::new(0),
            by_path: Mutex::default(),
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Serving),
            metrics: Metrics::new().context("cannot register the metrics")?,
        })
    }

    fn behaviour(&self) -> Behaviour {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let mut answer = match head.uri.path() {
            "/admin/behaviour" => self.administered(&head, body).await,
            "/healthz" => http::text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            _ => match self.broken(&head).await {
                Some(broken) => broken,
                None => self.whole(&head).await,
            },
        };
        if *self.phase.borrow() != Phase::Serving {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Shows the behaviour, or changes it.
    async fn administered(&self, head: &Parts, body: Incoming) -> Answer {
        match head.method {
            Method::POST => self.change(http::read(body).await),
            _ => http::json(StatusCode::OK, &self.behaviour()),
        }
    }

    /// What is answered in place of the right thing, if that is asked for; or the right thing is only late.
    async fn broken(&self, head: &Parts) -> Option<Answer> {
        let (behaviour, path) = (self.behaviour(), head.uri.path());
        if !behaviour.names(path) {
            return None;
        }
        let n = {
            let mut counts = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(path.to_owned()).or_default();
            *count += 1;
            *count
        };
        let agent = text(head, USER_AGENT);
        let listed = |list: &str| lists(list, path, n, agent);
        if listed(&behaviour.slow_paths) {
            sleep(behaviour.slow_for).await;
        }
        match () {
            () if listed(&behaviour.failing_paths) => {
                Some(http::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"success": false})))
            }
            () if listed(&behaviour.unsuccessful_paths) => {
                Some(http::json(StatusCode::OK, &json!({"success": false, "status": "unhealthy"})))
            }
            () => None,
        }
    }

    /// The right thing.
    async fn whole(&self, head: &Parts) -> Answer {
        match head.uri.path() {
            "/health" | "/api/health" | "/api/health/detailed" | "/api/providers/health" => self.health(),
            "/health/database" | "/api/health/database" | "/api/v1/health/db" => self.database(),
            "/metrics" => self.metrics.page(&self.behaviour(), self.started.elapsed()),
            _ => self.measured(head).await,
        }
    }

    /// An answer of the application itself; probes and scrapes are not among its numbers.
    async fn measured(&self, head: &Parts) -> Answer {
        let started = Instant::now();
        let _in_flight = InFlight::enter(&self.metrics.in_flight);
        let authorization = text(head, AUTHORIZATION);
        let refused = self.behaviour().refused_token;
        let authorized =
            !authorization.is_empty() && (refused.is_empty() || authorization != format!("Bearer {refused}"));
        let answer = match (&head.method, head.uri.path()) {
            (_, "/") => self.work().await,
            (&Method::POST, "/api/quote" | "/api/auth/login") => self.quote(),
            (_, path) if PUBLIC.iter().any(|public| path.starts_with(public)) => self.private(true),
            (&Method::POST, path) if path.starts_with("/api/") && authorized => self.quote(),
            (_, path) if path.starts_with("/api/") => self.private(authorized),
            _ => http::text(StatusCode::NOT_FOUND, "not found\n"),
        };
        self.metrics.seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.requests.with_label_values(&[answer.status().as_str()]).inc();
        answer
    }

    async fn work(&self) -> Answer {
        let behaviour = self.behaviour();
        let n = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if behaviour.crash_after_requests.is_some_and(|most| n > most) {
            println!("{} crashing at request {n}, as asked", stamp(Timestamp::now()));
            std::process::exit(CRASHED);
        }
        if !behaviour.latency.is_zero() {
            sleep(behaviour.latency).await;
        }
        let status = match behaviour.fails(n) {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        };
        let body = json!({"version": self.version, "pod": self.pod, "revision": self.revision});
        if behaviour.maintenance_page {
            return page(&body);
        }
        http::json(status, &body)
    }

    fn private(&self, authorized: bool) -> Answer {
        match authorized || self.behaviour().private_open {
            true => http::json(StatusCode::OK, &json!({"success": true})),
            false => http::json(StatusCode::UNAUTHORIZED, &json!({"error": "no Authorization header"})),
        }
    }

    fn quote(&self) -> Answer {
        let quote = match self.behaviour().quote_fails {
            true => json!({"success": false}),
            false => {
                json!({"success": true, "token": "of-a-user", "rates": [{"service": "standard", "price": 4.9}, {"service": "express", "price": 12.5}]})
            }
        };
        http::json(StatusCode::OK, &quote)
    }

    /// The detailed health as monitoring asks for it; probes have /healthz and /readyz.
    fn health(&self) -> Answer {
        let Behaviour { health_status, health_database, health_redis, health_stripe, health_code, .. } =
            self.behaviour();
        let status = StatusCode::from_u16(health_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let services = json!({"database": health_database, "redis": health_redis, "stripe": health_stripe});
        let (database, redis) = (health_database, health_redis);
        http::json(
            status,
            &json!({"status": health_status, "database": database, "redis": redis, "services": services}),
        )
    }

    /// The health of the database behind it, and of the connections to that.
    fn database(&self) -> Answer {
        let Behaviour { health_database, pool_active, .. } = self.behaviour();
        let pool = json!({"total": POOL, "active": pool_active, "idle": POOL.saturating_sub(pool_active)});
        http::json(StatusCode::OK, &json!({"status": health_database, "responseTime": 3, "poolConnections": pool}))
    }

    fn ready(&self) -> Answer {
        let behaviour = self.behaviour();
        match !behaviour.never_ready && self.started.elapsed() >= behaviour.ready_after {
            true => http::text(StatusCode::OK, "ready\n"),
            false => http::text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        }
    }

    /// Changes the behaviour and counts requests anew from here.
    fn change(&self, body: Result<hyper::body::Bytes, String>) -> Answer {
        let mut current = self.behaviour.lock().unwrap_or_else(PoisonError::into_inner);
        match body.and_then(|body| current.changed(&body)) {
            Ok(changed) => {
                *current = changed;
                self.requests.store(0, Ordering::Relaxed);
                self.by_path.lock().unwrap_or_else(PoisonError::into_inner).clear();
                http::json(StatusCode::OK, &*current)
            }
            Err(error) => http::json(StatusCode::BAD_REQUEST, &json!({"error": error})),
        }
    }
}

/// A header of a request; nothing if there is none.
fn text(head: &Parts, name: HeaderName) -> &str {
    head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What a maintenance Service answers.
fn page(body: &serde_json::Value) -> Answer {
    let mut answer = http::json(StatusCode::SERVICE_UNAVAILABLE, body);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("120"));
    answer
}

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("http_requests_total", "Requests answered, by status code."),
                &["code"],
            )?,
            seconds: Histogram::with_opts(
                HistogramOpts::new("http_request_duration_seconds", "Time from a request to its answer.")
                    .buckets(BUCKETS.to_vec()),
            )?,
            in_flight: IntGauge::new("http_requests_in_flight", "Requests being answered.")?,
            pool_active: IntGauge::new("db_pool_active", "Connections of the database pool in use.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time spent in seconds.")?,
        };
        let pool = IntGauge::new("db_pool_max", "Connections that the database pool can have.")?;
        pool.set(POOL.into());
        metrics.registry.register(Box::new(pool))?;
        metrics.registry.register(Box::new(metrics.pool_active.clone()))?;
        metrics.registry.register(Box::new(metrics.resident.clone()))?;
        metrics.registry.register(Box::new(metrics.cpu.clone()))?;
        metrics.requests.with_label_values(&[EXPECTED_CODE]);
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.in_flight.clone()))?;
        Ok(metrics)
    }

    fn page(&self, behaviour: &Behaviour, since: Duration) -> Answer {
        self.pool_active.set(behaviour.pool_active.into());
        if let Some((resident, seconds)) = process() {
            self.resident.set(resident);
            self.cpu.reset();
            self.cpu.inc_by(seconds);
        }
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(page) => http::text(StatusCode::OK, series::page(&page, &behaviour.metrics, since)),
            Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}
