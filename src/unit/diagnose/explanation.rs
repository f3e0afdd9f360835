//! The report of a suspect.

/// The cause of a failure.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    pub why: String,
    pub excerpt: Option<String>,
    pub hint: String,
}

impl Explanation {
    pub(super) fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into(), excerpt: None }
    }
}
