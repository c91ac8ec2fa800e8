//! Releases by dice: how often a way to judge aborts a candidate that is as good as stable, and how often one
//! that is worse. The same seed makes the same releases. No part of a release: the tests and `make bench-judge`
//! use it.

use std::fmt::Write as _;

use fastrand::Rng;

use super::{
    Evidence, Harm, Recent, Settings,
    counts::{RatioTest, Segment},
    harm, pool,
};
use crate::api::evidence::{MAX_RECENT_SEGMENTS, MAX_SEGMENTS};

/// The candidate's weights, one after the other, for a quarter of the intervals each.
pub const WEIGHTS: [f64; 4] = [0.05, 0.1, 0.25, 0.5];

/// More of them than exposures are kept apart.
pub const MANY_WEIGHTS: [f64; 19] =
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

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
    /// Intervals for which every candidate is as good as stable, in which it goes through its weights; after them it stays
    /// at the last one. 0: it is from the beginning what it is.
    pub good: u32,
}

impl Releases {
    /// Hour-long releases with a look a minute, at ten requests a second of which 1% fail.
    #[must_use]
    pub const fn usual(runs: u32, seed: u64) -> Self {
        Self { runs, seed, intervals: 60, requests: 600, errors: 0.01, weights: &WEIGHTS, incidents: 0.0, good: 0 }
    }

    /// The same with an incident in one of twenty minutes, and more weights than exposures are kept apart.
    #[must_use]
    pub const fn with_incidents(self) -> Self {
        Self { weights: &MANY_WEIGHTS, incidents: 0.05, ..self }
    }

    /// The same, of candidates that turn bad after that hour and are watched for six more.
    #[must_use]
    pub const fn that_turn_bad(self) -> Self {
        Self { intervals: 7 * self.intervals, good: self.intervals, ..self }
    }

    /// The share (0 to 1) of releases that are aborted, of candidates that fail `ratio` times as often as stable.
    #[must_use]
    pub fn aborted(&self, method: Method, ratio: f64) -> f64 {
        self.watched(method, ratio).0
    }

    /// The same, and the share of those that are not aborted, and that what was counted of late would keep from passing at
    /// some look.
    #[must_use]
    pub fn watched(&self, method: Method, ratio: f64) -> (f64, f64) {
        let ends = (0..self.runs).map(|run| self.run(u64::from(run), method, ratio));
        let (mut aborted, mut doubted) = (0, 0);
        for end in ends {
            match end.aborted {
                Some(_) => aborted += 1,
                None => doubted += u32::from(end.doubted),
            }
        }
        let share = |count: u32| f64::from(count) / f64::from(self.runs.max(1));
        (share(aborted), share(doubted))
    }

    /// In how many intervals after it turned bad a candidate is found, of so many of 100 releases; none if that is later
    /// than they are watched. Those that are aborted before are left aside.
    #[must_use]
    pub fn found(&self, method: Method, ratio: f64, percents: &[u32]) -> Vec<Option<u32>> {
        let ends = (0..self.runs).map(|run| self.run(u64::from(run), method, ratio).aborted);
        let late = ends.filter(|end| end.is_none_or(|at| at >= self.good));
        let mut found: Vec<u32> = late.map(|end| end.map_or(u32::MAX, |at| at - self.good + 1)).collect();
        found.sort_unstable();
        let place = |percent: &u32| found.len().saturating_sub(1) * *percent as usize / 100;
        let at = |percent: &u32| found.get(place(percent)).copied().filter(|intervals| *intervals < u32::MAX);
        percents.iter().map(at).collect()
    }

    /// What becomes of one release. Each has dice of its own, the same for all methods.
    fn run(&self, run: u64, method: Method, ratio: f64) -> End {
        let mut dice = Rng::with_seed(self.seed.wrapping_mul(1_000_003).wrapping_add(run));
        let mut seen = Seen::default();
        let mut end = End::default();
        let way = if self.good > 0 { self.good } else { self.intervals };
        for interval in 0..self.intervals {
            let place = (interval as usize * self.weights.len() / way as usize).min(self.weights.len() - 1);
            let ratio = if interval < self.good { 1.0 } else { ratio };
            let now = self.interval(&mut dice, self.weights[place], ratio);
            seen.add(place, now);
            match method.look(now, &mut seen) {
                Look::Aborts => {
                    end.aborted = Some(interval);
                    return end;
                }
                Look::Doubts => end.doubted = true,
                Look::Nothing => {}
            }
        }
        end
    }

