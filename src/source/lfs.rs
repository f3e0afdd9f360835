//! Pointers of Git LFS: files of a hundred bytes that stand for what is kept elsewhere. podstrap does
//! not fetch it, so a tree with pointers in it is not complete, wherever it came from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::source::named;

/// What a pointer starts with, and the longest that one can be (git-lfs, docs/spec.md).
const START: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
pub(super) const LONGEST: u64 = 1024;

pub(super) fn is_pointer(contents: &[u8]) -> bool {
    contents.len() as u64 <= LONGEST && contents.starts_with(START)
}

/// The pointers in a directory, relative to it.
pub(super) fn find(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![tree.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.is_file() && meta.len() <= LONGEST && is_pointer(&fs::read(entry.path())?) {
                found.extend(entry.path().strip_prefix(tree).map(Path::to_owned));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Pointers are an error of what was being done, or, if they are allowed, a warning.
pub(super) fn judge(what: &str, pointers: &[PathBuf], allowed: bool) -> Result<()> {
    let are = match pointers.len() {
        0 => return Ok(()),
        1 => "1 file is only a Git LFS pointer".to_owned(),
        count => format!("{count} files are only Git LFS pointers"),
    };
    if allowed {
        tracing::warn!("{are}: {}", named(pointers));
        return Ok(());
    }
    Err(Error::source(what)
        .because(format!("{are}, and podstrap does not fetch what they point to: {}", named(pointers)))
        .hint("mount or download these files another way, or keep them in the source itself")
        .hint("if the app can do without them: --allow-lfs-pointers"))
}
