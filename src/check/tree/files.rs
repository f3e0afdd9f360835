//! Reads files and directories of the tree.

use std::fs;
use std::path::Path;

use crate::check::spelling::meant;
use crate::files;

/// Limit of a source file in bytes. podstrap skips larger ones.
const SOURCE: u64 = 4 << 20;

/// The kind of object at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    Directory,
    File,
    Nothing,
    /// A link leads outside the tree, to a path that may exist only in the container; or the path is unreadable.
    Unknown,
}

/// The text of a regular file of at most [`SOURCE`] bytes. Does not open pipes and devices.
pub fn read(file: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&files::read(file, SOURCE).ok()?).into_owned())
}

pub fn at(path: &Path) -> There {
    match files::metadata(path) {
        Ok(Some(metadata)) if metadata.is_dir() => There::Directory,
        Ok(Some(_)) => There::File,
        Ok(None) => {
            let gone = |part: &Path| files::exists(part).is_ok_and(|there| !there);
            let leads_out = |part: &Path| fs::read_link(part).is_ok_and(|to| to.is_absolute() && gone(part));
            if path.ancestors().any(leads_out) { There::Unknown } else { There::Nothing }
        }
        // A file that cannot be read is not a missing one.
        Err(_) => There::Unknown,
    }
}

pub fn is_a(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let names = files::names(dir).unwrap_or_default();
    names.iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// A similar name in the directory of a missing file.
pub fn near(path: &Path) -> Option<String> {
    let names = names(path.parent()?);
    meant(&path.file_name()?.to_string_lossy(), names.iter().map(String::as_str)).map(str::to_owned)
}
