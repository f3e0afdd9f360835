//! Deleting old releases.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use super::layout::{random, release_of_current, release_of_link};
use super::root::Volume;

impl Volume {
    /// Deletes old releases. Keeps those that a link shows, and the `previous` newest of the rest.
    pub async fn retain(&self, previous: usize) {
        if let Err(error) = self.retire(previous) {
            tracing::warn!("cannot delete old releases in {}: {error}", self.own.display());
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
    fn retire(&self, previous: usize) -> io::Result<()> {
        let mut live = self.live()?;
        if previous > 0 {
            let mut others: Vec<_> = self.complete().filter(|release| !live.contains(&release.id)).collect();
            others.sort_by(|one, other| other.manifest.built_at.cmp(&one.manifest.built_at));
            live.extend(others.into_iter().take(previous).map(|release| release.id));
        }
        for entry in fs::read_dir(self.own.join("releases"))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|id| live.contains(id)) {
                continue;
            }
            if let Err(error) = fs::rename(entry.path(), self.own.join("staging").join(random())) {
                tracing::warn!("cannot move the old release {} to staging: {error}", entry.path().display());
            }
        }
        Ok(())
    }

    /// The releases that links show. Fails if a link cannot be read, since it might show one.
    fn live(&self) -> io::Result<HashSet<String>> {
        let read = |link: &Path| match fs::read_link(link) {
            Ok(to) => Ok(Some(to)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
            Err(error) => Err(error),
        };
        let mut live = HashSet::new();
        live.extend(read(&self.own.join("current"))?.and_then(|to| release_of_current(&to)));
        for entry in fs::read_dir(&self.root)? {
            live.extend(read(&entry?.path())?.and_then(|to| release_of_link(&to)));
        }
        Ok(live)
    }
}