    /// What is counted in an interval at a weight.
    fn interval(&self, dice: &mut Rng, weight: f64, ratio: f64) -> Counts {
        let candidate = binomial(dice, self.requests, weight);
        let stable = self.requests - candidate;
        let incident = self.incidents > 0.0 && dice.f64() < self.incidents;
        let [bad, good] = if incident { [INCIDENT; 2] } else { [self.errors * ratio, self.errors] };
        Counts {
            requests: [candidate, stable].map(u64::from),
            errors: [(candidate, bad), (stable, good)].map(|(all, share)| u64::from(binomial(dice, all, share))),
        }
    }
}

/// How a release ended.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// The interval, from 0, after which it was aborted.
    aborted: Option<u32>,
    /// Whether at some look it would have been kept from passing by what was counted of late.
    doubted: bool,
}

/// What a look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Aborts,
    Doubts,
    Nothing,
}

/// What was counted until now.
#[derive(Clone, Debug, Default)]
struct Seen {
    whole: Counted,
    /// Since the test of late began anew, and how often it did.
    recent: Option<(u32, Counted)>,
    /// Altogether.
    all: Counts,
}

impl Seen {
    fn add(&mut self, step: usize, now: Counts) {
        self.whole.add(step, now, MAX_SEGMENTS);
        if let Some((_, recent)) = &mut self.recent {
            recent.add(step, now, MAX_RECENT_SEGMENTS);
        }
        self.all = self.all.with(now);
    }

    fn evidence(&self) -> Evidence {
        let recent = self.recent.as_ref();
        let recent = recent.map(|(restarts, it)| Recent { restarts: *restarts, segments: it.segments() });
        Evidence { segments: self.whole.segments(), candidate_requests: self.all.requests[0], recent }
    }
}

/// What was counted, by exposure.
#[derive(Clone, Debug, Default)]
struct Counted {
    /// At the steps before, at no more exposures than a status keeps apart.
    ended: Vec<Segment>,
    /// The place of the step under way.
    step: usize,
    /// At that.
    here: Counts,
}

impl Counted {
    fn add(&mut self, step: usize, now: Counts, most: usize) {
        if step != self.step {
            self.ended.extend((self.here.requests != [0, 0]).then(|| self.here.segment()));
            pool::shorten(&mut self.ended, most - 1);
            (self.step, self.here) = (step, Counts::default());
        }
        self.here = self.here.with(now);
    }

    fn segments(&self) -> Vec<Segment> {
        self.ended.iter().copied().chain([self.here.segment()]).collect()
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
    /// Both tests of `verdict`, with this ratio tolerated.
    Ratio(f64),
    /// Only the one of all that was counted, with all of alpha.
    Whole(f64),
    /// More than this share of the candidate's requests failed in the last interval.
    Threshold(f64),
    /// The candidate's share of errors since the start is above stable's by a pooled z-test of 5%, one-sided.
    ZTest,
}

impl Method {
    fn look(self, now: Counts, seen: &mut Seen) -> Look {
        let aborts = match self {
            Self::Ratio(tolerated) => return by_both(tolerated, seen),
            Self::Whole(tolerated) => RatioTest { tolerated, ..RatioTest::default() }.rejects(&seen.whole.segments()),
            Self::Threshold(most) => now.errors[0] as f64 > most * now.requests[0] as f64,
            Self::ZTest => z_score(seen.all) > 1.644_854,
        };
        if aborts { Look::Aborts } else { Look::Nothing }
    }

