//! Writes a commit's files. Runs no code of the repository, writes nothing through its links, and refuses names
//! that leave the tree or pose as Git's own directory.
//!
//! Two writers produce the same tree. libgit2's writer supports attributes and validates names, but takes most
//! of a clone's time, because it inspects everything on disk again and again. The plain writer writes blobs
//! unchanged. podstrap uses it if no attribute requires a conversion and libgit2 need not validate a name.
//!
//! | file | purpose |
//! |---|---|
//! | entries | reads a commit entry by entry |
//! | attributes | attributes files, and libgit2's writer |
//! | scan | the size of a tree, and the writer that it needs |
//! | plain | the plain writer |
//! | settle | modes and times |

mod attributes;
mod entries;
mod plain;
mod scan;
mod settle;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{Commit, ErrorCode, ObjectType, Oid, Repository, Tree};

use crate::error::{Error, IoContext, Result};
use crate::files;
use crate::plan::{GitSource, GitUrl, RESERVED, Submodules, TreePath};
use crate::retry::Deadline;
use crate::source::checkout::entries::{Entries, FileKind, Objects, PATH_MAX, Step};
use crate::source::destination::Destination;
use crate::source::lfs;
use crate::source::objects::failure;
use crate::source::remote::refs::Choice;
use crate::source::remote::submodules;
use crate::tree::{Written, few, reserved};

#[cfg(fuzzing)]
pub use scan::fuzz;

/// Number of directories in a hint.
const LISTED: usize = 8;

/// A checked-out commit, and its submodules.
pub(crate) struct CheckedOut {
    pub(crate) written: Written,
    /// To fetch from elsewhere. Their directories exist and are empty.
    pub(crate) submodules: Vec<Submodule>,
}

/// A submodule: a commit of another repository.
pub(crate) struct Submodule {
    /// In the tree.
    pub(crate) path: PathBuf,
    /// As in `.gitmodules`.
    pub(crate) url: String,
    pub(crate) commit: Oid,
}

/// Writes the chosen commit's files.
pub(crate) fn write(
    repo: &Repository,
    source: &GitSource,
    choice: &Choice,
    to: Destination<'_>,
    deadline: Deadline,
) -> Result<CheckedOut> {
    let Destination { tree, scratch, subdir, limit, lfs_pointers } = to;
    let subdir = subdir.map(TreePath::as_path);
    let commit = find(repo, choice, &source.url)?;
    let what = format!("cannot check out {} of {}", commit.id(), source.url);
    let failed = |error: git2::Error| failure(&what, &error).permanent();
    let whole = commit.tree().map_err(failed)?;
    let files = match subdir {
        Some(path) => part(repo, &whole, path, &what)?,
        None => whole.clone(),
    };
    if files.get_name_bytes(RESERVED.as_bytes()).is_some() {
        return Err(reserved(format!("{} has an entry {RESERVED} at its top level", source.url)));
    }
    let objects = Objects { repo, odb: repo.odb().map_err(failed)?, what: &what, deadline };
    let mut scan = scan::scan(&objects, &files, PATH_MAX - 1 - tree.as_os_str().len(), limit)?;
    // Attributes above a part apply to it as well.
    let above = subdir.into_iter().flat_map(|path| path.ancestors().skip(1));
    for directory in above {
        scan.attributes.read_in(&objects, &whole, directory)?;
    }
    match fs::create_dir(tree) {
        // The empty directory of a submodule.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_empty(tree)? => {}
        made => made.on_volume(|| format!("cannot create {}", tree.display()))?,
    }
    scan.attributes.warn();
    let seen = if scan.plain() {
        Some(plain::write(&objects, &files, tree, &scan)?)
    } else {
        attributes::write(&objects, &whole, &files, subdir, tree, scratch, &scan.attributes)?;
        None
    };
    let settled = settle::settle(tree, &commit, seen.is_none(), deadline)?;
    lfs::judge(&what, &seen.unwrap_or(settled.pointers), lfs_pointers)?;
    let submodules = match scan.submodules {
        0 => Vec::new(),
        _ if source.submodules == Submodules::Off => {
            let found = gitlinks(&objects, &files)?;
            let paths: Vec<PathBuf> = found.into_iter().map(|(path, _)| path).collect();
            tracing::warn!("--submodules off leaves {} empty: {}", directories(paths.len()), few(&paths));
            Vec::new()
        }
        _ => named_submodules(&objects, &whole, &files, subdir, scratch)?,
    };
    Ok(CheckedOut { written: settled.written, submodules })
}

