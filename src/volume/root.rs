//! The shared volume: its lock, and the releases that are on it.

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

/// Beside a release's tree: the paths of all that was published in it, with a NUL between them.
pub(super) const LIST: &str = "files";

/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The shared volume, locked by us for as long as this lives.
#[derive(Debug)]
pub struct Volume {
    pub(super) root: PathBuf,
    /// `<root>/.podstrap`
    pub(super) own: PathBuf,
    /// What the root's mode adds to those of our directories and of the lock.
    pub(super) shared: u32,
    _lock: File,
}

impl Volume {
    /// Checks the root and takes its lock, waiting for another podstrap if there is one.
    ///
    /// # Errors
    /// The root is missing, no directory or not writable; or the lock stayed taken until the
    /// deadline.
    pub async fn lock(root: &Path, deadline: Deadline) -> Result<Self> {
        let shown = root.display();
        let shared = match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => meta.permissions().mode() & SHARED,
            Ok(_) => {
                return Err(Error::volume(format!("--root {shown} is not a directory"))
                    .hint("name the directory where the shared volume is mounted"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::volume(format!("--root {shown} does not exist"))
                    .hint("mount the shared volume there (volumeMounts), or name the path where it is mounted"));
            }
            Err(error) => return Err(error).on_volume(|| format!("cannot look at --root {shown}")),
        };
        if root.canonicalize().is_ok_and(|real| real.iter().any(|part| part == RESERVED)) {
            return Err(Error::volume(format!("--root {shown} is in what podstrap has published elsewhere"))
                .because("the next update there would delete it")
                .hint("name the root of the volume, or a directory of your own on it"));
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
                        tracing::info!("waiting for another podstrap that is working on {shown}");
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
                        .hint("look at the other container's log, or raise --timeout"));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error)
                        .on_volume(|| format!("cannot lock {}", path.display()))
                        .map_err(|error| error.hint("the volume's file system must support flock"));
                }
            }
        }
        let volume = Self { root: root.to_owned(), own, shared, _lock: lock };
        volume.clear().await;
        Ok(volume)
    }

    /// Empties staging: of builds that failed or were killed, and of old releases. What could not be
    /// deleted comes back; the next run tries again.
    pub async fn clear(&self) -> Vec<(PathBuf, io::Error)> {
        let staging = self.own.join("staging");
        let cleared = blocking(move || {
            let entries = fs::read_dir(staging).into_iter().flatten().flatten().map(|entry| entry.path());
            Ok(entries.filter_map(|path| tree::remove(&path).err().map(|error| (path, error))).collect())
        });
        // It has no error of its own.
        cleared.await.unwrap_or_default()
    }

    /// Whether nothing was ever published here.
    pub fn is_new(&self) -> bool {
        fs::read_dir(self.own.join("releases")).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// A complete release with this key; the published one is preferred.
    pub fn find(&self, key: &str, target: &Target) -> Option<Release> {
        self.releases(target).find(|release| release.manifest.key == key && self.is_whole(release))
    }

    /// The environments of all complete releases, the published one's first: where they are, and what is
    /// known of them.
    pub fn environments(&self, target: &Target) -> Vec<(PathBuf, EnvironmentRecord)> {
        let of = |release: Release| {
            let record = release.manifest.environment.clone()?;
            Some((self.tree(&release).join(&record.venv), record))
        };
        self.releases(target).filter_map(of).collect()
    }

    /// Whether everything that was published with it is still there. What else came to be there, and
    /// what an app made of its own files, is the app's affair.
    pub fn is_whole(&self, release: &Release) -> bool {
        let tree = self.tree(release);
        let list = fs::read(tree.with_file_name(LIST)).unwrap_or_default();
        let lost = list
            .split(|byte| *byte == 0)
            .map(|name| tree.join(OsStr::from_bytes(name)))
            .find(|path| fs::symlink_metadata(path).is_err());
        if let Some(path) = &lost {
            tracing::warn!("{} is gone: building it anew", path.display());
        }
        lost.is_none() && !list.is_empty()
    }

    /// The release that the target shows.
    pub fn published(&self, target: &Target) -> Option<Release> {
        self.release(&self.published_id(target)?)
    }

    /// podstrap's own directory on the volume.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// All complete releases, the one that the target shows first.
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
        // Somebody may have cleaned up: what has no tree, or not its environment, is built anew.
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

/// Opens the lock, for writing if that is allowed: flock on NFS wants it, elsewhere reading will do.
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
