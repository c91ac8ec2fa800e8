//! The served application: what it answers, how it misbehaves, and that it ends without a loss.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Connection, Testapp, get, post, until};

#[test]
fn answers_who_it_is_and_counts_it() {
    let env = [("APP_VERSION", "v7"), ("HOSTNAME", "pod-a"), ("APP_REVISION", "3")];
    let (_app, address) = Testapp::serve(&env);
    let answer = get(address, "/");
    assert_eq!(answer.status, 200);
    let who = serde_json::json!({"version": "v7", "pod": "pod-a", "revision": "3"});
    assert_eq!(answer.json(), who);
    assert_eq!(get(address, "/nothing").status, 404);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(address, path).status, 200, "{path}");
    }
    let metrics = get(address, "/metrics").body;
    assert!(!metrics.contains(r#"code="500""#), "no series before the first error: {metrics}");
    for line in [
        r#"http_requests_total{code="200"} 1"#,
        r#"http_requests_total{code="404"} 1"#,
        r#"http_request_duration_seconds_bucket{le="0.05"} 2"#,
        r#"http_request_duration_seconds_bucket{le="2.5"} 2"#,
        "http_request_duration_seconds_count 2",
        "http_requests_in_flight 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn tells_of_its_health_what_it_is_asked_to() {
    let health = |status: &str, database: &str, redis: &str| {
        let services = serde_json::json!({"database": database, "redis": redis, "stripe": "connected"});
        serde_json::json!({"status": status, "database": database, "redis": redis, "services": services})
    };
    let (_app, address) = Testapp::serve(&[]);
    let healthy = health("healthy", "connected", "connected");
    let answer = get(address, "/health");
    assert_eq!((answer.status, answer.json()), (200, healthy));
    let env = [("HEALTH_STATUS", "degraded"), ("HEALTH_DATABASE", "disconnected"), ("HEALTH_CODE", "503")];
    let (_app, address) = Testapp::serve(&env);
    let degraded = health("degraded", "disconnected", "connected");
    let answer = get(address, "/health");
    assert_eq!((answer.status, answer.json()), (503, degraded));
    assert_eq!(get(address, "/readyz").status, 200);
    let change = r#"{"health_status": "healthy", "health_redis": "slow", "health_code": 200}"#;
    assert_eq!(post(address, "/admin/behaviour", change).status, 200);
    let changed = health("healthy", "disconnected", "slow");
    let answer = get(address, "/health");
    assert_eq!((answer.status, answer.json()), (200, changed));
    assert!(get(address, "/metrics").body.contains("http_request_duration_seconds_count 0"));
}

#[test]
fn paths_fail_that_are_asked_to() {
    let (_app, address) =
        Testapp::serve(&[("FAILING_PATHS", "/api/orders/test,/api/health"), ("METRICS", "payments_total 3")]);
    assert_eq!(["/api/orders/test", "/api/health"].map(|path| get(address, path).status), [500, 500]);
    assert_eq!(["/api/orders", "/health"].map(|path| get(address, path).status), [200, 200]);
    assert!(get(address, "/metrics").body.contains("\npayments_total 3\n"));
}

#[test]
fn some_requests_to_a_path_are_broken_and_others_not() {
    let env = [
        ("FAILING_PATHS", "/api/health@3,/health@2+"),
        ("UNSUCCESSFUL_PATHS", "/api/cart/status"),
        ("SLOW_PATHS", "/health/database"),
        ("SLOW_FOR", "300ms"),
    ];
    let (_app, address) = Testapp::serve(&env);
    let statuses = |path: &str| [(); 4].map(|()| get(address, path).status);
    assert_eq!(statuses("/api/health"), [200, 200, 500, 200]);
    assert_eq!(statuses("/health"), [200, 500, 500, 500]);
    let cart = get(address, "/api/cart/status");
    assert_eq!((cart.status, &cart.json()["success"]), (200, &serde_json::json!(false)));
    let begun = std::time::Instant::now();
    assert_eq!(get(address, "/health/database").status, 200);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300));
    post(address, "/admin/behaviour", r#"{"failing_paths": "/health@2+", "unsuccessful_paths": ""}"#);
    assert_eq!(statuses("/health"), [200, 500, 500, 500], "counted anew");
    assert_eq!(get(address, "/api/cart/status").json()["success"], true);
}

#[test]
fn one_token_is_nobodys() {
    let (_app, address) = Testapp::serve(&[("REFUSED_TOKEN", "token")]);
    let status = |token: &str| {
        let mut connection = Connection::open(address).unwrap();
        let header = format!("authorization: Bearer {token}\r\n");
        connection.send_with("GET", "/api/private", &header, "").unwrap();
        connection.receive().unwrap().status
    };
    assert_eq!((status("token"), status("of-a-user")), (401, 200));
}

#[test]
fn tells_of_its_pool_and_of_what_it_uses() {
    let (_app, address) = Testapp::serve(&[("POOL_ACTIVE", "20")]);
    let pool = serde_json::json!({"total": 20, "active": 20, "idle": 0});
    assert_eq!(get(address, "/api/v1/health/db").json()["poolConnections"], pool);
    let page = get(address, "/metrics").body;
    for line in ["db_pool_active 20", "db_pool_max 20"] {
        assert!(page.lines().any(|it| it == line), "{page}");
    }
    let value = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("process_resident_memory_bytes ") > 1e6 && value("process_cpu_seconds_total ") >= 0.0, "{page}");
}

