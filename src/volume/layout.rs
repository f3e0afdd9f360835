//! Paths below the root: how podstrap names, creates and recognises them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::plan::RESERVED;

/// Mode bits that podstrap's directories copy from the root: sticky, setgid, group and other write.
pub(super) const SHARED: u32 = 0o3022;

/// The target of a top-level entry's link.
pub(super) fn entry_target(name: &OsString) -> PathBuf {
    Path::new(RESERVED).join("current/tree").join(name)
}

/// The release ID in `.podstrap/releases/<id>/tree`.
pub(super) fn release_of_link(to: &Path) -> Option<String> {
    release_of_current(to.strip_prefix(RESERVED).ok()?.parent()?)
}

/// The release ID in `releases/<id>`.
pub(super) fn release_of_current(to: &Path) -> Option<String> {
    to.strip_prefix("releases").ok()?.to_str().map(str::to_owned)
}

pub(super) fn taken(path: &Path, by: &str) -> Error {
    let path = path.display();
    Error::volume(format!("cannot publish at {path}: the path exists"))
        .because(format!("it belongs to {by} on the same volume"))
        .hint(format!("publish with --link and a different NAME, or remove {path} if nothing uses it"))
}

pub(super) fn in_the_way(path: &Path) -> Error {
    Error::volume(format!("cannot publish at {}: the path exists", path.display()))
        .because("podstrap did not create it and will not replace it")
        .hint("move it, publish under another name with --link NAME, or use a separate volume")
}

pub(super) fn names(dir: &Path) -> Result<Vec<OsString>> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    list().on_volume(|| format!("cannot list {}", dir.display()))
}

/// Creates a directory that everybody can read and the root's writers can write, whatever the umask.
pub(super) fn make_dir(path: &Path, shared: u32) -> Result<()> {
    let made = match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755 | shared)),
        // Following a link here would delete files elsewhere.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                Ok(())
            } else {
                Err(in_the_way(path))
            };
        }
        Err(error) => Err(error),
    };
    made.on_volume(|| format!("cannot create the directory {}", path.display()))
}

pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).on_volume(|| format!("cannot sync {}", path.display()))
}

pub(super) fn random() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(12).map(|c| c.to_ascii_lowercase()).collect()
}
