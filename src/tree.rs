//! Resolves paths that users give inside a tree, and removes trees.
//!
//! Also holds what all writers of trees share: the count of files, and the errors of a tree that podstrap
//! cannot publish.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dir::Dir;
use crate::error::{Error, IoContext, Kind, Result};
use crate::files;
use crate::plan::{RESERVED, TreePath};
use crate::size::Size;
use crate::walk::{WalkError, walk};

/// Number of paths in a message.
const FEW: usize = 3;

/// The path of a new entry in the tree. Creates its parents. Refuses a symbolic link on the path, and an
/// existing entry.
pub fn place(flag: &str, tree: &Path, wanted: &TreePath) -> Result<PathBuf> {
    let full = tree.join(wanted.as_path());
    let mut at = tree.to_owned();
    for part in wanted.as_path().parent().into_iter().flat_map(Path::iter) {
        at.push(part);
        match files::entry(&at)? {
            Some(meta) if meta.is_dir() => {}
            Some(meta) => {
                let kind = if meta.is_symlink() { "a symbolic link" } else { "a file" };
                let shown = at.strip_prefix(tree).unwrap_or(&at).display();
                return Err(Error::usage(format!("{flag} {wanted}: {shown} is {kind} in the repository"))
                    .hint(format!("give {flag} a path whose parents are real directories")));
            }
            None => {
                // Readable for all users, regardless of the umask.
                let made =
                    fs::create_dir(&at).and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(0o755)));
                made.on_volume(|| format!("cannot create the directory {}", at.display()))?;
            }
        }
    }
    if files::entry(&full)?.is_some() {
        return Err(Error::usage(format!("{flag} {wanted}: the repository has an entry of that name"))
            .hint(format!("give {flag} a path that the repository does not use")));
    }
    Ok(full)
}

/// The path of an existing file in the tree. Refuses a symbolic link that points outside the tree.
pub fn file(flag: &str, tree: &Path, wanted: &Path) -> Result<PathBuf> {
    let shown = wanted.display();
    let full = tree.join(wanted);
    let real = full.canonicalize().map_err(|error| {
        files::unreadable(Kind::Environment, format!("{flag} {shown}: cannot be read in the tree"), &error)
            .hint(listing(tree, wanted))
    })?;
    if !files::real(tree)?.is_some_and(|tree| real.starts_with(tree)) {
        return Err(Error::new(Kind::Environment, format!("{flag} {shown} points outside the tree"))
            .because("it is a symbolic link of the repository, or goes through one")
            .hint("commit the file itself, or give its absolute path"));
    }
    Ok(full)
}

/// The path of an existing directory in the tree. Refuses symbolic links on the path.
pub fn directory(flag: &str, tree: &Path, wanted: &TreePath) -> Result<PathBuf> {
    let mut at = tree.to_owned();
    for part in wanted.as_path() {
        at.push(part);
        let shown = at.strip_prefix(tree).unwrap_or(&at).display();
        let made = |why: &str| Error::source(format!("{flag} {wanted}: {why}"));
        match files::entry(&at)? {
            Some(meta) if meta.is_dir() => {}
            Some(meta) if meta.is_symlink() => return Err(made(&format!("{shown} is a symbolic link"))),
            Some(_) => return Err(made(&format!("{shown} is a file"))),
            None => {
                return Err(
                    made(&format!("there is no {shown}")).hint(listing(tree, &PathBuf::from(shown.to_string())))
                );
            }
        }
    }
    Ok(at)
}

/// The hint for a missing path: the names in its parent directory.
fn listing(tree: &Path, wanted: &Path) -> String {
    let parent = wanted.parent().unwrap_or(Path::new(""));
    let Ok(names) = files::names(&tree.join(parent)) else {
        return "give a path relative to the repository's top".to_owned();
    };
    let names: Vec<_> = names.iter().take(12).map(|name| name.to_string_lossy()).collect();
    let shown = if parent.as_os_str().is_empty() { "the tree".into() } else { parent.display().to_string() };
    if names.is_empty() {
        return format!("give a path relative to the repository's top: {shown} is empty");
    }
    format!("give a path relative to the repository's top; {shown} has {}", names.join(", "))
}

/// Removes whatever is at a path, even directories that a package closed for their owner. std's function panics if a
/// directory cannot be closed.
pub fn remove(path: &Path) -> io::Result<()> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Dir::open(parent)?.remove(name),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The number of files in a tree, and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Files and symbolic links.
    pub files: u64,
    /// Bytes of the files' contents.
    pub bytes: u64,
}

impl Written {
    pub(crate) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

pub(crate) fn count(dir: &Path) -> Result<Written, WalkError> {
    let mut done = Written::default();
    for entry in walk(dir) {
        let entry = entry?;
        if !entry.is_dir() {
            let bytes = if entry.is_file() { entry.metadata()?.len() } else { 0 };
            done.add(Written { files: 1, bytes });
        }
    }
    Ok(done)
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The error of a source that is larger than the limit. The cause is `things` (`the files take`) with a size: so
/// many bytes or more.
pub(crate) fn too_large(what: &str, things: &str, bytes: u64, limit: Size) -> Error {
    Error::source(what)
        .because(format!("{things} {} or more, and the limit is {limit}", Size(bytes)))
        .hint("if this size is correct, raise --size-limit and the size of the volume")
}

/// The error of a source that contains the name that podstrap reserves.
pub(crate) fn reserved(what: String) -> Error {
    Error::source(what)
        .because("podstrap reserves this name in the published directory")
        .hint(format!("rename {RESERVED} in the source"))
}

/// The first few paths, in one line.
pub(crate) fn few(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().take(FEW).map(|path| path.display().to_string()).collect();
    let more = if paths.len() > FEW { format!(" and {} more", paths.len() - FEW) } else { String::new() };
    format!("{}{more}", crate::redact::clean(&names.join(", ")).replace('\n', " "))
}
