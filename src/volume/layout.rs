//! Names and directories below the root, and how they are made and found.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::plan::RESERVED;

/// The root's mode bits that are ours as well: sticky, setgid, and writing for the group and others.
pub(super) const SHARED: u32 = 0o3022;

/// Where the link of a top-level entry points.
pub(super) fn entry_target(name: &OsString) -> PathBuf {
    Path::new(RESERVED).join("current/tree").join(name)
}

/// The id in `.podstrap/releases/<id>/tree`.
pub(super) fn release_of_link(to: &Path) -> Option<String> {
    release_of_current(to.strip_prefix(RESERVED).ok()?.parent()?)
}

/// The id in `releases/<id>`.
pub(super) fn release_of_current(to: &Path) -> Option<String> {
    to.strip_prefix("releases").ok()?.to_str().map(str::to_owned)
}

pub(super) fn taken(path: &Path, by: &str) -> Error {
    Error::volume(format!("{} is in the way", path.display()))
        .because(format!("it is {by} on the same volume"))
        .hint("choose another name with --link NAME, or remove that link if it is not used any more")
}

pub(super) fn in_the_way(path: &Path) -> Error {
    Error::volume(format!("{} is in the way", path.display()))
        .because("podstrap did not make it, so it stays as it is")
        .hint("move it away, publish under another name with --link NAME, or give podstrap a volume of its own")
}

pub(super) fn names(dir: &Path) -> Result<Vec<OsString>> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    list().on_volume(|| format!("cannot list {}", dir.display()))
}

/// A directory that everybody can read, and that the root's writers can write to, whatever the umask.
pub(super) fn make_dir(path: &Path, shared: u32) -> Result<()> {
    let made = match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755 | shared)),
        // Through a link what is somebody else's would be cleared.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                Ok(())
            } else {
                Err(in_the_way(path))
            };
        }
        Err(error) => Err(error),
    };
    made.on_volume(|| format!("cannot make the directory {}", path.display()))
}

pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).on_volume(|| format!("cannot sync {}", path.display()))
}

pub(super) fn random() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(12).map(|c| c.to_ascii_lowercase()).collect()
}
