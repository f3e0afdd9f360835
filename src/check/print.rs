//! Prints findings as text or as JSON, each with its line.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::ops::Range;

use serde::Serialize;
use serde_json::Value;

use super::finding::{Checked, Finding, Severity};
use crate::config::Config;
use crate::config::position::{caret, line_and_column, without_bom};
use crate::error::{Error, Result};
use crate::redact;
use crate::size::count;

/// Bytes of a line to show on either side of a finding.
const AROUND: usize = 1024;

/// Most findings to show for each file, because each includes its line.
const SHOWN: usize = 100;

/// The findings of all files.
#[derive(Debug, Default)]
pub(super) struct Report {
    json: bool,
    /// The findings, if `json`.
    values: Vec<Value>,
    /// The findings, unless `json`.
    text: String,
    errors: u64,
    warnings: u64,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    pub(super) fn add(&mut self, config: &Config, checked: &Checked) -> Result<()> {
        for finding in &checked.findings {
            match finding.severity {
                Severity::Error => self.errors += 1,
                Severity::Warning => self.warnings += 1,
            }
        }
        for finding in checked.findings.iter().take(SHOWN).map(|finding| shown(config, &checked.hidden, finding)) {
            if self.json {
                let value = serde_json::to_value(finding);
                self.values.push(value.map_err(|error| Error::internal("cannot write a finding").because(error))?);
            } else {
                told(&mut self.text, &finding);
            }
        }
        let (path, more) = (config.path.display(), checked.findings.len().saturating_sub(SHOWN));
        match more {
            0 => {}
            _ if self.json => tracing::warn!("{path}: {more} more findings not shown"),
            _ => drop(writeln!(self.text, "{path}: {more} more findings not shown")),
        }
        Ok(())
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// `1 error, 2 warnings`
    pub(super) fn counted(&self) -> String {
        format!("{}, {}", count(self.errors, "error"), count(self.warnings, "warning"))
    }

    /// Prints everything to stdout. Text ends with a summary of `what`.
    pub(super) fn print(&self, what: &str, with_tree: bool) -> Result<()> {
        let text = if self.json {
            let values = serde_json::to_string_pretty(&self.values);
            values.map_err(|error| Error::internal("cannot write the findings").because(error))? + "\n"
        } else {
            let looked = if with_tree { "" } else { "; use --tree to check paths" };
            format!("{}{what}: {}{looked}\n", self.text, self.counted())
        };
        io::stdout()
            .write_all(redact::clean(&text).as_bytes())
            .map_err(|error| Error::internal("cannot print the findings").because(error))
    }
}

/// A finding in `--format json`. The names are a contract: docs/check.md lists them.
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

/// Adds line, column and excerpt to a finding. `hidden` are the parts of the text to hide.
fn shown<'a>(config: &Config, hidden: &[Range<usize>], finding: &'a Finding) -> Shown<'a> {
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
        excerpt: excerpt(text, hidden, finding.offset),
    }
}

/// The line with a caret. Hidden characters are `*`.
fn excerpt(text: &[u8], hidden: &[Range<usize>], offset: usize) -> String {
    let start = text[..offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let end = text[offset..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| offset + at);
    // Take more of a long line than `caret` shows, from the start of a character.
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
            // Each invalid UTF-8 sequence is one character, as in `line_and_column`.
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

/// For any finding: it lies in the text and can be printed.
#[cfg(fuzzing)]
pub(super) fn fuzz(config: &Config, checked: &Checked) {
    let text = without_bom(&config.bytes);
    let mut out = String::new();
    for finding in checked.findings.iter().take(SHOWN) {
        assert!(finding.offset <= text.len(), "{finding:?}");
        let shown = shown(config, &checked.hidden, finding);
        assert!(shown.line >= 1 && shown.column >= 1);
        told(&mut out, &shown);
    }
    let out = redact::clean(&out);
    assert!(!out.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{out:?}");
}
