//! The load client: that it sees every loss, names it rightly, and counts nothing that is none.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use support::{Testapp, get, post, until};

fn report(address: SocketAddr) -> Value {
    get(address, "/report").json()
}

/// Waits until a number of the report is reached.
fn reach(address: SocketAddr, field: &str, least: u64) -> Value {
    until(&format!("{field} >= {least}"), || {
        let report = report(address);
        (report[field].as_u64().unwrap() >= least).then_some(report)
    })
}

fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap()
}

fn sum(report: &Value, field: &str) -> u64 {
    report[field].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

fn instant(value: &str) -> Timestamp {
    value.parse().unwrap()
}

/// A server that does `serve` with each connection.
fn fake(serve: impl Fn(usize, TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        listener.incoming().enumerate().for_each(|(n, stream)| serve(n, stream.unwrap()));
    });
    address
}

fn read_request(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 4096]).unwrap_or(0)
}

fn reply(stream: &mut TcpStream, version: &str) {
    let body = format!(r#"{{"version": "{version}", "pod": "{version}-pod"}}"#);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
}

#[test]
fn a_server_that_drains_loses_nothing() {
    let (mut app, address) = Testapp::serve(&[("DRAIN", "2s"), ("HOSTNAME", "pod-a")]);
    let (mut load, stats) = Testapp::load(address, &["--rate", "200"]);
    reach(stats, "reused", 50);
    app.terminate();
    let line = app.line("draining until");
    let end = instant(line.split(' ').next_back().unwrap());
    let before = number(&report(stats), "successes");
    app.line("listener closed");
    let drained = report(stats);
    assert!(number(&drained, "successes") - before > 200, "served while draining: {drained}");
    assert!(number(&drained, "announced_closes") > 50, "{drained}");
    assert_eq!(app.exit_code(), 0);
    let (_, last) = load.finish_load();
    // A request that starts in the last moment may meet the closed listener.
    let end = end - Duration::from_millis(100);
    for failure in last["first_failures"].as_array().unwrap() {
        assert!(instant(failure["sent"].as_str().unwrap()) > end, "{failure}");
    }
}

#[test]
fn a_crash_is_seen_and_named() {
    let env = [("CRASH_AFTER_REQUESTS", "100"), ("LATENCY", "50ms"), ("HOSTNAME", "pod-a")];
    let (mut app, address) = Testapp::serve(&env);
    let (mut load, stats) = Testapp::load(address, &["--rate", "200", "--fail-on-error"]);
    assert_eq!(app.exit_code(), 3);
    reach(stats, "failures", 30);
    assert!(load.line("first failure: ").contains("\"sent\""));
    let (code, report) = load.finish_load();
    assert_eq!(code, 1);
    assert_eq!(sum(&report, "by_pod"), number(&report, "answered"));
    let kinds = report["failures_by_kind"].as_object().unwrap();
    assert!(kinds.keys().all(|kind| ["connect_refused", "eof", "reset"].contains(&kind.as_str())), "{kinds:?}");
    assert!(kinds["connect_refused"].as_u64() > Some(0), "{kinds:?}");
    let failures = report["first_failures"].as_array().unwrap();
    let died = |mode: &str| {
        let died = |kind: &Value| kind == "eof" || kind == "reset";
        let found = |failure: &&Value| died(&failure["kind"]) && failure["connection"] == mode;
        failures.iter().find(found).unwrap_or_else(|| panic!("no {mode} died in {failures:#?}"))
    };
    assert_eq!(died("new")["last_pod"], Value::Null);
    let kept = died("kept_alive");
    assert_eq!(kept["step"], "answer");
    assert!(kept["local_port"].as_u64() > Some(0));
    let reused = |failure: &&Value| failure["request_on_connection"].as_u64() > Some(1);
    let reused = failures.iter().find(reused).unwrap();
    assert_eq!((&reused["last_pod"], &reused["connection"]), (&"pod-a".into(), &"kept_alive".into()));
    assert!(instant(kept["failed"].as_str().unwrap()) >= instant(kept["sent"].as_str().unwrap()));
}

#[test]
fn failures_get_the_right_kind() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let eof = fake(|_, mut stream| {
        read_request(&mut stream);
    });
    let cut = fake(|_, mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").unwrap();
    });
    let reset = fake(|_, mut stream| {
        // Closed with a part of the request unread: the kernel sends a reset.
        let _ = stream.read(&mut [0; 4]);
    });
    let silent = fake(|_, stream| std::mem::forget(stream));
    let (_failing, failing) = Testapp::serve(&[("ERROR_RATE", "1")]);
    let missing = fake(|_, mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    for (service, kind, step) in [
        (refused, "connect_refused", "connect"),
        (eof, "eof", "answer"),
        (cut, "eof", "body"),
        (reset, "reset", "answer"),
        (silent, "timeout", "answer"),
        (failing, "status_5xx", "body"),
        (missing, "status_other", "body"),
    ] {
        let timeout = if kind == "timeout" { "300ms" } else { "10s" };
        let (mut load, stats) = Testapp::load(service, &["--timeout", timeout]);
        reach(stats, "failures", 10);
        let (code, report) = load.finish_load();
        assert_eq!(code, 0, "without --fail-on-error");
        assert_eq!(report["failures_by_kind"][kind], report["total"], "{kind}: {report}");
        assert_eq!(report["successes"], 0, "{kind}");
        assert_eq!(report["first_failures"][0]["step"], step, "{kind}: {report}");
    }
}

