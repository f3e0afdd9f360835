//! Finds the directory of a commit that becomes the tree, and inspects it before any of it is written.

use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};
use rustix::fs::{Timespec, Timestamps};

use crate::error::{Error, Result};
use crate::plan::{GitSource, GitUrl, RESERVED};
use crate::size::Size;
use crate::source::checkout::entries::PATH_MAX;
use crate::source::checkout::scan::{self, Scan};
use crate::source::objects::{FileKind, Objects, commit, tag};
use crate::source::remote::refs::Choice;
use crate::tree::reserved;

/// Number of directories in a hint.
const LISTED: usize = 8;

/// The directories of a commit, inspected.
pub(super) struct Layout {
    /// The whole commit, and its part that becomes the tree.
    pub(super) whole: Oid,
    pub(super) files: Oid,
    pub(super) scan: Scan,
    /// Of every file.
    pub(super) times: Timestamps,
}

impl Layout {
    /// Inspects the chosen commit, for a checkout of at most `limit` to `tree`.
    pub(super) fn new(
        objects: &Objects<'_>,
        source: &GitSource,
        choice: &Choice,
        tree: &Path,
        subdir: Option<&Path>,
        limit: Size,
    ) -> Result<Self> {
        let commit = find(objects, choice, &source.url)?;
        let files = match subdir {
            Some(path) => part(objects, commit.directory, path)?,
            None => commit.directory,
        };
        if objects.find(files, Path::new(RESERVED))?.is_some() {
            return Err(reserved(format!("{} has an entry {RESERVED} at its top level", source.url)));
        }
        let mut scan = scan::scan(objects, files, PATH_MAX - 1 - tree.as_os_str().len(), limit)?;
        // Attributes above a part apply to it as well.
        let above = subdir.into_iter().flat_map(|path| path.ancestors().skip(1));
        for directory in above {
            scan.attributes.read_in(objects, commit.directory, directory)?;
        }
        let time = Timespec { tv_sec: commit.time, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(Self { whole: commit.directory, files, scan, times })
    }
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
