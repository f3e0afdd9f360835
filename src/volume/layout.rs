//! Paths below the root: how podstrap names and recognises them, and what it says of those that others made.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::plan::RESERVED;

/// The target of a top-level entry's link.
pub(super) fn entry_target(name: &OsStr) -> PathBuf {
    Path::new(RESERVED).join("current/tree").join(name)
}

/// The target of the link that `--link` makes.
pub(super) fn tree_target(id: &str) -> PathBuf {
    Path::new(RESERVED).join("releases").join(id).join("tree")
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

/// The error of an entry in podstrap's own directories that podstrap did not create.
pub(super) fn not_ours(path: &Path, why: &str) -> Error {
    Error::volume(format!("podstrap does not trust {}", path.display()))
        .because(why.to_owned())
        .hint(format!("remove {} if nothing uses it, or give another directory as --root", path.display()))
}

/// The error of an entry in podstrap's own directories that belongs to another user.
pub(super) fn anothers(path: &Path, owner: u32, user: u32) -> Error {
    not_ours(path, &format!("it belongs to user {owner}, and podstrap runs as user {user}"))
        .hint(format!("if it holds releases that are in use: run podstrap as user {owner} (securityContext.runAsUser)"))
}
