//! The kinds of files that list requirements, told apart by their names.

use std::path::Path;

pub(super) const PYPROJECT: &str = "pyproject.toml";

/// The format of a file that was given with -r, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// pip's format.
    Requirements,
    /// The dependencies of a project, without the project.
    Pyproject,
    /// <https://packaging.python.org/en/latest/specifications/pylock-toml/>
    Pylock,
    /// <https://docs.astral.sh/uv/concepts/projects/layout/#the-lockfile>
    UvLock,
}

impl Form {
    pub(super) fn of(file: &Path) -> Self {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "uv.lock" => Self::UvLock,
            PYPROJECT => Self::Pyproject,
            // Also pylock.NAME.toml.
            _ if name.starts_with("pylock.") && file.extension().is_some_and(|kind| kind == "toml") => Self::Pylock,
            _ => Self::Requirements,
        }
    }
}
