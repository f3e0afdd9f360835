//! `podstrap check`: a Unit configuration read without a Unit.
//!
//! ```text
//! bytes ──▶ config::json ──▶ validate ──▶ tree ──▶ findings, each with its line
//!           Unit's JSON    what Unit     what the tree
//!                          refuses       does not have
//! ```
//!
//! Errors that Unit itself answers with 400 are marked ([`Finding::refused`]); the others are what it
//! takes and then fails on. Where only a running Unit can know, there is a warning.

mod python;
mod schema;
mod text;
mod tree;
mod validate;

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::json::{self, Fault, Flaw};
use crate::config::position::{caret, line_and_column, without_bom};
use crate::config::{Config, read_config};
use crate::error::{Error, Kind, Result};
use crate::plan;
use crate::redact;
use crate::size::count;

use crate::plan::Tree;

/// So many of a file's findings are shown; nobody reads more, and each shows its line.
const SHOWN: usize = 100;

/// Bytes of a line to either side of a finding.
const AROUND: usize = 1024;

/// Whether the configuration can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// Something to change, or to know.
#[derive(Debug, Clone)]
pub struct Finding {
    pub severity: Severity,
    /// Unit answers it with 400.
    pub refused: bool,
    /// What it is about, in a word: `unknown-member`, `pass`, …
    pub rule: &'static str,
    /// Where it stands, in bytes behind a byte order mark.
    pub offset: usize,
    /// The member, as a JSON Pointer (RFC 6901).
    pub pointer: String,
    pub message: String,
    pub hint: Option<String>,
    /// The certificate or script that it is about.
    pub names: Option<String>,
}

impl Finding {
    fn new(severity: Severity, rule: &'static str, offset: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity, refused: false, rule, offset, pointer: String::new(), message, hint: None, names: None }
    }
    fn error(rule: &'static str, offset: usize, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, rule, offset, message)
    }
    fn warning(rule: &'static str, offset: usize, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, rule, offset, message)
    }
}

/// A JSON Pointer (RFC 6901): `/`, `~` and all.
fn pointer<'n>(steps: impl IntoIterator<Item = &'n str>) -> String {
    steps.into_iter().fold(String::new(), |all, step| all + "/" + &step.replace('~', "~0").replace('/', "~1"))
}

/// What was found in a text, and what of it must not be shown.
#[derive(Debug)]
pub struct Checked {
    /// In the order of the text.
    pub findings: Vec<Finding>,
    hidden: Vec<Range<usize>>,
}

/// Looks at a configuration, and at the tree if there is one.
pub fn check(bytes: &[u8], tree: Option<&Tree>) -> Checked {
    let document = match json::parse(bytes) {
        Ok(document) => document,
        Err(flaw) => return Checked { findings: vec![flawed(bytes, &flaw)], hidden: flaw.hidden },
    };
    let mut findings = validate::validate(&document);
    if let Some(tree) = tree {
        findings.extend(tree::look(&document, tree));
    }
    findings.sort_by_key(|finding| finding.offset);
    Checked { findings, hidden: document.hidden }
}

fn flawed(bytes: &[u8], flaw: &Flaw) -> Finding {
    let text = without_bom(bytes);
    let rest = &text[flaw.offset.min(text.len())..];
    let hint = match flaw.fault {
        Fault::Duplicate(first) => {
            let (line, column) = line_and_column(text, first);
            Some(format!("the first one is at {line}:{column}"))
        }
        Fault::TooDeep => Some("Unit itself has no bound, and crashes on a deep text".to_owned()),
        Fault::AfterEnd | Fault::Name | Fault::Value | Fault::CommaOrBrace | Fault::CommaOrBracket
            if rest.starts_with(b"//") || rest.starts_with(b"/*") =>
        {
            Some("the comment does not end: // ends with a line feed, /* with */".to_owned())
        }
        Fault::Value | Fault::Name if rest.starts_with(b"#") => Some("comments begin with // or /*".to_owned()),
        Fault::Value | Fault::Name if rest.starts_with(b"'") => Some("strings stand in double quotes".to_owned()),
        // The first brace is an object's.
        Fault::Name if rest.starts_with(b"{") || rest.starts_with(b"%") => {
            Some("the template was not rendered: the file still has its placeholders".to_owned())
        }
        Fault::Control if rest.starts_with(b"\n") || rest.starts_with(b"\r") => {
            Some("the string does not end on its line: is its closing quote missing?".to_owned())
        }
        Fault::Value | Fault::Name if rest.starts_with(b",") => {
            Some("one trailing comma is fine, and no more".to_owned())
        }
        _ => None,
    };
    let finding = Finding::error("json", flaw.offset, format!("invalid JSON: {}", flaw.fault));
    Finding { refused: true, hint, ..finding }
}

