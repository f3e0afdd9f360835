//! The writer for trees without conversions: it writes blobs unchanged.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use git2::{Oid, Tree};

use crate::error::{Error, Result, volume_error};
use crate::source::checkout::entries::{Entries, FileKind, Objects, Step};
use crate::source::checkout::scan::Scan;
use crate::source::lfs;
use crate::tree::set_mode;

/// Writes the files of `root` to `tree`, and returns the paths of the Git LFS pointers.
pub(super) fn write<'a>(objects: &Objects<'a>, root: &Tree<'a>, tree: &Path, scan: &Scan) -> Result<Vec<PathBuf>> {
    let mut pointers = Vec::new();
    // Links last: until then no path below `tree` leads through one.
    write_kinds(objects, root, tree, &mut pointers, |kind| kind != FileKind::Link)?;
    if scan.links > 0 {
        write_kinds(objects, root, tree, &mut pointers, |kind| kind == FileKind::Link)?;
    }
    Ok(pointers)
}

/// Writes the entries of the `wanted` kinds.
fn write_kinds<'a>(
    objects: &Objects<'a>,
    root: &Tree<'a>,
    tree: &Path,
    pointers: &mut Vec<PathBuf>,
    wanted: impl Fn(FileKind) -> bool,
) -> Result<()> {
    let mut entries = Entries::new(objects, root)?;
    while let Some(step) = entries.next()? {
        let Step::Entry { oid, kind, .. } = step else { continue };
        if wanted(kind) {
            write_one(objects, oid, kind, tree, &entries.path, pointers)?;
        }
        if matches!(kind, FileKind::Directory) {
            entries.enter(oid)?;
        }
    }
    Ok(())
}

fn write_one(
    objects: &Objects<'_>,
    oid: Oid,
    kind: FileKind,
    tree: &Path,
    name: &Path,
    pointers: &mut Vec<PathBuf>,
) -> Result<()> {
    let path = &tree.join(name);
    let written = match kind {
        FileKind::Directory | FileKind::Submodule => fs::create_dir(path).and_then(|()| set_mode(path, 0o755)),
        FileKind::Link => symlink(OsStr::from_bytes(objects.read(oid)?.data()), path),
        FileKind::Regular { executable } => {
            let blob = objects.read(oid)?;
            if lfs::is_pointer(blob.data()) {
                pointers.push(name.to_owned());
            }
            File::create_new(path).and_then(|mut file| {
                file.write_all(blob.data())?;
                // `settle` sets the mode of all others.
                if executable { file.set_permissions(fs::Permissions::from_mode(0o755)) } else { Ok(()) }
            })
        }
    };
    written.map_err(|error| match (error.kind(), kind) {
        // The directory is new, so only the repository itself can have created the entry.
        (ErrorKind::AlreadyExists, _) => {
            Error::source(objects.what).because(format!("two entries are named {}", path.display()))
        }
        // An empty target, a target with a NUL, or a name or a target that is too long.
        (ErrorKind::InvalidInput | ErrorKind::InvalidFilename, _) | (ErrorKind::NotFound, FileKind::Link) => {
            Error::source(objects.what).because(format!("{} cannot be created: {error}", path.display()))
        }
        _ => volume_error(format!("cannot write {}", path.display()), &error),
    })
}
