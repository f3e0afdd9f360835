//! A commit as it is stored: its objects, and its entries one by one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use git2::{Odb, Oid, Repository, Tree};

use crate::error::{Error, Result};
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::objects::failure;

/// The longest path that the kernel takes, the NUL at its end included (`PATH_MAX` in limits.h).
pub(super) const PATH_MAX: usize = 4096;
/// What the directories on the way to one file may take as objects: a million entries and more.
const MAX_TREES: usize = 64 << 20;

/// A commit's objects, and what is being done with them.
pub(super) struct Objects<'a> {
    pub(super) repo: &'a Repository,
    pub(super) odb: Odb<'a>,
    /// In messages.
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
            .because(format!("it has paths that are longer than the {PATH_MAX} bytes of the kernel's limit"))
            .hint("nest its directories less deeply")
    }
}

/// Goes through a commit's entries, a directory before what is in it. Its memory is that of the
/// directories on the way to where it is.
pub(super) struct Entries<'a, 'o> {
    objects: &'o Objects<'a>,
    /// Each with its size as an object, and its next entry.
    open: Vec<(Tree<'a>, usize, usize)>,
    /// Of the last entry, in the tree.
    pub(super) path: PathBuf,
    /// Whether that entry was not entered: the next one takes its place in the path.
    beside: bool,
}

pub(super) enum Step {
    Entry {
        name: Vec<u8>,
        oid: Oid,
        kind: FileKind,
    },
    /// All of a directory has been seen.
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
        // libgit2 would take a name with a slash for a path.
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            let name = String::from_utf8_lossy(name);
            return Err(Error::source(what).because(format!("an entry is named {name:?}, which is no name")));
        }
        self.path.push(OsStr::from_bytes(name));
        self.beside = true;
        Ok(Some(Step::Entry { name: name.to_owned(), oid: entry.id(), kind: FileKind::of(entry.filemode_raw()) }))
    }

    /// Goes on in the directory that was the last entry.
    pub(super) fn enter(&mut self, oid: Oid) -> Result<()> {
        let objects = self.objects;
        // As deep as nothing can be written, before the limit of anything else is reached.
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

/// What an entry of a tree is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Directory,
    /// Stays an empty directory.
    Submodule,
    Link,
    Regular {
        executable: bool,
    },
}

impl FileKind {
    /// Of a mode as a tree has it, as Git takes it: what is nothing else is a submodule (cache.h,
    /// `canon_mode`).
    pub(super) fn of(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Link,
            0o100_000 => Self::Regular { executable: mode & 0o100 != 0 },
            _ => Self::Submodule,
        }
    }
}
