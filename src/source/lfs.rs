//! Pointers of Git LFS: files of a hundred bytes that stand for what is kept elsewhere. podstrap does
//! not fetch it, so a tree with pointers in it is not complete, wherever it came from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::tree::few;
use crate::walk::{WalkError, walk};

/// What a pointer starts with, and the longest that one can be (git-lfs, docs/spec.md).
const START: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
pub(crate) const LONGEST: u64 = 1024;

pub(crate) fn is_pointer(contents: &[u8]) -> bool {
    contents.len() as u64 <= LONGEST && contents.starts_with(START)
}

/// The pointers in a directory, relative to it.
pub(crate) fn find(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in walk(tree) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if entry.is_file()
            && entry.metadata().map_err(WalkError::on_volume)?.len() <= LONGEST
            && is_pointer(&fs::read(&entry.path).on_volume(|| format!("cannot read {}", entry.path.display()))?)
        {
            found.push(entry.name);
        }
    }
    Ok(found)
}

/// Looks for pointers where they could not be seen on the way.
pub(crate) fn judge_tree(source: &str, tree: &Path, allowed: bool) -> Result<()> {
    judge(&format!("{source} is not complete"), &find(tree)?, allowed)
}

/// Pointers are an error of what was being done, or, if they are allowed, a warning.
pub(crate) fn judge(what: &str, pointers: &[PathBuf], allowed: bool) -> Result<()> {
    let are = match pointers.len() {
        0 => return Ok(()),
        1 => "1 file is only a Git LFS pointer".to_owned(),
        count => format!("{count} files are only Git LFS pointers"),
    };
    if allowed {
        tracing::warn!("{are}: {}", few(pointers));
        return Ok(());
    }
    Err(Error::source(what)
        .because(format!("{are}, and podstrap does not fetch what they point to: {}", few(pointers)))
        .hint("mount or download these files another way, or keep them in the source itself")
        .hint("if the app can do without them: --allow-lfs-pointers"))
}
