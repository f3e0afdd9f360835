//! Where a store is: a directory or a registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::entry::{self, Draft, Entry, Manifest};
use super::lease::{self, Seen, Taken};
use super::prune;
use super::registry::Registry;
use super::transfer;
use super::unusable::Unusable;
use crate::error::{Error, Result};
use crate::plan::Location;
use crate::retry::Deadline;
use crate::signature::{AllowedSigners, Signer};
use crate::size::Size;

/// Time limit for the archive of one entry that `podstrap store verify` reads. A registry that stalls ends it earlier.
const VERIFY: Duration = Duration::from_hours(1);

/// A store that is not opened yet: a path may hang.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Directory(PathBuf),
    Registry(Arc<Registry>),
}

impl Place {
    pub(super) fn new(at: &Location, auth: &[PathBuf]) -> Self {
        match at {
            Location::Directory(dir) => Self::Directory(dir.clone()),
            Location::Registry(registry) => Self::Registry(Arc::new(Registry::new(registry, auth))),
        }
    }

    /// The manifest of an entry, with a valid signature if there is a verifier.
    pub(super) fn look(&self, key: &str, verifier: Option<&AllowedSigners>) -> Result<Option<Manifest>, Unusable> {
        match self {
            Self::Directory(dir) => {
                let Some(text) = Directory::open(dir)?.manifest(key)? else { return Ok(None) };
                entry::open(&text, key, verifier).map(Some)
            }
            Self::Registry(registry) => {
                let Some((text, layer)) = registry.manifest(key)? else { return Ok(None) };
                let manifest = entry::open(&text, key, verifier)?;
                layer.is(&manifest.archive)?;
                Ok(Some(manifest))
            }
        }
    }

    /// Unpacks an entry to `to`, which must not exist yet. Leaves nothing there after an error.
    pub(super) fn restore(
        &self,
        manifest: &Manifest,
        to: &Path,
        most: Size,
        deadline: Deadline,
    ) -> Result<(), Unusable> {
        match self {
            Self::Directory(dir) => {
                let store = Directory::open(dir)?;
                store.touch(&manifest.key);
                let mut archive = store.archive(&manifest.archive)?;
                transfer::fits(&manifest.archive, most)?;
                transfer::unpack(&mut archive, manifest, to, deadline)
            }
            Self::Registry(registry) => {
                transfer::fits(&manifest.archive, most)?;
                transfer::unpack(&mut registry.archive(&manifest.archive, deadline)?, manifest, to, deadline)
            }
        }
    }

    /// Verifies everything about an entry.
    pub(super) fn verify(&self, key: &str, verifier: Option<&AllowedSigners>) -> Result<(), Unusable> {
        let gone = || Unusable::Failed(Error::volume("it is gone meanwhile"));
        let archive = self.look(key, verifier)?.ok_or_else(gone)?.archive;
        match self {
            Self::Directory(dir) => transfer::verify(&mut Directory::open(dir)?.archive(&archive)?, &archive),
            Self::Registry(registry) => {
                transfer::verify(&mut registry.archive(&archive, Deadline::after(VERIFY))?, &archive)
            }
        }
    }

    /// Deletes a damaged entry, as far as possible. In a registry, the next entry replaces it.
    pub(super) fn discard(&self, manifest: &Manifest) -> Result<()> {
        match self {
            Self::Directory(dir) => Directory::open(dir)?.discard(manifest),
            Self::Registry(_) => Ok(()),
        }
    }

    /// Saves an environment as an entry. A directory keeps to `most`, and loses its leftovers.
    ///
    /// # Errors
    /// Volume: the store is full or not writable. Environment: it has files that an archive cannot hold.
    pub(super) fn save(
        &self,
        draft: &Draft,
        venv: &Path,
        signer: Option<&Signer>,
        most: Size,
        deadline: Deadline,
    ) -> Result<Manifest> {
        match self {
            Self::Directory(dir) => {
                let store = Directory::open(dir)?;
                let manifest = store.save(draft, venv, signer, deadline)?;
                let pruned = prune::prune(&store, most).and_then(|(deleted, result)| {
                    tracing::debug!("deleted from the store: {deleted:?}");
                    result
                });
                if let Err(error) = pruned {
                    tracing::debug!("{}", error.summary());
                }
                Ok(manifest)
            }
            Self::Registry(registry) => registry.save(draft, venv, signer, deadline),
        }
    }

    /// Takes the lease of a key, unless another process has it. `before` is what the last call saw.
    ///
    /// # Errors
    /// Volume: the store cannot be written.
    pub(super) fn take(&self, key: &str, before: Option<Seen>) -> Result<Taken> {
        match self {
            Self::Directory(dir) => lease::take(&Directory::open(dir)?, key, before),
            Self::Registry(registry) => registry.announce(key, before),
        }
    }

    /// # Errors
    /// Volume: the store cannot be listed.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        match self {
            Self::Directory(dir) => Ok(prune::entries(&Directory::open(dir)?)?.0),
            Self::Registry(registry) => registry.entries(),
        }
    }

    /// As [`prune::prune`], in a directory.
    pub(super) fn prune(&self, most: Size) -> Result<(Vec<String>, Result<()>)> {
        match self {
            Self::Directory(dir) => prune::prune(&Directory::open(dir)?, most),
            // The plan refuses it.
            Self::Registry(_) => Ok((Vec::new(), Ok(()))),
        }
    }
}
