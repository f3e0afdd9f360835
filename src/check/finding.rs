//! What `check` finds: something to change, or to know.

use std::ops::Range;

use serde::Serialize;

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
    /// What must be uploaded before, or Unit refuses it.
    pub needs: Option<Upload>,
}

/// What Unit has by a name of its own, apart from its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    Certificate(String),
    Script(String),
}

impl Upload {
    /// The file that the image's entrypoint uploads it from.
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

/// A JSON Pointer (RFC 6901): `/`, `~` and all.
pub(super) fn pointer<'n>(steps: impl IntoIterator<Item = &'n str>) -> String {
    steps.into_iter().fold(String::new(), |all, step| all + "/" + &step.replace('~', "~0").replace('/', "~1"))
}

/// What was found in a text, and what of it must not be shown.
#[derive(Debug)]
pub struct Checked {
    /// In the order of the text.
    pub findings: Vec<Finding>,
    pub(super) hidden: Vec<Range<usize>>,
}
