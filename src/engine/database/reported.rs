//! What a backup Job of the user's says of its backup. It is told as it was said: nobody here has restored it.

use serde::Deserialize;

use crate::{
    api::{BackupStatus, WorkOutcome, status::bounded},
    database::Secrets,
};

use super::super::{
    observed::JobEnd,
    task::{MOST_REPORT, Report},
};

/// Why such a backup is not proven.
pub const BY_JOB: &str = "not proven by a restore: what is told of it is what the Job of the manifest says";
/// The same of the operator's own, where the manifest wants no proof.
pub const SKIPPED: &str = "not proven by a restore: backup.proof is Skip";
/// The longest name, in characters.
const MOST_NAME: usize = 256;

/// The termination message, where it is JSON.
#[derive(Deserialize)]
struct Said {
    name: String,
    #[serde(default)]
    bytes: Option<i64>,
    #[serde(default)]
    sha256: Option<String>,
}

/// How a Job of the user's ended: by its exit code, and by what it left as its message.
pub fn of(end: &JobEnd) -> Report {
    // Nobody knows the passwords that a pod of the user's has: those of URLs are seen by their form.
    let said = end.report.as_deref().map(|text| Secrets::default().mask(text));
    let said = said.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if !end.succeeded {
        let message = bounded(said.unwrap_or(&end.message), 320);
        return Report { outcome: WorkOutcome::Failed, message, ..Report::default() };
    }
    let (backup, fault) = match said {
        None => (BackupStatus::default(), Some("the Job does not say where it is".to_owned())),
        Some(text) if text.starts_with('{') => match read(text) {
            Ok(backup) => (backup, None),
            Err(wrong) => (BackupStatus::default(), Some(format!("what the Job says of it is not taken: {wrong}"))),
        },
        Some(text) => (BackupStatus { name: bounded(text, MOST_NAME), ..BackupStatus::default() }, None),
    };
    let message = told(&backup, fault);
    let backup = Some(BackupStatus { not_proven: BY_JOB.into(), ..backup });
    Report { outcome: WorkOutcome::Done, message, backup, ..Report::default() }
}

fn read(text: &str) -> Result<BackupStatus, String> {
    if text.len() > MOST_REPORT {
        return Err(format!("it is longer than {MOST_REPORT} bytes"));
    }
    let Said { name, bytes, sha256 } = serde_json::from_str(text).map_err(|error| format!("no such JSON: {error}"))?;
    let name = name.trim().to_owned();
    if name.is_empty() || name.chars().count() > MOST_NAME || name.chars().any(char::is_control) {
        return Err(format!("name needs 1 to {MOST_NAME} characters, without line breaks"));
    }
    if bytes.is_some_and(|bytes| bytes < 1) {
        return Err("bytes is below 1: an empty file is no backup".into());
    }
    let is_hash = |hash: &String| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if sha256.as_ref().is_some_and(|hash| !is_hash(hash)) {
        return Err("sha256 needs 64 hexadecimal digits".into());
    }
    let sha256 = sha256.unwrap_or_default().to_ascii_lowercase();
    Ok(BackupStatus { name, bytes: bytes.unwrap_or_default(), sha256, ..BackupStatus::default() })
}

