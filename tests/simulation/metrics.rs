//! Metrics of every kind: what is watched, what the world answers, and what of it can be the ground of a Pass.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};
use servicerelease::{
    api::{Analysis, Duration, Metric, SegmentStatus, TallyStatus, VerdictOutcome, VerdictStatus, WindowStatus},
    engine::{Absent, Measure, Plan, Reply},
};

use crate::rng;

/// The limit of values.
const LIMIT: f64 = 0.5;
/// Requests that are enough for a value, or for a comparison.
const ENOUGH: i64 = 200;

/// So few errors are no rate (minEvents).
const FEW: i64 = 4;

/// What a metric is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// A value that may be beyond its limit once.
    Threshold,
    /// One that has to be within it twice.
    TwiceWithin,
    /// One of enough requests.
    OfRequests,
    /// One that fails without data, or an answer.
    Strict,
    /// One that is left aside without data.
    Lenient,
    /// A number in the answer of a web API.
    Web,
    /// One from which nothing follows.
    DryRun,
    /// Candidate against stable.
    Compare,
    /// The error budget.
    BurnRate,
    /// The restarts of the candidate's containers.
    Restarts,
}

/// All of them.
pub const KINDS: [Watched; 10] = [
    Watched::Threshold,
    Watched::TwiceWithin,
    Watched::OfRequests,
    Watched::Strict,
    Watched::Lenient,
    Watched::Web,
    Watched::DryRun,
    Watched::Compare,
    Watched::BurnRate,
    Watched::Restarts,
];

/// A metric of this kind, by whose name it is known.
pub fn metric(kind: Watched) -> Metric {
    let value = |requests: Option<&str>| json!({"query": "rate{pod=~\"{{pods}}\"}", "requests": requests});
    let counters = json!({"total": "all{pod=~\"{{pods}}\"}", "events": "bad{pod=~\"{{pods}}\"}"});
    let limit = json!({"max": LIMIT});
    let body = match kind {
        Watched::Threshold => json!({"prometheus": value(None), "threshold": limit, "failureThreshold": 2}),
        Watched::TwiceWithin => json!({"prometheus": value(None), "threshold": limit, "successThreshold": 2}),
        Watched::OfRequests => {
            json!({"prometheus": value(Some("all")), "threshold": {"max": LIMIT, "minRequests": ENOUGH}})
        }
        Watched::Strict => {
            json!({"prometheus": value(None), "threshold": limit, "noData": "Fail", "providerError": "Fail"})
        }
        Watched::Lenient => json!({"prometheus": value(None), "threshold": limit, "noData": "Ignore"}),
        Watched::Web => {
            json!({"web": {"provider": "apm", "path": "/rate", "value": "json.rate"}, "threshold": limit})
        }
        Watched::DryRun => json!({"prometheus": value(None), "threshold": limit, "dryRun": true}),
        Watched::Compare => json!({"prometheus": counters, "compare": {"maxRatio": 1, "minRequests": ENOUGH}}),
        Watched::BurnRate => json!({"prometheus": counters, "burnRate": {"objective": 0.99}}),
        Watched::Restarts => json!({"workload": {"maxRestarts": 0}}),
    };
    let mut metric = json!({"name": name(kind)});
    if let (Value::Object(metric), Value::Object(body)) = (&mut metric, body) {
        metric.extend(body);
    }
    serde_json::from_value(metric).expect("a metric")
}

/// What it is called, and the template that has it.
pub fn name(kind: Watched) -> String {
    format!("{kind:?}").to_lowercase()
}

/// The kind of a plan's metric.
pub fn of(plan: &Plan) -> Option<Watched> {
    let analysis = plan.spec.analysis.as_ref()?;
    let own = analysis.metrics.first().map(|metric| &metric.name);
    let of_template = analysis.templates.first().map(|template| &template.template_name);
    own.or(of_template).and_then(|text| KINDS.into_iter().find(|kind| name(*kind) == *text))
}

/// Whether an analysis compares candidate and stable.
pub fn compares(analysis: &Analysis) -> bool {
    let name = name(Watched::Compare);
    analysis.metrics.iter().any(|it| it.name == name) || analysis.templates.iter().any(|it| it.template_name == name)
}

