//! The measures. Each adds rows to the table, and notes on what they are made of.

pub mod canary;
pub mod crowd;
pub mod failover;
pub mod quickness;
pub mod rest;

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    cluster::Cluster,
    fleet::Fleet,
    peers::{self, Peers, Row},
    process::Operator,
};

/// What all measures share.
pub struct Bench {
    /// Where they are taken.
    pub cluster: Cluster,
    /// What they are taken of.
    pub fleet: Fleet,
    /// The operator's program.
    pub program: PathBuf,
    /// The table so far.
    pub rows: Vec<Row>,
    /// What stands below it.
    pub notes: Vec<String>,
}

impl Bench {
    /// Adds a row with one decimal.
    pub fn row(&mut self, peers: Peers, value: f64) {
        self.show(Row::new(peers, format!("{value:.1}"), value));
    }

    /// Adds a row.
    pub fn show(&mut self, row: Row) {
        eprintln!("  {}", row.line());
        self.rows.push(row);
    }

    /// Adds a note.
    pub fn note(&mut self, note: String) {
        eprintln!("  {note}");
        self.notes.push(note);
    }

    /// The program's size.
    pub fn binary(&mut self) -> Result<()> {
        let bytes = std::fs::metadata(&self.program)?.len();
        self.row(peers::BINARY, bytes as f64 / 1e6);
        Ok(())
    }

    /// Memory as it is now.
    pub fn memory(&mut self, operator: &Operator, peers: Peers) -> Result<()> {
        let (now, most) = operator.memory()?;
        self.show(Row::new(peers, format!("{now:.1} (peak {most:.1})"), now));
        Ok(())
    }
}

/// The median and the largest.
pub fn spread(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    (middle, values.last().copied().unwrap_or(f64::NAN))
}
