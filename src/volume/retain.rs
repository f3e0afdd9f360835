//! Deleting old releases.

use std::collections::HashSet;
use std::io;

use super::layout::{release_of_current, release_of_link};
use super::root::Volume;
use crate::dir::random;
use crate::error::{IoContext, Result};

impl Volume {
    /// Deletes old releases. Keeps those that a link shows, those with these `ids`, and the `previous` newest of the rest.
    pub async fn retain(&self, previous: usize, ids: &[&str]) {
        if let Err(error) = self.retire(previous, ids) {
            tracing::warn!("cannot delete old releases: {}", error.told());
        }
        for (path, error) in self.clear().await {
            // Other errors pass: a process that outlived its run may still be writing.
            if error.kind() == io::ErrorKind::PermissionDenied {
                tracing::warn!(
                    "cannot delete {}, which uses space on the volume: {error}; run podstrap as the user who created \
                     it, or delete it by hand",
                    path.display()
                );
            }
        }
    }

    /// Moves each old release to staging by one rename, so that no half-deleted release remains.
    fn retire(&self, previous: usize, ids: &[&str]) -> Result<()> {
        let failed = || format!("cannot list {}", self.releases.path().display());
        let mut live = self.live().on_volume(|| format!("cannot read the links in {}", self.root.path().display()))?;
        live.extend(ids.iter().map(|id| (*id).to_owned()));
        if previous > 0 {
            let mut others: Vec<_> =
                self.complete()?.into_iter().filter(|release| !live.contains(&release.id)).collect();
            others.sort_by(|one, other| other.manifest.built_at.cmp(&one.manifest.built_at));
            live.extend(others.into_iter().take(previous).map(|release| release.id));
        }
        for id in self.releases.names().on_volume(failed)? {
            if id.to_str().is_some_and(|id| live.contains(id)) {
                continue;
            }
            if let Err(error) = self.releases.rename(&id, &self.staging, random()) {
                let path = self.releases.path().join(&id);
                tracing::warn!("cannot move the old release {} to staging: {error}", path.display());
            }
        }
        Ok(())
    }

    /// The releases that links show. Fails if a link cannot be read, since it might show one.
    fn live(&self) -> io::Result<HashSet<String>> {
        let mut live = HashSet::new();
        live.extend(self.own.link("current")?.and_then(|to| release_of_current(&to)));
        for name in self.root.names()? {
            live.extend(self.root.link(name)?.and_then(|to| release_of_link(&to)));
        }
        Ok(live)
    }
}