/// What is measured: mostly well, sometimes badly, sometimes too little or nothing. The shell answers each
/// measurement, be it that there was no answer in time.
pub fn measured(id: &str, measure: &Measure) -> Reply {
    let lenient = id.contains("/lenient/");
    let noted = |whole: bool| {
        let (reply, note) = (Box::new(well(measure)), "a warning".into());
        Reply::Noted { reply, note, whole }
    };
    match rng::dice(id) % 16 {
        // What follows from that is seen often enough.
        9..13 if lenient => Reply::NoData("nobody called".into()),
        1 | 2 | 8 => answer(measure, 1_000, 0.9),
        3 => Reply::NoData("nobody called".into()),
        4 => Reply::ProviderError("no connection".into()),
        // An error, or none, of three requests.
        5 => answer(measure, 3, 0.4),
        6 => answer(measure, 3, 0.0),
        7 => answer(measure, 0, 0.0),
        10 | 11 => beside_a_bad_stable(measure),
        12 => Reply::Refused("the query is refused".into()),
        13 => Reply::Senseless("status 404".into()),
        14 => noted(false),
        15 => noted(true),
        _ => well(measure),
    }
}

/// Whether a question is asked before the candidate has requests, to know whether there is an answer.
pub fn is_before_requests(id: &str) -> bool {
    id.starts_with("reach/")
}

/// What is answered before the candidate has requests: of some releases the provider is away when they begin, and comes
/// back, or refuses what is asked until somebody passes over it.
pub fn reached(id: &str, measure: &Measure) -> Reply {
    let step: Vec<&str> = id.split('/').take(4).collect();
    let times: u64 = id.rsplit('/').next().and_then(|times| times.parse().ok()).unwrap_or(0);
    match rng::dice(&step.join("/")) % 16 {
        course @ 0..2 if times <= 2 * course => Reply::ProviderError("no connection".into()),
        2 => Reply::Refused("the query is refused".into()),
        3 => Reply::Senseless("status 404".into()),
        4 => Reply::NoData("nobody called".into()),
        _ => answer(measure, 1_000, 0.9),
    }
}

/// Whether the provider was there, whatever it said of a metric of this kind.
pub fn is_reached(kind: Watched, reply: &Reply) -> bool {
    match reply {
        Reply::ProviderError(_) | Reply::NoProvider(_) => false,
        Reply::Refused(_) => kind == Watched::Web,
        _ => true,
    }
}

/// How what is measured or asked after the promotion goes on, of each metric and check of a release another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    Well,
    Badly,
    /// Well at first, and then not.
    Worse,
    /// Now like this, now like that.
    AtRandom,
    /// Nothing is measured, and nobody answers.
    Silent,
    /// The provider is out of order.
    Broken,
    /// Too little, and then enough.
    Late,
}

/// The course of what a question is about.
pub fn course(id: &str) -> Course {
    use Course::{AtRandom, Badly, Broken, Late, Silent, Well, Worse};
    let about: Vec<&str> = id.split('/').take(3).collect();
    let courses = [Well, Well, Well, Well, Badly, Worse, Worse, AtRandom, AtRandom, Silent, Silent, Broken, Late];
    let place = usize::try_from(rng::dice(&about.join("/")) % courses.len() as u64).unwrap_or(0);
    courses[place]
}

/// What is measured after the promotion.
pub fn measured_after(id: &str, measure: &Measure) -> Reply {
    // How many measurements there were, those before the promotion among them.
    let count: u64 = id.rsplit('/').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let early = count % 8 < 5;
    match course(id) {
        Course::Badly => answer(measure, 1_000, 0.9),
        Course::Worse if !early => answer(measure, 1_000, 0.9),
        Course::AtRandom => measured(id, measure),
        Course::Silent => Reply::NoData("nobody called".into()),
        Course::Broken => Reply::ProviderError("no connection".into()),
        Course::Late if early => answer(measure, 3, 0.0),
        Course::Well | Course::Worse | Course::Late => well(measure),
    }
}

