//! `kubectl srel report`: the runbook's log of a release, as Markdown, from what the status has on record.

use kube::ResourceExt as _;

use super::{args, connect::Cluster, error::CliError, exit, output};
use crate::api::{
    BackupStatus, CommandRecord, DatabaseStatus, Phase, SchemaState, ServiceRelease, ServiceReleaseStatus, Timestamp,
    VerdictStatus, status::bounded,
};

/// Runs `report`.
///
/// # Errors
/// When the release cannot be read.
pub async fn run(cluster: &Cluster, args: &args::Report) -> Result<u8, CliError> {
    let release = cluster.release(&args.name).await?;
    output::print(&markdown(&release))?;
    Ok(exit::OK)
}

/// The whole report.
#[must_use]
pub fn markdown(release: &ServiceRelease) -> String {
    let status = release.status.clone().unwrap_or_default();
    let mut text = head(release, &status);
    text.push_str(&section("What to do", next(&status)));
    let known = status.database.as_ref();
    text.push_str(&section(
        "Database",
        known.map(|known| database(known, by_image(release, known))).unwrap_or_default(),
    ));
    text.push_str(&section("Checks", checks(&status)));
    text.push_str(&section("Metrics", status.verdicts.iter().map(verdict).collect()));
    text.push_str(&section("Commands", commands(&status)));
    text.push_str(&section("Timeline", timeline(&status)));
    text
}

