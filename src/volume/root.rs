//! The shared volume: its lock and its releases.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::{SHARED, make_dir, release_of_current, release_of_link};
use super::manifest::{MANIFEST_VERSION, Manifest, Release};
use crate::error::{Error, IoContext, Result};
use crate::plan::{RESERVED, Target};
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::tree;
use crate::venv::EnvironmentRecord;

/// The file next to a release's tree that lists every published path, separated by NUL.
pub(super) const LIST: &str = "files";

/// Pause between two tries to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The shared volume. Holds its lock until it is dropped.
#[derive(Debug)]
pub struct Volume {
    pub(super) root: PathBuf,
    /// `<root>/.podstrap`
    pub(super) own: PathBuf,
    /// Mode bits that podstrap's directories and the lock copy from the root.
    pub(super) shared: u32,
    _lock: File,
}

impl Volume {
    /// Checks the root, takes its lock and empties staging. Waits for another podstrap to finish.
    ///
    /// # Errors
    /// The root is missing, not a directory or not writable, or the lock is still held at the deadline.
    pub async fn lock(root: &Path, deadline: Deadline) -> Result<Self> {
        let shown = root.display();
        let shared = match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => meta.permissions().mode() & SHARED,
            Ok(_) => {
                return Err(Error::volume(format!("--root {shown} is not a directory"))
                    .hint("give the directory where the shared volume is mounted"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::volume(format!("--root {shown} does not exist"))
                    .hint("mount the shared volume there (volumeMounts), or give the path where it is mounted"));
            }
            Err(error) => return Err(error).on_volume(|| format!("cannot read --root {shown}")),
        };
        if root.canonicalize().is_ok_and(|real| real.iter().any(|part| part == RESERVED)) {
            return Err(Error::volume(format!("--root {shown} is inside a tree that podstrap published"))
                .because("the next update of that tree would delete it")
                .hint("give the root of the volume, or a separate directory on it"));
        }
        let own = root.join(RESERVED);
        for dir in [&own, &own.join("staging"), &own.join("releases")] {
            make_dir(dir, shared)?;
        }
        let path = own.join("lock");
        let lock = open_lock(&path, shared).on_volume(|| format!("cannot open {}", path.display()))?;
        let mut told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if !deadline.passed() => {
                    if !told {
                        tracing::info!("waiting for another podstrap to finish with {shown}");
                        told = true;
                    }
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::volume(format!("{} stayed locked", path.display()))
                        .because(format!(
                            "waited {:.1} s (--timeout {}) for another podstrap to finish",
                            deadline.elapsed().as_secs_f64(),
                            humantime::format_duration(deadline.limit())
                        ))
                        .hint("raise --timeout, or read the other init's log to see why it takes so long"));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).on_volume(|| format!("cannot lock {}", path.display())).map_err(|error| {
                        error.hint("use a volume whose file system supports flock, such as an emptyDir")
                    });
                }
            }
        }
        let volume = Self { root: root.to_owned(), own, shared, _lock: lock };
        volume.clear().await;
        Ok(volume)
    }

    /// Deletes failed builds and old releases from staging. Returns what it could not delete; the next
    /// run tries again.
    pub async fn clear(&self) -> Vec<(PathBuf, io::Error)> {
        let staging = self.own.join("staging");
        let cleared = blocking(move || {
            let entries = fs::read_dir(staging).into_iter().flatten().flatten().map(|entry| entry.path());
            Ok(entries.filter_map(|path| tree::remove(&path).err().map(|error| (path, error))).collect())
        });
        // The work itself never fails.
        cleared.await.unwrap_or_default()
    }

    /// Whether the volume has no release.
    pub fn is_new(&self) -> bool {
        fs::read_dir(self.own.join("releases")).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// A complete release with this key. Prefers the published one.
    pub fn find(&self, key: &str, target: &Target) -> Option<Release> {
        self.releases(target).find(|release| release.manifest.key == key && self.is_whole(release))
    }

    /// Directory and record of every release's environment. The published release comes first.
    pub fn environments(&self, target: &Target) -> Vec<(PathBuf, EnvironmentRecord)> {
        let of = |release: Release| {
            let record = release.manifest.environment.clone()?;
            Some((self.tree(&release).join(&record.venv), record))
        };
        self.releases(target).filter_map(of).collect()
    }

    /// Whether every published path still exists. Ignores files that an app added or changed.
    pub fn is_whole(&self, release: &Release) -> bool {
        let tree = self.tree(release);
        let list = fs::read(tree.with_file_name(LIST)).unwrap_or_default();
        let lost = list
            .split(|byte| *byte == 0)
            .map(|name| tree.join(OsStr::from_bytes(name)))
            .find(|path| fs::symlink_metadata(path).is_err());
        if let Some(path) = &lost {
            tracing::warn!("{} is missing from the release: rebuilding", path.display());
        }
        lost.is_none() && !list.is_empty()
    }

    /// The release that the target's links show.
    pub fn published(&self, target: &Target) -> Option<Release> {
        self.release(&self.published_id(target)?)
    }

    /// `<root>/.podstrap`.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// All complete releases, the published one first.
    fn releases(&self, target: &Target) -> impl Iterator<Item = Release> {
        self.published(target).into_iter().chain(self.complete())
    }

    pub(super) fn complete(&self) -> impl Iterator<Item = Release> {
        let entries = fs::read_dir(self.own.join("releases")).into_iter().flatten().flatten();
        entries.filter_map(|entry| self.release(entry.file_name().to_str()?))
    }

    /// The tree of a release.
    pub fn tree(&self, release: &Release) -> PathBuf {
        self.own.join("releases").join(&release.id).join("tree")
    }

    fn release(&self, id: &str) -> Option<Release> {
        let text = fs::read(self.own.join("releases").join(id).join("release.json")).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        let release = Release { id: id.to_owned(), manifest };
        let Manifest { version, environment, .. } = &release.manifest;
        // Somebody may have deleted the tree or the environment by hand: then rebuild.
        let tree = self.tree(&release);
        let there = tree.is_dir() && environment.as_ref().is_none_or(|record| tree.join(&record.venv).is_dir());
        (*version == MANIFEST_VERSION && there).then_some(release)
    }

    fn published_id(&self, target: &Target) -> Option<String> {
        match &target.link {
            Some(name) => release_of_link(&fs::read_link(self.root.join(name)).ok()?),
            None => release_of_current(&fs::read_link(self.own.join("current")).ok()?),
        }
    }
}

/// Opens the lock for writing if possible, as flock on NFS requires, else for reading.
fn open_lock(path: &Path, shared: u32) -> io::Result<File> {
    let mode = 0o644 | shared & 0o022;
    let mut options = OpenOptions::new();
    match options.create_new(true).write(true).mode(mode).open(path) {
        Ok(lock) => {
            lock.set_permissions(Permissions::from_mode(mode))?;
            return Ok(lock);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}
