//! Git LFS: files of a hundred bytes, pointers, that stand for contents stored elsewhere.
//!
//! For a Git repository, podstrap fetches the contents from its LFS server. Other sources have no such server: a tree
//! with pointers is incomplete there.
//!
//! | file | purpose |
//! |---|---|
//! | pointer | the text of a pointer |
//! | endpoint | `.lfsconfig`, and the address of the server |
//! | batch | asks the server where the contents are |
//! | contents | writes contents to the tree, and verifies them |
//! | fetch | from pointers to contents: counts, copies, downloads |

mod batch;
mod contents;
mod endpoint;
mod fetch;
mod pointer;

use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::files::{self, WRITTEN};
use crate::tree::few;
use crate::walk::{WalkError, walk};

pub(crate) use endpoint::{Config, FILE, read};
pub(crate) use fetch::{Place, fetch};
pub(crate) use pointer::{LONGEST, Pointer, parse};

/// Searches a whole tree for pointers, for a source that has no LFS server. Pointers are an error, or a warning if they
/// are allowed.
pub(crate) fn judge_tree(source: &str, tree: &Path, allowed: bool) -> Result<()> {
    let pointers = find(tree)?;
    if pointers.is_empty() {
        return Ok(());
    }
    if allowed {
        warn(&pointers);
        return Ok(());
    }
    Err(Error::source(format!("{source} is incomplete"))
        .because(format!("{}, and this kind of source has no LFS server: {}", are(pointers.len()), few(&pointers)))
        .hint("give the Git repository with --repo: podstrap fetches the contents from its LFS server")
        .hint("or put the contents into the source, for example with git lfs pull")
        .hint("use --lfs off if the app does not need them"))
}

/// Reports pointers that are published as they are.
pub(crate) fn warn(pointers: &[PathBuf]) {
    tracing::warn!("{}: {}", are(pointers.len()), few(pointers));
}

fn are(pointers: usize) -> String {
    match pointers {
        1 => "1 file is only a Git LFS pointer".to_owned(),
        count => format!("{count} files are only Git LFS pointers"),
    }
}

/// The paths of the pointers in a directory, relative to it.
fn find(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in walk(tree) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if entry.is_file() && entry.metadata().map_err(WalkError::on_volume)?.len() <= LONGEST {
            let text = files::read(&entry.path, WRITTEN);
            let text = text.on_volume(|| format!("cannot read {}", entry.path.display()))?;
            if parse(&text).is_some() {
                found.push(entry.name);
            }
        }
    }
    Ok(found)
}

/// Neither parser panics, whatever a repository contains.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    pointer::fuzz(data);
    endpoint::fuzz(data);
}
