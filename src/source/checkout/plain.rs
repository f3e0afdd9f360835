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

/// Files that are written together, to keep few paths in memory.
const TOGETHER: usize = 1 << 16;

/// Writes the files of `root` to `tree`, an empty directory, with Git's modes and these times.
pub(super) fn write(objects: &Objects<'_>, root: Oid, tree: &Path, scan: &Scan, times: &Timestamps) -> Result<Settled> {
    let mut writer = Writer { objects, tree, times, settled: Mutex::default() };
    let mut directories = vec![tree.to_owned()];
    let (mut entries, mut files) = (Entries::new(objects, root)?, Files::default());
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
            FileKind::Regular { executable } => {
                files.add(oid, entries.path.clone(), executable);
                if files.count == TOGETHER {
                    writer.files(&std::mem::take(&mut files))?;
                }
            }
            FileKind::Link => {}
        }
        if kind == FileKind::Directory {
            entries.enter(oid)?;
        }
    }
    writer.files(&files)?;
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

/// The files to write, by their contents.
#[derive(Default)]
struct Files {
    by_contents: HashMap<Oid, Vec<(PathBuf, bool)>>,
    count: usize,
}

impl Files {
    fn add(&mut self, oid: Oid, path: PathBuf, executable: bool) {
        self.by_contents.entry(oid).or_default().push((path, executable));
        self.count += 1;
    }
}

struct Writer<'a> {
    objects: &'a Objects<'a>,
    tree: &'a Path,
    times: &'a Timestamps,
    settled: Mutex<Settled>,
}

impl Writer<'_> {
    fn files(&mut self, files: &Files) -> Result<()> {
        let Self { objects, tree, times, ref settled } = *self;
        let (what, deadline) = (objects.what, objects.deadline);
        let wanted: HashSet<Oid> = files.by_contents.keys().copied().collect();
        objects.each(&wanted, |oid, contents| {
            if deadline.passed() {
                return Err(deadline.late(what));
            }
            let places = files.by_contents.get(&oid).map_or(&[][..], Vec::as_slice);
            for (name, executable) in places {
                let path = tree.join(name);
                let kind = FileKind::Regular { executable: *executable };
                create(&path, contents, *executable, times).map_err(|error| failed(what, &path, kind, &error))?;
            }
            let mut settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
            settled.written.files += places.len() as u64;
            settled.written.bytes += (contents.len() * places.len()) as u64;
            if lfs::is_pointer(contents) {
                settled.pointers.extend(places.iter().map(|(name, _)| name.clone()));
            }
            Ok(())
        })
    }

    fn links(&mut self, root: Oid) -> Result<()> {
        let settled = self.settled.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Entries::new(self.objects, root)?;
        while let Some(step) = entries.next()? {
            match step {
                Step::Entry { oid, kind: kind @ FileKind::Link, .. } => {
                    let path = self.tree.join(&entries.path);
                    let target = self.objects.read(oid)?;
                    symlink(OsStr::from_bytes(&target), &path)
                        .and_then(|()| Ok(utimensat(CWD, &path, self.times, AtFlags::SYMLINK_NOFOLLOW)?))
                        .map_err(|error| failed(self.objects.what, &path, kind, &error))?;
                    settled.written.files += 1;
                }
                Step::Entry { oid, kind: FileKind::Directory, .. } => entries.enter(oid)?,
                _ => {}
            }
        }
        Ok(())
    }
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