/// A heading and a list; nothing without entries.
fn section(title: &str, lines: Vec<String>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("\n## {title}\n\n{}\n", lines.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n"))
}

fn head(release: &ServiceRelease, status: &ServiceReleaseStatus) -> String {
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    let number = status.release.as_ref().map(|release| release.number.to_string()).unwrap_or_default();
    let mut rows = Vec::new();
    if let Some(known) = &status.release {
        rows.push(("Revision", known.revision.clone()));
        rows.push(("Began", known.started_at.to_string()));
        rows.extend(known.migration.clone().map(|migration| ("Migration", migration)));
        rows.extend(known.full_promotion_by.clone().map(|by| ("Promoted in full by", by)));
    }
    rows.push(("Phase", format!("{:?}{}", status.phase, reason(status))));
    rows.push(("State", cell(&status.message)));
    let images = |entry: Option<&crate::api::RevisionStatus>| {
        entry.map(|entry| format!("{} ({})", entry.revision, entry.images.join(", ")))
    };
    rows.extend(images(status.stable.as_ref()).map(|stable| ("Serves", stable)));
    rows.extend(images(status.candidate.as_ref()).map(|candidate| ("Candidate", candidate)));
    if let Some(rollback) = &status.rollback {
        let by = rollback.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let done = rollback.completed_at.map_or("not over yet".to_owned(), |at| at.to_string());
        rows.push(("Rolled back", format!("{:?}{by}: {}", rollback.cause, cell(&rollback.message))));
        rows.push(("Rollback began, ended", format!("{}, {done}", rollback.started_at)));
        rows.push(("Traffic when it began", format!("{}% on the candidate", rollback.from_weight)));
    }
    let rows: Vec<String> = rows.into_iter().map(|(key, value)| format!("| {key} | {value} |")).collect();
    format!("# Release {number} of {namespace}/{name}\n\n| | |\n| --- | --- |\n{}\n", rows.join("\n"))
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn reason(status: &ServiceReleaseStatus) -> String {
    if status.reason.is_empty() { String::new() } else { format!(" ({})", status.reason) }
}

fn next(status: &ServiceReleaseStatus) -> Vec<String> {
    let settled = matches!(status.phase, Phase::Healthy | Phase::Observing) && status.next_action.is_empty();
    match (status.next_action.as_str(), settled) {
        ("", true) => vec!["nothing: the spec is what serves".into()],
        ("", false) => vec!["nothing by hand: it goes on by itself".into()],
        (action, _) => vec![action.to_owned()],
    }
}

fn took(from: Timestamp, to: Option<Timestamp>) -> String {
    to.map(|to| format!(", {}", to.since(from))).unwrap_or_default()
}

/// Whether a pod of the user's migrates.
fn by_image(release: &ServiceRelease, known: &DatabaseStatus) -> bool {
    let migration = release.spec.database.as_ref().and_then(|database| database.migration.as_ref());
    !known.image.is_empty() || migration.is_some_and(|migration| migration.change.template.is_some())
}

/// What is known of a backup.
fn backup(known: &BackupStatus) -> String {
    let name = if known.name.is_empty() { "of a Job of the manifest" } else { &known.name };
    let why = if known.not_proven.is_empty() { "not proven" } else { &known.not_proven };
    let proven = known.proven_at.map_or(why.to_owned(), |at| format!("restored and counted at {at}"));
    let sum = if known.sha256.is_empty() { String::new() } else { format!(", SHA-256 {}", known.sha256) };
    // A Job of the user's need not tell them.
    let counts = [(known.bytes, "bytes"), (known.tables, "tables"), (known.rows, "rows")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: String = counts.map(|(count, of)| format!("{count} {of}, ")).collect();
    format!("{name}: {counts}{proven}{sum}")
}

fn database(known: &DatabaseStatus, by_image: bool) -> Vec<String> {
    let mut lines = vec![format!(
        "schema: {:?}; plan {}",
        known.schema,
        if known.plan_hash.is_empty() { "-" } else { &known.plan_hash }
    )];
    if !known.server_version.is_empty() {
        lines.push(format!("PostgreSQL {}, {} bytes", known.server_version, known.size_bytes));
    }
    lines.extend(known.backup.as_ref().map(|known| format!("backup {}", backup(known))));
    let aside = known.set_aside.as_ref().map(backup);
    lines.extend(aside.map(|told| format!("backup of what was there before the schema was taken back: {told}")));
    if let Some(rehearsal) = &known.rehearsal {
        lines.push(format!(
            "rehearsal: restored in {} ms, migrated in {} ms; locks: {}; rows rewritten: {}",
            rehearsal.restored_millis,
            rehearsal.migrated_millis,
            rehearsal.locks_told(by_image),
            or_none(&rehearsal.rewritten)
        ));
    }
    lines.extend(known.risks.iter().map(|risk| format!("risk: {risk}")));
    lines.extend(known.seed.iter().flat_map(|seed| &seed.risks).map(|risk| format!("risk of the seed: {risk}")));
    if let Some(down) = &known.migration_down {
        if !down.plan_hash.is_empty() {
            lines.push(format!("way back: plan {}; files: {}", down.plan_hash, or_none(&down.files)));
        }
        lines.extend(down.risks.iter().map(|risk| format!("risk on the way back: {risk}")));
    }
    if !known.applied.is_empty() {
        let then = if known.schema == SchemaState::Undone { ", and taken back" } else { "" };
        lines.push(format!("applied: {}{then}", known.applied.join(", ")));
    }
    lines.extend(
        known
            .approvals
            .iter()
            .map(|it| format!("{:?} of plan {} approved by {} at {}", it.kind, it.plan_hash, it.by, it.at)),
    );
    lines.extend(known.work.iter().map(|work| {
        let Some(job) = Some(&work.job).filter(|job| !job.is_empty()) else { return String::new() };
        format!(
            "{} {:?} ({}{}; Job {job}, number {}): {}",
            work.task.word(),
            work.outcome,
            work.started_at,
            took(work.started_at, work.ended_at),
            work.attempt,
            bounded(&work.message, 320)
        )
    }));
    lines.retain(|line| !line.is_empty());
    lines
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".into() } else { list.join(", ") }
}

fn checks(status: &ServiceReleaseStatus) -> Vec<String> {
    let line = |check: &crate::api::CheckStatus| {
        format!(
            "{} at {:?}: {:?} after {} answers (since {}): {}",
            check.name, check.when, check.outcome, check.attempts, check.started_at, check.message
        )
    };
    status.checks.iter().map(line).collect()
}

fn verdict(verdict: &VerdictStatus) -> String {
    let measured = verdict.measured_at.map_or("not measured".to_owned(), |at| format!("measured until {at}"));
    let (name, outcome, since) = (&verdict.name, verdict.outcome, verdict.started_at);
    format!("{name}: {outcome:?}: {} (watched since {since}, {measured})", verdict.message)
}

/// Those of earlier releases are on record, too.
fn commands(status: &ServiceReleaseStatus) -> Vec<String> {
    let began = status.release.as_ref().map(|release| release.started_at);
    let of_release = |command: &&CommandRecord| began.is_none_or(|began| command.at >= began);
    let line = |command: &CommandRecord| {
        format!("{} {:?} {:?}: {}", command.at, command.action, command.phase, command.message)
    };
    status.commands.iter().filter(of_release).map(line).collect()
}

fn timeline(status: &ServiceReleaseStatus) -> Vec<String> {
    let number = status.release.as_ref().map_or(0, |release| release.number);
    let of_release = status.timeline.iter().filter(|entry| entry.release == number);
    let line = |entry: &crate::api::TimelineEntry| {
        let by = entry.by.as_ref().map(|by| format!(" (by {by})")).unwrap_or_default();
        format!("{} {}: {}{by}", entry.at, entry.kind, entry.message)
    };
    let mut lines: Vec<String> = of_release.map(line).collect();
    if status.timeline_dropped > 0 {
        lines.insert(0, format!("{} older entries are no longer kept", status.timeline_dropped));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_has_times_people_evidence_and_what_to_do() {
        let release: ServiceRelease = serde_json::from_value(json!({
            "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
            "metadata": {"name": "shop", "namespace": "production"}, "spec": {},
            "status": {
                "phase": "Halted", "reason": "SchemaChanged", "message": "a part | of it", "nextAction": "look at it",
                "release": {"number": 3, "plan": "p", "revision": "bbb", "startedAt": "2026-01-02T03:04:05Z", "migration": "m"},
                "stable": {"revision": "aaa", "images": ["shop:1"]},
                "rollback": {"cause": "Failed", "revision": "bbb", "release": 3, "reason": "MigrationFailed", "message": "syntax", "fromWeight": 0, "startedAt": "2026-01-02T03:05:05Z"},
                "database": {
                    "release": 3, "planHash": "cafe", "schema": "Partial", "applied": ["001.sql"], "risks": ["002.sql, line 1: empties a table"],
                    "migrationDown": {"planHash": "fade", "files": ["001.down.sql"], "risks": ["001.down.sql, line 1: drops tables with their rows"], "losesData": true},
                    "setAside": {"name": "b-3-before-down", "bytes": 12, "sha256": "beef", "notProven": "not proven by a restore: backup.proof is Skip"},
                    "backup": {"name": "b-3", "bytes": 10, "tables": 1, "rows": 2, "provenAt": "2026-01-02T03:04:25Z"},
                    "approvals": [{"kind": "Migration", "planHash": "cafe", "by": "ann", "at": "2026-01-02T03:04:35Z"}],
                    "work": [{"task": "Migration", "outcome": "Failed", "attempt": 1, "job": "shop-migration-x", "startedAt": "2026-01-02T03:04:40Z", "endedAt": "2026-01-02T03:04:42Z", "message": "002: syntax"}],
                },
                "verdicts": [{"name": "errors", "outcome": "Fail", "message": "0.2 is over 0.01", "startedAt": "2026-01-02T03:04:50Z", "measuredAt": "2026-01-02T03:05:00Z"}],
                "commands": [{"uid": "s", "name": "b", "action": "Abort", "phase": "Applied", "message": "of another one", "at": "2026-01-01T03:04:35Z"}, {"uid": "u", "name": "c", "action": "Approve", "phase": "Applied", "message": "plan cafe is approved", "at": "2026-01-02T03:04:35Z"}],
                "timeline": [
                    {"at": "2026-01-01T00:00:00Z", "type": "Promoted", "release": 2, "message": "of another one"},
                    {"at": "2026-01-02T03:04:35Z", "type": "Command", "release": 3, "message": "Approve", "by": "ann"},
                ],
            },
        }))
        .unwrap();
        insta::assert_snapshot!(markdown(&release), @r#"
        # Release 3 of production/shop

        | | |
        | --- | --- |
        | Revision | bbb |
        | Began | 2026-01-02T03:04:05.000Z |
        | Migration | m |
        | Phase | Halted (SchemaChanged) |
        | State | a part \| of it |
        | Serves | aaa (shop:1) |
        | Rolled back | Failed: syntax |
        | Rollback began, ended | 2026-01-02T03:05:05.000Z, not over yet |
        | Traffic when it began | 0% on the candidate |

        ## What to do

        - look at it

        ## Database

        - schema: Partial; plan cafe
        - backup b-3: 10 bytes, 1 tables, 2 rows, restored and counted at 2026-01-02T03:04:25.000Z
        - backup of what was there before the schema was taken back: b-3-before-down: 12 bytes, not proven by a restore: backup.proof is Skip, SHA-256 beef
        - risk: 002.sql, line 1: empties a table
        - way back: plan fade; files: 001.down.sql
        - risk on the way back: 001.down.sql, line 1: drops tables with their rows
        - applied: 001.sql
        - Migration of plan cafe approved by ann at 2026-01-02T03:04:35.000Z
        - migration Failed (2026-01-02T03:04:40.000Z, 2s; Job shop-migration-x, number 1): 002: syntax

        ## Metrics

        - errors: Fail: 0.2 is over 0.01 (watched since 2026-01-02T03:04:50.000Z, measured until 2026-01-02T03:05:00.000Z)

        ## Commands

        - 2026-01-02T03:04:35.000Z Approve Applied: plan cafe is approved

        ## Timeline

        - 2026-01-02T03:04:35.000Z Command: Approve (by ann)
        "#);
    }

    #[rstest::rstest]
    #[case::an_image("tool@sha256:a", &[], "locks: not seen (sampled every 20 ms); rows rewritten: none")]
    #[case::an_image_for_long("tool@sha256:a", &["ShareLock on public.a"], "locks: ShareLock on public.a (sampled every 20 ms)")]
    #[case::files("", &[], "locks: none; rows rewritten: none")]
    fn locks_that_may_have_been_missed_are_not_called_none(
        #[case] image: &str,
        #[case] locks: &[&str],
        #[case] told: &str,
    ) {
        let known = json!({"image": image, "rehearsal": {"locks": locks}});
        let known: DatabaseStatus = serde_json::from_value(known).unwrap();
        let lines =
            database(&known, by_image(&ServiceRelease::new("shop", crate::api::ServiceReleaseSpec::default()), &known));
        assert!(lines.iter().any(|line| line.contains(told)), "{lines:?}");
    }
}
