//! Writes an archive's entries, each where it belongs and nowhere else, whatever format brings them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::error::{Error, IoContext, Result, volume_error};
use crate::retry::Deadline;
use crate::size::Size;
use crate::tree::{Written, reserved, set_mode, too_large};

pub(super) const BUFFER: usize = 64 << 10;
/// What the names of directories and links, and the links' targets, may take in memory: a million and
/// more. Files are not remembered.
const MAX_REMEMBERED: usize = 64 << 20;
/// What each of them takes besides its bytes, about.
const OVERHEAD: usize = 96;
/// The longest target of a symbolic link, and the longest path, the NUL at its end included
/// (`PATH_MAX` in limits.h).
pub(super) const PATH_MAX: usize = 4096;
/// How much of a name is shown.
const SHOWN: usize = 200;
/// The last second that every file system can show: an ext4 with small inodes ends there.
const LAST: i64 = i32::MAX as i64;

const PLAIN_HINT: &str = "podstrap unpacks files, directories and symbolic links with relative names: \
                          make the archive anew from the app's own directory, without anything else";
const DAMAGED_HINT: &str = "is all of it there? Compare its size and its checksum with the original's";

/// What may be unpacked, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Without so many leading parts of every name (tar's `--strip-components`: what has no more than
    /// those is left out).
    pub(crate) strip: usize,
    /// A name of podstrap's own, which nothing at the top level may have.
    pub(crate) forbidden: Option<&'static str>,
    /// What the tree may occupy.
    pub(crate) limit: Size,
    pub(crate) deadline: Deadline,
}

/// What an entry is.
pub(super) enum Packed<'e> {
    Directory,
    File {
        executable: bool,
        /// What its contents must come to.
        size: u64,
        contents: &'e mut dyn Read,
    },
    Symlink {
        target: &'e [u8],
    },
    /// The same contents as the earlier file of that name.
    HardLink {
        to: &'e [u8],
    },
}

/// Writes one entry after the other, each where it belongs.
pub(super) struct Unpacker<'a> {
    archive: &'a str,
    tree: &'a Path,
    rules: Rules,
    /// With the time that the archive gives; the tree's top is the empty path.
    directories: BTreeMap<PathBuf, Option<i64>>,
    /// To be made, with target and time.
    links: BTreeMap<PathBuf, (Vec<u8>, i64)>,
    /// What the two take in memory.
    remembered: usize,
    /// What has been written occupies.
    occupied: u64,
    newest: i64,
    top: Top,
    done: Written,
    buffer: Vec<u8>,
}

/// What all names start with.
enum Top {
    Nothing,
    /// One directory, which is part number `usize` of each name.
    One(Vec<u8>, usize),
    Several,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(archive: &'a str, tree: &'a Path, rules: Rules) -> Self {
        Self {
            archive,
            tree,
            rules,
            directories: BTreeMap::new(),
            links: BTreeMap::new(),
            remembered: 0,
            occupied: 0,
            newest: 0,
            top: Top::Nothing,
            done: Written::default(),
            buffer: vec![0; BUFFER],
        }
    }

