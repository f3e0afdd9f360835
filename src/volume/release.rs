//! Staging a release, and the rename that completes it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, Release};
use super::root::{LIST, RECORD, Volume};
use crate::dir::{Dir, random};
use crate::error::{Error, IoContext, Result};
use crate::runtime::blocking;
use crate::walk::walk;

/// A directory for one build, which only podstrap's user can open. [`Volume::clear`] removes it, in the next run if
/// this one was killed.
#[derive(Debug)]
pub struct Staging {
    dir: Dir,
    /// Becomes the release.
    release: Dir,
}

impl Staging {
    /// Does not exist yet; becomes the release's `tree`.
    pub fn tree(&self) -> PathBuf {
        self.release.path().join("tree")
    }
    /// Does not exist yet. The environment is built here and moves into the tree when it is complete.
    pub fn venv(&self) -> PathBuf {
        self.dir.path().join("venv")
    }
    /// An empty directory for temporary files.
    pub fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }
}

impl Volume {
    /// Creates a directory to build in.
    pub fn stage(&self) -> Result<Staging> {
        let made = |parent: &Dir, name: &str| parent.create_dir(name).and_then(|()| parent.dir(name));
        let stage = || {
            let dir = made(&self.staging, &random())?;
            made(&dir, "scratch")?;
            let release = made(&dir, "release")?;
            release.set_mode(0o755)?;
            Ok(Staging { dir, release })
        };
        let staged: io::Result<_> = stage();
        staged.on_volume(|| format!("cannot create a directory in {}", self.staging.path().display()))
    }

    /// Writes a staged release to disk, then completes it by one rename.
    ///
    /// Its ID starts with `name`, which helps people who list the directory.
    pub async fn commit(&self, staging: &Staging, name: &str, manifest: Manifest) -> Result<Release> {
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::internal("cannot write release.json").because(error))?;
        let failed = |name: &str| format!("cannot write {}", staging.tree().with_file_name(name).display());
        let (tree, root) = (staging.tree(), self.root.path().to_owned());
        let release = staging.release.again().on_volume(|| failed(RECORD))?;
        let (record, files) = (failed(RECORD), failed(LIST));
        blocking(move || {
            release.write(RECORD, &text).on_volume(|| record)?;
            list(&tree).and_then(|names| release.write(LIST, &names)).on_volume(|| files)?;
            // The files must reach the disk before the rename that marks them complete.
            release.sync_all().on_volume(|| format!("cannot sync {} to disk", root.display()))
        })
        .await?;
        let base = format!("{name}-{}", &manifest.key[..12]);
        let mut id = base.clone();
        let path = self.releases.path();
        // A rebuild of the same inputs stands next to the earlier release.
        let mut next = 2;
        while self.releases.entry(&id).on_volume(|| format!("cannot inspect {}", path.join(&id).display()))?.is_some() {
            id = format!("{base}-{next}");
            next += 1;
        }
        staging
            .dir
            .rename("release", &self.releases, &id)
            .and_then(|()| self.releases.sync())
            .on_volume(|| format!("cannot create the release {}", path.join(&id).display()))?;
        Ok(Release { id, manifest })
    }
}

/// The paths of everything below a directory, sorted, with a NUL between them.
fn list(dir: &Path) -> io::Result<Vec<u8>> {
    let names: Result<Vec<_>, _> = walk(dir).map(|entry| entry.map(|entry| entry.name)).collect();
    let mut names = names?;
    names.retain(|name| !name.as_os_str().is_empty());
    names.sort();
    Ok(names.iter().map(|name| name.as_os_str().as_bytes()).collect::<Vec<_>>().join(&0))
}
