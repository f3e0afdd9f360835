//! Pointers of Git LFS: files of a hundred bytes that stand for contents stored elsewhere. podstrap does not
//! fetch these contents, so a tree with pointers is incomplete, whatever its source.

use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::files::{self, WRITTEN};
use crate::tree::few;
use crate::walk::{WalkError, walk};

/// The start of a pointer, and its greatest length in bytes (git-lfs, docs/spec.md).
const START: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
pub(crate) const LONGEST: u64 = 1024;

pub(crate) fn is_pointer(contents: &[u8]) -> bool {
    contents.len() as u64 <= LONGEST && contents.starts_with(START)
}

/// The paths of the pointers in a directory, relative to it.
pub(crate) fn find(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in walk(tree) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if entry.is_file()
            && entry.metadata().map_err(WalkError::on_volume)?.len() <= LONGEST
            && is_pointer(
                &files::read(&entry.path, WRITTEN).on_volume(|| format!("cannot read {}", entry.path.display()))?,
            )
        {
            found.push(entry.name);
        }
    }
    Ok(found)
}

/// Searches a whole tree for pointers, for a source whose writer does not detect them.
pub(crate) fn judge_tree(source: &str, tree: &Path, allowed: bool) -> Result<()> {
    judge(&format!("{source} is incomplete"), &find(tree)?, allowed)
}

/// Pointers are an error of `what`, or a warning if they are allowed.
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
        .because(format!("{are}, and podstrap does not fetch the contents: {}", few(pointers)))
        .hint("mount or download these files in another way, or store them in the source itself")
        .hint("use --allow-lfs-pointers if the app does not need them"))
}
