//! Build beside, then switch: the shared volume shows the old complete state or the new one.
//!
//! ```text
//! <root>/.podstrap/lock                      held while anything below is changed; never deleted
//! <root>/.podstrap/staging/<random>/         garbage to whoever holds the lock
//! <root>/.podstrap/releases/<id>/            tree/, release.json and files, a list; appears whole, by one rename
//! <root>/.podstrap/current -> releases/<id>  the switch, without --link
//! <root>/<entry> -> .podstrap/current/tree/<entry>
//! <root>/NAME -> .podstrap/releases/<id>/tree  the switch, with --link NAME
//! ```
//!
//! That a release directory exists *is* its completeness marker. Links are relative, so the volume
//! may be mounted anywhere, also by a subPath that goes through one of them. Several inits may
//! share a root under different links; a release stays as long as any link names it.
//!
//! Who may write to the root may use what is in `.podstrap` as well (the group of an fsGroup, say):
//! podstrap's own directories and the lock have the root's write bits, its setgid and sticky bit.
//!
//! | Killed while | the next run finds |
//! |---|---|
//! | building in staging | the old state; staging is cleared |
//! | renaming the release into place | no release, or a whole one that is reused |
//! | adding top-level links | links that dangle until the switch |
//! | switching | old or new |
//! | dropping old links and releases | the rest is tidied |

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result};
use crate::plan::{AppTarget, RESERVED, Target};
use crate::retry::Deadline;
use crate::runtime::blocking;
use crate::source::{Revision, Validator};
use crate::tree;
use crate::venv::{Distribution, Toolchain};

/// Beside a release's tree: the paths of all that was published in it, with a NUL between them.
const LIST: &str = "files";

/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The root's mode bits that are ours as well: sticky, setgid, and writing for the group and others.
const SHARED: u32 = 0o3022;

/// release.json: what is in the release, for the app, for people and for the next run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this file.
    pub version: u32,
    /// Hash of everything that decided the release's contents; equal keys need no new build.
    pub key: String,
    /// The podstrap that built it.
    pub podstrap: String,
    /// RFC 3339, UTC.
    pub built_at: String,
    pub source: SourceRecord,
    pub environment: Option<EnvironmentRecord>,
    /// Hash of what the tree's requirements lead to outside of it; another one, and the key is not enough.
    pub elsewhere: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Without credentials.
    pub repo: String,
    #[serde(flatten)]
    pub revision: Revision,
    /// How much of it was taken, and how.
    pub shape: Vec<String>,
    /// Of a file that is not pinned: what to ask with whether it is still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<Validator>,
    pub files: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvironmentRecord {
    /// Hash of everything that decided the environment's contents; equal keys need no new one.
    pub key: String,
    /// What the files looked like when it was ready: another one, and somebody changed them.
    pub fingerprint: String,
    /// Relative to the tree.
    pub venv: PathBuf,
    pub final_path: PathBuf,
    /// `3.13.1`; `3.13` of another Python than the one that built it.
    pub python: String,
    /// The interpreter that `bin/python` leads to.
    pub python_path: PathBuf,
    /// What it was said to be for.
    pub target: AppTarget,
    /// `uv 0.13.9`
    pub engine: String,
    pub toolchain: Toolchain,
    pub packages: Vec<Distribution>,
}

pub const MANIFEST_VERSION: u32 = 5;

/// The shared volume, locked by us for as long as this lives.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    /// `<root>/.podstrap`
    own: PathBuf,
    /// What the root's mode adds to those of our directories and of the lock.
    shared: u32,
    _lock: File,
}

/// A complete release.
#[derive(Debug)]
pub struct Release {
    pub id: String,
    pub manifest: Manifest,
}