/// An answer that all is well.
pub fn well(measure: &Measure) -> Reply {
    answer(measure, 1_000, 0.0)
}

/// An answer that all is well, and stable is not: for all that was counted a candidate that turns bad later is no worse.
fn beside_a_bad_stable(measure: &Measure) -> Reply {
    let mut reply = well(measure);
    if let Reply::Counts { stable, .. } = &mut reply {
        stable.events = 900;
    }
    reply
}

/// The answer where so many requests were counted on each side, and of the candidate's this share failed.
fn answer(measure: &Measure, requests: i64, share: f64) -> Reply {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]
    let bad = TallyStatus { requests, events: (requests as f64 * share).ceil() as i64 };
    match measure {
        Measure::Value { requests: None, .. } | Measure::Web { .. } => Reply::Value(share),
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        Measure::Value { requests: Some(_), .. } => Reply::Share { value: share, requests: requests as f64 },
        Measure::Counts { since, .. } => Reply::Counts {
            candidate: bad,
            stable: TallyStatus { requests, events: 0 },
            until: since.plus(Duration::from_secs(3)),
            absent: Absent::default(),
        },
        Measure::Windows { windows, .. } => Reply::Windows {
            windows: windows
                .iter()
                .map(|window| WindowStatus { window: *window, requests: bad.requests, events: bad.events })
                .collect(),
            history: Duration::from_secs(4 * 86_400),
            absent: false,
        },
    }
}

/// Whether a Pass may rest on this answer.
pub fn supports(reply: &Reply) -> bool {
    match reply {
        Reply::Value(value) => *value <= LIMIT,
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        Reply::Share { value, requests } => *value <= LIMIT && *requests >= ENOUGH as f64,
        Reply::Counts { candidate, .. } => candidate.events < FEW,
        Reply::Windows { windows, .. } => windows.iter().all(|it| it.events < FEW && it.requests > 0),
        Reply::Noted { reply, whole, .. } => *whole && supports(reply),
        Reply::NoData(_)
        | Reply::ProviderError(_)
        | Reply::Senseless(_)
        | Reply::Refused(_)
        | Reply::NoProvider(_)
        | Reply::Unread(_)
        | Reply::Check { .. } => false,
    }
}

/// Whether a verdict of this kind may rest on an answer.
pub fn grounds(kind: Watched, outcome: VerdictOutcome, reply: &Reply) -> bool {
    match outcome {
        VerdictOutcome::Pass => supports(reply),
        VerdictOutcome::Ignored => kind == Watched::Lenient && matches!(reply, Reply::NoData(_)),
        VerdictOutcome::Fail => opposes(kind, reply),
        VerdictOutcome::Inconclusive => true,
    }
}

/// Whether a Fail may rest on this answer: that there is none is no word against a candidate, but where the metric says so.
fn opposes(kind: Watched, reply: &Reply) -> bool {
    match reply {
        Reply::Value(value) => *value > LIMIT,
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        Reply::Share { value, requests } => *value > LIMIT && *requests >= ENOUGH as f64,
        // Of all that was counted so far.
        Reply::Counts { .. } => kind == Watched::Compare,
        Reply::Windows { windows, .. } => windows.iter().any(|it| it.events >= FEW),
        Reply::Noted { reply, .. } => opposes(kind, reply),
        Reply::NoData(_) | Reply::ProviderError(_) | Reply::Senseless(_) | Reply::Refused(_) => kind == Watched::Strict,
        Reply::NoProvider(_) | Reply::Check { .. } | Reply::Unread(_) => false,
    }
}

/// Whether what the status says is enough for a Pass at this weight.
pub fn is_shown(kind: Watched, state: &VerdictStatus, weight: i32) -> bool {
    match kind {
        Watched::TwiceWithin => state.successes >= 2,
        Watched::Compare => {
            let sum = |of: fn(&SegmentStatus) -> i64| state.segments.iter().map(of).sum::<i64>();
            let (requests, events) = (sum(|it| it.candidate.requests), sum(|it| it.candidate.events));
            // Both sides have as many requests at each look.
            let few = events < FEW || events <= sum(|it| it.stable.events);
            let here = state.segments.last();
            let here = here.is_some_and(|it| it.weight == weight && it.since.is_some() && it.candidate.requests > 0);
            few && requests >= ENOUGH && here
        }
        _ => true,
    }
}

