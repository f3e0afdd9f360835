//! A store in a directory that several Pods mount.
//!
//! ```text
//! DIR/v1-<key>.json           the manifest of an entry
//! DIR/v1-<sha256>.tar.zst     its archive
//! DIR/v1-<key>.used           modified when somebody last used the entry
//! DIR/v1-<key>.lease          somebody builds the entry
//! DIR/v1-<random>.tmp         not complete; old ones are leftovers
//! ```
//!
//! The directory's owner decides who may read and write: podstrap creates no directory, and a new file is readable for
//! everybody who can read the directory. Nobody writes to an existing file, except to a lease of its own.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::Mode;

use super::entry::{self, Archive, Draft, Manifest};
use super::transfer;
use super::unusable::Unusable;
use crate::dir::{Dir, random};
use crate::error::{Error, IoContext, Result};
use crate::files;
use crate::retry::Deadline;
use crate::signature::Signer;

/// The start of every name, with the version of the layout. Other files are not podstrap's.
const START: &str = "v1-";
/// A mark of use is not renewed before it has this age.
const FRESH: Duration = Duration::from_mins(1);

/// An open store.
#[derive(Debug)]
pub(super) struct Directory {
    dir: Dir,
    /// The mode of new files.
    mode: u32,
}

/// The kinds of files, by the ends of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Manifest,
    Archive,
    Used,
    Lease,
    Unfinished,
}

/// A file of the store.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) what: What,
    /// The key, or the hash of an archive.
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) modified: SystemTime,
}

impl What {
    fn end(self) -> &'static str {
        match self {
            Self::Manifest => ".json",
            Self::Archive => ".tar.zst",
            Self::Used => ".used",
            Self::Lease => ".lease",
            Self::Unfinished => ".tmp",
        }
    }

    pub(super) fn file(self, name: &str) -> String {
        format!("{START}{name}{}", self.end())
    }

    fn of(file: &str) -> Option<(Self, &str)> {
        let name = file.strip_prefix(START)?;
        let all = [Self::Manifest, Self::Archive, Self::Used, Self::Lease, Self::Unfinished];
        let (what, name) = all.into_iter().find_map(|what| Some((what, name.strip_suffix(what.end())?)))?;
        // Other files are not podstrap's.
        let is_hash = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_hash || what == Self::Unfinished).then_some((what, name))
    }
}

