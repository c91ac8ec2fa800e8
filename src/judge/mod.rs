//! The statistics by which a canary is compared with stable: counts of events, means, samples, and the
//! verdict on them. Pure functions of numbers; where the numbers come from, and what follows from a
//! verdict, is not decided here.
//!
//! What a manifest reaches: `compare` is [`verdict`] over [`counts`] (with [`pool`] for what is put together), `burnRate`
//! is [`burn_rate`]. No field of the API asks for [`means`], [`mann_whitney`] or [`multinomial`]: the first two judge
//! single values, which a Prometheus does not give one by one, and the last is the two-sided test beside that of
//! [`counts`]. They are kept with their tests against published vectors, for a source that has what they need.

pub mod burn_rate;
pub mod counts;
pub mod mann_whitney;
pub mod means;
pub mod multinomial;
pub mod pool;
pub mod recent;
pub mod simulation;
pub mod verdict;

pub use counts::Segment;
pub use recent::{DOUBT, Lately, Recent};
pub use verdict::{Evidence, Harm, Outcome, Settings, Verdict, harm, judge};

/// A range of values in which the true one is, at the confidence that was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub lower: f64,
    /// Its upper end, not below the lower one.
    pub upper: f64,
}

/// The probability of a false alarm where none that makes sense is given.
pub const ALPHA: f64 = 0.05;

/// A probability of a false alarm as given, if it is one.
const fn level(alpha: f64) -> f64 {
    if alpha > 0.0 && alpha < 1.0 { alpha } else { ALPHA }
}

/// The p value of evidence: min(1, 1/E), valid at any look (Ville's inequality).
#[must_use]
pub fn p_value(ln_e: f64) -> f64 {
    (-ln_e).exp().min(1.0)
}
