//! `kubectl srel lint`: what is wrong with manifests, and what in them will lose requests or
//! surprise, with the line of each. Needs no cluster.

mod advice;
mod kept;
mod patience;
mod pod;
mod report;
mod rules;
mod schema;
mod way_back;
mod yaml;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{args, error::CliError, exit, output, paint::Paint};
use crate::api::{AnalysisTemplate, ServiceRelease};
use yaml::{Node, Place};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The API server or the operator refuses it.
    Error,
    /// It is accepted, and may not be what is meant.
    Warning,
}

/// Something that was found in a document.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where it is in the file.
    pub place: Place,
    /// The field.
    pub field: String,
    /// How bad it is.
    pub severity: Severity,
    /// The rule, in a word.
    pub rule: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Everything about one file.
#[derive(Debug)]
pub struct File {
    /// Its path, or `-`.
    path: String,
    /// What was found.
    findings: Vec<Finding>,
    /// Its documents.
    documents: Vec<Document>,
}

/// A document of a file.
#[derive(Debug)]
pub struct Document {
    node: Node,
    release: Option<Box<ServiceRelease>>,
    template: Option<Box<AnalysisTemplate>>,
    ours: bool,
}

/// Runs `lint`.
///
/// # Errors
/// When a file cannot be read.
pub fn run(args: &args::Lint) -> Result<u8, CliError> {
    let mut texts = Vec::new();
    for path in sources(&args.filenames, args.recursive)? {
        let shown = path.display().to_string();
        texts.push((shown, read(&path)?));
    }
    let files = examine(texts);
    match args.output {
        Some(format) => output::print(&output::format(&report::report(&files), format)?)?,
        None => output::print(&report::render(&files, Paint::for_stdout()))?,
    }
    Ok(exit_code(&files, args.strict))
}

fn exit_code(files: &[File], strict: bool) -> u8 {
    let bad = |finding: &Finding| strict || finding.severity == Severity::Error;
    if files.iter().flat_map(|file| &file.findings).any(bad) { exit::ERROR } else { exit::OK }
}

/// Looks at the texts of all files; documents are also seen beside those of the other files.
fn examine(texts: Vec<(String, String)>) -> Vec<File> {
    let mut files: Vec<File> = texts.into_iter().map(|(path, text)| parse(path, &text)).collect();
    let advice: Vec<Vec<Finding>> = files.iter().map(|file| advice_for(file, &files)).collect();
    for (file, advice) in files.iter_mut().zip(advice) {
        file.findings.extend(advice);
        file.findings.sort_by(|a, b| (a.place, a.severity, &a.field).cmp(&(b.place, b.severity, &b.field)));
    }
    let any = files.iter().any(|file| !file.findings.is_empty() || file.documents.iter().any(|document| document.ours));
    if let Some(first) = files.first_mut().filter(|_| !any) {
        first.findings.push(Finding {
            place: Place { line: 1, column: 1 },
            field: String::new(),
            severity: Severity::Warning,
            rule: "nothing",
            message: "there is no ServiceRelease in what was given".to_owned(),
        });
    }
    files
}

/// What will surprise in a file, by itself or together with the others.
fn advice_for(file: &File, files: &[File]) -> Vec<Finding> {
    let all = || files.iter().flat_map(|file| &file.documents);
    let releases: Vec<&ServiceRelease> = all().filter_map(|document| document.release.as_deref()).collect();
    let nodes: Vec<&Node> = all().map(|document| &document.node).collect();
    let templates: Vec<(&Node, &AnalysisTemplate)> =
        all().filter_map(|document| Some((&document.node, document.template.as_deref()?))).collect();
    let mut found = Vec::new();
    for document in &file.documents {
        match &document.release {
            Some(release) => {
                advice::of_release(release, &document.node, &nodes, &mut found);
                advice::of_templates(release, &document.node, &templates, &mut found);
            }
            None => advice::of_workload(&document.node, &releases, &mut found),
        }
    }
    found
}

fn parse(path: String, text: &str) -> File {
    let mut findings = Vec::new();
    let mut documents = Vec::new();
    match yaml::parse(text) {
        Ok(nodes) => {
            for node in nodes.into_iter().flat_map(unpack) {
                let kind = rules::examine(&node, &mut findings);
                let ours = !matches!(kind, rules::Kind::Other);
                let (release, template) = match kind {
                    rules::Kind::Release(release) => (release, None),
                    rules::Kind::Template(template) => (None, template),
                    rules::Kind::Ours | rules::Kind::Other => (None, None),
                };
                documents.push(Document { node, release, template, ours });
            }
        }
        Err(unreadable) => {
            let hint = if text.contains("{{") {
                "; a template has to be rendered first: helm template ... | kubectl srel lint -f -"
            } else {
                ""
            };
            findings.push(Finding {
                place: unreadable.place,
                field: String::new(),
                severity: Severity::Error,
                rule: "yaml",
                message: format!("{}{hint}", unreadable.message),
            });
        }
    }
    File { path, findings, documents }
}

/// The items of a List, else the document itself.
fn unpack(node: Node) -> Vec<Node> {
    let is_list = node.get("kind").and_then(Node::text).is_some_and(|kind| kind == "List");
    match node.get("items").filter(|_| is_list) {
        Some(items) => items.items().to_vec(),
        None => vec![node],
    }
}

/// The files that are meant; of directories those that kubectl would read.
fn sources(paths: &[PathBuf], recursive: bool) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            walk(path, recursive, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn walk(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: directory.display().to_string(), source };
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        let known =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if path.is_dir() {
            if recursive {
                walk(&path, recursive, files)?;
            }
        } else if known {
            files.push(path);
        }
    }
    Ok(())
}

/// The text of a file; of `-`, standard input.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::File { path: path.display().to_string(), source };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
