//! Sets modes and times after libgit2 wrote the files: they depend on the commit alone, not on the umask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timestamps, utimensat};

use crate::error::{IoContext, Result};
use crate::files::{self, WRITTEN};
use crate::retry::Deadline;
use crate::source::lfs::{self, Pointer};
use crate::tree::{Written, set_mode};
use crate::walk::{WalkError, walk};

/// The count of the files, and the pointers among them.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) written: Written,
    /// Git LFS pointers, usable or not.
    pub(super) pointers: Vec<(PathBuf, Result<Pointer, String>)>,
}

/// Sets Git's mode and these times on everything that libgit2 wrote, counts the files, and searches for Git LFS
/// pointers.
pub(super) fn settle(tree: &Path, times: &Timestamps, deadline: Deadline) -> Result<Settled> {
    let mut settled = Settled::default();
    for entry in walk(tree) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if entry.is_dir() && deadline.passed() {
            return Err(deadline.late(&format!("cannot set the modes and times in {}", tree.display())));
        }
        let volume = || format!("cannot set the mode and time of {}", entry.path.display());
        utimensat(CWD, &entry.path, times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from).on_volume(volume)?;
        if entry.is_dir() {
            set_mode(&entry.path, 0o755).on_volume(volume)?;
            continue;
        }
        settled.written.files += 1;
        if entry.is_symlink() {
            continue;
        }
        let meta = entry.metadata().map_err(WalkError::on_volume)?;
        settled.written.bytes += meta.len();
        let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
        if meta.permissions().mode() & 0o7777 != mode {
            set_mode(&entry.path, mode).on_volume(volume)?;
        }
        if meta.len() <= lfs::LONGEST
            && let Some(pointer) = lfs::parse(&files::read(&entry.path, WRITTEN).on_volume(volume)?)
        {
            settled.pointers.push((entry.name, pointer));
        }
    }
    Ok(settled)
}
