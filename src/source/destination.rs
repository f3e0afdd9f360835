//! Where a source's files go, and how much of it is wanted.

use std::path::Path;

use crate::plan::TreePath;
use crate::size::Size;

#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    /// Does not exist yet, or is an empty directory.
    pub(crate) tree: &'a Path,
    /// An existing directory on the same file system for what is needed meanwhile.
    pub(crate) scratch: &'a Path,
    /// This directory of the source becomes the tree.
    pub(crate) subdir: Option<&'a TreePath>,
    /// What the files may come to.
    pub(crate) limit: Size,
    /// Whether Git LFS pointers may be published as they are.
    pub(crate) lfs_pointers: bool,
}
