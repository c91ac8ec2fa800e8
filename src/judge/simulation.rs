//! Releases by dice: how often a way to judge aborts a candidate that is as good as stable, and how often one
//! that is worse. The same seed makes the same releases. No part of a release: the tests and `make bench-judge`
//! use it.

use std::fmt::Write as _;

use fastrand::Rng;

use super::{
    counts::{RatioTest, Segment},
    pool,
};

/// The candidate's weights, one after the other, for a quarter of the intervals each.
pub const WEIGHTS: [f64; 4] = [0.05, 0.1, 0.25, 0.5];

/// More of them than exposures are kept apart.
pub const MANY_WEIGHTS: [f64; 19] =
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// The exposures that are kept apart beside the one under way, as in the status.
const ENDED: usize = crate::api::evidence::MAX_SEGMENTS - 1;

/// The share of the requests of both sides that fail in an incident.
const INCIDENT: f64 = 0.3;

/// The releases that are simulated.
#[derive(Clone, Copy, Debug)]
pub struct Releases {
    /// How many.
    pub runs: u32,
    /// What the dice begin with.
    pub seed: u64,
    /// Intervals that a release takes; after each there is a look.
    pub intervals: u32,
    /// Requests in an interval, to candidate and stable together.
    pub requests: u32,
    /// The share (0 to 1) of stable's requests that fail.
    pub errors: f64,
    /// The candidate's weights (0 to 1), one after the other, for as many intervals each.
    pub weights: &'static [f64],
    /// The share (0 to 1) of intervals in which something that both sides depend on is away: of the requests of both
    /// the same share fails then.
    pub incidents: f64,
}

impl Releases {
    /// Hour-long releases with a look a minute, at ten requests a second of which 1% fail.
    #[must_use]
    pub const fn usual(runs: u32, seed: u64) -> Self {
        Self { runs, seed, intervals: 60, requests: 600, errors: 0.01, weights: &WEIGHTS, incidents: 0.0 }
    }

    /// The same with an incident in one of twenty minutes, and more weights than exposures are kept apart.
    #[must_use]
    pub const fn with_incidents(self) -> Self {
        Self { weights: &MANY_WEIGHTS, incidents: 0.05, ..self }
    }

    /// The share (0 to 1) of releases that are aborted, of candidates that fail `ratio` times as often as stable.
    #[must_use]
    pub fn aborted(&self, method: Method, ratio: f64) -> f64 {
        let runs = (0..self.runs).filter(|run| self.run(u64::from(*run), method, ratio));
        runs.count() as f64 / f64::from(self.runs.max(1))
    }

    /// Whether one release is aborted. Each has dice of its own, the same for all methods.
    fn run(&self, run: u64, method: Method, ratio: f64) -> bool {
        let mut dice = Rng::with_seed(self.seed.wrapping_mul(1_000_003).wrapping_add(run));
        let mut seen = Seen::default();
        (0..self.intervals).any(|interval| {
            let place = interval as usize * self.weights.len() / self.intervals as usize;
            seen.enter(place.min(self.weights.len() - 1));
            let candidate = binomial(&mut dice, self.requests, self.weights[seen.step]);
            let stable = self.requests - candidate;
            let incident = self.incidents > 0.0 && dice.f64() < self.incidents;
            let [bad, good] = if incident { [INCIDENT; 2] } else { [self.errors * ratio, self.errors] };
            let now = Counts {
                requests: [candidate, stable].map(u64::from),
                errors: [(candidate, bad), (stable, good)]
                    .map(|(all, share)| binomial(&mut dice, all, share))
                    .map(u64::from),
            };
            seen.here = seen.here.with(now);
            seen.all = seen.all.with(now);
            method.aborts(now, &seen)
        })
    }
}

/// What was counted until now.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// At the steps before, at no more exposures than a status keeps apart.
    ended: Vec<Segment>,
    /// The place of the step under way.
    step: usize,
    /// At that.
    here: Counts,
    /// Altogether.
    all: Counts,
}

impl Seen {
    fn enter(&mut self, step: usize) {
        if step != self.step {
            self.ended.push(self.here.segment());
            pool::shorten(&mut self.ended, ENDED);
            (self.step, self.here) = (step, Counts::default());
        }
    }
}

/// Requests and errors, of the candidate and of stable.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: [u64; 2],
    errors: [u64; 2],
}

impl Counts {
    const fn with(self, other: Self) -> Self {
        let [ours, theirs] = [self, other];
        Self {
            requests: [ours.requests[0] + theirs.requests[0], ours.requests[1] + theirs.requests[1]],
            errors: [ours.errors[0] + theirs.errors[0], ours.errors[1] + theirs.errors[1]],
        }
    }

    fn segment(&self) -> Segment {
        let [candidate, stable] = self.requests.map(|count| count as f64);
        let exposure = candidate / (candidate + stable).max(1.0);
        Segment { exposure, candidate: self.errors[0], stable: self.errors[1] }
    }
}

/// A way to judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// The test of `counts`, with this ratio tolerated.
    Ratio(f64),
    /// More than this share of the candidate's requests failed in the last interval.
    Threshold(f64),
    /// The candidate's share of errors since the start is above stable's by a pooled z-test of 5%, one-sided.
    ZTest,
}

impl Method {
    fn aborts(self, now: Counts, seen: &Seen) -> bool {
        match self {
            Self::Ratio(tolerated) => {
                let segments: Vec<Segment> = seen.ended.iter().copied().chain([seen.here.segment()]).collect();
                RatioTest { tolerated, ..RatioTest::default() }.rejects(&segments)
            }
            Self::Threshold(most) => now.errors[0] as f64 > most * now.requests[0] as f64,
            Self::ZTest => z_score(seen.all) > 1.644_854,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Ratio(tolerated) => format!("`judge`, tolerated ratio {tolerated}, alpha 0.05"),
            Self::Threshold(most) => format!("fixed threshold: {}% of an interval's requests", most * 100.0),
            Self::ZTest => "z-test at each look, 5%".to_owned(),
        }
    }
}

