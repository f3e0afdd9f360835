//! Reads the entries of a commit, one by one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use git2::Oid;

use crate::error::{Error, Result};
use crate::size::Size;
use crate::source::objects::{Contents, Entry, FileKind, Objects};

/// The longest path of the kernel in bytes, including the final NUL (`PATH_MAX` in limits.h).
pub(super) const PATH_MAX: usize = 4096;
/// The most bytes of the directory objects on the path to one file: a million entries and more.
const MAX_TREES: u64 = 64 << 20;

/// Walks the entries of a commit, a directory before its contents. Holds only the directories on the current
/// path in memory.
pub(super) struct Entries<'o> {
    objects: &'o Objects<'o>,
    /// Each with its name, and the start of its next entry.
    open: Vec<(Contents<'o>, Oid, usize)>,
    /// The path of the last entry in the tree.
    pub(super) path: PathBuf,
    /// Whether the walk did not enter that entry: the next one replaces it in the path.
    beside: bool,
}

pub(super) enum Step {
    Entry {
        name: Vec<u8>,
        oid: Oid,
        kind: FileKind,
    },
    /// The end of a directory.
    Leave,
}

impl<'o> Entries<'o> {
    pub(super) fn new(objects: &'o Objects<'_>, root: Oid) -> Result<Self> {
        let mut entries = Self { objects, open: Vec::new(), path: PathBuf::new(), beside: false };
        entries.enter(root)?;
        Ok(entries)
    }

    pub(super) fn next(&mut self) -> Result<Option<Step>> {
        let Objects { what, deadline, .. } = *self.objects;
        if deadline.passed() {
            return Err(deadline.late(what));
        }
        if std::mem::take(&mut self.beside) {
            self.path.pop();
        }
        let Some((directory, id, next)) = self.open.last_mut() else { return Ok(None) };
        let mut rest = &directory[*next..];
        if rest.is_empty() {
            self.open.pop();
            self.path.pop();
            return Ok(Some(Step::Leave));
        }
        let Entry { name, id, kind } = Entry::take(&mut rest).ok_or_else(|| self.objects.damaged(*id))?;
        *next = directory.len() - rest.len();
        if !is_valid(name) {
            let name = String::from_utf8_lossy(name);
            return Err(Error::source(what).because(format!("the entry name {name:?} is invalid")));
        }
        self.path.push(OsStr::from_bytes(name));
        self.beside = true;
        Ok(Some(Step::Entry { name: name.to_owned(), oid: id, kind }))
    }

    /// Continues in the directory that was the last entry.
    pub(super) fn enter(&mut self, oid: Oid) -> Result<()> {
        let objects = self.objects;
        // Fail here, before another limit: nothing can be written at this depth.
        if self.path.as_os_str().len() > PATH_MAX {
            return Err(too_long(objects.what));
        }
        let (size, _) = objects.header(oid)?;
        let open = self.open.iter().fold(size, |sum, (directory, ..)| sum.saturating_add(directory.len() as u64));
        if open > MAX_TREES {
            return Err(Error::source(objects.what)
                .because(format!("its directories have more entries than fit into {}", Size(MAX_TREES)))
                .hint("spread the files over more directories"));
        }
        self.open.push((objects.directory(oid)?, oid, 0));
        self.beside = false;
        Ok(())
    }
}

/// Whether a name is one entry of a directory.
pub(super) fn is_valid(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/')
}

/// The error of a path that the kernel cannot open.
pub(super) fn too_long(what: &str) -> Error {
    Error::source(what)
        .because(format!("it has paths longer than the kernel's limit of {PATH_MAX} bytes"))
        .hint("reduce the depth of its directories")
}
