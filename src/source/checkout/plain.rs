//! The writer for trees without conversions: it writes blobs unchanged, in several threads, and touches every file
//! once.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use git2::Oid;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timestamps, fchmod, futimens, open, openat, utimensat};

use crate::error::{Error, IoContext, Result, volume_error};
use crate::files;
use crate::retry::Deadline;
use crate::source::checkout::entries::{Entries, Step};
use crate::source::checkout::scan::Scan;
use crate::source::checkout::settle::Settled;
use crate::source::lfs;
use crate::source::objects::{FileKind, Objects};
use crate::tree::{self, set_mode};

/// The most files or links that are written together: their paths are in memory.
pub(super) const TOGETHER: usize = if cfg!(test) { 1 << 8 } else { 1 << 16 };

/// Makes the directory for the files.
pub(super) fn make(tree: &Path) -> Result<()> {
    match std::fs::create_dir(tree) {
        // The empty directory of a submodule, or a tree that an earlier attempt could not delete.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && files::is_dir(tree)? => {
            if is_empty(tree)? {
                return Ok(());
            }
            tree::remove(tree).on_volume(|| format!("cannot remove {}", tree.display()))?;
            make(tree)
        }
        made => made.on_volume(|| format!("cannot create {}", tree.display())),
    }
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(files::names(dir)?.is_empty())
}

/// Writes the files of `root` to `tree`, with Git's modes and these times; or the rest of them.
pub(super) fn write(
    objects: &Objects<'_>,
    root: Oid,
    tree: &Path,
    scan: &Scan,
    times: &Timestamps,
    begun: Option<Begun>,
) -> Result<Settled> {
    let mut begun = begun.map_or_else(|| Begun::new(tree, times), Ok)?;
    let mut entries = Entries::new(objects, root)?;
    while let Some(step) = entries.next()? {
        let Step::Entry { oid, kind, .. } = step else { continue };
        let path = &entries.path;
        match kind {
            FileKind::Directory | FileKind::Submodule => {
                begun.directory(path).map_err(|error| failed(objects.what, &tree.join(path), kind, &error))?;
            }
            FileKind::Regular { .. } if !begun.written.contains(path) => begun.add(objects, oid, path, kind)?,
            FileKind::Regular { .. } | FileKind::Link => {}
        }
        if kind == FileKind::Directory {
            entries.enter(oid)?;
        }
    }
    begun.create(objects)?;
    // Links last: until then no path below `tree` leads through one.
    if scan.links > 0 {
        begun.links(objects, root)?;
    }
    begun.finish()
}

/// A tree with some of its directories and files. Without [`finish`](Self::finish), it is deleted.
#[derive(Debug)]
pub(crate) struct Begun {
    writer: Writer,
    /// In the tree, and a directory before those in it.
    directories: Vec<PathBuf>,
    /// The directories and files that were there before the whole commit.
    written: HashSet<PathBuf>,
    missing: Missing,
    settled: Settled,
    is_finished: bool,
}

/// Files or links that are not written yet, by their contents.
#[derive(Debug, Default)]
struct Missing {
    by_contents: HashMap<Oid, Vec<Place>>,
    count: usize,
}

/// A path in the tree.
pub(super) type Place = (PathBuf, FileKind);

impl Begun {
    pub(super) fn new(tree: &Path, times: &Timestamps) -> Result<Self> {
        make(tree)?;
        Ok(Self {
            writer: Writer { tree: tree.to_owned(), times: times.clone() },
            directories: Vec::new(),
            written: HashSet::new(),
            missing: Missing::default(),
            settled: Settled::default(),
            is_finished: false,
        })
    }

    /// Makes a directory, unless an earlier call did.
    pub(super) fn directory(&mut self, path: &Path) -> io::Result<()> {
        if self.written.contains(path) {
            return Ok(());
        }
        let whole = self.writer.tree.join(path);
        std::fs::create_dir(&whole)?;
        set_mode(&whole, 0o755)?;
        self.directories.push(path.to_owned());
        Ok(())
    }

    /// Makes a directory before the whole commit is here.
    pub(super) fn early_directory(&mut self, path: &Path) -> io::Result<()> {
        self.directory(path)?;
        self.written.insert(path.to_owned());
        Ok(())
    }

    /// For [`EarlyFiles::write`], in another thread.
    pub(super) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Adds files that were written before the whole commit was here.
    pub(super) fn early_files(&mut self, written: EarlyFiles) {
        self.settled = written.settled;
        self.written.extend(written.paths);
    }

    /// Adds a file or a link. Writes all of them if there are enough.
    fn add(&mut self, objects: &Objects<'_>, oid: Oid, path: &Path, kind: FileKind) -> Result<()> {
        self.missing.by_contents.entry(oid).or_default().push((path.to_owned(), kind));
        self.missing.count += 1;
        if self.missing.count == TOGETHER { self.create(objects) } else { Ok(()) }
    }

    /// Writes what is missing.
    fn create(&mut self, objects: &Objects<'_>) -> Result<()> {
        let missing = std::mem::take(&mut self.missing).by_contents;
        let wanted: HashSet<Oid> = missing.keys().copied().collect();
        let settled = Mutex::new(std::mem::take(&mut self.settled));
        objects.each(&wanted, |oid, contents| {
            let places = missing.get(&oid).map_or(&[][..], Vec::as_slice);
            self.writer
                .write(places, contents)
                .map_err(|((path, kind), error)| failed(objects.what, &self.writer.tree.join(path), *kind, &error))?;
            settled.lock().unwrap_or_else(PoisonError::into_inner).add(places, contents);
            Ok(())
        })?;
        self.settled = settled.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(())
    }

