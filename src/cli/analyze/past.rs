//! The last release, as far as a status remembers it: whose pods, from when to when, at which weights. Pure.

use crate::api::{ServiceReleaseStatus, TimelineEntry, Timestamp};

const PROMOTED: &str = "promoted";

/// A release that was, or that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its number.
    pub number: i64,
    /// The candidate's revision.
    pub candidate: String,
    /// The revision that was stable beside it.
    pub stable: String,
    /// When the candidate began to have traffic.
    pub from: Timestamp,
    /// When all traffic began to move to it, or it was taken back; while it is under way, now.
    pub to: Timestamp,
    /// From when on it had which weight, in percent.
    pub weights: Vec<(Timestamp, i32)>,
    /// How it ended, in a word.
    pub end: &'static str,
}

/// The last release. What it says when that is not known completes "the status does not tell the window: ".
///
/// # Errors
/// When the status has none, or the candidate had no traffic beside a stable.
pub fn last_release(status: &ServiceReleaseStatus, now: Timestamp) -> Result<Past, &'static str> {
    let release = status.release.as_ref().ok_or("it has not been released yet")?;
    let number = release.number;
    let entries = || status.timeline.iter().filter(|entry| entry.release == number);
    let mut weights: Vec<(Timestamp, i32)> = entries().filter_map(weight).collect();
    let watched = status.verdicts.iter().map(|verdict| verdict.started_at).min();
    let shifted = weights.iter().find(|(_, weight)| *weight > 0).map(|(at, _)| *at);
    reached(&mut weights, status);
    // What is watched after the promotion began anew with it.
    let begins = || watched.into_iter().chain(shifted);
    let ended = begins().find_map(|from| Some((from, end(status, number, from)?)));
    let begun = begins().next().ok_or("its last release had no traffic beside stable")?;
    let stable = beside(status, number).ok_or("nothing was stable beside its last release")?;
    let (from, (to, end)) = match ended {
        Some(ended) => ended,
        None if status.candidate.is_some() => (begun, (now, "under way")),
        None => return Err("its timeline no longer has the end of the last release"),
    };
    // While all traffic moves, stable's share ends: that proves nothing of the two.
    let moved = entries().filter(|entry| end == PROMOTED && is_promotion(entry)).map(|entry| entry.at);
    let to = moved.filter(|at| *at > from).fold(to, Timestamp::min);
    Ok(Past { number, candidate: release.revision.clone(), stable, from, to, weights, end })
}

/// A weight counts from when it was reached, as far as what was counted says when that was.
fn reached(weights: &mut [(Timestamp, i32)], status: &ServiceReleaseStatus) {
    let segments = status.verdicts.iter().flat_map(|verdict| &verdict.segments);
    let known: Vec<(Timestamp, i32)> = segments.filter_map(|it| Some((it.since?, it.weight))).collect();
    for place in 0..weights.len() {
        let (at, weight) = weights[place];
        let next = weights.get(place + 1).map(|(at, _)| *at);
        let within = |since: Timestamp| since >= at && next.is_none_or(|next| since < next);
        let since = known.iter().filter(|(since, of)| *of == weight && within(*since)).map(|(since, _)| *since).min();
        weights[place].0 = since.unwrap_or(at);
    }
}

/// The weight that a step gave, as its entry in the timeline says it: `2/6 setWeight 25`.
fn weight(entry: &TimelineEntry) -> Option<(Timestamp, i32)> {
    let mut words = entry.message.split(' ').skip(1);
    let weight = match (entry.kind.as_str(), words.next()?) {
        ("Step", "setWeight") => words.next()?.parse().ok()?,
        _ if is_promotion(entry) => 100,
        _ => return None,
    };
    Some((entry.at, weight))
}

/// Whether it is the step that gives the candidate all traffic: `6/6 promote`.
fn is_promotion(entry: &TimelineEntry) -> bool {
    entry.kind == "Step" && entry.message.split(' ').nth(1) == Some("promote")
}

/// What was stable beside a release.
fn beside(status: &ServiceReleaseStatus, number: i64) -> Option<String> {
    let stable = status.stable.as_ref()?;
    if stable.release != number {
        return Some(stable.revision.clone());
    }
    // It was promoted, so that stable is what it brought.
    let previous = status.previous.as_ref().map(|previous| previous.revision.clone());
    let recorded = status.history.iter().rev().find(|known| known.revision != stable.revision);
    previous.filter(|revision| *revision != stable.revision).or_else(|| recorded.map(|known| known.revision.clone()))
}