/// The directory of the repository that becomes the tree.
fn part<'repo>(repo: &'repo Repository, whole: &Tree<'repo>, path: &Path, what: &str) -> Result<Tree<'repo>> {
    let refused = |why: String| Err(Error::source(what).because(format!("--subdir {}: {why}", path.display())));
    let mut at = whole.clone();
    let mut seen = PathBuf::new();
    for name in path {
        let Some(entry) = at.get_name_bytes(name.as_bytes()) else {
            let names = at.iter().filter(|entry| entry.kind() == Some(ObjectType::Tree));
            let names: Vec<_> = names.map(|entry| String::from_utf8_lossy(entry.name_bytes()).into_owned()).collect();
            let place = if seen.as_os_str().is_empty() { "the repository".into() } else { seen.display().to_string() };
            return refused(format!("there is no {} in {place}", name.display()))
                .map_err(|error| error.hint(format!("choose a directory in {place}: {}", listed(&names))));
        };
        seen.push(name);
        let kind = FileKind::of(entry.filemode());
        let next = match kind {
            FileKind::Directory => entry
                .to_object(repo)
                .and_then(|object| object.peel_to_tree())
                .map_err(|error| failure(what, &error).permanent())?,
            FileKind::Submodule => {
                return refused(format!("{} is a submodule", seen.display()))
                    .map_err(|error| error.hint("give the submodule's own repository with --repo"));
            }
            FileKind::Link => return refused(format!("{} is a symbolic link", seen.display())),
            FileKind::Regular { .. } => return refused(format!("{} is a file", seen.display())),
        };
        drop(entry);
        at = next;
    }
    Ok(at)
}

/// The first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let more = if names.len() > LISTED { format!(" and {} more", names.len() - LISTED) } else { String::new() };
    format!("{}{more}", names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "))
}

fn find<'repo>(repo: &'repo Repository, choice: &Choice, url: &GitUrl) -> Result<Commit<'repo>> {
    let name = choice.reference.clone().unwrap_or_else(|| choice.commit.to_string());
    let object = repo.find_object(choice.want, None).map_err(|error| {
        if error.code() == ErrorCode::NotFound {
            let error = Error::source(format!("{url} has no commit {}", choice.want));
            let push = "push the commit to a branch or a tag: most servers send only the commits of branches and tags";
            let meant = |name| format!("use --ref {name}: 40 hexadecimal digits mean a commit");
            return error.hint(choice.namesake.as_ref().map_or_else(|| push.to_owned(), meant));
        }
        failure(&format!("cannot read {name} of {url}"), &error).permanent()
    })?;
    object.peel_to_commit().map_err(|_| {
        let kind =
            object.as_tag().and_then(git2::Tag::target_type).or(object.kind()).map_or("nothing", |kind| kind.str());
        Error::source(format!("{name} of {url} points to a {kind}, not to a commit"))
            .hint("choose a branch, a tag of a commit, or a commit with --ref")
    })
}

/// The submodules of a tree, with their paths.
fn gitlinks<'a>(objects: &Objects<'a>, root: &Tree<'a>) -> Result<Vec<(PathBuf, Oid)>> {
    let (mut entries, mut found) = (Entries::new(objects, root)?, Vec::new());
    while let Some(step) = entries.next()? {
        match step {
            Step::Entry { kind: FileKind::Submodule, oid, .. } => found.push((entries.path.clone(), oid)),
            Step::Entry { kind: FileKind::Directory, oid, .. } => entries.enter(oid)?,
            _ => {}
        }
    }
    Ok(found)
}

/// The submodules with their URLs. `whole` has `.gitmodules`, `files` is its part at `subdir`.
fn named_submodules<'a>(
    objects: &Objects<'a>,
    whole: &Tree<'a>,
    files: &Tree<'a>,
    subdir: Option<&Path>,
    scratch: &Path,
) -> Result<Vec<Submodule>> {
    let entry = whole.get_name_bytes(submodules::FILE.as_bytes());
    let entry = entry.filter(|entry| matches!(FileKind::of(entry.filemode()), FileKind::Regular { .. }));
    let known = match entry {
        Some(entry) => submodules::read(objects.read(entry.id())?.data(), scratch)?,
        None => Vec::new(),
    };
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for (path, commit) in gitlinks(objects, files)? {
        let place = subdir.unwrap_or(Path::new("")).join(&path);
        match known.iter().find(|entry| entry.path == place) {
            Some(entry) => found.push(Submodule { path, url: entry.url.clone(), commit }),
            None => unknown.push(path),
        }
    }
    if !unknown.is_empty() {
        // Like git clone --recurse-submodules, leave the directory of an inactive submodule empty.
        let (file, directories) = (submodules::FILE, directories(unknown.len()));
        tracing::warn!("leaving {directories} empty, because {file} has no usable entry: {}", few(&unknown));
    }
    Ok(found)
}

fn directories(count: usize) -> &'static str {
    if count == 1 { "the submodule's directory" } else { "the submodules' directories" }
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(files::is_dir(dir)? && files::names(dir)?.is_empty())
}
