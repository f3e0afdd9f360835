//! Staging a release, and the rename that completes it.

use std::io;
use std::path::PathBuf;

use super::disk::{BOOT, Boot};
use super::list;
use super::manifest::{Manifest, Release};
use super::root::{LIST, RECORD, Volume};
use super::usage::Meter;
use crate::dir::{Dir, random};
use crate::error::{Error, IoContext, Result};
use crate::runtime::blocking;

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
    /// Writes a file next to the tree.
    fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let written = self.release.write(name, text);
        written.on_volume(|| format!("cannot write {}", self.release.path().join(name).display()))
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

    /// Lists the entries of a staged tree, and returns their number. Afterwards nothing in it may change.
    ///
    /// # Errors
    /// The volume exceeds the size limit, or it is full or not writable.
    pub async fn settle(&self, staging: &Staging, meter: &Meter) -> Result<u64> {
        let tree = staging.tree();
        let failed = format!("cannot list {}", tree.display());
        let (id, measured) = blocking(move || {
            let measured =
                rustix::fs::stat(&tree).map_err(io::Error::from).and_then(|id| Ok((id, list::measure(&tree)?)));
            measured.on_volume(|| failed)
        })
        .await?;
        meter.settle(&id, measured.occupied);
        meter.look().await?;
        staging.write(LIST, &measured.text)?;
        Ok(measured.entries)
    }

    /// Completes a staged release by one rename.
    ///
    /// Its ID starts with `name`, which helps people who list the directory.
    pub async fn commit(&self, staging: &Staging, name: &str, manifest: Manifest) -> Result<Release> {
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::internal("cannot write release.json").because(error))?;
        staging.write(RECORD, &text)?;
        match self.disk.depends_on() {
            Some(boot) => staging.write(BOOT, boot.as_bytes())?,
            None => self.write_to_disk(&staging.release).await?,
        }
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
            .on_volume(|| format!("cannot create the release {}", path.join(&id).display()))?;
        self.disk.sync(&self.releases)?;
        Ok(Release { id, manifest })
    }

    /// Records that a complete release of an earlier run is complete in this boot of the node. On a durable volume,
    /// writes it to disk.
    pub async fn vouch(&self, release: &Release) -> Result<()> {
        let path = self.releases.path().join(&release.id);
        let failed = || format!("cannot write {}", path.join(BOOT).display());
        let dir = self.releases.dir(&release.id).on_volume(failed)?;
        match (self.disk.built_in(&dir).on_volume(failed)?, self.disk.depends_on()) {
            (Boot::Any, _) | (Boot::This, Some(_)) => Ok(()),
            (_, None) => {
                self.write_to_disk(&dir).await?;
                dir.remove_file(BOOT).and_then(|()| dir.sync()).on_volume(failed)
            }
            (Boot::Earlier, Some(boot)) => {
                let temporary = random();
                let replaced = self.staging.write(&temporary, boot.as_bytes());
                // The release is complete, even on a full volume: the next run looks at its files once more.
                if let Err(error) = replaced.and_then(|()| self.staging.rename(&temporary, &dir, BOOT)) {
                    tracing::debug!("{}: {error}", failed());
                }
                Ok(())
            }
        }
    }

    async fn write_to_disk(&self, release: &Dir) -> Result<()> {
        let (release, root) = (release.again(), self.root.path().to_owned());
        let sync = move || release.and_then(|release| release.sync_all());
        blocking(move || sync().on_volume(|| format!("cannot sync {} to disk", root.display()))).await
    }
}