    fn name(self) -> String {
        match self {
            Self::Ratio(tolerated) => format!("`judge`, tolerated ratio {tolerated}, alpha 0.05"),
            Self::Whole(tolerated) => format!("the same of all that was counted alone, tolerated ratio {tolerated}"),
            Self::Threshold(most) => format!("fixed threshold: {}% of an interval's requests", most * 100.0),
            Self::ZTest => "z-test at each look, 5%".to_owned(),
        }
    }
}

/// A look as the engine has it, without the bound, which aborts nothing.
fn by_both(tolerated: f64, seen: &mut Seen) -> Look {
    let settings = Settings { max_ratio: tolerated, ..Settings::default() };
    let Harm { fails, lately, begins_anew, .. } = harm(&seen.evidence(), &settings);
    if fails {
        return Look::Aborts;
    }
    if begins_anew {
        let before = seen.recent.as_ref().map_or(0, |(restarts, _)| *restarts);
        seen.recent = Some((before + 1, Counted::default()));
    }
    if lately.is_some_and(|it| it.doubts) { Look::Doubts } else { Look::Nothing }
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
    late_rows(&mut text, &releases.that_turn_bad());
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

/// How soon a candidate is found that turns bad; and how often a good one is doubted in as long a time.
fn late_rows(text: &mut String, releases: &Releases) {
    let Releases { intervals, good, .. } = releases;
    let _ = write!(
        text,
        "\n## Good at first, and then worse\n\nThe same as in the first table; then the candidate stays at its last weight, \
         and fails so many times as often as stable. Intervals until it is found, half of the releases and 95% of them, \
         {} at most; and what becomes of one that stays as good as stable for as long: aborted (false), and kept from \
         passing at some look, without an abort, by what was counted of late.\n\n\
         | method | 2 times: half | 95% | 4 times: half | 95% | good: aborted | kept from passing |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        intervals - good
    );
    for method in [1.0, 1.5].into_iter().flat_map(|ratio| [Method::Ratio(ratio), Method::Whole(ratio)]) {
        let found = [2.0, 4.0].map(|ratio| releases.found(method, ratio, &[50, 95])).concat();
        let told = |intervals: &Option<u32>| intervals.map_or_else(|| "more".to_owned(), |it| it.to_string());
        let found: Vec<String> = found.iter().map(told).collect();
        let (aborted, doubted) = releases.watched(method, 1.0);
        let (aborted, doubted) = (100.0 * aborted, 100.0 * doubted);
        let found = found.join(" | ");
        let _ = writeln!(text, "| {} | {found} | {aborted:.1}% | {doubted:.1}% |", method.name());
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
    fn nor_in_seven_hours() {
        let long = Releases { runs: 200, ..FEW.that_turn_bad() };
        let most = 0.05 + 3.0 * (0.05 * 0.95 / f64::from(long.runs)).sqrt();
        for tolerated in [1.0, 1.5] {
            let aborted = long.aborted(Method::Ratio(tolerated), tolerated);
            assert!(aborted <= most, "{tolerated}: {aborted}");
        }
    }

    #[test]
    fn a_good_candidate_is_hardly_ever_kept_from_passing() {
        let (_, doubted) = FEW.watched(Method::Ratio(1.5), 1.0);
        assert!(doubted <= 0.02, "{doubted}");
        // Of those that are just tolerable.
        let (_, doubted) = FEW.watched(Method::Ratio(1.0), 1.0);
        assert!(doubted <= 0.1, "{doubted}");
    }

    #[test]
    fn a_candidate_that_turns_bad_is_found_nearly_as_soon_as_one_that_is_bad_from_the_beginning() {
        let late = Releases { runs: 100, ..FEW.that_turn_bad() };
        let found = |method, ratio| late.found(method, ratio, &[50, 95]);
        let [half, most] = found(Method::Ratio(1.5), 4.0)[..] else { panic!() };
        assert!(half <= Some(10) && most <= Some(16) && half > Some(1), "{half:?} {most:?}");
        let before = found(Method::Whole(1.5), 4.0);
        assert!(before[0] >= half.map(|it| 3 * it / 2), "{before:?} {half:?}");
        // Whoever does not get worse is not found.
        assert_eq!(found(Method::Ratio(1.5), 1.0), [None, None]);
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
        let small = Releases::usual(5, 3);
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
