//! A commit's files, written by libgit2: no code of the repository runs, and names that would
//! leave the tree or pose as Git's own directory are refused.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{Commit, ErrorCode, ObjectType, Repository};

use crate::error::{Error, IoContext, Result};
use crate::plan::RESERVED;
use crate::retry::Deadline;
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
    deadline: Deadline,
) -> Result<Checkout> {
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

    // Attributes are looked up in the index and in the working directory.
    repo.set_workdir(tree, false).map_err(failed)?;
    repo.index().and_then(|mut index| index.read_tree(&files).and_then(|()| index.write())).map_err(failed)?;
    let mut options = CheckoutBuilder::new();
    options.force().update_index(false);
    repo.checkout_tree(files.as_object(), Some(&mut options)).map_err(failed)?;
    settle(tree, scan.lfs, deadline)
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

/// What there is to know before anything is written.
#[derive(Default)]
struct Scan {
    submodules: Vec<PathBuf>,
    /// Whether some attribute file hands files over to Git LFS.
    lfs: bool,
}

impl Scan {
    fn new(repo: &Repository, root: &git2::Tree<'_>) -> Result<Self, git2::Error> {
        let mut scan = Self::default();
        let mut trees = vec![(PathBuf::new(), root.clone())];
        while let Some((at, tree)) = trees.pop() {
            for entry in &tree {
                let name = entry.name_bytes();
                if name.contains(&b'/') {
                    // libgit2 would take it for a path.
                    return Err(git2::Error::from_str("the name of an entry holds a slash"));
                }
                let path = || at.join(std::ffi::OsStr::from_bytes(name));
                match entry.kind() {
                    Some(ObjectType::Tree) => trees.push((path(), repo.find_tree(entry.id())?)),
                    Some(ObjectType::Commit) => scan.submodules.push(path()),
                    _ if name == b".gitattributes" => {
                        let blob = repo.find_blob(entry.id())?;
                        scan.lfs |= blob.content().windows(10).any(|text| text == b"filter=lfs");
                    }
                    _ => {}
                }
            }
        }
        Ok(scan)
    }
}

/// Gives everything the mode that Git has for it, whatever the umask made of it, and counts.
fn settle(tree: &Path, lfs: bool, deadline: Deadline) -> Result<Checkout> {
    let mut done = Checkout { files: 0, bytes: 0 };
    let (mut directories, mut pointers) = (vec![tree.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        if deadline.passed() {
            return Err(late(&format!("cannot finish {}", tree.display())));
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
