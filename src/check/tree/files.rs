//! Reads files and directories of the tree.

use std::fs;
use std::path::Path;

use crate::check::spelling::meant;

/// Limit of a source file in bytes. podstrap skips larger ones.
const SOURCE: u64 = 4 << 20;

/// The kind of object at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    Directory,
    File,
    Nothing,
    /// A link leads outside the tree, to a path that may exist only in the container.
    Unknown,
}

/// The text of a regular file of at most [`SOURCE`] bytes. Does not open pipes and devices.
pub fn read(file: &Path) -> Option<String> {
    let small = fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= SOURCE);
    let bytes = if small { fs::read(file).ok()? } else { return None };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub fn at(path: &Path) -> There {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => There::Directory,
        Ok(_) => There::File,
        Err(_) => {
            let leads_out = |part: &Path| fs::read_link(part).is_ok_and(|to| to.is_absolute() && !part.exists());
            if path.ancestors().any(leads_out) { There::Unknown } else { There::Nothing }
        }
    }
}

pub fn is_a(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// The names in a directory, sorted.
pub fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A similar name in the directory of a missing file.
pub fn near(path: &Path) -> Option<String> {
    let names = files(path.parent()?);
    meant(&path.file_name()?.to_string_lossy(), names.iter().map(String::as_str)).map(str::to_owned)
}
