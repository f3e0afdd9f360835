//! A `.git` for the tree: the scratch repository made one that Git itself can use, as `git clone` of
//! the chosen reference would leave it.

use std::fs;
use std::path::Path;

use git2::{AutotagOption, FetchOptions, RemoteCallbacks, Repository};

use crate::error::{IoContext, Result};
use crate::plan::GitSource;
use crate::retry::Deadline;
use crate::size::Size;
use crate::source::git::refs::{Choice, Ref, Refs};
use crate::source::git::{create, failure};
use crate::source::set_mode;

/// Everything of a repository: its branches and tags, and the reference itself, which may be neither.
pub(super) fn refspecs(reference: Option<&str>) -> Vec<String> {
    let mut specs = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:refs/{kind}/*")).to_vec();
    let other = reference.filter(|name| !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/"));
    specs.extend(other.filter(|name| *name != "HEAD").map(|name| format!("+{name}:{name}")));
    specs
}

/// Copies what a repository of this machine has into a new one: its objects would not be there where
/// the tree is used.
pub(super) fn fetch_local(
    from: &Path,
    to: &Path,
    refspecs: &[String],
    limit: Size,
    deadline: Deadline,
    what: &str,
) -> Result<()> {
    create(to)?;
    let fetch = || {
        let repo = Repository::open_bare(to)?;
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(|done| !deadline.passed() && done.received_bytes() as u64 <= limit.0);
        let mut options = FetchOptions::new();
        options.remote_callbacks(callbacks).download_tags(AutotagOption::None).update_fetchhead(false);
        repo.remote_anonymous(&from.to_string_lossy())?.download(refspecs, Some(&mut options))
    };
    fetch().map_err(|error: git2::Error| failure(what, &error).permanent())
}

/// Moves the scratch repository, which has the objects, to the tree's `.git`. `refs` are those of the
/// remote; what of them was fetched is there as well.
pub(super) fn keep(scratch: &Path, source: &GitSource, choice: &Choice, refs: &Refs, tree: &Path) -> Result<()> {
    let what = format!("cannot make a .git for {}", source.url);
    equip(scratch, source, choice, refs).map_err(|error| failure(&what, &error).permanent())?;
    let cut = scratch.join("shallow");
    if !refs.shallow.is_empty() && !cut.exists() {
        // What the remote does not have itself, Git is not to look for.
        let lines: String = refs.shallow.iter().fold(String::new(), |lines, oid| lines + &format!("{oid}\n"));
        fs::write(&cut, lines).on_volume(|| format!("cannot write {}", cut.display()))?;
    }
    let git = tree.join(".git");
    fs::rename(scratch, &git).on_volume(|| format!("cannot move the repository to {}", git.display()))?;
    let index = || {
        let repo = Repository::open(tree)?;
        let files = repo.find_commit(choice.commit)?.tree()?;
        let mut index = repo.index()?;
        index.read_tree(&files)?;
        index.write()
    };
    index().map_err(|error: git2::Error| failure(&what, &error).permanent())?;
    readable(&git)
}

/// References, HEAD and the remote, without credentials.
fn equip(scratch: &Path, source: &GitSource, choice: &Choice, refs: &Refs) -> Result<(), git2::Error> {
    let repo = Repository::open_bare(scratch)?;
    let made = "made by podstrap";
    let odb = repo.odb()?;
    for Ref { name, oid, .. } in refs.all.iter().filter(|found| source.depth == 0 && odb.exists(found.oid)) {
        let here = match name.strip_prefix("refs/heads/") {
            Some(branch) => format!("refs/remotes/origin/{branch}"),
            None if name.starts_with("refs/tags/") => name.clone(),
            None => continue,
        };
        repo.reference(&here, *oid, true, made)?;
    }
    let mut config = repo.config()?;
    let name = choice.reference.as_deref().unwrap_or_default();
    if let Some(branch) = name.strip_prefix("refs/heads/") {
        repo.reference(name, choice.commit, true, made)?;
        repo.reference(&format!("refs/remotes/origin/{branch}"), choice.commit, true, made)?;
        repo.set_head(name)?;
        config.set_str(&format!("branch.{branch}.remote"), "origin")?;
        config.set_str(&format!("branch.{branch}.merge"), name)?;
    } else {
        if name.starts_with("refs/tags/") {
            repo.reference(name, choice.want, true, made)?;
        }
        repo.set_head_detached(choice.commit)?;
    }
    config.set_str("remote.origin.url", &source.url.to_string())?;
    config.set_str("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")?;
    config.set_bool("core.bare", false)?;
    config.set_bool("core.logAllRefUpdates", true)
}

/// Gives everything the modes that everybody can read.
fn readable(git: &Path) -> Result<()> {
    let mut directories = vec![git.to_owned()];
    while let Some(dir) = directories.pop() {
        let volume = || format!("cannot finish {}", dir.display());
        set_mode(&dir, 0o755).on_volume(volume)?;
        for entry in fs::read_dir(&dir).on_volume(volume)? {
            let entry = entry.on_volume(volume)?;
            if entry.file_type().on_volume(volume)?.is_dir() {
                directories.push(entry.path());
            } else {
                // Objects and packs are for reading only.
                let mode = if dir.starts_with(git.join("objects")) { 0o444 } else { 0o644 };
                set_mode(&entry.path(), mode).on_volume(volume)?;
            }
        }
    }
    Ok(())
}