#[test]
fn new_and_kept_alive_connections_are_used_by_halves() {
    let (_app, address) = Testapp::serve(&[]);
    let (mut load, stats) = Testapp::load(address, &["--rate", "200", "--fail-on-error"]);
    reach(stats, "total", 200);
    let (code, report) = load.finish_load();
    assert_eq!(code, 0);
    let (new, kept) = (number(&report, "new_connections"), number(&report, "kept_alive"));
    assert!(new.abs_diff(kept) <= 1, "{report}");
    // Each connection of the pool was new once; one more for each time that all were busy.
    assert!(number(&report, "reused") >= kept * 3 / 4, "{report}");
    assert_eq!(number(&report, "successes"), number(&report, "total"));
}

#[test]
fn a_closed_connection_is_noticed_and_not_used() {
    let address = fake(|_, mut stream| {
        read_request(&mut stream);
        reply(&mut stream, "v1");
    });
    let (mut load, stats) = Testapp::load(address, &[]);
    reach(stats, "found_closed", 10);
    let (_, report) = load.finish_load();
    assert_eq!(number(&report, "failures"), 0, "{report}");
    assert_eq!(number(&report, "reused"), 0, "{report}");
}

#[test]
fn a_slow_service_gets_no_fewer_requests() {
    let (_app, address) = Testapp::serve(&[("LATENCY", "5s")]);
    let (_load, stats) = Testapp::load(address, &["--timeout", "10s", "--max-outstanding", "60"]);
    reach(stats, "in_flight", 60);
    let report = reach(stats, "failures", 5);
    assert_eq!(report["failures_by_kind"]["overflow"], report["failures"], "{report}");
    assert!(number(&report, "longest_gap_ms") >= 1000, "60 requests at 50/s: {report}");
}

#[test]
fn shares_add_up() {
    let address = fake(|n, mut stream| {
        let version = ["v1", "v1", "v1", "v2"][n % 4];
        std::thread::spawn(move || {
            while read_request(&mut stream) > 0 {
                reply(&mut stream, version);
            }
        });
    });
    let (mut load, stats) = Testapp::load(address, &["--rate", "200", "--progress"]);
    reach(stats, "answered", 300);
    let window = get(stats, "/window?seconds=60").json();
    let shares = |field: &str| -> f64 {
        let versions = window["by_version"].as_object().unwrap();
        versions.values().map(|share| share[field].as_f64().unwrap()).sum()
    };
    assert!((shares("share") - 1.0).abs() < 1e-9, "{window}");
    assert!((shares("new_share") - 1.0).abs() < 1e-9, "{window}");
    assert_eq!(shares("answered"), window["answered"].as_f64().unwrap());
    let v2 = window["by_version"]["v2"]["new_share"].as_f64().unwrap();
    assert!((0.2..0.3).contains(&v2), "{window}");
    assert_eq!(get(stats, "/window?seconds=0").status, 400);
    assert!(load.line("v1=").contains("failed=0"));

    let before = post(stats, "/reset", "").json();
    assert!(number(&before, "answered") >= 300);
    assert!(number(&report(stats), "total") < 300, "counted anew");
    reach(stats, "answered", 10);
    let (_, report) = load.finish_load();
    assert_eq!(sum(&report, "by_version"), number(&report, "answered"));
    assert_eq!(sum(&report, "by_pod"), number(&report, "answered"));
    let seconds = report["seconds"].as_array().unwrap();
    let by_second: u64 = seconds.iter().map(|second| number(second, "answered")).sum();
    assert_eq!(by_second, number(&report, "answered"));
    assert_eq!(number(&report, "total"), number(&report, "successes") + number(&report, "failures"));
    assert_eq!(report["in_flight"], 0);
}