fn z_score(all: Counts) -> f64 {
    let ([own, other], [ours, theirs]) = (all.requests.map(|count| count as f64), all.errors.map(|count| count as f64));
    let pooled = (ours + theirs) / (own + other);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / own + 1.0 / other)).sqrt();
    let score = (ours / own - theirs / other) / deviation;
    if score.is_nan() { 0.0 } else { score }
}

/// How many of some trials succeed, from one success to the next: the gaps are geometric.
fn binomial(dice: &mut Rng, trials: u32, probability: f64) -> u32 {
    if probability >= 1.0 {
        return trials;
    }
    let ln_miss = (-probability.max(1e-12)).ln_1p();
    let (mut at, mut successes) = (0.0, 0);
    loop {
        // 1 - f64() is never 0.
        at += ((1.0 - dice.f64()).ln() / ln_miss).floor() + 1.0;
        if at > f64::from(trials) {
            return successes;
        }
        successes += 1;
    }
}

/// How the ways to judge compare, as tables in Markdown.
#[must_use]
pub fn table(releases: &Releases) -> String {
    let Releases { runs, seed, intervals, requests, errors, .. } = releases;
    let mut text = format!(
        "# How often a canary is aborted\n\nSimulated: {runs} releases for each figure (seed {seed}), {intervals} intervals \
         of {requests} requests with a look after each, the candidate at 5, 10, 25 and 50% for a quarter of them each, \
         {}% of stable's requests fail.\n\n",
        errors * 100.0
    );
    rows(&mut text, releases);
    let incidents = releases.with_incidents();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n## With incidents of both sides\n\nThe same, with weights that rise by 5% to 95%; in {}% of the intervals \
         {}% of both sides' requests fail.\n\n",
        incidents.incidents * 100.0,
        INCIDENT * 100.0
    );
    rows(&mut text, &incidents);
    text
}

fn rows(text: &mut String, releases: &Releases) {
    text.push_str(
        "| method | as good as stable (false) | 1.5 times the errors | 2 times | 4 times |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
    );
    let fixed = [0.02, 0.05, 0.1].map(Method::Threshold);
    for method in [Method::Ratio(1.0), Method::Ratio(1.5), Method::ZTest].into_iter().chain(fixed) {
        let shares = [1.0, 1.5, 2.0, 4.0].map(|ratio| format!("{:.1}%", 100.0 * releases.aborted(method, ratio)));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} | {} |", method.name(), shares.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Releases = Releases::usual(400, 7);

    /// Alpha, and three standard deviations of as many runs.
    fn alpha_with_slack() -> f64 {
        let alpha = 0.05;
        alpha + 3.0 * (alpha * (1.0 - alpha) / f64::from(FEW.runs)).sqrt()
    }

    #[test]
    fn a_good_candidate_is_aborted_no_more_often_than_alpha_says() {
        let aborted = FEW.aborted(Method::Ratio(1.0), 1.0);
        assert!(aborted <= alpha_with_slack(), "{aborted}");
        let at_the_edge = FEW.aborted(Method::Ratio(1.5), 1.5);
        assert!(at_the_edge <= alpha_with_slack(), "{at_the_edge}");
    }

    #[test]
    fn incidents_of_both_sides_abort_no_more_good_candidates() {
        let releases = FEW.with_incidents();
        for tolerated in [1.0, 1.5] {
            let aborted = releases.aborted(Method::Ratio(tolerated), 1.0);
            assert!(aborted <= alpha_with_slack(), "{tolerated}: {aborted}");
        }
        assert!(releases.aborted(Method::Ratio(1.0), 4.0) >= 0.95);
    }

    #[test]
    fn a_bad_candidate_is_aborted() {
        assert!(FEW.aborted(Method::Ratio(1.0), 2.0) >= 0.7);
        assert!(FEW.aborted(Method::Ratio(1.0), 4.0) >= 0.99);
        assert!(FEW.aborted(Method::Ratio(1.5), 4.0) >= 0.95);
    }

    #[test]
    fn a_test_made_for_one_look_goes_wrong_with_sixty() {
        assert!(FEW.aborted(Method::ZTest, 1.0) > 2.0 * alpha_with_slack());
    }

    #[test]
    fn the_bound_of_a_good_candidate_is_not_below_its_ratio() {
        let test = RatioTest::default();
        let mut dice = Rng::with_seed(11);
        let missed = (0..200).filter(|_| {
            let mut seen = Segment { exposure: 0.25, candidate: 0, stable: 0 };
            (0..40).any(|_| {
                seen.candidate += u64::from(binomial(&mut dice, 500, 0.02));
                seen.stable += u64::from(binomial(&mut dice, 1500, 0.02));
                test.upper_bound(&[seen]).is_some_and(|bound| bound < 1.0)
            })
        });
        let missed = missed.count();
        assert!(missed <= 19, "{missed} of 200");
    }

    #[test]
    fn the_same_seed_makes_the_same_table() {
        let small = Releases::usual(20, 3);
        assert_eq!(table(&small), table(&small));
    }

    #[test]
    fn dice_have_the_mean_and_variance_of_a_binomial() {
        let mut dice = Rng::with_seed(5);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(binomial(&mut dice, 300, 0.1))).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 30.0).abs() < 0.15 && (variance - 27.0).abs() < 1.0, "{mean} {variance}");
        assert_eq!([0.0, 1.0].map(|probability| binomial(&mut dice, 300, probability)), [0, 300]);
    }
}
