//! The shared volume: its lock and its releases.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;

use super::disk::{Boot, Disk};
use super::layout::{not_ours, release_of_current, release_of_link};
use super::list::{self, Listed};
use super::manifest::{MANIFEST_VERSION, Manifest, Release};
use super::owner::{Owner, create, is_something_else};
use crate::confine::Confinement;
use crate::dir::Dir;
use crate::error::{Error, IoContext, Result, volume_error};
use crate::files;
use crate::plan::{RESERVED, Target};
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::venv::EnvironmentRecord;

/// The file next to a release's tree that lists its entries.
pub(super) const LIST: &str = "files";
/// The record next to it.
pub(super) const RECORD: &str = "release.json";

/// Whoever can open the lock can hold it.
const LOCK_MODE: u32 = 0o600;

/// Pause between two tries to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The shared volume. Holds its lock until it is dropped.
#[derive(Debug)]
pub struct Volume {
    pub(super) root: Dir,
    /// `<root>/.podstrap`
    pub(super) own: Dir,
    pub(super) staging: Dir,
    pub(super) releases: Dir,
    pub(super) owner: Owner,
    pub(super) disk: Disk,
    /// The limits of child processes, if others can rename `.podstrap`.
    confinement: Option<Arc<Confinement>>,
    /// Releases that lack files or belong to another user: logged once.
    damaged: RefCell<HashSet<String>>,
    _lock: File,
}

impl Volume {
    /// Checks the root, takes its lock and empties staging. Waits for another podstrap to finish.
    ///
    /// # Errors
    /// The root is missing, not a directory or not writable; podstrap's directory in it belongs to another user; or the
    /// lock is still held at the deadline.
    pub async fn lock(target: &Target, deadline: Deadline) -> Result<Self> {
        let path = &target.root;
        let root = open_root(path)?;
        create(&root, RESERVED)?;
        let inspect = || format!("cannot inspect {}", path.join(RESERVED).display());
        let found = root.entry(RESERVED).and_then(|found| found.ok_or(io::ErrorKind::NotFound.into()));
        let owner =
            Owner::of(&root, &found.on_volume(inspect)?).on_volume(|| format!("cannot write to {}", path.display()))?;
        let guarded = owner.guard(&root).on_volume(|| format!("cannot inspect {}", path.display()))?;
        let own = owner.dir(&root, RESERVED, 0o755)?;
        // The name of a build stays a secret, so others cannot put a directory of the same name in its place.
        let staging = owner.dir(&own, "staging", 0o700)?;
        let releases = owner.dir(&own, "releases", 0o755)?;
        let confinement = if guarded { None } else { owner.confine(&root, &staging) };
        let lock = open_lock(&own, owner)?;
        take(&lock, &own.path().join("lock"), path, deadline).await?;
        let volume = Self {
            disk: Disk::of(&root, target.durable),
            root,
            own,
            staging,
            releases,
            owner,
            confinement: confinement.map(Arc::new),
            damaged: RefCell::default(),
            _lock: lock,
        };
        volume.clear().await;
        volume.close()?;
        Ok(volume)
    }

    /// Takes write permissions away that the kubelet gives the group of an fsGroup at each mount.
    fn close(&self) -> Result<()> {
        let path = self.releases.path();
        for id in self.releases.names().on_volume(|| format!("cannot list {}", path.display()))? {
            let failed = || format!("cannot set modes in {}", path.join(&id).display());
            let Ok(dir) = self.releases.dir(&id) else { continue };
            let stat = dir.metadata().on_volume(failed)?;
            if stat.st_mode & 0o2022 != 0 && self.owner.is_of(&stat) {
                // The setgid bit stays until the end: if podstrap is killed before, the next run goes on.
                dir.set_mode(0o2755)
                    .and_then(|()| dir.close_to_others())
                    .and_then(|()| dir.set_mode(0o755))
                    .on_volume(failed)?;
            }
        }
        Ok(())
    }

    /// Deletes failed builds and old releases from staging. Returns what it could not delete; the next
    /// run tries again.
    pub async fn clear(&self) -> Vec<(PathBuf, io::Error)> {
        let staging = self.staging.again();
        let cleared = blocking(move || {
            let remove = |staging: Dir| -> io::Result<Vec<(PathBuf, io::Error)>> {
                let failed = |name: OsString| Some((staging.path().join(&name), staging.remove(&name).err()?));
                Ok(staging.names()?.into_iter().filter_map(failed).collect())
            };
            Ok(staging.and_then(remove).unwrap_or_else(|error| vec![(PathBuf::from("staging"), error)]))
        });
        // The work itself never fails.
        cleared.await.unwrap_or_default()
    }

    /// Whether the volume has no release.
    pub fn is_new(&self) -> Result<bool> {
        let names = self.releases.names().on_volume(|| format!("cannot list {}", self.releases.path().display()))?;
        Ok(names.is_empty())
    }

