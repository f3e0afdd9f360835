//! Reads the objects and entries of a commit, one by one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use git2::{Odb, Oid, Repository, Tree};

use crate::error::{Error, Result};
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::objects::failure;

/// The longest path of the kernel in bytes, including the final NUL (`PATH_MAX` in limits.h).
pub(super) const PATH_MAX: usize = 4096;
/// The most bytes of the directory objects on the path to one file: a million entries and more.
const MAX_TREES: usize = 64 << 20;

/// The objects of a commit, and the context of their checkout.
pub(super) struct Objects<'a> {
    pub(super) repo: &'a Repository,
    pub(super) odb: Odb<'a>,
    /// The failed operation, for messages.
    pub(super) what: &'a str,
    pub(super) deadline: Deadline,
}

impl Objects<'_> {
    pub(super) fn read(&self, oid: Oid) -> Result<git2::OdbObject<'_>> {
        self.odb.read(oid).map_err(|error| self.failed(&error))
    }

    pub(super) fn failed(&self, error: &git2::Error) -> Error {
        failure(self.what, error).permanent()
    }

    pub(super) fn too_long(&self) -> Error {
        Error::source(self.what)
            .because(format!("it has paths longer than the kernel's limit of {PATH_MAX} bytes"))
            .hint("reduce the depth of its directories")
    }
}

/// Walks the entries of a commit, a directory before its contents. Holds only the directories on the current
/// path in memory.
pub(super) struct Entries<'a, 'o> {
    objects: &'o Objects<'a>,
    /// Each with the size of its object, and its next entry.
    open: Vec<(Tree<'a>, usize, usize)>,
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

impl<'a, 'o> Entries<'a, 'o> {
    pub(super) fn new(objects: &'o Objects<'a>, root: &Tree<'a>) -> Result<Self> {
        let mut entries = Self { objects, open: Vec::new(), path: PathBuf::new(), beside: false };
        entries.enter(root.id())?;
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
        let Some((tree, _, next)) = self.open.last_mut() else { return Ok(None) };
        let Some(entry) = tree.get(*next) else {
            self.open.pop();
            self.path.pop();
            return Ok(Some(Step::Leave));
        };
        *next += 1;
        let name = entry.name_bytes();
        // libgit2 treats a name with a slash as a path.
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            let name = String::from_utf8_lossy(name);
            return Err(Error::source(what).because(format!("the entry name {name:?} is invalid")));
        }
        self.path.push(OsStr::from_bytes(name));
        self.beside = true;
        Ok(Some(Step::Entry { name: name.to_owned(), oid: entry.id(), kind: FileKind::of(entry.filemode_raw()) }))
    }

    /// Continues in the directory that was the last entry.
    pub(super) fn enter(&mut self, oid: Oid) -> Result<()> {
        let objects = self.objects;
        // Fail here, before another limit: nothing can be written at this depth.
        if self.path.as_os_str().len() > PATH_MAX {
            return Err(objects.too_long());
        }
        let (size, _) = objects.odb.read_header(oid).map_err(|error| objects.failed(&error))?;
        if self.open.iter().fold(size, |sum, (_, size, _)| sum.saturating_add(*size)) > MAX_TREES {
            return Err(Error::source(objects.what)
                .because(format!("its directories have more entries than fit into {}", Size(MAX_TREES as u64)))
                .hint("spread the files over more directories"));
        }
        let tree = objects.repo.find_tree(oid).map_err(|error| objects.failed(&error))?;
        self.open.push((tree, size, 0));
        self.beside = false;
        Ok(())
    }
}

/// The kind of an entry in a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Directory,
    /// Becomes an empty directory.
    Submodule,
    Link,
    Regular {
        executable: bool,
    },
}

impl FileKind {
    /// The kind of a mode in a tree, as Git reads it: any other mode is a submodule (cache.h, `canon_mode`).
    pub(super) fn of(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Link,
            0o100_000 => Self::Regular { executable: mode & 0o100 != 0 },
            _ => Self::Submodule,
        }
    }
}
