//! A commit's files. No code of the repository runs, nothing is written through a link of the
//! repository, and names that would leave the tree or pose as Git's own directory are refused.
//!
//! Two writers give the same tree. libgit2's knows attributes and judges names, and takes most of
//! a clone's time: it looks at everything on disk again and again. The plain one writes blobs as
//! they are; it is used when no attribute asks for a conversion and no name needs a second look.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{Commit, ErrorCode, ObjectType, Oid, Repository};

use crate::error::{Error, IoContext, Result, volume_error};
use crate::plan::RESERVED;
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::git::failure;
use crate::source::refs::Choice;
use crate::source::{Checkout, late};

/// How many paths a warning names.
const NAMED: usize = 3;
/// What a Git LFS pointer starts with, and the longest that one can be (git-lfs, docs/spec.md).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
const LFS_POINTER_MAX: u64 = 1024;

/// Writes the chosen commit's files to `tree`, which does not exist yet.
pub(super) fn write(
    repo: &Repository,
    choice: &Choice,
    tree: &Path,
    url: &str,
    limit: Size,
    deadline: Deadline,
) -> Result<Checkout> {
    let _ = limit;
    let commit = find(repo, choice, url)?;
    let what = format!("cannot check out {} of {url}", commit.id());
    let failed = |error: git2::Error| failure(&what, &error).permanent();
    let files = commit.tree().map_err(failed)?;
    if files.get_name_bytes(RESERVED.as_bytes()).is_some() {
        return Err(reserved(format!("{url} has an entry {RESERVED} at its top level")));
    }
    let scan = Scan::new(repo, &files).map_err(failed)?;
    warn_named(&scan.submodules, "submodules are not fetched, their directories stay empty");
    fs::create_dir(tree).on_volume(|| format!("cannot create {}", tree.display()))?;

    if scan.plain {
        scan.write(repo, tree, &what, deadline)?;
    } else {
        write_with_libgit2(repo, &files, tree).map_err(failed)?;
    }
    settle(tree, scan.lfs, deadline)
}

fn write_with_libgit2(repo: &Repository, files: &git2::Tree<'_>, tree: &Path) -> Result<(), git2::Error> {
    // Attributes are looked up in the index and in the working directory.
    repo.set_workdir(tree, false)?;
    let mut index = repo.index()?;
    index.read_tree(files)?;
    index.write()?;
    let mut options = CheckoutBuilder::new();
    options.force().update_index(false);
    repo.checkout_tree(files.as_object(), Some(&mut options))
}

/// What a repository or directory gets that uses podstrap's own name.
pub(super) fn reserved(what: String) -> Error {
    Error::source(what)
        .because("the name is podstrap's own in the directory that it publishes")
        .hint(format!("rename {RESERVED} in the source"))
}

fn find<'repo>(repo: &'repo Repository, choice: &Choice, url: &str) -> Result<Commit<'repo>> {
    let name = choice.reference.clone().unwrap_or_else(|| choice.commit.to_string());
    let object = repo.find_object(choice.want, None).map_err(|error| {
        if error.code() == ErrorCode::NotFound {
            return Error::source(format!("{url} has no commit {}", choice.want))
                .hint("is it pushed? Only what a branch or a tag leads to can be fetched");
        }
        failure(&format!("cannot read {name} of {url}"), &error).permanent()
    })?;
    object.peel_to_commit().map_err(|_| {
        let kind =
            object.as_tag().and_then(git2::Tag::target_type).or(object.kind()).map_or("nothing", |kind| kind.str());
        Error::source(format!("{name} of {url} leads to a {kind}, not to a commit"))
            .hint("choose a branch, a tag of a commit, or a commit with --ref")
    })
}

/// What there is to write, and how.
struct Scan {
    /// Directories come before what is in them.
    entries: Vec<Entry>,
    submodules: Vec<PathBuf>,
    /// Whether some attribute file hands files over to Git LFS.
    lfs: bool,
    /// Whether blobs are files as they are.
    plain: bool,
}

struct Entry {
    path: PathBuf,
    oid: Oid,
    /// As the tree has it (gitformat-index, "mode"): what it is, and whether it may be run.
    mode: i32,
}

const LINK: i32 = 0o120_000;

impl Scan {
    fn new(repo: &Repository, root: &git2::Tree<'_>) -> Result<Self, git2::Error> {
        let mut scan = Self { entries: Vec::new(), submodules: Vec::new(), lfs: false, plain: true };
        let mut trees = vec![(PathBuf::new(), root.clone())];
        while let Some((at, tree)) = trees.pop() {
            for entry in &tree {
                let (name, oid, mode) = (entry.name_bytes(), entry.id(), entry.filemode_raw());
                if name.contains(&b'/') {
                    // libgit2 would take it for a path.
                    return Err(git2::Error::from_str("the name of an entry holds a slash"));
                }
                scan.plain &= !dubious(name);
                let path = at.join(OsStr::from_bytes(name));
                match entry.kind() {
                    Some(ObjectType::Tree) => trees.push((path.clone(), repo.find_tree(oid)?)),
                    Some(ObjectType::Commit) => scan.submodules.push(path.clone()),
                    _ if name == b".gitattributes" => scan.attributes(repo.find_blob(oid)?.content()),
                    _ => {}
                }
                scan.entries.push(Entry { path, oid, mode });
            }
        }
        Ok(scan)
    }