/// In words, what is certain first.
fn told(backup: &BackupStatus, fault: Option<String>) -> String {
    let mut words = vec!["exit code 0".to_owned()];
    words.extend(fault);
    if !backup.name.is_empty() {
        words.push(format!("it says: {}", backup.name));
    }
    if backup.bytes > 0 {
        words.push(format!("{} bytes", backup.bytes));
    }
    if !backup.sha256.is_empty() {
        words.push(format!("sha256 {}", backup.sha256));
    }
    // The end is what must not be cut off.
    format!("{}; not proven by a restore", bounded(&words.join(", "), 280))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn end(succeeded: bool, report: &str) -> JobEnd {
        let message = "exit code 3: no space".to_owned();
        let at = crate::api::Timestamp::from_millis(0);
        JobEnd { succeeded, at, took: 0, message, report: Some(report.into()), image: None }
    }

    #[test]
    fn what_a_job_says_is_taken_and_never_called_proven() {
        let hash = "A".repeat(64);
        let said = format!(r#" {{"name": "s3://b/shop.dump", "bytes": 7, "sha256": "{hash}", "more": [1]}} "#);
        let Report { outcome, message, backup, .. } = of(&end(true, &said));
        let backup = backup.unwrap();
        assert_eq!((outcome, backup.name.as_str(), backup.bytes), (WorkOutcome::Done, "s3://b/shop.dump", 7));
        assert_eq!(backup.sha256, "a".repeat(64));
        assert!(backup.proven_at.is_none() && backup.not_proven.starts_with("not proven by a restore"));
        assert!(message.starts_with("exit code 0, it says: s3://b/shop.dump, 7 bytes, sha256 a"), "{message}");
        assert!(message.ends_with("; not proven by a restore"), "{message}");
    }

    #[rstest]
    #[case::text("s3://b/shop.dump\n", "s3://b/shop.dump", "exit code 0, it says: s3://b/shop.dump; not proven")]
    #[case::nothing("", "", "exit code 0, the Job does not say where it is; not proven")]
    #[case::no_name(r#"{"bytes": 7}"#, "", "not taken: no such JSON: missing field `name`")]
    #[case::empty(r#"{"name": "a", "bytes": 0}"#, "", "not taken: bytes is below 1")]
    #[case::hash(r#"{"name": "a", "sha256": "beef"}"#, "", "not taken: sha256 needs 64")]
    #[case::lines(r#"{"name": "a\nb"}"#, "", "not taken: name needs 1 to 256 characters")]
    #[case::cut(r#"{"name": "a"#, "", "not taken: no such JSON")]
    fn what_is_no_report_is_no_fact(#[case] said: &str, #[case] name: &str, #[case] told: &str) {
        let Report { outcome, message, backup, .. } = of(&end(true, said));
        assert_eq!((outcome, backup.unwrap().name.as_str()), (WorkOutcome::Done, name));
        assert!(message.contains(told) && message.ends_with("not proven by a restore"), "{message}");
    }

    #[rstest]
    #[case::words(true, "dumped postgres://shop:s3cret%2Fword@db/shop", "dumped postgres://shop:***@db/shop")]
    #[case::json(true, r#"{"name": "dump of postgres://shop:s3cret@db/shop"}"#, "dump of postgres://shop:***@db/shop")]
    #[case::failed(false, "+ pg_dump postgres://shop:s3cret@db/shop -Fc", "+ pg_dump postgres://shop:***@db/shop -Fc")]
    fn passwords_of_urls_are_not_told(#[case] succeeded: bool, #[case] said: &str, #[case] told: &str) {
        let Report { message, backup, .. } = of(&end(succeeded, said));
        let all = format!("{message} {backup:?}");
        assert!(all.contains(told) && !all.contains("s3cret"), "{all}");
    }

    #[test]
    fn a_long_one_is_not_read_and_a_name_never_hides_that_nothing_is_proven() {
        let long = format!(r#"{{"name": "a", "more": "{}"}}"#, "x".repeat(MOST_REPORT));
        assert!(of(&end(true, &long)).message.contains("longer than 2048 bytes"));
        let name = "x".repeat(1_000);
        let Report { message, backup, .. } = of(&end(true, &name));
        assert_eq!(backup.unwrap().name.chars().count(), MOST_NAME);
        assert!(message.ends_with("; not proven by a restore") && message.chars().count() <= 320, "{message}");
    }

    #[test]
    fn a_job_that_fails_made_no_backup() {
        let report = of(&end(false, ""));
        assert_eq!((report.outcome, report.message.as_str()), (WorkOutcome::Failed, "exit code 3: no space"));
        assert!(report.backup.is_none());
    }
}
