//! What became of one request, in the words of the report.

use std::error::Error;
use std::io;
use std::time::Instant;

use hyper::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::stamp;

/// Who answered, as the answer's body says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Server {
    pub(crate) version: String,
    pub(crate) pod: String,
}

impl Server {
    /// Reads the body of an answer; what is not this application's is counted as "unknown".
    pub(crate) fn read(body: &[u8]) -> Self {
        let unknown = || "unknown".to_owned();
        serde_json::from_slice(body).unwrap_or_else(|_| Self { version: unknown(), pod: unknown() })
    }
}

/// Whether a request had a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    New,
    KeptAlive,
}

/// What a request was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Its turn: too many others were outstanding.
    Queue,
    Resolve,
    Connect,
    /// The head of the answer.
    Answer,
    /// The rest of the answer.
    Body,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    ConnectRefused,
    Reset,
    Timeout,
    /// The server closed the connection before its answer was complete.
    Eof,
    #[serde(rename = "status_5xx")]
    Status5xx,
    /// Neither 2xx nor 5xx.
    StatusOther,
    /// The name of the service could not be resolved.
    Resolve,
    /// Not sent: too many requests were outstanding.
    Overflow,
    Other,
}

impl Kind {
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        let mut kind = Self::Other;
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Self::of_io(error.kind());
            }
            if error.downcast_ref().is_some_and(hyper_says_closed) {
                kind = Self::Eof;
            }
            cause = error.source();
        }
        kind
    }

    fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionRefused => Self::ConnectRefused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof => Self::Eof,
            _ => Self::Other,
        }
    }

    pub(crate) fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            status if status.is_success() => None,
            status if status.is_server_error() => Some(Self::Status5xx),
            _ => Some(Self::StatusOther),
        }
    }
}

fn hyper_says_closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed()
}

/// A request that went wrong, as far as it came.
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
}

impl Trouble {
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut detail = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            detail = format!("{detail}: {error}");
            cause = error.source();
        }
        Self { kind: Kind::of(error), detail }
    }
}

/// One finished request.
pub(crate) struct Outcome {
    pub(crate) mode: Mode,
    /// Which request of its connection it was, from 1; 0 if it never had one.
    pub(crate) nth: u64,
    pub(crate) local_port: Option<u16>,
    /// Who answered on its connection before.
    pub(crate) before: Option<Server>,
    /// When it was due: what the load itself delays counts as latency, too.
    pub(crate) due: Instant,
    pub(crate) sent: Timestamp,
    pub(crate) step: Step,
    /// Who answered, with whatever status.
    pub(crate) server: Option<Server>,
    /// Whether the server said that it will close the connection.
    pub(crate) announced_close: bool,
    pub(crate) trouble: Option<Trouble>,
}

impl Outcome {
    pub(crate) fn start(mode: Mode, due: Instant) -> Self {
        Self {
            mode,
            nth: 0,
            local_port: None,
            before: None,
            due,
            sent: Timestamp::now(),
            step: Step::Queue,
            server: None,
            announced_close: false,
            trouble: None,
        }
    }

    /// This request in the report, if it failed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let trouble = self.trouble.as_ref()?;
        Some(Failure {
            sent: stamp(self.sent),
            failed: stamp(Timestamp::now()),
            connection: self.mode,
            kind: trouble.kind,
            step: self.step,
            detail: trouble.detail.clone(),
            request_on_connection: self.nth,
            local_port: self.local_port,
            last_pod: self.before.as_ref().map(|server| server.pod.clone()),
            last_version: self.before.as_ref().map(|server| server.version.clone()),
            pod: self.server.as_ref().map(|server| server.pod.clone()),
            version: self.server.as_ref().map(|server| server.version.clone()),
        })
    }
}

/// A failed request in the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) sent: String,
    pub(crate) failed: String,
    pub(crate) connection: Mode,
    pub(crate) kind: Kind,
    pub(crate) step: Step,
    pub(crate) detail: String,
    pub(crate) request_on_connection: u64,
    pub(crate) local_port: Option<u16>,
    pub(crate) last_pod: Option<String>,
    pub(crate) last_version: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) version: Option<String>,
}
