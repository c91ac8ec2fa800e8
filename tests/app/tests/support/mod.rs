//! Children, conditions and a client of a few lines for the tests of this package.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running testapp and what it prints; killed when dropped.
pub struct Testapp {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Testapp {
    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testapp"));
        command.args(args).envs(env.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines, seen: Vec::new() }
    }

    /// `testapp serve` on a free port, and its address.
    pub fn serve(env: &[(&str, &str)]) -> (Self, SocketAddr) {
        let mut app = Self::start(&["serve", "--port", "0"], env);
        let line = app.line("listening on");
        let address = line.split(' ').nth(3).unwrap().to_owned();
        (app, local(&address))
    }

    /// `testapp load` on a service, and the address of its report.
    pub fn load(service: SocketAddr, args: &[&str]) -> (Self, SocketAddr) {
        let url = format!("http://{service}/");
        let base = ["load", "--url", &url, "--report-port", "0"];
        let mut app = Self::start(&[&base, args].concat(), &[]);
        let line = app.line("report on");
        (app, local(line.split(' ').next_back().unwrap()))
    }

    /// Waits for the first line that contains `text`, among those printed already too.
    pub fn line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("no line with {text:?} among {:#?}", self.seen),
            }
        }
    }

    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub fn exit_code(&mut self) -> i32 {
        until("exit", || self.child.try_wait().unwrap()).code().unwrap()
    }

    pub fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Stops a load, returns its exit code and the report that it prints.
    pub fn finish_load(&mut self) -> (i32, Value) {
        self.terminate();
        let report = serde_json::from_str(&self.line("{\"total\"")).unwrap();
        (self.exit_code(), report)
    }
}

impl Drop for Testapp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn local(address: &str) -> SocketAddr {
    let port = address.parse::<SocketAddr>().unwrap().port();
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An answer, as far as the tests look at it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub closes: bool,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// One connection; it is kept alive if the server does.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn send(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<()> {
        self.send_with(method, path, "", body)
    }

    /// Sends a request with further headers, each with its end of line.
    pub fn send_with(&mut self, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<()> {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes())
    }

    pub fn receive(&mut self) -> std::io::Result<Answer> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_lowercase()),
            }
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body)?;
        Ok(Answer {
            status: head[0].split(' ').nth(1).unwrap().parse().unwrap(),
            closes: head.iter().any(|line| line == "connection: close"),
            body: String::from_utf8(body).unwrap(),
        })
    }

    pub fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.send("GET", path, "")?;
        self.receive()
    }

    /// Whether the server has ended this connection: waits for it.
    pub fn ended(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    Connection::open(address).unwrap().get(path).unwrap()
}

pub fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    let mut connection = Connection::open(address).unwrap();
    connection.send("POST", path, body).unwrap();
    connection.receive().unwrap()
}
