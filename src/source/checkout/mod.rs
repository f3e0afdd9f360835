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
//! | settle | modes and times after libgit2's writer |

mod attributes;
mod entries;
mod plain;
mod scan;
mod settle;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository};
use rustix::fs::{Timespec, Timestamps};

use crate::error::{Error, IoContext, Result};
use crate::files;
use crate::plan::{GitSource, GitUrl, RESERVED, Submodules, TreePath};
use crate::retry::Deadline;
use crate::source::checkout::entries::{Entries, PATH_MAX, Step};
use crate::source::destination::Destination;
use crate::source::lfs;
use crate::source::objects::{Fetched, FileKind, Objects, Store, commit, failure, tag};
use crate::source::remote::refs::Choice;
use crate::source::remote::submodules;
use crate::tree::{Written, few, reserved, too_large};

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
    fetched: &Fetched,
    source: &GitSource,
    choice: &Choice,
    to: Destination<'_>,
    deadline: Deadline,
) -> Result<CheckedOut> {
    let Destination { tree, scratch, subdir, limit, lfs_pointers } = to;
    let subdir = subdir.map(TreePath::as_path);
    let what = format!("cannot check out {} of {}", choice.commit, source.url);
    let open = |path: &Path| Repository::open_bare(path).map_err(|error| failure("cannot read the objects", &error));
    let opened;
    let store = match fetched {
        Fetched::Pack(pack, _) => Store::Pack(pack),
        Fetched::Repository(path) => {
            opened = open(path)?;
            Store::Libgit2(opened.odb().map_err(|error| failure(&what, &error).permanent())?)
        }
    };
    let objects = Objects { store, what: &what, deadline };
    let commit = find(&objects, choice, &source.url)?;
    let files = match subdir {
        Some(path) => part(&objects, commit.directory, path)?,
        None => commit.directory,
    };
    if objects.find(files, Path::new(RESERVED))?.is_some() {
        return Err(reserved(format!("{} has an entry {RESERVED} at its top level", source.url)));
    }
    let mut scan = scan::scan(&objects, files, PATH_MAX - 1 - tree.as_os_str().len(), limit)?;
    // Attributes above a part apply to it as well.
    let above = subdir.into_iter().flat_map(|path| path.ancestors().skip(1));
    for directory in above {
        scan.attributes.read_in(&objects, commit.directory, directory)?;
    }
    match fs::create_dir(tree) {
        // The empty directory of a submodule.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_empty(tree)? => {}
        made => made.on_volume(|| format!("cannot create {}", tree.display()))?,
    }
    scan.attributes.warn();
    let time = Timespec { tv_sec: commit.time, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let settled = if scan.plain() {
        plain::write(&objects, files, tree, &scan, &times)?
    } else {
        if let Fetched::Pack(..) = fetched {
            // libgit2 needs a copy of the pack.
            let bytes = scan.bytes.saturating_add(fetched.occupied()?);
            if bytes > limit.0 {
                return Err(too_large(&what, "the files and the pack take", bytes, limit));
            }
        }
        let repo = open(&fetched.repository(deadline, &what)?)?;
        attributes::write(&repo, &objects, commit.directory, files, subdir, tree, scratch, &scan.attributes)?;
        settle::settle(tree, &times, deadline)?
    };
    lfs::judge(&what, &settled.pointers, lfs_pointers)?;
    let submodules = match scan.submodules {
        0 => Vec::new(),
        _ if source.submodules == Submodules::Off => {
            let found = gitlinks(&objects, files)?;
            let paths: Vec<PathBuf> = found.into_iter().map(|(path, _)| path).collect();
            tracing::warn!("--submodules off leaves {} empty: {}", directories(paths.len()), few(&paths));
            Vec::new()
        }
        _ => named_submodules(&objects, commit.directory, files, subdir, scratch)?,
    };
    Ok(CheckedOut { written: settled.written, submodules })
}

/// The directory of the repository that becomes the tree.
fn part(objects: &Objects<'_>, whole: Oid, path: &Path) -> Result<Oid> {
    let refused = |why: String| Err(Error::source(objects.what).because(format!("--subdir {}: {why}", path.display())));
    let (mut at, mut seen) = (whole, PathBuf::new());
    for name in path {
        let Some((id, kind)) = objects.find(at, Path::new(name))? else {
            let place = if seen.as_os_str().is_empty() { "the repository".into() } else { seen.display().to_string() };
            let names = objects.entries(at)?.into_iter().filter(|(.., kind)| *kind == FileKind::Directory);
            let names: Vec<_> = names.map(|(name, ..)| String::from_utf8_lossy(&name).into_owned()).collect();
            return refused(format!("there is no {} in {place}", name.display()))
                .map_err(|error| error.hint(format!("choose a directory in {place}: {}", listed(&names))));
        };
        seen.push(name);
        match kind {
            FileKind::Directory => at = id,
            FileKind::Submodule => {
                return refused(format!("{} is a submodule", seen.display()))
                    .map_err(|error| error.hint("give the submodule's own repository with --repo"));
            }
            FileKind::Link => return refused(format!("{} is a symbolic link", seen.display())),
            FileKind::Regular { .. } => return refused(format!("{} is a file", seen.display())),
        }
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

/// A commit's directory, and its time in seconds since 1970.
struct Commit {
    directory: Oid,
    time: i64,
}

fn find(objects: &Objects<'_>, choice: &Choice, url: &GitUrl) -> Result<Commit> {
    let name = choice.reference.clone().unwrap_or_else(|| choice.commit.to_string());
    let Some((_, first)) = objects.known(choice.want)? else {
        let error = Error::source(format!("{url} has no commit {}", choice.want));
        let push = "push the commit to a branch or a tag: most servers send only the commits of branches and tags";
        let meant = |name| format!("use --ref {name}: 40 hexadecimal digits mean a commit");
        return Err(error.hint(choice.namesake.as_ref().map_or_else(|| push.to_owned(), meant)));
    };
    let (mut at, mut kind) = (choice.want, first);
    // A tag cannot contain itself: its name is the hash of its contents.
    while kind == ObjectType::Tag {
        at = tag(&objects.read(at)?).ok_or_else(|| objects.damaged(at))?;
        kind = objects.header(at)?.1;
    }
    if kind != ObjectType::Commit {
        return Err(Error::source(format!("{name} of {url} points to a {kind}, not to a commit"))
            .hint("choose a branch, a tag of a commit, or a commit with --ref"));
    }
    let (directory, time) = commit(&objects.read(at)?).ok_or_else(|| objects.damaged(at))?;
    Ok(Commit { directory, time })
}

/// The submodules of a tree, with their paths.
fn gitlinks(objects: &Objects<'_>, root: Oid) -> Result<Vec<(PathBuf, Oid)>> {
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
fn named_submodules(
    objects: &Objects<'_>,
    whole: Oid,
    files: Oid,
    subdir: Option<&Path>,
    scratch: &Path,
) -> Result<Vec<Submodule>> {
    let known = match objects.find(whole, Path::new(submodules::FILE))? {
        Some((id, FileKind::Regular { .. })) => submodules::read(&objects.read(id)?, scratch)?,
        _ => Vec::new(),
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
