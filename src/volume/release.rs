//! Staging a release, and the rename that completes it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::layout::{make_dir, random, sync_dir};
use super::manifest::{Manifest, Release};
use super::root::{LIST, Volume};
use crate::error::{Error, IoContext, Result};
use crate::runtime::blocking;
use crate::walk::walk;

/// A directory for one build. [`Volume::clear`] removes it, in the next run if this one was killed.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// Does not exist yet; becomes the release's `tree`.
    pub fn tree(&self) -> PathBuf {
        self.release().join("tree")
    }
    /// Does not exist yet. The environment is built here and moves into the tree when it is complete.
    pub fn venv(&self) -> PathBuf {
        self.dir.join("venv")
    }
    /// An empty directory for temporary files.
    pub fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }
    fn release(&self) -> PathBuf {
        self.dir.join("release")
    }
}

impl Volume {
    /// Creates a directory to build in.
    pub fn stage(&self) -> Result<Staging> {
        let dir = self.own.join("staging").join(random());
        let staging = Staging { dir };
        for dir in [&staging.dir, &staging.release(), &staging.scratch()] {
            make_dir(dir, self.shared)?;
        }
        Ok(staging)
    }

    /// Writes a staged release to disk, then completes it by one rename.
    ///
    /// Its ID starts with `name`, which helps people who list the directory.
    pub async fn commit(&self, staging: &Staging, name: &str, manifest: Manifest) -> Result<Release> {
        let path = staging.release().join("release.json");
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::internal("cannot write release.json").because(error))?;
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
            .on_volume(|| format!("cannot write {}", path.display()))?;

        let tree = staging.tree();
        blocking(move || {
            let path = tree.with_file_name(LIST);
            list(&tree)
                .and_then(|names| fs::write(&path, names))
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
                .on_volume(|| format!("cannot write {}", path.display()))
        })
        .await?;
        let releases = self.own.join("releases");
        let opened = File::open(&releases).on_volume(|| format!("cannot open {}", releases.display()))?;
        let what = format!("cannot sync {} to disk", self.root.display());
        // The files must reach the disk before the rename that marks them complete.
        blocking(move || rustix::fs::syncfs(&opened).map_err(io::Error::from).on_volume(|| what)).await?;
        let base = format!("{name}-{}", &manifest.key[..12]);
        let mut id = base.clone();
        // A rebuild of the same inputs stands next to the earlier release.
        let mut next = 2;
        while releases.join(&id).exists() {
            id = format!("{base}-{next}");
            next += 1;
        }
        let to = releases.join(&id);
        fs::rename(staging.release(), &to).on_volume(|| format!("cannot create the release {}", to.display()))?;
        sync_dir(&releases)?;
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