impl Directory {
    /// # Errors
    /// Volume: it is missing or unreadable.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let what = || format!("cannot open the store {}", path.display());
        let dir = Dir::open(path).map_err(|error| {
            let hint = "mount a directory there that podstrap's user can read";
            Error::volume(what()).because(error).hint(hint)
        })?;
        let mode = dir.metadata().on_volume(what)?.st_mode;
        Ok(Self { dir, mode: 0o600 | mode & 0o044 })
    }

    /// The text of a manifest; `None` if there is no such entry.
    pub(super) fn manifest(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let name = What::Manifest.file(key);
        files::unless_absent(self.dir.read(&name, files::WRITTEN))
            .on_volume(|| format!("cannot read {}", self.dir.path().join(&name).display()))
    }

    /// The archive of an entry, if it has the right length.
    pub(super) fn archive(&self, archive: &Archive) -> Result<File, Unusable> {
        let failed = |error: io::Error| Unusable::Failed(Error::volume("cannot read the archive").because(error));
        let file = match self.dir.file(What::Archive.file(&archive.sha256)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Unusable::damaged("it is missing")),
            Err(error) => return Err(failed(error)),
        };
        match file.metadata().map_err(failed)?.len() {
            length if length == archive.bytes => Ok(file),
            length => Err(Unusable::length(length, archive.bytes)),
        }
    }

    /// Saves an environment as an entry. Replaces an entry of the same key.
    ///
    /// # Errors
    /// Volume: the store is full or not writable. Environment: it has files that an archive cannot hold.
    pub(super) fn save(
        &self,
        draft: &Draft,
        venv: &Path,
        signer: Option<&Signer>,
        deadline: Deadline,
    ) -> Result<Manifest> {
        let what = || format!("cannot save the environment in the store {}", self.dir.path().display());
        let unfinished = self.create().on_volume(what)?;
        let archive = transfer::pack(venv, &mut &unfinished.file, &what(), deadline)?;
        let manifest = Manifest::new(draft, archive);
        let before = self.archive_of(&draft.key);
        let is_new = before.as_ref() != Some(&manifest.archive);
        unfinished.publish(&What::Archive.file(&manifest.archive.sha256)).on_volume(what)?;
        let text = manifest.seal(signer)?;
        if let Err(error) = self.put(&What::Manifest.file(&draft.key), &text) {
            // A full store, or another user's entry in a sticky directory. Nothing would name the archive.
            if is_new {
                let _ = self.remove(What::Archive, &manifest.archive.sha256);
            }
            return Err(error).on_volume(what);
        }
        // Somebody may be about to read the replaced archive: it becomes a leftover only now.
        let replaced =
            before.filter(|_| is_new).and_then(|before| self.dir.file(What::Archive.file(&before.sha256)).ok());
        let _ = replaced.map(|file| file.set_modified(SystemTime::now()));
        self.dir.sync().on_volume(what)?;
        Ok(manifest)
    }

    /// The archive of an entry, if its manifest is readable.
    fn archive_of(&self, key: &str) -> Option<Archive> {
        Some(entry::open(&self.manifest(key).ok()??, key, None).ok()?.archive)
    }

    /// Deletes an entry, as far as possible, unless another one has replaced it.
    pub(super) fn discard(&self, manifest: &Manifest) -> Result<()> {
        if self.archive_of(&manifest.key).is_some_and(|now| now != manifest.archive) {
            return Ok(());
        }
        self.remove(What::Manifest, &manifest.key)?;
        self.remove(What::Archive, &manifest.archive.sha256)
    }

    /// # Errors
    /// Volume: it is there, and cannot be deleted.
    pub(super) fn remove(&self, what: What, name: &str) -> Result<()> {
        let file = what.file(name);
        let removed = files::unless_absent(self.dir.remove_file(&file));
        removed.map(drop).on_volume(|| format!("cannot delete {}", self.dir.path().join(&file).display()))
    }

    /// Notes that somebody uses an entry now. A store that cannot be written has no such notes.
    pub(super) fn touch(&self, key: &str) {
        let name = What::Used.file(key);
        let used = self.dir.entry(&name).ok().flatten().map(|stat| modified(&stat));
        if used.and_then(|used| used.elapsed().ok()).is_some_and(|age| age < FRESH) {
            return;
        }
        // It need not survive a power cut, so nothing waits for the disk.
        if let Err(error) = self.create().and_then(|mark| mark.rename(&name)) {
            tracing::debug!("cannot note the use of an entry of the store: {error}");
        }
    }

    /// All files of the store.
    ///
    /// # Errors
    /// Volume: it cannot be listed.
    pub(super) fn list(&self) -> Result<Vec<Found>> {
        let what = || format!("cannot list the store {}", self.dir.path().display());
        let mut found = Vec::new();
        for file in self.dir.names().on_volume(what)?.into_iter().filter_map(|name| name.into_string().ok()) {
            let Some((what, name)) = What::of(&file) else { continue };
            // It may be gone meanwhile.
            let Ok(Some(stat)) = self.dir.entry(&file) else { continue };
            let bytes = stat.st_size.try_into().unwrap_or(0);
            found.push(Found { what, name: name.to_owned(), bytes, modified: modified(&stat) });
        }
        found.sort_by(|one, other| (&one.name, one.what).cmp(&(&other.name, other.what)));
        Ok(found)
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Creates a file that is not an entry yet.
    fn create(&self) -> io::Result<Unfinished<'_>> {
        let name = What::Unfinished.file(&random());
        let file = self.dir.create_file(&name)?;
        // Some network file systems decide the modes themselves.
        let _ = rustix::fs::fchmod(&file, Mode::from(self.mode));
        Ok(Unfinished { place: self, name: Some(name), file })
    }

    /// Writes a small file. Replaces an existing one.
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.create()?;
        (&unfinished.file).write_all(bytes)?;
        unfinished.publish(name)
    }
}

/// A file under a temporary name. Its drop deletes it.
struct Unfinished<'a> {
    place: &'a Directory,
    name: Option<String>,
    file: File,
}

impl Unfinished<'_> {
    /// Writes it to disk, then gives it its name.
    fn publish(self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        self.rename(name)
    }

    fn rename(mut self, name: &str) -> io::Result<()> {
        let temporary = self.name.clone().unwrap_or_default();
        self.place.dir.rename(&temporary, &self.place.dir, name)?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = self.place.dir.remove_file(name);
        }
    }
}

fn modified(stat: &rustix::fs::Stat) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(stat.st_mtime.try_into().unwrap_or(0))
}