    /// Writes the links.
    fn links(&mut self, objects: &Objects<'_>, root: Oid) -> Result<()> {
        let mut entries = Entries::new(objects, root)?;
        while let Some(step) = entries.next()? {
            match step {
                Step::Entry { oid, kind: FileKind::Link, .. } => {
                    self.add(objects, oid, &entries.path, FileKind::Link)?;
                }
                Step::Entry { oid, kind: FileKind::Directory, .. } => entries.enter(oid)?,
                _ => {}
            }
        }
        self.create(objects)
    }

    fn finish(mut self) -> Result<Settled> {
        // A new entry changes the time of its directory.
        let directories = self.directories.iter().rev().map(|path| self.writer.tree.join(path));
        for path in directories.chain([self.writer.tree.clone()]) {
            set_mode(&path, 0o755)
                .and_then(|()| Ok(utimensat(CWD, &path, &self.writer.times, AtFlags::SYMLINK_NOFOLLOW)?))
                .map_err(|error| volume_error(format!("cannot set the mode and time of {}", path.display()), &error))?;
        }
        self.is_finished = true;
        let mut settled = std::mem::take(&mut self.settled);
        settled.pointers.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(settled)
    }
}

/// Writes files to a tree.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    tree: PathBuf,
    times: Timestamps,
}

/// Files that were written before the whole commit was here.
#[derive(Debug, Default)]
pub(super) struct EarlyFiles {
    settled: Settled,
    paths: Vec<PathBuf>,
    /// The directory of the last file: most files have the same one as the file before.
    dir: Option<(PathBuf, OwnedFd)>,
}

impl EarlyFiles {
    pub(super) fn write(
        &mut self,
        writer: &Writer,
        places: Vec<Place>,
        contents: &[u8],
        deadline: Deadline,
    ) -> io::Result<()> {
        for (path, kind) in &places {
            if deadline.passed() {
                return Err(ErrorKind::TimedOut.into());
            }
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(ErrorKind::InvalidFilename.into());
            };
            let dir = if let Some(dir) = self.dir.take().filter(|(last, _)| last == parent) {
                dir
            } else {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                (parent.to_owned(), open(writer.tree.join(parent), flags, Mode::empty())?)
            };
            create(&dir.1, Path::new(name), contents, *kind, &writer.times)?;
            self.dir = Some(dir);
        }
        self.settled.add(&places, contents);
        self.paths.extend(places.into_iter().map(|(path, _)| path));
        Ok(())
    }
}

impl Writer {
    fn write<'a>(&self, places: &'a [Place], contents: &[u8]) -> Result<(), (&'a Place, io::Error)> {
        places.iter().try_for_each(|place| {
            let path = self.tree.join(&place.0);
            let made = match place.1 {
                FileKind::Link => link(&path, contents, &self.times),
                kind => create(CWD, &path, contents, kind, &self.times),
            };
            made.map_err(|error| (place, error))
        })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_finished {
            // Whatever is left is deleted with the staging directory.
            let _ = tree::remove(&self.writer.tree);
        }
    }
}

impl Settled {
    /// Adds files or links with these contents.
    fn add(&mut self, places: &[Place], contents: &[u8]) {
        let regular = places.iter().filter(|(_, kind)| *kind != FileKind::Link);
        self.written.files += places.len() as u64;
        self.written.bytes += (contents.len() * regular.clone().count()) as u64;
        if let Some(pointer) = lfs::parse(contents) {
            self.pointers.extend(regular.map(|(name, _)| (name.clone(), pointer.clone())));
        }
    }
}

/// Creates one link.
fn link(path: &Path, target: &[u8], times: &Timestamps) -> io::Result<()> {
    symlink(OsStr::from_bytes(target), path)?;
    Ok(utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Writes one file. Its mode does not depend on the umask or on an ACL of its directory.
fn create(dir: impl AsFd, path: &Path, contents: &[u8], kind: FileKind, times: &Timestamps) -> io::Result<()> {
    let mode = Mode::from_raw_mode(if kind == (FileKind::Regular { executable: true }) { 0o755 } else { 0o644 });
    let mut file =
        File::from(openat(dir, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, mode)?);
    file.write_all(contents)?;
    fchmod(&file, mode)?;
    Ok(futimens(&file, times)?)
}

fn failed(what: &str, path: &Path, kind: FileKind, error: &io::Error) -> Error {
    match (error.kind(), kind) {
        // The directory is new, so only the repository itself can have created the entry.
        (ErrorKind::AlreadyExists, _) => {
            Error::source(what).because(format!("two entries are named {}", path.display()))
        }
        // An empty target, a target with a NUL, or a name or a target that is too long.
        (ErrorKind::InvalidInput | ErrorKind::InvalidFilename, _) | (ErrorKind::NotFound, FileKind::Link) => {
            Error::source(what).because(format!("{} cannot be created: {error}", path.display()))
        }
        _ => volume_error(format!("cannot write {}", path.display()), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_attempt_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for left in [None, Some(""), Some("a/b")] {
            if let Some(left) = left {
                std::fs::create_dir_all(tree.join(left)).unwrap();
            }
            make(&tree).unwrap();
            assert!(is_empty(&tree).unwrap(), "{left:?}");
        }
        std::fs::remove_dir(&tree).unwrap();
        std::fs::write(&tree, "").unwrap();
        assert!(make(&tree).is_err(), "a file is no directory");
        assert!(tree.is_file());
    }
}
