//! Sets modes and times that depend on the commit alone, not on the writer or the umask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git2::Commit;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::error::{IoContext, Result};
use crate::files::{self, WRITTEN};
use crate::retry::Deadline;
use crate::source::lfs;
use crate::tree::{Written, set_mode};
use crate::walk::{WalkError, walk};

/// The count of the files, and the pointers among them.
pub(super) struct Settled {
    pub(super) written: Written,
    /// Git LFS pointers, if requested.
    pub(super) pointers: Vec<PathBuf>,
}

/// Sets Git's mode and the commit's time on everything, and counts the files. Searches for Git LFS pointers if
/// `pointers` is set.
pub(super) fn settle(tree: &Path, commit: &Commit<'_>, pointers: bool, deadline: Deadline) -> Result<Settled> {
    let mut settled = Settled { written: Written::default(), pointers: Vec::new() };
    let time = Timespec { tv_sec: commit.time().seconds(), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for entry in walk(tree) {
        let entry = entry.map_err(WalkError::on_volume)?;
        if entry.is_dir() && deadline.passed() {
            return Err(deadline.late(&format!("cannot set the modes and times in {}", tree.display())));
        }
        let volume = || format!("cannot set the mode and time of {}", entry.path.display());
        utimensat(CWD, &entry.path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from).on_volume(volume)?;
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
        if pointers
            && meta.len() <= lfs::LONGEST
            && lfs::is_pointer(&files::read(&entry.path, WRITTEN).on_volume(volume)?)
        {
            settled.pointers.push(entry.name);
        }
    }
    Ok(settled)
}
