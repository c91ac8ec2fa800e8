//! Reports of tasks: how they are made, and how they are kept within what a kubelet carries.

use crate::{
    api::{WorkOutcome, database_status::MAX_FINDINGS},
    engine::{MOST_REPORT, Report},
};

/// The longest message, in bytes.
const MOST_MESSAGE: usize = 512;
/// The longest name of a file, a lock or a table, in characters.
const MOST_NAME: usize = 128;
/// The longest risk, in characters.
const MOST_RISK: usize = 160;
/// The longest of what a migration tool has on record as not finished, in characters: it has its remedy at the end.
const MOST_HALF_WAY: usize = 256;
/// The longest message of several faults, in bytes: the status keeps that much of it.
const MOST_FAULTS: usize = 300;

/// A report of nothing but how it ended, and why.
pub fn of(outcome: WorkOutcome, message: impl Into<String>) -> Report {
    Report { outcome, message: message.into(), ..Report::default() }
}

/// Nothing was changed.
pub fn not_begun(message: impl Into<String>) -> Report {
    of(WorkOutcome::NotBegun, message)
}

/// The same of one that did not come to read what pods before it have done.
pub fn unread(message: impl Into<String>) -> Report {
    Report { unread: true, ..not_begun(message) }
}

/// It failed; what it had done before that stays.
pub fn failed(message: impl Into<String>) -> Report {
    of(WorkOutcome::Failed, message)
}

/// Nobody knows.
pub fn unknown(message: impl Into<String>) -> Report {
    of(WorkOutcome::Unknown, message)
}

/// A text cut to so many bytes.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    const MORE: &str = "…";
    format!("{}{MORE}", &text[..text.floor_char_boundary(most.saturating_sub(MORE.len()))])
}

/// Faults as one message: each that is told is told whole, with its remedy, and of the rest how many there are.
#[must_use]
pub fn faults(all: &[String]) -> String {
    let mut text = String::new();
    for (told, fault) in all.iter().enumerate() {
        if told > 0 && text.len() + fault.len() > MOST_FAULTS {
            return format!("{text}; and {} more", all.len() - told);
        }
        let between = if told == 0 { "" } else { "; " };
        text = format!("{text}{between}{fault}");
    }
    text
}

/// A report within its bounds: lists give up their last entries first, then the message its end. The outcome stays.
#[must_use]
pub fn within_bounds(mut report: Report) -> Report {
    report.message = cut(&report.message, MOST_MESSAGE);
    for (list, most) in lists(&mut report) {
        list.truncate(MAX_FINDINGS);
        for entry in list {
            *entry = cut(entry, most);
        }
    }
    while length(&report) > MOST_REPORT {
        let longest = lists(&mut report).into_iter().map(|(list, _)| list).max_by_key(|list| size(list));
        if longest.and_then(Vec::pop).is_some() {
            continue;
        }
        if report.message.is_empty() {
            // Nothing is left but fields that are bounded by themselves, unless somebody's names are beyond all measure.
            return Report { outcome: report.outcome, unread: report.unread, left: report.left, ..Report::default() };
        }
        report.message = cut(&report.message, report.message.len() / 2);
    }
    report
}

/// What is left for the kubelet.
#[must_use]
pub fn text(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default()
}

fn length(report: &Report) -> usize {
    text(report).len()
}

fn size(list: &[String]) -> usize {
    list.iter().map(String::len).sum()
}

/// All lists of a report, with the longest that an entry may be. Those that come first give way last.
fn lists(report: &mut Report) -> Vec<(&mut Vec<String>, usize)> {
    let mut all = vec![
        (&mut report.half_way, MOST_HALF_WAY),
        (&mut report.risks, MOST_RISK),
        (&mut report.seed_risks, MOST_RISK),
        (&mut report.down_risks, MOST_RISK),
        (&mut report.invalid_indexes, MOST_RISK),
        (&mut report.applied, MOST_NAME),
        (&mut report.pending, MOST_NAME),
    ];
    if let Some(rehearsal) = &mut report.rehearsal {
        all.push((&mut rehearsal.locks, MOST_NAME));
        all.push((&mut rehearsal.rewritten, MOST_NAME));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RehearsalStatus;

    fn all(entry: &str) -> Vec<String> {
        vec![entry.to_owned(); 20]
    }

    #[test]
    fn a_report_that_is_too_long_keeps_its_outcome_and_the_begin_of_all_else() {
        let settle = "UPDATE ".repeat(60);
        for entry in ["x".repeat(500), "\"\\\n".repeat(80), "ü".repeat(300), "\u{1}".repeat(300)] {
            let report = Report {
                outcome: WorkOutcome::Failed,
                message: entry.repeat(10),
                pending: all(&entry),
                risks: all(&entry),
                seed_risks: all(&entry),
                seed_hash: "f".repeat(64),
                half_way: all(&entry),
                applied: all(&entry),
                loses_data: true,
                settle: settle.clone(),
                rehearsal: Some(RehearsalStatus { locks: all(&entry), rewritten: all(&entry), ..Default::default() }),
                ..Report::default()
            };
            let bounded = within_bounds(report);
            let text = text(&bounded);
            assert!(text.len() <= MOST_REPORT && text.len() > MOST_REPORT / 4, "{} bytes", text.len());
            assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), bounded);
            assert!(bounded.outcome == WorkOutcome::Failed && bounded.loses_data);
            assert_eq!(bounded.settle, settle, "a half of it would be worse than none");
            assert!(bounded.message.len() <= MOST_MESSAGE && !bounded.message.is_empty());
        }
    }

    #[test]
    fn of_many_faults_each_that_is_told_is_told_whole() {
        let fault = |letter: &str, length: usize| letter.repeat(length);
        let few = [fault("a", 100), fault("b", 100)];
        assert_eq!(faults(&few), format!("{}; {}", few[0], few[1]));
        let many = [fault("a", 250), fault("b", 100), fault("c", 10)];
        assert_eq!(faults(&many), format!("{}; and 2 more", many[0]));
        assert_eq!(faults(&[fault("a", 500)]), fault("a", 500), "the first in any case");
    }

    #[test]
    fn a_report_that_fits_is_left_alone() {
        let mut report = not_begun("no");
        report.risks = vec!["a".repeat(MOST_RISK); MAX_FINDINGS];
        assert_eq!(within_bounds(report.clone()), report);
    }

    #[test]
    fn fields_that_nobody_bounded_do_not_take_the_outcome_along() {
        let report = Report { outcome: WorkOutcome::Unknown, server_version: "x".repeat(5_000), ..Report::default() };
        assert_eq!(within_bounds(report), unknown(""));
    }
}
