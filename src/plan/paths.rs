//! Paths that users give: paths in the tree, absolute paths, single names.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// podstrap's directory below the root. No repository may contain an entry of this name.
pub const RESERVED: &str = ".podstrap";

/// A relative path that stays in the tree: not empty, no root, no `..`, and not podstrap's own directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePath(PathBuf);

impl TreePath {
    pub fn new(path: &Path) -> Option<Self> {
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        (!clean.as_os_str().is_empty() && !clean.starts_with(RESERVED)).then_some(Self(clean))
    }
    /// The tree itself.
    pub fn top_itself() -> Self {
        Self(PathBuf::from("."))
    }
    pub fn as_path(&self) -> &Path {
        &self.0
    }
    /// The first component, an entry at the top of the tree.
    pub fn top(&self) -> &Path {
        self.0.iter().next().map_or(self.as_path(), Path::new)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Accepts one name for an entry at the top of the tree.
pub(super) fn one_name(flag: &str, name: String, hint: &str) -> Result<String> {
    let good = TreePath::new(Path::new(&name))
        .is_some_and(|path| path.as_path() == path.top() && path.as_path().as_os_str() == name.as_str());
    if good {
        return Ok(name);
    }
    let error = Error::usage(format!("{flag} {name} is not a valid name"));
    let error = if name == RESERVED { error.because("podstrap reserves this name") } else { error };
    Err(error.hint(hint))
}

/// Makes a path absolute, starting at the working directory, and removes `.` and `..`.
pub(super) fn absolute(flag: &str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map(|path| normal(&path))
        .map_err(|error| Error::usage(format!("invalid path {flag} {}", path.display())).because(error))
}

/// Removes `.` and `..` from a path without looking at the disk.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// Paths in the tree stay there, and absolute paths have no `..`.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    if let Some(path) = TreePath::new(Path::new(text)) {
        assert!(path.as_path().components().all(|part| matches!(part, Component::Normal(_))), "{path}");
        assert!(path.as_path().starts_with(path.top()));
        assert_eq!(TreePath::new(path.as_path()), Some(path));
    }
    if text.starts_with('/')
        && let Ok(path) = absolute("--x", Path::new(text))
    {
        assert!(path.is_absolute() && !path.components().any(|part| part == Component::ParentDir), "{path:?}");
    }
}