/// What verdicts followed from answers that are no plain numbers.
static ANSWERS: Mutex<BTreeMap<(&str, &str), u64>> = Mutex::new(BTreeMap::new());

/// Notes which verdict followed from an answer.
pub fn note_answer(reply: &Reply, outcome: VerdictOutcome) {
    let what = match reply {
        Reply::Refused(_) => "Refused",
        Reply::Senseless(_) => "Senseless",
        Reply::Noted { whole: false, .. } => "a part",
        Reply::Noted { whole: true, .. } => "all, with a warning",
        _ => return,
    };
    let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    *answers.entry((what, word(outcome))).or_default() += 1;
}

/// The verdicts that are to follow from them.
const FOLLOWING: [(&str, &str); 6] = [
    ("Refused", "Inconclusive"),
    ("Refused", "Fail"),
    ("Senseless", "Inconclusive"),
    ("Senseless", "Fail"),
    ("a part", "Inconclusive"),
    ("all, with a warning", "Pass"),
];

/// How verdicts became others, by kind.
static CHANGES: Mutex<BTreeMap<(Watched, &str, &str), u64>> = Mutex::new(BTreeMap::new());

/// Notes how a verdict became another.
pub fn note(kind: Watched, from: VerdictOutcome, to: VerdictOutcome) {
    if from != to {
        let mut changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        *changes.entry((kind, word(from), word(to))).or_default() += 1;
    }
}

const fn word(outcome: VerdictOutcome) -> &'static str {
    match outcome {
        VerdictOutcome::Pass => "Pass",
        VerdictOutcome::Fail => "Fail",
        VerdictOutcome::Inconclusive => "Inconclusive",
        VerdictOutcome::Ignored => "Ignored",
    }
}

/// The changes that were seen, as a table, and those that never were: of each kind that it passes and fails, of all
/// together each change that there is, and what follows from answers that are no plain numbers.
pub fn changes() -> (String, Vec<String>) {
    let seen = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    let count = |wanted: &dyn Fn(&(Watched, &str, &str)) -> bool| -> u64 {
        seen.iter().filter(|(change, _)| wanted(change)).map(|(_, count)| count).sum()
    };
    let all = [
        ("Inconclusive", "Pass"),
        ("Inconclusive", "Fail"),
        ("Inconclusive", "Ignored"),
        ("Pass", "Inconclusive"),
        ("Pass", "Fail"),
        ("Pass", "Ignored"),
        ("Ignored", "Pass"),
        ("Ignored", "Fail"),
    ];
    let mut table = String::from("verdicts that became others\n");
    let mut missing = Vec::new();
    for kind in KINDS {
        let row = all.map(|(from, to)| {
            format!("{from} to {to} {}", count(&|it: &(Watched, &str, &str)| *it == (kind, from, to)))
        });
        table += &format!("{:<12} {}\n", format!("{kind:?}"), row.join(", "));
        for outcome in ["Pass", "Fail"] {
            if count(&|it: &(Watched, &str, &str)| (it.0, it.2) == (kind, outcome)) == 0 {
                missing.push(format!("{kind:?} never becomes {outcome}"));
            }
        }
    }
    for (from, to) in all {
        if count(&|it: &(Watched, &str, &str)| (it.1, it.2) == (from, to)) == 0 {
            missing.push(format!("nothing goes from {from} to {to}"));
        }
    }
    let answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    let told: Vec<String> =
        answers.iter().map(|((what, outcome), count)| format!("{what} to {outcome} {count}")).collect();
    table += &format!("answers: {}\n", told.join(", "));
    let unseen = FOLLOWING.into_iter().filter(|it| !answers.contains_key(it));
    missing.extend(unseen.map(|(what, outcome)| format!("{outcome} never follows from {what}")));
    (table, missing)
}