#[test]
fn keeps_the_private_private_and_quotes() {
    let (_app, address) = Testapp::serve(&[]);
    assert_eq!(get(address, "/api/private").status, 401);
    let mut authorized = Connection::open(address).unwrap();
    authorized.send_with("GET", "/api/private", "authorization: Bearer x\r\n", "").unwrap();
    assert_eq!(authorized.receive().unwrap().status, 200);
    let quote = post(address, "/api/quote", "{}").json();
    assert_eq!(quote["success"], true);
    assert!(!quote["rates"].as_array().unwrap().is_empty());
    let (_app, address) = Testapp::serve(&[("PRIVATE_OPEN", "true"), ("QUOTE_FAILS", "true")]);
    assert_eq!(get(address, "/api/private").status, 200);
    let quote = post(address, "/api/quote", "{}");
    assert_eq!((quote.status, quote.json()), (200, serde_json::json!({"success": false})));
}

#[test]
fn logs_errors_when_asked_to() {
    let (mut app, _address) = Testapp::serve(&[("LOG_ERRORS", "3")]);
    app.line("ERROR something failed");
    let (mut app, address) = Testapp::serve(&[]);
    post(address, "/admin/behaviour", r#"{"log_errors": 1}"#);
    app.line("ERROR something failed");
    let (mut app, _address) = Testapp::serve(&[("LOG_LINE", "TypeError: x is undefined")]);
    app.line("TypeError: x is undefined");
}

#[test]
fn never_ready_answers_503_and_serves_all_the_same() {
    let (_app, address) = Testapp::serve(&[("NEVER_READY", "true")]);
    assert_eq!(get(address, "/readyz").status, 503);
    assert_eq!(get(address, "/healthz").status, 200);
    assert_eq!(get(address, "/").status, 200);
    let changed = post(address, "/admin/behaviour", r#"{"never_ready": false}"#);
    assert_eq!(changed.json()["never_ready"], false);
    assert_eq!(get(address, "/readyz").status, 200);
    let refused = post(address, "/admin/behaviour", r#"{"never_redy": true}"#);
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"].as_str().unwrap().contains("never_redy"));
}

#[test]
fn becomes_ready_late() {
    let (_app, address) = Testapp::serve(&[("READY_AFTER", "1500ms")]);
    assert_eq!(get(address, "/readyz").status, 503);
    until("ready", || (get(address, "/readyz").status == 200).then_some(()));
}

#[test]
fn crashes_at_start_with_the_code_asked_for() {
    assert_eq!(Testapp::start(&["serve"], &[("CRASH_AT_START", "7")]).exit_code(), 7);
}

#[test]
fn crashes_after_so_many_requests() {
    let (mut app, address) = Testapp::serve(&[("CRASH_AFTER_REQUESTS", "3")]);
    for _ in 0..3 {
        assert_eq!(get(address, "/readyz").status, 200);
        assert_eq!(get(address, "/").status, 200);
    }
    assert!(Connection::open(address).unwrap().get("/").is_err());
    assert_eq!(app.exit_code(), 3);
}

#[test]
fn fails_the_share_asked_for() {
    let (_app, address) = Testapp::serve(&[("ERROR_RATE", "0.25"), ("HOSTNAME", "pod-a")]);
    let answers: Vec<_> = (0..8).map(|_| get(address, "/")).collect();
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status == 500).collect();
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0].json()["pod"], "pod-a");
}

