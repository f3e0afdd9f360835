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
    /// The tree of the release before, which may have some of the files of this one.
    pub(crate) earlier: Option<&'a Path>,
}