    /// A complete release with this key. Prefers the published one.
    pub fn find(&self, key: &str, target: &Target) -> Result<Option<Release>> {
        for release in self.releases(target)?.into_iter().filter(|release| release.manifest.key == key) {
            if self.is_whole(&release)? {
                return Ok(Some(release));
            }
        }
        Ok(None)
    }

    /// Directory and record of every release's environment. The published release comes first. After another boot of the
    /// node, leaves out releases that have lost contents: times and sizes may be the same.
    pub fn environments(&self, target: &Target) -> Result<Vec<(PathBuf, EnvironmentRecord)>> {
        let mut found = Vec::new();
        for release in self.releases(target)? {
            let Some(record) = release.manifest.environment.clone() else { continue };
            let path = self.releases.path().join(&release.id);
            let boot = self.releases.dir(&release.id).and_then(|dir| self.disk.built_in(&dir));
            if boot.on_volume(|| format!("cannot read {}", path.display()))? != Boot::Earlier
                || self.is_whole(&release)?
            {
                found.push((self.tree(&release).join(&record.venv), record));
            }
        }
        Ok(found)
    }

    /// Whether every published path still exists, and after another boot of the node whether every file still has its
    /// contents. Ignores files that an app added or changed.
    pub fn is_whole(&self, release: &Release) -> Result<bool> {
        if self.damaged.borrow().contains(&release.id) {
            return Ok(false);
        }
        let path = self.releases.path().join(&release.id);
        let open = |dir: &Dir| {
            let built = (self.disk.built_in(dir)? == Boot::Earlier).then(|| dir.entry(RECORD)).transpose()?.flatten();
            Ok((dir.read(LIST, files::GENERATED)?, dir.dir("tree")?, built))
        };
        let opened: io::Result<_> = self.releases.dir(&release.id).and_then(|dir| open(&dir));
        let (list, tree, built) = opened.on_volume(|| format!("cannot read {}", path.join(LIST).display()))?;
        let damage = match list::read(&list, release.manifest.entries) {
            Some(listed) => damage(&tree, &listed, built.as_ref())?,
            None => Some(format!("{} is incomplete", path.join(LIST).display())),
        };
        if let Some(damage) = &damage {
            tracing::warn!("{damage}: rebuilding");
            self.damaged.borrow_mut().insert(release.id.clone());
        }
        Ok(damage.is_none())
    }

    /// The release that the target's links show.
    pub fn published(&self, target: &Target) -> Result<Option<Release>> {
        let Some(id) = self.published_id(target)? else { return Ok(None) };
        self.release(&id)
    }

    /// The limits of child processes that work in staging.
    pub fn confinement(&self) -> Option<Arc<Confinement>> {
        self.confinement.clone()
    }

    /// `<root>/.podstrap`.
    pub fn own(&self) -> &Path {
        self.own.path()
    }

    /// All complete releases, the published one first.
    fn releases(&self, target: &Target) -> Result<Vec<Release>> {
        let published = self.published_id(target)?;
        let mut releases = self.complete()?;
        releases.sort_by_key(|release| Some(&release.id) != published.as_ref());
        Ok(releases)
    }

    pub(super) fn complete(&self) -> Result<Vec<Release>> {
        let names = self.releases.names().on_volume(|| format!("cannot list {}", self.releases.path().display()))?;
        let mut releases = Vec::new();
        for name in names.iter().filter_map(|name| name.to_str()) {
            releases.extend(self.release(name)?);
        }
        Ok(releases)
    }

    /// The release that a path is in.
    pub fn id_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = Path::new(path).strip_prefix(self.releases.path()).ok()?;
        rest.iter().next()?.to_str()
    }

    /// The record of a release.
    pub fn record(&self, release: &Release) -> PathBuf {
        self.releases.path().join(&release.id).join(RECORD)
    }

    /// The tree of a release.
    pub fn tree(&self, release: &Release) -> PathBuf {
        self.releases.path().join(&release.id).join("tree")
    }

    /// A release of this version of podstrap, if it is complete.
    ///
    /// # Errors
    /// Another program made it.
    pub fn release(&self, id: &str) -> Result<Option<Release>> {
        let path = self.releases.path().join(id);
        let dir = match self.releases.dir(id) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_something_else(&error) => return Err(not_ours(&path, "it is not a directory")),
            Err(error) => return Err(error).on_volume(|| format!("cannot open {}", path.display())),
        };
        let failed = || format!("cannot read {}", path.join(RECORD).display());
        let stat = dir.metadata().on_volume(failed)?;
        if !self.owner.is_of(&stat) {
            if self.damaged.borrow_mut().insert(id.to_owned()) {
                tracing::warn!("{} ignored: it belongs to user {}", path.display(), stat.st_uid);
            }
            return Ok(None);
        }
        let Some(stat) = dir.entry(RECORD).on_volume(failed)? else { return Ok(None) };
        self.owner.check_file(&path.join(RECORD), &stat)?;
        let text = dir.read(RECORD, files::GENERATED).on_volume(failed)?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return Ok(None) };
        let Some(stat) = dir.entry(LIST).on_volume(failed)? else { return Ok(None) };
        self.owner.check_file(&path.join(LIST), &stat)?;
        // Somebody may have deleted the tree or the environment by hand: then rebuild.
        let venv = manifest.environment.as_ref().map_or_else(PathBuf::new, |record| record.venv.clone());
        let there = dir.entry(Path::new("tree").join(venv)).on_volume(failed)?.is_some();
        let complete = manifest.version == MANIFEST_VERSION && there;
        Ok(complete.then(|| Release { id: id.to_owned(), manifest }))
    }

    fn published_id(&self, target: &Target) -> Result<Option<String>> {
        let read = |dir: &Dir, name: &str| {
            dir.link(name).on_volume(|| format!("cannot read the link {}", dir.path().join(name).display()))
        };
        Ok(match &target.link {
            Some(name) => read(&self.root, name)?.and_then(|to| release_of_link(&to)),
            None => read(&self.own, "current")?.and_then(|to| release_of_current(&to)),
        })
    }
}

