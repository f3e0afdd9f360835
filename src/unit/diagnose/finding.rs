//! What a suspect reports.

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::unit) struct Finding {
    pub(in crate::unit) why: String,
    pub(in crate::unit) excerpt: Option<String>,
    pub(in crate::unit) hint: String,
}

impl Finding {
    pub(super) fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into(), excerpt: None }
    }
}
