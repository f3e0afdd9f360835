//! The destination of a source's files.

use std::path::Path;

use crate::plan::TreePath;
use crate::size::Size;

#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    /// Does not exist yet, or is an empty directory.
    pub(crate) tree: &'a Path,
    /// An existing directory on the same file system for temporary files.
    pub(crate) scratch: &'a Path,
    /// The directory of the source that becomes the tree.
    pub(crate) subdir: Option<&'a TreePath>,
    /// The largest size of the files.
    pub(crate) limit: Size,
    /// Publish Git LFS pointer files instead of their contents.
    pub(crate) lfs_pointers: bool,
    pub(crate) contents: Contents<'a>,
}

/// Where the contents of Git LFS come from.
#[derive(Debug, Clone, Copy)]
pub enum Contents<'a> {
    /// The server, or a tree that may have some of them at the same paths.
    Fetch(Option<&'a Path>),
    /// Nowhere: podstrap only asks the server for its links to them.
    Ask,
}

impl<'a> Contents<'a> {
    /// The tree that may have some of them.
    pub(crate) fn earlier(self) -> Option<&'a Path> {
        match self {
            Self::Fetch(earlier) => earlier,
            Self::Ask => None,
        }
    }
}
