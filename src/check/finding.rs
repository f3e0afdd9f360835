//! The findings of `check`.

use std::ops::Range;

use serde::Serialize;

/// Whether the configuration works despite the finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// An error or a warning, with its place.
#[derive(Debug, Clone)]
pub struct Finding {
    pub severity: Severity,
    /// Unit answers 400.
    pub refused: bool,
    /// The topic: `unknown-member`, `pass`, …
    pub rule: &'static str,
    /// The offset in bytes, after a byte order mark.
    pub offset: usize,
    /// The member, as a JSON Pointer (RFC 6901).
    pub pointer: String,
    pub message: String,
    pub hint: Option<String>,
    /// The object that Unit needs first, else it refuses the configuration.
    pub needs: Option<Upload>,
}

/// A named object that Unit stores outside its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    Certificate(String),
    Script(String),
}

impl Upload {
    /// The name of the file from which the image's entrypoint uploads it.
    pub(super) fn file(&self) -> String {
        match self {
            Self::Certificate(name) => format!("{name}.pem"),
            Self::Script(name) => format!("{name}.js"),
        }
    }
}

impl Finding {
    pub(super) fn new(severity: Severity, rule: &'static str, offset: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity, refused: false, rule, offset, pointer: String::new(), message, hint: None, needs: None }
    }
    pub(super) fn error(rule: &'static str, offset: usize, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, rule, offset, message)
    }
    pub(super) fn warning(rule: &'static str, offset: usize, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, rule, offset, message)
    }
}

/// A JSON Pointer (RFC 6901), with `/` and `~` escaped.
pub(super) fn pointer<'n>(steps: impl IntoIterator<Item = &'n str>) -> String {
    steps.into_iter().fold(String::new(), |all, step| all + "/" + &step.replace('~', "~0").replace('/', "~1"))
}

/// The findings in a text, and the parts of the text to hide.
#[derive(Debug)]
pub struct Checked {
    /// Sorted by offset.
    pub findings: Vec<Finding>,
    pub(super) hidden: Vec<Range<usize>>,
}
