//! A failed installation and the output of its engine.

use std::fmt;

use super::phrases::{self, Marks};
use crate::retry::Deadline;
use crate::venv::settings::Settings;

/// A failed installation.
#[derive(Debug)]
pub(in crate::venv) struct Failed<'a> {
    /// `uv 0.13.9`, `pip 24.2`
    pub(in crate::venv) engine: &'a str,
    pub(in crate::venv) status: String,
    pub(in crate::venv) stderr: &'a str,
    /// `3.13.1`
    pub(in crate::venv) python: &'a str,
    /// The tags that a wheel needs: `cp313 manylinux x86_64`.
    pub(in crate::venv) platform: &'a str,
    /// The environment is for another Python or platform.
    pub(in crate::venv) elsewhere: bool,
    pub(in crate::venv) settings: &'a Settings,
    pub(in crate::venv) deadline: Deadline,
}

impl Failed<'_> {
    pub(super) fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.stderr.contains(phrase))
    }

    /// The text between the first of these marks that the output contains.
    pub(super) fn named(&self, marks: &[Marks]) -> Option<&str> {
        marks.iter().find_map(|(before, after)| {
            let rest = self.stderr.split_once(before)?.1;
            Some(&rest[..rest.find(after).unwrap_or(rest.len())])
        })
    }

    /// The first URL in the output, or the first index.
    pub(super) fn url(&self) -> Option<&str> {
        let named = self
            .stderr
            .find("http")
            .map(|at| &self.stderr[at..])
            .filter(|text| text.starts_with("http://") || text.starts_with("https://"));
        let end = |text: &str| text.find([' ', ')', '\n', '`', '\'', '"', ',']).unwrap_or(text.len());
        named.map(|text| text[..end(text)].trim_end_matches(':')).or_else(|| self.settings.indexes().first().copied())
    }

    /// The requirement that was not found.
    pub(super) fn sought(&self) -> Requirement<'_> {
        Requirement(self.named(phrases::SOUGHT).and_then(|text| text.split(" (from").next()).map(str::trim))
    }
}

/// A requirement, if the output names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requirement<'a>(pub(super) Option<&'a str>);

impl fmt::Display for Requirement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.unwrap_or("a requirement"))
    }
}
