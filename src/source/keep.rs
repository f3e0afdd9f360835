//! A `.git` for the tree: turns the scratch repository into one that Git can use, as after `git clone` of the
//! chosen reference.

use std::fs;
use std::path::Path;

use git2::Repository;

use crate::error::{IoContext, Result};
use crate::files;
use crate::plan::GitSource;
use crate::source::objects::failure;
use crate::source::remote::refs::{Choice, Ref, Refs};
use crate::tree::set_mode;
use crate::walk::{WalkError, walk};

/// The refspecs of a whole repository: its branches and tags, and the reference itself, which may be neither.
pub(crate) fn refspecs(reference: Option<&str>) -> Vec<String> {
    let mut specs = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:refs/{kind}/*")).to_vec();
    let other = reference.filter(|name| !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/"));
    specs.extend(other.filter(|name| *name != "HEAD").map(|name| format!("+{name}:{name}")));
    specs
}

/// Moves the scratch repository with its objects to the tree's `.git`. `refs` are those of the remote; the
/// fetched ones become references here.
pub(crate) fn keep(scratch: &Path, source: &GitSource, choice: &Choice, refs: &Refs, tree: &Path) -> Result<()> {
    let what = format!("cannot create a .git for {}", source.url);
    equip(scratch, source, choice, refs).map_err(|error| failure(&what, &error).permanent())?;
    let cut = scratch.join("shallow");
    if !refs.shallow.is_empty() && !files::exists(&cut)? {
        // Git must not look for commits that the remote itself does not have.
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

/// Adds references, HEAD and the remote, without credentials.
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

/// Makes everything readable for all users.
fn readable(git: &Path) -> Result<()> {
    for entry in walk(git) {
        let entry = entry.map_err(WalkError::on_volume)?;
        // As in Git, objects and packs are read-only.
        let mode = match () {
            () if entry.is_dir() => 0o755,
            () if entry.name.starts_with("objects") => 0o444,
            () => 0o644,
        };
        set_mode(&entry.path, mode).on_volume(|| format!("cannot set the mode of {}", entry.path.display()))?;
    }
    Ok(())
}
