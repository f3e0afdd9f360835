//! Recognises podstrap's own entries on a volume that others can write to.
//!
//! Everything below `.podstrap` belongs to podstrap's user, and nobody else can write there. So nobody can replace a
//! file between two looks at it. In the root itself, others may rename `.podstrap`: podstrap forbids that with the
//! sticky bit if the root is its own, works with handles in any case, and confines its children
//! (`confine.rs`) if it cannot forbid it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::layout::{anothers, not_ours};
use crate::confine::Confinement;
use crate::dir::{Dir, random};
use crate::error::{IoContext, Result};
use crate::files;
use crate::plan::RESERVED;

/// Write permission for group and others; with an ACL, the group's bit covers all its entries.
const SHARED: u32 = 0o022;
/// In a directory with this bit, users can rename and delete only their own entries (`S_ISVTX`, inode(7)).
const STICKY: u32 = 0o1000;

/// The user who owns the entries that podstrap creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(u32);

impl Owner {
    /// podstrap's user, unless the file system gives its files to somebody else (NFS with `root_squash`, for example).
    /// `found` is podstrap's directory.
    pub(super) fn of(root: &Dir, found: &Stat) -> io::Result<Self> {
        let user = rustix::process::geteuid().as_raw();
        if found.st_uid == user {
            return Ok(Self(user));
        }
        // Ask the open file: another user may already have replaced its name.
        let name = format!(".{}", random());
        let made = root.create_file(&name)?.metadata()?.uid();
        files::unless_absent(root.remove_file(&name))?;
        Ok(Self(made))
    }

    /// Opens a directory of podstrap, or creates it with these permissions.
    ///
    /// # Errors
    /// It is something else, or belongs to another user.
    pub(super) fn dir(self, parent: &Dir, name: &str, mode: u32) -> Result<Dir> {
        let path = parent.path().join(name);
        let failed = || format!("cannot open {}", path.display());
        create(parent, name)?;
        let dir = match parent.dir(name) {
            Ok(dir) => dir,
            Err(error) if is_something_else(&error) => return Err(not_ours(&path, "it is not a directory")),
            Err(error) => return Err(error).on_volume(failed),
        };
        let stat = dir.metadata().on_volume(failed)?;
        self.check(&path, &stat)?;
        if stat.st_mode & 0o7777 != mode {
            // A run of an older version, or the kubelet with an fsGroup, let others write here.
            dir.set_mode(mode).on_volume(|| format!("cannot set the mode of {}", path.display()))?;
        }
        dir.drop_default_acl().on_volume(|| format!("cannot remove the ACL of {}", path.display()))?;
        Ok(dir)
    }

    /// Rules for child processes, for a root in which others can rename podstrap's directory.
    pub(super) fn confine(self, root: &Dir, staging: &Dir) -> Option<Confinement> {
        Confinement::new(root, staging, RESERVED, self.0)
    }

    pub(super) fn is_of(self, stat: &Stat) -> bool {
        stat.st_uid == self.0
    }

    /// # Errors
    /// The entry belongs to another user.
    pub(super) fn check(self, path: &Path, stat: &Stat) -> Result<()> {
        if self.is_of(stat) {
            return Ok(());
        }
        Err(anothers(path, stat.st_uid, self.0))
    }

    /// # Errors
    /// The entry is not a regular file of podstrap, or has another name elsewhere.
    pub(super) fn check_file(self, path: &Path, stat: &Stat) -> Result<()> {
        self.check(path, stat)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink == 1 => Ok(()),
            FileType::RegularFile => Err(not_ours(path, "it is a hard link of another file")),
            kind => Err(not_ours(path, files::described(kind).unwrap_or_default())),
        }
    }

    /// Keeps others from renaming podstrap's directory in the root, if podstrap may. Returns whether
    /// nobody else can.
    pub(super) fn guard(self, root: &Dir) -> io::Result<bool> {
        let stable =
            is_stable(&std::path::absolute(root.path())?, self.0)? && is_stable(&root.path().canonicalize()?, self.0)?;
        let stat = root.metadata()?;
        let open = stat.st_mode & SHARED != 0 && stat.st_mode & STICKY == 0;
        if stat.st_uid != self.0 {
            if self.0 == 0 {
                tracing::warn!(
                    "{} belongs to user {}, who can replace podstrap's directory while podstrap works in it: change its \
                     owner to root, or run podstrap as user {1}",
                    root.path().display(),
                    stat.st_uid
                );
            }
            return Ok(stable && stat.st_uid == 0 && !open);
        }
        if open {
            if let Err(error) = root.set_mode(stat.st_mode & 0o7777 | STICKY) {
                tracing::debug!("cannot set the sticky bit of {}: {error}", root.path().display());
                return Ok(false);
            }
            tracing::info!(
                "set the sticky bit of {}, so that no other user can rename podstrap's directory",
                root.path().display()
            );
        }
        Ok(stable)
    }
}

/// Whether only `user` and root can rename the directories above a path.
fn is_stable(path: &Path, user: u32) -> io::Result<bool> {
    let mut child = path.to_owned();
    let trusted = |uid: u32| [0, user].contains(&uid);
    while let Some(parent) = child.parent().map(Path::to_owned) {
        let (Some(dir), Some(entry)) = (files::look_at(&parent)?, files::look_at(&child)?) else { return Ok(false) };
        let open = dir.mode() & SHARED != 0 && (dir.mode() & STICKY == 0 || !trusted(entry.uid()));
        if open || !trusted(dir.uid()) {
            return Ok(false);
        }
        child = parent;
    }
    Ok(true)
}

/// Whether a directory could not be opened because it is a link or a file.
pub(super) fn is_something_else(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTDIR | Errno::LOOP))
}

/// Creates a directory of podstrap, if nothing is in its place.
pub(super) fn create(parent: &Dir, name: &str) -> Result<()> {
    match parent.create_dir(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.on_volume(|| format!("cannot create the directory {}", parent.path().join(name).display())),
    }
}
