//! Walks a directory. podstrap has no other walk.
//!
//! It yields the directory itself, then everything below it. The order depends only on names: a directory comes
//! before its entries, and its entries are sorted by name. The walk opens a directory only after it has yielded
//! it, so the caller can change its mode first, or [leave it out](Walk::leave_out). It yields links but never
//! follows them; only the root may be a link. The walk does not recurse, so depth costs no stack, and it keeps
//! at most the innermost directory open.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Stat, statat};

use crate::error::{Error, volume_error};
use crate::files;

/// Walks through `root`. An error does not end the walk: the caller may continue without the entry.
pub fn walk(root: &Path) -> Walk {
    Walk { root: root.to_owned(), pending: Pending::First, open: Vec::new() }
}

/// The iterator of [`walk`].
#[derive(Debug)]
pub struct Walk {
    root: PathBuf,
    pending: Pending,
    /// The directories on the current path, innermost last.
    open: Vec<Level>,
}

/// A directory on the current path.
#[derive(Debug)]
struct Level {
    /// Below the root.
    name: PathBuf,
    /// The remaining entries.
    entries: std::vec::IntoIter<(OsString, FileType)>,
    /// Open until the walk enters a directory in it.
    handle: Option<Arc<OwnedFd>>,
}

#[derive(Debug)]
enum Pending {
    First,
    /// The last entry was this directory.
    Enter(PathBuf),
    Next,
}

/// An entry of a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: PathBuf,
    /// The path below the root; empty for the root itself.
    pub name: PathBuf,
    kind: FileType,
    /// Its directory, if the walk has it open.
    parent: Option<Arc<OwnedFd>>,
}

/// A directory or an entry that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct WalkError {
    pub path: PathBuf,
    #[source]
    pub error: io::Error,
}

impl Walk {
    /// Skips the contents of the directory that was yielded last.
    pub fn leave_out(&mut self) {
        self.pending = Pending::Next;
    }

    /// Continues in a directory.
    fn enter(&mut self, name: PathBuf) -> Result<(), WalkError> {
        let path = self.root.join(&name);
        let (handle, entries) = files::list_open(&path).map_err(|error| WalkError { path, error })?;
        if let Some(outer) = self.open.last_mut() {
            outer.handle = None;
        }
        self.open.push(Level { name, entries: entries.into_iter(), handle: Some(Arc::new(handle)) });
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<Entry, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match std::mem::replace(&mut self.pending, Pending::Next) {
            Pending::First => {
                let path = self.root.clone();
                match fs::metadata(&path) {
                    Ok(meta) => Entry { path, name: PathBuf::new(), kind: files::kind_of(&meta), parent: None },
                    Err(error) => return Some(Err(WalkError { path, error })),
                }
            }
            Pending::Enter(name) => match self.enter(name) {
                Ok(()) => return self.next(),
                Err(error) => return Some(Err(error)),
            },
            Pending::Next => loop {
                let level = self.open.last_mut()?;
                if let Some((name, kind)) = level.entries.next() {
                    let name = level.name.join(name);
                    break Entry { path: self.root.join(&name), name, kind, parent: level.handle.clone() };
                }
                self.open.pop();
            },
        };
        if entry.is_dir() {
            self.pending = Pending::Enter(entry.name.clone());
        }
        Some(Ok(entry))
    }
}

impl Entry {
    pub fn is_dir(&self) -> bool {
        self.kind.is_dir()
    }
    pub fn is_file(&self) -> bool {
        self.kind.is_file()
    }
    pub fn is_symlink(&self) -> bool {
        self.kind.is_symlink()
    }
    pub fn is_root(&self) -> bool {
        self.name.as_os_str().is_empty()
    }

    /// The same as [`metadata`](Self::metadata) in the system's form. Looks up only the name where the walk has the
    /// directory open.
    pub(crate) fn stat(&self) -> Result<Stat, WalkError> {
        let found = match (&self.parent, self.path.file_name()) {
            (Some(parent), Some(name)) => statat(parent, name, AtFlags::SYMLINK_NOFOLLOW),
            _ if self.is_root() => rustix::fs::stat(&self.path),
            _ => rustix::fs::lstat(&self.path),
        };
        found.map_err(|error| WalkError { path: self.path.clone(), error: error.into() })
    }

    /// Whether nothing changed it since this time. Unlike the modification time, nobody can set this one.
    pub fn is_older(&self, than: SystemTime) -> bool {
        let than = than.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metadata().is_ok_and(|meta| {
            let (seconds, nanoseconds) = (meta.ctime().unsigned_abs(), meta.ctime_nsec().unsigned_abs());
            Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or_default()) < than
        })
    }

    /// The entry's own metadata; of a link, not of its target.
    pub fn metadata(&self) -> Result<Metadata, WalkError> {
        let found = if self.is_root() { fs::metadata(&self.path) } else { fs::symlink_metadata(&self.path) };
        found.map_err(|error| WalkError { path: self.path.clone(), error })
    }
}

impl WalkError {
    /// Turns it into an error of the volume.
    pub fn on_volume(self) -> Error {
        volume_error(self.to_string(), &self.error)
    }
}

impl From<WalkError> for io::Error {
    /// Keeps the kind. The text contains the path.
    fn from(failed: WalkError) -> Self {
        Self::new(failed.error.kind(), format!("{failed}: {}", failed.error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/inner", "a", "b.d"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in ["b/inner/file", "b/x", "a/file", "c"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        symlink("b", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn a_directory_comes_before_its_entries_and_names_decide_the_order() {
        let dir = tree();
        let names: Vec<_> = walk(dir.path()).map(|entry| entry.unwrap().name).collect();
        let wanted = ["", "a", "a/file", "b", "b/inner", "b/inner/file", "b/x", "b.d", "c", "link"];
        assert_eq!(names, wanted.map(PathBuf::from));
        let link = dir.path().join("link");
        let names: Vec<_> = walk(&link).map(|entry| entry.unwrap().name).collect();
        assert_eq!(names, ["", "inner", "inner/file", "x"].map(PathBuf::from), "only the root may be a link");
    }

    #[test]
    fn a_directory_can_be_left_out_or_made_readable() {
        let dir = tree();
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o000)).unwrap();
        let (mut entries, mut names) = (walk(dir.path()), Vec::new());
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            if entry.name == Path::new("a") {
                entries.leave_out();
            }
            if entry.is_dir() {
                fs::set_permissions(&entry.path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            names.push(entry.name);
        }
        assert_eq!(names[..3], ["", "a", "b"].map(PathBuf::from));
        assert!(names.contains(&PathBuf::from("b/inner/file")));
    }

    #[test]
    fn an_error_names_its_path_and_does_not_end_the_walk() {
        let dir = tree();
        let mut entries = walk(dir.path());
        let first = entries.by_ref().find(|entry| entry.as_ref().unwrap().name == Path::new("b")).unwrap().unwrap();
        fs::remove_dir_all(&first.path).unwrap();
        let error = entries.next().unwrap().unwrap_err();
        assert_eq!((error.path, error.error.kind()), (first.path, io::ErrorKind::NotFound));
        assert_eq!(
            entries.map(|entry| entry.unwrap().name).collect::<Vec<_>>(),
            ["b.d", "c", "link"].map(PathBuf::from)
        );
        assert!(walk(&dir.path().join("none")).next().unwrap().is_err());
    }

    #[test]
    fn depth_takes_no_stack() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d/".repeat(1500));
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(walk(dir.path()).count(), 1501);
    }
}
