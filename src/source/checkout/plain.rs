//! The writer for trees without conversions: it writes blobs unchanged, in several threads, and touches every file
//! once.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use git2::Oid;
use rustix::fs::{AtFlags, CWD, Mode, Timestamps, fchmod, futimens, utimensat};

use crate::error::{Error, Result, volume_error};
use crate::source::checkout::entries::{Entries, Step};
use crate::source::checkout::scan::Scan;
use crate::source::checkout::settle::Settled;
use crate::source::lfs;
use crate::source::objects::{FileKind, Objects};
use crate::tree::set_mode;

/// The most files or links that are written together: their paths are in memory.
const TOGETHER: usize = 1 << 16;

/// Writes the files of `root` to `tree`, an empty directory, with Git's modes and these times.
pub(super) fn write(objects: &Objects<'_>, root: Oid, tree: &Path, scan: &Scan, times: &Timestamps) -> Result<Settled> {
    let writer = Writer { objects, tree, times, settled: Mutex::default() };
    let mut directories = vec![tree.to_owned()];
    let mut entries = Entries::new(objects, root)?;
    let mut files = Entered::default();
    while let Some(step) = entries.next()? {
        let Step::Entry { oid, kind, .. } = step else { continue };
        match kind {
            FileKind::Directory | FileKind::Submodule => {
                let path = tree.join(&entries.path);
                std::fs::create_dir(&path)
                    .and_then(|()| set_mode(&path, 0o755))
                    .map_err(|error| failed(objects.what, &path, kind, &error))?;
                directories.push(path);
            }
            FileKind::Regular { .. } => writer.add(&mut files, oid, &entries.path, kind)?,
            FileKind::Link => {}
        }
        if kind == FileKind::Directory {
            entries.enter(oid)?;
        }
    }
    writer.create(&files)?;
    // Links last: until then no path below `tree` leads through one.
    if scan.links > 0 {
        writer.links(root)?;
    }
    // A new entry changes the time of its directory.
    for path in directories.iter().rev() {
        set_mode(path, 0o755)
            .and_then(|()| Ok(utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW)?))
            .map_err(|error| volume_error(format!("cannot set the mode and time of {}", path.display()), &error))?;
    }
    let mut settled = writer.settled.into_inner().unwrap_or_else(PoisonError::into_inner);
    settled.pointers.sort_unstable();
    Ok(settled)
}

/// Files or links to write, by their contents.
#[derive(Default)]
struct Entered {
    by_contents: HashMap<Oid, Vec<(PathBuf, FileKind)>>,
    count: usize,
}

struct Writer<'a> {
    objects: &'a Objects<'a>,
    tree: &'a Path,
    times: &'a Timestamps,
    settled: Mutex<Settled>,
}

impl Writer<'_> {
    /// Writes the links.
    fn links(&self, root: Oid) -> Result<()> {
        let mut entries = Entries::new(self.objects, root)?;
        let mut links = Entered::default();
        while let Some(step) = entries.next()? {
            match step {
                Step::Entry { oid, kind: FileKind::Link, .. } => {
                    self.add(&mut links, oid, &entries.path, FileKind::Link)?;
                }
                Step::Entry { oid, kind: FileKind::Directory, .. } => entries.enter(oid)?,
                _ => {}
            }
        }
        self.create(&links)
    }

    /// Adds a file or a link. Writes all of them if there are enough.
    fn add(&self, entered: &mut Entered, oid: Oid, path: &Path, kind: FileKind) -> Result<()> {
        entered.by_contents.entry(oid).or_default().push((path.to_owned(), kind));
        entered.count += 1;
        if entered.count == TOGETHER { self.create(&std::mem::take(entered)) } else { Ok(()) }
    }

    fn create(&self, entered: &Entered) -> Result<()> {
        let Self { objects, tree, times, settled } = self;
        let what = objects.what;
        let wanted: HashSet<Oid> = entered.by_contents.keys().copied().collect();
        objects.each(&wanted, |oid, contents| {
            let places = entered.by_contents.get(&oid).map_or(&[][..], Vec::as_slice);
            for (name, kind) in places {
                let path = tree.join(name);
                let made = match kind {
                    FileKind::Link => link(&path, contents, times),
                    _ => create(&path, contents, *kind == FileKind::Regular { executable: true }, times),
                };
                made.map_err(|error| failed(what, &path, *kind, &error))?;
            }
            let regular = places.iter().filter(|(_, kind)| *kind != FileKind::Link);
            let mut settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
            settled.written.files += places.len() as u64;
            settled.written.bytes += (contents.len() * regular.clone().count()) as u64;
            if lfs::is_pointer(contents) {
                settled.pointers.extend(regular.map(|(name, _)| name.clone()));
            }
            Ok(())
        })
    }
}

/// Creates one link.
fn link(path: &Path, target: &[u8], times: &Timestamps) -> io::Result<()> {
    symlink(OsStr::from_bytes(target), path)?;
    Ok(utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Writes one file. Its mode does not depend on the umask or on an ACL of its directory.
fn create(path: &Path, contents: &[u8], executable: bool, times: &Timestamps) -> io::Result<()> {
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(contents)?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
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