/// One finding as `--format json` has it. The names are a contract: docs/check.md lists them.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    file: String,
    line: usize,
    column: usize,
    pointer: &'a str,
    severity: Severity,
    refused: bool,
    rule: &'static str,
    message: String,
    hint: Option<String>,
    #[serde(skip)]
    excerpt: String,
}

/// Checks the files, prints what was found to stdout, and fails if there is an error.
///
/// # Errors
/// `Usage`: a file cannot be read. `UnitRefused`: one has errors.
pub fn run(plan: &plan::Check) -> Result<()> {
    if let Some(tree) = &plan.tree
        && !tree.dir.is_dir()
    {
        return Err(Error::usage(format!("--tree {} is no directory", tree.dir.display()))
            .hint("name the tree as it is published, or a checkout"));
    }
    let (files, others) = files(&plan.config)?;
    let mut all = Vec::new();
    let mut text = String::new();
    let (mut errors, mut warnings) = (0, 0);
    for path in &files {
        let config = read_config(path)?;
        let mut checked = check(&config.bytes, plan.tree.as_ref());
        // The image's entrypoint uploads what lies beside before the configuration.
        checked.findings.retain(|finding| match (finding.rule, &finding.names) {
            ("certificate", Some(name)) => !others.contains(&format!("{name}.pem")),
            ("script", Some(name)) => !others.contains(&format!("{name}.js")),
            _ => true,
        });
        let number =
            |severity| checked.findings.iter().filter(|finding| finding.severity == severity).map(|_| 1).sum::<u64>();
        errors += number(Severity::Error);
        warnings += number(Severity::Warning);
        let shown: Vec<_> =
            checked.findings.iter().take(SHOWN).map(|finding| shown(&config, &checked, finding)).collect();
        let more = checked.findings.len() - shown.len();
        if plan.json {
            if more > 0 {
                tracing::warn!("{}: {more} more are not shown", path.display());
            }
            for finding in &shown {
                let value = serde_json::to_value(finding);
                all.push(value.map_err(|error| Error::internal("cannot write a finding").because(error))?);
            }
        } else {
            for finding in &shown {
                told(&mut text, finding);
            }
            if more > 0 {
                let _ = writeln!(text, "{}: {more} more are not shown", path.display());
            }
        }
    }
    let counted = format!("{}, {}", count(errors, "error"), count(warnings, "warning"));
    let looked = if plan.tree.is_some() { "" } else { "; no path was looked up: that needs --tree" };
    if plan.json {
        text = serde_json::to_string_pretty(&all)
            .map_err(|error| Error::internal("cannot write the findings").because(error))?;
        text.push('\n');
    } else {
        let what = if let [path] = &files[..] {
            path.display().to_string()
        } else {
            count(files.iter().map(|_| 1).sum(), "file")
        };
        let _ = writeln!(text, "{what}: {counted}{looked}");
    }
    std::io::stdout()
        .write_all(redact::clean(&text).as_bytes())
        .map_err(|error| Error::internal("cannot print the findings").because(error))?;
    if errors == 0 {
        return Ok(());
    }
    Err(Error::new(Kind::UnitRefused, format!("{} is not fit for Unit: {counted}", plan.config.display()))
        .hint("each is on stdout, with its line"))
}

