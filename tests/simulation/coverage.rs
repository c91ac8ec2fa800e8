//! Which combinations of phase, last event and place of a fault were reached.

use std::collections::{BTreeMap, BTreeSet};

use servicerelease::api::Phase;

use crate::{event::Fault, operator::Part};

/// Where a pass was cut, or how it went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    Whole,
    Stale,
    CrashBefore(Part),
    CrashAfter(Part),
    Lost(Part),
    Refused(Part),
    Stopped(Part),
    Conflict(Part),
}

impl Point {
    pub fn of(fault: Fault, part: Part) -> Self {
        match fault {
            Fault::CrashBefore(_) => Self::CrashBefore(part),
            Fault::CrashAfter(_) => Self::CrashAfter(part),
            Fault::Lost(_) => Self::Lost(part),
            Fault::Refused(_) => Self::Refused(part),
            Fault::Stopped(_) => Self::Stopped(part),
            Fault::None => Self::Conflict(part),
        }
    }
}

/// How many points there are: whole, stale, and six kinds of faults at three places.
const POINTS: usize = 20;

/// The cells that were reached, and how often.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    cells: BTreeMap<(Phase, &'static str, Point), u64>,
    /// What workers of the database were hit by while they were at work, and how often.
    pub hits: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub fn reach(&mut self, phase: Phase, event: &'static str, point: Point) {
        *self.cells.entry((phase, event, point)).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (cell, count) in &other.cells {
            *self.cells.entry(*cell).or_default() += count;
        }
        for (what, count) in &other.hits {
            *self.hits.entry(what).or_default() += count;
        }
    }

    /// Whether a point was reached in a phase, whatever the event before it.
    pub fn reached(&self, phase: Phase, point: Point) -> bool {
        self.cells.keys().any(|(p, _, at)| *p == phase && *at == point)
    }

    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Points reached for a phase and an event.
    pub fn points(&self, phase: Phase, event: &str) -> usize {
        let cells = self.cells.keys();
        cells.filter(|(p, e, _)| *p == phase && *e == event).count()
    }

    pub fn events(&self) -> BTreeSet<&'static str> {
        self.cells.keys().map(|(_, event, _)| *event).collect()
    }

    pub fn phases(&self) -> BTreeSet<Phase> {
        self.cells.keys().map(|(phase, ..)| *phase).collect()
    }

    /// The table: points reached of all points, by phase and by the last event before the pass.
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let phases = self.phases();
        let mut text = format!(
            "points of {POINTS} reached (whole, stale, and crash, lost, refused, stopped, conflict x before, status, after)\n"
        );
        let _ = write!(text, "{:<12}", "");
        for phase in &phases {
            let _ = write!(text, "{:>17}", format!("{phase:?}"));
        }
        for event in self.events() {
            let _ = write!(text, "\n{event:<12}");
            for phase in &phases {
                let _ = write!(text, "{:>17}", self.points(*phase, event));
            }
        }
        let passes: u64 = self.cells.values().sum();
        let _ = writeln!(text, "\n{} cells in {passes} passes", self.len());
        text
    }
}
