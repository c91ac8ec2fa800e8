//! Writes findings as compilers do, `file:line:column`, so that editors and CI can jump to them.

use serde::Serialize;

use super::{File, Severity};
use crate::cli::paint::{Paint, Tone};

/// All findings, for machines.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    findings: Vec<Row<'a>>,
    errors: usize,
    warnings: usize,
    /// ServiceReleases and ReleaseCommands that were looked at.
    documents: usize,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    file: &'a str,
    line: u64,
    column: u64,
    severity: Severity,
    field: &'a str,
    rule: &'a str,
    message: &'a str,
}

/// All findings, for machines.
#[must_use]
pub fn report(files: &[File]) -> Report<'_> {
    let rows = files.iter().flat_map(|file| file.findings.iter().map(move |finding| (file, finding)));
    let findings: Vec<Row<'_>> = rows
        .map(|(file, finding)| Row {
            file: &file.path,
            line: finding.place.line,
            column: finding.place.column,
            severity: finding.severity,
            field: &finding.field,
            rule: finding.rule,
            message: &finding.message,
        })
        .collect();
    let count = |severity: Severity| findings.iter().filter(|row| row.severity == severity).count();
    Report {
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        documents: files.iter().flat_map(|file| &file.documents).filter(|document| document.ours).count(),
        findings,
    }
}

/// All findings, one to a line, and how many there are.
#[must_use]
pub fn render(files: &[File], paint: Paint) -> String {
    let report = report(files);
    let mut text = String::new();
    for Row { file, line, column, severity, field, rule, message } in &report.findings {
        let severity = match severity {
            Severity::Error => paint.text(Tone::Bad, "error"),
            Severity::Warning => paint.text(Tone::Warn, "warning"),
        };
        let field = if field.is_empty() { String::new() } else { format!("{}: ", paint.text(Tone::Strong, field)) };
        let rule = paint.text(Tone::Faint, &format!("[{rule}]"));
        text += &format!("{file}:{line}:{column}: {severity}: {field}{message} {rule}\n");
    }
    let plural = |count: usize, word: &str| if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") };
    text += &format!(
        "{}, {} in {}\n",
        plural(report.errors, "error"),
        plural(report.warnings, "warning"),
        plural(report.documents, "document")
    );
    text
}
