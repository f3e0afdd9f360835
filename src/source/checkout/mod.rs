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
//! | layout | the directory that becomes the tree |
//! | scan | the size of a tree, and the writer that it needs |
//! | plain | the plain writer |
//! | early | begins to write while the pack arrives |
//! | signed | the signature of a commit or a tag |
//! | settle | modes and times after libgit2's writer |

mod attributes;
mod early;
mod entries;
mod layout;
mod plain;
mod scan;
mod settle;
mod signed;

use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use crate::error::{Error, Result};
use crate::plan::{GitSource, Submodules, TreePath};
use crate::retry::Deadline;
use crate::signature::{AllowedSigners, SignedBy};
use crate::source::checkout::entries::{Entries, Step};
use crate::source::checkout::layout::Layout;
use crate::source::destination::Destination;
use crate::source::lfs::{self, Pointer};
use crate::source::objects::{Fetched, FileKind, Objects, Store, failure};
use crate::source::remote::refs::Choice;
use crate::source::remote::submodules;
use crate::tree::{Written, few, too_large};

pub(crate) use early::Early;
pub(crate) use plain::Begun;
#[cfg(fuzzing)]
pub use scan::fuzz;

/// A checked-out commit, and its submodules.
pub(crate) struct CheckedOut {
    pub(crate) written: Written,
    /// Who signed the commit or its tag, if somebody must.
    pub(crate) signer: Option<SignedBy>,
    /// To fetch from elsewhere. Their directories exist and are empty.
    pub(crate) submodules: Vec<Submodule>,
    /// To fetch as well. The pointers are in their places.
    pub(crate) lfs: Option<LfsFiles>,
}

/// The files of Git LFS, and the repository's configuration for it.
pub(crate) struct LfsFiles {
    pub(crate) files: Vec<(PathBuf, Pointer)>,
    pub(crate) config: lfs::Config,
}

/// A submodule: a commit of another repository.
pub(crate) struct Submodule {
    /// In the tree.
    pub(crate) path: PathBuf,
    /// As in `.gitmodules`.
    pub(crate) url: String,
    pub(crate) commit: Oid,
}

/// Writes the chosen commit's files, or the rest of them.
pub(crate) fn write(
    fetched: &Fetched,
    begun: Option<Begun>,
    signers: Option<&AllowedSigners>,
    source: &GitSource,
    choice: &Choice,
    to: Destination<'_>,
    deadline: Deadline,
) -> Result<CheckedOut> {
    let Destination { tree, scratch, subdir, limit, lfs_pointers, .. } = to;
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
    let signer = signers.map(|signers| signed::verify(&objects, choice, signers)).transpose()?;
    let Layout { whole, files, scan, times } = Layout::new(&objects, source, choice, tree, subdir, limit)?;
    scan.attributes.warn();
    let settled = if scan.plain() {
        plain::write(&objects, files, tree, &scan, &times, begun)?
    } else {
        drop(begun);
        plain::make(tree)?;
        if let Fetched::Pack(..) = fetched {
            // libgit2 needs a copy of the pack.
            let bytes = scan.bytes.saturating_add(fetched.occupied()?);
            if bytes > limit.0 {
                return Err(too_large(&what, "the files and the pack take", bytes, limit));
            }
        }
        let repo = open(&fetched.repository(deadline, &what)?)?;
        attributes::write(&repo, &objects, whole, files, subdir, tree, scratch, &scan.attributes)?;
        settle::settle(tree, &times, deadline)?
    };
    let lfs = match settled.pointers {
        pointers if pointers.is_empty() => None,
        pointers if lfs_pointers => {
            lfs::warn(&pointers.into_iter().map(|(path, _)| path).collect::<Vec<_>>());
            None
        }
        pointers => Some(lfs_files(&objects, whole, subdir, pointers, scratch)?),
    };
    let submodules = match scan.submodules {
        0 => Vec::new(),
        _ if source.submodules == Submodules::Off => {
            let found = gitlinks(&objects, files)?;
            let paths: Vec<PathBuf> = found.into_iter().map(|(path, _)| path).collect();
            tracing::warn!("--submodules off leaves {} empty: {}", directories(paths.len()), few(&paths));
            Vec::new()
        }
        _ => named_submodules(&objects, whole, files, subdir, scratch)?,
    };
    Ok(CheckedOut { written: settled.written, signer, submodules, lfs })
}

/// The pointers whose contents Git LFS puts in their places: those with its filter, unless `.lfsconfig` leaves them out.
fn lfs_files(
    objects: &Objects<'_>,
    whole: Oid,
    subdir: Option<&Path>,
    pointers: Vec<(PathBuf, Result<Pointer, String>)>,
    scratch: &Path,
) -> Result<LfsFiles> {
    let config = match objects.find(whole, Path::new(lfs::FILE))? {
        Some((id, FileKind::Regular { .. })) => lfs::read(&objects.read(id)?, scratch)?,
        Some(_) => {
            return Err(Error::source(objects.what)
                .because(format!("{} of the repository is not a regular file", lfs::FILE))
                .hint("commit the file itself"));
        }
        None => lfs::Config::default(),
    };
    let filtered = attributes::Lookup::of(objects, whole, subdir, pointers.iter().map(|(path, _)| path), scratch)?;
    let chosen = attributes::Patterns::new(&config.include, &config.exclude, scratch)?;
    let (mut files, mut others, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for (path, pointer) in pointers {
        let at = subdir.unwrap_or(Path::new("")).join(&path);
        if !filtered.has(&at, "filter", "lfs")? {
            others.push(path);
        } else if !chosen.allow(&at)? {
            left_out.push(path);
        } else {
            let damaged = |why| {
                Error::source(objects.what)
                    .because(format!("the Git LFS pointer {} is unusable: {why}", path.display()))
                    .hint("commit the file again with git lfs, or use --lfs off to publish the pointer")
            };
            let pointer = pointer.map_err(damaged)?;
            files.push((path, pointer));
        }
    }
    if !others.is_empty() {
        tracing::warn!(
            "as with git, Git LFS pointers without the attribute filter=lfs stay pointers: {}",
            few(&others)
        );
    }
    if !left_out.is_empty() {
        tracing::warn!("{} leaves Git LFS pointers without contents: {}", lfs::FILE, few(&left_out));
    }
    Ok(LfsFiles { files, config })
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