    /// Makes the tree.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.directory(b"", Path::new(""), None)
    }

    /// What fails if anything does.
    pub(super) fn what(&self) -> String {
        format!("cannot unpack {}", self.archive)
    }

    /// Writes the entry, or remembers it if it is a link. `mtime` is in seconds since 1970.
    pub(super) fn add(&mut self, name: &[u8], mtime: i64, entry: Packed<'_>) -> Result<()> {
        self.in_time()?;
        let Some(path) = self.path(name, name)? else { return Ok(()) };
        let mtime = mtime.clamp(0, LAST);
        if path.as_os_str().is_empty() {
            return match entry {
                Packed::Directory => self.directory(name, &path, Some(mtime)),
                _ => Err(self.refused(name, "is the name of the archive's own top, and no directory")),
            };
        }
        if matches!(self.top, Top::Nothing | Top::One(..)) {
            self.top_of(name, matches!(entry, Packed::Directory));
        }
        if let Some(name) = self.rules.forbidden.filter(|name| path.starts_with(name)) {
            return Err(reserved(format!("{} has an entry {name} at its top level", self.archive)));
        }
        self.parents(name, &path)?;
        self.newest = self.newest.max(mtime);
        match entry {
            Packed::Directory => self.directory(name, &path, Some(mtime)),
            Packed::File { executable, size, contents } => {
                let mut file = self.create(name, &path, size)?;
                self.copy(name, &path, size, contents, &mut file)?;
                self.settle(&path, &file, executable, mtime)
            }
            Packed::HardLink { to } => self.hard_link(name, &path, to, mtime),
            Packed::Symlink { target } => self.link(name, path, target, mtime),
        }
    }

    /// The one directory that everything is in, and which part of a name it is.
    pub(super) fn only_directory(&self) -> Option<(&[u8], usize)> {
        match &self.top {
            Top::One(name, at) => Some((name, *at)),
            _ => None,
        }
    }

    /// Makes the links, gives everything its time, and counts.
    pub(super) fn finish(mut self) -> Result<Written> {
        if self.done.files == 0 && self.links.is_empty() && self.directories.len() == 1 {
            let error = Error::source(self.what());
            return Err(if self.rules.strip == 0 {
                error.because("there is nothing in it")
            } else {
                error
                    .because(format!("with --strip-components {} nothing of it is left", self.rules.strip))
                    .hint("its names have fewer parts than that: give a smaller number")
            });
        }
        if let (0, Some((top, at))) = (self.rules.strip, self.only_directory()) {
            let top = crate::redact::clean(&String::from_utf8_lossy(top)).replace('\n', " ");
            tracing::info!("everything is in the directory {top}: --strip-components {} takes it off", at + 1);
        }
        for (path, (target, mtime)) in std::mem::take(&mut self.links) {
            self.in_time()?;
            let full = self.tree.join(&path);
            symlink(OsStr::from_bytes(&target), &full)
                .map_err(|error| self.unwritten(path.as_os_str().as_bytes(), &path, &error))?;
            set_mtime(&full, mtime).on_volume(|| format!("cannot set the time of {}", full.display()))?;
            self.done.files += 1;
        }
        for (path, mtime) in &self.directories {
            self.in_time()?;
            let full = self.tree.join(path);
            set_mtime(&full, mtime.unwrap_or(self.newest))
                .on_volume(|| format!("cannot set the time of {}", full.display()))?;
        }
        Ok(self.done)
    }

    /// Where a name of the archive is in the tree, or none if it has too few parts.
    fn path(&self, entry: &[u8], name: &[u8]) -> Result<Option<PathBuf>> {
        if name.is_empty() {
            return Err(self.refused(entry, "has an empty name"));
        }
        if name.contains(&0) {
            return Err(self.refused(entry, "has a NUL in its name"));
        }
        if name.starts_with(b"/") {
            return Err(self.refused(entry, "has an absolute name"));
        }
        if parts(name).any(|part| part == b"..") {
            return Err(self.refused(entry, "has `..` in its name, which leads out of the archive"));
        }
        if self.rules.strip > 0 && parts(name).nth(self.rules.strip).is_none() {
            return Ok(None);
        }
        let path: PathBuf =
            parts(name).skip(self.rules.strip).filter(|part| *part != b".").map(OsStr::from_bytes).collect();
        if self.tree.as_os_str().len() + 1 + path.as_os_str().len() >= PATH_MAX {
            return Err(
                self.refused(entry, format!("has a name that is too long: a path has {PATH_MAX} bytes at most"))
            );
        }
        Ok(Some(path))
    }

    /// Learns whether everything is in one directory.
    fn top_of(&mut self, name: &[u8], directory: bool) {
        let mut named = parts(name).enumerate().filter(|(_, part)| *part != b".");
        let Some((at, part)) = named.next() else { return };
        let alone = !directory && named.next().is_none();
        self.top = match &self.top {
            Top::Nothing if !alone => Top::One(part.to_owned(), at),
            Top::One(top, known) if !alone && top == part && *known == at => return,
            _ => Top::Several,
        };
    }

    /// Makes what is missing of the directories that the entry is in.
    fn parents(&mut self, name: &[u8], path: &Path) -> Result<()> {
        let Some(parent) = path.parent().filter(|parent| !self.directories.contains_key(*parent)) else {
            return Ok(());
        };
        let mut at = PathBuf::new();
        for part in parent {
            at.push(part);
            self.directory(name, &at, None)?;
        }
        Ok(())
    }

    fn directory(&mut self, name: &[u8], path: &Path, mtime: Option<i64>) -> Result<()> {
        if let Some(known) = self.directories.get_mut(path) {
            *known = mtime.or(*known);
            return Ok(());
        }
        if self.links.contains_key(path) {
            return Err(self.no_directory(name, path, "symbolic link"));
        }
        self.count(0)?;
        self.remember(name, path.as_os_str().len())?;
        let full = self.tree.join(path);
        match fs::create_dir(&full).and_then(|()| set_mode(&full, 0o755)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.as_os_str().is_empty() => {
                return Err(self.no_directory(name, path, "file"));
            }
            Err(error) => return Err(self.unwritten(name, path, &error)),
        }
        self.directories.insert(path.to_owned(), mtime);
        Ok(())
    }

    fn no_directory(&self, name: &[u8], path: &Path, kind: &str) -> Error {
        let path = shown(path.as_os_str().as_bytes());
        self.refused(name, format!("needs the directory {path}, which is a {kind} of the archive"))
    }

    /// A new file for so many bytes.
    fn create(&mut self, name: &[u8], path: &Path, size: u64) -> Result<File> {
        self.free(name, path)?;
        self.count(size)?;
        File::create_new(self.tree.join(path)).map_err(|error| self.unwritten(name, path, &error))
    }

    /// Nothing of that name has been there.
    fn free(&self, name: &[u8], path: &Path) -> Result<()> {
        if self.links.contains_key(path) || fs::symlink_metadata(self.tree.join(path)).is_ok() {
            return Err(self.twice(name));
        }
        Ok(())
    }

    pub(super) fn twice(&self, name: &[u8]) -> Error {
        self.refused(name, "is in it twice")
    }

    /// Writes what must be `size` bytes.
    fn copy(&mut self, name: &[u8], path: &Path, size: u64, from: &mut dyn Read, to: &mut File) -> Result<()> {
        let mut left = size;
        loop {
            self.in_time()?;
            let length = match from.read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.damaged(name, &error)),
            };
            let Some(chunk) = self.buffer.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
            left = left
                .checked_sub(length as u64)
                .ok_or_else(|| self.damaged(name, &"it has more contents than the archive says"))?;
            to.write_all(chunk).map_err(|error| self.unwritten(name, path, &error))?;
        }
        if left > 0 {
            return Err(self.damaged(name, &format!("{left} bytes of its contents are missing")));
        }
        Ok(())
    }

    /// Gives a written file its mode and its time.
    fn settle(&mut self, path: &Path, file: &File, executable: bool, mtime: i64) -> Result<()> {
        let full = self.tree.join(path);
        let mode = fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 });
        let length = file
            .set_permissions(mode)
            .and_then(|()| set_mtime(&full, mtime))
            .and_then(|()| file.metadata())
            .on_volume(|| format!("cannot finish {}", full.display()))?
            .len();
        self.done.files += 1;
        self.done.bytes += length;
        Ok(())
    }

    /// A copy: whoever changes one of the two does not mean the other.
    fn hard_link(&mut self, name: &[u8], path: &Path, to: &[u8], mtime: i64) -> Result<()> {
        let refused = |unpacker: &Self| {
            unpacker.refused(name, format!("is a hard link to {}, which is no earlier file of the archive", shown(to)))
        };
        // Links are not made yet: what is found was written before.
        let earlier = self.path(name, to)?.filter(|earlier| !earlier.as_os_str().is_empty());
        let full = self.tree.join(earlier.ok_or_else(|| refused(self))?);
        let meta = fs::symlink_metadata(&full).ok().filter(fs::Metadata::is_file).ok_or_else(|| refused(self))?;
        let mut from = File::open(&full).on_volume(|| format!("cannot read {}", full.display()))?;
        let mut file = self.create(name, path, meta.len())?;
        self.copy(name, path, meta.len(), &mut from, &mut file)?;
        self.settle(path, &file, meta.permissions().mode() & 0o100 != 0, mtime)
    }

    fn link(&mut self, name: &[u8], path: PathBuf, target: &[u8], mtime: i64) -> Result<()> {
        if target.is_empty() || target.contains(&0) || target.len() >= PATH_MAX {
            return Err(self.refused(name, format!("is a symbolic link to {}, which is no path", shown(target))));
        }
        self.free(name, &path)?;
        self.count(target.len() as u64)?;
        self.remember(name, path.as_os_str().len() + target.len())?;
        self.links.insert(path, (target.to_owned(), mtime));
        Ok(())
    }

    /// Counts what an entry will occupy, before it is written.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.occupied = self.occupied.saturating_add(Size::occupied(bytes));
        if self.occupied > self.rules.limit.0 {
            return Err(too_large(&self.what(), "the files come to", self.occupied, self.rules.limit));
        }
        Ok(())
    }

    fn remember(&mut self, name: &[u8], bytes: usize) -> Result<()> {
        self.remembered += bytes + OVERHEAD;
        if self.remembered > MAX_REMEMBERED {
            let most = Size(MAX_REMEMBERED as u64);
            return Err(self.refused(name, format!("is one too many: names of directories and links fill {most}")));
        }
        Ok(())
    }

    pub(super) fn in_time(&self) -> Result<()> {
        if self.rules.deadline.passed() { Err(self.rules.deadline.late(&self.what())) } else { Ok(()) }
    }

    /// An entry that no archive of an app has.
    pub(super) fn refused(&self, name: &[u8], why: impl Display) -> Error {
        Error::source(self.what()).because(format!("{} {why}", shown(name))).hint(PLAIN_HINT)
    }

    /// The archive is not what was packed, at this entry.
    pub(super) fn damaged(&self, name: &[u8], why: &dyn Display) -> Error {
        Error::source(self.what())
            .because(format!("{} is damaged or incomplete", shown(name)))
            .because(why.to_string())
            .hint(DAMAGED_HINT)
    }

    /// The archive is not what was packed, nobody knows at which entry.
    pub(super) fn damaged_somewhere(&self, why: &dyn Display) -> Error {
        Error::source(self.what()).because("it is damaged or incomplete").because(why.to_string()).hint(DAMAGED_HINT)
    }

    fn unwritten(&self, name: &[u8], path: &Path, error: &io::Error) -> Error {
        match error.kind() {
            // On a file system that takes two names for one.
            ErrorKind::AlreadyExists => self.twice(name),
            ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
                Error::source(self.what()).because(format!("{} cannot be made: {error}", shown(name)))
            }
            _ => volume_error(format!("cannot write {}", self.tree.join(path).display()), error),
        }
    }
}

/// The parts of a name, as tar counts them: `.` is one, several slashes are as good as one.
fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// A name for a message: one line, and not too long.
fn shown(name: &[u8]) -> String {
    match name.get(..SHOWN) {
        Some(start) => format!("{:?}…", String::from_utf8_lossy(start)),
        None => format!("{:?}", String::from_utf8_lossy(name)),
    }
}

/// Of what is there itself, also if it is a link.
fn set_mtime(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A comment for the log: `git archive` puts the commit there.
pub(super) fn one_line(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(SHOWN).collect();
    crate::redact::clean(&text).replace('\n', " ")
}