/// The first entry that is missing. With `built`, the end of the build before a restart of the node, also the first file
/// that lost contents since, unless an app has changed it.
fn damage(tree: &Dir, listed: &[Listed], built: Option<&Stat>) -> Result<Option<String>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    for Listed { name, size, is_sparse } in listed {
        let path = || tree.path().join(name);
        let inspect = || format!("cannot inspect {}", path().display());
        let Some(stat) = tree.entry(name).on_volume(inspect)? else {
            return Ok(Some(format!("{} is missing from the release", path().display())));
        };
        let (Some(size), Some(built)) = (size, built) else { continue };
        // A commit may have a time in the future, an app does not.
        if time(&stat) > time(built) && u64::try_from(stat.st_mtime).is_ok_and(|time| time <= now) {
            continue;
        }
        if u64::try_from(stat.st_size) != Ok(*size) {
            let now = stat.st_size;
            return Ok(Some(format!(
                "{} has {now} bytes instead of {size} after a restart of the node",
                path().display()
            )));
        }
        if *size > 0 && !is_sparse && tree.has_hole(name).on_volume(inspect)? {
            return Ok(Some(format!("{} has no contents after a restart of the node", path().display())));
        }
    }
    Ok(None)
}

pub(super) fn open_root(path: &Path) -> Result<Dir> {
    let shown = path.display();
    let root = Dir::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => Error::volume(format!("--root {shown} is not a directory"))
            .hint("give the directory where the shared volume is mounted"),
        io::ErrorKind::NotFound => Error::volume(format!("--root {shown} does not exist"))
            .hint("mount the shared volume there (volumeMounts), or give the path where it is mounted"),
        _ => volume_error(format!("cannot read --root {shown}"), &error),
    })?;
    let real = path.canonicalize().on_volume(|| format!("cannot read --root {shown}"))?;
    if real.iter().any(|part| part == RESERVED) {
        return Err(Error::volume(format!("--root {shown} is inside a tree that podstrap published"))
            .because("the next update of that tree would delete it")
            .hint("give the root of the volume, or a separate directory on it"));
    }
    Ok(root)
}

/// Opens the lock for writing, as flock on NFS requires.
fn open_lock(own: &Dir, owner: Owner) -> Result<File> {
    let path = own.path().join("lock");
    let failed = || format!("cannot open {}", path.display());
    if let Some(stat) = own.entry("lock").on_volume(failed)? {
        owner.check_file(&path, &stat)?;
    }
    let lock = own.file_or_new("lock").on_volume(failed)?;
    let mode = lock.metadata().on_volume(failed)?.permissions().mode() & 0o7777;
    // The umask took permissions away, or an older version let others write.
    if mode != LOCK_MODE {
        lock.set_permissions(Permissions::from_mode(LOCK_MODE)).on_volume(failed)?;
    }
    Ok(lock)
}

/// Waits for the lock.
async fn take(lock: &File, path: &Path, root: &Path, deadline: Deadline) -> Result<()> {
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if !deadline.passed() => {
                if !told {
                    tracing::info!("waiting for another podstrap to finish with {}", root.display());
                    told = true;
                }
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::volume(format!("{} stayed locked", path.display()))
                    .because(format!(
                        "waited {:.1} s ({}) for another podstrap to finish",
                        deadline.elapsed().as_secs_f64(),
                        deadline.shown()
                    ))
                    .hint(format!(
                        "raise {}, or read the other init's log to see why it takes so long",
                        deadline.flag()
                    )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error)
                    .on_volume(|| format!("cannot lock {}", path.display()))
                    .map_err(|error| error.hint("use a volume whose file system supports flock, such as an emptyDir"));
            }
        }
    }
}