    /// libgit2 converts line endings (eol, crlf, and text only if eol says so: on Linux its own
    /// choice is to leave them) and `$Id$` (ident), gitattributes(5).
    fn attributes(&mut self, text: &[u8]) {
        let says = |word: &[u8]| text.windows(word.len()).any(|text| text == word);
        self.lfs |= says(b"filter=lfs");
        self.plain &= !says(b"crlf") && !says(b"ident");
    }

    /// Writes everything, links last: until then no path below `tree` leads through one.
    fn write(&self, repo: &Repository, tree: &Path, what: &str, deadline: Deadline) -> Result<()> {
        let odb = repo.odb().map_err(|error| failure(what, &error).permanent())?;
        let (links, others): (Vec<_>, Vec<_>) = self.entries.iter().partition(|entry| entry.mode == LINK);
        for Entry { path, oid, mode } in others.into_iter().chain(links) {
            let path = tree.join(path);
            let blob = || odb.read(*oid).map_err(|error| failure(what, &error).permanent());
            let written = match FileKind::of(*mode) {
                FileKind::Directory => fs::create_dir(&path).and_then(|()| set_mode(&path, 0o755)),
                FileKind::Link => symlink(OsStr::from_bytes(blob()?.data()), &path),
                FileKind::Regular { executable } => {
                    let blob = blob()?;
                    if deadline.passed() {
                        return Err(late(what, deadline));
                    }
                    File::create_new(&path).and_then(|mut file| {
                        file.write_all(blob.data())?;
                        // Others are settled by what they are not.
                        if executable { file.set_permissions(fs::Permissions::from_mode(0o755)) } else { Ok(()) }
                    })
                }
            };
            written.map_err(|error| match error.kind() {
                // The directory is new: only the repository itself can have put something there.
                ErrorKind::AlreadyExists => Error::source(what).because("two entries have the same name"),
                _ => volume_error(format!("cannot write {}", path.display()), &error),
            })?;
        }
        Ok(())
    }
}

enum FileKind {
    /// A submodule's stays empty.
    Directory,
    Link,
    Regular {
        executable: bool,
    },
}

impl FileKind {
    fn of(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o040_000 | 0o160_000 => Self::Directory,
            LINK => Self::Link,
            _ => Self::Regular { executable: mode & 0o100 != 0 },
        }
    }
}

/// Names about which libgit2 is to decide: `.`, `..`, and whatever might be `.git` to some file
/// system, by case, by code points that HFS+ ignores, or by NTFS's trailing characters, streams
/// and short names. `.gitignore` and its like are not among them.
fn dubious(name: &[u8]) -> bool {
    let ascii: Vec<u8> = name.iter().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase).collect();
    let poses = ascii
        .strip_prefix(b".git")
        .is_some_and(|rest| !rest.first().is_some_and(|next| next.is_ascii_alphanumeric() || b"-_".contains(next)));
    poses || ascii.starts_with(b"git~") || name.contains(&b'\\') || matches!(name, b"" | b"." | b"..")
}

/// Gives everything the mode that Git has for it, whatever the umask made of it, and counts.
fn settle(tree: &Path, lfs: bool, deadline: Deadline) -> Result<Checkout> {
    let mut done = Checkout { files: 0, bytes: 0 };
    let (mut directories, mut pointers) = (vec![tree.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        if deadline.passed() {
            return Err(late(&format!("cannot finish {}", tree.display()), deadline));
        }
        let volume = || format!("cannot finish {}", directory.display());
        set_mode(&directory, 0o755).on_volume(volume)?;
        for entry in fs::read_dir(&directory).on_volume(volume)? {
            let entry = entry.on_volume(volume)?;
            let kind = entry.file_type().on_volume(volume)?;
            if kind.is_dir() {
                directories.push(entry.path());
                continue;
            }
            done.files += 1;
            if kind.is_symlink() {
                continue;
            }
            let meta = entry.metadata().on_volume(volume)?;
            done.bytes += meta.len();
            let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            if meta.permissions().mode() & 0o7777 != mode {
                set_mode(&entry.path(), mode).on_volume(volume)?;
            }
            if lfs
                && meta.len() <= LFS_POINTER_MAX
                && fs::read(entry.path()).on_volume(volume)?.starts_with(LFS_POINTER)
            {
                pointers.push(entry.path().strip_prefix(tree).map(Path::to_owned).unwrap_or_default());
            }
        }
    }
    warn_named(&pointers, "Git LFS is not supported, these files are only pointers");
    Ok(done)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn warn_named(paths: &[PathBuf], what: &str) {
    if paths.is_empty() {
        return;
    }
    let named: Vec<_> = paths.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let more = if paths.len() > NAMED { format!(" and {} more", paths.len() - NAMED) } else { String::new() };
    tracing::warn!("{what}: {}{more}", crate::redact::clean(&named.join(", ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_pose_as_gits_directory_are_left_to_libgit2() {
        let dubious_names: [&[u8]; 11] = [
            b".",
            b"..",
            b".git",
            b".GiT",
            b".git.",
            b".git ",
            b".git:x",
            b"git~1",
            b"GIT~2x",
            b".g\xe2\x80\x8cit",
            b"a\\b",
        ];
        for name in dubious_names {
            assert!(dubious(name), "{}", String::from_utf8_lossy(name));
        }
        for name in [".gitignore", ".github", ".git-blame-ignore-revs", "git", "...", "na\u{ef}ve", "x.git"] {
            assert!(!dubious(name.as_bytes()), "{name}");
        }
    }
}
