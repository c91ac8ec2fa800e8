//! What the engine wants to know of the world beyond the API server: questions, and the answers that
//! came. A decision names all questions that are open; the shell asks those that it is not asking yet,
//! drops those that are not named any more, and keeps an answer until its question is gone.

use serde::{Deserialize, Serialize};

use crate::api::{CaSource, Duration, HttpCheck, LogsCheck, SecretKey, SqlCheck, TallyStatus, Timestamp, WindowStatus};

/// Something to be asked once.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Tells it from all others of the release, also in later releases.
    pub id: String,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// One attempt of a check by HTTP.
    Http(Box<HttpQuestion>),
    /// Lines of logs.
    Logs(Box<LogsQuestion>),
    /// A measurement.
    Metric {
        /// Of whom, by its name in the operator's configuration.
        provider: String,
        /// What is measured.
        measure: Box<Measure>,
    },
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// The one value of an expression.
    Value {
        /// The expression.
        query: String,
        /// The one that says of how many requests the value is, if that matters.
        requests: Option<String>,
    },
    /// A number in the answer of a web API.
    Web {
        /// Path and query below the provider's address.
        path: String,
        /// The CEL expression that gives it.
        value: String,
    },
    /// What counters of both sides have counted.
    Counts {
        /// The candidate's.
        candidate: Counters,
        /// Stable's.
        stable: Counters,
        /// From when on.
        since: Timestamp,
    },
    /// What counters have counted in windows that end now.
    Windows {
        /// The counters.
        counters: Counters,
        /// The windows, shortest first.
        windows: Vec<Duration>,
    },
}

/// Selectors of counters, of one side or of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All requests.
    pub total: String,
    /// Those that count.
    pub events: Option<String>,
    /// Those that do not, in place of `events`.
    pub good: Option<String>,
}

/// One attempt of a check by HTTP.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct HttpQuestion {
    /// Hosts and ports to ask, all of them.
    pub addresses: Vec<String>,
    /// The request and what is expected.
    pub http: HttpCheck,
    /// How long each answer may take.
    pub timeout: Duration,
}

/// One attempt of a check by SQL.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SqlQuestion {
    /// The check's name, by which the database's own views can tell who asks.
    pub name: String,
    /// The statement and what is expected.
    pub sql: SqlCheck,
    /// Where the URL of the database stands.
    pub url: SecretKey,
    /// The authorities of the server's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// How many lines of logs match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsQuestion {
    /// The namespace of the pods.
    pub namespace: String,
    /// The pods.
    pub pods: Vec<LogOfPod>,
    /// What is looked for, in a container that has a name.
    pub logs: LogsCheck,
    /// From when on.
    pub since: Timestamp,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// A pod whose log is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOfPod {
    /// Its name.
    pub name: String,
    /// Whether its container was started again since then: what it said before its end stands in another log.
    pub restarted: bool,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its id.
    pub id: String,
    /// When it came.
    pub at: Timestamp,
    /// What it is.
    pub reply: Reply,
}

/// What the Job of an attempt leaves for the kubelet: how long the answer took, which the Job's own life does not say,
/// before what people read. The reverse of [`timed`].
#[must_use]
pub fn with_time(took: Duration, words: &str) -> String {
    format!("{TOOK}{}{MILLIS}{words}", took.as_millis())
}

/// How long the answer took, and the rest of how a Job ended; nothing if it does not say.
#[must_use]
pub fn timed(message: &str) -> Option<(Duration, String)> {
    let (before, after) = message.split_once(TOOK)?;
    let (millis, words) = after.split_once(MILLIS)?;
    Some((Duration::from_millis(millis.parse().ok()?), format!("{before}{words}")))
}

const TOOK: &str = "took ";
const MILLIS: &str = "ms: ";

/// Sides of which no series of `events` or `good` is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absent {
    /// The candidate.
    pub candidate: bool,
    /// Stable.
    pub stable: bool,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To an attempt of a check.
    Check {
        /// What was not as expected; none if all was.
        fault: Option<String>,
        /// What came back, in a few words.
        seen: String,
        /// How long it took; of several, the longest.
        took: Duration,
    },
    /// Not to an attempt of a check: the API server or a kubelet does not give a log, and why.
    Unread(String),
    /// The value of an expression; a number.
    Value(f64),
    /// The value of an expression, and of how many requests it is.
    Share {
        /// The value; a number.
        value: f64,
        /// The requests; a number.
        requests: f64,
    },
    /// What was counted on both sides.
    Counts {
        /// The candidate's.
        candidate: TallyStatus,
        /// Stable's.
        stable: TallyStatus,
        /// Up to when; the next count begins there.
        until: Timestamp,
        /// Who has no series of events or good.
        absent: Absent,
    },
    /// What was counted in windows.
    Windows {
        /// Each of them.
        windows: Vec<WindowStatus>,
        /// How far back the counters reach.
        history: Duration,
        /// Whether there is no series of events or good.
        absent: bool,
    },
    /// One of the above, or no data, with what is to be told beside it.
    Noted {
        /// What was answered.
        reply: Box<Reply>,
        /// What is told, in a line.
        note: String,
        /// Whether the answer is the whole one: a part may fail a metric, and is no proof that all is well.
        whole: bool,
    },
    /// There is nothing to measure, and why.
    NoData(String),
    /// There is no answer, or none that makes sense, and why.
    ProviderError(String),
    /// The same of a provider that was reached, such as an API that does not know what it is asked about.
    Senseless(String),
    /// What the metric asks makes no sense to the provider, or its answer none to the metric, and why: that stays so until
    /// the metric is another.
    Refused(String),
    /// The platform has set up no such provider, in words.
    NoProvider(String),
}
