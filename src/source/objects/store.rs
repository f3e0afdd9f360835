//! The objects of a commit, in libgit2's repository or in a pack.

use std::collections::HashSet;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Odb, OdbObject, Oid};

use crate::error::{Error, Result};
use crate::files;
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::objects::entry::{Entry, FileKind};
use crate::source::objects::pack::Pack;
use crate::source::objects::repository::{failure, index};

const FSCK: &str = "check the repository on its server with git fsck, or choose another commit with --ref";

/// The objects that a server or a repository on this machine gave.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// libgit2's repository.
    Repository(PathBuf),
    /// A pack, and a path for libgit2's repository.
    Pack(Box<Pack>, PathBuf),
}

impl Fetched {
    /// A repository with the objects, for libgit2.
    pub(crate) fn repository(&self, deadline: Deadline, what: &str) -> Result<PathBuf> {
        match self {
            Self::Repository(path) => Ok(path.clone()),
            Self::Pack(pack, path) => {
                index(pack.path(), path, deadline, what)?;
                Ok(path.clone())
            }
        }
    }

    /// Space of the packs on the volume, in bytes.
    pub(crate) fn occupied(&self) -> Result<u64> {
        match self {
            Self::Repository(path) => {
                let packs = path.join("objects/pack");
                let mut bytes = 0;
                for name in files::names(&packs)? {
                    bytes += files::metadata(&packs.join(name))?.map_or(0, |meta| Size::occupied(meta.len()));
                }
                Ok(bytes)
            }
            Self::Pack(pack, _) => Ok(Size::occupied(pack.bytes())),
        }
    }
}

/// The objects of a commit, and the context of their checkout.
pub(crate) struct Objects<'a> {
    pub(crate) store: Store<'a>,
    /// The failed operation, for messages.
    pub(crate) what: &'a str,
    pub(crate) deadline: Deadline,
}

pub(crate) enum Store<'a> {
    Libgit2(Odb<'a>),
    Pack(&'a Pack),
}

/// The contents of an object.
pub(crate) enum Contents<'a> {
    Libgit2(OdbObject<'a>),
    Kept(&'a [u8]),
    Own(Vec<u8>),
}

impl Deref for Contents<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Libgit2(object) => object.data(),
            Self::Kept(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl Objects<'_> {
    /// The size of an object in bytes, and its kind. `None` if the object is missing.
    pub(crate) fn known(&self, id: Oid) -> Result<Option<(u64, ObjectType)>> {
        match &self.store {
            Store::Libgit2(odb) => match odb.read_header(id) {
                Ok((size, kind)) => Ok(Some((size as u64, kind))),
                Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
                Err(error) => Err(self.failed(&error)),
            },
            Store::Pack(pack) => Ok(pack.header(id)),
        }
    }

    /// Like [`known`](Self::known), but a missing object is an error.
    pub(crate) fn header(&self, id: Oid) -> Result<(u64, ObjectType)> {
        self.known(id)?.ok_or_else(|| self.missing(id))
    }

    /// Reads a whole object.
    pub(crate) fn read(&self, id: Oid) -> Result<Contents<'_>> {
        match &self.store {
            Store::Libgit2(odb) => odb.read(id).map(Contents::Libgit2).map_err(|error| self.failed(&error)),
            Store::Pack(pack) => match pack.kept(id) {
                Some(bytes) => Ok(Contents::Kept(bytes)),
                None => pack.read(id, self.what, self.deadline)?.map(Contents::Own).ok_or_else(|| self.missing(id)),
            },
        }
    }

    /// Reads a directory.
    pub(crate) fn directory(&self, id: Oid) -> Result<Contents<'_>> {
        match self.header(id)? {
            (_, ObjectType::Tree) => self.read(id),
            (_, kind) => Err(Error::source(self.what).because(format!("{id} is a {kind}, not a directory"))),
        }
    }

    /// The entries of a directory.
    pub(crate) fn entries(&self, id: Oid) -> Result<Vec<(Vec<u8>, Oid, FileKind)>> {
        let contents = self.directory(id)?;
        let entries = Entry::all(&contents).map(|entry| entry.ok_or_else(|| self.damaged(id)));
        entries.map(|entry| entry.map(|Entry { name, id, kind }| (name.to_owned(), id, kind))).collect()
    }

    /// Visits the contents of files, each once and in any order. A pack calls `visit` in several threads.
    pub(crate) fn each(&self, wanted: &HashSet<Oid>, visit: impl Fn(Oid, &[u8]) -> Result<()> + Sync) -> Result<()> {
        match &self.store {
            Store::Libgit2(_) => wanted.iter().try_for_each(|id| visit(*id, &self.read(*id)?)),
            Store::Pack(pack) => pack.each(wanted, self.what, self.deadline, visit),
        }
    }

    /// The entry at a path below a directory, if there is one.
    pub(crate) fn find(&self, directory: Oid, path: &Path) -> Result<Option<(Oid, FileKind)>> {
        let mut at = (directory, FileKind::Directory);
        for name in path {
            if at.1 != FileKind::Directory {
                return Ok(None);
            }
            let Some(entry) = self.entries(at.0)?.into_iter().find(|(found, ..)| *found == name.as_bytes()) else {
                return Ok(None);
            };
            at = (entry.1, entry.2);
        }
        Ok(Some(at))
    }

    pub(crate) fn failed(&self, error: &git2::Error) -> Error {
        failure(self.what, error).permanent()
    }

    pub(crate) fn damaged(&self, id: Oid) -> Error {
        Error::source(self.what).because(format!("object {id} of the repository is damaged")).hint(FSCK)
    }

    fn missing(&self, id: Oid) -> Error {
        Error::source(self.what).because(format!("object {id} is missing from the repository")).hint(FSCK)
    }
}