#[test]
fn grows_to_the_memory_asked_for() {
    let (app, address) = Testapp::serve(&[("ALLOCATE_MIB", "64")]);
    until("64 MiB", || (app.resident_mib() >= 64).then_some(()));
    post(address, "/admin/behaviour", r#"{"allocate_mib": 0}"#);
    until("less than 32 MiB", || (app.resident_mib() < 32).then_some(()));
}

#[test]
fn burns_the_cpu_asked_for() {
    let (_app, address) = Testapp::serve(&[("BURN_MILLICPU", "500")]);
    until("a second of CPU", || {
        let page = get(address, "/metrics").body;
        let line = page.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
        line.and_then(|value| value.parse::<f64>().ok()).filter(|seconds| *seconds >= 1.0)
    });
}

#[test]
fn drains_before_it_ends() {
    let (mut app, address) = Testapp::serve(&[("DRAIN", "2s")]);
    let mut used = Connection::open(address).unwrap();
    assert!(!used.get("/").unwrap().closes);
    let mut idle = Connection::open(address).unwrap();
    assert!(!idle.get("/").unwrap().closes);
    app.terminate();
    app.line("draining until");
    let last = used.get("/").unwrap();
    assert_eq!((last.status, last.closes), (200, true), "{last:?}");
    assert!(used.ended());
    let new = get(address, "/readyz");
    assert_eq!((new.status, new.closes), (200, true), "{new:?}");
    app.line("listener closed");
    assert!(Connection::open(address).is_err());
    assert!(idle.ended());
    assert_eq!(app.exit_code(), 0);
    app.line("connections_cut=0");
}

#[test]
fn finishes_what_it_has_begun_after_the_drain() {
    let (mut app, address) = Testapp::serve(&[("DRAIN", "0s"), ("LATENCY", "1500ms")]);
    let mut silent = Connection::open(address).unwrap();
    let mut slow = Connection::open(address).unwrap();
    slow.send("GET", "/", "").unwrap();
    let in_flight = |page: &str| page.contains("http_requests_in_flight 1");
    until("in flight", || in_flight(&get(address, "/metrics").body).then_some(()));
    app.terminate();
    app.line("listener closed");
    let late = silent.get("/").unwrap();
    assert_eq!((late.status, late.closes), (200, true), "{late:?}");
    let answer = slow.receive().unwrap();
    assert_eq!((answer.status, answer.closes), (200, true), "{answer:?}");
    assert_eq!(app.exit_code(), 0);
}

#[test]
fn stops_at_once_while_it_is_still_starting() {
    let mut app = Testapp::start(&["serve"], &[("START_DELAY", "1h")]);
    app.line("starting in");
    app.terminate();
    assert_eq!(app.exit_code(), 0);
}