/// The file itself, or the directory's `*.json` in order; and the names of all that lie there.
fn files(path: &Path) -> Result<(Vec<PathBuf>, Vec<String>)> {
    if !path.is_dir() {
        return Ok((vec![path.to_owned()], Vec::new()));
    }
    let listing = std::fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut names = listing.map_err(|error| Error::usage(format!("cannot read {}", path.display())).because(error))?;
    names.sort();
    let json = |name: &&String| Path::new(name).extension().is_some_and(|extension| extension == "json");
    let files: Vec<_> = names.iter().filter(json).map(|name| path.join(name)).collect();
    if files.is_empty() {
        return Err(Error::usage(format!("there is no *.json in {}", path.display()))
            .hint("name the configuration's file, or a directory for the image's entrypoint"));
    }
    Ok((files, names))
}

fn shown<'a>(config: &Config, checked: &Checked, finding: &'a Finding) -> Shown<'a> {
    let text = without_bom(&config.bytes);
    let (line, column) = line_and_column(text, finding.offset);
    Shown {
        file: config.path.display().to_string(),
        line,
        column,
        pointer: &finding.pointer,
        severity: finding.severity,
        refused: finding.refused,
        rule: finding.rule,
        message: redact::clean(&finding.message),
        hint: finding.hint.as_deref().map(redact::clean),
        excerpt: excerpt(text, &checked.hidden, finding.offset),
    }
}

/// The line with a caret; what must not be shown is dots.
fn excerpt(text: &[u8], hidden: &[Range<usize>], offset: usize) -> String {
    let start = text[..offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let end = text[offset..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| offset + at);
    // More of a long line than `caret` shows of it, from the beginning of a character.
    let mut start = start.max(offset.saturating_sub(AROUND));
    while start < offset && matches!(text[start], 0x80..=0xbf) {
        start += 1;
    }
    let end = end.min(offset + AROUND);
    let mut line = String::new();
    let mut column = 1;
    let mut at = start;
    for chunk in text[start..end].utf8_chunks() {
        for (c, length) in chunk.valid().chars().map(|c| (c, c.len_utf8())).chain(
            // What is no UTF-8 is one character for each run, as `place` counts it.
            (!chunk.invalid().is_empty()).then_some(('\u{fffd}', chunk.invalid().len())),
        ) {
            let secret = hidden.partition_point(|range| range.end <= at);
            let secret = hidden.get(secret).is_some_and(|range| range.contains(&at));
            line.push(if secret { '*' } else { c });
            if at < offset {
                column += 1;
            }
            at += length;
        }
    }
    caret(line.as_bytes(), 1, column)
}

fn told(out: &mut String, finding: &Shown) {
    let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
    let one_line = |text: &str| text.replace('\n', "\n    ");
    let _ = writeln!(
        out,
        "{}:{}:{}: {severity}: {} [{}]",
        finding.file,
        finding.line,
        finding.column,
        one_line(&finding.message),
        finding.rule
    );
    for line in finding.excerpt.lines() {
        let _ = writeln!(out, "  | {line}");
    }
    if let Some(hint) = &finding.hint {
        let _ = writeln!(out, "hint: {}", one_line(hint));
    }
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::fuzz as check;
    pub use super::python::fuzz as python_source;
}

/// Any text gives findings that lie in it, and can be shown; the verdict on its JSON is the parser's.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let tree = Tree { dir: "/nonexistent".into(), venv: "venv".into(), final_path: None };
    let text = without_bom(data);
    let config = Config { path: "c.json".into(), bytes: data.to_vec() };
    for tree in [None, Some(&tree)] {
        let checked = check(data, tree);
        let json = checked.findings.iter().any(|finding| finding.rule == "json");
        assert_eq!(json, json::parse(data).is_err());
        if std::str::from_utf8(text).is_ok() {
            assert_eq!(json, crate::config::dialect::to_value(data).is_err());
        }
        let mut out = String::new();
        for finding in checked.findings.iter().take(SHOWN) {
            assert!(finding.offset <= text.len(), "{finding:?}");
            assert!(!finding.refused || finding.severity == Severity::Error, "{finding:?}");
            let shown = shown(&config, &checked, finding);
            assert!(shown.line >= 1 && shown.column >= 1);
            told(&mut out, &shown);
            // The pointer leads to a value, in spite of all escapes.
            if !json && let Ok(value) = crate::config::dialect::to_value(data) {
                assert!(value.pointer(&finding.pointer).is_some(), "{finding:?}");
            }
        }
        let out = redact::clean(&out);
        assert!(!out.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{out:?}");
    }
}