/// When a release that had traffic from a moment on ended, and how.
fn end(status: &ServiceReleaseStatus, number: i64, from: Timestamp) -> Option<(Timestamp, &'static str)> {
    let rollback = status.rollback.iter().filter(|rollback| rollback.release == number);
    let promoted = status.history.iter().filter(|known| known.release == number);
    let told = status.timeline.iter().filter(|entry| entry.release == number).filter_map(|entry| {
        let end = match entry.kind.as_str() {
            "Promoted" => PROMOTED,
            "RollingBack" => "taken back",
            "Superseded" => "superseded",
            _ => return None,
        };
        Some((entry.at, end))
    });
    let ends = rollback.map(|rollback| (rollback.started_at, "taken back"));
    ends.chain(promoted.map(|known| (known.at, PROMOTED))).chain(told).filter(|(at, _)| *at > from).min()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(minute: u32) -> String {
        format!("2026-11-20T10:{minute:02}:00Z")
    }

    fn time(minute: u32) -> Timestamp {
        Timestamp::new(at(minute).parse().unwrap())
    }

    fn step(minute: u32, message: &str) -> Value {
        json!({"at": at(minute), "type": "Step", "release": 7, "message": message})
    }

    fn status(more: Value) -> ServiceReleaseStatus {
        let mut status = json!({
            "phase": "Healthy",
            "release": {"number": 7, "plan": "shop-plan-7", "revision": "new", "startedAt": at(0)},
            "timeline": [
                step(2, "2/6 setWeight 25"), step(2, "3/6 pause"), step(7, "4/6 setWeight 50"), step(9, "6/6 promote"),
            ],
        });
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_promoted_release_is_between_its_first_weight_and_the_last_step() {
        let status = status(json!({
            "stable": {"revision": "new", "release": 7}, "previous": {"revision": "old", "release": 5},
            "history": [{"revision": "old", "release": 5, "at": at(0)}, {"revision": "new", "release": 7, "at": at(10)}],
        }));
        let past = last_release(&status, time(59)).unwrap();
        assert_eq!((past.candidate.as_str(), past.stable.as_str(), past.end), ("new", "old", "promoted"));
        assert_eq!((past.from, past.to), (time(2), time(9)));
        assert_eq!(past.weights, [(time(2), 25), (time(7), 50), (time(9), 100)]);
        // What an observation watches began after it.
        let verdicts = json!([{"name": "errors", "outcome": "Pass", "startedAt": at(10)}]);
        let observed = ServiceReleaseStatus { verdicts: serde_json::from_value(verdicts).unwrap(), ..status.clone() };
        assert_eq!(last_release(&observed, time(59)).unwrap(), past);
        let forgotten = ServiceReleaseStatus { previous: None, ..status };
        assert_eq!(last_release(&forgotten, time(59)).unwrap().stable, "old");
    }

    #[test]
    fn one_that_was_taken_back_ends_where_it_turned() {
        let status = status(json!({
            "stable": {"revision": "old", "release": 5},
            "rollback": {"fromWeight": 50, "cause": "Failed", "revision": "new", "release": 7, "reason": "AnalysisFailed",
                "message": "", "startedAt": at(8), "completedAt": at(9)},
            "verdicts": [{"name": "errors", "outcome": "Fail", "startedAt": at(3)}],
        }));
        let past = last_release(&status, time(59)).unwrap();
        assert_eq!((past.stable.as_str(), past.from, past.to, past.end), ("old", time(3), time(8), "taken back"));
    }

    #[test]
    fn one_that_is_under_way_is_looked_at_until_now() {
        let status = status(json!({"stable": {"revision": "old", "release": 5}, "candidate": {"revision": "new"}}));
        let past = last_release(&status, time(30)).unwrap();
        assert_eq!((past.to, past.end), (time(30), "under way"));
    }

    #[test]
    fn without_a_window_it_says_why() {
        let told = |status: &ServiceReleaseStatus| last_release(status, time(59)).unwrap_err();
        assert!(told(&ServiceReleaseStatus::default()).contains("not been released"));
        assert!(told(&status(json!({}))).contains("nothing was stable"));
        assert!(told(&status(json!({"timeline": []}))).contains("no traffic"));
        assert!(told(&status(json!({"stable": {"revision": "old", "release": 5}}))).contains("no longer has the end"));
    }
}
