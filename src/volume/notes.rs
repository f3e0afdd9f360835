//! Small files next to the releases: what a sidecar that follows a branch remembers, and what it is asked to do.
//!
//! Reading and writing them needs no lock: each has one writer.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use super::owner::{Owner, create};
use super::root::open_root;
use crate::dir::{Dir, random};
use crate::error::{Error, IoContext, Result};
use crate::plan::RESERVED;

/// Most bytes of a note.
const LONGEST: u64 = 1 << 20;

/// The directory of the notes.
#[derive(Debug)]
pub struct Notes {
    own: Dir,
    owner: Owner,
}

impl Notes {
    /// # Errors
    /// The root is missing or not writable, or podstrap's directory in it belongs to another user.
    pub fn open(root: &Path) -> Result<Self> {
        let dir = open_root(root)?;
        create(&dir, RESERVED)?;
        let failed = || format!("cannot inspect {}", root.join(RESERVED).display());
        let found = dir.entry(RESERVED).and_then(|found| found.ok_or(io::ErrorKind::NotFound.into()));
        let owner = Owner::of(&dir, &found.on_volume(failed)?).on_volume(failed)?;
        Ok(Self { own: owner.dir(&dir, RESERVED, 0o755)?, owner })
    }

    /// Takes a lock that no other process has, until it is dropped.
    ///
    /// # Errors
    /// Another process has it.
    pub fn claim(&self, name: &str) -> Result<File> {
        let path = self.own.path().join(name);
        let lock = self.own.file_or_new(name).on_volume(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(Error::volume(format!("{} is locked", path.display()))
                .because("another sidecar follows a branch on this volume")
                .hint("give each Pod its own volume (emptyDir), and share environments with --store")),
            Err(TryLockError::Error(error)) => Err(error).on_volume(|| format!("cannot lock {}", path.display())),
        }
    }

    /// The contents of a note, if there is one.
    ///
    /// # Errors
    /// It is unreadable, or another user made it.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.own.path().join(name);
        let failed = || format!("cannot read {}", path.display());
        let Some(stat) = self.own.entry(name).on_volume(failed)? else { return Ok(None) };
        self.owner.check_file(&path, &stat)?;
        match self.own.read(name, LONGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).on_volume(failed),
        }
    }

    /// Writes a note with one rename.
    ///
    /// # Errors
    /// The volume is full or not writable.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!(".{name}-{}", random());
        let written = self.own.write(&temporary, bytes).and_then(|()| self.own.rename(&temporary, &self.own, name));
        if written.is_err() {
            let _ = self.own.remove_file(&temporary);
        }
        written.on_volume(|| format!("cannot write {}", self.own.path().join(name).display()))
    }

    /// Removes a note. Returns whether it was there.
    ///
    /// # Errors
    /// The volume is not writable.
    pub fn remove(&self, name: &str) -> Result<bool> {
        match self.own.remove_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => {
                removed.map(|()| true).on_volume(|| format!("cannot remove {}", self.own.path().join(name).display()))
            }
        }
    }

    /// Removes what a killed writer left.
    pub fn tidy(&self, name: &str) {
        let begun = format!(".{name}-");
        for left in self.own.names().unwrap_or_default() {
            if left.as_encoded_bytes().starts_with(begun.as_bytes()) {
                let _ = self.own.remove_file(&left);
            }
        }
    }
}
