//! repo@ref → a checkout: which commit is meant, and its files.

use std::path::Path;

use crate::error::Result;
use crate::plan::Source;
use crate::retry::Deadline;

/// What the reference names right now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revision {
    /// 40 hexadecimal digits of a commit, or `sha256:…` over a local directory's contents.
    pub commit: String,
    /// The full name of the reference (`refs/heads/main`); none for a bare commit or a directory.
    pub reference: Option<String>,
}

/// A source whose reference has been resolved, ready to be checked out.
#[derive(Debug)]
pub struct Resolved {
    pub revision: Revision,
}

/// What a checkout wrote.
#[derive(Debug, Clone, Copy)]
pub struct Checkout {
    pub files: u64,
    pub bytes: u64,
}

/// Finds out which revision is meant. One request for Git over HTTP.
pub async fn resolve(_source: &Source, _deadline: Deadline) -> Result<Resolved> {
    todo!()
}

impl Resolved {
    /// Writes the revision's files to `tree`, which must not exist yet. `scratch` is an existing
    /// empty directory on the same file system for what the checkout needs meanwhile (the object
    /// database); the caller removes it.
    pub async fn checkout(&self, _tree: &Path, _scratch: &Path, _deadline: Deadline) -> Result<Checkout> {
        todo!()
    }
}