/// A directory for one build; [`Volume::clear`] removes it, if need be in the next run.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// Does not exist yet; becomes the release's `tree`.
    pub fn tree(&self) -> PathBuf {
        self.release().join("tree")
    }
    /// Does not exist yet; for an environment that moves into the tree when it is ready.
    pub fn venv(&self) -> PathBuf {
        self.dir.join("venv")
    }
    /// An empty directory for anything temporary.
    pub fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }
    fn release(&self) -> PathBuf {
        self.dir.join("release")
    }
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

    /// Whether nothing was ever published here.
    pub fn is_new(&self) -> bool {
        fs::read_dir(self.own.join("releases")).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// A complete release with this key; the published one is preferred.
    pub fn find(&self, key: &str, target: &Target) -> Option<Release> {
        self.releases(target).find(|release| release.manifest.key == key && self.is_whole(release))
    }

    /// The environment with this key, in a complete release: its directory, and what is known of it.
    pub fn environment(&self, key: &str, target: &Target) -> Option<(PathBuf, EnvironmentRecord)> {
        self.releases(target).find_map(|release| {
            let record = release.manifest.environment.clone().filter(|record| record.key == key)?;
            Some((self.tree(&release).join(&record.venv), record))
        })
    }

    /// Whether some release has an environment.
    pub fn has_environments(&self) -> bool {
        self.complete().any(|release| release.manifest.environment.is_some())
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

    fn complete(&self) -> impl Iterator<Item = Release> {
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

    /// A place to build in.
    pub fn stage(&self) -> Result<Staging> {
        let dir = self.own.join("staging").join(random());
        let staging = Staging { dir };
        for dir in [&staging.dir, &staging.release(), &staging.scratch()] {
            make_dir(dir, self.shared)?;
        }
        Ok(staging)
    }

    /// Makes what was built a release: written out to the disk, then there by one rename.
    ///
    /// `name` begins its id, for people who list the directory.
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
        let what = format!("cannot write {} out to its disk", self.root.display());
        // The marker must not reach the disk before what it vouches for.
        blocking(move || rustix::fs::syncfs(&opened).map_err(io::Error::from).on_volume(|| what)).await?;
        let base = format!("{name}-{}", &manifest.key[..12]);
        let mut id = base.clone();
        // The same inputs built anew, beside what they gave before.
        let mut next = 2;
        while releases.join(&id).exists() {
            id = format!("{base}-{next}");
            next += 1;
        }
        let to = releases.join(&id);
        fs::rename(staging.release(), &to).on_volume(|| format!("cannot make the release {}", to.display()))?;
        sync_dir(&releases)?;
        Ok(Release { id, manifest })
    }

    /// Makes the target show the release. True if it did not already.
    ///
    /// # Errors
    /// Something that podstrap did not make is in the way; then nothing is changed.
    pub fn switch(&self, release: &Release, target: &Target) -> Result<bool> {
        self.check(target, Some(&self.tree(release)))?;
        match &target.link {
            Some(name) => self.switch_link(release, name),
            None => self.switch_entries(release),
        }
    }

    /// Finds what stands where the target's links must go, before any work is spent on it. `tree` is
    /// what will be published, if it is there yet.
    ///
    /// # Errors
    /// The first path in the way that podstrap did not make.
    pub fn check(&self, target: &Target, tree: Option<&Path>) -> Result<()> {
        let entries = match (&target.link, tree) {
            (Some(name), _) => vec![OsString::from(name)],
            (None, Some(tree)) => names(tree)?,
            (None, None) => return Ok(()),
        };
        for name in entries {
            let path = self.root.join(&name);
            match fs::read_link(&path) {
                // Each of the two kinds stays out of the other's names.
                Ok(to) if target.link.is_some() && to == entry_target(&name) && path.exists() => {
                    return Err(taken(&path, "an entry of the tree that is published without --link"));
                }
                Ok(to) if target.link.is_none() && release_of_link(&to).is_some() && path.exists() => {
                    return Err(taken(&path, "what is published with --link"));
                }
                Ok(to) if to.starts_with(RESERVED) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => return Err(in_the_way(&path)),
            }
        }
        Ok(())
    }

    fn switch_link(&self, release: &Release, name: &str) -> Result<bool> {
        let link = self.root.join(name);
        let to = Path::new(RESERVED).join("releases").join(&release.id).join("tree");
        if fs::read_link(&link).is_ok_and(|now| now == to) {
            return Ok(false);
        }
        self.link(&to, &link)?;
        sync_dir(&self.root)?;
        Ok(true)
    }

    fn switch_entries(&self, release: &Release) -> Result<bool> {
        let entries = names(&self.tree(release))?;
        let mut tidied = false;
        for name in &entries {
            let (link, to) = (self.root.join(name), entry_target(name));
            if !fs::read_link(&link).is_ok_and(|now| now == to) {
                self.link(&to, &link)?;
                tidied = true;
            }
        }
        let current = self.own.join("current");
        let to = Path::new("releases").join(&release.id);
        let changed = !fs::read_link(&current).is_ok_and(|now| now == to);
        if changed {
            self.link(&to, &current)?;
            sync_dir(&self.own)?;
        }
        let kept: HashSet<_> = entries.into_iter().collect();
        for name in names(&self.root)? {
            let link = self.root.join(&name);
            if !kept.contains(&name) && fs::read_link(&link).is_ok_and(|to| to == entry_target(&name)) {
                fs::remove_file(&link).on_volume(|| format!("cannot remove the old link {}", link.display()))?;
                tidied = true;
            }
        }
        // Nothing is written where nothing changed.
        if tidied {
            sync_dir(&self.root)?;
        }
        Ok(changed)
    }

    /// Deletes the releases that nothing shows any more.
    pub async fn prune(&self) {
        if let Err(error) = self.retire() {
            tracing::warn!("old releases stay in {}: {error}", self.own.display());
        }
        for (path, error) in self.clear().await {
            // Anything else passes: a writer that outlived its run is still at it.
            if error.kind() == io::ErrorKind::PermissionDenied {
                tracing::warn!(
                    "{} takes up room and cannot be deleted: {error}; run podstrap as the user who made it, or delete \
                     it by hand",
                    path.display()
                );
            }
        }
    }

    /// Moves them out of the way by one rename each: a half-deleted release is never found among the
    /// whole.
    fn retire(&self) -> io::Result<()> {
        let live = self.live()?;
        for entry in fs::read_dir(self.own.join("releases"))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|id| live.contains(id)) {
                continue;
            }
            if let Err(error) = fs::rename(entry.path(), self.own.join("staging").join(random())) {
                tracing::warn!("cannot put the old release {} aside: {error}", entry.path().display());
            }
        }
        Ok(())
    }

    /// The releases that links show. What cannot be looked at might be one.
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

    /// Puts a link in place by one rename, whether or not one is there.
    fn link(&self, to: &Path, at: &Path) -> Result<()> {
        let temporary = self.own.join("staging").join(random());
        symlink(to, &temporary)
            .and_then(|()| fs::rename(&temporary, at))
            .on_volume(|| format!("cannot make the link {}", at.display()))
    }
}

