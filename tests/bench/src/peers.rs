//! What the same costs with the two peers, and the table that shows it beside ours.

use std::fmt::Write as _;

/// Where the peers' figures come from.
pub const SOURCE: &str = "Argo Rollouts 1.9 and Flagger 1.44 as measured November 2026: Kubernetes 1.35.4, simulated \
                          nodes, 2 cores, default settings";

/// The peers' figures for one measure.
#[derive(Clone, Copy)]
pub struct Peers {
    measure: &'static str,
    argo: &'static str,
    flagger: &'static str,
    /// The better of the two, in the unit of ours; none if there is nothing to compare with.
    better: Option<f64>,
}

const fn peers(measure: &'static str, argo: &'static str, flagger: &'static str, better: f64) -> Peers {
    Peers { measure, argo, flagger, better: Some(better) }
}

const fn alone(measure: &'static str) -> Peers {
    Peers { measure, argo: "-", flagger: "-", better: None }
}

pub const BINARY: Peers = peers("binary, stripped (MB)", "96", "69", 69.0);
pub const MEMORY_0: Peers = peers("memory with 0 objects (MB)", "70", "53", 53.0);
pub const MEMORY_100: Peers = peers("memory with 100 healthy objects (MB)", "89", "70", 70.0);
pub const MEMORY_1000: Peers = peers("memory with 1000 healthy objects (MB)", "136", "117", 117.0);
pub const MEMORY_FRESH: Peers = alone("memory after a restart with 1000 objects (MB)");
pub const REST_REQUESTS: Peers = peers("API requests per minute at rest, 100 objects", "0", "5,599", 0.0);
pub const REST_CPU: Peers = peers("CPU seconds per minute at rest, 500 objects", "0.04", "6.0", 0.04);
pub const CREATED_P50: Peers = peers("image change to candidate created, p50 of 12 (ms)", "7", "5,100", 7.0);
pub const CREATED_MAX: Peers = peers("image change to candidate created, max of 12 (ms)", "11", "10,000", 11.0);
pub const CANARY: Peers = peers("API writes for one two-step canary (of them status)", "30 (21)", "10 (7)", 10.0);
pub const CANARY_OTHER: Peers = alone("");
pub const CANARY_READS: Peers = peers("API reads for one two-step canary", "0", "107", 0.0);
pub const CROWD_100: Peers = peers("100 releases at the same moment, all promoted (s)", "36", "119", 36.0);
pub const CROWD_500: Peers = peers("500 releases at the same moment, all promoted (s)", "247", "-", 247.0);
pub const CROWD_SERVER_100: Peers = peers("CPU seconds of the API server for 100 at once", "22", "-", 22.0);
pub const CROWD_SERVER_500: Peers = peers("CPU seconds of the API server for 500 at once", "101", "-", 101.0);
pub const CROWD_WRITES: Peers = alone("API writes for one of many releases at once (of them status)");
pub const ABORTED: Peers = peers("failing sample to abort recorded (s)", "0.1", "10", 0.1);
pub const RESTARTED: Peers = peers("restart with 1000 objects until all were seen again (s)", "8", "101", 8.0);
pub const KILLED: Peers = peers("leader killed to the next action of the standby (s)", "17", "76", 17.0);
pub const HANDED_OVER: Peers = alone("leader ended by SIGTERM to the next action of the standby (s)");

/// One measure with ours.
pub struct Row {
    peers: Peers,
    measure: String,
    ours: String,
    value: f64,
}

impl Row {
    /// With a figure as it is shown, and as it is compared.
    pub fn new(peers: Peers, ours: impl Into<String>, value: f64) -> Self {
        Self { peers, measure: peers.measure.into(), ours: ours.into(), value }
    }

    /// Under another name.
    pub fn named(peers: Peers, measure: impl Into<String>, ours: impl Into<String>) -> Self {
        Self { peers, measure: measure.into(), ours: ours.into(), value: f64::NAN }
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!("{}: {} (the peers: {}, {})", self.measure, self.ours, self.peers.argo, self.peers.flagger)
    }

    fn verdict(&self) -> String {
        match self.peers.better {
            None => String::new(),
            Some(better) if self.value == better => "the same".into(),
            Some(better) if better > 0.0 => {
                let behind = if self.value > better { " **behind**" } else { "" };
                format!("x {:.2}{behind}", self.value / better)
            }
            Some(_) => "**behind**".into(),
        }
    }
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| measure | ours | Argo Rollouts | Flagger | ours beside the better |\n| --- | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let Row { peers, measure, ours, .. } = row;
        let _ = writeln!(text, "| {measure} | {ours} | {} | {} | {} |", peers.argo, peers.flagger, row.verdict());
    }
    text
}
