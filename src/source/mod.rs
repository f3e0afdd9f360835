//! repo@ref → a checkout: which commit is meant, and its files.

mod directory;
mod git;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::blocking;
use crate::error::{Error, Result};
use crate::plan::{RESERVED, Source};
use crate::retry::Deadline;
use crate::size::Size;

pub use git::Ssh;

/// What the reference names right now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revision {
    /// 40 hexadecimal digits of a commit, or `sha256:…` over a local directory's contents.
    pub commit: String,
    /// The full name of the reference (`refs/heads/main`; `HEAD` where the remote does not tell
    /// which branch that is); none for a bare commit or a directory.
    pub reference: Option<String>,
}

/// A source whose reference has been resolved, ready to be checked out.
#[derive(Debug)]
pub struct Resolved {
    pub revision: Revision,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Git(git::Git),
    Directory(PathBuf),
}

/// What a checkout wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkout {
    /// Files and symlinks.
    pub files: u64,
    /// The files' contents.
    pub bytes: u64,
}

/// Finds out which revision is meant. One request for Git over HTTP; a directory is read once, up to
/// `limit`.
pub async fn resolve(source: &Source, limit: Size, deadline: Deadline) -> Result<Resolved> {
    match source {
        Source::Git(source) => {
            let git = git::Git::resolve(source, deadline).await?;
            Ok(Resolved { revision: git.revision(), origin: Origin::Git(git) })
        }
        Source::Dir(path) => {
            let path = path.clone();
            let from = path.clone();
            let (commit, _) = blocking(move || directory::digest(&from, limit, deadline)).await?;
            Ok(Resolved { revision: Revision { commit, reference: None }, origin: Origin::Directory(path) })
        }
    }
}

impl Resolved {
    /// Writes the revision's files to `tree`, which must not exist yet. `scratch` is an existing
    /// empty directory on the same file system for what the checkout needs meanwhile (the object
    /// database); the caller removes it. What would unpack to more than `limit` is refused.
    ///
    /// A reference that moves meanwhile is looked up once more: `revision` is then the new one.
    pub async fn checkout(&mut self, tree: &Path, scratch: &Path, limit: Size, deadline: Deadline) -> Result<Checkout> {
        match &mut self.origin {
            Origin::Git(git) => {
                let checkout = git.checkout(tree, scratch, limit, deadline).await;
                self.revision = git.revision();
                checkout
            }
            Origin::Directory(path) => {
                let (path, tree, commit) = (path.clone(), tree.to_owned(), self.revision.commit.clone());
                blocking(move || directory::copy(&path, &tree, &commit, limit, deadline)).await
            }
        }
    }
}

/// More than there may be on the volume; `what` failed as `things` (`the files come to`) so many
/// bytes or more.
fn too_large(what: &str, things: &str, bytes: u64, limit: Size) -> Error {
    Error::source(what)
        .because(format!("{things} {} or more, and the limit is {limit}", Size(bytes)))
        .hint("if that is what it should be, raise --size-limit, and the volume's size with it")
}

/// What a repository or directory gets that uses podstrap's own name.
fn reserved(what: String) -> Error {
    Error::source(what)
        .because("the name is podstrap's own in the directory that it publishes")
        .hint(format!("rename {RESERVED} in the source"))
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// A digest of a directory's contents, as [`Revision::commit`] has it: `sha256:…`; and whether it has
/// symbolic links, whose targets are in it only by name.
pub(crate) fn digest(dir: &Path, deadline: Deadline) -> Result<(String, bool)> {
    // It is only read.
    directory::digest(dir, Size(u64::MAX), deadline)
}

/// What to do about the deadline.
const SLOW: &str = "raise --timeout, or find out what is slow with --log-level debug";

/// The deadline has passed in the middle of work on files.
fn late(what: &str, deadline: Deadline) -> Error {
    let (elapsed, limit) = (deadline.elapsed().as_secs_f64(), humantime::format_duration(deadline.limit()));
    Error::source(what).because(format!("not done after {elapsed:.1} s (--timeout {limit})")).hint(SLOW)
}

#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::git::fuzzing::*;
}