/// Where the link of a top-level entry points.
fn entry_target(name: &OsString) -> PathBuf {
    Path::new(RESERVED).join("current/tree").join(name)
}

/// The id in `.podstrap/releases/<id>/tree`.
fn release_of_link(to: &Path) -> Option<String> {
    release_of_current(to.strip_prefix(RESERVED).ok()?.parent()?)
}

/// The id in `releases/<id>`.
fn release_of_current(to: &Path) -> Option<String> {
    to.strip_prefix("releases").ok()?.to_str().map(str::to_owned)
}

fn taken(path: &Path, by: &str) -> Error {
    Error::volume(format!("{} is in the way", path.display()))
        .because(format!("it is {by} on the same volume"))
        .hint("choose another name with --link NAME, or remove that link if it is not used any more")
}

/// The paths of everything below a directory, in an order that is always the same.
fn list(dir: &Path) -> io::Result<Vec<u8>> {
    let mut names = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            names.extend(entry.path().strip_prefix(dir).map(Path::to_owned));
        }
    }
    names.sort();
    Ok(names.iter().map(|name| name.as_os_str().as_bytes()).collect::<Vec<_>>().join(&0))
}

fn in_the_way(path: &Path) -> Error {
    Error::volume(format!("{} is in the way", path.display()))
        .because("podstrap did not make it, so it stays as it is")
        .hint("move it away, publish under another name with --link NAME, or give podstrap a volume of its own")
}

fn names(dir: &Path) -> Result<Vec<OsString>> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    list().on_volume(|| format!("cannot list {}", dir.display()))
}

/// A directory that everybody can read, and that the root's writers can write to, whatever the umask.
fn make_dir(path: &Path, shared: u32) -> Result<()> {
    let made = match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755 | shared)),
        // Through a link what is somebody else's would be cleared.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                Ok(())
            } else {
                Err(in_the_way(path))
            };
        }
        Err(error) => Err(error),
    };
    made.on_volume(|| format!("cannot make the directory {}", path.display()))
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

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).on_volume(|| format!("cannot sync {}", path.display()))
}

fn random() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(12).map(|c| c.to_ascii_lowercase()).collect()
}

/// A manifest that can be read is written as it was.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    let text = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    let again: Manifest = serde_json::from_slice(&text).expect("it was just written");
    assert_eq!(format!("{again:?}"), format!("{manifest:?}"));
}
